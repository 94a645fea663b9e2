/* SPDX-License-Identifier: Apache-2.0
 *
 * The memory limit that a process lives under; see cgroup.h.
 *
 * /proc/PID/cgroup has lines ID:CONTROLLERS:PATH; the one with "memory" among its controllers is the
 * group of version 1, the one with ID 0 and none is that of version 2.
 */
#include "mount/cgroup.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mount/sys.h"

/* What version 1 says instead of "no limit": LONG_MAX rounded down to pages. */
#define NO_LIMIT (UINT64_MAX >> 2)

struct smallest {
	uint64_t limit;
	char *group;
};

static void look_at(
    const char *root, const char *group, const char *file, struct smallest *smallest)
{
	char path[PATH_MAX];
	uint64_t limit;

	if ((size_t)snprintf(path, sizeof(path), "%s%s/%s", root, group, file) >= sizeof(path))
		return;
	if (sys_read_u64(path, &limit) || limit >= NO_LIMIT || limit >= smallest->limit)
		return;
	smallest->limit = limit;
	snprintf(smallest->group, PATH_MAX, "%s%s", root, group);
}

/* The group and all above it. */
static void look_up(const char *root, char *group, const char *file, struct smallest *smallest)
{
	for (;;) {
		char *slash = strrchr(group, '/');
		look_at(root, strcmp(group, "/") ? group : "", file, smallest);
		if (!slash || slash == group)
			break;
		*slash = '\0';
	}
}

static bool has_word(const char *list, const char *word)
{
	size_t len = strlen(word);

	while (*list) {
		size_t n = strcspn(list, ",");
		if (n == len && !memcmp(list, word, n))
			return true;
		list += n + (list[n] == ',');
	}
	return false;
}

int cgroup_memory_limit(pid_t pid, uint64_t *ret_limit, char ret_group[PATH_MAX])
{
	struct smallest smallest = {.limit = NO_LIMIT, .group = ret_group};
	char path[64], *line = NULL;
	size_t room = 0;
	FILE *in;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
	in = fopen(path, "re");
	if (!in)
		return -errno;
	while (getline(&line, &room, in) >= 0) {
		char *save, *controllers, *group, *id = line;
		controllers = strchr(line, ':');
		group = controllers ? strchr(controllers + 1, ':') : NULL;
		if (!group)
			continue;
		*controllers++ = '\0';
		*group++ = '\0';
		group[strcspn(group, "\n")] = '\0';
		save = strdup(group);
		if (!save)
			break;
		if (has_word(controllers, "memory")) {
			look_up("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes", &smallest);
		} else if (!strcmp(id, "0") && !*controllers) {
			look_up("/sys/fs/cgroup", group, "memory.max", &smallest);
			look_up("/sys/fs/cgroup/unified", save, "memory.max", &smallest);
		}
		free(save);
	}
	free(line);
	fclose(in);
	if (smallest.limit == NO_LIMIT)
		return -ENOENT;
	*ret_limit = smallest.limit;
	return 0;
}
