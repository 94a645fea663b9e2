/* SPDX-License-Identifier: Apache-2.0
 *
 * A cache that is cut off at every step and opened again, against a model.
 *
 * A child process plays a managed region on a real cache directory: it writes, punches, pulls, pushes,
 * evicts and flushes at random, with commits under way meanwhile, and keeps the rules of
 * core/cache_index.h.  What it was promised stands in memory that it shares with the test, and so does
 * the donor, which outlives it.  At the n-th time that the index comes by a chosen step, or before its
 * n-th operation, the child
 *   is killed (SIGKILL): files are as the kernel has them, or
 *   loses power: files are what tests/unit/disk_shim.h leaves of them: what was synced, and any part
 *   of what was not, sector by sector, of the data files and of SQLite's alike.
 * Then the directory is opened again (by children that are cut off themselves in the middle of that,
 * too), and the test looks at every block:
 *   1. What is clean is what the donor has.
 *   2. What a reader sees was promised by the last flush, or written since; sector by sector.
 *   3. After a kill: what the last commit had and nobody has touched since is still resident.
 *
 * A block's bytes tell who wrote them: every sector is full of its tag.
 */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/lib/index_rig.h"
#include "tests/unit/disk_shim.h"

enum {
	CHUNKS = 6,
	BLOCKS = CHUNKS * INDEX_CHUNK_BLOCKS,
	SINCE = 32, /* writes of one block between two flushes */
	REGION_ID = 42,
	OPS = 120,
};

/* In shared memory. */
struct world {
	uint32_t donor[BLOCKS]; /* tags; 0: zeros */
	uint32_t promised[BLOCKS];
	uint32_t since[BLOCKS][SINCE];
	unsigned since_count[BLOCKS];
	uint32_t committed
	    [BLOCKS]; /* the tag of a resident block that a commit has stored and nobody has
				       touched since, or ABSENT */
	uint32_t tag;
	unsigned commits, ops;
	bool closed;
};

#define ABSENT UINT32_MAX
#define NEVER ((enum index_step)(INDEX_STEPS + 1)) /* not a step: nothing is cut off */

static struct world *world;
static char dir[RIG_PATH_MAX], path[RIG_PATH_MAX + 8];

/* The child's region.  mu orders the driver and the index's callbacks. */
struct mini {
	struct index_rig ir;
	pthread_mutex_t mu;
	uint32_t value[BLOCKS];
	bool resident[BLOCKS], dirty[BLOCKS], busy[BLOCKS];
	bool changed[CHUNKS], taken[CHUNKS];
	uint32_t touched[BLOCKS]; /* counts changes: what a commit stored is still so */
	struct rig_random random;
	unsigned cursor;
	/* The cut. */
	enum index_step cut_step;
	unsigned cut_after;
	bool power;
	struct rig_random cut_random;
	/* The commit under way. */
	struct index_ask commit;
	bool committing;
	uint32_t at_commit[BLOCKS], touched_at[BLOCKS];
	unsigned since_at[BLOCKS];
};

static struct mini mini;

/* ---- blocks ---- */

static void fill(void *buf, uint32_t tag)
{
	uint32_t *words = buf;

	for (unsigned i = 0; i < STORE_BLOCK / 4; i++)
		words[i] = tag;
}

/* ---- what the index asks ---- */

static void chunk_state(unsigned idx, struct index_chunk *chunk)
{
	*chunk = (struct index_chunk){.idx = idx};
	for (unsigned i = 0; i < INDEX_CHUNK_BLOCKS; i++) {
		unsigned b = idx * INDEX_CHUNK_BLOCKS + i;

		chunk->resident |= (uint64_t)mini.resident[b] << i;
		chunk->dirty |= (uint64_t)(mini.resident[b] && (mini.dirty[b] || mini.busy[b]))
				<< i;
	}
}

static unsigned mini_take(void *ctx, struct index_chunk *chunks, unsigned max)
{
	unsigned n = 0;

	pthread_mutex_lock(&mini.mu);
	for (unsigned i = 0; i < CHUNKS && n < max; i++)
		if (mini.changed[i]) {
			chunk_state(i, &chunks[n++]);
			mini.changed[i] = false;
			mini.taken[i] = true;
		}
	pthread_mutex_unlock(&mini.mu);
	return n;
}

static void mini_state(void *ctx, struct index_chunk *chunk)
{
	pthread_mutex_lock(&mini.mu);
	chunk_state((unsigned)chunk->idx, chunk);
	pthread_mutex_unlock(&mini.mu);
}

