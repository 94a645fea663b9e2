/* SPDX-License-Identifier: Apache-2.0
 *
 * The bytes under way in one direction of a proxied connection: a queue of bytes, each of which falls
 * due at a time.  No descriptors, no clock of its own: proxy.c moves bytes in and out.
 *
 * Bytes are kept in segments that are filled to the end before the next is taken, so that a flow of
 * small messages costs the memory of its bytes and not a buffer per message.
 *
 * Invariants:
 *   1. A flow's bytes are those from out_pos to in_pos, in its segments, in order.
 *   2. Marks are in order of due time and of position; the last mark's end is in_pos.
 *   3. out_pos <= ripe_pos <= in_pos: only ripe bytes leave, and ripe bytes never become unripe.
 */
#ifndef REMRAM_TESTS_TOOLS_FLOW_H
#define REMRAM_TESTS_TOOLS_FLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum {
	FLOW_SEGMENT_BYTES = 256 * 1024,
	FLOW_SPARE_SEGMENTS = 256, /* freed segments kept for reuse, all flows together */
};

struct flow_segment {
	struct flow_segment *next;
	uint32_t start, end;
	unsigned char data[FLOW_SEGMENT_BYTES];
};

struct flow_mark {
	uint64_t due_ns;
	uint64_t end_pos;
};

/* Zeroed memory is an empty flow. */
struct flow {
	struct flow_segment *head, *tail;
	struct flow_mark *marks; /* ring of mark_room (a power of two) */
	uint32_t mark_room, mark_first, mark_count;
	uint64_t in_pos, out_pos, ripe_pos;
	uint64_t last_due_ns;
	bool eof; /* the source has ended; its end is due at last_due_ns */
	bool ended; /* and the destination has been told */
	bool blocked; /* the destination took less than was ripe */
};

static struct flow_segment *flow_spare;
static unsigned flow_spare_count;

/* Memory for a test is there or the test is over. */
static inline void *flow_alloc(size_t size)
{
	void *mem = calloc(1, size);

	if (!mem)
		abort();
	return mem;
}

static inline void flow_segment_put(struct flow_segment *seg)
{
	if (flow_spare_count >= FLOW_SPARE_SEGMENTS) {
		free(seg);
		return;
	}
	seg->next = flow_spare;
	flow_spare = seg;
	flow_spare_count++;
}

static inline void flow_fini(struct flow *flow)
{
	while (flow->head) {
		struct flow_segment *seg = flow->head;

		flow->head = seg->next;
		flow_segment_put(seg);
	}
	flow->tail = NULL;
	free(flow->marks);
	flow->marks = NULL;
}

/* Where to put the next bytes; *ret_room (never 0) is how many fit there. */
static inline unsigned char *flow_room(struct flow *flow, size_t *ret_room)
{
	struct flow_segment *seg = flow->tail;

	if (!seg || seg->end == FLOW_SEGMENT_BYTES) {
		seg = flow_spare;
		if (seg) {
			flow_spare = seg->next;
			flow_spare_count--;
			seg->next = NULL;
			seg->start = seg->end = 0;
		} else {
			seg = flow_alloc(sizeof(*seg));
		}
		if (flow->tail)
			flow->tail->next = seg;
		else
			flow->head = seg;
		flow->tail = seg;
	}
	*ret_room = FLOW_SEGMENT_BYTES - seg->end;
	return seg->data + seg->end;
}

static inline void flow_grow_marks(struct flow *flow)
{
	uint32_t room = flow->mark_room ? flow->mark_room * 2 : 64;
	struct flow_mark *marks = flow_alloc(room * sizeof(*marks));

	for (uint32_t i = 0; i < flow->mark_count; i++)
		marks[i] = flow->marks[(flow->mark_first + i) & (flow->mark_room - 1)];
	free(flow->marks);
	flow->marks = marks;
	flow->mark_room = room;
	flow->mark_first = 0;
}

/* Adds the len bytes that have been put where flow_room said.  They fall due at due_ns, but never
 * before bytes that are ahead of them. */
static inline void flow_put(struct flow *flow, size_t len, uint64_t due_ns)
{
	struct flow_mark *last = NULL;

	flow->tail->end += (uint32_t)len;
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
		flow_grow_marks(flow);
	last = &flow->marks[(flow->mark_first + flow->mark_count++) & (flow->mark_room - 1)];
	*last = (struct flow_mark){.due_ns = flow->last_due_ns, .end_pos = flow->in_pos};
}

/* The source has ended; the destination learns it at due_ns, after the last byte. */
static inline void flow_put_eof(struct flow *flow, uint64_t due_ns)
{
	if (due_ns > flow->last_due_ns)
		flow->last_due_ns = due_ns;
	flow->eof = true;
}

static inline void flow_ripen(struct flow *flow, uint64_t now_ns)
{
	while (flow->mark_count > 0 && flow->marks[flow->mark_first].due_ns <= now_ns) {
		flow->ripe_pos = flow->marks[flow->mark_first].end_pos;
		flow->mark_first = (flow->mark_first + 1) & (flow->mark_room - 1);
		flow->mark_count--;
	}
}

/* The first ripe bytes; *ret_len is 0 if there are none. */
static inline const unsigned char *flow_peek(const struct flow *flow, size_t *ret_len)
{
	size_t ripe = (size_t)(flow->ripe_pos - flow->out_pos), here;

	*ret_len = 0;
	if (ripe == 0)
		return NULL;
	here = flow->head->end - flow->head->start;
	*ret_len = ripe < here ? ripe : here;
	return flow->head->data + flow->head->start;
}

/* Removes len bytes, at most what flow_peek offered. */
static inline void flow_consume(struct flow *flow, size_t len)
{
	struct flow_segment *seg = flow->head;

	seg->start += (uint32_t)len;
	flow->out_pos += len;
	if (seg->start < seg->end)
		return;
	if (seg == flow->tail) {
		seg->start = seg->end = 0;
		return;
	}
	flow->head = seg->next;
	flow_segment_put(seg);
}

/* True if everything is out but the end of file. */
static inline bool flow_only_eof_left(const struct flow *flow)
{
	return flow->eof && !flow->ended && flow->out_pos == flow->in_pos;
}

/* When the flow changes by itself; UINT64_MAX: never. */
static inline uint64_t flow_due_ns(const struct flow *flow)
{
	if (flow->mark_count > 0)
		return flow->marks[flow->mark_first].due_ns;
	return flow_only_eof_left(flow) ? flow->last_due_ns : UINT64_MAX;
}

#endif
