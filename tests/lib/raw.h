/* SPDX-License-Identifier: Apache-2.0
 *
 * A client of the peer protocol that does just what a test says, right or wrong: plain blocking
 * sockets, one frame at a time.
 *
 * Everything asserts (libcheck) but what a test wants to know.  Receiving gives up after 20 s.
 */
#ifndef REMRAM_TESTS_RAW_H
#define REMRAM_TESTS_RAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/frame.h"

struct raw {
	int fd;
	uint64_t next_id;
	unsigned notices; /* received; raw_recv passes them over */
	struct pool_notice notice; /* the last one */
	struct frame_rep rep; /* the last reply, and its payload */
	uint8_t data[FRAME_DATA_MAX + 1]; /* a NUL follows */
};

void raw_connect(struct raw *raw, uint16_t port);
void raw_close(struct raw *raw);

/* Sends bytes as they are; false: the other side has ended the connection. */
bool raw_bytes(struct raw *raw, const void *bytes, size_t len);
/* Sends a frame; payload is set from len, id from next_id if it is 0.  The id. */
uint64_t raw_send(struct raw *raw, struct frame_req frame, const void *body, size_t len);
/* Receives a reply into rep and data; false: the connection has ended.  NOTICEs are counted. */
bool raw_recv(struct raw *raw);
/* Waits until `count` NOTICEs have come in all: nothing else may come but them. */
void raw_notices(struct raw *raw, unsigned count);
/* Acknowledges the last one. */
void raw_notice_ack(struct raw *raw);
/* The two together, for one frame that is answered: the status as -errno.  Unasked replies to PING are
 * passed over. */
int raw_ask(struct raw *raw, struct frame_req frame, const void *body, size_t len);
/* A control request: encodes it, asks, and on success decodes the result into req. */
int raw_control(struct raw *raw, struct pool_req *req, uint64_t id, uint8_t flags);

/* True if the other side ends the connection within `seconds`; what it sends until then is dropped. */
bool raw_ended(struct raw *raw, unsigned seconds);

/* HELLO as written; -errno and rep, data; ret_welcome may be NULL. */
int raw_hello(struct raw *raw, const struct frame_hello *hello, struct frame_welcome *ret_welcome);
/* A session of its own for each seed. */
struct frame_hello raw_session(const char *pool, unsigned seed, uint64_t epoch);
/* raw_connect and a HELLO that must succeed. */
void raw_open(struct raw *raw, uint16_t port, const char *pool, unsigned seed, uint64_t epoch);

/* Region requests that must succeed. */
void raw_create(struct raw *raw, const char *name, uint32_t number);
/* … with their status. */
int raw_write(struct raw *raw, uint32_t handle, uint64_t off, const void *buf, uint32_t len);
int raw_read(struct raw *raw, uint32_t handle, uint64_t off, void *buf, uint32_t len);

#endif
