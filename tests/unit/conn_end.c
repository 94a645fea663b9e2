/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections that carry frames: ends of all kinds, closing from within every handler.
 */
#include "core/conn.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/lib/ends.h"

/* ---- ends ---- */

START_TEST(ends_of_the_other_side)
{
	static uint8_t buf[4096];
	size_t whole = end_put(buf, 0, 100), cut;
	int fds[2];

	ends_pair(fds, 0);
	end_open(&ends.a, fds[0]);
	for (cut = 0; cut <= whole; cut += 27) {
		ck_assert_int_eq(write(fds[1], buf, cut), (ssize_t)cut);
		close(fds[1]);
		loop_run(ends.loop);
		ck_assert_uint_eq(ends.a.closeds, 1);
		ck_assert_int_eq(ends.a.closed_err, cut == 0 || cut == whole ? 0 : -ECONNRESET);
		ck_assert_uint_eq(ends.a.frames, cut == whole);
		ends.a.closeds = ends.a.frames = 0;
		end_close(&ends.a);
		ends_pair(fds, 0);
		end_open(&ends.a, fds[0]);
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
		len += end_put(buf + len, i, 20);
	ends_pair(fds, 0);
	end_open(&ends.a, fds[0]);
	ends.a.fail_at = 2;
	*(_i ? &ends.a.frame_rc : &ends.a.header_rc) = -EPROTO;
	ck_assert_int_eq(write(fds[1], buf, len), (ssize_t)len);
	loop_run(ends.loop);
	ck_assert_uint_eq(ends.a.closeds, 1);
	ck_assert_int_eq(ends.a.closed_err, -EPROTO);
	ck_assert_uint_eq(ends.a.frames, _i ? 3 : 2);
	ck_assert_int_eq(write(fds[1], buf, 1), 1); /* the descriptor is the owner's to close */
	ends_run_ms(1);
	ck_assert_uint_eq(ends.a.closeds, 1);
	end_close(&ends.a);
	close(fds[1]);
}
END_TEST

/* Everything that was queued is reported, once, with an error; then closed comes. */
START_TEST(a_send_that_fails)
{
	int fds[2];

	ends_pair(fds, 1);
	end_open(&ends.a, fds[0]);
	for (unsigned i = 0; i < 20; i++)
		end_send(&ends.a, i, 100000, false);
	ends_run_ms(2); /* some of it leaves */
	ck_assert_uint_lt(ends.a.sents, 20);
	close(fds[1]);
	loop_run(ends.loop);
	ck_assert_uint_eq(ends.a.sents, 20);
	ck_assert_uint_gt(ends.a.sent_errors, 0);
	ck_assert_int_lt(ends.a.sent_err, 0);
	ck_assert_uint_eq(ends.a.closeds, 1);
	ck_assert_uint_eq(conn_queued(ends.a.conn), 0);
	/* What is queued afterwards is reported by close. */
	ends.a.sents = ends.a.sent_errors = 0;
	end_send(&ends.a, 0, 10, false);
	ends_run_ms(1);
	ck_assert_uint_eq(ends.a.sents, 0);
	end_close(&ends.a);
	ck_assert_uint_eq(ends.a.sents, 1);
	ck_assert_int_eq(ends.a.sent_err, -ESHUTDOWN);
}
END_TEST

START_TEST(close_reports_what_is_queued)
{
	int fds[2];

	ends_pair(fds, 1);
	end_open(&ends.a, fds[0]);
	for (unsigned i = 0; i < 20; i++)
		end_send(&ends.a, i, 100000, false);
	ends_run_ms(2);
	end_close(&ends.a);
	ck_assert_uint_eq(ends.a.sents, 20);
	ck_assert_uint_gt(ends.a.sent_errors, 0);
	ck_assert_int_eq(ends.a.sent_err, -ESHUTDOWN);
	ends_run_ms(1);
	ck_assert_uint_eq(ends.a.closeds, 0);
	close(fds[1]);
	conn_close(NULL);
}
END_TEST

/* ---- closing from within ---- */

START_TEST(close_within_a_receiving_handler)
{
	static const enum end_close_in where[] = {END_IN_HEADER, END_IN_FRAME};
	uint8_t buf[256];
	size_t len = 0;
	int fds[2];

	for (unsigned i = 0; i < 4; i++)
		len += end_put(buf + len, i, _i % 2 ? 20 : 0);
	ends_pair(fds, 0);
	end_open(&ends.a, fds[0]);
	ends.a.close_in = where[_i / 2];
	ck_assert_int_eq(write(fds[1], buf, len), (ssize_t)len);
	ENDS_RUN_UNTIL(!ends.a.conn);
	ck_assert_ptr_null(ends.a.conn);
	ends_run_ms(1);
	ck_assert_uint_eq(ends.a.headers, 1);
	ck_assert_uint_eq(ends.a.frames, ends.a.close_in == END_IN_FRAME);
	ck_assert_uint_eq(ends.a.closeds, 0);
	close(fds[1]);
}
END_TEST

/* … also when there is something to send and to resume: those tasks then free it. */
START_TEST(close_with_tasks_queued)
{
	uint8_t buf[64];
	size_t len = end_put(buf, 0, 10);
	int fds[2];

	ends_pair(fds, 0);
	end_open(&ends.a, fds[0]);
	ends.a.pauses = 1;
	ck_assert_int_eq(write(fds[1], buf, len), (ssize_t)len);
	ENDS_RUN_UNTIL(ends.a.pauses == 0);
	end_send(&ends.a, 0, 10, false);
	conn_resume(ends.a.conn);
	end_close(&ends.a);
	ck_assert_uint_eq(ends.a.sents, 1);
	ends_run_ms(1);
	ck_assert_uint_eq(ends.a.frames, 0);
	close(fds[1]);
}
END_TEST

START_TEST(close_within_sent)
{
	int fds[2];

	ends_pair(fds, 0);
	end_open(&ends.a, fds[0]);
	ends.a.close_in = END_IN_SENT;
	for (unsigned i = 0; i < 3; i++)
		end_send(&ends.a, i, 10, false);
	ENDS_RUN_UNTIL(!ends.a.conn);
	ck_assert_ptr_null(ends.a.conn);
	ck_assert_uint_eq(ends.a.sents, 3);
	ck_assert_uint_eq(ends.a.closeds, 0);
	close(fds[1]);
}
END_TEST

/* closed comes first, then what was queued is reported; there the owner closes. */
START_TEST(close_within_sent_of_a_lost_connection)
{
	int fds[2];

	ends_pair(fds, 1);
	end_open(&ends.a, fds[0]);
	for (unsigned i = 0; i < 10; i++)
		end_send(&ends.a, i, 100000, false);
	ends_run_ms(2);
	ends.a.close_in = END_IN_SENT;
	close(fds[1]);
	ENDS_RUN_UNTIL(!ends.a.conn);
	ck_assert_ptr_null(ends.a.conn);
	ends_run_ms(1);
	ck_assert_uint_eq(ends.a.sents, 10);
	ck_assert_uint_eq(ends.a.closeds, 1);
}
END_TEST

START_TEST(close_within_closed)
{
	int fds[2];

	ends_pair(fds, 1);
	end_open(&ends.a, fds[0]);
	ends.a.close_in = END_IN_CLOSED;
	for (unsigned i = 0; i < 10; i++)
		end_send(&ends.a, i, _i ? 100000 : 0, false);
	ends_run_ms(2);
	close(fds[1]);
	loop_run(ends.loop);
	ck_assert_ptr_null(ends.a.conn);
	ck_assert_uint_eq(ends.a.closeds, 1);
	ck_assert_uint_eq(ends.a.sents, 10);
}
END_TEST

/* A descriptor that can't be watched: it is closed all the same. */
START_TEST(create_takes_the_descriptor)
{
	int fds[2], other;
	struct err err;

	ends_pair(fds, 0);
	end_open(&ends.a, fds[0]);
	other = dup(fds[1]);
	ck_assert_int_eq(
	    conn_create(ends.loop, -1, &end_handlers, &ends.b, &ends.b.conn, &err), -EBADF);
	ck_assert_ptr_null(ends.b.conn);
	close(other);
	close(fds[1]);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("conn_end");
	TCase *tc = tcase_create("conn_end");
	SRunner *sr = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, ends_setup, ends_teardown);
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
