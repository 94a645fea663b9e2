/* SPDX-License-Identifier: Apache-2.0
 *
 * The requests of the control socket that are about caches; see managed_control.h.
 *
 * A task is up to MANAGED_CONTROL_RANGES jobs (core/managed.h) of one region.  Its slot goes
 *   free → running (pending > 0) → done (its result waits to be fetched) → free
 * and a done one that nobody fetches in time is freed by the timer, which runs while there are tasks.
 *
 * Invariants:
 *   1. number is 0 exactly in a free slot, and never that of another task of this process.
 *   2. A slot is freed only while pending is 0: its jobs belong to the pool until their done.
 * All of it runs on the mount's loop; nothing is allocated after create.
 */
#include "mount/managed_control.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/managed.h"
#include "core/pull_order.h"
#include "mount/managed_json.h"
#include "mount/map.h"
#include "mount/text.h"

#define MS UINT64_C(1000000)

enum { CHECK_MS = 1000, RANGE_TEXT = 128 };

struct part {
	struct managed_job job;
	struct task *task;
	bool ended;
};

struct task {
	struct managed_control *mc;
	unsigned number;
	unsigned count, pending; /* parts; those that have not ended */
	int err; /* the first that a part ended with */
	bool pushes, cancelled;
	uint64_t asked_ns; /* when somebody last wanted to know of it */
	struct part parts[MANAGED_CONTROL_RANGES];
};

struct managed_control {
	/* Constant after create. */
	struct loop *loop;
	struct pool *pool;

	/* Loop thread only. */
	struct loop_timer timer;
	bool stopped;
	unsigned last_number;
	struct task tasks[MANAGED_CONTROL_TASKS];
	/* Room for what one answer needs. */
	struct cache_cell cells[MAP_CELLS_MAX];
	struct cache_run runs[MANAGED_JSON_RUNS];
	struct pull_range ranges[MANAGED_CONTROL_RANGES];
	struct pull_range recorded[MANAGED_RECORD_MAX];
};

/* ---- tasks ------------------------------------------------------------------------------------- */

static void part_done(struct managed_job *job, int err)
{
	struct part *part = (struct part *)((char *)job - offsetof(struct part, job));
	struct task *task = part->task;

	part->ended = true;
	/* What is not kept here has nothing to push. */
	if (err == -ENOENT && task->pushes)
		err = 0;
	if (err && !task->err)
		task->err = err;
	assert(task->pending > 0);
	task->pending--;
}

static void cancel_task(struct task *task)
{
	task->cancelled = true;
	for (unsigned i = 0; i < task->count; i++) {
		if (!task->parts[i].ended)
			managed_cancel(task->mc->pool, &task->parts[i].job);
	}
}

/* Looks after tasks that nobody asks about. */
static void check_tasks(struct loop_timer *timer)
{
	struct managed_control *mc =
	    (struct managed_control *)((char *)timer - offsetof(struct managed_control, timer));
	uint64_t now = loop_now_ns();
	bool any = false;

	for (unsigned i = 0; i < MANAGED_CONTROL_TASKS; i++) {
		struct task *task = &mc->tasks[i];

		if (task->number && now - task->asked_ns >= MANAGED_CONTROL_PATIENCE_MS * MS) {
			if (task->pending == 0)
				task->number = 0;
			else if (!task->cancelled)
				cancel_task(task);
		}
		any = any || task->number;
	}
	if (any)
		loop_timer_set(mc->loop, timer, now + CHECK_MS * MS);
}

static struct task *find_task(struct managed_control *mc, unsigned number)
{
	for (unsigned i = 0; i < MANAGED_CONTROL_TASKS; i++) {
		if (mc->tasks[i].number == number)
			return &mc->tasks[i];
	}
	return NULL;
}

