/* SPDX-License-Identifier: Apache-2.0
 *
 * URIs, sizes, durations: what is taken, what is refused and with which words.
 */
#include "core/uri.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct uri uri;
static struct err err;

static void good(const char *text)
{
	err = (struct err){0};
	ck_assert_msg(!uri_parse(text, &uri, &err), "%s: %s", text, err.text);
}

static void bad(const char *text, const char *why)
{
	err = (struct err){0};
	ck_assert_msg(uri_parse(text, &uri, &err) == -EINVAL, "%s was taken", text);
	ck_assert_int_eq(err.code, -EINVAL);
	ck_assert_msg(strstr(err.text, why), "%s: \"%s\" lacks \"%s\"", text, err.text, why);
}

START_TEST(parts)
{
	good("memory:");
	ck_assert_str_eq(uri.scheme, "memory");
	ck_assert_ptr_null(uri.host);
	ck_assert_str_eq(uri.path, "");
	ck_assert_uint_eq(uri.port, 0);
	ck_assert_uint_eq(uri.param_count, 0);

	good("MeMory:?size=8G&mlock&&x=a=b");
	ck_assert_str_eq(uri.scheme, "memory");
	ck_assert_uint_eq(uri.param_count, 3);
	ck_assert_str_eq(uri_param(&uri, "size"), "8G");
	ck_assert_str_eq(uri_param(&uri, "mlock"), "");
	ck_assert_str_eq(uri_param(&uri, "x"), "a=b");
	ck_assert_ptr_null(uri_param(&uri, "siz"));

	good("file:/srv/a%20b%3f%25?q=%26%3D");
	ck_assert_str_eq(uri.path, "/srv/a b?%");
	ck_assert_str_eq(uri_param(&uri, "q"), "&=");

	good("file:relative/path");
	ck_assert_str_eq(uri.path, "relative/path");

	good("remram://donor.example:10819/pool/region");
	ck_assert_str_eq(uri.host, "donor.example");
	ck_assert_uint_eq(uri.port, 10819);
	ck_assert_str_eq(uri.path, "/pool/region");

	good("nbd+unix:///export?socket=/run/x");
	ck_assert_str_eq(uri.host, "");
	ck_assert_str_eq(uri.path, "/export");
	ck_assert_str_eq(uri_param(&uri, "socket"), "/run/x");

	good("redis://127.0.0.1:65535");
	ck_assert_str_eq(uri.host, "127.0.0.1");
	ck_assert_uint_eq(uri.port, 65535);
	ck_assert_str_eq(uri.path, "");
}
END_TEST

START_TEST(ipv6)
{
	good("nbd://[::1]:99/x");
	ck_assert_str_eq(uri.host, "::1");
	ck_assert_uint_eq(uri.port, 99);
	ck_assert_str_eq(uri.path, "/x");
	good("nbd://[fe80::1%eth0]?a=1");
	ck_assert_str_eq(uri.host, "fe80::1%eth0");
	ck_assert_str_eq(uri_param(&uri, "a"), "1");
	bad("nbd://[::1", "']'");
	bad("nbd://[::g]/", "not an IPv6 address");
	bad("nbd://[127.0.0.1]/", "not an IPv6 address");
	bad("nbd://[]/", "not an IPv6 address");
	bad("nbd://[::1]x/", "missing behind the host");
	good("nbd://[0000:0000:0000:0000:0000:ffff:255.255.255.255]/");
	bad("nbd://[0000:0000:0000:0000:0000:ffff:255.255.255.2559]/", "not an IPv6 address");
	bad("nbd://[1:2:3:4:5:6:7:8:1:2:3:4:5:6:7:8:1:2:3:4:5:6:7:8]/", "not an IPv6 address");
}
END_TEST

START_TEST(refused)
{
	bad("", "kind of place");
	bad("/srv/pool", "kind of place");
	bad("1memory:", "kind of place");
	bad("mem_ory:", "kind of place");
	bad(":x", "kind of place");
	bad("file:/a%2", "two hex digits");
	bad("file:/a%", "two hex digits");
	bad("file:/a%zz", "two hex digits");
	bad("file:/a%00b", "%00");
	bad("file:/a#b", "%23");
	bad("memory:?a=%4", "two hex digits");
	bad("memory:?=1", "without a name");
	bad("nbd://user:secret@host/", "not a port");
	bad("nbd://user@host/", "user name");
	bad("nbd://a b/", "cannot contain ' '");
	bad("nbd://a\x01/", "cannot contain '?'");
	bad("nbd://host:/", "not a port");
	bad("nbd://host:0/", "not a port");
	bad("nbd://host:65536/", "\"65536\" is not a port");
	bad("nbd://host:99999999999999999999/", "not a port");
	bad("nbd://host:1x/", "not a port");
	bad("m:?a&b&c&d&e&f&g&h&i&j&k&l&m&n&o&p&q", "more than 16");
	good("m:?a&b&c&d&e&f&g&h&i&j&k&l&m&n&o&p");
}
END_TEST

START_TEST(length)
{
	char text[URI_TEXT_MAX + 10];

	memset(text, 'a', sizeof(text));
	memcpy(text, "m://h/", 6);
	text[URI_TEXT_MAX] = '\0';
	bad(text, "longer than");
	text[URI_TEXT_MAX - 19] = '\0';
	bad(text, "longer than 4076 bytes");
	text[URI_TEXT_MAX - 20] = '\0';
	good(text);
	ck_assert_uint_eq(strlen(uri.path), URI_TEXT_MAX - 20 - 5);
	ck_assert(uri.path >= uri.store);
	ck_assert(uri.path + strlen(uri.path) < uri.store + sizeof(uri.store));
}
END_TEST

