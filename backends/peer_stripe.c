/* SPDX-License-Identifier: Apache-2.0
 *
 * What goes over further connections to a donor (peer_extra.c): long READs, and the OPENs and CLOSEs that these need.
 *
 * A READ takes the connection that has the fewest requests in flight, the first one if it is among them; so
 * whatever is slow or short stays with the first, and long replies are out of the way of short ones.  Requests are
 * counted, not bytes: all that counts here are long, and the first connection's short ones count in full.
 *
 * What a connection's session has open, for each number of a handle (enum extra_handle), and who moves it:
 *   SHUT → (a long READ) → ASKED → (OPEN is answered) → OPEN or REFUSED
 *   OPEN → (a READ is refused) → REFUSED
 *   ASKED, OPEN, REFUSED → (the user's CLOSE) → OWED → (CLOSE is answered) → SHUT
 *   ASKED → (the connection is lost) → OWED;  all → (the donor has forgotten the session) → SHUT
 *
 * Invariants:
 *   1. A slot with PEER_ELSEWHERE is a READ on the connection slot->via, which is up; extra->in_flight counts them.
 *   2. A handle that is OPEN here is that of the region which has its number in peer->handles: a number is not
 *      OPEN again before the old handle's CLOSE was answered, or its session forgotten.
 *   3. extra->owed counts the numbers that are OWED.  While there are some, REMOVE and RENAME wait: a region that
 *      its user has closed must not be found open.  They wait no longer when the connection is lost and the
 *      first attempt to make it again fails; then the donor closes what is left, after a minute.
 *
 * An error that a READ gets here is nobody's answer: the first connection is asked.
 *
 * Everything runs on one loop; there are no locks.  Reading allocates nothing.
 */
#include "backends/peer_extra_int.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- handles ---- */

static void ask_sent(struct conn_out *out, int err)
{
	struct peer_extra *extra =
	    (struct peer_extra *)((char *)out - offsetof(struct peer_extra, ask_out));

	extra->ask_queued = false;
}

static void ask(struct peer_extra *extra, const struct pool_req *req)
{
	struct frame_req frame;
	size_t len = frame_control_put(req, &frame, extra->ask_buf + FRAME_REQ_LEN);

	frame.id = PEER_ID_LOOSE(extra->peer->next_seq++, req->number);
	frame_req_put(extra->ask_buf, &frame);
	extra->asked = req->number;
	extra->ask_id = frame.id;
	extra->ask_op = frame.op;
	extra->ask_out.iov[0] = (struct iovec){extra->ask_buf, FRAME_REQ_LEN + len};
	extra->ask_out.iov_count = 1;
	extra->ask_out.sent = ask_sent;
	extra->ask_queued = true;
	conn_send(extra->conn, &extra->ask_out);
	peer_extra_watch(extra);
}

static void ask_open(struct peer_extra *extra, const struct peer_handle *ph)
{
	if (extra->asked || extra->owed)
		return;
	extra->handles[ph->handle.number] = EXTRA_ASKED;
	ask(extra, &(struct pool_req){
		       .op = POOL_OPEN,
		       .flags = POOL_READ,
		       .id = ph->handle.region_id,
		       .number = ph->handle.number,
		   });
}

/* One after the other. */
static void pay(struct peer_extra *extra)
{
	const uint8_t *owed;

	if (extra->state != LINK_UP || extra->asked || !extra->owed)
		return;
	owed = memchr(extra->handles, EXTRA_OWED, extra->peer->handle_room);
	assert(owed);
	ask(extra,
	    &(struct pool_req){.op = POOL_CLOSE, .number = (uint32_t)(owed - extra->handles)});
}

static int ask_reply(struct peer_extra *extra)
{
	const struct frame_rep *rep = &extra->rep;
	uint8_t *handle = &extra->handles[extra->asked];

	if (!extra->asked || extra->ask_queued || rep->id != extra->ask_id ||
	    rep->op != extra->ask_op)
		return -EPROTO;
	extra->asked = 0;
	if (*handle == EXTRA_ASKED) {
		*handle = rep->status ? EXTRA_REFUSED : EXTRA_OPEN;
	} else if (rep->op == FRAME_CLOSE || rep->status) {
		*handle = EXTRA_SHUT;
		extra->owed--;
	}
	pay(extra);
	if (!extra->owed)
		peer_req_start_waiting(extra->peer);
	return 0;
}

void peer_stripe_close(struct peer *peer, uint32_t number)
{
	for (unsigned i = 0; i < peer->extra_count; i++) {
		struct peer_extra *extra = &peer->extras[i];

		if (extra->handles[number] == EXTRA_SHUT || extra->handles[number] == EXTRA_OWED)
			continue;
		extra->handles[number] = EXTRA_OWED;
		extra->owed++;
		pay(extra);
	}
}

bool peer_stripe_owe(const struct peer *peer, enum pool_op op)
{
	if (op != POOL_REMOVE && op != POOL_RENAME)
		return false;
	for (unsigned i = 0; i < peer->extra_count; i++)
		if (peer->extras[i].owed && !peer->extras[i].failed)
			return true;
	return false;
}

