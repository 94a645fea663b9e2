/* SPDX-License-Identifier: Apache-2.0
 *
 * One connection of a client, on the donor.
 *
 * States:
 *   GREETING → (HELLO) → UP, or → WAITING (an older connection of the session must end first) → UP
 *   any → CLOSING (failed, ended, displaced, drained): no frame is read any more; when the last request
 *   is back (in_flight == 0) the session is detached and the connection freed.
 *
 * A request: header() takes a struct peer_req and a buffer, or pauses the connection; frame()
 * dispatches it; its completion queues the reply; when the reply is sent (or never will be) request and
 * buffer go back.
 *
 * Invariants:
 *   1. in_flight counts the requests taken and not back, `current` (being received) among them.
 *   2. A handle is closed only when nothing is in flight on it: CLOSE of a busy one is refused.
 *   3. A frame that is malformed or out of range ends this connection, with a line in the log, and
 *      changes nothing.
 *
 * Notices (send_notice): one at a time stands in the queue, so that a client which does not read them costs no
 * memory; the next is asked for when it has been sent.
 *
 * Everything runs on the connection's loop, but peer_conn_displace, peer_conn_admit and peer_conn_notice, which
 * post to it.
 */
#include "export/peer_conn_int.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/local_pool.h"

enum { HELLO_S = 10 /* for the first frame */ };

int peer_conn_bad_frame(struct peer_conn *pc, const char *why)
{
	if (log_allowed(&pc->limit))
		log_warn("client %s: %s: %s: connection closed", pc->address,
		    frame_op_name(pc->frame.op), why);
	return -EPROTO;
}

/* For HELLO only. */
static void reply_text(struct peer_req *req, int err, const char *text)
{
	size_t len = strnlen(text, FRAME_TEXT_MAX);

	memcpy(req->pc->answer, text, len);
	peer_req_answer(req, err, 0, req->pc->answer, len);
}

/* ---- notices ---- */

static void send_notice(struct peer_conn *pc);

static void notice_sent(struct conn_out *out, int err)
{
	struct peer_conn *pc =
	    (struct peer_conn *)((char *)out - offsetof(struct peer_conn, notice_out));

	pc->noticing = false;
	if (err == 0 && pc->conn)
		send_notice(pc);
}

static void send_notice(struct peer_conn *pc)
{
	struct frame_rep rep = {
	    .op = FRAME_NOTICE, .payload = FRAME_NOTICE_LEN, .id = FRAME_ID_NOTICE};
	struct pool_notice notice;

	if (pc->noticing || pc->state != UP ||
	    !local_pool_next_notice(pc->pool, &pc->session->ps, &notice))
		return;
	pc->noticing = true;
	frame_rep_put(pc->notice, &rep);
	frame_notice_put(pc->notice + FRAME_REP_LEN, &notice);
	pc->notice_out.iov[0] = (struct iovec){pc->notice, sizeof(pc->notice)};
	pc->notice_out.iov_count = 1;
	pc->notice_out.sent = notice_sent;
	conn_send(pc->conn, &pc->notice_out);
}

/* ---- the greeting ---- */

static void send_welcome(struct peer_conn *pc, bool resumed)
{
	struct server *server = pc->sl->server;
	struct peer_req *req = pc->current;
	struct frame_welcome welcome = {
	    .version = FRAME_VERSION_MAX,
	    .size_max = pc->pool->size_max,
	    .in_flight_max = FRAME_IN_FLIGHT_MAX,
	    .lease_ms = pc->pool->lease_ms,
	};

	memcpy(welcome.instance, server_instance(server), 16);
	memcpy(welcome.boot, server_boot(server), 16);
	memcpy(welcome.pool_uuid, local_pool_uuid(pc->pool), 16);
	pc->state = UP;
	pc->current = NULL;
	peer_req_answer(req, 0, resumed ? FRAME_F_RESUMED : 0, pc->answer,
	    frame_welcome_put(pc->answer, &welcome));
	local_pool_notices_again(pc->pool, &pc->session->ps);
	send_notice(pc);
}

