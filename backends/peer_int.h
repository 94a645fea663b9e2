/* SPDX-License-Identifier: Apache-2.0
 *
 * What peer.c (requests), peer_data.c (those for bytes), peer_handle.c (what is open), peer_link.c (the
 * connection), peer_look.c (the first names), peer_extra.c (further connections) and peer_stripe.c (what goes
 * over them) share.
 */
#ifndef REMRAM_BACKENDS_PEER_INT_H
#define REMRAM_BACKENDS_PEER_INT_H

#include <netdb.h>

#include "backends/peer.h"
#include "core/conn.h"
#include "core/frame.h"
#include "core/log.h"

enum {
	PEER_SLOTS = FRAME_IN_FLIGHT_MAX,
	PEER_BODIES = 64, /* control requests at the donor at once */
	PEER_SLOT_BITS = 10, /* of a request id: which slot */
	PEER_LONG =
	    64 * 1024, /* bytes: READs from this length on may go over a further connection */
};

/* How connections are made and watched. */
enum {
	LINK_BACKOFF_MIN_MS = 20,
	LINK_BACKOFF_MAX_MS = 2000,
	LINK_ATTEMPT_MS = 5000, /* for connect and for the answer to HELLO, each */
	LINK_TICK_MS = 500, /* of the watchdog */
	LINK_PING_TICKS = 2, /* silence before a PING */
	LINK_LOST_TICKS = 10, /* silence before the connection counts as lost */
};

_Static_assert(1 << PEER_SLOT_BITS == PEER_SLOTS, "a request id holds its slot's number");

/* Request ids above every slot's: those that the connection itself sends. */
#define PEER_ID_HELLO ((uint64_t)1 << 63)
/* Requests that nobody waits for: unique by seq ≥ 1, and the handle's number. */
#define PEER_ID_LOOSE(seq, number) ((uint64_t)1 << 63 | (uint64_t)(seq) << 16 | (number))

/* Why a reply over the mount's first connection can not be a slot's. */
enum peer_busy {
	PEER_SENDING = 1, /* a connection's queue points at the request's memory */
	PEER_ELSEWHERE = 2, /* it is at the donor over slot->via */
};

struct peer_extra;

/* One request in flight.  out.sent tells when the kernel has it: until then its memory is not free. */
struct peer_slot {
	struct conn_out out;
	struct peer_slot *prev, *next; /* in flight, in the order of submission; or free */
	uint64_t id;
	struct store_req *sreq; /* exactly one of the two is set while in flight */
	struct pool_req *preq;
	uint8_t *body; /* control requests: FRAME_BODY_MAX bytes */
	union {
		uint64_t write_gen; /* FLUSH: see peer_region */
		struct peer_extra *via; /* PEER_ELSEWHERE: the further connection that has it */
	};
	uint8_t busy; /* of enum peer_busy */
	bool replayed; /* to a donor that has forgotten the session */
	bool interrupted;
	uint8_t header[FRAME_REQ_LEN];
};

struct peer_handle {
	struct handle handle;
	struct peer *peer;
	int stale; /* -errno for all I/O: the region is gone; or 0 */
	bool open; /* the donor has been told and not yet told otherwise */
	bool reopening; /* told again, after it forgot the session; not yet answered */
	uint64_t version; /* of the region when it was opened */
	struct peer_region *region; /* NULL until open */
};

/* Writes to a region that are answered but not known to be stable: a donor's reboot loses them, and the
 * next FLUSH, through whatever handle, says so.  Lives while a handle is open or such writes exist. */
struct peer_region {
	struct peer_region *next;
	uint64_t id;
	unsigned handles;
	uint64_t write_gen, stable_gen;
	bool lost_writes;
};

enum link_state {
	LINK_DOWN, /* the timer starts the next attempt */
	LINK_CONNECTING, /* connect(2) is under way */
	LINK_GREETING, /* HELLO is sent */
	LINK_UP,
	LINK_FAILED, /* given up */
};

