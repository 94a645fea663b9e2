/* SPDX-License-Identifier: Apache-2.0
 *
 * The managed pool: a pool over another one (a donor's) that keeps a local copy of each region that is
 * used: core/cache.h per region, with a puller and a pusher, in memory or in a cache directory.
 *
 * Frontends use it as any struct pool.  Names, modes and times are the lower pool's; size and mtime are
 * what they are here, where that is newer.  Each region that was opened is *kept*, also after its last close:
 *
 *   COLD     only the index knows it (cache directory): settings, no cache
 *   OPENING  its rows are loaded, the lower pool asked
 *   OPEN     it has a cache, and a remote handle of its own: for writing as long as somebody may write or
 *            anything is dirty (that is the region's lease), else for reading
 *   IDLE     nobody has it open and the lower pool has all: the cache stays, the handle was given
 *            back.  The next open asks whether the region has changed meanwhile; if so, what is cached is dropped
 *   LOST     another client has taken the lease, or the region was changed under dirty data: nothing is
 *            pushed any more.  At its last close dirty data goes aside (core/rescue.h), or, without a
 *            directory, is given up with a message; opens fail with -EBUSY until then
 *   ENDING   it is being closed, kept aside or forgotten
 *
 * Opening: -EBUSY as the lower pool says, and in LOST; -EACCES for writing to what cannot be read (a part of a block
 * needs the rest).  Whoever opens for writing has the lower pool's lease
 * (POOL_SHARED and POOL_PIN are refused with -EOPNOTSUPP: a copy of what several write, or of swap, can't be kept
 * right).  FLUSH of a handle is what the region's durability promises, and ends with a commit of the index.
 *
 * Extended attributes that are served here, never by the lower pool:
 *   user.remram.pull_order       rw  core/pull_order.h; empty: none.  With a directory it outlives the mount
 *   user.remram.durability       rw  remote, local or none; empty: what the mount says
 *   user.remram.pinned           ro  ranges FROM-TO,… that are not evicted
 *   user.remram.resident         ro  bytes that are answered locally
 *   user.remram.dirty_bytes      ro  bytes that the lower pool does not have
 *   user.remram.oldest_dirty_ms  ro  how long it lacks the oldest of them
 * The last three are -ENODATA for a region that was not opened since the mount.
 *
 * Threads: managed_create and pool_destroy block (set-up code); everything else on the loop; there only files
 * and SQLite's calls block, on workers.  Opening a region allocates; its data path does not.
 */
#ifndef REMRAM_CORE_MANAGED_H
#define REMRAM_CORE_MANAGED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/cache.h"
#include "core/cache_dir.h"
#include "core/cache_index.h"
#include "core/err.h"
#include "core/loop.h"
#include "core/pool.h"
#include "core/pull_order.h"
#include "core/puller.h"
#include "core/pusher.h"
#include "core/workers.h"

enum {
	MANAGED_IDLE_MAX = 64, /* regions that nobody uses and that are kept all the same */
	MANAGED_RECORD_MAX = 16384, /* ranges of one recording */
};

struct managed_conf {
	struct loop *loop; /* kept */
	struct pool *lower; /* kept; the caller destroys it after this pool */
	struct workers *workers; /* kept */
	struct cache_dir *dir; /* NULL: copies are in memory; kept, claimed by the caller */
	uint64_t session; /* of own requests to lower: what the frontend uses */
	uint64_t cache_size; /* bytes of local copies; 0: no bound */
	uint64_t max_dirty; /* bytes; 0: no bound */
	uint64_t pull_window; /* bytes in flight; 0: core/cache.h's default */
	uint64_t push_interval_ms, max_dirty_age_ms; /* core/pusher.h */
	enum pull_mode pull;
	const struct pull_range *order; /* of regions without one of their own; copied */
	unsigned order_count;
	enum cache_durability durability; /* of regions without one of their own */
	bool touch; /* touch buffers now: no page fault later */
};

/* Opens the index of conf->dir, if any, and begins to recover what a crash has left there: regions
 * with dirty data are opened and pushed, or kept aside if they have changed at the donor.  Blocks.  The
 * lower pool's notify becomes this pool's. */
int managed_create(const struct managed_conf *conf, struct pool **ret_pool, struct err *err);
/* pool_destroy ends it: after managed_leave. */

/* ---- to look at ---- */

enum managed_state {
	MANAGED_COLD,
	MANAGED_OPENING,
	MANAGED_OPEN,
	MANAGED_IDLE,
	MANAGED_LOST,
	MANAGED_ENDING,
};

struct managed_status {
	const char *dir; /* the cache directory (core/rescue.h works on it), or NULL */
	struct cache_group_status group;
	uint64_t dirty; /* bytes, of all regions, those being pushed included */
	uint64_t oldest_dirty_ns; /* age; 0: nothing is dirty */
	unsigned regions; /* kept, COLD ones included */
	unsigned recovering; /* regions of an earlier life that are not pushed yet */
	unsigned lost; /* in state LOST */
	bool leaving; /* managed_leave was called */
};

void managed_status(const struct pool *pool, struct managed_status *ret_status);

struct managed_region {
	uint64_t id;
	const char *name; /* as last seen; "" if it is not known */
	enum managed_state state;
	unsigned opens, writers; /* handles; those of them that write */
	bool lease; /* the remote handle is one for writing */
	bool recovering;
	bool recording;
	enum cache_durability durability; /* that holds */
	int index_error; /* -errno of the last commit, 0 if it succeeded */
	bool cached; /* the rest is valid */
	struct cache_status cache;
	struct puller_status puller;
	struct pusher_status pusher;
};

