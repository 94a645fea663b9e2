/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of the managed pool share.
 *
 *   managed.c         the pool: making it, its table of regions, looking at it, its end
 *   managed_open.c    a region's way from COLD to OPEN, IDLE and LOST
 *   managed_end.c     its way back: closed, kept aside, forgotten
 *   managed_index.c   its index: when it is committed, and with what
 *   managed_handle.c  handles
 *   managed_meta.c    control requests: those that pass, sizes, names
 *   managed_xattr.c   the attributes that are served here; pins
 *   managed_job.c     what commands ask for
 *   managed_record.c  recordings of what is read
 * Everything runs on one loop, but for what managed_create and worker threads do.
 */
#ifndef REMRAM_CORE_MANAGED_INT_H
#define REMRAM_CORE_MANAGED_INT_H

#include "core/backend.h"
#include "core/cache_index.h"
#include "core/log.h"
#include "core/managed.h"

enum {
	MANAGED_BUCKETS = 1024,
	MANAGED_PINS_MAX = 128,
	MANAGED_TICK_MS = 200,
	MANAGED_RETRY_MS = 1000,
	MANAGED_RECOVER_TRIES = 60, /* longer than anybody's lease lives on */
	MANAGED_COMMIT_MS = 1000,
	MANAGED_NAMES = 16,
};

/* An open of the lower pool; its request becomes that of the CLOSE. */
struct managed_remote {
	struct pool_req req;
	struct managed *managed;
	struct managed_entry *entry; /* of the OPEN */
	struct handle *handle;
	bool writes;
	bool stale; /* writes, but others have had the lease since: it takes no push any more */
	bool closing; /* when refs is 0 */
	unsigned refs; /* control requests that use the handle */
};

enum managed_end { END_CLOSE, END_ASIDE, END_FORGET };

struct managed_entry {
	/* Constant after create. */
	struct managed *managed;
	uint64_t id;

	struct managed_entry *next; /* hash chain */
	char name[POOL_NAME_MAX + 1]; /* as last seen, or "" */
	uint64_t version; /* of what is cached, at the lower pool */
	uint64_t gen; /* the version that frontends see: moves when others changed bytes */
	int64_t mtime_ns; /* of the last write here, while wrote */
	int64_t mtime_told; /* to the lower pool, last */
	bool wrote; /* since then */
	struct region_attr attr; /* as the lower pool said last */
	char holder[POOL_HOLDER_MAX]; /* who was in the way of the last open */

	/* Settings. */
	int durability; /* enum cache_durability; -1: the mount's */
	struct pull_range *order; /* owned */
	unsigned order_count;
	bool own_order; /* else the mount's holds */
	struct pull_range pins[MANAGED_PINS_MAX];
	unsigned pin_count;

	/* Who needs it. */
	unsigned users; /* handles, jobs, wants, … */
	unsigned writers; /* of these, with POOL_WRITE */
	unsigned opens, open_writers; /* handles */
	struct managed_want *wants, **wants_tail; /* not begun */
	struct managed_want *serving; /* wait for what is under way */

	/* What is under way.  busy: one step of the region's life; nothing else is begun meanwhile. */
	bool busy;
	bool known; /* the index has it */
	bool recovering; /* it was not closed well in an earlier life */
	bool unlinked; /* it has no name any more */
	bool doubt; /* it may have lost its name */
	bool lost, ending;
	bool discard; /* not kept any longer when nobody uses it */
	bool flushing, again; /* settle_flush is under way; more was to be settled */
	char why[INDEX_NAME_MAX]; /* lost: the reason */
	unsigned tries; /* recovering */
	uint64_t idle_since;
	uint64_t changed_size; /* what a foreign change made of the size, while resized */
	bool resized;
	enum managed_end end;
	struct managed_want recover_want;
	struct cache_flush settle_flush;
	struct managed_commit settle_commit;
	struct loop_timer retry;
	struct pool_req req; /* own control requests */
	struct pool_req resize_req;
	struct cache_call *resize_call;
	struct cache_call call;
	struct store_req trim; /* of the local store, when it was opened */
	struct work work;
	int rc;

