/* SPDX-License-Identifier: Apache-2.0
 *
 * What the one file of a place that is one region is called.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "core/local_pool.h"
#include "core/uri.h"

static const struct {
	const char *uri, *name;
} cases[] = {
    {"file:/srv/disk.img", "disk.img"},
    {"file:/srv/disk.img?size=1G", "disk.img"},
    {"file:/srv/disk/", "disk"},
    {"file:/", "file"},
    {"memory:?size=1G", "memory"},
    {"nbd://host", "nbd"},
    {"nbd://host:10809/", "nbd"},
    {"nbd://host/vm1", "vm1"},
    {"nbd://[::1]:10809/pool/vm1?conns=2", "vm1"},
    {"nbd://host/..", "nbd"},
    {"nbds://host?tls-certificates=/etc/pki/x", "nbds"},
    {"nbd+unix:///?socket=/run/some/socket", "nbd"},
    {"nbd+unix:///a/b?socket=/run/some/socket", "b"},
};

START_TEST(the_last_part_or_the_scheme)
{
	char buf[POOL_NAME_MAX + 1];

	ck_assert_str_eq(local_pool_single_name(cases[_i].uri, buf), cases[_i].name);
}
END_TEST

/* A name that no file can have is not taken. */
START_TEST(too_long_a_name_is_not_taken)
{
	char uri[URI_TEXT_MAX] = "nbd://host/", buf[POOL_NAME_MAX + 1];
	size_t start = strlen(uri);

	memset(uri + start, 'x', POOL_NAME_MAX);
	ck_assert_uint_eq(strlen(local_pool_single_name(uri, buf)), POOL_NAME_MAX);
	uri[start + POOL_NAME_MAX] = 'x';
	ck_assert_str_eq(local_pool_single_name(uri, buf), "nbd");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("single_name");
	TCase *tc = tcase_create("single_name");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tc, the_last_part_or_the_scheme, 0, sizeof(cases) / sizeof(cases[0]));
	tcase_add_test(tc, too_long_a_name_is_not_taken);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
