/* SPDX-License-Identifier: Apache-2.0
 *
 * cache_runs: what it tells is what cache_map tells of each block, whatever was read, written, punched, pushed and
 * evicted before.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cache_int.h"
#include "tests/lib/cache_rig.h"

#define KIB ((uint64_t)1024)
#define MIB (1024 * KIB)
#define SECOND ((uint64_t)1000000000)

enum { RUNS = 2048, ROUNDS = 400 };

static struct sim sim;
static struct cache_rig cr;
static uint8_t bytes[1 << 20];
static struct cache_run runs[RUNS];
static uint64_t seed;

static void begin(uint64_t size)
{
	memset(&cr, 0, sizeof(cr));
	sim_start(&sim);
	cache_rig_build(&cr, sim.loop, sim.workers,
	    &(struct cache_rig_conf){.size = size, .size_max = 4 * MIB});
	memset(bytes, 0x5a, sizeof(bytes));
}

static void end(void)
{
	sim_end(&sim, &cr);
	cache_rig_free(&cr);
	sim_stop(&sim);
}

static int op(enum store_op kind, uint64_t off, uint64_t len)
{
	return sim_op(&sim, cr.store, kind, off, len, bytes, 0);
}

static uint64_t any(uint64_t below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (seed >> 33) % below;
}

/* The whole region, block by block, against cache_map with a cell for each block. */
static void compare(void)
{
	static struct cache_cell cells[RUNS];
	uint64_t size = cache_size(cr.cache), off = 0;
	unsigned blocks = (unsigned)blocks_up(size);
	unsigned count = cache_runs(cr.cache, 0, UINT64_MAX, runs, RUNS);

	ck_assert_uint_le(blocks, RUNS);
	cache_map(cr.cache, cells, blocks);
	for (unsigned i = 0; i < count; off += runs[i++].len) {
		ck_assert_uint_gt(runs[i].len, 0);
		ck_assert(i == 0 || runs[i].resident != runs[i - 1].resident ||
			  runs[i].dirty != runs[i - 1].dirty);
		for (uint64_t at = off; at < off + runs[i].len; at += STORE_BLOCK) {
			const struct cache_cell *cell = &cells[at / STORE_BLOCK];

			ck_assert_uint_eq(runs[i].resident, cell->resident);
			/* cache_map does not count what is being pushed. */
			ck_assert(runs[i].dirty >= cell->dirty);
			ck_assert(runs[i].dirty == cell->dirty || cell->busy);
		}
	}
	ck_assert_uint_eq(off, size);
}

START_TEST(as_the_map_has_it)
{
	seed = (uint64_t)_i + 1;
	begin(_i % 2 ? 2 * MIB + 777 : 2 * MIB);
	ck_assert_int_eq(sim_op(&sim, cr.memory[1], STORE_WRITE, 0, MIB, bytes, 0), 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t off = any(2 * MIB), len = 1 + any(i % 3 ? 9000 : 300 * KIB);

		len = min_u64(len, cache_size(cr.cache) - off);
		switch (any(6)) {
		case 0:
			ck_assert_int_eq(op(STORE_READ, off, len), 0);
			break;
		case 1:
		case 2:
			ck_assert_int_eq(op(STORE_WRITE, off, len), 0);
			break;
		case 3:
			ck_assert_int_eq(op(STORE_ZERO, off, len), 0);
			break;
		case 4:
			if (any(10) == 0)
				ck_assert_int_eq(op(STORE_FLUSH, 0, 0), 0);
			break;
		default:
			cache_evict(cr.cache, off, len);
		}
		compare();
	}
	end();
}
END_TEST

/* Any part of it, with little room, is the same as that part of the whole. */
START_TEST(parts)
{
	static struct cache_run part[RUNS];

	seed = 99;
	begin(MIB);
	for (unsigned i = 0; i < 100; i++)
		ck_assert_int_eq(op(STORE_WRITE, any(255) * STORE_BLOCK, STORE_BLOCK), 0);
	ck_assert_uint_gt(cache_runs(cr.cache, 0, MIB, runs, RUNS), 20);
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t off = any(MIB), len = 1 + any(MIB - off), at = 0, done = 0;
		unsigned max = 1 + (unsigned)any(5), k = 0;
		unsigned count = cache_runs(cr.cache, off, len, part, max);

		ck_assert(count >= 1 && count <= max);
		for (unsigned j = 0; j < count; j++, done += part[j - 1].len) {
			while (at + runs[k].len <= off + done)
				at += runs[k++].len;
			ck_assert_uint_eq(part[j].dirty, runs[k].dirty);
			ck_assert_uint_le(off + done + part[j].len, at + runs[k].len);
		}
		ck_assert(done == len || (count == max && done < len));
	}
	ck_assert_uint_eq(cache_runs(cr.cache, MIB, 1, runs, RUNS), 0);
	ck_assert_uint_eq(cache_runs(cr.cache, UINT64_MAX, 1, runs, RUNS), 0);
	end();
}
END_TEST

/* What a push has in its hands is dirty until the remote has it. */
START_TEST(while_it_is_pushed)
{
	begin(MIB);
	fault_add(
	    cr.remote, &(struct fault_rule){.kind = FAULT_HOLD, .ops = FAULT_OP(STORE_WRITE)});
	ck_assert_int_eq(op(STORE_WRITE, 64 * KIB, 8 * KIB), 0);
	sim_run(&sim, SECOND);
	ck_assert_uint_gt(cr.cache->pushing, 0);
	ck_assert_uint_eq(cache_runs(cr.cache, 64 * KIB, 8 * KIB, runs, RUNS), 1);
	ck_assert(runs[0].resident && runs[0].dirty);
	fault_clear(cr.remote);
	fault_release(cr.remote, FAULT_FIRST_FIRST, 0);
	sim_run(&sim, SECOND);
	ck_assert_uint_eq(cache_runs(cr.cache, 64 * KIB, 8 * KIB, runs, RUNS), 1);
	ck_assert(runs[0].resident && !runs[0].dirty);
	end();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cache_runs");
	TCase *tc = tcase_create("all");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, as_the_map_has_it, 0, 6);
	tcase_add_test(tc, parts);
	tcase_add_test(tc, while_it_is_pushed);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
