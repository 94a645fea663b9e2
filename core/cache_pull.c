/* SPDX-License-Identifier: Apache-2.0
 *
 * What the pumps ask of a cache (see core/cache_pump.h): pulls, scans of the remote's extents, counts.
 * (Pushes are in cache_push.c.)
 *
 * A scan's holes are believed only if nothing has made them old since it was asked for: a push into its
 * range that began or ended, a resize, or a remote that moved on.
 */
#include "core/cache_pump.h"

#include "core/cache_int.h"

void cache_set_puller(struct cache *cache, const struct cache_puller_ops *ops, void *ctx)
{
	cache->puller = ops;
	cache->puller_ctx = ctx;
}

void cache_set_pusher(struct cache *cache, const struct cache_pusher_ops *ops, void *ctx)
{
	cache->pusher = ops;
	cache->pusher_ctx = ctx;
}

/* ---- pulls ---- */

static void pulled(struct cache_op *op, int err)
{
	struct cache *cache = op->cache;
	uint64_t tag = op->tag;
	uint64_t off = op->lo << BLOCK_SHIFT, len = (op->hi - op->lo) << BLOCK_SHIFT;

	op_buffer_put(op);
	op_put(op);
	if (cache->puller)
		cache->puller->pulled(cache->puller_ctx, tag, off, len, err);
}

/* The first absent block of [lo, hi) that nothing covers; hi: there is none.  *ret_busy: something that is
 * not a fetch covers an absent one, or the index may know it. */
static uint64_t first_absent(struct cache *cache, uint64_t lo, uint64_t hi, bool *ret_busy)
{
	*ret_busy = false;
	while ((lo = state_run_end(cache, lo, hi, true)) < hi) {
		struct cache_op *other =
		    op_find(cache, lo, lo + 1, ~(OP_BIT(OP_ALLOC) | OP_BIT(OP_PUSH)));

		if (commit_find_dropped(cache, lo, lo + 1) != NO_CHUNK) {
			*ret_busy = true;
			lo = min_u64((lo / CHUNK_BLOCKS + 1) * CHUNK_BLOCKS, hi);
			continue;
		}
		if (!other)
			return lo;
		*ret_busy = *ret_busy || other->kind != OP_FETCH;
		lo = min_u64(other->hi, hi);
	}
	return hi;
}

enum cache_pull cache_pull(struct cache *cache, uint64_t off, uint64_t len, uint64_t most,
    bool evict, uint64_t tag, uint64_t *ret_off, uint64_t *ret_len)
{
	uint64_t end = min_u64(len > UINT64_MAX - off ? UINT64_MAX : off + len, cache->size);
	uint64_t lo = off >> BLOCK_SHIFT, hi = min_u64(blocks_up(end), cache->span);
	struct cache_op *op;
	uint32_t dropped;
	bool busy = false;

	if (!cache->remote || cache->stopped)
		return CACHE_PULL_BUSY;
	if (lo < hi)
		lo = first_absent(cache, lo, hi, &busy);
	*ret_off = lo << BLOCK_SHIFT;
	*ret_len = 0;
	if (lo >= hi)
		return busy ? CACHE_PULL_BUSY : CACHE_PULL_NOTHING;
	op = op_get(cache, OP_FETCH, FOR_PULL);
	if (!op) {
		cache->group->starved = true;
		return CACHE_PULL_BUSY;
	}
	op->lo = lo;
	op->hi = fetch_run_end(cache, lo, min_u64(hi, lo + max_u64(most >> BLOCK_SHIFT, 1)));
	dropped = commit_find_dropped(cache, lo, op->hi);
	if (dropped != NO_CHUNK)
		op->hi = (uint64_t)dropped * CHUNK_BLOCKS;
	op->keep = true;
	if (!room_reserve(op, op->hi - lo, evict)) {
		op_give_up(op);
		return CACHE_PULL_FULL;
	}
	if (!op_buffer(op, false) || !op_cover(op)) {
		op_give_up(op);
		return CACHE_PULL_BUSY;
	}
	op->data = op->buf;
	op->tag = tag;
	op->fetched = pulled;
	*ret_len = (op->hi - lo) << BLOCK_SHIFT;
	fetch_start(op, true);
	return CACHE_PULL_STARTED;
}

/* ---- scans ---- */

void scan_doubt(struct cache *cache, uint64_t lo, uint64_t hi)
{
	struct cache_scan *scan = cache->scan;

	if (scan && scan->off < hi << BLOCK_SHIFT && lo << BLOCK_SHIFT < scan->off + scan->len)
		scan->drops = UINT64_MAX;
}

