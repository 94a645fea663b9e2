/* SPDX-License-Identifier: Apache-2.0
 *
 * Further connections to a donor, which share the work of long reads (`conns`).
 *
 * The first connection (peer_link.c) keeps all that needs an order, a lease or a replay.  Each further one is a
 * session of its own at the donor, a reader: it opens regions for reading only, and sends nothing but READs
 * (peer_stripe.c).  What a reader gets is what the first connection would: a request that is sent after a write was
 * answered sees it, over any session.
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
 * Everything runs on one loop; there are no locks.
 */
#include "backends/peer_extra_int.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BACKOFF_MAX_MS = 5000 };

_Static_assert((int)FRAME_TEXT_MAX >= (int)FRAME_WELCOME_LEN &&
		   (int)FRAME_TEXT_MAX >= (int)FRAME_ATTR_LEN &&
		   (int)FRAME_TEXT_MAX >= (int)FRAME_NOTICE_LEN,
    "control has room for every reply but a READ's");

static uint64_t in_ms(unsigned ms)
{
	return loop_now_ns() + (uint64_t)ms * 1000000;
}

void peer_extra_watch(struct peer_extra *extra)
{
	if (extra->timer.loop)
		return;
	extra->silent_ticks = 0;
	loop_timer_set(extra->peer->loop, &extra->timer, in_ms(LINK_TICK_MS));
}

/* ---- down ---- */

/* send: the first connection is up. */
static void disconnect(struct peer_extra *extra, bool send)
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
	peer_stripe_lost(extra, send);
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

	disconnect(extra, true);
	if (was_up || !extra->told)
		log_warn("%s: connection %u of %u %s (%s): the others do its work", peer->address,
		    extra->number, 1 + peer->extra_count, was_up ? "lost" : "cannot be made",
		    without_address(peer, why->text));
	extra->told = true;
	extra->failed = !was_up;
	if (was_up && extra->served)
		extra->backoff_ms = LINK_BACKOFF_MIN_MS;
	loop_timer_set(peer->loop, &extra->timer, in_ms(extra->backoff_ms));
	extra->backoff_ms =
	    extra->backoff_ms * 2 < BACKOFF_MAX_MS ? extra->backoff_ms * 2 : BACKOFF_MAX_MS;
	if (extra->failed)
		peer_req_start_waiting(peer);
}

/* ---- frames ---- */

static void extra_up(struct peer_extra *extra)
{
	struct peer *peer = extra->peer;

	loop_timer_cancel(&extra->timer);
	extra->state = LINK_UP;
	extra->served = false;
	extra->failed = false;
	if (extra->told)
		log_info("%s: connection %u of %u is there", peer->address, extra->number,
		    1 + peer->extra_count);
	extra->told = false;
	peer_stripe_up(extra, !(extra->rep.flags & FRAME_F_RESUMED));
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
	slot = peer_stripe_slot(extra);
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
	extra->served = true;
	if (rep->id == FRAME_ID_PING) {
		extra->pinging = false;
		return 0;
	}
	/* The first connection gets what is news; this one's are the mount's own changes.  As long as it
	 * acknowledges none the donor sends one for each region and no more. */
	if (rep->id == FRAME_ID_NOTICE)
		return rep->op == FRAME_NOTICE ? 0 : -EPROTO;
	return peer_stripe_reply(extra);
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
	for (unsigned i = 0; i < peer->extra_count; i++)
		disconnect(&peer->extras[i], false);
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
