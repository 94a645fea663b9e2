/* SPDX-License-Identifier: Apache-2.0
 *
 * What a mount daemon says of itself: one JSON object, written with snprintf into the caller's buffer.
 * A text that does not fit is cut at a member, and the object is closed all the same.
 */
#include "mount/serve_status.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "backends/peer.h"
#include "core/ahead.h"
#include "core/hist.h"
#include "core/local_pool.h"
#include "fuse/fs.h"
#include "mount/caching.h"
#include "mount/managed_control.h"
#include "mount/managed_json.h"
#include "mount/text.h"

enum { END_ROOM = 4096 }; /* bytes kept for what follows a list */

static void put_requests(struct text *text, const struct store_stats *stats)
{
	text_put(text, "\"requests\":{");
	for (int op = 0; op < STORE_RESIZE; op++) {
		const struct hist *hist = &stats->latency[op];

		text_put(text,
		    "%s\"%s\":{\"count\":%llu,\"bytes\":%llu,\"errors\":%llu,\"p50_us\":%.1f,\"p99_"
		    "us\":%.1f,"
		    "\"p999_us\":%.1f}",
		    op ? "," : "", store_op_name(op), (unsigned long long)stats->requests[op],
		    (unsigned long long)stats->bytes[op], (unsigned long long)stats->errors[op],
		    (double)hist_percentile(hist, 50) / 1e3,
		    (double)hist_percentile(hist, 99) / 1e3,
		    (double)hist_percentile(hist, 99.9) / 1e3);
	}
	text_put(text, "},");
}

/* Of a place that is reached over a network, as an NBD server is. */
static void put_link(struct text *text, const struct daemon *daemon)
{
	static const char *const names[] = {
	    [BACKEND_CONNECTED] = "connected",
	    [BACKEND_WAITING] = "waiting",
	    [BACKEND_FAILED] = "failed",
	};
	struct backend_link link;

	if (!local_pool_link(daemon->pool, &link))
		return;
	text_put(text, "\"connection\":{\"state\":\"%s\",\"peer\":", names[link.state]);
	text_put_string(text, link.address);
	text_put(text, ",\"since_ms\":%llu,\"reconnects\":%u,\"in_flight\":%u},",
	    (unsigned long long)((loop_now_ns() - link.since_ns) / 1000000), link.reconnects,
	    link.in_flight);
}

static void put_connection(struct text *text, const struct daemon *daemon)
{
	static const char *const names[] = {
	    [PEER_CONNECTED] = "connected",
	    [PEER_WAITING] = "waiting",
	    [PEER_FAILED] = "failed",
	};
	struct peer_status status;

	if (!daemon->donor) {
		put_link(text, daemon);
		return;
	}
	peer_pool_status(daemon->donor, &status);
	text_put(text,
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
	if (!text_has_room(text, END_ROOM))
		return;
	text_put(text, "%s{\"name\":", text->buf[text->used - 1] == '[' ? "" : ",");
	text_put_string(text, open->name);
	text_put(text, ",\"size\":%llu,\"open\":%u,\"lease\":\"%s\"}",
	    (unsigned long long)open->size, open->opens, lease_of(rt->daemon, open));
}

/* The last time that another client was in the way. */
static void put_refusal(struct text *text, const struct daemon *daemon)
{
	const struct fs_refusal *refusal = fs_last_refusal(daemon->fs);

	if (!refusal->at_ns)
		return;
	text_put(text, "\"busy\":{\"region\":");
	text_put_string(text, refusal->name);
	text_put(text, ",\"holder\":");
	text_put_string(text, refusal->holder);
	text_put(text, ",\"since_ms\":%llu},",
	    (unsigned long long)((loop_now_ns() - refusal->at_ns) / 1000000));
}

static void put_caching(struct text *text, const struct daemon *daemon)
{
	uint64_t total, left;

	text_put(text, "\"cache\":");
	managed_json_cache(text, daemon->pool);
	text_put(text, ",\"tasks\":%u,", managed_control_tasks(daemon->managed_control));
	if (caching_first_progress(daemon->caching, &total, &left))
		text_put(text, "\"pull_first\":{\"total\":%llu,\"left\":%llu},",
		    (unsigned long long)total, (unsigned long long)left);
}

static void put_ahead(struct text *text, const struct daemon *daemon)
{
	struct ahead_stats stats;

	ahead_pool_stats(daemon->ahead, &stats);
	text_put(text,
	    "\"read_ahead\":{\"hits\":%llu,\"waits\":%llu,\"bytes\":%llu,\"unused_bytes\":%llu},",
	    (unsigned long long)stats.hits, (unsigned long long)stats.waits,
	    (unsigned long long)stats.bytes, (unsigned long long)stats.unused_bytes);
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
	text_put(&text, "{\"source\":");
	text_put_string(&text, daemon->conf->source.text);
	text_put(&text, ",\"mountpoint\":");
	text_put_string(&text, daemon->conf->dir);
	text_put(&text, ",\"pid\":%d,\"uptime_s\":%llu,", (int)getpid(),
	    (unsigned long long)((loop_now_ns() - daemon->start_ns) / 1000000000));
	put_connection(&text, daemon);
	put_requests(&text, daemon->stats);
	text_put(&text,
	    "\"in_flight\":%u,\"fuse\":{\"requests\":%llu,\"nodes\":%u},\"memory\":{\"rss_kb\":%ld}"
	    ",",
	    fs.in_flight, (unsigned long long)fs.requests, fs.nodes, rss_kb());
	put_refusal(&text, daemon);
	if (daemon->ahead)
		put_ahead(&text, daemon);
	if (daemon->caching)
		put_caching(&text, daemon);
	text_put(&text, "\"regions\":");
	if (daemon->caching) {
		managed_json_regions(&text, daemon->pool, END_ROOM);
	} else {
		text_put(&text, "[");
		fs_for_each_open(daemon->fs, put_region, &regions);
		text_put(&text, "]");
	}
	text_put(&text, "}");
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
