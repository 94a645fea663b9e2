/* SPDX-License-Identifier: Apache-2.0
 *
 * The store contract: anything that serves requests on an array of bytes.
 *
 * A *backend* is a store with nothing below it, a *layer* one with a lower store.  Everyone above
 * uses only the store_* functions here; they are the one place that calls store_ops, asserts the
 * contract and counts.  Each numbered rule has a test in tests/contract.
 *
 *  1. store_submit returns nothing.  The outcome comes exactly once through req->done(req, err), err
 *     0 or -errno.  There is no second error channel.
 *  2. done may run inside store_submit (memory, a cache hit) or later from the loop that submitted.
 *     Whoever starts more work from done must not recurse without bound.
 *  3. No lock is held while calling submit, complete or done.
 *  4. The caller owns request and buffer; the store touches them only between submit and done.
 *  5. Ranges lie within store->size, READ and WRITE lengths are 1 … store->max_len, offsets and
 *     lengths are multiples of store->align.  store_submit asserts it; implementations do not check
 *     again.
 *  6. Bytes never written read as zeros.  All of a request happens, or it ends in an error; after
 *     an error the range of a WRITE or ZERO has undefined contents, nothing outside it changes.
 *  7. FLUSH makes stable every write that completed before it was submitted.  Overlapping requests
 *     that are in flight together have no order.
 *  8. The data path allocates nothing.
 *  9. Requests are not cancelled.  The exception is store_interrupt: a request that waits for a peer
 *     that may never come back ends early with -EINTR.  store_destroy asserts that nothing is in
 *     flight.
 * 10. Only store_* functions call members of store_ops.
 *
 * Threads: a request is submitted on a loop thread and its done runs on the same thread.  Several
 * loops may use one store at once where the implementation says so (memory, file); a store that
 * belongs to one loop (peer) says that.
 */
#ifndef REMRAM_CORE_STORE_H
#define REMRAM_CORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/hist.h"

enum {
	STORE_BLOCK = 4096, /* the unit of allocation and of state, in bytes */
	STORE_LEN_MAX = 1 << 20, /* longest READ or WRITE that any store takes, in bytes */
	STORE_DEPTH = 4, /* layers that may hook one request's completion */
};

enum store_op {
	STORE_READ, /* fill buf with [off, off+len) */
	STORE_WRITE, /* buf → [off, off+len) */
	STORE_ZERO, /* [off, off+len) reads as zeros afterwards; gives the space back */
	STORE_ALLOC, /* reserve space for [off, off+len): later writes there do not fail with ENOSPC;
			contents do not change */
	STORE_FLUSH, /* off = len = 0 */
	STORE_EXTENTS, /* what of [off, off+len) is allocated → extents[] */
	STORE_RESIZE, /* off = the new logical size: bytes beyond it are given back and read as zeros */
	STORE_OPS
};

enum store_flag {
	STORE_FUA = 1, /* WRITE, ZERO: stable before done */
	STORE_BACKGROUND = 2, /* nobody waits for this: serve others first */
	STORE_KEEP =
	    4, /* ZERO: blocks that are allocated stay reserved; ALLOC through a region's handle:
			   the region does not become longer */
	STORE_LEND =
	    8, /* READ: instead of filling buf the store may point buf at memory of its own, see
			   ret_lent; or at store_zeros, for ever valid, when the whole range is a hole */
	STORE_PIPE =
	    16, /* READ: instead of filling buf the store may give a pipe, see ret_pipe; not
			    beneath a layer that hooks the completion */
	STORE_BRIEF =
	    32, /* READ: instead of filling buf the store may point buf at memory that is valid until
			     done returns; not beneath a layer that hooks the completion */
};

/* STORE_LEN_MAX bytes of zeros, never written. */
extern const uint8_t store_zeros[STORE_LEN_MAX];

enum extent_flag { EXTENT_HOLE = 1 /* not allocated, reads as zeros */ };

struct extent {
	uint64_t off; /* bytes */
	uint64_t len; /* bytes, > 0 */
	uint32_t flags;
};

struct store_req;
typedef void store_done_fn(struct store_req *req, int err);

struct store_req {
	/* Set by the caller before submit. */
	enum store_op op;
	unsigned flags; /* of enum store_flag */
	uint64_t off; /* bytes */
	uint64_t len; /* bytes; READ and WRITE at most store->max_len */
	void *
	    buf; /* READ: at least len bytes (with STORE_LEND too); WRITE: len bytes, not changed */
	struct extent *extents; /* EXTENTS: room for extents_max ≥ 1 answers */
	unsigned extents_max;
	store_done_fn *done;

