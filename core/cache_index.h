/* SPDX-License-Identifier: Apache-2.0
 *
 * The index of a cache that survives: which blocks of each region are in their data file, which of
 * these are dirty, and what each should read as.
 *
 * Per chunk of INDEX_CHUNK bytes a row: resident and dirty bitmaps, and the CRC-32C of each resident
 * block; per region a row: id, name, size, version at the donor, settings, and whether it was closed
 * cleanly.  In SQLite (core/cache_db.h).
 *
 * The life of a region here, all on one loop:
 *   cache_index_load → indexed_start → (indexed_describe, indexed_commit)* → one of the four ends
 * and its store (cache_dir_store) is opened after load and destroyed before the end.
 *
 * What a commit is: fdatasync of the data file; checksums of the blocks that the changed chunks call
 * resident; on the loop, once more, the state of these chunks; then one transaction.  So a row never
 * tells of data that is not on disk, and a checksum never vouches for bytes that a write has changed
 * meanwhile.
 *
 * What loading does:
 *   closed cleanly     each block must fit its checksum.  If one does not, the disk has lied: the region
 *                      is set aside (core/rescue.h) and begins empty.
 *   not closed         a block that does not fit was written after the last commit.  Dirty: what is there
 *                      is newer, it stays and is dirty.  Clean: it is dropped.
 *   always             data of blocks that no row calls resident is punched.  A row that doesn't fit its own
 *                      checksum, a missing data file, a dirty block that can't be read: damage, the
 *                      region is set aside.
 *
 * What this needs of whoever has the cache (rules with a reason each):
 *   1. A chunk is reported as changed (take) after each change of its bitmaps and of the bytes of its
 *      blocks, and until the commit that took it has succeeded (give_back).
 *   2. A block that was dirty is not punched by an eviction, and not filled from the donor again, before
 *      a commit has stored it as clean.  Otherwise a crash finds it dirty with other bytes, takes them for
 *      newer ones, and pushes zeros.
 *   3. A block is not pushed before a commit has stored its last write, or the FLUSH that promises it to
 *      somebody ends with a commit.  Otherwise a power failure can bring back the bytes before that
 *      write, which fit their row, over what the donor has.
 * Rule 3's second half is what durability=remote needs at least; the first half also keeps writes that
 * nobody flushed from going back in time at the donor.
 * core/cache.h keeps all three, the first half of rule 3 among them.
 *
 * Threads: cache_index_open, close and list block (set-up code).  Everything else on the loop; nothing
 * there blocks: files and SQLite are used on three threads of the index's own, which start in
 * cache_index_open; one of them loads, so that commits do not wait while a region is verified.  A commit
 * allocates nothing.
 */
#ifndef REMRAM_CORE_CACHE_INDEX_H
#define REMRAM_CORE_CACHE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/cache_db.h"
#include "core/cache_dir.h"
#include "core/err.h"

struct cache_index;
struct indexed; /* a region that is open in the index */

/* Where a test may look in, or kill the process: called with the conf's ctx on the thread that does the
 * work, right after what the name says. */
enum index_step {
	INDEX_STEP_LOADED, /* load: the rows were read */
	INDEX_STEP_VERIFIED, /* load: compared with the data, nothing changed yet */
	INDEX_STEP_PUNCHED, /* load: what is not resident was punched */
	INDEX_STEP_SETTLED, /* load: the rows say what is true, and that the region is open */
	INDEX_STEP_SYNCED, /* commit: the data file */
	INDEX_STEP_SUMMED, /* commit: checksums computed */
	INDEX_STEP_STORED, /* commit: rows written, not committed */
	INDEX_STEP_COMMITTED, /* commit: the transaction */
	INDEX_STEP_CLOSED, /* the region is noted as closed cleanly */
	INDEX_STEP_MARKED, /* setting aside: noted in the index */
	INDEX_STEP_KEPT, /* setting aside: the entry is whole */
	INDEX_STEP_FORGOTTEN, /* setting aside, forgetting: the rows are gone */
	INDEX_STEPS
};

struct cache_index_conf {
	struct cache_dir *dir; /* kept */
	void (*step)(void *ctx, enum index_step step); /* optional: tests */
	void *ctx;
};

/* Opens DIR/index.db.  If it is damaged, or missing though there are data files, all of it is set aside
 * with a message in the log, and the index begins empty: that is no error.  -EUCLEAN never comes out. */
int cache_index_open(
    const struct cache_index_conf *conf, struct cache_index **ret_index, struct err *err);
