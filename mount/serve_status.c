/* SPDX-License-Identifier: Apache-2.0
 *
 * What a mount daemon says of itself: one JSON object, written with snprintf into the caller's buffer.
 * A text that does not fit is cut at a member, and the object is closed all the same.
 */
#include "mount/serve_status.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "backends/peer.h"
#include "core/hist.h"
#include "fuse/fs.h"

struct text {
	char *buf;
	size_t room, used; /* used < room */
};

static void __attribute__((format(printf, 2, 3))) put(struct text *text, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text->buf + text->used, text->room - text->used, fmt, ap);
	va_end(ap);
	if (n > 0 && (size_t)n < text->room - text->used)
		text->used += (size_t)n;
	else
		text->buf[text->used] = 0;
}

/* Bytes that JSON does not take as they are become \u00XX; the rest passes. */
static void put_string(struct text *text, const char *s)
{
	put(text, "\"");
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c < 0x20 || c == '"' || c == '\\' || c >= 0x7f)
			put(text, "\\u%04x", c);
		else
			put(text, "%c", c);
	}
	put(text, "\"");
}

static void put_requests(struct text *text, const struct store_stats *stats)
{
	put(text, "\"requests\":{");
	for (int op = 0; op < STORE_RESIZE; op++) {
		const struct hist *hist = &stats->latency[op];

		put(text,
		    "%s\"%s\":{\"count\":%llu,\"bytes\":%llu,\"errors\":%llu,\"p50_us\":%.1f,\"p99_"
		    "us\":%.1f,"
		    "\"p999_us\":%.1f}",
		    op ? "," : "", store_op_name(op), (unsigned long long)stats->requests[op],
		    (unsigned long long)stats->bytes[op], (unsigned long long)stats->errors[op],
		    (double)hist_percentile(hist, 50) / 1e3,
		    (double)hist_percentile(hist, 99) / 1e3,
		    (double)hist_percentile(hist, 99.9) / 1e3);
	}
	put(text, "},");
}

static void put_connection(struct text *text, const struct daemon *daemon)
{
	static const char *const names[] = {
	    [PEER_CONNECTED] = "connected",
	    [PEER_WAITING] = "waiting",
	    [PEER_FAILED] = "failed",
	};
	struct peer_status status;

	if (!daemon->is_peer)
		return;
	peer_pool_status(daemon->pool, &status);
	put(text,
	    "\"connection\":{\"state\":\"%s\",\"peer\":\"%s\",\"since_ms\":%llu,\"reconnects\":%u,"
	    "\"rtt_us\":%.1f,\"bytes_in\":%llu,\"bytes_out\":%llu,\"in_flight\":%u},",
	    names[status.state], status.address,
	    (unsigned long long)((loop_now_ns() - status.since_ns) / 1000000), status.reconnects,
	    (double)status.rtt_ns / 1e3, (unsigned long long)status.bytes_in,
	    (unsigned long long)status.bytes_out, status.in_flight);
}

/* "held": this mount writes, nobody else does; "shared": others may; "lost": it wrote. */
static const char *lease_of(const struct daemon *daemon, const struct fs_open_region *open)
{
	if (open->lease_lost)
		return "lost";
	if (!open->writers)
		return "none";
	return daemon->conf->shared ? "shared" : "held";
}

struct region_text {
	struct text *text;
	const struct daemon *daemon;
};

static void put_region(void *ctx, const struct fs_open_region *open)
{
	const struct region_text *rt = ctx;
	struct text *text = rt->text;

	/* What follows the list must still fit. */
	if (text->room - text->used < 4096)
		return;
	put(text, "%s{\"name\":", text->buf[text->used - 1] == '[' ? "" : ",");
	put_string(text, open->name);
	put(text, ",\"size\":%llu,\"open\":%u,\"lease\":\"%s\"}", (unsigned long long)open->size,
	    open->opens, lease_of(rt->daemon, open));
}

/* The last time that another client was in the way. */
static void put_refusal(struct text *text, const struct daemon *daemon)
{
	const struct fs_refusal *refusal = fs_last_refusal(daemon->fs);

	if (!refusal->at_ns)
		return;
	put(text, "\"busy\":{\"region\":");
	put_string(text, refusal->name);
	put(text, ",\"holder\":");
	put_string(text, refusal->holder);
	put(text, ",\"since_ms\":%llu},",
	    (unsigned long long)((loop_now_ns() - refusal->at_ns) / 1000000));
}

/* Resident memory, from /proc/self/statm, without stdio's buffers. */
static long rss_kb(void)
{
	char line[128] = "";
	long pages = 0;
	int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	if (read(fd, line, sizeof(line) - 1) > 0)
		sscanf(line, "%*d %ld", &pages);
	close(fd);
	return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

size_t serve_status(void *ctx, char *buf, size_t room)
{
	struct daemon *daemon = ctx;
	struct text text = {buf, room, 0};
	struct region_text regions = {&text, daemon};
	struct fs_stats fs;

	fs_get_stats(daemon->fs, &fs);
	put(&text, "{\"source\":");
	put_string(&text, daemon->conf->source.text);
	put(&text, ",\"mountpoint\":");
	put_string(&text, daemon->conf->dir);
	put(&text, ",\"pid\":%d,\"uptime_s\":%llu,", (int)getpid(),
	    (unsigned long long)((loop_now_ns() - daemon->start_ns) / 1000000000));
	put_connection(&text, daemon);
	put_requests(&text, daemon->stats);
	put(&text,
	    "\"in_flight\":%u,\"fuse\":{\"requests\":%llu,\"nodes\":%u},\"memory\":{\"rss_kb\":%ld}"
	    ",",
	    fs.in_flight, (unsigned long long)fs.requests, fs.nodes, rss_kb());
	put_refusal(&text, daemon);
	put(&text, "\"regions\":[");
	fs_for_each_open(daemon->fs, put_region, &regions);
	put(&text, "]}");
	return text.used;
}

const char *serve_flag_options(unsigned long flags)
{
	static char text[128];
	static const struct {
		unsigned long flag;
		const char *set, *clear;
	} names[] = {
	    /* libfuse sets these two unless it is told otherwise. */
	    {MS_NOSUID, ",nosuid", ",suid"},
	    {MS_NODEV, ",nodev", ",dev"},
	    {MS_NOEXEC, ",noexec", ""},
	    {MS_NOATIME, ",noatime", ""},
	    {MS_SYNCHRONOUS, ",sync", ""},
	    {MS_DIRSYNC, ",dirsync", ""},
	};

	strcpy(text, flags & MS_RDONLY ? "ro" : "rw");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		strcat(text, flags & names[i].flag ? names[i].set : names[i].clear);
	return text;
}
