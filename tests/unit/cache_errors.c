/* SPDX-License-Identifier: Apache-2.0
 *
 * A cache directory and its index on a disk that fails: this program has its own versions of the system
 * calls below, and the n-th of them fails, for n = 1, 2, 3 … until a life has no n-th: opening, loading,
 * committing, closing.  Whatever succeeded is there afterwards, whatever failed has said so, and nothing
 * is taken for damage.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/lib/index_rig.h"

enum { ID = 7, LIFE_MOST = 400 };

static _Atomic unsigned calls, fail_call; /* so far; which one fails, 0: none */
static int fail_errno;
static _Atomic bool fail_syncs; /* all of them */

static bool fails(void)
{
	if (++calls != fail_call)
		return false;
	errno = fail_errno;
	return true;
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off64_t off)
{
	return fails() ? -1 : syscall(SYS_pwrite64, fd, buf, len, off);
}

ssize_t pread64(int fd, void *buf, size_t len, off64_t off)
{
	return fails() ? -1 : syscall(SYS_pread64, fd, buf, len, off);
}

int fallocate64(int fd, int mode, off64_t off, off64_t len)
{
	return fails() ? -1 : (int)syscall(SYS_fallocate, fd, mode, off, len);
}

int ftruncate64(int fd, off64_t len)
{
	return fails() ? -1 : (int)syscall(SYS_ftruncate, fd, len);
}

static int sync_or_fail(int fd, long number)
{
	if (fails())
		return -1;
	if (fail_syncs) {
		errno = EIO;
		return -1;
	}
	return (int)syscall(number, fd);
}

int fdatasync(int fd)
{
	return sync_or_fail(fd, SYS_fdatasync);
}

int fsync(int fd)
{
	return sync_or_fail(fd, SYS_fsync);
}

/* ---- a region of one chunk ---- */

static char dir[RIG_PATH_MAX], path[RIG_PATH_MAX + 8];
static struct index_rig ir;
static struct index_chunk chunk;
static bool changed;
static unsigned given_back;

static unsigned take(void *ctx, struct index_chunk *chunks, unsigned max)
{
	if (!changed)
		return 0;
	changed = false;
	chunks[0] = chunk;
	return 1;
}

static void give_back(void *ctx, const struct index_chunk *chunks, unsigned count)
{
	given_back += count;
	changed = true;
}

static const struct indexed_ops ops = {.take = take, .give_back = give_back};

/* Writes block `block` with a system call that does not fail. */
static void put_block(unsigned block, int byte)
{
	char name[RIG_PATH_MAX + 64];
	uint8_t buf[STORE_BLOCK];
	int fd;

	snprintf(name, sizeof(name), "%s/data/%016x", path, ID);
	fd = open(name, O_WRONLY);
	ck_assert_int_ge(fd, 0);
	memset(buf, byte, sizeof(buf));
	ck_assert_int_eq(
	    syscall(SYS_pwrite64, fd, buf, STORE_BLOCK, (off_t)block * STORE_BLOCK), STORE_BLOCK);
	close(fd);
	chunk.resident |= (uint64_t)1 << block;
	chunk.dirty |= (uint64_t)1 << block;
	changed = true;
}

static void expect_block(unsigned block, int byte)
{
	uint8_t buf[STORE_BLOCK];

	memset(buf, byte, sizeof(buf));
	rig_check(ir.load.count == 1 && ir.load.chunks[0].dirty >> block & 1,
	    "call %u: block %u is not dirty", fail_call, block);
	rig_expect(ir.rig.loops[0], ir.store, (uint64_t)block * STORE_BLOCK, STORE_BLOCK, buf);
}

static void open_all(void)
{
	index_rig_open(&ir, path, NULL, NULL);
	index_rig_load_ok(&ir, ID, "work", INDEX_CHUNK);
	indexed_start(ir.indexed, &ops, NULL);
}

static void close_all(void)
{
	ck_assert_int_eq(index_rig_end(&ir, index_ask_close, NULL), 0);
	index_rig_close(&ir);
}

