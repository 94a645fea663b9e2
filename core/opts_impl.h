/* SPDX-License-Identifier: Apache-2.0
 *
 * What the three files of core/opts share; nobody else includes it.
 */
#ifndef REMRAM_CORE_OPTS_IMPL_H
#define REMRAM_CORE_OPTS_IMPL_H

#include "core/opts.h"

enum { OPT_TEXT_MAX = 160 };

/* Where a setting stands, for messages. */
struct opt_origin {
	enum opt_where where;
	const char *file; /* OPT_IN_FILE: NULL if not known */
	unsigned line;
	const char *section; /* "[pool ram]" or "" */
	char letter; /* it was written -x */
};

/* err_set(err, -EINVAL, …) with the place (file and line) in front. */
int opt_error(const struct opt_origin *at, struct err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Index of the entry that `name` (of len bytes) means at this place.  -EINVAL with the nearest name. */
int opt_find(const struct opts *opts, const char *name, size_t len, const struct opt_origin *at,
    unsigned *ret_idx, struct err *err);

/* True if the entry takes a value that must be given. */
bool opt_wants_value(const struct opt *opt);

/* Stores value (NULL: none was given) in entry idx, unless something of higher rank has set it. */
int opt_store(struct opts *opts, unsigned idx, const char *value, const struct opt_origin *at,
    struct err *err);

/* The name as it is written at `where`: --spin-us, spin_us.  buf: OPT_TEXT_MAX bytes; returns buf. */
char *opt_spell(const struct opt *opt, enum opt_where where, char *buf);

/* "0 to 10000 µs", "at least 4K", "yes or no", "error, warn, info": what is allowed; "" if
 * anything is.  buf: OPT_TEXT_MAX bytes; returns buf. */
char *opt_limits(const struct opt *opt, char *buf);

/* True if the entry may stand at `where`. */
bool opt_allowed(const struct opt *opt, enum opt_where where);

#endif
