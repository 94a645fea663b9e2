/* SPDX-License-Identifier: Apache-2.0
 *
 * nbdbare ADDR:PORT|unix:PATH SIZE: an NBD server with nothing in it, for the benchmark: how fast could one be?
 *
 * One thread, one region of memory; READ, WRITE, FLUSH and DISC, structured replies, and no checks at all.  Of each
 * connection it receives all that there is with one call, copies it where it belongs, and sends all replies with one
 * call.  A server with one thread that does more than this is slower, unless it waits for larger batches.
 */
#include <endian.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/tools/net.h"
#include "tests/tools/tool.h"

enum {
	ROOM = 2 << 20, /* bytes received and not handled yet: more than any request has */
	REPLIES = 512, /* sent with one call */
	REQUEST_LEN = 28,
	REPLY_LEN = 16, /* a simple one */
	CHUNK_LEN = 28, /* what precedes data in a structured one */
	OPTION_LEN = 16,
	OPTION_MAX = 4096, /* bytes of an option's data */
	EVENTS = 64,
};

enum { OPT_ABORT = 2, OPT_INFO = 6, OPT_GO = 7, OPT_STRUCTURED = 8, REP_ACK = 1, REP_INFO = 3 };
enum { CMD_READ, CMD_WRITE, CMD_DISC };

#define REP_ERR_UNSUP ((uint32_t)1 << 31 | 1)

struct client {
	int fd;
	bool structured;
	size_t have;
	uint8_t room[ROOM];
	uint8_t headers[REPLIES][CHUNK_LEN];
	struct iovec iov[2 * REPLIES];
	int replies, iovs;
};

static uint8_t *memory;
static uint64_t size;

static uint32_t get32(const uint8_t *p)
{
	uint32_t value;

	memcpy(&value, p, sizeof(value));
	return be32toh(value);
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t value;

	memcpy(&value, p, sizeof(value));
	return be64toh(value);
}

static uint8_t *put16(uint8_t *p, uint16_t value)
{
	value = htobe16(value);
	return (uint8_t *)memcpy(p, &value, sizeof(value)) + sizeof(value);
}

static uint8_t *put32(uint8_t *p, uint32_t value)
{
	value = htobe32(value);
	return (uint8_t *)memcpy(p, &value, sizeof(value)) + sizeof(value);
}

static uint8_t *put64(uint8_t *p, uint64_t value)
{
	value = htobe64(value);
	return (uint8_t *)memcpy(p, &value, sizeof(value)) + sizeof(value);
}

static bool get_all(int fd, void *buf, size_t len)
{
	return len == 0 || recv(fd, buf, len, MSG_WAITALL) == (ssize_t)len;
}

static bool put_all(int fd, const void *buf, size_t len)
{
	return send(fd, buf, len, MSG_NOSIGNAL) == (ssize_t)len;
}

/* ---- the handshake ---- */

static bool answer_option(int fd, uint32_t option, uint32_t type, const void *data, uint32_t len)
{
	uint8_t reply[64], *p = put64(reply, 0x3e889045565a9);

	p = put32(p, option);
	p = put32(p, type);
	p = put32(p, len);
	if (len)
		memcpy(p, data, len);
	return put_all(fd, reply, (size_t)(p - reply) + len);
}

/* Until the client has chosen the export, whatever its name. */
static bool shake_hands(int fd, bool *ret_structured)
{
	uint8_t buf[OPTION_MAX], *p = put64(buf, 0x4e42444d41474943);

	p = put64(p, 0x49484156454F5054);
	p = put16(p, 3); /* fixed newstyle, no zeroes */
	*ret_structured = false;
	if (!put_all(fd, buf, (size_t)(p - buf)) || !get_all(fd, buf, 4))
		return false;
	for (;;) {
		uint32_t option, len;

		if (!get_all(fd, buf, OPTION_LEN))
			return false;
		option = get32(buf + 8);
		len = get32(buf + 12);
		if (len > OPTION_MAX || !get_all(fd, buf, len) || option == OPT_ABORT)
			return false;
		if (option != OPT_INFO && option != OPT_GO) {
			bool known = option == OPT_STRUCTURED;

			*ret_structured = *ret_structured || known;
			if (!answer_option(fd, option, known ? REP_ACK : REP_ERR_UNSUP, NULL, 0))
				return false;
			continue;
		}
		p = put64(put16(buf, 0), size);
		p = put16(p, 1 << 0 | 1 << 2 | 1 << 8); /* has flags, FLUSH, several connections */
		if (!answer_option(fd, option, REP_INFO, buf, (uint32_t)(p - buf)) ||
		    !answer_option(fd, option, REP_ACK, NULL, 0))
			return false;
		if (option == OPT_GO)
			return true;
	}
}

