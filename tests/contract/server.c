/* SPDX-License-Identifier: Apache-2.0
 *
 * The donor against clients that do not behave: what is malformed or out of range ends that connection
 * with a reason in the log; what is merely wrong is answered; nobody else notices.
 *
 * Each test has a donor of its own and a bystander, a client with an open region whose service must be
 * unharmed afterwards.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/donor.h"
#include "tests/lib/raw.h"

enum { POOL_SIZE = 64 << 20, BLOCK = 4096 };

static struct donor donor;
static struct raw bystander, raw;
static uint8_t pattern[BLOCK];

static const char *const args[] = {"--pool", "ram=memory:?size=64M", "--pool",
    "disk=file:DIR/disk?size=64M", "--log", "debug", NULL};

static void setup(void)
{
	donor_start(&donor, args);
	raw_open(&bystander, donor.port, "ram", 1, 1);
	raw_create(&bystander, "bystander", 1);
	for (unsigned i = 0; i < BLOCK; i++)
		pattern[i] = (uint8_t)(i * 7 + 1);
	ck_assert_int_eq(raw_write(&bystander, 1, 0, pattern, BLOCK), 0);
	raw.fd = -1;
}

/* The bystander is served as before, on the connection that it has. */
static void expect_unharmed(void)
{
	uint8_t buf[BLOCK];

	ck_assert_int_eq(raw_read(&bystander, 1, 0, buf, BLOCK), 0);
	ck_assert_mem_eq(buf, pattern, BLOCK);
	ck_assert_int_eq(raw_write(&bystander, 1, BLOCK, pattern, BLOCK), 0);
	ck_assert_int_eq(raw_read(&bystander, 1, BLOCK, buf, BLOCK), 0);
	ck_assert_mem_eq(buf, pattern, BLOCK);
}

static void teardown(void)
{
	expect_unharmed();
	raw_close(&raw);
	raw_close(&bystander);
	donor_stop(&donor);
}

/* ---- frames that end their connection ---- */

enum when { BEFORE_HELLO, AFTER_HELLO };

