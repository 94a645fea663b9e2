/* SPDX-License-Identifier: Apache-2.0
 *
 * A pool whose regions this process holds: on the donor, and behind `remram mount file:` and `memory:`.
 *
 * May be used from several loops at once.
 */
#ifndef REMRAM_CORE_LOCAL_POOL_H
#define REMRAM_CORE_LOCAL_POOL_H

#include "core/backend.h"
#include "core/catalogue.h"
#include "core/err.h"
#include "core/lease.h"
#include "core/pool.h"
#include "core/workers.h"

struct local_pool;

struct local_pool_conf {
	const char *name; /* kept, not copied */
	const char *uri; /* where its bytes live; see core/backend.h */
	const char *state_dir; /* for the catalogue of a persistent backend */
	bool single; /* the URI is one region; so it is with every URI of some kinds of backend */
	uint64_t timeo_ms; /* how long requests wait for a place that is away; 0: for ever */
	uint32_t lease_ms; /* how long a silent session keeps its leases; 0: LOCAL_POOL_LEASE_MS */
};

enum { LOCAL_POOL_LEASE_MS = 30000 };

/* Opens the backend, and for a persistent one the catalogue: every region is as it was; bytes of
 * regions that the catalogue does not know (a removal that a crash interrupted) are deleted.  Keeps
 * workers and conf->name.  Blocks. */
int local_pool_create(const struct local_pool_conf *conf, struct workers *workers,
    struct pool **ret_pool, struct err *err);

/* Names this pool's contents: another one after a restart means that the regions are new. */
const uint8_t *local_pool_uuid(const struct pool *pool);

/* What went through its handles. */
struct store_stats *local_pool_stats(struct pool *pool);

/* The name of the one region that a URI is: the last part of its path, or the scheme up to a '+'.  buf holds
 * POOL_NAME_MAX + 1 bytes; returns it. */
const char *local_pool_single_name(const char *uri, char *buf);

/* The state of the connection to where its bytes live; false: there is no such thing. */
bool local_pool_link(const struct pool *pool, struct backend_link *ret_link);
/* On the loop that uses the pool: everything fails from now on, if there is a connection. */
void local_pool_give_up(struct pool *pool);

/* Closes a handle at once, as POOL_CLOSE does. Nothing is in flight on it. */
void local_pool_close(struct pool *pool, struct handle *handle);

/* Change notices of a session (core/lease.h): what to send next, what was acknowledged, and that those sent
 * may have been lost.  Any thread. */
bool local_pool_next_notice(
    struct pool *pool, struct pool_session *ps, struct pool_notice *ret_notice);
void local_pool_notice_ack(struct pool *pool, struct pool_session *ps, uint64_t id);
void local_pool_notices_again(struct pool *pool, struct pool_session *ps);

#endif
