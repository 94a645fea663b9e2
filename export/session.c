/* SPDX-License-Identifier: Apache-2.0
 *
 * The registry of sessions.
 *
 * A session's states: attached (conn set) ⇄ detached (conn NULL) → ended.  attached with a successor:
 * the old connection was told to end (peer_conn_displace) and the new one waits.
 *
 * Invariants:
 *   1. A connection found as session->conn or session->successor under mu is alive: connections call
 *      session_detach before they are freed.
 * Locking: mu protects the list and the registry's part of each session.  It may be taken under a pool's mu
 * (displace, noticed), never the other way round.
 */
#include "export/session.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "core/local_pool.h"
#include "core/log.h"
#include "core/loop.h"
#include "export/peer_conn.h"

struct sessions {
	pthread_mutex_t mu;
	struct session *first; /* protected by mu */
	unsigned count; /* protected by mu */
	uint64_t next_tag; /* protected by mu */
};

struct sessions *sessions_create(void)
{
	struct sessions *sessions = calloc(1, sizeof(*sessions));

	if (sessions) {
		pthread_mutex_init(&sessions->mu, NULL);
		sessions->next_tag = 2; /* 1 is the daemon itself */
	}
	return sessions;
}

static void session_free(struct session *session)
{
	for (uint32_t i = 0; i < session->handle_room; i++)
		if (session->handles[i])
			local_pool_close(session->pool, session->handles[i]);
	free(session->handles);
	free(session);
}

void sessions_destroy(struct sessions *sessions)
{
	if (!sessions)
		return;
	while (sessions->first) {
		struct session *next = sessions->first->next;

		session_free(sessions->first);
		sessions->first = next;
	}
	pthread_mutex_destroy(&sessions->mu);
	free(sessions);
}

uint64_t sessions_tag(struct sessions *sessions)
{
	uint64_t tag;

	pthread_mutex_lock(&sessions->mu);
	tag = sessions->next_tag++;
	pthread_mutex_unlock(&sessions->mu);
	return tag;
}

static struct session *find_locked(struct sessions *sessions, const uint8_t id[16])
{
	struct session *session = sessions->first;

	while (session && memcmp(session->id, id, 16) != 0)
		session = session->next;
	return session;
}

/* Takes the sessions out that wanted(session, ctx) names; a list by next. */
static struct session *take_locked(struct sessions *sessions,
    bool (*wanted)(const struct session *session, const void *ctx), const void *ctx)
{
	struct session *taken = NULL, **link = &sessions->first;

	while (*link) {
		struct session *session = *link;

		if (session->conn || !wanted(session, ctx)) {
			link = &session->next;
			continue;
		}
		*link = session->next;
		sessions->count--;
		session->next = taken;
		taken = session;
	}
	return taken;
}

static void free_list(struct session *session)
{
	while (session) {
		struct session *next = session->next;

		session_free(session);
		session = next;
	}
}

static bool has_identity(const struct frame_hello *hello)
{
	static const uint8_t none[POOL_IDENTITY_LEN];

	return memcmp(hello->identity, none, sizeof(none)) != 0;
}

/* The same client's mount point, mounted again, or the same cache: the one before has died. */
static bool is_predecessor(const struct session *session, const void *ctx)
{
	const struct frame_hello *hello = ctx;

	return memcmp(session->id, hello->session, FRAME_CLIENT_LEN) == 0 ||
	       (has_identity(hello) && session->ps.writer == lease_writer(hello->identity));
}

/* ---- what a pool asks; its mu is held ---- */

static struct session *session_of(struct pool_session *ps)
{
	return (struct session *)((char *)ps - offsetof(struct session, ps));
}

static void displace(struct pool_session *ps)
{
	struct sessions *sessions = session_of(ps)->sessions;

	log_warn("a lease was taken from %s: it was not heard of in time, or was started anew",
	    ps->holder);
	pthread_mutex_lock(&sessions->mu);
	if (session_of(ps)->conn)
		peer_conn_displace(session_of(ps)->conn);
	pthread_mutex_unlock(&sessions->mu);
}

static void noticed(struct pool_session *ps)
{
	struct sessions *sessions = session_of(ps)->sessions;

	pthread_mutex_lock(&sessions->mu);
	if (session_of(ps)->conn)
		peer_conn_notice(session_of(ps)->conn);
	pthread_mutex_unlock(&sessions->mu);
}

static const struct pool_session_ops session_ops = {.displace = displace, .noticed = noticed};

/* Who it is, for others: "db1, process 123, /mnt/remote (192.0.2.7)". */
static void init_ps(struct pool_session *ps, const struct frame_hello *hello, const char *address)
{
	const char *port = strrchr(address, ':');

	ps->ops = &session_ops;
	/* Without an identity of its own a client is itself as long as its mount lives. */
	ps->writer = lease_writer(has_identity(hello) ? hello->identity : hello->session);
	snprintf(ps->holder, sizeof(ps->holder), "%s (%.*s)", *hello->who ? hello->who : "a client",
	    port ? (int)(port - address) : 0, address);
}

