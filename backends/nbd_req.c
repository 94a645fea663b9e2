/* SPDX-License-Identifier: Apache-2.0
 *
 * A store that is an NBD export: requests become jobs, jobs become commands.
 *
 * A request's states, and who moves them:
 *   waiting  no job was free
 *   blocked  another writer has a block that it cuts (nbd_edge.c)
 *   ready    its job has commands to make: in the ready list, until all of them are made (make_cmd)
 *   at the server   job->cmds > 0: commands on links, or in the replay list of those whose link was lost
 *   done     the last command of the last stage is answered, or the first error's others are
 * A job goes through its stages (enum nbd_stage); most have one stage with one command.
 *
 * A command is issued when the round's events are handled (issue_task): so all that a round has brought goes
 * out together.  libnbd writes each to its socket at once; a TCP socket is corked meanwhile, so that they
 * leave in one segment.  One connection gets a whole batch unless it is large.
 *
 * Invariants:
 *   1. A command stands in exactly one list: its link's, replay, done, or free.
 *   2. job->cmds counts those that are not free; done runs when it is 0 and the job is not ready.
 *   3. No member of libnbd is called from a completion callback (it holds the handle's lock): those only
 *      move the command to the done list; nbd_req_reap does the rest, without any lock.
 * Failure: an error of the server ends the request with that error.  A lost connection ends nothing: its
 * commands are sent again, by another link or when there is one.  NBD has no sessions: a server that still
 * works on a lost connection's write while its repetition has been answered could do it once more, after
 * a later write of the same bytes.
 *
 * Allocation: libnbd allocates one struct of 112 bytes for each command (version 1.14); this side nothing.
 */
#include "backends/nbd_int.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Commands that one link has before the next one helps: fewer make more connections work for the same
 * requests, which costs both sides; more let a server that has a thread per connection wait. */
enum { FILL = 16 };
enum { REPLY_LEN = 16 }; /* bytes of a simple reply's header */

int nbd_req_refuses(const struct nbd_store *ns)
{
	return atomic_load_explicit(&ns->failed, memory_order_relaxed) ||
		       atomic_load_explicit(&ns->soft_expired, memory_order_relaxed)
		   ? -EIO
		   : 0;
}

/* ---- commands ---- */

static struct nbd_cmd *cmd_get(struct nbd_store *ns, struct nbd_job *job)
{
	struct nbd_cmd *cmd = ns->free_cmds;

	ns->free_cmds = cmd->next;
	*cmd = (struct nbd_cmd){.job = job, .op = job->req->op, .off = job->pos};
	job->cmds++;
	return cmd;
}

static void cmd_put(struct nbd_store *ns, struct nbd_cmd *cmd)
{
	cmd->job->cmds--;
	cmd->next = ns->free_cmds;
	ns->free_cmds = cmd;
}

static void link_take(struct nbd_link *link, struct nbd_cmd *cmd)
{
	cmd->link = link;
	cmd->next = NULL;
	cmd->prev = link->last;
	*(link->last ? &link->last->next : &link->first) = cmd;
	link->last = cmd;
	link->cmds++;
}

static void link_drop(struct nbd_cmd *cmd)
{
	struct nbd_link *link = cmd->link;

	assert(link);
	*(cmd->prev ? &cmd->prev->next : &link->first) = cmd->next;
	*(cmd->next ? &cmd->next->prev : &link->last) = cmd->prev;
	link->cmds--;
	cmd->link = NULL;
}

static void done_add(struct nbd_store *ns, struct nbd_cmd *cmd)
{
	cmd->next = NULL;
	*ns->done_tail = cmd;
	ns->done_tail = &cmd->next;
}

static void replay_add(struct nbd_store *ns, struct nbd_cmd *cmd)
{
	cmd->next = NULL;
	*ns->replay_tail = cmd;
	ns->replay_tail = &cmd->next;
}

/* libnbd's callback: the command is answered, or its connection has ended (ENOTCONN). */
static int cmd_answered(void *user_data, int *error)
{
	struct nbd_cmd *cmd = user_data;
	struct nbd_link *link = cmd->link;

	if (!link || link->closing)
		return 1;
	cmd->err = -*error;
	if (*error == ESHUTDOWN)
		link->leaving = true;
	else if (*error != ENOTCONN)
		link->served = true;
	link->replies++;
	link->reply_bytes += REPLY_LEN + (cmd->op == STORE_READ && !*error ? cmd->len : 0);
	link_drop(cmd);
	done_add(link->ns, cmd);
	return 1;
}

