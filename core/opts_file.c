/* SPDX-License-Identifier: Apache-2.0
 *
 * Options: INI files.
 *
 * The file is read line by line; nothing of it is kept.  `table` and `conf` of the section that is
 * being read are in a struct reader; a section that repeats is begun and ended each time.  Every
 * error names file and line (an end of a section: the line of its header).
 */
#include "core/opts.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/opts_impl.h"

enum { SECTION_TEXT_MAX = 128 };

struct reader {
	struct opts *global;
	const struct opt_section *sections;
	struct opt_origin at;
	char label[SECTION_TEXT_MAX]; /* "[pool ram]", what at.section points to */
	const struct opt_section *open; /* NULL: global keys */
	struct opts opts; /* of the open section */
	unsigned open_line;
};

static char *trim(char *text)
{
	size_t len;

	while (isspace((unsigned char)*text))
		text++;
	len = strlen(text);
	while (len && isspace((unsigned char)text[len - 1]))
		len--;
	text[len] = '\0';
	return text;
}

/* Cuts a comment off: '#' or ';' at the beginning or after white space. */
static void cut_comment(char *line)
{
	for (char *p = line; *p; p++)
		if ((*p == '#' || *p == ';') && (p == line || isspace((unsigned char)p[-1]))) {
			*p = '\0';
			return;
		}
}

/* Passes on what a handler said, with the place in front. */
static int handler_error(
    const struct reader *rd, int code, const struct err *inner, struct err *err)
{
	opt_error(&rd->at, err, "%s", inner->text);
	if (err)
		err->code = code;
	return code;
}

static int end_section(struct reader *rd, struct err *err)
{
	struct err inner = {0};
	int r;

	if (!rd->open)
		return 0;
	rd->at.line = rd->open_line;
	r = rd->open->end(rd->open->ctx, rd->opts.conf, &inner);
	opts_free(rd->opts.table, rd->opts.conf);
	rd->open = NULL;
	return r ? handler_error(rd, r, &inner, err) : 0;
}

static int unknown_section(const struct reader *rd, const char *name, struct err *err)
{
	char known[OPT_TEXT_MAX] = "[global]";
	size_t n = strlen(known);

	for (const struct opt_section *s = rd->sections; s && s->name && n < sizeof(known); s++)
		n += (size_t)snprintf(known + n, sizeof(known) - n, ", [%s NAME]", s->name);
	return opt_error(&rd->at, err, "unknown section \"%.60s\" (known: %s)", name, known);
}

/* text is what stands between the brackets. */
static int begin_section(struct reader *rd, char *text, struct err *err)
{
	const struct opt_section *s = rd->sections;
	char *name = trim(text), *arg;
	struct err inner = {0};
	void *conf;
	int r;

	snprintf(rd->label, sizeof(rd->label), "[%s]", name);
	rd->at.section = "";
	arg = name + strcspn(name, " \t");
	if (*arg)
		*arg++ = '\0';
	arg = trim(arg);
	if (!strcmp(name, "global") && !*arg)
		return 0;
	while (s && s->name && strcmp(s->name, name))
		s++;
	if (!s || !s->name)
		return unknown_section(rd, name, err);
	rd->at.section = rd->label;
	r = s->begin(s->ctx, arg, &conf, &inner);
	if (r)
		return handler_error(rd, r, &inner, err);
	opts_init(&rd->opts, s->table, conf);
	rd->open = s;
	rd->open_line = rd->at.line;
	return 0;
}

static int read_key(struct reader *rd, char *line, struct err *err)
{
	struct opts *opts = rd->open ? &rd->opts : rd->global;
	char *value = strchr(line, '=');
	char *name;
	unsigned idx;
	int r;

	if (!value)
		return opt_error(
		    &rd->at, err, "\"%.60s\" is neither \"name = value\" nor a [section]", line);
	*value++ = '\0';
	name = trim(line);
	value = trim(value);
	if (!*name)
		return opt_error(&rd->at, err, "no name before the '='");
	r = opt_find(opts, name, strlen(name), &rd->at, &idx, err);
	return r ? r : opt_store(opts, idx, value, &rd->at, err);
}

static int read_line(struct reader *rd, char *line, size_t len, struct err *err)
{
	char *end;

	if (strlen(line) != len)
		return opt_error(&rd->at, err, "there is a NUL byte in the line");
	if (rd->at.line == 1 && !strncmp(line, "\xef\xbb\xbf", 3))
		line += 3; /* the byte order mark that some editors write */
	cut_comment(line);
	line = trim(line);
	if (!*line)
		return 0;
	if (*line != '[')
		return read_key(rd, line, err);
	end = line + strlen(line) - 1;
	if (*end != ']')
		return opt_error(&rd->at, err, "the section's ']' is missing");
	*end = '\0';
	return begin_section(rd, line + 1, err);
}

static int read_lines(struct reader *rd, FILE *in, struct err *err)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t len;
	int r = 0;

	for (;;) {
		unsigned number = rd->at.line + 1;
		char *text;
		errno = 0;
		len = getline(&line, &room, in);
		if (len < 0)
			break;
		text = line + strspn(line, " \t");
		if (*text == '[')
			r = end_section(rd, err);
		rd->at.line = number;
		if (!r)
			r = read_line(rd, line, (size_t)len, err);
		if (r)
			break;
	}
	if (!r && !feof(in))
		r = err_sys(err, errno ? -errno : -EIO, "cannot read %s", rd->at.file);
	free(line);
	return r;
}

int opts_file(
    struct opts *opts, const char *path, const struct opt_section *sections, struct err *err)
{
	struct reader rd = {
	    .global = opts,
	    .sections = sections,
	    .at = {.where = OPT_IN_FILE, .file = path, .section = ""},
	};
	FILE *in = fopen(path, "re");
	int r;

	if (!in)
		return err_sys(err, -errno, "cannot open %s", path);
	r = read_lines(&rd, in, err);
	if (!r)
		r = end_section(&rd, err);
	if (rd.open)
		opts_free(rd.opts.table, rd.opts.conf);
	fclose(in);
	return r;
}
