/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading ahead: what is answered from memory is what the donor has, whatever changes meanwhile, and only who
 * reads in order makes it read at all.
 *
 * The donor is an array of bytes behind a pool of our own, which holds requests until the test lets them go on.
 * A READ sees the bytes as they are when it is submitted or when it ends, as a coin decides: a donor may do
 * either.  Time is simulated.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/ahead.h"
#include "core/loop.h"
#include "tests/lib/rig.h"

enum { KIB = 1024, SIZE = 8 * 1024 * KIB, HELD_MAX = 64, REGION = 7, READ_LEN = 32 * KIB };

struct donor;

struct donor_handle {
	struct handle handle;
	struct donor *donor;
};

struct donor {
	struct pool pool;
	struct donor_handle handles[2];
	unsigned opens;
	uint8_t *bytes;
	bool hold; /* requests wait for let_go */
	bool away; /* an interrupt ends a request */
	int read_err, write_err; /* what requests end with */
	struct rig_random random;
	struct held {
		struct store_req *req;
		bool seen; /* a READ has its bytes */
	} held[HELD_MAX];
	unsigned held_count, reads, closes;
	uint64_t read_bytes;
	struct store_stats stats;
};

static void look(struct donor *donor, struct store_req *req)
{
	memcpy(req->buf, donor->bytes + req->off, req->len);
}

static void end(struct donor *donor, struct store_req *req, bool seen)
{
	int err = req->op == STORE_READ ? donor->read_err : donor->write_err;

	if (err) {
		store_complete(req, err);
		return;
	}
	if (req->op == STORE_READ && !seen)
		look(donor, req);
	else if (req->op == STORE_WRITE)
		memcpy(donor->bytes + req->off, req->buf, req->len);
	else if (req->op == STORE_ZERO)
		memset(donor->bytes + req->off, 0, req->len);
	store_complete(req, 0);
}

static struct donor *donor_of(struct store *store)
{
	return ((struct donor_handle *)store)->donor;
}

static void donor_submit(struct store *store, struct store_req *req)
{
	struct donor *donor = donor_of(req->at);
	bool seen = false;

	if (req->op == STORE_READ) {
		donor->reads++;
		donor->read_bytes += req->len;
	}
	if (!donor->hold) {
		end(donor, req, false);
		return;
	}
	if (req->op == STORE_READ && rig_random_below(&donor->random, 2)) {
		look(donor, req);
		seen = true;
	}
	rig_check(donor->held_count < HELD_MAX, "too many requests at once");
	donor->held[donor->held_count++] = (struct held){req, seen};
}

/* Lets the i-th held request go on. */
static void let_go(struct donor *donor, unsigned i)
{
	struct held held = donor->held[i];

	memmove(&donor->held[i], &donor->held[i + 1],
	    (--donor->held_count - i) * sizeof(donor->held[0]));
	end(donor, held.req, held.seen);
}

static void let_all_go(struct donor *donor)
{
	while (donor->held_count)
		let_go(donor, 0);
}

static void donor_interrupt(struct store *store, struct store_req *req)
{
	struct donor *donor = donor_of(store);

	for (unsigned i = 0; donor->away && i < donor->held_count; i++) {
		if (donor->held[i].req != req)
			continue;
		memmove(&donor->held[i], &donor->held[i + 1],
		    (--donor->held_count - i) * sizeof(donor->held[0]));
		store_complete(req, -EINTR);
		return;
	}
}

static void donor_destroy(struct store *store)
{
}

static const struct store_ops donor_store_ops = {
    .name = "donor",
    .submit = donor_submit,
    .interrupt = donor_interrupt,
    .destroy = donor_destroy,
};

static bool is_donors(const struct donor *donor, const struct handle *handle)
{
	return handle == &donor->handles[0].handle || handle == &donor->handles[1].handle;
}

