/* SPDX-License-Identifier: Apache-2.0
 *
 * Names, attributes and extended attributes.
 *
 * Each handler checks the request, sends one pool_req, with names as they stand in the request, and answers
 * from its completion.  The root directory belongs to the mount, not to the pool:
 * its attributes live in struct fs.  Set-user-id and set-group-id bits are never stored: regions are
 * not programs, and so a write has none to take away (FUSE_HANDLE_KILLPRIV_V2).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "fuse/fs_int.h"

enum { MODE_BITS = 01777, FILES_FREE = 1 << 20 };

struct fs_req *fs_req_of_pool(struct pool_req *preq)
{
	return (struct fs_req *)((char *)preq - offsetof(struct fs_req, preq));
}

void fs_pool_req(struct fs_req *req, enum pool_op op, pool_done_fn *done)
{
	memset(&req->preq, 0, sizeof(req->preq));
	req->preq.op = op;
	req->preq.session = FS_SESSION;
	req->preq.id = req->nodeid;
	req->preq.done = done;
}

const char *fs_name(const char *in, size_t room)
{
	return strnlen(in, room) < room ? in : NULL;
}

/* ---- what the kernel gets ---- */

static void set_timeout(uint64_t ms, uint64_t *ret_s, uint32_t *ret_ns)
{
	*ret_s = ms / 1000;
	*ret_ns = (uint32_t)(ms % 1000 * 1000000);
}

static void fill_time(int64_t ns, uint64_t *ret_s, uint32_t *ret_ns)
{
	int64_t s = ns / 1000000000, rest = ns % 1000000000;

	if (rest < 0) {
		rest += 1000000000;
		s--;
	}
	*ret_s = (uint64_t)s;
	*ret_ns = (uint32_t)rest;
}

void fs_fill_attr(struct fs *fs, const struct region_attr *attr, struct fuse_attr *ret_attr)
{
	memset(ret_attr, 0, sizeof(*ret_attr));
	ret_attr->ino = attr->id;
	ret_attr->size = attr->size;
	ret_attr->blocks = attr->allocated / 512;
	fill_time(attr->atime_ns, &ret_attr->atime, &ret_attr->atimensec);
	fill_time(attr->mtime_ns, &ret_attr->mtime, &ret_attr->mtimensec);
	fill_time(attr->ctime_ns, &ret_attr->ctime, &ret_attr->ctimensec);
	ret_attr->mode = S_IFREG | (attr->mode & 07777);
	ret_attr->nlink = attr->nlink;
	ret_attr->uid = attr->uid;
	ret_attr->gid = attr->gid;
	ret_attr->blksize = FS_WRITE_MAX;
}

void fs_fill_root(struct fs *fs, struct fuse_attr *ret_attr)
{
	memset(ret_attr, 0, sizeof(*ret_attr));
	ret_attr->ino = FUSE_ROOT_ID;
	ret_attr->mode = S_IFDIR | fs->root_mode;
	ret_attr->nlink = 2;
	ret_attr->uid = fs->root_uid;
	ret_attr->gid = fs->root_gid;
	ret_attr->blksize = STORE_BLOCK;
	fill_time(fs->root_ns, &ret_attr->mtime, &ret_attr->mtimensec);
	ret_attr->atime = ret_attr->ctime = ret_attr->mtime;
	ret_attr->atimensec = ret_attr->ctimensec = ret_attr->mtimensec;
}

void fs_fill_entry(struct fs *fs, const struct region_attr *attr, struct fuse_entry_out *ret_entry)
{
	memset(ret_entry, 0, sizeof(*ret_entry));
	ret_entry->nodeid = attr->id;
	/* Names are asked for each time (entry_valid 0): that is the open in close-to-open. */
	set_timeout(fs->conf.attr_timeout_ms, &ret_entry->attr_valid, &ret_entry->attr_valid_nsec);
	fs_fill_attr(fs, attr, &ret_entry->attr);
}

static void reply_attr(struct fs_req *req, const struct region_attr *attr)
{
	struct fs *fs = req->fs;
	struct fuse_attr_out out = {0};
	struct fs_node *node;

	set_timeout(fs->conf.attr_timeout_ms, &out.attr_valid, &out.attr_valid_nsec);
	if (attr) {
		fs_fill_attr(fs, attr, &out.attr);
		node = fs_node_find(fs, attr->id);
		if (node)
			node->size = attr->size;
	} else {
		fs_fill_root(fs, &out.attr);
	}
	fs_reply(req, &out, sizeof(out));
}

/* ---- lookup ---- */

