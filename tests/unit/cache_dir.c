/* SPDX-License-Identifier: Apache-2.0
 *
 * A cache directory: who may have it, what it refuses, and that two processes never have it at once.
 */
#include "core/cache_dir.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/rig.h"

static char dir[RIG_PATH_MAX], path[RIG_PATH_MAX + 16];
static struct rig rig;
static struct err err;
static const uint8_t pool[CACHE_ID_LEN] = "fifteen letters", other[CACHE_ID_LEN] = "another one";

static void setup(void)
{
	rig_tmpdir(NULL, dir);
	snprintf(path, sizeof(path), "%s/cache", dir);
	rig_start(&rig, 1, 2);
}

static void teardown(void)
{
	rig_stop(&rig);
	rig_tmpdir_remove(dir);
}

/* For tests that fork processes with threads: threads of our own come after that. */
static void setup_alone(void)
{
	rig_tmpdir(NULL, dir);
	snprintf(path, sizeof(path), "%s/cache", dir);
}

static void teardown_alone(void)
{
	rig_tmpdir_remove(dir);
}

static struct cache_dir *open_ok(const char *mount)
{
	struct cache_dir *cd = NULL;

	ck_assert_msg(cache_dir_open(path, mount, rig.workers, &cd, &err) == 0, "%s", err.text);
	return cd;
}

static void open_fails(int code, const char *why)
{
	struct cache_dir *cd = NULL;

	err = (struct err){0};
	ck_assert_msg(cache_dir_open(path, "/mnt/b", rig.workers, &cd, &err) == code, "%d: %s",
	    err.code, err.text);
	ck_assert_ptr_null(cd);
	ck_assert_msg(strstr(err.text, why), "%s", err.text);
	ck_assert_msg(
	    strstr(err.text, "cache=") == err.text || strstr(err.text, "file:"), "%s", err.text);
}

static unsigned mode_of(const char *name)
{
	char file[RIG_PATH_MAX + 64];
	struct stat st;

	snprintf(file, sizeof(file), "%s/%s", path, name);
	ck_assert_msg(stat(file, &st) == 0, "%s: %s", file, strerror(errno));
	return st.st_mode & 07777;
}

static void write_file(const char *name, const char *text)
{
	char file[RIG_PATH_MAX + 64];
	FILE *f;

	snprintf(file, sizeof(file), "%s/%s", path, name);
	f = fopen(file, "w");
	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
}

static void read_file(const char *name, char *buf, size_t room)
{
	char file[RIG_PATH_MAX + 64];
	size_t n;
	FILE *f;

	snprintf(file, sizeof(file), "%s/%s", path, name);
	f = fopen(file, "r");
	ck_assert_ptr_nonnull(f);
	n = fread(buf, 1, room - 1, f);
	buf[n] = '\0';
	fclose(f);
}

/* ---- opening and claiming ---- */

START_TEST(creation)
{
	uint8_t first[CACHE_ID_LEN], again[CACHE_ID_LEN], zeros[CACHE_ID_LEN] = {0};
	struct cache_dir *cd;

	umask(0);
	cd = open_ok("/mnt/a");
	cache_dir_identity(cd, first);
	ck_assert_int_ne(memcmp(first, zeros, CACHE_ID_LEN), 0);
	ck_assert_uint_eq(mode_of("."), 0700);
	ck_assert_uint_eq(mode_of("lock"), 0600);
	ck_assert_uint_eq(mode_of("remram-cache"), 0600);
	ck_assert_uint_eq(mode_of("data"), 0700);
	ck_assert_uint_eq(mode_of("aside"), 0700);
	ck_assert_str_eq(cache_dir_source(cd), "");
	cache_dir_close(cd);
	cd = open_ok("/mnt/a");
	cache_dir_identity(cd, again);
	ck_assert_int_eq(memcmp(first, again, CACHE_ID_LEN), 0);
	cache_dir_close(cd);
	cache_dir_close(NULL);
}
END_TEST

