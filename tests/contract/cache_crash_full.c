/* SPDX-License-Identifier: Apache-2.0
 *
 * A whole managed region that is cut off at random points and opened again, against a plain array.
 *
 * A child process has everything that a managed mount has below its frontend: the cache with its pumps
 * over the file backend's store in a cache directory, the index, and a donor.  It writes (parts of blocks,
 * too), punches, reads, resizes, flushes, evicts and forgets at random, many requests at a time.  The donor and what was
 * promised stand in memory that the child shares with the test.  The donor is slow and random about when
 * it does what it was asked for, keeps what it was not asked to flush apart, loses some of that now and
 * then (the next FLUSH fails then; tests/lib/forgetful.h), and may do so again when the child is gone.
 *
 * At the n-th time that the child comes by a chosen point (a step of the index, an operation, a WRITE or
 * FLUSH at the donor, a promise) it
 *   is killed: files are as the kernel has them, or
 *   loses power: files are what tests/unit/disk_shim.h leaves of them.
 * Then the directory is opened again, and for each sector:
 *   1. What a reader sees was promised by the last FLUSH, or written since.
 *   2. It is not older than what the donor had when the child was cut off.
 *   3. When all that is dirty has been pushed, the donor has just that: so what is clean was the donor's.
 *   4. The region is as long here as there, and as long as the last RESIZE that ended and what was written since say.
 * A sector's bytes tell who wrote them: each word of it is the write's tag; 0: a punch.
 */
#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cache_pump.h"
#include "core/managed_int.h"
#include "core/puller.h"
#include "core/pusher.h"
#include "tests/lib/forgetful.h"
#include "tests/lib/index_rig.h"
#include "tests/unit/disk_shim.h"

#define MIB ((uint64_t)1 << 20)
#define MS ((uint64_t)1000000)
#define SIZE ((uint64_t)SECTORS * FORGETFUL_SECTOR)

enum {
	SECTORS = FORGETFUL_SECTORS,
	SINCE = 24, /* writes of one sector between two promises */
	SLOTS = 12, /* requests at once */
	SLOT_BYTES = 64 * 1024,
	OPS = 150,
	REGION_ID = 42,
};

/* Where a child is cut off, besides the index's steps. */
enum {
	AT_OPERATION = INDEX_STEPS,
	AT_DONOR_WRITE,
	AT_DONOR_FLUSH,
	AT_DONOR_RESIZE, /* it has agreed */
	AT_RESIZED, /* the local cut is made */
	AT_PROMISE,
	AT_NOTHING,
};

/* In shared memory. */
struct world {
	struct forgetful_bytes donor;
	uint32_t promised[SECTORS];
	uint32_t since[SECTORS][SINCE];
	unsigned since_count[SECTORS];
	uint32_t low, high; /* sectors: the region is not shorter, nor longer */
	uint32_t tag;
	unsigned promises, writes, resizes, evicted; /* how much has happened */
};

static struct world *world;
static char dir[RIG_PATH_MAX], path[RIG_PATH_MAX + 8];

struct slot {
	struct store_req req;
	bool busy;
	_Alignas(8) uint8_t buf[SLOT_BYTES];
};

/* A process' time with the region.  Loop thread, but for what is said. */
struct life {
	struct index_rig ir; /* the main thread's */
	struct cache_group *group;
	struct cache *cache;
	struct puller *puller;
	struct pusher *pusher;
	struct cache_handle *handle;
	struct forgetful donor;
	struct loop_timer commit_timer;
	struct index_call cache_commit, own_commit;
	struct cache_call *cache_waits;
	bool own_committing;
	struct rig_random random;
	uint32_t value[SECTORS]; /* the plain array */
	uint8_t writing[SECTORS];
	struct slot slots[SLOTS];
	unsigned busy;
	bool flushing, stopped;
	uint8_t completed[SECTORS]; /* how many of since the flush under way covers */
	struct cache_flush local_flush;
	struct cache_call stop;
	/* Sizes, in sectors. */
	uint32_t size, flush_size; /* now; and what the flush under way will promise */
	bool resizing;
	uint32_t cut; /* while resizing: nothing else is asked for from here on */
	uint64_t new_size; /* bytes */
	bool shrinks; /* the donor has agreed to new_size */
	struct cache_call *resize_call;
	struct index_call resize_commit;
	struct loop_timer resize_timer;
	/* The cut: constant, and a counter for any thread. */
	unsigned cut_at;
	atomic_int cut_after;
	bool power;
	struct rig_random cut_random; /* who cuts */
	struct rig_random pace; /* the main thread */
};

