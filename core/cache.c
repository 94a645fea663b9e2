/* SPDX-License-Identifier: Apache-2.0
 *
 * Managed regions: the cache layer (see core/cache.h for what it is for).
 *
 * A block's states (core/cache_int.h), and who moves it:
 *   absent → clean   a fetch has brought it, and the local store has taken it       cache_read.c
 *   absent → hole    the remote said so, or the region grew over it                 cache_info.c, cache_state.c
 *   any    → dirty   a WRITE or ZERO has succeeded at the local store               cache_write.c
 *   dirty  → clean   a push begins                                                  cache_push.c
 *   clean  → dirty   that push failed; or a FLUSH of the remote that was to cover it cache_push.c, _flush.c
 *                    or the local store failed to write or cut it                    cache_write.c, _resize.c
 *   hole   → dirty   the same, and the remote may lose it; or a FLUSH failed         cache_write.c, _flush.c
 *   clean  → hole    a push as ZERO has succeeded                                   cache_push.c
 *   clean  → absent  evicted; or dropped because the remote moved on                cache_evict.c, _info.c
 *   any    → absent  the region shrank                                              cache_resize.c
 *
 * An operation (struct cache_op) is made for whatever is not answered at once.  It *covers* the blocks whose
 * local bytes or remote bytes it is about to change; others that would get in its way wait for its end and
 * then look again.  Who waits for whom, for the same blocks:
 *   READ of absent blocks    any FETCH (joins it), WRITE, ZERO, EVICT, RESIZE.  Else it fetches.
 *   WRITE, ZERO              EVICT, RESIZE; a FETCH that is filling, or for a part of a block
 *     of a part of an absent block: also WRITE, ZERO, FETCH; then it fetches the block itself
 *   PUSH                     PUSH, RESIZE (the chunk is held)
 *   EVICT                    nobody: a chunk in which anything is under way is not evicted, nor one that
 *                            the remote has not flushed, or that the index may call dirty (cache_commit.c)
 *   RESIZE                   everybody; who comes later waits for it
 *
 * Invariants:
 *   1. A resident block's bytes in the local store are the newest; those of a hole are zeros.
 *   2. A block is marked (clean, dirty) only after the local store has succeeded.
 *   3. At most one PUSH has a block at a time, so that an old one can't land after a newer one.
 *   4. The block of a PUSH is dirty again, or was pushed, when the PUSH has ended.
 *   5. A FETCH fills only blocks that nobody wrote, punched or dropped since it began (valid).
 *   6. A chunk's ops counts the operations that cover it; readers those READs that use its local bytes.
 *      A chunk is punched only when both are 0.
 *   7. A chunk with dirty blocks is in the dirty list, or held until a PUSH or RESIZE of it ends.
 *   8. held, dirty and holes are the numbers of blocks in these states.
 *   9. With an index: what a PUSH sends is in a commit that began after the PUSH had read it.
 * Everything runs on the group's loop: no locks.  Waiters are stepped from a deferred task, never from within
 * the completion that they waited for.
 */
#include "core/cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cache_int.h"

enum {
	OPS_DEFAULT = 1024,
	OPS_LEAST = 64,
	BUFFERS_SPARE = 4, /* for requests that somebody waits for */
	REQS_AT_ONCE = 64,
};

#define WINDOW_DEFAULT ((uint64_t)32 << 20)
#define SIZE_LEAST ((uint64_t)2 << 20)

/* ---- operations ---- */

void op_queue_init(struct op_queue *queue)
{
	queue->head = NULL;
	queue->tail = &queue->head;
}

static bool op_left(const struct cache_group *group, enum op_user user)
{
	static const unsigned kept[] = {[FOR_PUSH] = 0, [FOR_REQUEST] = 8, [FOR_PULL] = 4};

	return group->free_op_count > (kept[user] ? group->op_count / kept[user] : 0);
}

struct cache_op *op_get(struct cache *cache, enum op_kind kind, enum op_user user)
{
	struct cache_group *group = cache->group;
	struct cache_op *op = group->free_ops;

