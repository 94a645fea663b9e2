/* SPDX-License-Identifier: Apache-2.0
 *
 * The managed pool with a cache directory: what one life leaves to the next, and what a power failure would find.
 *
 * Each test runs over a pool of this process and over one at a donor.
 */
#include <check.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cache_index.h"
#include "core/rescue.h"
#include "tests/lib/managed_rig.h"

/* ---- a disk on which the index can't be written ---- */

enum { FOREVER = 1 << 30 };

static atomic_int index_failures; /* so many writes of it fail */

static bool is_index(int fd)
{
	char name[64], target[RIG_PATH_MAX];
	ssize_t len;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	len = readlink(name, target, sizeof(target) - 1);
	if (len < 0)
		return false;
	target[len] = '\0';
	return strstr(target, "/index") != NULL;
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off64_t off)
{
	if (index_failures > 0 && is_index(fd) && atomic_fetch_sub(&index_failures, 1) > 0) {
		errno = ENOSPC;
		return -1;
	}
	return syscall(SYS_pwrite64, fd, buf, len, off);
}

/* ---- the tests ---- */

START_TEST(remount_fetches_nothing)
{
	struct handle *handle;
	char text[64];

	mr_setup(_i);
	mr_begin();
	handle = client_create(&mr.top, "r");
	mr_put(handle, 0, mr.data, MIB);
	ck_assert_int_eq(mr_set_xattr("r", "user.remram.pull_order", (char[]){"64K-:3"}), 0);
	client_close_handle(&mr.top, handle);
	mr_end(false);
	mr_begin();
	ck_assert_int_eq(mr_get_xattr("r", "user.remram.pull_order", text, sizeof(text)), 0);
	ck_assert_str_eq(text, "64K-:3");
	handle = mr_open(&mr.top, "r", POOL_READ);
	mr_reads(handle, 0, mr.data, MIB);
	ck_assert_uint_eq(mr_look("r").region.cache.fetched, 0);
	client_close_handle(&mr.top, handle);
	mr_end(false);
	mr_teardown();
}
END_TEST

START_TEST(given_up_is_pushed_by_the_next)
{
	struct handle *handle;

	mr_setup(_i);
	mr.conf.push_interval_ms = 600000;
	mr_begin();
	handle = client_create(&mr.top, "r");
	mr_put(handle, 0, mr.data, 4096);
	ck_assert_int_eq(mr_flush(handle), 0);
	mr_put(handle, 0, mr.data + 1, MIB);
	mr_give_up(); /* the close pushes nothing then */
	client_close_handle(&mr.top, handle);
	mr_end(true);
	mr_begin();
	for (unsigned i = 0; i < MR_WAIT_TRIES; i++) {
		struct handle *theirs = mr_open(&mr.other, "r", POOL_READ);

		ck_assert_int_eq(rig_read(mr.rig.loops[0], &theirs->store, 0, mr.back, MIB), 0);
		client_close_handle(&mr.other, theirs);
		if (memcmp(mr.back, mr.data + 1, MIB) == 0)
			break;
		usleep(MR_WAIT_US);
	}
	mr_other_reads("r", 0, mr.data + 1, MIB);
	mr_end(false);
	mr_teardown();
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

	mr_setup(_i);
	mr.conf.push_interval_ms = 600000;
	mr_begin();
	handle = client_create(&mr.top, "r");
	mr_put(handle, 0, mr.data, 4096);
	ck_assert_int_eq(mr_flush(handle), 0);
	mr_put(handle, 0, mr.data + 1, 4096);
	mr_give_up();
	client_close_handle(&mr.top, handle);
	mr_end(true);
	theirs = mr_open(&mr.other, "r", POOL_READ | POOL_WRITE);
	mr_put(theirs, 0, mr.data + 2, 4096);
	client_close_handle(&mr.other, theirs);
	mr_begin();
	for (unsigned i = 0; i < MR_WAIT_TRIES && mr_look("r").status.recovering; i++)
		usleep(MR_WAIT_US);
	handle = mr_open(&mr.top, "r", POOL_READ);
	mr_reads(handle, 0, mr.data + 2, 4096);
	client_close_handle(&mr.top, handle);
	mr_end(false);
	ck_assert_int_eq(rescue_list(mr.path, count_entry, &entries, &err), 0);
	ck_assert_uint_eq(entries, 1);
	mr_other_reads("r", 0, mr.data + 2, 4096);
	mr_teardown();
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
	snprintf(command, sizeof(command), "cp -a %s/. %s", mr.path, copy);
	ck_assert_int_eq(system(command), 0);
	ck_assert_int_eq(cache_dir_open(copy, "/copy", mr.rig.workers, &ic.dir, &err), 0);
	ck_assert_int_eq(cache_index_open(&ic, &loading.load.index, &err), 0);
	loading.load.region.id = id;
	rig_call(mr.top.loop, load_now, &loading);
	for (unsigned i = 0; i < MR_WAIT_TRIES && !loading.done; i++)
		usleep(MR_WAIT_US);
	ck_assert_int_eq(loading.load.found, INDEX_UNCLEAN);
	*ret_chunks = loading.load.count;
	free(loading.load.chunks);
	rig_call(mr.top.loop, abandon_now, &loading);
	for (unsigned i = 0; i < MR_WAIT_TRIES && !loading.closed; i++)
		usleep(MR_WAIT_US);
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

	mr_setup(_i);
	mr_begin();
	handle = client_create(&mr.top, "r");
	mr_put(handle, 0, mr.data, MIB);
	ck_assert_int_eq(mr_flush(handle), 0);
	mr_put(handle, 0, mr.data + 1, MIB);
	ck_assert_int_eq(mr_flush(handle), 0);
	ck_assert_uint_eq(wrong_in_copy(handle->region_id, &chunks), 0);
	ck_assert_uint_eq(chunks, MIB / INDEX_CHUNK);
	client_close_handle(&mr.top, handle);
	mr_end(false);
	mr_teardown();
}
END_TEST