static struct life life;
/* Held while the world changes: the cut comes before or after that, not in between. */
static pthread_mutex_t world_mu = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool cutting; /* what is read of files from now on means nothing */

static uint64_t below(uint64_t n)
{
	return rig_random_below(&life.random, n);
}

/* ---- the cut ---- */

static void come_by(unsigned point)
{
	if (point != life.cut_at || atomic_fetch_sub(&life.cut_after, 1) != 0)
		return;
	pthread_mutex_lock(&world_mu); /* for ever */
	cutting = true;
	if (life.power)
		disk_cut(path, &life.cut_random);
	kill(getpid(), SIGKILL);
	pause();
}

static void on_step(void *ctx, enum index_step step)
{
	come_by(step);
}

static void on_changed_there(bool flush)
{
	come_by(flush ? AT_DONOR_FLUSH : AT_DONOR_WRITE);
}

/* ---- the index ---- */

static void describe(void)
{
	struct index_region region = {
	    .id = REGION_ID,
	    .size = life.shrinks ? life.new_size : cache_size(life.cache),
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
		got = cache_take_changed(life.cache, some, want);
		for (unsigned i = 0; i < got; i++)
			chunks[n++] =
			    (struct index_chunk){some[i].idx, some[i].resident, some[i].dirty};
	} while (got == want && n < max);
	return n;
}

static void on_state(void *ctx, struct index_chunk *chunk)
{
	struct cache_chunk now = {.idx = chunk->idx};

	cache_look(life.cache, &now);
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

		cache_stored(life.cache, &chunk, 1);
	}
}

static const struct indexed_ops index_ops = {
    .take = on_take, .state = on_state, .give_back = on_give_back, .stored = on_stored};

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

static void commit_time(struct loop_timer *timer)
{
	if (life.own_committing)
		return;
	life.own_committing = true;
	life.own_commit.done = own_committed;
	describe();
	indexed_commit(life.ir.indexed, &life.own_commit);
}

static void on_changed(void *ctx)
{
	if (!life.commit_timer.loop)
		loop_timer_set(loop_self(), &life.commit_timer, loop_now_ns() + below(20 * MS));
}

/* ---- sizes: as core/managed_meta.c does it ---- */

static void resize_committed(struct index_call *call, int err)
{
	rig_check(err == 0, "a commit: %d", err);
	life.shrinks = false;
	life.resize_call->done(life.resize_call, 0);
}

