/* SPDX-License-Identifier: Apache-2.0
 *
 * Managed regions, one promise at a time, on simulated time.  Many of these are mistakes that systems before
 * this one made: a sync that succeeds though every write failed, a close that hangs after an error, a chunk
 * rewritten while it is pushed, a failed local write that later reads as zeros, and more.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cache_int.h"
#include "tests/lib/cache_rig.h"

#define KIB ((uint64_t)1024)
#define MIB (1024 * KIB)
#define MS ((uint64_t)1000000)
#define SECOND (1000 * MS)

static struct sim sim;
static struct cache_rig cr;
static uint8_t out[1 << 20], in[1 << 20];

static void begin(const struct cache_rig_conf *conf)
{
	memset(&cr, 0, sizeof(cr));
	sim_start(&sim);
	cache_rig_build(&cr, sim.loop, sim.workers, conf);
	for (unsigned i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)(i * 7 + i / 4096 + 1);
}

static void end(void)
{
	sim_end(&sim, &cr);
	cache_rig_free(&cr);
	sim_stop(&sim);
}

static int op(enum store_op kind, uint64_t off, uint64_t len, void *buf, unsigned flags)
{
	int rc = sim_op(&sim, cr.store, kind, off, len, buf, flags);

	cache_audit(cr.cache);
	return rc;
}

static int flush(void)
{
	return op(STORE_FLUSH, 0, 0, NULL, 0);
}

static void expect(struct store *store, uint64_t off, uint64_t len, const uint8_t *bytes)
{
	memset(in, 0xee, len);
	ck_assert_int_eq(sim_op(&sim, store, STORE_READ, off, len, in, 0), 0);
	ck_assert_mem_eq(in, bytes, len);
}

/* What the donor has. */
static void expect_remote(uint64_t off, uint64_t len, const uint8_t *bytes)
{
	expect(cr.memory[1], off, len, bytes);
}

static void fill_remote(uint64_t off, uint64_t len)
{
	ck_assert_int_eq(sim_op(&sim, cr.memory[1], STORE_WRITE, off, len, out, 0), 0);
}

static void fault(struct store *side, enum store_op kind, uint64_t count, int err, bool after)
{
	fault_add(side, &(struct fault_rule){
			    .kind = FAULT_FAIL,
			    .ops = FAULT_OP(kind),
			    .count = count,
			    .err = err,
			    .after = after,
			});
}

static void hold(struct store *side, enum store_op kind)
{
	fault_add(side, &(struct fault_rule){.kind = FAULT_HOLD, .ops = FAULT_OP(kind)});
}

static struct cache_status status(void)
{
	struct cache_status ret;

	cache_status(cr.cache, &ret);
	return ret;
}

/* Requests that go on while the test does other things. */
struct start {
	struct loop_task task;
	struct store *store;
	struct sim_req sr;
};

static void start_now(struct loop_task *task)
{
	struct start *start = (struct start *)task;

	sim_submit(start->store, &start->sr);
}

static void start(
    struct start *st, enum store_op kind, uint64_t off, uint64_t len, void *buf, unsigned flags)
{
	*st = (struct start){
	    .task = {.run = start_now},
	    .store = cr.store,
	    .sr = {.req = {.op = kind, .off = off, .len = len, .buf = buf, .flags = flags}},
	};
	loop_defer(sim.loop, &st->task);
	sim_run(&sim, MS);
}

/* ---- reading ---- */

START_TEST(absent_blocks_are_fetched_once)
{
	struct fault_counts counts;

	begin(&(struct cache_rig_conf){.size = MIB});
	fill_remote(0, MIB);
	expect(cr.store, 0, 256 * KIB, out);
	expect(cr.store, 64 * KIB, 64 * KIB, out + 64 * KIB);
	fault_count(cr.remote, &counts);
	ck_assert_uint_eq(counts.submitted[STORE_READ], 1);
	ck_assert_uint_eq(status().resident, 256 * KIB);
	end();
}
END_TEST

