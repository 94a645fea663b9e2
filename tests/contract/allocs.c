/* SPDX-License-Identifier: Apache-2.0
 *
 * Rule 8 of core/store.h: the data path allocates nothing.
 *
 * This program has its own malloc, calloc and realloc, which count while they are told to.  That takes
 * the place of a sanitizer's, so in sanitizer builds nothing is counted and the tests say so.
 */
#include <check.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/fault.h"
#include "tests/lib/contract.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { COUNTING = 0 };
#else
enum { COUNTING = 1 };
#endif

static _Atomic bool counting;
static _Atomic unsigned allocations;

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* glibc's own, under the names that it keeps for this. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);

static void count(void)
{
	if (atomic_load_explicit(&counting, memory_order_relaxed))
		atomic_fetch_add(&allocations, 1);
}

void *malloc(size_t size)
{
	count();
	return __libc_malloc(size);
}

void *calloc(size_t items, size_t size)
{
	count();
	return __libc_calloc(items, size);
}

void *realloc(void *old, size_t size)
{
	count();
	return __libc_realloc(old, size);
}
#endif

enum { REQS = 400, SIZE = REQS * 8192 };

struct batch {
	struct store *store;
	struct store_req reqs[REQS];
	struct extent extents[REQS][4];
	_Atomic unsigned left;
	_Atomic int errors;
	uint8_t buf[REQS][8192];
};

static struct batch *batch;

static void req_done(struct store_req *req, int err)
{
	if (err)
		batch->errors++;
	if (--batch->left == 0)
		counting = false;
}

static void submit_all(void *ctx)
{
	counting = COUNTING;
	for (unsigned i = 0; i < REQS; i++)
		store_submit(batch->store, &batch->reqs[i]);
}

static void run_batch(struct contract_stack *stack, unsigned seed)
{
	static const enum store_op ops[] = {STORE_WRITE, STORE_READ, STORE_ZERO, STORE_ALLOC,
	    STORE_WRITE, STORE_EXTENTS, STORE_READ, STORE_FLUSH};

	batch->store = stack->store;
	batch->left = REQS;
	for (unsigned i = 0; i < REQS; i++) {
		enum store_op op = ops[(i + seed) % (sizeof(ops) / sizeof(ops[0]))];

		batch->reqs[i] = (struct store_req){
		    .op = op,
		    .flags = op == STORE_WRITE && i % 32 == 0 ? STORE_FUA : 0,
		    .off = op == STORE_FLUSH ? 0 : i * 8192,
		    .len = op == STORE_FLUSH ? 0 : 8192,
		    .buf = batch->buf[i],
		    .extents = batch->extents[i],
		    .extents_max = 4,
		    .done = req_done,
		};
	}
	rig_call(stack->rig.loops[0], submit_all, NULL);
	while (batch->left)
		sched_yield();
	ck_assert_int_eq(batch->errors, 0);
}

/* Many more requests than any store has places for, on fresh blocks and on used ones. */
START_TEST(rule_8_the_data_path_allocates_nothing)
{
	struct contract_stack stack;

	batch = calloc(1, sizeof(*batch));
	if (contract_begin(&stack, contract_factories[_i], SIZE)) {
		/* These set a timer for each request, and a loop's room for timers grows once. */
		if (strstr(stack.factory->name, "-late")) {
			run_batch(&stack, 0);
			allocations = 0;
		}
		for (unsigned seed = 0; seed < 8; seed++)
			run_batch(&stack, seed);
		ck_assert_uint_eq(allocations, 0);
		contract_end(&stack);
	}
	free(batch);
}
END_TEST

/* The counter counts. */
START_TEST(an_allocation_is_noticed)
{
	void *volatile kept;

	counting = COUNTING;
	kept = malloc(10);
	counting = false;
	free(kept);
	ck_assert_uint_eq(allocations, COUNTING);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("allocs");
	SRunner *runner;
	int failed;

	if (!COUNTING)
		printf("allocs: a sanitizer build: nothing is counted\n");
	for (int i = 0; contract_factories[i]; i++) {
		TCase *tc = tcase_create(contract_factories[i]->name);

		tcase_set_timeout(tc, 120);
		tcase_add_unchecked_fixture(tc, rig_tmpdirs_begin, rig_tmpdirs_end);
		tcase_add_loop_test(tc, rule_8_the_data_path_allocates_nothing, i, i + 1);
		if (i == 0)
			tcase_add_test(tc, an_allocation_is_noticed);
		suite_add_tcase(suite, tc);
	}
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