/* What is sent, and a part of the line that the log then has. */
static const struct malformed {
	const char *name;
	enum when when;
	struct frame_req frame; /* .id 0: becomes 1 */
	int damage; /* that header byte gets its lowest bit flipped; -1: none */
	const char *body; /* that many of its bytes follow: */
	size_t body_len;
	const char *log;
} malformed[] = {
    {"magic", AFTER_HELLO, {.op = FRAME_PING}, 0, NULL, 0, "not a remram request (wrong magic)"},
    {"magic before HELLO", BEFORE_HELLO, {.op = FRAME_HELLO}, 1, NULL, 0, "wrong magic"},
    {"reserved bytes", AFTER_HELLO, {.op = FRAME_PING}, 36, NULL, 0, "reserved bytes are not zero"},
    {"unknown operation", AFTER_HELLO, {.op = 99}, -1, NULL, 0, "unknown operation"},
    {"operation 0", AFTER_HELLO, {.op = 0}, -1, NULL, 0, "unknown operation"},
    {"huge WRITE", AFTER_HELLO,
	{.op = FRAME_WRITE, .handle = 1, .len = (1 << 20) + 1, .payload = (1 << 20) + 1}, -1, NULL,
	0, "WRITE length is not 1 to 1 MiB"},
    {"WRITE of 4 GiB", AFTER_HELLO,
	{.op = FRAME_WRITE, .handle = 1, .len = 1ull << 32, .payload = 0}, -1, NULL, 0,
	"WRITE length is not 1 to 1 MiB"},
    {"WRITE without its payload", AFTER_HELLO,
	{.op = FRAME_WRITE, .handle = 1, .len = 8, .payload = 0}, -1, NULL, 0,
	"WRITE payload is not its length"},
    {"empty READ", AFTER_HELLO, {.op = FRAME_READ, .handle = 1}, -1, NULL, 0,
	"READ length is not 1 to 1 MiB"},
    {"huge READ", AFTER_HELLO, {.op = FRAME_READ, .handle = 1, .len = (1 << 20) + 1}, -1, NULL, 0,
	"READ length is not 1 to 1 MiB"},
    {"READ with a payload", AFTER_HELLO, {.op = FRAME_READ, .handle = 1, .len = 8, .payload = 8},
	-1, "12345678", 8, "READ with a payload"},
    {"range overflow", AFTER_HELLO, {.op = FRAME_ZERO, .handle = 1, .off = INT64_MAX, .len = 1}, -1,
	NULL, 0, "range overflows"},
    {"range overflow of 64 bits", AFTER_HELLO,
	{.op = FRAME_READ, .handle = 1, .off = UINT64_MAX - 7, .len = 16}, -1, NULL, 0,
	"range overflows"},
    {"READ out of range", AFTER_HELLO,
	{.op = FRAME_READ, .handle = 1, .off = POOL_SIZE - 4095, .len = 4096}, -1, NULL, 0,
	"range lies beyond the pool's largest region"},
    {"ZERO out of range", AFTER_HELLO,
	{.op = FRAME_ZERO, .handle = 1, .off = 0, .len = POOL_SIZE + 1}, -1, NULL, 0,
	"range lies beyond the pool's largest region"},
    {"EXTENTS out of range", AFTER_HELLO,
	{.op = FRAME_EXTENTS, .handle = 1, .off = POOL_SIZE, .len = 1}, -1, NULL, 0,
	"range lies beyond the pool's largest region"},
    {"long control payload", AFTER_HELLO, {.op = FRAME_LOOKUP, .payload = 66 * 1024 + 1}, -1, NULL,
	0, "payload too long"},
    {"name cut short", AFTER_HELLO, {.op = FRAME_LOOKUP, .payload = 5}, -1, "\5\0abc", 5,
	"malformed body"},
    {"bytes after a name", AFTER_HELLO, {.op = FRAME_LOOKUP, .payload = 6}, -1, "\3\0abcd", 6,
	"malformed body"},
    {"no body", AFTER_HELLO, {.op = FRAME_SETATTR, .off = 2}, -1, NULL, 0, "malformed body"},
    {"unknown open flag", AFTER_HELLO, {.op = FRAME_OPEN, .off = 2, .handle = 9, .payload = 12}, -1,
	"\0\0\0\200\0\0\0\0\0\0\0\0", 12, "malformed body"},
    {"unknown set bit", AFTER_HELLO, {.op = FRAME_SETATTR, .off = 2, .payload = 76}, -1,
	"\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
	"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
	76, "malformed body"},
    {"PING before HELLO", BEFORE_HELLO, {.op = FRAME_PING}, -1, NULL, 0, "PING: came before HELLO"},
    {"READ before HELLO", BEFORE_HELLO, {.op = FRAME_READ, .handle = 1, .len = 1}, -1, NULL, 0,
	"READ: came before HELLO"},
    {"LOOKUP before HELLO", BEFORE_HELLO, {.op = FRAME_LOOKUP, .payload = 3}, -1, "\1\0a", 3,
	"LOOKUP: came before HELLO"},
    {"second HELLO", AFTER_HELLO, {.op = FRAME_HELLO, .payload = 45}, -1,
	"RMRM\1\0\1\0\0\0\0\0\0\0\0\0\0\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17\2\0\0\0\0\0\0\0\3\0ra"
	"m",
	45, "HELLO: came a second time"},
    {"HELLO without body", BEFORE_HELLO, {.op = FRAME_HELLO}, -1, NULL, 0, "HELLO: malformed body"},
    {"HELLO with another magic", BEFORE_HELLO, {.op = FRAME_HELLO, .payload = 45}, -1,
	"RMRN\1\0\1\0\0\0\0\0\0\0\0\0\0\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17\1\0\0\0\0\0\0\0\3\0ra"
	"m",
	45, "HELLO: malformed body"},
    {"HELLO with a NUL in the name", BEFORE_HELLO, {.op = FRAME_HELLO, .payload = 46}, -1,
	"RMRM\1\0\1\0\0\0\0\0\0\0\0\0\0\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17\1\0\0\0\0\0\0\0\4\0ra"
	"m\0",
	46, "HELLO: malformed body"},
};

