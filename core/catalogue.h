/* SPDX-License-Identifier: Apache-2.0
 *
 * The donor's catalogue: what a persistent pool must remember beside its bytes, in SQLite.
 *
 * One database file per pool, STATE/POOL.db, journal in WAL mode with synchronous=FULL: what a call
 * stored before it returned 0 is there after a power failure.  An exclusive lock is held while it is
 * open: two daemons never share one.  Region ids are never used twice.
 *
 * A call that fails has changed nothing; beside the codes named below that is -ENOSPC, -EROFS, -EIO,
 * -EUCLEAN (the file turned out to be damaged), -ENOMEM.
 *
 * All functions block: set-up code and worker threads only.  One thread at a time.
 */
#ifndef REMRAM_CORE_CATALOGUE_H
#define REMRAM_CORE_CATALOGUE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "core/pool.h"

struct catalogue;

/* Who wrote to a region: what region_unchanged (core/region.h) must still know after a restart. */
struct catalogue_writer {
	uint64_t writer; /* as region.writer; 0: not known */
	uint64_t base; /* as region.base */
	bool
	    writing; /* it may have written since this was stored, and nobody else has (writer 0: anybody) */
};

/* Opens or creates DIR/POOL.db (DIR is created with mode 0700 if absent; the file has mode 0600).
 * Fails with -EBUSY if another process has it open, -EUCLEAN if it is damaged (SQLite's quick_check)
 * or from a newer version: the message names the file and what to do.  *ret_uuid names this pool for
 * ever (made at creation, random): who stores bytes keeps a copy to notice a mix-up. */
int catalogue_open(const char *dir, const char *pool, struct catalogue **ret_cat,
    uint8_t ret_uuid[16], struct err *err);
void catalogue_close(struct catalogue *cat);

/* Calls region(ctx, name, attr, writer) for each region (attr.id, version, times, mode, uid, gid; size as
 * last stored) and then xattr(ctx, id, name, value, len) for each extended attribute. */
int catalogue_load(struct catalogue *cat,
    void (*region)(void *ctx, const char *name, const struct region_attr *attr,
	const struct catalogue_writer *writer),
    void (*xattr)(void *ctx, uint64_t id, const char *name, const void *value, size_t len),
    void *ctx, struct err *err);

/* A new id, ≥ 2, above all that were given before; never given again, whatever happens.  Ids may be
 * skipped when the catalogue is opened again. */
int catalogue_next_id(struct catalogue *cat, uint64_t *ret_id, struct err *err);

/* Stores name, attr (but not allocated and nlink) and writer of a region that is new or known by attr->id.
 * -EEXIST: another region has that name. */
int catalogue_put(struct catalogue *cat, const char *name, const struct region_attr *attr,
    const struct catalogue_writer *writer, struct err *err);
/* Also its extended attributes.  -ENOENT: no such region. */
int catalogue_remove(struct catalogue *cat, uint64_t id, struct err *err);
/* In one transaction: region id gets new_name; other_id (0: nobody) gets other_name, or is removed if
 * other_name is NULL.  -ENOENT, -EEXIST as above. */
int catalogue_rename(struct catalogue *cat, uint64_t id, const char *new_name, uint64_t other_id,
    const char *other_name, struct err *err);
/* value NULL removes it (-ENODATA: it is not there).  -ENOENT: no such region. */
int catalogue_put_xattr(struct catalogue *cat, uint64_t id, const char *name, const void *value,
    size_t len, struct err *err);

#endif
