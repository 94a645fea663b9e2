/* SPDX-License-Identifier: Apache-2.0
 *
 * The proxied connections (see tests/tools/proxy/conns.h).
 */
#include "tests/tools/proxy/conns.h"

#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "tests/tools/proxy/flow.h"
#include "tests/tools/proxy/link.h"
#include "tests/tools/proxy/source.h"
#include "tests/tools/tool.h"

enum {
	READ_MAX = 1024 * 1024, /* from one socket in one round, so that others get their turn */
	PACED_READ_MAX = 16 * 1024, /* the same with a bandwidth limit, for a smooth flow */
};

struct end {
	struct source source; /* first: a struct end is found by its source */
	struct conn *conn;
};

enum conn_state { CONN_HELD, CONN_CONNECTING, CONN_OPEN, CONN_DEAD };

/* ends[0] is the accepted side; flow i goes from ends[i] to ends[1 - i]. */
struct conn {
	struct conn *next;
	enum conn_state state;
	struct end ends[2];
	struct flow flows[2];
	uint64_t lag_ns; /* one way, beside the link's delay */
	bool stalled; /* alone; link_conf.stalled is all of them */
	uint64_t forwarded[2];
};

/* Constant after conns_init. */
static struct net_address target;
static uint64_t buffer_bytes;

static struct conn *conns; /* the newest first */

static struct conns_stats counters; /* connections and queued: made when they are asked for */

void conns_init(const struct net_address *target_addr, uint64_t most_bytes)
{
	target = *target_addr;
	buffer_bytes = most_bytes;
}

/* ---- bytes ---- */

static uint64_t conns_queued(void)
{
	uint64_t queued = 0;

	for (struct conn *conn = conns; conn; conn = conn->next) {
		for (int dir = 0; dir < 2; dir++)
			queued += conn->flows[dir].in_pos - conn->flows[dir].out_pos;
	}
	return queued;
}

static void note_peak(void)
{
	uint64_t queued = conns_queued();

	if (queued > counters.peak)
		counters.peak = queued;
}

static bool is_stalled(const struct conn *conn)
{
	return link_conf.stalled || conn->stalled;
}

static bool wants_read(const struct conn *conn, unsigned dir, uint64_t now_ns)
{
	const struct flow *flow = &conn->flows[dir];

	return !flow->eof && !flow->full && !is_stalled(conn) &&
	       flow->in_pos - flow->out_pos < buffer_bytes && !link_full(dir, now_ns);
}

/* When `len` bytes read now in direction dir fall due. */
static uint64_t conn_due_ns(const struct conn *conn, unsigned dir, size_t len, uint64_t now_ns)
{
	return link_due_ns(dir, len, now_ns) + conn->lag_ns;
}

/* Reads what there is, within limits. False: the connection is broken. */
static bool conn_receive(struct conn *conn, unsigned dir)
{
	struct flow *flow = &conn->flows[dir];
	int fd = conn->ends[dir].source.fd;
	size_t total = 0, most = link_conf.bandwidth ? PACED_READ_MAX : READ_MAX;
	uint64_t now_ns = tool_now_ns();

	while (total < most && wants_read(conn, dir, now_ns)) {
		ssize_t got = flow_take(flow, fd, most - total);

		if (got < 0)
			return errno == EAGAIN || errno == EINTR;
		now_ns = tool_now_ns();
		if (got == 0) {
			flow_put_eof(flow, conn_due_ns(conn, dir, 0, now_ns));
			return true;
		}
		flow_put(flow, (size_t)got, conn_due_ns(conn, dir, (size_t)got, now_ns));
		total += (size_t)got;
		note_peak();
	}
	return true;
}

/* Sends what is ripe, and the end of file after it. False: the connection is broken. */
static bool conn_send(struct conn *conn, unsigned dir, uint64_t now_ns)
{
	struct flow *flow = &conn->flows[dir];
	int fd = conn->ends[1 - dir].source.fd;

	flow->blocked = false;
	if (is_stalled(conn) || link_conf.blackhole)
		return true;
	flow_ripen(flow, now_ns);
	while (flow_has_ripe(flow) && link_conf.cut_left > 0) {
		ssize_t put = flow_give(flow, fd, link_conf.cut_left);

		if (put < 0) {
			flow->blocked = errno == EAGAIN || errno == EINTR;
			return flow->blocked;
		}
		counters.forwarded[dir] += (uint64_t)put;
		conn->forwarded[dir] += (uint64_t)put;
		if (link_conf.cut_left != UINT64_MAX)
			link_conf.cut_left -= (uint64_t)put;
	}
	if (flow_only_eof_left(flow) && flow->last_due_ns <= now_ns) {
		shutdown(fd, SHUT_WR);
		flow->ended = true;
	}
	return true;
}

/* ---- connections ---- */

