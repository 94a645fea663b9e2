/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the bytes of an exported region are: what the contexts remram:resident and remram:dirty tell of, and what
 * CACHE changes.  The server knows only of regions whose bytes are all in its pool; whoever exports something
 * else (mount/file_residence.c: a file of a mount) tells it how to ask.
 *
 * One residence serves all loops at once: its functions are called on any of them.
 */
#ifndef REMRAM_CORE_RESIDENCE_H
#define REMRAM_CORE_RESIDENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/loop.h"
#include "core/workers.h"

struct residence;

/* Bytes that are alike. */
struct residence_run {
	uint64_t len; /* bytes */
	bool resident; /* a read needs nobody else for them */
	bool dirty; /* where the region lives it has older ones */
};

struct residence_req {
	/* Set by the caller. */
	uint64_t off, len; /* bytes, len > 0 */
	struct residence_run *runs; /* look: room for max ≥ 1 */
	unsigned max;
	void (*done)(struct residence_req *req, int err);
	unsigned task; /* pull: 0 at first; then the implementation's */

	/* look: ≥ 1, from off on; they may end before off + len. */
	unsigned ret_count;

	/* Private. */
	struct residence *residence;
	struct work work;
	int err;
};

struct residence_ops {
	/* What is where. done with 0, or -errno. */
	void (*look)(struct residence *residence, struct residence_req *req);
	/* Optional (NULL: reading is all that can be done).  Has the range fetched: done with 0 when all of it is
	 * resident, or has been; with -EAGAIN if it is not there yet: the caller calls again, with the
	 * same request, some time later, but within seconds, or calls forget; -errno: it can't be had. */
	void (*pull)(struct residence *residence, struct residence_req *req);
	/* A pull that got -EAGAIN last: nobody waits for it any more. */
	void (*forget)(struct residence *residence, struct residence_req *req);
};

/* Embedded as the first member of each implementation's struct. */
struct residence {
	const struct residence_ops
	    *ops; /* NULL: nothing can be said, and the contexts are not offered */
};

#endif
