/* SPDX-License-Identifier: Apache-2.0
 *
 * A frame of `remram top`; see top.h.
 *
 * A frame is a heading, the body, and a last line that explains the map.  The body has a block for each
 * mount: where and what, connection and cache, speeds, then each region with its map.  It is printed
 * into memory, line by line, and the lines that fit are copied, cut to the terminal's columns.
 *
 * Invariant: top_map_cells and print_mount agree on how many lines a block has without its maps
 * (fixed_lines), which top_print asserts.
 */
#include "mount/top.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/uri.h"
#include "mount/screen.h"

enum {
	FRAME_LINES = 2, /* the heading and the last line */
	INDENT = 2,
	COLUMNS_MIN = 20,
	NAME_COLUMNS = 18,
	NAME_BYTES = 4 * NAME_COLUMNS + 1,
	DIR_COLUMNS = 512,
};

struct frame {
	FILE *out;
	const struct top_view *view;
	unsigned lines; /* printed so far */
};

/* Columns that a map or text may use beside the indentation. */
static unsigned inner_columns(const struct top_view *view)
{
	unsigned columns = view->columns < COLUMNS_MIN ? COLUMNS_MIN : view->columns;

	return columns - INDENT;
}

static void end_line(struct frame *frame)
{
	putc('\n', frame->out);
	frame->lines++;
}

/* ---- what a mount is about --------------------------------------------------------------------- */

static void print_path(struct frame *frame, const char *text)
{
	char buf[4 * DIR_COLUMNS + 1];

	fputs(screen_name(text, DIR_COLUMNS, frame->view->style.ascii, buf), frame->out);
}

/* µ is no ASCII. */
static const char *time_text(const struct frame *frame, double us, char *buf)
{
	char *micro;

	status_time(us, buf);
	micro = frame->view->style.ascii ? strstr(buf, "µ") : NULL;
	if (micro) {
		*micro = 'u';
		memmove(micro + 1, micro + 2, strlen(micro + 2) + 1);
	}
	return buf;
}

static void print_connection(struct frame *frame, const struct top_mount *mount)
{
	char text[STATUS_TIME_MAX];

	if (!strcmp(mount->connection_state, "connected"))
		fputs("connected", frame->out);
	else if (!strcmp(mount->connection_state, "waiting"))
		fprintf(
		    frame->out, "WAITING for %s", time_text(frame, mount->since_ms * 1000, text));
	else
		fputs("FAILED", frame->out);
	if (mount->rtt_us > 0)
		fprintf(frame->out, ", round trip %s", time_text(frame, mount->rtt_us, text));
	fprintf(frame->out, ", %u in flight", mount->in_flight);
}

static void print_heading(struct frame *frame, const struct top_mount *mount)
{
	print_path(frame, mount->dir);
	fputs(": ", frame->out);
	print_path(frame, mount->source);
	end_line(frame);
	fprintf(frame->out, "%*s", INDENT, "");
	switch (mount->health) {
	case STATUS_LIVE:
		if (mount->connection)
			print_connection(frame, mount);
		else
			fputs("a place on this machine", frame->out);
		break;
	case STATUS_SILENT:
		fputs("the daemon DOES NOT ANSWER", frame->out);
		break;
	case STATUS_DEAD:
		fputs("the daemon is DEAD: umount cleans up", frame->out);
		break;
	case STATUS_LEAVING:
		fputs("NOT MOUNTED any more, its daemon is leaving", frame->out);
		break;
	case STATUS_GONE:
		fputs("NOT MOUNTED any more: umount cleans up", frame->out);
		break;
	}
	end_line(frame);
}

