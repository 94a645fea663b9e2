/* SPDX-License-Identifier: Apache-2.0
 *
 * The state of the mount daemon, and its answer to "status".
 */
#ifndef REMRAM_MOUNT_SERVE_STATUS_H
#define REMRAM_MOUNT_SERVE_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/loop.h"
#include "core/pool.h"
#include "core/store.h"
#include "mount/conf.h"

struct daemon {
	const struct mount_conf *conf;
	uint64_t start_ns;
	struct loop *loop;
	struct workers *workers; /* NULL for a donor's pool */
	struct pool *pool; /* what is served: the donor's, a local one, ahead, or caching's */
	struct pool *donor; /* the donor's, or NULL */
	struct pool *backend; /* a local one, or NULL */
	struct pool *ahead; /* the donor's, with reading ahead; or NULL */
	struct caching *caching; /* NULL: no local copies */
	bool cached; /* pool is caching's */
	struct managed_control *managed_control; /* with caching */
	bool first_is_here, left; /* pull_first= is done; caching has ended */
	struct store_stats *stats; /* of all data requests */
	bool pool_answered;
	struct err err; /* what the donor said */
	int fd; /* /dev/fuse */
	struct fs *fs;
	bool mounted, gone;
	struct control *control;
	struct loop_fd signals;
	struct swapwatch *swapwatch; /* with caching, or NULL */
	struct loop_timer end_timer;
};

/* control_ops.status: daemon is ctx.  Allocates nothing. */
size_t serve_status(void *daemon, char *buf, size_t room);

/* MS_* flags as a list of mount options: "ro,noexec", "rw". */
const char *serve_flag_options(unsigned long flags);

#endif