	if (!op_left(group, user))
		return NULL;
	group->free_ops = op->next;
	group->free_op_count--;
	cache->ops++;
	op->cache = cache;
	op->kind = kind;
	op->covering = op->exclusive = op->filling = op->keep = op->in_round = false;
	op->hole = op->lent = op->doubtful = op->stepping = op->again = op->missed = false;
	op->fill_stepping = op->fill_again = op->waited = false;
	op->req = NULL;
	op->handle = NULL;
	op->buf = NULL;
	op->queue = NULL;
	op->pos = op->room = op->dirtying = 0;
	op->err = op->commit_err = 0;
	return op;
}

static void op_free(struct cache_op *op)
{
	struct cache *cache = op->cache;
	struct cache_group *group = cache->group;

	assert(!op->covering && !op->queue && !op->waiters.head && !op->room && !op->buf);
	op->next = group->free_ops;
	group->free_ops = op;
	group->free_op_count++;
	cache->ops--;
}

void op_put(struct cache_op *op)
{
	struct cache *cache = op->cache;
	struct cache_group *group = cache->group;

	op_free(op);
	if (group->waiting || group->starved)
		loop_defer(group->loop, &group->task);
	if (cache->detaching || cache->stopping)
		cache_check_idle(cache);
}

void op_complete(struct cache_op *op, int err)
{
	struct store_req *req = op->req;

	op_put(op);
	store_complete(req, err);
}

/* Without waking anybody: who waits lacked nothing of it before, and the pump would be kicked, and try and fail again,
 * for as long as what it lacks is in use. */
void op_give_up(struct cache_op *op)
{
	struct cache *cache = op->cache;
	struct cache_group *group = cache->group;

	if (op->queue)
		op_unwait(op);
	group->reserved -= op->room;
	op->room = 0;
	op_buffer_put(op);
	op_free(op);
	group->starved = true;
	if (cache->detaching || cache->stopping)
		cache_check_idle(cache);
}

void op_wait(struct cache_op *op, struct op_queue *queue)
{
	assert(!op->queue);
	op->queue = queue;
	op->wait_next = NULL;
	*queue->tail = op;
	queue->tail = &op->wait_next;
}

void op_unwait(struct cache_op *op)
{
	struct op_queue *queue = op->queue;
	struct cache_op **link = &queue->head;

	while (*link != op)
		link = &(*link)->wait_next;
	*link = op->wait_next;
	if (!*link)
		queue->tail = link;
	op->queue = NULL;
}

void op_wake_some(struct cache_group *group, struct op_queue *queue, unsigned most)
{
	while (queue->head && most--) {
		struct cache_op *op = queue->head;

		op_unwait(op);
		op_wait(op, &group->runnable);
		loop_defer(group->loop, &group->task);
	}
}

void op_wake(struct cache_group *group, struct op_queue *queue)
{
	op_wake_some(group, queue, UINT32_MAX);
}

static bool op_is_wide(const struct cache_op *op)
{
	return (op->hi - 1) / CHUNK_BLOCKS - op->lo / CHUNK_BLOCKS >= WIDE_CHUNKS;
}

/* Counts op in the chunks of blocks [lo, hi). */
static void op_count(struct cache_op *op, uint64_t lo, uint64_t hi, int by)
{
	for (uint64_t c = lo / CHUNK_BLOCKS; c * CHUNK_BLOCKS < hi; c++)
		seg_of(op->cache, (uint32_t)c)->ops[c % SEG_CHUNKS] += (uint8_t)by;
}

bool op_cover(struct cache_op *op)
{
	struct cache *cache = op->cache;
	bool wide = op_is_wide(op);

	assert(!op->covering && op->lo < op->hi && op->hi <= cache->span);
	for (uint64_t c = op->lo / CHUNK_BLOCKS; !wide && c * CHUNK_BLOCKS < op->hi; c++)
		if (seg_of(cache, (uint32_t)c)->ops[c % SEG_CHUNKS] == UINT8_MAX) {
			op_wait(op, &op_find(cache, c * CHUNK_BLOCKS, (c + 1) * CHUNK_BLOCKS, ~0u)
					 ->waiters);
			return false;
		}
	if (wide)
		cache->wide++;
	else
		op_count(op, op->lo, op->hi, 1);
	op->covering = true;
	op->prev = NULL;
	op->next = cache->active;
	if (op->next)
		op->next->prev = op;
	cache->active = op;
	return true;
}

