/* SPDX-License-Identifier: Apache-2.0
 *
 * The proxy's commands (see tests/tools/proxy/command.h).
 */
#include "tests/tools/proxy/command.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "tests/tools/proxy/conns.h"
#include "tests/tools/proxy/link.h"
#include "tests/tools/proxy/listener.h"
#include "tests/tools/proxy/source.h"
#include "tests/tools/tool.h"

static void command_stats(char *answer, size_t room)
{
	struct conns_stats stats;

	conns_stats(&stats);
	snprintf(answer, room,
	    "ok connections=%u accepted=%" PRIu64 " cut=%" PRIu64 " up_bytes=%" PRIu64
	    " down_bytes=%" PRIu64 " queued_bytes=%" PRIu64 " peak_bytes=%" PRIu64
	    " delay_ms=%.3f bandwidth=%" PRIu64 " mode=%s listening=%d",
	    stats.connections, stats.accepted, stats.cut, stats.forwarded[0], stats.forwarded[1],
	    stats.queued, stats.peak, (double)link_conf.delay_ns / 1e6, link_conf.bandwidth,
	    link_conf.stalled     ? "stall"
	    : link_conf.blackhole ? "blackhole"
				  : "forward",
	    listener_is_open());
}

static void command_stats_one(const struct conn *conn, char *answer, size_t room)
{
	struct conn_stats stats;

	conn_stats(conn, &stats);
	snprintf(answer, room,
	    "ok up_bytes=%" PRIu64 " down_bytes=%" PRIu64 " lag_ms=%.3f stalled=%d",
	    stats.forwarded[0], stats.forwarded[1], (double)stats.lag_ns / 1e6, stats.stalled);
}

/* Commands for one connection; value is NULL but for delay-one. False: it makes no sense. */
static bool command_one(
    const char *verb, const char *arg, const char *value, char *answer, size_t room)
{
	uint64_t nth = 0, lag_ns;
	struct conn *conn = tool_parse(arg, &nth) ? conns_nth(nth) : NULL;

	if (!conn)
		return false;
	if (!strcmp(verb, "delay-one")) {
		if (!tool_parse_ms(value, &lag_ns))
			return false;
		conn_set_lag(conn, lag_ns);
	} else if (!strcmp(verb, "stall-one")) {
		conn_stall(conn);
	} else if (!strcmp(verb, "stats-one")) {
		command_stats_one(conn, answer, room);
	} else {
		conn_cut(conn);
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

void command_run(char *line, char *answer, size_t room)
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
		good = tool_parse_ms(arg, &link_conf.delay_ns);
	else if (!strcmp(verb, "bandwidth"))
		good = tool_parse(arg, &link_conf.bandwidth);
	else if (!strcmp(verb, "cut-after"))
		good = tool_parse(arg, &link_conf.cut_left);
	else if (!strcmp(verb, "most"))
		good = tool_parse(arg, &listener_conf.most);
	else if (!strcmp(verb, "stall"))
		link_conf.stalled = true;
	else if (!strcmp(verb, "blackhole"))
		link_conf.blackhole = true;
	else if (!strcmp(verb, "resume"))
		conns_resume();
	else if (!strcmp(verb, "cut"))
		conns_cut();
	else if (!strcmp(verb, "refuse"))
		listener_conf.refused = true;
	else if (!strcmp(verb, "accept"))
		listener_conf.refused = false;
	else if (!strcmp(verb, "stats"))
		command_stats(answer, room);
	else if (!strcmp(verb, "quit"))
		sources_stop();
	else
		good = command_one(verb, arg, value, answer, room);
	if (good)
		error = listener_adapt();
	if (!good)
		snprintf(answer, room, "error: %s %s: not a number that makes sense", verb, arg);
	if (error)
		snprintf(answer, room, "error: %s: %s", verb, strerror(-error));
}
