/* SPDX-License-Identifier: Apache-2.0
 *
 * `remram doctor`: checks the machine, and every mount or the one that is asked for.  Exit codes: 0
 * everything passes (or is a note), 1 there are warnings, 2 something fails.
 */
#include "mount/cmd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mount/doctor.h"
#include "mount/mountinfo.h"

enum { ANSWER_MS = 2000, EXIT_WARN = 1, EXIT_FAIL = 2 };

struct doctor_args {
	bool json, help;
};

/* clang-format off */
#define AT(member) OPT_AT(struct doctor_args, member)
static const struct opt table[] = {
	{.name = "json", .letter = 'j', .type = OPT_FLAG, AT(json), .help = "print JSON"},
	{.name = "help", .letter = 'h', .type = OPT_FLAG, AT(help), .help = "print this"},
	{.type = OPT_END},
};
/* clang-format on */

struct visit {
	struct doctor *doctor;
	const char *only; /* this mount point; NULL: all */
	bool found;
};

static void visit_each(void *ctx, const char *run_dir, const struct runstate *state)
{
	struct visit *visit = ctx;
	struct status *status;

	if (visit->only && strcmp(visit->only, state->dir))
		return;
	status = malloc(sizeof(*status));
	if (!status)
		return;
	visit->found = true;
	status_init(status, run_dir, state, ANSWER_MS);
	doctor_mount(visit->doctor, status);
	status_fini(status);
	free(status);
}

static int examine(struct doctor *doctor, const char *text, struct err *err)
{
	struct visit visit = {.doctor = doctor};
	char dir[PATH_MAX];
	int res;

	if (text) {
		res = mountinfo_resolve(text, dir, err);
		if (res)
			return res;
		visit.only = dir;
	}
	doctor_machine(doctor);
	runstate_each(visit_each, &visit);
	if (text && !visit.found)
		return err_set(err, -ENOENT, "%s is not a remram mount", dir);
	return 0;
}

int cmd_doctor(int argc, char **argv)
{
	struct doctor_args args = {0};
	enum doctor_level worst;
	struct doctor doctor;
	struct opts opts;
	struct err err;
	int operands;

	opts_init(&opts, table, &args);
	if (opts_argv(&opts, argc, argv, &operands, &err))
		return cmd_fail(EXIT_FAIL, &err);
	if (args.help || operands > 1) {
		fputs("usage: remram doctor [--json] [DIR]\n\n", args.help ? stdout : stderr);
		opts_print_help(table, OPT_IN_ARGV, args.help ? stdout : stderr);
		return args.help ? 0 : EXIT_FAIL;
	}
	if (cmd_need_root("examine this machine", &err))
		return cmd_fail(EXIT_FAIL, &err);
	doctor_init(&doctor);
	if (examine(&doctor, operands ? argv[1] : NULL, &err)) {
		doctor_fini(&doctor);
		return cmd_fail(EXIT_FAIL, &err);
	}
	if (args.json)
		doctor_print_json(&doctor, stdout);
	else
		doctor_print(&doctor, stdout);
	worst = doctor_worst(&doctor);
	doctor_fini(&doctor);
	return worst == DOCTOR_FAIL ? EXIT_FAIL : worst == DOCTOR_WARN ? EXIT_WARN : 0;
}
