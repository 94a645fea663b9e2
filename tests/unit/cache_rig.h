/* SPDX-License-Identifier: Apache-2.0
 *
 * A cache directory with its index on a loop, for tests: open, load, commit and end as calls that wait.
 *
 * Included by test programs of their own; everything asserts (libcheck).
 */
#ifndef REMRAM_TESTS_CACHE_RIG_H
#define REMRAM_TESTS_CACHE_RIG_H

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cache_index.h"
#include "tests/lib/rig.h"

static const uint8_t cache_pool[CACHE_ID_LEN] = "the pool's uuid";

struct cache_rig {
	struct rig rig;
	struct cache_dir *dir;
	struct cache_index *index;
	struct indexed *indexed; /* of the region loaded last */
	struct index_load load;
	struct store *store;
};

/* One asynchronous step, started on the loop's thread, that a test waits for. */
struct cache_step {
	struct index_call call;
	struct cache_rig *cr;
	void (*start)(struct cache_step *step);
	const char *why;
	pthread_mutex_t mu;
	pthread_cond_t cond;
	bool done;
	int err;
};

static void cache_step_end(struct cache_step *step, int err)
{
	pthread_mutex_lock(&step->mu);
	step->done = true;
	step->err = err;
	pthread_cond_signal(&step->cond);
	pthread_mutex_unlock(&step->mu);
}

static void cache_step_called(struct index_call *call, int err)
{
	cache_step_end((struct cache_step *)call, err);
}

static void cache_step_start(void *ctx)
{
	struct cache_step *step = ctx;

	step->start(step);
}

static void cache_step_begin(struct cache_rig *cr, struct cache_step *step,
    void (*start)(struct cache_step *step), const char *why)
{
	memset(step, 0, sizeof(*step));
	pthread_mutex_init(&step->mu, NULL);
	pthread_cond_init(&step->cond, NULL);
	step->call.done = cache_step_called;
	step->cr = cr;
	step->start = start;
	step->why = why;
	rig_call(cr->rig.loops[0], cache_step_start, step);
}

static int cache_step_wait(struct cache_step *step)
{
	pthread_mutex_lock(&step->mu);
	while (!step->done)
		pthread_cond_wait(&step->cond, &step->mu);
	pthread_mutex_unlock(&step->mu);
	return step->err;
}

__attribute__((unused)) static void start_commit(struct cache_step *step)
{
	indexed_commit(step->cr->indexed, &step->call);
}

__attribute__((unused)) static void start_close(struct cache_step *step)
{
	indexed_close(step->cr->indexed, &step->call);
}

__attribute__((unused)) static void start_abandon(struct cache_step *step)
{
	indexed_abandon(step->cr->indexed, &step->call);
}

__attribute__((unused)) static void start_forget(struct cache_step *step)
{
	indexed_forget(step->cr->indexed, &step->call);
}

__attribute__((unused)) static void start_set_aside(struct cache_step *step)
{
	indexed_set_aside(step->cr->indexed, step->why, &step->call);
}

static int cache_call(struct cache_rig *cr, void (*start)(struct cache_step *step), const char *why)
{
	struct cache_step step;

	cache_step_begin(cr, &step, start, why);
	return cache_step_wait(&step);
}

static struct cache_step *loading_step;

static void load_called(struct index_load *load, int err)
{
	cache_step_end(loading_step, err);
}

__attribute__((unused)) static void start_load(struct cache_step *step)
{
	loading_step = step;
	step->cr->load.done = load_called;
	cache_index_load(&step->cr->load);
}

/* Loads region `id`; results in cr->load. */
static int cache_load_region(struct cache_rig *cr, uint64_t id, const char *name, uint64_t size)
{
	int rc;

	memset(&cr->load, 0, sizeof(cr->load));
	cr->load.index = cr->index;
	cr->load.region.id = id;
	cr->load.region.size = size;
	cr->load.region.durability = -1;
	snprintf(cr->load.region.name, sizeof(cr->load.region.name), "%s", name);
	rc = cache_call(cr, start_load, NULL);
	cr->indexed = rc ? NULL : cr->load.indexed;
	return rc;
}

static void cache_load_ok(struct cache_rig *cr, uint64_t id, const char *name, uint64_t size)
{
	struct err err;

	ck_assert_msg(cache_load_region(cr, id, name, size) == 0, "%s", cr->load.err.text);
	ck_assert_msg(cache_dir_store(cr->dir, id, &cr->store, &err) == 0, "%s", err.text);
}

/* Starts threads and opens path; *step_fn may be NULL. */
static void cache_rig_open(struct cache_rig *cr, const char *path,
    void (*step_fn)(void *ctx, enum index_step step), void *ctx)
{
	struct cache_index_conf conf = {.step = step_fn, .ctx = ctx};
	struct err err;

	memset(cr, 0, sizeof(*cr));
	rig_start(&cr->rig, 1, 2);
	ck_assert_msg(cache_dir_open(path, "/mnt/test", cr->rig.workers, &cr->dir, &err) == 0, "%s",
	    err.text);
	ck_assert_msg(
	    cache_dir_claim(cr->dir, "donor:/pool", cache_pool, &err) == 0, "%s", err.text);
	conf.dir = cr->dir;
	ck_assert_msg(cache_index_open(&conf, &cr->index, &err) == 0, "%s", err.text);
}

/* Regions and stores are closed. */
static void cache_rig_close(struct cache_rig *cr)
{
	cache_index_close(cr->index);
	cache_dir_close(cr->dir);
	rig_stop(&cr->rig);
}

/* Ends the region that is open, one way or the other. */
static int cache_end(struct cache_rig *cr, void (*start)(struct cache_step *step), const char *why)
{
	store_destroy(cr->store);
	cr->store = NULL;
	free(cr->load.chunks);
	cr->load.chunks = NULL;
	return cache_call(cr, start, why);
}

#endif
