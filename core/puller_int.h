/* SPDX-License-Identifier: Apache-2.0
 *
 * What puller.c (jobs, the plan, the pump) and puller_stream.c (sequential readers) share.
 */
#ifndef REMRAM_CORE_PULLER_INT_H
#define REMRAM_CORE_PULLER_INT_H

#include <stddef.h>

#include "core/cache_pump.h"
#include "core/loop.h"
#include "core/puller.h"

enum { STREAMS = 8 };

/* Whom a pull is for (cache_pull's tag); a job's is never used again, as jobs may end before their pulls. */
enum { TAG_STREAM, TAG_PLAN, TAG_JOBS };

/* A reader that goes through the region in order. */
struct stream {
	uint64_t next; /* where it is expected */
	uint64_t run; /* bytes that it has read so far; 0: not in use */
	uint64_t reads;
	uint64_t ahead; /* pulled, or on its way, before it */
	uint64_t used; /* when: the puller's count of reads */
};

struct puller {
	/* Constant after create. */
	struct cache *cache;
	struct loop *loop;

	enum pull_mode mode;
	bool stopped;
	uint64_t in_flight; /* bytes */
	uint64_t errors;
	struct loop_task task;
	struct loop_timer timer;

	struct pull_job *jobs; /* highest priority first */
	unsigned job_count;
	uint64_t jobs_added;
	const struct pull_job *starting; /* a pull of it is being started */
	struct pull_goal *goals;

	struct pull_range *order, *sorted;
	unsigned order_count;
	unsigned plan_idx; /* the entry of sorted that is being pulled; order_count: the region */
	uint64_t plan_pos, plan_known;
	bool plan_entered, plan_over;
	bool plan_failed; /* a pull of this pass */
	uint64_t backoff_ns, retry_at_ns;

	bool paced;
	uint64_t pace_ns; /* while paced: when the next pull may be sent */
	uint64_t foreground, foreground_ns; /* the cache's count, and when it moved last */

	bool scanning;
	uint64_t *scan_for; /* whose known it moves */
	struct cache_scan scan;

	struct stream streams[STREAMS];
	uint64_t reads;
};

void puller_wake(struct puller *puller);

/* ---- puller_stream.c ---- */

/* cache_puller_ops.read */
void stream_read(void *ctx, uint64_t off, uint64_t len);
/* Starts one pull ahead of a reader; false: there is none to start now. */
bool stream_pull(struct puller *puller, uint64_t unit);
/* Readers that are followed. */
unsigned stream_count(const struct puller *puller);

#endif
