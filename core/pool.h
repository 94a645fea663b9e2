/* SPDX-License-Identifier: Apache-2.0
 *
 * A pool: a set of regions under names, as frontends see it.  The donor's own pools (core/local_pool)
 * and a pool at a donor (backends/peer) serve the same requests, so that a frontend does not know
 * which it has.
 *
 * Control requests (this file) follow the rules of core/store.h: asynchronous, owned by the caller,
 * completed exactly once by done(req, err) on the loop that submitted, possibly inside pool_submit.
 * Data goes through the store of a handle that POOL_OPEN or POOL_CREATE gave.
 *
 * Permissions.  A region's mode bits bind every client, root included: without any write bit
 * (mode & 0222 == 0) no open for writing, no resize, and writes through handles that are open already
 * fail with -EACCES; without any read bit the same for reading.  One exception, as POSIX has it: the
 * handle that created the region keeps the access it was opened with.  Who may do what among the
 * users of one client is that client's kernel's business (mode, uid, gid are stored for it).
 *
 * Versions.  Each open says whether others may have changed the bytes since a version that the opener
 * knew (POOL_OPEN, version): that is what close-to-open caching needs.  A session that has a region open
 * is told when another one has changed its bytes (struct pool, notify).
 *
 * Leases: one session writes.  The first open for writing takes the region's lease for its session; all
 * opens of that session share it, and the last close of a writing handle gives it back.  While it is
 * held, no other session opens the region for writing (-EBUSY) or changes its size (-EBUSY); to read, to
 * remove, to rename and to set the mode stay free to everybody, as with any open file: a name is not the
 * region, and chmod is how an administrator stops a writer.  Whoever opens with POOL_SHARED takes no
 * lease: several such writers may be there at once, but not beside a session that holds the lease, and
 * nobody gets the lease beside them.  A pin (POOL_PIN) refuses more, and takes the lease also where
 * POOL_SHARED is set.
 *
 * A lease ends with its session, or is taken away: when another session asks for it and its holder has
 * not been heard of for the pool's lease time, or has the same identity (core/lease.h).  From then on
 * WRITE, ZERO, ALLOC and POOL_SETATTR of the size through the handles that had it fail with -ENOLCK, for
 * ever; nothing that was sent through them before lands later: as long as something of theirs is in
 * flight the new asker gets -EBUSY.  Pins are not taken away.
 */
#ifndef REMRAM_CORE_POOL_H
#define REMRAM_CORE_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/store.h"
#include "core/workers.h"

struct pool;

enum {
	POOL_NAME_MAX = 255, /* bytes of a region's name: any but NUL and '/', not "." or ".." */
	POOL_XATTR_NAME_MAX = 255,
	POOL_XATTR_VALUE_MAX = 65536,
	POOL_LIST_MAX = 1 << 16, /* bytes of one POOL_LIST answer */
	POOL_HANDLE_MAX = 65536, /* handle numbers of one session are below this */
	POOL_HOLDER_MAX = 192, /* bytes of ret_holder, with its NUL */
	POOL_IDENTITY_LEN = 16, /* bytes that name a client over its lives; zeros: none */
};

enum pool_op {
	POOL_LOOKUP, /* name → attr */
	POOL_GETATTR, /* id → attr */
	POOL_SETATTR, /* id, set, attr, handle (0: none) → attr */
	POOL_CREATE, /* name, attr (mode, uid, gid), flags, handle → attr, ret_handle */
	POOL_OPEN, /* id, flags, handle, version → attr, ret_handle, ret_unchanged */
	POOL_CLOSE, /* handle; always succeeds */
	POOL_REMOVE, /* name */
	POOL_RENAME, /* name → new_name, flags */
	POOL_LIST, /* cookie → data, ret_len, ret_cookie */
	POOL_STATFS, /* → statfs */
	POOL_GETXATTR, /* id, name → data, ret_len */
	POOL_SETXATTR, /* id, name, data, len, flags */
	POOL_LISTXATTR, /* id → data, ret_len: names, each ended by NUL */
	POOL_REMOVEXATTR, /* id, name */
	POOL_OPS
};

enum pool_flag {
	POOL_READ = 1, /* OPEN, CREATE: the handle reads */
	POOL_WRITE = 2, /* OPEN, CREATE: the handle writes */
	POOL_EXCLUSIVE = 8, /* CREATE: -EEXIST if the name exists */
	POOL_NOREPLACE = 16, /* RENAME: -EEXIST if new_name exists */
	POOL_EXCHANGE = 32, /* RENAME: the two names swap their regions */
	POOL_PIN =
	    64, /* OPEN: while this handle is open nobody removes, renames, replaces or resizes
			  the region, and no other session opens it for writing (-EBUSY): a loop device or
			  swap uses it */
	POOL_XATTR_CREATE = 128, /* SETXATTR: -EEXIST if it exists */
	POOL_XATTR_REPLACE = 256, /* SETXATTR: -ENODATA if it does not */
	POOL_NO_OPEN = 512, /* CREATE: no handle wanted (mknod) */
	POOL_SHARED = 1024, /* OPEN, CREATE: writes beside other such writers, without the lease */
	POOL_REOPEN =
	    2048, /* OPEN: the handle was open before, at a donor that has forgotten it: -ENOLCK if
			       another session has changed the bytes since `version` */
};

