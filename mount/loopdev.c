/* SPDX-License-Identifier: Apache-2.0
 *
 * Loop devices over region files; see loopdev.h.
 *
 * Attaching is LOOP_CTL_GET_FREE and LOOP_CONFIGURE (Linux 5.8), which sets file, block size and
 * direct I/O in one step, so that nobody ever sees the device without them.  Between the two calls
 * another process may take the same device: EBUSY, and the next free one is tried.
 *
 * Detaching a device that somebody has open only marks it: the kernel detaches at the last close.  So
 * loopdev_detach watches sysfs until the file is gone from the device.
 */
#include "mount/loopdev.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "mount/sys.h"

enum {
	ATTACH_TRIES = 64, /* other processes that may take the free device first */
	LOOP_MAJOR_NR = 7,
	POLL_MS = 10,
	PROBE_BYTES = 1 << 20,
};

#define LOOP_CONTROL "/dev/loop-control"

/* The descriptor of /dev/loop-control, after loading the module if there is none. */
static int open_control(struct err *err)
{
	int fd = open(LOOP_CONTROL, O_RDWR | O_CLOEXEC);

	if (fd < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO)) {
		sys_modprobe("loop");
		fd = open(LOOP_CONTROL, O_RDWR | O_CLOEXEC);
	}
	if (fd < 0)
		return err_sys(err, -errno,
		    LOOP_CONTROL ": this kernel offers no loop devices (try: modprobe loop)");
	return fd;
}

/* Opens /dev/loopN, and makes its node where neither devtmpfs nor udev does. */
static int open_device(const char *path, unsigned number, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT) {
		if (mknod(path, S_IFBLK | 0600, makedev(LOOP_MAJOR_NR, number)) && errno != EEXIST)
			return -errno;
		fd = open(path, flags | O_CLOEXEC);
	}
	return fd < 0 ? -errno : fd;
}

static int configure(int control, int fd, const struct loop_config *config,
    char ret_path[LOOPDEV_PATH_MAX], int *ret_dev)
{
	int number = ioctl(control, LOOP_CTL_GET_FREE);
	int dev, flags = config->info.lo_flags & LO_FLAGS_READ_ONLY ? O_RDONLY : O_RDWR;

	if (number < 0)
		return -errno;
	snprintf(ret_path, LOOPDEV_PATH_MAX, "/dev/loop%d", number);
	dev = open_device(ret_path, (unsigned)number, flags);
	if (dev < 0)
		return dev;
	if (ioctl(dev, LOOP_CONFIGURE, config)) {
		int code = -errno;
		close(dev);
		return code;
	}
	*ret_dev = dev;
	return 0;
}

/* Attaches without looking whether direct I/O is on. */
static int attach(int fd, const char *file, unsigned flags, char ret_path[LOOPDEV_PATH_MAX],
    int *ret_dev, struct err *err)
{
	struct loop_config config = {.fd = (unsigned)fd, .block_size = LOOPDEV_BLOCK};
	int control, tries, res = -EBUSY;

	config.info.lo_flags = flags;
	snprintf((char *)config.info.lo_file_name, LO_NAME_SIZE, "%s", file);
	control = open_control(err);
	if (control < 0)
		return control;
	for (tries = 0; tries < ATTACH_TRIES && res == -EBUSY; tries++)
		res = configure(control, fd, &config, ret_path, ret_dev);
	close(control);
	if (res)
		return err_sys(err, res, "%s: cannot put it on a loop device", file);
	return 0;
}

/* Is direct I/O on? */
static int read_direct_io(int dev, bool *ret_on)
{
	struct loop_info64 info;

	if (ioctl(dev, LOOP_GET_STATUS64, &info))
		return -errno;
	*ret_on = info.lo_flags & LO_FLAGS_DIRECT_IO;
	return 0;
}

int loopdev_attach(
    int fd, const char *file, bool read_only, char ret_path[LOOPDEV_PATH_MAX], struct err *err)
{
	unsigned flags = LO_FLAGS_DIRECT_IO | (read_only ? LO_FLAGS_READ_ONLY : 0u);
	char path[LOOPDEV_PATH_MAX];
	bool direct_io = false;
	int dev, res = attach(fd, file, flags, path, &dev, err);

	if (res)
		return res;
	res = read_direct_io(dev, &direct_io);
	if (res || !direct_io)
		ioctl(dev, LOOP_CLR_FD);
	close(dev);
	if (res)
		return err_sys(err, res, "%s: cannot read its state", path);
	if (!direct_io)
		return err_set(err, -EOPNOTSUPP,
		    "%s: the kernel does not do direct I/O from a loop device to this file", file);
	memcpy(ret_path, path, LOOPDEV_PATH_MAX);
	return 0;
}

