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
 * Everything runs on the connection's loop, but peer_conn_displace and peer_conn_admit, which post to it.
 */
#include "export/peer_conn.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/bufpool.h"
#include "core/conn.h"
#include "core/frame.h"
#include "core/local_pool.h"
#include "core/log.h"
#include "core/region.h"
#include "export/session.h"

enum {
	HELLO_S = 10, /* for the first frame */
	STALL_S = 60, /* without taking a byte of waiting replies */
	QUEUED_MAX = 16 << 20, /* bytes of unsent replies: then no more requests are read */

	/* Where things lie in the big buffer of a control request. */
	AREA_RESULT = 128 * 1024,
	AREA_DATA = 256 * 1024,
	AREA_NAMES = 512 * 1024,
};

_Static_assert(FRAME_CONTROL_MAX <= 128 * 1024, "areas do not overlap");
_Static_assert(FRAME_EXTENTS_MAX * sizeof(struct extent) <= 128 * 1024, "areas do not overlap");

enum state { GREETING, WAITING, UP, CLOSING };

struct peer_conn {
	struct server_loop *sl;
	struct conn *conn; /* NULL once closed */
	struct peer_conn *prev, *next; /* of the loop */
	enum state state;
	struct session *session;
	struct pool *pool;
	unsigned in_flight;
	bool bye;
	bool draining;
	bool waiting; /* stands in sl->waiting */
	bool throttled; /* paused: too much of it is in flight or unsent */
	struct peer_conn *next_waiting;
	struct frame_req frame; /* being received */
	struct peer_req *current; /* its request */
	uint64_t start_ns, moved_ns, bytes_moved; /* for the tick */
	struct conn_out ping_out;
	uint8_t ping[FRAME_REP_LEN];
	bool pinging;
	struct loop_task displace, admit;
	bool gone; /* freed as soon as no task is queued */
	struct log_limit limit;
	char address[64];
};

struct peer_req {
	struct conn_out out;
	struct peer_req *next; /* free list */
	struct peer_conn *pc;
	struct frame_req frame;
	void *buf; /* from bufs, or NULL */
	struct bufpool *bufs;
	void *lent; /* WRITE: the payload is received into the region (store_lend), or NULL */
	struct store *lender; /* a loan of `off`, `len` to end with the request; or NULL */
	union {
		struct store_req sreq;
		struct pool_req preq;
	};
	uint8_t header[FRAME_REP_LEN];
};

static void pc_close(struct peer_conn *pc);

/* ---- requests and buffers ---- */

int peer_reqs_alloc(struct server_loop *sl)
{
	sl->reqs = calloc(SERVER_REQS, sizeof(sl->reqs[0]));
	if (!sl->reqs)
		return -ENOMEM;
	for (unsigned i = 0; i < SERVER_REQS; i++) {
		sl->reqs[i].next = sl->free_reqs;
		sl->free_reqs = &sl->reqs[i];
	}
	return 0;
}

void peer_reqs_free(struct server_loop *sl)
{
	free(sl->reqs);
}

static void pc_gone(struct peer_conn *pc)
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
	if (!pc->displace.queued && !pc->admit.queued)
		free(pc);
}

static void buffer_put(struct peer_req *req)
{
	if (req->buf)
		bufpool_put(req->bufs, req->buf);
	req->buf = NULL;
}

static void wake_waiting(struct server_loop *sl)
{
	struct peer_conn *pc = sl->waiting;

	if (!pc)
		return;
	sl->waiting = pc->next_waiting;
	if (!sl->waiting)
		sl->waiting_tail = &sl->waiting;
	pc->waiting = false;
	if (pc->conn)
		conn_resume(pc->conn);
}

static void leave_waiting(struct peer_conn *pc)
{
	struct server_loop *sl = pc->sl;

	if (!pc->waiting)
		return;
	for (struct peer_conn **link = &sl->waiting; *link; link = &(*link)->next_waiting) {
		if (*link == pc) {
			*link = pc->next_waiting;
			if (!*link)
				sl->waiting_tail = link;
			break;
		}
	}
	pc->waiting = false;
}

static void req_put(struct peer_req *req)
{
	struct peer_conn *pc = req->pc;
	struct server_loop *sl = pc->sl;

	buffer_put(req);
	if (req->lender)
		store_unlend(req->lender, req->frame.off, (uint32_t)req->frame.len);
	req->next = sl->free_reqs;
	sl->free_reqs = req;
	pc->in_flight--;
	wake_waiting(sl);
	if (pc->in_flight == 0) {
		if (pc->state == CLOSING)
			pc_gone(pc);
		else if (pc->draining && !pc->current)
			pc_close(pc);
	}
}