static void entry_done(struct pool_req *preq, int err)
{
	struct fs_req *req = fs_req_of_pool(preq);
	struct fuse_entry_out out;

	if (err) {
		fs_reply_err(req, err == -EINVAL ? -ENOENT : err);
		return;
	}
	if (!fs_node_lookup(req->fs, &preq->attr, preq->name)) {
		fs_reply_err(req, -ENOMEM);
		return;
	}
	fs_fill_entry(req->fs, &preq->attr, &out);
	if (preq->ret_earlier) /* by up to half of it: the rest is the kernel's */
		set_timeout(
		    req->fs->conf.attr_timeout_ms / 2, &out.attr_valid, &out.attr_valid_nsec);
	fs_reply(req, &out, sizeof(out));
}

enum fs_verdict fs_lookup(struct fs_req *req)
{
	if (req->nodeid != FUSE_ROOT_ID) {
		fs_reply_err(req, -ENOTDIR);
		return FS_TAKEN;
	}
	fs_pool_req(req, POOL_LOOKUP, entry_done);
	req->preq.name = fs_name(req->in, req->in_len);
	if (!req->preq.name)
		fs_reply_err(req, -ENAMETOOLONG);
	else
		pool_submit(req->fs->pool, &req->preq);
	return FS_TAKEN;
}

/* ---- attributes ---- */

static void attr_done(struct pool_req *preq, int err)
{
	struct fs_req *req = fs_req_of_pool(preq);

	if (fs_ask_again(req, err))
		return;
	if (err)
		fs_reply_err(req, err);
	else
		reply_attr(req, &preq->attr);
}

/* Any open handle of a node: the donor knows a removed region only by one. */
static struct handle *any_handle(const struct fs *fs, uint64_t id)
{
	struct fs_node *node = fs_node_find(fs, id);

	for (uint32_t i = 0; node && node->opens && i < fs->handle_room; i++)
		if (fs->handles[i] && fs->handles[i]->region_id == id)
			return fs->handles[i];
	return NULL;
}

enum fs_verdict fs_getattr(struct fs_req *req)
{
	const struct fuse_getattr_in *in = req->in;
	struct handle *handle = NULL;

	if (req->nodeid == FUSE_ROOT_ID) {
		reply_attr(req, NULL);
		return FS_TAKEN;
	}
	handle = in->getattr_flags & FUSE_GETATTR_FH ? fs_handle(req->fs, in->fh) : NULL;
	fs_pool_req(req, POOL_GETATTR, attr_done);
	req->preq.handle = handle ? handle : any_handle(req->fs, req->nodeid);
	pool_submit(req->fs->pool, &req->preq);
	return FS_TAKEN;
}

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void set_root(struct fs_req *req, const struct fuse_setattr_in *in)
{
	struct fs *fs = req->fs;

	if (in->valid & FATTR_SIZE) {
		fs_reply_err(req, -EISDIR);
		return;
	}
	if (in->valid & FATTR_MODE)
		fs->root_mode = in->mode & MODE_BITS;
	if (in->valid & FATTR_UID)
		fs->root_uid = in->uid;
	if (in->valid & FATTR_GID)
		fs->root_gid = in->gid;
	fs->root_ns = now_ns();
	reply_attr(req, NULL);
}

/* The kernel's seconds are signed; what nanoseconds cannot say (before 1677, after 2262) becomes the nearest
 * that they can. */
static int64_t time_of(uint64_t s, uint32_t ns)
{
	int64_t max = INT64_MAX / 1000000000 - 1, seconds = (int64_t)s;

	if (seconds > max || seconds < -max)
		return (seconds > 0 ? max : -max) * 1000000000;
	return seconds * 1000000000 + ns;
}

/* Translates what the kernel wants set. */
static void fill_set(struct pool_req *preq, const struct fuse_setattr_in *in)
{
	if (in->valid & FATTR_MODE)
		preq->set |= POOL_SET_MODE;
	if (in->valid & FATTR_UID)
		preq->set |= POOL_SET_UID;
	if (in->valid & FATTR_GID)
		preq->set |= POOL_SET_GID;
	if (in->valid & FATTR_SIZE)
		preq->set |= POOL_SET_SIZE;
	if (in->valid & FATTR_ATIME)
		preq->set |= POOL_SET_ATIME;
	if (in->valid & FATTR_MTIME)
		preq->set |= POOL_SET_MTIME;
	if (in->valid & FATTR_CTIME)
		preq->set |= POOL_SET_CTIME;
	preq->attr.mode = in->mode & MODE_BITS;
	preq->attr.uid = in->uid;
	preq->attr.gid = in->gid;
	preq->attr.size = in->size;
	preq->attr.atime_ns =
	    in->valid & FATTR_ATIME_NOW ? now_ns() : time_of(in->atime, in->atimensec);
	preq->attr.mtime_ns =
	    in->valid & FATTR_MTIME_NOW ? now_ns() : time_of(in->mtime, in->mtimensec);
	preq->attr.ctime_ns = time_of(in->ctime, in->ctimensec);
}

