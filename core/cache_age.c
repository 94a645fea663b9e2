/* SPDX-License-Identifier: Apache-2.0
 *
 * How long a chunk has been dirty: what the pusher's interval and max_dirty_age go by.
 *
 * A chunk has 16 bits for when its first block became dirty (with more the state would not be within its bound),
 * and there may be days between that and now, while the donor is away.  So there are two units: ticks of 67 ms, which
 * are enough for 73 minutes, and coarse ones of 17 s (F_AGED), enough for 13 days.  Every 18 minutes, as long as
 * anything is dirty or being pushed, a timer turns to coarse units what is older than half of what ticks can say,
 * and what is older than half of what coarse units can say is made no older than that: 6.5 days.
 *
 * The age stays while the chunk is in the dirty list, or held, or in a push; when the chunk becomes dirty again after
 * that, it begins anew.  Chunks that are neither have no age, and the bits may be anything.
 */
#include "core/cache_int.h"

#define HALF 0x8000 /* of what 16 bits can say */
#define LOOK_NS ((uint64_t)HALF / 2 << TICK_SHIFT)

static unsigned shift_of(const struct cache *cache, uint32_t chunk)
{
	return TICK_SHIFT + (*flags_of(cache, chunk) & F_AGED ? AGED_SHIFT : 0);
}

static uint16_t units_of(const struct cache *cache, uint32_t chunk)
{
	uint16_t then = seg_of(cache, chunk)->age[chunk % SEG_CHUNKS];

	return (uint16_t)((uint16_t)(loop_now_ns() >> shift_of(cache, chunk)) - then);
}

uint64_t age_of(const struct cache *cache, uint32_t chunk)
{
	return (uint64_t)units_of(cache, chunk) << shift_of(cache, chunk);
}

void age_begin(struct cache *cache, uint32_t chunk)
{
	struct cache_group *group = cache->group;

	*flags_of(cache, chunk) &= (uint16_t)~F_AGED;
	seg_of(cache, chunk)->age[chunk % SEG_CHUNKS] = (uint16_t)(loop_now_ns() >> TICK_SHIFT);
	if (!group->age_timer.loop)
		loop_timer_set(group->loop, &group->age_timer, loop_now_ns() + LOOK_NS);
}

/* ---- in time before 16 bits are too few ---- */

static void look_at(struct cache *cache, uint32_t chunk)
{
	uint16_t *age = &seg_of(cache, chunk)->age[chunk % SEG_CHUNKS];
	uint64_t then = loop_now_ns() - age_of(cache, chunk);

	if (units_of(cache, chunk) < HALF)
		return;
	if (*flags_of(cache, chunk) & F_AGED) {
		*age = (uint16_t)((loop_now_ns() >> (TICK_SHIFT + AGED_SHIFT)) - HALF);
	} else {
		*flags_of(cache, chunk) |= F_AGED;
		*age = (uint16_t)(then >> (TICK_SHIFT + AGED_SHIFT));
	}
}

static void look_at_cache(struct cache *cache)
{
	uint32_t chunk = cache->dirty_list.head;

	for (uint64_t n = cache->dirty_list.count; n > 0; n--) {
		look_at(cache, chunk);
		chunk = seg_of(cache, chunk)->dirty_next[chunk % SEG_CHUNKS];
	}
	/* Those that are not in the list are in a push, or held by one or a RESIZE. */
	for (struct cache_op *op = cache->active; op; op = op->next) {
		bool push = op->kind == OP_PUSH;

		if (!push && op->kind != OP_RESIZE)
			continue;
		for (uint64_t c = op->lo / CHUNK_BLOCKS; c * CHUNK_BLOCKS < op->hi; c++)
			if (push || *flags_of(cache, (uint32_t)c) & F_HELD)
				look_at(cache, (uint32_t)c);
	}
}

static void look(struct loop_timer *timer)
{
	struct cache_group *group =
	    (struct cache_group *)((char *)timer - offsetof(struct cache_group, age_timer));
	bool any = false;

	for (struct cache *cache = group->caches; cache; cache = cache->next) {
		look_at_cache(cache);
		any = any || cache->dirty || cache->pushing;
	}
	if (any)
		loop_timer_set(group->loop, timer, loop_now_ns() + LOOK_NS);
}

void age_init(struct cache_group *group)
{
	group->age_timer.expired = look;
}
