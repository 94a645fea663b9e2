/* SPDX-License-Identifier: Apache-2.0
 *
 * The tables of a cache's index, in SQLite.
 *
 * Schema 1 (PRAGMA user_version, under our application_id):
 *   region  id, name, size, version, durability, clean, order, pins, aside, why, and their sum
 *   chunk   (region id, idx) → resident, dirty, sums: 4 bytes, little-endian, per resident block
 *           in their order; and the row's sum
 *
 * Invariants (and those of core/sqlite.c):
 * 1. A row's `sum` is the CRC-32C of all that the row says, its key included: a row that was copied to
 *    another place does not fit, either.
 * 2. A transaction that failed in any step is rolled back before its last call returns.
 *
 * Locking: `mu` protects everything; cache_db_begin takes it and commit or rollback gives it back, so a
 * transaction's calls belong to one thread.
 * Failure: a creation that was cut off leaves an empty file, or one without tables: the next open makes
 * it anew.  Everything else that is not understood is damage (-EUCLEAN), for the caller to set aside.
 */
#include "core/cache_db.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/crc32c.h"
#include "core/sqlite.h"

enum { SCHEMA_VERSION = 1, APPLICATION_ID = 0x726d7263 /* "rmrc" */ };

enum stmt {
	STMT_REGIONS,
	STMT_REGION,
	STMT_ROWS,
	STMT_PUT_REGION,
	STMT_PUT_ROW,
	STMT_REMOVE_ROW,
	STMT_REMOVE_ROWS,
	STMT_REMOVE_REGION,
	STMTS
};

static const char schema[] =
    "CREATE TABLE region (id INTEGER PRIMARY KEY, name BLOB NOT NULL, size INTEGER NOT NULL,"
    " version INTEGER NOT NULL, durability INTEGER NOT NULL, clean INTEGER NOT NULL,"
    " pull_order BLOB NOT NULL, pins BLOB NOT NULL, aside BLOB NOT NULL, why BLOB NOT NULL,"
    " sum INTEGER NOT NULL) STRICT;"
    "CREATE TABLE chunk (region INTEGER NOT NULL, idx INTEGER NOT NULL, resident INTEGER NOT NULL,"
    " dirty INTEGER NOT NULL, sums BLOB NOT NULL, sum INTEGER NOT NULL,"
    " PRIMARY KEY (region, idx)) STRICT, WITHOUT ROWID;";

#define REGION_COLUMNS \
	"id, name, size, version, durability, clean, pull_order, pins, aside, why, sum"

static const char *const stmt_sql[STMTS] = {
    [STMT_REGIONS] = "SELECT " REGION_COLUMNS " FROM region ORDER BY id",
    [STMT_REGION] = "SELECT " REGION_COLUMNS " FROM region WHERE id = ?1",
    [STMT_ROWS] = "SELECT idx, resident, dirty, sums, sum FROM chunk WHERE region = ?1"
		  " ORDER BY idx",
    [STMT_PUT_REGION] = "INSERT OR REPLACE INTO region (" REGION_COLUMNS ")"
			" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    [STMT_PUT_ROW] = "INSERT OR REPLACE INTO chunk (region, idx, resident, dirty, sums, sum)"
		     " VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    [STMT_REMOVE_ROW] = "DELETE FROM chunk WHERE region = ?1 AND idx = ?2",
    [STMT_REMOVE_ROWS] = "DELETE FROM chunk WHERE region = ?1",
    [STMT_REMOVE_REGION] = "DELETE FROM region WHERE id = ?1",
};

struct cache_db {
	/* Constant after open. */
	char path[PATH_MAX];
	pthread_mutex_t mu;

	/* Protected by mu. */
	struct sqlite sql;
};

static const struct sqlite_conf sql_conf = {
    .stmts = stmt_sql, .stmt_count = STMTS, .busy_hint = "", .damage_hint = ""};

/* ---- opening ---- */

static int make_schema(struct cache_db *db, struct err *err)
{
	char pragmas[100];
	int r = sqlite_exec(&db->sql, "BEGIN IMMEDIATE", err);

	if (!r)
		r = sqlite_exec(&db->sql, schema, err);
	snprintf(pragmas, sizeof(pragmas),
	    "PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT", APPLICATION_ID,
	    SCHEMA_VERSION);
	return r ? r : sqlite_exec(&db->sql, pragmas, err);
}

