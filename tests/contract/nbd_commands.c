/* SPDX-License-Identifier: Apache-2.0
 *
 * The NBD export's commands, each with its flags and errors, in every mode of reply, on memory and files.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/nbdtest.h"
#include "tests/lib/rig.h"

enum { SIZE = NBDTEST_SIZE, BLOCK = NBDTEST_BLOCK, BIG = 40 << 20 };

static struct nbdtest test;
static struct nbdraw raw, other;
static uint8_t *pattern;

static const char *const contexts[] = {"base:allocation", "remram:resident", "remram:dirty", NULL};

static void setup(void)
{
	nbdtest_start(&test);
	raw.fd = other.fd = -1;
	pattern = malloc(BIG);
	for (unsigned i = 0; i < BIG; i++)
		pattern[i] = (uint8_t)(i * 7 + i / 4096 + 1);
}

static void teardown(void)
{
	nbdraw_close(&raw);
	nbdraw_close(&other);
	nbdtest_stop(&test);
	free(pattern);
}

/* Loop tests run in three modes on two pools. */
enum { VARIANTS = 6 };

static void open_variant(int i)
{
	enum nbd_mode mode = (enum nbd_mode)(i % 3);

	if (i >= 3)
		nbdtest_region_in(&test, "disk", "work", SIZE, 0600);
	nbdraw_open(&raw, test.path, mode, i >= 3 ? "disk/work" : "ram/work",
	    mode == NBD_SIMPLE ? NULL : contexts);
}

static uint32_t put(uint64_t off, uint64_t len)
{
	return nbdraw_cmd(&raw, 0, NBD_C_WRITE, off, len, pattern + off);
}

static uint32_t get(uint64_t off, uint64_t len)
{
	return nbdraw_cmd(&raw, 0, NBD_C_READ, off, len, NULL);
}

static void expect_pattern(uint64_t off, uint64_t len)
{
	ck_assert_uint_eq(get(off, len), 0);
	ck_assert_mem_eq(raw.data, pattern + off, len);
}

static void expect_zeros(uint64_t off, uint64_t len)
{
	ck_assert_uint_eq(get(off, len), 0);
	for (uint64_t i = 0; i < len; i++)
		rig_check(raw.data[i] == 0, "byte %llu is not zero", (unsigned long long)(off + i));
}

START_TEST(read_write)
{
	static const uint32_t lens[] = {
	    1, 511, 4096, 4097, 16384, 16385, 65536, 1 << 20, (1 << 20) + 1, 3000000};

	open_variant(_i);
	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		for (uint64_t off = 0; off < 9000; off += 4097) {
			ck_assert_uint_eq(put(off, lens[i]), 0);
			expect_pattern(off, lens[i]);
		}
	}
	expect_zeros(3100000, SIZE - 3100000);
	ck_assert_uint_eq(put(0, SIZE), 0);
	expect_pattern(0, SIZE);
	ck_assert_uint_eq(get(0, 0), 0);
	ck_assert_uint_eq(get(SIZE, 0), 0);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_WRITE, 5, 0, NULL), 0);
	ck_assert_uint_eq(nbdraw_cmd(&raw, NBD_F_FUA, NBD_C_WRITE, 7, 5000, pattern + 7), 0);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_FLUSH, 0, 0, NULL), 0);
	expect_pattern(0, SIZE);
}
END_TEST

/* The largest READ and WRITE, as parts; and longer ones, whose payload is dropped. */
START_TEST(long_requests)
{
	nbdtest_region(&test, "big", BIG, 0600);
	nbdraw_open(&raw, test.path, (enum nbd_mode)_i, "ram/big", NULL);
	ck_assert_uint_eq(put(4095, 32 << 20), 0);
	expect_pattern(4095, 32 << 20);
	ck_assert_uint_eq(get(0, (32 << 20) + 1), NBD_EINVAL);
	ck_assert_uint_eq(put(0, (32 << 20) + 1), NBD_EINVAL);
	expect_pattern(4095, 32 << 20);
}
END_TEST

