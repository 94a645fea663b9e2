/* SPDX-License-Identifier: Apache-2.0
 *
 * A pool at a donor: its requests, from submit over the wire to done.
 *
 * A request's states, and who moves them:
 *   waiting   no slot (or no body) was free: queued in waiting_data / waiting_control
 *   in flight has a slot, stands in the ordered list; on the wire if the link is up, else it waits for
 *             the link, which replays the list in order (peer_req_replay)
 *   done      its reply came (peer_req_reply), or it was given up (interrupt, soft time-out, give_up)
 *
 * Invariants:
 *   1. A request keeps its slot, and its slot its id, until done: also over connections.
 *   2. slot->sending is true while the connection's queue points at the request's memory; done never
 *      runs while it is.
 *   3. A handle that is not stale is open at the donor whenever data requests for it are sent: after a
 *      reconnect to a donor that forgot the session, re-opens are answered before replays are sent.
 *   4. peer->leases counts the handles that are open and write without POOL_SHARED: while it is not 0 the
 *      link sees to it that the donor hears of the session.
 *
 * A handle that held a lease is opened again, at a donor that has forgotten the session, only if nobody else
 * has changed the region since (POOL_REOPEN): else a request that is replayed could land on something newer.
 * Then the handle is stale, with -ENOLCK.
 *
 * Everything runs on one loop; there are no locks.
 */
#include "backends/peer_int.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* ---- slots ---- */

static struct peer_slot *slot_get(struct peer *peer)
{
	struct peer_slot *slot = peer->free_slots;

	if (!slot)
		return NULL;
	peer->free_slots = slot->next;
	slot->id = peer->next_seq++ << PEER_SLOT_BITS | (uint64_t)(slot - peer->slots);
	slot->next = NULL;
	slot->prev = peer->last;
	*(peer->last ? &peer->last->next : &peer->first) = slot;
	peer->last = slot;
	slot->interrupted = false;
	slot->replayed = false;
	if (peer->in_flight++ == 0)
		link_watch(peer);
	return slot;
}

static void slot_put(struct peer *peer, struct peer_slot *slot)
{
	assert(!slot->sending);
	*(slot->prev ? &slot->prev->next : &peer->first) = slot->next;
	*(slot->next ? &slot->next->prev : &peer->last) = slot->prev;
	if (slot->body)
		peer->free_bodies[peer->free_body_count++] = slot->body;
	slot->body = NULL;
	slot->sreq = NULL;
	slot->preq = NULL;
	slot->next = peer->free_slots;
	peer->free_slots = slot;
	peer->in_flight--;
}

static void slot_sent(struct conn_out *out, int err)
{
	((struct peer_slot *)out)->sending = false;
}

static void slot_send(struct peer *peer, struct peer_slot *slot)
{
	if (!link_is_up(peer) || peer->reopens)
		return;
	slot->sending = true;
	slot->out.sent = slot_sent;
	conn_send(peer->conn, &slot->out);
}

static struct peer_handle *handle_of(struct store_req *req)
{
	return (struct peer_handle *)req->at;
}

/* ---- data requests ---- */

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

static void data_start(struct peer *peer, struct peer_slot *slot, struct store_req *req)
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
	    .handle = handle_of(req)->handle.number,
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
		slot->write_gen = handle_of(req)->region->write_gen;
	}
	frame_req_put(slot->header, &frame);
	slot_send(peer, slot);
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
	} else if (peer->waiting_data || !(slot = slot_get(peer))) {
		req->next = NULL;
		*peer->waiting_data_tail = req;
		peer->waiting_data_tail = &req->next;
	} else {
		data_start(peer, slot, req);
	}
}

static void data_done(struct peer *peer, struct peer_slot *slot, int err)
{
	struct store_req *req = slot->sreq;
	struct peer_region *region = handle_of(req)->region;

	if (req->op == STORE_WRITE || req->op == STORE_ZERO) {
		region->write_gen++;
	} else if (req->op == STORE_FLUSH && err == 0) {
		region->stable_gen = slot->write_gen;
		if (region->lost_writes)
			err = -EIO;
		region->lost_writes = false;
	}
	slot_put(peer, slot);
	store_complete(req, err);
}

/* ---- control requests ---- */

