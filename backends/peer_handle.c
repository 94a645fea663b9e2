/* SPDX-License-Identifier: Apache-2.0
 *
 * What a donor's pool has open: handles, what is known of their regions' writes, and the requests that nobody
 * waits for, which keep both sides of one mind about it.
 *
 * A handle's states:
 *   asked for  an OPEN or CREATE is under way: it has its number, and no region
 *   open       the donor has said so; with POOL_WRITE and without POOL_SHARED it holds the region's lease
 *   reopening  told again to a donor that forgot the session, not yet answered
 *   stale      its I/O fails with ->stale; it is not told to the donor again
 *
 * A handle that held a lease is opened again, at a donor that has forgotten the session, only if nobody else
 * has changed the region since (POOL_REOPEN): else a request that is replayed could land on something newer.
 * Then the handle is stale, with -ENOLCK.
 *
 * Invariants:
 *   1. peer->leases counts the handles that are open and write without POOL_SHARED: while it is not 0 the link
 *      sees to it that the donor hears of the session.
 *   2. Where peer->orphans[number] is set and no handle has that number, the donor may have one by it: it is told
 *      to close it after the next reconnect.
 *
 * Everything runs on one loop; there are no locks.
 */
#include "backends/peer_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- handles ---- */

int peer_handle_room(struct peer *peer, uint32_t number)
{
	uint32_t room = peer->handle_room ? peer->handle_room : 64;
	struct peer_handle **grown;
	bool *orphans;

	while (room <= number)
		room *= 2;
	if (room == peer->handle_room)
		return 0;
	grown = realloc(peer->handles, room * sizeof(grown[0]));
	if (!grown)
		return -ENOMEM;
	peer->handles = grown;
	orphans = realloc(peer->orphans, room * sizeof(orphans[0]));
	if (!orphans)
		return -ENOMEM;
	peer->orphans = orphans;
	if (peer_stripe_room(peer, room))
		return -ENOMEM;
	memset(grown + peer->handle_room, 0, (room - peer->handle_room) * sizeof(grown[0]));
	memset(orphans + peer->handle_room, 0, (room - peer->handle_room) * sizeof(orphans[0]));
	peer->handle_room = room;
	return 0;
}

/* What is known of a region's writes; NULL: out of memory. */
static struct peer_region *region_get(struct peer *peer, uint64_t id)
{
	struct peer_region *region = peer->regions;

	while (region && region->id != id)
		region = region->next;
	if (!region) {
		region = calloc(1, sizeof(*region));
		if (!region)
			return NULL;
		region->id = id;
		region->next = peer->regions;
		peer->regions = region;
	}
	region->handles++;
	return region;
}

static void region_put(struct peer *peer, struct peer_region *region)
{
	struct peer_region **link = &peer->regions;

	if (--region->handles || region->write_gen != region->stable_gen)
		return;
	while (*link != region)
		link = &(*link)->next;
	*link = region->next;
	free(region);
}

/* The handle that an OPEN or CREATE will give; its number is the lowest free one. */
int peer_handle_create(struct peer *peer, struct pool_req *req)
{
	struct peer_handle *ph;
	uint32_t number = 1;

	while (number < peer->handle_room && peer->handles[number])
		number++;
	if (number >= POOL_HANDLE_MAX)
		return -ENFILE;
	if (peer_handle_room(peer, number))
		return -ENOMEM;
	ph = calloc(1, sizeof(*ph));
	if (!ph)
		return -ENOMEM;
	store_init(&ph->handle.store,
	    peer->extra_count && req->flags & POOL_READ ? &peer_striped_ops : &peer_store_ops,
	    peer->pool.size_max);
	ph->handle.store.stats = peer->stats;
	ph->handle.number = number;
	ph->handle.flags = req->flags & (POOL_READ | POOL_WRITE | POOL_PIN | POOL_SHARED);
	if (!(req->flags & POOL_WRITE) || req->flags & POOL_PIN)
		ph->handle.flags &= ~(unsigned)POOL_SHARED;
	ph->peer = peer;
	peer->handles[number] = ph;
	req->ret_handle = &ph->handle;
	req->number = number;
	return 0;
}

void peer_handle_free(struct peer *peer, struct handle *handle)
{
	struct peer_handle *ph = (struct peer_handle *)handle;

	if (ph->region && peer_has_lease(handle))
		peer->leases--;
	peer->handles[handle->number] = NULL;
	if (ph->region)
		region_put(peer, ph->region);
	store_destroy(&handle->store);
}

