/* SPDX-License-Identifier: Apache-2.0
 *
 * A cache and its index: what waits for a commit, one promise at a time, on simulated time.  The index is the
 * test: it takes, looks and stores when it likes.  (tests/contract/cache_crash_full.c has a real one.)
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cache_int.h"
#include "tests/lib/stage.h"

/* What the index calls dirty, and what waits for its commits. */
static struct cache_call *commit_call;
static unsigned commits_begun;

/* A commit that the test ends. */
static void slow_commit(void *ctx, struct cache_call *call)
{
	ck_assert(!commit_call);
	commit_call = call;
	commits_begun++;
}

/* Takes all, stores it, and ends the commit. */
static void end_commit(int err)
{
	struct cache_chunk chunks[64];
	struct cache_call *call = commit_call;
	unsigned n = cache_take_changed(stage.cr.cache, chunks, 64);

	ck_assert(call);
	for (unsigned i = 0; i < n; i++) {
		uint64_t resident = chunks[i].resident;

		cache_look(stage.cr.cache, &chunks[i]);
		chunks[i].resident &= resident;
		chunks[i].dirty &= resident;
	}
	if (err)
		cache_give_back(stage.cr.cache, chunks, n);
	else
		cache_stored(stage.cr.cache, chunks, n);
	commit_call = NULL;
	call->done(call, err);
	sim_run(&stage.sim, MS);
	cache_audit(stage.cr.cache);
}

static void begin_indexed(uint64_t interval_ms)
{
	commits_begun = 0;
	commit_call = NULL;
	stage_begin(&(struct cache_rig_conf){
	    .size = 4 * MIB, .interval_ms = interval_ms, .commit = slow_commit, .no_puller = true});
}

static void end_commits(void)
{
	while (commit_call)
		end_commit(0);
}

static void end_indexed(void)
{
	end_commits();
	stage_end();
}

START_TEST(bytes_are_pushed_after_a_commit)
{
	struct fault_counts counts;
	struct stage_req fl;

	begin_indexed(100000);
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 64 * KIB, stage.out, 0), 0);
	stage_start(&fl, STORE_FLUSH, 0, 0, NULL, 0);
	sim_run(&stage.sim, SECOND);
	ck_assert_uint_eq(commits_begun, 1);
	fault_count(stage.cr.remote, &counts);
	ck_assert_uint_eq(counts.submitted[STORE_WRITE], 0);
	ck_assert(!fl.sr.done);
	/* Newer bytes meanwhile are not those that this commit was for. */
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 4 * KIB, stage.out + MIB / 2, 0), 0);
	end_commit(0);
	stage_expect_remote(0, 64 * KIB, stage.out);
	ck_assert(fl.sr.done && fl.sr.err == 0);
	stage_start(&fl, STORE_FLUSH, 0, 0, NULL, 0);
	ck_assert_uint_eq(commits_begun, 2);
	end_commit(0);
	ck_assert(fl.sr.done && fl.sr.err == 0);
	stage_expect_remote(0, 4 * KIB, stage.out + MIB / 2);
	stage_expect_remote(4 * KIB, 60 * KIB, stage.out + 4 * KIB);
	end_indexed();
}
END_TEST

/* A push that is ready when a commit is under way waits for the next one. */
START_TEST(a_commit_under_way_is_not_enough)
{
	begin_indexed(0);
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 4 * KIB, stage.out, 0), 0);
	sim_run(&stage.sim, MS);
	ck_assert_uint_eq(commits_begun, 1);
	ck_assert_int_eq(stage_op(STORE_WRITE, MIB, 4 * KIB, stage.out, 0), 0);
	sim_run(&stage.sim, MS);
	ck_assert_uint_eq(commits_begun, 1);
	end_commit(0);
	stage_expect_remote(0, 4 * KIB, stage.out);
	stage_expect_remote(MIB, 4 * KIB, store_zeros);
	ck_assert_uint_eq(commits_begun, 2);
	end_commit(0);
	stage_expect_remote(MIB, 4 * KIB, stage.out);
	end_indexed();
}
END_TEST

START_TEST(a_failed_commit_fails_the_push)
{
	struct stage_req fl;

	begin_indexed(100000);
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 64 * KIB, stage.out, 0), 0);
	stage_start(&fl, STORE_FLUSH, 0, 0, NULL, 0);
	end_commit(-ENOSPC);
	ck_assert(fl.sr.done && fl.sr.err == -ENOSPC);
	stage_expect_remote(0, 64 * KIB, store_zeros);
	ck_assert_uint_eq(stage_status().dirty, 64 * KIB);
	stage_start(&fl, STORE_FLUSH, 0, 0, NULL, 0);
	end_commit(0);
	ck_assert(fl.sr.done && fl.sr.err == 0);
	stage_expect_remote(0, 64 * KIB, stage.out);
	end_indexed();
}
END_TEST