/* No region is open.  NULL does nothing. */
void cache_index_close(struct cache_index *index);

/* Calls found for each region that the index knows; not while regions are being loaded or ended. */
int cache_index_list(struct cache_index *index,
    void (*found)(void *ctx, const struct index_region *region), void *ctx, struct err *err);

/* ---- loading ---- */

enum index_found {
	INDEX_NEW, /* nothing was here, or it was set aside just now */
	INDEX_CLEAN, /* as it was closed */
	INDEX_UNCLEAN, /* after a crash; verified */
};

/* Embedded in the caller; untouched by it from cache_index_load to done. */
struct index_load {
	/* Set by the caller. */
	struct cache_index *index;
	struct index_region region; /* id and, for a new one, what to note of it */
	void (*done)(struct index_load *load, int err);

	/* Results, valid in done when err is 0; with an error only `err`. */
	struct indexed *indexed; /* owned */
	enum index_found found;
	/* region is what was noted last (not for a new one).  Which blocks there are, by idx; free() it: */
	struct index_chunk *chunks;
	size_t count;
	uint64_t dropped; /* blocks that were clean and not as noted, or in no row */
	uint64_t newer; /* dirty blocks that were written after the last commit */
	char aside[INDEX_KEY_MAX]; /* what was set aside, or "" */
	struct err err;

	/* Private. */
	struct work work;
	int rc;
};

/* Opens the region with load->region.id, and makes its data file if it is new.  Fails (-ENOSPC, -EIO,
 * -EROFS, …) without having lost anything; not for damage. */
void cache_index_load(struct index_load *load);

/* ---- committing ---- */

struct indexed_ops {
	/* Takes up to max chunks that have changed, with their state; how many: less than max means that
	 * this was all.  A cursor goes round, so that writers who are busy in one place do not keep the
	 * rest from being taken: a commit stops when it has taken twice as many as the region has. */
	unsigned (*take)(void *ctx, struct index_chunk *chunks, unsigned max);
	/* The state of chunk->idx now.  dirty: also blocks with a write in flight in the data file.
	 * resident: without blocks that are being evicted or fetched.  NULL: nothing changes while a
	 * commit is under way. */
	void (*state)(void *ctx, struct index_chunk *chunk);
	/* These were taken and could not be stored: they count as changed. */
	void (*give_back)(void *ctx, const struct index_chunk *chunks, unsigned count);
	/* These were taken, and this is what a transaction has stored of them.  Each chunk that was taken is
	 * stored or given back before more are taken.  NULL: nobody wants to know. */
	void (*stored)(void *ctx, const struct index_chunk *chunks, unsigned count);
};

/* Asks for something whose end done tells, on the loop, perhaps before the asking function returns.
 * Embedded in the caller. */
struct index_call {
	void (*done)(struct index_call *call, int err);
	struct index_call *next; /* private */
};

/* Before the first commit.  Keeps ops and ctx. */
void indexed_start(struct indexed *indexed, const struct indexed_ops *ops, void *ctx);

/* What the next commit notes of the region (all but clean, aside and why; id as it is); nothing, if that is
 * what was described last. */
void indexed_describe(struct indexed *indexed, const struct index_region *region);

/* Makes all that has changed so far stable, data and index.  One commit is under way at a time; calls that
 * come meanwhile are served together by the next.  Costs nothing if nothing has changed.  -ENOSPC, -EIO:
 * the last commit is as it was, the chunks have been given back, and a later call tries again; but once a
 * sync of the data file has failed, what is in it is not known any more, and every later call fails
 * with the same error (DESIGN: a sticky FAILED).  The log has the reason. */
void indexed_commit(struct indexed *indexed, struct index_call *call);

/* ---- ends: indexed is gone when done is called with 0 ---- */

/* Commits and notes that the region was closed cleanly; nothing is in flight in its store, nothing will
 * come.  With an error it is closed all the same, but not cleanly. */
void indexed_close(struct indexed *indexed, struct index_call *call);
/* Closes it as it is, not cleanly, without a commit. */
void indexed_abandon(struct indexed *indexed, struct index_call *call);
/* Commits, and keeps data and index aside: it must not be pushed (`why`, a part of a sentence, is noted and
 * logged), and the region begins empty the next time.  With an error it stays open. */
void indexed_set_aside(struct indexed *indexed, const char *why, struct index_call *call);
/* Deletes data and rows: the region is gone, or nobody wants what is cached of it.  With an error it stays
 * open. */
void indexed_forget(struct indexed *indexed, struct index_call *call);

#endif
