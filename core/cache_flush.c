/* SPDX-License-Identifier: Apache-2.0
 *
 * FLUSH, FUA, and the errors of write-back.
 *
 * There are two lines, one for each durability that takes work: the remote's and the local one.  In a line
 * one round is under way at a time, for all flushes that had come when it began; those that come later are
 * the next round.  So a hundred writers with O_SYNC cost two rounds, not a hundred.
 *
 * A round of the remote line: every chunk in its ranges that is dirty gets F_ROUND, every push in flight is
 * in_round → the pusher pushes (round_chunks and round_pushes count down) → FLUSH to the remote → done.  A
 * push that fails ends the round with its error when those that are in flight have ended: what is not, is not
 * pushed for it (tried again at once, the same blocks would come first each time, and the rest never).  A round of the local line:
 * FLUSH to the local store → a commit of the index (cache_commit.c) → done.
 *
 * What has been pushed may be lost by a donor that crashes before its FLUSH.  So chunks that were pushed are
 * F_UNFLUSHED until a FLUSH that began later has succeeded (two generations: those before the FLUSH that is
 * under way, and those since).  When the FLUSH fails all of them are dirty again, so they are not evicted before;
 * and a push that is at the remote then counts for nothing, whatever its answer.
 *
 * Errors: each failure of write-back increments cache->errors.  A handle's FLUSH compares that with what the
 * handle has seen.
 */
#include "core/cache.h"

#include <errno.h>

#include "core/cache_int.h"

/* ---- errors ---- */

void flush_report(struct cache *cache, int err)
{
	cache->errors++;
	cache->last_error = err;
}

static int handle_error(struct cache_handle *handle)
{
	struct cache *cache = handle->cache;

	if (handle->errors_seen == cache->errors)
		return 0;
	handle->errors_seen = cache->errors;
	return cache->last_error;
}

/* ---- lines ---- */

static void line_begin(struct cache *cache, struct flush_line *line);

static void line_init(struct flush_line *line)
{
	line->next_tail = &line->next;
}

/* The round is over; the next one begins. */
static void line_end(struct cache *cache, struct flush_line *line, int err)
{
	struct cache_flush *list = line->now;

	line->now = NULL;
	while (list) {
		struct cache_flush *flush = list;

		list = flush->next;
		flush->done(flush, err);
	}
	line->active = false;
	if (line->next)
		line_begin(cache, line);
	else if (cache->stopping || cache->detaching)
		cache_check_idle(cache);
}

static void line_add(struct cache *cache, struct flush_line *line, struct cache_flush *flush)
{
	flush->next = NULL;
	*line->next_tail = flush;
	line->next_tail = &flush->next;
	if (!line->active)
		line_begin(cache, line);
}

/* Takes a flush out that is not in a round yet, or leaves its place empty in the round; false: not there. */
static bool line_remove(struct flush_line *line, struct cache_flush *flush)
{
	struct cache_flush **link = &line->now;

	while (*link && *link != flush)
		link = &(*link)->next;
	if (*link == flush) {
		*link = flush->next;
		return true;
	}
	link = &line->next;
	while (*link && *link != flush)
		link = &(*link)->next;
	if (!*link)
		return false;
	*link = flush->next;
	if (!*link)
		line->next_tail = link;
	return true;
}

/* ---- the remote line ---- */

static void mark_unflushed_old(struct cache *cache)
{
	cache->flush_wanted = false;
	for (uint64_t c = 0; cache->unflushed && c < state_chunks(cache); c++) {
		uint16_t *flags = flags_of(cache, (uint32_t)c);

		if (!(*flags & F_UNFLUSHED))
			continue;
		*flags &= (uint16_t)~F_UNFLUSHED;
		cache->unflushed--;
		if (!(*flags & F_UNFLUSHED_OLD)) {
			*flags |= F_UNFLUSHED_OLD;
			cache->unflushed_old++;
		}
	}
}

/* The remote has flushed what was pushed before the FLUSH began. */
static void settle_unflushed_old(struct cache *cache)
{
	for (uint64_t c = 0; cache->unflushed_old && c < state_chunks(cache); c++) {
		uint16_t *flags = flags_of(cache, (uint32_t)c);

		if (!(*flags & F_UNFLUSHED_OLD))
			continue;
		*flags &= (uint16_t)~F_UNFLUSHED_OLD;
		cache->unflushed_old--;
		state_changed(cache, (uint32_t)c);
	}
}