/* ---- extents ---- */

/* Adds [pos, end) to the request's answer; false: no room. */
static bool extent_add(struct nbd_job *job, uint64_t end, uint32_t flags)
{
	struct store_req *req = job->req;
	struct extent *last = req->ret_extents ? &req->extents[req->ret_extents - 1] : NULL;

	assert(req->extents);
	if (last && last->flags == flags)
		last->len += end - job->pos;
	else if (req->ret_extents == req->extents_max)
		return false;
	else
		req->extents[req->ret_extents++] = (struct extent){job->pos, end - job->pos, flags};
	job->pos = end;
	return true;
}

static int extents_answered(
    void *user_data, const char *context, uint64_t off, uint32_t *entries, size_t count, int *error)
{
	struct nbd_cmd *cmd = user_data;
	struct nbd_job *job = cmd->job;

	if (!cmd->link || cmd->link->closing ||
	    strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
		return 0;
	for (size_t i = 0; i + 1 < count && job->pos < job->end; i += 2) {
		uint64_t end = off + entries[i];
		bool hole = (entries[i + 1] & (LIBNBD_STATE_HOLE | LIBNBD_STATE_ZERO)) ==
			    (LIBNBD_STATE_HOLE | LIBNBD_STATE_ZERO);

		off = end;
		if (end <= job->pos)
			continue;
		if (!extent_add(job, end < job->end ? end : job->end, hole ? EXTENT_HOLE : 0))
			job->end = job->pos;
	}
	return 0;
}

/* ---- issuing ---- */

/* The next command of the job's middle part. */
static void middle_cmd(struct nbd_store *ns, struct nbd_job *job, struct nbd_cmd *cmd)
{
	struct store_req *req = job->req;
	uint64_t left = job->end - job->pos, most = ns->features.max_len;
	bool zero = cmd->op == STORE_ZERO && ns->features.zero;

	if (zero || cmd->op == STORE_EXTENTS)
		most = NBD_RANGE_MAX;
	cmd->len = left < most ? left : most;
	if (cmd->op == STORE_EXTENTS) {
		/* Whole blocks are asked for; where to go on is up to the answer. */
		job->lo = job->pos;
		cmd->off = job->pos & ~(uint64_t)(ns->features.align - 1);
		cmd->len = (job->pos + cmd->len - cmd->off + ns->features.align - 1) &
			   ~(uint64_t)(ns->features.align - 1);
		return;
	}
	if (cmd->op == STORE_ZERO && !zero) {
		cmd->op = STORE_WRITE;
		cmd->buf = (void *)(uintptr_t)store_zeros;
	} else if (!zero) {
		cmd->buf = (uint8_t *)req->buf + (job->pos - req->off);
	}
	if (zero && req->flags & STORE_KEEP)
		cmd->flags |= LIBNBD_CMD_FLAG_NO_HOLE;
	job->pos += cmd->len;
}

/* The job's next command, or NULL: it has none to make now. */
static struct nbd_cmd *make_cmd(struct nbd_store *ns, struct nbd_job *job)
{
	bool fua = job->req->flags & STORE_FUA && ns->features.fua;
	struct nbd_cmd *cmd;

	if (job->edges) {
		cmd = cmd_get(ns, job);
		nbd_edge_cmd(ns, job, cmd);
	} else if (job->stage == JOB_MAIN && job->pos < job->end) {
		cmd = cmd_get(ns, job);
		middle_cmd(ns, job, cmd);
	} else if (job->flush_wanted) {
		job->flush_wanted = false;
		cmd = cmd_get(ns, job);
		cmd->op = STORE_FLUSH;
	} else {
		return NULL;
	}
	if (fua && (cmd->op == STORE_WRITE || cmd->op == STORE_ZERO))
		cmd->flags |= LIBNBD_CMD_FLAG_FUA;
	return cmd;
}

static int64_t call_libnbd(struct nbd_handle *handle, struct nbd_cmd *cmd)
{
	nbd_completion_callback done = {.callback = cmd_answered, .user_data = cmd};
	nbd_extent_callback extent = {.callback = extents_answered, .user_data = cmd};

	switch (cmd->op) {
	case STORE_READ:
		return libnbd.aio_pread(handle, cmd->buf, cmd->len, cmd->off, done, cmd->flags);
	case STORE_WRITE:
		return libnbd.aio_pwrite(handle, cmd->buf, cmd->len, cmd->off, done, cmd->flags);
	case STORE_ZERO:
		return libnbd.aio_zero(handle, cmd->len, cmd->off, done, cmd->flags);
	case STORE_EXTENTS:
		return libnbd.aio_block_status(
		    handle, cmd->len, cmd->off, extent, done, cmd->flags);
	default:
		return libnbd.aio_flush(handle, done, cmd->flags);
	}
}

static void cmd_issue(struct nbd_link *link, struct nbd_cmd *cmd)
{
	link_take(link, cmd);
	/* Where it fails there was no callback: the connection has ended, or memory is out. */
	if (call_libnbd(link->handle, cmd) == -1 && cmd->link) {
		int code = libnbd.get_errno();

		link_drop(cmd);
		cmd->err = libnbd.aio_is_dead(link->handle) || libnbd.aio_is_closed(link->handle)
			       ? -ENOTCONN
			       : (code ? -code : -EIO);
		done_add(link->ns, cmd);
	}
}

/* Whether the job has more commands to make when the one it has made is out. */
static bool has_more(const struct nbd_job *job)
{
	return job->edges || (job->stage == JOB_MAIN && job->pos < job->end);
}

static void ready_pop(struct nbd_job **list, struct nbd_job ***tail)
{
	struct nbd_job *job = *list;

	*list = job->next;
	if (!*list)
		*tail = list;
	job->ready = false;
}

/* The next command for this link: those of lost links first. */
static struct nbd_cmd *next_cmd(struct nbd_store *ns, const struct nbd_link *link)
{
	struct nbd_cmd *cmd = ns->replay;

	if (cmd) {
		ns->replay = cmd->next;
		if (!ns->replay)
			ns->replay_tail = &ns->replay;
		return cmd;
	}
	if (ns->maps && link == &ns->links[0] && ns->free_cmds) {
		/* One at a time: where to go on is up to the answer. */
		cmd = make_cmd(ns, ns->maps);
		ready_pop(&ns->maps, &ns->maps_tail);
		return cmd;
	}
	while (ns->ready && ns->free_cmds) {
		struct nbd_job *job = ns->ready;

		cmd = make_cmd(ns, job);
		/* Out of the list as soon as it has no more: it may be done before the next round. */
		if (!cmd || !has_more(job))
			ready_pop(&ns->ready, &ns->ready_tail);
		if (cmd)
			return cmd;
	}
	return NULL;
}

/* The link that gets what comes next: the first that has little to do, the plain ones before links[0]; else
 * the one that has least. */
static struct nbd_link *pick_link(struct nbd_store *ns)
{
	struct nbd_link *best = NULL;

	if (ns->maps && ns->links[0].handle)
		return &ns->links[0];
	for (unsigned i = 1; i <= ns->link_count; i++) {
		struct nbd_link *link = &ns->links[i % ns->link_count];

		if (!link->handle || link->cmds >= NBD_LINK_CMDS)
			continue;
		if (link->cmds < FILL)
			return link;
		if (!best || link->cmds < best->cmds)
			best = link;
	}
	return best;
}

static void cork(struct nbd_link *link, int on)
{
	if (!link->no_cork)
		setsockopt(link->lfd.fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on));
}

