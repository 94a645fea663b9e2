/* SPDX-License-Identifier: Apache-2.0
 *
 * The blocking adapter over a disk in memory: how many calls run at once, who waits, who answers
 * where, and each call failing in turn.
 */
#include "core/blk.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/ramblk.h"
#include "tests/lib/rig.h"

enum { BLOCK = 4096, BLOCKS = 1024, SIZE = BLOCKS * BLOCK, WORKERS = 3, MANY = 700 };

static struct rig rig;
static struct ramblk *disk;
static struct store *store;

static void setup(void)
{
	rig_start(&rig, 3, WORKERS);
	disk = ramblk_create(SIZE);
	ck_assert_int_eq(
	    blk_store_create(&ramblk_ops, disk, SIZE, 1, rig.workers, &store, NULL), 0);
}

static void teardown(void)
{
	store_destroy(store);
	ramblk_destroy(disk);
	rig_stop(&rig);
}

static void fill(struct rig_req *reqs, unsigned count, enum store_op op, uint8_t *bufs)
{
	memset(reqs, 0, count * sizeof(*reqs));
	for (unsigned i = 0; i < count; i++)
		reqs[i].req = (struct store_req){
		    .op = op,
		    .off = (uint64_t)i * BLOCK,
		    .len = BLOCK,
		    .buf = bufs + (size_t)i * BLOCK,
		};
}

static unsigned running(void)
{
	unsigned n;

	pthread_mutex_lock(&disk->mu);
	n = disk->running;
	pthread_mutex_unlock(&disk->mu);
	return n;
}

static void wait_for_workers(void)
{
	while (running() < WORKERS)
		usleep(100);
}

/* With the disk stuck, all workers hang in it; every request beyond waits, and all come back, each on
 * its own loop (rig_end asserts that), whatever loop's request made room. */
START_TEST(three_loops_share_the_slots)
{
	static struct rig_req reqs[3][MANY];
	static uint8_t bufs[MANY * BLOCK];
	struct rig_wait *waits[3];

	for (unsigned round = 0; round < 3; round++) {
		ramblk_gate(disk, false);
		for (unsigned l = 0; l < 3; l++) {
			fill(reqs[l], MANY, STORE_WRITE, bufs);
			waits[l] = rig_begin(rig.loops[l], store, reqs[l], MANY);
		}
		wait_for_workers();
		ck_assert_uint_eq(store->in_flight, 3 * MANY);
		ramblk_gate(disk, true);
		for (unsigned l = 0; l < 3; l++) {
			rig_end(waits[l]);
			for (unsigned i = 0; i < MANY; i++)
				rig_check(reqs[l][i].err == 0, "%d", reqs[l][i].err);
		}
	}
	ck_assert_uint_eq(disk->calls, 3 * 3 * MANY);
	ck_assert_uint_le(disk->running_max, WORKERS);
	ck_assert_uint_eq(store->in_flight, 0);
}
END_TEST

struct order {
	struct store *store;
	struct store_req reqs[MANY];
	unsigned seen[MANY];
	unsigned count;
	_Atomic bool over;
};

static struct order order;

static void order_done(struct store_req *req, int err)
{
	order.seen[order.count++] = (unsigned)(req - order.reqs);
	if (order.count == MANY)
		order.over = true;
}

static void order_submit(void *ctx)
{
	for (unsigned i = 0; i < MANY; i++)
		store_submit(order.store, &order.reqs[i]);
}

/* What waits is served in the order in which it came.  One worker: else the workers overtake each
 * other. */
START_TEST(requests_wait_in_order)
{
	static uint8_t buf[BLOCK];
	struct ramblk *other = ramblk_create(SIZE);
	struct workers *one;

	ck_assert_int_eq(workers_create(1, &one, NULL), 0);
	ck_assert_int_eq(blk_store_create(&ramblk_ops, other, SIZE, 1, one, &order.store, NULL), 0);
	for (unsigned i = 0; i < MANY; i++)
		order.reqs[i] = (struct store_req){
		    .op = STORE_WRITE,
		    .off = (uint64_t)i * BLOCK,
		    .len = BLOCK,
		    .buf = buf,
		    .done = order_done,
		};
	rig_call(rig.loops[0], order_submit, NULL);
	while (!order.over)
		usleep(100);
	for (unsigned i = 0; i < MANY; i++)
		rig_check(order.seen[i] == i, "request %u came as number %u", order.seen[i], i);
	store_destroy(order.store);
	ramblk_destroy(other);
	workers_destroy(one);
}
END_TEST

