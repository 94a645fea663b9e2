/* SPDX-License-Identifier: Apache-2.0
 *
 * `remram umount`, also as umount.remram and umount.fuse.remram: undoes a mount (mount/unmount.c).
 * Exit codes are those of umount(8).
 */
#include "mount/cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "mount/mountinfo.h"
#include "mount/serve.h"
#include "mount/unmount.h"

enum { LOCK_MS = 30000 };

struct umount_args {
	bool lazy, force, verbose, help;
	char *ns, *type;
};

/* clang-format off */
#define AT(member) OPT_AT(struct umount_args, member)
static const struct opt table[] = {
	{.name = "lazy", .letter = 'l', .type = OPT_FLAG, AT(lazy),
	 .help = "detach it now, even if it is in use"},
	{.name = "force", .letter = 'f', .type = OPT_FLAG, AT(force),
	 .help = "give up on a lost donor: what waits for it fails, swapped-out data is lost"},
	{.name = "verbose", .letter = 'v', .type = OPT_FLAG, AT(verbose), .help = "say what was done"},
	{.name = "namespace", .letter = 'N', .type = OPT_STRING, .placeholder = "FILE", AT(ns),
	 .help = "in this mount namespace"},
	{.name = "type", .letter = 't', .type = OPT_STRING, .placeholder = "TYPE", AT(type)},
	{.name = "no-mtab", .letter = 'n', .type = OPT_IGNORE},
	{.name = "read-only", .letter = 'r', .type = OPT_IGNORE},
	{.name = "sloppy", .letter = 's', .type = OPT_IGNORE},
	{.name = "help", .letter = 'h', .type = OPT_FLAG, AT(help), .help = "print this"},
	{.type = OPT_END},
};
/* clang-format on */

static int unmount_locked(
    const struct umount_args *args, const char *dir, const char *run_dir, struct err *err)
{
	struct unmount unmount = {.dir = dir,
	    .run_dir = run_dir,
	    .lazy = args->lazy,
	    .force = args->force,
	    .daemon_fd = -1,
	    .interrupted = &cmd_interrupted};
	char note[ERR_TEXT_MAX];
	int res = unmount_run(&unmount, note, err);

	if (res == 0 && note[0])
		fprintf(stderr, "remram: %s\n", note);
	else if (res == 0 && args->verbose)
		printf("%s unmounted\n", dir);
	return res;
}

/* A mount point that was removed after somebody else had unmounted it: there may be something to clean
 * up all the same. */
static bool is_known(const char *text, char dir[PATH_MAX])
{
	char run_dir[MOUNT_RUN_DIR_MAX];
	struct runstate state;
	struct err ignored;

	if (text[0] != '/' || runstate_load(runstate_dir(text, run_dir), &state, &ignored))
		return false;
	memcpy(dir, state.dir, PATH_MAX);
	return true;
}

static int run(const struct umount_args *args, const char *text, struct err *err)
{
	char dir[PATH_MAX], run_dir[MOUNT_RUN_DIR_MAX];
	struct mountinfo info;
	int lock, res = mountinfo_resolve(text, dir, err);
	bool ours;

	if (res == -ENOENT && is_known(text, dir))
		res = 0;
	if (res)
		return res;
	runstate_dir(dir, run_dir);
	ours = mountinfo_find(dir, &info) == 0 && !strcmp(info.type, MOUNTINFO_TYPE);
	/* Another umount may hold the lock and wait for what only this ends. */
	if (ours && args->force)
		unmount_give_up(run_dir, info.dev);
	/* A mount of ours without a run directory (it was removed by hand) is undone as well. */
	res = runstate_lock(run_dir, ours, LOCK_MS, &lock, err);
	if (res == -ENOENT)
		return err_set(err, res, "%s is not a remram mount", dir);
	if (res == -EBUSY)
		return err_set(err, res,
		    "another remram command is working on %s: wait for its end, or cut it off with "
		    "`remram abort %s`, which loses what the donor has not got",
		    dir, dir);
	if (res)
		return res;
	res = unmount_locked(args, dir, run_dir, err);
	runstate_unlock(lock);
	return res;
}

int cmd_umount(int argc, char **argv)
{
	struct umount_args args = {0};
	struct opts opts;
	struct err err;
	int operands, res;

	opts_init(&opts, table, &args);
	if (opts_argv(&opts, argc, argv, &operands, &err))
		return cmd_fail(MOUNT_EX_USAGE, &err);
	if (args.help || operands != 1) {
		fprintf(args.help ? stdout : stderr, "usage: remram umount [-lfv] DIR\n\n");
		opts_print_help(table, OPT_IN_ARGV, args.help ? stdout : stderr);
		return args.help ? MOUNT_EX_OK : MOUNT_EX_USAGE;
	}
	res = cmd_need_root("unmount", &err);
	if (res == 0 && args.ns)
		res = cmd_enter_namespace(args.ns, &err);
	cmd_catch_signals();
	if (res == 0)
		res = run(&args, argv[1], &err);
	opts_free(table, &args);
	return res ? cmd_fail(cmd_exit_code(res), &err) : MOUNT_EX_OK;
}
