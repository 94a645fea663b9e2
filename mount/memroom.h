/* SPDX-License-Identifier: Apache-2.0
 *
 * Is there room in memory for what is swapped out?  Asked before swapoff, which would otherwise call
 * the OOM killer, machine-wide or inside one memory cgroup.
 */
#ifndef REMRAM_MOUNT_MEMROOM_H
#define REMRAM_MOUNT_MEMROOM_H

#include <stdint.h>

#include "core/err.h"

/* Could swap_used bytes be read back into memory, other swaps (others_free bytes in all) taking what
 * does not fit?  0, or -ENOMEM with a sentence that gives the figures.  An estimate: memory that can
 * be had is what /proc/meminfo calls available.
 *
 * Each memory cgroup with a limit (version 1 or 2) is checked as well, since pages come back to the
 * cgroup they left: the group's swapped pages (as far as they can be on this device) must fit under
 * its limit, its file pages counting as free. */
int memroom_check(uint64_t swap_used, uint64_t others_free, struct err *err);

/* The two halves, with the places to read from. */
int memroom_check_machine(
    const char *meminfo, uint64_t swap_used, uint64_t others_free, struct err *err);
int memroom_check_cgroups(
    const char *cgroup_root, uint64_t swap_used, uint64_t others_free, struct err *err);

#endif
