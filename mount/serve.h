/* SPDX-License-Identifier: Apache-2.0
 *
 * The mount daemon: one process that serves one mount until it is unmounted.
 */
#ifndef REMRAM_MOUNT_SERVE_H
#define REMRAM_MOUNT_SERVE_H

#include <stddef.h>

#include "core/err.h"
#include "mount/conf.h"

/* What a stage of starting up ended with, and with which of mount(8)'s exit codes. */
enum mount_exit {
	MOUNT_EX_OK = 0,
	MOUNT_EX_USAGE = 1, /* bad invocation or permissions */
	MOUNT_EX_SYSERR = 2, /* out of memory, cannot fork, no /dev/fuse */
	MOUNT_EX_SOFTWARE = 4, /* internal bug */
	MOUNT_EX_USER = 8, /* interrupted */
	MOUNT_EX_FILEIO = 16, /* problems with our files under /run/remram */
	MOUNT_EX_FAIL = 32, /* mount failure */
	MOUNT_EX_SOMEOK = 64,
};

/* Connects to the donor (or opens the backend), mounts, and serves requests.  When the mount answers,
 * calls ready(ctx) once.  Returns when the mount is gone (unmounted or aborted) and everything is
 * shut down: 0, or -errno with err set and *ret_exit a mount_exit if it could not start.  Called in
 * the process that stays (after daemonizing), single-threaded; conf is borrowed until return. */
int serve(const struct mount_conf *conf, void (*ready)(void *ctx), void *ctx, int *ret_exit,
    struct err *err);

#endif