static void start_task(
    struct managed_control *mc, struct task *task, uint64_t id, unsigned count, bool pushes)
{
	memset(task, 0, sizeof(*task));
	task->mc = mc;
	if (++mc->last_number == 0)
		mc->last_number = 1;
	task->number = mc->last_number;
	task->pushes = pushes;
	task->asked_ns = loop_now_ns();
	task->count = task->pending = count;
	for (unsigned i = 0; i < count; i++) {
		struct part *part = &task->parts[i];
		const struct pull_range *range = &mc->ranges[i];

		part->task = task;
		part->job.id = id;
		part->job.off = range->off;
		part->job.len = range->len == UINT64_MAX - range->off ? 0 : range->len;
		part->job.prio = range->prio;
		part->job.done = part_done;
	}
	for (unsigned i = 0; i < count; i++)
		(pushes ? managed_flush : managed_pull)(mc->pool, &task->parts[i].job);
	if (!mc->timer.loop)
		loop_timer_set(mc->loop, &mc->timer, loop_now_ns() + CHECK_MS * MS);
}

/* ---- requests ---------------------------------------------------------------------------------- */

/* "ID REST": 0, or -EINVAL. */
static int split_id(const char *args, uint64_t *ret_id, const char **ret_rest, struct err *err)
{
	int end = 0;

	if (sscanf(args, "%" SCNu64 " %n", ret_id, &end) != 1 || end == 0)
		return err_set(err, -EINVAL, "not a region's id");
	*ret_rest = args + end;
	return 0;
}

/* "ID RANGES" into mc->ranges. */
static int split_ranges(struct managed_control *mc, const char *args, uint64_t *ret_id,
    unsigned *ret_count, struct err *err)
{
	const char *rest = args;
	int res = split_id(args, ret_id, &rest, err);

	if (res == 0)
		res = pull_order_parse(rest, mc->ranges, MANAGED_CONTROL_RANGES, ret_count, err);
	if (res == 0 && *ret_count == 0)
		res = err_set(err, -EINVAL, "a range is missing");
	return res;
}

static int begin(
    struct managed_control *mc, const char *args, bool pushes, struct text *text, struct err *err)
{
	struct task *task = find_task(mc, 0);
	unsigned count;
	uint64_t id;
	int res = split_ranges(mc, args, &id, &count, err);

	if (res)
		return res;
	if (!task)
		return err_set(
		    err, -EBUSY, "%d commands are at work here already", MANAGED_CONTROL_TASKS);
	start_task(mc, task, id, count, pushes);
	text_put(text, "ok %u", task->number);
	return 0;
}

static int ask_pull(
    struct managed_control *mc, const char *args, struct text *text, struct err *err)
{
	return begin(mc, args, false, text, err);
}

static int ask_push(
    struct managed_control *mc, const char *args, struct text *text, struct err *err)
{
	return begin(mc, args, true, text, err);
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static int task_of(
    struct managed_control *mc, const char *args, struct task **ret_task, struct err *err)
{
	unsigned number;
	int end = 0;

	if (sscanf(args, "%u%n", &number, &end) != 1 || args[end] || number == 0)
		return err_set(err, -EINVAL, "not a task's number");
	*ret_task = find_task(mc, number);
	return *ret_task ? 0 : err_set(err, -ENOENT, "there is no task %u", number);
}

static int ask_task(
    struct managed_control *mc, const char *args, struct text *text, struct err *err)
{
	uint64_t total = 0, left = 0;
	struct task *task;
	int res = task_of(mc, args, &task, err);

	if (res)
		return res;
	for (unsigned i = 0; i < task->count; i++) {
		struct part *part = &task->parts[i];

		if (!part->ended)
			managed_progress(&part->job);
		/* A push counts what is dirty in the whole region. */
		total = task->pushes ? max_u64(total, part->job.total) : total + part->job.total;
		if (!part->ended)
			left = task->pushes ? max_u64(left, part->job.left) : left + part->job.left;
	}
	text_put(text,
	    "{\"state\":\"%s\",\"errno\":%d,\"error\":", task->pending ? "running" : "done",
	    task->err < 0 ? -task->err : task->err);
	text_put_string(text, task->err ? strerror(abs(task->err)) : "");
	text_put(text, ",\"total\":%" PRIu64 ",\"left\":%" PRIu64 "}", total, left);
	task->asked_ns = loop_now_ns();
	if (task->pending == 0)
		task->number = 0;
	return 0;
}

static int ask_cancel(
    struct managed_control *mc, const char *args, struct text *text, struct err *err)
{
	struct task *task;
	int res = task_of(mc, args, &task, err);

