/* SPDX-License-Identifier: Apache-2.0
 *
 * A region's data file as the index sees it.
 *
 * Blocks are STORE_BLOCK bytes; a chunk is INDEX_CHUNK_BLOCKS of them.  Where a file system knows no
 * holes everything is data; where it can't punch, zeros are written.
 * Locking: none.  Failure: -errno of the system call.
 */
#include "core/cache_data.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/crc32c.h"
#include "core/store.h"

bool cache_run_next(uint64_t bits, unsigned *pos, unsigned *ret_len)
{
	uint64_t rest;

	if (*pos >= INDEX_CHUNK_BLOCKS || !(bits >> *pos))
		return false;
	*pos += (unsigned)__builtin_ctzll(bits >> *pos);
	rest = ~(bits >> *pos);
	*ret_len = rest ? (unsigned)__builtin_ctzll(rest) : INDEX_CHUNK_BLOCKS;
	return true;
}

int cache_data_read(int fd, void *buf, size_t len, uint64_t off)
{
	uint8_t *pos = buf;

	while (len) {
		ssize_t n = pread(fd, pos, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0) {
			memset(pos, 0, len);
			return 0;
		}
		pos += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int cache_data_sums(
    int fd, uint64_t idx, uint64_t mask, void *buf, uint32_t sums[INDEX_CHUNK_BLOCKS])
{
	uint8_t *bytes = buf;

	for (unsigned pos = 0, len = 0; cache_run_next(mask, &pos, &len); pos += len) {
		int rc;

		if (len > INDEX_BUF / STORE_BLOCK)
			len = INDEX_BUF / STORE_BLOCK;
		rc = cache_data_read(fd, bytes, (size_t)len * STORE_BLOCK,
		    idx * INDEX_CHUNK + (uint64_t)pos * STORE_BLOCK);

		if (rc)
			return rc;
		for (unsigned i = 0; i < len; i++)
			sums[pos + i] = crc32c(0, bytes + (size_t)i * STORE_BLOCK, STORE_BLOCK);
	}
	return 0;
}

/* The first run of data in [off, end). -ENXIO: there is none. */
static int next_data(int fd, uint64_t off, uint64_t end, uint64_t *ret_start, uint64_t *ret_end)
{
	off_t data = lseek(fd, (off_t)off, SEEK_DATA), hole;

	if (data < 0)
		return -errno;
	if ((uint64_t)data >= end)
		return -ENXIO;
	hole = lseek(fd, data, SEEK_HOLE);
	if (hole < 0)
		return -errno;
	*ret_start = (uint64_t)data;
	*ret_end = (uint64_t)hole < end ? (uint64_t)hole : end;
	return 0;
}

int cache_data_next(int fd, uint64_t idx, uint64_t *ret_idx, uint64_t *ret_blocks)
{
	uint64_t start = 0, stop = 0, base, blocks = 0;
	int rc = next_data(fd, idx * INDEX_CHUNK, INT64_MAX, &start, &stop);

	if (rc)
		return rc;
	idx = start / INDEX_CHUNK;
	base = idx * INDEX_CHUNK;
	while (rc == 0) {
		for (uint64_t pos = start; pos < stop && pos < base + INDEX_CHUNK;
		     pos = (pos / STORE_BLOCK + 1) * STORE_BLOCK)
			blocks |= (uint64_t)1 << (pos - base) / STORE_BLOCK;
		if (stop >= base + INDEX_CHUNK)
			break;
		rc = next_data(fd, stop, base + INDEX_CHUNK, &start, &stop);
	}
	if (rc && rc != -ENXIO)
		return rc;
	*ret_idx = idx;
	*ret_blocks = blocks;
	return 0;
}

static int zero_by_writing(int fd, uint64_t off, uint64_t len)
{
	while (len) {
		size_t want = len < STORE_LEN_MAX ? (size_t)len : STORE_LEN_MAX;
		ssize_t n = pwrite(fd, store_zeros, want, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

static int punch(int fd, uint64_t off, uint64_t len)
{
	while (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len)) {
		if (errno == EOPNOTSUPP || errno == ENOSYS)
			return zero_by_writing(fd, off, len);
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

int cache_data_punch_rest(int fd, const struct index_row *rows, size_t count, uint64_t *ret_blocks)
{
	uint64_t idx = 0, blocks = 0, punched = 0;
	size_t row = 0;
	int rc;

	while ((rc = cache_data_next(fd, idx, &idx, &blocks)) == 0) {
		while (row < count && rows[row].chunk.idx < idx)
			row++;
		if (row < count && rows[row].chunk.idx == idx)
			blocks &= ~rows[row].chunk.resident;
		for (unsigned pos = 0, len = 0; cache_run_next(blocks, &pos, &len); pos += len) {
			rc = punch(fd, idx * INDEX_CHUNK + (uint64_t)pos * STORE_BLOCK,
			    (uint64_t)len * STORE_BLOCK);
			if (rc)
				return rc;
			punched += len;
		}
		idx++;
	}
	if (rc != -ENXIO)
		return rc;
	*ret_blocks = punched;
	return 0;
}

int cache_data_sync(int fd)
{
	while (fdatasync(fd))
		if (errno != EINTR)
			return -errno;
	return 0;
}
