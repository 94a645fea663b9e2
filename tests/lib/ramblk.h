/* SPDX-License-Identifier: Apache-2.0
 *
 * A disk with a write-back cache, in memory: struct blk_ops for tests of the blocking adapter.
 *
 * Writes go to the cache; flush and FUA make them stable; ramblk_crash forgets the rest.  Calls can be
 * made to fail or to wait at a gate.  Keeps count.
 */
#ifndef REMRAM_TESTS_RAMBLK_H
#define REMRAM_TESTS_RAMBLK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/blk.h"

struct ramblk {
	/* Constant after create. */
	uint64_t size;

	/* Protected by mu. */
	pthread_mutex_t mu;
	pthread_cond_t gate;
	uint8_t *cache, *stable;
	bool *allocated; /* per block */
	bool shut; /* calls wait for ramblk_gate(…, true) */
	bool cached; /* pread_nowait succeeds */
	bool open; /* a store uses it */
	unsigned calls; /* of any kind but pread_nowait */
	unsigned fail_call; /* the how manieth call fails; 0: none */
	int fail_err;
	unsigned flushes, nowaits;
	unsigned running, running_max; /* calls at once */
};

extern const struct blk_ops ramblk_ops; /* ctx is a struct ramblk */
extern const struct blk_ops ramblk_plain_ops; /* without the optional ones */

struct ramblk *ramblk_create(uint64_t size);
/* No store uses it. */
void ramblk_destroy(struct ramblk *disk);

/* Lets calls through, or makes them wait. */
void ramblk_gate(struct ramblk *disk, bool open);
/* Makes the n-th call from now on fail with err. */
void ramblk_fail(struct ramblk *disk, unsigned n, int err);
/* Whether the call that was to fail has been made. */
bool ramblk_failed(struct ramblk *disk);
void ramblk_crash(struct ramblk *disk);

#endif
