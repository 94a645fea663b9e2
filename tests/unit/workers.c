/* SPDX-License-Identifier: Apache-2.0
 *
 * Worker threads: first in first out, done on the loop that submitted, everything run before the end.
 */
#include "core/workers.h"

#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MANY = 3000, LOOPS = 3 };

static struct workers *workers;

static void start(unsigned threads)
{
	struct err err;

	ck_assert_int_eq(workers_create(threads, &workers, &err), 0);
}

/* ---- without done ---- */

struct plain {
	struct work work; /* first */
	unsigned number;
};

static unsigned next_number; /* of one worker thread */

static void run_in_order(struct work *work)
{
	struct plain *plain = (struct plain *)work;

	ck_assert_uint_eq(plain->number, next_number++);
	free(plain); /* ours from here on */
}

START_TEST(one_thread_keeps_the_order)
{
	start(1);
	for (unsigned i = 0; i < MANY; i++) {
		struct plain *plain = calloc(1, sizeof(*plain));

		plain->work.run = run_in_order;
		plain->number = i;
		workers_submit(workers, &plain->work);
	}
	workers_destroy(workers); /* runs what is queued */
	ck_assert_uint_eq(next_number, MANY);
}
END_TEST

/* ---- as many at once as there are threads ---- */

static pthread_barrier_t barrier;
static _Atomic unsigned passed;

static void run_barrier(struct work *work)
{
	pthread_barrier_wait(&barrier); /* never ends with fewer threads than that */
	passed++;
}

START_TEST(work_runs_side_by_side)
{
	static struct work works[64];

	pthread_barrier_init(&barrier, NULL, 64);
	start(64);
	for (unsigned i = 0; i < 64; i++) {
		works[i].run = run_barrier;
		workers_submit(workers, &works[i]);
	}
	workers_destroy(workers);
	ck_assert_uint_eq(passed, 64);
	pthread_barrier_destroy(&barrier);
}
END_TEST

/* ---- done ---- */

struct job {
	struct work work; /* first */
	struct loop *loop;
	unsigned runs, dones;
	uint64_t bytes[32]; /* written by the worker, read by the loop */
};

struct submitter {
	struct loop *loop;
	struct job jobs[64];
	unsigned left; /* submissions to come */
	unsigned done;
	struct loop_task start;
};

static struct submitter submitters[LOOPS];

static void run_job(struct work *work)
{
	struct job *job = (struct job *)work;

	ck_assert_ptr_null(loop_self());
	job->runs++;
	for (unsigned i = 0; i < 32; i++)
		job->bytes[i] = job->runs * i;
}

static struct submitter *submitter_of(struct loop *loop)
{
	for (unsigned i = 0; i < LOOPS; i++)
		if (submitters[i].loop == loop)
			return &submitters[i];
	ck_abort_msg("no loop");
}

/* Submits the same job again, as a store does with its slots. */
static void job_done(struct work *work)
{
	struct job *job = (struct job *)work;
	struct submitter *sub = submitter_of(job->loop);

	ck_assert_ptr_eq(loop_self(), job->loop);
	ck_assert_uint_eq(++job->dones, job->runs);
	for (unsigned i = 0; i < 32; i++)
		ck_assert_uint_eq(job->bytes[i], job->runs * i);
	sub->done++;
	if (sub->left) {
		sub->left--;
		workers_submit(workers, &job->work);
	} else if (sub->done == MANY) {
		loop_stop(sub->loop);
	}
}

static void start_jobs(struct loop_task *task)
{
	struct submitter *sub = submitter_of(loop_self());

	sub->left = MANY - 64;
	for (unsigned i = 0; i < 64; i++) {
		sub->jobs[i].work.run = run_job;
		sub->jobs[i].work.done = job_done;
		sub->jobs[i].loop = sub->loop;
		workers_submit(workers, &sub->jobs[i].work);
	}
}

static void *loop_main(void *arg)
{
	loop_run(arg);
	return NULL;
}

START_TEST(done_runs_on_the_loop_that_submitted)
{
	struct loop_conf conf = {.spin_us = _i ? 100 : 0};
	pthread_t threads[LOOPS];
	struct err err;

	start(4);
	for (unsigned i = 0; i < LOOPS; i++) {
		ck_assert_int_eq(loop_create(&conf, &submitters[i].loop, &err), 0);
		submitters[i].start.run = start_jobs;
		loop_post(submitters[i].loop, &submitters[i].start);
	}
	for (unsigned i = 0; i < LOOPS; i++)
		pthread_create(&threads[i], NULL, loop_main, submitters[i].loop);
	for (unsigned i = 0; i < LOOPS; i++)
		pthread_join(threads[i], NULL);
	workers_destroy(workers); /* before the loops: a worker may still be in loop_post */
	for (unsigned i = 0; i < LOOPS; i++) {
		ck_assert_uint_eq(submitters[i].done, MANY);
		loop_destroy(submitters[i].loop);
	}
}
END_TEST

/* ---- the rest ---- */

static void nothing(struct work *work)
{
}

START_TEST(done_needs_a_loop)
{
	struct work work = {.run = nothing, .done = nothing};

	start(1);
	workers_submit(workers, &work);
}
END_TEST

static void see_signals(struct work *work)
{
	sigset_t now;

	pthread_sigmask(SIG_SETMASK, NULL, &now);
	passed = (unsigned)(sigismember(&now, SIGTERM) && sigismember(&now, SIGINT));
}

/* Signals are for the threads that wait for them; the caller's mask is as it was. */
START_TEST(threads_take_no_signals)
{
	struct work work = {.run = see_signals};
	sigset_t before, after;

	pthread_sigmask(SIG_SETMASK, NULL, &before);
	start(1);
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	for (int sig = 1; sig < 32; sig++)
		ck_assert_int_eq(sigismember(&before, sig), sigismember(&after, sig));
	workers_submit(workers, &work);
	workers_destroy(workers);
	ck_assert_uint_eq(passed, 1);
	workers_destroy(NULL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("workers");
	TCase *tc = tcase_create("workers");
	SRunner *sr = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, one_thread_keeps_the_order);
	tcase_add_test(tc, work_runs_side_by_side);
	tcase_add_loop_test(tc, done_runs_on_the_loop_that_submitted, 0, 2);
	tcase_add_test_raise_signal(tc, done_needs_a_loop, SIGABRT);
	tcase_add_test(tc, threads_take_no_signals);
	suite_add_tcase(suite, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
