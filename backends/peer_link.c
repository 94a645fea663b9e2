/* SPDX-License-Identifier: Apache-2.0
 *
 * The connection to a donor: made, watched, lost, made again.  With `conns` it is the first of several; the others
 * (peer_extra.c) are there only while it is up.
 *
 * States (enum link_state) and who moves them:
 *
 *        attempt              connected              welcome
 *   DOWN ───────► CONNECTING ───────────► GREETING ───────────► UP
 *    ▲  timer         │ error, time-out       │ error, time-out  │ closed, silent, protocol error
 *    └────────────────┴───────────────────────┴──────────────────┘     link_give_up: any → FAILED
 *
 * Before the first welcome a failure of the last address, or an answer from the donor that says no, is
 * final: conf->ready gets it.  After it, attempts go on for ever with a growing pause, which begins anew when a
 * connection has answered a request or lasted for the longest pause: a donor may greet, and end at each request.
 *
 * What a donor's welcome means for the requests that were in flight (see docs/PROTOCOL.md, "Sessions"):
 *   resumed                    replay; the donor knows the handles and which control requests are done
 *   same pool, not resumed     re-open the handles, then replay
 *   another pool (its uuid)    the regions are gone: every handle is stale
 *   same pool, other boot      also: writes that were not flushed are lost; the next flush says so
 *
 * The watchdog runs only while requests are in flight: without a byte from the donor for 1 s it sends
 * a PING, after 5 s the connection counts as lost.  While leases are held another timer sends one when
 * nothing else was sent for a third of the lease's time, and takes a connection for lost that has not
 * answered it for 5 s.  An idle mount without them has no timers.
 */
#include "backends/peer_int.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

static const uint64_t SILENT_NS = (uint64_t)LINK_LOST_TICKS * LINK_TICK_MS * 1000000;

static void attempt(struct peer *peer);

static uint64_t in_ms(unsigned ms)
{
	return loop_now_ns() + (uint64_t)ms * 1000000;
}

bool link_is_up(const struct peer *peer)
{
	return peer->state == LINK_UP;
}

int link_refuses(const struct peer *peer)
{
	return peer->state == LINK_FAILED || peer->soft_expired ? -EIO : 0;
}

static void drop_conn(struct peer *peer)
{
	peer_extras_stop(peer);
	loop_fd_del(&peer->connecting);
	if (peer->connecting.fd >= 0)
		close(peer->connecting.fd);
	peer->connecting.fd = -1;
	if (peer->conn) {
		peer->bytes_in += conn_bytes_in(peer->conn);
		peer->bytes_out += conn_bytes_out(peer->conn);
		conn_close(peer->conn);
		peer->conn = NULL;
	}
	loop_timer_cancel(&peer->timer);
	peer->pinging = false;
}

/* Tells whoever waits for the mount, once. */
static void report(struct peer *peer, const struct err *err)
{
	void (*ready)(void *, const struct err *) = peer->ready;

	peer->ready = NULL;
	if (ready)
		ready(peer->ctx, err);
}

/* The present attempt or connection has ended.  final: trying again before the first success makes no
 * sense. */
static void link_down(struct peer *peer, const struct err *why, bool final)
{
	bool was_up = peer->state == LINK_UP;

	drop_conn(peer);
	if (peer->state == LINK_FAILED)
		return;
	peer->state = LINK_DOWN;
	if (peer->ready) {
		if (!final && peer->addr->ai_next) {
			peer->addr = peer->addr->ai_next;
			attempt(peer);
		} else {
			report(peer, why);
		}
		return;
	}
	if (was_up) {
		log_warn("%s: connection lost (%s): requests wait until it is back", peer->address,
		    why->text);
		if (peer->served ||
		    loop_now_ns() >= peer->since_ns + (uint64_t)LINK_BACKOFF_MAX_MS * 1000000)
			peer->backoff_ms = LINK_BACKOFF_MIN_MS;
		peer->since_ns = loop_now_ns();
		if (peer->soft)
			loop_timer_set(
			    peer->loop, &peer->soft_timer, peer->since_ns + peer->timeo_ns);
		peer_req_lost(peer);
	} else {
		if (log_allowed(&peer->down_limit))
			log_debug("%s: %s", peer->address, why->text);
		peer->addr = peer->addr->ai_next ? peer->addr->ai_next : peer->addrs;
	}
	loop_timer_set(peer->loop, &peer->timer, in_ms(peer->backoff_ms));
	peer->backoff_ms =
	    peer->backoff_ms * 2 < LINK_BACKOFF_MAX_MS ? peer->backoff_ms * 2 : LINK_BACKOFF_MAX_MS;
}

