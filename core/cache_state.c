/* SPDX-License-Identifier: Apache-2.0
 *
 * The state of a cache's blocks (see core/cache_int.h for the two bits, core/cache.c for the invariants).
 *
 * state_set is the only function that moves a block; everything that is counted (held, dirty, holes, the
 * group's sums) and every list that a chunk must be in because of its blocks is kept there.
 *
 * Memory: a segment per GiB, made when the region grows into it: two bitmaps of 32 KiB and 15 bytes for each
 * of 4096 chunks, together less than 128 KiB.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/cache_int.h"

_Static_assert(sizeof(struct cache_seg) <= 128 * 1024, "the state is too large");

/* ---- lists of chunks ---- */

static uint32_t *link_of(const struct cache *cache, bool dirty, uint32_t chunk)
{
	struct cache_seg *seg = seg_of(cache, chunk);

	return dirty ? &seg->dirty_next[chunk % SEG_CHUNKS] : &seg->queue_next[chunk % SEG_CHUNKS];
}

void list_push(struct cache *cache, struct chunk_list *list, bool dirty, uint32_t chunk, bool first)
{
	*link_of(cache, dirty, chunk) = first ? list->head : NO_CHUNK;
	if (list->count == 0)
		list->head = list->tail = chunk;
	else if (first)
		list->head = chunk;
	else
		*link_of(cache, dirty, list->tail) = chunk;
	if (!first)
		list->tail = chunk;
	list->count++;
}

uint32_t list_pop(struct cache *cache, struct chunk_list *list, bool dirty)
{
	uint32_t chunk = list->head;

	if (list->count == 0)
		return NO_CHUNK;
	list->head = *link_of(cache, dirty, chunk);
	list->count--;
	return chunk;
}

void dirty_enlist(struct cache *cache, uint32_t chunk, bool first)
{
	uint16_t *flags = flags_of(cache, chunk);

	*flags &= (uint16_t)~F_HELD;
	if (*flags & F_LISTED)
		return;
	*flags |= F_LISTED;
	list_push(cache, &cache->dirty_list, true, chunk, first);
}

/* ---- one chunk ---- */

void state_changed(struct cache *cache, uint32_t chunk)
{
	uint64_t *word = &seg_of(cache, chunk)->changed[chunk % SEG_CHUNKS / 64];
	uint64_t bit = (uint64_t)1 << (chunk % 64);

	if (*word & bit)
		return;
	*word |= bit;
	if (cache->changed++ == 0 && cache->conf.changed)
		cache->conf.changed(cache->conf.ctx);
}

static void count_change(uint64_t *count, uint64_t before, uint64_t after)
{
	*count += count_bits(after);
	*count -= count_bits(before);
}

void state_set(struct cache *cache, uint32_t chunk, uint64_t mask, enum block_state state)
{
	struct cache_seg *seg = seg_of(cache, chunk);
	unsigned i = chunk % SEG_CHUNKS;
	uint64_t held0 = seg->held[i], mark0 = seg->mark[i];
	uint64_t held = state == CLEAN || state == DIRTY ? held0 | mask : held0 & ~mask;
	uint64_t mark = state == HOLE || state == DIRTY ? mark0 | mask : mark0 & ~mask;

	if (held == held0 && mark == mark0)
		return;
	seg->held[i] = held;
	seg->mark[i] = mark;
	count_change(&cache->held, held0, held);
	count_change(&cache->group->held, held0, held);
	count_change(&cache->dirty, held0 & mark0, held & mark);
	if (!cache->frozen) /* what can't be pushed must not stop the other caches' writers */
		count_change(&cache->group->dirty, held0 & mark0, held & mark);
	count_change(&cache->holes, mark0 & ~held0, mark & ~held);
	if (held && !(seg->flags[i] & (F_SMALL | F_MAIN)))
		evict_insert(cache, chunk);
	if ((held & mark) && !(held0 & mark0) && !(seg->flags[i] & (F_LISTED | F_HELD))) {
		age_begin(cache, chunk);
		dirty_enlist(cache, chunk, false);
	}
	if (state == ABSENT && seg->flags[i] & (F_ROW | F_TAKEN))
		commit_dropped(cache, chunk);
	/* Dirty ones become clean when a push begins, which is none of the index's business until it ends. */
	if (held != held0 || (held & mark & ~(held0 & mark0)))
		state_changed(cache, chunk);
}