static void donor_pool_submit(struct pool *pool, struct pool_req *req)
{
	struct donor *donor = (struct donor *)pool;
	struct donor_handle *dh;

	switch (req->op) {
	case POOL_OPEN:
		dh = &donor->handles[donor->opens++];
		dh->donor = donor;
		store_init(&dh->handle.store, &donor_store_ops, SIZE);
		dh->handle.store.stats = &donor->stats;
		dh->handle.region_id = REGION;
		dh->handle.flags = req->flags;
		req->ret_handle = &dh->handle;
		break;
	case POOL_CLOSE:
		ck_assert(is_donors(donor, req->handle));
		store_destroy(&req->handle->store);
		donor->closes++;
		break;
	case POOL_SETATTR:
		ck_assert(is_donors(donor, req->handle));
		memset(donor->bytes + req->attr.size, 0, SIZE - req->attr.size);
		break;
	case POOL_GETATTR:
		ck_assert(is_donors(donor, req->handle));
		break;
	default:
		break;
	}
	pool_complete(req, 0);
}

static const struct pool_ops donor_pool_ops = {.name = "donor", .submit = donor_pool_submit};

/* ---- what the tests use ---- */

struct place {
	struct donor donor;
	struct pool *pool;
	struct handle *handle, *writer; /* another one that only writes */
	unsigned notices;
};

static void control_done(struct pool_req *req, int err)
{
	req->err = err;
}

/* Asks the pool; what is not done at once has err 1. */
static void ask(struct place *place, struct pool_req *req)
{
	req->session = 1;
	req->done = control_done;
	req->err = 1;
	pool_submit(place->pool, req);
}

static void place_start(struct place *place, unsigned flags)
{
	struct pool_req req = {.op = POOL_OPEN, .flags = flags};

	memset(place, 0, sizeof(*place));
	loop_simulate(1000000000);
	rig_random_init(&place->donor.random, "ahead");
	place->donor.pool.ops = &donor_pool_ops;
	place->donor.bytes = malloc(SIZE);
	rig_random_fill(&place->donor.random, place->donor.bytes, SIZE);
	ck_assert_int_eq(ahead_pool_create(&place->donor.pool, false, &place->pool, NULL), 0);
	ask(place, &req);
	ck_assert_int_eq(req.err, 0);
	place->handle = req.ret_handle;
	req.flags = POOL_WRITE | (flags & POOL_SHARED);
	ask(place, &req);
	ck_assert_int_eq(req.err, 0);
	place->writer = req.ret_handle;
}

static void place_stop(struct place *place)
{
	struct pool_req req = {.op = POOL_CLOSE, .handle = place->handle};

	let_all_go(&place->donor);
	if (place->handle)
		ask(place, &req);
	let_all_go(&place->donor);
	ck_assert_int_eq(req.err, 0);
	req.handle = place->writer;
	ask(place, &req);
	ck_assert_int_eq(req.err, 0);
	ck_assert_uint_eq(place->donor.closes, 2);
	pool_destroy(place->pool);
	free(place->donor.bytes);
	loop_simulate(0);
}

struct op {
	struct store_req req;
	int err; /* 1 until done */
	uint8_t buf[2 * AHEAD_READ_MAX];
};

static void op_done(struct store_req *req, int err)
{
	struct op *op = (struct op *)req;

	op->err = err;
	if (req->op == STORE_READ && err == 0 && req->buf != op->buf) {
		rig_check(req->flags & STORE_BRIEF, "the buffer is not ours");
		memcpy(op->buf, req->buf, req->len);
	}
}

/* What changes bytes does so through either handle. */
static void begin(
    struct place *place, struct op *op, enum store_op what, uint64_t off, uint64_t len)
{
	struct handle *handle;

	op->req = (struct store_req){
	    .op = what,
	    .flags =
		what == STORE_READ && rig_random_below(&place->donor.random, 2) ? STORE_BRIEF : 0,
	    .off = off,
	    .len = len,
	    .buf = op->buf,
	    .done = op_done,
	};
	op->err = 1;
	handle = what == STORE_READ || rig_random_below(&place->donor.random, 2) ? place->handle
										 : place->writer;
	store_submit(&handle->store, &op->req);
}

/* Reads, letting the donor answer; the bytes must be what it has. */
static void expect(struct place *place, uint64_t off, uint64_t len)
{
	static struct op op;

	begin(place, &op, STORE_READ, off, len);
	while (op.err == 1 && place->donor.held_count)
		let_go(&place->donor, 0);
	ck_assert_int_eq(op.err, 0);
	ck_assert_mem_eq(op.buf, place->donor.bytes + off, len);
}

static void expect_run(struct place *place, uint64_t off, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		expect(place, off + (uint64_t)i * READ_LEN, READ_LEN);
}

