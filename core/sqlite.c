/* SPDX-License-Identifier: Apache-2.0
 *
 * A database file in SQLite (core/sqlite.h).
 *
 * Invariants:
 * 1. locking_mode=EXCLUSIVE is set before the first access, so the lock of the first read stays until
 *    close, and SQLite needs no shared-memory file beside the database.
 * 2. What runs again and again is prepared: it allocates nothing later.
 * 3. Nobody but SQLite opens the file here: closing a second descriptor of it would drop this process' POSIX
 *    locks.
 *
 * No locks: the owner's.  Each error of SQLite is set by sqlite_error, at once, while the connection knows it.
 */
#include "core/sqlite.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- errors ---- */

int sqlite_damaged(const struct sqlite *sq, const char *how, struct err *err)
{
	return err_set(err, -EUCLEAN, "%s is damaged (%s)%s", sq->path, how, sq->conf->damage_hint);
}

static int read_only(const struct sqlite *sq, struct err *err)
{
	return err_set(
	    err, -EROFS, "cannot write to %s: it or its directory is read-only", sq->path);
}

int sqlite_error(const struct sqlite *sq, struct err *err)
{
	int rc = sqlite3_extended_errcode(sq->db), sys = sqlite3_system_errno(sq->db);
	const char *text = sqlite3_errmsg(sq->db);

	switch (rc & 0xff) {
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return err_set(err, -EBUSY, "%s is in use by another process%s", sq->path,
		    sq->conf->busy_hint);
	case SQLITE_FULL:
		return err_set(err, -ENOSPC, "cannot write to %s: the disk is full", sq->path);
	case SQLITE_READONLY:
		return read_only(sq, err);
	case SQLITE_CANTOPEN:
	case SQLITE_PERM:
		return err_sys(err, sys ? -sys : -EACCES, "cannot open %s", sq->path);
	case SQLITE_NOMEM:
		return err_sys(err, -ENOMEM, "cannot use %s", sq->path);
	case SQLITE_TOOBIG:
		return err_sys(err, -E2BIG, "cannot write to %s", sq->path);
	case SQLITE_CONSTRAINT:
		if (sq->conf->refused)
			return sq->conf->refused(sq, rc, err);
		return sqlite_damaged(sq, text, err);
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
	case SQLITE_MISMATCH:
		return sqlite_damaged(sq, text, err);
	default:
		return err_set(err, -EIO, "cannot use %s: %s%s%s", sq->path, text, sys ? ": " : "",
		    sys ? strerror(sys) : "");
	}
}

/* ---- SQL as text ---- */

