/* SPDX-License-Identifier: Apache-2.0
 *
 * The event loop: the heap of timers against a sort, descriptors that go away while they are being
 * served, the order of a round, tasks from other threads, sleeping and waking.
 */
#include "core/loop.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MS 1000000u

static struct loop *loop;
static char order[64]; /* what ran, in order */

static void note(char c)
{
	size_t n = strlen(order);

	if (n + 1 < sizeof(order)) {
		order[n] = c;
		order[n + 1] = 0;
	}
}

static void setup(void)
{
	struct loop_conf conf = {0};
	struct err err;

	ck_assert_int_eq(loop_create(&conf, &loop, &err), 0);
	order[0] = 0;
}

static void setup_spin(void)
{
	struct loop_conf conf = {.spin_us = 200};
	struct err err;

	ck_assert_int_eq(loop_create(&conf, &loop, &err), 0);
}

static void teardown(void)
{
	loop_destroy(loop);
}

static void stop_now(struct loop_timer *timer)
{
	loop_stop(loop);
}

/* Runs the loop for so long. */
static void run_ms(unsigned ms)
{
	struct loop_timer end = {.expired = stop_now};

	loop_timer_set(loop, &end, loop_now_ns() + (uint64_t)ms * MS);
	loop_run(loop);
	loop_timer_cancel(&end);
}

/* … until something has happened. */
#define RUN_UNTIL(condition) \
	for (unsigned tries_ = 0; !(condition) && tries_ < 10000; tries_++) \
	run_ms(1)

/* ---- timers ---- */

enum { TIMERS = 3000 };

static struct loop_timer timers[TIMERS];
static unsigned fired[TIMERS];
static uint64_t last_at;
static bool out_of_order;

static void timer_fired(struct loop_timer *timer)
{
	out_of_order |= timer->at_ns < last_at;
	last_at = timer->at_ns;
	fired[timer - timers]++;
}

static void timers_init(void)
{
	memset(fired, 0, sizeof(fired));
	memset(timers, 0, sizeof(timers));
	last_at = 0;
	out_of_order = false;
	for (unsigned i = 0; i < TIMERS; i++)
		timers[i].expired = timer_fired;
}

/* Deadlines in the past fire in one round, so that their order does not depend on the machine. */
START_TEST(timers_fire_in_order)
{
	bool set[TIMERS] = {false};

	timers_init();
	srandom(3);
	for (unsigned step = 0; step < 20 * TIMERS; step++) {
		unsigned i = (unsigned)random() % TIMERS;

		if (random() % 3) {
			loop_timer_set(loop, &timers[i], 1 + (uint64_t)random() % 1000);
			set[i] = true;
		} else {
			loop_timer_cancel(&timers[i]);
			set[i] = false;
		}
		ck_assert_int_eq(timers[i].loop != NULL, set[i]);
	}
	run_ms(0);
	ck_assert(!out_of_order);
	for (unsigned i = 0; i < TIMERS; i++)
		ck_assert_uint_eq(fired[i], set[i]);
	for (unsigned i = 0; i < TIMERS; i++)
		ck_assert_ptr_null(timers[i].loop);
}
END_TEST

static void never_early(struct loop_timer *timer)
{
	ck_assert_uint_ge(loop_now_ns(), timer->at_ns);
	fired[timer - timers]++;
}

START_TEST(timers_do_not_fire_early)
{
	timers_init();
	for (unsigned i = 0; i < 20; i++) {
		timers[i].expired = never_early;
		loop_timer_set(loop, &timers[i], loop_now_ns() + i * MS + i * 1234);
	}
	RUN_UNTIL(fired[19]);
	for (unsigned i = 0; i < 20; i++)
		ck_assert_uint_eq(fired[i], 1);
}
END_TEST

static void cancels_the_next(struct loop_timer *timer)
{
	unsigned i = (unsigned)(timer - timers);

	fired[i]++;
	if (i + 1 < TIMERS)
		loop_timer_cancel(&timers[i + 1]);
}