static struct ahead_stats stats_of(const struct place *place)
{
	struct ahead_stats stats;

	ahead_pool_stats(place->pool, &stats);
	return stats;
}

/* Changes bytes at the donor behind everybody's back. */
static void spoil(struct place *place, uint64_t off, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++)
		place->donor.bytes[off + i] ^= 0x55;
}

/* ---- tests ---- */

START_TEST(reads_in_order_come_from_memory)
{
	struct place place;
	struct ahead_stats stats;

	place_start(&place, POOL_READ | POOL_WRITE);
	expect_run(&place, 0, SIZE / READ_LEN);
	stats = stats_of(&place);
	ck_assert_uint_ge(stats.hits, SIZE / READ_LEN - 8);
	ck_assert_uint_lt(place.donor.reads, SIZE / AHEAD_SEGMENT + 8);
	/* Nothing is asked for twice. */
	ck_assert_uint_le(place.donor.read_bytes, SIZE);
	ck_assert_uint_eq(stats.unused_bytes, 0);
	/* Who looks at the counters sees the requests, not what we made of them. */
	ck_assert_uint_eq(place.donor.stats.requests[STORE_READ], SIZE / READ_LEN);
	ck_assert_uint_eq(place.donor.stats.bytes[STORE_READ], SIZE);
	place_stop(&place);
}
END_TEST

/* Lengths that do not fit into segments, and gaps. */
START_TEST(crosses_segments)
{
	struct place place;
	uint64_t off = 0, lens[] = {4096, 12288, 28672, 5000, 70000, 100, AHEAD_READ_MAX};

	place_start(&place, POOL_READ | POOL_WRITE);
	for (unsigned i = 0; off < SIZE - 2 * AHEAD_READ_MAX; i++) {
		expect(&place, off, lens[i % 7]);
		off += lens[i % 7] + (i % 5 == 0 ? 4096 : 0);
	}
	ck_assert_uint_gt(stats_of(&place).hits, 50);
	place_stop(&place);
}
END_TEST

START_TEST(other_reads_pass_by)
{
	struct place place;
	static const unsigned flags[] = {
	    POOL_READ, POOL_READ | POOL_WRITE | POOL_SHARED, POOL_READ | POOL_WRITE};

	place_start(&place, flags[_i]);
	if (_i == 2) {
		for (unsigned i = 0; i < 500; i++)
			expect(&place, rig_random_below(&place.donor.random, SIZE / 16384) * 16384,
			    4096);
		for (uint64_t off = 0; off < SIZE; off += 2 * AHEAD_READ_MAX)
			expect(&place, off, 2 * AHEAD_READ_MAX);
		ck_assert_uint_eq(place.donor.reads, 500 + SIZE / (2 * AHEAD_READ_MAX));
	} else { /* no lease, no reading ahead */
		ck_assert(is_donors(&place.donor, place.handle));
	}
	ck_assert_uint_eq(stats_of(&place).bytes, 0);
	place_stop(&place);
}
END_TEST

/* The distance grows with the time that the donor takes, and no further than it has to. */
START_TEST(distance_follows_the_round_trip)
{
	struct place place;
	unsigned most = 0;

	place_start(&place, POOL_READ | POOL_WRITE);
	expect_run(&place, 0, 40);
	ck_assert_uint_eq(stats_of(&place).waits, 0);
	place.donor.hold = true;
	for (unsigned i = 40; i < 200; i++) {
		expect(&place, (uint64_t)i * READ_LEN, READ_LEN);
		most = place.donor.held_count > most ? place.donor.held_count : most;
	}
	ck_assert_uint_gt(stats_of(&place).waits, 0);
	ck_assert_uint_ge(most, 4);
	ck_assert_uint_le(most, AHEAD_MEMORY / AHEAD_SEGMENT / 2 + 1);
	place_stop(&place);
}
END_TEST

/* Several readers at once get on as one does: nobody takes what another is about to read. */
START_TEST(readers_share)
{
	enum { READERS = 5, READS = 40 };
	struct place place;

	place_start(&place, POOL_READ | POOL_WRITE);
	for (unsigned i = 0; i < READS; i++)
		for (unsigned reader = 0; reader < READERS; reader++)
			expect(&place, SIZE / READERS / READ_LEN * READ_LEN * reader + i * READ_LEN,
			    READ_LEN);
	ck_assert_uint_ge(stats_of(&place).hits, READERS * (READS - 8));
	ck_assert_uint_eq(stats_of(&place).unused_bytes, 0);
	place_stop(&place);
}
END_TEST

