/* SPDX-License-Identifier: Apache-2.0
 *
 * Who keeps a mount or a device busy?  See busy.h.
 *
 * A process is recognised by what its links in /proc say (the kernel prints the paths without asking
 * the file system), and by the device numbers in its list of mappings.
 */
#include "mount/busy.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "mount/loopdev.h"
#include "mount/mountinfo.h"
#include "mount/swapdev.h"
#include "mount/sys.h"

/* Is path dir or below it? */
static bool is_below(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	return !strncmp(path, dir, len) && (path[len] == '/' || path[len] == '\0');
}

static bool link_is_below(const char *link, const char *dir)
{
	char target[PATH_MAX];
	ssize_t len = readlink(link, target, sizeof(target) - 1);

	if (len < 0)
		return false;
	target[len] = '\0';
	return is_below(target, dir);
}

/* Has the process a file of the mount open? */
static bool has_open_file(const char *proc, const char *dir)
{
	char path[PATH_MAX];
	struct dirent *entry;
	bool found = false;
	DIR *stream;

	snprintf(path, sizeof(path), "%s/fd", proc);
	stream = opendir(path);
	if (!stream)
		return false;
	while (!found && (entry = readdir(stream))) {
		snprintf(path, sizeof(path), "%s/fd/%s", proc, entry->d_name);
		found = isdigit((unsigned char)entry->d_name[0]) && link_is_below(path, dir);
	}
	closedir(stream);
	return found;
}

/* Has the process a mapping of a file of the mount? */
static bool has_mapping(const char *proc, dev_t dev)
{
	char path[PATH_MAX], *line = NULL;
	size_t room = 0;
	bool found = false;
	FILE *in;

	snprintf(path, sizeof(path), "%s/maps", proc);
	in = fopen(path, "re");
	if (!in)
		return false;
	while (!found && getline(&line, &room, in) >= 0) {
		unsigned major_nr, minor_nr;
		found = sscanf(line, "%*s %*s %*s %x:%x", &major_nr, &minor_nr) == 2 &&
			makedev(major_nr, minor_nr) == dev;
	}
	free(line);
	fclose(in);
	return found;
}

static const char *process_use(const char *proc, const char *dir, dev_t dev)
{
	static const struct {
		const char *link, *use;
	} links[] = {{"cwd", "has its working directory there"},
	    {"root", "has its root directory there"}, {"exe", "is a program from there"}};
	char path[64];
	unsigned i;

	for (i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", proc, links[i].link);
		if (link_is_below(path, dir))
			return links[i].use;
	}
	if (has_open_file(proc, dir))
		return "has a file open there";
	if (has_mapping(proc, dev))
		return "has a file mapped from there";
	return NULL;
}

static bool find_process(const char *dir, dev_t dev, char *text)
{
	struct dirent *entry;
	const char *use = NULL;
	DIR *stream = opendir("/proc");

	if (!stream)
		return false;
	while (!use && (entry = readdir(stream))) {
		char proc[32], name[64] = "?";
		long pid = strtol(entry->d_name, NULL, 10);
		if (pid <= 0)
			continue;
		snprintf(proc, sizeof(proc), "/proc/%ld", pid);
		use = process_use(proc, dir, dev);
		if (!use)
			continue;
		sys_read_textf(name, sizeof(name), "%s/comm", proc);
		snprintf(text, BUSY_TEXT_MAX, "process %ld (%s) %s", pid, name, use);
	}
	closedir(stream);
	return use != NULL;
}

struct inner {
	const char *dir;
	char *text;
	bool found;
};

static bool inner_each(void *ctx, const struct mountinfo *info)
{
	struct inner *inner = ctx;

	inner->found = strcmp(info->dir, inner->dir) && is_below(info->dir, inner->dir);
	if (inner->found)
		snprintf(inner->text, BUSY_TEXT_MAX, "%.200s is mounted inside it", info->dir);
	return !inner->found;
}

struct loops {
	const char *dir;
	const char *const *known;
	char *text;
	bool found;
};

static bool loops_each(void *ctx, const struct loopdev *loop)
{
	struct loops *loops = ctx;
	unsigned i;

	if (!is_below(loop->file, loops->dir))
		return true;
	for (i = 0; loops->known[i]; i++) {
		if (!strcmp(loops->known[i], loop->path))
			return true;
	}
	snprintf(loops->text, BUSY_TEXT_MAX,
	    "the loop device %s is on %.150s (losetup -d detaches it)", loop->path, loop->file);
	loops->found = true;
	return false;
}

bool busy_mount(
    const char *dir, dev_t dev, const char *const *known_devices, char text[BUSY_TEXT_MAX])
{
	struct inner inner = {.dir = dir, .text = text};
	struct loops loops = {.dir = dir, .known = known_devices, .text = text};

	mountinfo_each(inner_each, &inner);
	if (inner.found)
		return true;
	loopdev_each(loops_each, &loops);
	return loops.found || find_process(dir, dev, text);
}

struct mounted {
	dev_t dev;
	char *text;
	bool found;
};

static bool mounted_each(void *ctx, const struct mountinfo *info)
{
	struct mounted *mounted = ctx;

	mounted->found = info->dev == mounted->dev;
	if (mounted->found)
		snprintf(mounted->text, BUSY_TEXT_MAX, "it is mounted at %.200s", info->dir);
	return !mounted->found;
}

/* Device-mapper and the like sit on top of it. */
static bool find_holder(const char *path, char *text)
{
	char holders[64];
	struct dirent *entry;
	bool found = false;
	DIR *stream;

	snprintf(holders, sizeof(holders), "/sys/block/%s/holders", path + strlen("/dev/"));
	stream = opendir(holders);
	if (!stream)
		return false;
	while (!found && (entry = readdir(stream))) {
		found = entry->d_name[0] != '.';
		if (found)
			snprintf(text, BUSY_TEXT_MAX, "/dev/%.200s is built on it", entry->d_name);
	}
	closedir(stream);
	return found;
}

bool busy_device(const char *path, bool swap_too, char text[BUSY_TEXT_MAX])
{
	struct mounted mounted = {.text = text};
	struct swapdev swap;
	struct stat st;

	if (swap_too && swapdev_find(path, &swap, NULL) == 0) {
		snprintf(text, BUSY_TEXT_MAX, "it is swap (swapoff %s ends that)", path);
		return true;
	}
	if (stat(path, &st) == 0 && S_ISBLK(st.st_mode)) {
		mounted.dev = st.st_rdev;
		mountinfo_each(mounted_each, &mounted);
	}
	return mounted.found || find_holder(path, text);
}
