/* SPDX-License-Identifier: Apache-2.0
 *
 * A managed region for tests (see tests/lib/cache_rig.h).
 */
#include "tests/lib/cache_rig.h"

#include <stdio.h>
#include <string.h>

#include "tests/lib/losing.h"

/* ret_losing: where the layer that loses goes, or NULL. */
static struct store *memory_side(struct backend **ret_backend, struct store **ret_memory,
    struct store **ret_losing, struct workers *workers, uint64_t size, uint64_t seed)
{
	struct store *fault, *lower;
	char uri[64];
	struct err err;

	snprintf(uri, sizeof(uri), "memory:?size=%llu", (unsigned long long)size);
	ck_assert_msg(backend_open(uri, false, workers, ret_backend, &err) == 0, "%s", err.text);
	ck_assert_int_eq(
	    (*ret_backend)->ops->region_open(*ret_backend, 7, true, ret_memory, &err), 0);
	lower = *ret_memory;
	if (ret_losing)
		lower = *ret_losing = losing_create(lower);
	ck_assert_int_eq(fault_create(lower, seed, &fault, &err), 0);
	return fault;
}

void cache_rig_build(struct cache_rig *cr, struct loop *loop, struct workers *workers,
    const struct cache_rig_conf *conf)
{
	uint64_t size_max = conf->size_max ? conf->size_max : conf->size;
	struct cache_group_conf group = {
	    .loop = loop,
	    .size = conf->cache_size,
	    .max_dirty = conf->max_dirty,
	    .buffers = conf->buffers,
	    .ops = conf->ops,
	    .pull_window = conf->pull_window,
	};
	struct cache_conf cache = {
	    .size = conf->size,
	    .size_max = size_max,
	    .durability = conf->durability,
	    .ctx = conf->ctx,
	    .commit = conf->commit,
	    .changed = conf->changed,
	};
	struct err err;

	if (!cr->local) { /* else they are there from before */
		cr->local =
		    memory_side(&cr->backends[0], &cr->memory[0], NULL, workers, size_max, 1);
		cr->remote = memory_side(&cr->backends[1], &cr->memory[1],
		    conf->losing ? &cr->losing : NULL, workers, size_max, 2);
	}
	cr->loop = loop;
	cr->stopped = false;
	ck_assert_int_eq(cache_group_create(&group, &cr->group, &err), 0);
	cache.group = cr->group;
	cache.local = cr->local;
	ck_assert_int_eq(cache_create(&cache, &cr->cache, &err), 0);
	if (!conf->no_puller)
		ck_assert_int_eq(
		    puller_create(&(struct puller_conf){cr->cache, conf->pull}, &cr->puller, &err),
		    0);
	if (!conf->no_pusher)
		ck_assert_int_eq(pusher_create(&(struct pusher_conf){cr->cache, conf->interval_ms,
						   conf->max_dirty_age_ms},
				     &cr->pusher, &err),
		    0);
	if (!conf->detached)
		cache_attach(cr->cache, cr->remote);
	ck_assert_int_eq(
	    cache_handle_create(cr->cache, POOL_READ | POOL_WRITE, &cr->handle, &err), 0);
	cr->store = &cr->handle->handle.store;
}

static void stopped(struct cache_call *call, int err)
{
	struct cache_rig *cr =
	    (struct cache_rig *)((char *)call - offsetof(struct cache_rig, stop));

	cr->stopped = true;
}

void cache_rig_stop(struct cache_rig *cr)
{
	if (cr->store)
		store_destroy(cr->store);
	cr->store = NULL;
	cr->stop.done = stopped;
	cache_stop(cr->cache, &cr->stop);
}

void cache_rig_close(struct cache_rig *cr)
{
	puller_destroy(cr->puller);
	pusher_destroy(cr->pusher);
	cache_destroy(cr->cache);
	cache_group_destroy(cr->group);
	cr->puller = NULL;
	cr->pusher = NULL;
	cr->cache = NULL;
	cr->group = NULL;
}

void cache_rig_free(struct cache_rig *cr)
{
	if (cr->cache)
		cache_rig_close(cr);
	store_destroy(cr->local);
	store_destroy(cr->remote);
	backend_close(cr->backends[0]);
	backend_close(cr->backends[1]);
	cr->local = cr->remote = NULL;
}

/* ---- simulated time ---- */

void sim_start(struct sim *sim)
{
	memset(sim, 0, sizeof(*sim));
	loop_simulate((uint64_t)1000000000);
	ck_assert_int_eq(loop_create(&(struct loop_conf){0}, &sim->loop, NULL), 0);
	ck_assert_int_eq(workers_create(1, &sim->workers, NULL), 0);
}

void sim_stop(struct sim *sim)
{
	workers_destroy(sim->workers);
	loop_destroy(sim->loop);
	loop_simulate(0);
}

static void time_is_up(struct loop_timer *timer)
{
	loop_stop(timer->loop ? timer->loop : loop_self());
}

void sim_run(struct sim *sim, uint64_t ns)
{
	sim->timer.expired = time_is_up;
	loop_timer_set(sim->loop, &sim->timer, loop_now_ns() + ns);
	loop_run(sim->loop);
	loop_timer_cancel(&sim->timer);
}

void sim_until(struct sim *sim, const bool *flag, uint64_t most)
{
	uint64_t end = loop_now_ns() + most;

	while (!*flag) {
		uint64_t now = loop_now_ns(), step = (end - now) / 64 + 1000;

		rig_check(now < end, "it has not happened in time");
		sim_run(sim, step < 1000000 ? step : 1000000);
	}
}

static void sim_done(struct store_req *req, int err)
{
	struct sim_req *sr = (struct sim_req *)req;

	rig_check(!sr->done, "done came twice");
	sr->done = true;
	sr->err = err;
}

void sim_submit(struct store *store, struct sim_req *sr)
{
	sr->done = false;
	sr->err = 1;
	sr->req.done = sim_done;
	store_submit(store, &sr->req);
}

static void submit_now(struct loop_task *task);

/* Requests are submitted from within the loop: the fault layer asks which one it is. */
struct sim_submitter {
	struct loop_task task;
	struct store *store;
	struct sim_req *sr;
};

static void submit_now(struct loop_task *task)
{
	struct sim_submitter *sub = (struct sim_submitter *)task;

	sim_submit(sub->store, sub->sr);
}

int sim_op(struct sim *sim, struct store *store, enum store_op op, uint64_t off, uint64_t len,
    void *buf, unsigned flags)
{
	struct sim_req sr = {
	    .req = {.op = op, .off = off, .len = len, .buf = buf, .flags = flags},
	};
	struct sim_submitter sub = {.task = {.run = submit_now}, .store = store, .sr = &sr};

	loop_defer(sim->loop, &sub.task);
	sim_until(sim, &sr.done, (uint64_t)600 * 1000000000);
	if (op == STORE_READ && sr.req.ret_lent)
		store_unlend(store, off, (uint32_t)len);
	return sr.err;
}

static void stop_now(struct loop_task *task)
{
	struct sim_stopper {
		struct loop_task task;
		struct cache_rig *cr;
	} *stopper = (void *)task;

	cache_rig_stop(stopper->cr);
}

void sim_end(struct sim *sim, struct cache_rig *cr)
{
	struct {
		struct loop_task task;
		struct cache_rig *cr;
	} stopper = {.task = {.run = stop_now}, .cr = cr};

	loop_defer(sim->loop, &stopper.task);
	do {
		sim_run(sim, 1000000);
	} while (!cr->stopped);
}