struct peer {
	struct pool pool;
	struct loop *loop;
	char *host, *pool_name;
	uint16_t port;
	bool soft;
	uint64_t timeo_ns;
	void (*ready)(void *ctx, const struct err *err); /* NULL once called */
	void *ctx;
	struct store_stats *stats;

	/* The link (peer_link.c). */
	enum link_state state;
	struct addrinfo *addrs, *addr;
	struct conn *conn;
	struct loop_fd connecting;
	struct loop_timer timer; /* next attempt, or an attempt's time-out */
	struct loop_timer watchdog; /* while requests are in flight */
	struct loop_timer soft_timer;
	struct loop_timer lease_timer; /* while leases are held */
	unsigned leases; /* handles that write without POOL_SHARED */
	uint64_t lease_out; /* bytes out at its last tick */
	struct loop_task give_up_task;
	unsigned backoff_ms;
	uint64_t since_ns; /* up or down */
	bool served; /* this connection has answered a request */
	bool was_up;
	bool soft_expired;
	unsigned reconnects;
	uint64_t rtt_ns, ping_ns;
	uint64_t bytes_in, bytes_out; /* of earlier connections */
	uint64_t seen_moved; /* watchdog: bytes in and acknowledged out, at the last tick */
	unsigned silent_ticks;
	struct log_limit down_limit;
	char address[64];
	uint8_t session[16], identity[POOL_IDENTITY_LEN];
	char who[FRAME_WHO_MAX + 1];
	uint64_t epoch;
	struct frame_welcome welcome; /* of the latest handshake */
	struct conn_out hello_out, ping_out;
	uint8_t hello_buf[FRAME_REQ_LEN + FRAME_HELLO_MAX], ping_buf[FRAME_REQ_LEN];
	bool pinging; /* a PING is to be answered */
	bool ping_queued; /* ping_out is in the connection's queue */

	/* The frame that is being received. */
	struct frame_rep rep;
	uint8_t control[FRAME_CONTROL_MAX];

	/* Requests (peer.c). */
	struct peer_slot *slots; /* PEER_SLOTS of them */
	struct peer_slot *free_slots;
	struct peer_slot *first, *last; /* in flight */
	unsigned in_flight;
	uint64_t next_seq;
	uint8_t *bodies;
	uint8_t *free_bodies[PEER_BODIES];
	unsigned free_body_count;
	struct store_req *waiting_data, **waiting_data_tail;
	struct pool_req *waiting_control, **waiting_control_tail;
	struct peer_handle **handles; /* by number; handles[0] unused */
	bool *orphans; /* by number: the donor may have a handle that this side has given up */
	uint32_t handle_room;
	unsigned
	    reopens; /* OPENs of forgotten handles that are not answered: nothing else is sent before */
	struct peer_region *regions;

	/* The first names (peer_look.c). */
	struct pool_req look;
	uint8_t *look_list; /* what came, look.ret_len bytes; NULL: nothing is known */
	uint64_t look_ns,
	    look_until_ns; /* for how long that holds; until when: 0: it has not come */

	/* Further connections (peer_extra.c, peer_stripe.c). */
	struct peer_extra *extras; /* extra_count of them */
	unsigned extra_count; /* constant; 0: none of this is used */
	unsigned elsewhere; /* requests with PEER_ELSEWHERE */
	uint64_t striped; /* READs that were answered over them */
};

/* peer.c, for the link. */

/* The reply peer->rep with its payload is there: ends its request.  -EPROTO: it answers nothing. */
int peer_req_reply(struct peer *peer);
/* Where the payload of reply peer->rep belongs; NULL: nowhere (-EPROTO). */
void *peer_req_buffer(struct peer *peer);
/* May that payload stay in a pipe (STORE_PIPE)? */
bool peer_req_takes_pipe(struct peer *peer);
/* The connection is gone: interrupted requests end, the others wait. */
void peer_req_lost(struct peer *peer);
/* A new connection: sends what is in flight again, in order.  forgotten: the donor knows nothing of the
 * session. */
