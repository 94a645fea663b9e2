/* SPDX-License-Identifier: Apache-2.0
 *
 * Leases and change notices of a local pool's regions (core/lease.h).
 *
 * A user's writing handles are of three kinds: those that hold the lease (exclusive > 0: the user is
 * lease.holder), shared ones, and lost ones, whose lease was taken.  Taking it moves user->gen: a handle
 * that was opened under an older one writes no more.
 *
 * A notice's states, per user:
 *   NONE → (version moves) QUEUED → (lease_next_notice) SENT → (acknowledged) NONE
 *   SENT → (version moves) AGAIN → (acknowledged) QUEUED;   SENT, AGAIN → (connection lost) QUEUED
 * So one is outstanding at most, and what happens meanwhile is told by one more.
 *
 * Invariants:
 *   1. lease.holder is a user with exclusive > 0, and the only one; lease.shared and lease.lost are the
 *      sums over the users.
 *   2. Nobody else gets the right to write while a handle that lost it has something in flight: a request
 *      or loan counts as in flight (store_submit, store_lend) before it looks at gen, the taker moves gen
 *      before it looks at in_flight.  Both are changes of gen, so they have an order: if the request's is
 *      the first, the taker sees it in flight; if the taker's is, the request is refused.
 *   3. A notice tells the version and counts as telling it: region->seen is set, so the next write moves
 *      the version again, and is told again.
 *
 * Locking: the pool's mu, held by the caller; gen is atomic.
 */
#include "core/lease.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/loop.h"
#include "core/region.h"

enum notice { NOTICE_NONE, NOTICE_QUEUED, NOTICE_SENT, NOTICE_AGAIN };

struct region_user {
	/* Constant. */
	struct region *region;
	struct pool_session *who; /* NULL: a session of this process */
	uint64_t session;

	/* Protected by the pool's mu. */
	struct region_user *prev, *next; /* of the region */
	struct region_user *who_prev, *who_next; /* of the session */
	struct region_handle *handles;
	unsigned exclusive, shared, lost; /* of them that write */
	enum notice notice;
	struct region_user *notice_next; /* of the session's queue */

	_Atomic uint32_t gen;
};

uint64_t lease_writer(const uint8_t identity[POOL_IDENTITY_LEN])
{
	uint64_t h =
	    14695981039346656037u; /* FNV-1a; identities are random or their makers' own affair */

	for (unsigned i = 0; i < POOL_IDENTITY_LEN; i++)
		h = (h ^ identity[i]) * 1099511628211u;
	return h | (uint64_t)1 << 63;
}

/* ---- users ---- */

static struct region_user *user_find(const struct region *region, uint64_t session)
{
	struct region_user *user = region->lease.users;

	while (user && user->session != session)
		user = user->next;
	return user;
}

static void link_to_session(struct region_user *user)
{
	struct pool_session *ps = user->who;

	user->who_prev = NULL;
	user->who_next = ps->users;
	if (ps->users)
		ps->users->who_prev = user;
	ps->users = user;
}

static void unlink_from_session(struct region_user *user)
{
	*(user->who_prev ? &user->who_prev->who_next : &user->who->users) = user->who_next;
	if (user->who_next)
		user->who_next->who_prev = user->who_prev;
}

static struct region_user *user_get(struct region *region, const struct pool_req *req)
{
	struct region_user *user = user_find(region, req->session);

	if (user)
		return user;
	user = calloc(1, sizeof(*user));
	if (!user)
		return NULL;
	user->region = region;
	user->who = req->who;
	user->session = req->session;
	user->next = region->lease.users;
	if (user->next)
		user->next->prev = user;
	region->lease.users = user;
	if (user->who)
		link_to_session(user);
	return user;
}

static void notice_unqueue(struct region_user *user)
{
	struct pool_session *ps = user->who;
	struct region_user *before = NULL;

	for (struct region_user *at = ps->notices; at != user; at = at->notice_next)
		before = at;
	*(before ? &before->notice_next : &ps->notices) = user->notice_next;
	if (ps->last_notice == user)
		ps->last_notice = before;
}

static void user_free(struct region_user *user)
{
	if (user->notice == NOTICE_QUEUED)
		notice_unqueue(user);
	*(user->prev ? &user->prev->next : &user->region->lease.users) = user->next;
	if (user->next)
		user->next->prev = user->prev;
	if (user->who)
		unlink_from_session(user);
	free(user);
}

/* ---- who may write ---- */