/* Closes both sockets: with a reset, or in order. The struct stays until conns_sweep. */
static void conn_close(struct conn *conn, bool reset)
{
	struct linger hard = {.l_onoff = 1, .l_linger = 0};

	if (conn->state == CONN_DEAD)
		return;
	for (int i = 0; i < 2; i++) {
		if (reset && conn->ends[i].source.fd >= 0)
			setsockopt(
			    conn->ends[i].source.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
		source_close(&conn->ends[i].source);
	}
	conn->state = CONN_DEAD;
}

void conn_cut(struct conn *conn)
{
	counters.cut++;
	conn_close(conn, true);
}

void conns_cut(void)
{
	for (struct conn *conn = conns; conn; conn = conn->next) {
		if (conn->state != CONN_DEAD)
			conn_cut(conn);
	}
	link_conf.cut_left = UINT64_MAX;
}

/* The path is what this program makes it: the system's congestion control, which may pace, has no say. */
static void tune(int fd)
{
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

static void conn_connect(struct conn *conn)
{
	int fd = socket(target.addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	conn->ends[1].source.fd = fd;
	if (fd >= 0)
		tune(fd);
	if (fd < 0 || (connect(fd, (struct sockaddr *)&target.addr, target.len) < 0 &&
			  errno != EINPROGRESS)) {
		conn_close(conn, true);
		return;
	}
	conn->state = CONN_CONNECTING;
	source_watch(&conn->ends[1].source, EPOLLOUT);
}

static void end_ready(struct source *source, uint32_t events)
{
	struct end *end = (struct end *)source;
	struct conn *conn = end->conn;
	unsigned dir = end == &conn->ends[1];
	int error = 0;
	socklen_t len = sizeof(error);

	if (conn->state == CONN_DEAD)
		return;
	if (conn->state == CONN_CONNECTING && dir == 1) {
		if (getsockopt(end->source.fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error ||
		    !flow_add_pipe(&conn->flows[0]) || !flow_add_pipe(&conn->flows[1]))
			conn_close(conn, true);
		else
			conn->state = CONN_OPEN;
		return;
	}
	if ((events & EPOLLERR) || ((events & (EPOLLIN | EPOLLHUP)) && !conn_receive(conn, dir)))
		conn_close(conn, true);
}

void conns_add(int fd)
{
	struct conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		errx(TOOL_SETUP, "out of memory");
	tune(fd);
	for (int i = 0; i < 2; i++) {
		conn->ends[i].source = (struct source){.ready = end_ready, .fd = -1};
		conn->ends[i].conn = conn;
	}
	conn->ends[0].source.fd = fd;
	conn->state = CONN_HELD;
	conn->next = conns;
	conns = conn;
	counters.accepted++;
}

/* Moves whatever can move and watches for what can't yet. */
static void conn_pump(struct conn *conn, uint64_t now_ns)
{
	uint32_t want[2] = {0, 0};

	if (conn->state == CONN_HELD && !link_conf.blackhole)
		conn_connect(conn);
	if (conn->state != CONN_OPEN)
		return;
	for (unsigned dir = 0; dir < 2; dir++) {
		if (!conn_send(conn, dir, now_ns)) {
			conn_close(conn, true);
			return;
		}
	}
	if (conn->flows[0].ended && conn->flows[1].ended) {
		conn_close(conn, false);
		return;
	}
	for (unsigned dir = 0; dir < 2; dir++) {
		if (wants_read(conn, dir, now_ns))
			want[dir] |= EPOLLIN;
		if (conn->flows[dir].blocked)
			want[1 - dir] |= EPOLLOUT;
	}
	source_watch(&conn->ends[0].source, want[0]);
	source_watch(&conn->ends[1].source, want[1]);
}

static void conns_sweep(void)
{
	struct conn **link = &conns;

	while (*link) {
		struct conn *conn = *link;

		if (conn->state != CONN_DEAD) {
			link = &conn->next;
			continue;
		}
		*link = conn->next;
		flow_fini(&conn->flows[0]);
		flow_fini(&conn->flows[1]);
		free(conn);
	}
}

void conns_pump(uint64_t now_ns)
{
	for (struct conn *conn = conns; conn; conn = conn->next)
		conn_pump(conn, now_ns);
	if (link_conf.cut_left == 0)
		conns_cut();
	conns_sweep();
}

uint64_t conns_next_due_ns(uint64_t now_ns)
{
	uint64_t next = UINT64_MAX;

	if (link_conf.stalled || link_conf.blackhole)
		return next;
	for (struct conn *conn = conns; conn; conn = conn->next) {
		for (unsigned dir = 0; dir < 2 && !conn->stalled; dir++) {
			uint64_t due = flow_due_ns(&conn->flows[dir]);
			uint64_t room = link_room_ns(dir, now_ns);

			if (due < next)
				next = due;
			if (room < next)
				next = room;
		}
	}
	return next;
}

/* ---- what commands ask ---- */

unsigned conns_count(void)
{
	unsigned count = 0;

	for (struct conn *conn = conns; conn; conn = conn->next)
		count += conn->state != CONN_DEAD;
	return count;
}

struct conn *conns_nth(uint64_t nth)
{
	uint64_t left = conns_count();

	for (struct conn *conn = conns; conn; conn = conn->next) {
		if (conn->state != CONN_DEAD && left-- == nth)
			return conn;
	}
	return NULL;
}

void conns_resume(void)
{
	link_conf.stalled = link_conf.blackhole = false;
	for (struct conn *conn = conns; conn; conn = conn->next)
		conn->stalled = false;
}

void conns_stats(struct conns_stats *ret_stats)
{
	counters.connections = conns_count();
	counters.queued = conns_queued();
	*ret_stats = counters;
	counters.peak = counters.queued;
}

void conn_set_lag(struct conn *conn, uint64_t lag_ns)
{
	conn->lag_ns = lag_ns;
}

void conn_stall(struct conn *conn)
{
	conn->stalled = true;
}

void conn_stats(const struct conn *conn, struct conn_stats *ret_stats)
{
	*ret_stats = (struct conn_stats){
	    .forwarded = {conn->forwarded[0], conn->forwarded[1]},
	    .lag_ns = conn->lag_ns,
	    .stalled = conn->stalled,
	};
}
