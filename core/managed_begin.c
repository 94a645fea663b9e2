/* SPDX-License-Identifier: Apache-2.0
 *
 * How a region of the managed pool gets its cache.
 *
 *   opened at the lower pool ─ directory ─► rows are loaded ─► do they hold? ─► the data file is opened ─┐
 *                            └ memory ─► a region of the memory backend ────────────────────────────────┴► cache
 * A region that is longer here than at the lower pool, by what was not pushed, becomes as long there first.
 * Do they hold: nobody else has changed the region since entry->version.  If somebody has, dirty rows are kept
 * aside, clean ones forgotten, and it begins anew.  What fails leaves the region as COLD as it was.
 *
 * entry->busy is set from the start to the end of all this.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/managed_int.h"

static struct managed_entry *entry_of_icall(struct index_call *call)
{
	return (struct managed_entry *)((char *)call - offsetof(struct managed_entry, icall));
}

static struct managed_entry *entry_of_load(struct index_load *load)
{
	return (struct managed_entry *)((char *)load - offsetof(struct managed_entry, load));
}

static struct managed_entry *entry_of_work(struct work *work)
{
	return (struct managed_entry *)((char *)work - offsetof(struct managed_entry, work));
}

/* ---- failing ---- */

static void fail_last(struct managed_entry *entry, int err)
{
	free(entry->load.chunks);
	entry->load.chunks = NULL;
	if (entry->fresh)
		remote_close(entry->fresh);
	entry->fresh = NULL;
	entry_opened(entry, err);
}

static void abandoned(struct index_call *call, int err)
{
	struct managed_entry *entry = entry_of_icall(call);

	index_end(entry);
	fail_last(entry, entry->rc);
}

static void fail_begin(struct managed_entry *entry, int err)
{
	store_destroy(entry->local);
	entry->local = NULL;
	if (!entry->indexed) {
		fail_last(entry, err);
		return;
	}
	entry->rc = err;
	entry->icall.done = abandoned;
	indexed_abandon(entry->indexed, &entry->icall);
}

/* ---- the cache ---- */

static uint64_t size_now(struct managed_entry *entry)
{
	return entry->indexed ? index_size(&entry->load, entry->attr.size) : entry->attr.size;
}

static int make_pumps(struct managed_entry *entry, struct err *err)
{
	const struct managed_conf *conf = &entry->managed->conf;
	struct puller_conf pull = {.cache = entry->cache, .mode = conf->pull};
	struct pusher_conf push = {
	    .cache = entry->cache,
	    .interval_ms = conf->push_interval_ms,
	    .max_dirty_age_ms = conf->max_dirty_age_ms,
	};
	int rc = puller_create(&pull, &entry->puller, err);

	return rc ? rc : pusher_create(&push, &entry->pusher, err);
}

static int make_cache(struct managed_entry *entry, struct err *err)
{
	struct managed *managed = entry->managed;
	struct store *remote = &entry->fresh->handle->store;
	struct cache_conf conf = {
	    .group = managed->group,
	    .local = entry->local,
	    .size = size_now(entry),
	    .size_max = managed->pool.size_max,
	    .durability = entry_durability(entry),
	    .ctx = entry,
	    .remote_resize = meta_remote_resize,
	    .commit = managed->index ? index_commit : NULL,
	    .changed = managed->index ? index_changed : NULL,
	};
	int rc;

	if (conf.size_max > entry->local->size)
		conf.size_max = entry->local->size;
	if (conf.size_max > remote->size)
		conf.size_max = remote->size;
	if (conf.size > conf.size_max)
		return err_set(err, -EFBIG, "too large to be cached");
	rc = cache_create(&conf, &entry->cache, err);
	return rc ? rc : make_pumps(entry, err);
}

/* A cache that never had a remote or a handle is stopped at once. */
static void stopped(struct cache_call *call, int err)
{
}

static void undo_cache(struct managed_entry *entry)
{
	struct cache_call call = {.done = stopped};

	if (!entry->cache)
		return;
	cache_stop(entry->cache, &call);
	puller_destroy(entry->puller);
	pusher_destroy(entry->pusher);
	cache_destroy(entry->cache);
	entry->puller = NULL;
	entry->pusher = NULL;
	entry->cache = NULL;
}

/* The local store is there. */
static void have_store(struct managed_entry *entry)
{
	struct err err = {0};
	int rc = make_cache(entry, &err);

	if (rc) {
		log_error("region \"%s\": cannot cache it: %s", entry->name, err.text);
		undo_cache(entry);
		fail_begin(entry, rc);
		return;
	}
	if (entry->indexed)
		index_loaded(entry, entry->load.chunks, entry->load.count);
	free(entry->load.chunks);
	entry->load.chunks = NULL;
	entry_apply(entry);
	entry->version = entry->attr.version;
	entry->gen = ++entry->managed->gen;
	entry->known = entry->indexed;
	entry->remote = entry->fresh;
	entry->fresh = NULL;
	cache_attach(entry->cache, &entry->remote->handle->store);
	if (entry->indexed)
		index_touch(entry);
	if (!entry->managed->tick.loop)
		loop_timer_set(entry->managed->conf.loop, &entry->managed->tick,
		    loop_now_ns() + MANAGED_TICK_MS * UINT64_C(1000000));
	entry_opened(entry, 0);
}

/* ---- from the directory ---- */

static void store_run(struct work *work)
{
	struct managed_entry *entry = entry_of_work(work);
	struct err err = {0};

	entry->rc = cache_dir_store(entry->managed->conf.dir, entry->id, &entry->local, &err);
	if (entry->rc)
		log_error("region \"%s\": cannot cache it: %s", entry->name, err.text);
}

