/* SPDX-License-Identifier: Apache-2.0
 *
 * Encoding and decoding of frames (docs/PROTOCOL.md).  Stateless; decoders trust nothing.
 */
#include "core/frame.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

enum { REQ_MAGIC = 0x5152 /* "RQ" */, REP_MAGIC = 0x5052 /* "RP" */, HELLO_MAGIC = 0x4d524d52 };
enum { SET_ALL = 2 * POOL_SET_CTIME - 1 };

/* ---- cursors ---- */

static uint8_t *put16(uint8_t *p, uint16_t v)
{
	v = htole16(v);
	memcpy(p, &v, 2);
	return p + 2;
}

static uint8_t *put32(uint8_t *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, 4);
	return p + 4;
}

static uint8_t *put64(uint8_t *p, uint64_t v)
{
	v = htole64(v);
	memcpy(p, &v, 8);
	return p + 8;
}

static uint8_t *put_bytes(uint8_t *p, const void *bytes, size_t len)
{
	memcpy(p, bytes, len);
	return p + len;
}

static uint8_t *put_name(uint8_t *p, const char *name)
{
	size_t len = strlen(name);

	return put_bytes(put16(p, (uint16_t)len), name, len);
}

/* What is left to decode; p becomes NULL at the first read beyond the end and stays so. */
struct reader {
	const uint8_t *p;
	size_t left;
};

static const uint8_t *take(struct reader *r, size_t len)
{
	const uint8_t *p = r->p;

	if (!p || r->left < len) {
		r->p = NULL;
		return NULL;
	}
	r->p += len;
	r->left -= len;
	return p;
}

static uint16_t get16(struct reader *r)
{
	const uint8_t *p = take(r, 2);
	uint16_t v = 0;

	if (p)
		memcpy(&v, p, 2);
	return le16toh(v);
}

static uint32_t get32(struct reader *r)
{
	const uint8_t *p = take(r, 4);
	uint32_t v = 0;

	if (p)
		memcpy(&v, p, 4);
	return le32toh(v);
}

static uint64_t get64(struct reader *r)
{
	const uint8_t *p = take(r, 8);
	uint64_t v = 0;

	if (p)
		memcpy(&v, p, 8);
	return le64toh(v);
}

static void get_bytes(struct reader *r, void *ret, size_t len)
{
	const uint8_t *p = take(r, len);

	if (p)
		memcpy(ret, p, len);
}

/* A name of at most POOL_NAME_MAX bytes into buf: 0, -EPROTO (cut short), -ENAMETOOLONG, or -EINVAL (a
 * NUL in it). */
static int get_name(struct reader *r, char buf[POOL_NAME_MAX + 1])
{
	size_t len = get16(r);
	const uint8_t *p = take(r, len);

	if (!p)
		return -EPROTO;
	if (len > POOL_NAME_MAX)
		return -ENAMETOOLONG;
	if (memchr(p, 0, len))
		return -EINVAL;
	memcpy(buf, p, len);
	buf[len] = 0;
	return 0;
}

/* 0 if everything was there and nothing is left. */
static int reader_end(const struct reader *r)
{
	return r->p && r->left == 0 ? 0 : -EPROTO;
}

/* ---- headers ---- */

const char *frame_op_name(unsigned op)
{
	static const char *const names[] = {
	    [FRAME_HELLO] = "HELLO",
	    [FRAME_PING] = "PING",
	    [FRAME_BYE] = "BYE",
	    [FRAME_NOTICE] = "NOTICE",
	    [FRAME_LOOKUP] = "LOOKUP",
	    [FRAME_GETATTR] = "GETATTR",
	    [FRAME_SETATTR] = "SETATTR",
	    [FRAME_CREATE] = "CREATE",
	    [FRAME_OPEN] = "OPEN",
	    [FRAME_CLOSE] = "CLOSE",
	    [FRAME_REMOVE] = "REMOVE",
	    [FRAME_RENAME] = "RENAME",
	    [FRAME_LIST] = "LIST",
	    [FRAME_STATFS] = "STATFS",
	    [FRAME_GETXATTR] = "GETXATTR",
	    [FRAME_SETXATTR] = "SETXATTR",
	    [FRAME_LISTXATTR] = "LISTXATTR",
	    [FRAME_REMOVEXATTR] = "REMOVEXATTR",
	    [FRAME_READ] = "READ",
	    [FRAME_WRITE] = "WRITE",
	    [FRAME_ZERO] = "ZERO",
	    [FRAME_ALLOC] = "ALLOC",
	    [FRAME_FLUSH] = "FLUSH",
	    [FRAME_EXTENTS] = "EXTENTS",
	};

	if (op >= sizeof(names) / sizeof(names[0]) || !names[op])
		return "?";
	return names[op];
}

