/* SPDX-License-Identifier: Apache-2.0
 *
 * How far something is: on a terminal as a bar that is drawn over itself, elsewhere as a plain line every
 * few seconds.  It goes to stderr, so that stdout stays what a script asked for.
 */
#ifndef REMRAM_MOUNT_PROGRESS_H
#define REMRAM_MOUNT_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
	PROGRESS_LABEL_MAX = 64,
	PROGRESS_SHOW_MS = 100, /* how often a bar is worth drawing */
	PROGRESS_PLAIN_MS = 5000, /* how often a plain line is printed */
	PROGRESS_TEXT_MAX = 1024, /* bytes of a line */
};

/* What one line says. */
struct progress_view {
	const char *label;
	uint64_t done, total; /* bytes; total 0: nobody knows */
	double rate; /* bytes per second; 0: not known yet */
};

/* The line with a bar: at most `columns` columns, of which it leaves the last one free; what does not fit
 * is left out, the least important first (time left, rate, amounts, bar).  buf: PROGRESS_TEXT_MAX bytes;
 * returns buf. */
char *progress_bar(const struct progress_view *view, unsigned columns, bool ascii, char *buf);
/* The line without a bar. */
char *progress_plain(const struct progress_view *view, char *buf);

struct progress {
	FILE *out; /* NULL: shows nothing */
	bool terminal, ascii;
	bool shown; /* a bar stands in the current line */
	char label[PROGRESS_LABEL_MAX];
	uint64_t begin_ms, shown_ms;
	uint64_t rate_ms, rate_done; /* the last point that the rate was measured at */
	double rate;
	unsigned columns;
};

/* Shows at out, a terminal or not; quiet: nothing at all. */
void progress_begin(struct progress *progress, FILE *out, const char *label, bool quiet);
/* Call it as often as you like; it draws when something is to be seen.  now_ms: sys_now_ms(). */
void progress_show(struct progress *progress, uint64_t done, uint64_t total, uint64_t now_ms);
/* Removes a bar, so that other lines can be printed. */
void progress_clear(struct progress *progress);

#endif
