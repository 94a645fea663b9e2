/* SPDX-License-Identifier: Apache-2.0
 *
 * netprobe: what a TCP path does to bytes: an echo server, and clients that measure and verify.
 *
 *   netprobe serve ADDR:PORT            echoes every connection; prints the port; runs until killed
 *   netprobe ping ADDR:PORT COUNT       round trips of 64 bytes: min_us, median_us, p99_us, max_us
 *   netprobe bulk ADDR:PORT BYTES       sends a pattern, verifies its echo: echoed_bytes, mb_s, end=…
 *                                       (complete, eof or reset), wrong_bytes
 *   netprobe give ADDR:PORT             sends zeros to every connection, as fast as it takes them
 *   netprobe take ADDR:PORT BYTES       receives so many of them and looks at none: mb_s
 *
 * It serves to prove the proxy (order, delay, cuts) and to tell how fast the machine's loopback is.
 * Blocking, one thread; serve handles one connection per forked child, and children end with it.
 *
 * Fails: ping and bulk exit 1 when bytes are wrong or the connection ends early, after printing what
 * there was.
 */
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "tests/tools/net.h"
#include "tests/tools/tool.h"

enum { PING_BYTES = 64, CHUNK_BYTES = 64 * 1024, PINGS_MAX = 1000000, PATTERN_SEED = 7 };

static void die(const char *what)
{
	fprintf(stderr, "netprobe: %s: %s\n", what, strerror(errno));
	exit(TOOL_SETUP);
}

