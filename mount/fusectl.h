/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernel's control files of FUSE connections: /sys/fs/fuse/connections/N.
 */
#ifndef REMRAM_MOUNT_FUSECTL_H
#define REMRAM_MOUNT_FUSECTL_H

#include <stdint.h>
#include <sys/types.h>

#include "core/err.h"

/* The connection's number N of a mount whose files have st_dev dev. */
unsigned fusectl_connection(dev_t dev);

/* Mounts fusectl where it belongs if it is not there yet: 0 or -errno. */
int fusectl_mount(void);

/* Reads the number in connections/N/name ("waiting", "max_background"): 0 or -errno; -ENOENT: no
 * such connection (any more). */
int fusectl_read(unsigned connection, const char *name, uint64_t *ret_value);

/* Ends the connection: whoever waits for it gets an error at once, and its daemon ends.  -ENOENT: it
 * is gone already. */
int fusectl_abort(unsigned connection, struct err *err);

#endif
