/* SPDX-License-Identifier: Apache-2.0
 *
 * Work that a mount's daemon does for a command that waits: "pull" and "push" of many ranges
 * (mount/managed_control.h), a few at a time, with a bar for how far it is.
 */
#ifndef REMRAM_MOUNT_TASK_H
#define REMRAM_MOUNT_TASK_H

#include <stdint.h>

#include "core/err.h"
#include "core/pull_order.h"
#include "mount/progress.h"
#include "mount/target.h"

/* Cuts ranges to a region of `size` bytes: what is beyond its end is dropped.  Returns how many are left,
 * *ret_bytes is their sum. */
unsigned task_clip(struct pull_range *ranges, unsigned count, uint64_t size, uint64_t *ret_bytes);
/* Sorts by priority, the highest first; equal ones stay in their order.  0 or -ENOMEM. */
int task_sort(struct pull_range *ranges, unsigned count, struct err *err);
/* As many ranges, from the first on, as fit one request: writes them to buf and returns how many. */
unsigned task_batch(const struct pull_range *ranges, unsigned count, char *buf, size_t room);

/* Has the daemon do `verb` with the ranges, in their order, and waits.  total: what the bar counts to, if the
 * daemon does not say more; 0: only what the daemon says.  *ret_bytes: what the daemon had to do.  An interrupt
 * (cmd_interrupted) cancels what is under way: -EINTR. */
int task_run(const struct target *target, const char *verb, const struct pull_range *ranges,
    unsigned count, uint64_t total, struct progress *progress, uint64_t *ret_bytes,
    struct err *err);

#endif