	/* The cache; NULL while COLD. */
	struct cache *cache;
	struct puller *puller;
	struct pusher *pusher;
	struct store *local;
	struct managed_remote *remote; /* attached, or about to be */
	struct managed_remote *fresh; /* just opened */
	bool unchanged; /* what its open said */

	/* The index (managed_index.c). */
	struct indexed *indexed;
	struct index_load load;
	struct index_call icall; /* of open and end */
	struct index_call tcall, ccall; /* the timer's commit, the cache's */
	bool tcommitting;
	struct cache_call *commit_call;
	struct managed_commit resize_commit;
	struct loop_timer resize_retry;
	bool
	    shrinks; /* the lower pool has agreed that the region is new_size long, the cache does not know yet */
	uint64_t new_size;
	struct loop_timer commit_timer;
	int commit_err;

	struct managed_record *record; /* NULL: never recorded */
};

/* What was looked up lately: an open says no name. */
struct managed_name {
	uint64_t id;
	char name[POOL_NAME_MAX + 1];
};

struct managed {
	struct pool pool;
	struct managed_conf conf;
	struct pull_range *order; /* conf.order, owned */
	struct cache_group *group;
	struct backend *memory; /* NULL with a directory */
	struct cache_index *index; /* NULL without */
	struct store_stats stats;
	struct managed_entry *buckets[MANAGED_BUCKETS];
	unsigned entries, idle;
	struct managed_name names[MANAGED_NAMES];
	unsigned next_name; /* of them: the oldest one */
	uint64_t gen;
	uint8_t *numbers; /* of lower handles in use: POOL_HANDLE_MAX of them */
	uint32_t number_hint;
	unsigned lower; /* requests of our own and opens of the lower pool */
	struct loop_timer tick;
	struct loop_task started, leave, ended;
	struct log_limit lost_limit, push_limit;
	struct managed_job *jobs;
	bool leaving, given_up, left;
	void (*left_fn)(void *ctx);
	void *left_ctx;
};

struct managed_handle {
	struct handle handle;
	struct managed_entry *entry;
	struct cache_handle *ch;
	bool recorded;
};

/* ---- managed.c ---- */

struct managed *managed_of(const struct pool *pool);
struct managed_entry *entry_find(const struct managed *managed, uint64_t id);
/* COLD, with nobody who uses it.  name "": the one that it was looked up by lately.  NULL: no memory. */
struct managed_entry *entry_create(struct managed *managed, uint64_t id, const char *name);
/* It is COLD and nobody uses it. */
void entry_free(struct managed_entry *entry);
/* Calls fn for every entry; fn may free the one that it gets. */
void managed_each(
    struct managed *managed, void (*fn)(struct managed_entry *entry, void *ctx), void *ctx);
/* Something of the lower pool's has ended, or an entry has: is that all? */
void managed_check_left(struct managed *managed);
enum managed_state entry_state(const struct managed_entry *entry);
enum cache_durability entry_durability(const struct managed_entry *entry);
bool entry_is_dirty(const struct managed_entry *entry);

/* ---- managed_open.c ---- */

/* want->done comes when the region is open; with an error it is not held. */
void entry_want(struct managed_entry *entry, struct managed_want *want);
/* Before done: done(want, -EINTR). */
void entry_unwant(struct managed_entry *entry, struct managed_want *want);
/* Like a want that succeeded, of something that is held open already. */
void entry_get(struct managed_entry *entry, unsigned flags);
/* The entry may be gone afterwards. */
void entry_put(struct managed_entry *entry, unsigned flags);
/* Does whatever is to be done next.  The entry may be gone afterwards. */
void entry_advance(struct managed_entry *entry);
/* Somebody else has changed the bytes at the lower pool. */
void entry_changed(struct managed_entry *entry, uint64_t version, uint64_t size);
/* Nothing may be pushed any more; why is a part of a sentence. */
void entry_lost(struct managed_entry *entry, const char *why);
/* A lower pool's CREATE has made the region, and its handle is remote's. */
void entry_created(struct managed_entry *entry, struct managed_remote *remote);
void entry_retry(struct managed_entry *entry);
/* The cache was made; or could not be. */
void entry_opened(struct managed_entry *entry, int err);

