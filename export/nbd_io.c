/* SPDX-License-Identifier: Apache-2.0
 *
 * What the commands of NBD clients do: requests to the region's store, and what comes back as replies.
 *
 *   READ          STORE_READ, lent where the store can.  Simple replies: the header says that all of it was
 *                 read, so it goes out when all of it has been.  Structured ones: a chunk for each part as it
 *                 comes, in any order; zeros at its ends, or all of it, travel as holes.
 *   WRITE         STORE_WRITE of each part when its bytes are there
 *   FLUSH         STORE_FLUSH: all clients of a region share its store, so it covers the writes of all
 *   TRIM          STORE_ZERO
 *   WRITE_ZEROES  STORE_ZERO; with NO_HOLE STORE_ALLOC, then STORE_ZERO that keeps the space
 *   CACHE         STORE_READ of all of it, dropped: a store that has it elsewhere brings it near; or what the
 *                 region's residence can do
 *   BLOCK_STATUS  nbd_status.c
 *
 * Commands whose length is not bounded go step by step, each step a task of its own, so that the others on
 * the loop get their turn.
 */
#include "export/nbd_int.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include "core/frame.h"
#include "core/region.h"

enum {
	ZERO_STEP = 256 << 20, /* bytes: some 100 µs for memory */
	TRIM_MIN = 2 * STORE_BLOCK, /* shorter reads are not looked at for zeros at their ends */
};

static struct nbd_cmd *cmd_of(struct store_req *sreq)
{
	return (struct nbd_cmd *)((char *)sreq - offsetof(struct nbd_cmd, sreq));
}

void nbd_io_submit(struct nbd_cmd *part, enum store_op op, unsigned flags, uint64_t off,
    uint64_t len, store_done_fn *done)
{
	struct store_req *sreq = &part->sreq;

	sreq->op = op;
	sreq->flags = flags;
	sreq->off = off;
	sreq->len = len;
	sreq->buf = part->lent ? part->lent : part->buf;
	sreq->done = done;
	sreq->store = NULL;
	store_submit(&part->nc->handle->store, sreq);
}

static unsigned fua(const struct nbd_cmd *cmd)
{
	return cmd->request.flags & NBD_F_FUA ? STORE_FUA : 0;
}

/* ---- READ ---- */

/* A simple reply: header, then the parts in order; or an error. */
static void send_simple(struct nbd_cmd *cmd)
{
	uint8_t *end;

	if (cmd->err) {
		nbd_cmd_answer(cmd, cmd->err);
		return;
	}
	end = nbd_wire_simple(cmd->header, 0, cmd->request.cookie);
	cmd->unsent = 0;
	for (struct nbd_cmd *part = cmd; part; part = part->next)
		cmd->unsent++;
	for (struct nbd_cmd *part = cmd, *next; part; part = next) {
		unsigned n = 0;

		next = part->next;
		if (part == cmd)
			part->out.iov[n++] =
			    (struct iovec){cmd->header, (size_t)(end - cmd->header)};
		part->out.iov[n++] = (struct iovec){part->sreq.buf, part->len};
		part->out.iov_count = n;
		nbd_cmd_send(part);
	}
}

/* How many bytes of [buf, buf + len) are zeros, in whole blocks from the front, or from the back. */
static uint64_t zeros_ahead(const uint8_t *buf, uint64_t len)
{
	uint64_t n = 0;

	while (n + STORE_BLOCK < len && frame_is_zero(buf + n, STORE_BLOCK))
		n += STORE_BLOCK;
	return n;
}

static uint64_t zeros_behind(const uint8_t *buf, uint64_t len)
{
	uint64_t n = 0;

	while (n + STORE_BLOCK < len && frame_is_zero(buf + len - n - STORE_BLOCK, STORE_BLOCK))
		n += STORE_BLOCK;
	return n;
}