/* Bytes of the chunk before must not show through where the region ends. */
START_TEST(a_region_may_end_anywhere)
{
	begin(&(struct cache_rig_conf){.size = 300 * KIB + 17, .size_max = MIB});
	fill_remote(0, 300 * KIB + 17);
	expect(cr.store, 0, 300 * KIB + 17, out);
	expect(cr.store, 300 * KIB + 17, 100 * KIB, store_zeros);
	ck_assert_int_eq(op(STORE_WRITE, 300 * KIB, 16, out, 0), 0);
	ck_assert_int_eq(flush(), 0);
	expect_remote(300 * KIB, 16, out);
	expect_remote(300 * KIB + 17, 64 * KIB, store_zeros);
	ck_assert_uint_eq(cache_size(cr.cache), 300 * KIB + 17);
	end();
	begin(&(struct cache_rig_conf){.size = 5, .size_max = 4096});
	fill_remote(0, 5);
	expect(cr.store, 0, 5, out);
	ck_assert_int_eq(op(STORE_WRITE, 4, 1, out, 0), 0);
	ck_assert_int_eq(flush(), 0);
	end();
}
END_TEST

START_TEST(a_read_joins_what_is_on_its_way)
{
	struct fault_counts counts;
	struct start a, b;
	static uint8_t second[128 * KIB];

	begin(&(struct cache_rig_conf){.size = MIB});
	fill_remote(0, MIB);
	hold(cr.remote, STORE_READ);
	start(&a, STORE_READ, 0, 256 * KIB, in, 0);
	start(&b, STORE_READ, 64 * KIB, 128 * KIB, second, 0);
	ck_assert(!a.sr.done && !b.sr.done);
	fault_release(cr.remote, FAULT_FIRST_FIRST, 0);
	sim_run(&sim, MS);
	ck_assert(a.sr.done && b.sr.done && a.sr.err == 0 && b.sr.err == 0);
	ck_assert_mem_eq(in, out, 256 * KIB);
	ck_assert_mem_eq(second, out + 64 * KIB, 128 * KIB);
	fault_count(cr.remote, &counts);
	ck_assert_uint_eq(counts.submitted[STORE_READ], 1);
	end();
}
END_TEST

/* Runs of one request are fetched in one round trip. */
START_TEST(runs_are_fetched_together)
{
	struct start read;

	begin(&(struct cache_rig_conf){.size = MIB});
	fill_remote(0, MIB);
	for (uint64_t off = 16 * KIB; off < 256 * KIB; off += 64 * KIB)
		expect(cr.store, off, 16 * KIB, out + off);
	fault_add(cr.remote, &(struct fault_rule){.kind = FAULT_DELAY, .delay_ns = 10 * MS});
	start(&read, STORE_READ, 0, 256 * KIB, in, 0);
	sim_run(&sim, 10 * MS);
	ck_assert(read.sr.done);
	ck_assert_mem_eq(in, out, 256 * KIB);
	end();
}
END_TEST

START_TEST(a_local_store_that_is_full_does_not_fail_reads)
{
	begin(&(struct cache_rig_conf){.size = MIB});
	fill_remote(0, MIB);
	fault(cr.local, STORE_WRITE, 0, -ENOSPC, false);
	expect(cr.store, 0, 64 * KIB, out);
	expect(cr.store, 100, 5000, out + 100);
	ck_assert_uint_eq(status().resident, 0);
	end();
}
END_TEST

START_TEST(a_failed_fetch_fails_and_marks_nothing)
{
	begin(&(struct cache_rig_conf){.size = MIB});
	fill_remote(0, MIB);
	fault(cr.remote, STORE_READ, 1, -EIO, false);
	ck_assert_int_eq(op(STORE_READ, 0, 64 * KIB, in, 0), -EIO);
	ck_assert_uint_eq(status().resident, 0);
	expect(cr.store, 0, 64 * KIB, out);
	end();
}
END_TEST

START_TEST(a_write_beats_the_fetch_that_it_overtakes)
{
	struct start read;

	begin(&(struct cache_rig_conf){.size = MIB});
	fill_remote(0, MIB);
	fault_add(cr.remote,
	    &(struct fault_rule){.kind = FAULT_HOLD, .ops = FAULT_OP(STORE_READ), .after = true});
	start(&read, STORE_READ, 0, 64 * KIB, in, 0);
	ck_assert_int_eq(op(STORE_WRITE, 8 * KIB, 8 * KIB, out + 512 * KIB, 0), 0);
	ck_assert_int_eq(op(STORE_ZERO, 32 * KIB, 4 * KIB, NULL, 0), 0);
	fault_release(cr.remote, FAULT_FIRST_FIRST, 0);
	sim_run(&sim, MS);
	ck_assert(read.sr.done);
	expect(cr.store, 8 * KIB, 8 * KIB, out + 512 * KIB);
	expect(cr.store, 32 * KIB, 4 * KIB, store_zeros);
	expect(cr.store, 16 * KIB, 16 * KIB, out + 16 * KIB);
	end();
}
END_TEST

