/* SPDX-License-Identifier: Apache-2.0
 *
 * The connections of an NBD store: on the owner's loop, made again for ever.
 *
 * A link's states: up (handle set, watched) → its server ends it, or is silent while somebody wants to
 * leave (link_lost) → down → the dialer's thread brings a new handle (dial_done) → up.
 * The store's: connected (a link is up) ⇄ away (none is) → failed (sticky: the export is another one than
 * before, or it was given up).  Away for longer than the patience that the place was given, requests fail
 * until it is back.
 *
 * Connecting blocks (resolver, TLS), so it is a thread's work, one attempt at a time for all links; after
 * a failure the next attempt waits, 20 ms and then longer up to 2 s.  A connection that ends soon and has answered
 * nothing counts as a failure, too: a server may greet, and end at each request.  So does an answer of ESHUTDOWN,
 * with which the connection is over.
 *
 * NBD has no ping: a server that is silent may just be slow, and is waited for.  But a request that was
 * interrupted (the process was killed) ends after SILENT_NS of silence, by ending the connection: as long as
 * there is one, the server's answer may be on its way into the request's buffer.
 *
 * The first connection asks for structured replies, without which there are no extents; it serves an
 * export that allows one connection alone.  Where there are several the others are for data, with simple
 * replies: libnbd takes those with two calls of recv where a structured one needs four (measured with 4 KiB
 * reads: a fifth less CPU time on both sides).
 *
 * libnbd takes one reply per call, and expects a call only when there is something to read: else it holds back
 * what it has to send until the next reply (it stays in its state REPLY.START), which may never come.  So it
 * is called as often as replies can be in what the socket has.  Over TLS nobody knows what is decrypted
 * already: there a few calls more are made when nothing is being sent, and a tick follows as long as
 * commands are out.
 *
 * Locking: `mu` guards what the dialer's thread and other loops see; see nbd_int.h.
 */
#include "backends/nbd_int.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
	BACKOFF_MIN_MS = 20,
	BACKOFF_MAX_MS = 2000,
	TICK_MS = 250,
	TLS_TICK_MS = 5,
	TLS_CALLS = 8, /* calls without a reply before a TLS link is left to the next tick */
};

static const uint64_t SILENT_NS = 2500000000u;

static struct loop *owner_of(struct nbd_store *ns)
{
	return atomic_load_explicit(&ns->owner, memory_order_relaxed);
}

static uint64_t in_ms(unsigned ms)
{
	return loop_now_ns() + (uint64_t)ms * 1000000;
}

/* ---- dialing ---- */

static void dial_run(struct work *work)
{
	struct nbd_store *ns =
	    (struct nbd_store *)((char *)work - offsetof(struct nbd_store, dial_work));
	struct nbd_features features = {0};
	struct nbd_handle *handle = NULL;
	struct err err = {0};
	struct loop *owner;

	nbd_dial(&ns->place->address, ns->dial_link != &ns->links[0], &ns->place->cancel, &handle,
	    &features, &err);
	pthread_mutex_lock(&ns->mu);
	ns->dialed = handle;
	ns->dialed_features = features;
	ns->dial_err = err;
	ns->dialing = false;
	owner = atomic_load(&ns->owner);
	if (owner)
		loop_post(owner, &ns->dial_task);
	pthread_cond_broadcast(&ns->dial_ended);
	pthread_mutex_unlock(&ns->mu);
}

static struct nbd_link *down_link(struct nbd_store *ns)
{
	for (unsigned i = 0; i < ns->link_count; i++)
		if (!ns->links[i].handle)
			return &ns->links[i];
	return NULL;
}

static void dial_start(struct nbd_store *ns)
{
	struct nbd_link *link = down_link(ns);
	bool start;

	if (!link || atomic_load(&ns->failed) || ns->retry.loop)
		return;
	pthread_mutex_lock(&ns->mu);
	start = !ns->dialing && !ns->dialed && !ns->quitting;
	if (start) {
		ns->dialing = true;
		ns->dial_link = link;
	}
	pthread_mutex_unlock(&ns->mu);
	if (start)
		workers_submit(ns->place->dialer, &ns->dial_work);
}

static void retry_expired(struct loop_timer *timer)
{
	dial_start((struct nbd_store *)((char *)timer - offsetof(struct nbd_store, retry)));
}

/* ---- up and down ---- */

static void link_close(struct nbd_link *link)
{
	struct nbd_store *ns = link->ns;

	if (!link->handle)
		return;
	loop_fd_del(&link->lfd);
	link->closing = true;
	libnbd.close(link->handle);
	close(link->lfd.fd);
	link->closing = false;
	link->handle = NULL;
	ns->up_count--;
	atomic_store(&ns->status_up, ns->up_count);
	nbd_req_lost(ns, link);
}

