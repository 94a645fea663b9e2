/* SPDX-License-Identifier: Apache-2.0
 *
 * The index of a cache: what is committed is loaded again, calls that come together share a commit, what
 * changes during one is stored as it is then, and errors lose nothing.  (Damage: cache_index_damage.c.  Being
 * cut off: cache_crash.c.)
 */
#include "core/cache_index.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "tests/lib/index_owner.h"

/* ---- what is committed comes back ---- */

START_TEST(committed_and_loaded)
{
	struct index_region region;

	owner_open();
	ck_assert_int_eq(owner.rig.load.found, INDEX_NEW);
	owner_put(0, 0, 1, true);
	owner_put(0, 63, 2, false);
	owner_put(5, 17, 3, true);
	owner_put(OWNER_CHUNKS - 1, 63, 4, false);
	owner_commit();
	owner_put(5, 18, 5, false);
	region = owner.rig.load.region;
	region.version = 99;
	region.durability = 2;
	snprintf(region.order, sizeof(region.order), "0-64M:10");
	snprintf(region.pins, sizeof(region.pins), "4K-8K");
	indexed_describe(owner.rig.indexed, &region);
	owner_close();
	owner_open();
	ck_assert_int_eq(owner.rig.load.found, INDEX_CLEAN);
	owner_expect_state();
	ck_assert_uint_eq(owner.rig.load.region.version, 99);
	ck_assert_int_eq(owner.rig.load.region.durability, 2);
	ck_assert_str_eq(owner.rig.load.region.order, "0-64M:10");
	ck_assert_str_eq(owner.rig.load.region.pins, "4K-8K");
	ck_assert_str_eq(owner.rig.load.region.name, "work");
	ck_assert_uint_eq(owner.rig.load.dropped + owner.rig.load.newer, 0);
	owner_expect(0, 0, 1);
	owner_expect(5, 18, 5);
	/* A chunk that has no block any more has no row. */
	owner.state[0].resident = owner.state[0].dirty = 0;
	owner.changed[0] = true;
	owner_commit();
	owner_abandon();
	owner_open();
	ck_assert_int_eq(owner.rig.load.found, INDEX_UNCLEAN);
	owner_expect_state();
	/* Their data has been given back. */
	owner_expect(0, 63, 0);
	ck_assert_uint_eq(owner.rig.load.dropped, 2);
	owner_close();
}
END_TEST

START_TEST(more_than_a_batch)
{
	owner_open();
	for (unsigned i = 0; i < OWNER_CHUNKS; i++)
		owner_put(i, i % 64, (int)(i % 251) + 1, i % 2);
	owner.commits = 0;
	owner_commit();
	ck_assert_uint_eq(owner.commits, 3);
	owner_abandon();
	owner_open();
	owner_expect_state();
	owner_close();
}
END_TEST

/* A take that never says that it was all does not keep a commit going for ever. */
static unsigned take_again(void *ctx, struct index_chunk *chunks, unsigned max)
{
	owner.takes++;
	for (unsigned i = 0; i < max; i++)
		chunks[i] = (struct index_chunk){.idx = i % OWNER_CHUNKS};
	return max;
}

START_TEST(busy_writers_do_not_keep_a_commit)
{
	struct indexed_ops busy = {.take = take_again, .give_back = owner_ops.give_back};

	owner_open();
	indexed_start(owner.rig.indexed, &busy, NULL);
	owner_commit();
	ck_assert_uint_le(owner.takes, 6);
	owner_abandon();
}
END_TEST

static unsigned next_bit;

static void start_change(struct index_ask *ask)
{
	owner.state[1].resident |= (uint64_t)1 << next_bit++;
	owner.changed[1] = true;
	index_ask_commit(ask);
}

START_TEST(calls_share_commits)
{
	enum { CALLS = 50 };
	static struct index_ask asks[CALLS];

	owner_open();
	owner_put(1, 1, 1, true);
	owner.commits = 0;
	for (unsigned i = 0; i < CALLS; i++)
		index_ask_begin(&owner.rig, &asks[i], start_change, NULL);
	for (unsigned i = 0; i < CALLS; i++)
		ck_assert_int_eq(index_ask_wait(&asks[i]), 0);
	ck_assert_uint_ge(owner.commits, 1);
	ck_assert_uint_lt(owner.commits, CALLS);
	/* Nothing has changed: no commit, no sync. */
	owner.commits = 0;
	owner_commit();
	ck_assert_uint_eq(owner.commits, 0);
	owner_close();
}
END_TEST

