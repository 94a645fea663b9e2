/* SPDX-License-Identifier: Apache-2.0
 *
 * Real loop devices and real swap, on plain files in /var/tmp instead of a mount, with a control
 * socket that only takes notes: the order of things, and that every failure leaves nothing behind.
 *
 * Needs root, loop devices, and direct I/O in /var/tmp; else it is skipped (exit code 77).
 */
#include "mount/attach.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <unistd.h>

#include "mount/busy.h"
#include "mount/control.h"
#include "mount/loopdev.h"
#include "mount/swapdev.h"
#include "tests/lib/rig.h"

enum { SIZE = 4 << 20, SKIPPED = 77 };

static char prefix[32]; /* of the directories of this run */
static char dir[64], run_dir[MOUNT_RUN_DIR_MAX], file[128], path[256];
static struct runstate state;
static struct attach attach;
static volatile int interrupted;
static struct err err;

/* The daemon's part. */
static struct loop *loop;
static struct control *control;
static pthread_t thread;
static char notes[256];
static const char *unpinnable;

static size_t no_status(void *ctx, char *buf, size_t room)
{
	return 0;
}

/* The name of the file in dir with this inode number, or "". */
static void name_of(uint64_t id, char name[256])
{
	DIR *in = opendir(dir);
	struct dirent *ent;

	name[0] = '\0';
	while ((ent = readdir(in)))
		if (ent->d_ino == id)
			snprintf(name, 256, "%s", ent->d_name);
	closedir(in);
}

static int note_pin(void *ctx, uint64_t id, bool on, struct err *ret_err)
{
	char name[256];
	char note = on ? '+' : '-';
	size_t len = strlen(notes);
	int n;

	name_of(id, name);
	if (on && unpinnable && !strcmp(name, unpinnable))
		return err_set(ret_err, -EBUSY, "%s is in use elsewhere", name);
	/* What is pinned can't be removed, so that must come after the unpinning. */
	if (!name[0])
		note = '!';
	n = snprintf(notes + len, sizeof(notes) - len, "%c%s ", note, name);
	ck_assert_int_lt(n, (int)(sizeof(notes) - len));
	return 0;
}

static void no_forget(void *ctx)
{
}

static const struct control_ops ops = {
    .status = no_status,
    .pin = note_pin,
    .forget_donor = no_forget,
};

static void *serve_thread(void *ctx)
{
	loop_run(loop);
	return NULL;
}

static void setup(void)
{
	const struct loop_conf conf = {0};
	int lock;

	snprintf(dir, sizeof(dir), "%sXXXXXX", prefix);
	ck_assert_ptr_nonnull(mkdtemp(dir));
	runstate_set_base(dir);
	runstate_dir("/m", run_dir);
	ck_assert_int_eq(runstate_lock(run_dir, true, 0, &lock, &err), 0);
	runstate_unlock(lock);
	memset(&state, 0, sizeof(state));
	strcpy(state.dir, dir);
	attach = (struct attach){run_dir, &state, &interrupted};
	notes[0] = '\0';
	unpinnable = NULL;
	interrupted = 0;
	ck_assert_int_eq(loop_create(&conf, &loop, &err), 0);
	snprintf(path, sizeof(path), "%s/control", run_dir);
	ck_assert_int_eq(control_create(loop, path, &ops, NULL, &control, &err), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, serve_thread, NULL), 0);
}

static bool free_each(void *ctx, const struct loopdev *each)
{
	if (!strncmp(each->file, prefix, strlen(prefix))) {
		struct err ignored;
		swapoff(each->path);
		loopdev_detach(each->path, 5000, &ignored);
		++*(unsigned *)ctx;
	}
	return true;
}

/* In the process that runs the tests: what a test that failed could not clean up. */
static void clean_up(void)
{
	char pattern[64];
	unsigned left = 0;
	glob_t found;
	size_t i;

	loopdev_each(free_each, &left);
	snprintf(pattern, sizeof(pattern), "%s*", prefix);
	if (glob(pattern, 0, NULL, &found))
		return;
	for (i = 0; i < found.gl_pathc; i++)
		rig_tmpdir_remove(found.gl_pathv[i]);
	globfree(&found);
}

