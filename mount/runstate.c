/* SPDX-License-Identifier: Apache-2.0
 *
 * What is known about live mounts, under /run/remram; see runstate.h.
 *
 * The lock is flock(2) on the directory itself, taken through a descriptor that only the command has.
 * A command that waited for the lock may find that its holder has removed the directory meanwhile:
 * after locking, path and descriptor must still be the same inode, else it starts again.
 *
 * mount.conf has one "key value…" line per item, values percent-escaped:
 *   dir PATH / source TEXT / pid NUMBER START
 *   device REGION DEVICE|- swap|loop PRIO|- discard|keep rw|ro
 * Unknown keys are passed over, so that a newer version's file can be undone by this one.
 */
#include "mount/runstate.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mount/escape.h"
#include "mount/sys.h"

enum {
	PATH_ROOM = MOUNT_RUN_DIR_MAX + POOL_NAME_MAX + 2,
	HASH_DIGITS = 16,
	POLL_MS = 20,
};

#define STATE_FILE "mount.conf"
#define STATE_NEW "mount.conf.new"
#define CONTROL_SOCKET "control"

static const char *base_dir = "/run/remram";

void runstate_set_base(const char *base)
{
	base_dir = base;
}

const char *runstate_base(void)
{
	return base_dir;
}

/* FNV-1a, 64 bits. */
static uint64_t hash_text(const char *text)
{
	uint64_t hash = 0xcbf29ce484222325u;

	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
	return hash;
}

char *runstate_dir(const char *dir, char *buf)
{
	char id[PATH_MAX * 4 + 2];
	size_t room = MOUNT_RUN_DIR_MAX - strlen(base_dir) - 2;

	escape_path(dir, id, sizeof(id));
	if (strlen(id) > room)
		sprintf(id + room - HASH_DIGITS - 1, "-%0*" PRIx64, HASH_DIGITS, hash_text(dir));
	snprintf(buf, MOUNT_RUN_DIR_MAX, "%s/%.*s", base_dir, (int)room, id);
	return buf;
}

/* True if path still names the directory that fd is. */
static bool same_inode(const char *path, int fd)
{
	struct stat by_path, by_fd;

	return !stat(path, &by_path) && !fstat(fd, &by_fd) && by_path.st_dev == by_fd.st_dev &&
	       by_path.st_ino == by_fd.st_ino;
}

