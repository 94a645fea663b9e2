/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of the FUSE frontend share.
 *
 *   dev.c     reads requests, keeps their memory, writes replies
 *   init.c    the handshake
 *   node.c    the table of nodes that the kernel knows
 *   meta.c    names, attributes, xattrs
 *   open.c    open, create, release
 *   dir.c     listings
 *   data.c    read, write, fsync, fallocate, lseek
 *   lease.c   other clients: what they changed, what they do not let us open
 *   mount.c   mounting
 * Everything runs on one loop, but for one thread that tells the kernel to drop pages (lease.c).
 */
#ifndef REMRAM_FUSE_FS_INT_H
#define REMRAM_FUSE_FS_INT_H

#include "core/bufpool.h"
#include "core/log.h"
#include "core/store.h"
#include "core/workers.h"
#include "fuse/abi.h"
#include "fuse/fs.h"

enum {
	FS_WRITE_MAX = STORE_LEN_MAX, /* bytes of one READ or WRITE */
	FS_IN_MAX = FS_WRITE_MAX + 4096, /* bytes of a big buffer: the longest request fits */
	FS_SMALL = 16 * 1024, /* a small buffer */
	FS_SMALL_COUNT = 256, /* when they are out, big ones are used */
	FS_BIG_COUNT = 32, /* big buffers in use while all is well */
	/* More of them for when the donor is away: interrupts must still be read; dev.c says how. */
	FS_BIG_SPARE = 256,
	FS_BIG_SPARE_TOUCHED =
	    9, /* where each one costs memory: with 40 WRITEs waiting one is left to read in */
	FS_ARGS = 544, /* bytes that a request other than WRITE and SETXATTR may have: two names */
	FS_PIPE = 1 << 20, /* bytes: room for 256 fragments: twice what a connection's pipe has */
	FS_REQS = 2048,
	FS_BATCH = 32, /* requests read in one go */
	FS_NODE_BUCKETS = 4096,
	FS_EXTENTS = 256, /* asked for at once by lseek */
	FS_SESSION = 1, /* pool_req.session of a local pool; a donor gives its own */
};

enum fs_stale { FS_FRESH, FS_STALE_QUEUED, FS_STALE_DROPPING, FS_STALE_AGAIN };

struct fs_node {
	struct fs_node *next; /* hash chain */
	uint64_t id; /* the region's */
	uint64_t lookups; /* what the kernel will forget */
	uint64_t size; /* bytes, as far as known */
	uint64_t version; /* of what the kernel may have cached; 0: nothing */
	unsigned opens, writers;
	bool pinned;
	bool lease_lost; /* since the last open for writing */
	enum fs_stale stale; /* pages that the kernel must drop: lease.c */
	struct fs_node *stale_next; /* while queued */
	char *name; /* as last looked up, for status; NULL: none, or no memory was left for it */
};

struct fs_req {
	struct fs *fs;
	struct fs_req *prev, *next; /* in flight; next: free list */
	struct fs_req *wait_next; /* fs->waiting */
	uint64_t unique, nodeid;
	uint32_t opcode;
	uint32_t uid, gid;
	bool interrupted;
	bool answered; /* the kernel has its reply, or wants none */
	void *buf; /* from bufs, or NULL */
	struct bufpool *bufs;
	const void
	    *in; /* the operation's argument, in buf or in the device buffer during dispatch */
	size_t in_len;
	struct handle *handle;
	struct fs_node *node; /* valid while its file is open */
	uint64_t off, len; /* data: what the kernel asked for */
	uint32_t arg; /* whatever the operation wants to remember */
	unsigned tries; /* fs_ask_again */
	struct loop_timer again;
	struct store_req sreq;
	struct pool_req preq;
	_Alignas(8) uint8_t args[FS_ARGS];
};

struct fs {
	struct loop *loop;
	struct loop_fd dev;
	struct fs_conf conf;
	struct pool *pool;
	uint32_t minor; /* of the kernel's protocol */
	bool direct_mmap; /* FUSE_DIRECT_IO_ALLOW_MMAP was agreed */
	bool ready, gone;
	uint64_t requests;

	/* Memory. */
	struct bufpool *small, *big;
	unsigned big_out, big_limit;
	struct fs_req *reqs, *free_reqs, *first;
	unsigned in_flight;
	uint8_t *in; /* a big buffer: the next request is read into it; NULL: none was free */
	bool stopped; /* nothing is read until memory comes back */
	struct fs_req *waiting,
	    **waiting_end; /* requests that wait for a buffer, first in first out */
	struct loop_timer starved;
	struct loop_task go_on; /* memory came back */
	int pipe[2]; /* replies whose bytes come in a pipe; empty between them */
	bool piped; /* it is large enough for them */