/* Which members of pool_req.attr POOL_SETATTR sets. */
enum pool_set {
	POOL_SET_MODE = 1,
	POOL_SET_UID = 2,
	POOL_SET_GID = 4,
	POOL_SET_SIZE = 8,
	POOL_SET_ATIME = 16,
	POOL_SET_MTIME = 32,
	POOL_SET_CTIME = 64,
};

struct region_attr {
	uint64_t id; /* ≥ 2, never used again within a pool; also the FUSE node id */
	uint64_t size; /* bytes */
	uint64_t allocated; /* bytes that take up space at the donor */
	uint64_t version; /* changes when a session writes after another has looked */
	int64_t atime_ns, mtime_ns, ctime_ns; /* since the epoch */
	uint32_t mode; /* permission bits, 07777 */
	uint32_t uid, gid;
	uint32_t nlink; /* 1, or 0: removed but still open */
};

struct pool_statfs {
	uint64_t total, used, avail; /* bytes */
	uint64_t regions;
};

/* POOL_LIST's answer is a run of these, each followed by name_len bytes of name and padded with
 * zeros to a multiple of 8. */
struct pool_dirent {
	struct region_attr attr;
	uint64_t next_cookie; /* a list that goes on after this entry starts with it */
	uint32_t name_len;
	uint32_t pad;
};

/* An open region. */
struct handle {
	struct store store; /* reads beyond the region's size give zeros, writes extend it */
	uint64_t region_id;
	uint32_t number; /* within its session; ≥ 1 */
	unsigned flags; /* POOL_READ, POOL_WRITE, POOL_PIN, POOL_SHARED */
};

/* Another session has changed a region's bytes. */
struct pool_notice {
	uint64_t id; /* the region's */
	uint64_t version, size; /* as they were when the notice was given */
};

struct pool_session;
struct pool_req;
typedef void pool_done_fn(struct pool_req *req, int err);

struct pool_req {
	/* Set by the caller; borrowed until done. */
	enum pool_op op;
	unsigned flags; /* of enum pool_flag */
	unsigned set; /* of enum pool_set */
	uint64_t session; /* whose request this is: who holds leases and pins; ≠ 0 */
	struct pool_session *who; /* what is known of the session (core/lease.h); NULL: it lives as
				     long as this process */
	uint64_t id;
	const char *name; /* NUL-terminated region or xattr name */
	const char *new_name;
	struct handle
	    *handle; /* CLOSE: takes it; SETATTR: with it, what it was opened for is allowed */
	uint32_t number; /* OPEN, CREATE: handle->number wanted */
	uint64_t version; /* OPEN: what the opener has cached; 0: nothing; REOPEN: what it knew */
	uint64_t cookie; /* LIST: 0 to begin */
	void *data; /* LIST, xattrs: the caller's buffer */
	size_t len; /* its room (results) or length (SETXATTR) in bytes */
	pool_done_fn *done;

	/* Both ways. */
	struct region_attr attr;

	/* Results, valid in done when err is 0. */
	struct handle *ret_handle; /* open until POOL_CLOSE */
	bool ret_earlier; /* LOOKUP: attr is of a moment ago: to be kept for less than others */
	bool ret_unchanged; /* OPEN: nobody else changed the bytes since `version` */
	size_t ret_len; /* bytes in data; GETXATTR and LISTXATTR with len 0: bytes needed */
	uint64_t ret_cookie; /* LIST: where to go on; 0: that was all */
	struct pool_statfs statfs;
	/* Result when err is -EBUSY: who holds the lease or pin, for people; "": nobody in particular. */
	char ret_holder[POOL_HOLDER_MAX];

	/* For the pool that has the request now. */
	struct pool_req *next;
	struct loop *loop;
	void *owner;
	struct work work;
	int err;
};

struct pool_ops {
	const char *name;
	void (*submit)(struct pool *pool, struct pool_req *req);
	/* Optional: as store_ops.interrupt. */
	void (*interrupt)(struct pool *pool, struct pool_req *req);
	/* No handle is open, no request in flight.  May block. */
	void (*destroy)(struct pool *pool);
};

/* Embedded as the first member of each implementation's struct. */
struct pool {
	const struct pool_ops *ops;
	const char *name; /* for messages; constant */
	uint64_t size_max; /* bytes: no region can become larger */
	bool fixed; /* exactly one region: nothing can be created, removed or renamed */
	bool elsewhere; /* its bytes are at a server that its backend asks for each of them */
	uint32_t lease_ms; /* how long a session that is not heard of keeps its leases */
	/* Optional, set by the user of the pool before it opens anything: another session has changed the
	 * bytes of a region that is open here: what is cached of it may be old.  Of many changes at least
	 * the last one is told.  Runs on the pool's loop, outside of any request; must not block. */
	void (*notify)(void *ctx, const struct pool_notice *notice);
	void *notify_ctx;
};

/* Checks names (-EINVAL, -ENAMETOOLONG) and hands the request to the pool. */
void pool_submit(struct pool *pool, struct pool_req *req);
void pool_complete(struct pool_req *req, int err);
void pool_interrupt(struct pool *pool, struct pool_req *req);
void pool_destroy(struct pool *pool);

/* 0, or why `name` can't name a region: -EINVAL, -ENAMETOOLONG. */
int pool_check_name(const char *name, size_t len);

/* The errno with which an access (POOL_READ | POOL_WRITE) to a region of that mode is refused: 0 or
 * -EACCES. */
int pool_check_mode(uint32_t mode, unsigned access);

#endif
