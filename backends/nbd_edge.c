/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests that begin or end within one of the server's blocks (its smallest block is larger than a byte).
 *
 * A request is cut into a head (the block in which it begins), a middle of whole blocks and a tail:
 *   READ         head and tail are read into a buffer of their own, from which the wanted bytes are copied
 *   WRITE, ZERO  head and tail are read, patched and written (stage JOB_EDGES); the middle goes at once
 * In a request that lies within one block the head is all.
 *
 * What makes read-modify-write right: between reading a block and writing it nobody else may write it, or
 * that write would be lost.  All writes of the export go through one loop, and one that cuts blocks has all
 * its blocks for itself: a writer that overlaps with one that cuts, or that cuts and overlaps with any
 * other, waits (blocked), in order.  Who else writes to the export is out of reach: with such a server
 * there must be nobody.
 *
 * Invariants:
 *   1. writers holds every WRITE and ZERO that has begun; of two that overlap in blocks none cuts.
 *   2. a blocked job conflicts with a writer or with a job that was blocked before it.
 *   3. job->edge is set exactly while the job cuts blocks and has begun.
 */
#include "backends/nbd_int.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool writes(const struct nbd_job *job)
{
	return job->req->op == STORE_WRITE || job->req->op == STORE_ZERO;
}

static uint64_t mask_of(const struct nbd_store *ns)
{
	return ns->features.align - 1;
}

static bool cuts(const struct nbd_store *ns, const struct nbd_job *job)
{
	return (job->req->off | job->req->len) & mask_of(ns);
}

static bool conflict(
    const struct nbd_store *ns, const struct nbd_job *job, const struct nbd_job *other)
{
	return (cuts(ns, job) || cuts(ns, other)) && job->lo < other->hi && other->lo < job->hi;
}

/* Whether job has to wait: for a writer, for one that waits already, or for a buffer. */
static bool must_wait(struct nbd_store *ns, const struct nbd_job *job)
{
	if (cuts(ns, job) && !ns->free_edges)
		return true;
	if (!writes(job))
		return false;
	for (const struct nbd_job *other = ns->writers; other; other = other->writer_next)
		if (conflict(ns, job, other))
			return true;
	for (const struct nbd_job *other = ns->blocked; other && other != job; other = other->next)
		if (writes(other) && conflict(ns, job, other))
			return true;
	return false;
}

static void begin(struct nbd_store *ns, struct nbd_job *job)
{
	const struct store_req *req = job->req;
	uint64_t mask = mask_of(ns), end = req->off + req->len;

	if (writes(job)) {
		job->writing = true;
		job->writer_prev = NULL;
		job->writer_next = ns->writers;
		if (ns->writers)
			ns->writers->writer_prev = job;
		ns->writers = job;
	}
	if (!cuts(ns, job))
		return;
	job->edge = ns->free_edges;
	ns->free_edges = job->edge->next;
	if (req->off & mask)
		job->edges |= EDGE_HEAD;
	if (end & mask && !(job->edges && job->hi - job->lo == mask + 1))
		job->edges |= EDGE_TAIL;
	job->pos = (req->off + mask) & ~mask;
	job->end = end & ~mask;
	if (job->pos > job->end)
		job->pos = job->end;
}

bool nbd_edge_begin(struct nbd_store *ns, struct nbd_job *job)
{
	uint64_t mask = mask_of(ns);

	if (job->req->op != STORE_READ && !writes(job))
		return true;
	job->lo = job->req->off & ~mask;
	job->hi = (job->req->off + job->req->len + mask) & ~mask;
	if (must_wait(ns, job)) {
		job->blocked = true;
		job->next = NULL;
		*ns->blocked_tail = job;
		ns->blocked_tail = &job->next;
		return false;
	}
	begin(ns, job);
	return true;
}

/* Which of the two blocks; where its bytes are in the edge's buffer. */
static uint64_t edge_off(const struct nbd_store *ns, const struct nbd_job *job, unsigned which)
{
	return which == EDGE_HEAD ? job->lo : job->hi - ns->features.align;
}