/* The remote's FLUSH has failed: all that it has ever taken and not flushed may be lost, also what it took
 * after the FLUSH began. */
static void redo_unflushed(struct cache *cache)
{
	uint64_t end = blocks_up(cache->size);

	for (uint64_t c = 0; c < state_chunks(cache); c++) {
		uint16_t *flags = flags_of(cache, (uint32_t)c);

		if (!(*flags & (F_UNFLUSHED | F_UNFLUSHED_OLD)))
			continue;
		*flags &= (uint16_t) ~(F_UNFLUSHED | F_UNFLUSHED_OLD);
		state_changed(cache, (uint32_t)c);
		if (c * CHUNK_BLOCKS < end)
			state_set(cache, (uint32_t)c,
			    resident_of(cache, (uint32_t)c) & chunk_mask(c, 0, end), DIRTY);
	}
	cache->unflushed = cache->unflushed_old = 0;
	for (struct cache_op *op = cache->active; op; op = op->next)
		if (op->kind == OP_PUSH && op->sreq.store &&
		    (op->sreq.op == STORE_WRITE || op->sreq.op == STORE_ZERO))
			op->doubtful = true;
}

void flush_pushed(struct cache *cache, uint32_t chunk)
{
	uint16_t *flags = flags_of(cache, chunk);

	if (*flags & F_UNFLUSHED)
		return;
	*flags |= F_UNFLUSHED;
	cache->unflushed++;
}

static void remote_flushed(struct store_req *req, int err)
{
	struct cache *cache =
	    (struct cache *)((char *)req - offsetof(struct cache, remote_line.req));

	if (err) {
		redo_unflushed(cache);
		flush_report(cache, err);
	} else {
		settle_unflushed_old(cache);
	}
	remote_done(cache);
	group_relieved(cache->group); /* these can be evicted, or wait to be pushed */
	cache_kick_puller(cache);
	if (err)
		cache_kick_pusher(cache);
	line_end(cache, &cache->remote_line, err);
}

/* Everything is pushed, or something could not be. */
static void remote_flush(struct cache *cache)
{
	struct flush_line *line = &cache->remote_line;

	cache->pushing_round = false;
	if (line->err || (!cache->unflushed && !cache->unflushed_old)) {
		line_end(cache, line, line->err);
		return;
	}
	mark_unflushed_old(cache);
	line->req = (struct store_req){.op = STORE_FLUSH, .done = remote_flushed};
	cache->remote_requests++;
	store_submit(cache->remote, &line->req);
}

void flush_check(struct cache *cache)
{
	if (!cache->pushing_round || cache->round_chunks || cache->round_pushes)
		return;
	/* Without a remote, a round that still has to flush there waits for one. */
	if (cache->remote || cache->remote_line.err || (!cache->unflushed && !cache->unflushed_old))
		remote_flush(cache);
}

static void mark_round(struct cache *cache, uint64_t off, uint64_t len)
{
	uint64_t end = len ? min_u64(len > UINT64_MAX - off ? UINT64_MAX : off + len, cache->size)
			   : cache->size;
	uint64_t hi = min_u64(blocks_up(end), cache->span), seen = 0;

	for (uint64_t c = off >> CHUNK_SHIFT; seen < cache->dirty && c * CHUNK_BLOCKS < hi; c++) {
		uint16_t *flags = flags_of(cache, (uint32_t)c);
		uint64_t dirty = dirty_of(cache, (uint32_t)c);

		seen += count_bits(dirty);
		if (!dirty || (*flags & F_ROUND))
			continue;
		*flags |= F_ROUND;
		cache->round_chunks++;
	}
}

static void remote_begin(struct cache *cache)
{
	struct flush_line *line = &cache->remote_line;

	line->err = 0;
	for (struct cache_flush *flush = line->now; flush; flush = flush->next)
		mark_round(cache, flush->off, flush->len);
	for (struct cache_op *op = cache->active; op; op = op->next)
		if (op->kind == OP_PUSH && !op->in_round) {
			op->in_round = true;
			cache->round_pushes++;
		}
	cache->pushing_round = true;
	cache_kick_pusher(cache);
	flush_check(cache);
}

/* ---- the local line ---- */

