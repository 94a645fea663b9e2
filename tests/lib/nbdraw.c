/* SPDX-License-Identifier: Apache-2.0
 *
 * A raw NBD client (see tests/lib/nbdraw.h).
 */
#include "tests/lib/nbdraw.h"

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/rig.h"

enum { TIMEOUT_S = 20 };

void nbdraw_connect(struct nbdraw *raw, const char *path, uint32_t flags)
{
	static const uint8_t greeting[NBD_GREETING_LEN] = "NBDMAGICIHAVEOPT\0\3";
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	struct timeval limit = {.tv_sec = TIMEOUT_S};
	uint8_t got[NBD_GREETING_LEN], put[4];
	uint8_t *data = raw->data;

	memset(raw, 0, sizeof(*raw));
	raw->data = data;
	raw->cookie = 0x1122334455667788;
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	raw->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	rig_check(raw->fd >= 0, "socket: %s", strerror(errno));
	setsockopt(raw->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	rig_check(connect(raw->fd, (struct sockaddr *)&sun, sizeof(sun)) == 0, "connect: %s",
	    strerror(errno));
	rig_check(nbdraw_recv(raw, got, sizeof(got)), "no greeting");
	ck_assert_mem_eq(got, greeting, sizeof(got));
	if (flags == UINT32_MAX)
		return;
	nbd_put32(put, flags);
	rig_check(nbdraw_bytes(raw, put, 4), "cannot send flags");
}

void nbdraw_close(struct nbdraw *raw)
{
	if (raw->fd >= 0)
		close(raw->fd);
	raw->fd = -1;
	free(raw->data);
	raw->data = NULL;
}

bool nbdraw_bytes(struct nbdraw *raw, const void *bytes, size_t len)
{
	const uint8_t *pos = bytes;

	while (len) {
		ssize_t n = send(raw->fd, pos, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		pos += n;
		len -= (size_t)n;
	}
	return true;
}

bool nbdraw_recv(struct nbdraw *raw, void *bytes, size_t len)
{
	uint8_t *pos = bytes;

	while (len) {
		ssize_t n = recv(raw->fd, pos, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		rig_check(n >= 0 || errno != EAGAIN, "no answer for %d s", TIMEOUT_S);
		if (n <= 0)
			return false;
		pos += n;
		len -= (size_t)n;
	}
	return true;
}

bool nbdraw_ended(struct nbdraw *raw, unsigned seconds)
{
	struct pollfd pfd = {.fd = raw->fd, .events = POLLIN};
	time_t end = time(NULL) + (time_t)seconds + 1;
	uint8_t dropped[4096];

	while (time(NULL) < end)
		if (poll(&pfd, 1, 100) > 0 &&
		    recv(raw->fd, dropped, sizeof(dropped), MSG_DONTWAIT) <= 0 && errno != EAGAIN)
			return true;
	return false;
}

/* ---- options ---- */

void nbdraw_option(struct nbdraw *raw, uint32_t option, const void *data, size_t len)
{
	uint8_t header[NBD_OPTION_LEN];

	memcpy(header, "IHAVEOPT", 8);
	nbd_put32(header + 8, option);
	nbd_put32(header + 12, (uint32_t)len);
	nbdraw_bytes(raw, header, sizeof(header));
	nbdraw_bytes(raw, data, len);
}

bool nbdraw_reply(struct nbdraw *raw)
{
	uint8_t header[NBD_OPTION_REPLY_LEN];

	if (!nbdraw_recv(raw, header, sizeof(header)))
		return false;
	rig_check(nbd_get64(header) == 0x3e889045565a9, "an option reply has another magic");
	raw->reply_option = nbd_get32(header + 8);
	raw->reply_type = nbd_get32(header + 12);
	raw->reply_len = nbd_get32(header + 16);
	rig_check(raw->reply_len < sizeof(raw->reply), "an option reply is too long");
	raw->reply[raw->reply_len] = 0;
	return nbdraw_recv(raw, raw->reply, raw->reply_len);
}

uint32_t nbdraw_ask(struct nbdraw *raw, uint32_t option, const void *data, size_t len)
{
	nbdraw_option(raw, option, data, len);
	rig_check(nbdraw_reply(raw), "option %u: the connection was ended", option);
	rig_check(
	    raw->reply_option == option, "a reply to option %u for %u", raw->reply_option, option);
	return raw->reply_type;
}

static uint8_t *put_string(uint8_t *p, const char *text, size_t len)
{
	p = nbd_put32(p, (uint32_t)len);
	memcpy(p, text, len);
	return p + len;
}

size_t nbdraw_go_data(
    uint8_t *buf, const char *name, size_t name_len, const uint16_t *infos, unsigned count)
{
	uint8_t *p = put_string(buf, name, name_len);

	p = nbd_put16(p, (uint16_t)count);
	for (unsigned i = 0; i < count; i++)
		p = nbd_put16(p, infos[i]);
	return (size_t)(p - buf);
}

size_t nbdraw_meta_data(uint8_t *buf, const char *name, const char *const *queries)
{
	uint8_t *p = put_string(buf, name, strlen(name)), *count = p;
	uint32_t n = 0;

	for (p += 4; queries && queries[n]; n++)
		p = put_string(p, queries[n], strlen(queries[n]));
	nbd_put32(count, n);
	return (size_t)(p - buf);
}

/* The replies to INFO or GO up to the ACK. */
static void take_infos(struct nbdraw *raw)
{
	while (raw->reply_type == NBD_R_INFO) {
		if (nbd_get16(raw->reply) == NBD_I_EXPORT) {
			raw->size = nbd_get64(raw->reply + 2);
			raw->flags = nbd_get16(raw->reply + 10);
		}
		rig_check(nbdraw_reply(raw), "the connection was ended");
	}
	rig_check(raw->reply_type == NBD_R_ACK, "GO: reply 0x%x: %s", raw->reply_type,
	    (const char *)raw->reply);
}

void nbdraw_open(struct nbdraw *raw, const char *path, enum nbd_mode mode, const char *name,
    const char *const *contexts)
{
	uint8_t data[8192];
	size_t len;

	nbdraw_connect(raw, path, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
	if (mode == NBD_STRUCTURED)
		ck_assert_uint_eq(nbdraw_ask(raw, NBD_O_STRUCTURED_REPLY, NULL, 0), NBD_R_ACK);
	if (mode == NBD_EXTENDED)
		ck_assert_uint_eq(nbdraw_ask(raw, NBD_O_EXTENDED_HEADERS, NULL, 0), NBD_R_ACK);
	if (contexts) {
		len = nbdraw_meta_data(data, name, contexts);
		nbdraw_ask(raw, NBD_O_SET_META_CONTEXT, data, len);
		while (raw->reply_type == NBD_R_META_CONTEXT)
			rig_check(nbdraw_reply(raw), "the connection was ended");
		ck_assert_uint_eq(raw->reply_type, NBD_R_ACK);
	}
	len = nbdraw_go_data(data, name, strlen(name), NULL, 0);
	nbdraw_ask(raw, NBD_O_GO, data, len);
	take_infos(raw);
	raw->mode = mode;
}

/* ---- transmission ---- */

uint64_t nbdraw_request(struct nbdraw *raw, uint16_t flags, uint16_t type, uint64_t off,
    uint64_t len, const void *payload)
{
	bool extended = raw->mode == NBD_EXTENDED;
	uint8_t header[NBD_EXT_REQUEST_LEN], *p = header;

	if (extended && type == NBD_C_WRITE)
		flags |= NBD_F_PAYLOAD_LEN;
	p = nbd_put32(p, extended ? 0x21e41c71 : 0x25609513);
	p = nbd_put16(p, flags);
	p = nbd_put16(p, type);
	p = nbd_put64(p, ++raw->cookie);
	p = nbd_put64(p, off);
	p = extended ? nbd_put64(p, len) : nbd_put32(p, (uint32_t)len);
	nbdraw_bytes(raw, header, (size_t)(p - header));
	if (payload)
		nbdraw_bytes(raw, payload, len);
	return raw->cookie;
}

static void take_data(
    struct nbdraw *raw, uint64_t base, uint64_t expect, struct nbdraw_chunk *chunk)
{
	rig_check(chunk->off >= base && chunk->off - base <= expect &&
		      chunk->len <= expect - (chunk->off - base),
	    "a chunk is not of the range that was asked for");
	if (chunk->type == NBD_CHUNK_HOLE)
		memset(raw->data + (chunk->off - base), 0, chunk->len);
	else
		rig_check(nbdraw_recv(raw, raw->data + (chunk->off - base), chunk->len),
		    "the connection was ended within data");
}

static void take_status(struct nbdraw *raw, uint64_t len, bool extended)
{
	uint8_t *buf = malloc(len), *p = buf + 4;
	size_t step = extended ? 16 : 8;
	uint32_t id;

	ck_assert_ptr_nonnull(buf);
	rig_check(len >= 4 + step && nbdraw_recv(raw, buf, len), "a status chunk is cut short");
	id = nbd_get32(buf);
	rig_check(id >= 1 && id <= 3, "status of context %u", id);
	if (extended) {
		ck_assert_uint_eq(nbd_get32(p), (len - 8) / step);
		p += 4;
	}
	raw->extent_count[id] = 0;
	for (; p + step <= buf + len; p += step) {
		struct nbdraw_extent *extent = &raw->extents[id][raw->extent_count[id]++];

		extent->len = extended ? nbd_get64(p) : nbd_get32(p);
		extent->state = extended ? nbd_get64(p + 8) : nbd_get32(p + 4);
	}
	ck_assert_ptr_eq(p, buf + len);
	free(buf);
}

static void take_payload(
    struct nbdraw *raw, uint64_t base, uint64_t expect, uint64_t len, struct nbdraw_chunk *chunk)
{
	uint8_t buf[256];

	switch (chunk->type) {
	case NBD_CHUNK_NONE:
		ck_assert_uint_eq(len, 0);
		break;
	case NBD_CHUNK_DATA:
		rig_check(len > 8 && nbdraw_recv(raw, buf, 8), "a data chunk without data");
		chunk->off = nbd_get64(buf);
		chunk->len = len - 8;
		take_data(raw, base, expect, chunk);
		break;
	case NBD_CHUNK_HOLE:
		rig_check(len == 12 && nbdraw_recv(raw, buf, 12), "a hole chunk of another length");
		chunk->off = nbd_get64(buf);
		chunk->len = nbd_get32(buf + 8);
		take_data(raw, base, expect, chunk);
		break;
	case NBD_CHUNK_STATUS:
	case NBD_CHUNK_STATUS_EXT:
		ck_assert_int_eq(chunk->type == NBD_CHUNK_STATUS_EXT, raw->mode == NBD_EXTENDED);
		take_status(raw, len, raw->mode == NBD_EXTENDED);
		break;
	default:
		rig_check(chunk->type & 0x8000 && len >= 6 && len < sizeof(buf), "chunk type %u",
		    chunk->type);
		rig_check(nbdraw_recv(raw, buf, len), "an error chunk is cut short");
		chunk->error = nbd_get32(buf);
		ck_assert_uint_ne(chunk->error, 0);
	}
}

bool nbdraw_chunk(struct nbdraw *raw, uint64_t off, uint64_t expect, struct nbdraw_chunk *ret_chunk)
{
	struct nbdraw_chunk chunk = {0};
	uint8_t header[NBD_EXT_CHUNK_LEN];
	uint64_t len;

	if (!nbdraw_recv(raw, header, NBD_SIMPLE_LEN))
		return false;
	chunk.simple = nbd_get32(header) == 0x67446698;
	chunk.cookie = nbd_get64(header + 8);
	if (chunk.simple) {
		rig_check(raw->mode != NBD_EXTENDED, "a simple reply in extended mode");
		chunk.error = nbd_get32(header + 4);
		chunk.flags = NBD_CHUNK_DONE;
		chunk.off = off;
		chunk.len = chunk.error ? 0 : expect;
		if (chunk.len)
			take_data(raw, off, expect, &chunk);
		*ret_chunk = chunk;
		return true;
	}
	rig_check(nbd_get32(header) == (raw->mode == NBD_EXTENDED ? 0x6e8a278c : 0x668e33ef),
	    "a reply has another magic");
	chunk.flags = nbd_get16(header + 4);
	chunk.type = nbd_get16(header + 6);
	if (raw->mode == NBD_EXTENDED) {
		rig_check(nbdraw_recv(raw, header + 16, 16), "the connection was ended");
		if (off != UINT64_MAX)
			ck_assert_uint_eq(nbd_get64(header + 16), off);
		len = nbd_get64(header + 24);
	} else {
		rig_check(nbdraw_recv(raw, header + 16, 4), "the connection was ended");
		len = nbd_get32(header + 16);
	}
	take_payload(raw, off, expect, len, &chunk);
	*ret_chunk = chunk;
	return true;
}

uint32_t nbdraw_cmd(struct nbdraw *raw, uint16_t flags, uint16_t type, uint64_t off, uint64_t len,
    const void *payload)
{
	uint64_t cookie, expect = type == NBD_C_READ ? len : 0, got = 0;
	uint32_t error = 0;
	struct nbdraw_chunk chunk;

	if (!raw->data)
		raw->data = malloc(NBDRAW_DATA_MAX);
	ck_assert_ptr_nonnull(raw->data);
	if (expect && expect <= NBDRAW_DATA_MAX)
		memset(raw->data, 0xee, expect);
	cookie = nbdraw_request(raw, flags, type, off, len, payload);
	raw->chunk_count = 0;
	do {
		rig_check(nbdraw_chunk(raw, off, expect, &chunk),
		    "command %u: the connection was ended", type);
		rig_check(chunk.cookie == cookie, "a reply to another request");
		rig_check(raw->mode == NBD_SIMPLE || !chunk.simple || type != NBD_C_READ,
		    "a simple reply to READ in structured mode");
		rig_check(raw->chunk_count < NBDRAW_CHUNKS_MAX, "too many chunks");
		raw->chunks[raw->chunk_count++] = chunk;
		got += chunk.len;
		error = error ? error : chunk.error;
	} while (!(chunk.flags & NBD_CHUNK_DONE));
	rig_check(error || got == expect, "READ of %llu bytes got %llu", (unsigned long long)expect,
	    (unsigned long long)got);
	return error;
}
