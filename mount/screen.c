/* SPDX-License-Identifier: Apache-2.0
 *
 * Text on a terminal; see screen.h.
 *
 * Names come from a donor and from other clients: what they contain must not reach the terminal as commands.
 * Both kinds of control characters count, those below 0x20 and U+0080 to U+009F, which some terminals
 * obey as well.
 */
#include "mount/screen.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>

#define COLOUR_OFF "\033[0m"

bool screen_utf8(void)
{
	static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *value = getenv(names[i]);

		if (value && *value)
			return strcasestr(value, "UTF-8") || strcasestr(value, "UTF8");
	}
	return false;
}

bool screen_size(int fd, unsigned *columns, unsigned *lines)
{
	struct winsize size;

	if (ioctl(fd, TIOCGWINSZ, &size) || !size.ws_col || !size.ws_row)
		return false;
	*columns = size.ws_col;
	*lines = size.ws_row;
	return true;
}

/* The length of the escape sequence for colour that text begins with; 0 if it is none. */
static size_t colour_len(const char *text)
{
	size_t len = 2;

	if (text[0] != '\033' || text[1] != '[')
		return 0;
	len += strspn(text + len, "0123456789;");
	return text[len] == 'm' ? len + 1 : 0;
}

/* The length of the character that text begins with, by its first byte. */
static size_t char_len(const char *text)
{
	size_t len = 1;

	while (((unsigned char)text[len] & 0xc0) == 0x80)
		len++;
	return len;
}

unsigned screen_columns(const char *text)
{
	unsigned columns = 0;

	while (*text) {
		size_t skip = colour_len(text);

		columns += skip ? 0 : 1;
		text += skip ? skip : char_len(text);
	}
	return columns;
}

unsigned screen_put(FILE *out, const char *text, unsigned columns)
{
	unsigned used = 0;
	bool coloured = false;

	while (*text) {
		size_t len = colour_len(text);

		if (len) {
			coloured = strncmp(text, COLOUR_OFF, len) != 0;
		} else if (used == columns) {
			break;
		} else {
			len = char_len(text);
			used++;
		}
		fwrite(text, 1, len, out);
		text += len;
	}
	if (coloured)
		fputs(COLOUR_OFF, out);
	return used;
}

void screen_pad(FILE *out, const char *text, unsigned columns)
{
	unsigned used = screen_put(out, text, columns);

	fprintf(out, "%*s", (int)(columns - used), "");
}

/* The length of a character that may be shown; 0: the first byte may not. */
static size_t printable_len(const unsigned char *p, bool ascii)
{
	size_t len = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

	if (p[0] < 0x20 || p[0] == 0x7f || p[0] > 0xf4 || (ascii && p[0] >= 0x80))
		return 0;
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	}
	if (p[0] == 0xc2 && p[1] < 0xa0)
		return 0;
	/* Longer than needed, a surrogate, beyond the last code point, or a change of direction. */
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
	    (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	if (p[0] == 0xe2 && ((p[1] == 0x80 && p[2] >= 0xa8 && p[2] <= 0xae) ||
				(p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9)))
		return 0;
	return len;
}

char *screen_name(const char *name, unsigned columns, bool ascii, char *buf)
{
	const unsigned char *p = (const unsigned char *)name;
	char *out = buf, *last = buf; /* where the last column begins */
	unsigned used = 0;

	while (*p && used < columns) {
		size_t len = printable_len(p, ascii);

		last = out;
		if (len == 0)
			*out++ = '?';
		for (size_t i = 0; i < len; i++)
			*out++ = (char)p[i];
		p += len ? len : 1;
		used++;
	}
	*out = '\0';
	if (*p && columns)
		strcpy(last, ascii ? "~" : "…");
	return buf;
}