enum { MALFORMED = sizeof(malformed) / sizeof(malformed[0]) };

START_TEST(malformed_frames)
{
	const struct malformed *m = &malformed[_i];
	struct frame_req frame = m->frame;
	uint8_t header[FRAME_REQ_LEN];

	if (m->when == AFTER_HELLO) {
		raw_open(&raw, donor.port, "ram", 2, 1);
		raw_create(&raw, "mine", 1);
	} else {
		raw_connect(&raw, donor.port);
	}
	frame.id = 1000;
	frame_req_put(header, &frame);
	if (m->damage >= 0)
		header[m->damage] ^= 1;
	raw_bytes(&raw, header, sizeof(header));
	raw_bytes(&raw, m->body, m->body_len);
	ck_assert_msg(raw_ended(&raw, 5), "%s: the connection is still there", m->name);
	donor_log_expect(&donor, m->log);
	ck_assert_msg(
	    donor_log_count(&donor, "connection closed") == 1, "%s: not one reason", m->name);
}
END_TEST

/* Somebody else's protocol. */
START_TEST(other_protocols)
{
	static const char texts[][80] = {
	    "GET / HTTP/1.1\r\nHost: donor\r\nUser-Agent: a browser\r\n\r\n",
	    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and what else a TLS hello has in it",
	    "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n",
	};

	raw_connect(&raw, donor.port);
	raw_bytes(&raw, texts[_i], sizeof(texts[_i]));
	ck_assert(raw_ended(&raw, 5));
	donor_log_expect(&donor, "not a remram request");
}
END_TEST

/* A frame that ends its connection does not happen, and what came before it does. */
START_TEST(frames_before_a_malformed_one_count)
{
	uint8_t buf[2 * BLOCK];

	raw_open(&raw, donor.port, "ram", 2, 1);
	raw_create(&raw, "mine", 1);
	raw_send(
	    &raw, (struct frame_req){.op = FRAME_WRITE, .handle = 1, .len = BLOCK}, pattern, BLOCK);
	raw_send(&raw,
	    (struct frame_req){.op = FRAME_ZERO, .handle = 1, .off = 1, .len = POOL_SIZE}, NULL, 0);
	raw_send(&raw,
	    (struct frame_req){.op = FRAME_WRITE, .handle = 1, .off = BLOCK, .len = BLOCK}, pattern,
	    BLOCK);
	ck_assert(raw_ended(&raw, 5));
	raw_close(&raw);
	raw_open(&raw, donor.port, "ram", 2, 2); /* the session goes on */
	ck_assert_int_eq(raw_read(&raw, 1, 0, buf, 2 * BLOCK), 0);
	ck_assert_mem_eq(buf, pattern, BLOCK);
	ck_assert_int_eq(frame_is_zero(buf + BLOCK, BLOCK), 1);
}
END_TEST

/* A flood of them is one line in the log each second at most for each connection, and harms nobody. */
START_TEST(many_bad_connections)
{
	for (unsigned i = 0; i < 300; i++) {
		raw_connect(&raw, donor.port);
		raw_bytes(&raw, "0123456789012345678901234567890123456789", 40);
		ck_assert(raw_ended(&raw, 5));
		raw_close(&raw);
	}
	expect_unharmed();
	ck_assert_uint_lt(donor_fds(&donor), 60);
}
END_TEST

/* ---- requests that are answered with an error; the connection goes on ---- */

static void expect_alive(void)
{
	ck_assert_int_eq(raw_ask(&raw, (struct frame_req){.op = FRAME_PING}, NULL, 0), 0);
}

