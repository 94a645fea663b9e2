/* SPDX-License-Identifier: Apache-2.0
 *
 * The managed pool: what it promises (core/managed.h), over a pool of this process and over one at a
 * donor, with copies in memory and in a cache directory.  `other` is another client of the same pool, without
 * a cache: what it sees is what has arrived.
 *
 * Each test runs in the four combinations (stack).  Those of a crash are in tests/e2e/82-managed-kill.sh.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cache_index.h"
#include "core/local_pool.h"
#include "core/log.h"
#include "core/managed.h"
#include "core/rescue.h"
#include "tests/lib/serve.h"

enum { MIB = 1 << 20, POOL_SIZE = 256 * MIB, WAIT_TRIES = 1000, WAIT_US = 10000 };

enum { LOCAL_MEMORY, LOCAL_DIR, PEER_MEMORY, PEER_DIR, STACKS };

static struct rig rig;
static struct serve serve;
static struct client lower, other, top; /* below the managed pool, beside it, and itself */
static struct cache_dir *dir;
static char path[RIG_PATH_MAX];
static struct managed_conf conf;
static bool is_peer, has_dir;
static uint8_t data[4 * MIB], back[4 * MIB];

/* ---- the stack ---- */

struct made {
	struct pool *pool;
	int rc;
	struct err err;
};

static void make(void *ctx)
{
	struct made *made = ctx;

	made->rc = managed_create(&conf, &made->pool, &made->err);
}

static void begin(void)
{
	struct made made = {0};
	struct err err;

	if (has_dir)
		ck_assert_msg(
		    cache_dir_open(path, "/test", rig.workers, &dir, &err) == 0, "%s", err.text);
	conf.dir = dir;
	conf.lower = lower.pool;
	conf.loop = lower.loop;
	conf.workers = rig.workers;
	rig_call(lower.loop, make, &made);
	ck_assert_msg(made.rc == 0, "%s", made.err.text);
	top = (struct client){.loop = lower.loop, .pool = made.pool, .session = 7};
}

static _Atomic bool left;

static void leave_done(void *ctx)
{
	left = true;
}

static void leave_now(void *ctx)
{
	if (*(bool *)ctx)
		managed_give_up(top.pool);
	managed_leave(top.pool, leave_done, NULL);
}

static void give_up_now(void *ctx)
{
	managed_give_up(top.pool);
}

static void destroy_now(void *ctx)
{
	pool_destroy(top.pool);
}

static void end(bool give_up)
{
	left = false;
	rig_call(top.loop, leave_now, &give_up);
	for (unsigned i = 0; i < WAIT_TRIES && !left; i++)
		usleep(WAIT_US);
	ck_assert_msg(left, "the managed pool has not come to its end");
	rig_call(top.loop, destroy_now, NULL);
	cache_dir_close(dir);
	dir = NULL;
}

static void setup(int stack)
{
	struct client_conf cc;
	struct err err;

	log_set_level(LOG_LEVEL_ERROR);
	is_peer = stack >= PEER_MEMORY;
	has_dir = stack == LOCAL_DIR || stack == PEER_DIR;
	rig_start(&rig, 1, 2);
	serve_start(&serve, POOL_SIZE);
	cc = (struct client_conf){.port = serve.port, .pool = "ram"};
	if (is_peer) {
		ck_assert_int_eq(client_open(&lower, rig.loops[0], &cc, &err), 0);
		ck_assert_int_eq(client_open(&other, rig.loops[0], &cc, &err), 0);
	} else {
		lower = (struct client){.loop = rig.loops[0], .pool = serve.pools[0], .session = 7};
		other = (struct client){.loop = rig.loops[0], .pool = serve.pools[0], .session = 8};
	}
	if (has_dir)
		rig_tmpdir(NULL, path);
	conf = (struct managed_conf){
	    .session = 7,
	    .pull = PULL_NONE,
	    .push_interval_ms = 50,
	};
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + i / 4096 + 1);
}

