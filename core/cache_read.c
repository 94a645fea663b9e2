/* SPDX-License-Identifier: Apache-2.0
 *
 * READs of a cache, and fetches from the remote.
 *
 * A READ whose blocks are all resident is handed to the local store as it is: nothing is allocated, and what
 * the local store lends is lent on.  Any other becomes an operation that goes from piece to piece:
 *   resident run   → read from the local store into the request's buffer
 *   absent run that somebody is fetching (or writing, …)  → wait for that, and look again
 *   absent run     → fetch it, straight into the request's buffer where whole blocks are wanted
 * The request has its bytes when the fetch has brought them, whether or not the local store takes them; where
 * there is no room, or the index may know dropped blocks (cache_commit.c), it does not get them.  When
 * an operation that waited finds everything resident it hands the request to the local store after all.
 *
 * A fetch's states: at the remote → filling (its valid runs are written to the local store, one by one; each
 * becomes clean when that has succeeded) → ended.  It fails if the remote does; a local store that fails only
 * leaves the blocks absent.
 */
#include "core/cache.h"

#include <string.h>

#include "core/cache_int.h"

#define IN_THE_WAY \
	(OP_BIT(OP_FETCH) | OP_BIT(OP_WRITE) | OP_BIT(OP_ZERO) | OP_BIT(OP_EVICT) | \
	    OP_BIT(OP_RESIZE))

/* ---- resident ---- */

void readers_change(struct cache *cache, uint64_t off, uint64_t len, int by)
{
	for (uint64_t c = off >> CHUNK_SHIFT; c <= (off + len - 1) >> CHUNK_SHIFT; c++) {
		uint16_t *readers = &seg_of(cache, (uint32_t)c)->readers[c % SEG_CHUNKS];

		assert(by > 0 ? *readers < UINT16_MAX : *readers > 0);
		*readers = (uint16_t)(*readers + by);
	}
	if (by < 0)
		room_unused(cache, off >> BLOCK_SHIFT, blocks_up(off + len));
}

static void touch_range(struct cache *cache, uint64_t off, uint64_t len)
{
	for (uint64_t c = off >> CHUNK_SHIFT; c <= (off + len - 1) >> CHUNK_SHIFT; c++)
		evict_touch(cache, (uint32_t)c);
}

static void local_done(struct store_req *req, int err)
{
	struct cache *cache = store_pop(req);

	if (!req->ret_lent)
		readers_change(cache, req->off, req->len, -1);
	store_complete(req, err);
}

static void read_local(struct cache *cache, struct store_req *req)
{
	touch_range(cache, req->off, req->len);
	readers_change(cache, req->off, req->len, 1);
	store_push(req, local_done, cache);
	store_forward(cache->conf.local, req);
}

/* ---- in pieces ---- */

static void read_step(struct cache_op *op);

/* The request of a piece has been answered. */
static void read_go_on(struct cache_op *op)
{
	if (op->stepping)
		op->again = true;
	else
		read_step(op);
}

static void piece_done(struct store_req *sreq, int err)
{
	struct cache_op *op = op_of(sreq);

	readers_change(op->cache, sreq->off, sreq->len, -1);
	op->err = err;
	op->pos += sreq->len;
	read_go_on(op);
}

static void piece_local(struct cache_op *op, uint64_t end)
{
	struct store_req *req = op->req;

	op->sreq = (struct store_req){
	    .op = STORE_READ,
	    .off = op->pos,
	    .len = end - op->pos,
	    .buf = (uint8_t *)req->buf + (op->pos - req->off),
	    .done = piece_done,
	};
	touch_range(op->cache, op->pos, end - op->pos);
	readers_change(op->cache, op->pos, end - op->pos, 1);
	store_submit(op->cache->conf.local, &op->sreq);
}

static void piece_fetched(struct cache_op *op, int err)
{
	struct store_req *req = op->req;
	uint64_t end = min_u64(op->hi << BLOCK_SHIFT, req->off + req->len);

	op->kind = OP_READ;
	op->err = err;
	if (!err && op->buf)
		memcpy((uint8_t *)req->buf + (op->pos - req->off),
		    op->buf + (op->pos - (op->lo << BLOCK_SHIFT)), end - op->pos);
	op_buffer_put(op);
	op->pos = end;
	read_go_on(op);
}

/* Fetches the piece that begins with the absent block lo; false: op waits. */
static bool piece_fetch(struct cache_op *op, uint64_t lo, uint64_t limit)
{
	struct store_req *req = op->req;
	uint64_t hi = fetch_run_end(op->cache, lo, limit), end = req->off + req->len;
	bool aligned = op->pos % STORE_BLOCK == 0;

	/* A part of a block at the end goes by itself: the others come straight to where they are wanted. */
	if (aligned && hi - lo > 1 && (hi << BLOCK_SHIFT) > end)
		hi--;
	op->data = (uint8_t *)req->buf + (op->pos - req->off);
	if (!aligned || (hi << BLOCK_SHIFT) > end) {
		if (!op_buffer(op, true))
			return false;
		op->data = op->buf;
	}
	op->lo = lo;
	op->hi = hi;
	op->kind = OP_FETCH;
	op->keep =
	    commit_find_dropped(op->cache, lo, hi) == NO_CHUNK && room_reserve(op, hi - lo, true);
	if (!op_cover(op)) {
		op->kind = OP_READ;
		room_release(op);
		return false;
	}
	op->fetched = piece_fetched;
	fetch_start(op, false);
	return true;
}

