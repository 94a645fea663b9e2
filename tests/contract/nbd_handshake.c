/* SPDX-License-Identifier: Apache-2.0
 *
 * The NBD export's handshake, option by option, right and wrong, against a client that does just what a
 * test says.  A bystander's service must be unharmed by each.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/nbdtest.h"
#include "tests/lib/rig.h"

enum { FIXED = NBD_FIXED_NEWSTYLE, NO_ZEROES = NBD_NO_ZEROES };

static struct nbdtest test;
static struct nbdraw raw;
static uint8_t data[70000];

static void setup(void)
{
	nbdtest_start(&test);
	raw.fd = -1;
}

static void teardown(void)
{
	nbdraw_close(&raw);
	nbdtest_stop(&test);
}

static void begin(void)
{
	nbdraw_close(&raw);
	nbdraw_connect(&raw, test.path, FIXED | NO_ZEROES);
}

/* A client of the peer protocol opens the region "work" as loop devices do. */
static void hold(struct raw *holder)
{
	struct pool_req req = {.op = POOL_LOOKUP, .name = "work"};

	raw_open(holder, test.donor.port, "ram", 9, 1);
	ck_assert_int_eq(raw_control(holder, &req, 0, 0), 0);
	req = (struct pool_req){.op = POOL_OPEN,
	    .id = req.attr.id,
	    .flags = POOL_READ | POOL_WRITE | POOL_PIN,
	    .number = 1};
	ck_assert_int_eq(raw_control(holder, &req, 0, 0), 0);
}

/* The handshake goes on: an option is answered. */
static void expect_going_on(void)
{
	ck_assert_uint_eq(nbdraw_ask(&raw, NBD_O_LIST_META_CONTEXT, "", 0), NBD_R_ERR_INVALID);
}

static uint32_t info(uint32_t option, const char *name)
{
	return nbdraw_ask(&raw, option, data, nbdraw_go_data(data, name, strlen(name), NULL, 0));
}

/* Receives up to the ACK; how many replies of that type. */
static unsigned count_replies(uint32_t type)
{
	unsigned n = 0;

	for (; raw.reply_type == type; n++)
		ck_assert(nbdraw_reply(&raw));
	ck_assert_uint_eq(raw.reply_type, NBD_R_ACK);
	return n;
}

/* ---- client flags ---- */

START_TEST(client_flags)
{
	static const uint32_t unknown[] = {4, 1u << 31, 0x80000001, 0xfffffffe};

	for (unsigned i = 0; i < 4; i++) {
		nbdraw_close(&raw);
		nbdraw_connect(&raw, test.path, unknown[i]);
		ck_assert(nbdraw_ended(&raw, 5));
	}
	donor_log_expect(&test.donor, "unknown client flags");
}
END_TEST

/* Without fixed newstyle a client can name an export, and nothing else. */
START_TEST(not_fixed)
{
	nbdraw_connect(&raw, test.path, 0);
	nbdraw_option(&raw, NBD_O_LIST, NULL, 0);
	ck_assert(nbdraw_ended(&raw, 5));
	nbdraw_close(&raw);
	nbdraw_connect(&raw, test.path, 0);
	nbdraw_option(&raw, NBD_O_EXPORT_NAME, "ram/work", 8);
	ck_assert(nbdraw_recv(&raw, data, NBD_LEGACY_LEN + NBD_LEGACY_PAD));
	ck_assert_uint_eq(nbd_get64(data), NBDTEST_SIZE);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_FLUSH, 0, 0, NULL), 0);
}
END_TEST

START_TEST(wrong_magic)
{
	nbdraw_connect(&raw, test.path, FIXED);
	nbdraw_bytes(&raw, "IHAVEOPU\0\0\0\3\0\0\0\0", 16);
	ck_assert(nbdraw_ended(&raw, 5));
	donor_log_expect(&test.donor, "not an option (wrong magic)");
}
END_TEST

/* ---- EXPORT_NAME ---- */

