/* SPDX-License-Identifier: Apache-2.0
 *
 * The requests of a connection: where their memory comes from, and replies.
 *
 * Invariants:
 *   1. pc->in_flight counts the requests taken and not back.
 *   2. A request with a lender holds a loan of its range until it is put.  For a WRITE `lent` is set, too, until
 *      the write has succeeded: what half a payload has changed is told when the loan ends.
 */
#include "export/peer_conn_int.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "core/region.h"

int peer_reqs_alloc(struct server_loop *sl)
{
	sl->reqs = calloc(SERVER_REQS, sizeof(sl->reqs[0]));
	if (!sl->reqs)
		return -ENOMEM;
	for (unsigned i = 0; i < SERVER_REQS; i++) {
		sl->reqs[i].next = sl->free_reqs;
		sl->free_reqs = &sl->reqs[i];
	}
	sl->free_req_count = SERVER_REQS;
	return 0;
}

void peer_reqs_free(struct server_loop *sl)
{
	free(sl->reqs);
}

void peer_req_drop_buffer(struct peer_req *req)
{
	if (!req->buf)
		return;
	share_put(&req->pc->share, req->bufs, req->buf);
	req->buf = NULL;
}

void peer_req_put(struct peer_req *req)
{
	struct peer_conn *pc = req->pc;
	struct server_loop *sl = pc->sl;

	peer_req_drop_buffer(req);
	if (req->lent)
		region_lent_changed((struct handle *)req->lender);
	if (req->lender)
		store_unlend(req->lender, req->frame.off, (uint32_t)req->frame.len);
	req->next = sl->free_reqs;
	sl->free_reqs = req;
	sl->free_req_count++;
	pc->in_flight--;
	share_wake(sl);
	if (pc->in_flight == 0) {
		if (pc->state == CLOSING)
			peer_conn_gone(pc);
		else if (pc->draining && !pc->current)
			peer_conn_close(pc);
	}
}

static struct bufpool *bufs_for(struct server_loop *sl, const struct frame_req *frame)
{
	switch (frame->op) {
	case FRAME_READ:
	case FRAME_WRITE:
		if (frame->op == FRAME_WRITE && frame->flags & FRAME_F_ZEROS)
			return NULL;
		return frame->len <= SERVER_SMALL ? sl->small : sl->big;
	case FRAME_ZERO:
	case FRAME_ALLOC:
	case FRAME_FLUSH:
	case FRAME_HELLO: /* half-open connections hold no buffers */
	case FRAME_PING:
	case FRAME_BYE:
		return NULL;
	default:
		return sl->big;
	}
}

/* Who could lend memory for a WRITE's payload: it then needs no buffer of ours.  Small payloads are
 * copied, so that a client which dies midway leaves no torn page. */
static struct store *lender_for(const struct peer_conn *pc)
{
	const struct frame_req *frame = &pc->frame;
	struct handle *handle;

	if (frame->op != FRAME_WRITE || frame->payload <= SERVER_SMALL)
		return NULL;
	handle = session_handle(pc->session, frame->handle);
	if (!handle || frame->off > handle->store.size ||
	    frame->len > handle->store.size - frame->off)
		return NULL;
	return &handle->store;
}

/* A request with its buffer, or NULL: none now. */
struct peer_req *peer_req_get(struct peer_conn *pc)
{
	struct server_loop *sl = pc->sl;
	struct peer_req *req = sl->free_reqs;
	struct bufpool *bufs;
	void *buf = NULL;

	if (pc->in_flight >= sl->free_req_count) /* as with buffers (share_get) */
		return NULL;
	req->lender = lender_for(pc);
	req->lent =
	    req->lender ? store_lend(req->lender, pc->frame.off, (uint32_t)pc->frame.len) : NULL;
	if (!req->lent)
		req->lender = NULL;
	bufs = req->lent ? NULL : bufs_for(sl, &pc->frame);
	if (bufs && !(buf = share_get(&pc->share, bufs)))
		return NULL;
	sl->free_reqs = req->next;
	sl->free_req_count--;
	req->pc = pc;
	req->frame = pc->frame;
	req->buf = buf;
	req->bufs = bufs;
	pc->in_flight++;
	return req;
}

/* ---- replies ---- */

static void reply_sent(struct conn_out *out, int err)
{
	struct peer_req *req = (struct peer_req *)out;
	struct peer_conn *pc = req->pc;

	if (pc->throttled && pc->conn && conn_queued(pc->conn) < QUEUED_MAX / 2 &&
	    pc->in_flight <= FRAME_IN_FLIGHT_MAX) {
		pc->throttled = false;
		conn_resume(pc->conn);
	}
	peer_req_put(req);
}

void peer_req_answer(struct peer_req *req, int err, uint8_t flags, const void *payload, size_t len)
{
	struct frame_rep rep = {
	    .op = req->frame.op,
	    .flags = flags,
	    .payload = (uint32_t)len,
	    .id = req->frame.id,
	    .status = frame_status(err),
	};

	if (!req->pc->conn) {
		peer_req_put(req);
		return;
	}
	frame_rep_put(req->header, &rep);
	req->out.iov[0] = (struct iovec){req->header, FRAME_REP_LEN};
	req->out.iov[1] = (struct iovec){(void *)(uintptr_t)payload, len};
	req->out.iov_count = len ? 2 : 1;
	req->out.sent = reply_sent;
	conn_send(req->pc->conn, &req->out);
}
