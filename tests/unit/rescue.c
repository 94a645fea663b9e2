/* SPDX-License-Identifier: Apache-2.0
 *
 * The rescue store: what is set aside is listed as it was, exported byte for byte at its offsets, and
 * stays until it is dropped; also when its description is damaged or the disk is full.
 */
#include "core/rescue.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/cache_data.h"
#include "core/crc32c.h"
#include "tests/lib/rig.h"

enum { ROWS = 4, ID = 9 };

static char dir[RIG_PATH_MAX], path[RIG_PATH_MAX + 16], out[RIG_PATH_MAX + 16];
static struct rig rig;
static struct cache_dir *cd;
static struct err err;
static struct index_region region;
static struct index_row rows[ROWS];
static uint8_t *data; /* what the region's file has */
static size_t data_len;

static void setup(void)
{
	rig_tmpdir(NULL, dir);
	snprintf(path, sizeof(path), "%s/cache", dir);
	snprintf(out, sizeof(out), "%s/out", dir);
	rig_start(&rig, 1, 1);
	ck_assert_int_eq(cache_dir_open(path, "/mnt", rig.workers, &cd, &err), 0);
	data = NULL;
}

static void teardown(void)
{
	cache_dir_close(cd);
	rig_stop(&rig);
	rig_tmpdir_remove(dir);
	free(data);
}

/* A region of 16 chunks less 100 bytes, with data in chunks 1, 2, 5 and 15 (its end). */
static void make_region(const char *name)
{
	static const uint64_t idx[ROWS] = {1, 2, 5, 15};
	static const uint64_t resident[ROWS] = {~(uint64_t)0, 0xff, 0xf0f0, (uint64_t)3 << 62};
	static const uint64_t dirty[ROWS] = {(uint64_t)0xf << 60, 0x0f, 0x1010, (uint64_t)2 << 62};
	struct rig_random random;
	int fd;

	rig_random_init(&random, name);
	memset(&region, 0, sizeof(region));
	memset(rows, 0, sizeof(rows));
	region.id = ID;
	region.size = 16 * INDEX_CHUNK - 100;
	region.version = 77;
	snprintf(region.name, sizeof(region.name), "%s", name);
	snprintf(region.why, sizeof(region.why), "100%% sure\nof nothing");
	data_len = 16 * INDEX_CHUNK;
	free(data);
	data = calloc(1, data_len);
	ck_assert_ptr_nonnull(data);
	ck_assert_int_eq(cache_dir_data_open(cd, ID, true, &fd, &err), 0);
	for (unsigned i = 0; i < ROWS; i++) {
		rows[i].chunk =
		    (struct index_chunk){.idx = idx[i], .resident = resident[i], .dirty = dirty[i]};
		for (unsigned b = 0; b < INDEX_CHUNK_BLOCKS; b++) {
			size_t off = (size_t)idx[i] * INDEX_CHUNK + (size_t)b * STORE_BLOCK;

			if (!(resident[i] >> b & 1))
				continue;
			rig_random_fill(&random, data + off, STORE_BLOCK);
			rows[i].sums[b] = crc32c(0, data + off, STORE_BLOCK);
			ck_assert_int_eq(
			    pwrite(fd, data + off, STORE_BLOCK, (off_t)off), STORE_BLOCK);
		}
	}
	close(fd);
}

static void keep(bool unknown)
{
	ck_assert_int_eq(rescue_key(cd, ID, region.aside, &err), 0);
	ck_assert_msg(
	    rescue_keep(cd, &region, rows, unknown ? 2 : ROWS, unknown, &err) == 0, "%s", err.text);
}

struct listed {
	unsigned count;
	struct rescue_entry entries[8];
};

static void found_entry(void *ctx, const struct rescue_entry *entry)
{
	struct listed *listed = ctx;

	ck_assert_uint_lt(listed->count, 8);
	listed->entries[listed->count++] = *entry;
}

static struct listed list(void)
{
	struct listed listed = {0};

	ck_assert_msg(rescue_list(path, found_entry, &listed, &err) == 0, "%s", err.text);
	return listed;
}

struct ranges {
	unsigned count;
	struct {
		uint64_t off, len;
	} range[16];
};

static void found_range(void *ctx, uint64_t off, uint64_t len)
{
	struct ranges *ranges = ctx;

	ck_assert_uint_lt(ranges->count, 16);
	ranges->range[ranges->count].off = off;
	ranges->range[ranges->count++].len = len;
}

