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
 * Invariants (and those of core/sqlite.c):
 * 1. Every change is one transaction; in WAL mode with synchronous=FULL its commit returns after the
 *    log is on disk.  A call that fails has changed nothing, and the next one works as if it had not
 *    been made.  (If a sync fails and the process dies before it writes again, the next open may
 *    find the change that failed: nobody can know what such a disk has kept.)
 * 2. pool.next_id is above every id that was ever handed out: ids are reserved ID_BLOCK at a time,
 *    on disk before the first of them is used.  Those left over at the end are never used.
 * 3. The database file is made with O_EXCL: it is opened here only before SQLite has it.
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

#include "core/sqlite.h"

enum { SCHEMA_VERSION = 2, APPLICATION_ID = 0x726d726d /* "rmrm" */, ID_BLOCK = 64, UUID_LEN = 16 };

enum stmt {
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
	struct sqlite sql;
	char path[PATH_MAX];
	/* Ids that are reserved: next_id … id_end-1. */
	uint64_t next_id;
	uint64_t id_end;
};

static int refused(const struct sqlite *sq, int rc, struct err *err)
{
	if (rc == SQLITE_CONSTRAINT_UNIQUE)
		return err_set(err, -EEXIST, "%s has a region of that name already", sq->path);
	if (rc == SQLITE_CONSTRAINT_FOREIGNKEY)
		return err_set(err, -ENOENT, "%s has no such region", sq->path);
	return err_set(err, -EINVAL, "%s: %s", sq->path, sqlite3_errmsg(sq->db));
}

static const struct sqlite_conf sql_conf = {
    .stmts = stmt_sql,
    .stmt_count = STMTS,
    .busy_hint = ": is another remramd running with this state directory?",
    .damage_hint = ": restore it from a backup, or move it away and build a new one from what "
		   "`sqlite3 FILE .recover` prints",
    .refused = refused,
};

/* Runs a statement that must change exactly one row: otherwise `missing`. */
static int stmt_change(struct catalogue *cat, enum stmt which, int missing, struct err *err)
{
	int r = sqlite_run(&cat->sql, which, err);

	if (!r && sqlite3_changes(cat->sql.db) != 1)
		r = err_sys(err, missing, "%s does not have it", cat->path);
	return r;
}

/* ---- opening ------------------------------------------------------------------------------------- */

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
	struct sqlite_kind kind;
	int r = sqlite_identify(&cat->sql, &kind, err);

	if (r)
		return r;
	*ret_schema = kind.version;
	if (kind.is_new)
		return 0;
	if (kind.application != APPLICATION_ID || kind.version < 1)
		return err_set(err, -EUCLEAN,
		    "%s is not a catalogue of remram: use another state directory or pool name",
		    cat->path);
	if (kind.version > SCHEMA_VERSION)
		return err_set(err, -EUCLEAN,
		    "%s is from a newer version of remram (schema %d, this one knows %d): use that "
		    "version, or another state directory",
		    cat->path, kind.version, SCHEMA_VERSION);
	return 0;
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
	r = sqlite_exec(&cat->sql, "BEGIN IMMEDIATE", err);
	if (!r)
		r = sqlite_exec(&cat->sql, schema, err);
	snprintf(sql, sizeof(sql),
	    "INSERT INTO pool VALUES (1, x'%s', 2); PRAGMA application_id = %d;"
	    " PRAGMA user_version = %d; COMMIT",
	    text, APPLICATION_ID, SCHEMA_VERSION);
	return r ? r : sqlite_exec(&cat->sql, sql, err);
}

/* A failure rolls back when the connection is closed. */
static int migrate(struct catalogue *cat, struct err *err)
{
	int r = sqlite_exec(&cat->sql, migration, err);

	/* SQL that worked when the schema was ours. */
	if (r && sqlite3_errcode(cat->sql.db) == SQLITE_ERROR)
		r = sqlite_damaged(&cat->sql, sqlite3_errmsg(cat->sql.db), err);
	return r;
}

static int read_uuid(struct catalogue *cat, uint8_t ret_uuid[UUID_LEN], struct err *err)
{
	int r = sqlite_step(&cat->sql, STMT_UUID, err);

	if (r == 1 && sqlite3_column_bytes(cat->sql.stmts[STMT_UUID], 0) == UUID_LEN) {
		memcpy(ret_uuid, sqlite3_column_blob(cat->sql.stmts[STMT_UUID], 0), UUID_LEN);
		r = 0;
	} else if (r >= 0) {
		r = sqlite_damaged(&cat->sql, "it has no pool", err);
	}
	sqlite_end(&cat->sql, STMT_UUID);
	return r;
}

static int open_database(struct catalogue *cat, uint8_t ret_uuid[UUID_LEN], struct err *err)
{
	int r, old = 0;

	r = sqlite_open(&cat->sql, &sql_conf, cat->path, err);
	if (!r)
		r = identify(cat, &old, err);
	if (!r && old)
		r = sqlite_check(&cat->sql, err);
	if (!r)
		r = sqlite_set_modes(&cat->sql, err);
	if (!r)
		r = sqlite_exec(&cat->sql, "PRAGMA foreign_keys = ON", err);
	if (!r && !old)
		r = make_schema(cat, err);
	if (!r && old == 1)
		r = migrate(cat, err);
	if (!r)
		r = sqlite_prepare(&cat->sql, err);
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
	sqlite_close(&cat->sql);
	free(cat);
}