/* Sends a part of what there is through one link; false: nothing is left, or nobody takes it. */
static bool issue_batch(struct nbd_store *ns)
{
	struct nbd_link *link = pick_link(ns);
	struct nbd_cmd *cmd = link ? next_cmd(ns, link) : NULL;
	bool corked = ns->ready || ns->replay;

	if (!cmd)
		return false;
	if (corked)
		cork(link, 1);
	for (unsigned n = 1; cmd; n++) {
		cmd_issue(link, cmd);
		cmd = n < FILL && link->cmds < NBD_LINK_CMDS ? next_cmd(ns, link) : NULL;
	}
	if (corked)
		cork(link, 0);
	nbd_link_check(link);
	return true;
}

static void issue_run(struct loop_task *task)
{
	struct nbd_store *ns =
	    (struct nbd_store *)((char *)task - offsetof(struct nbd_store, issue_task));

	while (ns->up_count && issue_batch(ns))
		;
	nbd_req_reap(ns);
}

void nbd_req_kick(struct nbd_store *ns)
{
	if (ns->up_count && (ns->ready || ns->maps || ns->replay))
		loop_defer(atomic_load_explicit(&ns->owner, memory_order_relaxed), &ns->issue_task);
}

void nbd_job_ready(struct nbd_store *ns, struct nbd_job *job)
{
	struct nbd_job ***tail = job->req->op == STORE_EXTENTS ? &ns->maps_tail : &ns->ready_tail;

	assert(!job->ready);
	job->ready = true;
	job->next = NULL;
	**tail = job;
	*tail = &job->next;
	nbd_req_kick(ns);
}

