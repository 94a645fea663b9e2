/* SPDX-License-Identifier: Apache-2.0
 *
 * Leases and versions where things happen at the same time: writes that end halfway, writers that share a
 * region on several loops, a donor that dies while one that has lost its lease still writes.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/local_pool.h"
#include "core/region.h"
#include "tests/lib/donor.h"
#include "tests/lib/raw.h"
#include "tests/lib/rig.h"

enum {
	BIG = 1024 * 1024,
	QUARTER = BIG / 4,
	WAITING = 128 * 1024, /* so much of a payload may wait in the socket (core/conn.c) */
	ROUNDS = 2000,
};

/* ---- half a write ---- */

static struct donor donor;
static struct raw a, b;
static uint64_t id; /* of region "r" */

static const char *const args[] = {"--pool", "ram=memory:?size=64M", "--pool",
    "disk=file:DIR/disk?size=64M", "--lease", "1s", NULL};

static void donor_setup(void)
{
	donor_start(&donor, args);
	a.fd = b.fd = -1;
}

static void donor_teardown(void)
{
	raw_close(&a);
	raw_close(&b);
	donor_stop(&donor);
}

static uint64_t version_of(struct raw *raw)
{
	struct pool_req req = {.op = POOL_GETATTR, .id = id};

	ck_assert_int_eq(raw_control(raw, &req, 0, 0), 0);
	return req.attr.version;
}

static void wait_for_byte(struct raw *raw, uint64_t off, uint8_t want)
{
	uint8_t got = 0;

	for (unsigned tries = 0; tries < 500; tries++) {
		ck_assert_int_eq(raw_read(raw, 1, off, &got, 1), 0);
		if (got == want)
			return;
		usleep(10000);
	}
	ck_abort_msg("byte %llu is %u", (unsigned long long)off, got);
}

static void moves_from(struct raw *raw, uint64_t version)
{
	for (unsigned tries = 0; tries < 500 && version_of(raw) == version; tries++)
		usleep(10000);
	ck_assert_uint_ne(version_of(raw), version);
}

/* Region "r" of BIG bytes "a"; a has sent half of a WRITE of "x"; what b knows is older than the second
 * quarter: its version. */
static uint64_t half_a_write(void)
{
	static uint8_t bytes[FRAME_REQ_LEN + BIG];
	struct frame_req frame = {
	    .op = FRAME_WRITE, .payload = BIG, .id = 99, .len = BIG, .handle = 1};
	struct pool_req open = {.op = POOL_OPEN, .flags = POOL_READ, .number = 1};
	struct pool_req lookup = {.op = POOL_LOOKUP, .name = "r"};
	uint64_t version;
	uint8_t got;

	raw_open(&a, donor.port, "ram", 1, 1);
	raw_open(&b, donor.port, "ram", 2, 1);
	raw_create(&a, "r", 1);
	ck_assert_int_eq(raw_control(&b, &lookup, 0, 0), 0);
	open.id = id = lookup.attr.id;
	memset(bytes, 'a', sizeof(bytes));
	ck_assert_int_eq(raw_write(&a, 1, 0, bytes, BIG), 0); /* memory lends what is allocated */
	ck_assert_int_eq(raw_control(&b, &open, 0, 0), 0);
	memset(bytes, 'x', sizeof(bytes));
	frame_req_put(bytes, &frame);
	ck_assert(raw_bytes(&a, bytes, FRAME_REQ_LEN + QUARTER));
	wait_for_byte(&b, QUARTER - WAITING - 1, 'x');
	version = version_of(&b);
	ck_assert_int_eq(raw_read(&b, 1, QUARTER, &got, 1), 0);
	ck_assert_uint_eq(got, 'a');
	ck_assert(raw_bytes(&a, bytes + FRAME_REQ_LEN + QUARTER, QUARTER));
	wait_for_byte(&b, 2 * QUARTER - WAITING - 1, 'x');
	return version;
}

/* Who looked while a payload was being received has looked too early, also if the rest never comes. */
START_TEST(half_a_write_is_a_change)
{
	uint64_t version = half_a_write();

	raw_close(&a);
	moves_from(&b, version);
}
END_TEST

/* The same where the lease is taken in the middle of it. */
START_TEST(half_a_write_without_a_lease_is_a_change)
{
	struct pool_req open = {.op = POOL_OPEN, .flags = POOL_WRITE, .number = 2};
	uint64_t version = half_a_write();
	int rc = -EBUSY;

	open.version = version;
	open.id = id;
	for (unsigned tries = 0; tries < 500 && rc == -EBUSY; tries++) {
		rc = raw_control(&b, &open, 0, 0);
		if (rc == -EBUSY)
			usleep(10000);
	}
	ck_assert_int_eq(rc, 0);
	ck_assert(!open.ret_unchanged);
	ck_assert_uint_ne(open.attr.version, version);
}
END_TEST

