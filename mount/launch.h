/* SPDX-License-Identifier: Apache-2.0
 *
 * The processes of a mount: the one that serves it, and the one that sets it up.
 */
#ifndef REMRAM_MOUNT_LAUNCH_H
#define REMRAM_MOUNT_LAUNCH_H

#include "core/err.h"
#include "mount/conf.h"

/* Makes the mount: starts the daemon (serve() of mount/serve.h), waits until the mount answers,
 * attaches loop devices and swap.  lock is the lock of conf->run_dir, taken over.  Returns one of
 * enum mount_exit, with err set unless it is MOUNT_EX_OK; on failure nothing is left.
 *
 * With conf->foreground this process serves and returns when the mount has ended (SIGINT and SIGTERM
 * unmount it); else a daemon serves, and this returns when everything is set up. */
int launch(const struct mount_conf *conf, int lock, struct err *err);

#endif
