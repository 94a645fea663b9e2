/* SPDX-License-Identifier: Apache-2.0
 *
 * The histogram: bucket borders, percentiles against an exact sort, the error bound.
 */
#include "core/hist.h"

#include <check.h>
#include <stdlib.h>

static struct hist hist;

static void setup(void)
{
	hist = (struct hist){0};
}

START_TEST(empty_is_zero)
{
	ck_assert_uint_eq(hist_total(&hist), 0);
	ck_assert_uint_eq(hist_percentile(&hist, 50), 0);
	ck_assert_uint_eq(hist_percentile(&hist, 100), 0);
}
END_TEST

START_TEST(each_value_is_bounded)
{
	/* Alone in the histogram a value comes back as itself to 12.5 % more. */
	for (unsigned e = 0; e < 42; e++)
		for (int d = -1; d <= 1; d++) {
			uint64_t value = (UINT64_C(1) << e) + (uint64_t)(int64_t)d, got;
			hist = (struct hist){0};
			hist_add(&hist, value);
			got = hist_percentile(&hist, 50);
			ck_assert_uint_ge(got, value);
			ck_assert_uint_le(got, value + value / 8);
			ck_assert_uint_eq(hist_total(&hist), 1);
		}
}
END_TEST

START_TEST(huge_values_count_as_the_largest)
{
	hist_add(&hist, UINT64_MAX);
	hist_add(&hist, UINT64_C(1) << 42);
	ck_assert_uint_eq(hist_total(&hist), 2);
	ck_assert_uint_eq(hist_percentile(&hist, 50), (UINT64_C(1) << 42) - 1);
}
END_TEST

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

START_TEST(percentiles_match_a_sort)
{
	enum { COUNT = 10000 };
	static uint64_t values[COUNT];
	static const double pcts[] = {0, 1, 50, 90, 99, 99.9, 100};

	srandom(7);
	for (unsigned i = 0; i < COUNT; i++) {
		values[i] = (uint64_t)random() >> (random() % 24);
		hist_add(&hist, values[i]);
	}
	qsort(values, COUNT, sizeof(values[0]), compare);
	for (unsigned i = 0; i < sizeof(pcts) / sizeof(pcts[0]); i++) {
		unsigned rank = (unsigned)(COUNT * pcts[i] / 100);
		uint64_t exact = values[rank ? rank - 1 : 0], got = hist_percentile(&hist, pcts[i]);
		ck_assert_uint_ge(got, exact);
		ck_assert_uint_le(got, exact + exact / 8);
	}
}
END_TEST

START_TEST(ranks_round_up)
{
	hist_add(&hist, 1);
	hist_add(&hist, 2);
	hist_add(&hist, 3);
	ck_assert_uint_eq(hist_percentile(&hist, 33), 1);
	ck_assert_uint_eq(hist_percentile(&hist, 34), 2);
	ck_assert_uint_eq(hist_percentile(&hist, 67), 3);
	ck_assert_uint_eq(hist_percentile(&hist, 1000), 3);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("hist");
	TCase *tc = tcase_create("hist");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, empty_is_zero);
	tcase_add_test(tc, each_value_is_bounded);
	tcase_add_test(tc, huge_values_count_as_the_largest);
	tcase_add_test(tc, percentiles_match_a_sort);
	tcase_add_test(tc, ranks_round_up);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
