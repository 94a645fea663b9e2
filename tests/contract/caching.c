/* SPDX-License-Identifier: Apache-2.0
 *
 * The cache of a mount (mount/caching.h): what its options say is what the engine below does.  From the text of -o to a
 * managed pool over a donor's, with a proxy between them.
 */
#include <check.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "core/managed.h"
#include "mount/caching.h"
#include "tests/lib/serve.h"

enum { MIB = 1 << 20, REGION = 16 * MIB, PIECE = MIB / 8, WAIT_TRIES = 1000, WAIT_US = 10000 };

static struct rig rig;
static struct serve serve;
static struct proxy proxy;
static struct client lower, other, top; /* below the cache, beside it, and itself */
static struct mount_conf conf;
static struct caching *caching;
static uint8_t data[2 * MIB], back[2 * MIB];
static struct err err;

static void start_now(void *ctx)
{
	static const uint8_t uuid[POOL_IDENTITY_LEN] = {7};

	*(int *)ctx = caching_start(caching, lower.pool, uuid, &top.pool, &err);
}

/* Mounts with these options; region "r", 16 MiB, is at the donor. */
static void begin(const char *options)
{
	struct client_conf cc = {.pool = "ram"};
	struct handle *handle;
	int rc;

	log_set_level(LOG_LEVEL_ERROR);
	rig_start(&rig, 1, 1);
	serve_start(&serve, 64 * MIB);
	proxy_start(&proxy, serve.port);
	cc.port = serve.port;
	ck_assert_int_eq(client_open(&other, rig.loops[0], &cc, &err), 0);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + i / 4096 + 1);
	handle = client_create(&other, "r");
	for (uint64_t off = 0; off < REGION; off += MIB)
		ck_assert_int_eq(
		    rig_write(rig.loops[0], &handle->store, off, data + off / MIB, MIB, 0), 0);
	client_close_handle(&other, handle);

	mount_conf_init(&conf);
	ck_assert_msg(mount_conf_options(&conf, options, &err) == 0, "%s", err.text);
	ck_assert_msg(mount_conf_finish(&conf, &err) == 0, "%s", err.text);
	strcpy(conf.dir, "/test");
	cc.port = proxy.port;
	ck_assert_int_eq(client_open(&lower, rig.loops[0], &cc, &err), 0);
	ck_assert_int_eq(caching_create(&conf, rig.loops[0], &caching, &err), 0);
	top = lower; /* its session is the frontend's */
	rig_call(rig.loops[0], start_now, &rc);
	ck_assert_msg(rc == 0, "%s", err.text);
}

static _Atomic bool called;

static void call_done(void *ctx)
{
	called = true;
}

static void leave_now(void *ctx)
{
	caching_leave(caching, call_done, NULL);
}

static void destroy_now(void *ctx)
{
	caching_destroy(caching);
}

static void end(void)
{
	called = false;
	rig_call(rig.loops[0], leave_now, NULL);
	for (unsigned i = 0; i < WAIT_TRIES && !called; i++)
		usleep(WAIT_US);
	ck_assert(called);
	rig_call(rig.loops[0], destroy_now, NULL);
	mount_conf_fini(&conf);
	client_close(&lower);
	client_close(&other);
	proxy_stop(&proxy);
	serve_stop(&serve);
	rig_stop(&rig);
}

/* ---- looking ---- */

struct look {
	struct managed_status status;
	struct managed_region region; /* of the first one */
	unsigned regions;
};

static void look_at(void *ctx, const struct managed_region *region)
{
	struct look *look = ctx;

	if (look->regions++ == 0)
		look->region = *region;
}

static void look_now(void *ctx)
{
	struct look *look = ctx;

	managed_status(top.pool, &look->status);
	managed_for_each(top.pool, look_at, look);
}

static struct look now; /* what look() saw */

static void look(void)
{
	now = (struct look){0};
	rig_call(rig.loops[0], look_now, &now);
}

