/* SPDX-License-Identifier: Apache-2.0
 *
 * A disk whose power can fail: this program's own versions of the system calls with which files are
 * written (by SQLite, by the file backend, by the index) note every change and every sync of files
 * below one directory.  disk_cut makes the files what a disk may hold after the power has failed:
 * what was synced, and of each change since then all, nothing, or some of its sectors, at random and
 * in any order.
 *
 * What it does not do: names (creations, renames, deletions) last at once, synced or not; a file that
 * shares no sector with a change is never harmed.
 *
 * Included by one test program.  One mutex orders all of it: what is under way when the power fails
 * has happened, or has not.
 */
#ifndef REMRAM_TESTS_DISK_SHIM_H
#define REMRAM_TESTS_DISK_SHIM_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/lib/rig.h"

enum { DISK_FILES = 32, DISK_SECTOR = 512 };

struct disk_change {
	uint64_t off, len;
	uint8_t *bytes; /* NULL: zeros, or (truncate) the file's new length in off */
	bool truncate;
	struct disk_change *next;
};

struct disk_file {
	ino_t ino;
	uint8_t *stable; /* what was synced */
	uint64_t len, room;
	struct disk_change *changes, **tail;
};

static pthread_mutex_t disk_mu = PTHREAD_MUTEX_INITIALIZER;
static bool disk_on;
static dev_t disk_dev;
static struct disk_file disk_files[DISK_FILES];
static unsigned disk_count;
static unsigned disk_lost; /* changes that disk_cut has dropped or torn */

static void disk_resize(struct disk_file *file, uint64_t len)
{
	if (len > file->room) {
		file->room = 2 * len + 4096;
		file->stable = realloc(file->stable, file->room);
		rig_check(file->stable, "out of memory");
	}
	if (len > file->len)
		memset(file->stable + file->len, 0, len - file->len);
	file->len = len;
}

/* The file of fd, noted with what it holds now if it is new; NULL if it is none of ours. */
static struct disk_file *disk_of(int fd)
{
	struct disk_file *file;
	struct stat st;
	char name[32];
	int own;

	if (!disk_on || fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_dev != disk_dev)
		return NULL;
	for (unsigned i = 0; i < disk_count; i++)
		if (disk_files[i].ino == st.st_ino)
			return &disk_files[i];
	rig_check(disk_count < DISK_FILES, "too many files");
	file = &disk_files[disk_count++];
	*file = (struct disk_file){.ino = st.st_ino};
	file->tail = &file->changes;
	disk_resize(file, (uint64_t)st.st_size);
	/* fd may be for writing only. */
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	own = open(name, O_RDONLY | O_CLOEXEC);
	rig_check(syscall(SYS_pread64, own, file->stable, file->len, 0) == st.st_size, "pread");
	close(own);
	return file;
}

static void disk_note(
    struct disk_file *file, uint64_t off, uint64_t len, const void *bytes, bool truncate)
{
	struct disk_change *change = calloc(1, sizeof(*change));

	rig_check(change, "out of memory");
	*change = (struct disk_change){.off = off, .len = len, .truncate = truncate};
	if (bytes) {
		change->bytes = malloc(len);
		rig_check(change->bytes, "out of memory");
		memcpy(change->bytes, bytes, len);
	}
	*file->tail = change;
	file->tail = &change->next;
}

static void disk_apply(
    struct disk_file *file, const struct disk_change *change, struct rig_random *torn)
{
	if (change->truncate) {
		disk_resize(file, change->off);
		return;
	}
	/* A punch does not make a file longer. */
	if (change->bytes && change->off + change->len > file->len)
		disk_resize(file, change->off + change->len);
	for (uint64_t pos = change->off, end = pos + change->len; pos < end && pos < file->len;) {
		uint64_t stop = (pos / DISK_SECTOR + 1) * DISK_SECTOR;
		size_t n = (size_t)((stop < end ? stop : end) - pos);

		if (pos + n > file->len)
			n = (size_t)(file->len - pos);
		if (!torn || rig_random_below(torn, 2)) {
			if (change->bytes)
				memcpy(file->stable + pos, change->bytes + (pos - change->off), n);
			else
				memset(file->stable + pos, 0, n);
		}
		pos += n;
	}
}

/* All changes are stable now; random: or not. */
static void disk_settle(struct disk_file *file, struct rig_random *random)
{
	while (file->changes) {
		struct disk_change *change = file->changes;
		uint64_t fate = random ? rig_random_below(random, 3) : 0;

		file->changes = change->next;
		disk_lost += fate != 0;
		if (fate == 0)
			disk_apply(file, change, NULL);
		else if (fate == 1 && !change->truncate)
			disk_apply(file, change, random);
		free(change->bytes);
		free(change);
	}
	file->tail = &file->changes;
}