static void teardown(void)
{
	unsigned left = 0;

	loopdev_each(free_each, &left);
	loop_stop(loop);
	pthread_join(thread, NULL);
	control_destroy(control);
	loop_destroy(loop);
	rig_tmpdir_remove(dir);
	ck_assert_msg(left == 0, "%u loop devices were left", left);
}

static struct runstate_device *want(const char *region, bool swap)
{
	struct runstate_device *dev = &state.devices[state.device_count++];

	strcpy(dev->region, region);
	dev->swap = swap;
	dev->prio = MOUNT_PRIO_NONE;
	return dev;
}

static void make_file(const char *region, off_t size)
{
	int fd;

	snprintf(file, sizeof(file), "%s/%s", dir, region);
	fd = open(file, O_RDWR | O_CREAT, 0600);
	ck_assert_int_eq(ftruncate(fd, size), 0);
	close(fd);
}

static void put_data(const char *region, const char *data, off_t off)
{
	int fd;

	snprintf(file, sizeof(file), "%s/%s", dir, region);
	fd = open(file, O_RDWR);
	ck_assert_int_eq(pwrite(fd, data, strlen(data), off), strlen(data));
	close(fd);
}

static bool there(const char *region)
{
	snprintf(file, sizeof(file), "%s/%s", dir, region);
	return access(file, F_OK) == 0;
}

static bool linked(const char *region)
{
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", run_dir, region);
	return lstat(path, &st) == 0;
}

static void refused(uint64_t size, int code, const char *why)
{
	int res = attach_all(&attach, size, &err);

	ck_assert_int_eq(res, code);
	ck_assert_msg(strstr(err.text, why), "\"%s\" lacks \"%s\"", err.text, why);
}