void frame_req_put(uint8_t buf[FRAME_REQ_LEN], const struct frame_req *req)
{
	uint8_t *p = put16(buf, REQ_MAGIC);

	*p++ = req->op;
	*p++ = req->flags;
	p = put32(p, req->payload);
	p = put64(p, req->id);
	p = put64(p, req->off);
	p = put64(p, req->len);
	p = put32(p, req->handle);
	put32(p, 0);
}

void frame_rep_put(uint8_t buf[FRAME_REP_LEN], const struct frame_rep *rep)
{
	uint8_t *p = put16(buf, REP_MAGIC);

	*p++ = rep->op;
	*p++ = rep->flags;
	p = put32(p, rep->payload);
	p = put64(p, rep->id);
	p = put32(p, rep->status);
	put32(p, 0);
}

/* What is wrong with a request's payload length or range, or NULL. */
static const char *check_req(const struct frame_req *req)
{
	bool data = req->op >= FRAME_READ;

	if (data && (req->off > INT64_MAX || req->len > INT64_MAX - req->off))
		return "range overflows";
	switch (req->op) {
	case FRAME_READ:
		if (req->payload)
			return "READ with a payload";
		if (req->len < 1 || req->len > FRAME_DATA_MAX)
			return "READ length is not 1 to 1 MiB";
		return NULL;
	case FRAME_WRITE:
		if (req->len < 1 || req->len > FRAME_DATA_MAX)
			return "WRITE length is not 1 to 1 MiB";
		if (req->payload != (req->flags & FRAME_F_ZEROS ? 0 : req->len))
			return "WRITE payload is not its length";
		return NULL;
	case FRAME_ZERO:
	case FRAME_ALLOC:
	case FRAME_EXTENTS:
		if (req->len < 1)
			return "empty range";
		return req->payload ? "payload where none belongs" : NULL;
	case FRAME_FLUSH:
	case FRAME_PING:
	case FRAME_BYE:
	case FRAME_NOTICE:
		return req->payload ? "payload where none belongs" : NULL;
	case FRAME_HELLO:
		return req->payload > FRAME_HELLO_MAX ? "payload too long" : NULL;
	default:
		return req->payload > FRAME_CONTROL_MAX ? "payload too long" : NULL;
	}
}

int frame_req_get(const uint8_t buf[FRAME_REQ_LEN], struct frame_req *ret_req, const char **ret_why)
{
	struct reader r = {buf, FRAME_REQ_LEN};
	uint16_t magic = get16(&r);

	get_bytes(&r, &ret_req->op, 1);
	get_bytes(&r, &ret_req->flags, 1);
	ret_req->payload = get32(&r);
	ret_req->id = get64(&r);
	ret_req->off = get64(&r);
	ret_req->len = get64(&r);
	ret_req->handle = get32(&r);
	*ret_why = NULL;
	if (magic != REQ_MAGIC)
		*ret_why = "not a remram request (wrong magic)";
	else if (*frame_op_name(ret_req->op) == '?')
		*ret_why = "unknown operation";
	else if (get32(&r) != 0)
		*ret_why = "reserved bytes are not zero";
	else
		*ret_why = check_req(ret_req);
	return *ret_why ? -EPROTO : 0;
}

