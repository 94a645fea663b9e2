/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading ahead: requests, streams and segments.
 *
 * A READ that begins where an earlier one ended (or leaves out no more than its own length) belongs to that
 * one's stream.  After RUN_MIN of them segments are asked for, until the stream has `distance` of them before it;
 * when less than half of that is left it goes on.  A READ whose bytes are all in segments is answered from them:
 * at once, or when the last of them comes.  A segment that has been read to its end is free again; when none is,
 * the stream that has not been heard of for longest loses one.
 *
 *   FREE → (asked for) COMING → READY → (read, forgotten, taken) FREE
 *   COMING → (its bytes change) OLD → FREE
 *
 * What changes bytes makes segments old when it has ended: before that a READ may see either.
 *
 * Invariant: only a COMING or OLD segment has requests waiting; when it ends they are served anew, or go down.
 */
#include "core/ahead_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/loop.h"

enum {
	RUN_MIN = 3,
	DISTANCE_START = 2,
	DISTANCE_MAX = AHEAD_SEGMENTS / 2,
};

static struct ahead_handle *handle_of(const struct store_req *req)
{
	return (struct ahead_handle *)req->at;
}

static uint64_t segment_end(const struct segment *seg)
{
	return seg->off + AHEAD_SEGMENT;
}

static void free_segment(struct ahead *ahead, struct segment *seg)
{
	if (!seg->used)
		ahead->stats.unused_bytes += AHEAD_SEGMENT;
	seg->state = SEGMENT_FREE;
}

/* The segment that has, or will have, the byte at off; NULL: none. */
static struct segment *find(struct ahead *ahead, uint64_t region, uint64_t off)
{
	for (unsigned i = 0; i < AHEAD_SEGMENTS; i++) {
		struct segment *seg = &ahead->segments[i];

		if ((seg->state == SEGMENT_COMING || seg->state == SEGMENT_READY) &&
		    seg->region == region && off - seg->off < AHEAD_SEGMENT)
			return seg;
	}
	return NULL;
}

void ahead_forget(struct ahead *ahead, uint64_t region, uint64_t off, uint64_t len)
{
	for (unsigned i = 0; i < AHEAD_SEGMENTS; i++) {
		struct segment *seg = &ahead->segments[i];

		if (seg->state == SEGMENT_FREE || seg->region != region ||
		    segment_end(seg) <= off || (seg->off >= off && seg->off - off >= len))
			continue;
		if (seg->state == SEGMENT_READY)
			free_segment(ahead, seg);
		else
			seg->state = SEGMENT_OLD;
	}
	for (unsigned i = 0; i < AHEAD_STREAMS; i++)
		if (ahead->streams[i].region == region)
			ahead->streams[i].ahead = ahead->streams[i].next;
}

void ahead_interrupt(struct ahead_handle *ah)
{
	for (unsigned i = 0; i < AHEAD_SEGMENTS; i++) {
		struct segment *seg = &ah->ahead->segments[i];

		if ((seg->state == SEGMENT_COMING || seg->state == SEGMENT_OLD) && seg->ah == ah)
			store_interrupt(&seg->req);
	}
}

/* ---- streams ---- */

/* The stream that the request belongs to; perhaps a new one, in place of the oldest. */
static struct stream *stream_of(struct ahead *ahead, uint64_t region, const struct store_req *req)
{
	struct stream *oldest = &ahead->streams[0], *stream;

	for (unsigned i = 0; i < AHEAD_STREAMS; i++) {
		stream = &ahead->streams[i];
		if (stream->region == region && req->off >= stream->next &&
		    req->off - stream->next <= req->len) {
			stream->run++;
			goto found;
		}
		if (stream->touched < oldest->touched)
			oldest = stream;
	}
	stream = oldest;
	stream->region = region;
	stream->run = 1;
	stream->distance = DISTANCE_START;
	stream->ahead = 0;
found:
	stream->next = req->off + req->len;
	stream->touched = ahead->clock;
	return stream;
}

/* ---- segments ---- */

/* When the last of those who are about to read the segment was heard of; 0: there is none. */
static uint64_t awaited(const struct ahead *ahead, const struct segment *seg)
{
	uint64_t latest = 0;

	for (unsigned i = 0; i < AHEAD_STREAMS; i++) {
		const struct stream *stream = &ahead->streams[i];

		if (stream->region == seg->region && segment_end(seg) > stream->next &&
		    seg->off < stream->ahead && stream->touched > latest)
			latest = stream->touched;
	}
	return latest;
}

/* A segment to fill for the stream: a free one, or one of the stream that has not been heard of for longest;
 * NULL: all are its own, or coming. */
