/* SPDX-License-Identifier: Apache-2.0
 *
 * The index of a cache: every kind of damage is found, and what is damaged is set aside; so is what its owner
 * wants aside, wherever that is cut off.
 */
#include <check.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/index_owner.h"

/* ---- damage ---- */

/* Something else than the index changes the data file. */
static void scribble(uint64_t off, int byte)
{
	char name[RIG_PATH_MAX + 64];
	uint8_t buf[16];
	int fd;

	snprintf(name, sizeof(name), "%s/data/%016x", owner.path, OWNER_REGION);
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

	snprintf(name, sizeof(name), "%s/index.db", owner.path);
	ck_assert_int_eq(sqlite3_open(name, &db), SQLITE_OK);
	ck_assert_msg(
	    sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(db));
	sqlite3_close(db);
}

/* Loading sets it aside, with `why`; returns what is there then. */
static struct owner_found aside_because(const char *why)
{
	struct owner_found found;

	memset(owner.state, 0, sizeof(owner.state));
	owner_open();
	ck_assert_int_eq(owner.rig.load.found, INDEX_NEW);
	ck_assert_uint_eq(owner.rig.load.count, 0);
	owner_expect(0, 0, 0);
	found = owner_aside();
	ck_assert_uint_eq(found.count, 1);
	ck_assert_msg(strstr(found.entry.why, why), "%s", found.entry.why);
	ck_assert_str_eq(found.entry.key, owner.rig.load.aside);
	ck_assert_str_eq(found.entry.name, "work");
	ck_assert_uint_eq(found.entry.id, OWNER_REGION);
	owner_close();
	owner_open();
	ck_assert_int_eq(owner.rig.load.found, INDEX_CLEAN);
	ck_assert_str_eq(owner.rig.load.aside, "");
	owner_close();
	return found;
}

static void some_blocks(void)
{
	owner_open();
	owner_put(0, 0, 1, true);
	owner_put(0, 1, 2, false);
	owner_put(4, 0, 3, true);
	owner_put(4, 1, 3, true);
}

START_TEST(changed_after_a_clean_end)
{
	struct owner_found found;

	some_blocks();
	owner_close();
	scribble(owner_off(0, 1), 0x55);
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
	owner_abandon();
	/* Committed or not: here nothing was, so the file alone counts. */
	owner_open();
	owner_put(0, 0, 1, true);
	owner_commit();
	owner_abandon();
	snprintf(name, sizeof(name), "%s/data/%016x", owner.path, OWNER_REGION);
	ck_assert_int_eq(unlink(name), 0);
	aside_because("the data file of its cache is missing");
}
END_TEST

START_TEST(damaged_rows)
{
	struct owner_found found;

	some_blocks();
	owner_close();
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
	owner_close();
	meddle("UPDATE region SET clean = 0");
	aside_because("its row in the index is damaged");
}
END_TEST

START_TEST(data_without_a_row)
{
	struct owner_found found;

	some_blocks();
	owner_close();
	meddle("DELETE FROM region; DELETE FROM chunk");
	found = aside_because("its data is not in the cache's index");
	ck_assert_uint_eq(found.entry.dirty_bytes, 4 * STORE_BLOCK);
}
END_TEST

/* The index itself. */
static void whole_index(const char *why)
{
	struct owner_found found;

	memset(owner.state, 0, sizeof(owner.state));
	owner_open();
	ck_assert_int_eq(owner.rig.load.found, INDEX_NEW);
	found = owner_aside();
	ck_assert_uint_eq(found.count, 1);
	ck_assert_msg(
	    strstr(found.entry.why, "the index of the cache is damaged"), "%s", found.entry.why);
	ck_assert_msg(strstr(found.entry.why, why), "%s", found.entry.why);
	ck_assert_uint_eq(found.entry.id, OWNER_REGION);
	ck_assert(found.entry.unknown);
	ck_assert_uint_ge(found.entry.dirty_bytes, 3 * STORE_BLOCK);
	owner_close();
}

static void overwrite(const char *file, off_t off, size_t len)
{
	char name[RIG_PATH_MAX + 64], bytes[8192];
	int fd;

	snprintf(name, sizeof(name), "%s/%s", owner.path, file);
	memset(bytes, 0xa5, sizeof(bytes));
	fd = open(name, O_WRONLY);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pwrite(fd, bytes, len, off), (ssize_t)len);
	close(fd);
}