START_TEST(handles_that_are_not_open)
{
	static const uint32_t numbers[] = {0, 2, 15, 16, 17, 65535, 65536, UINT32_MAX};
	static const uint8_t ops[] = {
	    FRAME_READ, FRAME_ZERO, FRAME_ALLOC, FRAME_FLUSH, FRAME_EXTENTS, FRAME_CLOSE};

	raw_open(&raw, donor.port, "ram", 2, 1);
	raw_create(&raw, "mine", 1);
	for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		struct pool_req req = {.op = POOL_GETATTR, .id = 2, .number = numbers[i]};

		ck_assert_int_eq(raw_write(&raw, numbers[i], 0, pattern, BLOCK), -EBADF);
		for (unsigned k = 0; k < sizeof(ops); k++) {
			struct frame_req frame = {.op = ops[k], .handle = numbers[i], .len = 1};

			ck_assert_int_eq(raw_ask(&raw, frame, NULL, 0), -EBADF);
		}
		if (numbers[i])
			ck_assert_int_eq(raw_control(&raw, &req, 0, 0), -EBADF);
	}
	expect_alive();
}
END_TEST

/* A handle that another session has is not open in this one. */
START_TEST(handles_belong_to_their_session)
{
	uint8_t buf[BLOCK];

	raw_open(&raw, donor.port, "ram", 2, 1);
	ck_assert_int_eq(raw_read(&raw, 1, 0, buf, BLOCK), -EBADF);
}
END_TEST

START_TEST(handle_numbers)
{
	static const uint32_t bad[] = {0, 65536, UINT32_MAX};
	struct pool_req req = {
	    .op = POOL_CREATE, .name = "x", .flags = POOL_READ, .attr.mode = 0600};
	uint8_t byte;

	raw_open(&raw, donor.port, "ram", 2, 1);
	raw_create(&raw, "mine", 1);
	for (unsigned i = 0; i < 3; i++) {
		req.number = bad[i];
		ck_assert_int_eq(raw_control(&raw, &req, 0, 0), -EINVAL);
	}
	req = (struct pool_req){.op = POOL_LOOKUP, .name = "x"};
	ck_assert_int_eq(raw_control(&raw, &req, 0, 0), -ENOENT); /* nothing of that was done */
	req = (struct pool_req){.op = POOL_LOOKUP, .name = "mine"};
	ck_assert_int_eq(raw_control(&raw, &req, 0, 0), 0);
	req = (struct pool_req){
	    .op = POOL_OPEN, .id = req.attr.id, .flags = POOL_READ, .number = 65535};
	ck_assert_int_eq(raw_control(&raw, &req, 0, 0), 0);
	ck_assert_int_eq(raw_read(&raw, 65535, 0, &byte, 1), 0);
	req.flags = POOL_WRITE; /* taken: the old handle is closed, the new one only writes */
	ck_assert_int_eq(raw_control(&raw, &req, 0, 0), 0);
	ck_assert_int_eq(raw_read(&raw, 65535, 0, &byte, 1), -EBADF);
	ck_assert_int_eq(
	    raw_ask(&raw, (struct frame_req){.op = FRAME_CLOSE, .handle = 65535}, NULL, 0), 0);
	ck_assert_int_eq(
	    raw_ask(&raw, (struct frame_req){.op = FRAME_CLOSE, .handle = 65535}, NULL, 0), -EBADF);
	ck_assert_int_eq(raw_control(&raw, &req, 0, 0), 0); /* free again */
}
END_TEST

/* Two creations that ask for the same number, sent together: a file pool serves them later. */
START_TEST(the_same_number_twice_at_once)
{
	struct pool_req req[2] = {{.op = POOL_CREATE, .name = "a", .flags = POOL_READ, .number = 3},
	    {.op = POOL_CREATE, .name = "b", .flags = POOL_READ, .number = 3}};
	uint8_t wire[4 * FRAME_BODY_MAX];
	size_t used = 0;
	int good = 0;

	raw_open(&raw, donor.port, "disk", 2, 1);
	for (unsigned i = 0; i < 2; i++) {
		struct frame_req frame;
		size_t len = frame_control_put(&req[i], &frame, wire + used + FRAME_REQ_LEN);

		frame.id = i + 1;
		frame_req_put(wire + used, &frame);
		used += FRAME_REQ_LEN + len;
	}
	raw_bytes(&raw, wire, used);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert(raw_recv(&raw));
		good += raw.rep.status == 0;
		ck_assert(raw.rep.status == 0 || frame_errno(raw.rep.status) == -EINVAL);
	}
	ck_assert_int_eq(good, 1);
	ck_assert_int_eq(
	    raw_ask(&raw, (struct frame_req){.op = FRAME_CLOSE, .handle = 3}, NULL, 0), 0);
	expect_alive();
}
END_TEST

