/* SPDX-License-Identifier: Apache-2.0
 *
 * Regions on loop devices, and swap on one of them; see attach.h.
 *
 * A device goes
 *   wanted → pinned → on a loop device (recorded, linked) → [formatted →] swap on
 * and back the same way.  The wish is in mount.conf before the first step, so that umount can undo
 * whatever a command that was killed has left: a recorded region without a device may still have one,
 * which is found by the file it is on.
 *
 * The pin comes before the open that the loop device keeps: an open carries the pin that its region
 * has at that time (mount/control.h).
 */
#include "mount/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/store.h"
#include "core/uri.h"
#include "mount/busy.h"
#include "mount/control.h"
#include "mount/memroom.h"
#include "mount/swapdev.h"

enum {
	CONTROL_MS = 10000,
	DETACH_MS = 10000,
	FILE_MAX = PATH_MAX + POOL_NAME_MAX + 1,
};

#define SWAP_LABEL "remram"

static bool is_interrupted(const struct attach *attach)
{
	return attach->interrupted && *attach->interrupted;
}

static void region_file(
    const struct runstate *state, const struct runstate_device *dev, char file[FILE_MAX])
{
	snprintf(file, FILE_MAX, "%s/%s", state->dir, dev->region);
}

static int set_pin(
    const struct attach *attach, const struct runstate_device *dev, bool on, struct err *err)
{
	char path[MOUNT_RUN_DIR_MAX + 16], id[24];

	if (dev->id == 0)
		return 0;
	snprintf(path, sizeof(path), "%s/control", attach->run_dir);
	snprintf(id, sizeof(id), "%llu", (unsigned long long)dev->id);
	return control_command(path, on ? "pin" : "unpin", id, CONTROL_MS, err);
}

/* ---- the swap region --------------------------------------------------------------------------- */

static int no_room(const char *file, uint64_t size, int code, struct err *err)
{
	char want[SIZE_TEXT_MAX], avail[SIZE_TEXT_MAX];
	struct statvfs fs;

	if (code != -ENOSPC && code != -EDQUOT && code != -EFBIG)
		return err_sys(err, code, "%s: cannot reserve its space", file);
	if (statvfs(file, &fs))
		return err_sys(err, code, "%s: no room for %s", file, size_format(size, want));
	return err_set(err, code, "%s: no room for %s, the pool has %s left", file,
	    size_format(size, want), size_format(fs.f_bavail * (uint64_t)fs.f_frsize, avail));
}

/* Gives the region its size and all of its space. */
static int reserve(int fd, const char *file, uint64_t size, bool grow, struct err *err)
{
	if (grow && ftruncate(fd, (off_t)size))
		return no_room(file, size, -errno, err);
	while (fallocate(fd, 0, 0, (off_t)size)) {
		if (errno == EINTR)
			continue;
		if (errno == EOPNOTSUPP)
			break; /* a backend that cannot reserve */
		return no_room(file, size, -errno, err);
	}
	return 0;
}

/* A region that is there already: may it become swap of wanted bytes (0: as large as it is)? */
static int check_existing(
    int fd, const char *file, uint64_t wanted, uint64_t *ret_size, struct err *err)
{
	char has[SIZE_TEXT_MAX], want[SIZE_TEXT_MAX];
	enum swapdev_content content;
	struct stat st;
	int res;

	if (fstat(fd, &st))
		return err_sys(err, -errno, "%s", file);
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s is not a region", file);
	if (st.st_size == 0 && wanted) {
		*ret_size = wanted;
		return 0;
	}
	if (wanted && (uint64_t)st.st_size != wanted)
		return err_set(err, -EEXIST,
		    "%s has %s, not the %s of size=: leave size= out to use it as it is, or remove "
		    "it to have it made anew",
		    file, size_format((uint64_t)st.st_size, has), size_format(wanted, want));
	if (st.st_size < MOUNT_SWAP_MIN)
		return err_set(err, -EINVAL,
		    "%s has %s, which is too little for swap (at least %s)", file,
		    size_format((uint64_t)st.st_size, has), size_format(MOUNT_SWAP_MIN, want));
	res = swapdev_content(fd, (uint64_t)st.st_size, &content);
	if (res)
		return err_sys(err, res, "%s: cannot read it", file);
	if (content == SWAPDEV_OTHER)
		return err_set(err, -EEXIST,
		    "%s holds data that is not swap, and formatting would destroy it: choose "
		    "another name, or remove it if you do not need it",
		    file);
	*ret_size = (uint64_t)st.st_size;
	return 0;
}