	if (res)
		return res;
	cancel_task(task);
	text_put(text, "ok");
	return 0;
}

static int ask_map(struct managed_control *mc, const char *args, struct text *text, struct err *err)
{
	const char *rest = args;
	unsigned count;
	uint64_t id;
	int end = 0, res = split_id(args, &id, &rest, err);

	if (res)
		return res;
	if (sscanf(rest, "%u%n", &count, &end) != 1 || rest[end] || count < 1 ||
	    count > MAP_CELLS_MAX)
		return err_set(err, -EINVAL, "a map has 1 to %d cells", MAP_CELLS_MAX);
	return managed_json_map(text, mc->pool, id, mc->cells, count, err);
}

static int ask_runs(
    struct managed_control *mc, const char *args, struct text *text, struct err *err)
{
	const char *rest = args;
	uint64_t id, off, len;
	int end = 0, res = split_id(args, &id, &rest, err);

	if (res)
		return res;
	if (sscanf(rest, "%" SCNu64 " %" SCNu64 "%n", &off, &len, &end) != 2 || rest[end])
		return err_set(err, -EINVAL, "not an offset and a length");
	return managed_json_runs(text, mc->pool, id, off, len, mc->runs, err);
}

static int no_cache(uint64_t id, int res, struct err *err)
{
	if (res == -E2BIG)
		return err_set(err, res, "too many ranges are pinned");
	if (res == -ENOENT)
		return err_set(err, res, "region %" PRIu64 " has no cache", id);
	return err_sys(err, res, "region %" PRIu64, id);
}

static int ask_evict(
    struct managed_control *mc, const char *args, struct text *text, struct err *err)
{
	uint64_t id, bytes = 0;
	unsigned count;
	int res = split_ranges(mc, args, &id, &count, err);

	for (unsigned i = 0; res == 0 && i < count; i++) {
		const struct pull_range *range = &mc->ranges[i];
		uint64_t part = 0;

		res = managed_evict(mc->pool, id, range->off, range->len, &part);
		/* What has no cache has nothing to give back. */
		if (res && res != -ENOENT)
			return no_cache(id, res, err);
		res = 0;
		bytes += part;
	}
	if (res == 0)
		text_put(text, "{\"bytes\":%" PRIu64 "}", bytes);
	return res;
}

static int keep(
    struct managed_control *mc, const char *args, bool on, struct text *text, struct err *err)
{
	unsigned count;
	uint64_t id;
	int res = split_ranges(mc, args, &id, &count, err);

	for (unsigned i = 0; res == 0 && i < count; i++) {
		const struct pull_range *range = &mc->ranges[i];
		uint64_t len = range->len == UINT64_MAX - range->off ? 0 : range->len;

		res = managed_pin(mc->pool, id, range->off, len, on);
		if (res)
			return no_cache(id, res, err);
	}
	if (res == 0)
		text_put(text, "ok");
	return res;
}

static int ask_keep(
    struct managed_control *mc, const char *args, struct text *text, struct err *err)
{
	return keep(mc, args, true, text, err);
}

static int ask_unkeep(
    struct managed_control *mc, const char *args, struct text *text, struct err *err)
{
	return keep(mc, args, false, text, err);
}

static int ask_record(
    struct managed_control *mc, const char *args, struct text *text, struct err *err)
{
	const char *rest = args;
	uint64_t id;
	int res = split_id(args, &id, &rest, err);

