/* SPDX-License-Identifier: Apache-2.0
 *
 * Sets things aside: makes the entries of DIR/aside (see core/rescue.c for what they look like).
 *
 * Making one: `about` written and synced in KEY.new; the data file renamed into it; KEY.new renamed to KEY;
 * each directory synced before the next step.  All of it can be done again from any point, so whoever
 * was cut off (the index notes in the region's row what it is about to set aside) calls again.
 *
 * Locking: none.  Failure: -errno of the system call; what was done stays, and the next call goes on
 * from there.
 */
#include "core/rescue.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/crc32c.h"
#include "core/rescue_int.h"

enum { LINE_LEN = 1024, WHEN_LEN = 20 };

/* A text file whose checksum is kept. */
struct summed {
	FILE *file;
	uint32_t sum;
};

__attribute__((format(printf, 2, 3))) static void put(struct summed *to, const char *fmt, ...)
{
	char line[LINE_LEN];
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	to->sum = crc32c(to->sum, line, (size_t)n);
	fputs(line, to->file);
}

/* A line whose value may hold any byte. */
static void put_text(struct summed *to, const char *key, const char *text)
{
	char coded[3 * INDEX_NAME_MAX], *pos = coded;

	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < ' ' || c == '%' || c >= 0x7f)
			pos += sprintf(pos, "%%%02x", c);
		else
			*pos++ = (char)c;
	}
	*pos = '\0';
	put(to, "%s %s\n", key, coded);
}

static void put_row(struct summed *to, const struct index_row *row)
{
	char sums[8 * INDEX_CHUNK_BLOCKS + 1] = "";
	size_t n = 0;

	for (uint64_t left = row->chunk.resident; left; left &= left - 1)
		n += (size_t)sprintf(sums + n, "%08" PRIx32, row->sums[__builtin_ctzll(left)]);
	put(to, "chunk %" PRIu64 " %016" PRIx64 " %016" PRIx64 " %s\n", row->chunk.idx,
	    row->chunk.resident, row->chunk.dirty, sums);
}

