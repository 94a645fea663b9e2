/* SPDX-License-Identifier: Apache-2.0
 *
 * The bytes of the NBD protocol, as a server sees them: what a client sends is taken apart here and
 * nowhere else, what it is sent is put together here.  docs/NBD.md says which parts of the protocol are
 * spoken, and how.
 *
 * Nothing here keeps state, allocates or blocks.  The numbers are those of the NBD specification
 * (doc/proto.md of the nbd project); everything on the wire is big-endian.
 */
#ifndef REMRAM_EXPORT_NBD_WIRE_H
#define REMRAM_EXPORT_NBD_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	NBD_GREETING_LEN = 18,
	NBD_CLIENT_FLAGS_LEN = 4,
	NBD_OPTION_LEN = 16, /* an option's header */
	NBD_OPTION_REPLY_LEN = 20, /* a reply's header */
	NBD_LEGACY_LEN = 10, /* what answers EXPORT_NAME … */
	NBD_LEGACY_PAD = 124, /* … and follows unless the client wants no zeros */
	NBD_REQUEST_LEN = 28, /* compact */
	NBD_EXT_REQUEST_LEN = 32, /* extended */
	NBD_SIMPLE_LEN = 16, /* a simple reply */
	NBD_CHUNK_LEN = 20, /* a structured reply chunk's header */
	NBD_EXT_CHUNK_LEN = 32, /* an extended one's */
	NBD_CHUNK_HEAD_MAX =
	    NBD_EXT_CHUNK_LEN + 12, /* with what precedes data, or is all of a hole */
	NBD_NAME_MAX = 4096, /* bytes of an export's name, and of any other string */
	NBD_QUERIES_MAX = 16, /* of one META_CONTEXT option that are looked at */
};

enum nbd_flag_global { NBD_FIXED_NEWSTYLE = 1, NBD_NO_ZEROES = 2 };

enum nbd_option {
	NBD_O_EXPORT_NAME = 1,
	NBD_O_ABORT = 2,
	NBD_O_LIST = 3,
	NBD_O_STARTTLS = 5,
	NBD_O_INFO = 6,
	NBD_O_GO = 7,
	NBD_O_STRUCTURED_REPLY = 8,
	NBD_O_LIST_META_CONTEXT = 9,
	NBD_O_SET_META_CONTEXT = 10,
	NBD_O_EXTENDED_HEADERS = 11,
};

#define NBD_R_ERROR ((uint32_t)1 << 31)
#define NBD_R_ERR_UNSUP (NBD_R_ERROR | 1)
#define NBD_R_ERR_POLICY (NBD_R_ERROR | 2)
#define NBD_R_ERR_INVALID (NBD_R_ERROR | 3)
#define NBD_R_ERR_PLATFORM (NBD_R_ERROR | 4)
#define NBD_R_ERR_UNKNOWN (NBD_R_ERROR | 6)
#define NBD_R_ERR_SHUTDOWN (NBD_R_ERROR | 7)
#define NBD_R_ERR_TOO_BIG (NBD_R_ERROR | 9)
#define NBD_R_ERR_EXT_HEADER_REQD (NBD_R_ERROR | 10)

enum nbd_reply { NBD_R_ACK = 1, NBD_R_SERVER = 2, NBD_R_INFO = 3, NBD_R_META_CONTEXT = 4 };

enum nbd_info {
	NBD_I_EXPORT = 0,
	NBD_I_NAME = 1,
	NBD_I_DESCRIPTION = 2,
	NBD_I_BLOCK_SIZE = 3,
};

enum nbd_flag_export {
	NBD_HAS_FLAGS = 1 << 0,
	NBD_READ_ONLY = 1 << 1,
	NBD_SEND_FLUSH = 1 << 2,
	NBD_SEND_FUA = 1 << 3,
	NBD_SEND_TRIM = 1 << 5,
	NBD_SEND_WRITE_ZEROES = 1 << 6,
	NBD_SEND_DF = 1 << 7,
	NBD_CAN_MULTI_CONN = 1 << 8,
	NBD_SEND_CACHE = 1 << 10,
	NBD_SEND_FAST_ZERO = 1 << 11,
};

enum nbd_command {
	NBD_C_READ = 0,
	NBD_C_WRITE = 1,
	NBD_C_DISC = 2,
	NBD_C_FLUSH = 3,
	NBD_C_TRIM = 4,
	NBD_C_CACHE = 5,
	NBD_C_WRITE_ZEROES = 6,
	NBD_C_BLOCK_STATUS = 7,
};

enum nbd_flag_command {
	NBD_F_FUA = 1 << 0,
	NBD_F_NO_HOLE = 1 << 1,
	NBD_F_DF = 1 << 2,
	NBD_F_REQ_ONE = 1 << 3,
	NBD_F_FAST_ZERO = 1 << 4,
	NBD_F_PAYLOAD_LEN = 1 << 5,
};

