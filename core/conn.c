/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection that carries frames.
 *
 * Receiving: bytes come into `stage`; headers are parsed there; a payload's first bytes are copied out
 * of it and the rest is read straight to where the owner wants it, with what follows going to the
 * stage again in the same call.
 *   states: HEADER (payload_len 0) → header() → PAYLOAD (payload_got < payload_len) → frame() → HEADER
 *           conn_more() in frame(): → PAYLOAD again
 *           header() == -EAGAIN → paused (EPOLLIN off) → conn_resume → HEADER
 * Sending: a list of struct conn_out; at the end of a round as many as fit in one sendmsg go out;
 * EPOLLOUT is watched only while the socket is full.
 *
 * Pipe: a long payload that the owner need not see (conn_use_pipe) moves from the socket into a pipe
 * by reference, and from there to wherever the owner splices it: two copies less.  That works only if its
 * first bytes are not in the stage; so after such a payload only a header is read (`narrow`), until one
 * comes that is not of that kind.  A pipe that turns out too small (it holds a number of fragments, and a
 * network card may deliver small ones) is emptied into the buffer and not used again.
 *
 * Invariants:
 *   1. stage[in_off … in_off+in_len) is what was received and not yet consumed; in state PAYLOAD it is
 *      empty after each parse.
 *   2. `busy` > 0 while a handler may be on the call stack: conn_close then only marks the connection,
 *      and the last one out frees it.
 */
#include "core/conn.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	STAGE_SIZE = 128 * 1024,
	IOV_MAX_SEND = 192,
	PIPE_SIZE = 512 * 1024, /* bytes: room for 128 fragments, whatever their sizes */
	READ_BUDGET = 4 << 20, /* bytes per round: then the others on the loop get their turn */
	TOGETHER_LEAST = 64 * 1024, /* of a payload: worth a system call to be told of together */
	TOGETHER_MOST = 128 * 1024,
};

struct conn {
	const struct conn_handlers *handlers;
	const struct conn_io *io;
	void *owner;
	struct loop *loop;
	struct loop_fd lfd;
	unsigned busy;
	bool closing; /* conn_close was called while busy */
	bool failed; /* closed() was called */

	/* Receiving. */
	size_t header_len;
	uint8_t *stage;
	size_t in_off, in_len;
	uint8_t *payload;
	uint32_t payload_len, payload_got;
	bool paused;
	int together; /* the socket counts as readable when so many bytes are there (SO_RCVLOWAT) */
	uint64_t bytes_in;
	int pipe[2]; /* -1 until it is wanted for the first time */
	bool use_pipe; /* this payload goes through the pipe: payload_got bytes are there */
	bool pipe_full; /* a payload did not fit: no more of them */
	bool narrow; /* the latest payload did: the next one may, too, so only its header is read */

	/* Sending. */
	struct conn_out *out_head, **out_tail;
	size_t out_skip; /* bytes of out_head that are sent already */
	size_t queued;
	uint64_t bytes_out;
	struct loop_task flush;
	struct loop_task resume;
};

static ssize_t plain_readv(struct conn *conn, const struct iovec *iov, int count)
{
	ssize_t n = readv(conn->lfd.fd, iov, count);

	return n < 0 ? -errno : n;
}