static int handle_room(struct peer *peer, uint32_t number)
{
	uint32_t room = peer->handle_room ? peer->handle_room : 64;
	struct peer_handle **grown;
	bool *orphans;

	while (room <= number)
		room *= 2;
	if (room == peer->handle_room)
		return 0;
	grown = realloc(peer->handles, room * sizeof(grown[0]));
	if (!grown)
		return -ENOMEM;
	peer->handles = grown;
	orphans = realloc(peer->orphans, room * sizeof(orphans[0]));
	if (!orphans)
		return -ENOMEM;
	peer->orphans = orphans;
	memset(grown + peer->handle_room, 0, (room - peer->handle_room) * sizeof(grown[0]));
	memset(orphans + peer->handle_room, 0, (room - peer->handle_room) * sizeof(orphans[0]));
	peer->handle_room = room;
	return 0;
}

/* What is known of a region's writes; NULL: out of memory. */
static struct peer_region *region_get(struct peer *peer, uint64_t id)
{
	struct peer_region *region = peer->regions;

	while (region && region->id != id)
		region = region->next;
	if (!region) {
		region = calloc(1, sizeof(*region));
		if (!region)
			return NULL;
		region->id = id;
		region->next = peer->regions;
		peer->regions = region;
	}
	region->handles++;
	return region;
}

static void region_put(struct peer *peer, struct peer_region *region)
{
	struct peer_region **link = &peer->regions;

	if (--region->handles || region->write_gen != region->stable_gen)
		return;
	while (*link != region)
		link = &(*link)->next;
	*link = region->next;
	free(region);
}

static const struct store_ops peer_store_ops;

/* The handle that an OPEN or CREATE will give; its number is the lowest free one. */
static int handle_create(struct peer *peer, struct pool_req *req)
{
	struct peer_handle *ph;
	uint32_t number = 1;

	while (number < peer->handle_room && peer->handles[number])
		number++;
	if (number >= POOL_HANDLE_MAX)
		return -ENFILE;
	if (handle_room(peer, number))
		return -ENOMEM;
	ph = calloc(1, sizeof(*ph));
	if (!ph)
		return -ENOMEM;
	store_init(&ph->handle.store, &peer_store_ops, peer->pool.size_max);
	ph->handle.store.stats = peer->stats;
	ph->handle.number = number;
	ph->handle.flags = req->flags & (POOL_READ | POOL_WRITE | POOL_PIN | POOL_SHARED);
	if (!(req->flags & POOL_WRITE) || req->flags & POOL_PIN)
		ph->handle.flags &= ~(unsigned)POOL_SHARED;
	ph->peer = peer;
	peer->handles[number] = ph;
	req->ret_handle = &ph->handle;
	req->number = number;
	return 0;
}

static bool has_lease(const struct handle *handle)
{
	return handle->flags & POOL_WRITE && !(handle->flags & POOL_SHARED);
}

static void handle_free(struct peer *peer, struct handle *handle)
{
	struct peer_handle *ph = (struct peer_handle *)handle;

	if (ph->region && has_lease(handle))
		peer->leases--;
	peer->handles[handle->number] = NULL;
	if (ph->region)
		region_put(peer, ph->region);
	store_destroy(&handle->store);
}

static bool gives_handle(const struct pool_req *req)
{
	return req->op == POOL_OPEN || (req->op == POOL_CREATE && !(req->flags & POOL_NO_OPEN));
}

static void control_encode(struct peer_slot *slot)
{
	struct pool_req *req = slot->preq;
	struct frame_req frame;
	size_t len = frame_control_put(req, &frame, slot->body);

	frame.id = slot->id;
	if (slot->replayed)
		frame.flags |= FRAME_F_REPLAY;
	frame_req_put(slot->header, &frame);
	slot->out.iov_count = 1;
	slot->out.iov[0] = (struct iovec){slot->header, FRAME_REQ_LEN};
	if (len)
		slot->out.iov[slot->out.iov_count++] = (struct iovec){slot->body, len};
	if (req->op == POOL_SETXATTR && req->len)
		slot->out.iov[slot->out.iov_count++] = (struct iovec){req->data, req->len};
}

static void control_start(struct peer *peer, struct peer_slot *slot, struct pool_req *req)
{
	slot->preq = req;
	slot->body = peer->free_bodies[--peer->free_body_count];
	control_encode(slot);
	slot_send(peer, slot);
}

