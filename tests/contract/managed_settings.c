/* SPDX-License-Identifier: Apache-2.0
 *
 * The settings of one region of the managed pool: durability, pull order, pins.  That they do what they say, at once
 * and in the lives that follow; what they are as attributes is in managed.c.
 *
 * Each test runs in the four combinations (tests/lib/managed_rig.h), or with a directory only.
 */
#include <check.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/managed_rig.h"

/* Whether an open file's FLUSH leaves what was written to the pusher. */
static bool flush_leaves(struct handle *handle)
{
	uint64_t dirty;

	mr.data[0]++;
	mr_put(handle, 0, mr.data, MIB);
	ck_assert_int_eq(mr_flush(handle), 0);
	dirty = mr_look("r").region.cache.dirty;
	if (dirty == 0)
		mr_other_reads("r", 0, mr.data, MIB);
	else
		ck_assert_uint_eq(dirty, MIB);
	return dirty != 0;
}

static void set_durability(const char *text)
{
	char value[16];

	strcpy(value, text);
	ck_assert_int_eq(mr_set_xattr("r", "user.remram.durability", value), 0);
}

static int clear(const char *name)
{
	struct pool_req req = {.op = POOL_REMOVEXATTR, .id = mr_id_of(&mr.top, "r"), .name = name};

	return client_ask(&mr.top, &req);
}

START_TEST(durability_of_a_region)
{
	struct handle *handle;

	mr_setup(_i);
	mr.conf.push_interval_ms = 600000; /* only what waits for it is pushed */
	mr_begin();
	handle = client_create(&mr.top, "r");
	ck_assert(!flush_leaves(handle)); /* as the mount says */
	set_durability("none");
	ck_assert(flush_leaves(handle));
	ck_assert_int_eq(mr_look("r").region.durability, CACHE_NONE);
	set_durability("remote");
	ck_assert(!flush_leaves(handle));
	if (mr.has_dir) {
		set_durability("local");
		ck_assert(flush_leaves(handle));
	}
	set_durability("none");
	ck_assert_int_eq(clear("user.remram.durability"), 0);
	ck_assert(!flush_leaves(handle));
	client_close_handle(&mr.top, handle);
	mr_end(false);

	/* The other way round. */
	mr.conf.durability = CACHE_NONE;
	mr_begin();
	handle = mr_open(&mr.top, "r", POOL_READ | POOL_WRITE);
	ck_assert(flush_leaves(handle));
	set_durability("remote");
	ck_assert(!flush_leaves(handle));
	set_durability("");
	ck_assert(flush_leaves(handle));
	client_close_handle(&mr.top, handle);
	mr_end(false);
	mr_other_reads("r", 0, mr.data, MIB);
	mr_teardown();
}
END_TEST

START_TEST(durability_is_kept)
{
	struct handle *handle;
	char text[16];

	mr_setup(_i);
	mr.conf.push_interval_ms = 600000;
	mr_begin();
	handle = client_create(&mr.top, "r");
	set_durability("none");
	client_close_handle(&mr.top, handle);
	mr_end(false);
	mr_begin();
	handle = mr_open(&mr.top, "r", POOL_READ | POOL_WRITE);
	ck_assert_int_eq(mr_get_xattr("r", "user.remram.durability", text, sizeof(text)), 0);
	ck_assert_str_eq(text, "none");
	ck_assert(flush_leaves(handle));
	client_close_handle(&mr.top, handle);
	mr_end(false);
	mr_teardown();
}
END_TEST

/* ---- `remram flush` ---- */

struct ask {
	struct managed_job job;
	_Atomic int err; /* 1 until done */
	uint64_t id;
	int rc;
};

static void job_done(struct managed_job *job, int err)
{
	((struct ask *)job)->err = err;
}

static void flush_now(void *ctx)
{
	managed_flush(mr.top.pool, ctx);
}

START_TEST(a_flush_job_pushes_whatever_is_promised)
{
	static const char *const names[] = {"none", "local"};
	struct handle *handle;

	mr_setup(_i);
	mr.conf.push_interval_ms = 600000;
	mr_begin();
	handle = client_create(&mr.top, "r");
	for (unsigned i = 0; i < (mr.has_dir ? 2 : 1); i++) {
		struct ask ask = {.job = {.id = handle->region_id, .done = job_done}, .err = 1};

		set_durability(names[i]);
		ck_assert(flush_leaves(handle));
		rig_call(mr.top.loop, flush_now, &ask);
		for (unsigned tries = 0; tries < MR_WAIT_TRIES && ask.err == 1; tries++)
			usleep(MR_WAIT_US);
		ck_assert_int_eq(ask.err, 0);
		ck_assert_uint_eq(mr_look("r").region.cache.dirty, 0);
		mr_other_reads("r", 0, mr.data, MIB);
	}
	client_close_handle(&mr.top, handle);
	mr_end(false);
	mr_teardown();
}
END_TEST

/* ---- what is pulled first ---- */

enum { RUNS = 16 };

struct runs {
	uint64_t id;
	struct cache_run runs[RUNS];
	int count;
};

static void get_runs(void *ctx)
{
	struct runs *runs = ctx;

	runs->count = managed_runs(mr.top.pool, runs->id, 0, 4 * MIB, runs->runs, RUNS);
}

