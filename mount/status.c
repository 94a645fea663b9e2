/* SPDX-License-Identifier: Apache-2.0
 *
 * What `remram status` shows of one mount; see status.h.
 *
 * Members of the daemon's answer that are known here are laid out; those that are not are printed as
 * they are, so that a newer daemon loses nothing.  Members that are missing are left out.
 */
#include "mount/status.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/uri.h"
#include "mount/attach.h"
#include "mount/control.h"
#include "mount/mountinfo.h"
#include "mount/swapdev.h"
#include "mount/swapwatch.h"

#define LABEL "  %-11s "

char *status_time(double us, char *buf)
{
	static const struct {
		double below, unit;
		const char *name;
	} units[] = {{1e3, 1, "µs"}, {1e6, 1e3, "ms"}, {60e6, 1e6, "s"}};
	double s = us / 1e6;
	unsigned i;

	if (us < 0.5)
		return strcpy(buf, "0 s");
	for (i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		double value = us / units[i].unit;
		if (us >= units[i].below)
			continue;
		snprintf(buf, STATUS_TIME_MAX, value < 10 && i ? "%.1f %s" : "%.0f %s", value,
		    units[i].name);
		return buf;
	}
	if (s < 3600)
		snprintf(buf, STATUS_TIME_MAX, "%.0f min", s / 60);
	else if (s < 48 * 3600)
		snprintf(buf, STATUS_TIME_MAX, "%u h %u min", (unsigned)(s / 3600),
		    (unsigned)(s / 60) % 60);
	else
		snprintf(buf, STATUS_TIME_MAX, "%.0f days", s / 86400);
	return buf;
}

/* ---- finding out ------------------------------------------------------------------------------- */

void status_init(
    struct status *status, const char *run_dir, const struct runstate *state, unsigned timeout_ms)
{
	char path[PATH_MAX + 16], *answer;
	struct mountinfo info;
	struct err err;

	memset(status, 0, sizeof(*status));
	status->state = *state;
	snprintf(status->run_dir, sizeof(status->run_dir), "%s", run_dir);
	status->mounted =
	    mountinfo_find(state->dir, &info) == 0 && !strcmp(info.type, MOUNTINFO_TYPE);
	snprintf(path, sizeof(path), "%s/control", run_dir);
	if ((status->mounted || runstate_alive(state)) &&
	    control_ask(path, "status", timeout_ms, &answer, &err) == 0) {
		json_parse(answer, strlen(answer), &status->daemon, &err);
		free(answer);
	}
	if (!status->mounted) {
		status->health = status->daemon          ? STATUS_LEAVING
				 : runstate_alive(state) ? STATUS_SILENT
							 : STATUS_GONE;
		snprintf(status->trouble, sizeof(status->trouble), "not mounted any more%s",
		    status->daemon ? ", but its daemon still has something to do" : "");
		return;
	}
	if (status->daemon)
		return;
	status->health = runstate_alive(state) ? STATUS_SILENT : STATUS_DEAD;
	memcpy(status->trouble, err.text, sizeof(status->trouble));
}

void status_fini(struct status *status)
{
	json_destroy(status->daemon);
	status->daemon = NULL;
}

/* ---- for people -------------------------------------------------------------------------------- */

static void print_unknown(const struct json *value, const char *label, FILE *out)
{
	fprintf(out, LABEL, label);
	json_write(out, value);
	putc('\n', out);
}

static void print_process(const struct status *status, FILE *out)
{
	const struct json *doc = status->daemon;
	const struct json *uptime = json_find(doc, "uptime_s");
	const struct json *rss = json_find(doc, "memory.rss_kb");
	char text[STATUS_TIME_MAX], size[SIZE_TEXT_MAX];
	double s = json_number(uptime, 0);

	fprintf(out, LABEL "process %.0f", "daemon",
	    json_number(json_find(doc, "pid"), status->state.pid));
	if (uptime && s < 60)
		fprintf(out, ", up %.0f s", s);
	else if (uptime)
		fprintf(out, ", up %s", status_time(s * 1e6, text));
	if (rss)
		fprintf(
		    out, ", %s of memory", size_format((uint64_t)json_number(rss, 0) * 1024, size));
	putc('\n', out);
}

