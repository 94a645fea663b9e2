/* SPDX-License-Identifier: Apache-2.0
 *
 * A donor and a client in the test's own process, so that sanitizers watch both: a server on a loopback
 * address, and a peer pool on a loop of the rig.  And build/tools/proxy, to put between them.
 *
 * Everything asserts (libcheck) instead of returning errors, unless a test wants to know.
 */
#ifndef REMRAM_TESTS_SERVE_H
#define REMRAM_TESTS_SERVE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "backends/peer.h"
#include "export/server.h"
#include "tests/lib/rig.h"

/* ---- the donor's side ---- */

enum { SERVE_POOLS = 2 };

struct serve {
	uint16_t port; /* 127.0.0.1 */
	char dir[RIG_PATH_MAX];
	char nbd[RIG_PATH_MAX + 8]; /* Unix socket of the NBD exports; "": there are none */
	uint64_t size; /* bytes of each pool */
	struct workers *workers;
	struct pool *pools[SERVE_POOLS]; /* "ram" in memory, "disk" in files */
	struct server *server;
};

void serve_start(struct serve *serve, uint64_t size);
/* The same, and its regions are NBD exports. */
void serve_start_nbd(struct serve *serve, uint64_t size);
/* Ends the server and the pools, as SIGTERM does; begins anew on the same port with the same files. */
void serve_restart(struct serve *serve);
/* The two halves of that. */
void serve_end(struct serve *serve);
void serve_again(struct serve *serve);
void serve_stop(struct serve *serve);

/* ---- the client's side ---- */

struct client {
	struct loop *loop; /* runs on a thread of the rig */
	struct pool *pool; /* NULL: not connected */
	struct pool *donor; /* what pool reads ahead of; NULL: it is the donor's itself */
	uint64_t session; /* of its pool requests */
};

struct client_conf {
	uint16_t port;
	const char *pool;
	bool soft;
	uint64_t timeo_ms;
	uint64_t look_ms; /* as in struct peer_conf */
	unsigned conns;
	bool ahead; /* with reading ahead (core/ahead.h) */
};

/* Connects and waits for the answer: 0 or its error (text to err). */
int client_open(
    struct client *client, struct loop *loop, const struct client_conf *conf, struct err *err);
void client_close(struct client *client);
void client_status(struct client *client, struct peer_status *ret_status);
/* Waits up to 20 s until so many connections are up. */
void client_wait_conns(struct client *client, unsigned count);
/* Waits up to 20 s for the state. */
void client_wait(struct client *client, enum peer_state state);

/* A request of a pool that a test can wait for. */
struct client_req {
	struct pool_req req;
	int err; /* 1 until done */
	/* Private. */
	struct client *client;
	struct client_wait *wait;
};

/* Submits and waits: what done got. */
int client_ask(struct client *client, struct pool_req *req);
/* The same in steps. */
struct client_wait *client_begin(struct client *client, struct client_req *reqs, unsigned count);
void client_interrupt(struct client *client, struct client_req *req);
/* How many are not done yet. */
unsigned client_left(struct client_wait *wait);
void client_end(struct client_wait *wait);

/* Creates a region (or opens it if it is there) for reading and writing. */
struct handle *client_create(struct client *client, const char *name);
int client_open_region(
    struct client *client, const char *name, unsigned flags, struct handle **ret_handle);
void client_close_handle(struct client *client, struct handle *handle);
/* Interrupts a data request of rig_begin. */
void client_interrupt_data(struct client *client, struct rig_req *req);

/* ---- between them ---- */

struct proxy {
	pid_t pid;
	uint16_t port;
	int in, out; /* its stdin and stdout */
};

void proxy_start(struct proxy *proxy, uint16_t target);
/* A command of tests/tools/proxy.c, which must succeed. */
void proxy_tell(struct proxy *proxy, const char *command);
void proxy_stop(struct proxy *proxy);

#endif
