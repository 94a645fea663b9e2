/* SPDX-License-Identifier: Apache-2.0
 *
 * The puller (see core/puller.h): what to fetch next, and when.  The fetch itself is the cache's (cache_pull).
 *
 * There are three kinds of sources, tried in this order whenever the window has room: jobs, streams (sequential
 * readers: core/puller_stream.c), and the plan (the pull order, then in mode ALL the whole region).  A job and
 * the plan go through ranges with a cursor: pos (fetched or on its way before it) and known (the remote's
 * extents are known before it: holes are resident).  One scan of extents is under way at a time, ahead of
 * the cursor, so that it costs no time.
 *
 * The plan is background in the strict sense: while foreground requests come in, it keeps to PACED_RATE and
 * to small requests, because they share one loop; and it never makes others leave the cache.
 *
 * States of the plan: going → over (cursor at the end of the last range) or full (no room: goes on when there is
 * some) → going when the order, the mode or the region changes.  After a failed pull it waits (retry_at_ns) and
 * goes on; at the end it begins again.
 */
#include "core/puller_int.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MS ((uint64_t)1000000)
#define RETRY_FIRST (100 * MS)
#define RETRY_MOST (10000 * MS)
/* After a foreground request more are expected: for so long and two round trips, as whoever waits for the remote
 * asks for more when it has answered. */
#define FOREGROUND_FOR (5 * MS)
#define PACED_RATE ((uint64_t)256 << 20) /* bytes per second */
#define PACED_UNIT ((uint64_t)256 << 10)
#define SCAN_MOST ((uint64_t)16 << 30)

enum { PASSES = 2 }; /* over a job whose blocks are evicted as fast as they come */

/* What became of an attempt to pull from a source. */
enum step { STEP_STARTED, STEP_DONE, STEP_WAIT, STEP_FULL };

static void wake(struct puller *puller)
{
	if (!puller->stopped)
		loop_defer(puller->loop, &puller->task);
}

void puller_wake(struct puller *puller)
{
	wake(puller);
}

/* ---- scans ---- */

static void scan_done(struct cache_scan *scan, uint64_t done_len, int err)
{
	struct puller *puller = (struct puller *)((char *)scan - offsetof(struct puller, scan));
	/* A remote that can't tell has no holes, as far as we know. */
	uint64_t end = scan->off + (err || done_len == 0 ? scan->len : done_len);

	puller->scanning = false;
	if (puller->scan_for == &puller->plan_known && puller->plan_known == scan->off)
		puller->plan_known = end;
	for (struct pull_job *job = puller->jobs; job; job = job->next)
		if (puller->scan_for == &job->known && job->known == scan->off)
			job->known = end;
	wake(puller);
}

/* Asks for the extents from *known on. */
static void scan_start(struct puller *puller, uint64_t *known, uint64_t end)
{
	uint64_t len = end - *known < SCAN_MOST ? end - *known : SCAN_MOST;

	if (puller->scanning)
		return;
	puller->scanning = true;
	puller->scan_for = known;
	if (!cache_scan(puller->cache, &puller->scan, *known, len))
		puller->scanning = false;
}

/* ---- ranges ---- */

/* Starts a pull at the cursor, for a job or (NULL) the plan. */
static enum step range_pull(struct puller *puller, uint64_t *pos, uint64_t *known, uint64_t end,
    uint64_t unit, struct pull_job *job)
{
	uint64_t tag = job ? job->tag : TAG_PLAN;
	uint64_t ahead = 2 * cache_pull_window(puller->cache)->size, off, len;
	enum cache_pull outcome;

	while (*pos < end) {
		if (*known < *pos)
			*known = *pos;
		if (*known < end && *known - *pos < ahead)
			scan_start(puller, known, end);
		if (*pos >= *known) /* (an inline scan has moved it) */
			return STEP_WAIT;
		puller->starting = job;
		outcome = cache_pull(puller->cache, *pos, (*known < end ? *known : end) - *pos,
		    unit, job, tag, &off, &len);
		puller->starting = NULL;
		switch (outcome) {
		case CACHE_PULL_STARTED:
			/* It may have ended already: then it has been taken off before it is put on. */
			*pos = off + len;
			puller->in_flight += len;
			if (job)
				job->in_flight += len;
			return STEP_STARTED;
		case CACHE_PULL_NOTHING:
			*pos = *known < end ? *known : end;
			break;
		case CACHE_PULL_FULL:
			return STEP_FULL;
		default:
			return STEP_WAIT;
		}
	}
	return STEP_DONE;
}

