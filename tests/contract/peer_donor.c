/* SPDX-License-Identifier: Apache-2.0
 *
 * The client against donors that do not behave.  Whatever they send, no request ends with anything but
 * its own answer: a connection that is malformed is dropped, and what was in flight is asked again over
 * the next one.
 */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/lib/script.h"

/* ---- refusals of the first connection ---- */

static void script_silence(struct script *d)
{
	script_take(d);
}

static void script_noise(struct script *d)
{
	script_take(d);
	send(d->fd, "HTTP/1.1 400 Bad Request\r\n\r\n", 28, MSG_NOSIGNAL);
	script_next(d);
}

static void script_refusal(struct script *d)
{
	script_take(d);
	script_put(d, (struct frame_rep){.op = FRAME_HELLO, .id = d->req.id, .status = 2},
	    "no, not here", 12);
	script_next(d);
}

static void script_later_version(struct script *d)
{
	uint8_t buf[FRAME_WELCOME_LEN];
	struct frame_welcome welcome = {.version = 2, .size_max = 1 << 20, .in_flight_max = 1024};

	script_take(d);
	script_answer(d, 0, buf, frame_welcome_put(buf, &welcome));
	script_next(d);
}

static void script_short_welcome(struct script *d)
{
	script_take(d);
	script_answer(d, 0, script_data, FRAME_WELCOME_LEN - 1);
	script_next(d);
}

static void script_other_reply(struct script *d)
{
	script_take(d);
	script_put(
	    d, (struct frame_rep){.op = FRAME_READ, .id = 1024, .payload = 100}, script_data, 100);
	script_next(d);
}

static const struct {
	void (*script)(struct script *donor);
	int err;
	const char *text;
} refusals[] = {
    {script_silence, -ECONNRESET, "closed the connection without an answer: is it a remramd?"},
    {script_noise, -EPROTO, "does not speak the remram protocol as it should"},
    {script_refusal, -ENOENT, "no, not here"},
    {script_later_version, -EPROTO, "does not speak the remram protocol as it should"},
    {script_short_welcome, -EPROTO, "does not speak the remram protocol as it should"},
    {script_other_reply, -EPROTO, "does not speak the remram protocol as it should"},
};

START_TEST(refused)
{
	struct err err = {0};

	script_begin(refusals[_i].script);
	ck_assert_int_eq(script_open_client(0, &err), refusals[_i].err);
	ck_assert_msg(strstr(err.text, refusals[_i].text) != NULL, "\"%s\"", err.text);
	script_end();
}
END_TEST

START_TEST(nobody_listens)
{
	struct err err = {0};

	script_begin(script_silence);
	shutdown(script_donor.listen, SHUT_RDWR);
	ck_assert_int_eq(script_open_client(0, &err), -ECONNREFUSED);
	ck_assert_ptr_nonnull(
	    strstr(err.text, "connection refused: is remramd running there, on that port?"));
	script_end();
}
END_TEST

/* ---- malformed replies ---- */

/* What the donor sends in place of the reply to the last request. */
static void reply_wrong_id(struct script *d)
{
	d->req.id ^= 1u << 20;
	script_answer(d, 0, script_data, d->req.len);
}

static void reply_wrong_op(struct script *d)
{
	script_put(d, (struct frame_rep){.op = FRAME_LIST, .id = d->req.id}, d->body, d->req.len);
}

static void reply_write_for_read(struct script *d)
{
	script_put(d,
	    (struct frame_rep){.op = FRAME_WRITE, .id = d->req.id, .flags = FRAME_F_ZEROS}, NULL,
	    0);
}

static void reply_short(struct script *d)
{
	script_answer(d, 0, d->body, d->req.len - 1);
}

static void reply_long(struct script *d)
{
	memset(d->body, 0xee, d->req.len + 1);
	script_answer(d, 0, d->body, d->req.len + 1);
}

static void reply_empty(struct script *d)
{
	script_answer(d, 0, NULL, 0);
}

