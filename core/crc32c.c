/* SPDX-License-Identifier: Apache-2.0
 *
 * CRC-32C by instruction where there is one, by eight tables otherwise.
 *
 * The polynomial 0x1edc6f41 is used in its reflected form; the register is inverted before and after, so
 * that checksums of pieces can be chained.  The tables ("slicing by 8", Kounavis and Berry, 2005):
 * tables[k][b] is the checksum of byte b followed by k zero bytes, so eight bytes need eight look-ups
 * that do not wait for each other.
 *
 * States: the implementation is chosen, and the tables are made, once, by whoever comes first
 * (pthread_once); constant from then on.  Nothing can fail.
 */
#include "core/crc32c.h"

#include <pthread.h>
#include <string.h>

#if defined(__aarch64__)
#include <sys/auxv.h>
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
#endif

#define POLYNOMIAL_REFLECTED 0x82f63b78u

static uint32_t tables[8][256];
static uint32_t (*chosen)(uint32_t reg, const uint8_t *pos, size_t len);
static const char *chosen_name;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* All of these take and return the register, not inverted. */

static uint32_t table_run(uint32_t reg, const uint8_t *pos, size_t len)
{
	for (; len >= 8; len -= 8, pos += 8) {
		/* Byte by byte: the order in memory is the same on every machine. */
		reg ^= (uint32_t)pos[0] | (uint32_t)pos[1] << 8 | (uint32_t)pos[2] << 16 |
		       (uint32_t)pos[3] << 24;
		reg = tables[7][reg & 0xff] ^ tables[6][reg >> 8 & 0xff] ^
		      tables[5][reg >> 16 & 0xff] ^ tables[4][reg >> 24] ^ tables[3][pos[4]] ^
		      tables[2][pos[5]] ^ tables[1][pos[6]] ^ tables[0][pos[7]];
	}
	for (; len; len--)
		reg = tables[0][(reg ^ *pos++) & 0xff] ^ reg >> 8;
	return reg;
}

#if defined(__x86_64__)

__attribute__((target("sse4.2"))) static uint32_t hardware_run(
    uint32_t reg, const uint8_t *pos, size_t len)
{
	uint64_t wide = reg, word;

	for (; len >= 8; len -= 8, pos += 8) {
		memcpy(&word, pos, 8);
		wide = __builtin_ia32_crc32di(wide, word);
	}
	reg = (uint32_t)wide;
	for (; len; len--)
		reg = __builtin_ia32_crc32qi(reg, *pos++);
	return reg;
}

static const char *hardware(void)
{
	__builtin_cpu_init();
	return __builtin_cpu_supports("sse4.2") ? "sse4.2" : NULL;
}

#elif defined(__aarch64__)

/* In assembler: compilers differ in how they name these, and in when. */
static uint32_t hardware_run(uint32_t reg, const uint8_t *pos, size_t len)
{
	uint64_t word;

	for (; len >= 8; len -= 8, pos += 8) {
		memcpy(&word, pos, 8);
		__asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(reg) : "r"(word));
	}
	for (; len; len--) {
		word = *pos++;
		__asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(reg) : "r"(word));
	}
	return reg;
}

static const char *hardware(void)
{
	return getauxval(AT_HWCAP) & HWCAP_CRC32 ? "armv8" : NULL;
}

#else

static uint32_t hardware_run(uint32_t reg, const uint8_t *pos, size_t len)
{
	return table_run(reg, pos, len);
}

static const char *hardware(void)
{
	return NULL;
}

#endif

static void choose(void)
{
	for (uint32_t byte = 0; byte < 256; byte++) {
		uint32_t reg = byte;

		for (unsigned bit = 0; bit < 8; bit++)
			reg = reg & 1 ? reg >> 1 ^ POLYNOMIAL_REFLECTED : reg >> 1;
		tables[0][byte] = reg;
	}
	for (unsigned k = 1; k < 8; k++)
		for (unsigned byte = 0; byte < 256; byte++) {
			uint32_t less = tables[k - 1][byte];

			tables[k][byte] = tables[0][less & 0xff] ^ less >> 8;
		}
	chosen_name = hardware();
	chosen = chosen_name ? hardware_run : table_run;
	if (!chosen_name)
		chosen_name = "table";
}

uint32_t crc32c(uint32_t crc, const void *buf, size_t len)
{
	pthread_once(&once, choose);
	return ~chosen(~crc, buf, len);
}

uint32_t crc32c_table(uint32_t crc, const void *buf, size_t len)
{
	pthread_once(&once, choose);
	return ~table_run(~crc, buf, len);
}

const char *crc32c_name(void)
{
	pthread_once(&once, choose);
	return chosen_name;
}
