/* SPDX-License-Identifier: Apache-2.0
 *
 * The bytes under way in one direction (see tests/tools/proxy/flow.h).
 *
 * Bytes are kept in pipes, into which they are spliced from one socket and out of which to the other.  So
 * they are not copied, and a proxy costs a path little of what it measures: what a pipe holds are references
 * to the pages of the packets that came in.  A pipe is filled until it takes no more, then the next; one
 * that has run empty is used again.
 *
 * Invariants:
 *   1. A flow's bytes are those from out_pos to in_pos, in its pipes, in order.
 *   2. Marks are in order of due time and of position; the last mark's end is in_pos.
 *   3. out_pos <= ripe_pos <= in_pos: only ripe bytes leave, and ripe bytes never become unripe.
 *
 * Fails: a flow that can have no further pipe (descriptors, the system's bound on pages in pipes) is full
 * until bytes leave; a connection whose flows can't have their first is none.
 */
#include "tests/tools/proxy/flow.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
	PIPE_BYTES = 1024 * 1024, /* asked for: a slot for each 4096 of them */
	SPARE_PIPES = 64, /* empty pipes kept for reuse, all flows together */
};

struct flow_pipe {
	struct flow_pipe *next;
	int fds[2];
	uint64_t bytes;
};

/* The bytes up to end_pos that no mark before has fall due at due_ns. */
struct flow_mark {
	uint64_t due_ns;
	uint64_t end_pos;
};

static struct flow_pipe *spare;
static unsigned spare_count;

/* Memory for a test is there or the test is over. */
static void *alloc(size_t size)
{
	void *mem = calloc(1, size);

	if (!mem)
		abort();
	return mem;
}

/* pipe is empty, or its bytes are not wanted any more. */
static void pipe_put(struct flow_pipe *pipe)
{
	if (pipe->bytes > 0 || spare_count >= SPARE_PIPES) {
		close(pipe->fds[0]);
		close(pipe->fds[1]);
		free(pipe);
		return;
	}
	pipe->next = spare;
	spare = pipe;
	spare_count++;
}

/* NULL and errno: there is none. */
static struct flow_pipe *pipe_get(void)
{
	struct flow_pipe *pipe = spare;

	if (pipe) {
		spare = pipe->next;
		spare_count--;
		pipe->next = NULL;
		return pipe;
	}
	pipe = alloc(sizeof(*pipe));
	if (pipe2(pipe->fds, O_CLOEXEC | O_NONBLOCK) < 0) {
		free(pipe);
		return NULL;
	}
	/* A smaller one does as well. */
	(void)fcntl(pipe->fds[1], F_SETPIPE_SZ, PIPE_BYTES);
	return pipe;
}

void flow_fini(struct flow *flow)
{
	while (flow->head) {
		struct flow_pipe *pipe = flow->head;

		flow->head = pipe->next;
		pipe_put(pipe);
	}
	flow->tail = NULL;
	free(flow->marks);
	flow->marks = NULL;
}

bool flow_add_pipe(struct flow *flow)
{
	struct flow_pipe *pipe = pipe_get();

	if (!pipe)
		return false;
	if (flow->tail)
		flow->tail->next = pipe;
	else
		flow->head = pipe;
	flow->tail = pipe;
	return true;
}

ssize_t flow_take(struct flow *flow, int fd, size_t most)
{
	int waiting = 0;
	ssize_t got;

	for (;;) {
		got = splice(
		    fd, NULL, flow->tail->fds[1], NULL, most, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
		if (got > 0)
			flow->tail->bytes += (uint64_t)got;
		if (got >= 0 || errno != EAGAIN || flow->tail->bytes == 0)
			return got;
		/* Is it the socket that has nothing, or the pipe that has no room? */
		if (ioctl(fd, FIONREAD, &waiting) < 0 || waiting == 0) {
			errno = EAGAIN;
			return -1;
		}
		if (!flow_add_pipe(flow)) {
			flow->full = true;
			errno = EAGAIN;
			return -1;
		}
	}
}

static void grow_marks(struct flow *flow)
{
	uint32_t room = flow->mark_room ? flow->mark_room * 2 : 64;
	struct flow_mark *marks = alloc(room * sizeof(*marks));

	for (uint32_t i = 0; i < flow->mark_count; i++)
		marks[i] = flow->marks[(flow->mark_first + i) & (flow->mark_room - 1)];
	free(flow->marks);
	flow->marks = marks;
	flow->mark_room = room;
	flow->mark_first = 0;
}

void flow_put(struct flow *flow, size_t len, uint64_t due_ns)
{
	struct flow_mark *last = NULL;

	flow->in_pos += len;
	if (due_ns > flow->last_due_ns)
		flow->last_due_ns = due_ns;
	if (flow->mark_count > 0)
		last =
		    &flow->marks[(flow->mark_first + flow->mark_count - 1) & (flow->mark_room - 1)];
	if (last && last->due_ns == flow->last_due_ns) {
		last->end_pos = flow->in_pos;
		return;
	}
	if (flow->mark_count == flow->mark_room)
		grow_marks(flow);
	last = &flow->marks[(flow->mark_first + flow->mark_count++) & (flow->mark_room - 1)];
	*last = (struct flow_mark){.due_ns = flow->last_due_ns, .end_pos = flow->in_pos};
}

void flow_put_eof(struct flow *flow, uint64_t due_ns)
{
	if (due_ns > flow->last_due_ns)
		flow->last_due_ns = due_ns;
	flow->eof = true;
}

void flow_ripen(struct flow *flow, uint64_t now_ns)
{
	while (flow->mark_count > 0 && flow->marks[flow->mark_first].due_ns <= now_ns) {
		flow->ripe_pos = flow->marks[flow->mark_first].end_pos;
		flow->mark_first = (flow->mark_first + 1) & (flow->mark_room - 1);
		flow->mark_count--;
	}
}

bool flow_has_ripe(const struct flow *flow)
{
	return flow->ripe_pos > flow->out_pos;
}

ssize_t flow_give(struct flow *flow, int fd, uint64_t most)
{
	struct flow_pipe *pipe = flow->head;
	uint64_t ripe = flow->ripe_pos - flow->out_pos;
	size_t len = ripe < pipe->bytes ? (size_t)ripe : (size_t)pipe->bytes;
	unsigned flags = SPLICE_F_NONBLOCK | SPLICE_F_MOVE;
	ssize_t put;

	if (len > most)
		len = (size_t)most;
	else if (len < ripe)
		flags |= SPLICE_F_MORE;
	put = splice(pipe->fds[0], NULL, fd, NULL, len, flags);
	if (put <= 0)
		return put;
	pipe->bytes -= (uint64_t)put;
	flow->out_pos += (uint64_t)put;
	flow->full = false;
	if (pipe->bytes == 0 && pipe != flow->tail) {
		flow->head = pipe->next;
		pipe_put(pipe);
	}
	return put;
}

bool flow_only_eof_left(const struct flow *flow)
{
	return flow->eof && !flow->ended && flow->out_pos == flow->in_pos;
}

uint64_t flow_due_ns(const struct flow *flow)
{
	if (flow->mark_count > 0)
		return flow->marks[flow->mark_first].due_ns;
	return flow_only_eof_left(flow) ? flow->last_due_ns : UINT64_MAX;
}
