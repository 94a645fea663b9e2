/* SPDX-License-Identifier: Apache-2.0
 *
 * The donor's catalogue, in SQLite.
 *
 * Schema 2 (PRAGMA user_version, under our application_id):
 *   pool    one row: the pool's uuid, the first region id that was never reserved
 *   region  id, name (bytes, unique), attributes, who wrote (struct catalogue_writer)
 *   xattr   (region id, name) → value; goes with its region
 * Schema 1 had no writers; it is brought up to date when it is opened: anybody may have written then.
 *
 * Invariants:
 * 1. Every change is one transaction; in WAL mode with synchronous=FULL its commit returns after the
 *    log is on disk.  A call that fails has changed nothing, and the next one works as if it had not
 *    been made.  (If a sync fails and the process dies before it writes again, the next open may
 *    find the change that failed: nobody can know what such a disk has kept.)
 * 2. locking_mode=EXCLUSIVE is set before the first access, so the lock of the first read stays until
 *    close, and SQLite needs no shared-memory file beside the database.
 * 3. pool.next_id is above every id that was ever handed out: ids are reserved ID_BLOCK at a time,
 *    on disk before the first of them is used.  Those left over at the end are never used.
 * 4. The database file is made with O_EXCL and never opened by anybody but SQLite: closing a second
 *    descriptor of it would drop this process' POSIX locks.
 *
 * A creation that was cut off leaves an empty file or one without tables: the next open makes it anew.
 */
#include "core/catalogue.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SCHEMA_VERSION = 2, APPLICATION_ID = 0x726d726d /* "rmrm" */, ID_BLOCK = 64, UUID_LEN = 16 };

enum stmt {
	STMT_BEGIN,
	STMT_COMMIT,
	STMT_ROLLBACK,
	STMT_UUID,
	STMT_REGIONS,
	STMT_XATTRS,
	STMT_RESERVE,
	STMT_PUT,
	STMT_REMOVE,
	STMT_NAME,
	STMT_XATTR_PUT,
	STMT_XATTR_REMOVE,
	STMTS
};

static const char schema[] =
    "CREATE TABLE pool (one INTEGER PRIMARY KEY CHECK (one = 1),"
    " uuid BLOB NOT NULL CHECK (length(uuid) = 16), next_id INTEGER NOT NULL CHECK (next_id >= 2))"
    " STRICT;"
    "CREATE TABLE region (id INTEGER PRIMARY KEY CHECK (id >= 2),"
    " name BLOB NOT NULL UNIQUE CHECK (length(name) <= 255), size INTEGER NOT NULL CHECK (size >= "
    "0),"
    " version INTEGER NOT NULL, mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL,"
    " atime_ns INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,"
    " writer INTEGER NOT NULL, base INTEGER NOT NULL, writing INTEGER NOT NULL) STRICT;"
    "CREATE TABLE xattr (id INTEGER NOT NULL REFERENCES region (id) ON DELETE CASCADE,"
    " name BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (id, name)) STRICT;";

/* From schema 1; the tables stay STRICT. */
static const char migration[] = "BEGIN IMMEDIATE;"
				"ALTER TABLE region ADD COLUMN writer INTEGER NOT NULL DEFAULT 0;"
				"ALTER TABLE region ADD COLUMN base INTEGER NOT NULL DEFAULT 0;"
				"ALTER TABLE region ADD COLUMN writing INTEGER NOT NULL DEFAULT 1;"
				"PRAGMA user_version = 2;"
				"COMMIT";

static const char *const stmt_sql[STMTS] = {
    [STMT_BEGIN] = "BEGIN IMMEDIATE",
    [STMT_COMMIT] = "COMMIT",
    [STMT_ROLLBACK] = "ROLLBACK",
    [STMT_UUID] = "SELECT uuid FROM pool",
    [STMT_REGIONS] = "SELECT id, name, size, version, mode, uid, gid, atime_ns, mtime_ns, ctime_ns,"
		     " writer, base, writing FROM region ORDER BY id",
    [STMT_XATTRS] = "SELECT id, name, value FROM xattr ORDER BY id, name",
    [STMT_RESERVE] = "UPDATE pool SET next_id = next_id + ?1 RETURNING next_id",
    [STMT_PUT] = "INSERT INTO region (id, name, size, version, mode, uid, gid, atime_ns, mtime_ns,"
		 " ctime_ns, writer, base, writing)"
		 " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
		 " ON CONFLICT (id) DO UPDATE SET name = ?2, size = ?3, version = ?4, mode = ?5,"
		 " uid = ?6, gid = ?7, atime_ns = ?8, mtime_ns = ?9, ctime_ns = ?10, writer = ?11,"
		 " base = ?12, writing = ?13",
    [STMT_REMOVE] = "DELETE FROM region WHERE id = ?1",
    [STMT_NAME] = "UPDATE region SET name = ?2 WHERE id = ?1",
    [STMT_XATTR_PUT] = "INSERT INTO xattr (id, name, value) VALUES (?1, ?2, ?3)"
		       " ON CONFLICT (id, name) DO UPDATE SET value = ?3",
    [STMT_XATTR_REMOVE] = "DELETE FROM xattr WHERE id = ?1 AND name = ?2",
};