static void mini_give_back(void *ctx, const struct index_chunk *chunks, unsigned count)
{
	ck_abort_msg("nothing fails here");
}

static const struct indexed_ops mini_ops = {
    .take = mini_take, .state = mini_state, .give_back = mini_give_back};

static void cut(void)
{
	if (mini.power)
		disk_cut(path, &mini.cut_random);
	kill(getpid(), SIGKILL);
	pause();
}

static void on_step(void *ctx, enum index_step step)
{
	if (step == mini.cut_step && mini.cut_after-- == 0)
		cut();
}

/* ---- what the child does ---- */

static void touch(unsigned b)
{
	mini.touched[b]++;
	world->committed[b] = ABSENT;
	mini.changed[b / INDEX_CHUNK_BLOCKS] = true;
}

static void set_busy(unsigned b, unsigned n, bool busy)
{
	pthread_mutex_lock(&mini.mu);
	for (unsigned i = 0; i < n; i++)
		mini.busy[b + i] = busy;
	pthread_mutex_unlock(&mini.mu);
}

/* Room in the list of what may be seen; no room: flush first. */
static bool may_write(unsigned b, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (world->since_count[b + i] == SINCE)
			return false;
	return true;
}

static void do_write(unsigned b, unsigned n, bool punch)
{
	static uint8_t buf[INDEX_CHUNK];
	uint32_t tag = punch ? 0 : ++world->tag;
	int rc;

	for (unsigned i = 0; i < n; i++) {
		world->since[b + i][world->since_count[b + i]] = tag;
		world->since_count[b + i]++;
		world->committed[b + i] = ABSENT;
		fill(buf + (size_t)i * STORE_BLOCK, tag);
	}
	set_busy(b, n, true);
	rc = punch ? rig_op(mini.ir.rig.loops[0], mini.ir.store, STORE_ZERO,
			 (uint64_t)b * STORE_BLOCK, (uint64_t)n * STORE_BLOCK, 0)
		   : rig_write(mini.ir.rig.loops[0], mini.ir.store, (uint64_t)b * STORE_BLOCK, buf,
			 n * STORE_BLOCK, 0);
	rig_check(rc == 0, "write: %d", rc);
	pthread_mutex_lock(&mini.mu);
	for (unsigned i = b; i < b + n; i++) {
		mini.value[i] = tag;
		mini.resident[i] = mini.dirty[i] = true;
		mini.busy[i] = false;
		touch(i);
	}
	pthread_mutex_unlock(&mini.mu);
}

static void do_pull(unsigned b)
{
	static uint8_t buf[STORE_BLOCK];

	if (mini.resident[b])
		return;
	fill(buf, world->donor[b]);
	rig_check(rig_write(mini.ir.rig.loops[0], mini.ir.store, (uint64_t)b * STORE_BLOCK, buf,
		      STORE_BLOCK, 0) == 0,
	    "pull");
	pthread_mutex_lock(&mini.mu);
	mini.value[b] = world->donor[b];
	mini.resident[b] = true;
	mini.dirty[b] = false;
	touch(b);
	pthread_mutex_unlock(&mini.mu);
}

/* Rules 2 and 3: only what a commit has stored as it is. */
static bool settled(unsigned b)
{
	unsigned chunk = b / INDEX_CHUNK_BLOCKS;

	return !mini.changed[chunk] && !mini.taken[chunk];
}

static void do_push(unsigned b)
{
	pthread_mutex_lock(&mini.mu);
	if (mini.dirty[b] && settled(b)) {
		world->donor[b] = mini.value[b];
		mini.dirty[b] = false;
		mini.touched[b]++;
		mini.changed[b / INDEX_CHUNK_BLOCKS] = true;
	}
	pthread_mutex_unlock(&mini.mu);
}

/* Pushes all of a chunk that is settled. */
static void do_push_chunk(unsigned chunk)
{
	bool ok;

	pthread_mutex_lock(&mini.mu);
	ok = settled(chunk * INDEX_CHUNK_BLOCKS);
	for (unsigned b = chunk * INDEX_CHUNK_BLOCKS; ok && b < (chunk + 1) * INDEX_CHUNK_BLOCKS;
	     b++)
		if (mini.dirty[b]) {
			world->donor[b] = mini.value[b];
			mini.dirty[b] = false;
			mini.touched[b]++;
			mini.changed[chunk] = true;
		}
	pthread_mutex_unlock(&mini.mu);
}