static void teardown(void)
{
	if (is_peer) {
		client_close(&lower);
		client_close(&other);
	}
	serve_stop(&serve);
	rig_stop(&rig);
	if (has_dir)
		rig_tmpdir_remove(path);
}

/* ---- asking ---- */

static struct handle *create(struct client *client, const char *name)
{
	return client_create(client, name);
}

static uint64_t id_of(struct client *client, const char *name)
{
	struct pool_req req = {.op = POOL_LOOKUP, .name = name};

	ck_assert_int_eq(client_ask(client, &req), 0);
	return req.attr.id;
}

static int open_at(
    struct client *client, const char *name, unsigned flags, uint64_t version, struct pool_req *ret)
{
	*ret = (struct pool_req){
	    .op = POOL_OPEN, .id = id_of(client, name), .flags = flags, .version = version};
	return client_ask(client, ret);
}

static struct handle *open_ok(struct client *client, const char *name, unsigned flags)
{
	struct pool_req req = {0};
	int rc = -EBUSY;

	/* Leases are given back behind. */
	for (unsigned i = 0; i < WAIT_TRIES && rc == -EBUSY; i++) {
		rc = open_at(client, name, flags, 0, &req);
		if (rc == -EBUSY)
			usleep(WAIT_US);
	}
	ck_assert_msg(rc == 0, "OPEN %s: %s", name, strerror(-rc));
	return req.ret_handle;
}

static void put(struct handle *handle, uint64_t off, const void *buf, uint32_t len)
{
	ck_assert_int_eq(rig_write(rig.loops[0], &handle->store, off, buf, len, 0), 0);
}

static void reads(struct handle *handle, uint64_t off, const uint8_t *bytes, uint32_t len)
{
	memset(back, 0xee, len);
	for (uint32_t pos = 0; pos < len; pos += MIB) {
		uint32_t n = len - pos < MIB ? len - pos : MIB;

		ck_assert_int_eq(
		    rig_read(rig.loops[0], &handle->store, off + pos, back + pos, n), 0);
	}
	ck_assert(memcmp(back, bytes, len) == 0);
}

static int flush(struct handle *handle)
{
	return rig_op(rig.loops[0], &handle->store, STORE_FLUSH, 0, 0, 0);
}

static void other_reads(const char *name, uint64_t off, const uint8_t *bytes, uint32_t len)
{
	struct handle *handle = open_ok(&other, name, POOL_READ);

	reads(handle, off, bytes, len);
	client_close_handle(&other, handle);
}

static int set_size(struct client *client, const char *name, struct handle *handle, uint64_t size)
{
	struct pool_req req = {.op = POOL_SETATTR,
	    .id = handle ? handle->region_id : id_of(client, name),
	    .handle = handle,
	    .set = POOL_SET_SIZE,
	    .attr.size = size};
	int rc = client_ask(client, &req);

	if (rc == 0)
		ck_assert_uint_eq(req.attr.size, size);
	return rc;
}

static struct region_attr attr_of(struct client *client, const char *name)
{
	struct pool_req req = {.op = POOL_LOOKUP, .name = name};

	ck_assert_int_eq(client_ask(client, &req), 0);
	return req.attr;
}

struct look {
	uint64_t id;
	struct managed_region region;
	struct managed_status status;
	int rc;
};

static void look_now(void *ctx)
{
	struct look *look = ctx;

	managed_status(top.pool, &look->status);
	look->rc = managed_find(top.pool, look->id, &look->region);
}

static struct look look_at(const char *name)
{
	struct look look = {.id = id_of(&top, name)};

	rig_call(top.loop, look_now, &look);
	return look;
}

static void wait_state(const char *name, enum managed_state state)
{
	for (unsigned i = 0; i < WAIT_TRIES; i++) {
		struct look look = look_at(name);

		if (look.rc == 0 && look.region.state == state)
			return;
		usleep(WAIT_US);
	}
	ck_abort_msg("\"%s\" has not come to state %d", name, state);
}

