/* SPDX-License-Identifier: Apache-2.0
 *
 * Managed regions, one promise at a time, on simulated time: reading and writing.  Many of these are mistakes
 * that systems before this one made: a chunk rewritten while it is pushed, a failed local write that later reads
 * as zeros, and more.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cache_int.h"
#include "tests/lib/stage.h"

/* ---- reading ---- */

START_TEST(absent_blocks_are_fetched_once)
{
	struct fault_counts counts;

	stage_begin(&(struct cache_rig_conf){.size = MIB});
	stage_fill_remote(0, MIB);
	stage_expect(stage.cr.store, 0, 256 * KIB, stage.out);
	stage_expect(stage.cr.store, 64 * KIB, 64 * KIB, stage.out + 64 * KIB);
	fault_count(stage.cr.remote, &counts);
	ck_assert_uint_eq(counts.submitted[STORE_READ], 1);
	ck_assert_uint_eq(stage_status().resident, 256 * KIB);
	stage_end();
}
END_TEST

/* Bytes of the chunk before must not show through where the region ends. */
START_TEST(a_region_may_end_anywhere)
{
	stage_begin(&(struct cache_rig_conf){.size = 300 * KIB + 17, .size_max = MIB});
	stage_fill_remote(0, 300 * KIB + 17);
	stage_expect(stage.cr.store, 0, 300 * KIB + 17, stage.out);
	stage_expect(stage.cr.store, 300 * KIB + 17, 100 * KIB, store_zeros);
	ck_assert_int_eq(stage_op(STORE_WRITE, 300 * KIB, 16, stage.out, 0), 0);
	ck_assert_int_eq(stage_flush(), 0);
	stage_expect_remote(300 * KIB, 16, stage.out);
	stage_expect_remote(300 * KIB + 17, 64 * KIB, store_zeros);
	ck_assert_uint_eq(cache_size(stage.cr.cache), 300 * KIB + 17);
	stage_end();
	stage_begin(&(struct cache_rig_conf){.size = 5, .size_max = 4096});
	stage_fill_remote(0, 5);
	stage_expect(stage.cr.store, 0, 5, stage.out);
	ck_assert_int_eq(stage_op(STORE_WRITE, 4, 1, stage.out, 0), 0);
	ck_assert_int_eq(stage_flush(), 0);
	stage_end();
}
END_TEST

START_TEST(a_read_joins_what_is_on_its_way)
{
	struct fault_counts counts;
	struct stage_req a, b;
	static uint8_t second[128 * KIB];

	stage_begin(&(struct cache_rig_conf){.size = MIB});
	stage_fill_remote(0, MIB);
	stage_hold(stage.cr.remote, STORE_READ);
	stage_start(&a, STORE_READ, 0, 256 * KIB, stage.in, 0);
	stage_start(&b, STORE_READ, 64 * KIB, 128 * KIB, second, 0);
	ck_assert(!a.sr.done && !b.sr.done);
	fault_release(stage.cr.remote, FAULT_FIRST_FIRST, 0);
	sim_run(&stage.sim, MS);
	ck_assert(a.sr.done && b.sr.done && a.sr.err == 0 && b.sr.err == 0);
	ck_assert_mem_eq(stage.in, stage.out, 256 * KIB);
	ck_assert_mem_eq(second, stage.out + 64 * KIB, 128 * KIB);
	fault_count(stage.cr.remote, &counts);
	ck_assert_uint_eq(counts.submitted[STORE_READ], 1);
	stage_end();
}
END_TEST

/* Runs of one request are fetched in one round trip. */
START_TEST(runs_are_fetched_together)
{
	struct stage_req read;

	stage_begin(&(struct cache_rig_conf){.size = MIB});
	stage_fill_remote(0, MIB);
	for (uint64_t off = 16 * KIB; off < 256 * KIB; off += 64 * KIB)
		stage_expect(stage.cr.store, off, 16 * KIB, stage.out + off);
	fault_add(stage.cr.remote, &(struct fault_rule){.kind = FAULT_DELAY, .delay_ns = 10 * MS});
	stage_start(&read, STORE_READ, 0, 256 * KIB, stage.in, 0);
	sim_run(&stage.sim, 10 * MS);
	ck_assert(read.sr.done);
	ck_assert_mem_eq(stage.in, stage.out, 256 * KIB);
	stage_end();
}
END_TEST

