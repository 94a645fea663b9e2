/* SPDX-License-Identifier: Apache-2.0
 *
 * How much to have in flight: near bandwidth × round trip, whether answers come one by one or in bursts, soon after
 * the start, and again when the path changes.
 *
 * The path is simulated: it has a round trip, a bandwidth, and gives answers when a burst of them is there.
 */
#include <stdlib.h>

#include "core/window.h"
#include "tests/lib/rig.h"

enum { QUEUE = 4096 };

#define MS ((uint64_t)1000000)
#define MIB ((uint64_t)1 << 20)

struct path {
	struct window window;
	uint64_t now_ns, rtt_ns, rate; /* bytes per second */
	uint64_t burst_ns; /* answers are given at multiples of this */
	uint64_t busy_ns; /* the line is busy until then */
	uint64_t delivered;
	uint64_t others; /* bytes that are sent for each request that ends, without asking */
	struct request {
		struct window_mark mark;
		uint64_t at_ns; /* when its answer is there */
	} queue[QUEUE];
	unsigned first, count;
};

static void send_one(struct path *path, uint64_t bytes)
{
	struct request *req = &path->queue[(path->first + path->count++) % QUEUE];
	uint64_t arrives = path->now_ns + path->rtt_ns;

	rig_check(path->count < QUEUE, "too much is in flight");
	if (path->busy_ns < arrives)
		path->busy_ns = arrives;
	path->busy_ns += bytes * 1000000000 / path->rate;
	req->at_ns = (path->busy_ns + path->burst_ns - 1) / path->burst_ns * path->burst_ns;
	window_sent(&path->window, &req->mark, bytes, path->now_ns);
}

static void send_all(struct path *path)
{
	uint64_t unit = window_unit(&path->window);

	while (window_open(&path->window, unit))
		send_one(path, unit);
}

/* Keeps the window full for that long; how many bytes were delivered. */
static uint64_t run(struct path *path, uint64_t ns)
{
	uint64_t end = path->now_ns + ns, before = path->delivered;

	send_all(path);
	while (path->queue[path->first].at_ns <= end) {
		path->now_ns = path->queue[path->first].at_ns;
		/* All that is there, then the next requests. */
		while (path->count && path->queue[path->first].at_ns <= path->now_ns) {
			struct request *req = &path->queue[path->first];

			path->first = (path->first + 1) % QUEUE;
			path->count--;
			path->delivered += req->mark.bytes;
			window_answered(&path->window, &req->mark, true, path->now_ns);
			if (path->others && path->count < QUEUE / 8)
				send_one(path, path->others);
		}
		send_all(path);
	}
	path->now_ns = end;
	return path->delivered - before;
}

static void begin(struct path *path, uint64_t rtt_ns, uint64_t rate, uint64_t burst_ns)
{
	*path = (struct path){
	    .now_ns = 12345678900, .rtt_ns = rtt_ns, .rate = rate, .burst_ns = burst_ns};
	window_init(&path->window, 64 * MIB);
}

static void is_near_product(const struct path *path)
{
	/* The shortest answer waits for its burst. */
	double product = (double)path->rate * (double)(path->rtt_ns + path->burst_ns / 2) / 1e9;
	double slack = (double)path->rate * 0.003 + 512 * 1024;

	ck_assert_msg((double)path->window.size >= product,
	    "%.1f MiB are too few: the path has room for %.1f", (double)path->window.size / MIB,
	    product / MIB);
	ck_assert_msg((double)path->window.size <= 1.5 * product + slack,
	    "%.1f MiB are too many: the path has room for %.1f", (double)path->window.size / MIB,
	    product / MIB);
}

static const struct {
	uint64_t rtt_ns, rate, burst_ns;
} paths[] = {
    {MS, 1000000000, 1},
    {MS, 1000000000, MS / 2},
    {10 * MS, 1000000000, 1},
    {10 * MS, 1000000000, 3 * MS},
    {10 * MS, 1000000000, 5 * MS},
    {25 * MS, 500000000, 10 * MS},
    {50 * MS, 12500000, 5 * MS},
};

