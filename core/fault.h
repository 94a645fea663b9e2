/* SPDX-License-Identifier: Apache-2.0
 *
 * The fault layer: a store that passes requests to a lower store, and misbehaves as a test tells it.
 *
 * A script is a list of rules.  Each request is given to the first rule that wants it: one whose ops
 * it matches, that has let `skip` such requests pass, and that has not hit `count` yet.  Without a
 * rule the request passes as it is.
 *
 *   fail the 3rd write        {.ops = FAULT_OP(STORE_WRITE), .skip = 2, .count = 1,
 *                              .kind = FAULT_FAIL, .err = -EIO}
 *   lose each flush's answer  {.ops = FAULT_OP(STORE_FLUSH), .kind = FAULT_FAIL, .after = true,
 *                              .err = -EIO}
 *   hold everything           {.kind = FAULT_HOLD}, then fault_release(…, FAULT_LAST_FIRST, 0)
 *   answers out of order      {.kind = FAULT_DELAY, .after = true, .delay_ns = 0,
 *                              .jitter_ns = 1000000}
 *
 * For tests: it asserts where a script asks for too much.  Several loops may use it at once if the
 * lower store allows that; the functions below may be called from any thread.
 */
#ifndef REMRAM_CORE_FAULT_H
#define REMRAM_CORE_FAULT_H

#include "core/err.h"
#include "core/store.h"

enum {
	FAULT_RULES_MAX = 16,
	FAULT_SLOTS = 2048, /* requests that can be failed late, torn, delayed or held at once */
};

#define FAULT_OP(op) (1u << (op))

enum fault_kind {
	FAULT_FAIL, /* ends with err */
	FAULT_TORN, /* WRITE, ZERO: only the first torn_bytes take place; ends with err */
	FAULT_DELAY, /* goes on after delay_ns and a random part of jitter_ns */
	FAULT_HOLD, /* goes on when it is released; store_interrupt ends it with -EINTR */
};

struct fault_rule {
	enum fault_kind kind;
	unsigned ops; /* of FAULT_OP; 0: any operation */
	uint64_t skip; /* matching requests that pass first */
	uint64_t count; /* requests that are hit; 0: all */
	/* false: the rule comes before the lower store has seen the request; true: after it has
	 * served it.  A request that the lower store failed itself is not hit by FAIL. */
	bool after;
	int err; /* FAIL, TORN: -errno.  DELAY, HOLD: 0, or what the request ends with afterwards */
	uint64_t torn_bytes; /* a multiple of the lower store's align; cut to the request */
	uint64_t delay_ns, jitter_ns;
};

enum fault_order { FAULT_FIRST_FIRST, FAULT_LAST_FIRST, FAULT_SHUFFLED };

struct fault_counts {
	uint64_t submitted[STORE_OPS];
	uint64_t hit[STORE_OPS]; /* of these, by any rule */
};

/* A layer over lower, with seed for its random choices.  Takes lower: destroying the layer destroys
 * it; when create fails it is still the caller's. */
int fault_create(struct store *lower, uint64_t seed, struct store **ret_store, struct err *err);

/* Adds a rule, behind those that are there. */
void fault_add(struct store *store, const struct fault_rule *rule);
/* Forgets the rules.  What is held or delayed stays so. */
void fault_clear(struct store *store);

/* How many requests are held. */
unsigned fault_held(struct store *store);
/* Lets `count` held requests (0: all that are held now) go on, in that order; each goes on from its
 * own loop, soon. */
void fault_release(struct store *store, enum fault_order order, unsigned count);

void fault_count(struct store *store, struct fault_counts *ret_counts);

#endif
