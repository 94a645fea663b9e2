/* SPDX-License-Identifier: Apache-2.0
 *
 * Random tests of stores against a plain array of bytes, and against an error in each place.
 *
 * A round cuts the region into random pieces and does something at once on each: pieces don't overlap,
 * so the model knows the outcome.  The seed is printed; SEED=… repeats a run (up to timing).
 */
#include "tests/lib/contract.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fault.h"

#define KIB ((uint64_t)1024)
#define SIZE (2048 * KIB)
#define STRIPE (64 * KIB)

enum {
	PIECES = 24, /* requests at once */
	ROUNDS = 80,
	BLOCKS = SIZE / STORE_BLOCK,
	MOST_FAULTS = 200,
};

struct model {
	struct contract_stack stack;
	struct rig_random random;
	uint8_t bytes[SIZE];
	bool unknown[SIZE]; /* a request that failed has been here */
	bool touched[BLOCKS]; /* may be allocated */
	uint8_t buf[SIZE]; /* the requests' buffers, each at its own offset */
	unsigned pieces; /* requests at once */
	unsigned errors;
};

/* what: NULL for a life that is the same each time. */
static struct model *model_begin(int i, const char *what)
{
	struct model *m = calloc(1, sizeof(*m));

	ck_assert(m);
	if (!contract_begin(&m->stack, contract_factory_at(i), SIZE)) {
		free(m);
		return NULL;
	}
	m->pieces = PIECES;
	m->random.state = 0x1234567;
	if (what)
		rig_random_init(&m->random, what);
	return m;
}

static void model_end(struct model *m)
{
	contract_end(&m->stack);
	free(m);
}

/* ---- what requests do to the model ---- */

static void model_touch(struct model *m, const struct store_req *req, bool whole, bool touched)
{
	uint64_t lo = req->off / STORE_BLOCK, hi = (req->off + req->len - 1) / STORE_BLOCK;

	for (uint64_t b = lo; b <= hi; b++)
		if (!whole ||
		    (b * STORE_BLOCK >= req->off && (b + 1) * STORE_BLOCK <= req->off + req->len))
			m->touched[b] = touched;
}

static void model_apply(struct model *m, const struct store_req *req, int err)
{
	uint64_t off = req->off, len = req->len;

	if (err)
		m->errors++;
	switch (req->op) {
	case STORE_WRITE:
		memcpy(m->bytes + off, m->buf + off, len);
		memset(m->unknown + off, err != 0, len);
		model_touch(m, req, false, true);
		break;
	case STORE_ZERO:
		memset(m->bytes + off, 0, len);
		memset(m->unknown + off, err != 0, len);
		if (!(req->flags & STORE_KEEP))
			model_touch(m, req, true, err != 0);
		break;
	case STORE_ALLOC:
		model_touch(m, req, false, true);
		break;
	case STORE_RESIZE:
		if (err) {
			memset(m->unknown + off, true, SIZE - off);
			break;
		}
		memset(m->bytes + off, 0, SIZE - off);
		memset(m->unknown + off, false, SIZE - off);
		for (uint64_t b = (off + STORE_BLOCK - 1) / STORE_BLOCK; b < BLOCKS; b++)
			m->touched[b] = false;
		break;
	default:
		break;
	}
}

static void check_bytes(
    struct model *m, const uint8_t *got, uint64_t off, uint64_t len, const char *what)
{
	if (memcmp(got, m->bytes + off, len) == 0)
		return;
	for (uint64_t i = 0; i < len; i++)
		rig_check(m->unknown[off + i] || got[i] == m->bytes[off + i],
		    "%s: %s: byte %llu is 0x%02x, not 0x%02x", m->stack.factory->name, what,
		    (unsigned long long)(off + i), got[i], m->bytes[off + i]);
}

static void check_all(struct model *m, unsigned loop)
{
	uint64_t step = m->stack.store->max_len < SIZE ? m->stack.store->max_len : SIZE;

	for (uint64_t off = 0; off < SIZE; off += step) {
		ck_assert_int_eq(
		    rig_read(m->stack.rig.loops[loop], m->stack.store, off, m->buf, (uint32_t)step),
		    0);
		check_bytes(m, m->buf, off, step, "at the end");
	}
}