static void do_evict(unsigned b)
{
	bool yes;

	pthread_mutex_lock(&mini.mu);
	yes = mini.resident[b] && !mini.dirty[b] && settled(b);
	if (yes) {
		mini.resident[b] = false;
		touch(b);
	}
	pthread_mutex_unlock(&mini.mu);
	if (yes)
		rig_check(rig_op(mini.ir.rig.loops[0], mini.ir.store, STORE_ZERO,
			      (uint64_t)b * STORE_BLOCK, STORE_BLOCK, 0) == 0,
		    "evict");
}

static void commit_start(void)
{
	if (mini.committing)
		return;
	pthread_mutex_lock(&mini.mu);
	for (unsigned b = 0; b < BLOCKS; b++) {
		mini.at_commit[b] = mini.resident[b] ? mini.value[b] : world->donor[b];
		mini.touched_at[b] = mini.touched[b];
		mini.since_at[b] = world->since_count[b];
	}
	pthread_mutex_unlock(&mini.mu);
	mini.committing = true;
	index_ask_begin(&mini.ir, &mini.commit, index_ask_commit, NULL);
}

/* The flush has returned: what was written before it began is promised. */
static void commit_finish(void)
{
	if (!mini.committing)
		return;
	rig_check(index_ask_wait(&mini.commit) == 0, "commit: %d", mini.commit.err);
	mini.committing = false;
	pthread_mutex_lock(&mini.mu);
	for (unsigned b = 0; b < BLOCKS; b++) {
		unsigned before = mini.since_at[b];

		world->since_count[b] -= before;
		memmove(world->since[b], world->since[b] + before,
		    world->since_count[b] * sizeof(world->since[b][0]));
		world->promised[b] = mini.at_commit[b];
		if (mini.resident[b] && mini.touched[b] == mini.touched_at[b])
			world->committed[b] = mini.value[b];
	}
	memset(mini.taken, 0, sizeof(mini.taken));
	world->commits++;
	pthread_mutex_unlock(&mini.mu);
}

static void do_something(void)
{
	unsigned b = (unsigned)rig_random_below(&mini.random, BLOCKS);
	unsigned n = 1 + (unsigned)rig_random_below(&mini.random, 12);

	if (b + n > BLOCKS)
		n = BLOCKS - b;
	switch (rig_random_below(&mini.random, 12)) {
	case 0:
	case 1:
	case 2:
		if (may_write(b, n))
			do_write(b, n, false);
		break;
	case 3:
		if (may_write(b, n))
			do_write(b, n, true);
		break;
	case 4:
	case 5:
		do_pull(b);
		break;
	case 6:
		do_push(b);
		break;
	case 7:
		do_push_chunk(b / INDEX_CHUNK_BLOCKS);
		break;
	case 8:
		do_evict(b);
		break;
	case 9:
		commit_start();
		break;
	default:
		commit_finish();
		break;
	}
	world->ops++;
}

/* Opens, and puts what the index has into the state. */
static void mini_open(void)
{
	index_rig_open(&mini.ir, path, on_step, NULL);
	index_rig_load_ok(&mini.ir, REGION_ID, "region", (uint64_t)BLOCKS * STORE_BLOCK);
	indexed_start(mini.ir.indexed, &mini_ops, NULL);
	pthread_mutex_init(&mini.mu, NULL);
	for (size_t i = 0; i < mini.ir.load.count; i++) {
		struct index_chunk *chunk = &mini.ir.load.chunks[i];

		for (unsigned j = 0; j < INDEX_CHUNK_BLOCKS; j++) {
			unsigned b = (unsigned)chunk->idx * INDEX_CHUNK_BLOCKS + j;

			mini.resident[b] = chunk->resident >> j & 1;
			mini.dirty[b] = chunk->dirty >> j & 1;
		}
	}
}

/* The child: works until it is cut off, or closes cleanly. */
static void child_work(void)
{
	uint8_t buf[STORE_BLOCK];

	mini_open();
	for (unsigned b = 0; b < BLOCKS; b++)
		if (mini.resident[b]) {
			rig_check(rig_read(mini.ir.rig.loops[0], mini.ir.store,
				      (uint64_t)b * STORE_BLOCK, buf, STORE_BLOCK) == 0,
			    "read");
			memcpy(&mini.value[b], buf, 4);
		}
	for (unsigned i = 0; i < OPS; i++) {
		if (mini.cut_step == INDEX_STEPS && mini.cut_after-- == 0)
			cut();
		do_something();
	}
	commit_finish();
	commit_start();
	commit_finish();
	rig_check(index_rig_end(&mini.ir, index_ask_close, NULL) == 0, "close");
	index_rig_close(&mini.ir);
	world->closed = true;
	_exit(0);
}

/* ---- the test ---- */

