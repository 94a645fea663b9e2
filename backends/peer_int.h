/* SPDX-License-Identifier: Apache-2.0
 *
 * What peer.c (requests), peer_data.c (those for bytes), peer_handle.c (what is open) and peer_link.c (the
 * connection) share.
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
};

_Static_assert(1 << PEER_SLOT_BITS == PEER_SLOTS, "a request id holds its slot's number");

/* Request ids above every slot's: those that the connection itself sends. */
#define PEER_ID_HELLO ((uint64_t)1 << 63)
/* Requests that nobody waits for: unique by seq ≥ 1, and the handle's number. */
#define PEER_ID_LOOSE(seq, number) ((uint64_t)1 << 63 | (uint64_t)(seq) << 16 | (number))

/* One request in flight.  out.sent tells when the kernel has it: until then its memory is not free. */
struct peer_slot {
	struct conn_out out;
	struct peer_slot *prev, *next; /* in flight, in the order of submission; or free */
	uint64_t id;
	struct store_req *sreq; /* exactly one of the two is set while in flight */
	struct pool_req *preq;
	uint8_t *body; /* control requests: FRAME_BODY_MAX bytes */
	uint64_t write_gen; /* FLUSH: see peer_region */
	bool sending;
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
void peer_store_interrupt(struct store *store, struct store_req *req);

/* peer_data.c, for peer.c and peer_handle.c. */

extern const struct store_ops peer_store_ops;

static inline struct peer_handle *peer_handle_of(const struct store_req *req)
{
	return (struct peer_handle *)req->at;
}

/* Puts req into the slot, and sends it. */
void peer_data_start(struct peer *peer, struct peer_slot *slot, struct store_req *req);
/* Takes the results of the successful data reply peer->rep; -EPROTO: they are none of req's. */
int peer_data_result(struct peer *peer, struct store_req *req);
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

#endif