START_TEST(swap_on_and_off)
{
	struct runstate_device *dev = want("swap0", true);
	struct runstate stored;
	struct swapdev swap;
	struct loopdev info;
	struct stat st;
	char target[64] = "", label[16] = "";
	int fd;

	dev->prio = 7;
	dev->discard = true;
	ck_assert_msg(attach_all(&attach, SIZE, &err) == 0, "%s", err.text);
	ck_assert_int_eq(swapdev_find(dev->device, &swap, NULL), 0);
	ck_assert_int_eq(swap.prio, 7);
	ck_assert_int_eq(loopdev_inspect(dev->device, &info), 0);
	ck_assert(info.direct_io && !info.read_only);
	ck_assert_uint_eq(info.block_size, 4096);
	ck_assert_uint_eq(info.size, SIZE);
	ck_assert(there("swap0"));
	ck_assert_str_eq(info.file, file);
	ck_assert_int_eq(stat(file, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert_int_ge(st.st_blocks * 512, SIZE); /* reserved */
	ck_assert(linked("swap0"));
	ck_assert_int_gt(readlink(path, target, sizeof(target) - 1), 0);
	ck_assert_str_eq(target, dev->device);
	ck_assert_int_eq(runstate_load(run_dir, &stored, &err), 0);
	ck_assert_str_eq(stored.devices[0].device, dev->device);
	ck_assert_str_eq(notes, "+swap0 ");
	ck_assert_int_eq(detach_check(&state, &err), 0);

	ck_assert_int_eq(detach_all(&attach, &err), 0);
	ck_assert_str_eq(dev->device, "");
	ck_assert(!linked("swap0"));
	ck_assert_str_eq(notes, "+swap0 -swap0 ");
	ck_assert_int_eq(runstate_load(run_dir, &stored, &err), 0);
	ck_assert_str_eq(stored.devices[0].device, "");

	/* It carries mkswap's header and our label; as it is, it can be used again. */
	fd = open(file, O_RDONLY);
	ck_assert_int_eq(pread(fd, label, sizeof(label), 1024 + 28), sizeof(label));
	close(fd);
	ck_assert_str_eq(label, "remram");
	ck_assert_int_eq(attach_all(&attach, 0, &err), 0);
	ck_assert_int_eq(detach_all(&attach, &err), 0);
	ck_assert_int_eq(attach_all(&attach, SIZE, &err), 0);
	ck_assert_int_eq(detach_all(&attach, &err), 0);
}
END_TEST

START_TEST(loops)
{
	make_file("a", 100 * 4096);
	make_file("b", 4096);
	want("a", false);
	want("b", false)->read_only = true;
	ck_assert_msg(attach_all(&attach, 0, &err) == 0, "%s", err.text);
	ck_assert_str_eq(notes, "+a +b ");
	ck_assert(linked("a") && linked("b"));
	ck_assert_int_eq(detach_all(&attach, &err), 0);
	ck_assert_str_eq(notes, "+a +b -b -a ");
}
END_TEST

/* Nothing is formatted that holds anything, nothing is left of what was refused. */
START_TEST(refusals)
{
	struct runstate_device *dev = want("swap0", true);

	refused(0, -ENOENT, "there is no such region: give size=SIZE");
	ck_assert(!there("swap0"));

	make_file("swap0", SIZE);
	refused(2 * SIZE, -EEXIST, "has 4.0 MiB, not the 8.0 MiB of size=");
	put_data("swap0", "x", SIZE - 1);
	refused(0, -EEXIST, "holds data that is not swap");
	make_file("swap0", 4096);
	refused(0, -EINVAL, "too little for swap");
	unlink(file);
	ck_assert_int_eq(mkdir(file, 0700), 0);
	ck_assert_int_lt(attach_all(&attach, SIZE, &err), 0);
	rmdir(file);

	/* More than there can be on any disk. */
	ck_assert_int_lt(attach_all(&attach, UINT64_C(1) << 60, &err), 0);
	ck_assert(!there("swap0"));

	unpinnable = "swap0";
	notes[0] = '\0';
	refused(SIZE, -EREMOTEIO, "swap0 is in use elsewhere");
	ck_assert(!there("swap0")); /* it was made for this */
	ck_assert_msg(notes[0] == '-', "%s", notes);
	make_file("swap0", SIZE);
	refused(0, -EREMOTEIO, "swap0 is in use elsewhere");
	ck_assert(there("swap0"));
	ck_assert(!linked("swap0"));
	ck_assert_str_eq(dev->device, "");
}
END_TEST

START_TEST(undoing)
{
	make_file("a", SIZE);
	want("a", false);
	want("nosuch", false);
	refused(0, -ENOENT, "nosuch: there is no such region");
	ck_assert_str_eq(state.devices[0].device, "");
	ck_assert(!linked("a"));

	/* Interrupted: what is attached already goes, although the signal still stands. */
	strcpy(state.devices[1].region, "b");
	interrupted = 2;
	refused(0, -EINTR, "interrupted");
	ck_assert(!linked("a"));
	interrupted = 0;
	state.devices[1].swap = true;
	make_file("b", 4096);
	refused(0, -EINVAL, "too little for swap");
	ck_assert_str_eq(state.devices[0].device, "");
}
END_TEST

/* As after a failed umount: nothing may be formatted. */
START_TEST(again)
{
	struct runstate_device *dev = want("swap0", true);
	uint8_t before[16], after[16];
	struct swapdev swap;
	int fd;

	dev->prio = 3;
	ck_assert_int_eq(attach_all(&attach, SIZE, &err), 0);
	ck_assert_int_eq(detach_all(&attach, &err), 0);
	ck_assert(there("swap0"));
	fd = open(file, O_RDONLY);
	ck_assert_int_eq(pread(fd, before, 16, 1024 + 12), 16); /* the UUID */
	ck_assert_int_eq(attach_again(&attach, &err), 0);
	ck_assert_int_eq(pread(fd, after, 16, 1024 + 12), 16);
	close(fd);
	ck_assert_mem_eq(before, after, 16);
	ck_assert_int_eq(swapdev_find(dev->device, &swap, NULL), 0);
	ck_assert_int_eq(swap.prio, 3);
	ck_assert_int_eq(attach_again(&attach, &err), 0); /* all there: nothing to do */
	/* An umount that got no further than swapoff. */
	ck_assert_int_eq(swapdev_off(dev->device, NULL, &err), 0);
	ck_assert_int_eq(attach_again(&attach, &err), 0);
	ck_assert_int_eq(swapdev_find(dev->device, &swap, NULL), 0);
	ck_assert_int_eq(swap.prio, 3);
	ck_assert_int_eq(detach_all(&attach, &err), 0);
}
END_TEST

/* A command that was killed between attaching and writing it down. */
START_TEST(unrecorded)
{
	struct runstate_device *dev = want("a", false);
	char other[LOOPDEV_PATH_MAX];
	struct loopdev info;

	make_file("a0", SIZE); /* a name that begins alike */
	make_file("a", SIZE);
	ck_assert_int_eq(attach_all(&attach, 0, &err), 0);
	strcpy(other, dev->device);
	dev->device[0] = '\0';
	ck_assert_int_eq(detach_all(&attach, &err), 0);
	ck_assert_int_eq(loopdev_inspect(other, &info), -ENXIO);

	/* The recorded device is somebody else's by now: hands off. */
	int fd;
	there("a0");
	fd = open(file, O_RDWR);
	ck_assert_int_eq(loopdev_attach(fd, file, false, other, &err), 0);
	close(fd);
	strcpy(dev->device, other);
	ck_assert_int_eq(detach_all(&attach, &err), 0);
	ck_assert_int_eq(loopdev_inspect(other, &info), 0);
	ck_assert_int_eq(loopdev_detach(other, 1000, &err), 0);
}
END_TEST

START_TEST(in_use)
{
	struct runstate_device *dev = want("a", false);
	char text[BUSY_TEXT_MAX];

	make_file("a", SIZE);
	ck_assert_int_eq(attach_all(&attach, 0, &err), 0);
	ck_assert(!busy_device(dev->device, true, text));
	/* Somebody switches it on by hand. */
	ck_assert_int_eq(swapdev_format(dev->device, "hand", &err), 0);
	ck_assert_int_eq(swapdev_on(dev->device, MOUNT_PRIO_NONE, false, &err), 0);
	ck_assert_int_eq(detach_check(&state, &err), -EBUSY);
	ck_assert(strstr(err.text, "(region a) is in use: it is swap"));
	ck_assert_int_eq(swapdev_off(dev->device, &interrupted, &err), 0);
	ck_assert_int_eq(detach_check(&state, &err), 0);
	ck_assert_int_eq(detach_all(&attach, &err), 0);
}
END_TEST

START_TEST(held_open)
{
	char device[LOOPDEV_PATH_MAX];
	struct loopdev info;
	int fd, holder;

	make_file("a", SIZE);
	fd = open(file, O_RDWR);
	ck_assert_int_eq(loopdev_attach(fd, file, false, device, &err), 0);
	close(fd);
	holder = open(device, O_RDONLY);
	ck_assert_int_eq(loopdev_detach(device, 100, &err), -EBUSY);
	ck_assert(strstr(err.text, "still in use"));
	close(holder); /* the kernel detaches it now */
	ck_assert_int_eq(loopdev_detach(device, 1000, &err), 0);
	ck_assert_int_eq(loopdev_inspect(device, &info), -ENXIO);
	ck_assert_int_eq(loopdev_inspect("/dev/sda", &info), -ENOENT);
	ck_assert_int_eq(loopdev_inspect("/dev/loop999999", &info), -ENOENT);
	ck_assert_int_lt(loopdev_detach("/dev/loop999999", 0, &err), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("attach");
	TCase *tc = tcase_create("attach");
	SRunner *runner = srunner_create(suite);
	bool direct_io = false;
	int failed;

	suite_add_tcase(suite, tc);
	if (geteuid() || loopdev_probe("/var/tmp", &direct_io, &err) || !direct_io) {
		printf("skipped: needs root, loop devices, and direct I/O in /var/tmp\n");
		srunner_free(runner);
		return SKIPPED;
	}
	snprintf(prefix, sizeof(prefix), "/var/tmp/ra-%d-", (int)getpid());
	tcase_add_unchecked_fixture(tc, NULL, clean_up);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, swap_on_and_off);
	tcase_add_test(tc, loops);
	tcase_add_test(tc, refusals);
	tcase_add_test(tc, undoing);
	tcase_add_test(tc, again);
	tcase_add_test(tc, unrecorded);
	tcase_add_test(tc, in_use);
	tcase_add_test(tc, held_open);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