/* ---- tests ---- */

START_TEST(what_is_flushed_has_arrived)
{
	struct handle *handle;
	struct pool_req req;
	uint64_t version;

	setup(_i);
	begin();
	handle = create(&top, "r");
	put(handle, 0, data, MIB);
	put(handle, 5000, data + 77, 100); /* parts of a block */
	ck_assert_uint_eq(attr_of(&top, "r").size, MIB);
	ck_assert_int_eq(flush(handle), 0);
	other_reads("r", 5000, data + 77, 100);
	other_reads("r", 8192, data + 8192, 4096);
	reads(handle, 5000, data + 77, 100);
	client_close_handle(&top, handle);
	wait_state("r", MANAGED_IDLE);
	ck_assert_int_eq(open_at(&top, "r", POOL_READ, 0, &req), 0);
	ck_assert(!req.ret_unchanged);
	version = req.attr.version;
	client_close_handle(&top, req.ret_handle);
	ck_assert_int_eq(open_at(&top, "r", POOL_READ, version, &req), 0);
	ck_assert(req.ret_unchanged);
	reads(req.ret_handle, 8192, data + 8192, 4096);
	client_close_handle(&top, req.ret_handle);
	ck_assert_uint_eq(look_at("r").region.cache.fetched, 0);
	end(false);
	teardown();
}
END_TEST

START_TEST(the_lease_goes_when_all_is_pushed)
{
	struct handle *handle, *theirs;
	struct region_attr before;
	struct pool_req req;

	setup(_i);
	conf.push_interval_ms = 600000; /* only what waits for it is pushed */
	begin();
	handle = create(&top, "r");
	put(handle, 0, data, MIB);
	ck_assert_int_eq(open_at(&other, "r", POOL_WRITE, 0, &req), -EBUSY);
	before = attr_of(&top, "r");
	client_close_handle(&top, handle);
	theirs = open_ok(&other, "r", POOL_READ | POOL_WRITE);
	reads(theirs, 0, data, MIB);
	/* The time of the write, not of the push. */
	ck_assert_int_eq(attr_of(&other, "r").mtime_ns, before.mtime_ns);
	client_close_handle(&other, theirs);
	end(false);
	teardown();
}
END_TEST

START_TEST(others_changes_are_seen)
{
	struct handle *handle, *theirs;
	struct pool_req req;

	setup(_i);
	begin();
	handle = create(&top, "r");
	put(handle, 0, data, MIB);
	client_close_handle(&top, handle);
	theirs = open_ok(&other, "r", POOL_READ | POOL_WRITE);
	put(theirs, 4096, data, 4096);
	put(theirs, MIB, data + 5, 4096); /* and longer */
	client_close_handle(&other, theirs);
	ck_assert_int_eq(open_at(&top, "r", POOL_READ, 0, &req), 0);
	ck_assert(!req.ret_unchanged);
	ck_assert_uint_eq(req.attr.size, MIB + 4096);
	reads(req.ret_handle, 4096, data, 4096);
	reads(req.ret_handle, MIB, data + 5, 4096);
	/* While it is open here. */
	theirs = open_ok(&other, "r", POOL_READ | POOL_WRITE);
	put(theirs, 4096, data + 99, 4096);
	client_close_handle(&other, theirs);
	if (is_peer) /* a pool of our own gives no notices */
		for (unsigned i = 0; i < WAIT_TRIES; i++) {
			ck_assert_int_eq(
			    rig_read(rig.loops[0], &req.ret_handle->store, 4096, back, 4096), 0);
			if (memcmp(back, data + 99, 4096) == 0)
				break;
			usleep(WAIT_US);
		}
	attr_of(&top, "r");
	reads(req.ret_handle, 4096, data + 99, 4096);
	client_close_handle(&top, req.ret_handle);
	end(false);
	teardown();
}
END_TEST

