/* SPDX-License-Identifier: Apache-2.0
 *
 * The wire codec: each frame's bytes (the same as in docs/PROTOCOL.md), what comes back from them,
 * every truncation, every limit.  Random bytes are in frame_random.c.
 */
#include "core/frame.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/hex.h"

static const char *why;

/* ---- headers ---- */

#define REQ_HEX \
	"52 51 21 02  00 10 00 00  08 07 06 05 04 03 02 01" \
	"00 20 00 00 00 00 00 00  00 10 00 00 00 00 00 00  07 00 00 00  00 00 00 00"

static const struct frame_req a_write = {
    .op = FRAME_WRITE,
    .flags = FRAME_F_FUA,
    .payload = 4096,
    .id = 0x0102030405060708,
    .off = 8192,
    .len = 4096,
    .handle = 7,
};

START_TEST(request_header)
{
	uint8_t buf[FRAME_REQ_LEN];
	struct frame_req req;

	frame_req_put(buf, &a_write);
	hex_expect("request header", buf, sizeof(buf), REQ_HEX);
	ck_assert_int_eq(frame_req_get(buf, &req, &why), 0);
	ck_assert_ptr_null(why);
	ck_assert_uint_eq(req.op, FRAME_WRITE);
	ck_assert_uint_eq(req.flags, FRAME_F_FUA);
	ck_assert_uint_eq(req.payload, 4096);
	ck_assert_uint_eq(req.id, a_write.id);
	ck_assert_uint_eq(req.off, 8192);
	ck_assert_uint_eq(req.len, 4096);
	ck_assert_uint_eq(req.handle, 7);
}
END_TEST

START_TEST(reply_header)
{
	const struct frame_rep in = {
	    .op = FRAME_READ, .flags = 0, .payload = 0x1000, .id = 0x0102030405060708, .status = 0};
	struct frame_rep rep;
	uint8_t buf[FRAME_REP_LEN];

	frame_rep_put(buf, &in);
	hex_expect("reply header", buf, sizeof(buf),
	    "52 50 20 00  00 10 00 00  08 07 06 05 04 03 02 01  00 00 00 00  00 00 00 00");
	ck_assert_int_eq(frame_rep_get(buf, &rep, &why), 0);
	ck_assert_uint_eq(rep.op, in.op);
	ck_assert_uint_eq(rep.payload, in.payload);
	ck_assert_uint_eq(rep.id, in.id);
	ck_assert_uint_eq(rep.status, 0);

	frame_rep_put(
	    buf, &(struct frame_rep){.op = FRAME_OPEN, .flags = 32, .id = 1, .status = 13});
	hex_expect("error reply", buf, sizeof(buf),
	    "52 50 14 20  00 00 00 00  01 00 00 00 00 00 00 00  0d 00 00 00  00 00 00 00");
	ck_assert_int_eq(frame_rep_get(buf, &rep, &why), 0);
	ck_assert_uint_eq(rep.flags, FRAME_F_UNCHANGED);
	ck_assert_int_eq(frame_errno(rep.status), -EACCES);
}
END_TEST

/* What the decoder says about a request: NULL, it is good. */
static const char *req_verdict(const struct frame_req *req)
{
	uint8_t buf[FRAME_REQ_LEN];
	struct frame_req got;
	int rc;

	frame_req_put(buf, req);
	rc = frame_req_get(buf, &got, &why);
	ck_assert_int_eq(rc, why ? -EPROTO : 0);
	return why;
}

static void req_good(struct frame_req req)
{
	ck_assert_msg(!req_verdict(&req), "%s refused: %s", frame_op_name(req.op), why);
}

static void req_bad(struct frame_req req, const char *text)
{
	ck_assert_msg(req_verdict(&req) != NULL, "%s was taken", frame_op_name(req.op));
	ck_assert_msg(strstr(why, text) != NULL, "\"%s\" lacks \"%s\"", why, text);
}

