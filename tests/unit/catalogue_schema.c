/* SPDX-License-Identifier: Apache-2.0
 *
 * Catalogues of another schema than ours: one of schema 1, as an older remramd left it, is brought up to date
 * and keeps all that it held, whichever I/O fails on the way; one of a newer schema is refused and left alone.
 */
#include "core/catalogue.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/rig.h"
#include "tests/unit/sqlite_shim.h"

static char dir[] = "/tmp/remram-schema-XXXXXX";
static char path[64]; /* dir/p.db */
static struct err err;

#define OK(call) ck_assert_msg(!(call), "%s", err.text)

/* What remramd 0.1 with schema 1 made of a pool with two regions, ids up to 66 being reserved. */
static const char schema_1[] =
    "PRAGMA journal_mode = WAL; BEGIN;"
    "CREATE TABLE pool (one INTEGER PRIMARY KEY CHECK (one = 1),"
    " uuid BLOB NOT NULL CHECK (length(uuid) = 16), next_id INTEGER NOT NULL CHECK (next_id >= 2))"
    " STRICT;"
    "CREATE TABLE region (id INTEGER PRIMARY KEY CHECK (id >= 2),"
    " name BLOB NOT NULL UNIQUE CHECK (length(name) <= 255), size INTEGER NOT NULL CHECK (size >= 0),"
    " version INTEGER NOT NULL, mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL,"
    " atime_ns INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL) STRICT;"
    "CREATE TABLE xattr (id INTEGER NOT NULL REFERENCES region (id) ON DELETE CASCADE,"
    " name BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (id, name)) STRICT;"
    "INSERT INTO pool VALUES (1, x'00112233445546778899aabbccddeeff', 66);"
    "INSERT INTO region VALUES (2, CAST('work' AS BLOB), 4294967296, 1700000000000000001, 384, 1000,"
    " 100, 11, 12, 13);"
    "INSERT INTO region VALUES (5, x'ff20', 0, 7, 256, 0, 0, -1, -2, 9223372036854775807);"
    "INSERT INTO xattr VALUES (5, CAST('user.one' AS BLOB), x'0001ff');"
    "PRAGMA application_id = 0x726d726d; PRAGMA user_version = 1; COMMIT;";

static const uint8_t old_uuid[16] = {
    0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x46, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};

/* ---- helpers ---- */

static void run_sql(const char *sql)
{
	sqlite3 *db;

	ck_assert_int_eq(
	    sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, real_vfs->zName),
	    SQLITE_OK);
	ck_assert_msg(
	    sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(db));
	sqlite3_close(db);
}

static void make_old(void)
{
	rig_tmpdir_remove(dir);
	ck_assert_int_eq(mkdir(dir, 0700), 0);
	run_sql(schema_1);
}

static void setup(void)
{
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/p.db", dir);
	install_shim();
	make_old();
}

static void teardown(void)
{
	rig_tmpdir_remove(dir);
}

struct found {
	unsigned regions, xattrs;
};

static void check_region(void *ctx, const char *name, const struct region_attr *attr,
    const struct catalogue_writer *writer)
{
	static const struct region_attr work = {.id = 2,
	    .size = (uint64_t)4 << 30,
	    .version = 1700000000000000001,
	    .atime_ns = 11,
	    .mtime_ns = 12,
	    .ctime_ns = 13,
	    .mode = 0600,
	    .uid = 1000,
	    .gid = 100};
	static const struct region_attr odd = {.id = 5,
	    .version = 7,
	    .atime_ns = -1,
	    .mtime_ns = -2,
	    .ctime_ns = INT64_MAX,
	    .mode = 0400};
	const struct region_attr *want = attr->id == 2 ? &work : &odd;

	((struct found *)ctx)->regions++;
	ck_assert_str_eq(name, attr->id == 2 ? "work" : "\xff ");
	ck_assert_uint_eq(attr->id, want->id);
	ck_assert_uint_eq(attr->size, want->size);
	ck_assert_uint_eq(attr->version, want->version);
	ck_assert_int_eq(attr->atime_ns, want->atime_ns);
	ck_assert_int_eq(attr->mtime_ns, want->mtime_ns);
	ck_assert_int_eq(attr->ctime_ns, want->ctime_ns);
	ck_assert_uint_eq(attr->mode, want->mode);
	ck_assert_uint_eq(attr->uid, want->uid);
	ck_assert_uint_eq(attr->gid, want->gid);
	/* The old daemon did not say who wrote, or whether somebody still did: anybody may have. */
	ck_assert_uint_eq(writer->writer, 0);
	ck_assert_uint_eq(writer->base, 0);
	ck_assert(writer->writing);
}

static void check_xattr(void *ctx, uint64_t id, const char *name, const void *value, size_t len)
{
	((struct found *)ctx)->xattrs++;
	ck_assert_uint_eq(id, 5);
	ck_assert_str_eq(name, "user.one");
	ck_assert_uint_eq(len, 3);
	ck_assert_int_eq(memcmp(value, "\0\1\xff", 3), 0);
}

