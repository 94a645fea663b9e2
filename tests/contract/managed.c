/* SPDX-License-Identifier: Apache-2.0
 *
 * The managed pool: what it promises (core/managed.h) of a region: its bytes, lease, size, names and attributes.
 * (Jobs and bounds: managed_job.c.  Over lives: managed_life.c.  After a crash: tests/e2e/82-managed-kill.sh,
 * cache_crash_full.c.)
 *
 * Each test runs in the four combinations (tests/lib/managed_rig.h).
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/managed_rig.h"

static int set_size(struct client *client, const char *name, struct handle *handle, uint64_t size)
{
	struct pool_req req = {.op = POOL_SETATTR,
	    .id = handle ? handle->region_id : mr_id_of(client, name),
	    .handle = handle,
	    .set = POOL_SET_SIZE,
	    .attr.size = size};
	int rc = client_ask(client, &req);

	if (rc == 0)
		ck_assert_uint_eq(req.attr.size, size);
	return rc;
}

START_TEST(what_is_flushed_has_arrived)
{
	struct handle *handle;
	struct pool_req req;
	uint64_t version;

	mr_setup(_i);
	mr_begin();
	handle = client_create(&mr.top, "r");
	mr_put(handle, 0, mr.data, MIB);
	mr_put(handle, 5000, mr.data + 77, 100); /* parts of a block */
	ck_assert_uint_eq(mr_attr_of(&mr.top, "r").size, MIB);
	ck_assert_int_eq(mr_flush(handle), 0);
	mr_other_reads("r", 5000, mr.data + 77, 100);
	mr_other_reads("r", 8192, mr.data + 8192, 4096);
	mr_reads(handle, 5000, mr.data + 77, 100);
	client_close_handle(&mr.top, handle);
	mr_wait_state("r", MANAGED_IDLE);
	ck_assert_int_eq(mr_open_at(&mr.top, "r", POOL_READ, 0, &req), 0);
	ck_assert(!req.ret_unchanged);
	version = req.attr.version;
	client_close_handle(&mr.top, req.ret_handle);
	ck_assert_int_eq(mr_open_at(&mr.top, "r", POOL_READ, version, &req), 0);
	ck_assert(req.ret_unchanged);
	mr_reads(req.ret_handle, 8192, mr.data + 8192, 4096);
	client_close_handle(&mr.top, req.ret_handle);
	ck_assert_uint_eq(mr_look("r").region.cache.fetched, 0);
	mr_end(false);
	mr_teardown();
}
END_TEST

START_TEST(the_lease_goes_when_all_is_pushed)
{
	struct handle *handle, *theirs;
	struct region_attr before;
	struct pool_req req;

	mr_setup(_i);
	mr.conf.push_interval_ms = 600000; /* only what waits for it is pushed */
	mr_begin();
	handle = client_create(&mr.top, "r");
	mr_put(handle, 0, mr.data, MIB);
	ck_assert_int_eq(mr_open_at(&mr.other, "r", POOL_WRITE, 0, &req), -EBUSY);
	before = mr_attr_of(&mr.top, "r");
	client_close_handle(&mr.top, handle);
	theirs = mr_open(&mr.other, "r", POOL_READ | POOL_WRITE);
	mr_reads(theirs, 0, mr.data, MIB);
	/* The time of the write, not of the push. */
	ck_assert_int_eq(mr_attr_of(&mr.other, "r").mtime_ns, before.mtime_ns);
	client_close_handle(&mr.other, theirs);
	mr_end(false);
	mr_teardown();
}
END_TEST

START_TEST(others_changes_are_seen)
{
	struct handle *handle, *theirs;
	struct pool_req req;

	mr_setup(_i);
	mr_begin();
	handle = client_create(&mr.top, "r");
	mr_put(handle, 0, mr.data, MIB);
	client_close_handle(&mr.top, handle);
	theirs = mr_open(&mr.other, "r", POOL_READ | POOL_WRITE);
	mr_put(theirs, 4096, mr.data, 4096);
	mr_put(theirs, MIB, mr.data + 5, 4096); /* and longer */
	client_close_handle(&mr.other, theirs);
	ck_assert_int_eq(mr_open_at(&mr.top, "r", POOL_READ, 0, &req), 0);
	ck_assert(!req.ret_unchanged);
	ck_assert_uint_eq(req.attr.size, MIB + 4096);
	mr_reads(req.ret_handle, 4096, mr.data, 4096);
	mr_reads(req.ret_handle, MIB, mr.data + 5, 4096);
	/* While it is open here. */
	theirs = mr_open(&mr.other, "r", POOL_READ | POOL_WRITE);
	mr_put(theirs, 4096, mr.data + 99, 4096);
	client_close_handle(&mr.other, theirs);
	if (mr.is_peer) /* a pool of our own gives no notices */
		for (unsigned i = 0; i < MR_WAIT_TRIES; i++) {
			ck_assert_int_eq(
			    rig_read(mr.rig.loops[0], &req.ret_handle->store, 4096, mr.back, 4096),
			    0);
			if (memcmp(mr.back, mr.data + 99, 4096) == 0)
				break;
			usleep(MR_WAIT_US);
		}
	mr_attr_of(&mr.top, "r");
	mr_reads(req.ret_handle, 4096, mr.data + 99, 4096);
	client_close_handle(&mr.top, req.ret_handle);
	mr_end(false);
	mr_teardown();
}
END_TEST