static void reply_zeros_with_data(struct script *d)
{
	script_answer(d, FRAME_F_ZEROS, d->body, d->req.len);
}

static void reply_magic(struct script *d)
{
	send(d->fd, script_data, 64, MSG_NOSIGNAL);
}

static void reply_huge(struct script *d)
{
	script_put(d,
	    (struct frame_rep){.op = FRAME_READ, .id = d->req.id, .payload = (1 << 20) + 1}, NULL,
	    0);
}

static void reply_half(struct script *d)
{
	script_put(d,
	    (struct frame_rep){.op = FRAME_READ, .id = d->req.id, .payload = (uint32_t)d->req.len},
	    NULL, 0);
	send(d->fd, d->body, d->req.len / 2, MSG_NOSIGNAL);
	shutdown(d->fd, SHUT_WR);
}

static void reply_second_welcome(struct script *d)
{
	d->req.op = FRAME_HELLO;
	d->req.id = 1ull << 63;
	script_put_welcome(d, 0);
}

static void (*const bad_replies[])(struct script *donor) = {reply_wrong_id, reply_wrong_op,
    reply_write_for_read, reply_short, reply_long, reply_empty, reply_zeros_with_data, reply_magic,
    reply_huge, reply_half, reply_second_welcome};

static void (*bad_reply)(struct script *donor);

static void script_bad_read(struct script *d)
{
	if (!script_meet(d, 0) || !script_expect_op(d, FRAME_CREATE))
		return;
	script_answer_attr(d, 7);
	if (!script_expect_op(d, FRAME_READ))
		return;
	bad_reply(d);
	ck_assert(!script_next(d)); /* the client ends it */
	if (script_meet(d, FRAME_F_RESUMED))
		script_serve(d);
}

START_TEST(malformed_replies)
{
	static uint8_t buf[SCRIPT_LEN + 1];
	struct handle *handle;

	bad_reply = bad_replies[_i];
	script_begin(script_bad_read);
	ck_assert_int_eq(script_open_client(0, NULL), 0);
	handle = client_create(&script_client, "r");
	memset(buf, 0xee, sizeof(buf));
	ck_assert_int_eq(rig_read(script_rig.loops[0], &handle->store, 0, buf, SCRIPT_LEN), 0);
	ck_assert_mem_eq(buf, script_data, SCRIPT_LEN);
	ck_assert_uint_eq(buf[SCRIPT_LEN], 0xee);
	ck_assert_uint_eq(script_donor.connections, 2);
	client_close_handle(&script_client, handle);
	script_end();
}
END_TEST

/* Control replies: what is sent to the first LIST, GETXATTR, STATFS, EXTENTS. */
static void script_bad_control(struct script *d)
{
	uint8_t seen[64] = {0};

	for (uint8_t flags = 0; script_meet(d, flags); flags = FRAME_F_RESUMED) {
		while (script_next(d)) {
			bool first = d->req.op < sizeof(seen) && !seen[d->req.op]++;

			if (d->req.op == FRAME_CREATE) {
				script_answer_attr(d, 7);
			} else if (!first) {
				memset(d->body, 0, 40);
				if (d->req.op == FRAME_EXTENTS)
					frame_extents_put(d->body, &(struct extent){0, 4096, 0}, 1);
				script_answer(d, 0, d->body,
				    d->req.op == FRAME_STATFS     ? 32
				    : d->req.op == FRAME_LIST     ? 8
				    : d->req.op == FRAME_EXTENTS  ? FRAME_EXTENT_LEN
				    : d->req.op == FRAME_GETXATTR ? 4
								  : 0);
			} else {
				/* A list whose name is "..", a value longer than its length, and so on. */
				memset(d->body, 0xff, 200);
				script_answer(d, 0, d->body, 8 + FRAME_DIRENT_LEN + 2);
			}
		}
	}
}