START_TEST(damaged_index)
{
	some_blocks();
	owner_close();
	overwrite("index.db", 4096, 4096);
	whole_index("damaged");
	ck_assert_uint_eq(owner_aside().indexes, 1);
}
END_TEST

START_TEST(not_a_database)
{
	some_blocks();
	owner_close();
	overwrite("index.db", 0, 100);
	whole_index("file is not a database");
	ck_assert_uint_eq(owner_aside().indexes, 1);
}
END_TEST

START_TEST(missing_index)
{
	char name[RIG_PATH_MAX + 64];

	some_blocks();
	owner_close();
	snprintf(name, sizeof(name), "%s/index.db", owner.path);
	ck_assert_int_eq(unlink(name), 0);
	whole_index("was missing");
}
END_TEST

/* Rows that fit their checksums are believed also where the database is damaged elsewhere. */
START_TEST(salvaged_rows)
{
	some_blocks();
	owner_close();
	meddle("PRAGMA user_version = 9");
	whole_index("not the index");
	ck_assert_str_eq(owner_aside().entry.name, "work");
	ck_assert_uint_eq(owner_aside().entry.dirty_bytes, 3 * STORE_BLOCK);
}
END_TEST

/* ---- set aside on purpose ---- */

START_TEST(set_aside_on_purpose)
{
	struct owner_found found;

	some_blocks();
	ck_assert_int_eq(
	    index_rig_end(&owner.rig, index_ask_set_aside, "the lease was lost to other.example"),
	    0);
	found = owner_aside();
	ck_assert_uint_eq(found.count, 1);
	ck_assert_str_eq(found.entry.why, "the lease was lost to other.example");
	ck_assert_uint_eq(found.entry.dirty_bytes, 3 * STORE_BLOCK);
	index_rig_close(&owner.rig);
	memset(owner.state, 0, sizeof(owner.state));
	owner_open();
	ck_assert_int_eq(owner.rig.load.found, INDEX_NEW);
	owner_expect(0, 0, 0);
	owner_close();
}
END_TEST

/* Killed at each step of it: in the end there is one entry, whole, and an empty region. */
static enum index_step kill_step;

static void kill_at(void *ctx, enum index_step step)
{
	if (step == kill_step)
		_exit(9);
}

static void child_aside(void (*start)(struct index_ask *step))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		index_rig_open(&owner.rig, owner.path, kill_at, NULL);
		index_rig_load_ok(
		    &owner.rig, OWNER_REGION, "work", (uint64_t)OWNER_CHUNKS * INDEX_CHUNK);
		indexed_start(owner.rig.indexed, &owner_ops, NULL);
		owner_put(0, 0, 7, true);
		index_rig_end(&owner.rig, start, "a test");
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(WEXITSTATUS(status), 9);
}

START_TEST(cut_off_while_setting_aside)
{
	static const enum index_step steps[] = {
	    INDEX_STEP_MARKED, INDEX_STEP_KEPT, INDEX_STEP_FORGOTTEN};
	struct err err;

	for (unsigned i = 0; i < 3; i++) {
		struct owner_found found;

		kill_step = steps[i];
		child_aside(index_ask_set_aside);
		memset(owner.state, 0, sizeof(owner.state));
		owner_open();
		ck_assert_int_eq(owner.rig.load.found, INDEX_NEW);
		owner_expect(0, 0, 0);
		owner_close();
		found = owner_aside();
		ck_assert_uint_eq(found.count, 1);
		ck_assert_uint_eq(found.entry.dirty_bytes, STORE_BLOCK);
		ck_assert_str_eq(found.entry.why, "a test");
		ck_assert_int_eq(rescue_drop(owner.path, found.entry.key, &err), 0);
		owner_teardown();
		owner_setup();
	}
}
END_TEST

START_TEST(cut_off_while_forgetting)
{
	kill_step = INDEX_STEP_MARKED;
	child_aside(index_ask_forget);
	owner_open();
	ck_assert_int_eq(owner.rig.load.found, INDEX_NEW);
	ck_assert_uint_eq(owner_aside().count, 0);
	owner_close();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cache_index_damage");
	TCase *tcase = tcase_create("cache_index_damage");
	SRunner *runner;
	int failed;

	tcase_add_unchecked_fixture(tcase, rig_tmpdirs_begin, rig_tmpdirs_end);
	tcase_add_checked_fixture(tcase, owner_setup, owner_teardown);
	tcase_set_timeout(tcase, 60);
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
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
