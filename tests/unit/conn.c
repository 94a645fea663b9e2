/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections that carry frames: integrity through small socket buffers, turns, pausing.  (Ends: conn_end.c.
 * Payloads in a pipe: conn_pipe.c.)
 */
#include "core/conn.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/lib/ends.h"

/* ---- bytes arrive as they were sent ---- */

START_TEST(integrity)
{
	static const int buffers[] = {1, 16384, 0}; /* 1: the least that the kernel allows */
	enum { FRAMES = 400 };
	uint64_t bytes = 0;
	int fds[2];

	srandom(1);
	ends_pair(fds, buffers[_i]);
	end_open(&ends.a, fds[0]);
	end_open(&ends.b, fds[1]);
	for (unsigned i = 0; i < FRAMES; i++) {
		uint32_t len = end_size_of(i);

		end_send(&ends.a, i, len, i % 3 == 0);
		bytes += END_HEADER + len;
	}
	ck_assert_uint_eq(conn_queued(ends.a.conn), bytes);
	ends.b.stop_after = FRAMES;
	loop_run(ends.loop);
	ck_assert_uint_eq(ends.b.frames, FRAMES);
	ck_assert_uint_eq(ends.a.sents, FRAMES);
	ck_assert_uint_eq(ends.a.sent_errors, 0);
	ck_assert_uint_eq(conn_queued(ends.a.conn), 0);
	ck_assert_uint_eq(conn_bytes_out(ends.a.conn), bytes);
	ck_assert_uint_eq(conn_bytes_in(ends.b.conn), bytes);
	ck_assert_uint_eq(ends.a.closeds + ends.b.closeds, 0);
}
END_TEST

/* More small frames than one sendmsg takes. */
START_TEST(many_small_frames)
{
	int fds[2];

	ends_pair(fds, 0);
	end_open(&ends.a, fds[0]);
	end_open(&ends.b, fds[1]);
	for (unsigned i = 0; i < END_OUTS; i++)
		end_send(&ends.a, i, i % 3, i % 5 == 0);
	ends.b.stop_after = END_OUTS;
	loop_run(ends.loop);
	ck_assert_uint_eq(ends.b.frames, END_OUTS);
	ck_assert_uint_eq(ends.a.sents, END_OUTS);
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
		len += end_put(buf + len, i, i * i * 13);
	ends_pair(fds, 0);
	end_open(&ends.a, fds[0]);
	while (done < len) {
		size_t n = steps[_i] < len - done ? steps[_i] : len - done;

		ck_assert_int_eq(write(fds[1], buf + done, n), (ssize_t)n);
		done += n;
		ends_run_ms(0);
	}
	ENDS_RUN_UNTIL(ends.a.frames == 12);
	ck_assert_uint_eq(ends.a.frames, 12);
	close(fds[1]);
	loop_run(ends.loop);
	ck_assert_uint_eq(ends.a.closeds, 1);
	ck_assert_int_eq(ends.a.closed_err, 0);
}
END_TEST

/* A flood on one connection leaves the other its turn: its one frame is not last. */
START_TEST(a_flood_leaves_others_their_turn)
{
	enum { FRAMES = 30 };
	static struct end flood;
	int fds[2], other[2];
	uint8_t buf[64];
	size_t len = end_put(buf, 0, 5);

	flood.payload = malloc(END_PAYLOAD_MAX);
	ends_pair(fds, 64 << 20);
	ends_pair(other, 0);
	end_open(&ends.b, fds[1]);
	end_open(&flood, fds[0]);
	end_open(&ends.a, other[0]);
	for (unsigned i = 0; i < FRAMES; i++)
		end_send(&flood, i, END_PAYLOAD_MAX, false);
	ck_assert_int_eq(write(other[1], buf, len), (ssize_t)len);
	ends.a.stop_after = 1;
	loop_run(ends.loop);
	ck_assert_uint_eq(ends.a.frames, 1);
	ck_assert_uint_lt(ends.b.frames, FRAMES);
	ends.b.stop_after = FRAMES;
	loop_run(ends.loop);
	close(other[1]);
	end_fini(&flood);
}
END_TEST

/* ---- pausing ---- */

