/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the NBD server share: nbd_client.c (the connection), nbd_option.c and nbd_list.c (the
 * handshake), nbd_export.c (names and regions), nbd_cmd.c (commands' memory and replies), nbd_io.c (what they
 * do), nbd_status.c (BLOCK_STATUS, and CACHE of what is elsewhere).  Everything runs on the connection's loop.
 */
#ifndef REMRAM_EXPORT_NBD_INT_H
#define REMRAM_EXPORT_NBD_INT_H

#include "core/bufpool.h"
#include "core/conn.h"
#include "core/log.h"
#include "core/pool.h"
#include "core/residence.h"
#include "core/store.h"
#include "export/nbd_client.h"
#include "export/nbd_wire.h"
#include "export/server.h"
#include "export/share.h"

enum {
	NBD_INLINE_MAX = 256, /* bytes of an option's data that need no buffer */
	NBD_REPLY_MAX = 1536, /* bytes of all replies to an option but LIST */
	NBD_TEXT_MAX = 512, /* of an error's text */
	NBD_QUEUED_MAX = 16 << 20, /* bytes of unsent replies: then no more commands are read */
	NBD_SINK_LEN = 64 * 1024, /* for payloads that nobody wants */
};

enum nbd_state { NBD_GREETED, NBD_OPTIONS, NBD_UP, NBD_CLOSING };

/* Meta contexts; the bit number and 1 make the id on the wire. */
enum nbd_context { NBD_ALLOCATION = 1, NBD_RESIDENT = 2, NBD_DIRTY = 4, NBD_CONTEXTS = 3 };

/* An export that a client has named. */
struct nbd_found {
	struct pool *pool;
	struct region_attr attr;
	char region[POOL_NAME_MAX + 1];
	bool read_only;
};

struct nbd_export;
struct nbd_cmd;

struct nbd_client {
	struct server_loop *sl;
	struct conn *conn; /* NULL once closed */
	struct nbd_client *prev, *next; /* of the loop */
	struct share share;
	enum nbd_state state;
	unsigned in_flight; /* commands' parts, and an option that waits for a pool */
	bool draining; /* no more is read */
	bool throttled; /* paused: too much of it is in flight or unsent */
	bool busy; /* paused: an option is being carried out */
	uint64_t start_ns;
	uint32_t skip; /* bytes of a payload that is dropped */
	char address[64];
	struct log_limit limit;

	/* The handshake. */
	bool fixed, no_zeroes;
	enum nbd_mode mode;
	uint32_t option, option_len;
	void *option_buf; /* of sl->small, or NULL */
	const uint8_t *data; /* the option's data */
	bool end; /* closes when the reply is out */
	unsigned contexts; /* of enum nbd_context, chosen for: */
	struct pool *contexts_pool;
	uint64_t contexts_region;
	struct nbd_found found;
	struct nbd_go go;
	struct {
		unsigned pool; /* LIST is at this one … */
		uint64_t cookie; /* … here */
	} list;
	struct conn_out out;
	uint8_t *reply_end;
	uint8_t inline_data[NBD_INLINE_MAX];
	uint8_t reply[NBD_REPLY_MAX];
	struct pool_req preq;

	/* Transmission. */
	struct nbd_export *export;
	struct handle *handle;
	void (*opened)(struct nbd_client *nc, int err); /* what waits for the pool */
	struct loop_timer again; /* opens once more */
	unsigned tries;
	void (*closed)(struct nbd_client *nc);
	uint64_t size; /* bytes, as told in the handshake */
	bool read_only;
	struct nbd_request request; /* being received */
	struct nbd_cmd *current; /* its command; of a WRITE: the part whose payload comes now */
};

/* A command; of a READ or WRITE of more than STORE_LEN_MAX bytes, the first of its parts, of which each has
 * a place for its bytes and a request to the store. */
struct nbd_cmd {
	struct conn_out out; /* first */
	struct nbd_cmd *next; /* the next part; or free list */
	struct nbd_cmd *head; /* the first part */
	struct nbd_client *nc;
	uint64_t off; /* this part's range; of one that goes step by step: what is left */
	uint64_t len;
	void *buf; /* from bufs, or NULL */
	struct bufpool *bufs;
	void *lent; /* WRITE: the payload is received into the region (store_lend), or NULL */
	struct store *lender; /* a loan of off, len to end; or NULL */
	struct store_req sreq;
	struct loop_task task; /* the next step */
	struct residence_req residence; /* BLOCK_STATUS, CACHE */
	struct loop_timer again; /* CACHE: asks whether it is there now */
	unsigned asked; /* how often it has */
	/* Of the first part. */
	struct nbd_request request;
	unsigned undone; /* parts that the store has not completed */
	unsigned unsent; /* replies that are not out */
	int err; /* of the first part that failed */
	bool allocated; /* WRITE_ZEROES with NO_HOLE: this step's space is reserved */
	uint8_t header[4 * NBD_CHUNK_HEAD_MAX];
};