START_TEST(bad_request_headers)
{
	uint8_t buf[FRAME_REQ_LEN];
	struct frame_req req;

	for (unsigned i = 0; i < 2; i++) {
		frame_req_put(buf, &a_write);
		buf[i] ^= 1;
		ck_assert_int_eq(frame_req_get(buf, &req, &why), -EPROTO);
		ck_assert_ptr_nonnull(strstr(why, "magic"));
	}
	for (unsigned i = 36; i < 40; i++) {
		frame_req_put(buf, &a_write);
		buf[i] = 1;
		ck_assert_int_eq(frame_req_get(buf, &req, &why), -EPROTO);
		ck_assert_ptr_nonnull(strstr(why, "reserved"));
	}
	for (unsigned op = 0; op < 256; op++) {
		bool known = (op >= FRAME_HELLO && op <= FRAME_NOTICE) ||
			     (op >= FRAME_LOOKUP && op <= FRAME_REMOVEXATTR) ||
			     (op >= FRAME_READ && op <= FRAME_EXTENTS);

		req_verdict(&(struct frame_req){
		    .op = (uint8_t)op, .len = 1, .payload = op == FRAME_WRITE ? 1 : 0});
		ck_assert_msg(known == !why, "op %u: %s", op, why ? why : "taken");
		ck_assert_int_eq(known, strcmp(frame_op_name(op), "?") != 0);
		if (!known)
			ck_assert_str_eq(why, "unknown operation");
	}
	ck_assert_str_eq(frame_op_name(1000), "?");
}
END_TEST

START_TEST(data_lengths)
{
	const uint64_t mib = 1 << 20;

	req_good((struct frame_req){.op = FRAME_READ, .len = 1});
	req_good((struct frame_req){.op = FRAME_READ, .len = mib});
	req_bad((struct frame_req){.op = FRAME_READ, .len = 0}, "1 MiB");
	req_bad((struct frame_req){.op = FRAME_READ, .len = mib + 1}, "1 MiB");
	req_bad((struct frame_req){.op = FRAME_READ, .len = 4096, .payload = 1}, "payload");
	req_good((struct frame_req){.op = FRAME_WRITE, .len = 1, .payload = 1});
	req_good((struct frame_req){.op = FRAME_WRITE, .len = mib, .payload = mib});
	req_bad((struct frame_req){.op = FRAME_WRITE, .len = 0}, "1 MiB");
	req_bad((struct frame_req){.op = FRAME_WRITE, .len = mib + 1, .payload = mib + 1}, "1 MiB");
	req_bad((struct frame_req){.op = FRAME_WRITE, .len = 2, .payload = 1}, "not its length");
	req_bad((struct frame_req){.op = FRAME_WRITE, .len = 1, .payload = 2}, "not its length");
	req_bad((struct frame_req){.op = FRAME_WRITE, .len = 1, .payload = 0}, "not its length");
	/* The length is 64 bits wide: its low half alone would be right. */
	req_bad(
	    (struct frame_req){.op = FRAME_WRITE, .len = 1ull << 32 | 1, .payload = 1}, "1 MiB");
	req_good((struct frame_req){.op = FRAME_WRITE, .flags = FRAME_F_ZEROS, .len = mib});
	req_bad(
	    (struct frame_req){.op = FRAME_WRITE, .flags = FRAME_F_ZEROS, .len = 1, .payload = 1},
	    "not its length");
	for (unsigned op = FRAME_ZERO; op <= FRAME_EXTENTS; op++) {
		struct frame_req req = {.op = (uint8_t)op, .len = INT64_MAX};

		req_good(req);
		req.payload = 1;
		req_bad(req, "payload");
		req.payload = 0;
		req.len = 0;
		if (op == FRAME_FLUSH)
			req_good(req);
		else
			req_bad(req, "empty");
	}
}
END_TEST