void peer_req_replay(struct peer *peer, bool forgotten);
/* Ends all requests with err. */
void peer_req_fail_all(struct peer *peer, int err);
/* Every handle is stale from now on: its requests end with -ESTALE.  How many handles. */
unsigned peer_req_stale(struct peer *peer);

/* peer.c, for peer_data.c. */

/* A slot with a new id, at the end of those in flight; NULL: none is free. */
struct peer_slot *peer_slot_get(struct peer *peer);
/* Its request has ended: frees it and its body. */
void peer_slot_put(struct peer *peer, struct peer_slot *slot);
/* Queues what slot->out says, if the link is up and the donor knows the handles; else a replay will. */
void peer_slot_send(struct peer *peer, struct peer_slot *slot);
/* The same, whatever the state of the link. */
void peer_slot_put_on_wire(struct peer *peer, struct peer_slot *slot);
void peer_store_interrupt(struct store *store, struct store_req *req);
/* Something became free: those who wait for it move up. */
void peer_req_start_waiting(struct peer *peer);

/* peer_data.c, for peer.c and peer_handle.c. */

extern const struct store_ops peer_store_ops;
/* The same, with long READs over further connections, too. */
extern const struct store_ops peer_striped_ops;

static inline struct peer_handle *peer_handle_of(const struct store_req *req)
{
	return (struct peer_handle *)req->at;
}

/* Puts req into the slot, and sends it. */
void peer_data_start(struct peer *peer, struct peer_slot *slot, struct store_req *req);
/* Takes the results of the successful data reply peer->rep; -EPROTO: they are none of req's. */
int peer_data_result(struct peer *peer, struct store_req *req);
/* The same of a READ's, over whatever connection. */
int peer_data_read(struct conn *conn, const struct frame_rep *rep, struct store_req *req);
/* The slot's data request ends: frees the slot and completes it. */
void peer_data_done(struct peer *peer, struct peer_slot *slot, int err);

/* peer_handle.c, for peer.c and the link. */

static inline bool peer_has_lease(const struct handle *handle)
{
	return handle->flags & POOL_WRITE && !(handle->flags & POOL_SHARED);
}

/* Makes room for handles up to this number: 0 or -ENOMEM. */
int peer_handle_room(struct peer *peer, uint32_t number);
/* The handle that OPEN or CREATE req will give; its number is the lowest free one.  0, -ENFILE, -ENOMEM. */
int peer_handle_create(struct peer *peer, struct pool_req *req);
/* Takes the handle that a reply gives; 0 or -ENOMEM. */
int peer_handle_opened(struct peer *peer, struct pool_req *req);
void peer_handle_free(struct peer *peer, struct handle *handle);
/* Tells the donor, which has forgotten it, of an open handle: counted in peer->reopens until the reply is there,
 * or it is stale. */
void peer_handle_reopen(struct peer *peer, struct peer_handle *ph);
/* The reply to that, peer->rep, with err. */
void peer_handle_reopened(struct peer *peer, uint32_t number, int err);
/* Has the donor close a handle that it may have and nobody here. */
void peer_handle_close_orphan(struct peer *peer, uint32_t number);
/* NOTICE peer->rep with its payload is there: tells whoever uses the pool, and acknowledges. -EPROTO: it
 * is malformed. */
int peer_req_notice(struct peer *peer);
/* The donor's machine has rebooted: unflushed writes are reported by the next FLUSH. How many regions. */
unsigned peer_req_lost_writes(struct peer *peer);

/* peer.c, for peer_look.c: puts req into the slot, and sends it. */
void peer_control_start(struct peer *peer, struct peer_slot *slot, struct pool_req *req);
/* The slot of a request in flight; NULL: it is not. */
struct peer_slot *peer_slot_of(struct peer *peer, const void *req);

