/* SPDX-License-Identifier: Apache-2.0
 *
 * Loops on threads, and requests to wait for (see tests/lib/rig.h).
 *
 * A test thread posts a task to a loop and waits on a condition variable; results pass under the
 * wait's mutex, so that a thread sanitizer sees their order.
 */
#include "tests/lib/rig.h"

#include <check.h>
#include <errno.h>
#include <ftw.h>
#include <glob.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- loops ---- */

static void *loop_thread(void *arg)
{
	loop_run(arg);
	return NULL;
}

void rig_start(struct rig *rig, unsigned loops, unsigned workers)
{
	struct loop_conf conf = {.spin_us = 0};
	struct err err;

	memset(rig, 0, sizeof(*rig));
	ck_assert(loops >= 1 && loops <= RIG_LOOPS_MAX);
	ck_assert_msg(workers_create(workers, &rig->workers, &err) == 0, "%s", err.text);
	for (unsigned i = 0; i < loops; i++) {
		ck_assert_msg(loop_create(&conf, &rig->loops[i], &err) == 0, "%s", err.text);
		ck_assert_int_eq(
		    pthread_create(&rig->threads[i], NULL, loop_thread, rig->loops[i]), 0);
	}
	rig->loop_count = loops;
}

void rig_stop(struct rig *rig)
{
	/* A worker may still be on its way out of loop_post. */
	workers_destroy(rig->workers);
	for (unsigned i = 0; i < rig->loop_count; i++) {
		loop_stop(rig->loops[i]);
		pthread_join(rig->threads[i], NULL);
		loop_destroy(rig->loops[i]);
	}
}

/* ---- calls and requests ---- */

struct rig_wait {
	struct loop_task task;
	pthread_mutex_t mu;
	pthread_cond_t cond;
	bool called; /* protected by mu */
	unsigned left; /* protected by mu: requests in flight */
	void (*fn)(void *ctx);
	void *ctx;
	struct store *store;
	struct rig_req *reqs;
	unsigned count;
};

static void wait_init(struct rig_wait *wait)
{
	memset(wait, 0, sizeof(*wait));
	pthread_mutex_init(&wait->mu, NULL);
	pthread_cond_init(&wait->cond, NULL);
}

static void wait_fini(struct rig_wait *wait)
{
	pthread_cond_destroy(&wait->cond);
	pthread_mutex_destroy(&wait->mu);
}

static void wait_called(struct rig_wait *wait)
{
	pthread_mutex_lock(&wait->mu);
	wait->called = true;
	pthread_cond_signal(&wait->cond);
	pthread_mutex_unlock(&wait->mu);
}

static void call_task(struct loop_task *task)
{
	struct rig_wait *wait = (struct rig_wait *)task;

	wait->fn(wait->ctx);
	wait_called(wait);
}

static void wait_for_call(struct rig_wait *wait)
{
	pthread_mutex_lock(&wait->mu);
	while (!wait->called)
		pthread_cond_wait(&wait->cond, &wait->mu);
	pthread_mutex_unlock(&wait->mu);
}

void rig_call(struct loop *loop, void (*fn)(void *ctx), void *ctx)
{
	struct rig_wait wait;

	wait_init(&wait);
	wait.fn = fn;
	wait.ctx = ctx;
	wait.task.run = call_task;
	loop_post(loop, &wait.task);
	wait_for_call(&wait);
	wait_fini(&wait);
}

/* Takes a READ's bytes out of its pipe, which holds nothing else. */
static bool take_piped(const struct store_req *req)
{
	uint8_t *buf = req->buf;
	uint64_t got = 0;
	ssize_t n;

	while ((n = read(req->ret_pipe, buf + got, req->len - got)) > 0)
		got += (uint64_t)n;
	return got == req->len && read(req->ret_pipe, &(uint8_t){0}, 1) < 0;
}

static void req_done(struct store_req *req, int err)
{
	struct rig_req *rr = (struct rig_req *)req;
	struct rig_wait *wait = rr->wait;

	rr->piped = err == 0 && req->op == STORE_READ && req->ret_pipe >= 0;
	if (rr->piped && !take_piped(req))
		err = -EPROTO;
	rr->brief = err == 0 && req->op == STORE_READ && req->flags & STORE_BRIEF &&
		    !req->ret_lent && req->buf != rr->buf && req->buf != store_zeros;
	if (rr->brief)
		req->buf = memcpy(rr->buf, req->buf, req->len);

	pthread_mutex_lock(&wait->mu);
	rr->err = err;
	rr->dones++;
	rr->wrong_thread = loop_self() != rr->loop;
	wait->left--;
	pthread_cond_signal(&wait->cond);
	pthread_mutex_unlock(&wait->mu);
}