struct catalogue {
	/* Constant after open. */
	sqlite3 *db;
	sqlite3_stmt *stmts[STMTS];
	char path[PATH_MAX];
	/* Ids that are reserved: next_id … id_end-1. */
	uint64_t next_id;
	uint64_t id_end;
};

/* ---- errors -------------------------------------------------------------------------------------- */

static int damaged(const struct catalogue *cat, const char *how, struct err *err)
{
	return err_set(err, -EUCLEAN,
	    "%s is damaged (%s): restore it from a backup, or move it away and build a new one "
	    "from what `sqlite3 FILE .recover` prints",
	    cat->path, how);
}

static int read_only(const struct catalogue *cat, struct err *err)
{
	return err_set(
	    err, -EROFS, "cannot write to %s: it or its directory is read-only", cat->path);
}

/* The error of the SQLite call that has just failed. */
static int db_error(const struct catalogue *cat, struct err *err)
{
	int rc = sqlite3_extended_errcode(cat->db), sys = sqlite3_system_errno(cat->db);
	const char *text = sqlite3_errmsg(cat->db);

	switch (rc & 0xff) {
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return err_set(err, -EBUSY,
		    "%s is in use by another process: is another remramd running with this state "
		    "directory?",
		    cat->path);
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return damaged(cat, text, err);
	case SQLITE_FULL:
		return err_set(err, -ENOSPC, "cannot write to %s: the disk is full", cat->path);
	case SQLITE_READONLY:
		return read_only(cat, err);
	case SQLITE_CANTOPEN:
	case SQLITE_PERM:
		return err_sys(err, sys ? -sys : -EACCES, "cannot open %s", cat->path);
	case SQLITE_NOMEM:
		return err_sys(err, -ENOMEM, "cannot use %s", cat->path);
	case SQLITE_CONSTRAINT:
		if (rc == SQLITE_CONSTRAINT_UNIQUE)
			return err_set(
			    err, -EEXIST, "%s has a region of that name already", cat->path);
		if (rc == SQLITE_CONSTRAINT_FOREIGNKEY)
			return err_set(err, -ENOENT, "%s has no such region", cat->path);
		return err_set(err, -EINVAL, "%s: %s", cat->path, text);
	case SQLITE_TOOBIG:
		return err_sys(err, -E2BIG, "cannot write to %s", cat->path);
	default:
		return err_set(err, -EIO, "cannot use %s: %s%s%s", cat->path, text, sys ? ": " : "",
		    sys ? strerror(sys) : "");
	}
}

/* ---- statements ---------------------------------------------------------------------------------- */

/* Steps stmt: 1 if there is a row, 0 if it is done, or -errno.  The values of a row are valid until
 * stmt_end. */
static int stmt_step(struct catalogue *cat, enum stmt which, struct err *err)
{
	int rc = sqlite3_step(cat->stmts[which]);

	if (rc == SQLITE_ROW)
		return 1;
	return rc == SQLITE_DONE ? 0 : db_error(cat, err);
}

static void stmt_end(struct catalogue *cat, enum stmt which)
{
	sqlite3_reset(cat->stmts[which]);
	sqlite3_clear_bindings(cat->stmts[which]);
}

/* Runs a statement that gives no rows; its parameters are bound already. */
static int stmt_run(struct catalogue *cat, enum stmt which, struct err *err)
{
	int r = stmt_step(cat, which, err);

	stmt_end(cat, which);
	return r;
}