static void ahead_fetched(struct cache_op *op, int err)
{
	op_buffer_put(op);
	op_put(op);
}

/* Fetches the absent runs after the first one, too, so that their round trips are one. */
static void read_ahead(struct cache_op *reader, uint64_t lo, uint64_t limit)
{
	struct cache *cache = reader->cache;
	uint64_t hi = fetch_run_end(cache, lo, limit);

	while ((lo = state_run_end(cache, hi, limit, true)) < limit) {
		struct cache_op *op;

		hi = state_run_end(cache, lo, limit, false);
		if (op_find(cache, lo, hi, IN_THE_WAY) || hi != fetch_run_end(cache, lo, hi))
			continue;
		op = op_get(cache, OP_FETCH, FOR_PULL);
		if (!op)
			return;
		op->lo = lo;
		op->hi = hi;
		op->keep = commit_find_dropped(cache, lo, hi) == NO_CHUNK &&
			   room_reserve(op, hi - lo, true);
		if (!op->keep || !op_buffer(op, false) || !op_cover(op)) {
			op_give_up(op);
			return;
		}
		op->data = op->buf;
		op->fetched = ahead_fetched;
		fetch_start(op, false);
	}
}

/* Does the next piece; true: it is done already. */
static bool read_next(struct cache_op *op)
{
	struct cache *cache = op->cache;
	struct store_req *req = op->req;
	uint64_t end = req->off + req->len, lo = op->pos >> BLOCK_SHIFT;
	uint64_t limit = min_u64(cache->span, blocks_up(end));
	struct cache_op *other;

	op->again = false;
	if (op->pos == req->off && blocks_up(end) <= cache->span &&
	    state_all_resident(cache, lo, limit)) {
		op_buffer_put(op);
		op_put(op);
		read_local(cache, req);
		return false;
	}
	if (lo >= limit) {
		memset((uint8_t *)req->buf + (op->pos - req->off), 0, end - op->pos);
		op->pos = end;
		return true;
	}
	if (state_resident(cache, lo)) {
		uint64_t hi = state_run_end(cache, lo, limit, true);

		piece_local(op, min_u64(hi << BLOCK_SHIFT, end));
		return op->again;
	}
	other = op_find(cache, lo, lo + 1, IN_THE_WAY);
	if (other || !cache->remote) {
		op_wait(op, other ? &other->waiters : &cache->for_remote);
		return false;
	}
	if (!op->missed)
		cache->misses++;
	if (!op->missed && limit - lo > 1)
		read_ahead(op, lo, limit);
	op->missed = true;
	return piece_fetch(op, lo, limit) && op->again;
}

static void read_step(struct cache_op *op)
{
	struct store_req *req = op->req;

	op->stepping = true;
	do {
		if (op->err || op->pos == req->off + req->len) {
			op_buffer_put(op);
			op_complete(op, op->err);
			return;
		}
	} while (read_next(op));
	op->stepping = false; /* handed on, it is free, and this says nothing */
}

void cache_read(struct cache_handle *handle, struct store_req *req)
{
	struct cache *cache = handle->cache;
	uint64_t lo = req->off >> BLOCK_SHIFT, hi = blocks_up(req->off + req->len);
	struct cache_op *op;

	if (cache->puller)
		cache->puller->read(cache->puller_ctx, req->off, req->len);
	if (hi <= cache->span && state_all_resident(cache, lo, hi)) {
		cache->hits++;
		read_local(cache, req);
		return;
	}
	op = cache_request_op(handle, req, OP_READ);
	if (!op)
		return;
	op->pos = req->off;
	op->step = read_step;
	read_step(op);
}

/* ---- fetches ---- */

uint64_t fetch_run_end(const struct cache *cache, uint64_t lo, uint64_t hi)
{
	uint64_t most = cache->remote->max_len / STORE_BLOCK;
	const struct cache_op *other;

	hi = state_run_end(cache, lo, min_u64(hi, lo + (most ? most : 1)), false);
	while (hi > lo + 1 && (other = op_find(cache, lo + 1, hi, IN_THE_WAY)))
		hi = max_u64(lo + 1, other->lo);
	return hi;
}

void fetch_invalidate(struct cache *cache, uint64_t lo, uint64_t hi)
{
	if (!op_find(cache, lo, hi, OP_BIT(OP_FETCH)))
		return;
	for (struct cache_op *op = cache->active; op; op = op->next) {
		uint64_t from = max_u64(lo, op->lo), to = min_u64(hi, op->hi);

		for (uint64_t b = from; op->kind == OP_FETCH && b < to; b++)
			op->valid[(b - op->lo) / 64] &= ~((uint64_t)1 << ((b - op->lo) % 64));
	}
}