static int tcp_connect(const char *where)
{
	struct net_address address = net_parse(where);
	int fd = socket(address.addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	if (fd < 0 || connect(fd, (struct sockaddr *)&address.addr, address.len) < 0)
		die(where);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

/* Bytes for ever, to see what a path can carry. */
static void give(int fd)
{
	static unsigned char buf[4 * CHUNK_BYTES];

	setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4); /* nothing to probe on loopback */
	while (send(fd, buf, sizeof(buf), MSG_NOSIGNAL) > 0)
		continue;
}

static void echo(int fd)
{
	static unsigned char buf[4 * CHUNK_BYTES];
	ssize_t got, put;
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	while ((got = read(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t done = 0; done < got; done += put) {
			put = send(fd, buf + done, (size_t)(got - done), MSG_NOSIGNAL);
			if (put < 0)
				return;
		}
	}
}

/* Does `each` with every connection, in a process of its own. */
static int serve(const char *where, void (*each)(int fd))
{
	struct net_address address = net_parse(where);
	int fd = socket(address.addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1, conn;

	signal(SIGCHLD, SIG_IGN);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (fd < 0 || bind(fd, (struct sockaddr *)&address.addr, address.len) < 0 ||
	    listen(fd, 64) < 0)
		die(where);
	getsockname(fd, (struct sockaddr *)&address.addr, &address.len);
	printf("%u\n", ntohs(address.addr.ss_family == AF_INET6
				 ? ((struct sockaddr_in6 *)&address.addr)->sin6_port
				 : ((struct sockaddr_in *)&address.addr)->sin_port));
	fflush(stdout);
	while ((conn = accept(fd, NULL, NULL)) >= 0) {
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			each(conn);
			_exit(TOOL_OK);
		}
		close(conn);
	}
	die("accept");
	return TOOL_SETUP;
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static int ping(const char *where, uint64_t count)
{
	uint64_t *times = calloc(count, sizeof(*times));
	int fd = tcp_connect(where);
	unsigned char buf[PING_BYTES];

	if (!times)
		die("memory");
	for (uint64_t i = 0; i < count; i++) {
		uint64_t start_ns = tool_now_ns();

		memset(buf, (int)i, sizeof(buf));
		if (write(fd, buf, sizeof(buf)) != sizeof(buf) ||
		    recv(fd, buf, sizeof(buf), MSG_WAITALL) != sizeof(buf) ||
		    buf[0] != (unsigned char)i) {
			fprintf(stderr, "netprobe: no answer to ping %" PRIu64 "\n", i);
			free(times);
			return TOOL_FAILED;
		}
		times[i] = tool_now_ns() - start_ns;
	}
	qsort(times, count, sizeof(*times), compare_u64);
	printf("min_us=%.1f\nmedian_us=%.1f\np99_us=%.1f\nmax_us=%.1f\n", (double)times[0] / 1e3,
	    (double)times[count / 2] / 1e3, (double)times[count * 99 / 100] / 1e3,
	    (double)times[count - 1] / 1e3);
	free(times);
	return TOOL_OK;
}

struct bulk {
	int fd;
	uint64_t total, sent, echoed, wrong;
	const char *end; /* how the connection ended, once it has */
};

/* Sends the next part of the pattern, as much as the socket takes. False: the connection is gone. */
static bool bulk_send(struct bulk *bulk)
{
	static unsigned char buf[CHUNK_BYTES];
	size_t len = bulk->total - bulk->sent < sizeof(buf) ? (size_t)(bulk->total - bulk->sent)
							    : sizeof(buf);
	ssize_t put;

	tool_pattern(PATTERN_SEED, bulk->sent, buf, len);
	put = send(bulk->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (put < 0 && errno == EAGAIN)
		return true;
	if (put < 0) {
		bulk->end = "reset";
		return false;
	}
	bulk->sent += (uint64_t)put;
	if (bulk->sent == bulk->total)
		shutdown(bulk->fd, SHUT_WR);
	return true;
}

/* Verifies what has come back. False at the end of the stream, and bulk->end says which. */
static bool bulk_receive(struct bulk *bulk)
{
	static unsigned char buf[CHUNK_BYTES];
	size_t first;
	ssize_t got = recv(bulk->fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (got < 0 && errno == EAGAIN)
		return true;
	if (got <= 0) {
		if (!bulk->end)
			bulk->end = got < 0                       ? "reset"
				    : bulk->echoed == bulk->total ? "complete"
								  : "eof";
		return false;
	}
	bulk->wrong += tool_pattern_wrong(PATTERN_SEED, bulk->echoed, buf, (size_t)got, &first);
	bulk->echoed += (uint64_t)got;
	return true;
}

static int bulk(const char *where, uint64_t total)
{
	struct bulk state = {.fd = tcp_connect(where), .total = total};
	uint64_t start_ns = tool_now_ns();
	bool sending = true;

	for (;;) {
		struct pollfd pfd = {.fd = state.fd, .events = POLLIN};

		if (sending && state.sent < state.total)
			pfd.events |= POLLOUT;
		poll(&pfd, 1, -1);
		if ((pfd.revents & POLLOUT) && sending && !bulk_send(&state))
			sending = false;
		if ((pfd.revents & (POLLIN | POLLHUP | POLLERR)) && !bulk_receive(&state))
			break;
	}
	printf("echoed_bytes=%" PRIu64 "\nwrong_bytes=%" PRIu64 "\nmb_s=%.1f\nend=%s\n",
	    state.echoed, state.wrong, tool_mb_s(state.echoed, tool_now_ns() - start_ns),
	    state.end);
	return state.wrong == 0 && strcmp(state.end, "complete") == 0 ? TOOL_OK : TOOL_FAILED;
}

/* MSG_TRUNC: the kernel drops the bytes instead of copying them, and leaves its time to the path. */
static int take(const char *where, uint64_t total)
{
	int fd = tcp_connect(where);
	uint64_t start_ns = tool_now_ns(), taken = 0;

	while (taken < total) {
		ssize_t got = recv(fd, NULL, 4 << 20, MSG_TRUNC);

		if (got <= 0)
			break;
		taken += (uint64_t)got;
	}
	printf("mb_s=%.1f\n", tool_mb_s(taken, tool_now_ns() - start_ns));
	return taken >= total ? TOOL_OK : TOOL_FAILED;
}

int main(int argc, char **argv)
{
	uint64_t number = 0;

	if (argc == 3 && strcmp(argv[1], "serve") == 0)
		return serve(argv[2], echo);
	if (argc == 3 && strcmp(argv[1], "give") == 0)
		return serve(argv[2], give);
	if (argc == 4 && tool_parse(argv[3], &number) && number > 0) {
		if (strcmp(argv[1], "ping") == 0 && number <= PINGS_MAX)
			return ping(argv[2], number);
		if (strcmp(argv[1], "bulk") == 0)
			return bulk(argv[2], number);
		if (strcmp(argv[1], "take") == 0)
			return take(argv[2], number);
	}
	fputs("usage: netprobe serve | give ADDR:PORT\n"
	      "       netprobe ping ADDR:PORT COUNT\n"
	      "       netprobe bulk | take ADDR:PORT BYTES\n",
	    stderr);
	return TOOL_USAGE;
}
