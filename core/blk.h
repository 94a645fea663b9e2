/* SPDX-License-Identifier: Apache-2.0
 *
 * The blocking adapter: a store made of plain blocking calls.
 *
 * A backend author who has pread and pwrite writes a struct blk_ops; the adapter runs it on worker
 * threads and completes on the loop that submitted.  Several loops may use the store at once, and
 * several calls of one blk run at once: blk_ops must be thread-safe.
 */
#ifndef REMRAM_CORE_BLK_H
#define REMRAM_CORE_BLK_H

#include "core/store.h"
#include "core/workers.h"

/* All return 0 or -errno and may block.  Ranges keep rule 5 of core/store.h; all of a call happens or
 * it fails (rule 6): the file backend loops over short transfers by itself.  ctx is what
 * blk_store_create was given. */
struct blk_ops {
	const char *name;
	int (*pread)(void *ctx, void *buf, uint32_t len, uint64_t off);
	int (*pwrite)(void *ctx, const void *buf, uint32_t len, uint64_t off, bool fua);
	/* keep: blocks that are allocated stay reserved. */
	int (*zero)(void *ctx, uint64_t off, uint64_t len, bool keep, bool fua);
	/* keep: what stat calls size stays as it is; else it becomes off + len if it was less. */
	int (*alloc)(void *ctx, uint64_t off, uint64_t len, bool keep);
	int (*flush)(void *ctx);
	/* Optional; NULL: one allocated extent. */
	int (*extents)(void *ctx, uint64_t off, uint64_t len, struct extent *extents, unsigned max,
	    unsigned *ret_count);
	int (*resize)(void *ctx, uint64_t size);
	/* Optional: a try that never blocks, on the loop's thread: 0, or -EAGAIN: call pread. */
	int (*pread_nowait)(void *ctx, void *buf, uint32_t len, uint64_t off);
	/* Optional, see store_ops.stat. */
	int (*stat)(void *ctx, struct store_stat *ret_stat);
	/* Frees ctx. */
	void (*close)(void *ctx);
};

/* A store of `size` bytes at most over ops.  Keeps workers (borrowed until destroy); takes ctx: also
 * on failure it is closed.  align is what pread and pwrite want (1 for any byte).  The requests in
 * flight at once are bounded (BLK_IN_FLIGHT); more wait in order. */
enum { BLK_IN_FLIGHT = 128 };
int blk_store_create(const struct blk_ops *ops, void *ctx, uint64_t size, uint32_t align,
    struct workers *workers, struct store **ret_store, struct err *err);

#endif