static struct ranges ranges_of(const char *key)
{
	struct ranges ranges = {0};

	ck_assert_msg(rescue_ranges(path, key, found_range, &ranges, &err) == 0, "%s", err.text);
	return ranges;
}

/* The file `out` has the bytes of these ranges, zeros and holes elsewhere, and the region's size. */
static void expect_export(const struct ranges *ranges)
{
	uint8_t *seen = malloc(data_len), *want = calloc(1, data_len);
	struct stat st;
	int fd = open(out, O_RDONLY);

	ck_assert(seen && want && fd >= 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_uint_eq((uint64_t)st.st_size, region.size);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	for (unsigned i = 0; i < ranges->count; i++)
		memcpy(
		    want + ranges->range[i].off, data + ranges->range[i].off, ranges->range[i].len);
	ck_assert_int_eq(cache_data_read(fd, seen, data_len, 0), 0);
	ck_assert_int_eq(memcmp(seen, want, data_len), 0);
	ck_assert_int_lt((uint64_t)st.st_blocks * 512, INDEX_CHUNK);
	close(fd);
	free(seen);
	free(want);
}

START_TEST(kept_listed_exported_dropped)
{
	struct listed listed;
	struct ranges ranges;
	uint64_t bad = 99;
	const struct rescue_entry *entry = &listed.entries[0];

	ck_assert_uint_eq(list().count, 0);
	make_region("a \"name\" with % and\n\xff bytes");
	keep(false);
	listed = list();
	ck_assert_uint_eq(listed.count, 1);
	ck_assert_str_eq(entry->key, region.aside);
	ck_assert_str_eq(entry->name, region.name);
	ck_assert_str_eq(entry->why, region.why);
	ck_assert_uint_eq(entry->id, ID);
	ck_assert_uint_eq(entry->size, region.size);
	ck_assert_uint_eq(entry->version, 77);
	ck_assert(!entry->unknown && !entry->index);
	ck_assert_int_le(entry->when, time(NULL));
	ck_assert_int_gt(entry->when, time(NULL) - 100);
	/* Over the edge of chunks 1 and 2 one range; the last one ends with the region. */
	ck_assert_uint_eq(entry->ranges, 4);
	ck_assert_uint_eq(entry->dirty_bytes, (8 + 1 + 1) * STORE_BLOCK + STORE_BLOCK - 100);
	ranges = ranges_of(entry->key);
	ck_assert_uint_eq(ranges.count, 4);
	ck_assert_uint_eq(ranges.range[0].off, INDEX_CHUNK + 60 * STORE_BLOCK);
	ck_assert_uint_eq(ranges.range[0].len, 8 * STORE_BLOCK);
	ck_assert_uint_eq(ranges.range[3].off + ranges.range[3].len, region.size);
	ck_assert_msg(rescue_export(path, entry->key, out, &bad, &err) == 0, "%s", err.text);
	ck_assert_uint_eq(bad, 0);
	expect_export(&ranges);
	/* A file that is there is not touched. */
	ck_assert_int_eq(rescue_export(path, entry->key, out, &bad, &err), -EEXIST);
	expect_export(&ranges);
	ck_assert_int_eq(rescue_drop(path, entry->key, &err), 0);
	ck_assert_uint_eq(list().count, 0);
	ck_assert_int_eq(rescue_drop(path, entry->key, &err), -ENOENT);
	ck_assert_int_eq(rescue_ranges(path, entry->key, found_range, &ranges, &err), -ENOENT);
}
END_TEST

START_TEST(made_again_after_being_cut_off)
{
	char from[RIG_PATH_MAX + 200], to[RIG_PATH_MAX + 210];
	struct listed listed;

	make_region("again");
	keep(false);
	/* As it is when the last rename has not happened: it goes on. */
	snprintf(from, sizeof(from), "%s/aside/%s", path, region.aside);
	snprintf(to, sizeof(to), "%s.new", from);
	ck_assert_int_eq(rename(from, to), 0);
	ck_assert_uint_eq(list().count, 0);
	ck_assert_int_eq(rescue_keep(cd, &region, rows, ROWS, false, &err), 0);
	ck_assert_int_eq(rescue_keep(cd, &region, rows, ROWS, false, &err), 0);
	listed = list();
	ck_assert_uint_eq(listed.count, 1);
	ck_assert_uint_eq(listed.entries[0].ranges, 4);
	/* Where nobody knows any more what it was, it gets its name. */
	ck_assert_int_eq(rename(from, to), 0);
	ck_assert_int_eq(rescue_finish(cd, &err), 0);
	ck_assert_uint_eq(list().count, 1);
}
END_TEST

START_TEST(several_entries)
{
	char keys[3][INDEX_KEY_MAX];
	struct listed listed;

	for (unsigned i = 0; i < 3; i++) {
		make_region("one");
		keep(false);
		memcpy(keys[i], region.aside, INDEX_KEY_MAX);
	}
	ck_assert_str_ne(keys[0], keys[1]);
	ck_assert_str_ne(keys[1], keys[2]);
	listed = list();
	ck_assert_uint_eq(listed.count, 3);
	ck_assert_int_eq(rescue_drop(path, keys[1], &err), 0);
	listed = list();
	ck_assert_uint_eq(listed.count, 2);
	for (unsigned i = 0; i < 2; i++)
		ck_assert_str_ne(listed.entries[i].key, keys[1]);
}
END_TEST

START_TEST(unknown_rows)
{
	struct listed listed;
	struct ranges ranges;
	uint64_t bad = 0;

	/* Of chunks 5 and 15 no row says anything: all of their data may be dirty. */
	make_region("unknown");
	keep(true);
	listed = list();
	ck_assert(listed.entries[0].unknown);
	ck_assert_uint_eq(listed.entries[0].dirty_bytes, (8 + 8 + 2) * STORE_BLOCK - 100);
	ranges = ranges_of(region.aside);
	ck_assert_int_eq(rescue_export(path, region.aside, out, &bad, &err), 0);
	expect_export(&ranges);
	/* Nothing says what they should be. */
	ck_assert_uint_eq(bad, 8 + 2);
}
END_TEST

/* Nothing but the data counts. */
static void expect_guess(off_t off)
{
	struct listed listed = list();

	rig_check(listed.count == 1 && listed.entries[0].unknown &&
		      listed.entries[0].dirty_bytes == (64 + 8 + 8 + 2) * STORE_BLOCK,
	    "byte %jd: %ju", (intmax_t)off, (uintmax_t)listed.entries[0].dirty_bytes);
}

START_TEST(damaged_description)
{
	char name[RIG_PATH_MAX + 200];
	struct listed listed;
	uint64_t bad = 0;
	struct stat st;
	int fd;

	make_region("damaged");
	keep(false);
	snprintf(name, sizeof(name), "%s/aside/%s/about", path, region.aside);
	fd = open(name, O_RDWR);
	ck_assert_int_eq(fstat(fd, &st), 0);
	/* Any byte of it, and its end. */
	for (off_t off = 0; off < st.st_size; off += off < 300 ? 1 : 37) {
		char byte, other;

		ck_assert_int_eq(pread(fd, &byte, 1, off), 1);
		other = (char)(byte ^ 1);
		ck_assert_int_eq(pwrite(fd, &other, 1, off), 1);
		expect_guess(off);
		ck_assert_int_eq(pwrite(fd, &byte, 1, off), 1);
	}
	ck_assert(!list().entries[0].unknown);
	ck_assert_int_eq(ftruncate(fd, st.st_size - 14), 0);
	expect_guess(st.st_size);
	listed = list();
	close(fd);
	ck_assert_msg(strstr(listed.entries[0].why, "its description is damaged"), "%s",
	    listed.entries[0].why);
	ck_assert_int_eq(rescue_export(path, region.aside, out, &bad, &err), 0);
	ck_assert_uint_eq(bad, 64 + 8 + 8 + 2);
}
END_TEST

START_TEST(data_that_changed)
{
	char name[RIG_PATH_MAX + 200];
	uint64_t bad = 0;
	int fd;

	make_region("changed");
	keep(false);
	snprintf(name, sizeof(name), "%s/aside/%s/data", path, region.aside);
	fd = open(name, O_WRONLY);
	/* A dirty block and a clean one. */
	ck_assert_int_eq(pwrite(fd, "x", 1, INDEX_CHUNK + 61 * STORE_BLOCK), 1);
	ck_assert_int_eq(pwrite(fd, "x", 1, INDEX_CHUNK), 1);
	close(fd);
	ck_assert_int_eq(rescue_export(path, region.aside, out, &bad, &err), 0);
	ck_assert_uint_eq(bad, 1);
	/* No data at all. */
	ck_assert_int_eq(unlink(name), 0);
	ck_assert_int_eq(unlink(out), 0);
	ck_assert_int_eq(rescue_export(path, region.aside, out, &bad, &err), -ENODATA);
	ck_assert_int_ne(access(out, F_OK), 0);
	ck_assert_uint_eq(list().entries[0].ranges, 4);
}
END_TEST

START_TEST(the_index)
{
	char name[RIG_PATH_MAX + 200];
	struct listed listed;

	snprintf(name, sizeof(name), "%s/index.db", path);
	close(open(name, O_CREAT | O_WRONLY, 0600));
	snprintf(name, sizeof(name), "%s/index.db-wal", path);
	close(open(name, O_CREAT | O_WRONLY, 0600));
	ck_assert_int_eq(rescue_keep_index(cd, "index.db", &err), 0);
	ck_assert_int_ne(access(name, F_OK), 0);
	listed = list();
	ck_assert_uint_eq(listed.count, 1);
	ck_assert(listed.entries[0].index);
	snprintf(name, sizeof(name), "%s/aside/%s/index.db-wal", path, listed.entries[0].key);
	ck_assert_int_eq(access(name, F_OK), 0);
	ck_assert_int_eq(rescue_drop(path, listed.entries[0].key, &err), 0);
	ck_assert_uint_eq(list().count, 0);
}
END_TEST

START_TEST(keys_are_no_paths)
{
	static const char *const bad[] = {
	    "", ".", "..", "../data", "a/b", ".hidden", "x.new", "x.drop", "nobody"};
	struct ranges ranges = {0};
	uint64_t bad_blocks;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert_int_eq(rescue_drop(path, bad[i], &err), -ENOENT);
		ck_assert_int_eq(rescue_ranges(path, bad[i], found_range, &ranges, &err), -ENOENT);
		ck_assert_int_eq(rescue_export(path, bad[i], out, &bad_blocks, &err), -ENOENT);
		ck_assert_msg(strstr(err.text, "nothing is set aside as"), "%s", err.text);
	}
	ck_assert_int_eq(rescue_list("/nonexistent", found_entry, NULL, &err), -ENOENT);
}
END_TEST

