/* SPDX-License-Identifier: Apache-2.0
 *
 * What is asked and told about a cache from outside the data path: status, the map, the index's chunks, a lost
 * lease, a remote that moved on.
 */
#include <string.h>

#include "core/cache_int.h"

/* ---- status ---- */

void cache_group_status(const struct cache_group *group, struct cache_group_status *ret_status)
{
	const struct op_queue *queues[] = {&group->for_dirty, &group->for_room};

	*ret_status = (struct cache_group_status){
	    .size = group->size_blocks << BLOCK_SHIFT,
	    .resident = group->held << BLOCK_SHIFT,
	    .max_dirty = group->dirty_max << BLOCK_SHIFT,
	    .dirty = (group->dirty + group->pushing) << BLOCK_SHIFT,
	    .pull_rtt_ns = window_rtt_ns(&group->pull),
	    .push_rtt_ns = window_rtt_ns(&group->push),
	    .pull_rate = window_rate(&group->pull),
	    .push_rate = window_rate(&group->push),
	    .pull_window = group->pull.size,
	    .push_window = group->push.size,
	};
	for (const struct cache *cache = group->caches; cache; cache = cache->next)
		ret_status->caches++;
	for (unsigned i = 0; i < 2; i++)
		for (const struct cache_op *op = queues[i]->head; op; op = op->wait_next)
			ret_status->writers_waiting++;
}

void cache_status(const struct cache *cache, struct cache_status *ret_status)
{
	*ret_status = (struct cache_status){
	    .size = cache->size,
	    .resident = (cache->held + cache->holes) << BLOCK_SHIFT,
	    .local = cache->held << BLOCK_SHIFT,
	    .dirty = (cache->dirty + cache->pushing) << BLOCK_SHIFT,
	    .pulling = cache->pulling << BLOCK_SHIFT,
	    .pushing = cache->pushing << BLOCK_SHIFT,
	    .hits = cache->hits,
	    .misses = cache->misses,
	    .fetched = cache->fetched,
	    .pushed = cache->pushed,
	    .evicted = cache->evicted,
	    .push_errors = cache->push_errors,
	    .error = cache->push_error,
	    .frozen = cache->frozen,
	    .attached = cache->remote,
	    .state_bytes =
		sizeof(*cache) + cache->seg_count * (sizeof(struct cache_seg) + sizeof(void *)),
	};
	ret_status->oldest_dirty_ns = cache_oldest_ns(cache);
}

uint64_t cache_size(const struct cache *cache)
{
	return cache->size;
}

/* Adds blocks [lo, hi) to a cell. */
static void map_cell(const struct cache *cache, uint64_t lo, uint64_t hi, struct cache_cell *cell)
{
	cell->blocks = hi - lo;
	for (uint64_t c = lo / CHUNK_BLOCKS; c * CHUNK_BLOCKS < hi; c++) {
		uint64_t mask = chunk_mask(c, lo, hi);

		cell->resident += count_bits(resident_of(cache, (uint32_t)c) & mask);
		cell->dirty += count_bits(dirty_of(cache, (uint32_t)c) & mask);
	}
	cell->busy = lo < hi && op_find(cache, lo, hi, OP_BIT(OP_FETCH) | OP_BIT(OP_PUSH));
}

void cache_map(const struct cache *cache, struct cache_cell *cells, unsigned count)
{
	uint64_t blocks = min_u64(blocks_up(cache->size), cache->span);

	memset(cells, 0, count * sizeof(cells[0]));
	for (unsigned i = 0; i < count; i++)
		map_cell(cache, blocks * i / count, blocks * (i + 1) / count, &cells[i]);
}

/* ---- the index ---- */

static struct cache_chunk chunk_for_index(const struct cache *cache, uint32_t chunk)
{
	struct cache_chunk ret = {
	    .idx = chunk,
	    .resident = held_of(cache, chunk),
	    .dirty = dirty_of(cache, chunk) | push_mask(cache, chunk),
	};

	if (*flags_of(cache, chunk) & (F_UNFLUSHED | F_UNFLUSHED_OLD))
		ret.dirty = ret.resident;
	ret.dirty &= ret.resident;
	return ret;
}