START_TEST(ranges_that_overflow)
{
	for (unsigned op = FRAME_READ; op <= FRAME_EXTENTS; op++) {
		struct frame_req req = {.op = (uint8_t)op, .len = 4096};

		if (op == FRAME_WRITE)
			req.payload = 4096;
		req.off = INT64_MAX - 4096;
		req_good(req);
		req.off++;
		req_bad(req, "overflows");
		req.off = (uint64_t)INT64_MAX + 1;
		req_bad(req, "overflows");
		req.off = UINT64_MAX;
		req_bad(req, "overflows");
	}
	for (unsigned op = FRAME_ZERO; op <= FRAME_EXTENTS; op++) {
		req_bad(
		    (struct frame_req){.op = (uint8_t)op, .off = 1, .len = INT64_MAX}, "overflows");
		req_bad((struct frame_req){.op = (uint8_t)op, .off = 1, .len = UINT64_MAX},
		    "overflows");
	}
	/* In control requests `off` is an id or a cookie. */
	req_good((struct frame_req){.op = FRAME_GETATTR, .off = UINT64_MAX, .len = UINT64_MAX});
}
END_TEST

START_TEST(control_payload_limits)
{
	for (unsigned op = FRAME_LOOKUP; op <= FRAME_REMOVEXATTR; op++) {
		req_good((struct frame_req){.op = (uint8_t)op, .payload = FRAME_CONTROL_MAX});
		req_bad((struct frame_req){.op = (uint8_t)op, .payload = FRAME_CONTROL_MAX + 1},
		    "too long");
		req_bad((struct frame_req){.op = (uint8_t)op, .payload = UINT32_MAX}, "too long");
	}
	req_good((struct frame_req){.op = FRAME_HELLO, .payload = FRAME_HELLO_MAX});
	req_bad((struct frame_req){.op = FRAME_HELLO, .payload = FRAME_HELLO_MAX + 1}, "too long");
	req_bad((struct frame_req){.op = FRAME_PING, .payload = 1}, "payload");
	req_bad((struct frame_req){.op = FRAME_BYE, .payload = 1}, "payload");
	req_bad((struct frame_req){.op = FRAME_NOTICE, .payload = 1}, "payload");
}
END_TEST

static const char *rep_verdict(struct frame_rep rep)
{
	uint8_t buf[FRAME_REP_LEN];
	struct frame_rep got;
	int rc;

	frame_rep_put(buf, &rep);
	rc = frame_rep_get(buf, &got, &why);
	ck_assert_int_eq(rc, why ? -EPROTO : 0);
	return why;
}

START_TEST(bad_reply_headers)
{
	uint8_t buf[FRAME_REP_LEN], request[FRAME_REQ_LEN];
	struct frame_rep rep;

	for (unsigned i = 0; i < 2; i++) {
		frame_rep_put(buf, &(struct frame_rep){.op = FRAME_READ});
		buf[i] ^= 0x80;
		ck_assert_int_eq(frame_rep_get(buf, &rep, &why), -EPROTO);
		ck_assert_ptr_nonnull(strstr(why, "magic"));
	}
	/* A request is no reply and the other way round. */
	frame_req_put(request, &a_write);
	ck_assert_int_eq(frame_rep_get(request, &rep, &why), -EPROTO);
	ck_assert_str_eq(rep_verdict((struct frame_rep){.op = 5}), "unknown operation");
	ck_assert_str_eq(rep_verdict((struct frame_rep){.op = 255}), "unknown operation");
	ck_assert_ptr_null(rep_verdict((struct frame_rep){.op = FRAME_READ, .payload = 1 << 20}));
	ck_assert_str_eq(
	    rep_verdict((struct frame_rep){.op = FRAME_READ, .payload = (1 << 20) + 1}),
	    "payload too long");
	ck_assert_ptr_null(rep_verdict((struct frame_rep){.op = FRAME_LIST, .payload = 66 * 1024}));
	ck_assert_str_eq(
	    rep_verdict((struct frame_rep){.op = FRAME_LIST, .payload = 66 * 1024 + 1}),
	    "payload too long");
	for (unsigned op = FRAME_READ; op <= FRAME_EXTENTS; op++) {
		ck_assert_ptr_null(rep_verdict(
		    (struct frame_rep){.op = (uint8_t)op, .status = 5, .payload = 512}));
		ck_assert_str_eq(
		    rep_verdict((struct frame_rep){.op = (uint8_t)op, .status = 5, .payload = 513}),
		    "error text too long");
	}
}
END_TEST

