/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages: what comes out, that a writer never waits for a reader, that nothing is lost without
 * being counted, syslog.
 *
 * stderr is replaced by a pipe or a file in each test (each runs in a process of its own).
 */
#include "core/log.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct err err;

/* stderr → a new temporary file. */
static int capture(void)
{
	char path[] = "/tmp/remram-log-XXXXXX";
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	unlink(path);
	ck_assert_int_ge(dup2(fd, STDERR_FILENO), 0);
	return fd;
}

/* What was captured; static buffer. */
static char *captured(int fd)
{
	static char buf[1 << 20];
	ssize_t n = pread(fd, buf, sizeof(buf) - 1, 0);

	ck_assert_int_ge(n, 0);
	buf[n] = '\0';
	return buf;
}

static void some_lines(void)
{
	log_set_name("prog");
	errno = 77;
	log_error("an error %d", 1);
	log_warn("a warning");
	log_info("info\nwith \x1b[31mred\x7f");
	log_debug("hidden");
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug("shown");
	log_set_level(LOG_LEVEL_ERROR);
	log_warn("hidden");
	ck_assert_int_eq(errno, 77);
	log_set_level(LOG_LEVEL_INFO);
}

static const char some_text[] = "prog: an error 1\n"
				"prog: warning: a warning\n"
				"prog: info?with ?[31mred?\n"
				"prog: debug: shown\n";

START_TEST(direct)
{
	int fd = capture();

	some_lines();
	ck_assert_str_eq(captured(fd), some_text);
}
END_TEST

START_TEST(through_the_thread)
{
	int fd = capture();
	char want[1000];

	ck_assert_int_eq(log_start(false, &err), 0);
	some_lines();
	log_stop();
	ck_assert_str_eq(captured(fd), some_text);
	/* Stopped: direct again; and it can be started again. */
	log_info("direct");
	ck_assert_int_eq(log_start(false, &err), 0);
	log_info("again");
	log_stop();
	log_stop();
	snprintf(want, sizeof(want), "%sprog: direct\nprog: again\n", some_text);
	ck_assert_str_eq(captured(fd), want);
}
END_TEST

START_TEST(levels)
{
	enum log_level level = LOG_LEVEL_DEBUG;

	ck_assert_int_eq(log_level_parse("", &level), -EINVAL);
	ck_assert_int_eq(log_level_parse("Info", &level), -EINVAL);
	ck_assert_int_eq(level, LOG_LEVEL_DEBUG);
	ck_assert(!log_level_parse("error", &level) && level == LOG_LEVEL_ERROR);
	ck_assert(!log_level_parse("warn", &level) && level == LOG_LEVEL_WARN);
	ck_assert(!log_level_parse("info", &level) && level == LOG_LEVEL_INFO);
	ck_assert(!log_level_parse("debug", &level) && level == LOG_LEVEL_DEBUG);
}
END_TEST

START_TEST(long_lines_are_cut)
{
	static char text[5000];
	int fd = capture();
	char *got;

	memset(text, 'x', sizeof(text) - 1);
	log_start(false, &err);
	log_info("%s", text);
	log_info("%s", "");
	log_info("next");
	log_stop();
	got = captured(fd);
	ck_assert_uint_eq(strspn(strchr(got, 'x'), "x"), 1000);
	ck_assert(strstr(got, "x\nremram: \nremram: next\n"));
}
END_TEST

/* Nobody reads stderr: the writer goes on at once, and every line is written or counted. */
START_TEST(never_waits)
{
	enum { LINES = 20000 };
	static char buf[1 << 16];
	unsigned long seen = 0, reported = 0, number;
	int fds[2];
	FILE *in;

	ck_assert_int_eq(pipe(fds), 0);
	ck_assert_int_ge(dup2(fds[1], STDERR_FILENO), 0);
	close(fds[1]);
	ck_assert_int_eq(log_start(false, &err), 0);
	for (unsigned i = 0; i < LINES; i++)
		log_info("line %u", i);
	/* Only now somebody reads. */
	in = fdopen(fds[0], "r");
	for (;;) {
		ck_assert_ptr_nonnull(fgets(buf, sizeof(buf), in));
		if (sscanf(buf, "remram: line %lu", &number) == 1) {
			ck_assert_uint_ge(number, seen);
			seen++;
		} else {
			ck_assert_int_eq(
			    sscanf(buf, "remram: warning: %lu messages were dropped", &number), 1);
			reported += number;
		}
		if (seen + reported == LINES)
			break;
	}
	ck_assert_uint_gt(reported, 0);
	log_info("after");
	ck_assert_ptr_nonnull(fgets(buf, sizeof(buf), in));
	ck_assert_str_eq(buf, "remram: after\n");
	log_stop();
}
END_TEST