static void peer_pool_submit(struct pool *pool, struct pool_req *req)
{
	struct peer *peer = (struct peer *)pool;
	int rc = req->op == POOL_CLOSE ? 0 : link_refuses(peer);

	if (rc == 0 && req->handle && req->op != POOL_CLOSE)
		rc = ((struct peer_handle *)req->handle)->stale;
	if (rc == 0 && gives_handle(req))
		rc = handle_create(peer, req);
	if (rc) {
		pool_complete(req, rc);
		return;
	}
	if (req->op == POOL_CLOSE) {
		assert(req->handle);
		((struct peer_handle *)req->handle)->open = false;
		if (link_refuses(peer)) {
			peer->orphans[req->handle->number] = true;
			handle_free(peer, req->handle);
			pool_complete(req, 0);
			return;
		}
	}
	if (peer->waiting_control || !peer->free_slots || !peer->free_body_count) {
		req->next = NULL;
		*peer->waiting_control_tail = req;
		peer->waiting_control_tail = &req->next;
		return;
	}
	control_start(peer, slot_get(peer), req);
}

/* What a donor that never heard of the session answers to a request that the lost one may have done
 * already. */
static int replayed_result(const struct pool_req *req, int err)
{
	if (err == -ENOENT && (req->op == POOL_REMOVE || req->op == POOL_RENAME))
		return 0;
	if (err == -ENODATA && req->op == POOL_REMOVEXATTR)
		return 0;
	if (err == -EEXIST && req->op == POOL_SETXATTR)
		return 0;
	if (err == 0 && req->op == POOL_RENAME && req->flags & POOL_EXCHANGE)
		return -EIO; /* done once or twice, nobody knows */
	return err;
}

/* Takes the handle that a reply gives; 0 or -ENOMEM. */
static int handle_opened(struct peer *peer, struct pool_req *req)
{
	struct peer_handle *ph = (struct peer_handle *)req->ret_handle;

	ph->handle.region_id = req->attr.id;
	ph->open = true;
	peer->orphans[ph->handle.number] = false;
	ph->version = req->attr.version;
	ph->region = region_get(peer, req->attr.id);
	if (ph->region && has_lease(&ph->handle) && peer->leases++ == 0)
		link_keep_leases(peer);
	return ph->region ? 0 : -ENOMEM;
}

/* The request ends.  replied: with the donor's word; else the donor may or may not have done it. */
static void control_done(struct peer *peer, struct peer_slot *slot, int err, bool replied)
{
	struct pool_req *req = slot->preq;

	if (slot->replayed && replied)
		err = replayed_result(req, err);
	slot_put(peer, slot);
	if (req->op == POOL_CLOSE) {
		/* A refusal is a handle that the donor did not know, or one that it will free itself. */
		peer->orphans[req->handle->number] = !replied || err == -EBUSY;
		handle_free(peer, req->handle);
		err = 0;
	} else if (gives_handle(req)) {
		if (err == 0)
			err = handle_opened(peer, req);
		if (err) {
			peer->orphans[req->ret_handle->number] = !replied || err == -ENOMEM;
			handle_free(peer, req->ret_handle);
			req->ret_handle = NULL;
		}
	}
	pool_complete(req, err);
}

/* ---- replies ---- */

/* Slots became free: those who wait move up.  done may have submitted more in the meantime. */
static void start_waiting(struct peer *peer)
{
	while (peer->waiting_control && peer->free_slots && peer->free_body_count) {
		struct pool_req *req = peer->waiting_control;

		peer->waiting_control = req->next;
		if (!peer->waiting_control)
			peer->waiting_control_tail = &peer->waiting_control;
		control_start(peer, slot_get(peer), req);
	}
	while (peer->waiting_data && peer->free_slots) {
		struct store_req *req = peer->waiting_data;

		peer->waiting_data = req->next;
		if (!peer->waiting_data)
			peer->waiting_data_tail = &peer->waiting_data;
		data_start(peer, slot_get(peer), req);
	}
}

static struct peer_slot *find_slot(struct peer *peer, uint64_t id)
{
	struct peer_slot *slot = &peer->slots[id % PEER_SLOTS];

	if (slot->id != id || (!slot->sreq && !slot->preq) || slot->sending || peer->reopens)
		return NULL;
	return slot;
}