static ssize_t plain_writev(struct conn *conn, const struct iovec *iov, int count)
{
	struct msghdr msg = {
	    .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
	ssize_t n = sendmsg(conn->lfd.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

	return n < 0 ? -errno : n;
}

static const struct conn_io plain_io = {plain_readv, plain_writev};

static void watch(struct conn *conn, uint32_t events)
{
	if (conn->lfd.loop)
		loop_fd_set(&conn->lfd, events);
}

static ssize_t receive(struct conn *conn, bool *ret_drained);

static void drop_queue(struct conn *conn, int err)
{
	struct conn_out *out = conn->out_head;

	conn->out_head = NULL;
	conn->out_tail = &conn->out_head;
	conn->queued = 0;
	conn->out_skip = 0;
	while (out) {
		struct conn_out *next = out->next;

		if (out->sent)
			out->sent(out, err);
		out = next;
	}
}

/* ---- the pipe ---- */

static void pipe_close(struct conn *conn)
{
	if (conn->pipe[0] < 0)
		return;
	close(conn->pipe[0]);
	close(conn->pipe[1]);
	conn->pipe[0] = conn->pipe[1] = -1;
}

void conn_use_pipe(struct conn *conn)
{
	if (conn->io != &plain_io || conn->pipe_full)
		return;
	if (conn->pipe[0] < 0) {
		if (pipe2(conn->pipe, O_CLOEXEC | O_NONBLOCK))
			return;
		(void)fcntl(conn->pipe[0], F_SETPIPE_SZ, PIPE_SIZE);
	}
	conn->use_pipe = true;
}

int conn_payload_pipe(const struct conn *conn)
{
	return conn->use_pipe ? conn->pipe[0] : -1;
}

/* What is in the pipe goes to the buffer, and so does the rest. */
static void unpipe(struct conn *conn)
{
	ssize_t n = read(conn->pipe[0], conn->payload, conn->payload_got);

	assert(n == (ssize_t)conn->payload_got);
	conn->use_pipe = false;
	conn->pipe_full = true;
}

/* As receive, into the pipe. */
static ssize_t receive_piped(struct conn *conn, bool *ret_drained)
{
	size_t want = conn->payload_len - conn->payload_got;
	ssize_t n = splice(
	    conn->lfd.fd, NULL, conn->pipe[1], NULL, want, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
	int there = 0;

	if (n < 0) {
		n = -errno;
		if (n != -EAGAIN || ioctl(conn->lfd.fd, FIONREAD, &there) || there == 0)
			return n;
		unpipe(conn);
		return receive(conn, ret_drained);
	}
	conn->payload_got += (uint32_t)n;
	conn->bytes_in += (uint64_t)n;
	*ret_drained = (size_t)n < want;
	return n;
}

/* The frame is handled. */
static void pipe_drop(struct conn *conn)
{
	uint8_t left[4096];

	while (read(conn->pipe[0], left, sizeof(left)) > 0)
		;
	conn->use_pipe = false;
}

/* ---- end ---- */

static void conn_free(struct conn *conn)
{
	/* A queued task still points at the connection: the task frees it (leave). */
	if (conn->flush.queued || conn->resume.queued)
		return;
	pipe_close(conn);
	free(conn->stage);
	free(conn);
}

/* The connection can't go on: tells the owner, once. */
static void fail(struct conn *conn, int err)
{
	if (conn->failed || conn->closing)
		return;
	conn->failed = true;
	loop_fd_del(&conn->lfd);
	conn->handlers->closed(conn, err);
	if (!conn->closing)
		drop_queue(conn, err ? err : -EPIPE);
}

static void leave(struct conn *conn)
{
	if (--conn->busy == 0 && conn->closing)
		conn_free(conn);
}

/* Handles what is in the stage. 0, or an error for fail(). */
static int parse(struct conn *conn)
{
	const struct conn_handlers *h = conn->handlers;
	int rc;

	while (!conn->closing && !conn->paused) {
		uint8_t *in = conn->stage + conn->in_off;

		if (conn->payload_len) {
			size_t n = conn->payload_len - conn->payload_got;

			n = n < conn->in_len ? n : conn->in_len;
			memcpy(conn->payload + conn->payload_got, in, n);
			conn->payload_got += (uint32_t)n;
			conn->in_off += n;
			conn->in_len -= n;
			if (conn->payload_got < conn->payload_len)
				break;
			conn->payload_len = 0;
			loop_served(conn->loop);
			rc = h->frame(conn);
			if (conn->use_pipe)
				pipe_drop(conn);
			if (rc)
				return rc;
			continue;
		}
		if (conn->in_len < conn->header_len)
			break;
		conn->payload_got = 0;
		rc = h->header(conn, in, (void **)&conn->payload, &conn->payload_len);
		if (rc == -EAGAIN) {
			conn->payload_len = 0;
			conn->paused = true;
			watch(conn, conn->lfd.events & ~(uint32_t)EPOLLIN);
			break;
		}
		if (rc)
			return rc;
		conn->in_off += conn->header_len;
		conn->in_len -= conn->header_len;
		conn->narrow = conn->use_pipe;
		conn->use_pipe = conn->use_pipe && conn->in_len == 0;
		if (conn->payload_len == 0 && !conn->closing) {
			loop_served(conn->loop);
			rc = h->frame(conn);
			if (rc)
				return rc;
		}
	}
	if (conn->in_len == 0) {
		conn->in_off = 0;
	} else if (conn->in_off && !conn->paused) {
		memmove(conn->stage, conn->stage + conn->in_off, conn->in_len);
		conn->in_off = 0;
	}
	return 0;
}

/* One receive: the rest of a payload, then the stage. >0 bytes got, 0 end, or -errno. */
static ssize_t receive(struct conn *conn, bool *ret_drained)
{
	size_t want = conn->payload_len ? conn->payload_len - conn->payload_got : 0, direct;
	struct iovec iov[2];
	int count = 0;
	ssize_t n;

	if (want && conn->use_pipe)
		return receive_piped(conn, ret_drained);
	if (want)
		iov[count++] = (struct iovec){conn->payload + conn->payload_got, want};
	iov[count++] = (struct iovec){conn->stage + conn->in_len,
	    (conn->narrow ? conn->header_len : STAGE_SIZE) - conn->in_len};
	n = conn->io->readv(conn, iov, count);
	if (n <= 0)
		return n;
	direct = (size_t)n < want ? (size_t)n : want;
	conn->payload_got += (uint32_t)direct;
	conn->in_len += (size_t)n - direct;
	conn->bytes_in += (uint64_t)n;
	*ret_drained = (size_t)n < want + iov[count - 1].iov_len;
	return n;
}

/* A long payload comes in pieces: with every one of them it would wake us, take a processor from whoever sends it,
 * and be read by itself.  TCP tells of fewer bytes, too, if its buffer has no room for more. */
static void read_together(struct conn *conn)
{
	size_t left = conn->payload_len ? conn->payload_len - conn->payload_got : 0;
	int together = left < TOGETHER_LEAST ? 1 : left < TOGETHER_MOST ? (int)left : TOGETHER_MOST;

	if (together == conn->together || conn->io != &plain_io)
		return;
	conn->together = together;
	setsockopt(conn->lfd.fd, SOL_SOCKET, SO_RCVLOWAT, &together, sizeof(together));
}

static void read_ready(struct conn *conn)
{
	size_t budget = READ_BUDGET;
	bool drained = false;

	while (!conn->paused && !conn->closing && !conn->failed && !drained && budget > 0) {
		ssize_t n = receive(conn, &drained);
		int rc;

		if (n == -EAGAIN || n == -EINTR)
			break;
		if (n <= 0) {
			bool boundary = !conn->payload_len && conn->in_len == 0;

			fail(conn, n < 0 ? (int)n : boundary ? 0 : -ECONNRESET);
			return;
		}
		budget -= (size_t)n < budget ? (size_t)n : budget;
		rc = parse(conn);
		if (rc) {
			fail(conn, rc);
			return;
		}
	}
	if (!conn->closing && !conn->failed)
		read_together(conn);
}

/* Gathers what is queued. */
static int gather(const struct conn *conn, struct iovec iov[IOV_MAX_SEND])
{
	size_t skip = conn->out_skip;
	int n = 0;

	for (struct conn_out *out = conn->out_head; out && n + 3 <= IOV_MAX_SEND; out = out->next) {
		for (unsigned i = 0; i < out->iov_count; i++) {
			size_t len = out->iov[i].iov_len;

			if (skip >= len) {
				skip -= len;
				continue;
			}
			iov[n].iov_base = (char *)out->iov[i].iov_base + skip;
			iov[n++].iov_len = len - skip;
			skip = 0;
		}
	}
	return n;
}

static size_t out_len(const struct conn_out *out)
{
	size_t len = 0;

	for (unsigned i = 0; i < out->iov_count; i++)
		len += out->iov[i].iov_len;
	return len;
}

/* n more bytes are out: reports the entries that are complete. */
static void advance(struct conn *conn, size_t n)
{
	conn->queued -= n;
	conn->bytes_out += n;
	n += conn->out_skip;
	while (conn->out_head && n >= out_len(conn->out_head)) {
		struct conn_out *out = conn->out_head;

		n -= out_len(out);
		conn->out_head = out->next;
		if (!conn->out_head)
			conn->out_tail = &conn->out_head;
		if (out->sent)
			out->sent(out, 0);
	}
	conn->out_skip = n;
}

static void flush(struct conn *conn)
{
	while (conn->out_head && !conn->closing && !conn->failed) {
		struct iovec iov[IOV_MAX_SEND];
		ssize_t n = conn->io->writev(conn, iov, gather(conn, iov));

		if (n == -EAGAIN || n == -ENOTCONN) {
			watch(conn, conn->lfd.events | EPOLLOUT);
			return;
		}
		if (n == -EINTR)
			continue;
		if (n < 0) {
			fail(conn, (int)n);
			return;
		}
		advance(conn, (size_t)n);
	}
	if (!conn->closing && !conn->failed)
		watch(conn, conn->lfd.events & ~(uint32_t)EPOLLOUT);
}

static void flush_task(struct loop_task *task)
{
	struct conn *conn = (struct conn *)((char *)task - offsetof(struct conn, flush));

	conn->busy++;
	flush(conn);
	leave(conn);
}

static void resume_task(struct loop_task *task)
{
	struct conn *conn = (struct conn *)((char *)task - offsetof(struct conn, resume));

	conn->busy++;
	if (conn->paused && !conn->closing && !conn->failed) {
		int rc;

		conn->paused = false;
		watch(conn, conn->lfd.events | EPOLLIN);
		rc = parse(conn);
		if (rc)
			fail(conn, rc);
	}
	leave(conn);
}

static void ready(struct loop_fd *lfd, uint32_t events)
{
	struct conn *conn = (struct conn *)((char *)lfd - offsetof(struct conn, lfd));

	conn->busy++;
	if (events & EPOLLOUT)
		flush(conn);
	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
		if (conn->paused && events & (EPOLLERR | EPOLLHUP))
			fail(conn, -ECONNRESET);
		else
			read_ready(conn);
	}
	leave(conn);
}

int conn_create(struct loop *loop, int fd, const struct conn_handlers *handlers, void *owner,
    struct conn **ret_conn, struct err *err)
{
	struct conn *conn = calloc(1, sizeof(*conn));
	int rc;

	if (conn)
		conn->stage = malloc(STAGE_SIZE);
	if (!conn || !conn->stage) {
		rc = err_set(err, -ENOMEM, "out of memory for a connection");
		goto fail;
	}
	conn->handlers = handlers;
	conn->header_len = handlers->header_len;
	conn->io = &plain_io;
	conn->together = 1;
	conn->owner = owner;
	conn->pipe[0] = conn->pipe[1] = -1;
	conn->loop = loop;
	conn->out_tail = &conn->out_head;
	conn->flush.run = flush_task;
	conn->resume.run = resume_task;
	conn->lfd.fd = fd;
	conn->lfd.ready = ready;
	rc = loop_fd_add(loop, &conn->lfd, EPOLLIN);
	if (rc) {
		err_sys(err, rc, "cannot watch a connection");
		goto fail;
	}
	*ret_conn = conn;
	return 0;
fail:
	if (conn)
		free(conn->stage);
	free(conn);
	close(fd);
	return rc;
}

void conn_close(struct conn *conn)
{
	if (!conn || conn->closing)
		return;
	conn->closing = true;
	loop_fd_del(&conn->lfd);
	conn->busy++;
	drop_queue(conn, -ESHUTDOWN);
	close(conn->lfd.fd);
	leave(conn);
}

void *conn_owner(const struct conn *conn)
{
	return conn->owner;
}

int conn_fd(const struct conn *conn)
{
	return conn->lfd.fd;
}

void conn_send(struct conn *conn, struct conn_out *out)
{
	out->next = NULL;
	*conn->out_tail = out;
	conn->out_tail = &out->next;
	conn->queued += out_len(out);
	loop_defer(conn->loop, &conn->flush);
}

size_t conn_queued(const struct conn *conn)
{
	return conn->queued;
}

uint64_t conn_bytes_out(const struct conn *conn)
{
	return conn->bytes_out;
}

uint64_t conn_bytes_in(const struct conn *conn)
{
	int waiting = 0;

	ioctl(conn->lfd.fd, SIOCINQ, &waiting);
	return conn->bytes_in + (uint64_t)waiting;
}

void conn_resume(struct conn *conn)
{
	if (conn->paused)
		loop_defer(conn->loop, &conn->resume);
}

void conn_set_header_len(struct conn *conn, size_t len)
{
	conn->header_len = len;
}

void conn_more(struct conn *conn, void *buf, uint32_t len)
{
	conn->payload = buf;
	conn->payload_len = len;
	conn->payload_got = 0;
}

bool conn_loopback(const struct sockaddr *addr)
{
	const struct sockaddr_in *in4 = (const struct sockaddr_in *)addr;
	const struct in6_addr *in6 = &((const struct sockaddr_in6 *)addr)->sin6_addr;

	if (addr->sa_family == AF_INET)
		return ntohl(in4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	return addr->sa_family == AF_INET6 &&
	       (IN6_IS_ADDR_LOOPBACK(in6) ||
		   (IN6_IS_ADDR_V4MAPPED(in6) && in6->s6_addr[12] == IN_LOOPBACKNET));
}

/* Over loopback there is no path to probe or to pace for, and the system's default may do both. */
static void tune_loopback(int fd)
{
	struct sockaddr_storage addr = {0};
	socklen_t len = sizeof(addr);

	if (getpeername(fd, (struct sockaddr *)&addr, &len) == 0 &&
	    conn_loopback((struct sockaddr *)&addr))
		setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

void conn_tune_asker(int fd)
{
	int room = CONN_ROOM / 2; /* the kernel doubles it */

	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
}

void conn_tune(int fd)
{
	int on = 1, idle_s = 10, interval_s = 5, count = 6;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	tune_loopback(fd);
}
