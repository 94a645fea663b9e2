/* SPDX-License-Identifier: Apache-2.0
 *
 * Regions and mounts as targets of commands; see target.h.
 *
 * A mount can be seen at several places (bind mounts); the one that the daemon was started for is the one that
 * has a directory under /run/remram.
 */
#include "mount/target.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mount/control.h"
#include "mount/mountinfo.h"
#include "mount/runstate.h"

enum { ANSWER_MS = 5000 };

struct search {
	struct target *target;
	dev_t dev;
	bool remram, found;
};

static bool look(void *ctx, const struct mountinfo *info)
{
	struct search *search = ctx;
	char run_dir[MOUNT_RUN_DIR_MAX];
	struct stat st;

	if (info->dev != search->dev || strcmp(info->type, MOUNTINFO_TYPE))
		return true;
	search->remram = true;
	snprintf(search->target->control, sizeof(search->target->control), "%s/control",
	    runstate_dir(info->dir, run_dir));
	if (stat(search->target->control, &st))
		return true;
	snprintf(search->target->dir, sizeof(search->target->dir), "%s", info->dir);
	search->found = true;
	return false;
}

int target_find(const char *path, bool dir_too, struct target *ret_target, struct err *err)
{
	struct search search = {.target = ret_target};
	struct stat st;
	int res;

	memset(ret_target, 0, sizeof(*ret_target));
	ret_target->fd = -1;
	if (stat(path, &st))
		return errno == EINTR ? err_set(err, -EINTR, "%s: interrupted", path)
				      : err_sys(err, -errno, "%s", path);
	snprintf(ret_target->path, sizeof(ret_target->path), "%s", path);
	ret_target->is_dir = S_ISDIR(st.st_mode);
	search.dev = st.st_dev;
	res = mountinfo_each(look, &search);
	if (res)
		return err_sys(err, res, "/proc/self/mountinfo");
	if (!search.remram)
		return err_set(err, -EINVAL, "%s is not in a remram mount", path);
	if (!search.found)
		return err_set(err, -ENOENT,
		    "%s: its mount is not known under %s (has its daemon died?)", path,
		    runstate_base());
	if (ret_target->is_dir && !dir_too)
		return err_set(err, -EISDIR, "%s is a mount: name one of the files in it", path);
	if (!ret_target->is_dir) {
		ret_target->id = st.st_ino;
		ret_target->size = (uint64_t)st.st_size;
	}
	return 0;
}

int target_hold(struct target *target, struct err *err)
{
	target->fd = open(target->path, O_RDONLY | O_CLOEXEC);
	return target->fd < 0 ? err_sys(err, -errno, "%s", target->path) : 0;
}

void target_close(struct target *target)
{
	if (target->fd >= 0)
		close(target->fd);
	target->fd = -1;
}

static int ask_line(
    const struct target *target, const char *line, char **ret_answer, struct err *err)
{
	char *answer;
	int res = control_ask(target->control, line, ANSWER_MS, &answer, err);

	if (res)
		return res;
	if (strncmp(answer, "error: ", 7)) {
		*ret_answer = answer;
		return 0;
	}
	if (!strcmp(answer, "error: unknown request"))
		res = err_set(err, -EOPNOTSUPP,
		    "%s is mounted without a cache: mount it with -o cache=memory or -o cache=DIR",
		    target->dir);
	else
		res = err_set(err, -EREMOTEIO, "%s: %s", target->path, answer + 7);
	free(answer);
	return res;
}

int target_ask(
    const struct target *target, char **ret_answer, struct err *err, const char *fmt, ...)
{
	char line[CONTROL_LINE_MAX];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(line))
		return err_set(err, -E2BIG, "%s: too many ranges at once", target->path);
	return ask_line(target, line, ret_answer, err);
}

int target_ask_json(
    const struct target *target, struct json **ret_doc, struct err *err, const char *fmt, ...)
{
	char line[CONTROL_LINE_MAX], *answer;
	va_list ap;
	int res;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	res = ask_line(target, line, &answer, err);
	if (res)
		return res;
	res = json_parse(answer, strlen(answer), ret_doc, err);
	free(answer);
	return res;
}
