/* SPDX-License-Identifier: Apache-2.0
 *
 * Managed regions against a plain array: long random lives on simulated time.
 *
 * Each step a request or an order is begun at random (reads, writes, punches, flushes, FUA, resizes, extents,
 * evictions, pins, pulls, changes of mode and order), up to SLOTS requests at once; those that change bytes
 * don't overlap others, so that the array knows the outcome.  Meanwhile the remote is slow, stalls, fails, goes
 * away, or loses some of what it was not asked to flush, the local store fails or tears, other sessions' changes
 * make the cache forget what is clean, and now and then the cache ends and begins again from what it told its index;
 * or is killed, maybe together with the remote, and begins again from what was committed last.  Some lives have an
 * index that commits, slowly, and fails to.
 *
 * A byte whose change failed, or was not flushed before a kill, may be the old or the new one until it is read:
 * from then on it is what was read.
 *
 * Checked: each read's bytes; after each flush that succeeded, that the remote has every byte that was written
 * before it began, and can't lose it; that no extent calls bytes a hole that are not zeros; the invariants
 * (cache_audit); and at the end all of it, for all.
 * SEED=… LIFE=… repeats one exactly.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cache_int.h"
#include "tests/lib/cache_rig.h"
#include "tests/lib/losing.h"

#define KIB ((uint64_t)1024)
#define SIZE (6144 * KIB)
#define MS ((uint64_t)1000000)

enum {
	SLOTS = 24,
	LONGEST = 256 * 1024,
	BLOCKS = SIZE / STORE_BLOCK,
	STEPS = 4000,
	LIVES = 14,
	TAKEN = 5, /* chunks of one transaction */
};

struct model;

struct slot {
	struct store_req req;
	struct model *m;
	bool busy;
	uint64_t seq; /* FLUSH: when it was submitted */
	uint8_t skip[BLOCKS]; /* FLUSH, EXTENTS: writes were under way here */
	struct extent extents[16];
	uint8_t buf[LONGEST];
};

/* What is there when the cache is killed. */
struct killed {
	uint64_t size;
	uint8_t want[SIZE], local[SIZE], remote[SIZE];
	bool unknown[SIZE], safe[BLOCKS];
	struct cache_chunk index[SIZE / CACHE_CHUNK];
	uint8_t index_bytes[SIZE];
};

struct model {
	struct sim sim;
	struct cache_rig cr;
	struct cache_rig_conf conf;
	struct rig_random random;
	struct loop_timer timer;
	unsigned steps;
	bool over, calm; /* calm: nothing fails or is slow any more */
	bool settling; /* the end: commits do not fail */
	uint64_t seq;
	uint64_t size; /* the region's */
	uint8_t want[SIZE];
	bool unknown[SIZE]; /* a change that failed has been here */
	uint64_t touched[BLOCKS]; /* seq of the last change that was submitted */
	uint8_t pending[BLOCKS]; /* changes under way */
	bool safe[BLOCKS]; /* flushed, and not changed since */
	struct slot slots[SLOTS];
	unsigned busy;
	bool resizing, detached;
	uint64_t cut_at;
	struct cache_call detach;
	struct pull_job job;
	bool job_busy;
	struct killed killed;
	struct cache_chunk index[SIZE / CACHE_CHUNK];
	uint8_t index_bytes[SIZE]; /* what a commit has seen, for what stands for checksums */
	struct cache_call *commit; /* under way, or NULL */
	struct loop_timer commit_timer;
	struct cache_chunk taken[TAKEN];
	unsigned taken_count;
	bool taking;
	uint64_t commits;
	uint64_t reads, writes, flushes, flushes_ok, errors, losses, kills;
};

static struct model *m;

static uint64_t below(uint64_t n)
{
	return rig_random_below(&m->random, n);
}

/* ---- the array ---- */

static bool overlaps(uint64_t off, uint64_t len, bool changes)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		const struct slot *slot = &m->slots[i];
		bool other = slot->req.op == STORE_WRITE || slot->req.op == STORE_ZERO;

		if (slot->busy && slot->req.op != STORE_EXTENTS && (changes || other) &&
		    slot->req.len && slot->req.off < off + len &&
		    off < slot->req.off + slot->req.len)
			return true;
	}
	return false;
}

