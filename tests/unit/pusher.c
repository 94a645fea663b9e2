/* SPDX-License-Identifier: Apache-2.0
 *
 * The pusher, on simulated time: when what is dirty goes out, and in how many requests; and pull orders as
 * text.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cache_pump.h"
#include "core/pull_order.h"
#include "tests/lib/cache_rig.h"

#define KIB ((uint64_t)1024)
#define MIB (1024 * KIB)
#define MS ((uint64_t)1000000)
#define SECOND (1000 * MS)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)

static struct sim sim;
static struct cache_rig cr;
static uint8_t data[1 << 20];

static void begin(const struct cache_rig_conf *conf)
{
	memset(&cr, 0, sizeof(cr));
	memset(data, 0x5c, sizeof(data));
	sim_start(&sim);
	cache_rig_build(&cr, sim.loop, sim.workers, conf);
}

static void end(void)
{
	sim_end(&sim, &cr);
	cache_rig_free(&cr);
	sim_stop(&sim);
}

static void put(uint64_t off, uint64_t len)
{
	ck_assert_int_eq(sim_op(&sim, cr.store, STORE_WRITE, off, len, data, 0), 0);
}

static uint64_t pushes(void)
{
	struct fault_counts counts;

	fault_count(cr.remote, &counts);
	return counts.submitted[STORE_WRITE];
}

static struct cache_status status(void)
{
	struct cache_status ret;

	cache_status(cr.cache, &ret);
	return ret;
}

START_TEST(dirty_blocks_go_out_when_they_are_old_enough)
{
	begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 1000});
	put(0, 64 * KIB);
	sim_run(&sim, 900 * MS);
	ck_assert_uint_eq(pushes(), 0);
	ck_assert_uint_ge(status().oldest_dirty_ns, 700 * MS);
	sim_run(&sim, 300 * MS);
	ck_assert_uint_eq(pushes(), 1);
	ck_assert_uint_eq(status().dirty, 0);
	ck_assert_uint_eq(status().oldest_dirty_ns, 0);
	/* And, nobody having asked for it, the donor makes them stable. */
	ck_assert(cache_unflushed(cr.cache));
	sim_run(&sim, 3 * SECOND);
	ck_assert(!cache_unflushed(cr.cache));
	end();
}
END_TEST

START_TEST(neighbours_go_together)
{
	begin(&(struct cache_rig_conf){.size = 4 * MIB, .interval_ms = 1000});
	for (uint64_t off = 0; off < 2 * MIB; off += 4 * KIB)
		put(off, 4 * KIB);
	put(3 * MIB, 4 * KIB);
	sim_run(&sim, 5 * SECOND);
	ck_assert_uint_eq(pushes(), 3);
	end();
}
END_TEST

START_TEST(failures_are_tried_again_with_longer_and_longer_pauses)
{
	struct pusher_status ps;
	uint64_t tries;

	begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 10});
	fault_add(cr.remote,
	    &(struct fault_rule){.kind = FAULT_FAIL, .ops = FAULT_OP(STORE_WRITE), .err = -EIO});
	put(0, 64 * KIB);
	sim_run(&sim, 60 * SECOND);
	tries = pushes();
	ck_assert_uint_ge(tries, 8);
	ck_assert_uint_le(tries, 20);
	pusher_status(cr.pusher, &ps);
	ck_assert_int_eq(ps.error, -EIO);
	ck_assert_uint_gt(ps.retry_ns, 0);
	ck_assert_int_eq(status().error, -EIO);
	/* A flush does not wait for the pause. */
	fault_clear(cr.remote);
	sim_op(&sim, cr.store, STORE_FLUSH, 0, 0, NULL, 0);
	ck_assert_uint_eq(status().dirty, 0);
	ck_assert_int_eq(status().error, 0);
	end();
}
END_TEST

static bool written;

static void write_done(struct store_req *req, int err)
{
	written = err == 0;
}

static struct store_req write_req;

static void write_now(struct loop_task *task)
{
	write_req = (struct store_req){
	    .op = STORE_WRITE, .off = 512 * KIB, .len = 4 * KIB, .buf = data, .done = write_done};
	store_submit(cr.store, &write_req);
}

START_TEST(writers_wait_while_something_is_too_old)
{
	struct loop_task task = {.run = write_now};
	struct pusher_status ps;

	begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 100, .max_dirty_age_ms = 2000});
	fault_add(
	    cr.remote, &(struct fault_rule){.kind = FAULT_HOLD, .ops = FAULT_OP(STORE_WRITE)});
	put(0, 64 * KIB);
	sim_run(&sim, 5 * SECOND);
	pusher_status(cr.pusher, &ps);
	ck_assert(ps.holding);
	loop_defer(sim.loop, &task);
	sim_run(&sim, 5 * SECOND);
	ck_assert(!written);
	fault_clear(cr.remote);
	fault_release(cr.remote, FAULT_FIRST_FIRST, 0);
	sim_run(&sim, 200 * MS);
	ck_assert(written);
	end();
}
END_TEST

