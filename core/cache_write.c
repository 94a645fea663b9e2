/* SPDX-License-Identifier: Apache-2.0
 *
 * WRITEs, ZEROs and ALLOCs of a cache.
 *
 * A WRITE's way, each step from the beginning after a wait:
 *   1. whoever punches, fills or resizes the same blocks ends first; and a commit, where the index may know
 *      blocks that have been dropped (cache_commit.c)
 *   2. the bounds: dirty blocks (for_dirty), local bytes (for_room): here writers are slowed, none fails
 *   3. a block that is written in part and absent is fetched, one at a time; nobody else writes to it
 *      meanwhile, and when the remote or the local store fails the WRITE fails.  It has room already: nothing
 *      is evicted for it, or writers could evict these blocks from each other for ever
 *   4. it covers its blocks, fetches in flight lose them, and the local store gets the request itself
 *   5. the blocks become dirty; or, when the local store failed, those that were there, with whatever they are now;
 *      so do holes that the remote has not flushed: around what was written they have its zeros, which it may lose
 * A ZERO does the same with the local store's ZERO.  With STORE_KEEP the local store has the zeros as bytes
 * afterwards, so that they are pushed as bytes: a punch at the remote would give its space away.
 * An ALLOC is the remote's: only it knows whether there is space.
 */
#include "core/cache.h"

#include <errno.h>

#include "core/cache_int.h"

/* What a cut or a write that failed has left beyond the end becomes part of the region, and so goes to the remote:
 * whoever reads it, here or there, reads the same. */
void cache_extend(struct cache *cache, uint64_t end)
{
	uint64_t last = cache->size >> BLOCK_SHIFT;
	uint32_t chunk = (uint32_t)(last / CHUNK_BLOCKS);

	if (end <= cache->size)
		return;
	if (cache->ragged)
		state_set(
		    cache, chunk, chunk_mask(chunk, last, last + 1) & held_of(cache, chunk), DIRTY);
	cache->ragged = false;
	cache->size = end;
}

/* ---- what is in the way ---- */

/* Somebody that a write to [lo, hi) must let end first, or NULL. */
static struct cache_op *in_the_way(struct cache *cache, uint64_t lo, uint64_t hi)
{
	struct cache_op *op;
	uint64_t known = min_u64(hi, cache->span);

	if (cache->resizing && hi > cache->resizing->lo)
		return cache->resizing;
	if (lo >= known)
		return NULL;
	op = op_find(cache, lo, known, OP_BIT(OP_EVICT));
	if (op || !op_find(cache, lo, known, OP_BIT(OP_FETCH)))
		return op;
	for (op = cache->active; op; op = op->next)
		if (op->kind == OP_FETCH && (op->exclusive || op->filling) && op->lo < hi &&
		    lo < op->hi)
			return op;
	return NULL;
}

/* Ends op before it covers anything. */
static void give_up(struct cache_op *op, int err)
{
	room_release(op);
	op_complete(op, err);
}

static void edge_fetched(struct cache_op *op, int err)
{
	op->kind = OP_OTHER;
	op->exclusive = false;
	op_buffer_put(op);
	if (!err)
		err = op->fill_err;
	if (err)
		give_up(op, err);
	else
		op->step(op);
}

/* Fetches a block of which a part is written. */
static void edge_fetch(struct cache_op *op, uint64_t block)
{
	struct cache *cache = op->cache;
	struct cache_op *other =
	    op_find(cache, block, block + 1, OP_BIT(OP_FETCH) | OP_BIT(OP_WRITE) | OP_BIT(OP_ZERO));

	if (other || !cache->remote) {
		op_wait(op, other ? &other->waiters : &cache->for_remote);
		return;
	}
	if (!op_buffer(op, true))
		return;
	op->lo = block;
	op->hi = block + 1;
	op->kind = OP_FETCH;
	op->exclusive = op->keep = true;
	if (!op_cover(op)) {
		op->kind = OP_OTHER;
		op->exclusive = false;
		return;
	}
	op->data = op->buf;
	op->fetched = edge_fetched;
	cache->misses++;
	fetch_start(op, false);
}

/* The blocks of which [off, end) is only a part are resident; false: op waits, or has failed. */
static bool edges_ready(struct cache_op *op, uint64_t off, uint64_t end)
{
	uint64_t first = off >> BLOCK_SHIFT, last = (end - 1) >> BLOCK_SHIFT;

	if ((off % STORE_BLOCK || (first == last && end % STORE_BLOCK)) &&
	    !state_resident(op->cache, first)) {
		edge_fetch(op, first);
		return false;
	}
	if (end % STORE_BLOCK && !state_resident(op->cache, last)) {
		edge_fetch(op, last);
		return false;
	}
	return true;
}

/* ---- bounds ---- */

static void kick_pushers(struct cache_group *group)
{
	for (struct cache *cache = group->caches; cache; cache = cache->next)
		cache_kick_pusher(cache);
}