void op_uncover(struct cache_op *op)
{
	struct cache *cache = op->cache;

	assert(op->covering);
	if (op_is_wide(op))
		cache->wide--;
	else
		op_count(op, op->lo, op->hi, -1);
	op->covering = false;
	*(op->prev ? &op->prev->next : &cache->active) = op->next;
	if (op->next)
		op->next->prev = op->prev;
	op_wake(cache->group, &op->waiters);
	if (op->kind != OP_WRITE && op->kind != OP_ZERO) /* these leave dirty blocks */
		room_unused(cache, op->lo, op->hi);
}

void op_shrink(struct cache_op *op, uint64_t hi)
{
	bool was_wide = op_is_wide(op);

	assert(op->covering && hi > op->lo && hi <= op->hi);
	if (!was_wide)
		op_count(op, op->lo, op->hi, -1);
	op->hi = hi;
	if (was_wide && !op_is_wide(op))
		op->cache->wide--;
	if (!op_is_wide(op))
		op_count(op, op->lo, op->hi, 1);
}

struct cache_op *op_find(const struct cache *cache, uint64_t lo, uint64_t hi, unsigned kinds)
{
	uint64_t first = lo / CHUNK_BLOCKS, last = (hi - 1) / CHUNK_BLOCKS;
	bool any = cache->wide > 0 || last - first >= WIDE_CHUNKS;
	unsigned left = 1;

	if (!cache->active)
		return NULL;
	for (uint64_t c = first; !any && c <= last; c++)
		any = seg_of(cache, (uint32_t)c)->ops[c % SEG_CHUNKS] > 0;
	if (!any)
		return NULL;
	if (first == last)
		left = op_most(cache, (uint32_t)first);
	for (struct cache_op *op = cache->active; op && left; op = op->next) {
		if ((kinds & OP_BIT(op->kind)) && op->lo < hi && lo < op->hi)
			return op;
		if (first == last)
			left -= op_is_on(op, (uint32_t)first);
	}
	return NULL;
}

bool op_buffer(struct cache_op *op, bool wait)
{
	struct cache_group *group = op->cache->group;

	if (op->buf)
		return true;
	if (wait || bufpool_left(group->buffers) > BUFFERS_SPARE)
		op->buf = bufpool_get(group->buffers);
	if (!op->buf && wait)
		op_wait(op, &group->for_buffer);
	return op->buf;
}

void op_buffer_put(struct cache_op *op)
{
	struct cache_group *group = op->cache->group;

	if (!op->buf)
		return;
	bufpool_put(group->buffers, op->buf);
	op->buf = NULL;
	op_wake_some(group, &group->for_buffer, 1);
}

/* ---- the remote ---- */

void remote_submit(struct cache_op *op, store_done_fn *done)
{
	op->cache->remote_requests++;
	op->sreq.done = done;
	store_submit(op->cache->remote, &op->sreq);
}

void remote_done(struct cache *cache)
{
	cache->remote_requests--;
	if (cache->detaching || cache->stopping)
		cache_check_idle(cache);
}

static bool is_idle(const struct cache *cache)
{
	return cache->remote_requests == 0 && cache->ops == 0 && !cache->remote_line.active &&
	       !cache->local_line.active && !cache->committing;
}

static void stop_end(struct loop_task *task)
{
	struct cache *cache = (struct cache *)((char *)task - offsetof(struct cache, idle));
	struct cache_call *call = cache->stopping;

	if (!call || !is_idle(cache))
		return;
	cache->stopping = NULL;
	call->done(call, 0);
}

/* The end of a stop may destroy the cache and its pumps: it comes when whoever ends an operation here is through
 * with them. */
void cache_check_idle(struct cache *cache)
{
	struct cache_call *call = cache->detaching;

	if (call && cache->remote_requests == 0) {
		cache->detaching = NULL;
		call->done(call, 0);
	}
	if (cache->stopping && is_idle(cache))
		loop_defer(cache->group->loop, &cache->idle);
}

void cache_attach(struct cache *cache, struct store *remote)
{
	assert(remote->align <= STORE_BLOCK && remote->size >= cache->conf.size_max);
	assert(!cache->detaching);
	cache->remote = remote;
	op_wake(cache->group, &cache->for_remote);
	flush_check(cache);
	cache_kick_puller(cache);
	cache_kick_pusher(cache);
}

