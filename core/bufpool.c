/* SPDX-License-Identifier: Apache-2.0
 *
 * One anonymous mapping, cut into buffers, and a stack of the free ones.
 *
 * Invariant: free[0 … left) are the buffers that are not out, each exactly once.
 */
#include "core/bufpool.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct bufpool {
	size_t size;
	unsigned count, left;
	char *base;
	void *free[];
};

int bufpool_create(
    size_t size, unsigned count, bool touch, struct bufpool **ret_pool, struct err *err)
{
	struct bufpool *pool = calloc(1, sizeof(*pool) + count * sizeof(pool->free[0]));

	if (!pool)
		return err_set(err, -ENOMEM, "out of memory for %u buffers", count);
	pool->size = (size + 4095) & ~(size_t)4095;
	pool->count = count;
	pool->base = mmap(NULL, pool->size * count, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (pool->base == MAP_FAILED) {
		free(pool);
		return err_set(
		    err, -ENOMEM, "out of memory for %u buffers of %zu bytes", count, size);
	}
	if (touch)
		memset(pool->base, 0, pool->size * count);
	for (unsigned i = 0; i < count; i++)
		pool->free[i] = pool->base + (count - 1 - i) * pool->size;
	pool->left = count;
	*ret_pool = pool;
	return 0;
}

void bufpool_destroy(struct bufpool *pool)
{
	if (!pool)
		return;
	assert(pool->left == pool->count);
	munmap(pool->base, pool->size * pool->count);
	free(pool);
}

void *bufpool_get(struct bufpool *pool)
{
	return pool->left ? pool->free[--pool->left] : NULL;
}

void bufpool_put(struct bufpool *pool, void *buf)
{
	assert(pool->left < pool->count && (char *)buf >= pool->base &&
	       ((size_t)((char *)buf - pool->base)) % pool->size == 0);
	pool->free[pool->left++] = buf;
}

void bufpool_trim(struct bufpool *pool)
{
	for (unsigned i = 0; i < pool->left; i++)
		madvise(pool->free[i], pool->size, MADV_DONTNEED);
}

unsigned bufpool_left(const struct bufpool *pool)
{
	return pool->left;
}
