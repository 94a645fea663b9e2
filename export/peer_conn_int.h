/* SPDX-License-Identifier: Apache-2.0
 *
 * What peer_conn.c (the connection), peer_req.c (its requests, their memory, replies) and peer_op.c (what
 * the requests do) share.  Everything runs on the connection's loop.
 */
#ifndef REMRAM_EXPORT_PEER_CONN_INT_H
#define REMRAM_EXPORT_PEER_CONN_INT_H

#include "core/bufpool.h"
#include "core/conn.h"
#include "core/frame.h"
#include "core/log.h"
#include "core/pool.h"
#include "core/store.h"
#include "export/peer_conn.h"
#include "export/server.h"
#include "export/session.h"
#include "export/share.h"

enum {
	QUEUED_MAX = 16 << 20, /* bytes of unsent replies: then no more requests are read */
};

enum state { GREETING, WAITING, UP, CLOSING };

struct peer_conn {
	struct server_loop *sl;
	struct conn *conn; /* NULL once closed */
	struct peer_conn *prev, *next; /* of the loop */
	enum state state;
	struct session *session;
	struct pool *pool;
	unsigned in_flight;
	struct share share;
	bool bye;
	bool draining;
	bool
	    throttled; /* paused: too much of it is in flight or unsent, or the welcome is not out */
	bool refused; /* its last HELLO: what was sent behind that is not an error of its own */
	struct frame_req frame; /* being received */
	struct peer_req *current; /* its request */
	uint64_t start_ns;
	uint8_t hello[FRAME_HELLO_MAX], answer[FRAME_TEXT_MAX]; /* of the greeting */
	struct conn_out ping_out;
	uint8_t ping[FRAME_REP_LEN];
	bool pinging;
	struct conn_out notice_out; /* one notice is in the queue at a time */
	uint8_t notice[FRAME_REP_LEN + FRAME_NOTICE_LEN];
	bool noticing;
	struct loop_task displace, admit, notify;
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
	void *
	    lent; /* WRITE that has not succeeded: its payload is received into the region (store_lend); or
			NULL */
	struct store *lender; /* a loan of `off`, `len` to end with the request; or NULL */
	union {
		struct store_req sreq;
		struct pool_req preq;
	};
	uint8_t header[FRAME_REP_LEN];
};

/* ---- peer_conn.c ---- */

/* Ends the connection; its requests end by themselves. */
void peer_conn_close(struct peer_conn *pc);
/* It is closed and its last request is back: frees it. */
void peer_conn_gone(struct peer_conn *pc);
/* Logs what is wrong with pc->frame; returns -EPROTO, which closes the connection. */
int peer_conn_bad_frame(struct peer_conn *pc, const char *why);

/* ---- peer_req.c ---- */

/* A request for pc->frame with its memory, or NULL: none now. */
struct peer_req *peer_req_get(struct peer_conn *pc);
/* Its memory goes back; the connection may be gone afterwards. */
void peer_req_put(struct peer_req *req);
/* Its buffer goes back already. */
void peer_req_drop_buffer(struct peer_req *req);
/* Sends a reply; payload stays valid until it is sent and the request put. */
void peer_req_answer(struct peer_req *req, int err, uint8_t flags, const void *payload, size_t len);

/* ---- peer_op.c ---- */

/* Begins a data or control request; it answers by itself.  -EPROTO: the frame ends the connection. */
int peer_op_data(struct peer_req *req);
int peer_op_control(struct peer_req *req);

#endif
