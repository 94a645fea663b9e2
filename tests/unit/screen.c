/* SPDX-License-Identifier: Apache-2.0
 *
 * What is put on a terminal: columns counted and cut, names made harmless, maps, progress bars.
 */
#include "mount/screen.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "mount/map.h"
#include "mount/progress.h"

enum { OUT_MAX = 8192 };

static char out[OUT_MAX];

static FILE *begin(void)
{
	memset(out, 0, sizeof(out));
	return fmemopen(out, sizeof(out) - 1, "w");
}

/* ---- screen ---- */

static void cut_is(const char *text, unsigned columns, const char *expected, unsigned used)
{
	FILE *file = begin();

	ck_assert_uint_eq(screen_put(file, text, columns), used);
	fclose(file);
	ck_assert_str_eq(out, expected);
}

START_TEST(counting)
{
	ck_assert_uint_eq(screen_columns(""), 0);
	ck_assert_uint_eq(screen_columns("abc"), 3);
	ck_assert_uint_eq(screen_columns("█·µ"), 3);
	ck_assert_uint_eq(screen_columns("\033[33m▚\033[0mx"), 2);
	cut_is("abc", 2, "ab", 2);
	cut_is("abc", 3, "abc", 3);
	cut_is("abc", 9, "abc", 3);
	cut_is("█·µ", 2, "█·", 2);
	cut_is("", 2, "", 0);
	/* Colour is not left on, and costs no columns. */
	cut_is("\033[33mDDD\033[0mx", 2, "\033[33mDD\033[0m", 2);
	cut_is("\033[33mDD\033[0mx", 3, "\033[33mDD\033[0mx", 3);
}
END_TEST

START_TEST(padding)
{
	FILE *file = begin();

	screen_pad(file, "µs", 4);
	screen_pad(file, "abcdef", 3);
	fclose(file);
	ck_assert_str_eq(out, "µs  abc");
}
END_TEST

static void name_is(const char *name, unsigned columns, bool ascii, const char *expected)
{
	char buf[256];

	ck_assert_str_eq(screen_name(name, columns, ascii, buf), expected);
}

START_TEST(names)
{
	name_is("work", 10, false, "work");
	name_is("work", 4, false, "work");
	name_is("worker", 4, false, "wor…");
	name_is("worker", 4, true, "wor~");
	name_is("größe", 10, false, "größe");
	name_is("größe", 4, false, "grö…");
	name_is("größe", 10, true, "gr????e");
	name_is("", 4, false, "");
	name_is("abc", 0, false, "");
	/* Nothing that a terminal obeys: escapes, C1 control characters, changes of direction. */
	name_is("a\033[2Jb", 10, false, "a?[2Jb");
	name_is("a\nb\x7f", 10, false, "a?b?");
	name_is("a\xc2\x9b"
		"2J",
	    10, false, "a??2J");
	name_is("a\xe2\x80\xae"
		"b",
	    10, false, "a???b");
	/* No UTF-8: cut short, too long, a surrogate, a lone continuation. */
	name_is("a\xc3", 10, false, "a?");
	name_is("a\xe2\x82", 10, false, "a??");
	name_is("\xc0\xaf", 10, false, "??");
	name_is("\xe0\x80\xaf", 10, false, "???");
	name_is("\xed\xa0\x80", 10, false, "???");
	name_is("\xf4\x90\x80\x80", 10, false, "????");
	name_is("\x80x", 10, false, "?x");
}
END_TEST

START_TEST(locale)
{
	setenv("LC_ALL", "de_DE.UTF-8", 1);
	ck_assert(screen_utf8());
	setenv("LC_ALL", "C", 1);
	setenv("LANG", "C.UTF-8", 1);
	ck_assert(!screen_utf8());
	/* An empty variable counts for nothing. */
	setenv("LC_ALL", "", 1);
	unsetenv("LC_CTYPE");
	ck_assert(screen_utf8());
	unsetenv("LANG");
	ck_assert(!screen_utf8());
}
END_TEST

/* ---- maps ---- */

START_TEST(shares)
{
	ck_assert_uint_eq(map_share(0, 100), 0);
	ck_assert_uint_eq(map_share(0, 0), 0);
	ck_assert_uint_eq(map_share(100, 100), MAP_WHOLE);
	ck_assert_uint_eq(map_share(50, 100), 500);
	/* A little is not nothing, nearly all is not all. */
	ck_assert_uint_eq(map_share(1, UINT64_MAX), 1);
	ck_assert_uint_eq(map_share(UINT64_MAX - 1, UINT64_MAX), MAP_WHOLE - 1);
}
END_TEST

static void map_is(const struct map_style *style, const char *expected)
{
	static const struct map_cell cells[] = {{0, 0, false}, {1, 0, false}, {500, 0, false},
	    {999, 0, false}, {1000, 0, false}, {500, 0, true}, {0, 0, true}, {1000, 1, false},
	    {1000, 1000, true}, {1000, 0, false}};
	FILE *file = begin();

	map_print(file, cells, 10, style);
	fclose(file);
	ck_assert_str_eq(out, expected);
	ck_assert_uint_eq(screen_columns(out), 10);
}

