/* SPDX-License-Identifier: Apache-2.0
 *
 * An NBD client that does just what a test says, right or wrong: plain blocking sockets, one thing at a time.
 *
 * Everything asserts (libcheck) but what a test wants to know.  Receiving gives up after 20 s.
 */
#ifndef REMRAM_TESTS_NBDRAW_H
#define REMRAM_TESTS_NBDRAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "export/nbd_wire.h"

enum { NBDRAW_DATA_MAX = 33 << 20, NBDRAW_CHUNKS_MAX = 64, NBDRAW_EXTENTS_MAX = 1024 };

/* A structured (or extended) reply chunk as it came; a simple reply is type NONE with `simple`. */
struct nbdraw_chunk {
	bool simple;
	uint16_t flags, type;
	uint64_t cookie, off, len; /* off: of DATA and HOLE; len: of their bytes */
	uint32_t error;
};

struct nbdraw_extent {
	uint64_t len, state;
};

struct nbdraw {
	int fd;
	enum nbd_mode mode;
	uint64_t cookie;
	/* The last option reply. */
	uint32_t reply_option, reply_type, reply_len;
	uint8_t reply[8192];
	/* What GO or EXPORT_NAME said. */
	uint64_t size;
	uint16_t flags;
	/* The last command's reply. */
	struct nbdraw_chunk chunks[NBDRAW_CHUNKS_MAX];
	unsigned chunk_count;
	uint8_t *data; /* what READ got; holes are zeros */
	struct nbdraw_extent extents[4][NBDRAW_EXTENTS_MAX]; /* by context id */
	unsigned extent_count[4];
};

/* Connects to a Unix socket, and receives the greeting; then, unless flags is UINT32_MAX, sends them. */
void nbdraw_connect(struct nbdraw *raw, const char *path, uint32_t flags);
void nbdraw_close(struct nbdraw *raw);

/* False: the other side has ended the connection. */
bool nbdraw_bytes(struct nbdraw *raw, const void *bytes, size_t len);
bool nbdraw_recv(struct nbdraw *raw, void *bytes, size_t len);
/* True if the other side ends the connection within `seconds`; what it sends until then is dropped. */
bool nbdraw_ended(struct nbdraw *raw, unsigned seconds);

void nbdraw_option(struct nbdraw *raw, uint32_t option, const void *data, size_t len);
/* The next option reply, into reply_*; false: the connection has ended. */
bool nbdraw_reply(struct nbdraw *raw);
/* The two together: the first reply's type. */
uint32_t nbdraw_ask(struct nbdraw *raw, uint32_t option, const void *data, size_t len);

/* The data of INFO and GO, and of the META_CONTEXT options (queries: NULL at the end); the length. */
size_t nbdraw_go_data(
    uint8_t *buf, const char *name, size_t name_len, const uint16_t *infos, unsigned count);
size_t nbdraw_meta_data(uint8_t *buf, const char *name, const char *const *queries);

/* Negotiates a mode, and contexts (NULL: none), and opens an export, all of which must succeed. */
void nbdraw_open(struct nbdraw *raw, const char *path, enum nbd_mode mode, const char *name,
    const char *const *contexts);

/* Sends a request, with a payload if there is one; the cookie. */
uint64_t nbdraw_request(struct nbdraw *raw, uint16_t flags, uint16_t type, uint64_t off,
    uint64_t len, const void *payload);
/* Receives one reply or chunk; false: the connection has ended. off: of its request (UINT64_MAX: of any that
 * is no READ); expect: the length if it is a READ's. */
bool nbdraw_chunk(
    struct nbdraw *raw, uint64_t off, uint64_t expect, struct nbdraw_chunk *ret_chunk);
/* A request and all of its reply: the NBD error or 0. */
uint32_t nbdraw_cmd(struct nbdraw *raw, uint16_t flags, uint16_t type, uint64_t off, uint64_t len,
    const void *payload);

#endif
