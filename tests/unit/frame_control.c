/* SPDX-License-Identifier: Apache-2.0
 *
 * The wire codec's control requests and their results: the bytes of each (the same as in
 * docs/PROTOCOL.md), what comes back from them, every truncation, every limit.
 */
#include "core/frame.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/hex.h"

static struct frame_names names;

#define ATTR_HEX \
	"02 00 00 00 00 00 00 00  00 00 00 40 00 00 00 00  00 10 00 00 00 00 00 00" \
	"07 00 00 00 00 00 00 00  01 00 00 00 00 00 00 00  ff ff ff ff ff ff ff ff" \
	"03 00 00 00 00 00 00 00  a0 01 00 00  e8 03 00 00  e9 03 00 00  01 00 00 00"

#define AN_ATTR \
	{ \
		.id = 2, .size = 1 << 30, .allocated = 4096, .version = 7, .atime_ns = 1, \
		.mtime_ns = -1, .ctime_ns = 3, .mode = 0640, .uid = 1000, .gid = 1001, .nlink = 1, \
	}

/* ---- requests ---- */

/* One of each control request, and its bytes: header fields off, len, handle, then the body. */
static const struct sample {
	struct pool_req req;
	uint64_t off, len;
	uint32_t handle;
	const char *body;
} samples[] = {
    {{.op = POOL_LOOKUP, .name = "swap0"}, .body = "05 00 73 77 61 70 30"},
    {{.op = POOL_GETATTR, .id = 9, .number = 3}, .off = 9, .handle = 3, .body = ""},
    {{.op = POOL_SETATTR,
	 .id = 9,
	 .set = POOL_SET_SIZE | POOL_SET_MODE,
	 .number = 3,
	 .attr = AN_ATTR},
	.off = 9, .handle = 3, .body = "09 00 00 00" ATTR_HEX},
    {{.op = POOL_CREATE,
	 .name = "a",
	 .flags = POOL_READ | POOL_WRITE | POOL_EXCLUSIVE,
	 .number = 4,
	 .attr = {.mode = 0600, .uid = 5, .gid = 6}},
	.handle = 4, .body = "0b 00 00 00  80 01 00 00  05 00 00 00  06 00 00 00  01 00 61"},
    {{.op = POOL_OPEN, .id = 2, .flags = POOL_READ | POOL_PIN, .number = 65535, .version = 258},
	.off = 2, .handle = 65535, .body = "41 00 00 00  02 01 00 00 00 00 00 00"},
    {{.op = POOL_CLOSE, .number = 4}, .handle = 4, .body = ""},
    {{.op = POOL_REMOVE, .name = "a"}, .body = "01 00 61"},
    {{.op = POOL_RENAME, .name = "a", .new_name = "bc", .flags = POOL_NOREPLACE},
	.body = "10 00 00 00  01 00 61  02 00 62 63"},
    {{.op = POOL_LIST, .cookie = 77, .len = 65536}, .off = 77, .len = 65536, .body = ""},
    {{.op = POOL_STATFS}, .body = ""},
    {{.op = POOL_GETXATTR, .id = 2, .name = "user.x", .len = 256}, .off = 2, .len = 256,
	.body = "06 00 75 73 65 72 2e 78"},
    {{.op = POOL_SETXATTR,
	 .id = 2,
	 .name = "user.x",
	 .data = (void *)"hi",
	 .len = 2,
	 .flags = POOL_XATTR_CREATE},
	.off = 2, .body = "80 00 00 00  06 00 75 73 65 72 2e 78  68 69"},
    {{.op = POOL_LISTXATTR, .id = 2, .len = 100}, .off = 2, .len = 100, .body = ""},
    {{.op = POOL_REMOVEXATTR, .id = 2, .name = "user.x"}, .off = 2,
	.body = "06 00 75 73 65 72 2e 78"},
};

_Static_assert(sizeof(samples) / sizeof(samples[0]) == POOL_OPS, "one sample of each");