void session_tick(struct session *session, uint64_t now_ns)
{
	if (!atomic_load_explicit(&session->ps.heard, memory_order_relaxed))
		return;
	atomic_store(&session->ps.heard_ns, now_ns);
	atomic_store(&session->ps.heard, false);
}

static int admit_new_locked(struct sessions *sessions, const struct frame_hello *hello,
    const char *address, struct pool *pool, struct session **ret_session)
{
	struct session *session;

	if (sessions->count >= SESSIONS_MAX)
		return -EAGAIN;
	session = calloc(1, sizeof(*session));
	if (!session)
		return -ENOMEM;
	memcpy(session->id, hello->session, 16);
	session->tag = sessions->next_tag++;
	session->pool = pool;
	session->sessions = sessions;
	init_ps(&session->ps, hello, address);
	session->next = sessions->first;
	sessions->first = session;
	sessions->count++;
	*ret_session = session;
	return 0;
}

int session_admit(struct sessions *sessions, const struct frame_hello *hello, const char *address,
    struct pool *pool, struct peer_conn *conn, struct session **ret_session,
    enum session_admit *ret_how)
{
	struct session *session, *dead = NULL;
	int rc = 0;

	pthread_mutex_lock(&sessions->mu);
	session = find_locked(sessions, hello->session);
	if (!session)
		dead = take_locked(sessions, is_predecessor, hello);
	*ret_how = SESSION_NEW;
	if (!session)
		rc = admit_new_locked(sessions, hello, address, pool, &session);
	else if (session->pool != pool)
		rc = -EINVAL;
	else if (hello->epoch <= session->epoch || session->successor)
		rc = -ESTALE;
	if (rc == 0) {
		session->epoch = hello->epoch;
		atomic_store(&session->ps.heard_ns, loop_now_ns());
		*ret_session = session;
		if (session->conn) {
			*ret_how = SESSION_WAIT;
			session->successor = conn;
			peer_conn_displace(session->conn);
		} else {
			/* Until it has used the session a client may not have seen its welcome, and
			 * thinks it new. */
			if (session->used)
				*ret_how = SESSION_RESUMED;
			session->conn = conn;
		}
	}
	pthread_mutex_unlock(&sessions->mu);
	free_list(dead);
	return rc;
}

static void unlink_locked(struct sessions *sessions, struct session *session)
{
	struct session **link = &sessions->first;

	while (*link != session)
		link = &(*link)->next;
	*link = session->next;
	sessions->count--;
}

void session_detach(
    struct sessions *sessions, struct session *session, struct peer_conn *conn, bool end)
{
	session_tick(session, loop_now_ns());
	pthread_mutex_lock(&sessions->mu);
	if (session->successor == conn) {
		session->successor = NULL;
		end = false;
	} else {
		session->conn = session->successor;
		session->successor = NULL;
		session->detached_ns = loop_now_ns();
		end = end && !session->conn;
		if (session->conn)
			peer_conn_admit(session->conn);
	}
	if (end)
		unlink_locked(sessions, session);
	pthread_mutex_unlock(&sessions->mu);
	if (end)
		session_free(session);
}

static bool is_expired(const struct session *session, const void *ctx)
{
	return *(const uint64_t *)ctx >= session->detached_ns + SESSION_KEEP_S * 1000000000ull;
}

void sessions_expire(struct sessions *sessions, uint64_t now_ns)
{
	struct session *expired;

	pthread_mutex_lock(&sessions->mu);
	expired = take_locked(sessions, is_expired, &now_ns);
	pthread_mutex_unlock(&sessions->mu);
	if (expired)
		log_info("a client that was away for %d s is forgotten", SESSION_KEEP_S);
	free_list(expired);
}

struct handle *session_handle(const struct session *session, uint32_t number)
{
	return number < session->handle_room ? session->handles[number] : NULL;
}

int session_reserve(struct session *session, uint32_t number)
{
	uint32_t room = session->handle_room ? session->handle_room : 16;
	struct handle **grown;

	if (number == 0 || number >= POOL_HANDLE_MAX || session_handle(session, number))
		return -EINVAL;
	while (room <= number)
		room *= 2;
	if (room == session->handle_room)
		return 0;
	grown = realloc(session->handles, room * sizeof(grown[0]));
	if (!grown)
		return -ENOMEM;
	memset(grown + session->handle_room, 0, (room - session->handle_room) * sizeof(grown[0]));
	session->handles = grown;
	session->handle_room = room;
	return 0;
}

const struct session_result *session_find_result(const struct session *session, uint64_t id)
{
	for (unsigned i = 0; i < SESSION_RESULTS; i++)
		if (session->results[i].id == id)
			return &session->results[i];
	return NULL;
}

struct session_result *session_new_result(struct session *session)
{
	return &session->results[session->next_result++ % SESSION_RESULTS];
}
