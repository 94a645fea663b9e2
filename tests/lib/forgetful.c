/* SPDX-License-Identifier: Apache-2.0
 *
 * A donor's region that forgets (see tests/lib/forgetful.h).
 */
#include "tests/lib/forgetful.h"

#include <errno.h>
#include <string.h>

#define MS ((uint64_t)1000000)

/* ---- tags ---- */

void forgetful_fill(void *buf, uint32_t tag, size_t len)
{
	uint32_t *words = buf;

	for (size_t i = 0; i < len / 4; i++)
		words[i] = tag;
}

uint32_t forgetful_tag(const uint8_t *bytes)
{
	uint32_t first, word;

	memcpy(&first, bytes, 4);
	for (unsigned i = 0; i < FORGETFUL_SECTOR; i += 4) {
		memcpy(&word, bytes + i, 4);
		rig_check(word == first, "a sector of %u and %u", first, word);
	}
	return first;
}

/* ---- what it does ---- */

void forgetful_loses(struct forgetful_bytes *bytes, struct rig_random *random)
{
	for (unsigned s = 0; s < FORGETFUL_SECTORS; s++)
		if (bytes->now[s] != bytes->stable[s] && rig_random_below(random, 2))
			bytes->now[s] = bytes->stable[s];
	bytes->flush_fails = true;
	bytes->losses++;
}

void forgetful_resize(struct forgetful *donor, uint64_t size)
{
	struct forgetful_bytes *bytes = donor->bytes;

	pthread_mutex_lock(donor->mu);
	for (uint64_t s = size / FORGETFUL_SECTOR; s < FORGETFUL_SECTORS; s++)
		bytes->now[s] = bytes->stable[s] = 0;
	bytes->size = (uint32_t)(size / FORGETFUL_SECTOR);
	pthread_mutex_unlock(donor->mu);
}

static void change(struct forgetful *donor, const struct store_req *req)
{
	uint64_t first = req->off / FORGETFUL_SECTOR, count = req->len / FORGETFUL_SECTOR;
	const uint8_t *buf = req->buf;

	pthread_mutex_lock(donor->mu);
	for (uint64_t i = 0; i < count; i++)
		donor->bytes->now[first + i] =
		    req->op == STORE_ZERO ? 0 : forgetful_tag(buf + i * FORGETFUL_SECTOR);
	if (req->op == STORE_WRITE && first + count > donor->bytes->size)
		donor->bytes->size = (uint32_t)(first + count);
	donor->bytes->pushes++;
	pthread_mutex_unlock(donor->mu);
	donor->changed(false);
}

static int flush(struct forgetful *donor)
{
	struct forgetful_bytes *bytes = donor->bytes;
	int err = 0;

	pthread_mutex_lock(donor->mu);
	if (bytes->flush_fails)
		err = -EIO;
	else
		memcpy(bytes->stable, bytes->now, sizeof(bytes->stable));
	bytes->flush_fails = false;
	pthread_mutex_unlock(donor->mu);
	donor->changed(true);
	return err;
}

static bool is_zero(const struct forgetful *donor, uint64_t block)
{
	for (unsigned i = 0; i < STORE_BLOCK / FORGETFUL_SECTOR; i++)
		if (donor->bytes->now[block * STORE_BLOCK / FORGETFUL_SECTOR + i])
			return false;
	return true;
}

/* One extent: the run of blocks like the first. */
static void extents(const struct forgetful *donor, struct store_req *req)
{
	uint64_t first = req->off / STORE_BLOCK, end = (req->off + req->len) / STORE_BLOCK, b;
	bool hole = is_zero(donor, first);

	for (b = first; b < end && is_zero(donor, b) == hole;)
		b++;
	req->extents[0] = (struct extent){
	    .off = req->off,
	    .len = (b - first) * STORE_BLOCK,
	    .flags = hole ? EXTENT_HOLE : 0,
	};
	req->ret_extents = 1;
}

static int execute(struct forgetful *donor, struct store_req *req)
{
	switch (req->op) {
	case STORE_READ:
		for (uint64_t i = 0; i < req->len; i += FORGETFUL_SECTOR)
			forgetful_fill((uint8_t *)req->buf + i,
			    donor->bytes->now[(req->off + i) / FORGETFUL_SECTOR], FORGETFUL_SECTOR);
		return 0;
	case STORE_WRITE:
	case STORE_ZERO:
		change(donor, req);
		return 0;
	case STORE_FLUSH:
		return flush(donor);
	case STORE_EXTENTS:
		extents(donor, req);
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

/* ---- when ---- */

static void set_timer(struct forgetful *donor)
{
	if (!donor->timer.loop)
		loop_timer_set(loop_self(), &donor->timer,
		    loop_now_ns() + rig_random_below(donor->random, MS / 4));
}

/* Answers some of what was asked, in any order. */
static void answers(struct loop_timer *timer)
{
	struct forgetful *donor =
	    (struct forgetful *)((char *)timer - offsetof(struct forgetful, timer));

	for (uint64_t n = 1 + rig_random_below(donor->random, 4); n > 0 && donor->asked_count;
	     n--) {
		unsigned i = (unsigned)rig_random_below(donor->random, donor->asked_count);
		struct store_req *req = donor->asked[i];
		bool executed = donor->executed[i];

		donor->asked_count--;
		donor->asked[i] = donor->asked[donor->asked_count];
		donor->executed[i] = donor->executed[donor->asked_count];
		store_complete(req, executed ? 0 : execute(donor, req));
	}
	if (donor->asked_count)
		set_timer(donor);
}

static void submit(struct store *store, struct store_req *req)
{
	struct forgetful *donor = (struct forgetful *)store;
	bool changes = req->op == STORE_WRITE || req->op == STORE_ZERO;

	rig_check(donor->asked_count < FORGETFUL_ASKED, "too much at the donor");
	donor->asked[donor->asked_count] = req;
	donor->executed[donor->asked_count] = changes && rig_random_below(donor->random, 2);
	if (donor->executed[donor->asked_count++])
		execute(donor, req);
	set_timer(donor);
}

static const struct store_ops ops = {.name = "donor", .submit = submit};

void forgetful_init(struct forgetful *donor, struct forgetful_bytes *bytes, pthread_mutex_t *mu,
    struct rig_random *random, void (*changed)(bool flush))
{
	memset(donor, 0, sizeof(*donor));
	donor->bytes = bytes;
	donor->mu = mu;
	donor->random = random;
	donor->changed = changed;
	donor->timer.expired = answers;
	store_init(&donor->store, &ops, (uint64_t)FORGETFUL_SECTORS * FORGETFUL_SECTOR);
}
