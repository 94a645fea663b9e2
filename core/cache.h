/* SPDX-License-Identifier: Apache-2.0
 *
 * A managed region: a layer that keeps a local copy of a remote store, block by block.
 *
 *      handles (struct store, one per open)          core/puller     core/pusher
 *                  ▼                                      │ pumps: core/cache_pump.h
 *      struct cache: the state of each block ◄────────────┴───────────────┘
 *          ├─ local store: a sparse copy at the same addresses, always there
 *          └─ remote store: where the region lives; attached, detached, replaced
 *
 * A READ of resident blocks is the local store's own answer, inline; absent blocks are fetched, and kept.
 * A WRITE goes to the local store and becomes dirty; the pusher writes it to the remote.  A ZERO is
 * pushed as one.  What FLUSH and FUA promise is the region's durability.  See cache.c for the states
 * and the invariants.
 *
 * A cache that survives its process has an index (conf.commit; core/cache_index.h).  Three rules keep a crash,
 * and a failure of the power, which leaves any mix of old and new bytes in the local store, from doing harm.
 * They are kept here; the owner only commits.
 *   1. What the index may call dirty is not evicted, nor filled from the remote again, before a commit has stored
 *      it as clean.
 *   2. Bytes go to the remote only after a commit that began when they had been read.  So what a crash
 *      leaves of a dirty block is never older than what the remote was sent, flushed or not; and what the
 *      index calls clean is what the remote has.  (The other way, a commit at the end of each FLUSH, costs the same
 *      one commit per FLUSH.  But what is pushed in between, which nobody has flushed, would go back in
 *      time at the remote; or the cache would call older bytes than the remote's clean, for good.)  No WRITE or READ
 *      waits for that: pushes do, those that come together for one commit, and one costs nothing when all
 *      was committed before.
 *   3. What the remote was sent, but has not flushed, counts as dirty in the index, and is not evicted (without an
 *      index, too): if its FLUSH fails, it is pushed again.
 * FLUSH with CACHE_REMOTE needs no commit at its end, then: the remote has the bytes, and the rows that call them
 * dirty are no older.
 *
 * The caches of one mount form a group: they share a loop, a bound on local bytes, a bound on dirty
 * bytes, buffers, and the measured windows of what is in flight to the remote.
 *
 * Order of making: group, cache, puller and pusher (both optional; without a pusher nothing is ever
 * pushed, so only read-only regions do without), cache_load of what an index kept, cache_attach, then
 * handles.  Order of ending: all handles destroyed, cache_flush if what is dirty shall be pushed,
 * cache_stop, then puller_destroy, pusher_destroy, cache_destroy, and the stores.
 *
 * Threads: everything here on the group's loop (or before it runs).  Nothing blocks, and nothing
 * allocates but create functions and a region that grows (its state: ≤ 128 KiB per GiB).
 */
#ifndef REMRAM_CORE_CACHE_H
#define REMRAM_CORE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "core/loop.h"
#include "core/pool.h"
#include "core/store.h"

enum {
	CACHE_CHUNK_BLOCKS = 64, /* blocks in a chunk: the unit of eviction and of the index */
	CACHE_CHUNK = CACHE_CHUNK_BLOCKS * STORE_BLOCK, /* bytes */
};

struct cache;
struct cache_group;

/* ---- the group ---- */

struct cache_group_conf {
	struct loop *loop; /* kept */
	uint64_t
	    size; /* bytes of local data that all caches may keep; 0: no bound.  Holes are free.
			  At least 2 MiB are used. */
	uint64_t max_dirty; /* bytes not yet at the remote at which writers wait; 0: no bound */
	uint64_t pull_window, push_window; /* most bytes in flight each way; 0: 32 MiB */
	unsigned buffers; /* of 1 MiB, for fetches and pushes; 0: as many as the windows need */
	unsigned ops; /* requests that can be under way at once (others wait); 0: 1024 */
	bool touch; /* touch all buffers now: no page fault later */
};

int cache_group_create(
    const struct cache_group_conf *conf, struct cache_group **ret_group, struct err *err);
/* Its caches are destroyed. */
void cache_group_destroy(struct cache_group *group);

struct cache_group_status {
	uint64_t size, resident; /* bytes: the bound, and what all caches keep */
	uint64_t max_dirty, dirty; /* bytes; dirty includes what is being pushed */
	uint64_t pull_rtt_ns, push_rtt_ns; /* shortest seen lately; 0: none */
	uint64_t pull_rate, push_rate; /* bytes per second, the best lately */
	uint64_t pull_window, push_window; /* bytes allowed in flight now */
	unsigned caches;
	unsigned writers_waiting; /* requests that wait at max_dirty or for room */
};

void cache_group_status(const struct cache_group *group, struct cache_group_status *ret_status);

/* ---- a cache ---- */

