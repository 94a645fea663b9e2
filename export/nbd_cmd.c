/* SPDX-License-Identifier: Apache-2.0
 *
 * The commands of NBD clients: where their memory comes from, how they are answered, how they end.
 *
 * A command is a chain of parts of at most STORE_LEN_MAX bytes; nearly every one is a single part.  It is
 * taken with all of its memory (nbd_cmd_get) or not at all, and goes back with its last reply
 * (cmd_put); the buffers of its parts go back as soon as they are not needed (nbd_cmd_release).
 *
 * Invariants:
 *   1. nc->in_flight counts the parts that are not back.
 *   2. A part with a lender holds a loan of its range until it is released.
 *   3. A command that is refused, or has no bytes to move, holds no memory but itself.
 */
#include "export/nbd_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int nbd_cmds_alloc(struct server_loop *sl)
{
	if (sl->nbd_cmds)
		return 0;
	sl->nbd_cmds = calloc(SERVER_REQS, sizeof(sl->nbd_cmds[0]));
	sl->nbd_sink = malloc(NBD_SINK_LEN);
	if (!sl->nbd_cmds || !sl->nbd_sink)
		return -ENOMEM;
	for (unsigned i = 0; i < SERVER_REQS; i++) {
		sl->nbd_cmds[i].next = sl->nbd_free;
		sl->nbd_free = &sl->nbd_cmds[i];
	}
	sl->nbd_free_count = SERVER_REQS;
	return 0;
}

void nbd_cmds_free(struct server_loop *sl)
{
	free(sl->nbd_cmds);
	free(sl->nbd_sink);
}

/* ---- memory ---- */

void nbd_cmd_drop_buffer(struct nbd_cmd *part)
{
	if (!part->buf)
		return;
	share_put(&part->nc->share, part->bufs, part->buf);
	part->buf = NULL;
	share_wake(part->nc->sl);
}

void nbd_cmd_release(struct nbd_cmd *part)
{
	if (part->lender) {
		store_unlend(part->lender, part->off, (uint32_t)part->len);
		part->lender = NULL;
	}
	nbd_cmd_drop_buffer(part);
}

/* The first part and those behind it go back. */
static void cmd_put(struct nbd_cmd *cmd)
{
	struct nbd_client *nc = cmd->nc;
	struct server_loop *sl = nc->sl;
	unsigned parts = 0;

	for (struct nbd_cmd *part = cmd, *next; part; part = next, parts++) {
		next = part->next;
		nbd_cmd_release(part);
		part->next = sl->nbd_free;
		sl->nbd_free = part;
	}
	sl->nbd_free_count += parts;
	share_wake(sl);
	nbd_client_drop(nc, parts);
}

/* What a part's bytes need: NULL for nothing. */
static struct bufpool *bufs_for(
    const struct nbd_client *nc, const struct nbd_request *request, uint64_t len)
{
	switch (request->type) {
	case NBD_C_READ:
	case NBD_C_WRITE:
	case NBD_C_CACHE:
		if (len == 0)
			return NULL;
		return len <= SERVER_SMALL ? nc->sl->small : nc->sl->big;
	case NBD_C_BLOCK_STATUS:
		return nc->sl->small;
	default:
		return NULL;
	}
}

/* Large payloads are received straight into the region; small ones are copied, so that a client which dies
 * midway leaves no torn page. */
static void borrow(struct nbd_cmd *part)
{
	struct nbd_client *nc = part->nc;

	part->lent = NULL;
	part->lender = NULL;
	if (part->head->request.type != NBD_C_WRITE || part->len <= SERVER_SMALL)
		return;
	part->lent = store_lend(&nc->handle->store, part->off, (uint32_t)part->len);
	if (part->lent)
		part->lender = &nc->handle->store;
}

/* Gives a part its place; false: there is none now. */
static bool find_memory(struct nbd_cmd *part)
{
	struct nbd_client *nc = part->nc;

	borrow(part);
	part->bufs = part->lent ? NULL : bufs_for(nc, &part->head->request, part->len);
	part->buf = part->bufs ? share_get(&nc->share, part->bufs) : NULL;
	return part->buf || !part->bufs;
}

