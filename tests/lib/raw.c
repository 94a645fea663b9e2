/* SPDX-License-Identifier: Apache-2.0
 *
 * A raw client of the peer protocol (see tests/lib/raw.h).
 */
#include "tests/lib/raw.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { TIMEOUT_S = 20 };

void raw_connect(struct raw *raw, uint16_t port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
	    .sin_port = htons(port),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct timeval limit = {.tv_sec = TIMEOUT_S};
	int on = 1;

	raw->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_msg(raw->fd >= 0, "socket: %s", strerror(errno));
	setsockopt(raw->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(raw->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	ck_assert_msg(connect(raw->fd, (struct sockaddr *)&sa, sizeof(sa)) == 0, "connect: %s",
	    strerror(errno));
	raw->next_id = 1;
	raw->notices = 0;
}

void raw_close(struct raw *raw)
{
	if (raw->fd >= 0)
		close(raw->fd);
	raw->fd = -1;
}

bool raw_bytes(struct raw *raw, const void *bytes, size_t len)
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

uint64_t raw_send(struct raw *raw, struct frame_req frame, const void *body, size_t len)
{
	uint8_t header[FRAME_REQ_LEN];

	frame.payload = (uint32_t)len;
	if (frame.id == 0)
		frame.id = raw->next_id++;
	frame_req_put(header, &frame);
	if (raw_bytes(raw, header, sizeof(header)) && len)
		raw_bytes(raw, body, len);
	return frame.id;
}

static bool recv_all(struct raw *raw, uint8_t *buf, size_t len)
{
	while (len) {
		ssize_t n = recv(raw->fd, buf, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		ck_assert_msg(n >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK),
		    "no answer for %d s", TIMEOUT_S);
		if (n <= 0)
			return false;
		buf += n;
		len -= (size_t)n;
	}
	return true;
}

static bool recv_frame(struct raw *raw)
{
	uint8_t header[FRAME_REP_LEN];
	const char *why;

	if (!recv_all(raw, header, sizeof(header)))
		return false;
	ck_assert_msg(frame_rep_get(header, &raw->rep, &why) == 0, "bad reply: %s", why);
	raw->data[raw->rep.payload] = 0;
	if (!recv_all(raw, raw->data, raw->rep.payload))
		return false;
	if (raw->rep.id == FRAME_ID_NOTICE) {
		ck_assert_uint_eq(raw->rep.op, FRAME_NOTICE);
		ck_assert_int_eq(frame_notice_get(raw->data, raw->rep.payload, &raw->notice), 0);
		raw->notices++;
	}
	return true;
}

bool raw_recv(struct raw *raw)
{
	do
		if (!recv_frame(raw))
			return false;
	while (raw->rep.id == FRAME_ID_NOTICE);
	return true;
}

void raw_notices(struct raw *raw, unsigned count)
{
	while (raw->notices < count) {
		ck_assert(recv_frame(raw));
		ck_assert_uint_eq(raw->rep.id, FRAME_ID_NOTICE);
	}
	ck_assert_uint_eq(raw->notices, count);
}

void raw_notice_ack(struct raw *raw)
{
	struct frame_req ack = {.op = FRAME_NOTICE, .off = raw->notice.id};

	ck_assert_int_eq(raw_ask(raw, ack, NULL, 0), 0);
}

int raw_ask(struct raw *raw, struct frame_req frame, const void *body, size_t len)
{
	uint64_t id = raw_send(raw, frame, body, len);

	do /* the donor may say unasked that it is alive */
		ck_assert_msg(
		    raw_recv(raw), "%s: the connection was ended", frame_op_name(frame.op));
	while (raw->rep.id == FRAME_ID_PING && id != FRAME_ID_PING);
	ck_assert_uint_eq(raw->rep.id, id);
	ck_assert_uint_eq(raw->rep.op, frame.op);
	return frame_errno(raw->rep.status);
}

int raw_control(struct raw *raw, struct pool_req *req, uint64_t id, uint8_t flags)
{
	uint8_t body[FRAME_BODY_MAX + 256];
	struct frame_req frame;
	size_t len = frame_control_put(req, &frame, body);
	int rc;

	if (req->op == POOL_SETXATTR) {
		ck_assert_uint_le(req->len, 256);
		memcpy(body + len, req->data, req->len);
		len += req->len;
	}
	frame.id = id;
	frame.flags = flags;
	rc = raw_ask(raw, frame, body, len);
	if (rc == 0)
		ck_assert_int_eq(
		    frame_result_get(req, raw->rep.flags, raw->data, raw->rep.payload), 0);
	return rc;
}

bool raw_ended(struct raw *raw, unsigned seconds)
{
	struct pollfd pfd = {.fd = raw->fd, .events = POLLIN};
	struct timespec ts;
	time_t end;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	end = ts.tv_sec + (time_t)seconds + 1;
	while (ts.tv_sec < end) {
		if (poll(&pfd, 1, 100) > 0 &&
		    recv(raw->fd, raw->data, sizeof(raw->data), MSG_DONTWAIT) <= 0 &&
		    errno != EAGAIN)
			return true;
		clock_gettime(CLOCK_MONOTONIC, &ts);
	}
	return false;
}

int raw_hello(struct raw *raw, const struct frame_hello *hello, struct frame_welcome *ret_welcome)
{
	uint8_t body[FRAME_HELLO_MAX];
	size_t len = frame_hello_put(body, hello);
	struct frame_welcome welcome;
	int rc = raw_ask(raw, (struct frame_req){.op = FRAME_HELLO}, body, len);

	if (rc)
		return rc;
	ck_assert_int_eq(frame_welcome_get(raw->data, raw->rep.payload, &welcome), 0);
	if (ret_welcome)
		*ret_welcome = welcome;
	return 0;
}

struct frame_hello raw_session(const char *pool, unsigned seed, uint64_t epoch)
{
	struct frame_hello hello = {.version_min = 1, .version_max = 1, .epoch = epoch};

	memcpy(hello.session, &seed, sizeof(seed));
	memcpy(hello.session + 8, "raw test", 8);
	strncpy(hello.pool, pool, FRAME_POOL_NAME_MAX);
	return hello;
}

void raw_open(struct raw *raw, uint16_t port, const char *pool, unsigned seed, uint64_t epoch)
{
	struct frame_hello hello = raw_session(pool, seed, epoch);
	int rc;

	raw_connect(raw, port);
	rc = raw_hello(raw, &hello, NULL);
	ck_assert_msg(rc == 0, "HELLO: %s: %s", strerror(-rc), (const char *)raw->data);
}

void raw_create(struct raw *raw, const char *name, uint32_t number)
{
	struct pool_req req = {.op = POOL_CREATE,
	    .name = name,
	    .flags = POOL_READ | POOL_WRITE,
	    .number = number,
	    .attr.mode = 0600};
	int rc = raw_control(raw, &req, 0, 0);

	ck_assert_msg(rc == 0, "CREATE: %s", strerror(-rc));
}

int raw_write(struct raw *raw, uint32_t handle, uint64_t off, const void *buf, uint32_t len)
{
	return raw_ask(raw,
	    (struct frame_req){.op = FRAME_WRITE, .handle = handle, .off = off, .len = len}, buf,
	    len);
}

int raw_read(struct raw *raw, uint32_t handle, uint64_t off, void *buf, uint32_t len)
{
	int rc = raw_ask(raw,
	    (struct frame_req){.op = FRAME_READ, .handle = handle, .off = off, .len = len}, NULL,
	    0);

	if (rc)
		return rc;
	if (raw->rep.flags & FRAME_F_ZEROS) {
		ck_assert_uint_eq(raw->rep.payload, 0);
		memset(buf, 0, len);
	} else {
		ck_assert_uint_eq(raw->rep.payload, len);
		memcpy(buf, raw->data, len);
	}
	return 0;
}
