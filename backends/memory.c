/* SPDX-License-Identifier: Apache-2.0
 *
 * The `memory:` backend: a region is a memfd that the process maps.
 *
 * A memfd is sparse and gives memory back when a hole is punched.  It is mapped in segments of 1 GiB
 * when they are first written, and never unmapped or moved before the store is destroyed: a pointer
 * into it that a READ has lent (STORE_LEND) stays good.  Reading a hole through a shared mapping
 * would allocate a page, so a bitmap says what is allocated, and holes are answered without touching
 * the mapping.
 *
 * A block's states (two bits), and who moves it:
 *   absent    alloc 0 stale 0   reads as zeros
 *   allocated alloc 1 stale 0   counted in the quota
 *   stale     alloc 0 stale 1   punched: reads as zeros; its page still holds old bytes
 *   absent → allocated: WRITE, ALLOC            allocated → stale: ZERO, RESIZE (at once)
 *   stale → allocated: WRITE, ALLOC (clear the old bytes)   stale → absent: the trimmer, behind
 * So a punch is O(1) and the memory is given back by a worker thread.
 *
 * A stripe of 2 MiB is *pinned* while somebody may touch its pages through the mapping: a copy, or a
 * loan (STORE_LEND, store_lend) that has not ended.  Who pins looks at alloc afterwards.
 *
 * Invariants:
 *   1. A block with alloc 0 is never read through the mapping.
 *   2. alloc goes from 0 to 1 only under its stripe's lock and after its bytes are right.
 *   3. The trimmer punches only blocks with alloc 0, under their stripe's lock, and only while the stripe
 *      is not pinned: a page that is given back is never made anew behind the bitmaps' back.
 *   4. A page whose block has alloc 0 is stale or does not exist.
 *   5. quota.used counts the alloc bits of all stores.
 *
 * Locking: stripe_mu[n], one of 16 by stripe, for transitions to or from stale and to allocated; seg_mu
 * for mapping a new segment; trim_mu for the trimmer's life.  Never two at once.  Reads, and writes to
 * allocated blocks, take none: they pin.
 */
#include "backends/backends.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/log.h"

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

/* ---- bitmaps ---- */

/* The bits [first, last] of word w that lie in blocks [lo, hi]. */
static uint64_t word_mask(uint64_t w, uint64_t lo, uint64_t hi)
{
	uint64_t mask = ~(uint64_t)0;

	if (w == lo / 64)
		mask &= ~(uint64_t)0 << (lo % 64);
	if (w == hi / 64)
		mask &= ~(uint64_t)0 >> (63 - hi % 64);
	return mask;
}

/* How many of blocks [lo, hi] (of one segment) have their bit set. */
static uint64_t bits_count(const bitword *bits, uint64_t lo, uint64_t hi)
{
	uint64_t n = 0;

	for (uint64_t w = lo / 64; w <= hi / 64; w++)
		n += (uint64_t)__builtin_popcountll(
		    atomic_load_explicit(&bits[w], memory_order_acquire) & word_mask(w, lo, hi));
	return n;
}

static bool bit_get(const bitword *bits, uint64_t block)
{
	return atomic_load_explicit(&bits[block / 64], memory_order_acquire) >> (block % 64) & 1;
}

static void bits_set(bitword *bits, uint64_t lo, uint64_t hi)
{
	for (uint64_t w = lo / 64; w <= hi / 64; w++)
		atomic_fetch_or_explicit(&bits[w], word_mask(w, lo, hi), memory_order_release);
}

/* The end of the run of blocks from `block` to at most `hi` whose bits equal that of `block`: the
 * first block after it. */
