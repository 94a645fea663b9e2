/* SPDX-License-Identifier: Apache-2.0
 *
 * The managed pool (core/managed.h): making it, its table of regions, what is to be seen of it, its end.
 *
 * A region has an entry (struct managed_entry) from its first open, or from the start if the index of a cache
 * directory knows it, until it is forgotten.  Entries are moved by entry_advance (managed_open.c).
 *
 * A timer of MANAGED_TICK_MS, as long as any region is not COLD, looks for what nobody tells: a lease that the
 * donor has taken away (pushes fail with -ENOLCK), a pull that has come to its end, too many idle ones.
 *
 * The end: managed_leave → each entry ends as soon as nobody uses it and it is clean (or, given up, at once) →
 * the last handle of the lower pool is closed → left_fn, from a task.
 *
 * Locking: none, everything is on one loop.
 * Failure: what a region runs into is its own; the pool itself does not fail after managed_create.
 */
#include "core/managed.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/managed_int.h"

#define MEMORY_MAX "16T" /* of local copies in memory: an upper limit of addresses, not of use */

struct managed *managed_of(const struct pool *pool)
{
	return (struct managed *)pool;
}

/* ---- the table ---- */

static struct managed_entry **bucket_of(struct managed *managed, uint64_t id)
{
	return &managed->buckets[id % MANAGED_BUCKETS];
}

struct managed_entry *entry_find(const struct managed *managed, uint64_t id)
{
	struct managed_entry *entry = managed->buckets[id % MANAGED_BUCKETS];

	while (entry && entry->id != id)
		entry = entry->next;
	return entry;
}

struct managed_entry *entry_create(struct managed *managed, uint64_t id, const char *name)
{
	struct managed_entry *entry = calloc(1, sizeof(*entry));

	if (!entry)
		return NULL;
	entry->managed = managed;
	entry->id = id;
	entry->gen = ++managed->gen;
	entry->durability = -1;
	entry->wants_tail = &entry->wants;
	snprintf(
	    entry->name, sizeof(entry->name), "%s", *name ? name : meta_noted_name(managed, id));
	entry->next = *bucket_of(managed, id);
	*bucket_of(managed, id) = entry;
	managed->entries++;
	return entry;
}

void entry_free(struct managed_entry *entry)
{
	struct managed *managed = entry->managed;
	struct managed_entry **link = bucket_of(managed, entry->id);

	while (*link != entry)
		link = &(*link)->next;
	*link = entry->next;
	managed->entries--;
	loop_timer_cancel(&entry->retry);
	record_free(entry);
	free(entry->order);
	free(entry);
	managed_check_left(managed);
}

void managed_each(
    struct managed *managed, void (*fn)(struct managed_entry *entry, void *ctx), void *ctx)
{
	struct managed_entry *next;

	for (unsigned i = 0; i < MANAGED_BUCKETS; i++)
		for (struct managed_entry *entry = managed->buckets[i]; entry; entry = next) {
			next = entry->next;
			fn(entry, ctx);
		}
}

bool entry_is_dirty(const struct managed_entry *entry)
{
	struct cache_status status;

	if (!entry->cache)
		return false;
	cache_status(entry->cache, &status);
	return status.dirty > 0;
}

enum cache_durability entry_durability(const struct managed_entry *entry)
{
	return entry->durability < 0 ? entry->managed->conf.durability
				     : (enum cache_durability)entry->durability;
}

enum managed_state entry_state(const struct managed_entry *entry)
{
	if (entry->ending)
		return MANAGED_ENDING;
	if (entry->lost)
		return MANAGED_LOST;
	if (!entry->cache)
		return entry->busy ? MANAGED_OPENING : MANAGED_COLD;
	return entry->remote ? MANAGED_OPEN : MANAGED_IDLE;
}

/* ---- what nobody tells ---- */

struct tick {
	unsigned open, idle;
	struct managed_entry *oldest; /* idle one */
};

