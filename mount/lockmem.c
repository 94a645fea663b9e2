/* SPDX-License-Identifier: Apache-2.0
 *
 * Keeping a daemon that serves swap out of the way of reclaim; see lockmem.h.
 *
 * Why the order matters:
 *   - PR_SET_IO_FLUSHER is a property of a thread that its children inherit, so it comes before the
 *     first thread.
 *   - mlockall(MCL_CURRENT) makes what is mapped resident, but a stack grows later, by page faults:
 *     it is grown before.  MCL_ONFAULT would leave the faults for the time when they are fatal.
 *   - MCL_FUTURE makes every later mapping resident in full, also thread stacks and malloc arenas
 *     that would hardly be used: hence one arena, and threads that exist before or have small stacks.
 *   - malloc must not shrink and grow the heap: memory that is given back has to be faulted in again.
 *     What is allocated later (nodes, handles, a new connection) comes from a heap that is grown before
 *     the lock, so that it needs no page.
 */
#include "mount/lockmem.h"

#include <errno.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "core/log.h"
#include "core/uri.h"
#include "mount/sys.h"

enum {
	STACK_BYTES = 256 * 1024, /* as much as the other threads of the daemon have */
	HEAP_BYTES = 4 << 20,
	PAGE_BYTES = 4096,
};

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

#define OOM_NEVER "-1000"

void lockmem_prepare(struct lockmem_refused *ret_refused)
{
	int res;

	memset(ret_refused, 0, sizeof(*ret_refused));
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0))
		snprintf(ret_refused->io_flusher, sizeof(ret_refused->io_flusher),
		    "PR_SET_IO_FLUSHER: %s", strerror(errno));
	res = sys_write_text("/proc/self/oom_score_adj", OOM_NEVER);
	if (res)
		snprintf(ret_refused->oom_score, sizeof(ret_refused->oom_score),
		    "oom_score_adj = " OOM_NEVER ": %s", strerror(-res));
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_TRIM_THRESHOLD, INT32_MAX);
	mallopt(M_MMAP_MAX, 0);
}

void lockmem_log_refused(const struct lockmem_refused *refused)
{
	if (refused->io_flusher[0])
		log_warn("%s: an allocation of this daemon may wait for swap", refused->io_flusher);
	if (refused->oom_score[0])
		log_warn("%s: the OOM killer may choose this daemon", refused->oom_score);
}

/* Grows the stack to the size it may need. */
static void __attribute__((noinline)) touch_stack(void)
{
	volatile uint8_t pages[STACK_BYTES];
	size_t off;

	for (off = 0; off < sizeof(pages); off += PAGE_BYTES)
		pages[off] = 0;
}

/* Leaves free memory in the heap, which malloc has been told to keep.  False: there is none. */
static bool grow_heap(void)
{
	uint8_t *heap = malloc(HEAP_BYTES);
	volatile uint8_t *pages = heap;
	size_t off;

	if (!heap)
		return false;
	for (off = 0; off < HEAP_BYTES; off += PAGE_BYTES)
		pages[off] = 0;
	free(heap);
	return true;
}

int lockmem_lock(struct err *err)
{
	struct rlimit limit;
	char text[SIZE_TEXT_MAX];
	int code;

	touch_stack();
	if (!grow_heap())
		return err_set(err, -ENOMEM, "out of memory for the daemon's heap");
	if (mlockall(MCL_CURRENT | MCL_FUTURE) == 0)
		return 0;
	code = -errno;
	if (getrlimit(RLIMIT_MEMLOCK, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return err_sys(err, code, "cannot lock the daemon's memory, which swap needs");
	return err_set(err, code,
	    "cannot lock the daemon's memory, which swap needs: %s (the limit is %s: raise it with "
	    "ulimit -l or LimitMEMLOCK=, or give CAP_IPC_LOCK)",
	    strerror(-code), size_format(limit.rlim_cur, text));
}
