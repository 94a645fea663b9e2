/* SPDX-License-Identifier: Apache-2.0
 *
 * Regions on loop devices, and swap on one of them: what the mount command does once the mount
 * answers, and what umount undoes before it unmounts.  Runs in the command, not in the daemon, with
 * the lock of the run directory held.
 */
#ifndef REMRAM_MOUNT_ATTACH_H
#define REMRAM_MOUNT_ATTACH_H

#include <stdint.h>

#include "core/err.h"
#include "mount/loopdev.h"
#include "mount/runstate.h"

struct attach {
	const char *run_dir;
	struct runstate *state; /* devices: what is wanted; kept up to date, here and in the file */
	const volatile int *interrupted; /* set by a signal: give up; may be NULL */
};

/* Looks whether dev (of state->devices) is on its loop device: 0, or -ENXIO if the device has no file or
 * one that is not ours. */
int attach_inspect(
    const struct runstate *state, const struct runstate_device *dev, struct loopdev *ret_loop);

/* Attaches all of state->devices.  The swap region is made with swap_size bytes if it is not there,
 * reserved in full at the donor, and formatted, unless it holds anything but zeros or swap
 * (-EEXIST).  On failure everything is undone, also a region that was made. */
int attach_all(const struct attach *attach, uint64_t swap_size, struct err *err);

/* Attaches again what detach_all detached: nothing is created or formatted. */
int attach_again(const struct attach *attach, struct err *err);

/* Would detach_all succeed?  Is the memory large enough to read the swap back, is no loop device in
 * use?  0, -ENOMEM, -EBUSY; nothing is changed. */
int detach_check(const struct runstate *state, struct err *err);

/* Swap off, loop devices detached, pins taken back, in the reverse order, waiting.  Stops at the first
 * thing that fails and leaves the rest as it is. */
int detach_all(const struct attach *attach, struct err *err);

#endif
