/* SPDX-License-Identifier: Apache-2.0
 *
 * A backend: a kind of place where the regions of a pool live, and the registry of the kinds.
 *
 * A URI names one place: memory:?size=8G, file:/srv/pool.  The functions here are called from set-up
 * code or from a worker thread; they may block.
 */
#ifndef REMRAM_CORE_BACKEND_H
#define REMRAM_CORE_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "core/store.h"
#include "core/uri.h"
#include "core/workers.h"

/* How full a place is.  `used` counts allocated bytes (reserved ones too) of all its regions. */
struct quota {
	uint64_t limit; /* bytes; constant after create */
	_Atomic uint64_t used; /* bytes */
};

/* Adds len to used unless that passes the limit: 0 or -ENOSPC. */
int quota_take(struct quota *quota, uint64_t len);
void quota_give(struct quota *quota, uint64_t len);

/* Embedded as the first member of each implementation's struct. */
struct backend {
	const struct backend_ops *ops;
	struct quota quota; /* set by open, kept up by the stores */
	bool persistent; /* regions outlive the process: the pool keeps a catalogue */
	bool read_only; /* its one region can't be written */
	bool blocking; /* region_* may block for long: call them on a worker */
};

/* How a place that is reached over a network is doing. */
struct backend_link {
	enum { BACKEND_CONNECTED, BACKEND_WAITING, BACKEND_FAILED } state;
	uint64_t since_ns; /* loop_now_ns() when the state began */
	unsigned reconnects;
	unsigned in_flight; /* requests at the server or waiting for it */
	bool here; /* the server is on this machine */
	const char *address; /* for messages; as long as the backend lives */
};

struct backend_ops {
	const char *scheme; /* what the URI begins with */
	const char *help; /* one line for --help: "memory:?size=SIZE[&mlock][&prealloc]" */
	bool single; /* every place of this kind is one region: open always gets single = true */
	/* Opens a place for many regions (single = false: memory, a directory of region files), or one
	 * that is itself one region (single = true: `remram mount file:/path`; the region's id is
	 * 2).  Keeps workers. */
	int (*open)(const struct uri *uri, bool single, struct workers *workers,
	    struct backend **ret_backend, struct err *err);
	/* Opens region `id`'s bytes as a store (create: makes it anew, empty; else -ENOENT if there is
	 * none).  The store outlives neither region_remove nor close. */
	int (*region_open)(struct backend *backend, uint64_t id, bool create,
	    struct store **ret_store, struct err *err);
	/* Deletes the bytes of region `id`; its store is destroyed already. */
	int (*region_remove)(struct backend *backend, uint64_t id, struct err *err);
	/* Persistent backends: calls found(ctx, id) for each region there is. */
	int (*region_list)(struct backend *backend, void (*found)(void *ctx, uint64_t id),
	    void *ctx, struct err *err);
	/* Persistent backends, optional: the place belongs to the pool with this uuid from now on;
	 * -EEXIST with err set if it belongs to another one. */
	int (*claim)(struct backend *backend, const uint8_t uuid[16], struct err *err);
	/* Makes creations and removals stable. Optional. */
	int (*sync)(struct backend *backend);
	/* Free and total bytes as the place sees them, before the quota.  Optional. */
	void (*space)(struct backend *backend, uint64_t *ret_total, uint64_t *ret_free);
	/* The next three are for places that are reached over a network; all or none. */
	/* Requests fail with -EIO when the place was away for timeo_ms; else they wait.  Before use. */
	void (*patience)(struct backend *backend, uint64_t timeo_ms);
	/* On the loop whose requests it serves, like give_up: everything fails from then on. */
	void (*link)(struct backend *backend, struct backend_link *ret_link);
	void (*give_up)(struct backend *backend);
	/* All stores are destroyed. */
	void (*close)(struct backend *backend);
};

/* The table that a program with main() defines: backends/registry.c lists them all, NULL at its end. */
extern const struct backend_ops *const backend_registry[];

/* Parses text and opens the place.  An unknown scheme names the known ones. */
int backend_open(const char *text, bool single, struct workers *workers,
    struct backend **ret_backend, struct err *err);
void backend_close(struct backend *backend);

#endif
