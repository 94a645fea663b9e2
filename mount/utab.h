/* SPDX-License-Identifier: Apache-2.0
 *
 * /run/mount/utab: what mount(8) and umount(8) remember of mounts beside the kernel's table.
 *
 * umount(8) calls a helper for a mount that stands there.  For one that does not, root's `umount DIR` takes
 * the type from statfs(2), which says "fuse" and never "fuse.remram", finds no helper of that name, and
 * unmounts by itself: then swap would stay on and the daemon be left to itself.  So each mount is entered
 * with uhelper=fuse.remram, and removed with everything else of it.
 *
 * Functions return 0 or -errno and wait for others who change the file.
 */
#ifndef REMRAM_MOUNT_UTAB_H
#define REMRAM_MOUNT_UTAB_H

/* Another place than /run/mount, for tests; kept. */
void utab_set_dir(const char *dir);

/* Enters the mount of source at dir (absolute, no symlinks), in place of what stands there for dir. */
int utab_add(const char *source, const char *dir);

/* Removes all entries for dir that are of source; mount(8) may have added one. */
int utab_remove(const char *source, const char *dir);

#endif