static int open_database(struct cache_db *db, bool *ret_new, struct err *err)
{
	struct sqlite_kind kind;
	int fd, r;

	/* Made here for its mode; SQLite makes the log with the same. */
	fd = open(db->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 && errno != EEXIST)
		return err_sys(err, -errno, "cannot create %s", db->path);
	if (fd >= 0)
		close(fd);
	r = sqlite_open(&db->sql, &sql_conf, db->path, err);
	if (!r)
		r = sqlite_identify(&db->sql, &kind, err);
	if (r)
		return r;
	if (!kind.is_new && (kind.application != APPLICATION_ID || kind.version != SCHEMA_VERSION))
		return sqlite_damaged(
		    &db->sql, "it is not the index of a cache of this version", err);
	*ret_new = kind.is_new;
	if (!kind.is_new)
		r = sqlite_check(&db->sql, err);
	if (!r)
		r = sqlite_set_modes(&db->sql, err);
	if (!r && kind.is_new)
		r = make_schema(db, err);
	return r ? r : sqlite_prepare(&db->sql, err);
}

/* A cache_db without its database. */
static struct cache_db *db_new(const char *path, struct err *err)
{
	struct cache_db *db = calloc(1, sizeof(*db));

	if (!db || strlen(path) >= sizeof(db->path)) {
		err_sys(err, db ? -ENAMETOOLONG : -ENOMEM, "cannot open %s", path);
		free(db);
		return NULL;
	}
	strcpy(db->path, path);
	pthread_mutex_init(&db->mu, NULL);
	return db;
}

int cache_db_open(const char *path, struct cache_db **ret_db, bool *ret_new, struct err *err)
{
	struct cache_db *db = db_new(path, err);
	bool is_new = false;
	int r;

	if (!db)
		return -ENOMEM;
	r = open_database(db, &is_new, err);
	if (r) {
		cache_db_close(db);
		return r;
	}
	*ret_db = db;
	*ret_new = is_new;
	return 0;
}

int cache_db_salvage(const char *path, struct cache_db **ret_db, struct err *err)
{
	struct cache_db *db = db_new(path, err);
	int r;

	if (!db)
		return -ENOMEM;
	r = sqlite_open(&db->sql, &sql_conf, db->path, err);
	/* Closing shall not write the log's pages into what may be needed as it is. */
	if (!r &&
	    sqlite3_db_config(db->sql.db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL) != SQLITE_OK)
		r = sqlite_error(&db->sql, err);
	if (!r)
		r = sqlite_lock(&db->sql, err);
	if (!r)
		r = sqlite_prepare(&db->sql, err);
	if (r) {
		cache_db_close(db);
		return r;
	}
	*ret_db = db;
	return 0;
}

void cache_db_close(struct cache_db *db)
{
	if (!db)
		return;
	sqlite_close(&db->sql);
	pthread_mutex_destroy(&db->mu);
	free(db);
}

/* ---- what rows carry ---- */

static uint32_t sum_int(uint32_t crc, uint64_t value)
{
	uint8_t bytes[8];

	for (unsigned i = 0; i < 8; i++)
		bytes[i] = (uint8_t)(value >> 8 * i);
	return crc32c(crc, bytes, sizeof(bytes));
}

static uint32_t sum_text(uint32_t crc, const char *text)
{
	return crc32c(crc, text, strlen(text) + 1);
}

static uint32_t region_sum(const struct index_region *region)
{
	uint32_t crc = sum_int(0, region->id);

	crc = sum_int(crc, region->size);
	crc = sum_int(crc, region->version);
	crc = sum_int(crc, (uint64_t)region->durability);
	crc = sum_int(crc, region->clean);
	crc = sum_text(crc, region->name);
	crc = sum_text(crc, region->order);
	crc = sum_text(crc, region->pins);
	crc = sum_text(crc, region->aside);
	return sum_text(crc, region->why);
}

static uint32_t row_sum(
    uint64_t id, const struct index_chunk *chunk, const uint8_t *packed, size_t len)
{
	uint32_t crc = sum_int(0, id);

	crc = sum_int(crc, chunk->idx);
	crc = sum_int(crc, chunk->resident);
	crc = sum_int(crc, chunk->dirty);
	return crc32c(crc, packed, len);
}

/* The sums of the resident blocks as the table has them; how many bytes. */
static size_t row_pack(const struct index_row *row, uint8_t packed[4 * INDEX_CHUNK_BLOCKS])
{
	size_t n = 0;

	for (uint64_t left = row->chunk.resident; left; left &= left - 1) {
		uint32_t sum = row->sums[__builtin_ctzll(left)];

		for (unsigned i = 0; i < 4; i++)
			packed[n++] = (uint8_t)(sum >> 8 * i);
	}
	return n;
}