static struct segment *take(struct ahead *ahead, const struct stream *stream)
{
	struct segment *oldest = NULL;
	uint64_t oldest_awaited = stream->touched;

	for (unsigned i = 0; i < AHEAD_SEGMENTS; i++) {
		struct segment *seg = &ahead->segments[i];

		if (seg->state == SEGMENT_FREE)
			return seg;
		if (seg->state == SEGMENT_READY && awaited(ahead, seg) < oldest_awaited) {
			oldest = seg;
			oldest_awaited = awaited(ahead, seg);
		}
	}
	if (oldest)
		free_segment(ahead, oldest);
	return oldest;
}

static void serve(struct ahead_handle *ah, struct store_req *req);

static void segment_done(struct store_req *sreq, int err)
{
	struct segment *seg = (struct segment *)((char *)sreq - offsetof(struct segment, req));
	struct store_req *waiting = seg->waiting;
	struct ahead_handle *ah = seg->ah;

	seg->waiting = NULL;
	seg->ended++;
	if (err || seg->state == SEGMENT_OLD) {
		seg->used = true; /* nothing came of it: it is not what `unused_bytes` counts */
		free_segment(ah->ahead, seg);
	} else {
		seg->state = SEGMENT_READY;
		seg->ready_ns = loop_now_ns();
		ah->ahead->stats.bytes += AHEAD_SEGMENT;
	}
	while (waiting) {
		struct store_req *req = waiting;

		waiting = req->next;
		serve(handle_of(req), req);
	}
	ah->coming--;
	if (ah->closing && ah->coming == 0)
		ahead_left(ah);
}

static void fill(struct ahead_handle *ah, struct segment *seg, uint64_t off)
{
	seg->state = SEGMENT_COMING;
	seg->ah = ah;
	seg->region = ah->handle.region_id;
	seg->off = off;
	seg->used = false;
	seg->waiting_tail = &seg->waiting;
	seg->req.op = STORE_READ;
	seg->req.flags = 0;
	seg->req.off = off;
	seg->req.len = AHEAD_SEGMENT;
	seg->req.buf = seg->buf;
	seg->req.done = segment_done;
	ah->coming++;
	store_submit(&ah->lower->store, &seg->req);
}

/* Reads on until the stream has its distance. */
static void read_on(struct ahead_handle *ah, struct stream *stream)
{
	struct ahead *ahead = ah->ahead;
	uint64_t distance = (uint64_t)stream->distance * AHEAD_SEGMENT;
	uint64_t region = stream->region, next = stream->next;
	struct segment *seg;

	if (stream->ahead < next)
		stream->ahead = next;
	if (stream->ahead - next >= distance / 2)
		return;
	/* A store that answers at once may have changed the stream in between. */
	while (
	    stream->region == region && stream->next == next && stream->ahead - next < distance) {
		uint64_t off = stream->ahead;

		seg = find(ahead, region, off);
		if (seg) {
			stream->ahead = segment_end(seg);
			continue;
		}
		if (ah->lower->store.size < AHEAD_SEGMENT ||
		    off > ah->lower->store.size - AHEAD_SEGMENT)
			return;
		seg = take(ahead, stream);
		if (!seg)
			return;
		stream->ahead = off + AHEAD_SEGMENT;
		fill(ah, seg, off);
	}
}

/* ---- requests ---- */

/* A segment that is not believed any more is none. */
static struct segment *find_fresh(struct ahead *ahead, uint64_t region, uint64_t off, uint64_t now)
{
	struct segment *seg = find(ahead, region, off);

	if (seg && seg->state == SEGMENT_READY &&
	    now - seg->ready_ns > AHEAD_FRESH_MS * UINT64_C(1000000)) {
		free_segment(ahead, seg);
		seg = NULL;
	}
	return seg;
}

static void wait_for(struct segment *seg, struct store_req *req)
{
	req->next = NULL;
	*seg->waiting_tail = req;
	seg->waiting_tail = &req->next;
}

/* It has been read up to `end`. */
static void used(struct segment *seg, uint64_t end)
{
	seg->used = true;
	if (end == segment_end(seg))
		seg->state = SEGMENT_FREE;
}

/* Fills the request from segments that are all here. */
static void copy(struct ahead *ahead, uint64_t region, struct store_req *req)
{
	uint64_t end = req->off + req->len, stop;
	uint8_t *to = req->buf;

	for (uint64_t at = req->off; at < end; at = stop) {
		struct segment *seg = find(ahead, region, at);

		stop = end < segment_end(seg) ? end : segment_end(seg);
		memcpy(to, seg->buf + (at - seg->off), stop - at);
		to += stop - at;
		used(seg, stop);
	}
}