static void mark(const struct store_req *req, int by)
{
	for (uint64_t b = req->off / STORE_BLOCK; b <= (req->off + req->len - 1) / STORE_BLOCK;
	     b++) {
		m->pending[b] = (uint8_t)(m->pending[b] + by);
		if (by > 0)
			m->touched[b] = ++m->seq;
		m->safe[b] = false;
	}
}

static void check_read(const struct store_req *req)
{
	const uint8_t *got = req->buf;

	for (uint64_t i = 0; i < req->len; i++)
		if (m->unknown[req->off + i] && req->off + i < m->size) {
			m->unknown[req->off + i] = false;
			m->want[req->off + i] = got[i];
		}

	if (memcmp(got, m->want + req->off, req->len) == 0)
		return;
	for (uint64_t i = 0; i < req->len; i++)
		rig_check(m->unknown[req->off + i] || got[i] == m->want[req->off + i],
		    "step %u: read of %llu+%llu: byte %llu is 0x%02x, not 0x%02x", m->steps,
		    (unsigned long long)req->off, (unsigned long long)req->len,
		    (unsigned long long)(req->off + i), got[i], m->want[req->off + i]);
}

static void check_block(const uint8_t *got, uint64_t off, const char *where)
{
	if (memcmp(got, m->want + off, STORE_BLOCK) == 0)
		return;
	for (unsigned i = 0; i < STORE_BLOCK; i++)
		rig_check(m->unknown[off + i] || got[i] == m->want[off + i],
		    "step %u: flushed, but byte %llu is 0x%02x %s, not 0x%02x", m->steps,
		    (unsigned long long)(off + i), got[i], where, m->want[off + i]);
}

/* A flush has succeeded: what was written before it began is at the remote, and can't be lost there. */
static void check_remote(uint64_t seq, const uint8_t *skip)
{
	const uint8_t *stable = losing_stable(m->cr.losing);
	uint8_t buf[STORE_BLOCK];

	for (uint64_t b = 0; b < BLOCKS; b++) {
		uint64_t off = b * STORE_BLOCK;

		if ((skip && skip[b]) || m->touched[b] > seq)
			continue;
		rig_peek(m->cr.memory[1], off, buf, STORE_BLOCK);
		check_block(buf, off, "at the remote");
		check_block(stable + off, off, "when the remote has been started anew");
	}
}

static void check_extents(const struct slot *slot)
{
	for (unsigned i = 0; i < slot->req.ret_extents; i++) {
		const struct extent *ext = &slot->extents[i];

		for (uint64_t at = ext->off; at < ext->off + ext->len; at++) {
			uint64_t b = at / STORE_BLOCK;

			if (!(ext->flags & EXTENT_HOLE) || slot->skip[b] ||
			    m->touched[b] > slot->seq)
				continue;
			rig_check(m->unknown[at] || !m->want[at], "step %u: byte %llu is no hole",
			    m->steps, (unsigned long long)at);
		}
	}
}

static void flushed(const struct slot *slot)
{
	if (m->conf.durability == CACHE_REMOTE)
		check_remote(slot->seq, slot->skip);
	for (uint64_t b = 0; b < BLOCKS; b++)
		if (!slot->skip[b] && m->touched[b] <= slot->seq)
			m->safe[b] = true;
}

