/* SPDX-License-Identifier: Apache-2.0
 *
 * A database file in SQLite that this process alone has open, and its prepared statements: what core/catalogue.c
 * and core/cache_db.c do alike.
 *
 * WAL mode with synchronous=FULL: what a transaction stored is there after a power failure once sqlite_commit
 * has returned 0; a call that fails has changed nothing, and the next one works as if it had not been made.
 * An exclusive lock is held from sqlite_identify to sqlite_close.
 *
 * Order of calls: sqlite_open, sqlite_identify, sqlite_check (of one that is not new), sqlite_set_modes, the owner's
 * schema, sqlite_prepare; then the rest.  sqlite_close after any of them, also one that failed.
 *
 * Codes: -ENOSPC, -EROFS, -EIO, -EBUSY (another process has it), -EACCES, -ENOMEM, -E2BIG and -EUCLEAN (damaged);
 * and refused's.  All functions block; one thread at a time.
 */
#ifndef REMRAM_CORE_SQLITE_H
#define REMRAM_CORE_SQLITE_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

enum { SQL_STMTS_MAX = 16 };

struct sqlite;

/* Constant: kept. */
struct sqlite_conf {
	const char *const *stmts; /* SQL, prepared by sqlite_prepare; known by their index */
	unsigned stmt_count; /* ≤ SQL_STMTS_MAX */
	/* What people shall do, as the end of a message ("": nobody knows). */
	const char *busy_hint, *damage_hint;
	/* Sets the error for a constraint that a change would have broken; rc is SQLite's extended code.
	 * NULL: only damage can lead there. */
	int (*refused)(const struct sqlite *sq, int rc, struct err *err);
};

/* Embedded in the owner, which has set it to zeros. */
struct sqlite {
	const struct sqlite_conf *conf;
	const char *path;
	sqlite3 *db; /* NULL: not open */
	sqlite3_stmt *stmts[SQL_STMTS_MAX];
	sqlite3_stmt *begin, *commit, *rollback;
};

/* Opens the file, which exists (it may be empty).  Keeps conf and path. */
int sqlite_open(
    struct sqlite *sq, const struct sqlite_conf *conf, const char *path, struct err *err);
void sqlite_close(struct sqlite *sq);

/* What kind of file it is. */
struct sqlite_kind {
	int application, version; /* application_id, user_version */
	bool is_new; /* nothing is in it */
};

/* Takes the lock, and looks.  -EROFS: it cannot be written to. */
int sqlite_identify(struct sqlite *sq, struct sqlite_kind *ret_kind, struct err *err);
/* Only takes the lock. */
int sqlite_lock(struct sqlite *sq, struct err *err);
/* SQLite's quick_check. */
int sqlite_check(struct sqlite *sq, struct err *err);
int sqlite_set_modes(struct sqlite *sq, struct err *err);
/* A statement that does not fit the tables is damage: they were the owner's. */
int sqlite_prepare(struct sqlite *sq, struct err *err);

/* Sets the error of the SQLite call that has just failed, and returns it. */
int sqlite_error(const struct sqlite *sq, struct err *err);
/* The file is damaged, because of `how`: -EUCLEAN. */
int sqlite_damaged(const struct sqlite *sq, const char *how, struct err *err);

/* Runs SQL that gives no rows. */
int sqlite_exec(struct sqlite *sq, const char *sql, struct err *err);

/* ---- prepared statements: bind, then step until there is no row, then end; or bind, then run ---- */

void sqlite_bind_int(struct sqlite *sq, unsigned stmt, int idx, int64_t value);
/* The bytes (not NULL, even if there are none) are borrowed until the statement ends. */
void sqlite_bind_bytes(struct sqlite *sq, unsigned stmt, int idx, const void *bytes, size_t len);
/* The same for text, as bytes without its NUL. */
void sqlite_bind_text(struct sqlite *sq, unsigned stmt, int idx, const char *text);

/* 1 if there is a row, whose values are valid until the next step or end; 0 if it is done; or -errno. */
int sqlite_step(struct sqlite *sq, unsigned stmt, struct err *err);
void sqlite_end(struct sqlite *sq, unsigned stmt);
/* Runs one that gives no rows (1 if it gives one), and ends it. */
int sqlite_run(struct sqlite *sq, unsigned stmt, struct err *err);

/* ---- transactions ---- */

int sqlite_begin(struct sqlite *sq, struct err *err);
/* Also ends it when it fails: then nothing has happened. */
int sqlite_commit(struct sqlite *sq, struct err *err);
/* Nothing, if there is none: some errors roll back. */
void sqlite_rollback(struct sqlite *sq);

#endif