static void answer(struct ahead *ahead, uint64_t region, struct store_req *req)
{
	uint64_t end = req->off + req->len;
	struct segment *seg = find(ahead, region, req->off);

	ahead->stats.hits++;
	if (req->flags & STORE_BRIEF && end <= segment_end(seg)) {
		req->buf = seg->buf + (req->off - seg->off);
		used(seg, end);
	} else {
		copy(ahead, region, req);
	}
	store_complete(req, 0);
}

/* From segments, now or when they come; or from below. */
static void serve(struct ahead_handle *ah, struct store_req *req)
{
	struct ahead *ahead = ah->ahead;
	uint64_t region = ah->handle.region_id, end = req->off + req->len;
	uint64_t now = loop_now_ns();
	struct segment *seg;

	for (uint64_t at = req->off; at < end; at = segment_end(seg)) {
		seg = find_fresh(ahead, region, at, now);
		if (!seg) {
			store_forward(&ah->lower->store, req);
			return;
		}
		if (seg->state == SEGMENT_COMING) {
			wait_for(seg, req);
			return;
		}
	}
	answer(ahead, region, req);
}

static void read_ahead(struct ahead_handle *ah, struct store_req *req)
{
	struct ahead *ahead = ah->ahead;
	uint64_t region = ah->handle.region_id, end = req->off + req->len;
	struct stream *stream;
	struct segment *seg;

	ahead->clock++;
	stream = stream_of(ahead, region, req);
	if (stream->run < RUN_MIN) {
		store_forward(&ah->lower->store, req);
		return;
	}
	seg = find(ahead, region, req->off);
	if (seg && seg->state == SEGMENT_COMING) {
		ahead->stats.waits++;
		if (stream->distance < DISTANCE_MAX)
			stream->distance *= 2;
	}
	serve(ah, req);
	/* Its done may have brought the next one already. */
	if (stream->region == region && stream->next == end)
		read_on(ah, stream);
}

static void changed(struct store_req *req, int err)
{
	struct ahead_handle *ah = store_pop(req);

	if (err == -ENOLCK)
		ahead_lost(ah->ahead, ah->handle.region_id);
	ahead_forget(ah->ahead, ah->handle.region_id, req->off, req->len);
	store_complete(req, err);
}

static void ahead_submit(struct store *store, struct store_req *req)
{
	struct ahead_handle *ah = handle_of(req);

	switch (req->op) {
	case STORE_READ:
		if (req->len <= AHEAD_READ_MAX && !ah->lost) {
			read_ahead(ah, req);
			return;
		}
		break;
	case STORE_WRITE:
	case STORE_ZERO:
		store_push(req, changed, ah);
		break;
	default:
		break;
	}
	store_forward(&ah->lower->store, req);
}

/* It no longer waits for its segment; false: it did not. */
static bool stop_waiting(struct segment *seg, const struct store_req *req)
{
	struct store_req **link = &seg->waiting;

	while (*link && *link != req)
		link = &(*link)->next;
	if (!*link)
		return false;
	*link = req->next;
	if (!*link)
		seg->waiting_tail = link;
	return true;
}

/* Who waits for a segment is interrupted if the segment's own request can be: the donor is away. */
static void interrupt_waiting(struct segment *seg, struct store_req *req)
{
	unsigned ended = seg->ended;

	store_interrupt(&seg->req);
	if (seg->ended == ended)
		wait_for(seg, req);
	else
		store_complete(req, -EINTR);
}

static void ahead_store_interrupt(struct store *store, struct store_req *req)
{
	struct ahead_handle *ah = (struct ahead_handle *)store;

	for (unsigned i = 0; i < AHEAD_SEGMENTS; i++) {
		struct segment *seg = &ah->ahead->segments[i];

		if ((seg->state == SEGMENT_COMING || seg->state == SEGMENT_OLD) &&
		    stop_waiting(seg, req)) {
			interrupt_waiting(seg, req);
			return;
		}
	}
	store_lower_interrupt(&ah->lower->store, req);
}

static int ahead_store_stat(struct store *store, struct store_stat *ret_stat)
{
	return store_stat(&((struct ahead_handle *)store)->lower->store, ret_stat);
}

static void ahead_store_destroy(struct store *store)
{
	free(store);
}

const struct store_ops ahead_store_ops = {
    .name = "ahead",
    .submit = ahead_submit,
    .interrupt = ahead_store_interrupt,
    .stat = ahead_store_stat,
    .destroy = ahead_store_destroy,
};