enum fs_verdict fs_setattr(struct fs_req *req)
{
	const struct fuse_setattr_in *in = req->in;
	struct fs_node *node = fs_node_find(req->fs, req->nodeid);

	if (req->nodeid == FUSE_ROOT_ID) {
		set_root(req, in);
		return FS_TAKEN;
	}
	if (in->valid & FATTR_SIZE && node && node->pinned && in->size != node->size) {
		fs_reply_err(req, -EBUSY);
		return FS_TAKEN;
	}
	if (in->valid & FATTR_SIZE && in->size > INT64_MAX) {
		fs_reply_err(req, -EFBIG);
		return FS_TAKEN;
	}
	fs_pool_req(req, POOL_SETATTR, attr_done);
	if (in->valid & FATTR_FH)
		req->preq.handle = fs_handle(req->fs, in->fh);
	fill_set(&req->preq, in);
	pool_submit(req->fs->pool, &req->preq);
	return FS_TAKEN;
}

/* ---- names ---- */

static void plain_done(struct pool_req *preq, int err)
{
	fs_reply_err(fs_req_of_pool(preq), err);
}

enum fs_verdict fs_mknod(struct fs_req *req)
{
	const struct fuse_mknod_in *in = req->in;

	if (!S_ISREG(in->mode)) {
		fs_reply_err(req, -EPERM);
		return FS_TAKEN;
	}
	fs_pool_req(req, POOL_CREATE, entry_done);
	req->preq.flags = POOL_NO_OPEN | POOL_EXCLUSIVE;
	req->preq.attr.mode = in->mode & MODE_BITS;
	req->preq.attr.uid = req->uid;
	req->preq.attr.gid = req->gid;
	req->preq.name = fs_name((const char *)(in + 1), req->in_len - sizeof(*in));
	if (!req->preq.name)
		fs_reply_err(req, -ENAMETOOLONG);
	else
		pool_submit(req->fs->pool, &req->preq);
	return FS_TAKEN;
}

/* The names of nodes follow, so that status does. */
static void unlink_done(struct pool_req *preq, int err)
{
	struct fs_req *req = fs_req_of_pool(preq);

	if (err == 0)
		fs_node_renamed(req->fs, preq->name, NULL, false);
	else if (err == -EBUSY)
		fs_refused(req);
	fs_reply_err(req, err);
}

enum fs_verdict fs_unlink(struct fs_req *req)
{
	fs_pool_req(req, POOL_REMOVE, unlink_done);
	req->preq.name = fs_name(req->in, req->in_len);
	if (!req->preq.name)
		fs_reply_err(req, -ENAMETOOLONG);
	else
		pool_submit(req->fs->pool, &req->preq);
	return FS_TAKEN;
}

static void rename_done(struct pool_req *preq, int err)
{
	struct fs_req *req = fs_req_of_pool(preq);

	if (err == 0)
		fs_node_renamed(req->fs, preq->name, preq->new_name, preq->flags & POOL_EXCHANGE);
	else if (err == -EBUSY)
		fs_refused(req);
	fs_reply_err(req, err);
}

static enum fs_verdict start_rename(
    struct fs_req *req, uint64_t newdir, unsigned flags, const char *names, size_t room)
{
	const char *from, *to;
	size_t len = strnlen(names, room);

	fs_pool_req(req, POOL_RENAME, rename_done);
	from = fs_name(names, room);
	to = from ? fs_name(names + len + 1, room - len - 1) : NULL;
	req->preq.flags = flags;
	req->preq.name = from;
	req->preq.new_name = to;
	if (!from || !to)
		fs_reply_err(req, -ENAMETOOLONG);
	else if (newdir != FUSE_ROOT_ID)
		fs_reply_err(req, -EXDEV);
	else
		pool_submit(req->fs->pool, &req->preq);
	return FS_TAKEN;
}

enum fs_verdict fs_rename(struct fs_req *req)
{
	const struct fuse_rename_in *in = req->in;

	return start_rename(req, in->newdir, 0, (const char *)(in + 1), req->in_len - sizeof(*in));
}

enum fs_verdict fs_rename2(struct fs_req *req)
{
	const struct fuse_rename2_in *in = req->in;
	unsigned flags = 0;

	if (in->flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE)) {
		fs_reply_err(req, -EINVAL);
		return FS_TAKEN;
	}
	if (in->flags & RENAME_NOREPLACE)
		flags |= POOL_NOREPLACE;
	if (in->flags & RENAME_EXCHANGE)
		flags |= POOL_EXCHANGE;
	return start_rename(
	    req, in->newdir, flags, (const char *)(in + 1), req->in_len - sizeof(*in));
}

/* ---- statfs ---- */

