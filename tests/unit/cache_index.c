/* SPDX-License-Identifier: Apache-2.0
 *
 * The index of a cache: what is committed is loaded again, calls that come together share a commit, what
 * changes during one is stored as it is then, errors lose nothing, and every kind of damage is found
 * and set aside.  (Being cut off: cache_crash.c.)
 */
#include "core/cache_index.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/rescue.h"
#include "tests/unit/cache_rig.h"

enum { ID = 7, MANY = 600 }; /* MANY chunks are more than two batches */

static char dir[RIG_PATH_MAX], path[RIG_PATH_MAX + 8];
static struct cache_rig cr;
static struct err err;

/* What the region's owner would know.  Loop thread only, or while nothing runs. */
static struct index_chunk state[MANY];
static bool changed[MANY];
static unsigned takes, gives, commits;
static struct {
	unsigned idx;
	uint64_t busy, gone, come; /* added to dirty, taken from and added to resident, when state
				      is asked for */
} meanwhile;

static void setup(void)
{
	rig_tmpdir(NULL, dir);
	snprintf(path, sizeof(path), "%s/cache", dir);
	memset(state, 0, sizeof(state));
	memset(changed, 0, sizeof(changed));
	memset(&meanwhile, 0, sizeof(meanwhile));
	takes = gives = commits = 0;
	for (unsigned i = 0; i < MANY; i++)
		state[i].idx = i;
}

static void teardown(void)
{
	rig_tmpdir_remove(dir);
}

static unsigned take(void *ctx, struct index_chunk *chunks, unsigned max)
{
	unsigned n = 0;

	takes++;
	for (unsigned i = 0; i < MANY && n < max; i++)
		if (changed[i]) {
			chunks[n++] = state[i];
			changed[i] = false;
		}
	return n;
}

static void state_now(void *ctx, struct index_chunk *chunk)
{
	*chunk = state[chunk->idx];
	if (chunk->idx == meanwhile.idx) {
		chunk->dirty |= meanwhile.busy;
		chunk->resident &= ~meanwhile.gone;
		chunk->resident |= meanwhile.come;
	}
}

static void give_back(void *ctx, const struct index_chunk *chunks, unsigned count)
{
	gives += count;
	for (unsigned i = 0; i < count; i++)
		changed[chunks[i].idx] = true;
}

static const struct indexed_ops ops = {.take = take, .state = state_now, .give_back = give_back};

static void count_commits(void *ctx, enum index_step step)
{
	commits += step == INDEX_STEP_COMMITTED;
}

static void open_all(void)
{
	cache_rig_open(&cr, path, count_commits, NULL);
	cache_load_ok(&cr, ID, "work", (uint64_t)MANY * INDEX_CHUNK);
	indexed_start(cr.indexed, &ops, NULL);
}

static void close_all(void)
{
	ck_assert_int_eq(cache_end(&cr, start_close, NULL), 0);
	cache_rig_close(&cr);
}

static void abandon_all(void)
{
	ck_assert_int_eq(cache_end(&cr, start_abandon, NULL), 0);
	cache_rig_close(&cr);
}

static uint64_t block_off(unsigned idx, unsigned block)
{
	return (uint64_t)idx * INDEX_CHUNK + (uint64_t)block * STORE_BLOCK;
}

/* Writes a block full of `byte`. */
static void put_block(unsigned idx, unsigned block, int byte, bool dirty)
{
	uint8_t buf[STORE_BLOCK];

	memset(buf, byte, sizeof(buf));
	ck_assert_int_eq(
	    rig_write(cr.rig.loops[0], cr.store, block_off(idx, block), buf, STORE_BLOCK, 0), 0);
	state[idx].resident |= (uint64_t)1 << block;
	state[idx].dirty &= ~((uint64_t)1 << block);
	state[idx].dirty |= (uint64_t)dirty << block;
	changed[idx] = true;
}

