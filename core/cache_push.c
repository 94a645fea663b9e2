/* SPDX-License-Identifier: Apache-2.0
 *
 * Pushes: dirty blocks to the remote, when the pusher asks for one.
 *
 * A push takes the first run of dirty blocks of the chunk that has been in the dirty list longest, and its
 * neighbours.  Its states: asked (STORE_EXTENTS: what of it is a hole in the local store) → read (from the
 * local store, lent where it lends) → committed (only with an index) → at the remote → ended.  A hole goes as
 * ZERO, of any length; bytes go as one WRITE of up to 1 MiB.  What is left of the run is dirty again and goes
 * with the next push.
 *
 * With an index the bytes that were read wait for a commit that begins then (cache_commit.c says why); they
 * are in a buffer of the push, for what is lent may change meanwhile.  Pushes that wait together share a
 * commit; their bytes are bounded by half of the window, so that others have buffers, too.
 *
 * The blocks become clean before they are read: a write during the push makes them dirty again, and they are
 * pushed once more, after this push has ended (invariant 3 of cache.c).  A chunk all of whose dirty blocks
 * are being pushed already is *held*: it leaves the list until that ends.  A push that failed puts its
 * blocks, and their chunk, back to the front.
 */
#include "core/cache.h"

#include <errno.h>

#include "core/cache_int.h"

uint64_t push_mask(const struct cache *cache, uint32_t chunk)
{
	unsigned left = op_most(cache, chunk);
	uint64_t mask = 0;

	for (const struct cache_op *op = cache->active; op && left; op = op->next) {
		if (!op_is_on(op, chunk))
			continue;
		left--;
		if (op->kind == OP_PUSH)
			mask |= chunk_mask(chunk, op->lo, op->hi);
	}
	return mask;
}

/* The dirty blocks of a chunk that may be pushed now. */
static uint64_t pushable(const struct cache *cache, uint32_t chunk)
{
	uint64_t dirty = dirty_of(cache, chunk);

	if (cache->resizing && cache->resizing->lo < ((uint64_t)chunk + 1) * CHUNK_BLOCKS)
		dirty &= ~chunk_mask(chunk, cache->resizing->lo, UINT64_MAX);
	return dirty ? dirty & ~push_mask(cache, chunk) : 0;
}

void push_release(struct cache *cache, uint64_t lo, uint64_t hi)
{
	for (uint64_t c = lo / CHUNK_BLOCKS; c * CHUNK_BLOCKS < hi; c++)
		if (*flags_of(cache, (uint32_t)c) & F_HELD)
			dirty_enlist(cache, (uint32_t)c, true);
}

/* A chunk has left the list with no dirty block to wait for. */
static void round_chunk_done(struct cache *cache, uint32_t chunk)
{
	uint16_t *flags = flags_of(cache, chunk);

	if (!(*flags & F_ROUND))
		return;
	*flags &= (uint16_t)~F_ROUND;
	cache->round_chunks--;
	flush_check(cache);
}

/* The first chunk of the list that can be pushed, which stays in it; NO_CHUNK: none. */
static uint32_t first_chunk(struct cache *cache)
{
	while (cache->dirty_list.count) {
		uint32_t chunk = cache->dirty_list.head;

		if (pushable(cache, chunk))
			return chunk;
		list_pop(cache, &cache->dirty_list, true);
		*flags_of(cache, chunk) &= (uint16_t)~F_LISTED;
		if (dirty_of(cache, chunk))
			*flags_of(cache, chunk) |= F_HELD;
		else
			round_chunk_done(cache, chunk);
	}
	return NO_CHUNK;
}

/* The run of pushable blocks that begins in this chunk: [*ret_lo, *ret_hi). */
static void find_run(struct cache *cache, uint32_t chunk, uint64_t *ret_lo, uint64_t *ret_hi)
{
	uint64_t word = pushable(cache, chunk);
	uint64_t lo = (uint64_t)chunk * CHUNK_BLOCKS + (uint64_t)__builtin_ctzll(word);
	uint64_t hi = lo, most = min_u64(lo + PUSH_BLOCKS, cache->span);

	while (hi < most) {
		uint64_t c = hi / CHUNK_BLOCKS;
		uint64_t gap = ~pushable(cache, (uint32_t)c) & chunk_mask(c, hi, most);

		if (gap) {
			hi = c * CHUNK_BLOCKS + (uint64_t)__builtin_ctzll(gap);
			break;
		}
		hi = min_u64((c + 1) * CHUNK_BLOCKS, most);
	}
	*ret_lo = lo;
	*ret_hi = hi;
}

/* ---- a push ---- */