/* One life on the failing disk; whether block 1 was promised. */
static bool life(void)
{
	struct cache_index_conf conf = {0};
	bool promised = false;
	struct err err = {0};
	int rc;

	memset(&ir, 0, sizeof(ir));
	rig_start(&ir.rig, 1, 2);
	rc = cache_dir_open(path, "/mnt/test", ir.rig.workers, &ir.dir, &err);
	if (rc == 0) {
		conf.dir = ir.dir;
		rc = cache_index_open(&conf, &ir.index, &err);
	}
	rig_check(
	    rc == 0 || rc == err.code, "%d, and the error says %d: %s", rc, err.code, err.text);
	if (rc == 0 && index_rig_load(&ir, ID, "work", INDEX_CHUNK) == 0) {
		indexed_start(ir.indexed, &ops, NULL);
		put_block(1, 2);
		ir.load.region.version = 5;
		indexed_describe(ir.indexed, &ir.load.region);
		promised = index_rig_call(&ir, index_ask_commit, NULL) == 0;
		rig_check(promised || given_back, "call %u: nothing was given back", fail_call);
		/* A second try, by the end or by another commit. */
		if (fail_call % 3) {
			promised |= index_rig_end(&ir, index_ask_close, NULL) == 0;
		} else {
			promised |= index_rig_call(&ir, index_ask_commit, NULL) == 0;
			rig_check(index_rig_end(&ir, index_ask_abandon, NULL) == 0, "abandon");
		}
	} else if (rc == 0) {
		rig_check(ir.load.err.code && ir.load.err.text[0], "no message");
	}
	cache_index_close(ir.index);
	cache_dir_close(ir.dir);
	rig_stop(&ir.rig);
	return promised;
}

static bool run(void *ctx, unsigned n)
{
	bool promised, failed;

	rig_tmpdir("/dev/shm", dir);
	snprintf(path, sizeof(path), "%s/cache", dir);
	memset(&chunk, 0, sizeof(chunk));
	changed = false;
	given_back = 0;
	open_all();
	put_block(0, 1);
	/* Half of the lives follow a clean end. */
	if (n % 2) {
		close_all();
	} else {
		ck_assert_int_eq(index_rig_call(&ir, index_ask_commit, NULL), 0);
		ck_assert_int_eq(index_rig_end(&ir, index_ask_abandon, NULL), 0);
		index_rig_close(&ir);
	}
	calls = 0;
	fail_call = n;
	promised = life();
	failed = calls >= n;
	rig_check(failed || promised, "nothing failed, and nothing was promised");
	fail_call = 0;
	open_all();
	rig_check(ir.load.aside[0] == '\0', "call %u: set aside", n);
	expect_block(0, 1);
	if (promised) {
		expect_block(1, 2);
		rig_check(ir.load.region.version == 5, "call %u: an old version", n);
	}
	close_all();
	rig_tmpdir_remove(dir);
	return failed;
}

START_TEST(each_call_fails)
{
	static const int errors[] = {EIO, ENOSPC};

	fail_errno = errors[_i];
	printf("each_call_fails: %u lives with errno %d\n", rig_fail_each(run, NULL, LIFE_MOST),
	    fail_errno);
}
END_TEST

/* What a sync has lost is not known: no later commit says that all is well. */
START_TEST(a_failed_sync_stays)
{
	rig_tmpdir("/dev/shm", dir);
	snprintf(path, sizeof(path), "%s/cache", dir);
	memset(&chunk, 0, sizeof(chunk));
	open_all();
	put_block(0, 1);
	ck_assert_int_eq(index_rig_call(&ir, index_ask_commit, NULL), 0);
	put_block(1, 2);
	fail_syncs = true;
	ck_assert_int_eq(index_rig_call(&ir, index_ask_commit, NULL), -EIO);
	fail_syncs = false;
	ck_assert_int_eq(index_rig_call(&ir, index_ask_commit, NULL), -EIO);
	changed = false;
	ck_assert_int_eq(index_rig_call(&ir, index_ask_commit, NULL), -EIO);
	/* Nor is it closed cleanly; the last commit is what there is. */
	ck_assert_int_eq(index_rig_end(&ir, index_ask_close, NULL), -EIO);
	index_rig_close(&ir);
	open_all();
	ck_assert_int_eq(ir.load.found, INDEX_UNCLEAN);
	ck_assert_uint_eq(ir.load.chunks[0].dirty, 1);
	expect_block(0, 1);
	close_all();
	rig_tmpdir_remove(dir);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cache_errors");
	TCase *tcase = tcase_create("cache_errors");
	SRunner *runner;
	int failed;

	tcase_add_unchecked_fixture(tcase, rig_tmpdirs_begin, rig_tmpdirs_end);
	tcase_set_timeout(tcase, 120);
	tcase_add_loop_test(tcase, each_call_fails, 0, 2);
	tcase_add_test(tcase, a_failed_sync_stays);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
