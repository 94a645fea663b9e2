/* SPDX-License-Identifier: Apache-2.0
 *
 * The fault layer does to requests what its script says, and nothing else.
 */
#include "core/fault.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/ramblk.h"
#include "tests/lib/rig.h"

enum { BLOCK = 4096, SIZE = 256 * BLOCK, HELD = 40 };

static struct rig rig;
static struct ramblk *disk;
static struct store *store;

static void setup(void)
{
	struct store *lower;

	rig_start(&rig, 2, 1); /* one worker: what is not held keeps its order */
	disk = ramblk_create(SIZE);
	ck_assert_int_eq(
	    blk_store_create(&ramblk_ops, disk, SIZE, 1, rig.workers, &lower, NULL), 0);
	ck_assert_int_eq(fault_create(lower, 7, &store, NULL), 0);
}

static void teardown(void)
{
	store_destroy(store);
	ramblk_destroy(disk);
	rig_stop(&rig);
}

static int write_block(unsigned block, uint8_t value)
{
	uint8_t buf[BLOCK];

	memset(buf, value, BLOCK);
	return rig_write(rig.loops[0], store, (uint64_t)block * BLOCK, buf, BLOCK, 0);
}

static int read_block(unsigned block, uint8_t *ret_value)
{
	uint8_t buf[BLOCK];
	int rc = rig_read(rig.loops[0], store, (uint64_t)block * BLOCK, buf, BLOCK);

	*ret_value = buf[0];
	return rc;
}

START_TEST(a_countdown_hits_what_it_says)
{
	struct fault_counts counts;
	uint8_t value;

	fault_add(store, &(struct fault_rule){
			     .kind = FAULT_FAIL,
			     .ops = FAULT_OP(STORE_WRITE),
			     .skip = 2,
			     .count = 3,
			     .err = -EIO,
			 });
	for (unsigned i = 0; i < 8; i++) {
		ck_assert_int_eq(write_block(i, 1), i >= 2 && i < 5 ? -EIO : 0);
		ck_assert_int_eq(read_block(i, &value), 0);
		ck_assert_uint_eq(value, i >= 2 && i < 5 ? 0 : 1);
	}
	fault_count(store, &counts);
	ck_assert_uint_eq(counts.submitted[STORE_WRITE], 8);
	ck_assert_uint_eq(counts.submitted[STORE_READ], 8);
	ck_assert_uint_eq(counts.hit[STORE_WRITE], 3);
	ck_assert_uint_eq(counts.hit[STORE_READ], 0);
	ck_assert_uint_eq(disk->calls, 8 - 3 + 8);
}
END_TEST

START_TEST(a_failure_after_reaches_the_lower_store)
{
	uint8_t value;

	fault_add(store,
	    &(struct fault_rule){.kind = FAULT_FAIL, .err = -EIO, .after = true, .count = 1});
	ck_assert_int_eq(write_block(3, 9), -EIO);
	ck_assert_int_eq(read_block(3, &value), 0);
	ck_assert_uint_eq(value, 9);
	/* The lower store's own failure is told as it is. */
	fault_add(store,
	    &(struct fault_rule){.kind = FAULT_FAIL, .err = -EIO, .after = true, .count = 1});
	ramblk_fail(disk, 1, -ENOSPC);
	ck_assert_int_eq(write_block(3, 9), -ENOSPC);
}
END_TEST

START_TEST(torn_writes_stop_where_they_are_told)
{
	uint8_t buf[4 * BLOCK], want[4 * BLOCK];

	memset(buf, 5, sizeof(buf));
	ck_assert_int_eq(rig_write(rig.loops[0], store, 0, buf, sizeof(buf), 0), 0);
	fault_add(store,
	    &(struct fault_rule){.kind = FAULT_TORN, .err = -EIO, .torn_bytes = 5000, .count = 2});
	memset(buf, 6, sizeof(buf));
	ck_assert_int_eq(rig_write(rig.loops[0], store, 0, buf, sizeof(buf), 0), -EIO);
	memset(want, 5, sizeof(want));
	memset(want, 6, 5000);
	rig_expect(rig.loops[0], store, 0, sizeof(want), want);
	ck_assert_int_eq(rig_op(rig.loops[0], store, STORE_ZERO, 100, 10000, 0), -EIO);
	memset(want + 100, 0, 5000);
	rig_expect(rig.loops[0], store, 0, sizeof(want), want);
}
END_TEST

