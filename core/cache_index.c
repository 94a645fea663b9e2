/* SPDX-License-Identifier: Apache-2.0
 *
 * The index of a cache: opening it, commits, and the ends of a region's time in it.  Loading is in
 * core/cache_index_load.c, setting aside in core/cache_index_aside.c.
 *
 * A region's states; loop and worker take turns, so that nothing is locked:
 *
 *   IDLE ── commit_begin: callers that wait become those served, chunks are taken ──► SUMMING
 *   SUMMING ── worker: fdatasync, checksums; loop: sums_done asks for the state again ──► STORING
 *   STORING ── worker: one transaction; loop: store_done
 *                ├ more had changed (a batch was full) ──► SUMMING
 *                └ commit_end: those served are told ──► IDLE, and perhaps at once the next
 *   IDLE ── end_begin, when nobody waits any more ──► ENDING ── end_done ──► gone, or IDLE
 *
 * Invariants:
 *   1. `serving` is empty in IDLE and ENDING.  A caller is served by a commit whose first take came after
 *      its call.
 *   2. A block is stored as resident only if it was resident when the chunk was taken (its checksum was
 *      computed) and still is now; as clean only if it is clean now and nobody is writing it: a
 *      later write does not fit the checksum, so a crash shows it.
 *   3. What was taken is stored, or given back, and whoever has the cache is told which.
 *   4. A commit ends: it takes at most twice as many chunks as the region has, and one batch.
 *
 * Locking: none here; core/cache_db.h has its own.
 * Failure: the first error ends a commit; each transaction is whole or has not happened.  A failed sync
 * of the data stays in `lost`: the kernel tells it once and drops the pages.
 */
#include "core/cache_index.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cache_data.h"
#include "core/cache_index_int.h"
#include "core/log.h"
#include "core/workers.h"

enum { INDEX_THREADS = 2 };

void index_step(struct cache_index *index, enum index_step step)
{
	if (index->conf.step)
		index->conf.step(index->conf.ctx, step);
}

static struct indexed *of_work(struct work *work)
{
	return (struct indexed *)((char *)work - offsetof(struct indexed, work));
}

static void run(struct indexed *ix, enum indexed_state state, void (*fn)(struct work *work),
    void (*done)(struct work *work))
{
	ix->state = state;
	ix->work.run = fn;
	ix->work.done = done;
	workers_submit(ix->index->workers, &ix->work);
}

/* ---- opening ---- */

static void any_data(void *ctx, uint64_t id)
{
	*(bool *)ctx = true;
}

/* A new index beside data of regions: the old one was lost. */
static int check_lost(struct cache_index *index, bool is_new, bool *ret_lost, struct err *err)
{
	*ret_lost = false;
	if (!is_new)
		return 0;
	if (fsync(cache_dir_fd(index->dir, CACHE_DIR_TOP)))
		return err_sys(err, -errno, "cache=%s: cannot make its index stable",
		    cache_dir_path(index->dir));
	return cache_dir_data_list(index->dir, any_data, ret_lost, err);
}