START_TEST(export_name)
{
	for (unsigned no_zeroes = 0; no_zeroes < 2; no_zeroes++) {
		nbdraw_connect(&raw, test.path, FIXED | (no_zeroes ? NO_ZEROES : 0));
		nbdraw_option(&raw, NBD_O_EXPORT_NAME, "/ram/work", 9);
		ck_assert(nbdraw_recv(&raw, data, NBD_LEGACY_LEN));
		ck_assert_uint_eq(nbd_get64(data), NBDTEST_SIZE);
		ck_assert_uint_eq(
		    nbd_get16(data + 8) & (NBD_HAS_FLAGS | NBD_READ_ONLY | NBD_SEND_DF),
		    NBD_HAS_FLAGS);
		if (!no_zeroes) {
			ck_assert(nbdraw_recv(&raw, data, NBD_LEGACY_PAD));
			for (unsigned i = 0; i < NBD_LEGACY_PAD; i++)
				ck_assert_uint_eq(data[i], 0);
		}
		ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_READ, 0, 512, NULL), 0);
		nbdraw_close(&raw);
	}
}
END_TEST

START_TEST(export_name_unknown)
{
	static const char *const names[] = {"", "ram", "ram/", "ram/nope", "nope/work", "ram/work/",
	    "ram/work/rw", "//ram/work", "work", "ram//work", "ram/work/ro/ro", "/", "ram/."};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		begin();
		nbdraw_option(&raw, NBD_O_EXPORT_NAME, names[i], strlen(names[i]));
		ck_assert_msg(nbdraw_ended(&raw, 5), "\"%s\" is an export", names[i]);
		begin();
		ck_assert_uint_eq(info(NBD_O_GO, names[i]), NBD_R_ERR_UNKNOWN);
		ck_assert_uint_eq(info(NBD_O_INFO, names[i]), NBD_R_ERR_UNKNOWN);
		expect_going_on();
	}
}
END_TEST

/* ---- INFO and GO ---- */

START_TEST(go_infos)
{
	static const uint16_t all[] = {NBD_I_NAME, 999, NBD_I_DESCRIPTION, NBD_I_BLOCK_SIZE, 0};
	unsigned seen = 0;

	begin();
	nbdraw_ask(&raw, NBD_O_INFO, data, nbdraw_go_data(data, "/ram/work", 9, all, 5));
	for (; raw.reply_type == NBD_R_INFO; ck_assert(nbdraw_reply(&raw))) {
		seen |= 1u << nbd_get16(raw.reply);
		switch (nbd_get16(raw.reply)) {
		case NBD_I_EXPORT:
			ck_assert_uint_eq(raw.reply_len, 12);
			ck_assert_uint_eq(nbd_get64(raw.reply + 2), NBDTEST_SIZE);
			break;
		case NBD_I_NAME:
			ck_assert_str_eq((char *)raw.reply + 2, "ram/work");
			break;
		case NBD_I_DESCRIPTION:
			ck_assert_ptr_nonnull(strstr((char *)raw.reply + 2, "ram"));
			break;
		case NBD_I_BLOCK_SIZE:
			ck_assert_uint_eq(raw.reply_len, 14);
			ck_assert_uint_eq(nbd_get32(raw.reply + 2), 1);
			ck_assert_uint_eq(nbd_get32(raw.reply + 6), 4096);
			ck_assert_uint_eq(nbd_get32(raw.reply + 10), 32 << 20);
			break;
		}
	}
	ck_assert_uint_eq(raw.reply_type, NBD_R_ACK);
	ck_assert_uint_eq(seen, 15);
	ck_assert_uint_eq(info(NBD_O_INFO, "ram/work"), NBD_R_INFO);
	ck_assert_uint_eq(count_replies(NBD_R_INFO), 1);
}
END_TEST

/* What INFO said of one export has nothing to do with what GO opens. */
START_TEST(info_changes_nothing)
{
	nbdtest_region(&test, "small", 8192, 0600);
	begin();
	info(NBD_O_INFO, "ram/small");
	count_replies(NBD_R_INFO);
	ck_assert_uint_eq(info(NBD_O_GO, "ram/nope"), NBD_R_ERR_UNKNOWN);
	expect_going_on();
	ck_assert_uint_eq(info(NBD_O_GO, "ram/work"), NBD_R_INFO);
	ck_assert_uint_eq(nbd_get64(raw.reply + 2), NBDTEST_SIZE);
}
END_TEST