START_TEST(a_waiting_read_can_be_interrupted)
{
	struct start a, b;

	begin(&(struct cache_rig_conf){.size = MIB});
	fill_remote(0, MIB);
	hold(cr.remote, STORE_READ);
	start(&a, STORE_READ, 0, 64 * KIB, in, 0);
	start(&b, STORE_READ, 0, 64 * KIB, in + MIB / 2, 0);
	store_interrupt(&b.sr.req);
	ck_assert(b.sr.done && b.sr.err == -EINTR && !a.sr.done);
	store_interrupt(&a.sr.req);
	ck_assert(a.sr.done && a.sr.err == -EINTR);
	end();
}
END_TEST

/* ---- writing ---- */

START_TEST(a_failed_local_write_marks_nothing)
{
	begin(&(struct cache_rig_conf){.size = MIB});
	fill_remote(0, MIB);
	fault(cr.local, STORE_WRITE, 1, -EIO, false);
	ck_assert_int_eq(op(STORE_WRITE, 0, 64 * KIB, out + 512 * KIB, 0), -EIO);
	ck_assert_uint_eq(status().dirty, 0);
	expect(cr.store, 0, 64 * KIB, out); /* not zeros */
	ck_assert_int_eq(flush(), 0);
	expect_remote(0, 64 * KIB, out);
	end();
}
END_TEST

START_TEST(parts_of_an_absent_block_are_written_one_by_one)
{
	struct start a, b;

	begin(&(struct cache_rig_conf){.size = MIB});
	fill_remote(0, MIB);
	hold(cr.remote, STORE_READ);
	start(&a, STORE_WRITE, 100, 50, out + 512 * KIB, 0);
	start(&b, STORE_WRITE, 200, 50, out + 513 * KIB, 0);
	ck_assert(!a.sr.done && !b.sr.done);
	fault_clear(cr.remote);
	fault_release(cr.remote, FAULT_FIRST_FIRST, 0);
	sim_run(&sim, MS);
	ck_assert(a.sr.done && b.sr.done && a.sr.err == 0 && b.sr.err == 0);
	memcpy(out + 100, out + 512 * KIB, 50);
	memcpy(out + 200, out + 513 * KIB, 50);
	expect(cr.store, 0, 4 * KIB, out);
	ck_assert_int_eq(flush(), 0);
	expect_remote(0, 4 * KIB, out);
	end();
}
END_TEST

/* The block can't be had in whole: nothing is written. */
START_TEST(a_part_of_a_block_needs_the_rest)
{
	begin(&(struct cache_rig_conf){.size = MIB});
	fill_remote(0, MIB);
	fault(cr.local, STORE_WRITE, 1, -ENOSPC, false);
	ck_assert_int_eq(op(STORE_WRITE, 100, 50, out + 512 * KIB, 0), -ENOSPC);
	fault(cr.remote, STORE_READ, 1, -EIO, false);
	ck_assert_int_eq(op(STORE_WRITE, 100, 50, out + 512 * KIB, 0), -EIO);
	expect(cr.store, 0, 4 * KIB, out);
	ck_assert_uint_eq(status().dirty, 0);
	end();
}
END_TEST

/* A block is written whole, and, before that has ended, in part. */
START_TEST(a_part_of_a_block_waits_for_the_whole)
{
	struct start a, b;

	begin(&(struct cache_rig_conf){.size = MIB});
	fill_remote(0, MIB);
	fault_add(cr.local,
	    &(struct fault_rule){.kind = FAULT_HOLD, .ops = FAULT_OP(STORE_WRITE), .count = 1});
	start(&a, STORE_WRITE, 0, 4 * KIB, out + 512 * KIB, 0);
	start(&b, STORE_WRITE, 100, 50, out + 600 * KIB, 0);
	ck_assert(!a.sr.done && !b.sr.done);
	fault_release(cr.local, FAULT_FIRST_FIRST, 0);
	sim_run(&sim, MS);
	ck_assert(a.sr.done && b.sr.done && a.sr.err == 0 && b.sr.err == 0);
	memcpy(out, out + 512 * KIB, 4 * KIB);
	memcpy(out + 100, out + 600 * KIB, 50);
	expect(cr.store, 0, 4 * KIB, out);
	end();
}
END_TEST