/* The whole body as it goes over the wire. */
static size_t encode(const struct pool_req *req, struct frame_req *ret_frame, uint8_t *body)
{
	size_t len = frame_control_put(req, ret_frame, body);

	ck_assert_uint_le(len, FRAME_BODY_MAX);
	if (req->op == POOL_SETXATTR && req->len) {
		memcpy(body + len, req->data, req->len);
		len += req->len;
	}
	ck_assert_uint_eq(ret_frame->payload, len);
	return len;
}

static bool has_name(enum pool_op op)
{
	return op == POOL_LOOKUP || op == POOL_CREATE || op == POOL_REMOVE || op == POOL_RENAME ||
	       op == POOL_GETXATTR || op == POOL_SETXATTR || op == POOL_REMOVEXATTR;
}

static void expect_same(const struct pool_req *in, const struct pool_req *out)
{
	ck_assert_int_eq(in->op, out->op);
	ck_assert_uint_eq(in->flags, out->flags);
	ck_assert_uint_eq(in->set, out->set);
	ck_assert_uint_eq(in->op == POOL_LIST ? in->cookie : in->id,
	    out->op == POOL_LIST ? out->cookie : out->id);
	ck_assert_uint_eq(in->number, out->number);
	ck_assert_uint_eq(in->version, out->version);
	ck_assert_uint_eq(in->len, out->len);
	ck_assert_mem_eq(&in->attr, &out->attr, sizeof(in->attr));
	if (has_name(in->op))
		ck_assert_str_eq(in->name, out->name);
	if (in->op == POOL_RENAME)
		ck_assert_str_eq(in->new_name, out->new_name);
	if (in->op == POOL_SETXATTR)
		ck_assert_mem_eq(in->data, out->data, in->len);
}

START_TEST(request_bytes)
{
	const struct sample *s = &samples[_i];
	uint8_t body[2 * FRAME_BODY_MAX];
	struct frame_req frame;
	struct pool_req out;
	size_t len = encode(&s->req, &frame, body);

	ck_assert_int_eq((int)s->req.op, _i);
	ck_assert_uint_eq(frame.op, FRAME_LOOKUP + s->req.op);
	ck_assert_uint_eq(frame.flags, 0);
	ck_assert_uint_eq(frame.off, s->off);
	ck_assert_uint_eq(frame.len, s->len);
	ck_assert_uint_eq(frame.handle, s->handle);
	hex_expect(frame_op_name(frame.op), body, len, s->body);
	ck_assert_int_eq(frame_control_get(&frame, body, &out, &names), 0);
	expect_same(&s->req, &out);
}
END_TEST

/* The handle's number goes over the wire, not what points to it. */
START_TEST(a_handle_is_its_number)
{
	struct handle handle = {.number = 12};
	struct pool_req req = {.op = POOL_SETATTR, .handle = &handle, .number = 99};
	uint8_t body[FRAME_BODY_MAX];
	struct frame_req frame;

	frame_control_put(&req, &frame, body);
	ck_assert_uint_eq(frame.handle, 12);
}
END_TEST

START_TEST(truncated_requests)
{
	const struct sample *s = &samples[_i];
	uint8_t body[2 * FRAME_BODY_MAX];
	struct frame_req frame;
	struct pool_req out;
	size_t len = encode(&s->req, &frame, body);

	for (size_t cut = 0; cut < len; cut++) {
		uint8_t *exact = malloc(cut ? cut : 1); /* a sanitizer sees any read beyond it */
		int rc;

		memcpy(exact, body, cut);
		frame.payload = (uint32_t)cut;
		rc = frame_control_get(&frame, exact, &out, &names);
		/* SETXATTR's value is whatever follows the name. */
		if (s->req.op == POOL_SETXATTR && cut >= len - s->req.len)
			ck_assert_uint_eq(out.len, cut - (len - s->req.len));
		else
			ck_assert_msg(
			    rc == -EPROTO, "%s cut to %zu: %d", frame_op_name(frame.op), cut, rc);
		free(exact);
	}
	if (s->req.op == POOL_SETXATTR)
		return;
	body[len] = 0;
	frame.payload = (uint32_t)len + 1;
	ck_assert_int_eq(frame_control_get(&frame, body, &out, &names), -EPROTO);
}
END_TEST