START_TEST(a_timer_may_cancel_others)
{
	timers_init();
	for (unsigned i = 0; i < TIMERS; i++) {
		timers[i].expired = cancels_the_next;
		loop_timer_set(loop, &timers[i], 1 + i);
	}
	run_ms(0);
	for (unsigned i = 0; i < TIMERS; i++)
		ck_assert_uint_eq(fired[i], i % 2 == 0);
}
END_TEST

static void sets_itself(struct loop_timer *timer)
{
	if (++fired[timer - timers] < 5)
		loop_timer_set(loop, timer, loop_now_ns() + MS / 2);
	else
		loop_stop(loop);
}

static void sets_itself_to_the_past(struct loop_timer *timer)
{
	fired[timer - timers]++;
	loop_timer_set(loop, timer, 1);
}

START_TEST(a_timer_may_set_itself)
{
	timers_init();
	timers[0].expired = sets_itself;
	loop_timer_set(loop, &timers[0], 1);
	loop_run(loop);
	ck_assert_uint_eq(fired[0], 5);
}
END_TEST

/* One that is always due leaves the others their turn. */
START_TEST(a_timer_that_is_always_due)
{
	timers_init();
	timers[0].expired = sets_itself_to_the_past;
	loop_timer_set(loop, &timers[0], 1);
	RUN_UNTIL(fired[0] >= 2);
	ck_assert_uint_ge(fired[0], 2);
	loop_timer_cancel(&timers[0]);
}
END_TEST

START_TEST(a_moved_timer_fires_once)
{
	timers_init();
	loop_timer_set(loop, &timers[0], loop_now_ns() + 3600ull * 1000 * MS);
	loop_timer_set(loop, &timers[1], 1);
	loop_timer_set(loop, &timers[0], 2);
	loop_timer_set(loop, &timers[1], loop_now_ns() + 3600ull * 1000 * MS);
	RUN_UNTIL(fired[0]);
	run_ms(1);
	ck_assert_uint_eq(fired[0], 1);
	ck_assert_uint_eq(fired[1], 0);
	loop_timer_cancel(&timers[1]);
	loop_timer_cancel(&timers[1]);
}
END_TEST

/* ---- descriptors ---- */

struct watch {
	struct loop_fd lfd; /* first */
	int other; /* the far end */
	unsigned calls;
	char name;
	struct watch *victim; /* what ready deletes and frees */
};