void cache_detach(struct cache *cache, struct cache_call *call)
{
	assert(!cache->detaching);
	cache->remote = NULL;
	cache->detaching = call;
	cache_check_idle(cache);
}

void cache_kick_puller(struct cache *cache)
{
	if (cache->puller && !cache->stopped)
		cache->puller->kick(cache->puller_ctx);
}

void cache_kick_pusher(struct cache *cache)
{
	if (cache->pusher && !cache->stopped && cache->remote && !cache->frozen)
		cache->pusher->kick(cache->pusher_ctx);
}

void group_relieved(struct cache_group *group)
{
	group->progress++;
	op_wake(group, &group->for_dirty);
	op_wake(group, &group->for_room);
}

/* ---- the group ---- */

static void handle_dispatch(struct store *store, struct store_req *req);

/* Steps what was woken, and starts requests that had no operation. */
static void group_run(struct loop_task *task)
{
	struct cache_group *group =
	    (struct cache_group *)((char *)task - offsetof(struct cache_group, task));
	unsigned most = REQS_AT_ONCE;

	while (group->runnable.head) {
		struct cache_op *op = group->runnable.head;

		op_unwait(op);
		op->step(op);
	}
	if (group->commits_wanted)
		commit_run(group);
	while (group->waiting && op_left(group, FOR_REQUEST) && most--) {
		struct store_req *req = group->waiting;

		group->waiting = req->next;
		if (!group->waiting)
			group->waiting_tail = &group->waiting;
		handle_dispatch(req->at, req);
	}
	if (group->starved) {
		group->starved = false;
		for (struct cache *cache = group->caches; cache; cache = cache->next) {
			cache_kick_puller(cache);
			cache_kick_pusher(cache);
		}
	}
}

int cache_group_create(
    const struct cache_group_conf *conf, struct cache_group **ret_group, struct err *err)
{
	struct cache_group *group = calloc(1, sizeof(*group));
	uint64_t pull = conf->pull_window ? conf->pull_window : WINDOW_DEFAULT;
	uint64_t push = conf->push_window ? conf->push_window : WINDOW_DEFAULT;
	int rc = -ENOMEM;

	if (!group)
		return err_set(err, -ENOMEM, "out of memory for a cache");
	group->loop = conf->loop;
	group->size_blocks = max_u64(conf->size, conf->size ? SIZE_LEAST : 0) >> BLOCK_SHIFT;
	group->dirty_max = blocks_up(conf->max_dirty);
	group->op_count = conf->ops ? conf->ops : OPS_DEFAULT;
	if (group->op_count < OPS_LEAST)
		group->op_count = OPS_LEAST;
	group->buffer_count = conf->buffers;
	if (group->buffer_count == 0)
		group->buffer_count = (unsigned)((pull + push) / STORE_LEN_MAX) + BUFFERS_SPARE;
	if (group->buffer_count < 2 * BUFFERS_SPARE)
		group->buffer_count = 2 * BUFFERS_SPARE;
	window_init(&group->pull, pull);
	window_init(&group->push, push);
	group->waiting_tail = &group->waiting;
	op_queue_init(&group->for_buffer);
	op_queue_init(&group->for_dirty);
	op_queue_init(&group->for_room);
	op_queue_init(&group->runnable);
	group->task.run = group_run;
	age_init(group);
	group->progress = 1;
	group->op_array = calloc(group->op_count, sizeof(group->op_array[0]));
	if (!group->op_array) {
		err_set(err, rc, "out of memory for a cache");
		goto fail;
	}
	for (unsigned i = group->op_count; i-- > 0;) {
		op_queue_init(&group->op_array[i].waiters);
		group->op_array[i].next = group->free_ops;
		group->free_ops = &group->op_array[i];
	}
	group->free_op_count = group->op_count;
	rc = bufpool_create(STORE_LEN_MAX, group->buffer_count, conf->touch, &group->buffers, err);
	if (rc)
		goto fail;
	*ret_group = group;
	return 0;
fail:
	cache_group_destroy(group);
	return rc;
}

