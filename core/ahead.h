/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading ahead for those whom the kernel does not read ahead for: direct I/O, and swap on a loop device.
 *
 * A layer over the pool of a donor.  Whoever reads a region in order, one short request after another, waits
 * for a round trip each time.  Here the bytes that come next are asked for meanwhile, in segments of
 * AHEAD_SEGMENT bytes, so that most requests are answered from memory.  How far it reads ahead follows the
 * round trip: the distance doubles whenever a request comes before its bytes, up to half of the memory
 * (compare Linux, mm/readahead.c).  Requests longer than AHEAD_READ_MAX, and those that follow no other, pass
 * by untouched.
 *
 * It reads ahead only through handles that hold the region's lease (core/pool.h): no other session changes the
 * bytes meanwhile, and what this session changes goes through here.  Segments are forgotten when a WRITE or ZERO
 * of theirs has ended, when the region's attributes have been set, when its lease is lost, on notice of another
 * session's change, when a handle that writes is closed, and AHEAD_FRESH_MS after they were filled.
 *
 * Errors: a segment that can't be read is forgotten; who waited for it asks the donor, and gets its own error.
 * Memory: all of it is allocated at the start; a handle costs an allocation when it is opened.
 * Threads: everything on one loop, the lower pool's.
 */
#ifndef REMRAM_CORE_AHEAD_H
#define REMRAM_CORE_AHEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/pool.h"

enum {
	AHEAD_SEGMENT = 128 * 1024, /* bytes read ahead at once */
	AHEAD_READ_MAX = 128 * 1024, /* bytes of the longest request that counts */
	AHEAD_MEMORY = 2 * 1024 * 1024, /* bytes of segments, for all regions */
	AHEAD_FRESH_MS = 1000, /* a segment's age when it is not believed any more */
};

struct ahead_stats {
	uint64_t hits; /* requests answered from memory, */
	uint64_t waits; /* and of these, those that came before their bytes */
	uint64_t bytes; /* read ahead */
	uint64_t unused_bytes; /* of these, what was forgotten before anybody wanted it */
};

/* A pool that is lower, and reads ahead.  lower is borrowed: it outlives this one, and nobody else sets its
 * notify.  touch: write to all memory now, so that no page fault comes later. */
int ahead_pool_create(struct pool *lower, bool touch, struct pool **ret_pool, struct err *err);

void ahead_pool_stats(const struct pool *pool, struct ahead_stats *ret_stats);

#endif
