/* SPDX-License-Identifier: Apache-2.0
 *
 * Further connections to a donor, which share the work of long reads (`conns`).
 *
 * The first connection (peer_link.c) keeps all that needs an order, a lease or a replay.  Each further one is a
 * session of its own at the donor, a reader: it opens regions for reading only, and sends nothing but READs.  A
 * READ takes the connection that has the fewest requests in flight, the first one if it is among them; so whatever
 * is slow or short stays with the first, and long replies are out of the way of short ones.  What a reader gets is
 * what the first connection would: a request that is sent after a write was answered sees it, over any session.
 *
 * A further connection is there only while the first is up, at the same process of the donor (its `instance`): so
 * what is read is never from another life of the pool than what is written.  Its states are those of enum
 * link_state but LINK_FAILED, and mean the same:
 *
 *        attempt              connected              welcome of the first one's instance
 *   DOWN ───────► CONNECTING ───────────► GREETING ───────────► UP
 *    ▲  timer         │ error, time-out       │ error, time-out  │ closed, silent, protocol error
 *    └────────────────┴───────────────────────┴──────────────────┘     the first one is lost: any → DOWN, no timer
 *
 * It may fail: nothing but speed is lost.  Its requests go to the first connection, and so does a READ that it
 * answers with an error: only the first one's word counts (a region without a name, or whose mode has changed, is
 * not a reader's to open or read).
 *
 * What it has open, for each number of a handle (enum extra_handle), and who moves it:
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
 * Everything runs on one loop; there are no locks.  Reading allocates nothing.
 */
#include "backends/peer_int.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BACKOFF_MAX_MS = 5000 };

enum extra_handle { SHUT, ASKED, OPEN, REFUSED, OWED };

struct peer_extra {
	/* Constant. */
	struct peer *peer;
	unsigned number; /* among the mount's connections: 2, 3, … */
	uint8_t session[16];

	/* The connection. */
	enum link_state state;
	struct conn *conn;
	struct loop_fd connecting;
	struct loop_timer
	    timer; /* next attempt, or an attempt's time-out; UP: while anything is asked */
	unsigned backoff_ms;
	bool failed; /* an attempt, since it was up */
	bool told; /* that it is away */
	uint64_t epoch;
	uint64_t bytes_in, bytes_out; /* of earlier connections */
	uint64_t seen_moved;
	unsigned silent_ticks;
	bool pinging, ping_queued;
	struct conn_out hello_out, ping_out;
	uint8_t hello_buf[FRAME_REQ_LEN + FRAME_HELLO_MAX], ping_buf[FRAME_REQ_LEN];

	/* The frame that is being received. */
	struct frame_rep rep;
	uint8_t control[FRAME_TEXT_MAX]; /* longer than a welcome, attributes or a notice */

	/* READs. */
	unsigned in_flight;

	/* Handles. */
	uint8_t *handles; /* by number: enum extra_handle */
	unsigned owed;
	uint32_t asked; /* the handle of the OPEN or CLOSE that is not answered; 0: none */
	uint64_t ask_id;
	uint8_t ask_op;
	bool ask_queued;
	struct conn_out ask_out;
	uint8_t ask_buf[FRAME_REQ_LEN + FRAME_BODY_MAX];
};

_Static_assert((int)FRAME_TEXT_MAX >= (int)FRAME_WELCOME_LEN &&
		   (int)FRAME_TEXT_MAX >= (int)FRAME_ATTR_LEN &&
		   (int)FRAME_TEXT_MAX >= (int)FRAME_NOTICE_LEN,
    "control has room for every reply but a READ's");

static uint64_t in_ms(unsigned ms)
{
	return loop_now_ns() + (uint64_t)ms * 1000000;
}

/* Something is asked of the donor: watches over its silence. */
static void watch(struct peer_extra *extra)
{
	if (extra->timer.loop)
		return;
	extra->silent_ticks = 0;
	loop_timer_set(extra->peer->loop, &extra->timer, in_ms(LINK_TICK_MS));
}

/* ---- down ---- */

static void disconnect(struct peer_extra *extra)
{
	loop_fd_del(&extra->connecting);
	if (extra->connecting.fd >= 0)
		close(extra->connecting.fd);
	extra->connecting.fd = -1;
	if (extra->conn) {
		extra->bytes_in += conn_bytes_in(extra->conn);
		extra->bytes_out += conn_bytes_out(extra->conn);
		conn_close(extra->conn);
		extra->conn = NULL;
	}
	loop_timer_cancel(&extra->timer);
	extra->state = LINK_DOWN;
	extra->pinging = false;
	if (extra->asked && extra->handles[extra->asked] == ASKED) {
		extra->handles[extra->asked] = OWED;
		extra->owed++;
	}
	extra->asked = 0;
}

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

