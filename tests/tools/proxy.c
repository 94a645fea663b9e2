/* SPDX-License-Identifier: Apache-2.0
 *
 * proxy: a TCP proxy that plays a long, narrow or broken network, under the control of a test.
 *
 * It accepts on one address and connects each accepted connection to another.  What it reads from one
 * side it sends to the other after a delay, in order, with as many bytes in flight as --buffer allows;
 * one epoll loop does it all.  Commands, a line each, answered by one line that begins with "ok" or
 * "error:", through --control (a Unix socket; `ask SOCKET COMMAND…` is a client) or --stdin:
 *
 *   delay MS             one-way delay of data from now on, a decimal fraction allowed
 *   delay-one N MS       so much more for the N-th oldest connection: it lags behind the others
 *   bandwidth BYTES      per second, each direction, all connections together; 0: unlimited
 *   stall                stop reading and forwarding: both sides meet TCP's back-pressure
 *   blackhole            go on reading up to --buffer bytes, but forward nothing; a new connection is
 *                        accepted and goes nowhere
 *   stall-one N          the same for the N-th oldest connection alone
 *   resume               end stalls and blackhole; everything held back is delivered
 *   cut                  reset (RST) every connection; what was in flight is lost
 *   cut-one N            reset the N-th oldest connection
 *   cut-after BYTES      forward that many more bytes, both directions together, then cut (once)
 *   refuse, accept       close the listening socket (connects get ECONNREFUSED); open it again
 *   most N               listen only while there are fewer than N connections; 0: without a limit
 *   stats                counters as key=value; peak_bytes is the most queued since stats was last asked
 *   stats-one N          those of the N-th oldest connection
 *   quit
 *
 * States of a connection:
 *   HELD        accepted in a black hole, not connected onwards   → CONNECTING on resume
 *   CONNECTING  the onward connect is under way                   → OPEN, or aborted
 *   OPEN        bytes move; each direction ends by itself (end of file is delayed like data)
 *   dead        both sockets closed; freed at the end of the round, since events may still name it
 *
 * Invariants: the bytes under way and when they are due are in flow.h.  Only conn_send moves bytes out,
 * and it stops exactly at cut_left.  A byte keeps the due time it was read with, even if the delay is
 * lowered since, so order holds.
 *
 * Fails: cannot listen: exit 3.  An onward connect that fails resets the accepted connection.  The delay
 * applies to data, not to the TCP handshake.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/tools/flow.h"
#include "tests/tools/net.h"
#include "tests/tools/tool.h"

enum {
	READ_MAX = 1024 * 1024, /* from one socket in one round, so that others get their turn */
	PACED_READ_MAX = 16 * 1024, /* the same with a bandwidth limit, for a smooth flow */
	PACED_QUEUE_NS = 10 * 1000 * 1000, /* how far ahead a limited link's queue may reach */
	LINE_MAX_BYTES = 512,
};

enum source_kind {
	SOURCE_LISTEN,
	SOURCE_TIMER,
	SOURCE_SIGNAL,
	SOURCE_CTL_LISTEN,
	SOURCE_CTL,
	SOURCE_END
};

/* Something that epoll watches. */
struct source {
	enum source_kind kind;
	int fd; /* -1: none */
	uint32_t watched; /* the events registered; 0 and !added: not registered */
	bool added;
};

struct end {
	struct source source;
	struct conn *conn;
};

enum conn_state { CONN_HELD, CONN_CONNECTING, CONN_OPEN, CONN_DEAD };

/* ends[0] is the accepted side; flow i goes from ends[i] to ends[1 - i]. */
struct conn {
	struct conn *next;
	enum conn_state state;
	struct end ends[2];
	struct flow flows[2];
	uint64_t lag_ns; /* one way, beside the delay of all */
	bool stalled; /* alone; px.stalled is all of them */
	uint64_t forwarded[2];
};

struct ctl {
	struct source source; /* first: a struct ctl is found by its source */
	struct ctl *next;
	int out_fd;
	bool is_stdin;
	size_t used;
	char line[LINE_MAX_BYTES];
};

