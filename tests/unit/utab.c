/* SPDX-License-Identifier: Apache-2.0
 *
 * What umount(8) must know of a mount: added, replaced, removed, with the lines of others untouched.
 */
#include "mount/utab.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define OTHER_1 "SRC=/dev/sda1 TARGET=/mnt/a ROOT=/ OPTS=_netdev\n"
#define OTHER_2 "ID=12 SRC=donor:/ram TARGET=/mnt/other ROOT=/ OPTS=user=me\n"

static char dir[] = "/tmp/remram-utab.XXXXXX", path[64];

static void setup(void)
{
	strcpy(dir, "/tmp/remram-utab.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/utab", dir);
	utab_set_dir(dir);
}

static void teardown(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", dir);
	ck_assert_int_eq(system(command), 0);
}

static void write_file(const char *text)
{
	FILE *out = fopen(path, "w");

	ck_assert_ptr_nonnull(out);
	fputs(text, out);
	ck_assert_int_eq(fclose(out), 0);
}

static void expect_file(const char *text)
{
	char found[4096] = "";
	FILE *in = fopen(path, "r");

	ck_assert_ptr_nonnull(in);
	found[fread(found, 1, sizeof(found) - 1, in)] = '\0';
	fclose(in);
	ck_assert_str_eq(found, text);
}

START_TEST(comes_and_goes)
{
	struct stat st;

	ck_assert_int_eq(utab_add("donor:/ram", "/mnt/remote"), 0);
	expect_file("SRC=donor:/ram TARGET=/mnt/remote ROOT=/ OPTS=uhelper=fuse.remram\n");
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0644);
	ck_assert_int_eq(utab_remove("donor:/ram", "/mnt/remote"), 0);
	expect_file("");
}
END_TEST

START_TEST(others_stay)
{
	write_file(OTHER_1 OTHER_2);
	ck_assert_int_eq(utab_add("donor:/ram", "/mnt/remote"), 0);
	expect_file(
	    OTHER_1 OTHER_2 "SRC=donor:/ram TARGET=/mnt/remote ROOT=/ OPTS=uhelper=fuse.remram\n");
	ck_assert_int_eq(utab_remove("donor:/ram", "/mnt/remote"), 0);
	expect_file(OTHER_1 OTHER_2);
	ck_assert_int_eq(utab_remove("donor:/ram", "/mnt/a"), 0);
	ck_assert_int_eq(utab_remove("donor:/r", "/mnt/other"), 0);
	ck_assert_int_eq(utab_remove("donor:/ram", "/mnt/oth"), 0);
	expect_file(OTHER_1 OTHER_2);
}
END_TEST

/* mount(8) adds a line of its own for options like _netdev. */
START_TEST(all_of_a_mount_go)
{
	write_file("SRC=donor:/ram TARGET=/mnt/remote ROOT=/ OPTS=_netdev\n" OTHER_1
		   "SRC=donor:/ram TARGET=/mnt/remote ROOT=/ OPTS=uhelper=fuse.remram\n");
	ck_assert_int_eq(utab_add("donor:/ram", "/mnt/remote"), 0);
	expect_file(OTHER_1 "SRC=donor:/ram TARGET=/mnt/remote ROOT=/ OPTS=uhelper=fuse.remram\n");
	write_file("SRC=donor:/ram TARGET=/mnt/remote ROOT=/ OPTS=_netdev\n" OTHER_1
		   "SRC=donor:/ram TARGET=/mnt/remote ROOT=/ OPTS=uhelper=fuse.remram\n");
	ck_assert_int_eq(utab_remove("donor:/ram", "/mnt/remote"), 0);
	expect_file(OTHER_1);
}
END_TEST

START_TEST(strange_names)
{
	ck_assert_int_eq(utab_add("file:/a b#c", "/mnt/x y\\z"), 0);
	expect_file("SRC=file:/a\\040b\\043c TARGET=/mnt/x\\040y\\134z ROOT=/ "
		    "OPTS=uhelper=fuse.remram\n");
	ck_assert_int_eq(utab_remove("file:/a b#c", "/mnt/x y"), 0);
	ck_assert_int_eq(utab_remove("file:/a b#c", "/mnt/x y\\z"), 0);
	expect_file("");
}
END_TEST

START_TEST(nothing_to_remove)
{
	ck_assert_int_eq(utab_remove("donor:/ram", "/mnt/remote"), 0);
	ck_assert_int_ne(access(path, F_OK), 0);
	utab_set_dir("/proc/none/there");
	ck_assert_int_eq(utab_add("donor:/ram", "/mnt/remote"), -ENOENT);
}
END_TEST

/* Many at once: no line is lost. */
START_TEST(at_once)
{
	enum { PROCESSES = 8, ROUNDS = 50 };
	char mount_point[32], line[128];
	unsigned lines = 0;
	FILE *in;
	int status;

	for (int i = 0; i < PROCESSES; i++) {
		snprintf(mount_point, sizeof(mount_point), "/mnt/%d", i);
		if (fork() != 0)
			continue;
		for (int round = 0; round < ROUNDS; round++)
			if (utab_add("donor:/ram", mount_point) ||
			    utab_remove("donor:/ram", mount_point))
				_exit(1);
		_exit(utab_add("donor:/ram", mount_point) ? 1 : 0);
	}
	for (int i = 0; i < PROCESSES; i++) {
		ck_assert_int_gt(wait(&status), 0);
		ck_assert_int_eq(status, 0);
	}
	in = fopen(path, "r");
	ck_assert_ptr_nonnull(in);
	while (fgets(line, sizeof(line), in))
		lines++;
	fclose(in);
	ck_assert_uint_eq(lines, PROCESSES);
	for (int i = 0; i < PROCESSES; i++) {
		snprintf(mount_point, sizeof(mount_point), "/mnt/%d", i);
		ck_assert_int_eq(utab_remove("donor:/ram", mount_point), 0);
	}
	expect_file("");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("utab");
	TCase *tc = tcase_create("utab");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, comes_and_goes);
	tcase_add_test(tc, others_stay);
	tcase_add_test(tc, all_of_a_mount_go);
	tcase_add_test(tc, strange_names);
	tcase_add_test(tc, nothing_to_remove);
	tcase_add_test(tc, at_once);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
