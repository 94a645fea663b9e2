/* SPDX-License-Identifier: Apache-2.0
 *
 * What an export of a file (remram export) says of where its bytes are, if the file is a region of a mount: the
 * mount's daemon is asked (mount/managed_control.h).
 *
 *   the mount has a cache            what is resident and dirty there; CACHE pulls
 *   it has none                      nothing is resident: each read asks the donor
 *   its daemon cannot be asked       nothing can be said (core/residence.h)
 */
#ifndef REMRAM_MOUNT_FILE_RESIDENCE_H
#define REMRAM_MOUNT_FILE_RESIDENCE_H

#include "core/err.h"
#include "core/residence.h"

/* path: a file that the caller has open as long as the residence is used.  *ret_residence is NULL if it is not in a
 * remram mount.  -ENOMEM and the like; what cannot be asked is no error, but err says why (else err->code is 0). */
int file_residence_create(const char *path, struct residence **ret_residence, struct err *err);
/* Nothing is under way.  NULL does nothing. */
void file_residence_destroy(struct residence *residence);

#endif