static void submit_task(struct loop_task *task)
{
	struct rig_wait *wait = (struct rig_wait *)task;

	for (unsigned i = 0; i < wait->count; i++)
		store_submit(wait->store, &wait->reqs[i].req);
	wait_called(wait);
}

struct rig_wait *rig_begin(
    struct loop *loop, struct store *store, struct rig_req *reqs, unsigned count)
{
	struct rig_wait *wait = malloc(sizeof(*wait));

	rig_check(wait, "out of memory");
	wait_init(wait);
	wait->left = count;
	wait->store = store;
	wait->reqs = reqs;
	wait->count = count;
	wait->task.run = submit_task;
	for (unsigned i = 0; i < count; i++) {
		reqs[i].req.done = req_done;
		reqs[i].store = store;
		reqs[i].buf = reqs[i].req.buf;
		reqs[i].err = 1;
		reqs[i].dones = 0;
		reqs[i].loop = loop;
		reqs[i].wait = wait;
	}
	loop_post(loop, &wait->task);
	wait_for_call(wait);
	return wait;
}

void rig_end(struct rig_wait *wait)
{
	pthread_mutex_lock(&wait->mu);
	while (wait->left)
		pthread_cond_wait(&wait->cond, &wait->mu);
	pthread_mutex_unlock(&wait->mu);
	for (unsigned i = 0; i < wait->count; i++) {
		rig_check(wait->reqs[i].dones == 1, "done came %u times", wait->reqs[i].dones);
		rig_check(!wait->reqs[i].wrong_thread, "done ran on another thread");
		rig_check(wait->reqs[i].err <= 0, "done got %d", wait->reqs[i].err);
	}
	wait_fini(wait);
	free(wait);
}

void rig_submit(struct loop *loop, struct store *store, struct rig_req *reqs, unsigned count)
{
	rig_end(rig_begin(loop, store, reqs, count));
}

static int submit_one(struct loop *loop, struct store *store, const struct store_req *req)
{
	struct rig_req rr = {.req = *req};

	rig_submit(loop, store, &rr, 1);
	return rr.err;
}

int rig_read(struct loop *loop, struct store *store, uint64_t off, void *buf, uint32_t len)
{
	return submit_one(
	    loop, store, &(struct store_req){.op = STORE_READ, .off = off, .len = len, .buf = buf});
}

int rig_write(struct loop *loop, struct store *store, uint64_t off, const void *buf, uint32_t len,
    unsigned flags)
{
	return submit_one(loop, store,
	    &(struct store_req){
		.op = STORE_WRITE,
		.off = off,
		.len = len,
		.buf = (void *)(uintptr_t)buf,
		.flags = flags,
	    });
}

int rig_op(struct loop *loop, struct store *store, enum store_op op, uint64_t off, uint64_t len,
    unsigned flags)
{
	return submit_one(
	    loop, store, &(struct store_req){.op = op, .off = off, .len = len, .flags = flags});
}

int rig_extents(struct loop *loop, struct store *store, uint64_t off, uint64_t len,
    struct extent *extents, unsigned max, unsigned *ret_count)
{
	struct rig_req rr = {
	    .req =
		{
		    .op = STORE_EXTENTS,
		    .off = off,
		    .len = len,
		    .extents = extents,
		    .extents_max = max,
		},
	};

	rig_submit(loop, store, &rr, 1);
	*ret_count = rr.req.ret_extents;
	return rr.err;
}

static void done_now(struct store_req *req, int err)
{
	rig_check(err == 0, "%s failed: %d", store_op_name(req->op), err);
	req->done = NULL;
}

/* To a store that serves it at once. */
static void submit_now(struct store *store, enum store_op op, uint64_t off, void *buf, uint64_t len)
{
	struct store_req req = {.op = op, .off = off, .len = len, .buf = buf, .done = done_now};

	store_submit(store, &req);
	rig_check(!req.done, "%s of %s is not done at once", store_op_name(op), store->ops->name);
}

void rig_peek(struct store *store, uint64_t off, void *buf, uint64_t len)
{
	uint8_t *to = buf;

	for (uint64_t n; len > 0; off += n, to += n, len -= n) {
		n = len < STORE_LEN_MAX ? len : STORE_LEN_MAX;
		submit_now(store, STORE_READ, off, to, n);
	}
}

void rig_poke(struct store *store, uint64_t off, const void *buf, uint64_t len)
{
	bool hole = !buf || memcmp(buf, store_zeros, len) == 0;

	if (len)
		submit_now(
		    store, hole ? STORE_ZERO : STORE_WRITE, off, (void *)(uintptr_t)buf, len);
}

void rig_expect(
    struct loop *loop, struct store *store, uint64_t off, uint64_t len, const uint8_t *bytes)
{
	uint8_t *buf = malloc(store->max_len);

