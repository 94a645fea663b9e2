/* SPDX-License-Identifier: Apache-2.0
 *
 * Long payloads over TCP, whose pieces are read many at a time: what trickles is not lost, late or taken for silence.
 */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/lib/ends.h"

enum { KIB = 1024, LEN = 300 * KIB, LONG = 3 << 20 };

static uint8_t *frame;
static int writer; /* the far end */

/* ends.a on one end of a TCP connection; its receive buffer: 0 as it is. */
static void tcp_pair(int buffer)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(addr);
	int listener = socket(AF_INET, SOCK_STREAM, 0), fd;

	if (buffer)
		ck_assert_int_eq(
		    setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer)), 0);
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&addr, len), 0);
	ck_assert_int_eq(listen(listener, 1), 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
	writer = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(connect(writer, (struct sockaddr *)&addr, len), 0);
	fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	close(listener);
	conn_tune(writer);
	conn_tune(fd);
	end_open(&ends.a, fd);
}

static void setup(void)
{
	ends_setup();
	frame = malloc(END_HEADER + END_PAYLOAD_MAX);
}

static void teardown(void)
{
	close(writer);
	free(frame);
	ends_teardown();
}

static void put(size_t from, size_t to)
{
	ck_assert_int_eq(write(writer, frame + from, to - from), (ssize_t)(to - from));
}

/* Until so many bytes have come, read or not. */
static void run_until_in(size_t bytes)
{
	ENDS_RUN_UNTIL(conn_bytes_in(ends.a.conn) >= bytes);
	ck_assert_uint_eq(conn_bytes_in(ends.a.conn), bytes);
}

START_TEST(what_waits_has_come)
{
	size_t len = end_put(frame, 0, LEN);

	tcp_pair(0);
	put(0, END_HEADER + 10);
	ENDS_RUN_UNTIL(ends.a.headers == 1);
	for (size_t at = END_HEADER + 10; at < 90 * KIB; at += KIB) {
		put(at, at + KIB);
		run_until_in(at + KIB);
	}
	ends_run_ms(20);
	ck_assert_uint_eq(ends.a.frames, 0);
	put(conn_bytes_in(ends.a.conn), len);
	ENDS_RUN_UNTIL(ends.a.frames == 1);
	run_until_in(len);
}
END_TEST

/* The last piece of a payload is as long as it is, and what follows is told of at once again. */
START_TEST(the_last_piece_and_the_next_frame)
{
	for (unsigned i = 0; i < 20; i++) {
		size_t len = end_put(frame, 2 * i, LEN + 7 * i);

		if (i == 0)
			tcp_pair(0);
		put(0, len - 70 * KIB - i);
		ends_run_ms(1);
		put(len - 70 * KIB - i, len - 1);
		ends_run_ms(1);
		ck_assert_uint_eq(ends.a.frames, 2 * i);
		put(len - 1, len);
		ENDS_RUN_UNTIL(ends.a.frames == 2 * i + 1);
		ck_assert_uint_eq(ends.a.frames, 2 * i + 1);
		len = end_put(frame, 2 * i + 1, 1);
		put(0, len);
		ENDS_RUN_UNTIL(ends.a.frames == 2 * i + 2);
		ck_assert_uint_eq(ends.a.frames, 2 * i + 2);
	}
}
END_TEST

static size_t to_write;

static void *write_all(void *arg)
{
	for (size_t done = 0; done < to_write;) {
		ssize_t n = write(writer, frame + done, to_write - done);

		if (n < 0)
			break;
		done += (size_t)n;
	}
	return NULL;
}

/* A buffer that never holds as much as is asked for together. */
START_TEST(a_small_buffer)
{
	pthread_t thread;

	to_write = end_put(frame, 0, LONG);
	tcp_pair(4096);
	pthread_create(&thread, NULL, write_all, NULL);
	ENDS_RUN_UNTIL(ends.a.frames == 1);
	ck_assert_uint_eq(ends.a.frames, 1);
	pthread_join(thread, NULL);
}
END_TEST

START_TEST(the_end_within_a_payload)
{
	end_put(frame, 0, LEN);
	tcp_pair(0);
	put(0, 50 * KIB);
	ENDS_RUN_UNTIL(ends.a.headers == 1);
	put(50 * KIB, 60 * KIB);
	shutdown(writer, SHUT_WR);
	ENDS_RUN_UNTIL(ends.a.closeds == 1);
	ck_assert_uint_eq(ends.a.closeds, 1);
	ck_assert_int_eq(ends.a.closed_err, -ECONNRESET);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("conn_together");
	TCase *tc = tcase_create("together");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, what_waits_has_come);
	tcase_add_test(tc, the_last_piece_and_the_next_frame);
	tcase_add_test(tc, a_small_buffer);
	tcase_add_test(tc, the_end_within_a_payload);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