static void check_hole(struct model *m, uint64_t off, uint64_t len)
{
	for (uint64_t at = off; at < off + len; at++)
		rig_check(m->bytes[at] == 0 || m->unknown[at],
		    "%s: byte %llu is in a hole, but not 0", m->stack.factory->name,
		    (unsigned long long)at);
}

static void check_touched(struct model *m, uint64_t off, uint64_t len)
{
	for (uint64_t b = off / STORE_BLOCK; b <= (off + len - 1) / STORE_BLOCK; b++)
		rig_check(m->touched[b], "%s: block %llu is in no hole, but was not written",
		    m->stack.factory->name, (unsigned long long)b);
}

/* A hole reads as zeros; a block that nothing has touched is a hole, where holes are told. */
static void check_extents(struct model *m, const struct store_req *req)
{
	uint64_t pos = req->off;

	ck_assert_uint_ge(req->ret_extents, 1);
	for (unsigned i = 0; i < req->ret_extents; i++) {
		const struct extent *ext = &req->extents[i];
		bool hole = ext->flags & EXTENT_HOLE;

		ck_assert_uint_eq(ext->off, pos);
		ck_assert_uint_gt(ext->len, 0);
		ck_assert(i == 0 || ext->flags != req->extents[i - 1].flags);
		if (hole)
			check_hole(m, ext->off, ext->len);
		else if (m->stack.flags & CONTRACT_SPARSE)
			check_touched(m, ext->off, ext->len);
		pos += ext->len;
	}
	if (req->ret_extents < req->extents_max)
		ck_assert_uint_eq(pos, req->off + req->len);
	ck_assert_uint_le(pos, req->off + req->len);
}

/* ---- random requests ---- */

/* An offset in [lo, hi]: on a block's edge, near one, or anywhere. */
static uint64_t random_off(struct model *m, uint64_t lo, uint64_t hi)
{
	uint64_t off = lo + rig_random_below(&m->random, hi - lo + 1);
	unsigned how = (unsigned)rig_random_below(&m->random, 4);

	if (how < 2)
		off -= off % STORE_BLOCK;
	else if (how == 2)
		off = off - off % STORE_BLOCK + 1;
	off -= off % m->stack.store->align;
	return off < lo ? lo : off > hi ? hi : off;
}

/* Memory of the store's, asked for and given back on a loop, as store_submit is called. */
struct loan {
	struct store *store;
	uint64_t off;
	uint32_t len;
	void *bytes;
};

static void lend_now(void *ctx)
{
	struct loan *loan = ctx;

	loan->bytes = store_lend(loan->store, loan->off, loan->len);
}

static void unlend_now(void *ctx)
{
	struct loan *loan = ctx;

	store_unlend(loan->store, loan->off, loan->len);
}

static void random_req(
    struct model *m, struct rig_req *rr, unsigned loop, uint64_t off, uint64_t end)
{
	struct store_req *req = &rr->req;
	unsigned kind = (unsigned)rig_random_below(&m->random, 100);

	memset(rr, 0, sizeof(*rr));
	req->off = off;
	req->len = end - off;
	req->buf = m->buf + off;
	if (rig_random_below(&m->random, 4) == 0)
		req->flags |= STORE_BACKGROUND;
	if (kind < 40) {
		req->op = STORE_WRITE;
		rig_random_fill(&m->random, req->buf, req->len);
		req->flags |= rig_random_below(&m->random, 8) == 0 ? STORE_FUA : 0;
	} else if (kind < 65) {
		req->op = STORE_READ;
		memset(req->buf, 0x77, req->len);
		req->flags |= rig_random_below(&m->random, 2) ? STORE_LEND : 0;
		req->flags |= rig_random_below(&m->random, 2) ? STORE_BRIEF : 0;
	} else if (kind < 85) {
		req->op = STORE_ZERO;
		req->flags |= rig_random_below(&m->random, 8) == 0 ? STORE_FUA : 0;
		req->flags |= rig_random_below(&m->random, 3) == 0 ? STORE_KEEP : 0;
	} else if (kind < 92) {
		req->op = STORE_ALLOC;
	} else {
		req->op = STORE_FLUSH;
		req->off = req->len = 0;
	}
	if (req->op <= STORE_WRITE && req->len > m->stack.store->max_len)
		req->len = m->stack.store->max_len;
	if (req->op == STORE_WRITE && rig_random_below(&m->random, 2) == 0) {
		struct loan loan = {m->stack.store, req->off, (uint32_t)req->len, NULL};

		rig_call(m->stack.rig.loops[loop], lend_now, &loan);
		if (loan.bytes)
			req->buf = memcpy(loan.bytes, req->buf, req->len);
	}
}