static void tick_one(struct managed_entry *entry, void *ctx)
{
	struct tick *tick = ctx;
	struct cache_status status;

	if (!entry->cache || entry->ending)
		return;
	tick->open++;
	cache_status(entry->cache, &status);
	if (status.error == -ENOLCK)
		entry_lost(entry, "its lease was lost to another client");
	else if (status.error == -ESTALE)
		entry_lost(entry, "the region is gone at the donor");
	if (!entry->remote || entry->writers) /* the next open tells of it; or the size is ours */
		entry->resized = false;
	if (entry->resized) {
		cache_adopt_size(entry->cache, entry->changed_size);
		entry->resized = cache_size(entry->cache) != entry->changed_size;
	}
	if (!entry->remote && !entry->busy && entry->users == 0) {
		tick->idle++;
		if (!tick->oldest || entry->idle_since < tick->oldest->idle_since)
			tick->oldest = entry;
	} else if (entry->remote) {
		entry_advance(entry);
	}
}

static void tick(struct loop_timer *timer)
{
	struct managed *managed =
	    (struct managed *)((char *)timer - offsetof(struct managed, tick));
	struct tick found = {0};

	managed_each(managed, tick_one, &found);
	if (found.idle > MANAGED_IDLE_MAX) {
		found.oldest->discard = true;
		entry_advance(found.oldest);
	}
	if (found.open)
		loop_timer_set(
		    managed->conf.loop, timer, loop_now_ns() + MANAGED_TICK_MS * UINT64_C(1000000));
}

/* ---- others ---- */

/* How many of them want to write. */
static unsigned count_writers(const struct managed_want *wants)
{
	unsigned n = 0;

	for (; wants; wants = wants->next)
		n += (wants->flags & POOL_WRITE) != 0;
	return n;
}

/* Somebody has changed bytes while we had, or could have had, the lease.  Those who are just opening the region have
 * written nothing; and what was known when they got the lease is no news. */
static void foreign_change(struct managed_entry *entry, const struct pool_notice *notice)
{
	unsigned opening = count_writers(entry->wants) + count_writers(entry->serving);
	bool writes = entry->writers > opening || entry_is_dirty(entry);

	if (notice->version < entry->version || (writes && notice->version == entry->version))
		return;
	if (writes)
		entry_lost(entry, "another client has taken its lease and changed it");
	else
		entry_changed(entry, notice->version, notice->size);
}

static void notified(void *ctx, const struct pool_notice *notice)
{
	struct managed *managed = ctx;
	struct managed_entry *entry = entry_find(managed, notice->id);
	struct pool_notice up = *notice;

	if (entry && entry->cache && !entry->lost && !entry->ending) {
		foreign_change(entry, notice);
		up.version = entry->gen;
	}
	if (managed->pool.notify)
		managed->pool.notify(managed->pool.notify_ctx, &up);
}

/* ---- to look at ---- */

static void status_one(struct managed_entry *entry, void *ctx)
{
	struct managed_status *ret = ctx;
	struct cache_status status;

	ret->regions++;
	ret->recovering += entry->recovering;
	ret->lost += entry->lost;
	if (!entry->cache)
		return;
	cache_status(entry->cache, &status);
	ret->dirty += status.dirty;
	if (status.oldest_dirty_ns > ret->oldest_dirty_ns)
		ret->oldest_dirty_ns = status.oldest_dirty_ns;
}

void managed_status(const struct pool *pool, struct managed_status *ret_status)
{
	struct managed *managed = managed_of(pool);

	*ret_status = (struct managed_status){
	    .dir = managed->conf.dir ? cache_dir_path(managed->conf.dir) : NULL,
	    .leaving = managed->leaving,
	};
	cache_group_status(managed->group, &ret_status->group);
	managed_each(managed, status_one, ret_status);
}

static void describe(const struct managed_entry *entry, struct managed_region *ret)
{
	*ret = (struct managed_region){
	    .id = entry->id,
	    .name = entry->name,
	    .state = entry_state(entry),
	    .opens = entry->opens,
	    .writers = entry->open_writers,
	    .lease = entry->remote && entry->remote->writes && !entry->lost,
	    .recovering = entry->recovering,
	    .recording = record_on(entry),
	    .durability = entry_durability(entry),
	    .index_error = entry->commit_err,
	    .cached = entry->cache && entry->puller && entry->pusher,
	};
	if (!ret->cached)
		return;
	cache_status(entry->cache, &ret->cache);
	puller_status(entry->puller, &ret->puller);
	pusher_status(entry->pusher, &ret->pusher);
}