/* Runs fn in a child that is cut off at the n-th `step`; whether it was. */
static bool run_child(
    void (*fn)(void), enum index_step step, unsigned after, bool power, uint64_t seed)
{
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		memset(&mini, 0, sizeof(mini));
		mini.random.state = seed;
		mini.cut_random.state = seed + 1;
		mini.cut_step = step;
		mini.cut_after = after;
		mini.power = power;
		if (power)
			disk_begin(dir);
		fn();
		_exit(0);
	}
	return rig_child_killed(pid);
}

static bool may_be_seen(unsigned b, uint32_t tag)
{
	if (tag == world->promised[b])
		return true;
	for (unsigned i = 0; i < world->since_count[b]; i++)
		if (world->since[b][i] == tag)
			return true;
	return false;
}

/* A sector whose bytes are not all of one tag gives ABSENT. */
static uint32_t sector_tag(const uint8_t *bytes)
{
	uint32_t first, word;

	memcpy(&first, bytes, 4);
	for (unsigned i = 0; i < DISK_SECTOR; i += 4) {
		memcpy(&word, bytes + i, 4);
		if (word != first)
			return ABSENT;
	}
	return first;
}

/* Looks at every block of the directory as it is now; takes what is seen for the new truth (as a cache
 * does: what is dirty will be pushed). */
static void inspect(bool power, const char *what)
{
	static uint8_t buf[STORE_BLOCK];

	for (unsigned b = 0; b < BLOCKS; b++) {
		uint32_t tag = world->donor[b];

		if (mini.resident[b]) {
			rig_check(rig_read(mini.ir.rig.loops[0], mini.ir.store,
				      (uint64_t)b * STORE_BLOCK, buf, STORE_BLOCK) == 0,
			    "read");
			for (unsigned pos = 0; pos < STORE_BLOCK; pos += DISK_SECTOR) {
				tag = sector_tag(buf + pos);
				rig_check(mini.dirty[b] || tag == world->donor[b],
				    "%s: block %u is clean with %u, the donor has %u", what, b, tag,
				    world->donor[b]);
				rig_check(may_be_seen(b, tag),
				    "%s: block %u (%s) reads %u; promised %u", what, b,
				    mini.dirty[b] ? "dirty" : "clean", tag, world->promised[b]);
			}
		} else {
			rig_check(may_be_seen(b, tag),
			    "%s: block %u is not here, and the donor has %u; promised %u", what, b,
			    tag, world->promised[b]);
		}
		rig_check(power || world->committed[b] == ABSENT || mini.resident[b],
		    "%s: block %u was intact, but is gone", what, b);
	}
}

/* Everything dirty is written anew, whole, and flushed: what was torn is as good as any other data that
 * nobody flushed, but the model knows whole blocks only. */
static void heal(void)
{
	for (unsigned b = 0; b < BLOCKS; b++) {
		if (!mini.resident[b])
			mini.value[b] = world->donor[b];
		else if (!mini.dirty[b])
			mini.value[b] = world->donor[b];
		world->since_count[b] = 0;
		world->promised[b] = world->donor[b];
		world->committed[b] = ABSENT;
	}
	for (unsigned b = 0; b < BLOCKS; b++)
		if (mini.resident[b] && mini.dirty[b])
			do_write(b, 1, false);
	commit_start();
	commit_finish();
}

static void verify(bool power, const char *what)
{
	memset(&mini, 0, sizeof(mini));
	mini.cut_step = NEVER;
	mini_open();
	ck_assert_str_eq(mini.ir.load.aside, "");
	ck_assert_msg((mini.ir.load.found == INDEX_CLEAN) == world->closed,
	    "%s: found %d, closed %d", what, mini.ir.load.found, world->closed);
	inspect(power, what);
	heal();
	ck_assert_int_eq(index_rig_end(&mini.ir, index_ask_close, NULL), 0);
	index_rig_close(&mini.ir);
	world->closed = false;
}

static void child_open(void)
{
	mini_open();
	_exit(0);
}

static const struct {
	enum index_step step;
	const char *name;
	unsigned often; /* how many times a child comes by */
} work_steps[] = {
    {INDEX_STEP_SETTLED, "settled", 1},
    {INDEX_STEP_SYNCED, "synced", 8},
    {INDEX_STEP_SUMMED, "summed", 8},
    {INDEX_STEP_STORED, "stored", 8},
    {INDEX_STEP_COMMITTED, "committed", 8},
    {INDEX_STEP_CLOSED, "closed", 1},
    {INDEX_STEPS, "operation", OPS},
    {INDEX_STEPS, "operation", OPS},
};