/* What a local store that failed has left behind does not come up again. */
START_TEST(a_failed_cut_shows_no_old_bytes)
{
	begin(&(struct cache_rig_conf){.size = MIB, .size_max = MIB});
	ck_assert_int_eq(op(STORE_WRITE, 0, MIB, out, 0), 0);
	ck_assert_int_eq(flush(), 0);
	fault(cr.local, STORE_ZERO, 1, -EIO, false);
	ck_assert_int_eq(op(STORE_RESIZE, 4 * KIB, 0, NULL, 0), -EIO);
	ck_assert_int_eq(op(STORE_RESIZE, MIB, 0, NULL, 0), 0);
	expect(cr.store, 0, 4 * KIB, out);
	expect(cr.store, 4 * KIB, MIB - 4 * KIB, store_zeros);
	end();
}
END_TEST

START_TEST(whole_blocks_are_written_without_a_fetch)
{
	begin(&(struct cache_rig_conf){.size = MIB, .detached = true, .interval_ms = 1000});
	ck_assert_int_eq(op(STORE_WRITE, 64 * KIB, 64 * KIB, out, 0), 0);
	expect(cr.store, 64 * KIB, 64 * KIB, out);
	cache_attach(cr.cache, cr.remote);
	ck_assert_int_eq(flush(), 0);
	expect_remote(64 * KIB, 64 * KIB, out);
	end();
}
END_TEST

START_TEST(a_block_rewritten_while_it_is_pushed_keeps_the_newer_bytes)
{
	struct fault_counts counts;

	begin(&(struct cache_rig_conf){.size = MIB});
	hold(cr.remote, STORE_WRITE);
	ck_assert_int_eq(op(STORE_WRITE, 0, 64 * KIB, out, 0), 0);
	sim_run(&sim, SECOND);
	ck_assert_uint_eq(fault_held(cr.remote), 1);
	ck_assert_int_eq(op(STORE_WRITE, 0, 64 * KIB, out + 512 * KIB, 0), 0);
	sim_run(&sim, SECOND);
	ck_assert_uint_eq(fault_held(cr.remote), 1); /* the old one has to end first */
	expect(cr.store, 0, 64 * KIB, out + 512 * KIB);
	fault_clear(cr.remote);
	fault_release(cr.remote, FAULT_FIRST_FIRST, 0);
	ck_assert_int_eq(flush(), 0);
	expect_remote(0, 64 * KIB, out + 512 * KIB);
	fault_count(cr.remote, &counts);
	ck_assert_uint_eq(counts.submitted[STORE_WRITE], 2);
	end();
}
END_TEST

START_TEST(punches_are_pushed_as_punches)
{
	struct fault_counts counts;
	struct store_stat stat;

	begin(&(struct cache_rig_conf){.size = 8 * MIB, .interval_ms = 10});
	fill_remote(0, MIB);
	fill_remote(MIB, MIB);
	ck_assert_int_eq(op(STORE_ZERO, 4 * KIB, 2 * MIB - 8 * KIB, NULL, 0), 0);
	expect(cr.store, 8 * KIB, 512 * KIB, store_zeros);
	ck_assert_int_eq(flush(), 0);
	fault_count(cr.remote, &counts);
	ck_assert_uint_eq(counts.submitted[STORE_WRITE], 0);
	ck_assert_uint_eq(counts.submitted[STORE_ZERO], 1);
	ck_assert_int_eq(store_stat(cr.memory[1], &stat), 0);
	ck_assert_uint_eq(stat.allocated, 8 * KIB);
	end();
}
END_TEST

/* ---- flushing ---- */

START_TEST(a_flush_fails_if_the_remote_writes_failed)
{
	struct cache_handle *other;

	begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 10});
	ck_assert_int_eq(cache_handle_create(cr.cache, POOL_READ | POOL_WRITE, &other, NULL), 0);
	fault(cr.remote, STORE_WRITE, 0, -EIO, false);
	ck_assert_int_eq(op(STORE_WRITE, 0, 64 * KIB, out, 0), 0);
	ck_assert_int_eq(flush(), -EIO);
	ck_assert_int_eq(flush(), -EIO); /* it still is not there */
	ck_assert_uint_eq(status().dirty, 64 * KIB);
	fault_clear(cr.remote);
	/* Each handle hears of it once. */
	ck_assert_int_eq(sim_op(&sim, &other->handle.store, STORE_FLUSH, 0, 0, NULL, 0), -EIO);
	ck_assert_int_eq(sim_op(&sim, &other->handle.store, STORE_FLUSH, 0, 0, NULL, 0), 0);
	ck_assert_int_eq(flush(), 0);
	expect_remote(0, 64 * KIB, out);
	store_destroy(&other->handle.store);
	end();
}
END_TEST

