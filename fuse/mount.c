/* SPDX-License-Identifier: Apache-2.0
 *
 * Mounting, by libfuse: it knows mount(2)'s and fuse's options and keeps /run/mount/utab.  Its own
 * request loop is not used.
 */
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "fuse/fs.h"
#include "fuse/fs_int.h"

/* libfuse reads commas as ends of options. */
static void escape(const char *in, char *out, size_t room)
{
	size_t n = 0;

	for (; *in && n + 2 < room; in++) {
		if (*in == ',' || *in == '\\')
			out[n++] = '\\';
		out[n++] = *in;
	}
	out[n] = 0;
}

/* What libfuse would have printed. */
static char libfuse_said[256];

static void keep_message(enum fuse_log_level level, const char *fmt, va_list ap)
{
	vsnprintf(libfuse_said, sizeof(libfuse_said), fmt, ap);
	libfuse_said[strcspn(libfuse_said, "\n")] = 0;
}

int fs_mount(const char *source, const char *dir, const char *options, struct err *err)
{
	static const struct fuse_lowlevel_ops ops;
	char name[2 * 4096], text[sizeof(name) + 4096];
	char *argv[] = {"remram", "-o", text, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	struct fuse_session *session;
	int fd = -1, rc = 0;

	escape(source, name, sizeof(name));
	snprintf(text, sizeof(text),
	    "allow_other,default_permissions,subtype=remram,max_read=%d,fsname=%s%s%s",
	    FS_WRITE_MAX, name, *options ? "," : "", options);
	fuse_set_log_func(keep_message);
	libfuse_said[0] = 0;
	session = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (session && fuse_session_mount(session, dir) == 0)
		fd = dup(fuse_session_fd(session));
	else
		rc = err_set(err, -EIO, "cannot mount on %s: %s", dir, libfuse_said);
	if (rc == 0 &&
	    (fd < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) || fcntl(fd, F_SETFD, FD_CLOEXEC))) {
		rc = err_sys(err, -errno, "cannot use /dev/fuse");
		fs_unmount(dir);
	}
	/* Without fuse_session_unmount the mount stays; it lives by our copy of the descriptor. */
	if (session)
		fuse_session_destroy(session);
	fuse_opt_free_args(&args);
	if (rc && fd >= 0)
		close(fd);
	return rc ? rc : fd;
}

void fs_unmount(const char *dir)
{
	umount2(dir, MNT_DETACH);
}
