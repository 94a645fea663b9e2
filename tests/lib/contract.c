/* SPDX-License-Identifier: Apache-2.0
 *
 * The rules of core/store.h, one by one, over each factory.  (Rule 8 is in tests/contract/allocs.c,
 * which counts allocations; what the operations do beside that is in contract_ops.c, random tests
 * against a model are in contract_model.c.)
 */
#include "tests/lib/contract.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "core/fault.h"

#define KIB ((uint64_t)1024)
#define SIZE (4096 * KIB) /* of the regions here */

static const struct contract_factory *const *factories;

const struct contract_factory *contract_factory_at(int i)
{
	return factories[i];
}

bool contract_begin(
    struct contract_stack *stack, const struct contract_factory *factory, uint64_t size)
{
	memset(stack, 0, sizeof(*stack));
	stack->factory = factory;
	stack->flags = factory->flags;
	rig_start(&stack->rig, 2, 3);
	if (factory->create(stack, size)) {
		ck_assert_uint_ge(stack->store->size, size);
		return true;
	}
	rig_stop(&stack->rig);
	printf("%s: not on this machine\n", factory->name);
	return false;
}

void contract_end(struct contract_stack *stack)
{
	ck_assert_uint_eq(stack->store->in_flight, 0);
	stack->factory->destroy(stack);
	rig_stop(&stack->rig);
}

struct store *contract_add_fault(struct contract_stack *stack)
{
	struct store *fault;

	ck_assert_int_eq(fault_create(stack->store, 1, &fault, NULL), 0);
	stack->store = fault;
	return fault;
}

uint8_t *contract_pattern(size_t len, unsigned seed)
{
	struct rig_random random = {seed + 1};
	uint8_t *buf = malloc(len);

	ck_assert(buf);
	rig_random_fill(&random, buf, len);
	return buf;
}

/* A request of each kind, on blocks of its own, STORE_OPS of them. */
static void one_of_each(struct rig_req *reqs, uint8_t *buf, struct extent *extents)
{
	memset(reqs, 0, STORE_OPS * sizeof(*reqs));
	for (unsigned op = 0; op < STORE_OPS; op++) {
		struct store_req *req = &reqs[op].req;

		req->op = op;
		if (op == STORE_FLUSH)
			continue;
		if (op == STORE_RESIZE) {
			req->off = SIZE;
			continue;
		}
		req->off = op * 64 * KIB;
		req->len = 64 * KIB;
		req->buf = buf + op * 64 * KIB;
		req->extents = extents;
		req->extents_max = 8;
	}
}

/* ---- rule 1 ---- */

START_TEST(rule_1_done_comes_once)
{
	struct contract_stack stack;
	struct rig_req reqs[STORE_OPS];
	struct extent extents[8];
	uint8_t *buf;

	if (!contract_begin(&stack, factories[_i], SIZE))
		return;
	buf = contract_pattern(STORE_OPS * 64 * KIB, 1);
	for (unsigned round = 0; round < 3; round++) {
		one_of_each(reqs, buf, extents);
		rig_submit(stack.rig.loops[0], stack.store, reqs, STORE_OPS);
		for (unsigned op = 0; op < STORE_OPS; op++)
			ck_assert_msg(reqs[op].err == 0, "%s: %d", store_op_name(op), reqs[op].err);
		/* Whatever is still under way in there had time now. */
		ck_assert_int_eq(rig_op(stack.rig.loops[0], stack.store, STORE_FLUSH, 0, 0, 0), 0);
		for (unsigned op = 0; op < STORE_OPS; op++) {
			ck_assert_uint_eq(reqs[op].dones, 1);
			ck_assert_ptr_null(reqs[op].req.store);
		}
	}
	contract_end(&stack);
	free(buf);
}
END_TEST

