/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of the cache share: cache.c (states and invariants; groups, handles, operations), cache_state.c
 * (the state of blocks), cache_age.c (how long they have been dirty), cache_read.c (READ, fetches), cache_write.c (WRITE, ZERO, ALLOC), cache_push.c,
 * cache_flush.c, cache_commit.c (the index), cache_evict.c (replacement), cache_resize.c (RESIZE, EXTENTS),
 * cache_info.c (what is asked about a cache).
 */
#ifndef REMRAM_CORE_CACHE_INT_H
#define REMRAM_CORE_CACHE_INT_H

#include <assert.h>
#include <limits.h>
#include <stddef.h>

#include "core/bufpool.h"
#include "core/cache.h"
#include "core/cache_pump.h"
#include "core/window.h"

enum {
	BLOCK_SHIFT = 12,
	CHUNK_SHIFT = 18,
	CHUNK_BLOCKS = 64, /* one word of each bitmap */
	SEG_CHUNKS = 4096, /* a segment of state stands for 1 GiB */
	FETCH_BLOCKS = STORE_LEN_MAX / STORE_BLOCK,
	PUSH_BLOCKS = 16 * FETCH_BLOCKS, /* longest run that is looked at; ZEROs may be so long */
	WIDE_CHUNKS = 64, /* operations on more chunks than that are not counted in each */
	TICK_SHIFT = 26, /* ages are in units of 67 ms */
	AGED_SHIFT = 8, /* and old ones (F_AGED) in 256 of these, 17 s */
	RECENT = 8, /* chunks whose next touch says nothing new */
};

#define NO_CHUNK UINT32_MAX

/* A chunk's flags. */
enum {
	F_FREQ = 3, /* touches since it came or was looked at, up to 3 */
	F_SMALL = 4, /* in the queue of new chunks */
	F_MAIN = 8, /* in the queue of those that were touched again */
	F_GHOST = 16, /* was evicted from the small queue; age: when */
	F_PINNED = 32,
	F_LISTED = 64, /* in the dirty list */
	F_HELD = 128, /* dirty, but waits for a push or resize of it to end: then listed again */
	F_ROUND = 256, /* the flush that is under way waits for its dirty blocks */
	F_STALE =
	    512, /* absent blocks may have bytes in the local store: they can't become holes */
	F_UNFLUSHED =
	    1024, /* pushed since the remote's last FLUSH; two bits, for two generations */
	F_UNFLUSHED_OLD = 2048,
	/* Only with an index (cache_commit.c): */
	F_ROW = 4096, /* its row may call blocks dirty */
	F_TAKEN = 8192, /* a commit under way has taken it */
	F_DROPPED = 16384, /* blocks of it became absent that a row may call resident */
	F_AGED = 32768, /* dirty, or being pushed, for long: its age is in coarse units */
};

/* The state of 1 GiB.  A block's two bits:
 *   held 0 mark 0  absent: only the remote has it
 *   held 1 mark 0  clean: the local store has the same bytes as the remote, or a push of it is under way
 *   held 1 mark 1  dirty: the local store has newer bytes
 *   held 0 mark 1  hole: zeros on both sides, no bytes in the local store
 */
struct cache_seg {
	uint64_t held[SEG_CHUNKS];
	uint64_t mark[SEG_CHUNKS];
	uint32_t queue_next[SEG_CHUNKS]; /* replacement queue */
	uint32_t dirty_next[SEG_CHUNKS]; /* dirty list */
	uint16_t flags[SEG_CHUNKS];
	uint16_t readers[SEG_CHUNKS]; /* READs under way at the local store, loans included */
	uint16_t age
	    [SEG_CHUNKS]; /* when the first block became dirty (cache_age.c); ghosts: cache_evict.c */
	uint8_t ops[SEG_CHUNKS]; /* operations that cover it (but wide ones) */
	uint64_t changed[SEG_CHUNKS / 64]; /* since it was last taken for the index */
};

enum block_state { ABSENT, CLEAN, DIRTY, HOLE };

/* A queue of chunks, linked through one of the segments' arrays. */
struct chunk_list {
	uint32_t head, tail; /* NO_CHUNK: empty */
	uint64_t count;
};