/* peer_look.c */

/* Puts the request for them in flight, for a connection that is about to be made: 0 or -ENOMEM. */
int peer_look_init(struct peer *peer, uint64_t ms);
/* HELLO has been sent: before the first welcome it goes behind that. */
void peer_look_send(struct peer *peer);
/* Answers LOOKUP req if it is known: true, and req->attr is set. */
bool peer_look_answers(struct peer *peer, struct pool_req *req);
/* What is known may be old from now on. */
void peer_look_forget(struct peer *peer);
/* There is no connection any more. */
void peer_look_fini(struct peer *peer);

/* peer_link.c, for the requests. */
int link_init(struct peer *peer, struct err *err);
void link_fini(struct peer *peer);
/* A request was put in flight: watches over the donor's silence. */
void link_watch(struct peer *peer);
/* The number of leases has become 1: keeps them, by being heard of. */
void link_keep_leases(struct peer *peer);
bool link_is_up(const struct peer *peer);
/* 0, or the error with which new requests end at once. */
int link_refuses(const struct peer *peer);
void link_give_up(struct peer *peer);

/* peer_link.c, for further connections. */

/* Makes a session's id (see struct frame_hello) for the `index`th connection of a client, which may be NULL: 0 or
 * -EIO. */
int link_make_session(uint8_t ret_session[16], const char *client, unsigned index);
/* Begins to connect to peer->addr: lfd is watched until it can be written to.  0 or -errno. */
int link_connect(struct peer *peer, struct loop_fd *lfd);
/* What that came to: 0, or an error with its text. */
int link_connect_result(struct peer *peer, struct loop_fd *lfd, struct err *err);
/* Queues a HELLO on conn.  out and buf (FRAME_REQ_LEN + FRAME_HELLO_MAX bytes) stay until it is sent. */
void link_send_hello(struct peer *peer, struct conn *conn, const struct frame_hello *hello,
    struct conn_out *out, uint8_t *buf);
/* Why the connection ended, from what conn_handlers.closed says. */
void link_closed_text(const struct peer *peer, enum link_state state, int rc, struct err *ret_err);
/* Tells the donor that the session of conn is over, so that it keeps nothing of it; if that does not go out at
 * once, the donor finds out by itself. */
void link_say_bye(struct conn *conn);
/* Bytes from the donor, and those that its kernel has acknowledged. */
uint64_t link_moved(struct conn *conn);

/* peer_extra.c */

/* Makes room for `count` further connections, which are down; client as in struct peer_conf. 0 or -errno. */
int peer_extras_init(struct peer *peer, unsigned count, const char *client);
void peer_extras_fini(struct peer *peer);
/* The link is up: makes them. */
void peer_extras_start(struct peer *peer);
/* The link goes down: so do they.  Their requests are the link's, which replays them. */
void peer_extras_stop(struct peer *peer);
/* Their sessions are over. */
void peer_extras_bye(struct peer *peer);
/* How many are up; adds the bytes that they have moved. */
unsigned peer_extras_status(const struct peer *peer, uint64_t *bytes_in, uint64_t *bytes_out);

/* peer_stripe.c; without further connections these do nothing. */

/* Sends the READ over one of them, if that is better than to wait for the link; true: it is in flight. */
bool peer_stripe_read(struct peer_handle *ph, struct store_req *req);
/* Handle `number` is closed by its user: theirs, too. */
void peer_stripe_close(struct peer *peer, uint32_t number);
/* Has control request `op` to wait, since they still have handles open that their user has closed? */
bool peer_stripe_owe(const struct peer *peer, enum pool_op op);
/* Makes room for handles below `room`, of which there was some for peer->handle_room: 0 or -ENOMEM. */
int peer_stripe_room(struct peer *peer, uint32_t room);

#endif
