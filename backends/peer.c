/* SPDX-License-Identifier: Apache-2.0
 *
 * A pool at a donor: its requests, from submit over the wire to done.  peer_data.c has what is particular to
 * those for bytes, peer_handle.c what is open, peer_link.c the connection, peer_look.c what is asked with the
 * greeting, peer_extra.c and peer_stripe.c further connections for reads.
 *
 * A request's states, and who moves them:
 *   waiting   no slot (or no body) was free: queued in waiting_data / waiting_control
 *   in flight has a slot, stands in the ordered list; on the wire if the link is up, else it waits for
 *             the link, which replays the list in order (peer_req_replay)
 *   done      its reply came (peer_req_reply), or it was given up (interrupt, soft time-out, give_up)
 *
 * Invariants:
 *   1. A request keeps its slot, and its slot its id, until done: also over connections.
 *   2. slot->busy says that a connection's queue points at the request's memory, or that a further connection
 *      has it; done never runs while it does.
 *   3. A handle that is not stale is open at the donor whenever data requests for it are sent: after a
 *      reconnect to a donor that forgot the session, re-opens are answered before replays are sent.
 *
 * Everything runs on one loop; there are no locks.
 */
#include "backends/peer_int.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- slots ---- */

struct peer_slot *peer_slot_get(struct peer *peer)
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

void peer_slot_put(struct peer *peer, struct peer_slot *slot)
{
	assert(!slot->busy);
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
	((struct peer_slot *)out)->busy = 0;
}

void peer_slot_put_on_wire(struct peer *peer, struct peer_slot *slot)
{
	slot->busy = PEER_SENDING;
	slot->out.sent = slot_sent;
	conn_send(peer->conn, &slot->out);
}

void peer_slot_send(struct peer *peer, struct peer_slot *slot)
{
	if (link_is_up(peer) && !peer->reopens)
		peer_slot_put_on_wire(peer, slot);
}

/* ---- control requests ---- */

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

void peer_control_start(struct peer *peer, struct peer_slot *slot, struct pool_req *req)
{
	slot->preq = req;
	slot->body = peer->free_bodies[--peer->free_body_count];
	control_encode(slot);
	peer_slot_send(peer, slot);
}

