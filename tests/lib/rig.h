/* SPDX-License-Identifier: Apache-2.0
 *
 * What a test of stores needs around it: loops on threads of their own, workers, requests to wait for,
 * random numbers from a seed that is printed, temporary directories.
 *
 * Everything asserts (libcheck) instead of returning errors.
 */
#ifndef REMRAM_TESTS_RIG_H
#define REMRAM_TESTS_RIG_H

#include <check.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/loop.h"
#include "core/store.h"
#include "core/workers.h"

/* ck_assert_msg tells the test's parent process of every check, passed or not; this one only of those
 * that fail: for inner loops. */
#define rig_check(cond, ...) \
	do { \
		if (!(cond)) \
			ck_abort_msg(__VA_ARGS__); \
	} while (0)

enum { RIG_LOOPS_MAX = 4, RIG_PATH_MAX = 256 };

struct rig {
	unsigned loop_count;
	struct loop *loops[RIG_LOOPS_MAX];
	pthread_t threads[RIG_LOOPS_MAX];
	struct workers *workers;
};

void rig_start(struct rig *rig, unsigned loops, unsigned workers);
/* All stores are destroyed. */
void rig_stop(struct rig *rig);

/* Runs fn(ctx) on the loop's thread and waits for its return. */
void rig_call(struct loop *loop, void (*fn)(void *ctx), void *ctx);

/* A request that a test can wait for: fill req, but not done. */
struct rig_req {
	struct store_req req;
	struct store *store;
	/* Results. */
	int err; /* 1 until done */
	unsigned dones;
	bool piped; /* READ: the bytes came in a pipe; they are in req.buf now */
	bool
	    brief; /* READ: they came in memory of the store's (STORE_BRIEF); they are in req.buf now */
	bool wrong_thread; /* done ran elsewhere than on the loop */
	/* Private. */
	void *buf; /* as it was submitted */
	struct loop *loop;
	struct rig_wait *wait;
};

/* Submits all of them to store from the loop's thread, in order, and waits for the last done. */
void rig_submit(struct loop *loop, struct store *store, struct rig_req *reqs, unsigned count);
/* The same in two steps; rig_begin returns when all are submitted. */
struct rig_wait *rig_begin(
    struct loop *loop, struct store *store, struct rig_req *reqs, unsigned count);
void rig_end(struct rig_wait *wait);

/* One request each; they return what done got. */
int rig_read(struct loop *loop, struct store *store, uint64_t off, void *buf, uint32_t len);
int rig_write(struct loop *loop, struct store *store, uint64_t off, const void *buf, uint32_t len,
    unsigned flags);
/* ZERO, ALLOC, FLUSH, RESIZE. */
int rig_op(struct loop *loop, struct store *store, enum store_op op, uint64_t off, uint64_t len,
    unsigned flags);
int rig_extents(struct loop *loop, struct store *store, uint64_t off, uint64_t len,
    struct extent *extents, unsigned max, unsigned *ret_count);

/* What a store that serves requests at once, on any thread, has: memory. */
void rig_peek(struct store *store, uint64_t off, void *buf, uint64_t len);
/* Makes that what buf says; where all of it is zeros, or buf is NULL, a hole. */
void rig_poke(struct store *store, uint64_t off, const void *buf, uint64_t len);

/* Asserts that [off, off+len) of the store reads as `bytes`; NULL: as zeros. */
void rig_expect(
    struct loop *loop, struct store *store, uint64_t off, uint64_t len, const uint8_t *bytes);

/* Random numbers. */
struct rig_random {
	uint64_t state;
};
/* A new seed each time, or that of the environment's SEED; prints it. */
void rig_random_init(struct rig_random *random, const char *what);
uint64_t rig_random(struct rig_random *random);
/* 0 … below - 1 */
uint64_t rig_random_below(struct rig_random *random, uint64_t below);
void rig_random_fill(struct rig_random *random, void *buf, size_t len);

/* Waits for a child process, which exits with 0 or is killed (SIGKILL): whether it was killed. */
bool rig_child_killed(pid_t pid);

/* Accepts so many connections, and ends each at once. */
void rig_turn_away(int listener, unsigned count);
/* How many ms such a client needs at least that waits longer and longer, 20 ms at first and then twice as long each
 * time (up to 2 s): it has lost its connection and tries again after the first pause. */
uint64_t rig_backoff_ms(unsigned count);

/* Makes an empty directory in TMPDIR (or /var/tmp), or below `where` ("/dev/shm"). */
void rig_tmpdir(const char *where, char path[RIG_PATH_MAX]);
/* Removes it and what is in it. */
void rig_tmpdir_remove(const char *path);
/* An unchecked fixture for test cases that use rig_tmpdir: at its end, what tests that failed have left
 * is removed. */
void rig_tmpdirs_begin(void);
void rig_tmpdirs_end(void);

/* Fails runs one by one: calls run(ctx, n) for n = 1, 2, 3, … until it returns false: no n-th thing was
 * there to fail.  Asserts that this comes before `most`.  Returns how many runs failed something. */
unsigned rig_fail_each(bool (*run)(void *ctx, unsigned n), void *ctx, unsigned most);

#endif