static uint8_t *edge_buf(const struct nbd_store *ns, const struct nbd_job *job, unsigned which)
{
	return job->edge->buf + (which == EDGE_HEAD ? 0 : ns->features.align);
}

void nbd_edge_cmd(struct nbd_store *ns, struct nbd_job *job, struct nbd_cmd *cmd)
{
	unsigned which = job->edges & EDGE_HEAD ? EDGE_HEAD : EDGE_TAIL;

	job->edges &= ~which;
	cmd->op = job->stage == JOB_EDGES ? STORE_WRITE : STORE_READ;
	cmd->off = edge_off(ns, job, which);
	cmd->len = ns->features.align;
	cmd->buf = edge_buf(ns, job, which);
}

/* Copies between the request and a block that it cuts. */
static void patch(struct nbd_store *ns, struct nbd_job *job, unsigned which)
{
	struct store_req *req = job->req;
	uint64_t block = edge_off(ns, job, which), end = block + ns->features.align;
	uint64_t from = req->off > block ? req->off : block;
	uint64_t to = req->off + req->len < end ? req->off + req->len : end;
	uint8_t *bytes = edge_buf(ns, job, which) + (from - block);
	uint8_t *user = (uint8_t *)req->buf + (from - req->off);

	if (req->op == STORE_READ)
		memcpy(user, bytes, to - from);
	else if (req->op == STORE_WRITE)
		memcpy(bytes, user, to - from);
	else
		memset(bytes, 0, to - from);
}

bool nbd_edge_patch(struct nbd_store *ns, struct nbd_job *job)
{
	const struct store_req *req = job->req;
	bool head = req->off & mask_of(ns), one = job->hi - job->lo == ns->features.align;
	bool tail = (req->off + req->len) & mask_of(ns) && !(head && one);

	if (head)
		patch(ns, job, EDGE_HEAD);
	if (tail)
		patch(ns, job, EDGE_TAIL);
	if (!writes(job))
		return false;
	job->edges = (head ? EDGE_HEAD : 0) | (tail ? EDGE_TAIL : 0);
	return true;
}

/* Those that waited for what has ended. */
static void unblock(struct nbd_store *ns)
{
	struct nbd_job *job = ns->blocked;

	while (job) {
		struct nbd_job *next = job->next;

		if (!must_wait(ns, job)) {
			nbd_edge_unblock(ns, job);
			begin(ns, job);
			nbd_job_ready(ns, job);
		}
		job = next;
	}
}

void nbd_edge_unblock(struct nbd_store *ns, struct nbd_job *job)
{
	struct nbd_job **at = &ns->blocked;

	while (*at != job)
		at = &(*at)->next;
	*at = job->next;
	if (!*at)
		ns->blocked_tail = at;
	job->blocked = false;
}

void nbd_edge_end(struct nbd_store *ns, struct nbd_job *job)
{
	if (job->writing) {
		*(job->writer_prev ? &job->writer_prev->writer_next : &ns->writers) =
		    job->writer_next;
		if (job->writer_next)
			job->writer_next->writer_prev = job->writer_prev;
		job->writing = false;
	}
	if (job->edge) {
		job->edge->next = ns->free_edges;
		ns->free_edges = job->edge;
		job->edge = NULL;
	}
	if (ns->blocked)
		unblock(ns);
}

int nbd_edge_init(struct nbd_store *ns)
{
	size_t room = 2 * (size_t)ns->features.align;

	if (ns->features.align == 1)
		return 0;
	ns->edges = calloc(NBD_EDGES, sizeof(ns->edges[0]));
	ns->edge_mem = malloc(NBD_EDGES * room);
	if (!ns->edges || !ns->edge_mem)
		return -ENOMEM;
	memset(ns->edge_mem, 0, NBD_EDGES * room);
	for (unsigned i = 0; i < NBD_EDGES; i++) {
		ns->edges[i].buf = ns->edge_mem + i * room;
		ns->edges[i].next = ns->free_edges;
		ns->free_edges = &ns->edges[i];
	}
	return 0;
}

void nbd_edge_fini(struct nbd_store *ns)
{
	free(ns->edges);
	free(ns->edge_mem);
}
