/* SPDX-License-Identifier: Apache-2.0
 *
 * `remram rescue`: what it says and does for people, each call in a process of its own.  What the rescue store
 * itself does is tests/unit/rescue.c.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cache_data.h"
#include "core/crc32c.h"
#include "core/rescue.h"
#include "mount/cmd.h"
#include "mount/json.h"
#include "mount/serve.h"
#include "tests/lib/rig.h"

enum { ID = 9, ARGS_MAX = 8, SAID_MAX = 8192, SIZE = 4 * INDEX_CHUNK - 100 };

static char dir[RIG_PATH_MAX], path[RIG_PATH_MAX + 16], out[RIG_PATH_MAX + 16];
static char said[SAID_MAX], complained[SAID_MAX];
static struct rig rig;
static struct cache_dir *cd;
static struct err err;
static uint8_t data[4 * INDEX_CHUNK];
static char key[INDEX_KEY_MAX];

/* Chunk 1: two dirty blocks between clean ones.  Chunk 3: its last block, which the region's end cuts. */
static void keep(const char *name)
{
	struct index_region region = {.id = ID, .size = SIZE, .version = 77};
	struct index_row rows[2] = {
	    {.chunk = {.idx = 1, .resident = 0xff, .dirty = 0x0c}},
	    {.chunk = {.idx = 3, .resident = (uint64_t)1 << 63, .dirty = (uint64_t)1 << 63}},
	};
	struct rig_random random;
	int fd;

	rig_random_init(&random, name);
	snprintf(region.name, sizeof(region.name), "%s", name);
	snprintf(region.why, sizeof(region.why), "the lease was lost to \033[2Jhost");
	ck_assert_int_eq(cache_dir_data_open(cd, ID, true, &fd, &err), 0);
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned b = 0; b < INDEX_CHUNK_BLOCKS; b++) {
			size_t off =
			    (size_t)rows[i].chunk.idx * INDEX_CHUNK + (size_t)b * STORE_BLOCK;

			if (!(rows[i].chunk.resident >> b & 1))
				continue;
			rig_random_fill(&random, data + off, STORE_BLOCK);
			rows[i].sums[b] = crc32c(0, data + off, STORE_BLOCK);
			ck_assert_int_eq(
			    pwrite(fd, data + off, STORE_BLOCK, (off_t)off), STORE_BLOCK);
		}
	}
	close(fd);
	ck_assert_int_eq(rescue_key(cd, ID, region.aside, &err), 0);
	ck_assert_int_eq(rescue_keep(cd, &region, rows, 2, false, &err), 0);
	memcpy(key, region.aside, sizeof(key));
}

static void setup(void)
{
	setenv("LC_ALL", "C.UTF-8", 1);
	rig_tmpdir(NULL, dir);
	snprintf(path, sizeof(path), "%s/cache", dir);
	snprintf(out, sizeof(out), "%s/out", dir);
	rig_start(&rig, 1, 1);
	ck_assert_int_eq(cache_dir_open(path, "/mnt", rig.workers, &cd, &err), 0);
	memset(data, 0, sizeof(data));
}

static void teardown(void)
{
	cache_dir_close(cd);
	rig_stop(&rig);
	rig_tmpdir_remove(dir);
}

static void slurp(const char *name, char *buf)
{
	FILE *in = fopen(name, "r");
	size_t n = fread(buf, 1, SAID_MAX - 1, in);

	buf[n] = '\0';
	fclose(in);
	unlink(name);
}

/* The exit code of `remram rescue ARGS…`; what it prints is in said and complained. */
#define rescue(...) rescue_argv((const char *const[]){__VA_ARGS__, NULL})