static bool may_dirty(struct cache_op *op, uint64_t blocks)
{
	struct cache_group *group = op->cache->group;
	uint64_t now = group->dirty + group->pushing + group->dirtying;

	if (!op->cache->holding && !group->dirty_max)
		return true;
	if (!op->cache->holding && (op->waited || !group->for_dirty.head) &&
	    (now == 0 || now + blocks <= group->dirty_max))
		return true;
	op->waited = true;
	op_wait(op, &group->for_dirty);
	kick_pushers(group);
	return false;
}

/* Room for what [lo, hi) lacks; false: op waits. */
static bool has_room(struct cache_op *op, uint64_t lo, uint64_t hi)
{
	struct cache_group *group = op->cache->group;
	uint64_t blocks = state_count_unheld(op->cache, lo, hi);

	op->lo = lo;
	op->hi = hi;
	if (op->room) /* from before a wait */
		return true;
	if (blocks == 0)
		return true;
	if (room_reserve(op, blocks, true)) {
		op_wake_some(group, &group->for_room, 1); /* there may be more */
		return true;
	}
	/* With nothing to wait for (all is pinned) the bound gives way. */
	if (!room_may_come(group))
		return true;
	op_wait(op, &group->for_room);
	kick_pushers(group);
	return false;
}

/* Steps 1 to 3; false: op waits, or has ended. */
static bool prepare(struct cache_op *op, uint64_t off, uint64_t end, bool room)
{
	struct cache *cache = op->cache;
	uint64_t lo = off >> BLOCK_SHIFT, hi = blocks_up(end);
	struct cache_op *other = in_the_way(cache, lo, hi);
	int rc;

	if (cache->frozen || op->commit_err) {
		give_up(op, cache->frozen ? cache->frozen : op->commit_err);
		return false;
	}
	if (other) {
		op_wait(op, &other->waiters);
		return false;
	}
	if (cache->dropped && commit_find_dropped(cache, lo, hi) != NO_CHUNK) {
		commit_wait(op);
		return false;
	}
	if (hi > cache->span) {
		rc = state_grow(cache, hi, true);
		if (rc) {
			give_up(op, rc);
			return false;
		}
	}
	return may_dirty(op, hi - lo) && (!room || has_room(op, lo, hi)) &&
	       edges_ready(op, off, end);
}

/* Step 4, but for the local store. */
static bool cover(struct cache_op *op, enum op_kind kind, uint64_t off, uint64_t end)
{
	op->kind = kind;
	op->lo = off >> BLOCK_SHIFT;
	op->hi = blocks_up(end);
	if (!op_cover(op)) {
		room_release(op);
		return false;
	}
	fetch_invalidate(op->cache, op->lo, op->hi);
	op->dirtying = op->hi - op->lo;
	op->cache->group->dirtying += op->dirtying;
	return true;
}

/* Step 5 when the local store failed: it may have written anything there.  What it held and reads will see must be
 * the remote's, too, or it would change when it is evicted and fetched again. */
static void write_failed(struct cache_op *op)
{
	struct cache *cache = op->cache;
	uint64_t end = blocks_up(cache->size);

	for (uint64_t c = op->lo / CHUNK_BLOCKS; c * CHUNK_BLOCKS < op->hi; c++) {
		uint32_t chunk = (uint32_t)c;
		uint64_t mask = chunk_mask(c, op->lo, op->hi), kept = 0;

		if (c * CHUNK_BLOCKS < end) /* beyond it the remote has zeros */
			kept = mask & chunk_mask(c, 0, end) &
			       (is_unflushed(cache, chunk) ? resident_of(cache, chunk)
							   : held_of(cache, chunk));
		state_set(cache, chunk, mask & ~kept, ABSENT);
		state_set(cache, chunk, kept, DIRTY);
	}
	state_stale(cache, op->lo, op->hi);
	if (cache->size >> BLOCK_SHIFT < op->hi)
		cache->ragged = true;
}

/* Step 5, and the end. */
static void changed(struct cache_op *op, int err)
{
	struct cache *cache = op->cache;
	bool absent = !state_all_resident(cache, op->lo, op->hi);

	if (err) {
		write_failed(op);
	} else {
		state_set_range(cache, op->lo, op->hi, DIRTY);
		for (uint64_t c = op->lo / CHUNK_BLOCKS; c * CHUNK_BLOCKS < op->hi; c++)
			evict_touch(cache, (uint32_t)c);
	}
	/* Also where no state has changed: the bytes have. */
	for (uint64_t c = op->lo / CHUNK_BLOCKS; c * CHUNK_BLOCKS < op->hi; c++)
		state_changed(cache, (uint32_t)c);
	cache->group->dirtying -= op->dirtying;
	op->dirtying = 0;
	room_release(op);
	op_uncover(op);
	if (err)
		group_relieved(cache->group);
	cache_kick_pusher(cache);
	if (absent) /* pulls of these waited */
		cache_kick_puller(cache);
	if (!err && op->req->flags & STORE_FUA)
		flush_fua(op);
	else
		op_complete(op, err);
}

