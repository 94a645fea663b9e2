/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections that carry frames: integrity through small socket buffers, pausing, ends of all kinds,
 * closing from within every handler.
 *
 * A test has ends: each is a connection on one side of a socket pair, or that side's plain descriptor.
 * A frame's header is its payload's length and its number; the payload's bytes follow from both.
 */
#include "core/conn.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEADER = 8, PAYLOAD_MAX = 3 << 20, OUTS = 4096 };

enum close_in { IN_NOTHING, IN_HEADER, IN_FRAME, IN_SENT, IN_CLOSED };

struct end {
	struct conn *conn; /* NULL once closed */

	/* What the handlers do. */
	enum close_in close_in; /* where to call conn_close */
	unsigned pause_at; /* header() gives -EAGAIN for this frame … */
	unsigned pauses; /* … so often */
	int header_rc, frame_rc; /* what header() and frame() of frame fail_at return */
	unsigned fail_at;
	unsigned stop_after; /* frames; then the loop stops */
	bool pipes; /* header() wants a pipe for long payloads */
	unsigned leave; /* bytes of a piped payload that frame() does not take */

	/* What they saw. */
	unsigned headers, frames, sents, closeds, sent_errors, piped;
	int closed_err, sent_err;
	uint32_t len;
	uint8_t *payload;
};

struct out {
	struct conn_out out; /* first */
	struct end *end;
	unsigned number;
	uint8_t header[HEADER];
	uint8_t *payload;
};

static struct loop *loop;
static struct end a, b;
static struct out outs[OUTS];

static uint8_t byte_of(uint32_t number, uint32_t i)
{
	return (uint8_t)((number * 2654435761u + i * 40503u) >> 11);
}

/* ---- handlers ---- */

static void end_close(struct end *end)
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
	ck_assert_uint_le(end->len, PAYLOAD_MAX);
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
	if (end->close_in == IN_HEADER)
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
		loop_stop(loop);
	if (end->close_in == IN_FRAME)
		end_close(end);
	return end->frame_rc && end->frames > end->fail_at ? end->frame_rc : 0;
}

static void on_closed(struct conn *conn, int err)
{
	struct end *end = conn_owner(conn);

	end->closeds++;
	end->closed_err = err;
	if (end->close_in == IN_CLOSED)
		end_close(end);
	loop_stop(loop);
}

static const struct conn_handlers handlers = {
    .header_len = HEADER, .header = on_header, .frame = on_frame, .closed = on_closed};

static void on_sent(struct conn_out *co, int err)
{
	struct out *out = (struct out *)co;
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
	if (end->close_in == IN_SENT)
		end_close(end);
}

/* ---- the rig ---- */

static void end_fini(struct end *end)
{
	end_close(end);
	free(end->payload);
}

static void setup(void)
{
	struct loop_conf conf = {0};
	struct err err;

	ck_assert_int_eq(loop_create(&conf, &loop, &err), 0);
	memset(&a, 0, sizeof(a));
	memset(&b, 0, sizeof(b));
	a.payload = malloc(PAYLOAD_MAX);
	b.payload = malloc(PAYLOAD_MAX);
}

static void stop_now(struct loop_timer *timer)
{
	loop_stop(loop);
}

static void run_ms(unsigned ms)
{
	struct loop_timer end = {.expired = stop_now};

	loop_timer_set(loop, &end, loop_now_ns() + ms * 1000000ull);
	loop_run(loop);
	loop_timer_cancel(&end);
}

/* … until something has happened. */
#define RUN_UNTIL(condition) \
	for (unsigned tries_ = 0; !(condition) && tries_ < 10000; tries_++) \
	run_ms(1)

static void teardown(void)
{
	end_fini(&a);
	end_fini(&b);
	run_ms(0); /* what was queued frees the connections */
	loop_destroy(loop);
	for (unsigned i = 0; i < OUTS; i++)
		ck_assert_ptr_null(outs[i].payload); /* all were reported */
}

static void pair(int fds[2], int buffer)
{
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	for (unsigned i = 0; i < 2; i++)
		if (buffer)
			setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
}

static void open_end(struct end *end, int fd)
{
	struct err err;

	ck_assert_int_eq(conn_create(loop, fd, &handlers, end, &end->conn, &err), 0);
	ck_assert_int_eq(conn_fd(end->conn), fd);
	ck_assert_ptr_eq(conn_owner(end->conn), end);
}