/* Disjoint requests for a loop: all over, or over its stripes, if `shares` of them share; how many. */
static unsigned random_batch(struct model *m, struct rig_req *reqs, unsigned loop, unsigned shares)
{
	uint64_t stripe = shares > 1 ? STRIPE : SIZE;
	unsigned n = 0;

	for (uint64_t base = shares > 1 ? loop * stripe : 0; base < SIZE && n < m->pieces;
	     base += shares * stripe) {
		uint64_t off = base;

		while (off < base + stripe && n < m->pieces) {
			uint64_t most = base + stripe - off;
			uint64_t want = shares > 1                        ? most
					: rig_random_below(&m->random, 8) ? 96 * KIB
									  : SIZE;
			uint64_t lo = off + m->stack.store->align;
			uint64_t end = random_off(m, lo, off + (want < most ? want : most));

			if (rig_random_below(&m->random, 4))
				random_req(m, &reqs[n++], loop, off, end);
			off = end;
		}
	}
	return n;
}

static void batch_done(struct model *m, struct rig_req *reqs, unsigned loop, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		const struct store_req *req = &reqs[i].req;

		/* A lent buffer is the store's: with no write under way it is as good. */
		if (req->op == STORE_READ && reqs[i].err == 0)
			check_bytes(m, req->buf, req->off, req->len, "in between");
		if ((req->op == STORE_READ && reqs[i].err == 0 && req->ret_lent) ||
		    (req->op == STORE_WRITE && req->buf != m->buf + req->off)) {
			struct loan loan = {m->stack.store, req->off, (uint32_t)req->len, NULL};

			rig_call(m->stack.rig.loops[loop], unlend_now, &loan);
		}
	}
	for (unsigned i = 0; i < n; i++)
		model_apply(m, &reqs[i].req, reqs[i].err);
}

static void do_batch(struct model *m, unsigned loop)
{
	struct rig_req reqs[PIECES];
	unsigned n = random_batch(m, reqs, loop, 1);

	if (n) {
		rig_submit(m->stack.rig.loops[loop], m->stack.store, reqs, n);
		batch_done(m, reqs, loop, n);
	}
}

static void do_resize(struct model *m, unsigned loop)
{
	struct rig_req rr = {.req = {.op = STORE_RESIZE, .off = random_off(m, 0, SIZE)}};

	if (m->stack.flags & CONTRACT_FIXED)
		return;
	rig_submit(m->stack.rig.loops[loop], m->stack.store, &rr, 1);
	model_apply(m, &rr.req, rr.err);
}

static void do_extents(struct model *m, unsigned loop)
{
	struct extent extents[64];
	uint64_t off = random_off(m, 0, SIZE - 1);
	struct rig_req rr = {
	    .req =
		{
		    .op = STORE_EXTENTS,
		    .off = off,
		    .len = 1 + rig_random_below(&m->random, SIZE - off),
		    .extents = extents,
		    .extents_max = 1 + (unsigned)rig_random_below(&m->random, 64),
		},
	};

	rig_submit(m->stack.rig.loops[loop], m->stack.store, &rr, 1);
	if (rr.err)
		m->errors++;
	else
		check_extents(m, &rr.req);
}

/* ---- the tests ---- */

START_TEST(model_random_requests)
{
	struct model *m = model_begin(_i, "model_random_requests");

	if (!m)
		return;
	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned loop = m->stack.flags & CONTRACT_LOOPS ? round % 2 : 0;

		do_batch(m, loop);
		do_extents(m, loop);
		if (rig_random_below(&m->random, 8) == 0)
			do_resize(m, loop);
	}
	ck_assert_uint_eq(m->errors, 0);
	check_all(m, 0);
	model_end(m);
}
END_TEST

