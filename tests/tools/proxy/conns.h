/* SPDX-License-Identifier: Apache-2.0
 *
 * The proxied connections: each is a pair of sockets, and in each direction the bytes under way.  Their states
 * and invariants are at the head of tests/tools/proxy.c.
 */
#ifndef REMRAM_TESTS_TOOLS_PROXY_CONNS_H
#define REMRAM_TESTS_TOOLS_PROXY_CONNS_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/tools/net.h"

struct conn;

struct conns_stats {
	unsigned connections; /* that are not dead */
	uint64_t accepted, cut;
	uint64_t forwarded[2]; /* bytes in each direction, dead connections included */
	uint64_t queued, peak; /* bytes, both directions together */
};

struct conn_stats {
	uint64_t forwarded[2];
	uint64_t lag_ns;
	bool stalled; /* alone */
};

/* Where connections lead, and how many bytes each may hold in each direction. */
void conns_init(const struct net_address *target_addr, uint64_t most_bytes);

/* Takes an accepted socket that doesn't block. */
void conns_add(int fd);

/* A round of the loop: moves whatever can move, watches for what can't yet, does the cut that was planned,
 * and frees what is dead: no event of the round may be left. */
void conns_pump(uint64_t now_ns);

/* When something will happen by itself: bytes or an end of file fall due, or a limited link has room again.
 * UINT64_MAX: never. */
uint64_t conns_next_due_ns(uint64_t now_ns);

unsigned conns_count(void);

/* The N-th oldest, 1 the oldest, until the end of the round; NULL: there are not so many. */
struct conn *conns_nth(uint64_t nth);

/* Resets all; no cut is planned any more. */
void conns_cut(void);

/* Ends stalls, also those of single connections, and the black hole. */
void conns_resume(void);

/* The peak is the most queued since this was last asked. */
void conns_stats(struct conns_stats *ret_stats);

/* Bytes read from now on take so much longer, one way, than the link's delay. */
void conn_set_lag(struct conn *conn, uint64_t lag_ns);
void conn_stall(struct conn *conn);
/* Resets it: what was in flight is lost. */
void conn_cut(struct conn *conn);
void conn_stats(const struct conn *conn, struct conn_stats *ret_stats);

#endif