START_TEST(claims)
{
	struct cache_dir *cd = open_ok("/mnt/a");
	uint8_t before[CACHE_ID_LEN], after[CACHE_ID_LEN];
	char stamp[1000], later[1000];

	cache_dir_identity(cd, before);
	ck_assert_int_eq(cache_dir_claim(cd, "donor:/ram", pool, &err), 0);
	ck_assert_int_eq(cache_dir_claim(cd, "donor:/ram", pool, &err), 0);
	read_file("remram-cache", stamp, sizeof(stamp));
	/* Another pool, now and after opening again. */
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_int_eq(cache_dir_claim(cd, "donor:/scratch", other, &err), -EEXIST);
		ck_assert_msg(
		    strstr(err.text, "belongs to another pool, donor:/ram"), "%s", err.text);
		ck_assert_int_eq(cache_dir_claim(cd, "donor:/ram", other, &err), -EEXIST);
		ck_assert_msg(
		    strstr(err.text, "the donor has a new pool of that name now"), "%s", err.text);
		ck_assert_str_eq(cache_dir_source(cd), "donor:/ram");
		read_file("remram-cache", later, sizeof(later));
		ck_assert_str_eq(stamp, later);
		cache_dir_close(cd);
		cd = open_ok("/mnt/a");
	}
	/* The same pool by another name. */
	ck_assert_int_eq(cache_dir_claim(cd, "10.0.0.1:/ram", pool, &err), 0);
	cache_dir_close(cd);
	cd = open_ok("/mnt/a");
	ck_assert_str_eq(cache_dir_source(cd), "10.0.0.1:/ram");
	ck_assert_int_eq(cache_dir_claim(cd, "a\nb", pool, &err), -EINVAL);
	cache_dir_identity(cd, after);
	ck_assert_int_eq(memcmp(before, after, CACHE_ID_LEN), 0);
	cache_dir_close(cd);
}
END_TEST

START_TEST(creation_cut_off)
{
	/* Made, locked, and killed before the stamp was there; or while it was written. */
	ck_assert_int_eq(mkdir(path, 0700), 0);
	write_file("lock", "");
	cache_dir_close(open_ok("/mnt/a"));
	rig_tmpdir_remove(path);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	write_file("lock", "process 1 (mount /x)\n");
	write_file("remram-cache.new", "remram-ca");
	cache_dir_close(open_ok("/mnt/a"));
}
END_TEST

START_TEST(odd_names)
{
	struct cache_dir *cd;

	snprintf(path, sizeof(path), "%s/a%%20 ?b=#", dir);
	cd = open_ok("/mnt/a");
	ck_assert_uint_eq(mode_of("data/remram-pool"), 0600);
	cache_dir_close(cd);
}
END_TEST

START_TEST(stores)
{
	struct cache_dir *cd = open_ok("/mnt/a");
	struct store *store = NULL;
	uint8_t block[STORE_BLOCK], seen[STORE_BLOCK];
	char name[CACHE_DATA_NAME_MAX];
	int fd = -1, again = -1;

	ck_assert_int_eq(cache_dir_data_open(cd, 42, false, &fd, &err), -ENOENT);
	ck_assert_msg(strstr(err.text, "data/000000000000002a is missing"), "%s", err.text);
	ck_assert_int_eq(cache_dir_store(cd, 42, &store, &err), -ENOENT);
	ck_assert_int_eq(cache_dir_data_open(cd, 42, true, &fd, &err), 0);
	ck_assert_uint_eq(mode_of("data/000000000000002a"), 0600);
	ck_assert_int_eq(cache_dir_store(cd, 42, &store, &err), 0);
	/* The store and the descriptor are one file. */
	memset(block, 'x', sizeof(block));
	ck_assert_int_eq(rig_write(rig.loops[0], store, 3 * STORE_BLOCK, block, STORE_BLOCK, 0), 0);
	ck_assert_int_eq(pread(fd, seen, STORE_BLOCK, 3 * STORE_BLOCK), STORE_BLOCK);
	ck_assert_int_eq(memcmp(block, seen, STORE_BLOCK), 0);
	store_destroy(store);
	ck_assert_int_eq(cache_dir_data_open(cd, 42, true, &again, &err), 0);
	close(again);
	close(fd);
	cache_dir_data_name(42, name);
	ck_assert_str_eq(name, "000000000000002a");
	ck_assert_int_eq(cache_dir_data_remove(cd, 42, &err), 0);
	ck_assert_int_eq(cache_dir_data_remove(cd, 42, &err), 0);
	ck_assert_int_eq(cache_dir_data_open(cd, 42, false, &fd, &err), -ENOENT);
	cache_dir_close(cd);
}
END_TEST

