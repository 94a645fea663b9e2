/* SPDX-License-Identifier: Apache-2.0
 *
 * What peer_extra.c (further connections) and peer_stripe.c (what goes over them) share.
 */
#ifndef REMRAM_BACKENDS_PEER_EXTRA_INT_H
#define REMRAM_BACKENDS_PEER_EXTRA_INT_H

#include "backends/peer_int.h"

/* Of a number of a handle: what such a connection's session has open by it; see peer_stripe.c. */
enum extra_handle { EXTRA_SHUT, EXTRA_ASKED, EXTRA_OPEN, EXTRA_REFUSED, EXTRA_OWED };

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
	unsigned backoff_ms; /* begins anew when a connection has served */
	bool served; /* this connection has brought something since its welcome */
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

/* peer_stripe.c, for the connection. */

/* It is lost: what it was asked is unknown; its READs are the first connection's.  send: that one is up, and gets
 * them now; else they are replayed. */
void peer_stripe_lost(struct peer_extra *extra, bool send);
/* It is up.  forgotten: the donor knows nothing of the session. */
void peer_stripe_up(struct peer_extra *extra, bool forgotten);
/* The READ that the reply extra->rep is for; NULL: none. */
struct peer_slot *peer_stripe_slot(const struct peer_extra *extra);
/* The reply extra->rep with its payload is there.  -EPROTO: it answers nothing. */
int peer_stripe_reply(struct peer_extra *extra);

/* peer_extra.c, for that. */

/* Something is asked of the donor: watches over its silence. */
void peer_extra_watch(struct peer_extra *extra);

#endif