/* The same, for one that must change exactly one row: otherwise `missing`. */
static int stmt_change(struct catalogue *cat, enum stmt which, int missing, struct err *err)
{
	int r = stmt_run(cat, which, err);

	if (!r && sqlite3_changes(cat->db) != 1)
		r = err_sys(err, missing, "%s does not have it", cat->path);
	return r;
}

static void bind_int(struct catalogue *cat, enum stmt which, int idx, int64_t value)
{
	int rc = sqlite3_bind_int64(cat->stmts[which], idx, value);

	assert(rc == SQLITE_OK);
}

/* The bytes (not NULL, even if there are none) are borrowed until the statement ends. */
static void bind_bytes(
    struct catalogue *cat, enum stmt which, int idx, const void *bytes, size_t len)
{
	int rc = sqlite3_bind_blob64(cat->stmts[which], idx, bytes, len, SQLITE_STATIC);

	assert(rc == SQLITE_OK);
}

static void bind_name(struct catalogue *cat, enum stmt which, int idx, const char *name)
{
	bind_bytes(cat, which, idx, name, strlen(name));
}

static int exec(struct catalogue *cat, const char *sql, struct err *err)
{
	return sqlite3_exec(cat->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : db_error(cat, err);
}

/* Ends a transaction: commits if r is 0, otherwise, or if that fails, rolls back.  Returns the
 * error that counts. */
static int transaction_end(struct catalogue *cat, int r, struct err *err)
{
	if (!r)
		r = stmt_run(cat, STMT_COMMIT, err);
	if (r && !sqlite3_get_autocommit(cat->db)) {
		sqlite3_step(cat->stmts[STMT_ROLLBACK]);
		stmt_end(cat, STMT_ROLLBACK);
	}
	return r;
}

/* ---- opening ------------------------------------------------------------------------------------- */

/* The first column of the first row of sql, as text. */
static int query_text(
    struct catalogue *cat, const char *sql, char *ret_text, size_t room, struct err *err)
{
	sqlite3_stmt *stmt;
	int rc = sqlite3_prepare_v2(cat->db, sql, -1, &stmt, NULL);
	int r = 0;

	if (rc == SQLITE_OK)
		rc = sqlite3_step(stmt);
	if (rc == SQLITE_ROW)
		snprintf(ret_text, room, "%s", (const char *)sqlite3_column_text(stmt, 0));
	else
		r = db_error(cat, err);
	sqlite3_finalize(stmt);
	return r;
}

static int query_int(struct catalogue *cat, const char *sql, int *ret_value, struct err *err)
{
	char text[32];
	int r = query_text(cat, sql, text, sizeof(text), err);

	if (!r)
		*ret_value = atoi(text);
	return r;
}

/* Makes the entries of a directory stable. */
static int sync_dir(const char *path, struct err *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = 0;

	if (fd < 0)
		return err_sys(err, -errno, "cannot open %s", path);
	if (fsync(fd))
		r = err_sys(err, -errno, "cannot write to %s", path);
	close(fd);
	return r;
}

/* Makes dir and an empty database file if they are absent. */
static int make_files(const char *dir, const char *path, struct err *err)
{
	char copy[PATH_MAX];
	int fd, r;

	if (!mkdir(dir, 0700)) {
		snprintf(copy, sizeof(copy), "%s", dir);
		r = sync_dir(dirname(copy), err);
		if (r)
			return r;
	} else if (errno != EEXIST) {
		return err_sys(err, -errno, "cannot create the state directory %s", dir);
	}
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return errno == EEXIST ? 0 : err_sys(err, -errno, "cannot create %s", path);
	close(fd);
	return sync_dir(dir, err);
}

/* Takes the lock and finds out what kind of file it is: its schema, 0 if it has no tables yet. */
static int identify(struct catalogue *cat, int *ret_schema, struct err *err)
{
	int r, version = 0, application = 0, tables = 0;

	r = exec(cat, "PRAGMA locking_mode = EXCLUSIVE", err);
	if (!r)
		r = query_int(cat, "PRAGMA user_version", &version, err);
	if (!r)
		r = query_int(cat, "PRAGMA application_id", &application, err);
	if (!r)
		r = query_int(cat, "SELECT count(*) FROM sqlite_schema", &tables, err);
	if (r)
		return r;
	*ret_schema = version;
	if (!version && !application && !tables)
		return 0;
	if (application != APPLICATION_ID || version < 1)
		return err_set(err, -EUCLEAN,
		    "%s is not a catalogue of remram: use another state directory or pool name",
		    cat->path);
	if (version > SCHEMA_VERSION)
		return err_set(err, -EUCLEAN,
		    "%s is from a newer version of remram (schema %d, this one knows %d): use that "
		    "version, or another state directory",
		    cat->path, version, SCHEMA_VERSION);
	return 0;
}

/* What must be so on every open. */
static int set_modes(struct catalogue *cat, struct err *err)
{
	char text[200];
	int r = query_text(cat, "PRAGMA journal_mode = WAL", text, sizeof(text), err);

	if (!r && strcmp(text, "wal"))
		r = err_set(
		    err, -EIO, "cannot use %s: it stays in journal mode \"%s\"", cat->path, text);
	if (!r)
		r = exec(cat, "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON", err);
	return r;
}

static int make_schema(struct catalogue *cat, struct err *err)
{
	uint8_t uuid[UUID_LEN];
	char text[2 * UUID_LEN + 1], sql[200];
	int r;

	if (getrandom(uuid, sizeof(uuid), 0) != sizeof(uuid))
		return err_sys(err, -errno, "cannot get random bytes");
	uuid[6] = (uuid[6] & 0x0f) | 0x40; /* RFC 4122: version 4, */
	uuid[8] = (uuid[8] & 0x3f) | 0x80; /* its variant */
	for (unsigned i = 0; i < UUID_LEN; i++)
		snprintf(text + 2 * i, 3, "%02x", uuid[i]);
	r = exec(cat, "BEGIN IMMEDIATE", err);
	if (!r)
		r = exec(cat, schema, err);
	snprintf(sql, sizeof(sql),
	    "INSERT INTO pool VALUES (1, x'%s', 2); PRAGMA application_id = %d;"
	    " PRAGMA user_version = %d; COMMIT",
	    text, APPLICATION_ID, SCHEMA_VERSION);
	return r ? r : exec(cat, sql, err);
}

/* A failure rolls back when the connection is closed. */
static int migrate(struct catalogue *cat, struct err *err)
{
	int r = exec(cat, migration, err);

	/* SQL that worked when the schema was ours. */
	if (r && sqlite3_errcode(cat->db) == SQLITE_ERROR)
		r = damaged(cat, sqlite3_errmsg(cat->db), err);
	return r;
}

static int check_database(struct catalogue *cat, struct err *err)
{
	char text[200];
	int r = query_text(cat, "PRAGMA quick_check(1)", text, sizeof(text), err);

	if (!r && strcmp(text, "ok"))
		r = damaged(cat, text, err);
	return r;
}

static int prepare(struct catalogue *cat, struct err *err)
{
	for (unsigned i = 0; i < STMTS; i++)
		if (sqlite3_prepare_v3(cat->db, stmt_sql[i], -1, SQLITE_PREPARE_PERSISTENT,
			&cat->stmts[i], NULL) != SQLITE_OK) {
			/* SQL that worked when the schema was ours: a table or column is missing. */
			if (sqlite3_errcode(cat->db) == SQLITE_ERROR)
				return damaged(cat, sqlite3_errmsg(cat->db), err);
			return db_error(cat, err);
		}
	return 0;
}

static int read_uuid(struct catalogue *cat, uint8_t ret_uuid[UUID_LEN], struct err *err)
{
	int r = stmt_step(cat, STMT_UUID, err);

	if (r == 1 && sqlite3_column_bytes(cat->stmts[STMT_UUID], 0) == UUID_LEN) {
		memcpy(ret_uuid, sqlite3_column_blob(cat->stmts[STMT_UUID], 0), UUID_LEN);
		r = 0;
	} else if (r >= 0) {
		r = damaged(cat, "it has no pool", err);
	}
	stmt_end(cat, STMT_UUID);
	return r;
}

static int open_database(struct catalogue *cat, uint8_t ret_uuid[UUID_LEN], struct err *err)
{
	int r, old = 0;

	if (sqlite3_open_v2(cat->path, &cat->db,
		SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
		NULL) != SQLITE_OK) {
		if (!cat->db)
			return err_sys(err, -ENOMEM, "cannot open %s", cat->path);
		return db_error(cat, err);
	}
	/* SQLite opens read-only what it cannot open otherwise, and then fails to lock it. */
	if (sqlite3_db_readonly(cat->db, "main") == 1)
		return read_only(cat, err);
	r = identify(cat, &old, err);
	if (!r && old)
		r = check_database(cat, err);
	if (!r)
		r = set_modes(cat, err);
	if (!r && !old)
		r = make_schema(cat, err);
	if (!r && old == 1)
		r = migrate(cat, err);
	if (!r)
		r = prepare(cat, err);
	return r ? r : read_uuid(cat, ret_uuid, err);
}

int catalogue_open(const char *dir, const char *pool, struct catalogue **ret_cat,
    uint8_t ret_uuid[16], struct err *err)
{
	struct catalogue *cat = calloc(1, sizeof(*cat));
	int r;

	if (!cat)
		return err_sys(err, -ENOMEM, "cannot open the catalogue of pool \"%s\"", pool);
	r = snprintf(cat->path, sizeof(cat->path), "%s/%s.db", dir, pool);
	if (r < 0 || r >= (int)sizeof(cat->path)) {
		r = err_sys(err, -ENAMETOOLONG, "cannot open the catalogue of pool \"%s\"", pool);
		goto fail;
	}
	r = make_files(dir, cat->path, err);
	if (!r)
		r = open_database(cat, ret_uuid, err);
	if (r)
		goto fail;
	*ret_cat = cat;
	return 0;
fail:
	catalogue_close(cat);
	return r;
}

void catalogue_close(struct catalogue *cat)
{
	if (!cat)
		return;
	for (unsigned i = 0; i < STMTS; i++)
		sqlite3_finalize(cat->stmts[i]);
	sqlite3_close(cat->db);
	free(cat);
}

/* ---- reading ------------------------------------------------------------------------------------- */

/* Copies column `col`, a region's or xattr's name, to buf (256 bytes). */
static int column_name(struct catalogue *cat, enum stmt which, int col, char *buf, struct err *err)
{
	const void *bytes = sqlite3_column_blob(cat->stmts[which], col);
	size_t len = (size_t)sqlite3_column_bytes(cat->stmts[which], col);

	if (!len || len > 255 || memchr(bytes, 0, len))
		return damaged(cat, "a name is empty, too long or contains a NUL", err);
	memcpy(buf, bytes, len);
	buf[len] = '\0';
	return 0;
}

static int load_regions(struct catalogue *cat,
    void (*region)(void *ctx, const char *name, const struct region_attr *attr,
	const struct catalogue_writer *writer),
    void *ctx, struct err *err)
{
	sqlite3_stmt *row = cat->stmts[STMT_REGIONS];
	int r;

	while ((r = stmt_step(cat, STMT_REGIONS, err)) == 1) {
		char name[256];
		struct region_attr attr = {
		    .id = (uint64_t)sqlite3_column_int64(row, 0),
		    .size = (uint64_t)sqlite3_column_int64(row, 2),
		    .version = (uint64_t)sqlite3_column_int64(row, 3),
		    .mode = (uint32_t)sqlite3_column_int64(row, 4),
		    .uid = (uint32_t)sqlite3_column_int64(row, 5),
		    .gid = (uint32_t)sqlite3_column_int64(row, 6),
		    .atime_ns = sqlite3_column_int64(row, 7),
		    .mtime_ns = sqlite3_column_int64(row, 8),
		    .ctime_ns = sqlite3_column_int64(row, 9),
		    .nlink = 1,
		};
		struct catalogue_writer writer = {
		    .writer = (uint64_t)sqlite3_column_int64(row, 10),
		    .base = (uint64_t)sqlite3_column_int64(row, 11),
		    .writing = sqlite3_column_int64(row, 12),
		};
		r = column_name(cat, STMT_REGIONS, 1, name, err);
		if (r)
			break;
		region(ctx, name, &attr, &writer);
	}
	stmt_end(cat, STMT_REGIONS);
	return r;
}

static int load_xattrs(struct catalogue *cat,
    void (*xattr)(void *ctx, uint64_t id, const char *name, const void *value, size_t len),
    void *ctx, struct err *err)
{
	sqlite3_stmt *row = cat->stmts[STMT_XATTRS];
	int r;

	while ((r = stmt_step(cat, STMT_XATTRS, err)) == 1) {
		const void *value = sqlite3_column_blob(row, 2);
		size_t len = (size_t)sqlite3_column_bytes(row, 2);
		char name[256];
		r = column_name(cat, STMT_XATTRS, 1, name, err);
		if (r)
			break;
		xattr(ctx, (uint64_t)sqlite3_column_int64(row, 0), name, len ? value : "", len);
	}
	stmt_end(cat, STMT_XATTRS);
	return r;
}

int catalogue_load(struct catalogue *cat,
    void (*region)(void *ctx, const char *name, const struct region_attr *attr,
	const struct catalogue_writer *writer),
    void (*xattr)(void *ctx, uint64_t id, const char *name, const void *value, size_t len),
    void *ctx, struct err *err)
{
	int r = load_regions(cat, region, ctx, err);

	return r ? r : load_xattrs(cat, xattr, ctx, err);
}

/* ---- writing ------------------------------------------------------------------------------------- */

int catalogue_next_id(struct catalogue *cat, uint64_t *ret_id, struct err *err)
{
	if (cat->next_id == cat->id_end) {
		uint64_t end = 0;
		int r;
		bind_int(cat, STMT_RESERVE, 1, ID_BLOCK);
		r = stmt_step(cat, STMT_RESERVE, err);
		if (r == 1) {
			end = (uint64_t)sqlite3_column_int64(cat->stmts[STMT_RESERVE], 0);
			/* The row comes before the commit: that is the next step. */
			r = stmt_step(cat, STMT_RESERVE, err);
		} else if (!r) {
			r = damaged(cat, "it has no pool", err);
		}
		stmt_end(cat, STMT_RESERVE);
		if (r)
			return r;
		cat->next_id = end - ID_BLOCK;
		cat->id_end = end;
	}
	*ret_id = cat->next_id++;
	return 0;
}

int catalogue_put(struct catalogue *cat, const char *name, const struct region_attr *attr,
    const struct catalogue_writer *writer, struct err *err)
{
	assert(attr->id >= 2);
	bind_int(cat, STMT_PUT, 1, (int64_t)attr->id);
	bind_name(cat, STMT_PUT, 2, name);
	bind_int(cat, STMT_PUT, 3, (int64_t)attr->size);
	bind_int(cat, STMT_PUT, 4, (int64_t)attr->version);
	bind_int(cat, STMT_PUT, 5, attr->mode);
	bind_int(cat, STMT_PUT, 6, attr->uid);
	bind_int(cat, STMT_PUT, 7, attr->gid);
	bind_int(cat, STMT_PUT, 8, attr->atime_ns);
	bind_int(cat, STMT_PUT, 9, attr->mtime_ns);
	bind_int(cat, STMT_PUT, 10, attr->ctime_ns);
	bind_int(cat, STMT_PUT, 11, (int64_t)writer->writer);
	bind_int(cat, STMT_PUT, 12, (int64_t)writer->base);
	bind_int(cat, STMT_PUT, 13, writer->writing);
	return stmt_run(cat, STMT_PUT, err);
}

int catalogue_remove(struct catalogue *cat, uint64_t id, struct err *err)
{
	bind_int(cat, STMT_REMOVE, 1, (int64_t)id);
	return stmt_change(cat, STMT_REMOVE, -ENOENT, err);
}

static int set_name(struct catalogue *cat, uint64_t id, const char *name, struct err *err)
{
	bind_int(cat, STMT_NAME, 1, (int64_t)id);
	bind_name(cat, STMT_NAME, 2, name);
	return stmt_change(cat, STMT_NAME, -ENOENT, err);
}

int catalogue_rename(struct catalogue *cat, uint64_t id, const char *new_name, uint64_t other_id,
    const char *other_name, struct err *err)
{
	int r = stmt_run(cat, STMT_BEGIN, err);

	if (r)
		return r;
	/* Names are unique at every moment: the other one steps aside under the name that nobody has. */
	if (other_id && !other_name)
		r = catalogue_remove(cat, other_id, err);
	else if (other_id)
		r = set_name(cat, other_id, "", err);
	if (!r)
		r = set_name(cat, id, new_name, err);
	if (!r && other_id && other_name)
		r = set_name(cat, other_id, other_name, err);
	return transaction_end(cat, r, err);
}

int catalogue_put_xattr(struct catalogue *cat, uint64_t id, const char *name, const void *value,
    size_t len, struct err *err)
{
	enum stmt which = value ? STMT_XATTR_PUT : STMT_XATTR_REMOVE;

	bind_int(cat, which, 1, (int64_t)id);
	bind_name(cat, which, 2, name);
	if (!value)
		return stmt_change(cat, which, -ENODATA, err);
	bind_bytes(cat, which, 3, value, len);
	return stmt_run(cat, which, err);
}
