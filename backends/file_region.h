/* SPDX-License-Identifier: Apache-2.0
 *
 * One region in a file or on a block device, as a store over core/blk.h.
 */
#ifndef REMRAM_BACKENDS_FILE_REGION_H
#define REMRAM_BACKENDS_FILE_REGION_H

#include "backends/file_space.h"

/* Makes the store, `size` bytes at most, of a file or block device that is open for reading and
 * writing; where the file system can't make a file so long, writes and resizes fail with -EFBIG.
 * Takes fd, on failure too; keeps space, file and workers until the store is destroyed.  A device
 * is not counted: space and file are not used. */
int file_region_create(int fd, struct space *space, struct space_file *file, uint64_t size,
    struct workers *workers, struct store **ret_store, struct err *err);

#endif