static void scanned(struct store_req *req, int err)
{
	struct cache_scan *scan =
	    (struct cache_scan *)((char *)req - offsetof(struct cache_scan, req));
	struct cache *cache = scan->cache;
	uint64_t end = scan->off;

	cache->scan = NULL;
	for (unsigned i = 0; !err && i < req->ret_extents; i++) {
		const struct extent *ext = &scan->extents[i];
		uint64_t hi = min_u64((ext->off + ext->len) >> BLOCK_SHIFT, cache->span);

		end = ext->off + ext->len;
		if (end >= cache->size) /* beyond it all is zeros */
			hi = min_u64(blocks_up(end), cache->span);
		if ((ext->flags & EXTENT_HOLE) && scan->drops == cache->drops &&
		    blocks_up(ext->off) < hi)
			state_holes(cache, blocks_up(ext->off), hi);
	}
	remote_done(cache);
	scan->done(scan, end - scan->off, err);
}

bool cache_scan(struct cache *cache, struct cache_scan *scan, uint64_t off, uint64_t len)
{
	if (!cache->remote || cache->stopped)
		return false;
	assert(!cache->scan);
	cache->scan = scan;
	scan->cache = cache;
	scan->off = off;
	scan->len = len;
	scan->drops = cache->drops;
	scan->req = (struct store_req){
	    .op = STORE_EXTENTS,
	    .flags = STORE_BACKGROUND,
	    .off = off,
	    .len = len,
	    .extents = scan->extents,
	    .extents_max = sizeof(scan->extents) / sizeof(scan->extents[0]),
	    .done = scanned,
	};
	cache->remote_requests++;
	store_submit(cache->remote, &scan->req);
	return true;
}

/* ---- counts ---- */

uint64_t cache_absent(const struct cache *cache, uint64_t off, uint64_t len)
{
	uint64_t end = min_u64(len > UINT64_MAX - off ? UINT64_MAX : off + len, cache->size);
	uint64_t lo = off >> BLOCK_SHIFT, hi = min_u64(blocks_up(end), cache->span), n = 0;

	for (uint64_t c = lo / CHUNK_BLOCKS; c * CHUNK_BLOCKS < hi; c++)
		n += count_bits(chunk_mask(c, lo, hi) & ~resident_of(cache, (uint32_t)c));
	return n << BLOCK_SHIFT;
}

uint64_t cache_foreground(const struct cache *cache)
{
	return cache->foreground;
}

uint64_t cache_resident(const struct cache *cache)
{
	return (cache->held + cache->holes) << BLOCK_SHIFT;
}

bool cache_push_wanted(const struct cache *cache)
{
	const struct cache_group *group = cache->group;

	return cache->round_chunks > 0 || cache->holding || group->for_dirty.head ||
	       group->for_room.head ||
	       (group->dirty_max && group->dirty + group->pushing > group->dirty_max / 2);
}

bool cache_flush_wanted(const struct cache *cache)
{
	return cache->round_chunks > 0;
}

uint64_t cache_dirty(const struct cache *cache, uint64_t *ret_age_ns)
{
	bool any = cache->dirty && cache->dirty_list.count;

	*ret_age_ns = any ? age_of(cache, cache->dirty_list.head) : 0;
	return cache->dirty << BLOCK_SHIFT;
}

uint64_t cache_oldest_ns(const struct cache *cache)
{
	uint64_t age;

	if (cache->dirty == 0 && cache->pushing == 0)
		return 0;
	cache_dirty(cache, &age);
	for (const struct cache_op *op = cache->active; op && cache->pushing; op = op->next)
		if (op->kind == OP_PUSH)
			age = max_u64(age, age_of(cache, (uint32_t)(op->lo / CHUNK_BLOCKS)));
	return age ? age : 1;
}

uint64_t cache_pushing(const struct cache *cache)
{
	return cache->pushing << BLOCK_SHIFT;
}

void cache_starved(struct cache *cache)
{
	cache->group->starved = true;
}

bool cache_room_wanted(const struct cache *cache)
{
	return cache->flush_wanted && cache_unflushed(cache);
}

bool cache_unflushed(const struct cache *cache)
{
	return !cache->frozen && (cache->unflushed > 0 || cache->unflushed_old > 0);
}

void cache_hold_writers(struct cache *cache, bool hold)
{
	if (cache->holding == hold)
		return;
	cache->holding = hold;
	if (!hold)
		op_wake(cache->group, &cache->group->for_dirty);
}

struct window *cache_pull_window(struct cache *cache)
{
	return &cache->group->pull;
}

struct window *cache_push_window(struct cache *cache)
{
	return &cache->group->push;
}

struct loop *cache_loop(const struct cache *cache)
{
	return cache->group->loop;
}
