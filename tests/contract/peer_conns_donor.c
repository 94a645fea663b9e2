/* SPDX-License-Identifier: Apache-2.0
 *
 * The client's further connections against donors that do not behave: whatever comes over one of them, a read ends
 * once and with the bytes that the donor has, and nothing is written to a buffer that is not the connection's any
 * more.
 *
 * The donor is a set of threads, one for each connection.  They serve well, but for what a test's `odd` does in the
 * place of an answer; connection 0 is the first that was accepted.
 */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/frame.h"
#include "core/log.h"
#include "tests/lib/serve.h"

enum { LEN = 256 * 1024, SIZE = 4 << 20, READS = 8, LINKS = 64, FIRST = 0 };

struct link {
	struct donor *donor;
	unsigned index;
	int fd;
	pthread_t thread;
	pthread_mutex_t mu; /* one answer at a time */
	struct frame_req req; /* the last request, and its payload */
	uint8_t body[FRAME_CONTROL_MAX];
	_Atomic unsigned opens, reads, notices, closes, byes; /* requests that came */
};

struct donor {
	int listen;
	uint16_t port;
	pthread_t thread;
	_Atomic unsigned count;
	struct link links[LINKS];
	/* Answers the request instead of the donor, or says no; also of a connection's HELLO. */
	bool (*odd)(struct link *link);
};

static struct donor donor;
static struct rig rig;
static struct client client;
static uint8_t data[SIZE];
static _Atomic unsigned odds; /* how often `odd` was at work */
static _Atomic bool go_on; /* the test tells the donor */

static bool get_bytes(struct link *link, void *buf, size_t len)
{
	return len == 0 || recv(link->fd, buf, len, MSG_WAITALL) == (ssize_t)len;
}

static bool next(struct link *link)
{
	uint8_t header[FRAME_REQ_LEN];
	const char *why;

	if (!get_bytes(link, header, sizeof(header)))
		return false;
	ck_assert_msg(frame_req_get(header, &link->req, &why) == 0, "client: %s", why);
	ck_assert_uint_le(link->req.payload, sizeof(link->body));
	return get_bytes(link, link->body, link->req.payload);
}

static void send_all(struct link *link, const void *bytes, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = send(link->fd, (const uint8_t *)bytes + done, len - done, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		done += (size_t)n;
	}
}

static void put(struct link *link, struct frame_rep rep, const void *payload, size_t len)
{
	uint8_t header[FRAME_REP_LEN];

	if (len)
		rep.payload = (uint32_t)len;
	frame_rep_put(header, &rep);
	pthread_mutex_lock(&link->mu);
	send_all(link, header, sizeof(header));
	send_all(link, payload, len);
	pthread_mutex_unlock(&link->mu);
}

static void answer(struct link *link, uint8_t flags, const void *payload, size_t len)
{
	put(link, (struct frame_rep){.op = link->req.op, .id = link->req.id, .flags = flags},
	    payload, len);
}

static void refuse(struct link *link, int err)
{
	put(link,
	    (struct frame_rep){.op = link->req.op, .id = link->req.id, .status = frame_status(err)},
	    NULL, 0);
}

static void welcome(struct link *link, uint8_t flags, uint8_t instance, uint8_t uuid)
{
	struct frame_welcome welcome = {.version = 1, .size_max = SIZE, .in_flight_max = 1024};
	uint8_t buf[FRAME_WELCOME_LEN];

	memset(welcome.instance, instance, 16);
	memset(welcome.pool_uuid, uuid, 16);
	answer(link, flags, buf, frame_welcome_put(buf, &welcome));
}

static void answer_attr(struct link *link)
{
	struct region_attr attr = {.id = 7, .size = SIZE, .mode = 0600, .nlink = 1};
	uint8_t buf[FRAME_ATTR_LEN];

	answer(link, 0, buf, frame_attr_put(buf, &attr));
}

static void serve_one(struct link *link)
{
	switch (link->req.op) {
	case FRAME_HELLO:
		welcome(link, 0, 1, 1);
		break;
	case FRAME_CREATE:
	case FRAME_OPEN:
		answer_attr(link);
		break;
	case FRAME_READ:
		answer(link, 0, data + link->req.off, link->req.len);
		break;
	default:
		answer(link, 0, NULL, 0);
	}
}

