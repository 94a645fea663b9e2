/* SPDX-License-Identifier: Apache-2.0
 *
 * What a command about a cache is to work on: a region, found by its file in a mount, or a whole mount, and
 * conversations with the mount's daemon about it (mount/managed_control.h).
 */
#ifndef REMRAM_MOUNT_TARGET_H
#define REMRAM_MOUNT_TARGET_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "core/pull_order.h"
#include "mount/conf.h"
#include "mount/json.h"

struct target {
	char path[PATH_MAX]; /* as the user wrote it; for messages */
	char dir[PATH_MAX]; /* the mount point */
	char control[MOUNT_RUN_DIR_MAX + 16]; /* the daemon's socket */
	bool is_dir; /* the mount itself, not a region; then id and size are 0 */
	uint64_t id;
	uint64_t size; /* bytes, when it was looked at */
	int fd; /* -1, or open for reading (target_hold) */
};

/* Finds the mount that path is a file of, or the root of if dir_too.  -EINVAL: it is neither. */
int target_find(const char *path, bool dir_too, struct target *ret_target, struct err *err);
/* Opens the region's file, so that the daemon keeps it until target_close. */
int target_hold(struct target *target, struct err *err);
void target_close(struct target *target);

/* Sends the line that fmt makes; *ret_answer (free() it) is what came.  -EREMOTEIO and the daemon's own
 * words if it refused, -EOPNOTSUPP if the mount has no cache. */
int target_ask(const struct target *target, char **ret_answer, struct err *err, const char *fmt,
    ...) __attribute__((format(printf, 4, 5)));
/* The same for answers in JSON: json_destroy(*ret_doc). */
int target_ask_json(const struct target *target, struct json **ret_doc, struct err *err,
    const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#endif
