/* SPDX-License-Identifier: Apache-2.0
 *
 * The latency histogram.
 *
 * Values 0 … 7 have a bucket each; a value with its highest bit at e ≥ 3 goes to the bucket of its top
 * four bits: (e − 2) · 8 + the three bits below the highest.  So bucket i ≥ 8 covers 2^(e−3) values
 * from (8 + i mod 8) · 2^(e−3), where e = i / 8 + 2.
 *
 * Counters are relaxed atomics: each add is one increment, nothing is ordered by it.
 */
#include "core/hist.h"

#include <stdatomic.h>

static unsigned bucket_of(uint64_t value)
{
	unsigned e;

	if (value < HIST_STEPS)
		return (unsigned)value;
	e = 63 - (unsigned)__builtin_clzll(value);
	if (e >= HIST_BUCKETS / HIST_STEPS + 2)
		return HIST_BUCKETS - 1;
	return (e - 2) * HIST_STEPS + ((value >> (e - 3)) & (HIST_STEPS - 1));
}

static uint64_t bucket_end(unsigned idx)
{
	unsigned shift;

	if (idx < HIST_STEPS)
		return idx;
	shift = idx / HIST_STEPS - 1;
	return ((uint64_t)(HIST_STEPS + idx % HIST_STEPS + 1) << shift) - 1;
}

void hist_add(struct hist *hist, uint64_t value)
{
	atomic_fetch_add_explicit(&hist->count[bucket_of(value)], 1, memory_order_relaxed);
}

uint64_t hist_total(const struct hist *hist)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		total += atomic_load_explicit(&hist->count[i], memory_order_relaxed);
	return total;
}

uint64_t hist_percentile(const struct hist *hist, double pct)
{
	uint64_t count[HIST_BUCKETS];
	uint64_t total = 0, want, seen = 0;
	unsigned idx;

	/* A copy: total and the walk below must agree. */
	for (idx = 0; idx < HIST_BUCKETS; idx++) {
		count[idx] = atomic_load_explicit(&hist->count[idx], memory_order_relaxed);
		total += count[idx];
	}
	if (!total)
		return 0;
	want = (uint64_t)((double)total * pct / 100.0);
	if ((double)want < (double)total * pct / 100.0 || !want)
		want++;
	if (want > total)
		want = total;
	for (idx = 0; seen + count[idx] < want; idx++)
		seen += count[idx];
	return bucket_end(idx);
}