static void *play(void *arg)
{
	struct link *link = arg;

	while (next(link)) {
		link->opens += link->req.op == FRAME_OPEN;
		link->reads += link->req.op == FRAME_READ;
		link->notices += link->req.op == FRAME_NOTICE;
		link->closes += link->req.op == FRAME_CLOSE;
		link->byes += link->req.op == FRAME_BYE;
		/* The second is a further one, which only reads. */
		if (link->index == 1)
			ck_assert_msg(link->req.op <= FRAME_NOTICE || link->req.op == FRAME_OPEN ||
					  link->req.op == FRAME_CLOSE || link->req.op == FRAME_READ,
			    "%s", frame_op_name(link->req.op));
		if (!link->donor->odd || !link->donor->odd(link))
			serve_one(link);
	}
	shutdown(link->fd, SHUT_RDWR);
	return NULL;
}

static void *take(void *arg)
{
	struct donor *d = arg;

	for (;;) {
		struct link *link = &d->links[d->count];
		int fd = accept(d->listen, NULL, NULL);

		if (fd < 0)
			return NULL;
		ck_assert_uint_lt(d->count, LINKS - 1);
		link->donor = d;
		link->index = d->count;
		link->fd = fd;
		pthread_mutex_init(&link->mu, NULL);
		pthread_create(&link->thread, NULL, play, link);
		d->count++;
	}
}

/* ---- the rig ---- */

static struct handle *begin(bool (*odd)(struct link *link), unsigned conns)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct client_conf conf = {.pool = "ram", .conns = conns};
	socklen_t len = sizeof(sa);

	log_set_level(LOG_LEVEL_ERROR);
	for (unsigned i = 0; i < SIZE; i++)
		data[i] = (uint8_t)(i * 31 + (i >> 8) + 1);
	donor.odd = odd;
	donor.listen = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(donor.listen, (struct sockaddr *)&sa, sizeof(sa)), 0);
	ck_assert_int_eq(listen(donor.listen, 64), 0);
	getsockname(donor.listen, (struct sockaddr *)&sa, &len);
	conf.port = donor.port = ntohs(sa.sin_port);
	pthread_create(&donor.thread, NULL, take, &donor);
	rig_start(&rig, 1, 1);
	ck_assert_int_eq(client_open(&client, rig.loops[0], &conf, NULL), 0);
	return client_create(&client, "r");
}

static void end(struct handle *handle)
{
	client_close_handle(&client, handle);
	client_close(&client);
	shutdown(donor.listen, SHUT_RDWR);
	pthread_join(donor.thread, NULL);
	close(donor.listen);
	for (unsigned i = 0; i < donor.count; i++) {
		pthread_join(donor.links[i].thread, NULL);
		close(donor.links[i].fd);
	}
	rig_stop(&rig);
}

static void read_all(struct handle *handle)
{
	static uint8_t bufs[READS][LEN + 1];
	struct rig_req reqs[READS];

	memset(reqs, 0, sizeof(reqs));
	memset(bufs, 0xee, sizeof(bufs));
	for (unsigned i = 0; i < READS; i++)
		reqs[i].req = (struct store_req){
		    .op = STORE_READ, .off = i * 300001, .len = LEN, .buf = bufs[i]};
	rig_submit(rig.loops[0], &handle->store, reqs, READS);
	for (unsigned i = 0; i < READS; i++) {
		ck_assert_int_eq(reqs[i].err, 0);
		ck_assert_uint_eq(reqs[i].dones, 1);
		ck_assert_mem_eq(bufs[i], data + reqs[i].req.off, LEN);
		ck_assert_uint_eq(bufs[i][LEN], 0xee);
	}
}

/* Reads until *count has moved on. */
static void read_until(struct handle *handle, const _Atomic unsigned *count, unsigned most)
{
	for (unsigned i = 0; i < 2000 && *count < most; i++) {
		read_all(handle);
		usleep(1000);
	}
	ck_assert_uint_ge(*count, most);
}

/* ---- other donors ---- */

/* A connection that reaches another process of the donor, or another pool, is not read from. */
static bool odd_instance(struct link *link)
{
	if (link->req.op != FRAME_HELLO || link->index == FIRST || link->index > 2)
		return false;
	welcome(link, 0, link->index == 1 ? 2 : 1, link->index == 2 ? 2 : 1);
	odds++;
	return true;
}

