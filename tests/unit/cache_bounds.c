/* SPDX-License-Identifier: Apache-2.0
 *
 * Managed regions, one promise at a time, on simulated time: bounds on what a cache keeps, and a remote that
 * moves on, goes away, or must not be written to any more.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cache_int.h"
#include "tests/lib/stage.h"

/* ---- bounds ---- */

START_TEST(writers_wait_at_max_dirty_and_readers_do_not)
{
	struct stage_req a;

	stage_begin(
	    &(struct cache_rig_conf){.size = 8 * MIB, .max_dirty = MIB, .interval_ms = 1000});
	stage_fill_remote(4 * MIB, MIB);
	stage_hold(stage.cr.remote, STORE_WRITE);
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, MIB, stage.out, 0), 0);
	stage_start(&a, STORE_WRITE, MIB, 4 * KIB, stage.out, 0);
	sim_run(&stage.sim, 10 * SECOND);
	ck_assert(!a.sr.done);
	stage_expect(stage.cr.store, 0, MIB, stage.out); /* resident */
	stage_expect(stage.cr.store, 4 * MIB, 256 * KIB, stage.out); /* and not */
	fault_clear(stage.cr.remote);
	fault_release(stage.cr.remote, FAULT_FIRST_FIRST, 0);
	sim_run(&stage.sim, MS);
	ck_assert(a.sr.done && a.sr.err == 0);
	stage_end();
}
END_TEST

START_TEST(the_bound_on_local_bytes_holds)
{
	struct store_stat stat;

	stage_begin(
	    &(struct cache_rig_conf){.size = 16 * MIB, .cache_size = 2 * MIB, .interval_ms = 10});
	for (uint64_t off = 0; off < 16 * MIB; off += MIB) {
		ck_assert_int_eq(stage_op(STORE_WRITE, off, MIB, stage.out, 0), 0);
		ck_assert_int_eq(store_stat(stage.cr.memory[0], &stat), 0);
		ck_assert_uint_le(stat.allocated, 2 * MIB);
		ck_assert_uint_le(stage_status().local, 2 * MIB);
	}
	ck_assert_int_eq(stage_flush(), 0);
	for (uint64_t off = 0; off < 16 * MIB; off += MIB) {
		stage_expect(stage.cr.store, off, MIB, stage.out);
		stage_expect_remote(off, MIB, stage.out);
		ck_assert_uint_le(stage_status().local, 2 * MIB);
	}
	stage_end();
}
END_TEST

/* Fills a cache of 2 MiB whose donor takes nothing: all but the last 256 KiB are dirty, and stay so. */
static void fill_all_but_a_chunk(void)
{
	stage_begin(
	    &(struct cache_rig_conf){.size = 16 * MIB, .cache_size = 2 * MIB, .interval_ms = 10});
	stage_fill_remote(8 * MIB, MIB);
	stage_hold(stage.cr.remote, STORE_WRITE);
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, MIB, stage.out, 0), 0);
	ck_assert_int_eq(stage_op(STORE_WRITE, MIB, MIB - CACHE_CHUNK, stage.out, 0), 0);
}

static void donor_is_back(void)
{
	fault_clear(stage.cr.remote);
	fault_release(stage.cr.remote, FAULT_FIRST_FIRST, 0);
	sim_run(&stage.sim, SECOND);
}

/* A writer that waits for room goes on when a chunk is clean and nobody reads it any more. */
START_TEST(a_readers_end_gives_room)
{
	struct stage_req reader, writer;

	fill_all_but_a_chunk();
	stage_expect(stage.cr.store, 8 * MIB, CACHE_CHUNK, stage.out);
	stage_hold(stage.cr.local, STORE_READ);
	stage_start(&reader, STORE_READ, 8 * MIB, 4096, stage.in, 0);
	stage_start(&writer, STORE_WRITE, 4 * MIB, 4096, stage.out, 0);
	sim_run(&stage.sim, 10 * SECOND);
	ck_assert(!reader.sr.done && !writer.sr.done);
	fault_clear(stage.cr.local);
	fault_release(stage.cr.local, FAULT_FIRST_FIRST, 0);
	sim_run(&stage.sim, MS);
	ck_assert(reader.sr.done && writer.sr.done && writer.sr.err == 0);
	donor_is_back();
	stage_end();
}
END_TEST

