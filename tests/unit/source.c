/* SPDX-License-Identifier: Apache-2.0
 *
 * What `remram mount` takes as a source, what it refuses, and with which words.
 */
#include "mount/source.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const schemes[] = {"memory", "file", NULL};
static struct mount_source source;
static struct err err;

static void donor(const char *text, const char *host, unsigned port, const char *pool)
{
	err = (struct err){0};
	ck_assert_msg(!source_parse(text, schemes, &source, &err), "%s: %s", text, err.text);
	ck_assert(source.is_donor);
	ck_assert_str_eq(source.text, text);
	ck_assert_str_eq(source.host, host);
	ck_assert_uint_eq(source.port, port);
	ck_assert_str_eq(source.pool, pool);
}

static void bad(const char *text, const char *why)
{
	struct mount_source before;

	memset(&source, 7, sizeof(source));
	before = source;
	err = (struct err){0};
	ck_assert_msg(source_parse(text, schemes, &source, &err) == -EINVAL, "%s was taken", text);
	ck_assert_msg(strstr(err.text, why), "%s: \"%s\" lacks \"%s\"", text, err.text, why);
	ck_assert_msg(!memcmp(&before, &source, sizeof(before)), "%s: written on failure", text);
}

START_TEST(donors)
{
	donor("donor:/ram", "donor", SOURCE_PORT, "ram");
	donor("donor.example:10820:/ram", "donor.example", 10820, "ram");
	donor("10.0.0.1:/a-b_c.d", "10.0.0.1", SOURCE_PORT, "a-b_c.d");
	donor("[::1]:/ram", "::1", SOURCE_PORT, "ram");
	donor("[fe80::1%eth0]:65535:/ram", "fe80::1%eth0", 65535, "ram");
	donor("donor:/ram/", "donor", SOURCE_PORT, "ram");
}
END_TEST

START_TEST(uris)
{
	donor("remram://donor/ram", "donor", SOURCE_PORT, "ram");
	donor("remram://[::1]:12/ram", "::1", 12, "ram");
	ck_assert_uint_eq(source.conns, 0);
	donor("remram://donor/ram?conns=16", "donor", SOURCE_PORT, "ram");
	ck_assert_uint_eq(source.conns, 16);
	/* A host may be called like a scheme. */
	donor("remram://file/path", "file", SOURCE_PORT, "path");
	donor("remram:/ram", "remram", SOURCE_PORT, "ram");

	ck_assert(!source_parse("file:/path", schemes, &source, &err));
	ck_assert(!source.is_donor);
	ck_assert_str_eq(source.text, "file:/path");
	ck_assert(!source_parse("memory:?size=8G", schemes, &source, &err));
	ck_assert(!source.is_donor);
	ck_assert(!source_parse("MEMORY:?size=8G", schemes, &source, &err));
	ck_assert(!source.is_donor);
}
END_TEST

START_TEST(refused)
{
	bad("", "HOST:/POOL");
	bad("donor", "HOST:/POOL");
	bad(":/ram", "HOST:/POOL");
	bad("donor:", "':/POOL' is missing");
	bad("donor:ram", "':/POOL' is missing");
	bad("donor:/", "pool's name is missing");
	bad("donor:/ram/region", "mount the pool");
	bad("donor:0:/ram", "'0' is no port");
	bad("donor:65536:/ram", "'65536' is no port");
	bad("donor:99999999999:/ram", "is no port");
	bad("donor:x1:/ram", "'x1' is no port");
	bad("donor::/ram", "is no port");
	bad("donor:10819", "':/POOL' is missing");
	bad("fe80::1:/ram", "brackets");
	bad("::1:/ram", "HOST:/POOL");
	bad("[::1]/ram", "']:'");
	bad("[::1", "']:'");
	bad("[]:/ram", "']:'");
	bad("do nor:/ram", "no host name");
	bad("a/b:/ram", "no host name");
	bad("s3://bucket/x", "unknown scheme 's3' (known: remram, memory, file)");
	bad("donor://ram", "unknown scheme 'donor'");
	bad("remram:///ram", "host is missing");
	bad("remram://donor", "pool's name is missing");
	bad("remram://donor/ram?x=1", "x");
	bad("remram://donor/ram?conns=0", "conns=0: a number from 1 to 16");
	bad("remram://donor/ram?conns=17", "conns=17: a number from 1 to 16");
	bad("remram://donor/ram?conns=4294967297", "a number from 1 to 16");
	bad("remram://donor/ram?conns=-1", "a number from 1 to 16");
	bad("remram://donor/ram?conns", "a number from 1 to 16");
	bad("remram://donor/ram?conns=1&conns=2", "conns");
	bad("file:%zz", "");
}
END_TEST

START_TEST(lengths)
{
	static char text[URI_TEXT_MAX + 16];

	memset(text, 'h', SOURCE_HOST_MAX);
	strcpy(text + SOURCE_HOST_MAX, ":/p");
	ck_assert(!source_parse(text, schemes, &source, &err));
	memset(text, 'h', SOURCE_HOST_MAX + 1);
	strcpy(text + SOURCE_HOST_MAX + 1, ":/p");
	bad(text, "host's name is longer");

	strcpy(text, "h:/");
	memset(text + 3, 'p', SOURCE_POOL_MAX);
	text[3 + SOURCE_POOL_MAX] = '\0';
	ck_assert(!source_parse(text, schemes, &source, &err));
	text[3 + SOURCE_POOL_MAX] = 'p';
	text[4 + SOURCE_POOL_MAX] = '\0';
	bad(text, "pool's name is longer");

	memset(text, 'x', URI_TEXT_MAX);
	text[URI_TEXT_MAX] = '\0';
	bad(text, "source is longer");
}
END_TEST

START_TEST(peers)
{
	char buf[SOURCE_PEER_MAX];

	donor("donor:/ram", "donor", SOURCE_PORT, "ram");
	ck_assert_str_eq(source_peer(&source, buf), "donor:10819");
	donor("[::1]:5:/ram", "::1", 5, "ram");
	ck_assert_str_eq(source_peer(&source, buf), "[::1]:5");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("source");
	TCase *tc = tcase_create("source");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tc, donors);
	tcase_add_test(tc, uris);
	tcase_add_test(tc, refused);
	tcase_add_test(tc, lengths);
	tcase_add_test(tc, peers);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