START_TEST(sizes)
{
	static const uint8_t zeros[MIB];
	struct handle *handle;

	setup(_i);
	begin();
	handle = create(&top, "r");
	put(handle, 0, data, MIB);
	ck_assert_int_eq(set_size(&top, NULL, handle, 5000), 0);
	ck_assert_uint_eq(attr_of(&other, "r").size, 5000);
	ck_assert_int_eq(set_size(&top, NULL, handle, 2 * MIB), 0);
	reads(handle, 0, data, 5000);
	reads(handle, 5000, zeros, 60000);
	ck_assert_int_eq(flush(handle), 0);
	other_reads("r", 0, data, 5000);
	other_reads("r", 5000, zeros, 60000);
	client_close_handle(&top, handle);
	/* Without a handle, in IDLE, and longer than ever. */
	wait_state("r", MANAGED_IDLE);
	ck_assert_int_eq(set_size(&top, "r", NULL, 100), 0);
	ck_assert_int_eq(set_size(&top, "r", NULL, 8192), 0);
	handle = open_ok(&top, "r", POOL_READ);
	reads(handle, 0, data, 100);
	reads(handle, 100, zeros, 8092);
	client_close_handle(&top, handle);
	wait_state("r", MANAGED_IDLE);
	ck_assert_uint_eq(attr_of(&other, "r").size, 8192);
	other_reads("r", 100, zeros, 8092);
	end(false);
	teardown();
}
END_TEST

START_TEST(names)
{
	struct pool_req req = {.op = POOL_REMOVE, .name = "r"};
	struct handle *handle, *again;

	setup(_i);
	begin();
	handle = create(&top, "r");
	put(handle, 0, data, MIB);
	ck_assert_int_eq(client_ask(&top, &req), 0);
	reads(handle, 0, data, MIB); /* it is open */
	again = create(&top, "r");
	ck_assert_uint_eq(attr_of(&top, "r").size, 0);
	put(again, 0, data + 1, 4096);
	client_close_handle(&top, handle);
	reads(again, 0, data + 1, 4096);
	client_close_handle(&top, again);
	req = (struct pool_req){.op = POOL_RENAME, .name = "r", .new_name = "s"};
	ck_assert_int_eq(client_ask(&top, &req), 0);
	handle = open_ok(&top, "s", POOL_READ);
	reads(handle, 0, data + 1, 4096);
	client_close_handle(&top, handle);
	ck_assert_str_eq(look_at("s").region.name, "s");
	wait_state("s", MANAGED_IDLE);
	req = (struct pool_req){.op = POOL_REMOVE, .name = "s"};
	ck_assert_int_eq(client_ask(&top, &req), 0);
	end(false);
	teardown();
}
END_TEST

static int get_xattr(const char *region, const char *name, char *buf, size_t room)
{
	struct pool_req req = {.op = POOL_GETXATTR,
	    .id = id_of(&top, region),
	    .name = name,
	    .data = buf,
	    .len = room - 1};
	int rc = client_ask(&top, &req);

	buf[rc ? 0 : req.ret_len] = '\0';
	return rc;
}

static int set_xattr(const char *region, const char *name, char *value)
{
	struct pool_req req = {.op = POOL_SETXATTR,
	    .id = id_of(&top, region),
	    .name = name,
	    .data = value,
	    .len = strlen(value)};

	return client_ask(&top, &req);
}