/* The same for what it had lent. */
START_TEST(a_loans_end_gives_room)
{
	struct stage_req reader, writer;

	fill_all_but_a_chunk();
	stage_expect(stage.cr.store, 8 * MIB, CACHE_CHUNK, stage.out);
	stage_start(&reader, STORE_READ, 8 * MIB, 4096, stage.in, STORE_LEND);
	ck_assert(reader.sr.done && reader.sr.req.ret_lent);
	stage_start(&writer, STORE_WRITE, 4 * MIB, 4096, stage.out, 0);
	sim_run(&stage.sim, 10 * SECOND);
	ck_assert(!writer.sr.done);
	store_unlend(stage.cr.store, 8 * MIB, 4096);
	sim_run(&stage.sim, MS);
	ck_assert(writer.sr.done && writer.sr.err == 0);
	donor_is_back();
	stage_end();
}
END_TEST

/* The same for room that was kept for a fetch, which has failed; all who have room then go on. */
START_TEST(a_fetch_that_fails_gives_room)
{
	struct stage_req reader, writers[3];

	fill_all_but_a_chunk();
	stage_hold(stage.cr.remote, STORE_READ);
	stage_start(&reader, STORE_READ, 8 * MIB, CACHE_CHUNK, stage.in, 0);
	for (unsigned i = 0; i < 3; i++)
		stage_start(&writers[i], STORE_WRITE, (4 + i) * MIB, 4096, stage.out, 0);
	sim_run(&stage.sim, 10 * SECOND);
	ck_assert(!reader.sr.done && !writers[0].sr.done);
	store_interrupt(&reader.sr.req);
	sim_run(&stage.sim, MS);
	ck_assert_int_eq(reader.sr.err, -EINTR);
	for (unsigned i = 0; i < 3; i++)
		ck_assert(writers[i].sr.done && writers[i].sr.err == 0);
	donor_is_back();
	stage_end();
}
END_TEST

/* A region of many GiB: what the state takes. */
START_TEST(the_state_is_at_most_128_kib_per_gib)
{
	stage_begin(&(struct cache_rig_conf){.size = 64 * 1024 * MIB});
	ck_assert_uint_le(stage_status().state_bytes, 64 * 128 * KIB);
	stage_end();
}
END_TEST

START_TEST(a_scan_leaves_the_hot_set_alone)
{
	struct cache_status before;

	stage_begin(&(struct cache_rig_conf){.size = 64 * MIB, .cache_size = 8 * MIB});
	for (uint64_t off = 0; off < 64 * MIB; off += MIB)
		stage_fill_remote(off, MIB);
	/* 4 MiB are hot: read again and again, at random. */
	for (unsigned round = 0; round < 4; round++)
		for (uint64_t i = 0; i < 16; i++)
			stage_expect(stage.cr.store, i * 7 % 16 * 256 * KIB, 4 * KIB,
			    stage.out + i * 7 % 4 * 256 * KIB);
	for (uint64_t off = 0; off < 4 * MIB; off += 256 * KIB)
		stage_expect(stage.cr.store, off, 256 * KIB, stage.out + off % MIB);
	for (uint64_t off = 8 * MIB; off < 64 * MIB; off += 64 * KIB)
		stage_expect(stage.cr.store, off, 64 * KIB, stage.out + off % MIB);
	before = stage_status();
	for (uint64_t off = 0; off < 4 * MIB; off += 256 * KIB)
		stage_expect(stage.cr.store, off, 256 * KIB, stage.out + off % MIB);
	ck_assert_uint_eq(stage_status().misses, before.misses);
	ck_assert_uint_gt(before.evicted, 48 * MIB);
	stage_end();
}
END_TEST

START_TEST(pinned_chunks_stay)
{
	stage_begin(&(struct cache_rig_conf){.size = 16 * MIB, .cache_size = 4 * MIB});
	stage_expect(stage.cr.store, 0, 4 * KIB, store_zeros);
	stage_fill_remote(MIB, MIB);
	stage_expect(stage.cr.store, MIB, MIB, stage.out);
	cache_pin(stage.cr.cache, MIB, MIB, true);
	for (uint64_t off = 2 * MIB; off < 16 * MIB; off += MIB) {
		stage_fill_remote(off, MIB);
		stage_expect(stage.cr.store, off, MIB, stage.out);
	}
	ck_assert_uint_eq(cache_absent(stage.cr.cache, MIB, MIB), 0);
	cache_pin(stage.cr.cache, MIB, MIB, false);
	ck_assert_uint_eq(cache_evict(stage.cr.cache, MIB, MIB), MIB);
	stage_end();
}
END_TEST

