/* SPDX-License-Identifier: Apache-2.0
 *
 * The blocking adapter: runs a struct blk_ops on worker threads and completes on the submitting loop.
 *
 * A request's way:
 *   submit ─ pread_nowait had it, or EXTENTS without an op ─► completed inside submit
 *          ├ a slot is free ─► RUNNING: the slot is queued at the workers
 *          └ none is ───────► WAITING: in its loop's lane
 *   RUNNING ─ worker: the blk_ops call, then the slot's task is posted to the slot's loop
 *           ─ loop: the slot goes to the next WAITING request, or is free again; then store_complete
 * A request does not remember its loop, and its done must run there; so the waiting ones stand in
 * lanes, one per loop, served in turn.  A lane has a loop exactly while a request stands in it.
 *
 * Invariants:
 *   1. Each slot is free (in the free list or not used yet), or RUNNING with one request, for one
 *      loop.
 *   2. A request waits only while no slot is free.
 *   3. The slot of a completed request is free or running again before its done is called, so a done
 *      that submits more finds a place, and completions never nest inside each other.
 *
 * Locking: `mu` protects the free list and the lanes; it is not held while ops or done run.  A slot
 * that is RUNNING belongs to its worker, then to its loop.
 * Failure: what an op returns is what done gets.  Nothing here can fail after create.
 */
#include "core/blk.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

enum { LANES_MAX = 128 }; /* loops that can have requests waiting in one store */

struct blk_store;

struct slot {
	struct work work;
	struct loop_task task; /* runs on loop when the call has returned */
	struct blk_store *bs;
	struct store_req *req;
	struct loop *loop;
	int err;
	struct slot *next; /* in the free list */
};

struct lane {
	struct loop *loop; /* NULL: not in use */
	struct store_req *head, **tail;
};

struct blk_store {
	struct store store;

	/* Constant after create. */
	struct store_ops store_ops; /* blk_store_ops under the name that ops has */
	const struct blk_ops *ops;
	void *ctx;
	struct workers *workers;

	/* Protected by mu. */
	pthread_mutex_t mu;
	struct slot *free;
	unsigned fresh; /* slots from here on have never been used: an idle store costs little */
	unsigned waiting; /* lanes in use */
	unsigned turn; /* the lane to look at first */
	struct lane lanes[LANES_MAX];

	struct slot slots[BLK_IN_FLIGHT];
};

static int call_extents(struct blk_store *bs, struct store_req *req)
{
	unsigned count = 0;
	int rc;

	if (!bs->ops->extents) {
		req->extents[0] = (struct extent){req->off, req->len, 0};
		req->ret_extents = 1;
		return 0;
	}
	rc = bs->ops->extents(bs->ctx, req->off, req->len, req->extents, req->extents_max, &count);
	if (rc == 0)
		req->ret_extents = count;
	return rc;
}

/* The blocking call for req. */
static int call(struct blk_store *bs, struct store_req *req)
{
	const struct blk_ops *ops = bs->ops;
	bool fua = req->flags & STORE_FUA;

	switch (req->op) {
	case STORE_READ:
		return ops->pread(bs->ctx, req->buf, (uint32_t)req->len, req->off);
	case STORE_WRITE:
		return ops->pwrite(bs->ctx, req->buf, (uint32_t)req->len, req->off, fua);
	case STORE_ZERO:
		return ops->zero(bs->ctx, req->off, req->len, req->flags & STORE_KEEP, fua);
	case STORE_ALLOC:
		return ops->alloc(bs->ctx, req->off, req->len, req->flags & STORE_KEEP);
	case STORE_FLUSH:
		return ops->flush(bs->ctx);
	case STORE_EXTENTS:
		return call_extents(bs, req);
	case STORE_RESIZE:
		return ops->resize(bs->ctx, req->off);
	default:
		assert(!"not an operation");
		return -EINVAL;
	}
}

static void slot_run(struct work *work)
{
	struct slot *slot = (struct slot *)((char *)work - offsetof(struct slot, work));

	slot->err = call(slot->bs, slot->req);
	/* The last touch: the loop may give the slot to another request at once. */
	loop_post(slot->loop, &slot->task);
}

static void slot_start(struct slot *slot, struct store_req *req, struct loop *loop)
{
	slot->req = req;
	slot->loop = loop;
	workers_submit(slot->bs->workers, &slot->work);
}