static struct {
	/* Constant after start. */
	int epoll_fd;
	struct net_address listen_addr, target_addr;
	uint64_t buffer_bytes;
	struct source timer, signals, ctl_listen;
	const char *ctl_path;
	/* Settings. */
	uint64_t delay_ns;
	uint64_t bandwidth; /* bytes per second; 0: unlimited */
	bool stalled, blackhole;
	uint64_t cut_left; /* UINT64_MAX: no cut is planned */
	uint64_t most; /* connections; 0: no limit */
	bool refused; /* by command */
	/* State. */
	struct source listen;
	struct conn *conns;
	struct ctl *ctls;
	uint64_t link_free_ns[2]; /* when each direction of a limited link has sent what it has */
	uint64_t timer_ns; /* what the timer is set to; 0: off */
	bool quit;
	/* Counters. */
	uint64_t accepted, cut, forwarded[2];
	uint64_t peak; /* the most bytes queued at once since stats were asked for */
} px;

static void fail(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));

static void fail(int code, const char *fmt, ...)
{
	va_list ap;

	fputs("proxy: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(code);
}

/* ---- sources ---- */

/* Registers exactly `events`; with 0 the descriptor leaves epoll, because EPOLLHUP can't be masked. */
static void source_watch(struct source *source, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = source};
	int op = !source->added ? EPOLL_CTL_ADD : events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;

	if (source->fd < 0 || (source->added ? source->watched == events : events == 0))
		return;
	if (epoll_ctl(px.epoll_fd, op, source->fd, &event) < 0)
		fail(TOOL_SETUP, "epoll_ctl: %s", strerror(errno));
	source->added = events != 0;
	source->watched = events;
}

static void source_close(struct source *source)
{
	if (source->fd >= 0)
		close(source->fd);
	source->fd = -1;
	source->added = false;
}

/* ---- the link ---- */

/* When `len` bytes read now in direction dir arrive at the far end of the link. */
static uint64_t link_due_ns(const struct conn *conn, unsigned dir, size_t len, uint64_t now_ns)
{
	uint64_t sent_ns = now_ns;

	if (px.bandwidth) {
		if (px.link_free_ns[dir] < now_ns)
			px.link_free_ns[dir] = now_ns;
		px.link_free_ns[dir] += (uint64_t)((double)len * 1e9 / (double)px.bandwidth);
		sent_ns = px.link_free_ns[dir];
	}
	return sent_ns + px.delay_ns + conn->lag_ns;
}

static bool link_full(unsigned dir, uint64_t now_ns)
{
	return px.bandwidth && px.link_free_ns[dir] > now_ns + PACED_QUEUE_NS;
}

static uint64_t conns_queued(void)
{
	uint64_t queued = 0;

	for (struct conn *conn = px.conns; conn; conn = conn->next) {
		for (int dir = 0; dir < 2; dir++)
			queued += conn->flows[dir].in_pos - conn->flows[dir].out_pos;
	}
	return queued;
}

static void note_peak(void)
{
	uint64_t queued = conns_queued();

	if (queued > px.peak)
		px.peak = queued;
}

static bool is_stalled(const struct conn *conn)
{
	return px.stalled || conn->stalled;
}

static bool wants_read(const struct conn *conn, unsigned dir, uint64_t now_ns)
{
	const struct flow *flow = &conn->flows[dir];

	return !flow->eof && !flow->full && !is_stalled(conn) &&
	       flow->in_pos - flow->out_pos < px.buffer_bytes && !link_full(dir, now_ns);
}

