/* SPDX-License-Identifier: Apache-2.0
 *
 * One connection of an NBD client.
 *
 * States:
 *   GREETED → (client flags) → OPTIONS → (GO or EXPORT_NAME that succeeds) → UP
 *   any → CLOSING (failed, ended, drained): nothing is read any more; when the last command is back
 *   (in_flight == 0) the region is closed and the connection freed.
 *
 * An option is carried out one at a time: the next is not read before the reply to this one is out, so that
 * a handshake takes a bounded amount of memory.  A command is as in export/peer_conn.c: nc_header() takes a
 * struct nbd_cmd and its memory, or pauses the connection; nc_frame() starts it; its reply gives it back.
 *
 * Invariants:
 *   1. in_flight counts the parts of commands that are not back, the one being received among them, and an
 *      option that waits for a pool.
 *   2. A payload that is not wanted (an error, a long option) is received into sl->sink, which is never
 *      read, and then answered: a client that sends one is never out of step.
 *   3. What is not NBD, or would leave the two out of step, ends this connection, with a line in the log, and
 *      changes nothing.
 *   4. Before a region is open a client holds no memory but its connection and one small buffer at most, and
 *      for HANDSHAKE_S seconds at most.
 */
#include "export/nbd_int.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	HANDSHAKE_S = 10, /* until transmission begins */
	IN_FLIGHT_MAX = 1024, /* parts of commands */
	DROP_MAX = 64 << 20, /* the longest payload that is received to be dropped */
	OPTION_DROP_MAX = 1 << 20, /* the same of an option */
};

int nbd_client_bad(struct nbd_client *nc, const char *why)
{
	if (log_allowed(&nc->limit))
		log_warn("client %s: NBD: %s: connection closed", nc->address, why);
	return -EPROTO;
}

/* ---- the handshake ---- */

static int take_flags(struct nbd_client *nc)
{
	uint32_t flags = nbd_get32(nc->inline_data);

	if (flags & ~(uint32_t)(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES))
		return nbd_client_bad(nc, "unknown client flags");
	nc->fixed = flags & NBD_FIXED_NEWSTYLE;
	nc->no_zeroes = flags & NBD_NO_ZEROES;
	nc->state = NBD_OPTIONS;
	conn_set_header_len(nc->conn, NBD_OPTION_LEN);
	return 0;
}

/* Where an option's data goes. */
static int option_header(
    struct nbd_client *nc, const uint8_t *header, void **ret_buf, uint32_t *ret_len)
{
	if (nc->busy || conn_queued(nc->conn) > 0) {
		nc->throttled = true;
		return -EAGAIN;
	}
	if (nbd_wire_option(header, &nc->option, &nc->option_len))
		return nbd_client_bad(nc, "not an option (wrong magic)");
	*ret_len = nc->option_len;
	if (nc->option_len > OPTION_DROP_MAX)
		return nbd_client_bad(nc, "an option is longer than any can be");
	if (nc->option_len > SERVER_SMALL) {
		nc->skip = nc->option_len;
		*ret_len = nc->skip < NBD_SINK_LEN ? nc->skip : NBD_SINK_LEN;
		*ret_buf = nc->sl->nbd_sink;
		return 0;
	}
	if (nc->option_len > NBD_INLINE_MAX) {
		nc->option_buf = share_get(&nc->share, nc->sl->small);
		if (!nc->option_buf) {
			share_wait(&nc->share);
			return -EAGAIN;
		}
	}
	nc->data = *ret_buf = nc->option_buf ? nc->option_buf : nc->inline_data;
	return 0;
}

void nbd_client_up(struct nbd_client *nc)
{
	nc->state = NBD_UP;
	conn_set_header_len(
	    nc->conn, nc->mode == NBD_EXTENDED ? NBD_EXT_REQUEST_LEN : NBD_REQUEST_LEN);
}

/* ---- transmission ---- */

/* NULL: it is not wanted. */
static void *payload_place(const struct nbd_cmd *part)
{
	return part->lent ? part->lent : part->buf;
}

static void drain(struct nbd_client *nc)
{
	nc->draining = true;
	if (nc->in_flight == 0)
		nbd_client_close(nc);
}

static int request_header(
    struct nbd_client *nc, const uint8_t *header, void **ret_buf, uint32_t *ret_len)
{
	struct nbd_request *request = &nc->request;
	struct nbd_cmd *cmd;

