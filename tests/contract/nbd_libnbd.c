/* SPDX-License-Identifier: Apache-2.0
 *
 * The NBD export as libnbd sees it, the library of most NBD clients: each of its commands with each flag, several
 * connections, many requests in flight, and what is refused.  What libnbd's own checks (strict mode) would keep
 * from being sent is sent, too.
 */
#include <check.h>
#include <errno.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/nbdtest.h"
#include "tests/lib/rig.h"

enum { SIZE = NBDTEST_SIZE, REQUESTS = 256, BLOCK = 4096 };

static struct nbdtest test;
static struct nbd_handle *nbd, *other;
static uint8_t *pattern, *buf;

static struct nbd_handle *dial(const char *name, bool structured)
{
	struct nbd_handle *h = nbd_create();

	ck_assert_ptr_nonnull(h);
	nbd_set_export_name(h, name);
	nbd_set_request_structured_replies(h, structured);
	nbd_set_strict_mode(h, 0);
	nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION);
	nbd_add_meta_context(h, "remram:resident");
	nbd_add_meta_context(h, "remram:dirty");
	ck_assert_msg(nbd_connect_unix(h, test.path) == 0, "%s", nbd_get_error());
	return h;
}

static void setup(void)
{
	nbdtest_start(&test);
	pattern = malloc(SIZE);
	buf = malloc(SIZE);
	for (unsigned i = 0; i < SIZE; i++)
		pattern[i] = (uint8_t)(i * 13 + i / BLOCK + 1);
}

static void teardown(void)
{
	if (nbd)
		nbd_close(nbd);
	if (other)
		nbd_close(other);
	nbd = other = NULL;
	free(pattern);
	free(buf);
	nbdtest_stop(&test);
}

#define GOOD(call) ck_assert_msg((call) == 0, "%s: %s", #call, nbd_get_error())
#define BAD(call, err) \
	do { \
		ck_assert_int_eq((call), -1); \
		ck_assert_int_eq(nbd_get_errno(), (err)); \
	} while (0)

static int take_extents(
    void *ctx, const char *context, uint64_t off, uint32_t *entries, size_t count, int *error)
{
	uint64_t *sums = ctx;
	unsigned which = strcmp(context, "base:allocation") == 0   ? 0
			 : strcmp(context, "remram:resident") == 0 ? 1
								   : 2;

	for (size_t i = 0; i < count; i += 2)
		sums[which * 4 + (entries[i + 1] & 3)] += entries[i];
	return 0;
}

START_TEST(commands)
{
	uint64_t sums[12] = {0};
	const nbd_extent_callback extents = {.callback = take_extents, .user_data = sums};

	nbd = dial("ram/work", _i);
	ck_assert_int_eq(nbd_get_size(nbd), SIZE);
	ck_assert_int_eq(nbd_can_df(nbd), _i);
	GOOD(nbd_pwrite(nbd, pattern, SIZE / 2, 0, 0));
	GOOD(nbd_pwrite(nbd, pattern + 777, 5000, 777, LIBNBD_CMD_FLAG_FUA));
	GOOD(nbd_pread(nbd, buf, SIZE / 2, 0, 0));
	ck_assert_mem_eq(buf, pattern, SIZE / 2);
	if (_i) {
		GOOD(nbd_pread(nbd, buf, 100000, 5, LIBNBD_CMD_FLAG_DF));
		ck_assert_mem_eq(buf, pattern + 5, 100000);
	} else {
		BAD(nbd_pread(nbd, buf, 100000, 5, LIBNBD_CMD_FLAG_DF), EINVAL);
	}
	GOOD(nbd_flush(nbd, 0));
	GOOD(nbd_cache(nbd, SIZE, 0, 0));
	GOOD(nbd_trim(nbd, 1 << 20, 0, LIBNBD_CMD_FLAG_FUA));
	GOOD(nbd_zero(nbd, 4096, 1 << 20, LIBNBD_CMD_FLAG_FAST_ZERO));
	GOOD(nbd_zero(nbd, 4096, (1 << 20) + 4096, LIBNBD_CMD_FLAG_NO_HOLE | LIBNBD_CMD_FLAG_FUA));
	GOOD(nbd_pread(nbd, buf, (1 << 20) + 8192, 0, 0));
	for (unsigned i = 0; i < (1 << 20) + 8192; i++)
		rig_check(buf[i] == 0, "byte %u is not zero", i);
	if (!_i) {
		ck_assert_int_eq(nbd_block_status(nbd, SIZE, 0, extents, 0), -1);
		return;
	}
	GOOD(nbd_block_status(nbd, SIZE, 0, extents, 0));
	ck_assert_uint_eq(sums[3], SIZE / 2 + (1 << 20) + 4096); /* holes */
	ck_assert_uint_eq(sums[0], SIZE / 2 - (1 << 20) - 4096);
	ck_assert_uint_eq(sums[4 + 1], SIZE); /* resident */
	ck_assert_uint_eq(sums[8 + 0], SIZE); /* not dirty */
	memset(sums, 0, sizeof(sums));
	GOOD(nbd_block_status(nbd, SIZE, 0, extents, LIBNBD_CMD_FLAG_REQ_ONE));
	ck_assert_uint_eq(sums[3], (1 << 20) + 4096);
	ck_assert_uint_eq(sums[0], 0);
}
END_TEST

