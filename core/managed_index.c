/* SPDX-License-Identifier: Apache-2.0
 *
 * The index of a region of the managed pool: when it is committed, and what must wait for a commit.
 *
 * Committed: a second after the first change, at the end of each request that promised something (FLUSH, FUA, a
 * flush that was asked for), when the cache asks (durability=local), before a lease is given back, and before a
 * region that became shorter is cut.
 *
 * Rule 2 of core/cache_index.h: a chunk whose row may say that it is dirty must not be punched, or filled
 * again, before a commit has stored it as clean.  row_dirty has a bit for each such chunk:
 *   set      when it is taken, or looked at again, as dirty; and when it was loaded so
 *   cleared  by a commit that has taken it as clean (row_cleaned until that has ended)
 * A cache that wants to evict such a chunk is told no, and a flush at the donor and a commit are made so that
 * it can soon.
 *
 * Rule 3: see index_hook.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/managed_int.h"

/* ---- which rows may say dirty ---- */

static bool rows_reach(struct managed_entry *entry, uint64_t chunk)
{
	uint64_t words = chunk / 64 + 1, *dirty, *cleaned;

	if (words <= entry->row_words)
		return true;
	words += words / 2;
	dirty = realloc(entry->row_dirty, words * sizeof(*dirty));
	if (!dirty)
		return false;
	entry->row_dirty = dirty;
	cleaned = realloc(entry->row_cleaned, words * sizeof(*cleaned));
	if (!cleaned)
		return false;
	entry->row_cleaned = cleaned;
	memset(dirty + entry->row_words, 0, (words - entry->row_words) * sizeof(*dirty));
	memset(cleaned + entry->row_words, 0, (words - entry->row_words) * sizeof(*cleaned));
	entry->row_words = words;
	return true;
}

static void row_seen(struct managed_entry *entry, const struct index_chunk *chunk, bool taken)
{
	uint64_t bit = (uint64_t)1 << chunk->idx % 64, word = chunk->idx / 64;

	if (word >= entry->row_words && !chunk->dirty)
		return;
	if (!rows_reach(entry, chunk->idx))
		return; /* index_may_evict says no for what is not there */
	if (chunk->dirty) {
		entry->row_dirty[word] |= bit;
		entry->row_cleaned[word] &= ~bit;
	} else if (taken && entry->row_dirty[word] & bit) {
		entry->row_cleaned[word] |= bit;
	}
}

static void rows_committed(struct managed_entry *entry, int err)
{
	bool cleaned = false;

	entry->commit_err = err;
	for (uint64_t i = 0; i < entry->row_words; i++) {
		if (!err && entry->row_cleaned[i]) {
			entry->row_dirty[i] &= ~entry->row_cleaned[i];
			cleaned = true;
		}
		entry->row_cleaned[i] = 0;
	}
	if (cleaned)
		cache_relieved(entry->cache);
}

/* ---- what the index asks ---- */

static unsigned take(void *ctx, struct index_chunk *chunks, unsigned max)
{
	struct managed_entry *entry = ctx;
	struct cache_chunk some[64];
	unsigned n = 0, got, want;

	do {
		want = max - n < 64 ? max - n : 64;
		got = entry->cache ? cache_take_changed(entry->cache, some, want) : 0;
		for (unsigned i = 0; i < got; i++) {
			chunks[n] =
			    (struct index_chunk){some[i].idx, some[i].resident, some[i].dirty};
			row_seen(entry, &chunks[n++], true);
		}
	} while (got == want && n < max);
	return n;
}

static void state(void *ctx, struct index_chunk *chunk)
{
	struct managed_entry *entry = ctx;
	struct cache_chunk now = {.idx = chunk->idx};

	cache_look(entry->cache, &now);
	chunk->resident = now.resident;
	chunk->dirty = now.dirty;
	row_seen(entry, chunk, false);
}

