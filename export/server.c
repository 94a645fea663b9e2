/* SPDX-License-Identifier: Apache-2.0
 *
 * The donor's server.
 *
 * Loop 0 listens and hands each new connection to the loops in turn; the others only serve.  Each loop
 * runs on a thread of its own; server_create and server_stop run on the main thread.
 * The end: server_stop posts a task to each loop that stops listening and drains its connections; when
 * the last is gone (or after DRAIN_S) the loop stops.
 *
 * Locking: none; loops get work by loop_post only.
 */
#include "export/server.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/bufpool.h"
#include "core/log.h"
#include "export/nbd_client.h"
#include "export/peer_conn.h"
#include "export/session.h"
#include "export/share.h"

enum {
	LISTENERS_MAX = 2 * ADDRESSES_MAX,
	LOOPS_MAX = 64,
	BACKLOG = 1024,
	DRAIN_S = 10,
	CONNECTIONS_MAX = 20000
};

struct listener {
	struct loop_fd lfd;
	struct server *server;
	enum server_protocol protocol;
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)]; /* of a Unix socket, else "" */
};

struct loop_thread {
	struct server_loop sl; /* first */
	pthread_t thread;
	bool started;
	struct loop_task drain;
	struct loop_timer drain_timer;
};

struct server {
	/* Constant after server_start. */
	struct pool **pools;
	unsigned pool_count;
	uint8_t instance[16], boot[16];
	struct sessions *sessions;
	struct nbd_exports *nbd_exports;
	struct residence *residence;
	unsigned loop_count;
	unsigned listener_count;
	struct listener listeners[LISTENERS_MAX];
	/* Loop 0 only. */
	unsigned next_loop;
	struct log_limit accept_limit;
	/* Any thread. */
	_Atomic unsigned connections;
	struct loop_thread loops[LOOPS_MAX];
};

/* ---- what the connections ask ---- */

struct pool *server_pool(struct server *server, const char *name)
{
	for (unsigned i = 0; i < server->pool_count; i++)
		if (strcmp(server->pools[i]->name, name) == 0)
			return server->pools[i];
	return NULL;
}

struct pool *server_pool_at(struct server *server, unsigned idx)
{
	return idx < server->pool_count ? server->pools[idx] : NULL;
}

void server_pool_names(struct server *server, char *buf, size_t room)
{
	size_t used = 0;

	*buf = 0;
	for (unsigned i = 0; i < server->pool_count && used < room; i++)
		used += (size_t)snprintf(
		    buf + used, room - used, "%s%s", i ? ", " : "", server->pools[i]->name);
}

struct sessions *server_sessions(struct server *server)
{
	return server->sessions;
}

struct nbd_exports *server_nbd_exports(struct server *server)
{
	return server->nbd_exports;
}

struct residence *server_residence(const struct server *server)
{
	return server->residence;
}

const uint8_t *server_instance(const struct server *server)
{
	return server->instance;
}

const uint8_t *server_boot(const struct server *server)
{
	return server->boot;
}

unsigned server_connections(const struct server *server)
{
	return server->connections;
}

void server_conn_count(struct server *server, int change)
{
	atomic_fetch_add(&server->connections, (unsigned)change);
}

/* ---- accepting ---- */

/* A connection on its way to its loop. */
struct arrival {
	struct loop_task task;
	struct server_loop *sl;
	enum server_protocol protocol;
	int fd;
	char address[64];
};

/* Listening sockets that accept_ready has put to rest are tried again. */
static void listen_again(struct server *server)
{
	for (unsigned i = 0; i < server->listener_count; i++)
		if (server->listeners[i].lfd.loop)
			loop_fd_set(&server->listeners[i].lfd, EPOLLIN);
}

static void tick(struct loop_timer *timer)
{
	struct server_loop *sl =
	    (struct server_loop *)((char *)timer - offsetof(struct server_loop, tick));
	uint64_t now = loop_now_ns();

	peer_conns_tick(sl, now);
	nbd_clients_tick(sl, now);
	share_wake_all(sl);
	if (sl->index == 0) {
		sessions_expire(sl->server->sessions, now);
		listen_again(sl->server);
	}
	loop_timer_set(sl->loop, &sl->tick, now + 1000000000u);
}

static void arrive(struct loop_task *task)
{
	struct arrival *arrival = (struct arrival *)((char *)task - offsetof(struct arrival, task));
	struct server_loop *sl = arrival->sl;
	struct err err;
	int rc = 0;

	if (sl->draining)
		close(arrival->fd);
	else if (arrival->protocol == SERVER_NBD)
		rc = nbd_client_start(sl, arrival->fd, arrival->address, &err);
	else
		rc = peer_conn_start(sl, arrival->fd, arrival->address, &err);
	if (rc)
		log_error("client %s: %s", arrival->address, err.text);
	free(arrival);
}

