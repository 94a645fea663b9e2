/* SPDX-License-Identifier: Apache-2.0
 *
 * How far something is; see progress.h.
 *
 * A bar appears after BAR_AFTER_MS only: what is over at once needs none.
 */
#include "mount/progress.h"

#include <string.h>
#include <unistd.h>

#include "core/uri.h"
#include "mount/screen.h"
#include "mount/status.h"

enum {
	BAR_AFTER_MS = 300,
	RATE_MS = 500, /* a rate is measured over so much */
	BAR_MIN = 10, /* columns */
	BAR_MOST = 40,
	PART_MAX = 96,
	PARTS = 3,
};

static unsigned percent_of(const struct progress_view *view)
{
	if (view->total == 0 || view->done >= view->total)
		return view->total ? 100 : 0;
	return (unsigned)((double)view->done / (double)view->total * 100);
}

/* "1.2 GiB of 4.0 GiB", "812.0 MiB/s", "3 s left": "" for what is not known. */
static void fill_parts(const struct progress_view *view, char parts[PARTS][PART_MAX])
{
	char done[SIZE_TEXT_MAX], total[SIZE_TEXT_MAX], left[STATUS_TIME_MAX];

	parts[1][0] = parts[2][0] = '\0';
	size_format(view->done, done);
	if (view->total)
		snprintf(parts[0], PART_MAX, "%s of %s", done, size_format(view->total, total));
	else
		snprintf(parts[0], PART_MAX, "%s", done);
	if (view->rate < 1)
		return;
	snprintf(parts[1], PART_MAX, "%s/s", size_format((uint64_t)view->rate, done));
	if (view->total > view->done) {
		double us = (double)(view->total - view->done) / view->rate * 1e6;

		/* Tenths of a second are noise here. */
		if (us < 10e6)
			snprintf(parts[2], PART_MAX, "%u s left", 1 + (unsigned)(us / 1e6));
		else
			snprintf(parts[2], PART_MAX, "%s left", status_time(us, left));
	}
}

static size_t put_bar(char *buf, const struct progress_view *view, unsigned width, bool ascii)
{
	static const char *const eighths[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
	double share = view->total ? (double)view->done / (double)view->total : 0;
	unsigned filled = (unsigned)((share > 1 ? 1 : share) * width * 8);
	size_t len = 0;

	len += (size_t)sprintf(buf + len, "  [");
	for (unsigned i = 0; i < width; i++) {
		unsigned here = filled >= (i + 1) * 8 ? 8 : filled > i * 8 ? filled - i * 8 : 0;
		const char *text = here == 8 ? "█" : eighths[here];

		if (ascii)
			text = here == 8 ? "#" : here ? "-" : " ";
		len += (size_t)sprintf(buf + len, "%s", text);
	}
	len += (size_t)sprintf(buf + len, "]");
	return len;
}

char *progress_bar(const struct progress_view *view, unsigned columns, bool ascii, char *buf)
{
	char label[4 * PROGRESS_LABEL_MAX + 1], parts[PARTS][PART_MAX];
	unsigned room = columns ? columns - 1 : 0, used, keep = PARTS, i;
	size_t len;

	fill_parts(view, parts);
	screen_name(
	    view->label, room < PROGRESS_LABEL_MAX ? room : PROGRESS_LABEL_MAX, ascii, label);
	used = screen_columns(label) + (view->total ? 7 : 0);
	for (i = 0; i < PARTS; i++)
		used += parts[i][0] ? screen_columns(parts[i]) + 2 : 0;
	while (keep && used + (view->total ? BAR_MIN + 4 : 0) > room) {
		keep--;
		used -= parts[keep][0] ? screen_columns(parts[keep]) + 2 : 0;
	}
	len = (size_t)sprintf(buf, "%s", label);
	if (view->total && used + BAR_MIN + 4 <= room) {
		unsigned width = room - used - 4;

		len += put_bar(buf + len, view, width > BAR_MOST ? BAR_MOST : width, ascii);
	}
	if (view->total && used <= room)
		len += (size_t)sprintf(buf + len, "  %3u %%", percent_of(view));
	for (i = 0; i < keep; i++) {
		if (parts[i][0])
			len += (size_t)sprintf(buf + len, "  %s", parts[i]);
	}
	return buf;
}

char *progress_plain(const struct progress_view *view, char *buf)
{
	char label[4 * PROGRESS_LABEL_MAX + 1], parts[PARTS][PART_MAX];
	size_t len;

	fill_parts(view, parts);
	screen_name(view->label, PROGRESS_LABEL_MAX, false, label);
	len = (size_t)sprintf(buf, "%s: %s", label, parts[0]);
	if (view->total)
		len += (size_t)sprintf(buf + len, ", %u %%", percent_of(view));
	for (unsigned i = 1; i < PARTS; i++) {
		if (parts[i][0])
			len += (size_t)sprintf(buf + len, ", %s", parts[i]);
	}
	return buf;
}

void progress_begin(struct progress *progress, FILE *out, const char *label, bool quiet)
{
	unsigned lines = 24;

	memset(progress, 0, sizeof(*progress));
	snprintf(progress->label, sizeof(progress->label), "%s", label);
	progress->columns = 80;
	if (quiet)
		return;
	progress->out = out;
	progress->terminal = isatty(fileno(out)) == 1;
	progress->ascii = !screen_utf8();
	if (progress->terminal)
		screen_size(fileno(out), &progress->columns, &lines);
}

/* The speed lately, and at first since the beginning. */
static void measure(struct progress *progress, uint64_t done, uint64_t now_ms)
{
	uint64_t ms = now_ms - progress->rate_ms;

	if (ms < RATE_MS)
		return;
	progress->rate = done > progress->rate_done
			     ? (double)(done - progress->rate_done) / (double)ms * 1000
			     : 0;
	progress->rate_ms = now_ms;
	progress->rate_done = done;
}

void progress_show(struct progress *progress, uint64_t done, uint64_t total, uint64_t now_ms)
{
	struct progress_view view = {.label = progress->label, .done = done, .total = total};
	char text[PROGRESS_TEXT_MAX];
	unsigned lines = 24;

	if (!progress->out)
		return;
	if (!progress->begin_ms) {
		progress->begin_ms = progress->shown_ms = progress->rate_ms = now_ms;
		progress->rate_done = done;
	}
	measure(progress, done, now_ms);
	view.rate = progress->rate;
	if (!progress->terminal && now_ms - progress->shown_ms >= PROGRESS_PLAIN_MS) {
		fprintf(progress->out, "%s\n", progress_plain(&view, text));
	} else if (progress->terminal && now_ms - progress->begin_ms >= BAR_AFTER_MS &&
		   now_ms - progress->shown_ms >= PROGRESS_SHOW_MS) {
		screen_size(fileno(progress->out), &progress->columns, &lines);
		fprintf(progress->out, "\r%s\033[K",
		    progress_bar(&view, progress->columns, progress->ascii, text));
		progress->shown = true;
	} else {
		return;
	}
	fflush(progress->out);
	progress->shown_ms = now_ms;
}

void progress_clear(struct progress *progress)
{
	if (!progress->out || !progress->shown)
		return;
	fputs("\r\033[K", progress->out);
	fflush(progress->out);
	progress->shown = false;
}
