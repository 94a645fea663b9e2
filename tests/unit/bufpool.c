/* SPDX-License-Identifier: Apache-2.0
 *
 * The pool of buffers: each is given once, they do not overlap, the last back is the first out.
 */
#include "core/bufpool.h"

#include <check.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { COUNT = 20 };

static struct bufpool *pool;
static uint8_t *bufs[COUNT];

static void make(size_t size, bool touch)
{
	struct err err;

	ck_assert_int_eq(bufpool_create(size, COUNT, touch, &pool, &err), 0);
	ck_assert_uint_eq(bufpool_left(pool), COUNT);
}

static void take_all(void)
{
	for (unsigned i = 0; i < COUNT; i++) {
		bufs[i] = bufpool_get(pool);
		ck_assert_ptr_nonnull(bufs[i]);
		ck_assert_uint_eq((uintptr_t)bufs[i] % 4096, 0);
		ck_assert_uint_eq(bufpool_left(pool), COUNT - 1 - i);
	}
}

static void put_all(void)
{
	for (unsigned i = 0; i < COUNT; i++)
		bufpool_put(pool, bufs[i]);
	ck_assert_uint_eq(bufpool_left(pool), COUNT);
}

START_TEST(buffers_do_not_overlap)
{
	static const size_t sizes[] = {1, 4096, 5000, 1 << 20};
	size_t size = sizes[_i];

	make(size, _i % 2);
	take_all();
	ck_assert_ptr_null(bufpool_get(pool));
	ck_assert_ptr_null(bufpool_get(pool));
	for (unsigned i = 0; i < COUNT; i++)
		memset(bufs[i], (int)i + 1, size);
	for (unsigned i = 0; i < COUNT; i++)
		for (size_t at = 0; at < size; at++)
			if (bufs[i][at] != i + 1)
				ck_abort_msg("buffer %u, byte %zu", i, at);
	put_all();
	bufpool_destroy(pool);
}
END_TEST

START_TEST(the_last_back_is_the_first_out)
{
	uint8_t *first, *second;

	make(4096, false);
	first = bufpool_get(pool);
	second = bufpool_get(pool);
	ck_assert_ptr_ne(first, second);
	bufpool_put(pool, first);
	ck_assert_ptr_eq(bufpool_get(pool), first);
	bufpool_put(pool, second);
	bufpool_put(pool, first);
	ck_assert_ptr_eq(bufpool_get(pool), first);
	ck_assert_ptr_eq(bufpool_get(pool), second);
	bufpool_put(pool, first);
	bufpool_put(pool, second);
	bufpool_destroy(pool);
}
END_TEST

/* Pages of the pool that are in memory. */
static unsigned resident(void)
{
	unsigned char vec[COUNT];
	uint8_t *base = bufs[0];
	unsigned n = 0;

	for (unsigned i = 1; i < COUNT; i++)
		base = bufs[i] < base ? bufs[i] : base;
	ck_assert_int_eq(mincore(base, COUNT * (size_t)4096, vec), 0);
	for (unsigned i = 0; i < COUNT; i++)
		n += vec[i] & 1;
	return n;
}

/* Trimming takes the memory of those that are in, and leaves those that are out as they are. */
START_TEST(trim)
{
	make(4096, true);
	take_all();
	ck_assert_uint_eq(resident(), COUNT);
	for (unsigned i = 0; i < COUNT; i++)
		memset(bufs[i], (int)i + 1, 4096);
	for (unsigned i = 5; i < COUNT; i++)
		bufpool_put(pool, bufs[i]);
	bufpool_trim(pool);
	ck_assert_uint_eq(resident(), 5);
	for (unsigned i = 0; i < 5; i++)
		for (unsigned at = 0; at < 4096; at++)
			ck_assert_uint_eq(bufs[i][at], i + 1);
	for (unsigned i = 5; i < COUNT; i++) {
		uint8_t *buf = bufpool_get(pool);

		ck_assert_ptr_nonnull(buf);
		memset(buf, 7, 4096);
	}
	put_all();
	bufpool_destroy(pool);
}
END_TEST

START_TEST(untouched_memory_is_not_used)
{
	make(4096, false);
	take_all();
	ck_assert_uint_eq(resident(), 0);
	put_all();
	bufpool_destroy(pool);
}
END_TEST

START_TEST(too_much_is_an_error)
{
	struct err err = {0};

	ck_assert_int_eq(bufpool_create((size_t)1 << 46, 1 << 10, false, &pool, &err), -12);
	ck_assert_ptr_nonnull(strstr(err.text, "out of memory"));
	bufpool_destroy(NULL);
}
END_TEST

START_TEST(destroy_asserts_that_all_are_back)
{
	make(4096, false);
	bufpool_get(pool);
	bufpool_destroy(pool);
}
END_TEST

START_TEST(put_asserts_that_it_is_a_buffer)
{
	uint8_t *buf;

	make(4096, false);
	buf = bufpool_get(pool);
	bufpool_put(pool, _i ? buf + 1 : (uint8_t *)&pool);
}
END_TEST

START_TEST(put_asserts_that_one_is_out)
{
	uint8_t *buf;

	make(4096, false);
	buf = bufpool_get(pool);
	bufpool_put(pool, buf);
	bufpool_put(pool, buf);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("bufpool");
	TCase *tc = tcase_create("bufpool");
	SRunner *sr = srunner_create(suite);
	int failed;

	tcase_add_loop_test(tc, buffers_do_not_overlap, 0, 4);
	tcase_add_test(tc, the_last_back_is_the_first_out);
	tcase_add_test(tc, trim);
	tcase_add_test(tc, untouched_memory_is_not_used);
	tcase_add_test(tc, too_much_is_an_error);
	tcase_add_test_raise_signal(tc, destroy_asserts_that_all_are_back, SIGABRT);
	tcase_add_loop_test_raise_signal(tc, put_asserts_that_it_is_a_buffer, SIGABRT, 0, 2);
	tcase_add_test_raise_signal(tc, put_asserts_that_one_is_out, SIGABRT);
	suite_add_tcase(suite, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