START_TEST(out_of_range)
{
	open_variant(_i);
	ck_assert_uint_eq(put(0, SIZE), 0);
	ck_assert_uint_eq(get(SIZE - 1, 2), NBD_EINVAL); /* across the end */
	ck_assert_uint_eq(get(SIZE, 1), NBD_EINVAL); /* past it */
	ck_assert_uint_eq(get(SIZE + 1, 0), NBD_EINVAL);
	ck_assert_uint_eq(get(UINT64_MAX, 1), NBD_EINVAL);
	ck_assert_uint_eq(get(UINT64_MAX - 4095, 4096), NBD_EINVAL);
	ck_assert_uint_eq(put(SIZE - 1, 2), NBD_ENOSPC);
	ck_assert_uint_eq(
	    nbdraw_cmd(&raw, 0, NBD_C_WRITE, UINT64_MAX - 4095, 65536, pattern), NBD_ENOSPC);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_TRIM, SIZE - 1, 2, NULL), NBD_EINVAL);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_WRITE_ZEROES, 1, SIZE, NULL), NBD_ENOSPC);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_CACHE, 1, SIZE, NULL), NBD_EINVAL);
	ck_assert_uint_eq(
	    nbdraw_cmd(&raw, 0, NBD_C_TRIM, UINT64_MAX - 100, UINT32_MAX, NULL), NBD_EINVAL);
	expect_pattern(0, SIZE);
}
END_TEST

START_TEST(unknown_commands_and_flags)
{
	static const uint16_t types[] = {8, 9, 100, UINT16_MAX};

	open_variant(_i);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_uint_eq(nbdraw_cmd(&raw, 0, types[i], 0, 512, NULL), NBD_EINVAL);
	for (unsigned bit = 6; bit < 16; bit++)
		ck_assert_uint_eq(
		    nbdraw_cmd(&raw, (uint16_t)(1u << bit), NBD_C_READ, 0, 512, NULL), NBD_EINVAL);
	ck_assert_uint_eq(nbdraw_cmd(&raw, NBD_F_NO_HOLE, NBD_C_TRIM, 0, 512, NULL), NBD_EINVAL);
	ck_assert_uint_eq(
	    nbdraw_cmd(&raw, NBD_F_REQ_ONE, NBD_C_WRITE, 0, 512, pattern), NBD_EINVAL);
	ck_assert_uint_eq(nbdraw_cmd(&raw, NBD_F_FAST_ZERO, NBD_C_FLUSH, 0, 0, NULL), NBD_EINVAL);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_FLUSH, 512, 0, NULL), NBD_EINVAL);
	expect_zeros(0, SIZE);
}
END_TEST

/* Extended: a payload that a command must not have is dropped. */
START_TEST(unwanted_payload)
{
	nbdraw_open(&raw, test.path, NBD_EXTENDED, "ram/work", contexts);
	for (uint16_t type = 0; type <= NBD_C_BLOCK_STATUS; type++)
		if (type != NBD_C_WRITE && type != NBD_C_DISC)
			ck_assert_uint_eq(
			    nbdraw_cmd(&raw, NBD_F_PAYLOAD_LEN, type, 0, 300000, pattern),
			    NBD_EINVAL);
	expect_zeros(0, SIZE);
}
END_TEST

START_TEST(read_only)
{
	nbdraw_open(&raw, test.path, (enum nbd_mode)_i, "ram/work/ro", NULL);
	ck_assert_uint_eq(put(0, SIZE), NBD_EPERM);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_TRIM, 0, BLOCK, NULL), NBD_EPERM);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_WRITE_ZEROES, 0, BLOCK, NULL), NBD_EPERM);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_FLUSH, 0, 0, NULL), 0);
	expect_zeros(0, SIZE);
}
END_TEST

