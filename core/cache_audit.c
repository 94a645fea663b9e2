/* SPDX-License-Identifier: Apache-2.0
 *
 * Checks a cache's invariants (core/cache.c) by counting everything again.  For tests.
 */
#include "core/cache_int.h"

static unsigned count_covering(const struct cache *cache, uint64_t chunk)
{
	unsigned n = 0;

	for (const struct cache_op *op = cache->active; op; op = op->next)
		if (op->lo / CHUNK_BLOCKS <= chunk && chunk <= (op->hi - 1) / CHUNK_BLOCKS &&
		    (op->hi - 1) / CHUNK_BLOCKS - op->lo / CHUNK_BLOCKS < WIDE_CHUNKS)
			n++;
	return n;
}

static void audit_chunk(const struct cache *cache, uint32_t chunk)
{
	const struct cache_seg *seg = seg_of(cache, chunk);
	uint16_t flags = *flags_of(cache, chunk);

	assert(seg->ops[chunk % SEG_CHUNKS] == count_covering(cache, chunk)); /* 6 */
	if (dirty_of(cache, chunk))
		assert(flags & (F_LISTED | F_HELD)); /* 7 */
	assert((flags & (F_LISTED | F_HELD)) != (F_LISTED | F_HELD));
	if (held_of(cache, chunk))
		assert(flags & (F_SMALL | F_MAIN));
	assert((flags & (F_SMALL | F_MAIN)) != (F_SMALL | F_MAIN));
	if (!cache->conf.commit)
		assert(!(flags & (F_ROW | F_TAKEN | F_DROPPED)));
	if (flags & F_DROPPED) /* or the next commit would not take it */
		assert((flags & F_TAKEN) || is_changed(cache, chunk));
}

static uint64_t list_length(const struct cache *cache, const struct chunk_list *list, bool dirty)
{
	uint64_t n = 0;

	for (uint32_t c = list->head; n < list->count; n++) {
		const struct cache_seg *seg = seg_of(cache, c);

		assert(c != NO_CHUNK);
		if (dirty)
			assert(*flags_of(cache, c) & F_LISTED);
		if (n + 1 == list->count)
			assert(c == list->tail);
		c = (dirty ? seg->dirty_next : seg->queue_next)[c % SEG_CHUNKS];
	}
	return n;
}

void cache_audit(const struct cache *cache)
{
	uint64_t held = 0, dirty = 0, holes = 0, small = 0, main = 0, listed = 0, round = 0;
	uint64_t pushing = 0, rows = 0, dropped = 0;

	for (uint32_t c = 0; c < state_chunks(cache); c++) {
		uint16_t flags = *flags_of(cache, c);

		held += count_bits(held_of(cache, c));
		dirty += count_bits(dirty_of(cache, c));
		holes += count_bits(mark_of(cache, c) & ~held_of(cache, c));
		small += (flags & F_SMALL) != 0;
		main += (flags & F_MAIN) != 0;
		listed += (flags & F_LISTED) != 0;
		round += (flags & F_ROUND) != 0;
		rows += (flags & F_ROW) != 0;
		dropped += (flags & F_DROPPED) != 0;
		audit_chunk(cache, c);
	}
	assert(held == cache->held && dirty == cache->dirty && holes == cache->holes); /* 8 */
	assert(small == cache->small.count && main == cache->main.count);
	assert(listed == cache->dirty_list.count && round == cache->round_chunks);
	assert(rows == cache->rows && dropped == cache->dropped);
	list_length(cache, &cache->dirty_list, true);
	list_length(cache, &cache->small, false);
	list_length(cache, &cache->main, false);
	for (const struct cache_op *op = cache->active; op; op = op->next) {
		assert(op->covering && op->lo < op->hi);
		if (op->kind != OP_PUSH)
			continue;
		pushing += op->hi - op->lo;
		for (const struct cache_op *other = op->next; other; other = other->next) /* 3 */
			assert(
			    other->kind != OP_PUSH || other->hi <= op->lo || op->hi <= other->lo);
	}
	assert(pushing == cache->pushing);
}