START_TEST(a_local_store_that_is_full_does_not_fail_reads)
{
	stage_begin(&(struct cache_rig_conf){.size = MIB});
	stage_fill_remote(0, MIB);
	stage_fault(stage.cr.local, STORE_WRITE, 0, -ENOSPC, false);
	stage_expect(stage.cr.store, 0, 64 * KIB, stage.out);
	stage_expect(stage.cr.store, 100, 5000, stage.out + 100);
	ck_assert_uint_eq(stage_status().resident, 0);
	stage_end();
}
END_TEST

START_TEST(a_failed_fetch_fails_and_marks_nothing)
{
	stage_begin(&(struct cache_rig_conf){.size = MIB});
	stage_fill_remote(0, MIB);
	stage_fault(stage.cr.remote, STORE_READ, 1, -EIO, false);
	ck_assert_int_eq(stage_op(STORE_READ, 0, 64 * KIB, stage.in, 0), -EIO);
	ck_assert_uint_eq(stage_status().resident, 0);
	stage_expect(stage.cr.store, 0, 64 * KIB, stage.out);
	stage_end();
}
END_TEST

START_TEST(a_write_beats_the_fetch_that_it_overtakes)
{
	struct stage_req read;

	stage_begin(&(struct cache_rig_conf){.size = MIB});
	stage_fill_remote(0, MIB);
	fault_add(stage.cr.remote,
	    &(struct fault_rule){.kind = FAULT_HOLD, .ops = FAULT_OP(STORE_READ), .after = true});
	stage_start(&read, STORE_READ, 0, 64 * KIB, stage.in, 0);
	ck_assert_int_eq(stage_op(STORE_WRITE, 8 * KIB, 8 * KIB, stage.out + 512 * KIB, 0), 0);
	ck_assert_int_eq(stage_op(STORE_ZERO, 32 * KIB, 4 * KIB, NULL, 0), 0);
	fault_release(stage.cr.remote, FAULT_FIRST_FIRST, 0);
	sim_run(&stage.sim, MS);
	ck_assert(read.sr.done);
	stage_expect(stage.cr.store, 8 * KIB, 8 * KIB, stage.out + 512 * KIB);
	stage_expect(stage.cr.store, 32 * KIB, 4 * KIB, store_zeros);
	stage_expect(stage.cr.store, 16 * KIB, 16 * KIB, stage.out + 16 * KIB);
	stage_end();
}
END_TEST

START_TEST(a_waiting_read_can_be_interrupted)
{
	struct stage_req a, b;

	stage_begin(&(struct cache_rig_conf){.size = MIB});
	stage_fill_remote(0, MIB);
	stage_hold(stage.cr.remote, STORE_READ);
	stage_start(&a, STORE_READ, 0, 64 * KIB, stage.in, 0);
	stage_start(&b, STORE_READ, 0, 64 * KIB, stage.in + MIB / 2, 0);
	store_interrupt(&b.sr.req);
	ck_assert(b.sr.done && b.sr.err == -EINTR && !a.sr.done);
	store_interrupt(&a.sr.req);
	ck_assert(a.sr.done && a.sr.err == -EINTR);
	stage_end();
}
END_TEST

/* ---- writing ---- */

START_TEST(a_failed_local_write_marks_nothing)
{
	stage_begin(&(struct cache_rig_conf){.size = MIB});
	stage_fill_remote(0, MIB);
	stage_fault(stage.cr.local, STORE_WRITE, 1, -EIO, false);
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 64 * KIB, stage.out + 512 * KIB, 0), -EIO);
	ck_assert_uint_eq(stage_status().dirty, 0);
	stage_expect(stage.cr.store, 0, 64 * KIB, stage.out); /* not zeros */
	ck_assert_int_eq(stage_flush(), 0);
	stage_expect_remote(0, 64 * KIB, stage.out);
	stage_end();
}
END_TEST

