/* SPDX-License-Identifier: Apache-2.0
 *
 * Who keeps a mount or a device busy?  For messages, and to refuse before anything is undone.
 *
 * Reads /proc and /sys only, never the mounted file system.
 */
#ifndef REMRAM_MOUNT_BUSY_H
#define REMRAM_MOUNT_BUSY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { BUSY_TEXT_MAX = 256 };

/* Finds somebody who uses files of the mount at dir (dev: its st_dev): another mount inside it, a loop
 * device that is not among the known ones (NULL at the end), or a process.  text: "process 123 (bash)
 * has its working directory there".  False if nobody was found (which does not prove that there is
 * nobody: other mount namespaces cannot be seen). */
bool busy_mount(
    const char *dir, dev_t dev, const char *const *known_devices, char text[BUSY_TEXT_MAX]);

/* Finds a user of the block device /dev/NAME other than the swap that is ours: "it is mounted at
 * /srv". swap_too: count being swap as a use. */
bool busy_device(const char *path, bool swap_too, char text[BUSY_TEXT_MAX]);

#endif