/* Readers that end leave segments behind: these are taken when none is free, not those of a reader that goes
 * on. */
START_TEST(what_nobody_reads_is_taken)
{
	enum { ENDED = 40 };
	struct place place;
	uint64_t reads = 0;

	place_start(&place, POOL_READ | POOL_WRITE);
	expect_run(&place, 0, 4);
	for (unsigned i = 0; i < ENDED; i++) {
		expect_run(&place, SIZE / 2 + i * 7 % ENDED * 100 * KIB, 3);
		reads -= place.donor.reads;
		expect(&place, (4 + i) * READ_LEN, READ_LEN);
		reads += place.donor.reads;
	}
	/* From memory; every fourth time it reads on. */
	ck_assert_uint_le(reads, ENDED / 4 + 2);
	ck_assert_uint_ge(stats_of(&place).hits, ENDED);
	ck_assert_uint_gt(stats_of(&place).unused_bytes, 0);
	place_stop(&place);
}
END_TEST

/* It is enough that no more is left out than is read. */
START_TEST(small_gaps_do_not_matter)
{
	struct place place;

	place_start(&place, POOL_READ | POOL_WRITE);
	for (unsigned i = 0; i < 60; i++)
		expect(&place, i * 2 * READ_LEN, READ_LEN);
	ck_assert_uint_ge(stats_of(&place).hits, 50);
	for (unsigned i = 0; i < 60; i++)
		expect(&place, SIZE / 2 + i * 3 * READ_LEN / 4, READ_LEN / 4);
	ck_assert_uint_lt(stats_of(&place).hits, 60);
	place_stop(&place);
}
END_TEST

/* Bytes that changed while they were here, or on their way, are asked for again. */
START_TEST(a_change_is_seen)
{
	static struct op write;
	struct place place;
	uint64_t at = 6 * READ_LEN;
	bool coming = _i & 1, zero = _i & 2, late = _i & 4;

	place_start(&place, POOL_READ | POOL_WRITE);
	memset(write.buf, 0xaa, sizeof(write.buf));
	place.donor.hold = coming;
	expect_run(&place, 0, 4);
	ck_assert(!coming || place.donor.held_count > 0);
	place.donor.hold = true;
	begin(&place, &write, zero ? STORE_ZERO : STORE_WRITE, at + 100, 4096);
	if (late) /* reads on while the write is on its way */
		expect_run(&place, 4 * READ_LEN, 2);
	while (write.err == 1)
		let_go(&place.donor, place.donor.held_count - 1);
	ck_assert_int_eq(write.err, 0);
	expect_run(&place, 6 * READ_LEN, 4);
	place_stop(&place);
}
END_TEST

static void notified(void *ctx, const struct pool_notice *notice)
{
	struct place *place = ctx;

	ck_assert_uint_eq(notice->id, REGION);
	place->notices++;
}

/* Whatever says that bytes may be others, or that they may not be read, forgets them. */
START_TEST(others_changes_are_seen)
{
	struct place place;
	struct pool_notice notice = {.id = REGION};
	struct pool_req req = {.op = POOL_SETATTR, .id = REGION, .attr.size = 7 * READ_LEN};

	place_start(&place, POOL_READ | POOL_WRITE);
	place.pool->notify = notified;
	place.pool->notify_ctx = &place;
	place.donor.hold = _i & 1;
	expect_run(&place, 0, 5);
	if (_i < 4)
		spoil(&place, 5 * READ_LEN, SIZE - 5 * READ_LEN);
	if (_i < 2) {
		place.donor.pool.notify(place.donor.pool.notify_ctx, &notice);
		ck_assert_uint_eq(place.notices, 1);
	} else if (_i < 4) {
		req.handle = place.handle;
		ask(&place, &req);
		ck_assert_int_eq(req.err, 0);
		ck_assert_ptr_eq(req.handle, place.handle);
	} else { /* a second and a bit goes by */
		place.donor.hold = false;
		let_all_go(&place.donor);
		spoil(&place, 5 * READ_LEN, SIZE - 5 * READ_LEN);
		loop_simulate(loop_now_ns() + (AHEAD_FRESH_MS + 1) * UINT64_C(1000000));
	}
	place.donor.hold = false;
	/* What was sent before counts as old, however late it comes. */
	let_all_go(&place.donor);
	expect_run(&place, 5 * READ_LEN, 8);
	place_stop(&place);
}
END_TEST