/* ---- refusals ---- */

START_TEST(not_a_cache)
{
	ck_assert_int_eq(mkdir(path, 0700), 0);
	write_file("holiday.jpg", "precious");
	open_fails(-ENOTEMPTY, "holds files but is not a cache");
	ck_assert_int_eq(access(path, F_OK), 0);
	rig_tmpdir_remove(path);
	snprintf(path, sizeof(path), "%s/no/cache", dir);
	open_fails(-ENOENT, "cannot make the directory");
	snprintf(path, sizeof(path), "%s/file", dir);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	open_fails(-ENOTDIR, "cannot open the directory");
}
END_TEST

START_TEST(bad_stamps)
{
	static const char *const bad[] = {"", "remram-cache 1\n", "remram-cache 1\nidentity 00\n",
	    "remram-cache 1\nidentity 00112233445566778899aabbccddeeff\npool - \nen",
	    "remram-cache 1\nidentity 00112233445566778899aabbccddeeff\npool 12 x\nend\n",
	    "remram-cache 1\nidentity 00112233445566778899aabbccddeeff\npool - \nend\n\n",
	    "remram-cache 0\nidentity 00112233445566778899aabbccddeeff\npool - \nend\n", "x"};
	char stamp[1000];

	cache_dir_close(open_ok("/mnt/a"));
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		write_file("remram-cache", bad[i]);
		open_fails(-EUCLEAN, "its remram-cache is damaged");
		/* It is not written over. */
		read_file("remram-cache", stamp, sizeof(stamp));
		ck_assert_str_eq(stamp, bad[i]);
	}
	write_file("remram-cache", "remram-cache 2\nmore to come\n");
	open_fails(-EUCLEAN, "is from a newer version of remram (format 2, this one knows 1)");
	/* One that is right but not this directory's: data/ says so. */
	write_file("remram-cache",
	    "remram-cache 1\nidentity 00112233445566778899aabbccddeeff\npool - \nend\n");
	open_fails(-EEXIST, "belongs to another pool");
}
END_TEST

/* Not as root, whom permissions do not bind. */
static void without_permission(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		struct cache_dir *cd = NULL;

		if (geteuid() == 0 && setresuid(65534, 65534, 65534))
			_exit(2);
		err = (struct err){0};
		if (cache_dir_open(path, "/mnt/b", NULL, &cd, &err) != -EACCES)
			_exit(3);
		_exit(strstr(err.text, path) ? 0 : 4);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}

START_TEST(read_only)
{
	cache_dir_close(open_ok("/mnt/a"));
	without_permission();
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) {
		printf("read_only: skipped the mount: %s\n", strerror(errno));
		return;
	}
	ck_assert_int_eq(mount(path, path, NULL, MS_BIND, NULL), 0);
	ck_assert_int_eq(mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), 0);
	open_fails(-EROFS, "it is read-only for us");
	ck_assert_int_eq(umount(path), 0);
	cache_dir_close(open_ok("/mnt/a"));
}
END_TEST

START_TEST(full_disk)
{
	char junk[RIG_PATH_MAX + 16], stamp[1000], later[1000];
	static char bytes[4096];
	struct cache_dir *cd;
	int fd;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) {
		printf("full_disk: skipped: %s\n", strerror(errno));
		return;
	}
	ck_assert_int_eq(mount("none", dir, "tmpfs", 0, "size=1M"), 0);
	cd = open_ok("/mnt/a");
	read_file("remram-cache", stamp, sizeof(stamp));
	snprintf(junk, sizeof(junk), "%s/junk", dir);
	fd = open(junk, O_CREAT | O_WRONLY, 0600);
	while (write(fd, bytes, sizeof(bytes)) > 0)
		;
	ck_assert_int_eq(cache_dir_claim(cd, "donor:/ram", pool, &err), -ENOSPC);
	ck_assert_str_eq(cache_dir_source(cd), "");
	read_file("remram-cache", later, sizeof(later));
	ck_assert_str_eq(stamp, later);
	unlink(junk);
	close(fd);
	ck_assert_int_eq(cache_dir_claim(cd, "donor:/ram", pool, &err), 0);
	cache_dir_close(cd);
	umount(dir);
}
END_TEST

/* ---- two processes ---- */

