/* SPDX-License-Identifier: Apache-2.0
 *
 * Waiting for work of the daemon; see task.h.
 *
 * The ranges go in batches, a few of which are under way at once, so that the daemon never waits for us
 * while the order of the ranges is still theirs.  The daemon is asked how far it is, at first often and then
 * every POLL_MS; it forgets a task whose command has died.
 */
#include "mount/task.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mount/cmd.h"
#include "mount/control.h"
#include "mount/json.h"
#include "mount/managed_control.h"
#include "mount/sys.h"

enum {
	BATCHES = 4, /* under way at once */
	POLL_FIRST_MS = 1,
	POLL_MS = 100,
	VERB_ROOM = 64, /* of a request, for what stands before the ranges */
	RANGE_ROOM = 128,
};

struct batch {
	unsigned task; /* the daemon's number; 0: not in use */
	uint64_t total, left;
};

struct effort {
	const struct target *target;
	struct batch batches[BATCHES];
	uint64_t ended; /* bytes of batches that have ended */
	struct err *err;
};

unsigned task_clip(struct pull_range *ranges, unsigned count, uint64_t size, uint64_t *ret_bytes)
{
	unsigned kept = 0;

	*ret_bytes = 0;
	for (unsigned i = 0; i < count; i++) {
		struct pull_range range = ranges[i];

		if (range.off >= size)
			continue;
		if (range.len > size - range.off)
			range.len = size - range.off;
		*ret_bytes += range.len;
		ranges[kept++] = range;
	}
	return kept;
}

/* A merge of two sorted halves: what is equal comes from the first one first. */
static void merge(struct pull_range *ranges, unsigned half, unsigned count, struct pull_range *room)
{
	unsigned a = 0, b = half;

	for (unsigned i = 0; i < count; i++) {
		bool second = a == half || (b < count && ranges[b].prio > ranges[a].prio);

		room[i] = ranges[second ? b++ : a++];
	}
	memcpy(ranges, room, count * sizeof(*ranges));
}

static void sort(struct pull_range *ranges, unsigned count, struct pull_range *room)
{
	if (count < 2)
		return;
	sort(ranges, count / 2, room);
	sort(ranges + count / 2, count - count / 2, room);
	merge(ranges, count / 2, count, room);
}

int task_sort(struct pull_range *ranges, unsigned count, struct err *err)
{
	struct pull_range *room = calloc(count ? count : 1, sizeof(*room));

	if (!room)
		return err_sys(err, -ENOMEM, "sorting ranges");
	sort(ranges, count, room);
	free(room);
	return 0;
}

unsigned task_batch(const struct pull_range *ranges, unsigned count, char *buf, size_t room)
{
	unsigned taken = 0;
	size_t used = 0;

	buf[0] = '\0';
	while (taken < count && taken < MANAGED_CONTROL_RANGES) {
		char text[RANGE_ROOM];
		size_t len = pull_order_format(&ranges[taken], 1, text, sizeof(text));

		if (used + len + 2 > room)
			break;
		used += (size_t)snprintf(buf + used, room - used, "%s%s", taken ? "," : "", text);
		taken++;
	}
	return taken;
}

/* Begins a batch; returns how many ranges it took, or -errno. */
static int start_batch(struct effort *effort, struct batch *batch, const char *verb,
    const struct pull_range *ranges, unsigned count)
{
	char text[CONTROL_LINE_MAX - VERB_ROOM], *answer;
	unsigned taken = task_batch(ranges, count, text, sizeof(text));
	int res = target_ask(effort->target, &answer, effort->err, "%s %llu %s", verb,
	    (unsigned long long)effort->target->id, text);

	if (res)
		return res;
	if (sscanf(answer, "ok %u", &batch->task) != 1 || batch->task == 0)
		res = err_set(effort->err, -EPROTO, "%s: the daemon answers \"%.40s\"",
		    effort->target->path, answer);
	batch->total = batch->left = 0;
	free(answer);
	return res ? res : (int)taken;
}

/* Asks how far a batch is.  -errno: it failed, or could not be asked about. */
static int check_batch(struct effort *effort, struct batch *batch)
{
	struct json *doc;
	int code, res = target_ask_json(effort->target, &doc, effort->err, "task %u", batch->task);

	if (res)
		return res;
	batch->total = (uint64_t)json_number(json_find(doc, "total"), 0);
	batch->left = (uint64_t)json_number(json_find(doc, "left"), 0);
	code = (int)json_number(json_find(doc, "errno"), 0);
	if (!strcmp(json_string(json_find(doc, "state"), ""), "done")) {
		batch->task = 0;
		effort->ended += batch->total;
		if (code)
			res = err_set(effort->err, -code, "%s: %s", effort->target->path,
			    json_string(json_find(doc, "error"), "it failed"));
	}
	json_destroy(doc);
	return res;
}

static void cancel_all(struct effort *effort)
{
	for (unsigned i = 0; i < BATCHES; i++) {
		struct err ignored;
		char *answer;

		if (effort->batches[i].task && target_ask(effort->target, &answer, &ignored,
						   "cancel %u", effort->batches[i].task) == 0)
			free(answer);
	}
}

/* One look at all that is under way.  *ret_busy: there is something. */
static int check_all(struct effort *effort, uint64_t *ret_total, uint64_t *ret_done, bool *ret_busy)
{
	*ret_total = *ret_done = effort->ended;
	*ret_busy = false;
	for (unsigned i = 0; i < BATCHES; i++) {
		struct batch *batch = &effort->batches[i];
		int res;

		if (!batch->task)
			continue;
		res = check_batch(effort, batch);
		if (res)
			return res;
		*ret_total += batch->total;
		*ret_done += batch->total - batch->left;
		*ret_busy = *ret_busy || batch->task;
	}
	return 0;
}

static int fill(struct effort *effort, const char *verb, const struct pull_range *ranges,
    unsigned count, unsigned *next)
{
	for (unsigned i = 0; i < BATCHES && *next < count; i++) {
		int res;

		if (effort->batches[i].task)
			continue;
		res = start_batch(effort, &effort->batches[i], verb, ranges + *next, count - *next);
		if (res < 0)
			return res;
		*next += (unsigned)res;
	}
	return 0;
}

int task_run(const struct target *target, const char *verb, const struct pull_range *ranges,
    unsigned count, uint64_t total, struct progress *progress, uint64_t *ret_bytes, struct err *err)
{
	struct effort effort = {.target = target, .err = err};
	uint64_t known = 0, done = 0;
	unsigned next = 0, pause = POLL_FIRST_MS;
	bool busy = true;
	int res = 0;

	while (res == 0 && (busy || next < count)) {
		res = fill(&effort, verb, ranges, count, &next);
		if (res == 0)
			res = check_all(&effort, &known, &done, &busy);
		if (res)
			break;
		progress_show(progress, done, known > total ? known : total, sys_now_ms());
		if (cmd_interrupted)
			res = err_set(err, -EINTR, "%s: interrupted", target->path);
		else if (busy)
			sys_sleep_ms(pause);
		pause = pause * 2 < POLL_MS ? pause * 2 : POLL_MS;
	}
	progress_clear(progress);
	if (res)
		cancel_all(&effort);
	*ret_bytes = known;
	return res;
}
