/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of the NBD export share: a donor that exports, with a bystander whose service must be
 * unharmed afterwards, and regions made through the peer protocol.
 */
#ifndef REMRAM_TESTS_NBDTEST_H
#define REMRAM_TESTS_NBDTEST_H

#include "tests/lib/donor.h"
#include "tests/lib/nbdraw.h"
#include "tests/lib/raw.h"

enum { NBDTEST_SIZE = 4 << 20, NBDTEST_BLOCK = 4096 };

struct nbdtest {
	struct donor donor;
	struct raw peer; /* pool "ram" */
	struct nbdraw bystander; /* export "ram/bystander" */
	uint32_t next_handle;
	char path[DONOR_PATH_MAX + 8]; /* of the Unix socket */
};

/* Pools ram and disk; regions ram/work of NBDTEST_SIZE and ram/bystander. */
void nbdtest_start(struct nbdtest *test);
/* The bystander is served as before. */
void nbdtest_unharmed(struct nbdtest *test);
void nbdtest_stop(struct nbdtest *test);

/* A region of pool ram, or of another one. */
void nbdtest_region(struct nbdtest *test, const char *name, uint64_t size, uint32_t mode);
void nbdtest_region_in(
    struct nbdtest *test, const char *pool, const char *name, uint64_t size, uint32_t mode);
/* A request on a region of pool ram by name: its status. */
int nbdtest_resize(struct nbdtest *test, const char *name, uint64_t size);
int nbdtest_chmod(struct nbdtest *test, const char *name, uint32_t mode);
int nbdtest_remove(struct nbdtest *test, const char *name);
int nbdtest_rename(struct nbdtest *test, const char *name, const char *new_name);
/* Opens it for writing and closes it again. */
int nbdtest_open_write(struct nbdtest *test, const char *name);

#endif
