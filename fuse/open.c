/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening and closing: a file handle is the number of its handle.
 *
 * fs->handles holds what is open.  A node remembers the version of what the kernel may have cached;
 * an open that finds another one tells the kernel to drop its pages.  O_DIRECT opens get
 * FOPEN_DIRECT_IO, with which direct writes run in parallel, where the kernel still lets them be
 * mapped (Linux 6.6).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/fs_int.h"

struct handle *fs_handle(const struct fs *fs, uint64_t fh)
{
	return fh < fs->handle_room ? fs->handles[fh] : NULL;
}

/* The lowest free number, reserved by the caller's request being the only one that opens: numbers of
 * opens in flight are marked. */
static struct handle reserved;

static int reserve_number(struct fs *fs, uint32_t *ret_number)
{
	struct handle **grown;
	uint32_t n = fs->handle_hint;

	while (n < fs->handle_room && fs->handles[n])
		n++;
	if (n >= POOL_HANDLE_MAX)
		return -ENFILE;
	if (n == fs->handle_room) {
		grown = realloc(fs->handles, 2 * n * sizeof(grown[0]));
		if (!grown)
			return -ENOMEM;
		memset(grown + n, 0, n * sizeof(grown[0]));
		fs->handles = grown;
		fs->handle_room = 2 * n;
	}
	fs->handles[n] = &reserved;
	fs->handle_hint = n + 1;
	*ret_number = n;
	return 0;
}

static void free_number(struct fs *fs, uint64_t n)
{
	fs->handles[n] = NULL;
	if (n < fs->handle_hint)
		fs->handle_hint = (uint32_t)n;
}

static unsigned access_of(uint32_t flags)
{
	switch (flags & O_ACCMODE) {
	case O_RDONLY:
		return POOL_READ;
	case O_WRONLY:
		return POOL_WRITE;
	default:
		return POOL_READ | POOL_WRITE;
	}
}

static unsigned open_flags(const struct fs *fs, uint32_t flags)
{
	unsigned access = access_of(flags);

	return access | (fs->conf.shared && access & POOL_WRITE ? POOL_SHARED : 0);
}

/* What the kernel is told of an open file; counts the open. */
static void opened(struct fs_req *req, bool keep_cache, struct fuse_open_out *ret_out)
{
	struct fs *fs = req->fs;
	struct pool_req *preq = &req->preq;
	struct fs_node *node = fs_node_find(fs, preq->attr.id);

	fs->handles[req->len] = preq->ret_handle;
	memset(ret_out, 0, sizeof(*ret_out));
	ret_out->fh = req->len;
	ret_out->open_flags = FOPEN_PARALLEL_DIRECT_WRITES;
	if (keep_cache)
		ret_out->open_flags |= FOPEN_KEEP_CACHE;
	if (req->arg & O_DIRECT && fs->direct_mmap)
		ret_out->open_flags |= FOPEN_DIRECT_IO;
	if (node) {
		node->opens++;
		if (preq->ret_handle->flags & POOL_WRITE) {
			node->writers++;
			node->lease_lost = false;
		}
		node->size = preq->attr.size;
		node->version = preq->attr.version;
	}
}

static void open_done(struct pool_req *preq, int err)
{
	struct fs_req *req = fs_req_of_pool(preq);
	struct fuse_open_out out;

	if (fs_ask_again(req, err))
		return;
	if (err) {
		free_number(req->fs, req->len);
		fs_reply_err(req, err);
		return;
	}
	opened(req, preq->ret_unchanged, &out);
	fs_reply(req, &out, sizeof(out));
}

enum fs_verdict fs_open(struct fs_req *req)
{
	const struct fuse_open_in *in = req->in;
	struct fs_node *node = fs_node_find(req->fs, req->nodeid);
	uint32_t number;
	int rc;

