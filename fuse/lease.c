/* SPDX-License-Identifier: Apache-2.0
 *
 * Other clients of the same pool: what they have changed, and what they do not let us open.
 *
 * A notice of the pool's makes the kernel drop the pages of that file (FUSE_NOTIFY_INVAL_INODE).  The kernel
 * does that while the descriptor is written to, and waits for pages that are being read or written: for
 * requests that only this process answers.  So a thread of its own writes the notifications, one at a time,
 * and the loop goes on.  A file's pages (enum fs_stale):
 *
 *   FRESH → (notice) QUEUED → (the thread is free) DROPPING → FRESH
 *   DROPPING → (notice) AGAIN → (dropped) QUEUED
 *
 * A thread that waits for a page cannot be killed, and keeps the device open: a daemon that is killed just then
 * leaves a connection that nobody serves, until it is aborted (mount/unmount.c does so).
 *
 * An answer to a READ that was under way before the notice is not lost sight of: its page is locked, the kernel
 * waits for it and then drops it.
 *
 * Invariants:
 *   1. fs->stale lists the nodes that are QUEUED; one that the kernel forgets leaves the list, its pages are
 *      gone.
 *   2. fs->dropping is not 0 exactly while the thread has fs->drop.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>

#include "fuse/fs_int.h"

/* A lease is given back by the RELEASE that follows a close, whenever the kernel gets to it: who opens right
 * after another's close asks again after 10, 20, 40, 80 and 160 ms. */
enum { TRIES = 5, TRY_NS = 10000000 };

/* ---- pages to drop ---- */

static void drop_run(struct work *work)
{
	struct fs *fs = (struct fs *)((char *)work - offsetof(struct fs, drop));
	struct fuse_notify_inval_inode_out inval = {.ino = fs->dropping}; /* len 0: all of it */
	struct fuse_out_header out = {
	    .len = sizeof(out) + sizeof(inval), .error = FUSE_NOTIFY_INVAL_INODE};
	struct iovec iov[2] = {{&out, sizeof(out)}, {&inval, sizeof(inval)}};

	/* ENOENT: the kernel has forgotten the file; ENOTCONN, ENODEV: the mount is gone. */
	if (writev(fs->dev.fd, iov, 2) < 0 && errno != ENOENT && errno != ENOTCONN &&
	    errno != ENODEV)
		log_error("/dev/fuse refuses a notification: %s", strerror(errno));
}

static void drop_next(struct fs *fs)
{
	struct fs_node *node = fs->stale;

	if (fs->dropping || !node || fs->gone)
		return;
	fs_stale_forget(fs, node);
	node->stale = FS_STALE_DROPPING;
	fs->dropping = node->id;
	workers_submit(fs->dropper, &fs->drop);
}

static void queue(struct fs *fs, struct fs_node *node)
{
	node->stale = FS_STALE_QUEUED;
	node->stale_next = NULL;
	*fs->stale_tail = node;
	fs->stale_tail = &node->stale_next;
}

static void drop_done(struct work *work)
{
	struct fs *fs = (struct fs *)((char *)work - offsetof(struct fs, drop));
	struct fs_node *node = fs_node_find(fs, fs->dropping);

	fs->dropping = 0;
	if (node && node->stale == FS_STALE_AGAIN)
		queue(fs, node);
	else if (node && node->stale == FS_STALE_DROPPING)
		node->stale = FS_FRESH;
	drop_next(fs);
}

void fs_stale_forget(struct fs *fs, struct fs_node *node)
{
	struct fs_node **link = &fs->stale;

	if (node->stale != FS_STALE_QUEUED)
		return;
	while (*link != node)
		link = &(*link)->stale_next;
	*link = node->stale_next;
	if (!*link)
		fs->stale_tail = link;
	node->stale = FS_FRESH;
}

static void notified(void *ctx, const struct pool_notice *notice)
{
	struct fs *fs = ctx;
	struct fs_node *node = fs_node_find(fs, notice->id);

	if (!node)
		return;
	node->size = notice->size;
	if (node->stale == FS_STALE_DROPPING)
		node->stale = FS_STALE_AGAIN;
	else if (node->stale == FS_FRESH)
		queue(fs, node);
	drop_next(fs);
}

/* ---- leases ---- */

static void ask(struct loop_timer *timer)
{
	struct fs_req *req = (struct fs_req *)((char *)timer - offsetof(struct fs_req, again));

	pool_submit(req->fs->pool, &req->preq);
}

/* The region's name; REMOVE and RENAME have nothing else of it. */
static const char *refused_name(const struct fs_req *req)
{
	const struct pool_req *preq = &req->preq;
	const struct fs_node *node;

	if (preq->op == POOL_REMOVE || preq->op == POOL_RENAME)
		return preq->name;
	node = fs_node_find(req->fs, req->nodeid);
	return node && node->name ? node->name : "";
}

void fs_refused(struct fs_req *req)
{
	struct fs *fs = req->fs;
	struct fs_refusal *refusal = &fs->refusal;

	if (!*req->preq.ret_holder)
		return;
	snprintf(refusal->name, sizeof(refusal->name), "%s", refused_name(req));
	memcpy(refusal->holder, req->preq.ret_holder, sizeof(refusal->holder));
	refusal->at_ns = loop_now_ns();
	if (log_allowed(&fs->refusal_limit))
		log_warn("region \"%s\" is being written to by %s: device or resource busy",
		    refusal->name, refusal->holder);
}

bool fs_ask_again(struct fs_req *req, int err)
{
	struct fs *fs = req->fs;

	if (err != -EBUSY)
		return false;
	if (req->tries == TRIES || req->interrupted || fs->gone) {
		fs_refused(req);
		return false;
	}
	req->again.expired = ask;
	loop_timer_set(fs->loop, &req->again, loop_now_ns() + ((uint64_t)TRY_NS << req->tries++));
	return true;
}

void fs_lease_lost(struct fs *fs, struct fs_node *node)
{
	if (!node->lease_lost && log_allowed(&fs->lost_limit))
		log_error(
		    "region \"%s\": its lease was lost to another client: what is written through "
		    "files that are open here fails until they are opened again",
		    node->name ? node->name : "");
	node->lease_lost = true;
}

const struct fs_refusal *fs_last_refusal(const struct fs *fs)
{
	return &fs->refusal;
}

/* ---- life ---- */

int fs_lease_init(struct fs *fs, struct err *err)
{
	fs->stale_tail = &fs->stale;
	fs->drop = (struct work){.run = drop_run, .done = drop_done};
	fs->pool->notify = notified;
	fs->pool->notify_ctx = fs;
	return workers_create(1, &fs->dropper, err);
}

void fs_lease_fini(struct fs *fs)
{
	if (fs->pool->notify_ctx == fs)
		fs->pool->notify = NULL;
	workers_destroy(fs->dropper);
}