enum nbd_chunk {
	NBD_CHUNK_NONE = 0,
	NBD_CHUNK_DATA = 1,
	NBD_CHUNK_HOLE = 2,
	NBD_CHUNK_STATUS = 5,
	NBD_CHUNK_STATUS_EXT = 6,
	NBD_CHUNK_ERROR = 0x8001,
	NBD_CHUNK_ERROR_OFFSET = 0x8002,
};

enum { NBD_CHUNK_DONE = 1 /* flag: the reply's last chunk */ };

enum nbd_errno {
	NBD_EPERM = 1,
	NBD_EIO = 5,
	NBD_ENOMEM = 12,
	NBD_EINVAL = 22,
	NBD_ENOSPC = 28,
	NBD_EOVERFLOW = 75,
	NBD_ENOTSUP = 95,
	NBD_ESHUTDOWN = 108,
};

/* How replies look, as negotiated. */
enum nbd_mode { NBD_SIMPLE, NBD_STRUCTURED, NBD_EXTENDED };

/* -errno (or 0) → what a client is told. */
uint32_t nbd_wire_errno(int err);

/* ---- big-endian numbers; each returns the place behind ---- */

uint8_t *nbd_put16(uint8_t *p, uint16_t v);
uint8_t *nbd_put32(uint8_t *p, uint32_t v);
uint8_t *nbd_put64(uint8_t *p, uint64_t v);
uint16_t nbd_get16(const uint8_t *p);
uint32_t nbd_get32(const uint8_t *p);
uint64_t nbd_get64(const uint8_t *p);

/* ---- the handshake ---- */

void nbd_wire_greeting(uint8_t buf[NBD_GREETING_LEN]);

/* An option's header: 0, or -EPROTO for another magic. */
int nbd_wire_option(const uint8_t buf[NBD_OPTION_LEN], uint32_t *ret_option, uint32_t *ret_len);

/* A reply's header; the place behind. */
uint8_t *nbd_wire_reply(uint8_t *p, uint32_t option, uint32_t type, uint32_t len);

struct nbd_name {
	const uint8_t *bytes; /* in the option's data; not NUL-terminated */
	size_t len;
};

/* The data of INFO or GO. */
struct nbd_go {
	struct nbd_name name;
	bool want_name, want_description, want_block_size;
};

/* 0; -EINVAL (malformed); -ENAMETOOLONG (the name). */
int nbd_wire_go(const uint8_t *data, size_t len, struct nbd_go *ret_go);

/* The data of LIST_META_CONTEXT or SET_META_CONTEXT. */
struct nbd_meta {
	struct nbd_name name;
	uint32_t count; /* as the client said */
	unsigned kept; /* of them in queries: the first NBD_QUERIES_MAX */
	struct nbd_name queries[NBD_QUERIES_MAX];
};

/* As nbd_wire_go; a query that is too long is malformed. */
int nbd_wire_meta(const uint8_t *data, size_t len, struct nbd_meta *ret_meta);

/* ---- transmission ---- */

struct nbd_request {
	uint16_t flags; /* of enum nbd_flag_command, or unknown ones */
	uint16_t type; /* of enum nbd_command, or an unknown one */
	uint64_t cookie, off, len;
	uint64_t payload; /* bytes that follow */
};

/* A request's header (NBD_REQUEST_LEN or, in extended mode, NBD_EXT_REQUEST_LEN bytes): 0, or -EPROTO for
 * another magic. */
int nbd_wire_request(const uint8_t *buf, enum nbd_mode mode, struct nbd_request *ret_request);

/* Whether a request may be carried out on an export of `size` bytes: 0 or what it is answered with. */
uint32_t nbd_wire_check(
    const struct nbd_request *request, enum nbd_mode mode, uint64_t size, bool read_only);

/* A simple reply; the place behind. */
uint8_t *nbd_wire_simple(uint8_t *p, uint32_t error, uint64_t cookie);

/* A chunk's header for len bytes of payload; the place behind. */
uint8_t *nbd_wire_chunk(uint8_t *p, enum nbd_mode mode, const struct nbd_request *request,
    enum nbd_chunk type, uint16_t flags, uint32_t len);
/* Whole chunks, or the beginning of one whose data follows. */
uint8_t *nbd_wire_data(uint8_t *p, enum nbd_mode mode, const struct nbd_request *request,
    uint16_t flags, uint64_t off, uint32_t len);
uint8_t *nbd_wire_hole(uint8_t *p, enum nbd_mode mode, const struct nbd_request *request,
    uint16_t flags, uint64_t off, uint32_t len);
uint8_t *nbd_wire_error(uint8_t *p, enum nbd_mode mode, const struct nbd_request *request,
    uint16_t flags, uint32_t error);

#endif