START_TEST(malformed_control_replies)
{
	static uint8_t buf[POOL_LIST_MAX];
	struct pool_req req = {.op = POOL_LIST, .data = buf, .len = sizeof(buf)};
	struct extent extents[4];
	struct handle *handle;
	unsigned count;

	script_begin(script_bad_control);
	ck_assert_int_eq(script_open_client(0, NULL), 0);
	handle = client_create(&script_client, "r");
	ck_assert_int_eq(client_ask(&script_client, &req), 0);
	ck_assert_uint_eq(req.ret_len, 0);
	req = (struct pool_req){.op = POOL_STATFS};
	ck_assert_int_eq(client_ask(&script_client, &req), 0);
	req = (struct pool_req){
	    .op = POOL_GETXATTR, .id = 7, .name = "user.x", .data = buf, .len = 50};
	ck_assert_int_eq(client_ask(&script_client, &req), 0);
	ck_assert_uint_eq(req.ret_len, 0);
	req = (struct pool_req){.op = POOL_REMOVE, .name = "x"};
	ck_assert_int_eq(client_ask(&script_client, &req), 0);
	ck_assert_int_eq(
	    rig_extents(script_rig.loops[0], &handle->store, 0, SCRIPT_LEN, extents, 4, &count), 0);
	ck_assert_uint_eq(count, 1);
	ck_assert_uint_eq(extents[0].len, 4096);
	client_close_handle(&script_client, handle);
	script_end();
}
END_TEST

/* ---- replies while the greeting is not over ---- */

/* After a reconnect, the beginning of a READ's reply in place of the welcome: its buffer is not the donor's
 * any more, since the request may end at once when it is interrupted. */
static void script_early_reply(struct script *d)
{
	struct frame_req read;

	if (!script_meet(d, 0) || !script_expect_op(d, FRAME_CREATE))
		return;
	script_answer_attr(d, 7);
	if (!script_expect_op(d, FRAME_READ))
		return;
	read = d->req;
	if (!script_take(d))
		return;
	script_put(d,
	    (struct frame_rep){.op = FRAME_READ, .id = read.id, .payload = (uint32_t)read.len},
	    NULL, 0);
	send(d->fd, d->body, read.len / 2, MSG_NOSIGNAL);
	usleep(300000);
	send(d->fd, d->body, read.len / 2, MSG_NOSIGNAL);
	script_next(d);
	script_wait_for(1);
	while (script_meet(d, FRAME_F_RESUMED))
		script_serve(d);
}

START_TEST(data_before_the_welcome)
{
	struct rig_req read = {.req = {.op = STORE_READ, .len = SCRIPT_LEN}};
	struct rig_wait *wait;
	struct handle *handle;
	uint8_t *buf = malloc(SCRIPT_LEN);

	script_begin(script_early_reply);
	memset(script_donor.body, 0xdd, sizeof(script_donor.body));
	ck_assert_int_eq(script_open_client(0, NULL), 0);
	handle = client_create(&script_client, "r");
	memset(buf, 0x11, SCRIPT_LEN);
	read.req.buf = buf;
	wait = rig_begin(script_rig.loops[0], &handle->store, &read, 1);
	client_wait(&script_client, PEER_WAITING);
	while (script_donor.connections < 2)
		usleep(1000);
	usleep(100000);
	client_interrupt_data(&script_client, &read);
	rig_end(wait);
	script_reach(1);
	ck_assert_int_eq(read.err, -EINTR);
	for (unsigned i = 0; i < SCRIPT_LEN; i++)
		ck_assert_uint_eq(buf[i], 0x11);
	free(buf); /* a sanitizer sees whoever still writes to it */
	usleep(400000);
	client_close_handle(&script_client, handle);
	script_end();
}
END_TEST

/* ---- the donor is silent ---- */

/* A request without an answer, a donor without a sign of life: after 5 s another connection is made. */
static void script_hangs(struct script *d)
{
	if (!script_meet(d, 0) || !script_expect_op(d, FRAME_CREATE))
		return;
	script_answer_attr(d, 7);
	usleep(7000000); /* reads nothing, says nothing */
	if (script_meet(d, FRAME_F_RESUMED))
		script_serve(d);
}