	fs_pool_req(req, POOL_OPEN, open_done);
	rc = reserve_number(req->fs, &number);
	if (rc) {
		fs_reply_err(req, rc);
		return FS_TAKEN;
	}
	req->arg = in->flags;
	req->len = number;
	req->preq.flags = open_flags(req->fs, in->flags) | (node && node->pinned ? POOL_PIN : 0);
	req->preq.number = number;
	req->preq.version = node ? node->version : 0;
	pool_submit(req->fs->pool, &req->preq);
	return FS_TAKEN;
}

/* ---- create ---- */

static void create_answer(struct fs_req *req)
{
	struct {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} out;

	if (!fs_node_lookup(req->fs, &req->preq.attr, req->preq.name)) {
		req->fs->handles[req->len] = req->preq.ret_handle; /* closed when the mount ends */
		fs_reply_err(req, -ENOMEM);
		return;
	}
	fs_fill_entry(req->fs, &req->preq.attr, &out.entry);
	opened(req, false, &out.open);
	fs_reply(req, &out, sizeof(out));
}

static void create_done(struct pool_req *preq, int err)
{
	struct fs_req *req = fs_req_of_pool(preq);

	if (err) {
		free_number(req->fs, req->len);
		/* Somebody else was faster: the kernel begins anew, finds the file, checks whether it may be
		 * opened, and truncates it if that was wanted. */
		fs_reply_err(req, err == -EEXIST && !(req->arg & O_EXCL) ? -ESTALE : err);
		return;
	}
	create_answer(req);
}

enum fs_verdict fs_create_file(struct fs_req *req)
{
	const struct fuse_create_in *in = req->in;
	uint32_t number;
	int rc;

	fs_pool_req(req, POOL_CREATE, create_done);
	req->preq.name = fs_name((const char *)(in + 1), req->in_len - sizeof(*in));
	rc = req->preq.name ? reserve_number(req->fs, &number) : -ENAMETOOLONG;
	if (rc) {
		fs_reply_err(req, rc);
		return FS_TAKEN;
	}
	req->arg = in->flags;
	req->len = number;
	req->preq.flags = open_flags(req->fs, in->flags) | POOL_EXCLUSIVE;
	req->preq.number = number;
	req->preq.attr.mode = in->mode & 01777;
	req->preq.attr.uid = req->uid;
	req->preq.attr.gid = req->gid;
	pool_submit(req->fs->pool, &req->preq);
	return FS_TAKEN;
}

/* ---- release ---- */

static void release_done(struct pool_req *preq, int err)
{
	fs_reply_err(fs_req_of_pool(preq), 0);
}

enum fs_verdict fs_release(struct fs_req *req)
{
	const struct fuse_release_in *in = req->in;
	struct handle *handle = fs_handle(req->fs, in->fh);
	struct fs_node *node = fs_node_find(req->fs, req->nodeid);

	if (!handle) {
		fs_reply_err(req, -EBADF);
		return FS_TAKEN;
	}
	fs_pool_req(req, POOL_CLOSE, release_done);
	free_number(req->fs, in->fh);
	if (node && node->opens)
		node->opens--;
	if (node && node->writers && handle->flags & POOL_WRITE)
		node->writers--;
	req->preq.handle = handle;
	pool_submit(req->fs->pool, &req->preq);
	return FS_TAKEN;
}

/* ---- the end ---- */

bool fs_any_open(const struct fs *fs)
{
	for (uint32_t i = 0; i < fs->handle_room; i++)
		if (fs->handles[i])
			return true;
	return false;
}

void fs_close_all(struct fs *fs)
{
	for (uint32_t i = 0; i < fs->handle_room; i++) {
		struct fs_req *req = fs->handles[i] ? fs_req_get(fs) : NULL;

		if (!fs->handles[i])
			continue;
		if (!req)
			return; /* we come back when these have ended */
		req->answered = true;
		memset(&req->preq, 0, sizeof(req->preq));
		req->preq.op = POOL_CLOSE;
		req->preq.session = FS_SESSION;
		req->preq.handle = fs->handles[i];
		req->preq.done = release_done;
		fs->handles[i] = NULL;
		pool_submit(fs->pool, &req->preq);
	}
}