/* ---- jobs ---- */

static void job_end(struct puller *puller, struct pull_job *job, int err)
{
	struct pull_job **link = &puller->jobs;

	while (*link != job)
		link = &(*link)->next;
	*link = job->next;
	puller->job_count--;
	job->left = err ? job->left : 0;
	job->done(job, err);
}

/* Ends a job that can't go on; what is on its way for it goes on, and is nobody's.  One that is being started
 * (range_pull) ends after that. */
static void job_fail(struct puller *puller, struct pull_job *job, int err)
{
	if (puller->starting == job)
		job->err = err;
	else
		job_end(puller, job, err);
}

/* Goes on with a job, which may end. */
static enum step job_pull(struct puller *puller, struct pull_job *job, uint64_t unit)
{
	enum step step = range_pull(puller, &job->pos, &job->known, job->end, unit, job);

	if (job->err) {
		job_end(puller, job, job->err);
		return step;
	}
	if (step == STEP_STARTED)
		job->started = true;
	job->left = job->end - job->pos + job->in_flight;
	if (step != STEP_DONE || job->in_flight)
		return step == STEP_DONE ? STEP_WAIT : step;
	if (cache_absent(puller->cache, job->off, job->end - job->off) == 0 ||
	    (job->started && ++job->passes >= PASSES)) {
		job_end(puller, job, 0);
		return STEP_DONE;
	}
	job->pos = job->off; /* what others were fetching, or have evicted */
	if (!job->started)
		return STEP_WAIT;
	job->started = false;
	wake(puller);
	return STEP_WAIT;
}

static void job_pulled(struct puller *puller, uint64_t tag, uint64_t len, int err)
{
	struct pull_job *job = puller->jobs;

	while (job && job->tag != tag)
		job = job->next;
	if (!job)
		return; /* it has ended meanwhile */
	job->in_flight -= len;
	if (err)
		job_fail(puller, job, err);
}

/* ---- the plan ---- */

static void plan_begin(struct puller *puller)
{
	puller->plan_idx = 0;
	puller->plan_pos = puller->plan_known = 0;
	puller->plan_entered = puller->plan_over = puller->plan_failed = false;
	wake(puller);
}

/* The range of the plan's entry idx; false: there is none. */
static bool plan_range(const struct puller *puller, uint64_t *ret_off, uint64_t *ret_end)
{
	uint64_t size = cache_size(puller->cache);
	const struct pull_range *range;

	*ret_off = 0;
	*ret_end = size;
	if (puller->mode == PULL_NONE || puller->plan_idx > puller->order_count)
		return false;
	if (puller->plan_idx == puller->order_count)
		return puller->mode == PULL_ALL;
	range = &puller->sorted[puller->plan_idx];
	*ret_off = range->off < size ? range->off : size;
	if (range->len < size - *ret_off)
		*ret_end = *ret_off + range->len;
	return true;
}

static enum step plan_pull(struct puller *puller, uint64_t unit)
{
	uint64_t off, end;

	while (plan_range(puller, &off, &end)) {
		enum step step;

		if (!puller->plan_entered) {
			puller->plan_pos = puller->plan_known = off;
			puller->plan_entered = true;
		}
		step = range_pull(puller, &puller->plan_pos, &puller->plan_known, end, unit, NULL);
		if (step != STEP_DONE)
			return step;
		puller->plan_idx++;
		puller->plan_entered = false;
	}
	puller->plan_over = true;
	if (puller->plan_failed) /* once more */
		plan_begin(puller);
	return STEP_DONE;
}

/* Whether the plan may send now; else the timer is set. */
static bool plan_is_due(struct puller *puller, uint64_t now, uint64_t *unit)
{
	uint64_t foreground = cache_foreground(puller->cache);
	uint64_t at = puller->retry_at_ns;

	if (foreground != puller->foreground) {
		puller->foreground = foreground;
		puller->foreground_ns = now;
	}
	puller->paced = puller->foreground_ns &&
			now - puller->foreground_ns <
			    FOREGROUND_FOR + 2 * window_rtt_ns(cache_pull_window(puller->cache));
	if (puller->paced) {
		*unit = *unit < PACED_UNIT ? *unit : PACED_UNIT;
		at = at > puller->pace_ns ? at : puller->pace_ns;
	}
	if (puller->plan_over || at <= now)
		return !puller->plan_over;
	if (!puller->timer.loop || at < puller->timer.at_ns)
		loop_timer_set(puller->loop, &puller->timer, at);
	return false;
}