/* Which session a HELLO is for; 0, or an error and its text for the client. */
static int check_hello(
    struct peer_conn *pc, const struct frame_hello *hello, char text[FRAME_TEXT_MAX])
{
	char names[FRAME_TEXT_MAX / 2];

	if (hello->version_min > FRAME_VERSION_MAX || hello->version_max < FRAME_VERSION_MIN) {
		snprintf(text, FRAME_TEXT_MAX,
		    "version mismatch: the donor speaks protocol %d to %d, the client %d to %d: install the same "
		    "release of remram on both",
		    FRAME_VERSION_MIN, FRAME_VERSION_MAX, hello->version_min, hello->version_max);
		return -EPROTONOSUPPORT;
	}
	pc->pool = server_pool(pc->sl->server, hello->pool);
	if (!pc->pool) {
		server_pool_names(pc->sl->server, names, sizeof(names));
		snprintf(text, FRAME_TEXT_MAX, "pool \"%s\": no such pool (it offers: %s)",
		    hello->pool, names);
		return -ENOENT;
	}
	return 0;
}

/* Why session_admit said no, for the client. */
static const char *admit_text(int rc)
{
	switch (rc) {
	case -ESTALE:
		return "a newer connection of this session was here already";
	case -EINVAL:
		return "this session is one of another pool";
	case -EAGAIN:
		return "too many sessions";
	default:
		return "the donor is out of memory";
	}
}

static int do_hello(struct peer_req *req)
{
	struct peer_conn *pc = req->pc;
	char text[FRAME_TEXT_MAX];
	enum session_admit how;
	struct frame_hello hello;
	int rc;

	if (frame_hello_get(pc->hello, req->frame.payload, &hello))
		return peer_conn_bad_frame(pc, "malformed body");
	rc = check_hello(pc, &hello, text);
	if (rc == 0) {
		pc->current = req; /* the welcome's memory; it may have to wait */
		pc->state = WAITING;
		rc = session_admit(server_sessions(pc->sl->server), &hello, pc->address, pc->pool,
		    pc, &pc->session, &how);
		if (rc == 0) {
			log_debug("client %s: pool \"%s\"", pc->address, hello.pool);
			if (how != SESSION_WAIT)
				send_welcome(pc, how == SESSION_RESUMED);
			return 0;
		}
		pc->current = NULL;
		pc->state = GREETING;
		snprintf(text, sizeof(text), "%s", admit_text(rc));
	}
	log_info("client %s: refused: %s", pc->address, text);
	pc->refused = true;
	reply_text(req, rc, text);
	return 0;
}

/* ---- frames ---- */

static int pc_header(struct conn *conn, const uint8_t *header, void **ret_buf, uint32_t *ret_len)
{
	struct peer_conn *pc = conn_owner(conn);
	const char *why;

	if (frame_req_get(header, &pc->frame, &why))
		return peer_conn_bad_frame(pc, why);
	if (pc->state == WAITING || conn_queued(conn) > (pc->state == GREETING ? 0 : QUEUED_MAX) ||
	    pc->in_flight >= FRAME_IN_FLIGHT_MAX) {
		pc->throttled = true;
		return -EAGAIN;
	}
	if (pc->state == GREETING && pc->frame.op != FRAME_HELLO)
		return pc->refused ? -ECONNRESET : peer_conn_bad_frame(pc, "came before HELLO");
	if (pc->state == UP && pc->frame.op == FRAME_HELLO)
		return peer_conn_bad_frame(pc, "came a second time");
	pc->current = pc->draining ? NULL : peer_req_get(pc);
	if (!pc->current) {
		share_wait(&pc->share);
		return -EAGAIN;
	}
	*ret_len = pc->frame.payload;
	if (pc->frame.op == FRAME_HELLO)
		*ret_buf = pc->hello;
	else
		*ret_buf = pc->current->lent ? pc->current->lent : pc->current->buf;
	return 0;
}

