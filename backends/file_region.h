/* SPDX-License-Identifier: Apache-2.0
 *
 * One region in a file or on a block device, as a store over core/blk.h.
 */
#ifndef REMRAM_BACKENDS_FILE_REGION_H
#define REMRAM_BACKENDS_FILE_REGION_H

#include "backends/file_space.h"

/* Makes the store of a file or block device that is open for reading and writing.  Takes fd, on
 * failure too; keeps space, file and workers until the store is destroyed.  The store is as long as
 * the device; for a file, as the file system lets a file grow, at most size_max. */
int file_region_create(int fd, struct space *space, struct space_file *file, uint64_t size_max,
    struct workers *workers, struct store **ret_store, struct err *err);

/* A block device's size in bytes; 0 or -errno. */
int file_device_size(int fd, uint64_t *ret_size);

#endif