/* Structured: what is a hole travels as one. */
START_TEST(holes)
{
	nbdraw_open(&raw, test.path, NBD_STRUCTURED + _i, "ram/work", NULL);
	ck_assert_uint_eq(put(100 * BLOCK, 3 * BLOCK), 0);
	expect_zeros(0, 50 * BLOCK);
	ck_assert_uint_eq(raw.chunk_count, 1);
	ck_assert_uint_eq(raw.chunks[0].type, NBD_CHUNK_HOLE);
	ck_assert_uint_eq(get(96 * BLOCK, 16 * BLOCK), 0);
	ck_assert_uint_eq(raw.chunk_count, 3);
	ck_assert_uint_eq(raw.chunks[0].type, NBD_CHUNK_HOLE);
	ck_assert_uint_eq(raw.chunks[0].len, 4 * BLOCK);
	ck_assert_uint_eq(raw.chunks[1].type, NBD_CHUNK_DATA);
	ck_assert_uint_eq(raw.chunks[1].off, 100 * BLOCK);
	ck_assert_uint_eq(raw.chunks[1].len, 3 * BLOCK);
	ck_assert_uint_eq(raw.chunks[2].type, NBD_CHUNK_HOLE);
	ck_assert_mem_eq(raw.data + 4 * BLOCK, pattern + 100 * BLOCK, 3 * BLOCK);
	/* DF: one chunk, whatever is in it. */
	ck_assert_uint_eq(nbdraw_cmd(&raw, NBD_F_DF, NBD_C_READ, 96 * BLOCK, 16 * BLOCK, NULL), 0);
	ck_assert_uint_eq(raw.chunk_count, 1);
	ck_assert_uint_eq(raw.chunks[0].type, NBD_CHUNK_DATA);
	ck_assert_uint_eq(nbdraw_cmd(&raw, NBD_F_DF, NBD_C_READ, 0, 16 * BLOCK, NULL), 0);
	ck_assert_uint_eq(raw.chunk_count, 1);
	ck_assert_uint_eq(nbdraw_cmd(&raw, NBD_F_DF, NBD_C_READ, 0, 1 << 20, NULL), 0);
	ck_assert_uint_eq(
	    nbdraw_cmd(&raw, NBD_F_DF, NBD_C_READ, 0, (1 << 20) + 1, NULL), NBD_EOVERFLOW);
}
END_TEST

static uint32_t status(uint16_t flags, uint64_t off, uint64_t len)
{
	return nbdraw_cmd(&raw, flags, NBD_C_BLOCK_STATUS, off, len, NULL);
}

static void expect_extent(unsigned id, unsigned idx, uint64_t len, uint64_t state)
{
	ck_assert_uint_lt(idx, raw.extent_count[id]);
	ck_assert_uint_eq(raw.extents[id][idx].len, len);
	ck_assert_uint_eq(raw.extents[id][idx].state, state);
}

START_TEST(zeroes_and_trim)
{
	bool structured = _i % 3 != 0;

	open_variant(_i);
	ck_assert_uint_eq(put(0, SIZE), 0);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_WRITE_ZEROES, 1000, 100000, NULL), 0);
	expect_zeros(1000, 100000);
	expect_pattern(0, 1000);
	expect_pattern(101000, SIZE - 101000);
	ck_assert_uint_eq(put(0, SIZE), 0);
	ck_assert_uint_eq(
	    nbdraw_cmd(&raw, NBD_F_FUA | NBD_F_FAST_ZERO, NBD_C_WRITE_ZEROES, BLOCK, 1 << 20, NULL),
	    0);
	ck_assert_uint_eq(
	    nbdraw_cmd(&raw, NBD_F_NO_HOLE, NBD_C_WRITE_ZEROES, 2 << 20, 1 << 20, NULL), 0);
	ck_assert_uint_eq(
	    nbdraw_cmd(&raw, NBD_F_NO_HOLE | NBD_F_FAST_ZERO, NBD_C_WRITE_ZEROES, 0, BLOCK, NULL),
	    NBD_ENOTSUP);
	expect_pattern(0, BLOCK);
	expect_zeros(BLOCK, 1 << 20);
	expect_zeros(2 << 20, 1 << 20);
	if (structured) {
		ck_assert_uint_eq(status(0, 0, 4 << 20), 0);
		ck_assert_uint_eq(raw.extent_count[1], 3); /* NO_HOLE has left no hole */
		expect_extent(1, 0, BLOCK, 0);
		expect_extent(1, 1, 1 << 20, 3);
	}
	ck_assert_uint_eq(nbdraw_cmd(&raw, NBD_F_FUA, NBD_C_TRIM, 0, SIZE, NULL), 0);
	expect_zeros(0, SIZE);
	if (structured) {
		ck_assert_uint_eq(status(0, 0, SIZE), 0);
		ck_assert_uint_eq(raw.extent_count[1], 1);
		expect_extent(1, 0, SIZE, 3);
	}
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_TRIM, 5, 0, NULL), 0);
}
END_TEST

