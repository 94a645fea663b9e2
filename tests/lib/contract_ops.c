/* SPDX-License-Identifier: Apache-2.0
 *
 * What the operations do beside reading and writing: space that is given back, kept, taken and told,
 * lengths, lent memory.
 */
#include "tests/lib/contract.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define KIB ((uint64_t)1024)
#define SIZE (4096 * KIB) /* of the regions here */

static uint64_t allocated(struct store *store)
{
	struct store_stat stat;

	ck_assert_int_eq(store_stat(store, &stat), 0);
	return stat.allocated;
}

/* Long ones and short ones, in flight together; what is a hole, too. */
START_TEST(reads_through_a_pipe)
{
	enum { READS = 24 };
	struct contract_stack stack;
	struct rig_req reqs[READS];
	uint8_t *buf, *got;
	unsigned piped = 0;

	if (!contract_begin(&stack, contract_factory_at(_i), SIZE))
		return;
	buf = contract_pattern(SIZE, 21);
	got = malloc(READS * 1024 * KIB);
	memset(buf + 1024 * KIB, 0, 512 * KIB);
	memset(reqs, 0, sizeof(reqs));
	for (uint64_t off = 0; off < SIZE / 2; off += 256 * KIB)
		ck_assert_int_eq(
		    rig_write(stack.rig.loops[0], stack.store, off, buf + off, 256 * KIB, 0), 0);
	for (unsigned i = 0; i < READS; i++)
		reqs[i].req = (struct store_req){
		    .op = STORE_READ,
		    .flags = STORE_PIPE,
		    .off = i % 4 * 300 * KIB + i * 4 * KIB,
		    .len = i % 3 == 1 ? 4 * KIB : 100 * KIB + i * 16 * KIB,
		    .buf = got + i * 1024 * KIB,
		};
	rig_submit(stack.rig.loops[0], stack.store, reqs, READS);
	for (unsigned i = 0; i < READS; i++) {
		ck_assert_int_eq(reqs[i].err, 0);
		ck_assert_mem_eq(reqs[i].req.buf, buf + reqs[i].req.off, reqs[i].req.len);
		piped += reqs[i].piped;
	}
	if (stack.flags & CONTRACT_PIPES)
		ck_assert_uint_gt(piped, 0);
	contract_end(&stack);
	free(got);
	free(buf);
}
END_TEST

/* In order, one at a time; bytes may come in memory that is the store's again after done. */
START_TEST(reads_in_order)
{
	struct contract_stack stack;
	struct rig_req rr = {0};
	uint8_t *buf, got[16 * KIB];
	unsigned brief = 0;

	if (!contract_begin(&stack, contract_factory_at(_i), SIZE))
		return;
	buf = contract_pattern(SIZE, 22);
	ck_assert_int_eq(rig_write(stack.rig.loops[0], stack.store, 0, buf, 1024 * KIB, 0), 0);
	for (uint64_t off = 0; off < 1024 * KIB; off += sizeof(got)) {
		rr.req = (struct store_req){
		    .op = STORE_READ,
		    .flags = STORE_BRIEF,
		    .off = off,
		    .len = sizeof(got),
		    .buf = got,
		};
		rig_submit(stack.rig.loops[0], stack.store, &rr, 1);
		ck_assert_int_eq(rr.err, 0);
		ck_assert_mem_eq(rr.req.buf, buf + off, sizeof(got));
		brief += rr.brief;
	}
	if (stack.flags & CONTRACT_BRIEF)
		ck_assert_uint_gt(brief, 0);
	contract_end(&stack);
	free(buf);
}
END_TEST