START_TEST(a_paused_connection_reads_nothing)
{
	int fds[2];

	ends_pair(fds, 1);
	end_open(&ends.a, fds[0]);
	end_open(&ends.b, fds[1]);
	ends.b.pause_at = 3;
	ends.b.pauses = 2;
	for (unsigned i = 0; i < 10; i++)
		end_send(&ends.a, i, 200000, false);
	ENDS_RUN_UNTIL(ends.b.pauses == 1);
	ends_run_ms(5);
	ck_assert_uint_eq(ends.b.frames, 3);
	ck_assert_uint_eq(ends.b.headers, 3);
	ck_assert_uint_gt(conn_queued(ends.a.conn), 0); /* the sender feels it */
	conn_resume(ends.b.conn);
	conn_resume(ends.b.conn);
	ENDS_RUN_UNTIL(ends.b.pauses == 0);
	ends_run_ms(2);
	ck_assert_uint_eq(ends.b.pauses, 0); /* the same header came again, and paused again */
	ck_assert_uint_eq(ends.b.frames, 3);
	conn_resume(ends.b.conn);
	ends.b.stop_after = 10;
	loop_run(ends.loop);
	ck_assert_uint_eq(ends.b.frames, 10);
	conn_resume(ends.b.conn); /* not paused: nothing */
	ends_run_ms(1);
	ck_assert_uint_eq(ends.b.closeds, 0);
}
END_TEST

/* Frames that were received already wait, too, and go on without another byte. */
START_TEST(resume_needs_no_new_bytes)
{
	uint8_t buf[1024];
	size_t len = 0;
	int fds[2];

	for (unsigned i = 0; i < 5; i++)
		len += end_put(buf + len, i, 20);
	ends_pair(fds, 0);
	end_open(&ends.a, fds[0]);
	ends.a.pause_at = 1;
	ends.a.pauses = 1;
	ck_assert_int_eq(write(fds[1], buf, len), (ssize_t)len);
	ENDS_RUN_UNTIL(ends.a.pauses == 0);
	ck_assert_uint_eq(ends.a.frames, 1);
	conn_resume(ends.a.conn);
	ENDS_RUN_UNTIL(ends.a.frames == 5);
	ck_assert_uint_eq(ends.a.frames, 5);
	close(fds[1]);
}
END_TEST

START_TEST(a_paused_connection_can_send)
{
	uint8_t buf[64], got[64];
	size_t len = end_put(buf, 0, 20);
	int fds[2];

	ends_pair(fds, 0);
	end_open(&ends.a, fds[0]);
	ends.a.pauses = 1;
	ck_assert_int_eq(write(fds[1], buf, len), (ssize_t)len);
	ENDS_RUN_UNTIL(ends.a.pauses == 0);
	end_send(&ends.a, 0, 20, false);
	ENDS_RUN_UNTIL(ends.a.sents == 1);
	ck_assert_uint_eq(ends.a.sents, 1);
	ck_assert_int_eq(read(fds[1], got, sizeof(got)), (ssize_t)len);
	ck_assert_mem_eq(got, buf, len);
	ck_assert_uint_eq(ends.a.frames, 0);
	close(fds[1]);
}
END_TEST

START_TEST(the_end_of_a_paused_connection)
{
	uint8_t buf[64];
	size_t len = end_put(buf, 0, 20);
	int fds[2];

	ends_pair(fds, 0);
	end_open(&ends.a, fds[0]);
	ends.a.pauses = 1;
	ck_assert_int_eq(write(fds[1], buf, len), (ssize_t)len);
	ENDS_RUN_UNTIL(ends.a.pauses == 0);
	conn_resume(ends.a.conn);
	close(fds[1]);
	loop_run(ends.loop);
	ck_assert_uint_eq(ends.a.closeds, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("conn");
	TCase *tc = tcase_create("conn");
	SRunner *sr = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, ends_setup, ends_teardown);
	tcase_add_loop_test(tc, integrity, 0, 3);
	tcase_add_test(tc, many_small_frames);
	tcase_add_loop_test(tc, any_segmentation, 0, 7);
	tcase_add_test(tc, a_flood_leaves_others_their_turn);
	tcase_add_test(tc, a_paused_connection_reads_nothing);
	tcase_add_test(tc, resume_needs_no_new_bytes);
	tcase_add_test(tc, a_paused_connection_can_send);
	tcase_add_test(tc, the_end_of_a_paused_connection);
	suite_add_tcase(suite, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
