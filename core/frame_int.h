/* SPDX-License-Identifier: Apache-2.0
 *
 * What frame.c (headers, HELLO, notices, extents) and frame_control.c (requests and results of pools) share:
 * cursors over a frame's bytes.  The writers return where the next field goes; the reader is checked once, at
 * the end.
 */
#ifndef REMRAM_CORE_FRAME_INT_H
#define REMRAM_CORE_FRAME_INT_H

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "core/frame.h"

static inline uint8_t *put16(uint8_t *p, uint16_t v)
{
	v = htole16(v);
	memcpy(p, &v, 2);
	return p + 2;
}

static inline uint8_t *put32(uint8_t *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, 4);
	return p + 4;
}

static inline uint8_t *put64(uint8_t *p, uint64_t v)
{
	v = htole64(v);
	memcpy(p, &v, 8);
	return p + 8;
}

static inline uint8_t *put_bytes(uint8_t *p, const void *bytes, size_t len)
{
	memcpy(p, bytes, len);
	return p + len;
}

static inline uint8_t *put_name(uint8_t *p, const char *name)
{
	size_t len = strlen(name);

	return put_bytes(put16(p, (uint16_t)len), name, len);
}

/* What is left to decode; p becomes NULL at the first read beyond the end and stays so. */
struct reader {
	const uint8_t *p;
	size_t left;
};

static inline const uint8_t *take(struct reader *r, size_t len)
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

static inline uint16_t get16(struct reader *r)
{
	const uint8_t *p = take(r, 2);
	uint16_t v = 0;

	if (p)
		memcpy(&v, p, 2);
	return le16toh(v);
}

static inline uint32_t get32(struct reader *r)
{
	const uint8_t *p = take(r, 4);
	uint32_t v = 0;

	if (p)
		memcpy(&v, p, 4);
	return le32toh(v);
}

static inline uint64_t get64(struct reader *r)
{
	const uint8_t *p = take(r, 8);
	uint64_t v = 0;

	if (p)
		memcpy(&v, p, 8);
	return le64toh(v);
}

static inline void get_bytes(struct reader *r, void *ret, size_t len)
{
	const uint8_t *p = take(r, len);

	if (p)
		memcpy(ret, p, len);
}

/* A name of at most POOL_NAME_MAX bytes into buf: 0, -EPROTO (cut short), -ENAMETOOLONG, or -EINVAL (a
 * NUL in it). */
static inline int get_name(struct reader *r, char buf[POOL_NAME_MAX + 1])
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
static inline int reader_end(const struct reader *r)
{
	return r->p && r->left == 0 ? 0 : -EPROTO;
}

#endif
