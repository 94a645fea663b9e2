/* SPDX-License-Identifier: Apache-2.0
 *
 * Options: what is allowed, as text; --help; man page source.
 *
 * Everything is made from the table, so that help, man pages and checks cannot disagree.
 */
#include "core/opts.h"

#include <inttypes.h>
#include <string.h>

#include "core/opts_impl.h"

enum { HELP_COLUMN = 26, HELP_WIDTH = 79, MDOC_WIDTH = 78, DETAIL_MAX = 512 };

/* Sizes and durations as the user would write them, without rounding. */
static char *exact(const struct opt *opt, uint64_t value, char *buf, size_t room)
{
	if (opt->type == OPT_SIZE) {
		const char *unit = "KMGTP";
		const char *name = "";
		while (value && value % 1024 == 0 && *unit) {
			value /= 1024;
			name = unit++;
		}
		snprintf(buf, room, "%" PRIu64 "%.1s", value, name);
	} else if (opt->type == OPT_DURATION) {
		static const struct {
			unsigned ms;
			const char *name;
		} units[] = {{3600000, "h"}, {60000, "m"}, {1000, "s"}, {1, "ms"}};
		unsigned i = 0;
		while (value % units[i].ms)
			i++;
		if (!value)
			i = 2;
		snprintf(buf, room, "%" PRIu64 "%s", value / units[i].ms, units[i].name);
	} else {
		snprintf(buf, room, "%" PRIu64, value);
	}
	return buf;
}

static void limits_of_number(const struct opt *opt, char *buf)
{
	char low[32], high[32];
	const char *unit = opt->unit ? opt->unit : "";
	const char *space = opt->unit ? " " : "";

	exact(opt, opt->min, low, sizeof(low));
	exact(opt, opt->max, high, sizeof(high));
	if (opt->max)
		snprintf(buf, OPT_TEXT_MAX, "%s to %s%s%s", low, high, space, unit);
	else if (opt->min)
		snprintf(buf, OPT_TEXT_MAX, "at least %s%s%s", low, space, unit);
	else if (opt->type == OPT_SIZE)
		snprintf(buf, OPT_TEXT_MAX, "as in 4096, 64K, 4G");
	else if (opt->type == OPT_DURATION)
		snprintf(buf, OPT_TEXT_MAX, "as in 500ms, 30s, 5m");
	else if (opt->unit)
		snprintf(buf, OPT_TEXT_MAX, "a number of %s", unit);
	else
		snprintf(buf, OPT_TEXT_MAX, "a number");
}

static void limits_of_choices(const struct opt *opt, char *buf)
{
	size_t n = 0;

	buf[0] = '\0';
	for (const struct opt_choice *c = opt->choices; c->name && n < OPT_TEXT_MAX; c++)
		n += (size_t)snprintf(buf + n, OPT_TEXT_MAX - n, "%s%s", n ? ", " : "", c->name);
}

char *opt_limits(const struct opt *opt, char *buf)
{
	buf[0] = '\0';
	switch (opt->type) {
	case OPT_FLAG:
	case OPT_BOOL:
		snprintf(buf, OPT_TEXT_MAX, "yes or no");
		break;
	case OPT_SIZE:
	case OPT_DURATION:
	case OPT_UINT:
		limits_of_number(opt, buf);
		break;
	case OPT_ENUM:
		limits_of_choices(opt, buf);
		break;
	case OPT_STRING:
		if (opt->max)
			snprintf(buf, OPT_TEXT_MAX, "%" PRIu64 " to %" PRIu64 " bytes", opt->min,
			    opt->max);
		else if (opt->min)
			snprintf(buf, OPT_TEXT_MAX, "at least %" PRIu64 " byte%s", opt->min,
			    opt->min == 1 ? "" : "s");
		break;
	default:
		break;
	}
	return buf;
}

/* "0 to 10000 µs, default 30": what stands in parentheses behind the help text; "" if nothing. */
static char *details(const struct opt *opt, char *buf)
{
	const char *def = opt->def_help ? opt->def_help : opt->def;
	char limits[OPT_TEXT_MAX] = "";
	size_t n = 0;

	switch (opt->type) {
	case OPT_UINT:
	case OPT_SIZE:
	case OPT_DURATION:
		if (opt->max || opt->min || opt->unit)
			opt_limits(opt, limits);
		break;
	case OPT_ENUM:
	case OPT_BOOL:
		opt_limits(opt, limits);
		break;
	case OPT_LIST:
		snprintf(limits, sizeof(limits), "may be repeated");
		break;
	default:
		break;
	}
	buf[0] = '\0';
	if (*limits)
		n = (size_t)snprintf(buf, DETAIL_MAX, "%s", limits);
	if (def && n < DETAIL_MAX)
		snprintf(buf + n, DETAIL_MAX - n, "%sdefault %s", n ? "; " : "", def);
	return buf;
}

static bool shown(const struct opt *opt, enum opt_where where)
{
	return opt->type != OPT_HEADING && opt->help && opt_allowed(opt, where);
}

/* True if the heading has something below it that is shown. */
static bool heading_shown(const struct opt *heading, enum opt_where where)
{
	for (const struct opt *opt = heading + 1; opt->type != OPT_END && opt->type != OPT_HEADING;
	     opt++)
		if (shown(opt, where))
			return true;
	return false;
}

static const char *value_name(const struct opt *opt)
{
	return opt->placeholder ? opt->placeholder : "yes|no";
}

