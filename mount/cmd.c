/* SPDX-License-Identifier: Apache-2.0
 *
 * What the commands of `remram` share; see cmd.h.
 */
#include "mount/cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "mount/serve.h"

volatile int cmd_interrupted;

static void caught(int signal_nr)
{
	cmd_interrupted = signal_nr;
}

void cmd_catch_signals(void)
{
	/* Without SA_RESTART: a wait ends, and its caller looks at cmd_interrupted. */
	const struct sigaction action = {.sa_handler = caught};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}

int cmd_exit_code(int res)
{
	switch (res) {
	case 0:
		return MOUNT_EX_OK;
	case -EPERM:
		return MOUNT_EX_USAGE;
	case -EINTR:
		return MOUNT_EX_USER;
	default:
		return MOUNT_EX_FAIL;
	}
}

int cmd_fail(int code, const struct err *err)
{
	fprintf(stderr, "remram: %s\n", err->text);
	return code;
}

int cmd_need_root(const char *what, struct err *err)
{
	if (geteuid() == 0)
		return 0;
	return err_set(err, -EPERM, "only root can %s: try sudo", what);
}

int cmd_enter_namespace(const char *ns, struct err *err)
{
	int res = 0, fd = open(ns, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return err_sys(err, -errno, "%s", ns);
	if (setns(fd, CLONE_NEWNS))
		res = err_sys(err, -errno, "%s: cannot enter this mount namespace", ns);
	close(fd);
	return res;
}
