/* SPDX-License-Identifier: Apache-2.0
 *
 * The ways in which names are written where they may not stand as they are; see escape.h.
 */
#include "mount/escape.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define PLAIN "-._~/:" /* besides letters and digits */

static bool is_plain(unsigned char c, const char *others)
{
	return c < 128 && (isalnum(c) || (c && strchr(others, c)));
}

int escape_path(const char *path, char *buf, size_t room)
{
	size_t len = 0;
	bool first = true, slash = false;

	for (; *path; path++) {
		unsigned char c = (unsigned char)*path;
		if (c == '/') {
			slash = true;
			continue;
		}
		if (len + 6 > room)
			return -ENAMETOOLONG;
		if (slash && !first)
			buf[len++] = '-';
		slash = false;
		if (is_plain(c, ":_.") && !(first && c == '.'))
			buf[len++] = (char)c;
		else
			len += (size_t)sprintf(buf + len, "\\x%02x", c);
		first = false;
	}
	if (first) {
		if (room < 2)
			return -ENAMETOOLONG;
		buf[len++] = '-';
	}
	buf[len] = '\0';
	return 0;
}

int escape_percent(const char *name, char *buf, size_t room)
{
	size_t len = 0;

	for (; *name; name++) {
		unsigned char c = (unsigned char)*name;
		if (len + (is_plain(c, PLAIN) ? 2 : 4) > room)
			return -ENAMETOOLONG;
		if (is_plain(c, PLAIN))
			buf[len++] = (char)c;
		else
			len += (size_t)sprintf(buf + len, "%%%02X", c);
	}
	if (len >= room)
		return -ENAMETOOLONG;
	buf[len] = '\0';
	return 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int unescape_percent(const char *text, char *buf, size_t room)
{
	size_t len = 0;

	for (; *text; text++) {
		char c = *text;
		if (c == '%') {
			int high = hex_digit(text[1]);
			int low = high < 0 ? -1 : hex_digit(text[2]);
			if (low < 0 || high * 16 + low == 0)
				return -EINVAL;
			c = (char)(high * 16 + low);
			text += 2;
		}
		if (len + 1 >= room)
			return -ENAMETOOLONG;
		buf[len++] = c;
	}
	if (len >= room)
		return -ENAMETOOLONG;
	buf[len] = '\0';
	return 0;
}

static bool is_octal(char c, char most)
{
	return c >= '0' && c <= most;
}

void unescape_octal(char *text)
{
	char *out = text;

	while (*text) {
		if (text[0] == '\\' && is_octal(text[1], '3') && is_octal(text[2], '7') &&
		    is_octal(text[3], '7')) {
			*out++ = (char)((text[1] - '0') * 64 + (text[2] - '0') * 8 + text[3] - '0');
			text += 4;
		} else {
			*out++ = *text++;
		}
	}
	*out = '\0';
}
