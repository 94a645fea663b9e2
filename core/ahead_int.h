/* SPDX-License-Identifier: Apache-2.0
 *
 * What ahead.c (the pool and its handles) and ahead_read.c (streams and segments) share.
 */
#ifndef REMRAM_CORE_AHEAD_INT_H
#define REMRAM_CORE_AHEAD_INT_H

#include "core/ahead.h"
#include "core/bufpool.h"

enum {
	AHEAD_SEGMENTS = AHEAD_MEMORY / AHEAD_SEGMENT,
	AHEAD_STREAMS = 8,
};

enum segment_state {
	SEGMENT_FREE,
	SEGMENT_COMING, /* its READ is in flight */
	SEGMENT_OLD, /* so it is, and the bytes have changed since: they are for nobody */
	SEGMENT_READY,
};

struct segment {
	enum segment_state state;
	struct ahead_handle *ah; /* whose READ is in flight */
	uint64_t region, off; /* AHEAD_SEGMENT bytes from off */
	uint64_t ready_ns;
	bool used;
	unsigned ended; /* how often its READ has ended */
	uint8_t *buf;
	struct store_req req;
	struct store_req *waiting, **waiting_tail; /* requests that came before their bytes */
};

/* Somebody who reads in order. */
struct stream {
	uint64_t region; /* 0: nobody */
	uint64_t next; /* where the next request is expected */
	uint64_t ahead; /* where what has been read ahead ends */
	uint64_t touched; /* ahead->clock at its last request */
	unsigned run; /* requests in order so far */
	unsigned distance; /* segments to be ahead of next */
};

struct asking; /* ahead.c */

struct ahead {
	struct pool pool;
	struct pool *lower;
	struct asking *asking;
	struct ahead_handle *handles;
	struct bufpool *bufs;
	struct segment segments[AHEAD_SEGMENTS];
	struct stream streams[AHEAD_STREAMS];
	uint64_t clock; /* counts requests */
	struct ahead_stats stats;
};

/* A handle that holds its region's lease: all that writes goes through one. */
struct ahead_handle {
	struct handle handle;
	struct ahead_handle *next; /* of ahead->handles */
	struct handle *lower;
	struct ahead *ahead;
	unsigned coming; /* segments whose READ is in flight through it */
	struct pool_req *closing; /* waits for them */
	bool lost; /* the lease: it reads ahead no more */
};

/* ahead_read.c */

extern const struct store_ops ahead_store_ops;

/* What is here of the range is old. */
void ahead_forget(struct ahead *ahead, uint64_t region, uint64_t off, uint64_t len);
/* Ends early, as far as they can, the READs through a handle that is being closed. */
void ahead_interrupt(struct ahead_handle *ah);

/* ahead.c */

/* The last READ through a handle that is being closed has ended. */
void ahead_left(struct ahead_handle *ah);
/* Somebody else has the region's lease: its handles read ahead no more. */
void ahead_lost(struct ahead *ahead, uint64_t region);

#endif
