/* SPDX-License-Identifier: Apache-2.0
 *
 * A pull order in a file: what `remram record` writes and `remram pull --order` reads.
 *
 * A text, one range per line as core/pull_order.h has it, FROM-[TO][:PRIO]; what follows a '#' is a comment,
 * empty lines count for nothing.  Several ranges may stand in a line, with commas.  Ranges of one priority
 * are pulled in the order of the lines.
 */
#ifndef REMRAM_MOUNT_ORDER_FILE_H
#define REMRAM_MOUNT_ORDER_FILE_H

#include <stddef.h>
#include <stdio.h>

#include "core/err.h"
#include "core/pull_order.h"

enum { ORDER_FILE_BYTES_MAX = 8 << 20 };

/* Reads a text of len bytes; name is that of the file, for messages.  0 with *ret_ranges (free() it; never
 * NULL) and *ret_count; -EINVAL with the line, -E2BIG (over PULL_ORDER_MAX ranges), -ENOMEM. */
int order_file_parse(const char *name, const char *text, size_t len, struct pull_range **ret_ranges,
    unsigned *ret_count, struct err *err);
/* The same from a file, or from stdin for "-". */
int order_file_read(
    const char *path, struct pull_range **ret_ranges, unsigned *ret_count, struct err *err);

/* Writes ranges, one a line; before them, unless region is NULL, a comment that names it.  Errors are the
 * stream's. */
void order_file_write(
    FILE *out, const char *region, const struct pull_range *ranges, unsigned count);

#endif
