/* SPDX-License-Identifier: Apache-2.0
 *
 * The one place that calls store_ops: asserts the contract, counts, measures (see core/store.h).
 *
 * A request's states: idle (store == NULL) → submit → in flight (store set, in_flight counted)
 *   → [push → forward]* → complete unwinds the hooks one by one → idle → done.
 * Invariants:
 *   1. req->store is set exactly while the request is in flight at the store it was submitted to.
 *   2. depth hooks are pushed; done runs when none is left.
 */
#include "core/store.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#include "core/loop.h"

const uint8_t store_zeros[STORE_LEN_MAX] __attribute__((aligned(STORE_BLOCK)));

static const char *const op_names[STORE_OPS] = {
    [STORE_READ] = "read",
    [STORE_WRITE] = "write",
    [STORE_ZERO] = "zero",
    [STORE_ALLOC] = "alloc",
    [STORE_FLUSH] = "flush",
    [STORE_EXTENTS] = "extents",
    [STORE_RESIZE] = "resize",
};

const char *store_op_name(enum store_op op)
{
	return (unsigned)op < STORE_OPS ? op_names[op] : "?";
}

void store_init(struct store *store, const struct store_ops *ops, uint64_t size)
{
	memset(store, 0, sizeof(*store));
	store->ops = ops;
	store->size = size;
	store->align = 1;
	store->max_len = STORE_LEN_MAX;
}

/* Rule 5. */
static void check_range(const struct store *store, const struct store_req *req)
{
	uint64_t mask = store->align - 1;

	assert((unsigned)req->op < STORE_OPS);
	assert(req->off <= store->size && req->len <= store->size - req->off);
	switch (req->op) {
	case STORE_READ:
	case STORE_WRITE:
		assert(req->len >= 1 && req->len <= store->max_len);
		assert(req->buf);
		assert(((req->off | req->len) & mask) == 0);
		break;
	case STORE_ZERO:
	case STORE_ALLOC:
		assert(req->len >= 1 && ((req->off | req->len) & mask) == 0);
		break;
	case STORE_EXTENTS:
		assert(req->len >= 1 && req->extents && req->extents_max >= 1);
		break;
	case STORE_FLUSH:
		assert(req->off == 0 && req->len == 0);
		break;
	default:
		assert(req->len == 0);
	}
}

void store_submit(struct store *store, struct store_req *req)
{
	assert(req->done && !req->store);
	check_range(store, req);
	req->store = req->at = store;
	req->depth = 0;
	req->next = NULL;
	req->ret_lent = false;
	req->ret_pipe = -1;
	atomic_fetch_add_explicit(&store->in_flight, 1, memory_order_relaxed);
	if (store->stats)
		req->start_ns = loop_now_ns();
	store->ops->submit(store, req);
}

void store_forward(struct store *lower, struct store_req *req)
{
	assert(req->store);
	check_range(lower, req);
	req->at = lower;
	lower->ops->submit(lower, req);
}

void store_push(struct store_req *req, store_done_fn *hook, void *ctx)
{
	assert(req->depth < STORE_DEPTH);
	req->stack[req->depth].done = hook;
	req->stack[req->depth].ctx = ctx;
	req->depth++;
	/* The hook may complete later than the pipe or the memory holds. */
	req->flags &= ~(unsigned)(STORE_PIPE | STORE_BRIEF);
}

void *store_pop(struct store_req *req)
{
	/* store_complete has taken the hook off already; its slot is still there. */
	return req->stack[req->depth].ctx;
}

static void count(struct store_stats *stats, const struct store_req *req, int err)
{
	enum store_op op = req->op;

	atomic_fetch_add_explicit(&stats->requests[op], 1, memory_order_relaxed);
	if (err)
		atomic_fetch_add_explicit(&stats->errors[op], 1, memory_order_relaxed);
	else
		atomic_fetch_add_explicit(&stats->bytes[op], req->len, memory_order_relaxed);
	hist_add(&stats->latency[op], loop_now_ns() - req->start_ns);
}

void store_complete(struct store_req *req, int err)
{
	struct store *store = req->store;

	assert(store && err <= 0);
	if (req->depth > 0) {
		req->depth--;
		req->stack[req->depth].done(req, err);
		return;
	}
	if (store->stats)
		count(store->stats, req, err);
	req->store = NULL;
	if (!req->ret_lent)
		atomic_fetch_sub_explicit(&store->in_flight, 1, memory_order_release);
	req->done(req, err);
}

void store_interrupt(struct store_req *req)
{
	struct store *store = req->store;

	if (store)
		store_lower_interrupt(store, req);
}

void store_lower_interrupt(struct store *lower, struct store_req *req)
{
	if (lower->ops->interrupt)
		lower->ops->interrupt(lower, req);
}

void *store_lower_lend(struct store *lower, uint64_t off, uint32_t len)
{
	assert(off <= lower->size && len >= 1 && len <= lower->size - off);
	return lower->ops->lend ? lower->ops->lend(lower, off, len) : NULL;
}

void store_lower_unlend(struct store *lower, uint64_t off, uint32_t len)
{
	lower->ops->unlend(lower, off, len);
}

void *store_lend(struct store *store, uint64_t off, uint32_t len)
{
	void *lent;

	/* Counted before the store looks whether it may lend: see core/lease.c. */
	atomic_fetch_add_explicit(&store->in_flight, 1, memory_order_relaxed);
	lent = store_lower_lend(store, off, len);
	if (!lent)
		atomic_fetch_sub_explicit(&store->in_flight, 1, memory_order_release);
	return lent;
}

void store_unlend(struct store *store, uint64_t off, uint32_t len)
{
	store_lower_unlend(store, off, len);
	atomic_fetch_sub_explicit(&store->in_flight, 1, memory_order_release);
}

int store_stat(struct store *store, struct store_stat *ret_stat)
{
	if (store->ops->stat)
		return store->ops->stat(store, ret_stat);
	ret_stat->mtime_ns = 0;
	ret_stat->size = store->size;
	ret_stat->allocated = store->size;
	return 0;
}

void store_destroy(struct store *store)
{
	if (!store)
		return;
	assert(atomic_load_explicit(&store->in_flight, memory_order_acquire) == 0);
	store->ops->destroy(store);
}
