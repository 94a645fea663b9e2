/* SPDX-License-Identifier: Apache-2.0
 *
 * What the pumps (core/puller, core/pusher) ask of a cache, and what the cache tells them.
 *
 * Pumps decide what is transferred and when; the cache does the transfer and keeps the states.  So a
 * demand read and a pull of the same blocks meet in one place.  Loop thread only.
 */
#ifndef REMRAM_CORE_CACHE_PUMP_H
#define REMRAM_CORE_CACHE_PUMP_H

#include <stdbool.h>
#include <stdint.h>

#include "core/cache.h"
#include "core/window.h"

/* ---- pulling ---- */

/* Told to the puller; all called on the loop, none may destroy it. */
struct cache_puller_ops {
	/* A foreground READ of [off, off+len) was submitted. */
	void (*read)(void *ctx, uint64_t off, uint64_t len);
	/* A pull that cache_pull started has ended; its blocks may be resident or not. */
	void (*pulled)(void *ctx, uint64_t tag, uint64_t off, uint64_t len, int err);
	/* Something changed that a pump that could not go on may wait for: a buffer, room, a fetch of somebody
	 * else, the remote. */
	void (*kick)(void *ctx);
	/* What was resident may be so no more, and the region may have another size: begin again. */
	void (*anew)(void *ctx);
	/* cache_stop: start nothing more, end all jobs. */
	void (*stop)(void *ctx);
};

void cache_set_puller(struct cache *cache, const struct cache_puller_ops *ops, void *ctx);

enum cache_pull {
	CACHE_PULL_STARTED, /* a fetch of [*ret_off, + *ret_len) is under way: pulled will be called */
	CACHE_PULL_NOTHING, /* nothing in the range is absent: what is left is on its way already */
	CACHE_PULL_BUSY, /* no buffer, no remote, or a write is in the way: kick or pulled will come */
	CACHE_PULL_FULL, /* the group's bound is reached */
};

/* Starts to fetch the first absent blocks in [off, off+len), at most `most` bytes of them, with
 * STORE_BACKGROUND.  evict: others may be evicted for it.  tag is told to pulled.
 * STARTED and NOTHING set *ret_off and *ret_len (NOTHING: len 0). */
enum cache_pull cache_pull(struct cache *cache, uint64_t off, uint64_t len, uint64_t most,
    bool evict, uint64_t tag, uint64_t *ret_off, uint64_t *ret_len);

/* How the remote's space is laid out, asked for with STORE_EXTENTS.  One at a time per pump. */
struct cache_scan {
	struct store_req req; /* private */
	struct cache *cache;
	uint64_t off, len; /* bytes; set by cache_scan */
	uint64_t drops; /* private */
	/* 0: [off, off+done_len) is known now and its holes are resident; or -errno. */
	void (*done)(struct cache_scan *scan, uint64_t done_len, int err);
	struct extent extents[64];
};

/* false: no remote. */
bool cache_scan(struct cache *cache, struct cache_scan *scan, uint64_t off, uint64_t len);

/* The pump could not go on because of others of its group: it is kicked when some of them have ended. */
void cache_starved(struct cache *cache);

/* Blocks in the range that are not resident, in bytes. */
uint64_t cache_absent(const struct cache *cache, uint64_t off, uint64_t len);
/* Foreground requests since create. */
uint64_t cache_foreground(const struct cache *cache);
/* Bytes resident, holes included. */
uint64_t cache_resident(const struct cache *cache);

struct window *cache_pull_window(struct cache *cache);

/* ---- pushing ---- */

struct cache_pusher_ops {
	/* There is more to push, or it is more urgent than before. */
	void (*kick)(void *ctx);
	/* A push has ended. */
	void (*pushed)(void *ctx, uint64_t len, int err);
	void (*stop)(void *ctx);
};

void cache_set_pusher(struct cache *cache, const struct cache_pusher_ops *ops, void *ctx);

enum cache_push {
	CACHE_PUSH_STARTED, /* *ret_len bytes are on their way: pushed will be called */
	CACHE_PUSH_NOTHING, /* nothing is dirty that is not being pushed already */
	CACHE_PUSH_BUSY, /* no buffer or no remote: kick or pushed will come */
};

/* Pushes the blocks that have been dirty longest, up to 1 MiB of neighbours. */
enum cache_push cache_push(struct cache *cache, uint64_t *ret_len);

/* Somebody waits for pushes: a flush, a writer at a bound. */
bool cache_push_wanted(const struct cache *cache);
/* A flush waits for pushes. */
bool cache_flush_wanted(const struct cache *cache);
/* Bytes dirty, without those being pushed; age in nanoseconds of the oldest (how exact: age_of). */
uint64_t cache_dirty(const struct cache *cache, uint64_t *ret_age_ns);
/* Bytes of pushes in flight. */
uint64_t cache_pushing(const struct cache *cache);
/* How long ago the oldest block that the remote does not have became dirty, those being pushed included; 0:
 * it has all. */
uint64_t cache_oldest_ns(const struct cache *cache);
/* The remote has writes that it has not been asked to flush. */
bool cache_unflushed(const struct cache *cache);
/* What the remote has not flushed keeps others from having room. */
bool cache_room_wanted(const struct cache *cache);
/* Has the remote flush what was pushed; what is dirty stays so.  Only flush->done is the caller's to set. */
void cache_flush_pushed(struct cache *cache, struct cache_flush *flush);
/* Writers of this cache wait as long as hold is true. */
void cache_hold_writers(struct cache *cache, bool hold);

struct window *cache_push_window(struct cache *cache);
struct loop *cache_loop(const struct cache *cache);

#endif
