/* SPDX-License-Identifier: Apache-2.0
 *
 * The FUSE frontend: a pool as a directory of files.
 *
 * libfuse mounts (fs_mount); the requests themselves are read from /dev/fuse and answered here, on one
 * loop.  A file's node id is its region's id, a file handle is its handle's number.
 *
 * Consistency is close-to-open: names are asked for at each lookup, an open drops what the kernel has
 * cached of a file if anybody else has written since.  A write has reached the pool when it returns.
 */
#ifndef REMRAM_FUSE_FS_H
#define REMRAM_FUSE_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/loop.h"
#include "core/pool.h"

struct fs;

struct fs_conf {
	struct pool *pool; /* kept */
	bool read_only;
	uint32_t
	    max_background; /* requests that the kernel may have in flight without a process waiting */
	uint64_t attr_timeout_ms; /* how long the kernel may trust attributes of an open file */
	bool touch; /* write to all buffers now: the process is going to lock its memory */

	void (*ready)(void *ctx); /* the kernel has shaken hands: the mount answers */
	void (*gone)(
	    void *ctx, int err); /* the mount is no more: 0 unmounted, else an error of /dev/fuse */
	void *ctx;
};

/* Mounts with libfuse: source and type fuse.remram show up in /proc/mounts.  options: what follows -o
 * beside what is always set (allow_other, default_permissions, …); "" for none.  Returns the
 * descriptor of /dev/fuse, owned by the caller, or -errno. */
int fs_mount(const char *source, const char *dir, const char *options, struct err *err);
/* Detaches the mount from dir; requests go on until the last file is closed. */
void fs_unmount(const char *dir);

/* Serves fd (kept, not closed by destroy).  conf is borrowed until return. */
int fs_create(
    struct loop *loop, int fd, const struct fs_conf *conf, struct fs **ret_fs, struct err *err);
/* After gone, when nothing is in flight any more (fs_idle). */
void fs_destroy(struct fs *fs);
/* True when no request is in flight and no handle is open.  After gone it becomes so: what the kernel left
 * open is closed when the last request has ended. */
bool fs_idle(const struct fs *fs);

/* A loop device or swap uses region `id` from now on (or no more): its opens carry POOL_PIN, with which
 * the pool refuses to remove, rename or resize it (EBUSY).  -ENOENT if the kernel does not know the
 * region: it must be open or just looked at. */
int fs_pin(struct fs *fs, uint64_t id, bool on);

/* The name of a region that is pinned, or NULL if none is. */
const char *fs_pinned(const struct fs *fs);

struct fs_stats {
	uint64_t requests; /* read from /dev/fuse */
	unsigned in_flight;
	unsigned nodes;
};
void fs_get_stats(const struct fs *fs, struct fs_stats *ret_stats);

/* Calls region(ctx, name, size, opens) for every region that is open here. name is as last seen. */
void fs_for_each_open(const struct fs *fs,
    void (*region)(void *ctx, const char *name, uint64_t size, unsigned opens), void *ctx);

#endif