/* What the donor says about its size is so for good. */
static void donor_resizes(struct loop_timer *timer)
{
	pthread_mutex_lock(&world_mu);
	for (uint64_t s = life.new_size / FORGETFUL_SECTOR; s < SECTORS; s++)
		world->donor.now[s] = world->donor.stable[s] = 0;
	world->donor.size = (uint32_t)(life.new_size / FORGETFUL_SECTOR);
	pthread_mutex_unlock(&world_mu);
	come_by(AT_DONOR_RESIZE);
	if (life.new_size >= cache_size(life.cache)) {
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
	loop_timer_set(loop_self(), &life.resize_timer, loop_now_ns() + below(MS));
}

/* ---- opening and closing ---- */

static uint64_t size_now(void)
{
	return index_size(&life.ir.load, world->donor.size * (uint64_t)FORGETFUL_SECTOR);
}

static uint64_t trim_from(void)
{
	return index_trim(&life.ir.load, world->donor.size * (uint64_t)FORGETFUL_SECTOR);
}

/* On the loop. */
static void make_cache(void *ctx)
{
	struct loop *loop = life.ir.rig.loops[0];
	struct cache_group_conf group = {.loop = loop, .size = 2 * MIB, .max_dirty = MIB};
	struct cache_conf conf = {
	    .local = life.ir.store,
	    .size = size_now(),
	    .size_max = SIZE,
	    .remote_resize = on_remote_resize,
	    .commit = on_commit,
	    .changed = on_changed,
	};
	uint64_t trim;
	struct err err;

	trim = trim_from();
	/* As core/managed_begin.c: it becomes as long there. */
	world->donor.size = (uint32_t)(conf.size / FORGETFUL_SECTOR);
	life.commit_timer.expired = commit_time;
	forgetful_init(&life.donor, &world->donor, &world_mu, &life.random, on_changed_there);
	indexed_start(life.ir.indexed, &index_ops, NULL);
	ck_assert_int_eq(cache_group_create(&group, &life.group, &err), 0);
	conf.group = life.group;
	ck_assert_int_eq(cache_create(&conf, &life.cache, &err), 0);
	ck_assert_int_eq(
	    puller_create(&(struct puller_conf){life.cache, below(3) ? PULL_NONE : PULL_ALL},
		&life.puller, &err),
	    0);
	ck_assert_int_eq(
	    pusher_create(&(struct pusher_conf){life.cache, below(30), 0}, &life.pusher, &err), 0);
	for (size_t i = 0; i < life.ir.load.count; i++) {
		const struct index_chunk *chunk = &life.ir.load.chunks[i];

		cache_load(
		    life.cache, &(struct cache_chunk){chunk->idx, chunk->resident, chunk->dirty});
		if ((chunk->idx + 1) * CACHE_CHUNK > trim)
			cache_load_cut(life.cache, chunk->idx);
	}
	cache_attach(life.cache, &life.donor.store);
	ck_assert_int_eq(
	    cache_handle_create(life.cache, POOL_READ | POOL_WRITE, &life.handle, &err), 0);
}

static void life_open(void)
{
	index_rig_open(&life.ir, path, on_step, NULL);
	index_rig_load_ok(
	    &life.ir, REGION_ID, "region", world->donor.size * (uint64_t)FORGETFUL_SECTOR);
	ck_assert_str_eq(life.ir.load.aside, "");
	/* As core/managed_begin.c. */
	if (trim_from() < SIZE)
		ck_assert_int_eq(rig_op(life.ir.rig.loops[0], life.ir.store, STORE_ZERO,
				     trim_from(), SIZE - trim_from(), 0),
		    0);
	rig_call(life.ir.rig.loops[0], make_cache, NULL);
}

static void on_stopped(struct cache_call *call, int err)
{
	life.stopped = true;
}

static void stop_cache(void *ctx)
{
	store_destroy(&life.handle->handle.store);
	life.stop.done = on_stopped;
	cache_stop(life.cache, &life.stop);
}

static void look_stopped(void *ctx)
{
	*(bool *)ctx = life.stopped && !life.own_committing;
}

static void free_pumps(void *ctx)
{
	puller_destroy(life.puller);
	pusher_destroy(life.pusher);
	loop_timer_cancel(&life.commit_timer);
}

static void free_cache(void *ctx)
{
	cache_destroy(life.cache);
	cache_group_destroy(life.group);
}

/* Waits until fn says so; real time goes by meanwhile. */
static void wait_until(void (*fn)(void *ctx))
{
	bool is_so = false;

	for (unsigned i = 0; !is_so; i++) {
		rig_check(i < 200000, "it hangs");
		rig_call(life.ir.rig.loops[0], fn, &is_so);
		if (!is_so)
			usleep(100);
	}
}

static void life_close(void (*end)(struct index_ask *ask))
{
	rig_call(life.ir.rig.loops[0], stop_cache, NULL);
	wait_until(look_stopped);
	rig_call(life.ir.rig.loops[0], free_pumps, NULL);
	ck_assert_int_eq(index_rig_end(&life.ir, end, NULL), 0);
	rig_call(life.ir.rig.loops[0], free_cache, NULL);
	index_rig_close(&life.ir);
}

/* ---- what the child does ---- */

/* What is to be promised when a flush that begins now succeeds. */
static void promise_begin(void)
{
	life.flushing = true;
	life.flush_size = 0;
	for (unsigned s = 0; s < SECTORS; s++) {
		life.completed[s] = (uint8_t)(world->since_count[s] - life.writing[s]);
		if (s < life.size && life.completed[s])
			life.flush_size = s + 1;
	}
}

static void promise_end(int err)
{
	life.flushing = false;
	if (err)
		return;
	pthread_mutex_lock(&world_mu);
	for (unsigned s = 0; s < SECTORS; s++) {
		unsigned n = life.completed[s];

		if (n == 0)
			continue;
		world->promised[s] = world->since[s][n - 1];
		world->since_count[s] -= n;
		memmove(world->since[s], world->since[s] + n,
		    world->since_count[s] * sizeof(world->since[s][0]));
	}
	if (life.flush_size > world->low)
		world->low = life.flush_size;
	world->promises++;
	pthread_mutex_unlock(&world_mu);
	come_by(AT_PROMISE);
}

static void local_flushed(struct cache_flush *flush, int err)
{
	promise_end(err);
}

static void check_read(const struct store_req *req)
{
	if (cutting)
		return;
	for (uint64_t i = 0; i < req->len; i += DISK_SECTOR) {
		uint64_t s = (req->off + i) / DISK_SECTOR;
		uint32_t tag = forgetful_tag((const uint8_t *)req->buf + i);

		rig_check(tag == life.value[s], "sector %u reads %u, not %u", (unsigned)s, tag,
		    life.value[s]);
	}
}

/* The region ends at `size` now, for good. */
static void resize_end(uint32_t size)
{
	pthread_mutex_lock(&world_mu);
	for (uint32_t s = life.cut; s < SECTORS; s++) {
		world->promised[s] = world->since_count[s] = 0;
		life.writing[s] = life.completed[s] = 0;
	}
	world->low = world->high = size;
	world->resizes++;
	pthread_mutex_unlock(&world_mu);
	life.resizing = false;
	come_by(AT_RESIZED);
}

static void slot_done(struct store_req *req, int err)
{
	struct slot *slot = (struct slot *)req;
	uint64_t first = req->off / DISK_SECTOR;

	slot->busy = false;
	life.busy--;
	if (req->op == STORE_FLUSH) {
		promise_end(err);
		return;
	}
	rig_check(err == 0, "%s: %d", store_op_name(req->op), err);
	if (req->op == STORE_RESIZE)
		resize_end((uint32_t)first);
	else if (req->op == STORE_READ)
		check_read(req);
	else
		memset(life.writing + first, 0, req->len / DISK_SECTOR);
}

static void submit(struct slot *slot)
{
	slot->req.done = slot_done;
	slot->busy = true;
	life.busy++;
	store_submit(&life.handle->handle.store, &slot->req);
}

static bool overlaps(uint64_t first, uint64_t count)
{
	if (life.resizing && first + count > life.cut)
		return true;
	for (unsigned i = 0; i < SLOTS; i++) {
		const struct store_req *req = &life.slots[i].req;

		if (life.slots[i].busy && req->len && req->off / DISK_SECTOR < first + count &&
		    first < (req->off + req->len) / DISK_SECTOR)
			return true;
	}
	return false;
}

static void note_write(uint64_t first, uint64_t count, uint32_t tag)
{
	pthread_mutex_lock(&world_mu);
	for (uint64_t s = first; s < first + count; s++) {
		world->since[s][world->since_count[s]++] = tag;
		life.value[s] = tag;
		life.writing[s] = 1;
	}
	if (first + count > life.size)
		life.size = (uint32_t)(first + count);
	if (life.size > world->high)
		world->high = life.size;
	world->writes++;
	pthread_mutex_unlock(&world_mu);
}

static void begin_range(struct slot *slot, enum store_op op)
{
	/* Half of all in an eighth of the region: what is hot is written while it is pushed. */
	uint64_t most = below(2) ? SECTORS : SECTORS / 8, count = 1 + below(below(2) ? 16 : 128);
	uint64_t first = below(most);
	uint32_t tag;

	if (below(2)) { /* whole blocks */
		first &= ~(uint64_t)7;
		count = (count + 7) & ~(uint64_t)7;
	}
	if (first + count > SECTORS || overlaps(first, count))
		return;
	/* A ZERO makes nothing longer, so the region's last block, which may have done that, is not punched. */
	if (op == STORE_ZERO && first + count > (uint64_t)(life.size - 1) / 8 * 8)
		return;
	for (uint64_t s = first; op != STORE_READ && s < first + count; s++)
		if (world->since_count[s] == SINCE)
			return;
	slot->req = (struct store_req){
	    .op = op,
	    .off = first * DISK_SECTOR,
	    .len = count * DISK_SECTOR,
	    .buf = slot->buf,
	};
	if (op != STORE_READ) {
		tag = op == STORE_ZERO ? 0 : ++world->tag;
		forgetful_fill(slot->buf, tag, slot->req.len);
		note_write(first, count, tag);
	}
	submit(slot);
}

/* What is cut off is like punched, until the end: then that is promised. */
static void begin_resize(struct slot *slot)
{
	uint32_t size =
	    (uint32_t)(below(3) ? SECTORS / 2 + below(SECTORS / 2) : 1 + below(SECTORS));
	uint32_t cut = size < life.size ? size : life.size;

	if (life.resizing || overlaps(cut, SECTORS - cut))
		return;
	for (uint32_t s = cut; s < life.size; s++)
		if (world->since_count[s] == SINCE)
			return;
	pthread_mutex_lock(&world_mu);
	for (uint32_t s = cut; s < life.size; s++) {
		world->since[s][world->since_count[s]++] = 0;
		life.value[s] = 0;
		life.writing[s] = 1;
	}
	world->low = size < world->low ? size : world->low;
	world->high = size > world->high ? size : world->high;
	pthread_mutex_unlock(&world_mu);
	life.size = size;
	life.cut = cut;
	life.flush_size = 0;
	life.resizing = true;
	slot->req =
	    (struct store_req){.op = STORE_RESIZE, .off = (uint64_t)size * FORGETFUL_SECTOR};
	submit(slot);
}

static void begin_flush(struct slot *slot, bool local)
{
	if (life.flushing)
		return;
	promise_begin();
	if (local) {
		life.local_flush =
		    (struct cache_flush){.durability = CACHE_LOCAL, .done = local_flushed};
		cache_flush(life.cache, &life.local_flush);
		return;
	}
	slot->req = (struct store_req){.op = STORE_FLUSH};
	submit(slot);
}

static void do_something(void *ctx)
{
	uint64_t kind = below(100);
	struct slot *slot = NULL;

	for (unsigned i = 0; i < SLOTS && !slot; i++)
		if (!life.slots[i].busy)
			slot = &life.slots[i];
	if (!slot)
		return;
	if (kind < 40) {
		begin_range(slot, STORE_WRITE);
	} else if (kind < 46) {
		begin_range(slot, STORE_ZERO);
	} else if (kind < 70) {
		begin_range(slot, STORE_READ);
	} else if (kind < 78) {
		begin_flush(slot, false);
	} else if (kind < 82) {
		begin_flush(slot, true);
	} else if (kind < 88) {
		world->evicted += cache_evict(life.cache, below(SIZE), below(SIZE)) > 0;
	} else if (kind < 91) {
		/* What the donor has not flushed and is dropped, it may lose: that is told, but lost. */
		if (!cache_unflushed(life.cache))
			cache_drop_clean(life.cache, cache_size(life.cache));
	} else if (kind < 96) {
		begin_resize(slot);
	} else if (kind < 98) {
		commit_time(NULL);
	} else {
		pthread_mutex_lock(&world_mu);
		forgetful_loses(&world->donor, &life.random);
		pthread_mutex_unlock(&world_mu);
	}
}

static void look_idle(void *ctx)
{
	*(bool *)ctx = life.busy == 0 && !life.flushing;
}

static void child_work(void)
{
	life_open();
	/* The test has seen to it that nothing is open: what was promised is what there is. */
	memcpy(life.value, world->promised, sizeof(life.value));
	life.size = world->donor.size;
	for (unsigned i = 0; i < OPS; i++) {
		come_by(AT_OPERATION);
		rig_call(life.ir.rig.loops[0], do_something, NULL);
		if (rig_random_below(&life.pace, 3) == 0)
			usleep((unsigned)rig_random_below(&life.pace, 1500));
	}
	wait_until(look_idle);
	/* With what is dirty: the index has it. */
	life_close(life.power ? index_ask_abandon : index_ask_close);
	_exit(0);
}

/* ---- the test ---- */

static void life_begin(unsigned at, unsigned after, bool power, uint64_t seed)
{
	memset(&life, 0, sizeof(life));
	life.random.state = seed;
	life.cut_random.state = seed + 1;
	life.pace.state = seed + 2;
	life.cut_at = at;
	life.cut_after = (int)after;
	life.power = power;
}

/* Whether the child was cut off. */
static bool run_child(unsigned at, unsigned after, bool power, uint64_t seed)
{
	pid_t pid = fork();
	int status;

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		life_begin(at, after, power, seed);
		if (power)
			disk_begin(dir);
		child_work();
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return true;
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child: %x", status);
	return false;
}

/* When a sector had this value: 0 is when it was promised, then one for each write; last: of several the
 * last.  -1: before. */
static int when(unsigned s, uint32_t tag, bool last)
{
	int found = tag == world->promised[s] ? 0 : -1;

	for (unsigned i = 0; i < world->since_count[s]; i++)
		if (world->since[s][i] == tag && (last || found < 0))
			found = (int)i + 1;
	return found;
}

static void read_all(uint32_t *ret_seen)
{
	static uint8_t buf[256 * 1024];

	for (uint64_t off = 0; off < SIZE; off += sizeof(buf)) {
		ck_assert_int_eq(rig_read(life.ir.rig.loops[0], &life.handle->handle.store, off,
				     buf, sizeof(buf)),
		    0);
		for (uint64_t i = 0; i < sizeof(buf); i += DISK_SECTOR)
			ret_seen[(off + i) / DISK_SECTOR] = forgetful_tag(buf + i);
	}
}

static void check_seen(const uint32_t *seen, const uint32_t *donor, const char *what)
{
	for (unsigned s = 0; s < SECTORS; s++) {
		/* Which zeros the donor's are nobody knows. */
		int now = when(s, seen[s], true), there = donor[s] ? when(s, donor[s], false) : -1;

		rig_check(now >= 0, "%s: sector %u reads %u; promised %u, the donor had %u", what,
		    s, seen[s], world->promised[s], donor[s]);
		rig_check(now >= there, "%s: sector %u reads %u, the donor had %u, which is newer",
		    what, s, seen[s], donor[s]);
	}
}

static void look_size(void *ctx)
{
	*(uint64_t *)ctx = cache_size(life.cache);
}

static void check_size(const char *what)
{
	uint64_t bytes;
	uint32_t size;

	rig_call(life.ir.rig.loops[0], look_size, &bytes);
	size = (uint32_t)(bytes / FORGETFUL_SECTOR);
	rig_check(bytes % FORGETFUL_SECTOR == 0 && size >= world->low && size <= world->high,
	    "%s: the region has %llu bytes; promised %u to %u sectors", what,
	    (unsigned long long)bytes, world->low, world->high);
	rig_check(size == world->donor.size, "%s: the region has %u sectors, at the donor %u", what,
	    size, world->donor.size);
	world->low = world->high = size;
}

/* Opens what the child has left, looks at everything, pushes it, and begins the next life with that. */
static void verify(const char *what, uint64_t seed)
{
	static uint32_t seen[SECTORS], donor[SECTORS];
	struct rig_random random = {.state = seed};
	int rc;

	if (rig_random_below(&random, 3) == 0)
		forgetful_loses(&world->donor, &random);
	world->donor.flush_fails = false; /* a new session knows nothing of the old one's pushes */
	memcpy(donor, world->donor.now, sizeof(donor));
	life_begin(AT_NOTHING, 0, false, seed);
	life_open();
	read_all(seen);
	check_seen(seen, donor, what);
	rc = rig_op(life.ir.rig.loops[0], &life.handle->handle.store, STORE_FLUSH, 0, 0, 0);
	ck_assert_int_eq(rc, 0);
	for (unsigned s = 0; s < SECTORS; s++)
		rig_check(world->donor.stable[s] == seen[s],
		    "%s: sector %u was %u before all was pushed, and is %u now", what, s, seen[s],
		    world->donor.stable[s]);
	check_size(what);
	life_close(rig_random_below(&random, 2) ? index_ask_close : index_ask_abandon);
	memcpy(world->promised, seen, sizeof(seen));
	memset(world->since_count, 0, sizeof(world->since_count));
}

static const struct {
	unsigned at;
	const char *name;
	unsigned often; /* about how many times a child comes by */
} points[] = {
    {INDEX_STEP_SETTLED, "settled", 1},
    {INDEX_STEP_SYNCED, "synced", 20},
    {INDEX_STEP_SUMMED, "summed", 20},
    {INDEX_STEP_STORED, "stored", 20},
    {INDEX_STEP_COMMITTED, "committed", 20},
    {AT_OPERATION, "operation", OPS},
    {AT_DONOR_WRITE, "donor's write", 40},
    {AT_DONOR_WRITE, "donor's write", 40},
    {AT_DONOR_FLUSH, "donor's flush", 8},
    {AT_DONOR_RESIZE, "donor's resize", 3},
    {AT_RESIZED, "local cut", 3},
    {AT_PROMISE, "promise", 6},
    {AT_NOTHING, "nothing", 1},
};

static void lives(bool power)
{
	const char *set = getenv("LIVES");
	unsigned rounds = set ? (unsigned)atoi(set) : 5, cuts = 0;
	struct rig_random random;
	char what[100];

	rig_random_init(&random, power ? "power_lives" : "kill_lives");
	rig_tmpdir("/dev/shm", dir);
	snprintf(path, sizeof(path), "%s/cache", dir);
	world =
	    mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(world, MAP_FAILED);
	world->tag = 100000;
	world->donor.size = world->low = world->high = SECTORS;
	for (unsigned s = 0; s < SECTORS; s++)
		world->donor.now[s] = world->donor.stable[s] = world->promised[s] =
		    s / 64 % 3 ? s + 1 : 0;
	for (unsigned round = 0; round < rounds; round++)
		for (unsigned p = 0; p < sizeof(points) / sizeof(points[0]); p++) {
			unsigned after = (unsigned)rig_random_below(&random, points[p].often);

			snprintf(what, sizeof(what), "round %u, cut at %s %u", round,
			    points[p].name, after);
			cuts += run_child(points[p].at, after, power, rig_random(&random));
			verify(what, rig_random(&random));
		}
	printf(
	    "%s: %u cut off; %u writes, %u pushes, %u promises, %u resizes, %u evictions; the donor lost %u times\n",
	    power ? "power" : "kill", cuts, world->writes, world->donor.pushes, world->promises,
	    world->resizes, world->evicted, world->donor.losses);
	ck_assert_uint_gt(cuts, rounds * 4);
	rig_tmpdir_remove(dir);
	munmap(world, sizeof(*world));
}

START_TEST(kill_lives)
{
	lives(false);
}
END_TEST

START_TEST(power_lives)
{
	lives(true);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cache_crash_full");
	TCase *tcase = tcase_create("cache_crash_full");
	SRunner *runner;
	int failed;

	tcase_add_unchecked_fixture(tcase, rig_tmpdirs_begin, rig_tmpdirs_end);
	tcase_add_test(tcase, kill_lives);
	tcase_add_test(tcase, power_lives);
	tcase_set_timeout(tcase, 200);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
