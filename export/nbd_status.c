/* SPDX-License-Identifier: Apache-2.0
 *
 * BLOCK_STATUS: which bytes are allocated (the store says), resident and dirty (the region's residence says, see
 * core/residence.h; where there is none they are resident, unless the pool's bytes are elsewhere, and not dirty).
 * And CACHE, where a residence can have bytes fetched.
 *
 *   BLOCK_STATUS   STORE_EXTENTS if base:allocation was chosen ─► look if one of the others was ─► a chunk for each
 *                  context.  Extents are merged for each by itself: contexts end at different offsets.
 *   CACHE          pull ─ -EAGAIN ─► again after 1, 2, 4, … AGAIN_MAX_MS, as long as the client is there
 *
 * Invariant: a command's buffer has the store's extents, then the residence's runs, then the bytes of the reply.
 */
#include "export/nbd_int.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>

enum {
	EXTENTS_MAX = 384, /* in an answer of one context that has more than one */
	EXTENTS_EACH = 128, /* in one of three */
	AGAIN_MAX_MS = 50,
};

/* A BLOCK_STATUS looks at no more than this: it says so by a shorter answer. */
#define STATUS_MAX ((uint64_t)64 << 30)

enum { STATE_HOLE = 1, STATE_ZERO = 2, STATE_RESIDENT = 1, STATE_DIRTY = 1 };

_Static_assert(EXTENTS_MAX * sizeof(struct extent) + NBD_EXT_CHUNK_LEN + 8 + EXTENTS_MAX * 16 +
		       2 * (NBD_EXT_CHUNK_LEN + 8 + 16) <=
		   SERVER_SMALL,
    "an answer's extents and its bytes fit into a small buffer");
_Static_assert(EXTENTS_EACH *(sizeof(struct extent) + sizeof(struct residence_run)) +
		       3 * (NBD_EXT_CHUNK_LEN + 8 + EXTENTS_EACH * 16) <=
		   SERVER_SMALL,
    "those of three contexts, too");

/* What an answer says of bytes that are alike. */
struct state {
	uint64_t len;
	uint32_t flags;
};

unsigned nbd_status_contexts(const struct nbd_client *nc)
{
	const struct residence *residence = server_residence(nc->sl->server);
	bool unknown = residence && !residence->ops;

	return unknown ? NBD_ALLOCATION : NBD_ALLOCATION | NBD_RESIDENT | NBD_DIRTY;
}

/* Whether somebody must be asked what is resident and what is dirty. */
static struct residence *asks(const struct nbd_cmd *cmd)
{
	bool wanted = cmd->nc->contexts & (NBD_RESIDENT | NBD_DIRTY);

	return wanted ? server_residence(cmd->nc->sl->server) : NULL;
}

static unsigned room(const struct nbd_cmd *cmd)
{
	if (cmd->request.flags & NBD_F_REQ_ONE)
		return 1;
	return asks(cmd) ? EXTENTS_EACH : EXTENTS_MAX;
}

static struct residence_run *runs_of(const struct nbd_cmd *cmd)
{
	return (struct residence_run *)((struct extent *)cmd->buf + room(cmd));
}

/* ---- the answer ---- */

/* Adds to states, of which there are count; how many there are then. */
static unsigned add(struct state *states, unsigned count, uint64_t len, uint32_t flags)
{
	if (count && states[count - 1].flags == flags) {
		states[count - 1].len += len;
		return count;
	}
	states[count] = (struct state){len, flags};
	return count + 1;
}

static unsigned allocation(const struct nbd_cmd *cmd, struct state *states)
{
	unsigned count = 0;

	for (unsigned i = 0; i < cmd->sreq.ret_extents; i++) {
		const struct extent *extent = &cmd->sreq.extents[i];

		count = add(states, count, extent->len,
		    extent->flags & EXTENT_HOLE ? STATE_HOLE | STATE_ZERO : 0);
	}
	return count;
}

static unsigned resident(const struct nbd_cmd *cmd, struct state *states)
{
	const struct residence_run *runs = runs_of(cmd);
	unsigned count = 0;

	if (!asks(cmd))
		return add(states, 0, cmd->request.len,
		    cmd->nc->found.pool->elsewhere ? 0 : STATE_RESIDENT);
	for (unsigned i = 0; i < cmd->residence.ret_count; i++)
		count = add(states, count, runs[i].len, runs[i].resident ? STATE_RESIDENT : 0);
	return count;
}

static unsigned dirty(const struct nbd_cmd *cmd, struct state *states)
{
	const struct residence_run *runs = runs_of(cmd);
	unsigned count = 0;

	if (!asks(cmd))
		return add(states, 0, cmd->request.len, 0);
	for (unsigned i = 0; i < cmd->residence.ret_count; i++)
		count = add(states, count, runs[i].len, runs[i].dirty ? STATE_DIRTY : 0);
	return count;
}