/* What pread_nowait has is answered on the loop even if every worker hangs; the rest needs a call. */
START_TEST(cached_reads_pass_a_stuck_disk)
{
	uint8_t want[BLOCK], got[BLOCK] = {0};
	static struct rig_req stuck[8];
	static uint8_t bufs[8 * BLOCK];
	struct rig_wait *wait;

	memset(want, 0x42, sizeof(want));
	ck_assert_int_eq(rig_write(rig.loops[0], store, 64 * BLOCK, want, BLOCK, 0), 0);
	ck_assert_int_eq(rig_read(rig.loops[0], store, 64 * BLOCK, got, BLOCK), 0);
	ck_assert_uint_eq(disk->nowaits, 1);
	ck_assert_uint_eq(disk->calls, 2);
	ck_assert_mem_eq(got, want, BLOCK);
	ramblk_gate(disk, false);
	fill(stuck, 8, STORE_WRITE, bufs);
	wait = rig_begin(rig.loops[0], store, stuck, 8);
	wait_for_workers();
	pthread_mutex_lock(&disk->mu);
	disk->cached = true;
	pthread_mutex_unlock(&disk->mu);
	memset(got, 0, sizeof(got));
	ck_assert_int_eq(rig_read(rig.loops[0], store, 64 * BLOCK, got, BLOCK), 0);
	ck_assert_mem_eq(got, want, BLOCK);
	ck_assert_uint_eq(disk->calls, 2);
	ramblk_gate(disk, true);
	rig_end(wait);
}
END_TEST

/* Without the optional ops: one allocated extent, at once, and the size that create was told. */
START_TEST(optional_ops_have_a_default)
{
	struct ramblk *other = ramblk_create(SIZE);
	struct store_stat stat;
	struct extent ext;
	struct store *plain;
	unsigned n;

	ck_assert_int_eq(
	    blk_store_create(&ramblk_plain_ops, other, SIZE, 512, rig.workers, &plain, NULL), 0);
	ck_assert_uint_eq(plain->align, 512);
	ck_assert_str_eq(plain->ops->name, "ramblk-plain");
	ck_assert_int_eq(rig_extents(rig.loops[0], plain, BLOCK, 5 * BLOCK, &ext, 1, &n), 0);
	ck_assert_uint_eq(n, 1);
	ck_assert(ext.off == BLOCK && ext.len == 5 * BLOCK && ext.flags == 0);
	ck_assert_uint_eq(other->calls, 0);
	ck_assert_int_eq(store_stat(plain, &stat), 0);
	ck_assert_uint_eq(stat.size, SIZE);
	ck_assert_uint_eq(stat.allocated, SIZE);
	store_destroy(plain);
	ramblk_destroy(other);
}
END_TEST

static struct rig_req life[STORE_OPS * 4];

/* Every operation on blocks of its own, four times; the n-th call to the disk fails. */
static bool fail_call(void *ctx, unsigned n)
{
	static uint8_t bufs[STORE_OPS * 4 * BLOCK];
	static struct extent extents[STORE_OPS * 4];
	unsigned errors = 0;
	bool failed;

	setup();
	ramblk_fail(disk, n, -EIO);
	memset(life, 0, sizeof(life));
	for (unsigned i = 0; i < STORE_OPS * 4; i++) {
		enum store_op op = i % STORE_OPS;
		bool bare = op == STORE_FLUSH || op == STORE_RESIZE;

		memset(bufs + (size_t)i * BLOCK, (int)i + 1, BLOCK);
		life[i].req = (struct store_req){
		    .op = op,
		    .off = op == STORE_RESIZE ? SIZE
			   : bare             ? 0
					      : (uint64_t)i * BLOCK,
		    .len = bare ? 0 : BLOCK,
		    .buf = bufs + (size_t)i * BLOCK,
		    .extents = &extents[i],
		    .extents_max = 1,
		};
	}
	rig_submit(rig.loops[0], store, life, STORE_OPS * 4);
	for (unsigned i = 0; i < STORE_OPS * 4; i++) {
		if (life[i].err) {
			ck_assert_int_eq(life[i].err, -EIO);
			errors++;
		} else if (life[i].req.op == STORE_WRITE) {
			rig_expect(rig.loops[0], store, life[i].req.off, BLOCK, life[i].req.buf);
		}
	}
	failed = ramblk_failed(disk);
	/* Checking reads too: the failure may have hit one of those only in the last run. */
	ck_assert_uint_eq(errors, n <= STORE_OPS * 4);
	ck_assert_uint_eq(store->in_flight, 0);
	teardown();
	return failed && n < STORE_OPS * 4;
}

START_TEST(each_call_fails_in_turn)
{
	ck_assert_uint_eq(rig_fail_each(fail_call, NULL, 100), STORE_OPS * 4 - 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("blk");
	TCase *tc = tcase_create("blk"), *alone = tcase_create("alone");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, three_loops_share_the_slots);
	tcase_add_test(tc, requests_wait_in_order);
	tcase_add_test(tc, cached_reads_pass_a_stuck_disk);
	tcase_add_test(tc, optional_ops_have_a_default);
	suite_add_tcase(suite, tc);
	tcase_set_timeout(alone, 60);
	tcase_add_test(alone, each_call_fails_in_turn);
	suite_add_tcase(suite, alone);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
