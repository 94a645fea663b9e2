/* SPDX-License-Identifier: Apache-2.0
 *
 * Pull orders as text (see core/pull_order.h).
 */
#include "core/pull_order.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/uri.h"

enum { RANGE_TEXT_MAX = 80 };

/* A size that ends before `end`; false: it is none. */
static bool part_size(const char *text, const char *end, uint64_t *ret_bytes)
{
	char part[RANGE_TEXT_MAX];
	size_t len = (size_t)(end - text);

	if (len == 0 || len >= sizeof(part))
		return false;
	memcpy(part, text, len);
	part[len] = '\0';
	return size_parse(part, ret_bytes) == 0;
}

static int bad_range(struct err *err, const char *text, int len, const char *why)
{
	return err_set(
	    err, -EINVAL, "pull order: \"%.*s\": %s (as in 0-64M:10,960M-:9)", len, text, why);
}

/* One range, `len` bytes of text. */
static int range_parse(const char *text, size_t len, struct pull_range *ret_range, struct err *err)
{
	const char *end = text + len, *colon = memchr(text, ':', len), *dash;
	uint64_t from, to = UINT64_MAX;
	long prio = 0;
	char *rest;

	if (colon) {
		prio = strtol(colon + 1, &rest, 10);
		if (rest != end || rest == colon + 1 || prio < -PULL_PRIO_MAX ||
		    prio > PULL_PRIO_MAX)
			return bad_range(
			    err, text, (int)len, "a priority is a number from -1000 to 1000");
		end = colon;
	}
	dash = memchr(text, '-', (size_t)(end - text));
	if (!dash || !part_size(text, dash, &from) ||
	    (dash + 1 < end && !part_size(dash + 1, end, &to)))
		return bad_range(err, text, (int)len, "a range is FROM-TO[:PRIORITY] or FROM-");
	if (to <= from)
		return bad_range(err, text, (int)len, "it ends before it begins");
	*ret_range = (struct pull_range){.off = from, .len = to - from, .prio = (int)prio};
	return 0;
}

int pull_order_parse(
    const char *text, struct pull_range *ranges, unsigned max, unsigned *ret_count, struct err *err)
{
	unsigned count = 0;
	int rc;

	while (*text) {
		size_t len = strcspn(text, ",");

		if (count == max)
			return err_set(err, -E2BIG, "pull order: more than %u ranges", max);
		rc = range_parse(text, len, &ranges[count], err);
		if (rc)
			return rc;
		count++;
		text += len;
		if (*text == ',' && *++text == '\0')
			return bad_range(err, ",", 1, "a range is missing");
	}
	*ret_count = count;
	return 0;
}

/* The largest unit that divides. */
static int format_size(uint64_t bytes, char *buf, size_t room)
{
	static const char units[] = "KMGT";
	unsigned unit = 0;

	while (bytes && bytes % 1024 == 0 && unit < 4) {
		bytes /= 1024;
		unit++;
	}
	if (unit == 0)
		return snprintf(buf, room, "%llu", (unsigned long long)bytes);
	return snprintf(buf, room, "%llu%c", (unsigned long long)bytes, units[unit - 1]);
}

size_t pull_order_format(const struct pull_range *ranges, unsigned count, char *buf, size_t room)
{
	char text[RANGE_TEXT_MAX];
	size_t total = 0;

	if (room)
		buf[0] = '\0';
	for (unsigned i = 0; i < count; i++) {
		const struct pull_range *range = &ranges[i];
		int n = 0;

		if (i)
			text[n++] = ',';
		n += format_size(range->off, text + n, sizeof(text) - (size_t)n);
		text[n++] = '-';
		if (range->len != UINT64_MAX - range->off)
			n += format_size(
			    range->off + range->len, text + n, sizeof(text) - (size_t)n);
		if (range->prio)
			n += snprintf(text + n, sizeof(text) - (size_t)n, ":%d", range->prio);
		if (total < room)
			snprintf(buf + total, room - total, "%.*s", n, text);
		total += (size_t)n;
	}
	return total;
}