START_TEST(xattrs)
{
	struct handle *handle;
	struct pool_req req = {.op = POOL_LISTXATTR, .data = back, .len = 4096};
	char text[256];

	setup(_i);
	conf.push_interval_ms = 600000;
	begin();
	handle = create(&top, "r");
	put(handle, 0, data, MIB);
	ck_assert_int_eq(get_xattr("r", "user.remram.dirty_bytes", text, sizeof(text)), 0);
	ck_assert_str_eq(text, "1048576");
	ck_assert_int_eq(get_xattr("r", "user.remram.resident", text, sizeof(text)), 0);
	ck_assert_str_eq(text, "1048576");
	ck_assert_int_eq(set_xattr("r", "user.remram.pull_order", (char[]){"0-64K:10,512K-:9"}), 0);
	ck_assert_int_eq(get_xattr("r", "user.remram.pull_order", text, sizeof(text)), 0);
	ck_assert_str_eq(text, "0-64K:10,512K-:9");
	ck_assert_int_eq(set_xattr("r", "user.remram.pull_order", (char[]){"nonsense"}), -EINVAL);
	ck_assert_int_eq(set_xattr("r", "user.remram.durability", (char[]){"none"}), 0);
	ck_assert_int_eq(get_xattr("r", "user.remram.durability", text, sizeof(text)), 0);
	ck_assert_str_eq(text, "none");
	ck_assert_int_eq(
	    set_xattr("r", "user.remram.durability", (char[]){"local"}), has_dir ? 0 : -EOPNOTSUPP);
	ck_assert_int_eq(set_xattr("r", "user.remram.durability", (char[]){"often"}), -EINVAL);
	ck_assert_int_eq(set_xattr("r", "user.remram.resident", (char[]){"1"}), -EPERM);
	ck_assert_int_eq(set_xattr("r", "user.own", (char[]){"1"}), 0);
	req.id = handle->region_id;
	ck_assert_int_eq(client_ask(&top, &req), 0);
	ck_assert_msg(memmem(back, req.ret_len, "user.own", 9) != NULL, "user.own is not listed");
	ck_assert_msg(memmem(back, req.ret_len, "user.remram.pinned", 19) != NULL,
	    "user.remram.pinned is not listed");
	client_close_handle(&top, handle);
	end(false);
	teardown();
}
END_TEST

/* ---- jobs ---- */

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
	managed_pull(top.pool, ctx);
}

static void drain_now(void *ctx)
{
	managed_drain(top.pool, &((struct ask *)ctx)->drain);
}

static void evict_now(void *ctx)
{
	struct ask *ask = ctx;

	ask->rc = managed_evict(top.pool, ask->id, 0, 0, &ask->bytes);
}

static void pin_now(void *ctx)
{
	struct ask *ask = ctx;

	ask->rc = managed_pin(top.pool, ask->id, 0, 512 * 1024, true);
}

static void record_now(void *ctx)
{
	struct ask *ask = ctx;

	ask->rc = managed_record(top.pool, ask->id, ask->bytes);
}

static int wait_ask(struct ask *ask)
{
	for (unsigned i = 0; i < WAIT_TRIES && ask->err == 1; i++)
		usleep(WAIT_US);
	return ask->err;
}

START_TEST(jobs)
{
	struct ask ask = {.job.done = job_done, .drain.done = drain_done, .err = 1};
	struct handle *handle;
	char text[64];

	setup(_i);
	conf.push_interval_ms = 600000;
	begin();
	handle = create(&top, "r");
	for (unsigned i = 0; i < 4; i++)
		put(handle, i * MIB, data + i * MIB, MIB);
	rig_call(top.loop, drain_now, &ask);
	ck_assert_int_eq(wait_ask(&ask), 0);
	other_reads("r", 0, data, 4 * MIB);
	ask.id = ask.job.id = handle->region_id;
	rig_call(top.loop, pin_now, &ask);
	ck_assert_int_eq(ask.rc, 0);
	ck_assert_int_eq(get_xattr("r", "user.remram.pinned", text, sizeof(text)), 0);
	ck_assert_str_eq(text, "0-512K");
	/* With a directory a commit comes first. */
	ck_assert_int_eq(flush(handle), 0);
	for (unsigned i = 0; i < WAIT_TRIES && look_at("r").region.cache.local > 512 * 1024; i++) {
		rig_call(top.loop, evict_now, &ask);
		ck_assert_int_eq(ask.rc, 0);
		usleep(WAIT_US);
	}
	ck_assert_uint_eq(look_at("r").region.cache.local, 512 * 1024);
	client_close_handle(&top, handle);
	ask.err = 1;
	rig_call(top.loop, pull_now, &ask);
	ck_assert_int_eq(wait_ask(&ask), 0);
	ck_assert_uint_eq(look_at("r").region.cache.resident, 4 * MIB);
	ck_assert_uint_eq(look_at("r").region.cache.fetched, 4 * MIB - 512 * 1024);
	end(false);
	teardown();
}
END_TEST