static void plan_pulled(struct puller *puller, int err)
{
	if (!err) {
		puller->backoff_ns = puller->retry_at_ns = 0;
		return;
	}
	puller->errors++;
	puller->plan_failed = true;
	if (puller->plan_over)
		plan_begin(puller);
	if (puller->retry_at_ns > loop_now_ns())
		return; /* one of those that failed together */
	puller->backoff_ns = 2 * puller->backoff_ns;
	if (puller->backoff_ns < RETRY_FIRST)
		puller->backoff_ns = RETRY_FIRST;
	if (puller->backoff_ns > RETRY_MOST)
		puller->backoff_ns = RETRY_MOST;
	puller->retry_at_ns = loop_now_ns() + puller->backoff_ns;
}

/* ---- goals ---- */

static void check_goals(struct puller *puller, bool no_more)
{
	uint64_t have = cache_resident(puller->cache), size = cache_size(puller->cache);
	struct pull_goal **link = &puller->goals;

	while (*link) {
		struct pull_goal *goal = *link;

		if (have < goal->bytes && have < size && !no_more) {
			link = &goal->next;
			continue;
		}
		*link = goal->next;
		goal->done(goal, 0);
		link = &puller->goals; /* done may have changed the list */
	}
}

/* ---- the pump ---- */

/* One pull from the first source that has one. */
static enum step pull_one(struct puller *puller, uint64_t now)
{
	uint64_t unit = window_unit(cache_pull_window(puller->cache)), pos;
	enum step step = STEP_DONE;

	for (struct pull_job *job = puller->jobs, *next; job; job = next) {
		next = job->next;
		step = job_pull(puller, job, unit);
		if (step == STEP_STARTED)
			return step;
	}
	if (stream_pull(puller, unit))
		return STEP_STARTED;
	if (!plan_is_due(puller, now, &unit))
		return STEP_WAIT;
	pos = puller->in_flight;
	step = plan_pull(puller, unit);
	if (step == STEP_STARTED)
		puller->pace_ns = (puller->pace_ns > now ? puller->pace_ns : now) +
				  (puller->in_flight - pos) * (1000 * MS) / PACED_RATE;
	return step;
}

static void pump(struct loop_task *task)
{
	struct puller *puller = (struct puller *)((char *)task - offsetof(struct puller, task));
	struct window *window = cache_pull_window(puller->cache);
	uint64_t now = loop_now_ns();
	enum step step = STEP_STARTED;

	while (!puller->stopped && step == STEP_STARTED) {
		if (!window_open(window, window_unit(window))) {
			if (puller->in_flight == 0)
				cache_starved(puller->cache); /* others have the window */
			break;
		}
		step = pull_one(puller, now);
	}
	if (puller->goals)
		check_goals(puller, puller->in_flight == 0 && !puller->scanning &&
					!puller->retry_at_ns &&
					(step == STEP_FULL || puller->plan_over));
}

static void expired(struct loop_timer *timer)
{
	wake((struct puller *)((char *)timer - offsetof(struct puller, timer)));
}

/* ---- what the cache tells ---- */

static void on_pulled(void *ctx, uint64_t tag, uint64_t off, uint64_t len, int err)
{
	struct puller *puller = ctx;

	puller->in_flight -= len;
	if (tag == TAG_PLAN)
		plan_pulled(puller, err);
	else if (tag != TAG_STREAM)
		job_pulled(puller, tag, len, err);
	wake(puller);
}

static void on_kick(void *ctx)
{
	wake(ctx);
}

static void on_anew(void *ctx)
{
	plan_begin(ctx);
}

static void on_stop(void *ctx)
{
	struct puller *puller = ctx;

	puller->stopped = true;
	loop_timer_cancel(&puller->timer);
	while (puller->goals) {
		struct pull_goal *goal = puller->goals;

		puller->goals = goal->next;
		goal->done(goal, -ECANCELED);
	}
	for (struct pull_job *job = puller->jobs, *next; job; job = next) {
		next = job->next;
		puller_cancel(puller, job);
	}
}

static const struct cache_puller_ops puller_ops = {
    .read = stream_read,
    .pulled = on_pulled,
    .kick = on_kick,
    .anew = on_anew,
    .stop = on_stop,
};

/* ---- what people ask ---- */

