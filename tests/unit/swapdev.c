/* SPDX-License-Identifier: Apache-2.0
 *
 * What is on a region before it becomes swap, and /proc/swaps.  Switching swap on and off is tested in
 * attach.c.
 */
#include "mount/swapdev.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SIZE = 8 << 20 };

static int fd;

static void setup(void)
{
	fd = memfd_create("region", MFD_CLOEXEC);
	ck_assert_int_eq(ftruncate(fd, SIZE), 0);
}

static void teardown(void)
{
	close(fd);
}

static enum swapdev_content content(uint64_t size)
{
	enum swapdev_content what;

	ck_assert_int_eq(swapdev_content(fd, size, &what), 0);
	return what;
}

static void put(const char *text, off_t off)
{
	ck_assert_int_eq(pwrite(fd, text, strlen(text), off), strlen(text));
}

START_TEST(empty)
{
	ck_assert_int_eq(content(SIZE), SWAPDEV_EMPTY);
	ck_assert_int_eq(fallocate(fd, 0, 0, SIZE), 0); /* reserved, and still empty */
	ck_assert_int_eq(content(SIZE), SWAPDEV_EMPTY);
}
END_TEST

START_TEST(signatures)
{
	static const off_t pages[] = {4096, 8192, 16384, 65536};
	unsigned i;

	for (i = 0; i < 4; i++) {
		ck_assert_int_eq(ftruncate(fd, 0), 0);
		ck_assert_int_eq(ftruncate(fd, SIZE), 0);
		put("SWAPSPACE2", pages[i] - 10);
		ck_assert_int_eq(content(SIZE), SWAPDEV_SWAP);
	}
	/* Elsewhere, or of another kind, it is data. */
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	ck_assert_int_eq(ftruncate(fd, SIZE), 0);
	put("SWAPSPACE2", 4096 - 11);
	ck_assert_int_eq(content(SIZE), SWAPDEV_OTHER);
	put("S1SUSPEND\0", 4096 - 11);
	ck_assert_int_eq(content(SIZE), SWAPDEV_OTHER);
}
END_TEST

/* One byte anywhere is enough. */
START_TEST(data)
{
	static const off_t offs[] = {
	    0, 1, 4095, 4096, (1 << 20) - 1, 1 << 20, SIZE / 2 + 5, SIZE - 1};
	unsigned i;

	for (i = 0; i < sizeof(offs) / sizeof(offs[0]); i++) {
		ck_assert_int_eq(ftruncate(fd, 0), 0);
		ck_assert_int_eq(ftruncate(fd, SIZE), 0);
		put("x", offs[i]);
		ck_assert_int_eq(content(SIZE), SWAPDEV_OTHER);
	}
	/* Beyond the size asked about is none of its business. */
	ck_assert_int_eq(content(SIZE - 1), SWAPDEV_EMPTY);
}
END_TEST

static struct swapdev lines[8];
static unsigned count;

static void collect(void *ctx, const struct swapdev *swap)
{
	lines[count++] = *swap;
}

START_TEST(table)
{
	static char text[] =
	    "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
	    "/dev/loop0                              partition\t65532\t\t12\t\t-2\n"
	    "/swap\\040file                           file\t\t1024\t\t0\t\t32767\n"
	    "/broken partition\n"
	    "/dev/dm-1\n";
	FILE *in = fmemopen(text, strlen(text), "r");

	count = 0;
	swapdev_parse(in, collect, NULL);
	fclose(in);
	ck_assert_uint_eq(count, 2);
	ck_assert_str_eq(lines[0].path, "/dev/loop0");
	ck_assert_uint_eq(lines[0].size, 65532 * 1024);
	ck_assert_uint_eq(lines[0].used, 12 * 1024);
	ck_assert_int_eq(lines[0].prio, -2);
	ck_assert_str_eq(lines[1].path, "/swap file");
	ck_assert_int_eq(lines[1].prio, 32767);
}
END_TEST

START_TEST(not_there)
{
	struct swapdev swap;
	struct err err;

	ck_assert_int_eq(swapdev_find("/dev/no-such-device", &swap, NULL), -ENOENT);
	ck_assert_int_lt(swapdev_on("/dev/no-such-device", 0, false, &err), 0);
	ck_assert_int_lt(swapdev_format("/dev/no-such-device", "x", &err), 0);
	ck_assert(strstr(err.text, "mkswap failed"));
	/* What is off already has been switched off. */
	ck_assert_int_eq(swapdev_off("/dev/no-such-device", NULL, &err), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("swapdev");
	TCase *tc = tcase_create("swapdev");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, empty);
	tcase_add_test(tc, signatures);
	tcase_add_test(tc, data);
	tcase_add_test(tc, table);
	tcase_add_test(tc, not_there);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