	ck_assert(buf);
	while (len) {
		uint32_t n = len < store->max_len ? (uint32_t)len : store->max_len;
		bool same;
		int rc;

		memset(buf, 0xa5, n);
		rc = rig_read(loop, store, off, buf, n);
		rig_check(rc == 0, "%s: read: %d", store->ops->name, rc);
		same = memcmp(buf, bytes ? bytes : store_zeros, n) == 0;
		for (uint32_t i = 0; !same && i < n; i++)
			rig_check(buf[i] == (bytes ? bytes[i] : 0),
			    "%s: byte %llu is 0x%02x, not 0x%02x", store->ops->name,
			    (unsigned long long)(off + i), buf[i], bytes ? bytes[i] : 0);
		off += n;
		bytes += bytes ? n : 0;
		len -= n;
	}
	free(buf);
}

/* ---- random numbers ---- */

void rig_random_init(struct rig_random *random, const char *what)
{
	const char *seed = getenv("SEED");
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	random->state =
	    seed ? strtoull(seed, NULL, 0) : ((uint64_t)now.tv_nsec << 20) ^ (uint64_t)now.tv_sec;
	printf("%s: SEED=0x%llx\n", what, (unsigned long long)random->state);
	fflush(stdout);
	if (random->state == 0)
		random->state = 1;
}

uint64_t rig_random(struct rig_random *random)
{
	random->state ^= random->state >> 12;
	random->state ^= random->state << 25;
	random->state ^= random->state >> 27;
	return random->state * 0x2545f4914f6cdd1dull;
}

uint64_t rig_random_below(struct rig_random *random, uint64_t below)
{
	return (rig_random(random) >> 11) % below;
}

void rig_random_fill(struct rig_random *random, void *buf, size_t len)
{
	uint64_t words[64]; /* at a time: sanitizers make each copy dear */
	uint8_t *pos = buf;

	while (len) {
		size_t n = len < sizeof(words) ? len : sizeof(words);

		for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
			words[i] = rig_random(random);
		memcpy(pos, words, n);
		pos += n;
		len -= n;
	}
}

/* ---- processes ---- */

bool rig_child_killed(pid_t pid)
{
	int status;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return true;
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child: %x", status);
	return false;
}

/* ---- clients that are sent away ---- */

void rig_turn_away(int listener, unsigned count)
{
	while (count--) {
		struct pollfd pfd = {.fd = listener, .events = POLLIN};
		int fd =
		    poll(&pfd, 1, 30000) == 1 ? accept4(listener, NULL, NULL, SOCK_CLOEXEC) : -1;

		ck_assert_msg(fd >= 0, "nobody comes");
		close(fd);
	}
}

uint64_t rig_backoff_ms(unsigned count)
{
	uint64_t sum = 0;

	for (uint64_t pause = 20; count--; pause = pause < 1000 ? 2 * pause : 2000)
		sum += pause;
	return sum;
}

/* ---- directories ---- */

/* The process that runs the tests; each test is a child of it. */
static pid_t tests_pid;

static const char *default_tmp(void)
{
	const char *tmp = getenv("TMPDIR");

	return tmp ? tmp : "/var/tmp";
}

void rig_tmpdir(const char *where, char path[RIG_PATH_MAX])
{
	snprintf(path, RIG_PATH_MAX, "%s/remram-test-%ld-XXXXXX", where ? where : default_tmp(),
	    (long)tests_pid);
	ck_assert_msg(mkdtemp(path) != NULL, "cannot make %s: %s", path, strerror(errno));
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

void rig_tmpdir_remove(const char *path)
{
	ck_assert_msg(nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0,
	    "cannot remove %s: %s", path, strerror(errno));
}

void rig_tmpdirs_begin(void)
{
	tests_pid = getpid();
}

static void remove_left(const char *where)
{
	char pattern[RIG_PATH_MAX];
	glob_t found;

	snprintf(pattern, sizeof(pattern), "%s/remram-test-%ld-*", where, (long)tests_pid);
	if (glob(pattern, GLOB_NOSORT, NULL, &found) == 0) {
		for (size_t i = 0; i < found.gl_pathc; i++)
			nftw(found.gl_pathv[i], remove_entry, 16, FTW_DEPTH | FTW_PHYS);
		globfree(&found);
	}
}

void rig_tmpdirs_end(void)
{
	remove_left(default_tmp());
	remove_left("/dev/shm");
}

unsigned rig_fail_each(bool (*run)(void *ctx, unsigned n), void *ctx, unsigned most)
{
	unsigned n = 1;

	while (run(ctx, n)) {
		n++;
		ck_assert_msg(n <= most, "still something to fail in run %u", n);
	}
	return n - 1;
}