/* The remote has done it, but its answer was lost: not done, as far as we know. */
START_TEST(a_lost_answer_is_a_failure)
{
	begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 10});
	fault(cr.remote, STORE_WRITE, 1, -EIO, true);
	ck_assert_int_eq(op(STORE_WRITE, 0, 64 * KIB, out, 0), 0);
	sim_run(&sim, 50 * MS);
	ck_assert_uint_eq(status().dirty, 64 * KIB);
	ck_assert_int_eq(flush(), -EIO);
	ck_assert_int_eq(flush(), 0);
	end();
}
END_TEST

/* A remote whose FLUSH fails may have lost what it had taken. */
START_TEST(what_was_pushed_is_pushed_again_when_the_flush_fails)
{
	struct fault_counts counts;

	begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 100000});
	fault_add(cr.remote, &(struct fault_rule){
				 .kind = FAULT_DELAY,
				 .ops = FAULT_OP(STORE_FLUSH),
				 .count = 1,
				 .delay_ns = MS,
				 .err = -EIO,
			     });
	ck_assert_int_eq(op(STORE_WRITE, 0, 64 * KIB, out, 0), 0);
	ck_assert_int_eq(flush(), -EIO);
	/* The donor forgets. */
	ck_assert_int_eq(sim_op(&sim, cr.memory[1], STORE_ZERO, 0, MIB, NULL, 0), 0);
	ck_assert_int_eq(flush(), 0);
	expect_remote(0, 64 * KIB, out);
	fault_count(cr.remote, &counts);
	ck_assert_uint_eq(counts.submitted[STORE_WRITE], 2);
	end();
}
END_TEST

START_TEST(a_stop_does_not_hang_after_errors)
{
	begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 10, .pull = PULL_ALL});
	fault(cr.remote, STORE_WRITE, 0, -EIO, false);
	fault(cr.remote, STORE_READ, 0, -EIO, false);
	ck_assert_int_eq(op(STORE_WRITE, 0, 64 * KIB, out, 0), 0);
	sim_run(&sim, SECOND);
	ck_assert_int_eq(flush(), -EIO);
	end();
}
END_TEST

START_TEST(fua_is_at_the_remote)
{
	begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 100000});
	ck_assert_int_eq(op(STORE_WRITE, 0, 64 * KIB, out, STORE_FUA), 0);
	expect_remote(0, 64 * KIB, out);
	ck_assert_int_eq(op(STORE_WRITE, 64 * KIB, 4 * KIB, out, 0), 0);
	expect_remote(64 * KIB, 4 * KIB, store_zeros);
	fault(cr.remote, STORE_WRITE, 1, -EIO, false);
	ck_assert_int_eq(op(STORE_WRITE, 0, 64 * KIB, out, STORE_FUA), -EIO);
	end();
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

	begin(&(struct cache_rig_conf){
	    .size = MIB, .interval_ms = 100000, .durability = CACHE_LOCAL, .commit = commit});
	ck_assert_int_eq(op(STORE_WRITE, 0, 64 * KIB, out, 0), 0);
	ck_assert_int_eq(flush(), 0);
	fault_count(cr.local, &counts);
	ck_assert_uint_eq(counts.submitted[STORE_FLUSH], 1);
	ck_assert_uint_eq(commits, 1);
	commit_err = -EIO;
	ck_assert_int_eq(flush(), -EIO);
	commit_err = 0;
	fault(cr.local, STORE_FLUSH, 1, -EIO, false);
	ck_assert_int_eq(flush(), -EIO);
	ck_assert_uint_eq(commits, 2); /* not after a flush that failed */
	cache_set_durability(cr.cache, CACHE_NONE);
	ck_assert_int_eq(flush(), 0);
	end();
}
END_TEST

/* ---- bounds ---- */

