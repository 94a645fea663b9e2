/* SPDX-License-Identifier: Apache-2.0
 *
 * One connection of a client, on the donor: the server's side of docs/PROTOCOL.md.
 */
#ifndef REMRAM_EXPORT_PEER_CONN_H
#define REMRAM_EXPORT_PEER_CONN_H

#include <stdint.h>

#include "core/err.h"
#include "export/server.h"

/* Allocates sl->reqs; peer_reqs_free undoes it. 0 or -ENOMEM. */
int peer_reqs_alloc(struct server_loop *sl);
void peer_reqs_free(struct server_loop *sl);

/* Serves fd (taken) on sl's loop; address is for messages, copied.  Loop thread. */
int peer_conn_start(struct server_loop *sl, int fd, const char *address, struct err *err);

/* Once a second, for each connection of a loop: closes those that have not said HELLO in time, have
 * not taken any of their replies for a minute, or have stopped in the middle of a payload for as long
 * (5 s if others wait for requests or buffers); tells those that must wait that the donor is alive. */
void peer_conns_tick(struct server_loop *sl, uint64_t now_ns);

/* No more requests are read; connections end when their last reply is out.  now: end them as they
 * are. */
void peer_conns_drain(struct server_loop *sl, bool now);

/* For the registry of sessions, from any thread, its lock held: this one must end, since another connection
 * of the same session waits for that, or a lease of the session was taken; this connection waits no
 * longer; there are notices to send. */
void peer_conn_displace(struct peer_conn *conn);
void peer_conn_admit(struct peer_conn *conn);
void peer_conn_notice(struct peer_conn *conn);

#endif
