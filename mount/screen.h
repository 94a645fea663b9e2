/* SPDX-License-Identifier: Apache-2.0
 *
 * Text on a terminal: how many columns it takes, where it must be cut, and what may not be printed at all.
 *
 * Columns are counted for UTF-8 text of characters of one column each, which is all that we print but
 * for names; ESC [ … m (colour) takes none.
 */
#ifndef REMRAM_MOUNT_SCREEN_H
#define REMRAM_MOUNT_SCREEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* True if the locale that the environment names (LC_ALL, LC_CTYPE, LANG: the first that is set) uses
 * UTF-8. */
bool screen_utf8(void);

/* The size of the terminal fd, by the kernel; false if it is none or does not know: then columns and lines
 * (80 × 24 at first) stay as they are. */
bool screen_size(int fd, unsigned *columns, unsigned *lines);

/* Columns of a text without control characters but for colour. */
unsigned screen_columns(const char *text);

/* Prints at most `columns` columns of text; colour that was switched on is switched off where the text is
 * cut.  Returns the columns printed. */
unsigned screen_put(FILE *out, const char *text, unsigned columns);
/* The same, and spaces up to `columns`. */
void screen_pad(FILE *out, const char *text, unsigned columns);

/* A name as it may be shown: control characters and what is no UTF-8 become '?', and with ascii everything
 * that is not ASCII.  Cut to `columns`, the last one being "…" (or '~') where something is missing.
 * buf: 4 * columns + 1 bytes; returns buf. */
char *screen_name(const char *name, unsigned columns, bool ascii, char *buf);

#endif