/* Every body that has flags refuses those that are not its own. */
START_TEST(unknown_flags)
{
	static const struct {
		enum pool_op op;
		unsigned allowed;
	} known[] = {
	    {POOL_CREATE, POOL_READ | POOL_WRITE | POOL_EXCLUSIVE | POOL_NO_OPEN | POOL_SHARED},
	    {POOL_OPEN, POOL_READ | POOL_WRITE | POOL_PIN | POOL_SHARED | POOL_REOPEN},
	    {POOL_RENAME, POOL_NOREPLACE | POOL_EXCHANGE},
	    {POOL_SETXATTR, POOL_XATTR_CREATE | POOL_XATTR_REPLACE},
	    {POOL_SETATTR, 127},
	};

	for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		for (unsigned bit = 0; bit < 32; bit++) {
			struct pool_req in = samples[known[i].op].req, out;
			uint8_t body[2 * FRAME_BODY_MAX];
			struct frame_req frame;
			int want = known[i].allowed >> bit & 1 ? 0 : -EPROTO;

			if (known[i].op == POOL_SETATTR)
				in.set = 1u << bit;
			else
				in.flags = 1u << bit;
			encode(&in, &frame, body);
			ck_assert_msg(frame_control_get(&frame, body, &out, &names) == want,
			    "%s flag %u", frame_op_name(frame.op), bit);
		}
	}
}
END_TEST

/* A LOOKUP whose body is a name of that length. */
static int lookup(const char *name, size_t len, size_t claimed, struct pool_req *ret_req)
{
	struct frame_req frame = {.op = FRAME_LOOKUP, .payload = (uint32_t)(2 + len)};
	uint8_t *body = malloc(2 + len);
	int rc;

	body[0] = (uint8_t)claimed;
	body[1] = (uint8_t)(claimed >> 8);
	memcpy(body + 2, name, len);
	rc = frame_control_get(&frame, body, ret_req, &names);
	free(body);
	return rc;
}

START_TEST(region_names)
{
	char name[400];
	struct pool_req req;

	memset(name, 'n', sizeof(name));
	ck_assert_int_eq(lookup(name, 255, 255, &req), 0);
	ck_assert_uint_eq(strlen(req.name), 255);
	ck_assert_int_eq(lookup(name, 256, 256, &req), -ENAMETOOLONG);
	ck_assert_int_eq(lookup(name, 400, 400, &req), -ENAMETOOLONG);
	ck_assert_int_eq(lookup(name, 255, 256, &req), -EPROTO);
	ck_assert_int_eq(lookup(name, 400, 65535, &req), -EPROTO);
	ck_assert_int_eq(lookup(name, 10, 9, &req), -EPROTO);
	ck_assert_int_eq(lookup("a\0b", 3, 3, &req), -EINVAL);
	ck_assert_int_eq(lookup("", 0, 0, &req), 0); /* pool_submit refuses it */
	ck_assert_str_eq(req.name, "");
	ck_assert_int_eq(lookup("../x", 4, 4, &req), 0);
	ck_assert_str_eq(req.name, "../x");
}
END_TEST

START_TEST(long_requests_fit)
{
	char name[POOL_NAME_MAX + 1], new_name[POOL_NAME_MAX + 1];
	struct pool_req in = {.op = POOL_RENAME, .name = name, .new_name = new_name}, out;
	uint8_t body[FRAME_BODY_MAX];
	struct frame_req frame;

	memset(name, 'a', POOL_NAME_MAX);
	memset(new_name, 'b', POOL_NAME_MAX);
	name[POOL_NAME_MAX] = new_name[POOL_NAME_MAX] = 0;
	encode(&in, &frame, body);
	ck_assert_int_eq(frame_control_get(&frame, body, &out, &names), 0);
	ck_assert_str_eq(out.name, name);
	ck_assert_str_eq(out.new_name, new_name);
}
END_TEST