START_TEST(another_instance)
{
	struct handle *handle = begin(odd_instance, 2);

	client_wait_conns(&client, 2);
	ck_assert_uint_ge(odds, 2);
	read_until(handle, &donor.links[3].reads, 1);
	for (unsigned i = 1; i <= 2; i++)
		ck_assert_uint_eq(donor.links[i].opens + donor.links[i].reads, 0);
	end(handle);
}
END_TEST

static bool odd_hello(struct link *link)
{
	if (link->req.op != FRAME_HELLO || link->index == FIRST || link->index > 2)
		return false;
	odds++;
	if (link->index == 1)
		put(link, (struct frame_rep){.op = FRAME_HELLO, .id = link->req.id, .status = 11},
		    "too many sessions", 17);
	else /* a READ's reply before the welcome */
		put(link, (struct frame_rep){.op = FRAME_READ, .id = 1024}, data, LEN);
	return true;
}

START_TEST(hello_is_refused)
{
	struct handle *handle = begin(odd_hello, 2);

	read_all(handle);
	client_wait_conns(&client, 2);
	ck_assert_uint_eq(odds, 2);
	read_until(handle, &donor.links[3].reads, 1);
	end(handle);
}
END_TEST

/* ---- errors: the first connection's word counts ---- */

static bool odd_open(struct link *link)
{
	if (link->req.op != FRAME_OPEN)
		return false;
	odds++;
	refuse(link, -EACCES);
	return true;
}

START_TEST(open_is_refused)
{
	struct handle *handle = begin(odd_open, 2);

	client_wait_conns(&client, 2);
	read_until(handle, &odds, 1);
	for (unsigned i = 0; i < 10; i++)
		read_all(handle);
	/* Once for each handle. */
	ck_assert_uint_eq(odds, 1);
	ck_assert_uint_eq(donor.links[1].reads, 0);
	client_close_handle(&client, handle);
	handle = client_create(&client, "s");
	read_until(handle, &odds, 2);
	end(handle);
}
END_TEST

static bool odd_read(struct link *link)
{
	if (link->req.op != FRAME_READ || link->index == FIRST)
		return false;
	odds++;
	refuse(link, -EIO);
	return true;
}

START_TEST(reads_are_refused)
{
	struct handle *handle = begin(odd_read, 2);
	unsigned before;

	client_wait_conns(&client, 2);
	read_until(handle, &odds, 1);
	before = odds;
	for (unsigned i = 0; i < 10; i++)
		read_all(handle);
	ck_assert_uint_eq(odds, before);
	end(handle);
}
END_TEST

/* ---- malformed replies ---- */

static void reply_wrong_id(struct link *link)
{
	link->req.id ^= 1u << 20;
	answer(link, 0, data, link->req.len);
}

static void reply_wrong_op(struct link *link)
{
	link->req.op = FRAME_LIST;
	answer(link, 0, data, 100);
}

static void reply_open(struct link *link)
{
	link->req.op = FRAME_OPEN;
	answer_attr(link);
}

static void reply_long_control(struct link *link)
{
	link->req.op = FRAME_LIST;
	answer(link, 0, data, FRAME_CONTROL_MAX);
}

static void reply_short(struct link *link)
{
	answer(link, 0, data, link->req.len - 1);
}

static void reply_long(struct link *link)
{
	answer(link, 0, data, link->req.len + 1);
}

static void reply_empty(struct link *link)
{
	answer(link, 0, NULL, 0);
}

static void reply_zeros_with_data(struct link *link)
{
	answer(link, FRAME_F_ZEROS, data + 1, link->req.len);
}

static void reply_magic(struct link *link)
{
	send_all(link, data, 64);
}

static void reply_half(struct link *link)
{
	put(link,
	    (struct frame_rep){
		.op = FRAME_READ, .id = link->req.id, .payload = (uint32_t)link->req.len},
	    NULL, 0);
	send_all(link, data + 1, link->req.len / 2);
	shutdown(link->fd, SHUT_WR);
}

static void reply_twice(struct link *link)
{
	answer(link, 0, data + link->req.off, link->req.len);
	answer(link, 0, data + 1, link->req.len);
}