/* Chunks for a part: [hole] [data] [hole] [error], the last one of the reply marked. */
static void put_chunks(struct nbd_cmd *part, bool last)
{
	const struct nbd_cmd *head = part->head;
	const struct nbd_request *request = &head->request;
	enum nbd_mode mode = part->nc->mode;
	const uint8_t *buf = part->sreq.buf;
	bool whole = request->flags & NBD_F_DF || part->len < TRIM_MIN;
	uint16_t done = last && !head->err ? NBD_CHUNK_DONE : 0;
	uint64_t ahead = whole ? 0 : zeros_ahead(buf, part->len);
	uint64_t behind = whole ? 0 : zeros_behind(buf + ahead, part->len - ahead);
	uint64_t len = part->len - ahead - behind;
	uint8_t *p = part->header, *tail;

	if (ahead)
		p = nbd_wire_hole(p, mode, request, 0, part->off, (uint32_t)ahead);
	p = nbd_wire_data(p, mode, request, behind ? 0 : done, part->off + ahead, (uint32_t)len);
	part->out.iov[0] = (struct iovec){part->header, (size_t)(p - part->header)};
	part->out.iov[1] = (struct iovec){(uint8_t *)part->sreq.buf + ahead, len};
	tail = p;
	if (behind)
		p = nbd_wire_hole(
		    p, mode, request, done, part->off + ahead + len, (uint32_t)behind);
	if (last && head->err)
		p = nbd_wire_error(p, mode, request, NBD_CHUNK_DONE, nbd_wire_errno(head->err));
	part->out.iov[2] = (struct iovec){tail, (size_t)(p - tail)};
	part->out.iov_count = p == tail ? 2 : 3;
}

static void put_hole(struct nbd_cmd *part, bool last)
{
	const struct nbd_cmd *head = part->head;
	enum nbd_mode mode = part->nc->mode;
	uint16_t done = last && !head->err ? NBD_CHUNK_DONE : 0;
	uint8_t *p =
	    nbd_wire_hole(part->header, mode, &head->request, done, part->off, (uint32_t)part->len);

	if (last && head->err)
		p = nbd_wire_error(
		    p, mode, &head->request, NBD_CHUNK_DONE, nbd_wire_errno(head->err));
	part->out.iov[0] = (struct iovec){part->header, (size_t)(p - part->header)};
	part->out.iov_count = 1;
	nbd_cmd_release(part);
}

/* A part has no bytes to show: an error goes out with the last one only. */
static void put_failure(struct nbd_cmd *part, bool last)
{
	const struct nbd_cmd *head = part->head;
	uint8_t *p = part->header;

	if (last)
		p = nbd_wire_error(
		    p, part->nc->mode, &head->request, NBD_CHUNK_DONE, nbd_wire_errno(head->err));
	part->out.iov[0] = (struct iovec){part->header, (size_t)(p - part->header)};
	part->out.iov_count = 1;
	nbd_cmd_release(part);
}

static void read_done(struct store_req *sreq, int err)
{
	struct nbd_cmd *part = cmd_of(sreq), *head = part->head;
	bool last = --head->undone == 0;
	bool hole = false;

	if (err && !head->err)
		head->err = err;
	if (err == 0) {
		if (sreq->ret_lent)
			part->lender = &part->nc->handle->store;
		hole = sreq->buf == store_zeros;
		if (sreq->buf != part->buf)
			nbd_cmd_drop_buffer(part);
	}
	if (part->nc->mode == NBD_SIMPLE) {
		if (last)
			send_simple(head);
		return;
	}
	if (err)
		put_failure(part, last);
	else if (hole || frame_is_zero(sreq->buf, part->len))
		put_hole(part, last);
	else
		put_chunks(part, last);
	nbd_cmd_send(part);
}

/* A region that was cut shorter has no bytes there any more, and zeros would be a lie. */
static bool beyond_end(const struct nbd_cmd *cmd)
{
	const struct region *region = ((struct region_handle *)cmd->nc->handle)->region;

	return cmd->request.off + cmd->request.len >
	       atomic_load_explicit(&region->size, memory_order_relaxed);
}

static void start_read(struct nbd_cmd *cmd)
{
	if (cmd->request.len == 0) {
		nbd_cmd_answer(cmd, 0);
		return;
	}
	if (cmd->request.flags & NBD_F_DF && cmd->next) {
		nbd_cmd_answer(cmd, -EOVERFLOW);
		return;
	}
	if (beyond_end(cmd)) {
		nbd_cmd_answer(cmd, -EIO);
		return;
	}
	cmd->unsent = cmd->undone;
	/* The last one may take all of them along. */
	for (struct nbd_cmd *part = cmd, *next; part; part = next) {
		next = part->next;
		nbd_io_submit(part, STORE_READ, STORE_LEND, part->off, part->len, read_done);
	}
}