static void links_close(struct nbd_store *ns)
{
	for (unsigned i = 0; i < ns->link_count; i++)
		link_close(&ns->links[i]);
}

/* The store is away from now on. */
static void went_away(struct nbd_store *ns, const char *why)
{
	uint64_t timeo_ns = atomic_load(&ns->place->timeo_ns);

	log_warn("%s: connection lost (%s): requests wait until it is back",
	    ns->place->address.text, why);
	atomic_store(&ns->since_ns, loop_now_ns());
	if (timeo_ns)
		loop_timer_set(owner_of(ns), &ns->patience, loop_now_ns() + timeo_ns);
}

/* The next attempt waits, if none does already. */
static void dial_later(struct nbd_store *ns)
{
	if (ns->retry.loop)
		return;
	loop_timer_set(owner_of(ns), &ns->retry, in_ms(ns->backoff_ms));
	ns->backoff_ms = ns->backoff_ms * 2 < BACKOFF_MAX_MS ? ns->backoff_ms * 2 : BACKOFF_MAX_MS;
}

static void link_lost(struct nbd_link *link, const char *why)
{
	struct nbd_store *ns = link->ns;
	bool good =
	    link->served || loop_now_ns() >= link->up_ns + (uint64_t)BACKOFF_MAX_MS * 1000000;

	link_close(link);
	if (ns->up_count == 0)
		went_away(ns, why);
	else if (log_allowed(&ns->down_limit))
		log_info("%s: one of %u connections lost (%s)", ns->place->address.text,
		    ns->link_count, why);
	if (good) {
		ns->backoff_ms = BACKOFF_MIN_MS;
		loop_timer_cancel(&ns->retry); /* of another link, which did nothing */
	} else {
		dial_later(ns);
	}
	dial_start(ns);
}

/* Bytes that are there to be read. */
static uint64_t readable(const struct nbd_link *link)
{
	int bytes = 0;

	return ioctl(link->lfd.fd, FIONREAD, &bytes) == 0 && bytes > 0 ? (uint64_t)bytes : 0;
}

/* Takes replies as long as there are whole ones among `bytes`; false: the next call needs more. */
static bool take_replies(struct nbd_link *link, uint64_t bytes)
{
	uint64_t start = link->reply_bytes, before = start - 1;

	while (link->reply_bytes != before && link->reply_bytes - start < bytes) {
		before = link->reply_bytes;
		if (libnbd.aio_notify_read(link->handle) == -1)
			return false;
	}
	return link->reply_bytes != before;
}

static void tls_read(struct nbd_link *link)
{
	for (unsigned idle = 0; idle < TLS_CALLS && link->cmds;) {
		uint64_t before = link->replies;

		if (libnbd.aio_get_direction(link->handle) != LIBNBD_AIO_DIRECTION_READ ||
		    libnbd.aio_notify_read(link->handle) == -1)
			return;
		idle = link->replies == before ? idle + 1 : 0;
	}
}

/* The socket is readable. */
static void link_read(struct nbd_link *link)
{
	uint64_t bytes;

	if (libnbd.aio_notify_read(link->handle) == -1)
		return;
	if (link->ns->place->address.tls) {
		tls_read(link);
		return;
	}
	while (link->cmds && (bytes = readable(link)) > 0) {
		if (link == &link->ns->links[0]) { /* how long its replies are is not known */
			if (libnbd.aio_notify_read(link->handle) == -1)
				return;
		} else if (!take_replies(link, bytes)) {
			return;
		}
	}
}

static void link_ready(struct loop_fd *lfd, uint32_t events)
{
	struct nbd_link *link = (struct nbd_link *)lfd;
	struct nbd_store *ns = link->ns;

	if (events & EPOLLOUT &&
	    libnbd.aio_get_direction(link->handle) & LIBNBD_AIO_DIRECTION_WRITE)
		libnbd.aio_notify_write(link->handle);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		link_read(link);
	nbd_link_check(link);
	nbd_req_reap(ns);
}

void nbd_link_check(struct nbd_link *link)
{
	unsigned direction;

	if (!link->handle)
		return;
	if (libnbd.aio_is_dead(link->handle) || libnbd.aio_is_closed(link->handle)) {
		const char *why = libnbd.get_error();

		link_lost(link, libnbd.aio_is_dead(link->handle) && why
				    ? nbd_cause(why)
				    : "the server has ended it");
		return;
	}
	if (link->leaving) {
		link_lost(link, "the server is shutting down");
		return;
	}
	direction = libnbd.aio_get_direction(link->handle);
	loop_fd_set(&link->lfd, EPOLLIN | (direction & LIBNBD_AIO_DIRECTION_WRITE ? EPOLLOUT : 0));
	if (link->ns->place->address.tls && link->cmds)
		nbd_link_watch(link->ns);
}