static void give_back(void *ctx, const struct index_chunk *chunks, unsigned count)
{
	struct managed_entry *entry = ctx;

	for (unsigned i = 0; i < count; i++) {
		struct cache_chunk chunk = {chunks[i].idx, chunks[i].resident, chunks[i].dirty};

		cache_give_back(entry->cache, &chunk, 1);
		if (chunk.idx / 64 < entry->row_words)
			entry->row_cleaned[chunk.idx / 64] &= ~((uint64_t)1 << chunk.idx % 64);
	}
}

static const struct indexed_ops ops = {.take = take, .state = state, .give_back = give_back};

/* ---- commits ---- */

void index_describe(struct managed_entry *entry)
{
	struct index_region region = {
	    .id = entry->id,
	    .size = entry->shrinks ? entry->new_size
		    : entry->cache ? cache_size(entry->cache)
				   : entry->attr.size,
	    .version = entry->version,
	    .durability = entry->durability,
	};

	if (!entry->indexed)
		return;
	memcpy(region.name, entry->name, sizeof(region.name));
	if (entry->own_order)
		pull_order_format(
		    entry->order, entry->order_count, region.order, sizeof(region.order));
	entry_pins_text(entry, region.pins, sizeof(region.pins));
	indexed_describe(entry->indexed, &region);
}

static void start_commit(struct managed_entry *entry, struct index_call *call)
{
	index_describe(entry);
	indexed_commit(entry->indexed, call);
}

static void now_committed(struct index_call *call, int err)
{
	struct managed_commit *commit = (struct managed_commit *)call;

	rows_committed(commit->entry, err);
	commit->done(commit, err);
}

void index_now(struct managed_entry *entry, struct managed_commit *commit)
{
	if (!entry->indexed || entry->ending) {
		commit->done(commit, 0);
		return;
	}
	commit->entry = entry;
	commit->call.done = now_committed;
	start_commit(entry, &commit->call);
}

static void timer_committed(struct index_call *call, int err)
{
	struct managed_entry *entry =
	    (struct managed_entry *)((char *)call - offsetof(struct managed_entry, tcall));

	entry->tcommitting = false;
	rows_committed(entry, err);
	if (entry->again || err) {
		entry->again = false;
		index_touch(entry);
	}
}

static void timer_expired(struct loop_timer *timer)
{
	struct managed_entry *entry =
	    (struct managed_entry *)((char *)timer - offsetof(struct managed_entry, commit_timer));

	if (!entry->indexed || entry->ending)
		return;
	entry->tcommitting = true;
	entry->tcall.done = timer_committed;
	start_commit(entry, &entry->tcall);
}

void index_touch(struct managed_entry *entry)
{
	if (!entry->indexed || entry->ending || entry->commit_timer.loop)
		return;
	if (entry->tcommitting) {
		entry->again = true;
		return;
	}
	entry->commit_timer.expired = timer_expired;
	loop_timer_set(entry->managed->conf.loop, &entry->commit_timer,
	    loop_now_ns() + MANAGED_COMMIT_MS * UINT64_C(1000000));
}

void index_changed(void *ctx)
{
	index_touch(ctx);
}

static void cache_committed(struct index_call *call, int err)
{
	struct managed_entry *entry =
	    (struct managed_entry *)((char *)call - offsetof(struct managed_entry, ccall));
	struct cache_call *waits = entry->commit_call;

	rows_committed(entry, err);
	entry->commit_call = NULL;
	waits->done(waits, err);
}

/* One at a time: the cache's local line is one. */
void index_commit(void *ctx, struct cache_call *call)
{
	struct managed_entry *entry = ctx;

	entry->commit_call = call;
	entry->ccall.done = cache_committed;
	start_commit(entry, &entry->ccall);
}

/* ---- what promises something ---- */

static void flush_commit(struct managed_entry *entry);