static void print_cache(struct frame *frame, const struct top_mount *mount)
{
	char one[SIZE_TEXT_MAX], two[SIZE_TEXT_MAX], age[STATUS_TIME_MAX];

	fprintf(frame->out, "%*scache %s", INDENT, "", size_format(mount->cache_resident, one));
	if (mount->cache_size)
		fprintf(frame->out, " of %s", size_format(mount->cache_size, two));
	fprintf(frame->out, ", dirty %s", size_format(mount->dirty, one));
	if (mount->max_dirty)
		fprintf(frame->out, " of %s", size_format(mount->max_dirty, two));
	if (mount->dirty)
		fprintf(frame->out, " (%s)",
		    time_text(frame, (double)mount->oldest_dirty_ms * 1000, age));
	if (mount->writers_waiting)
		fprintf(frame->out, ", %u writers WAIT", mount->writers_waiting);
	end_line(frame);
}

static void print_speeds(struct frame *frame, const struct top_mount *mount)
{
	char one[SIZE_TEXT_MAX], two[SIZE_TEXT_MAX];

	fprintf(frame->out, "%*sread %s/s (%.0f/s), write %s/s (%.0f/s)", INDENT, "",
	    size_format((uint64_t)mount->read_rate, one), mount->reads_rate,
	    size_format((uint64_t)mount->write_rate, two), mount->writes_rate);
	if (mount->connection)
		fprintf(frame->out, ", donor in %s/s, out %s/s",
		    size_format((uint64_t)mount->in_rate, one),
		    size_format((uint64_t)mount->out_rate, two));
	end_line(frame);
}

/* ---- regions ----------------------------------------------------------------------------------- */

/* What is wrong with it, or "". */
static const char *warning_of(const struct top_region *region)
{
	if (!strcmp(region->lease, "lost") || !strcmp(region->state, "lost"))
		return "LEASE LOST";
	return region->push_failing ? "PUSH FAILS" : "";
}

/* What else is to be said, the last thing in its line. */
static const char *note_of(const struct top_region *region)
{
	if (region->recovering)
		return "recovering";
	if (region->recording)
		return "recording";
	if (!strcmp(region->state, "idle"))
		return "idle";
	if (!strcmp(region->lease, "held"))
		return "lease held";
	return region->opens ? "open" : "";
}

/* The name, padded: all names of a frame take the same room. */
static void print_name(struct frame *frame, const struct top_region *region)
{
	char name[NAME_BYTES], size[SIZE_TEXT_MAX];
	unsigned columns = inner_columns(frame->view) < 70 ? NAME_COLUMNS / 2 : NAME_COLUMNS;

	screen_name(region->name, columns, frame->view->style.ascii, name);
	fprintf(frame->out, "%*s", INDENT, "");
	screen_pad(frame->out, name, columns);
	fprintf(frame->out, " %10s",
	    region->has_size || region->cached ? size_format(region->size, size) : "?");
}

static void print_region(struct frame *frame, const struct top_region *region)
{
	char one[SIZE_TEXT_MAX], age[STATUS_TIME_MAX];
	const char *warning = warning_of(region), *note = note_of(region);

	print_name(frame, region);
	if (region->cached)
		fprintf(frame->out, " %5.1f %%",
		    region->size ? (double)map_share(region->resident, region->size) / 10 : 100.0);
	if (*warning)
		fprintf(frame->out, "  %s", warning);
	if (region->cached) {
		if (region->dirty)
			fprintf(frame->out, "  dirty %s (%s)", size_format(region->dirty, one),
			    time_text(frame, (double)region->oldest_dirty_ms * 1000, age));
		if (region->fetch_rate >= 1 || region->pulling)
			fprintf(frame->out, "  in %s/s",
			    size_format((uint64_t)region->fetch_rate, one));
		if (region->push_rate >= 1 || region->pushing)
			fprintf(frame->out, "  out %s/s",
			    size_format((uint64_t)region->push_rate, one));
	}
	if (*note)
		fprintf(frame->out, "  %s", note);
	end_line(frame);
}

static void print_map(struct frame *frame, const struct top_region *region)
{
	unsigned width = inner_columns(frame->view);

	for (unsigned i = 0; i < region->cell_count; i += width) {
		unsigned left = region->cell_count - i;

		fprintf(frame->out, "%*s", INDENT, "");
		map_print(frame->out, region->cells + i, left < width ? left : width,
		    &frame->view->style);
		end_line(frame);
	}
}

/* ---- the whole --------------------------------------------------------------------------------- */

