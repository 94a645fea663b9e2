/* SPDX-License-Identifier: Apache-2.0
 *
 * A cache directory with its index on a loop (see tests/lib/index_rig.h).
 */
#include "tests/lib/index_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t pool_id[CACHE_ID_LEN] = "the pool's uuid";

static void ask_end(struct index_ask *ask, int err)
{
	pthread_mutex_lock(&ask->mu);
	ask->done = true;
	ask->err = err;
	pthread_cond_signal(&ask->cond);
	pthread_mutex_unlock(&ask->mu);
}

static void ask_called(struct index_call *call, int err)
{
	ask_end((struct index_ask *)call, err);
}

static void ask_start(void *ctx)
{
	struct index_ask *ask = ctx;

	ask->start(ask);
}

void index_ask_begin(struct index_rig *ir, struct index_ask *ask,
    void (*start)(struct index_ask *ask), const char *why)
{
	memset(ask, 0, sizeof(*ask));
	pthread_mutex_init(&ask->mu, NULL);
	pthread_cond_init(&ask->cond, NULL);
	ask->call.done = ask_called;
	ask->ir = ir;
	ask->start = start;
	ask->why = why;
	rig_call(ir->rig.loops[0], ask_start, ask);
}

int index_ask_wait(struct index_ask *ask)
{
	pthread_mutex_lock(&ask->mu);
	while (!ask->done)
		pthread_cond_wait(&ask->cond, &ask->mu);
	pthread_mutex_unlock(&ask->mu);
	return ask->err;
}

void index_ask_commit(struct index_ask *ask)
{
	indexed_commit(ask->ir->indexed, &ask->call);
}

void index_ask_close(struct index_ask *ask)
{
	indexed_close(ask->ir->indexed, &ask->call);
}

void index_ask_abandon(struct index_ask *ask)
{
	indexed_abandon(ask->ir->indexed, &ask->call);
}

void index_ask_forget(struct index_ask *ask)
{
	indexed_forget(ask->ir->indexed, &ask->call);
}

void index_ask_set_aside(struct index_ask *ask)
{
	indexed_set_aside(ask->ir->indexed, ask->why, &ask->call);
}

int index_rig_call(struct index_rig *ir, void (*start)(struct index_ask *ask), const char *why)
{
	struct index_ask ask;

	index_ask_begin(ir, &ask, start, why);
	return index_ask_wait(&ask);
}

static struct index_ask *loading;

static void load_called(struct index_load *load, int err)
{
	ask_end(loading, err);
}

static void load_start(struct index_ask *ask)
{
	loading = ask;
	ask->ir->load.done = load_called;
	cache_index_load(&ask->ir->load);
}

int index_rig_load(struct index_rig *ir, uint64_t id, const char *name, uint64_t size)
{
	int rc;

	memset(&ir->load, 0, sizeof(ir->load));
	ir->load.index = ir->index;
	ir->load.region.id = id;
	ir->load.region.size = size;
	ir->load.region.durability = -1;
	snprintf(ir->load.region.name, sizeof(ir->load.region.name), "%s", name);
	rc = index_rig_call(ir, load_start, NULL);
	ir->indexed = rc ? NULL : ir->load.indexed;
	return rc;
}

void index_rig_load_ok(struct index_rig *ir, uint64_t id, const char *name, uint64_t size)
{
	struct err err;

	ck_assert_msg(index_rig_load(ir, id, name, size) == 0, "%s", ir->load.err.text);
	ck_assert_msg(cache_dir_store(ir->dir, id, &ir->store, &err) == 0, "%s", err.text);
}

void index_rig_open(struct index_rig *ir, const char *path,
    void (*step_fn)(void *ctx, enum index_step step), void *ctx)
{
	struct cache_index_conf conf = {.step = step_fn, .ctx = ctx};
	struct err err;

	memset(ir, 0, sizeof(*ir));
	rig_start(&ir->rig, 1, 2);
	ck_assert_msg(cache_dir_open(path, "/mnt/test", ir->rig.workers, &ir->dir, &err) == 0, "%s",
	    err.text);
	ck_assert_msg(cache_dir_claim(ir->dir, "donor:/pool", pool_id, &err) == 0, "%s", err.text);
	conf.dir = ir->dir;
	ck_assert_msg(cache_index_open(&conf, &ir->index, &err) == 0, "%s", err.text);
}

void index_rig_close(struct index_rig *ir)
{
	cache_index_close(ir->index);
	cache_dir_close(ir->dir);
	rig_stop(&ir->rig);
}

int index_rig_end(struct index_rig *ir, void (*start)(struct index_ask *ask), const char *why)
{
	store_destroy(ir->store);
	ir->store = NULL;
	free(ir->load.chunks);
	ir->load.chunks = NULL;
	return index_rig_call(ir, start, why);
}
