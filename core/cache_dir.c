/* SPDX-License-Identifier: Apache-2.0
 *
 * A cache directory: its lock, its stamp, and the place of its data.
 *
 * The order of opening, so that a second process changes nothing: make the directory → lock → read the
 * stamp (or, in a directory that has nothing but the lock, write one) → make data/ and aside/ → open
 * data/ as a pool of the `file:` backend.
 *
 * The stamp is a text of four lines,
 *   remram-cache 1
 *   identity HEX
 *   pool HEX SOURCE         or "pool -" before the first claim
 *   end
 * written beside itself, synced and renamed: it is there whole, or as it was.
 *
 * Invariants:
 *   1. lock_fd holds the lock from before anything is read until close.
 *   2. A stamp that was read and not understood is never written over.
 *   3. data/ carries our identity in the file backend's own marker (claim), so a data/ that was moved in
 *      from another cache is found out.
 * Locking: none; what is written after open is written by set-up code.
 */
#include "core/cache_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/backend.h"

#define STAMP "remram-cache"
#define STAMP_NEW STAMP ".new"
#define LOCK "lock"

enum {
	STAMP_VERSION = 1,
	STAMP_MAX = 8192,
	SOURCE_MAX = 4096,
	HOLDER_MAX = 1024,
	HEX_LEN = 2 * CACHE_ID_LEN,
	DATA_NAME_LEN = 16,
};

struct cache_dir {
	/* Constant after open. */
	char path[PATH_MAX];
	int fds[CACHE_DIR_PARTS];
	int lock_fd;
	struct backend *backend; /* of data/ */
	uint8_t identity[CACHE_ID_LEN];

	/* Set-up code only. */
	bool claimed;
	uint8_t pool[CACHE_ID_LEN];
	char source[SOURCE_MAX];
};

static const char *const part_names[CACHE_DIR_PARTS] = {".", "data", "aside"};

/* ---- small things ---- */

static void hex_write(const uint8_t bytes[CACHE_ID_LEN], char ret_text[HEX_LEN + 1])
{
	for (unsigned i = 0; i < CACHE_ID_LEN; i++)
		snprintf(ret_text + (size_t)2 * i, 3, "%02x", bytes[i]);
}

/* Exactly HEX_LEN digits, then `end`. */
static bool hex_read(const char *text, char end, uint8_t ret_bytes[CACHE_ID_LEN])
{
	if (strspn(text, "0123456789abcdef") != HEX_LEN || text[HEX_LEN] != end)
		return false;
	for (unsigned i = 0; i < CACHE_ID_LEN; i++) {
		char pair[3] = {text[2 * i], text[2 * i + 1], '\0'};

		ret_bytes[i] = (uint8_t)strtoul(pair, NULL, 16);
	}
	return true;
}

/* How a failed change of the directory reads. */
static int cannot(const struct cache_dir *dir, int code, const char *what, struct err *err)
{
	if (code == -EROFS || code == -EACCES || code == -EPERM)
		return err_set(err, code, "cache=%s: cannot %s: it is read-only for us (%s)",
		    dir->path, what, strerror(-code));
	return err_sys(err, code, "cache=%s: cannot %s", dir->path, what);
}

