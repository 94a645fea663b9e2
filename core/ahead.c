/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading ahead: the pool, which passes everything on, and wraps the handles that hold a lease, also those that
 * only write: what they change must not be answered from memory.
 *
 * A wrapped handle's data requests are ahead_read.c's.  Its CLOSE waits for the segments that are being read
 * through it; if the donor is away, they end early.
 *
 * Invariants:
 *   1. ahead->asking lists the requests that are under way below in a copy of ours.
 *   2. The lower handle of a wrapped one is open, and closed with it.
 */
#include "core/ahead_int.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* A request whose outcome concerns us: what is under way below is a copy. */
struct asking {
	struct asking *next;
	struct ahead *ahead;
	struct pool_req *outer;
	struct ahead_handle *ah; /* OPEN, CREATE: for the handle that will be wrapped, or NULL */
	struct pool_req req;
};

static struct ahead_handle *wrapped(struct handle *handle)
{
	return handle && handle->store.ops == &ahead_store_ops ? (struct ahead_handle *)handle
							       : NULL;
}

static struct handle *unwrap(struct handle *handle)
{
	return wrapped(handle) ? wrapped(handle)->lower : handle;
}

static void forget_region(struct ahead *ahead, uint64_t region)
{
	ahead_forget(ahead, region, 0, UINT64_MAX);
}

/* Every one that may write without others beside it. */
static bool is_wrapped(unsigned flags)
{
	return (flags & (POOL_WRITE | POOL_SHARED)) == POOL_WRITE;
}

static struct handle *wrap(struct ahead *ahead, struct ahead_handle *ah, struct handle *lower)
{
	assert(lower->store.align == 1 && lower->store.max_len >= AHEAD_SEGMENT);
	store_init(&ah->handle.store, &ahead_store_ops, lower->store.size);
	ah->handle.store.max_len = lower->store.max_len;
	ah->handle.store.stats =
	    lower->store.stats; /* what is asked of us counts, not what we ask */
	lower->store.stats = NULL;
	ah->handle.region_id = lower->region_id;
	ah->handle.number = lower->number;
	ah->handle.flags = lower->flags;
	ah->lower = lower;
	ah->ahead = ahead;
	ah->next = ahead->handles;
	ahead->handles = ah;
	return &ah->handle;
}

void ahead_lost(struct ahead *ahead, uint64_t region)
{
	for (struct ahead_handle *ah = ahead->handles; ah; ah = ah->next)
		if (ah->handle.region_id == region)
			ah->lost = true;
	forget_region(ahead, region);
}

/* ---- requests ---- */

static void asked(struct pool_req *req, int err)
{
	struct asking *asking = (struct asking *)((char *)req - offsetof(struct asking, req));
	struct ahead *ahead = asking->ahead;
	struct pool_req *outer = asking->outer;
	pool_done_fn *done = outer->done;
	struct ahead_handle *ah = asking->ah;
	struct handle *handle = outer->handle;
	struct asking **link = &ahead->asking;

	while (*link != asking)
		link = &(*link)->next;
	*link = asking->next;
	*outer = asking->req;
	outer->done = done;
	outer->handle = handle;
	free(asking);
	if (outer->op == POOL_SETATTR)
		forget_region(ahead, outer->id);
	if (ah && err == 0 && outer->ret_handle && is_wrapped(outer->ret_handle->flags))
		outer->ret_handle = wrap(ahead, ah, outer->ret_handle);
	else
		free(ah);
	pool_complete(outer, err);
}

static void ask(struct ahead *ahead, struct pool_req *outer)
{
	struct asking *asking = calloc(1, sizeof(*asking));

	/* Before the donor is asked, so that no handle that writes is without. */
	if (asking && outer->op != POOL_SETATTR)
		asking->ah = calloc(1, sizeof(*asking->ah));
	if (!asking || (outer->op != POOL_SETATTR && !asking->ah)) {
		free(asking);
		pool_complete(outer, -ENOMEM);
		return;
	}
	asking->ahead = ahead;
	asking->outer = outer;
	asking->req = *outer;
	asking->req.handle = unwrap(outer->handle);
	asking->req.ret_handle = NULL;
	asking->req.done = asked;
	asking->next = ahead->asking;
	ahead->asking = asking;
	pool_submit(ahead->lower, &asking->req);
}

