/* SPDX-License-Identifier: Apache-2.0
 *
 * The backends of this build, in the order in which help texts name them.
 */
#include <stddef.h>

#include "backends/backends.h"

const struct backend_ops *const backend_registry[] = {
    &memory_backend,
    &file_backend,
    NULL,
};
