/* SPDX-License-Identifier: Apache-2.0
 *
 * Where commands come from (see tests/tools/proxy/control.h).
 */
#include "tests/tools/proxy/control.h"

#include <err.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/tools/net.h"
#include "tests/tools/proxy/command.h"
#include "tests/tools/proxy/source.h"
#include "tests/tools/tool.h"

enum {
	LINE_MAX_BYTES = 512,
};

/* A controller: gone, and freed by control_sweep, when its source is closed. */
struct ctl {
	struct source source; /* first: a struct ctl is found by its source */
	struct ctl *next;
	int out_fd;
	bool is_stdin;
	size_t used;
	char line[LINE_MAX_BYTES];
};

static struct source listener;
static const char *listener_path; /* NULL: there is none */
static struct ctl *ctls;

static void ctl_failed(const struct ctl *ctl)
{
	if (ctl->is_stdin)
		sources_stop();
}

/* Reads commands and answers them. */
static void ctl_ready(struct source *source, uint32_t events)
{
	struct ctl *ctl = (struct ctl *)source;
	ssize_t got = read(source->fd, ctl->line + ctl->used, sizeof(ctl->line) - ctl->used);
	char answer[LINE_MAX_BYTES], *end;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0 || (ctl->used += (size_t)got) == sizeof(ctl->line)) {
		ctl_failed(ctl);
		source_close(source);
		return;
	}
	while ((end = memchr(ctl->line, '\n', ctl->used))) {
		size_t len = (size_t)(end - ctl->line) + 1;

		*end = '\0';
		command_run(ctl->line, answer, sizeof(answer) - 1);
		strcat(answer, "\n");
		if (write(ctl->out_fd, answer, strlen(answer)) < 0)
			ctl_failed(ctl);
		memmove(ctl->line, ctl->line + len, ctl->used - len);
		ctl->used -= len;
	}
}

/* NULL: no memory. */
static struct ctl *ctl_add(int fd, int out_fd)
{
	struct ctl *ctl = calloc(1, sizeof(*ctl));

	if (!ctl)
		return NULL;
	ctl->source = (struct source){.ready = ctl_ready, .fd = fd};
	ctl->out_fd = out_fd;
	ctl->next = ctls;
	ctls = ctl;
	source_watch(&ctl->source, EPOLLIN);
	return ctl;
}

static void control_accept(struct source *source, uint32_t events)
{
	int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0 && !ctl_add(fd, fd))
		close(fd);
}

void control_open(const char *path)
{
	struct sockaddr_un addr = net_unix(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 16) < 0)
		err(TOOL_SETUP, "%s", path);
	listener = (struct source){.ready = control_accept, .fd = fd};
	listener_path = path;
	source_watch(&listener, EPOLLIN);
}

void control_open_stdin(void)
{
	struct ctl *ctl = ctl_add(STDIN_FILENO, STDOUT_FILENO);

	if (!ctl)
		errx(TOOL_SETUP, "out of memory");
	ctl->is_stdin = true;
}

void control_sweep(void)
{
	struct ctl **link = &ctls;

	while (*link) {
		struct ctl *ctl = *link;

		if (ctl->source.fd >= 0) {
			link = &ctl->next;
			continue;
		}
		*link = ctl->next;
		free(ctl);
	}
}

void control_close(void)
{
	if (listener_path)
		unlink(listener_path);
}
