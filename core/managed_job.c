/* SPDX-License-Identifier: Apache-2.0
 *
 * What commands and the mount daemon ask of the managed pool: pulls and flushes of ranges, draining, pulling
 * first, evicting.
 *
 * A job: listed in managed->jobs from its start to done.  A pull waits for the region to be open (want), then
 * is a job of the puller; a flush needs no open, since what is dirty is open.  A job that is cancelled ends at
 * once, however long its donor is away; only a commit of the index is waited for.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cache_pump.h"
#include "core/managed_int.h"

/* ---- jobs ---- */

static uint64_t job_end(const struct managed_job *job)
{
	uint64_t size = cache_size(job->entry->cache);

	return job->len && job->len < size - (job->off < size ? job->off : size)
		   ? job->off + job->len
		   : size;
}

static void job_start(struct pool *pool, struct managed_job *job)
{
	struct managed *managed = managed_of(pool);

	job->managed = managed;
	job->running = job->cancelled = false;
	job->total = job->left = 0;
	job->next = managed->jobs;
	managed->jobs = job;
}

static void job_done(struct managed_job *job, int err)
{
	struct managed_job **link = &job->managed->jobs;

	while (*link != job)
		link = &(*link)->next;
	*link = job->next;
	if (!err)
		job->left = 0;
	job->done(job, err);
}

static struct managed_job *job_of_want(struct managed_want *want)
{
	return (struct managed_job *)((char *)want - offsetof(struct managed_job, want));
}

static void pull_done(struct pull_job *pull, int err)
{
	struct managed_job *job =
	    (struct managed_job *)((char *)pull - offsetof(struct managed_job, pull));
	struct managed_entry *entry = job->entry;

	job->running = false;
	job_done(job, err);
	entry_put(entry, POOL_READ);
}

static void pull_opened(struct managed_want *want, int err)
{
	struct managed_job *job = job_of_want(want);
	struct managed_entry *entry = job->entry;

	if (!err && job->cancelled) {
		entry_put(entry, want->flags);
		err = -ECANCELED;
	}
	if (err) {
		job_done(job, err == -EINTR ? -ECANCELED : err);
		return;
	}
	if (job->off >= cache_size(entry->cache)) {
		job_done(job, 0);
		entry_put(entry, want->flags);
		return;
	}
	job->total = job->left = cache_absent(entry->cache, job->off, job_end(job) - job->off);
	job->pull = (struct pull_job){
	    .off = job->off,
	    .len = job_end(job) - job->off,
	    .prio = job->prio,
	    .done = pull_done,
	};
	job->running = true;
	puller_add(entry->puller, &job->pull);
}

void managed_pull(struct pool *pool, struct managed_job *job)
{
	struct managed *managed = managed_of(pool);

	job_start(pool, job);
	job->pulls = true;
	job->entry = entry_find(managed, job->id);
	if (!job->entry && !managed->leaving)
		job->entry = entry_create(managed, job->id, "");
	if (!job->entry || managed->leaving) {
		job_done(job, managed->leaving ? -ECANCELED : -ENOMEM);
		return;
	}
	job->want.flags = POOL_READ;
	job->want.done = pull_opened;
	entry_want(job->entry, &job->want);
}

static void flush_committed(struct managed_commit *commit, int err)
{
	struct managed_job *job =
	    (struct managed_job *)((char *)commit - offsetof(struct managed_job, commit));
	struct managed_entry *entry = job->entry;

	job->running = false;
	job_done(job, job->cancelled ? -ECANCELED : err);
	entry_put(entry, 0);
}

static void flush_done(struct cache_flush *flush, int err)
{
	struct managed_job *job =
	    (struct managed_job *)((char *)flush - offsetof(struct managed_job, flush));

	job->commit.done = flush_committed;
	if (err)
		flush_committed(&job->commit, err);
	else
		index_now(job->entry, &job->commit);
}

