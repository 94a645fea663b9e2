/* SPDX-License-Identifier: Apache-2.0
 *
 * `remram doctor`: the conditions under which swapping to a donor is safe and fast, each one checked,
 * with what to do about it.
 */
#ifndef REMRAM_MOUNT_DOCTOR_H
#define REMRAM_MOUNT_DOCTOR_H

#include <stdbool.h>
#include <stdio.h>

#include "mount/status.h"

enum doctor_level {
	DOCTOR_PASS,
	DOCTOR_NOTE, /* could be better, for some uses; not a fault */
	DOCTOR_WARN, /* works, with a risk */
	DOCTOR_FAIL, /* swap must not be used like this, or will not work */
};

enum { DOCTOR_TEXT_MAX = 320 };

struct doctor_finding {
	char where[PATH_MAX]; /* "machine", or the mount point */
	const char *check; /* what was looked at */
	enum doctor_level level;
	char found[DOCTOR_TEXT_MAX]; /* what was found */
	char advice[DOCTOR_TEXT_MAX]; /* what to do about it, "" if nothing */
};

/* What was found so far. */
struct doctor {
	struct doctor_finding *findings; /* owned */
	unsigned count, room;
	char where[PATH_MAX]; /* of the findings that are added now */
};

void doctor_init(struct doctor *doctor);
void doctor_fini(struct doctor *doctor);

/* Adds a finding.  check is kept, not copied. Memory that runs out ends the process. */
void doctor_add(struct doctor *doctor, enum doctor_level level, const char *check, const char *fmt,
    ...) __attribute__((format(printf, 4, 5)));
/* What to do about the finding that was added last; not kept if that is a pass. */
void doctor_advise(struct doctor *doctor, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Checks the machine.  Changes nothing: what has to be tried is tried in a child process. */
void doctor_machine(struct doctor *doctor);
/* Checks one mount. */
void doctor_mount(struct doctor *doctor, const struct status *status);

/* The worst level that was found. */
enum doctor_level doctor_worst(const struct doctor *doctor);
void doctor_print(const struct doctor *doctor, FILE *out);
/* {"result": LEVEL, "checks": [{"where", "check", "level", "found", "advice"}, …]} */
void doctor_print_json(const struct doctor *doctor, FILE *out);

#endif