/* Lines of a mount's block without its maps. */
static unsigned fixed_lines(const struct top_mount *mount)
{
	if (mount->health != STATUS_LIVE && mount->health != STATUS_LEAVING)
		return 2;
	return 3 + (mount->managed ? 1 : 0) + mount->region_count;
}

static void print_mount(struct frame *frame, const struct top_mount *mount)
{
	unsigned begin = frame->lines, maps;

	print_heading(frame, mount);
	if (mount->health != STATUS_LIVE && mount->health != STATUS_LEAVING)
		return;
	if (mount->managed)
		print_cache(frame, mount);
	print_speeds(frame, mount);
	maps = 0;
	for (unsigned i = 0; i < mount->region_count; i++) {
		unsigned before;

		print_region(frame, &mount->regions[i]);
		before = frame->lines;
		print_map(frame, &mount->regions[i]);
		maps += frame->lines - before;
	}
	assert(frame->lines - begin == fixed_lines(mount) + maps);
}

unsigned top_map_cells(const struct top_sample *sample, const struct top_view *view)
{
	unsigned fixed = FRAME_LINES, regions = 0, rows = 1, cells;

	for (unsigned i = 0; i < sample->mount_count; i++) {
		fixed += fixed_lines(&sample->mounts[i]) + (i ? 1 : 0);
		for (unsigned k = 0; k < sample->mounts[i].region_count; k++)
			regions += sample->mounts[i].regions[k].cached ? 1 : 0;
	}
	if (regions && view->lines > fixed)
		rows = (view->lines - fixed) / regions;
	rows = rows < 1 ? 1 : rows > TOP_MAP_ROWS ? TOP_MAP_ROWS : rows;
	cells = rows * inner_columns(view);
	return cells < MAP_CELLS_MAX ? cells : MAP_CELLS_MAX;
}

static void print_body(struct frame *frame, const struct top_sample *sample)
{
	if (sample->mount_count == 0) {
		fputs("no remram mounts", frame->out);
		end_line(frame);
	}
	for (unsigned i = 0; i < sample->mount_count; i++) {
		if (i)
			end_line(frame);
		print_mount(frame, &sample->mounts[i]);
	}
}

static void print_title(const struct top_sample *sample, const struct top_view *view, FILE *out)
{
	char text[128];

	snprintf(text, sizeof(text), "remram top  %s  %u mount%s%s", view->clock,
	    sample->mount_count, sample->mount_count == 1 ? "" : "s",
	    view->keys ? "   q quits, j and k scroll" : "");
	screen_put(out, text, view->columns);
	putc('\n', out);
}

static void print_last(const struct top_view *view, FILE *out)
{
	char *text = NULL;
	size_t len;
	FILE *line = open_memstream(&text, &len);

	if (!line)
		return;
	map_print_legend(line, &view->style);
	fclose(line);
	screen_put(out, text, view->columns);
	free(text);
	if (view->lines == 0)
		putc('\n', out);
}

/* The lines of the body that are in view, and empty ones up to the end. */
static void copy_body(char *text, const struct top_view *view, FILE *out)
{
	unsigned room = view->lines > FRAME_LINES ? view->lines - FRAME_LINES : 0, copied = 0;
	unsigned number = 0;

	for (char *line = text, *end; *line; line = end + 1, number++) {
		end = strchr(line, '\n');
		*end = '\0';
		if (number < view->skip || (view->lines && copied == room))
			continue;
		screen_put(out, line, view->columns);
		putc('\n', out);
		copied++;
	}
	for (; view->lines && copied < room; copied++)
		putc('\n', out);
}

unsigned top_print(const struct top_sample *sample, const struct top_view *view, FILE *out)
{
	struct frame frame = {.view = view};
	char *text = NULL;
	size_t len;

	frame.out = open_memstream(&text, &len);
	if (!frame.out)
		return 0;
	print_body(&frame, sample);
	fclose(frame.out);
	print_title(sample, view, out);
	copy_body(text, view, out);
	print_last(view, out);
	free(text);
	return frame.lines;
}
