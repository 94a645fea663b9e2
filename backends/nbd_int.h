/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the NBD backend share:
 *
 *   nbd.c       URIs, the place, what the pool asks of it
 *   nbd_dial.c  one attempt to connect, which blocks
 *   nbd_link.c  the connections: lost, made again, given up
 *   nbd_req.c   requests → commands → done
 *   nbd_edge.c  requests that cut a server's blocks in two
 *   nbd_hand.c  requests from loops that do not have the connections
 *   nbd_lib.c   the library
 *
 * The connections of a store belong to one loop, the first that submits to it (its owner).
 */
#ifndef REMRAM_BACKENDS_NBD_INT_H
#define REMRAM_BACKENDS_NBD_INT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "backends/nbd_lib.h"
#include "core/backend.h"
#include "core/log.h"
#include "core/loop.h"
#include "core/workers.h"

enum {
	NBD_CONNS_DEFAULT = 4,
	NBD_CONNS_MAX = 16,
	NBD_PORT = 10809,
	NBD_JOBS = 1024, /* requests being served; more wait in order */
	NBD_CMDS = 1024, /* commands at the server, over all connections */
	NBD_LINK_CMDS = 256, /* of one connection */
	NBD_EDGES = 16, /* requests with cut blocks at once */
	NBD_ALIGN_MAX = 65536, /* the largest minimum block that NBD allows */
};

#define NBD_RANGE_MAX \
	((uint64_t)1 << 30) /* of one ZERO or EXTENTS command: its length has 32 bits */

/* ---- nbd_dial.c ---- */

/* How a server is reached; constant after open. */
struct nbd_address {
	char *text; /* the URI, for messages */
	char *host, *port; /* TCP; or */
	char *socket; /* a Unix socket's path */
	char *export;
	bool tls;
	bool tls_no_verify;
	char *tls_certificates, *tls_psk_file, *tls_username;
};

/* What a server has said of the export. */
struct nbd_features {
	uint64_t size; /* bytes; a multiple of align */
	uint32_t align; /* bytes: its smallest block */
	uint32_t max_len; /* bytes: longest READ and WRITE that is sent */
	bool plain; /* the connection has simple replies: extents does not count */
	bool here; /* the server is on this machine */
	bool read_only, multi_conn, flush, fua, zero, extents;
};

/* Connects and shakes hands; plain: with simple replies, see nbd_link.c.  Blocks, for at most some seconds (longer if the resolver does), and ends
 * early when *cancel becomes true. */
int nbd_dial(const struct nbd_address *address, bool plain, const _Atomic bool *cancel,
    struct nbd_handle **ret_handle, struct nbd_features *ret_features, struct err *err);
/* "nbd_connect_uri: nbd_opt_go: no such export" → "no such export" */
const char *nbd_cause(const char *text);
/* Whether an export that was `was` can be used on as `now`: 0, or -ESTALE and a sentence. */
int nbd_features_check(const struct nbd_address *address, const struct nbd_features *was,
    const struct nbd_features *now, struct err *err);
void nbd_address_fini(struct nbd_address *address);

/* ---- the place ---- */

struct nbd_store;

struct nbd_place {
	struct backend backend;

	/* Constant after open. */
	struct nbd_address address;
	struct nbd_features features;
	unsigned conns;
	struct workers *dialer; /* one thread, for connections that are made again */
	_Atomic bool cancel; /* it should hurry */

	_Atomic uint64_t
	    timeo_ns; /* how long requests wait for a server that is away; 0: for ever */
	struct nbd_handle *first[NBD_CONNS_MAX]; /* made by open, until the store takes them */
	struct nbd_store *store; /* open, or NULL */
};

/* ---- the store ---- */

struct nbd_job;
struct nbd_link;

