/* SPDX-License-Identifier: Apache-2.0
 *
 * The FUSE frontend: a pool as a directory of files.
 *
 * libfuse mounts (fs_mount); the requests themselves are read from /dev/fuse and answered here, on one
 * loop.  A file's node id is its region's id, a file handle is its handle's number.
 *
 * Consistency is close-to-open: names are asked for at each lookup, an open drops what the kernel has
 * cached of a file if anybody else has written since, and so does a notice of the pool's while it is open.  A
 * write has reached the pool when it returns.
 *
 * A file that another client writes to can't be opened for writing (EBUSY): see core/pool.h, Leases.
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
	bool shared; /* opens for writing take no lease (POOL_SHARED) */
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

/* A region that is open here. */
struct fs_open_region {
	const char *name; /* as last seen */
	uint64_t size; /* bytes */
	unsigned opens, writers; /* handles, and those of them that write */
	bool lease_lost; /* to another client: those that write no longer can */
};

void fs_for_each_open(
    const struct fs *fs, void (*region)(void *ctx, const struct fs_open_region *open), void *ctx);

/* The last time that somebody else's lease or pin was in the way. */
struct fs_refusal {
	char name[POOL_NAME_MAX + 1];
	char holder[POOL_HOLDER_MAX];
	uint64_t at_ns; /* loop_now_ns(); 0: never */
};
const struct fs_refusal *fs_last_refusal(const struct fs *fs);

#endif