static void pause_for_room(struct peer_conn *pc)
{
	struct server_loop *sl = pc->sl;

	if (pc->waiting)
		return;
	pc->waiting = true;
	pc->next_waiting = NULL;
	*sl->waiting_tail = pc;
	sl->waiting_tail = &pc->next_waiting;
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
	if (!handle || frame->off > handle->store.size || frame->len > handle->store.size - frame->off)
		return NULL;
	return &handle->store;
}

/* A request with its buffer, or NULL: none now. */
static struct peer_req *req_get(struct peer_conn *pc)
{
	struct server_loop *sl = pc->sl;
	struct peer_req *req = sl->free_reqs;
	struct bufpool *bufs;
	void *buf = NULL;

	if (!req)
		return NULL;
	req->lender = lender_for(pc);
	req->lent = req->lender ? store_lend(req->lender, pc->frame.off, (uint32_t)pc->frame.len) : NULL;
	if (!req->lent)
		req->lender = NULL;
	bufs = req->lent ? NULL : bufs_for(sl, &pc->frame);
	if (bufs && !(buf = bufpool_get(bufs)))
		return NULL;
	sl->free_reqs = req->next;
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

	if (pc->throttled && pc->conn && conn_queued(pc->conn) < QUEUED_MAX / 2) {
		pc->throttled = false;
		conn_resume(pc->conn);
	}
	req_put(req);
}

static void reply(struct peer_req *req, int err, uint8_t flags, const void *payload, size_t len)
{
	struct frame_rep rep = {
	    .op = req->frame.op,
	    .flags = flags,
	    .payload = (uint32_t)len,
	    .id = req->frame.id,
	    .status = frame_status(err),
	};

	if (!req->pc->conn) {
		req_put(req);
		return;
	}
	frame_rep_put(req->header, &rep);
	req->out.iov[0] = (struct iovec){req->header, FRAME_REP_LEN};
	req->out.iov[1] = (struct iovec){(void *)(uintptr_t)payload, len};
	req->out.iov_count = len ? 2 : 1;
	req->out.sent = reply_sent;
	conn_send(req->pc->conn, &req->out);
}

static void reply_text(struct peer_req *req, int err, const char *text)
{
	size_t len = strlen(text);
	char *at = (char *)req->buf + AREA_RESULT;

	assert(req->bufs == req->pc->sl->big);
	len = len < FRAME_TEXT_MAX ? len : FRAME_TEXT_MAX;
	memcpy(at, text, len);
	reply(req, err, 0, at, len);
}

/* ---- data ---- */

