/* SPDX-License-Identifier: Apache-2.0
 *
 * What local_pool.c (requests), local_change.c (those that change something) and local_load.c (beginning
 * and end) share.
 */
#ifndef REMRAM_CORE_LOCAL_POOL_INT_H
#define REMRAM_CORE_LOCAL_POOL_INT_H

#include <pthread.h>

#include "core/local_pool.h"
#include "core/region.h"
#include "core/region_table.h"

struct local_pool {
	struct pool pool;

	/* Constant after create. */
	struct backend *backend;
	struct catalogue *cat; /* NULL: nothing is remembered */
	struct workers *workers;
	uint8_t uuid[16];
	struct store_stats *stats;

	pthread_mutex_t ctl;

	/* Protected by mu. */
	pthread_mutex_t mu;
	struct region_table table;
	uint64_t next_id; /* without a catalogue */
	unsigned frees; /* regions on their way out */
	pthread_cond_t freed;
};

/* local_pool.c */
extern const struct pool_ops local_pool_ops; /* local_load.c */
void local_pool_submit(struct pool *pool, struct pool_req *req);
/* True if the region has come to its end; mu held.  The caller then calls local_region_free without
 * mu. */
bool local_region_ended(struct local_pool *lp, struct region *region);
void local_region_free(struct local_pool *lp, struct region *region);
/* Opens the region as req wants it, if that is allowed; mu held.  created: by this request. */
int local_open_locked(
    struct local_pool *lp, struct region *region, struct pool_req *req, bool created);
/* The whole of a POOL_OPEN, but for what the catalogue must know. */
int local_open(struct local_pool *lp, struct pool_req *req);
/* A region of this pool; before anybody uses it. */
void local_adopt(struct local_pool *lp, struct region *region);
void local_close_handle(struct local_pool *lp, struct handle *handle);

/* local_change.c */

/* Does a request that changes something; takes ctl, may block.  0 or -errno. */
int local_change(struct local_pool *lp, struct pool_req *req);
/* Tells the catalogue what a region is now; 0 without one.  region: NULL for one that is not in memory yet. */
int local_remember(struct local_pool *lp, struct region *region, const char *name,
    const struct region_attr *attr, const struct catalogue_writer *writer);
/* Before bytes change: the catalogue knows who is going to write.  Takes ctl, may block.  0 or -errno. */
int local_announce(struct local_pool *lp, struct region *region);

#endif