/* What the index calls dirty is not punched: a crash would take the zeros for newer bytes, and push them. */
START_TEST(dirty_rows_are_not_evicted)
{
	struct handle *handle;
	uint64_t chunks;

	mr_setup(_i);
	mr.conf.durability = CACHE_LOCAL;
	mr_begin();
	handle = client_create(&mr.top, "r");
	mr_put(handle, 0, mr.data, MIB);
	ck_assert_int_eq(mr_flush(handle), 0); /* dirty, and so in the index */
	/* A push is committed before it is sent; that it has arrived is committed up to a second later. */
	for (unsigned i = 0; i < MR_WAIT_TRIES && mr_look("r").region.cache.dirty; i++)
		usleep(1000);
	ck_assert_int_eq(mr_evict(handle->region_id), 0);
	ck_assert_uint_eq(wrong_in_copy(handle->region_id, &chunks), 0);
	/* After the commit that this has asked for it can go. */
	for (unsigned i = 0; i < MR_WAIT_TRIES && mr_look("r").region.cache.local; i++) {
		mr_evict(handle->region_id);
		usleep(MR_WAIT_US);
	}
	ck_assert_uint_eq(mr_look("r").region.cache.local, 0);
	mr_reads(handle, 0, mr.data, MIB);
	client_close_handle(&mr.top, handle);
	mr_end(false);
	mr_teardown();
}
END_TEST

/* A region that became shorter at the donor, and an index that does not hear of it in time: the next life would make it
 * as long as it was, with zeros. */
START_TEST(a_cut_is_made_when_the_index_has_it)
{
	struct pool_req req = {.op = POOL_SETATTR, .set = POOL_SET_SIZE, .attr.size = 5000};

	mr_setup(_i);
	mr.conf.push_interval_ms = 600000;
	mr.conf.durability = CACHE_LOCAL;
	mr_begin();
	req.handle = client_create(&mr.top, "r");
	req.id = req.handle->region_id;
	mr_put(req.handle, 0, mr.data, MIB);
	ck_assert_int_eq(mr_flush(req.handle), 0);
	sleep(2); /* the index is at rest */
	index_failures = 1;
	ck_assert_int_eq(client_ask(&mr.top, &req), 0);
	ck_assert_int_le(index_failures, 0);
	index_failures = FOREVER; /* as if it were killed here */
	mr_give_up();
	client_close_handle(&mr.top, req.handle);
	mr_end(true);
	index_failures = 0;
	mr_begin();
	for (unsigned i = 0; i < MR_WAIT_TRIES && mr_look("r").status.recovering; i++)
		usleep(MR_WAIT_US);
	ck_assert_uint_eq(mr_attr_of(&mr.top, "r").size, 5000);
	mr_end(false);
	ck_assert_uint_eq(mr_attr_of(&mr.other, "r").size, 5000);
	mr_other_reads("r", 0, mr.data, 5000);
	mr_teardown();
}
END_TEST

static Suite *suite(void)
{
	const TTest *const tests[] = {remount_fetches_nothing, given_up_is_pushed_by_the_next,
	    conflicts_go_aside, flush_is_in_the_index, dirty_rows_are_not_evicted,
	    a_cut_is_made_when_the_index_has_it};
	Suite *s = suite_create("managed_life");
	TCase *tc = tcase_create("lives");

	tcase_set_timeout(tc, 60);
	tcase_add_unchecked_fixture(tc, rig_tmpdirs_begin, rig_tmpdirs_end);
	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		tcase_add_loop_test(tc, tests[i], MR_LOCAL_DIR, MR_LOCAL_DIR + 1);
		tcase_add_loop_test(tc, tests[i], MR_PEER_DIR, MR_PEER_DIR + 1);
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
