/* SPDX-License-Identifier: Apache-2.0
 *
 * Who has a region of a local pool open, who may write to it, and who is to be told of changes: the
 * rules of core/pool.h, "Leases" and "Versions".
 *
 * A *user* of a region is one session that has it open, with however many handles.  Everything here is
 * called with the pool's mu held, but for lease_held.
 */
#ifndef REMRAM_CORE_LEASE_H
#define REMRAM_CORE_LEASE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/pool.h"

struct region;
struct region_handle;
struct region_user;
struct catalogue_writer;

struct pool_session_ops {
	/* The session's lease on a region was taken: end what it has in flight, as soon as possible.
	 * Any thread, the pool's mu held: only posts. */
	void (*displace)(struct pool_session *ps);
	/* lease_next_notice has something.  Any thread, the pool's mu held: only posts. */
	void (*noticed)(struct pool_session *ps);
};

/* What a pool must know of a session beside its number.  Lives as long as the session has handles. */
struct pool_session {
	/* Constant. */
	const struct pool_session_ops *ops;
	uint64_t writer; /* lease_writer(identity): who writes, for versions */
	char holder[POOL_HOLDER_MAX]; /* who it is, for others */

	/* Signs of life.  Any thread: the session was heard of at heard_ns (loop_now_ns), and since then if
	 * heard is set. */
	_Atomic bool heard;
	_Atomic uint64_t heard_ns;

	/* Protected by the pool's mu. */
	struct region_user
	    *users; /* regions that it has open; those with a notice out come first */
	struct region_user *notices, *last_notice; /* those that a notice is to be sent for */
};

/* Embedded in a region; protected by the pool's mu. */
struct region_lease {
	struct region_user *users; /* all that have it open */
	struct region_user *holder; /* of the lease, or NULL */
	unsigned shared; /* handles that write with POOL_SHARED */
	unsigned lost; /* handles that had a lease which was taken */
};

/* An identity as a number: ≠ 0, above every session's number.  The same for two different ones with a
 * probability of 2^-63. */
uint64_t lease_writer(const uint8_t identity[POOL_IDENTITY_LEN]);

/* Who writes if this request does. */
static inline uint64_t pool_req_writer(const struct pool_req *req)
{
	return req->who ? req->who->writer : req->session;
}

/* Whether the request may open the region (OPEN, CREATE of one that exists), but for the mode.  Takes the
 * lease away from a holder that is dead.  0, -EBUSY with req->ret_holder, or -ENOLCK (POOL_REOPEN). */
int lease_check_open(struct region *region, struct pool_req *req, uint32_t lease_ms);
/* The region is pinned, which is in the way of req: -EBUSY, with req->ret_holder unless it is the requester's own
 * pin. */
int lease_pinned(const struct region *region, struct pool_req *req);
/* Whether a session may change the region's size: 0, -EBUSY with req->ret_holder, -ENOLCK through a
 * handle whose lease was taken.  Takes the lease away from a holder that is dead. */
int lease_check_resize(struct region *region, struct pool_req *req, uint32_t lease_ms);

/* A handle was opened for req, which lease_check_open allowed: 0 or -ENOMEM (then it counts nowhere). */
int lease_opened(struct region_handle *rh, const struct pool_req *req);
/* Gives back what the handle was allowed to write, ahead of lease_closed. */
void lease_drop(struct region_handle *rh);
/* The handle is about to be destroyed. */
void lease_closed(struct region_handle *rh);

/* Whether a handle that writes still may.  Any thread; for a request or loan that counts as in flight
 * already. */
bool lease_held(const struct region_handle *rh);

/* What the catalogue should know of the region's writer now: also of one that has lost the lease, as long as
 * something of its is in flight. */
void lease_writer_now(const struct region *region, struct catalogue_writer *ret_writer);

/* A session has moved the version: the others are told. */
void lease_changed(struct region *region, uint64_t session);
/* The next notice for the session, which has then been told; false: none.  No further one comes for that
 * region before lease_notice_ack. */
bool lease_next_notice(struct pool_session *ps, struct pool_notice *ret_notice);
/* The session has dropped what it had cached of region id. */
void lease_notice_ack(struct pool_session *ps, uint64_t id);
/* Notices may have been lost with a connection: all that were not acknowledged come again. */
void lease_notices_again(struct pool_session *ps);

#endif
