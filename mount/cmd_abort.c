/* SPDX-License-Identifier: Apache-2.0
 *
 * `remram abort`: ends a mount's connection in the kernel, whatever its daemon and its donor do.
 * Everybody who waits for the mount gets an error at once; the mount stays, dead, until it is
 * unmounted.  Needs nothing of the daemon, and never touches the mounted file system.
 */
#include "mount/cmd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "mount/control.h"
#include "mount/fusectl.h"
#include "mount/mountinfo.h"
#include "mount/runstate.h"
#include "mount/serve.h"

enum { FORGET_MS = 500 };

static int abort_mount(const char *text, struct err *err)
{
	char dir[PATH_MAX], run_dir[MOUNT_RUN_DIR_MAX], path[MOUNT_RUN_DIR_MAX + 16];
	struct mountinfo info;
	struct err ignored;
	int res = mountinfo_resolve(text, dir, err);

	if (res)
		return res;
	if (mountinfo_find(dir, &info) || strcmp(info.type, MOUNTINFO_TYPE))
		return err_set(err, -ENOENT, "%s is not a remram mount", dir);
	/* So that the daemon, if it can, ends what it holds in good order. */
	snprintf(path, sizeof(path), "%s/control", runstate_dir(dir, run_dir));
	control_command(path, "forget-donor", NULL, FORGET_MS, &ignored);
	res = fusectl_abort(fusectl_connection(info.dev), err);
	if (res == -ENOENT)
		return err_set(
		    err, res, "%s: its connection is ended already: umount %s", dir, dir);
	if (res == 0)
		printf("%s: aborted; `umount %s` removes the mount\n", dir, dir);
	return res;
}

int cmd_abort(int argc, char **argv)
{
	struct err err;
	int res;

	if (argc != 2 || argv[1][0] == '-') {
		fprintf(stderr, "usage: remram abort DIR\n");
		return MOUNT_EX_USAGE;
	}
	res = cmd_need_root("abort a mount", &err);
	if (res == 0)
		res = abort_mount(argv[1], &err);
	return res ? cmd_fail(res == -EPERM ? MOUNT_EX_USAGE : MOUNT_EX_FAIL, &err) : MOUNT_EX_OK;
}