enum cache_durability {
	CACHE_REMOTE, /* the remote has it, and its FLUSH has succeeded */
	CACHE_LOCAL, /* the local store has flushed it, and conf.commit has succeeded */
	CACHE_NONE, /* nothing is promised (swap) */
};

/* Something that the cache asks its owner to do, or the owner the cache: done is called once, on the
 * loop, with 0 or -errno; possibly before the asking function returns.  Embedded in whoever asks. */
struct cache_call {
	void (*done)(struct cache_call *call, int err);
};

struct cache_conf {
	struct cache_group *group; /* kept */
	struct store
	    *local; /* kept, not owned: align 1, empty or what cache_load tells of; as large
				as the region can become */
	uint64_t size; /* the region's size in bytes */
	uint64_t size_max; /* bytes: no write goes beyond; ≤ local->size */
	enum cache_durability durability;

	/* Optional (NULL), called with ctx. */
	void *ctx;
	/* The region becomes `size` bytes long at the remote.  Nothing beyond the smaller of old and new
	 * size is in flight there, and nothing will be until done.  NULL: a STORE_RESIZE is submitted to
	 * the remote store. */
	void (*remote_resize)(void *ctx, uint64_t size, struct cache_call *call);
	/* Make all of the index stable as it is now: every chunk that has changed is taken (cache_take_changed),
	 * the local store synced, what cache_look says then is stored, and cache_stored told; then done.  One
	 * call at a time; called for each FLUSH with CACHE_LOCAL, and when a push, an eviction or a write
	 * waits for it.  The owner may commit more often.  NULL: there is no index. */
	void (*commit)(void *ctx, struct cache_call *call);
	/* Chunks have changed for the first time since cache_take_changed took all: a commit within a second
	 * or so is expected. */
	void (*changed)(void *ctx);
};

/* A cache without a remote: what needs one waits for cache_attach. */
int cache_create(const struct cache_conf *conf, struct cache **ret_cache, struct err *err);
/* Stopped (cache_stop); no handle, no pump.  Dirty blocks stay in the local store. */
void cache_destroy(struct cache *cache);

/* The remote store to use from now on; requests that waited for one go on.  Kept, not owned; align ≤
 * STORE_BLOCK, size ≥ conf.size_max; reads beyond the region's size give zeros, writes extend it. */
void cache_attach(struct cache *cache, struct store *remote);
/* Sends nothing more to the remote; call->done when nothing is in flight there: then the store can go.
 * What fails meanwhile is told as ever.  Requests that need a remote wait. */
void cache_detach(struct cache *cache, struct cache_call *call);

/* Ends all activity but that of handles, which have nothing in flight: pumps stop, jobs end with
 * -ECANCELED, what is in flight at the stores is waited for.  Pushes nothing more.  After call->done
 * only cache_status, destroy, and what an index calls may be called. */
void cache_stop(struct cache *cache, struct cache_call *call);

uint64_t cache_size(const struct cache *cache);
void cache_set_durability(struct cache *cache, enum cache_durability durability);

/* ---- handles ---- */

/* One open of the region.  handle.region_id and .number are the owner's to set.  Its store serves every
 * operation; RESIZE, too.  POOL_READ and POOL_WRITE in flags: what else is asked for ends with -EBADF.
 *
 * FLUSH reports, once per handle, any error of write-back since this handle's last FLUSH (or its
 * creation), also if a later attempt succeeded; and always whether what it stands for has happened: as
 * long as the dirty blocks can't be pushed, each FLUSH with CACHE_REMOTE tries, and fails. */
struct cache_handle {
	struct handle handle; /* handle.store is what requests go to */
	struct cache *cache;
	uint64_t errors_seen;
	struct cache_handle *next; /* the cache's list */
};

/* 0 or -ENOMEM.  Ends with store_destroy(&ret_handle->handle.store). */
int cache_handle_create(
    struct cache *cache, unsigned flags, struct cache_handle **ret_handle, struct err *err);

/* ---- what people and pools ask for ---- */

/* A flush of a range with a durability of its own; embedded in the caller, untouched until done. */
struct cache_flush {
	uint64_t off, len; /* bytes; len 0: to the end */
	enum cache_durability durability;
	void (*done)(struct cache_flush *flush, int err);
	struct cache_flush *next; /* private */
};

/* Everything dirty in the range now will be pushed (CACHE_REMOTE) or is on disk (CACHE_LOCAL) when done
 * gets 0.  Does not consume any handle's error. */
void cache_flush(struct cache *cache, struct cache_flush *flush);
/* Nobody waits for it any more: true, and its done will not be called; false: it is done, or about to be. */
bool cache_flush_cancel(struct cache *cache, struct cache_flush *flush);

