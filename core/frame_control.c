/* SPDX-License-Identifier: Apache-2.0
 *
 * Encoding and decoding of control requests, their results and the attributes in them (docs/PROTOCOL.md).
 * Stateless; decoders trust nothing.
 */
#include "core/frame.h"

#include <errno.h>
#include <string.h>

#include "core/frame_int.h"

enum { SET_ALL = 2 * POOL_SET_CTIME - 1 };

/* ---- attributes ---- */

size_t frame_attr_put(uint8_t buf[FRAME_ATTR_LEN], const struct region_attr *attr)
{
	uint8_t *p = put64(buf, attr->id);

	p = put64(p, attr->size);
	p = put64(p, attr->allocated);
	p = put64(p, attr->version);
	p = put64(p, (uint64_t)attr->atime_ns);
	p = put64(p, (uint64_t)attr->mtime_ns);
	p = put64(p, (uint64_t)attr->ctime_ns);
	p = put32(p, attr->mode);
	p = put32(p, attr->uid);
	p = put32(p, attr->gid);
	p = put32(p, attr->nlink);
	return (size_t)(p - buf);
}

static void read_attr(struct reader *r, struct region_attr *ret_attr)
{
	ret_attr->id = get64(r);
	ret_attr->size = get64(r);
	ret_attr->allocated = get64(r);
	ret_attr->version = get64(r);
	ret_attr->atime_ns = (int64_t)get64(r);
	ret_attr->mtime_ns = (int64_t)get64(r);
	ret_attr->ctime_ns = (int64_t)get64(r);
	ret_attr->mode = get32(r) & 07777;
	ret_attr->uid = get32(r);
	ret_attr->gid = get32(r);
	ret_attr->nlink = get32(r);
	if (ret_attr->size > INT64_MAX || ret_attr->allocated > INT64_MAX)
		r->p = NULL;
}

int frame_attr_get(const uint8_t *buf, size_t len, struct region_attr *ret_attr)
{
	struct reader r = {buf, len};

	read_attr(&r, ret_attr);
	return reader_end(&r);
}

/* ---- control requests ---- */

/* Operations of a pool and of the wire, in the order of enum pool_op. */
static const uint8_t wire_op[POOL_OPS] = {
    [POOL_LOOKUP] = FRAME_LOOKUP,
    [POOL_GETATTR] = FRAME_GETATTR,
    [POOL_SETATTR] = FRAME_SETATTR,
    [POOL_CREATE] = FRAME_CREATE,
    [POOL_OPEN] = FRAME_OPEN,
    [POOL_CLOSE] = FRAME_CLOSE,
    [POOL_REMOVE] = FRAME_REMOVE,
    [POOL_RENAME] = FRAME_RENAME,
    [POOL_LIST] = FRAME_LIST,
    [POOL_STATFS] = FRAME_STATFS,
    [POOL_GETXATTR] = FRAME_GETXATTR,
    [POOL_SETXATTR] = FRAME_SETXATTR,
    [POOL_LISTXATTR] = FRAME_LISTXATTR,
    [POOL_REMOVEXATTR] = FRAME_REMOVEXATTR,
};