START_TEST(what_the_index_calls_dirty_is_not_evicted)
{
	struct cache_chunk chunk;
	struct stage_req fl;

	begin_indexed(100000);
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 256 * KIB, stage.out, 0), 0);
	stage_start(&fl, STORE_FLUSH, 0, 0, NULL, 0);
	end_commit(0);
	ck_assert(fl.sr.done && fl.sr.err == 0);
	ck_assert_uint_eq(stage_status().dirty, 0);
	/* It is clean, and its row is not: it stays, and a commit is asked for. */
	ck_assert_uint_eq(cache_evict(stage.cr.cache, 0, MIB), 0);
	sim_run(&stage.sim, MS);
	ck_assert_uint_eq(commits_begun, 2);
	/* Nor while a commit is under way that has taken it. */
	ck_assert_uint_eq(cache_take_changed(stage.cr.cache, &chunk, 1), 1);
	ck_assert_uint_eq(chunk.dirty, 0);
	ck_assert_uint_eq(cache_evict(stage.cr.cache, 0, MIB), 0);
	cache_stored(stage.cr.cache, &chunk, 1);
	ck_assert_uint_eq(cache_evict(stage.cr.cache, 0, MIB), 256 * KIB);
	sim_run(&stage.sim, MS);
	stage_expect(stage.cr.store, 0, 256 * KIB, stage.out);
	/* The same of what was never dirty: its checksums are being computed. */
	end_commits();
	cache_drop_clean(stage.cr.cache, 4 * MIB);
	sim_run(&stage.sim, MS);
	end_commits();
	stage_expect(stage.cr.store, 0, 256 * KIB, stage.out);
	ck_assert_uint_eq(cache_take_changed(stage.cr.cache, &chunk, 1), 1);
	ck_assert_uint_eq(cache_evict(stage.cr.cache, 0, MIB), 0);
	cache_stored(stage.cr.cache, &chunk, 1);
	ck_assert_uint_eq(cache_evict(stage.cr.cache, 0, MIB), 256 * KIB);
	sim_run(&stage.sim, MS);
	end_indexed();
}
END_TEST

/* What is dropped though the index calls it dirty is read, but not kept, and written after a commit. */
START_TEST(dropped_blocks_come_back_after_a_commit)
{
	struct stage_req wr;

	begin_indexed(100000);
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 64 * KIB, stage.out, 0), 0);
	stage_start(&wr, STORE_FLUSH, 0, 0, NULL, 0);
	end_commit(0);
	ck_assert(wr.sr.done && wr.sr.err == 0);
	stage_fill_remote(0, 64 * KIB);
	cache_drop_clean(stage.cr.cache, 4 * MIB);
	stage_expect(stage.cr.store, 0, 64 * KIB, stage.out);
	ck_assert_uint_eq(cache_absent(stage.cr.cache, 0, 64 * KIB), 64 * KIB);
	stage_start(&wr, STORE_WRITE, 4 * KIB, 100, stage.out + MIB / 2, 0);
	ck_assert(!wr.sr.done);
	end_commits();
	ck_assert(wr.sr.done && wr.sr.err == 0);
	memcpy(stage.out + 4 * KIB, stage.out + MIB / 2, 100);
	stage_expect(stage.cr.store, 0, 64 * KIB, stage.out);
	ck_assert_uint_eq(cache_absent(stage.cr.cache, 0, 64 * KIB), 0);
	end_indexed();
}
END_TEST

START_TEST(the_index_sees_writes_in_flight)
{
	struct cache_chunk chunk;
	struct stage_req wr;

	begin_indexed(100000);
	stage_fill_remote(0, 256 * KIB);
	stage_expect(stage.cr.store, 0, 256 * KIB, stage.out);
	ck_assert_uint_eq(cache_take_changed(stage.cr.cache, &chunk, 1), 1);
	cache_look(stage.cr.cache, &chunk);
	ck_assert_uint_eq(chunk.resident, UINT64_MAX);
	ck_assert_uint_eq(chunk.dirty, 0);
	cache_stored(stage.cr.cache, &chunk, 1);
	stage_hold(stage.cr.local, STORE_WRITE);
	stage_start(&wr, STORE_WRITE, 8 * KIB, 4 * KIB, stage.out, 0);
	cache_look(stage.cr.cache, &chunk);
	ck_assert_uint_eq(chunk.dirty, 4);
	fault_clear(stage.cr.local);
	fault_release(stage.cr.local, FAULT_FIRST_FIRST, 0);
	sim_run(&stage.sim, MS);
	/* Written again, its state is the same, and its bytes are not. */
	ck_assert_uint_eq(cache_take_changed(stage.cr.cache, &chunk, 1), 1);
	cache_stored(stage.cr.cache, &chunk, 1);
	ck_assert_int_eq(stage_op(STORE_WRITE, 8 * KIB, 4 * KIB, stage.out + MIB / 2, 0), 0);
	ck_assert_uint_eq(cache_take_changed(stage.cr.cache, &chunk, 1), 1);
	cache_stored(stage.cr.cache, &chunk, 1);
	end_indexed();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cache_commit");
	TCase *tc = tcase_create("cache_commit");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 20);
	tcase_add_test(tc, bytes_are_pushed_after_a_commit);
	tcase_add_test(tc, a_commit_under_way_is_not_enough);
	tcase_add_test(tc, a_failed_commit_fails_the_push);
	tcase_add_test(tc, what_the_index_calls_dirty_is_not_evicted);
	tcase_add_test(tc, dropped_blocks_come_back_after_a_commit);
	tcase_add_test(tc, the_index_sees_writes_in_flight);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