/* [lo, hi), which is in the push no more, is dirty as before, and the first to be pushed again. */
static void put_back(struct cache_op *op, uint64_t lo, uint64_t hi)
{
	struct cache *cache = op->cache;

	for (uint64_t c = (hi - 1) / CHUNK_BLOCKS + 1; c-- > lo / CHUNK_BLOCKS;) {
		uint16_t *flags = flags_of(cache, (uint32_t)c);

		if (op->in_round && !(*flags & F_ROUND)) {
			*flags |= F_ROUND;
			cache->round_chunks++;
		}
		dirty_enlist(cache, (uint32_t)c, true); /* before state_set: it keeps its age */
		state_set(cache, (uint32_t)c, chunk_mask(c, lo, hi), DIRTY);
	}
}

/* Takes the push out of the books. */
static void push_leave(struct cache_op *op)
{
	struct cache *cache = op->cache;

	if (op->lent)
		store_unlend(cache->conf.local, op->sreq.off, (uint32_t)op->sreq.len);
	op_buffer_put(op);
	cache->pushing -= op->hi - op->lo;
	cache->group->pushing -= op->hi - op->lo;
	op_uncover(op);
}

static void push_failed(struct cache_op *op, int err)
{
	struct cache *cache = op->cache;

	if (op->in_round)
		flush_fail_round(cache, err);
	op->in_round = false;
	put_back(op, op->lo, op->hi);
	cache->push_errors++;
	cache->push_error = err;
	flush_report(cache, err);
}

static void push_succeeded(struct cache_op *op)
{
	struct cache *cache = op->cache;

	cache->push_error = 0;
	cache->pushed += (op->hi - op->lo) << BLOCK_SHIFT;
	for (uint64_t c = op->lo / CHUNK_BLOCKS; c * CHUNK_BLOCKS < op->hi; c++) {
		uint64_t mask = chunk_mask(c, op->lo, op->hi);

		/* A write that failed meanwhile may have left bytes where the hole was. */
		if (op->hole && !(*flags_of(cache, (uint32_t)c) & F_STALE))
			state_set(cache, (uint32_t)c, mask & ~dirty_of(cache, (uint32_t)c), HOLE);
		flush_pushed(cache, (uint32_t)c);
	}
}

/* The push is over: its blocks are clean, holes or dirty.  A doubtful one, as if it had not been. */
static void push_end(struct cache_op *op, int err)
{
	struct cache *cache = op->cache;
	uint64_t lo = op->lo, hi = op->hi;
	bool in_round = op->in_round;

	push_leave(op);
	scan_doubt(cache, lo, hi); /* one that began later may have been answered earlier */
	if (err)
		push_failed(op, err);
	else if (op->doubtful)
		put_back(op, lo, hi);
	else
		push_succeeded(op);
	for (uint64_t c = lo / CHUNK_BLOCKS; c * CHUNK_BLOCKS < hi; c++)
		state_changed(cache, (uint32_t)c); /* the index has them as dirty */
	push_release(cache, lo, hi);
	op_put(op);
	cache->round_pushes -= in_round;
	if (!err)
		group_relieved(cache->group);
	flush_check(cache);
	if (cache->pusher)
		cache->pusher->pushed(cache->pusher_ctx, (hi - lo) << BLOCK_SHIFT, err);
}

/* The remote has been detached before the push was sent: as if it had not begun. */
static void push_abandon(struct cache_op *op)
{
	struct cache *cache = op->cache;
	bool in_round = op->in_round;

	push_leave(op);
	put_back(op, op->lo, op->hi);
	push_release(cache, op->lo, op->hi);
	op_put(op);
	cache->round_pushes -= in_round;
}

static void push_replied(struct store_req *sreq, int err)
{
	struct cache_op *op = op_of(sreq);
	struct cache *cache = op->cache;

	window_answered(&cache->group->push, &op->mark, !err, loop_now_ns());
	push_end(op, err);
	remote_done(cache);
}

/* How many bytes of the push there are: the region may end within its last block. */
static uint64_t push_len(const struct cache_op *op)
{
	const struct store *remote = op->cache->remote;
	uint64_t end = op->hi << BLOCK_SHIFT;

	end = min_u64(end, remote->align > 1 ? remote->size : op->cache->size);
	return end - (op->lo << BLOCK_SHIFT);
}

static void push_submit(struct cache_op *op, enum store_op kind, void *buf, uint64_t len)
{
	op->sreq = (struct store_req){
	    .op = kind,
	    .flags = STORE_BACKGROUND,
	    .off = op->lo << BLOCK_SHIFT,
	    .len = len,
	    .buf = buf,
	};
	window_sent(
	    &op->cache->group->push, &op->mark, kind == STORE_WRITE ? len : 0, loop_now_ns());
	remote_submit(op, push_replied);
}

/* Sends it: op->sreq has the bytes that were read. */
static void push_send(struct cache_op *op)
{
	struct cache *cache = op->cache;

	if (cache->frozen || cache->stopped)
		push_end(op, cache->frozen ? cache->frozen : -ECANCELED);
	else if (!cache->remote)
		push_abandon(op);
	else if (op->hole)
		push_submit(op, STORE_ZERO, NULL, push_len(op));
	else
		push_submit(op, STORE_WRITE, op->sreq.buf, op->sreq.len);
}

