/* SPDX-License-Identifier: Apache-2.0
 *
 * terminal COLUMNSxLINES [ACTION…] -- COMMAND [ARG…]: runs a command on a terminal of that size and prints all
 * that it writes there.  Actions, one after the other from the command's start:
 *
 *   wait=MS             lets time pass
 *   type=TEXT           types TEXT; ^C in it is the interrupt key
 *   size=COLUMNSxLINES  gives the terminal another size
 *
 * Then it waits for the command's end, 20 seconds at most.  The exit code is the command's, or 128 and the
 * number of the signal that ended it.
 */
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/tools/tool.h"

enum { END_MS = 20000 };

static int usage(void)
{
	fputs("usage: terminal COLUMNSxLINES [wait=MS|type=TEXT|size=COLUMNSxLINES…] -- COMMAND "
	      "[ARG…]\n",
	    stderr);
	return TOOL_USAGE;
}

static bool parse_size(const char *text, struct winsize *ret_size)
{
	unsigned short columns, lines;
	int end = 0;

	if (sscanf(text, "%hux%hu%n", &columns, &lines, &end) != 2 || text[end])
		return false;
	*ret_size = (struct winsize){.ws_col = columns, .ws_row = lines};
	return true;
}

/* Prints what comes for so long; false: the other side has hung up. */
static bool copy(int fd, uint64_t ms)
{
	uint64_t end = tool_now_ns() + ms * 1000000, now;
	char buf[4096];

	while ((now = tool_now_ns()) < end) {
		struct pollfd pfd = {.fd = fd, .events = POLLIN};
		ssize_t n;

		if (poll(&pfd, 1, (int)((end - now) / 1000000 + 1)) <= 0)
			continue;
		n = read(fd, buf, sizeof(buf));
		if (n <= 0)
			return false;
		fwrite(buf, 1, (size_t)n, stdout);
	}
	return true;
}

static void type(int fd, const char *text)
{
	for (; *text; text++) {
		char c = *text;

		if (c == '^' && text[1] == 'C') {
			c = 3;
			text++;
		}
		if (write(fd, &c, 1) != 1)
			perror("terminal: write");
	}
}

/* False: it is none. */
static bool act(int fd, const char *action)
{
	struct winsize size;
	uint64_t ms;

	if (strncmp(action, "type=", 5) == 0)
		type(fd, action + 5);
	else if (strncmp(action, "wait=", 5) == 0 && tool_parse(action + 5, &ms))
		copy(fd, ms);
	else if (strncmp(action, "size=", 5) == 0 && parse_size(action + 5, &size))
		ioctl(fd, TIOCSWINSZ, &size);
	else
		return false;
	return true;
}

int main(int argc, char **argv)
{
	struct winsize size;
	int fd, status, first = 2;
	pid_t pid;

	while (first < argc && strcmp(argv[first], "--") != 0)
		first++;
	if (first + 1 >= argc || !parse_size(argv[1], &size))
		return usage();
	pid = forkpty(&fd, NULL, NULL, &size);
	if (pid == 0) {
		execvp(argv[first + 1], argv + first + 1);
		perror(argv[first + 1]);
		_exit(127);
	}
	if (pid < 0) {
		perror("terminal: forkpty");
		return TOOL_SETUP;
	}
	for (int i = 2; i < first; i++) {
		if (!act(fd, argv[i])) {
			kill(pid, SIGKILL);
			return usage();
		}
	}
	if (copy(fd, END_MS)) {
		fputs("terminal: the command does not end\n", stderr);
		kill(pid, SIGKILL);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
