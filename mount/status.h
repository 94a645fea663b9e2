/* SPDX-License-Identifier: Apache-2.0
 *
 * What `remram status` shows of one mount: what the commands know, the kernel says and the daemon
 * answers, put together.
 */
#ifndef REMRAM_MOUNT_STATUS_H
#define REMRAM_MOUNT_STATUS_H

#include <stdbool.h>
#include <stdio.h>

#include "core/err.h"
#include "mount/json.h"
#include "mount/runstate.h"

enum status_health {
	STATUS_LIVE, /* mounted, the daemon answers */
	STATUS_SILENT, /* the daemon runs but does not answer */
	STATUS_DEAD, /* mounted, the daemon has ended */
	STATUS_LEAVING, /* not mounted any more, but the daemon answers */
	STATUS_GONE, /* neither, but something is left */
};

struct status {
	struct runstate state;
	char run_dir[PATH_MAX];
	enum status_health health;
	bool mounted;
	struct json *daemon; /* owned: its answer; NULL unless live */
	char trouble[ERR_TEXT_MAX]; /* why it is not live */
};

/* Asks everybody about the mount that run_dir and state describe: waits at most timeout_ms for the
 * daemon.  status_fini frees what it found. */
void status_init(
    struct status *status, const char *run_dir, const struct runstate *state, unsigned timeout_ms);
void status_fini(struct status *status);

/* For people: several lines, the first of which is not indented. */
void status_print(const struct status *status, FILE *out);
/* One JSON object: mountpoint, source, pid, run_dir, state ("live", "silent", "dead", "leaving", "gone"), trouble,
 * devices (an array), by_hand (the loop devices that others made on its files), daemon (what the daemon said, or null). */
void status_print_json(const struct status *status, FILE *out);

/* Durations for people: "37 µs", "1.2 s", "3 h 12 min". buf: STATUS_TIME_MAX bytes; returns buf. */
enum { STATUS_TIME_MAX = 32 };
char *status_time(double us, char *buf);

#endif