START_TEST(the_holder_is_named)
{
	int ready[2], status;
	char byte, who[100];
	pid_t pid;

	ck_assert_int_eq(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		struct cache_dir *cd;
		struct workers *workers;

		if (workers_create(1, &workers, NULL) ||
		    cache_dir_open(path, "/mnt/first", workers, &cd, NULL))
			_exit(1);
		(void)!write(ready[1], "x", 1);
		pause();
	}
	ck_assert_int_eq(read(ready[0], &byte, 1), 1);
	rig_start(&rig, 1, 2);
	snprintf(who, sizeof(who), "is in use by process %ld (mount /mnt/first)", (long)pid);
	open_fails(-EBUSY, who);
	open_fails(-EBUSY, who);
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	cache_dir_close(open_ok("/mnt/second"));
	rig_stop(&rig);
}
END_TEST

START_TEST(twice_in_one_process)
{
	struct cache_dir *cd = open_ok("/mnt/a");

	open_fails(-EBUSY, "mount /mnt/a");
	open_fails(-EBUSY, "mount /mnt/a");
	cache_dir_close(cd);
	cache_dir_close(open_ok("/mnt/a"));
}
END_TEST

struct fight {
	_Atomic int inside;
	_Atomic unsigned held, refused, wrong;
	uint8_t identity[CACHE_ID_LEN];
	_Atomic bool identity_known;
};

/* Opens and closes, as fast as it can. */
static void fighter(struct fight *fight)
{
	struct workers *workers;

	if (workers_create(1, &workers, NULL))
		_exit(1);
	for (unsigned i = 0; i < 150; i++) {
		uint8_t identity[CACHE_ID_LEN];
		struct cache_dir *cd = NULL;
		int rc = cache_dir_open(path, "/mnt/x", workers, &cd, &err);

		if (rc == -EBUSY) {
			fight->refused++;
			sched_yield();
			continue;
		}
		if (rc) {
			fprintf(stderr, "%s\n", err.text);
			fight->wrong++;
			continue;
		}
		if (fight->inside++ != 0)
			fight->wrong++;
		cache_dir_identity(cd, identity);
		if (!fight->identity_known) {
			memcpy(fight->identity, identity, CACHE_ID_LEN);
			fight->identity_known = true;
		} else if (memcmp(fight->identity, identity, CACHE_ID_LEN) != 0) {
			fight->wrong++;
		}
		fight->held++;
		sched_yield();
		fight->inside--;
		cache_dir_close(cd);
	}
	_exit(0);
}

START_TEST(processes_fight)
{
	struct fight *fight =
	    mmap(NULL, sizeof(*fight), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	enum { FIGHTERS = 4 };

	ck_assert_ptr_ne(fight, MAP_FAILED);
	/* Over a directory that nobody has made yet. */
	for (unsigned i = 0; i < FIGHTERS; i++)
		if (fork() == 0)
			fighter(fight);
	for (unsigned i = 0; i < FIGHTERS; i++) {
		int status = 1;

		wait(&status);
		ck_assert_int_eq(status, 0);
	}
	printf("processes_fight: %u times held, %u refused\n", fight->held, fight->refused);
	ck_assert_uint_eq(fight->wrong, 0);
	ck_assert_uint_gt(fight->held, 0);
	munmap(fight, sizeof(*fight));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cache_dir");
	TCase *tcase = tcase_create("cache_dir");
	SRunner *runner;
	int failed;

	tcase_add_unchecked_fixture(tcase, rig_tmpdirs_begin, rig_tmpdirs_end);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, creation);
	tcase_add_test(tcase, claims);
	tcase_add_test(tcase, creation_cut_off);
	tcase_add_test(tcase, odd_names);
	tcase_add_test(tcase, stores);
	tcase_add_test(tcase, not_a_cache);
	tcase_add_test(tcase, bad_stamps);
	tcase_add_test(tcase, read_only);
	tcase_add_test(tcase, full_disk);
	tcase_add_test(tcase, twice_in_one_process);
	suite_add_tcase(suite, tcase);
	tcase = tcase_create("processes");
	tcase_add_unchecked_fixture(tcase, rig_tmpdirs_begin, rig_tmpdirs_end);
	tcase_add_checked_fixture(tcase, setup_alone, teardown_alone);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, the_holder_is_named);
	tcase_add_test(tcase, processes_fight);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