static struct rig_random *disk_random;

static int disk_rewrite(const char *path, const struct stat *st, int type, struct FTW *where)
{
	int fd;

	for (unsigned i = 0; type == FTW_F && i < disk_count; i++) {
		struct disk_file *file = &disk_files[i];

		if (file->ino != st->st_ino)
			continue;
		disk_settle(file, disk_random);
		fd = open(path, O_RDWR | O_CLOEXEC);
		rig_check(fd >= 0 && syscall(SYS_ftruncate, fd, 0) == 0, "rewrite %s", path);
		for (uint64_t pos = 0; pos < file->len; pos += DISK_SECTOR) {
			static const uint8_t zeros[DISK_SECTOR];
			size_t n = file->len - pos < DISK_SECTOR ? file->len - pos : DISK_SECTOR;

			/* Holes stay holes. */
			if (memcmp(file->stable + pos, zeros, n))
				rig_check(syscall(SYS_pwrite64, fd, file->stable + pos, n, pos) ==
					      (ssize_t)n,
				    "rewrite %s", path);
		}
		rig_check(syscall(SYS_ftruncate, fd, file->len) == 0, "rewrite %s", path);
		close(fd);
	}
	return 0;
}

/* Begins to note the changes of files on path's file system. */
static void disk_begin(const char *path)
{
	struct stat st;

	ck_assert_int_eq(stat(path, &st), 0);
	disk_dev = st.st_dev;
	disk_count = 0;
	disk_on = true;
}

/* The power fails: nothing that other threads do afterwards reaches the disk.  The caller ends the
 * process. */
static void disk_cut(const char *path, struct rig_random *random)
{
	pthread_mutex_lock(&disk_mu); /* for ever */
	disk_random = random;
	nftw(path, disk_rewrite, 16, FTW_PHYS);
}

/* ---- the system calls ---- */

ssize_t pwrite64(int fd, const void *buf, size_t len, off64_t off)
{
	struct disk_file *file;
	ssize_t n;

	pthread_mutex_lock(&disk_mu);
	file = disk_of(fd);
	n = syscall(SYS_pwrite64, fd, buf, len, off);
	if (file && n > 0)
		disk_note(file, (uint64_t)off, (uint64_t)n, buf, false);
	pthread_mutex_unlock(&disk_mu);
	return n;
}

ssize_t pwritev64v2(int fd, const struct iovec *iov, int count, off64_t off, int flags)
{
	struct disk_file *file;
	ssize_t n;

	pthread_mutex_lock(&disk_mu);
	file = disk_of(fd);
	rig_check(count == 1, "one buffer");
	n = syscall(SYS_pwritev2, fd, iov, count, off, 0, flags);
	if (file && n > 0)
		disk_note(file, (uint64_t)off, (uint64_t)n, iov->iov_base, false);
	if (file && n > 0 && flags & RWF_DSYNC)
		disk_settle(file, NULL);
	pthread_mutex_unlock(&disk_mu);
	return n;
}

int fallocate64(int fd, int mode, off64_t off, off64_t len)
{
	struct disk_file *file;
	int rc;

	pthread_mutex_lock(&disk_mu);
	file = disk_of(fd);
	rc = (int)syscall(SYS_fallocate, fd, mode, off, len);
	if (file && rc == 0 && mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		disk_note(file, (uint64_t)off, (uint64_t)len, NULL, false);
	pthread_mutex_unlock(&disk_mu);
	return rc;
}

int ftruncate64(int fd, off64_t len)
{
	struct disk_file *file;
	int rc;

	pthread_mutex_lock(&disk_mu);
	file = disk_of(fd);
	rc = (int)syscall(SYS_ftruncate, fd, len);
	if (file && rc == 0)
		disk_note(file, (uint64_t)len, 0, NULL, true);
	pthread_mutex_unlock(&disk_mu);
	return rc;
}

static int disk_sync(int fd, long number)
{
	struct disk_file *file;
	int rc;

	pthread_mutex_lock(&disk_mu);
	file = disk_of(fd);
	/* The real one would only cost time: nothing here outlives this machine's page cache. */
	rc = file ? 0 : (int)syscall(number, fd);
	if (file)
		disk_settle(file, NULL);
	pthread_mutex_unlock(&disk_mu);
	return rc;
}

int fdatasync(int fd)
{
	return disk_sync(fd, SYS_fdatasync);
}

int fsync(int fd)
{
	return disk_sync(fd, SYS_fsync);
}

#endif
