/* SPDX-License-Identifier: Apache-2.0
 *
 * A region's way from COLD to OPEN, IDLE and LOST (core/managed.h).
 *
 * entry_advance looks what is to be done and begins one thing (busy); when that has ended it looks again.  What
 * comes first:
 *   1. wants: those for the same access are served together by one open of the lower pool.  That open asks
 *      whether others have changed the region since entry->version.  Its handle is kept if the cache needs
 *      one, or a better one; else it is closed.
 *   2. it may have lost its name: the lower pool is asked
 *   3. nobody uses it: LOST and unlinked ones end
 *   4. nobody writes any more: what is dirty is pushed (settle_flush; opens need not wait for that), the
 *      mtime is set, and the handle for writing is given back, and with it the lease
 *   5. nobody uses it at all: it becomes IDLE, and ends if it shall not be kept
 *
 * Invariants:
 *   1. remote is NULL in COLD and IDLE; with a cache, it is what the cache has attached, or will have
 *      when `busy` ends.
 *   2. While remote->writes and the lease holds, nobody else changes the bytes: version stays good, as the
 *      donor knows who has written last (core/pool.h).  If somebody has, the lease is gone (remote->stale), and the
 *      next open for writing brings another.
 *   3. Dirty blocks exist only while remote->writes, or in LOST.
 *   4. users counts everything that needs the region, writers those of them that may write.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cache_pump.h"
#include "core/managed_int.h"

/* ---- opens of the lower pool ---- */

static uint32_t take_number(struct managed *managed)
{
	for (uint32_t i = 0; i < POOL_HANDLE_MAX - 1; i++) {
		uint32_t n = 1 + (managed->number_hint + i) % (POOL_HANDLE_MAX - 1);

		if (managed->numbers[n])
			continue;
		managed->numbers[n] = 1;
		managed->number_hint = n;
		return n;
	}
	return 0;
}

struct managed_remote *remote_create(struct managed *managed, unsigned flags, uint64_t id)
{
	struct managed_remote *remote = calloc(1, sizeof(*remote));
	uint32_t number = remote ? take_number(managed) : 0;

	if (!number) {
		free(remote);
		return NULL;
	}
	remote->managed = managed;
	remote->writes = flags & POOL_WRITE;
	remote->req.op = POOL_OPEN;
	remote->req.flags = flags;
	remote->req.session = managed->conf.session;
	remote->req.id = id;
	remote->req.number = number;
	managed->lower++;
	return remote;
}

static void remote_free(struct managed_remote *remote)
{
	struct managed *managed = remote->managed;

	managed->numbers[remote->req.number] = 0;
	managed->lower--;
	free(remote);
	managed_check_left(managed);
}

static void closed(struct pool_req *req, int err)
{
	remote_free((struct managed_remote *)req);
}

struct managed_remote *remote_get(struct managed_remote *remote)
{
	if (remote)
		remote->refs++;
	return remote;
}

void remote_put(struct managed_remote *remote)
{
	if (remote && --remote->refs == 0 && remote->closing)
		remote_close(remote);
}

void remote_close(struct managed_remote *remote)
{
	struct managed *managed = remote->managed;
	uint32_t number = remote->req.number;

	remote->closing = true;
	if (remote->refs)
		return;
	if (!remote->handle) {
		remote_free(remote);
		return;
	}
	remote->req = (struct pool_req){
	    .op = POOL_CLOSE,
	    .session = managed->conf.session,
	    .handle = remote->handle,
	    .number = number,
	    .done = closed,
	};
	pool_submit(managed->conf.lower, &remote->req);
}

/* Asks the lower pool for a handle; done gets it as entry->fresh, on success. */
static void remote_open(struct managed_entry *entry, unsigned flags, pool_done_fn *done)
{
	struct managed_remote *remote = remote_create(entry->managed, flags, entry->id);

	entry->busy = true;
	if (!remote) {
		entry->req = (struct pool_req){.op = POOL_OPEN};
		entry->fresh = NULL;
		done(&entry->req, -ENFILE);
		return;
	}
	remote->entry = entry;
	remote->req.version = entry->version;
	remote->req.done = done;
	entry->fresh = remote;
	pool_submit(entry->managed->conf.lower, &remote->req);
}

/* Takes what the lower pool said to remote_open; on an error the request's memory is gone. */
static void take_reply(struct managed_entry *entry, struct pool_req *req, int err)
{
	struct managed_remote *remote = entry->fresh;

	entry->busy = false;
	if (err) {
		snprintf(entry->holder, sizeof(entry->holder), "%s", req->ret_holder);
		entry->fresh = NULL;
		if (remote)
			remote_free(remote);
		return;
	}
	remote->handle = req->ret_handle;
	entry->attr = req->attr;
	entry->unchanged = req->ret_unchanged;
}

