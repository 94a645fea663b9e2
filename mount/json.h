/* SPDX-License-Identifier: Apache-2.0
 *
 * A small reader of JSON (RFC 8259), for what the daemons answer to "status", and what is needed to
 * write it.
 *
 * A value lives until the document it is part of is destroyed.  All functions take NULL for a value
 * that is not there, so that json_number(json_find(doc, "requests.read.count"), 0) needs no checks.
 */
#ifndef REMRAM_MOUNT_JSON_H
#define REMRAM_MOUNT_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/err.h"

enum json_type {
	JSON_NULL,
	JSON_FALSE,
	JSON_TRUE,
	JSON_NUMBER,
	JSON_STRING,
	JSON_ARRAY,
	JSON_OBJECT
};

enum { JSON_DEPTH_MAX = 32 }; /* of nested arrays and objects */

struct json;

/* Reads one value and nothing after it.  -EINVAL with the offset of what is wrong, -ENOMEM. */
int json_parse(const char *text, size_t len, struct json **ret_doc, struct err *err);
/* doc is what json_parse gave.  NULL does nothing. */
void json_destroy(struct json *doc);

/* JSON_NULL for NULL. */
enum json_type json_type(const struct json *value);

/* The members of an object or the items of an array, in their order: the first, and the one after.
 * NULL at the end, and for other types. */
const struct json *json_first(const struct json *value);
const struct json *json_next(const struct json *value);
/* The name of a member of an object; NULL for anything else. */
const char *json_name(const struct json *value);

/* A member of a member …: "connection.state". NULL if one of them is not there. */
const struct json *json_find(const struct json *value, const char *path);

/* The value, or `other` if it is of another type. */
double json_number(const struct json *value, double other);
const char *json_string(const struct json *value, const char *other);
/* A whole number, all digits of it, or a string that is one (ids, which are larger than what many readers
 * of JSON keep); `other` for anything else. */
uint64_t json_u64(const struct json *value, uint64_t other);
/* A number as it was written, all digits of it, or a string; "true", "false", "null"; NULL for arrays
 * and objects. */
const char *json_text(const struct json *value);

/* Writes text as a JSON string, with its quotes.  Bytes that are not UTF-8 become U+FFFD. */
void json_write_string(FILE *out, const char *text);
/* Writes the value as it is. */
void json_write(FILE *out, const struct json *value);

#endif