void managed_flush(struct pool *pool, struct managed_job *job)
{
	struct cache_status status;

	job_start(pool, job);
	job->pulls = false;
	job->entry = entry_find(job->managed, job->id);
	if (!job->entry || !job->entry->cache || job->entry->ending) {
		job_done(job, -ENOENT);
		return;
	}
	cache_status(job->entry->cache, &status);
	job->total = job->left = status.dirty;
	job->flush = (struct cache_flush){
	    .off = job->off,
	    .len = job->len,
	    .durability = CACHE_REMOTE,
	    .done = flush_done,
	};
	job->running = true;
	entry_get(job->entry, 0);
	/* Without a remote everything is there: IDLE. */
	if (!job->entry->remote && !status.dirty)
		flush_done(&job->flush, 0);
	else
		cache_flush(job->entry->cache, &job->flush);
}

void managed_cancel(struct pool *pool, struct managed_job *job)
{
	job->cancelled = true;
	if (job->pulls && job->running)
		puller_cancel(job->entry->puller, &job->pull);
	else if (job->pulls)
		entry_unwant(job->entry, &job->want);
	else if (job->running && cache_flush_cancel(job->entry->cache, &job->flush))
		flush_committed(&job->commit, -ECANCELED);
}

void managed_progress(struct managed_job *job)
{
	struct cache_status status;

	if (!job->running)
		return;
	if (job->pulls) {
		job->left = cache_absent(job->entry->cache, job->off, job_end(job) - job->off);
	} else {
		cache_status(job->entry->cache, &status);
		job->left = status.dirty < job->left ? status.dirty : job->left;
	}
}

void jobs_cancel_all(struct managed *managed)
{
	struct managed_job *next;

	for (struct managed_job *job = managed->jobs; job; job = next) {
		next = job->next;
		if (job->pulls)
			managed_cancel(&managed->pool, job);
	}
}

/* ---- evicting ---- */

int managed_evict(struct pool *pool, uint64_t id, uint64_t off, uint64_t len, uint64_t *ret_bytes)
{
	struct managed_entry *entry = entry_find(managed_of(pool), id);

	if (!entry || !entry->cache || entry->ending)
		return -ENOENT;
	*ret_bytes = cache_evict(entry->cache, off, len ? len : UINT64_MAX - off);
	return 0;
}

/* ---- draining ---- */

struct drain_one {
	struct cache_flush flush;
	struct managed_commit commit;
	struct managed_drain *drain;
	struct managed_entry *entry;
};

static void drain_put(struct managed_drain *drain)
{
	if (--drain->pending == 0)
		drain->done(drain, drain->err);
}

static void drain_committed(struct managed_commit *commit, int err)
{
	struct drain_one *one =
	    (struct drain_one *)((char *)commit - offsetof(struct drain_one, commit));
	struct managed_drain *drain = one->drain;
	struct managed_entry *entry = one->entry;

	free(one);
	if (err && !drain->err && !entry->lost)
		drain->err = err;
	drain_put(drain);
	entry_put(entry, 0);
}

static void drained_one(struct cache_flush *flush, int err)
{
	struct drain_one *one = (struct drain_one *)flush;

	one->commit.done = drain_committed;
	if (err)
		drain_committed(&one->commit, err);
	else
		index_now(one->entry, &one->commit);
}

static void drain_entry(struct managed_entry *entry, void *ctx)
{
	struct managed_drain *drain = ctx;
	struct drain_one *one;

	if (entry->lost || entry->ending || !entry->remote || !entry->cache ||
	    !(entry_is_dirty(entry) || cache_unflushed(entry->cache)))
		return;
	one = malloc(sizeof(*one));
	if (!one) {
		drain->err = -ENOMEM;
		return;
	}
	one->flush = (struct cache_flush){.durability = CACHE_REMOTE, .done = drained_one};
	one->drain = drain;
	one->entry = entry;
	drain->pending++;
	entry_get(entry, 0);
	cache_flush(entry->cache, &one->flush);
}

void managed_drain(struct pool *pool, struct managed_drain *drain)
{
	drain->err = 0;
	drain->pending = 1;
	managed_each(managed_of(pool), drain_entry, drain);
	drain_put(drain);
}

/* ---- pull first ---- */

struct managed_first_region {
	struct managed_want want;
	struct pull_goal goal;
	struct managed_first *first;
	struct managed_entry *entry;
	struct managed_first_region *next;
	uint64_t bytes;
};

static void first_put(struct managed_first *first)
{
	if (--first->pending)
		return;
	free(first->list);
	first->list = NULL;
	first->done(first, first->err);
}