static struct pull_range ranges[16];
static int range_count;

static void recorded_now(void *ctx)
{
	bool cut = true;

	range_count = managed_recorded(top.pool, ((struct ask *)ctx)->id, ranges, 16, &cut);
	ck_assert(!cut);
}

START_TEST(recordings)
{
	struct ask ask = {.bytes = 1};
	struct handle *handle, *reader;

	setup(_i);
	begin();
	handle = create(&top, "r");
	put(handle, 3 * MIB, data, MIB);
	ask.id = handle->region_id;
	rig_call(top.loop, record_now, &ask);
	ck_assert_int_eq(ask.rc, 0);
	reader = open_ok(&top, "r", POOL_READ);
	reads(reader, 3 * MIB + 5, data + 5, 100000);
	reads(reader, 3 * MIB + 5, data + 5, 100000);
	ck_assert_int_eq(rig_read(rig.loops[0], &reader->store, 0, back, 4096), 0);
	client_close_handle(&top, reader);
	rig_call(top.loop, recorded_now, &ask);
	ck_assert_int_eq(range_count, 2);
	ck_assert_uint_eq(ranges[0].off, 3 * MIB);
	ck_assert_uint_eq(ranges[0].len, 128 * 1024);
	ck_assert_uint_eq(ranges[1].off, 0);
	ck_assert_int_gt(ranges[0].prio, ranges[1].prio);
	client_close_handle(&top, handle);
	end(false);
	teardown();
}
END_TEST

/* More data than the cache holds: everything goes out, and comes back. */
START_TEST(small_cache)
{
	struct handle *handle;

	setup(_i);
	conf.cache_size = 16 * MIB;
	conf.max_dirty = 8 * MIB;
	begin();
	handle = create(&top, "r");
	for (unsigned i = 0; i < 64; i++) {
		data[0] = (uint8_t)i;
		put(handle, (uint64_t)i * MIB, data, MIB);
	}
	ck_assert_int_eq(flush(handle), 0);
	for (unsigned i = 0; i < 64; i++) {
		data[0] = (uint8_t)i;
		reads(handle, (uint64_t)i * MIB, data, MIB);
	}
	ck_assert_uint_gt(look_at("r").region.cache.evicted, 0);
	ck_assert_uint_le(look_at("r").region.cache.local, 24 * MIB);
	client_close_handle(&top, handle);
	end(false);
	teardown();
}
END_TEST

/* ---- over lives ---- */

START_TEST(remount_fetches_nothing)
{
	struct handle *handle;
	char text[64];

	setup(_i);
	begin();
	handle = create(&top, "r");
	put(handle, 0, data, MIB);
	ck_assert_int_eq(set_xattr("r", "user.remram.pull_order", (char[]){"64K-:3"}), 0);
	client_close_handle(&top, handle);
	end(false);
	begin();
	ck_assert_int_eq(get_xattr("r", "user.remram.pull_order", text, sizeof(text)), 0);
	ck_assert_str_eq(text, "64K-:3");
	handle = open_ok(&top, "r", POOL_READ);
	reads(handle, 0, data, MIB);
	ck_assert_uint_eq(look_at("r").region.cache.fetched, 0);
	client_close_handle(&top, handle);
	end(false);
	teardown();
}
END_TEST