static bool is_lost(const struct region_handle *rh)
{
	return rh->handle.flags & POOL_WRITE && !(rh->handle.flags & POOL_SHARED) && !rh->dropped &&
	       rh->lease_gen != atomic_load(&rh->user->gen);
}

bool lease_held(const struct region_handle *rh)
{
	if (rh->handle.flags & POOL_SHARED)
		return true;
	/* A change of it by 0: invariant 2. */
	return rh->lease_gen == atomic_fetch_add(&rh->user->gen, 0);
}

static int busy(struct pool_req *req, const struct region_user *holder)
{
	snprintf(req->ret_holder, sizeof(req->ret_holder), "%s",
	    !holder       ? ""
	    : holder->who ? holder->who->holder
			  : "the donor itself");
	return -EBUSY;
}

int lease_pinned(const struct region *region, struct pool_req *req)
{
	if (region->pin_session == req->session)
		return -EBUSY;
	return busy(req, user_find(region, region->pin_session));
}

static bool is_dead(const struct region_user *user, const struct pool_req *req, uint32_t lease_ms)
{
	struct pool_session *ps = user->who;

	if (!ps)
		return false;
	if (req->who && req->who->writer == ps->writer) /* an earlier life of the same client */
		return true;
	return !atomic_load(&ps->heard) &&
	       loop_now_ns() >= atomic_load(&ps->heard_ns) + lease_ms * (uint64_t)1000000;
}

/* Takes the lease from its holder. */
static void take(struct region *region)
{
	struct region_user *user = region->lease.holder;

	atomic_fetch_add(&user->gen, 1); /* invariant 2 */
	user->lost += user->exclusive;
	region->lease.lost += user->exclusive;
	user->exclusive = 0;
	region->lease.holder = NULL;
	user->who->ops->displace(user->who);
}

/* Makes sure that nobody else holds the lease, and takes it from whoever is dead. */
static int check_holder(struct region *region, struct pool_req *req, uint32_t lease_ms)
{
	const struct region_user *holder = region->lease.holder;

	if (!holder || holder->session == req->session)
		return 0;
	if (!is_dead(holder, req, lease_ms))
		return busy(req, holder);
	take(region);
	return 0;
}

/* A user that lost the lease and has not come to rest; NULL: none. */
static const struct region_user *unrest(const struct region *region)
{
	if (region->lease.lost == 0)
		return NULL;
	for (const struct region_user *user = region->lease.users; user; user = user->next)
		for (const struct region_handle *rh = user->handles; rh; rh = rh->user_next)
			if (is_lost(rh) &&
			    atomic_load_explicit(&rh->handle.store.in_flight, memory_order_acquire))
				return user;
	return NULL;
}

static const struct region_user *other_sharer(const struct region *region, uint64_t session)
{
	const struct region_user *user = region->lease.shared ? region->lease.users : NULL;

	while (user && (user->session == session || user->shared == 0))
		user = user->next;
	return user;
}

int lease_check_open(struct region *region, struct pool_req *req, uint32_t lease_ms)
{
	const struct region_user *in_the_way;
	int rc;

	if (region->pins && region->pin_session != req->session &&
	    req->flags & (POOL_WRITE | POOL_PIN))
		return lease_pinned(region, req);
	if (!(req->flags & POOL_WRITE))
		return 0;
	rc = check_holder(region, req, lease_ms);
	if (rc)
		return rc;
	in_the_way = unrest(region);
	if (!in_the_way && (!(req->flags & POOL_SHARED) || req->flags & POOL_PIN))
		in_the_way = other_sharer(region, req->session);
	if (in_the_way)
		return busy(req, in_the_way);
	if (region->refs && region->resizer != req->session)
		return busy(req, NULL);
	if (req->flags & POOL_REOPEN &&
	    !region_unchanged(region, pool_req_writer(req), req->version))
		return -ENOLCK;
	return 0;
}

int lease_check_resize(struct region *region, struct pool_req *req, uint32_t lease_ms)
{
	const struct region_handle *rh = (const struct region_handle *)req->handle;
	const struct region_user *in_the_way;
	int rc;

	if (rh && rh->handle.flags & POOL_WRITE && !lease_held(rh))
		return -ENOLCK;
	if (region->pins && region->pin_session != req->session)
		return busy(req, user_find(region, region->pin_session));
	rc = check_holder(region, req, lease_ms);
	if (rc)
		return rc;
	in_the_way = unrest(region);
	return in_the_way ? busy(req, in_the_way) : 0;
}

