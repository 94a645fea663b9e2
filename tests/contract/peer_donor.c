/* SPDX-License-Identifier: Apache-2.0
 *
 * The client against donors that do not behave.  Whatever they send, no request ends with anything but
 * its own answer: a connection that is malformed is dropped, and what was in flight is asked again over
 * the next one.
 *
 * The donor is a script on a thread of its own: it takes connections one after the other and plays them.
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

#include "core/frame.h"
#include "core/log.h"
#include "tests/lib/serve.h"

enum { LEN = 64 * 1024, BODY = 1 << 20 };

/* ---- the donor ---- */

struct donor {
	int listen, fd;
	uint16_t port;
	_Atomic unsigned connections;
	pthread_t thread;
	void (*script)(struct donor *donor);
	struct frame_req req; /* the last request, and its payload */
	uint8_t body[BODY];
	uint64_t epoch;
	uint8_t uuid; /* of the pool */
};

static struct donor donor;
static struct rig rig;
static struct client client;
static uint8_t data[LEN];

static bool get_bytes(struct donor *d, void *buf, size_t len)
{
	return recv(d->fd, buf, len, MSG_WAITALL) == (ssize_t)len;
}

/* The next request but PINGs, which are answered; false: the client has ended the connection. */
static bool next(struct donor *d)
{
	uint8_t header[FRAME_REQ_LEN];
	const char *why;

	for (;;) {
		if (!get_bytes(d, header, sizeof(header)))
			return false;
		ck_assert_msg(frame_req_get(header, &d->req, &why) == 0, "client: %s", why);
		if (d->req.payload && !get_bytes(d, d->body, d->req.payload))
			return false;
		if (d->req.op != FRAME_PING)
			return true;
		frame_rep_put(header, &(struct frame_rep){.op = FRAME_PING, .id = d->req.id});
		send(d->fd, header, FRAME_REP_LEN, MSG_NOSIGNAL);
	}
}