static int rescue_argv(const char *const *args)
{
	char one[RIG_PATH_MAX + 16], two[RIG_PATH_MAX + 16];
	char *argv[ARGS_MAX + 2] = {(char *)"rescue"};
	int argc = 1, status;
	pid_t pid;

	for (; *args; args++)
		argv[argc++] = (char *)*args;
	snprintf(one, sizeof(one), "%s/stdout", dir);
	snprintf(two, sizeof(two), "%s/stderr", dir);
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		if (!freopen(one, "w", stdout) || !freopen(two, "w", stderr))
			_exit(99);
		status = cmd_rescue(argc, argv);
		fflush(NULL);
		_exit(status);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	slurp(one, said);
	slurp(two, complained);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void has(const char *text, const char *part)
{
	ck_assert_msg(strstr(text, part), "\"%s\" is not in:\n%s", part, text);
}

/* The file has the dirty blocks, and `rest` everywhere else. */
static void expect_file(const char *name, int rest)
{
	static uint8_t seen[SIZE], want[SIZE];
	int fd = open(name, O_RDONLY);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(read(fd, seen, SIZE), SIZE);
	close(fd);
	memset(want, rest, SIZE);
	memcpy(want + INDEX_CHUNK + 2 * STORE_BLOCK, data + INDEX_CHUNK + 2 * STORE_BLOCK,
	    2 * STORE_BLOCK);
	memcpy(want + (4 * INDEX_CHUNK - STORE_BLOCK), data + (4 * INDEX_CHUNK - STORE_BLOCK),
	    STORE_BLOCK - 100);
	ck_assert_int_eq(memcmp(seen, want, SIZE), 0);
}

/* A file of a region's size, all ones. */
static void make_target(void)
{
	static uint8_t ones[SIZE];
	int fd = open(out, O_WRONLY | O_CREAT | O_EXCL, 0600);

	memset(ones, 0xff, SIZE);
	ck_assert_int_eq(write(fd, ones, SIZE), SIZE);
	close(fd);
}

static void damage(void)
{
	char name[RIG_PATH_MAX + 2 * INDEX_KEY_MAX];
	int fd;

	snprintf(name, sizeof(name), "%s/aside/%s/data", path, key);
	fd = open(name, O_WRONLY);
	ck_assert_int_ge(fd, 0);
	data[INDEX_CHUNK + 2 * STORE_BLOCK] ^= 1;
	ck_assert_int_eq(
	    pwrite(fd, data + INDEX_CHUNK + 2 * STORE_BLOCK, 1, INDEX_CHUNK + 2 * STORE_BLOCK), 1);
	close(fd);
}

static unsigned files_in_cache(void)
{
	char command[RIG_PATH_MAX + 64];
	unsigned count = 0;
	FILE *in;

	snprintf(command, sizeof(command), "ls -A %s | wc -l", path);
	in = popen(command, "r");
	ck_assert_int_eq(fscanf(in, "%u", &count), 1);
	pclose(in);
	return count;
}

START_TEST(listing)
{
	struct json *doc;

	ck_assert_int_eq(rescue(path), 0);
	ck_assert_str_eq(said, "nothing is kept aside\n");
	ck_assert_int_eq(rescue("list", "--json", path), 0);
	ck_assert_str_eq(said, "[]\n");
	keep("work");
	keep("ev\033il \"name\"");
	ck_assert_int_eq(rescue("list", path), 0);
	has(said, key);
	has(said, "  work  11.9 KiB dirty in 2 ranges, of 1023.9 KiB\n");
	has(said, "  ev?il \"name\"  ");
	has(said, "    the lease was lost to ?[2Jhost\n");
	ck_assert_int_eq(rescue(path, "-j"), 0);
	ck_assert_int_eq(json_parse(said, strlen(said), &doc, &err), 0);
	ck_assert_str_eq(json_string(json_find(json_first(doc), "name"), ""), "work");
	ck_assert_str_eq(
	    json_string(json_find(json_next(json_first(doc)), "name"), ""), "ev\033il \"name\"");
	ck_assert_int_eq(
	    (int)json_number(json_find(json_first(doc), "dirty_bytes"), 0), 3 * STORE_BLOCK - 100);
	json_destroy(doc);
}
END_TEST

START_TEST(writing)
{
	keep("work");
	ck_assert_int_eq(rescue("write", path, key, out), 0);
	has(said, "11.9 KiB of work at their places");
	expect_file(out, 0);
	/* It never overwrites. */
	ck_assert_int_eq(rescue("write", path, key, out), MOUNT_EX_FAIL);
	has(complained, "remram: ");
	unlink(out);
	damage();
	ck_assert_int_eq(rescue("write", path, key, out), MOUNT_EX_FAIL);
	has(complained, "1 block does not fit its checksum");
	ck_assert_int_eq(access(out, F_OK), -1);
	ck_assert_int_eq(rescue("write", "--force", path, key, out), 0);
	has(said, "; 1 block does not fit its checksum\n");
	expect_file(out, 0);
	ck_assert_str_eq(complained, "");
}
END_TEST

START_TEST(pushing)
{
	unsigned files;

	keep("work");
	files = files_in_cache();
	ck_assert_int_eq(rescue("push", path, key, out), MOUNT_EX_FAIL);
	has(complained, "No such file");
	make_target();
	ck_assert_int_eq(rescue("push", path, key, out), 0);
	has(said, "11.9 KiB pushed");
	expect_file(out, 0xff);
	/* It is still there, and nothing else is. */
	ck_assert_int_eq(rescue(path), 0);
	has(said, key);
	ck_assert_uint_eq(files_in_cache(), files);

	unlink(out);
	make_target();
	damage();
	ck_assert_int_eq(rescue("push", path, key, out), MOUNT_EX_FAIL);
	has(complained, "nothing was pushed");
	ck_assert_uint_eq(files_in_cache(), files);
	ck_assert_int_eq(rescue("push", "-f", path, key, out), 0);
	expect_file(out, 0xff);
	/* A directory, a device. */
	ck_assert_int_eq(rescue("push", path, key, dir), MOUNT_EX_FAIL);
	ck_assert_int_eq(rescue("push", path, key, "/dev/null"), MOUNT_EX_FAIL);
	has(complained, "not a region");
}
END_TEST

START_TEST(dropping)
{
	keep("work");
	ck_assert_int_eq(rescue("drop", path, key), MOUNT_EX_FAIL);
	has(complained, "--force drops it for ever");
	ck_assert_int_eq(rescue("drop", "--force", path, key), 0);
	ck_assert_int_eq(rescue(path), 0);
	ck_assert_str_eq(said, "nothing is kept aside\n");
	ck_assert_int_eq(rescue("drop", "--force", path, key), MOUNT_EX_FAIL);
	has(complained, "nothing is kept aside under");
}
END_TEST

START_TEST(wrong_calls)
{
	static const char *const calls[][5] = {{NULL}, {"list", NULL}, {"write", "a", "b", NULL},
	    {"push", "a", NULL}, {"drop", "a", "b", "c", NULL}, {"a", "b", NULL},
	    {"--jason", NULL}};

	for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		ck_assert_int_eq(
		    rescue(calls[i][0], calls[i][1], calls[i][2], calls[i][3]), MOUNT_EX_USAGE);
		ck_assert_str_eq(said, "");
		ck_assert_str_ne(complained, "");
	}
	ck_assert_int_eq(rescue("--help"), 0);
	has(said, "usage: remram rescue");
	ck_assert_int_eq(rescue("--json", dir), MOUNT_EX_FAIL);
	ck_assert_str_eq(said, "");
	has(complained, dir);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cmd_rescue");
	TCase *tc = tcase_create("all");
	SRunner *runner;
	int failed;

	tcase_add_unchecked_fixture(tc, rig_tmpdirs_begin, rig_tmpdirs_end);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, listing);
	tcase_add_test(tc, writing);
	tcase_add_test(tc, pushing);
	tcase_add_test(tc, dropping);
	tcase_add_test(tc, wrong_calls);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