START_TEST(malformed)
{
	static const uint32_t options[] = {
	    NBD_O_INFO, NBD_O_GO, NBD_O_LIST_META_CONTEXT, NBD_O_SET_META_CONTEXT};
	size_t len;

	for (unsigned i = 0; i < 4; i++) {
		begin();
		ck_assert_uint_eq(nbdraw_ask(&raw, NBD_O_STRUCTURED_REPLY, NULL, 0), NBD_R_ACK);
		len = i < 2 ? nbdraw_go_data(data, "ram/work", 8, NULL, 0)
			    : nbdraw_meta_data(data, "ram/work", NULL);
		for (size_t cut = 0; cut < len; cut++)
			ck_assert_uint_eq(
			    nbdraw_ask(&raw, options[i], data, cut), NBD_R_ERR_INVALID);
		data[len] = 1;
		ck_assert_uint_eq(nbdraw_ask(&raw, options[i], data, len + 1), NBD_R_ERR_INVALID);
		nbd_put32(data, UINT32_MAX); /* CVE-2022-26495: the name's length */
		ck_assert_uint_eq(nbdraw_ask(&raw, options[i], data, len), NBD_R_ERR_INVALID);
		expect_going_on();
	}
	for (unsigned option = NBD_O_LIST; option <= NBD_O_EXTENDED_HEADERS; option++)
		if (option == NBD_O_LIST || option == NBD_O_STRUCTURED_REPLY ||
		    option == NBD_O_EXTENDED_HEADERS)
			ck_assert_uint_eq(nbdraw_ask(&raw, option, "x", 1), NBD_R_ERR_INVALID);
}
END_TEST

/* CVE-2017-15118, CVE-2022-26496: names and options up to the longest, and longer ones. */
START_TEST(long_options)
{
	size_t len;

	memset(data, 'n', sizeof(data));
	begin();
	memset(data + 4, 'n', NBD_NAME_MAX);
	nbd_put32(data, NBD_NAME_MAX);
	nbd_put16(data + 4 + NBD_NAME_MAX, 0);
	ck_assert_uint_eq(
	    nbdraw_ask(&raw, NBD_O_GO, data, 4 + NBD_NAME_MAX + 2), NBD_R_ERR_UNKNOWN);
	nbd_put32(data, NBD_NAME_MAX + 1);
	nbd_put16(data + 4 + NBD_NAME_MAX + 1, 0);
	ck_assert_uint_eq(
	    nbdraw_ask(&raw, NBD_O_GO, data, 4 + NBD_NAME_MAX + 3), NBD_R_ERR_TOO_BIG);
	for (len = 16 * 1024 - 1; len <= 16 * 1024 + 1; len++)
		ck_assert_uint_eq(nbdraw_ask(&raw, 99, data, len),
		    len > 16 * 1024 ? NBD_R_ERR_TOO_BIG : NBD_R_ERR_UNSUP);
	ck_assert_uint_eq(nbdraw_ask(&raw, NBD_O_GO, data, sizeof(data)), NBD_R_ERR_TOO_BIG);
	expect_going_on();
	nbdraw_option(&raw, NBD_O_EXPORT_NAME, data, NBD_NAME_MAX + 1);
	ck_assert(nbdraw_ended(&raw, 5));
	begin();
	nbdraw_bytes(&raw, "IHAVEOPT\0\0\0\7\xff\xff\xff\xff", 16); /* CVE-2017-15119 */
	ck_assert(nbdraw_ended(&raw, 5));
	donor_log_expect(&test.donor, "longer than any can be");
}
END_TEST

/* ---- names ---- */

START_TEST(odd_names)
{
	static const char *const names[] = {"a b", "\xff\xfe\x80", "ro", "%2F", "new\nline",
	    "'\"\\", "?x=1", "\xe2\x82\xac", "-", "..."};
	char export[300];

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		nbdtest_region(&test, names[i], 4096 * (i + 1), 0600);
		snprintf(export, sizeof(export), "%sram/%s", i % 2 ? "/" : "", names[i]);
		nbdraw_open(&raw, test.path, NBD_SIMPLE, export, NULL);
		ck_assert_uint_eq(raw.size, 4096 * (i + 1));
		nbdraw_close(&raw);
		snprintf(export, sizeof(export), "ram/%s/ro", names[i]);
		nbdraw_open(&raw, test.path, NBD_SIMPLE, export, NULL);
		ck_assert(raw.flags & NBD_READ_ONLY);
		nbdraw_close(&raw);
	}
	begin(); /* a NUL ends no name */
	ck_assert_uint_eq(
	    nbdraw_ask(&raw, NBD_O_GO, data, nbdraw_go_data(data, "ram/work\0", 9, NULL, 0)),
	    NBD_R_ERR_UNKNOWN);
}
END_TEST

