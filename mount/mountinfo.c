/* SPDX-License-Identifier: Apache-2.0
 *
 * What is mounted where; see mountinfo.h.
 *
 * A line is: ID PARENT MAJOR:MINOR ROOT DIR OPTIONS [TAG…] - TYPE SOURCE SUPEROPTIONS, with the paths
 * written in octal escapes.
 */
#include "mount/mountinfo.h"

#include <errno.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "mount/escape.h"

static void copy_text(char *to, size_t room, const char *from)
{
	size_t len = strlen(from);

	if (len >= room)
		len = room - 1;
	memcpy(to, from, len);
	to[len] = '\0';
}

/* Cuts line into words and fills info: false if it is no such line. */
static bool parse_line(char *line, struct mountinfo *info)
{
	char *save, *word = strtok_r(line, " \n", &save), *dir = NULL;
	unsigned field, major_nr, minor_nr;

	for (field = 0; word && strcmp(word, "-"); field++) {
		if (field == 0)
			info->id = (unsigned)strtoul(word, NULL, 10);
		else if (field == 1)
			info->parent = (unsigned)strtoul(word, NULL, 10);
		else if (field == 2 && sscanf(word, "%u:%u", &major_nr, &minor_nr) == 2)
			info->dev = makedev(major_nr, minor_nr);
		else if (field == 4)
			dir = word;
		word = strtok_r(NULL, " \n", &save);
	}
	if (!word || !dir)
		return false;
	unescape_octal(dir);
	copy_text(info->dir, sizeof(info->dir), dir);
	word = strtok_r(NULL, " \n", &save);
	if (!word)
		return false;
	copy_text(info->type, sizeof(info->type), word);
	word = strtok_r(NULL, " \n", &save);
	if (word)
		unescape_octal(word);
	copy_text(info->source, sizeof(info->source), word ? word : "");
	return true;
}

void mountinfo_parse(FILE *in, bool (*each)(void *ctx, const struct mountinfo *info), void *ctx)
{
	struct mountinfo info;
	char *line = NULL;
	size_t room = 0;

	while (getline(&line, &room, in) >= 0) {
		memset(&info, 0, sizeof(info));
		if (parse_line(line, &info) && !each(ctx, &info))
			break;
	}
	free(line);
}

int mountinfo_each(bool (*each)(void *ctx, const struct mountinfo *info), void *ctx)
{
	FILE *in = fopen("/proc/self/mountinfo", "re");

	if (!in)
		return -errno;
	mountinfo_parse(in, each, ctx);
	fclose(in);
	return 0;
}

struct find {
	const char *dir;
	struct mountinfo *info;
	bool found;
};

/* A later mount at the same place lies above an earlier one. */
static bool find_each(void *ctx, const struct mountinfo *info)
{
	struct find *find = ctx;

	if (!strcmp(info->dir, find->dir)) {
		*find->info = *info;
		find->found = true;
	}
	return true;
}

int mountinfo_find(const char *dir, struct mountinfo *ret_info)
{
	struct mountinfo info;
	struct find find = {.dir = dir, .info = &info};
	int res = mountinfo_each(find_each, &find);

	if (res)
		return res;
	if (!find.found)
		return -ENOENT;
	*ret_info = info;
	return 0;
}

/* The path as it might stand in the mount table, found without looking at any file, which may hang. */
static bool absolute(const char *dir, char ret_text[PATH_MAX])
{
	char cwd[PATH_MAX] = "";
	int len;

	while (!strncmp(dir, "./", 2))
		dir += 2;
	if (dir[0] != '/' && !getcwd(cwd, sizeof(cwd)))
		return false;
	len = snprintf(ret_text, PATH_MAX, "%s%s%s", cwd, dir[0] == '/' ? "" : "/", dir);
	if (len < 0 || len >= PATH_MAX)
		return false;
	while (len > 1 && ret_text[len - 1] == '/')
		ret_text[--len] = '\0';
	return true;
}

int mountinfo_resolve(const char *dir, char ret_dir[PATH_MAX], struct err *err)
{
	char parent[PATH_MAX], base[PATH_MAX], whole[PATH_MAX], text[PATH_MAX], *last;
	struct mountinfo info;
	int code;

	if (absolute(dir, text) && mountinfo_find(text, &info) == 0) {
		memcpy(ret_dir, info.dir, PATH_MAX);
		return 0;
	}
	if (realpath(dir, whole)) {
		memcpy(ret_dir, whole, PATH_MAX);
		return 0;
	}
	code = -errno;
	if (code == -ENOENT || code == -ENOTDIR || strlen(dir) >= PATH_MAX)
		return err_sys(err, code, "%s", dir);
	copy_text(parent, sizeof(parent), dir);
	copy_text(base, sizeof(base), dir);
	last = basename(base);
	if (!realpath(dirname(parent), whole) || !strcmp(last, "..") || !strcmp(last, "."))
		return err_sys(err, code, "%s", dir);
	if ((size_t)snprintf(ret_dir, PATH_MAX, "%s/%s", strcmp(whole, "/") ? whole : "", last) >=
	    PATH_MAX)
		return err_sys(err, -ENAMETOOLONG, "%s", dir);
	return 0;
}