/* ---- the greeting ---- */

int link_make_session(uint8_t ret_session[16], const char *client, unsigned index)
{
	uint64_t h = 14695981039346656037u; /* FNV-1a */

	if (getrandom(ret_session, 16, 0) != 16)
		return -EIO;
	if (!client)
		return 0;
	for (; *client; client++)
		h = (h ^ (uint8_t)*client) * 1099511628211u;
	if (index)
		h = (h ^ index) * 1099511628211u;
	memcpy(ret_session, &h, FRAME_CLIENT_LEN);
	return 0;
}

void link_send_hello(struct peer *peer, struct conn *conn, const struct frame_hello *hello,
    struct conn_out *out, uint8_t *buf)
{
	struct frame_hello full = *hello;
	struct frame_req frame = {.op = FRAME_HELLO, .id = PEER_ID_HELLO};

	full.version_min = FRAME_VERSION_MIN;
	full.version_max = FRAME_VERSION_MAX;
	memcpy(full.who, peer->who, sizeof(full.who));
	snprintf(full.pool, sizeof(full.pool), "%s", peer->pool_name);
	frame.payload = (uint32_t)frame_hello_put(buf + FRAME_REQ_LEN, &full);
	frame_req_put(buf, &frame);
	out->iov[0] = (struct iovec){buf, FRAME_REQ_LEN + frame.payload};
	out->iov_count = 1;
	conn_send(conn, out);
}

static void send_hello(struct peer *peer)
{
	struct frame_hello hello = {.epoch = ++peer->epoch};

	memcpy(hello.session, peer->session, sizeof(hello.session));
	memcpy(hello.identity, peer->identity, sizeof(hello.identity));
	link_send_hello(peer, peer->conn, &hello, &peer->hello_out, peer->hello_buf);
	peer->ping_ns = loop_now_ns();
}

/* What the donor's answer means for what was in flight. */
static void after_welcome(struct peer *peer, const struct frame_welcome *was, bool resumed)
{
	const struct frame_welcome *now = &peer->welcome;
	unsigned n;

	if (memcmp(was->pool_uuid, now->pool_uuid, 16) != 0) {
		n = peer_req_stale(peer);
		log_error(
		    "%s: pool \"%s\" is a new one: the donor was restarted and what its memory held is "
		    "lost; %u open region%s gone: I/O on %s fails with \"Stale file handle\"",
		    peer->address, peer->pool_name, n, n == 1 ? " is" : "s are",
		    n == 1 ? "it" : "them");
	} else if (memcmp(was->boot, now->boot, 16) != 0) {
		n = peer_req_lost_writes(peer);
		log_warn(
		    "%s: the donor's machine was restarted; writes that were not flushed may be lost: "
		    "the next fsync of %u region%s will say so",
		    peer->address, n, n == 1 ? "" : "s");
	} else {
		log_info("%s: connected again after %.1f s", peer->address,
		    (double)(loop_now_ns() - peer->since_ns) / 1e9);
	}
	peer->state = LINK_UP;
	peer_req_replay(peer, !resumed);
}

static int welcome(struct peer *peer)
{
	struct frame_welcome was = peer->welcome, now;
	struct err err;

	if (peer->rep.status) {
		err_set(&err, frame_errno(peer->rep.status), "%s: %.*s", peer->address,
		    (int)peer->rep.payload, (const char *)peer->control);
		link_down(peer, &err, true);
		return 0;
	}
	if (frame_welcome_get(peer->control, peer->rep.payload, &now) ||
	    now.version < FRAME_VERSION_MIN || now.version > FRAME_VERSION_MAX)
		return -EPROTO;
	peer->welcome = now;
	loop_timer_cancel(&peer->timer);
	loop_timer_cancel(&peer->soft_timer);
	peer->soft_expired = false;
	peer->rtt_ns = loop_now_ns() - peer->ping_ns;
	peer->seen_moved = 0;
	peer->silent_ticks = 0;
	peer->served = false;
	peer->pool.size_max = peer->welcome.size_max;
	if (peer->was_up) {
		peer->reconnects++;
		after_welcome(peer, &was, peer->rep.flags & FRAME_F_RESUMED);
	} else {
		peer->was_up = true;
		peer->state = LINK_UP;
	}
	peer->since_ns = loop_now_ns();
	peer_extras_start(peer);
	report(peer, NULL);
	return 0;
}

/* ---- frames ---- */

