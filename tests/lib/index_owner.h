/* SPDX-License-Identifier: Apache-2.0
 *
 * A region in a cache directory with an index, for tests of what the index keeps: the test is the region's owner,
 * who knows which chunks have which blocks.  One at a time: `owner`.
 *
 * Everything asserts (libcheck).
 */
#ifndef REMRAM_TESTS_INDEX_OWNER_H
#define REMRAM_TESTS_INDEX_OWNER_H

#include "core/rescue.h"
#include "tests/lib/index_rig.h"

enum {
	OWNER_REGION = 7, /* its id */
	OWNER_CHUNKS = 600, /* more than two batches */
};

struct index_owner {
	char dir[RIG_PATH_MAX], path[RIG_PATH_MAX + 8]; /* the cache directory is in dir */
	struct index_rig rig;

	/* What the region's owner would know.  Loop thread only, or while nothing runs. */
	struct index_chunk state[OWNER_CHUNKS];
	bool changed[OWNER_CHUNKS];
	unsigned takes, gives, commits; /* calls of take, chunks given back, transactions */
	struct {
		unsigned idx;
		uint64_t busy, gone, come; /* added to dirty, taken from and added to resident, when
					      state is asked for */
	} meanwhile;
};

extern struct index_owner owner;
extern const struct indexed_ops owner_ops;

/* A fixture: an empty directory, and a region without a block. */
void owner_setup(void);
void owner_teardown(void);

/* Opens directory and region; ends both, cleanly or not. */
void owner_open(void);
void owner_close(void);
void owner_abandon(void);

uint64_t owner_off(unsigned idx, unsigned block);
/* Writes a block full of `byte`, which is resident then. */
void owner_put(unsigned idx, unsigned block, int byte, bool dirty);
void owner_expect(unsigned idx, unsigned block, int byte);
void owner_commit(void);
/* What was loaded is `state`, but for chunks without a block. */
void owner_expect_state(void);

/* What has been set aside. */
struct owner_found {
	unsigned count, indexes;
	struct rescue_entry entry; /* the last one that is a region */
};

struct owner_found owner_aside(void);

#endif