/* A closed stderr must not kill a started process. */
START_TEST(closed_stderr)
{
	int fds[2];

	ck_assert_int_eq(pipe(fds), 0);
	ck_assert_int_ge(dup2(fds[1], STDERR_FILENO), 0);
	close(fds[0]);
	close(fds[1]);
	log_start(false, &err);
	log_info("nobody hears this");
	log_stop();
}
END_TEST

enum { THREADS = 4, PER_THREAD = 500 };

static void *writer(void *arg)
{
	for (unsigned i = 0; i < PER_THREAD; i++) {
		log_info("thread %s line %u of %d", (const char *)arg, i, PER_THREAD);
		if (i % 8 == 0)
			sched_yield();
	}
	return NULL;
}

START_TEST(threads_do_not_mix)
{
	static char *const names[THREADS] = {"a", "bb", "ccc", "dddd"};
	unsigned next[THREADS] = {0}, lines = 0, lost = 0;
	pthread_t threads[THREADS];
	char *rest, *line;
	int fd = capture();

	log_start(false, &err);
	for (unsigned i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, writer, names[i]), 0);
	/* Stopping under the writers is allowed: the rest goes to stderr directly. */
	usleep(2000);
	log_stop();
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	rest = captured(fd);
	while ((line = strsep(&rest, "\n")) && *line) {
		char name[10];
		unsigned number, of, who = 0, count;
		if (sscanf(line, "remram: warning: %u messages were dropped", &count) == 1) {
			lost += count;
			continue;
		}
		ck_assert_int_eq(
		    sscanf(line, "remram: thread %9s line %u of %u", name, &number, &of), 3);
		ck_assert_uint_eq(of, PER_THREAD);
		while (strcmp(name, names[who]))
			who++;
		next[who]++;
		lines++;
	}
	ck_assert_uint_eq(lines + lost, THREADS * PER_THREAD);
	for (unsigned i = 0; i < THREADS; i++)
		ck_assert_uint_le(next[i], PER_THREAD);
}
END_TEST

START_TEST(limited)
{
	struct log_limit limit = {0};
	int fd = capture();

	ck_assert(log_allowed(&limit));
	ck_assert(!log_allowed(&limit));
	ck_assert(!log_allowed(&limit));
	ck_assert_str_eq(captured(fd), "");
	limit.next_ns = 0; /* a second has passed */
	ck_assert(log_allowed(&limit));
	ck_assert_str_eq(
	    captured(fd), "remram: warning: 2 messages like the next one were left out\n");
	ck_assert(!log_allowed(&limit));
}
END_TEST

/* With a /dev/log of its own, in a mount namespace of its own (needs root). */
START_TEST(to_syslog)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
	char buf[2000];
	ssize_t n;
	int fd;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", "/dev", "tmpfs", 0, NULL)) {
		fprintf(stderr, "to_syslog: skipped: %s\n", strerror(errno));
		return;
	}
	fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	log_set_name("prog");
	ck_assert_int_eq(log_start(true, &err), 0);
	log_warn("to syslog %d%%", 5);
	n = recv(fd, buf, sizeof(buf) - 1, 0);
	ck_assert_int_gt(n, 0);
	buf[n] = '\0';
	ck_assert_int_eq(strncmp(buf, "<28>", 4), 0); /* daemon.warning */
	ck_assert_msg(strstr(buf, " prog["), "%s", buf);
	ck_assert_msg(strstr(buf, "]: to syslog 5%"), "%s", buf);
	log_stop();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("log");
	TCase *tc = tcase_create("log");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, direct);
	tcase_add_test(tc, through_the_thread);
	tcase_add_test(tc, levels);
	tcase_add_test(tc, long_lines_are_cut);
	tcase_add_test(tc, never_waits);
	tcase_add_test(tc, closed_stderr);
	tcase_add_test(tc, threads_do_not_mix);
	tcase_add_test(tc, limited);
	tcase_add_test(tc, to_syslog);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