/* Frame `number` of an end, cut into pieces. */
static void send_frame(struct end *end, unsigned number, uint32_t len, bool pieces)
{
	struct out *out = &outs[number];
	struct iovec *iov = out->out.iov;

	out->end = end;
	out->number = number;
	memcpy(out->header, &len, 4);
	memcpy(out->header + 4, &number, 4);
	out->payload = malloc(len ? len : 1);
	for (uint32_t i = 0; i < len; i++)
		out->payload[i] = byte_of(number, i);
	iov[0] = (struct iovec){out->header, HEADER};
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

/* A plain writer's frames. */
static size_t put_frame(uint8_t *buf, uint32_t number, uint32_t len)
{
	memcpy(buf, &len, 4);
	memcpy(buf + 4, &number, 4);
	for (uint32_t i = 0; i < len; i++)
		buf[HEADER + i] = byte_of(number, i);
	return HEADER + len;
}

/* ---- bytes arrive as they were sent ---- */

/* Sizes around what the receiver's stage holds, and others. */
static uint32_t size_of(unsigned number)
{
	static const uint32_t sizes[] = {0, 1, 7, 8, 4095, 4096, 128 * 1024 - 9, 128 * 1024 - 8,
	    128 * 1024 - 7, 128 * 1024, 256 * 1024 + 1, 1 << 20, PAYLOAD_MAX};
	const unsigned count = sizeof(sizes) / sizeof(sizes[0]);

	return number < count ? sizes[number]
	       : number % 50  ? (uint32_t)random() % 5000
			      : (uint32_t)random() % 400000;
}

START_TEST(integrity)
{
	static const int buffers[] = {1, 16384, 0}; /* 1: the least that the kernel allows */
	enum { FRAMES = 400 };
	uint64_t bytes = 0;
	int fds[2];

	srandom(1);
	pair(fds, buffers[_i]);
	open_end(&a, fds[0]);
	open_end(&b, fds[1]);
	for (unsigned i = 0; i < FRAMES; i++) {
		uint32_t len = size_of(i);

		send_frame(&a, i, len, i % 3 == 0);
		bytes += HEADER + len;
	}
	ck_assert_uint_eq(conn_queued(a.conn), bytes);
	b.stop_after = FRAMES;
	loop_run(loop);
	ck_assert_uint_eq(b.frames, FRAMES);
	ck_assert_uint_eq(a.sents, FRAMES);
	ck_assert_uint_eq(a.sent_errors, 0);
	ck_assert_uint_eq(conn_queued(a.conn), 0);
	ck_assert_uint_eq(conn_bytes_out(a.conn), bytes);
	ck_assert_uint_eq(conn_bytes_in(b.conn), bytes);
	ck_assert_uint_eq(a.closeds + b.closeds, 0);
}
END_TEST

/* ---- payloads in a pipe ---- */

static void tcp_pair(int fds[2])
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(addr);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	ck_assert_int_eq(bind(listener, (struct sockaddr *)&addr, len), 0);
	ck_assert_int_eq(listen(listener, 1), 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
	fds[0] = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(connect(fds[0], (struct sockaddr *)&addr, len), 0);
	fds[1] = accept(listener, NULL, NULL);
	close(listener);
	for (unsigned i = 0; i < 2; i++)
		ck_assert_int_eq(fcntl(fds[i], F_SETFL, O_NONBLOCK), 0);
}

/* Long ones in a row and among short ones; what the owner leaves in the pipe harms nobody. */
START_TEST(long_payloads_through_a_pipe)
{
	enum { FRAMES = 300 };
	int fds[2];

	srandom(2);
	tcp_pair(fds);
	open_end(&a, fds[0]);
	open_end(&b, fds[1]);
	b.pipes = true;
	b.leave = _i ? 5000 : 0;
	for (unsigned i = 0; i < FRAMES; i++)
		send_frame(&a, i, i % 40 < 20 ? CONN_PIPE_MIN + i * 1111 : size_of(i), i % 3 == 0);
	b.stop_after = FRAMES;
	loop_run(loop);
	ck_assert_uint_eq(b.frames, FRAMES);
	ck_assert_uint_gt(b.piped, FRAMES / 4);
	ck_assert_uint_eq(a.closeds + b.closeds, 0);
}
END_TEST

/* A pipe holds a number of fragments: here come more, and the payload goes to the buffer. */
START_TEST(a_pipe_too_small)
{
	enum { FRAMES = 6, LEN = 1 << 20, PAGE = 4096 };
	uint8_t *frame = malloc(HEADER + LEN);
	int fds[2], cut[2];
	FILE *pages = tmpfile();
	uint32_t at = HEADER;

	tcp_pair(fds);
	ck_assert_int_eq(pipe(cut), 0);
	ck_assert_ptr_nonnull(pages);
	open_end(&a, fds[0]);
	a.pipes = true;
	for (uint32_t number = 0; number < FRAMES; number++) {
		loff_t off = number * LEN; /* pages of its own: they are sent by reference */

		put_frame(frame, number, LEN);
		ck_assert_int_eq(pwrite(fileno(pages), frame + HEADER, LEN, off), LEN);
		ck_assert_int_eq(write(fds[1], frame, HEADER), HEADER);
		run_ms(1);
		/* Half a page at a time: each is a fragment of its own. */
		for (at = 0; at < LEN;) {
			ssize_t n = splice(fileno(pages), &off, cut[1], NULL,
			    LEN - at < PAGE / 2 ? LEN - at : PAGE / 2, 0);

			ck_assert_int_gt(n, 0);
			at += (uint32_t)n;
			while (n > 0) {
				ssize_t m = splice(
				    cut[0], NULL, fds[1], NULL, (size_t)n, SPLICE_F_NONBLOCK);

				n -= m > 0 ? m : 0;
				run_ms(0);
			}
		}
	}
	RUN_UNTIL(a.frames == FRAMES);
	ck_assert_uint_eq(a.frames, FRAMES);
	ck_assert_uint_eq(a.piped, 0);
	close(cut[0]);
	close(cut[1]);
	close(fds[1]);
	fclose(pages);
	free(frame);
}
END_TEST

/* The other side ends while a payload is half in the pipe. */
START_TEST(the_end_within_a_piped_payload)
{
	uint8_t *frame = malloc(HEADER + CONN_PIPE_MIN);
	int fds[2];

	tcp_pair(fds);
	open_end(&a, fds[0]);
	a.pipes = true;
	for (uint32_t number = 0; number < 2; number++) {
		size_t len = put_frame(frame, number, CONN_PIPE_MIN) - number * 1000;

		for (size_t done = 0; done < len;) {
			ssize_t n = write(fds[1], frame + done, len - done);

			done += n > 0 ? (size_t)n : 0;
			run_ms(0);
		}
	}
	close(fds[1]);
	RUN_UNTIL(a.closeds);
	ck_assert_uint_eq(a.frames, 1);
	ck_assert_uint_eq(a.closeds, 1);
	ck_assert_int_eq(a.closed_err, -ECONNRESET);
	free(frame);
}
END_TEST

/* More small frames than one sendmsg takes. */
START_TEST(many_small_frames)
{
	int fds[2];

	pair(fds, 0);
	open_end(&a, fds[0]);
	open_end(&b, fds[1]);
	for (unsigned i = 0; i < OUTS; i++)
		send_frame(&a, i, i % 3, i % 5 == 0);
	b.stop_after = OUTS;
	loop_run(loop);
	ck_assert_uint_eq(b.frames, OUTS);
	ck_assert_uint_eq(a.sents, OUTS);
}
END_TEST

/* However the bytes are cut on their way. */
START_TEST(any_segmentation)
{
	static const size_t steps[] = {1, 2, 7, 8, 9, 1000, 5000};
	static uint8_t buf[64 * 1024];
	size_t len = 0, done = 0;
	int fds[2];

	for (unsigned i = 0; i < 12; i++)
		len += put_frame(buf + len, i, i * i * 13);
	pair(fds, 0);
	open_end(&a, fds[0]);
	while (done < len) {
		size_t n = steps[_i] < len - done ? steps[_i] : len - done;

		ck_assert_int_eq(write(fds[1], buf + done, n), (ssize_t)n);
		done += n;
		run_ms(0);
	}
	RUN_UNTIL(a.frames == 12);
	ck_assert_uint_eq(a.frames, 12);
	close(fds[1]);
	loop_run(loop);
	ck_assert_uint_eq(a.closeds, 1);
	ck_assert_int_eq(a.closed_err, 0);
}
END_TEST

/* A flood on one connection leaves the other its turn: its one frame is not last. */
START_TEST(a_flood_leaves_others_their_turn)
{
	enum { FRAMES = 30 };
	static struct end flood;
	int fds[2], other[2];
	uint8_t buf[64];
	size_t len = put_frame(buf, 0, 5);

	flood.payload = malloc(PAYLOAD_MAX);
	pair(fds, 64 << 20);
	pair(other, 0);
	open_end(&b, fds[1]);
	open_end(&flood, fds[0]);
	open_end(&a, other[0]);
	for (unsigned i = 0; i < FRAMES; i++)
		send_frame(&flood, i, PAYLOAD_MAX, false);
	ck_assert_int_eq(write(other[1], buf, len), (ssize_t)len);
	a.stop_after = 1;
	loop_run(loop);
	ck_assert_uint_eq(a.frames, 1);
	ck_assert_uint_lt(b.frames, FRAMES);
	b.stop_after = FRAMES;
	loop_run(loop);
	close(other[1]);
	end_fini(&flood);
}
END_TEST

/* ---- pausing ---- */

START_TEST(a_paused_connection_reads_nothing)
{
	int fds[2];

	pair(fds, 1);
	open_end(&a, fds[0]);
	open_end(&b, fds[1]);
	b.pause_at = 3;
	b.pauses = 2;
	for (unsigned i = 0; i < 10; i++)
		send_frame(&a, i, 200000, false);
	RUN_UNTIL(b.pauses == 1);
	run_ms(5);
	ck_assert_uint_eq(b.frames, 3);
	ck_assert_uint_eq(b.headers, 3);
	ck_assert_uint_gt(conn_queued(a.conn), 0); /* the sender feels it */
	conn_resume(b.conn);
	conn_resume(b.conn);
	RUN_UNTIL(b.pauses == 0);
	run_ms(2);
	ck_assert_uint_eq(b.pauses, 0); /* the same header came again, and paused again */
	ck_assert_uint_eq(b.frames, 3);
	conn_resume(b.conn);
	b.stop_after = 10;
	loop_run(loop);
	ck_assert_uint_eq(b.frames, 10);
	conn_resume(b.conn); /* not paused: nothing */
	run_ms(1);
	ck_assert_uint_eq(b.closeds, 0);
}
END_TEST

/* Frames that were received already wait, too, and go on without another byte. */
START_TEST(resume_needs_no_new_bytes)
{
	uint8_t buf[1024];
	size_t len = 0;
	int fds[2];

	for (unsigned i = 0; i < 5; i++)
		len += put_frame(buf + len, i, 20);
	pair(fds, 0);
	open_end(&a, fds[0]);
	a.pause_at = 1;
	a.pauses = 1;
	ck_assert_int_eq(write(fds[1], buf, len), (ssize_t)len);
	RUN_UNTIL(a.pauses == 0);
	ck_assert_uint_eq(a.frames, 1);
	conn_resume(a.conn);
	RUN_UNTIL(a.frames == 5);
	ck_assert_uint_eq(a.frames, 5);
	close(fds[1]);
}
END_TEST

START_TEST(a_paused_connection_can_send)
{
	uint8_t buf[64], got[64];
	size_t len = put_frame(buf, 0, 20);
	int fds[2];

	pair(fds, 0);
	open_end(&a, fds[0]);
	a.pauses = 1;
	ck_assert_int_eq(write(fds[1], buf, len), (ssize_t)len);
	RUN_UNTIL(a.pauses == 0);
	send_frame(&a, 0, 20, false);
	RUN_UNTIL(a.sents == 1);
	ck_assert_uint_eq(a.sents, 1);
	ck_assert_int_eq(read(fds[1], got, sizeof(got)), (ssize_t)len);
	ck_assert_mem_eq(got, buf, len);
	ck_assert_uint_eq(a.frames, 0);
	close(fds[1]);
}
END_TEST

START_TEST(the_end_of_a_paused_connection)
{
	uint8_t buf[64];
	size_t len = put_frame(buf, 0, 20);
	int fds[2];

	pair(fds, 0);
	open_end(&a, fds[0]);
	a.pauses = 1;
	ck_assert_int_eq(write(fds[1], buf, len), (ssize_t)len);
	RUN_UNTIL(a.pauses == 0);
	conn_resume(a.conn);
	close(fds[1]);
	loop_run(loop);
	ck_assert_uint_eq(a.closeds, 1);
}
END_TEST

/* ---- ends ---- */

START_TEST(ends_of_the_other_side)
{
	static uint8_t buf[4096];
	size_t whole = put_frame(buf, 0, 100), cut;
	int fds[2];

	pair(fds, 0);
	open_end(&a, fds[0]);
	for (cut = 0; cut <= whole; cut += 27) {
		ck_assert_int_eq(write(fds[1], buf, cut), (ssize_t)cut);
		close(fds[1]);
		loop_run(loop);
		ck_assert_uint_eq(a.closeds, 1);
		ck_assert_int_eq(a.closed_err, cut == 0 || cut == whole ? 0 : -ECONNRESET);
		ck_assert_uint_eq(a.frames, cut == whole);
		a.closeds = a.frames = 0;
		end_close(&a);
		pair(fds, 0);
		open_end(&a, fds[0]);
	}
	close(fds[1]);
}
END_TEST

/* What a handler returns ends the connection, with that. */
START_TEST(handlers_refuse)
{
	uint8_t buf[256];
	size_t len = 0;
	int fds[2];

	for (unsigned i = 0; i < 4; i++)
		len += put_frame(buf + len, i, 20);
	pair(fds, 0);
	open_end(&a, fds[0]);
	a.fail_at = 2;
	*(_i ? &a.frame_rc : &a.header_rc) = -EPROTO;
	ck_assert_int_eq(write(fds[1], buf, len), (ssize_t)len);
	loop_run(loop);
	ck_assert_uint_eq(a.closeds, 1);
	ck_assert_int_eq(a.closed_err, -EPROTO);
	ck_assert_uint_eq(a.frames, _i ? 3 : 2);
	ck_assert_int_eq(write(fds[1], buf, 1), 1); /* the descriptor is the owner's to close */
	run_ms(1);
	ck_assert_uint_eq(a.closeds, 1);
	end_close(&a);
	close(fds[1]);
}
END_TEST

/* Everything that was queued is reported, once, with an error; then closed comes. */
START_TEST(a_send_that_fails)
{
	int fds[2];

	pair(fds, 1);
	open_end(&a, fds[0]);
	for (unsigned i = 0; i < 20; i++)
		send_frame(&a, i, 100000, false);
	run_ms(2); /* some of it leaves */
	ck_assert_uint_lt(a.sents, 20);
	close(fds[1]);
	loop_run(loop);
	ck_assert_uint_eq(a.sents, 20);
	ck_assert_uint_gt(a.sent_errors, 0);
	ck_assert_int_lt(a.sent_err, 0);
	ck_assert_uint_eq(a.closeds, 1);
	ck_assert_uint_eq(conn_queued(a.conn), 0);
	/* What is queued afterwards is reported by close. */
	a.sents = a.sent_errors = 0;
	send_frame(&a, 0, 10, false);
	run_ms(1);
	ck_assert_uint_eq(a.sents, 0);
	end_close(&a);
	ck_assert_uint_eq(a.sents, 1);
	ck_assert_int_eq(a.sent_err, -ESHUTDOWN);
}
END_TEST

START_TEST(close_reports_what_is_queued)
{
	int fds[2];

	pair(fds, 1);
	open_end(&a, fds[0]);
	for (unsigned i = 0; i < 20; i++)
		send_frame(&a, i, 100000, false);
	run_ms(2);
	end_close(&a);
	ck_assert_uint_eq(a.sents, 20);
	ck_assert_uint_gt(a.sent_errors, 0);
	ck_assert_int_eq(a.sent_err, -ESHUTDOWN);
	run_ms(1);
	ck_assert_uint_eq(a.closeds, 0);
	close(fds[1]);
	conn_close(NULL);
}
END_TEST

/* ---- closing from within ---- */

START_TEST(close_within_a_receiving_handler)
{
	static const enum close_in where[] = {IN_HEADER, IN_FRAME};
	uint8_t buf[256];
	size_t len = 0;
	int fds[2];

	for (unsigned i = 0; i < 4; i++)
		len += put_frame(buf + len, i, _i % 2 ? 20 : 0);
	pair(fds, 0);
	open_end(&a, fds[0]);
	a.close_in = where[_i / 2];
	ck_assert_int_eq(write(fds[1], buf, len), (ssize_t)len);
	RUN_UNTIL(!a.conn);
	ck_assert_ptr_null(a.conn);
	run_ms(1);
	ck_assert_uint_eq(a.headers, 1);
	ck_assert_uint_eq(a.frames, a.close_in == IN_FRAME);
	ck_assert_uint_eq(a.closeds, 0);
	close(fds[1]);
}
END_TEST

/* … also when there is something to send and to resume: those tasks then free it. */
START_TEST(close_with_tasks_queued)
{
	uint8_t buf[64];
	size_t len = put_frame(buf, 0, 10);
	int fds[2];

	pair(fds, 0);
	open_end(&a, fds[0]);
	a.pauses = 1;
	ck_assert_int_eq(write(fds[1], buf, len), (ssize_t)len);
	RUN_UNTIL(a.pauses == 0);
	send_frame(&a, 0, 10, false);
	conn_resume(a.conn);
	end_close(&a);
	ck_assert_uint_eq(a.sents, 1);
	run_ms(1);
	ck_assert_uint_eq(a.frames, 0);
	close(fds[1]);
}
END_TEST

START_TEST(close_within_sent)
{
	int fds[2];

	pair(fds, 0);
	open_end(&a, fds[0]);
	a.close_in = IN_SENT;
	for (unsigned i = 0; i < 3; i++)
		send_frame(&a, i, 10, false);
	RUN_UNTIL(!a.conn);
	ck_assert_ptr_null(a.conn);
	ck_assert_uint_eq(a.sents, 3);
	ck_assert_uint_eq(a.closeds, 0);
	close(fds[1]);
}
END_TEST

/* closed comes first, then what was queued is reported; there the owner closes. */
START_TEST(close_within_sent_of_a_lost_connection)
{
	int fds[2];

	pair(fds, 1);
	open_end(&a, fds[0]);
	for (unsigned i = 0; i < 10; i++)
		send_frame(&a, i, 100000, false);
	run_ms(2);
	a.close_in = IN_SENT;
	close(fds[1]);
	RUN_UNTIL(!a.conn);
	ck_assert_ptr_null(a.conn);
	run_ms(1);
	ck_assert_uint_eq(a.sents, 10);
	ck_assert_uint_eq(a.closeds, 1);
}
END_TEST

START_TEST(close_within_closed)
{
	int fds[2];

	pair(fds, 1);
	open_end(&a, fds[0]);
	a.close_in = IN_CLOSED;
	for (unsigned i = 0; i < 10; i++)
		send_frame(&a, i, _i ? 100000 : 0, false);
	run_ms(2);
	close(fds[1]);
	loop_run(loop);
	ck_assert_ptr_null(a.conn);
	ck_assert_uint_eq(a.closeds, 1);
	ck_assert_uint_eq(a.sents, 10);
}
END_TEST

/* A descriptor that can't be watched: it is closed all the same. */
START_TEST(create_takes_the_descriptor)
{
	int fds[2], other;
	struct err err;

	pair(fds, 0);
	open_end(&a, fds[0]);
	other = dup(fds[1]);
	ck_assert_int_eq(conn_create(loop, -1, &handlers, &b, &b.conn, &err), -EBADF);
	ck_assert_ptr_null(b.conn);
	close(other);
	close(fds[1]);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("conn");
	TCase *tc = tcase_create("conn");
	SRunner *sr = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, integrity, 0, 3);
	tcase_add_test(tc, many_small_frames);
	tcase_add_loop_test(tc, long_payloads_through_a_pipe, 0, 2);
	tcase_add_test(tc, a_pipe_too_small);
	tcase_add_test(tc, the_end_within_a_piped_payload);
	tcase_add_loop_test(tc, any_segmentation, 0, 7);
	tcase_add_test(tc, a_flood_leaves_others_their_turn);
	tcase_add_test(tc, a_paused_connection_reads_nothing);
	tcase_add_test(tc, resume_needs_no_new_bytes);
	tcase_add_test(tc, a_paused_connection_can_send);
	tcase_add_test(tc, the_end_of_a_paused_connection);
	tcase_add_test(tc, ends_of_the_other_side);
	tcase_add_loop_test(tc, handlers_refuse, 0, 2);
	tcase_add_test(tc, a_send_that_fails);
	tcase_add_test(tc, close_reports_what_is_queued);
	tcase_add_loop_test(tc, close_within_a_receiving_handler, 0, 4);
	tcase_add_test(tc, close_with_tasks_queued);
	tcase_add_test(tc, close_within_sent);
	tcase_add_test(tc, close_within_sent_of_a_lost_connection);
	tcase_add_loop_test(tc, close_within_closed, 0, 2);
	tcase_add_test(tc, create_takes_the_descriptor);
	suite_add_tcase(suite, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