START_TEST(silence)
{
	struct handle *handle;
	uint8_t byte;

	script_begin(script_hangs);
	ck_assert_int_eq(script_open_client(0, NULL), 0);
	handle = client_create(&script_client, "r");
	ck_assert_int_eq(rig_read(script_rig.loops[0], &handle->store, 0, &byte, 1), 0);
	ck_assert_uint_eq(byte, script_data[0]);
	ck_assert_uint_eq(script_donor.connections, 2);
	client_close_handle(&script_client, handle);
	script_end();
}
END_TEST

/* Unasked replies to PING keep the connection, however long the donor reads nothing: also while a PING
 * of the client is stuck behind its data. */
static void script_busy(struct script *d)
{
	uint8_t header[FRAME_REP_LEN];

	if (!script_meet(d, 0) || !script_expect_op(d, FRAME_CREATE))
		return;
	script_answer_attr(d, 7);
	frame_rep_put(header, &(struct frame_rep){.op = FRAME_PING, .id = FRAME_ID_PING});
	for (unsigned i = 0; i < 8; i++) {
		usleep(i % 2 ? 1700000 : 600000);
		send(d->fd, header, sizeof(header), MSG_NOSIGNAL);
	}
	script_serve(d);
}

START_TEST(signs_of_life)
{
	enum { WRITES = 40 };
	static struct rig_req writes[WRITES];
	static uint8_t buf[1 << 20];
	struct peer_status status;
	struct handle *handle;

	script_begin(script_busy);
	ck_assert_int_eq(script_open_client(0, NULL), 0);
	handle = client_create(&script_client, "r");
	memset(buf, 1, sizeof(buf));
	for (unsigned i = 0; i < WRITES; i++)
		writes[i].req =
		    (struct store_req){.op = STORE_WRITE, .len = sizeof(buf), .buf = buf};
	rig_submit(script_rig.loops[0], &handle->store, writes, WRITES);
	for (unsigned i = 0; i < WRITES; i++)
		ck_assert_int_eq(writes[i].err, 0);
	client_status(&script_client, &status);
	ck_assert_uint_eq(status.reconnects, 0);
	ck_assert_uint_lt(status.rtt_ns, 10000000000ull);
	ck_assert_uint_eq(script_donor.connections, 1);
	client_close_handle(&script_client, handle);
	script_end();
}
END_TEST

/* ---- handles ---- */

/* A donor that has forgotten the session: re-opens come first, and nothing else before they are answered.  One
 * that is cut off before that, and then resumes the session, gets them again. */
static void script_reopens(struct script *d)
{
	struct pollfd pfd = {.events = POLLIN};

	if (!script_meet(d, 0))
		return;
	for (unsigned i = 1; i <= 3; i++) {
		if (!script_expect_op(d, FRAME_CREATE))
			return;
		ck_assert_uint_eq(d->req.handle, i);
		script_answer_attr(d, 10 + i);
	}
	if (!script_expect_op(d, FRAME_READ) || !script_meet(d, 0))
		return;
	for (unsigned i = 1; i <= 3; i++) {
		if (!script_expect_op(d, FRAME_OPEN))
			return;
		ck_assert_uint_eq(d->req.handle, i);
		ck_assert_uint_eq(d->req.off, 10 + i);
		if (i == 2)
			script_answer_attr(d, 12); /* the only one that gets its answer */
	}
	pfd.fd = d->fd;
	ck_assert_int_eq(poll(&pfd, 1, 100), 0);
	if (!script_meet(d, FRAME_F_RESUMED))
		return;
	for (unsigned i = 1; i <= 3; i += 2) {
		if (!script_expect_op(d, FRAME_OPEN))
			return;
		ck_assert_uint_eq(d->req.handle, i);
		script_answer_attr(d, 10 + i);
	}
	script_serve(d);
}

