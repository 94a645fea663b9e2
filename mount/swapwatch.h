/* SPDX-License-Identifier: Apache-2.0
 *
 * Swap on a mount that has a cache, made by hand: nothing can refuse it, so it is said at once.
 *
 * A daemon with local copies is not locked in memory, and what is swapped out to it takes memory: when memory is
 * short, both wait for each other.  The mount's own options refuse it (mount/conf.c); losetup and swapon cannot be
 * stopped, as the kernel tells a file system neither who opens a file nor what a loop device is used for.
 */
#ifndef REMRAM_MOUNT_SWAPWATCH_H
#define REMRAM_MOUNT_SWAPWATCH_H

#include <stdbool.h>

#include "core/loop.h"
#include "mount/loopdev.h"
#include "mount/swapdev.h"

/* Calls each(ctx, loop, swap) for every loop device on a file of the mount at dir, until it returns false; swap:
 * what it is used for, or NULL.  Reads /proc and /sys only. */
void swapwatch_each(const char *dir,
    bool (*each)(void *ctx, const struct loopdev *loop, const struct swapdev *swap), void *ctx);

struct swapwatch;

/* Logs a warning whenever a loop device on a file of the mount at dir (kept) has become swap.  0 or -errno: this
 * kernel does not tell. */
int swapwatch_start(struct loop *loop, const char *dir, struct swapwatch **ret_watch);
/* NULL does nothing. */
void swapwatch_stop(struct swapwatch *watch);

#endif