struct op_queue {
	struct cache_op *head, **tail;
};

enum op_kind {
	OP_READ, /* covers nothing */
	OP_OTHER, /* FLUSH, EXTENTS: covers nothing */
	OP_FETCH,
	OP_WRITE,
	OP_ZERO,
	OP_ALLOC,
	OP_PUSH,
	OP_EVICT,
	OP_RESIZE,
};

#define OP_BIT(kind) (1u << (kind))

/* Something under way.  Made for each request that is not answered at once, and by pumps. */
struct cache_op {
	struct store_req sreq; /* its own request to a lower store */
	struct cache *cache;
	enum op_kind kind;
	bool covering; /* in the cache's list, counted in its chunks */
	bool exclusive; /* FETCH: for a write of part of the block; no other write meanwhile */
	bool filling; /* FETCH: its data is being written to the local store */
	bool keep; /* FETCH: what it brings becomes resident */
	bool in_round; /* PUSH: a flush waits for it */
	bool hole; /* PUSH: as ZERO */
	bool lent; /* PUSH: buf is the local store's */
	bool doubtful; /* PUSH: the remote may have lost it since: it does not count */
	bool stepping,
	    again; /* a step is under way; the request that it made is answered already */
	bool fill_stepping, fill_again; /* the same for the requests of a fill */
	bool missed; /* READ: has needed the remote */
	bool waited; /* WRITE, ZERO: at a bound: it is its turn */
	struct cache_op *next, *prev; /* cache->active, or the free list */
	uint64_t lo, hi; /* blocks that it covers: [lo, hi) */
	struct store_req *req; /* whose outcome this is; NULL: a pump's or the cache's own */
	struct cache_handle *handle; /* of req */
	void (*step)(struct cache_op *op); /* goes on after a wait */
	void (*fetched)(struct cache_op *op, int err); /* FETCH: it has ended */
	int commit_err; /* of the commit that it has waited for */
	struct op_queue waiters; /* operations that wait for this one's end */
	struct op_queue *queue; /* the queue that this one waits in */
	struct cache_op *wait_next;
	uint64_t asked; /* EXTENTS: cache->evicted + cache->drops when the remote was asked */
	uint64_t pos; /* READ: bytes before it are in req->buf.  EXTENTS: the same for extents */
	uint64_t room; /* blocks reserved in the group */
	uint64_t dirtying; /* blocks charged to the group's bound on dirty ones */
	uint8_t *buf; /* of the group's pool, or NULL */
	uint8_t *data; /* FETCH: where the bytes go */
	uint64_t tag; /* FETCH of a puller */
	int err;
	uint64_t fill_pos; /* FETCH: blocks before it are filled */
	int fill_err; /* FETCH: why the local store did not take it */
	uint64_t valid[FETCH_BLOCKS / 64 + 1]; /* FETCH: blocks that nobody overwrote meanwhile */
	struct window_mark mark;
	struct cache_flush flush; /* FLUSH, FUA */
	struct cache_call call; /* RESIZE: to the owner */
	struct extent extents[4]; /* PUSH */
};

struct cache_group {
	/* Constant after create. */
	struct loop *loop;
	uint64_t size_blocks, dirty_max; /* blocks; 0: no bound */
	struct cache_op *op_array;
	unsigned op_count;
	struct bufpool *buffers;
	unsigned buffer_count;

	/* Loop thread only. */
	struct cache *caches;
	struct cache_op *free_ops;
	unsigned free_op_count;
	struct store_req *waiting, **waiting_tail; /* requests without an operation */
	struct op_queue for_buffer, for_dirty, for_room; /* operations that wait */
	struct op_queue runnable; /* to be stepped by task */
	unsigned commits_wanted; /* caches with commit_wanted */
	struct loop_task task;
	struct loop_timer age_timer; /* as long as anything is dirty or being pushed */
	bool starved; /* a pump found no operation or buffer, or others in its way */
	uint64_t held; /* blocks in local stores */
	uint64_t reserved; /* blocks on their way there */
	uint64_t dirty, pushing, dirtying; /* blocks; dirtying: writes under way */
	uint64_t progress; /* moves when something may have become evictable */
	uint64_t stuck_at; /* progress when nothing could be evicted */
	const struct cache_op *reserving; /* whose chunks are not to be evicted now */
	struct window pull, push;
};

