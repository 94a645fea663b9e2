/* SPDX-License-Identifier: Apache-2.0
 *
 * Swap on a block device: what is on it, formatting, switching on and off.
 */
#ifndef REMRAM_MOUNT_SWAPDEV_H
#define REMRAM_MOUNT_SWAPDEV_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/err.h"

enum swapdev_content {
	SWAPDEV_EMPTY, /* nothing but zeros */
	SWAPDEV_SWAP, /* a swap signature */
	SWAPDEV_OTHER, /* something else: keep your hands off */
};

/* What the first size bytes of the open file or device fd hold.  Reads whatever may hold data (holes
 * are passed over), so it takes a while on a large region that is not sparse.  0 or -errno. */
int swapdev_content(int fd, uint64_t size, enum swapdev_content *ret_content);

/* Formats the device with the system's mkswap, with a new random UUID.  label: at most 15 bytes. */
int swapdev_format(const char *device, const char *label, struct err *err);

/* swapon(2). prio: 0 … 32767, or MOUNT_PRIO_NONE. */
int swapdev_on(const char *device, uint32_t prio, bool discard, struct err *err);

/* swapoff(2), in a process of its own: waits until everything is read back.  On failure the device
 * still is swap: -ENOMEM: memory is too short; -EINTR: a signal ended the wait (the one that sets
 * *interrupted, if interrupted is not NULL). */
int swapdev_off(const char *device, const volatile int *interrupted, struct err *err);

/* A line of /proc/swaps. */
struct swapdev {
	char path[PATH_MAX];
	uint64_t size, used; /* bytes */
	int prio;
};

/* Calls each(ctx, swap) for each line of `in` (in the format of /proc/swaps). */
void swapdev_parse(FILE *in, void (*each)(void *ctx, const struct swapdev *swap), void *ctx);

/* The swap on device: 0, or -ENOENT if it is not swap.  *ret_others_free: the free bytes of all other
 * swaps; may be NULL. */
int swapdev_find(const char *device, struct swapdev *ret_swap, uint64_t *ret_others_free);

#endif