static struct managed_entry *entry_of_open(struct pool_req *req)
{
	struct managed_remote *remote = (struct managed_remote *)req;

	/* Without memory for an open it is the entry's own request that failed. */
	if (req->session == 0)
		return (struct managed_entry *)((char *)req - offsetof(struct managed_entry, req));
	return remote->entry;
}

/* ---- users ---- */

void entry_get(struct managed_entry *entry, unsigned flags)
{
	entry->users++;
	entry->writers += (flags & POOL_WRITE) != 0;
}

static void drop_user(struct managed_entry *entry, unsigned flags)
{
	entry->users--;
	entry->writers -= (flags & POOL_WRITE) != 0;
}

void entry_put(struct managed_entry *entry, unsigned flags)
{
	drop_user(entry, flags);
	entry_advance(entry);
}

void entry_want(struct managed_entry *entry, struct managed_want *want)
{
	entry_get(entry, want->flags);
	want->next = NULL;
	*entry->wants_tail = want;
	entry->wants_tail = &want->next;
	entry_advance(entry);
}

static bool unlink_want(struct managed_want **list, struct managed_want *want)
{
	while (*list && *list != want)
		list = &(*list)->next;
	if (!*list)
		return false;
	*list = want->next;
	return true;
}

void entry_unwant(struct managed_entry *entry, struct managed_want *want)
{
	if (!unlink_want(&entry->serving, want)) {
		if (!unlink_want(&entry->wants, want))
			return;
		for (entry->wants_tail = &entry->wants; *entry->wants_tail;)
			entry->wants_tail = &(*entry->wants_tail)->next;
	}
	drop_user(entry, want->flags);
	want->done(want, -EINTR);
	entry_advance(entry);
}

/* Tells those who were served. */
static void served(struct managed_entry *entry, int err)
{
	while (entry->serving) {
		struct managed_want *want = entry->serving;

		entry->serving = want->next;
		if (err)
			drop_user(entry, want->flags);
		want->done(want, err);
	}
}

void entry_opened(struct managed_entry *entry, int err)
{
	entry->busy = true; /* while they are told nothing is begun, and nothing ends */
	served(entry, err);
	entry->busy = false;
	entry_advance(entry);
}

/* ---- others ---- */

void entry_changed(struct managed_entry *entry, uint64_t version, uint64_t size)
{
	entry->version = version;
	entry->gen = ++entry->managed->gen;
	if (!entry->cache)
		return;
	if (entry->remote && entry->remote->writes)
		entry->remote->stale = true;
	cache_drop_clean(entry->cache, size);
	entry->changed_size = size;
	entry->resized = cache_size(entry->cache) != size;
	index_touch(entry);
}

void entry_lost(struct managed_entry *entry, const char *why)
{
	struct managed *managed = entry->managed;
	struct cache_status status = {0};

	if (entry->lost || entry->ending)
		return;
	entry->lost = true;
	snprintf(entry->why, sizeof(entry->why), "%s", why);
	if (entry->cache) {
		cache_status(entry->cache, &status);
		cache_freeze(entry->cache, -ENOLCK);
		index_touch(entry);
	}
	if (log_allowed(&managed->lost_limit))
		log_error(
		    "region \"%s\": %s: nothing of it is pushed any more; %llu bytes that were "
		    "written here are kept aside when its last file is closed%s",
		    entry->name, why, (unsigned long long)status.dirty,
		    managed->index ? "" : " - no, they are lost then: there is no cache directory");
}

/* ---- serving wants ---- */

static void swapped(struct cache_call *call, int err)
{
	struct managed_entry *entry =
	    (struct managed_entry *)((char *)call - offsetof(struct managed_entry, call));

	if (entry->remote)
		remote_close(entry->remote);
	entry->remote = entry->fresh;
	entry->fresh = NULL;
	if (entry->remote)
		cache_attach(entry->cache, &entry->remote->handle->store);
	entry_opened(entry, 0);
}

/* The cache goes on with entry->fresh; NULL: with none. */
static void swap(struct managed_entry *entry)
{
	entry->busy = true;
	entry->call.done = swapped;
	cache_detach(entry->cache, &entry->call);
}

/* An open of a region that has a cache: is that still good? */
static int check_cache(struct managed_entry *entry)
{
	if (entry->unchanged) {
		entry->version = entry->attr.version;
		return 0;
	}
	if (entry_is_dirty(entry)) {
		entry_lost(entry, "another client has changed it at the donor");
		return -EBUSY;
	}
	entry_changed(entry, entry->attr.version, entry->attr.size);
	return 0;
}