START_TEST(given_up_is_pushed_by_the_next)
{
	struct handle *handle;

	setup(_i);
	conf.push_interval_ms = 600000;
	begin();
	handle = create(&top, "r");
	put(handle, 0, data, 4096);
	ck_assert_int_eq(flush(handle), 0);
	put(handle, 0, data + 1, MIB);
	rig_call(top.loop, give_up_now, NULL); /* the close pushes nothing then */
	client_close_handle(&top, handle);
	end(true);
	begin();
	for (unsigned i = 0; i < WAIT_TRIES; i++) {
		struct handle *theirs = open_ok(&other, "r", POOL_READ);

		ck_assert_int_eq(rig_read(rig.loops[0], &theirs->store, 0, back, MIB), 0);
		client_close_handle(&other, theirs);
		if (memcmp(back, data + 1, MIB) == 0)
			break;
		usleep(WAIT_US);
	}
	other_reads("r", 0, data + 1, MIB);
	end(false);
	teardown();
}
END_TEST

static void count_entry(void *ctx, const struct rescue_entry *entry)
{
	++*(unsigned *)ctx;
}

/* Dirty data of an earlier life, and somebody has written since. */
START_TEST(conflicts_go_aside)
{
	struct handle *handle, *theirs;
	unsigned entries = 0;
	struct err err;

	setup(_i);
	conf.push_interval_ms = 600000;
	begin();
	handle = create(&top, "r");
	put(handle, 0, data, 4096);
	ck_assert_int_eq(flush(handle), 0);
	put(handle, 0, data + 1, 4096);
	rig_call(top.loop, give_up_now, NULL);
	client_close_handle(&top, handle);
	end(true);
	theirs = open_ok(&other, "r", POOL_READ | POOL_WRITE);
	put(theirs, 0, data + 2, 4096);
	client_close_handle(&other, theirs);
	begin();
	for (unsigned i = 0; i < WAIT_TRIES && look_at("r").status.recovering; i++)
		usleep(WAIT_US);
	handle = open_ok(&top, "r", POOL_READ);
	reads(handle, 0, data + 2, 4096);
	client_close_handle(&top, handle);
	end(false);
	ck_assert_int_eq(rescue_list(path, count_entry, &entries, &err), 0);
	ck_assert_uint_eq(entries, 1);
	other_reads("r", 0, data + 2, 4096);
	teardown();
}
END_TEST

struct loading {
	struct index_load load;
	_Atomic bool done;
	struct index_call call;
	_Atomic bool closed;
};

static void load_done(struct index_load *load, int err)
{
	struct loading *loading = (struct loading *)load;

	ck_assert_int_eq(err, 0);
	loading->done = true;
}

static void load_now(void *ctx)
{
	cache_index_load(ctx);
}

static void closed(struct index_call *call, int err)
{
	((struct loading *)((char *)call - offsetof(struct loading, call)))->closed = true;
}

static void abandon_now(void *ctx)
{
	struct loading *loading = ctx;

	loading->call.done = closed;
	indexed_abandon(loading->load.indexed, &loading->call);
}

/* Loads a copy of the directory, as the next life would find it after a power failure now: how many blocks are not
 * as the index says. */
static uint64_t wrong_in_copy(uint64_t id, uint64_t *ret_chunks)
{
	struct loading loading = {.load.done = load_done};
	struct cache_index_conf ic = {0};
	char copy[RIG_PATH_MAX], command[3 * RIG_PATH_MAX];
	struct err err;

	rig_tmpdir(NULL, copy);
	snprintf(command, sizeof(command), "cp -a %s/. %s", path, copy);
	ck_assert_int_eq(system(command), 0);
	ck_assert_int_eq(cache_dir_open(copy, "/copy", rig.workers, &ic.dir, &err), 0);
	ck_assert_int_eq(cache_index_open(&ic, &loading.load.index, &err), 0);
	loading.load.region.id = id;
	rig_call(top.loop, load_now, &loading);
	for (unsigned i = 0; i < WAIT_TRIES && !loading.done; i++)
		usleep(WAIT_US);
	ck_assert_int_eq(loading.load.found, INDEX_UNCLEAN);
	*ret_chunks = loading.load.count;
	free(loading.load.chunks);
	rig_call(top.loop, abandon_now, &loading);
	for (unsigned i = 0; i < WAIT_TRIES && !loading.closed; i++)
		usleep(WAIT_US);
	cache_index_close(loading.load.index);
	cache_dir_close(ic.dir);
	rig_tmpdir_remove(copy);
	return loading.load.dropped + loading.load.newer;
}

