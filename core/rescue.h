/* SPDX-License-Identifier: Apache-2.0
 *
 * The rescue store: what a cache keeps aside, because it could not be trusted, or because pushing it
 * would have overwritten newer data.  DIR/aside has one entry per region that was set aside, a
 * directory named by its key:
 *
 *   aside/KEY/data    the region's data file, as it was
 *   aside/KEY/about   its index, as a text: what region it is, why and when, which blocks are resident
 *                     and dirty, and their checksums
 *
 * and, where the index itself was damaged, aside/index-WHEN with the database.  Nothing removes an entry
 * but rescue_drop.
 *
 * All functions block, and lock nothing: an entry never changes once it is there, so a mount may be
 * using DIR.
 */
#ifndef REMRAM_CORE_RESCUE_H
#define REMRAM_CORE_RESCUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/cache_db.h"
#include "core/cache_dir.h"
#include "core/err.h"

struct rescue_entry {
	char key[INDEX_KEY_MAX];
	bool index; /* a damaged index, not a region: only key and when are set */
	char name[INDEX_NAME_MAX]; /* the region's */
	uint64_t id; /* the region's */
	uint64_t size; /* bytes */
	uint64_t version; /* at the donor, as last known */
	int64_t when; /* seconds since the epoch */
	char why[INDEX_NAME_MAX];
	/* Dirty: written here, and not known to be at the donor.  With `unknown` the index could not be
	 * read whole: then this counts all data that isn't known to be clean. */
	bool unknown;
	uint64_t dirty_bytes;
	uint64_t ranges;
};

/* Calls found for each entry of the cache directory path, oldest first.  0 and no call if there is none;
 * -ENOENT: no such directory, or it is not a cache. */
int rescue_list(const char *path, void (*found)(void *ctx, const struct rescue_entry *entry),
    void *ctx, struct err *err);

/* Calls range for each dirty range of an entry, in order; neighbours don't touch.  -ENOENT: no such
 * entry. */
int rescue_ranges(const char *path, const char *key,
    void (*range)(void *ctx, uint64_t off, uint64_t len), void *ctx, struct err *err);

/* Writes the dirty data of an entry into a new file (mode 0600), at its offsets; the rest are holes; as
 * long as the region was; stable on return.  *ret_bad: blocks that do not fit their checksum (written
 * after the last commit, or damaged) or have none.  -EEXIST: the file is there already.  After an error there is no
 * file, and the entry is as it was. */
int rescue_export(
    const char *path, const char *key, const char *to, uint64_t *ret_bad, struct err *err);

/* Deletes an entry, for ever. */
int rescue_drop(const char *path, const char *key, struct err *err);

/* ---- for core/cache_index.c ---- */

/* Makes an entry, stable on return, of region->id's data file and rows: region->aside is the key,
 * region->why the reason.  unknown: rows are not all that there were.  Can be called again after it was
 * cut off or failed, with the same region and rows: it goes on where it was. */
int rescue_keep(struct cache_dir *dir, const struct index_region *region,
    const struct index_row *rows, size_t count, bool unknown, struct err *err);
/* Moves the database `index` of DIR (a name, with its log) into aside/index-WHEN. */
int rescue_keep_index(struct cache_dir *dir, const char *index, struct err *err);
/* Entries whose making was cut off get their names, as they are. */
int rescue_finish(struct cache_dir *dir, struct err *err);
/* A key that no entry has, for something set aside now. */
int rescue_key(struct cache_dir *dir, uint64_t id, char ret_key[INDEX_KEY_MAX], struct err *err);

#endif