/* Columns that text takes: UTF-8 continuation bytes take none. */
static size_t columns(const char *text, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
		n += ((unsigned char)text[i] & 0xc0) != 0x80;
	return n;
}

/* Prints the words of text, wrapped at HELP_WIDTH; at is the column now. */
static size_t print_words(const char *text, size_t at, FILE *out)
{
	while (*text) {
		size_t len = strcspn(text, " "), width = columns(text, len);
		if (at > HELP_COLUMN && at + 1 + width > HELP_WIDTH) {
			fprintf(out, "\n%*s", HELP_COLUMN, "");
			at = HELP_COLUMN;
		} else if (at > HELP_COLUMN) {
			fputc(' ', out);
			at++;
		}
		fwrite(text, 1, len, out);
		at += width;
		text += len;
		text += strspn(text, " ");
	}
	return at;
}

static void print_entry(const struct opt *opt, enum opt_where where, FILE *out)
{
	char name[OPT_TEXT_MAX], left[2 * OPT_TEXT_MAX], more[DETAIL_MAX], detail[DETAIL_MAX + 4];
	const char *join = where == OPT_IN_ARGV ? " " : where == OPT_IN_MOUNT ? "=" : " = ";
	bool value = opt_wants_value(opt) || where == OPT_IN_FILE;
	char letter[5] = "";
	size_t at;

	opt_spell(opt, where, name);
	if (where == OPT_IN_ARGV && opt->letter)
		snprintf(letter, sizeof(letter), "-%c, ", opt->letter);
	snprintf(left, sizeof(left), "  %s%s%s%s", letter, name, value ? join : "",
	    value ? value_name(opt) : "");
	fputs(left, out);
	at = columns(left, strlen(left));
	if (at + 2 > HELP_COLUMN) {
		fputc('\n', out);
		at = 0;
	}
	fprintf(out, "%*s", (int)(HELP_COLUMN - at), "");
	at = print_words(opt->help, HELP_COLUMN, out);
	if (*details(opt, more)) {
		snprintf(detail, sizeof(detail), "(%s)", more);
		print_words(detail, at, out);
	}
	fputc('\n', out);
}

void opts_print_help(const struct opt *table, enum opt_where where, FILE *out)
{
	for (const struct opt *opt = table; opt->type != OPT_END; opt++) {
		if (opt->type == OPT_HEADING && heading_shown(opt, where))
			fprintf(out, "%s%s:\n", opt == table ? "" : "\n", opt->help);
		else if (shown(opt, where))
			print_entry(opt, where, out);
	}
}

/* Text between macros, wrapped at MDOC_WIDTH: backslashes are escaped, and what would be a macro at the
 * beginning of a line. */
static void mdoc_text(const char *text, FILE *out)
{
	size_t at = 0;

	while (*text) {
		size_t len = strcspn(text, " ");
		if (at && at + 1 + len > MDOC_WIDTH) {
			fputc('\n', out);
			at = 0;
		} else if (at) {
			fputc(' ', out);
			at++;
		}
		if (!at && (*text == '.' || *text == '\''))
			fputs("\\&", out);
		for (size_t i = 0; i < len; i++) {
			if (text[i] == '\\')
				fputs("\\e", out);
			else
				fputc(text[i], out);
		}
		at += len;
		text += len;
		text += strspn(text, " ");
	}
	fputc('\n', out);
}

/* A word as an argument of a macro: quoted, so that it is not taken for a macro or a delimiter. */
static void mdoc_arg(const char *text, FILE *out)
{
	fputs("\"", out);
	for (; *text; text++) {
		if (*text == '\\')
			fputs("\\e", out);
		else if (*text == '"')
			fputs("\\(dq", out);
		else if (*text == '-')
			fputs("\\-", out);
		else
			fputc(*text, out);
	}
	fputs("\"", out);
}

static void mdoc_entry(const struct opt *opt, enum opt_where where, FILE *out)
{
	char name[OPT_TEXT_MAX], more[DETAIL_MAX], detail[DETAIL_MAX + 4];
	bool value = opt_wants_value(opt) || where == OPT_IN_FILE;

	opt_spell(opt, where, name);
	fputs(".It ", out);
	if (where == OPT_IN_ARGV) {
		if (opt->letter)
			fprintf(out, "Fl %c , ", opt->letter);
		fputs("Fl ", out);
		mdoc_arg(name + 1, out);
	} else {
		fputs("Cm ", out);
		mdoc_arg(name, out);
	}
	if (value) {
		fputs(where == OPT_IN_ARGV    ? " Ar "
		      : where == OPT_IN_MOUNT ? " Ns = Ns Ar "
					      : " No = Ar ",
		    out);
		mdoc_arg(value_name(opt), out);
	}
	fputc('\n', out);
	mdoc_text(opt->help, out);
	if (*details(opt, more)) {
		snprintf(detail, sizeof(detail), "(%s)", more);
		mdoc_text(detail, out);
	}
}

void opts_print_mdoc(const struct opt *table, enum opt_where where, FILE *out)
{
	bool list = false;

	for (const struct opt *opt = table; opt->type != OPT_END; opt++) {
		if (opt->type == OPT_HEADING && heading_shown(opt, where)) {
			if (list)
				fputs(".El\n", out);
			fputs(".Ss ", out);
			mdoc_text(opt->help, out);
			list = false;
		} else if (shown(opt, where)) {
			if (!list)
				fputs(".Bl -tag -width Ds\n", out);
			list = true;
			mdoc_entry(opt, where, out);
		}
	}
	if (list)
		fputs(".El\n", out);
}
