/* SPDX-License-Identifier: Apache-2.0
 *
 * The tables of a cache's index, in SQLite: what core/cache_index.c keeps in DIR/index.db.
 *
 * WAL mode with synchronous=FULL: what a transaction stored is there after a power failure once
 * cache_db_commit has returned 0; a call that fails has changed nothing.  An exclusive lock is held while
 * it is open.  Each row carries a checksum of its own over all of its columns: a row that was
 * changed by a bad disk is found where SQLite's structure checks see nothing.
 *
 * All functions block.  Several threads may use one cache_db; a transaction (begin … commit or rollback)
 * belongs to one thread, others wait.  Codes: -ENOSPC, -EROFS, -EIO, -EBUSY, -ENOMEM and -EUCLEAN
 * (damaged).
 */
#ifndef REMRAM_CORE_CACHE_DB_H
#define REMRAM_CORE_CACHE_DB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

enum {
	INDEX_CHUNK = 256 * 1024, /* bytes */
	INDEX_CHUNK_BLOCKS = 64, /* of STORE_BLOCK bytes */
	INDEX_TEXT_MAX = 4096, /* a setting, with its NUL */
	INDEX_NAME_MAX = 256, /* a region's name, with its NUL */
	INDEX_KEY_MAX = 64, /* an aside entry's name, with its NUL */
};

/* What is known of the blocks of one chunk: bit i is block 64 idx + i. */
struct index_chunk {
	uint64_t idx;
	uint64_t resident;
	uint64_t dirty; /* each of them is resident, too */
};

struct index_row {
	struct index_chunk chunk;
	uint32_t sums[INDEX_CHUNK_BLOCKS]; /* CRC-32C of each resident block */
};

struct index_region {
	uint64_t id;
	uint64_t size; /* bytes */
	uint64_t version; /* at the donor */
	int64_t durability; /* as the caller numbers them; -1: what the mount says */
	bool clean; /* closed cleanly: data and rows agree */
	char name[INDEX_NAME_MAX];
	char order[INDEX_TEXT_MAX]; /* pull order and pins, as the caller writes them */
	char pins[INDEX_TEXT_MAX];
	char aside[INDEX_KEY_MAX]; /* not "": it is being set aside, as that entry */
	char why[INDEX_NAME_MAX]; /* the reason for that */
};

struct cache_db;

/* Opens or creates the database path; *ret_new: it had nothing in it.  -EUCLEAN: it is damaged (SQLite's
 * quick_check, or not ours). */
int cache_db_open(const char *path, struct cache_db **ret_db, bool *ret_new, struct err *err);
/* Opens a damaged one to read what can still be read, changing nothing of it. */
int cache_db_salvage(const char *path, struct cache_db **ret_db, struct err *err);
void cache_db_close(struct cache_db *db);

/* Calls found for each region, by id; whatever it calls must not use db. */
int cache_db_regions(struct cache_db *db,
    void (*found)(void *ctx, const struct index_region *region), void *ctx, struct err *err);
/* -ENOENT: there is none. */
int cache_db_region(
    struct cache_db *db, uint64_t id, struct index_region *ret_region, struct err *err);
/* The rows of a region by idx; free() them.  -EUCLEAN: one of them is damaged; *ret_rows are the others
 * then. */
int cache_db_rows(struct cache_db *db, uint64_t id, struct index_row **ret_rows, size_t *ret_count,
    struct err *err);

/* A transaction. */
int cache_db_begin(struct cache_db *db, struct err *err);
/* Also ends it when it fails: then nothing has happened. */
int cache_db_commit(struct cache_db *db, struct err *err);
void cache_db_rollback(struct cache_db *db);

/* Only in a transaction.  Stores the region, new or known. */
int cache_db_put_region(struct cache_db *db, const struct index_region *region, struct err *err);
/* Stores a row; one without a resident block is deleted. */
int cache_db_put_row(
    struct cache_db *db, uint64_t id, const struct index_row *row, struct err *err);
/* Deletes the region and its rows.  0 if there are none. */
int cache_db_remove(struct cache_db *db, uint64_t id, struct err *err);

#endif