START_TEST(longest_name)
{
	char name[256], export[300];

	memset(name, 'x', 255);
	name[255] = 0;
	nbdtest_region(&test, name, 4096, 0600);
	snprintf(export, sizeof(export), "/ram/%s/ro", name);
	nbdraw_open(&raw, test.path, NBD_STRUCTURED, export, NULL);
	nbdraw_close(&raw);
	begin();
	nbdraw_ask(&raw, NBD_O_LIST, NULL, 0);
	ck_assert_uint_eq(count_replies(NBD_R_SERVER), 3);
}
END_TEST

/* The empty name is the only region there is, and nothing if there are more, or none. */
START_TEST(default_export)
{
	begin();
	ck_assert_uint_eq(info(NBD_O_INFO, ""), NBD_R_ERR_UNKNOWN);
	nbdraw_close(&test.bystander);
	while (nbdtest_remove(&test, "bystander") == -EBUSY)
		usleep(1000);
	ck_assert_uint_eq(info(NBD_O_INFO, ""), NBD_R_INFO);
	ck_assert_uint_eq(nbd_get64(raw.reply + 2), NBDTEST_SIZE);
	count_replies(NBD_R_INFO);
	ck_assert_int_eq(nbdtest_remove(&test, "work"), 0);
	ck_assert_uint_eq(info(NBD_O_INFO, ""), NBD_R_ERR_UNKNOWN);
	nbdraw_ask(&raw, NBD_O_LIST, NULL, 0); /* no exports at all */
	ck_assert_uint_eq(count_replies(NBD_R_SERVER), 0);
	nbdtest_region(&test, "bystander", NBDTEST_SIZE, 0600);
	nbdraw_open(&test.bystander, test.path, NBD_STRUCTURED, "ram/bystander", NULL);
	memset(data, 0x5b, 4096);
	nbdraw_cmd(&test.bystander, 0, NBD_C_WRITE, 0, 4096, data);
}
END_TEST

/* ---- LIST ---- */

START_TEST(list)
{
	bool work = false, disk = false;

	nbdtest_region_in(&test, "disk", "d", 4096, 0600);
	begin();
	nbdraw_ask(&raw, NBD_O_LIST, NULL, 0);
	for (; raw.reply_type == NBD_R_SERVER; ck_assert(nbdraw_reply(&raw))) {
		ck_assert_uint_eq(nbd_get32(raw.reply), raw.reply_len - 4);
		work = work || strcmp((char *)raw.reply + 4, "ram/work") == 0;
		disk = disk || strcmp((char *)raw.reply + 4, "disk/d") == 0;
	}
	ck_assert_uint_eq(raw.reply_type, NBD_R_ACK);
	ck_assert(work && disk);
	expect_going_on();
}
END_TEST

START_TEST(thousands_of_exports)
{
	static bool seen[2000];
	unsigned n, count = 0;
	char name[32];

	for (unsigned i = 0; i < 2000; i++) {
		snprintf(name, sizeof(name), "r%u", i);
		nbdtest_region(&test, name, 4096, 0600);
	}
	begin();
	for (unsigned round = 0; round < 2; round++) {
		memset(seen, 0, sizeof(seen));
		count = 0;
		nbdraw_ask(&raw, NBD_O_LIST, NULL, 0);
		while (raw.reply_type == NBD_R_SERVER) {
			count++;
			if (sscanf((char *)raw.reply + 4, "ram/r%u", &n) == 1) {
				rig_check(n < 2000 && !seen[n], "listed twice");
				seen[n] = true;
			}
			rig_check(nbdraw_reply(&raw), "the connection was ended");
		}
		ck_assert_uint_eq(raw.reply_type, NBD_R_ACK);
		ck_assert_uint_eq(count, 2002);
	}
	nbdraw_close(&raw);
	nbdraw_open(&raw, test.path, NBD_SIMPLE, "ram/r1999", NULL);
}
END_TEST

/* ---- modes of reply ---- */