/* A client's address; of a Unix socket's client, who it is. */
static void address_text(int fd, const struct sockaddr_storage *sa, socklen_t len, char text[64])
{
	char host[48] = "?", port[8] = "?";
	struct ucred cred = {0};
	socklen_t cred_len = sizeof(cred);

	if (sa->ss_family == AF_UNIX) {
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &cred_len);
		snprintf(text, 64, "process %d (unix)", (int)cred.pid);
		return;
	}
	getnameinfo((const struct sockaddr *)sa, len, host, sizeof(host), port, sizeof(port),
	    NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(text, 64, sa->ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static void accept_ready(struct loop_fd *lfd, uint32_t events)
{
	struct listener *listener = (struct listener *)lfd;
	struct server *server = listener->server;

	for (unsigned n = 0; n < 64; n++) {
		struct sockaddr_storage sa = {0};
		socklen_t len = sizeof(sa);
		struct arrival *arrival;
		int fd =
		    accept4(lfd->fd, (struct sockaddr *)&sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0) {
			if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR)
				return;
			if (log_allowed(&server->accept_limit))
				log_error("cannot accept a connection: %s", strerror(errno));
			/* Else it would be ready again at once, for as long as it lasts. */
			loop_fd_set(lfd, 0);
			return;
		}
		arrival =
		    server->connections < CONNECTIONS_MAX ? calloc(1, sizeof(*arrival)) : NULL;
		if (!arrival) {
			if (log_allowed(&server->accept_limit))
				log_error("too many connections: one was refused");
			close(fd);
			continue;
		}
		arrival->fd = fd;
		arrival->protocol = listener->protocol;
		arrival->sl = &server->loops[server->next_loop++ % server->loop_count].sl;
		arrival->task.run = arrive;
		address_text(fd, &sa, len, arrival->address);
		loop_post(arrival->sl->loop, &arrival->task);
	}
}

/* Whether the Unix socket is one that a daemon which has died has left. */
static bool is_left_over(const struct address *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	bool refused = fd >= 0 &&
		       connect(fd, (const struct sockaddr *)&address->addr, address->addr_len) &&
		       errno == ECONNREFUSED;

	if (fd >= 0)
		close(fd);
	return refused;
}

/* -errno. */
static int bind_to(int fd, const struct address *address)
{
	const struct sockaddr *sa = (const struct sockaddr *)&address->addr;
	int on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (sa->sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (sa->sa_family == AF_UNIX)
		fchmod(fd, 0600); /* what bind makes has the socket's mode */
	if (bind(fd, sa, address->addr_len) == 0)
		return 0;
	if (errno != EADDRINUSE || sa->sa_family != AF_UNIX || !is_left_over(address))
		return -errno;
	unlink(((const struct sockaddr_un *)sa)->sun_path);
	return bind(fd, sa, address->addr_len) ? -errno : 0;
}

static void close_listener(struct listener *listener)
{
	loop_fd_del(&listener->lfd);
	if (listener->lfd.fd < 0)
		return;
	close(listener->lfd.fd);
	listener->lfd.fd = -1;
	if (*listener->path)
		unlink(listener->path);
}

int server_listen(struct server *server, enum server_protocol protocol,
    const struct address *address, struct err *err)
{
	struct listener *listener = &server->listeners[server->listener_count];
	int fd, rc;

	if (server->listener_count == LISTENERS_MAX)
		return err_set(err, -EINVAL, "%s: too many addresses to listen on", address->text);
	for (unsigned i = 0; protocol == SERVER_NBD && i < server->loop_count; i++)
		if (nbd_cmds_alloc(&server->loops[i].sl))
			return err_set(err, -ENOMEM, "out of memory for NBD requests");
	fd = socket(address->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(err, -errno, "cannot listen on %s", address->text);
	rc = bind_to(fd, address);
	if (rc == 0 && listen(fd, BACKLOG))
		rc = -errno;
	if (rc) {
		close(fd);
		return err_sys(err, rc, "cannot listen on %s", address->text);
	}
	*listener = (struct listener){
	    .lfd = {.fd = fd, .ready = accept_ready}, .server = server, .protocol = protocol};
	if (address->addr.ss_family == AF_UNIX)
		memcpy(listener->path, ((const struct sockaddr_un *)&address->addr)->sun_path,
		    sizeof(listener->path));
	server->listener_count++;
	log_info("listening on %s%s", address->text, protocol == SERVER_NBD ? " for NBD" : "");
	return 0;
}

/* ---- loops ---- */

static void *loop_main(void *arg)
{
	struct loop_thread *lt = arg;

	loop_run(lt->sl.loop);
	return NULL;
}

/* While draining: looks every 50 ms whether the last connection is gone. */
static void drain_check(struct loop_timer *timer)
{
	struct loop_thread *lt =
	    (struct loop_thread *)((char *)timer - offsetof(struct loop_thread, drain_timer));
	static const unsigned tries = DRAIN_S * 20;

	if ((lt->sl.conns || lt->sl.nbd_clients) && lt->sl.drain_checks++ < tries) {
		loop_timer_set(lt->sl.loop, timer, loop_now_ns() + 50000000u);
		return;
	}
	peer_conns_drain(&lt->sl, true);
	nbd_clients_drain(&lt->sl, true);
	loop_timer_cancel(&lt->sl.tick);
	loop_stop(lt->sl.loop);
}

static void drain(struct loop_task *task)
{
	struct loop_thread *lt =
	    (struct loop_thread *)((char *)task - offsetof(struct loop_thread, drain));
	struct server *server = lt->sl.server;

	if (lt->sl.index == 0) {
		for (unsigned i = 0; i < server->listener_count; i++)
			close_listener(&server->listeners[i]);
	}
	lt->sl.draining = true;
	peer_conns_drain(&lt->sl, false);
	nbd_clients_drain(&lt->sl, false);
	drain_check(&lt->drain_timer);
}

static int loop_init(struct server *server, unsigned index, unsigned spin_us, struct err *err)
{
	struct loop_thread *lt = &server->loops[index];
	struct loop_conf conf = {.spin_us = spin_us};
	int rc;

	lt->sl.server = server;
	lt->sl.index = index;
	lt->sl.waiting_tail = &lt->sl.waiting;
	lt->sl.tick.expired = tick;
	lt->drain.run = drain;
	lt->drain_timer.expired = drain_check;
	rc = loop_create(&conf, &lt->sl.loop, err);
	if (rc == 0)
		rc = bufpool_create(SERVER_SMALL, SERVER_SMALL_COUNT, false, &lt->sl.small, err);
	if (rc == 0)
		rc = bufpool_create(SERVER_BIG, SERVER_BIG_COUNT, false, &lt->sl.big, err);
	if (rc == 0 && peer_reqs_alloc(&lt->sl))
		rc = err_set(err, -ENOMEM, "out of memory for requests");
	return rc;
}

static int read_boot(uint8_t boot[16])
{
	char text[64] = "";
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC), n = 0;

	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 36) {
		if (fd >= 0)
			close(fd);
		return -EIO;
	}
	close(fd);
	for (const char *p = text; *p && n < 16; p++) {
		unsigned byte;

		if (*p == '-' || sscanf(p, "%2x", &byte) != 1)
			continue;
		boot[n++] = (uint8_t)byte;
		p++;
	}
	return n == 16 ? 0 : -EIO;
}

int server_create(const struct server_conf *conf, struct server **ret_server, struct err *err)
{
	struct server *server = calloc(1, sizeof(*server));
	int rc = 0;

	if (!server)
		return err_set(err, -ENOMEM, "out of memory for the server");
	server->sessions = sessions_create();
	server->nbd_exports = nbd_exports_create();
	if (!server->sessions || !server->nbd_exports)
		rc = err_set(err, -ENOMEM, "out of memory for the server");
	server->pools = conf->pools;
	server->pool_count = conf->pool_count;
	server->residence = conf->residence;
	server->loop_count = conf->threads < LOOPS_MAX ? conf->threads : LOOPS_MAX;
	if (rc == 0 && (getrandom(server->instance, 16, 0) != 16 || read_boot(server->boot)))
		rc = err_set(
		    err, -EIO, "cannot read random numbers or /proc/sys/kernel/random/boot_id");
	for (unsigned i = 0; i < server->loop_count && rc == 0; i++)
		rc = loop_init(server, i, conf->spin_us, err);
	if (rc) {
		server_destroy(server);
		return rc;
	}
	*ret_server = server;
	return 0;
}

int server_start(struct server *server, struct err *err)
{
	int rc;

	for (unsigned i = 0; i < server->listener_count; i++) {
		rc = loop_fd_add(server->loops[0].sl.loop, &server->listeners[i].lfd, EPOLLIN);
		if (rc)
			return err_sys(err, rc, "cannot watch a listening socket");
	}
	for (unsigned i = 0; i < server->loop_count; i++) {
		struct loop_thread *lt = &server->loops[i];

		loop_timer_set(lt->sl.loop, &lt->sl.tick, loop_now_ns() + 1000000000u);
		rc = pthread_create(&lt->thread, NULL, loop_main, lt);
		if (rc)
			return err_sys(err, -rc, "cannot start a thread");
		lt->started = true;
	}
	return 0;
}

bool server_stop(struct server *server)
{
	bool clean = true;

	for (unsigned i = 0; i < server->loop_count; i++)
		if (server->loops[i].started)
			loop_post(server->loops[i].sl.loop, &server->loops[i].drain);
	for (unsigned i = 0; i < server->loop_count; i++) {
		if (server->loops[i].started)
			pthread_join(server->loops[i].thread, NULL);
		clean = clean && !server->loops[i].sl.conns && !server->loops[i].sl.nbd_clients;
	}
	return clean;
}

void server_destroy(struct server *server)
{
	if (!server)
		return;
	sessions_destroy(server->sessions);
	nbd_exports_destroy(server->nbd_exports);
	for (unsigned i = 0; i < server->listener_count; i++)
		close_listener(&server->listeners[i]);
	for (unsigned i = 0; i < server->loop_count; i++) {
		struct server_loop *sl = &server->loops[i].sl;

		peer_reqs_free(sl);
		nbd_cmds_free(sl);
		bufpool_destroy(sl->small);
		bufpool_destroy(sl->big);
		loop_destroy(sl->loop);
	}
	free(server);
}