/* One command at the server, or to be sent again. */
struct nbd_cmd {
	struct nbd_cmd *prev, *next; /* of its link; or (next only) of the replay list, or free */
	struct nbd_job *job;
	struct nbd_link *link; /* NULL: to be sent again */
	enum store_op op; /* READ, WRITE, ZERO, FLUSH, EXTENTS */
	uint32_t flags; /* LIBNBD_CMD_FLAG_* */
	uint64_t off, len;
	void *buf;
	int err;
};

/* Room for the two blocks that a request cuts. */
struct nbd_edge {
	struct nbd_edge *next; /* free */
	uint8_t *buf; /* 2 × align bytes: the first block and the last */
};

enum nbd_stage {
	JOB_MAIN, /* its middle part, and reading the blocks that it cuts */
	JOB_EDGES, /* writing those */
	JOB_STABLE, /* FUA that the server can't do: a flush */
};

enum { EDGE_HEAD = 1, EDGE_TAIL = 2 };

/* A request that is being served. */
struct nbd_job {
	struct nbd_job *next; /* of the ready or maps list, the blocked list, or free */
	struct store_req *req; /* NULL: free */
	enum nbd_stage stage;
	uint64_t pos, end; /* the middle part: what is still to be asked for */
	uint64_t lo, hi; /* all blocks that it touches */
	unsigned cmds; /* at the server or to be sent again */
	unsigned edges; /* of enum EDGE_*: commands of this stage that are still to be made */
	struct nbd_edge *edge;
	struct nbd_job *writer_prev, *writer_next; /* align > 1: writers, see nbd_edge.c */
	bool writing; /* is in that list */
	bool ready; /* is in the ready or maps list */
	bool blocked; /* is in the blocked list */
	bool flush_wanted; /* the stage JOB_STABLE has its command to make */
	bool interrupted;
	int err;
};

/* One connection. */
struct nbd_link {
	struct loop_fd lfd; /* first */
	struct nbd_store *ns;
	struct nbd_handle *handle; /* NULL: down */
	bool closing; /* completions are ignored from here on */
	bool no_cork;
	bool served; /* it has answered something */
	bool leaving; /* the server has said that it is shutting down */
	uint64_t up_ns; /* since when it is up */
	struct nbd_cmd *first, *last; /* at the server, in the order of issue */
	unsigned cmds;
	uint64_t replies;
	uint64_t reply_bytes; /* of simple replies, as they were on the wire */
	uint64_t seen_replies; /* at the last tick */
	uint64_t moved_ns; /* when there was last a new one, as ticks see it */
};

/* The requests of another loop than the owner; see nbd_hand.c. */
struct nbd_mail {
	struct nbd_mail *next;
	struct nbd_store *ns;
	struct loop *loop; /* whose requests these are */
	pthread_mutex_t mu;
	struct store_req *in, **in_tail; /* protected by mu: to the owner */
	struct store_req *out, **out_tail; /* protected by mu: done */
	struct loop_task in_task, out_task;
};

struct nbd_store {
	struct store store;
	struct nbd_place *place;
	struct nbd_features features;

	/* Protected by mu, which is not held across anything. */
	pthread_mutex_t mu;
	pthread_cond_t dial_ended;
	_Atomic(struct loop *) owner;
	pthread_t thread; /* the owner's */
	_Atomic(struct nbd_mail *) mails;
	bool dialing;
	bool quitting; /* no more dialing */
	bool left; /* leave_task has run */
	struct nbd_handle *dialed; /* what the dialer brought; NULL: dial_err says why not */
	struct nbd_features dialed_features;
	struct err dial_err;

	/* The owner's thread only, from here on. */
	struct loop_end loop_end;
	struct loop_task dial_task; /* the dialer has ended */
	struct loop_task leave_task;
	struct loop_task give_up_task;
	struct work dial_work;
	struct nbd_link *dial_link; /* whom the dialer works for */

	struct nbd_link links[NBD_CONNS_MAX];
	unsigned link_count, up_count;
	struct loop_timer retry, patience, tick;
	unsigned backoff_ms;
	_Atomic bool failed; /* sticky */
	_Atomic bool soft_expired;
	_Atomic uint64_t since_ns; /* connected, or away */
	_Atomic unsigned reconnects, status_up, in_flight;
	struct log_limit down_limit;