/* Errors name the donor first, and so does the line that they go to. */
static const char *without_address(const struct peer *peer, const char *text)
{
	size_t len = strlen(peer->address);

	return strncmp(text, peer->address, len) == 0 && strncmp(text + len, ": ", 2) == 0
		   ? text + len + 2
		   : text;
}

/* The present attempt or connection has ended. */
static void extra_down(struct peer_extra *extra, const struct err *why)
{
	struct peer *peer = extra->peer;
	bool was_up = extra->state == LINK_UP;

	disconnect(extra);
	give_back(extra, true);
	if (was_up || !extra->told)
		log_warn("%s: connection %u of %u %s (%s): the others do its work", peer->address,
		    extra->number, 1 + peer->extra_count, was_up ? "lost" : "cannot be made",
		    without_address(peer, why->text));
	extra->told = true;
	extra->failed = !was_up;
	if (was_up)
		extra->backoff_ms = LINK_BACKOFF_MIN_MS;
	loop_timer_set(peer->loop, &extra->timer, in_ms(extra->backoff_ms));
	extra->backoff_ms =
	    extra->backoff_ms * 2 < BACKOFF_MAX_MS ? extra->backoff_ms * 2 : BACKOFF_MAX_MS;
	if (extra->failed)
		peer_req_start_waiting(peer);
}

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
	watch(extra);
}

static void ask_open(struct peer_extra *extra, const struct peer_handle *ph)
{
	if (extra->asked || extra->owed)
		return;
	extra->handles[ph->handle.number] = ASKED;
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
	owed = memchr(extra->handles, OWED, extra->peer->handle_room);
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
	if (*handle == ASKED) {
		*handle = rep->status ? REFUSED : OPEN;
	} else if (rep->op == FRAME_CLOSE || rep->status) {
		*handle = SHUT;
		extra->owed--;
	}
	pay(extra);
	if (!extra->owed)
		peer_req_start_waiting(extra->peer);
	return 0;
}

void peer_extras_close(struct peer *peer, uint32_t number)
{
	for (unsigned i = 0; i < peer->extra_count; i++) {
		struct peer_extra *extra = &peer->extras[i];

		if (extra->handles[number] == SHUT || extra->handles[number] == OWED)
			continue;
		extra->handles[number] = OWED;
		extra->owed++;
		pay(extra);
	}
}

bool peer_extras_owe(const struct peer *peer, enum pool_op op)
{
	if (op != POOL_REMOVE && op != POOL_RENAME)
		return false;
	for (unsigned i = 0; i < peer->extra_count; i++)
		if (peer->extras[i].owed && !peer->extras[i].failed)
			return true;
	return false;
}

int peer_extras_room(struct peer *peer, uint32_t room)
{
	for (unsigned i = 0; i < peer->extra_count; i++) {
		struct peer_extra *extra = &peer->extras[i];
		uint8_t *grown = realloc(extra->handles, room);

		if (!grown)
			return -ENOMEM;
		memset(grown + peer->handle_room, SHUT, room - peer->handle_room);
		extra->handles = grown;
	}
	return 0;
}

/* ---- reading ---- */

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
		if (extra->handles[ph->handle.number] == OPEN) {
			best = extra;
			least = extra->in_flight;
		} else if (extra->handles[ph->handle.number] == SHUT) {
			ask_open(extra, ph);
		}
	}
	return best;
}

bool peer_extra_read(struct peer_handle *ph, struct store_req *req)
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
	watch(extra);
	return true;
}

/* The READ that a reply is for; NULL: none. */
static struct peer_slot *find_slot(const struct peer_extra *extra)
{
	struct peer_slot *slot = &extra->peer->slots[extra->rep.id % PEER_SLOTS];

	if (slot->id != extra->rep.id || slot->busy != PEER_ELSEWHERE || slot->via != extra ||
	    extra->rep.op != FRAME_READ)
		return NULL;
	return slot;
}