static void unready(struct nbd_store *ns, struct nbd_job *job)
{
	bool map = job->req->op == STORE_EXTENTS;
	struct nbd_job **at = map ? &ns->maps : &ns->ready;

	if (!job->ready)
		return;
	while (*at != job)
		at = &(*at)->next;
	*at = job->next;
	if (!*at)
		*(map ? &ns->maps_tail : &ns->ready_tail) = at;
	job->ready = false;
}

/* ---- jobs ---- */

static void job_start(struct nbd_store *ns, struct store_req *req)
{
	struct nbd_job *job = ns->free_jobs;

	ns->free_jobs = job->next;
	*job = (struct nbd_job){.req = req, .pos = req->off, .end = req->off + req->len};
	atomic_store_explicit(&ns->in_flight,
	    atomic_load_explicit(&ns->in_flight, memory_order_relaxed) + 1, memory_order_relaxed);
	if (req->op == STORE_FLUSH)
		job->flush_wanted = true;
	if (req->op == STORE_EXTENTS)
		req->ret_extents = 0;
	if (ns->features.align == 1 || nbd_edge_begin(ns, job))
		nbd_job_ready(ns, job);
}

/* Jobs became free: those who wait move up. */
static void start_waiting(struct nbd_store *ns)
{
	while (ns->waiting && ns->free_jobs) {
		struct store_req *req = ns->waiting;

		ns->waiting = req->next;
		if (!ns->waiting)
			ns->waiting_tail = &ns->waiting;
		job_start(ns, req);
	}
}

static void job_end(struct nbd_store *ns, struct nbd_job *job, int err)
{
	struct store_req *req = job->req;

	if (job->interrupted)
		ns->interrupted--;
	if (ns->features.align > 1)
		nbd_edge_end(ns, job);
	job->req = NULL;
	job->next = ns->free_jobs;
	ns->free_jobs = job;
	atomic_store_explicit(&ns->in_flight,
	    atomic_load_explicit(&ns->in_flight, memory_order_relaxed) - 1, memory_order_relaxed);
	if (err == 0 && (req->op == STORE_WRITE || req->op == STORE_ZERO))
		ns->acked_writes = true;
	else if (err == 0 && req->op == STORE_FLUSH)
		ns->acked_writes = false;
	store_complete(req, err);
}

/* All commands that it has made are answered: what comes next? */
static void job_step(struct nbd_store *ns, struct nbd_job *job)
{
	struct store_req *req = job->req;

	if (job->err) {
		job_end(ns, job, job->err);
		return;
	}
	if (req->op == STORE_EXTENTS && job->pos < job->end) {
		nbd_job_ready(ns, job);
		return;
	}
	if (job->edge && job->stage == JOB_MAIN) {
		job->stage = JOB_EDGES;
		if (nbd_edge_patch(ns, job)) {
			nbd_job_ready(ns, job);
			return;
		}
	}
	if (req->flags & STORE_FUA && !ns->features.fua && ns->features.flush &&
	    job->stage != JOB_STABLE && (req->op == STORE_WRITE || req->op == STORE_ZERO)) {
		job->stage = JOB_STABLE;
		job->flush_wanted = true;
		nbd_job_ready(ns, job);
		return;
	}
	job_end(ns, job, 0);
}

