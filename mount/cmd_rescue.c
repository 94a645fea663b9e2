/* SPDX-License-Identifier: Apache-2.0
 *
 * `remram rescue`: what a cache directory keeps aside (core/rescue.h): list it, write its dirty data into
 * a file, push it into a region, drop it.
 *
 * Works on the directory alone, whether a mount uses it or not.  A push goes through a mounted region like
 * any other writer, so the donor's lease and modes hold; it writes only what checks out, and only where
 * the entry is dirty, and drops nothing: that is another command.
 */
#include "mount/cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/rescue.h"
#include "core/uri.h"
#include "mount/json.h"
#include "mount/progress.h"
#include "mount/screen.h"
#include "mount/serve.h"
#include "mount/sys.h"

enum {
	COPY_BYTES = 1 << 20,
	WHEN_MAX = 32,
	NAME_COLUMNS = 40,
	NAME_BYTES = 4 * NAME_COLUMNS + 1,
	WHY_COLUMNS = 120,
	BAD_TEXT_MAX = 80,
};

struct rescue_args {
	bool json, force, help;
};

/* clang-format off */
#define AT(member) OPT_AT(struct rescue_args, member)
static const struct opt table[] = {
	{.name = "json", .letter = 'j', .type = OPT_FLAG, AT(json), .help = "list: print JSON"},
	{.name = "force", .letter = 'f', .type = OPT_FLAG, AT(force),
	 .help = "write and push also blocks that do not fit their checksum; drop entries with dirty data"},
	{.name = "help", .letter = 'h', .type = OPT_FLAG, AT(help), .help = "print this"},
	{.type = OPT_END},
};
/* clang-format on */

static const char usage[] = "usage: remram rescue [list] [--json] CACHEDIR\n"
			    "       remram rescue write [--force] CACHEDIR KEY FILE\n"
			    "       remram rescue push [--force] CACHEDIR KEY FILE\n"
			    "       remram rescue drop [--force] CACHEDIR KEY\n"
			    "\n"
			    "CACHEDIR is the DIR of -o cache=DIR; KEY is what list shows first.\n"
			    "\n";

/* ---- list -------------------------------------------------------------------------------------- */

struct listing {
	bool json;
	unsigned count;
};

/* The region's name as a terminal may have it; buf: NAME_BYTES. */
static const char *shown_name(const struct rescue_entry *entry, char *buf)
{
	return screen_name(entry->name, NAME_COLUMNS, !screen_utf8(), buf);
}

static void print_entry(const struct rescue_entry *entry)
{
	char name[NAME_BYTES], why[4 * WHY_COLUMNS + 1], dirty[SIZE_TEXT_MAX], size[SIZE_TEXT_MAX],
	    when[WHEN_MAX];
	time_t at = (time_t)entry->when;
	struct tm tm;

	localtime_r(&at, &tm);
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
	if (entry->index) {
		printf("%s  %s  a damaged index\n", entry->key, when);
		return;
	}
	printf("%s  %s  %s  %s%s dirty in %" PRIu64 " range%s, of %s\n", entry->key, when,
	    shown_name(entry, name), entry->unknown ? "up to " : "",
	    size_format(entry->dirty_bytes, dirty), entry->ranges, entry->ranges == 1 ? "" : "s",
	    size_format(entry->size, size));
	if (entry->why[0])
		printf("    %s\n", screen_name(entry->why, WHY_COLUMNS, !screen_utf8(), why));
}

static void write_entry(const struct rescue_entry *entry)
{
	fputs("{\"key\":", stdout);
	json_write_string(stdout, entry->key);
	printf(
	    ",\"kind\":\"%s\",\"when\":%" PRId64, entry->index ? "index" : "region", entry->when);
	if (!entry->index) {
		fputs(",\"name\":", stdout);
		json_write_string(stdout, entry->name);
		printf(",\"id\":%" PRIu64 ",\"size\":%" PRIu64 ",\"version\":%" PRIu64
		       ",\"dirty_bytes\":%" PRIu64 ",\"ranges\":%" PRIu64
		       ",\"unknown\":%s,\"why\":",
		    entry->id, entry->size, entry->version, entry->dirty_bytes, entry->ranges,
		    entry->unknown ? "true" : "false");
		json_write_string(stdout, entry->why);
	}
	putchar('}');
}

static void found_entry(void *ctx, const struct rescue_entry *entry)
{
	struct listing *listing = ctx;

	if (listing->json) {
		fputs(listing->count ? ",\n" : "[", stdout);
		write_entry(entry);
	} else {
		print_entry(entry);
	}
	listing->count++;
}

/* Prints nothing if the directory is no cache. */
static int list(const struct rescue_args *args, const char *dir, struct err *err)
{
	struct listing listing = {.json = args->json};
	int res = rescue_list(dir, found_entry, &listing, err);

	if (args->json && (res == 0 || listing.count))
		puts(listing.count ? "]" : "[]");
	else if (res == 0 && listing.count == 0)
		puts("nothing is kept aside");
	return res;
}

/* ---- one entry --------------------------------------------------------------------------------- */

struct wanted {
	const char *key;
	struct rescue_entry entry;
	bool found;
};

