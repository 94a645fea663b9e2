/* SPDX-License-Identifier: Apache-2.0
 *
 * Managed regions, one promise at a time, on simulated time: what a flush promises, and what the remote has not
 * flushed.  Many of these are mistakes that systems before this one made: a sync that succeeds though every write
 * failed, a close that hangs after an error, and more.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cache_int.h"
#include "tests/lib/stage.h"

/* ---- flushing ---- */

START_TEST(a_flush_fails_if_the_remote_writes_failed)
{
	struct cache_handle *other;

	stage_begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 10});
	ck_assert_int_eq(
	    cache_handle_create(stage.cr.cache, POOL_READ | POOL_WRITE, &other, NULL), 0);
	stage_fault(stage.cr.remote, STORE_WRITE, 0, -EIO, false);
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 64 * KIB, stage.out, 0), 0);
	ck_assert_int_eq(stage_flush(), -EIO);
	ck_assert_int_eq(stage_flush(), -EIO); /* it still is not there */
	ck_assert_uint_eq(stage_status().dirty, 64 * KIB);
	fault_clear(stage.cr.remote);
	/* Each handle hears of it once. */
	ck_assert_int_eq(
	    sim_op(&stage.sim, &other->handle.store, STORE_FLUSH, 0, 0, NULL, 0), -EIO);
	ck_assert_int_eq(sim_op(&stage.sim, &other->handle.store, STORE_FLUSH, 0, 0, NULL, 0), 0);
	ck_assert_int_eq(stage_flush(), 0);
	stage_expect_remote(0, 64 * KIB, stage.out);
	store_destroy(&other->handle.store);
	stage_end();
}
END_TEST

/* The remote has done it, but its answer was lost: not done, as far as we know. */
START_TEST(a_lost_answer_is_a_failure)
{
	stage_begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 10});
	stage_fault(stage.cr.remote, STORE_WRITE, 1, -EIO, true);
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 64 * KIB, stage.out, 0), 0);
	sim_run(&stage.sim, 50 * MS);
	ck_assert_uint_eq(stage_status().dirty, 64 * KIB);
	ck_assert_int_eq(stage_flush(), -EIO);
	ck_assert_int_eq(stage_flush(), 0);
	stage_end();
}
END_TEST

/* A remote whose FLUSH fails may have lost what it had taken. */
START_TEST(what_was_pushed_is_pushed_again_when_the_flush_fails)
{
	struct fault_counts counts;

	stage_begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 100000});
	fault_add(stage.cr.remote, &(struct fault_rule){
				       .kind = FAULT_DELAY,
				       .ops = FAULT_OP(STORE_FLUSH),
				       .count = 1,
				       .delay_ns = MS,
				       .err = -EIO,
				   });
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 64 * KIB, stage.out, 0), 0);
	ck_assert_int_eq(stage_flush(), -EIO);
	/* The donor forgets. */
	ck_assert_int_eq(sim_op(&stage.sim, stage.cr.memory[1], STORE_ZERO, 0, MIB, NULL, 0), 0);
	ck_assert_int_eq(stage_flush(), 0);
	stage_expect_remote(0, 64 * KIB, stage.out);
	fault_count(stage.cr.remote, &counts);
	ck_assert_uint_eq(counts.submitted[STORE_WRITE], 2);
	stage_end();
}
END_TEST

START_TEST(a_stop_does_not_hang_after_errors)
{
	stage_begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 10, .pull = PULL_ALL});
	stage_fault(stage.cr.remote, STORE_WRITE, 0, -EIO, false);
	stage_fault(stage.cr.remote, STORE_READ, 0, -EIO, false);
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 64 * KIB, stage.out, 0), 0);
	sim_run(&stage.sim, SECOND);
	ck_assert_int_eq(stage_flush(), -EIO);
	stage_end();
}
END_TEST

static unsigned flushes_done;

static void count_flush(struct cache_flush *flush, int err)
{
	(void)flush;
	(void)err;
	flushes_done++;
}

/* In its round, or waiting for the next one; the round goes on. */
START_TEST(who_waits_for_a_flush_can_leave)
{
	struct cache_flush flushes[3];

	stage_begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 100000});
	fault_add(stage.cr.remote, &(struct fault_rule){
				       .kind = FAULT_DELAY,
				       .ops = FAULT_OP(STORE_WRITE),
				       .delay_ns = SECOND,
				   });
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 64 * KIB, stage.out, 0), 0);
	for (unsigned i = 0; i < 3; i++) {
		flushes[i] = (struct cache_flush){.durability = CACHE_REMOTE, .done = count_flush};
		cache_flush(stage.cr.cache, &flushes[i]);
		sim_run(&stage.sim, 10 * MS);
	}
	for (unsigned i = 0; i < 2; i++) {
		ck_assert(cache_flush_cancel(stage.cr.cache, &flushes[i]));
		ck_assert(!cache_flush_cancel(stage.cr.cache, &flushes[i]));
		memset(&flushes[i], 0xff, sizeof(flushes[i]));
	}
	sim_run(&stage.sim, 10 * SECOND);
	ck_assert_uint_eq(flushes_done, 1);
	ck_assert(!cache_flush_cancel(stage.cr.cache, &flushes[2]));
	ck_assert_uint_eq(stage_status().dirty, 0);
	stage_expect_remote(0, 64 * KIB, stage.out);
	stage_end();
}
END_TEST