/* If the lower pool has refused, what is pushed makes the region as long as it can. */
static void lengthened(struct pool_req *req, int err)
{
	struct managed_entry *entry =
	    (struct managed_entry *)((char *)req - offsetof(struct managed_entry, req));

	if (!err)
		entry->attr = req->attr;
	have_store(entry);
}

/* The lower pool is told how long the region is: a push of zeros would not do that. */
static void lengthen(struct managed_entry *entry, uint64_t size)
{
	entry->req = (struct pool_req){
	    .op = POOL_SETATTR,
	    .session = entry->managed->conf.session,
	    .id = entry->id,
	    .set = POOL_SET_SIZE,
	    .attr.size = size,
	    .handle = entry->fresh->handle,
	    .done = lengthened,
	};
	pool_submit(entry->managed->conf.lower, &entry->req);
}

static void store_opened(struct work *work)
{
	struct managed_entry *entry = entry_of_work(work);
	uint64_t size = size_now(entry);

	if (entry->rc) {
		entry->local = NULL;
		fail_begin(entry, entry->rc);
	} else if (size > entry->attr.size && entry->fresh->writes) {
		lengthen(entry, size);
	} else {
		have_store(entry);
	}
}

static void open_store(struct managed_entry *entry)
{
	entry->work = (struct work){.run = store_run, .done = store_opened};
	workers_submit(entry->managed->conf.workers, &entry->work);
}

static void load(struct managed_entry *entry, void (*done)(struct index_load *load, int err))
{
	struct index_load *ld = &entry->load;

	memset(ld, 0, sizeof(*ld));
	ld->index = entry->managed->index;
	ld->region.id = entry->id;
	ld->region.size = entry->attr.size;
	ld->region.version = entry->attr.version;
	ld->region.durability = entry->durability;
	snprintf(ld->region.name, sizeof(ld->region.name), "%s", entry->name);
	ld->done = done;
	cache_index_load(ld);
}

/* What the index had is out of the way: begins anew, with nothing. */
static void cleared(struct index_call *call, int err)
{
	struct managed_entry *entry = entry_of_icall(call);

	if (err) {
		fail_begin(entry, err);
		return;
	}
	index_end(entry);
	entry->known = false;
	entry->unchanged = true;
	entry_begin(entry);
}

static uint64_t dirty_rows(const struct managed_entry *entry)
{
	uint64_t dirty = 0;

	for (size_t i = 0; i < entry->load.count; i++)
		dirty += (uint64_t)__builtin_popcountll(entry->load.chunks[i].dirty);
	return dirty;
}

static void drop_rows(
    struct managed_entry *entry, const char *why, void (*done)(struct index_call *call, int err))
{
	uint64_t dirty = dirty_rows(entry);

	free(entry->load.chunks);
	entry->load.chunks = NULL;
	entry->load.count = 0;
	entry->icall.done = done;
	if (dirty)
		indexed_set_aside(entry->indexed, why, &entry->icall);
	else
		indexed_forget(entry->indexed, &entry->icall);
}

static void report(const struct managed_entry *entry)
{
	const struct index_load *ld = &entry->load;

	if (ld->found == INDEX_UNCLEAN)
		log_info(
		    "region \"%s\": its cache was not closed; %llu blocks were dropped, %llu are newer "
		    "than the index, %llu are to be pushed",
		    entry->name, (unsigned long long)ld->dropped, (unsigned long long)ld->newer,
		    (unsigned long long)dirty_rows(entry));
}

static void loaded(struct index_load *ld, int err)
{
	struct managed_entry *entry = entry_of_load(ld);

	if (err) {
		log_error("region \"%s\": cannot cache it: %s", entry->name, ld->err.text);
		fail_begin(entry, err);
		return;
	}
	entry->indexed = ld->indexed;
	index_begin(entry);
	report(entry);
	if (ld->found != INDEX_NEW && !entry->unchanged && ld->count)
		drop_rows(entry, "the region was changed at the donor by another client", cleared);
	else
		open_store(entry);
}

void entry_begin(struct managed_entry *entry)
{
	struct backend *memory = entry->managed->memory;
	struct err err = {0};
	int rc;

	if (!memory) {
		load(entry, loaded);
		return;
	}
	rc = memory->ops->region_open(memory, entry->id, true, &entry->local, &err);
	if (rc) {
		log_error("region \"%s\": cannot cache it: %s", entry->name, err.text);
		entry->local = NULL;
		fail_begin(entry, rc);
		return;
	}
	have_store(entry);
}

/* ---- a region that is gone ---- */

static void orphan_dropped(struct index_call *call, int err)
{
	struct managed_entry *entry = entry_of_icall(call);

	if (err) {
		entry->rc = 0;
		entry->icall.done = abandoned;
		indexed_abandon(entry->indexed, &entry->icall);
		return;
	}
	index_end(entry);
	fail_last(entry, 0);
}

static void orphan_loaded(struct index_load *ld, int err)
{
	struct managed_entry *entry = entry_of_load(ld);

	if (err) {
		log_error("region \"%s\": %s", entry->name, ld->err.text);
		entry_opened(entry, 0);
		return;
	}
	entry->indexed = ld->indexed;
	index_begin(entry);
	drop_rows(entry, entry->why, orphan_dropped);
}

void entry_orphan(struct managed_entry *entry, const char *why)
{
	entry->busy = true;
	entry->recovering = entry->known = false;
	if (why != entry->why)
		snprintf(entry->why, sizeof(entry->why), "%s", why);
	load(entry, orphan_loaded);
}
