/* SPDX-License-Identifier: Apache-2.0
 *
 * The puller: a pump that fetches a region into its cache in the background.
 *
 * What it fetches, first to last:
 *   1. jobs: ranges that somebody waits for (`remram pull`), the highest priority first;
 *   2. what sequential readers are about to want (modes SEQUENTIAL and ALL): a window ahead of each
 *      of up to 8 readers, which doubles as long as the reader goes on;
 *   3. the pull order: ranges with priorities, highest first (modes SEQUENTIAL and ALL);
 *   4. mode ALL: the rest, from the region's begin to its end.
 * It asks the remote for its extents first: holes become resident without a transfer.  It stops when
 * the group's bound on local bytes is reached (jobs and sequential readers evict others, 3 and 4 don't).
 *
 * How much is in flight follows the measured bandwidth × round trip, within the group's pull_window.
 * While foreground requests come in, it sends smaller requests and leaves most of the loop's time to
 * them.  A failed pull is tried again after a pause (a job ends with the error).
 *
 * Threads: the cache's loop.
 */
#ifndef REMRAM_CORE_PULLER_H
#define REMRAM_CORE_PULLER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/cache.h"
#include "core/err.h"
#include "core/pull_order.h"

struct puller;

enum pull_mode { PULL_NONE, PULL_SEQUENTIAL, PULL_ALL };

struct puller_conf {
	struct cache *cache; /* kept */
	enum pull_mode mode;
};

int puller_create(const struct puller_conf *conf, struct puller **ret_puller, struct err *err);
/* After cache_stop. */
void puller_destroy(struct puller *puller);

void puller_set_mode(struct puller *puller, enum pull_mode mode);

/* Replaces the pull order, at any time; copies it.  0, -E2BIG (over PULL_ORDER_MAX), -ENOMEM. */
int puller_set_order(struct puller *puller, const struct pull_range *ranges, unsigned count);
/* The order as it was set; valid until it is set again. */
const struct pull_range *puller_order(const struct puller *puller, unsigned *ret_count);

/* A range to fetch now; embedded in the caller, untouched from puller_add until done. */
struct pull_job {
	uint64_t off, len; /* bytes; len 0: to the end of the region */
	int prio; /* higher first; equal ones in the order in which they were added */
	/* 0: all of it was resident at some time since (a cache that is too small may have evicted parts);
	 * or the error of a fetch, or -ECANCELED: then other fetches may still be under way. */
	void (*done)(struct pull_job *job, int err);
	/* Readable meanwhile: bytes of the range that are (not) behind it. */
	uint64_t left;
	/* Private. */
	struct pull_job *next;
	uint64_t pos, end, known;
	uint64_t tag, in_flight;
	int err;
	bool started;
	unsigned passes;
};

void puller_add(struct puller *puller, struct pull_job *job);
/* done(job, -ECANCELED), before it returns unless it is called while a fetch of the job begins; nothing if it is done
 * already.  What is on its way is fetched, also when the remote is away and it takes long. */
void puller_cancel(struct puller *puller, struct pull_job *job);

/* Waits until so much of the region is resident (`pull_first`); embedded in the caller. */
struct pull_goal {
	uint64_t bytes; /* more than there is to have: all */
	void (*done)(struct pull_goal *goal, int err); /* 0 or -ECANCELED */
	struct pull_goal *next; /* private */
};

void puller_wait(struct puller *puller, struct pull_goal *goal);

struct puller_status {
	enum pull_mode mode;
	bool active; /* there is more to pull */
	uint64_t in_flight; /* bytes */
	unsigned jobs, streams; /* waiting jobs; sequential readers followed */
	uint64_t errors; /* failed pulls */
};

void puller_status(const struct puller *puller, struct puller_status *ret_status);

#endif