static const char *connection_text(const char *state)
{
	if (!strcmp(state, "waiting"))
		return "LOST, requests wait";
	return strcmp(state, "failed") ? state : "GIVEN UP, all requests fail";
}

static void print_connection(const struct json *conn, FILE *out)
{
	const char *state = json_string(json_find(conn, "state"), "?");
	const char *peer = json_string(json_find(conn, "peer"), NULL);
	const struct json *since = json_find(conn, "since_ms"), *rtt = json_find(conn, "rtt_us");
	const struct json *reconnects = json_find(conn, "reconnects");
	double conns = json_number(json_find(conn, "conns"), 1);
	char text[STATUS_TIME_MAX];

	fprintf(out, LABEL "%s", "donor", connection_text(state));
	if (peer)
		fprintf(out, "%s %s", strcmp(state, "connected") ? ":" : " to", peer);
	if (since)
		fprintf(out, " for %s", status_time(json_number(since, 0) * 1000, text));
	if (reconnects)
		fprintf(out, ", %s reconnects", json_text(reconnects));
	if (json_number(rtt, 0) > 0)
		fprintf(out, ", round trip %s", status_time(json_number(rtt, 0), text));
	if (conns > 1)
		fprintf(out, ", %.0f of %.0f connections",
		    json_number(json_find(conn, "conns_up"), 0), conns);
	putc('\n', out);
}

/* One kind of request as a line of the table. */
static void print_counter(const struct json *op, FILE *out)
{
	static const char *const latencies[] = {"p50_us", "p99_us", "p999_us"};
	char text[STATUS_TIME_MAX];
	unsigned i;

	fprintf(out, "    %-9s %10.0f", json_name(op), json_number(json_find(op, "count"), 0));
	fprintf(out, " %11s", size_format((uint64_t)json_number(json_find(op, "bytes"), 0), text));
	fprintf(out, " %7.0f", json_number(json_find(op, "errors"), 0));
	for (i = 0; i < 3; i++) {
		const struct json *latency = json_find(op, latencies[i]);
		strcpy(text, "-");
		if (latency)
			status_time(json_number(latency, 0), text);
		/* µ takes two bytes and one column. */
		fprintf(out, "%*s", strstr(text, "µ") ? 10 : 9, text);
	}
	putc('\n', out);
}

static void print_requests(const struct json *requests, const struct json *in_flight, FILE *out)
{
	const struct json *op;
	bool any = false;

	fprintf(out, LABEL "%s in flight\n", "requests", in_flight ? json_text(in_flight) : "?");
	for (op = json_first(requests); op; op = json_next(op)) {
		if (json_type(op) != JSON_OBJECT || json_number(json_find(op, "count"), 0) == 0)
			continue;
		if (!any)
			fprintf(out, "    %-9s %10s %11s %7s%9s%9s%9s\n", "", "count", "bytes",
			    "errors", "median", "99 %", "99.9 %");
		any = true;
		print_counter(op, out);
	}
}

/* What direct reads in order were answered from. */
static void print_ahead(const struct json *ahead, FILE *out)
{
	double hits = json_number(json_find(ahead, "hits"), 0);
	double unused = json_number(json_find(ahead, "unused_bytes"), 0);
	char text[SIZE_TEXT_MAX];

	if (hits == 0)
		return;
	fprintf(out, LABEL "%s", "read ahead",
	    size_format((uint64_t)json_number(json_find(ahead, "bytes"), 0), text));
	if (unused > 0)
		fprintf(out, " (%s in vain)", size_format((uint64_t)unused, text));
	fprintf(out, ", which answered %.0f reads, %.0f of them after a wait\n", hits,
	    json_number(json_find(ahead, "waits"), 0));
}

static void print_fuse(const struct json *fuse, FILE *out)
{
	fprintf(out, LABEL "requests %.0f, nodes %.0f\n", "kernel",
	    json_number(json_find(fuse, "requests"), 0), json_number(json_find(fuse, "nodes"), 0));
}

static const struct runstate_device *device_of(const struct runstate *state, const char *region)
{
	unsigned i;

	for (i = 0; i < state->device_count; i++) {
		if (!strcmp(state->devices[i].region, region))
			return &state->devices[i];
	}
	return NULL;
}

