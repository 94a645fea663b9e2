/* SPDX-License-Identifier: Apache-2.0
 *
 * Which chunks leave when local bytes are short: S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all
 * you need for cache eviction", SOSP 2023), over chunks.
 *
 * New chunks come into a small queue, a tenth of all.  At its end those that were touched again move to the
 * main queue, the others leave and are remembered as ghosts: a ghost that comes back goes to the main queue
 * at once.  In the main queue a touched chunk goes round again.  So a scan passes through the small queue
 * and leaves the hot set alone.
 *
 * A touch counts only if the chunk is not among the last few that were touched: the 64 reads of a chunk by
 * one scan are one touch, the one that brought it.
 *
 * Ghosts have no list of their own: the chunk keeps the flag and the count of evictions at which it became
 * one, and is a ghost until as many have left after it as there are chunks in the queues.  Chunks that lost
 * their blocks otherwise stay in their queue until they come to its head.
 *
 * A chunk is evicted whole, when it is clean and nothing is under way in it: its blocks become absent at
 * once (new READs fetch, and wait for the punch), then its local bytes are punched.  Others are passed by, and
 * whoever can change that is told: a dirty one must be pushed first; one that was pushed must be flushed by the
 * remote, which may lose it otherwise, and then nobody would have its bytes; one whose row in the index may
 * call it dirty needs a commit (cache_commit.c).
 */
#include "core/cache.h"

#include "core/cache_int.h"

enum {
	LOOKS_MAX = 16384, /* chunks that one search looks at */
	GHOST_UNITS =
	    16384, /* age is 16 bits: evictions are counted in units, so many for all queues */
};

/* ---- queues ---- */

static uint64_t queued(const struct cache *cache)
{
	return cache->small.count + cache->main.count;
}

/* The unit grows with the queues; a ghost's age is forgotten when it changes, which is rare. */
static unsigned ghost_shift(const struct cache *cache)
{
	unsigned shift = 0;

	while (queued(cache) >> shift > GHOST_UNITS)
		shift++;
	return shift;
}

static bool is_ghost(const struct cache *cache, uint32_t chunk)
{
	uint16_t then = seg_of(cache, chunk)->age[chunk % SEG_CHUNKS];
	unsigned shift = ghost_shift(cache);
	uint16_t since = (uint16_t)((uint16_t)(cache->evictions >> shift) - then);

	return (*flags_of(cache, chunk) & F_GHOST) && since <= queued(cache) >> shift;
}

static void recent_add(struct cache *cache, uint32_t chunk)
{
	cache->recent[cache->recent_idx++ % RECENT] = chunk;
}

void evict_insert(struct cache *cache, uint32_t chunk)
{
	uint16_t *flags = flags_of(cache, chunk);
	bool ghost = is_ghost(cache, chunk);

	*flags &= (uint16_t) ~(F_GHOST | F_FREQ);
	*flags |= ghost ? F_MAIN : F_SMALL;
	list_push(cache, ghost ? &cache->main : &cache->small, false, chunk, false);
	recent_add(cache, chunk);
}

void evict_touch(struct cache *cache, uint32_t chunk)
{
	uint16_t *flags;

	for (unsigned i = 0; i < RECENT; i++)
		if (cache->recent[i] == chunk)
			return;
	recent_add(cache, chunk);
	flags = flags_of(cache, chunk);
	if ((*flags & F_FREQ) < F_FREQ)
		(*flags)++;
}

/* ---- eviction ---- */

static void punched(struct store_req *sreq, int err)
{
	struct cache_op *op = op_of(sreq);
	struct cache *cache = op->cache;

	if (err)
		state_stale(cache, op->lo, op->hi);
	op_uncover(op);
	op_put(op);
	cache_kick_puller(cache);
}

/* A clean chunk that the remote has not flushed, or the index does not let go, yet. */
static bool kept(struct cache *cache, uint32_t chunk)
{
	if (*flags_of(cache, chunk) & (F_UNFLUSHED | F_UNFLUSHED_OLD)) {
		cache->flush_wanted = true;
		return true;
	}
	return commit_keeps(cache, chunk);
}