START_TEST(reopens_that_were_lost)
{
	struct handle *handles[3];
	uint8_t byte = 0;

	script_begin(script_reopens);
	ck_assert_int_eq(script_open_client(0, NULL), 0);
	for (unsigned i = 0; i < 3; i++)
		handles[i] = client_create(&script_client, i == 0 ? "a" : i == 1 ? "b" : "c");
	ck_assert_int_eq(rig_read(script_rig.loops[0], &handles[0]->store, 5, &byte, 1), 0);
	ck_assert_uint_eq(byte, script_data[5]);
	ck_assert_uint_eq(script_donor.connections, 3);
	for (unsigned i = 0; i < 3; i++)
		client_close_handle(&script_client, handles[i]);
	script_end();
}
END_TEST

/* An OPEN that was interrupted while the donor was away: the donor may have done it, so its number is closed
 * there.  The answer to that close is nobody's, also when the number has been given to a new handle. */
static void script_orphan(struct script *d)
{
	struct frame_req orphan[2];

	for (unsigned round = 0; round < 2; round++) {
		if (round == 0 && !script_meet(d, 0))
			return;
		if (!script_expect_op(d, FRAME_CREATE))
			return;
		/* The connection ends without an answer. */
		close(d->fd);
		d->fd = -1;
		script_wait_for(10 * round + 1);
		if (!script_meet(d, FRAME_F_RESUMED) || !script_expect_op(d, FRAME_CLOSE))
			return;
		ck_assert_uint_eq(d->req.handle, 1);
		orphan[round] = d->req;
		if (!script_expect_op(d, FRAME_CREATE)) /* sent before the CLOSE is answered */
			return;
		ck_assert_uint_eq(d->req.handle, 1);
		script_put(d,
		    (struct frame_rep){
			.op = FRAME_CLOSE, .id = orphan[round].id, .status = frame_status(-EBADF)},
		    NULL, 0);
		script_answer_attr(d, 7);
		if (!script_expect_op(d, FRAME_READ))
			return;
		script_answer(d, 0, script_data, d->req.len);
		if (!script_expect_op(d, FRAME_CLOSE))
			return;
		script_answer(d, 0, NULL, 0);
	}
	/* Two requests, two ids: else the donor takes the second for the first, sent again. */
	ck_assert_uint_ne(orphan[0].id, orphan[1].id);
	script_reach(100);
	script_serve(d);
}

START_TEST(opens_that_were_given_up)
{
	struct handle *handle;
	uint8_t byte = 0;

	script_begin(script_orphan);
	ck_assert_int_eq(script_open_client(0, NULL), 0);
	for (unsigned round = 0; round < 2; round++) {
		struct client_req create = {
		    .req = {.op = POOL_CREATE, .name = "r", .flags = POOL_READ | POOL_WRITE}};
		struct client_wait *wait = client_begin(&script_client, &create, 1);

		client_wait(&script_client, PEER_WAITING);
		client_interrupt(&script_client, &create);
		client_end(wait);
		ck_assert_int_eq(create.err, -EINTR);
		script_reach(10 * round + 1);
		client_wait(&script_client, PEER_CONNECTED);
		handle = client_create(&script_client, "r");
		ck_assert_uint_eq(handle->number, 1);
		ck_assert_int_eq(rig_read(script_rig.loops[0], &handle->store, 0, &byte, 1), 0);
		client_close_handle(&script_client, handle);
	}
	script_wait_for(100);
	script_end();
}
END_TEST

/* ---- a donor that is there and serves nobody ---- */

enum { ATTEMPTS = 6 };

static _Atomic uint64_t attempts_ms; /* how long they took */

static void script_turns_away(struct script *d)
{
	uint64_t begin_ns;

	if (!script_meet(d, 0))
		return;
	begin_ns = loop_now_ns();
	close(d->fd);
	d->fd = -1;
	rig_turn_away(d->listen, ATTEMPTS);
	attempts_ms = (loop_now_ns() - begin_ns) / 1000000;
	if (script_meet(d, FRAME_F_RESUMED))
		script_serve(d);
}

