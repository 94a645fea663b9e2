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
#include "backends/memory_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

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
		struct segment *seg = memory_segment(ms, i);

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

static int memory_region_open(
    struct backend *backend, uint64_t id, bool create, struct store **ret_store, struct err *err)
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
	ms->trim_work.run = memory_trim_run;
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
		return err_set(
		    err, -EINVAL, "memory: %s=%s: %s takes no value, 0 or 1", name, value, name);
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