START_TEST(fua_is_at_the_remote)
{
	stage_begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 100000});
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 64 * KIB, stage.out, STORE_FUA), 0);
	stage_expect_remote(0, 64 * KIB, stage.out);
	ck_assert_int_eq(stage_op(STORE_WRITE, 64 * KIB, 4 * KIB, stage.out, 0), 0);
	stage_expect_remote(64 * KIB, 4 * KIB, store_zeros);
	stage_fault(stage.cr.remote, STORE_WRITE, 1, -EIO, false);
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 64 * KIB, stage.out, STORE_FUA), -EIO);
	stage_end();
}
END_TEST

static unsigned commits;
static int commit_err;

static void commit(void *ctx, struct cache_call *call)
{
	commits++;
	call->done(call, commit_err);
}

START_TEST(local_durability_flushes_and_commits)
{
	struct fault_counts counts;

	stage_begin(&(struct cache_rig_conf){
	    .size = MIB, .interval_ms = 100000, .durability = CACHE_LOCAL, .commit = commit});
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 64 * KIB, stage.out, 0), 0);
	ck_assert_int_eq(stage_flush(), 0);
	fault_count(stage.cr.local, &counts);
	ck_assert_uint_eq(counts.submitted[STORE_FLUSH], 1);
	ck_assert_uint_eq(commits, 1);
	commit_err = -EIO;
	ck_assert_int_eq(stage_flush(), -EIO);
	commit_err = 0;
	stage_fault(stage.cr.local, STORE_FLUSH, 1, -EIO, false);
	ck_assert_int_eq(stage_flush(), -EIO);
	ck_assert_uint_eq(commits, 2); /* not after a flush that failed */
	cache_set_durability(stage.cr.cache, CACHE_NONE);
	ck_assert_int_eq(stage_flush(), 0);
	stage_end();
}
END_TEST

/* ---- until the remote has flushed ---- */

START_TEST(the_index_hears_of_dirty_until_it_is_flushed)
{
	struct cache_chunk chunks[8];

	stage_begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 100000});
	ck_assert_int_eq(stage_op(STORE_WRITE, 256 * KIB, 8 * KIB, stage.out, 0), 0);
	ck_assert_uint_eq(cache_take_changed(stage.cr.cache, chunks, 8), 1);
	ck_assert_uint_eq(chunks[0].idx, 1);
	ck_assert_uint_eq(chunks[0].resident, 3);
	ck_assert_uint_eq(chunks[0].dirty, 3);
	ck_assert_uint_eq(cache_take_changed(stage.cr.cache, chunks, 8), 0);
	cache_give_back(stage.cr.cache, chunks, 1);
	ck_assert_uint_eq(cache_take_changed(stage.cr.cache, chunks, 8), 1);
	stage_hold(stage.cr.remote, STORE_FLUSH);
	pusher_set_interval(stage.cr.pusher, 0, 0);
	sim_run(&stage.sim, SECOND);
	ck_assert_uint_eq(fault_held(stage.cr.remote), 1);
	ck_assert_uint_eq(stage_status().dirty, 0);
	ck_assert_uint_eq(cache_take_changed(stage.cr.cache, chunks, 8), 1);
	ck_assert_uint_eq(chunks[0].dirty, 3); /* pushed, but the donor may lose it */
	fault_clear(stage.cr.remote);
	fault_release(stage.cr.remote, FAULT_FIRST_FIRST, 0);
	sim_run(&stage.sim, SECOND);
	ck_assert_uint_eq(cache_take_changed(stage.cr.cache, chunks, 8), 1);
	ck_assert_uint_eq(chunks[0].resident, 3);
	ck_assert_uint_eq(chunks[0].dirty, 0);
	stage_end();
}
END_TEST

/* The donor may lose it, and then nobody would have it. */
START_TEST(what_the_remote_has_not_flushed_is_not_evicted)
{
	stage_begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 0});
	stage_hold(stage.cr.remote, STORE_FLUSH);
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 256 * KIB, stage.out, 0), 0);
	sim_run(&stage.sim, 10 * MS);
	ck_assert_uint_eq(stage_status().dirty, 0);
	ck_assert_uint_eq(cache_evict(stage.cr.cache, 0, MIB), 0);
	fault_clear(stage.cr.remote);
	fault_release(stage.cr.remote, FAULT_FIRST_FIRST, 0);
	sim_run(&stage.sim, SECOND);
	ck_assert_uint_eq(cache_evict(stage.cr.cache, 0, MIB), 256 * KIB);
	stage_end();
}
END_TEST