static void expect_block(unsigned idx, unsigned block, int byte)
{
	uint8_t buf[STORE_BLOCK];

	memset(buf, byte, sizeof(buf));
	rig_expect(cr.rig.loops[0], cr.store, block_off(idx, block), STORE_BLOCK, buf);
}

static void commit_ok(void)
{
	ck_assert_int_eq(cache_call(&cr, start_commit, NULL), 0);
}

/* What was loaded is `state`, but for chunks without a block. */
static void expect_state(void)
{
	size_t n = 0;

	for (unsigned i = 0; i < MANY; i++) {
		if (!state[i].resident)
			continue;
		rig_check(n < cr.load.count, "%zu chunks only", n);
		rig_check(memcmp(&cr.load.chunks[n], &state[i], sizeof(state[i])) == 0,
		    "chunk %u: %jx %jx", i, (uintmax_t)cr.load.chunks[n].resident,
		    (uintmax_t)cr.load.chunks[n].dirty);
		n++;
	}
	ck_assert_uint_eq(n, cr.load.count);
}

/* Something else than the index changes the data file. */
static void scribble(uint64_t off, int byte)
{
	char name[RIG_PATH_MAX + 64];
	uint8_t buf[16];
	int fd;

	snprintf(name, sizeof(name), "%s/data/%016x", path, ID);
	fd = open(name, O_WRONLY);
	ck_assert_int_ge(fd, 0);
	memset(buf, byte, sizeof(buf));
	ck_assert_int_eq(pwrite(fd, buf, sizeof(buf), (off_t)off), (ssize_t)sizeof(buf));
	close(fd);
}

static void meddle(const char *sql)
{
	char name[RIG_PATH_MAX + 64];
	sqlite3 *db;

	snprintf(name, sizeof(name), "%s/index.db", path);
	ck_assert_int_eq(sqlite3_open(name, &db), SQLITE_OK);
	ck_assert_msg(
	    sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(db));
	sqlite3_close(db);
}

struct found {
	unsigned count, indexes;
	struct rescue_entry entry; /* the last one that is a region */
};

static void found_entry(void *ctx, const struct rescue_entry *entry)
{
	struct found *found = ctx;

	if (entry->index)
		found->indexes++;
	else
		found->entry = *entry;
	found->count += !entry->index;
}

static struct found list_aside(void)
{
	struct found found = {0};

	ck_assert_msg(rescue_list(path, found_entry, &found, &err) == 0, "%s", err.text);
	return found;
}

/* ---- what is committed comes back ---- */

START_TEST(committed_and_loaded)
{
	struct index_region region;

	open_all();
	ck_assert_int_eq(cr.load.found, INDEX_NEW);
	put_block(0, 0, 1, true);
	put_block(0, 63, 2, false);
	put_block(5, 17, 3, true);
	put_block(MANY - 1, 63, 4, false);
	commit_ok();
	put_block(5, 18, 5, false);
	region = cr.load.region;
	region.version = 99;
	region.durability = 2;
	snprintf(region.order, sizeof(region.order), "0-64M:10");
	snprintf(region.pins, sizeof(region.pins), "4K-8K");
	indexed_describe(cr.indexed, &region);
	close_all();
	open_all();
	ck_assert_int_eq(cr.load.found, INDEX_CLEAN);
	expect_state();
	ck_assert_uint_eq(cr.load.region.version, 99);
	ck_assert_int_eq(cr.load.region.durability, 2);
	ck_assert_str_eq(cr.load.region.order, "0-64M:10");
	ck_assert_str_eq(cr.load.region.pins, "4K-8K");
	ck_assert_str_eq(cr.load.region.name, "work");
	ck_assert_uint_eq(cr.load.dropped + cr.load.newer, 0);
	expect_block(0, 0, 1);
	expect_block(5, 18, 5);
	/* A chunk that has no block any more has no row. */
	state[0].resident = state[0].dirty = 0;
	changed[0] = true;
	commit_ok();
	abandon_all();
	open_all();
	ck_assert_int_eq(cr.load.found, INDEX_UNCLEAN);
	expect_state();
	/* Their data has been given back. */
	expect_block(0, 63, 0);
	ck_assert_uint_eq(cr.load.dropped, 2);
	close_all();
}
END_TEST

