/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages to the administrator.
 *
 * States: direct (before log_start, after log_stop: the caller writes to stderr itself) and started
 * (lines go through the pipe).  `pipe_in` is the write end while started, -1 while direct.
 *
 * A line in the pipe is a struct record, always written in one call of at most PIPE_BUF bytes: the
 * kernel then writes all of it or, the pipe being full, nothing.  The thread takes lines out and
 * writes each with one call, so lines of several threads never mix.
 *
 * Invariants:
 * 1. While started, log_write only formats on its stack, writes to a non-blocking pipe, and counts what
 *    did not fit.  A pipe can only be full while the thread has lines to write, so a count is always
 *    followed by a wake-up in which the thread reports it.
 * 2. The write end is closed only when nobody is inside log_write with it (`writers` is 0), so that a
 *    line can never go to a descriptor that was given to somebody else.
 *
 * Failure: a line that stderr or syslog does not take is lost.  Control characters in a line (names
 * come from outside) become '?'.
 */
#include "core/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

enum { LINE_TEXT_MAX = 1000, STACK_BYTES = 256 * 1024 };

struct record {
	uint16_t len; /* bytes of text, no NUL */
	uint8_t level;
	char text[LINE_TEXT_MAX];
};
enum { RECORD_HEAD = offsetof(struct record, text) };
_Static_assert(sizeof(struct record) <= PIPE_BUF, "a record must be written in one piece");

/* Set up before there are threads. */
static const char *log_name = "remram";
static bool use_syslog;
static pthread_t thread;
static int pipe_out = -1;

/* Atomic. */
static _Atomic int level_limit = LOG_LEVEL_INFO;
static _Atomic int pipe_in = -1;
static _Atomic unsigned writers;
static _Atomic unsigned dropped;

static const char *const level_names[] = {"error", "warn", "info", "debug"};

void log_set_name(const char *name)
{
	log_name = name;
}

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&level_limit, level, memory_order_relaxed);
}

int log_level_parse(const char *text, enum log_level *ret_level)
{
	for (unsigned i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++)
		if (!strcmp(text, level_names[i])) {
			*ret_level = (enum log_level)i;
			return 0;
		}
	return -EINVAL;
}

static void write_stderr(const struct record *rec)
{
	static const char *const marks[] = {"", "warning: ", "", "debug: "};
	char line[LINE_TEXT_MAX + 128];
	int n = snprintf(
	    line, sizeof(line), "%s: %s%.*s\n", log_name, marks[rec->level], rec->len, rec->text);
	ssize_t done;

	if (n >= (int)sizeof(line)) {
		n = sizeof(line) - 1;
		line[n - 1] = '\n';
	}
	do
		done = write(STDERR_FILENO, line, (size_t)n);
	while (done < 0 && errno == EINTR);
}

static void put_out(const struct record *rec)
{
	static const int priorities[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};

	if (use_syslog)
		syslog(priorities[rec->level], "%.*s", rec->len, rec->text);
	else
		write_stderr(rec);
}

static void format(struct record *rec, enum log_level level, const char *fmt, va_list ap)
{
	char text[LINE_TEXT_MAX + 1];
	int n = vsnprintf(text, sizeof(text), fmt, ap);

	rec->level = (uint8_t)level;
	rec->len = (uint16_t)(n < 0 ? 0 : n > LINE_TEXT_MAX ? LINE_TEXT_MAX : n);
	for (unsigned i = 0; i < rec->len; i++) {
		unsigned char c = (unsigned char)text[i];
		rec->text[i] = c < 0x20 || c == 0x7f ? '?' : (char)c;
	}
}

static void report_dropped(void)
{
	unsigned count = atomic_exchange(&dropped, 0);
	struct record rec = {.level = LOG_LEVEL_WARN};

	if (!count)
		return;
	rec.len = (uint16_t)snprintf(rec.text, sizeof(rec.text),
	    "%u messages were dropped: they came faster than they could be written", count);
	put_out(&rec);
}

