/* SPDX-License-Identifier: Apache-2.0
 *
 * Regions that leave the index: set aside because they can't be trusted or must not be pushed, forgotten
 * because nobody wants them; and the whole index when it is damaged.
 *
 * Setting one aside: its row is marked with the key of the entry → the entry is made (rescue_keep, which
 * can be called again) → its rows are removed.  Forgetting one: marked → data deleted → rows removed.
 * Loading a region that is marked does what is left of this first.
 *
 * A damaged index: each data file becomes an entry, with what rows can still be read and fit their
 * checksums; the database is moved last, so that being cut off means beginning again with those that
 * are left.
 *
 * Locking: none; for workers and set-up code.
 * Failure: whatever fails, data and rows are still where they were, or marked.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/cache_index_int.h"
#include "core/rescue.h"
#include "core/uri.h"

int index_mark(struct cache_index *index, const struct index_region *region, struct err *err)
{
	int rc = cache_db_begin(index->db, err);

	if (rc)
		return rc;
	rc = cache_db_put_region(index->db, region, err);
	if (rc) {
		cache_db_rollback(index->db);
		return rc;
	}
	rc = cache_db_commit(index->db, err);
	if (rc == 0)
		index_step(index, INDEX_STEP_MARKED);
	return rc;
}

int index_remove(struct cache_index *index, uint64_t id, struct err *err)
{
	int rc = cache_db_begin(index->db, err);

	if (rc)
		return rc;
	rc = cache_db_remove(index->db, id, err);
	if (rc) {
		cache_db_rollback(index->db);
		return rc;
	}
	rc = cache_db_commit(index->db, err);
	if (rc == 0)
		index_step(index, INDEX_STEP_FORGOTTEN);
	return rc;
}

int index_forget(struct cache_index *index, uint64_t id, struct err *err)
{
	int rc = cache_dir_data_remove(index->dir, id, err);

	return rc ? rc : index_remove(index, id, err);
}

static void tell(struct cache_index *index, const struct index_region *region,
    const struct index_row *rows, size_t count, bool unknown)
{
	uint64_t dirty = 0;
	char text[SIZE_TEXT_MAX];

	for (size_t i = 0; i < count; i++)
		dirty += (uint64_t)__builtin_popcountll(rows[i].chunk.dirty) * STORE_BLOCK;
	size_format(dirty, text);
	log_warn("cache=%s: \"%s\": %s: set aside in aside/%s; %s%s may not be at the donor "
		 "(remram rescue shows and saves it)",
	    cache_dir_path(index->dir), region->name, region->why, region->aside,
	    unknown ? "all that is not known to be clean, at least " : "", text);
}

int index_set_aside(struct cache_index *index, struct index_region *region, const char *why,
    const struct index_row *rows, size_t count, bool unknown, struct err *err)
{
	int rc = 0;

	if (!region->aside[0]) {
		rc = rescue_key(index->dir, region->id, region->aside, err);
		snprintf(region->why, sizeof(region->why), "%s", why);
		region->clean = false;
	}
	if (rc == 0)
		rc = index_mark(index, region, err);
	if (rc == 0)
		rc = rescue_keep(index->dir, region, rows, count, unknown, err);
	if (rc)
		return rc;
	index_step(index, INDEX_STEP_KEPT);
	tell(index, region, rows, count, unknown);
	return index_remove(index, region->id, err);
}

/* ---- everything ---- */

struct all {
	struct cache_index *index;
	struct cache_db *db; /* what can still be read, or NULL */
	const char *why;
	struct err *err;
	int rc;
};

static uint64_t data_size(struct cache_index *index, uint64_t id)
{
	char name[CACHE_DATA_NAME_MAX];
	struct stat st;

	cache_dir_data_name(id, name);
	if (fstatat(cache_dir_fd(index->dir, CACHE_DIR_DATA), name, &st, AT_SYMLINK_NOFOLLOW))
		return 0;
	return (uint64_t)st.st_size;
}

/* Keeps the data of region `id` aside, with the rows that fit their checksums. */
static void keep_one(void *ctx, uint64_t id)
{
	struct all *all = ctx;
	struct cache_index *index = all->index;
	struct index_region *region = calloc(1, sizeof(*region));
	struct index_row *rows = NULL;
	size_t count = 0;
	int rc = 0;

	if (!region) {
		all->rc = err_set(all->err, -ENOMEM, "out of memory for a cache's index");
		return;
	}
	if (!all->db || cache_db_region(all->db, id, region, NULL)) {
		memset(region, 0, sizeof(*region));
		region->id = id;
		region->size = data_size(index, id);
		snprintf(region->name, sizeof(region->name), "region %" PRIu64, id);
	}
	/* Rows are returned with -EUCLEAN, too; other errors: none. */
	if (all->db)
		cache_db_rows(all->db, id, &rows, &count, NULL);
	snprintf(region->why, sizeof(region->why), "%.200s", all->why);
	if (!region->aside[0] || strcmp(region->aside, INDEX_FORGETTING) == 0)
		rc = rescue_key(index->dir, id, region->aside, all->err);
	if (rc == 0)
		rc = rescue_keep(index->dir, region, rows, count, true, all->err);
	if (rc == 0)
		tell(index, region, rows, count, true);
	if (rc && !all->rc)
		all->rc = rc;
	free(rows);
	free(region);
}

int index_set_all_aside(struct cache_index *index, const char *why, struct err *err)
{
	char path[PATH_MAX + 16], reason[ERR_TEXT_MAX];
	struct all all = {.index = index, .why = reason, .err = err};
	int rc;

	snprintf(reason, sizeof(reason), "the index of the cache is damaged: %s", why);
	log_error("cache=%s: %s: everything in it is set aside, the cache begins empty",
	    cache_dir_path(index->dir), reason);
	snprintf(path, sizeof(path), "%s/" INDEX_FILE, cache_dir_path(index->dir));
	if (cache_db_salvage(path, &all.db, NULL))
		all.db = NULL;
	rc = cache_dir_data_list(index->dir, keep_one, &all, err);
	cache_db_close(all.db);
	if (rc == 0)
		rc = all.rc;
	/* Those that the index was in the middle of: it will not say so any more. */
	if (rc == 0)
		rc = rescue_finish(index->dir, err);
	return rc ? rc : rescue_keep_index(index->dir, INDEX_FILE, err);
}