int peer_stripe_room(struct peer *peer, uint32_t room)
{
	for (unsigned i = 0; i < peer->extra_count; i++) {
		struct peer_extra *extra = &peer->extras[i];
		uint8_t *grown = realloc(extra->handles, room);

		if (!grown)
			return -ENOMEM;
		memset(grown + peer->handle_room, EXTRA_SHUT, room - peer->handle_room);
		extra->handles = grown;
	}
	return 0;
}

/* ---- reading ---- */

/* The request is the first connection's from now on. */
static void slot_back(struct peer_extra *extra, struct peer_slot *slot)
{
	slot->busy = 0;
	extra->in_flight--;
	extra->peer->elsewhere--;
}

/* Gives back all requests.  send: the first connection is up. */
static void give_back(struct peer_extra *extra, bool send)
{
	for (struct peer_slot *slot = extra->peer->first; slot && extra->in_flight;
	     slot = slot->next) {
		if (!(slot->busy & PEER_ELSEWHERE) || slot->via != extra)
			continue;
		slot_back(extra, slot);
		if (send)
			peer_slot_send(extra->peer, slot);
	}
	assert(extra->in_flight == 0);
}

static void read_sent(struct conn_out *out, int err)
{
	((struct peer_slot *)out)->busy &= (uint8_t)~PEER_SENDING;
}

/* The connection with the fewest requests in flight, which has the handle open; NULL: the first one. */
static struct peer_extra *choose(struct peer *peer, const struct peer_handle *ph)
{
	unsigned least = peer->in_flight - peer->elsewhere;
	struct peer_extra *best = NULL;

	for (unsigned i = 0; i < peer->extra_count; i++) {
		struct peer_extra *extra = &peer->extras[i];

		if (extra->state != LINK_UP || extra->in_flight >= least)
			continue;
		if (extra->handles[ph->handle.number] == EXTRA_OPEN) {
			best = extra;
			least = extra->in_flight;
		} else if (extra->handles[ph->handle.number] == EXTRA_SHUT) {
			ask_open(extra, ph);
		}
	}
	return best;
}

bool peer_stripe_read(struct peer_handle *ph, struct store_req *req)
{
	struct peer *peer = ph->peer;
	struct frame_req frame = {
	    .op = FRAME_READ,
	    .flags = req->flags & STORE_BACKGROUND ? FRAME_F_BACKGROUND : 0,
	    .off = req->off,
	    .len = req->len,
	    .handle = ph->handle.number,
	};
	struct peer_extra *extra;
	struct peer_slot *slot;

	if (ph->stale || !link_is_up(peer) || peer->reopens || peer->waiting_data ||
	    !peer->free_slots)
		return false;
	extra = choose(peer, ph);
	if (!extra)
		return false;
	slot = peer_slot_get(peer);
	frame.id = slot->id;
	frame_req_put(slot->header, &frame);
	slot->sreq = req;
	slot->out.iov_count = 1;
	slot->out.iov[0] = (struct iovec){slot->header, FRAME_REQ_LEN};
	slot->out.sent = read_sent;
	slot->busy = PEER_ELSEWHERE | PEER_SENDING;
	slot->via = extra;
	extra->in_flight++;
	peer->elsewhere++;
	conn_send(extra->conn, &slot->out);
	peer_extra_watch(extra);
	return true;
}

struct peer_slot *peer_stripe_slot(const struct peer_extra *extra)
{
	struct peer_slot *slot = &extra->peer->slots[extra->rep.id % PEER_SLOTS];

	if (slot->id != extra->rep.id || slot->busy != PEER_ELSEWHERE || slot->via != extra ||
	    extra->rep.op != FRAME_READ)
		return NULL;
	return slot;
}

static int read_reply(struct peer_extra *extra)
{
	struct peer_slot *slot = peer_stripe_slot(extra);
	struct peer *peer = extra->peer;
	uint8_t *handle;

	if (!slot)
		return -EPROTO;
	if (extra->rep.status) {
		handle = &extra->handles[peer_handle_of(slot->sreq)->handle.number];
		if (*handle == EXTRA_OPEN)
			*handle = EXTRA_REFUSED;
		slot_back(extra, slot);
		peer_slot_send(peer, slot);
		return 0;
	}
	if (peer_data_read(extra->conn, &extra->rep, slot->sreq))
		return -EPROTO;
	slot_back(extra, slot);
	peer->striped++;
	peer_data_done(peer, slot, 0);
	peer_req_start_waiting(peer);
	return 0;
}

int peer_stripe_reply(struct peer_extra *extra)
{
	return extra->rep.op == FRAME_READ ? read_reply(extra) : ask_reply(extra);
}

/* ---- with the connection ---- */

void peer_stripe_lost(struct peer_extra *extra, bool send)
{
	if (extra->asked && extra->handles[extra->asked] == EXTRA_ASKED) {
		extra->handles[extra->asked] = EXTRA_OWED;
		extra->owed++;
	}
	extra->asked = 0;
	give_back(extra, send);
}

void peer_stripe_up(struct peer_extra *extra, bool forgotten)
{
	if (forgotten) {
		memset(extra->handles, EXTRA_SHUT, extra->peer->handle_room);
		extra->owed = 0;
	}
	pay(extra);
	if (!extra->owed)
		peer_req_start_waiting(extra->peer);
}
