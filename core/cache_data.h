/* SPDX-License-Identifier: Apache-2.0
 *
 * What the index does with a region's data file: checksums of blocks, what is data, punching, syncing.
 *
 * All functions block.  A file that is shorter than the region reads as zeros beyond its end.
 */
#ifndef REMRAM_CORE_CACHE_DATA_H
#define REMRAM_CORE_CACHE_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/cache_db.h"

enum { INDEX_BUF = 64 * 1024 };

/* Reads [off, off+len), with zeros beyond the file's end.  0 or -errno. */
int cache_data_read(int fd, void *buf, size_t len, uint64_t off);

/* Computes the checksums of the blocks `mask` of chunk idx into sums[] (one slot per block of the
 * chunk).  buf: INDEX_BUF bytes to work with. */
int cache_data_sums(
    int fd, uint64_t idx, uint64_t mask, void *buf, uint32_t sums[INDEX_CHUNK_BLOCKS]);

/* The first chunk ≥ idx that has data, and which of its blocks do.  -ENXIO: there is none. */
int cache_data_next(int fd, uint64_t idx, uint64_t *ret_idx, uint64_t *ret_blocks);

/* Gives back all data that rows (by idx) do not call resident; *ret_blocks: how many. */
int cache_data_punch_rest(int fd, const struct index_row *rows, size_t count, uint64_t *ret_blocks);

/* fdatasync. */
int cache_data_sync(int fd);

/* The next run of blocks in a bitmap, from *pos on: true and [*pos, *pos + *ret_len); false if there is
 * none. */
bool cache_run_next(uint64_t bits, unsigned *pos, unsigned *ret_len);

#endif
