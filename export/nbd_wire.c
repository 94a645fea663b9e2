/* SPDX-License-Identifier: Apache-2.0
 *
 * The bytes of the NBD protocol (see nbd_wire.h).
 *
 * Rules of the decoders: every length is checked against what is there before it is used, in 64-bit
 * arithmetic; nothing is copied, so nothing can overflow.
 */
#include "export/nbd_wire.h"

#include <errno.h>
#include <string.h>

enum { LEN_MAX = 32 << 20 /* of a READ or WRITE: what clients may assume by the specification */ };

#define MAGIC_NBD 0x4e42444d41474943u /* "NBDMAGIC" */
#define MAGIC_OPTION 0x49484156454f5054u /* "IHAVEOPT" */
#define MAGIC_OPTION_REPLY 0x0003e889045565a9u
#define MAGIC_REQUEST 0x25609513u
#define MAGIC_EXT_REQUEST 0x21e41c71u
#define MAGIC_SIMPLE 0x67446698u
#define MAGIC_CHUNK 0x668e33efu
#define MAGIC_EXT_CHUNK 0x6e8a278cu

uint32_t nbd_wire_errno(int err)
{
	switch (-err) {
	case 0:
		return 0;
	case EPERM:
	case EACCES:
	case EROFS:
	case EBADF:
		return NBD_EPERM;
	case ENOMEM:
		return NBD_ENOMEM;
	case EINVAL:
		return NBD_EINVAL;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return NBD_ENOSPC;
	case EOVERFLOW:
		return NBD_EOVERFLOW;
	case ENOTSUP:
		return NBD_ENOTSUP;
	case ESHUTDOWN:
		return NBD_ESHUTDOWN;
	default:
		return NBD_EIO;
	}
}

/* ---- numbers ---- */

uint8_t *nbd_put16(uint8_t *p, uint16_t v)
{
	v = __builtin_bswap16(v);
	memcpy(p, &v, 2);
	return p + 2;
}

uint8_t *nbd_put32(uint8_t *p, uint32_t v)
{
	v = __builtin_bswap32(v);
	memcpy(p, &v, 4);
	return p + 4;
}

uint8_t *nbd_put64(uint8_t *p, uint64_t v)
{
	v = __builtin_bswap64(v);
	memcpy(p, &v, 8);
	return p + 8;
}

uint16_t nbd_get16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, 2);
	return __builtin_bswap16(v);
}

uint32_t nbd_get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return __builtin_bswap32(v);
}

uint64_t nbd_get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return __builtin_bswap64(v);
}

/* ---- the handshake ---- */

