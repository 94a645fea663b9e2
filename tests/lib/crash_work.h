/* SPDX-License-Identifier: Apache-2.0
 *
 * What a child does with crash_region until it is cut off, or has done all: at random, and many requests at a
 * time, it writes (parts of blocks, too), punches, reads, resizes, flushes, evicts and forgets.  What is read is
 * compared with a plain array; what may be seen afterwards is noted in crash_world.
 */
#ifndef REMRAM_TESTS_CRASH_WORK_H
#define REMRAM_TESTS_CRASH_WORK_H

#include <stdint.h>

/* The main thread; once in a process.  crash_region is open and holds what crash_world has as promised.  So many
 * operations, some time apart; nothing is in flight in the end. */
void crash_work(unsigned operations, uint64_t seed);

#endif
