/* SPDX-License-Identifier: Apache-2.0
 *
 * /dev/fuse: requests in, replies out (the kernel's Documentation/filesystems/fuse.rst and
 * <linux/fuse.h>).
 *
 * A request is read into the big buffer `in`.  What it says is copied into its struct fs_req, but for
 * WRITE and SETXATTR, which may be long: small ones are copied into a small buffer, the others keep the
 * buffer that they were read into, and another one is got to read on.  A request that wants a buffer for
 * its answer (READ, READDIR, …) while all are out waits in a list of its own (FS_PARK), in order.
 *
 * Interrupts must be readable while the donor is away, or a waiting process could not be killed.  So
 * reading goes on while anything is left to read into: requests that only wait hold no buffer, and after a
 * second without one, reading uses spare ones, which READs do not get.  The kernel hands INTERRUPTs out
 * before all else, and one for a request in the list ends it at once.  Reading stops when FS_REQS requests
 * or all buffers' worth of WRITEs are in flight.
 *
 * Invariants:
 *   1. fs->in is NULL or owned, and holds no request except during dispatch.
 *   2. While fs->stopped the device is not watched; whatever ends a request then defers go_on.
 *   3. A request in fs->waiting is in flight and has no buffer.
 *   4. After the end of the mount its handles are closed only when no request is in flight that may use
 *      them, or is about to open one more.
 *   5. Each request read from the device is answered exactly once, or is one that wants no answer
 *      (FORGET, INTERRUPT).
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "fuse/fs_int.h"

/* Where a request begins in the device buffer: so that the data of a WRITE begins on a page, as it does
 * in the process that writes.  The kernel copies page by page; otherwise each copy would be two. */
enum { IN_OFFSET = 4096 - sizeof(struct fuse_in_header) - sizeof(struct fuse_write_in) };

/* How long reading stops before it uses spare buffers. */
enum { STARVED_NS = 1000000000 };

/* ---- memory ---- */

static void *big_get(struct fs *fs, unsigned limit)
{
	void *buf = fs->big_out < limit ? bufpool_get(fs->big) : NULL;

	if (buf)
		fs->big_out++;
	return buf;
}

static unsigned spare_buffers(const struct fs *fs)
{
	return fs->conf.touch ? FS_BIG_SPARE_TOUCHED : FS_BIG_SPARE;
}

static void buffer_put(struct fs *fs, struct bufpool *bufs, void *buf)
{
	bufpool_put(bufs, buf);
	if (bufs == fs->big) {
		fs->big_out--;
		if (fs->big_limit > FS_BIG_COUNT && fs->big_out < FS_BIG_COUNT / 2) {
			fs->big_limit = FS_BIG_COUNT;
			if (!fs->conf.touch)
				bufpool_trim(fs->big);
		}
	}
}

bool fs_req_buffer(struct fs_req *req, size_t len)
{
	struct fs *fs = req->fs;

	assert(!req->buf);
	req->bufs = fs->small;
	req->buf = len <= FS_SMALL ? bufpool_get(fs->small) : NULL;
	if (req->buf)
		return true;
	req->bufs = fs->big;
	req->buf = big_get(fs, FS_BIG_COUNT - !fs->in); /* one is left to read into */
	return req->buf;
}

void *fs_req_keep(struct fs_req *req, const void *data, size_t len)
{
	struct fs *fs = req->fs;

	assert(!req->buf);
	req->bufs = fs->small;
	req->buf = len <= FS_SMALL ? bufpool_get(fs->small) : NULL;
	if (req->buf)
		return memcpy(req->buf, data, len);
	req->bufs = fs->big;
	req->buf = fs->in;
	fs->in = NULL;
	return (void *)(uintptr_t)data;
}

static bool can_read(struct fs *fs)
{
	if (!fs->in)
		fs->in = big_get(fs, fs->big_limit);
	return fs->in && fs->free_reqs;
}

/* Until memory is back. */
static void stop_reading(struct fs *fs)
{
	fs->stopped = true;
	loop_fd_set(&fs->dev, 0);
	if (fs->big_limit == FS_BIG_COUNT)
		loop_timer_set(fs->loop, &fs->starved, loop_now_ns() + STARVED_NS);
}

static void starved(struct loop_timer *timer)
{
	struct fs *fs = (struct fs *)((char *)timer - offsetof(struct fs, starved));

	fs->big_limit = FS_BIG_COUNT + spare_buffers(fs);
	loop_defer(fs->loop, &fs->go_on);
}