void *peer_req_buffer(struct peer *peer)
{
	struct peer_slot *slot;

	if (peer->rep.status || peer->rep.op != FRAME_READ)
		return peer->control;
	slot = find_slot(peer, peer->rep.id);
	if (!slot || !slot->sreq || slot->sreq->op != STORE_READ ||
	    peer->rep.payload != slot->sreq->len)
		return NULL;
	return slot->sreq->buf;
}

bool peer_req_takes_pipe(struct peer *peer)
{
	struct peer_slot *slot = find_slot(peer, peer->rep.id);

	return peer->rep.op == FRAME_READ && peer->rep.status == 0 &&
	       peer->rep.payload >= CONN_PIPE_MIN && slot && slot->sreq &&
	       slot->sreq->flags & STORE_PIPE;
}

/* Takes the results of a successful data reply. */
static int data_result(struct peer *peer, struct store_req *req)
{
	const struct frame_rep *rep = &peer->rep;

	switch (req->op) {
	case STORE_READ:
		if (rep->flags & FRAME_F_ZEROS) {
			if (rep->payload)
				return -EPROTO;
			if (req->flags & STORE_LEND)
				req->buf = (void *)(uintptr_t)store_zeros;
			else
				memset(req->buf, 0, req->len);
			return 0;
		}
		req->ret_pipe = conn_payload_pipe(peer->conn);
		return rep->payload == req->len ? 0 : -EPROTO;
	case STORE_EXTENTS:
		return frame_extents_get(peer->control, rep->payload, req->off, req->len,
		    req->extents, req->extents_max, &req->ret_extents);
	default:
		return rep->payload ? -EPROTO : 0;
	}
}

static void tell(struct peer *peer, const struct pool_notice *notice)
{
	if (peer->pool.notify)
		peer->pool.notify(peer->pool.notify_ctx, notice);
}

/* An OPEN's that nobody waits for.  What others have changed while the donor knew nothing of the session it
 * gave no notice of. */
static void reopen_reply(struct peer *peer, uint32_t number, int err)
{
	struct peer_handle *ph = number < peer->handle_room ? peer->handles[number] : NULL;
	struct region_attr attr;

	if (!ph || !ph->reopening)
		return;
	ph->reopening = false;
	if (err == 0) {
		if (!(peer->rep.flags & FRAME_F_UNCHANGED) &&
		    frame_attr_get(peer->control, peer->rep.payload, &attr) == 0)
			tell(peer, &(struct pool_notice){attr.id, attr.version, attr.size});
		return;
	}
	if ((err == -ENOLCK || err == -EBUSY) && has_lease(&ph->handle)) {
		log_error(
		    "%s: region %llu: another client has written to it, or does so now: I/O on what "
		    "is open here fails from now on",
		    peer->address, (unsigned long long)ph->handle.region_id);
		ph->stale = -ENOLCK;
		return;
	}
	log_error("%s: region %llu can't be opened again (%s): I/O on it fails from now on",
	    peer->address, (unsigned long long)ph->handle.region_id, strerror(-err));
	ph->stale = err == -EACCES ? err : -ESTALE;
}

static void replay(struct peer *peer);

int peer_req_reply(struct peer *peer)
{
	const struct frame_rep *rep = &peer->rep;
	int err = frame_errno(rep->status);
	struct peer_slot *slot;

	if (rep->id >= PEER_ID_LOOSE(1, 0)) {
		if (rep->op == FRAME_OPEN && peer->reopens) {
			reopen_reply(peer, rep->id & 0xffff, err);
			if (--peer->reopens == 0)
				replay(peer);
		}
		return 0;
	}
	slot = find_slot(peer, rep->id);
	if (!slot || rep->op != slot->header[2]) /* the operation, as it was sent */
		return -EPROTO;
	if (slot->sreq) {
		if (err == 0 && data_result(peer, slot->sreq))
			return -EPROTO;
		if (err == -EBADF && handle_of(slot->sreq)->stale)
			err = handle_of(slot->sreq)->stale;
		data_done(peer, slot, err);
	} else {
		if (err == -EBUSY)
			frame_text_get(
			    slot->preq->ret_holder, POOL_HOLDER_MAX, peer->control, rep->payload);
		if (err == 0 &&
		    frame_result_get(slot->preq, rep->flags, peer->control, rep->payload))
			return -EPROTO;
		control_done(peer, slot, err, true);
	}
	start_waiting(peer);
	return 0;
}

