/* SPDX-License-Identifier: Apache-2.0
 *
 * CRC-32C (Castagnoli; RFC 3720 appendix B.4): the checksum of a block in a cache that survives.
 *
 * Pure functions, any thread.  The processor's instruction is used where it has one (SSE4.2, ARM's CRC
 * extension), found out once at run time; otherwise tables.
 */
#ifndef REMRAM_CORE_CRC32C_H
#define REMRAM_CORE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of len bytes at buf that follow bytes whose checksum is crc; crc is 0 for the first. */
uint32_t crc32c(uint32_t crc, const void *buf, size_t len);

/* The same by tables, whatever the processor has: what the other is tested against. */
uint32_t crc32c_table(uint32_t crc, const void *buf, size_t len);

/* How crc32c works here: "sse4.2", "armv8" or "table". */
const char *crc32c_name(void);

#endif