/* ---- WRITE ---- */

static void write_done(struct store_req *sreq, int err)
{
	struct nbd_cmd *part = cmd_of(sreq), *head = part->head;

	if (err && !head->err)
		head->err = err;
	nbd_cmd_release(part);
	if (--head->undone == 0)
		nbd_cmd_answer(head, head->err);
}

void nbd_io_write(struct nbd_cmd *part)
{
	nbd_io_submit(part, STORE_WRITE, fua(part->head), part->off, part->len, write_done);
}

/* ---- commands that go step by step ---- */

static void step(struct nbd_cmd *cmd);

static void step_task(struct loop_task *task)
{
	step((struct nbd_cmd *)((char *)task - offsetof(struct nbd_cmd, task)));
}

static uint64_t step_len(const struct nbd_cmd *cmd)
{
	uint64_t most = cmd->request.type == NBD_C_CACHE ? STORE_LEN_MAX : ZERO_STEP;

	return cmd->len < most ? cmd->len : most;
}

static void step_done(struct store_req *sreq, int err)
{
	struct nbd_cmd *cmd = cmd_of(sreq);

	if (err == 0 && sreq->ret_lent)
		store_unlend(&cmd->nc->handle->store, sreq->off, (uint32_t)sreq->len);
	if (err == 0 && sreq->op == STORE_ALLOC) {
		cmd->allocated = true;
	} else {
		cmd->allocated = false;
		cmd->off += sreq->len;
		cmd->len -= sreq->len;
	}
	if (err == 0 && cmd->len > 0 && cmd->nc->conn)
		loop_post(cmd->nc->sl->loop, &cmd->task);
	else
		nbd_cmd_answer(cmd, err);
}

static void step(struct nbd_cmd *cmd)
{
	bool keep = cmd->request.flags & NBD_F_NO_HOLE;
	uint64_t len = step_len(cmd);

	if (cmd->request.type == NBD_C_CACHE)
		nbd_io_submit(cmd, STORE_READ, STORE_LEND, cmd->off, len, step_done);
	else if (keep && !cmd->allocated)
		nbd_io_submit(cmd, STORE_ALLOC, STORE_KEEP, cmd->off, len, step_done);
	else
		nbd_io_submit(
		    cmd, STORE_ZERO, fua(cmd) | (keep ? STORE_KEEP : 0), cmd->off, len, step_done);
}

static void start_steps(struct nbd_cmd *cmd)
{
	/* Reserving space may take as long as writing zeros: who wants it fast is told so. */
	if (cmd->request.flags & NBD_F_FAST_ZERO && cmd->request.flags & NBD_F_NO_HOLE) {
		nbd_cmd_answer(cmd, -ENOTSUP);
		return;
	}
	if (cmd->request.len == 0 || (cmd->request.type == NBD_C_CACHE && beyond_end(cmd))) {
		nbd_cmd_answer(cmd, cmd->request.len ? -EIO : 0);
		return;
	}
	if (cmd->request.type == NBD_C_CACHE && nbd_status_pull(cmd))
		return;
	cmd->allocated = false;
	cmd->task.run = step_task;
	step(cmd);
}

/* ---- FLUSH ---- */

static void flush_done(struct store_req *sreq, int err)
{
	nbd_cmd_answer(cmd_of(sreq), err);
}

/* ---- all of them ---- */

void nbd_io_start(struct nbd_cmd *cmd)
{
	switch (cmd->request.type) {
	case NBD_C_READ:
		start_read(cmd);
		break;
	case NBD_C_WRITE: /* of no bytes */
		nbd_cmd_answer(cmd, 0);
		break;
	case NBD_C_FLUSH:
		nbd_io_submit(cmd, STORE_FLUSH, 0, 0, 0, flush_done);
		break;
	case NBD_C_BLOCK_STATUS:
		nbd_status_start(cmd);
		break;
	default: /* TRIM, WRITE_ZEROES, CACHE */
		start_steps(cmd);
	}
}
