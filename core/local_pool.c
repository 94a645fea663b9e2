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
 *   nameless and no handle and no refs → freed on a worker (local_region_free): unmapping memory and
 *   deleting files takes long.
 *
 * Invariants:
 *   1. region->handles counts the handles given out; a nameless region lives while handles or refs > 0.
 *   2. Before a session may change bytes the catalogue knows that it may (local_announce): after a crash
 *      a version that it holds for unchanged is so.
 * Locking: ctl, then mu (the one pair of locks that is taken together); neither is held across
 * submit, complete or done.  ctl is never taken on a loop thread of a pool that has a catalogue.
 */
#include "core/local_pool_int.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"

/* ---- freeing ---- */

struct region_free {
	struct work work;
	struct local_pool *lp;
	struct region *region;
};

static void region_free_run(struct work *work)
{
	struct region_free *rf =
	    (struct region_free *)((char *)work - offsetof(struct region_free, work));
	struct local_pool *lp = rf->lp;
	uint64_t id = rf->region->id;
	struct err err = {0};

	region_destroy(rf->region);
	if (lp->backend->ops->region_remove(lp->backend, id, &err))
		log_error("pool \"%s\": cannot delete the bytes of a removed region: %s",
		    lp->pool.name, err.text);
	free(rf);
	pthread_mutex_lock(&lp->mu);
	lp->frees--;
	pthread_cond_broadcast(&lp->freed);
	pthread_mutex_unlock(&lp->mu);
}

/* True if the region has come to its end; mu held.  The caller then calls region_free without mu. */
bool local_region_ended(struct local_pool *lp, struct region *region)
{
	if (region->name || region->handles || region->refs)
		return false;
	lp->frees++;
	return true;
}

static void discard_done(struct store_req *req, int err)
{
}

void local_region_free(struct local_pool *lp, struct region *region)
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
	ended = local_region_ended(lp, region);
	pthread_mutex_unlock(&lp->mu);
	if (ended)
		local_region_free(lp, region);
}

void local_close_handle(struct local_pool *lp, struct handle *handle)
{
	struct region_handle *rh = (struct region_handle *)handle;
	struct region *region = rh->region;
	bool ended;

	pthread_mutex_lock(&lp->mu);
	region->handles--;
	region->pins -= handle->flags & POOL_PIN ? 1 : 0;
	lease_closed(rh);
	ended = local_region_ended(lp, region);
	pthread_mutex_unlock(&lp->mu);
	store_destroy(&handle->store);
	if (ended)
		local_region_free(lp, region);
}

/* ---- requests that look ---- */

