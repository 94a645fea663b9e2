/* SPDX-License-Identifier: Apache-2.0
 *
 * `remram record`: notes down in which order a region is read, for `remram pull --order` and the pull_order
 * option.  Records while a command runs, or until it is interrupted; files must be opened after it has
 * begun.
 */
#include "mount/cmd.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/managed.h"
#include "core/uri.h"
#include "mount/order_file.h"
#include "mount/serve.h"
#include "mount/sys.h"
#include "mount/target.h"

enum { LOOK_MS = 200, EXIT_NO_COMMAND = 127 };

struct record_args {
	char *output;
	bool quiet, help;
};

/* clang-format off */
#define AT(member) OPT_AT(struct record_args, member)
static const struct opt table[] = {
	{.name = "output", .letter = 'o', .type = OPT_STRING, .placeholder = "FILE", AT(output),
	 .help = "write the order to FILE; default stdout"},
	{.name = "quiet", .letter = 'q', .type = OPT_FLAG, AT(quiet), .help = "print nothing but errors"},
	{.name = "help", .letter = 'h', .type = OPT_FLAG, AT(help), .help = "print this"},
	{.type = OPT_END},
};
/* clang-format on */

/* The command's end, and its exit code. */
static int run_command(char **command, int *ret_code, struct err *err)
{
	pid_t pid;
	int status;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		signal(SIGPIPE, SIG_DFL);
		execvp(command[0], command);
		fprintf(stderr, "remram: %s: %s\n", command[0], strerror(errno));
		_exit(EXIT_NO_COMMAND);
	}
	if (pid < 0)
		return err_sys(err, -errno, "cannot start %s", command[0]);
	/* A terminal's interrupt goes to both: what was recorded so far is still wanted. */
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return err_sys(err, -errno, "waiting for %s", command[0]);
		if (cmd_interrupted == SIGTERM || cmd_interrupted == SIGHUP)
			kill(pid, cmd_interrupted);
	}
	*ret_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	return 0;
}

static int set_recording(const struct target *target, bool on, struct err *err)
{
	char *answer;
	int res = target_ask(target, &answer, err, "record %llu %s", (unsigned long long)target->id,
	    on ? "on" : "off");

	if (res == 0)
		free(answer);
	return res;
}

/* What was recorded from range `start` on: *ret_next is where the next piece begins, *ret_count their
 * number in all. */
static int write_piece(const struct target *target, unsigned start, FILE *out, unsigned *ret_next,
    unsigned *ret_count, bool *ret_cut, struct err *err)
{
	struct pull_range *ranges;
	struct json *doc;
	unsigned count;
	const char *text;
	int res = target_ask_json(
	    target, &doc, err, "recorded %llu %u", (unsigned long long)target->id, start);

	if (res)
		return res;
	text = json_string(json_find(doc, "order"), "");
	*ret_next = (unsigned)json_number(json_find(doc, "next"), 0);
	*ret_count = (unsigned)json_number(json_find(doc, "count"), 0);
	*ret_cut = json_type(json_find(doc, "cut")) == JSON_TRUE;
	ranges = malloc(MANAGED_RECORD_MAX * sizeof(*ranges));
	if (!ranges)
		res = err_sys(err, -ENOMEM, "%s", target->path);
	else
		res = pull_order_parse(text, ranges, MANAGED_RECORD_MAX, &count, err);
	if (res == 0) {
		order_file_write(out, start ? NULL : target->path, ranges, count);
		if (*ret_next < start + count || (*ret_next == start && start < *ret_count))
			res = err_set(
			    err, -EPROTO, "%s: the daemon's answer makes no sense", target->path);
	}
	free(ranges);
	json_destroy(doc);
	return res;
}

static int write_recorded(
    const struct record_args *args, const struct target *target, FILE *out, struct err *err)
{
	unsigned next = 0, count = 0;
	bool cut = false;
	int res;

	do
		res = write_piece(target, next, out, &next, &count, &cut, err);
	while (res == 0 && next < count);
	if (res == 0 && (fflush(out) || ferror(out)))
		res = err_sys(
		    err, errno ? -errno : -EIO, "%s", args->output ? args->output : "stdout");
	if (res == 0 && !args->quiet)
		fprintf(stderr, "%u ranges recorded%s\n", count,
		    cut ? "; there were more than can be noted down" : "");
	return res;
}

static void wait_for_signal(const struct record_args *args, const struct target *target)
{
	if (!args->quiet)
		fprintf(stderr, "recording what is read of %s; Ctrl-C ends it\n", target->path);
	while (!cmd_interrupted)
		sys_sleep_ms(LOOK_MS);
}

static int record(const struct record_args *args, struct target *target, char **command, FILE *out,
    int *ret_code, struct err *err)
{
	struct err ignored;
	int res = target_hold(target, err);

	if (res == 0)
		res = set_recording(target, true, err);
	if (res)
		return res;
	if (*command)
		res = run_command(command, ret_code, err);
	else
		wait_for_signal(args, target);
	if (res) {
		set_recording(target, false, &ignored);
		return res;
	}
	res = set_recording(target, false, err);
	return res ? res : write_recorded(args, target, out, err);
}

static int run(const struct record_args *args, char **operand, int *ret_code, struct err *err)
{
	struct target target;
	FILE *out = stdout;
	int res = cmd_need_root("record what is read", err);

	if (res == 0)
		res = target_find(operand[0], false, &target, err);
	if (res)
		return res;
	/* Before the work, not after it, is when to find out that it can't be written. */
	if (args->output)
		out = fopen(args->output, "we");
	if (!out)
		return err_sys(err, -errno, "%s", args->output);
	res = record(args, &target, operand + 1, out, ret_code, err);
	if (out != stdout && fclose(out) && res == 0)
		res = err_sys(err, -errno, "%s", args->output);
	target_close(&target);
	return res;
}

int cmd_record(int argc, char **argv)
{
	struct record_args args = {0};
	struct opts opts;
	struct err err;
	int operands, code = 0, res;

	opts_init(&opts, table, &args);
	if (opts_argv(&opts, argc, argv, &operands, &err)) {
		opts_free(table, &args);
		return cmd_fail(MOUNT_EX_USAGE, &err);
	}
	if (args.help || operands < 1) {
		FILE *out = args.help ? stdout : stderr;

		fputs(
		    "usage: remram record [-q] [-o FILE] FILE [-- COMMAND ARG…]\n\n"
		    "Records what is read of FILE while COMMAND runs, or until Ctrl-C.  Programs must "
		    "open FILE after\nrecording has begun.  The exit code is COMMAND's.\n\n",
		    out);
		opts_print_help(table, OPT_IN_ARGV, out);
		opts_free(table, &args);
		return args.help ? MOUNT_EX_OK : MOUNT_EX_USAGE;
	}
	argv[1 + operands] = NULL;
	cmd_catch_signals();
	res = run(&args, argv + 1, &code, &err);
	opts_free(table, &args);
	return res ? cmd_fail(cmd_exit_code(res), &err) : code;
}