/* A region of which all is pulled, and that another client cuts, while it is open here. */
START_TEST(others_cuts_are_seen)
{
	struct handle *handle, *theirs;
	struct mr_look look;

	mr_setup(_i);
	mr.conf.pull = PULL_ALL;
	theirs = client_create(&mr.other, "r");
	for (unsigned i = 0; i < 64; i++)
		mr_put(theirs, i * MIB, mr.data + i % 4 * MIB, MIB);
	client_close_handle(&mr.other, theirs);
	mr_begin();
	handle = mr_open(&mr.top, "r", POOL_READ);
	for (unsigned i = 15; i > 9; i--) {
		theirs = mr_open(&mr.other, "r", POOL_READ | POOL_WRITE);
		ck_assert_int_eq(set_size(&mr.other, NULL, theirs, i * 4 * MIB + 100), 0);
		client_close_handle(&mr.other, theirs);
		if (mr.is_peer)
			for (unsigned tries = 0; tries < MR_WAIT_TRIES; tries++) {
				look = mr_look("r");
				if (look.region.cache.size == i * 4 * MIB + 100)
					break;
				mr_reads(handle, 0, mr.data, 4096);
				usleep(100);
			}
		ck_assert_uint_eq(mr_attr_of(&mr.top, "r").size, i * 4 * MIB + 100);
		mr_reads(handle, i * 4 * MIB - 4096, mr.data + 4 * MIB - 4096, 4096);
		mr_reads(handle, i * 4 * MIB, mr.data, 100);
	}
	client_close_handle(&mr.top, handle);
	mr_end(false);
	mr_teardown();
}
END_TEST

START_TEST(sizes)
{
	static const uint8_t zeros[MIB];
	struct handle *handle;

	mr_setup(_i);
	mr_begin();
	handle = client_create(&mr.top, "r");
	mr_put(handle, 0, mr.data, MIB);
	ck_assert_int_eq(set_size(&mr.top, NULL, handle, 5000), 0);
	ck_assert_uint_eq(mr_attr_of(&mr.other, "r").size, 5000);
	ck_assert_int_eq(set_size(&mr.top, NULL, handle, 2 * MIB), 0);
	mr_reads(handle, 0, mr.data, 5000);
	mr_reads(handle, 5000, zeros, 60000);
	ck_assert_int_eq(mr_flush(handle), 0);
	mr_other_reads("r", 0, mr.data, 5000);
	mr_other_reads("r", 5000, zeros, 60000);
	client_close_handle(&mr.top, handle);
	/* Without a handle, in IDLE, and longer than ever. */
	mr_wait_state("r", MANAGED_IDLE);
	ck_assert_int_eq(set_size(&mr.top, "r", NULL, 100), 0);
	ck_assert_int_eq(set_size(&mr.top, "r", NULL, 8192), 0);
	handle = mr_open(&mr.top, "r", POOL_READ);
	mr_reads(handle, 0, mr.data, 100);
	mr_reads(handle, 100, zeros, 8092);
	client_close_handle(&mr.top, handle);
	mr_wait_state("r", MANAGED_IDLE);
	ck_assert_uint_eq(mr_attr_of(&mr.other, "r").size, 8192);
	mr_other_reads("r", 100, zeros, 8092);
	mr_end(false);
	mr_teardown();
}
END_TEST