/* ---- HELLO ---- */

#define HELLO_HEX \
	"52 4d 52 4d  01 00  03 00  00 00 00 00 00 00 00 80" \
	"00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f" \
	"2a 00 00 00 00 00 00 00" \
	"80 81 82 83 84 85 86 87 88 89 8a 8b 8c 8d 8e 8f" \
	"03 00 72 61 6d  02 00 c3 a9"

static struct frame_hello a_hello(void)
{
	struct frame_hello hello = {.version_min = 1,
	    .version_max = 3,
	    .features = 1ull << 63,
	    .epoch = 42,
	    .pool = "ram",
	    .who = "é"};

	for (unsigned i = 0; i < 16; i++) {
		hello.session[i] = (uint8_t)i;
		hello.identity[i] = (uint8_t)(0x80 + i);
	}
	return hello;
}

START_TEST(hello)
{
	struct frame_hello in = a_hello(), out;
	uint8_t buf[FRAME_HELLO_MAX + 1];
	size_t len = frame_hello_put(buf, &in);

	hex_expect("HELLO", buf, len, HELLO_HEX);
	ck_assert_int_eq(frame_hello_get(buf, len, &out), 0);
	ck_assert_mem_eq(&in, &out, sizeof(in));
	for (size_t cut = 0; cut < len; cut++)
		ck_assert_int_eq(frame_hello_get(buf, cut, &out), -EPROTO);
	buf[len] = 'x';
	ck_assert_int_eq(frame_hello_get(buf, len + 1, &out), -EPROTO);
	buf[3] ^= 1;
	ck_assert_int_eq(frame_hello_get(buf, len, &out), -EPROTO);
}
END_TEST

START_TEST(hello_pool_names)
{
	struct frame_hello in = a_hello(), out;
	uint8_t buf[FRAME_HELLO_MAX + 64];
	size_t len;

	memset(in.pool, 'p', FRAME_POOL_NAME_MAX);
	memset(in.who, 'w', FRAME_WHO_MAX);
	len = frame_hello_put(buf, &in);
	ck_assert_uint_eq(len, FRAME_HELLO_MAX);
	ck_assert_int_eq(frame_hello_get(buf, len, &out), 0);
	ck_assert_str_eq(out.pool, in.pool);
	ck_assert_str_eq(out.who, in.who);
	buf[122]++; /* one byte longer than the text can be, and it is there */
	buf[len] = 'w';
	ck_assert_int_eq(frame_hello_get(buf, len + 1, &out), -EPROTO);
	buf[122]--;
	buf[56]++; /* the same of the pool's name */
	memmove(buf + 123, buf + 122, len - 122);
	buf[122] = 'p';
	ck_assert_int_eq(frame_hello_get(buf, len + 1, &out), -EPROTO);
	buf[57] = 0xff;
	ck_assert_int_eq(frame_hello_get(buf, len + 1, &out), -EPROTO);

	in = a_hello();
	in.pool[0] = 0;
	len = frame_hello_put(buf, &in);
	ck_assert_int_eq(frame_hello_get(buf, len, &out), 0);
	ck_assert_str_eq(out.pool, "");
	/* A NUL within the name would make it another name. */
	in = a_hello();
	len = frame_hello_put(buf, &in);
	buf[59] = 0;
	ck_assert_int_eq(frame_hello_get(buf, len, &out), -EPROTO);
}
END_TEST