/* A client may have more room than a donor fills. */
START_TEST(answer_room_is_capped)
{
	struct pool_req in = {.op = POOL_LIST, .len = (size_t)1 << 40}, out;
	uint8_t body[FRAME_BODY_MAX];
	struct frame_req frame;

	encode(&in, &frame, body);
	ck_assert_uint_eq(frame.len, 1ull << 40);
	ck_assert_int_eq(frame_control_get(&frame, body, &out, &names), 0);
	ck_assert_uint_eq(out.len, POOL_LIST_MAX);
}
END_TEST

START_TEST(operations_without_a_pool)
{
	static const uint8_t ops[] = {0, FRAME_HELLO, FRAME_PING, FRAME_BYE, FRAME_NOTICE, 15, 30,
	    FRAME_READ, FRAME_EXTENTS, 255};

	for (unsigned i = 0; i < sizeof(ops); i++) {
		struct frame_req frame = {.op = ops[i]};
		struct pool_req out;

		ck_assert_int_eq(frame_control_get(&frame, NULL, &out, &names), -EPROTO);
	}
}
END_TEST

/* ---- results ---- */

static uint8_t wire[FRAME_CONTROL_MAX + 4096];
static uint8_t room[2][POOL_LIST_MAX];

/* Encodes a result, checks its bytes, decodes it, and checks that no shorter one is taken. */
static void result(struct pool_req in, uint8_t want_flags, const char *hex, struct pool_req *out)
{
	uint8_t flags = 0xff;
	size_t len = frame_result_put(&in, &flags, wire);

	ck_assert_uint_eq(flags, want_flags);
	hex_expect(frame_op_name(FRAME_LOOKUP + in.op), wire, len, hex);
	for (size_t cut = 0; cut < len; cut++) {
		uint8_t *exact = malloc(cut ? cut : 1);

		memcpy(exact, wire, cut);
		*out = (struct pool_req){.op = in.op, .data = room[1], .len = in.len};
		ck_assert_int_eq(frame_result_get(out, flags, exact, cut), -EPROTO);
		free(exact);
	}
	*out = (struct pool_req){.op = in.op, .data = room[1], .len = in.len};
	wire[len] = 0;
	if (in.op != POOL_LIST)
		ck_assert_int_eq(frame_result_get(out, flags, wire, len + 1), -EPROTO);
	*out = (struct pool_req){.op = in.op, .data = room[1], .len = in.len};
	ck_assert_int_eq(frame_result_get(out, flags, wire, len), 0);
}

START_TEST(attribute_results)
{
	static const enum pool_op ops[] = {
	    POOL_LOOKUP, POOL_GETATTR, POOL_SETATTR, POOL_CREATE, POOL_OPEN};
	struct region_attr attr = AN_ATTR;

	for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		struct pool_req out;

		result((struct pool_req){.op = ops[i], .attr = attr}, 0, ATTR_HEX, &out);
		ck_assert_mem_eq(&out.attr, &attr, sizeof(attr));
		ck_assert(!out.ret_unchanged);
		result((struct pool_req){.op = ops[i], .attr = attr, .ret_unchanged = true},
		    ops[i] == POOL_OPEN ? FRAME_F_UNCHANGED : 0, ATTR_HEX, &out);
		ck_assert_int_eq(out.ret_unchanged, ops[i] == POOL_OPEN);
	}
}
END_TEST

START_TEST(empty_results)
{
	static const enum pool_op ops[] = {
	    POOL_CLOSE, POOL_REMOVE, POOL_RENAME, POOL_SETXATTR, POOL_REMOVEXATTR};
	struct pool_req out;

	for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		result((struct pool_req){.op = ops[i]}, 0, "", &out);
}
END_TEST