static void apply(struct slot *slot, int err)
{
	const struct store_req *req = &slot->req;

	if (err)
		m->errors++;
	switch (req->op) {
	case STORE_READ:
		m->reads++;
		if (!err)
			check_read(req);
		if (!err && req->ret_lent)
			store_unlend(m->cr.store, req->off, (uint32_t)req->len);
		break;
	case STORE_WRITE:
	case STORE_ZERO:
		m->writes++;
		mark(req, -1);
		if (req->op == STORE_WRITE)
			memcpy(m->want + req->off, slot->buf, req->len);
		else
			memset(m->want + req->off, 0, req->len);
		memset(m->unknown + req->off, err != 0, req->len);
		if (!err && req->op == STORE_WRITE && m->size < req->off + req->len)
			m->size = req->off + req->len;
		break;
	case STORE_FLUSH:
		m->flushes++;
		m->flushes_ok += err == 0;
		if (!err)
			flushed(slot);
		break;
	case STORE_EXTENTS:
		if (!err)
			check_extents(slot);
		break;
	case STORE_RESIZE:
		m->resizing = false;
		for (uint64_t b = m->cut_at / STORE_BLOCK; b < BLOCKS; b++)
			m->pending[b]--;
		for (uint64_t i = req->off; i < SIZE; i++) {
			m->unknown[i] = err && (m->unknown[i] || m->want[i]);
			m->want[i] = err ? m->want[i] : 0;
		}
		m->size = err ? cache_size(m->cr.cache) : req->off;
		break;
	default:
		break;
	}
}

static void slot_done(struct store_req *req, int err)
{
	struct slot *slot = (struct slot *)req;

	rig_check(slot->busy, "done came twice");
	apply(slot, err);
	slot->busy = false;
	m->busy--;
}

/* ---- requests ---- */

static uint64_t random_off(uint64_t most)
{
	uint64_t off = below(most);

	return below(3) ? off : off & ~(uint64_t)(STORE_BLOCK - 1);
}

static void begin_range(struct slot *slot, enum store_op op)
{
	struct store_req *req = &slot->req;
	uint64_t longest = below(4) ? 16 * KIB : LONGEST;
	/* A small part of the region is in use most of the time. */
	uint64_t off = random_off(below(2) ? SIZE / 8 : SIZE - 1);
	uint64_t len = 1 + random_off(longest < SIZE - off ? longest : SIZE - off);

	len = len < SIZE - off ? len : SIZE - off;
	if (overlaps(off, len, op != STORE_READ) || (m->resizing && off + len > m->cut_at))
		return;
	*req = (struct store_req){
	    .op = op,
	    .off = off,
	    .len = len,
	    .buf = slot->buf,
	    .done = slot_done,
	};
	if (op == STORE_READ) {
		memset(slot->buf, 0xdd, len);
		req->flags = below(2) ? STORE_LEND : 0;
	} else {
		rig_random_fill(&m->random, slot->buf, op == STORE_WRITE ? len : 0);
		if (below(6) == 0)
			memset(slot->buf, 0, len);
		req->flags = (below(10) == 0 ? STORE_FUA : 0) |
			     (op == STORE_ZERO && below(4) == 0 ? STORE_KEEP : 0);
		mark(req, 1);
	}
	slot->busy = true;
	m->busy++;
	store_submit(m->cr.store, req);
}

static void begin_plain(struct slot *slot, enum store_op op, uint64_t off)
{
	slot->req = (struct store_req){.op = op, .off = off, .done = slot_done};
	if (op == STORE_EXTENTS) {
		slot->req.len = 1 + below(SIZE - off);
		slot->req.extents = slot->extents;
		slot->req.extents_max = 16;
	}
	slot->seq = m->seq;
	memcpy(slot->skip, m->pending, sizeof(slot->skip));
	slot->busy = true;
	m->busy++;
	store_submit(m->cr.store, &slot->req);
}

static struct slot *free_slot(void)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (!m->slots[i].busy)
			return &m->slots[i];
	return NULL;
}

static void begin_request(void)
{
	struct slot *slot = free_slot();
	uint64_t kind = below(100);

	if (!slot)
		return;
	if (kind < 45) {
		begin_range(slot, STORE_READ);
	} else if (kind < 80) {
		begin_range(slot, STORE_WRITE);
	} else if (kind < 92) {
		begin_range(slot, STORE_ZERO);
	} else if (kind < 97) {
		begin_plain(slot, STORE_FLUSH, 0);
	} else if (kind < 98) {
		begin_plain(slot, STORE_EXTENTS, below(SIZE));
	} else if (!m->resizing) {
		uint64_t to = below(4) ? below(SIZE) : m->size + below(SIZE - m->size + 1);
		uint64_t cut = to < m->size ? to : m->size;

		for (unsigned i = 0; i < SLOTS; i++)
			if (m->slots[i].busy && m->slots[i].req.len &&
			    m->slots[i].req.op != STORE_EXTENTS &&
			    m->slots[i].req.off + m->slots[i].req.len > cut)
				return;
		m->resizing = true;
		m->cut_at = cut;
		for (uint64_t b = cut / STORE_BLOCK; b < BLOCKS; b++) {
			m->touched[b] = ++m->seq;
			m->pending[b]++;
			m->safe[b] = false;
		}
		begin_plain(slot, STORE_RESIZE, to);
	}
}