static void data_done(struct store_req *sreq, int err)
{
	struct peer_req *req = (struct peer_req *)((char *)sreq - offsetof(struct peer_req, sreq));
	uint8_t *area;
	size_t len;

	if (sreq->ret_lent)
		req->lender = &session_handle(req->pc->session, req->frame.handle)->store;

	if (err) {
		reply(req, err, 0, NULL, 0);
	} else if (sreq->op == STORE_READ) {
		if (sreq->buf == store_zeros || frame_is_zero(sreq->buf, sreq->len))
			reply(req, 0, FRAME_F_ZEROS, NULL, 0);
		else
			reply(req, 0, 0, sreq->buf, sreq->len);
	} else if (sreq->op == STORE_EXTENTS) {
		area = (uint8_t *)req->buf + AREA_RESULT;
		len = frame_extents_put(area, sreq->extents, sreq->ret_extents);
		reply(req, 0, 0, area, len);
	} else {
		reply(req, 0, 0, NULL, 0);
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

static int bad_frame(struct peer_conn *pc, const char *why)
{
	if (log_allowed(&pc->limit))
		log_warn("client %s: %s: %s: connection closed", pc->address,
		    frame_op_name(pc->frame.op), why);
	return -EPROTO;
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

static int do_data(struct peer_req *req)
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
		reply(req, -EBADF, 0, NULL, 0);
		return 0;
	}
	outside = frame->off > handle->store.size || frame->len > handle->store.size - frame->off;
	if (outside && (frame->op == FRAME_WRITE || frame->op == FRAME_ALLOC)) {
		reply(req, -ENOSPC, 0, NULL, 0);
		return 0;
	}
	if (outside)
		return bad_frame(req->pc, "range lies beyond the pool's largest region");
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
	reply(req, err, flags, area, len);
}

/* A control request that an earlier connection brought already: its result again. */
static bool answer_again(struct peer_req *req)
{
	const struct session_result *result = session_find_result(req->pc->session, req->frame.id);
	uint8_t *area = (uint8_t *)req->buf + AREA_RESULT;

	if (!result || result->op != req->frame.op)
		return false;
	memcpy(area, result->body, result->len);
	reply(req, frame_errno(result->status), result->flags, area, result->len);
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

static int do_control(struct peer_req *req)
{
	struct session *session = req->pc->session;
	uint8_t *buf = req->buf;
	int rc;

	if (answer_again(req))
		return 0;
	rc = frame_control_get(&req->frame, buf, &req->preq, (struct frame_names *)(buf + AREA_NAMES));
	if (rc == -EPROTO)
		return bad_frame(req->pc, "malformed body");
	if (rc == 0) {
		req->preq.session = session->tag;
		req->preq.done = control_done;
		if (req->preq.op != POOL_SETXATTR)
			req->preq.data = buf + AREA_DATA;
		rc = take_handle(session, &req->preq);
	}
	if (rc)
		reply(req, rc, 0, NULL, 0);
	else
		pool_submit(req->pc->pool, &req->preq);
	return 0;
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
	};
	uint8_t *area = (uint8_t *)req->buf + AREA_RESULT;

	memcpy(welcome.instance, server_instance(server), 16);
	memcpy(welcome.boot, server_boot(server), 16);
	memcpy(welcome.pool_uuid, local_pool_uuid(pc->pool), 16);
	pc->state = UP;
	pc->current = NULL;
	reply(req, 0, resumed ? FRAME_F_RESUMED : 0, area, frame_welcome_put(area, &welcome));
}

/* Which session a HELLO is for; 0, or an error and its text for the client. */
static int check_hello(struct peer_conn *pc, const struct frame_hello *hello, char text[FRAME_TEXT_MAX])
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
		snprintf(text, FRAME_TEXT_MAX, "pool \"%s\": no such pool (it offers: %s)", hello->pool, names);
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

	if (frame_hello_get(req->buf, req->frame.payload, &hello))
		return bad_frame(pc, "malformed body");
	rc = check_hello(pc, &hello, text);
	if (rc == 0) {
		pc->current = req; /* the welcome's memory; it may have to wait */
		pc->state = WAITING;
		rc = session_admit(server_sessions(pc->sl->server), &hello, pc->pool, pc, &pc->session, &how);
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
	reply_text(req, rc, text);
	return 0;
}

/* ---- frames ---- */

static int pc_header(struct conn *conn, const uint8_t *header, void **ret_buf, uint32_t *ret_len)
{
	struct peer_conn *pc = conn_owner(conn);
	const char *why;

	if (frame_req_get(header, &pc->frame, &why))
		return bad_frame(pc, why);
	if (pc->state == GREETING && pc->frame.op != FRAME_HELLO)
		return bad_frame(pc, "came before HELLO");
	if (pc->state == WAITING)
		return bad_frame(pc, "came before the welcome");
	if (pc->state == UP && pc->frame.op == FRAME_HELLO)
		return bad_frame(pc, "came a second time");
	if (conn_queued(conn) > QUEUED_MAX || pc->in_flight >= FRAME_IN_FLIGHT_MAX) {
		pc->throttled = true;
		return -EAGAIN;
	}
	pc->current = pc->draining ? NULL : req_get(pc);
	if (!pc->current) {
		pause_for_room(pc);
		return -EAGAIN;
	}
	*ret_len = pc->frame.payload;
	*ret_buf = pc->current->lent ? pc->current->lent : pc->current->buf;
	return 0;
}

static int pc_frame(struct conn *conn)
{
	struct peer_conn *pc = conn_owner(conn);
	struct peer_req *req = pc->current;
	int rc = 0;

	pc->current = NULL;
	if (req->frame.op != FRAME_HELLO)
		pc->session->used = true;
	if (req->frame.op == FRAME_HELLO) {
		rc = do_hello(req);
	} else if (req->frame.op >= FRAME_READ) {
		rc = do_data(req);
	} else if (req->frame.op >= FRAME_LOOKUP) {
		rc = do_control(req);
	} else {
		pc->bye = req->frame.op == FRAME_BYE;
		reply(req, 0, 0, NULL, 0);
	}
	if (rc)
		pc->current = req; /* given back by pc_close */
	return rc;
}

/* ---- the end ---- */

static void pc_close(struct peer_conn *pc)
{
	struct peer_req *current = pc->current;
	struct conn *conn = pc->conn;

	if (pc->state == CLOSING)
		return;
	pc->state = CLOSING;
	pc->current = NULL;
	pc->conn = NULL;
	leave_waiting(pc);
	pc->in_flight++; /* stays until the end of this function */
	conn_close(conn);
	if (current)
		req_put(current);
	wake_waiting(pc->sl); /* this one may have been woken and can't use it */
	if (--pc->in_flight == 0)
		pc_gone(pc);
}

static void pc_closed(struct conn *conn, int err)
{
	struct peer_conn *pc = conn_owner(conn);

	if (err && err != -EPROTO)
		log_debug("client %s: %s", pc->address, strerror(-err));
	pc_close(pc);
}

static const struct conn_handlers pc_handlers = {
    .header_len = FRAME_REQ_LEN,
    .header = pc_header,
    .frame = pc_frame,
    .closed = pc_closed,
};

/* ---- tasks of the registry ---- */

static bool finish_gone(struct peer_conn *pc)
{
	if (!pc->gone)
		return false;
	if (!pc->displace.queued && !pc->admit.queued)
		free(pc);
	return true;
}

static void displace_run(struct loop_task *task)
{
	struct peer_conn *pc = (struct peer_conn *)((char *)task - offsetof(struct peer_conn, displace));

	if (finish_gone(pc))
		return;
	if (pc->state != CLOSING)
		log_info("client %s: its session goes on over another connection: this one is closed",
		    pc->address);
	pc_close(pc);
}

static void admit_run(struct loop_task *task)
{
	struct peer_conn *pc = (struct peer_conn *)((char *)task - offsetof(struct peer_conn, admit));

	if (!finish_gone(pc) && pc->state == WAITING)
		send_welcome(pc, pc->session->used);
}

void peer_conn_displace(struct peer_conn *pc)
{
	loop_post(pc->sl->loop, &pc->displace);
}

void peer_conn_admit(struct peer_conn *pc)
{
	loop_post(pc->sl->loop, &pc->admit);
}

/* ---- life ---- */

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
	snprintf(pc->address, sizeof(pc->address), "%s", address);
	conn_tune(fd);
	rc = conn_create(sl->loop, fd, &pc_handlers, pc, &pc->conn, err);
	if (rc) {
		free(pc);
		return rc;
	}
	pc->start_ns = pc->moved_ns = loop_now_ns();
	pc->next = sl->conns;
	if (pc->next)
		pc->next->prev = pc;
	sl->conns = pc;
	server_conn_count(sl->server, 1);
	return 0;
}

