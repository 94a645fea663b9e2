/* SPDX-License-Identifier: Apache-2.0
 *
 * A region: a store of bytes with a size, a mode, times and a version, and the store that an open
 * handle is.
 *
 * A handle's store checks on every request what the region's mode allows (core/pool.h, Permissions),
 * moves version and mtime on writes, and makes the region longer when a write has succeeded beyond
 * its end; all else it hands down.  It may be used from any loop: everything it reads is atomic.
 *
 * Versions: `version` moves when somebody writes and another one has been told the current value, or
 * when who writes is another than before.  `base` is the version at which the present
 * writer began, so one that is the only writer since what it knows may keep its cache.  Who writes is
 * known by its identity (pool_req_writer), not by its session: a client that was killed and comes back
 * is the writer that it was.
 *
 * It moves, and is told, with the pool's mu held: of two that write at once one is the later one.  What a write
 * finds without mu is only that it need not move (region_touch).
 *
 * A handle that writes under a lease looks on each write whether it still has it (core/lease.c).
 */
#include "core/region.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct store_ops handle_ops;

int64_t region_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME_COARSE, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

struct region *region_create(const char *name, const struct region_attr *attr, struct store *store)
{
	struct region *region = calloc(1, sizeof(*region));

	if (region)
		region->name = strdup(name);
	if (!region || !region->name) {
		free(region);
		store_destroy(store);
		return NULL;
	}
	region->id = attr->id;
	region->store = store;
	region->uid = attr->uid;
	region->gid = attr->gid;
	region->atime_ns = attr->atime_ns;
	region->ctime_ns = attr->ctime_ns;
	atomic_init(&region->mode, attr->mode & 07777);
	atomic_init(&region->size, attr->size);
	atomic_init(&region->mtime_ns, attr->mtime_ns);
	atomic_init(&region->version, attr->version);
	atomic_init(&region->base, attr->version);
	return region;
}

void region_destroy(struct region *region)
{
	if (!region)
		return;
	store_destroy(region->store);
	while (region->xattrs) {
		struct region_xattr *next = region->xattrs->next;

		free(region->xattrs->name);
		free(region->xattrs);
		region->xattrs = next;
	}
	free(region->name);
	free(region);
}

void region_get_attr(struct region *region, uint64_t writer, struct region_attr *ret_attr)
{
	struct store_stat stat = {0};

	if (writer != atomic_load(&region->writer))
		atomic_store(&region->seen, true);
	store_stat(region->store, &stat);
	*ret_attr = (struct region_attr){
	    .id = region->id,
	    .size = atomic_load(&region->size),
	    .allocated = stat.allocated,
	    .version = atomic_load(&region->version),
	    .atime_ns = region->atime_ns,
	    .mtime_ns = atomic_load(&region->mtime_ns),
	    .ctime_ns = region->ctime_ns,
	    .mode = atomic_load(&region->mode),
	    .uid = region->uid,
	    .gid = region->gid,
	    .nlink = region->name ? 1 : 0,
	};
	if (ret_attr->ctime_ns < ret_attr->mtime_ns)
		ret_attr->ctime_ns = ret_attr->mtime_ns;
}

void region_touch(struct region *region, uint64_t session, uint64_t writer)
{
	int64_t now = region_now_ns();

	if (atomic_load_explicit(&region->mtime_ns, memory_order_relaxed) != now) {
		atomic_store_explicit(&region->mtime_ns, now, memory_order_relaxed);
		atomic_store_explicit(&region->dirty, true, memory_order_relaxed);
	}
	if (atomic_load(&region->seen) || atomic_load(&region->writer) != writer)
		region->changed(region, session, writer);
}

void region_move(struct region *region, uint64_t writer)
{
	uint64_t version = atomic_load(&region->version) + 1;

	if (atomic_exchange(&region->writer, writer) != writer)
		atomic_store(&region->base, version);
	atomic_store(&region->version, version);
	atomic_store_explicit(&region->dirty, true, memory_order_relaxed);
	/* Last, as region_touch looks at it first: whoever finds that nobody has looked since finds, too, that the
	 * writer is another. */
	atomic_store(&region->seen, false);
}

void region_set_size(struct region *region, uint64_t size)
{
	atomic_store(&region->size, size);
	atomic_store(&region->dirty, true);
}

bool region_unchanged(const struct region *region, uint64_t writer, uint64_t version)
{
	uint64_t now = atomic_load(&region->version);

	if (version == 0)
		return false;
	if (version == now)
		return true;
	return atomic_load(&region->writer) == writer && version + 1 >= atomic_load(&region->base);
}

struct region_handle *region_handle_create(struct region *region, const struct pool_req *req,
    uint64_t size_max, bool created, struct store_stats *stats)
{
	struct region_handle *rh = calloc(1, sizeof(*rh));

	if (!rh)
		return NULL;
	store_init(&rh->handle.store, &handle_ops, size_max);
	rh->handle.store.stats = stats;
	rh->handle.region_id = region->id;
	rh->handle.number = req->number;
	rh->handle.flags = req->flags & (POOL_READ | POOL_WRITE | POOL_PIN | POOL_SHARED);
	/* Nobody else may write to what is pinned. */
	if (rh->handle.flags & POOL_PIN || !(rh->handle.flags & POOL_WRITE))
		rh->handle.flags &= ~(unsigned)POOL_SHARED;
	rh->region = region;
	rh->session = req->session;
	rh->writer = pool_req_writer(req);
	rh->created = created;
	return rh;
}

