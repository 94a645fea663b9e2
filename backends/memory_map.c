/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory regions: segments, pins, and the trimmer, which gives punched pages back behind the requests.
 * See memory.c for the states and invariants.
 */
#include "backends/memory_int.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

int memory_segment_map(struct memory_store *ms, uint64_t idx, struct segment **ret_seg)
{
	struct segment *seg;
	int rc = 0;

	pthread_mutex_lock(&ms->seg_mu);
	seg = memory_segment(ms, idx);
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

pthread_mutex_t *memory_stripe_lock(struct memory_store *ms, uint64_t off)
{
	pthread_mutex_t *mu = &ms->stripe_mu[(off >> STRIPE_SHIFT) % STRIPE_LOCKS];

	pthread_mutex_lock(mu);
	return mu;
}

/* ---- the trimmer ---- */

int memory_punch(struct memory_store *ms, uint64_t off, uint64_t len)
{
	if (fallocate(ms->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len))
		return -errno;
	return 0;
}

/* Gives back the pages of the stale blocks among [lo, hi] of one stripe, whose lock is held. */
void memory_trim_locked(
    struct memory_store *ms, struct segment *seg, uint64_t seg_off, uint64_t lo, uint64_t hi)
{
	for (uint64_t block = lo; block <= hi;) {
		uint64_t end = memory_run_end(seg->stale, block, hi);

		/* A punch fails for want of memory only: the next one will do it. */
		if (memory_bit(seg->stale, block) &&
		    memory_punch(
			ms, seg_off + (block << BLOCK_SHIFT), (end - block) << BLOCK_SHIFT) == 0) {
			for (uint64_t w = block / 64; w <= (end - 1) / 64; w++)
				atomic_fetch_and(
				    &seg->stale[w], ~memory_word_mask(w, block, end - 1));
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
		mu = memory_stripe_lock(ms, seg_off + (s << STRIPE_SHIFT));
		/* Whoever unpins it last starts the trimmer again. */
		if (atomic_load(&seg->pins[s]) == 0) {
			atomic_store(&seg->trim[s], false);
			memory_trim_locked(ms, seg, seg_off, s * STRIPE_BLOCKS,
			    s * STRIPE_BLOCKS + STRIPE_BLOCKS - 1);
		}
		pthread_mutex_unlock(mu);
	}
}

void memory_trim_run(struct work *work)
{
	struct memory_store *ms =
	    (struct memory_store *)((char *)work - offsetof(struct memory_store, trim_work));
	bool again;

	do {
		for (uint64_t i = 0; i < ms->segment_count; i++) {
			struct segment *seg = memory_segment(ms, i);

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

void memory_trim(struct memory_store *ms)
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
void memory_pin(struct segment *seg, uint64_t off, uint64_t len)
{
	for (uint64_t s = off >> STRIPE_SHIFT; s <= (off + len - 1) >> STRIPE_SHIFT; s++)
		atomic_fetch_add(&seg->pins[s], 1);
}

void memory_unpin(struct memory_store *ms, struct segment *seg, uint64_t off, uint64_t len)
{
	for (uint64_t s = off >> STRIPE_SHIFT; s <= (off + len - 1) >> STRIPE_SHIFT; s++)
		if (atomic_fetch_sub(&seg->pins[s], 1) == 1 && atomic_load(&seg->trim[s]))
			memory_trim(ms);
}
