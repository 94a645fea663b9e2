/* SPDX-License-Identifier: Apache-2.0
 *
 * What the test tools share: reading numbers from a command line, clocks, and the pseudo-random words
 * that patterns are made of.  Almost every tool is one source file, so everything here is static inline;
 * and none of it is shared with the programs under test, so that a bug there can't hide itself.
 */
#ifndef REMRAM_TESTS_TOOLS_TOOL_H
#define REMRAM_TESTS_TOOLS_TOOL_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The exit codes of every tool. */
enum {
	TOOL_OK = 0,
	TOOL_FAILED = 1, /* an operation failed, or the data is wrong */
	TOOL_USAGE = 2, /* the command line makes no sense */
	TOOL_SETUP = 3, /* the tool could not begin: no memory, cannot open, cannot listen */
	TOOL_FAULT = 4, /* SIGBUS: the kernel could not bring a page in */
};

/* CLOCK_MONOTONIC in nanoseconds. */
static inline uint64_t tool_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* A bijective mixer (the finaliser of splitmix64): every bit of the result depends on every bit of x. */
static inline uint64_t tool_mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

/* The idx-th word of the pseudo-random sequence `seed`. */
static inline uint64_t tool_word(uint64_t seed, uint64_t idx)
{
	return tool_mix(tool_mix(seed + 0x9e3779b97f4a7c15u) + (idx + 1) * 0x9e3779b97f4a7c15u);
}

/* Bytes pos to pos + len of the byte sequence `seed`: the words of tool_word in little-endian order.  Any
 * part of a sequence can be made without the rest. */
static inline void tool_pattern(uint64_t seed, uint64_t pos, void *buf, size_t len)
{
	unsigned char *out = buf;
	uint64_t word;

	for (; len > 0 && pos % 8 != 0; pos++, len--)
		*out++ = (unsigned char)(tool_word(seed, pos / 8) >> (pos % 8 * 8));
	for (; len >= 8; pos += 8, len -= 8, out += 8) {
		word = tool_word(seed, pos / 8);
		memcpy(out, &word, 8);
	}
	for (; len > 0; pos++, len--)
		*out++ = (unsigned char)(tool_word(seed, pos / 8) >> (pos % 8 * 8));
}

/* How many of the len bytes differ from the sequence; *ret_first, if any do, is the first one's place. */
static inline uint64_t tool_pattern_wrong(
    uint64_t seed, uint64_t pos, const void *buf, size_t len, size_t *ret_first)
{
	const unsigned char *in = buf;
	uint64_t wrong = 0, word;

	for (size_t i = 0; i < len;) {
		if ((pos + i) % 8 == 0 && len - i >= 8) {
			memcpy(&word, in + i, 8);
			if (word == tool_word(seed, (pos + i) / 8)) {
				i += 8;
				continue;
			}
		}
		/* Byte by byte to the end of this word. */
		do {
			unsigned char want =
			    (unsigned char)(tool_word(seed, (pos + i) / 8) >> ((pos + i) % 8 * 8));

			if (in[i] != want && wrong++ == 0)
				*ret_first = i;
			i++;
		} while (i < len && (pos + i) % 8 != 0);
	}
	return wrong;
}

/* An unsigned number, decimal, or hexadecimal after 0x, with an optional K, M, G or T (powers of 1024).
 * False if it is anything else or does not fit; *ret_value is then untouched. */
static inline bool tool_parse(const char *text, uint64_t *ret_value)
{
	static const char units[] = "KMGT";
	unsigned long long value;
	const char *unit;
	unsigned shift = 0;
	char *end;

	if (text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	value = strtoull(text, &end, strncmp(text, "0x", 2) == 0 ? 16 : 10);
	if (errno != 0)
		return false;
	if (*end != '\0') {
		unit = strchr(units, *end);
		if (!unit || end[1] != '\0')
			return false;
		shift = 10 * (unsigned)(unit - units + 1);
	}
	if (value > UINT64_MAX >> shift)
		return false;
	*ret_value = (uint64_t)value << shift;
	return true;
}

/* A number of milliseconds, up to an hour, a decimal fraction allowed. False if it is anything else;
 * *ret_ns is then untouched. */
static inline bool tool_parse_ms(const char *text, uint64_t *ret_ns)
{
	char *end;
	double ms = strtod(text, &end);

	if (end == text || *end != '\0' || !(ms >= 0 && ms <= 3600e3))
		return false;
	*ret_ns = (uint64_t)(ms * 1e6);
	return true;
}

/* Bytes in nanoseconds as megabytes (10^6) per second. */
static inline double tool_mb_s(uint64_t bytes, uint64_t ns)
{
	return ns ? (double)bytes * 1e3 / (double)ns : 0;
}

#endif