START_TEST(more_than_a_batch)
{
	open_all();
	for (unsigned i = 0; i < MANY; i++)
		put_block(i, i % 64, (int)(i % 251) + 1, i % 2);
	commits = 0;
	commit_ok();
	ck_assert_uint_eq(commits, 3);
	abandon_all();
	open_all();
	expect_state();
	close_all();
}
END_TEST

/* A take that never says that it was all does not keep a commit going for ever. */
static unsigned take_again(void *ctx, struct index_chunk *chunks, unsigned max)
{
	takes++;
	for (unsigned i = 0; i < max; i++)
		chunks[i] = (struct index_chunk){.idx = i % MANY};
	return max;
}

START_TEST(busy_writers_do_not_keep_a_commit)
{
	static const struct indexed_ops busy = {.take = take_again, .give_back = give_back};

	open_all();
	indexed_start(cr.indexed, &busy, NULL);
	commit_ok();
	ck_assert_uint_le(takes, 6);
	abandon_all();
}
END_TEST

static unsigned next_bit;

static void start_change(struct cache_step *step)
{
	state[1].resident |= (uint64_t)1 << next_bit++;
	changed[1] = true;
	start_commit(step);
}

START_TEST(calls_share_commits)
{
	enum { CALLS = 50 };
	static struct cache_step steps[CALLS];

	open_all();
	put_block(1, 1, 1, true);
	commits = 0;
	for (unsigned i = 0; i < CALLS; i++)
		cache_step_begin(&cr, &steps[i], start_change, NULL);
	for (unsigned i = 0; i < CALLS; i++)
		ck_assert_int_eq(cache_step_wait(&steps[i]), 0);
	ck_assert_uint_ge(commits, 1);
	ck_assert_uint_lt(commits, CALLS);
	/* Nothing has changed: no commit, no sync. */
	commits = 0;
	commit_ok();
	ck_assert_uint_eq(commits, 0);
	close_all();
}
END_TEST

START_TEST(state_at_the_end_counts)
{
	open_all();
	put_block(3, 0, 1, false);
	put_block(3, 1, 2, false);
	put_block(3, 2, 3, true);
	/* While the checksums are computed, block 0 is written to, block 1 is evicted, and block 9,
	 * whose bytes nobody has summed, becomes resident. */
	meanwhile.idx = 3;
	meanwhile.busy = 1;
	meanwhile.gone = 2;
	meanwhile.come = 1 << 9;
	commit_ok();
	memset(&meanwhile, 0, sizeof(meanwhile));
	abandon_all();
	state[3].dirty |= 1;
	state[3].resident &= ~(uint64_t)2;
	open_all();
	expect_state();
	ck_assert_uint_eq(cr.load.newer, 0);
	/* Block 1's bytes; there are none of block 9. */
	ck_assert_uint_eq(cr.load.dropped, 1);
	close_all();
}
END_TEST

