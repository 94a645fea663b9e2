/* SPDX-License-Identifier: Apache-2.0
 *
 * The owner of a region with an index (see tests/lib/index_owner.h).
 */
#include "tests/lib/index_owner.h"

#include <stdio.h>
#include <string.h>

struct index_owner owner;

void owner_setup(void)
{
	rig_tmpdir(NULL, owner.dir);
	snprintf(owner.path, sizeof(owner.path), "%s/cache", owner.dir);
	memset(owner.state, 0, sizeof(owner.state));
	memset(owner.changed, 0, sizeof(owner.changed));
	memset(&owner.meanwhile, 0, sizeof(owner.meanwhile));
	owner.takes = owner.gives = owner.commits = 0;
	for (unsigned i = 0; i < OWNER_CHUNKS; i++)
		owner.state[i].idx = i;
}

void owner_teardown(void)
{
	rig_tmpdir_remove(owner.dir);
}

static unsigned take(void *ctx, struct index_chunk *chunks, unsigned max)
{
	unsigned n = 0;

	owner.takes++;
	for (unsigned i = 0; i < OWNER_CHUNKS && n < max; i++)
		if (owner.changed[i]) {
			chunks[n++] = owner.state[i];
			owner.changed[i] = false;
		}
	return n;
}

static void state_now(void *ctx, struct index_chunk *chunk)
{
	*chunk = owner.state[chunk->idx];
	if (chunk->idx == owner.meanwhile.idx) {
		chunk->dirty |= owner.meanwhile.busy;
		chunk->resident &= ~owner.meanwhile.gone;
		chunk->resident |= owner.meanwhile.come;
	}
}

static void give_back(void *ctx, const struct index_chunk *chunks, unsigned count)
{
	owner.gives += count;
	for (unsigned i = 0; i < count; i++)
		owner.changed[chunks[i].idx] = true;
}

const struct indexed_ops owner_ops = {.take = take, .state = state_now, .give_back = give_back};

static void count_commits(void *ctx, enum index_step step)
{
	owner.commits += step == INDEX_STEP_COMMITTED;
}

void owner_open(void)
{
	index_rig_open(&owner.rig, owner.path, count_commits, NULL);
	index_rig_load_ok(&owner.rig, OWNER_REGION, "work", (uint64_t)OWNER_CHUNKS * INDEX_CHUNK);
	indexed_start(owner.rig.indexed, &owner_ops, NULL);
}

void owner_close(void)
{
	ck_assert_int_eq(index_rig_end(&owner.rig, index_ask_close, NULL), 0);
	index_rig_close(&owner.rig);
}

void owner_abandon(void)
{
	ck_assert_int_eq(index_rig_end(&owner.rig, index_ask_abandon, NULL), 0);
	index_rig_close(&owner.rig);
}

uint64_t owner_off(unsigned idx, unsigned block)
{
	return (uint64_t)idx * INDEX_CHUNK + (uint64_t)block * STORE_BLOCK;
}

void owner_put(unsigned idx, unsigned block, int byte, bool dirty)
{
	uint8_t buf[STORE_BLOCK];

	memset(buf, byte, sizeof(buf));
	ck_assert_int_eq(rig_write(owner.rig.rig.loops[0], owner.rig.store, owner_off(idx, block),
			     buf, STORE_BLOCK, 0),
	    0);
	owner.state[idx].resident |= (uint64_t)1 << block;
	owner.state[idx].dirty &= ~((uint64_t)1 << block);
	owner.state[idx].dirty |= (uint64_t)dirty << block;
	owner.changed[idx] = true;
}

void owner_expect(unsigned idx, unsigned block, int byte)
{
	uint8_t buf[STORE_BLOCK];

	memset(buf, byte, sizeof(buf));
	rig_expect(
	    owner.rig.rig.loops[0], owner.rig.store, owner_off(idx, block), STORE_BLOCK, buf);
}

void owner_commit(void)
{
	ck_assert_int_eq(index_rig_call(&owner.rig, index_ask_commit, NULL), 0);
}

void owner_expect_state(void)
{
	size_t n = 0;

	for (unsigned i = 0; i < OWNER_CHUNKS; i++) {
		if (!owner.state[i].resident)
			continue;
		rig_check(n < owner.rig.load.count, "%zu chunks only", n);
		rig_check(
		    memcmp(&owner.rig.load.chunks[n], &owner.state[i], sizeof(owner.state[i])) == 0,
		    "chunk %u: %jx %jx", i, (uintmax_t)owner.rig.load.chunks[n].resident,
		    (uintmax_t)owner.rig.load.chunks[n].dirty);
		n++;
	}
	ck_assert_uint_eq(n, owner.rig.load.count);
}

static void found_entry(void *ctx, const struct rescue_entry *entry)
{
	struct owner_found *found = ctx;

	if (entry->index)
		found->indexes++;
	else
		found->entry = *entry;
	found->count += !entry->index;
}

struct owner_found owner_aside(void)
{
	struct owner_found found = {0};
	struct err err;

	ck_assert_msg(rescue_list(owner.path, found_entry, &found, &err) == 0, "%s", err.text);
	return found;
}
