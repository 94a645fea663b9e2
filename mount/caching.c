/* SPDX-License-Identifier: Apache-2.0
 *
 * The cache of a mount; see caching.h.
 *
 * Made → started (the managed pool serves) → leaving (no file is open) → left.  A directory is opened before the
 * donor is asked, since its identity is part of the hello, and claimed for the pool after the donor has said
 * which pool that is.
 */
#include "mount/caching.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "core/log.h"
#include "core/managed.h"
#include "core/workers.h"

enum {
	WORKERS = 2,
	SESSION = 1, /* pool_req.session, as the frontend has it */
};

struct caching {
	/* Constant after create. */
	const struct mount_conf *conf;
	struct loop *loop;
	struct workers *workers;
	struct cache_dir *dir; /* NULL: in memory */
	uint8_t identity[CACHE_ID_LEN];

	/* Loop thread only. */
	struct pool *pool;
	struct managed_first first;
	bool pulling_first;
	void (*first_done)(void *ctx);
	void *first_ctx;
	struct managed_drain drain;
	bool draining, drained; /* drained: it has ended, and nobody was told */
	int drain_err;
	bool given_up;
};

static int open_dir(struct caching *caching, struct err *err)
{
	const struct mount_conf *conf = caching->conf;
	int rc;

	if (!strcmp(conf->cache, "memory")) {
		if (getrandom(caching->identity, sizeof(caching->identity), 0) !=
		    sizeof(caching->identity))
			return err_sys(err, -errno, "no random numbers");
		return 0;
	}
	rc = cache_dir_open(conf->cache, conf->dir, caching->workers, &caching->dir, err);
	if (rc == 0)
		cache_dir_identity(caching->dir, caching->identity);
	return rc;
}

int caching_create(
    const struct mount_conf *conf, struct loop *loop, struct caching **ret_caching, struct err *err)
{
	struct caching *caching = calloc(1, sizeof(*caching));
	int rc;

	if (!caching)
		return err_set(err, -ENOMEM, "out of memory for a cache");
	caching->conf = conf;
	caching->loop = loop;
	rc = workers_create(WORKERS, &caching->workers, err);
	if (rc == 0)
		rc = open_dir(caching, err);
	if (rc) {
		caching_destroy(caching);
		return rc;
	}
	*ret_caching = caching;
	return 0;
}

void caching_destroy(struct caching *caching)
{
	if (!caching)
		return;
	pool_destroy(caching->pool);
	cache_dir_close(caching->dir);
	if (caching->workers)
		workers_destroy(caching->workers);
	free(caching);
}

const uint8_t *caching_identity(const struct caching *caching)
{
	return caching->identity;
}

int caching_start(struct caching *caching, struct pool *donor,
    const uint8_t uuid[POOL_IDENTITY_LEN], struct pool **ret_pool, struct err *err)
{
	const struct mount_conf *conf = caching->conf;
	struct managed_conf managed = {
	    .loop = caching->loop,
	    .lower = donor,
	    .workers = caching->workers,
	    .dir = caching->dir,
	    .session = SESSION,
	    .cache_size = conf->cache_size,
	    .max_dirty = conf->max_dirty,
	    .pull_window = conf->pull_window,
	    .push_interval_ms = conf->push_interval_ms,
	    .max_dirty_age_ms = conf->max_dirty_age_ms,
	    .pull = conf->pull,
	    .order = conf->order,
	    .order_count = conf->order_count,
	    .durability = conf->durability,
	    .touch = conf->lock_memory,
	};
	int rc = 0;

	if (caching->dir)
		rc = cache_dir_claim(caching->dir, conf->source.text, uuid, err);
	if (rc == 0)
		rc = managed_create(&managed, &caching->pool, err);
	if (rc == 0)
		*ret_pool = caching->pool;
	return rc;
}

/* ---- pull first ---- */

static void first_done(struct managed_first *first, int err)
{
	struct caching *caching =
	    (struct caching *)((char *)first - offsetof(struct caching, first));

	if (err)
		log_warn("pull_first: the pool's regions cannot be listed: %s", strerror(-err));
	caching->pulling_first = false;
	caching->first_done(caching->first_ctx);
}

void caching_pull_first(struct caching *caching, void (*done)(void *ctx), void *ctx)
{
	const struct mount_conf *conf = caching->conf;

	if (!conf->pull_first && !conf->pull_first_pct) {
		done(ctx);
		return;
	}
	caching->first_done = done;
	caching->first_ctx = ctx;
	caching->first.bytes = conf->pull_first;
	caching->first.pct = conf->pull_first_pct;
	caching->first.done = first_done;
	caching->pulling_first = true;
	managed_pull_first(caching->pool, &caching->first);
}

bool caching_first_progress(struct caching *caching, uint64_t *ret_total, uint64_t *ret_left)
{
	if (!caching->pulling_first)
		return false;
	managed_first_progress(&caching->first);
	*ret_total = caching->first.total;
	*ret_left = caching->first.left;
	return true;
}

/* ---- draining ---- */

static void drain_done(struct managed_drain *drain, int err)
{
	struct caching *caching =
	    (struct caching *)((char *)drain - offsetof(struct caching, drain));

	caching->draining = false;
	caching->drained = true;
	caching->drain_err = err;
}

size_t caching_drain(struct caching *caching, char *buf, size_t room)
{
	struct managed_status status;
	bool done;

	if (!caching->draining && !caching->drained) {
		caching->draining = true;
		caching->drain.done = drain_done;
		managed_drain(caching->pool, &caching->drain);
	}
	done = caching->drained;
	caching->drained = false;
	managed_status(caching->pool, &status);
	return (size_t)snprintf(buf, room,
	    "{\"state\":\"%s\",\"dirty\":%llu,\"errno\":%d,\"error\":\"%s\"}",
	    done ? "done" : "running", (unsigned long long)status.dirty,
	    done ? -caching->drain_err : 0,
	    done && caching->drain_err ? strerror(-caching->drain_err) : "");
}

/* ---- the end ---- */

void caching_leave(struct caching *caching, void (*done)(void *ctx), void *ctx)
{
	struct managed_status status;

	managed_status(caching->pool, &status);
	if (status.dirty)
		log_info("%s: pushing the last %llu bytes", caching->conf->dir,
		    (unsigned long long)status.dirty);
	managed_leave(caching->pool, done, ctx);
}

bool caching_keeps(const struct caching *caching)
{
	return caching->dir;
}

void caching_give_up(struct caching *caching)
{
	if (caching->given_up)
		return;
	caching->given_up = true;
	managed_give_up(caching->pool);
}
