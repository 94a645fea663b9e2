/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory regions: the requests.  All are answered at once, on the loop that submitted them.  See memory.c
 * for the states and invariants.
 */
#include "backends/memory_int.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

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
		uint64_t stop = memory_run_end(seg->alloc, block, hi) << BLOCK_SHIFT;

		if (stop > end)
			stop = end;
		if (memory_bit(seg->alloc, block))
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
	struct segment *seg = memory_segment(ms, req->off >> SEG_SHIFT);
	uint64_t in_seg = req->off & (SEG_SIZE - 1);
	uint64_t lo = in_seg >> BLOCK_SHIFT, hi = (in_seg + req->len - 1) >> BLOCK_SHIFT;
	uint64_t n;

	if (in_seg + req->len > SEG_SIZE)
		return false;
	if (seg)
		memory_pin(seg, in_seg, req->len);
	n = seg ? memory_bits_count(seg->alloc, lo, hi) : 0;
	if (n && n == hi - lo + 1) {
		req->buf = seg->base + in_seg;
		req->ret_lent = true;
		return true;
	}
	if (seg)
		memory_unpin(ms, seg, in_seg, req->len);
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
		struct segment *seg = memory_segment(ms, off >> SEG_SHIFT);
		uint64_t in_seg = off & (SEG_SIZE - 1);
		uint64_t len = end - off < SEG_SIZE - in_seg ? end - off : SEG_SIZE - in_seg;

		if (seg) {
			memory_pin(seg, in_seg, len);
			read_part(seg, buf, in_seg, len);
			memory_unpin(ms, seg, in_seg, len);
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

	if (off % STORE_BLOCK && memory_bit(seg->stale, first))
		memset(seg->base + (first << BLOCK_SHIFT), 0, off % STORE_BLOCK);
	if (end % STORE_BLOCK && memory_bit(seg->stale, last))
		memset(seg->base + end, 0, STORE_BLOCK - end % STORE_BLOCK);
}

/* Makes blocks [lo, hi] of one stripe allocated, their bytes being right already. */
static void set_allocated_locked(
    struct memory_store *ms, struct segment *seg, uint64_t lo, uint64_t hi, uint64_t fresh)
{
	for (uint64_t w = lo / 64; w <= hi / 64; w++)
		atomic_fetch_and(&seg->stale[w], ~memory_word_mask(w, lo, hi));
	memory_bits_set(seg->alloc, lo, hi);
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
		    &seg->stale[w], memory_word_mask(w, lo, hi) & ~atomic_load(&seg->alloc[w]));
	atomic_store(&seg->trim[lo / STRIPE_BLOCKS], true);
}

/* Writes to blocks of one stripe that are not all allocated. */
static int write_fresh(
    struct memory_store *ms, struct segment *seg, const uint8_t *buf, uint64_t off, uint64_t len)
{
	uint64_t in_seg = off & (SEG_SIZE - 1);
	uint64_t lo = in_seg >> BLOCK_SHIFT, hi = (in_seg + len - 1) >> BLOCK_SHIFT;
	pthread_mutex_t *mu = memory_stripe_lock(ms, off);
	uint64_t fresh = hi - lo + 1 - memory_bits_count(seg->alloc, lo, hi);
	int rc = quota_take(&ms->mb->backend.quota, fresh << BLOCK_SHIFT);

	if (rc == 0) {
		clear_edges_locked(seg, in_seg, in_seg + len);
		rc = write_pages(ms, buf, off, len);
		if (rc == 0) {
			if (ms->mb
				->mlock) /* what is written past the mapping is locked at a touch */
				touch_pages(seg->base + in_seg, len);
			set_allocated_locked(ms, seg, lo, hi, fresh);
		} else {
			quota_give(&ms->mb->backend.quota, fresh << BLOCK_SHIFT);
			set_stale_locked(seg, lo, hi);
		}
	}
	pthread_mutex_unlock(mu);
	if (rc)
		memory_trim(ms);
	return rc;
}

/* Writes to one stripe.  buf may be the very memory that is written to (a loan). */
static int write_part(
    struct memory_store *ms, struct segment *seg, const uint8_t *buf, uint64_t off, uint64_t len)
{
	uint64_t in_seg = off & (SEG_SIZE - 1);
	uint64_t lo = in_seg >> BLOCK_SHIFT, hi = (in_seg + len - 1) >> BLOCK_SHIFT;
	int rc = 0;

	memory_pin(seg, in_seg, len);
	if (memory_bits_count(seg->alloc, lo, hi) == hi - lo + 1 && buf != seg->base + in_seg)
		memcpy(seg->base + in_seg, buf, len);
	/* Not all allocated; or no more, because somebody punched meanwhile. */
	if (memory_bits_count(seg->alloc, lo, hi) != hi - lo + 1)
		rc = write_fresh(ms, seg, buf, off, len);
	memory_unpin(ms, seg, in_seg, len);
	return rc;
}

static int memory_write(struct memory_store *ms, const struct store_req *req)
{
	const uint8_t *buf = req->buf;
	uint64_t off = req->off, end = req->off + req->len;

	while (off < end) {
		struct segment *seg = memory_segment(ms, off >> SEG_SHIFT);
		uint64_t len = memory_stripe_end(off, end) - off;
		int rc = seg ? 0 : memory_segment_map(ms, off >> SEG_SHIFT, &seg);

		if (rc == 0)
			rc = write_part(ms, seg, buf, off, len);
		if (rc)
			return rc;
		buf += len;
		off += len;
	}
	return 0;
}