START_TEST(is_uri)
{
	ck_assert(uri_is("memory:"));
	ck_assert(uri_is("a+b-c.1:x"));
	ck_assert(!uri_is("memory"));
	ck_assert(!uri_is("/x:"));
	ck_assert(!uri_is("[::1]:/x"));
	ck_assert(!uri_is(""));
}
END_TEST

START_TEST(known_params)
{
	const char *const known[] = {"size", "mlock", NULL};
	const char *const none[] = {NULL};

	good("memory:?size=1&mlock");
	ck_assert_int_eq(uri_check_params(&uri, known, &err), 0);
	ck_assert_int_eq(uri_check_params(&uri, none, &err), -EINVAL);
	ck_assert(strstr(err.text, "it takes: none"));
	good("memory:?siz=1");
	ck_assert_int_eq(uri_check_params(&uri, known, &err), -EINVAL);
	ck_assert_str_eq(err.text, "memory: unknown parameter \"siz\" (it takes: size, mlock)");
	good("memory:?size=1&size=2");
	ck_assert_int_eq(uri_check_params(&uri, known, &err), -EINVAL);
	ck_assert(strstr(err.text, "stands twice"));
}
END_TEST

START_TEST(sizes)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good_ones[] = {
	    {"0", 0},
	    {"4096", 4096},
	    {"512B", 512},
	    {"1K", 1024},
	    {"1k", 1024},
	    {"2KB", 2048},
	    {"2KiB", 2048},
	    {"3M", 3 << 20},
	    {"1G", 1 << 30},
	    {"2T", UINT64_C(2) << 40},
	    {"1P", UINT64_C(1) << 50},
	    {"18446744073709551615", UINT64_MAX},
	    {"16383P", UINT64_C(16383) << 50},
	};
	static const char *const bad_ones[] = {"", "-1", "+1", " 1", "1 ", "1X", "K", "1Ki",
	    "1KiBs", "1.5G", "0x10", "1iB", "1KK", "1BB", "1\n"};
	uint64_t bytes = 77;

	for (unsigned i = 0; i < sizeof(bad_ones) / sizeof(bad_ones[0]); i++)
		ck_assert_msg(size_parse(bad_ones[i], &bytes) == -EINVAL, "%s", bad_ones[i]);
	ck_assert_int_eq(size_parse("18446744073709551616", &bytes), -ERANGE);
	ck_assert_int_eq(size_parse("16384P", &bytes), -ERANGE);
	ck_assert_uint_eq(bytes, 77);
	for (unsigned i = 0; i < sizeof(good_ones) / sizeof(good_ones[0]); i++) {
		ck_assert_msg(!size_parse(good_ones[i].text, &bytes), "%s", good_ones[i].text);
		ck_assert_uint_eq(bytes, good_ones[i].bytes);
	}
}
END_TEST

START_TEST(size_texts)
{
	char buf[SIZE_TEXT_MAX];

	ck_assert_str_eq(size_format(0, buf), "0 B");
	ck_assert_str_eq(size_format(1023, buf), "1023 B");
	ck_assert_str_eq(size_format(1024, buf), "1.0 KiB");
	ck_assert_str_eq(size_format(1536, buf), "1.5 KiB");
	ck_assert_str_eq(size_format((1 << 20) - 1, buf), "1.0 MiB");
	ck_assert_str_eq(size_format(UINT64_C(4) << 30, buf), "4.0 GiB");
	ck_assert_str_eq(size_format(UINT64_MAX, buf), "16.0 EiB");
}
END_TEST

START_TEST(durations)
{
	uint64_t ms = 77;

	ck_assert_int_eq(duration_parse("", &ms), -EINVAL);
	ck_assert_int_eq(duration_parse("-1s", &ms), -EINVAL);
	ck_assert_int_eq(duration_parse("1d", &ms), -EINVAL);
	ck_assert_int_eq(duration_parse("1 s", &ms), -EINVAL);
	ck_assert_int_eq(duration_parse("s", &ms), -EINVAL);
	ck_assert_int_eq(duration_parse("18446744073709551616", &ms), -ERANGE);
	ck_assert_int_eq(duration_parse("18446744073709551615h", &ms), -ERANGE);
	ck_assert_uint_eq(ms, 77);
	ck_assert(!duration_parse("30", &ms) && ms == 30000);
	ck_assert(!duration_parse("30s", &ms) && ms == 30000);
	ck_assert(!duration_parse("500ms", &ms) && ms == 500);
	ck_assert(!duration_parse("5m", &ms) && ms == 300000);
	ck_assert(!duration_parse("2h", &ms) && ms == 7200000);
	ck_assert(!duration_parse("0", &ms) && ms == 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("uri");
	TCase *tc = tcase_create("uri");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tc, parts);
	tcase_add_test(tc, ipv6);
	tcase_add_test(tc, refused);
	tcase_add_test(tc, length);
	tcase_add_test(tc, is_uri);
	tcase_add_test(tc, known_params);
	tcase_add_test(tc, sizes);
	tcase_add_test(tc, size_texts);
	tcase_add_test(tc, durations);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
