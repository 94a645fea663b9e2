/* SPDX-License-Identifier: Apache-2.0
 *
 * Which blocks of a region are resident, and which are dirty, exactly: runs of blocks that are alike, read off the
 * bitmaps a chunk at a time.  Changes nothing.
 */
#include "core/cache_int.h"

/* The run of blocks from lo, at most hi, within one chunk; its state. */
static uint64_t chunk_run(
    const struct cache *cache, uint64_t lo, uint64_t hi, struct cache_run *ret_state)
{
	uint32_t chunk = (uint32_t)(lo / CHUNK_BLOCKS);
	unsigned i = lo % CHUNK_BLOCKS;
	uint64_t resident = resident_of(cache, chunk);
	/* What a push has in its hands is not at the remote yet. */
	uint64_t dirty = dirty_of(cache, chunk) | push_mask(cache, chunk);
	uint64_t other;

	ret_state->resident = resident >> i & 1;
	ret_state->dirty = dirty >> i & 1;
	other = (ret_state->resident ? ~resident : resident) | (ret_state->dirty ? ~dirty : dirty);
	other >>= i;
	return min_u64(hi, lo + (other ? (uint64_t)__builtin_ctzll(other) : CHUNK_BLOCKS - i));
}

unsigned cache_runs(
    const struct cache *cache, uint64_t off, uint64_t len, struct cache_run *runs, unsigned max)
{
	uint64_t end = min_u64(cache->size, cache->span << BLOCK_SHIFT), hi;
	unsigned count = 0;

	if (off >= end)
		return 0;
	end = off + min_u64(min_u64(len, CACHE_RUNS_SPAN), end - off);
	hi = blocks_up(end);
	while (off < end) {
		struct cache_run run;
		uint64_t to =
		    min_u64(chunk_run(cache, off >> BLOCK_SHIFT, hi, &run) << BLOCK_SHIFT, end);

		run.len = to - off;
		if (count && runs[count - 1].resident == run.resident &&
		    runs[count - 1].dirty == run.dirty)
			runs[count - 1].len += run.len;
		else if (count == max)
			break;
		else
			runs[count++] = run;
		off = to;
	}
	return count;
}
