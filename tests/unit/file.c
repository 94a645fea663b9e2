/* SPDX-License-Identifier: Apache-2.0
 *
 * The file backend: its directory, its locks, its options and messages, and its quota to the last
 * block.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/backend.h"
#include "tests/lib/rig.h"

enum { BLOCK = 4096, AT_ONCE = 32 };

static struct rig rig;
static char dir[RIG_PATH_MAX];
static struct err err;

static void setup(void)
{
	rig_start(&rig, 2, 3);
	rig_tmpdir(NULL, dir);
}

/* On tmpfs no block is the file system's own: numbers are exact there. */
static void setup_tmpfs(void)
{
	struct statfs fs;

	rig_start(&rig, 2, 3);
	rig_tmpdir(
	    statfs("/dev/shm", &fs) == 0 && fs.f_type == TMPFS_MAGIC ? "/dev/shm" : NULL, dir);
}

static void teardown(void)
{
	rig_tmpdir_remove(dir);
	rig_stop(&rig);
}

/* Opens "file:DIR" + rest. */
static int try_open(const char *rest, bool single, struct backend **ret_backend)
{
	char uri[RIG_PATH_MAX + 100];

	memset(&err, 0, sizeof(err));
	snprintf(uri, sizeof(uri), "file:%s%s", dir, rest);
	return backend_open(uri, single, rig.workers, ret_backend, &err);
}

static struct backend *open_place(const char *rest, bool single)
{
	struct backend *backend;

	ck_assert_msg(try_open(rest, single, &backend) == 0, "%s", err.text);
	return backend;
}

static const char *refused(const char *rest, bool single, int code)
{
	struct backend *backend;

	ck_assert_int_eq(try_open(rest, single, &backend), code);
	ck_assert_int_eq(err.code, code);
	return err.text;
}

static struct store *region(struct backend *backend, uint64_t id, bool create)
{
	struct store *store;

	ck_assert_msg(
	    backend->ops->region_open(backend, id, create, &store, &err) == 0, "%s", err.text);
	return store;
}

