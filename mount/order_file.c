/* SPDX-License-Identifier: Apache-2.0
 *
 * A pull order in a file; see order_file.h.
 */
#include "mount/order_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mount/screen.h"

enum { LINE_MAX_LEN = 4096, RANGE_TEXT = 128, NAME_COLUMNS = 60 };

/* The ranges of one line, which is changed: added to ranges. */
static int parse_line(const char *name, unsigned number, char *line, struct pull_range *ranges,
    unsigned *count, struct err *err)
{
	struct err why = {0};
	unsigned found;
	size_t len;
	int res;

	line[strcspn(line, "#")] = '\0';
	line += strspn(line, " \t\r");
	for (len = strlen(line); len && strchr(" \t\r", line[len - 1]); len--)
		;
	line[len] = '\0';
	res = pull_order_parse(line, ranges + *count, PULL_ORDER_MAX - *count, &found, &why);
	if (res == -E2BIG)
		return err_set(err, res, "%s: more than %d ranges", name, PULL_ORDER_MAX);
	if (res)
		return err_set(err, res, "%s, line %u: %s", name, number, why.text);
	*count += found;
	return 0;
}

int order_file_parse(const char *name, const char *text, size_t len, struct pull_range **ret_ranges,
    unsigned *ret_count, struct err *err)
{
	struct pull_range *ranges = calloc(PULL_ORDER_MAX, sizeof(*ranges));
	const char *end = text + len;
	unsigned count = 0, number = 0;
	int res = 0;

	if (!ranges)
		return err_sys(err, -ENOMEM, "%s", name);
	while (res == 0 && text < end) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));
		size_t part = (size_t)((newline ? newline : end) - text);
		char line[LINE_MAX_LEN];

		number++;
		if (part >= sizeof(line) || memchr(text, '\0', part)) {
			res = err_set(
			    err, -EINVAL, "%s, line %u: this is no pull order", name, number);
			break;
		}
		memcpy(line, text, part);
		line[part] = '\0';
		res = parse_line(name, number, line, ranges, &count, err);
		text += part + 1;
	}
	if (res) {
		free(ranges);
		return res;
	}
	*ret_ranges = ranges;
	*ret_count = count;
	return 0;
}

int order_file_read(
    const char *path, struct pull_range **ret_ranges, unsigned *ret_count, struct err *err)
{
	FILE *in = strcmp(path, "-") ? fopen(path, "re") : stdin;
	char *text;
	size_t len;
	int res;

	if (!in)
		return err_sys(err, -errno, "%s", path);
	text = malloc(ORDER_FILE_BYTES_MAX);
	len = text ? fread(text, 1, ORDER_FILE_BYTES_MAX, in) : 0;
	if (!text)
		res = err_sys(err, -ENOMEM, "%s", path);
	else if (ferror(in))
		res = err_sys(err, -EIO, "%s: cannot read it", path);
	else if (len == ORDER_FILE_BYTES_MAX)
		res = err_set(err, -EFBIG, "%s: this is no pull order: it is too large", path);
	else
		res = order_file_parse(path, text, len, ret_ranges, ret_count, err);
	free(text);
	if (in != stdin)
		fclose(in);
	return res;
}

void order_file_write(
    FILE *out, const char *region, const struct pull_range *ranges, unsigned count)
{
	char text[RANGE_TEXT], name[4 * NAME_COLUMNS + 1];

	if (region)
		fprintf(out, "# pull order of %s: FROM-TO[:PRIORITY], first to last\n",
		    screen_name(region, NAME_COLUMNS, false, name));
	for (unsigned i = 0; i < count; i++) {
		pull_order_format(&ranges[i], 1, text, sizeof(text));
		fprintf(out, "%s\n", text);
	}
}