	if (conn_queued(nc->conn) > NBD_QUEUED_MAX || nc->in_flight >= IN_FLIGHT_MAX) {
		nc->throttled = true;
		return -EAGAIN;
	}
	if (nbd_wire_request(header, nc->mode, request))
		return nbd_client_bad(nc, "not a request (wrong magic)");
	if (request->type == NBD_C_DISC)
		return 0;
	if (request->payload > DROP_MAX)
		return nbd_client_bad(nc, "a request's payload is longer than any can be");
	cmd = nbd_cmd_get(nc);
	if (!cmd) {
		share_wait(&nc->share);
		return -EAGAIN;
	}
	nc->current = cmd;
	if (!request->payload)
		return 0;
	if (payload_place(cmd)) {
		*ret_buf = payload_place(cmd);
		*ret_len = (uint32_t)cmd->len;
	} else {
		nc->skip = (uint32_t)request->payload;
		*ret_buf = nc->sl->nbd_sink;
		*ret_len = nc->skip < NBD_SINK_LEN ? nc->skip : NBD_SINK_LEN;
	}
	return 0;
}

static int take_request(struct nbd_client *nc)
{
	struct nbd_cmd *cmd = nc->current;
	uint32_t error;

	if (!cmd) { /* DISC: what came before it is still answered */
		drain(nc);
		return 0;
	}
	if (cmd->head->request.type == NBD_C_WRITE && payload_place(cmd)) {
		nc->current = cmd->next;
		if (cmd->next)
			conn_more(nc->conn, payload_place(cmd->next), (uint32_t)cmd->next->len);
		nbd_io_write(cmd);
		return 0;
	}
	nc->current = NULL;
	error = nbd_wire_check(&cmd->request, nc->mode, nc->size, nc->read_only);
	if (error)
		nbd_cmd_refuse(cmd, error);
	else
		nbd_io_start(cmd);
	return 0;
}

/* ---- what the connection calls ---- */

static int nc_header(struct conn *conn, const uint8_t *header, void **ret_buf, uint32_t *ret_len)
{
	struct nbd_client *nc = conn_owner(conn);

	if (nc->draining)
		return -EAGAIN;
	switch (nc->state) {
	case NBD_GREETED:
		memcpy(nc->inline_data, header, NBD_CLIENT_FLAGS_LEN);
		return 0;
	case NBD_OPTIONS:
		return option_header(nc, header, ret_buf, ret_len);
	default:
		return request_header(nc, header, ret_buf, ret_len);
	}
}

/* Drops a piece of an unwanted payload; false: more of it is to come. */
static bool dropped(struct nbd_client *nc)
{
	nc->skip -= nc->skip < NBD_SINK_LEN ? nc->skip : NBD_SINK_LEN;
	if (nc->skip)
		conn_more(
		    nc->conn, nc->sl->nbd_sink, nc->skip < NBD_SINK_LEN ? nc->skip : NBD_SINK_LEN);
	return nc->skip == 0;
}

static int nc_frame(struct conn *conn)
{
	struct nbd_client *nc = conn_owner(conn);
	bool dropping = nc->skip > 0;

	if (dropping && !dropped(nc))
		return 0;
	switch (nc->state) {
	case NBD_GREETED:
		return take_flags(nc);
	case NBD_OPTIONS:
		if (dropping) {
			nbd_option_too_big(nc);
			return 0;
		}
		return nbd_option_run(nc);
	default:
		return take_request(nc);
	}
}

static void nc_closed(struct conn *conn, int err)
{
	struct nbd_client *nc = conn_owner(conn);

	if (err && err != -EPROTO)
		log_debug("client %s: %s", nc->address, strerror(-err));
	nbd_client_close(nc);
}

static const struct conn_handlers nc_handlers = {
    .header_len = NBD_CLIENT_FLAGS_LEN,
    .header = nc_header,
    .frame = nc_frame,
    .closed = nc_closed,
};

/* ---- the end ---- */

static void free_client(struct nbd_client *nc)
{
	struct server_loop *sl = nc->sl;

	*(nc->prev ? &nc->prev->next : &sl->nbd_clients) = nc->next;
	if (nc->next)
		nc->next->prev = nc->prev;
	server_conn_count(sl->server, -1);
	free(nc);
}

