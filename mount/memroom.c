/* SPDX-License-Identifier: Apache-2.0
 *
 * Is there room in memory for what is swapped out?  See memroom.h.
 *
 * A cgroup directory tells its version by the name of its limit: memory.max (2) or
 * memory.limit_in_bytes (1).  Groups without a limit, and groups that vanish while they are read, are
 * passed over.  Figures of a group include its descendants.
 */
#include "mount/memroom.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/uri.h"
#include "mount/sys.h"

enum {
	DEPTH_MAX = 32, /* of nested cgroups */
	/* What is left alone: the kernel needs some pages to move others. */
	MARGIN = 16 << 20,
};

/* Version 1 alone, version 1 beside version 2, version 2 alone. */
static const char *const split_roots[] = {"/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"};
static const char *const single_root = "/sys/fs/cgroup";

int memroom_check_machine(
    const char *meminfo, uint64_t swap_used, uint64_t others_free, struct err *err)
{
	char used[SIZE_TEXT_MAX], avail[SIZE_TEXT_MAX], other[SIZE_TEXT_MAX];
	uint64_t avail_kb, room;
	int res = sys_read_key(meminfo, "MemAvailable", &avail_kb);

	if (res)
		return err_sys(err, res, "%s: MemAvailable", meminfo);
	room = avail_kb * 1024 + others_free;
	if (swap_used == 0 || swap_used + MARGIN <= room)
		return 0;
	return err_set(err, -ENOMEM,
	    "the memory is too short: %s are swapped out, but only %s of memory and %s of other "
	    "swap are free; end some programs or add other swap, and try again",
	    size_format(swap_used, used), size_format(avail_kb * 1024, avail),
	    size_format(others_free, other));
}

struct group {
	uint64_t limit, usage, swap, file; /* bytes */
};

/* The number in DIR/name; false if it is not there or "max". */
static bool read_number(const char *dir, const char *name, uint64_t *ret_value)
{
	char path[PATH_MAX];

	return (size_t)snprintf(path, sizeof(path), "%s/%s", dir, name) < sizeof(path) &&
	       sys_read_u64(path, ret_value) == 0;
}

static bool read_stat(const char *dir, const char *key, uint64_t *ret_value)
{
	char path[PATH_MAX];

	return (size_t)snprintf(path, sizeof(path), "%s/memory.stat", dir) < sizeof(path) &&
	       sys_read_key(path, key, ret_value) == 0;
}

/* False if the group has no limit. */
static bool read_group(const char *dir, struct group *group)
{
	uint64_t active = 0, inactive = 0;

	if (read_number(dir, "memory.max", &group->limit)) {
		if (!read_number(dir, "memory.current", &group->usage) ||
		    !read_number(dir, "memory.swap.current", &group->swap) ||
		    !read_stat(dir, "active_file", &active) ||
		    !read_stat(dir, "inactive_file", &inactive))
			return false;
	} else if (read_number(dir, "memory.limit_in_bytes", &group->limit)) {
		if (!read_number(dir, "memory.usage_in_bytes", &group->usage) ||
		    !read_stat(dir, "total_swap", &group->swap) ||
		    !read_stat(dir, "total_active_file", &active) ||
		    !read_stat(dir, "total_inactive_file", &inactive))
			return false;
	} else {
		return false;
	}
	group->file = active + inactive;
	return true;
}

static int check_group(const char *dir, uint64_t swap_used, uint64_t others_free, struct err *err)
{
	char swapped[SIZE_TEXT_MAX], limit[SIZE_TEXT_MAX], usage[SIZE_TEXT_MAX];
	struct group group;
	uint64_t room, need;

	if (!read_group(dir, &group))
		return 0;
	need = group.swap < swap_used ? group.swap : swap_used;
	room = group.limit > group.usage ? group.limit - group.usage : 0;
	room += group.file + others_free;
	if (need <= room)
		return 0;
	return err_set(err, -ENOMEM,
	    "the memory of the cgroup %s is too short: %s of it are swapped out, and it uses %s of "
	    "%s; raise its limit or end the programs in it, and try again",
	    dir, size_format(need, swapped), size_format(group.usage, usage),
	    size_format(group.limit, limit));
}

static int check_tree(
    const char *dir, unsigned depth, uint64_t swap_used, uint64_t others_free, struct err *err)
{
	struct dirent *entry;
	int res = check_group(dir, swap_used, others_free, err);
	DIR *stream;

	if (res || depth == DEPTH_MAX)
		return res;
	stream = opendir(dir);
	if (!stream)
		return 0;
	while (res == 0 && (entry = readdir(stream))) {
		char path[PATH_MAX];
		if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
			continue;
		if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name) <
		    sizeof(path))
			res = check_tree(path, depth + 1, swap_used, others_free, err);
	}
	closedir(stream);
	return res;
}

int memroom_check_cgroups(
    const char *cgroup_root, uint64_t swap_used, uint64_t others_free, struct err *err)
{
	return swap_used ? check_tree(cgroup_root, 0, swap_used, others_free, err) : 0;
}

int memroom_check(uint64_t swap_used, uint64_t others_free, struct err *err)
{
	int res = memroom_check_machine("/proc/meminfo", swap_used, others_free, err);
	bool split = false;
	unsigned i;

	for (i = 0; res == 0 && i < 2; i++) {
		if (access(split_roots[i], F_OK))
			continue;
		split = true;
		res = memroom_check_cgroups(split_roots[i], swap_used, others_free, err);
	}
	if (res == 0 && !split)
		res = memroom_check_cgroups(single_root, swap_used, others_free, err);
	return res;
}
