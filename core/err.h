/* SPDX-License-Identifier: Apache-2.0
 *
 * One error of a set-up function: a code and one sentence for people.
 *
 * Set-up functions return 0 or -errno and fill a struct err at the cause; callers add nothing, they
 * pass it up to the one place that prints it.  The data path never uses it: it has done(req, err).
 */
#ifndef REMRAM_CORE_ERR_H
#define REMRAM_CORE_ERR_H

#include <stdarg.h>

enum { ERR_TEXT_MAX = 512 };

struct err {
	int code; /* -errno, 0 if no error was set */
	char text[ERR_TEXT_MAX]; /* one line without a newline, cut if longer */
};

/* Sets code (a negative errno) and text, and returns code, so that `return err_set(…)` reads well.
 * err may be NULL: then only the code is returned. */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The same, with ": " and the system's description of the code appended. */
int err_sys(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#ifdef __clang_analyzer__
/* The analyzer sees one file at a time and must be told what these return. */
#define err_set(err, code, ...) (err_set(err, code, __VA_ARGS__), (code))
#define err_sys(err, code, ...) (err_sys(err, code, __VA_ARGS__), (code))
#endif

#endif