/* Calls region for each kept one; what it gets is valid during the call. */
void managed_for_each(const struct pool *pool,
    void (*region)(void *ctx, const struct managed_region *region), void *ctx);

/* The same for one region: 0, or -ENOENT. */
int managed_find(const struct pool *pool, uint64_t id, struct managed_region *ret_region);

/* cache_map: 0, or -ENOENT: it has no cache. */
int managed_map(const struct pool *pool, uint64_t id, struct cache_cell *cells, unsigned count);
/* cache_runs: how many, or -ENOENT: it has no cache. */
int managed_runs(const struct pool *pool, uint64_t id, uint64_t off, uint64_t len,
    struct cache_run *runs, unsigned max);

/* Counters of all data requests of frontends. */
struct store_stats *managed_stats(struct pool *pool);

/* ---- to ask for ---- */

/* Somebody who wants a region to be open; a part of those that follow. */
struct managed_want {
	unsigned flags; /* POOL_READ, POOL_WRITE */
	/* 0: it is held open for the wanter until entry_put.  Not NULL. */
	void (*done)(struct managed_want *want, int err);
	struct managed_want *next;
};

/* A commit of a region's index; a part of those that follow. */
struct managed_commit {
	struct index_call call;
	struct managed_entry *entry;
	void (*done)(struct managed_commit *commit, int err);
};

/* Something that takes its time; embedded in the caller, untouched from the start to done, which may come
 * before the starting function returns.  The region is open as long as the job lasts. */
struct managed_job {
	/* Set by the caller. */
	uint64_t id; /* the region's */
	uint64_t off, len; /* bytes; len 0: to the end */
	int prio; /* managed_pull: higher first */
	void (*done)(struct managed_job *job, int err);
	/* Readable meanwhile and in done. */
	uint64_t total, left; /* bytes that there were to do when it began, and are now */

	/* Private. */
	struct managed *managed;
	struct managed_entry *entry;
	struct managed_job *next;
	struct pull_job pull;
	struct cache_flush flush;
	struct managed_want want;
	struct managed_commit commit;
	bool pulls, running, cancelled;
};

/* Fetches the range: 0 when all of it was resident; -ECANCELED, -ENOENT, or an error of a fetch or open. */
void managed_pull(struct pool *pool, struct managed_job *job);
/* Pushes what is dirty in the range and flushes the donor, whatever the region's durability: 0, -ECANCELED,
 * -ENOENT: no such region is kept here, or what failed. */
void managed_flush(struct pool *pool, struct managed_job *job);
/* Nobody waits for it any more: done(job, -ECANCELED), perhaps later; data in flight goes on. */
void managed_cancel(struct pool *pool, struct managed_job *job);
/* Fills left; for a job that is under way. */
void managed_progress(struct managed_job *job);

/* cache_evict: *ret_bytes were given back; what is dirty, pinned or in use stays.  -ENOENT: no cache. */
int managed_evict(struct pool *pool, uint64_t id, uint64_t off, uint64_t len, uint64_t *ret_bytes);

/* cache_pin, for the range [off, off+len), len 0: to the end.  With a directory it outlives the mount.
 * Pulls nothing.  -ENOENT: no cache; -E2BIG: too many ranges. */
int managed_pin(struct pool *pool, uint64_t id, uint64_t off, uint64_t len, bool on);

/* Recording what is read, in the order in which it is first read.  Handles opened while it is on are
 * recorded (the kernel's page cache is dropped at such an open, so that it does not hide reads).  Turning it
 * on forgets what was recorded before.  -ENOENT: it is not kept here (open it once), -ENOMEM. */
int managed_record(struct pool *pool, uint64_t id, bool on);
/* Copies up to max ranges of the latest recording, as a pull order: priorities fall from PULL_PRIO_MAX as long as
 * they last.  The number of ranges, or -ENOENT: nothing was recorded. */
int managed_recorded(
    struct pool *pool, uint64_t id, struct pull_range *ranges, unsigned max, bool *ret_cut);

/* ---- pull first ---- */

/* Opens every region of the lower pool that can be read and waits until so much of each is resident. */
struct managed_first {
	uint64_t bytes; /* of each region; or, if pct is not 0, pct hundredths of its size */
	unsigned pct;
	void (*done)(struct managed_first *first, int err); /* 0, or what the pool said to LIST */
	uint64_t total, left; /* readable meanwhile: bytes; total grows while regions are found */

	/* Private. */
	struct managed *managed;
	struct pool_req req;
	struct managed_first_region *regions;
	uint8_t *list;
	unsigned pending;
	int err;
};

void managed_pull_first(struct pool *pool, struct managed_first *first);
/* Fills left. */
void managed_first_progress(struct managed_first *first);

/* ---- the end ---- */

/* Everything that is dirty now, in all regions, is at the donor and flushed when done gets 0; else the
 * first error.  What cannot be pushed because its lease is lost does not count.  Nothing is closed. */
struct managed_drain {
	void (*done)(struct managed_drain *drain, int err);
	/* Private. */
	unsigned pending;
	int err;
};

void managed_drain(struct pool *pool, struct managed_drain *drain);

/* Closes all regions; no handle is open and no request comes any more.  First all dirty data is pushed;
 * as long as the donor cannot be reached that waits (managed_status: dirty), until managed_give_up.  done:
 * pool_destroy can follow.  Dirty data that was not pushed is in the cache directory, for the next mount;
 * without a directory it is lost: the log says so. */
void managed_leave(struct pool *pool, void (*done)(void *ctx), void *ctx);
/* What is dirty is not pushed any more; before or after managed_leave.  The lower pool must end what is in
 * flight. */
void managed_give_up(struct pool *pool);

#endif
