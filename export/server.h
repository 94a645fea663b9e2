/* SPDX-License-Identifier: Apache-2.0
 *
 * The donor's server: its loops, its listening sockets, and what every connection on a loop shares.
 *
 * A connection belongs to one loop for its whole life.  Memory is bounded: each loop has a fixed number
 * of requests and buffers, made at start; a connection that finds none, or holds more than are left, is
 * not read from until one comes back.
 */
#ifndef REMRAM_EXPORT_SERVER_H
#define REMRAM_EXPORT_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "core/loop.h"
#include "core/pool.h"
#include "core/workers.h"
#include "export/address.h"

struct server;
struct server_loop;
struct sessions;
struct peer_conn;
struct peer_req;
struct nbd_client;
struct nbd_cmd;
struct nbd_exports;
struct residence;
struct share;

struct server_conf {
	unsigned threads; /* loops */
	unsigned spin_us;
	struct pool **pools; /* kept; all are core/local_pool's */
	unsigned pool_count;
	struct residence
	    *residence; /* kept; of all their regions.  NULL: they are resident, none is dirty */
};

int server_create(const struct server_conf *conf, struct server **ret_server, struct err *err);

enum server_protocol { SERVER_PEER, SERVER_NBD };

/* Listens on an address for clients that speak the protocol.  A Unix socket that nobody listens on any more is
 * replaced; it is removed at the end.  Before server_start. */
int server_listen(struct server *server, enum server_protocol protocol,
    const struct address *address, struct err *err);

/* Starts the loops; returns at once. */
int server_start(struct server *server, struct err *err);

/* Orderly end: no new connections and requests; what is in flight is answered (at most 10 s); then
 * the loops end.  Blocks.  False if a connection's requests had not ended by then: then nothing that
 * they use may be freed. */
bool server_stop(struct server *server);

/* After server_stop, or if it was never started. */
void server_destroy(struct server *server);

/* Connections now open. */
unsigned server_connections(const struct server *server);

/* ---- for the connections (export/peer_conn.c, export/nbd_client.c) ---- */

enum {
	SERVER_SMALL = 16 * 1024, /* bytes of a small buffer */
	SERVER_BIG = 1 << 20, /* bytes of a big one */
	SERVER_REQS = 4096, /* per loop */
	SERVER_SMALL_COUNT = 2048,
	SERVER_BIG_COUNT = 64,
};

struct bufpool;

/* What the connections of one loop share; loop thread only. */
struct server_loop {
	struct server *server;
	struct loop *loop;
	unsigned index;
	struct bufpool *small, *big;
	struct peer_req *reqs, *free_reqs;
	unsigned free_req_count;
	struct peer_conn *conns; /* all of this loop */
	struct nbd_cmd *nbd_cmds, *nbd_free; /* there once an NBD address is listened on */
	unsigned nbd_free_count;
	uint8_t *nbd_sink; /* takes payloads that nobody wants */
	struct nbd_client *nbd_clients;
	struct share *waiting, **waiting_tail; /* those that found no request or buffer */
	struct loop_timer tick; /* once a second while there are connections */
	bool draining;
	unsigned drain_checks;
};

struct pool *server_pool(struct server *server, const char *name);
/* The pools by number, NULL behind the last. */
struct pool *server_pool_at(struct server *server, unsigned idx);
/* "disk, scratch": for messages. */
void server_pool_names(struct server *server, char *buf, size_t room);
struct sessions *server_sessions(struct server *server);
struct nbd_exports *server_nbd_exports(struct server *server);
struct residence *server_residence(const struct server *server);
/* Random, of this process; and of this boot of the kernel. */
const uint8_t *server_instance(const struct server *server);
const uint8_t *server_boot(const struct server *server);
/* Calls from a loop's thread: a connection has begun or ended there. */
void server_conn_count(struct server *server, int change);

#endif
