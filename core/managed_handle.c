/* SPDX-License-Identifier: Apache-2.0
 *
 * Handles of the managed pool: the cache's, with a thin store above it that sees what goes by: when
 * something was written (mtime), and what is read (recordings).  A READ costs two comparisons more than the
 * cache's own.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/managed_int.h"

static struct managed_handle *handle_of(struct store *store)
{
	return (struct managed_handle *)store;
}

static void submit(struct store *store, struct store_req *req)
{
	struct managed_handle *mh = handle_of(store);
	struct managed_entry *entry = mh->entry;

	switch (req->op) {
	case STORE_READ:
		if (mh->recorded)
			record_note(entry, req->off, req->len);
		break;
	case STORE_WRITE:
	case STORE_ZERO:
	case STORE_ALLOC:
		entry->mtime_ns = meta_now_ns();
		entry->wrote = true;
		break;
	case STORE_RESIZE: /* through POOL_SETATTR */
		store_complete(req, -EINVAL);
		return;
	default:
		break;
	}
	store_forward(&mh->ch->handle.store, req);
}

static void interrupt(struct store *store, struct store_req *req)
{
	struct store *lower = &handle_of(store)->ch->handle.store;

	if (lower->ops->interrupt)
		lower->ops->interrupt(lower, req);
}

static void *lend(struct store *store, uint64_t off, uint32_t len)
{
	return store_lower_lend(&handle_of(store)->ch->handle.store, off, len);
}

static void unlend(struct store *store, uint64_t off, uint32_t len)
{
	store_lower_unlend(&handle_of(store)->ch->handle.store, off, len);
}

static int stat_handle(struct store *store, struct store_stat *ret_stat)
{
	return store_stat(&handle_of(store)->ch->handle.store, ret_stat);
}

static void destroy(struct store *store)
{
	store_destroy(&handle_of(store)->ch->handle.store);
	free(store);
}

static const struct store_ops ops = {
    .name = "managed",
    .submit = submit,
    .interrupt = interrupt,
    .lend = lend,
    .unlend = unlend,
    .stat = stat_handle,
    .destroy = destroy,
};

int handle_create(
    struct managed_entry *entry, const struct pool_req *req, struct handle **ret_handle)
{
	struct managed_handle *mh = calloc(1, sizeof(*mh));
	int rc = mh ? cache_handle_create(
			  entry->cache, req->flags & (POOL_READ | POOL_WRITE), &mh->ch, NULL)
		    : -ENOMEM;

	if (rc) {
		free(mh);
		return rc;
	}
	store_init(&mh->handle.store, &ops, mh->ch->handle.store.size);
	mh->handle.store.stats = &entry->managed->stats;
	mh->handle.region_id = entry->id;
	mh->handle.number = req->number;
	mh->handle.flags = req->flags & (POOL_READ | POOL_WRITE);
	mh->ch->handle.region_id = entry->id;
	mh->ch->handle.number = req->number;
	mh->entry = entry;
	mh->recorded = record_on(entry);
	entry->opens++;
	entry->open_writers += (mh->handle.flags & POOL_WRITE) != 0;
	*ret_handle = &mh->handle;
	return 0;
}

void handle_close(struct handle *handle)
{
	struct managed_handle *mh = (struct managed_handle *)handle;
	struct managed_entry *entry = mh->entry;
	unsigned flags = handle->flags;

	entry->opens--;
	entry->open_writers -= (flags & POOL_WRITE) != 0;
	store_destroy(&handle->store);
	entry_put(entry, flags);
}
