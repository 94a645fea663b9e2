/* SPDX-License-Identifier: Apache-2.0
 *
 * A disk in memory (see tests/lib/ramblk.h).  One mutex; a call that fails has changed nothing, except
 * that a failed write has torn: its first half is there.
 */
#include "tests/lib/ramblk.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct ramblk *ramblk_create(uint64_t size)
{
	struct ramblk *disk = calloc(1, sizeof(*disk));

	ck_assert(disk);
	disk->size = size;
	disk->cache = calloc(1, size);
	disk->stable = calloc(1, size);
	disk->allocated = calloc(size / STORE_BLOCK + 1, sizeof(bool));
	ck_assert(disk->cache && disk->stable && disk->allocated);
	pthread_mutex_init(&disk->mu, NULL);
	pthread_cond_init(&disk->gate, NULL);
	disk->open = true;
	return disk;
}

void ramblk_destroy(struct ramblk *disk)
{
	ck_assert(!disk->open);
	pthread_cond_destroy(&disk->gate);
	pthread_mutex_destroy(&disk->mu);
	free(disk->cache);
	free(disk->stable);
	free(disk->allocated);
	free(disk);
}

void ramblk_gate(struct ramblk *disk, bool open)
{
	pthread_mutex_lock(&disk->mu);
	disk->shut = !open;
	pthread_cond_broadcast(&disk->gate);
	pthread_mutex_unlock(&disk->mu);
}

void ramblk_fail(struct ramblk *disk, unsigned n, int err)
{
	pthread_mutex_lock(&disk->mu);
	disk->fail_call = disk->calls + n;
	disk->fail_err = err;
	pthread_mutex_unlock(&disk->mu);
}

bool ramblk_failed(struct ramblk *disk)
{
	bool failed;

	pthread_mutex_lock(&disk->mu);
	failed = disk->fail_call && disk->calls >= disk->fail_call;
	pthread_mutex_unlock(&disk->mu);
	return failed;
}

void ramblk_crash(struct ramblk *disk)
{
	pthread_mutex_lock(&disk->mu);
	memcpy(disk->cache, disk->stable, disk->size);
	pthread_mutex_unlock(&disk->mu);
}

/* Begins a call: locks; 0, or the error it is to fail with. */
static int enter(struct ramblk *disk)
{
	pthread_mutex_lock(&disk->mu);
	if (!disk->open)
		abort();
	if (++disk->running > disk->running_max)
		disk->running_max = disk->running;
	while (disk->shut)
		pthread_cond_wait(&disk->gate, &disk->mu);
	return ++disk->calls == disk->fail_call ? disk->fail_err : 0;
}

static int leave(struct ramblk *disk, int rc)
{
	disk->running--;
	pthread_mutex_unlock(&disk->mu);
	return rc;
}

static void mark_locked(struct ramblk *disk, uint64_t off, uint64_t len)
{
	for (uint64_t b = off / STORE_BLOCK; b <= (off + len - 1) / STORE_BLOCK; b++)
		disk->allocated[b] = true;
}

static int ram_pread(void *ctx, void *buf, uint32_t len, uint64_t off)
{
	struct ramblk *disk = ctx;
	int rc = enter(disk);

	if (rc == 0)
		memcpy(buf, disk->cache + off, len);
	return leave(disk, rc);
}

static int ram_pread_nowait(void *ctx, void *buf, uint32_t len, uint64_t off)
{
	struct ramblk *disk = ctx;
	int rc = -EAGAIN;

	pthread_mutex_lock(&disk->mu);
	disk->nowaits++;
	if (disk->cached) {
		memcpy(buf, disk->cache + off, len);
		rc = 0;
	}
	pthread_mutex_unlock(&disk->mu);
	return rc;
}

static int ram_pwrite(void *ctx, const void *buf, uint32_t len, uint64_t off, bool fua)
{
	struct ramblk *disk = ctx;
	int rc = enter(disk);

	memcpy(disk->cache + off, buf, rc ? len / 2 : len);
	mark_locked(disk, off, len);
	if (fua && rc == 0)
		memcpy(disk->stable + off, buf, len);
	return leave(disk, rc);
}