/* Takes the request that waits longest in the lane whose turn it is. */
static struct store_req *next_waiting_locked(struct blk_store *bs, struct loop **ret_loop)
{
	if (bs->waiting == 0)
		return NULL;
	for (;;) {
		struct lane *lane = &bs->lanes[bs->turn];
		struct store_req *req = lane->head;

		bs->turn = (bs->turn + 1) % LANES_MAX;
		if (!lane->loop)
			continue;
		*ret_loop = lane->loop;
		lane->head = req->next;
		if (!lane->head) {
			lane->loop = NULL;
			bs->waiting--;
		}
		return req;
	}
}

static void slot_done(struct loop_task *task)
{
	struct slot *slot = (struct slot *)((char *)task - offsetof(struct slot, task));
	struct blk_store *bs = slot->bs;
	struct store_req *req = slot->req, *next;
	struct loop *loop = NULL;
	int err = slot->err;

	pthread_mutex_lock(&bs->mu);
	next = next_waiting_locked(bs, &loop);
	if (!next) {
		slot->next = bs->free;
		bs->free = slot;
	}
	pthread_mutex_unlock(&bs->mu);
	if (next)
		slot_start(slot, next, loop);
	store_complete(req, err);
}

/* A slot, or NULL if all are RUNNING. */
static struct slot *slot_take_locked(struct blk_store *bs)
{
	struct slot *slot = bs->free;

	if (slot) {
		bs->free = slot->next;
	} else if (bs->fresh < BLK_IN_FLIGHT) {
		slot = &bs->slots[bs->fresh++];
		slot->bs = bs;
		slot->work.run = slot_run;
		slot->task.run = slot_done;
	}
	return slot;
}

static void lane_add_locked(struct blk_store *bs, struct store_req *req, struct loop *loop)
{
	struct lane *lane = NULL;

	for (unsigned i = 0; i < LANES_MAX; i++) {
		if (bs->lanes[i].loop == loop) {
			lane = &bs->lanes[i];
			break;
		}
		if (!lane && !bs->lanes[i].loop)
			lane = &bs->lanes[i];
	}
	assert(lane);
	if (!lane->loop) {
		lane->loop = loop;
		lane->tail = &lane->head;
		bs->waiting++;
	}
	req->next = NULL;
	*lane->tail = req;
	lane->tail = &req->next;
}

static void blk_submit(struct store *store, struct store_req *req)
{
	struct blk_store *bs = (struct blk_store *)store;
	struct loop *loop = loop_self();
	struct slot *slot;

	assert(loop);
	if (req->op == STORE_READ && bs->ops->pread_nowait &&
	    bs->ops->pread_nowait(bs->ctx, req->buf, (uint32_t)req->len, req->off) == 0) {
		store_complete(req, 0);
		return;
	}
	if (req->op == STORE_EXTENTS && !bs->ops->extents) {
		store_complete(req, call_extents(bs, req));
		return;
	}
	pthread_mutex_lock(&bs->mu);
	slot = slot_take_locked(bs);
	if (!slot)
		lane_add_locked(bs, req, loop);
	pthread_mutex_unlock(&bs->mu);
	if (slot)
		slot_start(slot, req, loop);
}

static int blk_stat(struct store *store, struct store_stat *ret_stat)
{
	struct blk_store *bs = (struct blk_store *)store;

	if (bs->ops->stat)
		return bs->ops->stat(bs->ctx, ret_stat);
	*ret_stat = (struct store_stat){.size = store->size, .allocated = store->size};
	return 0;
}

static void blk_destroy(struct store *store)
{
	struct blk_store *bs = (struct blk_store *)store;

	bs->ops->close(bs->ctx);
	pthread_mutex_destroy(&bs->mu);
	free(bs);
}

static const struct store_ops blk_store_ops = {
    .submit = blk_submit,
    .stat = blk_stat,
    .destroy = blk_destroy,
};

int blk_store_create(const struct blk_ops *ops, void *ctx, uint64_t size, uint32_t align,
    struct workers *workers, struct store **ret_store, struct err *err)
{
	struct blk_store *bs = calloc(1, sizeof(*bs));

	assert(align && (align & (align - 1)) == 0);
	if (!bs) {
		ops->close(ctx);
		return err_set(err, -ENOMEM, "out of memory for a region");
	}
	bs->store_ops = blk_store_ops;
	bs->store_ops.name = ops->name;
	store_init(&bs->store, &bs->store_ops, size);
	bs->store.align = align;
	bs->ops = ops;
	bs->ctx = ctx;
	bs->workers = workers;
	pthread_mutex_init(&bs->mu, NULL);
	*ret_store = &bs->store;
	return 0;
}