static void match_entry(void *ctx, const struct rescue_entry *entry)
{
	struct wanted *wanted = ctx;

	if (strcmp(entry->key, wanted->key))
		return;
	wanted->entry = *entry;
	wanted->found = true;
}

static int find_entry(const char *dir, const char *key, struct rescue_entry *ret, struct err *err)
{
	struct wanted *wanted = calloc(1, sizeof(*wanted));
	int res;

	if (!wanted)
		return err_sys(err, -ENOMEM, "%s", dir);
	wanted->key = key;
	res = rescue_list(dir, match_entry, wanted, err);
	if (res == 0 && !wanted->found)
		res = err_set(err, -ENOENT,
		    "%s: nothing is kept aside under \"%s\" (`remram rescue %s` lists what is)",
		    dir, key, dir);
	if (res == 0)
		*ret = wanted->entry;
	free(wanted);
	return res;
}

static int need_region(const struct rescue_entry *entry, struct err *err)
{
	if (!entry->index)
		return 0;
	return err_set(err, -EINVAL,
	    "%s is a damaged index, and has no region's data: sqlite3 may read it", entry->key);
}

/* "2 blocks do not fit their checksums"; buf: BAD_TEXT_MAX. */
static const char *bad_text(uint64_t bad, char *buf)
{
	snprintf(buf, BAD_TEXT_MAX,
	    bad == 1 ? "%" PRIu64 " block does not fit its checksum"
		     : "%" PRIu64 " blocks do not fit their checksums",
	    bad);
	return buf;
}

static int refuse_bad(uint64_t bad, const char *hint, struct err *err)
{
	char text[BAD_TEXT_MAX];

	return err_set(err, -EILSEQ, "%s: written just before the crash, or damaged; %s",
	    bad_text(bad, text), hint);
}

static int write_to(const struct rescue_args *args, const char *dir, const char *key,
    const char *to, struct err *err)
{
	char dirty[SIZE_TEXT_MAX], name[NAME_BYTES], text[BAD_TEXT_MAX];
	struct rescue_entry entry;
	uint64_t bad;
	int res = find_entry(dir, key, &entry, err);

	if (res == 0)
		res = need_region(&entry, err);
	if (res == 0)
		res = rescue_export(dir, key, to, &bad, err);
	if (res)
		return res;
	if (bad && !args->force) {
		unlink(to);
		return refuse_bad(bad, "--force writes them as they are", err);
	}
	printf("%s: %s%s of %s at their places, the rest are holes", to,
	    entry.unknown ? "up to " : "", size_format(entry.dirty_bytes, dirty),
	    shown_name(&entry, name));
	if (bad)
		printf("; %s", bad_text(bad, text));
	putchar('\n');
	return 0;
}

/* ---- push -------------------------------------------------------------------------------------- */

struct push {
	int from, to;
	char *buf; /* COPY_BYTES */
	const char *name; /* of the target */
	uint64_t done, total;
	struct progress progress;
	struct err *err;
	int res;
};

/* All of len bytes from one file to the other, at the same place. */
static int copy_piece(struct push *push, uint64_t off, size_t len)
{
	size_t have = 0;

	while (have < len) {
		ssize_t n = pread(push->from, push->buf + have, len - have, (off_t)(off + have));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_sys(push->err, n ? -errno : -EIO, "reading what was kept aside");
		have += (size_t)n;
	}
	for (size_t put = 0; put < len;) {
		ssize_t n = pwrite(push->to, push->buf + put, len - put, (off_t)(off + put));

		if (n < 0 && errno == EINTR && !cmd_interrupted)
			continue;
		if (n <= 0)
			return err_sys(push->err, n ? -errno : -EIO, "%s: writing at %" PRIu64,
			    push->name, off + put);
		put += (size_t)n;
	}
	return 0;
}

static void push_range(void *ctx, uint64_t off, uint64_t len)
{
	struct push *push = ctx;
	uint64_t end = off + len;

	while (push->res == 0 && off < end) {
		uint64_t left = end - off;
		size_t piece = left < COPY_BYTES ? (size_t)left : COPY_BYTES;

		if (cmd_interrupted)
			push->res = err_set(push->err, -EINTR,
			    "interrupted: what was kept aside is still there, %s has part of it",
			    push->name);
		else
			push->res = copy_piece(push, off, piece);
		off += piece;
		push->done += piece;
		progress_show(&push->progress, push->done, push->total, sys_now_ms());
	}
}

/* From the checked copy into the target. */
static int push_all(struct push *push, const char *dir, const char *key, struct err *err)
{
	int res = rescue_ranges(dir, key, push_range, push, err);

	if (res == 0)
		res = push->res;
	if (res == 0 && fsync(push->to))
		res = err_sys(err, -errno, "%s: fsync", push->name);
	return res;
}