/* ---- holding ---- */

struct seen {
	struct store_req req;
	unsigned number;
};

static struct seen held[HELD];
static unsigned seen_order[HELD], seen_count;
static _Atomic unsigned seen_all;
static int seen_err[HELD];

static void seen_done(struct store_req *req, int err)
{
	struct seen *seen = (struct seen *)req;

	seen_err[seen->number] = err;
	seen_order[seen_count++] = seen->number;
	seen_all++;
}

static void submit_held(void *ctx)
{
	static uint8_t bufs[HELD][BLOCK];

	for (unsigned i = 0; i < HELD; i++) {
		memset(bufs[i], (int)i + 1, BLOCK);
		held[i].number = i;
		held[i].req = (struct store_req){
		    .op = STORE_WRITE,
		    .off = (uint64_t)i * BLOCK,
		    .len = BLOCK,
		    .buf = bufs[i],
		    .done = seen_done,
		};
		store_submit(store, &held[i].req);
	}
}

static void wait_held(unsigned count)
{
	while (fault_held(store) < count)
		usleep(100);
}

static void wait_seen(unsigned count)
{
	while (seen_all < count)
		usleep(100);
}

static void hold_all(bool after)
{
	seen_count = seen_all = 0;
	fault_clear(store);
	fault_add(store, &(struct fault_rule){.kind = FAULT_HOLD, .after = after});
	rig_call(rig.loops[0], submit_held, NULL);
	wait_held(HELD);
	ck_assert_uint_eq(seen_all, 0);
	ck_assert_uint_eq(disk->calls, after ? HELD : 0);
}

START_TEST(held_requests_go_on_when_released)
{
	hold_all(false);
	fault_release(store, FAULT_FIRST_FIRST, 10);
	wait_seen(10);
	usleep(1000);
	ck_assert_uint_eq(seen_all, 10);
	ck_assert_uint_eq(fault_held(store), HELD - 10);
	ck_assert_uint_eq(disk->calls, 10);
	fault_release(store, FAULT_FIRST_FIRST, 0);
	wait_seen(HELD);
	for (unsigned i = 0; i < HELD; i++)
		ck_assert_int_eq(seen_err[i], 0);
	ck_assert_uint_eq(disk->calls, HELD);
}
END_TEST

START_TEST(held_answers_come_in_the_order_of_their_release)
{
	unsigned moved = 0;

	hold_all(true);
	fault_release(store, FAULT_FIRST_FIRST, 5);
	wait_seen(5);
	fault_release(store, FAULT_LAST_FIRST, 0);
	wait_seen(HELD);
	for (unsigned i = 0; i < HELD; i++)
		ck_assert_uint_eq(seen_order[i], i < 5 ? i : HELD + 4 - i);
	disk->calls = 0;
	hold_all(true);
	fault_release(store, FAULT_SHUFFLED, 0);
	wait_seen(HELD);
	for (unsigned i = 0; i < HELD; i++)
		moved += seen_order[i] != i;
	ck_assert_uint_gt(moved, HELD / 2);
}
END_TEST

static void interrupt_third(void *ctx)
{
	store_interrupt(&held[3].req);
	store_interrupt(&held[3].req); /* idle by now: nothing happens */
}

START_TEST(a_held_request_can_be_interrupted)
{
	hold_all(false);
	rig_call(rig.loops[0], interrupt_third, NULL);
	ck_assert_uint_eq(seen_all, 1);
	ck_assert_uint_eq(seen_order[0], 3);
	ck_assert_int_eq(seen_err[3], -EINTR);
	fault_release(store, FAULT_LAST_FIRST, 0);
	wait_seen(HELD);
	ck_assert_uint_eq(disk->calls, HELD - 1);
}
END_TEST

START_TEST(a_delayed_request_can_be_interrupted)
{
	fault_add(store, &(struct fault_rule){.kind = FAULT_DELAY, .delay_ns = 300000000});
	rig_call(rig.loops[0], submit_held, NULL);
	rig_call(rig.loops[0], interrupt_third, NULL);
	ck_assert_uint_eq(seen_all, 1);
	ck_assert_int_eq(seen_err[3], -EINTR);
	/* The others come in time, and of this one nothing is left that could. */
	wait_seen(HELD);
	usleep(10000);
	ck_assert_uint_eq(seen_all, HELD);
	ck_assert_uint_eq(disk->calls, HELD - 1);
}
END_TEST

