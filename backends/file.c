/* SPDX-License-Identifier: Apache-2.0
 *
 * The `file:` backend: regions in files of a directory, or one region in one file or block device.
 *
 *   file:/srv/pool            a directory (made with mode 0700 if absent); region 0x2a is its file
 *                             000000000000002a (mode 0600), and remram-pool says which pool's
 *                             regions they are.  Other names in it are left alone.
 *   file:/srv/pool?size=8G    the same with a quota; else the file system is the limit
 *   file:/var/swap.img        single: the file is region 2; ?size=1G makes it if it is absent
 *   file:/dev/vg0/lv          single: the block device is region 2
 *
 * Two daemons never use one place: the directory or file is locked (flock), a device is opened with
 * O_EXCL.  The bytes are served by file_region.c and counted by file_space.c.
 *
 * Invariants:
 *   1. quota.used counts every region file of the directory, open or not, from open to close.
 *   2. fd holds the lock for the life of the backend.
 * Locking: none of its own; region_* may be called from several workers for different regions.
 */
#include "backends/backends.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "backends/file_region.h"

enum {
	FILE_NAME_LEN = 16, /* hex digits of a region's file */
	SINGLE_ID = 2,
	MARKER_LEN = 33,
};

/* The file that names the pool whose regions these are: its uuid in hex digits and a newline. */
#define MARKER "remram-pool"

/* How long a region can be, whatever the quota, and the quota of a pool that has none of its own: no
 * offset is larger. */
#define LIMIT_MAX ((uint64_t)INT64_MAX - STORE_BLOCK + 1)

struct file_backend {
	struct backend backend;

	/* Constant after open. */
	struct workers *workers;
	bool single;
	bool device;
	int fd; /* the directory; single: the region's file or device */
	char path[URI_TEXT_MAX];
	struct space space;
};

static void region_name(uint64_t id, char name[FILE_NAME_LEN + 1])
{
	snprintf(name, FILE_NAME_LEN + 1, "%016" PRIx64, id);
}

/* Whether name is that of a region's file. */
static bool region_parse(const char *name, uint64_t *ret_id)
{
	if (strspn(name, "0123456789abcdef") != FILE_NAME_LEN || name[FILE_NAME_LEN])
		return false;
	*ret_id = strtoull(name, NULL, 16);
	return true;
}

/* ---- regions ---- */

static int single_open(
    struct file_backend *fb, uint64_t id, bool create, struct store **ret_store, struct err *err)
{
	struct space_file *file;
	int fd;

	if (id != SINGLE_ID)
		return err_set(err, -ENOENT, "file:%s: is one region, number 2", fb->path);
	if (create)
		return err_set(err, -EEXIST, "file:%s: is there already", fb->path);
	file = space_get(&fb->space, id);
	if (!file)
		return err_set(err, -ENOMEM, "out of memory for a region");
	fd = fcntl(fb->fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(err, -errno, "file:%s", fb->path);
	return file_region_create(fd, &fb->space, file,
	    fb->device ? fb->backend.quota.limit : LIMIT_MAX, fb->workers, ret_store, err);
}

static int file_region_open(
    struct backend *backend, uint64_t id, bool create, struct store **ret_store, struct err *err)
{
	struct file_backend *fb = (struct file_backend *)backend;
	int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT | O_TRUNC : 0);
	char name[FILE_NAME_LEN + 1];
	struct space_file *file;
	int fd;

	if (fb->single)
		return single_open(fb, id, create, ret_store, err);
	region_name(id, name);
	fd = openat(fb->fd, name, flags, 0600);
	if (fd < 0 && errno == ENOENT)
		return err_set(err, -ENOENT, "file:%s: there is no file %s", fb->path, name);
	if (fd < 0)
		return err_sys(err, -errno, "file:%s: cannot %s %s", fb->path,
		    create ? "create" : "open", name);
	file = space_get(&fb->space, id);
	if (!file) {
		close(fd);
		return err_set(err, -ENOMEM, "out of memory for a region");
	}
	return file_region_create(fd, &fb->space, file, LIMIT_MAX, fb->workers, ret_store, err);
}

