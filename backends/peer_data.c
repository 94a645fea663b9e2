/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests for bytes of a pool at a donor: peer_store_ops makes frames of them, data replies end them.  Their
 * slots, replays and ends are peer.c's.
 *
 * A write counts as answered, and not as stable, until a FLUSH that was sent after its reply is answered
 * (struct peer_region): what a reboot of the donor's machine may have lost is reported by the next FLUSH.
 *
 * Everything runs on one loop; there are no locks.
 */
#include "backends/peer_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint8_t wire_flags(const struct store_req *req)
{
	uint8_t flags = 0;

	if (req->flags & STORE_FUA)
		flags |= FRAME_F_FUA;
	if (req->flags & STORE_KEEP)
		flags |= FRAME_F_KEEP;
	if (req->flags & STORE_BACKGROUND)
		flags |= FRAME_F_BACKGROUND;
	return flags;
}

void peer_data_start(struct peer *peer, struct peer_slot *slot, struct store_req *req)
{
	static const uint8_t ops[STORE_OPS] = {
	    [STORE_READ] = FRAME_READ,
	    [STORE_WRITE] = FRAME_WRITE,
	    [STORE_ZERO] = FRAME_ZERO,
	    [STORE_ALLOC] = FRAME_ALLOC,
	    [STORE_FLUSH] = FRAME_FLUSH,
	    [STORE_EXTENTS] = FRAME_EXTENTS,
	};
	struct frame_req frame = {
	    .op = ops[req->op],
	    .flags = wire_flags(req),
	    .id = slot->id,
	    .off = req->off,
	    .len = req->len,
	    .handle = peer_handle_of(req)->handle.number,
	};

	slot->sreq = req;
	slot->out.iov_count = 1;
	slot->out.iov[0] = (struct iovec){slot->header, FRAME_REQ_LEN};
	if (req->op == STORE_WRITE) {
		if (frame_is_zero(req->buf, req->len)) {
			frame.flags |= FRAME_F_ZEROS;
		} else {
			frame.payload = (uint32_t)req->len;
			slot->out.iov[slot->out.iov_count++] = (struct iovec){req->buf, req->len};
		}
	} else if (req->op == STORE_FLUSH) {
		slot->write_gen = peer_handle_of(req)->region->write_gen;
	}
	frame_req_put(slot->header, &frame);
	peer_slot_send(peer, slot);
}

static void peer_store_submit(struct store *store, struct store_req *req)
{
	struct peer_handle *ph = (struct peer_handle *)store;
	struct peer *peer = ph->peer;
	int refused = link_refuses(peer);
	struct peer_slot *slot;

	if (req->op == STORE_RESIZE) { /* POOL_SETATTR does that */
		store_complete(req, -EINVAL);
	} else if (ph->stale || refused) {
		store_complete(req, ph->stale ? ph->stale : refused);
	} else if (peer->waiting_data || !(slot = peer_slot_get(peer))) {
		req->next = NULL;
		*peer->waiting_data_tail = req;
		peer->waiting_data_tail = &req->next;
	} else {
		peer_data_start(peer, slot, req);
	}
}

/* As peer_store_submit, on a mount with further connections. */
static void peer_striped_submit(struct store *store, struct store_req *req)
{
	if (req->op == STORE_READ && req->len >= PEER_LONG &&
	    peer_stripe_read((struct peer_handle *)store, req))
		return;
	peer_store_submit(store, req);
}

void peer_data_done(struct peer *peer, struct peer_slot *slot, int err)
{
	struct store_req *req = slot->sreq;
	struct peer_region *region = peer_handle_of(req)->region;

	if (req->op == STORE_WRITE || req->op == STORE_ZERO) {
		region->write_gen++;
	} else if (req->op == STORE_FLUSH && err == 0) {
		region->stable_gen = slot->write_gen;
		if (region->lost_writes)
			err = -EIO;
		region->lost_writes = false;
	}
	peer_slot_put(peer, slot);
	store_complete(req, err);
}

static inline int read_result(struct conn *conn, const struct frame_rep *rep, struct store_req *req)
{
	if (rep->flags & FRAME_F_ZEROS) {
		if (rep->payload)
			return -EPROTO;
		if (req->flags & STORE_LEND)
			req->buf = (void *)(uintptr_t)store_zeros;
		else
			memset(req->buf, 0, req->len);
		return 0;
	}
	req->ret_pipe = conn_payload_pipe(conn);
	return rep->payload == req->len ? 0 : -EPROTO;
}

int peer_data_read(struct conn *conn, const struct frame_rep *rep, struct store_req *req)
{
	return read_result(conn, rep, req);
}

int peer_data_result(struct peer *peer, struct store_req *req)
{
	const struct frame_rep *rep = &peer->rep;

	switch (req->op) {
	case STORE_READ:
		return read_result(peer->conn, rep, req);
	case STORE_EXTENTS:
		return frame_extents_get(peer->control, rep->payload, req->off, req->len,
		    req->extents, req->extents_max, &req->ret_extents);
	default:
		return rep->payload ? -EPROTO : 0;
	}
}

static void peer_store_destroy(struct store *store)
{
	free(store);
}

const struct store_ops peer_store_ops = {
    .name = "peer",
    .submit = peer_store_submit,
    .interrupt = peer_store_interrupt,
    .destroy = peer_store_destroy,
};

/* Apart, so that a mount with one connection does not even ask. */
const struct store_ops peer_striped_ops = {
    .name = "peer",
    .submit = peer_striped_submit,
    .interrupt = peer_store_interrupt,
    .destroy = peer_store_destroy,
};
