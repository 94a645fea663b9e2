/* SPDX-License-Identifier: Apache-2.0
 *
 * `remram pull`, `flush`, `evict`, `pin` and `unpin`: what can be asked of the cache of a mount.
 *
 * They find the mount by the file, and talk to its daemon: no data goes through the command.  pull and flush
 * wait, with a bar on a terminal; an interrupt cancels what is under way.
 */
#include "mount/cmd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/uri.h"
#include "mount/control.h"
#include "mount/order_file.h"
#include "mount/screen.h"
#include "mount/serve.h"
#include "mount/target.h"
#include "mount/task.h"

enum { NAME_COLUMNS = 60, NAME_BYTES = 4 * NAME_COLUMNS + 1 };

struct cache_args {
	bool quiet, help;
	char *order; /* a file */
};

/* clang-format off */
#define AT(member) OPT_AT(struct cache_args, member)
#define COMMON \
	{.name = "quiet", .letter = 'q', .type = OPT_FLAG, AT(quiet), .help = "print nothing but errors"}, \
	{.name = "help", .letter = 'h', .type = OPT_FLAG, AT(help), .help = "print this"}, \
	{.type = OPT_END}

static const struct opt pull_table[] = {
	{.name = "order", .letter = 'o', .type = OPT_STRING, .placeholder = "FILE", AT(order),
	 .help = "pull the ranges that FILE names, in its order (remram record writes such files; - is stdin)"},
	COMMON,
};
static const struct opt table[] = {COMMON};
/* clang-format on */

/* What a command works on: one region, or all of a mount's, one after the other. */
struct job {
	const struct cache_args *args;
	struct target target;
	struct pull_range *ranges; /* owned; as the user wants them */
	unsigned count;
	uint64_t bytes; /* that were done, in all */
	struct err *err;
};

/* ---- what to work on --------------------------------------------------------------------------- */

/* A range, ranges from a file, or all of the region. */
static int want_ranges(struct job *job, const char *text)
{
	int res;

	if (text && job->args->order)
		return err_set(job->err, -EINVAL, "either a range or --order, not both");
	if (job->args->order)
		res = order_file_read(job->args->order, &job->ranges, &job->count, job->err);
	else if (text)
		res = order_file_parse(
		    "RANGE", text, strlen(text), &job->ranges, &job->count, job->err);
	else
		res = order_file_parse("RANGE", "0-", 2, &job->ranges, &job->count, job->err);
	if (res == 0 && text && job->count == 0)
		res = err_set(job->err, -EINVAL, "a range is missing (as in 0-64M)");
	return res ? res : task_sort(job->ranges, job->count, job->err);
}

/* Calls each for every region of the mount that its daemon keeps, with job->target as if it had been
 * named. */
static int each_region(struct job *job, int (*each)(struct job *job))
{
	struct target *target = &job->target;
	struct json *doc;
	int res = target_ask_json(target, &doc, job->err, "status");

	if (res)
		return res;
	if (json_type(json_find(doc, "cache")) != JSON_OBJECT)
		res = err_set(job->err, -EOPNOTSUPP, "%s is mounted without a cache", target->dir);
	for (const struct json *region = json_first(json_find(doc, "regions")); region && res == 0;
	     region = json_next(region)) {
		if (json_type(json_find(region, "cache")) != JSON_OBJECT)
			continue;
		target->id = json_u64(json_find(region, "id"), 0);
		target->size = (uint64_t)json_number(json_find(region, "size"), 0);
		snprintf(target->path, sizeof(target->path), "%.*s/%.*s", PATH_MAX / 2, target->dir,
		    POOL_NAME_MAX, json_string(json_find(region, "name"), "?"));
		res = each(job);
	}
	json_destroy(doc);
	return res;
}

static const char *shown_path(const struct target *target, char *buf)
{
	return screen_name(
	    target->is_dir ? target->dir : target->path, NAME_COLUMNS, !screen_utf8(), buf);
}

/* counted: job->bytes is what was done. */
static void say(const struct job *job, const char *what, bool counted)
{
	char name[NAME_BYTES], text[SIZE_TEXT_MAX];

	if (!job->args->quiet && !counted)
		printf("%s: %s\n", shown_path(&job->target, name), what);
	else if (!job->args->quiet)
		printf("%s: %s %s\n", shown_path(&job->target, name), size_format(job->bytes, text),
		    what);
}

/* ---- pull and flush ---------------------------------------------------------------------------- */

/* expected: the ranges say how much there is to do. */
static int wait_for(struct job *job, const char *verb, const char *label, bool expected)
{
	struct pull_range *ranges = malloc((job->count ? job->count : 1) * sizeof(*ranges));
	struct progress progress;
	uint64_t total, bytes = 0;
	unsigned count;
	int res;

	if (!ranges)
		return err_sys(job->err, -ENOMEM, "%s", job->target.path);
	memcpy(ranges, job->ranges, job->count * sizeof(*ranges));
	count = task_clip(ranges, job->count, job->target.size, &total);
	progress_begin(&progress, stderr, label, job->args->quiet);
	res = task_run(
	    &job->target, verb, ranges, count, expected ? total : 0, &progress, &bytes, job->err);
	job->bytes += expected ? total : bytes;
	free(ranges);
	return res;
}

static int pull(struct job *job)
{
	/* An interrupt leaves what has come so far. */
	return wait_for(job, "pull", "pulling", true);
}

