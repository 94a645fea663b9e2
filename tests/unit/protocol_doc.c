/* SPDX-License-Identifier: Apache-2.0
 *
 * docs/PROTOCOL.md says what core/frame.c does: its example is, byte for byte, what the codec makes, and its
 * tables of operations, flags and errors have the codec's names and numbers and no others.  Run from the top
 * of the tree.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/frame.h"
#include "tests/unit/hex.h"

#define PAGE "docs/PROTOCOL.md"

enum { PAGE_MAX = 1 << 18 };

static char page[PAGE_MAX];

static void read_page(void)
{
	FILE *in = fopen(PAGE, "r");
	size_t n;

	ck_assert_msg(in != NULL, PAGE " cannot be opened: is this the top of the tree?");
	n = fread(page, 1, PAGE_MAX - 1, in);
	ck_assert_uint_lt(n, PAGE_MAX - 1);
	page[n] = '\0';
	fclose(in);
}

/* ---- the example ---- */

static uint8_t made[4096];
static size_t made_len;

static void add(const void *bytes, size_t len)
{
	memcpy(made + made_len, bytes, len);
	made_len += len;
}

static void add_req(struct frame_req req, const void *payload)
{
	uint8_t header[FRAME_REQ_LEN];

	frame_req_put(header, &req);
	add(header, sizeof(header));
	add(payload, req.payload);
}

static void add_rep(struct frame_rep rep, const void *payload)
{
	uint8_t header[FRAME_REP_LEN];

	frame_rep_put(header, &rep);
	add(header, sizeof(header));
	add(payload, rep.payload);
}

static void add_control(struct pool_req preq, uint64_t id)
{
	uint8_t body[FRAME_BODY_MAX];
	struct frame_req req;

	frame_control_put(&preq, &req, body);
	req.id = id;
	add_req(req, body);
}

static void add_greeting(void)
{
	struct frame_hello hello = {
	    .version_min = 1, .version_max = 1, .epoch = 1, .pool = "disk", .who = "web1"};
	struct frame_welcome welcome = {
	    .version = 1, .size_max = 1 << 30, .in_flight_max = 1024, .lease_ms = 30000};
	uint8_t body[FRAME_HELLO_MAX];
	size_t len;

	for (uint8_t i = 0; i < 16; i++) {
		hello.session[i] = 0x10 + i;
		welcome.instance[i] = 0x20 + i;
		welcome.boot[i] = 0x30 + i;
		welcome.pool_uuid[i] = 0x40 + i;
	}
	len = frame_hello_put(body, &hello);
	add_req((struct frame_req){.op = FRAME_HELLO, .payload = (uint32_t)len, .id = 1ull << 63},
	    body);
	len = frame_welcome_put(body, &welcome);
	add_rep((struct frame_rep){.op = FRAME_HELLO, .payload = (uint32_t)len, .id = 1ull << 63},
	    body);
}

static void add_create(void)
{
	struct region_attr attr = {
	    .id = 2,
	    .version = 1700000000000000000,
	    .atime_ns = 1700000000000000000,
	    .mtime_ns = 1700000000000000000,
	    .ctime_ns = 1700000000000000000,
	    .mode = 0640,
	    .uid = 1000,
	    .gid = 100,
	    .nlink = 1,
	};
	struct pool_req create = {
	    .op = POOL_CREATE,
	    .flags = POOL_READ | POOL_WRITE | POOL_EXCLUSIVE,
	    .attr = {.mode = 0640, .uid = 1000, .gid = 100},
	    .name = "a",
	    .number = 1,
	};
	uint8_t body[FRAME_ATTR_LEN];

	add_control(create, 0x400);
	frame_attr_put(body, &attr);
	add_rep(
	    (struct frame_rep){.op = FRAME_CREATE, .payload = FRAME_ATTR_LEN, .id = 0x400}, body);
}

static void make_example(void)
{
	made_len = 0;
	add_greeting();
	add_create();
	add_req(
	    (struct frame_req){.op = FRAME_WRITE, .payload = 5, .id = 0x800, .len = 5, .handle = 1},
	    "hello");
	add_rep((struct frame_rep){.op = FRAME_WRITE, .id = 0x800}, "");
	add_req((struct frame_req){.op = FRAME_READ, .id = 0xc00, .len = 5, .handle = 1}, "");
	add_req(
	    (struct frame_req){
		.op = FRAME_READ, .id = 0x1001, .off = 4096, .len = 4096, .handle = 1},
	    "");
	add_rep((struct frame_rep){.op = FRAME_READ, .flags = FRAME_F_ZEROS, .id = 0x1001}, "");
	add_rep((struct frame_rep){.op = FRAME_READ, .payload = 5, .id = 0xc00}, "hello");
	add_control((struct pool_req){.op = POOL_LOOKUP, .name = "b"}, 0x1400);
	add_rep(
	    (struct frame_rep){.op = FRAME_LOOKUP, .id = 0x1400, .status = frame_status(-ENOENT)},
	    "");
	add_req((struct frame_req){.op = FRAME_BYE, .id = FRAME_ID_PING}, "");
	add_rep((struct frame_rep){.op = FRAME_BYE, .id = FRAME_ID_PING}, "");
}

