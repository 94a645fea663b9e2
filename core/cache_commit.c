/* SPDX-License-Identifier: Apache-2.0
 *
 * A cache and its index: which chunks changed, what a commit has stored of them, and what waits for one.
 *
 * The index has a row per chunk: which blocks are resident, which of these are dirty, and the checksum of
 * each.  After a crash of the machine the local store may have, sector by sector, what it was last synced with or
 * anything written since.  A block whose row says dirty is pushed then, with whatever bytes it has: a row
 * that says dirty is a promise that each state its bytes can be found in is one that the region may go back
 * to.  One whose row says clean is believed if its bytes fit their checksum.  So:
 *
 * A PUSH (invariant 9 of cache.c) reads its bytes, and sends them only after a commit that began
 * afterwards.  That commit has synced the local store, so that it has these bytes or newer ones for good,
 * and has stored the blocks as dirty, since a PUSH has them.  Hence no crash brings older bytes back than
 * the remote has been sent.  A block that is written all the time is pushed all the same: one commit is
 * enough for it, whatever is written meanwhile.
 *
 * A row that may say dirty (F_ROW) keeps its chunk from being evicted: punched, it would be found with zeros
 * that nobody wrote, and they would be pushed.  So does a commit under way that has taken the chunk (F_TAKEN):
 * it computes checksums of blocks that must stay what they are.  What makes blocks absent nevertheless (the
 * remote moved on, a cut) is noted (F_DROPPED): until a commit has taken the chunk as it is then and stored it,
 * no FETCH fills it, and a WRITE to it waits.
 *
 *   F_ROW      set when the index looks, or loads, and blocks are dirty; cleared when it has stored none as dirty
 *   F_TAKEN    set by cache_take_changed; cleared by cache_stored, cache_give_back
 *   F_DROPPED  set by commit_dropped; cleared by cache_stored, if the chunk has not changed since it was taken
 *
 * Commits: one is under way at a time (conf.commit).  Who waits for one when it begins waited for the right
 * one; who comes later waits for the next.  A commit that fails fails those who wait for it: PUSHes (their
 * blocks stay dirty), WRITEs, FLUSHes.  After that evictions ask for none until something has been stored again.
 */
#include "core/cache.h"

#include "core/cache_int.h"

/* ---- commits ---- */

void commit_want(struct cache *cache)
{
	if (!cache->commit_wanted) {
		cache->commit_wanted = true;
		cache->group->commits_wanted++;
	}
	loop_defer(cache->group->loop, &cache->group->task);
}

void commit_wait(struct cache_op *op)
{
	op_wait(op, &op->cache->for_commit);
	commit_want(op->cache);
}

static void committed(struct cache_call *call, int err)
{
	struct cache *cache = (struct cache *)((char *)call - offsetof(struct cache, commit));
	bool local = cache->local_commits;

	cache->committing = cache->local_commits = false;
	if (err) {
		cache->commit_err = err;
		group_relieved(cache->group); /* nobody shall wait for what does not come */
	}
	for (struct cache_op *op = cache->in_commit.head; op; op = op->wait_next)
		op->commit_err = err;
	op_wake(cache->group, &cache->in_commit);
	if (cache->commit_wanted)
		loop_defer(cache->group->loop, &cache->group->task);
	if (local)
		flush_committed(cache, err);
	else if (cache->stopping)
		cache_check_idle(cache);
}

static void commit_begin(struct cache *cache)
{
	cache->group->commits_wanted -= cache->commit_wanted;
	cache->commit_wanted = false;
	cache->committing = true;
	cache->local_commits = cache->local_waits;
	cache->local_waits = false;
	while (cache->for_commit.head) {
		struct cache_op *op = cache->for_commit.head;

		op_unwait(op);
		op_wait(op, &cache->in_commit);
	}
	cache->commit.done = committed;
	cache->conf.commit(cache->conf.ctx, &cache->commit);
}

void commit_for_local(struct cache *cache)
{
	cache->local_waits = true;
	if (cache->committing)
		commit_want(cache);
	else
		commit_begin(cache);
}

void commit_run(struct cache_group *group)
{
	for (struct cache *cache = group->caches; cache; cache = cache->next) {
		if (!cache->commit_wanted || cache->committing)
			continue;
		if (cache->stopped && !cache->for_commit.head && !cache->local_waits) {
			group->commits_wanted--;
			cache->commit_wanted = false;
			continue;
		}
		commit_begin(cache);
	}
}

/* ---- what a row may say ---- */