/* FLUSH of a file takes a worker's time: CLOSE, in the same packet, finds the handle in use. */
START_TEST(close_of_a_busy_handle)
{
	uint8_t wire[2 * FRAME_REQ_LEN];
	int status[3] = {1, 1, 1};

	raw_open(&raw, donor.port, "disk", 2, 1);
	raw_create(&raw, "mine", 1);
	ck_assert_int_eq(raw_write(&raw, 1, 0, pattern, BLOCK), 0);
	frame_req_put(wire, &(struct frame_req){.op = FRAME_FLUSH, .handle = 1, .id = 1});
	frame_req_put(
	    wire + FRAME_REQ_LEN, &(struct frame_req){.op = FRAME_CLOSE, .handle = 1, .id = 2});
	raw_bytes(&raw, wire, sizeof(wire));
	for (unsigned i = 0; i < 2; i++) {
		ck_assert(raw_recv(&raw));
		ck_assert(raw.rep.id == 1 || raw.rep.id == 2);
		status[raw.rep.id] = frame_errno(raw.rep.status);
	}
	ck_assert_int_eq(status[1], 0);
	ck_assert_int_eq(status[2], -EBUSY);
	ck_assert_int_eq(raw_read(&raw, 1, 0, raw.data, 1), 0); /* still open */
	ck_assert_int_eq(
	    raw_ask(&raw, (struct frame_req){.op = FRAME_CLOSE, .handle = 1}, NULL, 0), 0);
}
END_TEST

START_TEST(no_room)
{
	raw_open(&raw, donor.port, "ram", 2, 1);
	raw_create(&raw, "mine", 1);
	ck_assert_int_eq(raw_write(&raw, 1, POOL_SIZE - BLOCK, pattern, BLOCK), 0);
	ck_assert_int_eq(raw_write(&raw, 1, POOL_SIZE - BLOCK + 1, pattern, BLOCK), -ENOSPC);
	ck_assert_int_eq(raw_write(&raw, 1, INT64_MAX - BLOCK, pattern, BLOCK), -ENOSPC);
	ck_assert_int_eq(raw_ask(&raw,
			     (struct frame_req){.op = FRAME_WRITE,
				 .flags = FRAME_F_ZEROS,
				 .handle = 1,
				 .off = POOL_SIZE,
				 .len = 1},
			     NULL, 0),
	    -ENOSPC);
	ck_assert_int_eq(
	    raw_ask(&raw, (struct frame_req){.op = FRAME_ALLOC, .handle = 1, .len = POOL_SIZE + 1},
		NULL, 0),
	    -ENOSPC);
	/* All that is left, but the bystander has a block. */
	ck_assert_int_eq(
	    raw_ask(&raw, (struct frame_req){.op = FRAME_ALLOC, .handle = 1, .len = POOL_SIZE},
		NULL, 0),
	    -ENOSPC);
	expect_alive();
	ck_assert_int_eq(
	    raw_ask(
		&raw, (struct frame_req){.op = FRAME_ZERO, .handle = 1, .len = POOL_SIZE}, NULL, 0),
	    0);
}
END_TEST

