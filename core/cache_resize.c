/* SPDX-License-Identifier: Apache-2.0
 *
 * RESIZE and EXTENTS of a cache.
 *
 * A RESIZE covers everything from the smaller of old and new size on; who comes later waits for it, and it
 * waits for all that are there: no push or fetch beyond the new end is in flight when the remote is asked.
 * Then the local store is cut and the state beyond the end forgotten; if it can't be cut, the RESIZE fails, but the
 * region has its new size.  If the remote refuses, nothing has changed.  If it can't be known whether the remote has
 * done it (its answer was lost), the region keeps its size here, and what was clean beyond the smaller one is asked for
 * again: all reads agree.  In either case, what the remote has not flushed is pushed again.
 *
 * EXTENTS are the remote's, but for blocks that are held here: those have bytes, whatever the remote knows.
 */
#include "core/cache.h"

#include <errno.h>

#include "core/cache_int.h"

/* ---- RESIZE ---- */

static void resize_end(struct cache_op *op, int err)
{
	struct cache *cache = op->cache;
	uint64_t lo = op->lo, hi = op->hi;

	cache->resizing = NULL;
	cache->drops++;
	op_uncover(op);
	push_release(cache, lo, hi);
	group_relieved(cache->group);
	op_complete(op, err);
	cache_kick_pusher(cache);
	cache_kick_puller(cache);
}

/* The local store may have anything beyond the new end.  What of the last block is clean can be had again, unless
 * the remote may still lose it. */
static void cut_failed(struct cache_op *op)
{
	struct cache *cache = op->cache;
	uint64_t size = op->req->off, block = size >> BLOCK_SHIFT;
	uint32_t chunk = (uint32_t)(block / CHUNK_BLOCKS);

	state_stale(cache, op->lo, op->hi);
	cache->ragged = size % STORE_BLOCK;
	if (size % STORE_BLOCK)
		state_set(cache, chunk,
		    chunk_mask(chunk, block, block + 1) & resident_of(cache, chunk) &
			~dirty_of(cache, chunk),
		    is_unflushed(cache, chunk) ? DIRTY : ABSENT);
}

/* The local store is cut, or could not be. */
static void resize_cut(struct store_req *sreq, int err)
{
	struct cache_op *op = op_of(sreq);
	struct cache *cache = op->cache;
	uint64_t size = op->req->off, keep = blocks_up(size);

	state_changed(cache, (uint32_t)(size >> CHUNK_SHIFT)); /* its bytes have */
	cache->ragged = false;
	if (err)
		cut_failed(op);
	if (keep < cache->span) {
		state_set_range(cache, keep, cache->span, ABSENT);
		cache->span = keep;
	}
	resize_end(op, err);
}

/* Whether the remote has surely not done what it was asked for. */
static bool is_refusal(int err)
{
	static const int refusals[] = {
	    EACCES, EPERM, EROFS, EBUSY, ENOSPC, EDQUOT, EFBIG, EINVAL, ENOLCK, EBADF, EOPNOTSUPP};

	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
		if (err == -refusals[i])
			return true;
	return false;
}

/* The remote may have cut its bytes, or not. */
static void resize_doubt(struct cache_op *op)
{
	struct cache *cache = op->cache;

	for (uint64_t c = op->lo / CHUNK_BLOCKS; c * CHUNK_BLOCKS < op->hi; c++) {
		uint32_t chunk = (uint32_t)c;
		uint64_t clean =
		    held_of(cache, chunk) & ~mark_of(cache, chunk) & chunk_mask(c, op->lo, op->hi);
		bool unflushed = is_unflushed(cache, chunk);

		if (!clean)
			continue;
		if (!unflushed)
			state_stale(cache, c * CHUNK_BLOCKS, c * CHUNK_BLOCKS + 1);
		state_set(cache, chunk, clean, unflushed ? DIRTY : ABSENT);
	}
}

static void resize_agreed(struct cache_call *call, int err)
{
	struct cache_op *op = (struct cache_op *)((char *)call - offsetof(struct cache_op, call));
	struct cache *cache = op->cache;
	uint64_t size = op->req->off, end = cache->span << BLOCK_SHIFT;

	remote_done(cache);
	if (err && !is_refusal(err))
		resize_doubt(op);
	/* From now on: a commit during the cut must not store the old size again. */
	if (!err && size < cache->size)
		cache->size = size;
	else if (!err)
		cache_extend(cache, size);
	if (err || size >= end) {
		resize_end(op, err);
		return;
	}
	op->sreq = (struct store_req){
	    .op = STORE_ZERO,
	    .off = size,
	    .len = end - size,
	    .done = resize_cut,
	};
	store_submit(cache->conf.local, &op->sreq);
}

static void resize_replied(struct store_req *sreq, int err)
{
	resize_agreed(&op_of(sreq)->call, err);
}

/* When all others are gone, asks the remote. */
static void resize_wait(struct cache_op *op)
{
	struct cache *cache = op->cache;
	struct cache_op *other = op_find(cache, op->lo, op->hi, ~OP_BIT(OP_RESIZE));

	if (cache->frozen) {
		resize_end(op, cache->frozen);
		return;
	}
	if (other || !cache->remote) {
		op_wait(op, other ? &other->waiters : &cache->for_remote);
		return;
	}
	if (!cache->conf.remote_resize) {
		op->sreq = (struct store_req){.op = STORE_RESIZE, .off = op->req->off};
		remote_submit(op, resize_replied);
		return;
	}
	cache->remote_requests++;
	op->call.done = resize_agreed;
	cache->conf.remote_resize(cache->conf.ctx, op->req->off, &op->call);
}