START_TEST(parts_of_an_absent_block_are_written_one_by_one)
{
	struct stage_req a, b;

	stage_begin(&(struct cache_rig_conf){.size = MIB});
	stage_fill_remote(0, MIB);
	stage_hold(stage.cr.remote, STORE_READ);
	stage_start(&a, STORE_WRITE, 100, 50, stage.out + 512 * KIB, 0);
	stage_start(&b, STORE_WRITE, 200, 50, stage.out + 513 * KIB, 0);
	ck_assert(!a.sr.done && !b.sr.done);
	fault_clear(stage.cr.remote);
	fault_release(stage.cr.remote, FAULT_FIRST_FIRST, 0);
	sim_run(&stage.sim, MS);
	ck_assert(a.sr.done && b.sr.done && a.sr.err == 0 && b.sr.err == 0);
	memcpy(stage.out + 100, stage.out + 512 * KIB, 50);
	memcpy(stage.out + 200, stage.out + 513 * KIB, 50);
	stage_expect(stage.cr.store, 0, 4 * KIB, stage.out);
	ck_assert_int_eq(stage_flush(), 0);
	stage_expect_remote(0, 4 * KIB, stage.out);
	stage_end();
}
END_TEST

/* The block can't be had in whole: nothing is written. */
START_TEST(a_part_of_a_block_needs_the_rest)
{
	stage_begin(&(struct cache_rig_conf){.size = MIB});
	stage_fill_remote(0, MIB);
	stage_fault(stage.cr.local, STORE_WRITE, 1, -ENOSPC, false);
	ck_assert_int_eq(stage_op(STORE_WRITE, 100, 50, stage.out + 512 * KIB, 0), -ENOSPC);
	stage_fault(stage.cr.remote, STORE_READ, 1, -EIO, false);
	ck_assert_int_eq(stage_op(STORE_WRITE, 100, 50, stage.out + 512 * KIB, 0), -EIO);
	stage_expect(stage.cr.store, 0, 4 * KIB, stage.out);
	ck_assert_uint_eq(stage_status().dirty, 0);
	stage_end();
}
END_TEST

/* A block is written whole, and, before that has ended, in part. */
START_TEST(a_part_of_a_block_waits_for_the_whole)
{
	struct stage_req a, b;

	stage_begin(&(struct cache_rig_conf){.size = MIB});
	stage_fill_remote(0, MIB);
	fault_add(stage.cr.local,
	    &(struct fault_rule){.kind = FAULT_HOLD, .ops = FAULT_OP(STORE_WRITE), .count = 1});
	stage_start(&a, STORE_WRITE, 0, 4 * KIB, stage.out + 512 * KIB, 0);
	stage_start(&b, STORE_WRITE, 100, 50, stage.out + 600 * KIB, 0);
	ck_assert(!a.sr.done && !b.sr.done);
	fault_release(stage.cr.local, FAULT_FIRST_FIRST, 0);
	sim_run(&stage.sim, MS);
	ck_assert(a.sr.done && b.sr.done && a.sr.err == 0 && b.sr.err == 0);
	memcpy(stage.out, stage.out + 512 * KIB, 4 * KIB);
	memcpy(stage.out + 100, stage.out + 600 * KIB, 50);
	stage_expect(stage.cr.store, 0, 4 * KIB, stage.out);
	stage_end();
}
END_TEST

/* What a local store that failed has left behind does not come up again. */
START_TEST(a_failed_cut_shows_no_old_bytes)
{
	stage_begin(&(struct cache_rig_conf){.size = MIB, .size_max = MIB});
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, MIB, stage.out, 0), 0);
	ck_assert_int_eq(stage_flush(), 0);
	stage_fault(stage.cr.local, STORE_ZERO, 1, -EIO, false);
	ck_assert_int_eq(stage_op(STORE_RESIZE, 4 * KIB, 0, NULL, 0), -EIO);
	ck_assert_int_eq(stage_op(STORE_RESIZE, MIB, 0, NULL, 0), 0);
	stage_expect(stage.cr.store, 0, 4 * KIB, stage.out);
	stage_expect(stage.cr.store, 4 * KIB, MIB - 4 * KIB, store_zeros);
	stage_end();
}
END_TEST

