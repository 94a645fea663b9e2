/* SPDX-License-Identifier: Apache-2.0
 *
 * What is mounted where: /proc/self/mountinfo.  Never asks the mounted file systems anything, so a
 * mount that hangs is listed like any other.
 */
#ifndef REMRAM_MOUNT_MOUNTINFO_H
#define REMRAM_MOUNT_MOUNTINFO_H

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#include "core/err.h"

/* The type that a mount of ours has. */
#define MOUNTINFO_TYPE "fuse.remram"

struct mountinfo {
	unsigned id, parent; /* the mount's number and that of the one it is mounted in */
	dev_t dev; /* st_dev of its files */
	char dir[PATH_MAX]; /* where */
	char type[64]; /* file system type with subtype */
	char source[PATH_MAX]; /* what, cut if longer */
};

/* Calls each(ctx, info) for every line of `in` until it returns false.  Lines that make no sense are
 * passed over. */
void mountinfo_parse(FILE *in, bool (*each)(void *ctx, const struct mountinfo *info), void *ctx);
/* The same for this process's mounts: 0 or -errno. */
int mountinfo_each(bool (*each)(void *ctx, const struct mountinfo *info), void *ctx);

/* The uppermost mount at exactly dir: 0, or -ENOENT if nothing is mounted there. */
int mountinfo_find(const char *dir, struct mountinfo *ret_info);

/* dir as an absolute path without symlinks.  Works for a mount whose daemon is dead or hangs, since
 * only what is above the last component is looked at when the whole cannot be. */
int mountinfo_resolve(const char *dir, char ret_dir[PATH_MAX], struct err *err);

#endif