/* ---- transmission ---- */

static bool send_replies(struct client *client)
{
	struct iovec *iov = client->iov;

	while (client->iovs) {
		struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)client->iovs};
		ssize_t n = sendmsg(client->fd, &msg, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		for (; client->iovs && (size_t)n >= iov->iov_len; client->iovs--, iov++)
			n -= (ssize_t)iov->iov_len;
		if (client->iovs) {
			iov->iov_base = (uint8_t *)iov->iov_base + n;
			iov->iov_len -= (size_t)n;
		}
	}
	client->replies = 0;
	return true;
}

/* Carries out the request at `in`, all of which is there. */
static bool serve(struct client *client, const uint8_t *in)
{
	uint8_t *header = client->headers[client->replies++], *p;
	uint64_t off = get64(in + 16);
	uint32_t len = get32(in + 24);

	if (in[7] == CMD_READ && client->structured) {
		p = put32(header, 0x668e33ef);
		p = put16(p, 1); /* the only chunk */
		p = put16(p, 1); /* data at an offset */
		p = put64(p, get64(in + 8));
		put64(put32(p, 8 + len), off);
		client->iov[client->iovs++] = (struct iovec){header, CHUNK_LEN};
	} else {
		put64(put32(put32(header, 0x67446698), 0), get64(in + 8));
		client->iov[client->iovs++] = (struct iovec){header, REPLY_LEN};
	}
	if (in[7] == CMD_READ)
		client->iov[client->iovs++] = (struct iovec){memory + off, len};
	else if (in[7] == CMD_WRITE)
		memcpy(memory + off, in + REQUEST_LEN, len);
	return client->replies < REPLIES || send_replies(client);
}

/* Receives once, and answers what is whole; false: the connection is over. */
static bool readable(struct client *client)
{
	ssize_t n =
	    recv(client->fd, client->room + client->have, ROOM - client->have, MSG_DONTWAIT);
	size_t at = 0;

	if (n <= 0)
		return n < 0 && errno == EAGAIN;
	client->have += (size_t)n;
	while (client->have - at >= REQUEST_LEN) {
		const uint8_t *in = client->room + at;
		size_t whole = REQUEST_LEN + (in[7] == CMD_WRITE ? get32(in + 24) : 0);

		if (in[7] == CMD_DISC)
			return false;
		if (client->have - at < whole)
			break;
		if (!serve(client, in))
			return false;
		at += whole;
	}
	client->have -= at;
	memmove(client->room, client->room + at, client->have);
	return send_replies(client);
}

/* ---- connections ---- */

static int listen_at(const char *text)
{
	int fd, on = 1;

	if (strncmp(text, "unix:", 5) == 0) {
		struct sockaddr_un addr = net_unix(text + 5);

		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		return bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, EVENTS) ? -1
											      : fd;
	}
	struct net_address address = net_parse(text);

	fd = socket(address.addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	return bind(fd, (struct sockaddr *)&address.addr, address.len) || listen(fd, EVENTS) ? -1
											     : fd;
}

static void welcome(int listener, int epfd)
{
	struct epoll_event event = {.events = EPOLLIN};
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC), on = 1;
	bool structured;
	struct client *client =
	    fd >= 0 && shake_hands(fd, &structured) ? calloc(1, sizeof(*client)) : NULL;

	if (!client) {
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4); /* as remram does over loopback */
	client->fd = fd;
	client->structured = structured;
	event.data.ptr = client;
	epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event);
}

int main(int argc, char **argv)
{
	struct epoll_event events[EVENTS] = {{.events = EPOLLIN}}; /* the listener's: no client */
	int epfd = epoll_create1(EPOLL_CLOEXEC), listener;

	if (argc != 3 || !tool_parse(argv[2], &size)) {
		fputs("usage: nbdbare ADDR:PORT|unix:PATH SIZE\n", stderr);
		return TOOL_USAGE;
	}
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	listener = listen_at(argv[1]);
	if (memory == MAP_FAILED || listener < 0 ||
	    epoll_ctl(epfd, EPOLL_CTL_ADD, listener, &events[0])) {
		fprintf(stderr, "nbdbare: %s: %s\n", argv[1], strerror(errno));
		return TOOL_SETUP;
	}
	for (;;) {
		int count = epoll_wait(epfd, events, EVENTS, -1);

		for (int i = 0; i < count; i++) {
			struct client *client = events[i].data.ptr;

			if (!client) {
				welcome(listener, epfd);
			} else if (!readable(client)) {
				close(client->fd);
				free(client);
			}
		}
	}
}