/* FLUSHes of one kind, committed together: those that come while some are under way are the next ones. */
struct flush_line {
	struct cache_flush *now, *next, **next_tail;
	bool active;
	int err;
	struct store_req req; /* FLUSH to the store */
};

struct cache {
	/* Constant after create. */
	struct cache_conf conf;
	struct cache_group *group;

	/* Loop thread only. */
	struct cache *next; /* the group's list */
	struct store *remote; /* NULL: detached */
	struct cache_seg **segs;
	uint64_t seg_count;
	uint64_t size; /* bytes */
	uint64_t span; /* blocks that have a state: ≥ size, rounded up */
	uint64_t held, dirty, holes; /* blocks in these states */
	uint64_t pushing, pulling; /* blocks in flight */
	struct cache_op *active; /* those that cover blocks, newest first */
	unsigned wide; /* of these, not counted in chunks */
	unsigned ops; /* operations of this cache, covering or not */
	struct op_queue for_remote; /* wait for a remote */
	unsigned remote_requests; /* in flight at remotes */
	struct cache_call *detaching, *stopping;
	struct loop_task idle; /* ends stopping */
	bool stopped;
	int frozen;
	bool holding; /* cache_hold_writers */
	unsigned handles;
	struct cache_handle *handle_list;
	struct cache_op *resizing;
	bool ragged; /* what has failed here may have left bytes beyond the end in the last block */

	/* Replacement: see cache_evict.c. */
	struct chunk_list small, main;
	uint64_t evictions; /* chunks evicted from the small queue */
	uint32_t recent[RECENT];
	unsigned recent_idx;

	/* Write-back. */
	struct chunk_list dirty_list;
	struct flush_line remote_line, local_line;
	uint64_t round_chunks; /* with F_ROUND */
	unsigned round_pushes; /* in flight with in_round */
	bool pushing_round; /* remote_line waits for these two to be 0 */
	uint64_t unflushed, unflushed_old; /* chunks with these flags */
	bool flush_wanted; /* chunks with these flags keep others from having room */
	uint64_t errors; /* of write-back, since create */
	int last_error; /* the last of these */
	int push_error; /* the last push's, 0 when one succeeded since */

	/* The index. */
	uint64_t changed; /* chunks */
	uint64_t changed_from; /* where the search goes on */
	uint64_t rows, dropped; /* chunks with F_ROW and with F_DROPPED */
	struct op_queue for_commit; /* operations that wait for the next commit to end */
	struct op_queue in_commit; /* for the one under way */
	struct cache_call commit;
	bool committing; /* it is under way */
	bool commit_wanted; /* another one is to begin */
	bool local_waits, local_commits; /* local_line waits for the next; for this one */
	int commit_err; /* of the last, 0 when something was stored since */
	uint64_t uncommitted; /* blocks of pushes with a buffer that wait for a commit */

	struct cache_scan *scan; /* under way, or NULL */
	uint64_t drops; /* how often clean blocks were dropped: what was learned before is old */
	uint64_t hits, misses, fetched, pushed, evicted, foreground, push_errors;

	const struct cache_puller_ops *puller;
	void *puller_ctx;
	const struct cache_pusher_ops *pusher;
	void *pusher_ctx;
};

/* ---- small things ---- */

static inline struct cache_seg *seg_of(const struct cache *cache, uint32_t chunk)
{
	return cache->segs[chunk / SEG_CHUNKS];
}

/* The bits of blocks [lo, hi) that lie in a chunk. */
static inline uint64_t chunk_mask(uint64_t chunk, uint64_t lo, uint64_t hi)
{
	uint64_t mask = ~(uint64_t)0;

	if (lo > chunk * CHUNK_BLOCKS)
		mask &= ~(uint64_t)0 << (lo % CHUNK_BLOCKS);
	if (hi < (chunk + 1) * CHUNK_BLOCKS)
		mask &= ~(~(uint64_t)0 << (hi % CHUNK_BLOCKS));
	return mask;
}