/* A drop that was cut off is finished by the next. */
START_TEST(drop_cut_off)
{
	char from[RIG_PATH_MAX + 200], to[RIG_PATH_MAX + 210];

	make_region("drop");
	keep(false);
	snprintf(from, sizeof(from), "%s/aside/%s", path, region.aside);
	snprintf(to, sizeof(to), "%s.drop", from);
	ck_assert_int_eq(rename(from, to), 0);
	ck_assert_uint_eq(list().count, 0);
	ck_assert_int_eq(rescue_drop(path, region.aside, &err), 0);
	ck_assert_int_ne(access(to, F_OK), 0);
}
END_TEST

START_TEST(no_room_to_export)
{
	uint64_t bad;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) {
		printf("no_room_to_export: skipped: %s\n", strerror(errno));
		return;
	}
	make_region("room");
	keep(false);
	snprintf(out, sizeof(out), "%s/small", dir);
	ck_assert_int_eq(mkdir(out, 0700), 0);
	ck_assert_int_eq(mount("none", out, "tmpfs", 0, "size=16K"), 0);
	strcat(out, "/out");
	ck_assert_int_eq(rescue_export(path, region.aside, out, &bad, &err), -ENOSPC);
	ck_assert_msg(strstr(err.text, out), "%s", err.text);
	ck_assert_int_ne(access(out, F_OK), 0);
	ck_assert_uint_eq(list().count, 1);
	*strrchr(out, '/') = '\0';
	umount(out);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("rescue");
	TCase *tcase = tcase_create("rescue");
	SRunner *runner;
	int failed;

	tcase_add_unchecked_fixture(tcase, rig_tmpdirs_begin, rig_tmpdirs_end);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, kept_listed_exported_dropped);
	tcase_add_test(tcase, made_again_after_being_cut_off);
	tcase_add_test(tcase, several_entries);
	tcase_add_test(tcase, unknown_rows);
	tcase_add_test(tcase, damaged_description);
	tcase_add_test(tcase, data_that_changed);
	tcase_add_test(tcase, the_index);
	tcase_add_test(tcase, keys_are_no_paths);
	tcase_add_test(tcase, drop_cut_off);
	tcase_add_test(tcase, no_room_to_export);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