/* What a client says of itself ends in other people's logs. */
START_TEST(hello_texts)
{
	struct frame_hello in = a_hello(), out;
	uint8_t buf[FRAME_HELLO_MAX];
	size_t len;
	char text[5];

	strcpy(in.who, "a\nb\x1b[1m\x7f");
	len = frame_hello_put(buf, &in);
	ck_assert_int_eq(frame_hello_get(buf, len, &out), 0);
	ck_assert_str_eq(out.who, "a?b?[1m?");
	buf[len - 8] = 0;
	ck_assert_int_eq(frame_hello_get(buf, len, &out), 0);
	ck_assert_str_eq(out.who, "??b?[1m?");
	frame_text_get(text, sizeof(text), "longer than that", 16);
	ck_assert_str_eq(text, "long");
}
END_TEST

START_TEST(notice)
{
	struct pool_notice in = {.id = 7, .version = 0x0102, .size = 1 << 20}, out;
	uint8_t buf[FRAME_NOTICE_LEN + 1] = {0};
	size_t len = frame_notice_put(buf, &in);

	hex_expect("NOTICE", buf, len,
	    "07 00 00 00 00 00 00 00  02 01 00 00 00 00 00 00  00 00 10 00 00 00 00 00");
	ck_assert_int_eq(frame_notice_get(buf, len, &out), 0);
	ck_assert_mem_eq(&in, &out, sizeof(in));
	for (size_t cut = 0; cut < len; cut++)
		ck_assert_int_eq(frame_notice_get(buf, cut, &out), -EPROTO);
	ck_assert_int_eq(frame_notice_get(buf, len + 1, &out), -EPROTO);
	buf[23] = 0x80;
	ck_assert_int_eq(frame_notice_get(buf, len, &out), -EPROTO);
}
END_TEST

START_TEST(welcome)
{
	struct frame_welcome in = {.version = 1,
	    .features = 2,
	    .size_max = 8ull << 30,
	    .in_flight_max = 1024,
	    .lease_ms = 30000};
	struct frame_welcome out = {0};
	uint8_t buf[FRAME_WELCOME_LEN + 1] = {0};

	memset(in.instance, 0x11, 16);
	memset(in.boot, 0x22, 16);
	memset(in.pool_uuid, 0x33, 16);
	ck_assert_uint_eq(frame_welcome_put(buf, &in), FRAME_WELCOME_LEN);
	hex_expect("welcome", buf, FRAME_WELCOME_LEN,
	    "01 00  00 00  00 04 00 00  02 00 00 00 00 00 00 00"
	    "11 11 11 11 11 11 11 11 11 11 11 11 11 11 11 11"
	    "22 22 22 22 22 22 22 22 22 22 22 22 22 22 22 22"
	    "33 33 33 33 33 33 33 33 33 33 33 33 33 33 33 33"
	    "00 00 00 00 02 00 00 00  30 75 00 00 00 00 00 00");
	ck_assert_int_eq(frame_welcome_get(buf, FRAME_WELCOME_LEN, &out), 0);
	ck_assert_uint_eq(out.version, 1);
	ck_assert_uint_eq(out.features, 2);
	ck_assert_uint_eq(out.size_max, 8ull << 30);
	ck_assert_uint_eq(out.in_flight_max, 1024);
	ck_assert_uint_eq(out.lease_ms, 30000);
	ck_assert_mem_eq(out.instance, in.instance, 16);
	ck_assert_mem_eq(out.boot, in.boot, 16);
	ck_assert_mem_eq(out.pool_uuid, in.pool_uuid, 16);
	for (size_t cut = 0; cut < FRAME_WELCOME_LEN; cut++)
		ck_assert_int_eq(frame_welcome_get(buf, cut, &out), -EPROTO);
	ck_assert_int_eq(frame_welcome_get(buf, FRAME_WELCOME_LEN + 1, &out), -EPROTO);
	in.in_flight_max = 0;
	frame_welcome_put(buf, &in);
	ck_assert_int_eq(frame_welcome_get(buf, FRAME_WELCOME_LEN, &out), -EPROTO);
	in.in_flight_max = 1;
	in.size_max = (uint64_t)INT64_MAX + 1;
	frame_welcome_put(buf, &in);
	ck_assert_int_eq(frame_welcome_get(buf, FRAME_WELCOME_LEN, &out), -EPROTO);
	in.size_max = INT64_MAX;
	frame_welcome_put(buf, &in);
	ck_assert_int_eq(frame_welcome_get(buf, FRAME_WELCOME_LEN, &out), 0);
}
END_TEST

