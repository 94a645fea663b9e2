/* SPDX-License-Identifier: Apache-2.0
 *
 * A donor for tests of the client that does just what a script says, on a thread of its own: it takes
 * connections one after the other and plays them.  One at a time, with one client.
 *
 * Everything asserts (libcheck); waiting gives up after 20 or 30 s.
 */
#ifndef REMRAM_TESTS_SCRIPT_H
#define REMRAM_TESTS_SCRIPT_H

#include "core/frame.h"
#include "tests/lib/serve.h"

enum { SCRIPT_LEN = 64 * 1024, SCRIPT_BODY = 1 << 20 };

struct script {
	int listen, fd;
	uint16_t port;
	_Atomic unsigned connections;
	pthread_t thread;
	void (*script)(struct script *d);
	struct frame_req req; /* the last request, and its payload */
	uint8_t body[SCRIPT_BODY];
	uint64_t epoch;
	uint8_t uuid; /* of the pool */
};

extern struct script script_donor;
extern struct rig script_rig; /* one loop, one worker */
extern struct client script_client;
extern uint8_t script_data[SCRIPT_LEN]; /* what a region holds */

/* ---- the test ---- */

/* Starts the rig, and the script on its thread. */
void script_begin(void (*script)(struct script *d));
/* The client, of pool "ram": 0 or the error. */
int script_open_client(uint64_t look_ms, struct err *err);
void script_end(void);

/* The test and the script wait for each other: step n is reached; until it is. */
void script_reach(unsigned n);
void script_wait_for(unsigned n);

/* ---- the script ---- */

/* Accepts the next connection and reads its HELLO; false: the test is over. */
bool script_take(struct script *d);
void script_put_welcome(struct script *d, uint8_t flags);
/* The two together. */
bool script_meet(struct script *d, uint8_t flags);

/* The next request but PINGs, which are answered; false: the client has ended the connection. */
bool script_next(struct script *d);
/* It must be one of this operation. */
bool script_expect_op(struct script *d, uint8_t op);

void script_put(struct script *d, struct frame_rep rep, const void *payload, size_t len);
/* Answers the last request with success. */
void script_answer(struct script *d, uint8_t flags, const void *payload, size_t len);
void script_answer_attr(struct script *d, uint64_t id);
/* Serves well until the connection ends. */
void script_serve(struct script *d);

#endif
