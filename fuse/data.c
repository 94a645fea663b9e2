/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes: read, write, fsync, fallocate, lseek.
 *
 * Reads end at the file's size.  A read that goes beyond the size that is known asks for it first: the
 * file may have grown at the donor.  A large write keeps the buffer that it was received in.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <unistd.h>

#include "fuse/fs_int.h"

static struct fs_req *req_of(struct store_req *sreq)
{
	return (struct fs_req *)((char *)sreq - offsetof(struct fs_req, sreq));
}

/* An interrupt that came in an earlier stage of the request holds for this one, too: the kernel sends it
 * once. */
static void submit(struct fs_req *req, enum store_op op, unsigned flags, uint64_t off, uint64_t len,
    void *buf, store_done_fn *done)
{
	bool interrupted;

	req->sreq.op = op;
	req->sreq.flags = flags;
	req->sreq.off = off;
	req->sreq.len = len;
	req->sreq.buf = buf;
	req->sreq.done = done;
	interrupted = req->interrupted;
	store_submit(&req->handle->store, &req->sreq);
	if (interrupted)
		store_interrupt(&req->sreq);
}

/* Finds handle and node of a data request; false: it was answered. */
static bool begin(struct fs_req *req, uint64_t fh)
{
	req->handle = fs_handle(req->fs, fh);
	req->node = fs_node_find(req->fs, req->nodeid);
	if (req->handle && req->node)
		return true;
	fs_reply_err(req, -EBADF);
	return false;
}

/* ---- read ---- */

static void read_done(struct store_req *sreq, int err)
{
	struct fs_req *req = req_of(sreq);

	if (err) {
		fs_reply_err(req, err);
		return;
	}
	if (sreq->ret_pipe >= 0)
		fs_answer_piped(req, sreq->ret_pipe, sreq->len);
	else
		fs_answer(req, 0, sreq->buf, sreq->len);
	if (sreq->ret_lent)
		store_unlend(&req->handle->store, sreq->off, (uint32_t)sreq->len);
	fs_req_end(req);
}

/* Reads what of the request lies within the file. */
static void read_within(struct fs_req *req)
{
	uint64_t size = req->node->size;

	if (req->off >= size) {
		fs_reply(req, NULL, 0);
		return;
	}
	if (req->len > size - req->off)
		req->len = size - req->off;
	submit(req, STORE_READ, STORE_LEND | STORE_BRIEF | (req->fs->piped ? STORE_PIPE : 0),
	    req->off, req->len, req->buf, read_done);
}

static void size_known(struct pool_req *preq, int err)
{
	struct fs_req *req = fs_req_of_pool(preq);

	if (err) {
		fs_reply_err(req, err);
		return;
	}
	req->node->size = preq->attr.size;
	read_within(req);
}

/* Need the size not be asked for?  The page cache reads the last page in full: what it knows of the size is
 * not newer than what we know, and when it hears of another one it reads that page again. */
static bool size_suffices(const struct fs_req *req, uint32_t open_flags)
{
	uint64_t size = req->node->size, end = req->off + req->len;

	if (req->off < size && !(open_flags & O_DIRECT))
		size = (size + STORE_BLOCK - 1) / STORE_BLOCK * STORE_BLOCK;
	return end <= size;
}

enum fs_verdict fs_read(struct fs_req *req)
{
	const struct fuse_read_in *in = req->in;

	req->off = in->offset;
	req->len = in->size;
	if (!begin(req, in->fh))
		return FS_TAKEN;
	if (req->len > FS_WRITE_MAX || req->off > INT64_MAX - req->len) {
		fs_reply_err(req, -EINVAL);
		return FS_TAKEN;
	}
	if (req->len == 0) {
		fs_reply(req, NULL, 0);
		return FS_TAKEN;
	}
	if (!fs_req_buffer(req, req->len))
		return FS_PARK;
	if (size_suffices(req, in->flags)) {
		read_within(req);
		return FS_TAKEN;
	}
	fs_pool_req(req, POOL_GETATTR, size_known);
	req->preq.handle = req->handle;
	pool_submit(req->fs->pool, &req->preq);
	return FS_TAKEN;
}

/* ---- write ---- */

static void write_done(struct store_req *sreq, int err)
{
	struct fs_req *req = req_of(sreq);
	struct fuse_write_out out = {.size = (uint32_t)sreq->len};

	if (err == -ENOLCK)
		fs_lease_lost(req->fs, req->node);
	if (err) {
		fs_reply_err(req, err);
		return;
	}
	if (req->node->size < sreq->off + sreq->len)
		req->node->size = sreq->off + sreq->len;
	fs_reply(req, &out, sizeof(out));
}

enum fs_verdict fs_write(struct fs_req *req)
{
	const struct fuse_write_in *in = req->in;
	uint32_t size = in->size;
	uint64_t off = in->offset;

	if (!begin(req, in->fh))
		return FS_TAKEN;
	if (size > req->in_len - sizeof(*in) || size > FS_WRITE_MAX) {
		fs_reply_err(req, -EINVAL);
		return FS_TAKEN;
	}
	if (off > req->handle->store.size || size > req->handle->store.size - off) {
		fs_reply_err(req, -ENOSPC);
		return FS_TAKEN;
	}
	if (size == 0) {
		fs_reply(req, &(struct fuse_write_out){0}, sizeof(struct fuse_write_out));
		return FS_TAKEN;
	}
	submit(req, STORE_WRITE, 0, off, size, fs_req_keep(req, in + 1, size), write_done);
	return FS_TAKEN;
}