/* ---- the remote ---- */

START_TEST(a_frozen_cache_keeps_what_it_has)
{
	stage_begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 100000});
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 64 * KIB, stage.out, 0), 0);
	cache_freeze(stage.cr.cache, -ESTALE);
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 64 * KIB, stage.out + MIB / 2, 0), -ESTALE);
	ck_assert_int_eq(stage_op(STORE_ZERO, 0, 64 * KIB, NULL, 0), -ESTALE);
	ck_assert_int_eq(stage_op(STORE_RESIZE, 0, 0, NULL, 0), -ESTALE);
	ck_assert_int_eq(stage_flush(), -ESTALE);
	sim_run(&stage.sim, 200 * SECOND);
	stage_expect(stage.cr.store, 0, 64 * KIB, stage.out);
	stage_expect_remote(0, 64 * KIB, store_zeros);
	ck_assert_uint_eq(stage_status().dirty, 64 * KIB);
	stage_end();
}
END_TEST

/* A local store that writes a part of what it then fails: what is read here is what the remote gets. */
START_TEST(what_a_failed_write_leaves_is_pushed)
{
	static uint8_t left[64 * 1024];

	stage_begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 100000});
	stage_fill_remote(0, MIB);
	stage_expect(stage.cr.store, 0, MIB, stage.out);
	fault_add(stage.cr.local, &(struct fault_rule){.kind = FAULT_TORN,
				      .ops = FAULT_OP(STORE_WRITE),
				      .count = 1,
				      .err = -EIO,
				      .torn_bytes = 4096});
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 64 * KIB, stage.out + 64 * KIB, 0), -EIO);
	ck_assert_int_eq(stage_op(STORE_READ, 0, 64 * KIB, left, 0), 0);
	ck_assert_int_eq(stage_flush(), 0);
	stage_expect_remote(0, 64 * KIB, left);
	stage_end();
}
END_TEST

START_TEST(clean_blocks_are_dropped_when_the_remote_moves_on)
{
	stage_begin(
	    &(struct cache_rig_conf){.size = MIB, .size_max = 2 * MIB, .interval_ms = 100000});
	stage_fill_remote(0, MIB);
	stage_expect(stage.cr.store, 0, MIB, stage.out);
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 64 * KIB, stage.out + 64 * KIB, 0), 0);
	ck_assert_int_eq(
	    sim_op(&stage.sim, stage.cr.memory[1], STORE_WRITE, 512 * KIB, 64 * KIB, stage.out, 0),
	    0);
	stage_expect(stage.cr.store, 512 * KIB, 64 * KIB, stage.out + 512 * KIB);
	cache_drop_clean(stage.cr.cache, MIB + 512 * KIB);
	stage_expect(stage.cr.store, 512 * KIB, 64 * KIB, stage.out);
	stage_expect(stage.cr.store, 0, 64 * KIB, stage.out + 64 * KIB); /* dirty: ours */
	ck_assert_uint_eq(cache_size(stage.cr.cache), MIB + 512 * KIB);
	stage_end();
}
END_TEST

/* A remote that became shorter: that is so at once, whatever is under way. */
START_TEST(a_shorter_remote_is_believed_at_once)
{
	struct stage_req a;

	stage_begin(&(struct cache_rig_conf){.size = 8 * MIB});
	stage_fill_remote(0, MIB);
	stage_fill_remote(7 * MIB, MIB);
	stage_expect(stage.cr.store, 7 * MIB, MIB, stage.out);
	stage_hold(stage.cr.remote, STORE_READ);
	stage_start(&a, STORE_READ, 0, 4 * KIB, stage.in, 0);
	cache_drop_clean(stage.cr.cache, 6 * MIB + 100);
	ck_assert_uint_eq(cache_size(stage.cr.cache), 6 * MIB + 100);
	cache_audit(stage.cr.cache);
	fault_clear(stage.cr.remote);
	ck_assert_int_eq(
	    sim_op(&stage.sim, stage.cr.memory[1], STORE_RESIZE, 6 * MIB + 100, 0, NULL, 0), 0);
	fault_release(stage.cr.remote, FAULT_FIRST_FIRST, 0);
	sim_run(&stage.sim, MS);
	ck_assert(a.sr.done && a.sr.err == 0);
	stage_expect(stage.cr.store, 0, MIB, stage.out);
	for (uint64_t off = 6 * MIB; off < 8 * MIB; off += MIB)
		stage_expect(stage.cr.store, off, MIB, store_zeros);
	/* And it can be written to, and grow. */
	ck_assert_int_eq(stage_op(STORE_WRITE, 7 * MIB, 5000, stage.out, 0), 0);
	ck_assert_uint_eq(cache_size(stage.cr.cache), 7 * MIB + 5000);
	ck_assert_int_eq(stage_op(STORE_RESIZE, 8 * MIB, 0, NULL, 0), 0);
	ck_assert_int_eq(stage_flush(), 0);
	stage_expect_remote(7 * MIB, 5000, stage.out);
	stage_expect(stage.cr.store, 6 * MIB, MIB, store_zeros);
	stage_expect(stage.cr.store, 7 * MIB, 5000, stage.out);
	stage_end();
}
END_TEST

