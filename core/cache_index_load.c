/* SPDX-License-Identifier: Apache-2.0
 *
 * Loading a region: what its rows say, compared with its data, on a worker thread.
 *
 *   no row ─────────────────────────────────────────► made: data file, then row
 *   marked (being set aside, being forgotten) ──────► that is finished ─► made
 *   rows ─► verified ─┬ damage ─► set aside ────────► made
 *                     └ settled: the rest punched, corrections and "open" stored
 *
 * Invariants:
 *   1. Nothing is changed before all has been compared; being cut off anywhere and loading again gives
 *      the same outcome.
 *   2. The row of a region that is open says that it was not closed cleanly.
 *   3. A region's data file is there, stable, before its row: so a row without a file is damage, and
 *      so is a file with data without a row.
 *
 * Locking: none.  Failure: the caller gets the error; nothing was lost.
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cache_index_int.h"
#include "core/rescue.h"

/* One loading, on the worker. */
struct loading {
	struct index_load *load;
	struct cache_index *index;
	struct indexed *ix;
	struct err *err;
	struct index_region region; /* as the index has it */
	struct index_row *rows;
	size_t count;
	bool *changed; /* per row: it is to be stored again */
	uint64_t misfits; /* blocks that do not fit */
	char damage[INDEX_NAME_MAX]; /* what is wrong, or "" */
	bool unknown; /* rows are missing */
	bool region_damaged; /* its own row is: region is what the caller says */
};

/* ---- comparing ---- */

/* Which blocks of a row do not fit, and which can't be read at all. */
static int compare(
    struct loading *ld, struct index_row *row, uint64_t *ret_misfit, uint64_t *ret_unreadable)
{
	uint32_t *sums = ld->ix->rows[0].sums;
	uint64_t misfit = 0, unreadable = 0, mask = row->chunk.resident;
	int rc = cache_data_sums(ld->ix->fd, row->chunk.idx, mask, ld->ix->buf, sums);

	/* Block by block, then: which is it? */
	for (uint64_t left = rc == -EIO ? mask : 0; left; left &= left - 1) {
		uint64_t bit = left & -left;

		rc = cache_data_sums(ld->ix->fd, row->chunk.idx, bit, ld->ix->buf, sums);
		if (rc == -EIO)
			unreadable |= bit;
		else if (rc)
			return rc;
	}
	if (rc && rc != -EIO)
		return rc;
	for (uint64_t left = mask & ~unreadable; left; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctzll(left);

		if (sums[i] == row->sums[i])
			continue;
		misfit |= left & -left;
		row->sums[i] = sums[i];
	}
	*ret_misfit = misfit;
	*ret_unreadable = unreadable;
	return 0;
}

/* Compares all rows with the data.  After an unclean end it corrects the rows in memory. */
static int verify(struct loading *ld)
{
	for (size_t i = 0; i < ld->count; i++) {
		struct index_chunk *chunk = &ld->rows[i].chunk;
		struct index_row as_it_was = ld->rows[i];
		uint64_t misfit = 0, unreadable = 0, dropped;
		int rc = compare(ld, &ld->rows[i], &misfit, &unreadable);

		if (rc)
			return err_sys(
			    ld->err, rc, "cannot read the cached data of \"%s\"", ld->region.name);
		ld->misfits += (unsigned)__builtin_popcountll(misfit | unreadable);
		if (ld->region.clean || (unreadable & chunk->dirty)) {
			/* What is set aside is as it was. */
			ld->rows[i] = as_it_was;
			if (unreadable & chunk->dirty)
				snprintf(ld->damage, sizeof(ld->damage),
				    "data of its cache can't be read");
			continue;
		}
		dropped = (misfit | unreadable) & ~chunk->dirty;
		ld->load->newer += (unsigned)__builtin_popcountll(misfit & chunk->dirty);
		ld->load->dropped += (unsigned)__builtin_popcountll(dropped);
		chunk->resident &= ~dropped;
		ld->changed[i] = misfit || unreadable;
	}
	if (ld->region.clean && ld->misfits && !ld->damage[0])
		snprintf(ld->damage, sizeof(ld->damage),
		    "%llu blocks of its cache have changed since it was closed cleanly",
		    (unsigned long long)ld->misfits);
	return 0;
}

/* ---- settling ---- */