/* What a FLUSH has promised is in the index when it returns: a copy of the directory, as a power failure would
 * leave it at that moment, has all of it. */
START_TEST(flush_is_in_the_index)
{
	struct handle *handle;
	uint64_t chunks;

	setup(_i);
	begin();
	handle = create(&top, "r");
	put(handle, 0, data, MIB);
	ck_assert_int_eq(flush(handle), 0);
	put(handle, 0, data + 1, MIB);
	ck_assert_int_eq(flush(handle), 0);
	ck_assert_uint_eq(wrong_in_copy(handle->region_id, &chunks), 0);
	ck_assert_uint_eq(chunks, MIB / INDEX_CHUNK);
	client_close_handle(&top, handle);
	end(false);
	teardown();
}
END_TEST

/* What the index calls dirty is not punched: a crash would take the zeros for newer bytes, and push them. */
START_TEST(dirty_rows_are_not_evicted)
{
	struct ask ask = {.err = 1};
	struct handle *handle;
	uint64_t chunks;

	setup(_i);
	conf.durability = CACHE_LOCAL;
	begin();
	handle = create(&top, "r");
	put(handle, 0, data, MIB);
	ck_assert_int_eq(flush(handle), 0); /* dirty, and so in the index */
	/* A push is committed before it is sent; that it has arrived is committed up to a second later. */
	for (unsigned i = 0; i < WAIT_TRIES && look_at("r").region.cache.dirty; i++)
		usleep(1000);
	ask.id = handle->region_id;
	rig_call(top.loop, evict_now, &ask);
	ck_assert_int_eq(ask.rc, 0);
	ck_assert_uint_eq(wrong_in_copy(handle->region_id, &chunks), 0);
	/* After the commit that this has asked for it can go. */
	for (unsigned i = 0; i < WAIT_TRIES && look_at("r").region.cache.local; i++) {
		rig_call(top.loop, evict_now, &ask);
		usleep(WAIT_US);
	}
	ck_assert_uint_eq(look_at("r").region.cache.local, 0);
	reads(handle, 0, data, MIB);
	client_close_handle(&top, handle);
	end(false);
	teardown();
}
END_TEST

static Suite *suite(void)
{
	const TTest *const tests[] = {what_is_flushed_has_arrived,
	    the_lease_goes_when_all_is_pushed, others_changes_are_seen, sizes, names, xattrs, jobs,
	    recordings, small_cache};
	const TTest *const lives[] = {remount_fetches_nothing, given_up_is_pushed_by_the_next,
	    conflicts_go_aside, flush_is_in_the_index, dirty_rows_are_not_evicted};
	Suite *s = suite_create("managed");
	TCase *tc = tcase_create("promises"), *dirs = tcase_create("lives");

	tcase_set_timeout(tc, 60);
	tcase_set_timeout(dirs, 60);
	tcase_add_unchecked_fixture(tc, rig_tmpdirs_begin, rig_tmpdirs_end);
	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		tcase_add_loop_test(tc, tests[i], 0, STACKS);
	for (size_t i = 0; i < sizeof(lives) / sizeof(lives[0]); i++) {
		tcase_add_loop_test(dirs, lives[i], LOCAL_DIR, LOCAL_DIR + 1);
		tcase_add_loop_test(dirs, lives[i], PEER_DIR, PEER_DIR + 1);
	}
	suite_add_tcase(s, tc);
	suite_add_tcase(s, dirs);
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