static bool evictable(struct cache *cache, uint32_t chunk)
{
	const struct cache_seg *seg = seg_of(cache, chunk);
	const struct cache_op *need = cache->group->reserving;
	uint64_t lo = (uint64_t)chunk * CHUNK_BLOCKS;

	if (need && need->cache == cache && need->lo < lo + CHUNK_BLOCKS && lo < need->hi)
		return false;
	return seg->held[chunk % SEG_CHUNKS] && !dirty_of(cache, chunk) &&
	       !seg->readers[chunk % SEG_CHUNKS] && !op_find(cache, lo, lo + CHUNK_BLOCKS, ~0u) &&
	       !kept(cache, chunk);
}

/* Makes the held blocks of a chunk that is evictable absent; the bytes, or 0: no operation is free. */
static uint64_t evict_chunk(struct cache *cache, uint32_t chunk)
{
	uint64_t held = held_of(cache, chunk);
	struct cache_op *op = op_get(cache, OP_EVICT, FOR_PUSH);

	if (!op)
		return 0;
	op->lo = (uint64_t)chunk * CHUNK_BLOCKS + (uint64_t)__builtin_ctzll(held);
	op->hi = (uint64_t)(chunk + 1) * CHUNK_BLOCKS - (uint64_t)__builtin_clzll(held);
	op_cover(op); /* nobody else covers it: there is room */
	state_set(cache, chunk, held, ABSENT);
	cache->evicted += (uint64_t)count_bits(held) << BLOCK_SHIFT;
	op->sreq = (struct store_req){
	    .op = STORE_ZERO,
	    .off = op->lo << BLOCK_SHIFT,
	    .len = (op->hi - op->lo) << BLOCK_SHIFT,
	    .done = punched,
	};
	store_submit(cache->conf.local, &op->sreq);
	return (uint64_t)count_bits(held) << BLOCK_SHIFT;
}

uint64_t evict_now(struct cache *cache, uint32_t chunk)
{
	return evictable(cache, chunk) ? evict_chunk(cache, chunk) : 0;
}

static void queue_to(struct cache *cache, uint32_t chunk, bool main)
{
	uint16_t *flags = flags_of(cache, chunk);

	*flags &= (uint16_t) ~(F_SMALL | F_MAIN);
	*flags |= main ? F_MAIN : F_SMALL;
	list_push(cache, main ? &cache->main : &cache->small, false, chunk, false);
}

static void become_ghost(struct cache *cache, uint32_t chunk)
{
	*flags_of(cache, chunk) |= F_GHOST;
	seg_of(cache, chunk)->age[chunk % SEG_CHUNKS] =
	    (uint16_t)(cache->evictions++ >> ghost_shift(cache));
}

/* Looks at the next chunk of a queue; whether it has been evicted. */
static bool look(struct cache *cache, bool main, bool *ret_dirty)
{
	uint32_t chunk = list_pop(cache, main ? &cache->main : &cache->small, false);
	uint16_t *flags = flags_of(cache, chunk);
	unsigned freq = *flags & F_FREQ;

	if (!held_of(cache, chunk)) { /* lost its blocks otherwise */
		*flags &= (uint16_t) ~(F_SMALL | F_MAIN | F_FREQ);
		return false;
	}
	if (main && freq > 0) {
		(*flags)--;
		queue_to(cache, chunk, true);
		return false;
	}
	if (!main && freq > 0) {
		*flags &= (uint16_t)~F_FREQ;
		queue_to(cache, chunk, true);
		return false;
	}
	if ((*flags & F_PINNED) || !evictable(cache, chunk)) {
		*ret_dirty = *ret_dirty || dirty_of(cache, chunk);
		queue_to(cache, chunk, main || (*flags & F_PINNED));
		return false;
	}
	*flags &= (uint16_t) ~(F_SMALL | F_MAIN | F_FREQ);
	if (evict_chunk(cache, chunk) == 0) {
		queue_to(cache, chunk, main);
		return false;
	}
	if (!main)
		become_ghost(cache, chunk);
	return true;
}

/* Evicts one chunk of the cache; false: none can be. */
static bool evict_one(struct cache *cache)
{
	uint64_t looks = min_u64(4 * queued(cache), LOOKS_MAX);
	bool dirty = false;

	while (looks-- > 0 && queued(cache) > 0) {
		bool small = cache->small.count * 10 >= queued(cache) || cache->main.count == 0;

		if (cache->small.count == 0)
			small = false;
		if (look(cache, !small, &dirty))
			return true;
	}
	if (dirty || cache_room_wanted(cache))
		cache_kick_pusher(cache);
	return false;
}

/* The cache that has most to give. */
static struct cache *largest(struct cache_group *group, const struct cache *tried)
{
	struct cache *most = NULL;