/* What a write has made longer stays so when its end is punched before it is pushed. */
START_TEST(a_punched_end_keeps_its_length)
{
	static const uint8_t zeros[MIB];
	struct handle *handle;
	struct rig_req punch = {.req = {.op = STORE_ZERO, .off = 8192, .len = MIB - 8192}};

	mr_setup(_i);
	mr.conf.push_interval_ms = 3600 * 1000;
	mr_begin();
	handle = client_create(&mr.top, "r");
	mr_put(handle, 0, mr.data, MIB);
	rig_submit(mr.top.loop, &handle->store, &punch, 1);
	ck_assert_int_eq(punch.err, 0);
	ck_assert_int_eq(mr_flush(handle), 0);
	ck_assert_uint_eq(mr_attr_of(&mr.other, "r").size, MIB);
	mr_other_reads("r", 0, mr.data, 8192);
	mr_other_reads("r", 8192, zeros, MIB - 8192);
	client_close_handle(&mr.top, handle);
	mr_end(false);
	mr_teardown();
}
END_TEST

START_TEST(names)
{
	struct pool_req req = {.op = POOL_REMOVE, .name = "r"};
	struct handle *handle, *again;

	mr_setup(_i);
	mr_begin();
	handle = client_create(&mr.top, "r");
	mr_put(handle, 0, mr.data, MIB);
	ck_assert_int_eq(client_ask(&mr.top, &req), 0);
	mr_reads(handle, 0, mr.data, MIB); /* it is open */
	again = client_create(&mr.top, "r");
	ck_assert_uint_eq(mr_attr_of(&mr.top, "r").size, 0);
	mr_put(again, 0, mr.data + 1, 4096);
	client_close_handle(&mr.top, handle);
	mr_reads(again, 0, mr.data + 1, 4096);
	client_close_handle(&mr.top, again);
	req = (struct pool_req){.op = POOL_RENAME, .name = "r", .new_name = "s"};
	ck_assert_int_eq(client_ask(&mr.top, &req), 0);
	handle = mr_open(&mr.top, "s", POOL_READ);
	mr_reads(handle, 0, mr.data + 1, 4096);
	client_close_handle(&mr.top, handle);
	ck_assert_str_eq(mr_look("s").region.name, "s");
	mr_wait_state("s", MANAGED_IDLE);
	req = (struct pool_req){.op = POOL_REMOVE, .name = "s"};
	ck_assert_int_eq(client_ask(&mr.top, &req), 0);
	mr_end(false);
	mr_teardown();
}
END_TEST

/* How often the name is in the list in mr.back. */
static unsigned count_names(size_t len, const char *name)
{
	const char *list = (const char *)mr.back;
	unsigned n = 0;

	for (size_t pos = 0; pos < len; pos += strlen(list + pos) + 1)
		n += strcmp(list + pos, name) == 0;
	return n;
}

START_TEST(xattrs)
{
	struct pool_req theirs = {
	    .op = POOL_SETXATTR, .name = "user.remram.durability", .data = (char[]){"x"}, .len = 1};
	struct handle *handle;
	struct pool_req req = {.op = POOL_LISTXATTR, .data = mr.back, .len = 4096};
	char text[256];

	mr_setup(_i);
	mr.conf.push_interval_ms = 600000;
	mr_begin();
	handle = client_create(&mr.top, "r");
	mr_put(handle, 0, mr.data, MIB);
	ck_assert_int_eq(mr_get_xattr("r", "user.remram.dirty_bytes", text, sizeof(text)), 0);
	ck_assert_str_eq(text, "1048576");
	ck_assert_int_eq(mr_get_xattr("r", "user.remram.resident", text, sizeof(text)), 0);
	ck_assert_str_eq(text, "1048576");
	ck_assert_int_eq(
	    mr_set_xattr("r", "user.remram.pull_order", (char[]){"0-64K:10,512K-:9"}), 0);
	ck_assert_int_eq(mr_get_xattr("r", "user.remram.pull_order", text, sizeof(text)), 0);
	ck_assert_str_eq(text, "0-64K:10,512K-:9");
	ck_assert_int_eq(
	    mr_set_xattr("r", "user.remram.pull_order", (char[]){"nonsense"}), -EINVAL);
	ck_assert_int_eq(mr_set_xattr("r", "user.remram.durability", (char[]){"none"}), 0);
	ck_assert_int_eq(mr_get_xattr("r", "user.remram.durability", text, sizeof(text)), 0);
	ck_assert_str_eq(text, "none");
	ck_assert_int_eq(mr_set_xattr("r", "user.remram.durability", (char[]){"local"}),
	    mr.has_dir ? 0 : -EOPNOTSUPP);
	ck_assert_int_eq(mr_set_xattr("r", "user.remram.durability", (char[]){"often"}), -EINVAL);
	ck_assert_int_eq(mr_set_xattr("r", "user.remram.resident", (char[]){"1"}), -EPERM);
	ck_assert_int_eq(mr_set_xattr("r", "user.own", (char[]){"1"}), 0);
	/* What another client has set under a name of ours, below. */
	theirs.id = mr_id_of(&mr.other, "r");
	ck_assert_int_eq(client_ask(&mr.other, &theirs), 0);
	req.id = handle->region_id;
	ck_assert_int_eq(client_ask(&mr.top, &req), 0);
	ck_assert_msg(
	    memmem(mr.back, req.ret_len, "user.own", 9) != NULL, "user.own is not listed");
	ck_assert_msg(memmem(mr.back, req.ret_len, "user.remram.pinned", 19) != NULL,
	    "user.remram.pinned is not listed");
	ck_assert_uint_eq(count_names(req.ret_len, "user.remram.durability"), 1);
	ck_assert_uint_eq(count_names(req.ret_len, "user.remram.resident"), 1);
	client_close_handle(&mr.top, handle);
	/* One that has not been open since has only what does not depend on that. */
	mr_wait_state("r", MANAGED_IDLE);
	mr_end(false);
	mr_begin();
	req.id = mr_id_of(&mr.top, "r");
	ck_assert_int_eq(client_ask(&mr.top, &req), 0);
	ck_assert_uint_eq(count_names(req.ret_len, "user.remram.durability"), 1);
	ck_assert_uint_eq(count_names(req.ret_len, "user.remram.resident"), 0);
	ck_assert_int_eq(mr_get_xattr("r", "user.remram.resident", text, sizeof(text)), -ENODATA);
	mr_end(false);
	mr_teardown();
}
END_TEST

