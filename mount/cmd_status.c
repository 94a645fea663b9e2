/* SPDX-License-Identifier: Apache-2.0
 *
 * `remram status`: every mount that is there, or the ones that are asked for.
 *
 * Mounts are found by what is under /run/remram, and in the mount table: one whose directory under
 * /run was lost is shown as well.
 */
#include "mount/cmd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mount/mountinfo.h"
#include "mount/serve.h"
#include "mount/status.h"

enum { ANSWER_MS = 2000 };

struct status_args {
	bool json, help;
};

/* clang-format off */
#define AT(member) OPT_AT(struct status_args, member)
static const struct opt table[] = {
	{.name = "json", .letter = 'j', .type = OPT_FLAG, AT(json), .help = "print JSON"},
	{.name = "help", .letter = 'h', .type = OPT_FLAG, AT(help), .help = "print this"},
	{.type = OPT_END},
};
/* clang-format on */

struct listing {
	bool json;
	const char *only; /* this mount point; NULL: all */
	unsigned shown;
};

static void show(struct listing *listing, const char *run_dir, const struct runstate *state)
{
	struct status *status;

	if (listing->only && strcmp(listing->only, state->dir))
		return;
	status = malloc(sizeof(*status));
	if (!status)
		return;
	status_init(status, run_dir, state, ANSWER_MS);
	if (listing->json) {
		fputs(listing->shown ? ",\n" : "", stdout);
		status_print_json(status, stdout);
	} else {
		fputs(listing->shown ? "\n" : "", stdout);
		status_print(status, stdout);
	}
	listing->shown++;
	status_fini(status);
	free(status);
}

static void show_known(void *ctx, const char *run_dir, const struct runstate *state)
{
	show(ctx, run_dir, state);
}

static bool show_unknown(void *ctx, const struct mountinfo *info)
{
	struct runstate *state;
	char run_dir[MOUNT_RUN_DIR_MAX];
	struct err ignored;

	if (strcmp(info->type, MOUNTINFO_TYPE))
		return true;
	state = calloc(1, sizeof(*state));
	if (state && runstate_load(runstate_dir(info->dir, run_dir), state, &ignored)) {
		strcpy(state->dir, info->dir);
		strcpy(state->source, info->source);
		show(ctx, run_dir, state);
	}
	free(state);
	return true;
}

static int show_all(struct listing *listing, struct err *err)
{
	int res = runstate_each(show_known, listing);

	if (res)
		return err_sys(err, res, "%s", runstate_base());
	mountinfo_each(show_unknown, listing);
	return 0;
}

static int show_one(struct listing *listing, const char *text, struct err *err)
{
	char dir[PATH_MAX];
	unsigned before = listing->shown;
	int res = mountinfo_resolve(text, dir, err);

	if (res)
		return res;
	listing->only = dir;
	res = show_all(listing, err);
	if (res == 0 && listing->shown == before)
		res = err_set(err, -ENOENT, "%s is not a remram mount", dir);
	return res;
}

int cmd_status(int argc, char **argv)
{
	struct status_args args = {0};
	struct listing listing = {0};
	struct opts opts;
	struct err err;
	int operands, i, res = 0;

	opts_init(&opts, table, &args);
	if (opts_argv(&opts, argc, argv, &operands, &err))
		return cmd_fail(MOUNT_EX_USAGE, &err);
	if (args.help) {
		puts("usage: remram status [--json] [DIR…]\n");
		opts_print_help(table, OPT_IN_ARGV, stdout);
		return 0;
	}
	listing.json = args.json;
	fputs(args.json ? "[" : "", stdout);
	for (i = 1; res == 0 && i <= operands; i++)
		res = show_one(&listing, argv[i], &err);
	if (operands == 0)
		res = show_all(&listing, &err);
	fputs(args.json ? "]\n" : "", stdout);
	if (!args.json && !listing.shown && res == 0)
		puts("no remram mounts");
	return res ? cmd_fail(MOUNT_EX_USAGE, &err) : 0;
}
