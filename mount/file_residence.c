/* SPDX-License-Identifier: Apache-2.0
 *
 * The residence of a file in a mount; see file_residence.h.
 *
 * Each question is one conversation with the mount's control socket, which blocks for as long as its daemon
 * takes (ANSWER_MS of mount/target.c at the most): they run on threads of their own, so that neither the loops
 * nor the threads that read and write the file wait.
 *
 * A pull is a task of the daemon: the first call begins it, later ones ask how far it is.  req->task is its number, 0
 * if there is none.  The daemon cancels tasks that nobody asks about, so forgetting one needs no conversation.
 *
 * Invariant: pulls is the number of requests with a task, and those that are about to get one: PULLS_MAX at the
 * most, since the daemon has MANAGED_CONTROL_TASKS for everybody; the others are told to come again.
 */
#include "mount/file_residence.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "mount/json.h"
#include "mount/target.h"

enum { ASKERS = 2, PULLS_MAX = 8 };

struct file_residence {
	struct residence residence; /* first */

	/* Constant after create. */
	struct target target;
	struct workers *workers;

	/* Any thread. */
	_Atomic unsigned pulls;

	/* Protected by mu, in which a line is logged at the most. */
	pthread_mutex_t mu;
	struct log_limit limit;
};

static struct residence_req *req_of(struct work *work)
{
	return (struct residence_req *)((char *)work - offsetof(struct residence_req, work));
}

static void asked(struct work *work)
{
	struct residence_req *req = req_of(work);

	req->done(req, req->err);
}

/* Has `run` called on a thread for the request, then its done. */
static void start(
    struct residence *residence, struct residence_req *req, void (*run)(struct work *work))
{
	struct file_residence *fr = (struct file_residence *)residence;

	req->residence = residence;
	req->work.run = run;
	req->work.done = asked;
	workers_submit(fr->workers, &req->work);
}

/* The daemon's errors, which the client of the export only sees as EIO. */
static int failed(struct file_residence *fr, int res, const struct err *err)
{
	pthread_mutex_lock(&fr->mu);
	if (log_allowed(&fr->limit))
		log_warn("%s", err->text);
	pthread_mutex_unlock(&fr->mu);
	return res == -ENOMEM ? res : -EIO;
}

/* ---- look ---- */

/* The runs of the answer, up to the end of what was asked for: how many. */
static unsigned take_runs(const struct json *doc, struct residence_req *req)
{
	const struct json *run = json_first(json_find(doc, "runs"));
	uint64_t left = req->len;
	unsigned count = 0;

	for (; run && left && count < req->max; run = json_next(run)) {
		const struct json *len = json_first(run), *resident = json_next(len);
		uint64_t bytes = json_u64(len, 0);

		bytes = bytes < left ? bytes : left;
		if (bytes == 0)
			break;
		req->runs[count++] = (struct residence_run){
		    bytes, json_u64(resident, 0), json_u64(json_next(resident), 0)};
		left -= bytes;
	}
	return count;
}

static void run_look(struct work *work)
{
	struct residence_req *req = req_of(work);
	struct file_residence *fr = (struct file_residence *)req->residence;
	struct json *doc = NULL;
	struct err err;
	int res = target_ask_json(&fr->target, &doc, &err, "runs %" PRIu64 " %" PRIu64 " %" PRIu64,
	    fr->target.id, req->off, req->len);

	if (res == 0) {
		req->ret_count = take_runs(doc, req);
		if (req->ret_count == 0)
			res = err_set(&err, -EIO, "%s: has become shorter", fr->target.path);
	}
	json_destroy(doc);
	req->err = res ? failed(fr, res, &err) : 0;
}

static void look(struct residence *residence, struct residence_req *req)
{
	start(residence, req, run_look);
}

/* ---- pull ---- */