/* Opens the pool, which must hold what the old one did. */
static struct catalogue *open_old(void)
{
	struct catalogue *cat = NULL;
	struct found found = {0};
	uint8_t uuid[16];

	OK(catalogue_open(dir, "p", &cat, uuid, &err));
	ck_assert_int_eq(memcmp(uuid, old_uuid, 16), 0);
	OK(catalogue_load(cat, check_region, check_xattr, &found, &err));
	ck_assert_uint_eq(found.regions, 2);
	ck_assert_uint_eq(found.xattrs, 1);
	return cat;
}

static void count_region(void *ctx, const char *name, const struct region_attr *attr,
    const struct catalogue_writer *writer)
{
	++*(unsigned *)ctx;
	if (attr->id != 2)
		return;
	ck_assert_uint_eq(writer->writer, (uint64_t)1 << 63 | 77);
	ck_assert_uint_eq(writer->base, 9);
	ck_assert(!writer->writing);
}

static void count_xattr(void *ctx, uint64_t id, const char *name, const void *value, size_t len)
{
	++*(unsigned *)ctx;
}

/* ---- tests ---- */

START_TEST(migration_keeps_everything)
{
	struct catalogue_writer writer = {.writer = (uint64_t)1 << 63 | 77, .base = 9};
	struct region_attr attr = {.id = 2, .mode = 0600};
	struct catalogue *cat = open_old();
	uint8_t uuid[16];
	unsigned found = 0;
	uint64_t id;

	/* No id that was given may come again. */
	OK(catalogue_next_id(cat, &id, &err));
	ck_assert_uint_ge(id, 66);
	catalogue_close(cat);
	/* A second open finds schema 2, with which all goes on as ever. */
	cat = open_old();
	OK(catalogue_put(cat, "work", &attr, &writer, &err));
	OK(catalogue_remove(cat, 5, &err));
	catalogue_close(cat);
	OK(catalogue_open(dir, "p", &cat, uuid, &err));
	OK(catalogue_load(cat, count_region, count_xattr, &found, &err));
	ck_assert_uint_eq(found, 1);
	catalogue_close(cat);
}
END_TEST

START_TEST(migration_survives_each_failing_io)
{
	static const int codes[] = {SQLITE_IOERR_WRITE, SQLITE_FULL, SQLITE_IOERR_FSYNC};

	for (unsigned c = 0; c < sizeof(codes) / sizeof(codes[0]); c++) {
		unsigned count, failures = 0;

		io_fail_code = codes[c];
		for (unsigned n = 1;; n++) {
			struct catalogue *cat = NULL;
			uint8_t uuid[16];

			make_old();
			io_count = 0;
			io_fail_at = n;
			if (catalogue_open(dir, "p", &cat, uuid, &err))
				failures++;
			count = io_count; /* closing writes, too; that may fail */
			catalogue_close(cat);
			io_fail_at = 0;
			catalogue_close(open_old());
			if (count < n)
				break;
		}
		ck_assert_uint_gt(failures, 1);
	}
}
END_TEST

/* An old one in which a table is not what it should be is damaged, and stays as it was. */
START_TEST(migration_of_a_damaged_one_is_refused)
{
	struct catalogue *cat = NULL;
	uint8_t uuid[16];

	run_sql("ALTER TABLE region ADD COLUMN base INTEGER NOT NULL DEFAULT 3");
	ck_assert_int_eq(catalogue_open(dir, "p", &cat, uuid, &err), -EUCLEAN);
	ck_assert_ptr_null(cat);
	ck_assert_msg(strstr(err.text, "duplicate column name: base"), "%s", err.text);
	run_sql("ALTER TABLE region DROP COLUMN base");
	catalogue_close(open_old());
}
END_TEST

START_TEST(newer_schema_is_refused)
{
	struct catalogue *cat = NULL;
	uint8_t uuid[16];

	run_sql("PRAGMA user_version = 3");
	ck_assert_int_eq(catalogue_open(dir, "p", &cat, uuid, &err), -EUCLEAN);
	ck_assert_ptr_null(cat);
	ck_assert_msg(strstr(err.text, path) &&
			  strstr(err.text,
			      "is from a newer version of remram (schema 3, this one knows 2): use "
			      "that version, or another state directory"),
	    "%s", err.text);
	/* Untouched: whoever knows it goes on with it. */
	run_sql("PRAGMA user_version = 1");
	catalogue_close(open_old());
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("catalogue_schema");
	TCase *tc = tcase_create("catalogue_schema");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, migration_keeps_everything);
	tcase_add_test(tc, migration_survives_each_failing_io);
	tcase_add_test(tc, migration_of_a_damaged_one_is_refused);
	tcase_add_test(tc, newer_schema_is_refused);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
