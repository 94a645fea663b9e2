/* SPDX-License-Identifier: Apache-2.0
 *
 * What mount(8) and umount(8) remember of mounts; see utab.h.
 *
 * The file belongs to libmount and is changed as libmount does it (util-linux 2.38, libmount/src/tab_update.c
 * and lock.c): under a lock on utab.lock it is written anew beside the old one and renamed, so that
 * readers, who take no lock, find one or the other.  A line is
 *
 *   SRC=what TARGET=where ROOT=/ OPTS=options
 *
 * with blanks and backslashes in octal.  Lines of others are copied as they are.
 */
#include "mount/utab.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/uri.h"
#include "mount/escape.h"

#define HELPER_OPTIONS "uhelper=fuse.remram"

static const char *utab_dir = "/run/mount";

void utab_set_dir(const char *dir)
{
	utab_dir = dir;
}

/* Is there " KEY=value" in line, with this value? */
static bool has_value(const char *line, const char *key, const char *value)
{
	size_t key_len = strlen(key);
	char found[URI_TEXT_MAX + PATH_MAX];

	for (; *line; line += strcspn(line, " "), line += strspn(line, " ")) {
		if (strncmp(line, key, key_len) != 0)
			continue;
		snprintf(found, sizeof(found), "%.*s", (int)strcspn(line, " \n") - (int)key_len,
		    line + key_len);
		unescape_octal(found);
		return strcmp(found, value) == 0;
	}
	return false;
}

static void put_escaped(const char *text, FILE *out)
{
	for (; *text; text++) {
		if (strchr(" \t\n\\#", *text))
			fprintf(out, "\\%03o", (unsigned char)*text);
		else
			fputc(*text, out);
	}
}

/* The lock, or -errno. */
static int lock_file(void)
{
	char path[PATH_MAX];
	int fd;

	if (mkdir(utab_dir, 0755) && errno != EEXIST)
		return -errno;
	snprintf(path, sizeof(path), "%s/utab.lock", utab_dir);
	fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	while (flock(fd, LOCK_EX)) {
		int res = -errno;
		if (res == -EINTR)
			continue;
		close(fd);
		return res;
	}
	return fd;
}

/* Copies what is not of source at dir; true if something was left out. */
static bool copy_others(const char *path, const char *source, const char *dir, FILE *out)
{
	FILE *in = fopen(path, "re");
	char *line = NULL;
	size_t room = 0;
	bool found = false;

	while (in && getline(&line, &room, in) >= 0) {
		if (has_value(line, "TARGET=", dir) && has_value(line, "SRC=", source))
			found = true;
		else
			fputs(line, out);
	}
	free(line);
	if (in)
		fclose(in);
	return found;
}

/* With the lock held. */
static int rewrite_locked(const char *source, const char *dir, bool add)
{
	char path[PATH_MAX], fresh[PATH_MAX];
	bool found;
	FILE *out;
	int res;

	snprintf(path, sizeof(path), "%s/utab", utab_dir);
	snprintf(fresh, sizeof(fresh), "%s/utab.remram", utab_dir);
	out = fopen(fresh, "we");
	if (!out)
		return -errno;
	fchmod(fileno(out), 0644);
	found = copy_others(path, source, dir, out);
	if (add) {
		fputs("SRC=", out);
		put_escaped(source, out);
		fputs(" TARGET=", out);
		put_escaped(dir, out);
		fputs(" ROOT=/ OPTS=" HELPER_OPTIONS "\n", out);
	}
	res = ferror(out) ? -EIO : 0;
	if (fclose(out) && res == 0)
		res = -errno;
	if (res == 0 && (add || found) && rename(fresh, path))
		res = -errno;
	else if (res == 0 && (add || found))
		return 0;
	unlink(fresh);
	return res;
}

static int rewrite(const char *source, const char *dir, bool add)
{
	int lock = lock_file(), res;

	if (lock < 0)
		return lock;
	res = rewrite_locked(source, dir, add);
	close(lock);
	return res;
}

int utab_add(const char *source, const char *dir)
{
	return rewrite(source, dir, true);
}

int utab_remove(const char *source, const char *dir)
{
	return rewrite(source, dir, false);
}
