/* SPDX-License-Identifier: Apache-2.0
 *
 * Would memory hold what is swapped out?  Against made-up /proc/meminfo files and cgroup trees of both
 * versions; and the limit a process lives under, and small readers of /proc.
 */
#include "mount/memroom.h"

#include <check.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mount/cgroup.h"
#include "mount/sys.h"
#include "tests/lib/rig.h"

#define MIB (UINT64_C(1) << 20)

static char dir[] = "/tmp/rm-XXXXXX";
static struct err err;

static void setup(void)
{
	strcpy(dir, "/tmp/rm-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void teardown(void)
{
	rig_tmpdir_remove(dir);
}

static void put(const char *group, const char *name, const char *text)
{
	char path[512];
	FILE *out;

	snprintf(path, sizeof(path), "%s/%s", dir, group);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/%s/%s", dir, group, name);
	out = fopen(path, "w");
	ck_assert_ptr_nonnull(out);
	fputs(text, out);
	fclose(out);
}

static void put_number(const char *group, const char *name, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64 "\n", value);
	put(group, name, text);
}

static void group_v1(
    const char *group, uint64_t limit, uint64_t usage, uint64_t swap, uint64_t file)
{
	char text[256];

	put_number(group, "memory.limit_in_bytes", limit);
	put_number(group, "memory.usage_in_bytes", usage);
	snprintf(text, sizeof(text),
	    "cache 1\nswap 7\ntotal_swapcached 99\ntotal_swap %" PRIu64
	    "\ntotal_active_file %" PRIu64 "\ntotal_inactive_file 0\n",
	    swap, file);
	put(group, "memory.stat", text);
}

static void group_v2(
    const char *group, uint64_t limit, uint64_t usage, uint64_t swap, uint64_t file)
{
	char text[256];

	put_number(group, "memory.max", limit);
	put_number(group, "memory.current", usage);
	put_number(group, "memory.swap.current", swap);
	snprintf(text, sizeof(text), "anon 1\nactive_file 0\ninactive_file %" PRIu64 "\n", file);
	put(group, "memory.stat", text);
}

START_TEST(machine)
{
	char path[512];

	put("m", "meminfo", "MemTotal: 200 kB\nMemFree: 5 kB\nMemAvailable:    102400 kB\n");
	snprintf(path, sizeof(path), "%s/m/meminfo", dir);
	ck_assert_int_eq(memroom_check_machine(path, 0, 0, &err), 0);
	ck_assert_int_eq(memroom_check_machine(path, 84 * MIB, 0, &err), 0);
	ck_assert_int_eq(memroom_check_machine(path, 85 * MIB, 0, &err), -ENOMEM);
	ck_assert(strstr(err.text, "85.0 MiB are swapped out, but only 100.0 MiB of memory"));
	ck_assert_int_eq(memroom_check_machine(path, 85 * MIB, MIB, &err), 0);
	put("m", "meminfo", "MemTotal: 200 kB\n");
	ck_assert_int_eq(memroom_check_machine(path, MIB, 0, &err), -ENOENT);
}
END_TEST

START_TEST(version_1)
{
	group_v1("", UINT64_MAX >> 1, 10 * MIB, 100 * MIB, 0);
	group_v1("job", 64 * MIB, 63 * MIB, 100 * MIB, 10 * MIB);
	ck_assert_int_eq(memroom_check_cgroups(dir, 0, 0, &err), 0);
	/* Only as much as the device holds can come back from it. */
	ck_assert_int_eq(memroom_check_cgroups(dir, 11 * MIB, 0, &err), 0);
	ck_assert_int_eq(memroom_check_cgroups(dir, 12 * MIB, 0, &err), -ENOMEM);
	ck_assert(strstr(err.text, "/job is too short: 12.0 MiB"));
	ck_assert_int_eq(memroom_check_cgroups(dir, 500 * MIB, 88 * MIB, &err), -ENOMEM);
	/* … or not even that, if the group has swapped out less. */
	ck_assert_int_eq(memroom_check_cgroups(dir, 500 * MIB, 89 * MIB, &err), 0);
	/* Over its limit already. */
	group_v1("job", 64 * MIB, 65 * MIB, MIB, 0);
	ck_assert_int_eq(memroom_check_cgroups(dir, MIB, 0, &err), -ENOMEM);
}
END_TEST

START_TEST(version_2)
{
	put("", "memory.stat", "anon 1\n");
	put("outer", "memory.max", "max\n");
	group_v2("outer/job", 64 * MIB, 60 * MIB, 5 * MIB, 0);
	ck_assert_int_eq(memroom_check_cgroups(dir, 4 * MIB, 0, &err), 0);
	ck_assert_int_eq(memroom_check_cgroups(dir, 5 * MIB, 0, &err), -ENOMEM);
	ck_assert(strstr(err.text, "/outer/job is too short"));
	group_v2("outer/job", 64 * MIB, 60 * MIB, 5 * MIB, MIB);
	ck_assert_int_eq(memroom_check_cgroups(dir, 5 * MIB, 0, &err), 0);
}
END_TEST

START_TEST(readers)
{
	char path[512], text[8];
	uint64_t value = 1;

	put("m", "f", "12345678901\n");
	snprintf(path, sizeof(path), "%s/m/f", dir);
	ck_assert_int_eq(sys_read_u64(path, &value), 0);
	ck_assert_uint_eq(value, 12345678901);
	ck_assert_int_eq(sys_read_text(path, text, sizeof(text)), 7);
	ck_assert_str_eq(text, "1234567");
	ck_assert_int_eq(sys_write_text(path, "-5\n"), 0);
	put("m", "f", "-5\n");
	ck_assert_int_eq(sys_read_u64(path, &value), -EINVAL);
	put("m", "f", "max\n");
	ck_assert_int_eq(sys_read_u64(path, &value), -EINVAL);
	put("m", "f", "");
	ck_assert_int_eq(sys_read_text(path, text, sizeof(text)), 0);
	put("m", "f", "total_swap7 1\ntotal_swapped 1\nswap 2\ntotal_swap 3\n");
	ck_assert_int_eq(sys_read_key(path, "total_swap", &value), 0);
	ck_assert_uint_eq(value, 3);
	ck_assert_int_eq(sys_read_key(path, "tota", &value), -ENOENT);
	ck_assert_int_eq(sys_write_text("/nonexistent/file", "x"), -ENOENT);
}
END_TEST

START_TEST(programs)
{
	const char *good[] = {"true", NULL}, *missing[] = {"no-such-program-here", NULL};
	const char *failing[] = {"sh", "-c", "echo first >&2; echo last words >&2; exit 3", NULL};
	const char *killed[] = {"sh", "-c", "kill -9 $$", NULL};

	ck_assert_int_eq(sys_run(good, &err), 0);
	ck_assert_int_eq(sys_run(missing, &err), -ENOENT);
	ck_assert(strstr(err.text, "not installed"));
	ck_assert_int_eq(sys_run(failing, &err), -EIO);
	ck_assert_str_eq(err.text, "sh failed with exit code 3: last words");
	ck_assert_int_eq(sys_run(killed, &err), -EINTR);
}
END_TEST

START_TEST(own_limit)
{
	char group[PATH_MAX];
	uint64_t limit;
	int res = cgroup_memory_limit(getpid(), &limit, group);

	ck_assert(res == 0 || res == -ENOENT);
	ck_assert_int_eq(cgroup_memory_limit(-1, &limit, group), -ENOENT);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("memroom");
	TCase *tc = tcase_create("memroom");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, machine);
	tcase_add_test(tc, version_1);
	tcase_add_test(tc, version_2);
	tcase_add_test(tc, readers);
	tcase_add_test(tc, programs);
	tcase_add_test(tc, own_limit);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
