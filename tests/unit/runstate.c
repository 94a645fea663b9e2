/* SPDX-License-Identifier: Apache-2.0
 *
 * The state of live mounts: names, the lock, what is written and read back.
 */
#include "mount/runstate.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mount/sys.h"

static char base[] = "/tmp/rr-XXXXXX";
static char run_dir[MOUNT_RUN_DIR_MAX];
static struct runstate state, back;
static struct err err;

static void setup(void)
{
	strcpy(base, "/tmp/rr-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(base));
	runstate_set_base(base);
	runstate_dir("/mnt/remote", run_dir);
	memset(&state, 0, sizeof(state));
	strcpy(state.dir, "/mnt/remote");
	strcpy(state.source, "donor:/ram");
}

static void teardown(void)
{
	runstate_remove(run_dir);
	ck_assert_msg(rmdir(base) == 0, "something is left in %s", base);
}

START_TEST(names)
{
	char expected[MOUNT_RUN_DIR_MAX], a[MOUNT_RUN_DIR_MAX], b[MOUNT_RUN_DIR_MAX];
	static char deep[PATH_MAX];

	snprintf(expected, sizeof(expected), "%s/mnt-remote", base);
	ck_assert_str_eq(run_dir, expected);

	/* Long ones stay short enough for a socket address, and apart. */
	memset(deep, 'd', 3000);
	deep[0] = '/';
	runstate_dir(deep, a);
	ck_assert_uint_lt(strlen(a), MOUNT_RUN_DIR_MAX);
	deep[2999] = 'e';
	runstate_dir(deep, b);
	ck_assert_str_ne(a, b);
	ck_assert_ptr_null(strchr(a + strlen(base) + 1, '/'));

	ck_assert(!runstate_name_ok("control"));
	ck_assert(!runstate_name_ok("mount.conf"));
	ck_assert(!runstate_name_ok("mount.conf.new"));
	ck_assert(runstate_name_ok("swap0"));
}
END_TEST

START_TEST(lock)
{
	int fd, second, status;
	pid_t pid;

	ck_assert_int_eq(runstate_lock(run_dir, false, 0, &fd, &err), -ENOENT);
	ck_assert_int_eq(runstate_lock(run_dir, true, 0, &fd, &err), 0);
	ck_assert_int_eq(runstate_lock(run_dir, true, 50, &second, &err), -EBUSY);
	ck_assert(strstr(err.text, "another remram command"));

	/* Who waits for a lock whose holder removes the directory gets a new one. */
	pid = fork();
	if (pid == 0) {
		struct stat st;
		int res = runstate_lock(run_dir, true, 5000, &second, &err);
		_exit(res == 0 && stat(run_dir, &st) == 0 ? 0 : 1);
	}
	sys_sleep_ms(100);
	runstate_remove(run_dir);
	runstate_unlock(fd);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);

	/* … or, if it does not make one, learns that there is none. */
	ck_assert_int_eq(runstate_lock(run_dir, false, 0, &fd, &err), 0);
	runstate_remove(run_dir);
	runstate_unlock(fd);
	ck_assert_int_eq(runstate_lock(run_dir, false, 0, &fd, &err), -ENOENT);
}
END_TEST

START_TEST(save_load)
{
	int fd;

	ck_assert_int_eq(runstate_lock(run_dir, true, 0, &fd, &err), 0);
	ck_assert_int_eq(runstate_load(run_dir, &back, &err), -ENOENT);
	strcpy(state.dir, "/mnt/my data\n%");
	state.pid = 1234;
	state.start = 5678901234567;
	state.device_count = 2;
	strcpy(state.devices[0].region, "a b\xff");
	strcpy(state.devices[0].device, "/dev/loop12");
	state.devices[0].prio = MOUNT_PRIO_NONE;
	state.devices[0].read_only = true;
	state.devices[0].id = UINT64_MAX;
	memset(state.devices[1].region, '%', POOL_NAME_MAX);
	state.devices[1].swap = state.devices[1].discard = true;
	state.devices[1].prio = 0;
	ck_assert_int_eq(runstate_save(run_dir, &state, &err), 0);
	memset(&back, 0x55, sizeof(back));
	ck_assert_int_eq(runstate_load(run_dir, &back, &err), 0);
	ck_assert_mem_eq(&back, &state, sizeof(state));
	runstate_unlock(fd);
}
END_TEST