/* Gives the local bytes of whole clean chunks in [off, off+len) back, at once; what is dirty, pinned, in
 * use, not flushed by the remote, or dirty as far as the index knows, stays.  Returns the bytes given back.
 * (cache_flush first with CACHE_REMOTE, then, with an index, with CACHE_LOCAL: then all that was dirty can go.) */
uint64_t cache_evict(struct cache *cache, uint64_t off, uint64_t len);

/* Chunks that overlap the range are (not) evicted to make room.  Pulls nothing (puller_add does). */
void cache_pin(struct cache *cache, uint64_t off, uint64_t len, bool pinned);

/* The lease is lost, or the region at the remote is another one: nothing is pushed any more; writes,
 * punches, resizes and flushes fail with err (-errno) for good; what is resident can still be read, and
 * dirty blocks stay as they are. */
void cache_freeze(struct cache *cache, int err);

/* Somebody else changed the region at the remote, and it is `size` bytes long now: what is clean here is
 * forgotten, fetches in flight are not kept.  Dirty blocks stay; as long as there are any, or writes under way, the
 * region does not become shorter. */
void cache_drop_clean(struct cache *cache, uint64_t size);
/* Takes the size that cache_drop_clean could not take (cache_size tells), if it can be taken now. */
void cache_adopt_size(struct cache *cache, uint64_t size);

struct cache_status {
	uint64_t size; /* bytes, as everything here */
	uint64_t resident; /* answered locally, holes included */
	uint64_t local; /* of these, with bytes in the local store */
	uint64_t dirty; /* not at the remote; being pushed included */
	uint64_t pulling, pushing; /* in flight */
	uint64_t oldest_dirty_ns; /* age; 0: nothing is dirty */
	uint64_t hits, misses; /* READs answered without, and with, the remote */
	uint64_t fetched, pushed, evicted; /* since create */
	uint64_t push_errors; /* failed pushes since create */
	int error; /* the last failed push's, 0 when the one after it succeeded */
	int frozen; /* cache_freeze's, or 0 */
	bool attached;
	uint64_t state_bytes; /* what the state itself takes */
};

void cache_status(const struct cache *cache, struct cache_status *ret_status);

/* The region as a row of cells, for display: cell i stands for an i-th part of it. */
struct cache_cell {
	uint64_t blocks, resident, dirty;
	bool busy; /* a pull or push is under way in there */
};

void cache_map(const struct cache *cache, struct cache_cell *cells, unsigned count);

/* A part of a region whose blocks are alike. */
struct cache_run {
	uint64_t len; /* bytes */
	bool resident; /* READ is answered locally */
	bool dirty; /* the remote does not have it: being pushed included */
};

/* The states of [off, off+len), from off on, the region's end or CACHE_RUNS_SPAN at the most: how many runs of up to
 * max; neighbours differ.  They may end before the range if the room was too small. */
#define CACHE_RUNS_SPAN ((uint64_t)16 << 30)
unsigned cache_runs(
    const struct cache *cache, uint64_t off, uint64_t len, struct cache_run *runs, unsigned max);

/* ---- the index of a persistent cache ---- */

/* The state of one chunk; bit i stands for block i.  resident: the local store has its bytes (holes that
 * are only known to be zeros are not in it: they are asked for again; but those that were pushed and the
 * remote has not flushed are).  dirty: a subset of resident that
 * the remote may not have; after a crash it must be pushed.  A block counts as dirty here until the
 * remote has flushed its chunk, so that a crash of both sides loses nothing. */
struct cache_chunk {
	uint64_t idx; /* [idx * CACHE_CHUNK, (idx + 1) * CACHE_CHUNK) */
	uint64_t resident, dirty;
};

/* Takes up to max chunks that changed, in their state or their bytes, since they were last taken; returns
 * how many.  Less than max: that was all.  With conf.commit each of them is told of to cache_stored or
 * cache_give_back before it is taken again. */
unsigned cache_take_changed(struct cache *cache, struct cache_chunk *chunks, unsigned max);
/* Their commit failed: they count as changed again. */
void cache_give_back(struct cache *cache, const struct cache_chunk *chunks, unsigned count);
/* The state of chunk->idx now, for an index that is about to store it after it took it and synced the local
 * store.  resident: without blocks that are being evicted or fetched; dirty: with those that are being
 * written. */
void cache_look(struct cache *cache, struct cache_chunk *chunk);
/* A commit has stored these as they are here (what was taken and what cache_look said, cut). */
void cache_stored(struct cache *cache, const struct cache_chunk *chunks, unsigned count);
/* Before the first handle and cache_attach: the local store has this chunk's resident blocks.  Blocks
 * beyond the region's size are ignored. */
void cache_load(struct cache *cache, const struct cache_chunk *chunk);
/* Then: the index has a row of a chunk of which a part is beyond the region's end, where the owner has made the local
 * store zeros: the row is stored again. */
void cache_load_cut(struct cache *cache, uint64_t chunk);

#endif