static void resize_step(struct cache_op *op)
{
	struct cache *cache = op->cache;
	uint64_t size = op->req->off;
	int rc = cache->frozen;

	if (!rc && cache->resizing) {
		op_wait(op, &cache->resizing->waiters);
		return;
	}
	/* New blocks are holes on both sides; they stay so if the remote refuses. */
	if (!rc)
		rc = state_grow(cache, blocks_up(size), true);
	if (rc || cache->span == 0) {
		op_complete(op, rc);
		return;
	}
	op->lo = min_u64(min_u64(size, cache->size) >> BLOCK_SHIFT, cache->span - 1);
	op->hi = cache->span;
	op->kind = OP_RESIZE;
	if (!op_cover(op))
		return;
	cache->resizing = op;
	op->step = resize_wait;
	resize_wait(op);
}

void resize_begin(struct cache_op *op)
{
	op->step = resize_step;
	resize_step(op);
}

/* Whether a remote that was asked has done it would be unknown. */
void resize_interrupt(struct cache_op *op)
{
	if (!op->queue)
		return;
	op_unwait(op);
	resize_end(op, -EINTR);
}

void cache_load_cut(struct cache *cache, uint64_t chunk)
{
	uint64_t span = cache->span;

	if (state_grow(cache, (chunk + 1) * CHUNK_BLOCKS, false))
		return; /* it is found again, and cut again, by the next life */
	cache->span = span;
	state_changed(cache, (uint32_t)chunk);
}

/* ---- EXTENTS ---- */

/* Adds [off, off+len) to the answer; false: there is no room. */
static bool add_extent(struct store_req *req, uint64_t off, uint64_t len, uint32_t flags)
{
	struct extent *last = req->ret_extents ? &req->extents[req->ret_extents - 1] : NULL;

	if (last && last->flags == flags) {
		last->len += len;
		return true;
	}
	if (req->ret_extents == req->extents_max)
		return false;
	req->extents[req->ret_extents++] = (struct extent){off, len, flags};
	return true;
}

/* The end of the run of blocks from lo, at most hi, that are (not) held like it. */
static uint64_t held_run_end(const struct cache *cache, uint64_t lo, uint64_t hi, bool *ret_held)
{
	uint64_t c = lo / CHUNK_BLOCKS;
	uint64_t word = held_of(cache, (uint32_t)c), other;
	bool held = word >> (lo % CHUNK_BLOCKS) & 1;

	*ret_held = held;
	other = (held ? ~word : word) & chunk_mask(c, lo, hi);
	if (other)
		return c * CHUNK_BLOCKS + (uint64_t)__builtin_ctzll(other);
	return min_u64((c + 1) * CHUNK_BLOCKS, hi);
}

/* Adds an extent of the remote's answer, cut by what is held; false: there is no room. */
static bool add_remote(struct cache_op *op, uint64_t end, uint32_t flags)
{
	const struct cache *cache = op->cache;

	while (op->pos < end) {
		uint64_t lo = op->pos >> BLOCK_SHIFT, to = end;
		bool held = false;

		if (lo < cache->span)
			to = min_u64(end,
			    held_run_end(cache, lo, min_u64(blocks_up(end), cache->span), &held)
				<< BLOCK_SHIFT);
		if (!add_extent(op->req, op->pos, to - op->pos, held ? 0 : flags))
			return false;
		op->pos = to;
	}
	return true;
}

static void extents_step(struct cache_op *op);

static void extents_replied(struct store_req *sreq, int err)
{
	struct cache_op *op = op_of(sreq);
	struct cache *cache = op->cache;
	uint64_t end = op->req->off + op->req->len;
	bool room = true;
	/* Bytes that were pushed after the remote looked, and evicted since, were neither there nor are they here. */
	uint32_t known = op->asked == cache->evicted + cache->drops ? EXTENT_HOLE : 0;

	for (unsigned i = 0; !err && room && i < sreq->ret_extents; i++)
		room = add_remote(op, min_u64(end, sreq->extents[i].off + sreq->extents[i].len),
		    sreq->extents[i].flags & known);
	op_buffer_put(op);
	if (err || !room || op->pos >= end)
		op_complete(op, err);
	else
		extents_step(op);
	remote_done(cache);
}

static void extents_step(struct cache_op *op)
{
	struct cache *cache = op->cache;
	uint64_t end = op->req->off + op->req->len;

	if (!cache->remote) {
		op_wait(op, &cache->for_remote);
		return;
	}
	if (op->pos >= cache->remote->size) {
		add_remote(op, end, EXTENT_HOLE);
		op_complete(op, 0);
		return;
	}
	if (!op_buffer(op, true))
		return;
	op->sreq = (struct store_req){
	    .op = STORE_EXTENTS,
	    .off = op->pos,
	    .len = min_u64(end, cache->remote->size) - op->pos,
	    .extents = (struct extent *)op->buf,
	    .extents_max = STORE_LEN_MAX / sizeof(struct extent),
	};
	op->asked = cache->evicted + cache->drops;
	remote_submit(op, extents_replied);
}

void extents_begin(struct cache_op *op)
{
	op->req->ret_extents = 0;
	op->pos = op->req->off;
	op->step = extents_step;
	extents_step(op);
}