START_TEST(whole_blocks_are_written_without_a_fetch)
{
	stage_begin(&(struct cache_rig_conf){.size = MIB, .detached = true, .interval_ms = 1000});
	ck_assert_int_eq(stage_op(STORE_WRITE, 64 * KIB, 64 * KIB, stage.out, 0), 0);
	stage_expect(stage.cr.store, 64 * KIB, 64 * KIB, stage.out);
	cache_attach(stage.cr.cache, stage.cr.remote);
	ck_assert_int_eq(stage_flush(), 0);
	stage_expect_remote(64 * KIB, 64 * KIB, stage.out);
	stage_end();
}
END_TEST

START_TEST(a_block_rewritten_while_it_is_pushed_keeps_the_newer_bytes)
{
	struct fault_counts counts;

	stage_begin(&(struct cache_rig_conf){.size = MIB});
	stage_hold(stage.cr.remote, STORE_WRITE);
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 64 * KIB, stage.out, 0), 0);
	sim_run(&stage.sim, SECOND);
	ck_assert_uint_eq(fault_held(stage.cr.remote), 1);
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 64 * KIB, stage.out + 512 * KIB, 0), 0);
	sim_run(&stage.sim, SECOND);
	ck_assert_uint_eq(fault_held(stage.cr.remote), 1); /* the old one has to end first */
	stage_expect(stage.cr.store, 0, 64 * KIB, stage.out + 512 * KIB);
	fault_clear(stage.cr.remote);
	fault_release(stage.cr.remote, FAULT_FIRST_FIRST, 0);
	ck_assert_int_eq(stage_flush(), 0);
	stage_expect_remote(0, 64 * KIB, stage.out + 512 * KIB);
	fault_count(stage.cr.remote, &counts);
	ck_assert_uint_eq(counts.submitted[STORE_WRITE], 2);
	stage_end();
}
END_TEST

START_TEST(punches_are_pushed_as_punches)
{
	struct fault_counts counts;
	struct store_stat stat;

	stage_begin(&(struct cache_rig_conf){.size = 8 * MIB, .interval_ms = 10});
	stage_fill_remote(0, MIB);
	stage_fill_remote(MIB, MIB);
	ck_assert_int_eq(stage_op(STORE_ZERO, 4 * KIB, 2 * MIB - 8 * KIB, NULL, 0), 0);
	stage_expect(stage.cr.store, 8 * KIB, 512 * KIB, store_zeros);
	ck_assert_int_eq(stage_flush(), 0);
	fault_count(stage.cr.remote, &counts);
	ck_assert_uint_eq(counts.submitted[STORE_WRITE], 0);
	ck_assert_uint_eq(counts.submitted[STORE_ZERO], 1);
	ck_assert_int_eq(store_stat(stage.cr.memory[1], &stat), 0);
	ck_assert_uint_eq(stat.allocated, 8 * KIB);
	stage_end();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cache");
	TCase *tc = tcase_create("cache");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 20);
	tcase_add_test(tc, absent_blocks_are_fetched_once);
	tcase_add_test(tc, a_region_may_end_anywhere);
	tcase_add_test(tc, a_read_joins_what_is_on_its_way);
	tcase_add_test(tc, runs_are_fetched_together);
	tcase_add_test(tc, a_local_store_that_is_full_does_not_fail_reads);
	tcase_add_test(tc, a_failed_fetch_fails_and_marks_nothing);
	tcase_add_test(tc, a_write_beats_the_fetch_that_it_overtakes);
	tcase_add_test(tc, a_waiting_read_can_be_interrupted);
	tcase_add_test(tc, a_failed_local_write_marks_nothing);
	tcase_add_test(tc, parts_of_an_absent_block_are_written_one_by_one);
	tcase_add_test(tc, a_part_of_a_block_needs_the_rest);
	tcase_add_test(tc, a_part_of_a_block_waits_for_the_whole);
	tcase_add_test(tc, a_failed_cut_shows_no_old_bytes);
	tcase_add_test(tc, whole_blocks_are_written_without_a_fetch);
	tcase_add_test(tc, a_block_rewritten_while_it_is_pushed_keeps_the_newer_bytes);
	tcase_add_test(tc, punches_are_pushed_as_punches);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