START_TEST(maps)
{
	map_is(&(struct map_style){0}, "·░▒▓█▸▸▚▚█");
	map_is(&(struct map_style){.ascii = true}, ".-=+#>>DD#");
	map_is(&(struct map_style){.ascii = true, .colour = true},
	    ".-=+#\033[36m>>\033[33mDD\033[0m#");
}
END_TEST

START_TEST(legend)
{
	for (unsigned i = 0; i < 4; i++) {
		const struct map_style style = {.ascii = i & 1, .colour = i & 2};
		FILE *file = begin();

		map_print_legend(file, &style);
		fclose(file);
		ck_assert_uint_le(screen_columns(out), 80);
		ck_assert_ptr_nonnull(strstr(out, "dirty"));
		ck_assert_int_eq(strchr(out, '\033') != NULL, style.colour);
	}
}
END_TEST

/* ---- progress ---- */

#define MIB ((uint64_t)1 << 20)

START_TEST(bars)
{
	struct progress_view view = {
	    .label = "pulling", .done = 42 * MIB, .total = 100 * MIB, .rate = (double)(2 * MIB)};
	char text[PROGRESS_TEXT_MAX];

	ck_assert_str_eq(progress_bar(&view, 81, true, text),
	    "pulling  [#######-         ]   42 %  42.0 MiB of 100.0 MiB  2.0 MiB/s  29 s left");
	ck_assert_str_eq(progress_bar(&view, 60, false, text),
	    "pulling  [███████▌          ]   42 %  42.0 MiB of 100.0 MiB");
	view.done = view.total;
	ck_assert_str_eq(progress_bar(&view, 30, false, text), "pulling  [███████████]  100 %");
	/* More than was expected. */
	view.done = 2 * view.total;
	ck_assert_str_eq(progress_bar(&view, 30, false, text), "pulling  [███████████]  100 %");
	view.total = 0;
	view.rate = 0;
	ck_assert_str_eq(progress_bar(&view, 80, false, text), "pulling  200.0 MiB");
}
END_TEST

/* Whatever the terminal's size, a line never fills it. */
START_TEST(bars_fit)
{
	static const uint64_t dones[] = {0, 1, 99 * MIB, 100 * MIB, UINT64_MAX};
	char text[PROGRESS_TEXT_MAX];

	for (unsigned width = 0; width < 300; width++) {
		for (unsigned i = 0; i < 10; i++) {
			struct progress_view view = {.label = "a label that is long enough",
			    .done = dones[i / 2],
			    .total = i % 2 ? 100 * MIB : 0,
			    .rate = 1e9};
			unsigned used = screen_columns(progress_bar(&view, width, i & 1, text));

			ck_assert_uint_lt(used, width ? width : 1);
		}
	}
}
END_TEST

START_TEST(plain)
{
	struct progress_view view = {.label = "pulling", .done = 42 * MIB, .total = 100 * MIB};
	char text[PROGRESS_TEXT_MAX];

	ck_assert_str_eq(progress_plain(&view, text), "pulling: 42.0 MiB of 100.0 MiB, 42 %");
	view.rate = (double)MIB / 2;
	ck_assert_str_eq(progress_plain(&view, text),
	    "pulling: 42.0 MiB of 100.0 MiB, 42 %, 512.0 KiB/s, 2 min left");
}
END_TEST

/* Not a terminal: a line every PROGRESS_PLAIN_MS, nothing for what is over before. */
START_TEST(lines)
{
	FILE *file = tmpfile();
	struct progress progress;
	size_t len;

	progress_begin(&progress, file, "pulling", false);
	for (uint64_t ms = 0; ms < 2 * PROGRESS_PLAIN_MS + 10; ms += 10)
		progress_show(&progress, ms * MIB / 10, 10000 * MIB, 1000 + ms);
	progress_clear(&progress);
	rewind(file);
	memset(out, 0, sizeof(out));
	len = fread(out, 1, sizeof(out) - 1, file);
	ck_assert_uint_gt(len, 0);
	ck_assert_str_eq(out, "pulling: 500.0 MiB of 9.8 GiB, 5 %, 100.0 MiB/s, 2 min left\n"
			      "pulling: 1000.0 MiB of 9.8 GiB, 10 %, 100.0 MiB/s, 2 min left\n");
	progress_begin(&progress, file, "pulling", true);
	progress_show(&progress, 1, 2, 1);
	progress_show(&progress, 1, 2, 100000);
	ck_assert_int_eq(ftell(file), (long)len);
	fclose(file);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("screen");
	TCase *tc = tcase_create("all");
	SRunner *runner;
	int failed;

	tcase_add_test(tc, counting);
	tcase_add_test(tc, padding);
	tcase_add_test(tc, names);
	tcase_add_test(tc, locale);
	tcase_add_test(tc, shares);
	tcase_add_test(tc, maps);
	tcase_add_test(tc, legend);
	tcase_add_test(tc, bars);
	tcase_add_test(tc, bars_fit);
	tcase_add_test(tc, plain);
	tcase_add_test(tc, lines);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
