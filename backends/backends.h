/* SPDX-License-Identifier: Apache-2.0
 *
 * The backends, for the registry and for tests.
 */
#ifndef REMRAM_BACKENDS_BACKENDS_H
#define REMRAM_BACKENDS_BACKENDS_H

#include "core/backend.h"

extern const struct backend_ops memory_backend; /* memory.c */
extern const struct backend_ops file_backend; /* file.c */
extern const struct backend_ops nbd_backend; /* nbd.c, with the next three */
extern const struct backend_ops nbds_backend;
extern const struct backend_ops nbd_unix_backend;
extern const struct backend_ops nbds_unix_backend;

#endif