START_TEST(rule_1_errors_come_through_done)
{
	struct contract_stack stack;
	struct rig_req reqs[STORE_OPS];
	struct extent extents[8];
	uint8_t *buf;

	if (!contract_begin(&stack, factories[_i], SIZE))
		return;
	buf = contract_pattern(STORE_OPS * 64 * KIB, 2);
	contract_add_fault(&stack);
	for (int after = 0; after < 2; after++) {
		fault_clear(stack.store);
		fault_add(stack.store,
		    &(struct fault_rule){.kind = FAULT_FAIL, .err = -EDQUOT, .after = after});
		one_of_each(reqs, buf, extents);
		rig_submit(stack.rig.loops[0], stack.store, reqs, STORE_OPS);
		for (unsigned op = 0; op < STORE_OPS; op++)
			ck_assert_int_eq(reqs[op].err, -EDQUOT);
	}
	contract_end(&stack);
	free(buf);
}
END_TEST

/* ---- rules 2 and 3 ---- */

enum { MANY = 600 }; /* more than any store has places for */

struct nest {
	struct contract_stack *stack;
	struct rig_req *inner; /* what done submits */
	unsigned depth, depth_max;
};

struct nest_req {
	struct store_req req;
	struct nest *nest;
	int err;
	_Atomic bool done;
};

static void nest_done(struct store_req *req, int err)
{
	struct nest_req *nr = (struct nest_req *)req;
	struct nest *nest = nr->nest;

	if (++nest->depth > nest->depth_max)
		nest->depth_max = nest->depth;
	nr->err = err;
	nr->done = true;
	nest->depth--;
}

struct nest_batch {
	struct nest nest;
	struct nest_req *reqs;
};

static void nest_submit(void *ctx)
{
	struct nest_batch *batch = ctx;

	for (unsigned i = 0; i < MANY; i++)
		store_submit(batch->nest.stack->store, &batch->reqs[i].req);
}

/* Completions of a store do not run inside each other: else a thousand of them overflow the stack. */
START_TEST(rule_2_completions_do_not_nest)
{
	struct contract_stack stack;
	struct nest_batch batch = {.nest.stack = &stack};
	uint8_t *buf;

	if (!contract_begin(&stack, factories[_i], SIZE))
		return;
	buf = contract_pattern(MANY * 4 * KIB, 3);
	batch.reqs = calloc(MANY, sizeof(*batch.reqs));
	for (unsigned i = 0; i < MANY; i++) {
		batch.reqs[i].nest = &batch.nest;
		batch.reqs[i].req = (struct store_req){
		    .op = i % 3 ? STORE_READ : STORE_WRITE,
		    .off = i * 4 * KIB,
		    .len = 4 * KIB,
		    .buf = buf + i * 4 * KIB,
		    .done = nest_done,
		};
	}
	rig_call(stack.rig.loops[0], nest_submit, &batch);
	for (unsigned i = 0; i < MANY; i++) {
		while (!batch.reqs[i].done)
			sched_yield();
		ck_assert_int_eq(batch.reqs[i].err, 0);
	}
	ck_assert_uint_eq(batch.nest.depth_max, 1);
	rig_op(stack.rig.loops[0], stack.store, STORE_FLUSH, 0, 0, 0);
	contract_end(&stack);
	free(batch.reqs);
	free(buf);
}
END_TEST

/* done runs on the loop that submitted, with several loops in flight (rig_submit asserts it). */
START_TEST(rule_2_done_runs_on_the_submitting_loop)
{
	struct contract_stack stack;
	struct rig_req reqs[2][MANY];
	struct rig_wait *waits[2];
	uint8_t *buf;

	if (!contract_begin(&stack, factories[_i], SIZE))
		return;
	buf = contract_pattern(2 * MANY * 4 * KIB, 4);
	memset(reqs, 0, sizeof(reqs));
	for (unsigned l = 0; l < 2; l++)
		for (unsigned i = 0; i < MANY; i++)
			reqs[l][i].req = (struct store_req){
			    .op = i % 2 ? STORE_READ : STORE_WRITE,
			    .off = i * 4 * KIB + l * 2 * KIB,
			    .len = 2 * KIB,
			    .buf = buf + (l * MANY + i) * 4 * KIB,
			};
	waits[0] = rig_begin(stack.rig.loops[0], stack.store, reqs[0], MANY);
	if (stack.flags & CONTRACT_LOOPS) {
		waits[1] = rig_begin(stack.rig.loops[1], stack.store, reqs[1], MANY);
		rig_end(waits[1]);
	}
	rig_end(waits[0]);
	for (unsigned i = 0; i < MANY; i++)
		ck_assert_int_eq(reqs[0][i].err, 0);
	contract_end(&stack);
	free(buf);
}
END_TEST

