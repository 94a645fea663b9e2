/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes written as hex digits, for tests of wire formats.
 */
#ifndef REMRAM_TESTS_HEX_H
#define REMRAM_TESTS_HEX_H

#include <check.h>
#include <ctype.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static inline int hex_digit(char c)
{
	if (isdigit((unsigned char)c))
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Turns "52 51 0a" into bytes; white space is passed over.  Returns their number. */
static inline size_t hex_bytes(const char *text, uint8_t *buf, size_t room)
{
	size_t n = 0;

	for (; *text; text++) {
		if (isspace((unsigned char)*text))
			continue;
		ck_assert_msg(hex_digit(text[0]) >= 0 && hex_digit(text[1]) >= 0 && n < room,
		    "bad hex: \"%s\"", text);
		buf[n++] = (uint8_t)(hex_digit(text[0]) << 4 | hex_digit(text[1]));
		text++;
	}
	return n;
}

/* Asserts that the bytes are those of `text`. */
static inline void hex_expect(const char *what, const uint8_t *buf, size_t len, const char *text)
{
	static uint8_t want[1 << 17];
	size_t n = hex_bytes(text, want, sizeof(want));

	ck_assert_msg(n == len, "%s: %zu bytes, not %zu", what, len, n);
	for (size_t i = 0; i < n; i++)
		ck_assert_msg(
		    buf[i] == want[i], "%s: byte %zu is %02x, not %02x", what, i, buf[i], want[i]);
}

#endif