/* ---- requests ---- */

struct fs_req *fs_req_get(struct fs *fs)
{
	struct fs_req *req = fs->free_reqs;

	if (!req)
		return NULL;
	fs->free_reqs = req->next;
	req->prev = NULL;
	req->next = fs->first;
	if (req->next)
		req->next->prev = req;
	fs->first = req;
	fs->in_flight++;
	return req;
}

void fs_req_end(struct fs_req *req)
{
	struct fs *fs = req->fs;

	if (req->buf)
		buffer_put(fs, req->bufs, req->buf);
	req->buf = NULL;
	*(req->prev ? &req->prev->next : &fs->first) = req->next;
	if (req->next)
		req->next->prev = req->prev;
	req->next = fs->free_reqs;
	fs->free_reqs = req;
	fs->in_flight--;
	if (fs->stopped || fs->waiting || fs->gone)
		loop_defer(fs->loop, &fs->go_on);
}

static void wait_add(struct fs *fs, struct fs_req *req)
{
	req->wait_next = NULL;
	*fs->waiting_end = req;
	fs->waiting_end = &req->wait_next;
}

/* False: it does not wait. */
static bool wait_remove(struct fs *fs, struct fs_req *req)
{
	struct fs_req **link = &fs->waiting;

	while (*link && *link != req)
		link = &(*link)->wait_next;
	if (!*link)
		return false;
	*link = req->wait_next;
	if (!*link)
		fs->waiting_end = link;
	return true;
}

/* ---- replies ---- */

static void write_reply(struct fs *fs, uint64_t unique, int err, const void *data, size_t len)
{
	struct fuse_out_header out = {
	    .len = (uint32_t)(sizeof(out) + len),
	    .error = err,
	    .unique = unique,
	};
	struct iovec iov[2] = {
	    {&out, sizeof(out)},
	    {(void *)(uintptr_t)data, len},
	};

	/* ENOENT: the kernel does not wait any more. Everything else would be a reply out of form. */
	if (writev(fs->dev.fd, iov, len ? 2 : 1) < 0 && errno != ENOENT && errno != ENODEV)
		log_error("/dev/fuse refuses a reply: %s", strerror(errno));
}

void fs_answer(struct fs_req *req, int err, const void *data, size_t len)
{
	if (req->answered)
		return;
	req->answered = true;
	write_reply(req->fs, req->unique, err, data, len);
}

/* Empties the reply pipe of what the kernel did not take. */
static void drop_piped(struct fs *fs)
{
	uint8_t left[4096];

	while (read(fs->pipe[0], left, sizeof(left)) > 0)
		;
}

/* The header goes ahead of the bytes, which move from pipe to pipe and are copied once, by the kernel,
 * to where they were asked for. */
