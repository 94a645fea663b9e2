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
 * Invariants: the bytes under way and when they are due are in proxy/flow.c.  Only conn_send moves bytes
 * out, and it stops exactly at cut_left.  A byte keeps the due time it was read with, even if the delay is
 * lowered since, so order holds.
 *
 * Fails: cannot listen: exit 3.  An onward connect that fails resets the accepted connection.  The delay
 * applies to data, not to the TCP handshake.
 *
 * Here are the loop and main; in tests/tools/proxy, from the bottom up:
 *   source     what the loop watches
 *   link       the delay and bandwidth that all connections share
 *   flow       the bytes under way in one direction of a connection
 *   conns      connections, and the bytes that move through them
 *   listener   the socket that accepts them
 *   command    what each command does
 *   control    the sockets that commands come through
 */
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "tests/tools/net.h"
#include "tests/tools/proxy/conns.h"
#include "tests/tools/proxy/control.h"
#include "tests/tools/proxy/link.h"
#include "tests/tools/proxy/listener.h"
#include "tests/tools/proxy/source.h"
#include "tests/tools/tool.h"

static struct source timer, signals;
static uint64_t timer_ns; /* what the timer is set to; 0: off */

/* ---- the loop ---- */

static void timer_ready(struct source *source, uint32_t events)
{
	uint64_t ticks;

	if (read(source->fd, &ticks, sizeof(ticks)) > 0)
		timer_ns = 0;
}

static void signals_ready(struct source *source, uint32_t events)
{
	sources_stop();
}

static void timer_set(uint64_t due_ns)
{
	struct itimerspec when = {0};

	if (due_ns == UINT64_MAX)
		due_ns = 0;
	if (due_ns == timer_ns)
		return;
	when.it_value.tv_sec = (time_t)(due_ns / 1000000000u);
	when.it_value.tv_nsec = (long)(due_ns % 1000000000u);
	timerfd_settime(timer.fd, TFD_TIMER_ABSTIME, &when, NULL);
	timer_ns = due_ns;
}

static void run(void)
{
	while (sources_wait()) {
		uint64_t now_ns = tool_now_ns();
		int error;

		conns_pump(now_ns);
		error = listener_adapt();
		if (error)
			errx(TOOL_SETUP, "cannot listen again: %s", strerror(-error));
		control_sweep();
		timer_set(conns_next_due_ns(now_ns));
	}
}

/* ---- start ---- */

static void start_loop(void)
{
	sigset_t set;

	sources_open();
	timer = (struct source){.ready = timer_ready,
	    .fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)};
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals = (struct source){.ready = signals_ready, .fd = signalfd(-1, &set, SFD_CLOEXEC)};
	if (timer.fd < 0 || signals.fd < 0)
		err(TOOL_SETUP, "cannot make the loop");
	source_watch(&timer, EPOLLIN);
	source_watch(&signals, EPOLLIN);
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
	struct net_address listen_addr = {0}, target_addr = {0};
	bool has_listen = false, has_target = false, use_stdin = false, good = true;
	uint64_t buffer_bytes = 256 << 20, ready_fd = UINT64_MAX;
	int c, error;

	start_loop();
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'l':
			listen_addr = net_parse(optarg);
			has_listen = true;
			break;
		case 't':
			target_addr = net_parse(optarg);
			has_target = true;
			break;
		case 'd':
			good = tool_parse_ms(optarg, &link_conf.delay_ns);
			break;
		case 'w':
			good = tool_parse(optarg, &link_conf.bandwidth);
			break;
		case 'b':
			good = tool_parse(optarg, &buffer_bytes);
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
			errx(TOOL_USAGE, "%s: not a number that makes sense", optarg);
	}
	if (!has_listen || !has_target || optind < argc) {
		usage(stderr);
		return TOOL_USAGE;
	}
	conns_init(&target_addr, buffer_bytes);
	error = listener_open(&listen_addr);
	if (error)
		errx(TOOL_SETUP, "cannot listen: %s", strerror(-error));
	if (control)
		control_open(control);
	if (use_stdin)
		control_open_stdin();
	if (ready_fd != UINT64_MAX) {
		dprintf((int)ready_fd, "%u\n", listener_port());
		close((int)ready_fd);
	}
	run();
	conns_cut();
	control_close();
	return TOOL_OK;
}