static int link_header(struct conn *conn, const uint8_t *header, void **ret_buf, uint32_t *ret_len)
{
	struct peer *peer = conn_owner(conn);
	const char *why;

	if (frame_rep_get(header, &peer->rep, &why)) {
		if (log_allowed(&peer->down_limit))
			log_error("%s: bad reply: %s", peer->address, why);
		return -EPROTO;
	}
	/* Before the welcome requests are not this connection's: they may end, and their buffers with them. */
	if (peer->state == LINK_GREETING && peer->rep.op != FRAME_HELLO)
		return -EPROTO;
	*ret_len = peer->rep.payload;
	if (peer->rep.payload == 0)
		return 0;
	*ret_buf = peer_req_buffer(peer);
	if (!*ret_buf)
		return -EPROTO;
	if (peer_req_takes_pipe(peer))
		conn_use_pipe(conn);
	return 0;
}

static int link_frame(struct conn *conn)
{
	struct peer *peer = conn_owner(conn);

	if (peer->state == LINK_GREETING)
		return peer->rep.id == PEER_ID_HELLO && peer->rep.op == FRAME_HELLO ? welcome(peer)
										    : -EPROTO;
	if (peer->rep.id == FRAME_ID_PING) {
		/* One that comes unasked says that the donor is alive, and nothing of the way. */
		if (peer->pinging)
			peer->rtt_ns = loop_now_ns() - peer->ping_ns;
		peer->pinging = false;
		return 0;
	}
	if (peer->rep.id == FRAME_ID_NOTICE)
		return peer->rep.op == FRAME_NOTICE ? peer_req_notice(peer) : -EPROTO;
	return peer_req_reply(peer);
}

void link_closed_text(const struct peer *peer, enum link_state state, int rc, struct err *ret_err)
{
	if (rc == -EPROTO)
		err_set(ret_err, rc, "%s: it does not speak the remram protocol as it should",
		    peer->address);
	else if ((rc == 0 || rc == -ECONNRESET) && state == LINK_GREETING)
		err_set(ret_err, -ECONNRESET,
		    "%s: closed the connection without an answer: is it a remramd?", peer->address);
	else if (rc == 0)
		err_set(ret_err, -ECONNRESET, "the donor has ended it");
	else
		err_sys(ret_err, rc, "%s", peer->address);
}

static void link_closed(struct conn *conn, int rc)
{
	struct peer *peer = conn_owner(conn);
	struct err err;

	link_closed_text(peer, peer->state, rc, &err);
	link_down(peer, &err, false);
}

static const struct conn_handlers link_handlers = {
    .header_len = FRAME_REP_LEN,
    .header = link_header,
    .frame = link_frame,
    .closed = link_closed,
};

/* ---- connecting ---- */

static int connect_error(const struct peer *peer, int rc, struct err *err)
{
	if (rc == -ECONNREFUSED)
		return err_set(err, rc,
		    "%s: connection refused: is remramd running there, on that port?",
		    peer->address);
	return err_sys(err, rc, "%s", peer->address);
}

int link_connect_result(struct peer *peer, struct loop_fd *lfd, struct err *err)
{
	int rc = 0;
	socklen_t len = sizeof(rc);

	getsockopt(lfd->fd, SOL_SOCKET, SO_ERROR, &rc, &len);
	return rc ? connect_error(peer, -rc, err) : 0;
}

static void connected(struct loop_fd *lfd, uint32_t events)
{
	struct peer *peer = (struct peer *)((char *)lfd - offsetof(struct peer, connecting));
	int fd = lfd->fd;
	struct err err;

	if (link_connect_result(peer, lfd, &err)) {
		link_down(peer, &err, false);
		return;
	}
	loop_fd_del(lfd);
	lfd->fd = -1;
	conn_tune(fd);
	if (conn_create(peer->loop, fd, &link_handlers, peer, &peer->conn, &err)) {
		link_down(peer, &err, false);
		return;
	}
	peer->state = LINK_GREETING;
	loop_timer_set(peer->loop, &peer->timer, in_ms(LINK_ATTEMPT_MS));
	send_hello(peer);
	peer_look_send(peer);
}