	for (struct cache *cache = group->caches; cache; cache = cache->next)
		if (cache != tried && cache->held > cache->dirty &&
		    (!most || cache->held - cache->dirty > most->held - most->dirty))
			most = cache;
	return most;
}

static bool evict_any(struct cache_group *group)
{
	struct cache *first = largest(group, NULL), *second;

	if (first && evict_one(first))
		return true;
	second = first ? largest(group, first) : NULL;
	return second && evict_one(second);
}

bool room_reserve(struct cache_op *op, uint64_t blocks, bool may_evict)
{
	struct cache_group *group = op->cache->group;

	assert(op->room == 0);
	while (group->size_blocks && group->held + group->reserved + blocks > group->size_blocks) {
		bool done = false;

		if (may_evict && group->stuck_at != group->progress) {
			group->reserving = op;
			done = evict_any(group);
			group->reserving = NULL;
			if (!done)
				group->stuck_at = group->progress;
		}
		if (!done)
			return false;
	}
	group->reserved += blocks;
	op->room = blocks;
	return true;
}

bool room_may_come(struct cache_group *group)
{
	bool may = group->dirty + group->pushing > 0;

	for (struct cache *cache = group->caches; cache; cache = cache->next) {
		if (cache->stopped)
			continue;
		may = may || cache_unflushed(cache);
		if (cache->rows && !cache->commit_err) {
			may = true;
			commit_want(cache);
		}
	}
	return may;
}

/* One is woken at a time, and wakes the next when it has got room (has_room): they are many, and a search is long. */
static void wake_for_room(struct cache_group *group)
{
	op_wake_some(group, &group->for_room, 1);
}

void room_release(struct cache_op *op)
{
	struct cache_group *group = op->cache->group;

	group->reserved -= op->room;
	op->room = 0;
	if (group->held + group->reserved < group->size_blocks)
		wake_for_room(group);
}

/* What evictable() says when nobody reserves, without what it asks for. */
static bool is_unused(const struct cache *cache, uint32_t chunk)
{
	uint64_t lo = (uint64_t)chunk * CHUNK_BLOCKS;

	return held_of(cache, chunk) && !dirty_of(cache, chunk) &&
	       !(*flags_of(cache, chunk) &
		   (F_PINNED | F_UNFLUSHED | F_UNFLUSHED_OLD | F_ROW | F_TAKEN)) &&
	       !seg_of(cache, chunk)->readers[chunk % SEG_CHUNKS] &&
	       !op_find(cache, lo, lo + CHUNK_BLOCKS, ~0u);
}

void room_unused(struct cache *cache, uint64_t lo, uint64_t hi)
{
	struct cache_group *group = cache->group;

	group->progress++;
	for (uint64_t c = lo / CHUNK_BLOCKS; group->for_room.head && c * CHUNK_BLOCKS < hi; c++)
		if (is_unused(cache, (uint32_t)c)) {
			wake_for_room(group);
			return;
		}
}

/* ---- by hand ---- */

uint64_t cache_evict(struct cache *cache, uint64_t off, uint64_t len)
{
	uint64_t end = min_u64(len > UINT64_MAX - off ? UINT64_MAX : off + len, cache->size);
	uint64_t hi = min_u64(blocks_up(end), cache->span), bytes = 0;

	for (uint64_t c = off >> CHUNK_SHIFT; c * CHUNK_BLOCKS < hi; c++) {
		uint64_t held = held_of(cache, (uint32_t)c);
		uint64_t mask = chunk_mask(c, off >> BLOCK_SHIFT, hi);

		/* Chunks that the range has only in part stay, but for the region's last one. */
		if ((held & ~mask) == 0 && !(*flags_of(cache, (uint32_t)c) & F_PINNED))
			bytes += evict_now(cache, (uint32_t)c);
	}
	cache->group->progress++;
	return bytes;
}

void cache_pin(struct cache *cache, uint64_t off, uint64_t len, bool pinned)
{
	uint64_t end = min_u64(len > UINT64_MAX - off ? UINT64_MAX : off + len, cache->size);

	for (uint64_t c = off >> CHUNK_SHIFT; c << CHUNK_SHIFT < end; c++) {
		uint16_t *flags = flags_of(cache, (uint32_t)c);

		*flags = (uint16_t)(pinned ? *flags | F_PINNED : *flags & ~F_PINNED);
	}
	if (!pinned)
		group_relieved(cache->group);
}
