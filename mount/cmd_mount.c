/* SPDX-License-Identifier: Apache-2.0
 *
 * `remram mount`, also as mount.remram and mount.fuse.remram: looks at everything that can be wrong
 * before a process is started, and then makes the mount (mount/launch.c).  Exit codes are those of
 * mount(8).
 */
#include "mount/cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mount/conf.h"
#include "mount/launch.h"
#include "mount/mountinfo.h"
#include "mount/runstate.h"
#include "mount/serve.h"
#include "mount/sys.h"
#include "mount/unmount.h"

enum { LOCK_MS = 5000 };

struct mount_args {
	struct mount_conf *conf;
	bool foreground, fake, help;
	bool mdoc; /* print the options as source for the man page */
	char *ns, *type;
};

static int take_options(void *ctx, const struct opt *opt, const char *value, struct err *err)
{
	return mount_conf_options(((struct mount_args *)ctx)->conf, value, err);
}

/* clang-format off */
#define AT(member) OPT_AT(struct mount_args, member)
#define COMMON \
	{.name = "options", .letter = 'o', .type = OPT_CALL, .placeholder = "OPTIONS", \
	 .call = take_options, .help = "settings of the mount, separated by commas; see below"}, \
	{.name = "namespace", .letter = 'N', .type = OPT_STRING, .placeholder = "FILE", AT(ns), \
	 .help = "in this mount namespace"}, \
	{.name = "type", .letter = 't', .type = OPT_STRING, .placeholder = "TYPE", AT(type)}, \
	{.name = "no-mtab", .letter = 'n', .type = OPT_IGNORE}, \
	{.name = "verbose", .letter = 'v', .type = OPT_IGNORE}, \
	{.name = "sloppy", .letter = 's', .type = OPT_IGNORE}, \
	{.name = "mdoc", .type = OPT_FLAG, AT(mdoc)}, \
	{.name = "help", .letter = 'h', .type = OPT_FLAG, AT(help), .help = "print this"}

static const struct opt command_table[] = {
	{.name = "foreground", .letter = 'f', .type = OPT_FLAG, AT(foreground),
	 .help = "serve in this process, until it is interrupted or the mount is unmounted"},
	COMMON,
	{.type = OPT_END},
};
static const struct opt helper_table[] = {
	{.name = "fake", .letter = 'f', .type = OPT_FLAG, AT(fake),
	 .help = "check the options and do nothing"},
	COMMON,
	{.type = OPT_END},
};
/* clang-format on */

static int fail(int exit_code, const struct err *err)
{
	return err->text[0] ? cmd_fail(exit_code, err) : exit_code;
}

/* Is there a FUSE in this kernel, and may we use it? */
static int check_fuse(struct err *err)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO)) {
		sys_modprobe("fuse");
		fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	}
	if (fd < 0 && (errno == EPERM || errno == EACCES))
		return err_sys(err, -errno, "/dev/fuse (does a container forbid the device?)");
	if (fd < 0)
		return err_sys(
		    err, -errno, "/dev/fuse: this kernel offers no FUSE (try: modprobe fuse)");
	close(fd);
	return 0;
}

/* The mount point; *ret_exit is set on failure. */
static int check_dir(const char *text, struct mount_conf *conf, struct err *err)
{
	struct mountinfo info;
	struct stat st;
	int res = mountinfo_resolve(text, conf->dir, err);

	if (res == -ENOENT)
		return err_set(
		    err, res, "%s: there is no such directory (mkdir -p makes it)", text);
	if (res)
		return res;
	if (mountinfo_find(conf->dir, &info) == 0 && !strcmp(info.type, MOUNTINFO_TYPE))
		return err_set(err, -EBUSY,
		    "%s is a remram mount already (of %s): unmount it first", conf->dir,
		    info.source);
	if (stat(conf->dir, &st))
		return err_sys(err, -errno, "%s", conf->dir);
	if (!S_ISDIR(st.st_mode))
		return err_set(err, -ENOTDIR, "%s is not a directory", conf->dir);
	return 0;
}

/* Clears away what a mount at the same place has left that was not unmounted by us. */
static int clear_stale(const struct mount_conf *conf, struct err *err)
{
	struct unmount unmount = {.dir = conf->dir,
	    .run_dir = conf->run_dir,
	    .daemon_fd = -1,
	    .interrupted = &cmd_interrupted};
	struct runstate state;
	char note[ERR_TEXT_MAX];
	int res = runstate_load(conf->run_dir, &state, err);

	if (res == -EINVAL) {
		runstate_remove(conf->run_dir);
		return 0;
	}
	if (res)
		return res;
	if (strcmp(state.dir, conf->dir))
		return err_set(err, -EEXIST,
		    "%s and %s have the same name %s: choose another place", conf->dir, state.dir,
		    conf->run_dir);
	return unmount_run(&unmount, note, err);
}