void cache_group_destroy(struct cache_group *group)
{
	if (!group)
		return;
	assert(!group->caches);
	loop_undefer(group->loop, &group->task);
	loop_timer_cancel(&group->age_timer);
	if (group->buffers)
		bufpool_destroy(group->buffers);
	free(group->op_array);
	free(group);
}

/* ---- a cache ---- */

int cache_create(const struct cache_conf *conf, struct cache **ret_cache, struct err *err)
{
	struct cache *cache = calloc(1, sizeof(*cache));
	int rc;

	if (!cache)
		return err_set(err, -ENOMEM, "out of memory for a cache");
	assert(conf->local->align == 1 && conf->local->max_len == STORE_LEN_MAX);
	assert(conf->size <= conf->size_max && conf->size_max <= conf->local->size);
	cache->conf = *conf;
	cache->group = conf->group;
	cache->size = conf->size;
	cache->small.head = cache->main.head = cache->dirty_list.head = NO_CHUNK;
	for (unsigned i = 0; i < RECENT; i++)
		cache->recent[i] = NO_CHUNK;
	op_queue_init(&cache->for_remote);
	op_queue_init(&cache->for_commit);
	op_queue_init(&cache->in_commit);
	flush_init(cache);
	cache->next = cache->group->caches;
	cache->group->caches = cache;
	rc = state_grow(cache, blocks_up(conf->size), false);
	if (rc) {
		cache_destroy(cache);
		return err_set(err, rc, "out of memory for the state of a cached region");
	}
	*ret_cache = cache;
	return 0;
}

void cache_destroy(struct cache *cache)
{
	struct cache **link;

	if (!cache)
		return;
	assert(cache->handles == 0 && cache->ops == 0 && cache->remote_requests == 0);
	assert(!cache->puller && !cache->pusher && !cache->stopping && !cache->detaching);
	loop_undefer(cache->group->loop, &cache->idle);
	for (link = &cache->group->caches; *link != cache; link = &(*link)->next)
		;
	*link = cache->next;
	cache->group->held -= cache->held;
	cache->group->dirty -= cache->frozen ? 0 : cache->dirty;
	cache->group->commits_wanted -= cache->commit_wanted;
	group_relieved(cache->group);
	state_free(cache);
	free(cache);
}

void cache_stop(struct cache *cache, struct cache_call *call)
{
	assert(cache->handles == 0 && !cache->stopped);
	if (cache->puller)
		cache->puller->stop(cache->puller_ctx);
	if (cache->pusher)
		cache->pusher->stop(cache->pusher_ctx);
	cache->stopped = true;
	cache_hold_writers(cache, false);
	flush_abort(cache, -ECANCELED);
	cache->stopping = call;
	cache->idle.run = stop_end;
	cache_check_idle(cache);
}

/* ---- handles ---- */

static struct cache_handle *handle_of(struct store *store)
{
	return (struct cache_handle *)store;
}

static int check_access(const struct cache_handle *handle, enum store_op op)
{
	unsigned access = 0;

	if (op == STORE_READ)
		access = POOL_READ;
	else if (op != STORE_FLUSH && op != STORE_EXTENTS)
		access = POOL_WRITE;
	return (handle->handle.flags & access) == access ? 0 : -EBADF;
}

static void wait_for_op(struct cache_group *group, struct store_req *req)
{
	req->next = NULL;
	*group->waiting_tail = req;
	group->waiting_tail = &req->next;
	if (op_left(group, FOR_REQUEST))
		loop_defer(group->loop, &group->task);
}

struct cache_op *cache_request_op(
    struct cache_handle *handle, struct store_req *req, enum op_kind kind)
{
	struct cache_op *op = op_get(handle->cache, kind, FOR_REQUEST);

	if (op) {
		op->req = req;
		op->handle = handle;
	} else {
		wait_for_op(handle->cache->group, req);
	}
	return op;
}

static void handle_dispatch(struct store *store, struct store_req *req)
{
	struct cache_handle *handle = handle_of(store);
	struct cache_op *op;

	if (req->op == STORE_READ) {
		cache_read(handle, req);
		return;
	}
	op = cache_request_op(handle, req, OP_OTHER);
	if (!op)
		return;
	switch (req->op) {
	case STORE_WRITE:
		write_begin(op);
		break;
	case STORE_ZERO:
		zero_begin(op);
		break;
	case STORE_ALLOC:
		alloc_begin(op);
		break;
	case STORE_FLUSH:
		flush_begin(op);
		break;
	case STORE_EXTENTS:
		extents_begin(op);
		break;
	default:
		resize_begin(op);
	}
}

