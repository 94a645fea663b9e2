/* SPDX-License-Identifier: Apache-2.0
 *
 * The ways to write names, against what systemd-escape and the kernel write; and the mount table.
 */
#include "mount/escape.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "mount/mountinfo.h"

static char buf[8192];

/* The expected texts are what `systemd-escape --path` (252) prints. */
START_TEST(paths)
{
	static const char *const pairs[][2] = {{"/mnt/remote", "mnt-remote"}, {"/", "-"},
	    {"/mnt//a/", "mnt-a"}, {"/a-b/c", "a\\x2db-c"}, {"/my data", "my\\x20data"},
	    {"/.hidden/.x", "\\x2ehidden-.x"}, {"/\xc3\xa4", "\\xc3\\xa4"},
	    {"/a_b:c.d", "a_b:c.d"}};
	unsigned i;

	for (i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		ck_assert_int_eq(escape_path(pairs[i][0], buf, sizeof(buf)), 0);
		ck_assert_str_eq(buf, pairs[i][1]);
	}
	ck_assert_int_eq(escape_path("/mnt/remote", buf, 8), -ENAMETOOLONG);
	ck_assert_int_eq(escape_path("/", buf, 1), -ENAMETOOLONG);
}
END_TEST

START_TEST(percent)
{
	char all[256], back[256], text[3 * 255 + 1];
	unsigned i;

	ck_assert_int_eq(escape_percent("a b%/\n\xff", buf, sizeof(buf)), 0);
	ck_assert_str_eq(buf, "a%20b%25/%0A%FF");

	for (i = 0; i < 255; i++)
		all[i] = (char)(i + 1);
	all[255] = '\0';
	ck_assert_int_eq(escape_percent(all, text, sizeof(text)), 0);
	ck_assert_int_eq(unescape_percent(text, back, sizeof(back)), 0);
	ck_assert_str_eq(back, all);
	ck_assert_int_eq(unescape_percent(text, back, 255), -ENAMETOOLONG);

	/* Room for exactly the text and its end. */
	ck_assert_int_eq(escape_percent("ab c", buf, 7), 0);
	ck_assert_str_eq(buf, "ab%20c");
	ck_assert_int_eq(escape_percent("ab c", buf, 6), -ENAMETOOLONG);
	ck_assert_int_eq(escape_percent("", buf, 0), -ENAMETOOLONG);

	ck_assert_int_eq(unescape_percent("%4", buf, sizeof(buf)), -EINVAL);
	ck_assert_int_eq(unescape_percent("%", buf, sizeof(buf)), -EINVAL);
	ck_assert_int_eq(unescape_percent("%zz", buf, sizeof(buf)), -EINVAL);
	ck_assert_int_eq(unescape_percent("a%00b", buf, sizeof(buf)), -EINVAL);
	ck_assert_int_eq(unescape_percent("%e4", buf, sizeof(buf)), 0);
	ck_assert_str_eq(buf, "\xe4");
}
END_TEST

START_TEST(octal)
{
	char text[] = "/a\\040b\\011\\134\\134040\\0\\400\\04";

	unescape_octal(text);
	ck_assert_str_eq(text, "/a b\t\\\\040\\0\\400\\04");
}
END_TEST

static struct mountinfo seen[8];
static unsigned seen_count;

static bool collect(void *ctx, const struct mountinfo *info)
{
	seen[seen_count++] = *info;
	return seen_count < (ctx ? 1 : 8);
}

START_TEST(mount_table)
{
	static char table[] =
	    "21 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/root rw\n"
	    "garbage\n"
	    "1 2 3:4\n"
	    "40 21 0:39 / /mnt/my\\040data rw - fuse.remram donor:/ram\\040x rw,user_id=0\n"
	    "41 21 0:40 /sub /mnt/x - tmpfs  rw\n";
	FILE *in = fmemopen(table, strlen(table), "r");

	seen_count = 0;
	mountinfo_parse(in, collect, NULL);
	ck_assert_uint_eq(seen_count, 3);
	ck_assert_str_eq(seen[0].dir, "/");
	ck_assert_str_eq(seen[0].type, "ext4");
	ck_assert_uint_eq(seen[1].id, 40);
	ck_assert_uint_eq(seen[1].parent, 21);
	ck_assert(seen[1].dev == makedev(0, 39));
	ck_assert_str_eq(seen[1].dir, "/mnt/my data");
	ck_assert_str_eq(seen[1].type, MOUNTINFO_TYPE);
	ck_assert_str_eq(seen[1].source, "donor:/ram x");
	ck_assert_str_eq(seen[2].dir, "/mnt/x");

	rewind(in);
	seen_count = 0;
	mountinfo_parse(in, collect, table); /* stops when told */
	ck_assert_uint_eq(seen_count, 1);
	fclose(in);
}
END_TEST

START_TEST(mount_live)
{
	struct mountinfo info;
	char dir[PATH_MAX];
	struct err err;

	ck_assert_int_eq(mountinfo_find("/proc", &info), 0);
	ck_assert_str_eq(info.type, "proc");
	ck_assert_int_eq(mountinfo_find("/proc/self", &info), -ENOENT);
	ck_assert_int_eq(mountinfo_resolve("/proc/../proc/.", dir, &err), 0);
	ck_assert_str_eq(dir, "/proc");
	ck_assert_int_eq(mountinfo_resolve("/proc/nothing/here", dir, &err), -ENOENT);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("escape");
	TCase *tc = tcase_create("escape");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tc, paths);
	tcase_add_test(tc, percent);
	tcase_add_test(tc, octal);
	tcase_add_test(tc, mount_table);
	tcase_add_test(tc, mount_live);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
