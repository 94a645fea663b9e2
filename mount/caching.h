/* SPDX-License-Identifier: Apache-2.0
 *
 * The cache of a mount (-o cache=): a managed pool (core/managed.h) over the donor's, from the mount's options,
 * and what the mount daemon has to do with it at its beginning and end.
 */
#ifndef REMRAM_MOUNT_CACHING_H
#define REMRAM_MOUNT_CACHING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/loop.h"
#include "core/pool.h"
#include "mount/conf.h"

struct caching;

/* Before the donor is asked: opens the cache directory, if there is one, in the process that stays.  Blocks. */
int caching_create(const struct mount_conf *conf, struct loop *loop, struct caching **ret_caching,
    struct err *err);
/* After caching_leave, or caching_start was not called or failed.  Destroys the managed pool.  NULL does
 * nothing. */
void caching_destroy(struct caching *caching);

/* What the mount calls itself at the donor: the directory's identity, or one of this process. */
const uint8_t *caching_identity(const struct caching *caching);

/* The donor's pool answers: *ret_pool is the one to serve.  uuid: what the donor calls the pool. */
int caching_start(struct caching *caching, struct pool *donor,
    const uint8_t uuid[POOL_IDENTITY_LEN], struct pool **ret_pool, struct err *err);

/* Fetches what pull_first= wants; done comes when it is there, or at once if it wants nothing. */
void caching_pull_first(struct caching *caching, void (*done)(void *ctx), void *ctx);

/* How far that is, in bytes; false while it is not under way. */
bool caching_first_progress(struct caching *caching, uint64_t *ret_total, uint64_t *ret_left);

/* Draining, for the control socket: the first call begins to push all that is dirty, later ones tell how far
 * that is; after one has told its end, the next begins anew.  Writes one JSON object {"state":"running" or
 * "done","dirty":BYTES,"errno":N,"error":TEXT} and returns its length. */
size_t caching_drain(struct caching *caching, char *buf, size_t room);

/* The end, when no file is open any more: pushes what is dirty; done when all is closed. */
void caching_leave(struct caching *caching, void (*done)(void *ctx), void *ctx);
/* Whether what is dirty outlives this process. */
bool caching_keeps(const struct caching *caching);
/* What is dirty is not pushed any more. */
void caching_give_up(struct caching *caching);

#endif
