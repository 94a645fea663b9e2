/* SPDX-License-Identifier: Apache-2.0
 *
 * The donor's NBD server: one connection of an NBD client, from the handshake to its end.  docs/NBD.md says
 * what is served and how.
 *
 * The clients of a loop share its buffers with the other connections there (export/share.h).
 */
#ifndef REMRAM_EXPORT_NBD_CLIENT_H
#define REMRAM_EXPORT_NBD_CLIENT_H

#include <stdint.h>

#include "core/err.h"
#include "export/server.h"

struct nbd_exports;

/* Allocates what NBD clients need of a loop, unless it is there; nbd_cmds_free undoes it. 0 or -ENOMEM. */
int nbd_cmds_alloc(struct server_loop *sl);
void nbd_cmds_free(struct server_loop *sl);

/* Which regions are open through NBD, for all loops. NULL: out of memory. */
struct nbd_exports *nbd_exports_create(void);
void nbd_exports_destroy(struct nbd_exports *exports);

/* Serves fd (taken) on sl's loop; address is for messages, copied.  Loop thread. */
int nbd_client_start(struct server_loop *sl, int fd, const char *address, struct err *err);

/* Once a second, for each client of a loop: closes those whose handshake takes too long, those that do not
 * take their replies or send their payloads (share_stalled), and those that read a region that was removed. */
void nbd_clients_tick(struct server_loop *sl, uint64_t now_ns);

/* No more requests are read; connections end when their last reply is out.  now: end them as they are. */
void nbd_clients_drain(struct server_loop *sl, bool now);

#endif