START_TEST(access_of_a_handle)
{
	struct pool_req req = {
	    .op = POOL_CREATE, .name = "mine", .flags = POOL_READ, .number = 1, .attr.mode = 0600};
	uint8_t buf[BLOCK];

	raw_open(&raw, donor.port, "ram", 2, 1);
	ck_assert_int_eq(raw_control(&raw, &req, 0, 0), 0);
	ck_assert_int_eq(raw_write(&raw, 1, 0, pattern, BLOCK), -EBADF);
	ck_assert_int_eq(raw_read(&raw, 1, 0, buf, BLOCK), 0);
	req =
	    (struct pool_req){.op = POOL_OPEN, .id = req.attr.id, .flags = POOL_WRITE, .number = 2};
	ck_assert_int_eq(raw_control(&raw, &req, 0, 0), 0);
	ck_assert_int_eq(raw_write(&raw, 2, 0, pattern, BLOCK), 0);
	ck_assert_int_eq(raw_read(&raw, 2, 0, buf, BLOCK), -EBADF);
	/* Without write bits nobody writes, whatever he has open. */
	req = (struct pool_req){
	    .op = POOL_SETATTR, .id = req.attr.id, .set = POOL_SET_MODE, .attr.mode = 0400};
	ck_assert_int_eq(raw_control(&raw, &req, 0, 0), 0);
	ck_assert_int_eq(raw_write(&raw, 2, 0, buf, BLOCK), -EACCES);
	ck_assert_int_eq(raw_read(&raw, 1, 0, buf, BLOCK), 0);
	ck_assert_mem_eq(buf, pattern, BLOCK);
	req =
	    (struct pool_req){.op = POOL_OPEN, .id = req.attr.id, .flags = POOL_WRITE, .number = 3};
	ck_assert_int_eq(raw_control(&raw, &req, 0, 0), -EACCES);
}
END_TEST

START_TEST(names)
{
	static const struct {
		const char *name;
		size_t len;
		int err;
	} bad[] = {{"", 0, -EINVAL}, {".", 1, -EINVAL}, {"..", 2, -EINVAL}, {"a/b", 3, -EINVAL},
	    {"/", 1, -EINVAL}, {"a\0b", 3, -EINVAL}, {"x", 256, -ENAMETOOLONG}};

	raw_open(&raw, donor.port, "ram", 2, 1);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint8_t body[2 + 256] = {(uint8_t)bad[i].len, (uint8_t)(bad[i].len >> 8)};

		if (bad[i].len == 256)
			memset(body + 2, 'x', 256);
		else
			memcpy(body + 2, bad[i].name, bad[i].len);
		ck_assert_int_eq(
		    raw_ask(&raw, (struct frame_req){.op = FRAME_LOOKUP}, body, 2 + bad[i].len),
		    bad[i].err);
	}
	expect_alive();
}
END_TEST

START_TEST(xattr_values)
{
	struct pool_req req = {.op = POOL_LOOKUP, .name = "bystander"};
	static uint8_t body[12 + 65537] = {0, 0, 0, 0, 6, 0, 'u', 's', 'e', 'r', '.', 'x'};
	struct frame_req frame = {.op = FRAME_SETXATTR};

	raw_open(&raw, donor.port, "ram", 2, 1);
	ck_assert_int_eq(raw_control(&raw, &req, 0, 0), 0);
	frame.off = req.attr.id;
	ck_assert_int_eq(raw_ask(&raw, frame, body, sizeof(body)), -E2BIG);
	ck_assert_int_eq(
	    raw_ask(&raw, frame, body, sizeof(body) - 1), -ENOSPC); /* the name counts, too */
	ck_assert_int_eq(raw_ask(&raw, frame, body, sizeof(body) - 8), 0);
	req = (struct pool_req){.op = POOL_GETXATTR, .id = req.attr.id, .name = "user.x"};
	ck_assert_int_eq(raw_control(&raw, &req, 0, 0), 0);
	ck_assert_uint_eq(req.ret_len, 65536 - 7);
	req.len = 100;
	req.data = body;
	ck_assert_int_eq(raw_control(&raw, &req, 0, 0), -ERANGE);
	req.name = "trusted.x";
	ck_assert_int_eq(raw_control(&raw, &req, 0, 0), -EOPNOTSUPP);
	req.name = "user.y";
	ck_assert_int_eq(raw_control(&raw, &req, 0, 0), -ENODATA);
	expect_alive();
}
END_TEST

/* ---- HELLO ---- */

START_TEST(a_wrong_pool_names_the_right_ones)
{
	struct frame_hello hello = raw_session("nope", 2, 1);

	raw_connect(&raw, donor.port);
	ck_assert_int_eq(raw_hello(&raw, &hello, NULL), -ENOENT);
	ck_assert_str_eq((char *)raw.data, "pool \"nope\": no such pool (it offers: ram, disk)");
	donor_log_expect(&donor, "refused: pool \"nope\": no such pool");
	hello = raw_session("", 2, 1);
	ck_assert_int_eq(raw_hello(&raw, &hello, NULL), -ENOENT);
	/* The same connection may try again. */
	hello = raw_session("ram", 2, 1);
	ck_assert_int_eq(raw_hello(&raw, &hello, NULL), 0);
	expect_alive();
}
END_TEST