/* ---- reading ------------------------------------------------------------------------------------- */

/* Copies column `col`, a region's or xattr's name, to buf (256 bytes). */
static int column_name(struct catalogue *cat, enum stmt which, int col, char *buf, struct err *err)
{
	const void *bytes = sqlite3_column_blob(cat->sql.stmts[which], col);
	size_t len = (size_t)sqlite3_column_bytes(cat->sql.stmts[which], col);

	if (!len || len > 255 || memchr(bytes, 0, len))
		return sqlite_damaged(
		    &cat->sql, "a name is empty, too long or contains a NUL", err);
	memcpy(buf, bytes, len);
	buf[len] = '\0';
	return 0;
}

static int load_regions(struct catalogue *cat,
    void (*region)(void *ctx, const char *name, const struct region_attr *attr,
	const struct catalogue_writer *writer),
    void *ctx, struct err *err)
{
	sqlite3_stmt *row = cat->sql.stmts[STMT_REGIONS];
	int r;

	while ((r = sqlite_step(&cat->sql, STMT_REGIONS, err)) == 1) {
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
	sqlite_end(&cat->sql, STMT_REGIONS);
	return r;
}

static int load_xattrs(struct catalogue *cat,
    void (*xattr)(void *ctx, uint64_t id, const char *name, const void *value, size_t len),
    void *ctx, struct err *err)
{
	sqlite3_stmt *row = cat->sql.stmts[STMT_XATTRS];
	int r;

	while ((r = sqlite_step(&cat->sql, STMT_XATTRS, err)) == 1) {
		const void *value = sqlite3_column_blob(row, 2);
		size_t len = (size_t)sqlite3_column_bytes(row, 2);
		char name[256];
		r = column_name(cat, STMT_XATTRS, 1, name, err);
		if (r)
			break;
		xattr(ctx, (uint64_t)sqlite3_column_int64(row, 0), name, len ? value : "", len);
	}
	sqlite_end(&cat->sql, STMT_XATTRS);
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
		sqlite_bind_int(&cat->sql, STMT_RESERVE, 1, ID_BLOCK);
		r = sqlite_step(&cat->sql, STMT_RESERVE, err);
		if (r == 1) {
			end = (uint64_t)sqlite3_column_int64(cat->sql.stmts[STMT_RESERVE], 0);
			/* The row comes before the commit: that is the next step. */
			r = sqlite_step(&cat->sql, STMT_RESERVE, err);
		} else if (!r) {
			r = sqlite_damaged(&cat->sql, "it has no pool", err);
		}
		sqlite_end(&cat->sql, STMT_RESERVE);
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
	sqlite_bind_int(&cat->sql, STMT_PUT, 1, (int64_t)attr->id);
	sqlite_bind_text(&cat->sql, STMT_PUT, 2, name);
	sqlite_bind_int(&cat->sql, STMT_PUT, 3, (int64_t)attr->size);
	sqlite_bind_int(&cat->sql, STMT_PUT, 4, (int64_t)attr->version);
	sqlite_bind_int(&cat->sql, STMT_PUT, 5, attr->mode);
	sqlite_bind_int(&cat->sql, STMT_PUT, 6, attr->uid);
	sqlite_bind_int(&cat->sql, STMT_PUT, 7, attr->gid);
	sqlite_bind_int(&cat->sql, STMT_PUT, 8, attr->atime_ns);
	sqlite_bind_int(&cat->sql, STMT_PUT, 9, attr->mtime_ns);
	sqlite_bind_int(&cat->sql, STMT_PUT, 10, attr->ctime_ns);
	sqlite_bind_int(&cat->sql, STMT_PUT, 11, (int64_t)writer->writer);
	sqlite_bind_int(&cat->sql, STMT_PUT, 12, (int64_t)writer->base);
	sqlite_bind_int(&cat->sql, STMT_PUT, 13, writer->writing);
	return sqlite_run(&cat->sql, STMT_PUT, err);
}

int catalogue_remove(struct catalogue *cat, uint64_t id, struct err *err)
{
	sqlite_bind_int(&cat->sql, STMT_REMOVE, 1, (int64_t)id);
	return stmt_change(cat, STMT_REMOVE, -ENOENT, err);
}

static int set_name(struct catalogue *cat, uint64_t id, const char *name, struct err *err)
{
	sqlite_bind_int(&cat->sql, STMT_NAME, 1, (int64_t)id);
	sqlite_bind_text(&cat->sql, STMT_NAME, 2, name);
	return stmt_change(cat, STMT_NAME, -ENOENT, err);
}

int catalogue_rename(struct catalogue *cat, uint64_t id, const char *new_name, uint64_t other_id,
    const char *other_name, struct err *err)
{
	int r = sqlite_begin(&cat->sql, err);

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
	if (!r)
		return sqlite_commit(&cat->sql, err);
	sqlite_rollback(&cat->sql);
	return r;
}

int catalogue_put_xattr(struct catalogue *cat, uint64_t id, const char *name, const void *value,
    size_t len, struct err *err)
{
	enum stmt which = value ? STMT_XATTR_PUT : STMT_XATTR_REMOVE;

	sqlite_bind_int(&cat->sql, which, 1, (int64_t)id);
	sqlite_bind_text(&cat->sql, which, 2, name);
	if (!value)
		return stmt_change(cat, which, -ENODATA, err);
	sqlite_bind_bytes(&cat->sql, which, 3, value, len);
	return sqlite_run(&cat->sql, which, err);
}
