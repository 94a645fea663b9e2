/* SPDX-License-Identifier: Apache-2.0
 *
 * What the connections of a loop share (see share.h).
 *
 * Invariants:
 *   1. small_held and big_held count the buffers that the connection has of each pool.
 *   2. A connection in sl->waiting is paused, and is woken when memory comes back, or by the next tick.
 */
#include "export/share.h"

#include <stddef.h>

#include "core/bufpool.h"
#include "core/conn.h"
#include "core/log.h"
#include "core/loop.h"
#include "export/server.h"

enum {
	STALL_S = 60, /* without taking a byte of waiting replies, or sending one of a payload */
	STARVE_S = 5, /* the same while others wait for requests or buffers */
};

void share_init(struct share *share, struct server_loop *sl, void (*wake)(struct share *share))
{
	uint64_t now = loop_now_ns();

	*share = (struct share){.sl = sl, .wake = wake, .out_ns = now, .in_ns = now};
}

static unsigned *held(struct share *share, const struct bufpool *bufs)
{
	return bufs == share->sl->big ? &share->big_held : &share->small_held;
}

void *share_get(struct share *share, struct bufpool *bufs)
{
	void *buf;

	if (*held(share, bufs) >= bufpool_left(bufs))
		return NULL;
	buf = bufpool_get(bufs);
	*held(share, bufs) += 1;
	return buf;
}

void share_put(struct share *share, struct bufpool *bufs, void *buf)
{
	bufpool_put(bufs, buf);
	*held(share, bufs) -= 1;
}

void share_wait(struct share *share)
{
	struct server_loop *sl = share->sl;

	if (share->waiting)
		return;
	share->waiting = true;
	share->next_waiting = NULL;
	*sl->waiting_tail = share;
	sl->waiting_tail = &share->next_waiting;
}

void share_leave(struct share *share)
{
	struct server_loop *sl = share->sl;

	if (!share->waiting)
		return;
	for (struct share **link = &sl->waiting; *link; link = &(*link)->next_waiting) {
		if (*link == share) {
			*link = share->next_waiting;
			if (!*link)
				sl->waiting_tail = link;
			break;
		}
	}
	share->waiting = false;
}

void share_wake(struct server_loop *sl)
{
	struct share *share = sl->waiting;

	if (!share)
		return;
	sl->waiting = share->next_waiting;
	if (!sl->waiting)
		sl->waiting_tail = &sl->waiting;
	share->waiting = false;
	share->wake(share);
}

void share_wake_all(struct server_loop *sl)
{
	while (sl->waiting)
		share_wake(sl);
}

bool share_stalled(struct share *share, const struct conn *conn, bool receiving, uint64_t now_ns,
    const char *address)
{
	const struct share *first = share->sl->waiting;
	bool others_wait = first && (first != share || share->next_waiting);
	unsigned limit_s = others_wait ? STARVE_S : STALL_S;
	bool out, in;

	if (conn_queued(conn) == 0 || conn_bytes_out(conn) != share->bytes_out)
		share->out_ns = now_ns;
	if (!receiving || conn_bytes_in(conn) != share->bytes_in)
		share->in_ns = now_ns;
	share->bytes_out = conn_bytes_out(conn);
	share->bytes_in = conn_bytes_in(conn);
	out = now_ns > share->out_ns + limit_s * 1000000000ull;
	in = now_ns > share->in_ns + limit_s * 1000000000ull;
	if (out || in)
		log_warn("client %s: %s for %u s%s: connection closed", address,
		    out ? "takes no replies" : "sends no data", limit_s,
		    others_wait ? " while others wait" : "");
	return out || in;
}
