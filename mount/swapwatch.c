/* SPDX-License-Identifier: Apache-2.0
 *
 * Swap on a mount that has a cache; see swapwatch.h.
 *
 * The kernel makes /proc/swaps ready for EPOLLPRI when a swap was switched on or off.  Then it is read, and so
 * are the loop devices in /sys, which ask no file system.  A device is warned of once for as long as it is swap.
 *
 * Everything runs on the mount's loop; there are no locks.  It may fail: then nothing is logged, and status and
 * doctor, which look for themselves, still tell.
 */
#include "mount/swapwatch.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "core/log.h"

enum { WARNED_MAX = 16 };

struct swapwatch {
	struct loop_fd swaps; /* first */
	const char *dir;
	char warned[WARNED_MAX][LOOPDEV_PATH_MAX]; /* "": a free place */
};

struct each {
	const char *dir;
	bool (*each)(void *ctx, const struct loopdev *loop, const struct swapdev *swap);
	void *ctx;
};

static bool loop_each(void *ctx, const struct loopdev *loop)
{
	const struct each *each = ctx;
	size_t len = strlen(each->dir);
	struct swapdev swap;

	if (strncmp(loop->file, each->dir, len) || loop->file[len] != '/')
		return true;
	return each->each(
	    each->ctx, loop, swapdev_find(loop->path, &swap, NULL) == 0 ? &swap : NULL);
}

void swapwatch_each(const char *dir,
    bool (*each)(void *ctx, const struct loopdev *loop, const struct swapdev *swap), void *ctx)
{
	struct each all = {dir, each, ctx};

	loopdev_each(loop_each, &all);
}

/* Those that are swap no more may be warned of again. */
static void forget(struct swapwatch *watch)
{
	struct swapdev swap;

	for (unsigned i = 0; i < WARNED_MAX; i++) {
		if (watch->warned[i][0] && swapdev_find(watch->warned[i], &swap, NULL) == -ENOENT)
			watch->warned[i][0] = '\0';
	}
}

static bool warn_each(void *ctx, const struct loopdev *loop, const struct swapdev *swap)
{
	struct swapwatch *watch = ctx;
	char *place = NULL;

	if (!swap)
		return true;
	for (unsigned i = 0; i < WARNED_MAX; i++) {
		if (!strcmp(watch->warned[i], loop->path))
			return true;
		if (!watch->warned[i][0])
			place = watch->warned[i];
	}
	if (place)
		strcpy(place, loop->path);
	log_warn(
	    "%s is swap on %s, which has a local copy: when memory is short, that copy and the "
	    "swap wait for each other, and the machine hangs: swapoff %s, and mount with swap= "
	    "and without cache=",
	    loop->path, loop->file, loop->path);
	return true;
}

static void swaps_changed(struct loop_fd *lfd, uint32_t events)
{
	struct swapwatch *watch = (struct swapwatch *)lfd;

	forget(watch);
	swapwatch_each(watch->dir, warn_each, watch);
}

int swapwatch_start(struct loop *loop, const char *dir, struct swapwatch **ret_watch)
{
	struct swapwatch *watch = calloc(1, sizeof(*watch));
	int rc;

	if (!watch)
		return -ENOMEM;
	watch->dir = dir;
	watch->swaps.ready = swaps_changed;
	watch->swaps.fd = open("/proc/swaps", O_RDONLY | O_CLOEXEC);
	rc = watch->swaps.fd < 0 ? -errno : loop_fd_add(loop, &watch->swaps, EPOLLPRI);
	if (rc) {
		if (watch->swaps.fd >= 0)
			close(watch->swaps.fd);
		free(watch);
		return rc;
	}
	*ret_watch = watch;
	return 0;
}

void swapwatch_stop(struct swapwatch *watch)
{
	if (!watch)
		return;
	loop_fd_del(&watch->swaps);
	close(watch->swaps.fd);
	free(watch);
}