/* Pushes that the remote took after the FLUSH began, and one that it has not answered. */
START_TEST(a_failed_flush_takes_back_later_pushes)
{
	struct fault_counts counts;

	stage_begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 0, .no_puller = true});
	fault_add(stage.cr.remote, &(struct fault_rule){.kind = FAULT_DELAY,
				       .ops = FAULT_OP(STORE_FLUSH),
				       .count = 1,
				       .delay_ns = SECOND,
				       .err = -EIO});
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 4 * KIB, stage.out, 0), 0);
	sim_run(&stage.sim, 200 * MS); /* pushed, and its FLUSH is under way */
	ck_assert_int_eq(stage_op(STORE_WRITE, 256 * KIB, 4 * KIB, stage.out, 0), 0);
	sim_run(&stage.sim, 10 * MS);
	fault_add(stage.cr.remote,
	    &(struct fault_rule){
		.kind = FAULT_HOLD, .ops = FAULT_OP(STORE_WRITE), .after = true, .count = 1});
	ck_assert_int_eq(stage_op(STORE_WRITE, 512 * KIB, 4 * KIB, stage.out, 0), 0);
	sim_run(&stage.sim, 100 * MS);
	fault_count(stage.cr.remote, &counts);
	ck_assert_uint_eq(counts.submitted[STORE_FLUSH], 1);
	ck_assert_uint_eq(counts.submitted[STORE_WRITE], 3);
	/* The donor forgets all of it, and says so. */
	ck_assert_int_eq(sim_op(&stage.sim, stage.cr.memory[1], STORE_ZERO, 0, MIB, NULL, 0), 0);
	sim_run(&stage.sim, 2 * SECOND);
	fault_clear(stage.cr.remote);
	fault_release(stage.cr.remote, FAULT_FIRST_FIRST, 0);
	sim_run(&stage.sim, 20 * SECOND);
	stage_flush(); /* it may tell what went wrong before */
	ck_assert_int_eq(stage_flush(), 0);
	stage_expect_remote(0, 4 * KIB, stage.out);
	stage_expect_remote(256 * KIB, 4 * KIB, stage.out);
	stage_expect_remote(512 * KIB, 4 * KIB, stage.out);
	stage_end();
}
END_TEST

/* A punch that is pushed, then a write into it that the local store refuses: of what is around those bytes the remote
 * has nothing but the punch, which it may lose. */
START_TEST(what_is_around_a_failed_write_is_pushed_again)
{
	stage_begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 0});
	stage_fill_remote(0, 64 * KIB);
	ck_assert_int_eq(stage_op(STORE_ZERO, 0, 64 * KIB, NULL, 0), 0);
	sim_run(&stage.sim, 10 * MS);
	stage_expect_remote(0, 64 * KIB, store_zeros);
	stage_fault(stage.cr.local, STORE_WRITE, 1, -ENOSPC, false);
	ck_assert_int_eq(stage_op(STORE_WRITE, 5000, 100, stage.out, 0), -ENOSPC);
	/* The donor forgets, and says so. */
	stage_fill_remote(0, 64 * KIB);
	stage_fault(stage.cr.remote, STORE_FLUSH, 1, -EIO, false);
	ck_assert_int_eq(stage_flush(), -EIO);
	ck_assert_int_eq(stage_flush(), 0);
	stage_expect_remote(0, 5000, store_zeros);
	stage_expect_remote(5100, 64 * KIB - 5100, store_zeros);
	stage_end();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cache_flush");
	TCase *tc = tcase_create("cache_flush");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 20);
	tcase_add_test(tc, a_flush_fails_if_the_remote_writes_failed);
	tcase_add_test(tc, a_lost_answer_is_a_failure);
	tcase_add_test(tc, what_was_pushed_is_pushed_again_when_the_flush_fails);
	tcase_add_test(tc, a_stop_does_not_hang_after_errors);
	tcase_add_test(tc, who_waits_for_a_flush_can_leave);
	tcase_add_test(tc, fua_is_at_the_remote);
	tcase_add_test(tc, local_durability_flushes_and_commits);
	tcase_add_test(tc, the_index_hears_of_dirty_until_it_is_flushed);
	tcase_add_test(tc, what_the_remote_has_not_flushed_is_not_evicted);
	tcase_add_test(tc, a_failed_flush_takes_back_later_pushes);
	tcase_add_test(tc, what_is_around_a_failed_write_is_pushed_again);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