/* ---- nbd_client.c ---- */

/* Ends the connection; its commands end by themselves. */
void nbd_client_close(struct nbd_client *nc);
/* Something that was counted in in_flight has ended; the connection may be gone afterwards. */
void nbd_client_drop(struct nbd_client *nc, unsigned count);
/* Logs what the client does wrong; returns -EPROTO, which closes the connection. */
int nbd_client_bad(struct nbd_client *nc, const char *why);
/* The handshake is over: nc->handle is served. */
void nbd_client_up(struct nbd_client *nc);

/* ---- nbd_option.c ---- */

/* Carries out nc->option; 0 or -EPROTO, which closes the connection. */
int nbd_option_run(struct nbd_client *nc);
/* For an option whose data was too long to be kept. */
void nbd_option_too_big(struct nbd_client *nc);
/* Adds a reply with len bytes of data (copied); sends what was added. */
void nbd_option_reply(struct nbd_client *nc, uint32_t type, const void *data, size_t len);
void nbd_option_error(struct nbd_client *nc, uint32_t type, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void nbd_option_send(struct nbd_client *nc);
/* The option is done with: its buffer goes back. */
void nbd_option_end(struct nbd_client *nc);

/* ---- nbd_list.c ---- */

int nbd_list_start(struct nbd_client *nc);

/* ---- nbd_export.c ---- */

/* Finds what a client's name means; 0 or -ENOENT. */
int nbd_export_find(
    struct nbd_client *nc, const struct nbd_name *name, struct nbd_found *ret_found);
/* The name of a region's export; the length. buf has NBD_EXPORT_NAME_MAX bytes. */
enum { NBD_EXPORT_NAME_MAX = 64 + 1 + POOL_NAME_MAX + 1 };
size_t nbd_export_name(const struct pool *pool, const char *region, char buf[NBD_EXPORT_NAME_MAX]);
/* A pool's request that only looks: they end at once. */
int nbd_export_look(struct pool *pool, struct pool_req *req);
/* Opens nc->found for transmission; done(nc, err) now or later, nc->handle set if err is 0. */
void nbd_export_open(struct nbd_client *nc, void (*done)(struct nbd_client *nc, int err));
/* Closes nc->handle; done(nc) now or later. */
void nbd_export_close(struct nbd_client *nc, void (*done)(struct nbd_client *nc));
/* A name as it may stand in a message. */
const char *nbd_export_printable(const struct nbd_name *name, char buf[NBD_TEXT_MAX / 2]);

/* ---- nbd_cmd.c ---- */

/* A command for nc->request with its parts and their memory, or NULL: none now. */
struct nbd_cmd *nbd_cmd_get(struct nbd_client *nc);
/* Parts from this one on are not going to be submitted: the connection has ended. */
void nbd_cmd_abandon(struct nbd_cmd *part);
/* A part's buffer, or its loan as well, goes back already. */
void nbd_cmd_drop_buffer(struct nbd_cmd *part);
void nbd_cmd_release(struct nbd_cmd *part);
/* Answers a command that has no data to return: 0 or -errno; or an NBD error. */
void nbd_cmd_answer(struct nbd_cmd *cmd, int err);
void nbd_cmd_refuse(struct nbd_cmd *cmd, uint32_t error);
/* Sends what part->out has.  head->unsent, set before the first, is how many a command sends in all. */
void nbd_cmd_send(struct nbd_cmd *part);

/* ---- nbd_io.c ---- */

/* Carries out a command without payload. */
void nbd_io_start(struct nbd_cmd *cmd);
/* A part of a WRITE is there. */
void nbd_io_write(struct nbd_cmd *part);
/* Has the region's store do something with a part. */
void nbd_io_submit(struct nbd_cmd *part, enum store_op op, unsigned flags, uint64_t off,
    uint64_t len, store_done_fn *done);

/* ---- nbd_status.c ---- */

/* The contexts of enum nbd_context that exports here have. */
unsigned nbd_status_contexts(const struct nbd_client *nc);
void nbd_status_start(struct nbd_cmd *cmd);
/* Carries out a CACHE, if the region's residence can; else false. */
bool nbd_status_pull(struct nbd_cmd *cmd);

#endif
