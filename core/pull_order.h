/* SPDX-License-Identifier: Apache-2.0
 *
 * Pull orders as text: the mount option pull_order and the xattr user.remram.pull_order.
 *
 *   ORDER = RANGE,…       RANGE = FROM-[TO][:PRIO]
 * FROM and TO are sizes ("64M"), TO is not included and is the region's end where it is missing; PRIO is
 * a number from -1000 to 1000, higher first, 0 where it is missing:  0-64M:10,960M-:9
 */
#ifndef REMRAM_CORE_PULL_ORDER_H
#define REMRAM_CORE_PULL_ORDER_H

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

enum { PULL_ORDER_MAX = 65536, PULL_PRIO_MAX = 1000 };

struct pull_range {
	uint64_t off; /* bytes */
	uint64_t len; /* bytes; UINT64_MAX - off: to the end of the region */
	int prio;
};

/* 0 and *ret_count ranges, empty text being none; -EINVAL with err set; -E2BIG: more than max. */
int pull_order_parse(const char *text, struct pull_range *ranges, unsigned max, unsigned *ret_count,
    struct err *err);

/* Writes the text, NUL at its end, cut to room; returns its length without NUL, as snprintf does. */
size_t pull_order_format(const struct pull_range *ranges, unsigned count, char *buf, size_t room);

#endif
