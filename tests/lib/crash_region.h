/* SPDX-License-Identifier: Apache-2.0
 *
 * A region with everything that a managed mount has below its frontend: the cache with its pumps over the file
 * backend's store in a cache directory, the index, and the donor of crash_world.  It comes by the points of
 * tests/lib/crash_cut.h that are its own.  One at a time: `crash_region`.
 *
 * Everything asserts (libcheck).
 */
#ifndef REMRAM_TESTS_CRASH_REGION_H
#define REMRAM_TESTS_CRASH_REGION_H

#include <stdbool.h>
#include <stdint.h>

#include "core/cache.h"
#include "core/loop.h"
#include "core/store.h"
#include "tests/lib/rig.h"

struct crash_region {
	struct loop *loop; /* on a thread of its own */
	/* Loop thread only. */
	struct cache *cache;
	struct store *store; /* of a handle that may read and write */
	struct rig_random random;
};

extern struct crash_region crash_region;

/* ---- the main thread ---- */

/* Opens the cache directory, with what a life before has left there, and attaches the donor. */
void crash_region_open(const char *path, uint64_t seed);
/* Nothing is in flight.  What is dirty stays so; clean: the index has it, and notes a clean end. */
void crash_region_close(bool clean);

/* Waits, in real time, until is_so, which is called on the loop's thread. */
void crash_region_wait(bool (*is_so)(void));

/* Bytes. */
uint64_t crash_region_size(void);

/* ---- the loop's thread ---- */

/* Begins a commit of the index that nobody waits for, unless there is one. */
void crash_region_commit(void);

#endif