START_TEST(state_at_the_end_counts)
{
	owner_open();
	owner_put(3, 0, 1, false);
	owner_put(3, 1, 2, false);
	owner_put(3, 2, 3, true);
	/* While the checksums are computed, block 0 is written to, block 1 is evicted, and block 9,
	 * whose bytes nobody has summed, becomes resident. */
	owner.meanwhile.idx = 3;
	owner.meanwhile.busy = 1;
	owner.meanwhile.gone = 2;
	owner.meanwhile.come = 1 << 9;
	owner_commit();
	memset(&owner.meanwhile, 0, sizeof(owner.meanwhile));
	owner_abandon();
	owner.state[3].dirty |= 1;
	owner.state[3].resident &= ~(uint64_t)2;
	owner_open();
	owner_expect_state();
	ck_assert_uint_eq(owner.rig.load.newer, 0);
	/* Block 1's bytes; there are none of block 9. */
	ck_assert_uint_eq(owner.rig.load.dropped, 1);
	owner_close();
}
END_TEST

START_TEST(after_an_unclean_end)
{
	owner_open();
	for (unsigned i = 0; i < 8; i++)
		owner_put(2, i, 1, i < 4);
	owner_commit();
	/* Written after the last commit: 2 dirty blocks, 2 clean ones, 2 that no row knows. */
	owner_put(2, 0, 9, true);
	owner_put(2, 1, 9, true);
	owner_put(2, 4, 9, true);
	owner_put(2, 5, 9, false);
	owner_put(2, 20, 9, true);
	owner_put(9, 0, 9, true);
	owner_abandon();
	owner_open();
	ck_assert_int_eq(owner.rig.load.found, INDEX_UNCLEAN);
	ck_assert_uint_eq(owner.rig.load.newer, 2);
	/* The punched ones are counted: 2 clean ones that do not fit, once more as data without a row. */
	ck_assert_uint_eq(owner.rig.load.dropped, 2 + 4);
	ck_assert_uint_eq(owner.rig.load.count, 1);
	ck_assert_uint_eq(owner.rig.load.chunks[0].resident, 0xcf);
	ck_assert_uint_eq(owner.rig.load.chunks[0].dirty, 0x0f);
	owner_expect(2, 0, 9);
	owner_expect(2, 2, 1);
	owner_expect(2, 4, 0);
	owner_expect(2, 20, 0);
	owner_expect(9, 0, 0);
	ck_assert_uint_eq(owner_aside().count, 0);
	/* What stayed has checksums that fit now. */
	memset(owner.changed, 0, sizeof(owner.changed));
	owner_close();
	owner_open();
	ck_assert_int_eq(owner.rig.load.found, INDEX_CLEAN);
	ck_assert_uint_eq(owner.rig.load.chunks[0].dirty, 0x0f);
	owner_close();
}
END_TEST

START_TEST(several_regions)
{
	struct indexed *first;
	struct store *first_store;

	owner_open();
	owner_put(0, 0, 1, true);
	owner_commit();
	first = owner.rig.indexed;
	first_store = owner.rig.store;
	free(owner.rig.load.chunks);
	index_rig_load_ok(&owner.rig, OWNER_REGION + 1, "other", INDEX_CHUNK);
	indexed_start(owner.rig.indexed, &owner_ops, NULL);
	owner_put(0, 1, 2, false);
	owner_commit();
	ck_assert_int_eq(index_rig_end(&owner.rig, index_ask_forget, NULL), 0);
	owner.rig.indexed = first;
	owner.rig.store = first_store;
	owner_expect(0, 0, 1);
	owner_close();
	owner.state[0].resident = owner.state[0].dirty = 1;
	owner_open();
	owner_expect_state();
	free(owner.rig.load.chunks);
	store_destroy(owner.rig.store);
	ck_assert_int_eq(index_rig_call(&owner.rig, index_ask_close, NULL), 0);
	index_rig_load_ok(&owner.rig, OWNER_REGION + 1, "other", INDEX_CHUNK);
	ck_assert_int_eq(owner.rig.load.found, INDEX_NEW);
	ck_assert_uint_eq(owner.rig.load.count, 0);
	owner_close();
}
END_TEST

/* ---- errors ---- */

/* A small file system on the owner's directory; false if this process may not mount. */
static bool small_disk(const char *size)
{
	char options[32];

	snprintf(options, sizeof(options), "size=%s", size);
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) {
		printf("skipped a part: cannot mount\n");
		return false;
	}
	ck_assert_int_eq(mount("none", owner.dir, "tmpfs", 0, options), 0);
	return true;
}