START_TEST(statfs_result)
{
	struct pool_req out;

	result((struct pool_req){.op = POOL_STATFS,
		   .statfs = {.total = 1 << 16, .used = 3, .avail = 4, .regions = 5}},
	    0,
	    "00 00 01 00 00 00 00 00  03 00 00 00 00 00 00 00  04 00 00 00 00 00 00 00"
	    "05 00 00 00 00 00 00 00",
	    &out);
	ck_assert_uint_eq(out.statfs.total, 1 << 16);
	ck_assert_uint_eq(out.statfs.used, 3);
	ck_assert_uint_eq(out.statfs.avail, 4);
	ck_assert_uint_eq(out.statfs.regions, 5);
}
END_TEST

START_TEST(xattr_results)
{
	static const enum pool_op ops[] = {POOL_GETXATTR, POOL_LISTXATTR};

	for (unsigned i = 0; i < 2; i++) {
		struct pool_req out;

		memcpy(room[0], "user.a", 7);
		result((struct pool_req){.op = ops[i], .data = room[0], .len = 64, .ret_len = 7}, 0,
		    "07 00 00 00  75 73 65 72 2e 61 00", &out);
		ck_assert_uint_eq(out.ret_len, 7);
		ck_assert_mem_eq(room[1], room[0], 7);
		/* Without room the answer is how much is needed. */
		result((struct pool_req){.op = ops[i], .ret_len = 7}, 0, "07 00 00 00", &out);
		ck_assert_uint_eq(out.ret_len, 7);
		/* More than was asked for is not taken. */
		out = (struct pool_req){.op = ops[i], .data = room[1], .len = 6};
		hex_bytes("07 00 00 00  75 73 65 72 2e 61 00", wire, sizeof(wire));
		ck_assert_int_eq(frame_result_get(&out, 0, wire, 11), -EPROTO);
	}
}
END_TEST

/* Adds an entry to room[0]. */
static size_t add_dirent(size_t used, const char *name, uint64_t cookie)
{
	struct pool_dirent ent = {
	    .attr = AN_ATTR, .next_cookie = cookie, .name_len = (uint32_t)strlen(name)};
	size_t padded = (ent.name_len + 7u) & ~7u;

	memcpy(room[0] + used, &ent, sizeof(ent));
	memset(room[0] + used + sizeof(ent), 0, padded);
	memcpy(room[0] + used + sizeof(ent), name, ent.name_len);
	return used + sizeof(ent) + padded;
}

START_TEST(list_result)
{
	struct pool_req in = {.op = POOL_LIST,
			    .data = room[0],
			    .len = sizeof(room[0]),
			    .ret_cookie = 9},
			out;
	uint8_t flags;
	size_t len;

	in.ret_len = add_dirent(0, "a", 2);
	in.ret_len = add_dirent(in.ret_len, "longer than 8", 9);
	len = frame_result_put(&in, &flags, wire);
	hex_expect("LIST", wire, len,
	    "09 00 00 00 00 00 00 00" ATTR_HEX "02 00 00 00 00 00 00 00  01 00 00 00  61" ATTR_HEX
	    "09 00 00 00 00 00 00 00  0d 00 00 00  6c 6f 6e 67 65 72 20 74 68 61 6e 20 38");
	memset(room[1], 0xee, sizeof(room[1]));
	out = (struct pool_req){.op = POOL_LIST, .data = room[1], .len = in.ret_len};
	ck_assert_int_eq(frame_result_get(&out, flags, wire, len), 0);
	ck_assert_uint_eq(out.ret_cookie, 9);
	ck_assert_uint_eq(out.ret_len, in.ret_len);
	ck_assert_mem_eq(room[1], room[0], in.ret_len);
	/* No byte more than the caller has room for. */
	out.len = in.ret_len - 1;
	room[1][in.ret_len - 1] = 0xee;
	ck_assert_int_eq(frame_result_get(&out, flags, wire, len), -EPROTO);
	ck_assert_uint_eq(room[1][in.ret_len - 1], 0xee);
	/* An empty list. */
	in.ret_len = 0;
	in.ret_cookie = 0;
	result(in, 0, "00 00 00 00 00 00 00 00", &out);
	ck_assert_uint_eq(out.ret_len, 0);
	ck_assert_uint_eq(out.ret_cookie, 0);
}
END_TEST