static uint64_t run_end(const bitword *bits, uint64_t block, uint64_t hi)
{
	bool set = bit_get(bits, block);

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

/* ---- segments ---- */

static struct segment *segment_get(struct memory_store *ms, uint64_t idx)
{
	return atomic_load_explicit(&ms->segments[idx], memory_order_acquire);
}

static int segment_map(struct memory_store *ms, uint64_t idx, struct segment **ret_seg)
{
	struct segment *seg;
	int rc = 0;

	pthread_mutex_lock(&ms->seg_mu);
	seg = segment_get(ms, idx);
	if (seg)
		goto out;
	seg = mmap(NULL, sizeof(*seg), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (seg == MAP_FAILED) {
		rc = -ENOMEM;
		goto out;
	}
	seg->base = mmap(NULL, SEG_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, ms->fd,
	    (off_t)(idx << SEG_SHIFT));
	if (seg->base == MAP_FAILED) {
		munmap(seg, sizeof(*seg));
		rc = -ENOMEM;
		goto out;
	}
	if (ms->mb->hugepages)
		madvise(seg->base, SEG_SIZE, MADV_HUGEPAGE);
	if (ms->mb->mlock && mlock2(seg->base, SEG_SIZE, MLOCK_ONFAULT)) {
		rc = -errno;
		munmap(seg->base, SEG_SIZE);
		munmap(seg, sizeof(*seg));
		goto out;
	}
	atomic_store_explicit(&ms->segments[idx], seg, memory_order_release);
out:
	pthread_mutex_unlock(&ms->seg_mu);
	if (rc == 0)
		*ret_seg = seg;
	return rc;
}

static pthread_mutex_t *stripe_lock(struct memory_store *ms, uint64_t off)
{
	pthread_mutex_t *mu = &ms->stripe_mu[(off >> STRIPE_SHIFT) % STRIPE_LOCKS];

	pthread_mutex_lock(mu);
	return mu;
}

/* The end of the stripe that off lies in, or end if that is sooner. */
static uint64_t stripe_end(uint64_t off, uint64_t end)
{
	uint64_t next = ((off >> STRIPE_SHIFT) + 1) << STRIPE_SHIFT;

	return next < end ? next : end;
}

/* ---- the trimmer ---- */

static int punch(struct memory_store *ms, uint64_t off, uint64_t len)
{
	if (fallocate(ms->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len))
		return -errno;
	return 0;
}

/* Gives back the pages of the stale blocks among [lo, hi] of one stripe, whose lock is held. */
static void trim_blocks_locked(struct memory_store *ms, struct segment *seg, uint64_t seg_off,
    uint64_t lo, uint64_t hi)
{
	for (uint64_t block = lo; block <= hi;) {
		uint64_t end = run_end(seg->stale, block, hi);

		/* A punch fails for want of memory only: the next one will do it. */
		if (bit_get(seg->stale, block) &&
		    punch(ms, seg_off + (block << BLOCK_SHIFT), (end - block) << BLOCK_SHIFT) == 0) {
			for (uint64_t w = block / 64; w <= (end - 1) / 64; w++)
				atomic_fetch_and(&seg->stale[w], ~word_mask(w, block, end - 1));
		}
		block = end;
	}
}

static void trim_segment(struct memory_store *ms, struct segment *seg, uint64_t seg_off)
{
	for (uint64_t s = 0; s < STRIPES; s++) {
		pthread_mutex_t *mu;

		if (!atomic_load(&seg->trim[s]))
			continue;
		mu = stripe_lock(ms, seg_off + (s << STRIPE_SHIFT));
		/* Whoever unpins it last starts the trimmer again. */
		if (atomic_load(&seg->pins[s]) == 0) {
			atomic_store(&seg->trim[s], false);
			trim_blocks_locked(ms, seg, seg_off, s * STRIPE_BLOCKS,
			    s * STRIPE_BLOCKS + STRIPE_BLOCKS - 1);
		}
		pthread_mutex_unlock(mu);
	}
}

static void trim_run(struct work *work)
{
	struct memory_store *ms =
	    (struct memory_store *)((char *)work - offsetof(struct memory_store, trim_work));
	bool again;

	do {
		for (uint64_t i = 0; i < ms->segment_count; i++) {
			struct segment *seg = segment_get(ms, i);

			if (seg)
				trim_segment(ms, seg, i << SEG_SHIFT);
		}
		pthread_mutex_lock(&ms->trim_mu);
		again = ms->trim_again;
		ms->trim_again = false;
		if (!again) {
			ms->trim_running = false;
			pthread_cond_signal(&ms->trim_idle);
		}
		pthread_mutex_unlock(&ms->trim_mu);
	} while (again);
}

static void trim_start(struct memory_store *ms)
{
	bool start;

	pthread_mutex_lock(&ms->trim_mu);
	start = !ms->trim_running;
	ms->trim_again = ms->trim_running;
	ms->trim_running = true;
	pthread_mutex_unlock(&ms->trim_mu);
	if (start)
		workers_submit(ms->mb->workers, &ms->trim_work);
}

/* ---- pins ---- */

/* Pins the stripes of [off, off+len) of one segment; look at alloc after this. */
static void pin(struct segment *seg, uint64_t off, uint64_t len)
{
	for (uint64_t s = off >> STRIPE_SHIFT; s <= (off + len - 1) >> STRIPE_SHIFT; s++)
		atomic_fetch_add(&seg->pins[s], 1);
}

static void unpin(struct memory_store *ms, struct segment *seg, uint64_t off, uint64_t len)
{
	for (uint64_t s = off >> STRIPE_SHIFT; s <= (off + len - 1) >> STRIPE_SHIFT; s++)
		if (atomic_fetch_sub(&seg->pins[s], 1) == 1 && atomic_load(&seg->trim[s]))
			trim_start(ms);
}

/* ---- requests ---- */

static void account(struct memory_store *ms, uint64_t blocks, bool more)
{
	uint64_t bytes = blocks << BLOCK_SHIFT;

	if (more) {
		atomic_fetch_add_explicit(&ms->allocated, bytes, memory_order_relaxed);
	} else {
		atomic_fetch_sub_explicit(&ms->allocated, bytes, memory_order_relaxed);
		quota_give(&ms->mb->backend.quota, bytes);
	}
}

/* Reads [off, off+len) of one segment. */
static void read_part(struct segment *seg, uint8_t *buf, uint64_t off, uint64_t len)
{
	uint64_t hi = (off + len - 1) >> BLOCK_SHIFT;
	uint64_t end = off + len;

	while (off < end) {
		uint64_t block = off >> BLOCK_SHIFT;
		uint64_t stop = run_end(seg->alloc, block, hi) << BLOCK_SHIFT;

		if (stop > end)
			stop = end;
		if (bit_get(seg->alloc, block))
			memcpy(buf, seg->base + off, stop - off);
		else
			memset(buf, 0, stop - off);
		buf += stop - off;
		off = stop;
	}
}

/* Lends the memory of a range that lies in one segment and is allocated throughout, or store_zeros for
 * one that is a hole; false: neither. */
static bool read_lent(struct memory_store *ms, struct store_req *req)
{
	struct segment *seg = segment_get(ms, req->off >> SEG_SHIFT);
	uint64_t in_seg = req->off & (SEG_SIZE - 1);
	uint64_t lo = in_seg >> BLOCK_SHIFT, hi = (in_seg + req->len - 1) >> BLOCK_SHIFT;
	uint64_t n;

	if (in_seg + req->len > SEG_SIZE)
		return false;
	if (seg)
		pin(seg, in_seg, req->len);
	n = seg ? bits_count(seg->alloc, lo, hi) : 0;
	if (n && n == hi - lo + 1) {
		req->buf = seg->base + in_seg;
		req->ret_lent = true;
		return true;
	}
	if (seg)
		unpin(ms, seg, in_seg, req->len);
	if (n == 0)
		req->buf = (uint8_t *)(uintptr_t)store_zeros;
	return n == 0;
}

static void memory_read(struct memory_store *ms, struct store_req *req)
{
	uint8_t *buf = req->buf;
	uint64_t off = req->off, end = req->off + req->len;

	if ((req->flags & STORE_LEND) && read_lent(ms, req))
		return;
	while (off < end) {
		struct segment *seg = segment_get(ms, off >> SEG_SHIFT);
		uint64_t in_seg = off & (SEG_SIZE - 1);
		uint64_t len = end - off < SEG_SIZE - in_seg ? end - off : SEG_SIZE - in_seg;

		if (seg) {
			pin(seg, in_seg, len);
			read_part(seg, buf, in_seg, len);
			unpin(ms, seg, in_seg, len);
		} else {
			memset(buf, 0, len);
		}
		buf += len;
		off += len;
	}
}

/* Clears what [off, end), which is to become allocated, leaves of its first and last block where the
 * page is stale: it would show through. */
static void clear_edges_locked(struct segment *seg, uint64_t off, uint64_t end)
{
	uint64_t first = off >> BLOCK_SHIFT, last = (end - 1) >> BLOCK_SHIFT;

	if (off % STORE_BLOCK && bit_get(seg->stale, first))
		memset(seg->base + (first << BLOCK_SHIFT), 0, off % STORE_BLOCK);
	if (end % STORE_BLOCK && bit_get(seg->stale, last))
		memset(seg->base + end, 0, STORE_BLOCK - end % STORE_BLOCK);
}

/* Makes blocks [lo, hi] of one stripe allocated, their bytes being right already. */
static void set_allocated_locked(struct memory_store *ms, struct segment *seg, uint64_t lo,
    uint64_t hi, uint64_t fresh)
{
	for (uint64_t w = lo / 64; w <= hi / 64; w++)
		atomic_fetch_and(&seg->stale[w], ~word_mask(w, lo, hi));
	bits_set(seg->alloc, lo, hi);
	account(ms, fresh, true);
}

/* All of it, into pages that may not be there yet: twice as fast as through the mapping, which would
 * clear each page in a fault before it is overwritten. */
static int write_pages(struct memory_store *ms, const uint8_t *buf, uint64_t off, uint64_t len)
{
	while (len) {
		ssize_t n = pwrite(ms->fd, buf, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		buf += n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

static void touch_pages(const volatile uint8_t *at, uint64_t len)
{
	for (uint64_t i = 0; i < len; i += STORE_BLOCK)
		(void)at[i];
	(void)at[len - 1];
}

/* Blocks [lo, hi] of one stripe that are not allocated may have pages: those are stale. */
static void set_stale_locked(struct segment *seg, uint64_t lo, uint64_t hi)
{
	for (uint64_t w = lo / 64; w <= hi / 64; w++)
		atomic_fetch_or(
		    &seg->stale[w], word_mask(w, lo, hi) & ~atomic_load(&seg->alloc[w]));
	atomic_store(&seg->trim[lo / STRIPE_BLOCKS], true);
}

/* Writes to blocks of one stripe that are not all allocated. */
static int write_fresh(struct memory_store *ms, struct segment *seg, const uint8_t *buf, uint64_t off,
    uint64_t len)
{
	uint64_t in_seg = off & (SEG_SIZE - 1);
	uint64_t lo = in_seg >> BLOCK_SHIFT, hi = (in_seg + len - 1) >> BLOCK_SHIFT;
	pthread_mutex_t *mu = stripe_lock(ms, off);
	uint64_t fresh = hi - lo + 1 - bits_count(seg->alloc, lo, hi);
	int rc = quota_take(&ms->mb->backend.quota, fresh << BLOCK_SHIFT);

	if (rc == 0) {
		clear_edges_locked(seg, in_seg, in_seg + len);
		rc = write_pages(ms, buf, off, len);
		if (rc == 0) {
			if (ms->mb->mlock) /* what is written past the mapping is locked at a touch */
				touch_pages(seg->base + in_seg, len);
			set_allocated_locked(ms, seg, lo, hi, fresh);
		} else {
			quota_give(&ms->mb->backend.quota, fresh << BLOCK_SHIFT);
			set_stale_locked(seg, lo, hi);
		}
	}
	pthread_mutex_unlock(mu);
	if (rc)
		trim_start(ms);
	return rc;
}

/* Writes to one stripe.  buf may be the very memory that is written to (a loan). */
static int write_part(struct memory_store *ms, struct segment *seg, const uint8_t *buf, uint64_t off,
    uint64_t len)
{
	uint64_t in_seg = off & (SEG_SIZE - 1);
	uint64_t lo = in_seg >> BLOCK_SHIFT, hi = (in_seg + len - 1) >> BLOCK_SHIFT;
	int rc = 0;

	pin(seg, in_seg, len);
	if (bits_count(seg->alloc, lo, hi) == hi - lo + 1 && buf != seg->base + in_seg)
		memcpy(seg->base + in_seg, buf, len);
	/* Not all allocated; or no more, because somebody punched meanwhile. */
	if (bits_count(seg->alloc, lo, hi) != hi - lo + 1)
		rc = write_fresh(ms, seg, buf, off, len);
	unpin(ms, seg, in_seg, len);
	return rc;
}

static int memory_write(struct memory_store *ms, const struct store_req *req)
{
	const uint8_t *buf = req->buf;
	uint64_t off = req->off, end = req->off + req->len;

	while (off < end) {
		struct segment *seg = segment_get(ms, off >> SEG_SHIFT);
		uint64_t len = stripe_end(off, end) - off;
		int rc = seg ? 0 : segment_map(ms, off >> SEG_SHIFT, &seg);

		if (rc == 0)
			rc = write_part(ms, seg, buf, off, len);
		if (rc)
			return rc;
		buf += len;
		off += len;
	}
	return 0;
}

static void *memory_lend(struct store *store, uint64_t off, uint32_t len)
{
	struct memory_store *ms = (struct memory_store *)store;
	struct segment *seg = segment_get(ms, off >> SEG_SHIFT);
	uint64_t in_seg = off & (SEG_SIZE - 1);
	uint64_t lo = in_seg >> BLOCK_SHIFT, hi = (in_seg + len - 1) >> BLOCK_SHIFT;

	if (!seg || in_seg + len > SEG_SIZE)
		return NULL;
	pin(seg, in_seg, len);
	if (bits_count(seg->alloc, lo, hi) == hi - lo + 1)
		return seg->base + in_seg;
	unpin(ms, seg, in_seg, len);
	return NULL;
}

static void memory_unlend(struct store *store, uint64_t off, uint32_t len)
{
	struct memory_store *ms = (struct memory_store *)store;

	unpin(ms, segment_get(ms, off >> SEG_SHIFT), off & (SEG_SIZE - 1), len);
}

/* Zeroes the part [off, end) of one block if it is allocated. */
static void zero_edge(struct segment *seg, uint64_t off, uint64_t end)
{
	if (off < end && bit_get(seg->alloc, off >> BLOCK_SHIFT))
		memset(seg->base + off, 0, end - off);
}

/* Whole blocks [lo, hi] of one stripe: allocated → stale. */
static void release_blocks(struct memory_store *ms, struct segment *seg, uint64_t off, uint64_t lo,
    uint64_t hi)
{
	pthread_mutex_t *mu = stripe_lock(ms, off);
	uint64_t n = 0;

	for (uint64_t w = lo / 64; w <= hi / 64; w++) {
		uint64_t mask = word_mask(w, lo, hi);
		uint64_t was = atomic_fetch_and(&seg->alloc[w], ~mask) & mask;

		atomic_fetch_or(&seg->stale[w], was);
		n += (uint64_t)__builtin_popcountll(was);
	}
	if (n)
		atomic_store(&seg->trim[lo / STRIPE_BLOCKS], true);
	pthread_mutex_unlock(mu);
	account(ms, n, false);
}

/* Whole blocks [lo, hi] of one stripe read as zeros and stay allocated if they are. */
static int clear_blocks(struct memory_store *ms, struct segment *seg, uint64_t off, uint64_t lo,
    uint64_t hi)
{
	if (hi - lo + 1 < 16) {
		for (uint64_t block = lo; block <= hi; block++)
			if (bit_get(seg->alloc, block))
				memset(seg->base + (block << BLOCK_SHIFT), 0, STORE_BLOCK);
		return 0;
	}
	return punch(ms, off, (hi - lo + 1) << BLOCK_SHIFT);
}

/* ZERO of [off, end), which lies in one stripe. */
static int zero_part(struct memory_store *ms, struct segment *seg, uint64_t off, uint64_t end,
    bool keep)
{
	uint64_t base = off & ~(SEG_SIZE - 1);
	uint64_t lo, hi;

	off -= base;
	end -= base;
	lo = (off + STORE_BLOCK - 1) >> BLOCK_SHIFT;
	hi = end >> BLOCK_SHIFT; /* the first block that is not whole */
	if (lo > hi) { /* within one block */
		zero_edge(seg, off, end);
		return 0;
	}
	zero_edge(seg, off, lo << BLOCK_SHIFT);
	zero_edge(seg, hi << BLOCK_SHIFT, end);
	if (lo == hi)
		return 0;
	if (keep)
		return clear_blocks(ms, seg, base + (lo << BLOCK_SHIFT), lo, hi - 1);
	release_blocks(ms, seg, base + (lo << BLOCK_SHIFT), lo, hi - 1);
	return 0;
}

static int memory_zero(struct memory_store *ms, uint64_t off, uint64_t len, bool keep)
{
	uint64_t end = off + len;
	int rc = 0;

	while (off < end && rc == 0) {
		struct segment *seg = segment_get(ms, off >> SEG_SHIFT);
		uint64_t stop;

		if (seg) {
			stop = stripe_end(off, end);
			pin(seg, off & (SEG_SIZE - 1), stop - off);
			rc = zero_part(ms, seg, off, stop, keep);
			unpin(ms, seg, off & (SEG_SIZE - 1), stop - off);
		} else {
			stop = ((off >> SEG_SHIFT) + 1) << SEG_SHIFT;
		}
		off = stop;
	}
	if (!keep)
		trim_start(ms);
	return rc;
}

/* The stale blocks among [lo, hi] read as zeros through the mapping, too. */
static void clear_stale_locked(struct memory_store *ms, struct segment *seg, uint64_t seg_off,
    uint64_t lo, uint64_t hi)
{
	trim_blocks_locked(ms, seg, seg_off, lo, hi);
	for (uint64_t block = lo; block <= hi; block++)
		if (bit_get(seg->stale, block)) /* it could not be punched */
			memset(seg->base + (block << BLOCK_SHIFT), 0, STORE_BLOCK);
}

static int memory_alloc(struct memory_store *ms, uint64_t off, uint64_t len)
{
	uint64_t end = off + len;

	while (off < end) {
		uint64_t stop = stripe_end(off, end);
		struct segment *seg = segment_get(ms, off >> SEG_SHIFT);
		uint64_t in_seg = off & (SEG_SIZE - 1);
		uint64_t lo = in_seg >> BLOCK_SHIFT;
		uint64_t hi = (in_seg + (stop - off) - 1) >> BLOCK_SHIFT;
		int rc = seg ? 0 : segment_map(ms, off >> SEG_SHIFT, &seg);
		pthread_mutex_t *mu;
		uint64_t fresh;

		if (rc)
			return rc;
		mu = stripe_lock(ms, off);
		fresh = hi - lo + 1 - bits_count(seg->alloc, lo, hi);
		rc = quota_take(&ms->mb->backend.quota, fresh << BLOCK_SHIFT);
		if (rc == 0) {
			clear_stale_locked(ms, seg, off - in_seg, lo, hi);
			set_allocated_locked(ms, seg, lo, hi, fresh);
		}
		pthread_mutex_unlock(mu);
		if (rc)
			return rc;
		off = stop;
	}
	return 0;
}

static void memory_extents(struct memory_store *ms, struct store_req *req)
{
	uint64_t off = req->off, end = req->off + req->len;
	unsigned n = 0;

	while (off < end) {
		struct segment *seg = segment_get(ms, off >> SEG_SHIFT);
		uint64_t seg_off = off & ~(SEG_SIZE - 1);
		uint64_t seg_end = end - seg_off < SEG_SIZE ? end - seg_off : SEG_SIZE;
		uint64_t block = (off - seg_off) >> BLOCK_SHIFT;
		uint64_t hi = (seg_end - 1) >> BLOCK_SHIFT;
		uint32_t flags = seg && bit_get(seg->alloc, block) ? 0 : EXTENT_HOLE;
		uint64_t stop = seg ? run_end(seg->alloc, block, hi) << BLOCK_SHIFT : seg_end;

		stop = seg_off + (stop < seg_end ? stop : seg_end);
		if (n && req->extents[n - 1].flags == flags) {
			req->extents[n - 1].len += stop - off;
		} else {
			if (n == req->extents_max)
				break;
			req->extents[n++] = (struct extent){off, stop - off, flags};
		}
		off = stop;
	}
	req->ret_extents = n;
}

static void memory_submit(struct store *store, struct store_req *req)
{
	struct memory_store *ms = (struct memory_store *)store;
	int err = 0;

	switch (req->op) {
	case STORE_READ:
		memory_read(ms, req);
		break;
	case STORE_WRITE:
		err = memory_write(ms, req);
		break;
	case STORE_ZERO:
		err = memory_zero(ms, req->off, req->len, req->flags & STORE_KEEP);
		break;
	case STORE_ALLOC:
		err = memory_alloc(ms, req->off, req->len);
		break;
	case STORE_EXTENTS:
		memory_extents(ms, req);
		break;
	case STORE_RESIZE:
		if (req->off < store->size)
			err = memory_zero(ms, req->off, store->size - req->off, false);
		break;
	default: /* FLUSH: memory is as stable as it gets */
		break;
	}
	store_complete(req, err);
}

static int memory_stat(struct store *store, struct store_stat *ret_stat)
{
	struct memory_store *ms = (struct memory_store *)store;

	ret_stat->mtime_ns = 0;
	ret_stat->size = 0; /* memory knows no logical size; the region does */
	ret_stat->allocated = atomic_load_explicit(&ms->allocated, memory_order_relaxed);
	return 0;
}

static void memory_destroy(struct store *store)
{
	struct memory_store *ms = (struct memory_store *)store;

	pthread_mutex_lock(&ms->trim_mu);
	while (ms->trim_running)
		pthread_cond_wait(&ms->trim_idle, &ms->trim_mu);
	pthread_mutex_unlock(&ms->trim_mu);
	for (unsigned i = 0; i < ms->segment_count; i++) {
		struct segment *seg = segment_get(ms, i);

		if (seg) {
			munmap(seg->base, SEG_SIZE);
			munmap(seg, sizeof(*seg));
		}
	}
	quota_give(&ms->mb->backend.quota, atomic_load(&ms->allocated));
	close(ms->fd);
	for (unsigned i = 0; i < STRIPE_LOCKS; i++)
		pthread_mutex_destroy(&ms->stripe_mu[i]);
	pthread_mutex_destroy(&ms->seg_mu);
	pthread_mutex_destroy(&ms->trim_mu);
	pthread_cond_destroy(&ms->trim_idle);
	free(ms);
}

static const struct store_ops memory_store_ops = {
    .name = "memory",
    .submit = memory_submit,
    .lend = memory_lend,
    .unlend = memory_unlend,
    .stat = memory_stat,
    .destroy = memory_destroy,
};

/* ---- the backend ---- */

static int memory_region_open(struct backend *backend, uint64_t id, bool create,
    struct store **ret_store, struct err *err)
{
	struct memory_backend *mb = (struct memory_backend *)backend;
	uint64_t segments = (backend->quota.limit + SEG_SIZE - 1) >> SEG_SHIFT;
	struct memory_store *ms;
	char name[32];

	if (!create)
		return err_set(err, -ENOENT, "a memory: pool has nothing from before its start");
	ms = calloc(1, sizeof(*ms) + segments * sizeof(ms->segments[0]));
	if (!ms)
		return err_set(err, -ENOMEM, "out of memory for a region");
	store_init(&ms->store, &memory_store_ops, backend->quota.limit);
	ms->mb = mb;
	ms->segment_count = (unsigned)segments;
	snprintf(name, sizeof(name), "remram-%llx", (unsigned long long)id);
	ms->fd = memfd_create(name, MFD_CLOEXEC);
	if (ms->fd < 0 || ftruncate(ms->fd, (off_t)(segments << SEG_SHIFT))) {
		int rc = err_sys(err, -errno, "cannot make a memory file for a region");

		if (ms->fd >= 0)
			close(ms->fd);
		free(ms);
		return rc;
	}
	for (unsigned i = 0; i < STRIPE_LOCKS; i++)
		pthread_mutex_init(&ms->stripe_mu[i], NULL);
	pthread_mutex_init(&ms->seg_mu, NULL);
	pthread_mutex_init(&ms->trim_mu, NULL);
	pthread_cond_init(&ms->trim_idle, NULL);
	ms->trim_work.run = trim_run;
	*ret_store = &ms->store;
	return 0;
}

static int memory_region_remove(struct backend *backend, uint64_t id, struct err *err)
{
	return 0; /* went with its store */
}

static void memory_close(struct backend *backend)
{
	free(backend);
}

static int param_flag(const struct uri *uri, const char *name, bool *ret_flag, struct err *err)
{
	const char *value = uri_param(uri, name);

	if (value && *value && strcmp(value, "1") != 0 && strcmp(value, "0") != 0)
		return err_set(err, -EINVAL, "memory: %s=%s: %s takes no value, 0 or 1", name, value, name);
	*ret_flag = value && strcmp(value, "0") != 0;
	return 0;
}

static int memory_open(const struct uri *uri, bool single, struct workers *workers,
    struct backend **ret_backend, struct err *err)
{
	static const char *const known[] = {"size", "mlock", "hugepages", NULL};
	const char *size = uri_param(uri, "size");
	struct memory_backend *mb;
	uint64_t limit;
	int rc = uri_check_params(uri, known, err);

	if (rc)
		return rc;
	if (uri->host || *uri->path)
		return err_set(err, -EINVAL, "memory: takes no path: write memory:?size=8G");
	if (!size || size_parse(size, &limit) || limit < STORE_BLOCK || limit > (uint64_t)1 << 46)
		return err_set(err, -EINVAL,
		    "memory: size=%s: a size between 4K and 64T is needed, as in memory:?size=8G",
		    size ? size : "");
	mb = calloc(1, sizeof(*mb));
	if (!mb)
		return err_set(err, -ENOMEM, "out of memory for a pool");
	mb->backend.ops = &memory_backend;
	mb->backend.quota.limit = limit & ~(uint64_t)(STORE_BLOCK - 1);
	mb->workers = workers;
	rc = param_flag(uri, "mlock", &mb->mlock, err);
	if (rc == 0)
		rc = param_flag(uri, "hugepages", &mb->hugepages, err);
	if (rc) {
		free(mb);
		return rc;
	}
	*ret_backend = &mb->backend;
	return 0;
}

const struct backend_ops memory_backend = {
    .scheme = "memory",
    .help = "memory:?size=SIZE[&mlock][&hugepages]  memory of the donor",
    .open = memory_open,
    .region_open = memory_region_open,
    .region_remove = memory_region_remove,
    .close = memory_close,
};
