/* SPDX-License-Identifier: Apache-2.0
 *
 * A whole managed region that is cut off at random points and opened again, against a plain array.
 *
 * A child process has everything that a managed mount has below its frontend (tests/lib/crash_region.h), and uses
 * it at random (tests/lib/crash_work.h).  The donor and what was promised stand in memory that the child shares
 * with the test (tests/lib/crash_world.h).  The donor is slow and random about when it does what it was asked for,
 * keeps what it was not asked to flush apart, loses some of that now and then (the next FLUSH fails then;
 * tests/lib/forgetful.h), and may do so again when the child is gone.
 *
 * At the n-th time that the child comes by a chosen point (a step of the index, an operation, a WRITE or
 * FLUSH at the donor, a promise; tests/lib/crash_cut.h) it
 *   is killed: files are as the kernel has them, or
 *   loses power: files are what tests/unit/disk_shim.h leaves of them.
 * Then the directory is opened again, and for each sector:
 *   1. What a reader sees was promised by the last FLUSH, or written since.
 *   2. It is not older than what the donor had when the child was cut off.
 *   3. When all that is dirty has been pushed, the donor has just that: so what is clean was the donor's.
 *   4. The region is as long here as there, and as long as the last RESIZE that ended and what was written since say.
 * LIVES=… makes it longer.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/crash_cut.h"
#include "tests/lib/crash_region.h"
#include "tests/lib/crash_work.h"
#include "tests/lib/crash_world.h"
#include "tests/lib/forgetful.h"
#include "tests/lib/rig.h"
#include "tests/unit/disk_shim.h"

enum { OPS = 150 };

static char dir[RIG_PATH_MAX], path[RIG_PATH_MAX + 8];

/* ---- the child ---- */

static struct rig_random cut_random; /* who cuts */

static void power_fails(void)
{
	disk_cut(path, &cut_random);
}

/* Whether the child was cut off. */
static bool run_child(unsigned at, unsigned after, bool power, uint64_t seed)
{
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		cut_random.state = seed + 1;
		crash_cut_at(at, after, power ? power_fails : NULL);
		if (power)
			disk_begin(dir);
		crash_region_open(path, seed);
		crash_work(OPS, seed + 2);
		crash_region_close(!power);
		_exit(0);
	}
	return rig_child_killed(pid);
}

/* ---- the checks ---- */

static void read_all(uint32_t *ret_seen)
{
	static uint8_t buf[256 * 1024];

	for (uint64_t off = 0; off < (uint64_t)CRASH_SECTORS * FORGETFUL_SECTOR;
	     off += sizeof(buf)) {
		ck_assert_int_eq(
		    rig_read(crash_region.loop, crash_region.store, off, buf, sizeof(buf)), 0);
		for (uint64_t i = 0; i < sizeof(buf); i += FORGETFUL_SECTOR)
			ret_seen[(off + i) / FORGETFUL_SECTOR] = forgetful_tag(buf + i);
	}
}

/* Opens what the child has left, looks at everything, pushes it, and begins the next life with that. */
static void verify(const char *what, uint64_t seed)
{
	static uint32_t seen[CRASH_SECTORS], donor[CRASH_SECTORS];
	struct forgetful_bytes *there = &crash_world->donor;
	struct rig_random random = {.state = seed};
	int rc;

	if (rig_random_below(&random, 3) == 0)
		forgetful_loses(there, &random);
	there->flush_fails = false; /* a new session knows nothing of the old one's pushes */
	memcpy(donor, there->now, sizeof(donor));
	crash_region_open(path, seed);
	read_all(seen);
	crash_world_check(seen, donor, what);
	rc = rig_op(crash_region.loop, crash_region.store, STORE_FLUSH, 0, 0, 0);
	ck_assert_int_eq(rc, 0);
	for (unsigned s = 0; s < CRASH_SECTORS; s++)
		rig_check(there->stable[s] == seen[s],
		    "%s: sector %u was %u before all was pushed, and is %u now", what, s, seen[s],
		    there->stable[s]);
	crash_world_check_size(crash_region_size(), what);
	crash_region_close(rig_random_below(&random, 2));
	crash_world_settle(seen);
}

/* ---- the cases ---- */

static const struct {
	unsigned at;
	const char *name;
	unsigned often; /* about how many times a child comes by */
} points[] = {
    {INDEX_STEP_SETTLED, "settled", 1},
    {INDEX_STEP_SYNCED, "synced", 20},
    {INDEX_STEP_SUMMED, "summed", 20},
    {INDEX_STEP_STORED, "stored", 20},
    {INDEX_STEP_COMMITTED, "committed", 20},
    {CRASH_OPERATION, "operation", OPS},
    {CRASH_DONOR_WRITE, "donor's write", 40},
    {CRASH_DONOR_WRITE, "donor's write", 40},
    {CRASH_DONOR_FLUSH, "donor's flush", 8},
    {CRASH_DONOR_RESIZE, "donor's resize", 3},
    {CRASH_RESIZED, "local cut", 3},
    {CRASH_PROMISE, "promise", 6},
    {CRASH_NOWHERE, "nowhere", 1},
};

static void lives(bool power)
{
	const char *set = getenv("LIVES");
	unsigned rounds = set ? (unsigned)atoi(set) : 5, cuts = 0;
	struct rig_random random;
	char what[100];

	rig_random_init(&random, power ? "power_lives" : "kill_lives");
	rig_tmpdir("/dev/shm", dir);
	snprintf(path, sizeof(path), "%s/cache", dir);
	crash_world_create();
	for (unsigned round = 0; round < rounds; round++)
		for (unsigned p = 0; p < sizeof(points) / sizeof(points[0]); p++) {
			unsigned after = (unsigned)rig_random_below(&random, points[p].often);

			snprintf(what, sizeof(what), "round %u, cut at %s %u", round,
			    points[p].name, after);
			cuts += run_child(points[p].at, after, power, rig_random(&random));
			verify(what, rig_random(&random));
		}
	printf(
	    "%s: %u cut off; %u writes, %u pushes, %u promises, %u resizes, %u evictions; the donor lost %u times\n",
	    power ? "power" : "kill", cuts, crash_world->writes, crash_world->donor.pushes,
	    crash_world->promises, crash_world->resizes, crash_world->evicted,
	    crash_world->donor.losses);
	ck_assert_uint_gt(cuts, rounds * 4);
	rig_tmpdir_remove(dir);
	crash_world_destroy();
}

START_TEST(kill_lives)
{
	lives(false);
}
END_TEST

START_TEST(power_lives)
{
	lives(true);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cache_crash_full");
	TCase *tcase = tcase_create("cache_crash_full");
	SRunner *runner;
	int failed;

	tcase_add_unchecked_fixture(tcase, rig_tmpdirs_begin, rig_tmpdirs_end);
	tcase_add_test(tcase, kill_lives);
	tcase_add_test(tcase, power_lives);
	tcase_set_timeout(tcase, 200);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