	/* Results, valid in done when err is 0. */
	bool
	    ret_lent; /* READ with STORE_LEND: buf is the store's memory: whoever is done with it calls
			  store_unlend (its contents may change until then, as on any disk) */
	int ret_pipe; /* READ with STORE_PIPE: -1, or the read end of a pipe whose whole content is the bytes,
			 and buf's contents are undefined: done takes them out before it returns */
	unsigned ret_extents; /* EXTENTS: how many, ≥ 1: contiguous from off, neighbours differ in
				 flags; they may end before off+len if the room was too small */

	/* For the store that has the request now. */
	struct store_req *next; /* its queue */
	uint64_t start_ns; /* when store_submit took it */
	struct store *store; /* whom store_submit was given; NULL when not in flight */
	struct store *at; /* who has it now: store, or one below it (store_forward) */
	struct {
		store_done_fn *done;
		void *ctx;
	} stack[STORE_DEPTH]; /* see store_push */
	unsigned depth;
};

struct store_stat {
	uint64_t size; /* logical size in bytes as the backend knows it (a file's length) */
	uint64_t allocated; /* bytes that take up space */
	int64_t mtime_ns; /* when the bytes last changed, since the epoch; 0: not known */
};

struct store_ops {
	const char *name; /* "memory", "file", "peer", … */
	/* Serves req: store_complete(req, err) now or later.  Gets only requests that keep rule 5. */
	void (*submit)(struct store *store, struct store_req *req);
	/* Optional: rule 9. req is in flight here; ends it early if it only waits for a lost peer. */
	void (*interrupt)(struct store *store, struct store_req *req);
	/* Optional, both or none: store_lend, store_unlend. */
	void *(*lend)(struct store *store, uint64_t off, uint32_t len);
	void (*unlend)(struct store *store, uint64_t off, uint32_t len);
	/* Optional (NULL: everything is allocated).  Never blocks on a device for long. */
	int (*stat)(struct store *store, struct store_stat *ret_stat);
	/* Nothing is in flight.  Frees store.  May block. */
	void (*destroy)(struct store *store);
};

/* Counters of one or many stores: written by their loops, read by anybody. */
struct store_stats {
	_Atomic uint64_t requests[STORE_OPS];
	_Atomic uint64_t bytes[STORE_OPS];
	_Atomic uint64_t errors[STORE_OPS];
	struct hist latency[STORE_OPS]; /* nanoseconds from submit to done */
};

/* Embedded as the first member of each implementation's struct. */
struct store {
	/* Constant after create. */
	const struct store_ops *ops;
	uint64_t size; /* bytes: requests end at or before it; a growing region's upper limit */
	uint32_t align; /* bytes, a power of two: 1 where every byte can be addressed */
	uint32_t max_len; /* bytes, ≤ STORE_LEN_MAX */
	struct store_stats *stats; /* borrowed, may be shared; NULL: not counted */
	/* Atomic. */
	_Atomic uint32_t in_flight;
};

/* Fills the common part: align 1, max_len STORE_LEN_MAX, no stats. */
void store_init(struct store *store, const struct store_ops *ops, uint64_t size);

/* Asserts rule 5, counts, and hands req to the store. */
void store_submit(struct store *store, struct store_req *req);

/* Called by the implementation that ends req: unwinds one hook (store_push), or counts and calls
 * req->done.  req may be gone afterwards. */
void store_complete(struct store_req *req, int err);

/* For layers: hands a request that this store was given to a lower one, as it is. */
void store_forward(struct store *lower, struct store_req *req);

/* For layers, before store_forward: hook(req, err) runs in place of the completion, finds ctx with
 * store_pop, and ends the request itself (store_complete) or sends it down again. */
void store_push(struct store_req *req, store_done_fn *hook, void *ctx);
void *store_pop(struct store_req *req);

void store_interrupt(struct store_req *req);

/* Memory of the store's own that is the bytes [off, off+len), or NULL: whoever is about to submit a WRITE
 * of that range may receive its data straight into it and then submit the WRITE with buf pointing
 * there: nothing is copied.  If the WRITE is never submitted the bytes are undefined, as after one that
 * failed.  The range must be one that a WRITE could have. */
void *store_lend(struct store *store, uint64_t off, uint32_t len);

/* Ends a loan: of store_lend, after the WRITE's done or instead of the WRITE; or of a READ with ret_lent.
 * A loan counts as in flight: the store is not destroyed before. */
void store_unlend(struct store *store, uint64_t off, uint32_t len);

/* For layers: the same of a lower store, not counted. */
void *store_lower_lend(struct store *lower, uint64_t off, uint32_t len);
void store_lower_unlend(struct store *lower, uint64_t off, uint32_t len);

/* For layers: interrupts a request that was forwarded to lower. */
void store_lower_interrupt(struct store *lower, struct store_req *req);

int store_stat(struct store *store, struct store_stat *ret_stat);

/* Asserts that nothing is in flight.  NULL does nothing. */
void store_destroy(struct store *store);

/* "read", "write", … for messages and status. */
const char *store_op_name(enum store_op op);

#endif
