/* SPDX-License-Identifier: Apache-2.0
 *
 * The option lists in the man pages are those of the programs.
 *
 * Each list stands between two comments of the page and is, byte for byte, what the program's table prints
 * as mdoc(7).  With REMRAM_WRITE_MAN=1 in the environment the pages are rewritten instead of compared: that
 * is how a new option gets into them.  Run from the top of the tree.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/opts.h"
#include "export/conf.h"
#include "mount/cmd.h"
#include "mount/conf.h"

enum { PAGE_MAX = 1 << 20 };

#define MARK_BEGIN \
	".\\\" The list below is made from the program's table (tests/unit/man_pages.c).\n"
#define MARK_END ".\\\" End of the list.\n"

static void print_mount(FILE *out)
{
	mount_conf_mdoc(out);
}

static void print_argv(FILE *out)
{
	opts_print_mdoc(remramd_options, OPT_IN_ARGV, out);
}

static void print_file(FILE *out)
{
	opts_print_mdoc(remramd_options, OPT_IN_FILE, out);
}

static void print_export(FILE *out)
{
	opts_print_mdoc(cmd_export_options, OPT_IN_ARGV, out);
}

static const struct {
	const char *page;
	void (*print)(FILE *out);
} lists[] = {
    {"docs/man/remram.8", print_mount},
    {"docs/man/remram-export.8", print_export},
    {"docs/man/remramd.8", print_argv},
    {"docs/man/remramd.conf.5", print_file},
};

static char *read_page(const char *path)
{
	char *text = calloc(1, PAGE_MAX);
	FILE *in = fopen(path, "r");

	ck_assert_ptr_nonnull(text);
	ck_assert_msg(in != NULL, "%s cannot be opened: is this the top of the tree?", path);
	ck_assert_uint_lt(fread(text, 1, PAGE_MAX - 1, in), PAGE_MAX - 1);
	fclose(in);
	return text;
}

static void write_page(
    const char *path, const char *head, size_t head_len, const char *list, const char *tail)
{
	FILE *out = fopen(path, "w");

	ck_assert_ptr_nonnull(out);
	ck_assert_int_gt(fprintf(out, "%.*s%s%s", (int)head_len, head, list, tail), 0);
	ck_assert_int_eq(fclose(out), 0);
}

START_TEST(options)
{
	const char *page = lists[_i].page;
	char *text = read_page(page), *list, *begin, *end;
	size_t list_len;
	FILE *out = open_memstream(&list, &list_len);

	lists[_i].print(out);
	ck_assert_int_eq(fclose(out), 0);
	begin = strstr(text, MARK_BEGIN);
	ck_assert_msg(begin != NULL, "%s: no line %s", page, MARK_BEGIN);
	begin += strlen(MARK_BEGIN);
	end = strstr(begin, MARK_END);
	ck_assert_msg(end != NULL, "%s: no line %s", page, MARK_END);
	if (getenv("REMRAM_WRITE_MAN"))
		write_page(page, text, (size_t)(begin - text), list, end);
	else
		ck_assert_msg((size_t)(end - begin) == list_len && !memcmp(begin, list, list_len),
		    "%s is not what the program's table says; run REMRAM_WRITE_MAN=1 %s", page,
		    "build/tests/unit/man_pages");
	free(text);
	free(list);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("man pages");
	TCase *tc = tcase_create("options");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tc, options, 0, (int)(sizeof(lists) / sizeof(lists[0])));
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