void nbd_client_drop(struct nbd_client *nc, unsigned count)
{
	nc->in_flight -= count;
	if (nc->in_flight)
		return;
	if (nc->state != NBD_CLOSING) {
		if (nc->draining)
			nbd_client_close(nc);
		return;
	}
	if (nc->handle)
		nbd_export_close(nc, free_client);
	else
		free_client(nc);
}

void nbd_client_close(struct nbd_client *nc)
{
	struct nbd_cmd *current = nc->current;
	struct conn *conn = nc->conn;

	if (nc->state == NBD_CLOSING)
		return;
	nc->state = NBD_CLOSING;
	nc->current = NULL;
	nc->conn = NULL;
	share_leave(&nc->share);
	nc->in_flight++; /* stays until the end of this function */
	conn_close(conn);
	nbd_option_end(nc);
	if (current)
		nbd_cmd_abandon(current);
	share_wake(nc->sl); /* if it was this one's turn, it is another's now */
	nbd_client_drop(nc, 1);
}

void nbd_clients_drain(struct server_loop *sl, bool now)
{
	for (struct nbd_client *nc = sl->nbd_clients, *next; nc; nc = next) {
		next = nc->next;
		if (now)
			nbd_client_close(nc);
		else
			drain(nc);
	}
}

/* ---- life ---- */

static void wake(struct share *share)
{
	struct nbd_client *nc =
	    (struct nbd_client *)((char *)share - offsetof(struct nbd_client, share));

	if (nc->conn)
		conn_resume(nc->conn);
}

static void out_sent(struct conn_out *out, int err)
{
	struct nbd_client *nc =
	    (struct nbd_client *)((char *)out - offsetof(struct nbd_client, out));

	if (nc->conn && nc->throttled) {
		nc->throttled = false;
		conn_resume(nc->conn);
	}
}

int nbd_client_start(struct server_loop *sl, int fd, const char *address, struct err *err)
{
	struct nbd_client *nc = calloc(1, sizeof(*nc));
	int rc;

	if (!nc) {
		close(fd);
		return err_set(err, -ENOMEM, "out of memory for a connection");
	}
	nc->sl = sl;
	snprintf(nc->address, sizeof(nc->address), "%s", address);
	conn_tune(fd);
	rc = conn_create(sl->loop, fd, &nc_handlers, nc, &nc->conn, err);
	if (rc) {
		free(nc);
		return rc;
	}
	nc->start_ns = loop_now_ns();
	share_init(&nc->share, sl, wake);
	nc->next = sl->nbd_clients;
	if (nc->next)
		nc->next->prev = nc;
	sl->nbd_clients = nc;
	server_conn_count(sl->server, 1);
	nbd_wire_greeting(nc->reply);
	nc->out.iov[0] = (struct iovec){nc->reply, NBD_GREETING_LEN};
	nc->out.iov_count = 1;
	nc->out.sent = out_sent;
	conn_send(nc->conn, &nc->out);
	return 0;
}

/* A region that was removed lives as long as somebody has it open: its readers are sent away. */
static bool removed(struct nbd_client *nc)
{
	struct pool_req req = {
	    .op = POOL_GETATTR, .id = nc->handle->region_id, .handle = nc->handle};

	if (!nc->read_only || nbd_export_look(nc->found.pool, &req))
		return false;
	if (req.attr.nlink)
		return false;
	log_info("client %s: NBD: region \"%s\" was removed: connection closed", nc->address,
	    nc->found.region);
	return true;
}

static bool overdue(struct nbd_client *nc, uint64_t now_ns)
{
	if (nc->state == NBD_UP || now_ns <= nc->start_ns + HANDSHAKE_S * 1000000000ull)
		return false;
	log_info("client %s: NBD: no export chosen within %d s: connection closed", nc->address,
	    HANDSHAKE_S);
	return true;
}

void nbd_clients_tick(struct server_loop *sl, uint64_t now_ns)
{
	for (struct nbd_client *nc = sl->nbd_clients, *next; nc; nc = next) {
		bool receiving = nc->current || nc->skip;

		next = nc->next;
		if (!nc->conn)
			continue;
		if (overdue(nc, now_ns) || (nc->state == NBD_UP && removed(nc)) ||
		    share_stalled(&nc->share, nc->conn, receiving, now_ns, nc->address))
			nbd_client_close(nc);
	}
}
