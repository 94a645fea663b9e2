/* SPDX-License-Identifier: Apache-2.0
 *
 * What the control socket (mount/control.h) of a mount with a cache answers beside the rest.  ID is a
 * region's inode number, RANGES is text as core/pull_order.h has it, at most MANAGED_CONTROL_RANGES of them:
 *
 *   map ID CELLS        → one JSON object (mount/managed_json.h); 1 to MAP_CELLS_MAX cells
 *   runs ID OFF LEN     → one JSON object (mount/managed_json.h): what of these bytes is resident, and dirty
 *   pull ID RANGES      → "ok TASK": fetches them, those with the highest priority first
 *   push ID RANGES      → "ok TASK": pushes what is dirty there and flushes the donor
 *   task TASK           → {"state":"running" or "done","errno":N,"error":TEXT,"total":BYTES,"left":BYTES}; with
 *                         "done" the task is forgotten.  errno 0: it succeeded.  A push counts all that is
 *                         dirty in the region
 *   cancel TASK         → "ok": it ends with ECANCELED
 *   evict ID RANGES     → {"bytes":N}: so many were given back
 *   keep ID RANGES      → "ok": they are not evicted any more
 *   unkeep ID RANGES    → "ok": they may be
 *   record ID on|off    → "ok": what is read is noted down from now on, or no more
 *   recorded ID START   → {"count":N,"cut":BOOL,"next":N,"order":RANGES}: what was, from the START-th range on;
 *                         count is that of all ranges, next is where to go on, count at the end
 *
 * A task that nobody has asked about for MANAGED_CONTROL_PATIENCE_MS is cancelled: whoever waited for it has died.
 */
#ifndef REMRAM_MOUNT_MANAGED_CONTROL_H
#define REMRAM_MOUNT_MANAGED_CONTROL_H

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"
#include "core/loop.h"
#include "core/pool.h"

enum {
	MANAGED_CONTROL_RANGES = 32, /* of one request */
	MANAGED_CONTROL_TASKS = 32, /* at once; more are refused */
	MANAGED_CONTROL_PATIENCE_MS = 10000,
};

struct managed_control;

/* For a managed pool (kept) on its loop (kept).  Allocates all that it will need. */
int managed_control_create(
    struct loop *loop, struct pool *pool, struct managed_control **ret_mc, struct err *err);
/* Begins no more tasks, and cancels those that there are.  Before managed_leave. */
void managed_control_stop(struct managed_control *mc);
/* After pool_destroy, or while there is no task.  NULL does nothing. */
void managed_control_destroy(struct managed_control *mc);

/* How many tasks there are, those that nobody has asked about since their end included. */
unsigned managed_control_tasks(const struct managed_control *mc);

/* Writes the answer to a line, without a newline, and returns its length; 0: it is none of the above. */
size_t managed_control_answer(struct managed_control *mc, const char *line, char *buf, size_t room);

#endif
