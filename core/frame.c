/* SPDX-License-Identifier: Apache-2.0
 *
 * Encoding and decoding of frames (docs/PROTOCOL.md): headers, errors, HELLO, notices, extents; frame_control.c
 * has the bodies of control requests.  Stateless; decoders trust nothing.
 */
#include "core/frame.h"

#include <errno.h>
#include <string.h>

#include "core/frame_int.h"

enum { REQ_MAGIC = 0x5152 /* "RQ" */, REP_MAGIC = 0x5052 /* "RP" */, HELLO_MAGIC = 0x4d524d52 };

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

/* ---- extents, zeros ---- */

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