START_TEST(after_an_unclean_end)
{
	open_all();
	for (unsigned i = 0; i < 8; i++)
		put_block(2, i, 1, i < 4);
	commit_ok();
	/* Written after the last commit: 2 dirty blocks, 2 clean ones, 2 that no row knows. */
	put_block(2, 0, 9, true);
	put_block(2, 1, 9, true);
	put_block(2, 4, 9, true);
	put_block(2, 5, 9, false);
	put_block(2, 20, 9, true);
	put_block(9, 0, 9, true);
	abandon_all();
	open_all();
	ck_assert_int_eq(cr.load.found, INDEX_UNCLEAN);
	ck_assert_uint_eq(cr.load.newer, 2);
	/* The punched ones are counted: 2 clean ones that do not fit, once more as data without a row. */
	ck_assert_uint_eq(cr.load.dropped, 2 + 4);
	ck_assert_uint_eq(cr.load.count, 1);
	ck_assert_uint_eq(cr.load.chunks[0].resident, 0xcf);
	ck_assert_uint_eq(cr.load.chunks[0].dirty, 0x0f);
	expect_block(2, 0, 9);
	expect_block(2, 2, 1);
	expect_block(2, 4, 0);
	expect_block(2, 20, 0);
	expect_block(9, 0, 0);
	ck_assert_uint_eq(list_aside().count, 0);
	/* What stayed has checksums that fit now. */
	memset(changed, 0, sizeof(changed));
	close_all();
	open_all();
	ck_assert_int_eq(cr.load.found, INDEX_CLEAN);
	ck_assert_uint_eq(cr.load.chunks[0].dirty, 0x0f);
	close_all();
}
END_TEST

START_TEST(several_regions)
{
	struct indexed *first;
	struct store *first_store;

	open_all();
	put_block(0, 0, 1, true);
	commit_ok();
	first = cr.indexed;
	first_store = cr.store;
	free(cr.load.chunks);
	cache_load_ok(&cr, ID + 1, "other", INDEX_CHUNK);
	indexed_start(cr.indexed, &ops, NULL);
	put_block(0, 1, 2, false);
	commit_ok();
	ck_assert_int_eq(cache_end(&cr, start_forget, NULL), 0);
	cr.indexed = first;
	cr.store = first_store;
	expect_block(0, 0, 1);
	close_all();
	state[0].resident = state[0].dirty = 1;
	open_all();
	expect_state();
	free(cr.load.chunks);
	store_destroy(cr.store);
	ck_assert_int_eq(cache_call(&cr, start_close, NULL), 0);
	cache_load_ok(&cr, ID + 1, "other", INDEX_CHUNK);
	ck_assert_int_eq(cr.load.found, INDEX_NEW);
	ck_assert_uint_eq(cr.load.count, 0);
	close_all();
}
END_TEST

/* ---- damage ---- */

/* Loading sets it aside, with `why`; returns what is there then. */
static struct found aside_because(const char *why)
{
	struct found found;

	memset(state, 0, sizeof(state));
	open_all();
	ck_assert_int_eq(cr.load.found, INDEX_NEW);
	ck_assert_uint_eq(cr.load.count, 0);
	expect_block(0, 0, 0);
	found = list_aside();
	ck_assert_uint_eq(found.count, 1);
	ck_assert_msg(strstr(found.entry.why, why), "%s", found.entry.why);
	ck_assert_str_eq(found.entry.key, cr.load.aside);
	ck_assert_str_eq(found.entry.name, "work");
	ck_assert_uint_eq(found.entry.id, ID);
	close_all();
	open_all();
	ck_assert_int_eq(cr.load.found, INDEX_CLEAN);
	ck_assert_str_eq(cr.load.aside, "");
	close_all();
	return found;
}

static void some_blocks(void)
{
	open_all();
	put_block(0, 0, 1, true);
	put_block(0, 1, 2, false);
	put_block(4, 0, 3, true);
	put_block(4, 1, 3, true);
}

START_TEST(changed_after_a_clean_end)
{
	struct found found;

	some_blocks();
	close_all();
	scribble(block_off(0, 1), 0x55);
	found = aside_because("1 blocks of its cache have changed since it was closed cleanly");
	ck_assert_uint_eq(found.entry.dirty_bytes, 3 * STORE_BLOCK);
	ck_assert_uint_eq(found.entry.ranges, 2);
	ck_assert(!found.entry.unknown);
}
END_TEST

START_TEST(missing_data)
{
	char name[RIG_PATH_MAX + 64];

	some_blocks();
	abandon_all();
	/* Committed or not: here nothing was, so the file alone counts. */
	open_all();
	put_block(0, 0, 1, true);
	commit_ok();
	abandon_all();
	snprintf(name, sizeof(name), "%s/data/%016x", path, ID);
	ck_assert_int_eq(unlink(name), 0);
	aside_because("the data file of its cache is missing");
}
END_TEST

