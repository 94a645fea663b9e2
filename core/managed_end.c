/* SPDX-License-Identifier: Apache-2.0
 *
 * How a region of the managed pool loses its cache.
 *
 *   cache_stop ─► the local store is closed (worker) ─► the index: closed, kept aside or forgotten ─► the lower
 *   pool's handle is closed behind ─► COLD, or gone
 * Closed with dirty blocks left (the donor is given up): committed, but not noted as closed well, so
 * that the next mount pushes them.
 *
 * entry->ending is set from the start to the end of all this; who wants the region meanwhile waits.
 */
#include <errno.h>
#include <string.h>

#include "core/managed_int.h"

static struct managed_entry *entry_of_icall(struct index_call *call)
{
	return (struct managed_entry *)((char *)call - offsetof(struct managed_entry, icall));
}

static void ended(struct managed_entry *entry)
{
	struct managed *managed = entry->managed;
	struct managed_remote *remote = entry->remote;

	index_end(entry);
	cache_destroy(entry->cache);
	entry->cache = NULL;
	entry->remote = NULL;
	entry->ending = entry->lost = entry->discard = entry->wrote = entry->resized = false;
	entry->why[0] = '\0';
	loop_timer_cancel(&entry->retry);
	if (remote)
		remote_close(remote);
	entry->known = managed->index && entry->end == END_CLOSE;
	entry_advance(entry);
}

static void abandoned(struct index_call *call, int err)
{
	ended(entry_of_icall(call));
}

static void abandon(struct managed_entry *entry)
{
	entry->icall.done = abandoned;
	indexed_abandon(entry->indexed, &entry->icall);
}

static void index_ended(struct index_call *call, int err)
{
	struct managed_entry *entry = entry_of_icall(call);

	/* What could not be closed is gone; what could not be kept aside or forgotten is open still, and stays
	 * as it is for the next mount. */
	if (err && entry->end != END_CLOSE) {
		entry->end = END_CLOSE;
		abandon(entry);
		return;
	}
	ended(entry);
}

static void committed(struct index_call *call, int err)
{
	abandon(entry_of_icall(call));
}

static void end_index(struct managed_entry *entry)
{
	struct cache_status status;

	cache_status(entry->cache, &status);
	index_describe(entry);
	entry->icall.done = index_ended;
	switch (entry->end) {
	case END_FORGET:
		indexed_forget(entry->indexed, &entry->icall);
		break;
	case END_ASIDE:
		if (status.dirty)
			indexed_set_aside(entry->indexed, entry->why, &entry->icall);
		else
			indexed_forget(entry->indexed, &entry->icall);
		break;
	default:
		if (status.dirty) {
			entry->icall.done = committed;
			indexed_commit(entry->indexed, &entry->icall);
		} else {
			indexed_close(entry->indexed, &entry->icall);
		}
	}
}

static void report(const struct managed_entry *entry)
{
	struct cache_status status;

	cache_status(entry->cache, &status);
	if (!status.dirty || entry->end == END_FORGET)
		return;
	if (!entry->indexed)
		log_error("region \"%s\": %llu bytes that were written here did not reach the "
			  "donor: they are lost",
		    entry->name, (unsigned long long)status.dirty);
	else if (entry->end == END_CLOSE)
		log_warn("region \"%s\": %llu bytes that were written here have not reached the "
			 "donor: cache=%s keeps them for the next mount",
		    entry->name, (unsigned long long)status.dirty,
		    cache_dir_path(entry->managed->conf.dir));
}

static void store_closed(struct work *work)
{
	struct managed_entry *entry =
	    (struct managed_entry *)((char *)work - offsetof(struct managed_entry, work));

	entry->local = NULL;
	report(entry);
	if (entry->indexed)
		end_index(entry);
	else
		ended(entry);
}

static void close_store(struct work *work)
{
	struct managed_entry *entry =
	    (struct managed_entry *)((char *)work - offsetof(struct managed_entry, work));

	store_destroy(entry->local);
}

static void stopped(struct cache_call *call, int err)
{
	struct managed_entry *entry =
	    (struct managed_entry *)((char *)call - offsetof(struct managed_entry, call));

	puller_destroy(entry->puller);
	pusher_destroy(entry->pusher);
	entry->puller = NULL;
	entry->pusher = NULL;
	entry->work = (struct work){.run = close_store, .done = store_closed};
	workers_submit(entry->managed->conf.workers, &entry->work);
}

void entry_end(struct managed_entry *entry, enum managed_end end)
{
	entry->ending = true;
	entry->end = end;
	entry->call.done = stopped;
	cache_stop(entry->cache, &entry->call);
}