START_TEST(structured_and_extended)
{
	begin();
	ck_assert_uint_eq(nbdraw_ask(&raw, NBD_O_STRUCTURED_REPLY, NULL, 0), NBD_R_ACK);
	ck_assert_uint_eq(nbdraw_ask(&raw, NBD_O_STRUCTURED_REPLY, NULL, 0), NBD_R_ERR_INVALID);
	ck_assert_uint_eq(nbdraw_ask(&raw, NBD_O_EXTENDED_HEADERS, NULL, 0), NBD_R_ACK);
	ck_assert_uint_eq(nbdraw_ask(&raw, NBD_O_EXTENDED_HEADERS, NULL, 0), NBD_R_ERR_INVALID);
	ck_assert_uint_eq(
	    nbdraw_ask(&raw, NBD_O_STRUCTURED_REPLY, NULL, 0), NBD_R_ERR_EXT_HEADER_REQD);
	ck_assert_uint_eq(info(NBD_O_GO, "ram/work"), NBD_R_INFO);
	ck_assert(nbd_get16(raw.reply + 10) & NBD_SEND_DF);
	count_replies(NBD_R_INFO);
	raw.mode = NBD_EXTENDED;
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_READ, 0, 4096, NULL), 0);
}
END_TEST

/* CVE-2019-14851: structured replies after INFO, contexts in any order. */
START_TEST(order_of_options)
{
	static const char *const queries[] = {"base:allocation", NULL};
	size_t len;

	begin();
	info(NBD_O_INFO, "ram/work");
	count_replies(NBD_R_INFO);
	len = nbdraw_meta_data(data, "ram/work", queries);
	ck_assert_uint_eq(nbdraw_ask(&raw, NBD_O_SET_META_CONTEXT, data, len), NBD_R_ERR_INVALID);
	ck_assert_uint_eq(nbdraw_ask(&raw, NBD_O_STRUCTURED_REPLY, NULL, 0), NBD_R_ACK);
	ck_assert_uint_eq(nbdraw_ask(&raw, NBD_O_SET_META_CONTEXT, data, len), NBD_R_META_CONTEXT);
	count_replies(NBD_R_META_CONTEXT);
	info(NBD_O_INFO, "ram/work");
	count_replies(NBD_R_INFO);
	info(NBD_O_GO, "ram/work");
	count_replies(NBD_R_INFO);
	raw.mode = NBD_STRUCTURED;
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_BLOCK_STATUS, 0, NBDTEST_SIZE, NULL), 0);
	ck_assert_uint_eq(raw.extent_count[1], 1);
}
END_TEST

/* CVE-2021-3716, CVE-2019-14842: STARTTLS is refused, and what is sent behind it counts for what it is. */
START_TEST(starttls)
{
	begin();
	nbdraw_option(&raw, NBD_O_STARTTLS, NULL, 0);
	nbdraw_option(&raw, NBD_O_STRUCTURED_REPLY, NULL, 0);
	ck_assert(nbdraw_reply(&raw));
	ck_assert_uint_eq(raw.reply_option, NBD_O_STARTTLS);
	ck_assert_uint_eq(raw.reply_type, NBD_R_ERR_UNSUP);
	ck_assert(nbdraw_reply(&raw));
	ck_assert_uint_eq(raw.reply_option, NBD_O_STRUCTURED_REPLY);
	ck_assert_uint_eq(raw.reply_type, NBD_R_ACK);
}
END_TEST

START_TEST(unknown_options)
{
	static const uint32_t options[] = {0, 4, 12, 1000, UINT32_MAX};

	begin();
	for (unsigned i = 0; i < 5; i++) {
		ck_assert_uint_eq(nbdraw_ask(&raw, options[i], NULL, 0), NBD_R_ERR_UNSUP);
		ck_assert_uint_eq(nbdraw_ask(&raw, options[i], "some data", 9), NBD_R_ERR_UNSUP);
	}
	expect_going_on();
}
END_TEST

START_TEST(abort_option)
{
	begin();
	ck_assert_uint_eq(nbdraw_ask(&raw, NBD_O_ABORT, NULL, 0), NBD_R_ACK);
	ck_assert(nbdraw_ended(&raw, 5));
}
END_TEST

/* ---- contexts ---- */

