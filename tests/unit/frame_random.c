/* SPDX-License-Identifier: Apache-2.0
 *
 * The wire codec under bytes that nobody meant: random ones, and good frames with some bytes changed.
 * Decoders must not crash, must not read beyond their input (each input is a heap block of its own: run
 * it under SAN=address), and what they accept must survive being encoded and decoded again.
 */
#include "core/frame.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 60000 };

static uint64_t state;
static struct frame_names names;

static void setup(void)
{
	const char *seed = getenv("SEED");

	state = (seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL) * 0x9e3779b97f4a7c15u) | 1;
	printf("frame_random: SEED=0x%llx\n", (unsigned long long)state);
}

static uint64_t rnd(void)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * 0x2545f4914f6cdd1du;
}

static uint64_t below(uint64_t n)
{
	return (rnd() >> 11) % n;
}

/* A number that is often at an edge. */
static uint64_t edgy(void)
{
	static const uint64_t edges[] = {0, 1, 4095, 4096, 65535, 65536, 1 << 20, (1 << 20) + 1,
	    INT64_MAX, (uint64_t)INT64_MAX + 1, UINT64_MAX, UINT32_MAX, (uint64_t)UINT32_MAX + 1};

	switch (below(3)) {
	case 0:
		return edges[below(sizeof(edges) / sizeof(edges[0]))];
	case 1:
		return below(1000);
	default:
		return rnd() >> below(64);
	}
}

static void fill(uint8_t *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(rnd() >> 32);
}

/* A block of just that length, with those bytes. */
static uint8_t *block(const uint8_t *bytes, size_t len)
{
	uint8_t *p = malloc(len ? len : 1);

	ck_assert_ptr_nonnull(p);
	if (len)
		memcpy(p, bytes, len);
	return p;
}

/* Changes some bytes, or the length. */
static size_t damage(uint8_t *buf, size_t len, size_t room)
{
	for (uint64_t n = below(4); n > 0 && len > 0; n--)
		buf[below(len)] = (uint8_t)(below(2) ? rnd() : below(2) ? 0xff : 0);
	if (below(4) == 0)
		len = below(len + 1);
	else if (below(4) == 0 && len < room)
		buf[len++] = (uint8_t)rnd();
	return len;
}

/* ---- requests ---- */

static const char *random_name(char buf[POOL_NAME_MAX + 1])
{
	size_t len = below(4) ? below(12) : below(POOL_NAME_MAX + 1);

	for (size_t i = 0; i < len; i++)
		buf[i] = (char)(1 + below(255));
	buf[len] = 0;
	return buf;
}

static unsigned some_flags(enum pool_op op)
{
	static const unsigned all[POOL_OPS] = {
	    [POOL_CREATE] = POOL_READ | POOL_WRITE | POOL_EXCLUSIVE | POOL_NO_OPEN | POOL_SHARED,
	    [POOL_OPEN] = POOL_READ | POOL_WRITE | POOL_PIN | POOL_SHARED | POOL_REOPEN,
	    [POOL_RENAME] = POOL_NOREPLACE | POOL_EXCHANGE,
	    [POOL_SETXATTR] = POOL_XATTR_CREATE | POOL_XATTR_REPLACE,
	};

	return (unsigned)rnd() & all[op];
}

static struct region_attr random_attr(void)
{
	return (struct region_attr){
	    .id = rnd(),
	    .size = rnd() >> 1,
	    .allocated = rnd() >> 1,
	    .version = rnd(),
	    .atime_ns = (int64_t)rnd(),
	    .mtime_ns = (int64_t)rnd(),
	    .ctime_ns = (int64_t)rnd(),
	    .mode = (uint32_t)rnd() & 07777,
	    .uid = (uint32_t)rnd(),
	    .gid = (uint32_t)rnd(),
	    .nlink = (uint32_t)rnd(),
	};
}

static char name_buf[2][POOL_NAME_MAX + 1];
static uint8_t value[POOL_XATTR_VALUE_MAX];

static struct pool_req random_control(void)
{
	struct pool_req req = {.op = (enum pool_op)below(POOL_OPS)};