static int ram_zero(void *ctx, uint64_t off, uint64_t len, bool keep, bool fua)
{
	struct ramblk *disk = ctx;
	int rc = enter(disk);

	if (rc)
		return leave(disk, rc);
	memset(disk->cache + off, 0, len);
	if (fua)
		memset(disk->stable + off, 0, len);
	for (uint64_t b = (off + STORE_BLOCK - 1) / STORE_BLOCK;
	     !keep && (b + 1) * STORE_BLOCK <= off + len; b++)
		disk->allocated[b] = false;
	return leave(disk, 0);
}

static int ram_alloc(void *ctx, uint64_t off, uint64_t len, bool keep)
{
	struct ramblk *disk = ctx;
	int rc = enter(disk);

	if (rc == 0)
		mark_locked(disk, off, len);
	return leave(disk, rc);
}

static int ram_flush(void *ctx)
{
	struct ramblk *disk = ctx;
	int rc = enter(disk);

	disk->flushes++;
	if (rc == 0)
		memcpy(disk->stable, disk->cache, disk->size);
	return leave(disk, rc);
}

static int ram_extents(void *ctx, uint64_t off, uint64_t len, struct extent *extents, unsigned max,
    unsigned *ret_count)
{
	struct ramblk *disk = ctx;
	int rc = enter(disk);
	uint64_t end = off + len;
	unsigned n = 0;

	while (rc == 0 && off < end) {
		uint64_t stop = (off / STORE_BLOCK + 1) * STORE_BLOCK;
		uint32_t flags = disk->allocated[off / STORE_BLOCK] ? 0 : EXTENT_HOLE;

		if (stop > end)
			stop = end;
		if (n && extents[n - 1].flags == flags)
			extents[n - 1].len += stop - off;
		else if (n == max)
			break;
		else
			extents[n++] = (struct extent){off, stop - off, flags};
		off = stop;
	}
	*ret_count = n;
	return leave(disk, rc);
}

static int ram_resize(void *ctx, uint64_t size)
{
	struct ramblk *disk = ctx;
	int rc = enter(disk);

	if (rc == 0) {
		memset(disk->cache + size, 0, disk->size - size);
		for (uint64_t b = (size + STORE_BLOCK - 1) / STORE_BLOCK;
		     b < disk->size / STORE_BLOCK; b++)
			disk->allocated[b] = false;
	}
	return leave(disk, rc);
}

static int ram_stat(void *ctx, struct store_stat *ret_stat)
{
	struct ramblk *disk = ctx;

	pthread_mutex_lock(&disk->mu);
	*ret_stat = (struct store_stat){.size = disk->size};
	for (uint64_t b = 0; b < disk->size / STORE_BLOCK; b++)
		ret_stat->allocated += disk->allocated[b] ? STORE_BLOCK : 0;
	pthread_mutex_unlock(&disk->mu);
	return 0;
}

static void ram_close(void *ctx)
{
	struct ramblk *disk = ctx;

	pthread_mutex_lock(&disk->mu);
	if (disk->running)
		abort();
	disk->open = false;
	pthread_mutex_unlock(&disk->mu);
}

const struct blk_ops ramblk_ops = {
    .name = "ramblk",
    .pread = ram_pread,
    .pwrite = ram_pwrite,
    .zero = ram_zero,
    .alloc = ram_alloc,
    .flush = ram_flush,
    .extents = ram_extents,
    .resize = ram_resize,
    .pread_nowait = ram_pread_nowait,
    .stat = ram_stat,
    .close = ram_close,
};

const struct blk_ops ramblk_plain_ops = {
    .name = "ramblk-plain",
    .pread = ram_pread,
    .pwrite = ram_pwrite,
    .zero = ram_zero,
    .alloc = ram_alloc,
    .flush = ram_flush,
    .resize = ram_resize,
    .close = ram_close,
};
