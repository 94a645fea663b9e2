/* SPDX-License-Identifier: Apache-2.0
 *
 * A region's bytes in a file or on a block device: struct blk_ops over one descriptor.
 *
 * A file is as long as its last write or resize made it; what lies beyond its end reads as zeros.  Each
 * call that can change what the file takes up is bracketed by space_claim and space_settle.
 *
 * What file systems and devices can't do is found out by asking once (no_punch, no_zero_range,
 * no_nowait) and then done in a slower way:
 *   zero          PUNCH_HOLE → ZERO_RANGE over what is data → zeros written over what is data
 *   zero, keep                 ZERO_RANGE over what is data → zeros written over what is data
 *   fua           RWF_DSYNC → write, then fdatasync
 *   pread_nowait  RWF_NOWAIT → a worker
 * "Over what is data": a hole reads as zeros already, and filling it would take space.
 *
 * Failure: errors of the kernel pass up as they are.  Writeback that fails is told once, to whoever
 * syncs next, and the pages count as clean afterwards: so a failed sync is remembered in `lost`, and
 * no later FLUSH of this store succeeds.
 *
 * Locking: none; the kernel's descriptor is thread-safe, the flags are atomic.
 */
#include "backends/file_region.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/blk.h"

struct file_region {
	/* Constant after create. */
	int fd;
	bool device;
	uint64_t
	    size_max; /* bytes: a device's size; how long the file system lets the file become */
	struct space *space;
	struct space_file *file;

	/* Atomic. */
	_Atomic bool no_punch, no_zero_range, no_nowait, no_dsync;
	_Atomic int lost; /* -errno of the first sync that failed, or 0 */
};

static bool unsupported(int err)
{
	return err == EOPNOTSUPP || err == ENOSYS || err == EINVAL || err == ENOTTY;
}

/* ---- transfers ---- */

static int region_pread(void *ctx, void *buf, uint32_t len, uint64_t off)
{
	struct file_region *fr = ctx;
	uint8_t *pos = buf;

	while (len) {
		ssize_t n = pread(fr->fd, pos, len, (off_t)off);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (n == 0) { /* the file's end */
			memset(pos, 0, len);
			return 0;
		}
		pos += n;
		off += (uint64_t)n;
		len -= (uint32_t)n;
	}
	return 0;
}