/* Takes the handle that a reply gives; 0 or -ENOMEM. */
int peer_handle_opened(struct peer *peer, struct pool_req *req)
{
	struct peer_handle *ph = (struct peer_handle *)req->ret_handle;

	ph->handle.region_id = req->attr.id;
	ph->open = true;
	peer->orphans[ph->handle.number] = false;
	ph->version = req->attr.version;
	ph->region = region_get(peer, req->attr.id);
	if (ph->region && peer_has_lease(&ph->handle) && peer->leases++ == 0)
		link_keep_leases(peer);
	return ph->region ? 0 : -ENOMEM;
}

unsigned peer_req_lost_writes(struct peer *peer)
{
	unsigned n = 0;

	for (struct peer_region *region = peer->regions; region; region = region->next) {
		if (region->write_gen != region->stable_gen) {
			region->lost_writes = true;
			n++;
		}
	}
	return n;
}

/* ---- requests that nobody waits for ---- */

/* A request that nobody waits for: an OPEN of a handle that the donor has forgotten, a CLOSE of one that this
 * side has given up, or a NOTICE's acknowledgement. */
struct loose {
	struct conn_out out;
	uint8_t buf[FRAME_REQ_LEN + FRAME_BODY_MAX];
};

static void loose_sent(struct conn_out *out, int err)
{
	free(out);
}

/* Takes loose, which has a body of len bytes. */
static void loose_send(
    struct peer *peer, struct loose *loose, struct frame_req *frame, size_t len, uint32_t number)
{
	frame->id = PEER_ID_LOOSE(peer->next_seq++, number);
	frame_req_put(loose->buf, frame);
	loose->out.iov[0] = (struct iovec){loose->buf, FRAME_REQ_LEN + len};
	loose->out.iov_count = 1;
	loose->out.sent = loose_sent;
	conn_send(peer->conn, &loose->out);
}

static int send_loose(struct peer *peer, const struct pool_req *req)
{
	struct loose *loose = calloc(1, sizeof(*loose));
	struct frame_req frame;
	size_t len;

	if (!loose)
		return -ENOMEM;
	len = frame_control_put(req, &frame, loose->buf + FRAME_REQ_LEN);
	loose_send(peer, loose, &frame, len, req->number);
	return 0;
}

static void tell(struct peer *peer, const struct pool_notice *notice)
{
	if (peer->pool.notify)
		peer->pool.notify(peer->pool.notify_ctx, notice);
}

int peer_req_notice(struct peer *peer)
{
	struct frame_req frame = {.op = FRAME_NOTICE};
	struct pool_notice notice;
	struct loose *loose;

	if (peer->rep.status || frame_notice_get(peer->control, peer->rep.payload, &notice))
		return -EPROTO;
	tell(peer, &notice);
	/* Without one the donor would tell nothing more of this region: a new connection makes up for it. */
	loose = calloc(1, sizeof(*loose));
	if (!loose)
		return -ENOMEM;
	frame.off = notice.id;
	loose_send(peer, loose, &frame, 0, 0);
	return 0;
}

void peer_handle_reopen(struct peer *peer, struct peer_handle *ph)
{
	struct pool_req req = {
	    .op = POOL_OPEN,
	    .flags = ph->handle.flags | (peer_has_lease(&ph->handle) ? POOL_REOPEN : 0),
	    .id = ph->handle.region_id,
	    .number = ph->handle.number,
	    .version = ph->version,
	};

	ph->reopening = true;
	if (send_loose(peer, &req))
		ph->stale = -EIO;
	else
		peer->reopens++;
}

/* An OPEN's that nobody waits for.  What others have changed while the donor knew nothing of the session it
 * gave no notice of. */
void peer_handle_reopened(struct peer *peer, uint32_t number, int err)
{
	struct peer_handle *ph = number < peer->handle_room ? peer->handles[number] : NULL;
	struct region_attr attr;

	if (!ph || !ph->reopening)
		return;
	ph->reopening = false;
	if (err == 0) {
		if (!(peer->rep.flags & FRAME_F_UNCHANGED) &&
		    frame_attr_get(peer->control, peer->rep.payload, &attr) == 0)
			tell(peer, &(struct pool_notice){attr.id, attr.version, attr.size});
		return;
	}
	if ((err == -ENOLCK || err == -EBUSY) && peer_has_lease(&ph->handle)) {
		log_error(
		    "%s: region %llu: another client has written to it, or does so now: I/O on what "
		    "is open here fails from now on",
		    peer->address, (unsigned long long)ph->handle.region_id);
		ph->stale = -ENOLCK;
		return;
	}
	log_error("%s: region %llu can't be opened again (%s): I/O on it fails from now on",
	    peer->address, (unsigned long long)ph->handle.region_id, strerror(-err));
	ph->stale = err == -EACCES ? err : -ESTALE;
}

void peer_handle_close_orphan(struct peer *peer, uint32_t number)
{
	struct pool_req req = {.op = POOL_CLOSE, .number = number};

	peer->orphans[number] = send_loose(peer, &req) != 0;
}