static const char *lease_text(const struct json *region)
{
	static const char *const texts[][2] = {
	    {"held", ", lease held"},
	    {"shared", ", shared with other writers"},
	    {"lost", ", LEASE LOST to another client"},
	};
	const char *lease = json_string(json_find(region, "lease"), "none");

	for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (!strcmp(lease, texts[i][0]))
			return texts[i][1];
	return "";
}

/* What is here of a region with a cache. */
static void print_cached(const struct json *region, FILE *out)
{
	const struct json *cache = json_find(region, "cache");
	double size = json_number(json_find(region, "size"), 0);
	double resident = json_number(json_find(cache, "resident"), 0);
	double dirty = json_number(json_find(cache, "dirty"), 0);
	const char *error = json_string(json_find(cache, "error"), "");
	const char *state = json_string(json_find(region, "state"), "open");
	char text[SIZE_TEXT_MAX], age[STATUS_TIME_MAX];

	if (strcmp(state, "open"))
		fprintf(out, ", %s", state);
	if (json_type(json_find(region, "recovering")) == JSON_TRUE)
		fputs(", being recovered", out);
	if (json_type(cache) != JSON_OBJECT)
		return;
	fprintf(out, ", %s here", resident >= size ? "all" : size_format((uint64_t)resident, text));
	if (dirty > 0)
		fprintf(out, ", %s dirty for %s", size_format((uint64_t)dirty, text),
		    status_time(json_number(json_find(cache, "oldest_dirty_ms"), 0) * 1000, age));
	if (*error)
		fprintf(out, ", PUSH FAILS: %s", error);
}

static void print_regions(const struct json *regions, const struct status *status, FILE *out)
{
	const struct json *region;
	char size[SIZE_TEXT_MAX];

	for (region = json_first(regions); region; region = json_next(region)) {
		const char *name = json_string(json_find(region, "name"), "?");
		double opens = json_number(json_find(region, "open"), 0);
		/* Those on a loop device have their own line. */
		if (device_of(&status->state, name))
			continue;
		fprintf(out, LABEL "%s", "region", name);
		if (json_find(region, "size"))
			fprintf(out, ", %s",
			    size_format((uint64_t)json_number(json_find(region, "size"), 0), size));
		if (opens > 0)
			fprintf(out, ", open %.0f %s", opens, opens > 1 ? "times" : "time");
		fputs(lease_text(region), out);
		print_cached(region, out);
		putc('\n', out);
	}
}

static void print_cache(const struct json *cache, FILE *out)
{
	const char *dir = json_string(json_find(cache, "dir"), NULL);
	double size = json_number(json_find(cache, "size"), 0);
	double dirty = json_number(json_find(cache, "dirty"), 0);
	double max_dirty = json_number(json_find(cache, "max_dirty"), 0);
	double waiting = json_number(json_find(cache, "writers_waiting"), 0);
	double recovering = json_number(json_find(cache, "recovering"), 0);
	double lost = json_number(json_find(cache, "lost"), 0);
	char text[SIZE_TEXT_MAX], age[STATUS_TIME_MAX];

	fprintf(out, LABEL "%s, %s", "cache", dir ? dir : "in memory",
	    size_format((uint64_t)json_number(json_find(cache, "resident"), 0), text));
	if (size > 0)
		fprintf(out, " of %s", size_format((uint64_t)size, text));
	fprintf(out, ", %s", size_format((uint64_t)dirty, text));
	if (max_dirty > 0)
		fprintf(out, " of %s", size_format((uint64_t)max_dirty, text));
	fputs(" dirty", out);
	if (dirty > 0)
		fprintf(out, " for %s",
		    status_time(json_number(json_find(cache, "oldest_dirty_ms"), 0) * 1000, age));
	if (waiting > 0)
		fprintf(out, ", %.0f WRITERS WAIT", waiting);
	if (recovering > 0)
		fprintf(out, ", %.0f to be recovered", recovering);
	if (lost > 0)
		fprintf(out, ", %.0f LOST to other clients", lost);
	if (json_type(json_find(cache, "leaving")) == JSON_TRUE)
		fputs(", ending", out);
	putc('\n', out);
}