static void peer_pool_submit(struct pool *pool, struct pool_req *req)
{
	struct peer *peer = (struct peer *)pool;
	int rc = req->op == POOL_CLOSE ? 0 : link_refuses(peer);

	if (rc == 0 && req->op == POOL_LOOKUP && peer_look_answers(peer, req)) {
		req->ret_earlier = true;
		pool_complete(req, 0);
		return;
	}
	if (req->op != POOL_LOOKUP)
		peer_look_forget(peer);

	if (rc == 0 && req->handle && req->op != POOL_CLOSE)
		rc = ((struct peer_handle *)req->handle)->stale;
	if (rc == 0 && gives_handle(req))
		rc = peer_handle_create(peer, req);
	if (rc) {
		pool_complete(req, rc);
		return;
	}
	if (req->op == POOL_CLOSE) {
		assert(req->handle);
		((struct peer_handle *)req->handle)->open = false;
		peer_stripe_close(peer, req->handle->number);
		if (link_refuses(peer)) {
			peer->orphans[req->handle->number] = true;
			peer_handle_free(peer, req->handle);
			pool_complete(req, 0);
			return;
		}
	}
	if (peer->waiting_control || !peer->free_slots || !peer->free_body_count ||
	    peer_stripe_owe(peer, req->op)) {
		req->next = NULL;
		*peer->waiting_control_tail = req;
		peer->waiting_control_tail = &req->next;
		return;
	}
	peer_control_start(peer, peer_slot_get(peer), req);
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

/* The request ends.  replied: with the donor's word; else the donor may or may not have done it. */
static void control_done(struct peer *peer, struct peer_slot *slot, int err, bool replied)
{
	struct pool_req *req = slot->preq;

	if (slot->replayed && replied)
		err = replayed_result(req, err);
	peer_slot_put(peer, slot);
	if (req->op == POOL_CLOSE) {
		/* A refusal is a handle that the donor did not know, or one that it will free itself. */
		peer->orphans[req->handle->number] = !replied || err == -EBUSY;
		peer_handle_free(peer, req->handle);
		err = 0;
	} else if (gives_handle(req)) {
		if (err == 0)
			err = peer_handle_opened(peer, req);
		if (err) {
			peer->orphans[req->ret_handle->number] = !replied || err == -ENOMEM;
			peer_handle_free(peer, req->ret_handle);
			req->ret_handle = NULL;
		}
	}
	pool_complete(req, err);
}

/* ---- replies ---- */

/* done may have submitted more in the meantime. */
void peer_req_start_waiting(struct peer *peer)
{
	while (peer->waiting_control && peer->free_slots && peer->free_body_count &&
	       !peer_stripe_owe(peer, peer->waiting_control->op)) {
		struct pool_req *req = peer->waiting_control;

		peer->waiting_control = req->next;
		if (!peer->waiting_control)
			peer->waiting_control_tail = &peer->waiting_control;
		peer_control_start(peer, peer_slot_get(peer), req);
	}
	while (peer->waiting_data && peer->free_slots) {
		struct store_req *req = peer->waiting_data;

		peer->waiting_data = req->next;
		if (!peer->waiting_data)
			peer->waiting_data_tail = &peer->waiting_data;
		peer_data_start(peer, peer_slot_get(peer), req);
	}
}

static struct peer_slot *find_slot(struct peer *peer, uint64_t id)
{
	struct peer_slot *slot = &peer->slots[id % PEER_SLOTS];

	if (slot->id != id || (!slot->sreq && !slot->preq) || slot->busy || peer->reopens)
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

static void replay(struct peer *peer);

int peer_req_reply(struct peer *peer)
{
	const struct frame_rep *rep = &peer->rep;
	int err = frame_errno(rep->status);
	struct peer_slot *slot;

	if (rep->id >= PEER_ID_LOOSE(1, 0)) {
		if (rep->op == FRAME_OPEN && peer->reopens) {
			peer_handle_reopened(peer, rep->id & 0xffff, err);
			if (--peer->reopens == 0)
				replay(peer);
		}
		return 0;
	}
	slot = find_slot(peer, rep->id);
	if (!slot || rep->op != slot->header[2]) /* the operation, as it was sent */
		return -EPROTO;
	peer->served = true;
	if (slot->sreq) {
		if (err == 0 && peer_data_result(peer, slot->sreq))
			return -EPROTO;
		if (err == -EBADF && peer_handle_of(slot->sreq)->stale)
			err = peer_handle_of(slot->sreq)->stale;
		peer_data_done(peer, slot, err);
	} else {
		if (err == -EBUSY)
			frame_text_get(
			    slot->preq->ret_holder, POOL_HOLDER_MAX, peer->control, rep->payload);
		if (err == 0 &&
		    frame_result_get(slot->preq, rep->flags, peer->control, rep->payload))
			return -EPROTO;
		control_done(peer, slot, err, true);
	}
	peer_req_start_waiting(peer);
	return 0;
}

/* ---- what the link tells ---- */

static void slot_done(struct peer *peer, struct peer_slot *slot, int err)
{
	if (slot->sreq)
		peer_data_done(peer, slot, err);
	else
		control_done(peer, slot, err, false);
}

void peer_req_lost(struct peer *peer)
{
	peer_look_forget(peer);
	for (struct peer_slot *slot = peer->first, *next; slot; slot = next) {
		next = slot->next;
		if (slot->interrupted)
			slot_done(peer, slot, -EINTR);
	}
	peer_req_start_waiting(peer);
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
			peer_handle_free(peer, req->handle);
		else if (gives_handle(req))
			peer_handle_free(peer, req->ret_handle);
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
		if (slot->sreq && peer_handle_of(slot->sreq)->stale)
			peer_data_done(peer, slot, -ESTALE);
	}
	return n;
}

/* The donor knows the handles again: everything that was in flight goes out, in order. */
static void replay(struct peer *peer)
{
	for (struct peer_slot *slot = peer->first, *next; slot; slot = next) {
		next = slot->next;
		if (slot->sreq && peer_handle_of(slot->sreq)->stale)
			peer_data_done(peer, slot, peer_handle_of(slot->sreq)->stale);
	}
	for (struct peer_slot *slot = peer->first; slot; slot = slot->next)
		peer_slot_send(peer, slot);
	/* Last: the donor remembers a bounded number of results. */
	for (uint32_t i = 1; i < peer->handle_room; i++)
		if (!peer->handles[i] && peer->orphans[i])
			peer_handle_close_orphan(peer, i);
	peer_req_start_waiting(peer);
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
			peer_handle_reopen(peer, ph);
		if (forgotten)
			peer->orphans[i] = false;
	}
	if (peer->reopens == 0)
		replay(peer);
}