void fs_answer_piped(struct fs_req *req, int pipe, size_t len)
{
	struct fs *fs = req->fs;
	struct fuse_out_header out = {.len = (uint32_t)(sizeof(out) + len), .unique = req->unique};
	size_t moved = 0;
	ssize_t n;

	if (req->answered)
		return;
	n = write(fs->pipe[1], &out, sizeof(out));
	while (n > 0 && moved < len) {
		n = splice(
		    pipe, NULL, fs->pipe[1], NULL, len - moved, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
		moved += n > 0 ? (size_t)n : 0;
	}
	if (n > 0) {
		req->answered = true;
		n = splice(fs->pipe[0], NULL, fs->dev.fd, NULL, out.len, 0);
		if (n != (ssize_t)out.len && errno != ENOENT && errno != ENODEV)
			log_error("/dev/fuse refuses a reply: %s", strerror(errno));
	} else {
		fs_answer(req, -EIO, NULL, 0);
	}
	if (n != (ssize_t)out.len)
		drop_piped(fs);
}

void fs_reply_err(struct fs_req *req, int err)
{
	fs_answer(req, err, NULL, 0);
	fs_req_end(req);
}

void fs_reply(struct fs_req *req, const void *data, size_t len)
{
	fs_answer(req, 0, data, len);
	fs_req_end(req);
}

/* ---- requests that need no memory ---- */

static void interrupt(struct fs *fs, const struct fuse_interrupt_in *in)
{
	struct fs_req *req = fs->first;

	while (req && (req->unique != in->unique || req->answered))
		req = req->next;
	if (!req)
		return;
	req->interrupted = true;
	if (wait_remove(fs, req))
		fs_reply_err(req, -EINTR);
	else if (req->sreq.store)
		store_interrupt(&req->sreq);
	else
		pool_interrupt(fs->pool, &req->preq);
}

static void batch_forget(struct fs *fs, const struct fuse_batch_forget_in *in, size_t len)
{
	const struct fuse_forget_one *one = (const struct fuse_forget_one *)(in + 1);
	size_t room = (len - sizeof(*in)) / sizeof(*one);

	for (size_t i = 0; i < in->count && i < room; i++)
		fs_node_forget(fs, one[i].nodeid, one[i].nlookup);
}

/* True if the request was one of those. */
static bool handle_silent(struct fs *fs, const struct fuse_in_header *h)
{
	const void *arg = h + 1;
	size_t len = h->len - sizeof(*h);

	switch (h->opcode) {
	case FUSE_FORGET:
		if (len >= sizeof(struct fuse_forget_in))
			fs_node_forget(
			    fs, h->nodeid, ((const struct fuse_forget_in *)arg)->nlookup);
		return true;
	case FUSE_BATCH_FORGET:
		if (len >= sizeof(struct fuse_batch_forget_in))
			batch_forget(fs, arg, len);
		return true;
	case FUSE_INTERRUPT:
		if (len >= sizeof(struct fuse_interrupt_in))
			interrupt(fs, arg);
		return true;
	default:
		return false;
	}
}

/* ---- dispatch ---- */

/* May what it says be longer than FS_ARGS? */
static bool is_long(uint32_t opcode)
{
	return opcode == FUSE_WRITE || opcode == FUSE_SETXATTR;
}

/* A constant answer: err if there is no handler. */
static const struct {
	fs_handler *handler;
	size_t arg_len; /* at least so many bytes follow the header */
	int err;
} operations[] = {
    [FUSE_LOOKUP] = {fs_lookup, 2, 0},
    [FUSE_GETATTR] = {fs_getattr, sizeof(struct fuse_getattr_in), 0},
    [FUSE_SETATTR] = {fs_setattr, sizeof(struct fuse_setattr_in), 0},
    [FUSE_READLINK] = {NULL, 0, -EINVAL},
    [FUSE_SYMLINK] = {NULL, 0, -EPERM},
    [FUSE_MKNOD] = {fs_mknod, sizeof(struct fuse_mknod_in) + 2, 0},
    [FUSE_MKDIR] = {NULL, 0, -EPERM},
    [FUSE_UNLINK] = {fs_unlink, 2, 0},
    [FUSE_RMDIR] = {NULL, 0, -ENOTDIR},
    [FUSE_RENAME] = {fs_rename, sizeof(struct fuse_rename_in) + 4, 0},
    [FUSE_LINK] = {NULL, 0, -EPERM},
    [FUSE_OPEN] = {fs_open, sizeof(struct fuse_open_in), 0},
    [FUSE_READ] = {fs_read, sizeof(struct fuse_read_in), 0},
    [FUSE_WRITE] = {fs_write, sizeof(struct fuse_write_in), 0},
    [FUSE_STATFS] = {fs_statfs, 0, 0},
    [FUSE_RELEASE] = {fs_release, sizeof(struct fuse_release_in), 0},
    [FUSE_FSYNC] = {fs_fsync, sizeof(struct fuse_fsync_in), 0},
    [FUSE_SETXATTR] = {fs_setxattr, FUSE_COMPAT_SETXATTR_IN_SIZE + 2, 0},
    [FUSE_GETXATTR] = {fs_getxattr, sizeof(struct fuse_getxattr_in) + 2, 0},
    [FUSE_LISTXATTR] = {fs_listxattr, sizeof(struct fuse_getxattr_in), 0},
    [FUSE_REMOVEXATTR] = {fs_removexattr, 2, 0},
    [FUSE_INIT] = {fs_init, 8, 0},
    [FUSE_OPENDIR] = {fs_opendir, 0, 0},
    [FUSE_READDIR] = {fs_readdir, sizeof(struct fuse_read_in), 0},
    [FUSE_RELEASEDIR] = {NULL, 0, 0},
    [FUSE_FSYNCDIR] = {NULL, 0, 0},
    [FUSE_CREATE] = {fs_create_file, sizeof(struct fuse_create_in) + 2, 0},
    [FUSE_DESTROY] = {NULL, 0, 0},
    [FUSE_IOCTL] = {NULL, 0, -ENOTTY},
    [FUSE_FALLOCATE] = {fs_fallocate, sizeof(struct fuse_fallocate_in), 0},
    [FUSE_READDIRPLUS] = {fs_readdir, sizeof(struct fuse_read_in), 0},
    [FUSE_RENAME2] = {fs_rename2, sizeof(struct fuse_rename2_in) + 4, 0},
    [FUSE_LSEEK] = {fs_lseek, sizeof(struct fuse_lseek_in), 0},
    /* FLUSH: dirty pages are written before the kernel would send it, and a write that was answered
     * is at the donor: ENOSYS stops the kernel from asking. */
    [FUSE_FLUSH] = {NULL, 0, -ENOSYS},
};

/* False: it was answered. */
static bool check_request(struct fs *fs, const struct fuse_in_header *h)
{
	size_t count = sizeof(operations) / sizeof(operations[0]), len = h->len - sizeof(*h);
	bool known =
	    h->opcode < count && (operations[h->opcode].handler || operations[h->opcode].err ||
				     h->opcode == FUSE_RELEASEDIR || h->opcode == FUSE_FSYNCDIR ||
				     h->opcode == FUSE_DESTROY);

	if (!known || !operations[h->opcode].handler)
		write_reply(fs, h->unique, known ? operations[h->opcode].err : -ENOSYS, NULL, 0);
	else if (len < operations[h->opcode].arg_len)
		write_reply(fs, h->unique, -EINVAL, NULL, 0);
	else if (len > FS_ARGS && !is_long(h->opcode))
		write_reply(fs, h->unique, -ENAMETOOLONG, NULL, 0);
	else
		return true;
	return false;
}

static void handle(struct fs_req *req)
{
	if (operations[req->opcode].handler(req) == FS_PARK)
		wait_add(req->fs, req);
}

/* Hands the request of n bytes in fs->in to its handler. */
static void dispatch(struct fs *fs, size_t n)
{
	const struct fuse_in_header *h = (const struct fuse_in_header *)(fs->in + IN_OFFSET);
	struct fs_req *req;

	if (n < sizeof(*h) || h->len != n || handle_silent(fs, h) || !check_request(fs, h))
		return;
	req = fs_req_get(fs);
	req->unique = h->unique;
	req->nodeid = h->nodeid;
	req->opcode = h->opcode;
	req->uid = h->uid;
	req->gid = h->gid;
	req->interrupted = false;
	req->answered = false;
	req->in_len = n - sizeof(*h);
	req->in =
	    is_long(h->opcode) ? (const void *)(h + 1) : memcpy(req->args, h + 1, req->in_len);
	req->handle = NULL;
	req->node = NULL;
	req->sreq.store = NULL;
	req->tries = 0;
	handle(req);
}

static void device_gone(struct fs *fs, int err)
{
	fs->gone = true;
	loop_fd_del(&fs->dev);
	loop_timer_cancel(&fs->starved);
	while (fs->waiting) {
		struct fs_req *req = fs->waiting;

		wait_remove(fs, req);
		req->answered = true;
		fs_req_end(req);
	}
	loop_defer(fs->loop, &fs->go_on);
	fs->conf.gone(fs->conf.ctx, err);
}

/* Reads one request; false: nothing more now. */
static bool read_one(struct fs *fs)
{
	ssize_t n;

	if (!can_read(fs)) {
		stop_reading(fs);
		return false;
	}
	n = read(fs->dev.fd, fs->in + IN_OFFSET, FS_IN_MAX - IN_OFFSET);
	if (n < 0) {
		if (errno == EINTR || errno == ENOENT) /* ENOENT: interrupted before it was read */
			return true;
		if (errno != EAGAIN)
			device_gone(fs, errno == ENODEV ? 0 : -errno);
		return false;
	}
	fs->requests++;
	dispatch(fs, (size_t)n);
	return true;
}

static void read_device(struct fs *fs)
{
	for (unsigned i = 0; i < FS_BATCH && !fs->gone && read_one(fs); i++)
		;
}

static void dev_ready(struct loop_fd *lfd, uint32_t events)
{
	read_device((struct fs *)((char *)lfd - offsetof(struct fs, dev)));
}

/* Those that wait, in their order, as far as memory goes. */
static void handle_waiting(struct fs *fs)
{
	struct fs_req *req = fs->waiting;

	while (req) {
		wait_remove(fs, req);
		if (operations[req->opcode].handler(req) == FS_PARK) {
			req->wait_next = fs->waiting;
			if (!fs->waiting)
				fs->waiting_end = &req->wait_next;
			fs->waiting = req;
			return;
		}
		req = fs->waiting;
	}
}

/* Memory came back while reading was stopped or requests wait for some; or the mount has ended: what is
 * open is closed once nothing uses it any more. */
static void go_on(struct loop_task *task)
{
	struct fs *fs = (struct fs *)((char *)task - offsetof(struct fs, go_on));

	if (fs->gone) {
		if (fs->in_flight == 0)
			fs_close_all(fs);
		return;
	}
	if (fs->stopped && can_read(fs)) {
		fs->stopped = false;
		loop_timer_cancel(&fs->starved);
		loop_fd_set(&fs->dev, EPOLLIN);
	}
	handle_waiting(fs);
}

/* ---- life ---- */

static int allocate(struct fs *fs, struct err *err)
{
	unsigned big = FS_BIG_COUNT + spare_buffers(fs);
	int rc = bufpool_create(FS_SMALL, FS_SMALL_COUNT, fs->conf.touch, &fs->small, err);

	if (rc == 0)
		rc = bufpool_create(FS_IN_MAX, big, fs->conf.touch, &fs->big, err);
	if (rc)
		return rc;
	fs->reqs = calloc(FS_REQS, sizeof(fs->reqs[0]));
	fs->handles = calloc(64, sizeof(fs->handles[0]));
	if (!fs->reqs || !fs->handles)
		return err_set(err, -ENOMEM, "out of memory for requests");
	fs->handle_room = 64;
	fs->handle_hint = 1;
	for (unsigned i = FS_REQS; i-- > 0;) {
		fs->reqs[i].fs = fs;
		fs->reqs[i].next = fs->free_reqs;
		fs->free_reqs = &fs->reqs[i];
	}
	fs->big_limit = FS_BIG_COUNT;
	if (pipe2(fs->pipe, O_CLOEXEC | O_NONBLOCK))
		return err_sys(err, -errno, "cannot make a pipe");
	/* A process that is short of pipes gets a small one. */
	fs->piped = fcntl(fs->pipe[0], F_SETPIPE_SZ, FS_PIPE) >= FS_PIPE;
	return 0;
}

int fs_create(
    struct loop *loop, int fd, const struct fs_conf *conf, struct fs **ret_fs, struct err *err)
{
	struct fs *fs = calloc(1, sizeof(*fs));
	int rc;

	if (!fs)
		return err_set(err, -ENOMEM, "out of memory for a mount");
	fs->loop = loop;
	fs->conf = *conf;
	fs->pool = conf->pool;
	fs->root_mode = conf->read_only ? 0555 : 0755;
	fs->root_ns = (int64_t)time(NULL) * 1000000000;
	fs->dev.fd = fd;
	fs->dev.ready = dev_ready;
	fs->pipe[0] = fs->pipe[1] = -1;
	fs->waiting_end = &fs->waiting;
	fs->starved.expired = starved;
	fs->go_on.run = go_on;
	rc = allocate(fs, err);
	if (rc == 0)
		rc = fs_lease_init(fs, err);
	if (rc == 0) {
		rc = loop_fd_add(loop, &fs->dev, EPOLLIN);
		if (rc)
			err_sys(err, rc, "cannot watch /dev/fuse");
	}
	if (rc) {
		fs->gone = true;
		fs_destroy(fs);
		return rc;
	}
	*ret_fs = fs;
	return 0;
}

bool fs_idle(const struct fs *fs)
{
	return fs->in_flight == 0 && !fs_any_open(fs) && !fs->dropping;
}

void fs_destroy(struct fs *fs)
{
	if (!fs)
		return;
	assert(fs->gone && fs->in_flight == 0);
	if (fs->in)
		buffer_put(fs, fs->big, fs->in);
	fs_lease_fini(fs);
	fs_node_drop_all(fs);
	for (unsigned i = 0; i < 2; i++)
		if (fs->pipe[i] >= 0)
			close(fs->pipe[i]);
	bufpool_destroy(fs->small);
	bufpool_destroy(fs->big);
	free(fs->reqs);
	free(fs->handles);
	free(fs);
}

void fs_get_stats(const struct fs *fs, struct fs_stats *ret_stats)
{
	*ret_stats = (struct fs_stats){fs->requests, fs->in_flight, fs->node_count};
}