static void ping_sent(struct conn_out *out, int err)
{
	struct peer_conn *pc = (struct peer_conn *)((char *)out - offsetof(struct peer_conn, ping_out));

	pc->pinging = false;
}

/* A client that is not read from takes silence for death: an unasked reply to PING says otherwise. */
static void send_alive(struct peer_conn *pc)
{
	struct frame_rep rep = {.op = FRAME_PING, .id = FRAME_ID_PING};

	if (pc->pinging || !(pc->waiting || pc->throttled))
		return;
	pc->pinging = true;
	frame_rep_put(pc->ping, &rep);
	pc->ping_out.iov[0] = (struct iovec){pc->ping, FRAME_REP_LEN};
	pc->ping_out.iov_count = 1;
	pc->ping_out.sent = ping_sent;
	conn_send(pc->conn, &pc->ping_out);
}

/* The client takes none of its replies, or does not go on with a request that it has begun to send (which
 * holds a buffer), for too long. */
static bool stalled(struct peer_conn *pc, uint64_t now_ns)
{
	uint64_t moved = conn_bytes_out(pc->conn) + conn_bytes_in(pc->conn);
	bool midway = conn_queued(pc->conn) || (pc->current && pc->state == UP);

	if (!midway || moved != pc->bytes_moved)
		pc->moved_ns = now_ns;
	pc->bytes_moved = moved;
	return now_ns > pc->moved_ns + STALL_S * 1000000000ull;
}

void peer_conns_tick(struct server_loop *sl, uint64_t now_ns)
{
	wake_waiting(sl);
	for (struct peer_conn *pc = sl->conns, *next; pc; pc = next) {
		next = pc->next;
		if (!pc->conn)
			continue;
		if (pc->state == GREETING && now_ns > pc->start_ns + HELLO_S * 1000000000ull) {
			log_info("client %s: no HELLO within %d s: connection closed", pc->address, HELLO_S);
			pc_close(pc);
			continue;
		}
		if (stalled(pc, now_ns)) {
			log_warn("client %s: no byte moved for %d s in the middle of a frame: connection closed",
			    pc->address, STALL_S);
			pc_close(pc);
			continue;
		}
		send_alive(pc);
	}
}

void peer_conns_drain(struct server_loop *sl, bool now)
{
	for (struct peer_conn *pc = sl->conns, *next; pc; pc = next) {
		next = pc->next;
		pc->draining = true;
		if (now || (pc->in_flight == 0 && !pc->current))
			pc_close(pc);
	}
}