/* ---- interrupts ---- */

struct peer_slot *peer_slot_of(struct peer *peer, const void *req)
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
		peer_req_start_waiting(peer);
	}
}

void peer_store_interrupt(struct store *store, struct store_req *req)
{
	struct peer *peer = ((struct peer_handle *)store)->peer;
	struct peer_slot *slot = peer_slot_of(peer, req);

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
	struct peer_slot *slot = peer_slot_of(peer, req);

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
			peer_handle_free(peer, req->ret_handle);
		pool_complete(req, -EINTR);
		return;
	}
}

/* ---- life ---- */

static void peer_free(struct peer *peer)
{
	link_fini(peer);
	peer_look_fini(peer);
	assert(peer->in_flight == 0);
	peer_extras_fini(peer);
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

	assert(!peer->waiting_data && !peer->waiting_control);
	peer_free(peer);
}

static const struct pool_ops peer_pool_ops = {
    .name = "peer",
    .submit = peer_pool_submit,
    .interrupt = peer_pool_interrupt,
    .destroy = peer_destroy,
};

/* Everything that the data path uses, allocated and touched. */
static int peer_alloc(struct peer *peer, const struct peer_conf *conf)
{
	peer->slots = calloc(PEER_SLOTS, sizeof(peer->slots[0]));
	peer->bodies = calloc(PEER_BODIES, FRAME_BODY_MAX);
	peer->stats = calloc(1, sizeof(*peer->stats));
	if (!peer->slots || !peer->bodies || !peer->stats ||
	    peer_extras_init(peer, conf->conns ? conf->conns - 1 : 0, conf->client) ||
	    peer_handle_room(peer, 1))
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
	if (!peer->host || !peer->pool_name || peer_alloc(peer, conf))
		rc = err_set(err, -ENOMEM, "out of memory");
	else if (link_make_session(peer->session, conf->client, 0))
		rc = err_set(err, -EIO, "no random numbers for a session");
	else
		rc = link_init(peer, err);
	if (rc == 0 && peer_look_init(peer, conf->look_ms))
		rc = err_set(err, -ENOMEM, "out of memory");
	if (rc) {
		peer_free(peer);
		return rc;
	}
	*ret_pool = &peer->pool;
	return 0;
}

void peer_pool_uuid(const struct pool *pool, uint8_t ret_uuid[16])
{
	memcpy(ret_uuid, ((const struct peer *)pool)->welcome.pool_uuid, 16);
}

struct store_stats *peer_pool_stats(struct pool *pool)
{
	return ((struct peer *)pool)->stats;
}

void peer_pool_give_up(struct pool *pool)
{
	link_give_up((struct peer *)pool);
}