START_TEST(near_bandwidth_times_round_trip)
{
	struct path path;

	begin(&path, paths[_i].rtt_ns, paths[_i].rate, paths[_i].burst_ns);
	run(&path, 1000 * MS);
	is_near_product(&path);
	/* And the path is used. */
	ck_assert_uint_ge(run(&path, 500 * MS), paths[_i].rate / 2 * 85 / 100);
	is_near_product(&path);
}
END_TEST

/* A dozen round trips after the start most of the path is in use. */
START_TEST(starts_soon)
{
	struct path path;

	begin(&path, paths[_i].rtt_ns, paths[_i].rate, paths[_i].burst_ns);
	run(&path, 12 * paths[_i].rtt_ns);
	ck_assert_uint_ge(run(&path, 200 * MS), paths[_i].rate / 5 * 70 / 100);
}
END_TEST

START_TEST(follows_the_path)
{
	struct path path;

	begin(&path, 10 * MS, 1000000000, 2 * MS);
	run(&path, 500 * MS);
	path.rate /= 4;
	run(&path, 4000 * MS);
	is_near_product(&path);
	path.rate *= 4;
	run(&path, 2000 * MS);
	is_near_product(&path);
}
END_TEST

/* However long it is kept full, it does not follow the queue that it makes itself. */
START_TEST(stays_near_the_product)
{
	struct path path;

	begin(&path, paths[_i].rtt_ns, paths[_i].rate, paths[_i].burst_ns);
	for (unsigned i = 0; i < 60; i++) {
		ck_assert_uint_ge(run(&path, 2000 * MS), paths[_i].rate / 100 * 2 * 85);
		is_near_product(&path);
	}
}
END_TEST

/* Round trips that become longer are believed; that they are shorter shows when the queue was drained. */
START_TEST(follows_the_distance)
{
	struct path path;

	begin(&path, 10 * MS, 500000000, 2 * MS);
	run(&path, 20000 * MS);
	path.rtt_ns *= 4;
	run(&path, 20000 * MS);
	is_near_product(&path);
	path.rtt_ns /= 4;
	run(&path, 15000 * MS);
	is_near_product(&path);
}
END_TEST

/* Twice everything stands still for a while: what was slow only then is forgotten. */
START_TEST(forgets_stalls)
{
	struct path path;

	begin(&path, 10 * MS, 8000000, MS);
	run(&path, 3000 * MS);
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned j = 0; j < path.count; j++)
			path.queue[(path.first + j) % QUEUE].at_ns += 7000 * MS;
		path.busy_ns += 7000 * MS;
		run(&path, 7100 * MS);
	}
	run(&path, 30000 * MS);
	for (unsigned i = 0; i < 20; i++) {
		run(&path, 1000 * MS);
		is_near_product(&path);
	}
}
END_TEST

/* Others send all the time, and do not ask: the window is not closed for long. */
START_TEST(never_alone)
{
	struct path path;
	uint64_t closed = 0;

	begin(&path, 10 * MS, 500000000, MS);
	path.others = 64 * 1024;
	for (unsigned i = 0; i < 60000; i++) {
		run(&path, MS);
		closed += path.window.probe != PROBE_NONE;
	}
	ck_assert_uint_gt(closed, 0);
	ck_assert_uint_le(closed, 60000 / 20);
}
END_TEST

/* A round trip below what can be measured: the smallest window, and no stall. */
START_TEST(no_distance)
{
	struct path path;

	begin(&path, 30000, 4000000000, 1);
	run(&path, 5 * MS);
	ck_assert_uint_ge(run(&path, 200 * MS), (uint64_t)4000000000 / 5 * 85 / 100);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("window");
	TCase *tcase = tcase_create("window");
	int count = sizeof(paths) / sizeof(paths[0]), failed;
	SRunner *runner;

	tcase_add_loop_test(tcase, near_bandwidth_times_round_trip, 0, count);
	tcase_add_loop_test(tcase, starts_soon, 0, count);
	tcase_add_test(tcase, follows_the_path);
	tcase_add_loop_test(tcase, stays_near_the_product, 0, count);
	tcase_add_test(tcase, follows_the_distance);
	tcase_add_test(tcase, forgets_stalls);
	tcase_add_test(tcase, never_alone);
	tcase_add_test(tcase, no_distance);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