START_TEST(truncated_list_results)
{
	struct pool_req in = {.op = POOL_LIST, .data = room[0], .len = sizeof(room[0])}, out;
	uint8_t flags;
	size_t len, one;

	in.ret_len = add_dirent(0, "a", 2);
	one = frame_result_put(&in, &flags, wire);
	in.ret_len = add_dirent(in.ret_len, "bb", 3);
	len = frame_result_put(&in, &flags, wire);
	for (size_t cut = 0; cut < len; cut++) {
		uint8_t *exact = malloc(cut ? cut : 1);

		memcpy(exact, wire, cut);
		out = (struct pool_req){.op = POOL_LIST, .data = room[1], .len = sizeof(room[1])};
		ck_assert_int_eq(
		    frame_result_get(&out, 0, exact, cut), cut == 8 || cut == one ? 0 : -EPROTO);
		free(exact);
	}
}
END_TEST

/* A donor's names are used as file names: what can't be one is refused. */
START_TEST(bad_names_in_a_list)
{
	static const char *const bad[] = {"", ".", "..", "a/b", "/"};
	struct pool_req in = {.op = POOL_LIST, .data = room[0], .len = sizeof(room[0])}, out;
	uint8_t flags;
	size_t len;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		in.ret_len = add_dirent(0, bad[i], 2);
		len = frame_result_put(&in, &flags, wire);
		out = (struct pool_req){.op = POOL_LIST, .data = room[1], .len = sizeof(room[1])};
		ck_assert_msg(
		    frame_result_get(&out, 0, wire, len) == -EPROTO, "\"%s\" was taken", bad[i]);
	}
	in.ret_len = add_dirent(0, "ab", 2);
	len = frame_result_put(&in, &flags, wire);
	wire[len - 1] = 0;
	ck_assert_int_eq(frame_result_get(&out, 0, wire, len), -EPROTO);
	wire[len - 1] = 'b';
	memset(wire + 8 + FRAME_ATTR_LEN + 8, 0xff, 4); /* name_len */
	ck_assert_int_eq(frame_result_get(&out, 0, wire, len), -EPROTO);
}
END_TEST

/* The fullest lists that a pool may give stay within a control frame. */
START_TEST(full_lists_fit)
{
	char name[POOL_NAME_MAX + 1] = "x";

	for (size_t name_len = 1; name_len <= POOL_NAME_MAX; name_len += 2) {
		struct pool_req in = {.op = POOL_LIST, .data = room[0], .len = sizeof(room[0])};
		size_t each = sizeof(struct pool_dirent) + ((name_len + 7) & ~(size_t)7);
		uint8_t flags;

		memset(name, 'x', name_len);
		name[name_len] = 0;
		while (in.ret_len + each <= in.len)
			in.ret_len = add_dirent(in.ret_len, name, 2);
		ck_assert_uint_le(frame_result_put(&in, &flags, wire), FRAME_CONTROL_MAX);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("frame_control");
	TCase *requests = tcase_create("requests"), *results = tcase_create("results");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_loop_test(requests, request_bytes, 0, POOL_OPS);
	tcase_add_test(requests, a_handle_is_its_number);
	tcase_add_loop_test(requests, truncated_requests, 0, POOL_OPS);
	tcase_add_test(requests, unknown_flags);
	tcase_add_test(requests, region_names);
	tcase_add_test(requests, long_requests_fit);
	tcase_add_test(requests, answer_room_is_capped);
	tcase_add_test(requests, operations_without_a_pool);
	suite_add_tcase(suite, requests);
	tcase_add_test(results, attribute_results);
	tcase_add_test(results, empty_results);
	tcase_add_test(results, statfs_result);
	tcase_add_test(results, xattr_results);
	tcase_add_test(results, list_result);
	tcase_add_test(results, truncated_list_results);
	tcase_add_test(results, bad_names_in_a_list);
	tcase_add_test(results, full_lists_fit);
	suite_add_tcase(suite, results);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