START_TEST(a_lost_lease_ends_it)
{
	static struct op write;
	struct place place;
	uint64_t bytes;

	place_start(&place, POOL_READ | POOL_WRITE);
	expect_run(&place, 0, 5);
	bytes = stats_of(&place).bytes;
	ck_assert_uint_gt(bytes, 0);
	place.donor.write_err = -ENOLCK;
	begin(&place, &write, STORE_WRITE, SIZE - 4096, 4096);
	ck_assert_int_eq(write.err, -ENOLCK);
	spoil(&place, 5 * READ_LEN, SIZE - 5 * READ_LEN);
	expect_run(&place, 5 * READ_LEN, 20);
	ck_assert_uint_eq(stats_of(&place).bytes, bytes);
	place_stop(&place);
}
END_TEST

/* What can't be read ahead is asked for again by whom it concerns. */
START_TEST(errors_are_the_askers)
{
	static struct op op;
	struct place place;

	place_start(&place, POOL_READ | POOL_WRITE);
	place.donor.hold = true;
	expect_run(&place, 0, 3);
	ck_assert_uint_gt(place.donor.held_count, 0);
	begin(&place, &op, STORE_READ, 3 * READ_LEN, READ_LEN); /* waits for what comes */
	ck_assert_uint_eq(stats_of(&place).waits, 1);
	place.donor.read_err = -EIO;
	let_go(&place.donor, 0);
	ck_assert_int_eq(op.err, 1);
	place.donor.read_err = 0;
	let_all_go(&place.donor);
	ck_assert_int_eq(op.err, 0);
	ck_assert_mem_eq(op.buf, place.donor.bytes + 3 * READ_LEN, READ_LEN);

	place.donor.read_err = -EACCES;
	begin(&place, &op, STORE_READ, SIZE / 2, READ_LEN);
	let_all_go(&place.donor);
	ck_assert_int_eq(op.err, -EACCES);
	place_stop(&place);
}
END_TEST

START_TEST(who_waits_can_be_interrupted)
{
	static struct op op;
	struct place place;

	place_start(&place, POOL_READ | POOL_WRITE);
	place.donor.hold = true;
	expect_run(&place, 0, 3);
	begin(&place, &op, STORE_READ, 3 * READ_LEN, READ_LEN);
	ck_assert_int_eq(op.err, 1);
	if (_i == 0) { /* the donor is there: it will answer */
		store_interrupt(&op.req);
		ck_assert_int_eq(op.err, 1);
		let_all_go(&place.donor);
		ck_assert_int_eq(op.err, 0);
		ck_assert_mem_eq(op.buf, place.donor.bytes + 3 * READ_LEN, READ_LEN);
	} else {
		place.donor.away = true;
		store_interrupt(&op.req);
		ck_assert_int_eq(op.err, -EINTR);
	}
	place_stop(&place);
}
END_TEST

/* A close waits for what is on its way, or ends it when the donor is away. */
START_TEST(a_close_waits)
{
	struct place place;
	struct pool_req req = {.op = POOL_CLOSE};

	place_start(&place, POOL_READ | POOL_WRITE);
	place.donor.hold = true;
	expect_run(&place, 0, 6);
	ck_assert_uint_gt(place.donor.held_count, 0);
	place.donor.away = _i == 1;
	req.handle = place.handle;
	ask(&place, &req);
	ck_assert_int_eq(req.err, _i == 1 ? 0 : 1);
	let_all_go(&place.donor);
	ck_assert_int_eq(req.err, 0);
	ck_assert_uint_eq(place.donor.closes, 1);
	place.handle = NULL;
	place_stop(&place);
}
END_TEST

/* ---- a model: a few requests at once, in any order, against an array ---- */

enum { OPS = 6, MODEL_BLOCK = 4096, MODEL_BLOCKS = SIZE / MODEL_BLOCK };

