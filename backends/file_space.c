/* SPDX-License-Identifier: Apache-2.0
 *
 * Counts what the files of a place take up (see backends/file_space.h).
 *
 * quota->used is, at any time, the sum of all space_file.bytes plus `promised`.  The usual claim is
 * one quota_take of the whole range, whether or not the range is allocated already.  Where that does
 * not fit, the claim finds out, from cheap to dear:
 *   1. The file can't take up more: it has as many blocks as it is long.   (fstat)
 *   2. The range holds data everywhere.                                    (SEEK_HOLE)
 *   3. What of it is really missing, with every promise settled first: another call's promise may be
 *      too high, and nobody is to get -ENOSPC for that.                    (FIEMAP)
 * Reserved blocks (STORE_ALLOC) look like holes to SEEK_HOLE; FIEMAP sees them.  A file system without
 * FIEMAP (tmpfs) tells nobody what is reserved: there, with the quota full, a write into the reserved
 * part of a region that is not wholly allocated gets -ENOSPC.
 *
 * Invariants:
 *   1. quota->used == sum of space_file.bytes + promised, whenever mu is free.
 *   2. While exact > 0 nobody takes the short way, so promised sinks to 0.
 * Locking: `mu`, for everything that is not constant.  Held across fstat, and across FIEMAP in case 3.
 * Failure: a measurement that fails (it can't, on an open file) leaves the old value.
 */
#include "backends/file_space.h"

#include <errno.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { FIEMAP_BATCH = 64 }; /* extents that one ioctl asks for */

static uint64_t round_up(uint64_t bytes)
{
	return (bytes + STORE_BLOCK - 1) & ~(uint64_t)(STORE_BLOCK - 1);
}

static uint64_t round_down(uint64_t bytes)
{
	return bytes & ~(uint64_t)(STORE_BLOCK - 1);
}

void space_init(struct space *space, struct quota *quota)
{
	memset(space, 0, sizeof(*space));
	space->quota = quota;
	pthread_mutex_init(&space->mu, NULL);
	pthread_cond_init(&space->calm, NULL);
}

void space_fini(struct space *space)
{
	for (unsigned i = 0; i < SPACE_BUCKETS; i++)
		while (space->buckets[i]) {
			struct space_file *file = space->buckets[i];

			space->buckets[i] = file->next;
			free(file);
		}
	pthread_cond_destroy(&space->calm);
	pthread_mutex_destroy(&space->mu);
}

uint64_t space_measure(const struct stat *st, bool beyond)
{
	uint64_t bytes = (uint64_t)st->st_blocks * 512;
	uint64_t whole = round_up((uint64_t)st->st_size);

	return beyond || bytes < whole ? bytes : whole;
}

bool space_reserved_beyond(int fd, uint64_t size)
{
	struct fiemap ask = {.fm_start = round_up(size), .fm_length = INT64_MAX - round_up(size)};

	return ioctl(fd, FS_IOC_FIEMAP, &ask) == 0 && ask.fm_mapped_extents > 0;
}

static struct space_file **find_locked(struct space *space, uint64_t id)
{
	struct space_file **link = &space->buckets[id % SPACE_BUCKETS];

	while (*link && (*link)->id != id)
		link = &(*link)->next;
	return link;
}

struct space_file *space_get(struct space *space, uint64_t id)
{
	struct space_file **link, *file;

	pthread_mutex_lock(&space->mu);
	link = find_locked(space, id);
	if (!*link) {
		*link = calloc(1, sizeof(**link));
		if (*link)
			(*link)->id = id;
	}
	file = *link;
	pthread_mutex_unlock(&space->mu);
	return file;
}

void space_drop(struct space *space, uint64_t id)
{
	struct space_file **link, *file;

	pthread_mutex_lock(&space->mu);
	link = find_locked(space, id);
	file = *link;
	if (file) {
		*link = file->next;
		quota_give(space->quota, file->bytes);
		free(file);
	}
	pthread_mutex_unlock(&space->mu);
}

/* Counts what the file takes up now.  Growth is a fact: it is added even past the limit. */
static void measure_locked(struct space *space, struct space_file *file, const struct stat *st)
{
	uint64_t now = space_measure(st, atomic_load(&file->beyond));

	if (now >= file->bytes)
		atomic_fetch_add_explicit(
		    &space->quota->used, now - file->bytes, memory_order_relaxed);
	else
		quota_give(space->quota, file->bytes - now);
	file->bytes = now;
}

/* Case 1: how many bytes more the file can be counted with when it reaches to `end`. */
static uint64_t growth_max(const struct space_file *file, const struct stat *st, uint64_t end)
{
	uint64_t size = (uint64_t)st->st_size;

	/* With blocks beyond the end st_blocks doesn't tell whether any are missing before it. */
	if (atomic_load(&file->beyond))
		return UINT64_MAX;
	return round_up(size > end ? size : end) - space_measure(st, false);
}

