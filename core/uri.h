/* SPDX-License-Identifier: Apache-2.0
 *
 * URIs that name places where bytes live (RFC 3986, the part of it that is needed):
 *
 *   memory:?size=8G            scheme, query
 *   file:/srv/pool             scheme, path
 *   remram://host:10819/pool   scheme, host, port, path
 *   nbd+unix:///export?socket=/run/x
 *
 * Percent escapes in path and query values are decoded.  Host may be a name, an IPv4 address or an
 * IPv6 address in brackets.
 */
#ifndef REMRAM_CORE_URI_H
#define REMRAM_CORE_URI_H

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"

enum { URI_TEXT_MAX = 4096, URI_PARAMS_MAX = 16 };

struct uri {
	const char *scheme; /* never NULL; without the colon */
	const char *host; /* NULL if the URI has no //authority; without brackets */
	uint16_t port; /* 0 if not given */
	const char *path; /* "" if there is none */
	struct {
		const char *name;
		const char *value; /* "" if there was no '=' */
	} params[URI_PARAMS_MAX];
	unsigned param_count;
	char store[URI_TEXT_MAX]; /* what the pointers point into */
};

/* Parses text; on error (-EINVAL) err says what is wrong with which part. */
int uri_parse(const char *text, struct uri *ret_uri, struct err *err);

/* True if text begins with a scheme and a colon. */
bool uri_is(const char *text);

/* The value of parameter `name`, or NULL. */
const char *uri_param(const struct uri *uri, const char *name);

/* Fails with -EINVAL if a parameter is none of the NULL-terminated `known` names, or stands twice. */
int uri_check_params(const struct uri *uri, const char *const *known, struct err *err);

/* Sizes as people write them: digits with an optional K, M, G, T, P (powers of 1024; a following "iB"
 * or "B" is taken too).  -EINVAL or -ERANGE, *ret_bytes untouched. */
int size_parse(const char *text, uint64_t *ret_bytes);

/* "4.0 GiB", "512 B": for people. buf holds at least SIZE_TEXT_MAX bytes; returns buf. */
enum { SIZE_TEXT_MAX = 32 };
char *size_format(uint64_t bytes, char *buf);

/* Durations: digits with ms, s, m or h; a bare number is seconds.  Result in milliseconds. */
int duration_parse(const char *text, uint64_t *ret_ms);

#endif