START_TEST(full_disk)
{
	char junk[RIG_PATH_MAX + 16];
	static char bytes[65536];
	unsigned done = 0;
	int fd, rc = 0;

	if (!small_disk("16M"))
		return;
	owner_open();
	for (unsigned i = 0; i < 20; i++)
		owner_put(i, 0, 1, true);
	owner_commit();
	snprintf(junk, sizeof(junk), "%s/junk", owner.dir);
	fd = open(junk, O_CREAT | O_WRONLY, 0600);
	while (
	    write(fd, bytes, sizeof(bytes)) > 0 || (errno == ENOSPC && write(fd, bytes, 512) > 0))
		done++;
	ck_assert_uint_gt(done, 0);
	/* The log grows until nothing fits any more. */
	for (unsigned i = 0; i < 2000 && rc == 0; i++) {
		for (unsigned j = 0; j < 20; j++) {
			owner.state[j].dirty ^= 1;
			owner.changed[j] = true;
		}
		rc = index_rig_call(&owner.rig, index_ask_commit, NULL);
	}
	ck_assert_int_eq(rc, -ENOSPC);
	ck_assert_uint_eq(owner.gives, 20);
	for (unsigned j = 0; j < 20; j++)
		ck_assert(owner.changed[j]);
	/* A process that is killed now has the last commit. */
	for (unsigned j = 0; j < 20; j++)
		owner.state[j].dirty ^= 1;
	memset(owner.changed, 0, sizeof(owner.changed));
	ck_assert_int_eq(index_rig_end(&owner.rig, index_ask_abandon, NULL), 0);
	close(fd);
	unlink(junk);
	index_rig_close(&owner.rig);
	owner_open();
	owner_expect_state();
	/* And with room it goes on. */
	owner_put(30, 0, 1, true);
	owner_commit();
	owner_close();
	umount(owner.dir);
}
END_TEST

START_TEST(closing_on_a_full_disk)
{
	char junk[RIG_PATH_MAX + 16];
	static char bytes[4096];
	int fd;

	if (!small_disk("16M"))
		return;
	owner_open();
	owner_put(0, 0, 1, true);
	owner_commit();
	for (unsigned i = 1; i < OWNER_CHUNKS; i++) {
		owner.state[i].resident = ~(uint64_t)0;
		owner.changed[i] = true;
	}
	snprintf(junk, sizeof(junk), "%s/junk", owner.dir);
	fd = open(junk, O_CREAT | O_WRONLY, 0600);
	while (write(fd, bytes, sizeof(bytes)) > 0)
		;
	ck_assert_int_eq(index_rig_end(&owner.rig, index_ask_close, NULL), -ENOSPC);
	close(fd);
	unlink(junk);
	index_rig_close(&owner.rig);
	owner_open();
	ck_assert_int_eq(owner.rig.load.found, INDEX_UNCLEAN);
	owner_expect(0, 0, 1);
	owner_abandon();
	umount(owner.dir);
}
END_TEST

/* 100 MiB of data, their verification timed for whoever reads this. */
START_TEST(a_hundred_megabytes)
{
	enum { CHUNKS = 400 };
	static uint8_t buf[INDEX_CHUNK];
	struct rig_random random;
	uint64_t start;

	if (!small_disk("1G"))
		return;
	rig_random_init(&random, "a_hundred_megabytes");
	owner_open();
	for (unsigned i = 0; i < CHUNKS; i++) {
		rig_random_fill(&random, buf, sizeof(buf));
		ck_assert_int_eq(rig_write(owner.rig.rig.loops[0], owner.rig.store, owner_off(i, 0),
				     buf, INDEX_CHUNK, 0),
		    0);
		owner.state[i].resident = owner.state[i].dirty = ~(uint64_t)0;
		owner.changed[i] = true;
	}
	start = loop_now_ns();
	owner_commit();
	printf("committing 100 MiB: %.3f s\n", (double)(loop_now_ns() - start) / 1e9);
	owner_close();
	start = loop_now_ns();
	owner_open();
	printf("opening and verifying 100 MiB: %.3f s\n", (double)(loop_now_ns() - start) / 1e9);
	owner_expect_state();
	owner_close();
	umount(owner.dir);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cache_index");
	TCase *tcase = tcase_create("cache_index");
	SRunner *runner;
	int failed;

	tcase_add_unchecked_fixture(tcase, rig_tmpdirs_begin, rig_tmpdirs_end);
	tcase_add_checked_fixture(tcase, owner_setup, owner_teardown);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, committed_and_loaded);
	tcase_add_test(tcase, more_than_a_batch);
	tcase_add_test(tcase, busy_writers_do_not_keep_a_commit);
	tcase_add_test(tcase, calls_share_commits);
	tcase_add_test(tcase, state_at_the_end_counts);
	tcase_add_test(tcase, after_an_unclean_end);
	tcase_add_test(tcase, several_regions);
	tcase_add_test(tcase, full_disk);
	tcase_add_test(tcase, closing_on_a_full_disk);
	tcase_add_test(tcase, a_hundred_megabytes);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
