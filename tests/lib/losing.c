/* SPDX-License-Identifier: Apache-2.0
 *
 * A layer that loses (see tests/lib/losing.h).
 *
 * `stable` has all bytes as the last FLUSH left them; `changed` says where the lower store may have others.
 */
#include "tests/lib/losing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SECTOR = 512 };

struct losing {
	struct store store; /* first */
	struct store *lower; /* owned */
	uint64_t blocks;
	uint8_t *stable;
	bool *changed; /* a block's: since it was stable */
	bool lost; /* something, and no FLUSH has failed since */
};

static struct losing *losing_of(struct store *store)
{
	return (struct losing *)store;
}

/* ---- what it does ---- */

static void settle(struct losing *losing)
{
	for (uint64_t b = 0; b < losing->blocks; b++)
		if (losing->changed[b]) {
			rig_peek(losing->lower, b * STORE_BLOCK, losing->stable + b * STORE_BLOCK,
			    STORE_BLOCK);
			losing->changed[b] = false;
		}
	losing->lost = false;
}

void losing_settle(struct store *store)
{
	struct losing *losing = losing_of(store);

	memset(losing->changed, true, losing->blocks);
	settle(losing);
}

const uint8_t *losing_stable(struct store *store)
{
	return losing_of(store)->stable;
}

static void lose_block(struct losing *losing, uint64_t block, struct rig_random *random)
{
	const uint8_t *stable = losing->stable + block * STORE_BLOCK;
	uint8_t buf[STORE_BLOCK];

	rig_peek(losing->lower, block * STORE_BLOCK, buf, STORE_BLOCK);
	for (unsigned at = 0; at < STORE_BLOCK; at += SECTOR)
		if (memcmp(buf + at, stable + at, SECTOR) && rig_random_below(random, 2))
			memcpy(buf + at, stable + at, SECTOR);
	rig_poke(losing->lower, block * STORE_BLOCK, buf, STORE_BLOCK);
}

void losing_loses(struct store *store, struct rig_random *random)
{
	struct losing *losing = losing_of(store);

	for (uint64_t b = 0; b < losing->blocks; b++)
		if (losing->changed[b]) {
			lose_block(losing, b, random);
			losing->lost = true;
		}
}

static void submit(struct store *store, struct store_req *req)
{
	struct losing *losing = losing_of(store);

	rig_check(!(req->flags & STORE_FUA), "it does not know FUA");
	if (req->op == STORE_WRITE || req->op == STORE_ZERO)
		memset(losing->changed + req->off / STORE_BLOCK, true,
		    (req->off + req->len - 1) / STORE_BLOCK - req->off / STORE_BLOCK + 1);
	if (req->op == STORE_RESIZE && req->off < store->size)
		memset(losing->stable + req->off, 0, store->size - req->off);
	if (req->op == STORE_FLUSH && losing->lost) {
		losing->lost = false;
		store_complete(req, -EIO);
		return;
	}
	if (req->op == STORE_FLUSH)
		settle(losing);
	store_forward(losing->lower, req);
}

/* Who receives into memory that is lent would change it unseen. */
static void *lend(struct store *store, uint64_t off, uint32_t len)
{
	return NULL;
}

static void unlend(struct store *store, uint64_t off, uint32_t len)
{
	store_lower_unlend(losing_of(store)->lower, off, len);
}

static void destroy(struct store *store)
{
	struct losing *losing = losing_of(store);

	store_destroy(losing->lower);
	free(losing->stable);
	free(losing->changed);
	free(losing);
}

static const struct store_ops ops = {
    .name = "losing",
    .submit = submit,
    .lend = lend,
    .unlend = unlend,
    .destroy = destroy,
};

struct store *losing_create(struct store *lower)
{
	struct losing *losing = calloc(1, sizeof(*losing));

	ck_assert(losing && lower->size % STORE_BLOCK == 0);
	store_init(&losing->store, &ops, lower->size);
	losing->lower = lower;
	losing->blocks = lower->size / STORE_BLOCK;
	losing->stable = calloc(1, lower->size);
	losing->changed = calloc(losing->blocks, sizeof(losing->changed[0]));
	ck_assert(losing->stable && losing->changed);
	return &losing->store;
}
