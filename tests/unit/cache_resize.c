/* SPDX-License-Identifier: Apache-2.0
 *
 * RESIZE of a cache whose remote does it, and whose answer is lost, or whose local store can't be cut: what is read
 * afterwards is one thing, whether it comes from here or from there, and nothing is forgotten that the remote may lose.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cache_pump.h"
#include "tests/lib/stage.h"

static uint8_t reads_byte(uint64_t off)
{
	uint8_t byte = 0xee;

	ck_assert_int_eq(stage_op(STORE_READ, off, 1, &byte, 0), 0);
	return byte;
}

/* A byte beyond the cut, and one in the block that it goes through. */
static const uint64_t places[] = {600 * KIB, 100 * KIB + 77};

static void two_reads_agree(void)
{
	uint8_t before[2];

	for (unsigned i = 0; i < 2; i++)
		before[i] = reads_byte(places[i]);
	cache_evict(stage.cr.cache, 0, MIB);
	for (unsigned i = 0; i < 2; i++)
		ck_assert_uint_eq(reads_byte(places[i]), before[i]);
}

START_TEST(after_a_lost_answer_reads_agree)
{
	stage_begin(&(struct cache_rig_conf){.size = MIB, .size_max = MIB});
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, MIB, stage.out, 0), 0);
	ck_assert_int_eq(stage_flush(), 0);
	stage_fault(stage.cr.remote, STORE_RESIZE, 1, -EIO, true);
	ck_assert_int_eq(stage_op(STORE_RESIZE, 100 * KIB + 5, 0, NULL, 0), -EIO);
	two_reads_agree();
	stage_expect(stage.cr.store, 0, 100 * KIB + 5, stage.out);
	stage_end();
}
END_TEST

/* It may lose that yet, and then it is pushed again: it is not forgotten. */
START_TEST(what_is_not_flushed_is_pushed_again)
{
	stage_begin(&(struct cache_rig_conf){.size = MIB, .size_max = MIB});
	stage_hold(stage.cr.remote, STORE_FLUSH);
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, MIB, stage.out, 0), 0);
	sim_run(&stage.sim, 100 * MS);
	ck_assert_uint_eq(stage_status().dirty, 0);
	ck_assert(cache_unflushed(stage.cr.cache));
	stage_fault(stage.cr.remote, STORE_RESIZE, 1, -EIO, true);
	ck_assert_int_eq(stage_op(STORE_RESIZE, 100 * KIB + 5, 0, NULL, 0), -EIO);
	fault_clear(stage.cr.remote);
	fault_release(stage.cr.remote, FAULT_FIRST_FIRST, 0);
	ck_assert_int_eq(stage_flush(), 0);
	two_reads_agree();
	stage_expect(stage.cr.store, 0, MIB, stage.out);
	stage_expect_remote(0, MIB, stage.out);
	stage_end();
}
END_TEST

/* Of the block that the cut goes through, too.  to: shorter, or longer. */
static void cut_fails_here(uint64_t size, uint64_t to)
{
	uint64_t left = size < to ? size : to;

	stage_begin(&(struct cache_rig_conf){.size = size, .size_max = MIB});
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, size, stage.out, 0), 0);
	sim_run(&stage.sim, 10 * MS);
	ck_assert_uint_eq(stage_status().dirty, 0);
	ck_assert(cache_unflushed(stage.cr.cache));
	stage_fault(stage.cr.local, STORE_ZERO, 1, -EIO, false);
	ck_assert_int_eq(stage_op(STORE_RESIZE, to, 0, NULL, 0), -EIO);
	/* The donor forgets, and says so. */
	ck_assert_int_eq(sim_op(&stage.sim, stage.cr.memory[1], STORE_ZERO, 0, MIB, NULL, 0), 0);
	stage_fault(stage.cr.remote, STORE_FLUSH, 1, -EIO, false);
	ck_assert_int_eq(stage_flush(), -EIO);
	ck_assert_int_eq(stage_flush(), 0);
	stage_expect(stage.cr.store, 0, left, stage.out);
	stage_expect_remote(0, left, stage.out);
	stage_end();
}

START_TEST(a_cut_that_fails_here_loses_nothing)
{
	cut_fails_here(MIB, 100 * KIB + 5);
	cut_fails_here(100 * KIB + 5, 200 * KIB + 7);
}
END_TEST

/* What has failed has left something beyond the end: it may be there when the region grows, but then here and at the
 * remote. */
static void grows_with_reads_that_agree(enum store_op op, uint64_t off, uint64_t len)
{
	ck_assert_int_eq(stage_flush(), 0);
	ck_assert_int_eq(stage_op(op, off, len, stage.out, 0), 0);
	ck_assert_int_eq(stage_flush(), 0);
	two_reads_agree();
	stage_expect(stage.cr.store, 0, 100 * KIB + 5, stage.out);
	stage_end();
}

static void cut_and_grow(enum store_op op, uint64_t off, uint64_t len)
{
	stage_begin(&(struct cache_rig_conf){.size = MIB, .size_max = MIB, .interval_ms = 100000});
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, MIB, stage.out, 0), 0);
	stage_fault(stage.cr.local, STORE_ZERO, 1, -EIO, false);
	ck_assert_int_eq(stage_op(STORE_RESIZE, 100 * KIB + 5, 0, NULL, 0), -EIO);
	grows_with_reads_that_agree(op, off, len);
}

static void write_and_grow(enum store_op op, uint64_t off, uint64_t len)
{
	uint64_t size = 100 * KIB + 5;

	stage_begin(&(struct cache_rig_conf){.size = size, .size_max = MIB, .interval_ms = 100000});
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, size, stage.out, 0), 0);
	stage_fault(stage.cr.local, STORE_WRITE, 1, -ENOSPC, true);
	ck_assert_int_eq(stage_op(STORE_WRITE, size, 200, stage.out, 0), -ENOSPC);
	grows_with_reads_that_agree(op, off, len);
}

START_TEST(after_a_cut_that_fails_here_reads_agree)
{
	cut_and_grow(STORE_RESIZE, MIB, 0);
	cut_and_grow(STORE_WRITE, MIB - 1, 1);
}
END_TEST

START_TEST(after_a_write_that_fails_beyond_the_end_reads_agree)
{
	write_and_grow(STORE_RESIZE, MIB, 0);
	write_and_grow(STORE_WRITE, MIB - 1, 1);
}
END_TEST

START_TEST(a_refusal_changes_nothing)
{
	stage_begin(&(struct cache_rig_conf){.size = MIB, .size_max = MIB});
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, MIB, stage.out, 0), 0);
	ck_assert_int_eq(stage_flush(), 0);
	stage_fault(stage.cr.remote, STORE_RESIZE, 1, -EBUSY, false);
	ck_assert_int_eq(stage_op(STORE_RESIZE, 100 * KIB + 5, 0, NULL, 0), -EBUSY);
	ck_assert_uint_eq(stage_status().resident, MIB);
	stage_expect(stage.cr.store, 0, MIB, stage.out);
	stage_end();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cache_resize");
	TCase *tcase = tcase_create("cache_resize");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, after_a_lost_answer_reads_agree);
	tcase_add_test(tcase, what_is_not_flushed_is_pushed_again);
	tcase_add_test(tcase, a_cut_that_fails_here_loses_nothing);
	tcase_add_test(tcase, after_a_cut_that_fails_here_reads_agree);
	tcase_add_test(tcase, after_a_write_that_fails_beyond_the_end_reads_agree);
	tcase_add_test(tcase, a_refusal_changes_nothing);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
