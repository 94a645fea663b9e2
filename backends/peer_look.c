/* SPDX-License-Identifier: Apache-2.0
 *
 * The first names of a pool at a donor, asked for behind the HELLO of the first connection: who mounts a pool
 * looks a name up next, and then has its answer a round trip sooner.
 *
 *   asked    look is in flight: from the start, so that it outlives attempts that fail
 *   known    look_until_ns: LOOKUPs of names in look_list are answered from it
 *   over     look_list is NULL: for good, from the first request of another kind or loss of the connection on, or
 *            when the time is over
 *
 * It holds for a moment (look_ms) that is shorter than what anybody may see old anyway (attr_timeout), and the
 * answers say that they are not of now (ret_earlier).  A name that is not there is asked for: the list may be cut short.
 */
#include "backends/peer_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void peer_look_forget(struct peer *peer)
{
	if (!peer->look_until_ns) { /* in flight: its reply needs the room, and is old when it comes */
		peer->look_ns = 0;
		return;
	}
	free(peer->look_list);
	peer->look_list = NULL;
}

static void look_done(struct pool_req *req, int err)
{
	struct peer *peer = (struct peer *)((char *)req - offsetof(struct peer, look));

	peer->look_until_ns = loop_now_ns() + peer->look_ns;
	if (err)
		peer_look_forget(peer);
}

int peer_look_init(struct peer *peer, uint64_t ms)
{
	if (ms == 0)
		return 0;
	peer->look_list = malloc(POOL_LIST_MAX);
	if (!peer->look_list)
		return -ENOMEM;
	peer->look_ns = ms * 1000000;
	peer->look = (struct pool_req){
	    .op = POOL_LIST, .data = peer->look_list, .len = POOL_LIST_MAX, .done = look_done};
	peer_control_start(peer, peer_slot_get(peer), &peer->look);
	return 0;
}

void peer_look_send(struct peer *peer)
{
	struct peer_slot *slot = peer->look_list ? peer_slot_of(peer, &peer->look) : NULL;

	if (slot && !peer->was_up)
		peer_slot_put_on_wire(peer, slot);
}

bool peer_look_answers(struct peer *peer, struct pool_req *req)
{
	size_t name_len = strlen(req->name);
	const uint8_t *pos, *end;

	if (!peer->look_list || !peer->look_until_ns)
		return false;
	if (loop_now_ns() >= peer->look_until_ns) {
		peer_look_forget(peer);
		return false;
	}
	pos = peer->look_list;
	end = pos + peer->look.ret_len;
	while (pos < end) {
		const struct pool_dirent *ent = (const struct pool_dirent *)pos;

		pos += sizeof(*ent);
		if (ent->name_len == name_len && !memcmp(pos, req->name, name_len)) {
			req->attr = ent->attr;
			return true;
		}
		pos += (ent->name_len + 7) & ~(size_t)7;
	}
	return false;
}

void peer_look_fini(struct peer *peer)
{
	struct peer_slot *slot = peer->look_list ? peer_slot_of(peer, &peer->look) : NULL;

	if (slot)
		peer_slot_put(peer, slot);
	free(peer->look_list);
	peer->look_list = NULL;
}
