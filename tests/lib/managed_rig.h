/* SPDX-License-Identifier: Apache-2.0
 *
 * A managed pool for tests: over a pool of this process or over one at a donor, with copies in memory or in a
 * cache directory.  `other` is another client of the same pool, without a cache: what it sees is what has arrived.
 * One at a time: `mr`.
 *
 * Everything asserts (libcheck), unless it returns an error.
 */
#ifndef REMRAM_TESTS_MANAGED_RIG_H
#define REMRAM_TESTS_MANAGED_RIG_H

#include "core/managed.h"
#include "tests/lib/serve.h"

/* To wait: so often, so long each. */
enum { MIB = 1 << 20, MR_WAIT_TRIES = 1000, MR_WAIT_US = 10000 };

enum { MR_LOCAL_MEMORY, MR_LOCAL_DIR, MR_PEER_MEMORY, MR_PEER_DIR, MR_STACKS };

struct managed_rig {
	struct rig rig;
	struct serve serve;
	struct client lower, other, top; /* below the managed pool, beside it, and itself */
	struct cache_dir *dir;
	char path[RIG_PATH_MAX]; /* of the cache directory */
	struct managed_conf conf; /* for the next mr_begin */
	bool is_peer, has_dir;
	uint8_t data[4 * MIB], back[4 * MIB]; /* a pattern, and what was read */
};

extern struct managed_rig mr;

/* The stack below, and a conf that pulls nothing. */
void mr_setup(int stack);
void mr_teardown(void);
/* A life of the managed pool; it gives up at its end, or pushes. */
void mr_begin(void);
void mr_end(bool give_up);
/* From now on nothing is pushed. */
void mr_give_up(void);

/* ---- asking; `client` is one of mr's ---- */

uint64_t mr_id_of(struct client *client, const char *name);
struct region_attr mr_attr_of(struct client *client, const char *name);
/* The error of POOL_OPEN. */
int mr_open_at(struct client *client, const char *name, unsigned flags, uint64_t version,
    struct pool_req *ret);
/* Opens it once a lease that is in the way has been given back. */
struct handle *mr_open(struct client *client, const char *name, unsigned flags);

void mr_put(struct handle *handle, uint64_t off, const void *buf, uint32_t len);
/* Asserts that [off, off+len) reads as `bytes`; for the other client, too. */
void mr_reads(struct handle *handle, uint64_t off, const uint8_t *bytes, uint32_t len);
void mr_other_reads(const char *name, uint64_t off, const uint8_t *bytes, uint32_t len);
int mr_flush(struct handle *handle);

/* Of a region of the managed pool; a value is text. */
int mr_get_xattr(const char *region, const char *name, char *buf, size_t room);
int mr_set_xattr(const char *region, const char *name, char *value);
/* Evicts what can be evicted. */
int mr_evict(uint64_t id);

/* What the managed pool tells of itself and of a region. */
struct mr_look {
	uint64_t id;
	struct managed_region region;
	struct managed_status status;
	int rc;
};

struct mr_look mr_look(const char *name);
void mr_wait_state(const char *name, enum managed_state state);

#endif