/* ---- WRITE ---- */

static void write_done(struct store_req *req, int err)
{
	struct cache_op *op = store_pop(req);

	if (!err)
		cache_extend(op->cache, req->off + req->len);
	changed(op, err);
}

static void write_step(struct cache_op *op)
{
	struct store_req *req = op->req;
	uint64_t end = req->off + req->len;

	if (!prepare(op, req->off, end, true) || !cover(op, OP_WRITE, req->off, end))
		return;
	store_push(req, write_done, op);
	store_forward(op->cache->conf.local, req);
}

void write_begin(struct cache_op *op)
{
	op->step = write_step;
	write_step(op);
}

/* ---- ZERO ---- */

static void zero_allocated(struct store_req *sreq, int err)
{
	changed(op_of(sreq), err);
}

static void zero_done(struct store_req *sreq, int err)
{
	struct cache_op *op = op_of(sreq);

	if (err || !(sreq->flags & STORE_KEEP)) {
		changed(op, err);
		return;
	}
	sreq->op = STORE_ALLOC;
	sreq->done = zero_allocated;
	store_submit(op->cache->conf.local, sreq);
}

static bool all_holes(const struct cache *cache, uint64_t lo, uint64_t hi)
{
	for (uint64_t c = lo / CHUNK_BLOCKS; c * CHUNK_BLOCKS < hi; c++)
		if (chunk_mask(c, lo, hi) &
		    ~(mark_of(cache, (uint32_t)c) & ~held_of(cache, (uint32_t)c)))
			return false;
	return true;
}

static void zero_step(struct cache_op *op)
{
	struct store_req *req = op->req;
	struct cache *cache = op->cache;
	/* Beyond the region's end all is zeros. */
	uint64_t end = min_u64(req->off + req->len, blocks_up(cache->size) << BLOCK_SHIFT);
	bool keep = req->flags & STORE_KEEP;

	if (req->off >= end) {
		give_up(op, cache->frozen);
		return;
	}
	if (!prepare(op, req->off, end, keep))
		return;
	if (!keep && all_holes(cache, req->off >> BLOCK_SHIFT, blocks_up(end)) &&
	    !op_find(cache, req->off >> BLOCK_SHIFT, blocks_up(end), OP_BIT(OP_WRITE))) {
		give_up(op, 0);
		return;
	}
	if (!cover(op, OP_ZERO, req->off, end))
		return;
	op->sreq = (struct store_req){
	    .op = STORE_ZERO,
	    .flags = req->flags & (STORE_KEEP | STORE_FUA),
	    .off = req->off,
	    .len = end - req->off,
	    .done = zero_done,
	};
	store_submit(cache->conf.local, &op->sreq);
}

void zero_begin(struct cache_op *op)
{
	op->step = zero_step;
	zero_step(op);
}

/* ---- ALLOC ---- */

static void alloc_done(struct store_req *sreq, int err)
{
	struct cache_op *op = op_of(sreq);
	struct cache *cache = op->cache;
	struct store_req *req = op->req;

	if (op->covering)
		op_uncover(op);
	if (!err && !(req->flags & STORE_KEEP))
		cache_extend(cache, req->off + req->len);
	op_complete(op, err);
	remote_done(cache);
}

static void alloc_step(struct cache_op *op)
{
	struct cache *cache = op->cache;
	struct store_req *req = op->req;
	uint64_t lo = req->off >> BLOCK_SHIFT, hi = blocks_up(req->off + req->len);
	uint64_t align;
	int rc = cache->frozen;

	if (!rc && cache->resizing) {
		op_wait(op, &cache->resizing->waiters);
		return;
	}
	if (!rc && !cache->remote) {
		op_wait(op, &cache->for_remote);
		return;
	}
	if (!rc && hi > cache->span && !(req->flags & STORE_KEEP))
		rc = state_grow(cache, hi, true);
	if (rc) {
		op_complete(op, rc);
		return;
	}
	op->kind = OP_ALLOC;
	op->lo = lo;
	op->hi = min_u64(hi, cache->span);
	if (op->lo < op->hi && !op_cover(op))
		return;
	align = cache->remote->align;
	op->sreq = (struct store_req){
	    .op = STORE_ALLOC,
	    .flags = req->flags & STORE_KEEP,
	    .off = req->off & ~(align - 1),
	    .len = ((req->off + req->len + align - 1) & ~(align - 1)) - (req->off & ~(align - 1)),
	};
	remote_submit(op, alloc_done);
}

void alloc_begin(struct cache_op *op)
{
	op->step = alloc_step;
	alloc_step(op);
}
