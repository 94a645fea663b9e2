/* SPDX-License-Identifier: Apache-2.0
 *
 * The NBD server for fuzz targets (see tests/lib/nbdfuzz.h).
 */
#include "tests/lib/nbdfuzz.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/local_pool.h"
#include "core/log.h"
#include "core/workers.h"
#include "export/server.h"

enum { WAIT_MS = 5000, CHECK_EVERY = 256 };

static struct address address = {.text = "fuzz"};
static struct pool *pool;
static struct server *server;

static void check(bool fine, const char *what)
{
	if (fine)
		return;
	perror(what);
	abort();
}

static void made(struct pool_req *req, int err)
{
	req->err = err;
}

static void make_region(const char *name, uint64_t size)
{
	struct pool_req req = {.op = POOL_CREATE,
	    .session = 1,
	    .name = name,
	    .flags = POOL_NO_OPEN,
	    .attr.mode = 0600,
	    .done = made};
	struct pool_req resize = {
	    .op = POOL_SETATTR, .session = 1, .set = POOL_SET_SIZE, .done = made};

	pool_submit(pool, &req);
	check(req.err == 0, "create");
	resize.id = req.attr.id;
	resize.attr.size = size;
	pool_submit(pool, &resize);
	check(resize.err == 0, "resize");
}

static void start(void)
{
	struct local_pool_conf pool_conf = {.name = "ram", .uri = "memory:?size=16M"};
	struct server_conf conf = {.threads = 1, .pools = &pool, .pool_count = 1};
	struct sockaddr_un *sun = (struct sockaddr_un *)&address.addr;
	struct workers *workers;
	struct err err;

	log_set_level(LOG_LEVEL_ERROR);
	sun->sun_family = AF_UNIX;
	/* In the abstract name space: nothing is left behind. */
	snprintf(sun->sun_path + 1, sizeof(sun->sun_path) - 1, "remram-fuzz-%d", (int)getpid());
	address.addr_len = sizeof(*sun);
	check(workers_create(1, &workers, &err) == 0, "workers");
	check(local_pool_create(&pool_conf, workers, &pool, &err) == 0, "pool");
	make_region("work", 1 << 20);
	make_region("small", 4097);
	check(server_create(&conf, &server, &err) == 0, "server");
	check(server_listen(server, SERVER_NBD, &address, &err) == 0, "listen");
	check(server_start(server, &err) == 0, "start");
}

static int dial(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	check(fd >= 0, "socket");
	check(connect(fd, (struct sockaddr *)&address.addr, address.addr_len) == 0, "connect");
	return fd;
}

/* Takes what comes; false at the end of the connection. */
static bool take(int fd, int flags)
{
	static uint8_t dropped[1 << 16];
	ssize_t n = recv(fd, dropped, sizeof(dropped), flags);

	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

/* Signals of the fuzzer interrupt. */
static bool wait_for(struct pollfd *pfd)
{
	int n;

	do
		n = poll(pfd, 1, WAIT_MS);
	while (n < 0 && errno == EINTR);
	return n > 0;
}

/* Sends while it takes, so that neither side waits for the other; false: the server has ended it. */
static bool give(int fd, const uint8_t *data, size_t len)
{
	while (len) {
		struct pollfd pfd = {.fd = fd, .events = POLLIN | POLLOUT};

		check(wait_for(&pfd), "the server takes nothing");
		if (pfd.revents & (POLLIN | POLLHUP) && !take(fd, MSG_DONTWAIT))
			return false;
		if (pfd.revents & POLLOUT) {
			ssize_t n = send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);

			if (n < 0 && errno != EAGAIN)
				return false;
			data += n > 0 ? n : 0;
			len -= n > 0 ? (size_t)n : 0;
		}
	}
	return true;
}

/* Another client is served. */
static void check_service(void)
{
	static const uint8_t hello[] = "\0\0\0\1IHAVEOPT\0\0\0\2\0\0\0\0";
	int fd = dial();
	struct pollfd pfd = {.fd = fd, .events = POLLIN};

	check(send(fd, hello, sizeof(hello) - 1, MSG_NOSIGNAL) == sizeof(hello) - 1, "send");
	do
		check(wait_for(&pfd), "another client is not served");
	while (take(fd, 0));
	close(fd);
}

void nbdfuzz_run(const uint8_t *head, size_t head_len, const uint8_t *data, size_t len)
{
	static unsigned runs;
	struct pollfd pfd = {.events = POLLIN};

	if (!server)
		start();
	pfd.fd = dial();
	if (give(pfd.fd, head, head_len) && give(pfd.fd, data, len)) {
		shutdown(pfd.fd, SHUT_WR);
		do
			check(wait_for(&pfd), "the connection does not end");
		while (take(pfd.fd, 0));
	}
	close(pfd.fd);
	if (++runs % CHECK_EVERY == 0)
		check_service();
}