/* A donor that is away for days: the promise may be for a day (_i 1: pushes fail; 0: they have no answer). */
START_TEST(writers_wait_however_old_it_is)
{
	static const struct fault_rule away[] = {
	    {.kind = FAULT_HOLD, .ops = FAULT_OP(STORE_WRITE)},
	    {.kind = FAULT_FAIL, .ops = FAULT_OP(STORE_WRITE), .err = -EIO},
	};
	const uint64_t most = 2 * HOUR;
	struct pusher_status ps;
	uint64_t start;

	begin(&(struct cache_rig_conf){
	    .size = MIB, .interval_ms = 60000, .max_dirty_age_ms = most / MS});
	fault_add(cr.remote, &away[_i]);
	put(0, 64 * KIB);
	put(512 * KIB, 4 * KIB); /* no neighbour */
	start = loop_now_ns();
	for (unsigned minutes = 1; minutes < 20 * 24 * 60; minutes += minutes < 300 ? 1 : 60) {
		uint64_t age;

		sim_run(&sim, start + minutes * MINUTE - loop_now_ns());
		age = loop_now_ns() - start;
		pusher_status(cr.pusher, &ps);
		if (age <= most || age > most + MINUTE)
			ck_assert_int_eq(ps.holding, age > most);
		if (age < 6 * 24 * HOUR) {
			ck_assert_uint_le(status().oldest_dirty_ns, age + 20 * SECOND);
			ck_assert_uint_ge(status().oldest_dirty_ns + 20 * SECOND, age);
		} else {
			ck_assert_uint_ge(status().oldest_dirty_ns + MINUTE, 6 * 24 * HOUR);
		}
	}
	fault_clear(cr.remote);
	fault_release(cr.remote, FAULT_FIRST_FIRST, 0);
	sim_run(&sim, MINUTE);
	pusher_status(cr.pusher, &ps);
	ck_assert(!ps.holding);
	ck_assert_uint_eq(status().dirty, 0);
	/* What is dirty next is new. */
	sim_run(&sim, HOUR);
	for (unsigned i = 0; i < 2; i++) {
		put(i * 512 * KIB, 4 * KIB);
		sim_run(&sim, SECOND);
		ck_assert_uint_le(status().oldest_dirty_ns, 3 * SECOND);
		ck_assert_uint_eq(status().dirty, (i + 1) * 4 * KIB);
	}
	end();
}
END_TEST

/* 256 MiB to "flush returned", over a round trip of 10 ms. */
START_TEST(a_flush_uses_the_whole_window)
{
	uint64_t start;

	begin(&(struct cache_rig_conf){.size = 256 * MIB, .interval_ms = 1000});
	fault_add(cr.remote,
	    &(struct fault_rule){.kind = FAULT_DELAY, .after = true, .delay_ns = 10 * MS});
	start = loop_now_ns();
	for (uint64_t off = 0; off < 256 * MIB; off += MIB)
		put(off, MIB);
	ck_assert_int_eq(sim_op(&sim, cr.store, STORE_FLUSH, 0, 0, NULL, 0), 0);
	ck_assert_uint_le(
	    loop_now_ns() - start, 320 * MS + 256 * MS); /* 0.8 GB/s, and sim_op's steps */
	end();
}
END_TEST

/* The same for blocks that have no neighbours: 8192 requests of 4 KiB. */
START_TEST(scattered_blocks_use_the_window_too)
{
	uint64_t start;

	begin(&(struct cache_rig_conf){.size = 256 * MIB, .interval_ms = 1000});
	fault_add(cr.remote,
	    &(struct fault_rule){.kind = FAULT_DELAY, .after = true, .delay_ns = 10 * MS});
	for (uint64_t off = 0; off < 256 * MIB; off += 32 * KIB)
		put(off, 4 * KIB);
	start = loop_now_ns();
	ck_assert_int_eq(sim_op(&sim, cr.store, STORE_FLUSH, 0, 0, NULL, 0), 0);
	ck_assert_uint_le(loop_now_ns() - start, 400 * MS);
	ck_assert_uint_eq(pushes(), 8192);
	end();
}
END_TEST

