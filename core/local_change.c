/* SPDX-License-Identifier: Apache-2.0
 *
 * The requests that change a pool: one at a time (ctl is held), on a worker thread if there is a
 * catalogue.  What is to be remembered is in the catalogue before it is in memory.  See local_pool.c.
 */
#include "core/local_pool_int.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"

int local_remember(struct local_pool *lp, struct region *region, const char *name,
    const struct region_attr *attr, const struct catalogue_writer *writer)
{
	struct err err = {0};
	int rc;

	if (!lp->cat)
		return 0;
	rc = catalogue_put(lp->cat, name, attr, writer, &err);
	if (rc) {
		log_error("pool \"%s\": %s", lp->pool.name, err.text);
	} else if (region) {
		pthread_mutex_lock(&lp->mu);
		region->told = *writer;
		pthread_mutex_unlock(&lp->mu);
	}
	return rc;
}

/* What the catalogue would be told of a region; mu held.  The name (NULL: it has none, or no memory is left)
 * is the caller's to free. */
static char *describe_locked(
    struct region *region, struct region_attr *ret_attr, struct catalogue_writer *ret_writer)
{
	region_get_attr(region, atomic_load(&region->writer), ret_attr);
	lease_writer_now(region, ret_writer);
	return region->name ? strdup(region->name) : NULL;
}

/* local_announce with ctl held. */
static int announce(struct local_pool *lp, struct region *region)
{
	struct catalogue_writer writer;
	struct region_attr attr;
	char *name;
	bool known;
	int rc = 0;

	pthread_mutex_lock(&lp->mu);
	name = describe_locked(region, &attr, &writer);
	known = region->told.writing && region->told.writer == writer.writer;
	rc = region->name && !name ? -ENOMEM : 0;
	pthread_mutex_unlock(&lp->mu);
	if (name && writer.writing && !known)
		rc = local_remember(lp, region, name, &attr, &writer);
	free(name);
	return rc;
}

int local_announce(struct local_pool *lp, struct region *region)
{
	int rc;

	pthread_mutex_lock(&lp->ctl);
	rc = announce(lp, region);
	pthread_mutex_unlock(&lp->ctl);
	return rc;
}

