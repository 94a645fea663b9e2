/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection that carries frames: headers of a length that the owner knows beforehand, each followed
 * by a payload whose length its header tells.
 *
 * Non-blocking, on one loop.  Payloads are received straight into the buffer that the owner names
 * when it has seen the header; what is sent is gathered from the owner's memory, everything that a
 * round of the loop queued in one call.  The bytes go through struct conn_io: plain here, TLS can
 * take its place without the owner noticing.
 */
#ifndef REMRAM_CORE_CONN_H
#define REMRAM_CORE_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "core/err.h"
#include "core/loop.h"

struct conn;

struct conn_handlers {
	size_t header_len; /* bytes, at most CONN_HEADER_MAX; see conn_set_header_len */

	/* A whole header has come.  Sets *ret_len to its payload's length and, if that is not 0,
	 * *ret_buf to where the payload goes (owned by the caller of conn_create, untouched by it until
	 * frame or closed).  0; or -EAGAIN: no buffer now, the same header comes again after
	 * conn_resume; or another error: the frame is malformed, the connection is closed with it. */
	int (*header)(struct conn *conn, const uint8_t *header, void **ret_buf, uint32_t *ret_len);

	/* Header and payload are there (conn_more: or what was asked for last).  0, or an error that
	 * closes the connection. */
	int (*frame)(struct conn *conn);

	/* The connection has failed or the other side has ended it (err -ECONNRESET, -EPIPE, …, or what
	 * a handler returned; 0: orderly end at a frame boundary).  Called once, from the loop, not
	 * after conn_close.  The owner calls conn_close then or later. */
	void (*closed)(struct conn *conn, int err);
};

/* Something to send, embedded in its owner: untouched by it from conn_send until sent. */
struct conn_out {
	struct conn_out *next;
	struct iovec iov[3];
	unsigned iov_count;
	/* Everything was handed to the kernel (err 0), or never will be.  May be NULL. */
	void (*sent)(struct conn_out *out, int err);
};

/* How bytes go in and out; the seam for TLS.  As readv(2) and writev(2) on a non-blocking socket, with
 * -errno as the result of a failure. */
struct conn_io {
	ssize_t (*readv)(struct conn *conn, const struct iovec *iov, int count);
	ssize_t (*writev)(struct conn *conn, const struct iovec *iov, int count);
};

enum { CONN_HEADER_MAX = 64, CONN_PIPE_MIN = 128 * 1024 };

/* Takes fd (a connected or connecting non-blocking socket), also on failure. */
int conn_create(struct loop *loop, int fd, const struct conn_handlers *handlers, void *owner,
    struct conn **ret_conn, struct err *err);

/* Ends the connection: everything still queued is reported sent with -ESHUTDOWN, no handler is called
 * any more, the descriptor is closed.  Frees conn when the call stack has left it.  NULL: nothing. */
void conn_close(struct conn *conn);

void *conn_owner(const struct conn *conn);
int conn_fd(const struct conn *conn);

/* Queues out; it is sent at the end of the loop's round, in order. */
void conn_send(struct conn *conn, struct conn_out *out);

/* Bytes queued and not yet handed to the kernel. */
size_t conn_queued(const struct conn *conn);
/* Bytes ever sent; and those that have ever come, with what still waits in the socket. */
uint64_t conn_bytes_out(const struct conn *conn);
uint64_t conn_bytes_in(const struct conn *conn);

/* For a header handler: the payload that it announces may be left in a pipe of the connection's instead
 * of being copied to *ret_buf, which must be there all the same.  Worth while from CONN_PIPE_MIN bytes on;
 * without effect where the bytes do not come from a plain socket. */
void conn_use_pipe(struct conn *conn);

/* For a frame handler: the read end of the pipe that holds the payload, its whole content; -1: the
 * payload is in the buffer.  What the handler leaves in the pipe is dropped after it. */
int conn_payload_pipe(const struct conn *conn);

/* After header returned -EAGAIN: asks again, and goes on reading. */
void conn_resume(struct conn *conn);

/* For protocols whose headers change: the next header has len bytes (1 … CONN_HEADER_MAX).  From frame, or
 * before the first header has come. */
void conn_set_header_len(struct conn *conn, size_t len);

/* For payloads that do not go to one place: the payload goes on, with len bytes (> 0) for buf; frame is
 * called again when they are there.  From frame only. */
void conn_more(struct conn *conn, void *buf, uint32_t len);

/* Sets TCP options of a connected socket for many small frames (no delay, keep-alive; over loopback no
 * pacing).  Harmless on other sockets. */
void conn_tune(int fd);

/* For a socket that is not connected yet and will get nothing but what was asked for, which is bounded elsewhere:
 * there is room for all of it (CONN_ROOM bytes), so that the window never closes.  The system's tuning begins small
 * and grows with what is read in a round trip; over a short one it stays small, and each reading then sends for the
 * other side, in our time (TCP's ACK clock).  Without the privilege (CAP_NET_ADMIN) that tuning stays. */
enum { CONN_ROOM = 32 << 20 };
void conn_tune_asker(int fd);

/* Is that an IPv4 or IPv6 address of this machine's loopback? */
bool conn_loopback(const struct sockaddr *addr);

#endif