/* ---- fsync ---- */

static void plain_done(struct store_req *sreq, int err)
{
	fs_reply_err(req_of(sreq), err);
}

enum fs_verdict fs_fsync(struct fs_req *req)
{
	const struct fuse_fsync_in *in = req->in;

	if (begin(req, in->fh))
		submit(req, STORE_FLUSH, 0, 0, 0, NULL, plain_done);
	return FS_TAKEN;
}

/* ---- fallocate ---- */

static void alloc_done(struct store_req *sreq, int err)
{
	struct fs_req *req = req_of(sreq);

	if (err == 0 && !(sreq->flags & STORE_KEEP) && req->node->size < sreq->off + sreq->len)
		req->node->size = sreq->off + sreq->len;
	fs_reply_err(req, err);
}

/* FALLOC_FL_ZERO_RANGE: the bytes are zero, now the space. */
static void zeroed(struct store_req *sreq, int err)
{
	struct fs_req *req = req_of(sreq);

	if (err)
		fs_reply_err(req, err);
	else
		submit(req, STORE_ALLOC, req->arg & FALLOC_FL_KEEP_SIZE ? STORE_KEEP : 0, sreq->off,
		    sreq->len, NULL, alloc_done);
}

enum fs_verdict fs_fallocate(struct fs_req *req)
{
	const struct fuse_fallocate_in *in = req->in;
	uint64_t limit, len = in->length;
	bool keep = in->mode & FALLOC_FL_KEEP_SIZE;

	if (!begin(req, in->fh))
		return FS_TAKEN;
	limit = req->handle->store.size;
	req->arg = in->mode;
	if (in->mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)) {
		if (in->offset >= limit || len == 0) {
			fs_reply_err(req, 0); /* nothing is there */
			return FS_TAKEN;
		}
		len = len < limit - in->offset ? len : limit - in->offset;
		submit(req, STORE_ZERO, 0, in->offset, len, NULL, plain_done);
	} else if (in->mode & ~(uint32_t)(FALLOC_FL_KEEP_SIZE | FALLOC_FL_ZERO_RANGE)) {
		fs_reply_err(req, -EOPNOTSUPP);
	} else if (in->offset > limit || len > limit - in->offset || len == 0) {
		fs_reply_err(req, len ? -ENOSPC : -EINVAL);
	} else if (in->mode & FALLOC_FL_ZERO_RANGE) {
		submit(req, STORE_ZERO, STORE_KEEP, in->offset, len, NULL, zeroed);
	} else if (req->node->pinned && !keep && in->offset + len > req->node->size) {
		fs_reply_err(req, -EBUSY);
	} else {
		submit(req, STORE_ALLOC, keep ? STORE_KEEP : 0, in->offset, len, NULL, alloc_done);
	}
	return FS_TAKEN;
}

/* ---- lseek ---- */

static void extents_done(struct store_req *sreq, int err);

/* Asks for the extents from req->off to the end. */
static void seek_on(struct fs_req *req)
{
	uint64_t size = req->node->size;

	if (req->off >= size) {
		if (req->arg == SEEK_HOLE)
			fs_reply(
			    req, &(struct fuse_lseek_out){size}, sizeof(struct fuse_lseek_out));
		else
			fs_reply_err(req, -ENXIO);
		return;
	}
	req->sreq.extents = req->buf;
	req->sreq.extents_max = FS_EXTENTS;
	submit(req, STORE_EXTENTS, 0, req->off, size - req->off, NULL, extents_done);
}

static void extents_done(struct store_req *sreq, int err)
{
	struct fs_req *req = req_of(sreq);
	uint32_t wanted = req->arg == SEEK_HOLE ? EXTENT_HOLE : 0;

	if (err) {
		fs_reply_err(req, err);
		return;
	}
	for (unsigned i = 0; i < sreq->ret_extents; i++) {
		const struct extent *ext = &sreq->extents[i];

		if ((ext->flags & EXTENT_HOLE) == wanted) {
			fs_reply(
			    req, &(struct fuse_lseek_out){ext->off}, sizeof(struct fuse_lseek_out));
			return;
		}
		req->off = ext->off + ext->len;
	}
	seek_on(req);
}

static void seek_size_known(struct pool_req *preq, int err)
{
	struct fs_req *req = fs_req_of_pool(preq);

	if (err) {
		fs_reply_err(req, err);
		return;
	}
	req->node->size = preq->attr.size;
	if (req->off >= req->node->size)
		fs_reply_err(req, -ENXIO);
	else
		seek_on(req);
}

enum fs_verdict fs_lseek(struct fs_req *req)
{
	const struct fuse_lseek_in *in = req->in;

	req->off = in->offset;
	req->arg = in->whence;
	if (!begin(req, in->fh))
		return FS_TAKEN;
	if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE) {
		fs_reply_err(req, -EINVAL);
		return FS_TAKEN;
	}
	if (!fs_req_buffer(req, FS_EXTENTS * sizeof(struct extent)))
		return FS_PARK;
	fs_pool_req(req, POOL_GETATTR, seek_size_known);
	req->preq.handle = req->handle;
	pool_submit(req->fs->pool, &req->preq);
	return FS_TAKEN;
}