START_TEST(zero_gives_space_back)
{
	struct contract_stack stack;
	struct extent extents[8];
	unsigned count;
	uint8_t *buf;

	if (!contract_begin(&stack, contract_factory_at(_i), SIZE))
		return;
	buf = contract_pattern(512 * KIB, 14);
	ck_assert_int_eq(rig_write(stack.rig.loops[0], stack.store, 0, buf, 512 * KIB, 0), 0);
	ck_assert_int_eq(
	    rig_op(stack.rig.loops[0], stack.store, STORE_ZERO, 64 * KIB, 128 * KIB, 0), 0);
	memset(buf + 64 * KIB, 0, 128 * KIB);
	rig_expect(stack.rig.loops[0], stack.store, 0, 512 * KIB, buf);
	if (stack.flags & CONTRACT_SPARSE) {
		ck_assert_int_eq(
		    rig_extents(stack.rig.loops[0], stack.store, 0, SIZE, extents, 8, &count), 0);
		ck_assert_uint_eq(count, 4);
		for (unsigned i = 0; i < 4; i++)
			ck_assert_uint_eq(extents[i].flags, i % 2 ? EXTENT_HOLE : 0);
		ck_assert_uint_eq(extents[1].off, 64 * KIB);
		ck_assert_uint_eq(extents[1].len, 128 * KIB);
		ck_assert_uint_eq(extents[3].off, 512 * KIB);
		ck_assert_uint_eq(extents[3].len, SIZE - 512 * KIB);
		ck_assert_uint_eq(allocated(stack.store), 384 * KIB);
	}
	contract_end(&stack);
	free(buf);
}
END_TEST

START_TEST(zero_with_keep_keeps_the_space)
{
	struct contract_stack stack;
	uint8_t *buf;

	if (!contract_begin(&stack, contract_factory_at(_i), SIZE))
		return;
	buf = contract_pattern(512 * KIB, 15);
	ck_assert_int_eq(rig_write(stack.rig.loops[0], stack.store, 0, buf, 256 * KIB, 0), 0);
	/* Half of it is a hole, and stays one. */
	ck_assert_int_eq(
	    rig_op(stack.rig.loops[0], stack.store, STORE_ZERO, 128 * KIB, 256 * KIB, STORE_KEEP),
	    0);
	memset(buf + 128 * KIB, 0, 384 * KIB);
	rig_expect(stack.rig.loops[0], stack.store, 0, 512 * KIB, buf);
	if (stack.flags & CONTRACT_SPARSE)
		ck_assert_uint_eq(allocated(stack.store), 256 * KIB);
	contract_end(&stack);
	free(buf);
}
END_TEST

START_TEST(alloc_takes_space_and_changes_nothing)
{
	struct contract_stack stack;
	uint8_t *buf;

	if (!contract_begin(&stack, contract_factory_at(_i), SIZE))
		return;
	buf = contract_pattern(512 * KIB, 16);
	ck_assert_int_eq(
	    rig_write(stack.rig.loops[0], stack.store, 64 * KIB, buf + 64 * KIB, 64 * KIB, 0), 0);
	ck_assert_int_eq(rig_op(stack.rig.loops[0], stack.store, STORE_ALLOC, 0, 512 * KIB, 0), 0);
	memset(buf, 0, 64 * KIB);
	memset(buf + 128 * KIB, 0, 384 * KIB);
	rig_expect(stack.rig.loops[0], stack.store, 0, 512 * KIB, buf);
	if (stack.flags & CONTRACT_SPARSE)
		ck_assert_uint_eq(allocated(stack.store), 512 * KIB);
	contract_end(&stack);
	free(buf);
}
END_TEST

/* With room for one answer at a time the list is the same as with room for all. */
START_TEST(extents_go_on_where_room_ended)
{
	struct contract_stack stack;
	struct extent all[64], one;
	unsigned count, n, i = 0;
	uint64_t off = 0;
	uint8_t *buf;

	if (!contract_begin(&stack, contract_factory_at(_i), SIZE))
		return;
	buf = contract_pattern(4 * KIB, 17);
	for (uint64_t at = 0; at < 80 * KIB; at += 8 * KIB)
		ck_assert_int_eq(
		    rig_write(stack.rig.loops[0], stack.store, at, buf, 4 * KIB, 0), 0);
	ck_assert_int_eq(
	    rig_extents(stack.rig.loops[0], stack.store, 0, 256 * KIB, all, 64, &count), 0);
	ck_assert_uint_ge(count, 1);
	while (off < 256 * KIB) {
		ck_assert_int_eq(
		    rig_extents(stack.rig.loops[0], stack.store, off, 256 * KIB - off, &one, 1, &n),
		    0);
		ck_assert_uint_eq(n, 1);
		ck_assert_uint_lt(i, count);
		ck_assert_uint_eq(one.off, all[i].off);
		ck_assert_uint_eq(one.len, all[i].len);
		ck_assert_uint_eq(one.flags, all[i].flags);
		off += one.len;
		i++;
	}
	ck_assert_uint_eq(i, count);
	ck_assert_uint_eq(off, 256 * KIB);
	if (stack.flags & CONTRACT_SPARSE)
		ck_assert_uint_eq(count, 20);
	contract_end(&stack);
	free(buf);
}
END_TEST

