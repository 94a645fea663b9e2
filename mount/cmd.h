/* SPDX-License-Identifier: Apache-2.0
 *
 * The commands of `remram`, one file each (mount/cmd_*.c), and what they share.  Every cmd_* function
 * takes the arguments as main() has them, argv[0] being the command's name for messages, and returns
 * the exit code of the process.
 */
#ifndef REMRAM_MOUNT_CMD_H
#define REMRAM_MOUNT_CMD_H

#include <limits.h>
#include <stdbool.h>

#include "core/err.h"
#include "core/opts.h"

/* `remram mount SRC DIR [-o …] [-f]`.  helper: called by mount(8), so -f means "fake".  schemes: the
 * backends' schemes, NULL at the end. */
int cmd_mount(int argc, char **argv, bool helper, const char *const *schemes);
/* `remram umount DIR [-lf]`. */
int cmd_umount(int argc, char **argv);
/* `remram abort DIR`. */
int cmd_abort(int argc, char **argv);
/* `remram status [--json] [DIR…]`. */
int cmd_status(int argc, char **argv);
/* `remram doctor [--json] [DIR]`. */
int cmd_doctor(int argc, char **argv);
/* `remram pull [--order FILE] FILE [RANGE]`, `remram flush|evict FILE [RANGE]|DIR`,
 * `remram pin|unpin FILE [RANGE]`. */
int cmd_pull(int argc, char **argv);
int cmd_flush(int argc, char **argv);
int cmd_evict(int argc, char **argv);
int cmd_pin(int argc, char **argv);
int cmd_unpin(int argc, char **argv);
/* `remram record [-o FILE] FILE [-- COMMAND…]`. */
int cmd_record(int argc, char **argv);
/* `remram top [--once]`. */
int cmd_top(int argc, char **argv);
/* `remram rescue [list|write|push|drop] …`. */
int cmd_rescue(int argc, char **argv);

/* `remram export SOURCE --nbd ADDR …`; its options, for the man page. */
int cmd_export(int argc, char **argv);
extern const struct opt cmd_export_options[];

/* Set when SIGINT, SIGTERM or SIGHUP has come; cmd_catch_signals makes them interrupt what waits. */
extern volatile int cmd_interrupted;
void cmd_catch_signals(void);

/* The exit code for -errno, as mount(8) numbers them: MOUNT_EX_USAGE for -EPERM, MOUNT_EX_USER for -EINTR,
 * otherwise MOUNT_EX_FAIL; MOUNT_EX_OK for 0. */
int cmd_exit_code(int res);

/* Prints "remram: TEXT" to stderr and returns code. */
int cmd_fail(int code, const struct err *err);

/* 0, or -EPERM with a sentence, unless the process is root. */
int cmd_need_root(const char *what, struct err *err);

/* Enters the mount namespace that the file ns names (-N of mount(8) and umount(8)). */
int cmd_enter_namespace(const char *ns, struct err *err);

#endif