/* ---- orders ---- */

static void job_done(struct pull_job *job, int err)
{
	m->job_busy = false;
}

static void attach_again(struct cache_call *call, int err)
{
	m->detached = true;
}

static void give_order(void)
{
	struct pull_range ranges[4];
	struct cache_cell cells[10];
	struct cache_status status;

	switch (below(9)) {
	case 0:
		cache_evict(m->cr.cache, below(SIZE), 1 + below(SIZE));
		break;
	case 1:
		cache_pin(m->cr.cache, below(SIZE), 1 + below(SIZE / 4), below(3) == 0);
		break;
	case 2:
		if (!m->job_busy) {
			m->job_busy = true;
			m->job = (struct pull_job){
			    .off = below(SIZE),
			    .len = below(SIZE),
			    .done = job_done,
			};
			puller_add(m->cr.puller, &m->job);
		} else if (below(2)) {
			puller_cancel(m->cr.puller, &m->job);
		}
		break;
	case 3:
		puller_set_mode(m->cr.puller, (enum pull_mode)below(3));
		break;
	case 4:
		for (unsigned i = 0; i < 4; i++)
			ranges[i] =
			    (struct pull_range){below(SIZE), 1 + below(SIZE / 3), (int)below(9)};
		ck_assert_int_eq(puller_set_order(m->cr.puller, ranges, (unsigned)below(5)), 0);
		break;
	case 5:
		/* What is dropped is had again from the remote, which must not lose it. */
		if (m->size == cache_size(m->cr.cache) && !cache_unflushed(m->cr.cache))
			cache_drop_clean(m->cr.cache, m->size);
		break;
	case 6:
		if (!m->detached && !m->cr.cache->detaching && m->cr.cache->remote) {
			m->detach.done = attach_again;
			cache_detach(m->cr.cache, &m->detach);
		}
		break;
	case 7:
		pusher_set_interval(m->cr.pusher, below(50), below(3) ? 0 : 1 + below(100));
		break;
	default:
		cache_map(m->cr.cache, cells, 10);
		cache_status(m->cr.cache, &status);
		break;
	}
}

/* ---- faults ---- */

static void add_fault(struct store *side, enum fault_kind kind, unsigned ops, int err)
{
	fault_add(side, &(struct fault_rule){
			    .kind = kind,
			    .ops = ops,
			    .skip = below(6),
			    .count = 1 + below(4),
			    .after = kind == FAULT_FAIL && below(2),
			    .err = err,
			    .torn_bytes = kind == FAULT_TORN ? below(4) * 4096 : 0,
			});
}

/* Another weather for both sides. */
static void change_faults(void)
{
	fault_clear(m->cr.remote);
	fault_clear(m->cr.local);
	fault_release(m->cr.remote, FAULT_SHUFFLED, 0);
	fault_release(m->cr.local, FAULT_SHUFFLED, 0);
	if (m->calm)
		return;
	if (below(4) == 0)
		add_fault(m->cr.remote, FAULT_FAIL, FAULT_OP(below(STORE_OPS)), -EIO);
	if (below(6) == 0)
		add_fault(m->cr.remote, FAULT_TORN, FAULT_OP(STORE_WRITE), -EIO);
	if (below(6) == 0)
		add_fault(m->cr.local, FAULT_FAIL, FAULT_OP(STORE_WRITE), -ENOSPC);
	if (below(8) == 0)
		add_fault(m->cr.local, FAULT_TORN, FAULT_OP(STORE_WRITE), -EIO);
	if (below(8) == 0)
		add_fault(m->cr.local, FAULT_FAIL, FAULT_OP(STORE_ZERO), -EIO);
	if (below(8) == 0)
		add_fault(
		    m->cr.local, FAULT_FAIL, FAULT_OP(STORE_READ) | FAULT_OP(STORE_EXTENTS), -EIO);
	if (below(5) == 0)
		fault_add(m->cr.remote, &(struct fault_rule){
					    .kind = FAULT_HOLD,
					    .ops = below(2) ? 0 : FAULT_OP(STORE_WRITE),
					    .after = below(2),
					    .count = 1 + below(12),
					});
	if (below(3))
		fault_add(m->cr.remote, &(struct fault_rule){
					    .kind = FAULT_DELAY,
					    .after = below(2),
					    .delay_ns = below(5 * MS),
					    .jitter_ns = 1 + below(20 * MS),
					});
	if (below(2))
		fault_add(m->cr.local,
		    &(struct fault_rule){
			.kind = FAULT_DELAY, .after = below(2), .jitter_ns = 1 + below(2 * MS)});
}