/* ---- the handle's store ---- */

static int check_access(const struct region_handle *rh, enum store_op op)
{
	unsigned access;

	switch (op) {
	case STORE_WRITE:
	case STORE_ZERO:
	case STORE_ALLOC:
		access = POOL_WRITE;
		break;
	case STORE_READ:
		access = POOL_READ;
		break;
	case STORE_RESIZE: /* through POOL_SETATTR, which knows about pins */
		return -EINVAL;
	default:
		return 0;
	}
	if (!(rh->handle.flags & access))
		return -EBADF;
	if (access == POOL_WRITE && !lease_held(rh))
		return -ENOLCK;
	if (rh->created)
		return 0;
	return pool_check_mode(
	    atomic_load_explicit(&rh->region->mode, memory_order_relaxed), access);
}

static void extend(struct region *region, uint64_t end)
{
	uint64_t size = atomic_load(&region->size);

	while (size < end && !atomic_compare_exchange_weak(&region->size, &size, end))
		;
	atomic_store(&region->dirty, true);
}

/* Whether the request makes a region longer that ends before it does. */
static bool grows(const struct store_req *req)
{
	return req->op == STORE_WRITE || (req->op == STORE_ALLOC && !(req->flags & STORE_KEEP));
}

/* The bytes have changed, also where the write failed: a session that looked before must not be told
 * that what it saw is still so. */
static void change_done(struct store_req *req, int err)
{
	struct region_handle *rh = store_pop(req);
	uint64_t end = req->off + req->len;

	/* The size first: those who are told of the change are told the size. */
	if (err == 0 && grows(req) &&
	    end > atomic_load_explicit(&rh->region->size, memory_order_relaxed))
		extend(rh->region, end);
	region_touch(rh->region, rh->session, rh->writer);
	store_complete(req, err);
}

static void handle_submit(struct store *store, struct store_req *req)
{
	struct region_handle *rh = (struct region_handle *)store;
	int rc = check_access(rh, req->op);

	if (rc) {
		store_complete(req, rc);
		return;
	}
	if (req->op == STORE_WRITE || req->op == STORE_ZERO || req->op == STORE_ALLOC)
		store_push(req, change_done, rh);
	store_forward(rh->region->store, req);
}

static void handle_interrupt(struct store *store, struct store_req *req)
{
	store_lower_interrupt(((struct region_handle *)store)->region->store, req);
}

static void *handle_lend(struct store *store, uint64_t off, uint32_t len)
{
	struct region_handle *rh = (struct region_handle *)store;
	void *lent =
	    check_access(rh, STORE_WRITE) ? NULL : store_lower_lend(rh->region->store, off, len);

	/* The bytes change from now on; see region_lent_changed. */
	if (lent)
		region_touch(rh->region, rh->session, rh->writer);
	return lent;
}

void region_lent_changed(struct handle *handle)
{
	struct region_handle *rh = (struct region_handle *)handle;

	region_touch(rh->region, rh->session, rh->writer);
}

static void handle_unlend(struct store *store, uint64_t off, uint32_t len)
{
	struct region_handle *rh = (struct region_handle *)store;

	store_lower_unlend(rh->region->store, off, len);
}

static int handle_stat(struct store *store, struct store_stat *ret_stat)
{
	struct region_handle *rh = (struct region_handle *)store;

	return store_stat(rh->region->store, ret_stat);
}

static void handle_destroy(struct store *store)
{
	free(store);
}

static const struct store_ops handle_ops = {
    .name = "region",
    .submit = handle_submit,
    .interrupt = handle_interrupt,
    .lend = handle_lend,
    .unlend = handle_unlend,
    .stat = handle_stat,
    .destroy = handle_destroy,
};

/* ---- extended attributes ---- */

struct region_xattr *region_xattr_find(struct region *region, const char *name)
{
	struct region_xattr *x = region->xattrs;

	while (x && strcmp(x->name, name) != 0)
		x = x->next;
	return x;
}

static void xattr_unlink(struct region *region, struct region_xattr *victim)
{
	struct region_xattr **link = &region->xattrs;

	while (*link != victim)
		link = &(*link)->next;
	*link = victim->next;
	region->xattr_bytes -= strlen(victim->name) + 1 + victim->len;
	free(victim->name);
	free(victim);
}

int region_xattr_set(
    struct region *region, const char *name, const void *value, size_t len, unsigned flags)
{
	struct region_xattr *old = region_xattr_find(region, name), *fresh;
	size_t freed = old ? strlen(old->name) + 1 + old->len : 0;

	if (!value) {
		if (!old)
			return -ENODATA;
		xattr_unlink(region, old);
		return 0;
	}
	if (old && (flags & POOL_XATTR_CREATE))
		return -EEXIST;
	if (!old && (flags & POOL_XATTR_REPLACE))
		return -ENODATA;
	if (region->xattr_bytes - freed + strlen(name) + 1 + len > POOL_XATTR_VALUE_MAX)
		return -ENOSPC;
	fresh = malloc(sizeof(*fresh) + len);
	if (!fresh)
		return -ENOMEM;
	fresh->name = strdup(name);
	if (!fresh->name) {
		free(fresh);
		return -ENOMEM;
	}
	fresh->len = len;
	if (len)
		memcpy(fresh->value, value, len);
	if (old)
		xattr_unlink(region, old);
	fresh->next = region->xattrs;
	region->xattrs = fresh;
	region->xattr_bytes += strlen(name) + 1 + len;
	return 0;
}
