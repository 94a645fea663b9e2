/* SPDX-License-Identifier: Apache-2.0
 *
 * A latency histogram with a bounded relative error: 8 linear steps in each power of two (the layout
 * of HdrHistogram with 3 significant bits), so a percentile is at most 12.5 % too high.
 *
 * Any thread may add and read; a reader sees some recent state.
 */
#ifndef REMRAM_CORE_HIST_H
#define REMRAM_CORE_HIST_H

#include <stdint.h>

enum { HIST_STEPS = 8, HIST_BUCKETS = HIST_STEPS * 40 };

struct hist {
	_Atomic uint64_t count[HIST_BUCKETS];
};

/* Counts one value (nanoseconds; anything over 2^42 counts as that). */
void hist_add(struct hist *hist, uint64_t value);

/* How many were counted. */
uint64_t hist_total(const struct hist *hist);

/* The value that pct percent (0 … 100) of the counted ones do not exceed, rounded up to its bucket's
 * end; 0 if nothing was counted. */
uint64_t hist_percentile(const struct hist *hist, double pct);

#endif