/* NULL: no memory, or no number left.  Its req is ready for OPEN. */
struct managed_remote *remote_create(struct managed *managed, unsigned flags, uint64_t id);
/* A control request of the lower pool uses its handle until remote_put.  NULL: none. */
struct managed_remote *remote_get(struct managed_remote *remote);
void remote_put(struct managed_remote *remote);
/* Closes it, if it is open, behind, when nobody uses it any more. */
void remote_close(struct managed_remote *remote);

/* ---- managed_begin.c ---- */

/* The region was opened as entry->fresh: loads it and makes its cache.  entry_opened comes. */
void entry_begin(struct managed_entry *entry);
/* The region is no more where it was: what the index has of it is kept aside or forgotten.  busy until then. */
void entry_orphan(struct managed_entry *entry, const char *why);

/* ---- managed_end.c ---- */

void entry_end(struct managed_entry *entry, enum managed_end end);

/* ---- managed_index.c ---- */

void index_begin(struct managed_entry *entry); /* before cache_create; entry->indexed is there */
/* How long a loaded region is that has `size` bytes at the lower pool: what was written here and not pushed may lie
 * beyond that end.  So may what is clean, if a crash came between a cut there and its commit: then there was no cut, and
 * these blocks are called dirty.  Rows beyond the end that the index has are of before a cut: they are emptied. */
uint64_t index_size(struct index_load *load, uint64_t size);
/* From where on the data file may have bytes of before a cut, which must become zeros. */
uint64_t index_trim(struct index_load *load, uint64_t size);
void index_loaded(struct managed_entry *entry, const struct index_chunk *chunks, size_t count);
void index_end(struct managed_entry *entry); /* nothing is committed any more */
void index_describe(struct managed_entry *entry);
/* struct cache_conf's. */
void index_changed(void *ctx);
void index_commit(void *ctx, struct cache_call *call);
/* Makes the index stable as it is now, then commit->done; at once where there is none. */
void index_now(struct managed_entry *entry, struct managed_commit *commit);
/* Settings have changed. */
void index_touch(struct managed_entry *entry);

/* ---- managed_handle.c ---- */

int handle_create(
    struct managed_entry *entry, const struct pool_req *req, struct handle **ret_handle);
void handle_close(struct handle *handle);

/* ---- managed_meta.c ---- */

void meta_submit(struct managed *managed, struct pool_req *req);
void meta_interrupt(struct managed *managed, struct pool_req *req);
/* The pool leaves: a change of size that waits for the index waits no longer. */
void meta_leave(struct managed_entry *entry);
/* struct cache_conf's. */
void meta_remote_resize(void *ctx, uint64_t size, struct cache_call *call);
int64_t meta_now_ns(void);

/* ---- managed_xattr.c ---- */

/* Whether the request is about an attribute of ours, and was taken. */
bool xattr_submit(struct managed *managed, struct pool_req *req);
/* The same for a request that is interrupted. */
bool xattr_interrupt(struct pool_req *req);
/* The name that a region that is not kept was looked up by lately, or "". */
const char *meta_noted_name(const struct managed *managed, uint64_t id);
/* Puts our names in a lower pool's answer. */
int xattr_list(const struct managed *managed, struct pool_req *req, size_t lower_len);
int entry_set_order(struct managed_entry *entry, const char *text, struct err *err);
int entry_set_pins(struct managed_entry *entry, const char *text);
size_t entry_pins_text(const struct managed_entry *entry, char *buf, size_t room);
void entry_apply(struct managed_entry *entry); /* settings, to the cache that was just made */

/* ---- managed_job.c ---- */

void jobs_cancel_all(struct managed *managed);

/* ---- managed_record.c ---- */

void record_note(struct managed_entry *entry, uint64_t off, uint64_t len);
bool record_on(const struct managed_entry *entry);
void record_free(struct managed_entry *entry);

#endif