static void put(struct donor *d, struct frame_rep rep, const void *payload, size_t len)
{
	uint8_t header[FRAME_REP_LEN];

	if (len)
		rep.payload = (uint32_t)len;
	frame_rep_put(header, &rep);
	send(d->fd, header, sizeof(header), MSG_NOSIGNAL);
	for (size_t done = 0; done < len;) {
		ssize_t n = send(d->fd, (const uint8_t *)payload + done, len - done, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		done += (size_t)n;
	}
}

/* Answers the last request with success. */
static void answer(struct donor *d, uint8_t flags, const void *payload, size_t len)
{
	put(d, (struct frame_rep){.op = d->req.op, .id = d->req.id, .flags = flags}, payload, len);
}

static void answer_attr(struct donor *d, uint64_t id)
{
	struct region_attr attr = {.id = id, .size = 1 << 20, .mode = 0600, .nlink = 1};
	uint8_t buf[FRAME_ATTR_LEN];

	answer(d, 0, buf, frame_attr_put(buf, &attr));
}

/* Accepts the next connection and reads its HELLO; false: the test is over. */
static bool take(struct donor *d)
{
	struct pollfd pfd = {.fd = d->listen, .events = POLLIN};
	struct timeval limit = {.tv_sec = 30};
	struct frame_hello hello;

	if (d->fd >= 0)
		close(d->fd);
	d->fd = -1;
	if (poll(&pfd, 1, 30000) <= 0 || !(pfd.revents & POLLIN))
		return false;
	d->fd = accept(d->listen, NULL, NULL);
	if (d->fd < 0)
		return false;
	d->connections++;
	setsockopt(d->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (!next(d))
		return false;
	ck_assert_uint_eq(d->req.op, FRAME_HELLO);
	ck_assert_int_eq(frame_hello_get(d->body, d->req.payload, &hello), 0);
	ck_assert_uint_gt(hello.epoch, d->epoch);
	ck_assert_str_eq(hello.pool, "ram");
	d->epoch = hello.epoch;
	return true;
}

static void put_welcome(struct donor *d, uint8_t flags)
{
	struct frame_welcome welcome = {.version = 1, .size_max = 1 << 20, .in_flight_max = 1024};
	uint8_t buf[FRAME_WELCOME_LEN];

	memset(welcome.pool_uuid, d->uuid, 16);
	answer(d, flags, buf, frame_welcome_put(buf, &welcome));
}

/* The next connection, greeted. */
static bool meet(struct donor *d, uint8_t flags)
{
	if (!take(d))
		return false;
	put_welcome(d, flags);
	return true;
}

static bool expect_op(struct donor *d, uint8_t op)
{
	if (!next(d))
		return false;
	ck_assert_msg(d->req.op == op, "%s, not %s", frame_op_name(d->req.op), frame_op_name(op));
	return true;
}

/* Serves well until the connection ends. */
static void serve(struct donor *d)
{
	while (next(d)) {
		switch (d->req.op) {
		case FRAME_CREATE:
		case FRAME_OPEN:
		case FRAME_LOOKUP:
		case FRAME_GETATTR:
			answer_attr(d, 7);
			break;
		case FRAME_READ:
			answer(d, 0, data + d->req.off % LEN, d->req.len);
			break;
		case FRAME_EXTENTS:
			frame_extents_put(d->body, &(struct extent){d->req.off, d->req.len, 0}, 1);
			answer(d, 0, d->body, FRAME_EXTENT_LEN);
			break;
		case FRAME_STATFS:
			memset(d->body, 0, 32);
			answer(d, 0, d->body, 32);
			break;
		case FRAME_LIST:
			memset(d->body, 0, 8);
			answer(d, 0, d->body, 8);
			break;
		default:
			answer(d, 0, NULL, 0);
		}
	}
}

static void *play(void *arg)
{
	struct donor *d = arg;

	d->script(d);
	if (d->fd >= 0)
		close(d->fd);
	return NULL;
}

/* The test and the script wait for each other. */
static _Atomic unsigned step;

static void reach(unsigned n)
{
	step = n;
}

static void wait_for(unsigned n)
{
	for (unsigned ms = 0; step < n && ms < 20000; ms++)
		usleep(1000);
	ck_assert_uint_ge(step, n);
}

/* ---- the rig ---- */

static void begin(void (*script)(struct donor *donor))
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sa);

	log_set_level(LOG_LEVEL_ERROR);
	for (unsigned i = 0; i < LEN; i++)
		data[i] = (uint8_t)(i * 31 + (i >> 8) + 1);
	memset(&donor, 0, sizeof(donor));
	donor.fd = -1;
	donor.uuid = 1;
	donor.script = script;
	donor.listen = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(donor.listen, (struct sockaddr *)&sa, sizeof(sa)), 0);
	ck_assert_int_eq(listen(donor.listen, 16), 0);
	getsockname(donor.listen, (struct sockaddr *)&sa, &len);
	donor.port = ntohs(sa.sin_port);
	rig_start(&rig, 1, 1);
	pthread_create(&donor.thread, NULL, play, &donor);
}

static int open_client(struct err *err)
{
	struct client_conf conf = {.port = donor.port, .pool = "ram"};

	return client_open(&client, rig.loops[0], &conf, err);
}

static void end(void)
{
	client_close(&client);
	shutdown(donor.listen, SHUT_RDWR);
	pthread_join(donor.thread, NULL);
	close(donor.listen);
	rig_stop(&rig);
}

/* ---- refusals of the first connection ---- */

static void script_silence(struct donor *d)
{
	take(d);
}

static void script_noise(struct donor *d)
{
	take(d);
	send(d->fd, "HTTP/1.1 400 Bad Request\r\n\r\n", 28, MSG_NOSIGNAL);
	next(d);
}

static void script_refusal(struct donor *d)
{
	take(d);
	put(d, (struct frame_rep){.op = FRAME_HELLO, .id = d->req.id, .status = 2}, "no, not here",
	    12);
	next(d);
}

static void script_later_version(struct donor *d)
{
	uint8_t buf[FRAME_WELCOME_LEN];
	struct frame_welcome welcome = {.version = 2, .size_max = 1 << 20, .in_flight_max = 1024};

	take(d);
	answer(d, 0, buf, frame_welcome_put(buf, &welcome));
	next(d);
}