/* ---- ranges ---- */

void state_set_range(struct cache *cache, uint64_t lo, uint64_t hi, enum block_state state)
{
	for (uint64_t c = lo / CHUNK_BLOCKS; c * CHUNK_BLOCKS < hi; c++)
		state_set(cache, (uint32_t)c, chunk_mask(c, lo, hi), state);
}

bool state_all_resident(const struct cache *cache, uint64_t lo, uint64_t hi)
{
	for (uint64_t c = lo / CHUNK_BLOCKS; c * CHUNK_BLOCKS < hi; c++)
		if (chunk_mask(c, lo, hi) & ~resident_of(cache, (uint32_t)c))
			return false;
	return true;
}

uint64_t state_count_unheld(const struct cache *cache, uint64_t lo, uint64_t hi)
{
	uint64_t n = 0;

	for (uint64_t c = lo / CHUNK_BLOCKS; c * CHUNK_BLOCKS < hi; c++)
		n += count_bits(chunk_mask(c, lo, hi) & ~held_of(cache, (uint32_t)c));
	return n;
}

uint64_t state_run_end(const struct cache *cache, uint64_t lo, uint64_t hi, bool resident)
{
	for (uint64_t c = lo / CHUNK_BLOCKS; c * CHUNK_BLOCKS < hi; c++) {
		uint64_t word = resident_of(cache, (uint32_t)c);
		uint64_t other = (resident ? ~word : word) & chunk_mask(c, lo, hi);

		if (other)
			return c * CHUNK_BLOCKS + (uint64_t)__builtin_ctzll(other);
	}
	return hi;
}

void state_stale(struct cache *cache, uint64_t lo, uint64_t hi)
{
	for (uint64_t c = lo / CHUNK_BLOCKS; c * CHUNK_BLOCKS < hi; c++)
		*flags_of(cache, (uint32_t)c) |= F_STALE;
}

static void holes_in_chunk(struct cache *cache, uint64_t c, uint64_t lo, uint64_t hi)
{
	uint64_t absent = chunk_mask(c, lo, hi) & ~resident_of(cache, (uint32_t)c);

	if (absent && !(*flags_of(cache, (uint32_t)c) & F_STALE))
		state_set(cache, (uint32_t)c, absent, HOLE);
}

/* A chunk where something is under way is left alone: its bytes may be about to be punched, or fetched. */
void state_holes(struct cache *cache, uint64_t lo, uint64_t hi)
{
	for (uint64_t c = lo / CHUNK_BLOCKS; c * CHUNK_BLOCKS < hi; c++)
		if (!op_find(cache, c * CHUNK_BLOCKS, (c + 1) * CHUNK_BLOCKS, ~0u))
			holes_in_chunk(cache, c, lo, hi);
}

/* ---- segments ---- */

int state_grow(struct cache *cache, uint64_t blocks, bool holes)
{
	uint64_t chunks = (blocks + CHUNK_BLOCKS - 1) / CHUNK_BLOCKS;
	uint64_t count = (chunks + SEG_CHUNKS - 1) / SEG_CHUNKS, span = cache->span;

	if (count > cache->seg_count) {
		struct cache_seg **segs = realloc(cache->segs, count * sizeof(segs[0]));

		if (!segs)
			return -ENOMEM;
		cache->segs = segs;
		while (cache->seg_count < count) {
			segs[cache->seg_count] = calloc(1, sizeof(*segs[0]));
			if (!segs[cache->seg_count])
				return -ENOMEM;
			cache->seg_count++;
		}
	}
	if (blocks <= span)
		return 0;
	cache->span = blocks;
	for (uint64_t c = span / CHUNK_BLOCKS; holes && c * CHUNK_BLOCKS < blocks; c++)
		holes_in_chunk(cache, c, span, blocks);
	return 0;
}

void state_free(struct cache *cache)
{
	for (uint64_t i = 0; i < cache->seg_count; i++)
		free(cache->segs[i]);
	free(cache->segs);
}
