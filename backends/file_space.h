/* SPDX-License-Identifier: Apache-2.0
 *
 * How full a `file:` place is: what each of its files takes up, against the place's quota.
 *
 * Before a call that may allocate, space_claim sets bytes aside for it (a promise); afterwards
 * space_settle measures the file and gives the promise back.  So the quota's `used` never passes its
 * limit by a call that was allowed, and it says what st_blocks says as soon as nothing is in flight.
 *
 * What a file takes up is what st_blocks says, but not more than the file is long: the rest is the file
 * system's own map of it, and were that counted, a region as large as its pool's quota could never be
 * filled.  A file with blocks reserved beyond its end is counted with all of st_blocks.
 *
 * All functions are thread-safe and block on the file system only.
 */
#ifndef REMRAM_BACKENDS_FILE_SPACE_H
#define REMRAM_BACKENDS_FILE_SPACE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "core/backend.h"

enum { SPACE_BUCKETS = 1024 };

/* What one file is counted with. */
struct space_file {
	uint64_t id;
	uint64_t bytes; /* protected by the space's mu */
	_Atomic bool beyond; /* blocks are, or may be, reserved beyond the file's end */
	struct space_file *next;
};

/* Embedded in the backend. */
struct space {
	struct quota *quota; /* constant: borrowed */
	pthread_mutex_t mu;
	/* Protected by mu. */
	uint64_t promised; /* bytes of quota->used that are promises */
	unsigned exact; /* claims that wait for promised == 0 */
	pthread_cond_t calm; /* promised became 0 */
	struct space_file *buckets[SPACE_BUCKETS];
};

void space_init(struct space *space, struct quota *quota);
void space_fini(struct space *space);

/* The bytes that a file with this stat takes up. */
uint64_t space_measure(const struct stat *st, bool beyond);

/* Whether the file has blocks beyond its end; false where the file system doesn't tell. */
bool space_reserved_beyond(int fd, uint64_t size);

/* The entry of file `id`, made (with 0 bytes) if there is none; NULL if memory ran out.  Stays until
 * space_drop. */
struct space_file *space_get(struct space *space, uint64_t id);
/* File `id` is gone: what it was counted with is free. */
void space_drop(struct space *space, uint64_t id);

/* Sets aside what allocating all of [off, off+len) of the file can need.  0, -ENOSPC if the quota has
 * no room for it, or -errno.  A range that is allocated already always fits. */
int space_claim(struct space *space, struct space_file *file, int fd, uint64_t off, uint64_t len,
    uint64_t *ret_promise);
/* After the call: counts what the file takes up now and gives the promise (or 0) back. */
void space_settle(struct space *space, struct space_file *file, int fd, uint64_t promise);

#endif