size_t frame_control_put(
    const struct pool_req *preq, struct frame_req *ret_frame, uint8_t buf[FRAME_BODY_MAX])
{
	uint8_t *p = buf;

	memset(ret_frame, 0, sizeof(*ret_frame));
	ret_frame->op = wire_op[preq->op];
	ret_frame->off = preq->op == POOL_LIST ? preq->cookie : preq->id;
	ret_frame->len = preq->op == POOL_SETXATTR ? 0 : preq->len;
	ret_frame->handle = preq->handle ? preq->handle->number : preq->number;
	switch (preq->op) {
	case POOL_SETATTR:
		p = put32(p, preq->set);
		p += frame_attr_put(p, &preq->attr);
		break;
	case POOL_CREATE:
		p = put32(p, preq->flags);
		p = put32(p, preq->attr.mode);
		p = put32(p, preq->attr.uid);
		p = put32(p, preq->attr.gid);
		p = put_name(p, preq->name);
		break;
	case POOL_OPEN:
		p = put32(p, preq->flags);
		p = put64(p, preq->version);
		break;
	case POOL_RENAME:
		p = put32(p, preq->flags);
		p = put_name(p, preq->name);
		p = put_name(p, preq->new_name);
		break;
	case POOL_SETXATTR:
		p = put32(p, preq->flags);
		p = put_name(p, preq->name);
		break;
	case POOL_LOOKUP:
	case POOL_REMOVE:
	case POOL_GETXATTR:
	case POOL_REMOVEXATTR:
		p = put_name(p, preq->name);
		break;
	default:
		break;
	}
	ret_frame->payload = (uint32_t)(p - buf);
	if (preq->op == POOL_SETXATTR)
		ret_frame->payload += (uint32_t)preq->len;
	return (size_t)(p - buf);
}

static int pool_op_of(uint8_t op)
{
	for (int i = 0; i < POOL_OPS; i++)
		if (wire_op[i] == op)
			return i;
	return -1;
}

/* The flags that an operation may carry; others are a malformed frame. */
static unsigned flags_of(enum pool_op op)
{
	switch (op) {
	case POOL_CREATE:
		return POOL_READ | POOL_WRITE | POOL_EXCLUSIVE | POOL_NO_OPEN | POOL_SHARED;
	case POOL_OPEN:
		return POOL_READ | POOL_WRITE | POOL_PIN | POOL_SHARED | POOL_REOPEN;
	case POOL_RENAME:
		return POOL_NOREPLACE | POOL_EXCHANGE;
	default:
		return POOL_XATTR_CREATE | POOL_XATTR_REPLACE;
	}
}

int frame_control_get(const struct frame_req *frame, const uint8_t *body, struct pool_req *ret_preq,
    struct frame_names *names)
{
	struct reader r = {body, frame->payload};
	int op = pool_op_of(frame->op);
	int rc = 0;

	memset(ret_preq, 0, sizeof(*ret_preq));
	if (op < 0)
		return -EPROTO;
	ret_preq->op = (enum pool_op)op;
	ret_preq->number = frame->handle;
	ret_preq->name = names->name;
	ret_preq->new_name = names->new_name;
	*(op == POOL_LIST ? &ret_preq->cookie : &ret_preq->id) = frame->off;
	ret_preq->len = frame->len < POOL_LIST_MAX ? frame->len : POOL_LIST_MAX;
	switch (op) {
	case POOL_SETATTR:
		ret_preq->set = get32(&r);
		read_attr(&r, &ret_preq->attr);
		break;
	case POOL_CREATE:
		ret_preq->flags = get32(&r);
		ret_preq->attr.mode = get32(&r) & 07777;
		ret_preq->attr.uid = get32(&r);
		ret_preq->attr.gid = get32(&r);
		rc = get_name(&r, names->name);
		break;
	case POOL_OPEN:
		ret_preq->flags = get32(&r);
		ret_preq->version = get64(&r);
		break;
	case POOL_RENAME:
		ret_preq->flags = get32(&r);
		rc = get_name(&r, names->name);
		if (rc == 0)
			rc = get_name(&r, names->new_name);
		break;
	case POOL_SETXATTR:
		ret_preq->flags = get32(&r);
		rc = get_name(&r, names->name);
		if (rc == 0) {
			ret_preq->len = r.left;
			ret_preq->data = (void *)(uintptr_t)take(&r, r.left);
		}
		break;
	case POOL_LOOKUP:
	case POOL_REMOVE:
	case POOL_GETXATTR:
	case POOL_REMOVEXATTR:
		rc = get_name(&r, names->name);
		break;
	default:
		break;
	}
	if (rc)
		return rc;
	if (ret_preq->flags & ~flags_of(ret_preq->op) || ret_preq->set & ~(unsigned)SET_ALL)
		return -EPROTO;
	return reader_end(&r);
}