static int pc_frame(struct conn *conn)
{
	struct peer_conn *pc = conn_owner(conn);
	struct peer_req *req = pc->current;
	int rc = 0;

	pc->current = NULL;
	if (req->frame.op != FRAME_HELLO) {
		pc->session->used = true;
		session_heard(pc->session);
	}
	if (req->frame.op == FRAME_HELLO) {
		rc = do_hello(req);
	} else if (req->frame.op >= FRAME_READ) {
		rc = peer_op_data(req);
	} else if (req->frame.op >= FRAME_LOOKUP) {
		rc = peer_op_control(req);
	} else {
		pc->bye = pc->bye || req->frame.op == FRAME_BYE;
		if (req->frame.op == FRAME_NOTICE)
			local_pool_notice_ack(pc->pool, &pc->session->ps, req->frame.off);
		peer_req_answer(req, 0, 0, NULL, 0);
	}
	if (rc)
		pc->current = req; /* given back by pc_close */
	return rc;
}

/* ---- the end ---- */

static bool finish_gone(struct peer_conn *pc)
{
	if (!pc->gone)
		return false;
	if (!pc->displace.queued && !pc->admit.queued && !pc->notify.queued)
		free(pc);
	return true;
}

void peer_conn_gone(struct peer_conn *pc)
{
	struct server_loop *sl = pc->sl;

	if (pc->session)
		session_detach(server_sessions(sl->server), pc->session, pc, pc->bye);
	pc->session = NULL;
	*(pc->prev ? &pc->prev->next : &sl->conns) = pc->next;
	if (pc->next)
		pc->next->prev = pc->prev;
	server_conn_count(sl->server, -1);
	/* The registry may have posted a task before it was told; then that frees the memory. */
	pc->gone = true;
	finish_gone(pc);
}

void peer_conn_close(struct peer_conn *pc)
{
	struct peer_req *current = pc->current;
	struct conn *conn = pc->conn;

	if (pc->state == CLOSING)
		return;
	pc->state = CLOSING;
	pc->current = NULL;
	pc->conn = NULL;
	share_leave(&pc->share);
	pc->in_flight++; /* stays until the end of this function */
	conn_close(conn);
	if (current)
		peer_req_put(current);
	share_wake(pc->sl); /* if it was this one's turn, it is another's now */
	if (--pc->in_flight == 0)
		peer_conn_gone(pc);
}

static void pc_closed(struct conn *conn, int err)
{
	struct peer_conn *pc = conn_owner(conn);

	if (err && err != -EPROTO)
		log_debug("client %s: %s", pc->address, strerror(-err));
	peer_conn_close(pc);
}

static const struct conn_handlers pc_handlers = {
    .header_len = FRAME_REQ_LEN,
    .header = pc_header,
    .frame = pc_frame,
    .closed = pc_closed,
};

/* ---- tasks of the registry ---- */

static void displace_run(struct loop_task *task)
{
	struct peer_conn *pc =
	    (struct peer_conn *)((char *)task - offsetof(struct peer_conn, displace));

	if (finish_gone(pc))
		return;
	if (pc->state != CLOSING)
		log_info(
		    "client %s: closed: its session goes on over another connection, or has lost a lease",
		    pc->address);
	peer_conn_close(pc);
}

static void admit_run(struct loop_task *task)
{
	struct peer_conn *pc =
	    (struct peer_conn *)((char *)task - offsetof(struct peer_conn, admit));

	if (!finish_gone(pc) && pc->state == WAITING)
		send_welcome(pc, pc->session->used);
}

