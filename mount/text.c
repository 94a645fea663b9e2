/* SPDX-License-Identifier: Apache-2.0
 *
 * JSON in a buffer of fixed size; see text.h.
 */
#include "mount/text.h"

#include <stdarg.h>
#include <stdio.h>

void text_put(struct text *text, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text->buf + text->used, text->room - text->used, fmt, ap);
	va_end(ap);
	if (n > 0 && (size_t)n < text->room - text->used)
		text->used += (size_t)n;
	else
		text->buf[text->used] = 0;
}

/* The length of the UTF-8 sequence of several bytes that s begins with; 0 if it is none. */
static size_t sequence_len(const unsigned char *s)
{
	size_t len = s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;

	for (size_t i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	}
	/* Control characters, longer than needed, a surrogate, or beyond the last code point. */
	if (len && ((s[0] == 0xc2 && s[1] < 0xa0) || (s[0] == 0xe0 && s[1] < 0xa0) ||
		       (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
		       (s[0] == 0xf4 && s[1] > 0x8f)))
		return 0;
	return len;
}

void text_put_string(struct text *text, const char *s)
{
	const unsigned char *p = (const unsigned char *)s;

	text_put(text, "\"");
	while (*p) {
		size_t len = sequence_len(p);

		if (len)
			text_put(text, "%.*s", (int)len, (const char *)p);
		else if (*p < 0x20 || *p == '"' || *p == '\\' || *p >= 0x7f)
			text_put(text, "\\u%04x", *p);
		else
			text_put(text, "%c", *p);
		p += len ? len : 1;
	}
	text_put(text, "\"");
}

bool text_has_room(const struct text *text, size_t bytes)
{
	return text->room - text->used > bytes;
}