struct chain {
	struct store_req req;
	struct store *store;
	unsigned left;
	int err;
	_Atomic bool over;
};

static void chain_done(struct store_req *req, int err)
{
	struct chain *chain = (struct chain *)req;
	struct store_stat stat;

	if (err || store_stat(chain->store, &stat))
		chain->err = err ? err : -EIO;
	if (err || chain->left-- == 0) {
		chain->over = true;
		return;
	}
	req->op = chain->left % 2 ? STORE_WRITE : STORE_READ;
	req->off = chain->left * 4 * KIB;
	store_submit(chain->store, req);
}

static void chain_start(void *ctx)
{
	struct chain *chain = ctx;

	store_submit(chain->store, &chain->req);
}

/* From done the same store can be used again, with the same request: no lock is held. */
START_TEST(rule_3_done_may_use_the_store)
{
	struct contract_stack stack;
	struct chain chains[40];
	uint8_t *buf;

	if (!contract_begin(&stack, factories[_i], SIZE))
		return;
	buf = contract_pattern(40 * 4 * KIB, 5);
	memset(chains, 0, sizeof(chains));
	for (unsigned i = 0; i < 40; i++) {
		chains[i].store = stack.store;
		chains[i].left = 50;
		chains[i].req = (struct store_req){
		    .op = STORE_READ,
		    .len = 4 * KIB,
		    .buf = buf + i * 4 * KIB,
		    .done = chain_done,
		};
		rig_call(stack.rig.loops[0], chain_start, &chains[i]);
	}
	for (unsigned i = 0; i < 40; i++) {
		while (!chains[i].over)
			sched_yield();
		ck_assert_int_eq(chains[i].err, 0);
	}
	rig_op(stack.rig.loops[0], stack.store, STORE_FLUSH, 0, 0, 0);
	contract_end(&stack);
	free(buf);
}
END_TEST

/* ---- rule 4 ---- */

/* After done request and buffers are the caller's: here they become inaccessible. A WRITE's buffer is
 * only read, a READ's written within its length. */
