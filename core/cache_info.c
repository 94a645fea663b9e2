/* SPDX-License-Identifier: Apache-2.0
 *
 * What is asked and told about a cache from outside the data path: status, the map, a lost lease, a
 * remote that moved on.
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

/* Whether anything that this client has written, or is writing, may lie beyond a new end. */
static bool has_own(const struct cache *cache)
{
	return cache->dirty || cache->pushing || cache->resizing ||
	       (cache->active && op_find(cache, 0, cache->span,
				     OP_BIT(OP_WRITE) | OP_BIT(OP_ZERO) | OP_BIT(OP_ALLOC)));
}

/* Blocks beyond the end may keep a state when it moves: fetches bring zeros for them, here as at the remote. */
void cache_adopt_size(struct cache *cache, uint64_t size)
{
	uint64_t most = min_u64(size, cache->conf.size_max);

	if (most > cache->size) {
		if (state_grow(cache, blocks_up(most), false) == 0)
			cache->size = most;
	} else if (!has_own(cache)) {
		cache->size = most;
		if (!cache->active && cache->held == 0 && cache->holes == 0)
			cache->span = blocks_up(most);
	}
}

void cache_drop_clean(struct cache *cache, uint64_t size)
{
	cache->drops++;
	if (cache->span)
		fetch_invalidate(cache, 0, cache->span);
	for (uint64_t c = 0; c * CHUNK_BLOCKS < cache->span; c++)
		drop_chunk(cache, (uint32_t)c);
	cache_adopt_size(cache, size);
	if (cache->puller && !cache->stopped)
		cache->puller->anew(cache->puller_ctx);
}
