/* SPDX-License-Identifier: Apache-2.0
 *
 * What outlives a child that plays a region and is cut off: what the donor has, what was promised, and what
 * was written since.  From that it is known what may be seen when the region is opened again.
 *
 * It lies in memory that the child shares with the test.  One at a time: `crash_world`.  What a sector holds
 * is a tag (tests/lib/forgetful.h), one of its own for each write; 0: a punch.
 */
#ifndef REMRAM_TESTS_CRASH_WORLD_H
#define REMRAM_TESTS_CRASH_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/lib/forgetful.h"

enum {
	CRASH_SECTORS = FORGETFUL_SECTORS,
	CRASH_SINCE = 24, /* writes of one sector between two promises */
};

/* Changes under crash_cut_mu, but for tag and counters; the functions below take it. */
struct crash_world {
	struct forgetful_bytes donor;
	uint32_t promised[CRASH_SECTORS];
	uint32_t since[CRASH_SECTORS][CRASH_SINCE]; /* written since, in order */
	unsigned since_count[CRASH_SECTORS];
	uint32_t low, high; /* sectors: the region is not shorter, nor longer */
	uint32_t tag; /* the last one given out */
	unsigned promises, writes, resizes, evicted; /* how much has happened */
};

extern struct crash_world *crash_world;

/* A region of CRASH_SECTORS, some of them holes, that is at the donor as it was promised. */
void crash_world_create(void);
void crash_world_destroy(void);

/* ---- what the child notes ---- */

/* Whether each of the sectors from first on can be written once more before the next promise. */
bool crash_world_has_room(uint64_t first, uint64_t count);

/* A write or punch begins: from now on it may be seen. */
void crash_world_write(uint64_t first, uint64_t count, uint32_t tag);

/* A flush has ended: of what was written to each sector, the first counts[sector] are promised; and that the
 * region has `size` sectors at least. */
void crash_world_promise(const uint8_t *counts, uint32_t size);

/* A resize from `from` to `to` sectors begins.  What is cut off is like punched, until the end: then all that is
 * beyond the shorter one, `cut`, is promised to be zeros. */
void crash_world_resize(uint32_t from, uint32_t to);
void crash_world_resized(uint32_t cut, uint32_t size);

/* ---- what the test checks, when the child is gone ---- */

/* Each sector that reads as seen[sector] was promised so, or written since, and not before what the donor had
 * when the child was cut off: donor[sector].  `what` says where it was cut off. */
void crash_world_check(const uint32_t *seen, const uint32_t *donor, const char *what);

/* The region has as many bytes as it may have, here as there. */
void crash_world_check_size(uint64_t bytes, const char *what);

/* What was seen is all there is: it is promised. */
void crash_world_settle(const uint32_t *seen);

#endif