static inline uint64_t held_of(const struct cache *cache, uint32_t chunk)
{
	return seg_of(cache, chunk)->held[chunk % SEG_CHUNKS];
}

static inline uint64_t mark_of(const struct cache *cache, uint32_t chunk)
{
	return seg_of(cache, chunk)->mark[chunk % SEG_CHUNKS];
}

static inline uint64_t dirty_of(const struct cache *cache, uint32_t chunk)
{
	return held_of(cache, chunk) & mark_of(cache, chunk);
}

static inline uint64_t resident_of(const struct cache *cache, uint32_t chunk)
{
	return held_of(cache, chunk) | mark_of(cache, chunk);
}

static inline uint16_t *flags_of(const struct cache *cache, uint32_t chunk)
{
	return &seg_of(cache, chunk)->flags[chunk % SEG_CHUNKS];
}

/* Whether the remote may still lose what of the chunk it was sent: it must not be forgotten here. */
static inline bool is_unflushed(const struct cache *cache, uint32_t chunk)
{
	return *flags_of(cache, chunk) & (F_UNFLUSHED | F_UNFLUSHED_OLD);
}

/* Chunks that have memory for their state, also beyond the region's end. */
static inline uint64_t state_chunks(const struct cache *cache)
{
	return cache->seg_count * SEG_CHUNKS;
}

static inline unsigned count_bits(uint64_t word)
{
	return (unsigned)__builtin_popcountll(word);
}

static inline uint64_t blocks_up(uint64_t bytes)
{
	return (bytes + STORE_BLOCK - 1) >> BLOCK_SHIFT;
}