void managed_for_each(const struct pool *pool,
    void (*region)(void *ctx, const struct managed_region *region), void *ctx)
{
	const struct managed *managed = managed_of(pool);
	struct managed_region ret;

	for (unsigned i = 0; i < MANAGED_BUCKETS; i++)
		for (struct managed_entry *entry = managed->buckets[i]; entry;
		     entry = entry->next) {
			describe(entry, &ret);
			region(ctx, &ret);
		}
}

int managed_find(const struct pool *pool, uint64_t id, struct managed_region *ret_region)
{
	struct managed_entry *entry = entry_find(managed_of(pool), id);

	if (!entry)
		return -ENOENT;
	describe(entry, ret_region);
	return 0;
}

int managed_map(const struct pool *pool, uint64_t id, struct cache_cell *cells, unsigned count)
{
	struct managed_entry *entry = entry_find(managed_of(pool), id);

	if (!entry || !entry->cache)
		return -ENOENT;
	cache_map(entry->cache, cells, count);
	return 0;
}

int managed_runs(const struct pool *pool, uint64_t id, uint64_t off, uint64_t len,
    struct cache_run *runs, unsigned max)
{
	struct managed_entry *entry = entry_find(managed_of(pool), id);

	if (!entry || !entry->cache)
		return -ENOENT;
	return (int)cache_runs(entry->cache, off, len, runs, max);
}

struct store_stats *managed_stats(struct pool *pool)
{
	return &managed_of(pool)->stats;
}

/* ---- the end ---- */

static void left(struct loop_task *task)
{
	struct managed *managed =
	    (struct managed *)((char *)task - offsetof(struct managed, ended));

	if (managed->left || managed->entries || managed->lower)
		return;
	managed->left = true;
	loop_timer_cancel(&managed->tick);
	managed->left_fn(managed->left_ctx);
}

void managed_check_left(struct managed *managed)
{
	if (managed->leaving && !managed->left && managed->entries == 0 && managed->lower == 0)
		loop_post(managed->conf.loop, &managed->ended);
}

static void leave_one(struct managed_entry *entry, void *ctx)
{
	if (entry->cache)
		entry->discard = true;
	loop_timer_cancel(&entry->retry);
	meta_leave(entry);
	entry_advance(entry);
}

static void leave_all(struct loop_task *task)
{
	struct managed *managed =
	    (struct managed *)((char *)task - offsetof(struct managed, leave));

	jobs_cancel_all(managed);
	managed_each(managed, leave_one, NULL);
	managed_check_left(managed);
}

/* The work is for a task: the loop may not be running just now. */
void managed_leave(struct pool *pool, void (*done)(void *ctx), void *ctx)
{
	struct managed *managed = managed_of(pool);

	managed->leaving = true;
	managed->left_fn = done;
	managed->left_ctx = ctx;
	loop_post(managed->conf.loop, &managed->leave);
}

void managed_give_up(struct pool *pool)
{
	struct managed *managed = managed_of(pool);

	managed->given_up = true;
	if (managed->leaving)
		loop_post(managed->conf.loop, &managed->leave);
}

/* ---- the pool ---- */

static void managed_submit(struct pool *pool, struct pool_req *req)
{
	meta_submit(managed_of(pool), req);
}

static void managed_interrupt(struct pool *pool, struct pool_req *req)
{
	meta_interrupt(managed_of(pool), req);
}

static void managed_destroy(struct pool *pool)
{
	struct managed *managed = managed_of(pool);

	if (managed->conf.lower->notify_ctx == managed)
		managed->conf.lower->notify = NULL;
	cache_group_destroy(managed->group);
	cache_index_close(managed->index);
	backend_close(managed->memory);
	free(managed->numbers);
	free(managed->order);
	free(managed);
}

