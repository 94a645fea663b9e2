/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernel's FUSE interface: <linux/fuse.h>, and what newer kernels than the installed header have.
 */
#ifndef REMRAM_FUSE_ABI_H
#define REMRAM_FUSE_ABI_H

#include <linux/fuse.h>

#ifndef FOPEN_PARALLEL_DIRECT_WRITES /* 7.38, Linux 6.2 */
#define FOPEN_PARALLEL_DIRECT_WRITES (1 << 6)
#endif
#ifndef FUSE_DIRECT_IO_ALLOW_MMAP /* 7.39, Linux 6.6 */
#define FUSE_DIRECT_IO_ALLOW_MMAP (1ULL << 36)
#endif

/* Opcodes that the installed header may lack. */
enum {
	FS_OP_SYNCFS = 50, /* 7.34 */
	FS_OP_TMPFILE = 51, /* 7.37 */
	FS_OP_STATX = 52, /* 7.39 */
};

#endif