static int region_pread_nowait(void *ctx, void *buf, uint32_t len, uint64_t off)
{
	struct file_region *fr = ctx;
	struct iovec iov = {buf, len};

	if (atomic_load_explicit(&fr->no_nowait, memory_order_relaxed))
		return -EAGAIN;
	while (iov.iov_len) {
		ssize_t n = preadv2(fr->fd, &iov, 1, (off_t)off, RWF_NOWAIT);

		if (n < 0) {
			if (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL)
				atomic_store(&fr->no_nowait, true);
			return -EAGAIN;
		}
		if (n == 0) {
			memset(iov.iov_base, 0, iov.iov_len);
			return 0;
		}
		iov.iov_base = (uint8_t *)iov.iov_base + n;
		iov.iov_len -= (size_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

/* Remembers that data which had been written may be gone. */
static int sync_failed(struct file_region *fr, int err)
{
	int none = 0;

	atomic_compare_exchange_strong(&fr->lost, &none, err);
	return err;
}

static int region_flush(void *ctx)
{
	struct file_region *fr = ctx;
	int lost = atomic_load(&fr->lost);

	if (lost)
		return lost;
	while (fdatasync(fr->fd))
		if (errno != EINTR)
			return sync_failed(fr, -errno);
	return 0;
}

/* Writes all of it; how: flags of pwritev2. */
static int write_all(struct file_region *fr, const void *buf, uint64_t len, uint64_t off, int how)
{
	struct iovec iov = {(void *)(uintptr_t)buf, len};

	while (iov.iov_len) {
		ssize_t n = pwritev2(fr->fd, &iov, 1, (off_t)off, how);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		iov.iov_base = (uint8_t *)iov.iov_base + n;
		iov.iov_len -= (size_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

static int write_stable(struct file_region *fr, const void *buf, uint64_t len, uint64_t off)
{
	int rc;

	if (!atomic_load_explicit(&fr->no_dsync, memory_order_relaxed)) {
		rc = write_all(fr, buf, len, off, RWF_DSYNC);
		/* The kernel doesn't say whether the write or its sync failed, nor whether an
		 * earlier write's failed writeback is told with it. */
		if (rc == -EIO)
			return sync_failed(fr, rc);
		if (rc == 0 || !unsupported(-rc))
			return rc;
		atomic_store(&fr->no_dsync, true);
	}
	rc = write_all(fr, buf, len, off, 0);
	return rc ? rc : region_flush(fr);
}

static int region_pwrite(void *ctx, const void *buf, uint32_t len, uint64_t off, bool fua)
{
	struct file_region *fr = ctx;
	uint64_t promise = 0;
	int rc = fr->device ? 0 : space_claim(fr->space, fr->file, fr->fd, off, len, &promise);

	if (rc)
		return rc;
	rc = fua ? write_stable(fr, buf, len, off) : write_all(fr, buf, len, off, 0);
	if (!fr->device)
		space_settle(fr->space, fr->file, fr->fd, promise);
	return rc;
}

/* ---- what is data ---- */

/* The first run of data in [off, end): *ret_start and *ret_end; an empty one at end if there is none.  A
 * device has data everywhere. */
static int next_data(
    struct file_region *fr, uint64_t off, uint64_t end, uint64_t *ret_start, uint64_t *ret_end)
{
	off_t data = (off_t)off, hole = (off_t)end;

	if (!fr->device) {
		data = lseek(fr->fd, (off_t)off, SEEK_DATA);
		if (data >= 0)
			hole = lseek(fr->fd, data, SEEK_HOLE);
		if ((data < 0 || hole < 0) && errno != ENXIO)
			return -errno;
	}
	/* ENXIO from the second call: the file was cut off before `data` meanwhile. */
	if (data < 0 || hole < 0 || (uint64_t)data > end)
		data = hole = (off_t)end;
	*ret_start = (uint64_t)data;
	*ret_end = (uint64_t)hole < end ? (uint64_t)hole : end;
	return 0;
}

/* Adds [off, end) to the list of n extents, to the last one if it is of the same kind; false if there
 * is no room. */
static bool extent_add(
    struct extent *extents, unsigned max, unsigned *n, uint64_t off, uint64_t end, uint32_t flags)
{
	if (off == end)
		return true;
	if (*n && extents[*n - 1].flags == flags) {
		extents[*n - 1].len += end - off;
		return true;
	}
	if (*n == max)
		return false;
	extents[(*n)++] = (struct extent){off, end - off, flags};
	return true;
}

static int region_extents(void *ctx, uint64_t off, uint64_t len, struct extent *extents,
    unsigned max, unsigned *ret_count)
{
	uint64_t end = off + len, start, stop;
	unsigned n = 0;

	while (off < end) {
		int rc = next_data(ctx, off, end, &start, &stop);

		if (rc)
			return rc;
		if (!extent_add(extents, max, &n, off, start, EXTENT_HOLE) ||
		    !extent_add(extents, max, &n, start, stop, 0))
			break;
		off = stop;
	}
	*ret_count = n;
	return 0;
}

/* ---- zero, alloc, resize ---- */

static int fallocate_all(struct file_region *fr, int mode, uint64_t off, uint64_t len)
{
	while (fallocate(fr->fd, mode, (off_t)off, (off_t)len))
		if (errno != EINTR)
			return -errno;
	return 0;
}

static int write_zeros(struct file_region *fr, uint64_t off, uint64_t len)
{
	while (len) {
		uint64_t n = len < STORE_LEN_MAX ? len : STORE_LEN_MAX;
		int rc = write_all(fr, store_zeros, n, off, 0);

		if (rc)
			return rc;
		off += n;
		len -= n;
	}
	return 0;
}

/* Zeroes [off, off+len), which holds data, in place. */
static int zero_data(struct file_region *fr, uint64_t off, uint64_t len)
{
	if (!atomic_load_explicit(&fr->no_zero_range, memory_order_relaxed)) {
		int rc = fallocate_all(fr, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, off, len);

		if (rc == 0 || !unsupported(-rc))
			return rc;
		atomic_store(&fr->no_zero_range, true);
	}
	return write_zeros(fr, off, len);
}

/* Zeroes in place what of [off, end) is data. */
static int zero_in_place(struct file_region *fr, uint64_t off, uint64_t end)
{
	uint64_t start = 0, stop = 0;

	while (off < end) {
		int rc = next_data(fr, off, end, &start, &stop);

		if (rc == 0 && start < stop)
			rc = zero_data(fr, start, stop - start);
		if (rc)
			return rc;
		off = stop;
	}
	return 0;
}

/* The whole blocks of [off, end), or all of it where the file system splits blocks by itself. */
static int zero_blocks(struct file_region *fr, uint64_t off, uint64_t end, bool keep)
{
	if (!keep && !atomic_load_explicit(&fr->no_punch, memory_order_relaxed)) {
		int rc =
		    fallocate_all(fr, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, end - off);

		if (rc == 0 || !unsupported(-rc))
			return rc;
		atomic_store(&fr->no_punch, true);
	}
	return zero_in_place(fr, off, end);
}

/* A device takes whole sectors only; STORE_BLOCK is a multiple of every sector there is. */
static int zero_device(struct file_region *fr, uint64_t off, uint64_t end, bool keep)
{
	uint64_t lo = (off + STORE_BLOCK - 1) & ~(uint64_t)(STORE_BLOCK - 1);
	uint64_t hi = end & ~(uint64_t)(STORE_BLOCK - 1);
	int rc;

	if (lo >= hi)
		return write_zeros(fr, off, end - off);
	rc = write_zeros(fr, off, lo - off);
	if (rc == 0)
		rc = zero_blocks(fr, lo, hi, keep);
	if (rc == 0)
		rc = write_zeros(fr, hi, end - hi);
	return rc;
}

static int region_zero(void *ctx, uint64_t off, uint64_t len, bool keep, bool fua)
{
	struct file_region *fr = ctx;
	int rc = 0;

	if (fr->device) {
		rc = zero_device(fr, off, off + len, keep);
	} else {
		/* The file system refuses to punch where it could not have written. */
		if (off < fr->size_max)
			rc = zero_blocks(
			    fr, off, off + len < fr->size_max ? off + len : fr->size_max, keep);
		space_settle(fr->space, fr->file, fr->fd, 0);
	}
	return rc || !fua ? rc : region_flush(fr);
}

/* Before blocks are reserved up to `end` without making the file longer. */
static int note_beyond(struct file_region *fr, uint64_t end)
{
	struct stat st;

	if (fstat(fr->fd, &st))
		return -errno;
	if (end > (uint64_t)st.st_size)
		atomic_store(&fr->file->beyond, true);
	return 0;
}

static int region_alloc(void *ctx, uint64_t off, uint64_t len, bool keep)
{
	struct file_region *fr = ctx;
	uint64_t promise = 0;
	int rc;

	if (fr->device)
		return 0;
	rc = keep ? note_beyond(fr, off + len) : 0;
	if (rc == 0)
		rc = space_claim(fr->space, fr->file, fr->fd, off, len, &promise);
	if (rc)
		return rc;
	rc = fallocate_all(fr, keep ? FALLOC_FL_KEEP_SIZE : 0, off, len);
	space_settle(fr->space, fr->file, fr->fd, promise);
	return rc;
}

static int truncate_all(struct file_region *fr, uint64_t size)
{
	while (ftruncate(fr->fd, (off_t)size))
		if (errno != EINTR)
			return -errno;
	return 0;
}

static int region_resize(void *ctx, uint64_t size)
{
	struct file_region *fr = ctx;
	int rc;

	if (fr->device)
		return size == fr->size_max ? 0 : -EOPNOTSUPP;
	rc = truncate_all(fr, size);
	/* Making a file longer leaves what is reserved beyond its end; a truncate to the length that
	 * it has gives that back. */
	if (rc == 0 && atomic_load(&fr->file->beyond))
		rc = truncate_all(fr, size);
	if (rc == 0)
		atomic_store(&fr->file->beyond, space_reserved_beyond(fr->fd, size));
	space_settle(fr->space, fr->file, fr->fd, 0);
	return rc;
}

/* ---- the store ---- */

static int region_stat(void *ctx, struct store_stat *ret_stat)
{
	struct file_region *fr = ctx;
	struct stat st;

	if (fr->device) {
		*ret_stat = (struct store_stat){.size = fr->size_max, .allocated = fr->size_max};
		return 0;
	}
	if (fstat(fr->fd, &st))
		return -errno;
	*ret_stat = (struct store_stat){
	    .size = (uint64_t)st.st_size,
	    .allocated = space_measure(&st, atomic_load(&fr->file->beyond)),
	    .mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec,
	};
	return 0;
}

static void region_close(void *ctx)
{
	struct file_region *fr = ctx;

	close(fr->fd);
	free(fr);
}

static const struct blk_ops region_ops = {
    .name = "file",
    .pread = region_pread,
    .pwrite = region_pwrite,
    .zero = region_zero,
    .alloc = region_alloc,
    .flush = region_flush,
    .extents = region_extents,
    .resize = region_resize,
    .pread_nowait = region_pread_nowait,
    .stat = region_stat,
    .close = region_close,
};

/* How long a file can be on its file system, at most `most`: lseek refuses to go beyond. */
static uint64_t file_size_max(int fd, uint64_t most)
{
	uint64_t ok = 0;

	if (lseek(fd, (off_t)most, SEEK_SET) == (off_t)most)
		return most;
	for (uint64_t step = (uint64_t)1 << 62; step; step >>= 1)
		if (ok + step <= most && lseek(fd, (off_t)(ok + step), SEEK_SET) >= 0)
			ok += step;
	return ok;
}

int file_region_create(int fd, struct space *space, struct space_file *file, uint64_t size,
    struct workers *workers, struct store **ret_store, struct err *err)
{
	struct file_region *fr = calloc(1, sizeof(*fr));
	struct stat st;
	int rc;

	if (!fr) {
		close(fd);
		return err_set(err, -ENOMEM, "out of memory for a region");
	}
	fr->fd = fd;
	fr->space = space;
	fr->file = file;
	rc = fstat(fd, &st) ? -errno : 0;
	if (rc) {
		region_close(fr);
		return err_sys(err, rc, "cannot look at a region's file");
	}
	fr->device = S_ISBLK(st.st_mode);
	if (fr->device) {
		fr->size_max = size;
	} else {
		fr->size_max = file_size_max(fd, size);
		atomic_store(&file->beyond, space_reserved_beyond(fd, (uint64_t)st.st_size));
		space_settle(space, file, fd, 0);
	}
	return blk_store_create(&region_ops, fr, size, 1, workers, ret_store, err);
}