START_TEST(writers_wait_at_max_dirty_and_readers_do_not)
{
	struct start a;

	begin(&(struct cache_rig_conf){.size = 8 * MIB, .max_dirty = MIB, .interval_ms = 1000});
	fill_remote(4 * MIB, MIB);
	hold(cr.remote, STORE_WRITE);
	ck_assert_int_eq(op(STORE_WRITE, 0, MIB, out, 0), 0);
	start(&a, STORE_WRITE, MIB, 4 * KIB, out, 0);
	sim_run(&sim, 10 * SECOND);
	ck_assert(!a.sr.done);
	expect(cr.store, 0, MIB, out); /* resident */
	expect(cr.store, 4 * MIB, 256 * KIB, out); /* and not */
	fault_clear(cr.remote);
	fault_release(cr.remote, FAULT_FIRST_FIRST, 0);
	sim_run(&sim, MS);
	ck_assert(a.sr.done && a.sr.err == 0);
	end();
}
END_TEST

START_TEST(the_bound_on_local_bytes_holds)
{
	struct store_stat stat;

	begin(&(struct cache_rig_conf){.size = 16 * MIB, .cache_size = 2 * MIB, .interval_ms = 10});
	for (uint64_t off = 0; off < 16 * MIB; off += MIB) {
		ck_assert_int_eq(op(STORE_WRITE, off, MIB, out, 0), 0);
		ck_assert_int_eq(store_stat(cr.memory[0], &stat), 0);
		ck_assert_uint_le(stat.allocated, 2 * MIB);
		ck_assert_uint_le(status().local, 2 * MIB);
	}
	ck_assert_int_eq(flush(), 0);
	for (uint64_t off = 0; off < 16 * MIB; off += MIB) {
		expect(cr.store, off, MIB, out);
		expect_remote(off, MIB, out);
		ck_assert_uint_le(status().local, 2 * MIB);
	}
	end();
}
END_TEST

/* A region of many GiB: what the state takes. */
START_TEST(the_state_is_at_most_128_kib_per_gib)
{
	begin(&(struct cache_rig_conf){.size = 64 * 1024 * MIB});
	ck_assert_uint_le(status().state_bytes, 64 * 128 * KIB);
	end();
}
END_TEST

START_TEST(a_scan_leaves_the_hot_set_alone)
{
	struct cache_status before;

	begin(&(struct cache_rig_conf){.size = 64 * MIB, .cache_size = 8 * MIB});
	for (uint64_t off = 0; off < 64 * MIB; off += MIB)
		fill_remote(off, MIB);
	/* 4 MiB are hot: read again and again, at random. */
	for (unsigned round = 0; round < 4; round++)
		for (uint64_t i = 0; i < 16; i++)
			expect(
			    cr.store, i * 7 % 16 * 256 * KIB, 4 * KIB, out + i * 7 % 4 * 256 * KIB);
	for (uint64_t off = 0; off < 4 * MIB; off += 256 * KIB)
		expect(cr.store, off, 256 * KIB, out + off % MIB);
	for (uint64_t off = 8 * MIB; off < 64 * MIB; off += 64 * KIB)
		expect(cr.store, off, 64 * KIB, out + off % MIB);
	before = status();
	for (uint64_t off = 0; off < 4 * MIB; off += 256 * KIB)
		expect(cr.store, off, 256 * KIB, out + off % MIB);
	ck_assert_uint_eq(status().misses, before.misses);
	ck_assert_uint_gt(before.evicted, 48 * MIB);
	end();
}
END_TEST

START_TEST(pinned_chunks_stay)
{
	begin(&(struct cache_rig_conf){.size = 16 * MIB, .cache_size = 4 * MIB});
	expect(cr.store, 0, 4 * KIB, store_zeros);
	fill_remote(MIB, MIB);
	expect(cr.store, MIB, MIB, out);
	cache_pin(cr.cache, MIB, MIB, true);
	for (uint64_t off = 2 * MIB; off < 16 * MIB; off += MIB) {
		fill_remote(off, MIB);
		expect(cr.store, off, MIB, out);
	}
	ck_assert_uint_eq(cache_absent(cr.cache, MIB, MIB), 0);
	cache_pin(cr.cache, MIB, MIB, false);
	ck_assert_uint_eq(cache_evict(cr.cache, MIB, MIB), MIB);
	end();
}
END_TEST

/* ---- the remote ---- */

