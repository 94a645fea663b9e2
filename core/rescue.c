/* SPDX-License-Identifier: Apache-2.0
 *
 * The rescue store: entries of DIR/aside, made, listed, exported and dropped.
 *
 * `about` is a text of lines, names percent-encoded, numbers decimal, bitmaps and checksums hex:
 *   remram-aside 1
 *   name NAME | id ID | size BYTES | version N | when SECONDS | why TEXT | known 1 or 0
 *   chunk IDX RESIDENT DIRTY SUMS     8 digits per resident block, in their order
 *   end SUM                           CRC-32C of all lines before
 *
 * States of an entry, by its directory's name; each arrow is one rename:
 *   KEY.new: being made ─► KEY: whole ─► KEY.drop: being deleted ─► gone
 *
 * core/rescue_keep.c makes them.
 *
 * Invariants:
 *   1. A data file is in data/, or in exactly one entry; it is never copied over and never deleted but
 *      by rescue_drop.
 *   2. KEY has a whole `about`.  If one can't be read all the same, the disk is bad: the entry is listed,
 *      all of its data counts as dirty.
 * Locking: none.
 */
#include "core/rescue.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cache_data.h"
#include "core/crc32c.h"
#include "core/rescue_int.h"
#include "core/store.h"

/* An entry as read: what its `about` says, and its data file. */
struct aside {
	struct rescue_entry entry;
	struct index_row *rows;
	size_t count;
	int data; /* or -1: it has no data */
};

static int at_error(int code, const char *what, const char *key, struct err *err)
{
	return err_sys(err, code, "cannot %s what is set aside as %s", what, key);
}