/* 0: the daemon has begun. */
static int begin_pull(const struct file_residence *fr, struct residence_req *req, struct err *err)
{
	char *answer;
	int res = target_ask(&fr->target, &answer, err, "pull %" PRIu64 " %" PRIu64 "-%" PRIu64,
	    fr->target.id, req->off, req->off + req->len);

	if (res)
		return res;
	if (sscanf(answer, "ok %u", &req->task) != 1 || req->task == 0)
		res = err_set(err, -EPROTO, "%s: \"%s\" was not expected", fr->target.path, answer);
	free(answer);
	return res;
}

/* -EAGAIN, or how the task has ended; then it is gone. */
static int ask_task(const struct file_residence *fr, struct residence_req *req, struct err *err)
{
	struct json *doc;
	int res = target_ask_json(&fr->target, &doc, err, "task %u", req->task);

	if (res)
		return res;
	if (strcmp(json_string(json_find(doc, "state"), ""), "done")) {
		res = -EAGAIN;
	} else {
		res = -(int)json_u64(json_find(doc, "errno"), EPROTO);
		if (res)
			err_sys(err, res, "%s: pulling what a client wants to have cached",
			    fr->target.path);
	}
	json_destroy(doc);
	return res;
}

static void run_pull(struct work *work)
{
	struct residence_req *req = req_of(work);
	struct file_residence *fr = (struct file_residence *)req->residence;
	struct err err;
	int res = req->task ? 0 : begin_pull(fr, req, &err);

	if (res == 0)
		res = ask_task(fr, req, &err);
	if (res != -EAGAIN) {
		req->task = 0;
		atomic_fetch_sub(&fr->pulls, 1);
	}
	req->err = res && res != -EAGAIN ? failed(fr, res, &err) : res;
}

static void pull(struct residence *residence, struct residence_req *req)
{
	struct file_residence *fr = (struct file_residence *)residence;

	if (req->task == 0 && atomic_fetch_add(&fr->pulls, 1) >= PULLS_MAX) {
		atomic_fetch_sub(&fr->pulls, 1);
		req->done(req, -EAGAIN);
		return;
	}
	start(residence, req, run_pull);
}

static void forget(struct residence *residence, struct residence_req *req)
{
	struct file_residence *fr = (struct file_residence *)residence;

	if (req->task)
		atomic_fetch_sub(&fr->pulls, 1);
}

static const struct residence_ops cached_ops = {look, pull, forget};

/* ---- a mount without a cache ---- */

static void look_away(struct residence *residence, struct residence_req *req)
{
	req->runs[0] = (struct residence_run){.len = req->len};
	req->ret_count = 1;
	req->done(req, 0);
}

static const struct residence_ops direct_ops = {.look = look_away};

/* ---- life ---- */

/* Which of the three it is. */
static void choose(struct file_residence *fr, struct err *err)
{
	struct json *doc = NULL;
	struct err why;
	int res = target_ask_json(&fr->target, &doc, &why, "runs %" PRIu64 " 0 1", fr->target.id);

	json_destroy(doc);
	if (res == 0)
		fr->residence.ops = &cached_ops;
	else if (res == -EOPNOTSUPP)
		fr->residence.ops = &direct_ops;
	else
		*err = why;
}

int file_residence_create(const char *path, struct residence **ret_residence, struct err *err)
{
	struct file_residence *fr = calloc(1, sizeof(*fr));
	int res;

	err->code = 0;
	*ret_residence = NULL;
	if (!fr)
		return err_sys(err, -ENOMEM, "%s", path);
	pthread_mutex_init(&fr->mu, NULL);
	res = target_find(path, false, &fr->target, err);
	if (res == -EINVAL) { /* of no mount of ours */
		err->code = 0;
		file_residence_destroy(&fr->residence);
		return 0;
	}
	if (res == 0) {
		res = workers_create(ASKERS, &fr->workers, err);
		if (res) {
			file_residence_destroy(&fr->residence);
			return res;
		}
		choose(fr, err);
	}
	*ret_residence = &fr->residence;
	return 0;
}

void file_residence_destroy(struct residence *residence)
{
	struct file_residence *fr = (struct file_residence *)residence;

	if (!fr)
		return;
	workers_destroy(fr->workers);
	pthread_mutex_destroy(&fr->mu);
	free(fr);
}