static void cmd_end(struct nbd_store *ns, struct nbd_cmd *cmd)
{
	struct nbd_job *job = cmd->job;
	bool lost = cmd->err == -ENOTCONN || cmd->err == -ESHUTDOWN;

	if (lost && !job->err && !job->interrupted && !nbd_req_refuses(ns) &&
	    cmd->op != STORE_EXTENTS) {
		replay_add(ns, cmd);
		return;
	}
	if (lost)
		cmd->err = job->interrupted ? -EINTR : nbd_req_refuses(ns);
	else if (cmd->op == STORE_EXTENTS && !cmd->err && job->pos == job->lo &&
		 job->pos < job->end)
		cmd->err = -EIO; /* it said nothing of what it was asked for */
	if (cmd->err && !job->err) {
		job->err = cmd->err;
		job->pos = job->end;
		job->edges = 0;
		job->flush_wanted = false;
		unready(ns, job);
	}
	cmd_put(ns, cmd);
	if (job->cmds == 0 && !job->ready)
		job_step(ns, job);
}

void nbd_req_reap(struct nbd_store *ns)
{
	/* Else there is no new room, and to be called again in this round would be for ever. */
	if (!ns->done)
		return;
	while (ns->done) {
		struct nbd_cmd *cmd = ns->done;

		ns->done = cmd->next;
		if (!ns->done)
			ns->done_tail = &ns->done;
		cmd_end(ns, cmd);
	}
	start_waiting(ns);
	nbd_req_kick(ns);
}

void nbd_req_lost(struct nbd_store *ns, struct nbd_link *link)
{
	while (link->first) {
		struct nbd_cmd *cmd = link->first;

		link_drop(cmd);
		cmd->err = -ENOTCONN;
		done_add(ns, cmd);
	}
}

/* ---- requests ---- */

/* What needs no server: true if the request has ended. */
static bool answered_here(struct nbd_store *ns, struct store_req *req)
{
	int rc = nbd_req_refuses(ns);

	if (rc == 0) {
		switch (req->op) {
		case STORE_RESIZE:
			rc = req->off == ns->store.size ? 0 : -EOPNOTSUPP;
			break;
		case STORE_ALLOC: /* an export has its space, as a device has */
			rc = ns->features.read_only ? -EROFS : 0;
			break;
		case STORE_WRITE:
		case STORE_ZERO:
			if (!ns->features.read_only)
				return false;
			rc = -EROFS;
			break;
		case STORE_FLUSH:
			if (ns->features.flush)
				return false;
			break;
		case STORE_EXTENTS:
			if (ns->features.extents)
				return false;
			req->extents[0] = (struct extent){req->off, req->len, 0};
			req->ret_extents = 1;
			break;
		default:
			return false;
		}
	}
	store_complete(req, rc);
	return true;
}

void nbd_req_start(struct nbd_store *ns, struct store_req *req)
{
	if (answered_here(ns, req))
		return;
	if (ns->waiting || !ns->free_jobs) {
		req->next = NULL;
		*ns->waiting_tail = req;
		ns->waiting_tail = &req->next;
		return;
	}
	job_start(ns, req);
}

static bool on_a_link(const struct nbd_store *ns, const struct nbd_job *job)
{
	for (unsigned i = 0; i < ns->link_count; i++)
		for (const struct nbd_cmd *cmd = ns->links[i].first; cmd; cmd = cmd->next)
			if (cmd->job == job)
				return true;
	return false;
}

/* Takes the job's commands out of the replay list, and frees them. */
static void drop_replays(struct nbd_store *ns, struct nbd_job *job)
{
	struct nbd_cmd **at = &ns->replay;

	while (*at) {
		struct nbd_cmd *cmd = *at;

		if (cmd->job != job) {
			at = &cmd->next;
			continue;
		}
		*at = cmd->next;
		cmd_put(ns, cmd);
	}
	ns->replay_tail = at;
}

/* Ends a job that has no command on a link. */
static void job_abort(struct nbd_store *ns, struct nbd_job *job, int err)
{
	drop_replays(ns, job);
	unready(ns, job);
	if (job->blocked)
		nbd_edge_unblock(ns, job);
	assert(job->cmds == 0);
	job_end(ns, job, err);
}