static void lose(void)
{
	losing_loses(m->cr.losing, &m->random);
	m->losses++;
}

/* ---- the index ---- */

/* Takes some; when it comes next, looks, and stores them or not. */
static void commit_step(struct loop_timer *timer)
{
	struct cache_call *call = m->commit;
	int err = 0;

	m->taking = !m->taking;
	if (m->taking) {
		m->taken_count = cache_take_changed(m->cr.cache, m->taken, TAKEN);
	} else if (!m->calm && !m->settling && below(8) == 0) {
		cache_give_back(m->cr.cache, m->taken, m->taken_count);
		err = -EIO;
	} else {
		for (unsigned i = 0; i < m->taken_count; i++) {
			struct cache_chunk now = {.idx = m->taken[i].idx};

			cache_look(m->cr.cache, &now);
			rig_check((now.dirty & ~now.resident) == 0, "dirty and not resident");
			now.resident &= m->taken[i].resident;
			now.dirty &= now.resident;
			m->taken[i] = m->index[now.idx] = now;
			rig_peek(m->cr.memory[0], now.idx * CACHE_CHUNK,
			    m->index_bytes + now.idx * CACHE_CHUNK, CACHE_CHUNK);
		}
		cache_stored(m->cr.cache, m->taken, m->taken_count);
	}
	if (m->taking || (!err && m->taken_count == TAKEN)) {
		loop_timer_set(m->sim.loop, timer, loop_now_ns() + below(3 * MS));
		return;
	}
	m->commits++;
	m->commit = NULL;
	call->done(call, err);
}

static void begin_commit(void *ctx, struct cache_call *call)
{
	rig_check(!m->commit, "one at a time");
	m->commit = call;
	m->commit_timer.expired = commit_step;
	loop_timer_set(m->sim.loop, &m->commit_timer, loop_now_ns() + below(3 * MS));
}

/* ---- restarts ---- */

/* What the index does not know of is not there. */
static void forget_rest(void)
{
	for (uint64_t b = 0; b < BLOCKS; b++)
		if (!(m->index[b / 64].resident >> (b % 64) & 1))
			rig_poke(m->cr.memory[0], b * STORE_BLOCK, NULL, STORE_BLOCK);
}

/* What an index would have kept. */
static void save(void)
{
	struct cache_chunk some[5];
	unsigned n;

	do {
		n = cache_take_changed(m->cr.cache, some, 5);
		if (below(4) == 0 && n) {
			cache_give_back(m->cr.cache, some, n);
			continue;
		}
		for (unsigned i = 0; i < n; i++)
			m->index[some[i].idx] = some[i];
	} while (n || m->cr.cache->changed);
	forget_rest();
}

/* Nothing fails any more, and all that was begun ends. */
static void calm_down(void)
{
	m->calm = true;
	change_faults();
	if (m->job_busy)
		puller_cancel(m->cr.puller, &m->job);
	while (m->busy || m->job_busy || m->cr.cache->detaching || m->detached) {
		if (m->detached) {
			m->detached = false;
			cache_attach(m->cr.cache, m->cr.remote);
		}
		sim_run(&m->sim, MS);
	}
	m->calm = false;
}