int sqlite_exec(struct sqlite *sq, const char *sql, struct err *err)
{
	return sqlite3_exec(sq->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : sqlite_error(sq, err);
}

/* The first column of the first row of sql, as text. */
static int query_text(
    struct sqlite *sq, const char *sql, char *ret_text, size_t room, struct err *err)
{
	sqlite3_stmt *stmt = NULL;
	int rc = sqlite3_prepare_v2(sq->db, sql, -1, &stmt, NULL);
	int r = 0;

	if (rc == SQLITE_OK)
		rc = sqlite3_step(stmt);
	if (rc == SQLITE_ROW)
		snprintf(ret_text, room, "%s", (const char *)sqlite3_column_text(stmt, 0));
	else
		r = sqlite_error(sq, err);
	sqlite3_finalize(stmt);
	return r;
}

static int query_int(struct sqlite *sq, const char *sql, int *ret_value, struct err *err)
{
	char text[32];
	int r = query_text(sq, sql, text, sizeof(text), err);

	if (!r)
		*ret_value = atoi(text);
	return r;
}

/* ---- opening ---- */

int sqlite_open(
    struct sqlite *sq, const struct sqlite_conf *conf, const char *path, struct err *err)
{
	assert(conf->stmt_count <= SQL_STMTS_MAX);
	sq->conf = conf;
	sq->path = path;
	if (sqlite3_open_v2(path, &sq->db,
		SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
		NULL) == SQLITE_OK)
		return 0;
	return sq->db ? sqlite_error(sq, err) : err_sys(err, -ENOMEM, "cannot open %s", path);
}

void sqlite_close(struct sqlite *sq)
{
	for (unsigned i = 0; i < SQL_STMTS_MAX; i++)
		sqlite3_finalize(sq->stmts[i]);
	sqlite3_finalize(sq->begin);
	sqlite3_finalize(sq->commit);
	sqlite3_finalize(sq->rollback);
	sqlite3_close(sq->db);
}

int sqlite_lock(struct sqlite *sq, struct err *err)
{
	return sqlite_exec(sq, "PRAGMA locking_mode = EXCLUSIVE", err);
}

int sqlite_identify(struct sqlite *sq, struct sqlite_kind *ret_kind, struct err *err)
{
	int r, version = 0, application = 0, tables = 0;

	/* SQLite opens read-only what it cannot open otherwise, and then fails to lock it. */
	if (sqlite3_db_readonly(sq->db, "main") == 1)
		return read_only(sq, err);
	r = sqlite_lock(sq, err);
	if (!r)
		r = query_int(sq, "PRAGMA user_version", &version, err);
	if (!r)
		r = query_int(sq, "PRAGMA application_id", &application, err);
	if (!r)
		r = query_int(sq, "SELECT count(*) FROM sqlite_schema", &tables, err);
	if (!r)
		*ret_kind =
		    (struct sqlite_kind){application, version, !version && !application && !tables};
	return r;
}

int sqlite_check(struct sqlite *sq, struct err *err)
{
	char text[200];
	int r = query_text(sq, "PRAGMA quick_check(1)", text, sizeof(text), err);

	if (!r && strcmp(text, "ok") != 0)
		r = sqlite_damaged(sq, text, err);
	return r;
}

int sqlite_set_modes(struct sqlite *sq, struct err *err)
{
	char text[200];
	int r = query_text(sq, "PRAGMA journal_mode = WAL", text, sizeof(text), err);

	if (!r && strcmp(text, "wal") != 0)
		r = err_set(
		    err, -EIO, "cannot use %s: it stays in journal mode \"%s\"", sq->path, text);
	return r ? r : sqlite_exec(sq, "PRAGMA synchronous = FULL", err);
}

static int prepare(struct sqlite *sq, const char *sql, sqlite3_stmt **ret_stmt, struct err *err)
{
	if (sqlite3_prepare_v3(sq->db, sql, -1, SQLITE_PREPARE_PERSISTENT, ret_stmt, NULL) ==
	    SQLITE_OK)
		return 0;
	/* SQL that worked when the schema was ours: a table or column is missing. */
	if (sqlite3_errcode(sq->db) == SQLITE_ERROR)
		return sqlite_damaged(sq, sqlite3_errmsg(sq->db), err);
	return sqlite_error(sq, err);
}

int sqlite_prepare(struct sqlite *sq, struct err *err)
{
	int r = prepare(sq, "BEGIN IMMEDIATE", &sq->begin, err);

	if (!r)
		r = prepare(sq, "COMMIT", &sq->commit, err);
	if (!r)
		r = prepare(sq, "ROLLBACK", &sq->rollback, err);
	for (unsigned i = 0; !r && i < sq->conf->stmt_count; i++)
		r = prepare(sq, sq->conf->stmts[i], &sq->stmts[i], err);
	return r;
}

/* ---- prepared statements ---- */

void sqlite_bind_int(struct sqlite *sq, unsigned stmt, int idx, int64_t value)
{
	int rc = sqlite3_bind_int64(sq->stmts[stmt], idx, value);

	assert(rc == SQLITE_OK);
}

void sqlite_bind_bytes(struct sqlite *sq, unsigned stmt, int idx, const void *bytes, size_t len)
{
	int rc = sqlite3_bind_blob64(sq->stmts[stmt], idx, bytes, len, SQLITE_STATIC);

	assert(rc == SQLITE_OK);
}

void sqlite_bind_text(struct sqlite *sq, unsigned stmt, int idx, const char *text)
{
	sqlite_bind_bytes(sq, stmt, idx, text, strlen(text));
}

static int step(struct sqlite *sq, sqlite3_stmt *stmt, struct err *err)
{
	int rc = sqlite3_step(stmt);

	if (rc == SQLITE_ROW)
		return 1;
	return rc == SQLITE_DONE ? 0 : sqlite_error(sq, err);
}

static int run(struct sqlite *sq, sqlite3_stmt *stmt, struct err *err)
{
	int r = step(sq, stmt, err);

	sqlite3_reset(stmt);
	sqlite3_clear_bindings(stmt);
	return r;
}

int sqlite_step(struct sqlite *sq, unsigned stmt, struct err *err)
{
	return step(sq, sq->stmts[stmt], err);
}

void sqlite_end(struct sqlite *sq, unsigned stmt)
{
	sqlite3_reset(sq->stmts[stmt]);
	sqlite3_clear_bindings(sq->stmts[stmt]);
}

int sqlite_run(struct sqlite *sq, unsigned stmt, struct err *err)
{
	return run(sq, sq->stmts[stmt], err);
}

/* ---- transactions ---- */

int sqlite_begin(struct sqlite *sq, struct err *err)
{
	return run(sq, sq->begin, err);
}

void sqlite_rollback(struct sqlite *sq)
{
	if (!sqlite3_get_autocommit(sq->db))
		run(sq, sq->rollback, NULL);
}

int sqlite_commit(struct sqlite *sq, struct err *err)
{
	int r = run(sq, sq->commit, err);

	if (r)
		sqlite_rollback(sq);
	return r;
}
