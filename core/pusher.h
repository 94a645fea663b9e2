/* SPDX-License-Identifier: Apache-2.0
 *
 * The pusher: a pump that writes a cache's dirty blocks to the remote.
 *
 * It pushes a chunk when its oldest dirty block is `interval` old; at once when a flush waits for it, when
 * writers wait at max_dirty or for room, or when half of max_dirty is dirty.  Adjacent dirty blocks go in
 * one request of up to 1 MiB; punched ones as ZERO.  A push that fails leaves its blocks dirty; it is tried
 * again after 100 ms, doubling up to 10 s (a flush tries at once).  When nothing is dirty any more, the
 * remote is flushed after another interval; at once when what it has not flushed keeps others from having room.
 *
 * max_dirty_age is a promise: while something is older, writers wait.
 *
 * How much is in flight follows the measured bandwidth × round trip, within the group's push_window.
 * Threads: the cache's loop.
 */
#ifndef REMRAM_CORE_PUSHER_H
#define REMRAM_CORE_PUSHER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/cache.h"
#include "core/err.h"

struct pusher;

struct pusher_conf {
	struct cache *cache; /* kept */
	uint64_t interval_ms; /* 0: as soon as it is dirty */
	uint64_t max_dirty_age_ms; /* 0: no promise */
};

int pusher_create(const struct pusher_conf *conf, struct pusher **ret_pusher, struct err *err);
/* After cache_stop. */
void pusher_destroy(struct pusher *pusher);

void pusher_set_interval(struct pusher *pusher, uint64_t interval_ms, uint64_t max_dirty_age_ms);

struct pusher_status {
	uint64_t in_flight; /* bytes */
	uint64_t retry_ns; /* until the next attempt after a failure; 0: none failed lately */
	int error; /* of that failure */
	bool holding; /* writers wait because of max_dirty_age */
};

void pusher_status(const struct pusher *pusher, struct pusher_status *ret_status);

#endif
