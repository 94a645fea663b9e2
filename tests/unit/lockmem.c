/* SPDX-License-Identifier: Apache-2.0
 *
 * Locking memory, each time in a process of its own: what is mapped later is resident at once, and a
 * process that may not lock gets a sentence.
 */
#include "mount/lockmem.h"

#include <check.h>
#include <errno.h>
#include <grp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mount/sys.h"

enum { SKIP = 77, MAP_BYTES = 1 << 20, PAGES = MAP_BYTES / 4096 };

static int in_child(int (*run)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(run());
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status), "the child was ended by signal %d", WTERMSIG(status));
	return WEXITSTATUS(status);
}

static int lock_all(void)
{
	struct lockmem_refused refused;
	unsigned char resident[PAGES];
	uint64_t locked_kb, rss_kb;
	char score[16];
	struct err err;
	uint8_t *map;
	unsigned i;

	lockmem_prepare(&refused);
	if (lockmem_lock(&err))
		return geteuid() ? SKIP : 1;
	map = mmap(NULL, MAP_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED || mincore(map, MAP_BYTES, resident))
		return 2;
	for (i = 0; i < PAGES; i++) {
		if (!(resident[i] & 1))
			return 3;
	}
	if (sys_read_key("/proc/self/status", "VmLck", &locked_kb) ||
	    sys_read_key("/proc/self/status", "VmRSS", &rss_kb) || locked_kb * 10 < rss_kb * 9)
		return 4;
	/* Either it worked or it is reported. */
	if (sys_read_text("/proc/self/oom_score_adj", score, sizeof(score)) < 0 ||
	    !strcmp(score, "-1000") == (refused.oom_score[0] != '\0'))
		return 5;
	if ((prctl(58 /* PR_GET_IO_FLUSHER */, 0, 0, 0, 0) == 1) == (refused.io_flusher[0] != '\0'))
		return 6;
	return 0;
}

/* What a daemon allocates while it serves. */
static int allocate_locked(void)
{
	static void *blocks[1000];
	struct lockmem_refused refused;
	struct rusage before, after;
	void *end;
	struct err err;
	unsigned i;

	lockmem_prepare(&refused);
	if (lockmem_lock(&err))
		return geteuid() ? SKIP : 1;
	end = sbrk(0);
	getrusage(RUSAGE_SELF, &before);
	for (i = 0; i < 1000; i++) {
		blocks[i] = calloc(1, 2048);
		if (!blocks[i])
			return 2;
	}
	getrusage(RUSAGE_SELF, &after);
	if (sbrk(0) != end)
		return 3;
	return after.ru_minflt - before.ru_minflt > 2 ? 4 : 0;
}

static int lock_unprivileged(void)
{
	const struct rlimit little = {65536, 65536};
	struct err err = {0};

	setrlimit(RLIMIT_MEMLOCK, &little);
	if (geteuid() == 0 && (setgroups(0, NULL) || setgid(65534) || setuid(65534)))
		return 1;
	if (lockmem_lock(&err) != -ENOMEM || err.code != -ENOMEM)
		return 2;
	return strstr(err.text, "64.0 KiB") && strstr(err.text, "LimitMEMLOCK") ? 0 : 3;
}

START_TEST(locks)
{
	int code = in_child(lock_all);

	ck_assert_msg(code == 0 || code == SKIP, "step %d", code);
}
END_TEST

START_TEST(allocates)
{
	int code = in_child(allocate_locked);

	ck_assert_msg(code == 0 || code == SKIP, "step %d", code);
}
END_TEST

START_TEST(refused)
{
	ck_assert_int_eq(in_child(lock_unprivileged), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("lockmem");
	TCase *tc = tcase_create("lockmem");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tc);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	printf("skipped: the sanitizers turn mlockall off\n");
	srunner_free(runner);
	return SKIP;
#endif
	tcase_add_test(tc, locks);
	tcase_add_test(tc, allocates);
	tcase_add_test(tc, refused);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
