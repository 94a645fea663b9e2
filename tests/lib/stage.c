/* SPDX-License-Identifier: Apache-2.0
 *
 * A cache on simulated time (see tests/lib/stage.h).
 */
#include "tests/lib/stage.h"

#include <string.h>

#include "core/cache_int.h"

struct stage stage;

void stage_begin(const struct cache_rig_conf *conf)
{
	memset(&stage.cr, 0, sizeof(stage.cr));
	sim_start(&stage.sim);
	cache_rig_build(&stage.cr, stage.sim.loop, stage.sim.workers, conf);
	for (unsigned i = 0; i < sizeof(stage.out); i++)
		stage.out[i] = (uint8_t)(i * 7 + i / 4096 + 1);
}

void stage_end(void)
{
	sim_end(&stage.sim, &stage.cr);
	cache_rig_free(&stage.cr);
	sim_stop(&stage.sim);
}

int stage_op(enum store_op kind, uint64_t off, uint64_t len, void *buf, unsigned flags)
{
	int rc = sim_op(&stage.sim, stage.cr.store, kind, off, len, buf, flags);

	cache_audit(stage.cr.cache);
	return rc;
}

int stage_flush(void)
{
	return stage_op(STORE_FLUSH, 0, 0, NULL, 0);
}

void stage_expect(struct store *store, uint64_t off, uint64_t len, const uint8_t *bytes)
{
	memset(stage.in, 0xee, len);
	ck_assert_int_eq(sim_op(&stage.sim, store, STORE_READ, off, len, stage.in, 0), 0);
	ck_assert_mem_eq(stage.in, bytes, len);
}

void stage_expect_remote(uint64_t off, uint64_t len, const uint8_t *bytes)
{
	stage_expect(stage.cr.memory[1], off, len, bytes);
}

void stage_fill_remote(uint64_t off, uint64_t len)
{
	ck_assert_int_eq(
	    sim_op(&stage.sim, stage.cr.memory[1], STORE_WRITE, off, len, stage.out, 0), 0);
}

void stage_fault(struct store *side, enum store_op kind, uint64_t count, int err, bool after)
{
	fault_add(side, &(struct fault_rule){
			    .kind = FAULT_FAIL,
			    .ops = FAULT_OP(kind),
			    .count = count,
			    .err = err,
			    .after = after,
			});
}

void stage_hold(struct store *side, enum store_op kind)
{
	fault_add(side, &(struct fault_rule){.kind = FAULT_HOLD, .ops = FAULT_OP(kind)});
}

struct cache_status stage_status(void)
{
	struct cache_status ret;

	cache_status(stage.cr.cache, &ret);
	return ret;
}

static void start_now(struct loop_task *task)
{
	struct stage_req *st = (struct stage_req *)task;

	sim_submit(st->store, &st->sr);
}

void stage_start(
    struct stage_req *st, enum store_op kind, uint64_t off, uint64_t len, void *buf, unsigned flags)
{
	*st = (struct stage_req){
	    .task = {.run = start_now},
	    .store = stage.cr.store,
	    .sr = {.req = {.op = kind, .off = off, .len = len, .buf = buf, .flags = flags}},
	};
	loop_defer(stage.sim.loop, &st->task);
	sim_run(&stage.sim, MS);
}
