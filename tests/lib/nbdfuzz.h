/* SPDX-License-Identifier: Apache-2.0
 *
 * For the fuzz targets of the NBD export: the real server in this process, with a small memory pool, on a
 * Unix socket.
 */
#ifndef REMRAM_TESTS_NBDFUZZ_H
#define REMRAM_TESTS_NBDFUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Starts the server the first time. Sends the bytes on a new connection, ends the sending side, and takes
 * what comes until the server ends the connection; aborts if it does not within some seconds, or if another
 * client is not served. */
void nbdfuzz_run(const uint8_t *head, size_t head_len, const uint8_t *data, size_t len);

#endif
