/* SPDX-License-Identifier: Apache-2.0
 *
 * What is known about live mounts: one directory per mount, /run/remram/ID, where ID is the mount
 * point written as systemd-escape --path does (/mnt/remote → mnt-remote; a long one is cut and ends
 * in a hash).  It holds
 *
 *   control      the daemon's control socket (mount/control.h)
 *   mount.conf   what the commands must know to undo the mount; struct runstate, as lines of text
 *   NAME         for each region NAME on a loop device: a symbolic link to /dev/loopN, stable for as
 *                long as the mount lives: what a script or a person names the device by
 *
 * A command that changes a mount holds the lock of its directory, so that commands for one mount
 * point run one after the other; the kernel frees the lock of a command that dies.
 *
 * Functions return 0 or -errno and block.
 */
#ifndef REMRAM_MOUNT_RUNSTATE_H
#define REMRAM_MOUNT_RUNSTATE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/err.h"
#include "core/pool.h"
#include "mount/conf.h"

enum {
	RUNSTATE_DEVICES_MAX = MOUNT_LOOPS_MAX + 1, /* loops and one swap */
	RUNSTATE_DEVICE_MAX = 32, /* bytes of "/dev/loopN" */
};

/* A region that the mount command put on a loop device. */
struct runstate_device {
	char region[POOL_NAME_MAX + 1];
	char device[RUNSTATE_DEVICE_MAX]; /* "": not attached (yet, or any more) */
	bool swap; /* the device is swap */
	bool discard; /* … with SWAP_FLAG_DISCARD */
	bool read_only;
	uint32_t prio; /* … with this priority, or MOUNT_PRIO_NONE */
	uint64_t id; /* the region's that was pinned; 0: none was, as far as is known */
};

struct runstate {
	char dir[PATH_MAX]; /* the mount point */
	char source[URI_TEXT_MAX];
	pid_t pid; /* the daemon; 0: not started yet */
	uint64_t
	    start; /* when it started, so that its number is not mistaken (sys_process_start) */
	struct runstate_device devices[RUNSTATE_DEVICES_MAX]; /* in the order of attaching */
	unsigned device_count;
};

/* Where the mount directories are: /run/remram unless a test names another place. */
void runstate_set_base(const char *base);
const char *runstate_base(void);

/* The directory for mount point dir (absolute).  buf holds MOUNT_RUN_DIR_MAX bytes; returns buf. */
char *runstate_dir(const char *dir, char *buf);

/* Takes the lock of run_dir, and makes the directory (0755) if `create`.  Waits at most timeout_ms for
 * another command: then -EBUSY.  -ENOENT: no such directory.  *ret_fd is the lock: runstate_unlock it.
 * A child that outlives the command must close its copy. */
int runstate_lock(
    const char *run_dir, bool create, unsigned timeout_ms, int *ret_fd, struct err *err);
void runstate_unlock(int fd);

/* mount.conf, replaced as a whole: a reader finds the old or the new state. */
int runstate_save(const char *run_dir, const struct runstate *state, struct err *err);
/* -ENOENT: nothing is stored; -EINVAL: it makes no sense. */
int runstate_load(const char *run_dir, struct runstate *ret_state, struct err *err);

/* False for names that RUN_DIR/NAME has other uses for: such a region cannot be put on a loop device
 * by the mount command. */
bool runstate_name_ok(const char *region);
/* Makes or removes the link RUN_DIR/NAME. */
int runstate_link(const char *run_dir, const char *region, const char *device, struct err *err);
void runstate_unlink(const char *run_dir, const char *region);

/* Removes the directory and everything in it. */
void runstate_remove(const char *run_dir);

/* True while the daemon lives. */
bool runstate_alive(const struct runstate *state);

/* Calls each(ctx, run_dir, state) for every mount there is a state of, in the order of the names. */
int runstate_each(
    void (*each)(void *ctx, const char *run_dir, const struct runstate *state), void *ctx);

#endif