static const enum index_step load_steps[] = {
    INDEX_STEP_LOADED, INDEX_STEP_VERIFIED, INDEX_STEP_PUNCHED, INDEX_STEP_SETTLED};

static void begin_world(void)
{
	rig_tmpdir("/dev/shm", dir);
	snprintf(path, sizeof(path), "%s/cache", dir);
	world =
	    mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(world, MAP_FAILED);
	world->tag = 1000;
	for (unsigned b = 0; b < BLOCKS; b++) {
		world->donor[b] = world->promised[b] = b % 3 ? b + 1 : 0;
		world->committed[b] = ABSENT;
	}
}

/* Each step, several times, in one directory that lives through it all. */
static void matrix(bool power, unsigned rounds)
{
	struct rig_random random;
	unsigned cuts = 0, opens_cut = 0;
	char what[100];

	rig_random_init(&random, power ? "power_matrix" : "kill_matrix");
	begin_world();
	for (unsigned round = 0; round < rounds; round++)
		for (unsigned s = 0; s < sizeof(work_steps) / sizeof(work_steps[0]); s++) {
			unsigned after = (unsigned)rig_random_below(&random, work_steps[s].often);

			snprintf(what, sizeof(what), "round %u, cut at %s %u", round,
			    work_steps[s].name, after);
			if (run_child(child_work, work_steps[s].step, after, power,
				rig_random(&random))) {
				cuts++;
				world->closed = work_steps[s].step == INDEX_STEP_CLOSED;
			}
			/* Opening is cut off, too. */
			if (round % 2) {
				enum index_step step = load_steps[rig_random_below(&random, 4)];

				opens_cut +=
				    run_child(child_open, step, 0, power, rig_random(&random));
				if (step == INDEX_STEP_SETTLED)
					world->closed = false;
			}
			verify(power, what);
		}
	printf("%s: %u cut off at work, %u while opening; %u commits, %u operations\n",
	    power ? "power" : "kill", cuts, opens_cut, world->commits, world->ops);
	ck_assert_uint_gt(cuts, rounds * 3);
	ck_assert_uint_gt(opens_cut, rounds / 2);
	rig_tmpdir_remove(dir);
	munmap(world, sizeof(*world));
}

/* Blocks that are newer than their rows when a region is loaded were written by a process that never synced
 * them: after a clean end they must be on disk all the same. */
static void child_recover(void)
{
	mini_open();
	do_write(5, 3, false);
	commit_start();
	commit_finish();
	do_write(5, 2, false);
	rig_check(index_rig_end(&mini.ir, index_ask_abandon, NULL) == 0, "abandon");
	index_rig_close(&mini.ir);
	/* The same process, so that the disk remembers what was not synced. */
	memset(mini.resident, 0, sizeof(mini.resident));
	memset(mini.changed, 0, sizeof(mini.changed));
	mini.cut_step = INDEX_STEP_CLOSED;
	mini_open();
	rig_check(mini.ir.load.newer == 2, "newer: %ju", (uintmax_t)mini.ir.load.newer);
	index_rig_end(&mini.ir, index_ask_close, NULL);
	_exit(1);
}

START_TEST(power_after_recovery)
{
	begin_world();
	for (unsigned i = 1; i <= 8; i++) {
		ck_assert(run_child(child_recover, NEVER, 0, true, i));
		memset(&mini, 0, sizeof(mini));
		mini.cut_step = NEVER;
		mini_open();
		ck_assert_int_eq(mini.ir.load.found, INDEX_CLEAN);
		ck_assert_str_eq(mini.ir.load.aside, "");
		inspect(true, "after recovery");
		ck_assert(mini.dirty[5] && mini.dirty[7]);
		ck_assert_int_eq(index_rig_end(&mini.ir, index_ask_close, NULL), 0);
		index_rig_close(&mini.ir);
		memset(world->since_count, 0, sizeof(world->since_count));
		rig_tmpdir_remove(path);
	}
	rig_tmpdir_remove(dir);
	munmap(world, sizeof(*world));
}
END_TEST

START_TEST(kill_matrix)
{
	matrix(false, 12);
}
END_TEST

START_TEST(power_matrix)
{
	matrix(true, 12);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cache_crash");
	TCase *tcase = tcase_create("cache_crash");
	SRunner *runner;
	int failed;

	tcase_add_unchecked_fixture(tcase, rig_tmpdirs_begin, rig_tmpdirs_end);
	tcase_add_test(tcase, kill_matrix);
	tcase_add_test(tcase, power_matrix);
	tcase_add_test(tcase, power_after_recovery);
	tcase_set_timeout(tcase, 200);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