static unsigned contexts(uint32_t option, const char *name, const char *const *queries)
{
	unsigned found = 0;

	nbdraw_ask(&raw, option, data, nbdraw_meta_data(data, name, queries));
	for (; raw.reply_type == NBD_R_META_CONTEXT; ck_assert(nbdraw_reply(&raw))) {
		const char *text = (char *)raw.reply + 4;
		uint32_t id = nbd_get32(raw.reply);

		found |= strcmp(text, "base:allocation") == 0 ? 1u : 0u;
		found |= strcmp(text, "remram:resident") == 0 ? 2u : 0u;
		found |= strcmp(text, "remram:dirty") == 0 ? 4u : 0u;
		ck_assert(option == NBD_O_LIST_META_CONTEXT ? id == 0 : id >= 1 && id <= 3);
	}
	return raw.reply_type == NBD_R_ACK ? found : 100;
}

START_TEST(meta_contexts)
{
	static const char *const base[] = {"base:", NULL}, *const ours[] = {"remram:", NULL},
				 *const all[] = {"base:allocation", "remram:dirty",
				     "remram:resident", NULL},
				 *const odd[] = {"", "x", "base", "base:alloc", "base:allocation2",
				     "remram:dirty", NULL};

	begin();
	ck_assert_uint_eq(contexts(NBD_O_LIST_META_CONTEXT, "ram/work", NULL), 100);
	ck_assert_uint_eq(nbdraw_ask(&raw, NBD_O_STRUCTURED_REPLY, NULL, 0), NBD_R_ACK);
	ck_assert_uint_eq(contexts(NBD_O_LIST_META_CONTEXT, "ram/work", NULL), 7);
	ck_assert_uint_eq(contexts(NBD_O_LIST_META_CONTEXT, "ram/work", base), 1);
	ck_assert_uint_eq(contexts(NBD_O_LIST_META_CONTEXT, "ram/work", ours), 6);
	ck_assert_uint_eq(contexts(NBD_O_LIST_META_CONTEXT, "ram/work", odd), 4);
	ck_assert_uint_eq(contexts(NBD_O_LIST_META_CONTEXT, "ram/nope", NULL), 100);
	ck_assert_uint_eq(raw.reply_type, NBD_R_ERR_UNKNOWN);
	ck_assert_uint_eq(contexts(NBD_O_SET_META_CONTEXT, "ram/work", NULL), 0);
	ck_assert_uint_eq(contexts(NBD_O_SET_META_CONTEXT, "ram/work", base), 0);
	ck_assert_uint_eq(contexts(NBD_O_SET_META_CONTEXT, "ram/work", all), 7);
	ck_assert_uint_eq(contexts(NBD_O_SET_META_CONTEXT, "ram/work", odd), 4);
}
END_TEST

/* Contexts that were chosen for another export, or in an attempt that was followed by one that failed, are
 * not those of the export that is opened. */
START_TEST(contexts_are_of_one_export)
{
	static const char *const queries[] = {"base:allocation", NULL};

	for (unsigned i = 0; i < 2; i++) {
		begin();
		nbdraw_ask(&raw, NBD_O_STRUCTURED_REPLY, NULL, 0);
		ck_assert_uint_eq(
		    contexts(NBD_O_SET_META_CONTEXT, i ? "ram/work" : "ram/bystander", queries), 1);
		if (i)
			ck_assert_uint_eq(
			    contexts(NBD_O_SET_META_CONTEXT, "ram/nope", queries), 100);
		info(NBD_O_GO, "ram/work");
		count_replies(NBD_R_INFO);
		raw.mode = NBD_STRUCTURED;
		ck_assert_uint_eq(
		    nbdraw_cmd(&raw, 0, NBD_C_BLOCK_STATUS, 0, 4096, NULL), NBD_EINVAL);
	}
}
END_TEST

/* ---- access ---- */

START_TEST(modes)
{
	nbdtest_region(&test, "ronly", 4096, 0444);
	nbdtest_region(&test, "secret", 4096, 0200);
	nbdraw_open(&raw, test.path, NBD_SIMPLE, "ram/ronly", NULL);
	ck_assert_uint_eq(
	    raw.flags & (NBD_READ_ONLY | NBD_SEND_TRIM | NBD_SEND_WRITE_ZEROES), NBD_READ_ONLY);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_WRITE, 0, 512, data), NBD_EPERM);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_READ, 0, 512, NULL), 0);
	begin();
	ck_assert_uint_eq(info(NBD_O_GO, "ram/secret"), NBD_R_ERR_POLICY);
	ck_assert_uint_eq(info(NBD_O_INFO, "ram/secret"), NBD_R_ERR_POLICY);
	ck_assert_ptr_nonnull(strstr((char *)raw.reply, "mode"));
	nbdraw_close(&raw);
	nbdraw_open(&raw, test.path, NBD_SIMPLE, "ram/work", NULL);
	ck_assert_uint_eq(raw.flags, NBD_HAS_FLAGS | NBD_SEND_FLUSH | NBD_SEND_FUA | NBD_SEND_TRIM |
					 NBD_SEND_WRITE_ZEROES | NBD_CAN_MULTI_CONN |
					 NBD_SEND_CACHE | NBD_SEND_FAST_ZERO);
}
END_TEST