static void unlist(struct managed_first_region *fr)
{
	struct managed_first_region **link = &fr->first->regions;

	while (*link != fr)
		link = &(*link)->next;
	*link = fr->next;
	free(fr);
}

static void first_reached(struct pull_goal *goal, int err)
{
	struct managed_first_region *fr =
	    (struct managed_first_region *)((char *)goal -
					    offsetof(struct managed_first_region, goal));
	struct managed_first *first = fr->first;
	struct managed_entry *entry = fr->entry;

	unlist(fr);
	entry_put(entry, POOL_READ);
	first_put(first);
}

static void first_opened(struct managed_want *want, int err)
{
	struct managed_first_region *fr = (struct managed_first_region *)want;
	struct managed_first *first = fr->first;

	if (err) { /* it can't be read, or is gone */
		unlist(fr);
		first_put(first);
		return;
	}
	first->total += fr->bytes;
	fr->goal = (struct pull_goal){.bytes = fr->bytes, .done = first_reached};
	puller_wait(fr->entry->puller, &fr->goal);
}

static void first_add(struct managed_first *first, const struct region_attr *attr, const char *name,
    uint32_t name_len)
{
	struct managed *managed = first->managed;
	struct managed_entry *entry = entry_find(managed, attr->id);
	struct managed_first_region *fr = calloc(1, sizeof(*fr));
	char text[POOL_NAME_MAX + 1] = "";

	memcpy(text, name, name_len < POOL_NAME_MAX ? name_len : POOL_NAME_MAX);
	if (fr && !entry)
		entry = entry_create(managed, attr->id, text);
	if (!fr || !entry) {
		free(fr);
		first->err = -ENOMEM;
		return;
	}
	fr->bytes = first->pct ? attr->size / 100 * first->pct + attr->size % 100 * first->pct / 100
			       : first->bytes;
	if (fr->bytes > attr->size)
		fr->bytes = attr->size;
	fr->first = first;
	fr->entry = entry;
	fr->next = first->regions;
	first->regions = fr;
	fr->want = (struct managed_want){.flags = POOL_READ, .done = first_opened};
	first->pending++;
	entry_want(entry, &fr->want);
}

static void first_list(struct managed_first *first);

static void first_listed(struct pool_req *req, int err)
{
	struct managed_first *first =
	    (struct managed_first *)((char *)req - offsetof(struct managed_first, req));
	const uint8_t *pos = first->list, *end = pos + req->ret_len;

	while (!err && pos < end) {
		const struct pool_dirent *dirent = (const struct pool_dirent *)pos;

		if (dirent->attr.size && pool_check_mode(dirent->attr.mode, POOL_READ) == 0)
			first_add(
			    first, &dirent->attr, (const char *)(dirent + 1), dirent->name_len);
		pos += (sizeof(*dirent) + dirent->name_len + 7) & ~(size_t)7;
	}
	if (!err && req->ret_cookie) {
		first_list(first);
		return;
	}
	if (err && !first->err)
		first->err = err;
	first_put(first);
}

static void first_list(struct managed_first *first)
{
	uint64_t cookie = first->req.ret_cookie;

	first->req = (struct pool_req){
	    .op = POOL_LIST,
	    .session = first->managed->conf.session,
	    .cookie = cookie,
	    .data = first->list,
	    .len = POOL_LIST_MAX,
	    .done = first_listed,
	};
	pool_submit(first->managed->conf.lower, &first->req);
}

void managed_pull_first(struct pool *pool, struct managed_first *first)
{
	first->managed = managed_of(pool);
	first->regions = NULL;
	first->total = first->left = 0;
	first->err = 0;
	first->pending = 1;
	first->req.ret_cookie = 0;
	first->list = malloc(POOL_LIST_MAX);
	if (!first->list) {
		first->err = -ENOMEM;
		first_put(first);
		return;
	}
	first_list(first);
}

void managed_first_progress(struct managed_first *first)
{
	first->left = 0;
	for (struct managed_first_region *fr = first->regions; fr; fr = fr->next) {
		uint64_t resident = fr->entry->cache ? cache_resident(fr->entry->cache) : 0;

		if (resident < fr->bytes)
			first->left += fr->bytes - resident;
	}
}
