/* SPDX-License-Identifier: Apache-2.0
 *
 * A few threads for calls that block (files, SQLite).
 */
#ifndef REMRAM_CORE_WORKERS_H
#define REMRAM_CORE_WORKERS_H

#include "core/err.h"
#include "core/loop.h"

struct workers;

/* A piece of work, embedded in its owner.  run is called on a worker thread; then, if done is set,
 * done on the loop that submitted it.  Untouched by the caller between submit and done (or the end
 * of run, when there is no done). */
struct work {
	void (*run)(struct work *work);
	void (*done)(struct work *work);
	/* Private. */
	struct work *next;
	struct loop *loop;
	struct loop_task task;
};

/* Starts `threads` threads (1 … 64) with stacks of 256 KiB. */
int workers_create(unsigned threads, struct workers **ret_workers, struct err *err);
/* Ends the threads after all submitted work has run. */
void workers_destroy(struct workers *workers);

/* Queues work, first in first out; with done set, only from a loop thread. */
void workers_submit(struct workers *workers, struct work *work);

#endif