static void push_committed(struct cache_op *op)
{
	if (!op->hole)
		op->cache->uncommitted -= op->hi - op->lo;
	if (op->commit_err)
		push_end(op, op->commit_err);
	else
		push_send(op);
}

/* What is to be sent is known. */
static void push_commit(struct cache_op *op)
{
	if (!op->cache->conf.commit) {
		push_send(op);
		return;
	}
	if (!op->hole)
		op->cache->uncommitted += op->hi - op->lo;
	op->step = push_committed;
	commit_wait(op);
}

static void push_read(struct store_req *sreq, int err)
{
	struct cache_op *op = op_of(sreq);

	op->lent = !err && sreq->ret_lent;
	if (op->lent)
		op_buffer_put(op);
	if (err)
		push_end(op, err);
	else
		push_commit(op);
}

static void push_asked(struct store_req *sreq, int err)
{
	struct cache_op *op = op_of(sreq);
	struct cache *cache = op->cache;
	uint64_t most = cache->remote ? cache->remote->max_len / STORE_BLOCK : 0, hi = op->hi;

	if (!cache->remote) {
		push_abandon(op);
		return;
	}
	op->hole = !err && (op->extents[0].flags & EXTENT_HOLE);
	if (!err) /* whole blocks of what begins the run */
		hi = (op->extents[0].off + op->extents[0].len) >> BLOCK_SHIFT;
	/* The region's last block goes as bytes: a ZERO would not make the region longer there. */
	if (op->hole)
		hi = min_u64(hi, (cache->size - 1) >> BLOCK_SHIFT);
	if (hi <= op->lo) { /* a file system with larger blocks than ours, and odd ones */
		op->hole = false;
		hi = op->lo + 1;
	}
	if (!op->hole)
		hi = min_u64(hi, op->lo + min_u64(most ? most : 1, FETCH_BLOCKS));
	if (hi < op->hi) {
		uint64_t end = op->hi;

		cache->pushing -= end - hi;
		cache->group->pushing -= end - hi;
		op_shrink(op, hi);
		put_back(op, hi, end);
		cache_kick_pusher(cache);
	}
	if (op->hole) {
		op_buffer_put(op);
		push_commit(op);
		return;
	}
	op->sreq = (struct store_req){
	    .op = STORE_READ,
	    .flags = cache->conf.commit ? 0 : STORE_LEND,
	    .off = op->lo << BLOCK_SHIFT,
	    .len = push_len(op),
	    .buf = op->buf,
	    .done = push_read,
	};
	store_submit(cache->conf.local, &op->sreq);
}

/* Takes the blocks out of the dirty ones, and starts. */
static void push_start(struct cache_op *op)
{
	struct cache *cache = op->cache;

	for (uint64_t c = op->lo / CHUNK_BLOCKS; c * CHUNK_BLOCKS < op->hi; c++)
		if (*flags_of(cache, (uint32_t)c) & F_ROUND)
			op->in_round = true;
	if (op->in_round)
		cache->round_pushes++;
	state_set_range(cache, op->lo, op->hi, CLEAN);
	cache->pushing += op->hi - op->lo;
	cache->group->pushing += op->hi - op->lo;
	first_chunk(
	    cache); /* those of the list's head that are in the push leave it, and lose their age */
	scan_doubt(cache, op->lo, op->hi);
	op->sreq = (struct store_req){
	    .op = STORE_EXTENTS,
	    .off = op->lo << BLOCK_SHIFT,
	    .len = (op->hi - op->lo) << BLOCK_SHIFT,
	    .extents = op->extents,
	    .extents_max = sizeof(op->extents) / sizeof(op->extents[0]),
	    .done = push_asked,
	};
	store_submit(cache->conf.local, &op->sreq);
}

enum cache_push cache_push(struct cache *cache, uint64_t *ret_len)
{
	uint32_t chunk;
	struct cache_op *op;

	if (!cache->remote || cache->frozen || cache->stopped)
		return CACHE_PUSH_BUSY;
	chunk = first_chunk(cache);
	if (chunk == NO_CHUNK)
		return CACHE_PUSH_NOTHING;
	if (cache->uncommitted << BLOCK_SHIFT > cache->group->push.max / 2)
		return CACHE_PUSH_BUSY;
	op = op_get(cache, OP_PUSH, FOR_PUSH);
	if (!op) {
		cache->group->starved = true;
		return CACHE_PUSH_BUSY;
	}
	find_run(cache, chunk, &op->lo, &op->hi);
	if (!op_buffer(op, false) || !op_cover(op)) {
		op_give_up(op);
		return CACHE_PUSH_BUSY;
	}
	*ret_len = (op->hi - op->lo) << BLOCK_SHIFT;
	push_start(op);
	return CACHE_PUSH_STARTED;
}
