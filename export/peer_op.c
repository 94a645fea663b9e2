/* SPDX-License-Identifier: Apache-2.0
 *
 * What the requests of a connection do: data goes to the handle's store, control to the pool.
 */
#include "export/peer_conn_int.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include "core/local_pool.h"
#include "core/region.h"

enum {
	/* Where things lie in the big buffer of a control request. */
	AREA_RESULT = 128 * 1024,
	AREA_DATA = 256 * 1024,
	AREA_NAMES = 512 * 1024,
};

_Static_assert(FRAME_CONTROL_MAX <= 128 * 1024, "areas do not overlap");
_Static_assert(FRAME_EXTENTS_MAX * sizeof(struct extent) <= 128 * 1024, "areas do not overlap");

/* ---- data ---- */

/* Bytes that are lent need no buffer; the loan ends when they are sent (peer_req_put). */
static void read_done(struct peer_req *req)
{
	const struct store_req *sreq = &req->sreq;

	if (sreq->ret_lent)
		req->lender = &session_handle(req->pc->session, req->frame.handle)->store;
	if (sreq->buf != req->buf) {
		peer_req_drop_buffer(req);
		share_wake(req->pc->sl);
	}
	if (sreq->buf == store_zeros || frame_is_zero(sreq->buf, sreq->len))
		peer_req_answer(req, 0, FRAME_F_ZEROS, NULL, 0);
	else
		peer_req_answer(req, 0, 0, sreq->buf, sreq->len);
}

static void data_done(struct store_req *sreq, int err)
{
	struct peer_req *req = (struct peer_req *)((char *)sreq - offsetof(struct peer_req, sreq));
	uint8_t *area;
	size_t len;

	if (err) {
		peer_req_answer(req, err, 0, NULL, 0);
	} else if (sreq->op == STORE_READ) {
		read_done(req);
	} else if (sreq->op == STORE_EXTENTS) {
		area = (uint8_t *)req->buf + AREA_RESULT;
		len = frame_extents_put(area, sreq->extents, sreq->ret_extents);
		peer_req_answer(req, 0, 0, area, len);
	} else {
		req->lent = NULL; /* the region knows of the change */
		peer_req_answer(req, 0, 0, NULL, 0);
	}
}

static unsigned store_flags(uint8_t flags)
{
	unsigned out = 0;

	if (flags & FRAME_F_FUA)
		out |= STORE_FUA;
	if (flags & FRAME_F_KEEP)
		out |= STORE_KEEP;
	if (flags & FRAME_F_BACKGROUND)
		out |= STORE_BACKGROUND;
	return out;
}

/* What a write of zeros is for a region: unallocated blocks stay so, others keep their space.  Beyond the
 * region's end it is a write like any other, which makes the region and its bytes longer. */
static void start_zeros(struct store_req *sreq, struct handle *handle)
{
	const struct region *region = ((struct region_handle *)handle)->region;

	if (sreq->off + sreq->len > atomic_load(&region->size)) {
		sreq->buf = (void *)(uintptr_t)store_zeros;
		return;
	}
	sreq->op = STORE_ZERO;
	sreq->flags |= STORE_KEEP;
}

int peer_op_data(struct peer_req *req)
{
	static const enum store_op ops[] = {
	    [FRAME_READ] = STORE_READ,
	    [FRAME_WRITE] = STORE_WRITE,
	    [FRAME_ZERO] = STORE_ZERO,
	    [FRAME_ALLOC] = STORE_ALLOC,
	    [FRAME_FLUSH] = STORE_FLUSH,
	    [FRAME_EXTENTS] = STORE_EXTENTS,
	};
	const struct frame_req *frame = &req->frame;
	struct handle *handle = session_handle(req->pc->session, frame->handle);
	bool outside;

	if (!handle) {
		peer_req_answer(req, -EBADF, 0, NULL, 0);
		return 0;
	}
	outside = frame->op != FRAME_FLUSH &&
		  (frame->off > handle->store.size || frame->len > handle->store.size - frame->off);
	if (outside && (frame->op == FRAME_WRITE || frame->op == FRAME_ALLOC)) {
		peer_req_answer(req, -ENOSPC, 0, NULL, 0);
		return 0;
	}
	if (outside)
		return peer_conn_bad_frame(req->pc, "range lies beyond the pool's largest region");
	req->sreq = (struct store_req){
	    .op = ops[frame->op],
	    .flags = store_flags(frame->flags),
	    .off = frame->op == FRAME_FLUSH ? 0 : frame->off,
	    .len = frame->op == FRAME_FLUSH ? 0 : frame->len,
	    .buf = req->lent ? req->lent : req->buf,
	    .done = data_done,
	};
	if (frame->op == FRAME_READ)
		req->sreq.flags |= STORE_LEND;
	if (frame->op == FRAME_EXTENTS) {
		req->sreq.extents = req->buf;
		req->sreq.extents_max = FRAME_EXTENTS_MAX;
	}
	if (frame->op == FRAME_WRITE && frame->flags & FRAME_F_ZEROS)
		start_zeros(&req->sreq, handle);
	store_submit(&handle->store, &req->sreq);
	return 0;
}