/* ---- what the link tells ---- */

/* A request that nobody waits for: an OPEN of a handle that the donor has forgotten, a CLOSE of one that this
 * side has given up, or a NOTICE's acknowledgement. */
struct loose {
	struct conn_out out;
	uint8_t buf[FRAME_REQ_LEN + FRAME_BODY_MAX];
};

static void loose_sent(struct conn_out *out, int err)
{
	free(out);
}

/* Takes loose, which has a body of len bytes. */
static void loose_send(
    struct peer *peer, struct loose *loose, struct frame_req *frame, size_t len, uint32_t number)
{
	frame->id = PEER_ID_LOOSE(peer->next_seq++, number);
	frame_req_put(loose->buf, frame);
	loose->out.iov[0] = (struct iovec){loose->buf, FRAME_REQ_LEN + len};
	loose->out.iov_count = 1;
	loose->out.sent = loose_sent;
	conn_send(peer->conn, &loose->out);
}

static int send_loose(struct peer *peer, const struct pool_req *req)
{
	struct loose *loose = calloc(1, sizeof(*loose));
	struct frame_req frame;
	size_t len;

	if (!loose)
		return -ENOMEM;
	len = frame_control_put(req, &frame, loose->buf + FRAME_REQ_LEN);
	loose_send(peer, loose, &frame, len, req->number);
	return 0;
}

int peer_req_notice(struct peer *peer)
{
	struct frame_req frame = {.op = FRAME_NOTICE};
	struct pool_notice notice;
	struct loose *loose;

	if (peer->rep.status || frame_notice_get(peer->control, peer->rep.payload, &notice))
		return -EPROTO;
	tell(peer, &notice);
	/* Without one the donor would tell nothing more of this region: a new connection makes up for it. */
	loose = calloc(1, sizeof(*loose));
	if (!loose)
		return -ENOMEM;
	frame.off = notice.id;
	loose_send(peer, loose, &frame, 0, 0);
	return 0;
}

static void slot_done(struct peer *peer, struct peer_slot *slot, int err)
{
	if (slot->sreq)
		data_done(peer, slot, err);
	else
		control_done(peer, slot, err, false);
}

void peer_req_lost(struct peer *peer)
{
	for (struct peer_slot *slot = peer->first, *next; slot; slot = next) {
		next = slot->next;
		if (slot->interrupted)
			slot_done(peer, slot, -EINTR);
	}
	start_waiting(peer);
}

void peer_req_fail_all(struct peer *peer, int err)
{
	/* done may submit anew; such requests are refused by the link's state and don't come here. */
	while (peer->first)
		slot_done(peer, peer->first, err);
	while (peer->waiting_data) {
		struct store_req *req = peer->waiting_data;

		peer->waiting_data = req->next;
		if (!peer->waiting_data)
			peer->waiting_data_tail = &peer->waiting_data;
		store_complete(req, err);
	}
	while (peer->waiting_control) {
		struct pool_req *req = peer->waiting_control;

		peer->waiting_control = req->next;
		if (!peer->waiting_control)
			peer->waiting_control_tail = &peer->waiting_control;
		if (req->op == POOL_CLOSE)
			handle_free(peer, req->handle);
		else if (gives_handle(req))
			handle_free(peer, req->ret_handle);
		pool_complete(req, req->op == POOL_CLOSE ? 0 : err);
	}
}

unsigned peer_req_stale(struct peer *peer)
{
	unsigned n = 0;

	for (uint32_t i = 1; i < peer->handle_room; i++) {
		if (peer->handles[i] && peer->handles[i]->open && !peer->handles[i]->stale) {
			peer->handles[i]->stale = -ESTALE;
			n++;
		}
	}
	for (struct peer_slot *slot = peer->first, *next; slot; slot = next) {
		next = slot->next;
		if (slot->sreq && handle_of(slot->sreq)->stale)
			data_done(peer, slot, -ESTALE);
	}
	return n;
}

unsigned peer_req_lost_writes(struct peer *peer)
{
	unsigned n = 0;

	for (struct peer_region *region = peer->regions; region; region = region->next) {
		if (region->write_gen != region->stable_gen) {
			region->lost_writes = true;
			n++;
		}
	}
	return n;
}

