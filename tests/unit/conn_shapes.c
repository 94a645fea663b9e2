/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections whose headers change their length, and whose payloads go to several places (conn_set_header_len,
 * conn_more): every byte arrives where it should, however the stream is cut.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/conn.h"

enum { FRAMES = 60, PIECE = 1000, STREAM_MAX = FRAMES * (CONN_HEADER_MAX + 3 * PIECE) };

/* A header: the payload's length, the next header's length, its own number as often as there is room. */
static struct loop *loop;
static unsigned frames;
static uint32_t len, got, next_len;
static uint8_t stream[STREAM_MAX], piece[PIECE], payload[3 * PIECE];
static size_t stream_len;

static uint32_t header_len_of(unsigned number)
{
	return 8 + number * 7 % (CONN_HEADER_MAX - 7);
}

static void make_stream(void)
{
	uint8_t *p = stream;

	for (unsigned i = 0; i < FRAMES; i++) {
		uint32_t head[2] = {i * 997 % (3 * PIECE), header_len_of(i + 1)};

		memset(p, (int)i, header_len_of(i));
		memcpy(p, head, 8);
		p += header_len_of(i);
		for (uint32_t k = 0; k < head[0]; k++)
			*p++ = (uint8_t)(i + k / 3);
	}
	stream_len = (size_t)(p - stream);
}

static uint32_t piece_len(void)
{
	return len - got < PIECE ? len - got : PIECE;
}

static int on_header(struct conn *conn, const uint8_t *header, void **ret_buf, uint32_t *ret_len)
{
	memcpy(&len, header, 4);
	memcpy(&next_len, header + 4, 4);
	for (uint32_t i = 8; i < header_len_of(frames); i++)
		ck_assert_uint_eq(header[i], frames);
	got = 0;
	*ret_len = piece_len();
	*ret_buf = piece;
	return 0;
}

static int on_frame(struct conn *conn)
{
	uint32_t n = piece_len();

	memcpy(payload + got, piece, n);
	memset(piece, 0xee, n);
	got += n;
	if (got < len) {
		conn_more(conn, piece, piece_len());
		return 0;
	}
	for (uint32_t k = 0; k < len; k++)
		if (payload[k] != (uint8_t)(frames + k / 3))
			ck_abort_msg("frame %u: byte %u", frames, k);
	conn_set_header_len(conn, next_len);
	frames++;
	return 0;
}

static void on_closed(struct conn *conn, int err)
{
	ck_assert_int_eq(err, 0); /* at a frame's boundary */
	conn_close(conn);
	loop_stop(loop);
}

static void stop_now(struct loop_timer *timer)
{
	loop_stop(loop);
}

START_TEST(shapes)
{
	static const size_t cuts[] = {STREAM_MAX, 4096, 1001, 97};
	const struct conn_handlers handlers = {.header_len = header_len_of(0),
	    .header = on_header,
	    .frame = on_frame,
	    .closed = on_closed};
	struct loop_timer timer = {.expired = stop_now};
	struct loop_conf conf = {0};
	struct conn *conn;
	struct err err;
	int fds[2];

	make_stream();
	frames = 0;
	ck_assert_int_eq(loop_create(&conf, &loop, &err), 0);
	ck_assert_int_eq(
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	ck_assert_int_eq(conn_create(loop, fds[0], &handlers, NULL, &conn, &err), 0);
	for (size_t off = 0; off < stream_len;) {
		size_t n = stream_len - off < cuts[_i] ? stream_len - off : cuts[_i];
		ssize_t sent = write(fds[1], stream + off, n);

		off += sent > 0 ? (size_t)sent : 0;
		loop_timer_set(loop, &timer, loop_now_ns() + 200000);
		loop_run(loop);
	}
	close(fds[1]);
	loop_run(loop);
	ck_assert_uint_eq(frames, FRAMES);
	loop_timer_cancel(&timer);
	loop_destroy(loop);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("conn_shapes");
	TCase *tc = tcase_create("shapes");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tc, shapes, 0, 4);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