unsigned cache_take_changed(struct cache *cache, struct cache_chunk *chunks, unsigned max)
{
	uint64_t words = state_chunks(cache) / 64;
	unsigned n = 0;

	if (cache->changed_from >= words)
		cache->changed_from = 0;
	for (uint64_t looked = 0; looked < words && cache->changed && n < max; looked++) {
		uint64_t w = (cache->changed_from + looked) % words;
		uint64_t *word = &cache->segs[w * 64 / SEG_CHUNKS]->changed[w % (SEG_CHUNKS / 64)];

		while (*word && n < max) {
			uint32_t chunk = (uint32_t)(w * 64 + (uint64_t)__builtin_ctzll(*word));

			*word &= *word - 1;
			cache->changed--;
			chunks[n++] = chunk_for_index(cache, chunk);
		}
		if (n == max)
			cache->changed_from = w;
	}
	return n;
}

void cache_give_back(struct cache *cache, const struct cache_chunk *chunks, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (chunks[i].idx < state_chunks(cache))
			state_changed(cache, (uint32_t)chunks[i].idx);
}

void cache_look(const struct cache *cache, struct cache_chunk *chunk)
{
	uint64_t lo = chunk->idx * CHUNK_BLOCKS, hi = lo + CHUNK_BLOCKS;

	if (chunk->idx >= state_chunks(cache)) {
		chunk->resident = chunk->dirty = 0;
		return;
	}
	*chunk = chunk_for_index(cache, (uint32_t)chunk->idx);
	for (const struct cache_op *op = cache->active; op; op = op->next)
		if ((op->kind == OP_WRITE || op->kind == OP_ZERO) && op->lo < hi && lo < op->hi)
			chunk->dirty |= chunk_mask(chunk->idx, op->lo, op->hi) & chunk->resident;
}

void cache_relieved(struct cache *cache)
{
	group_relieved(cache->group);
	cache_kick_puller(cache);
}

void cache_load(struct cache *cache, const struct cache_chunk *chunk)
{
	uint64_t lo = chunk->idx * CHUNK_BLOCKS, mask;
	uint32_t c = (uint32_t)chunk->idx;

	if (lo >= cache->span)
		return;
	mask = chunk_mask(chunk->idx, lo, cache->span);
	state_set(cache, c, chunk->resident & mask & ~chunk->dirty, CLEAN);
	state_set(cache, c, chunk->resident & mask & chunk->dirty, DIRTY);
	cache_kick_pusher(cache);
}

/* ---- the remote ---- */

void cache_freeze(struct cache *cache, int err)
{
	assert(err < 0);
	if (cache->frozen)
		return;
	cache->group->dirty -= cache->dirty;
	cache->frozen = err;
	flush_report(cache, err);
	flush_abort(cache, err);
	cache_hold_writers(cache, false);
	op_wake(cache->group, &cache->for_remote);
	group_relieved(cache->group);
}

/* A chunk's clean blocks and holes are forgotten, but for those that a write has in its hands or a push
 * is bringing to the remote.  Where anything is under way, or operations are short, the local bytes stay
 * until they are overwritten. */
static void drop_chunk(struct cache *cache, uint32_t chunk)
{
	uint64_t lo = (uint64_t)chunk * CHUNK_BLOCKS, hi = lo + CHUNK_BLOCKS, mask;

	evict_now(cache, chunk);
	mask = resident_of(cache, chunk) & ~dirty_of(cache, chunk);
	if (mask && op_find(cache, lo, hi, ~0u))
		for (const struct cache_op *op = cache->active; op; op = op->next)
			if ((op->kind == OP_PUSH || op->kind == OP_WRITE || op->kind == OP_ZERO) &&
			    op->lo < hi && lo < op->hi)
				mask &= ~chunk_mask(chunk, op->lo, op->hi);
	if (mask & held_of(cache, chunk))
		state_stale(cache, lo, lo + 1);
	state_set(cache, chunk, mask, ABSENT);
}

void cache_drop_clean(struct cache *cache, uint64_t size)
{
	uint64_t blocks = min_u64(blocks_up(size), blocks_up(cache->conf.size_max));

	cache->drops++;
	if (cache->span)
		fetch_invalidate(cache, 0, cache->span);
	for (uint64_t c = 0; c * CHUNK_BLOCKS < cache->span; c++)
		drop_chunk(cache, (uint32_t)c);
	if (size > cache->size) {
		if (state_grow(cache, blocks, false) == 0)
			cache->size = min_u64(size, cache->conf.size_max);
	} else if (cache->held == 0 && !cache->active) {
		cache->span = blocks;
		cache->size = size;
	}
	if (cache->puller && !cache->stopped)
		cache->puller->anew(cache->puller_ctx);
}