START_TEST(resize_cuts_and_gives_space_back)
{
	struct contract_stack stack;
	uint64_t size = 200 * KIB;
	uint8_t *buf;

	if (!contract_begin(&stack, contract_factory_at(_i), SIZE))
		return;
	size += stack.store->align == 1 ? 100 : 0;
	buf = contract_pattern(512 * KIB, 18);
	ck_assert_int_eq(rig_write(stack.rig.loops[0], stack.store, 0, buf, 512 * KIB, 0), 0);
	if (stack.flags & CONTRACT_FIXED) {
		ck_assert_int_eq(
		    rig_op(stack.rig.loops[0], stack.store, STORE_RESIZE, size, 0, 0), -EOPNOTSUPP);
	} else {
		ck_assert_int_eq(
		    rig_op(stack.rig.loops[0], stack.store, STORE_RESIZE, size, 0, 0), 0);
		memset(buf + size, 0, 512 * KIB - size);
		if (stack.flags & CONTRACT_SPARSE)
			ck_assert_uint_eq(allocated(stack.store),
			    (size + STORE_BLOCK - 1) / STORE_BLOCK * STORE_BLOCK);
	}
	rig_expect(stack.rig.loops[0], stack.store, 0, 512 * KIB, buf);
	ck_assert_int_eq(rig_op(stack.rig.loops[0], stack.store, STORE_RESIZE, SIZE, 0, 0), 0);
	rig_expect(stack.rig.loops[0], stack.store, 0, 512 * KIB, buf);
	contract_end(&stack);
	free(buf);
}
END_TEST

/* What is put into memory that the store lends is what a WRITE of it writes. */
START_TEST(lent_memory_can_be_written)
{
	struct contract_stack stack;
	uint8_t *want;

	if (!contract_begin(&stack, contract_factory_at(_i), SIZE))
		return;
	want = contract_pattern(256 * KIB, 19);
	for (uint64_t off = 0; off < 256 * KIB; off += 64 * KIB) {
		uint8_t *lent = store_lend(stack.store, off, 64 * KIB);

		if (lent)
			memcpy(lent, want + off, 64 * KIB);
		ck_assert_int_eq(rig_write(stack.rig.loops[0], stack.store, off,
				     lent ? lent : want + off, 64 * KIB, 0),
		    0);
	}
	rig_expect(stack.rig.loops[0], stack.store, 0, 256 * KIB, want);
	contract_end(&stack);
	free(want);
}
END_TEST

void contract_ops_add(TCase *tcase, int i)
{
	tcase_add_loop_test(tcase, reads_through_a_pipe, i, i + 1);
	tcase_add_loop_test(tcase, reads_in_order, i, i + 1);
	tcase_add_loop_test(tcase, zero_gives_space_back, i, i + 1);
	tcase_add_loop_test(tcase, zero_with_keep_keeps_the_space, i, i + 1);
	tcase_add_loop_test(tcase, alloc_takes_space_and_changes_nothing, i, i + 1);
	tcase_add_loop_test(tcase, extents_go_on_where_room_ended, i, i + 1);
	tcase_add_loop_test(tcase, resize_cuts_and_gives_space_back, i, i + 1);
	tcase_add_loop_test(tcase, lent_memory_can_be_written, i, i + 1);
}
