/* SPDX-License-Identifier: Apache-2.0
 *
 * JSON written into a buffer of fixed size, for the daemon, which allocates nothing: what does not fit is
 * left out piece by piece, so that whoever closes the brackets must have kept room for them.
 */
#ifndef REMRAM_MOUNT_TEXT_H
#define REMRAM_MOUNT_TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct text {
	char *buf;
	size_t room, used; /* used < room: there is always a NUL behind what was written */
};

/* Adds what fmt makes, or nothing if that does not fit. */
void text_put(struct text *text, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Adds s as a JSON string with its quotes.  UTF-8 passes; control characters, quotes, backslashes, and
 * bytes that are no UTF-8, become \u00XX. */
void text_put_string(struct text *text, const char *s);

/* True while at least `bytes` more fit. */
bool text_has_room(const struct text *text, size_t bytes);

#endif