/* Blanks out everything of the example but its bytes: '#' begins a comment. */
START_TEST(example)
{
	static const char begin[] = "```hex\n";
	char *from = strstr(page, begin), *to;
	bool comment = false;

	ck_assert_ptr_nonnull(from);
	from += strlen(begin);
	to = strstr(from, "```");
	ck_assert_ptr_nonnull(to);
	for (char *p = from; p < to; p++) {
		comment = *p != '\n' && (comment || *p == '#');
		if (comment)
			*p = ' ';
	}
	*to = '\0';
	make_example();
	hex_expect("the example", made, made_len, from);
}
END_TEST

/* ---- the tables ---- */

/* The number of table rows in section `title` that have `want` as their first cells. */
static unsigned rows(const char *title, const char *want)
{
	char heading[64];
	const char *at, *end;
	unsigned n = 0;

	snprintf(heading, sizeof(heading), "\n## %s\n", title);
	at = strstr(page, heading);
	ck_assert_msg(at != NULL, "no section \"%s\"", title);
	at += strlen(heading);
	end = strstr(at, "\n## ");
	for (; (at = strstr(at, want)) && (!end || at < end); at++)
		n += at[-1] == '\n';
	return n;
}

static void one_row(const char *title, unsigned number, const char *name)
{
	char want[64];

	snprintf(want, sizeof(want), "| %u | %s |", number, name);
	ck_assert_msg(rows(title, want) == 1, "section \"%s\" has not one row \"%s\"", title, want);
}

START_TEST(operations)
{
	for (unsigned op = 0; op < 256; op++) {
		char want[16];

		snprintf(want, sizeof(want), "| %u | ", op);
		if (strcmp(frame_op_name(op), "?") != 0)
			one_row("Operations", op, frame_op_name(op));
		else
			ck_assert_uint_eq(rows("Operations", want), 0);
	}
}
END_TEST

START_TEST(flags)
{
	static const struct {
		enum frame_flag flag;
		const char *name;
	} all[] = {
	    {FRAME_F_ZEROS, "ZEROS"},
	    {FRAME_F_FUA, "FUA"},
	    {FRAME_F_KEEP, "KEEP"},
	    {FRAME_F_BACKGROUND, "BACKGROUND"},
	    {FRAME_F_REPLAY, "REPLAY"},
	    {FRAME_F_UNCHANGED, "UNCHANGED"},
	    {FRAME_F_RESUMED, "RESUMED"},
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		one_row("Flags", all[i].flag, all[i].name);
}
END_TEST

START_TEST(errors)
{
#define NAME(err) \
	{ \
		err, #err \
	}
	static const struct {
		int err;
		const char *name;
	} all[] = {
	    NAME(EPERM),
	    NAME(ENOENT),
	    NAME(EINTR),
	    NAME(EIO),
	    NAME(E2BIG),
	    NAME(EBADF),
	    NAME(EAGAIN),
	    NAME(ENOMEM),
	    NAME(EACCES),
	    NAME(EBUSY),
	    NAME(EEXIST),
	    NAME(EINVAL),
	    NAME(EFBIG),
	    NAME(ENOSPC),
	    NAME(EROFS),
	    NAME(ERANGE),
	    NAME(ENAMETOOLONG),
	    NAME(ENOLCK),
	    NAME(ENODATA),
	    NAME(EPROTO),
	    NAME(EPROTONOSUPPORT),
	    NAME(EOPNOTSUPP),
	    NAME(ESHUTDOWN),
	    NAME(ESTALE),
	    NAME(EDQUOT),
	};
#undef NAME
	unsigned known = 0, listed = 0;

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		one_row("Errors", frame_status(-all[i].err), all[i].name);
	for (unsigned status = 1; status < 4096; status++) {
		char want[16];

		snprintf(want, sizeof(want), "| %u | ", status);
		known += status == 5 || frame_errno(status) != -EIO;
		listed += rows("Errors", want);
	}
	ck_assert_uint_eq(known, listed);
	ck_assert_uint_eq(known, sizeof(all) / sizeof(all[0]));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("protocol_doc");
	TCase *tc = tcase_create("protocol_doc");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tc, read_page, NULL);
	tcase_add_test(tc, example);
	tcase_add_test(tc, operations);
	tcase_add_test(tc, flags);
	tcase_add_test(tc, errors);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
