/* SPDX-License-Identifier: Apache-2.0
 *
 * Loop devices over region files: attached with direct I/O and 4096-byte blocks or not at all.
 *
 * Without direct I/O every byte is kept in the page cache as well, charged to whoever is just being
 * reclaimed, and only one request is in flight: as swap that frees no memory and may end in the OOM
 * killer.
 *
 * The inspecting functions read sysfs only: they work when the file system below hangs.
 */
#ifndef REMRAM_MOUNT_LOOPDEV_H
#define REMRAM_MOUNT_LOOPDEV_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"

enum { LOOPDEV_PATH_MAX = 32, LOOPDEV_BLOCK = 4096 };

struct loopdev {
	char path[LOOPDEV_PATH_MAX]; /* "/dev/loopN" */
	char file[PATH_MAX]; /* what it is on, as the kernel names it */
	uint64_t size; /* bytes */
	unsigned block_size;
	bool direct_io;
	bool read_only;
};

/* Puts the open file fd on a free loop device; file is its path, for `losetup -l`.  fails with
 * -EOPNOTSUPP if the kernel does not switch direct I/O on.  fd may be closed afterwards. */
int loopdev_attach(
    int fd, const char *file, bool read_only, char ret_path[LOOPDEV_PATH_MAX], struct err *err);

/* Takes the device off its file, and waits until that has happened: somebody (udev, blkid) may still
 * be looking at it.  -EBUSY after timeout_ms: it goes away when its last user does.  A device that
 * has no file is fine. */
int loopdev_detach(const char *path, unsigned timeout_ms, struct err *err);

/* What is known of the device: 0, -ENXIO if it has no file, -ENOENT if there is no such device. */
int loopdev_inspect(const char *path, struct loopdev *ret_loop);

/* Calls each(ctx, loop) for all devices that have a file, until it returns false. */
void loopdev_each(bool (*each)(void *ctx, const struct loopdev *loop), void *ctx);

/* The device that is on exactly this file: 0 or -ENOENT. */
int loopdev_find(const char *file, struct loopdev *ret_loop);

/* Attaches a file of 1 MiB in dir and detaches it again: what would loopdev_attach say on this
 * machine?  *ret_direct_io: whether the kernel did direct I/O on that file system; it says nothing
 * about other file systems. */
int loopdev_probe(const char *dir, bool *ret_direct_io, struct err *err);

#endif