static int about_write(int at, const struct index_region *region, const struct index_row *rows,
    size_t count, bool unknown)
{
	int fd = openat(at, ABOUT, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	struct summed to = {.file = fd >= 0 ? fdopen(fd, "w") : NULL};
	int rc;

	if (!to.file) {
		rc = -errno;
		if (fd >= 0)
			close(fd);
		return rc;
	}
	put(&to, ABOUT_HEAD);
	put_text(&to, "name", region->name);
	put(&to, "id %" PRIu64 "\nsize %" PRIu64 "\nversion %" PRIu64 "\nwhen %lld\n", region->id,
	    region->size, region->version, (long long)time(NULL));
	put_text(&to, "why", region->why);
	put(&to, "known %d\n", !unknown);
	for (size_t i = 0; i < count; i++)
		put_row(&to, &rows[i]);
	put(&to, "end %08" PRIx32 "\n", to.sum);
	rc = fflush(to.file) || fsync(fd) ? -errno : 0;
	if (rc == 0 && ferror(to.file))
		rc = -EIO;
	if (fclose(to.file) && rc == 0)
		rc = -errno;
	return rc;
}

static bool exists(int at, const char *name)
{
	struct stat st;

	return fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Opens aside/NAME.new, made if it is absent. */
static int entry_make(int aside, const char *key, char temp[RESCUE_PATH_LEN])
{
	int fd;

	snprintf(temp, RESCUE_PATH_LEN, "%s" SUFFIX_NEW, key);
	if (mkdirat(aside, temp, 0700) && errno != EEXIST)
		return -errno;
	fd = openat(aside, temp, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

/* Syncs both directories, then gives the entry its name. */
static int entry_finish(int aside, int from, int at, const char *temp, const char *key)
{
	if (fsync(at) || fsync(from) || renameat(aside, temp, aside, key) || fsync(aside))
		return -errno;
	return 0;
}

int rescue_keep(struct cache_dir *dir, const struct index_region *region,
    const struct index_row *rows, size_t count, bool unknown, struct err *err)
{
	int aside = cache_dir_fd(dir, CACHE_DIR_ASIDE), data = cache_dir_fd(dir, CACHE_DIR_DATA);
	char temp[RESCUE_PATH_LEN], name[CACHE_DATA_NAME_MAX];
	int at, rc;

	if (exists(aside, region->aside))
		return 0;
	cache_dir_data_name(region->id, name);
	at = entry_make(aside, region->aside, temp);
	rc = at < 0 ? at : about_write(at, region, rows, count, unknown);
	if (rc == 0 && fsync(at))
		rc = -errno;
	/* Not there: it was moved before we were cut off, or it was lost. */
	if (rc == 0 && renameat(data, name, at, DATA) && errno != ENOENT)
		rc = -errno;
	if (rc == 0)
		rc = entry_finish(aside, data, at, temp, region->aside);
	if (at >= 0)
		close(at);
	return rc ? err_sys(err, rc, "cache=%s: cannot set \"%s\" aside", cache_dir_path(dir),
			region->name)
		  : 0;
}

int rescue_keep_index(struct cache_dir *dir, const char *index, struct err *err)
{
	int top = cache_dir_fd(dir, CACHE_DIR_TOP), aside = cache_dir_fd(dir, CACHE_DIR_ASIDE);
	static const char *const suffixes[] = {"-wal", "-shm", "-journal", ""};
	char key[INDEX_KEY_MAX], temp[RESCUE_PATH_LEN], name[RESCUE_PATH_LEN];
	int at, rc;

	rc = rescue_key(dir, 0, key, err);
	if (rc)
		return rc;
	at = entry_make(aside, key, temp);
	rc = at < 0 ? at : 0;
	/* The database comes last: what is cut off before finds it damaged again. */
	for (unsigned i = 0; rc == 0 && i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		snprintf(name, sizeof(name), "%s%s", index, suffixes[i]);
		if (renameat(top, name, at, name) && errno != ENOENT)
			rc = -errno;
	}
	if (rc == 0)
		rc = entry_finish(aside, top, at, temp, key);
	if (at >= 0)
		close(at);
	return rc ? err_sys(err, rc, "cache=%s: cannot set its index aside", cache_dir_path(dir))
		  : 0;
}

int rescue_finish(struct cache_dir *dir, struct err *err)
{
	int aside = cache_dir_fd(dir, CACHE_DIR_ASIDE), rc = 0;
	int fd = openat(aside, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;
	char key[INDEX_KEY_MAX];

	if (!list) {
		rc = -errno;
		if (fd >= 0)
			close(fd);
		return err_sys(
		    err, rc, "cache=%s: cannot look at what is set aside", cache_dir_path(dir));
	}
	while (rc == 0 && (entry = readdir(list))) {
		size_t len = strlen(entry->d_name), tail = strlen(SUFFIX_NEW);

		if (len <= tail || len - tail >= sizeof(key) ||
		    strcmp(entry->d_name + len - tail, SUFFIX_NEW) != 0)
			continue;
		snprintf(key, sizeof(key), "%.*s", (int)(len - tail), entry->d_name);
		if (renameat(aside, entry->d_name, aside, key))
			rc = err_sys(
			    err, -errno, "cache=%s: cannot set %s aside", cache_dir_path(dir), key);
	}
	closedir(list);
	return rc;
}

int rescue_key(struct cache_dir *dir, uint64_t id, char ret_key[INDEX_KEY_MAX], struct err *err)
{
	int aside = cache_dir_fd(dir, CACHE_DIR_ASIDE);
	char when[WHEN_LEN], name[CACHE_DATA_NAME_MAX], key[INDEX_KEY_MAX], other[RESCUE_PATH_LEN];
	time_t now = time(NULL);
	struct tm tm;

	strftime(when, sizeof(when), "%Y%m%dT%H%M%SZ", gmtime_r(&now, &tm));
	cache_dir_data_name(id, name);
	for (unsigned n = 1; n < 10000; n++) {
		if (id)
			snprintf(key, sizeof(key), "%s-%s", when, name);
		else
			snprintf(key, sizeof(key), INDEX_PREFIX "%s", when);
		if (n > 1)
			snprintf(key + strlen(key), sizeof(key) - strlen(key), "-%u", n);
		snprintf(other, sizeof(other), "%s" SUFFIX_NEW, key);
		if (exists(aside, key) || exists(aside, other))
			continue;
		snprintf(ret_key, INDEX_KEY_MAX, "%s", key);
		return 0;
	}
	return err_set(
	    err, -EEXIST, "cache=%s: too much is set aside in one second", cache_dir_path(dir));
}