struct model {
	struct place place;
	struct op ops[OPS];
	uint64_t next; /* where the reader in order is */
};

static bool overlaps(const struct model *model, uint64_t off, uint64_t len, bool writes_only)
{
	for (unsigned i = 0; i < OPS; i++) {
		const struct op *op = &model->ops[i];

		if (op->err == 1 && (!writes_only || op->req.op != STORE_READ) &&
		    op->req.off < off + len && off < op->req.off + op->req.len)
			return true;
	}
	return false;
}

/* A READ that was submitted when nothing of its range was being changed must see the bytes of that time: no
 * write of its range begins before it ends. */
static void check_reads(struct model *model)
{
	for (unsigned i = 0; i < OPS; i++) {
		struct op *op = &model->ops[i];

		if (op->err || op->req.op != STORE_READ || !op->req.len)
			continue;
		rig_check(memcmp(op->buf, model->place.donor.bytes + op->req.off, op->req.len) == 0,
		    "bytes at %llu are old", (unsigned long long)op->req.off);
		op->req.len = 0;
	}
}

static void begin_some(struct model *model, struct op *op)
{
	struct place *place = &model->place;
	struct rig_random *random = &place->donor.random;
	uint64_t blocks = 1 + rig_random_below(random, 16);
	uint64_t off = rig_random_below(random, MODEL_BLOCKS - blocks) * MODEL_BLOCK;
	uint64_t len = blocks * MODEL_BLOCK;
	unsigned what = (unsigned)rig_random_below(random, 10);

	if (what < 7) { /* in order, mostly */
		if (rig_random_below(random, 50) == 0 || model->next + len > SIZE)
			model->next = off;
		off = model->next;
		if (overlaps(model, off, len, true))
			return;
		model->next = off + len;
		begin(place, op, STORE_READ, off, len);
		return;
	}
	if (what == 8) /* near the reader, where it matters */
		off = model->next + rig_random_below(random, 64) * MODEL_BLOCK;
	if (off + len > SIZE || overlaps(model, off, len, false))
		return;
	rig_random_fill(random, op->buf, len);
	begin(place, op, what == 9 ? STORE_ZERO : STORE_WRITE, off, len);
}

START_TEST(model_random)
{
	static struct model model;
	struct rig_random *random = &model.place.donor.random;
	struct donor *donor = &model.place.donor;

	place_start(&model.place, POOL_READ | POOL_WRITE);
	donor->hold = true;
	for (unsigned i = 0; i < OPS; i++)
		model.ops[i].err = 0;
	for (unsigned step = 0; step < 200000; step++) {
		unsigned i = (unsigned)rig_random_below(random, OPS);

		if (model.ops[i].err != 1)
			begin_some(&model, &model.ops[i]);
		check_reads(&model);
		if (donor->held_count && rig_random_below(random, 2))
			let_go(donor, (unsigned)rig_random_below(random, donor->held_count));
		check_reads(&model);
		if (rig_random_below(random, 1000) == 0)
			loop_simulate(loop_now_ns() + AHEAD_FRESH_MS * UINT64_C(600000));
	}
	ck_assert_uint_gt(stats_of(&model.place).hits, 1000);
	ck_assert_uint_gt(stats_of(&model.place).waits, 100);
	place_stop(&model.place);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("ahead");
	TCase *tcase = tcase_create("ahead");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, reads_in_order_come_from_memory);
	tcase_add_test(tcase, crosses_segments);
	tcase_add_loop_test(tcase, other_reads_pass_by, 0, 3);
	tcase_add_test(tcase, distance_follows_the_round_trip);
	tcase_add_test(tcase, readers_share);
	tcase_add_test(tcase, what_nobody_reads_is_taken);
	tcase_add_test(tcase, small_gaps_do_not_matter);
	tcase_add_loop_test(tcase, a_change_is_seen, 0, 8);
	tcase_add_loop_test(tcase, others_changes_are_seen, 0, 5);
	tcase_add_test(tcase, a_lost_lease_ends_it);
	tcase_add_test(tcase, errors_are_the_askers);
	tcase_add_loop_test(tcase, who_waits_can_be_interrupted, 0, 2);
	tcase_add_loop_test(tcase, a_close_waits, 0, 2);
	tcase_add_test(tcase, model_random);
	tcase_set_timeout(tcase, 60);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