static void script_short_welcome(struct donor *d)
{
	take(d);
	answer(d, 0, data, FRAME_WELCOME_LEN - 1);
	next(d);
}

static void script_other_reply(struct donor *d)
{
	take(d);
	put(d, (struct frame_rep){.op = FRAME_READ, .id = 1024, .payload = 100}, data, 100);
	next(d);
}

static const struct {
	void (*script)(struct donor *donor);
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

	begin(refusals[_i].script);
	ck_assert_int_eq(open_client(&err), refusals[_i].err);
	ck_assert_msg(strstr(err.text, refusals[_i].text) != NULL, "\"%s\"", err.text);
	end();
}
END_TEST

START_TEST(nobody_listens)
{
	struct err err = {0};

	begin(script_silence);
	shutdown(donor.listen, SHUT_RDWR);
	ck_assert_int_eq(open_client(&err), -ECONNREFUSED);
	ck_assert_ptr_nonnull(
	    strstr(err.text, "connection refused: is remramd running there, on that port?"));
	end();
}
END_TEST

/* ---- malformed replies ---- */

/* What the donor sends in place of the reply to the last request. */
static void reply_wrong_id(struct donor *d)
{
	d->req.id ^= 1u << 20;
	answer(d, 0, data, d->req.len);
}

static void reply_wrong_op(struct donor *d)
{
	put(d, (struct frame_rep){.op = FRAME_LIST, .id = d->req.id}, d->body, d->req.len);
}

static void reply_write_for_read(struct donor *d)
{
	put(d, (struct frame_rep){.op = FRAME_WRITE, .id = d->req.id, .flags = FRAME_F_ZEROS}, NULL,
	    0);
}

static void reply_short(struct donor *d)
{
	answer(d, 0, d->body, d->req.len - 1);
}

static void reply_long(struct donor *d)
{
	memset(d->body, 0xee, d->req.len + 1);
	answer(d, 0, d->body, d->req.len + 1);
}

static void reply_empty(struct donor *d)
{
	answer(d, 0, NULL, 0);
}

static void reply_zeros_with_data(struct donor *d)
{
	answer(d, FRAME_F_ZEROS, d->body, d->req.len);
}

static void reply_magic(struct donor *d)
{
	send(d->fd, data, 64, MSG_NOSIGNAL);
}

static void reply_huge(struct donor *d)
{
	put(d, (struct frame_rep){.op = FRAME_READ, .id = d->req.id, .payload = (1 << 20) + 1},
	    NULL, 0);
}

static void reply_half(struct donor *d)
{
	put(d,
	    (struct frame_rep){.op = FRAME_READ, .id = d->req.id, .payload = (uint32_t)d->req.len},
	    NULL, 0);
	send(d->fd, d->body, d->req.len / 2, MSG_NOSIGNAL);
	shutdown(d->fd, SHUT_WR);
}

static void reply_second_welcome(struct donor *d)
{
	d->req.op = FRAME_HELLO;
	d->req.id = 1ull << 63;
	put_welcome(d, 0);
}

static void (*const bad_replies[])(struct donor *donor) = {reply_wrong_id, reply_wrong_op,
    reply_write_for_read, reply_short, reply_long, reply_empty, reply_zeros_with_data, reply_magic,
    reply_huge, reply_half, reply_second_welcome};

static void (*bad_reply)(struct donor *donor);

static void script_bad_read(struct donor *d)
{
	if (!meet(d, 0) || !expect_op(d, FRAME_CREATE))
		return;
	answer_attr(d, 7);
	if (!expect_op(d, FRAME_READ))
		return;
	bad_reply(d);
	ck_assert(!next(d)); /* the client ends it */
	if (meet(d, FRAME_F_RESUMED))
		serve(d);
}

