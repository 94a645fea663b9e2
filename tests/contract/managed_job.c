/* SPDX-License-Identifier: Apache-2.0
 *
 * The managed pool: jobs, recordings, pins, and more data than a cache holds.
 *
 * Each test runs in the four combinations (tests/lib/managed_rig.h).
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/managed_rig.h"

struct ask {
	struct managed_job job;
	struct managed_drain drain;
	_Atomic int err; /* 1 until done */
	uint64_t id, bytes;
	int rc;
};

static void job_done(struct managed_job *job, int err)
{
	((struct ask *)job)->err = err;
}

static void drain_done(struct managed_drain *drain, int err)
{
	struct ask *ask = (struct ask *)((char *)drain - offsetof(struct ask, drain));

	ask->err = err;
}

static void pull_now(void *ctx)
{
	managed_pull(mr.top.pool, ctx);
}

static void drain_now(void *ctx)
{
	managed_drain(mr.top.pool, &((struct ask *)ctx)->drain);
}

static void pin_now(void *ctx)
{
	struct ask *ask = ctx;

	ask->rc = managed_pin(mr.top.pool, ask->id, 0, 512 * 1024, true);
}

static void record_now(void *ctx)
{
	struct ask *ask = ctx;

	ask->rc = managed_record(mr.top.pool, ask->id, ask->bytes);
}

static int wait_ask(struct ask *ask)
{
	for (unsigned i = 0; i < MR_WAIT_TRIES && ask->err == 1; i++)
		usleep(MR_WAIT_US);
	return ask->err;
}

START_TEST(jobs)
{
	struct ask ask = {.job.done = job_done, .drain.done = drain_done, .err = 1};
	struct handle *handle;
	char text[64];

	mr_setup(_i);
	mr.conf.push_interval_ms = 600000;
	mr_begin();
	handle = client_create(&mr.top, "r");
	for (unsigned i = 0; i < 4; i++)
		mr_put(handle, i * MIB, mr.data + i * MIB, MIB);
	rig_call(mr.top.loop, drain_now, &ask);
	ck_assert_int_eq(wait_ask(&ask), 0);
	mr_other_reads("r", 0, mr.data, 4 * MIB);
	ask.id = ask.job.id = handle->region_id;
	rig_call(mr.top.loop, pin_now, &ask);
	ck_assert_int_eq(ask.rc, 0);
	ck_assert_int_eq(mr_get_xattr("r", "user.remram.pinned", text, sizeof(text)), 0);
	ck_assert_str_eq(text, "0-512K");
	/* With a directory a commit comes first. */
	ck_assert_int_eq(mr_flush(handle), 0);
	for (unsigned i = 0; i < MR_WAIT_TRIES && mr_look("r").region.cache.local > 512 * 1024;
	     i++) {
		ck_assert_int_eq(mr_evict(ask.id), 0);
		usleep(MR_WAIT_US);
	}
	ck_assert_uint_eq(mr_look("r").region.cache.local, 512 * 1024);
	client_close_handle(&mr.top, handle);
	ask.err = 1;
	rig_call(mr.top.loop, pull_now, &ask);
	ck_assert_int_eq(wait_ask(&ask), 0);
	ck_assert_uint_eq(mr_look("r").region.cache.resident, 4 * MIB);
	ck_assert_uint_eq(mr_look("r").region.cache.fetched, 4 * MIB - 512 * 1024);
	mr_end(false);
	mr_teardown();
}
END_TEST

static struct pull_range ranges[16];
static int range_count;

static void recorded_now(void *ctx)
{
	bool cut = true;

	range_count = managed_recorded(mr.top.pool, ((struct ask *)ctx)->id, ranges, 16, &cut);
	ck_assert(!cut);
}

START_TEST(recordings)
{
	struct ask ask = {.bytes = 1};
	struct handle *handle, *reader;

	mr_setup(_i);
	mr_begin();
	handle = client_create(&mr.top, "r");
	mr_put(handle, 3 * MIB, mr.data, MIB);
	ask.id = handle->region_id;
	rig_call(mr.top.loop, record_now, &ask);
	ck_assert_int_eq(ask.rc, 0);
	reader = mr_open(&mr.top, "r", POOL_READ);
	mr_reads(reader, 3 * MIB + 5, mr.data + 5, 100000);
	mr_reads(reader, 3 * MIB + 5, mr.data + 5, 100000);
	ck_assert_int_eq(rig_read(mr.rig.loops[0], &reader->store, 0, mr.back, 4096), 0);
	client_close_handle(&mr.top, reader);
	rig_call(mr.top.loop, recorded_now, &ask);
	ck_assert_int_eq(range_count, 2);
	ck_assert_uint_eq(ranges[0].off, 3 * MIB);
	ck_assert_uint_eq(ranges[0].len, 128 * 1024);
	ck_assert_uint_eq(ranges[1].off, 0);
	ck_assert_int_gt(ranges[0].prio, ranges[1].prio);
	client_close_handle(&mr.top, handle);
	mr_end(false);
	mr_teardown();
}
END_TEST

/* More data than the cache holds: everything goes out, and comes back. */
START_TEST(small_cache)
{
	struct handle *handle;

	mr_setup(_i);
	mr.conf.cache_size = 16 * MIB;
	mr.conf.max_dirty = 8 * MIB;
	mr_begin();
	handle = client_create(&mr.top, "r");
	for (unsigned i = 0; i < 64; i++) {
		mr.data[0] = (uint8_t)i;
		mr_put(handle, (uint64_t)i * MIB, mr.data, MIB);
	}
	ck_assert_int_eq(mr_flush(handle), 0);
	for (unsigned i = 0; i < 64; i++) {
		mr.data[0] = (uint8_t)i;
		mr_reads(handle, (uint64_t)i * MIB, mr.data, MIB);
	}
	ck_assert_uint_gt(mr_look("r").region.cache.evicted, 0);
	ck_assert_uint_le(mr_look("r").region.cache.local, 24 * MIB);
	client_close_handle(&mr.top, handle);
	mr_end(false);
	mr_teardown();
}
END_TEST

static Suite *suite(void)
{
	const TTest *const tests[] = {jobs, recordings, small_cache};
	Suite *s = suite_create("managed_job");
	TCase *tc = tcase_create("jobs");

	tcase_set_timeout(tc, 60);
	tcase_add_unchecked_fixture(tc, rig_tmpdirs_begin, rig_tmpdirs_end);
	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		tcase_add_loop_test(tc, tests[i], 0, MR_STACKS);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	SRunner *runner = srunner_create(suite());
	int failed;

	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