static int flush(struct job *job)
{
	return wait_for(job, "push", "flushing", false);
}

/* ---- evict, pin -------------------------------------------------------------------------------- */

/* Sends all ranges, as many at a time as fit a line; each takes the answers. */
static int send_ranges(
    struct job *job, const char *verb, int (*take)(struct job *job, const char *answer))
{
	char text[CONTROL_LINE_MAX / 2], *answer;
	unsigned taken;
	int res = 0;

	for (unsigned i = 0; res == 0 && i < job->count; i += taken) {
		taken = task_batch(job->ranges + i, job->count - i, text, sizeof(text));
		res = target_ask(&job->target, &answer, job->err, "%s %llu %s", verb,
		    (unsigned long long)job->target.id, text);
		if (res)
			break;
		res = take(job, answer);
		free(answer);
	}
	return res;
}

static int add_bytes(struct job *job, const char *answer)
{
	struct json *doc;
	int res = json_parse(answer, strlen(answer), &doc, job->err);

	if (res)
		return res;
	job->bytes += (uint64_t)json_number(json_find(doc, "bytes"), 0);
	json_destroy(doc);
	return 0;
}

static int evict(struct job *job)
{
	return send_ranges(job, "evict", add_bytes);
}

static int take_ok(struct job *job, const char *answer)
{
	return strcmp(answer, "ok") ? err_set(job->err, -EPROTO, "%s: the daemon answers \"%.40s\"",
					  job->target.path, answer)
				    : 0;
}

static int pin(struct job *job)
{
	int res = target_hold(&job->target, job->err);

	return res ? res : send_ranges(job, "keep", take_ok);
}

static int unpin(struct job *job)
{
	int res = target_hold(&job->target, job->err);

	return res ? res : send_ranges(job, "unkeep", take_ok);
}

/* ---- the commands ------------------------------------------------------------------------------ */

struct command {
	const char *name, *usage;
	const struct opt *table;
	bool dir_too;
	int (*each)(struct job *job);
	const char *said; /* behind a number of bytes; NULL: nothing is said */
	bool counts_all; /* the number is only right for all of a region */
};

static int run(const struct command *command, const struct cache_args *args, char **operand,
    int operands, struct err *err)
{
	struct job job = {.args = args, .err = err};
	int res = cmd_need_root(command->name, err);

	if (res)
		return res;
	res = target_find(operand[0], command->dir_too, &job.target, err);
	if (res)
		return res;
	res = want_ranges(&job, operands > 1 ? operand[1] : NULL);
	if (res == 0 && job.target.is_dir && operands > 1)
		res = err_set(
		    err, -EINVAL, "%s is a mount, not a file: it has no ranges", operand[0]);
	else if (res == 0 && job.target.is_dir)
		res = each_region(&job, command->each);
	else if (res == 0)
		res = command->each(&job);
	if (res == 0 && command->said)
		say(&job, command->said, operands == 1 || !command->counts_all);
	free(job.ranges);
	target_close(&job.target);
	return res;
}

static int command_main(const struct command *command, int argc, char **argv)
{
	struct cache_args args = {0};
	struct opts opts;
	struct err err;
	int operands, res;

	opts_init(&opts, command->table, &args);
	if (opts_argv(&opts, argc, argv, &operands, &err)) {
		opts_free(command->table, &args);
		return cmd_fail(MOUNT_EX_USAGE, &err);
	}
	if (args.help || operands < 1 || operands > 2) {
		FILE *out = args.help ? stdout : stderr;

		fprintf(out,
		    "usage: remram %s\n\nRANGE is FROM-TO[:PRIORITY],…, as in 0-64M:10,960M-:9; "
		    "without one it is all of the file.\n\n",
		    command->usage);
		opts_print_help(command->table, OPT_IN_ARGV, out);
		opts_free(command->table, &args);
		return args.help ? MOUNT_EX_OK : MOUNT_EX_USAGE;
	}
	cmd_catch_signals();
	res = run(command, &args, argv + 1, operands, &err);
	opts_free(command->table, &args);
	return res ? cmd_fail(cmd_exit_code(res), &err) : MOUNT_EX_OK;
}

int cmd_pull(int argc, char **argv)
{
	static const struct command command = {"pull into a cache",
	    "pull [-q] [--order FILE] FILE [RANGE]", pull_table, false, pull, "here", false};

	return command_main(&command, argc, argv);
}

int cmd_flush(int argc, char **argv)
{
	static const struct command command = {
	    "flush a cache", "flush [-q] FILE [RANGE] | DIR", table, true, flush, "flushed", true};

	return command_main(&command, argc, argv);
}

int cmd_evict(int argc, char **argv)
{
	static const struct command command = {"evict from a cache",
	    "evict [-q] FILE [RANGE] | DIR", table, true, evict, "given back", false};

	return command_main(&command, argc, argv);
}

int cmd_pin(int argc, char **argv)
{
	static const struct command command = {
	    "pin in a cache", "pin [-q] FILE [RANGE]", table, false, pin, NULL, false};

	return command_main(&command, argc, argv);
}

int cmd_unpin(int argc, char **argv)
{
	static const struct command command = {
	    "unpin in a cache", "unpin [-q] FILE [RANGE]", table, false, unpin, NULL, false};

	return command_main(&command, argc, argv);
}