void flush_committed(struct cache *cache, int err)
{
	if (err)
		flush_report(cache, err);
	line_end(cache, &cache->local_line, err);
}

static void local_flushed(struct store_req *req, int err)
{
	struct cache *cache =
	    (struct cache *)((char *)req - offsetof(struct cache, local_line.req));

	if (err || !cache->conf.commit)
		flush_committed(cache, err);
	else
		commit_for_local(cache);
}

static void local_begin(struct cache *cache)
{
	cache->local_line.req = (struct store_req){.op = STORE_FLUSH, .done = local_flushed};
	store_submit(cache->conf.local, &cache->local_line.req);
}

/* ---- both ---- */

/* Begins a round with what waits; rounds that end at once follow each other here. */
static void line_begin(struct cache *cache, struct flush_line *line)
{
	line->active = true;
	line->now = line->next;
	line->next = NULL;
	line->next_tail = &line->next;
	if (line == &cache->remote_line)
		remote_begin(cache);
	else
		local_begin(cache);
}

void flush_init(struct cache *cache)
{
	line_init(&cache->remote_line);
	line_init(&cache->local_line);
}

void flush_fail_round(struct cache *cache, int err)
{
	for (uint64_t c = 0; cache->round_chunks && c < state_chunks(cache); c++) {
		uint16_t *flags = flags_of(cache, (uint32_t)c);

		cache->round_chunks -= (*flags & F_ROUND) != 0;
		*flags &= (uint16_t)~F_ROUND;
	}
	cache->remote_line.err = err;
}

static void abort_next(struct flush_line *line, int err)
{
	struct cache_flush *list = line->next;

	line->next = NULL;
	line->next_tail = &line->next;
	while (list) {
		struct cache_flush *flush = list;

		list = flush->next;
		flush->done(flush, err);
	}
}

void flush_abort(struct cache *cache, int err)
{
	abort_next(&cache->remote_line, err);
	abort_next(&cache->local_line, err);
	if (!cache->pushing_round)
		return;
	flush_fail_round(cache, err);
	flush_check(cache);
}

void cache_flush(struct cache *cache, struct cache_flush *flush)
{
	if (cache->frozen || cache->stopped)
		flush->done(flush, cache->frozen ? cache->frozen : -ESHUTDOWN);
	else if (flush->durability == CACHE_REMOTE)
		line_add(cache, &cache->remote_line, flush);
	else if (flush->durability == CACHE_LOCAL)
		line_add(cache, &cache->local_line, flush);
	else
		flush->done(flush, 0);
}

bool cache_flush_cancel(struct cache *cache, struct cache_flush *flush)
{
	return line_remove(&cache->remote_line, flush) || line_remove(&cache->local_line, flush);
}

void cache_flush_pushed(struct cache *cache, struct cache_flush *flush)
{
	/* A range without blocks: nothing has to be pushed for it. */
	flush->off = UINT64_MAX;
	flush->len = 1;
	flush->durability = CACHE_REMOTE;
	cache_flush(cache, flush);
}

/* ---- requests ---- */

static struct cache_op *op_of_flush(struct cache_flush *flush)
{
	return (struct cache_op *)((char *)flush - offsetof(struct cache_op, flush));
}

static void flush_done(struct cache_flush *flush, int err)
{
	struct cache_op *op = op_of_flush(flush);
	int seen = handle_error(op->handle);

	op_complete(op, err ? err : seen);
}

static void fua_done(struct cache_flush *flush, int err)
{
	op_complete(op_of_flush(flush), err);
}

void flush_begin(struct cache_op *op)
{
	op->flush = (struct cache_flush){
	    .durability = op->cache->conf.durability,
	    .done = flush_done,
	};
	cache_flush(op->cache, &op->flush);
}

void flush_fua(struct cache_op *op)
{
	op->kind = OP_OTHER;
	op->flush = (struct cache_flush){
	    .off = op->req->off,
	    .len = op->req->len,
	    .durability = op->cache->conf.durability,
	    .done = fua_done,
	};
	cache_flush(op->cache, &op->flush);
}

void flush_interrupt(struct cache_op *op)
{
	if (op->kind == OP_OTHER && cache_flush_cancel(op->cache, &op->flush))
		op_complete(op, -EINTR);
}

void cache_set_durability(struct cache *cache, enum cache_durability durability)
{
	cache->conf.durability = durability;
}