START_TEST(a_frozen_cache_keeps_what_it_has)
{
	begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 100000});
	ck_assert_int_eq(op(STORE_WRITE, 0, 64 * KIB, out, 0), 0);
	cache_freeze(cr.cache, -ESTALE);
	ck_assert_int_eq(op(STORE_WRITE, 0, 64 * KIB, out + MIB / 2, 0), -ESTALE);
	ck_assert_int_eq(op(STORE_ZERO, 0, 64 * KIB, NULL, 0), -ESTALE);
	ck_assert_int_eq(op(STORE_RESIZE, 0, 0, NULL, 0), -ESTALE);
	ck_assert_int_eq(flush(), -ESTALE);
	sim_run(&sim, 200 * SECOND);
	expect(cr.store, 0, 64 * KIB, out);
	expect_remote(0, 64 * KIB, store_zeros);
	ck_assert_uint_eq(status().dirty, 64 * KIB);
	end();
}
END_TEST

START_TEST(clean_blocks_are_dropped_when_the_remote_moves_on)
{
	begin(&(struct cache_rig_conf){.size = MIB, .size_max = 2 * MIB, .interval_ms = 100000});
	fill_remote(0, MIB);
	expect(cr.store, 0, MIB, out);
	ck_assert_int_eq(op(STORE_WRITE, 0, 64 * KIB, out + 64 * KIB, 0), 0);
	ck_assert_int_eq(sim_op(&sim, cr.memory[1], STORE_WRITE, 512 * KIB, 64 * KIB, out, 0), 0);
	expect(cr.store, 512 * KIB, 64 * KIB, out + 512 * KIB);
	cache_drop_clean(cr.cache, MIB + 512 * KIB);
	expect(cr.store, 512 * KIB, 64 * KIB, out);
	expect(cr.store, 0, 64 * KIB, out + 64 * KIB); /* dirty: ours */
	ck_assert_uint_eq(cache_size(cr.cache), MIB + 512 * KIB);
	end();
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
	struct start a;

	begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 10});
	fill_remote(0, MIB);
	hold(cr.remote, STORE_READ);
	start(&a, STORE_READ, 0, 4 * KIB, in, 0);
	cache_detach(cr.cache, &detach.call);
	ck_assert(!detach.done);
	fault_clear(cr.remote);
	fault_release(cr.remote, FAULT_FIRST_FIRST, 0);
	sim_run(&sim, MS);
	ck_assert(detach.done && a.sr.done);
	ck_assert_int_eq(op(STORE_WRITE, 0, 4 * KIB, out + 4 * KIB, 0), 0);
	start(&a, STORE_READ, 64 * KIB, 4 * KIB, in, 0);
	sim_run(&sim, SECOND);
	ck_assert(!a.sr.done && status().dirty == 4 * KIB);
	cache_attach(cr.cache, cr.remote);
	sim_run(&sim, SECOND);
	ck_assert(a.sr.done && a.sr.err == 0 && status().dirty == 0);
	ck_assert_mem_eq(in, out + 64 * KIB, 4 * KIB);
	end();
}
END_TEST

/* ---- the index ---- */

START_TEST(the_index_hears_of_dirty_until_it_is_flushed)
{
	struct cache_chunk chunks[8];

	begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 100000});
	ck_assert_int_eq(op(STORE_WRITE, 256 * KIB, 8 * KIB, out, 0), 0);
	ck_assert_uint_eq(cache_take_changed(cr.cache, chunks, 8), 1);
	ck_assert_uint_eq(chunks[0].idx, 1);
	ck_assert_uint_eq(chunks[0].resident, 3);
	ck_assert_uint_eq(chunks[0].dirty, 3);
	ck_assert_uint_eq(cache_take_changed(cr.cache, chunks, 8), 0);
	cache_give_back(cr.cache, chunks, 1);
	ck_assert_uint_eq(cache_take_changed(cr.cache, chunks, 8), 1);
	hold(cr.remote, STORE_FLUSH);
	pusher_set_interval(cr.pusher, 0, 0);
	sim_run(&sim, SECOND);
	ck_assert_uint_eq(fault_held(cr.remote), 1);
	ck_assert_uint_eq(status().dirty, 0);
	ck_assert_uint_eq(cache_take_changed(cr.cache, chunks, 8), 1);
	ck_assert_uint_eq(chunks[0].dirty, 3); /* pushed, but the donor may lose it */
	fault_clear(cr.remote);
	fault_release(cr.remote, FAULT_FIRST_FIRST, 0);
	sim_run(&sim, SECOND);
	ck_assert_uint_eq(cache_take_changed(cr.cache, chunks, 8), 1);
	ck_assert_uint_eq(chunks[0].resident, 3);
	ck_assert_uint_eq(chunks[0].dirty, 0);
	end();
}
END_TEST