	/* Nodes. */
	struct fs_node *nodes[FS_NODE_BUCKETS];
	unsigned node_count;
	struct handle **handles; /* by number: file handles */
	uint32_t handle_room;
	uint32_t handle_hint; /* no number from 1 to below this is free */
	uint32_t root_mode, root_uid, root_gid;
	int64_t root_ns;

	/* Other clients (lease.c). */
	struct workers *dropper; /* one thread */
	struct work drop;
	uint64_t dropping; /* the node whose pages it drops now; 0: none */
	struct fs_node *stale, **stale_tail; /* those that wait */
	struct fs_refusal refusal;
	struct log_limit refusal_limit, lost_limit;
};

/* ---- dev.c ---- */

/* A request that is in flight from now on; NULL: all are. */
struct fs_req *fs_req_get(struct fs *fs);
/* Ends the request with an error (≤ 0) or with data; its memory goes back. */
void fs_reply_err(struct fs_req *req, int err);
void fs_reply(struct fs_req *req, const void *data, size_t len);
/* The same, and the request stays in flight (its memory is still in use). */
void fs_answer(struct fs_req *req, int err, const void *data, size_t len);
/* The same, with the len bytes that a pipe holds. */
void fs_answer_piped(struct fs_req *req, int pipe, size_t len);
/* No reply is wanted, or it was given by fs_answer: its memory goes back. */
void fs_req_end(struct fs_req *req);
/* A buffer for len bytes in req->buf; false: none now: the caller returns FS_PARK. */
bool fs_req_buffer(struct fs_req *req, size_t len);
/* For WRITE and SETXATTR: data lies in the device buffer; returns the same bytes where they stay until the
 * request ends. */
void *fs_req_keep(struct fs_req *req, const void *data, size_t len);

/* What a handler returns: the request was taken, or waits, and the handler is called again when memory is
 * back. */
enum fs_verdict { FS_TAKEN, FS_PARK };
typedef enum fs_verdict fs_handler(struct fs_req *req);

/* ---- the handlers ---- */

fs_handler fs_init, fs_lookup, fs_getattr, fs_setattr, fs_mknod, fs_unlink, fs_rename, fs_rename2,
    fs_statfs, fs_setxattr, fs_getxattr, fs_listxattr, fs_removexattr, fs_open, fs_create_file,
    fs_release, fs_read, fs_write, fs_fsync, fs_fallocate, fs_lseek, fs_opendir, fs_readdir;

/* ---- node.c ---- */

struct fs_node *fs_node_find(const struct fs *fs, uint64_t id);
/* The kernel is told of a region: one more lookup.  NULL: out of memory. */
struct fs_node *fs_node_lookup(struct fs *fs, const struct region_attr *attr, const char *name);
/* `from` is called `to` now (NULL: it was removed) and no other region is, unless they were exchanged. */
void fs_node_renamed(struct fs *fs, const char *from, const char *to, bool exchange);
void fs_node_forget(struct fs *fs, uint64_t id, uint64_t lookups);
void fs_node_drop_all(struct fs *fs);

/* ---- meta.c ---- */

/* Sets up req->preq for op. */
void fs_pool_req(struct fs_req *req, enum pool_op op, pool_done_fn *done);
struct fs_req *fs_req_of_pool(struct pool_req *preq);
void fs_fill_attr(struct fs *fs, const struct region_attr *attr, struct fuse_attr *ret_attr);
void fs_fill_root(struct fs *fs, struct fuse_attr *ret_attr);
void fs_fill_entry(struct fs *fs, const struct region_attr *attr, struct fuse_entry_out *ret_entry);
/* The NUL-terminated name at `in` (room bytes follow), or NULL if it has no end. */
const char *fs_name(const char *in, size_t room);

/* ---- lease.c ---- */

int fs_lease_init(struct fs *fs, struct err *err);
void fs_lease_fini(struct fs *fs);
/* The node is about to be freed. */
void fs_stale_forget(struct fs *fs, struct fs_node *node);
/* req->preq ended with -EBUSY for good: logs who is in the way, if somebody is. */
void fs_refused(struct fs_req *req);
/* req->preq ended with err.  True: it is asked again in a moment, since what is in the way may be about to
 * go.  If it is -EBUSY for good, that is logged. */
bool fs_ask_again(struct fs_req *req, int err);
/* A write failed with -ENOLCK. */
void fs_lease_lost(struct fs *fs, struct fs_node *node);

/* ---- open.c ---- */

/* The handle of file handle fh, or NULL. */
struct handle *fs_handle(const struct fs *fs, uint64_t fh);
bool fs_any_open(const struct fs *fs);
/* Begins to close handles, as many as there are requests; nothing else is in flight. */
void fs_close_all(struct fs *fs);

#endif