/* ---- delays ---- */

START_TEST(delays_last_and_end)
{
	uint64_t start = loop_now_ns();
	uint8_t value;

	fault_add(
	    store, &(struct fault_rule){.kind = FAULT_DELAY, .delay_ns = 20000000, .count = 1});
	fault_add(store, &(struct fault_rule){
			     .kind = FAULT_DELAY,
			     .delay_ns = 20000000,
			     .after = true,
			     .err = -ETIMEDOUT,
			 });
	ck_assert_int_eq(write_block(1, 1), 0);
	ck_assert_uint_ge(loop_now_ns() - start, 20000000);
	start = loop_now_ns();
	ck_assert_int_eq(write_block(1, 2), -ETIMEDOUT);
	ck_assert_uint_ge(loop_now_ns() - start, 20000000);
	fault_clear(store);
	ck_assert_int_eq(read_block(1, &value), 0);
	ck_assert_uint_eq(value, 2);
}
END_TEST

START_TEST(jitter_reorders)
{
	unsigned moved = 0;

	fault_add(
	    store, &(struct fault_rule){.kind = FAULT_DELAY, .after = true, .jitter_ns = 20000000});
	rig_call(rig.loops[0], submit_held, NULL);
	wait_seen(HELD);
	for (unsigned i = 0; i < HELD; i++)
		moved += seen_order[i] != i;
	ck_assert_uint_gt(moved, HELD / 2);
}
END_TEST

/* Rules are asked in turn: each counts only what the ones before it let pass. */
START_TEST(rules_stand_in_line)
{
	fault_add(
	    store, &(struct fault_rule){.kind = FAULT_FAIL, .skip = 1, .count = 1, .err = -EIO});
	fault_add(
	    store, &(struct fault_rule){.kind = FAULT_FAIL, .skip = 2, .count = 1, .err = -ENOSPC});
	ck_assert_int_eq(write_block(0, 1), 0); /* 1st for both */
	ck_assert_int_eq(write_block(0, 1), -EIO);
	ck_assert_int_eq(write_block(0, 1), 0); /* 2nd for the second */
	ck_assert_int_eq(write_block(0, 1), -ENOSPC);
	ck_assert_int_eq(write_block(0, 1), 0);
}
END_TEST

/* Two loops hold requests; a release from a third thread ends each on its own loop. */
START_TEST(releases_find_their_loops)
{
	static struct rig_req reqs[2][20];
	static uint8_t buf[BLOCK];
	struct rig_wait *waits[2];

	fault_add(store, &(struct fault_rule){.kind = FAULT_HOLD, .after = true});
	for (unsigned l = 0; l < 2; l++) {
		for (unsigned i = 0; i < 20; i++)
			reqs[l][i].req = (struct store_req){
			    .op = STORE_WRITE,
			    .off = (uint64_t)i * BLOCK,
			    .len = BLOCK,
			    .buf = buf,
			};
		waits[l] = rig_begin(rig.loops[l], store, reqs[l], 20);
	}
	wait_held(40);
	fault_release(store, FAULT_SHUFFLED, 0);
	for (unsigned l = 0; l < 2; l++)
		rig_end(waits[l]);
	ck_assert_uint_eq(fault_held(store), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("fault");
	TCase *tc = tcase_create("fault");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, a_countdown_hits_what_it_says);
	tcase_add_test(tc, a_failure_after_reaches_the_lower_store);
	tcase_add_test(tc, torn_writes_stop_where_they_are_told);
	tcase_add_test(tc, held_requests_go_on_when_released);
	tcase_add_test(tc, held_answers_come_in_the_order_of_their_release);
	tcase_add_test(tc, a_held_request_can_be_interrupted);
	tcase_add_test(tc, a_delayed_request_can_be_interrupted);
	tcase_add_test(tc, delays_last_and_end);
	tcase_add_test(tc, jitter_reorders);
	tcase_add_test(tc, rules_stand_in_line);
	tcase_add_test(tc, releases_find_their_loops);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