/* Reads what there is, within limits. False: the connection is broken. */
static bool conn_receive(struct conn *conn, unsigned dir)
{
	struct flow *flow = &conn->flows[dir];
	int fd = conn->ends[dir].source.fd;
	size_t total = 0, most = px.bandwidth ? PACED_READ_MAX : READ_MAX;
	uint64_t now_ns = tool_now_ns();

	while (total < most && wants_read(conn, dir, now_ns)) {
		ssize_t got = flow_take(flow, fd, most - total);

		if (got < 0)
			return errno == EAGAIN || errno == EINTR;
		now_ns = tool_now_ns();
		if (got == 0) {
			flow_put_eof(flow, link_due_ns(conn, dir, 0, now_ns));
			return true;
		}
		flow_put(flow, (size_t)got, link_due_ns(conn, dir, (size_t)got, now_ns));
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
	if (is_stalled(conn) || px.blackhole)
		return true;
	flow_ripen(flow, now_ns);
	while (flow_has_ripe(flow) && px.cut_left > 0) {
		ssize_t put = flow_give(flow, fd, px.cut_left);

		if (put < 0) {
			flow->blocked = errno == EAGAIN || errno == EINTR;
			return flow->blocked;
		}
		px.forwarded[dir] += (uint64_t)put;
		conn->forwarded[dir] += (uint64_t)put;
		if (px.cut_left != UINT64_MAX)
			px.cut_left -= (uint64_t)put;
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

static void conns_cut(void)
{
	for (struct conn *conn = px.conns; conn; conn = conn->next) {
		px.cut += conn->state != CONN_DEAD;
		conn_close(conn, true);
	}
	px.cut_left = UINT64_MAX;
}

static unsigned conns_count(void)
{
	unsigned count = 0;

	for (struct conn *conn = px.conns; conn; conn = conn->next)
		count += conn->state != CONN_DEAD;
	return count;
}

/* The N-th oldest, or NULL: there are not so many. The list begins with the newest. */
static struct conn *conns_nth(uint64_t nth)
{
	uint64_t left = conns_count();

	for (struct conn *conn = px.conns; conn; conn = conn->next) {
		if (conn->state != CONN_DEAD && left-- == nth)
			return conn;
	}
	return NULL;
}

static void conns_resume(void)
{
	px.stalled = px.blackhole = false;
	for (struct conn *conn = px.conns; conn; conn = conn->next)
		conn->stalled = false;
}

static void conns_sweep(void)
{
	struct conn **link = &px.conns;

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

/* The path is what this program makes it: the system's congestion control, which may pace, has no say. */
static void tune(int fd)
{
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

static void conn_connect(struct conn *conn)
{
	int fd =
	    socket(px.target_addr.addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	conn->ends[1].source.fd = fd;
	if (fd >= 0)
		tune(fd);
	if (fd < 0 ||
	    (connect(fd, (struct sockaddr *)&px.target_addr.addr, px.target_addr.len) < 0 &&
		errno != EINPROGRESS)) {
		conn_close(conn, true);
		return;
	}
	conn->state = CONN_CONNECTING;
	source_watch(&conn->ends[1].source, EPOLLOUT);
}

static bool is_full(void)
{
	return px.most && conns_count() >= px.most;
}

static void accept_all(void)
{
	int fd;

	while (!is_full() &&
	       (fd = accept4(px.listen.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct conn *conn = calloc(1, sizeof(*conn));

		if (!conn)
			fail(TOOL_SETUP, "out of memory");
		tune(fd);
		for (int i = 0; i < 2; i++) {
			conn->ends[i].source = (struct source){.kind = SOURCE_END, .fd = -1};
			conn->ends[i].conn = conn;
		}
		conn->ends[0].source.fd = fd;
		conn->state = CONN_HELD;
		conn->next = px.conns;
		px.conns = conn;
		px.accepted++;
	}
}

/* Moves whatever can move and watches for what can't yet. */
static void conn_pump(struct conn *conn, uint64_t now_ns)
{
	uint32_t want[2] = {0, 0};

	if (conn->state == CONN_HELD && !px.blackhole)
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

static void end_ready(struct end *end, uint32_t events)
{
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

/* When something will happen by itself: a mark or an end of file falls due, or a limited link has
 * room again. UINT64_MAX: never. */
static uint64_t next_due_ns(uint64_t now_ns)
{
	uint64_t next = UINT64_MAX;

	if (px.stalled || px.blackhole)
		return next;
	for (struct conn *conn = px.conns; conn; conn = conn->next) {
		for (unsigned dir = 0; dir < 2 && !conn->stalled; dir++) {
			uint64_t due = flow_due_ns(&conn->flows[dir]);

			if (due < next)
				next = due;
			if (link_full(dir, now_ns) && px.link_free_ns[dir] - PACED_QUEUE_NS < next)
				next = px.link_free_ns[dir] - PACED_QUEUE_NS;
		}
	}
	return next;
}

static void timer_set(uint64_t due_ns)
{
	struct itimerspec when = {0};

	if (due_ns == UINT64_MAX)
		due_ns = 0;
	if (due_ns == px.timer_ns)
		return;
	when.it_value.tv_sec = (time_t)(due_ns / 1000000000u);
	when.it_value.tv_nsec = (long)(due_ns % 1000000000u);
	timerfd_settime(px.timer.fd, TFD_TIMER_ABSTIME, &when, NULL);
	px.timer_ns = due_ns;
}

/* ---- commands ---- */

static int listen_open(void)
{
	int fd =
	    socket(px.listen_addr.addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&px.listen_addr.addr, px.listen_addr.len) < 0 ||
	    listen(fd, 128) < 0) {
		int error = errno;

		close(fd);
		return -error;
	}
	/* Port 0 becomes the port that the kernel chose, and stays that over refuse and accept. */
	px.listen_addr.len = sizeof(px.listen_addr.addr);
	getsockname(fd, (struct sockaddr *)&px.listen_addr.addr, &px.listen_addr.len);
	px.listen = (struct source){.kind = SOURCE_LISTEN, .fd = fd};
	source_watch(&px.listen, EPOLLIN);
	return 0;
}

static unsigned listen_port(void)
{
	const struct sockaddr *addr = (struct sockaddr *)&px.listen_addr.addr;

	if (addr->sa_family == AF_INET6)
		return ntohs(((const struct sockaddr_in6 *)addr)->sin6_port);
	return ntohs(((const struct sockaddr_in *)addr)->sin_port);
}

/* Listens if it should. 0 or -errno. */
static int listen_adapt(void)
{
	if (px.refused || is_full())
		source_close(&px.listen);
	else if (px.listen.fd < 0)
		return listen_open();
	return 0;
}

static void command_stats(char *answer, size_t room)
{
	uint64_t queued = conns_queued();

	snprintf(answer, room,
	    "ok connections=%u accepted=%" PRIu64 " cut=%" PRIu64 " up_bytes=%" PRIu64
	    " down_bytes=%" PRIu64 " queued_bytes=%" PRIu64 " peak_bytes=%" PRIu64
	    " delay_ms=%.3f bandwidth=%" PRIu64 " mode=%s listening=%d",
	    conns_count(), px.accepted, px.cut, px.forwarded[0], px.forwarded[1], queued, px.peak,
	    (double)px.delay_ns / 1e6, px.bandwidth,
	    px.stalled     ? "stall"
	    : px.blackhole ? "blackhole"
			   : "forward",
	    px.listen.fd >= 0);
	px.peak = queued;
}

static bool parse_ms(const char *arg, uint64_t *ret_ns)
{
	char *end;
	double ms = strtod(arg, &end);

	if (end == arg || *end != '\0' || !(ms >= 0 && ms <= 3600e3))
		return false;
	*ret_ns = (uint64_t)(ms * 1e6);
	return true;
}

/* Commands for one connection; value is NULL but for delay-one. False: it makes no sense. */
static bool command_one(
    const char *verb, const char *arg, const char *value, char *answer, size_t room)
{
	uint64_t nth = 0;
	struct conn *conn = tool_parse(arg, &nth) ? conns_nth(nth) : NULL;

	if (!conn)
		return false;
	if (!strcmp(verb, "delay-one"))
		return parse_ms(value, &conn->lag_ns);
	if (!strcmp(verb, "stall-one")) {
		conn->stalled = true;
	} else if (!strcmp(verb, "stats-one")) {
		snprintf(answer, room,
		    "ok up_bytes=%" PRIu64 " down_bytes=%" PRIu64 " lag_ms=%.3f stalled=%d",
		    conn->forwarded[0], conn->forwarded[1], (double)conn->lag_ns / 1e6,
		    conn->stalled);
	} else {
		px.cut++;
		conn_close(conn, true);
	}
	return true;
}

/* How many numbers each command takes. */
static const struct command {
	const char *verb;
	int args;
} commands[] = {
    {"delay", 1},
    {"delay-one", 2},
    {"bandwidth", 1},
    {"stall", 0},
    {"stall-one", 1},
    {"blackhole", 0},
    {"resume", 0},
    {"cut", 0},
    {"cut-one", 1},
    {"cut-after", 1},
    {"refuse", 0},
    {"accept", 0},
    {"most", 1},
    {"stats", 0},
    {"stats-one", 1},
    {"quit", 0},
};

static const struct command *command_find(const char *verb)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (!strcmp(verb, commands[i].verb))
			return &commands[i];
	}
	return NULL;
}

/* Runs one command; *answer gets the reply without a line end. */
static void command_run(char *line, char *answer, size_t room)
{
	char *save = NULL, *verb = strtok_r(line, " \t\r", &save),
	     *arg = strtok_r(NULL, " \t\r", &save), *value = strtok_r(NULL, " \t\r", &save);
	const struct command *command = command_find(verb ? verb : "");
	bool good = true;
	int error = 0;

	if (!command || (arg != NULL) + (value != NULL) != command->args) {
		snprintf(answer, room, "error: %s: %s", verb ? verb : "",
		    command ? "not its number of arguments" : "unknown command");
		return;
	}
	snprintf(answer, room, "ok");
	if (!strcmp(verb, "delay"))
		good = parse_ms(arg, &px.delay_ns);
	else if (!strcmp(verb, "bandwidth"))
		good = tool_parse(arg, &px.bandwidth);
	else if (!strcmp(verb, "cut-after"))
		good = tool_parse(arg, &px.cut_left);
	else if (!strcmp(verb, "most"))
		good = tool_parse(arg, &px.most);
	else if (!strcmp(verb, "stall"))
		px.stalled = true;
	else if (!strcmp(verb, "blackhole"))
		px.blackhole = true;
	else if (!strcmp(verb, "resume"))
		conns_resume();
	else if (!strcmp(verb, "cut"))
		conns_cut();
	else if (!strcmp(verb, "refuse"))
		px.refused = true;
	else if (!strcmp(verb, "accept"))
		px.refused = false;
	else if (!strcmp(verb, "stats"))
		command_stats(answer, room);
	else if (!strcmp(verb, "quit"))
		px.quit = true;
	else
		good = command_one(verb, arg, value, answer, room);
	if (good)
		error = listen_adapt();
	if (!good)
		snprintf(answer, room, "error: %s %s: not a number that makes sense", verb, arg);
	if (error)
		snprintf(answer, room, "error: %s: %s", verb, strerror(-error));
}

static void ctl_accept(void)
{
	int fd = accept4(px.ctl_listen.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ctl *ctl = fd >= 0 ? calloc(1, sizeof(*ctl)) : NULL;

	if (!ctl)
		return;
	ctl->source = (struct source){.kind = SOURCE_CTL, .fd = fd};
	ctl->out_fd = fd;
	ctl->next = px.ctls;
	px.ctls = ctl;
	source_watch(&ctl->source, EPOLLIN);
}

/* Reads commands and answers them; a controller that doesn't read its answers loses them. */
static void ctl_ready(struct ctl *ctl)
{
	ssize_t got = read(ctl->source.fd, ctl->line + ctl->used, sizeof(ctl->line) - ctl->used);
	char answer[LINE_MAX_BYTES], *end;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0 || (ctl->used += (size_t)got) == sizeof(ctl->line)) {
		px.quit |= ctl->is_stdin;
		source_close(&ctl->source);
		return;
	}
	while ((end = memchr(ctl->line, '\n', ctl->used))) {
		size_t len = (size_t)(end - ctl->line) + 1;

		*end = '\0';
		command_run(ctl->line, answer, sizeof(answer) - 1);
		strcat(answer, "\n");
		if (write(ctl->out_fd, answer, strlen(answer)) < 0)
			px.quit |= ctl->is_stdin;
		memmove(ctl->line, ctl->line + len, ctl->used - len);
		ctl->used -= len;
	}
}

static void ctls_sweep(void)
{
	struct ctl **link = &px.ctls;

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

/* ---- the loop ---- */

static void source_ready(struct source *source, uint32_t events)
{
	uint64_t ticks;

	switch (source->kind) {
	case SOURCE_LISTEN:
		accept_all();
		break;
	case SOURCE_TIMER:
		if (read(source->fd, &ticks, sizeof(ticks)) > 0)
			px.timer_ns = 0;
		break;
	case SOURCE_SIGNAL:
		px.quit = true;
		break;
	case SOURCE_CTL_LISTEN:
		ctl_accept();
		break;
	case SOURCE_CTL:
		ctl_ready((struct ctl *)source);
		break;
	case SOURCE_END:
		end_ready((struct end *)source, events);
		break;
	}
}

static void run(void)
{
	struct epoll_event events[64];

	while (!px.quit) {
		int count = epoll_wait(px.epoll_fd, events, 64, -1);
		uint64_t now_ns;

		for (int i = 0; i < count; i++)
			source_ready(events[i].data.ptr, events[i].events);
		now_ns = tool_now_ns();
		for (struct conn *conn = px.conns; conn; conn = conn->next)
			conn_pump(conn, now_ns);
		if (px.cut_left == 0)
			conns_cut();
		conns_sweep();
		if (listen_adapt())
			fail(TOOL_SETUP, "cannot listen again: %s", strerror(errno));
		ctls_sweep();
		timer_set(next_due_ns(now_ns));
	}
}

/* ---- start ---- */

static void ctl_listen_open(const char *path)
{
	struct sockaddr_un addr = net_unix(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 16) < 0)
		fail(TOOL_SETUP, "%s: %s", path, strerror(errno));
	px.ctl_listen = (struct source){.kind = SOURCE_CTL_LISTEN, .fd = fd};
	px.ctl_path = path;
	source_watch(&px.ctl_listen, EPOLLIN);
}

static void ctl_stdin_open(void)
{
	struct ctl *ctl = calloc(1, sizeof(*ctl));

	if (!ctl)
		fail(TOOL_SETUP, "out of memory");
	ctl->source = (struct source){.kind = SOURCE_CTL, .fd = STDIN_FILENO};
	ctl->out_fd = STDOUT_FILENO;
	ctl->is_stdin = true;
	px.ctls = ctl;
	source_watch(&ctl->source, EPOLLIN);
}

static void start_loop(void)
{
	sigset_t set;

	px.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	px.timer = (struct source){.kind = SOURCE_TIMER,
	    .fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)};
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	px.signals = (struct source){.kind = SOURCE_SIGNAL, .fd = signalfd(-1, &set, SFD_CLOEXEC)};
	if (px.epoll_fd < 0 || px.timer.fd < 0 || px.signals.fd < 0)
		fail(TOOL_SETUP, "cannot make the loop: %s", strerror(errno));
	source_watch(&px.timer, EPOLLIN);
	source_watch(&px.signals, EPOLLIN);
	px.cut_left = UINT64_MAX;
	px.listen.fd = px.ctl_listen.fd = -1;
}

static void usage(FILE *out)
{
	fputs(
	    "usage: proxy --listen ADDR:PORT --target ADDR:PORT [--delay MS] [--bandwidth BYTES]\n"
	    "             [--buffer BYTES] [--control SOCKET] [--stdin] [--ready-fd N]\n"
	    "commands: delay MS, delay-one N MS, bandwidth BYTES, stall, stall-one N, blackhole,\n"
	    "          resume, cut, cut-one N, cut-after BYTES, refuse, accept, most N, stats,\n"
	    "          stats-one N, quit\n"
	    "--ready-fd: the port, one line, once connections are accepted\n",
	    out);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
	    {"listen", required_argument, NULL, 'l'},
	    {"target", required_argument, NULL, 't'},
	    {"delay", required_argument, NULL, 'd'},
	    {"bandwidth", required_argument, NULL, 'w'},
	    {"buffer", required_argument, NULL, 'b'},
	    {"control", required_argument, NULL, 'c'},
	    {"stdin", no_argument, NULL, 'i'},
	    {"ready-fd", required_argument, NULL, 'r'},
	    {"help", no_argument, NULL, 'h'},
	    {NULL, 0, NULL, 0},
	};
	const char *control = NULL;
	bool has_listen = false, has_target = false, use_stdin = false, good = true;
	uint64_t ready_fd = UINT64_MAX;
	int c, error;

	start_loop();
	px.buffer_bytes = 256 << 20;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'l':
			px.listen_addr = net_parse(optarg);
			has_listen = true;
			break;
		case 't':
			px.target_addr = net_parse(optarg);
			has_target = true;
			break;
		case 'd':
			good = parse_ms(optarg, &px.delay_ns);
			break;
		case 'w':
			good = tool_parse(optarg, &px.bandwidth);
			break;
		case 'b':
			good = tool_parse(optarg, &px.buffer_bytes);
			break;
		case 'c':
			control = optarg;
			break;
		case 'i':
			use_stdin = true;
			break;
		case 'r':
			good = tool_parse(optarg, &ready_fd);
			break;
		case 'h':
			usage(stdout);
			return TOOL_OK;
		default:
			usage(stderr);
			return TOOL_USAGE;
		}
		if (!good)
			fail(TOOL_USAGE, "%s: not a number that makes sense", optarg);
	}
	if (!has_listen || !has_target || optind < argc) {
		usage(stderr);
		return TOOL_USAGE;
	}
	error = listen_open();
	if (error)
		fail(TOOL_SETUP, "cannot listen: %s", strerror(-error));
	if (control)
		ctl_listen_open(control);
	if (use_stdin)
		ctl_stdin_open();
	if (ready_fd != UINT64_MAX) {
		dprintf((int)ready_fd, "%u\n", listen_port());
		close((int)ready_fd);
	}
	run();
	conns_cut();
	if (px.ctl_path)
		unlink(px.ctl_path);
	return TOOL_OK;
}