/* ---- results ---- */

static uint8_t *put_dirents(uint8_t *p, const struct pool_req *preq)
{
	size_t off = 0;

	p = put64(p, preq->ret_cookie);
	while (off < preq->ret_len) {
		struct pool_dirent ent;
		const char *name = (const char *)preq->data + off + sizeof(ent);

		memcpy(&ent, (const char *)preq->data + off, sizeof(ent));
		p += frame_attr_put(p, &ent.attr);
		p = put64(p, ent.next_cookie);
		p = put32(p, ent.name_len);
		p = put_bytes(p, name, ent.name_len);
		off += sizeof(ent) + ((ent.name_len + 7u) & ~7u);
	}
	return p;
}

size_t frame_result_put(const struct pool_req *preq, uint8_t *ret_flags, uint8_t *buf)
{
	uint8_t *p = buf;

	*ret_flags = 0;
	switch (preq->op) {
	case POOL_OPEN:
		*ret_flags = preq->ret_unchanged ? FRAME_F_UNCHANGED : 0;
		/* fallthrough */
	case POOL_LOOKUP:
	case POOL_GETATTR:
	case POOL_SETATTR:
	case POOL_CREATE:
		p += frame_attr_put(p, &preq->attr);
		break;
	case POOL_LIST:
		p = put_dirents(p, preq);
		break;
	case POOL_STATFS:
		p = put64(p, preq->statfs.total);
		p = put64(p, preq->statfs.used);
		p = put64(p, preq->statfs.avail);
		p = put64(p, preq->statfs.regions);
		break;
	case POOL_GETXATTR:
	case POOL_LISTXATTR:
		p = put32(p, (uint32_t)preq->ret_len);
		if (preq->len)
			p = put_bytes(p, preq->data, preq->ret_len);
		break;
	default:
		break;
	}
	return (size_t)(p - buf);
}

static int get_dirents(struct reader *r, struct pool_req *preq)
{
	size_t used = 0;

	preq->ret_cookie = get64(r);
	while (r->p && r->left) {
		struct pool_dirent ent = {0};
		const uint8_t *name;
		size_t room;

		read_attr(r, &ent.attr);
		ent.next_cookie = get64(r);
		ent.name_len = get32(r);
		if (ent.name_len > POOL_NAME_MAX)
			return -EPROTO;
		name = take(r, ent.name_len);
		room = sizeof(ent) + ((ent.name_len + 7u) & ~7u);
		if (!name || pool_check_name((const char *)name, ent.name_len) ||
		    used + room > preq->len)
			return -EPROTO;
		memcpy((char *)preq->data + used, &ent, sizeof(ent));
		memset((char *)preq->data + used + sizeof(ent), 0, room - sizeof(ent));
		memcpy((char *)preq->data + used + sizeof(ent), name, ent.name_len);
		used += room;
	}
	preq->ret_len = used;
	return reader_end(r);
}

int frame_result_get(struct pool_req *preq, uint8_t flags, const uint8_t *body, size_t len)
{
	struct reader r = {body, len};

	switch (preq->op) {
	case POOL_OPEN:
		preq->ret_unchanged = flags & FRAME_F_UNCHANGED;
		/* fallthrough */
	case POOL_LOOKUP:
	case POOL_GETATTR:
	case POOL_SETATTR:
	case POOL_CREATE:
		read_attr(&r, &preq->attr);
		break;
	case POOL_LIST:
		return get_dirents(&r, preq);
	case POOL_STATFS:
		preq->statfs.total = get64(&r);
		preq->statfs.used = get64(&r);
		preq->statfs.avail = get64(&r);
		preq->statfs.regions = get64(&r);
		break;
	case POOL_GETXATTR:
	case POOL_LISTXATTR:
		preq->ret_len = get32(&r);
		if (preq->len) {
			if (preq->ret_len > preq->len)
				return -EPROTO;
			get_bytes(&r, preq->data, preq->ret_len);
		}
		break;
	default:
		break;
	}
	return reader_end(&r);
}