START_TEST(block_status)
{
	open_variant(_i);
	if (_i % 3 == 0) {
		ck_assert_uint_eq(status(0, 0, SIZE), NBD_EINVAL);
		return;
	}
	for (unsigned i = 0; i < 8; i++)
		ck_assert_uint_eq(put((2 * i + 1) * 64 * 1024, 64 * 1024), 0);
	ck_assert_uint_eq(status(0, 0, SIZE), 0);
	ck_assert_uint_eq(raw.extent_count[1], 17);
	for (unsigned i = 0; i < 16; i++)
		expect_extent(1, i, 64 * 1024, i % 2 ? 0 : 3);
	ck_assert_uint_eq(raw.extent_count[2], 1);
	expect_extent(2, 0, SIZE, 1);
	ck_assert_uint_eq(raw.extent_count[3], 1);
	expect_extent(3, 0, SIZE, 0);
	ck_assert_uint_eq(status(NBD_F_REQ_ONE, 70000, SIZE - 70000), 0);
	ck_assert_uint_eq(raw.extent_count[1], 1);
	expect_extent(1, 0, 128 * 1024 - 70000, 0);
	ck_assert_uint_eq(status(0, SIZE - 1, 1), 0);
	expect_extent(1, 0, 1, 3);
	ck_assert_uint_eq(status(0, 0, 0), NBD_EINVAL);
	ck_assert_uint_eq(status(0, 1, SIZE), NBD_EINVAL);
	ck_assert_uint_eq(status(0, SIZE, 1), NBD_EINVAL);
}
END_TEST

/* CVE-2025-47711, CVE-2025-47712: ranges about 2^32 bytes. */
START_TEST(huge_status)
{
	static const char *const allocation[] = {"base:allocation", NULL};
	const uint64_t size = 240ull << 20;
	uint64_t sum = 0;

	nbdtest_region(&test, "big", size, 0600);
	nbdraw_open(&raw, test.path, NBD_STRUCTURED + _i, "ram/big", allocation);
	ck_assert_uint_eq(put(1 << 20, BLOCK), 0);
	ck_assert_uint_eq(status(0, 0, UINT32_MAX), NBD_EINVAL);
	ck_assert_uint_eq(status(0, UINT32_MAX, UINT32_MAX), NBD_EINVAL);
	if (_i)
		for (uint64_t len = UINT32_MAX - 1ull; len < (1ull << 32) + 2; len++)
			ck_assert_uint_eq(status(0, 0, len), NBD_EINVAL);
	ck_assert_uint_eq(status(0, 0, size), 0);
	for (unsigned i = 0; i < raw.extent_count[1]; i++)
		sum += raw.extents[1][i].len;
	ck_assert_uint_eq(sum, size);
}
END_TEST

/* More extents than an answer has room for: it ends early, and the client asks on. */
START_TEST(many_extents)
{
	uint64_t off = 0;
	unsigned data = 0;

	nbdraw_open(&raw, test.path, NBD_STRUCTURED + _i, "ram/work", contexts);
	for (unsigned i = 0; i < 1024; i += 2)
		ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_WRITE, i * 4096ull, 4096, pattern), 0);
	while (off < SIZE) {
		ck_assert_uint_eq(status(0, off, SIZE - off), 0);
		ck_assert_uint_ge(raw.extent_count[1], 1);
		for (unsigned i = 0; i < raw.extent_count[1]; i++) {
			data += raw.extents[1][i].state == 0;
			off += raw.extents[1][i].len;
		}
	}
	ck_assert_uint_eq(off, SIZE);
	ck_assert_uint_eq(data, 512);
}
END_TEST

START_TEST(cache)
{
	open_variant(_i);
	ck_assert_uint_eq(put(0, SIZE), 0);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_CACHE, 0, SIZE, NULL), 0);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_CACHE, 1, 1, NULL), 0);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_CACHE, SIZE, 0, NULL), 0);
	expect_pattern(0, SIZE);
}
END_TEST