/* One try: 0, -EWOULDBLOCK, or another error that is final. */
static int try_lock(const char *run_dir, bool create, int *ret_fd)
{
	int fd, res = 0;

	if (create && mkdir(run_dir, 0755) && errno != EEXIST)
		return -errno;
	fd = open(run_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT && create ? -EWOULDBLOCK : -errno;
	if (flock(fd, LOCK_EX | LOCK_NB))
		res = -errno;
	else if (!same_inode(run_dir, fd))
		res = -EWOULDBLOCK;
	if (res)
		close(fd);
	else
		*ret_fd = fd;
	return res;
}

int runstate_lock(
    const char *run_dir, bool create, unsigned timeout_ms, int *ret_fd, struct err *err)
{
	uint64_t end = sys_now_ms() + timeout_ms;
	int res;

	if (create && mkdir(base_dir, 0755) && errno != EEXIST)
		return err_sys(err, -errno, "cannot make the directory %s", base_dir);
	while ((res = try_lock(run_dir, create, ret_fd)) == -EWOULDBLOCK && sys_now_ms() < end)
		sys_sleep_ms(POLL_MS);
	if (res == -EWOULDBLOCK)
		return err_set(err, -EBUSY,
		    "another remram command is working on this mount: wait for its end (it holds "
		    "the lock of %s)",
		    run_dir);
	if (res)
		return err_sys(err, res, "%s", run_dir);
	return 0;
}

void runstate_unlock(int fd)
{
	close(fd);
}

static void write_escaped(FILE *out, const char *key, const char *text)
{
	char escaped[URI_TEXT_MAX * 3 + 1];

	if (escape_percent(text, escaped, sizeof(escaped)) == 0)
		fprintf(out, "%s %s", key, escaped);
}

static void write_device(FILE *out, const struct runstate_device *dev)
{
	write_escaped(out, "device", dev->region);
	fprintf(out, " %s %s ", dev->device[0] ? dev->device : "-", dev->swap ? "swap" : "loop");
	if (dev->prio == MOUNT_PRIO_NONE)
		fputs("-", out);
	else
		fprintf(out, "%u", dev->prio);
	fprintf(out, " %s %s %" PRIu64 "\n", dev->discard ? "discard" : "keep",
	    dev->read_only ? "ro" : "rw", dev->id);
}

static void write_state(FILE *out, const struct runstate *state)
{
	unsigned i;

	write_escaped(out, "dir", state->dir);
	write_escaped(out, "\nsource", state->source);
	fprintf(out, "\npid %d %" PRIu64 "\n", (int)state->pid, state->start);
	for (i = 0; i < state->device_count; i++)
		write_device(out, &state->devices[i]);
}

int runstate_save(const char *run_dir, const struct runstate *state, struct err *err)
{
	char path[PATH_ROOM], path_new[PATH_ROOM];
	FILE *out;
	int fd, bad;

	snprintf(path, sizeof(path), "%s/%s", run_dir, STATE_FILE);
	snprintf(path_new, sizeof(path_new), "%s/%s", run_dir, STATE_NEW);
	fd = open(path_new, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
	out = fd < 0 ? NULL : fdopen(fd, "w");
	if (!out) {
		int code = -errno;
		if (fd >= 0)
			close(fd);
		return err_sys(err, code, "cannot write %s", path_new);
	}
	write_state(out, state);
	bad = ferror(out);
	if (fclose(out) || bad || rename(path_new, path))
		return err_sys(err, errno ? -errno : -EIO, "cannot write %s", path);
	return 0;
}

static bool read_device(char *words, struct runstate *state)
{
	char region[POOL_NAME_MAX * 3 + 1], device[RUNSTATE_DEVICE_MAX], prio[16];
	char use[8], discard[8], access[8];
	struct runstate_device *dev = &state->devices[state->device_count];
	uint64_t id;

	if (state->device_count == RUNSTATE_DEVICES_MAX)
		return false;
	_Static_assert(POOL_NAME_MAX * 3 == 765 && RUNSTATE_DEVICE_MAX == 32, "widths below");
	if (sscanf(words, "%765s %31s %7s %15s %7s %7s %" SCNu64, region, device, use, prio,
		discard, access, &id) != 7)
		return false;
	memset(dev, 0, sizeof(*dev));
	if (unescape_percent(region, dev->region, sizeof(dev->region)))
		return false;
	if (strcmp(device, "-"))
		strcpy(dev->device, device);
	dev->swap = !strcmp(use, "swap");
	dev->discard = !strcmp(discard, "discard");
	dev->read_only = !strcmp(access, "ro");
	dev->id = id;
	dev->prio = strcmp(prio, "-") ? (uint32_t)strtoul(prio, NULL, 10) : MOUNT_PRIO_NONE;
	state->device_count++;
	return true;
}

static bool read_line(char *line, struct runstate *state)
{
	char *value = strchr(line, ' ');
	int pid;

	if (!value)
		return false;
	*value++ = '\0';
	value[strcspn(value, "\n")] = '\0';
	if (!strcmp(line, "dir"))
		return !unescape_percent(value, state->dir, sizeof(state->dir));
	if (!strcmp(line, "source"))
		return !unescape_percent(value, state->source, sizeof(state->source));
	if (!strcmp(line, "pid")) {
		if (sscanf(value, "%d %" SCNu64, &pid, &state->start) != 2)
			return false;
		state->pid = pid;
	}
	if (!strcmp(line, "device"))
		return read_device(value, state);
	return true;
}

int runstate_load(const char *run_dir, struct runstate *ret_state, struct err *err)
{
	char path[PATH_ROOM], *line = NULL;
	struct runstate state;
	size_t room = 0;
	bool good = true;
	FILE *in;

	snprintf(path, sizeof(path), "%s/%s", run_dir, STATE_FILE);
	in = fopen(path, "re");
	if (!in)
		return err_sys(err, -errno, "%s", path);
	memset(&state, 0, sizeof(state));
	while (good && getline(&line, &room, in) >= 0)
		good = read_line(line, &state);
	free(line);
	fclose(in);
	if (!good || !state.dir[0])
		return err_set(err, -EINVAL, "%s: damaged", path);
	*ret_state = state;
	return 0;
}

bool runstate_name_ok(const char *region)
{
	return strcmp(region, STATE_FILE) && strcmp(region, STATE_NEW) &&
	       strcmp(region, CONTROL_SOCKET);
}

int runstate_link(const char *run_dir, const char *region, const char *device, struct err *err)
{
	char path[PATH_ROOM];

	snprintf(path, sizeof(path), "%s/%s", run_dir, region);
	if (unlink(path) && errno != ENOENT)
		return err_sys(err, -errno, "cannot replace %s", path);
	if (symlink(device, path))
		return err_sys(err, -errno, "cannot make the link %s", path);
	return 0;
}

void runstate_unlink(const char *run_dir, const char *region)
{
	char path[PATH_ROOM];

	snprintf(path, sizeof(path), "%s/%s", run_dir, region);
	unlink(path);
}

void runstate_remove(const char *run_dir)
{
	DIR *dir = opendir(run_dir);
	struct dirent *entry;

	if (!dir)
		return;
	while ((entry = readdir(dir)))
		unlinkat(dirfd(dir), entry->d_name, 0);
	rmdir(run_dir);
	closedir(dir);
}

bool runstate_alive(const struct runstate *state)
{
	return state->pid > 0 && sys_process_alive(state->pid, state->start);
}

int runstate_each(
    void (*each)(void *ctx, const char *run_dir, const struct runstate *state), void *ctx)
{
	struct dirent **entries;
	int i, count = scandir(base_dir, &entries, NULL, alphasort);

	if (count < 0)
		return errno == ENOENT ? 0 : -errno;
	for (i = 0; i < count; i++) {
		char run_dir[PATH_MAX];
		struct runstate state;
		struct err ignored;
		snprintf(run_dir, sizeof(run_dir), "%s/%s", base_dir, entries[i]->d_name);
		if (entries[i]->d_name[0] != '.' && !runstate_load(run_dir, &state, &ignored))
			each(ctx, run_dir, &state);
		free(entries[i]);
	}
	free(entries);
	return 0;
}