/* The donor may lose it, and then nobody would have it. */
START_TEST(what_the_remote_has_not_flushed_is_not_evicted)
{
	begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 0});
	hold(cr.remote, STORE_FLUSH);
	ck_assert_int_eq(op(STORE_WRITE, 0, 256 * KIB, out, 0), 0);
	sim_run(&sim, 10 * MS);
	ck_assert_uint_eq(status().dirty, 0);
	ck_assert_uint_eq(cache_evict(cr.cache, 0, MIB), 0);
	fault_clear(cr.remote);
	fault_release(cr.remote, FAULT_FIRST_FIRST, 0);
	sim_run(&sim, SECOND);
	ck_assert_uint_eq(cache_evict(cr.cache, 0, MIB), 256 * KIB);
	end();
}
END_TEST

/* Pushes that the remote took after the FLUSH began, and one that it has not answered. */
START_TEST(a_failed_flush_takes_back_later_pushes)
{
	struct fault_counts counts;

	begin(&(struct cache_rig_conf){.size = MIB, .interval_ms = 0, .no_puller = true});
	fault_add(cr.remote, &(struct fault_rule){.kind = FAULT_DELAY,
				 .ops = FAULT_OP(STORE_FLUSH),
				 .count = 1,
				 .delay_ns = SECOND,
				 .err = -EIO});
	ck_assert_int_eq(op(STORE_WRITE, 0, 4 * KIB, out, 0), 0);
	sim_run(&sim, 200 * MS); /* pushed, and its FLUSH is under way */
	ck_assert_int_eq(op(STORE_WRITE, 256 * KIB, 4 * KIB, out, 0), 0);
	sim_run(&sim, 10 * MS);
	fault_add(cr.remote,
	    &(struct fault_rule){
		.kind = FAULT_HOLD, .ops = FAULT_OP(STORE_WRITE), .after = true, .count = 1});
	ck_assert_int_eq(op(STORE_WRITE, 512 * KIB, 4 * KIB, out, 0), 0);
	sim_run(&sim, 100 * MS);
	fault_count(cr.remote, &counts);
	ck_assert_uint_eq(counts.submitted[STORE_FLUSH], 1);
	ck_assert_uint_eq(counts.submitted[STORE_WRITE], 3);
	/* The donor forgets all of it, and says so. */
	ck_assert_int_eq(sim_op(&sim, cr.memory[1], STORE_ZERO, 0, MIB, NULL, 0), 0);
	sim_run(&sim, 2 * SECOND);
	fault_clear(cr.remote);
	fault_release(cr.remote, FAULT_FIRST_FIRST, 0);
	sim_run(&sim, 20 * SECOND);
	flush(); /* it may tell what went wrong before */
	ck_assert_int_eq(flush(), 0);
	expect_remote(0, 4 * KIB, out);
	expect_remote(256 * KIB, 4 * KIB, out);
	expect_remote(512 * KIB, 4 * KIB, out);
	end();
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
	tcase_add_test(tc, a_flush_fails_if_the_remote_writes_failed);
	tcase_add_test(tc, a_lost_answer_is_a_failure);
	tcase_add_test(tc, what_was_pushed_is_pushed_again_when_the_flush_fails);
	tcase_add_test(tc, a_stop_does_not_hang_after_errors);
	tcase_add_test(tc, fua_is_at_the_remote);
	tcase_add_test(tc, local_durability_flushes_and_commits);
	tcase_add_test(tc, writers_wait_at_max_dirty_and_readers_do_not);
	tcase_add_test(tc, the_bound_on_local_bytes_holds);
	tcase_add_test(tc, the_state_is_at_most_128_kib_per_gib);
	tcase_add_test(tc, a_scan_leaves_the_hot_set_alone);
	tcase_add_test(tc, pinned_chunks_stay);
	tcase_add_test(tc, a_frozen_cache_keeps_what_it_has);
	tcase_add_test(tc, clean_blocks_are_dropped_when_the_remote_moves_on);
	tcase_add_test(tc, a_detached_cache_waits_for_the_next_remote);
	tcase_add_test(tc, the_index_hears_of_dirty_until_it_is_flushed);
	tcase_add_test(tc, what_the_remote_has_not_flushed_is_not_evicted);
	tcase_add_test(tc, a_failed_flush_takes_back_later_pushes);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