START_TEST(refusals)
{
	nbd = dial("ram/work", _i);
	BAD(nbd_pread(nbd, buf, 2, SIZE - 1, 0), EINVAL);
	BAD(nbd_pwrite(nbd, buf, 2, SIZE - 1, 0), ENOSPC);
	BAD(nbd_trim(nbd, 2, SIZE - 1, 0), EINVAL);
	BAD(nbd_zero(nbd, 2, SIZE - 1, 0), ENOSPC);
	BAD(nbd_cache(nbd, 2, SIZE - 1, 0), EINVAL);
	BAD(nbd_pread(nbd, buf, 1, UINT64_MAX, 0), EINVAL);
	BAD(nbd_pwrite(nbd, buf, 512, 0, 1 << 14), EINVAL);
	BAD(nbd_zero(nbd, 512, 0, LIBNBD_CMD_FLAG_FAST_ZERO | LIBNBD_CMD_FLAG_NO_HOLE), ENOTSUP);
	other = dial("ram/work/ro", _i);
	ck_assert_int_eq(nbd_is_read_only(other), 1);
	BAD(nbd_pwrite(other, buf, 512, 0, 0), EPERM);
	BAD(nbd_trim(other, 512, 0, 0), EPERM);
	BAD(nbd_zero(other, 512, 0, 0), EPERM);
	GOOD(nbd_pread(other, buf, 512, 0, 0));
	GOOD(nbd_pread(nbd, buf, 512, 0, 0));
}
END_TEST

/* Many reads and writes in flight on two connections, in random places, against a model. */
START_TEST(in_flight)
{
	unsigned seed = 12345;

	nbd = dial("ram/work", _i);
	other = dial("ram/work", !_i);
	ck_assert_int_eq(nbd_can_multi_conn(nbd), 1);
	GOOD(nbd_pwrite(nbd, pattern, SIZE, 0, 0));
	for (unsigned i = 0; i < REQUESTS; i++) {
		uint64_t off = (uint64_t)(rand_r(&seed) % (SIZE / REQUESTS / 2)) +
			       (uint64_t)i * (SIZE / REQUESTS);
		size_t len = 1 + (size_t)rand_r(&seed) % (SIZE / REQUESTS / 2);
		struct nbd_handle *h = i % 2 ? other : nbd;

		for (size_t k = 0; k < len; k++)
			pattern[off + k] ^= 0x55;
		ck_assert_msg(
		    nbd_aio_pwrite(h, pattern + off, len, off, NBD_NULL_COMPLETION, 0) >= 0, "%s",
		    nbd_get_error());
	}
	while (nbd_aio_in_flight(nbd) > 0 || nbd_aio_in_flight(other) > 0) {
		struct nbd_handle *h = nbd_aio_in_flight(nbd) > 0 ? nbd : other;

		ck_assert_int_ge(nbd_poll(h, -1), 0);
		while (nbd_aio_peek_command_completed(h) > 0)
			ck_assert_int_eq(nbd_aio_command_completed(
					     h, (uint64_t)nbd_aio_peek_command_completed(h)),
			    1);
	}
	GOOD(nbd_flush(nbd, 0));
	GOOD(nbd_pread(other, buf, SIZE, 0, 0));
	ck_assert_mem_eq(buf, pattern, SIZE);
}
END_TEST

static int count_export(void *ctx, const char *name, const char *description)
{
	*(unsigned *)ctx += strncmp(name, "ram/", 4) == 0;
	return 0;
}

/* libnbd's handshake step by step (opt mode). */
START_TEST(options)
{
	unsigned count = 0;
	char *name;

	nbd = nbd_create();
	nbd_set_opt_mode(nbd, true);
	GOOD(nbd_connect_unix(nbd, test.path));
	ck_assert_int_eq(
	    nbd_opt_list(nbd, (nbd_list_callback){.callback = count_export, .user_data = &count}),
	    2);
	ck_assert_uint_eq(count, 2);
	nbd_set_export_name(nbd, "ram/nope");
	BAD(nbd_opt_info(nbd), ENOENT);
	BAD(nbd_opt_go(nbd), ENOENT);
	nbd_set_export_name(nbd, "ram/bystander");
	GOOD(nbd_opt_info(nbd));
	nbd_set_full_info(nbd, true);
	nbd_set_export_name(nbd, "/ram/work");
	GOOD(nbd_opt_go(nbd));
	name = nbd_get_canonical_export_name(nbd);
	ck_assert_str_eq(name, "ram/work");
	free(name);
	ck_assert_int_eq(nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM), 1);
	ck_assert_int_eq(nbd_get_block_size(nbd, LIBNBD_SIZE_PREFERRED), 4096);
	ck_assert_int_eq(nbd_get_block_size(nbd, LIBNBD_SIZE_MAXIMUM), 32 << 20);
	GOOD(nbd_shutdown(nbd, 0));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("nbd_libnbd");
	TCase *tc = tcase_create("libnbd");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, commands, 0, 2);
	tcase_add_loop_test(tc, refusals, 0, 2);
	tcase_add_loop_test(tc, in_flight, 0, 2);
	tcase_add_test(tc, options);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
