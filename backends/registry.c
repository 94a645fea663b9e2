/* SPDX-License-Identifier: Apache-2.0
 *
 * The backends of this build, in the order in which help texts name them.
 */
#include <stddef.h>

#include "backends/backends.h"

const struct backend_ops *const backend_registry[] = {
    &memory_backend,
    &file_backend,
    &nbd_backend,
    &nbds_backend,
    &nbd_unix_backend,
    &nbds_unix_backend,
    NULL,
};