void ahead_left(struct ahead_handle *ah)
{
	struct ahead *ahead = ah->ahead;
	struct pool_req *req = ah->closing;
	struct ahead_handle **link = &ahead->handles;

	while (*link != ah)
		link = &(*link)->next;
	*link = ah->next;
	req->handle = ah->lower;
	ah->lower->store.stats = ah->handle.store.stats;
	forget_region(ahead, ah->handle.region_id);
	store_destroy(&ah->handle.store);
	pool_submit(ahead->lower, req);
}

static void close_handle(struct ahead_handle *ah, struct pool_req *req)
{
	ah->closing = req;
	ah->coming++; /* not before all have been interrupted */
	forget_region(ah->ahead, ah->handle.region_id);
	ahead_interrupt(ah);
	if (--ah->coming == 0)
		ahead_left(ah);
}

static void ahead_pool_submit(struct pool *pool, struct pool_req *req)
{
	struct ahead *ahead = (struct ahead *)pool;

	switch (req->op) {
	case POOL_OPEN:
	case POOL_CREATE:
	case POOL_SETATTR:
		ask(ahead, req);
		return;
	case POOL_CLOSE:
		if (wrapped(req->handle)) {
			close_handle(wrapped(req->handle), req);
			return;
		}
		break;
	default:
		req->handle = unwrap(req->handle);
		break;
	}
	pool_submit(ahead->lower, req);
}

static void ahead_pool_interrupt(struct pool *pool, struct pool_req *req)
{
	struct ahead *ahead = (struct ahead *)pool;
	struct asking *asking = ahead->asking;

	while (asking && asking->outer != req)
		asking = asking->next;
	pool_interrupt(ahead->lower, asking ? &asking->req : req);
}

static void notified(void *ctx, const struct pool_notice *notice)
{
	struct ahead *ahead = ctx;

	forget_region(ahead, notice->id);
	if (ahead->pool.notify)
		ahead->pool.notify(ahead->pool.notify_ctx, notice);
}

/* ---- life ---- */

static void ahead_pool_destroy(struct pool *pool)
{
	struct ahead *ahead = (struct ahead *)pool;

	ahead->lower->notify = NULL;
	for (unsigned i = 0; i < AHEAD_SEGMENTS; i++)
		if (ahead->segments[i].buf)
			bufpool_put(ahead->bufs, ahead->segments[i].buf);
	bufpool_destroy(ahead->bufs);
	free(ahead);
}

static const struct pool_ops ahead_pool_ops = {
    .name = "ahead",
    .submit = ahead_pool_submit,
    .interrupt = ahead_pool_interrupt,
    .destroy = ahead_pool_destroy,
};

int ahead_pool_create(struct pool *lower, bool touch, struct pool **ret_pool, struct err *err)
{
	struct ahead *ahead = calloc(1, sizeof(*ahead));
	int rc;

	if (!ahead)
		return err_set(err, -ENOMEM, "out of memory for reading ahead");
	rc = bufpool_create(AHEAD_SEGMENT, AHEAD_SEGMENTS, touch, &ahead->bufs, err);
	if (rc) {
		free(ahead);
		return rc;
	}
	for (unsigned i = 0; i < AHEAD_SEGMENTS; i++)
		ahead->segments[i].buf = bufpool_get(ahead->bufs);
	ahead->pool = *lower;
	ahead->pool.ops = &ahead_pool_ops;
	ahead->pool.notify = NULL;
	ahead->lower = lower;
	lower->notify = notified;
	lower->notify_ctx = ahead;
	*ret_pool = &ahead->pool;
	return 0;
}

void ahead_pool_stats(const struct pool *pool, struct ahead_stats *ret_stats)
{
	*ret_stats = ((const struct ahead *)pool)->stats;
}