	struct nbd_job *jobs; /* NBD_JOBS */
	struct nbd_job *free_jobs;
	struct nbd_cmd *cmds; /* NBD_CMDS */
	struct nbd_cmd *free_cmds;
	struct store_req *waiting, **waiting_tail; /* found no job */
	struct nbd_job *ready, **ready_tail; /* have commands to make */
	struct nbd_job *maps, **maps_tail; /* the same: EXTENTS, which only links[0] takes */
	struct nbd_cmd *replay, **replay_tail;
	struct nbd_cmd *done, **done_tail; /* answered, job not yet told */
	struct loop_task issue_task;
	unsigned interrupted; /* jobs that wait for a silent server */
	uint64_t interrupted_ns; /* since when there are any */
	bool acked_writes; /* since the last flush */

	/* nbd_edge.c; align > 1 only. */
	struct nbd_edge *edges, *free_edges;
	uint8_t *edge_mem;
	struct nbd_job *writers;
	struct nbd_job *blocked, **blocked_tail;
};

/* ---- nbd_req.c ---- */

int nbd_store_create(struct nbd_place *place, struct store **ret_store, struct err *err);
/* A request arrives on the owner's thread. */
void nbd_req_start(struct nbd_store *ns, struct store_req *req);
void nbd_req_interrupt(struct nbd_store *ns, struct store_req *req);
/* Ends what the server has answered: after every call into libnbd that may have completed commands. */
void nbd_req_reap(struct nbd_store *ns);
/* The link's commands will be sent again. */
void nbd_req_lost(struct nbd_store *ns, struct nbd_link *link);
/* There is a link for what waits. */
void nbd_req_kick(struct nbd_store *ns);
/* Ends everything; no link is up. */
void nbd_req_fail_all(struct nbd_store *ns, int err);
/* The job has commands to make. */
void nbd_job_ready(struct nbd_store *ns, struct nbd_job *job);
/* -errno with which new requests end at once, or 0. */
int nbd_req_refuses(const struct nbd_store *ns);

/* ---- nbd_edge.c ---- */

int nbd_edge_init(struct nbd_store *ns);
void nbd_edge_fini(struct nbd_store *ns);
/* Sets the job's ranges; false: it must wait for another job, and has been put aside. */
bool nbd_edge_begin(struct nbd_store *ns, struct nbd_job *job);
/* The job's next command for a block that it cuts; job->edges is not 0. */
void nbd_edge_cmd(struct nbd_store *ns, struct nbd_job *job, struct nbd_cmd *cmd);
/* The commands of stage JOB_MAIN have succeeded: true if there are blocks to be written now. */
bool nbd_edge_patch(struct nbd_store *ns, struct nbd_job *job);
/* The job is about to end: those that waited for it go on. */
void nbd_edge_end(struct nbd_store *ns, struct nbd_job *job);
/* Takes a job that waits out of the list. */
void nbd_edge_unblock(struct nbd_store *ns, struct nbd_job *job);

/* ---- nbd_link.c ---- */

void nbd_link_init(struct nbd_store *ns);
/* The calling loop becomes the owner. */
void nbd_link_adopt(struct nbd_store *ns, struct loop *loop);
/* Ends the connections and leaves the owner; nothing is in flight.  Any thread. */
void nbd_link_leave(struct nbd_store *ns);
void nbd_link_give_up(struct nbd_store *ns);
/* After calls into libnbd: notices a connection's end, waits for what libnbd waits for. */
void nbd_link_check(struct nbd_link *link);
/* Ticks are wanted: a request was interrupted, or TLS may hold data back. */
void nbd_link_watch(struct nbd_store *ns);

/* ---- nbd_hand.c ---- */

void nbd_hand_over(struct nbd_store *ns, struct store_req *req);
void nbd_hand_fini(struct nbd_store *ns);

#endif