/* The chunk of one context. */
static uint8_t *put_status(uint8_t *p, const struct nbd_cmd *cmd, uint32_t id, bool last,
    const struct state *states, unsigned count)
{
	enum nbd_mode mode = cmd->nc->mode;
	bool extended = mode == NBD_EXTENDED;
	uint16_t flags = last ? NBD_CHUNK_DONE : 0;

	p = nbd_wire_chunk(p, mode, &cmd->request,
	    extended ? NBD_CHUNK_STATUS_EXT : NBD_CHUNK_STATUS, flags,
	    (extended ? 8 : 4) + count * (extended ? 16 : 8));
	p = nbd_put32(p, id);
	if (extended)
		p = nbd_put32(p, count);
	for (unsigned i = 0; i < count; i++) {
		if (extended) {
			p = nbd_put64(p, states[i].len);
			p = nbd_put64(p, states[i].flags);
		} else {
			p = nbd_put32(p, (uint32_t)states[i].len);
			p = nbd_put32(p, states[i].flags);
		}
	}
	return p;
}

static void send_status(struct nbd_cmd *cmd)
{
	static unsigned (*const of[NBD_CONTEXTS])(const struct nbd_cmd *, struct state *) = {
	    allocation, resident, dirty};
	unsigned contexts = cmd->nc->contexts;
	uint8_t *begin = (uint8_t *)(runs_of(cmd) + (asks(cmd) ? room(cmd) : 0)), *p = begin;
	struct state states[EXTENTS_MAX];

	for (unsigned i = 0; i < NBD_CONTEXTS; i++) {
		if (contexts & 1u << i)
			p = put_status(
			    p, cmd, i + 1, contexts >> i == 1, states, of[i](cmd, states));
	}
	assert(p <= (uint8_t *)cmd->buf + SERVER_SMALL);
	cmd->out.iov[0] = (struct iovec){begin, (size_t)(p - begin)};
	cmd->out.iov_count = 1;
	cmd->unsent = 1;
	nbd_cmd_send(cmd);
}

/* ---- asking ---- */

static void looked(struct residence_req *req, int err)
{
	struct nbd_cmd *cmd = (struct nbd_cmd *)((char *)req - offsetof(struct nbd_cmd, residence));

	if (err)
		nbd_cmd_answer(cmd, err);
	else
		send_status(cmd);
}

/* The store's part is there, or is not wanted. */
static void look(struct nbd_cmd *cmd)
{
	struct residence *residence = asks(cmd);

	if (!residence) {
		send_status(cmd);
		return;
	}
	cmd->residence.off = cmd->off;
	cmd->residence.len = cmd->len < STATUS_MAX ? cmd->len : STATUS_MAX;
	cmd->residence.runs = runs_of(cmd);
	cmd->residence.max = room(cmd);
	cmd->residence.done = looked;
	residence->ops->look(residence, &cmd->residence);
}

static void extents_done(struct store_req *sreq, int err)
{
	struct nbd_cmd *cmd = (struct nbd_cmd *)((char *)sreq - offsetof(struct nbd_cmd, sreq));

	if (err)
		nbd_cmd_answer(cmd, err);
	else
		look(cmd);
}

void nbd_status_start(struct nbd_cmd *cmd)
{
	uint64_t len = cmd->len < STATUS_MAX ? cmd->len : STATUS_MAX;

	if (!cmd->nc->contexts) {
		nbd_cmd_answer(cmd, -EINVAL);
		return;
	}
	if (!(cmd->nc->contexts & NBD_ALLOCATION)) {
		look(cmd);
		return;
	}
	cmd->sreq.extents = cmd->buf;
	cmd->sreq.extents_max = room(cmd);
	nbd_io_submit(cmd, STORE_EXTENTS, 0, cmd->off, len, extents_done);
}

/* ---- CACHE ---- */

static void ask_again(struct loop_timer *timer)
{
	struct nbd_cmd *cmd = (struct nbd_cmd *)((char *)timer - offsetof(struct nbd_cmd, again));
	struct residence *residence = server_residence(cmd->nc->sl->server);

	if (cmd->nc->conn && !cmd->nc->sl->draining) {
		residence->ops->pull(residence, &cmd->residence);
	} else {
		residence->ops->forget(residence, &cmd->residence);
		nbd_cmd_answer(cmd, -ESHUTDOWN);
	}
}

static void pulled(struct residence_req *req, int err)
{
	struct nbd_cmd *cmd = (struct nbd_cmd *)((char *)req - offsetof(struct nbd_cmd, residence));
	unsigned ms = cmd->asked < 6 ? 1u << cmd->asked : AGAIN_MAX_MS;

	if (err != -EAGAIN) {
		nbd_cmd_answer(cmd, err);
		return;
	}
	cmd->asked++;
	cmd->again.expired = ask_again;
	loop_timer_set(cmd->nc->sl->loop, &cmd->again, loop_now_ns() + ms * UINT64_C(1000000));
}

bool nbd_status_pull(struct nbd_cmd *cmd)
{
	struct residence *residence = server_residence(cmd->nc->sl->server);

	if (!residence || !residence->ops || !residence->ops->pull)
		return false;
	cmd->asked = 0;
	cmd->residence.off = cmd->off;
	cmd->residence.len = cmd->len;
	cmd->residence.task = 0;
	cmd->residence.done = pulled;
	residence->ops->pull(residence, &cmd->residence);
	return true;
}
