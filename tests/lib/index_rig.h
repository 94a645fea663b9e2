/* SPDX-License-Identifier: Apache-2.0
 *
 * A cache directory with its index on a loop, for tests: open, load, commit and end as calls that wait.
 *
 * Everything asserts (libcheck), unless it returns an error.
 */
#ifndef REMRAM_TESTS_INDEX_RIG_H
#define REMRAM_TESTS_INDEX_RIG_H

#include <pthread.h>

#include "core/cache_index.h"
#include "tests/lib/rig.h"

struct index_rig {
	struct rig rig;
	struct cache_dir *dir;
	struct cache_index *index;
	struct indexed *indexed; /* of the region loaded last */
	struct index_load load;
	struct store *store;
};

/* Starts threads and opens path; step_fn, called with ctx, may be NULL. */
void index_rig_open(struct index_rig *ir, const char *path,
    void (*step_fn)(void *ctx, enum index_step step), void *ctx);
/* Regions and stores are closed. */
void index_rig_close(struct index_rig *ir);

/* Loads region `id`; results in ir->load. */
int index_rig_load(struct index_rig *ir, uint64_t id, const char *name, uint64_t size);
/* The same, which succeeds, and its store. */
void index_rig_load_ok(struct index_rig *ir, uint64_t id, const char *name, uint64_t size);

/* Something asynchronous, started on the loop's thread, that a test waits for. */
struct index_ask {
	struct index_call call;
	struct index_rig *ir;
	void (*start)(struct index_ask *ask);
	const char *why;
	pthread_mutex_t mu;
	pthread_cond_t cond;
	bool done;
	int err;
};

void index_ask_begin(struct index_rig *ir, struct index_ask *ask,
    void (*start)(struct index_ask *ask), const char *why);
int index_ask_wait(struct index_ask *ask);

/* What `start` can be; the last one asks with why. */
void index_ask_commit(struct index_ask *ask);
void index_ask_close(struct index_ask *ask);
void index_ask_abandon(struct index_ask *ask);
void index_ask_forget(struct index_ask *ask);
void index_ask_set_aside(struct index_ask *ask);

/* Begins and waits. */
int index_rig_call(struct index_rig *ir, void (*start)(struct index_ask *ask), const char *why);
/* Ends the region that is open, one way or the other. */
int index_rig_end(struct index_rig *ir, void (*start)(struct index_ask *ask), const char *why);

#endif
