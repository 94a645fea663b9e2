/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection's share of what the connections of its loop have together: buffers, the queue of those that
 * wait for some, and the check that nobody keeps what others need.
 *
 * Embedded in each protocol's connection.  Loop thread only.
 */
#ifndef REMRAM_EXPORT_SHARE_H
#define REMRAM_EXPORT_SHARE_H

#include <stdbool.h>
#include <stdint.h>

struct bufpool;
struct conn;
struct server_loop;

struct share {
	struct server_loop *sl;
	void (*wake)(struct share *share);
	unsigned small_held, big_held; /* buffers */
	bool waiting; /* stands in sl->waiting */
	struct share *next_waiting;
	/* For share_stalled: when bytes moved last, or there were none to move. */
	uint64_t out_ns, in_ns, bytes_out, bytes_in;
};

/* wake is called when memory has come back and it is this one's turn to try again. */
void share_init(struct share *share, struct server_loop *sl, void (*wake)(struct share *share));

/* A buffer of sl->small or sl->big; NULL when all are out, or when this connection holds more than are
 * left: so one connection leaves half to the others, two leave a third, and one more always finds some. */
void *share_get(struct share *share, struct bufpool *bufs);
void share_put(struct share *share, struct bufpool *bufs, void *buf);

/* The connection waits for memory, or no longer; the first that waits may try again. */
void share_wait(struct share *share);
void share_leave(struct share *share);
void share_wake(struct server_loop *sl);
/* Every one of them: whoever was woken may have found that what came back was not what he needs. */
void share_wake_all(struct server_loop *sl);

/* Once a second: whether the client has for too long taken none of what waits for it, or sent none of what
 * it has begun (receiving); says so in the log. */
bool share_stalled(struct share *share, const struct conn *conn, bool receiving, uint64_t now_ns,
    const char *address);

#endif