static bool exists(int at, const char *name)
{
	struct stat st;

	return fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* ---- reading ---- */

static void decode(const char *text, char *ret_text, size_t room)
{
	size_t n = 0;

	for (; *text && *text != '\n' && n + 1 < room; text++) {
		unsigned byte;

		if (*text == '%' && sscanf(text + 1, "%2x", &byte) == 1) {
			ret_text[n++] = (char)byte;
			text += 2;
		} else {
			ret_text[n++] = *text;
		}
	}
	ret_text[n] = '\0';
}

/* The value of line `key VALUE`, or NULL. */
static const char *value_of(const char *line, const char *key)
{
	size_t len = strlen(key);

	return strncmp(line, key, len) == 0 && line[len] == ' ' ? line + len + 1 : NULL;
}

static bool parse_row(const char *text, struct index_row *ret_row)
{
	int n = 0;

	memset(ret_row, 0, sizeof(*ret_row));
	if (sscanf(text, "%" SCNu64 " %" SCNx64 " %" SCNx64 " %n", &ret_row->chunk.idx,
		&ret_row->chunk.resident, &ret_row->chunk.dirty, &n) != 3)
		return false;
	text += n;
	for (uint64_t left = ret_row->chunk.resident; left; left &= left - 1, text += 8) {
		char digits[9] = "";

		memcpy(digits, text, strnlen(text, 8));
		if (strspn(digits, "0123456789abcdef") != 8)
			return false;
		ret_row->sums[__builtin_ctzll(left)] = (uint32_t)strtoul(digits, NULL, 16);
	}
	return true;
}

static bool parse_line(struct aside *aside, const char *line, size_t *room)
{
	struct rescue_entry *entry = &aside->entry;
	const char *value;

	if ((value = value_of(line, "name")))
		decode(value, entry->name, sizeof(entry->name));
	else if ((value = value_of(line, "why")))
		decode(value, entry->why, sizeof(entry->why));
	else if ((value = value_of(line, "id")))
		entry->id = strtoull(value, NULL, 10);
	else if ((value = value_of(line, "size")))
		entry->size = strtoull(value, NULL, 10);
	else if ((value = value_of(line, "version")))
		entry->version = strtoull(value, NULL, 10);
	else if ((value = value_of(line, "when")))
		entry->when = strtoll(value, NULL, 10);
	else if ((value = value_of(line, "known")))
		entry->unknown = value[0] != '1';
	else if ((value = value_of(line, "chunk"))) {
		if (aside->count == *room) {
			size_t more = *room ? 2 * *room : 64;
			struct index_row *rows = realloc(aside->rows, more * sizeof(*rows));

			if (!rows)
				return false;
			aside->rows = rows;
			*room = more;
		}
		return parse_row(value, &aside->rows[aside->count++]);
	} else {
		return strcmp(line, ABOUT_HEAD) == 0;
	}
	return true;
}

/* Reads an entry's `about`; false if it is not whole. */
static bool about_read(struct aside *aside, int at)
{
	int fd = openat(at, ABOUT, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;
	size_t room = 0, line_room = 0;
	bool whole = false, good = true;
	uint32_t sum = 0;
	char *line = NULL;
	ssize_t len;

	if (!file) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	while (good && !whole && (len = getline(&line, &line_room, file)) > 0) {
		const char *value = value_of(line, "end");

		if (value)
			good = whole = strtoul(value, NULL, 16) == sum;
		else
			good = parse_line(aside, line, &room);
		sum = crc32c(sum, line, (size_t)len);
	}
	free(line);
	fclose(file);
	return good && whole;
}

/* What is known of an entry whose `about` is damaged. */
static void about_guess(struct aside *aside)
{
	struct stat st;

	free(aside->rows);
	aside->rows = NULL;
	aside->count = 0;
	snprintf(aside->entry.name, sizeof(aside->entry.name), "?");
	snprintf(aside->entry.why, sizeof(aside->entry.why),
	    "its description is damaged: all of its data is kept");
	aside->entry.unknown = true;
	if (aside->data >= 0 && fstat(aside->data, &st) == 0)
		aside->entry.size = (uint64_t)st.st_size;
}

static void aside_close(struct aside *aside)
{
	free(aside->rows);
	if (aside->data >= 0)
		close(aside->data);
}

/* Opens entry `key`: 0 or -errno. */
static int aside_open(int dir, const char *key, struct aside *ret_aside)
{
	int at = openat(dir, key, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;

	memset(ret_aside, 0, sizeof(*ret_aside));
	ret_aside->data = -1;
	if (at < 0)
		return -errno;
	snprintf(ret_aside->entry.key, sizeof(ret_aside->entry.key), "%s", key);
	if (strncmp(key, INDEX_PREFIX, strlen(INDEX_PREFIX)) == 0) {
		ret_aside->entry.index = true;
		ret_aside->entry.when = fstat(at, &st) == 0 ? st.st_mtim.tv_sec : 0;
	} else {
		ret_aside->data = openat(at, DATA, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (!about_read(ret_aside, at))
			about_guess(ret_aside);
	}
	close(at);
	return 0;
}

/* ---- dirty ranges ---- */

struct walk {
	int (*range)(void *ctx, uint64_t off, uint64_t len);
	void *ctx;
	uint64_t size; /* nothing beyond it */
	uint64_t off, end; /* the range that is being collected */
};

static int walk_flush(struct walk *walk)
{
	uint64_t end = walk->end < walk->size ? walk->end : walk->size;
	int rc = walk->off < end ? walk->range(walk->ctx, walk->off, end - walk->off) : 0;

	walk->off = walk->end = 0;
	return rc;
}

static int walk_chunk(struct walk *walk, uint64_t idx, uint64_t blocks)
{
	for (unsigned pos = 0, len = 0; cache_run_next(blocks, &pos, &len); pos += len) {
		uint64_t off = idx * INDEX_CHUNK + (uint64_t)pos * STORE_BLOCK;
		int rc;

		if (off != walk->end || walk->off == walk->end) {
			rc = walk_flush(walk);
			if (rc)
				return rc;
			walk->off = off;
		}
		walk->end = off + (uint64_t)len * STORE_BLOCK;
	}
	return 0;
}

/* Calls range for what is dirty: of known entries what the rows say; of others also data of which no row
 * says that it is clean. */
static int walk_dirty(
    const struct aside *aside, int (*range)(void *ctx, uint64_t off, uint64_t len), void *ctx)
{
	struct walk walk = {.range = range, .ctx = ctx, .size = aside->entry.size};
	uint64_t data_idx = 0, data = 0;
	bool more = aside->entry.unknown && aside->data >= 0;
	int rc = 0;

	if (more)
		more = cache_data_next(aside->data, 0, &data_idx, &data) == 0;
	for (size_t i = 0; rc == 0 && (more || i < aside->count);) {
		const struct index_chunk *chunk = i < aside->count ? &aside->rows[i].chunk : NULL;
		uint64_t idx = chunk && (!more || chunk->idx <= data_idx) ? chunk->idx : data_idx;
		uint64_t blocks = 0, clean = 0;

		if (chunk && chunk->idx == idx) {
			blocks = chunk->dirty;
			clean = chunk->resident & ~chunk->dirty;
			i++;
		}
		if (more && data_idx == idx) {
			blocks |= data & ~clean;
			more = cache_data_next(aside->data, idx + 1, &data_idx, &data) == 0;
		}
		rc = walk_chunk(&walk, idx, blocks);
	}
	return rc ? rc : walk_flush(&walk);
}

/* ---- entry points ---- */

/* DIR/aside of the cache directory path. */
static int aside_dir_open(const char *path, struct err *err)
{
	char name[PATH_MAX];
	int fd;

	snprintf(name, sizeof(name), "%s/aside", path);
	fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd >= 0 ? fd : err_sys(err, -errno, "%s: cannot look at what is set aside", path);
}

static bool ends_with(const char *name, const char *suffix)
{
	size_t len = strlen(name), tail = strlen(suffix);

	return len >= tail && strcmp(name + len - tail, suffix) == 0;
}

static bool is_key(const char *name)
{
	return name[0] != '.' && !strchr(name, '/') && strlen(name) < INDEX_KEY_MAX &&
	       !ends_with(name, SUFFIX_NEW) && !ends_with(name, SUFFIX_DROP);
}

static int choose_key(const struct dirent *entry)
{
	return is_key(entry->d_name);
}

static int count_range(void *ctx, uint64_t off, uint64_t len)
{
	struct rescue_entry *entry = ctx;

	entry->dirty_bytes += len;
	entry->ranges++;
	return 0;
}

/* An index's entry has its time in the key after the prefix. */
static int by_time(const struct dirent **a, const struct dirent **b)
{
	const char *left = (*a)->d_name, *right = (*b)->d_name;
	size_t prefix = strlen(INDEX_PREFIX);

	left += strncmp(left, INDEX_PREFIX, prefix) == 0 ? prefix : 0;
	right += strncmp(right, INDEX_PREFIX, prefix) == 0 ? prefix : 0;
	return strcmp(left, right);
}

int rescue_list(const char *path, void (*found)(void *ctx, const struct rescue_entry *entry),
    void *ctx, struct err *err)
{
	int dir = aside_dir_open(path, err), n, rc = 0;
	struct dirent **names = NULL;
	struct aside aside;

	if (dir < 0)
		return dir;
	n = scandirat(dir, ".", &names, choose_key, by_time);
	if (n < 0)
		rc = err_sys(err, -errno, "%s: cannot read what is set aside", path);
	for (int i = 0; i < n; i++) {
		/* One that has just been dropped is not there any more. */
		if (rc == 0 && aside_open(dir, names[i]->d_name, &aside) == 0) {
			walk_dirty(&aside, count_range, &aside.entry);
			found(ctx, &aside.entry);
			aside_close(&aside);
		}
		free(names[i]);
	}
	free(names);
	close(dir);
	return rc;
}

static int find(const char *path, const char *key, struct aside *ret_aside, struct err *err)
{
	int dir = aside_dir_open(path, err), rc;

	if (dir < 0)
		return dir;
	rc = is_key(key) ? aside_open(dir, key, ret_aside) : -ENOENT;
	close(dir);
	if (rc == -ENOENT)
		return err_set(err, rc, "%s: nothing is set aside as \"%s\"", path, key);
	return rc ? at_error(rc, "open", key, err) : 0;
}

struct ranges {
	void (*range)(void *ctx, uint64_t off, uint64_t len);
	void *ctx;
};

static int pass_range(void *ctx, uint64_t off, uint64_t len)
{
	struct ranges *ranges = ctx;

	ranges->range(ranges->ctx, off, len);
	return 0;
}

int rescue_ranges(const char *path, const char *key,
    void (*range)(void *ctx, uint64_t off, uint64_t len), void *ctx, struct err *err)
{
	struct ranges ranges = {range, ctx};
	struct aside aside;
	int rc = find(path, key, &aside, err);

	if (rc)
		return rc;
	rc = walk_dirty(&aside, pass_range, &ranges);
	aside_close(&aside);
	return rc ? at_error(rc, "read", key, err) : 0;
}

struct export
{
	const struct aside *aside;
	int to;
	size_t row; /* the first one that may concern what comes next */
	uint64_t bad;
	uint8_t *buf; /* INDEX_CHUNK bytes */
};

/* Counts the blocks of [off, off+len), which buf holds, that do not fit their checksum. */
static void check_blocks(struct export *ex, uint64_t off, size_t len)
{
	const struct aside *aside = ex->aside;
	uint64_t idx = off / INDEX_CHUNK;

	while (ex->row < aside->count && aside->rows[ex->row].chunk.idx < idx)
		ex->row++;
	for (size_t pos = 0; pos < len; pos += STORE_BLOCK) {
		unsigned block = (unsigned)((off + pos) % INDEX_CHUNK / STORE_BLOCK);
		const struct index_row *row = ex->row < aside->count ? &aside->rows[ex->row] : NULL;

		if (!row || row->chunk.idx != idx || !(row->chunk.resident >> block & 1) ||
		    crc32c(0, ex->buf + pos, STORE_BLOCK) != row->sums[block])
			ex->bad++;
	}
}

static int write_at(int fd, const uint8_t *buf, size_t len, uint64_t off)
{
	while (len) {
		ssize_t n = pwrite(fd, buf, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		buf += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int export_range(void *ctx, uint64_t off, uint64_t len)
{
	struct export *ex = ctx;
	uint64_t end = off + len;

	while (off < end) {
		uint64_t stop = (off / INDEX_CHUNK + 1) * INDEX_CHUNK;
		size_t n = (size_t)((stop < end ? stop : end) - off);
		/* Whole blocks are read: their checksums cover them. */
		size_t blocks = (n + STORE_BLOCK - 1) / STORE_BLOCK * STORE_BLOCK;
		int rc = cache_data_read(ex->aside->data, ex->buf, blocks, off);

		if (rc == 0) {
			check_blocks(ex, off, blocks);
			rc = write_at(ex->to, ex->buf, n, off);
		}
		if (rc)
			return rc;
		off += n;
	}
	return 0;
}

static int export_data(const struct aside *aside, int to, uint64_t *ret_bad)
{
	struct export ex = {.aside = aside, .to = to, .buf = malloc(INDEX_CHUNK)};
	int rc;

	if (!ex.buf)
		return -ENOMEM;
	if (ftruncate(to, (off_t)aside->entry.size))
		rc = -errno;
	else
		rc = walk_dirty(aside, export_range, &ex);
	if (rc == 0 && fsync(to))
		rc = -errno;
	free(ex.buf);
	if (rc == 0)
		*ret_bad = ex.bad;
	return rc;
}

int rescue_export(
    const char *path, const char *key, const char *to, uint64_t *ret_bad, struct err *err)
{
	struct aside aside;
	int fd, rc = find(path, key, &aside, err);

	if (rc)
		return rc;
	if (aside.data < 0) {
		aside_close(&aside);
		return err_set(err, -ENODATA, "%s: what is set aside as %s has no data", path, key);
	}
	fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		rc = err_sys(err, -errno, "cannot create %s", to);
	} else {
		rc = export_data(&aside, fd, ret_bad);
		close(fd);
		if (rc) {
			unlink(to);
			rc = err_sys(
			    err, rc, "cannot write %s from what is set aside as %s", to, key);
		}
	}
	aside_close(&aside);
	return rc;
}

/* Deletes the files of an entry that has its last name, and the entry. */
static int remove_entry(int dir, const char *name)
{
	int at = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *list = at >= 0 ? fdopendir(at) : NULL;
	struct dirent *entry;
	int rc = list ? 0 : -errno;

	if (!list) {
		if (at >= 0)
			close(at);
		return rc;
	}
	while ((entry = readdir(list)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
		    unlinkat(at, entry->d_name, 0))
			rc = -errno;
	closedir(list);
	if (rc == 0 && unlinkat(dir, name, AT_REMOVEDIR))
		rc = -errno;
	return rc;
}

int rescue_drop(const char *path, const char *key, struct err *err)
{
	int dir = aside_dir_open(path, err), rc = -ENOENT;
	char name[RESCUE_PATH_LEN];

	if (dir < 0)
		return dir;
	snprintf(name, sizeof(name), "%s" SUFFIX_DROP, key);
	if (is_key(key)) {
		/* One whose deletion was cut off has its last name already. */
		rc = renameat(dir, key, dir, name) ? -errno : 0;
		if (rc == 0 || (rc == -ENOENT && exists(dir, name)))
			rc = remove_entry(dir, name);
	}
	if (rc == 0 && fsync(dir))
		rc = -errno;
	close(dir);
	if (rc == -ENOENT)
		return err_set(err, rc, "%s: nothing is set aside as \"%s\"", path, key);
	return rc ? at_error(rc, "delete", key, err) : 0;
}