/* The cache ends, without pushing, and begins again. */
static void restart(void)
{
	calm_down();
	/* A write that failed only when it was to be flushed has made the region longer, too. */
	m->size = cache_size(m->cr.cache);
	sim_end(&m->sim, &m->cr);
	save();
	cache_rig_close(&m->cr);
}

/* The cache is killed now: what becomes of it after that has never been.  What the remote has then it keeps: bytes that
 * were read shall not change, and nobody may know any more that they were not flushed. */
static void kill_it(void)
{
	struct killed *killed = &m->killed;

	if (below(2))
		lose();
	killed->size = cache_size(m->cr.cache); /* with writes that were pushed, but not done */
	memcpy(killed->want, m->want, SIZE);
	memcpy(killed->unknown, m->unknown, sizeof(m->unknown));
	for (uint64_t b = 0; b < BLOCKS; b++)
		killed->safe[b] = m->safe[b] && !m->pending[b];
	memcpy(killed->index, m->index, sizeof(m->index));
	memcpy(killed->index_bytes, m->index_bytes, SIZE);
	rig_peek(m->cr.memory[0], 0, killed->local, SIZE);
	rig_peek(m->cr.memory[1], 0, killed->remote, SIZE);
	calm_down();
	sim_end(&m->sim, &m->cr);
	cache_rig_close(&m->cr);
	m->size = killed->size;
	memcpy(m->want, killed->want, SIZE);
	memcpy(m->index, killed->index, sizeof(m->index));
	memcpy(m->index_bytes, killed->index_bytes, SIZE);
	for (uint64_t b = 0; b < BLOCKS; b++) {
		m->safe[b] = killed->safe[b];
		memcpy(
		    m->unknown + b * STORE_BLOCK, killed->unknown + b * STORE_BLOCK, STORE_BLOCK);
		if (!m->safe[b])
			memset(m->unknown + b * STORE_BLOCK, true, STORE_BLOCK);
		rig_poke(
		    m->cr.memory[0], b * STORE_BLOCK, killed->local + b * STORE_BLOCK, STORE_BLOCK);
		rig_poke(m->cr.memory[1], b * STORE_BLOCK, killed->remote + b * STORE_BLOCK,
		    STORE_BLOCK);
	}
	losing_settle(m->cr.losing);
	if (!m->conf.commit)
		for (uint64_t c = 0; c < SIZE / CACHE_CHUNK; c++)
			m->index[c] = (struct cache_chunk){.idx = c};
	for (uint64_t b = 0; b < BLOCKS; b++) { /* as core/cache_index_load.c does */
		struct cache_chunk *chunk = &m->index[b / 64];
		uint64_t bit = (uint64_t)1 << (b % 64);

		if (memcmp(killed->local + b * STORE_BLOCK, m->index_bytes + b * STORE_BLOCK,
			STORE_BLOCK) &&
		    !(chunk->dirty & bit))
			chunk->resident &= ~bit;
	}
	forget_rest();
	m->kills++;
}

static void build(void)
{
	m->conf.size = m->size;
	m->conf.detached = true;
	cache_rig_build(&m->cr, m->sim.loop, m->sim.workers, &m->conf);
	/* As core/managed_begin.c does. */
	rig_poke(m->cr.memory[0], m->size, NULL, SIZE - m->size);
	for (uint64_t c = 0; c < SIZE / CACHE_CHUNK; c++)
		cache_load(m->cr.cache, &m->index[c]);
	cache_attach(m->cr.cache, m->cr.remote);
}

/* ---- a life ---- */

static void step(struct loop_timer *timer)
{
	m->steps++;
	if (below(3) == 0)
		cache_audit(m->cr.cache);
	if (m->detached && below(8) == 0) {
		m->detached = false;
		cache_attach(m->cr.cache, m->cr.remote);
	}
	if (below(60) == 0)
		change_faults();
	if (below(200) == 0)
		lose();
	if (below(40) == 0)
		give_order();
	for (uint64_t n = below(6); n > 0; n--)
		begin_request();
	if (below(80) == 0)
		store_interrupt(&m->slots[below(SLOTS)].req);
	if (m->steps % STEPS && below(500))
		loop_timer_set(m->sim.loop, &m->timer, loop_now_ns() + below(3 * MS));
	else
		m->over = true;
}