/* Reads what is in the pipe until all writers have gone. */
static void *log_thread(void *arg)
{
	char buf[4 * sizeof(struct record)];
	size_t have = 0;

	for (;;) {
		size_t pos = 0;
		ssize_t n = read(pipe_out, buf + have, sizeof(buf) - have);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		have += (size_t)n;
		while (have - pos >= RECORD_HEAD) {
			struct record rec;
			memcpy(&rec, buf + pos, RECORD_HEAD);
			if (have - pos < RECORD_HEAD + (size_t)rec.len)
				break;
			memcpy(rec.text, buf + pos + RECORD_HEAD, rec.len);
			pos += RECORD_HEAD + (size_t)rec.len;
			put_out(&rec);
		}
		have -= pos;
		memmove(buf, buf + pos, have);
		report_dropped();
	}
	report_dropped();
	return NULL;
}

/* The thread takes no signals; a stderr that nobody reads any more must not kill the process. */
static int start_thread(void)
{
	pthread_attr_t attr;
	sigset_t all, old;
	int r;

	r = pthread_attr_init(&attr);
	if (r)
		return -r;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_attr_setstacksize(&attr, STACK_BYTES);
	if (!r)
		r = pthread_create(&thread, &attr, log_thread, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -r;
}

int log_start(bool to_syslog, struct err *err)
{
	int fds[2];
	int r;

	assert(atomic_load(&pipe_in) < 0);
	if (pipe2(fds, O_CLOEXEC))
		return err_sys(err, -errno, "cannot make a pipe for messages");
	if (fcntl(fds[1], F_SETFL, O_NONBLOCK)) {
		r = err_sys(err, -errno, "cannot set up the pipe for messages");
		goto fail;
	}
	pipe_out = fds[0];
	use_syslog = to_syslog;
	if (to_syslog)
		openlog(log_name, LOG_PID | LOG_NDELAY, LOG_DAEMON);
	r = start_thread();
	if (r) {
		use_syslog = false;
		if (to_syslog)
			closelog();
		err_sys(err, r, "cannot start the thread for messages");
		goto fail;
	}
	atomic_store(&pipe_in, fds[1]);
	return 0;
fail:
	close(fds[0]);
	close(fds[1]);
	return r;
}

void log_stop(void)
{
	int fd = atomic_exchange(&pipe_in, -1);

	if (fd < 0)
		return;
	while (atomic_load(&writers))
		sched_yield();
	close(fd);
	pthread_join(thread, NULL);
	close(pipe_out);
	pipe_out = -1;
	if (use_syslog)
		closelog();
	use_syslog = false;
}

void log_write(enum log_level level, const char *fmt, ...)
{
	struct record rec;
	int saved_errno = errno;
	va_list ap;
	int fd;

	if ((int)level > atomic_load_explicit(&level_limit, memory_order_relaxed))
		return;
	va_start(ap, fmt);
	format(&rec, level, fmt, ap);
	va_end(ap);
	atomic_fetch_add(&writers, 1);
	fd = atomic_load(&pipe_in);
	if (fd >= 0) {
		ssize_t n;
		do
			n = write(fd, &rec, RECORD_HEAD + (size_t)rec.len);
		while (n < 0 && errno == EINTR);
		if (n < 0)
			atomic_fetch_add(&dropped, 1);
	}
	atomic_fetch_sub(&writers, 1);
	if (fd < 0)
		write_stderr(&rec);
	errno = saved_errno;
}

bool log_allowed(struct log_limit *limit)
{
	struct timespec ts;
	uint64_t now;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
	if (now < limit->next_ns) {
		limit->suppressed++;
		return false;
	}
	if (limit->suppressed)
		log_warn("%u messages like the next one were left out", limit->suppressed);
	limit->suppressed = 0;
	limit->next_ns = now + 1000000000;
	return true;
}