static int new_region(struct local_pool *lp, struct pool_req *req, struct region **ret_region)
{
	bool writes = req->flags & POOL_WRITE && !(req->flags & POOL_NO_OPEN);
	struct catalogue_writer writer = {.writing = writes};
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
	/* The catalogue must not know what the backend may forget in a power failure. */
	if (rc == 0 && lp->backend->ops->sync) {
		rc = lp->backend->ops->sync(lp->backend);
		if (rc) {
			err_sys(&err, rc, "%s", req->name);
			store_destroy(store);
			lp->backend->ops->region_remove(lp->backend, attr.id, NULL);
		}
	}
	if (rc) {
		log_error("pool \"%s\": cannot create region \"%s\": %s", lp->pool.name, req->name,
		    err.text);
		return rc == -EMFILE || rc == -ENFILE ? -ENOSPC : rc;
	}
	writer.base = attr.version + 1;
	if (writes && req->who && !(req->flags & POOL_SHARED))
		writer.writer = req->who->writer;
	rc = local_remember(lp, NULL, req->name, &attr, &writer);
	if (rc == 0) {
		*ret_region = region_create(req->name, &attr, store);
		if (*ret_region) {
			local_adopt(lp, *ret_region);
			(*ret_region)->told = writer;
			return 0;
		}
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
static int create_answer_locked(
    struct local_pool *lp, struct pool_req *req, struct region *region, bool created)
{
	int rc = req->flags & POOL_NO_OPEN ? 0 : local_open_locked(lp, region, req, created);

	if (rc == 0)
		region_get_attr(region, pool_req_writer(req), &req->attr);
	return rc;
}

static int create(struct local_pool *lp, struct pool_req *req)
{
	struct region *region;
	int rc;

	pthread_mutex_lock(&lp->mu);
	region = region_table_find_name(&lp->table, req->name);
	if (region) {
		rc = req->flags & POOL_EXCLUSIVE ? -EEXIST
						 : create_answer_locked(lp, req, region, false);
		pthread_mutex_unlock(&lp->mu);
		return rc;
	}
	rc = region_table_reserve(&lp->table);
	pthread_mutex_unlock(&lp->mu);
	if (rc == 0)
		rc = lp->pool.fixed ? -EPERM : new_region(lp, req, &region);
	if (rc)
		return rc;
	pthread_mutex_lock(&lp->mu);
	region_table_insert(&lp->table, region);
	rc = create_answer_locked(lp, req, region, true);
	pthread_mutex_unlock(&lp->mu);
	return rc;
}

/* OPEN for writing, CREATE: the catalogue hears of the new writer before the opener does. */
static int do_open(struct local_pool *lp, struct pool_req *req)
{
	int rc = req->op == POOL_CREATE ? create(lp, req) : local_open(lp, req);

	if (rc || !lp->cat || !req->ret_handle || !(req->ret_handle->flags & POOL_WRITE))
		return rc;
	rc = announce(lp, ((struct region_handle *)req->ret_handle)->region);
	if (rc) {
		local_close_handle(lp, req->ret_handle);
		req->ret_handle = NULL;
	}
	return rc;
}

static int do_remove(struct local_pool *lp, struct pool_req *req)
{
	struct region *region;
	struct err err = {0};
	bool ended = false;
	int rc = 0;

	if (lp->pool.fixed)
		return -EPERM;
	pthread_mutex_lock(&lp->mu);
	region = region_table_find_name(&lp->table, req->name);
	if (!region)
		rc = -ENOENT;
	else if (region->pins)
		rc = lease_pinned(region, req);
	else
		region->leaving = true;
	pthread_mutex_unlock(&lp->mu);
	if (rc)
		return rc;
	if (lp->cat)
		rc = catalogue_remove(lp->cat, region->id, &err);
	pthread_mutex_lock(&lp->mu);
	region->leaving = false;
	if (rc == 0) {
		region_table_remove(&lp->table, region);
		ended = local_region_ended(lp, region);
	}
	pthread_mutex_unlock(&lp->mu);
	if (rc)
		log_error("pool \"%s\": %s", lp->pool.name, err.text);
	if (ended)
		local_region_free(lp, region);
	return rc;
}

/* Whether `region` may get a new name, in place of `other` (NULL: nobody has it). */
static int check_rename_locked(
    struct pool_req *req, const struct region *region, const struct region *other)
{
	if (!region)
		return -ENOENT;
	if (other && (req->flags & POOL_NOREPLACE))
		return -EEXIST;
	if (!other && (req->flags & POOL_EXCHANGE))
		return -ENOENT;
	if (region->pins)
		return lease_pinned(region, req);
	if (other && other->pins) /* who has it does not have what req->name names */
		return -EBUSY;
	if (other && other != region && !(req->flags & POOL_EXCHANGE) && other->handles)
		return -EBUSY;
	return 0;
}

/* While the catalogue is told, nobody opens what is about to move. */
static void set_leaving_locked(struct region *region, struct region *other, bool leaving)
{
	region->leaving = leaving;
	if (other)
		other->leaving = leaving;
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
	region = region_table_find_name(&lp->table, req->name);
	other = region_table_find_name(&lp->table, req->new_name);
	if (rc == 0)
		rc = check_rename_locked(req, region, other);
	if (rc == 0 && other != region)
		set_leaving_locked(region, other, true);
	pthread_mutex_unlock(&lp->mu);
	if (rc || other == region)
		goto out;
	if (lp->cat)
		rc = catalogue_rename(lp->cat, region->id, new_name, other ? other->id : 0,
		    exchange ? old_name : NULL, &err);
	pthread_mutex_lock(&lp->mu);
	set_leaving_locked(region, other, false);
	if (rc) {
		pthread_mutex_unlock(&lp->mu);
		log_error("pool \"%s\": %s", lp->pool.name, err.text);
		goto out;
	}
	if (other && !exchange) {
		region_table_remove(&lp->table, other);
		ended = local_region_ended(lp, other);
	}
	region_table_rename(&lp->table, region, new_name);
	new_name = NULL;
	if (other && exchange) {
		region_table_rename(&lp->table, other, old_name);
		old_name = NULL;
	}
	region->ctime_ns = region_now_ns();
	pthread_mutex_unlock(&lp->mu);
	if (ended)
		local_region_free(lp, other);
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
	region = region_table_find_id(&lp->table, req->id);
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

/* SETATTR after its resize, if any: the catalogue gets the attributes as they are now. */
static int do_setattr(struct local_pool *lp, struct pool_req *req)
{
	struct catalogue_writer writer;
	struct region *region;
	char *name = NULL;

	pthread_mutex_lock(&lp->mu);
	region = region_table_find_id(&lp->table, req->id);
	if (!region && req->handle)
		region = ((struct region_handle *)req->handle)->region;
	if (region) {
		set_attr_locked(region, req);
		atomic_store(&region->dirty, false);
		region_get_attr(region, pool_req_writer(req), &req->attr);
		lease_writer_now(region, &writer);
		name = region->name && lp->cat ? strdup(region->name) : NULL;
	}
	pthread_mutex_unlock(&lp->mu);
	if (!region)
		return -ESTALE;
	if (name) {
		int rc = local_remember(lp, region, name, &req->attr, &writer);

		free(name);
		return rc;
	}
	return 0;
}

/* The catalogue is told what a writer has left behind, then the handle goes. */
static int do_close(struct local_pool *lp, struct pool_req *req)
{
	struct region_handle *rh = (struct region_handle *)req->handle;
	struct region *region = rh->region;
	struct catalogue_writer writer;
	struct region_attr attr;
	char *name = NULL;
	bool news;

	if (lp->cat) {
		pthread_mutex_lock(&lp->mu);
		lease_drop(rh);
		news = atomic_exchange(&region->dirty, false);
		name = describe_locked(region, &attr, &writer);
		news = news || region->told.writing != writer.writing;
		pthread_mutex_unlock(&lp->mu);
	}
	if (name && news)
		local_remember(lp, region, name, &attr, &writer);
	free(name);
	local_close_handle(lp, req->handle);
	return 0;
}

int local_change(struct local_pool *lp, struct pool_req *req)
{
	int rc;

	pthread_mutex_lock(&lp->ctl);
	switch (req->op) {
	case POOL_CREATE:
	case POOL_OPEN:
		rc = do_open(lp, req);
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
