/* SPDX-License-Identifier: Apache-2.0
 *
 * The contract suite: what every store and every stack of stores must do (core/store.h).
 *
 * A factory makes one kind of stack; contract_suite runs every test over each.  A new store is put
 * under the suite by adding a factory to the list of tests/contract/stores.c.
 */
#ifndef REMRAM_TESTS_CONTRACT_H
#define REMRAM_TESTS_CONTRACT_H

#include <check.h>

#include "tests/lib/rig.h"

enum contract_flag {
	CONTRACT_LOOPS = 1, /* several loops may use the store at once */
	CONTRACT_FIXED = 4, /* RESIZE fails: the store is a device, say */
	CONTRACT_PIPES = 8, /* long READs that allow it come in a pipe */
	CONTRACT_BRIEF = 16, /* READs in order that allow it come in memory of the store's */
	CONTRACT_SPARSE = 2, /* EXTENTS tells holes, stat tells what is allocated, to the block */
};

struct contract_factory;

/* One stack under test. */
struct contract_stack {
	const struct contract_factory *factory;
	unsigned flags; /* the factory's, without what this machine's file system can't do */
	struct rig rig; /* two loops that run, and workers */
	struct store *store; /* the top of the stack */
	void *ctx; /* the factory's */
	char dir[RIG_PATH_MAX]; /* the factory's temporary directory, or "" */
};

struct contract_factory {
	const char *name;
	unsigned flags; /* of enum contract_flag */
	/* Sets stack->store: at least `size` bytes (a multiple of STORE_BLOCK), empty.  False if this
	 * machine can't have such a store: then the factory's tests do nothing. */
	bool (*create)(struct contract_stack *stack, uint64_t size);
	/* Destroys stack->store, which may have got more layers since, and all that create made. */
	void (*destroy)(struct contract_stack *stack);
	/* Optional: destroys the store and opens it again with what was stable. */
	void (*crash)(struct contract_stack *stack);
};

/* Stacks for other tests; false: the test has nothing to do. */
bool contract_begin(
    struct contract_stack *stack, const struct contract_factory *factory, uint64_t size);
void contract_end(struct contract_stack *stack);
/* Puts a fault layer on top of the stack, and returns it. */
struct store *contract_add_fault(struct contract_stack *stack);

/* Stays until the suite has run: keeps factories (NULL at the end). */
Suite *contract_suite(const char *name, const struct contract_factory *const *factories);
/* The parts of the suite that contract_ops.c and contract_model.c have; i is a factory's index. */
void contract_ops_add(TCase *tcase, int i);
void contract_model_add(TCase *tcase, int i);
/* len random bytes, the same for the same seed; free() them. */
uint8_t *contract_pattern(size_t len, unsigned seed);
const struct contract_factory *contract_factory_at(int i);

/* The stores that there are (tests/lib/factories.c), NULL at the end. */
extern const struct contract_factory *const contract_factories[];

#endif