void *memory_lend(struct store *store, uint64_t off, uint32_t len)
{
	struct memory_store *ms = (struct memory_store *)store;
	struct segment *seg = memory_segment(ms, off >> SEG_SHIFT);
	uint64_t in_seg = off & (SEG_SIZE - 1);
	uint64_t lo = in_seg >> BLOCK_SHIFT, hi = (in_seg + len - 1) >> BLOCK_SHIFT;

	if (!seg || in_seg + len > SEG_SIZE)
		return NULL;
	memory_pin(seg, in_seg, len);
	if (memory_bits_count(seg->alloc, lo, hi) == hi - lo + 1)
		return seg->base + in_seg;
	memory_unpin(ms, seg, in_seg, len);
	return NULL;
}

void memory_unlend(struct store *store, uint64_t off, uint32_t len)
{
	struct memory_store *ms = (struct memory_store *)store;

	memory_unpin(ms, memory_segment(ms, off >> SEG_SHIFT), off & (SEG_SIZE - 1), len);
}

/* Zeroes the part [off, end) of one block if it is allocated. */
static void zero_edge(struct segment *seg, uint64_t off, uint64_t end)
{
	if (off < end && memory_bit(seg->alloc, off >> BLOCK_SHIFT))
		memset(seg->base + off, 0, end - off);
}

/* Whole blocks [lo, hi] of one stripe: allocated → stale. */
static void release_blocks(
    struct memory_store *ms, struct segment *seg, uint64_t off, uint64_t lo, uint64_t hi)
{
	pthread_mutex_t *mu = memory_stripe_lock(ms, off);
	uint64_t n = 0;

	for (uint64_t w = lo / 64; w <= hi / 64; w++) {
		uint64_t mask = memory_word_mask(w, lo, hi);
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
static int clear_blocks(
    struct memory_store *ms, struct segment *seg, uint64_t off, uint64_t lo, uint64_t hi)
{
	if (hi - lo + 1 < 16) {
		for (uint64_t block = lo; block <= hi; block++)
			if (memory_bit(seg->alloc, block))
				memset(seg->base + (block << BLOCK_SHIFT), 0, STORE_BLOCK);
		return 0;
	}
	return memory_punch(ms, off, (hi - lo + 1) << BLOCK_SHIFT);
}

/* ZERO of [off, end), which lies in one stripe. */
static int zero_part(
    struct memory_store *ms, struct segment *seg, uint64_t off, uint64_t end, bool keep)
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
		struct segment *seg = memory_segment(ms, off >> SEG_SHIFT);
		uint64_t stop;

		if (seg) {
			stop = memory_stripe_end(off, end);
			memory_pin(seg, off & (SEG_SIZE - 1), stop - off);
			rc = zero_part(ms, seg, off, stop, keep);
			memory_unpin(ms, seg, off & (SEG_SIZE - 1), stop - off);
		} else {
			stop = ((off >> SEG_SHIFT) + 1) << SEG_SHIFT;
		}
		off = stop;
	}
	if (!keep)
		memory_trim(ms);
	return rc;
}

/* The stale blocks among [lo, hi] read as zeros through the mapping, too. */
static void clear_stale_locked(
    struct memory_store *ms, struct segment *seg, uint64_t seg_off, uint64_t lo, uint64_t hi)
{
	memory_trim_locked(ms, seg, seg_off, lo, hi);
	for (uint64_t block = lo; block <= hi; block++)
		if (memory_bit(seg->stale, block)) /* it could not be punched */
			memset(seg->base + (block << BLOCK_SHIFT), 0, STORE_BLOCK);
}

static int memory_alloc(struct memory_store *ms, uint64_t off, uint64_t len)
{
	uint64_t end = off + len;

	while (off < end) {
		uint64_t stop = memory_stripe_end(off, end);
		struct segment *seg = memory_segment(ms, off >> SEG_SHIFT);
		uint64_t in_seg = off & (SEG_SIZE - 1);
		uint64_t lo = in_seg >> BLOCK_SHIFT;
		uint64_t hi = (in_seg + (stop - off) - 1) >> BLOCK_SHIFT;
		int rc = seg ? 0 : memory_segment_map(ms, off >> SEG_SHIFT, &seg);
		pthread_mutex_t *mu;
		uint64_t fresh;

		if (rc)
			return rc;
		mu = memory_stripe_lock(ms, off);
		fresh = hi - lo + 1 - memory_bits_count(seg->alloc, lo, hi);
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
		struct segment *seg = memory_segment(ms, off >> SEG_SHIFT);
		uint64_t seg_off = off & ~(SEG_SIZE - 1);
		uint64_t seg_end = end - seg_off < SEG_SIZE ? end - seg_off : SEG_SIZE;
		uint64_t block = (off - seg_off) >> BLOCK_SHIFT;
		uint64_t hi = (seg_end - 1) >> BLOCK_SHIFT;
		uint32_t flags = seg && memory_bit(seg->alloc, block) ? 0 : EXTENT_HOLE;
		uint64_t stop =
		    seg ? memory_run_end(seg->alloc, block, hi) << BLOCK_SHIFT : seg_end;

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

void memory_submit(struct store *store, struct store_req *req)
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