START_TEST(damaged_rows)
{
	struct found found;

	some_blocks();
	close_all();
	meddle("UPDATE chunk SET dirty = 0 WHERE idx = 4");
	found = aside_because("rows of it in the index are damaged");
	/* What no row calls clean counts. */
	ck_assert(found.entry.unknown);
	ck_assert_uint_eq(found.entry.dirty_bytes, 3 * STORE_BLOCK);
}
END_TEST

START_TEST(damaged_region_row)
{
	some_blocks();
	close_all();
	meddle("UPDATE region SET clean = 0");
	aside_because("its row in the index is damaged");
}
END_TEST

START_TEST(data_without_a_row)
{
	struct found found;

	some_blocks();
	close_all();
	meddle("DELETE FROM region; DELETE FROM chunk");
	found = aside_because("its data is not in the cache's index");
	ck_assert_uint_eq(found.entry.dirty_bytes, 4 * STORE_BLOCK);
}
END_TEST

/* The index itself. */
static void whole_index(const char *why)
{
	struct found found;

	memset(state, 0, sizeof(state));
	open_all();
	ck_assert_int_eq(cr.load.found, INDEX_NEW);
	found = list_aside();
	ck_assert_uint_eq(found.count, 1);
	ck_assert_msg(
	    strstr(found.entry.why, "the index of the cache is damaged"), "%s", found.entry.why);
	ck_assert_msg(strstr(found.entry.why, why), "%s", found.entry.why);
	ck_assert_uint_eq(found.entry.id, ID);
	ck_assert(found.entry.unknown);
	ck_assert_uint_ge(found.entry.dirty_bytes, 3 * STORE_BLOCK);
	close_all();
}

static void overwrite(const char *file, off_t off, size_t len)
{
	char name[RIG_PATH_MAX + 64], bytes[8192];
	int fd;

	snprintf(name, sizeof(name), "%s/%s", path, file);
	memset(bytes, 0xa5, sizeof(bytes));
	fd = open(name, O_WRONLY);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pwrite(fd, bytes, len, off), (ssize_t)len);
	close(fd);
}

START_TEST(damaged_index)
{
	some_blocks();
	close_all();
	overwrite("index.db", 4096, 4096);
	whole_index("damaged");
	ck_assert_uint_eq(list_aside().indexes, 1);
}
END_TEST

START_TEST(not_a_database)
{
	some_blocks();
	close_all();
	overwrite("index.db", 0, 100);
	whole_index("file is not a database");
	ck_assert_uint_eq(list_aside().indexes, 1);
}
END_TEST

START_TEST(missing_index)
{
	char name[RIG_PATH_MAX + 64];

	some_blocks();
	close_all();
	snprintf(name, sizeof(name), "%s/index.db", path);
	ck_assert_int_eq(unlink(name), 0);
	whole_index("was missing");
}
END_TEST

/* Rows that fit their checksums are believed also where the database is damaged elsewhere. */
START_TEST(salvaged_rows)
{
	some_blocks();
	close_all();
	meddle("PRAGMA user_version = 9");
	whole_index("not the index");
	ck_assert_str_eq(list_aside().entry.name, "work");
	ck_assert_uint_eq(list_aside().entry.dirty_bytes, 3 * STORE_BLOCK);
}
END_TEST

/* ---- set aside on purpose ---- */

START_TEST(set_aside_on_purpose)
{
	struct found found;

	some_blocks();
	ck_assert_int_eq(cache_end(&cr, start_set_aside, "the lease was lost to other.example"), 0);
	found = list_aside();
	ck_assert_uint_eq(found.count, 1);
	ck_assert_str_eq(found.entry.why, "the lease was lost to other.example");
	ck_assert_uint_eq(found.entry.dirty_bytes, 3 * STORE_BLOCK);
	cache_rig_close(&cr);
	memset(state, 0, sizeof(state));
	open_all();
	ck_assert_int_eq(cr.load.found, INDEX_NEW);
	expect_block(0, 0, 0);
	close_all();
}
END_TEST

