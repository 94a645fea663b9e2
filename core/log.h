/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages to the administrator: stderr, and syslog once the process is a daemon.
 *
 * log_write never blocks and never allocates: the line goes into a pipe that a thread of its own
 * empties, and a line that finds the pipe full is counted and dropped.  So it may be called from the
 * I/O path of a mount that holds swap.  Before log_start (and in short-lived commands that never call
 * it) lines go to stderr directly.
 */
#ifndef REMRAM_CORE_LOG_H
#define REMRAM_CORE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* What every line begins with ("remram", "remramd"); kept, not copied. */
void log_set_name(const char *name);
void log_set_level(enum log_level level);
/* "error", "warn", "info" or "debug"; -EINVAL for anything else, *ret_level untouched. */
int log_level_parse(const char *text, enum log_level *ret_level);

/* Starts the thread that writes.  to_syslog: write to syslog instead of stderr.  Call after the last
 * fork and before the threads that do I/O. */
int log_start(bool to_syslog, struct err *err);
/* Writes out what is queued and ends the thread. Lines after it go to stderr directly. */
void log_stop(void);

void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* For messages that a flood of outside events could repeat: at most one line a second for each
 * struct; the next line that passes says how many were left out.  One thread per struct. */
struct log_limit {
	uint64_t next_ns;
	unsigned suppressed;
};
bool log_allowed(struct log_limit *limit);

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