/* One that greets, and ends the connection then. */
static void script_only_greets(struct script *d)
{
	uint64_t begin_ns = 0;

	for (unsigned i = 0; i <= ATTEMPTS; i++) {
		if (!script_meet(d, i ? FRAME_F_RESUMED : 0))
			return;
		if (i == 0)
			begin_ns = loop_now_ns();
		close(d->fd);
		d->fd = -1;
	}
	attempts_ms = (loop_now_ns() - begin_ns) / 1000000;
	if (script_meet(d, FRAME_F_RESUMED))
		script_serve(d);
}

static void (*const backoff_scripts[])(struct script *donor) = {
    script_turns_away, script_only_greets};

START_TEST(attempts_come_more_and_more_slowly)
{
	struct peer_status status;
	struct handle *handle;
	uint8_t byte = 0;

	script_begin(backoff_scripts[_i]);
	ck_assert_int_eq(script_open_client(0, NULL), 0);
	handle = client_create(&script_client, "r");
	ck_assert_uint_ge(attempts_ms, rig_backoff_ms(ATTEMPTS));
	ck_assert_int_eq(rig_read(script_rig.loops[0], &handle->store, 5, &byte, 1), 0);
	ck_assert_uint_eq(byte, script_data[5]);
	client_status(&script_client, &status);
	ck_assert_uint_eq(status.reconnects, _i ? 1 + ATTEMPTS : 1);
	client_close_handle(&script_client, handle);
	script_end();
}
END_TEST

/* The same for a second connection, while the first one is there. */
static void script_turns_others_away(struct script *d)
{
	uint64_t begin_ns;

	if (!script_take(d))
		return;
	begin_ns = loop_now_ns();
	script_put_welcome(d, 0);
	rig_turn_away(d->listen, 1 + ATTEMPTS); /* it begins at once */
	attempts_ms = (loop_now_ns() - begin_ns) / 1000000;
	script_serve(d);
}

/* It is greeted, and ended then. */
static void script_only_greets_others(struct script *d)
{
	uint64_t begin_ns = 0;
	int first;

	if (!script_take(d))
		return;
	script_put_welcome(d, 0);
	first = d->fd;
	d->fd = -1;
	d->epoch = 0; /* each connection counts its own */
	for (unsigned i = 0; i <= ATTEMPTS; i++) {
		if (!script_meet(d, i ? FRAME_F_RESUMED : 0))
			break;
		if (i == 0)
			begin_ns = loop_now_ns();
		close(d->fd);
		d->fd = -1;
	}
	attempts_ms = (loop_now_ns() - begin_ns) / 1000000;
	d->fd = first;
	script_serve(d);
}

static void (*const other_scripts[])(struct script *donor) = {
    script_turns_others_away, script_only_greets_others};

START_TEST(attempts_of_a_second_connection_too)
{
	struct client_conf conf = {.pool = "ram", .conns = 2};

	script_begin(other_scripts[_i]);
	conf.port = script_donor.port;
	ck_assert_int_eq(client_open(&script_client, script_rig.loops[0], &conf, NULL), 0);
	client_close_handle(&script_client, client_create(&script_client, "r"));
	ck_assert_uint_ge(attempts_ms, rig_backoff_ms(ATTEMPTS));
	script_end();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("peer_donor");
	TCase *tc = tcase_create("donor");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, refused, 0, sizeof(refusals) / sizeof(refusals[0]));
	tcase_add_test(tc, nobody_listens);
	tcase_add_loop_test(tc, malformed_replies, 0, sizeof(bad_replies) / sizeof(bad_replies[0]));
	tcase_add_test(tc, malformed_control_replies);
	tcase_add_test(tc, data_before_the_welcome);
	tcase_add_test(tc, silence);
	tcase_add_test(tc, signs_of_life);
	tcase_add_test(tc, reopens_that_were_lost);
	tcase_add_test(tc, opens_that_were_given_up);
	tcase_add_loop_test(tc, attempts_come_more_and_more_slowly, 0, 2);
	tcase_add_loop_test(tc, attempts_of_a_second_connection_too, 0, 2);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