	if (res)
		return res;
	if (strcmp(rest, "on") && strcmp(rest, "off"))
		return err_set(err, -EINVAL, "neither on nor off");
	res = managed_record(mc->pool, id, !strcmp(rest, "on"));
	if (res)
		return no_cache(id, res, err);
	text_put(text, "ok");
	return 0;
}

static int ask_recorded(
    struct managed_control *mc, const char *args, struct text *text, struct err *err)
{
	char range[RANGE_TEXT];
	const char *rest = args;
	unsigned start, next;
	bool cut = false;
	uint64_t id;
	int count, end = 0, res = split_id(args, &id, &rest, err);

	if (res)
		return res;
	if (sscanf(rest, "%u%n", &start, &end) != 1 || rest[end])
		return err_set(err, -EINVAL, "not a number to start with");
	count = managed_recorded(mc->pool, id, mc->recorded, MANAGED_RECORD_MAX, &cut);
	if (count < 0)
		return err_set(err, count, "nothing was recorded");
	text_put(text, "{\"count\":%d,\"cut\":%s,\"order\":\"", count, cut ? "true" : "false");
	for (next = start; next < (unsigned)count; next++) {
		if (!text_has_room(text, 2 * RANGE_TEXT))
			break;
		pull_order_format(&mc->recorded[next], 1, range, sizeof(range));
		text_put(text, "%s%s", next > start ? "," : "", range);
	}
	text_put(text, "\",\"next\":%u}", next);
	return 0;
}

static const struct {
	const char *verb;
	int (*ask)(
	    struct managed_control *mc, const char *args, struct text *text, struct err *err);
	bool to_the_end; /* also when the mount is ending */
} requests[] = {
    {"map ", ask_map, true},
    {"runs ", ask_runs, true},
    {"pull ", ask_pull, false},
    {"push ", ask_push, false},
    {"task ", ask_task, true},
    {"cancel ", ask_cancel, true},
    {"evict ", ask_evict, false},
    {"keep ", ask_keep, false},
    {"unkeep ", ask_unkeep, false},
    {"record ", ask_record, false},
    {"recorded ", ask_recorded, false},
};

size_t managed_control_answer(struct managed_control *mc, const char *line, char *buf, size_t room)
{
	struct text text = {.buf = buf, .room = room};
	struct err err;

	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		size_t len = strlen(requests[i].verb);

		if (strncmp(line, requests[i].verb, len))
			continue;
		if (mc->stopped && !requests[i].to_the_end) {
			text_put(&text, "error: the mount is ending");
		} else if (requests[i].ask(mc, line + len, &text, &err)) {
			text.used = 0;
			text_put(&text, "error: %s", err.text);
		}
		return text.used;
	}
	return 0;
}

unsigned managed_control_tasks(const struct managed_control *mc)
{
	unsigned count = 0;

	for (unsigned i = 0; i < MANAGED_CONTROL_TASKS; i++)
		count += mc->tasks[i].number ? 1 : 0;
	return count;
}

/* ---- life -------------------------------------------------------------------------------------- */

int managed_control_create(
    struct loop *loop, struct pool *pool, struct managed_control **ret_mc, struct err *err)
{
	struct managed_control *mc = malloc(sizeof(*mc));

	if (!mc)
		return err_sys(err, -ENOMEM, "control socket");
	/* Touches all of it. */
	memset(mc, 0, sizeof(*mc));
	mc->loop = loop;
	mc->pool = pool;
	mc->timer.expired = check_tasks;
	*ret_mc = mc;
	return 0;
}

void managed_control_stop(struct managed_control *mc)
{
	mc->stopped = true;
	for (unsigned i = 0; i < MANAGED_CONTROL_TASKS; i++) {
		if (mc->tasks[i].number && mc->tasks[i].pending)
			cancel_task(&mc->tasks[i]);
	}
}

void managed_control_destroy(struct managed_control *mc)
{
	if (!mc)
		return;
	for (unsigned i = 0; i < MANAGED_CONTROL_TASKS; i++)
		assert(mc->tasks[i].pending == 0);
	loop_timer_cancel(&mc->timer);
	free(mc);
}
