/* SPDX-License-Identifier: Apache-2.0
 *
 * The socket on which the proxy accepts (see tests/tools/proxy/listener.h).
 */
#include "tests/tools/proxy/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/tools/proxy/conns.h"
#include "tests/tools/proxy/source.h"

struct listener_conf listener_conf;

static struct net_address address;
static struct source listener = {.fd = -1};

static bool is_full(void)
{
	return listener_conf.most && conns_count() >= listener_conf.most;
}

static void listener_ready(struct source *source, uint32_t events)
{
	while (!is_full()) {
		int fd = accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0)
			return;
		conns_add(fd);
	}
}

static int open_socket(void)
{
	int fd = socket(address.addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&address.addr, address.len) < 0 || listen(fd, 128) < 0) {
		int error = errno;

		close(fd);
		return -error;
	}
	/* Port 0 becomes the port that the kernel chose, and stays that over refuse and accept. */
	address.len = sizeof(address.addr);
	getsockname(fd, (struct sockaddr *)&address.addr, &address.len);
	listener = (struct source){.ready = listener_ready, .fd = fd};
	source_watch(&listener, EPOLLIN);
	return 0;
}

int listener_open(const struct net_address *addr)
{
	address = *addr;
	return open_socket();
}

unsigned listener_port(void)
{
	const struct sockaddr *addr = (struct sockaddr *)&address.addr;

	if (addr->sa_family == AF_INET6)
		return ntohs(((const struct sockaddr_in6 *)addr)->sin6_port);
	return ntohs(((const struct sockaddr_in *)addr)->sin_port);
}

int listener_adapt(void)
{
	if (listener_conf.refused || is_full())
		source_close(&listener);
	else if (listener.fd < 0)
		return open_socket();
	return 0;
}

bool listener_is_open(void)
{
	return listener.fd >= 0;
}