/* Waits until so many of r's bytes are here; they are the 1 MiB pieces of `which`, a bit each. */
static void wait_resident(unsigned which)
{
	uint64_t bytes = (uint64_t)__builtin_popcount(which) * MIB, pos = 0;
	struct runs runs = {.id = mr_id_of(&mr.top, "r")};

	for (unsigned i = 0; i < MR_WAIT_TRIES; i++) {
		struct mr_look look = mr_look("r");

		if (look.region.cache.resident >= bytes && !look.region.puller.active)
			break;
		usleep(MR_WAIT_US);
	}
	ck_assert_uint_eq(mr_look("r").region.cache.resident, bytes);
	rig_call(mr.top.loop, get_runs, &runs);
	ck_assert_int_gt(runs.count, 0);
	for (int i = 0; i < runs.count; i++, pos += runs.runs[i - 1].len)
		ck_assert_int_eq(runs.runs[i].resident, which >> pos / MIB & 1);
	ck_assert_uint_eq(pos, 4 * MIB);
}

START_TEST(the_order_of_a_region_and_of_the_mount)
{
	static const struct pull_range order[] = {{.off = 2 * MIB, .len = MIB, .prio = 1}};
	struct handle *handle;

	mr_setup(_i);
	handle = client_create(&mr.other, "r");
	for (unsigned i = 0; i < 4; i++)
		mr_put(handle, i * MIB, mr.data + i * MIB, MIB);
	client_close_handle(&mr.other, handle);
	mr.conf.pull = PULL_SEQUENTIAL;
	mr.conf.order = order;
	mr.conf.order_count = 1;
	mr_begin();
	handle = mr_open(&mr.top, "r", POOL_READ);
	wait_resident(1 << 2); /* as the mount says */
	ck_assert_int_eq(mr_set_xattr("r", "user.remram.pull_order", (char[]){"0-1M:7"}), 0);
	wait_resident(1 << 2 | 1 << 0);
	/* The mount's again; the next life looks at it as the first did. */
	ck_assert_int_eq(clear("user.remram.pull_order"), 0);
	wait_resident(1 << 2 | 1 << 0);
	for (unsigned i = 0; i < MR_WAIT_TRIES && mr_look("r").region.cache.resident; i++) {
		ck_assert_int_eq(mr_evict(handle->region_id), 0);
		usleep(MR_WAIT_US);
	}
	/* One that is set replaces the mount's: what the region keeps for itself is all that comes. */
	ck_assert_int_eq(mr_set_xattr("r", "user.remram.pull_order", (char[]){"3M-4M:1"}), 0);
	wait_resident(1 << 3);
	client_close_handle(&mr.top, handle);
	mr_end(false);
	mr_teardown();
}
END_TEST

/* ---- what is not evicted ---- */

static void pin_now(void *ctx)
{
	struct ask *ask = ctx;

	ask->rc = managed_pin(mr.top.pool, ask->id, MIB, MIB, true);
}

/* Evicts what goes within a while: what is left, in bytes. */
static uint64_t evict_to(uint64_t id, uint64_t bytes)
{
	for (unsigned i = 0; i < MR_WAIT_TRIES && mr_look("r").region.cache.local > bytes; i++) {
		ck_assert_int_eq(mr_evict(id), 0);
		usleep(MR_WAIT_US);
	}
	return mr_look("r").region.cache.local;
}

START_TEST(a_pin_outlives_the_mount)
{
	struct handle *handle;
	struct ask ask;
	char text[64];

	mr_setup(_i);
	mr_begin();
	handle = client_create(&mr.top, "r");
	for (unsigned i = 0; i < 4; i++)
		mr_put(handle, i * MIB, mr.data + i * MIB, MIB);
	ask.id = handle->region_id;
	rig_call(mr.top.loop, pin_now, &ask);
	ck_assert_int_eq(ask.rc, 0);
	client_close_handle(&mr.top, handle);
	mr_end(false);
	mr_begin();
	/* Also while nobody has it open. */
	ck_assert_int_eq(mr_get_xattr("r", "user.remram.pinned", text, sizeof(text)), 0);
	ck_assert_str_eq(text, "1M-2M");
	handle = mr_open(&mr.top, "r", POOL_READ);
	ck_assert_uint_eq(mr_look("r").region.cache.local, 4 * MIB);
	ck_assert_uint_eq(evict_to(ask.id, MIB), MIB);
	ck_assert_int_eq(mr_evict(ask.id), 0);
	ck_assert_uint_eq(mr_look("r").region.cache.local, MIB);
	mr_reads(handle, MIB, mr.data + MIB, MIB);
	ck_assert_uint_eq(mr_look("r").region.cache.fetched, 0);
	client_close_handle(&mr.top, handle);
	mr_end(false);
	mr_teardown();
}
END_TEST

static Suite *suite(void)
{
	const TTest *const everywhere[] = {durability_of_a_region,
	    a_flush_job_pushes_whatever_is_promised, the_order_of_a_region_and_of_the_mount};
	const TTest *const with_dir[] = {durability_is_kept, a_pin_outlives_the_mount};
	Suite *s = suite_create("managed_settings");
	TCase *tc = tcase_create("settings");

	tcase_set_timeout(tc, 60);
	tcase_add_unchecked_fixture(tc, rig_tmpdirs_begin, rig_tmpdirs_end);
	for (size_t i = 0; i < sizeof(everywhere) / sizeof(everywhere[0]); i++)
		tcase_add_loop_test(tc, everywhere[i], 0, MR_STACKS);
	for (size_t i = 0; i < sizeof(with_dir) / sizeof(with_dir[0]); i++) {
		tcase_add_loop_test(tc, with_dir[i], MR_LOCAL_DIR, MR_LOCAL_DIR + 1);
		tcase_add_loop_test(tc, with_dir[i], MR_PEER_DIR, MR_PEER_DIR + 1);
	}
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