/* open(2) of a region has failed. */
static int open_failed(const char *file, struct err *err)
{
	if (errno == EBUSY)
		return err_set(err, -EBUSY,
		    "%s: another client uses it as swap or on a loop device (or did until less than a "
		    "minute ago, if it died)",
		    file);
	return err_sys(err, -errno, "%s: cannot open it", file);
}

/* Sees to it that the swap region is there, with its space reserved.  *ret_made: it was not there
 * before. */
static int make_swap(const char *file, uint64_t wanted, bool *ret_made, struct err *err)
{
	uint64_t size = wanted;
	int res = 0, fd = open(file, O_RDWR | O_CLOEXEC);
	bool made = false;

	if (fd < 0 && errno == ENOENT && !wanted)
		return err_set(err, -ENOENT,
		    "%s: there is no such region: give size=SIZE to have it made", file);
	if (fd < 0 && errno == ENOENT) {
		fd = open(file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		made = fd >= 0;
	}
	if (fd < 0)
		return open_failed(file, err);
	if (!made)
		res = check_existing(fd, file, wanted, &size, err);
	if (res == 0)
		res = reserve(fd, file, size, size == wanted, err);
	close(fd);
	if (res && made)
		unlink(file);
	*ret_made = made && res == 0;
	return res;
}

/* ---- one device -------------------------------------------------------------------------------- */

/* From wanted to pinned: the daemon must know the region meanwhile.  Its inode number is its id. */
static int pin_region(
    const struct attach *attach, struct runstate_device *dev, const char *file, struct err *err)
{
	int fd = open(file, O_PATH | O_CLOEXEC);
	struct stat st;
	int res;

	if (fd < 0 && errno == ENOENT)
		return err_set(err, -ENOENT, "%s: there is no such region", file);
	if (fd < 0)
		return err_sys(err, -errno, "%s", file);
	if (fstat(fd, &st)) {
		res = err_sys(err, -errno, "%s", file);
	} else {
		dev->id = st.st_ino;
		res = set_pin(attach, dev, true, err);
	}
	close(fd);
	return res;
}

/* From pinned to recorded. */
static int put_on_loop(
    const struct attach *attach, struct runstate_device *dev, const char *file, struct err *err)
{
	int fd = open(file, (dev->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	int res;

	if (fd < 0)
		return open_failed(file, err);
	res = loopdev_attach(fd, file, dev->read_only, dev->device, err);
	close(fd);
	if (res) {
		dev->device[0] = '\0';
		return res;
	}
	res = runstate_save(attach->run_dir, attach->state, err);
	if (res == 0)
		res = runstate_link(attach->run_dir, dev->region, dev->device, err);
	return res;
}

/* Is the loop device on this file?  The kernel marks the name of a removed one. */
static bool is_on(const struct loopdev *loop, const char *file)
{
	size_t len = strlen(file);

	return !strncmp(loop->file, file, len) &&
	       (loop->file[len] == '\0' || !strcmp(loop->file + len, " (deleted)"));
}

/* Is it on this region of a mount that was detached (umount -l)?  Its files' names are then counted from
 * the mount's own root; a file that is really there under that name is somebody else's. */
static bool is_on_detached(const struct loopdev *loop, const char *region)
{
	return loop->file[0] == '/' && !strcmp(loop->file + 1, region) && access(loop->file, F_OK);
}

int attach_inspect(
    const struct runstate *state, const struct runstate_device *dev, struct loopdev *ret_loop)
{
	char file[FILE_MAX];
	struct loopdev loop;

	region_file(state, dev, file);
	if (!dev->device[0] || loopdev_inspect(dev->device, &loop) ||
	    (!is_on(&loop, file) && !is_on_detached(&loop, dev->region)))
		return -ENXIO;
	*ret_loop = loop;
	return 0;
}

/* The device that dev's region is on, also if it was never recorded: dev->device may be "" after. */
static void find_device(const struct runstate *state, struct runstate_device *dev)
{
	char file[FILE_MAX];
	struct loopdev loop;

	if (attach_inspect(state, dev, &loop) == 0)
		return;
	region_file(state, dev, file);
	dev->device[0] = '\0';
	if (loopdev_find(file, &loop) == 0)
		strcpy(dev->device, loop.path);
}

static int detach_one(const struct attach *attach, struct runstate_device *dev, struct err *err)
{
	struct err ignored;
	struct swapdev swap;
	int res = 0;

	find_device(attach->state, dev);
	if (dev->device[0] && dev->swap && swapdev_find(dev->device, &swap, NULL) == 0)
		res = swapdev_off(dev->device, attach->interrupted, err);
	if (res == 0 && dev->device[0])
		res = loopdev_detach(dev->device, DETACH_MS, err);
	if (res)
		return res;
	dev->device[0] = '\0';
	runstate_unlink(attach->run_dir, dev->region);
	/* A daemon that is gone has no pins; one that is in trouble must not stop the undoing. */
	set_pin(attach, dev, false, &ignored);
	return runstate_save(attach->run_dir, attach->state, err);
}

/* Attaches dev; format: write a swap header before the swap is switched on. */
static int attach_one(
    const struct attach *attach, struct runstate_device *dev, bool format, struct err *err)
{
	struct attach undo = {.run_dir = attach->run_dir, .state = attach->state};
	char file[FILE_MAX];
	struct err ignored;
	int res;

	region_file(attach->state, dev, file);
	res = pin_region(attach, dev, file, err);
	if (res == 0)
		res = put_on_loop(attach, dev, file, err);
	if (res == 0 && dev->swap && format)
		res = swapdev_format(dev->device, SWAP_LABEL, err);
	if (res == 0 && is_interrupted(attach))
		res = err_set(err, -EINTR, "interrupted");
	if (res == 0 && dev->swap)
		res = swapdev_on(dev->device, dev->prio, dev->discard, err);
	if (res)
		detach_one(&undo, dev, &ignored); /* not ended by the signal that ended this */
	return res;
}

static int attach_swap(
    const struct attach *attach, struct runstate_device *dev, uint64_t swap_size, struct err *err)
{
	char file[FILE_MAX];
	bool made = false;
	int res;

	region_file(attach->state, dev, file);
	res = make_swap(file, swap_size, &made, err);
	if (res)
		return res;
	res = attach_one(attach, dev, true, err);
	if (res && made)
		unlink(file);
	return res;
}

/* ---- all devices ------------------------------------------------------------------------------- */

int attach_all(const struct attach *attach, uint64_t swap_size, struct err *err)
{
	struct attach undo = {.run_dir = attach->run_dir, .state = attach->state};
	struct runstate *state = attach->state;
	struct err ignored;
	unsigned i;
	int res = runstate_save(attach->run_dir, state, err);

	for (i = 0; res == 0 && i < state->device_count; i++) {
		struct runstate_device *dev = &state->devices[i];
		if (is_interrupted(attach))
			res = err_set(err, -EINTR, "interrupted");
		else if (dev->swap)
			res = attach_swap(attach, dev, swap_size, err);
		else
			res = attach_one(attach, dev, false, err);
	}
	if (res)
		detach_all(&undo, &ignored);
	return res;
}

int attach_again(const struct attach *attach, struct err *err)
{
	unsigned i;
	int res = 0;

	for (i = 0; res == 0 && i < attach->state->device_count; i++) {
		struct runstate_device *dev = &attach->state->devices[i];
		struct swapdev swap;
		if (!dev->device[0])
			res = attach_one(attach, dev, false, err);
		else if (dev->swap && swapdev_find(dev->device, &swap, NULL))
			res = swapdev_on(dev->device, dev->prio, dev->discard, err);
	}
	return res;
}

int detach_check(const struct runstate *state, struct err *err)
{
	char text[BUSY_TEXT_MAX];
	unsigned i;
	int res = 0;

	for (i = 0; res == 0 && i < state->device_count; i++) {
		const struct runstate_device *dev = &state->devices[i];
		struct swapdev swap;
		uint64_t others_free;
		if (!dev->device[0])
			continue;
		if (busy_device(dev->device, !dev->swap, text))
			res = err_set(err, -EBUSY, "%s (region %s) is in use: %s", dev->device,
			    dev->region, text);
		else if (dev->swap && swapdev_find(dev->device, &swap, &others_free) == 0)
			res = memroom_check(swap.used, others_free, err);
	}
	return res;
}

int detach_all(const struct attach *attach, struct err *err)
{
	unsigned i;
	int res = 0;

	for (i = attach->state->device_count; res == 0 && i-- > 0;)
		res = detach_one(attach, &attach->state->devices[i], err);
	return res;
}
