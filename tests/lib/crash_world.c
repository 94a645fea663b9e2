/* SPDX-License-Identifier: Apache-2.0
 *
 * What outlives a child that is cut off (see tests/lib/crash_world.h).
 */
#include "tests/lib/crash_world.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/lib/crash_cut.h"
#include "tests/lib/rig.h"

struct crash_world *crash_world;

void crash_world_create(void)
{
	struct crash_world *world =
	    mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(world, MAP_FAILED);
	world->tag = 100000;
	world->donor.size = world->low = world->high = CRASH_SECTORS;
	for (unsigned s = 0; s < CRASH_SECTORS; s++)
		world->donor.now[s] = world->donor.stable[s] = world->promised[s] =
		    s / 64 % 3 ? s + 1 : 0;
	crash_world = world;
}

void crash_world_destroy(void)
{
	munmap(crash_world, sizeof(*crash_world));
	crash_world = NULL;
}

/* ---- what the child notes ---- */

bool crash_world_has_room(uint64_t first, uint64_t count)
{
	for (uint64_t s = first; s < first + count; s++)
		if (crash_world->since_count[s] == CRASH_SINCE)
			return false;
	return true;
}

static void note_locked(uint64_t first, uint64_t count, uint32_t tag)
{
	for (uint64_t s = first; s < first + count; s++)
		crash_world->since[s][crash_world->since_count[s]++] = tag;
}

void crash_world_write(uint64_t first, uint64_t count, uint32_t tag)
{
	pthread_mutex_lock(&crash_cut_mu);
	note_locked(first, count, tag);
	if (first + count > crash_world->high)
		crash_world->high = (uint32_t)(first + count);
	crash_world->writes++;
	pthread_mutex_unlock(&crash_cut_mu);
}

void crash_world_promise(const uint8_t *counts, uint32_t size)
{
	struct crash_world *world = crash_world;

	pthread_mutex_lock(&crash_cut_mu);
	for (unsigned s = 0; s < CRASH_SECTORS; s++) {
		unsigned n = counts[s];

		if (n == 0)
			continue;
		world->promised[s] = world->since[s][n - 1];
		world->since_count[s] -= n;
		memmove(world->since[s], world->since[s] + n,
		    world->since_count[s] * sizeof(world->since[s][0]));
	}
	if (size > world->low)
		world->low = size;
	world->promises++;
	pthread_mutex_unlock(&crash_cut_mu);
}

void crash_world_resize(uint32_t from, uint32_t to)
{
	pthread_mutex_lock(&crash_cut_mu);
	if (to < from)
		note_locked(to, from - to, 0);
	if (to < crash_world->low)
		crash_world->low = to;
	if (to > crash_world->high)
		crash_world->high = to;
	pthread_mutex_unlock(&crash_cut_mu);
}

void crash_world_resized(uint32_t cut, uint32_t size)
{
	pthread_mutex_lock(&crash_cut_mu);
	for (uint32_t s = cut; s < CRASH_SECTORS; s++)
		crash_world->promised[s] = crash_world->since_count[s] = 0;
	crash_world->low = crash_world->high = size;
	crash_world->resizes++;
	pthread_mutex_unlock(&crash_cut_mu);
}

/* ---- what the test checks ---- */

/* When a sector had this value: 0 is when it was promised, then one for each write; last: of several the
 * last.  -1: before. */
static int when(unsigned s, uint32_t tag, bool last)
{
	int found = tag == crash_world->promised[s] ? 0 : -1;

	for (unsigned i = 0; i < crash_world->since_count[s]; i++)
		if (crash_world->since[s][i] == tag && (last || found < 0))
			found = (int)i + 1;
	return found;
}

void crash_world_check(const uint32_t *seen, const uint32_t *donor, const char *what)
{
	for (unsigned s = 0; s < CRASH_SECTORS; s++) {
		/* Which zeros the donor's are nobody knows. */
		int now = when(s, seen[s], true), there = donor[s] ? when(s, donor[s], false) : -1;

		rig_check(now >= 0, "%s: sector %u reads %u; promised %u, the donor had %u", what,
		    s, seen[s], crash_world->promised[s], donor[s]);
		rig_check(now >= there, "%s: sector %u reads %u, the donor had %u, which is newer",
		    what, s, seen[s], donor[s]);
	}
}

void crash_world_check_size(uint64_t bytes, const char *what)
{
	uint32_t size = (uint32_t)(bytes / FORGETFUL_SECTOR);

	rig_check(
	    bytes % FORGETFUL_SECTOR == 0 && size >= crash_world->low && size <= crash_world->high,
	    "%s: the region has %llu bytes; promised %u to %u sectors", what,
	    (unsigned long long)bytes, crash_world->low, crash_world->high);
	rig_check(size == crash_world->donor.size, "%s: the region has %u sectors, at the donor %u",
	    what, size, crash_world->donor.size);
}

void crash_world_settle(const uint32_t *seen)
{
	memcpy(crash_world->promised, seen, sizeof(crash_world->promised));
	memset(crash_world->since_count, 0, sizeof(crash_world->since_count));
	crash_world->low = crash_world->high = crash_world->donor.size;
}
