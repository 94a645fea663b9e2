/* SPDX-License-Identifier: Apache-2.0
 *
 * The names that a client asks for with its greeting: LOOKUPs that are answered from them, and when they no longer
 * are.  What goes to the donor is told by the bytes that the client has sent.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "tests/lib/script.h"

enum { POOL_BYTES = 1 << 30, LONG_MS = 60000, SIZE = 12345 };

static struct serve serve;
static struct rig rig;
static struct client first, client;

static void setup(void)
{
	log_set_level(LOG_LEVEL_ERROR);
	rig_start(&rig, 1, 1);
	serve_start(&serve, POOL_BYTES);
	ck_assert_int_eq(client_open(&first, rig.loops[0],
			     &(struct client_conf){.port = serve.port, .pool = "ram"}, NULL),
	    0);
}

static void teardown(void)
{
	client_close(&client);
	client_close(&first);
	serve_stop(&serve);
	rig_stop(&rig);
}

static void create(const char *name, uint64_t size)
{
	struct handle *handle = client_create(&first, name);
	struct pool_req req = {.op = POOL_SETATTR,
	    .id = handle->region_id,
	    .set = POOL_SET_SIZE,
	    .attr.size = size,
	    .handle = handle};

	ck_assert_int_eq(client_ask(&first, &req), 0);
	client_close_handle(&first, handle);
}

static bool earlier; /* what the last LOOKUP has told of its answer */

static int look_up(struct client *who, const char *name, struct region_attr *ret_attr)
{
	struct pool_req req = {.op = POOL_LOOKUP, .name = name};
	int rc = client_ask(who, &req);

	*ret_attr = req.attr;
	earlier = req.ret_earlier;
	return rc;
}

static uint64_t sent(void)
{
	struct peer_status status;

	client_status(&client, &status);
	return status.bytes_out;
}

/* Whether the LOOKUP has to be sent. */
static bool asks(const char *name)
{
	uint64_t before = sent();
	struct region_attr attr;

	look_up(&client, name, &attr);
	ck_assert_int_eq(earlier, sent() == before);
	return sent() != before;
}

/* The second client, once the names have come. */
static void connect_looking(uint64_t ms)
{
	struct peer_status status;

	ck_assert_int_eq(
	    client_open(&client, rig.loops[0],
		&(struct client_conf){.port = serve.port, .pool = "ram", .look_ms = ms}, NULL),
	    0);
	do {
		usleep(1000);
		client_status(&client, &status);
	} while (status.in_flight);
}

START_TEST(names_are_known)
{
	struct region_attr known, asked;

	create("a", SIZE);
	create("a name that is longer than the others", 1);
	create("b", 2);
	connect_looking(LONG_MS);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert(!asks("a"));
		ck_assert(!asks("a name that is longer than the others"));
		ck_assert(!asks("b"));
	}
	ck_assert_int_eq(look_up(&client, "a", &known), 0);
	ck_assert_int_eq(look_up(&first, "a", &asked), 0);
	ck_assert_mem_eq(&known, &asked, sizeof(known));
	ck_assert_uint_eq(known.size, SIZE);
	/* One that is not among them may be there since. */
	ck_assert_int_eq(look_up(&client, "c", &known), -ENOENT);
	ck_assert(asks("a name"));
	create("c", 3);
	ck_assert_int_eq(look_up(&client, "c", &known), 0);
	ck_assert_uint_eq(known.size, 3);
}
END_TEST

START_TEST(for_a_time)
{
	create("a", SIZE);
	connect_looking(100);
	usleep(120000);
	ck_assert(asks("a"));
}
END_TEST

START_TEST(not_unless_wanted)
{
	create("a", SIZE);
	connect_looking(0);
	ck_assert(asks("a"));
}
END_TEST

/* Whatever else is asked may have changed something, or have been told of something newer. */
START_TEST(until_something_else_is_asked)
{
	struct pool_req req = {.op = POOL_STATFS};
	struct region_attr attr;

	create("a", SIZE);
	connect_looking(LONG_MS);
	ck_assert(!asks("a"));
	create("a", 7);
	ck_assert_int_eq(client_ask(&client, &req), 0);
	ck_assert_int_eq(look_up(&client, "a", &attr), 0);
	ck_assert_uint_eq(attr.size, 7);
	ck_assert(asks("a"));
}
END_TEST

START_TEST(until_the_connection_is_lost)
{
	struct peer_status status;
	struct region_attr attr;

	create("a", SIZE);
	connect_looking(LONG_MS);
	ck_assert(!asks("a"));
	serve_restart(&serve); /* what memory held is gone */
	do {
		usleep(1000);
		client_status(&client, &status);
	} while (status.reconnects == 0);
	ck_assert_int_eq(look_up(&client, "a", &attr), -ENOENT);
}
END_TEST