static unsigned parts_of(const struct nbd_request *request)
{
	if (request->type != NBD_C_READ && request->type != NBD_C_WRITE)
		return 1;
	return request->len ? (unsigned)((request->len + STORE_LEN_MAX - 1) / STORE_LEN_MAX) : 1;
}

static void init_part(
    struct nbd_client *nc, struct nbd_cmd *part, struct nbd_cmd *head, unsigned idx)
{
	const struct nbd_request *request = &nc->request;

	part->nc = nc;
	part->head = head;
	part->buf = part->lent = NULL;
	part->lender = NULL;
	part->off = request->off + (uint64_t)idx * STORE_LEN_MAX;
	part->len = request->len - (uint64_t)idx * STORE_LEN_MAX;
	if (part->len > STORE_LEN_MAX &&
	    (request->type == NBD_C_READ || request->type == NBD_C_WRITE))
		part->len = STORE_LEN_MAX;
}

struct nbd_cmd *nbd_cmd_get(struct nbd_client *nc)
{
	struct server_loop *sl = nc->sl;
	bool refused = nbd_wire_check(&nc->request, nc->mode, nc->size, nc->read_only);
	unsigned parts = refused ? 1 : parts_of(&nc->request);
	struct nbd_cmd *head = sl->nbd_free, *part = head;

	/* One client leaves as many to the others as it has, as with buffers (share_get). */
	if (nc->in_flight + parts > sl->nbd_free_count)
		return NULL;
	head->request = nc->request;
	head->undone = parts;
	head->err = 0;
	for (unsigned i = 0; i < parts; i++, part = part->next) {
		init_part(nc, part, head, i);
		if (!refused && !find_memory(part)) {
			for (struct nbd_cmd *back = head; back != part; back = back->next)
				nbd_cmd_release(back);
			return NULL;
		}
		if (i == parts - 1)
			break;
	}
	sl->nbd_free = part->next;
	part->next = NULL;
	sl->nbd_free_count -= parts;
	nc->in_flight += parts;
	return head;
}

void nbd_cmd_abandon(struct nbd_cmd *part)
{
	struct nbd_cmd *head = part->head;

	for (; part; part = part->next)
		head->undone--;
	if (head->undone == 0)
		cmd_put(head);
}

/* ---- replies ---- */

static void reply_sent(struct conn_out *out, int err)
{
	struct nbd_cmd *part = (struct nbd_cmd *)out;
	struct nbd_client *nc = part->nc;

	if (nc->throttled && nc->conn && conn_queued(nc->conn) < NBD_QUEUED_MAX / 2) {
		nc->throttled = false;
		conn_resume(nc->conn);
	}
	nbd_cmd_release(part);
	if (--part->head->unsent == 0)
		cmd_put(part->head); /* nc may be gone */
}

void nbd_cmd_send(struct nbd_cmd *part)
{
	struct nbd_client *nc = part->nc;

	part->out.sent = reply_sent;
	if (nc->conn)
		conn_send(nc->conn, &part->out);
	else
		reply_sent(&part->out, -ESHUTDOWN);
}

void nbd_cmd_refuse(struct nbd_cmd *cmd, uint32_t error)
{
	enum nbd_mode mode = cmd->nc->mode;
	const struct nbd_request *request = &cmd->request;
	bool structured = mode == NBD_EXTENDED ||
			  (mode == NBD_STRUCTURED &&
			      (request->type == NBD_C_READ || request->type == NBD_C_BLOCK_STATUS));
	uint8_t *end;

	if (!structured)
		end = nbd_wire_simple(cmd->header, error, request->cookie);
	else if (error)
		end = nbd_wire_error(cmd->header, mode, request, NBD_CHUNK_DONE, error);
	else
		end = nbd_wire_chunk(cmd->header, mode, request, NBD_CHUNK_NONE, NBD_CHUNK_DONE, 0);
	cmd->out.iov[0] = (struct iovec){cmd->header, (size_t)(end - cmd->header)};
	cmd->out.iov_count = 1;
	cmd->unsent = 1;
	nbd_cmd_send(cmd);
}

void nbd_cmd_answer(struct nbd_cmd *cmd, int err)
{
	nbd_cmd_refuse(cmd, nbd_wire_errno(err));
}