static const struct pool_ops managed_ops = {
    .name = "managed",
    .submit = managed_submit,
    .interrupt = managed_interrupt,
    .destroy = managed_destroy,
};

/* What an earlier life has left. */
static void found_region(void *ctx, const struct index_region *region)
{
	struct managed *managed = ctx;
	struct managed_entry *entry = entry_create(managed, region->id, region->name);
	struct err err;

	if (!entry)
		return; /* its rows are found when it is opened */
	entry->known = true;
	entry->version = region->version;
	entry->recovering = !region->clean;
	if (region->durability >= CACHE_REMOTE && region->durability <= CACHE_NONE)
		entry->durability = (int)region->durability;
	if (region->order[0] && entry_set_order(entry, region->order, &err))
		log_warn("region \"%s\": its pull order is not kept: %s", entry->name, err.text);
	entry_set_pins(entry, region->pins);
}

static int open_local(struct managed *managed, struct err *err)
{
	struct cache_index_conf conf = {.dir = managed->conf.dir};
	int rc;

	if (!managed->conf.dir) {
		rc = backend_open("memory:?size=" MEMORY_MAX, false, managed->conf.workers,
		    &managed->memory, err);
		if (rc == 0 && managed->pool.size_max > managed->memory->quota.limit)
			managed->pool.size_max = managed->memory->quota.limit;
		return rc;
	}
	rc = cache_index_open(&conf, &managed->index, err);
	return rc ? rc : cache_index_list(managed->index, found_region, managed, err);
}

static int copy_order(struct managed *managed, const struct managed_conf *conf)
{
	size_t bytes = conf->order_count * sizeof(conf->order[0]);

	managed->conf.order = NULL;
	if (!bytes)
		return 0;
	managed->order = malloc(bytes);
	if (!managed->order)
		return -ENOMEM;
	memcpy(managed->order, conf->order, bytes);
	managed->conf.order = managed->order;
	return 0;
}

static void start_one(struct managed_entry *entry, void *ctx)
{
	entry_advance(entry);
}

/* On the loop: recovering asks the lower pool. */
static void start(struct loop_task *task)
{
	struct managed *managed =
	    (struct managed *)((char *)task - offsetof(struct managed, started));

	managed_each(managed, start_one, NULL);
}

static int create(struct managed *managed, const struct managed_conf *conf, struct err *err)
{
	struct cache_group_conf group = {
	    .loop = conf->loop,
	    .size = conf->cache_size,
	    .max_dirty = conf->max_dirty,
	    .pull_window = conf->pull_window,
	    .touch = conf->touch,
	};
	int rc;

	managed->numbers = calloc(POOL_HANDLE_MAX, 1);
	if (!managed->numbers || copy_order(managed, conf))
		return err_set(err, -ENOMEM, "out of memory for a cache");
	rc = cache_group_create(&group, &managed->group, err);
	return rc ? rc : open_local(managed, err);
}

static void free_one(struct managed_entry *entry, void *ctx)
{
	entry_free(entry);
}

int managed_create(const struct managed_conf *conf, struct pool **ret_pool, struct err *err)
{
	struct managed *managed = calloc(1, sizeof(*managed));
	int rc;

	if (!managed)
		return err_set(err, -ENOMEM, "out of memory for a cache");
	managed->conf = *conf;
	managed->pool = (struct pool){
	    .ops = &managed_ops,
	    .name = conf->lower->name,
	    .size_max = conf->lower->size_max,
	    .fixed = conf->lower->fixed,
	    .lease_ms = conf->lower->lease_ms,
	};
	managed->tick.expired = tick;
	managed->ended.run = left;
	managed->started.run = start;
	managed->leave.run = leave_all;
	rc = create(managed, conf, err);
	if (rc) {
		managed_each(managed, free_one, NULL);
		if (managed->group)
			cache_group_destroy(managed->group);
		managed->group = NULL;
		managed_destroy(&managed->pool);
		return rc;
	}
	conf->lower->notify = notified;
	conf->lower->notify_ctx = managed;
	loop_post(conf->loop, &managed->started);
	*ret_pool = &managed->pool;
	return 0;
}
