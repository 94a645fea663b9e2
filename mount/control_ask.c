/* SPDX-License-Identifier: Apache-2.0
 *
 * The control socket of a mount daemon, client side; see control.h.
 *
 * A daemon that hangs must not hang its commands: every step has the same deadline.
 */
#include "mount/control.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "mount/sys.h"

enum { RETRY_MS = 20 };

/* Waits until fd is ready for `events`: 0 or -ETIMEDOUT. */
static int wait_ready(int fd, short events, uint64_t end_ms)
{
	struct pollfd pfd = {.fd = fd, .events = events};
	uint64_t now = sys_now_ms();

	while (now < end_ms) {
		if (poll(&pfd, 1, (int)(end_ms - now)) > 0)
			return 0;
		now = sys_now_ms();
	}
	return -ETIMEDOUT;
}

/* A full backlog is no event to wait for: it is tried again. */
static int connect_until(int fd, const struct sockaddr_un *addr, uint64_t end_ms)
{
	while (connect(fd, (const struct sockaddr *)addr, sizeof(*addr))) {
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		if (sys_now_ms() >= end_ms)
			return -ETIMEDOUT;
		sys_sleep_ms(RETRY_MS);
	}
	return 0;
}

static int send_line(int fd, const char *line, uint64_t end_ms)
{
	char text[CONTROL_LINE_MAX];
	size_t off = 0, len = strlen(line) + 1;

	if (len > sizeof(text))
		return -ENAMETOOLONG;
	memcpy(text, line, len);
	text[len - 1] = '\n';
	while (off < len) {
		ssize_t n = send(fd, text + off, len - off, MSG_NOSIGNAL);
		int res;
		if (n > 0) {
			off += (size_t)n;
			continue;
		}
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		res = wait_ready(fd, POLLOUT, end_ms);
		if (res)
			return res;
	}
	return 0;
}

/* Reads to the end of the stream; answer has room for CONTROL_ANSWER_MAX + 1. */
static int read_answer(int fd, char *answer, uint64_t end_ms)
{
	size_t len = 0;

	for (;;) {
		ssize_t n = recv(fd, answer + len, CONTROL_ANSWER_MAX - len, 0);
		int res;
		if (n == 0)
			break;
		if (n > 0) {
			len += (size_t)n;
			continue;
		}
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		res = wait_ready(fd, POLLIN, end_ms);
		if (res)
			return res;
	}
	if (len == 0 || answer[len - 1] != '\n')
		return -ECONNRESET;
	answer[len - 1] = '\0';
	return 0;
}

static int ask(const struct sockaddr_un *addr, const char *line, uint64_t end_ms, char *answer)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int res;

	if (fd < 0)
		return -errno;
	res = connect_until(fd, addr, end_ms);
	if (res == 0)
		res = send_line(fd, line, end_ms);
	if (res == 0)
		res = read_answer(fd, answer, end_ms);
	close(fd);
	return res;
}

int control_ask(
    const char *path, const char *line, unsigned timeout_ms, char **ret_answer, struct err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char *answer;
	int res;

	if (strlen(path) >= sizeof(addr.sun_path))
		return err_sys(err, -ENAMETOOLONG, "%s", path);
	strcpy(addr.sun_path, path);
	answer = malloc(CONTROL_ANSWER_MAX + 1);
	if (!answer)
		return err_sys(err, -ENOMEM, "%s", path);
	res = ask(&addr, line, sys_now_ms() + timeout_ms, answer);
	if (res == 0) {
		*ret_answer = answer;
		return 0;
	}
	free(answer);
	if (res == -ETIMEDOUT)
		return err_set(
		    err, res, "%s: the daemon does not answer within %u ms", path, timeout_ms);
	if (res == -ECONNREFUSED || res == -ENOENT)
		return err_set(err, res, "%s: no daemon is running", path);
	return err_sys(err, res, "%s: asking the daemon", path);
}

int control_command(
    const char *path, const char *verb, const char *arg, unsigned timeout_ms, struct err *err)
{
	char line[CONTROL_LINE_MAX], *text;
	int res;

	snprintf(line, sizeof(line), "%s%s%s", verb, arg ? " " : "", arg ? arg : "");
	res = control_ask(path, line, timeout_ms, &text, err);
	if (res)
		return res;
	if (strcmp(text, "ok"))
		res = err_set(err, -EREMOTEIO, "%s", strncmp(text, "error: ", 7) ? text : text + 7);
	free(text);
	return res;
}