/* Copies a column; false if it is too long or has a NUL. */
static bool column_text(sqlite3_stmt *row, int col, char *ret_text, size_t room)
{
	const void *bytes = sqlite3_column_blob(row, col);
	size_t len = (size_t)sqlite3_column_bytes(row, col);

	if (len >= room || (len && memchr(bytes, 0, len)))
		return false;
	if (len)
		memcpy(ret_text, bytes, len);
	ret_text[len] = '\0';
	return true;
}

/* The region of the row that stmt stands at. */
static int region_of_row(
    struct cache_db *db, enum stmt which, struct index_region *ret_region, struct err *err)
{
	sqlite3_stmt *row = db->sql.stmts[which];

	*ret_region = (struct index_region){
	    .id = (uint64_t)sqlite3_column_int64(row, 0),
	    .size = (uint64_t)sqlite3_column_int64(row, 2),
	    .version = (uint64_t)sqlite3_column_int64(row, 3),
	    .durability = sqlite3_column_int64(row, 4),
	    .clean = sqlite3_column_int64(row, 5) != 0,
	};
	if (!column_text(row, 1, ret_region->name, sizeof(ret_region->name)) ||
	    !column_text(row, 6, ret_region->order, sizeof(ret_region->order)) ||
	    !column_text(row, 7, ret_region->pins, sizeof(ret_region->pins)) ||
	    !column_text(row, 8, ret_region->aside, sizeof(ret_region->aside)) ||
	    !column_text(row, 9, ret_region->why, sizeof(ret_region->why)) ||
	    sqlite3_column_int64(row, 10) != region_sum(ret_region))
		return sqlite_damaged(&db->sql, "a region's row does not fit its checksum", err);
	return 0;
}

/* The same for a chunk's row. */
static bool row_of_row(sqlite3_stmt *stmt, uint64_t id, struct index_row *ret_row)
{
	struct index_chunk chunk = {
	    .idx = (uint64_t)sqlite3_column_int64(stmt, 0),
	    .resident = (uint64_t)sqlite3_column_int64(stmt, 1),
	    .dirty = (uint64_t)sqlite3_column_int64(stmt, 2),
	};
	const uint8_t *packed = sqlite3_column_blob(stmt, 3);
	size_t len = (size_t)sqlite3_column_bytes(stmt, 3);

	if (!chunk.resident || (chunk.dirty & ~chunk.resident) ||
	    len != (size_t)4 * (unsigned)__builtin_popcountll(chunk.resident) ||
	    sqlite3_column_int64(stmt, 4) != row_sum(id, &chunk, packed, len))
		return false;
	memset(ret_row, 0, sizeof(*ret_row));
	ret_row->chunk = chunk;
	for (uint64_t left = chunk.resident; left; left &= left - 1, packed += 4)
		ret_row->sums[__builtin_ctzll(left)] =
		    (uint32_t)packed[0] | (uint32_t)packed[1] << 8 | (uint32_t)packed[2] << 16 |
		    (uint32_t)packed[3] << 24;
	return true;
}

/* ---- reading ---- */

int cache_db_regions(struct cache_db *db,
    void (*found)(void *ctx, const struct index_region *region), void *ctx, struct err *err)
{
	struct index_region region;
	int r, bad = 0;

	pthread_mutex_lock(&db->mu);
	while ((r = sqlite_step(&db->sql, STMT_REGIONS, err)) == 1) {
		int rc = region_of_row(db, STMT_REGIONS, &region, err);

		if (rc)
			bad = rc;
		else
			found(ctx, &region);
	}
	sqlite_end(&db->sql, STMT_REGIONS);
	pthread_mutex_unlock(&db->mu);
	return r ? r : bad;
}

int cache_db_region(
    struct cache_db *db, uint64_t id, struct index_region *ret_region, struct err *err)
{
	int r;

	pthread_mutex_lock(&db->mu);
	sqlite_bind_int(&db->sql, STMT_REGION, 1, (int64_t)id);
	r = sqlite_step(&db->sql, STMT_REGION, err);
	if (r == 1)
		r = region_of_row(db, STMT_REGION, ret_region, err);
	else if (r == 0)
		r = err_set(err, -ENOENT, "%s has no such region", db->path);
	sqlite_end(&db->sql, STMT_REGION);
	pthread_mutex_unlock(&db->mu);
	return r;
}

/* Makes room for one more; false if memory ran out. */
static bool rows_grow(struct index_row **rows, size_t count, size_t *room)
{
	struct index_row *more;

	if (count < *room)
		return true;
	*room = *room ? 2 * *room : 64;
	more = realloc(*rows, *room * sizeof(**rows));
	if (more)
		*rows = more;
	return more != NULL;
}