int frame_rep_get(const uint8_t buf[FRAME_REP_LEN], struct frame_rep *ret_rep, const char **ret_why)
{
	struct reader r = {buf, FRAME_REP_LEN};
	uint16_t magic = get16(&r);

	get_bytes(&r, &ret_rep->op, 1);
	get_bytes(&r, &ret_rep->flags, 1);
	ret_rep->payload = get32(&r);
	ret_rep->id = get64(&r);
	ret_rep->status = get32(&r);
	*ret_why = NULL;
	if (magic != REP_MAGIC)
		*ret_why = "not a remram reply (wrong magic)";
	else if (*frame_op_name(ret_rep->op) == '?')
		*ret_why = "unknown operation";
	else if (ret_rep->status && ret_rep->payload > FRAME_TEXT_MAX)
		*ret_why = "error text too long";
	else if (ret_rep->payload >
		 (ret_rep->op == FRAME_READ ? FRAME_DATA_MAX : FRAME_CONTROL_MAX))
		*ret_why = "payload too long";
	return *ret_why ? -EPROTO : 0;
}

/* ---- errors ---- */

/* Section "Errors": Linux's numbers, fixed whatever the donor's system calls them. */
static const struct {
	int err;
	uint32_t status;
} statuses[] = {
    {EPERM, 1},
    {ENOENT, 2},
    {EINTR, 4},
    {EIO, 5},
    {E2BIG, 7},
    {EAGAIN, 11},
    {ENOMEM, 12},
    {EACCES, 13},
    {EBUSY, 16},
    {EEXIST, 17},
    {EINVAL, 22},
    {EFBIG, 27},
    {ENOSPC, 28},
    {EROFS, 30},
    {ERANGE, 34},
    {ENAMETOOLONG, 36},
    {ENOLCK, 37},
    {ENODATA, 61},
    {EPROTO, 71},
    {EBADF, 9},
    {EPROTONOSUPPORT, 93},
    {EOPNOTSUPP, 95},
    {ESHUTDOWN, 108},
    {ESTALE, 116},
    {EDQUOT, 122},
};

uint32_t frame_status(int err)
{
	if (err == 0)
		return 0;
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
		if (statuses[i].err == -err)
			return statuses[i].status;
	return 5;
}

int frame_errno(uint32_t status)
{
	if (status == 0)
		return 0;
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
		if (statuses[i].status == status)
			return -statuses[i].err;
	return -EIO;
}

/* ---- HELLO ---- */

size_t frame_hello_put(uint8_t buf[FRAME_HELLO_MAX], const struct frame_hello *hello)
{
	uint8_t *p = put32(buf, HELLO_MAGIC);

	p = put16(p, hello->version_min);
	p = put16(p, hello->version_max);
	p = put64(p, hello->features);
	p = put_bytes(p, hello->session, 16);
	p = put64(p, hello->epoch);
	p = put_bytes(p, hello->identity, POOL_IDENTITY_LEN);
	p = put_name(p, hello->pool);
	p = put_name(p, hello->who);
	return (size_t)(p - buf);
}

int frame_hello_get(const uint8_t *buf, size_t len, struct frame_hello *ret_hello)
{
	struct reader r = {buf, len};
	uint32_t magic = get32(&r);
	uint16_t name_len, who_len;
	const uint8_t *who;

	memset(ret_hello, 0, sizeof(*ret_hello));
	ret_hello->version_min = get16(&r);
	ret_hello->version_max = get16(&r);
	ret_hello->features = get64(&r);
	get_bytes(&r, ret_hello->session, 16);
	ret_hello->epoch = get64(&r);
	get_bytes(&r, ret_hello->identity, POOL_IDENTITY_LEN);
	name_len = get16(&r);
	if (name_len > FRAME_POOL_NAME_MAX)
		return -EPROTO;
	get_bytes(&r, ret_hello->pool, name_len);
	who_len = get16(&r);
	if (who_len > FRAME_WHO_MAX)
		return -EPROTO;
	who = take(&r, who_len);
	if (who)
		frame_text_get(ret_hello->who, sizeof(ret_hello->who), who, who_len);
	if (magic != HELLO_MAGIC || memchr(ret_hello->pool, 0, name_len))
		return -EPROTO;
	return reader_end(&r);
}

