/* SPDX-License-Identifier: Apache-2.0
 *
 * Two ends of connections (see tests/lib/ends.h).
 */
#include "tests/lib/ends.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct ends ends;

static uint8_t byte_of(uint32_t number, uint32_t i)
{
	return (uint8_t)((number * 2654435761u + i * 40503u) >> 11);
}

/* ---- handlers ---- */

void end_close(struct end *end)
{
	struct conn *conn = end->conn;

	end->conn = NULL;
	conn_close(conn);
}

static int on_header(struct conn *conn, const uint8_t *header, void **ret_buf, uint32_t *ret_len)
{
	struct end *end = conn_owner(conn);
	uint32_t number;

	memcpy(&end->len, header, 4);
	memcpy(&number, header + 4, 4);
	ck_assert_ptr_eq(end->conn, conn);
	ck_assert_uint_eq(number, end->frames);
	ck_assert_uint_le(end->len, END_PAYLOAD_MAX);
	if (end->pauses && number == end->pause_at) {
		end->pauses--;
		return -EAGAIN;
	}
	end->headers++;
	if (end->header_rc && number == end->fail_at)
		return end->header_rc;
	*ret_len = end->len;
	*ret_buf = end->payload;
	if (end->pipes && end->len >= CONN_PIPE_MIN)
		conn_use_pipe(conn);
	if (end->close_in == END_IN_HEADER)
		end_close(end);
	return 0;
}

static int on_frame(struct conn *conn)
{
	struct end *end = conn_owner(conn);
	int pipe = conn_payload_pipe(conn);

	if (pipe >= 0) {
		end->piped++;
		end->len -= end->leave;
		for (uint32_t got = 0; got < end->len;) {
			ssize_t n = read(pipe, end->payload + got, end->len - got);

			ck_assert_int_gt(n, 0);
			got += (uint32_t)n;
		}
	}
	for (uint32_t i = 0; i < end->len; i++)
		if (end->payload[i] != byte_of(end->frames, i))
			ck_abort_msg("frame %u: byte %u of %u", end->frames, i, end->len);
	memset(end->payload, 0xee, end->len);
	if (++end->frames == end->stop_after)
		loop_stop(ends.loop);
	if (end->close_in == END_IN_FRAME)
		end_close(end);
	return end->frame_rc && end->frames > end->fail_at ? end->frame_rc : 0;
}

static void on_closed(struct conn *conn, int err)
{
	struct end *end = conn_owner(conn);

	end->closeds++;
	end->closed_err = err;
	if (end->close_in == END_IN_CLOSED)
		end_close(end);
	loop_stop(ends.loop);
}

const struct conn_handlers end_handlers = {
    .header_len = END_HEADER, .header = on_header, .frame = on_frame, .closed = on_closed};

static void on_sent(struct conn_out *co, int err)
{
	struct end_out *out = (struct end_out *)co;
	struct end *end = out->end;

	ck_assert_uint_eq(out->number, end->sents); /* in order, each once */
	end->sents++;
	if (err) {
		end->sent_errors++;
		end->sent_err = err;
	}
	if (out->payload)
		memset(out->payload, 0xdd, 1); /* it is ours again */
	free(out->payload);
	out->payload = NULL;
	if (end->close_in == END_IN_SENT)
		end_close(end);
}

/* ---- ends ---- */

void end_fini(struct end *end)
{
	end_close(end);
	free(end->payload);
}

void ends_setup(void)
{
	struct loop_conf conf = {0};
	struct err err;

	ck_assert_int_eq(loop_create(&conf, &ends.loop, &err), 0);
	memset(&ends.a, 0, sizeof(ends.a));
	memset(&ends.b, 0, sizeof(ends.b));
	ends.a.payload = malloc(END_PAYLOAD_MAX);
	ends.b.payload = malloc(END_PAYLOAD_MAX);
}

static void stop_now(struct loop_timer *timer)
{
	loop_stop(ends.loop);
}

void ends_run_ms(unsigned ms)
{
	struct loop_timer end = {.expired = stop_now};

	loop_timer_set(ends.loop, &end, loop_now_ns() + ms * 1000000ull);
	loop_run(ends.loop);
	loop_timer_cancel(&end);
}

void ends_teardown(void)
{
	end_fini(&ends.a);
	end_fini(&ends.b);
	ends_run_ms(0); /* what was queued frees the connections */
	loop_destroy(ends.loop);
	for (unsigned i = 0; i < END_OUTS; i++)
		ck_assert_ptr_null(ends.outs[i].payload); /* all were reported */
}

void ends_pair(int fds[2], int buffer)
{
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	for (unsigned i = 0; i < 2; i++)
		if (buffer)
			setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
}

void end_open(struct end *end, int fd)
{
	struct err err;

	ck_assert_int_eq(conn_create(ends.loop, fd, &end_handlers, end, &end->conn, &err), 0);
	ck_assert_int_eq(conn_fd(end->conn), fd);
	ck_assert_ptr_eq(conn_owner(end->conn), end);
}

void end_send(struct end *end, unsigned number, uint32_t len, bool pieces)
{
	struct end_out *out = &ends.outs[number];
	struct iovec *iov = out->out.iov;

	out->end = end;
	out->number = number;
	memcpy(out->header, &len, 4);
	memcpy(out->header + 4, &number, 4);
	out->payload = malloc(len ? len : 1);
	for (uint32_t i = 0; i < len; i++)
		out->payload[i] = byte_of(number, i);
	iov[0] = (struct iovec){out->header, END_HEADER};
	iov[1] = (struct iovec){out->payload, len};
	out->out.iov_count = len ? 2 : 1;
	if (pieces) {
		uint32_t cut = len / 3;

		iov[1].iov_len = cut;
		iov[2] = (struct iovec){out->payload + cut, len - cut};
		out->out.iov_count = 3; /* pieces may be empty */
	}
	out->out.sent = on_sent;
	conn_send(end->conn, &out->out);
}

size_t end_put(uint8_t *buf, uint32_t number, uint32_t len)
{
	memcpy(buf, &len, 4);
	memcpy(buf + 4, &number, 4);
	for (uint32_t i = 0; i < len; i++)
		buf[END_HEADER + i] = byte_of(number, i);
	return END_HEADER + len;
}

uint32_t end_size_of(unsigned number)
{
	static const uint32_t sizes[] = {0, 1, 7, 8, 4095, 4096, 128 * 1024 - 9, 128 * 1024 - 8,
	    128 * 1024 - 7, 128 * 1024, 256 * 1024 + 1, 1 << 20, END_PAYLOAD_MAX};
	const unsigned count = sizeof(sizes) / sizeof(sizes[0]);

	return number < count ? sizes[number]
	       : number % 50  ? (uint32_t)random() % 5000
			      : (uint32_t)random() % 400000;
}