static void set_address(struct peer *peer)
{
	char host[48] = "?", port[8] = "?";
	bool v6 = peer->addr->ai_family == AF_INET6;

	getnameinfo(peer->addr->ai_addr, peer->addr->ai_addrlen, host, sizeof(host), port,
	    sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(peer->address, sizeof(peer->address), v6 ? "[%s]:%s" : "%s:%s", host, port);
}

int link_connect(struct peer *peer, struct loop_fd *lfd)
{
	const struct addrinfo *ai = peer->addr;
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	lfd->fd = fd;
	if (fd >= 0)
		conn_tune_asker(fd);
	if (fd < 0 || (connect(fd, ai->ai_addr, ai->ai_addrlen) && errno != EINPROGRESS))
		return -errno;
	return loop_fd_add(peer->loop, lfd, EPOLLOUT);
}

static void attempt(struct peer *peer)
{
	struct err err;
	int rc;

	set_address(peer);
	peer->state = LINK_CONNECTING;
	rc = link_connect(peer, &peer->connecting);
	if (rc) {
		connect_error(peer, rc, &err);
		link_down(peer, &err, false);
		return;
	}
	loop_timer_set(peer->loop, &peer->timer, in_ms(LINK_ATTEMPT_MS));
}

static void timer_expired(struct loop_timer *timer)
{
	struct peer *peer = (struct peer *)((char *)timer - offsetof(struct peer, timer));
	struct err err;

	if (peer->state == LINK_DOWN) {
		attempt(peer);
		return;
	}
	err_set(&err, -ETIMEDOUT, "%s: no answer for %d s", peer->address, LINK_ATTEMPT_MS / 1000);
	link_down(peer, &err, false);
}

/* ---- the watchdog ---- */

static void ping_sent(struct conn_out *out, int err)
{
	struct peer *peer = (struct peer *)((char *)out - offsetof(struct peer, ping_out));

	peer->ping_queued = false;
}

static void send_ping(struct peer *peer)
{
	struct frame_req frame = {.op = FRAME_PING, .id = FRAME_ID_PING};

	/* A reply may have come unasked while ours is still queued behind data. */
	if (peer->pinging || peer->ping_queued)
		return;
	peer->ping_queued = true;
	peer->ping_out.sent = ping_sent;
	frame_req_put(peer->ping_buf, &frame);
	peer->ping_out.iov[0] = (struct iovec){peer->ping_buf, FRAME_REQ_LEN};
	peer->ping_out.iov_count = 1;
	peer->pinging = true;
	peer->ping_ns = loop_now_ns();
	conn_send(peer->conn, &peer->ping_out);
}

/* A byte from the donor, or one that its kernel has acknowledged: on a slow line one long write takes seconds,
 * and our PING stands behind it. */
uint64_t link_moved(struct conn *conn)
{
	uint64_t moved = conn_bytes_in(conn) + conn_bytes_out(conn);
	int unacknowledged = 0;

	if (ioctl(conn_fd(conn), SIOCOUTQ, &unacknowledged) == 0)
		moved -= (uint64_t)unacknowledged;
	return moved;
}

static void watchdog_expired(struct loop_timer *timer)
{
	struct peer *peer = (struct peer *)((char *)timer - offsetof(struct peer, watchdog));
	uint64_t moved;
	struct err err;

	if (peer->in_flight == 0)
		return;
	loop_timer_set(peer->loop, &peer->watchdog, in_ms(LINK_TICK_MS));
	if (peer->state != LINK_UP)
		return;
	moved = link_moved(peer->conn);
	peer->silent_ticks = moved == peer->seen_moved ? peer->silent_ticks + 1 : 0;
	peer->seen_moved = moved;
	if (peer->silent_ticks >= LINK_LOST_TICKS) {
		err_set(
		    &err, -ETIMEDOUT, "no answer for %d s", LINK_LOST_TICKS * LINK_TICK_MS / 1000);
		link_down(peer, &err, false);
	} else if (peer->silent_ticks >= LINK_PING_TICKS) {
		send_ping(peer);
	}
}

void link_watch(struct peer *peer)
{
	if (!peer->watchdog.loop) {
		peer->silent_ticks = 0;
		loop_timer_set(peer->loop, &peer->watchdog, in_ms(LINK_TICK_MS));
	}
}

/* ---- leases ---- */

static void set_lease_timer(struct peer *peer)
{
	/* Two ticks without anything sent are a third at most. */
	unsigned ms = peer->welcome.lease_ms / 6;

	if (ms)
		loop_timer_set(peer->loop, &peer->lease_timer, in_ms(ms));
}

static void lease_expired(struct loop_timer *timer)
{
	struct peer *peer = (struct peer *)((char *)timer - offsetof(struct peer, lease_timer));
	struct err err;

	if (peer->leases == 0)
		return;
	set_lease_timer(peer);
	if (peer->state != LINK_UP)
		return;
	if (peer->pinging) { /* with requests in flight the watchdog looks after it */
		if (peer->in_flight || loop_now_ns() < peer->ping_ns + SILENT_NS)
			return;
		err_set(
		    &err, -ETIMEDOUT, "no answer for %d s", LINK_LOST_TICKS * LINK_TICK_MS / 1000);
		link_down(peer, &err, false);
	} else if (conn_bytes_out(peer->conn) == peer->lease_out) {
		send_ping(peer);
	}
	peer->lease_out = peer->conn ? conn_bytes_out(peer->conn) : 0;
}

void link_keep_leases(struct peer *peer)
{
	if (!peer->lease_timer.loop)
		set_lease_timer(peer);
}

/* ---- giving up ---- */

static void soft_expired(struct loop_timer *timer)
{
	struct peer *peer = (struct peer *)((char *)timer - offsetof(struct peer, soft_timer));

	log_error("%s: away for %.1f s: requests fail from now on, until it is back (option soft)",
	    peer->address, (double)peer->timeo_ns / 1e9);
	peer->soft_expired = true;
	peer_req_fail_all(peer, -EIO);
}

void link_say_bye(struct conn *conn)
{
	struct frame_req frame = {.op = FRAME_BYE, .id = FRAME_ID_PING};
	uint8_t buf[FRAME_REQ_LEN];

	if (conn_queued(conn))
		return;
	frame_req_put(buf, &frame);
	(void)!send(conn_fd(conn), buf, sizeof(buf), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void say_bye(struct peer *peer)
{
	peer_extras_bye(peer);
	if (peer->state == LINK_UP)
		link_say_bye(peer->conn);
}

static void give_up_now(struct loop_task *task)
{
	struct peer *peer = (struct peer *)((char *)task - offsetof(struct peer, give_up_task));

	drop_conn(peer);
	loop_timer_cancel(&peer->soft_timer);
	peer_req_fail_all(peer, -EIO);
}

void link_give_up(struct peer *peer)
{
	if (peer->state == LINK_FAILED)
		return;
	log_error("%s: given up: all I/O fails from now on", peer->address);
	say_bye(peer);
	peer->state = LINK_FAILED;
	peer->since_ns = loop_now_ns();
	loop_defer(peer->loop, &peer->give_up_task);
}

/* ---- life ---- */

int link_init(struct peer *peer, struct err *err)
{
	struct addrinfo hints = {
	    .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG};
	char port[8];
	int rc;

	peer->connecting.fd = -1;
	peer->connecting.ready = connected;
	peer->timer.expired = timer_expired;
	peer->watchdog.expired = watchdog_expired;
	peer->soft_timer.expired = soft_expired;
	peer->lease_timer.expired = lease_expired;
	peer->give_up_task.run = give_up_now;
	peer->backoff_ms = LINK_BACKOFF_MIN_MS;
	snprintf(port, sizeof(port), "%u", peer->port);
	rc = getaddrinfo(peer->host, port, &hints, &peer->addrs);
	if (rc == EAI_ADDRFAMILY || rc == EAI_NONAME) { /* loopback addresses without a network */
		hints.ai_flags = AI_NUMERICSERV;
		rc = getaddrinfo(peer->host, port, &hints, &peer->addrs);
	}
	if (rc)
		return err_set(err, -EHOSTUNREACH, "%s: %s", peer->host,
		    rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
	peer->addr = peer->addrs;
	peer->since_ns = loop_now_ns();
	attempt(peer);
	return 0;
}

void link_fini(struct peer *peer)
{
	if (!peer->addrs)
		return;
	say_bye(peer);
	peer->state = LINK_FAILED;
	drop_conn(peer);
	loop_timer_cancel(&peer->watchdog);
	loop_timer_cancel(&peer->soft_timer);
	loop_timer_cancel(&peer->lease_timer);
	freeaddrinfo(peer->addrs);
}

void peer_pool_status(const struct pool *pool, struct peer_status *ret_status)
{
	const struct peer *peer = (const struct peer *)pool;

	*ret_status = (struct peer_status){
	    .state = peer->state == LINK_UP       ? PEER_CONNECTED
		     : peer->state == LINK_FAILED ? PEER_FAILED
						  : PEER_WAITING,
	    .since_ns = peer->since_ns,
	    .reconnects = peer->reconnects,
	    .rtt_ns = peer->rtt_ns,
	    .in_flight = peer->in_flight,
	    .bytes_in = peer->bytes_in + (peer->conn ? conn_bytes_in(peer->conn) : 0),
	    .bytes_out = peer->bytes_out + (peer->conn ? conn_bytes_out(peer->conn) : 0),
	    .conns = 1 + peer->extra_count,
	    .conns_up = peer->state == LINK_UP,
	    .striped = peer->striped,
	};
	ret_status->conns_up +=
	    peer_extras_status(peer, &ret_status->bytes_in, &ret_status->bytes_out);
	memcpy(ret_status->address, peer->address, sizeof(ret_status->address));
}