/* ---- crashes ---- */

static void join(struct raw *raw, unsigned seed, uint64_t epoch)
{
	struct frame_hello hello = raw_session("disk", seed, epoch);

	memset(hello.identity, (int)seed, sizeof(hello.identity));
	raw_connect(raw, donor.port);
	ck_assert_int_eq(raw_hello(raw, &hello, NULL), 0);
}

/* A version that one life of the donor gave out never comes again with other bytes: also where it died before it
 * told its catalogue anything, as its last life did, and the clock has not moved on much. */
START_TEST(two_crashes_in_a_row)
{
	struct pool_req open = {
	    .op = POOL_OPEN, .flags = POOL_READ | POOL_WRITE | POOL_REOPEN, .number = 1};
	struct pool_req look = {.op = POOL_OPEN, .flags = POOL_READ, .number = 2};
	uint64_t first;

	join(&a, 1, 1);
	join(&b, 2, 1);
	raw_create(&a, "r", 1);
	{
		struct pool_req lookup = {.op = POOL_LOOKUP, .name = "r"};

		ck_assert_int_eq(raw_control(&a, &lookup, 0, 0), 0);
		look.id = open.id = id = lookup.attr.id;
		open.version = lookup.attr.version;
	}
	for (unsigned life = 2; life <= 4; life++) {
		donor_kill(&donor, SIGKILL);
		raw_close(&a);
		raw_close(&b);
		donor_restart(&donor, args);
		join(&a, 1, life);
		join(&b, 2, life);
		ck_assert_int_eq(raw_control(&a, &open, 0, 0), 0);
		first = version_of(&b);
		ck_assert_int_eq(raw_write(&a, 1, 0, &(uint8_t){(uint8_t)life}, 1), 0);
		ck_assert_int_eq(raw_control(&b, &look, 0, 0), 0);
		ck_assert_uint_ne(look.attr.version, first);
		ck_assert_msg(!look.ret_unchanged, "life %u gives out version %llu again", life,
		    (unsigned long long)look.attr.version);
		look.version = look.attr.version;
	}
}
END_TEST

/* ---- writers that share a region ---- */

static struct rig rig;
static struct pool *pool;
static struct region *region;
static struct handle *handles[2];
static _Atomic unsigned arrived;

static void ask_done(struct pool_req *req, int err)
{
	req->err = err;
}

/* On no loop: this pool has no catalogue. */
static void ask(struct pool_req *req, uint64_t session)
{
	req->session = session;
	req->done = ask_done;
	pool_submit(pool, req);
	ck_assert_int_eq(req->err, 0);
}

static void share_setup(void)
{
	const struct local_pool_conf conf = {.name = "ram", .uri = "memory:?size=1M"};
	struct err err = {0};

	rig_start(&rig, 1, 1);
	ck_assert_msg(!local_pool_create(&conf, rig.workers, &pool, &err), "%s", err.text);
	for (unsigned i = 0; i < 2; i++) {
		struct pool_req req = {.op = POOL_CREATE,
		    .name = "r",
		    .flags = POOL_READ | POOL_WRITE | POOL_SHARED,
		    .number = 1,
		    .attr.mode = 0600};

		ask(&req, 2 + i);
		handles[i] = req.ret_handle;
	}
	region = ((struct region_handle *)handles[0])->region;
}

static void share_teardown(void)
{
	for (unsigned i = 0; i < 2; i++)
		local_pool_close(pool, handles[i]);
	pool_destroy(pool);
	rig_stop(&rig);
}

static uint64_t look(uint64_t session)
{
	struct pool_req req = {.op = POOL_GETATTR, .id = region->id};

	ask(&req, session);
	return req.attr.version;
}

/* Both threads leave together. */
static void meet(unsigned round)
{
	atomic_fetch_add(&arrived, 1);
	while (atomic_load(&arrived) < 2 * round)
		sched_yield();
}

static void *other_writer(void *arg)
{
	for (unsigned round = 1; round <= ROUNDS; round++) {
		meet(2 * round - 1);
		region_touch(region, 3, 3);
		meet(2 * round);
	}
	return NULL;
}

/* However two writes at once fall, each writer is told that another one has changed what it knew. */
START_TEST(neither_of_two_is_the_only_writer)
{
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, other_writer, NULL), 0);
	for (unsigned round = 1; round <= ROUNDS; round++) {
		uint64_t version = look(2);

		rig_check(look(3) == version, "round %u", round);
		meet(2 * round - 1);
		region_touch(region, 2, 2);
		meet(2 * round);
		rig_check(
		    !region_unchanged(region, 2, version) && !region_unchanged(region, 3, version),
		    "round %u: version %llu, then %llu, base %llu", round,
		    (unsigned long long)version, (unsigned long long)region->version,
		    (unsigned long long)region->base);
	}
	pthread_join(thread, NULL);
}
END_TEST

