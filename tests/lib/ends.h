/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests of connections that carry frames.  A test has ends: each is a connection on one side of a socket
 * pair, or that side's plain descriptor.  A frame's header is its payload's length and its number; the
 * payload's bytes follow from both, and each end checks them.
 *
 * The test's own thread runs the loop.  Everything asserts (libcheck).
 */
#ifndef REMRAM_TESTS_ENDS_H
#define REMRAM_TESTS_ENDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/conn.h"

enum { END_HEADER = 8, END_PAYLOAD_MAX = 3 << 20, END_OUTS = 4096 };

enum end_close_in { END_IN_NOTHING, END_IN_HEADER, END_IN_FRAME, END_IN_SENT, END_IN_CLOSED };

struct end {
	struct conn *conn; /* NULL once closed */

	/* What the handlers do. */
	enum end_close_in close_in; /* where to call conn_close */
	unsigned pause_at; /* header() gives -EAGAIN for this frame … */
	unsigned pauses; /* … so often */
	int header_rc, frame_rc; /* what header() and frame() of frame fail_at return */
	unsigned fail_at;
	unsigned stop_after; /* frames; then the loop stops */
	bool pipes; /* header() wants a pipe for long payloads */
	unsigned leave; /* bytes of a piped payload that frame() does not take */

	/* What they saw. */
	unsigned headers, frames, sents, closeds, sent_errors, piped;
	int closed_err, sent_err;
	uint32_t len;
	uint8_t *payload;
};

struct end_out {
	struct conn_out out; /* first */
	struct end *end;
	unsigned number;
	uint8_t header[END_HEADER];
	uint8_t *payload;
};

struct ends {
	struct loop *loop;
	struct end a, b;
	struct end_out outs[END_OUTS];
};

extern struct ends ends;
extern const struct conn_handlers end_handlers; /* their owner is a struct end */

/* A fixture: a loop, two ends without a connection; all that was sent has been reported. */
void ends_setup(void);
void ends_teardown(void);

/* A socket pair; buffer: bytes of its send buffers, 0 as they are. */
void ends_pair(int fds[2], int buffer);
/* Runs the loop for so long. */
void ends_run_ms(unsigned ms);
/* … until something has happened. */
#define ENDS_RUN_UNTIL(condition) \
	for (unsigned tries_ = 0; !(condition) && tries_ < 10000; tries_++) \
	ends_run_ms(1)

/* A connection on fd, which is its own from then on. */
void end_open(struct end *end, int fd);
void end_close(struct end *end);
/* Of an end that is not one of `ends`, whose payload it frees. */
void end_fini(struct end *end);

/* Sends frame `number` of an end, cut into pieces. */
void end_send(struct end *end, unsigned number, uint32_t len, bool pieces);
/* A plain writer's frames: puts one into buf; how many bytes. */
size_t end_put(uint8_t *buf, uint32_t number, uint32_t len);
/* Sizes around what a receiver's stage holds, and others, of random(3). */
uint32_t end_size_of(unsigned number);

#endif