size_t frame_welcome_put(uint8_t buf[FRAME_WELCOME_LEN], const struct frame_welcome *welcome)
{
	uint8_t *p = put16(buf, welcome->version);

	p = put16(p, 0);
	p = put32(p, welcome->in_flight_max);
	p = put64(p, welcome->features);
	p = put_bytes(p, welcome->instance, 16);
	p = put_bytes(p, welcome->boot, 16);
	p = put_bytes(p, welcome->pool_uuid, 16);
	p = put64(p, welcome->size_max);
	p = put32(p, welcome->lease_ms);
	p = put32(p, 0);
	return (size_t)(p - buf);
}

int frame_welcome_get(const uint8_t *buf, size_t len, struct frame_welcome *ret_welcome)
{
	struct reader r = {buf, len};

	ret_welcome->version = get16(&r);
	get16(&r);
	ret_welcome->in_flight_max = get32(&r);
	ret_welcome->features = get64(&r);
	get_bytes(&r, ret_welcome->instance, 16);
	get_bytes(&r, ret_welcome->boot, 16);
	get_bytes(&r, ret_welcome->pool_uuid, 16);
	ret_welcome->size_max = get64(&r);
	ret_welcome->lease_ms = get32(&r);
	get32(&r);
	if (reader_end(&r) || ret_welcome->in_flight_max < 1 || ret_welcome->size_max > INT64_MAX)
		return -EPROTO;
	return 0;
}

/* ---- notices, texts ---- */

size_t frame_notice_put(uint8_t buf[FRAME_NOTICE_LEN], const struct pool_notice *notice)
{
	uint8_t *p = put64(buf, notice->id);

	p = put64(p, notice->version);
	p = put64(p, notice->size);
	return (size_t)(p - buf);
}

int frame_notice_get(const uint8_t *buf, size_t len, struct pool_notice *ret_notice)
{
	struct reader r = {buf, len};

	ret_notice->id = get64(&r);
	ret_notice->version = get64(&r);
	ret_notice->size = get64(&r);
	return ret_notice->size > INT64_MAX ? -EPROTO : reader_end(&r);
}

void frame_text_get(char *ret_text, size_t room, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;
	size_t n = len < room - 1 ? len : room - 1;

	for (size_t i = 0; i < n; i++)
		ret_text[i] = p[i] < 0x20 || p[i] == 0x7f ? '?' : (char)p[i];
	ret_text[n] = 0;
}

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

size_t frame_extents_put(uint8_t *buf, const struct extent *extents, unsigned count)
{
	uint8_t *p = buf;

	for (unsigned i = 0; i < count; i++) {
		p = put64(p, extents[i].len);
		p = put32(p, extents[i].flags);
	}
	return (size_t)(p - buf);
}

int frame_extents_get(const uint8_t *body, size_t body_len, uint64_t off, uint64_t len,
    struct extent *extents, unsigned max, unsigned *ret_count)
{
	struct reader r = {body, body_len};
	unsigned n = 0;

	while (r.p && r.left && n < max) {
		uint64_t piece = get64(&r);
		uint32_t flags = get32(&r);

		if (!r.p || piece < 1 || piece > len)
			return -EPROTO;
		extents[n++] = (struct extent){off, piece, flags & EXTENT_HOLE};
		off += piece;
		len -= piece;
	}
	if (n == 0)
		return -EPROTO;
	*ret_count = n;
	return 0;
}

int frame_is_zero(const void *buf, size_t len)
{
	const uint8_t *p = buf;

	/* Data is almost always told from zeros by its first bytes; the rest compares with itself. */
	while (len % 16 || (len && len < 32)) {
		if (*p++)
			return 0;
		len--;
	}
	if (len == 0)
		return 1;
	return memcmp(p, store_zeros, 16) == 0 && memcmp(p, p + 16, len - 16) == 0;
}
