/* SPDX-License-Identifier: Apache-2.0
 *
 * CRC-32C: the vectors of RFC 3720 B.4 and of the Rocksoft model, chained pieces, every alignment and
 * length, and the processor's way against the tables'.
 */
#include "core/crc32c.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/rig.h"

/* Both ways give `crc` for these bytes. */
static void gives(const void *bytes, size_t len, uint32_t crc)
{
	rig_check(crc32c(0, bytes, len) == crc, "%s: %08x, not %08x", crc32c_name(),
	    crc32c(0, bytes, len), crc);
	rig_check(crc32c_table(0, bytes, len) == crc, "table: %08x, not %08x",
	    crc32c_table(0, bytes, len), crc);
}

START_TEST(rfc_3720_vectors)
{
	static const uint8_t read_pdu[48] = {0x01,
	    0xc0, [16] = 0x14, [22] = 0x04, [27] = 0x14, [31] = 0x18, [32] = 0x28, [40] = 0x02};
	uint8_t bytes[32];

	memset(bytes, 0, 32);
	gives(bytes, 32, 0x8a9136aa);
	memset(bytes, 0xff, 32);
	gives(bytes, 32, 0x62a8ab43);
	for (unsigned i = 0; i < 32; i++)
		bytes[i] = (uint8_t)i;
	gives(bytes, 32, 0x46dd794e);
	for (unsigned i = 0; i < 32; i++)
		bytes[i] = (uint8_t)(31 - i);
	gives(bytes, 32, 0x113fdb5c);
	gives(read_pdu, 48, 0xd9963a56);
	gives("123456789", 9, 0xe3069283);
	gives("", 0, 0);
}
END_TEST

START_TEST(ways_agree)
{
	static uint8_t bytes[8192 + 16];
	struct rig_random random;

	rig_random_init(&random, "ways_agree");
	rig_random_fill(&random, bytes, sizeof(bytes));
	for (unsigned from = 0; from < 9; from++)
		for (size_t len = 0; len < 300; len++)
			gives(bytes + from, len, crc32c_table(0, bytes + from, len));
	for (unsigned i = 0; i < 2000; i++) {
		size_t len = (size_t)rig_random_below(&random, 8192);
		size_t cut = (size_t)rig_random_below(&random, len + 1);
		uint32_t whole = crc32c_table(0, bytes, len);

		gives(bytes, len, whole);
		/* Pieces chain, also pieces of either way. */
		rig_check(crc32c(crc32c(0, bytes, cut), bytes + cut, len - cut) == whole, "chain");
		rig_check(
		    crc32c(crc32c_table(0, bytes, cut), bytes + cut, len - cut) == whole, "mixed");
	}
}
END_TEST

/* Each single bit counts. */
START_TEST(every_bit_counts)
{
	static uint8_t block[4096];
	uint32_t crc = crc32c(0, block, sizeof(block));

	for (unsigned bit = 0; bit < 8 * sizeof(block); bit++) {
		block[bit / 8] ^= (uint8_t)(1 << bit % 8);
		rig_check(crc32c(0, block, sizeof(block)) != crc, "bit %u", bit);
		block[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	ck_assert_str_ne(crc32c_name(), "");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("crc32c");
	TCase *tcase = tcase_create("crc32c");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, rfc_3720_vectors);
	tcase_add_test(tcase, ways_agree);
	tcase_add_test(tcase, every_bit_counts);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
