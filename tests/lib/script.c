/* SPDX-License-Identifier: Apache-2.0
 *
 * A donor that plays a script; see script.h.
 */
#include "tests/lib/script.h"

#include <arpa/inet.h>
#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/log.h"

struct script script_donor;
struct rig script_rig;
struct client script_client;
uint8_t script_data[SCRIPT_LEN];

static bool get_bytes(struct script *d, void *buf, size_t len)
{
	return recv(d->fd, buf, len, MSG_WAITALL) == (ssize_t)len;
}

bool script_next(struct script *d)
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

void script_put(struct script *d, struct frame_rep rep, const void *payload, size_t len)
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

void script_answer(struct script *d, uint8_t flags, const void *payload, size_t len)
{
	script_put(
	    d, (struct frame_rep){.op = d->req.op, .id = d->req.id, .flags = flags}, payload, len);
}

void script_answer_attr(struct script *d, uint64_t id)
{
	struct region_attr attr = {.id = id, .size = 1 << 20, .mode = 0600, .nlink = 1};
	uint8_t buf[FRAME_ATTR_LEN];

	script_answer(d, 0, buf, frame_attr_put(buf, &attr));
}

bool script_take(struct script *d)
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
	if (!script_next(d))
		return false;
	ck_assert_uint_eq(d->req.op, FRAME_HELLO);
	ck_assert_int_eq(frame_hello_get(d->body, d->req.payload, &hello), 0);
	ck_assert_uint_gt(hello.epoch, d->epoch);
	ck_assert_str_eq(hello.pool, "ram");
	d->epoch = hello.epoch;
	return true;
}

void script_put_welcome(struct script *d, uint8_t flags)
{
	struct frame_welcome welcome = {.version = 1, .size_max = 1 << 20, .in_flight_max = 1024};
	uint8_t buf[FRAME_WELCOME_LEN];

	memset(welcome.pool_uuid, d->uuid, 16);
	script_answer(d, flags, buf, frame_welcome_put(buf, &welcome));
}

bool script_meet(struct script *d, uint8_t flags)
{
	if (!script_take(d))
		return false;
	script_put_welcome(d, flags);
	return true;
}

bool script_expect_op(struct script *d, uint8_t op)
{
	if (!script_next(d))
		return false;
	ck_assert_msg(d->req.op == op, "%s, not %s", frame_op_name(d->req.op), frame_op_name(op));
	return true;
}

void script_serve(struct script *d)
{
	while (script_next(d)) {
		switch (d->req.op) {
		case FRAME_CREATE:
		case FRAME_OPEN:
		case FRAME_LOOKUP:
		case FRAME_GETATTR:
			script_answer_attr(d, 7);
			break;
		case FRAME_READ:
			script_answer(d, 0, script_data + d->req.off % SCRIPT_LEN, d->req.len);
			break;
		case FRAME_EXTENTS:
			frame_extents_put(d->body, &(struct extent){d->req.off, d->req.len, 0}, 1);
			script_answer(d, 0, d->body, FRAME_EXTENT_LEN);
			break;
		case FRAME_STATFS:
			memset(d->body, 0, 32);
			script_answer(d, 0, d->body, 32);
			break;
		case FRAME_LIST:
			memset(d->body, 0, 8);
			script_answer(d, 0, d->body, 8);
			break;
		default:
			script_answer(d, 0, NULL, 0);
		}
	}
}

static void *play(void *arg)
{
	struct script *d = arg;

	d->script(d);
	if (d->fd >= 0)
		close(d->fd);
	return NULL;
}

static _Atomic unsigned step;

void script_reach(unsigned n)
{
	step = n;
}

void script_wait_for(unsigned n)
{
	for (unsigned ms = 0; step < n && ms < 20000; ms++)
		usleep(1000);
	ck_assert_uint_ge(step, n);
}

/* ---- the rig ---- */

void script_begin(void (*script)(struct script *donor))
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sa);

	log_set_level(LOG_LEVEL_ERROR);
	for (unsigned i = 0; i < SCRIPT_LEN; i++)
		script_data[i] = (uint8_t)(i * 31 + (i >> 8) + 1);
	memset(&script_donor, 0, sizeof(script_donor));
	script_donor.fd = -1;
	script_donor.uuid = 1;
	script_donor.script = script;
	script_donor.listen = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(script_donor.listen, (struct sockaddr *)&sa, sizeof(sa)), 0);
	ck_assert_int_eq(listen(script_donor.listen, 16), 0);
	getsockname(script_donor.listen, (struct sockaddr *)&sa, &len);
	script_donor.port = ntohs(sa.sin_port);
	rig_start(&script_rig, 1, 1);
	pthread_create(&script_donor.thread, NULL, play, &script_donor);
}

int script_open_client(uint64_t look_ms, struct err *err)
{
	struct client_conf conf = {.port = script_donor.port, .pool = "ram", .look_ms = look_ms};

	return client_open(&script_client, script_rig.loops[0], &conf, err);
}

void script_end(void)
{
	client_close(&script_client);
	shutdown(script_donor.listen, SHUT_RDWR);
	pthread_join(script_donor.thread, NULL);
	close(script_donor.listen);
	rig_stop(&script_rig);
}