/* ---- who the catalogue says writes ---- */

static char dir[RIG_PATH_MAX];

struct errand {
	struct pool_req *req;
	_Atomic bool done;
};

static void errand_done(struct pool_req *req, int err)
{
	struct errand *errand = req->data;

	req->err = err;
	atomic_store(&errand->done, true);
}

static void errand_submit(void *ctx)
{
	pool_submit(pool, ((struct errand *)ctx)->req);
}

/* Asks from the rig's loop: -errno. */
static int run_errand(struct pool_req *req, uint64_t session, struct pool_session *who)
{
	static struct errand errand;

	errand.req = req;
	atomic_store(&errand.done, false);
	req->session = session;
	req->who = who;
	req->data = &errand;
	req->done = errand_done;
	rig_call(rig.loops[0], errand_submit, &errand);
	while (!atomic_load(&errand.done))
		usleep(1000);
	return req->err;
}

static void nothing(struct pool_session *ps)
{
}

/* A holder of the lease is declared dead while a write of its is still on the way to the disk.  Until that has
 * ended, and whatever else happens to the region, the catalogue says that somebody may be writing. */
START_TEST(whoever_lost_the_lease_may_still_write)
{
	static const struct pool_session_ops ops = {.displace = nothing, .noticed = nothing};
	struct pool_session dead = {.ops = &ops, .writer = (uint64_t)1 << 63 | 1, .holder = "dead"};
	struct pool_session next = {.ops = &ops, .writer = (uint64_t)1 << 63 | 2, .holder = "next"};
	struct pool_req create = {
	    .op = POOL_CREATE, .name = "r", .flags = POOL_WRITE, .number = 1, .attr.mode = 0600};
	struct pool_req open = {.op = POOL_OPEN, .flags = POOL_WRITE, .number = 1};
	struct pool_req chmod = {.op = POOL_SETATTR, .set = POOL_SET_MODE, .attr.mode = 0640};
	struct pool_req close = {.op = POOL_CLOSE};
	char uri[RIG_PATH_MAX + 32], state[RIG_PATH_MAX + 8];
	struct local_pool_conf conf = {
	    .name = "disk", .uri = uri, .state_dir = state, .lease_ms = 1};
	struct err err = {0};

	rig_start(&rig, 1, 2);
	rig_tmpdir(NULL, dir);
	snprintf(uri, sizeof(uri), "file:%s/pool?size=1M", dir);
	snprintf(state, sizeof(state), "%s/state", dir);
	ck_assert_msg(!local_pool_create(&conf, rig.workers, &pool, &err), "%s", err.text);
	ck_assert_int_eq(run_errand(&create, 2, &dead), 0);
	region = ((struct region_handle *)create.ret_handle)->region;
	open.id = chmod.id = region->id;
	ck_assert(region->told.writing);
	ck_assert_uint_eq(region->told.writer, dead.writer);
	/* As store_submit counts a request that the disk has not done. */
	atomic_fetch_add(&create.ret_handle->store.in_flight, 1);
	usleep(5000);
	ck_assert_int_eq(run_errand(&open, 3, &next), -EBUSY);
	ck_assert_int_eq(run_errand(&chmod, 3, &next), 0);
	ck_assert(region->told.writing);
	atomic_fetch_sub(&create.ret_handle->store.in_flight, 1);
	ck_assert_int_eq(run_errand(&chmod, 3, &next), 0);
	ck_assert(!region->told.writing);
	ck_assert_int_eq(run_errand(&open, 3, &next), 0);
	ck_assert(region->told.writing);
	ck_assert_uint_eq(region->told.writer, next.writer);
	close.handle = open.ret_handle;
	ck_assert_int_eq(run_errand(&close, 3, &next), 0);
	close.handle = create.ret_handle;
	ck_assert_int_eq(run_errand(&close, 2, &dead), 0);
	pool_destroy(pool);
	rig_stop(&rig);
	rig_tmpdir_remove(dir);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("lease_race");
	TCase *tc = tcase_create("donor");
	TCase *share = tcase_create("sharing");
	TCase *told = tcase_create("catalogue");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tc, donor_setup, donor_teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, half_a_write_is_a_change);
	tcase_add_test(tc, half_a_write_without_a_lease_is_a_change);
	tcase_add_test(tc, two_crashes_in_a_row);
	suite_add_tcase(suite, tc);
	tcase_add_checked_fixture(share, share_setup, share_teardown);
	tcase_set_timeout(share, 60);
	tcase_add_test(share, neither_of_two_is_the_only_writer);
	suite_add_tcase(suite, share);
	tcase_add_unchecked_fixture(told, rig_tmpdirs_begin, rig_tmpdirs_end);
	tcase_add_test(told, whoever_lost_the_lease_may_still_write);
	suite_add_tcase(suite, told);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