static int load_text(const char *text)
{
	char path[PATH_MAX];
	FILE *out;

	mkdir(run_dir, 0755);
	snprintf(path, sizeof(path), "%s/mount.conf", run_dir);
	out = fopen(path, "w");
	fputs(text, out);
	fclose(out);
	return runstate_load(run_dir, &back, &err);
}

START_TEST(damaged)
{
	char many[4096] = "dir /x\n";
	unsigned i;

	ck_assert_int_eq(load_text("dir /x\nfuture 1 2 3\npid 7 8\n"), 0);
	ck_assert_int_eq(back.pid, 7);
	ck_assert_int_eq(load_text(""), -EINVAL);
	ck_assert_int_eq(load_text("dir /x\nnonsense\n"), -EINVAL);
	ck_assert_int_eq(load_text("dir %zz\n"), -EINVAL);
	ck_assert_int_eq(load_text("dir /x\npid x\n"), -EINVAL);
	ck_assert_int_eq(load_text("dir /x\ndevice a\n"), -EINVAL);
	for (i = 0; i < RUNSTATE_DEVICES_MAX; i++)
		strcat(many, "device a - loop - keep rw 0\n");
	ck_assert_int_eq(load_text(many), 0);
	strcat(many, "device a - loop - keep rw 0\n");
	ck_assert_int_eq(load_text(many), -EINVAL);
}
END_TEST

START_TEST(links)
{
	char path[PATH_MAX], target[64];
	ssize_t n;
	int fd;

	ck_assert_int_eq(runstate_lock(run_dir, true, 0, &fd, &err), 0);
	ck_assert_int_eq(runstate_link(run_dir, "swap0", "/dev/loop1", &err), 0);
	ck_assert_int_eq(runstate_link(run_dir, "swap0", "/dev/loop2", &err), 0);
	snprintf(path, sizeof(path), "%s/swap0", run_dir);
	n = readlink(path, target, sizeof(target));
	ck_assert(n == 10 && !memcmp(target, "/dev/loop2", 10));
	runstate_unlink(run_dir, "swap0");
	ck_assert_int_ne(access(path, F_OK), 0);
	runstate_unlock(fd);
}
END_TEST

START_TEST(alive)
{
	int status;
	pid_t pid;

	state.pid = getpid();
	state.start = sys_process_start(getpid());
	ck_assert_uint_ne(state.start, 0);
	ck_assert(runstate_alive(&state));
	state.start++; /* another process that got the same number */
	ck_assert(!runstate_alive(&state));
	state.pid = 0;
	ck_assert(!runstate_alive(&state));

	pid = fork();
	if (pid == 0)
		_exit(0);
	while (sys_process_start(pid))
		sys_sleep_ms(1);
	state.pid = pid; /* a zombie does not serve */
	state.start = 0;
	ck_assert(!runstate_alive(&state));
	waitpid(pid, &status, 0);
}
END_TEST

static unsigned count;

static void count_each(void *ctx, const char *dir, const struct runstate *each)
{
	ck_assert_str_eq(dir, run_dir);
	ck_assert_str_eq(each->dir, "/mnt/remote");
	count++;
}

START_TEST(list)
{
	char empty[PATH_MAX];
	int fd;

	count = 0;
	ck_assert_int_eq(runstate_each(count_each, NULL), 0);
	ck_assert_uint_eq(count, 0);
	ck_assert_int_eq(runstate_lock(run_dir, true, 0, &fd, &err), 0);
	ck_assert_int_eq(runstate_save(run_dir, &state, &err), 0);
	snprintf(empty, sizeof(empty), "%s/empty", base);
	mkdir(empty, 0755);
	ck_assert_int_eq(runstate_each(count_each, NULL), 0);
	ck_assert_uint_eq(count, 1);
	rmdir(empty);
	runstate_unlock(fd);
	runstate_remove(run_dir);
	rmdir(base);
	ck_assert_int_eq(runstate_each(count_each, NULL), 0);
	ck_assert_uint_eq(count, 1);
	mkdir(base, 0755);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("runstate");
	TCase *tc = tcase_create("runstate");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, names);
	tcase_add_test(tc, lock);
	tcase_add_test(tc, save_load);
	tcase_add_test(tc, damaged);
	tcase_add_test(tc, links);
	tcase_add_test(tc, alive);
	tcase_add_test(tc, list);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