/* All that is dirty goes out, and everything is as it should be. */
static void settle(void)
{
	int rc;

	m->settling = true;
	calm_down();
	/* The first one tells what failed before, the second is clean. */
	sim_op(&m->sim, m->cr.store, STORE_FLUSH, 0, 0, NULL, 0);
	rc = sim_op(&m->sim, m->cr.store, STORE_FLUSH, 0, 0, NULL, 0);
	ck_assert_int_eq(rc, 0);
	if (m->conf.durability == CACHE_REMOTE)
		check_remote(UINT64_MAX, NULL);
	for (uint64_t off = 0; off < SIZE; off += LONGEST) {
		struct slot *slot = &m->slots[0];

		slot->req = (struct store_req){.op = STORE_READ, .off = off, .len = LONGEST};
		slot->req.buf = slot->buf;
		ck_assert_int_eq(
		    sim_op(&m->sim, m->cr.store, STORE_READ, off, LONGEST, slot->buf, 0), 0);
		check_read(&slot->req);
	}
	cache_audit(m->cr.cache);
}

static void live(const struct cache_rig_conf *conf, int life)
{
	bool may_kill = conf->durability == CACHE_REMOTE || conf->commit;

	m->conf = *conf;
	m->conf.size_max = SIZE;
	m->conf.losing = true;
	m->size = below(SIZE);
	for (uint64_t c = 0; c < SIZE / CACHE_CHUNK; c++)
		m->index[c].idx = c;
	m->timer.expired = step;
	build();
	while (m->steps < STEPS) {
		m->over = false;
		loop_timer_set(m->sim.loop, &m->timer, loop_now_ns());
		sim_until(&m->sim, &m->over, 600 * 1000 * MS);
		if (m->steps >= STEPS)
			break;
		if (may_kill && below(2))
			kill_it();
		else
			restart();
		build();
	}
	settle();
	sim_end(&m->sim, &m->cr);
	cache_rig_free(&m->cr);
	printf(
	    "life %d: %llu reads, %llu changes, %llu of %llu flushes, %llu errors, %llu losses, %llu kills\n",
	    life, (unsigned long long)m->reads, (unsigned long long)m->writes,
	    (unsigned long long)m->flushes_ok, (unsigned long long)m->flushes,
	    (unsigned long long)m->errors, (unsigned long long)m->losses,
	    (unsigned long long)m->kills);
}

START_TEST(model)
{
	static const struct cache_rig_conf confs[] = {
	    {.pull = PULL_ALL, .interval_ms = 20},
	    {.cache_size = 1, .interval_ms = 10, .pull = PULL_SEQUENTIAL},
	    {.cache_size = 1, .max_dirty = 512 * KIB, .interval_ms = 5, .ops = 64, .buffers = 8},
	    {.max_dirty = 1024 * KIB, .interval_ms = 1000, .max_dirty_age_ms = 3000},
	    {.cache_size = 1, .interval_ms = 10, .pull = PULL_ALL, .durability = CACHE_LOCAL},
	    {.cache_size = 1, .interval_ms = 10, .pull = PULL_ALL, .commit = begin_commit},
	    {.cache_size = 1,
		.max_dirty = 512 * KIB,
		.ops = 64,
		.buffers = 8,
		.durability = CACHE_LOCAL,
		.commit = begin_commit},
	};

	m = calloc(1, sizeof(*m));
	ck_assert(m);
	rig_random_init(&m->random, "cache_model");
	sim_start(&m->sim);
	live(&confs[(unsigned)_i % (sizeof(confs) / sizeof(confs[0]))], _i);
	sim_stop(&m->sim);
	free(m);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cache_model");
	TCase *tc = tcase_create("model");
	const char *life = getenv("LIFE");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 120);
	if (life)
		tcase_add_loop_test(tc, model, atoi(life), atoi(life) + 1);
	else
		tcase_add_loop_test(tc, model, 0, LIVES);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
