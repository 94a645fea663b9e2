/* SPDX-License-Identifier: Apache-2.0
 *
 * What a child does with a region until it is cut off (see tests/lib/crash_work.h).  All of it on the loop's
 * thread, but for crash_work itself.
 *
 * Invariants:
 *   1. Requests under way do not overlap, so the array knows what each READ must get.
 *   2. Of a sector's writes since the last promise at most one, the last, is under way.
 *   3. One flush and one resize are under way at a time.
 */
#include "tests/lib/crash_work.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "core/cache.h"
#include "core/cache_pump.h"
#include "core/store.h"
#include "tests/lib/crash_cut.h"
#include "tests/lib/crash_region.h"
#include "tests/lib/crash_world.h"
#include "tests/lib/forgetful.h"
#include "tests/lib/rig.h"

#define SIZE ((uint64_t)CRASH_SECTORS * FORGETFUL_SECTOR)

enum {
	SLOTS = 12, /* requests at once */
	SLOT_BYTES = 64 * 1024,
	BLOCK_SECTORS = STORE_BLOCK / FORGETFUL_SECTOR,
};

struct slot {
	struct store_req req; /* first */
	bool busy;
	_Alignas(8) uint8_t buf[SLOT_BYTES];
};

static struct {
	struct slot slots[SLOTS];
	unsigned busy;
	/* Sectors. */
	uint32_t value[CRASH_SECTORS]; /* the plain array */
	uint8_t writing[CRASH_SECTORS];
	uint32_t size;
	/* The flush under way: how many of each sector's writes it covers, and the size that it will promise. */
	bool flushing;
	uint8_t covered[CRASH_SECTORS];
	uint32_t flush_size;
	struct cache_flush local_flush;
	/* The resize under way. */
	bool resizing;
	uint32_t cut; /* nothing else is asked for from here on */
} work;

static uint64_t below(uint64_t n)
{
	return rig_random_below(&crash_region.random, n);
}

/* ---- flushes ---- */

static void promise_begin(void)
{
	work.flushing = true;
	work.flush_size = 0;
	for (unsigned s = 0; s < CRASH_SECTORS; s++) {
		work.covered[s] = (uint8_t)(crash_world->since_count[s] - work.writing[s]);
		if (s < work.size && work.covered[s])
			work.flush_size = s + 1;
	}
}

static void promise_end(int err)
{
	work.flushing = false;
	if (err)
		return;
	crash_world_promise(work.covered, work.flush_size);
	crash_cut_pass(CRASH_PROMISE);
}

static void local_flushed(struct cache_flush *flush, int err)
{
	promise_end(err);
}

/* ---- the end of a request ---- */

static void check_read(const struct store_req *req)
{
	if (crash_cut_begun())
		return;
	for (uint64_t i = 0; i < req->len; i += FORGETFUL_SECTOR) {
		uint64_t s = (req->off + i) / FORGETFUL_SECTOR;
		uint32_t tag = forgetful_tag((const uint8_t *)req->buf + i);

		rig_check(tag == work.value[s], "sector %u reads %u, not %u", (unsigned)s, tag,
		    work.value[s]);
	}
}

/* The region ends at `size` now, for good. */
static void resize_end(uint32_t size)
{
	crash_world_resized(work.cut, size);
	memset(work.writing + work.cut, 0, CRASH_SECTORS - work.cut);
	memset(work.covered + work.cut, 0, CRASH_SECTORS - work.cut);
	work.resizing = false;
	crash_cut_pass(CRASH_RESIZED);
}

static void slot_done(struct store_req *req, int err)
{
	struct slot *slot = (struct slot *)req;
	uint64_t first = req->off / FORGETFUL_SECTOR;

	slot->busy = false;
	work.busy--;
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
		memset(work.writing + first, 0, req->len / FORGETFUL_SECTOR);
}

/* ---- its beginning ---- */

static void submit(struct slot *slot)
{
	slot->req.done = slot_done;
	slot->busy = true;
	work.busy++;
	store_submit(crash_region.store, &slot->req);
}

static bool overlaps(uint64_t first, uint64_t count)
{
	if (work.resizing && first + count > work.cut)
		return true;
	for (unsigned i = 0; i < SLOTS; i++) {
		const struct store_req *req = &work.slots[i].req;

		if (work.slots[i].busy && req->len && req->off / FORGETFUL_SECTOR < first + count &&
		    first < (req->off + req->len) / FORGETFUL_SECTOR)
			return true;
	}
	return false;
}

static void set_value(uint64_t first, uint64_t count, uint32_t tag)
{
	for (uint64_t s = first; s < first + count; s++) {
		work.value[s] = tag;
		work.writing[s] = 1;
	}
}