static struct watch *watch_new(char name)
{
	struct watch *w = calloc(1, sizeof(*w));
	int fds[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	w->lfd.fd = fds[0];
	w->other = fds[1];
	w->name = name;
	return w;
}

static void watch_free(struct watch *w)
{
	loop_fd_del(&w->lfd);
	close(w->lfd.fd);
	close(w->other);
	free(w);
}

static void on_ready(struct loop_fd *lfd, uint32_t events)
{
	struct watch *w = (struct watch *)lfd;
	char c;

	w->calls++;
	note(w->name);
	if (events & EPOLLIN)
		ck_assert_int_eq(read(lfd->fd, &c, 1), 1);
	if (w->victim) {
		watch_free(w->victim);
		w->victim = NULL;
	}
}

static void watch_start(struct watch *w, uint32_t events)
{
	w->lfd.ready = on_ready;
	ck_assert_int_eq(loop_fd_add(loop, &w->lfd, events), 0);
	ck_assert_ptr_eq(w->lfd.loop, loop);
}

START_TEST(ready_is_level_triggered)
{
	struct watch *w = watch_new('a');

	watch_start(w, EPOLLIN);
	ck_assert_int_eq(write(w->other, "123", 3), 3);
	RUN_UNTIL(w->calls == 3);
	run_ms(1);
	ck_assert_uint_eq(w->calls, 3);
	watch_free(w);
}
END_TEST

START_TEST(watched_events_can_change)
{
	struct watch *w = watch_new('a');

	watch_start(w, 0);
	ck_assert_int_eq(write(w->other, "1", 1), 1);
	run_ms(5);
	ck_assert_uint_eq(w->calls, 0);
	ck_assert_int_eq(loop_fd_set(&w->lfd, EPOLLIN), 0);
	RUN_UNTIL(w->calls == 1);
	ck_assert_uint_eq(w->calls, 1);
	ck_assert_int_eq(loop_fd_set(&w->lfd, EPOLLOUT), 0);
	RUN_UNTIL(w->calls > 2);
	ck_assert_uint_gt(w->calls, 2); /* it can always be written to */
	watch_free(w);
}
END_TEST

/* Of two that are ready at once, each frees the other: exactly one handler runs. */
START_TEST(a_handler_may_delete_other_watches)
{
	for (unsigned round = 0; round < 20; round++) {
		struct watch *a = watch_new('a'), *b = watch_new('b');

		order[0] = 0;
		a->victim = b;
		b->victim = a;
		watch_start(round % 2 ? a : b, EPOLLIN);
		watch_start(round % 2 ? b : a, EPOLLIN);
		ck_assert_int_eq(write(a->other, "1", 1), 1);
		ck_assert_int_eq(write(b->other, "1", 1), 1);
		RUN_UNTIL(order[0]);
		run_ms(1);
		ck_assert_uint_eq(strlen(order), 1);
		watch_free(order[0] == 'a' ? a : b);
	}
}
END_TEST

static struct watch *reborn;

/* Deletes the victim and watches another descriptor through the very same struct. */
static void on_ready_reuse(struct loop_fd *lfd, uint32_t events)
{
	struct watch *w = (struct watch *)lfd;
	char c;

	ck_assert_int_eq(read(lfd->fd, &c, 1), 1);
	note(w->name);
	if (w->victim) {
		struct watch *v = w->victim;

		loop_fd_del(&v->lfd);
		close(v->lfd.fd);
		close(v->other);
		memset(v, 0, sizeof(*v));
		v->lfd.fd = eventfd(0, EFD_NONBLOCK); /* quiet */
		v->lfd.ready = on_ready;
		v->name = '!';
		ck_assert_int_eq(loop_fd_add(loop, &v->lfd, EPOLLIN), 0);
		reborn = v;
		w->victim = NULL;
	}
}

START_TEST(a_struct_that_is_used_again_gets_no_old_event)
{
	struct watch *a = watch_new('a'), *b = watch_new('b');

	a->victim = b;
	b->victim = a;
	watch_start(a, EPOLLIN);
	watch_start(b, EPOLLIN);
	a->lfd.ready = b->lfd.ready = on_ready_reuse;
	ck_assert_int_eq(write(a->other, "1", 1), 1);
	ck_assert_int_eq(write(b->other, "1", 1), 1);
	RUN_UNTIL(order[0]);
	run_ms(1);
	ck_assert_uint_eq(strlen(order), 1);
	ck_assert_ptr_nonnull(reborn);
	loop_fd_del(&reborn->lfd);
	close(reborn->lfd.fd);
	watch_free(reborn == a ? b : a);
	free(reborn);
}
END_TEST

START_TEST(many_ready_at_once)
{
	enum { MANY = 200 }; /* more than one epoll_wait returns */
	struct watch *w[MANY];

	for (unsigned i = 0; i < MANY; i++) {
		w[i] = watch_new('x');
		watch_start(w[i], EPOLLIN);
		ck_assert_int_eq(write(w[i]->other, "1", 1), 1);
	}
	RUN_UNTIL(strlen(order) == sizeof(order) - 1);
	run_ms(5);
	for (unsigned i = 0; i < MANY; i++) {
		RUN_UNTIL(w[i]->calls);
		ck_assert_uint_eq(w[i]->calls, 1);
		watch_free(w[i]);
	}
}
END_TEST

START_TEST(bad_descriptors_are_errors)
{
	struct loop_fd lfd = {.fd = -1, .ready = on_ready};

	ck_assert_int_eq(loop_fd_add(loop, &lfd, EPOLLIN), -EBADF);
	ck_assert_ptr_null(lfd.loop);
	loop_fd_del(&lfd); /* not watched: nothing */
}
END_TEST

START_TEST(destroy_asserts_that_nothing_is_watched)
{
	watch_start(watch_new('a'), EPOLLIN);
	loop_destroy(loop);
}
END_TEST

/* ---- tasks ---- */

struct named {
	struct loop_task task; /* first */
	char name;
	struct named *defers, *posts;
	unsigned runs;
};

static void run_named(struct loop_task *task)
{
	struct named *n = (struct named *)task;

	n->runs++;
	note(n->name);
	if (n->defers)
		loop_defer(loop, &n->defers->task);
	if (n->posts)
		loop_post(loop, &n->posts->task);
}

/* Events, timers, posted tasks, deferred tasks; what a deferred task defers is of the same round. */
START_TEST(order_of_a_round)
{
	struct named e = {.task.run = run_named, .name = 'e'};
	struct named d = {.task.run = run_named, .name = 'd', .defers = &e};
	struct named q = {.task.run = run_named, .name = 'q'};
	struct named p = {.task.run = run_named, .name = 'p', .defers = &d, .posts = &q};

	loop_post(loop, &p.task);
	RUN_UNTIL(strlen(order) == 4);
	ck_assert_str_eq(order, "pdeq");
}
END_TEST

START_TEST(a_queued_task_runs_once)
{
	struct named a = {.task.run = run_named, .name = 'a'},
		     b = {.task.run = run_named, .name = 'b'};

	for (unsigned i = 0; i < 3; i++) {
		loop_post(loop, &a.task);
		loop_post(loop, &b.task);
		loop_defer(loop, &a.task); /* queued already, elsewhere */
	}
	run_ms(2);
	ck_assert_str_eq(order, "ab");
	loop_defer(loop, &b.task);
	loop_defer(loop, &a.task);
	loop_defer(loop, &b.task);
	run_ms(2);
	ck_assert_str_eq(order, "abba");
}
END_TEST

/* A task that queues itself again leaves timers and descriptors their turn. */
START_TEST(a_task_that_posts_itself)
{
	struct named a = {.task.run = run_named, .name = 'a'};
	struct watch *w = watch_new('w');

	a.posts = &a;
	loop_post(loop, &a.task);
	watch_start(w, EPOLLIN);
	ck_assert_int_eq(write(w->other, "1", 1), 1);
	RUN_UNTIL(w->calls && a.runs > 2);
	ck_assert_uint_eq(w->calls, 1);
	ck_assert_uint_gt(a.runs, 2);
	a.posts = NULL;
	run_ms(1);
	watch_free(w);
}
END_TEST

enum { THREADS = 4, PER_THREAD = 2000 };

struct numbered {
	struct loop_task task; /* first */
	unsigned thread, number;
};

static unsigned next_number[THREADS], tasks_run;

static void run_numbered(struct loop_task *task)
{
	struct numbered *n = (struct numbered *)task;

	ck_assert_ptr_eq(loop_self(), loop);
	ck_assert_uint_eq(n->number, next_number[n->thread]);
	next_number[n->thread]++;
	free(n);
	if (++tasks_run == THREADS * PER_THREAD)
		loop_stop(loop);
}

static void *poster(void *arg)
{
	for (unsigned i = 0; i < PER_THREAD; i++) {
		struct numbered *n = calloc(1, sizeof(*n));

		n->task.run = run_numbered;
		n->thread = (unsigned)(uintptr_t)arg;
		n->number = i;
		loop_post(loop, &n->task);
		if (i % 100 == 0)
			usleep(200); /* lets the loop fall asleep */
	}
	return NULL;
}

START_TEST(posts_from_many_threads)
{
	pthread_t threads[THREADS];

	for (unsigned i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, poster, (void *)(uintptr_t)i);
	loop_run(loop);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(tasks_run, THREADS * PER_THREAD);
}
END_TEST

/* ---- running ---- */

START_TEST(stop_may_come_first)
{
	ck_assert_ptr_null(loop_self());
	loop_stop(loop);
	loop_run(loop);
	ck_assert_ptr_null(loop_self());
	run_ms(1); /* and again */
}
END_TEST

static _Atomic bool started;

static void tell_started(struct loop_task *task)
{
	started = true;
}

static void *runner(void *arg)
{
	loop_run(loop);
	return NULL;
}

/* What was posted before stop is not lost. */
START_TEST(stop_and_post_wake_a_sleeping_loop)
{
	for (unsigned i = 0; i < 50; i++) {
		struct loop_task task = {.run = tell_started};
		pthread_t thread;

		started = false;
		pthread_create(&thread, NULL, runner, NULL);
		usleep(i % 5 * 300);
		loop_post(loop, &task);
		if (i % 2)
			while (!started)
				sched_yield();
		loop_stop(loop);
		pthread_join(thread, NULL);
		ck_assert(started);
	}
}
END_TEST

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Polling has a credit that an idle loop uses up at once. */
struct ending {
	struct loop_end end; /* first */
	struct loop_fd lfd;
	struct loop_timer timer;
	char name;
};

static void ending_run(struct loop_end *end)
{
	struct ending *ending = (struct ending *)end;

	loop_fd_del(&ending->lfd);
	loop_timer_cancel(&ending->timer);
	note(ending->name);
}

/* Who outlives the loop takes its watches off it when it ends, newest first. */
START_TEST(at_its_end_others_take_leave)
{
	struct ending endings[3] = {{.name = 'a'}, {.name = 'b'}, {.name = 'c'}};
	struct loop_conf conf = {0};
	struct loop *mortal;
	struct err err;

	ck_assert_int_eq(loop_create(&conf, &mortal, &err), 0);
	for (unsigned i = 0; i < 3; i++) {
		endings[i].end.run = ending_run;
		endings[i].lfd.fd = eventfd(0, EFD_CLOEXEC);
		ck_assert_int_eq(loop_fd_add(mortal, &endings[i].lfd, EPOLLIN), 0);
		loop_timer_set(mortal, &endings[i].timer, loop_now_ns());
		loop_end_add(mortal, &endings[i].end);
	}
	ending_run(&endings[1].end);
	loop_end_del(&endings[1].end);
	loop_end_del(&endings[1].end); /* does nothing */
	loop_destroy(mortal);
	ck_assert_str_eq(order, "bca");
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_ptr_null(endings[i].end.loop);
		close(endings[i].lfd.fd);
	}
}
END_TEST