	req.id = edgy();
	req.cookie = req.id;
	req.flags = some_flags(req.op);
	req.name = random_name(name_buf[0]);
	req.new_name = random_name(name_buf[1]);
	req.number = (uint32_t)edgy();
	req.version = edgy();
	req.set = req.op == POOL_SETATTR ? (unsigned)below(128) : 0;
	if (req.op == POOL_SETATTR)
		req.attr = random_attr();
	if (req.op == POOL_CREATE)
		req.attr =
		    (struct region_attr){.mode = (uint32_t)below(010000), .uid = (uint32_t)rnd()};
	req.len = below(POOL_LIST_MAX + 1);
	if (req.op == POOL_SETXATTR && below(8))
		req.len = below(100);
	req.data = value;
	return req;
}

static uint8_t *encode(const struct pool_req *req, struct frame_req *ret_frame, size_t *ret_len)
{
	static uint8_t buf[FRAME_BODY_MAX + POOL_XATTR_VALUE_MAX + 16];
	size_t len = frame_control_put(req, ret_frame, buf);

	if (req->op == POOL_SETXATTR) {
		memcpy(buf + len, value, req->len);
		len += req->len;
	}
	ck_assert_uint_eq(len, ret_frame->payload);
	*ret_len = len;
	return buf;
}

static void expect_same(const struct pool_req *in, const struct pool_req *out)
{
	enum pool_op op = in->op;

	ck_assert_int_eq(op, out->op);
	ck_assert_uint_eq(in->flags, out->flags);
	ck_assert_uint_eq(in->set, out->set);
	ck_assert_uint_eq(in->number, out->number);
	ck_assert_uint_eq(in->len, out->len);
	ck_assert_mem_eq(&in->attr, &out->attr, sizeof(in->attr));
	if (op == POOL_LIST)
		ck_assert_uint_eq(in->cookie, out->cookie);
	else
		ck_assert_uint_eq(in->id, out->id);
	if (op == POOL_OPEN)
		ck_assert_uint_eq(in->version, out->version);
	if (op == POOL_RENAME)
		ck_assert_str_eq(in->new_name, out->new_name);
	if (op == POOL_LOOKUP || op == POOL_CREATE || op == POOL_REMOVE || op == POOL_RENAME ||
	    op == POOL_GETXATTR || op == POOL_SETXATTR || op == POOL_REMOVEXATTR)
		ck_assert_str_eq(in->name, out->name);
	if (op == POOL_SETXATTR && in->len)
		ck_assert_mem_eq(in->data, out->data, in->len);
}

START_TEST(control_requests_come_back)
{
	fill(value, sizeof(value));
	for (unsigned i = 0; i < ROUNDS / 4; i++) {
		struct pool_req in = random_control(), out;
		struct frame_req frame;
		size_t len;
		uint8_t *body = encode(&in, &frame, &len), *exact = block(body, len);

		ck_assert_int_eq(frame_control_get(&frame, exact, &out, &names), 0);
		expect_same(&in, &out);
		free(exact);
	}
}
END_TEST

START_TEST(damaged_control_requests)
{
	unsigned taken = 0;

	for (unsigned i = 0; i < ROUNDS; i++) {
		struct pool_req in = random_control(), out;
		struct frame_req frame;
		size_t len;
		uint8_t *body, *exact;
		int rc;

		if (in.op == POOL_SETXATTR)
			in.len %= 64;
		body = encode(&in, &frame, &len);
		len = damage(body, len, len + 1);
		frame.payload = (uint32_t)len;
		if (below(16) == 0)
			frame.op = (uint8_t)rnd();
		exact = block(body, len);
		rc = frame_control_get(&frame, exact, &out, &names);
		ck_assert_msg(
		    rc == 0 || rc == -EPROTO || rc == -EINVAL || rc == -ENAMETOOLONG, "%d", rc);
		taken += rc == 0;
		if (rc == 0 && out.op == POOL_SETXATTR)
			ck_assert(out.data == exact + len - out.len);
		free(exact);
	}
	ck_assert_uint_gt(taken, ROUNDS / 100); /* else the damage leaves nothing to look at */
	ck_assert_uint_lt(taken, ROUNDS);
}
END_TEST

