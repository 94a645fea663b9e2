/* SPDX-License-Identifier: Apache-2.0
 *
 * A donor's region that forgets: a store that keeps apart what it was not asked to flush, may lose some of that
 * (the next FLUSH fails then), and is slow and random about when it does what it was asked for, and when it
 * answers.  It knows each sector by a tag: its bytes are that 32-bit word again and again; 0: a punch.
 *
 * What it has is memory of the caller's, which may be shared with another process.
 */
#ifndef REMRAM_TESTS_FORGETFUL_H
#define REMRAM_TESTS_FORGETFUL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/loop.h"
#include "core/store.h"
#include "tests/lib/rig.h"

enum {
	FORGETFUL_SECTOR = 512, /* bytes */
	FORGETFUL_SECTORS = 8192,
	FORGETFUL_ASKED = 256, /* requests at once */
};

struct forgetful_bytes {
	uint32_t now[FORGETFUL_SECTORS]; /* as a reader sees it */
	uint32_t stable[FORGETFUL_SECTORS]; /* what it has for good */
	uint32_t size; /* sectors; for good: a WRITE beyond makes it longer */
	bool flush_fails; /* it has lost something and not said so yet */
	unsigned pushes, losses; /* how many there were */
};

struct forgetful {
	struct store store; /* first */
	struct forgetful_bytes *bytes;
	pthread_mutex_t *mu;
	struct rig_random *random;
	void (*changed)(bool flush);
	struct store_req *asked[FORGETFUL_ASKED];
	bool executed[FORGETFUL_ASKED]; /* before its answer */
	unsigned asked_count;
	struct loop_timer timer;
};

/* A store for one loop, on whose thread everything runs.  Keeps its arguments: mu is held while bytes change
 * (random is the loop's); `changed` is called after each WRITE or ZERO, and each FLUSH, without it. */
void forgetful_init(struct forgetful *donor, struct forgetful_bytes *bytes, pthread_mutex_t *mu,
    struct rig_random *random, void (*changed)(bool flush));

/* Loses about half of what is not stable.  The caller holds mu. */
void forgetful_loses(struct forgetful_bytes *bytes, struct rig_random *random);

/* The region is `size` bytes long, whole sectors, for good; takes mu. */
void forgetful_resize(struct forgetful *donor, uint64_t size);

/* Makes bytes of a tag; the tag of a sector's bytes, which are of one write. */
void forgetful_fill(void *buf, uint32_t tag, size_t len);
uint32_t forgetful_tag(const uint8_t *bytes);

#endif