/* The last writer is gone, the lease is not given back yet, and others get and use it: who opens the region for writing
 * now gets another one, not that. */
START_TEST(a_lease_that_others_had_is_not_used_again)
{
	struct client_conf cc = {.pool = "ram"};
	struct client_req open = {.req = {.op = POOL_OPEN, .flags = POOL_READ | POOL_WRITE}};
	struct client_wait *wait;
	struct handle *handle, *theirs;
	struct proxy proxy;

	mr_setup(_i);
	mr.serve.pools[0]->lease_ms = 1000;
	client_close(&mr.lower);
	proxy_start(&proxy, mr.serve.port);
	cc.port = proxy.port;
	ck_assert_int_eq(client_open(&mr.lower, mr.rig.loops[0], &cc, NULL), 0);
	mr_begin();
	handle = client_create(&mr.top, "r");
	open.req.id = handle->region_id;
	mr_put(handle, 0, mr.data, MIB);
	for (unsigned i = 0; i < MR_WAIT_TRIES && mr_look("r").region.cache.dirty; i++)
		usleep(MR_WAIT_US);
	proxy_tell(&proxy, "blackhole");
	client_close_handle(&mr.top, handle); /* the FLUSH that comes now is held */
	theirs = mr_open(&mr.other, "r", POOL_READ | POOL_WRITE);
	mr_put(theirs, 4096, mr.data + 99, 4096);
	client_close_handle(&mr.other, theirs);
	wait = client_begin(&mr.top, &open, 1);
	proxy_tell(&proxy, "resume");
	client_end(wait);
	ck_assert_int_eq(open.err, 0);
	handle = open.req.ret_handle;
	mr_reads(handle, 4096, mr.data + 99, 4096);
	mr_put(handle, 0, mr.data + 5, 4096);
	ck_assert_int_eq(mr_flush(handle), 0);
	mr_other_reads("r", 0, mr.data + 5, 4096);
	mr_other_reads("r", 4096, mr.data + 99, 4096);
	client_close_handle(&mr.top, handle);
	mr_end(false);
	proxy_stop(&proxy);
	mr_teardown();
}
END_TEST

static Suite *suite(void)
{
	const TTest *const tests[] = {what_is_flushed_has_arrived,
	    the_lease_goes_when_all_is_pushed, others_changes_are_seen, others_cuts_are_seen, sizes,
	    a_punched_end_keeps_its_length, names, xattrs};
	Suite *s = suite_create("managed");
	TCase *tc = tcase_create("promises");

	tcase_set_timeout(tc, 60);
	tcase_add_unchecked_fixture(tc, rig_tmpdirs_begin, rig_tmpdirs_end);
	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		tcase_add_loop_test(tc, tests[i], 0, MR_STACKS);
	tcase_add_loop_test(
	    tc, a_lease_that_others_had_is_not_used_again, MR_PEER_MEMORY, MR_STACKS);
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