void nbd_req_interrupt(struct nbd_store *ns, struct store_req *req)
{
	struct nbd_job *job = ns->jobs;

	while (job < ns->jobs + NBD_JOBS && job->req != req)
		job++;
	if (job < ns->jobs + NBD_JOBS) {
		if (!on_a_link(ns, job)) {
			job_abort(ns, job, -EINTR);
			start_waiting(ns);
		} else if (!job->interrupted) {
			/* The server may be writing into its buffer: the answer, or the connection's end. */
			job->interrupted = true;
			if (ns->interrupted++ == 0)
				ns->interrupted_ns = loop_now_ns();
			nbd_link_watch(ns);
		}
		return;
	}
	for (struct store_req **at = &ns->waiting; *at; at = &(*at)->next) {
		if (*at != req)
			continue;
		*at = req->next;
		if (!*at)
			ns->waiting_tail = at;
		store_complete(req, -EINTR);
		return;
	}
}

void nbd_req_fail_all(struct nbd_store *ns, int err)
{
	nbd_req_reap(ns);
	for (unsigned i = 0; i < NBD_JOBS; i++)
		if (ns->jobs[i].req)
			job_abort(ns, &ns->jobs[i], err);
	while (ns->waiting) {
		struct store_req *req = ns->waiting;

		ns->waiting = req->next;
		if (!ns->waiting)
			ns->waiting_tail = &ns->waiting;
		store_complete(req, err);
	}
}

/* ---- the store ---- */

static void nbd_submit(struct store *store, struct store_req *req)
{
	struct nbd_store *ns = (struct nbd_store *)store;
	struct loop *owner = atomic_load_explicit(&ns->owner, memory_order_acquire);

	if (!owner) {
		nbd_link_adopt(ns, loop_self());
		owner = atomic_load_explicit(&ns->owner, memory_order_acquire);
	}
	if (owner == loop_self())
		nbd_req_start(ns, req);
	else
		nbd_hand_over(ns, req);
}

/* A loop that is not the owner serves a donor's clients, which do not interrupt. */
static void nbd_interrupt(struct store *store, struct store_req *req)
{
	struct nbd_store *ns = (struct nbd_store *)store;

	if (atomic_load(&ns->owner) == loop_self())
		nbd_req_interrupt(ns, req);
}

static void nbd_store_destroy(struct store *store)
{
	struct nbd_store *ns = (struct nbd_store *)store;

	nbd_link_leave(ns);
	ns->place->store = NULL;
	nbd_hand_fini(ns);
	nbd_edge_fini(ns);
	pthread_mutex_destroy(&ns->mu);
	pthread_cond_destroy(&ns->dial_ended);
	free(ns->jobs);
	free(ns->cmds);
	free(ns);
}

static const struct store_ops nbd_store_ops = {
    .name = "nbd",
    .submit = nbd_submit,
    .interrupt = nbd_interrupt,
    .destroy = nbd_store_destroy,
};

static void init_lists(struct nbd_store *ns)
{
	ns->waiting_tail = &ns->waiting;
	ns->ready_tail = &ns->ready;
	ns->maps_tail = &ns->maps;
	ns->replay_tail = &ns->replay;
	ns->done_tail = &ns->done;
	ns->blocked_tail = &ns->blocked;
	ns->issue_task.run = issue_run;
	for (unsigned i = 0; i < NBD_JOBS; i++) {
		ns->jobs[i].next = ns->free_jobs;
		ns->free_jobs = &ns->jobs[i];
	}
	for (unsigned i = 0; i < NBD_CMDS; i++) {
		ns->cmds[i].next = ns->free_cmds;
		ns->free_cmds = &ns->cmds[i];
	}
}

int nbd_store_create(struct nbd_place *place, struct store **ret_store, struct err *err)
{
	struct nbd_store *ns = calloc(1, sizeof(*ns));

	if (!ns)
		return err_set(err, -ENOMEM, "out of memory for an NBD export");
	store_init(&ns->store, &nbd_store_ops, place->features.size);
	ns->place = place;
	ns->features = place->features;
	pthread_mutex_init(&ns->mu, NULL);
	pthread_cond_init(&ns->dial_ended, NULL);
	nbd_link_init(ns);
	ns->jobs = calloc(NBD_JOBS, sizeof(ns->jobs[0]));
	ns->cmds = calloc(NBD_CMDS, sizeof(ns->cmds[0]));
	if (!ns->jobs || !ns->cmds || nbd_edge_init(ns)) {
		nbd_store_destroy(&ns->store);
		return err_set(err, -ENOMEM, "out of memory for an NBD export");
	}
	init_lists(ns);
	place->store = ns;
	*ret_store = &ns->store;
	return 0;
}