int lease_opened(struct region_handle *rh, const struct pool_req *req)
{
	struct region *region = rh->region;
	struct region_user *user = user_get(region, req);

	if (!user)
		return -ENOMEM;
	rh->user = user;
	rh->user_next = user->handles;
	if (user->handles)
		user->handles->user_prev = rh;
	user->handles = rh;
	rh->lease_gen = atomic_load(&user->gen);
	if (rh->handle.flags & POOL_SHARED) {
		user->shared++;
		region->lease.shared++;
	} else if (rh->handle.flags & POOL_WRITE) {
		assert(!region->lease.holder || region->lease.holder == user);
		user->exclusive++;
		region->lease.holder = user;
	}
	return 0;
}

void lease_drop(struct region_handle *rh)
{
	struct region_lease *lease = &rh->region->lease;
	struct region_user *user = rh->user;

	if (!(rh->handle.flags & POOL_WRITE) || rh->dropped)
		return;
	if (rh->handle.flags & POOL_SHARED) {
		user->shared--;
		lease->shared--;
	} else if (is_lost(rh)) {
		user->lost--;
		lease->lost--;
	} else if (--user->exclusive == 0) {
		lease->holder = NULL;
	}
	rh->dropped = true;
}

void lease_closed(struct region_handle *rh)
{
	struct region_user *user = rh->user;

	lease_drop(rh);
	*(rh->user_prev ? &rh->user_prev->user_next : &user->handles) = rh->user_next;
	if (rh->user_next)
		rh->user_next->user_prev = rh->user_prev;
	if (!user->handles)
		user_free(user);
}

/* Only identities mean something to the next daemon. */
static uint64_t lasting(uint64_t writer)
{
	return writer >> 63 ? writer : 0;
}

void lease_writer_now(const struct region *region, struct catalogue_writer *ret_writer)
{
	const struct region_user *holder = region->lease.holder;
	uint64_t last = atomic_load(&region->writer);

	*ret_writer = (struct catalogue_writer){
	    .writer = lasting(last),
	    .base = atomic_load(&region->base),
	    .writing = holder || region->lease.shared || region->refs || unrest(region),
	};
	if (!ret_writer->writing)
		return;
	/* Whoever else may write from now on begins with the next version. */
	ret_writer->writer =
	    holder && holder->who && !region->lease.shared ? lasting(holder->who->writer) : 0;
	if (ret_writer->writer != last)
		ret_writer->base = atomic_load(&region->version) + 1;
}

/* ---- notices ---- */

static void notice_queue(struct region_user *user)
{
	struct pool_session *ps = user->who;

	user->notice = NOTICE_QUEUED;
	user->notice_next = NULL;
	*(ps->last_notice ? &ps->last_notice->notice_next : &ps->notices) = user;
	ps->last_notice = user;
}

void lease_changed(struct region *region, uint64_t session)
{
	for (struct region_user *user = region->lease.users; user; user = user->next) {
		if (user->session == session || !user->who)
			continue;
		if (user->notice == NOTICE_SENT)
			user->notice = NOTICE_AGAIN;
		if (user->notice != NOTICE_NONE)
			continue;
		notice_queue(user);
		user->who->ops->noticed(user->who);
	}
}

bool lease_next_notice(struct pool_session *ps, struct pool_notice *ret_notice)
{
	struct region_user *user = ps->notices;

	if (!user)
		return false;
	notice_unqueue(user);
	user->notice = NOTICE_SENT;
	unlink_from_session(user);
	link_to_session(user); /* to the front: the acknowledgement finds it there */
	atomic_store(&user->region->seen, true);
	*ret_notice = (struct pool_notice){
	    .id = user->region->id,
	    .version = atomic_load(&user->region->version),
	    .size = atomic_load(&user->region->size),
	};
	return true;
}

void lease_notice_ack(struct pool_session *ps, uint64_t id)
{
	struct region_user *user = ps->users;

	while (user && user->region->id != id)
		user = user->who_next;
	if (!user)
		return;
	if (user->notice == NOTICE_AGAIN) {
		notice_queue(user);
		ps->ops->noticed(ps);
	} else if (user->notice == NOTICE_SENT) {
		user->notice = NOTICE_NONE;
	}
}

void lease_notices_again(struct pool_session *ps)
{
	for (struct region_user *user = ps->users; user; user = user->who_next)
		if (user->notice == NOTICE_SENT || user->notice == NOTICE_AGAIN)
			notice_queue(user);
}
