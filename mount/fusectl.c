/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernel's control files of FUSE connections; see fusectl.h.
 */
#include "mount/fusectl.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "mount/sys.h"

#define FUSECTL_DIR "/sys/fs/fuse/connections"

enum { FUSECTL_MAGIC = 0x65735543, PATH_ROOM = 128 };

unsigned fusectl_connection(dev_t dev)
{
	/* The kernel prints its own form of the device number; major is 0 for FUSE. */
	return major(dev) << 20 | minor(dev);
}

int fusectl_mount(void)
{
	struct statfs fs;

	if (statfs(FUSECTL_DIR, &fs))
		return -errno;
	if (fs.f_type == FUSECTL_MAGIC)
		return 0;
	if (mount("fusectl", FUSECTL_DIR, "fusectl", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
		return -errno;
	return 0;
}

int fusectl_read(unsigned connection, const char *name, uint64_t *ret_value)
{
	char path[PATH_ROOM];
	int res = fusectl_mount();

	if (res)
		return res;
	snprintf(path, sizeof(path), FUSECTL_DIR "/%u/%s", connection, name);
	return sys_read_u64(path, ret_value);
}

int fusectl_abort(unsigned connection, struct err *err)
{
	char path[PATH_ROOM];
	int res = fusectl_mount();

	if (res)
		return err_sys(err, res, FUSECTL_DIR ": cannot mount fusectl");
	snprintf(path, sizeof(path), FUSECTL_DIR "/%u/abort", connection);
	res = sys_write_text(path, "1");
	return res ? err_sys(err, res, "%s", path) : 0;
}