static void reply_welcome(struct link *link)
{
	link->req.op = FRAME_HELLO;
	link->req.id = 1ull << 63;
	welcome(link, 0, 1, 1);
}

static void (*const bad_replies[])(struct link *link) = {reply_wrong_id, reply_wrong_op, reply_open,
    reply_long_control, reply_short, reply_long, reply_empty, reply_zeros_with_data, reply_magic,
    reply_half, reply_twice, reply_welcome};

static void (*bad_reply)(struct link *link);

static bool odd_reply(struct link *link)
{
	if (link->req.op != FRAME_READ || link->index != 1 || link->reads > 1)
		return false;
	odds++;
	bad_reply(link);
	return true;
}

START_TEST(malformed_replies)
{
	struct peer_status status;
	struct handle *handle;

	bad_reply = bad_replies[_i];
	handle = begin(odd_reply, 2);
	client_wait_conns(&client, 2);
	read_until(handle, &odds, 1);
	read_until(handle, &donor.links[2].reads, 1);
	client_status(&client, &status);
	ck_assert_uint_eq(status.reconnects, 0);
	end(handle);
}
END_TEST

/* Answers to an OPEN that are none. */
static bool odd_open_reply(struct link *link)
{
	if (link->req.op != FRAME_OPEN || link->index != 1)
		return false;
	odds++;
	if (bad_reply)
		bad_reply(link);
	link->req.id++;
	answer_attr(link);
	return true;
}

static void reply_close(struct link *link)
{
	link->req.op = FRAME_CLOSE;
	answer(link, 0, NULL, 0);
}

START_TEST(malformed_open_replies)
{
	struct handle *handle;

	bad_reply = _i ? reply_close : NULL;
	handle = begin(odd_open_reply, 2);
	client_wait_conns(&client, 2);
	read_until(handle, &odds, 1);
	read_until(handle, &donor.links[2].reads, 1);
	ck_assert_uint_eq(donor.links[1].reads, 0);
	end(handle);
}
END_TEST

/* The first connection answers what it was not asked: it is not believed, and made again. */
static bool odd_first(struct link *link)
{
	if (link->req.op != FRAME_READ || link->index != 1 || odds)
		return false;
	odds++;
	put(&donor.links[FIRST],
	    (struct frame_rep){
		.op = FRAME_READ, .id = link->req.id, .payload = (uint32_t)link->req.len},
	    data + 1, link->req.len);
	return true;
}

START_TEST(an_answer_over_the_first)
{
	struct peer_status status;
	struct handle *handle = begin(odd_first, 2);

	client_wait_conns(&client, 2);
	read_until(handle, &odds, 1);
	read_all(handle);
	client_status(&client, &status);
	ck_assert_uint_ge(status.reconnects, 1);
	end(handle);
}
END_TEST

/* ---- losses ---- */

/* Silent with READs in flight: after 5 s the others get them. */
static bool odd_silence(struct link *link)
{
	if (link->index != 1 || !link->reads)
		return false;
	odds++;
	return true;
}

START_TEST(silence)
{
	struct handle *handle = begin(odd_silence, 2);

	client_wait_conns(&client, 2);
	read_until(handle, &odds, 1);
	ck_assert_uint_ge(odds, 2); /* PINGs, too */
	read_until(handle, &donor.links[2].reads, 1);
	end(handle);
}
END_TEST

/* The first one is lost while half of a reply is here: the buffer is asked for anew, and the rest of that reply does
 * not come to it, however late. */
static bool odd_half(struct link *link)
{
	if (link->req.op != FRAME_READ || link->index != 1 || odds)
		return false;
	put(link,
	    (struct frame_rep){
		.op = FRAME_READ, .id = link->req.id, .payload = (uint32_t)link->req.len},
	    NULL, 0);
	send_all(link, data + link->req.off + 1, link->req.len / 2);
	usleep(50000);
	odds++;
	shutdown(donor.links[FIRST].fd, SHUT_RDWR);
	while (!go_on)
		usleep(1000);
	send_all(link, data + link->req.off + 1, link->req.len / 2);
	return true;
}

START_TEST(the_first_is_lost_midway)
{
	struct handle *handle = begin(odd_half, 2);

	client_wait_conns(&client, 2);
	read_until(handle, &odds, 1);
	go_on = true;
	read_all(handle);
	client_wait_conns(&client, 2);
	read_until(handle, &donor.links[3].reads, 1);
	end(handle);
}
END_TEST