static int settle_rows(struct loading *ld)
{
	struct cache_db *db = ld->index->db;
	int rc = cache_db_begin(db, ld->err);

	if (rc)
		return rc;
	rc = cache_db_put_region(db, &ld->region, ld->err);
	for (size_t i = 0; i < ld->count && rc == 0; i++)
		if (ld->changed[i])
			rc = cache_db_put_row(db, ld->region.id, &ld->rows[i], ld->err);
	if (rc) {
		cache_db_rollback(db);
		return rc;
	}
	return cache_db_commit(db, ld->err);
}

/* The chunks that have blocks, for the caller. */
static int give_chunks(struct loading *ld)
{
	struct index_load *load = ld->load;

	load->chunks = calloc(ld->count ? ld->count : 1, sizeof(*load->chunks));
	if (!load->chunks)
		return err_set(ld->err, -ENOMEM, "out of memory for a cache's index");
	for (size_t i = 0; i < ld->count; i++)
		if (ld->rows[i].chunk.resident)
			load->chunks[load->count++] = ld->rows[i].chunk;
	return 0;
}

static int settle(struct loading *ld)
{
	bool clean = ld->region.clean;
	uint64_t punched = 0;
	int rc = cache_data_punch_rest(ld->ix->fd, ld->rows, ld->count, &punched);

	if (rc)
		return err_sys(ld->err, rc, "cannot give back data of \"%s\" that is not indexed",
		    ld->region.name);
	index_step(ld->index, INDEX_STEP_PUNCHED);
	ld->load->dropped += punched;
	/* Blocks that are newer than their rows may not be on disk yet. */
	rc = clean ? 0 : cache_data_sync(ld->ix->fd);
	if (rc)
		return err_sys(
		    ld->err, rc, "cannot write the cached data of \"%s\"", ld->region.name);
	rc = give_chunks(ld);
	if (rc)
		return rc;
	ld->region.clean = false;
	rc = settle_rows(ld);
	if (rc)
		return rc;
	index_step(ld->index, INDEX_STEP_SETTLED);
	ld->load->found = clean ? INDEX_CLEAN : INDEX_UNCLEAN;
	if (!clean)
		log_info("cache=%s: \"%s\" was not closed cleanly: %llu blocks are newer than the "
			 "index, %llu were dropped",
		    cache_dir_path(ld->index->dir), ld->region.name,
		    (unsigned long long)ld->load->newer, (unsigned long long)ld->load->dropped);
	return 0;
}

/* ---- the ways ---- */

static int set_aside(struct loading *ld)
{
	int rc = index_set_aside(
	    ld->index, &ld->region, ld->damage, ld->rows, ld->count, ld->unknown, ld->err);

	if (rc == 0)
		snprintf(ld->load->aside, sizeof(ld->load->aside), "%s", ld->region.aside);
	if (ld->ix->fd >= 0)
		close(ld->ix->fd);
	ld->ix->fd = -1;
	return rc;
}

/* A region that the index does not know: file, then row. */
static int make(struct loading *ld)
{
	struct stat st;
	int rc;

	ld->region = ld->load->region;
	ld->region.clean = false;
	ld->region.aside[0] = ld->region.why[0] = '\0';
	for (;;) {
		rc = cache_dir_data_open(ld->index->dir, ld->region.id, true, &ld->ix->fd, ld->err);
		if (rc)
			return rc;
		if (fstat(ld->ix->fd, &st))
			return err_sys(ld->err, -errno, "cannot look at a data file");
		if (st.st_size == 0)
			break;
		/* Whose it is nobody knows (invariant 3). */
		snprintf(ld->damage, sizeof(ld->damage), "its data is not in the cache's index");
		ld->unknown = true;
		ld->count = 0;
		rc = set_aside(ld);
		if (rc)
			return rc;
		ld->region.aside[0] = ld->region.why[0] = '\0';
	}
	ld->count = 0;
	rc = give_chunks(ld);
	if (rc == 0)
		rc = settle_rows(ld);
	if (rc == 0)
		index_step(ld->index, INDEX_STEP_SETTLED);
	ld->load->found = INDEX_NEW;
	return rc;
}