static inline bool is_changed(const struct cache *cache, uint32_t chunk)
{
	return seg_of(cache, chunk)->changed[chunk % SEG_CHUNKS / 64] >> (chunk % 64) & 1;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline struct cache_op *op_of(struct store_req *sreq)
{
	return (struct cache_op *)((char *)sreq - offsetof(struct cache_op, sreq));
}

/* ---- cache.c: operations ---- */

void op_queue_init(struct op_queue *queue);
/* Whom an operation is for.  When few are left pulls get none, then requests: pushes and evictions free what
 * requests wait for. */
enum op_user { FOR_PUSH, FOR_REQUEST, FOR_PULL };
/* An operation of the cache, or NULL. */
struct cache_op *op_get(struct cache *cache, enum op_kind kind, enum op_user user);
/* The operation that a handle's request becomes; NULL: it waits for one, and is dispatched again. */
struct cache_op *cache_request_op(
    struct cache_handle *handle, struct store_req *req, enum op_kind kind);
/* It covers nothing, nobody waits for it. */
void op_put(struct cache_op *op);
/* For pumps: the operation could not begin, for want of something.  They are kicked when others end. */
void op_give_up(struct cache_op *op);
/* Ends the operation and its request. */
void op_complete(struct cache_op *op, int err);

/* op is stepped when whatever the queue is for has happened. */
void op_wait(struct cache_op *op, struct op_queue *queue);
/* It waits no more. */
void op_unwait(struct cache_op *op);
/* Has all, or up to `most`, of a queue stepped, soon. */
void op_wake(struct cache_group *group, struct op_queue *queue);
void op_wake_some(struct cache_group *group, struct op_queue *queue, unsigned most);

/* Enters op, which has lo and hi, among those that others look for; false: too many in one chunk, op waits
 * already. */
bool op_cover(struct cache_op *op);
/* The same backwards; wakes those that wait for it. */
void op_uncover(struct cache_op *op);
/* Covers [op->lo, hi) only from now on. */
void op_shrink(struct cache_op *op, uint64_t hi);
/* How many of those in cache->active cover a block of the chunk, at most: who has found so many need not look on.
 * A chunk's are often its newest, which are in front. */
static inline unsigned op_most(const struct cache *cache, uint32_t chunk)
{
	return cache->wide ? UINT_MAX : seg_of(cache, chunk)->ops[chunk % SEG_CHUNKS];
}

static inline bool op_is_on(const struct cache_op *op, uint32_t chunk)
{
	uint64_t lo = (uint64_t)chunk * CHUNK_BLOCKS;

	return op->lo < lo + CHUNK_BLOCKS && lo < op->hi;
}

/* One that covers a block of [lo, hi) and has one of these kinds, or NULL. */
struct cache_op *op_find(const struct cache *cache, uint64_t lo, uint64_t hi, unsigned kinds);

/* A buffer for op; false: op waits for one (wait), or there is none. */
bool op_buffer(struct cache_op *op, bool wait);
void op_buffer_put(struct cache_op *op);

/* Submits op->sreq, filled but for done, to the remote; done runs when it has ended. */
void remote_submit(struct cache_op *op, store_done_fn *done);
/* To be called first in that done. */
void remote_done(struct cache *cache);
/* Tells who waits for the cache to have nothing under way, if it has not. */
void cache_check_idle(struct cache *cache);

void cache_kick_puller(struct cache *cache);
void cache_kick_pusher(struct cache *cache);
/* Dirty blocks or room have become less. */
void group_relieved(struct cache_group *group);

/* ---- cache_state.c ---- */

/* Gives the blocks up to `blocks` a state: holes if `holes` (the remote ends before), else absent.  0 or
 * -ENOMEM. */
int state_grow(struct cache *cache, uint64_t blocks, bool holes);
/* The only function that changes blocks' states: those of `mask` in a chunk. */
void state_set(struct cache *cache, uint32_t chunk, uint64_t mask, enum block_state state);
/* The same for blocks [lo, hi). */
void state_set_range(struct cache *cache, uint64_t lo, uint64_t hi, enum block_state state);
/* Whether all of [lo, hi), which has a state, is resident. */
bool state_all_resident(const struct cache *cache, uint64_t lo, uint64_t hi);
static inline bool state_resident(const struct cache *cache, uint64_t block)
{
	return resident_of(cache, (uint32_t)(block / CHUNK_BLOCKS)) >> (block % CHUNK_BLOCKS) & 1;
}
/* How many of [lo, hi) have no bytes in the local store. */
uint64_t state_count_unheld(const struct cache *cache, uint64_t lo, uint64_t hi);
/* The end of the run of blocks from lo, at most hi, that are (not) resident. */
uint64_t state_run_end(const struct cache *cache, uint64_t lo, uint64_t hi, bool resident);
/* Absent blocks of these chunks may have bytes in the local store. */
void state_stale(struct cache *cache, uint64_t lo, uint64_t hi);
/* Absent blocks of [lo, hi) are zeros at the remote. */
void state_holes(struct cache *cache, uint64_t lo, uint64_t hi);
void state_changed(struct cache *cache, uint32_t chunk);
void state_free(struct cache *cache);

/* first: at the head of the list. */
void list_push(
    struct cache *cache, struct chunk_list *list, bool dirty, uint32_t chunk, bool first);
uint32_t list_pop(struct cache *cache, struct chunk_list *list, bool dirty);
/* A chunk with dirty blocks comes into the dirty list unless it is there; first: it has been there before. */
void dirty_enlist(struct cache *cache, uint32_t chunk, bool first);

/* ---- cache_age.c ---- */

/* The first block of a chunk becomes dirty now. */
void age_begin(struct cache *cache, uint32_t chunk);
/* How long ago that was, of a chunk that is dirty or being pushed: nanoseconds, to 67 ms; to 17 s what is older than
 * half an hour; at most 6 days. */
uint64_t age_of(const struct cache *cache, uint32_t chunk);
void age_init(struct cache_group *group);

/* ---- cache_read.c ---- */

void cache_read(struct cache_handle *handle, struct store_req *req);
void readers_change(struct cache *cache, uint64_t off, uint64_t len, int by);
/* Fetches blocks [op->lo, op->hi), all absent, into op->data; op has room reserved if op->keep.  Ends with
 * op->fetched. */
void fetch_start(struct cache_op *op, bool background);
/* Somebody writes to [lo, hi): what fetches bring of it is old. */
void fetch_invalidate(struct cache *cache, uint64_t lo, uint64_t hi);
/* The end of the run of absent blocks from lo, at most hi, that nothing covers and one request can fetch;
 * lo itself is such a block. */
uint64_t fetch_run_end(const struct cache *cache, uint64_t lo, uint64_t hi);

/* ---- cache_write.c ---- */

void write_begin(struct cache_op *op);
void zero_begin(struct cache_op *op);
void alloc_begin(struct cache_op *op);
/* The region is at least `end` bytes long now. */
void cache_extend(struct cache *cache, uint64_t end);

/* ---- cache_pull.c ---- */

/* Blocks [lo, hi) change at the remote about now: what a scan under way will say of holes there is not believed. */
void scan_doubt(struct cache *cache, uint64_t lo, uint64_t hi);

/* ---- cache_push.c, cache_flush.c ---- */

/* Held chunks of [lo, hi) can be pushed again. */
void push_release(struct cache *cache, uint64_t lo, uint64_t hi);
/* Blocks of a chunk that are being pushed. */
uint64_t push_mask(const struct cache *cache, uint32_t chunk);
void flush_begin(struct cache_op *op);
/* A FUA request has succeeded, but for being stable. */
void flush_fua(struct cache_op *op);
/* Ends op early if it waits for a flush. */
void flush_interrupt(struct cache_op *op);
void flush_report(struct cache *cache, int err);
/* A chunk or push of the round is over. */
void flush_check(struct cache *cache);
/* The round of the remote line, if one is under way, ends with err when its pushes in flight have ended. */
void flush_fail_round(struct cache *cache, int err);
void flush_abort(struct cache *cache, int err);
void flush_pushed(struct cache *cache, uint32_t chunk);
void flush_init(struct cache *cache);
/* The commit that the local line has asked for has ended. */
void flush_committed(struct cache *cache, int err);

/* ---- cache_commit.c ---- */

/* op is stepped when a commit that begins later has ended; op->commit_err says how. */
void commit_wait(struct cache_op *op);
/* A commit begins soon. */
void commit_want(struct cache *cache);
/* The local line wants one now. */
void commit_for_local(struct cache *cache);
/* From the group's task: begins what is wanted. */
void commit_run(struct cache_group *group);
/* Blocks of a chunk that its row may call resident become absent. */
void commit_dropped(struct cache *cache, uint32_t chunk);
/* The first chunk that overlaps blocks [lo, hi) and has F_DROPPED; or NO_CHUNK. */
uint32_t commit_find_dropped(const struct cache *cache, uint64_t lo, uint64_t hi);
/* Whether the index keeps a chunk from being evicted; asks for the commit that changes this. */
bool commit_keeps(struct cache *cache, uint32_t chunk);

/* ---- cache_evict.c ---- */

void evict_touch(struct cache *cache, uint32_t chunk);
void evict_insert(struct cache *cache, uint32_t chunk);
/* Evicts a chunk if nothing is under way in it and it is clean; the bytes. */
uint64_t evict_now(struct cache *cache, uint32_t chunk);
/* Reserves room for blocks to come, evicting others, but not the chunks of [op->lo, op->hi); false: there is
 * none now.  may_evict false: only what is free. */
bool room_reserve(struct cache_op *op, uint64_t blocks, bool may_evict);
void room_release(struct cache_op *op);
/* Something that kept the chunks of blocks [lo, hi) from being evicted has ended: who waits for room looks again if
 * one of them can be evicted now. */
void room_unused(struct cache *cache, uint64_t lo, uint64_t hi);
/* Whether pushes, flushes or commits, which are asked for, may make chunks evictable that are not so now. */
bool room_may_come(struct cache_group *group);

/* ---- cache_resize.c ---- */

void resize_begin(struct cache_op *op);
/* Ends op early if the remote was not asked yet. */
void resize_interrupt(struct cache_op *op);
void extents_begin(struct cache_op *op);

/* ---- cache_audit.c ---- */

/* Asserts the invariants.  For tests: it looks at every block. */
void cache_audit(const struct cache *cache);

#endif