/* Lost with an OPEN that is not answered, and resumed: whether the donor has done it nobody knows, so the handle is
 * closed there before it is asked for again. */
static bool odd_lost_open(struct link *link)
{
	if (link->req.op == FRAME_HELLO && link->index == 2) {
		welcome(link, FRAME_F_RESUMED, 1, 1);
		return true;
	}
	if (link->req.op == FRAME_OPEN && link->index == 1) {
		odds++;
		shutdown(link->fd, SHUT_RDWR);
		return true;
	}
	if (link->req.op == FRAME_OPEN)
		ck_assert_uint_eq(link->closes, 1);
	return false;
}

START_TEST(lost_with_an_open)
{
	struct handle *handle = begin(odd_lost_open, 2);

	client_wait_conns(&client, 2);
	read_until(handle, &odds, 1);
	read_until(handle, &donor.links[2].reads, 1);
	end(handle);
	/* Its session ends with the mount. */
	ck_assert_uint_eq(donor.links[2].byes, 1);
}
END_TEST

/* ---- notices ---- */

static void notified(void *ctx, const struct pool_notice *notice)
{
	*(bool *)ctx = true;
}

static bool odd_notice(struct link *link)
{
	uint8_t buf[FRAME_NOTICE_LEN];

	if (link->req.op != FRAME_READ || link->index == FIRST)
		return false;
	frame_notice_put(buf, &(struct pool_notice){7, 5, SIZE});
	put(link, (struct frame_rep){.op = FRAME_NOTICE, .id = FRAME_ID_NOTICE}, buf, sizeof(buf));
	odds++;
	return false;
}

/* Of the mount's own changes: nobody is told, and the donor gets no acknowledgement that would bring more. */
START_TEST(notices)
{
	struct handle *handle = begin(odd_notice, 2);
	bool told = false;

	client.pool->notify = notified;
	client.pool->notify_ctx = &told;
	client_wait_conns(&client, 2);
	read_until(handle, &odds, 3);
	read_all(handle);
	ck_assert(!told);
	ck_assert_uint_eq(donor.links[0].notices + donor.links[1].notices, 0);
	client_close_handle(&client, handle);
	for (unsigned ms = 0; ms < 5000 && donor.links[1].closes == 0; ms++)
		usleep(1000);
	ck_assert_uint_eq(donor.links[1].closes, 1);
	end(client_create(&client, "s"));
}
END_TEST

/* A handle that takes long to be closed over a further connection: what needs it closed waits for that. */
static bool odd_close(struct link *link)
{
	if (link->req.op == FRAME_REMOVE)
		ck_assert_uint_eq(odds, 1);
	if (link->req.op == FRAME_CLOSE && link->index == 1) {
		usleep(200000);
		odds++;
	}
	return false;
}

START_TEST(slow_to_close)
{
	struct client_req reqs[2] = {
	    {.req = {.op = POOL_CLOSE}}, {.req = {.op = POOL_REMOVE, .name = "r"}}};
	struct handle *handle = begin(odd_close, 2);

	client_wait_conns(&client, 2);
	read_until(handle, &donor.links[1].reads, 1);
	reqs[0].req.handle = handle;
	client_end(client_begin(&client, reqs, 2));
	ck_assert_int_eq(reqs[1].err, 0);
	ck_assert_uint_eq(odds, 1);
	end(client_create(&client, "s"));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("peer_conns_donor");
	TCase *tc = tcase_create("donor");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, another_instance);
	tcase_add_test(tc, hello_is_refused);
	tcase_add_test(tc, open_is_refused);
	tcase_add_test(tc, reads_are_refused);
	tcase_add_loop_test(tc, malformed_replies, 0, sizeof(bad_replies) / sizeof(bad_replies[0]));
	tcase_add_loop_test(tc, malformed_open_replies, 0, 2);
	tcase_add_test(tc, an_answer_over_the_first);
	tcase_add_test(tc, silence);
	tcase_add_test(tc, the_first_is_lost_midway);
	tcase_add_test(tc, lost_with_an_open);
	tcase_add_test(tc, notices);
	tcase_add_test(tc, slow_to_close);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