/* Takes a handle that is ready.  What is watched is a descriptor of our own: libnbd closes its one as soon as the
 * connection ends, and then nobody could take it off the loop any more. */
static void link_up(struct nbd_link *link, struct nbd_handle *handle)
{
	struct nbd_store *ns = link->ns;

	link->lfd.fd = fcntl(libnbd.aio_get_fd(handle), F_DUPFD_CLOEXEC, 0);
	link->lfd.ready = link_ready;
	if (link->lfd.fd < 0 || loop_fd_add(owner_of(ns), &link->lfd, EPOLLIN)) {
		if (link->lfd.fd >= 0)
			close(link->lfd.fd);
		libnbd.close(handle);
		return;
	}
	link->handle = handle;
	link->served = link->leaving = false;
	link->up_ns = loop_now_ns();
	link->no_cork = ns->place->address.socket != NULL;
	ns->up_count++;
	atomic_store(&ns->status_up, ns->up_count);
}

/* ---- failing ---- */

static void fail(struct nbd_store *ns)
{
	atomic_store(&ns->failed, true);
	atomic_store(&ns->since_ns, loop_now_ns());
	loop_timer_cancel(&ns->retry);
	loop_timer_cancel(&ns->patience);
	links_close(ns);
	nbd_req_fail_all(ns, -EIO);
}

static void give_up_run(struct loop_task *task)
{
	fail((struct nbd_store *)((char *)task - offsetof(struct nbd_store, give_up_task)));
}

void nbd_link_give_up(struct nbd_store *ns)
{
	if (!owner_of(ns) || atomic_load(&ns->failed))
		return;
	log_error("%s: given up: all I/O fails from now on", ns->place->address.text);
	loop_defer(owner_of(ns), &ns->give_up_task);
}

static void patience_expired(struct loop_timer *timer)
{
	struct nbd_store *ns =
	    (struct nbd_store *)((char *)timer - offsetof(struct nbd_store, patience));

	if (ns->up_count)
		return;
	log_error("%s: away for %.1f s: requests fail from now on, until it is back",
	    ns->place->address.text, (double)atomic_load(&ns->place->timeo_ns) / 1e9);
	atomic_store(&ns->soft_expired, true);
	nbd_req_fail_all(ns, -EIO);
}

/* ---- what the dialer brings ---- */

static void came_back(struct nbd_store *ns)
{
	double away_s = (double)(loop_now_ns() - atomic_load(&ns->since_ns)) / 1e9;

	loop_timer_cancel(&ns->patience);
	atomic_store(&ns->soft_expired, false);
	atomic_store(&ns->since_ns, loop_now_ns());
	atomic_fetch_add(&ns->reconnects, 1);
	if (ns->acked_writes)
		log_warn(
		    "%s: connected again after %.1f s; what was written and not yet flushed is "
		    "there only if the server was not restarted without it",
		    ns->place->address.text, away_s);
	else
		log_info("%s: connected again after %.1f s", ns->place->address.text, away_s);
}

static void dial_failed(struct nbd_store *ns, const struct err *err)
{
	if (log_allowed(&ns->down_limit))
		log_debug("%s", err->text);
	dial_later(ns);
}

static void dial_done(struct loop_task *task)
{
	struct nbd_store *ns =
	    (struct nbd_store *)((char *)task - offsetof(struct nbd_store, dial_task));
	struct nbd_features features;
	struct nbd_handle *handle;
	struct nbd_link *link;
	struct err err;

	pthread_mutex_lock(&ns->mu);
	handle = ns->dialed;
	ns->dialed = NULL;
	features = ns->dialed_features;
	err = ns->dial_err;
	pthread_mutex_unlock(&ns->mu);
	if (!handle) {
		dial_failed(ns, &err);
		return;
	}
	link = ns->dial_link;
	if (link->handle || atomic_load(&ns->failed)) {
		libnbd.close(handle);
		return;
	}
	if (nbd_features_check(&ns->place->address, &ns->features, &features, &err)) {
		log_error("%s: I/O fails from now on", err.text);
		libnbd.close(handle);
		fail(ns);
		return;
	}
	link_up(link, handle);
	if (ns->up_count == 1)
		came_back(ns);
	dial_start(ns);
	nbd_req_kick(ns);
}

/* ---- ticks ---- */