START_TEST(versions)
{
	struct frame_hello hello = raw_session("ram", 2, 1);
	struct frame_welcome welcome;

	raw_connect(&raw, donor.port);
	hello.version_min = 2;
	hello.version_max = 3;
	ck_assert_int_eq(raw_hello(&raw, &hello, NULL), -EPROTONOSUPPORT);
	ck_assert_str_eq((char *)raw.data, "version mismatch: the donor speaks protocol 1 to 1, "
					   "the client 2 to 3: install the same "
					   "release of remram on both");
	donor_log_expect(&donor, "refused: version mismatch");
	hello.version_min = hello.version_max = 0;
	ck_assert_int_eq(raw_hello(&raw, &hello, NULL), -EPROTONOSUPPORT);
	hello.version_max = 7;
	hello.features = UINT64_MAX;
	ck_assert_int_eq(raw_hello(&raw, &hello, &welcome), 0);
	ck_assert_uint_eq(welcome.version, 1);
	ck_assert_uint_eq(welcome.features, 0);
	ck_assert_uint_eq(welcome.size_max, POOL_SIZE);
	ck_assert_uint_eq(welcome.in_flight_max, 1024);
}
END_TEST

/* What names the donor, its machine and the pool is the same for all, and the pools differ. */
START_TEST(identities)
{
	struct frame_hello hello = raw_session("ram", 2, 1);
	struct frame_welcome one, two, disk;

	raw_connect(&raw, donor.port);
	ck_assert_int_eq(raw_hello(&raw, &hello, &one), 0);
	raw_close(&raw);
	hello = raw_session("ram", 3, 1);
	raw_connect(&raw, donor.port);
	ck_assert_int_eq(raw_hello(&raw, &hello, &two), 0);
	raw_close(&raw);
	ck_assert_mem_eq(&one, &two, sizeof(one));
	hello = raw_session("disk", 4, 1);
	raw_connect(&raw, donor.port);
	ck_assert_int_eq(raw_hello(&raw, &hello, &disk), 0);
	ck_assert_mem_eq(one.instance, disk.instance, 16);
	ck_assert_mem_eq(one.boot, disk.boot, 16);
	ck_assert_mem_ne(one.pool_uuid, disk.pool_uuid, 16);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("server");
	TCase *bad = tcase_create("malformed"), *wrong = tcase_create("wrong"),
	      *hello = tcase_create("hello");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(bad, 60);
	tcase_add_checked_fixture(bad, setup, teardown);
	tcase_add_loop_test(bad, malformed_frames, 0, MALFORMED);
	tcase_add_loop_test(bad, other_protocols, 0, 3);
	tcase_add_test(bad, frames_before_a_malformed_one_count);
	tcase_add_test(bad, many_bad_connections);
	suite_add_tcase(suite, bad);
	tcase_set_timeout(wrong, 60);
	tcase_add_checked_fixture(wrong, setup, teardown);
	tcase_add_test(wrong, handles_that_are_not_open);
	tcase_add_test(wrong, handles_belong_to_their_session);
	tcase_add_test(wrong, handle_numbers);
	tcase_add_test(wrong, the_same_number_twice_at_once);
	tcase_add_test(wrong, close_of_a_busy_handle);
	tcase_add_test(wrong, no_room);
	tcase_add_test(wrong, access_of_a_handle);
	tcase_add_test(wrong, names);
	tcase_add_test(wrong, xattr_values);
	suite_add_tcase(suite, wrong);
	tcase_set_timeout(hello, 60);
	tcase_add_checked_fixture(hello, setup, teardown);
	tcase_add_test(hello, a_wrong_pool_names_the_right_ones);
	tcase_add_test(hello, versions);
	tcase_add_test(hello, identities);
	suite_add_tcase(suite, hello);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
