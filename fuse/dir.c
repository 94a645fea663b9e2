/* SPDX-License-Identifier: Apache-2.0
 *
 * Listings of the one directory there is.
 *
 * A position in it is 0, 1 (after "."), 2 (after "..") or id + 2 of the last region listed: regions
 * come in the order of their ids, so a listing survives creations and removals.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fuse/fs_int.h"

enum { AREA_LIST = 256 * 1024 /* of the big buffer: what the pool answers; before it the reply */ };

enum fs_verdict fs_opendir(struct fs_req *req)
{
	struct fuse_open_out out = {0};

	if (req->nodeid != FUSE_ROOT_ID)
		fs_reply_err(req, -ENOTDIR);
	else
		fs_reply(req, &out, sizeof(out));
	return FS_TAKEN;
}

/* Appends an entry; attr NULL for "." and "..".  False: it does not fit. */
static bool add(struct fs_req *req, size_t *used, size_t room, const struct region_attr *attr,
    const char *name, size_t len, uint64_t next)
{
	bool plus = req->opcode == FUSE_READDIRPLUS;
	size_t head = plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
	size_t size = FUSE_DIRENT_ALIGN(head + len);
	uint8_t *at = (uint8_t *)req->buf + *used;
	struct fuse_dirent *ent;

	if (*used + size > room)
		return false;
	memset(at, 0, size);
	ent = plus ? &((struct fuse_direntplus *)at)->dirent : (struct fuse_dirent *)at;
	ent->ino = attr ? attr->id : FUSE_ROOT_ID;
	ent->off = next;
	ent->namelen = (uint32_t)len;
	ent->type = (attr ? S_IFREG : S_IFDIR) >> 12;
	memcpy(at + head, name, len);
	/* nodeid 0 for the dots: the kernel then makes no node of it. */
	if (plus && attr) {
		char text[POOL_NAME_MAX + 1];

		memcpy(text, name, len);
		text[len] = 0;
		fs_fill_entry(req->fs, attr, &((struct fuse_direntplus *)at)->entry_out);
		if (!fs_node_lookup(req->fs, attr, text))
			return false;
	}
	*used += size;
	return true;
}

static void list_done(struct pool_req *preq, int err)
{
	struct fs_req *req = fs_req_of_pool(preq);
	size_t used = 0, room = (size_t)req->len, at = 0;
	bool fits = true;

	if (err) {
		fs_reply_err(req, err);
		return;
	}
	if (req->off < 1)
		fits = add(req, &used, room, NULL, ".", 1, 1);
	if (fits && req->off < 2)
		fits = add(req, &used, room, NULL, "..", 2, 2);
	while (fits && at < preq->ret_len) {
		const uint8_t *p = (const uint8_t *)preq->data + at;
		struct pool_dirent ent;

		memcpy(&ent, p, sizeof(ent));
		fits = add(req, &used, room, &ent.attr, (const char *)p + sizeof(ent), ent.name_len,
		    ent.next_cookie + 2);
		at += sizeof(ent) + ((ent.name_len + 7u) & ~7u);
	}
	fs_reply(req, req->buf, used);
}

enum fs_verdict fs_readdir(struct fs_req *req)
{
	const struct fuse_read_in *in = req->in;

	if (!fs_req_buffer(req, FS_IN_MAX))
		return FS_PARK;
	fs_pool_req(req, POOL_LIST, list_done);
	req->off = in->offset;
	req->len = in->size < AREA_LIST ? in->size : AREA_LIST;
	req->preq.cookie = in->offset > 2 ? in->offset - 2 : 0;
	req->preq.data = (uint8_t *)req->buf + AREA_LIST;
	req->preq.len = POOL_LIST_MAX;
	pool_submit(req->fs->pool, &req->preq);
	return FS_TAKEN;
}