static bool is_valid(const struct cache_op *op, uint64_t block)
{
	uint64_t i = block - op->lo;

	return op->valid[i / 64] >> (i % 64) & 1;
}

static void fetch_end(struct cache_op *op, int err)
{
	struct cache *cache = op->cache;

	op->filling = false;
	op_uncover(op);
	if (!op->exclusive) /* it is for a write, which goes on */
		room_release(op);
	op->fetched(op, err);
	cache_kick_puller(cache);
}

static void fill_step(struct cache_op *op);

/* The local store has taken [lo, fill_pos), or not. */
static void filled(struct store_req *sreq, int err)
{
	struct cache_op *op = op_of(sreq);
	uint64_t lo = sreq->off >> BLOCK_SHIFT;

	if (err) {
		state_stale(op->cache, op->lo, op->hi);
		op->fill_err = err;
		op->fill_pos = op->hi;
	}
	for (uint64_t b = lo; !err && b < op->fill_pos;) {
		uint64_t run = b;

		while (run < op->fill_pos && is_valid(op, run))
			run++;
		if (run > b)
			state_set_range(op->cache, b, run, CLEAN);
		else
			state_stale(op->cache, b, b + 1); /* dropped meanwhile */
		b = run > b ? run : b + 1;
	}
	if (op->fill_stepping)
		op->fill_again = true;
	else
		fill_step(op);
}

static const uint8_t *block_data(const struct cache_op *op, uint64_t block)
{
	return op->data + ((block - op->lo) << BLOCK_SHIFT);
}

/* Whether a block that was fetched is zeros, and can be kept as a hole. */
static bool is_hole(const struct cache_op *op, uint64_t block)
{
	const uint8_t *data = block_data(op, block);
	uint64_t word;

	memcpy(&word, data, sizeof(word));
	return word == 0 && memcmp(data, store_zeros, STORE_BLOCK) == 0 &&
	       !(*flags_of(op->cache, (uint32_t)(block / CHUNK_BLOCKS)) & F_STALE);
}

/* Finds the next run of valid blocks that are (not) holes: [*ret_lo, op->fill_pos), empty at the end. */
static bool fill_run(struct cache_op *op, uint64_t *ret_lo)
{
	uint64_t lo = op->fill_pos, hi;
	bool hole;

	while (lo < op->hi && !is_valid(op, lo))
		lo++;
	hole = lo < op->hi && is_hole(op, lo);
	for (hi = lo; hi < op->hi && is_valid(op, hi) && is_hole(op, hi) == hole;)
		hi++;
	op->fill_pos = hi;
	*ret_lo = lo;
	return hole;
}

static void fill_step(struct cache_op *op)
{
	op->fill_stepping = true;
	do {
		uint64_t lo;
		bool hole = fill_run(op, &lo);

		op->fill_again = hole;
		if (lo == op->fill_pos) {
			op->fill_stepping = false;
			fetch_end(op, 0);
			return;
		}
		if (hole) {
			state_set_range(op->cache, lo, op->fill_pos, HOLE);
			continue;
		}
		op->sreq = (struct store_req){
		    .op = STORE_WRITE,
		    .off = lo << BLOCK_SHIFT,
		    .len = (op->fill_pos - lo) << BLOCK_SHIFT,
		    .buf = (void *)(uintptr_t)block_data(op, lo),
		    .done = filled,
		};
		store_submit(op->cache->conf.local, &op->sreq);
	} while (op->fill_again);
	op->fill_stepping = false;
}

static void fetch_replied(struct store_req *sreq, int err)
{
	struct cache_op *op = op_of(sreq);
	struct cache *cache = op->cache;

	if (sreq->flags & STORE_BACKGROUND)
		window_answered(&cache->group->pull, &op->mark, !err, loop_now_ns());
	cache->pulling -= op->hi - op->lo;
	if (!err)
		cache->fetched += sreq->len;
	if (err || !op->keep) {
		fetch_end(op, err);
	} else {
		op->filling = true;
		op->fill_pos = op->lo;
		fill_step(op);
	}
	remote_done(cache);
}

void fetch_start(struct cache_op *op, bool background)
{
	struct cache *cache = op->cache;
	uint64_t off = op->lo << BLOCK_SHIFT, len = (op->hi - op->lo) << BLOCK_SHIFT;

	memset(op->valid, 0xff, sizeof(op->valid));
	op->fill_err = 0;
	cache->pulling += op->hi - op->lo;
	if (off + len > cache->remote->size) { /* of a size that is no multiple of a block */
		uint64_t there = cache->remote->size > off ? cache->remote->size - off : 0;

		memset(op->data + there, 0, len - there);
		len = there;
	}
	op->sreq = (struct store_req){
	    .op = STORE_READ,
	    .flags = background ? STORE_BACKGROUND : 0,
	    .off = off,
	    .len = len,
	    .buf = op->data,
	};
	if (background)
		window_sent(&cache->group->pull, &op->mark, (op->hi - op->lo) << BLOCK_SHIFT,
		    loop_now_ns());
	remote_submit(op, fetch_replied);
}