static void set_flag(
    struct cache *cache, uint32_t chunk, uint16_t flag, bool on, uint64_t *count_of_them)
{
	uint16_t *flags = flags_of(cache, chunk);

	if (on == ((*flags & flag) != 0))
		return;
	*flags = (uint16_t)(*flags ^ flag);
	*count_of_them += on ? 1 : -(uint64_t)1;
}

void commit_dropped(struct cache *cache, uint32_t chunk)
{
	set_flag(cache, chunk, F_DROPPED, true, &cache->dropped);
	state_changed(cache, chunk);
}

uint32_t commit_find_dropped(const struct cache *cache, uint64_t lo, uint64_t hi)
{
	hi = min_u64(hi, state_chunks(cache) * CHUNK_BLOCKS);
	for (uint64_t c = lo / CHUNK_BLOCKS; cache->dropped && c * CHUNK_BLOCKS < hi; c++)
		if (*flags_of(cache, (uint32_t)c) & F_DROPPED)
			return (uint32_t)c;
	return NO_CHUNK;
}

bool commit_keeps(struct cache *cache, uint32_t chunk)
{
	uint16_t flags = *flags_of(cache, chunk);

	if (!(flags & (F_ROW | F_TAKEN)))
		return false;
	if (!(flags & F_TAKEN))
		state_changed(cache, chunk);
	if (!cache->commit_err)
		commit_want(cache);
	return true;
}

/* ---- what the index asks and tells ---- */

static struct cache_chunk chunk_for_index(const struct cache *cache, uint32_t chunk)
{
	struct cache_chunk ret = {
	    .idx = chunk,
	    .resident = held_of(cache, chunk),
	    .dirty = dirty_of(cache, chunk) | push_mask(cache, chunk),
	};

	/* Holes, too: one that was pushed may be lost there, and here its zeros must not be. */
	if (*flags_of(cache, chunk) & (F_UNFLUSHED | F_UNFLUSHED_OLD))
		ret.dirty = ret.resident = resident_of(cache, chunk);
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
			if (cache->conf.commit)
				*flags_of(cache, chunk) |= F_TAKEN;
		}
		if (n == max)
			cache->changed_from = w;
	}
	return n;
}

void cache_look(struct cache *cache, struct cache_chunk *chunk)
{
	uint64_t lo = chunk->idx * CHUNK_BLOCKS, hi = lo + CHUNK_BLOCKS;
	uint32_t c = (uint32_t)chunk->idx;

	chunk->resident = chunk->dirty = 0;
	if (chunk->idx >= state_chunks(cache))
		return;
	*chunk = chunk_for_index(cache, c);
	if (op_find(cache, lo, hi, OP_BIT(OP_WRITE) | OP_BIT(OP_ZERO)))
		for (const struct cache_op *op = cache->active; op; op = op->next)
			if ((op->kind == OP_WRITE || op->kind == OP_ZERO) && op->lo < hi &&
			    lo < op->hi)
				chunk->dirty |= chunk_mask(c, op->lo, op->hi) & chunk->resident;
	if (chunk->dirty && cache->conf.commit)
		set_flag(cache, c, F_ROW, true, &cache->rows);
}

/* Something may be evictable, or can be filled, that was not. */
static void let_go(struct cache *cache)
{
	cache->group->progress++;
	op_wake(cache->group, &cache->group->for_room);
	cache_kick_puller(cache);
}

void cache_give_back(struct cache *cache, const struct cache_chunk *chunks, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		if (chunks[i].idx >= state_chunks(cache))
			continue;
		*flags_of(cache, (uint32_t)chunks[i].idx) &= (uint16_t)~F_TAKEN;
		state_changed(cache, (uint32_t)chunks[i].idx);
	}
}

void cache_stored(struct cache *cache, const struct cache_chunk *chunks, unsigned count)
{
	cache->commit_err = 0;
	for (unsigned i = 0; i < count; i++) {
		uint32_t c = (uint32_t)chunks[i].idx;

		if (chunks[i].idx >= state_chunks(cache))
			continue;
		*flags_of(cache, c) &= (uint16_t)~F_TAKEN;
		set_flag(cache, c, F_ROW, chunks[i].dirty != 0, &cache->rows);
		if (!is_changed(cache, c))
			set_flag(cache, c, F_DROPPED, false, &cache->dropped);
	}
	let_go(cache);
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
	if (chunk->dirty && cache->conf.commit)
		set_flag(cache, c, F_ROW, true, &cache->rows);
	cache_kick_pusher(cache);
}
