/* SPDX-License-Identifier: Apache-2.0
 *
 * A managed region for tests: a cache over two memory regions, each behind a fault layer, with its pumps.
 *
 * Either on a loop that runs on a thread of its own (then everything here but cache_rig_end is called
 * through rig_call), or on a loop that the test itself runs, in simulated time (sim_*).
 */
#ifndef REMRAM_TESTS_CACHE_RIG_H
#define REMRAM_TESTS_CACHE_RIG_H

#include "core/backend.h"
#include "core/cache.h"
#include "core/fault.h"
#include "core/puller.h"
#include "core/pusher.h"
#include "tests/lib/rig.h"

struct cache_rig_conf {
	uint64_t size; /* the region's, in bytes */
	uint64_t size_max; /* 0: size */
	uint64_t cache_size, max_dirty; /* the group's */
	enum cache_durability durability;
	enum pull_mode pull;
	bool no_puller, no_pusher, detached;
	uint64_t interval_ms, max_dirty_age_ms;
	unsigned ops, buffers;
	uint64_t pull_window;
	bool losing; /* the remote can lose what it was not asked to flush (tests/lib/losing.h) */
	/* conf of the cache */
	void *ctx;
	void (*commit)(void *ctx, struct cache_call *call);
	void (*changed)(void *ctx);
};

struct cache_rig {
	struct loop *loop;
	struct backend *backends[2];
	struct store *memory[2]; /* local and remote, below the fault layers */
	struct store *losing; /* between memory[1] and remote, if conf says so */
	struct store *local, *remote; /* the fault layers */
	struct cache_group *group;
	struct cache *cache;
	struct puller *puller;
	struct pusher *pusher;
	struct cache_handle *handle;
	struct store *store; /* the handle's */
	struct cache_call stop;
	_Atomic bool stopped;
};

void cache_rig_build(struct cache_rig *cr, struct loop *loop, struct workers *workers,
    const struct cache_rig_conf *conf);
/* Destroys everything, the handle (if there is one still) first; from the loop's thread: asks for the
 * stop, and cr->stopped says when cache_rig_free may follow. */
void cache_rig_stop(struct cache_rig *cr);
/* The cache is gone; the stores stay. */
void cache_rig_close(struct cache_rig *cr);
void cache_rig_free(struct cache_rig *cr);

/* ---- simulated time: the test's thread runs the loop ---- */

struct sim {
	struct loop *loop;
	struct workers *workers;
	struct loop_timer timer;
};

void sim_start(struct sim *sim);
void sim_stop(struct sim *sim);
/* Lets time pass. */
void sim_run(struct sim *sim, uint64_t ns);
/* Runs until *flag, which a callback sets; fails the test after `most` simulated nanoseconds. */
void sim_until(struct sim *sim, const bool *flag, uint64_t most);

/* A request in simulated time. */
struct sim_req {
	struct store_req req;
	bool done;
	int err;
};

/* Submits; the sim runs on its own. */
void sim_submit(struct store *store, struct sim_req *sr);
/* Submits and runs until it is done: its error. */
int sim_op(struct sim *sim, struct store *store, enum store_op op, uint64_t off, uint64_t len,
    void *buf, unsigned flags);
/* Stops a rig: cache_rig_close or cache_rig_free may follow. */
void sim_end(struct sim *sim, struct cache_rig *cr);

#endif
