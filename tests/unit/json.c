/* SPDX-License-Identifier: Apache-2.0
 *
 * The reader and writer of JSON: every rule of the grammar, and what breaks it.
 */
#include "mount/json.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct json *doc;
static struct err err;

static void good(const char *text)
{
	json_destroy(doc);
	doc = NULL;
	ck_assert_msg(!json_parse(text, strlen(text), &doc, &err), "%s: %s", text, err.text);
}

static void bad(const char *text)
{
	struct json *none = NULL;

	ck_assert_msg(json_parse(text, strlen(text), &none, &err) == -EINVAL, "%s was taken", text);
	ck_assert_ptr_null(none);
}

static void teardown(void)
{
	json_destroy(doc);
	doc = NULL;
}

START_TEST(values)
{
	good(" {\"a\": {\"b\": [1, -2.5e+3, true, false, null, \"x\"]}, \"\": 7}\n");
	ck_assert_int_eq(json_type(doc), JSON_OBJECT);
	ck_assert_int_eq(json_type(json_find(doc, "a.b")), JSON_ARRAY);
	ck_assert_double_eq(json_number(json_find(doc, ""), 0), 7);
	ck_assert_ptr_null(json_find(doc, "a.c"));
	ck_assert_ptr_null(json_find(doc, "a.b.c"));
	ck_assert_ptr_null(json_find(doc, "b"));

	const struct json *item = json_first(json_find(doc, "a.b"));
	ck_assert_double_eq(json_number(item, 0), 1);
	ck_assert_ptr_null(json_name(item));
	item = json_next(item);
	ck_assert_double_eq(json_number(item, 0), -2500);
	ck_assert_str_eq(json_text(item), "-2.5e+3");
	item = json_next(item);
	ck_assert_int_eq(json_type(item), JSON_TRUE);
	item = json_next(json_next(item));
	ck_assert_int_eq(json_type(item), JSON_NULL);
	item = json_next(item);
	ck_assert_str_eq(json_string(item, ""), "x");
	ck_assert_double_eq(json_number(item, 5), 5);
	ck_assert_ptr_null(json_next(item));

	good("[]");
	ck_assert_ptr_null(json_first(doc));
	good("0");
	good("\"\"");
	/* All the digits, beyond what a double holds. */
	good("18446744073709551615");
	ck_assert_str_eq(json_text(doc), "18446744073709551615");
	ck_assert_uint_eq(json_u64(doc, 1), UINT64_MAX);
	good("\"18446744073709551614\"");
	ck_assert_uint_eq(json_u64(doc, 1), UINT64_MAX - 1);
	good("[18446744073709551616,-1,1.5,\"\",\"7x\",\" 7\",{},null]");
	for (item = json_first(doc); item; item = json_next(item))
		ck_assert_uint_eq(json_u64(item, 3), 3);
}
END_TEST

START_TEST(strings)
{
	good("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e4\\u20ac\\ud83d\\ude00\"");
	ck_assert_str_eq(
	    json_string(doc, ""), "\"\\/\b\f\n\r\tA\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
	/* Halves of pairs, and NUL, cannot be written. */
	good("\"\\ud83dx\\ude00\\u0000\"");
	ck_assert_str_eq(json_string(doc, ""), "\xef\xbf\xbdx\xef\xbf\xbd\xef\xbf\xbd");
	good("\"\\ud83d\\n\\ud83d\\u0041\"");
	ck_assert_str_eq(json_string(doc, ""), "\xef\xbf\xbd\n\xef\xbf\xbd"
					       "A");
}
END_TEST

START_TEST(refused)
{
	static const char *const texts[] = {"", " ", "{", "[", "[1", "[1,", "[1,]", "[,1]", "[1 2]",
	    "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{1:1}", "\"", "\"a", "\"\\", "\"\\\"",
	    "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"a\nb\"", "tru", "nul", "01", "-", "1.", ".5",
	    "1e", "1e+", "+1", "1 2", "[]]", "NaN", "'a'"};
	unsigned i;

	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		bad(texts[i]);
	ck_assert_int_eq(json_parse("1\0", 2, &doc, &err), -EINVAL);
}
END_TEST

START_TEST(depth)
{
	char text[JSON_DEPTH_MAX * 2 + 3];

	memset(text, '[', JSON_DEPTH_MAX);
	memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
	text[JSON_DEPTH_MAX * 2] = '\0';
	good(text);
	memset(text, '[', JSON_DEPTH_MAX + 1);
	memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
	text[JSON_DEPTH_MAX * 2 + 2] = '\0';
	bad(text);
}
END_TEST

/* Every beginning of a text is refused and leaks nothing. */
START_TEST(truncated)
{
	static const char text[] = "{\"a\":[1,{\"b\":\"c\\u0041\"},null],\"d\":-1.5e3,\"e\":true}";
	size_t len;

	for (len = 0; len < strlen(text); len++) {
		struct json *none = NULL;
		ck_assert_int_eq(json_parse(text, len, &none, &err), -EINVAL);
	}
	good(text);
}
END_TEST

static char *written(const struct json *value, const char *string)
{
	static char buf[256];
	FILE *out;

	memset(buf, 0, sizeof(buf));
	out = fmemopen(buf, sizeof(buf) - 1, "w");
	if (string)
		json_write_string(out, string);
	else
		json_write(out, value);
	fclose(out);
	return buf;
}

START_TEST(writing)
{
	ck_assert_str_eq(written(NULL, "a\"\\\n\x7f"), "\"a\\\"\\\\\\u000a\\u007f\"");
	ck_assert_str_eq(written(NULL, "\xc3\xa4\xf0\x9f\x98\x80"), "\"\xc3\xa4\xf0\x9f\x98\x80\"");
	/* Lone, overlong, surrogate, too large, cut off. */
	ck_assert_str_eq(written(NULL, "\x80"), "\"\\ufffd\"");
	ck_assert_str_eq(written(NULL, "\xc0\xaf"), "\"\\ufffd\\ufffd\"");
	ck_assert_str_eq(written(NULL, "\xed\xa0\x80"), "\"\\ufffd\\ufffd\\ufffd\"");
	ck_assert_str_eq(written(NULL, "\xf4\x90\x80\x80"), "\"\\ufffd\\ufffd\\ufffd\\ufffd\"");
	ck_assert_str_eq(written(NULL, "x\xe2\x82"), "\"x\\ufffd\\ufffd\"");

	good("{\"a\" : [1 , -0.5, \"x\\ny\", {} , []], \"b\":null,\"c\":true}");
	ck_assert_str_eq(
	    written(doc, NULL), "{\"a\":[1,-0.5,\"x\\u000ay\",{},[]],\"b\":null,\"c\":true}");
	ck_assert_str_eq(written(NULL, NULL), "null");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("json");
	TCase *tc = tcase_create("json");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tc, NULL, teardown);
	tcase_add_test(tc, values);
	tcase_add_test(tc, strings);
	tcase_add_test(tc, refused);
	tcase_add_test(tc, depth);
	tcase_add_test(tc, truncated);
	tcase_add_test(tc, writing);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
