/* SPDX-License-Identifier: Apache-2.0
 *
 * What a daemon says about its managed regions (core/managed.h), as JSON.  On the mount's loop; allocates
 * nothing.
 */
#ifndef REMRAM_MOUNT_MANAGED_JSON_H
#define REMRAM_MOUNT_MANAGED_JSON_H

#include <stdint.h>

#include "core/cache.h"
#include "core/err.h"
#include "core/pool.h"
#include "mount/text.h"

enum { MANAGED_JSON_REGION = 2048 }; /* bytes that a region takes at most, but for its name */

/* One object, for the member "cache" of the status: dir (null: in memory), size, resident, max_dirty, dirty
 * (bytes; sizes 0: no bound), oldest_dirty_ms, pull_rate, push_rate (bytes per second), pull_rtt_us,
 * push_rtt_us, pull_window, push_window (bytes), writers_waiting, regions, recovering, lost, leaving. */
void managed_json_cache(struct text *text, const struct pool *pool);

/* An array with the regions that are open, cached or to be recovered, for the member "regions": id (a string: it has up to 20 digits), name,
 * size, open (handles), writers, state ("cold", "opening", "open", "idle", "lost", "ending"), lease ("held",
 * "lost", "none"), durability, recovering, recording, index_error (a text, "": none), and cache, null or an
 * object: resident, local, dirty, pulling, pushing, fetched, pushed, evicted (bytes), oldest_dirty_ms, hits,
 * misses, push_errors, error, frozen (texts, "": none), attached, pull ("all", "sequential", "none"),
 * pull_active, jobs, pull_errors, retry_ms, holding.  Stops, whole, when `keep` bytes of room are left. */
void managed_json_regions(struct text *text, const struct pool *pool, size_t keep);

/* {"id":ID,"cells":[[RESIDENT,DIRTY,BUSY],…]}: shares of MAP_WHOLE (mount/map.h), BUSY 0 or 1.  cells: room
 * for count of them.  0, or -ENOENT: the region has no cache. */
int managed_json_map(struct text *text, const struct pool *pool, uint64_t id,
    struct cache_cell *cells, unsigned count, struct err *err);

/* {"id":ID,"runs":[[LEN,RESIDENT,DIRTY],…]}: bytes, then 0 or 1 each.  0, or -ENOENT: the region has no cache. */
enum { MANAGED_JSON_RUNS = 512 };
int managed_json_runs(struct text *text, const struct pool *pool, uint64_t id, uint64_t off,
    uint64_t len, struct cache_run runs[MANAGED_JSON_RUNS], struct err *err);

#endif
