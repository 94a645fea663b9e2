/* SPDX-License-Identifier: Apache-2.0
 *
 * A region that is cut off (see tests/lib/crash_region.h): what core/managed*.c does between cache, index and
 * donor, but for leases and names.
 */
#include "tests/lib/crash_region.h"

#include <string.h>
#include <unistd.h>

#include "core/cache_pump.h"
#include "core/managed_int.h"
#include "core/puller.h"
#include "core/pusher.h"
#include "tests/lib/crash_cut.h"
#include "tests/lib/crash_world.h"
#include "tests/lib/forgetful.h"
#include "tests/lib/index_rig.h"

#define MIB ((uint64_t)1 << 20)
#define MS ((uint64_t)1000000)
#define SIZE ((uint64_t)FORGETFUL_SECTORS * FORGETFUL_SECTOR)

enum { REGION_ID = 42 };

struct crash_region crash_region;

/* From open to close.  Loop thread, but for what is said. */
static struct life {
	struct index_rig ir; /* the main thread's */
	struct cache_group *group;
	struct puller *puller;
	struct pusher *pusher;
	struct forgetful donor;
	/* Commits: one that the cache waits for, and those of its owner. */
	struct cache_call *cache_waits;
	struct index_call cache_commit, own_commit;
	bool own_committing;
	struct loop_timer commit_timer;
	/* The resize under way. */
	uint64_t new_size; /* bytes */
	bool shrinks; /* the donor has agreed to new_size */
	struct cache_call *resize_call;
	struct index_call resize_commit;
	struct loop_timer resize_timer;
	struct cache_call stop;
	bool stopped;
} life;

/* ---- the index ---- */

static void describe(void)
{
	struct index_region region = {
	    .id = REGION_ID,
	    .size = life.shrinks ? life.new_size : cache_size(crash_region.cache),
	    .durability = -1,
	    .name = "region",
	};

	indexed_describe(life.ir.indexed, &region);
}

static unsigned on_take(void *ctx, struct index_chunk *chunks, unsigned max)
{
	struct cache_chunk some[4]; /* few: takes are in several parts, too */
	unsigned n = 0, got, want;

	describe(); /* the size goes with the rows */
	do {
		want = max - n < 4 ? max - n : 4;
		got = cache_take_changed(crash_region.cache, some, want);
		for (unsigned i = 0; i < got; i++)
			chunks[n++] =
			    (struct index_chunk){some[i].idx, some[i].resident, some[i].dirty};
	} while (got == want && n < max);
	return n;
}

static void on_state(void *ctx, struct index_chunk *chunk)
{
	struct cache_chunk now = {.idx = chunk->idx};

	cache_look(crash_region.cache, &now);
	chunk->resident = now.resident;
	chunk->dirty = now.dirty;
}

static void on_give_back(void *ctx, const struct index_chunk *chunks, unsigned count)
{
	ck_abort_msg("nothing fails here");
}

static void on_stored(void *ctx, const struct index_chunk *chunks, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct cache_chunk chunk = {chunks[i].idx, chunks[i].resident, chunks[i].dirty};

		cache_stored(crash_region.cache, &chunk, 1);
	}
}

static const struct indexed_ops index_ops = {
    .take = on_take, .state = on_state, .give_back = on_give_back, .stored = on_stored};

static void on_step(void *ctx, enum index_step step)
{
	crash_cut_pass(step);
}

/* ---- commits ---- */

static void cache_committed(struct index_call *call, int err)
{
	struct cache_call *waits = life.cache_waits;

	life.cache_waits = NULL;
	waits->done(waits, err);
}

static void on_commit(void *ctx, struct cache_call *call)
{
	rig_check(!life.cache_waits, "one at a time");
	life.cache_waits = call;
	life.cache_commit.done = cache_committed;
	describe();
	indexed_commit(life.ir.indexed, &life.cache_commit);
}

static void own_committed(struct index_call *call, int err)
{
	life.own_committing = false;
}

void crash_region_commit(void)
{
	if (life.own_committing)
		return;
	life.own_committing = true;
	life.own_commit.done = own_committed;
	describe();
	indexed_commit(life.ir.indexed, &life.own_commit);
}

static void commit_time(struct loop_timer *timer)
{
	crash_region_commit();
}

static void on_changed(void *ctx)
{
	if (!life.commit_timer.loop)
		loop_timer_set(loop_self(), &life.commit_timer,
		    loop_now_ns() + rig_random_below(&crash_region.random, 20 * MS));
}

/* ---- the donor ---- */

static void on_changed_there(bool flush)
{
	crash_cut_pass(flush ? CRASH_DONOR_FLUSH : CRASH_DONOR_WRITE);
}

static uint64_t donor_size(void)
{
	return (uint64_t)crash_world->donor.size * FORGETFUL_SECTOR;
}

/* Sizes: as core/managed_meta.c does it. */
static void resize_committed(struct index_call *call, int err)
{
	rig_check(err == 0, "a commit: %d", err);
	life.shrinks = false;
	life.resize_call->done(life.resize_call, 0);
}

static void donor_resizes(struct loop_timer *timer)
{
	forgetful_resize(&life.donor, life.new_size);
	crash_cut_pass(CRASH_DONOR_RESIZE);
	if (life.new_size >= cache_size(crash_region.cache)) {
		life.resize_call->done(life.resize_call, 0);
		return;
	}
	life.shrinks = true;
	life.resize_commit.done = resize_committed;
	describe();
	indexed_commit(life.ir.indexed, &life.resize_commit);
}