/* Killed at each step of it: in the end there is one entry, whole, and an empty region. */
static enum index_step kill_step;

static void kill_at(void *ctx, enum index_step step)
{
	if (step == kill_step)
		_exit(9);
}

static void child_aside(void (*start)(struct cache_step *step))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		cache_rig_open(&cr, path, kill_at, NULL);
		cache_load_ok(&cr, ID, "work", (uint64_t)MANY * INDEX_CHUNK);
		indexed_start(cr.indexed, &ops, NULL);
		put_block(0, 0, 7, true);
		cache_end(&cr, start, "a test");
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(WEXITSTATUS(status), 9);
}

START_TEST(cut_off_while_setting_aside)
{
	static const enum index_step steps[] = {
	    INDEX_STEP_MARKED, INDEX_STEP_KEPT, INDEX_STEP_FORGOTTEN};

	for (unsigned i = 0; i < 3; i++) {
		struct found found;

		kill_step = steps[i];
		child_aside(start_set_aside);
		memset(state, 0, sizeof(state));
		open_all();
		ck_assert_int_eq(cr.load.found, INDEX_NEW);
		expect_block(0, 0, 0);
		close_all();
		found = list_aside();
		ck_assert_uint_eq(found.count, 1);
		ck_assert_uint_eq(found.entry.dirty_bytes, STORE_BLOCK);
		ck_assert_str_eq(found.entry.why, "a test");
		ck_assert_int_eq(rescue_drop(path, found.entry.key, &err), 0);
		teardown();
		setup();
	}
}
END_TEST

START_TEST(cut_off_while_forgetting)
{
	kill_step = INDEX_STEP_MARKED;
	child_aside(start_forget);
	open_all();
	ck_assert_int_eq(cr.load.found, INDEX_NEW);
	ck_assert_uint_eq(list_aside().count, 0);
	close_all();
}
END_TEST

/* ---- errors ---- */

/* A small file system on path's directory; false if this process may not mount. */
static bool small_disk(const char *size)
{
	char options[32];

	snprintf(options, sizeof(options), "size=%s", size);
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) {
		printf("skipped a part: cannot mount\n");
		return false;
	}
	ck_assert_int_eq(mount("none", dir, "tmpfs", 0, options), 0);
	return true;
}

START_TEST(full_disk)
{
	char junk[RIG_PATH_MAX + 16];
	static char bytes[65536];
	unsigned done = 0;
	int fd, rc = 0;

	if (!small_disk("16M"))
		return;
	open_all();
	for (unsigned i = 0; i < 20; i++)
		put_block(i, 0, 1, true);
	commit_ok();
	snprintf(junk, sizeof(junk), "%s/junk", dir);
	fd = open(junk, O_CREAT | O_WRONLY, 0600);
	while (
	    write(fd, bytes, sizeof(bytes)) > 0 || (errno == ENOSPC && write(fd, bytes, 512) > 0))
		done++;
	ck_assert_uint_gt(done, 0);
	/* The log grows until nothing fits any more. */
	for (unsigned i = 0; i < 2000 && rc == 0; i++) {
		for (unsigned j = 0; j < 20; j++) {
			state[j].dirty ^= 1;
			changed[j] = true;
		}
		rc = cache_call(&cr, start_commit, NULL);
	}
	ck_assert_int_eq(rc, -ENOSPC);
	ck_assert_uint_eq(gives, 20);
	for (unsigned j = 0; j < 20; j++)
		ck_assert(changed[j]);
	/* A process that is killed now has the last commit. */
	for (unsigned j = 0; j < 20; j++)
		state[j].dirty ^= 1;
	memset(changed, 0, sizeof(changed));
	ck_assert_int_eq(cache_end(&cr, start_abandon, NULL), 0);
	close(fd);
	unlink(junk);
	cache_rig_close(&cr);
	open_all();
	expect_state();
	/* And with room it goes on. */
	put_block(30, 0, 1, true);
	commit_ok();
	close_all();
	umount(dir);
}
END_TEST