/* CAN_MULTI_CONN: what one connection has written another one reads, and its flush covers it. */
START_TEST(two_connections)
{
	open_variant(_i);
	nbdraw_open(&other, test.path, NBD_STRUCTURED, _i >= 3 ? "disk/work" : "ram/work", NULL);
	ck_assert(raw.flags & NBD_CAN_MULTI_CONN);
	for (unsigned i = 0; i < 50; i++) {
		ck_assert_uint_eq(put(i * 5000, 5000), 0);
		ck_assert_uint_eq(nbdraw_cmd(&other, 0, NBD_C_FLUSH, 0, 0, NULL), 0);
		ck_assert_uint_eq(nbdraw_cmd(&other, 0, NBD_C_READ, i * 5000, 5000, NULL), 0);
		ck_assert_mem_eq(other.data, pattern + i * 5000, 5000);
	}
}
END_TEST

/* Many requests at once, answered in any order, each once. */
START_TEST(pipelined)
{
	struct nbdraw_chunk chunk;
	uint64_t first, sum = 0;

	open_variant(_i);
	ck_assert_uint_eq(put(0, 1 << 20), 0);
	first = raw.cookie + 1;
	for (unsigned i = 0; i < 500; i++)
		nbdraw_request(&raw, 0, NBD_C_TRIM, 4096ull * (i % 200), 4096, NULL);
	for (unsigned i = 0; i < 500; i++) {
		ck_assert(nbdraw_chunk(&raw, UINT64_MAX, 0, &chunk));
		ck_assert_uint_eq(chunk.error, 0);
		sum += chunk.cookie - first;
	}
	ck_assert_uint_eq(sum, 499 * 500 / 2);
	expect_zeros(0, 200 * 4096);
}
END_TEST

/* DISC: what came before it is answered, then the connection ends. */
START_TEST(disconnect)
{
	struct nbdraw_chunk chunk;

	open_variant(_i);
	for (unsigned i = 0; i < 20; i++)
		nbdraw_request(&raw, 0, NBD_C_WRITE, 4096ull * i, 4096, pattern + 4096 * i);
	nbdraw_request(&raw, 0, NBD_C_DISC, 0, 0, NULL);
	nbdraw_request(&raw, 0, NBD_C_WRITE, 0, 4096, pattern + 1); /* comes too late */
	for (unsigned i = 0; i < 20; i++)
		ck_assert(nbdraw_chunk(&raw, UINT64_MAX, 0, &chunk));
	ck_assert(nbdraw_ended(&raw, 5));
	nbdraw_close(&raw);
	nbdraw_open(&raw, test.path, NBD_SIMPLE, _i >= 3 ? "disk/work" : "ram/work", NULL);
	expect_pattern(0, 20 * 4096);
}
END_TEST

/* ---- the region changes meanwhile ---- */

/* A writer keeps its region as it is; others are told. */
START_TEST(writer_pins)
{
	nbdraw_open(&raw, test.path, NBD_SIMPLE, "ram/work", NULL);
	ck_assert_int_eq(nbdtest_resize(&test, "work", 4096), -EBUSY);
	ck_assert_int_eq(nbdtest_resize(&test, "work", 2 * SIZE), -EBUSY);
	ck_assert_int_eq(nbdtest_remove(&test, "work"), -EBUSY);
	ck_assert_int_eq(nbdtest_rename(&test, "work", "other"), -EBUSY);
	ck_assert_int_eq(nbdtest_open_write(&test, "work"), -EBUSY);
	ck_assert_uint_eq(put(0, SIZE), 0);
	nbdraw_close(&raw);
	for (unsigned i = 0; i < 500 && nbdtest_resize(&test, "work", 8192) == -EBUSY; i++)
		usleep(10000);
	ck_assert_int_eq(nbdtest_remove(&test, "work"), 0);
}
END_TEST

