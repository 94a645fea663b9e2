/* SPDX-License-Identifier: Apache-2.0
 *
 * Small things that the commands ask of the system; see sys.h.
 *
 * sys_run never uses a shell, gives the program a fixed environment, and finds it in the system's
 * own directories: mount helpers run as root with whatever environment their caller had.
 */
#include "mount/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *const program_dirs[] = {"/usr/sbin", "/sbin", "/usr/bin", "/bin"};
static char *const program_env[] = {"PATH=/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL=C", NULL};

ssize_t sys_read_text(const char *path, char *buf, size_t room)
{
	size_t len = 0;
	ssize_t n = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	while (len + 1 < room && (n = read(fd, buf + len, room - 1 - len)) > 0)
		len += (size_t)n;
	n = n < 0 ? -errno : 0;
	close(fd);
	if (n < 0)
		return n;
	if (len && buf[len - 1] == '\n')
		len--;
	buf[len] = '\0';
	return (ssize_t)len;
}

ssize_t sys_read_textf(char *buf, size_t room, const char *fmt, ...)
{
	char path[512];
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	if ((size_t)len >= sizeof(path))
		return -ENAMETOOLONG;
	return sys_read_text(path, buf, room);
}

int sys_read_u64(const char *path, uint64_t *ret_value)
{
	char text[64] = "", *end;
	uint64_t value;
	ssize_t len = sys_read_text(path, text, sizeof(text));

	if (len < 0)
		return (int)len;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (end == text || *end || errno || text[0] == '-')
		return -EINVAL;
	*ret_value = value;
	return 0;
}

int sys_read_key(const char *path, const char *key, uint64_t *ret_value)
{
	size_t key_len = strlen(key), room = 0;
	char *line = NULL, *end;
	int res = -ENOENT;
	FILE *in = fopen(path, "re");

	if (!in)
		return -errno;
	while (res == -ENOENT && getline(&line, &room, in) >= 0) {
		uint64_t value;
		if (strncmp(line, key, key_len) || !strchr(": \t", line[key_len]))
			continue;
		value = strtoull(line + key_len + strspn(line + key_len, ": \t"), &end, 10);
		if (end == line + key_len)
			continue;
		*ret_value = value;
		res = 0;
	}
	free(line);
	fclose(in);
	return res;
}

int sys_write_text(const char *path, const char *text)
{
	size_t len = strlen(text);
	int res = 0;
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (write(fd, text, len) != (ssize_t)len)
		res = errno ? -errno : -EIO;
	close(fd);
	return res;
}

/* In the child: becomes the program, or ends with 127. */
static void become(const char *const *argv, int stderr_fd)
{
	char path[256];
	sigset_t none;
	int null = open("/dev/null", O_RDWR);
	unsigned i;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(stderr_fd, 2) < 0)
		_exit(127);
	for (i = 0; i < sizeof(program_dirs) / sizeof(program_dirs[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", program_dirs[i], argv[0]);
		execve(path, (char *const *)argv, program_env);
	}
	_exit(127);
}

/* Reads fd to its end and keeps the last non-empty line in buf. */
static void last_line(int fd, char *buf, size_t room)
{
	size_t len = 0;
	bool ended = false;
	char c;

	buf[0] = '\0';
	while (read(fd, &c, 1) == 1) {
		if (c == '\n') {
			ended = true;
			continue;
		}
		if (ended)
			len = 0;
		ended = false;
		if (len + 1 < room)
			buf[len++] = c;
		buf[len] = '\0';
	}
}

int sys_run(const char *const *argv, struct err *err)
{
	char line[256];
	int fds[2], status;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		return err_sys(err, -errno, "%s: pipe", argv[0]);
	pid = fork();
	if (pid < 0) {
		int code = -errno;
		close(fds[0]);
		close(fds[1]);
		return err_sys(err, code, "%s: cannot start a process", argv[0]);
	}
	if (pid == 0)
		become(argv, fds[1]);
	close(fds[1]);
	last_line(fds[0], line, sizeof(line));
	close(fds[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return err_set(err, -ENOENT, "%s: the program is not installed", argv[0]);
	if (WIFSIGNALED(status))
		return err_set(err, -EINTR, "%s was ended by signal %d", argv[0], WTERMSIG(status));
	return err_set(err, -EIO, "%s failed with exit code %d%s%s", argv[0], WEXITSTATUS(status),
	    line[0] ? ": " : "", line);
}

void sys_modprobe(const char *module)
{
	const char *argv[] = {"modprobe", "-q", module, NULL};
	struct err ignored;

	sys_run(argv, &ignored);
}

uint64_t sys_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void sys_sleep_ms(unsigned ms)
{
	poll(NULL, 0, (int)ms);
}

int sys_pidfd(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

uint64_t sys_process_start(pid_t pid)
{
	char text[1024], *field;
	unsigned i;

	if (pid <= 0 || sys_read_textf(text, sizeof(text), "/proc/%d/stat", (int)pid) < 0)
		return 0;
	/* The name in field 2 may contain anything; after its last parenthesis comes field 3. */
	field = strrchr(text, ')');
	if (!field || field[1] != ' ')
		return 0;
	if (field[2] == 'Z' || field[2] == 'X')
		return 0;
	field += 2;
	for (i = 3; i < 22; i++) {
		field = strchr(field, ' ');
		if (!field)
			return 0;
		field++;
	}
	return strtoull(field, NULL, 10);
}

bool sys_process_alive(pid_t pid, uint64_t start)
{
	uint64_t now = sys_process_start(pid);

	return now != 0 && (start == 0 || start == now);
}