START_TEST(headers)
{
	unsigned good[2] = {0};

	for (unsigned i = 0; i < 8 * ROUNDS; i++) {
		struct frame_req req = {.op = (uint8_t)below(40),
		    .flags = (uint8_t)rnd(),
		    .payload = (uint32_t)edgy(),
		    .id = rnd(),
		    .off = edgy(),
		    .len = edgy(),
		    .handle = (uint32_t)edgy()};
		struct frame_rep rep = {
		    .op = req.op, .flags = req.flags, .payload = req.payload, .id = req.id};
		uint8_t buf[FRAME_REQ_LEN], again[FRAME_REQ_LEN];
		const char *why;

		if (below(2) && req.op == FRAME_WRITE)
			req.payload = (uint32_t)req.len;
		frame_req_put(buf, &req);
		if (below(8) == 0)
			damage(buf, sizeof(buf), sizeof(buf));
		if (frame_req_get(buf, &req, &why) == 0) {
			frame_req_put(again, &req);
			ck_assert_mem_eq(buf, again, sizeof(buf));
			ck_assert_uint_le(req.payload, FRAME_DATA_MAX);
			if (req.op >= FRAME_READ) {
				ck_assert_uint_le(req.off, INT64_MAX);
				ck_assert_uint_le(req.off + req.len, INT64_MAX);
			}
			good[0]++;
		} else {
			ck_assert_ptr_nonnull(why);
		}
		rep.status = below(4) ? 0 : (uint32_t)edgy();
		frame_rep_put(buf, &rep);
		if (frame_rep_get(buf, &rep, &why) == 0) {
			frame_rep_put(again, &rep);
			ck_assert_mem_eq(buf, again, FRAME_REP_LEN);
			ck_assert_uint_le(
			    rep.payload, rep.op == FRAME_READ ? FRAME_DATA_MAX : FRAME_CONTROL_MAX);
			good[1]++;
		}
	}
	ck_assert_uint_gt(good[0], ROUNDS / 20);
	ck_assert_uint_gt(good[1], ROUNDS / 20);
}
END_TEST

/* ---- replies ---- */

/* A list in the form that a pool gives: random entries. */
static size_t random_list(uint8_t *buf, size_t room)
{
	size_t used = 0;

	for (uint64_t n = below(6); n > 0; n--) {
		struct pool_dirent ent = {.attr = random_attr(), .next_cookie = rnd()};
		char name[POOL_NAME_MAX + 1];
		size_t padded;

		random_name(name);
		if (pool_check_name(name, strlen(name)))
			continue;
		ent.name_len = (uint32_t)strlen(name);
		padded = (ent.name_len + 7u) & ~7u;
		if (used + sizeof(ent) + padded > room)
			break;
		memcpy(buf + used, &ent, sizeof(ent));
		memset(buf + used + sizeof(ent), 0, padded);
		memcpy(buf + used + sizeof(ent), name, ent.name_len);
		used += sizeof(ent) + padded;
	}
	return used;
}

static uint8_t data[2][POOL_LIST_MAX];

START_TEST(results)
{
	static uint8_t wire[FRAME_CONTROL_MAX + 1];
	unsigned taken = 0;

	for (unsigned i = 0; i < ROUNDS; i++) {
		struct pool_req in = {
		    .op = (enum pool_op)below(POOL_OPS), .data = data[0], .len = 4096};
		struct pool_req out = {.op = in.op};
		bool damaged = below(2);
		uint8_t flags, *exact;
		size_t len;

		in.attr = random_attr();
		in.ret_unchanged = below(2);
		in.ret_cookie = rnd();
		in.statfs = (struct pool_statfs){rnd(), rnd(), rnd(), rnd()};
		if (in.op == POOL_LIST)
			in.ret_len = random_list(data[0], in.len);
		else
			in.ret_len = below(in.len + 1);
		len = frame_result_put(&in, &flags, wire);
		out.len = damaged && below(2) ? below(in.len) : in.len;
		if (damaged)
			len = damage(wire, len, sizeof(wire));
		out.data = malloc(out.len ? out.len : 1);
		exact = block(wire, len);
		if (frame_result_get(&out, flags, exact, len) == 0) {
			taken += damaged;
			if (!damaged && (in.op == POOL_LIST || in.op == POOL_GETXATTR)) {
				ck_assert_uint_eq(in.ret_len, out.ret_len);
				ck_assert_mem_eq(in.data, out.data, in.ret_len);
			}
			if (in.op == POOL_LIST)
				ck_assert_uint_le(out.ret_len, out.len);
		} else {
			ck_assert(damaged);
		}
		free(out.data);
		free(exact);
	}
	ck_assert_uint_gt(taken, ROUNDS / 100);
}
END_TEST