static void open_replied(struct pool_req *req, int err)
{
	struct managed_entry *entry = entry_of_open(req);
	struct managed_remote *fresh;

	take_reply(entry, req, err);
	if (!err && entry->cache)
		err = check_cache(entry);
	if (err) {
		if (entry->fresh)
			remote_close(entry->fresh);
		entry->fresh = NULL;
		entry_opened(entry, err);
		return;
	}
	if (!entry->cache) {
		entry->busy = true;
		entry_begin(entry);
		return;
	}
	fresh = entry->fresh;
	if (!entry->remote || (fresh->writes && (!entry->remote->writes || entry->remote->stale))) {
		swap(entry);
		return;
	}
	entry->fresh = NULL;
	remote_close(fresh);
	entry_opened(entry, 0);
}

static void serve(struct managed_entry *entry)
{
	unsigned writes = entry->wants->flags & POOL_WRITE;
	struct managed_want **link = &entry->wants, **tail = &entry->serving;

	while (*link) {
		struct managed_want *want = *link;

		if ((want->flags & POOL_WRITE) != writes) {
			link = &want->next;
			continue;
		}
		*link = want->next;
		want->next = NULL;
		*tail = want;
		tail = &want->next;
	}
	entry->wants_tail = link;
	if (entry->lost) {
		snprintf(entry->holder, sizeof(entry->holder),
		    "files here that were open when its lease was lost");
		entry_opened(entry, -EBUSY);
		return;
	}
	remote_open(entry, POOL_READ | writes, open_replied);
}

void entry_created(struct managed_entry *entry, struct managed_remote *remote)
{
	entry->busy = true;
	remote->entry = entry;
	entry->fresh = remote;
	entry->attr = remote->req.attr;
	entry->unchanged = false;
	entry->serving = entry->wants;
	entry->wants = NULL;
	entry->wants_tail = &entry->wants;
	entry_begin(entry);
}

/* ---- has it a name? ---- */

static void doubt_replied(struct pool_req *req, int err)
{
	struct managed_entry *entry =
	    (struct managed_entry *)((char *)req - offsetof(struct managed_entry, req));

	entry->busy = false;
	if (err == -ENOENT || err == -ESTALE || (!err && req->attr.nlink == 0))
		entry->unlinked = true;
	entry_advance(entry);
}

static void ask_doubt(struct managed_entry *entry)
{
	entry->doubt = false;
	entry->busy = true;
	entry->req = (struct pool_req){
	    .op = POOL_GETATTR,
	    .session = entry->managed->conf.session,
	    .id = entry->id,
	    .handle = entry->remote ? entry->remote->handle : NULL,
	    .done = doubt_replied,
	};
	pool_submit(entry->managed->conf.lower, &entry->req);
}

/* ---- nobody writes any more ---- */

static void retry_expired(struct loop_timer *timer)
{
	entry_advance(
	    (struct managed_entry *)((char *)timer - offsetof(struct managed_entry, retry)));
}

void entry_retry(struct managed_entry *entry)
{
	entry->retry.expired = retry_expired;
	loop_timer_set(entry->managed->conf.loop, &entry->retry,
	    loop_now_ns() + MANAGED_RETRY_MS * UINT64_C(1000000));
}

static void settle_committed(struct managed_commit *commit, int err)
{
	struct managed_entry *entry =
	    (struct managed_entry *)((char *)commit -
				     offsetof(struct managed_entry, settle_commit));

	entry->flushing = false;
	if (!entry->ending)
		entry_advance(entry);
}

/* The index hears of it before others may write: later a crash must not find older bytes dirty. */
static void settled(struct cache_flush *flush, int err)
{
	struct managed_entry *entry =
	    (struct managed_entry *)((char *)flush - offsetof(struct managed_entry, settle_flush));
	struct managed *managed = entry->managed;

	entry->flushing = false;
	if (entry->ending)
		return;
	if (err && !entry->lost) {
		if (err != -ECANCELED && log_allowed(&managed->push_limit))
			log_warn("region \"%s\": cannot push what was written: %s: trying again",
			    entry->name, strerror(-err));
		entry_retry(entry);
		return;
	}
	entry->flushing = true;
	entry->settle_commit.done = settle_committed;
	index_now(entry, &entry->settle_commit);
}

/* Until now the lower pool said when the pushes came. */
static void mtime_replied(struct pool_req *req, int err)
{
	struct managed_entry *entry =
	    (struct managed_entry *)((char *)req - offsetof(struct managed_entry, req));

	entry->busy = false;
	entry->wrote = entry->mtime_ns != entry->mtime_told;
	entry_advance(entry);
}