static void print_pull_first(const struct json *first, FILE *out)
{
	double total = json_number(json_find(first, "total"), 0);
	double left = json_number(json_find(first, "left"), 0);
	char done[SIZE_TEXT_MAX], all[SIZE_TEXT_MAX];

	fprintf(out, LABEL "%s of %s are here\n", "pull_first",
	    size_format((uint64_t)(left < total ? total - left : 0), done),
	    size_format((uint64_t)total, all));
}

static void print_busy(const struct json *busy, FILE *out)
{
	char text[STATUS_TIME_MAX];

	fprintf(out, LABEL "%s: refused %s ago, since it is being written to by %s\n", "busy",
	    json_string(json_find(busy, "region"), "?"),
	    status_time(json_number(json_find(busy, "since_ms"), 0) * 1000, text),
	    json_string(json_find(busy, "holder"), "?"));
}

static void print_device(const struct status *status, const struct runstate_device *dev, FILE *out)
{
	char size[SIZE_TEXT_MAX], used[SIZE_TEXT_MAX];
	struct loopdev loop;
	struct swapdev swap;

	fprintf(out, LABEL "%s on ", dev->swap ? "swap" : "loop", dev->region);
	if (attach_inspect(&status->state, dev, &loop)) {
		fprintf(out, "%s: NOT ATTACHED\n", dev->device[0] ? dev->device : "no device");
		return;
	}
	fprintf(out, "%s (%s/%s), %s, %s", dev->device, status->run_dir, dev->region,
	    size_format(loop.size, size), loop.direct_io ? "direct I/O" : "NO DIRECT I/O");
	if (swapdev_find(dev->device, &swap, NULL) == 0)
		fprintf(out, ", %s used, priority %d", size_format(swap.used, used), swap.prio);
	else if (dev->swap)
		fputs(", NOT SWITCHED ON", out);
	putc('\n', out);
}

static void print_daemon(const struct status *status, FILE *out)
{
	static const char *const known[] = {"source", "mountpoint", "pid", "uptime_s", "connection",
	    "requests", "in_flight", "fuse", "regions", "memory", "busy", "cache", "tasks",
	    "pull_first", "read_ahead"};
	const struct json *doc = status->daemon, *member;

	print_process(status, out);
	if (json_find(doc, "connection"))
		print_connection(json_find(doc, "connection"), out);
	if (json_find(doc, "requests"))
		print_requests(json_find(doc, "requests"), json_find(doc, "in_flight"), out);
	if (json_find(doc, "fuse"))
		print_fuse(json_find(doc, "fuse"), out);
	print_ahead(json_find(doc, "read_ahead"), out);
	if (json_type(json_find(doc, "cache")) == JSON_OBJECT)
		print_cache(json_find(doc, "cache"), out);
	if (json_type(json_find(doc, "pull_first")) == JSON_OBJECT)
		print_pull_first(json_find(doc, "pull_first"), out);
	print_regions(json_find(doc, "regions"), status, out);
	if (json_find(doc, "busy"))
		print_busy(json_find(doc, "busy"), out);
	for (member = json_first(doc); member; member = json_next(member)) {
		const char *name = json_name(member);
		unsigned i, count = sizeof(known) / sizeof(known[0]);
		for (i = 0; name && i < count && strcmp(known[i], name); i++)
			;
		if (name && i == count)
			print_unknown(member, name, out);
	}
}

struct by_hand {
	const struct status *status;
	FILE *out;
	unsigned count;
};

/* Whether the mount command attached the device. */
static bool is_recorded(const struct status *status, const struct loopdev *loop)
{
	for (unsigned i = 0; i < status->state.device_count; i++) {
		if (!strcmp(status->state.devices[i].device, loop->path))
			return true;
	}
	return false;
}

static bool print_by_hand(void *ctx, const struct loopdev *loop, const struct swapdev *swap)
{
	const struct by_hand *by_hand = ctx;
	const struct json *daemon = by_hand->status->daemon;

	if (is_recorded(by_hand->status, loop))
		return true;
	fprintf(by_hand->out, LABEL "%s on %s, by hand", swap ? "swap" : "loop", loop->path,
	    loop->file);
	if (swap && json_type(json_find(daemon, "cache")) == JSON_OBJECT)
		fputs(", NOT SAFE: the mount has a cache (see remram doctor)", by_hand->out);
	putc('\n', by_hand->out);
	return true;
}

