/* SPDX-License-Identifier: Apache-2.0
 *
 * ask SOCKET WORD…: sends the words as one line to a Unix socket and prints the answer: the proxy's
 * control client, and one for any other daemon that answers lines.
 *
 * Reads until a line end or the end of the stream. Waits at most 10 s. Exit 0, or 1 if the answer
 * begins with "error" or there is none.
 */
#include <unistd.h>

#include "tests/tools/net.h"
#include "tests/tools/tool.h"

enum { ANSWER_MAX = 256 * 1024, TIMEOUT_S = 10 };

int main(int argc, char **argv)
{
	static char text[ANSWER_MAX];
	struct timeval timeout = {.tv_sec = TIMEOUT_S};
	struct sockaddr_un addr;
	size_t used = 0;
	ssize_t got;
	int fd;

	if (argc < 3) {
		fputs("usage: ask SOCKET WORD...\n", stderr);
		return TOOL_USAGE;
	}
	addr = net_unix(argv[1]);
	for (int i = 2; i < argc; i++) {
		int len = snprintf(
		    text + used, sizeof(text) - used, "%s%c", argv[i], i + 1 < argc ? ' ' : '\n');

		if (len < 0 || (used += (size_t)len) >= sizeof(text))
			return TOOL_USAGE;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0 ||
	    connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    send(fd, text, used, MSG_NOSIGNAL) != (ssize_t)used) {
		fprintf(stderr, "ask: %s: %s\n", argv[1], strerror(errno));
		return TOOL_SETUP;
	}
	for (used = 0;
	     used < sizeof(text) && (got = read(fd, text + used, sizeof(text) - used)) > 0;) {
		used += (size_t)got;
		if (text[used - 1] == '\n')
			break;
	}
	fwrite(text, 1, used, stdout);
	return used == 0 || strncmp(text, "error", 5) == 0 ? TOOL_FAILED : TOOL_OK;
}