static void statfs_done(struct pool_req *preq, int err)
{
	struct fs_req *req = fs_req_of_pool(preq);
	const struct pool_statfs *sf = &preq->statfs;
	struct fuse_statfs_out out = {
	    .st =
		{
		    .blocks = sf->total / STORE_BLOCK,
		    .bfree = sf->avail / STORE_BLOCK,
		    .bavail = sf->avail / STORE_BLOCK,
		    /* No limit on names is known: df -i shall not show a full file system. */
		    .files = sf->regions + FILES_FREE,
		    .ffree = FILES_FREE,
		    .bsize = STORE_BLOCK,
		    .frsize = STORE_BLOCK,
		    .namelen = POOL_NAME_MAX,
		},
	};

	if (err)
		fs_reply_err(req, err);
	else
		fs_reply(req, &out, sizeof(out));
}

enum fs_verdict fs_statfs(struct fs_req *req)
{
	fs_pool_req(req, POOL_STATFS, statfs_done);
	pool_submit(req->fs->pool, &req->preq);
	return FS_TAKEN;
}

/* ---- extended attributes ---- */

static bool no_xattrs(struct fs_req *req)
{
	if (req->nodeid != FUSE_ROOT_ID)
		return false;
	fs_reply_err(req, -EOPNOTSUPP);
	return true;
}

enum fs_verdict fs_setxattr(struct fs_req *req)
{
	const struct fuse_setxattr_in *in = req->in;
	/* Without FUSE_SETXATTR_EXT the header has two members only. */
	const char *names = (const char *)req->in + FUSE_COMPAT_SETXATTR_IN_SIZE;
	size_t room = req->in_len - FUSE_COMPAT_SETXATTR_IN_SIZE, len = strnlen(names, room);
	const char *kept;

	if (no_xattrs(req))
		return FS_TAKEN;
	if (len == room || in->size > room - len - 1) {
		fs_reply_err(req, -EINVAL);
		return FS_TAKEN;
	}
	kept = fs_req_keep(req, names, len + 1 + in->size);
	fs_pool_req(req, POOL_SETXATTR, plain_done);
	req->preq.name = kept;
	req->preq.data = (void *)(uintptr_t)(kept + len + 1);
	req->preq.len = in->size;
	if (in->flags & 1) /* XATTR_CREATE */
		req->preq.flags |= POOL_XATTR_CREATE;
	if (in->flags & 2) /* XATTR_REPLACE */
		req->preq.flags |= POOL_XATTR_REPLACE;
	pool_submit(req->fs->pool, &req->preq);
	return FS_TAKEN;
}

static void xattr_done(struct pool_req *preq, int err)
{
	struct fs_req *req = fs_req_of_pool(preq);
	struct fuse_getxattr_out out = {.size = (uint32_t)preq->ret_len};

	if (err)
		fs_reply_err(req, err);
	else if (preq->len == 0)
		fs_reply(req, &out, sizeof(out));
	else
		fs_reply(req, preq->data, preq->ret_len);
}

enum fs_verdict fs_getxattr(struct fs_req *req)
{
	const struct fuse_getxattr_in *in = req->in;
	size_t room = in->size < POOL_XATTR_VALUE_MAX ? in->size : POOL_XATTR_VALUE_MAX;

	if (no_xattrs(req))
		return FS_TAKEN;
	if (!fs_req_buffer(req, room))
		return FS_PARK;
	fs_pool_req(req, POOL_GETXATTR, xattr_done);
	req->preq.name = fs_name((const char *)(in + 1), req->in_len - sizeof(*in));
	req->preq.data = req->buf;
	req->preq.len = room;
	if (!req->preq.name)
		fs_reply_err(req, -ERANGE);
	else
		pool_submit(req->fs->pool, &req->preq);
	return FS_TAKEN;
}

enum fs_verdict fs_listxattr(struct fs_req *req)
{
	const struct fuse_getxattr_in *in = req->in;
	size_t room = in->size < POOL_XATTR_VALUE_MAX ? in->size : POOL_XATTR_VALUE_MAX;

	if (no_xattrs(req))
		return FS_TAKEN;
	if (!fs_req_buffer(req, room))
		return FS_PARK;
	fs_pool_req(req, POOL_LISTXATTR, xattr_done);
	req->preq.data = req->buf;
	req->preq.len = room;
	pool_submit(req->fs->pool, &req->preq);
	return FS_TAKEN;
}

enum fs_verdict fs_removexattr(struct fs_req *req)
{
	if (no_xattrs(req))
		return FS_TAKEN;
	fs_pool_req(req, POOL_REMOVEXATTR, plain_done);
	req->preq.name = fs_name(req->in, req->in_len);
	if (!req->preq.name)
		fs_reply_err(req, -ERANGE);
	else
		pool_submit(req->fs->pool, &req->preq);
	return FS_TAKEN;
}