static int write_all(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t n = write(fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

/* The first bytes of a file as text, at most room - 1; how many, or -errno. */
static ssize_t read_text(int at, const char *name, char *buf, size_t room)
{
	int fd = openat(at, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	size_t len = 0;
	ssize_t n = -1;

	if (fd < 0)
		return -errno;
	while (len < room - 1 && (n = read(fd, buf + len, room - 1 - len)) > 0)
		len += (size_t)n;
	n = n < 0 ? -errno : (ssize_t)len;
	buf[len] = '\0';
	close(fd);
	return n;
}

/* ---- the lock ---- */

/* Makes the directory and opens it; its entry is stable. */
static int top_open(struct cache_dir *dir, const char *path, struct err *err)
{
	bool made = mkdir(path, 0700) == 0;
	int parent, rc = 0;

	if (!made && errno != EEXIST)
		return err_sys(err, -errno, "cache=%s: cannot make the directory", path);
	dir->fds[CACHE_DIR_TOP] = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir->fds[CACHE_DIR_TOP] < 0)
		return err_sys(err, -errno, "cache=%s: cannot open the directory", path);
	if (!realpath(path, dir->path))
		return err_sys(err, -errno, "cache=%s", path);
	if (!made)
		return 0;
	parent = openat(dir->fds[CACHE_DIR_TOP], "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (parent < 0 || fsync(parent))
		rc = -errno;
	if (parent >= 0)
		close(parent);
	return rc ? cannot(dir, rc, "make the directory stable", err) : 0;
}

/* Somebody has the lock: says who, as far as the holder has said it. */
static int busy(struct cache_dir *dir, struct err *err)
{
	char text[HOLDER_MAX], *line;

	if (read_text(dir->fds[CACHE_DIR_TOP], LOCK, text, sizeof(text)) > 0) {
		line = strchr(text, '\n');
		if (line) {
			*line = '\0';
			return err_set(err, -EBUSY,
			    "cache=%s: is in use by %s: unmount that one, or choose another "
			    "directory",
			    dir->path, text);
		}
	}
	return err_set(err, -EBUSY,
	    "cache=%s: is in use by another process: unmount that one, or choose another directory",
	    dir->path);
}

static int lock_take(struct cache_dir *dir, const char *mount, struct err *err)
{
	char text[HOLDER_MAX];
	int n, rc;

	dir->lock_fd =
	    openat(dir->fds[CACHE_DIR_TOP], LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (dir->lock_fd < 0)
		return cannot(dir, -errno, "open " LOCK, err);
	if (flock(dir->lock_fd, LOCK_EX | LOCK_NB)) {
		rc = -errno;
		return rc == -EWOULDBLOCK ? busy(dir, err) : cannot(dir, rc, "lock it", err);
	}
	n = snprintf(text, sizeof(text), "process %ld (mount %.900s)\n", (long)getpid(), mount);
	rc = ftruncate(dir->lock_fd, 0) ? -errno : write_all(dir->lock_fd, text, (size_t)n);
	return rc ? cannot(dir, rc, "write " LOCK, err) : 0;
}

/* ---- the stamp ---- */

static int stamp_write(struct cache_dir *dir, struct err *err)
{
	int top = dir->fds[CACHE_DIR_TOP], fd, n, rc;
	char text[STAMP_MAX], identity[HEX_LEN + 1], pool[HEX_LEN + 1] = "-";

	hex_write(dir->identity, identity);
	if (dir->claimed)
		hex_write(dir->pool, pool);
	n = snprintf(text, sizeof(text), STAMP " %d\nidentity %s\npool %s %s\nend\n", STAMP_VERSION,
	    identity, pool, dir->source);
	fd = openat(top, STAMP_NEW, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	rc = fd < 0 ? -errno : write_all(fd, text, (size_t)n);
	if (rc == 0 && fsync(fd))
		rc = -errno;
	if (fd >= 0)
		close(fd);
	if (rc == 0 && (renameat(top, STAMP_NEW, top, STAMP) || fsync(top)))
		rc = -errno;
	return rc ? cannot(dir, rc, "write " STAMP, err) : 0;
}

/* Takes the stamp's fields from its text; false if it is not as stamp_write makes it. */
static bool stamp_parse(struct cache_dir *dir, char *text)
{
	char *identity = strchr(text, '\n'), *pool, *source, *end;

	if (!identity || strncmp(++identity, "identity ", 9) != 0 ||
	    !hex_read(identity + 9, '\n', dir->identity))
		return false;
	pool = identity + 9 + HEX_LEN + 1;
	end = strchr(pool, '\n');
	if (strncmp(pool, "pool ", 5) != 0 || !end || strcmp(end, "\nend\n") != 0)
		return false;
	*end = '\0';
	pool += 5;
	dir->claimed = pool[0] != '-';
	if (dir->claimed && !hex_read(pool, ' ', dir->pool))
		return false;
	source = strchr(pool, ' ');
	if (!source || strlen(source + 1) >= SOURCE_MAX)
		return false;
	snprintf(dir->source, sizeof(dir->source), "%s", source + 1);
	return true;
}

/* Whether nothing is there that a creation which was cut off could not have left. */
static int is_new(struct cache_dir *dir, bool *ret_new)
{
	int fd = openat(dir->fds[CACHE_DIR_TOP], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;
	int rc;

	if (!list) {
		rc = -errno;
		if (fd >= 0)
			close(fd);
		return rc;
	}
	*ret_new = true;
	for (errno = 0; (entry = readdir(list)); errno = 0)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
		    strcmp(entry->d_name, LOCK) != 0 && strcmp(entry->d_name, STAMP_NEW) != 0)
			*ret_new = false;
	rc = -errno;
	closedir(list);
	return rc;
}

static int stamp_make(struct cache_dir *dir, struct err *err)
{
	bool fresh = false;
	int rc = is_new(dir, &fresh);

	if (rc)
		return cannot(dir, rc, "read the directory", err);
	if (!fresh)
		return err_set(err, -ENOTEMPTY,
		    "cache=%s: holds files but is not a cache of remram (there is no %s): choose "
		    "an empty directory",
		    dir->path, STAMP);
	if (getrandom(dir->identity, CACHE_ID_LEN, 0) != CACHE_ID_LEN)
		return err_sys(err, -errno, "cannot get random bytes");
	return stamp_write(dir, err);
}

static int stamp_open(struct cache_dir *dir, struct err *err)
{
	char text[STAMP_MAX];
	ssize_t n = read_text(dir->fds[CACHE_DIR_TOP], STAMP, text, sizeof(text));
	int version = 0;

	if (n == -ENOENT)
		return stamp_make(dir, err);
	if (n < 0)
		return cannot(dir, (int)n, "read " STAMP, err);
	if (sscanf(text, STAMP " %9d", &version) == 1 && version > STAMP_VERSION)
		return err_set(err, -EUCLEAN,
		    "cache=%s: is from a newer version of remram (format %d, this one knows %d): "
		    "use that version, or another directory",
		    dir->path, version, STAMP_VERSION);
	if (version != STAMP_VERSION || strlen(text) != (size_t)n || !stamp_parse(dir, text))
		return err_set(err, -EUCLEAN,
		    "cache=%s: its %s is damaged: move the directory away (its data may be "
		    "wanted) and mount again",
		    dir->path, STAMP);
	return 0;
}

int cache_dir_claim(
    struct cache_dir *dir, const char *source, const uint8_t pool[CACHE_ID_LEN], struct err *err)
{
	bool same = dir->claimed && memcmp(dir->pool, pool, CACHE_ID_LEN) == 0;
	struct cache_dir *was;
	int rc;

	if (dir->claimed && !same)
		return err_set(err, -EEXIST,
		    strcmp(dir->source, source) == 0
			? "cache=%s: holds data of %s as it was before: the donor has a new pool "
			  "of that name now: choose another directory, or save what is in this one"
			: "cache=%s: belongs to another pool, %s: choose another directory",
		    dir->path, dir->source);
	if (strlen(source) >= SOURCE_MAX || strchr(source, '\n'))
		return err_set(
		    err, -EINVAL, "cache=%s: the pool's name is too long or odd", dir->path);
	if (same && strcmp(dir->source, source) == 0)
		return 0;
	was = malloc(sizeof(*was));
	if (!was)
		return err_set(err, -ENOMEM, "out of memory for a cache directory");
	*was = *dir;
	dir->claimed = true;
	memcpy(dir->pool, pool, CACHE_ID_LEN);
	snprintf(dir->source, sizeof(dir->source), "%s", source);
	rc = stamp_write(dir, err);
	if (rc)
		*dir = *was;
	free(was);
	return rc;
}

/* ---- the parts ---- */

static int part_open(struct cache_dir *dir, enum cache_dir_part part, struct err *err)
{
	int top = dir->fds[CACHE_DIR_TOP];
	bool made = mkdirat(top, part_names[part], 0700) == 0;

	if (!made && errno != EEXIST)
		return cannot(dir, -errno, "make a directory in it", err);
	if (made && fsync(top))
		return cannot(dir, -errno, "make its directories stable", err);
	dir->fds[part] =
	    openat(top, part_names[part], O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (dir->fds[part] < 0)
		return cannot(dir, -errno, "open a directory in it", err);
	return 0;
}

/* file:PATH/data, with what means something in a URI escaped. */
static int data_uri(const struct cache_dir *dir, char *uri, size_t room)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789/-_.~";
	size_t n = (size_t)snprintf(uri, room, "file:");

	for (const char *pos = dir->path; *pos && n + 4 < room; pos++)
		n += (size_t)snprintf(
		    uri + n, room - n, strchr(plain, *pos) ? "%c" : "%%%02X", (unsigned char)*pos);
	return (size_t)snprintf(uri + n, room - n, "/data") < room - n ? 0 : -ENAMETOOLONG;
}

static int data_place_open(struct cache_dir *dir, struct workers *workers, struct err *err)
{
	char uri[URI_TEXT_MAX];
	int rc = data_uri(dir, uri, sizeof(uri));

	if (rc)
		return err_sys(err, rc, "cache=%s", dir->path);
	rc = backend_open(uri, false, workers, &dir->backend, err);
	if (rc == 0 && dir->backend->ops->claim)
		rc = dir->backend->ops->claim(dir->backend, dir->identity, err);
	return rc;
}

int cache_dir_open(const char *path, const char *mount, struct workers *workers,
    struct cache_dir **ret_dir, struct err *err)
{
	struct cache_dir *dir = calloc(1, sizeof(*dir));
	int rc;

	if (!dir)
		return err_set(err, -ENOMEM, "out of memory for a cache directory");
	dir->lock_fd = -1;
	for (unsigned i = 0; i < CACHE_DIR_PARTS; i++)
		dir->fds[i] = -1;
	rc = top_open(dir, path, err);
	if (rc == 0)
		rc = lock_take(dir, mount, err);
	if (rc == 0)
		rc = stamp_open(dir, err);
	if (rc == 0)
		rc = part_open(dir, CACHE_DIR_DATA, err);
	if (rc == 0)
		rc = part_open(dir, CACHE_DIR_ASIDE, err);
	if (rc == 0)
		rc = data_place_open(dir, workers, err);
	if (rc) {
		cache_dir_close(dir);
		return rc;
	}
	*ret_dir = dir;
	return 0;
}

void cache_dir_close(struct cache_dir *dir)
{
	if (!dir)
		return;
	backend_close(dir->backend);
	for (unsigned i = 0; i < CACHE_DIR_PARTS; i++)
		if (dir->fds[i] >= 0)
			close(dir->fds[i]);
	/* Last: whoever gets the lock finds the rest closed. */
	if (dir->lock_fd >= 0)
		close(dir->lock_fd);
	free(dir);
}

void cache_dir_identity(const struct cache_dir *dir, uint8_t ret_identity[CACHE_ID_LEN])
{
	memcpy(ret_identity, dir->identity, CACHE_ID_LEN);
}

const char *cache_dir_path(const struct cache_dir *dir)
{
	return dir->path;
}

const char *cache_dir_source(const struct cache_dir *dir)
{
	return dir->source;
}

int cache_dir_fd(const struct cache_dir *dir, enum cache_dir_part part)
{
	return dir->fds[part];
}

/* ---- data ---- */

void cache_dir_data_name(uint64_t id, char ret_name[CACHE_DATA_NAME_MAX])
{
	snprintf(ret_name, CACHE_DATA_NAME_MAX, "%0*" PRIx64, DATA_NAME_LEN, id);
}

int cache_dir_store(struct cache_dir *dir, uint64_t id, struct store **ret_store, struct err *err)
{
	return dir->backend->ops->region_open(dir->backend, id, false, ret_store, err);
}

int cache_dir_data_open(
    struct cache_dir *dir, uint64_t id, bool create, int *ret_fd, struct err *err)
{
	int at = dir->fds[CACHE_DIR_DATA], fd;
	char name[CACHE_DATA_NAME_MAX];

	cache_dir_data_name(id, name);
	fd = openat(at, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && errno == ENOENT && create) {
		fd = openat(at, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd >= 0 && fsync(at)) {
			int rc = cannot(dir, -errno, "make a data file stable", err);

			close(fd);
			return rc;
		}
	}
	if (fd < 0 && errno == ENOENT)
		return err_set(
		    err, -ENOENT, "cache=%s: the file data/%s is missing", dir->path, name);
	if (fd < 0)
		return cannot(dir, -errno, create ? "make a data file" : "open a data file", err);
	*ret_fd = fd;
	return 0;
}

int cache_dir_data_remove(struct cache_dir *dir, uint64_t id, struct err *err)
{
	return dir->backend->ops->region_remove(dir->backend, id, err);
}

int cache_dir_data_list(
    struct cache_dir *dir, void (*found)(void *ctx, uint64_t id), void *ctx, struct err *err)
{
	return dir->backend->ops->region_list(dir->backend, found, ctx, err);
}
