/* SPDX-License-Identifier: Apache-2.0
 *
 * A region of a pool that this process holds, and its handles: what core/local_pool is made of.
 */
#ifndef REMRAM_CORE_REGION_H
#define REMRAM_CORE_REGION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/catalogue.h"
#include "core/lease.h"
#include "core/pool.h"
#include "core/store.h"

struct region_xattr {
	struct region_xattr *next;
	char *name;
	size_t len;
	uint8_t value[];
};

struct region {
	/* Constant after create. */
	uint64_t id;
	struct store *store; /* owned */
	/* A session has changed the bytes: the version is to move (region_move), and others are to be told.  Set by
	 * the pool before anybody writes; any thread, no lock held. */
	void (*changed)(struct region *region, uint64_t session, uint64_t writer);
	void *owner; /* the pool */

	/* Protected by the pool's mu. */
	char *name; /* owned; NULL once removed */
	struct region *name_next; /* hash chain */
	uint32_t uid, gid;
	int64_t atime_ns, ctime_ns;
	struct region_xattr *xattrs;
	size_t xattr_bytes;
	unsigned handles; /* open ones */
	unsigned pins; /* those opened with POOL_PIN */
	uint64_t pin_session; /* whose they are, while pins > 0 */
	bool leaving; /* being removed or renamed: nobody opens it meanwhile */
	unsigned refs; /* requests that use the region beyond mu: changes of its size */
	uint64_t resizer; /* whose they are, while refs > 0; 0: several sessions' */
	struct region_lease lease;
	struct catalogue_writer told; /* what the catalogue knows of its writer */
	bool fresh; /* its version is not the one that the catalogue had when it was loaded */

	/* Atomic: the data path reads them. */
	_Atomic uint32_t mode;
	_Atomic uint64_t size; /* bytes */
	_Atomic int64_t mtime_ns;
	_Atomic uint64_t version;
	_Atomic uint64_t writer; /* who wrote last (pool_req_writer); 0: not known */
	_Atomic uint64_t base; /* the version at which `writer` began to be the only writer */
	_Atomic bool seen; /* another session than writer has been told `version` */
	_Atomic bool dirty; /* size or mtime changed since the catalogue was told */
};

struct region_handle {
	struct handle handle;
	struct region *region;
	uint64_t session, writer; /* of the opener: pool_req.session, pool_req_writer */
	struct region_user *user; /* whose handle it is; set by lease_opened */
	struct region_handle *user_prev, *user_next; /* of user */
	uint32_t lease_gen; /* it may write while user->gen is the same */
	bool dropped; /* its lease was given back already (lease_drop) */
	bool created; /* by this open: keeps its access whatever the mode (core/pool.h) */
};

/* Takes store, also on failure (NULL). attr gives everything but the store's size. */
struct region *region_create(const char *name, const struct region_attr *attr, struct store *store);
/* Destroys the store too; may block. */
void region_destroy(struct region *region);

/* Fills everything but nlink's reason: with the pool's mu held.  writer: who is told. */
void region_get_attr(struct region *region, uint64_t writer, struct region_attr *ret_attr);

/* Somebody changes the bytes: moves version and mtime.  Any thread; the pool's mu not held. */
void region_touch(struct region *region, uint64_t session, uint64_t writer);

/* The version's next value, of that writer; mu held. */
void region_move(struct region *region, uint64_t writer);

/* Memory that the handle's store has lent for a WRITE goes back (store_unlend follows), and the WRITE has failed
 * or was never submitted: what was received by then has changed the bytes all the same. */
void region_lent_changed(struct handle *handle);

/* SETATTR's size; the caller has resized the store or will.  Any thread. */
void region_set_size(struct region *region, uint64_t size);

/* Whether a writer that knew `version` may keep what it cached.  mu held. */
bool region_unchanged(const struct region *region, uint64_t writer, uint64_t version);

/* A handle on region, access checked by the caller; counts nothing: lease_opened does.  NULL: out of
 * memory. */
struct region_handle *region_handle_create(struct region *region, const struct pool_req *req,
    uint64_t size_max, bool created, struct store_stats *stats);

/* Nanoseconds since the epoch, to a few milliseconds. */
int64_t region_now_ns(void);

/* 0 and *ret_old the attribute or NULL; mu held. */
struct region_xattr *region_xattr_find(struct region *region, const char *name);
/* value NULL: removes it.  0, -ENODATA, -EEXIST, -ENOSPC (64 KiB for all of a region), -ENOMEM. */
int region_xattr_set(
    struct region *region, const char *name, const void *value, size_t len, unsigned flags);

#endif