static void reopen(struct peer *peer, struct peer_handle *ph)
{
	struct pool_req req = {
	    .op = POOL_OPEN,
	    .flags = ph->handle.flags | (has_lease(&ph->handle) ? POOL_REOPEN : 0),
	    .id = ph->handle.region_id,
	    .number = ph->handle.number,
	    .version = ph->version,
	};

	ph->reopening = true;
	if (send_loose(peer, &req))
		ph->stale = -EIO;
	else
		peer->reopens++;
}

static void close_orphan(struct peer *peer, uint32_t number)
{
	struct pool_req req = {.op = POOL_CLOSE, .number = number};

	peer->orphans[number] = send_loose(peer, &req) != 0;
}

/* The donor knows the handles again: everything that was in flight goes out, in order. */
static void replay(struct peer *peer)
{
	for (struct peer_slot *slot = peer->first, *next; slot; slot = next) {
		next = slot->next;
		if (slot->sreq && handle_of(slot->sreq)->stale)
			data_done(peer, slot, handle_of(slot->sreq)->stale);
	}
	for (struct peer_slot *slot = peer->first; slot; slot = slot->next)
		slot_send(peer, slot);
	/* Last: the donor remembers a bounded number of results. */
	for (uint32_t i = 1; i < peer->handle_room; i++)
		if (!peer->handles[i] && peer->orphans[i])
			close_orphan(peer, i);
	start_waiting(peer);
}

void peer_req_replay(struct peer *peer, bool forgotten)
{
	peer->reopens = 0;
	for (struct peer_slot *slot = peer->first; slot && forgotten; slot = slot->next) {
		if (!slot->preq)
			continue;
		slot->replayed = true;
		if (slot->preq->op == POOL_CREATE)
			slot->preq->flags &= ~(unsigned)POOL_EXCLUSIVE;
		control_encode(slot);
	}
	for (uint32_t i = 1; i < peer->handle_room; i++) {
		struct peer_handle *ph = peer->handles[i];

		/* A connection that ended before a re-open was answered may have lost it. */
		if (ph && ph->open && !ph->stale && (forgotten || ph->reopening))
			reopen(peer, ph);
		if (forgotten)
			peer->orphans[i] = false;
	}
	if (peer->reopens == 0)
		replay(peer);
}

/* ---- interrupts ---- */

static struct peer_slot *slot_of(struct peer *peer, const void *req)
{
	for (struct peer_slot *slot = peer->first; slot; slot = slot->next)
		if (slot->sreq == req || slot->preq == req)
			return slot;
	return NULL;
}

static void interrupt_slot(struct peer *peer, struct peer_slot *slot)
{
	slot->interrupted = true;
	/* While there is a connection its reply may be on the way into the request's buffer. */
	if (!link_is_up(peer) && (!peer->conn || peer->state == LINK_GREETING)) {
		slot_done(peer, slot, -EINTR);
		start_waiting(peer);
	}
}

static void peer_store_interrupt(struct store *store, struct store_req *req)
{
	struct peer *peer = ((struct peer_handle *)store)->peer;
	struct peer_slot *slot = slot_of(peer, req);

	if (slot) {
		interrupt_slot(peer, slot);
		return;
	}
	for (struct store_req **link = &peer->waiting_data; *link; link = &(*link)->next) {
		if (*link != req)
			continue;
		*link = req->next;
		if (!*link)
			peer->waiting_data_tail = link;
		store_complete(req, -EINTR);
		return;
	}
}

static void peer_pool_interrupt(struct pool *pool, struct pool_req *req)
{
	struct peer *peer = (struct peer *)pool;
	struct peer_slot *slot = slot_of(peer, req);

	if (req->op == POOL_CLOSE)
		return;
	if (slot) {
		interrupt_slot(peer, slot);
		return;
	}
	for (struct pool_req **link = &peer->waiting_control; *link; link = &(*link)->next) {
		if (*link != req)
			continue;
		*link = req->next;
		if (!*link)
			peer->waiting_control_tail = link;
		if (gives_handle(req))
			handle_free(peer, req->ret_handle);
		pool_complete(req, -EINTR);
		return;
	}
}

/* ---- life ---- */