static const char *in_dir(const char *name)
{
	static char path[RIG_PATH_MAX + 100];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static int put(struct store *store, uint64_t block, unsigned count, uint8_t value)
{
	uint8_t *buf = malloc((size_t)count * BLOCK);
	int rc;

	memset(buf, value, (size_t)count * BLOCK);
	rc = rig_write(rig.loops[0], store, block * BLOCK, buf, count * BLOCK, 0);
	free(buf);
	return rc;
}

static int op(
    struct store *store, enum store_op what, uint64_t block, uint64_t count, unsigned flags)
{
	return rig_op(rig.loops[0], store, what, block * BLOCK, count * BLOCK, flags);
}

static struct store_stat stat_of(struct store *store)
{
	struct store_stat st;

	ck_assert_int_eq(store_stat(store, &st), 0);
	return st;
}

/* ---- the directory ---- */

START_TEST(a_directory_is_made_and_found_again)
{
	struct backend *backend = open_place("/pool?size=1G", false);
	struct store *store = region(backend, 0x2a, true);
	struct timespec now;
	struct stat st;

	ck_assert(backend->persistent && backend->blocking);
	ck_assert_uint_eq(backend->quota.limit, 1 << 30);
	ck_assert_int_eq(stat(in_dir("pool"), &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0700);
	ck_assert_int_eq(stat(in_dir("pool/000000000000002a"), &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert_int_eq(put(store, 3, 5, 7), 0);
	ck_assert_int_eq(backend->ops->sync(backend), 0);
	store_destroy(store);
	backend_close(backend);

	backend = open_place("/pool", false);
	ck_assert_uint_eq(backend->quota.used, 5 * BLOCK);
	store = region(backend, 0x2a, false);
	ck_assert_uint_eq(stat_of(store).size, 8 * BLOCK);
	ck_assert_uint_eq(stat_of(store).allocated, 5 * BLOCK);
	clock_gettime(CLOCK_REALTIME, &now);
	ck_assert_int_le(llabs(stat_of(store).mtime_ns / 1000000000 - now.tv_sec), 60);
	rig_expect(rig.loops[0], store, 0, 3 * BLOCK, NULL);
	store_destroy(store);
	backend_close(backend);
}
END_TEST

static uint64_t found_ids[8];
static unsigned found_count;

static void found(void *ctx, uint64_t id)
{
	found_ids[found_count++] = id;
}

START_TEST(regions_are_listed_and_removed)
{
	struct backend *backend = open_place("/pool", false);
	struct store *store;

	store_destroy(region(backend, 2, true));
	store_destroy(region(backend, UINT64_MAX, true));
	close(open(in_dir("pool/notes.txt"), O_CREAT | O_WRONLY, 0600));
	close(open(in_dir("pool/000000000000002A"), O_CREAT | O_WRONLY, 0600));
	close(open(in_dir("pool/00000000000000002"), O_CREAT | O_WRONLY, 0600));
	close(open(in_dir("pool/0000000000000002.old"), O_CREAT | O_WRONLY, 0600));
	ck_assert_int_eq(backend->ops->region_list(backend, found, NULL, &err), 0);
	ck_assert_uint_eq(found_count, 2);
	ck_assert_uint_eq(found_ids[0] ^ found_ids[1], 2 ^ UINT64_MAX);
	ck_assert_int_eq(backend->ops->region_remove(backend, UINT64_MAX, &err), 0);
	ck_assert_int_eq(backend->ops->region_remove(backend, UINT64_MAX, &err), 0);
	ck_assert_int_eq(
	    backend->ops->region_open(backend, UINT64_MAX, false, &store, &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "ffffffffffffffff"));
	found_count = 0;
	ck_assert_int_eq(backend->ops->region_list(backend, found, NULL, &err), 0);
	ck_assert_uint_eq(found_count, 1);
	ck_assert_uint_eq(found_ids[0], 2);
	backend_close(backend);
}
END_TEST

/* What a crash between two steps of a creation has left is no part of the new region. */
START_TEST(create_makes_it_anew)
{
	struct backend *backend = open_place("/pool", false);
	struct store *store = region(backend, 9, true);

	ck_assert_int_eq(put(store, 0, 16, 1), 0);
	store_destroy(store);
	store = region(backend, 9, true);
	ck_assert_uint_eq(stat_of(store).size, 0);
	ck_assert_uint_eq(backend->quota.used, 0);
	rig_expect(rig.loops[0], store, 0, 16 * BLOCK, NULL);
	store_destroy(store);
	backend_close(backend);
}
END_TEST

START_TEST(two_daemons_never_share_a_place)
{
	struct backend *backend = open_place("/pool", false), *single;
	int status;
	pid_t pid;

	ck_assert_ptr_nonnull(strstr(refused("/pool", false, -EBUSY), "in use"));
	pid = fork();
	if (pid == 0)
		_exit(try_open("/pool", false, &backend) == -EBUSY ? 0 : 1);
	ck_assert(waitpid(pid, &status, 0) == pid && status == 0);
	/* What the child closed at its end has not given the lock away. */
	refused("/pool", false, -EBUSY);
	backend_close(backend);
	backend_close(open_place("/pool", false));

	single = open_place("/one?size=1M", true);
	ck_assert_ptr_nonnull(strstr(refused("/one", true, -EBUSY), "in use"));
	backend_close(single);
	backend_close(open_place("/one", true));
}
END_TEST

START_TEST(a_directory_belongs_to_one_pool)
{
	const uint8_t ours[16] = {1, 2, 3, 255}, theirs[16] = {1, 2, 3, 254};
	struct backend *backend = open_place("/pool", false);

	ck_assert_int_eq(backend->ops->claim(backend, ours, &err), 0);
	ck_assert_int_eq(backend->ops->claim(backend, ours, &err), 0);
	store_destroy(region(backend, 5, true));
	backend_close(backend);
	backend = open_place("/pool", false);
	ck_assert_int_eq(backend->ops->claim(backend, theirs, &err), -EEXIST);
	ck_assert_ptr_nonnull(strstr(err.text, "another pool"));
	ck_assert_int_eq(backend->ops->claim(backend, ours, &err), 0);
	/* Regions without a marker are somebody's: a pool that took them would delete them. */
	ck_assert_int_eq(unlink(in_dir("pool/remram-pool")), 0);
	ck_assert_int_eq(backend->ops->claim(backend, ours, &err), -EEXIST);
	ck_assert_int_eq(backend->ops->region_remove(backend, 5, &err), 0);
	ck_assert_int_eq(backend->ops->claim(backend, theirs, &err), 0);
	/* A marker that was cut off is no marker of ours. */
	ck_assert_int_eq(truncate(in_dir("pool/remram-pool"), 10), 0);
	ck_assert_int_eq(backend->ops->claim(backend, theirs, &err), -EEXIST);
	backend_close(backend);
}
END_TEST

START_TEST(mistakes_are_named)
{
	struct backend *backend;

	ck_assert_ptr_nonnull(strstr(refused("/pool?sice=1G", false, -EINVAL), "sice"));
	ck_assert_ptr_nonnull(strstr(refused("/pool?size=1X", false, -EINVAL), "1X"));
	ck_assert_ptr_nonnull(strstr(refused("/pool?size=100", false, -EINVAL), "100"));
	refused("/pool?size=16P&size=1G", false, -EINVAL);
	ck_assert_ptr_nonnull(strstr(refused("/a/b/pool", false, -ENOENT), "/a/b/pool"));
	ck_assert_ptr_nonnull(strstr(refused("/none", true, -ENOENT), "?size="));
	ck_assert_ptr_nonnull(strstr(refused("", true, -EINVAL), "neither"));
	close(open(in_dir("plain"), O_CREAT | O_WRONLY, 0600));
	ck_assert_ptr_nonnull(strstr(refused("/plain", false, -ENOTDIR), "not a directory"));
	ck_assert_int_eq(backend_open("file:pool", false, rig.workers, &backend, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "'/'"));
	ck_assert_int_eq(
	    backend_open("file://donor/pool", false, rig.workers, &backend, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "donor"));
}
END_TEST

START_TEST(one_file_is_one_region)
{
	struct backend *backend = open_place("/one?size=5000", true);
	struct store *store;
	uint64_t total = 0, left = 0;

	ck_assert_int_eq(backend->ops->region_open(backend, 2, true, &store, &err), -EEXIST);
	ck_assert_int_eq(backend->ops->region_open(backend, 3, false, &store, &err), -ENOENT);
	ck_assert_int_eq(backend->ops->region_remove(backend, 2, &err), -EPERM);
	ck_assert_int_eq(backend->ops->region_list(backend, found, NULL, &err), 0);
	ck_assert(found_count == 1 && found_ids[0] == 2);
	backend->ops->space(backend, &total, &left);
	ck_assert(total > left && left > 0);
	store = region(backend, 2, false);
	ck_assert_uint_eq(stat_of(store).size, 5000);
	ck_assert_int_eq(put(store, 10, 1, 3), 0);
	store_destroy(store);
	backend_close(backend);
	/* It is there now: size= is for a file that is not. */
	backend = open_place("/one?size=1M", true);
	store = region(backend, 2, false);
	ck_assert_uint_eq(stat_of(store).size, 11 * BLOCK);
	ck_assert_uint_eq(backend->quota.used, BLOCK);
	store_destroy(store);
	backend_close(backend);
}
END_TEST

/* ---- lengths ---- */

START_TEST(alloc_makes_longer_unless_told_to_keep)
{
	struct backend *backend = open_place("/pool", false);
	struct store *store = region(backend, 2, true);

	ck_assert_int_eq(op(store, STORE_ALLOC, 0, 10, STORE_KEEP), 0);
	ck_assert_uint_eq(stat_of(store).size, 0);
	ck_assert_uint_eq(stat_of(store).allocated, 10 * BLOCK);
	ck_assert_int_eq(op(store, STORE_ALLOC, 2, 4, 0), 0);
	ck_assert_uint_eq(stat_of(store).size, 6 * BLOCK);
	ck_assert_uint_eq(backend->quota.used, 10 * BLOCK);
	/* A resize gives what lies beyond the end back. */
	ck_assert_int_eq(op(store, STORE_RESIZE, 8, 0, 0), 0);
	ck_assert_uint_eq(stat_of(store).size, 8 * BLOCK);
	ck_assert_uint_le(stat_of(store).allocated, 8 * BLOCK);
	ck_assert_uint_eq(backend->quota.used, stat_of(store).allocated);
	store_destroy(store);
	backend_close(backend);
}
END_TEST

START_TEST(a_file_ends_where_its_file_system_ends)
{
	struct backend *backend = open_place("/pool", false);
	struct store *store = region(backend, 2, true);
	uint64_t last = store->size / BLOCK - 1;
	struct extent ext;
	unsigned n;

	ck_assert_uint_ge(store->size, (uint64_t)1 << 62);
	rig_expect(rig.loops[0], store, last * BLOCK, BLOCK, NULL);
	ck_assert_int_eq(op(store, STORE_ZERO, 0, last + 1, 0), 0);
	ck_assert_int_eq(op(store, STORE_ZERO, last, 1, 0), 0);
	ck_assert_int_eq(rig_extents(rig.loops[0], store, 0, store->size, &ext, 1, &n), 0);
	ck_assert(n == 1 && ext.len == store->size && ext.flags == EXTENT_HOLE);
	if (lseek(open(in_dir("pool/0000000000000002"), O_RDONLY), INT64_MAX, SEEK_SET) < 0) {
		ck_assert_int_eq(put(store, last, 1, 1), -EFBIG);
		ck_assert_int_eq(op(store, STORE_ALLOC, last, 1, 0), -EFBIG);
		ck_assert_uint_eq(backend->quota.used, 0);
	}
	store_destroy(store);
	backend_close(backend);
}
END_TEST

/* ---- the quota ---- */

/* Writes every other piece of 16 blocks of the region from `first` on. */
static void put_pieces(struct store *store, unsigned first, unsigned blocks)
{
	for (unsigned i = first; i < blocks; i += 32)
		rig_check(put(store, i, 16, 1) == 0, "the piece at %u does not fit", i);
}

START_TEST(a_region_can_fill_its_quota_and_no_more)
{
	struct backend *backend = open_place("/pool?size=8M", false);
	struct store *a = region(backend, 2, true), *b = region(backend, 3, true);
	unsigned left;

	/* With every other piece on the disk the file system needs blocks of its own, for the map. */
	ck_assert_int_eq(op(a, STORE_RESIZE, 2048, 0, 0), 0);
	put_pieces(a, 0, 2048);
	ck_assert_int_eq(op(a, STORE_FLUSH, 0, 0, 0), 0);
	put_pieces(a, 16, 2048);
	ck_assert_int_eq(put(a, 0, 1, 1), 0);
	ck_assert_uint_eq(backend->quota.used, 8 << 20);
	ck_assert_uint_eq(stat_of(a).allocated, 8 << 20);
	ck_assert_int_eq(put(b, 0, 1, 1), -ENOSPC);
	ck_assert_int_eq(put(a, 2047, 2, 1), -ENOSPC);
	ck_assert_int_eq(op(b, STORE_ALLOC, 0, 1, 0), -ENOSPC);
	ck_assert_uint_eq(stat_of(b).size, 0);
	/* What is there can be written again, and space that is given back can be taken. */
	ck_assert_int_eq(put(a, 100, 200, 2), 0);
	ck_assert_int_eq(op(a, STORE_ALLOC, 0, 2048, 0), 0);
	ck_assert_int_eq(op(a, STORE_ZERO, 64, 128, 0), 0);
	left = (backend->quota.limit - backend->quota.used) / BLOCK;
	ck_assert_uint_ge(left, 128 - 4); /* the map counts now */
	ck_assert_int_eq(put(b, 0, left + 1, 1), -ENOSPC);
	ck_assert_int_eq(put(b, 0, left, 1), 0);
	ck_assert_int_eq(put(a, 64, 8, 1), -ENOSPC);
	store_destroy(a);
	ck_assert_int_eq(backend->ops->region_remove(backend, 2, &err), 0);
	ck_assert_uint_eq(backend->quota.used, left * BLOCK);
	store_destroy(b);
	backend_close(backend);
}
END_TEST

/* After ALLOC no write there fails, however full the pool is. */
START_TEST(what_is_reserved_can_be_written)
{
	struct backend *backend = open_place("/pool?size=4M", false);
	struct store *a = region(backend, 2, true), *b = region(backend, 3, true);
	unsigned i;

	ck_assert_int_eq(op(a, STORE_RESIZE, 2048, 0, 0), 0);
	ck_assert_int_eq(op(a, STORE_ALLOC, 100, 300, 0), 0);
	ck_assert_int_eq(op(b, STORE_ALLOC, 0, 1024, 0), -ENOSPC);
	for (i = 0; put(b, i, 1, 1) == 0; i++)
		;
	ck_assert_uint_ge(i, 1024 - 300 - 2);
	for (i = 0; i < 300; i += 7)
		rig_check(
		    put(a, 100 + (i * 37) % 300, 1, 1) == 0, "block %u", 100 + (i * 37) % 300);
	ck_assert_int_eq(put(a, 100, 200, 1), 0);
	ck_assert_int_eq(op(a, STORE_ZERO, 100, 300, STORE_KEEP), 0);
	ck_assert_int_eq(put(a, 100, 200, 1), 0);
	ck_assert_int_eq(put(a, 399, 2, 1), -ENOSPC);
	ck_assert_int_eq(put(a, 99, 1, 1), -ENOSPC);
	ck_assert_uint_le(backend->quota.used, backend->quota.limit);
	store_destroy(a);
	store_destroy(b);
	backend_close(backend);
}
END_TEST

/* Blocks that are reserved beyond the end don't make room before it. */
START_TEST(space_beyond_the_end_counts)
{
	struct backend *backend = open_place("/pool?size=4M", false);
	struct store *a = region(backend, 2, true);

	ck_assert_int_eq(op(a, STORE_RESIZE, 512, 0, 0), 0);
	ck_assert_int_eq(op(a, STORE_ALLOC, 512, 512, STORE_KEEP), 0);
	ck_assert_uint_eq(backend->quota.used, 512 * BLOCK);
	store_destroy(a);
	a = region(backend, 2, false);
	for (unsigned i = 0; i < 512; i += 64)
		ck_assert_int_eq(put(a, i, 64, 1), 0);
	ck_assert_uint_eq(backend->quota.used, 1024 * BLOCK);
	ck_assert_int_eq(op(a, STORE_ZERO, 0, 512, 0), 0);
	ck_assert_int_eq(op(a, STORE_ALLOC, 1024, 512, STORE_KEEP), 0);
	ck_assert_int_eq(put(a, 0, 1, 1), -ENOSPC);
	store_destroy(a);
	backend_close(backend);
}
END_TEST

/* Writers of one block each, at once, from two loops, into a quota that has room for half of them: the
 * half gets in, no more, and none is refused while there is room. */
START_TEST(the_last_blocks_go_to_somebody)
{
	static struct rig_req reqs[2][AT_ONCE];
	static uint8_t buf[BLOCK];
	struct backend *backend = open_place("/pool?size=2M", false);
	struct store *store = region(backend, 2, true);
	unsigned passed = 0, batch;

	for (batch = 0; batch < 1024 / 2 / AT_ONCE; batch++) {
		struct rig_wait *waits[2];

		for (unsigned l = 0; l < 2; l++) {
			for (unsigned i = 0; i < AT_ONCE; i++)
				reqs[l][i].req = (struct store_req){
				    .op = STORE_WRITE,
				    .off = ((batch * AT_ONCE + i) * 2 + l) * (uint64_t)BLOCK,
				    .len = BLOCK,
				    .buf = buf,
				};
			waits[l] = rig_begin(rig.loops[l], store, reqs[l], AT_ONCE);
		}
		for (unsigned l = 0; l < 2; l++) {
			rig_end(waits[l]);
			for (unsigned i = 0; i < AT_ONCE; i++) {
				rig_check(reqs[l][i].err == 0 || reqs[l][i].err == -ENOSPC, "%d",
				    reqs[l][i].err);
				passed += reqs[l][i].err == 0;
			}
		}
		rig_check(backend->quota.used <= backend->quota.limit, "over the limit");
	}
	ck_assert_uint_eq(passed, 512);
	ck_assert_uint_eq(backend->quota.used, 512 * BLOCK);
	store_destroy(store);
	backend_close(backend);
}
END_TEST

/* There is room for one write more.  Writers over what is there already set more aside than they need;
 * the one that does need it gets it all the same. */
START_TEST(overwriters_take_nothing_from_others)
{
	enum { PIECE = 64, PIECES = 16, ROUNDS = 60 };
	static struct rig_req over[PIECES], fresh;
	static uint8_t buf[PIECE * BLOCK];
	struct backend *backend = open_place("/pool?size=4M", false);
	struct store *full = region(backend, 2, true), *empty = region(backend, 3, true);

	ck_assert_int_eq(put(full, 0, 256, 1), 0);
	ck_assert_int_eq(op(full, STORE_ALLOC, 0, (PIECES - 1) * PIECE, 0), 0);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct rig_wait *waits[2];

		for (unsigned i = 0; i < PIECES; i++)
			over[i].req = (struct store_req){
			    .op = STORE_WRITE,
			    .off = i % (PIECES - 1) * PIECE * (uint64_t)BLOCK,
			    .len = PIECE * BLOCK,
			    .buf = buf,
			};
		fresh.req = (struct store_req){
		    .op = STORE_WRITE,
		    .len = PIECE * BLOCK,
		    .buf = buf,
		};
		waits[0] = rig_begin(rig.loops[0], full, over, PIECES);
		waits[1] = rig_begin(rig.loops[1], empty, &fresh, 1);
		rig_end(waits[0]);
		rig_end(waits[1]);
		for (unsigned i = 0; i < PIECES; i++)
			rig_check(over[i].err == 0, "round %u: %d", round, over[i].err);
		rig_check(fresh.err == 0, "round %u: %d", round, fresh.err);
		ck_assert_uint_eq(backend->quota.used, backend->quota.limit);
		ck_assert_int_eq(op(empty, STORE_RESIZE, 0, 0, 0), 0);
	}
	store_destroy(full);
	store_destroy(empty);
	backend_close(backend);
}
END_TEST

/* A pool whose quota was made smaller serves what it has. */
START_TEST(a_pool_over_its_quota_still_works)
{
	struct backend *backend = open_place("/pool", false);
	struct store *store = region(backend, 2, true);

	ck_assert_int_eq(put(store, 0, 64, 1), 0);
	store_destroy(store);
	backend_close(backend);
	backend = open_place("/pool?size=64K", false);
	ck_assert_uint_eq(backend->quota.used, 64 * BLOCK);
	store = region(backend, 2, false);
	ck_assert_int_eq(put(store, 10, 20, 2), 0);
	ck_assert_int_eq(put(store, 64, 1, 2), -ENOSPC);
	ck_assert_int_eq(op(store, STORE_RESIZE, 15, 0, 0), 0);
	ck_assert_int_eq(put(store, 64, 1, 2), 0);
	ck_assert_int_eq(put(store, 65, 1, 2), -ENOSPC);
	store_destroy(store);
	backend_close(backend);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("file");
	TCase *tc = tcase_create("file"), *exact = tcase_create("exact");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_unchecked_fixture(tc, rig_tmpdirs_begin, rig_tmpdirs_end);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_directory_is_made_and_found_again);
	tcase_add_test(tc, regions_are_listed_and_removed);
	tcase_add_test(tc, create_makes_it_anew);
	tcase_add_test(tc, two_daemons_never_share_a_place);
	tcase_add_test(tc, a_directory_belongs_to_one_pool);
	tcase_add_test(tc, mistakes_are_named);
	tcase_add_test(tc, one_file_is_one_region);
	tcase_add_test(tc, alloc_makes_longer_unless_told_to_keep);
	tcase_add_test(tc, a_file_ends_where_its_file_system_ends);
	tcase_add_test(tc, a_region_can_fill_its_quota_and_no_more);
	tcase_add_test(tc, what_is_reserved_can_be_written);
	tcase_add_test(tc, space_beyond_the_end_counts);
	tcase_add_test(tc, a_pool_over_its_quota_still_works);
	suite_add_tcase(suite, tc);
	tcase_set_timeout(exact, 120);
	tcase_add_unchecked_fixture(exact, rig_tmpdirs_begin, rig_tmpdirs_end);
	tcase_add_checked_fixture(exact, setup_tmpfs, teardown);
	tcase_add_test(exact, the_last_blocks_go_to_somebody);
	tcase_add_test(exact, overwriters_take_nothing_from_others);
	suite_add_tcase(suite, exact);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