static void begin_range(struct slot *slot, enum store_op op)
{
	/* Half of all in an eighth of the region: what is hot is written while it is pushed. */
	uint64_t most = below(2) ? CRASH_SECTORS : CRASH_SECTORS / 8;
	uint64_t count = 1 + below(below(2) ? 16 : 128), first = below(most);
	uint32_t tag;

	if (below(2)) { /* whole blocks */
		first &= ~(uint64_t)(BLOCK_SECTORS - 1);
		count = (count + BLOCK_SECTORS - 1) & ~(uint64_t)(BLOCK_SECTORS - 1);
	}
	if (first + count > CRASH_SECTORS || overlaps(first, count))
		return;
	/* A ZERO makes nothing longer, so the region's last block, which may have done that, is not punched. */
	if (op == STORE_ZERO &&
	    first + count > (uint64_t)(work.size - 1) / BLOCK_SECTORS * BLOCK_SECTORS)
		return;
	if (op != STORE_READ && !crash_world_has_room(first, count))
		return;
	slot->req = (struct store_req){
	    .op = op,
	    .off = first * FORGETFUL_SECTOR,
	    .len = count * FORGETFUL_SECTOR,
	    .buf = slot->buf,
	};
	if (op != STORE_READ) {
		tag = op == STORE_ZERO ? 0 : ++crash_world->tag;
		forgetful_fill(slot->buf, tag, slot->req.len);
		crash_world_write(first, count, tag);
		set_value(first, count, tag);
		if (first + count > work.size)
			work.size = (uint32_t)(first + count);
	}
	submit(slot);
}

static void begin_resize(struct slot *slot)
{
	uint32_t size = (uint32_t)(below(3) ? CRASH_SECTORS / 2 + below(CRASH_SECTORS / 2)
					    : 1 + below(CRASH_SECTORS));
	uint32_t cut = size < work.size ? size : work.size;

	if (work.resizing || overlaps(cut, CRASH_SECTORS - cut))
		return;
	if (!crash_world_has_room(cut, work.size - cut))
		return;
	crash_world_resize(work.size, size);
	set_value(cut, work.size - cut, 0);
	work.size = size;
	work.cut = cut;
	work.flush_size = 0;
	work.resizing = true;
	slot->req =
	    (struct store_req){.op = STORE_RESIZE, .off = (uint64_t)size * FORGETFUL_SECTOR};
	submit(slot);
}

static void begin_flush(struct slot *slot)
{
	if (work.flushing)
		return;
	promise_begin();
	slot->req = (struct store_req){.op = STORE_FLUSH};
	submit(slot);
}

static void begin_local_flush(void)
{
	if (work.flushing)
		return;
	promise_begin();
	work.local_flush = (struct cache_flush){.durability = CACHE_LOCAL, .done = local_flushed};
	cache_flush(crash_region.cache, &work.local_flush);
}

/* ---- what it does ---- */

static void donor_loses(void)
{
	pthread_mutex_lock(&crash_cut_mu);
	forgetful_loses(&crash_world->donor, &crash_region.random);
	pthread_mutex_unlock(&crash_cut_mu);
}

static void do_something(void *ctx)
{
	struct cache *cache = crash_region.cache;
	uint64_t kind = below(100);
	struct slot *slot = NULL;

	for (unsigned i = 0; i < SLOTS && !slot; i++)
		if (!work.slots[i].busy)
			slot = &work.slots[i];
	if (!slot)
		return;
	if (kind < 40) {
		begin_range(slot, STORE_WRITE);
	} else if (kind < 46) {
		begin_range(slot, STORE_ZERO);
	} else if (kind < 70) {
		begin_range(slot, STORE_READ);
	} else if (kind < 78) {
		begin_flush(slot);
	} else if (kind < 82) {
		begin_local_flush();
	} else if (kind < 88) {
		crash_world->evicted += cache_evict(cache, below(SIZE), below(SIZE)) > 0;
	} else if (kind < 91) {
		/* What the donor has not flushed and is dropped, it may lose: that is told, but lost. */
		if (!cache_unflushed(cache))
			cache_drop_clean(cache, cache_size(cache));
	} else if (kind < 96) {
		begin_resize(slot);
	} else if (kind < 98) {
		crash_region_commit();
	} else {
		donor_loses();
	}
}

static bool is_idle(void)
{
	return work.busy == 0 && !work.flushing;
}

void crash_work(unsigned operations, uint64_t seed)
{
	struct rig_random pace = {.state = seed};

	memcpy(work.value, crash_world->promised, sizeof(work.value));
	work.size = crash_world->donor.size;
	for (unsigned i = 0; i < operations; i++) {
		crash_cut_pass(CRASH_OPERATION);
		rig_call(crash_region.loop, do_something, NULL);
		if (rig_random_below(&pace, 3) == 0)
			usleep((unsigned)rig_random_below(&pace, 1500));
	}
	crash_region_wait(is_idle);
}