static void notify_run(struct loop_task *task)
{
	struct peer_conn *pc =
	    (struct peer_conn *)((char *)task - offsetof(struct peer_conn, notify));

	if (!finish_gone(pc) && pc->state == UP)
		send_notice(pc);
}

void peer_conn_displace(struct peer_conn *pc)
{
	loop_post(pc->sl->loop, &pc->displace);
}

void peer_conn_admit(struct peer_conn *pc)
{
	loop_post(pc->sl->loop, &pc->admit);
}

void peer_conn_notice(struct peer_conn *pc)
{
	loop_post(pc->sl->loop, &pc->notify);
}

/* ---- life ---- */

static void wake(struct share *share)
{
	struct peer_conn *pc =
	    (struct peer_conn *)((char *)share - offsetof(struct peer_conn, share));

	if (pc->conn)
		conn_resume(pc->conn);
}

int peer_conn_start(struct server_loop *sl, int fd, const char *address, struct err *err)
{
	struct peer_conn *pc = calloc(1, sizeof(*pc));
	int rc;

	if (!pc) {
		close(fd);
		return err_set(err, -ENOMEM, "out of memory for a connection");
	}
	pc->sl = sl;
	pc->displace.run = displace_run;
	pc->admit.run = admit_run;
	pc->notify.run = notify_run;
	snprintf(pc->address, sizeof(pc->address), "%s", address);
	conn_tune(fd);
	rc = conn_create(sl->loop, fd, &pc_handlers, pc, &pc->conn, err);
	if (rc) {
		free(pc);
		return rc;
	}
	pc->start_ns = loop_now_ns();
	share_init(&pc->share, sl, wake);
	pc->next = sl->conns;
	if (pc->next)
		pc->next->prev = pc;
	sl->conns = pc;
	server_conn_count(sl->server, 1);
	return 0;
}

static void ping_sent(struct conn_out *out, int err)
{
	struct peer_conn *pc =
	    (struct peer_conn *)((char *)out - offsetof(struct peer_conn, ping_out));

	pc->pinging = false;
}

/* A client that is not read from, or whose data comes slowly, takes silence for death: an unasked reply to
 * PING says otherwise. */
static void send_alive(struct peer_conn *pc)
{
	struct frame_rep rep = {.op = FRAME_PING, .id = FRAME_ID_PING};

	if (pc->pinging || pc->state != UP || !(pc->share.waiting || pc->throttled || pc->current))
		return;
	pc->pinging = true;
	frame_rep_put(pc->ping, &rep);
	pc->ping_out.iov[0] = (struct iovec){pc->ping, FRAME_REP_LEN};
	pc->ping_out.iov_count = 1;
	pc->ping_out.sent = ping_sent;
	conn_send(pc->conn, &pc->ping_out);
}

void peer_conns_tick(struct server_loop *sl, uint64_t now_ns)
{
	for (struct peer_conn *pc = sl->conns, *next; pc; pc = next) {
		next = pc->next;
		if (!pc->conn)
			continue;
		if (pc->state == GREETING && now_ns > pc->start_ns + HELLO_S * 1000000000ull) {
			log_info("client %s: no HELLO within %d s: connection closed", pc->address,
			    HELLO_S);
			peer_conn_close(pc);
			continue;
		}
		if (pc->state == UP && conn_bytes_in(pc->conn) != pc->share.bytes_in)
			session_heard(pc->session);
		if (share_stalled(&pc->share, pc->conn, pc->state == UP && pc->current, now_ns,
			pc->address)) {
			peer_conn_close(pc);
			continue;
		}
		send_alive(pc);
		if (pc->state == UP)
			session_tick(pc->session, now_ns);
	}
}

void peer_conns_drain(struct server_loop *sl, bool now)
{
	for (struct peer_conn *pc = sl->conns, *next; pc; pc = next) {
		next = pc->next;
		pc->draining = true;
		if (now || (pc->in_flight == 0 && !pc->current))
			peer_conn_close(pc);
	}
}