/* Takes the lock of the run directory, which then is there and empty. */
static int take_run_dir(struct mount_conf *conf, int *ret_lock, struct err *err)
{
	struct mountinfo info;
	struct runstate state;
	int lock, res;

	runstate_dir(conf->dir, conf->run_dir);
	for (;;) {
		res = runstate_lock(conf->run_dir, true, LOCK_MS, &lock, err);
		if (res)
			return res;
		/* Another mount command may have been faster. */
		if (mountinfo_find(conf->dir, &info) == 0 && !strcmp(info.type, MOUNTINFO_TYPE))
			res = err_set(err, -EBUSY, "%s is a remram mount already (of %s)",
			    conf->dir, info.source);
		else if (runstate_load(conf->run_dir, &state, err) == -ENOENT)
			break;
		else
			res = clear_stale(conf, err);
		runstate_unlock(lock);
		/* What was cleared away went with its directory: lock the next one. */
		if (res)
			return res;
	}
	*ret_lock = lock;
	return 0;
}

static int make_mount(const struct mount_args *args, const char *dir, struct err *err)
{
	struct mount_conf *conf = args->conf;
	int lock;

	if (cmd_need_root("mount", err))
		return MOUNT_EX_USAGE;
	if (args->ns && cmd_enter_namespace(args->ns, err))
		return MOUNT_EX_SYSERR;
	if (check_dir(dir, conf, err))
		return MOUNT_EX_FAIL;
	if (args->fake)
		return MOUNT_EX_OK;
	if (check_fuse(err))
		return MOUNT_EX_SYSERR;
	if (take_run_dir(conf, &lock, err))
		return err->code == -EBUSY ? MOUNT_EX_FAIL : MOUNT_EX_FILEIO;
	return launch(conf, lock, err);
}

static void print_help(bool helper, FILE *out)
{
	fprintf(out,
	    "usage: remram mount SOURCE DIR [-o OPTIONS]%s\n"
	    "\n"
	    "SOURCE is a donor's pool, HOST[:PORT]:/POOL, or a URI (file:/path, memory:?size=1G).\n"
	    "\n",
	    helper ? "" : " [-f]");
	opts_print_help(helper ? helper_table : command_table, OPT_IN_ARGV, out);
	fputs("\nOptions for -o:\n", out);
	mount_conf_help(out);
}

/* Everything that the arguments say: 0 or -errno. */
static int parse(int argc, char **argv, bool helper, const char *const *schemes,
    struct mount_args *args, struct err *err)
{
	struct opts opts;
	int operands, res;

	opts_init(&opts, helper ? helper_table : command_table, args);
	args->conf = calloc(1, sizeof(*args->conf));
	if (!args->conf)
		return err_sys(err, -ENOMEM, "remram mount");
	mount_conf_init(args->conf);
	res = opts_argv(&opts, argc, argv, &operands, err);
	if (res || args->help || args->mdoc)
		return res;
	if (operands != 2)
		return err_set(err, -EINVAL,
		    "%s: what to mount, and where: remram mount SOURCE DIR [-o OPTIONS] "
		    "(--help says more)",
		    operands < 2 ? "an argument is missing" : "too many arguments");
	res = source_parse(argv[1], schemes, &args->conf->source, err);
	if (res == 0)
		res = mount_conf_finish(args->conf, err);
	args->conf->foreground = args->foreground;
	return res;
}

int cmd_mount(int argc, char **argv, bool helper, const char *const *schemes)
{
	struct mount_args args = {0};
	int exit_code = MOUNT_EX_OK;
	struct err err = {0};

	if (parse(argc, argv, helper, schemes, &args, &err))
		exit_code = MOUNT_EX_USAGE;
	else if (args.help)
		print_help(helper, stdout);
	else if (args.mdoc)
		mount_conf_mdoc(stdout);
	else
		exit_code = make_mount(&args, argv[2], &err);
	if (args.conf)
		mount_conf_fini(args.conf);
	free(args.conf);
	opts_free(helper ? helper_table : command_table, &args);
	return exit_code ? fail(exit_code, &err) : MOUNT_EX_OK;
}