START_TEST(an_idle_loop_sleeps)
{
	uint64_t before;
	struct named a = {.task.run = run_named, .name = 'a'};

	a.posts = &a;
	loop_post(loop, &a.task);
	run_ms(20); /* busy: earns credit */
	a.posts = NULL;
	run_ms(1);
	before = cpu_ns();
	run_ms(500);
	ck_assert_uint_lt(cpu_ns() - before, 100 * MS);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("loop");
	TCase *tc = tcase_create("loop"), *spin = tcase_create("spinning");
	SRunner *sr = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, timers_fire_in_order);
	tcase_add_test(tc, timers_do_not_fire_early);
	tcase_add_test(tc, a_timer_may_cancel_others);
	tcase_add_test(tc, a_timer_may_set_itself);
	tcase_add_test(tc, a_timer_that_is_always_due);
	tcase_add_test(tc, a_moved_timer_fires_once);
	tcase_add_test(tc, ready_is_level_triggered);
	tcase_add_test(tc, watched_events_can_change);
	tcase_add_test(tc, a_handler_may_delete_other_watches);
	tcase_add_test(tc, a_struct_that_is_used_again_gets_no_old_event);
	tcase_add_test(tc, many_ready_at_once);
	tcase_add_test(tc, bad_descriptors_are_errors);
	tcase_add_test_raise_signal(tc, destroy_asserts_that_nothing_is_watched, SIGABRT);
	tcase_add_test(tc, order_of_a_round);
	tcase_add_test(tc, a_queued_task_runs_once);
	tcase_add_test(tc, a_task_that_posts_itself);
	tcase_add_test(tc, at_its_end_others_take_leave);
	tcase_add_test(tc, posts_from_many_threads);
	tcase_add_test(tc, stop_may_come_first);
	tcase_add_test(tc, stop_and_post_wake_a_sleeping_loop);
	tcase_add_test(tc, an_idle_loop_sleeps);
	suite_add_tcase(suite, tc);
	tcase_set_timeout(spin, 60);
	tcase_add_checked_fixture(spin, setup_spin, teardown);
	tcase_add_test(spin, timers_fire_in_order);
	tcase_add_test(spin, timers_do_not_fire_early);
	tcase_add_test(spin, posts_from_many_threads);
	tcase_add_test(spin, stop_and_post_wake_a_sleeping_loop);
	tcase_add_test(spin, an_idle_loop_sleeps);
	suite_add_tcase(suite, spin);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
