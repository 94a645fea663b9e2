/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening backends by URI, and the quota's counter.
 */
#include "core/backend.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

START_TEST(a_quota_gives_what_it_has)
{
	struct quota quota = {.limit = 10000};

	ck_assert_int_eq(quota_take(&quota, 6000), 0);
	ck_assert_int_eq(quota_take(&quota, 4001), -ENOSPC);
	ck_assert_int_eq(quota_take(&quota, UINT64_MAX), -ENOSPC);
	ck_assert_int_eq(quota_take(&quota, 4000), 0);
	ck_assert_int_eq(quota_take(&quota, 0), 0);
	ck_assert_int_eq(quota_take(&quota, 1), -ENOSPC);
	quota_give(&quota, 10000);
	ck_assert_uint_eq(quota.used, 0);
	/* A place may be over its limit: it was made smaller. */
	quota.used = 20000;
	ck_assert_int_eq(quota_take(&quota, 1), -ENOSPC);
	quota_give(&quota, 15000);
	ck_assert_int_eq(quota_take(&quota, 5000), 0);
}
END_TEST

static struct quota shared = {.limit = 1000};

static void *take_and_give(void *arg)
{
	unsigned *got = arg;

	for (unsigned i = 0; i < 20000; i++)
		if (quota_take(&shared, 300) == 0) {
			uint64_t used = shared.used;

			(*got)++;
			if (used > shared.limit)
				abort();
			quota_give(&shared, 300);
		}
	return NULL;
}

START_TEST(a_quota_is_never_passed_by_threads)
{
	unsigned got[4] = {0};
	pthread_t threads[4];

	for (unsigned i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, take_and_give, &got[i]), 0);
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		ck_assert_uint_gt(got[i], 0);
	}
	ck_assert_uint_eq(shared.used, 0);
}
END_TEST

static const char *refused(const char *uri)
{
	static struct err err;
	struct backend *backend;
	int rc;

	memset(&err, 0, sizeof(err));
	rc = backend_open(uri, false, NULL, &backend, &err);
	ck_assert_int_lt(rc, 0);
	ck_assert_int_eq(err.code, rc);
	return err.text;
}

START_TEST(an_unknown_scheme_names_the_known_ones)
{
	const char *text = refused("floppy:/dev/fd0");

	ck_assert_ptr_nonnull(strstr(text, "floppy"));
	for (unsigned i = 0; backend_registry[i]; i++) {
		ck_assert_ptr_nonnull(strstr(text, backend_registry[i]->scheme));
		ck_assert_ptr_nonnull(backend_registry[i]->help);
	}
	ck_assert_ptr_nonnull(strstr(refused("/srv/pool"), "/srv/pool"));
	backend_close(NULL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("backend");
	TCase *tc = tcase_create("backend");
	SRunner *runner;
	int failed;

	tcase_add_test(tc, a_quota_gives_what_it_has);
	tcase_add_test(tc, a_quota_is_never_passed_by_threads);
	tcase_add_test(tc, an_unknown_scheme_names_the_known_ones);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
