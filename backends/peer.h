/* SPDX-License-Identifier: Apache-2.0
 *
 * A pool at a donor: the client's side of the peer protocol (docs/PROTOCOL.md).
 *
 * Loop thread only.  Its handles' stores belong to that loop, too.
 */
#ifndef REMRAM_BACKENDS_PEER_H
#define REMRAM_BACKENDS_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "core/loop.h"
#include "core/pool.h"

enum { PEER_CONNS_MAX = 16 };

struct peer_conf {
	const char *host; /* name or address; kept */
	uint16_t port;
	const char *pool; /* kept */
	const char *
	    client; /* names this mount, also after a crash, and no other: the donor then ends what the
			       one before has left open; NULL: it keeps that for a minute */
	const char *
	    who; /* this client, for people at other clients and at the donor; NULL: says nothing */
	const uint8_t
	    *identity; /* POOL_IDENTITY_LEN random bytes that stay the same as long as what this
				    client has cached; NULL: none */
	bool
	    soft; /* requests fail with -EIO when the donor was away for timeo_ms; else they wait */
	uint64_t timeo_ms;
	uint64_t
	    look_ms; /* the first names are asked for with the greeting, and LOOKUPs answered from that
			     for so long, until anything else is asked; 0: not */
	unsigned conns; /* connections that share long reads, at most PEER_CONNS_MAX; 0: one */

	/* Called once: err NULL, the pool answers; or why it does not.  From the loop. */
	void (*ready)(void *ctx, const struct err *err);
	void *ctx;
};

enum peer_state { PEER_CONNECTED, PEER_WAITING, PEER_FAILED };

struct peer_status {
	enum peer_state state;
	uint64_t since_ns; /* loop_now_ns() when the state began */
	unsigned reconnects;
	uint64_t rtt_ns; /* of the last handshake or ping */
	unsigned in_flight; /* requests at the donor or waiting for it */
	uint64_t bytes_in, bytes_out; /* of all connections */
	unsigned conns, conns_up; /* connections that are wanted, and that there are */
	uint64_t striped; /* READs that were answered over others than the first */
	char address[64]; /* "192.0.2.1:10819" */
};

/* Resolves the name (blocks; never again later) and begins to connect; conf->ready tells how that
 * went, of the first connection: the others come when they can, and are done without until then.  The pool may be used after it succeeded; the lost connection is made again for ever.  conf is
 * borrowed until return, its strings longer. */
int peer_pool_create(
    struct loop *loop, const struct peer_conf *conf, struct pool **ret_pool, struct err *err);

void peer_pool_status(const struct pool *pool, struct peer_status *ret_status);

/* The pool's uuid as the donor gave it last: another one means that its regions are others.  After ready. */
void peer_pool_uuid(const struct pool *pool, uint8_t ret_uuid[16]);

/* Counters of all data requests. */
struct store_stats *peer_pool_stats(struct pool *pool);

/* Everything in flight and everything to come fails with -EIO. */
void peer_pool_give_up(struct pool *pool);

#endif