/* Waits until `so` of what is seen. */
#define wait_until(so) \
	do { \
		look(); \
		for (unsigned tries = 0; tries < WAIT_TRIES && !(so); tries++) { \
			usleep(WAIT_US); \
			look(); \
		} \
		ck_assert_msg(so, "it has not come to this: %s", #so); \
	} while (0)

static struct handle *open_r(unsigned flags)
{
	struct handle *handle;

	ck_assert_int_eq(client_open_region(&top, "r", flags, &handle), 0);
	return handle;
}

static void read_in_order(struct handle *handle, uint32_t len)
{
	for (uint32_t off = 0; off < len; off += PIECE)
		ck_assert_int_eq(rig_read(rig.loops[0], &handle->store, off, back + off, PIECE), 0);
	ck_assert_int_eq(memcmp(back, data, len), 0);
}

/* ---- the tests ---- */

START_TEST(every_option_arrives)
{
	struct pool_req req = {.op = POOL_GETXATTR, .name = "user.remram.pull_order"};
	struct handle *handle;
	char text[64] = "";

	begin("cache=memory,cache_size=32M,max_dirty=3M,pull=none,pull_order=1M-2M:3+4M-:2,"
	      "pull_window=2M,push_interval=100ms,max_dirty_age=1h,durability=none");
	handle = open_r(POOL_READ | POOL_WRITE);
	look();
	ck_assert_uint_eq(now.status.group.size, 32 * MIB);
	ck_assert_uint_eq(now.status.group.max_dirty, 3 * MIB);
	ck_assert_uint_le(now.status.group.pull_window, 2 * MIB);
	ck_assert_int_eq(now.region.puller.mode, PULL_NONE);
	ck_assert_int_eq(now.region.durability, CACHE_NONE);
	req.id = handle->region_id;
	req.data = text;
	req.len = sizeof(text) - 1;
	ck_assert_int_eq(client_ask(&top, &req), 0);
	ck_assert_str_eq(text, "1M-2M:3,4M-:2");
	ck_assert_int_eq(rig_write(rig.loops[0], &handle->store, 0, data, MIB, 0), 0);
	wait_until(now.region.cache.dirty == 0); /* nobody waits for it */
	client_close_handle(&top, handle);
	end();
}
END_TEST

START_TEST(what_waits_stays)
{
	struct handle *handle;

	begin("cache=memory,push_interval=1h,max_dirty_age=2h");
	handle = open_r(POOL_READ | POOL_WRITE);
	ck_assert_int_eq(rig_write(rig.loops[0], &handle->store, 0, data, MIB, 0), 0);
	sleep(2); /* by default it would have gone after one second */
	look();
	ck_assert_uint_eq(now.region.cache.dirty, MIB);
	ck_assert_int_eq(rig_op(rig.loops[0], &handle->store, STORE_FLUSH, 0, 0, 0), 0);
	look();
	ck_assert_uint_eq(now.region.cache.dirty, 0);
	client_close_handle(&top, handle);
	end();
}
END_TEST

START_TEST(readers_in_order_are_followed_by_default)
{
	struct handle *handle;

	begin("cache=memory");
	handle = open_r(POOL_READ);
	look();
	ck_assert_int_eq(now.region.puller.mode, PULL_SEQUENTIAL);
	read_in_order(handle, MIB);
	wait_until(now.region.cache.resident > MIB + PIECE);
	client_close_handle(&top, handle);
	end();
}
END_TEST

static struct look at_first;

static void first_done(void *ctx)
{
	look_now(&at_first);
	called = true;
}

static void pull_first_now(void *ctx)
{
	caching_pull_first(caching, first_done, NULL);
}

/* How much of the region is here when the mount is ready. */
static uint64_t resident_at_first(const char *options)
{
	at_first = (struct look){0};
	called = false;
	begin(options);
	rig_call(rig.loops[0], pull_first_now, NULL);
	for (unsigned i = 0; i < WAIT_TRIES && !called; i++)
		usleep(WAIT_US);
	ck_assert(called);
	end();
	return at_first.region.cache.resident;
}

START_TEST(the_first_bytes_are_here)
{
	/* So little is on its way at a time that it is clear who did not wait. */
	ck_assert_uint_ge(
	    resident_at_first("cache=memory,pull=all,pull_window=1M,pull_first=8M"), 8 * MIB);
	ck_assert_uint_ge(
	    resident_at_first("cache=memory,pull=all,pull_window=1M,pull_first=75%"), 12 * MIB);
	ck_assert_uint_eq(resident_at_first("cache=memory,pull=all,pull_window=1M"), 0);
}
END_TEST

START_TEST(writers_wait_while_something_is_too_old)
{
	struct rig_req late = {.req = {.op = STORE_WRITE, .off = MIB, .len = 4096, .buf = data}};
	struct rig_wait *wait;
	struct handle *handle;

	begin("cache=memory,push_interval=100ms,max_dirty_age=1s");
	handle = open_r(POOL_READ | POOL_WRITE);
	proxy_tell(&proxy, "blackhole");
	ck_assert_int_eq(rig_write(rig.loops[0], &handle->store, 0, data + 1, 4096, 0), 0);
	wait_until(now.region.pusher.holding);
	look();
	ck_assert_uint_ge(now.region.cache.oldest_dirty_ns, UINT64_C(900000000));
	wait = rig_begin(rig.loops[0], &handle->store, &late, 1);
	wait_until(now.status.group.writers_waiting == 1);
	proxy_tell(&proxy, "resume");
	rig_end(wait);
	ck_assert_int_eq(late.err, 0);
	wait_until(!now.region.pusher.holding);
	client_close_handle(&top, handle);
	end();
}
END_TEST

START_TEST(writers_wait_when_too_much_is_not_there)
{
	enum { WRITES = 8, MAX_DIRTY = 2 * MIB };
	struct rig_req writes[WRITES];
	struct rig_wait *wait;
	struct handle *handle;

	begin("cache=memory,push_interval=1h,max_dirty_age=2h,max_dirty=2M");
	handle = open_r(POOL_READ | POOL_WRITE);
	for (unsigned i = 0; i < WRITES; i++)
		writes[i] = (struct rig_req){.req = {.op = STORE_WRITE,
						 .off = (uint64_t)i * MIB,
						 .len = MIB,
						 .buf = data + 100 + i}};
	proxy_tell(&proxy, "blackhole");
	wait = rig_begin(rig.loops[0], &handle->store, writes, WRITES);
	wait_until(now.status.group.writers_waiting > 0);
	usleep(100000); /* whoever does not wait goes on */
	look();
	ck_assert_uint_ge(now.status.dirty, MAX_DIRTY);
	ck_assert_uint_le(now.status.dirty, MAX_DIRTY + MIB);
	ck_assert_uint_ge(now.status.group.writers_waiting, WRITES - MAX_DIRTY / MIB - 1);
	proxy_tell(&proxy, "resume");
	rig_end(wait);
	for (unsigned i = 0; i < WRITES; i++) {
		ck_assert_int_eq(writes[i].err, 0);
		rig_expect(rig.loops[0], &handle->store, (uint64_t)i * MIB, MIB, data + 100 + i);
	}
	client_close_handle(&top, handle);
	end();
}
END_TEST

/* ---- reads beside write-back ---- */

/* A read that is answered by the donor, and what was written back before its answer. */
struct beside {
	struct store_req req;
	struct store *store;
	uint64_t writer; /* the region that is written back */
	uint64_t pushing; /* bytes in flight when it was sent */
	uint64_t pushed, dirty; /* bytes at the donor since, and not there yet, at its end */
	_Atomic int err; /* 1 until done */
};

static struct cache_status status_of(uint64_t id)
{
	struct managed_region region;

	ck_assert_int_eq(managed_find(top.pool, id, &region), 0);
	return region.cache;
}

static void beside_done(struct store_req *req, int result)
{
	struct beside *beside = (struct beside *)req;
	struct cache_status status = status_of(beside->writer);

	beside->pushed = status.pushed - beside->pushed;
	beside->dirty = status.dirty;
	beside->err = result;
}

static void beside_begin(void *ctx)
{
	struct beside *beside = ctx;
	struct cache_status status = status_of(beside->writer);

	beside->pushing = status.pushing;
	beside->pushed = status.pushed;
	store_submit(beside->store, &beside->req);
}

/* On a narrow link: a read goes behind what is on its way, and that is little, however much is to be pushed: 2 to 3 MiB
 * here, and a bit more where the time that both ends take counts as round trip. */
START_TEST(a_read_does_not_wait_for_write_back)
{
	enum { READS = 6, WRITTEN = 32 * MIB, ON_ITS_WAY = 8 * MIB };
	struct handle *reader, *writer;

	begin("cache=memory,pull=none,push_interval=0");
	proxy_tell(&proxy, "bandwidth 8388608");
	reader = open_r(POOL_READ);
	writer = client_create(&top, "w");
	for (uint64_t off = 0; off < WRITTEN; off += MIB)
		ck_assert_int_eq(rig_write(rig.loops[0], &writer->store, off, data, MIB, 0), 0);
	for (unsigned i = 0; i < READS; i++) {
		struct beside beside = {
		    .req = {.op = STORE_READ,
			.off = (uint64_t)i * MIB,
			.len = 4096,
			.buf = back,
			.done = beside_done},
		    .store = &reader->store,
		    .writer = writer->region_id,
		    .err = 1,
		};

		rig_call(rig.loops[0], beside_begin, &beside);
		for (unsigned tries = 0; tries < WAIT_TRIES && beside.err == 1; tries++)
			usleep(WAIT_US);
		ck_assert_int_eq(beside.err, 0);
		ck_assert_int_eq(memcmp(back, data + i, 4096), 0);
		ck_assert_uint_gt(beside.pushing, 0);
		ck_assert_uint_le(beside.pushing, ON_ITS_WAY);
		ck_assert_uint_le(beside.pushed, beside.pushing);
		ck_assert_uint_gt(beside.dirty, 0); /* else this shows nothing */
	}
	proxy_tell(&proxy, "bandwidth 0");
	client_close_handle(&top, reader);
	client_close_handle(&top, writer);
	end();
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {every_option_arrives, what_waits_stays,
	    readers_in_order_are_followed_by_default, the_first_bytes_are_here,
	    writers_wait_while_something_is_too_old, writers_wait_when_too_much_is_not_there,
	    a_read_does_not_wait_for_write_back};
	Suite *s = suite_create("caching");
	TCase *tc = tcase_create("options");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_unchecked_fixture(tc, rig_tmpdirs_begin, rig_tmpdirs_end);
	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		tcase_add_test(tc, tests[i]);
	suite_add_tcase(s, tc);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