static void tick_expired(struct loop_timer *timer)
{
	struct nbd_store *ns =
	    (struct nbd_store *)((char *)timer - offsetof(struct nbd_store, tick));
	uint64_t now = loop_now_ns();
	unsigned busy = 0;

	for (unsigned i = 0; i < ns->link_count; i++) {
		struct nbd_link *link = &ns->links[i];

		if (!link->handle || !link->cmds)
			continue;
		if (ns->place->address.tls) {
			tls_read(link);
			nbd_link_check(link);
			busy++;
		}
		if (link->replies != link->seen_replies || link->moved_ns < ns->interrupted_ns)
			link->moved_ns = now;
		link->seen_replies = link->replies;
		if (link->handle && ns->interrupted && now - link->moved_ns > SILENT_NS)
			link_lost(link, "no answer, and a request was interrupted");
	}
	nbd_req_reap(ns);
	if (busy || ns->interrupted)
		nbd_link_watch(ns);
}

void nbd_link_watch(struct nbd_store *ns)
{
	if (!ns->tick.loop)
		loop_timer_set(
		    owner_of(ns), &ns->tick, in_ms(ns->place->address.tls ? TLS_TICK_MS : TICK_MS));
}

/* ---- life ---- */

/* Leaves the owner: on its thread, or when it does not run any more. */
static void leave_now(struct nbd_store *ns)
{
	for (unsigned i = 0; i < ns->link_count; i++)
		if (ns->links[i].handle && !ns->links[i].cmds)
			libnbd.aio_disconnect(ns->links[i].handle, 0);
	links_close(ns);
	loop_timer_cancel(&ns->retry);
	loop_timer_cancel(&ns->patience);
	loop_timer_cancel(&ns->tick);
	loop_end_del(&ns->loop_end);
	pthread_mutex_lock(&ns->mu);
	atomic_store(&ns->owner, NULL);
	pthread_mutex_unlock(&ns->mu);
}

/* The owner is destroyed before the store. */
static void owner_ends(struct loop_end *end)
{
	leave_now((struct nbd_store *)((char *)end - offsetof(struct nbd_store, loop_end)));
}

static void leave_run(struct loop_task *task)
{
	struct nbd_store *ns =
	    (struct nbd_store *)((char *)task - offsetof(struct nbd_store, leave_task));

	leave_now(ns);
	pthread_mutex_lock(&ns->mu);
	ns->left = true;
	pthread_cond_broadcast(&ns->dial_ended);
	pthread_mutex_unlock(&ns->mu);
}

void nbd_link_leave(struct nbd_store *ns)
{
	struct loop *owner;
	bool elsewhere;

	/* First the dialer: what it posts must have run before the owner is left. */
	atomic_store(&ns->place->cancel, true);
	pthread_mutex_lock(&ns->mu);
	ns->quitting = true;
	while (ns->dialing)
		pthread_cond_wait(&ns->dial_ended, &ns->mu);
	owner = atomic_load(&ns->owner);
	elsewhere = owner && !pthread_equal(ns->thread, pthread_self());
	pthread_mutex_unlock(&ns->mu);
	if (elsewhere) {
		loop_post(owner, &ns->leave_task);
		pthread_mutex_lock(&ns->mu);
		while (!ns->left)
			pthread_cond_wait(&ns->dial_ended, &ns->mu);
		pthread_mutex_unlock(&ns->mu);
	} else if (owner) {
		leave_now(ns);
	}
	if (ns->dialed)
		libnbd.close(ns->dialed);
	atomic_store(&ns->place->cancel, false);
}

void nbd_link_adopt(struct nbd_store *ns, struct loop *loop)
{
	pthread_mutex_lock(&ns->mu);
	if (atomic_load(&ns->owner)) {
		pthread_mutex_unlock(&ns->mu);
		return;
	}
	ns->thread = pthread_self();
	atomic_store(&ns->owner, loop);
	pthread_mutex_unlock(&ns->mu);
	loop_end_add(loop, &ns->loop_end);
	for (unsigned i = 0; i < ns->link_count; i++) {
		struct nbd_handle *handle = ns->place->first[i];

		ns->place->first[i] = NULL;
		if (handle)
			link_up(&ns->links[i], handle);
	}
	if (ns->dialed) /* for the owner before */
		loop_defer(loop, &ns->dial_task);
	dial_start(ns);
}

void nbd_link_init(struct nbd_store *ns)
{
	ns->link_count = ns->place->conns;
	for (unsigned i = 0; i < ns->link_count; i++) {
		ns->links[i].ns = ns;
		ns->links[i].lfd.fd = -1;
	}
	ns->backoff_ms = BACKOFF_MIN_MS;
	atomic_store(&ns->since_ns, loop_now_ns());
	atomic_store(&ns->status_up, ns->link_count);
	ns->retry.expired = retry_expired;
	ns->patience.expired = patience_expired;
	ns->tick.expired = tick_expired;
	ns->dial_task.run = dial_done;
	ns->leave_task.run = leave_run;
	ns->give_up_task.run = give_up_run;
	ns->dial_work.run = dial_run;
	ns->loop_end.run = owner_ends;
}