int loopdev_detach(const char *path, unsigned timeout_ms, struct err *err)
{
	uint64_t end = sys_now_ms() + timeout_ms;
	struct loopdev loop;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return err_sys(err, -errno, "%s", path);
	while (ioctl(fd, LOOP_CLR_FD)) {
		int code = -errno;
		if (code == -EBUSY && sys_now_ms() < end) {
			sys_sleep_ms(POLL_MS);
			continue;
		}
		close(fd);
		if (code == -ENXIO)
			return 0;
		return err_sys(err, code, "%s: cannot detach it", path);
	}
	close(fd);
	while (loopdev_inspect(path, &loop) == 0) {
		if (sys_now_ms() >= end)
			return err_set(err, -EBUSY,
			    "%s is still in use; it will be detached when its last user closes it",
			    path);
		sys_sleep_ms(POLL_MS);
	}
	return 0;
}

static bool sysfs_flag(const char *name, const char *attribute)
{
	char text[8];

	return sys_read_textf(text, sizeof(text), "/sys/block/%s/%s", name, attribute) > 0 &&
	       text[0] == '1';
}

static int inspect(const char *name, struct loopdev *loop)
{
	char text[64];
	ssize_t len =
	    sys_read_textf(loop->file, sizeof(loop->file), "/sys/block/%s/loop/backing_file", name);

	/* The attributes are there as long as a file is; while one is being detached they may read
	 * as empty. */
	if (len <= 0)
		return -ENXIO;
	snprintf(loop->path, sizeof(loop->path), "/dev/%s", name);
	loop->direct_io = sysfs_flag(name, "loop/dio");
	loop->read_only = sysfs_flag(name, "ro");
	loop->size = 0;
	loop->block_size = 0;
	if (sys_read_textf(text, sizeof(text), "/sys/block/%s/size", name) > 0)
		loop->size = strtoull(text, NULL, 10) * 512;
	if (sys_read_textf(text, sizeof(text), "/sys/block/%s/queue/logical_block_size", name) > 0)
		loop->block_size = (unsigned)strtoul(text, NULL, 10);
	return 0;
}

int loopdev_inspect(const char *path, struct loopdev *ret_loop)
{
	struct loopdev loop;
	char sysfs[64];
	int res;

	if (strncmp(path, "/dev/loop", 9) || strlen(path) >= LOOPDEV_PATH_MAX)
		return -ENOENT;
	res = inspect(path + 5, &loop);
	if (res == 0) {
		*ret_loop = loop;
		return 0;
	}
	snprintf(sysfs, sizeof(sysfs), "/sys/block/%s", path + 5);
	return access(sysfs, F_OK) ? -ENOENT : res;
}

void loopdev_each(bool (*each)(void *ctx, const struct loopdev *loop), void *ctx)
{
	struct dirent *entry;
	struct loopdev loop;
	DIR *dir = opendir("/sys/block");

	if (!dir)
		return;
	while ((entry = readdir(dir))) {
		if (strncmp(entry->d_name, "loop", 4) || strlen(entry->d_name) > 20)
			continue;
		if (!inspect(entry->d_name, &loop) && !each(ctx, &loop))
			break;
	}
	closedir(dir);
}

struct find {
	const char *file;
	struct loopdev *loop;
	bool found;
};

static bool find_each(void *ctx, const struct loopdev *loop)
{
	struct find *find = ctx;

	find->found = !strcmp(loop->file, find->file);
	if (find->found)
		*find->loop = *loop;
	return !find->found;
}

int loopdev_find(const char *file, struct loopdev *ret_loop)
{
	struct find find = {.file = file, .loop = ret_loop};

	loopdev_each(find_each, &find);
	return find.found ? 0 : -ENOENT;
}

int loopdev_probe(const char *dir, bool *ret_direct_io, struct err *err)
{
	char file[PATH_MAX], path[LOOPDEV_PATH_MAX];
	bool direct_io = false;
	int fd, dev = -1, res;

	if ((size_t)snprintf(file, sizeof(file), "%s/remram-probe.XXXXXX", dir) >= sizeof(file))
		return err_sys(err, -ENAMETOOLONG, "%s", dir);
	fd = mkostemp(file, O_CLOEXEC);
	if (fd < 0)
		return err_sys(err, -errno, "%s: cannot make a file there", dir);
	unlink(file);
	if (ftruncate(fd, PROBE_BYTES)) {
		res = err_sys(err, -errno, "%s", file);
		close(fd);
		return res;
	}
	res = attach(fd, file, LO_FLAGS_DIRECT_IO | LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR, path,
	    &dev, err);
	close(fd);
	if (res)
		return res;
	res = read_direct_io(dev, &direct_io);
	close(dev); /* LO_FLAGS_AUTOCLEAR: this detaches it */
	if (res)
		return err_sys(err, res, "%s: cannot read its state", path);
	*ret_direct_io = direct_io;
	return 0;
}
