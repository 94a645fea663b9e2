/* SPDX-License-Identifier: Apache-2.0
 *
 * A donor for tests: the real remramd as a child process, its log in a file.
 *
 * The program is that of this build ($O/remramd, found from the test's own place), or the
 * environment's REMRAMD.  Everything asserts (libcheck) instead of returning errors.
 */
#ifndef REMRAM_TESTS_DONOR_H
#define REMRAM_TESTS_DONOR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { DONOR_PATH_MAX = 256 };

struct donor {
	pid_t pid;
	uint16_t port; /* 127.0.0.1 */
	char dir[DONOR_PATH_MAX]; /* temporary: the log, the state, place for pools */
	char log[DONOR_PATH_MAX + 8];
};

/* Starts it with these arguments (NULL at the end) beside those that say where to listen, and returns
 * when it serves.  "DIR" in an argument becomes the temporary directory. */
void donor_start(struct donor *donor, const char *const *args);
/* Starts it again on the same port with the same directory; it has ended. */
void donor_restart(struct donor *donor, const char *const *args);
/* Sends sig and waits for the end; the status of waitpid(2). */
int donor_kill(struct donor *donor, int sig);
/* SIGTERM if it still runs, which must end it well; removes the directory. */
void donor_stop(struct donor *donor);

/* Waits up to 5 s for a line of the log that contains text (since the start); how many there are. */
unsigned donor_log_count(const struct donor *donor, const char *text);
void donor_log_expect(const struct donor *donor, const char *text);

/* Memory in use that is its own (RssAnon), in KiB; open descriptors. */
unsigned long donor_rss_kib(const struct donor *donor);
unsigned donor_fds(const struct donor *donor);

#endif
