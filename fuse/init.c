/* SPDX-License-Identifier: Apache-2.0
 *
 * The handshake: what the kernel offers and what is taken of it (Linux 5.10, protocol 7.31, and later).
 */
#include <errno.h>
#include <string.h>

#include "fuse/fs_int.h"

enum { MINOR_OLDEST = 31, MINOR_OURS = 39 };

/* Taken where offered.  Not FUSE_EXPLICIT_INVAL_DATA: with it the kernel would keep the pages of an open file
 * that has become longer, and the last one shows zeros where another client has appended.  And not
 * FUSE_AUTO_INVAL_DATA: it would drop what is cached after each write of our own. */
static const uint64_t wanted = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_PARALLEL_DIROPS |
			       FUSE_ASYNC_DIO | FUSE_MAX_PAGES | FUSE_DO_READDIRPLUS |
			       FUSE_READDIRPLUS_AUTO | FUSE_HANDLE_KILLPRIV_V2 |
			       FUSE_DIRECT_IO_ALLOW_MMAP;

static void fill(
    struct fs *fs, const struct fuse_init_in *in, size_t len, struct fuse_init_out *out)
{
	uint64_t offered = in->flags, taken;

	if (len >= sizeof(*in) && in->flags & FUSE_INIT_EXT)
		offered |= (uint64_t)in->flags2 << 32;
	taken = offered & wanted;
	if (offered & FUSE_INIT_EXT)
		taken |= FUSE_INIT_EXT;
	fs->direct_mmap = taken & FUSE_DIRECT_IO_ALLOW_MMAP;
	out->max_readahead = in->max_readahead;
	out->flags = (uint32_t)taken;
	out->flags2 = (uint32_t)(taken >> 32);
	out->max_background = (uint16_t)fs->conf.max_background;
	/* Readahead stops at the congestion threshold: it shall not. */
	out->congestion_threshold = (uint16_t)fs->conf.max_background;
	out->max_write = FS_WRITE_MAX;
	out->max_pages = FS_WRITE_MAX / 4096;
	out->time_gran = 1;
}

enum fs_verdict fs_init(struct fs_req *req)
{
	const struct fuse_init_in *in = req->in;
	struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION, .minor = MINOR_OURS};
	struct fs *fs = req->fs;

	if (in->major > FUSE_KERNEL_VERSION) { /* it will ask again with ours */
		fs_reply(req, &out, sizeof(out));
		return FS_TAKEN;
	}
	if (in->major < FUSE_KERNEL_VERSION || in->minor < MINOR_OLDEST || req->in_len < 16) {
		log_error("the kernel speaks FUSE %u.%u; Linux 5.10 (7.31) or later is needed",
		    in->major, in->minor);
		fs_reply_err(req, -EPROTO);
		return FS_TAKEN;
	}
	fs->minor = in->minor;
	fill(fs, in, req->in_len, &out);
	fs_reply(req, &out, sizeof(out));
	if (!fs->ready) {
		fs->ready = true;
		fs->conf.ready(fs->conf.ctx);
	}
	return FS_TAKEN;
}
