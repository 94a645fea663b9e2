/* SPDX-License-Identifier: Apache-2.0
 *
 * What core/cache_index*.c share.
 */
#ifndef REMRAM_CORE_CACHE_INDEX_INT_H
#define REMRAM_CORE_CACHE_INDEX_INT_H

#include "core/cache_data.h"
#include "core/cache_index.h"
#include "core/log.h"

enum { INDEX_BATCH = 256 }; /* chunks that one transaction stores at most */

#define INDEX_FILE "index.db"
/* In a region's `aside`: it is being forgotten. */
#define INDEX_FORGETTING "-"

struct cache_index {
	/* Constant after open. */
	struct cache_index_conf conf;
	struct cache_dir *dir;
	struct cache_db *db;
	struct workers *workers; /* commits and ends */
	struct workers *loader; /* loading: reading all of a region may take long */

	/* Loop thread only (close: when the loop has ended). */
	unsigned open;
};

enum indexed_state {
	INDEXED_IDLE,
	INDEXED_SUMMING, /* a worker syncs and computes checksums */
	INDEXED_STORING, /* a worker stores them */
	INDEXED_ENDING, /* a worker does the last step */
};

struct indexed {
	/* Constant after load. */
	struct cache_index *index;
	int fd; /* the data file */
	const struct indexed_ops *ops;
	void *ctx;

	/* Loop thread only. */
	enum indexed_state state;
	struct index_call *serving; /* by the commit under way */
	struct index_call *waiting, **tail; /* for the next */
	struct index_region next; /* as described last */
	bool described; /* next is not stored yet */
	uint64_t taken, rounds_end; /* chunks: by this commit; when it is enough */
	struct log_limit limit;
	struct index_call *end; /* the end that was asked for */
	void (*end_run)(struct work *work);
	bool end_commits; /* a commit comes first */
	bool end_committing; /* this is that commit */
	struct index_call end_commit;
	char why[INDEX_NAME_MAX]; /* of being set aside */
	bool end_frees; /* it is gone, also with an error */

	/* The worker's, while state is not IDLE; else the loop's. */
	struct work work;
	struct index_region region; /* what the index has */
	bool put_region;
	int rc;
	struct err err;
	int lost; /* -errno of a sync of the data that failed */
	unsigned count;
	struct index_row rows[INDEX_BATCH];
	struct index_chunk chunks[INDEX_BATCH];
	uint8_t buf[INDEX_BUF];
};

/* Tells the test, if there is one. */
void index_step(struct cache_index *index, enum index_step step);

/* All of these are for workers, and block.  Keeps a region and its rows aside, tells the log, and removes
 * the rows; region->aside is the key: one that was noted before, or a new one. */
int index_set_aside(struct cache_index *index, struct index_region *region, const char *why,
    const struct index_row *rows, size_t count, bool unknown, struct err *err);
/* Notes region->aside and why as what is about to be done with it. */
int index_mark(struct cache_index *index, const struct index_region *region, struct err *err);
/* Deletes the rows of region `id`. */
int index_remove(struct cache_index *index, uint64_t id, struct err *err);
/* Deletes its data, then its rows; it is marked INDEX_FORGETTING. */
int index_forget(struct cache_index *index, uint64_t id, struct err *err);
/* Sets all regions' data and the index itself aside, where it is damaged. */
int index_set_all_aside(struct cache_index *index, const char *why, struct err *err);

#endif