START_TEST(malformed_replies)
{
	static uint8_t buf[LEN + 1];
	struct handle *handle;

	bad_reply = bad_replies[_i];
	begin(script_bad_read);
	ck_assert_int_eq(open_client(NULL), 0);
	handle = client_create(&client, "r");
	memset(buf, 0xee, sizeof(buf));
	ck_assert_int_eq(rig_read(rig.loops[0], &handle->store, 0, buf, LEN), 0);
	ck_assert_mem_eq(buf, data, LEN);
	ck_assert_uint_eq(buf[LEN], 0xee);
	ck_assert_uint_eq(donor.connections, 2);
	client_close_handle(&client, handle);
	end();
}
END_TEST

/* Control replies: what is sent to the first LIST, GETXATTR, STATFS, EXTENTS. */
static void script_bad_control(struct donor *d)
{
	uint8_t seen[64] = {0};

	for (uint8_t flags = 0; meet(d, flags); flags = FRAME_F_RESUMED) {
		while (next(d)) {
			bool first = d->req.op < sizeof(seen) && !seen[d->req.op]++;

			if (d->req.op == FRAME_CREATE) {
				answer_attr(d, 7);
			} else if (!first) {
				memset(d->body, 0, 40);
				if (d->req.op == FRAME_EXTENTS)
					frame_extents_put(d->body, &(struct extent){0, 4096, 0}, 1);
				answer(d, 0, d->body,
				    d->req.op == FRAME_STATFS     ? 32
				    : d->req.op == FRAME_LIST     ? 8
				    : d->req.op == FRAME_EXTENTS  ? FRAME_EXTENT_LEN
				    : d->req.op == FRAME_GETXATTR ? 4
								  : 0);
			} else {
				/* A list whose name is "..", a value longer than its length, and so on. */
				memset(d->body, 0xff, 200);
				answer(d, 0, d->body, 8 + FRAME_DIRENT_LEN + 2);
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

	begin(script_bad_control);
	ck_assert_int_eq(open_client(NULL), 0);
	handle = client_create(&client, "r");
	ck_assert_int_eq(client_ask(&client, &req), 0);
	ck_assert_uint_eq(req.ret_len, 0);
	req = (struct pool_req){.op = POOL_STATFS};
	ck_assert_int_eq(client_ask(&client, &req), 0);
	req = (struct pool_req){
	    .op = POOL_GETXATTR, .id = 7, .name = "user.x", .data = buf, .len = 50};
	ck_assert_int_eq(client_ask(&client, &req), 0);
	ck_assert_uint_eq(req.ret_len, 0);
	req = (struct pool_req){.op = POOL_REMOVE, .name = "x"};
	ck_assert_int_eq(client_ask(&client, &req), 0);
	ck_assert_int_eq(rig_extents(rig.loops[0], &handle->store, 0, LEN, extents, 4, &count), 0);
	ck_assert_uint_eq(count, 1);
	ck_assert_uint_eq(extents[0].len, 4096);
	client_close_handle(&client, handle);
	end();
}
END_TEST

/* ---- replies while the greeting is not over ---- */

/* After a reconnect, the beginning of a READ's reply in place of the welcome: its buffer is not the donor's
 * any more, since the request may end at once when it is interrupted. */
static void script_early_reply(struct donor *d)
{
	struct frame_req read;

	if (!meet(d, 0) || !expect_op(d, FRAME_CREATE))
		return;
	answer_attr(d, 7);
	if (!expect_op(d, FRAME_READ))
		return;
	read = d->req;
	if (!take(d))
		return;
	put(d, (struct frame_rep){.op = FRAME_READ, .id = read.id, .payload = (uint32_t)read.len},
	    NULL, 0);
	send(d->fd, d->body, read.len / 2, MSG_NOSIGNAL);
	usleep(300000);
	send(d->fd, d->body, read.len / 2, MSG_NOSIGNAL);
	next(d);
	wait_for(1);
	while (meet(d, FRAME_F_RESUMED))
		serve(d);
}

START_TEST(data_before_the_welcome)
{
	struct rig_req read = {.req = {.op = STORE_READ, .len = LEN}};
	struct rig_wait *wait;
	struct handle *handle;
	uint8_t *buf = malloc(LEN);

	begin(script_early_reply);
	memset(donor.body, 0xdd, sizeof(donor.body));
	ck_assert_int_eq(open_client(NULL), 0);
	handle = client_create(&client, "r");
	memset(buf, 0x11, LEN);
	read.req.buf = buf;
	wait = rig_begin(rig.loops[0], &handle->store, &read, 1);
	client_wait(&client, PEER_WAITING);
	while (donor.connections < 2)
		usleep(1000);
	usleep(100000);
	client_interrupt_data(&client, &read);
	rig_end(wait);
	reach(1);
	ck_assert_int_eq(read.err, -EINTR);
	for (unsigned i = 0; i < LEN; i++)
		ck_assert_uint_eq(buf[i], 0x11);
	free(buf); /* a sanitizer sees whoever still writes to it */
	usleep(400000);
	client_close_handle(&client, handle);
	end();
}
END_TEST

/* ---- the donor is silent ---- */

/* A request without an answer, a donor without a sign of life: after 5 s another connection is made. */
static void script_hangs(struct donor *d)
{
	if (!meet(d, 0) || !expect_op(d, FRAME_CREATE))
		return;
	answer_attr(d, 7);
	usleep(7000000); /* reads nothing, says nothing */
	if (meet(d, FRAME_F_RESUMED))
		serve(d);
}

START_TEST(silence)
{
	struct handle *handle;
	uint8_t byte;

	begin(script_hangs);
	ck_assert_int_eq(open_client(NULL), 0);
	handle = client_create(&client, "r");
	ck_assert_int_eq(rig_read(rig.loops[0], &handle->store, 0, &byte, 1), 0);
	ck_assert_uint_eq(byte, data[0]);
	ck_assert_uint_eq(donor.connections, 2);
	client_close_handle(&client, handle);
	end();
}
END_TEST

/* Unasked replies to PING keep the connection, however long the donor reads nothing: also while a PING
 * of the client is stuck behind its data. */
static void script_busy(struct donor *d)
{
	uint8_t header[FRAME_REP_LEN];

	if (!meet(d, 0) || !expect_op(d, FRAME_CREATE))
		return;
	answer_attr(d, 7);
	frame_rep_put(header, &(struct frame_rep){.op = FRAME_PING, .id = FRAME_ID_PING});
	for (unsigned i = 0; i < 8; i++) {
		usleep(i % 2 ? 1700000 : 600000);
		send(d->fd, header, sizeof(header), MSG_NOSIGNAL);
	}
	serve(d);
}

START_TEST(signs_of_life)
{
	enum { WRITES = 40 };
	static struct rig_req writes[WRITES];
	static uint8_t buf[1 << 20];
	struct peer_status status;
	struct handle *handle;

	begin(script_busy);
	ck_assert_int_eq(open_client(NULL), 0);
	handle = client_create(&client, "r");
	memset(buf, 1, sizeof(buf));
	for (unsigned i = 0; i < WRITES; i++)
		writes[i].req =
		    (struct store_req){.op = STORE_WRITE, .len = sizeof(buf), .buf = buf};
	rig_submit(rig.loops[0], &handle->store, writes, WRITES);
	for (unsigned i = 0; i < WRITES; i++)
		ck_assert_int_eq(writes[i].err, 0);
	client_status(&client, &status);
	ck_assert_uint_eq(status.reconnects, 0);
	ck_assert_uint_lt(status.rtt_ns, 10000000000ull);
	ck_assert_uint_eq(donor.connections, 1);
	client_close_handle(&client, handle);
	end();
}
END_TEST

/* ---- handles ---- */

/* A donor that has forgotten the session: re-opens come first, and nothing else before they are answered.  One
 * that is cut off before that, and then resumes the session, gets them again. */
static void script_reopens(struct donor *d)
{
	struct pollfd pfd = {.events = POLLIN};

	if (!meet(d, 0))
		return;
	for (unsigned i = 1; i <= 3; i++) {
		if (!expect_op(d, FRAME_CREATE))
			return;
		ck_assert_uint_eq(d->req.handle, i);
		answer_attr(d, 10 + i);
	}
	if (!expect_op(d, FRAME_READ) || !meet(d, 0))
		return;
	for (unsigned i = 1; i <= 3; i++) {
		if (!expect_op(d, FRAME_OPEN))
			return;
		ck_assert_uint_eq(d->req.handle, i);
		ck_assert_uint_eq(d->req.off, 10 + i);
		if (i == 2)
			answer_attr(d, 12); /* the only one that gets its answer */
	}
	pfd.fd = d->fd;
	ck_assert_int_eq(poll(&pfd, 1, 100), 0);
	if (!meet(d, FRAME_F_RESUMED))
		return;
	for (unsigned i = 1; i <= 3; i += 2) {
		if (!expect_op(d, FRAME_OPEN))
			return;
		ck_assert_uint_eq(d->req.handle, i);
		answer_attr(d, 10 + i);
	}
	serve(d);
}

START_TEST(reopens_that_were_lost)
{
	struct handle *handles[3];
	uint8_t byte = 0;

	begin(script_reopens);
	ck_assert_int_eq(open_client(NULL), 0);
	for (unsigned i = 0; i < 3; i++)
		handles[i] = client_create(&client, i == 0 ? "a" : i == 1 ? "b" : "c");
	ck_assert_int_eq(rig_read(rig.loops[0], &handles[0]->store, 5, &byte, 1), 0);
	ck_assert_uint_eq(byte, data[5]);
	ck_assert_uint_eq(donor.connections, 3);
	for (unsigned i = 0; i < 3; i++)
		client_close_handle(&client, handles[i]);
	end();
}
END_TEST

/* An OPEN that was interrupted while the donor was away: the donor may have done it, so its number is closed
 * there.  The answer to that close is nobody's, also when the number has been given to a new handle. */
static void script_orphan(struct donor *d)
{
	struct frame_req orphan[2];

	for (unsigned round = 0; round < 2; round++) {
		if (round == 0 && !meet(d, 0))
			return;
		if (!expect_op(d, FRAME_CREATE))
			return;
		/* The connection ends without an answer. */
		close(d->fd);
		d->fd = -1;
		wait_for(10 * round + 1);
		if (!meet(d, FRAME_F_RESUMED) || !expect_op(d, FRAME_CLOSE))
			return;
		ck_assert_uint_eq(d->req.handle, 1);
		orphan[round] = d->req;
		if (!expect_op(d, FRAME_CREATE)) /* sent before the CLOSE is answered */
			return;
		ck_assert_uint_eq(d->req.handle, 1);
		put(d,
		    (struct frame_rep){
			.op = FRAME_CLOSE, .id = orphan[round].id, .status = frame_status(-EBADF)},
		    NULL, 0);
		answer_attr(d, 7);
		if (!expect_op(d, FRAME_READ))
			return;
		answer(d, 0, data, d->req.len);
		if (!expect_op(d, FRAME_CLOSE))
			return;
		answer(d, 0, NULL, 0);
	}
	/* Two requests, two ids: else the donor takes the second for the first, sent again. */
	ck_assert_uint_ne(orphan[0].id, orphan[1].id);
	reach(100);
	serve(d);
}

START_TEST(opens_that_were_given_up)
{
	struct handle *handle;
	uint8_t byte = 0;

	begin(script_orphan);
	ck_assert_int_eq(open_client(NULL), 0);
	for (unsigned round = 0; round < 2; round++) {
		struct client_req create = {
		    .req = {.op = POOL_CREATE, .name = "r", .flags = POOL_READ | POOL_WRITE}};
		struct client_wait *wait = client_begin(&client, &create, 1);

		client_wait(&client, PEER_WAITING);
		client_interrupt(&client, &create);
		client_end(wait);
		ck_assert_int_eq(create.err, -EINTR);
		reach(10 * round + 1);
		client_wait(&client, PEER_CONNECTED);
		handle = client_create(&client, "r");
		ck_assert_uint_eq(handle->number, 1);
		ck_assert_int_eq(rig_read(rig.loops[0], &handle->store, 0, &byte, 1), 0);
		client_close_handle(&client, handle);
	}
	wait_for(100);
	end();
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
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
