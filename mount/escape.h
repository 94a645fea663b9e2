/* SPDX-License-Identifier: Apache-2.0
 *
 * The ways in which names are written where they may not stand as they are.
 */
#ifndef REMRAM_MOUNT_ESCAPE_H
#define REMRAM_MOUNT_ESCAPE_H

#include <stddef.h>

/* An absolute path as one file name, as `systemd-escape --path` writes it: /mnt/my data →
 * mnt-my\x20data, / → "-".  -ENAMETOOLONG if room bytes do not hold it. */
int escape_path(const char *path, char *buf, size_t room);

/* A name as one word of printable ASCII: everything but letters, digits and -._~/: becomes %XX.
 * -ENAMETOOLONG if room bytes do not hold it; three times the length plus one always do. */
int escape_percent(const char *name, char *buf, size_t room);
/* The reverse.  -EINVAL for a broken escape or %00, -ENAMETOOLONG. */
int unescape_percent(const char *text, char *buf, size_t room);

/* Replaces \ooo by the byte, in place: how the kernel writes paths in /proc/self/mountinfo and
 * /proc/swaps. */
void unescape_octal(char *text);

#endif
