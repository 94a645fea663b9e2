/* SPDX-License-Identifier: Apache-2.0
 *
 * What memory.c (the backend, the states and invariants), memory_map.c (mapping, pins, the trimmer) and
 * memory_io.c (requests) share.
 */
#ifndef REMRAM_BACKENDS_MEMORY_INT_H
#define REMRAM_BACKENDS_MEMORY_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "backends/backends.h"

enum {
	SEG_SHIFT = 30,
	STRIPE_SHIFT = 21,
	BLOCK_SHIFT = 12,
	STRIPE_LOCKS = 16,
	STRIPES = 1 << (SEG_SHIFT - STRIPE_SHIFT), /* per segment */
	STRIPE_BLOCKS = 1 << (STRIPE_SHIFT - BLOCK_SHIFT),
	WORDS = 1 << (SEG_SHIFT - BLOCK_SHIFT - 6), /* of 64 blocks, per segment */
	STRIPE_WORDS = STRIPE_BLOCKS / 64,
};

#define SEG_SIZE ((uint64_t)1 << SEG_SHIFT)
#define STRIPE_SIZE ((uint64_t)1 << STRIPE_SHIFT)

typedef _Atomic uint64_t bitword;

struct segment {
	uint8_t *base;
	bitword alloc[WORDS];
	bitword stale[WORDS];
	_Atomic bool trim[STRIPES]; /* the stripe has stale blocks */
	_Atomic uint32_t pins[STRIPES];
};

struct memory_backend {
	struct backend backend;
	struct workers *workers;
	bool mlock, hugepages;
};

struct memory_store {
	struct store store;
	struct memory_backend *mb;
	int fd;
	unsigned segment_count;
	_Atomic uint64_t allocated; /* bytes */
	pthread_mutex_t stripe_mu[STRIPE_LOCKS];
	pthread_mutex_t seg_mu;

	/* The trimmer. */
	struct work trim_work;
	pthread_mutex_t trim_mu;
	pthread_cond_t trim_idle;
	bool trim_running, trim_again; /* protected by trim_mu */

	_Atomic(struct segment *) segments[];
};

/* ---- bitmaps of one segment ---- */

/* The bits [first, last] of word w that lie in blocks [lo, hi]. */
static inline uint64_t memory_word_mask(uint64_t w, uint64_t lo, uint64_t hi)
{
	uint64_t mask = ~(uint64_t)0;

	if (w == lo / 64)
		mask &= ~(uint64_t)0 << (lo % 64);
	if (w == hi / 64)
		mask &= ~(uint64_t)0 >> (63 - hi % 64);
	return mask;
}

/* How many of blocks [lo, hi] (of one segment) have their bit set. */
static inline uint64_t memory_bits_count(const bitword *bits, uint64_t lo, uint64_t hi)
{
	uint64_t n = 0;

	for (uint64_t w = lo / 64; w <= hi / 64; w++)
		n += (uint64_t)__builtin_popcountll(
		    atomic_load_explicit(&bits[w], memory_order_acquire) &
		    memory_word_mask(w, lo, hi));
	return n;
}

static inline bool memory_bit(const bitword *bits, uint64_t block)
{
	return atomic_load_explicit(&bits[block / 64], memory_order_acquire) >> (block % 64) & 1;
}

static inline void memory_bits_set(bitword *bits, uint64_t lo, uint64_t hi)
{
	for (uint64_t w = lo / 64; w <= hi / 64; w++)
		atomic_fetch_or_explicit(
		    &bits[w], memory_word_mask(w, lo, hi), memory_order_release);
}

/* The end of the run of blocks from `block` to at most `hi` whose bits equal that of `block`: the
 * first block after it. */
static inline uint64_t memory_run_end(const bitword *bits, uint64_t block, uint64_t hi)
{
	bool set = memory_bit(bits, block);

	while (block <= hi) {
		uint64_t word = atomic_load_explicit(&bits[block / 64], memory_order_acquire);

		if (set)
			word = ~word;
		word >>= block % 64;
		if (word) {
			block += (uint64_t)__builtin_ctzll(word);
			break;
		}
		block = (block / 64 + 1) * 64;
	}
	return block <= hi ? block : hi + 1;
}

static inline struct segment *memory_segment(struct memory_store *ms, uint64_t idx)
{
	return atomic_load_explicit(&ms->segments[idx], memory_order_acquire);
}

/* The end of the stripe that off lies in, or end if that is sooner. */
static inline uint64_t memory_stripe_end(uint64_t off, uint64_t end)
{
	uint64_t next = ((off >> STRIPE_SHIFT) + 1) << STRIPE_SHIFT;

	return next < end ? next : end;
}

/* ---- memory_map.c ---- */

/* Maps segment idx if it is not mapped yet: 0 or -errno. */
int memory_segment_map(struct memory_store *ms, uint64_t idx, struct segment **ret_seg);

/* Locks the stripe that off lies in; the caller unlocks what it returns. */
pthread_mutex_t *memory_stripe_lock(struct memory_store *ms, uint64_t off);

/* Gives pages back; the range reads as zeros through the mapping.  0 or -errno. */
int memory_punch(struct memory_store *ms, uint64_t off, uint64_t len);

/* Gives back the pages of the stale blocks among [lo, hi] of one stripe, whose lock is held. */
void memory_trim_locked(
    struct memory_store *ms, struct segment *seg, uint64_t seg_off, uint64_t lo, uint64_t hi);
/* Has a worker trim every stripe that wants it; and what the worker runs. */
void memory_trim(struct memory_store *ms);
void memory_trim_run(struct work *work);

/* Pins the stripes of [off, off+len) of one segment: look at alloc after this. */
void memory_pin(struct segment *seg, uint64_t off, uint64_t len);
void memory_unpin(struct memory_store *ms, struct segment *seg, uint64_t off, uint64_t len);

/* ---- memory_io.c ---- */

void memory_submit(struct store *store, struct store_req *req);
void *memory_lend(struct store *store, uint64_t off, uint32_t len);
void memory_unlend(struct store *store, uint64_t off, uint32_t len);

#endif