static void set_mtime(struct managed_entry *entry)
{
	entry->busy = true;
	entry->mtime_told = entry->mtime_ns;
	entry->req = (struct pool_req){
	    .op = POOL_SETATTR,
	    .session = entry->managed->conf.session,
	    .id = entry->id,
	    .set = POOL_SET_MTIME,
	    .attr.mtime_ns = entry->mtime_ns,
	    .handle = entry->remote->handle,
	    .done = mtime_replied,
	};
	pool_submit(entry->managed->conf.lower, &entry->req);
}

static void read_replied(struct pool_req *req, int err)
{
	struct managed_entry *entry = entry_of_open(req);

	take_reply(entry, req, err);
	if (!err)
		err = check_cache(entry);
	if (err) {
		if (entry->fresh)
			remote_close(entry->fresh);
		entry->fresh = NULL;
		entry_retry(entry);
		return;
	}
	swap(entry);
}

/* Whether something is to be done, or waited for, before the lease can go. */
static bool give_lease_back(struct managed_entry *entry)
{
	struct cache_status status;

	if (!entry->remote || !entry->remote->writes || entry->writers)
		return false;
	if (entry->retry.loop || entry->flushing)
		return true;
	cache_status(entry->cache, &status);
	if (status.dirty || cache_unflushed(entry->cache)) {
		entry->flushing = true;
		entry->settle_flush =
		    (struct cache_flush){.durability = CACHE_REMOTE, .done = settled};
		cache_flush(entry->cache, &entry->settle_flush);
		return true;
	}
	if (entry->wrote) {
		set_mtime(entry);
		return true;
	}
	if (entry->users == 0)
		return false;
	remote_open(entry, POOL_READ, read_replied);
	return true;
}

/* ---- nobody uses it ---- */

static bool pulls(const struct managed_entry *entry)
{
	struct puller_status status;

	puller_status(entry->puller, &status);
	return status.mode == PULL_ALL && status.active;
}

/* With a cache, for which nothing else is to be done. */
static void rest(struct managed_entry *entry)
{
	struct managed *managed = entry->managed;

	if (entry->users)
		return;
	if (managed->leaving || entry->discard) {
		entry_end(entry, END_CLOSE);
		return;
	}
	if (!entry->remote || pulls(entry))
		return;
	entry->idle_since = loop_now_ns();
	swap(entry);
}

static void recovered(struct managed_want *want, int err)
{
	struct managed_entry *entry =
	    (struct managed_entry *)((char *)want - offsetof(struct managed_entry, recover_want));
	bool busy = err == -EBUSY || err == -EACCES || err == -EROFS;

	if (!err) {
		entry->recovering = false;
		drop_user(entry, want->flags); /* who serves us advances */
		return;
	}
	if (entry->managed->leaving) {
		entry->recovering = false;
		return;
	}
	if (err == -ENOENT || err == -ESTALE || err == -ENOLCK) {
		snprintf(entry->why, sizeof(entry->why), "the region is gone at the donor");
	} else if (busy && ++entry->tries >= MANAGED_RECOVER_TRIES) {
		snprintf(entry->why, sizeof(entry->why), "%s%.200s",
		    err == -EBUSY ? "another client writes to it: "
				  : "it is read-only at the donor",
		    err == -EBUSY ? entry->holder : "");
	} else {
		entry_retry(entry);
	}
}

/* A region without a cache that has no wants. */
static void cold(struct managed_entry *entry)
{
	struct managed *managed = entry->managed;

	if (entry->users || entry->retry.loop)
		return;
	if (entry->recovering && !managed->leaving) {
		if (entry->why[0]) {
			entry_orphan(entry, entry->why);
			return;
		}
		entry->recover_want.flags = POOL_READ | POOL_WRITE;
		entry->recover_want.done = recovered;
		entry_want(entry, &entry->recover_want);
		return;
	}
	if (entry->unlinked && entry->known && !managed->leaving) {
		entry_orphan(entry, "the region was removed");
		return;
	}
	if (!entry->known || managed->leaving)
		entry_free(entry);
}

void entry_advance(struct managed_entry *entry)
{
	struct managed *managed = entry->managed;

	if (entry->busy || entry->ending)
		return;
	if (entry->wants) {
		serve(entry);
		return;
	}
	if (entry->doubt && !managed->leaving) {
		ask_doubt(entry);
		return;
	}
	if (!entry->cache) {
		cold(entry);
		return;
	}
	if (entry->users == 0 && (entry->lost || entry->unlinked)) {
		entry_end(entry, entry->unlinked ? END_FORGET : END_ASIDE);
		return;
	}
	if (entry->users == 0 && managed->given_up) {
		entry_end(entry, END_CLOSE);
		return;
	}
	if (entry->lost || give_lease_back(entry))
		return;
	rest(entry);
}
