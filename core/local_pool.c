/* SPDX-License-Identifier: Apache-2.0
 *
 * A pool whose regions this process holds.
 *
 * Requests that only look run where they were submitted, under `mu`.  Requests that change what the
 * catalogue remembers run on a worker thread if there is a catalogue, else also where they were
 * submitted; `ctl` keeps them one at a time.  A change is in the catalogue before it is in memory,
 * and in memory before it is answered.
 *
 * A region's life:  CREATE → named → REMOVE or replaced by RENAME → nameless
 *   nameless and no handle and no refs → freed on a worker (region_free): unmapping memory and
 *   deleting files takes long.
 *
 * Invariants:
 *   1. by_id[0 … count) is sorted and holds exactly the named regions; the name table the same.
 *   2. region->handles counts the handles given out; a nameless region lives while handles or refs > 0.
 * Locking: ctl, then mu (the one pair of locks that is taken together); neither is held across
 * submit, complete or done.  ctl is never taken on a loop thread of a pool that has a catalogue.
 */
#include "core/local_pool.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "core/log.h"
#include "core/region.h"

enum { NAME_BUCKETS = 4096 };

struct local_pool {
	struct pool pool;

	/* Constant after create. */
	struct backend *backend;
	struct catalogue *cat; /* NULL: nothing is remembered */
	struct workers *workers;
	uint8_t uuid[16];
	struct store_stats *stats;

	pthread_mutex_t ctl;

	/* Protected by mu. */
	pthread_mutex_t mu;
	struct region **by_id;
	size_t count, room;
	struct region *by_name[NAME_BUCKETS];
	uint64_t next_id; /* without a catalogue */
	unsigned frees; /* regions on their way out */
	pthread_cond_t freed;
};

/* ---- the tables; mu held ---- */

static unsigned name_bucket(const char *name)
{
	uint32_t h = 2166136261u; /* FNV-1a */

	for (; *name; name++)
		h = (h ^ (uint8_t)*name) * 16777619u;
	return h % NAME_BUCKETS;
}

static struct region *find_name(struct local_pool *lp, const char *name)
{
	struct region *region = lp->by_name[name_bucket(name)];

	while (region && strcmp(region->name, name) != 0)
		region = region->name_next;
	return region;
}