/* A donor that has forgotten the region answers each push at once. */
START_TEST(a_flush_ends_if_pushes_fail_at_once)
{
	begin(&(struct cache_rig_conf){.size = 16 * MIB, .interval_ms = 60000});
	fault_add(cr.remote,
	    &(struct fault_rule){.kind = FAULT_FAIL, .ops = FAULT_OP(STORE_WRITE), .err = -ESTALE});
	for (uint64_t off = 0; off < 16 * MIB; off += MIB)
		put(off, 4 * KIB);
	ck_assert_int_eq(sim_op(&sim, cr.store, STORE_FLUSH, 0, 0, NULL, 0), -ESTALE);
	ck_assert_uint_eq(status().dirty, 64 * KIB);
	fault_clear(cr.remote);
	sim_op(&sim, cr.store, STORE_FLUSH, 0, 0, NULL, 0);
	ck_assert_uint_eq(status().dirty, 0);
	end();
}
END_TEST

/* The donor was full, and has room again: the first push that succeeds is not the last one for an hour. */
START_TEST(what_has_failed_is_owed)
{
	begin(&(struct cache_rig_conf){.size = 16 * MIB, .interval_ms = HOUR / MS});
	fault_add(cr.remote,
	    &(struct fault_rule){.kind = FAULT_FAIL, .ops = FAULT_OP(STORE_WRITE), .err = -ENOSPC});
	for (uint64_t off = 0; off < 16 * MIB; off += MIB)
		put(off, 64 * KIB);
	ck_assert_int_eq(sim_op(&sim, cr.store, STORE_FLUSH, 0, 0, NULL, 0), -ENOSPC);
	ck_assert_uint_eq(status().dirty, MIB);
	fault_clear(cr.remote);
	sim_run(&sim, 20 * SECOND);
	ck_assert_uint_eq(status().dirty, 0);
	/* All has been clean: the interval counts again. */
	put(0, 64 * KIB);
	sim_run(&sim, MINUTE);
	ck_assert_uint_eq(status().dirty, 64 * KIB);
	end();
}
END_TEST

/* ---- pull orders ---- */

START_TEST(orders_are_read_and_written)
{
	struct pull_range ranges[4];
	unsigned count;
	char text[128];

	ck_assert_int_eq(pull_order_parse("0-64M:10,960M-:9,4096-8K", ranges, 4, &count, NULL), 0);
	ck_assert_uint_eq(count, 3);
	ck_assert_uint_eq(ranges[0].len, 64 * MIB);
	ck_assert_int_eq(ranges[0].prio, 10);
	ck_assert_uint_eq(ranges[1].off, 960 * MIB);
	ck_assert_uint_eq(ranges[1].len, UINT64_MAX - 960 * MIB);
	ck_assert_uint_eq(ranges[2].off, 4096);
	ck_assert_int_eq(ranges[2].prio, 0);
	ck_assert_uint_eq(pull_order_format(ranges, 3, text, sizeof(text)), 22);
	ck_assert_str_eq(text, "0-64M:10,960M-:9,4K-8K");
	ck_assert_int_eq(pull_order_parse("", ranges, 4, &count, NULL), 0);
	ck_assert_uint_eq(count, 0);
	ck_assert_int_eq(pull_order_parse("0-1,1-2,2-3", ranges, 2, &count, NULL), -E2BIG);
	ck_assert_uint_eq(pull_order_format(ranges, 2, text, 4), 7);
	ck_assert_str_eq(text, "0-1");
}
END_TEST

START_TEST(bad_orders_are_refused)
{
	static const char *const bad[] = {"x", "1", "-", "-5", "5-5", "9-1", "0-1:", "0-1:x",
	    "0-1:1001", "0-1,", ",", "0-1,,1-2", "0-1:1:2", "1Q-2", " 0-1"};
	struct pull_range ranges[4];
	unsigned count;

	ck_assert_int_eq(pull_order_parse(bad[_i], ranges, 4, &count, NULL), -EINVAL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("pusher");
	TCase *tc = tcase_create("pusher");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, dirty_blocks_go_out_when_they_are_old_enough);
	tcase_add_test(tc, neighbours_go_together);
	tcase_add_test(tc, failures_are_tried_again_with_longer_and_longer_pauses);
	tcase_add_test(tc, writers_wait_while_something_is_too_old);
	tcase_add_loop_test(tc, writers_wait_however_old_it_is, 0, 2);
	tcase_add_test(tc, a_flush_uses_the_whole_window);
	tcase_add_test(tc, scattered_blocks_use_the_window_too);
	tcase_add_test(tc, a_flush_ends_if_pushes_fail_at_once);
	tcase_add_test(tc, what_has_failed_is_owed);
	tcase_add_test(tc, orders_are_read_and_written);
	tcase_add_loop_test(tc, bad_orders_are_refused, 0, 15);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