/* Each loop has every other stripe; their requests are in flight together. */
START_TEST(model_two_loops_at_once)
{
	struct rig_req reqs[2][PIECES];
	struct rig_wait *waits[2];
	struct model *m = model_begin(_i, "model_two_loops_at_once");
	unsigned n[2];

	if (!m)
		return;
	for (unsigned round = 0; round < ROUNDS && m->stack.flags & CONTRACT_LOOPS; round++) {
		for (unsigned l = 0; l < 2; l++)
			n[l] = random_batch(m, reqs[l], l, 2);
		for (unsigned l = 0; l < 2; l++)
			waits[l] = rig_begin(m->stack.rig.loops[l], m->stack.store, reqs[l], n[l]);
		for (unsigned l = 0; l < 2; l++)
			rig_end(waits[l]);
		for (unsigned l = 0; l < 2; l++)
			batch_done(m, reqs[l], l, n[l]);
	}
	ck_assert_uint_eq(m->errors, 0);
	check_all(m, 0);
	check_all(m, m->stack.flags & CONTRACT_LOOPS ? 1 : 0);
	model_end(m);
}
END_TEST

struct fail_run {
	int factory;
	struct fault_rule rule;
};

/* A short life with the n-th request failing: one error is told, and no other byte is wrong. */
static bool fail_nth(void *ctx, unsigned n)
{
	struct fail_run *run = ctx;
	struct fault_rule rule = run->rule;
	struct model *m = model_begin(run->factory, NULL);
	struct fault_counts counts;
	unsigned hits = 0;

	if (!m)
		return false;
	contract_add_fault(&m->stack);
	rule.skip = n - 1;
	rule.count = 1;
	fault_add(m->stack.store, &rule);
	m->pieces = 8; /* a life for each of the requests in it: it should be short */
	do_batch(m, 0);
	do_extents(m, 0);
	do_batch(m, 0);
	do_resize(m, 0);
	if (rig_op(m->stack.rig.loops[0], m->stack.store, STORE_FLUSH, 0, 0, 0))
		m->errors++;
	fault_count(m->stack.store, &counts);
	for (unsigned op = 0; op < STORE_OPS; op++)
		hits += (unsigned)counts.hit[op];
	fault_clear(m->stack.store);
	ck_assert_uint_le(hits, 1);
	ck_assert_msg(m->errors == hits, "%u errors for %u faults", m->errors, hits);
	/* The store goes on as if nothing had been. */
	do_batch(m, 0);
	ck_assert_uint_eq(m->errors, hits);
	check_all(m, 0);
	model_end(m);
	return hits > 0;
}

START_TEST(model_fail_each_request)
{
	static const struct fault_rule rules[] = {
	    {.kind = FAULT_FAIL, .err = -EIO},
	    {.kind = FAULT_FAIL, .err = -ENOSPC, .after = true},
	    {.kind = FAULT_TORN, .err = -EIO, .torn_bytes = 4096},
	    {.kind = FAULT_DELAY, .err = -EIO, .after = true, .delay_ns = 1000000},
	};

	for (unsigned r = 0; r < sizeof(rules) / sizeof(rules[0]); r++) {
		struct fail_run run = {_i, rules[r]};

		rig_fail_each(fail_nth, &run, MOST_FAULTS);
	}
}
END_TEST

/* Answers come back in any order. */
START_TEST(model_answers_out_of_order)
{
	struct model *m = model_begin(_i, "model_answers_out_of_order");

	if (!m)
		return;
	contract_add_fault(&m->stack);
	fault_add(m->stack.store,
	    &(struct fault_rule){.kind = FAULT_DELAY, .after = true, .jitter_ns = 2000000});
	for (unsigned round = 0; round < ROUNDS / 4; round++)
		do_batch(m, round % 2 && m->stack.flags & CONTRACT_LOOPS ? 1 : 0);
	fault_clear(m->stack.store);
	ck_assert_uint_eq(m->errors, 0);
	check_all(m, 0);
	model_end(m);
}
END_TEST

void contract_model_add(TCase *tcase, int i)
{
	tcase_add_loop_test(tcase, model_random_requests, i, i + 1);
	tcase_add_loop_test(tcase, model_two_loops_at_once, i, i + 1);
	tcase_add_loop_test(tcase, model_fail_each_request, i, i + 1);
	tcase_add_loop_test(tcase, model_answers_out_of_order, i, i + 1);
}