/* The index of the first region with an id of at least `id`. */
static size_t id_index(const struct local_pool *lp, uint64_t id)
{
	size_t lo = 0, hi = lp->count;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (lp->by_id[mid]->id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static struct region *find_id(struct local_pool *lp, uint64_t id)
{
	size_t i = id_index(lp, id);

	return i < lp->count && lp->by_id[i]->id == id ? lp->by_id[i] : NULL;
}

static void name_link(struct local_pool *lp, struct region *region)
{
	struct region **head = &lp->by_name[name_bucket(region->name)];

	region->name_next = *head;
	*head = region;
}

static void name_unlink(struct local_pool *lp, struct region *region)
{
	struct region **link = &lp->by_name[name_bucket(region->name)];

	while (*link != region)
		link = &(*link)->name_next;
	*link = region->name_next;
}

/* Makes room for one more; 0 or -ENOMEM. */
static int table_reserve(struct local_pool *lp)
{
	struct region **grown;
	size_t room = lp->room ? lp->room * 2 : 64;

	if (lp->count < lp->room)
		return 0;
	grown = realloc(lp->by_id, room * sizeof(grown[0]));
	if (!grown)
		return -ENOMEM;
	lp->by_id = grown;
	lp->room = room;
	return 0;
}

static void table_insert(struct local_pool *lp, struct region *region)
{
	size_t i = id_index(lp, region->id);

	memmove(lp->by_id + i + 1, lp->by_id + i, (lp->count - i) * sizeof(lp->by_id[0]));
	lp->by_id[i] = region;
	lp->count++;
	name_link(lp, region);
}

static void table_remove(struct local_pool *lp, struct region *region)
{
	size_t i = id_index(lp, region->id);

	lp->count--;
	memmove(lp->by_id + i, lp->by_id + i + 1, (lp->count - i) * sizeof(lp->by_id[0]));
	name_unlink(lp, region);
	free(region->name);
	region->name = NULL;
}

/* ---- freeing ---- */

struct region_free {
	struct work work;
	struct local_pool *lp;
	struct region *region;
};

static void region_free_run(struct work *work)
{
	struct region_free *rf = (struct region_free *)((char *)work - offsetof(struct region_free, work));
	struct local_pool *lp = rf->lp;
	uint64_t id = rf->region->id;
	struct err err = {0};

	region_destroy(rf->region);
	if (lp->backend->ops->region_remove(lp->backend, id, &err))
		log_error("pool \"%s\": cannot delete the bytes of a removed region: %s", lp->pool.name,
		    err.text);
	free(rf);
	pthread_mutex_lock(&lp->mu);
	lp->frees--;
	pthread_cond_broadcast(&lp->freed);
	pthread_mutex_unlock(&lp->mu);
}

/* True if the region has come to its end; mu held.  The caller then calls region_free without mu. */
static bool region_ended(struct local_pool *lp, struct region *region)
{
	if (region->name || region->handles || region->refs)
		return false;
	lp->frees++;
	return true;
}

static void discard_done(struct store_req *req, int err)
{
}

static void region_free(struct local_pool *lp, struct region *region)
{
	struct region_free *rf = malloc(sizeof(*rf));

	assert(rf);
	rf->work = (struct work){.run = region_free_run};
	rf->lp = lp;
	rf->region = region;
	if (!lp->backend->blocking) {
		/* Its space is free for others at once; the rest takes time. */
		struct store_req req = {.op = STORE_RESIZE, .done = discard_done};

		store_submit(region->store, &req);
	}
	workers_submit(lp->workers, &rf->work);
}

/* Drops a reference that was taken as refs++. */
static void region_put(struct local_pool *lp, struct region *region)
{
	bool ended;

	pthread_mutex_lock(&lp->mu);
	region->refs--;
	ended = region_ended(lp, region);
	pthread_mutex_unlock(&lp->mu);
	if (ended)
		region_free(lp, region);
}

/* ---- requests that look ---- */

static int do_lookup(struct local_pool *lp, struct pool_req *req)
{
	struct region *region;

	pthread_mutex_lock(&lp->mu);
	region = req->op == POOL_LOOKUP ? find_name(lp, req->name) : find_id(lp, req->id);
	if (!region && req->op == POOL_GETATTR && req->handle)
		region = ((struct region_handle *)req->handle)->region;
	if (region)
		region_get_attr(region, req->session, &req->attr);
	pthread_mutex_unlock(&lp->mu);
	if (region)
		return 0;
	return req->op == POOL_LOOKUP ? -ENOENT : -ESTALE;
}

static int do_list(struct local_pool *lp, struct pool_req *req)
{
	size_t used = 0;
	int rc = 0;

	req->ret_cookie = 0;
	pthread_mutex_lock(&lp->mu);
	for (size_t i = id_index(lp, req->cookie + 1); i < lp->count; i++) {
		struct region *region = lp->by_id[i];
		struct pool_dirent ent = {.next_cookie = region->id, .name_len = (uint32_t)strlen(region->name)};
		size_t len = sizeof(ent) + ((ent.name_len + 7u) & ~7u);

		if (used + len > req->len) {
			rc = used ? 0 : -EINVAL;
			req->ret_cookie = used ? lp->by_id[i - 1]->id : 0;
			break;
		}
		region_get_attr(region, req->session, &ent.attr);
		memcpy((char *)req->data + used, &ent, sizeof(ent));
		memset((char *)req->data + used + sizeof(ent), 0, len - sizeof(ent));
		memcpy((char *)req->data + used + sizeof(ent), region->name, ent.name_len);
		used += len;
	}
	pthread_mutex_unlock(&lp->mu);
	req->ret_len = used;
	return rc;
}

static int do_statfs(struct local_pool *lp, struct pool_req *req)
{
	struct quota *quota = &lp->backend->quota;
	uint64_t total = quota->limit, used = atomic_load(&quota->used), place_total, place_free;

	if (lp->backend->ops->space) {
		lp->backend->ops->space(lp->backend, &place_total, &place_free);
		if (place_total < total) {
			total = place_total;
			used = place_total - place_free;
		}
	}
	req->statfs.total = total;
	req->statfs.used = used < total ? used : total;
	req->statfs.avail = total - req->statfs.used;
	pthread_mutex_lock(&lp->mu);
	req->statfs.regions = lp->count;
	pthread_mutex_unlock(&lp->mu);
	return 0;
}

static int do_open(struct local_pool *lp, struct pool_req *req)
{
	struct region_handle *rh = NULL;
	struct region *region;
	int rc = 0;

	pthread_mutex_lock(&lp->mu);
	region = find_id(lp, req->id);
	if (!region)
		rc = -ESTALE;
	else
		rc = pool_check_mode(atomic_load(&region->mode), req->flags);
	if (rc == 0) {
		rh = region_handle_create(region, req->session, req->flags, req->number,
		    lp->pool.size_max, false, lp->stats);
		rc = rh ? 0 : -ENOMEM;
	}
	if (rc == 0) {
		region->handles++;
		region->pins += req->flags & POOL_PIN ? 1 : 0;
		req->ret_unchanged = region_unchanged(region, req->session, req->version);
		region_get_attr(region, req->session, &req->attr);
		req->ret_handle = &rh->handle;
	}
	pthread_mutex_unlock(&lp->mu);
	return rc;
}

static int do_getxattr(struct local_pool *lp, struct pool_req *req)
{
	struct region *region;
	struct region_xattr *x;
	int rc = 0;

	pthread_mutex_lock(&lp->mu);
	region = find_id(lp, req->id);
	x = region ? region_xattr_find(region, req->name) : NULL;
	if (!region) {
		rc = -ESTALE;
	} else if (!x) {
		rc = -ENODATA;
	} else {
		req->ret_len = x->len;
		if (req->len && req->len < x->len)
			rc = -ERANGE;
		else if (req->len)
			memcpy(req->data, x->value, x->len);
	}
	pthread_mutex_unlock(&lp->mu);
	return rc;
}

static int do_listxattr(struct local_pool *lp, struct pool_req *req)
{
	struct region *region;
	size_t used = 0;
	int rc = 0;

	pthread_mutex_lock(&lp->mu);
	region = find_id(lp, req->id);
	if (!region)
		rc = -ESTALE;
	for (struct region_xattr *x = region ? region->xattrs : NULL; x && rc == 0; x = x->next) {
		size_t len = strlen(x->name) + 1;

		if (req->len && used + len > req->len)
			rc = -ERANGE;
		else if (req->len)
			memcpy((char *)req->data + used, x->name, len);
		used += len;
	}
	req->ret_len = used;
	pthread_mutex_unlock(&lp->mu);
	return rc;
}

/* ---- requests that change; ctl held ---- */

/* Tells the catalogue what a region is now; 0 without one. */
static int remember(struct local_pool *lp, const char *name, const struct region_attr *attr)
{
	struct err err = {0};
	int rc;

	if (!lp->cat)
		return 0;
	rc = catalogue_put(lp->cat, name, attr, &err);
	if (rc)
		log_error("pool \"%s\": %s", lp->pool.name, err.text);
	return rc;
}

static int new_region(struct local_pool *lp, struct pool_req *req, struct region **ret_region)
{
	struct region_attr attr = req->attr;
	struct store *store = NULL;
	struct err err = {0};
	int rc = 0;

	if (lp->cat)
		rc = catalogue_next_id(lp->cat, &attr.id, &err);
	else
		attr.id = lp->next_id++;
	attr.size = 0;
	attr.nlink = 1;
	attr.atime_ns = attr.mtime_ns = attr.ctime_ns = region_now_ns();
	attr.version = (uint64_t)attr.ctime_ns;
	if (rc == 0)
		rc = lp->backend->ops->region_open(lp->backend, attr.id, true, &store, &err);
	if (rc) {
		log_error("pool \"%s\": cannot create region \"%s\": %s", lp->pool.name, req->name, err.text);
		return rc == -EMFILE || rc == -ENFILE ? -ENOSPC : rc;
	}
	rc = remember(lp, req->name, &attr);
	if (rc == 0) {
		*ret_region = region_create(req->name, &attr, store);
		if (*ret_region)
			return 0;
		rc = -ENOMEM;
		if (lp->cat)
			catalogue_remove(lp->cat, attr.id, NULL);
	} else {
		store_destroy(store);
	}
	lp->backend->ops->region_remove(lp->backend, attr.id, NULL);
	return rc;
}

/* Gives a CREATE its answer; mu held. */
static int create_answer_locked(struct local_pool *lp, struct pool_req *req, struct region *region,
    bool created)
{
	struct region_handle *rh;

	if (!(req->flags & POOL_NO_OPEN)) {
		rh = region_handle_create(region, req->session, req->flags & (POOL_READ | POOL_WRITE),
		    req->number, lp->pool.size_max, created, lp->stats);
		if (!rh)
			return -ENOMEM;
		region->handles++;
		req->ret_handle = &rh->handle;
	}
	region_get_attr(region, req->session, &req->attr);
	return 0;
}

static int do_create(struct local_pool *lp, struct pool_req *req)
{
	struct region *region;
	int rc;

	pthread_mutex_lock(&lp->mu);
	region = find_name(lp, req->name);
	if (region) {
		rc = req->flags & POOL_EXCLUSIVE ? -EEXIST
						 : pool_check_mode(atomic_load(&region->mode), req->flags);
		if (rc == 0)
			rc = create_answer_locked(lp, req, region, false);
		pthread_mutex_unlock(&lp->mu);
		return rc;
	}
	rc = table_reserve(lp);
	pthread_mutex_unlock(&lp->mu);
	if (rc == 0)
		rc = lp->pool.fixed ? -EPERM : new_region(lp, req, &region);
	if (rc)
		return rc;
	pthread_mutex_lock(&lp->mu);
	table_insert(lp, region);
	rc = create_answer_locked(lp, req, region, true);
	pthread_mutex_unlock(&lp->mu);
	return rc;
}

static int do_remove(struct local_pool *lp, struct pool_req *req)
{
	struct region *region;
	struct err err = {0};
	bool ended;
	int rc = 0;

	if (lp->pool.fixed)
		return -EPERM;
	pthread_mutex_lock(&lp->mu);
	region = find_name(lp, req->name);
	if (!region)
		rc = -ENOENT;
	else if (region->pins)
		rc = -EBUSY;
	pthread_mutex_unlock(&lp->mu);
	if (rc == 0 && lp->cat)
		rc = catalogue_remove(lp->cat, region->id, &err);
	if (rc)
		return rc;
	pthread_mutex_lock(&lp->mu);
	table_remove(lp, region);
	ended = region_ended(lp, region);
	pthread_mutex_unlock(&lp->mu);
	if (ended)
		region_free(lp, region);
	return 0;
}

/* Whether `region` may get a new name, in place of `other` (NULL: nobody has it). */
static int check_rename_locked(const struct pool_req *req, const struct region *region,
    const struct region *other)
{
	if (!region)
		return -ENOENT;
	if (other && (req->flags & POOL_NOREPLACE))
		return -EEXIST;
	if (!other && (req->flags & POOL_EXCHANGE))
		return -ENOENT;
	if (region->pins || (other && other->pins))
		return -EBUSY;
	if (other && other != region && !(req->flags & POOL_EXCHANGE) && other->handles)
		return -EBUSY;
	return 0;
}

static void set_name_locked(struct local_pool *lp, struct region *region, char *name)
{
	name_unlink(lp, region);
	free(region->name);
	region->name = name;
	name_link(lp, region);
}

static int do_rename(struct local_pool *lp, struct pool_req *req)
{
	bool exchange = req->flags & POOL_EXCHANGE, ended = false;
	char *new_name = strdup(req->new_name), *old_name = strdup(req->name);
	struct region *region, *other;
	struct err err = {0};
	int rc = new_name && old_name ? 0 : -ENOMEM;

	if (lp->pool.fixed)
		rc = -EPERM;
	pthread_mutex_lock(&lp->mu);
	region = find_name(lp, req->name);
	other = find_name(lp, req->new_name);
	if (rc == 0)
		rc = check_rename_locked(req, region, other);
	pthread_mutex_unlock(&lp->mu);
	if (rc || other == region)
		goto out;
	if (lp->cat)
		rc = catalogue_rename(lp->cat, region->id, new_name, other ? other->id : 0,
		    exchange ? old_name : NULL, &err);
	if (rc)
		goto out;
	pthread_mutex_lock(&lp->mu);
	if (other && !exchange) {
		table_remove(lp, other);
		ended = region_ended(lp, other);
	}
	set_name_locked(lp, region, new_name);
	new_name = NULL;
	if (other && exchange) {
		set_name_locked(lp, other, old_name);
		old_name = NULL;
	}
	region->ctime_ns = region_now_ns();
	pthread_mutex_unlock(&lp->mu);
	if (ended)
		region_free(lp, other);
out:
	free(new_name);
	free(old_name);
	return rc;
}

static int do_setxattr(struct local_pool *lp, struct pool_req *req)
{
	const void *value = req->op == POOL_SETXATTR ? (req->data ? req->data : "") : NULL;
	struct region *region;
	struct err err = {0};
	int rc;

	pthread_mutex_lock(&lp->mu);
	region = find_id(lp, req->id);
	rc = region ? region_xattr_set(region, req->name, value, req->len, req->flags) : -ESTALE;
	if (rc == 0)
		region->ctime_ns = region_now_ns();
	pthread_mutex_unlock(&lp->mu);
	if (rc == 0 && lp->cat) {
		rc = catalogue_put_xattr(lp->cat, req->id, req->name, value, req->len, &err);
		if (rc)
			log_error("pool \"%s\": %s", lp->pool.name, err.text);
	}
	return rc;
}

/* What SETATTR sets beside the size. */
static void set_attr_locked(struct region *region, const struct pool_req *req)
{
	if (req->set & POOL_SET_MODE)
		atomic_store(&region->mode, req->attr.mode & 07777);
	if (req->set & POOL_SET_UID)
		region->uid = req->attr.uid;
	if (req->set & POOL_SET_GID)
		region->gid = req->attr.gid;
	if (req->set & POOL_SET_ATIME)
		region->atime_ns = req->attr.atime_ns;
	if (req->set & POOL_SET_MTIME)
		atomic_store(&region->mtime_ns, req->attr.mtime_ns);
	region->ctime_ns = req->set & POOL_SET_CTIME ? req->attr.ctime_ns : region_now_ns();
}

/* SETATTR after its resize, if any; also CLOSE of a handle that wrote: the catalogue gets the
 * attributes as they are now. */
static int do_setattr(struct local_pool *lp, struct pool_req *req)
{
	struct region *region;
	char *name = NULL;

	pthread_mutex_lock(&lp->mu);
	region = find_id(lp, req->id);
	if (!region && req->handle)
		region = ((struct region_handle *)req->handle)->region;
	if (region) {
		set_attr_locked(region, req);
		atomic_store(&region->dirty, false);
		region_get_attr(region, req->session, &req->attr);
		name = region->name && lp->cat ? strdup(region->name) : NULL;
	}
	pthread_mutex_unlock(&lp->mu);
	if (!region)
		return -ESTALE;
	if (name) {
		int rc = remember(lp, name, &req->attr);

		free(name);
		return rc;
	}
	return 0;
}

static void close_handle(struct local_pool *lp, struct handle *handle)
{
	struct region_handle *rh = (struct region_handle *)handle;
	struct region *region = rh->region;
	bool ended;

	pthread_mutex_lock(&lp->mu);
	region->handles--;
	region->pins -= handle->flags & POOL_PIN ? 1 : 0;
	ended = region_ended(lp, region);
	pthread_mutex_unlock(&lp->mu);
	store_destroy(&handle->store);
	if (ended)
		region_free(lp, region);
}

/* The catalogue is told what a writer has left behind, then the handle goes. */
static int do_close(struct local_pool *lp, struct pool_req *req)
{
	struct region *region = ((struct region_handle *)req->handle)->region;
	struct region_attr attr;
	char *name = NULL;

	if (lp->cat && atomic_exchange(&region->dirty, false)) {
		pthread_mutex_lock(&lp->mu);
		region_get_attr(region, req->session, &attr);
		name = region->name ? strdup(region->name) : NULL;
		pthread_mutex_unlock(&lp->mu);
	}
	if (name)
		remember(lp, name, &attr);
	free(name);
	close_handle(lp, req->handle);
	return 0;
}

static int change(struct local_pool *lp, struct pool_req *req)
{
	int rc;

	pthread_mutex_lock(&lp->ctl);
	switch (req->op) {
	case POOL_CREATE:
		rc = do_create(lp, req);
		break;
	case POOL_REMOVE:
		rc = do_remove(lp, req);
		break;
	case POOL_RENAME:
		rc = do_rename(lp, req);
		break;
	case POOL_SETATTR:
		rc = do_setattr(lp, req);
		break;
	case POOL_CLOSE:
		rc = do_close(lp, req);
		break;
	default:
		rc = do_setxattr(lp, req);
		break;
	}
	pthread_mutex_unlock(&lp->ctl);
	return rc;
}

/* ---- dispatch ---- */

/* Between submit and done of a change: which pool, since pool_req does not say. */
struct change {
	struct local_pool *lp;
	struct pool_req *req;
	struct store_req resize;
	struct region *region; /* being resized: a reference */
};

static void change_run(struct work *work)
{
	struct pool_req *req = (struct pool_req *)((char *)work - offsetof(struct pool_req, work));

	req->err = change(req->owner, req);
}

static void change_done(struct work *work)
{
	struct pool_req *req = (struct pool_req *)((char *)work - offsetof(struct pool_req, work));

	pool_complete(req, req->err);
}

static void start_change(struct local_pool *lp, struct pool_req *req)
{
	if (!lp->cat) {
		pool_complete(req, change(lp, req));
		return;
	}
	req->owner = lp;
	req->work = (struct work){.run = change_run, .done = change_done};
	workers_submit(lp->workers, &req->work);
}

static void resize_done(struct store_req *sreq, int err)
{
	struct change *c = (struct change *)((char *)sreq - offsetof(struct change, resize));
	struct local_pool *lp = c->lp;
	struct pool_req *req = c->req;

	if (err == 0) {
		atomic_store(&c->region->size, c->resize.off);
		region_touch(c->region, req->session);
	}
	region_put(lp, c->region);
	free(c);
	if (err)
		pool_complete(req, err);
	else
		start_change(lp, req);
}

/* Whether SETATTR may change the size; takes a reference on success. */
static int check_resize(struct local_pool *lp, const struct pool_req *req, struct region **ret_region)
{
	struct region_handle *rh = (struct region_handle *)req->handle;
	struct region *region;
	int rc = 0;

	if (req->attr.size > lp->pool.size_max)
		return -EFBIG;
	pthread_mutex_lock(&lp->mu);
	region = rh ? rh->region : find_id(lp, req->id);
	if (!region)
		rc = -ESTALE;
	else if (region->pins && req->attr.size != atomic_load(&region->size))
		rc = -EBUSY;
	else if (rh && !(rh->handle.flags & POOL_WRITE))
		rc = -EBADF;
	else if (!rh || !rh->created)
		rc = pool_check_mode(atomic_load(&region->mode), POOL_WRITE);
	if (rc == 0) {
		region->refs++;
		*ret_region = region;
	}
	pthread_mutex_unlock(&lp->mu);
	return rc;
}

static void start_resize(struct local_pool *lp, struct pool_req *req)
{
	struct region *region;
	int rc = check_resize(lp, req, &region);
	struct change *c = rc ? NULL : calloc(1, sizeof(*c));

	if (rc == 0 && !c) {
		region_put(lp, region);
		rc = -ENOMEM;
	}
	if (rc) {
		pool_complete(req, rc);
		return;
	}
	c->lp = lp;
	c->req = req;
	c->region = region;
	c->resize.op = STORE_RESIZE;
	c->resize.off = req->attr.size;
	c->resize.done = resize_done;
	store_submit(region->store, &c->resize);
}

static void local_submit(struct pool *pool, struct pool_req *req)
{
	struct local_pool *lp = (struct local_pool *)pool;
	int rc;

	switch (req->op) {
	case POOL_LOOKUP:
	case POOL_GETATTR:
		rc = do_lookup(lp, req);
		break;
	case POOL_LIST:
		rc = do_list(lp, req);
		break;
	case POOL_STATFS:
		rc = do_statfs(lp, req);
		break;
	case POOL_OPEN:
		rc = do_open(lp, req);
		break;
	case POOL_GETXATTR:
		rc = do_getxattr(lp, req);
		break;
	case POOL_LISTXATTR:
		rc = do_listxattr(lp, req);
		break;
	case POOL_SETATTR:
		if (req->set & POOL_SET_SIZE)
			start_resize(lp, req);
		else
			start_change(lp, req);
		return;
	case POOL_CLOSE:
		if (lp->cat && atomic_load(&((struct region_handle *)req->handle)->region->dirty)) {
			start_change(lp, req);
			return;
		}
		close_handle(lp, req->handle);
		rc = 0;
		break;
	default:
		start_change(lp, req);
		return;
	}
	pool_complete(req, rc);
}

/* ---- life ---- */

struct load {
	struct local_pool *lp;
	struct err *err;
	int rc;
};

static void load_region(void *ctx, const char *name, const struct region_attr *saved)
{
	struct load *load = ctx;
	struct local_pool *lp = load->lp;
	struct region_attr attr = *saved;
	struct store_stat stat = {0};
	struct store *store;
	struct region *region;

	if (load->rc)
		return;
	load->rc = lp->backend->ops->region_open(lp->backend, attr.id, false, &store, load->err);
	if (load->rc)
		return;
	/* The bytes know best how many they are, and if they changed after the catalogue was told. */
	store_stat(store, &stat);
	attr.size = stat.size;
	if (stat.mtime_ns > attr.ctime_ns)
		attr.mtime_ns = stat.mtime_ns;
	if (attr.version < (uint64_t)region_now_ns())
		attr.version = (uint64_t)region_now_ns();
	load->rc = table_reserve(lp);
	region = region_create(name, &attr, store);
	if (!region || load->rc) {
		region_destroy(region);
		load->rc = err_set(load->err, -ENOMEM, "out of memory for the regions");
		return;
	}
	table_insert(lp, region);
}

static void load_xattr(void *ctx, uint64_t id, const char *name, const void *value, size_t len)
{
	struct load *load = ctx;
	struct region *region = find_id(load->lp, id);

	if (load->rc == 0 && region)
		region_xattr_set(region, name, value ? value : "", len, 0);
}

static void load_orphan(void *ctx, uint64_t id)
{
	struct load *load = ctx;
	struct local_pool *lp = load->lp;

	if (find_id(lp, id))
		return;
	log_info("pool \"%s\": deleting the bytes of region %llu, which was removed before", lp->pool.name,
	    (unsigned long long)id);
	lp->backend->ops->region_remove(lp->backend, id, NULL);
}

static int load(struct local_pool *lp, const struct local_pool_conf *conf, struct err *err)
{
	struct load load = {.lp = lp, .err = err};
	int rc = catalogue_open(conf->state_dir, conf->name, &lp->cat, lp->uuid, err);

	if (rc)
		return rc;
	if (lp->backend->ops->claim) {
		rc = lp->backend->ops->claim(lp->backend, lp->uuid, err);
		if (rc)
			return rc;
	}
	rc = catalogue_load(lp->cat, load_region, load_xattr, &load, err);
	if (rc == 0)
		rc = load.rc;
	if (rc == 0)
		rc = lp->backend->ops->region_list(lp->backend, load_orphan, &load, err);
	return rc;
}

/* The one region of a pool that is a single file or piece of memory. */
static int load_single(struct local_pool *lp, const struct local_pool_conf *conf, struct err *err)
{
	struct region_attr attr = {.id = 2, .mode = 0600, .nlink = 1};
	struct store_stat stat = {0};
	struct store *store;
	struct region *region;
	int rc = lp->backend->ops->region_open(lp->backend, attr.id, !lp->backend->persistent, &store, err);

	if (rc)
		return rc;
	store_stat(store, &stat);
	attr.size = lp->backend->persistent ? stat.size : lp->backend->quota.limit;
	attr.atime_ns = attr.ctime_ns = region_now_ns();
	attr.mtime_ns = stat.mtime_ns ? stat.mtime_ns : attr.ctime_ns;
	attr.version = (uint64_t)attr.ctime_ns;
	region = region_create(conf->single, &attr, store);
	if (!region || table_reserve(lp)) {
		region_destroy(region);
		return err_set(err, -ENOMEM, "out of memory for the region");
	}
	table_insert(lp, region);
	lp->pool.fixed = true;
	return 0;
}

static void local_destroy(struct pool *pool)
{
	struct local_pool *lp = (struct local_pool *)pool;

	pthread_mutex_lock(&lp->mu);
	while (lp->frees)
		pthread_cond_wait(&lp->freed, &lp->mu);
	pthread_mutex_unlock(&lp->mu);
	for (size_t i = 0; i < lp->count; i++) {
		struct region *region = lp->by_id[i];
		struct region_attr attr;

		assert(region->handles == 0 && region->refs == 0);
		region_get_attr(region, 1, &attr);
		remember(lp, region->name, &attr);
		region_destroy(region);
	}
	free(lp->by_id);
	catalogue_close(lp->cat);
	backend_close(lp->backend);
	pthread_mutex_destroy(&lp->ctl);
	pthread_mutex_destroy(&lp->mu);
	pthread_cond_destroy(&lp->freed);
	free(lp->stats);
	free(lp);
}

static const struct pool_ops local_ops = {
    .name = "local",
    .submit = local_submit,
    .destroy = local_destroy,
};

int local_pool_create(const struct local_pool_conf *conf, struct workers *workers,
    struct pool **ret_pool, struct err *err)
{
	struct local_pool *lp = calloc(1, sizeof(*lp));
	struct timespec ts;
	int rc;

	if (lp)
		lp->stats = calloc(1, sizeof(*lp->stats));
	if (!lp || !lp->stats) {
		free(lp);
		return err_set(err, -ENOMEM, "out of memory for a pool");
	}
	lp->pool.ops = &local_ops;
	lp->pool.name = conf->name;
	lp->workers = workers;
	pthread_mutex_init(&lp->ctl, NULL);
	pthread_mutex_init(&lp->mu, NULL);
	pthread_cond_init(&lp->freed, NULL);
	rc = backend_open(conf->uri, conf->single != NULL, workers, &lp->backend, err);
	if (rc)
		goto fail;
	lp->pool.size_max = lp->backend->quota.limit < INT64_MAX ? lp->backend->quota.limit : INT64_MAX;
	if (conf->single) {
		rc = load_single(lp, conf, err);
	} else if (lp->backend->persistent) {
		rc = load(lp, conf, err);
	} else {
		/* Ids of an earlier life of this pool must not come again: clients may still hold them. */
		clock_gettime(CLOCK_REALTIME, &ts);
		lp->next_id = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
		rc = getrandom(lp->uuid, sizeof(lp->uuid), 0) == sizeof(lp->uuid) ? 0 : -EIO;
	}
	if (rc)
		goto fail;
	*ret_pool = &lp->pool;
	return 0;
fail:
	local_destroy(&lp->pool);
	return rc;
}

const uint8_t *local_pool_uuid(const struct pool *pool)
{
	return ((const struct local_pool *)pool)->uuid;
}

struct store_stats *local_pool_stats(struct pool *pool)
{
	return ((struct local_pool *)pool)->stats;
}

void local_pool_close(struct pool *pool, struct handle *handle)
{
	close_handle((struct local_pool *)pool, handle);
}
