/* SPDX-License-Identifier: Apache-2.0
 *
 * Keeping a daemon that serves swap out of the way of reclaim: what it needs to write a page out must
 * itself never have to be read in, allocated or waited for.
 *
 * In this order: lockmem_prepare, then every thread (the one that writes the log, too: log_start), buffers
 * and connections (each buffer touched, each thread with a small stack), then lockmem_lock, then the first
 * request.
 */
#ifndef REMRAM_MOUNT_LOCKMEM_H
#define REMRAM_MOUNT_LOCKMEM_H

#include "core/err.h"

/* Why a step that helps, but is not needed, was refused; "" if it was not. */
struct lockmem_refused {
	char io_flusher[160];
	char oom_score[160];
};

/* To be called before any other thread is started, as threads inherit what it sets: makes the process
 * an I/O flusher (its allocations never wait for swap), exempts it from the OOM killer, and keeps
 * malloc in one arena that never gives memory back.  Where the kernel refuses the first two (they
 * need CAP_SYS_RESOURCE) *ret_refused says so; it is not an error.  Does not log. */
void lockmem_prepare(struct lockmem_refused *ret_refused);

/* A log_warn for each refusal. */
void lockmem_log_refused(const struct lockmem_refused *refused);

/* Touches this thread's stack and some heap for what is allocated later, and locks all memory, present and
 * future.  -ENOMEM, -EPERM with what to do about it: without the lock the machine can hang, so the mount must
 * not come up. */
int lockmem_lock(struct err *err);

#endif