static int file_region_remove(struct backend *backend, uint64_t id, struct err *err)
{
	struct file_backend *fb = (struct file_backend *)backend;
	char name[FILE_NAME_LEN + 1];

	if (fb->single)
		return err_set(err, -EPERM, "file:%s: a single file is not removed", fb->path);
	region_name(id, name);
	if (unlinkat(fb->fd, name, 0) && errno != ENOENT)
		return err_sys(err, -errno, "file:%s: cannot remove %s", fb->path, name);
	space_drop(&fb->space, id);
	return 0;
}

/* Calls found for each region's file of the directory. */
static int list_directory(
    struct file_backend *fb, void (*found)(void *ctx, uint64_t id), void *ctx, struct err *err)
{
	int fd = openat(fb->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;
	uint64_t id;
	int rc;

	if (!dir) {
		rc = -errno;
		if (fd >= 0)
			close(fd);
		return err_sys(err, rc, "file:%s: cannot read the directory", fb->path);
	}
	for (errno = 0; (entry = readdir(dir)); errno = 0)
		if (region_parse(entry->d_name, &id))
			found(ctx, id);
	rc = -errno;
	closedir(dir);
	return rc ? err_sys(err, rc, "file:%s: cannot read the directory", fb->path) : 0;
}

static int file_region_list(
    struct backend *backend, void (*found)(void *ctx, uint64_t id), void *ctx, struct err *err)
{
	struct file_backend *fb = (struct file_backend *)backend;