/* But not shorter than what is to be pushed. */
START_TEST(a_shorter_remote_does_not_cut_what_is_dirty)
{
	stage_begin(&(struct cache_rig_conf){.size = 8 * MIB, .interval_ms = 1000});
	ck_assert_int_eq(stage_op(STORE_WRITE, 7 * MIB, 5000, stage.out, 0), 0);
	cache_drop_clean(stage.cr.cache, 6 * MIB);
	ck_assert_uint_eq(cache_size(stage.cr.cache), 8 * MIB);
	stage_expect(stage.cr.store, 7 * MIB, 5000, stage.out);
	ck_assert_int_eq(stage_flush(), 0);
	stage_expect_remote(7 * MIB, 5000, stage.out);
	stage_end();
}
END_TEST

static void set_flag(struct cache_call *call, int err)
{
	*(bool *)(call + 1) = true;
}

START_TEST(a_detached_cache_waits_for_the_next_remote)
{
	struct {
		struct cache_call call;
		bool done;
	} detach = {.call = {set_flag}};
	struct stage_req a;

	stage_begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 10});
	stage_fill_remote(0, MIB);
	stage_hold(stage.cr.remote, STORE_READ);
	stage_start(&a, STORE_READ, 0, 4 * KIB, stage.in, 0);
	cache_detach(stage.cr.cache, &detach.call);
	ck_assert(!detach.done);
	fault_clear(stage.cr.remote);
	fault_release(stage.cr.remote, FAULT_FIRST_FIRST, 0);
	sim_run(&stage.sim, MS);
	ck_assert(detach.done && a.sr.done);
	ck_assert_int_eq(stage_op(STORE_WRITE, 0, 4 * KIB, stage.out + 4 * KIB, 0), 0);
	stage_start(&a, STORE_READ, 64 * KIB, 4 * KIB, stage.in, 0);
	sim_run(&stage.sim, SECOND);
	ck_assert(!a.sr.done && stage_status().dirty == 4 * KIB);
	cache_attach(stage.cr.cache, stage.cr.remote);
	sim_run(&stage.sim, SECOND);
	ck_assert(a.sr.done && a.sr.err == 0 && stage_status().dirty == 0);
	ck_assert_mem_eq(stage.in, stage.out + 64 * KIB, 4 * KIB);
	stage_end();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cache_bounds");
	TCase *tc = tcase_create("cache_bounds");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 20);
	tcase_add_test(tc, writers_wait_at_max_dirty_and_readers_do_not);
	tcase_add_test(tc, the_bound_on_local_bytes_holds);
	tcase_add_test(tc, a_readers_end_gives_room);
	tcase_add_test(tc, a_loans_end_gives_room);
	tcase_add_test(tc, a_fetch_that_fails_gives_room);
	tcase_add_test(tc, the_state_is_at_most_128_kib_per_gib);
	tcase_add_test(tc, a_scan_leaves_the_hot_set_alone);
	tcase_add_test(tc, pinned_chunks_stay);
	tcase_add_test(tc, a_frozen_cache_keeps_what_it_has);
	tcase_add_test(tc, what_a_failed_write_leaves_is_pushed);
	tcase_add_test(tc, clean_blocks_are_dropped_when_the_remote_moves_on);
	tcase_add_test(tc, a_shorter_remote_is_believed_at_once);
	tcase_add_test(tc, a_shorter_remote_does_not_cut_what_is_dirty);
	tcase_add_test(tc, a_detached_cache_waits_for_the_next_remote);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
