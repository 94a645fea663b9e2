/* SPDX-License-Identifier: Apache-2.0
 *
 * Where and when a child process is cut off: at the n-th time that it comes by a chosen point.
 *
 * Any thread.
 */
#ifndef REMRAM_TESTS_CRASH_CUT_H
#define REMRAM_TESTS_CRASH_CUT_H

#include <pthread.h>
#include <stdbool.h>

#include "core/cache_index.h"

/* Besides enum index_step. */
enum crash_point {
	CRASH_OPERATION = INDEX_STEPS,
	CRASH_DONOR_WRITE,
	CRASH_DONOR_FLUSH,
	CRASH_DONOR_RESIZE, /* it has agreed */
	CRASH_RESIZED, /* the local cut is made */
	CRASH_PROMISE,
	CRASH_NOWHERE,
};

/* Held while what outlives the child changes: the cut comes before or after that, not in between. */
extern pthread_mutex_t crash_cut_mu;

/* This process is cut off when it comes by the point (or step) once more than `after` times: power_fails, if
 * it is not NULL, is called, and the process killed. */
void crash_cut_at(unsigned point, unsigned after, void (*power_fails)(void));

/* Comes by the point; without crash_cut_mu. */
void crash_cut_pass(unsigned point);

/* Whether it is being cut off: what is read of files from now on means nothing. */
bool crash_cut_begun(void);

#endif