	if (!fb->single)
		return list_directory(fb, found, ctx, err);
	found(ctx, SINGLE_ID);
	return 0;
}

/* ---- the place ---- */

static void any_region(void *ctx, uint64_t id)
{
	*(bool *)ctx = true;
}

/* Writes the marker so that it is there whole or not at all. */
static int marker_write(struct file_backend *fb, const char *text, size_t len)
{
	static const char temp[] = MARKER ".new";
	int fd = openat(fb->fd, temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	int rc = fd < 0 ? -errno : 0;

	if (rc == 0) {
		ssize_t n = write(fd, text, len);

		if (n != (ssize_t)len)
			rc = n < 0 ? -errno : -EIO;
		if (rc == 0 && fsync(fd))
			rc = -errno;
		close(fd);
	}
	if (rc == 0 && (renameat(fb->fd, temp, fb->fd, MARKER) || fsync(fb->fd)))
		rc = -errno;
	return rc;
}

/* Reads at most len bytes of the marker; how many, or -errno. */
static ssize_t marker_read(struct file_backend *fb, char *text, size_t len)
{
	int fd = openat(fb->fd, MARKER, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n = fd < 0 ? -errno : read(fd, text, len);

	if (fd >= 0) {
		n = n < 0 ? -errno : n;
		close(fd);
	}
	return n;
}

static int file_claim(struct backend *backend, const uint8_t uuid[16], struct err *err)
{
	struct file_backend *fb = (struct file_backend *)backend;
	char want[MARKER_LEN + 1], found[MARKER_LEN + 1] = "";
	bool regions = false;
	ssize_t n;
	int rc;

	if (fb->single)
		return 0;
	for (unsigned i = 0; i < 16; i++)
		snprintf(want + 2 * i, 3, "%02x", uuid[i]);
	want[MARKER_LEN - 1] = '\n';
	n = marker_read(fb, found, sizeof(found));
	if (n == MARKER_LEN && memcmp(want, found, MARKER_LEN) == 0)
		return 0;
	if (n >= 0)
		return err_set(err, -EEXIST,
		    "file:%s: belongs to another pool (its number in %s is not that of this pool's "
		    "catalogue): choose another directory, or give the daemon the --state "
		    "directory "
		    "with that pool's catalogue",
		    fb->path, MARKER);
	if (n != -ENOENT)
		return err_sys(err, (int)n, "file:%s: cannot read %s", fb->path, MARKER);
	rc = list_directory(fb, any_region, &regions, err);
	if (rc)
		return rc;
	if (regions)
		return err_set(err, -EEXIST,
		    "file:%s: holds regions, but no %s says of which pool: choose another "
		    "directory, "
		    "or move them away",
		    fb->path, MARKER);
	rc = marker_write(fb, want, MARKER_LEN);
	return rc ? err_sys(err, rc, "file:%s: cannot write %s", fb->path, MARKER) : 0;
}

static int file_sync(struct backend *backend)
{
	struct file_backend *fb = (struct file_backend *)backend;

	return fsync(fb->fd) ? -errno : 0;
}

static void file_space(struct backend *backend, uint64_t *ret_total, uint64_t *ret_free)
{
	struct file_backend *fb = (struct file_backend *)backend;
	struct statvfs vfs;

	*ret_total = fb->device ? backend->quota.limit : 0;
	*ret_free = 0;
	if (!fb->device && fstatvfs(fb->fd, &vfs) == 0) {
		*ret_total = (uint64_t)vfs.f_blocks * vfs.f_frsize;
		*ret_free = (uint64_t)vfs.f_bavail * vfs.f_frsize;
	}
}

static void file_close(struct backend *backend)
{
	struct file_backend *fb = (struct file_backend *)backend;

	/* An orderly end leaves nothing in the page cache only; who needs more asks for it (FLUSH). */
	if (fb->fd >= 0) {
		syncfs(fb->fd);
		close(fb->fd);
	}
	space_fini(&fb->space);
	free(fb);
}

/* Holds fb->fd's place against other processes. */
static int place_lock(struct file_backend *fb, struct err *err)
{
	if (flock(fb->fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	if (errno == EWOULDBLOCK)
		return err_set(err, -EBUSY,
		    "file:%s: is in use by another pool or process: stop that one, or choose "
		    "another %s",
		    fb->path, fb->single ? "file" : "directory");
	return err_sys(err, -errno, "file:%s: cannot lock it", fb->path);
}

struct count {
	struct file_backend *fb;
	int rc;
};

/* Counts the file of region `id`, which nobody has open. */
static void count_region(void *ctx, uint64_t id)
{
	struct count *count = ctx;
	struct space_file *file = space_get(&count->fb->space, id);
	char name[FILE_NAME_LEN + 1];
	struct stat st;

	if (!file) {
		count->rc = -ENOMEM;
		return;
	}
	region_name(id, name);
	if (fstatat(count->fb->fd, name, &st, AT_SYMLINK_NOFOLLOW)) {
		count->rc = -errno;
		return;
	}
	file->bytes = space_measure(&st, true);
	count->fb->backend.quota.used += file->bytes;
}

static int directory_open(struct file_backend *fb, struct err *err)
{
	struct count count = {fb, 0};
	bool made = mkdir(fb->path, 0700) == 0;
	int rc;

	if (!made && errno != EEXIST)
		return err_sys(err, -errno, "file:%s: cannot make the directory", fb->path);
	fb->fd = open(fb->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fb->fd < 0 && errno == ENOTDIR)
		return err_set(
		    err, -ENOTDIR, "file:%s: is not a directory: a pool needs one", fb->path);
	if (fb->fd < 0)
		return err_sys(err, -errno, "file:%s: cannot open the directory", fb->path);
	rc = place_lock(fb, err);
	if (rc)
		return rc;
	if (made) {
		int parent = openat(fb->fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		rc = parent < 0 || fsync(parent) ? -errno : 0;
		if (parent >= 0)
			close(parent);
		if (rc)
			return err_sys(
			    err, rc, "file:%s: cannot make the directory stable", fb->path);
	}
	rc = list_directory(fb, count_region, &count, err);
	if (rc)
		return rc;
	return count.rc ? err_sys(err, count.rc, "file:%s: cannot count the regions", fb->path) : 0;
}

static int device_open(struct file_backend *fb, const char *size, struct err *err)
{
	uint64_t bytes;

	if (size)
		return err_set(err, -EINVAL,
		    "file:%s: a block device has its own size: leave size= out", fb->path);
	/* O_EXCL without O_CREAT: nobody has it mounted, as swap, or open in this way. */
	fb->fd = open(fb->path, O_RDWR | O_CLOEXEC | O_EXCL);
	if (fb->fd < 0 && errno == EBUSY)
		return err_set(err, -EBUSY,
		    "file:%s: the device is in use (mounted, swap, or a part "
		    "of another device)",
		    fb->path);
	if (fb->fd < 0)
		return err_sys(err, -errno, "file:%s: cannot open the device", fb->path);
	if (ioctl(fb->fd, BLKGETSIZE64, &bytes))
		return err_sys(err, -errno, "file:%s: cannot ask for the device's size", fb->path);
	fb->device = true;
	fb->backend.quota.limit = bytes;
	fb->backend.quota.used = bytes;
	return 0;
}

/* Opens the file, or makes it `bytes` long if size is given and there is none. */
static int regular_open(struct file_backend *fb, bool make, uint64_t bytes, struct err *err)
{
	struct space_file *file;
	int rc;

	fb->fd = open(fb->path, O_RDWR | O_CLOEXEC | (make ? O_CREAT | O_EXCL : 0), 0600);
	if (fb->fd < 0)
		return err_sys(
		    err, -errno, "file:%s: cannot %s it", fb->path, make ? "create" : "open");
	rc = place_lock(fb, err);
	if (rc)
		return rc;
	if (make && ftruncate(fb->fd, (off_t)bytes)) {
		rc = err_sys(err, -errno, "file:%s: cannot make it so long", fb->path);
		unlink(fb->path);
		return rc;
	}
	file = space_get(&fb->space, SINGLE_ID);
	if (!file)
		return err_set(err, -ENOMEM, "out of memory for a region");
	space_settle(&fb->space, file, fb->fd, 0);
	return 0;
}

static int single_place_open(
    struct file_backend *fb, const char *size, uint64_t bytes, struct err *err)
{
	struct stat st;

	if (stat(fb->path, &st) == 0) {
		if (S_ISBLK(st.st_mode))
			return device_open(fb, size, err);
		if (S_ISREG(st.st_mode))
			return regular_open(fb, false, 0, err);
		return err_set(
		    err, -EINVAL, "file:%s: is neither a file nor a block device", fb->path);
	}
	if (errno != ENOENT)
		return err_sys(err, -errno, "file:%s", fb->path);
	if (!size)
		return err_set(err, -ENOENT,
		    "file:%s: there is no such file: file:%s?size=SIZE makes one", fb->path,
		    fb->path);
	return regular_open(fb, true, bytes, err);
}

/* Checks the URI and takes path and size (0: none) from it. */
static int parse(
    const struct uri *uri, struct file_backend *fb, uint64_t *ret_bytes, struct err *err)
{
	static const char *const known[] = {"size", NULL};
	const char *size = uri_param(uri, "size");
	int rc = uri_check_params(uri, known, err);

	if (rc)
		return rc;
	if (uri->host && *uri->host && strcmp(uri->host, "localhost") != 0)
		return err_set(err, -EINVAL, "file://%s%s: a file is on this host: write file:%s",
		    uri->host, uri->path, uri->path);
	if (uri->path[0] != '/')
		return err_set(err, -EINVAL, "file:%s: the path must begin with '/'", uri->path);
	*ret_bytes = 0;
	if (size &&
	    (size_parse(size, ret_bytes) || *ret_bytes < STORE_BLOCK || *ret_bytes > LIMIT_MAX))
		return err_set(err, -EINVAL,
		    "file:%s: size=%s: a size of 4K or more is needed, as in "
		    "size=8G",
		    uri->path, size);
	snprintf(fb->path, sizeof(fb->path), "%s", uri->path);
	return 0;
}

static int file_open(const struct uri *uri, bool single, struct workers *workers,
    struct backend **ret_backend, struct err *err)
{
	struct file_backend *fb = calloc(1, sizeof(*fb));
	uint64_t bytes;
	int rc;

	if (!fb)
		return err_set(err, -ENOMEM, "out of memory for a pool");
	fb->backend.ops = &file_backend;
	fb->backend.persistent = true;
	fb->backend.blocking = true;
	fb->backend.quota.limit = LIMIT_MAX;
	fb->workers = workers;
	fb->single = single;
	fb->fd = -1;
	space_init(&fb->space, &fb->backend.quota);
	rc = parse(uri, fb, &bytes, err);
	if (rc == 0 && single) {
		rc = single_place_open(fb, uri_param(uri, "size"), bytes, err);
	} else if (rc == 0) {
		if (bytes)
			fb->backend.quota.limit = bytes & ~(uint64_t)(STORE_BLOCK - 1);
		rc = directory_open(fb, err);
	}
	if (rc) {
		file_close(&fb->backend);
		return rc;
	}
	*ret_backend = &fb->backend;
	return 0;
}

const struct backend_ops file_backend = {
    .scheme = "file",
    .help = "file:/DIRECTORY[?size=SIZE]  files in a directory; alone: file:/FILE[?size=SIZE], "
	    "file:/dev/DEVICE",
    .open = file_open,
    .region_open = file_region_open,
    .region_remove = file_region_remove,
    .region_list = file_region_list,
    .claim = file_claim,
    .sync = file_sync,
    .space = file_space,
    .close = file_close,
};