static void flush_committed(struct index_call *call, int err)
{
	struct managed_entry *entry =
	    (struct managed_entry *)((char *)call - offsetof(struct managed_entry, fcall));
	struct store_req *list = entry->flush_now;

	rows_committed(entry, err);
	entry->flush_now = NULL;
	entry->fcommitting = false;
	if (entry->flush_wait)
		flush_commit(entry);
	while (list) {
		struct store_req *req = list;

		list = req->next;
		store_complete(req, err);
	}
}

static void flush_commit(struct managed_entry *entry)
{
	entry->flush_now = entry->flush_wait;
	entry->flush_wait = NULL;
	entry->flush_tail = &entry->flush_wait;
	entry->fcommitting = true;
	entry->fcall.done = flush_committed;
	start_commit(entry, &entry->fcall);
}

static void hooked_done(struct store_req *req, int err)
{
	struct managed_entry *entry = store_pop(req);

	if (err || !entry->indexed) {
		store_complete(req, err);
		return;
	}
	req->next = NULL;
	*entry->flush_tail = req;
	entry->flush_tail = &req->next;
	if (!entry->fcommitting)
		flush_commit(entry);
}

/* What was promised to be at the donor must not be in the index as dirty with older bytes: after a power
 * failure those would be taken for newer ones, and pushed. */
void index_hook(struct managed_entry *entry, struct store_req *req)
{
	if (entry->indexed && entry_durability(entry) == CACHE_REMOTE)
		store_push(req, hooked_done, entry);
}

/* ---- eviction ---- */

static void clean_committed(struct managed_commit *commit, int err)
{
	struct managed_entry *entry =
	    (struct managed_entry *)((char *)commit - offsetof(struct managed_entry, clean_commit));

	entry->cleaning = false;
}

static void clean_flushed(struct cache_flush *flush, int err)
{
	struct managed_entry *entry =
	    (struct managed_entry *)((char *)flush - offsetof(struct managed_entry, clean_flush));

	if (err) {
		entry->cleaning = false;
		return;
	}
	entry->clean_commit.done = clean_committed;
	index_now(entry, &entry->clean_commit);
}

/* Not from within the search for something to evict. */
static void clean_begin(struct loop_task *task)
{
	struct managed_entry *entry =
	    (struct managed_entry *)((char *)task - offsetof(struct managed_entry, clean_task));

	entry->clean_flush =
	    (struct cache_flush){.durability = CACHE_REMOTE, .done = clean_flushed};
	cache_flush(entry->cache, &entry->clean_flush);
}

bool index_may_evict(void *ctx, uint64_t chunk)
{
	struct managed_entry *entry = ctx;

	if (chunk / 64 >= entry->row_words || !(entry->row_dirty[chunk / 64] >> chunk % 64 & 1))
		return true;
	if (!entry->cleaning && !entry->ending && !entry->lost && entry->remote) {
		entry->cleaning = true;
		entry->clean_task.run = clean_begin;
		loop_defer(entry->managed->conf.loop, &entry->clean_task);
	}
	return false;
}

/* ---- life ---- */

void index_begin(struct managed_entry *entry)
{
	entry->flush_tail = &entry->flush_wait;
	indexed_start(entry->indexed, &ops, entry);
}

void index_loaded(struct managed_entry *entry, const struct index_chunk *chunks, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct cache_chunk chunk = {chunks[i].idx, chunks[i].resident, chunks[i].dirty};

		row_seen(entry, &chunks[i], false);
		cache_load(entry->cache, &chunk);
	}
}

void index_end(struct managed_entry *entry)
{
	loop_timer_cancel(&entry->commit_timer);
	loop_undefer(entry->managed->conf.loop, &entry->clean_task);
	entry->cleaning = false;
	free(entry->row_dirty);
	free(entry->row_cleaned);
	entry->row_dirty = entry->row_cleaned = NULL;
	entry->row_words = 0;
	entry->indexed = NULL;
	entry->tcommitting = entry->again = false;
	entry->commit_err = 0;
}