/* More names than fit into one answer: the others are asked for. */
START_TEST(many_names)
{
	unsigned known = 0;
	char name[16];

	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "region %u", i);
		create(name, i + 1);
	}
	connect_looking(LONG_MS);
	for (unsigned i = 0; i < 1000; i++) {
		struct region_attr attr;
		uint64_t before = sent();

		snprintf(name, sizeof(name), "region %u", i);
		ck_assert_int_eq(look_up(&client, name, &attr), 0);
		ck_assert_uint_eq(attr.size, i + 1);
		known += sent() == before;
	}
	ck_assert_uint_ge(known, 100);
	ck_assert_uint_lt(known, 1000);
}
END_TEST

/* ---- with a donor that takes its time ---- */

static void put_list(struct script *d, const struct frame_req *list, uint64_t size)
{
	uint8_t buf[8 + FRAME_ATTR_LEN + 13], *p = buf;
	struct region_attr attr = {.id = 7, .size = size, .mode = 0600, .nlink = 1};

	memset(buf, 0, sizeof(buf));
	p += 8; /* that was all */
	p += frame_attr_put(p, &attr);
	p[8] = 1; /* after the cookie: the name's length, and the name */
	p[12] = 'a';
	script_put(d, (struct frame_rep){.op = FRAME_LIST, .id = list->id}, buf, sizeof(buf));
}

/* The names are asked for before there is a welcome; which then comes. */
static bool greet(struct script *d, struct frame_req *ret_list)
{
	struct frame_req hello;

	if (!script_take(d))
		return false;
	hello = d->req;
	if (!script_expect_op(d, FRAME_LIST))
		return false;
	*ret_list = d->req;
	d->req = hello;
	script_put_welcome(d, 0);
	return true;
}

static void script_late(struct script *d)
{
	struct frame_req list;

	if (!greet(d, &list) || !script_expect_op(d, FRAME_STATFS))
		return;
	memset(d->body, 0, 32);
	script_answer(d, 0, d->body, 32);
	put_list(d, &list, 1);
	script_reach(1);
	if (!script_expect_op(d, FRAME_LOOKUP))
		return;
	script_answer_attr(d, 8);
	script_serve(d);
}

/* Names that come after the answer to something else may be older than that. */
START_TEST(names_that_come_late)
{
	struct pool_req req = {.op = POOL_STATFS};
	struct region_attr attr;

	script_begin(script_late);
	ck_assert_int_eq(script_open_client(LONG_MS, NULL), 0);
	ck_assert_int_eq(client_ask(&script_client, &req), 0);
	script_wait_for(1);
	ck_assert_int_eq(look_up(&script_client, "a", &attr), 0);
	ck_assert_uint_eq(attr.id, 8);
	script_end();
}
END_TEST

static void script_never(struct script *d)
{
	struct frame_req list;

	if (greet(d, &list))
		script_next(d);
}

START_TEST(names_that_never_come)
{
	script_begin(script_never);
	ck_assert_int_eq(script_open_client(LONG_MS, NULL), 0);
	script_end();
}
END_TEST

static void script_refusal(struct script *d)
{
	script_take(d);
	script_put(
	    d, (struct frame_rep){.op = FRAME_HELLO, .id = d->req.id, .status = 2}, "not here", 8);
}

START_TEST(refused)
{
	struct err err = {0};

	script_begin(script_refusal);
	ck_assert_int_eq(script_open_client(LONG_MS, &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "not here"));
	script_end();
}
END_TEST

static void script_cut(struct script *d)
{
	struct frame_req list;

	if (!greet(d, &list) || !script_meet(d, FRAME_F_RESUMED) ||
	    !script_expect_op(d, FRAME_LIST))
		return;
	put_list(d, &d->req, 1);
	script_serve(d);
}

START_TEST(cut_before_the_names)
{
	struct region_attr attr;

	script_begin(script_cut);
	ck_assert_int_eq(script_open_client(LONG_MS, NULL), 0);
	ck_assert_int_eq(look_up(&script_client, "a", &attr), 0);
	ck_assert_uint_eq(attr.size, 1 << 20); /* what LOOKUP says */
	script_end();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("peer_look");
	TCase *tc = tcase_create("look");
	TCase *scripted = tcase_create("scripted");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, names_are_known);
	tcase_add_test(tc, for_a_time);
	tcase_add_test(tc, not_unless_wanted);
	tcase_add_test(tc, until_something_else_is_asked);
	tcase_add_test(tc, until_the_connection_is_lost);
	tcase_add_test(tc, many_names);
	suite_add_tcase(suite, tc);
	tcase_set_timeout(scripted, 60);
	tcase_add_test(scripted, names_that_come_late);
	tcase_add_test(scripted, names_that_never_come);
	tcase_add_test(scripted, refused);
	tcase_add_test(scripted, cut_before_the_names);
	suite_add_tcase(suite, scripted);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