START_TEST(closing_on_a_full_disk)
{
	char junk[RIG_PATH_MAX + 16];
	static char bytes[4096];
	int fd;

	if (!small_disk("16M"))
		return;
	open_all();
	put_block(0, 0, 1, true);
	commit_ok();
	for (unsigned i = 1; i < MANY; i++) {
		state[i].resident = ~(uint64_t)0;
		changed[i] = true;
	}
	snprintf(junk, sizeof(junk), "%s/junk", dir);
	fd = open(junk, O_CREAT | O_WRONLY, 0600);
	while (write(fd, bytes, sizeof(bytes)) > 0)
		;
	ck_assert_int_eq(cache_end(&cr, start_close, NULL), -ENOSPC);
	close(fd);
	unlink(junk);
	cache_rig_close(&cr);
	open_all();
	ck_assert_int_eq(cr.load.found, INDEX_UNCLEAN);
	expect_block(0, 0, 1);
	abandon_all();
	umount(dir);
}
END_TEST

/* 100 MiB of data, their verification timed for whoever reads this. */
START_TEST(a_hundred_megabytes)
{
	enum { CHUNKS = 400 };
	static uint8_t buf[INDEX_CHUNK];
	struct rig_random random;
	uint64_t start;

	if (!small_disk("1G"))
		return;
	rig_random_init(&random, "a_hundred_megabytes");
	open_all();
	for (unsigned i = 0; i < CHUNKS; i++) {
		rig_random_fill(&random, buf, sizeof(buf));
		ck_assert_int_eq(
		    rig_write(cr.rig.loops[0], cr.store, block_off(i, 0), buf, INDEX_CHUNK, 0), 0);
		state[i].resident = state[i].dirty = ~(uint64_t)0;
		changed[i] = true;
	}
	start = loop_now_ns();
	commit_ok();
	printf("committing 100 MiB: %.3f s\n", (double)(loop_now_ns() - start) / 1e9);
	close_all();
	start = loop_now_ns();
	open_all();
	printf("opening and verifying 100 MiB: %.3f s\n", (double)(loop_now_ns() - start) / 1e9);
	expect_state();
	close_all();
	umount(dir);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cache_index");
	TCase *tcase = tcase_create("cache_index");
	SRunner *runner;
	int failed;

	tcase_add_unchecked_fixture(tcase, rig_tmpdirs_begin, rig_tmpdirs_end);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, committed_and_loaded);
	tcase_add_test(tcase, more_than_a_batch);
	tcase_add_test(tcase, busy_writers_do_not_keep_a_commit);
	tcase_add_test(tcase, calls_share_commits);
	tcase_add_test(tcase, state_at_the_end_counts);
	tcase_add_test(tcase, after_an_unclean_end);
	tcase_add_test(tcase, several_regions);
	tcase_add_test(tcase, changed_after_a_clean_end);
	tcase_add_test(tcase, missing_data);
	tcase_add_test(tcase, damaged_rows);
	tcase_add_test(tcase, damaged_region_row);
	tcase_add_test(tcase, data_without_a_row);
	tcase_add_test(tcase, damaged_index);
	tcase_add_test(tcase, not_a_database);
	tcase_add_test(tcase, missing_index);
	tcase_add_test(tcase, salvaged_rows);
	tcase_add_test(tcase, set_aside_on_purpose);
	tcase_add_test(tcase, cut_off_while_setting_aside);
	tcase_add_test(tcase, cut_off_while_forgetting);
	tcase_add_test(tcase, full_disk);
	tcase_add_test(tcase, closing_on_a_full_disk);
	tcase_add_test(tcase, a_hundred_megabytes);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