/* Whether a file of DIR can be read to its end; one that is not there can. */
static int check_readable(struct cache_index *index, const char *name, struct err *err)
{
	int fd = openat(
	    cache_dir_fd(index->dir, CACHE_DIR_TOP), name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint8_t buf[16384];
	struct stat st = {0};
	int rc = 0;

	if (fd < 0)
		return errno == ENOENT ? 0 : err_sys(err, -errno, "cannot open %s", name);
	if (fstat(fd, &st))
		rc = -errno;
	for (off_t off = 0; rc == 0 && off < st.st_size; off += (off_t)sizeof(buf))
		rc = cache_data_read(fd, buf, sizeof(buf), (uint64_t)off);
	close(fd);
	return rc ? err_sys(err, rc, "cache=%s: cannot read %s", cache_dir_path(index->dir), name)
		  : 0;
}

/* SQLite says "malformed" also of what it could not read: that is an error, not damage. */
static int open_or_damaged(
    struct cache_index *index, const char *path, bool *ret_new, struct err *err)
{
	int rc = cache_db_open(path, &index->db, ret_new, err);

	if (rc != -EUCLEAN)
		return rc;
	rc = check_readable(index, INDEX_FILE, err);
	if (rc == 0)
		rc = check_readable(index, INDEX_FILE "-wal", err);
	return rc ? rc : cache_db_open(path, &index->db, ret_new, err);
}

static int open_db(struct cache_index *index, struct err *err)
{
	char path[PATH_MAX + 16];
	bool is_new = false, lost = false;
	int rc;

	snprintf(path, sizeof(path), "%s/" INDEX_FILE, cache_dir_path(index->dir));
	rc = open_or_damaged(index, path, &is_new, err);
	if (rc == 0)
		rc = check_lost(index, is_new, &lost, err);
	if (rc == 0 && lost)
		rc = err_set(err, -EUCLEAN, "%s was missing", path);
	if (rc != -EUCLEAN)
		return rc;
	cache_db_close(index->db);
	index->db = NULL;
	rc = index_set_all_aside(index, err->text, err);
	if (rc == 0)
		rc = cache_db_open(path, &index->db, &is_new, err);
	return rc == 0 ? check_lost(index, is_new, &lost, err) : rc;
}

int cache_index_open(
    const struct cache_index_conf *conf, struct cache_index **ret_index, struct err *err)
{
	struct cache_index *index = calloc(1, sizeof(*index));
	struct err own;
	int rc;

	if (!index)
		return err_set(err, -ENOMEM, "out of memory for a cache's index");
	index->conf = *conf;
	index->dir = conf->dir;
	rc = open_db(index, err ? err : &own);
	if (rc == 0)
		rc = workers_create(INDEX_THREADS, &index->workers, err);
	if (rc == 0)
		rc = workers_create(1, &index->loader, err);
	if (rc) {
		cache_index_close(index);
		return rc;
	}
	*ret_index = index;
	return 0;
}

void cache_index_close(struct cache_index *index)
{
	if (!index)
		return;
	assert(index->open == 0);
	workers_destroy(index->loader);
	workers_destroy(index->workers);
	cache_db_close(index->db);
	free(index);
}

int cache_index_list(struct cache_index *index,
    void (*found)(void *ctx, const struct index_region *region), void *ctx, struct err *err)
{
	return cache_db_regions(index->db, found, ctx, err);
}

/* ---- a commit ---- */

static void commit_begin(struct indexed *ix);
static void end_begin(struct indexed *ix);

static void call_all(struct index_call *calls, int err)
{
	while (calls) {
		struct index_call *next = calls->next;

		calls->done(calls, err);
		calls = next;
	}
}

/* What comes after a commit: the next one, or the end. */
static void go_on(struct indexed *ix)
{
	if (ix->state != INDEXED_IDLE)
		return;
	if (ix->waiting)
		commit_begin(ix);
	else if (ix->end && !ix->end_committing)
		end_begin(ix);
}

static void commit_end(struct indexed *ix, int rc)
{
	struct index_call *served = ix->serving;

	if (rc && log_allowed(&ix->limit))
		log_error("cache=%s: \"%s\": cannot commit: %s", cache_dir_path(ix->index->dir),
		    ix->region.name, ix->err.text);
	ix->serving = NULL;
	ix->state = INDEXED_IDLE;
	/* The next one begins first: a caller may end the region. */
	go_on(ix);
	call_all(served, rc);
}

/* Worker: the data is on disk, then the checksums of what is in it. */
static void sums_run(struct work *work)
{
	struct indexed *ix = of_work(work);

	ix->rc = ix->lost ? ix->lost : cache_data_sync(ix->fd);
	if (ix->rc) {
		ix->lost = ix->rc;
		err_sys(&ix->err, ix->rc, "a write to its data file was lost");
		return;
	}
	index_step(ix->index, INDEX_STEP_SYNCED);
	for (unsigned i = 0; i < ix->count && ix->rc == 0; i++)
		ix->rc = cache_data_sums(
		    ix->fd, ix->chunks[i].idx, ix->chunks[i].resident, ix->buf, ix->rows[i].sums);
	if (ix->rc)
		err_sys(&ix->err, ix->rc, "cannot read its data file");
	index_step(ix->index, INDEX_STEP_SUMMED);
}

/* Worker: one transaction. */
static void store_run(struct work *work)
{
	struct indexed *ix = of_work(work);
	struct cache_db *db = ix->index->db;

	ix->rc = cache_db_begin(db, &ix->err);
	if (ix->rc)
		return;
	if (ix->put_region)
		ix->rc = cache_db_put_region(db, &ix->region, &ix->err);
	for (unsigned i = 0; i < ix->count && ix->rc == 0; i++)
		ix->rc = cache_db_put_row(db, ix->region.id, &ix->rows[i], &ix->err);
	if (ix->rc) {
		cache_db_rollback(db);
		return;
	}
	index_step(ix->index, INDEX_STEP_STORED);
	ix->rc = cache_db_commit(db, &ix->err);
	if (ix->rc == 0)
		index_step(ix->index, INDEX_STEP_COMMITTED);
}

static void round_begin(struct indexed *ix);

static void round_failed(struct indexed *ix)
{
	ix->described |= ix->put_region;
	if (ix->count)
		ix->ops->give_back(ix->ctx, ix->chunks, ix->count);
	commit_end(ix, ix->rc);
}

static void round_stored(struct indexed *ix)
{
	for (unsigned i = 0; i < ix->count; i++)
		ix->chunks[i] = ix->rows[i].chunk;
	if (ix->count && ix->ops->stored)
		ix->ops->stored(ix->ctx, ix->chunks, ix->count);
}

static void store_done(struct work *work)
{
	struct indexed *ix = of_work(work);

	if (ix->rc) {
		round_failed(ix);
		return;
	}
	round_stored(ix);
	if (ix->count == INDEX_BATCH && ix->taken < ix->rounds_end)
		round_begin(ix);
	else
		commit_end(ix, 0);
}

/* Invariant 2. */
static void sums_done(struct work *work)
{
	struct indexed *ix = of_work(work);

	if (ix->rc) {
		round_failed(ix);
		return;
	}
	for (unsigned i = 0; i < ix->count; i++) {
		struct index_chunk now = ix->chunks[i];

		if (ix->ops->state)
			ix->ops->state(ix->ctx, &now);
		now.resident &= ix->chunks[i].resident;
		now.dirty &= now.resident;
		ix->rows[i].chunk = now;
	}
	run(ix, INDEXED_STORING, store_run, store_done);
}

static void round_begin(struct indexed *ix)
{
	ix->count = ix->ops ? ix->ops->take(ix->ctx, ix->chunks, INDEX_BATCH) : 0;
	ix->taken += ix->count;
	ix->put_region = ix->described;
	if (ix->described) {
		ix->described = false;
		ix->region = ix->next;
	}
	if (ix->count || ix->put_region)
		run(ix, INDEXED_SUMMING, sums_run, sums_done);
	else if (ix->lost) {
		err_sys(&ix->err, ix->lost, "a write to its data file was lost");
		commit_end(ix, ix->lost);
	} else {
		commit_end(ix, 0);
	}
}

static void commit_begin(struct indexed *ix)
{
	ix->serving = ix->waiting;
	ix->waiting = NULL;
	ix->tail = &ix->waiting;
	ix->taken = 0;
	ix->rounds_end = 2 * (ix->next.size / INDEX_CHUNK + 1);
	round_begin(ix);
}

void indexed_start(struct indexed *indexed, const struct indexed_ops *ops, void *ctx)
{
	indexed->ops = ops;
	indexed->ctx = ctx;
}

static bool says_the_same(const struct index_region *a, const struct index_region *b)
{
	return a->size == b->size && a->version == b->version && a->durability == b->durability &&
	       strcmp(a->name, b->name) == 0 && strcmp(a->order, b->order) == 0 &&
	       strcmp(a->pins, b->pins) == 0;
}

void indexed_describe(struct indexed *ix, const struct index_region *region)
{
	if (says_the_same(&ix->next, region))
		return;
	ix->next = *region;
	ix->next.id = ix->region.id;
	ix->next.clean = false;
	ix->next.aside[0] = ix->next.why[0] = '\0';
	ix->described = true;
}

void indexed_commit(struct indexed *ix, struct index_call *call)
{
	call->next = NULL;
	*ix->tail = call;
	ix->tail = &call->next;
	go_on(ix);
}

/* ---- ends ---- */

static void indexed_free(struct indexed *ix)
{
	ix->index->open--;
	close(ix->fd);
	free(ix);
}

static void end_done(struct work *work)
{
	struct indexed *ix = of_work(work);
	struct index_call *call = ix->end;
	int rc = ix->rc;

	ix->end = NULL;
	ix->state = INDEXED_IDLE;
	if (rc && log_allowed(&ix->limit))
		log_error("cache=%s: \"%s\": %s", cache_dir_path(ix->index->dir), ix->region.name,
		    ix->err.text);
	if (rc == 0 || ix->end_frees)
		indexed_free(ix);
	call->done(call, rc);
}

/* The end's own commit: it goes on, or ends with its error. */
static void end_committed(struct index_call *call, int err)
{
	struct indexed *ix =
	    (struct indexed *)((char *)call - offsetof(struct indexed, end_commit));

	ix->end_committing = false;
	if (err) {
		ix->rc = err;
		end_done(&ix->work);
	} else {
		go_on(ix);
	}
}

/* Nobody waits: commits once more if this end wants it, then does the last step. */
static void end_begin(struct indexed *ix)
{
	if (ix->end_commits) {
		ix->end_commits = false;
		ix->end_committing = true;
		ix->end_commit.done = end_committed;
		indexed_commit(ix, &ix->end_commit);
		return;
	}
	run(ix, INDEXED_ENDING, ix->end_run, end_done);
}

static void end(struct indexed *ix, struct index_call *call, void (*fn)(struct work *work),
    bool commits, bool frees)
{
	assert(!ix->end);
	ix->end = call;
	ix->end_run = fn;
	ix->end_commits = commits;
	ix->end_frees = frees;
	go_on(ix);
}

static void close_run(struct work *work)
{
	struct indexed *ix = of_work(work);
	struct cache_db *db = ix->index->db;

	ix->region.clean = true;
	ix->rc = cache_db_begin(db, &ix->err);
	if (ix->rc)
		return;
	ix->rc = cache_db_put_region(db, &ix->region, &ix->err);
	if (ix->rc) {
		cache_db_rollback(db);
		return;
	}
	ix->rc = cache_db_commit(db, &ix->err);
	if (ix->rc == 0)
		index_step(ix->index, INDEX_STEP_CLOSED);
}

static void abandon_run(struct work *work)
{
	of_work(work)->rc = 0;
}

static void aside_run(struct work *work)
{
	struct indexed *ix = of_work(work);
	struct index_row *rows = NULL;
	size_t count = 0;
	int rc = cache_db_rows(ix->index->db, ix->region.id, &rows, &count, &ix->err);
	bool unknown = rc == -EUCLEAN;

	ix->rc = unknown ? 0 : rc;
	if (ix->rc == 0)
		ix->rc = index_set_aside(
		    ix->index, &ix->region, ix->why, rows, count, unknown, &ix->err);
	free(rows);
}

static void forget_run(struct work *work)
{
	struct indexed *ix = of_work(work);

	snprintf(ix->region.aside, sizeof(ix->region.aside), INDEX_FORGETTING);
	ix->rc = index_mark(ix->index, &ix->region, &ix->err);
	if (ix->rc == 0)
		ix->rc = index_forget(ix->index, ix->region.id, &ix->err);
}

void indexed_close(struct indexed *ix, struct index_call *call)
{
	end(ix, call, close_run, true, true);
}

void indexed_abandon(struct indexed *ix, struct index_call *call)
{
	end(ix, call, abandon_run, false, true);
}

void indexed_set_aside(struct indexed *ix, const char *why, struct index_call *call)
{
	snprintf(ix->why, sizeof(ix->why), "%s", why);
	end(ix, call, aside_run, true, false);
}

void indexed_forget(struct indexed *ix, struct index_call *call)
{
	end(ix, call, forget_run, false, false);
}
