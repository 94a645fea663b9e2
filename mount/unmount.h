/* SPDX-License-Identifier: Apache-2.0
 *
 * Undoing a mount: swap off, loop devices detached, data out, unmounted, the daemon gone, nothing
 * left under /run/remram.
 */
#ifndef REMRAM_MOUNT_UNMOUNT_H
#define REMRAM_MOUNT_UNMOUNT_H

#include <stdbool.h>

#include "core/err.h"
#include "mount/runstate.h"

struct unmount {
	const char *dir; /* the mount point: absolute, without symlinks */
	const char *run_dir; /* its directory, locked by the caller */
	/* Detach the tree now, also if it is in use; the daemon ends when the last user does. */
	bool lazy;
	/* Give up on the donor: what waits for it fails, what it had of the swap is lost. */
	bool force;
	/* Readable (or hung up) when the daemon has ended; -1: its process is watched. */
	int daemon_fd;
	const volatile int *interrupted; /* as in struct attach */
};

/* What waits for the donor of the mount (of this device) fails now, or its connection is cut.  Needs no lock:
 * a command that holds it may be one that waits. */
void unmount_give_up(const char *run_dir, dev_t dev);

/* Undoes the mount.
 *
 * In order: refuse if the donor is lost (unless force), if something uses the mount or a loop device,
 * or if the memory is too short for what is swapped out; then swapoff, detach, unpin, sync, umount(2),
 * wait for the daemon's end, remove run_dir.  Nothing has been changed after a refusal (-EBUSY,
 * -ENOMEM, -EHOSTUNREACH).  If umount(2) fails after all, swap and loop devices are attached again.
 * A mount whose daemon is dead is cleaned up and detached; *ret_note then says so.
 * -ENOENT: nothing is mounted there, nor known of such a mount.  ret_note: ERR_TEXT_MAX bytes, "" if
 * there is nothing to say. */
int unmount_run(const struct unmount *unmount, char *ret_note, struct err *err);

/* The last resort for a mount that was only just made: detaches it whatever the state, waits for its
 * daemon (a process that does not end within seconds is killed), and removes run_dir, unless a device
 * could not be detached: then `remram umount` can try again. */
void unmount_abandon(const struct unmount *unmount, pid_t daemon);

#endif
