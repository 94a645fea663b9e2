/* SPDX-License-Identifier: Apache-2.0
 *
 * A pool of buffers of one size, made at start, for one loop.
 *
 * The last buffer given back is the next one taken, so that a lightly used pool touches little
 * memory and what it touches is warm.  Loop thread only.
 */
#ifndef REMRAM_CORE_BUFPOOL_H
#define REMRAM_CORE_BUFPOOL_H

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"

struct bufpool;

/* `count` buffers of `size` bytes each (rounded up to pages, page-aligned).  touch: write to all of
 * it now, so that no page fault comes later. */
int bufpool_create(
    size_t size, unsigned count, bool touch, struct bufpool **ret_pool, struct err *err);
/* All buffers are back. */
void bufpool_destroy(struct bufpool *pool);

/* A buffer, or NULL when all are out. */
void *bufpool_get(struct bufpool *pool);
void bufpool_put(struct bufpool *pool, void *buf);

/* Gives the memory of those that are not out back to the system; they can still be got. */
void bufpool_trim(struct bufpool *pool);

/* How many are left to get. */
unsigned bufpool_left(const struct bufpool *pool);

#endif