static int read_reply(struct peer_extra *extra)
{
	struct peer_slot *slot = find_slot(extra);
	struct peer *peer = extra->peer;
	uint8_t *handle;

	if (!slot)
		return -EPROTO;
	if (extra->rep.status) {
		handle = &extra->handles[peer_handle_of(slot->sreq)->handle.number];
		if (*handle == OPEN)
			*handle = REFUSED;
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

/* ---- frames ---- */

static void extra_up(struct peer_extra *extra)
{
	struct peer *peer = extra->peer;

	loop_timer_cancel(&extra->timer);
	extra->state = LINK_UP;
	extra->backoff_ms = LINK_BACKOFF_MIN_MS;
	extra->failed = false;
	if (extra->told)
		log_info("%s: connection %u of %u is there", peer->address, extra->number,
		    1 + peer->extra_count);
	extra->told = false;
	if (!(extra->rep.flags & FRAME_F_RESUMED)) {
		memset(extra->handles, SHUT, peer->handle_room);
		extra->owed = 0;
	}
	pay(extra);
	if (!extra->owed)
		peer_req_start_waiting(peer);
}

static int welcome(struct peer_extra *extra)
{
	const struct frame_rep *rep = &extra->rep;
	const struct peer *peer = extra->peer;
	struct frame_welcome now;
	struct err err;

	if (rep->status) {
		err_set(&err, frame_errno(rep->status), "%.*s", (int)rep->payload,
		    (const char *)extra->control);
		extra_down(extra, &err);
		return 0;
	}
	if (frame_welcome_get(extra->control, rep->payload, &now) ||
	    now.version != peer->welcome.version)
		return -EPROTO;
	if (memcmp(now.instance, peer->welcome.instance, sizeof(now.instance)) != 0 ||
	    memcmp(now.pool_uuid, peer->welcome.pool_uuid, sizeof(now.pool_uuid)) != 0) {
		err_set(&err, -ESTALE, "it is not the donor that the first connection has");
		extra_down(extra, &err);
		return 0;
	}
	extra_up(extra);
	return 0;
}

static int extra_header(struct conn *conn, const uint8_t *header, void **ret_buf, uint32_t *ret_len)
{
	struct peer_extra *extra = conn_owner(conn);
	const struct frame_rep *rep = &extra->rep;
	struct peer_slot *slot;
	const char *why;

	if (frame_rep_get(header, &extra->rep, &why))
		return -EPROTO;
	*ret_len = rep->payload;
	*ret_buf = extra->control;
	if (rep->op != FRAME_READ || rep->status || rep->payload == 0)
		return rep->payload <= sizeof(extra->control) ? 0 : -EPROTO;
	slot = find_slot(extra);
	if (!slot || rep->payload != slot->sreq->len)
		return -EPROTO;
	*ret_buf = slot->sreq->buf;
	if (slot->sreq->flags & STORE_PIPE && rep->payload >= CONN_PIPE_MIN)
		conn_use_pipe(conn);
	return 0;
}

static int extra_frame(struct conn *conn)
{
	struct peer_extra *extra = conn_owner(conn);
	const struct frame_rep *rep = &extra->rep;

	if (extra->state == LINK_GREETING)
		return rep->id == PEER_ID_HELLO && rep->op == FRAME_HELLO ? welcome(extra)
									  : -EPROTO;
	if (rep->id == FRAME_ID_PING) {
		extra->pinging = false;
		return 0;
	}
	/* The first connection gets what is news; this one's are the mount's own changes.  As long as it
	 * acknowledges none the donor sends one for each region and no more. */
	if (rep->id == FRAME_ID_NOTICE)
		return rep->op == FRAME_NOTICE ? 0 : -EPROTO;
	return rep->op == FRAME_READ ? read_reply(extra) : ask_reply(extra);
}

static void extra_closed(struct conn *conn, int rc)
{
	struct peer_extra *extra = conn_owner(conn);
	struct err err;

	link_closed_text(extra->peer, extra->state, rc, &err);
	extra_down(extra, &err);
}

static const struct conn_handlers extra_handlers = {
    .header_len = FRAME_REP_LEN,
    .header = extra_header,
    .frame = extra_frame,
    .closed = extra_closed,
};

/* ---- connecting ---- */

static void connected(struct loop_fd *lfd, uint32_t events)
{
	struct peer_extra *extra =
	    (struct peer_extra *)((char *)lfd - offsetof(struct peer_extra, connecting));
	struct frame_hello hello = {.epoch = ++extra->epoch};
	int rc = 0, fd = lfd->fd;
	struct err err;

	rc = link_connect_result(extra->peer, lfd, &err);
	if (rc == 0) {
		loop_fd_del(lfd);
		lfd->fd = -1;
		conn_tune(fd);
		rc = conn_create(extra->peer->loop, fd, &extra_handlers, extra, &extra->conn, &err);
	}
	if (rc) {
		extra_down(extra, &err);
		return;
	}
	extra->state = LINK_GREETING;
	loop_timer_set(extra->peer->loop, &extra->timer, in_ms(LINK_ATTEMPT_MS));
	/* Without the client's identity, which would make the donor take the mount's sessions for the lives of
	 * one client, of which the last one counts. */
	memcpy(hello.session, extra->session, sizeof(hello.session));
	link_send_hello(extra->peer, extra->conn, &hello, &extra->hello_out, extra->hello_buf);
}

static void attempt(struct peer_extra *extra)
{
	struct err err;
	int rc;

	extra->state = LINK_CONNECTING;
	rc = link_connect(extra->peer, &extra->connecting);
	if (rc) {
		err_sys(&err, rc, "%s", extra->peer->address);
		extra_down(extra, &err);
		return;
	}
	loop_timer_set(extra->peer->loop, &extra->timer, in_ms(LINK_ATTEMPT_MS));
}

/* ---- time ---- */

static void ping_sent(struct conn_out *out, int err)
{
	struct peer_extra *extra =
	    (struct peer_extra *)((char *)out - offsetof(struct peer_extra, ping_out));

	extra->ping_queued = false;
}

static void send_ping(struct peer_extra *extra)
{
	struct frame_req frame = {.op = FRAME_PING, .id = FRAME_ID_PING};

	if (extra->pinging || extra->ping_queued)
		return;
	extra->pinging = extra->ping_queued = true;
	frame_req_put(extra->ping_buf, &frame);
	extra->ping_out.iov[0] = (struct iovec){extra->ping_buf, FRAME_REQ_LEN};
	extra->ping_out.iov_count = 1;
	extra->ping_out.sent = ping_sent;
	conn_send(extra->conn, &extra->ping_out);
}

/* UP: as the first connection's watchdog. */
static void tick(struct peer_extra *extra)
{
	uint64_t moved;
	struct err err;

	if (!extra->in_flight && !extra->asked)
		return;
	loop_timer_set(extra->peer->loop, &extra->timer, in_ms(LINK_TICK_MS));
	moved = link_moved(extra->conn);
	extra->silent_ticks = moved == extra->seen_moved ? extra->silent_ticks + 1 : 0;
	extra->seen_moved = moved;
	if (extra->silent_ticks >= LINK_LOST_TICKS) {
		err_set(
		    &err, -ETIMEDOUT, "no answer for %d s", LINK_LOST_TICKS * LINK_TICK_MS / 1000);
		extra_down(extra, &err);
	} else if (extra->silent_ticks >= LINK_PING_TICKS) {
		send_ping(extra);
	}
}

static void timer_expired(struct loop_timer *timer)
{
	struct peer_extra *extra =
	    (struct peer_extra *)((char *)timer - offsetof(struct peer_extra, timer));
	struct err err;

	if (extra->state == LINK_UP) {
		tick(extra);
	} else if (extra->state == LINK_DOWN) {
		attempt(extra);
	} else {
		err_set(&err, -ETIMEDOUT, "%s: no answer for %d s", extra->peer->address,
		    LINK_ATTEMPT_MS / 1000);
		extra_down(extra, &err);
	}
}

/* ---- with the first connection ---- */

void peer_extras_start(struct peer *peer)
{
	for (unsigned i = 0; i < peer->extra_count; i++) {
		peer->extras[i].backoff_ms = LINK_BACKOFF_MIN_MS;
		attempt(&peer->extras[i]);
	}
}

void peer_extras_stop(struct peer *peer)
{
	for (unsigned i = 0; i < peer->extra_count; i++) {
		disconnect(&peer->extras[i]);
		give_back(&peer->extras[i], false);
	}
}

void peer_extras_bye(struct peer *peer)
{
	for (unsigned i = 0; i < peer->extra_count; i++)
		if (peer->extras[i].state == LINK_UP)
			link_say_bye(peer->extras[i].conn);
}

unsigned peer_extras_status(const struct peer *peer, uint64_t *bytes_in, uint64_t *bytes_out)
{
	unsigned up = 0;

	for (unsigned i = 0; i < peer->extra_count; i++) {
		const struct peer_extra *extra = &peer->extras[i];

		up += extra->state == LINK_UP;
		*bytes_in += extra->bytes_in + (extra->conn ? conn_bytes_in(extra->conn) : 0);
		*bytes_out += extra->bytes_out + (extra->conn ? conn_bytes_out(extra->conn) : 0);
	}
	return up;
}

/* ---- life ---- */

int peer_extras_init(struct peer *peer, unsigned count, const char *client)
{
	assert(count < PEER_CONNS_MAX);
	if (count == 0)
		return 0;
	peer->extras = calloc(count, sizeof(peer->extras[0]));
	if (!peer->extras)
		return -ENOMEM;
	peer->extra_count = count;
	for (unsigned i = 0; i < count; i++) {
		struct peer_extra *extra = &peer->extras[i];

		extra->peer = peer;
		extra->number = 2 + i;
		extra->connecting.fd = -1;
		extra->connecting.ready = connected;
		extra->timer.expired = timer_expired;
		if (link_make_session(extra->session, client, extra->number))
			return -EIO;
	}
	return 0;
}

void peer_extras_fini(struct peer *peer)
{
	for (unsigned i = 0; i < peer->extra_count; i++)
		free(peer->extras[i].handles);
	free(peer->extras);
}
