/* SPDX-License-Identifier: Apache-2.0
 *
 * A cache on simulated time for tests of one promise each: a cache_rig on a sim, and what such tests do again
 * and again.  One at a time: `stage`.
 *
 * Everything asserts (libcheck).
 */
#ifndef REMRAM_TESTS_STAGE_H
#define REMRAM_TESTS_STAGE_H

#include "tests/lib/cache_rig.h"

#define KIB ((uint64_t)1024)
#define MIB (1024 * KIB)
#define MS ((uint64_t)1000000)
#define SECOND (1000 * MS)

struct stage {
	struct sim sim;
	struct cache_rig cr;
	uint8_t out[1 << 20]; /* a pattern, to be written */
	uint8_t in[1 << 20];
};

extern struct stage stage;

void stage_begin(const struct cache_rig_conf *conf);
void stage_end(void);

/* A request to the cache, and a look at its invariants: its error. */
int stage_op(enum store_op kind, uint64_t off, uint64_t len, void *buf, unsigned flags);
int stage_flush(void);

/* Asserts that [off, off+len) of the store, or of what the donor has, reads as `bytes`. */
void stage_expect(struct store *store, uint64_t off, uint64_t len, const uint8_t *bytes);
void stage_expect_remote(uint64_t off, uint64_t len, const uint8_t *bytes);
/* Gives the donor the first `len` bytes of `out` at off. */
void stage_fill_remote(uint64_t off, uint64_t len);

/* Faults of stage.cr.local or stage.cr.remote: `count` requests (0: all) fail with err; requests are held. */
void stage_fault(struct store *side, enum store_op kind, uint64_t count, int err, bool after);
void stage_hold(struct store *side, enum store_op kind);

struct cache_status stage_status(void);

/* A request that goes on while the test does other things. */
struct stage_req {
	struct loop_task task;
	struct store *store;
	struct sim_req sr;
};

/* Submits it to the cache, and lets a millisecond pass. */
void stage_start(struct stage_req *st, enum store_op kind, uint64_t off, uint64_t len, void *buf,
    unsigned flags);

#endif