/* chmod holds at once. */
START_TEST(chmod_while_open)
{
	nbdraw_open(&raw, test.path, NBD_STRUCTURED, "ram/work", NULL);
	ck_assert_uint_eq(put(0, BLOCK), 0);
	ck_assert_int_eq(nbdtest_chmod(&test, "work", 0400), 0);
	ck_assert_uint_eq(put(0, BLOCK), NBD_EPERM);
	ck_assert_uint_eq(put(0, SIZE), NBD_EPERM);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_TRIM, 0, BLOCK, NULL), NBD_EPERM);
	expect_pattern(0, BLOCK);
	ck_assert_int_eq(nbdtest_chmod(&test, "work", 0), 0);
	ck_assert_uint_eq(get(0, BLOCK), NBD_EPERM);
	ck_assert_int_eq(nbdtest_chmod(&test, "work", 0600), 0);
	expect_pattern(0, BLOCK);
}
END_TEST

/* A reader prevents nothing: what was cut off is an error, not zeros; a removed region ends it. */
START_TEST(reader_sees_changes)
{
	nbdraw_open(&raw, test.path, (enum nbd_mode)_i, "ram/work/ro", NULL);
	ck_assert_int_eq(nbdtest_resize(&test, "work", 8192), 0);
	ck_assert_uint_eq(get(0, 8192), 0);
	ck_assert_uint_eq(get(4096, 4097), NBD_EIO);
	ck_assert_uint_eq(get(8192, 1), NBD_EIO);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_CACHE, 8192, 1, NULL), NBD_EIO);
	ck_assert_int_eq(nbdtest_resize(&test, "work", 2 * SIZE), 0);
	ck_assert_uint_eq(get(0, SIZE), 0);
	ck_assert_uint_eq(get(SIZE, 1), NBD_EINVAL); /* until it connects again */
	ck_assert_int_eq(nbdtest_remove(&test, "work"), 0);
	ck_assert(nbdraw_ended(&raw, 5));
	donor_log_expect(&test.donor, "was removed: connection closed");
}
END_TEST

/* A quota that is used up is an error of the write, and nothing else. */
START_TEST(no_space)
{
	nbdtest_region_in(&test, "disk", "large", 60 << 20, 0600);
	nbdtest_region_in(&test, "disk", "more", 60 << 20, 0600);
	nbdraw_open(&raw, test.path, NBD_STRUCTURED, "disk/large", NULL);
	nbdraw_open(&other, test.path, NBD_STRUCTURED, "disk/more", NULL);
	ck_assert_uint_eq(put(0, 32 << 20), 0);
	ck_assert_uint_eq(nbdraw_cmd(&other, 0, NBD_C_WRITE, 0, 30 << 20, pattern), 0);
	ck_assert_uint_eq(
	    nbdraw_cmd(&other, 0, NBD_C_WRITE, 30 << 20, 8 << 20, pattern), NBD_ENOSPC);
	ck_assert_uint_eq(
	    nbdraw_cmd(&other, NBD_F_NO_HOLE, NBD_C_WRITE_ZEROES, 30 << 20, 8 << 20, NULL),
	    NBD_ENOSPC);
	expect_pattern(0, 32 << 20);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("nbd_commands");
	TCase *tc = tcase_create("commands");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, read_write, 0, VARIANTS);
	tcase_add_loop_test(tc, long_requests, 0, 3);
	tcase_add_loop_test(tc, out_of_range, 0, VARIANTS);
	tcase_add_loop_test(tc, unknown_commands_and_flags, 0, VARIANTS);
	tcase_add_test(tc, unwanted_payload);
	tcase_add_loop_test(tc, read_only, 0, 3);
	tcase_add_loop_test(tc, holes, 0, 2);
	tcase_add_loop_test(tc, zeroes_and_trim, 0, VARIANTS);
	tcase_add_loop_test(tc, block_status, 0, VARIANTS);
	tcase_add_loop_test(tc, huge_status, 0, 2);
	tcase_add_loop_test(tc, many_extents, 0, 2);
	tcase_add_loop_test(tc, cache, 0, VARIANTS);
	tcase_add_loop_test(tc, two_connections, 0, VARIANTS);
	tcase_add_loop_test(tc, pipelined, 0, VARIANTS);
	tcase_add_loop_test(tc, disconnect, 0, VARIANTS);
	tcase_add_test(tc, writer_pins);
	tcase_add_test(tc, chmod_while_open);
	tcase_add_loop_test(tc, reader_sees_changes, 0, 3);
	tcase_add_test(tc, no_space);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