/* ---- attributes ---- */

#define ATTR_HEX \
	"02 00 00 00 00 00 00 00  00 00 00 40 00 00 00 00  00 10 00 00 00 00 00 00" \
	"07 00 00 00 00 00 00 00  01 00 00 00 00 00 00 00  ff ff ff ff ff ff ff ff" \
	"03 00 00 00 00 00 00 00  a0 01 00 00  e8 03 00 00  e9 03 00 00  01 00 00 00"

static const struct region_attr an_attr = {
    .id = 2,
    .size = 1 << 30,
    .allocated = 4096,
    .version = 7,
    .atime_ns = 1,
    .mtime_ns = -1,
    .ctime_ns = 3,
    .mode = 0640,
    .uid = 1000,
    .gid = 1001,
    .nlink = 1,
};

START_TEST(attributes)
{
	uint8_t buf[FRAME_ATTR_LEN + 1] = {0};
	struct region_attr out;

	ck_assert_uint_eq(frame_attr_put(buf, &an_attr), FRAME_ATTR_LEN);
	hex_expect("attributes", buf, FRAME_ATTR_LEN, ATTR_HEX);
	memset(&out, 0xee, sizeof(out));
	ck_assert_int_eq(frame_attr_get(buf, FRAME_ATTR_LEN, &out), 0);
	ck_assert_mem_eq(&an_attr, &out, sizeof(out));
	for (size_t cut = 0; cut < FRAME_ATTR_LEN; cut++)
		ck_assert_int_eq(frame_attr_get(buf, cut, &out), -EPROTO);
	ck_assert_int_eq(frame_attr_get(buf, FRAME_ATTR_LEN + 1, &out), -EPROTO);
	buf[15] = 0x80; /* a size that is no file's size */
	ck_assert_int_eq(frame_attr_get(buf, FRAME_ATTR_LEN, &out), -EPROTO);
	buf[15] = 0;
	buf[23] = 0x80;
	ck_assert_int_eq(frame_attr_get(buf, FRAME_ATTR_LEN, &out), -EPROTO);
	buf[23] = 0;
	buf[57] = 0xff; /* the file type's bits are not for others to set */
	ck_assert_int_eq(frame_attr_get(buf, FRAME_ATTR_LEN, &out), 0);
	ck_assert_uint_eq(out.mode, 07640);
}
END_TEST

/* ---- errors ---- */

START_TEST(errors)
{
	static const struct {
		int err;
		uint32_t status;
	} pairs[] = {{EPERM, 1}, {ENOENT, 2}, {EINTR, 4}, {EIO, 5}, {E2BIG, 7}, {EBADF, 9},
	    {EAGAIN, 11}, {ENOMEM, 12}, {EACCES, 13}, {EBUSY, 16}, {EEXIST, 17}, {EINVAL, 22},
	    {EFBIG, 27}, {ENOSPC, 28}, {EROFS, 30}, {ERANGE, 34}, {ENAMETOOLONG, 36}, {ENODATA, 61},
	    {ENOLCK, 37}, {EPROTO, 71}, {EPROTONOSUPPORT, 93}, {EOPNOTSUPP, 95}, {ESHUTDOWN, 108},
	    {ESTALE, 116}, {EDQUOT, 122}};
	const unsigned count = sizeof(pairs) / sizeof(pairs[0]);
	unsigned found = 0;

	for (unsigned i = 0; i < count; i++) {
		ck_assert_uint_eq(frame_status(-pairs[i].err), pairs[i].status);
		ck_assert_int_eq(frame_errno(pairs[i].status), -pairs[i].err);
	}
	for (uint32_t status = 1; status < 4096; status++)
		found += frame_errno(status) != -EIO;
	ck_assert_uint_eq(found, count - 1); /* all but EIO itself */
	ck_assert_uint_eq(frame_status(0), 0);
	ck_assert_int_eq(frame_errno(0), 0);
	ck_assert_uint_eq(frame_status(-EXDEV), 5);
	ck_assert_int_eq(frame_errno(6), -EIO);
	ck_assert_int_eq(frame_errno(UINT32_MAX), -EIO);
}
END_TEST