/* ---- control ---- */

static bool changes_something(enum pool_op op)
{
	switch (op) {
	case POOL_LOOKUP:
	case POOL_GETATTR:
	case POOL_LIST:
	case POOL_STATFS:
	case POOL_GETXATTR:
	case POOL_LISTXATTR:
		return false;
	default:
		return true;
	}
}

/* A new handle goes into the session's table; only a broken client has asked for its number twice. */
static int keep_handle(struct peer_conn *pc, struct handle *handle)
{
	if (session_handle(pc->session, handle->number)) {
		local_pool_close(pc->pool, handle);
		return -EINVAL;
	}
	pc->session->handles[handle->number] = handle;
	return 0;
}

static void control_done(struct pool_req *preq, int err)
{
	struct peer_req *req = (struct peer_req *)((char *)preq - offsetof(struct peer_req, preq));
	struct session *session = req->pc->session;
	uint8_t *area = (uint8_t *)req->buf + AREA_RESULT;
	uint8_t flags = 0;
	size_t len = 0;

	if (preq->handle && preq->op != POOL_CLOSE)
		preq->handle->store.in_flight--;
	if (err == 0 && preq->ret_handle)
		err = keep_handle(req->pc, preq->ret_handle);
	if (err == 0)
		len = frame_result_put(preq, &flags, area);
	if (changes_something(preq->op)) {
		struct session_result *result = session_new_result(session);

		*result = (struct session_result){
		    .id = req->frame.id,
		    .status = frame_status(err),
		    .op = req->frame.op,
		    .flags = flags,
		    .len = (uint8_t)len,
		};
		memcpy(result->body, area, len);
	}
	/* The one error with a text: who is in the way. */
	if (err == -EBUSY && *preq->ret_holder)
		peer_req_answer(req, err, 0, memcpy(area, preq->ret_holder, POOL_HOLDER_MAX),
		    strlen(preq->ret_holder));
	else
		peer_req_answer(req, err, flags, area, len);
}

/* A control request that an earlier connection brought already: its result again. */
static bool answer_again(struct peer_req *req)
{
	const struct session_result *result = session_find_result(req->pc->session, req->frame.id);
	uint8_t *area = (uint8_t *)req->buf + AREA_RESULT;

	if (!result || result->op != req->frame.op)
		return false;
	memcpy(area, result->body, result->len);
	peer_req_answer(req, frame_errno(result->status), result->flags, area, result->len);
	return true;
}

/* Makes a handle's number free for a new one.  A client that uses a number again has closed it: it gave
 * up on a request whose reply was lost with a connection. */
static int take_number(struct session *session, uint32_t number)
{
	struct handle *old = session_handle(session, number);

	if (old && old->store.in_flight)
		return -EBUSY;
	if (old) {
		session->handles[number] = NULL;
		local_pool_close(session->pool, old);
	}
	return session_reserve(session, number);
}

/* The handle that a control request names: 0 or -errno for the client. */
static int take_handle(struct session *session, struct pool_req *preq)
{
	switch (preq->op) {
	case POOL_CREATE:
	case POOL_OPEN:
		if (preq->op == POOL_CREATE && preq->flags & POOL_NO_OPEN)
			return 0;
		return take_number(session, preq->number);
	case POOL_CLOSE:
		preq->handle = session_handle(session, preq->number);
		if (!preq->handle)
			return -EBADF;
		if (preq->handle->store.in_flight)
			return -EBUSY;
		session->handles[preq->number] = NULL;
		return 0;
	default:
		if (preq->number == 0)
			return 0;
		preq->handle = session_handle(session, preq->number);
		if (!preq->handle)
			return -EBADF;
		preq->handle->store.in_flight++; /* no CLOSE until control_done */
		return 0;
	}
}

int peer_op_control(struct peer_req *req)
{
	struct session *session = req->pc->session;
	uint8_t *buf = req->buf;
	int rc;

	if (answer_again(req))
		return 0;
	rc = frame_control_get(
	    &req->frame, buf, &req->preq, (struct frame_names *)(buf + AREA_NAMES));
	if (rc == -EPROTO)
		return peer_conn_bad_frame(req->pc, "malformed body");
	if (rc == 0) {
		req->preq.session = session->tag;
		req->preq.who = &session->ps;
		req->preq.done = control_done;
		if (req->preq.op != POOL_SETXATTR)
			req->preq.data = buf + AREA_DATA;
		rc = take_handle(session, &req->preq);
	}
	if (rc)
		peer_req_answer(req, rc, 0, NULL, 0);
	else
		pool_submit(req->pc->pool, &req->preq);
	return 0;
}