/* A target that is there already, and large enough. */
static int open_target(struct push *push, struct err *err)
{
	struct stat st;

	push->to = open(push->name, O_WRONLY | O_CLOEXEC);
	if (push->to < 0 && errno == EBUSY)
		return err_sys(err, -EBUSY,
		    "%s is being written to by another client (`remram status` names it)",
		    push->name);
	if (push->to < 0)
		return err_sys(err, -errno, "%s", push->name);
	if (fstat(push->to, &st))
		return err_sys(err, -errno, "%s", push->name);
	if (!S_ISREG(st.st_mode))
		return err_set(
		    err, -EINVAL, "%s is not a region: mount its pool first", push->name);
	return 0;
}

/* The dirty data goes into a copy first, since that is where checksums are compared. */
static int push_copy(const struct rescue_args *args, struct push *push, const char *dir,
    const char *key, const char *copy, struct err *err)
{
	uint64_t bad;
	int res = rescue_export(dir, key, copy, &bad, err);

	if (res)
		return res;
	push->from = open(copy, O_RDONLY | O_CLOEXEC);
	unlink(copy);
	if (push->from < 0)
		return err_sys(err, -errno, "%s", copy);
	if (bad && !args->force)
		return refuse_bad(bad, "nothing was pushed; --force pushes them, too", err);
	return push_all(push, dir, key, err);
}

static int push_to(const struct rescue_args *args, const char *dir, const char *key, const char *to,
    struct err *err)
{
	struct push push = {.from = -1, .to = -1, .name = to, .err = err};
	struct rescue_entry entry;
	char copy[PATH_MAX], text[SIZE_TEXT_MAX];
	int res = find_entry(dir, key, &entry, err);

	if (res == 0)
		res = need_region(&entry, err);
	if (res)
		return res;
	if (snprintf(copy, sizeof(copy), "%s/rescue.%d", dir, (int)getpid()) >= (int)sizeof(copy))
		return err_sys(err, -ENAMETOOLONG, "%s", dir);
	push.total = entry.dirty_bytes;
	push.buf = malloc(COPY_BYTES);
	if (!push.buf)
		return err_sys(err, -ENOMEM, "%s", to);
	progress_begin(&push.progress, stderr, "pushing", false);
	res = open_target(&push, err);
	if (res == 0)
		res = push_copy(args, &push, dir, key, copy, err);
	progress_clear(&push.progress);
	if (push.from >= 0)
		close(push.from);
	if (push.to >= 0 && close(push.to) && res == 0)
		res = err_sys(err, -errno, "%s", to);
	free(push.buf);
	if (res == 0)
		printf("%s: %s pushed; `remram rescue drop %s %s` removes what was kept aside\n",
		    to, size_format(push.done, text), dir, key);
	return res;
}

/* ---- drop -------------------------------------------------------------------------------------- */

static int drop(const struct rescue_args *args, const char *dir, const char *key, struct err *err)
{
	char text[SIZE_TEXT_MAX], name[NAME_BYTES];
	struct rescue_entry entry;
	int res = find_entry(dir, key, &entry, err);

	if (res == 0 && entry.dirty_bytes && !args->force)
		res = err_set(err, -ENOTEMPTY,
		    "%s holds %s of %s that nobody else may have: --force drops it for ever", key,
		    size_format(entry.dirty_bytes, text), shown_name(&entry, name));
	return res ? res : rescue_drop(dir, key, err);
}

/* ---- the command ------------------------------------------------------------------------------- */

enum verb { LIST, WRITE, PUSH, DROP, VERBS };

/* What the operands say, without the verb; VERBS: nothing that we understand. */
static enum verb which(int *operands, char ***operand)
{
	static const char *const names[VERBS] = {"list", "write", "push", "drop"};
	static const int counts[VERBS] = {1, 3, 3, 2};
	enum verb verb = LIST;

	while (*operands && verb < VERBS && strcmp((*operand)[0], names[verb]))
		verb++;
	if (verb == VERBS) /* `remram rescue DIR` lists */
		return *operands == 1 ? LIST : VERBS;
	++*operand;
	return --*operands == counts[verb] ? verb : VERBS;
}

static int run(const struct rescue_args *args, enum verb verb, char **operand, struct err *err)
{
	switch (verb) {
	case WRITE:
		return write_to(args, operand[0], operand[1], operand[2], err);
	case PUSH:
		return push_to(args, operand[0], operand[1], operand[2], err);
	case DROP:
		return drop(args, operand[0], operand[1], err);
	default:
		return list(args, operand[0], err);
	}
}

int cmd_rescue(int argc, char **argv)
{
	struct rescue_args args = {0};
	char **operand = argv + 1;
	struct opts opts;
	struct err err;
	int operands, res;
	enum verb verb;

	opts_init(&opts, table, &args);
	if (opts_argv(&opts, argc, argv, &operands, &err))
		return cmd_fail(MOUNT_EX_USAGE, &err);
	verb = which(&operands, &operand);
	if (args.help || verb == VERBS) {
		fputs(usage, args.help ? stdout : stderr);
		opts_print_help(table, OPT_IN_ARGV, args.help ? stdout : stderr);
		return args.help ? MOUNT_EX_OK : MOUNT_EX_USAGE;
	}
	cmd_catch_signals();
	res = run(&args, verb, operand, &err);
	return res ? cmd_fail(cmd_exit_code(res), &err) : MOUNT_EX_OK;
}
