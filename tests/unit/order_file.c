/* SPDX-License-Identifier: Apache-2.0
 *
 * Orders in files, and how the ranges of a command are cut, sorted and sent.
 */
#include "mount/order_file.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mount/managed_control.h"
#include "mount/task.h"

static struct pull_range *ranges;
static unsigned count;
static struct err err;

static void teardown(void)
{
	free(ranges);
	ranges = NULL;
}

static int parse(const char *text)
{
	free(ranges);
	ranges = NULL;
	return order_file_parse("FILE", text, strlen(text), &ranges, &count, &err);
}

static void range_is(unsigned i, uint64_t off, uint64_t len, int prio)
{
	ck_assert_uint_lt(i, count);
	ck_assert_uint_eq(ranges[i].off, off);
	ck_assert_uint_eq(ranges[i].len, len);
	ck_assert_int_eq(ranges[i].prio, prio);
}

START_TEST(reading)
{
	ck_assert_int_eq(parse(""), 0);
	ck_assert_uint_eq(count, 0);
	ck_assert_ptr_nonnull(ranges);
	ck_assert_int_eq(parse("# nothing\n\n   \r\n#"), 0);
	ck_assert_uint_eq(count, 0);
	ck_assert_int_eq(parse("# x\n0-64M:10,960M-:9 # both\r\n\t4K-8K \n16-17"), 0);
	ck_assert_uint_eq(count, 4);
	range_is(0, 0, (uint64_t)64 << 20, 10);
	range_is(1, (uint64_t)960 << 20, UINT64_MAX - ((uint64_t)960 << 20), 9);
	range_is(2, 4096, 4096, 0);
	range_is(3, 16, 1, 0);
}
END_TEST

static void refused(const char *text, const char *why)
{
	ck_assert_int_eq(parse(text), -EINVAL);
	ck_assert_msg(strstr(err.text, why) != NULL, "\"%s\": %s", text, err.text);
}

START_TEST(mistakes)
{
	static const char nul[] = "0-1\n0-\0"
				  "2\n";
	char *line = malloc(10001);

	refused("0-1\nx", "FILE, line 2: ");
	refused("0-1,\n", "FILE, line 1: ");
	refused("8-4", "ends before it begins");
	refused("0-1:2000", "priority");
	refused("0 - 1", "line 1");
	ck_assert_int_eq(
	    order_file_parse("FILE", nul, sizeof(nul) - 1, &ranges, &count, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "line 2"));
	memset(line, 'x', 10000);
	line[10000] = '\0';
	refused(line, "no pull order");
	free(line);
}
END_TEST

START_TEST(too_many)
{
	size_t len = ((size_t)PULL_ORDER_MAX + 1) * 4;
	char *text = malloc(len + 1);

	for (size_t i = 0; i < len; i += 4)
		memcpy(text + i, "0-1\n", 4);
	text[len] = '\0';
	ck_assert_int_eq(parse(text), -E2BIG);
	text[len - 4] = '\0';
	ck_assert_int_eq(parse(text), 0);
	ck_assert_uint_eq(count, PULL_ORDER_MAX);
	free(text);
}
END_TEST

/* What is written is read as it was. */
START_TEST(both_ways)
{
	static const struct pull_range written[] = {
	    {0, 4096, 1000}, {1 << 20, 3, -7}, {8192, UINT64_MAX - 8192, 0}, {5, 6, 0}};
	char path[] = "/tmp/order-XXXXXX";
	int fd = mkstemp(path);
	FILE *file = fdopen(fd, "w");

	order_file_write(file, "a\nname", written, 2);
	order_file_write(file, NULL, written + 2, 2);
	fclose(file);
	ck_assert_int_eq(order_file_read(path, &ranges, &count, &err), 0);
	unlink(path);
	ck_assert_uint_eq(count, 4);
	for (unsigned i = 0; i < 4; i++)
		range_is(i, written[i].off, written[i].len, written[i].prio);
	ck_assert_int_eq(order_file_read(path, &ranges, &count, &err), -ENOENT);
}
END_TEST

START_TEST(clipping)
{
	uint64_t bytes;

	ck_assert_int_eq(parse("0-4K,100-,8K-9K:3,4095-8K"), 0);
	count = task_clip(ranges, count, 4096, &bytes);
	ck_assert_uint_eq(count, 3);
	range_is(0, 0, 4096, 0);
	range_is(1, 100, 3996, 0);
	range_is(2, 4095, 1, 0);
	ck_assert_uint_eq(bytes, 4096 + 3996 + 1);
	ck_assert_uint_eq(task_clip(ranges, count, 0, &bytes), 0);
	ck_assert_uint_eq(bytes, 0);
}
END_TEST

START_TEST(sorting)
{
	static const uint64_t sorted[] = {1, 3, 5, 0, 4, 6, 2};

	ck_assert_int_eq(parse("0-1,1-2:5,2-3:-5,3-4:5,4-5,5-6:5,6-7"), 0);
	ck_assert_int_eq(task_sort(ranges, count, &err), 0);
	for (unsigned i = 0; i < 7; i++)
		ck_assert_uint_eq(ranges[i].off, sorted[i]);
	ck_assert_int_eq(task_sort(ranges, 0, &err), 0);
}
END_TEST

START_TEST(batches)
{
	char text[4096];

	ck_assert_int_eq(parse("0-1,1-2:5,4K-"), 0);
	ck_assert_uint_eq(task_batch(ranges, 3, text, sizeof(text)), 3);
	ck_assert_str_eq(text, "0-1,1-2:5,4K-");
	ck_assert_uint_eq(task_batch(ranges, 3, text, 9), 1);
	ck_assert_str_eq(text, "0-1");
	ck_assert_uint_eq(task_batch(ranges, 0, text, sizeof(text)), 0);
	ck_assert_str_eq(text, "");
	free(ranges);
	ranges = calloc(100, sizeof(*ranges));
	for (unsigned i = 0; i < 100; i++)
		ranges[i].len = 1;
	ck_assert_uint_eq(task_batch(ranges, 100, text, sizeof(text)), MANAGED_CONTROL_RANGES);
	/* A piece of any length is understood, and makes progress in the room that a request has. */
	for (unsigned i = 0; i < 100; i++)
		ranges[i] = (struct pull_range){UINT64_MAX - 2 - i, 1, -1000};
	ck_assert_uint_gt(task_batch(ranges, 100, text, 900), 10);
	ck_assert_int_eq(parse(text), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("order_file");
	TCase *tc = tcase_create("all");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, NULL, teardown);
	tcase_add_test(tc, reading);
	tcase_add_test(tc, mistakes);
	tcase_add_test(tc, too_many);
	tcase_add_test(tc, both_ways);
	tcase_add_test(tc, clipping);
	tcase_add_test(tc, sorting);
	tcase_add_test(tc, batches);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