static int do_lookup(struct local_pool *lp, struct pool_req *req)
{
	struct region *region;

	pthread_mutex_lock(&lp->mu);
	region = req->op == POOL_LOOKUP ? region_table_find_name(&lp->table, req->name)
					: region_table_find_id(&lp->table, req->id);
	if (!region && req->op == POOL_GETATTR && req->handle)
		region = ((struct region_handle *)req->handle)->region;
	if (region)
		region_get_attr(region, pool_req_writer(req), &req->attr);
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
	for (size_t i = region_table_index(&lp->table, req->cookie + 1); i < lp->table.count; i++) {
		struct region *region = lp->table.by_id[i];
		struct pool_dirent ent = {
		    .next_cookie = region->id, .name_len = (uint32_t)strlen(region->name)};
		size_t len = sizeof(ent) + ((ent.name_len + 7u) & ~7u);

		if (used + len > req->len) {
			rc = used ? 0 : -EINVAL;
			req->ret_cookie = used ? lp->table.by_id[i - 1]->id : 0;
			break;
		}
		region_get_attr(region, pool_req_writer(req), &ent.attr);
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
	req->statfs.regions = lp->table.count;
	pthread_mutex_unlock(&lp->mu);
	return 0;
}

int local_open_locked(
    struct local_pool *lp, struct region *region, struct pool_req *req, bool created)
{
	int rc = created ? 0 : pool_check_mode(atomic_load(&region->mode), req->flags);
	struct region_handle *rh;

	if (rc == 0)
		rc = lease_check_open(region, req, lp->pool.lease_ms);
	if (rc)
		return rc;
	rh = region_handle_create(region, req, lp->pool.size_max, created, lp->stats);
	if (!rh || lease_opened(rh, req)) {
		store_destroy(rh ? &rh->handle.store : NULL);
		return -ENOMEM;
	}
	region->handles++;
	if (req->flags & POOL_PIN) {
		region->pins++;
		region->pin_session = req->session;
	}
	req->ret_handle = &rh->handle;
	return 0;
}

int local_open(struct local_pool *lp, struct pool_req *req)
{
	struct region *region;
	int rc = -ESTALE; /* the opener looks the name up again */

	pthread_mutex_lock(&lp->mu);
	region = region_table_find_id(&lp->table, req->id);
	if (region && !region->leaving)
		rc = local_open_locked(lp, region, req, false);
	if (rc == 0) {
		req->ret_unchanged = region_unchanged(region, pool_req_writer(req), req->version);
		region_get_attr(region, pool_req_writer(req), &req->attr);
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
	region = region_table_find_id(&lp->table, req->id);
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
	region = region_table_find_id(&lp->table, req->id);
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
/* ---- dispatch ---- */

/* A change of size, between submit and done. */
struct change {
	struct local_pool *lp;
	struct pool_req *req;
	struct store_req resize;
	struct region *region; /* a reference */
	struct work announce;
	int err;
};

static void change_run(struct work *work)
{
	struct pool_req *req = (struct pool_req *)((char *)work - offsetof(struct pool_req, work));

	req->err = local_change(req->owner, req);
}

static void change_done(struct work *work)
{
	struct pool_req *req = (struct pool_req *)((char *)work - offsetof(struct pool_req, work));

	pool_complete(req, req->err);
}

static void start_change(struct local_pool *lp, struct pool_req *req)
{
	if (!lp->cat) {
		pool_complete(req, local_change(lp, req));
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

	/* What failed writes have left beyond the end is gone: now the region may grow. */
	if (err == 0 && c->resize.off != req->attr.size) {
		c->resize.off = req->attr.size;
		store_submit(c->region->store, &c->resize);
		return;
	}
	if (err == 0) {
		region_set_size(c->region, req->attr.size);
		region_touch(c->region, req->session, pool_req_writer(req));
	}
	region_put(lp, c->region);
	free(c);
	if (err)
		pool_complete(req, err);
	else
		start_change(lp, req);
}

/* Whether SETATTR may change the size; takes a reference on success. */
static int check_resize(struct local_pool *lp, struct pool_req *req, struct region **ret_region)
{
	struct region_handle *rh = (struct region_handle *)req->handle;
	struct region *region;
	int rc = 0;

	if (req->attr.size > lp->pool.size_max)
		return -EFBIG;
	pthread_mutex_lock(&lp->mu);
	region = rh ? rh->region : region_table_find_id(&lp->table, req->id);
	if (!region)
		rc = -ESTALE;
	else if (region->pins && req->attr.size != atomic_load(&region->size))
		rc = lease_pinned(region, req);
	else if (rh && !(rh->handle.flags & POOL_WRITE))
		rc = -EBADF;
	else if (!rh || !rh->created)
		rc = pool_check_mode(atomic_load(&region->mode), POOL_WRITE);
	if (rc == 0)
		rc = lease_check_resize(region, req, lp->pool.lease_ms);
	if (rc == 0) {
		region->resizer =
		    region->refs && region->resizer != req->session ? 0 : req->session;
		region->refs++;
		*ret_region = region;
	}
	pthread_mutex_unlock(&lp->mu);
	return rc;
}

/* The resize's own part; the catalogue knows who is going to change the bytes. */
static void resize(struct change *c)
{
	struct region *region = c->region;

	c->resize.op = STORE_RESIZE;
	c->resize.off = atomic_load(&region->size);
	if (c->resize.off > c->req->attr.size) {
		c->resize.off = c->req->attr.size;
		/* Before the bytes go: a write that comes meanwhile makes it longer again. */
		region_set_size(region, c->req->attr.size);
	}
	c->resize.done = resize_done;
	store_submit(region->store, &c->resize);
}

static void announce_run(struct work *work)
{
	struct change *c = (struct change *)((char *)work - offsetof(struct change, announce));

	c->err = local_announce(c->lp, c->region);
}

static void announce_done(struct work *work)
{
	struct change *c = (struct change *)((char *)work - offsetof(struct change, announce));
	struct pool_req *req = c->req;
	int rc = c->err;

	if (rc == 0) {
		resize(c);
		return;
	}
	region_put(c->lp, c->region);
	free(c);
	pool_complete(req, rc);
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
	if (!lp->cat) {
		resize(c);
		return;
	}
	c->announce = (struct work){.run = announce_run, .done = announce_done};
	workers_submit(lp->workers, &c->announce);
}

void local_pool_submit(struct pool *pool, struct pool_req *req)
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
		if (lp->cat && req->flags & POOL_WRITE) {
			start_change(lp, req);
			return;
		}
		rc = local_open(lp, req);
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
		if (lp->cat &&
		    (req->handle->flags & POOL_WRITE ||
			atomic_load(&((struct region_handle *)req->handle)->region->dirty))) {
			start_change(lp, req);
			return;
		}
		local_close_handle(lp, req->handle);
		rc = 0;
		break;
	default:
		start_change(lp, req);
		return;
	}
	pool_complete(req, rc);
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
	local_close_handle((struct local_pool *)pool, handle);
}

/* ---- notices ---- */

static void changed(struct region *region, uint64_t session, uint64_t writer)
{
	struct local_pool *lp = region->owner;

	pthread_mutex_lock(&lp->mu);
	region_move(region, writer);
	lease_changed(region, session);
	pthread_mutex_unlock(&lp->mu);
}

void local_adopt(struct local_pool *lp, struct region *region)
{
	region->owner = lp;
	region->changed = changed;
}

bool local_pool_next_notice(
    struct pool *pool, struct pool_session *ps, struct pool_notice *ret_notice)
{
	struct local_pool *lp = (struct local_pool *)pool;
	bool any;

	pthread_mutex_lock(&lp->mu);
	any = lease_next_notice(ps, ret_notice);
	pthread_mutex_unlock(&lp->mu);
	return any;
}

void local_pool_notice_ack(struct pool *pool, struct pool_session *ps, uint64_t id)
{
	struct local_pool *lp = (struct local_pool *)pool;

	pthread_mutex_lock(&lp->mu);
	lease_notice_ack(ps, id);
	pthread_mutex_unlock(&lp->mu);
}

void local_pool_notices_again(struct pool *pool, struct pool_session *ps)
{
	struct local_pool *lp = (struct local_pool *)pool;

	pthread_mutex_lock(&lp->mu);
	lease_notices_again(ps);
	pthread_mutex_unlock(&lp->mu);
}