int puller_create(const struct puller_conf *conf, struct puller **ret_puller, struct err *err)
{
	struct puller *puller = calloc(1, sizeof(*puller));

	if (!puller)
		return err_set(err, -ENOMEM, "out of memory for a puller");
	puller->cache = conf->cache;
	puller->loop = cache_loop(conf->cache);
	puller->mode = conf->mode;
	puller->task.run = pump;
	puller->timer.expired = expired;
	puller->scan.done = scan_done;
	cache_set_puller(conf->cache, &puller_ops, puller);
	plan_begin(puller);
	*ret_puller = puller;
	return 0;
}

void puller_destroy(struct puller *puller)
{
	if (!puller)
		return;
	assert(puller->stopped && puller->in_flight == 0 && !puller->jobs && !puller->scanning);
	cache_set_puller(puller->cache, NULL, NULL);
	loop_undefer(puller->loop, &puller->task);
	free(puller->order);
	free(puller->sorted);
	free(puller);
}

void puller_set_mode(struct puller *puller, enum pull_mode mode)
{
	puller->mode = mode;
	plan_begin(puller);
}

/* Highest priority first; where they are equal, the order in which they were given. */
static void sort_order(struct pull_range *ranges, struct pull_range *room, unsigned count)
{
	unsigned half = count / 2, a = 0, b = half;

	if (count < 2)
		return;
	sort_order(ranges, room, half);
	sort_order(ranges + half, room, count - half);
	memcpy(room, ranges, count * sizeof(room[0]));
	for (unsigned i = 0; i < count; i++) {
		bool first = a < half && (b == count || room[a].prio >= room[b].prio);

		ranges[i] = first ? room[a++] : room[b++];
	}
}

int puller_set_order(struct puller *puller, const struct pull_range *ranges, unsigned count)
{
	size_t bytes = (count ? count : 1) * sizeof(ranges[0]);
	struct pull_range *order, *sorted, *room;

	if (count > PULL_ORDER_MAX)
		return -E2BIG;
	order = malloc(bytes);
	sorted = malloc(bytes);
	room = malloc(bytes);
	if (!order || !sorted || !room) {
		free(order);
		free(sorted);
		free(room);
		return -ENOMEM;
	}
	if (count) {
		memcpy(order, ranges, count * sizeof(ranges[0]));
		memcpy(sorted, ranges, count * sizeof(ranges[0]));
		sort_order(sorted, room, count);
	}
	free(room);
	free(puller->order);
	free(puller->sorted);
	puller->order = order;
	puller->sorted = sorted;
	puller->order_count = count;
	plan_begin(puller);
	return 0;
}

const struct pull_range *puller_order(const struct puller *puller, unsigned *ret_count)
{
	*ret_count = puller->order_count;
	return puller->order;
}

void puller_add(struct puller *puller, struct pull_job *job)
{
	uint64_t size = cache_size(puller->cache);
	struct pull_job **link = &puller->jobs;

	job->off = job->off < size ? job->off : size;
	job->end = job->len && job->len < size - job->off ? job->off + job->len : size;
	job->pos = job->known = job->off;
	job->tag = TAG_JOBS + puller->jobs_added++;
	job->in_flight = 0;
	job->left = job->end - job->off;
	job->err = 0;
	job->started = false;
	job->passes = 0;
	while (*link && (*link)->prio >= job->prio)
		link = &(*link)->next;
	job->next = *link;
	*link = job;
	puller->job_count++;
	if (puller->stopped)
		job_end(puller, job, -ECANCELED);
	else
		wake(puller);
}

void puller_cancel(struct puller *puller, struct pull_job *job)
{
	struct pull_job *there = puller->jobs;

	while (there && there != job)
		there = there->next;
	if (there)
		job_fail(puller, job, -ECANCELED);
}

void puller_wait(struct puller *puller, struct pull_goal *goal)
{
	if (puller->stopped) {
		goal->done(goal, -ECANCELED);
		return;
	}
	goal->next = puller->goals;
	puller->goals = goal;
	wake(puller);
}

void puller_status(const struct puller *puller, struct puller_status *ret_status)
{
	*ret_status = (struct puller_status){
	    .mode = puller->mode,
	    .active = puller->jobs || puller->in_flight || !puller->plan_over,
	    .in_flight = puller->in_flight,
	    .jobs = puller->job_count,
	    .streams = stream_count(puller),
	    .errors = puller->errors,
	};
}