/* Rows → verified → settled, or set aside and made anew. */
static int load_known(struct loading *ld)
{
	int rc = cache_dir_data_open(ld->index->dir, ld->region.id, false, &ld->ix->fd, ld->err);

	if (rc == -ENOENT)
		snprintf(ld->damage, sizeof(ld->damage), "the data file of its cache is missing");
	else if (rc)
		return rc;
	else if (!ld->damage[0]) {
		rc = verify(ld);
		if (rc)
			return rc;
		index_step(ld->index, INDEX_STEP_VERIFIED);
	}
	if (!ld->damage[0])
		return settle(ld);
	rc = set_aside(ld);
	return rc ? rc : make(ld);
}

/* What was being done when we were cut off. */
static int finish_marked(struct loading *ld)
{
	int rc;

	if (strcmp(ld->region.aside, INDEX_FORGETTING) == 0)
		rc = index_forget(ld->index, ld->region.id, ld->err);
	else
		rc = set_aside(ld);
	return rc ? rc : make(ld);
}

/* What the index has of the region.  SQLite says "malformed" also when a read failed once, so damage is
 * damage only when it is there a second time. */
static int read_rows(struct loading *ld)
{
	uint64_t id = ld->load->region.id;
	int rc = 0;

	for (unsigned i = 0; i < 2; i++) {
		free(ld->rows);
		ld->rows = NULL;
		ld->count = 0;
		rc = cache_db_region(ld->index->db, id, &ld->region, ld->err);
		ld->region_damaged = rc == -EUCLEAN;
		if (rc && rc != -EUCLEAN)
			return rc;
		rc = cache_db_rows(ld->index->db, id, &ld->rows, &ld->count, ld->err);
		ld->unknown = ld->region_damaged || rc == -EUCLEAN;
		if (!ld->unknown)
			return rc;
	}
	return rc == -EUCLEAN ? 0 : rc;
}

static int load_region(struct loading *ld)
{
	int rc = read_rows(ld);

	if (rc == -ENOENT)
		return make(ld);
	if (rc)
		return rc;
	if (ld->region_damaged)
		ld->region = ld->load->region;
	if (ld->unknown)
		snprintf(ld->damage, sizeof(ld->damage), "%s",
		    ld->region_damaged ? "its row in the index is damaged"
				       : "rows of it in the index are damaged");
	index_step(ld->index, INDEX_STEP_LOADED);
	if (!ld->region_damaged && ld->region.aside[0])
		return finish_marked(ld);
	ld->changed = calloc(ld->count ? ld->count : 1, sizeof(*ld->changed));
	if (!ld->changed)
		return err_set(ld->err, -ENOMEM, "out of memory for a cache's index");
	return load_known(ld);
}

/* With memory for it: the region, open, or nothing left behind. */
static int load_open(struct index_load *load, struct loading *ld, struct indexed *ix)
{
	int rc;

	ix->index = load->index;
	ix->fd = -1;
	ix->tail = &ix->waiting;
	ld->load = load;
	ld->index = load->index;
	ld->ix = ix;
	ld->err = &load->err;
	rc = load_region(ld);
	free(ld->rows);
	free(ld->changed);
	if (rc) {
		if (ix->fd >= 0)
			close(ix->fd);
		free(load->chunks);
		load->chunks = NULL;
		return rc;
	}
	ix->region = ix->next = load->region = ld->region;
	load->indexed = ix;
	return 0;
}

static void load_run(struct work *work)
{
	struct index_load *load =
	    (struct index_load *)((char *)work - offsetof(struct index_load, work));
	struct loading *ld = calloc(1, sizeof(*ld));
	struct indexed *ix = calloc(1, sizeof(*ix));

	if (ld && ix)
		load->rc = load_open(load, ld, ix);
	else
		load->rc = err_set(&load->err, -ENOMEM, "out of memory for a cache's index");
	if (load->rc)
		free(ix);
	free(ld);
}

static void load_done(struct work *work)
{
	struct index_load *load =
	    (struct index_load *)((char *)work - offsetof(struct index_load, work));

	if (load->rc)
		load->index->open--;
	load->done(load, load->rc);
}

void cache_index_load(struct index_load *load)
{
	load->indexed = NULL;
	load->chunks = NULL;
	load->count = 0;
	load->dropped = load->newer = 0;
	load->aside[0] = '\0';
	load->err = (struct err){0};
	load->index->open++;
	load->work.run = load_run;
	load->work.done = load_done;
	workers_submit(load->index->loader, &load->work);
}
