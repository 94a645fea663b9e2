/* SPDX-License-Identifier: Apache-2.0
 *
 * Sessions: what the donor keeps of a client while its connection is away (docs/PROTOCOL.md,
 * "Sessions"): its open handles, and the results of its last control requests, so that a request that is
 * sent again is not done twice.
 *
 * A session has at most one connection.  A new connection with a higher epoch displaces the old one:
 * it is admitted only when every request of the old one has ended, so that a write that was delayed
 * there can't land after one that is sent here.
 *
 * Threads: the registry functions (admit, detach, end, expire) from any loop; what a session holds
 * belongs to the loop of its connection.
 */
#ifndef REMRAM_EXPORT_SESSION_H
#define REMRAM_EXPORT_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "core/frame.h"
#include "core/lease.h"
#include "core/pool.h"

struct sessions;
struct peer_conn;

enum {
	SESSION_RESULTS =
	    64, /* a client has no more control requests in flight (docs/PROTOCOL.md) */
	SESSION_KEEP_S = 60, /* without a connection */
	SESSIONS_MAX = 16384,
};

/* The reply to a control request that changed something. */
struct session_result {
	uint64_t id; /* 0: none */
	uint32_t status;
	uint8_t op, flags;
	uint8_t len;
	uint8_t body[FRAME_ATTR_LEN];
};

struct session {
	/* Constant. */
	uint8_t id[16];
	uint64_t tag; /* ≠ 0: pool_req.session */
	struct pool *pool;
	struct sessions *sessions;
	struct pool_session ps; /* pool_req.who */

	/* Of the connection's loop. */
	struct handle **handles; /* by number */
	uint32_t handle_room;
	struct session_result results[SESSION_RESULTS];
	unsigned next_result;
	bool used; /* a request came after HELLO: the client knows that the session began */

	/* Of the registry. */
	struct session *next;
	uint64_t epoch;
	struct peer_conn *conn, *successor;
	uint64_t detached_ns;
};

enum session_admit {
	SESSION_NEW, /* the session is empty */
	SESSION_RESUMED, /* it is as the last connection left it, and that one has used it */
	SESSION_WAIT, /* peer_conn_admitted comes when the old connection has ended */
};

struct sessions *sessions_create(void);
/* Closes every handle. */
void sessions_destroy(struct sessions *sessions);

/* A tag (session.tag) that no other opener has: for those that have no session here. */
uint64_t sessions_tag(struct sessions *sessions);

/* A connection from address says HELLO.  A new session ends those of the same client (frame_hello.session,
 * or its identity) that have no connection: their mount has died.  0 and how, -ESTALE (an epoch that is not higher), -EAGAIN (too many
 * sessions), -EINVAL (the session is of another pool), -ENOMEM. */
int session_admit(struct sessions *sessions, const struct frame_hello *hello, const char *address,
    struct pool *pool, struct peer_conn *conn, struct session **ret_session,
    enum session_admit *ret_how);

/* Its connection has brought something: its leases stay.  Any thread. */
static inline void session_heard(struct session *session)
{
	atomic_store_explicit(&session->ps.heard, true, memory_order_relaxed);
}

/* Once a second, on the loop of its connection: when that was, to the second. */
void session_tick(struct session *session, uint64_t now_ns);

/* The connection has ended and none of its requests is in flight.  end: the client said BYE: the session
 * ends, too.  Also for a connection that was still waiting. */
void session_detach(
    struct sessions *sessions, struct session *session, struct peer_conn *conn, bool end);

/* Ends sessions that were without a connection for SESSION_KEEP_S. */
void sessions_expire(struct sessions *sessions, uint64_t now_ns);

/* Handle `number`, or NULL. */
struct handle *session_handle(const struct session *session, uint32_t number);
/* 0 if number can be given to a new handle: -EINVAL (taken, or far above those that are taken), -ENOMEM. */
int session_reserve(struct session *session, uint32_t number);

/* The result of control request `id` if it was done already, or NULL. */
const struct session_result *session_find_result(const struct session *session, uint64_t id);
struct session_result *session_new_result(struct session *session);

#endif