START_TEST(extent_lists)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct extent in[16], *out;
		unsigned n = 1 + (unsigned)below(16), max = 1 + (unsigned)below(16), got = 0;
		uint64_t off = below(1 << 30), len = 0;
		uint8_t wire[16 * FRAME_EXTENT_LEN + 1], *exact;
		size_t wire_len;

		for (unsigned k = 0; k < n; k++) {
			in[k] =
			    (struct extent){off + len, 1 + below(1 << 20), k % 2 ? EXTENT_HOLE : 0};
			len += in[k].len;
		}
		wire_len = frame_extents_put(wire, in, n);
		if (below(2))
			wire_len = damage(wire, wire_len, sizeof(wire));
		exact = block(wire, wire_len);
		out = malloc(max * sizeof(*out));
		if (frame_extents_get(exact, wire_len, off, len, out, max, &got) == 0) {
			uint64_t at = off;

			ck_assert_uint_ge(got, 1);
			ck_assert_uint_le(got, max);
			for (unsigned k = 0; k < got; k++) {
				ck_assert_uint_eq(out[k].off, at);
				ck_assert_uint_ge(out[k].len, 1);
				ck_assert_uint_le(out[k].len, off + len - at);
				at += out[k].len;
			}
		}
		free(out);
		free(exact);
	}
}
END_TEST

START_TEST(greetings)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct frame_hello hello = {
		    .version_min = (uint16_t)rnd(), .version_max = (uint16_t)rnd()};
		struct frame_welcome welcome = {.in_flight_max = 1 + (uint32_t)below(4096)};
		uint8_t wire[FRAME_HELLO_MAX + FRAME_WELCOME_LEN + 1], *exact;
		size_t len;

		memset(hello.pool, 'x', below(FRAME_POOL_NAME_MAX + 1));
		memset(hello.who, 'y', below(FRAME_WHO_MAX + 1));
		len = frame_hello_put(wire, &hello);
		len = damage(wire, len, len + 1);
		exact = block(wire, len);
		if (frame_hello_get(exact, len, &hello) == 0) {
			uint8_t again[FRAME_HELLO_MAX];
			struct frame_hello twice;

			ck_assert_uint_eq(frame_hello_put(again, &hello), len);
			ck_assert_int_eq(frame_hello_get(again, len, &twice), 0);
			ck_assert_mem_eq(&hello, &twice, sizeof(hello));
		}
		free(exact);
		len = frame_welcome_put(wire, &welcome);
		len = damage(wire, len, len + 1);
		exact = block(wire, len);
		if (frame_welcome_get(exact, len, &welcome) == 0) {
			ck_assert_uint_ge(welcome.in_flight_max, 1);
			ck_assert_uint_le(welcome.size_max, INT64_MAX);
		}
		free(exact);
	}
}
END_TEST

START_TEST(noise)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint8_t bytes[300], *exact;
		size_t len = below(sizeof(bytes));
		struct frame_req frame = {
		    .op = (uint8_t)below(40), .payload = (uint32_t)len, .len = edgy()};
		struct frame_hello hello;
		struct frame_welcome welcome;
		struct region_attr attr;
		struct extent extents[4];
		struct pool_req req;
		unsigned count;

		fill(bytes, len);
		exact = block(bytes, len);
		frame_control_get(&frame, exact, &req, &names);
		req = (struct pool_req){
		    .op = (enum pool_op)below(POOL_OPS), .data = data[1], .len = below(200)};
		frame_result_get(&req, (uint8_t)rnd(), exact, len);
		frame_hello_get(exact, len, &hello);
		frame_welcome_get(exact, len, &welcome);
		frame_attr_get(exact, len, &attr);
		frame_extents_get(exact, len, edgy() >> 1, edgy() >> 1, extents, 4, &count);
		free(exact);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("frame_random");
	TCase *tc = tcase_create("frame_random");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, control_requests_come_back);
	tcase_add_test(tc, damaged_control_requests);
	tcase_add_test(tc, headers);
	tcase_add_test(tc, results);
	tcase_add_test(tc, extent_lists);
	tcase_add_test(tc, greetings);
	tcase_add_test(tc, noise);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