START_TEST(rule_4_buffers_are_the_callers)
{
	struct contract_stack stack;
	size_t room = 64 * KIB;
	struct rig_req *write, *read;
	uint8_t *out, *in, *want = contract_pattern(room, 6);

	if (!contract_begin(&stack, factories[_i], SIZE)) {
		free(want);
		return;
	}
	for (unsigned round = 0; round < 8; round++) {
		uint64_t off = round * 128 * KIB;

		out = mmap(
		    NULL, 3 * room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		ck_assert_ptr_ne(out, MAP_FAILED);
		in = out + room;
		write = (struct rig_req *)(out + 2 * room);
		read = write + 1;
		memcpy(out, want, room);
		ck_assert_int_eq(mprotect(out, room, PROT_READ), 0);
		write->req = (struct store_req){
		    .op = STORE_WRITE,
		    .off = off,
		    .len = room,
		    .buf = out,
		};
		rig_submit(stack.rig.loops[0], stack.store, write, 1);
		ck_assert_int_eq(write->err, 0);
		memset(in, 0x5a, room);
		read->req = (struct store_req){
		    .op = STORE_READ,
		    .off = off + 4 * KIB,
		    .len = room - 8 * KIB,
		    .buf = in + 4 * KIB,
		};
		rig_submit(stack.rig.loops[0], stack.store, read, 1);
		ck_assert_int_eq(read->err, 0);
		ck_assert_mem_eq(in + 4 * KIB, want + 4 * KIB, room - 8 * KIB);
		for (unsigned i = 0; i < 4 * KIB; i++)
			rig_check(in[i] == 0x5a && in[room - 1 - i] == 0x5a,
			    "a read wrote outside its buffer");
		ck_assert_int_eq(mprotect(out, 3 * room, PROT_NONE), 0);
		/* More work, so that a late touch is noticed; then nothing is left to touch. */
		ck_assert_int_eq(
		    rig_write(stack.rig.loops[0], stack.store, off + room, want, 4 * KIB, 0), 0);
	}
	ck_assert_int_eq(rig_op(stack.rig.loops[0], stack.store, STORE_FLUSH, 0, 0, 0), 0);
	contract_end(&stack);
	free(want);
}
END_TEST

/* ---- rule 5 ---- */

enum bad {
	BAD_OFF,
	BAD_END,
	BAD_OVERFLOW,
	BAD_LONG,
	BAD_EMPTY,
	BAD_FLUSH,
	BAD_EXTENTS,
	BAD_TWICE,
	BADS
};

/* Makes the stack for a test that ends in abort(): leaves nothing behind. */
static void begin_abort(struct contract_stack *stack, const struct contract_factory *factory)
{
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
	/* The assertion's message would look like a failure. */
	ck_assert_ptr_nonnull(freopen("/dev/null", "w", stderr));
	if (!contract_begin(stack, factory, SIZE))
		abort();
	if (stack->dir[0])
		rig_tmpdir_remove(stack->dir);
}

struct misuse {
	struct store *store;
	struct store_req req;
};

static void misuse_done(struct store_req *req, int err)
{
}

static void misuse(void *ctx)
{
	struct misuse *m = ctx;

	store_submit(m->store, &m->req);
}

/* Requests that break rule 5 stop the program inside store_submit. */
START_TEST(rule_5_bad_requests_assert)
{
	static uint8_t buf[4096];
	struct contract_stack stack;
	struct misuse m = {.req = {.op = STORE_READ, .len = 4096, .buf = buf, .done = misuse_done}};

	begin_abort(&stack, factories[_i / BADS]);
	m.store = stack.store;
	switch ((enum bad)(_i % BADS)) {
	case BAD_OFF:
		m.req.off = stack.store->size + 4096;
		break;
	case BAD_END:
		m.req.off = stack.store->size - 2048;
		break;
	case BAD_OVERFLOW:
		m.req.op = STORE_ZERO;
		m.req.off = 4096;
		m.req.len = UINT64_MAX - 2048;
		break;
	case BAD_LONG:
		m.req.len = (uint64_t)stack.store->max_len + 1;
		break;
	case BAD_EMPTY:
		m.req.len = 0;
		break;
	case BAD_FLUSH:
		m.req.op = STORE_FLUSH;
		break;
	case BAD_EXTENTS:
		m.req.op = STORE_EXTENTS;
		break;
	default:
		m.req.store = stack.store; /* in flight already */
	}
	rig_call(stack.rig.loops[0], misuse, &m);
}
END_TEST

/* ---- rule 6 ---- */

START_TEST(rule_6_unwritten_bytes_are_zeros)
{
	struct contract_stack stack;
	uint8_t byte = 0xee;
	uint64_t last;

	if (!contract_begin(&stack, factories[_i], SIZE))
		return;
	last = stack.store->size - 1;
	rig_expect(stack.rig.loops[0], stack.store, 0, SIZE, NULL);
	rig_expect(stack.rig.loops[0], stack.store, last - 8191, 8192, NULL);
	if (stack.store->align == 1) {
		ck_assert_int_eq(
		    rig_write(stack.rig.loops[0], stack.store, 70 * KIB + 1, &byte, 1, 0), 0);
		rig_expect(stack.rig.loops[0], stack.store, 0, 70 * KIB + 1, NULL);
		rig_expect(stack.rig.loops[0], stack.store, 70 * KIB + 1, 1, &byte);
		rig_expect(stack.rig.loops[0], stack.store, 70 * KIB + 2, 70 * KIB, NULL);
	}
	contract_end(&stack);
}
END_TEST

START_TEST(rule_6_all_of_a_request_happens)
{
	struct contract_stack stack;
	uint32_t max;
	uint8_t *buf;

	if (!contract_begin(&stack, factories[_i], SIZE))
		return;
	max = stack.store->max_len;
	buf = contract_pattern(max, 7);
	/* The longest there is, across any internal boundary; then smaller ones on top of it. */
	ck_assert_int_eq(rig_write(stack.rig.loops[0], stack.store, 512 * KIB, buf, max, 0), 0);
	rig_expect(stack.rig.loops[0], stack.store, 0, 512 * KIB, NULL);
	rig_expect(stack.rig.loops[0], stack.store, 512 * KIB, max, buf);
	rig_expect(stack.rig.loops[0], stack.store, 512 * KIB + max, 64 * KIB, NULL);
	for (uint32_t off = 4096; off + 8192 <= max; off += 96 * 1024) {
		uint32_t at = off + (stack.store->align == 1 ? 4095 : 0);
		uint32_t len = stack.store->align == 1 ? 4098 : 4096;

		for (uint32_t i = 0; i < len; i++)
			buf[at + i] ^= 0xff;
		ck_assert_int_eq(rig_write(stack.rig.loops[0], stack.store, 512 * KIB + at,
				     buf + at, len, off % 2 ? STORE_FUA : 0),
		    0);
	}
	rig_expect(stack.rig.loops[0], stack.store, 512 * KIB, max, buf);
	contract_end(&stack);
	free(buf);
}
END_TEST

START_TEST(rule_6_an_error_changes_nothing_outside)
{
	struct contract_stack stack;
	uint8_t *before, *after;

	if (!contract_begin(&stack, factories[_i], SIZE))
		return;
	before = contract_pattern(512 * KIB, 8);
	after = contract_pattern(256 * KIB, 9);
	contract_add_fault(&stack);
	ck_assert_int_eq(rig_write(stack.rig.loops[0], stack.store, 0, before, 512 * KIB, 0), 0);
	fault_add(stack.store, &(struct fault_rule){
				   .kind = FAULT_TORN,
				   .torn_bytes = 100 * KIB,
				   .err = -EIO,
			       });
	ck_assert_int_eq(
	    rig_write(stack.rig.loops[0], stack.store, 128 * KIB, after, 256 * KIB, 0), -EIO);
	ck_assert_int_eq(
	    rig_op(stack.rig.loops[0], stack.store, STORE_ZERO, 128 * KIB, 256 * KIB, 0), -EIO);
	rig_expect(stack.rig.loops[0], stack.store, 0, 128 * KIB, before);
	rig_expect(stack.rig.loops[0], stack.store, 384 * KIB, 128 * KIB, before + 384 * KIB);
	contract_end(&stack);
	free(before);
	free(after);
}
END_TEST

/* ---- rule 7 ---- */

START_TEST(rule_7_flush_makes_completed_writes_stable)
{
	struct contract_stack stack;
	uint8_t *buf;

	if (!contract_begin(&stack, factories[_i], SIZE))
		return;
	buf = contract_pattern(SIZE, 10);
	for (uint64_t off = 0; off < SIZE / 2; off += 256 * KIB) {
		unsigned loop = stack.flags & CONTRACT_LOOPS ? off / (256 * KIB) % 2 : 0;

		ck_assert_int_eq(
		    rig_write(stack.rig.loops[loop], stack.store, off, buf + off, 256 * KIB, 0), 0);
	}
	ck_assert_int_eq(
	    rig_op(stack.rig.loops[0], stack.store, STORE_ZERO, 4 * KIB, 8 * KIB, 0), 0);
	memset(buf + 4 * KIB, 0, 8 * KIB);
	ck_assert_int_eq(rig_op(stack.rig.loops[0], stack.store, STORE_FLUSH, 0, 0, 0), 0);
	if (stack.factory->crash) {
		ck_assert_int_eq(
		    rig_write(stack.rig.loops[0], stack.store, SIZE / 2, buf, 4096, 0), 0);
		stack.factory->crash(&stack);
	}
	rig_expect(stack.rig.loops[0], stack.store, 0, SIZE / 2, buf);
	contract_end(&stack);
	free(buf);
}
END_TEST

START_TEST(rule_7_fua_is_stable_when_done)
{
	struct contract_stack stack;
	uint8_t *buf;

	if (!contract_begin(&stack, factories[_i], SIZE))
		return;
	buf = contract_pattern(128 * KIB, 11);
	ck_assert_int_eq(
	    rig_write(stack.rig.loops[0], stack.store, 0, buf, 128 * KIB, STORE_FUA), 0);
	ck_assert_int_eq(
	    rig_op(stack.rig.loops[0], stack.store, STORE_ZERO, 16 * KIB, 8 * KIB, STORE_FUA), 0);
	ck_assert_int_eq(rig_op(stack.rig.loops[0], stack.store, STORE_ZERO, 64 * KIB, 8 * KIB,
			     STORE_FUA | STORE_KEEP),
	    0);
	memset(buf + 16 * KIB, 0, 8 * KIB);
	memset(buf + 64 * KIB, 0, 8 * KIB);
	if (stack.factory->crash)
		stack.factory->crash(&stack);
	rig_expect(stack.rig.loops[0], stack.store, 0, 128 * KIB, buf);
	contract_end(&stack);
	free(buf);
}
END_TEST

/* ---- rule 9 ---- */

static void destroy_busy(void *ctx)
{
	struct contract_stack *stack = ctx;
	static struct store_req req = {.op = STORE_FLUSH, .done = misuse_done};

	store_submit(stack->store, &req);
	store_destroy(stack->store);
}

START_TEST(rule_9_destroy_asserts_that_nothing_is_in_flight)
{
	struct contract_stack stack;

	begin_abort(&stack, factories[_i]);
	contract_add_fault(&stack);
	fault_add(stack.store, &(struct fault_rule){.kind = FAULT_HOLD, .after = true});
	rig_call(stack.rig.loops[0], destroy_busy, &stack);
}
END_TEST

struct interrupt {
	struct store *store;
	struct rig_req *reqs;
	unsigned count;
};

static void interrupt_all(void *ctx)
{
	struct interrupt *in = ctx;

	for (unsigned i = 0; i < in->count; i++)
		store_interrupt(&in->reqs[i].req);
}

/* An interrupt ends nothing twice and nothing never, whatever the requests are doing. */
START_TEST(rule_9_interrupt_is_harmless)
{
	struct contract_stack stack;
	struct rig_req reqs[300];
	struct interrupt in = {.reqs = reqs, .count = 300};
	struct rig_wait *wait;
	uint8_t *buf;

	if (!contract_begin(&stack, factories[_i], SIZE))
		return;
	buf = contract_pattern(300 * 4 * KIB, 12);
	memset(reqs, 0, sizeof(reqs));
	in.store = stack.store;
	for (unsigned i = 0; i < 300; i++)
		reqs[i].req = (struct store_req){
		    .op = i % 2 ? STORE_READ : STORE_WRITE,
		    .off = i * 4 * KIB,
		    .len = 4 * KIB,
		    .buf = buf + i * 4 * KIB,
		};
	wait = rig_begin(stack.rig.loops[0], stack.store, reqs, 300);
	rig_call(stack.rig.loops[0], interrupt_all, &in);
	rig_end(wait);
	for (unsigned i = 0; i < 300; i++)
		ck_assert(reqs[i].err == 0 || reqs[i].err == -EINTR);
	rig_call(stack.rig.loops[0], interrupt_all, &in); /* of idle requests: nothing */
	contract_end(&stack);
	free(buf);
}
END_TEST

/* ---- rule 10 ---- */

/* Each request is counted, once, with its bytes or as an error: it passed through store_submit. */
START_TEST(rule_10_every_request_is_counted)
{
	struct contract_stack stack;
	struct store_stats *stats = calloc(1, sizeof(*stats));
	struct rig_req reqs[STORE_OPS];
	struct extent extents[8];
	uint8_t *buf = contract_pattern(STORE_OPS * 64 * KIB, 13);

	if (contract_begin(&stack, factories[_i], SIZE)) {
		contract_add_fault(&stack);
		stack.store->stats = stats;
		for (unsigned round = 0; round < 4; round++) {
			if (round == 3)
				fault_add(stack.store,
				    &(struct fault_rule){.kind = FAULT_FAIL, .err = -EIO});
			one_of_each(reqs, buf, extents);
			rig_submit(stack.rig.loops[0], stack.store, reqs, STORE_OPS);
		}
		for (unsigned op = 0; op < STORE_OPS; op++) {
			ck_assert_uint_eq(stats->requests[op], 4);
			ck_assert_uint_eq(stats->bytes[op], 3 * reqs[op].req.len);
			ck_assert_uint_eq(stats->errors[op], 1);
			ck_assert_uint_eq(hist_total(&stats->latency[op]), 4);
		}
		contract_end(&stack);
	}
	free(stats);
	free(buf);
}
END_TEST

Suite *contract_suite(const char *name, const struct contract_factory *const *list)
{
	Suite *suite = suite_create(name);

	factories = list;
	for (int i = 0; list[i]; i++) {
		TCase *tc = tcase_create(list[i]->name);

		tcase_set_timeout(tc, 120);
		tcase_add_unchecked_fixture(tc, rig_tmpdirs_begin, rig_tmpdirs_end);
		tcase_add_loop_test(tc, rule_1_done_comes_once, i, i + 1);
		tcase_add_loop_test(tc, rule_1_errors_come_through_done, i, i + 1);
		tcase_add_loop_test(tc, rule_2_completions_do_not_nest, i, i + 1);
		tcase_add_loop_test(tc, rule_2_done_runs_on_the_submitting_loop, i, i + 1);
		tcase_add_loop_test(tc, rule_3_done_may_use_the_store, i, i + 1);
		tcase_add_loop_test(tc, rule_4_buffers_are_the_callers, i, i + 1);
		tcase_add_loop_test_raise_signal(
		    tc, rule_5_bad_requests_assert, SIGABRT, i * BADS, (i + 1) * BADS);
		tcase_add_loop_test(tc, rule_6_unwritten_bytes_are_zeros, i, i + 1);
		tcase_add_loop_test(tc, rule_6_all_of_a_request_happens, i, i + 1);
		tcase_add_loop_test(tc, rule_6_an_error_changes_nothing_outside, i, i + 1);
		tcase_add_loop_test(tc, rule_7_flush_makes_completed_writes_stable, i, i + 1);
		tcase_add_loop_test(tc, rule_7_fua_is_stable_when_done, i, i + 1);
		tcase_add_loop_test_raise_signal(
		    tc, rule_9_destroy_asserts_that_nothing_is_in_flight, SIGABRT, i, i + 1);
		tcase_add_loop_test(tc, rule_9_interrupt_is_harmless, i, i + 1);
		tcase_add_loop_test(tc, rule_10_every_request_is_counted, i, i + 1);
		contract_ops_add(tc, i);
		contract_model_add(tc, i);
		suite_add_tcase(suite, tc);
	}
	return suite;
}
