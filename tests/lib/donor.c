/* SPDX-License-Identifier: Apache-2.0
 *
 * remramd as a child process (see tests/lib/donor.h).
 */
#include "tests/lib/donor.h"

#include <arpa/inet.h>
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/rig.h"

enum { ARGS_MAX = 32, READY_FD = 9, WAIT_MS = 5000 };

/* $O/remramd: the test is $O/tests/SOMEWHERE/NAME. */
static void program(char path[DONOR_PATH_MAX + 16])
{
	const char *env = getenv("REMRAMD");
	char *slash;
	ssize_t n;

	if (env) {
		snprintf(path, DONOR_PATH_MAX, "%s", env);
		return;
	}
	n = readlink("/proc/self/exe", path, DONOR_PATH_MAX - 1);
	ck_assert_int_gt(n, 0);
	path[n] = 0;
	for (unsigned i = 0; i < 3; i++) {
		slash = strrchr(path, '/');
		ck_assert_ptr_nonnull(slash);
		*slash = 0;
	}
	strcat(path, "/remramd");
	ck_assert_msg(access(path, X_OK) == 0, "%s is not built", path);
}

/* A port on which nobody listens now. */
static uint16_t free_port(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	close(fd);
	return ntohs(sa.sin_port);
}

/* In the child. */
static void become(const struct donor *donor, const char *const *args, int ready)
{
	static char expanded[ARGS_MAX][DONOR_PATH_MAX * 2];
	char path[DONOR_PATH_MAX + 16], listen[64], state[DONOR_PATH_MAX + 16], ready_text[16];
	const char *argv[ARGS_MAX + 16] = {"remramd", "--config", "/dev/null", "--ready-fd",
	    ready_text, "--listen", listen, "--state", state};
	unsigned argc = 9;
	int log;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	program(path);
	snprintf(listen, sizeof(listen), "127.0.0.1:%u", donor->port);
	snprintf(state, sizeof(state), "%s/state", donor->dir);
	snprintf(ready_text, sizeof(ready_text), "%d", READY_FD);
	for (unsigned i = 0; args && args[i] && i < ARGS_MAX; i++) {
		const char *dir = strstr(args[i], "DIR");

		snprintf(expanded[i], sizeof(expanded[i]), "%.*s%s%s",
		    (int)(dir ? dir - args[i] : (ssize_t)strlen(args[i])), args[i],
		    dir ? donor->dir : "", dir ? dir + 3 : "");
		argv[argc++] = expanded[i];
	}
	log = open(donor->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (log < 0 || dup2(ready, READY_FD) < 0 || dup2(log, STDERR_FILENO) < 0)
		_exit(99);
	execv(path, (char *const *)(uintptr_t)argv);
	_exit(98);
}

/* False: it did not come up (the port was taken in the meantime, for example). */
static bool launch(struct donor *donor, const char *const *args)
{
	char line[16] = "";
	int pipes[2], status;
	ssize_t n;

	ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
	donor->pid = fork();
	ck_assert_int_ge(donor->pid, 0);
	if (donor->pid == 0)
		become(donor, args, pipes[1]);
	close(pipes[1]);
	n = read(pipes[0], line, sizeof(line));
	close(pipes[0]);
	if (n > 0 && strncmp(line, "ready", 5) == 0)
		return true;
	ck_assert_int_eq(waitpid(donor->pid, &status, 0), donor->pid);
	donor->pid = 0;
	return false;
}

void donor_start(struct donor *donor, const char *const *args)
{
	memset(donor, 0, sizeof(*donor));
	rig_tmpdir(NULL, donor->dir);
	snprintf(donor->log, sizeof(donor->log), "%s/log", donor->dir);
	for (unsigned tries = 0; tries < 5; tries++) {
		donor->port = free_port();
		if (launch(donor, args))
			return;
	}
	ck_abort_msg("remramd does not start: see %s", donor->log);
}

void donor_restart(struct donor *donor, const char *const *args)
{
	ck_assert_int_eq(donor->pid, 0);
	ck_assert_msg(launch(donor, args), "remramd does not start again: see %s", donor->log);
}

int donor_kill(struct donor *donor, int sig)
{
	int status = -1;

	ck_assert_int_gt(donor->pid, 0);
	kill(donor->pid, sig);
	ck_assert_int_eq(waitpid(donor->pid, &status, 0), donor->pid);
	donor->pid = 0;
	return status;
}

void donor_stop(struct donor *donor)
{
	if (donor->pid) {
		int status;

		kill(donor->pid, SIGCONT);
		status = donor_kill(donor, SIGTERM);
		ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0,
		    "remramd ended with status 0x%x: see %s", status, donor->log);
	}
	rig_tmpdir_remove(donor->dir);
}

static unsigned count_now(const struct donor *donor, const char *text)
{
	FILE *log = fopen(donor->log, "r");
	char line[4096];
	unsigned n = 0;

	if (!log)
		return 0;
	while (fgets(line, sizeof(line), log))
		n += strstr(line, text) != NULL;
	fclose(log);
	return n;
}

unsigned donor_log_count(const struct donor *donor, const char *text)
{
	unsigned n = 0;

	for (unsigned ms = 0; ms < WAIT_MS && n == 0; ms += 10) {
		n = count_now(donor, text);
		if (n == 0)
			usleep(10000);
	}
	return n;
}

void donor_log_expect(const struct donor *donor, const char *text)
{
	char command[DONOR_PATH_MAX + 64];

	if (donor_log_count(donor, text))
		return;
	snprintf(command, sizeof(command), "tail -n 20 %s >&2", donor->log);
	(void)!system(command);
	ck_abort_msg("the donor's log does not say \"%s\"", text);
}

unsigned long donor_rss_kib(const struct donor *donor)
{
	char path[64], line[256];
	unsigned long kib = 0;
	FILE *status;

	snprintf(path, sizeof(path), "/proc/%d/status", donor->pid);
	status = fopen(path, "r");
	ck_assert_ptr_nonnull(status);
	while (fgets(line, sizeof(line), status))
		if (sscanf(line, "RssAnon: %lu kB", &kib) == 1)
			break;
	fclose(status);
	return kib;
}

unsigned donor_fds(const struct donor *donor)
{
	char path[64];
	unsigned n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", donor->pid);
	dir = opendir(path);
	ck_assert_ptr_nonnull(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 2;
}