void nbd_wire_greeting(uint8_t buf[NBD_GREETING_LEN])
{
	buf = nbd_put64(buf, MAGIC_NBD);
	buf = nbd_put64(buf, MAGIC_OPTION);
	nbd_put16(buf, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
}

int nbd_wire_option(const uint8_t buf[NBD_OPTION_LEN], uint32_t *ret_option, uint32_t *ret_len)
{
	if (nbd_get64(buf) != MAGIC_OPTION)
		return -EPROTO;
	*ret_option = nbd_get32(buf + 8);
	*ret_len = nbd_get32(buf + 12);
	return 0;
}

uint8_t *nbd_wire_reply(uint8_t *p, uint32_t option, uint32_t type, uint32_t len)
{
	p = nbd_put64(p, MAGIC_OPTION_REPLY);
	p = nbd_put32(p, option);
	p = nbd_put32(p, type);
	return nbd_put32(p, len);
}

/* A 32-bit length and as many bytes, cut off the front of data. */
static int cut_string(const uint8_t **data, size_t *len, struct nbd_name *ret_name)
{
	uint32_t n;

	if (*len < 4)
		return -EINVAL;
	n = nbd_get32(*data);
	*data += 4;
	*len -= 4;
	if (n > *len)
		return -EINVAL;
	if (n > NBD_NAME_MAX)
		return -ENAMETOOLONG;
	*ret_name = (struct nbd_name){*data, n};
	*data += n;
	*len -= n;
	return 0;
}

int nbd_wire_go(const uint8_t *data, size_t len, struct nbd_go *ret_go)
{
	int rc = cut_string(&data, &len, &ret_go->name);
	size_t count;

	if (rc)
		return rc;
	if (len < 2)
		return -EINVAL;
	count = nbd_get16(data);
	if (len - 2 != 2 * count)
		return -EINVAL;
	ret_go->want_name = ret_go->want_description = ret_go->want_block_size = false;
	for (data += 2; count > 0; count--, data += 2) {
		uint16_t info = nbd_get16(data);

		ret_go->want_name = ret_go->want_name || info == NBD_I_NAME;
		ret_go->want_description = ret_go->want_description || info == NBD_I_DESCRIPTION;
		ret_go->want_block_size = ret_go->want_block_size || info == NBD_I_BLOCK_SIZE;
	}
	return 0;
}

int nbd_wire_meta(const uint8_t *data, size_t len, struct nbd_meta *ret_meta)
{
	int rc = cut_string(&data, &len, &ret_meta->name);

	if (rc)
		return rc;
	if (len < 4)
		return -EINVAL;
	ret_meta->count = nbd_get32(data);
	ret_meta->kept = 0;
	data += 4;
	len -= 4;
	for (uint32_t i = 0; i < ret_meta->count; i++) {
		struct nbd_name query;

		if (cut_string(&data, &len, &query))
			return -EINVAL;
		if (ret_meta->kept < NBD_QUERIES_MAX)
			ret_meta->queries[ret_meta->kept++] = query;
	}
	return len ? -EINVAL : 0;
}

/* ---- requests ---- */

int nbd_wire_request(const uint8_t *buf, enum nbd_mode mode, struct nbd_request *ret_request)
{
	bool extended = mode == NBD_EXTENDED;
	bool has_payload;

	if (nbd_get32(buf) != (extended ? MAGIC_EXT_REQUEST : MAGIC_REQUEST))
		return -EPROTO;
	ret_request->flags = nbd_get16(buf + 4);
	ret_request->type = nbd_get16(buf + 6);
	ret_request->cookie = nbd_get64(buf + 8);
	ret_request->off = nbd_get64(buf + 16);
	ret_request->len = extended ? nbd_get64(buf + 24) : nbd_get32(buf + 24);
	/* A WRITE that does not say so has a payload all the same: else the two would no longer agree
	 * where requests begin. */
	has_payload = ret_request->type == NBD_C_WRITE ||
		      (extended && ret_request->flags & NBD_F_PAYLOAD_LEN);
	ret_request->payload = has_payload ? ret_request->len : 0;
	return 0;
}

/* Which flags a command may have. */
static uint16_t flags_of(uint16_t type, enum nbd_mode mode)
{
	switch (type) {
	case NBD_C_READ:
		return NBD_F_FUA | (mode == NBD_SIMPLE ? 0 : NBD_F_DF);
	case NBD_C_WRITE:
		return NBD_F_FUA | (mode == NBD_EXTENDED ? NBD_F_PAYLOAD_LEN : 0);
	case NBD_C_WRITE_ZEROES:
		return NBD_F_FUA | NBD_F_NO_HOLE | NBD_F_FAST_ZERO;
	case NBD_C_BLOCK_STATUS:
		return NBD_F_FUA | NBD_F_REQ_ONE;
	default:
		return NBD_F_FUA;
	}
}

static bool changes(uint16_t type)
{
	return type == NBD_C_WRITE || type == NBD_C_TRIM || type == NBD_C_WRITE_ZEROES;
}

uint32_t nbd_wire_check(
    const struct nbd_request *request, enum nbd_mode mode, uint64_t size, bool read_only)
{
	bool outside = request->off > size || request->len > size - request->off;

	if (request->type > NBD_C_BLOCK_STATUS || request->flags & ~flags_of(request->type, mode))
		return NBD_EINVAL;
	if (request->type == NBD_C_FLUSH)
		return request->off || request->len ? NBD_EINVAL : 0;
	if (read_only && changes(request->type))
		return NBD_EPERM;
	if ((request->type == NBD_C_READ || request->type == NBD_C_WRITE) && request->len > LEN_MAX)
		return NBD_EINVAL;
	if (outside)
		return request->type == NBD_C_WRITE || request->type == NBD_C_WRITE_ZEROES
			   ? NBD_ENOSPC
			   : NBD_EINVAL;
	if (request->type == NBD_C_BLOCK_STATUS && (mode == NBD_SIMPLE || request->len == 0))
		return NBD_EINVAL;
	return 0;
}

/* ---- replies ---- */

uint8_t *nbd_wire_simple(uint8_t *p, uint32_t error, uint64_t cookie)
{
	p = nbd_put32(p, MAGIC_SIMPLE);
	p = nbd_put32(p, error);
	return nbd_put64(p, cookie);
}

uint8_t *nbd_wire_chunk(uint8_t *p, enum nbd_mode mode, const struct nbd_request *request,
    enum nbd_chunk type, uint16_t flags, uint32_t len)
{
	p = nbd_put32(p, mode == NBD_EXTENDED ? MAGIC_EXT_CHUNK : MAGIC_CHUNK);
	p = nbd_put16(p, flags);
	p = nbd_put16(p, (uint16_t)type);
	p = nbd_put64(p, request->cookie);
	if (mode != NBD_EXTENDED)
		return nbd_put32(p, len);
	p = nbd_put64(p, request->off);
	return nbd_put64(p, len);
}

uint8_t *nbd_wire_data(uint8_t *p, enum nbd_mode mode, const struct nbd_request *request,
    uint16_t flags, uint64_t off, uint32_t len)
{
	p = nbd_wire_chunk(p, mode, request, NBD_CHUNK_DATA, flags, 8 + len);
	return nbd_put64(p, off);
}

uint8_t *nbd_wire_hole(uint8_t *p, enum nbd_mode mode, const struct nbd_request *request,
    uint16_t flags, uint64_t off, uint32_t len)
{
	p = nbd_wire_chunk(p, mode, request, NBD_CHUNK_HOLE, flags, 12);
	p = nbd_put64(p, off);
	return nbd_put32(p, len);
}

uint8_t *nbd_wire_error(uint8_t *p, enum nbd_mode mode, const struct nbd_request *request,
    uint16_t flags, uint32_t error)
{
	p = nbd_wire_chunk(p, mode, request, NBD_CHUNK_ERROR, flags, 6);
	p = nbd_put32(p, error);
	return nbd_put16(p, 0);
}