/* One writer: a region that another session keeps to itself is not opened for writing, but can be read. */
START_TEST(one_writer)
{
	static struct raw holder;

	hold(&holder);
	begin();
	ck_assert_uint_eq(info(NBD_O_GO, "ram/work"), NBD_R_ERR_POLICY);
	ck_assert_ptr_nonnull(strstr((char *)raw.reply, "in use: "));
	ck_assert_ptr_nonnull(strstr((char *)raw.reply, "(127.0.0.1")); /* by whom */
	ck_assert_ptr_nonnull(strstr((char *)raw.reply, "ram/work/ro"));
	ck_assert_uint_eq(info(NBD_O_GO, "ram/work/ro"), NBD_R_INFO);
	ck_assert(nbd_get16(raw.reply + 10) & NBD_READ_ONLY);
	count_replies(NBD_R_INFO);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_READ, 0, 4096, NULL), 0);
	raw_close(&holder);
	nbdraw_close(&raw);
	nbdraw_open(
	    &raw, test.path, NBD_SIMPLE, "ram/bystander", NULL); /* all clients are one writer */
	ck_assert_uint_eq(raw.flags & NBD_READ_ONLY, 0);
	ck_assert_int_eq(nbdtest_open_write(&test, "bystander"), -EBUSY);
}
END_TEST

/* Who holds the region may be about to give it back: a client that comes too early waits a little, and one that
 * goes meanwhile leaves nothing behind. */
START_TEST(a_little_too_early)
{
	static struct raw holder;
	struct pool_req req = {.op = POOL_CLOSE, .number = 1};
	size_t len = nbdraw_go_data(data, "ram/work", 8, NULL, 0);

	hold(&holder);
	begin();
	nbdraw_option(&raw, NBD_O_GO, data, len);
	usleep(20000);
	begin(); /* the first one goes */
	nbdraw_option(&raw, NBD_O_GO, data, len);
	usleep(50000);
	ck_assert_int_eq(raw_control(&holder, &req, 1, 0), 0);
	ck_assert(nbdraw_reply(&raw));
	ck_assert_uint_eq(raw.reply_type, NBD_R_INFO);
	count_replies(NBD_R_INFO);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_WRITE_ZEROES, 0, 4096, NULL), 0);
	nbdraw_close(&raw);
	for (unsigned i = 0; i < 500 && nbdtest_remove(&test, "work"); i++)
		usleep(10000);
	raw_close(&holder);
	begin();
	ck_assert_uint_eq(info(NBD_O_GO, "ram/work"), NBD_R_ERR_UNKNOWN);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("nbd_handshake");
	TCase *tc = tcase_create("options");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, client_flags);
	tcase_add_test(tc, not_fixed);
	tcase_add_test(tc, wrong_magic);
	tcase_add_test(tc, export_name);
	tcase_add_test(tc, export_name_unknown);
	tcase_add_test(tc, go_infos);
	tcase_add_test(tc, info_changes_nothing);
	tcase_add_test(tc, malformed);
	tcase_add_test(tc, long_options);
	tcase_add_test(tc, odd_names);
	tcase_add_test(tc, longest_name);
	tcase_add_test(tc, default_export);
	tcase_add_test(tc, list);
	tcase_add_test(tc, thousands_of_exports);
	tcase_add_test(tc, structured_and_extended);
	tcase_add_test(tc, order_of_options);
	tcase_add_test(tc, starttls);
	tcase_add_test(tc, unknown_options);
	tcase_add_test(tc, abort_option);
	tcase_add_test(tc, meta_contexts);
	tcase_add_test(tc, contexts_are_of_one_export);
	tcase_add_test(tc, modes);
	tcase_add_test(tc, one_writer);
	tcase_add_test(tc, a_little_too_early);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
