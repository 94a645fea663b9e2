/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections that carry frames: long payloads that their owner takes from a pipe.
 */
#include "core/conn.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/lib/ends.h"

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
	end_open(&ends.a, fds[0]);
	end_open(&ends.b, fds[1]);
	ends.b.pipes = true;
	ends.b.leave = _i ? 5000 : 0;
	for (unsigned i = 0; i < FRAMES; i++)
		end_send(&ends.a, i, i % 40 < 20 ? CONN_PIPE_MIN + i * 1111 : end_size_of(i),
		    i % 3 == 0);
	ends.b.stop_after = FRAMES;
	loop_run(ends.loop);
	ck_assert_uint_eq(ends.b.frames, FRAMES);
	ck_assert_uint_gt(ends.b.piped, FRAMES / 4);
	ck_assert_uint_eq(ends.a.closeds + ends.b.closeds, 0);
}
END_TEST

/* A pipe holds a number of fragments: here come more, and the payload goes to the buffer. */
START_TEST(a_pipe_too_small)
{
	enum { FRAMES = 6, LEN = 1 << 20, PAGE = 4096 };
	uint8_t *frame = malloc(END_HEADER + LEN);
	int fds[2], cut[2];
	FILE *pages = tmpfile();
	uint32_t at = END_HEADER;

	tcp_pair(fds);
	ck_assert_int_eq(pipe(cut), 0);
	ck_assert_ptr_nonnull(pages);
	end_open(&ends.a, fds[0]);
	ends.a.pipes = true;
	for (uint32_t number = 0; number < FRAMES; number++) {
		loff_t off = number * LEN; /* pages of its own: they are sent by reference */

		end_put(frame, number, LEN);
		ck_assert_int_eq(pwrite(fileno(pages), frame + END_HEADER, LEN, off), LEN);
		ck_assert_int_eq(write(fds[1], frame, END_HEADER), END_HEADER);
		ends_run_ms(1);
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
				ends_run_ms(0);
			}
		}
	}
	ENDS_RUN_UNTIL(ends.a.frames == FRAMES);
	ck_assert_uint_eq(ends.a.frames, FRAMES);
	ck_assert_uint_eq(ends.a.piped, 0);
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
	uint8_t *frame = malloc(END_HEADER + CONN_PIPE_MIN);
	int fds[2];

	tcp_pair(fds);
	end_open(&ends.a, fds[0]);
	ends.a.pipes = true;
	for (uint32_t number = 0; number < 2; number++) {
		size_t len = end_put(frame, number, CONN_PIPE_MIN) - number * 1000;

		for (size_t done = 0; done < len;) {
			ssize_t n = write(fds[1], frame + done, len - done);

			done += n > 0 ? (size_t)n : 0;
			ends_run_ms(0);
		}
	}
	close(fds[1]);
	ENDS_RUN_UNTIL(ends.a.closeds);
	ck_assert_uint_eq(ends.a.frames, 1);
	ck_assert_uint_eq(ends.a.closeds, 1);
	ck_assert_int_eq(ends.a.closed_err, -ECONNRESET);
	free(frame);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("conn_pipe");
	TCase *tc = tcase_create("conn_pipe");
	SRunner *sr = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, ends_setup, ends_teardown);
	tcase_add_loop_test(tc, long_payloads_through_a_pipe, 0, 2);
	tcase_add_test(tc, a_pipe_too_small);
	tcase_add_test(tc, the_end_within_a_piped_payload);
	suite_add_tcase(suite, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
