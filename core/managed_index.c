/* SPDX-License-Identifier: Apache-2.0
 *
 * The index of a region of the managed pool: when it is committed, and with what.
 *
 * Committed: a second after the first change, when the cache asks (before it pushes, for durability=local, when an
 * eviction waits for it), at the end of a flush that was asked for, before a lease is given back, and before a
 * region that became shorter is cut.  What must wait for a commit is the cache's to know (core/cache.h).
 */
#include <string.h>

#include "core/managed_int.h"

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
			chunks[n++] =
			    (struct index_chunk){some[i].idx, some[i].resident, some[i].dirty};
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
}

static void give_back(void *ctx, const struct index_chunk *chunks, unsigned count)
{
	struct managed_entry *entry = ctx;

	for (unsigned i = 0; i < count; i++) {
		struct cache_chunk chunk = {chunks[i].idx, chunks[i].resident, chunks[i].dirty};

		cache_give_back(entry->cache, &chunk, 1);
	}
}

static void stored(void *ctx, const struct index_chunk *chunks, unsigned count)
{
	struct managed_entry *entry = ctx;

	for (unsigned i = 0; i < count; i++) {
		struct cache_chunk chunk = {chunks[i].idx, chunks[i].resident, chunks[i].dirty};

		cache_stored(entry->cache, &chunk, 1);
	}
}

static const struct indexed_ops ops = {
    .take = take, .state = state, .give_back = give_back, .stored = stored};

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

	commit->entry->commit_err = err;
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
	entry->commit_err = err;
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

	entry->commit_err = err;
	entry->commit_call = NULL;
	waits->done(waits, err);
}

/* One at a time. */
void index_commit(void *ctx, struct cache_call *call)
{
	struct managed_entry *entry = ctx;

	entry->commit_call = call;
	entry->ccall.done = cache_committed;
	start_commit(entry, &entry->ccall);
}

/* ---- life ---- */

void index_begin(struct managed_entry *entry)
{
	indexed_start(entry->indexed, &ops, entry);
}

uint64_t index_size(struct index_load *load, uint64_t size)
{
	uint64_t end = size;

	for (size_t i = 0; load->region.size > size && i < load->count; i++) {
		struct index_chunk *chunk = &load->chunks[i];
		uint64_t first = chunk->idx * CACHE_CHUNK_BLOCKS, from = size / STORE_BLOCK, last;

		if (from < first + CACHE_CHUNK_BLOCKS)
			chunk->dirty |= chunk->resident & ~(uint64_t)0
							      << (from > first ? from - first : 0);
		if (!chunk->dirty)
			continue;
		last = (first + CACHE_CHUNK_BLOCKS - (uint64_t)__builtin_clzll(chunk->dirty)) *
		       STORE_BLOCK;
		if (last > load->region.size)
			last = load->region.size;
		end = last > end ? last : end;
	}
	return end;
}

void index_loaded(struct managed_entry *entry, const struct index_chunk *chunks, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct cache_chunk chunk = {chunks[i].idx, chunks[i].resident, chunks[i].dirty};

		cache_load(entry->cache, &chunk);
	}
}

void index_end(struct managed_entry *entry)
{
	loop_timer_cancel(&entry->commit_timer);
	entry->indexed = NULL;
	entry->tcommitting = entry->again = false;
	entry->commit_err = 0;
}