static void on_remote_resize(void *ctx, uint64_t size, struct cache_call *call)
{
	life.new_size = size;
	life.resize_call = call;
	life.resize_timer.expired = donor_resizes;
	loop_timer_set(loop_self(), &life.resize_timer,
	    loop_now_ns() + rig_random_below(&crash_region.random, MS));
}

/* ---- opening ---- */

static void make_pumps(void)
{
	struct rig_random *random = &crash_region.random;
	struct puller_conf pull = {crash_region.cache, PULL_ALL};
	struct pusher_conf push = {crash_region.cache, 0, 0};
	struct err err;

	if (rig_random_below(random, 3))
		pull.mode = PULL_NONE;
	ck_assert_int_eq(puller_create(&pull, &life.puller, &err), 0);
	push.interval_ms = rig_random_below(random, 30);
	ck_assert_int_eq(pusher_create(&push, &life.pusher, &err), 0);
}

static void load_chunks(uint64_t trim)
{
	for (size_t i = 0; i < life.ir.load.count; i++) {
		const struct index_chunk *chunk = &life.ir.load.chunks[i];
		struct cache_chunk loaded = {chunk->idx, chunk->resident, chunk->dirty};

		cache_load(crash_region.cache, &loaded);
		if ((chunk->idx + 1) * CACHE_CHUNK > trim)
			cache_load_cut(crash_region.cache, chunk->idx);
	}
}

/* On the loop; ctx: what is beyond this was cut off. */
static void make_cache(void *ctx)
{
	struct cache_group_conf group = {
	    .loop = crash_region.loop, .size = 2 * MIB, .max_dirty = MIB};
	struct cache_conf conf = {
	    .local = life.ir.store,
	    .size = index_size(&life.ir.load, donor_size()),
	    .size_max = SIZE,
	    .remote_resize = on_remote_resize,
	    .commit = on_commit,
	    .changed = on_changed,
	};
	struct cache_handle *handle;
	struct err err;

	/* As core/managed_begin.c: it becomes as long there. */
	crash_world->donor.size = (uint32_t)(conf.size / FORGETFUL_SECTOR);
	life.commit_timer.expired = commit_time;
	forgetful_init(&life.donor, &crash_world->donor, &crash_cut_mu, &crash_region.random,
	    on_changed_there);
	indexed_start(life.ir.indexed, &index_ops, NULL);
	ck_assert_int_eq(cache_group_create(&group, &life.group, &err), 0);
	conf.group = life.group;
	ck_assert_int_eq(cache_create(&conf, &crash_region.cache, &err), 0);
	make_pumps();
	load_chunks(*(const uint64_t *)ctx);
	cache_attach(crash_region.cache, &life.donor.store);
	ck_assert_int_eq(
	    cache_handle_create(crash_region.cache, POOL_READ | POOL_WRITE, &handle, &err), 0);
	crash_region.store = &handle->handle.store;
}

void crash_region_open(const char *path, uint64_t seed)
{
	uint64_t trim;

	memset(&life, 0, sizeof(life));
	crash_region = (struct crash_region){.random = {.state = seed}};
	index_rig_open(&life.ir, path, on_step, NULL);
	index_rig_load_ok(&life.ir, REGION_ID, "region", donor_size());
	ck_assert_str_eq(life.ir.load.aside, "");
	crash_region.loop = life.ir.rig.loops[0];
	trim = index_trim(&life.ir.load, donor_size());
	/* As core/managed_begin.c. */
	if (trim < SIZE)
		ck_assert_int_eq(
		    rig_op(crash_region.loop, life.ir.store, STORE_ZERO, trim, SIZE - trim, 0), 0);
	rig_call(crash_region.loop, make_cache, &trim);
}

/* ---- the main thread asks ---- */

struct question {
	bool (*is_so)(void);
	bool ret;
};

static void answer(void *ctx)
{
	struct question *question = ctx;

	question->ret = question->is_so();
}

void crash_region_wait(bool (*is_so)(void))
{
	struct question question = {.is_so = is_so};

	for (unsigned i = 0; !question.ret; i++) {
		rig_check(i < 200000, "it hangs");
		rig_call(crash_region.loop, answer, &question);
		if (!question.ret)
			usleep(100);
	}
}

static void look_size(void *ctx)
{
	*(uint64_t *)ctx = cache_size(crash_region.cache);
}

uint64_t crash_region_size(void)
{
	uint64_t bytes;

	rig_call(crash_region.loop, look_size, &bytes);
	return bytes;
}

/* ---- closing ---- */

static void on_stopped(struct cache_call *call, int err)
{
	life.stopped = true;
}

static void stop_cache(void *ctx)
{
	store_destroy(crash_region.store);
	life.stop.done = on_stopped;
	cache_stop(crash_region.cache, &life.stop);
}

static bool is_stopped(void)
{
	return life.stopped && !life.own_committing;
}

static void free_pumps(void *ctx)
{
	puller_destroy(life.puller);
	pusher_destroy(life.pusher);
	loop_timer_cancel(&life.commit_timer);
}

static void free_cache(void *ctx)
{
	cache_destroy(crash_region.cache);
	cache_group_destroy(life.group);
}

void crash_region_close(bool clean)
{
	rig_call(crash_region.loop, stop_cache, NULL);
	crash_region_wait(is_stopped);
	rig_call(crash_region.loop, free_pumps, NULL);
	ck_assert_int_eq(
	    index_rig_end(&life.ir, clean ? index_ask_close : index_ask_abandon, NULL), 0);
	rig_call(crash_region.loop, free_cache, NULL);
	index_rig_close(&life.ir);
}