/* ---- extents ---- */

START_TEST(extents)
{
	const struct extent in[] = {{4096, 8192, 0}, {12288, 1 << 20, EXTENT_HOLE}};
	const uint64_t len = 8192 + (1 << 20);
	struct extent out[4];
	uint8_t buf[64];
	unsigned count = 99;
	size_t n = frame_extents_put(buf, in, 2);

	hex_expect("extents", buf, n,
	    "00 20 00 00 00 00 00 00  00 00 00 00  00 00 10 00 00 00 00 00  01 00 00 00");
	ck_assert_int_eq(frame_extents_get(buf, n, 4096, len, out, 4, &count), 0);
	ck_assert_uint_eq(count, 2);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_uint_eq(out[i].off, in[i].off);
		ck_assert_uint_eq(out[i].len, in[i].len);
		ck_assert_uint_eq(out[i].flags, in[i].flags);
	}
	/* Fewer places than answers: the first ones. */
	ck_assert_int_eq(frame_extents_get(buf, n, 4096, len, out, 1, &count), 0);
	ck_assert_uint_eq(count, 1);
	/* They may end before the range does, but not after. */
	ck_assert_int_eq(frame_extents_get(buf, n, 4096, len + 1, out, 4, &count), 0);
	ck_assert_int_eq(frame_extents_get(buf, n, 4096, len - 1, out, 4, &count), -EPROTO);
	for (size_t cut = 0; cut < n; cut++)
		ck_assert_int_eq(frame_extents_get(buf, cut, 4096, len, out, 4, &count),
		    cut == FRAME_EXTENT_LEN ? 0 : -EPROTO);
	memset(buf, 0, 8); /* an empty one */
	ck_assert_int_eq(frame_extents_get(buf, n, 4096, len, out, 4, &count), -EPROTO);
	memset(buf, 0xff, 8); /* a sum that would wrap */
	ck_assert_int_eq(frame_extents_get(buf, n, 4096, len, out, 4, &count), -EPROTO);
}
END_TEST

START_TEST(zero_detection)
{
	static uint8_t buf[8192 + 64];

	ck_assert_int_eq(frame_is_zero(buf, 0), 1);
	for (size_t len = 1; len < 100; len++) {
		for (size_t at = 0; at < len; at++) {
			ck_assert_int_eq(frame_is_zero(buf + 1, len), 1);
			buf[1 + at] = 1;
			ck_assert_int_eq(frame_is_zero(buf + 1, len), 0);
			ck_assert_int_eq(frame_is_zero(buf + 2 + at, len), 1);
			buf[1 + at] = 0;
		}
	}
	for (size_t at = 0; at < 8192; at += 509) {
		buf[at] = 0x80;
		ck_assert_int_eq(frame_is_zero(buf, 8192), 0);
		buf[at] = 0;
	}
	ck_assert_int_eq(frame_is_zero(buf, 8192), 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("frame");
	TCase *tc = tcase_create("frame");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tc, request_header);
	tcase_add_test(tc, reply_header);
	tcase_add_test(tc, bad_request_headers);
	tcase_add_test(tc, data_lengths);
	tcase_add_test(tc, ranges_that_overflow);
	tcase_add_test(tc, control_payload_limits);
	tcase_add_test(tc, bad_reply_headers);
	tcase_add_test(tc, hello);
	tcase_add_test(tc, hello_pool_names);
	tcase_add_test(tc, hello_texts);
	tcase_add_test(tc, notice);
	tcase_add_test(tc, welcome);
	tcase_add_test(tc, attributes);
	tcase_add_test(tc, errors);
	tcase_add_test(tc, extents);
	tcase_add_test(tc, zero_detection);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