int cache_db_rows(struct cache_db *db, uint64_t id, struct index_row **ret_rows, size_t *ret_count,
    struct err *err)
{
	struct index_row *rows = NULL;
	size_t count = 0, room = 0;
	bool bad = false;
	int r;

	pthread_mutex_lock(&db->mu);
	sqlite_bind_int(&db->sql, STMT_ROWS, 1, (int64_t)id);
	while ((r = sqlite_step(&db->sql, STMT_ROWS, err)) == 1) {
		if (!rows_grow(&rows, count, &room)) {
			r = err_sys(err, -ENOMEM, "cannot read %s", db->path);
			break;
		}
		if (row_of_row(db->sql.stmts[STMT_ROWS], id, &rows[count]))
			count++;
		else
			bad = true;
	}
	sqlite_end(&db->sql, STMT_ROWS);
	pthread_mutex_unlock(&db->mu);
	if (r == 0 && bad)
		r = sqlite_damaged(&db->sql, "a chunk's row does not fit its checksum", err);
	if (r && r != -EUCLEAN) {
		free(rows);
		return r;
	}
	*ret_rows = rows;
	*ret_count = count;
	return r;
}

/* ---- writing ---- */

int cache_db_begin(struct cache_db *db, struct err *err)
{
	int r;

	pthread_mutex_lock(&db->mu);
	r = sqlite_begin(&db->sql, err);
	if (r)
		pthread_mutex_unlock(&db->mu);
	return r;
}

int cache_db_commit(struct cache_db *db, struct err *err)
{
	int r = sqlite_commit(&db->sql, err);

	pthread_mutex_unlock(&db->mu);
	return r;
}

void cache_db_rollback(struct cache_db *db)
{
	sqlite_rollback(&db->sql);
	pthread_mutex_unlock(&db->mu);
}

int cache_db_put_region(struct cache_db *db, const struct index_region *region, struct err *err)
{
	enum stmt put = STMT_PUT_REGION;

	sqlite_bind_int(&db->sql, put, 1, (int64_t)region->id);
	sqlite_bind_text(&db->sql, put, 2, region->name);
	sqlite_bind_int(&db->sql, put, 3, (int64_t)region->size);
	sqlite_bind_int(&db->sql, put, 4, (int64_t)region->version);
	sqlite_bind_int(&db->sql, put, 5, (int64_t)region->durability);
	sqlite_bind_int(&db->sql, put, 6, region->clean);
	sqlite_bind_text(&db->sql, put, 7, region->order);
	sqlite_bind_text(&db->sql, put, 8, region->pins);
	sqlite_bind_text(&db->sql, put, 9, region->aside);
	sqlite_bind_text(&db->sql, put, 10, region->why);
	sqlite_bind_int(&db->sql, put, 11, region_sum(region));
	return sqlite_run(&db->sql, put, err);
}

int cache_db_put_row(struct cache_db *db, uint64_t id, const struct index_row *row, struct err *err)
{
	uint8_t packed[4 * INDEX_CHUNK_BLOCKS];
	enum stmt which = row->chunk.resident ? STMT_PUT_ROW : STMT_REMOVE_ROW;
	size_t len;

	assert((row->chunk.dirty & ~row->chunk.resident) == 0);
	sqlite_bind_int(&db->sql, which, 1, (int64_t)id);
	sqlite_bind_int(&db->sql, which, 2, (int64_t)row->chunk.idx);
	if (which == STMT_PUT_ROW) {
		len = row_pack(row, packed);
		sqlite_bind_int(&db->sql, which, 3, (int64_t)row->chunk.resident);
		sqlite_bind_int(&db->sql, which, 4, (int64_t)row->chunk.dirty);
		sqlite_bind_bytes(&db->sql, which, 5, packed, len);
		sqlite_bind_int(&db->sql, which, 6, row_sum(id, &row->chunk, packed, len));
	}
	return sqlite_run(&db->sql, which, err);
}

int cache_db_remove(struct cache_db *db, uint64_t id, struct err *err)
{
	int r;

	sqlite_bind_int(&db->sql, STMT_REMOVE_ROWS, 1, (int64_t)id);
	r = sqlite_run(&db->sql, STMT_REMOVE_ROWS, err);
	if (r)
		return r;
	sqlite_bind_int(&db->sql, STMT_REMOVE_REGION, 1, (int64_t)id);
	return sqlite_run(&db->sql, STMT_REMOVE_REGION, err);
}
