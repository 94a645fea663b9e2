/* SPDX-License-Identifier: Apache-2.0
 *
 * A layer over a donor's memory that keeps apart what it was not asked to flush, and loses some of that when a test
 * says so: as if the donor's machine had been started anew.  The FLUSH that comes next fails then, with -EIO.
 *
 * What is lost goes sector by sector.  A RESIZE is stable at once.  The lower store serves requests at once, from one
 * thread; faults go above this layer, which so knows what was really done.
 */
#ifndef REMRAM_TESTS_LOSING_H
#define REMRAM_TESTS_LOSING_H

#include "tests/lib/rig.h"

/* Takes lower, which has whole blocks. */
struct store *losing_create(struct store *lower);

/* Loses about half of what is not stable. */
void losing_loses(struct store *store, struct rig_random *random);
/* All that the lower store has now is stable, and there is nothing to tell: for who has changed it. */
void losing_settle(struct store *store);
/* What is stable: as many bytes as lower has. */
const uint8_t *losing_stable(struct store *store);

#endif