static void peer_store_destroy(struct store *store)
{
	free(store);
}

static const struct store_ops peer_store_ops = {
    .name = "peer",
    .submit = peer_store_submit,
    .interrupt = peer_store_interrupt,
    .destroy = peer_store_destroy,
};

static void peer_free(struct peer *peer)
{
	link_fini(peer);
	free(peer->host);
	free(peer->pool_name);
	while (peer->regions) {
		struct peer_region *next = peer->regions->next;

		free(peer->regions);
		peer->regions = next;
	}
	free(peer->handles);
	free(peer->orphans);
	free(peer->bodies);
	free(peer->slots);
	free(peer->stats);
	free(peer);
}

static void peer_destroy(struct pool *pool)
{
	struct peer *peer = (struct peer *)pool;

	assert(peer->in_flight == 0 && !peer->waiting_data && !peer->waiting_control);
	peer_free(peer);
}

static const struct pool_ops peer_pool_ops = {
    .name = "peer",
    .submit = peer_pool_submit,
    .interrupt = peer_pool_interrupt,
    .destroy = peer_destroy,
};

/* Everything that the data path uses, allocated and touched. */
static int peer_alloc(struct peer *peer)
{
	peer->slots = calloc(PEER_SLOTS, sizeof(peer->slots[0]));
	peer->bodies = calloc(PEER_BODIES, FRAME_BODY_MAX);
	peer->stats = calloc(1, sizeof(*peer->stats));
	if (!peer->slots || !peer->bodies || !peer->stats || handle_room(peer, 1))
		return -ENOMEM;
	for (unsigned i = PEER_SLOTS; i-- > 0;) {
		peer->slots[i].id = UINT64_MAX;
		peer->slots[i].next = peer->free_slots;
		peer->free_slots = &peer->slots[i];
	}
	for (unsigned i = 0; i < PEER_BODIES; i++)
		peer->free_bodies[i] = peer->bodies + (size_t)i * FRAME_BODY_MAX;
	peer->free_body_count = PEER_BODIES;
	return 0;
}

/* The session's id; see struct frame_hello. */
static int make_session(struct peer *peer, const char *client)
{
	uint64_t h = 14695981039346656037u; /* FNV-1a */

	if (getrandom(peer->session, sizeof(peer->session), 0) != sizeof(peer->session))
		return -EIO;
	if (!client)
		return 0;
	for (; *client; client++)
		h = (h ^ (uint8_t)*client) * 1099511628211u;
	memcpy(peer->session, &h, FRAME_CLIENT_LEN);
	return 0;
}

int peer_pool_create(
    struct loop *loop, const struct peer_conf *conf, struct pool **ret_pool, struct err *err)
{
	struct peer *peer = calloc(1, sizeof(*peer));
	int rc;

	if (!peer)
		return err_set(err, -ENOMEM, "out of memory");
	peer->pool.ops = &peer_pool_ops;
	peer->loop = loop;
	peer->host = strdup(conf->host);
	peer->pool_name = strdup(conf->pool);
	peer->pool.name = peer->pool_name;
	peer->port = conf->port;
	peer->soft = conf->soft;
	peer->timeo_ns = conf->timeo_ms * 1000000;
	if (conf->identity)
		memcpy(peer->identity, conf->identity, sizeof(peer->identity));
	if (conf->who)
		frame_text_get(peer->who, sizeof(peer->who), conf->who, strlen(conf->who));
	peer->ready = conf->ready;
	peer->ctx = conf->ctx;
	peer->next_seq = 1;
	peer->waiting_data_tail = &peer->waiting_data;
	peer->waiting_control_tail = &peer->waiting_control;
	if (!peer->host || !peer->pool_name || peer_alloc(peer))
		rc = err_set(err, -ENOMEM, "out of memory");
	else if (make_session(peer, conf->client))
		rc = err_set(err, -EIO, "no random numbers for a session");
	else
		rc = link_init(peer, err);
	if (rc) {
		peer_free(peer);
		return rc;
	}
	*ret_pool = &peer->pool;
	return 0;
}

struct store_stats *peer_pool_stats(struct pool *pool)
{
	return ((struct peer *)pool)->stats;
}

void peer_pool_give_up(struct pool *pool)
{
	link_give_up((struct peer *)pool);
}
