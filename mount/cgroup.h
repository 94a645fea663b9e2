/* SPDX-License-Identifier: Apache-2.0
 *
 * The memory limit that a process lives under, in control groups of version 1 or 2.
 */
#ifndef REMRAM_MOUNT_CGROUP_H
#define REMRAM_MOUNT_CGROUP_H

#include <limits.h>
#include <stdint.h>
#include <sys/types.h>

/* The smallest memory limit of the groups of process pid, in bytes, and the directory of the group
 * that sets it: 0, or -ENOENT if no limit binds it. */
int cgroup_memory_limit(pid_t pid, uint64_t *ret_limit, char ret_group[PATH_MAX]);

#endif