/* Case 2. */
static bool all_data(int fd, uint64_t off, uint64_t len)
{
	off_t hole;

	if (lseek(fd, (off_t)off, SEEK_DATA) != (off_t)off)
		return false;
	hole = lseek(fd, (off_t)off, SEEK_HOLE);
	return hole >= 0 && (uint64_t)hole >= off + len;
}

/* Case 3 without FIEMAP: the bytes of [lo, hi) that are holes to SEEK_HOLE. */
static uint64_t missing_by_seek(int fd, uint64_t lo, uint64_t hi)
{
	uint64_t missing = 0;

	while (lo < hi) {
		off_t data = lseek(fd, (off_t)lo, SEEK_DATA);
		off_t hole;

		if (data < 0 || (uint64_t)data >= hi)
			return missing + (hi - lo);
		missing += (uint64_t)data - lo;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			return missing + (hi - (uint64_t)data);
		lo = (uint64_t)hole;
	}
	return missing;
}

/* Case 3: the bytes of [lo, hi) that are neither data nor reserved. */
static uint64_t missing(int fd, uint64_t lo, uint64_t hi)
{
	union {
		struct fiemap map;
		uint8_t room[sizeof(struct fiemap) + FIEMAP_BATCH * sizeof(struct fiemap_extent)];
	} ask;
	uint64_t pos = lo, missing = 0;

	while (pos < hi) {
		memset(&ask.map, 0, sizeof(ask.map));
		ask.map.fm_start = pos;
		ask.map.fm_length = hi - pos;
		ask.map.fm_extent_count = FIEMAP_BATCH;
		if (ioctl(fd, FS_IOC_FIEMAP, &ask.map))
			return missing_by_seek(fd, lo, hi);
		if (ask.map.fm_mapped_extents == 0)
			return missing + (hi - pos);
		for (unsigned i = 0; i < ask.map.fm_mapped_extents && pos < hi; i++) {
			const struct fiemap_extent *fe = &ask.map.fm_extents[i];
			uint64_t start = fe->fe_logical < hi ? fe->fe_logical : hi;
			uint64_t end = fe->fe_logical + fe->fe_length;

			missing += start > pos ? start - pos : 0;
			pos = end > pos ? end : pos;
		}
	}
	return missing;
}

static int promise_locked(struct space *space, uint64_t bytes, uint64_t *ret_promise)
{
	int rc = quota_take(space->quota, bytes);

	if (rc == 0) {
		space->promised += bytes;
		*ret_promise = bytes;
	}
	return rc;
}

/* Case 3. */
static int claim_exact_locked(struct space *space, struct space_file *file, int fd, uint64_t lo,
    uint64_t hi, uint64_t *ret_promise)
{
	struct stat st;
	uint64_t need, growth;
	int rc;

	space->exact++;
	while (space->promised)
		pthread_cond_wait(&space->calm, &space->mu);
	if (fstat(fd, &st)) {
		rc = -errno;
	} else {
		measure_locked(space, file, &st);
		growth = growth_max(file, &st, hi);
		need = missing(fd, lo, hi);
		rc = promise_locked(space, need < growth ? need : growth, ret_promise);
	}
	space->exact--;
	return rc;
}

int space_claim(struct space *space, struct space_file *file, int fd, uint64_t off, uint64_t len,
    uint64_t *ret_promise)
{
	uint64_t lo = round_down(off), hi = round_up(off + len);
	struct stat st;
	int rc;

	pthread_mutex_lock(&space->mu);
	rc = space->exact ? -ENOSPC : promise_locked(space, hi - lo, ret_promise);
	pthread_mutex_unlock(&space->mu);
	if (rc == 0)
		return 0;
	if (fstat(fd, &st) == 0 && (growth_max(file, &st, hi) == 0 || all_data(fd, off, len))) {
		*ret_promise = 0;
		return 0;
	}
	pthread_mutex_lock(&space->mu);
	rc = claim_exact_locked(space, file, fd, lo, hi, ret_promise);
	pthread_mutex_unlock(&space->mu);
	return rc;
}

void space_settle(struct space *space, struct space_file *file, int fd, uint64_t promise)
{
	struct stat st;

	pthread_mutex_lock(&space->mu);
	quota_give(space->quota, promise);
	space->promised -= promise;
	if (fstat(fd, &st) == 0)
		measure_locked(space, file, &st);
	if (space->promised == 0 && space->exact)
		pthread_cond_broadcast(&space->calm);
	pthread_mutex_unlock(&space->mu);
}