static void handle_submit(struct store *store, struct store_req *req)
{
	struct cache_handle *handle = handle_of(store);
	int rc = check_access(handle, req->op);

	handle->cache->foreground++;
	if (rc)
		store_complete(req, rc);
	else if (handle->cache->group->waiting && req->op != STORE_READ)
		wait_for_op(handle->cache->group, req);
	else
		handle_dispatch(store, req);
}

/* The operation that req has become, or NULL. */
static struct cache_op *op_of_req(struct cache_group *group, const struct store_req *req)
{
	for (unsigned i = 0; i < group->op_count; i++)
		if (group->op_array[i].req == req)
			return &group->op_array[i];
	return NULL;
}

/* A request that has no operation yet; true: it is none any more. */
static bool unqueue(struct cache_group *group, struct store_req *req)
{
	for (struct store_req **link = &group->waiting; *link; link = &(*link)->next)
		if (*link == req) {
			*link = req->next;
			if (!*link)
				group->waiting_tail = link;
			return true;
		}
	return false;
}

static void handle_interrupt(struct store *store, struct store_req *req)
{
	struct cache *cache = handle_of(store)->cache;
	struct cache_op *op;

	if (unqueue(cache->group, req)) {
		store_complete(req, -EINTR);
		return;
	}
	op = op_of_req(cache->group, req);
	if (op && op->queue && !op->covering) {
		op_unwait(op);
		op_buffer_put(op);
		room_release(op);
		op_complete(op, -EINTR);
	} else if (op && op->kind == OP_RESIZE) {
		resize_interrupt(op);
	} else if (op && (req->op == STORE_EXTENTS ||
			     ((op->kind == OP_FETCH || op->kind == OP_ALLOC) && op->sreq.store))) {
		store_interrupt(&op->sreq);
	} else if (op) {
		flush_interrupt(op);
	} else if (req->at == cache->conf.local && req->at->ops->interrupt) {
		req->at->ops->interrupt(req->at, req);
	}
}

static void handle_unlend(struct store *store, uint64_t off, uint32_t len)
{
	struct cache *cache = handle_of(store)->cache;

	store_lower_unlend(cache->conf.local, off, len);
	readers_change(cache, off, len, -1);
}

/* Only for what a READ has lent: a WRITE's bytes may be received into memory that nobody is to see if the
 * WRITE is never submitted, and here they would be seen as clean. */
static void *handle_lend(struct store *store, uint64_t off, uint32_t len)
{
	return NULL;
}

static int handle_stat(struct store *store, struct store_stat *ret_stat)
{
	struct cache *cache = handle_of(store)->cache;

	ret_stat->size = cache->size;
	ret_stat->allocated = cache->held << BLOCK_SHIFT;
	ret_stat->mtime_ns = 0;
	return 0;
}

static void handle_destroy(struct store *store)
{
	struct cache_handle *handle = handle_of(store);
	struct cache_handle **link = &handle->cache->handle_list;

	while (*link != handle)
		link = &(*link)->next;
	*link = handle->next;
	handle->cache->handles--;
	free(handle);
}

static const struct store_ops handle_ops = {
    .name = "cache",
    .submit = handle_submit,
    .interrupt = handle_interrupt,
    .lend = handle_lend,
    .unlend = handle_unlend,
    .stat = handle_stat,
    .destroy = handle_destroy,
};

int cache_handle_create(
    struct cache *cache, unsigned flags, struct cache_handle **ret_handle, struct err *err)
{
	struct cache_handle *handle = calloc(1, sizeof(*handle));

	if (!handle)
		return err_set(err, -ENOMEM, "out of memory for an open region");
	store_init(&handle->handle.store, &handle_ops, cache->conf.size_max);
	handle->handle.flags = flags;
	handle->cache = cache;
	handle->errors_seen = cache->errors;
	handle->next = cache->handle_list;
	cache->handle_list = handle;
	cache->handles++;
	*ret_handle = handle;
	return 0;
}