void status_print(const struct status *status, FILE *out)
{
	struct by_hand by_hand = {.status = status, .out = out};
	const struct runstate *state = &status->state;
	unsigned i;

	fprintf(out, "%s: %s\n", state->dir, state->source);
	switch (status->health) {
	case STATUS_LIVE:
		print_daemon(status, out);
		break;
	case STATUS_SILENT:
		fprintf(out, LABEL "process %d DOES NOT ANSWER: %s\n", "daemon", (int)state->pid,
		    status->trouble);
		break;
	case STATUS_DEAD:
		fprintf(out, LABEL "DEAD (it was process %d): `umount %s` cleans up\n", "daemon",
		    (int)state->pid, state->dir);
		break;
	case STATUS_LEAVING:
		fprintf(out,
		    LABEL "NOT MOUNTED any more: `umount.remram %s` waits for its daemon\n",
		    "mount", state->dir);
		print_daemon(status, out);
		break;
	case STATUS_GONE:
		fprintf(out, LABEL "NOT MOUNTED any more: `umount.remram %s` cleans up\n", "mount",
		    state->dir);
		break;
	}
	for (i = 0; i < state->device_count; i++)
		print_device(status, &state->devices[i], out);
	swapwatch_each(state->dir, print_by_hand, &by_hand);
}

/* ---- as JSON ----------------------------------------------------------------------------------- */

static void write_member(FILE *out, const char *name, const char *text)
{
	fprintf(out, "\"%s\":", name);
	json_write_string(out, text);
	putc(',', out);
}

static void write_device(const struct status *status, const struct runstate_device *dev, FILE *out)
{
	struct loopdev loop;
	struct swapdev swap;
	bool attached = attach_inspect(&status->state, dev, &loop) == 0;
	bool on = attached && swapdev_find(dev->device, &swap, NULL) == 0;

	putc('{', out);
	write_member(out, "region", dev->region);
	write_member(out, "device", dev->device);
	fprintf(out, "\"attached\":%s,", attached ? "true" : "false");
	if (attached)
		fprintf(out,
		    "\"size\":%" PRIu64 ",\"block_size\":%u,\"direct_io\":%s,\"read_only\":%s,",
		    loop.size, loop.block_size, loop.direct_io ? "true" : "false",
		    loop.read_only ? "true" : "false");
	if (on)
		fprintf(out, "\"swap_size\":%" PRIu64 ",\"swap_used\":%" PRIu64 ",\"prio\":%d,",
		    swap.size, swap.used, swap.prio);
	fprintf(out, "\"discard\":%s,\"swap\":%s}", dev->discard ? "true" : "false",
	    on ? "true" : "false");
}

static bool write_by_hand(void *ctx, const struct loopdev *loop, const struct swapdev *swap)
{
	struct by_hand *by_hand = ctx;

	if (is_recorded(by_hand->status, loop))
		return true;
	fputs(by_hand->count++ ? ",{" : "{", by_hand->out);
	write_member(by_hand->out, "device", loop->path);
	write_member(by_hand->out, "file", loop->file);
	fprintf(by_hand->out, "\"swap\":%s}", swap ? "true" : "false");
	return true;
}

void status_print_json(const struct status *status, FILE *out)
{
	struct by_hand by_hand = {.status = status, .out = out};
	static const char *const healths[] = {"live", "silent", "dead", "leaving", "gone"};
	const struct runstate *state = &status->state;
	unsigned i;

	putc('{', out);
	write_member(out, "mountpoint", state->dir);
	write_member(out, "source", state->source);
	fprintf(out, "\"pid\":%d,", (int)state->pid);
	write_member(out, "run_dir", status->run_dir);
	write_member(out, "state", healths[status->health]);
	write_member(out, "trouble", status->trouble);
	fputs("\"devices\":[", out);
	for (i = 0; i < state->device_count; i++) {
		if (i)
			putc(',', out);
		write_device(status, &state->devices[i], out);
	}
	fputs("],\"by_hand\":[", out);
	swapwatch_each(state->dir, write_by_hand, &by_hand);
	fputs("],\"daemon\":", out);
	json_write(out, status->daemon);
	putc('}', out);
}
