/* SPDX-License-Identifier: Apache-2.0
 *
 * LIST: every region of every pool, one reply each.
 *
 * There may be many thousands: they are listed by pieces of a small buffer, a part of it for what the pool
 * says, the other for the replies, and the next piece is made when the last one is out.  So a client that does not
 * read costs one buffer, and the check for clients that stall ends it.
 *
 * A region that comes or goes meanwhile is listed or not; every other one is listed once.
 */
#include "export/nbd_int.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

enum { LIST_ROOM = 7 * 1024 /* of the buffer, for what the pool says; the rest is for replies */ };

/* A reply is at most a byte longer than the entry that it is made of. */
_Static_assert(sizeof(struct pool_dirent) + 1 >= NBD_OPTION_REPLY_LEN + 4 + 64 + 1,
    "the replies fit into their part of the buffer");

static void piece_sent(struct conn_out *out, int err);

static void send_piece(struct nbd_client *nc, uint8_t *end)
{
	uint8_t *begin = (uint8_t *)nc->option_buf + LIST_ROOM;

	nc->out.iov[0] = (struct iovec){begin, (size_t)(end - begin)};
	nc->out.iov_count = 1;
	nc->out.sent = piece_sent;
	conn_send(nc->conn, &nc->out);
}

/* Puts the entries of one POOL_LIST answer as replies; the place behind. */
static uint8_t *put_entries(
    struct nbd_client *nc, const struct pool *pool, const struct pool_req *req, uint8_t *p)
{
	const uint8_t *data = req->data;
	char name[NBD_EXPORT_NAME_MAX], region[POOL_NAME_MAX + 1];
	struct pool_dirent ent;

	for (size_t at = 0; at < req->ret_len; at += sizeof(ent) + ((ent.name_len + 7u) & ~7u)) {
		size_t len;

		memcpy(&ent, data + at, sizeof(ent));
		memcpy(region, data + at + sizeof(ent), ent.name_len);
		region[ent.name_len] = 0;
		len = nbd_export_name(pool, region, name);
		p = nbd_wire_reply(p, NBD_O_LIST, NBD_R_SERVER, (uint32_t)(4 + len));
		p = nbd_put32(p, (uint32_t)len);
		memcpy(p, name, len);
		p += len;
	}
	return p;
}

static void next_piece(struct nbd_client *nc)
{
	uint8_t *p = (uint8_t *)nc->option_buf + LIST_ROOM;
	struct pool *pool;

	while ((pool = server_pool_at(nc->sl->server, nc->list.pool))) {
		struct pool_req req = {.op = POOL_LIST,
		    .cookie = nc->list.cookie,
		    .data = nc->option_buf,
		    .len = LIST_ROOM};

		if (nbd_export_look(pool, &req)) /* there is nothing to be seen of it */
			req.ret_len = req.ret_cookie = 0;
		nc->list.cookie = req.ret_cookie;
		if (!req.ret_cookie)
			nc->list.pool++;
		if (req.ret_len) {
			send_piece(nc, put_entries(nc, pool, &req, p));
			return;
		}
	}
	nc->busy = false;
	conn_resume(nc->conn);
	nbd_option_reply(nc, NBD_R_ACK, NULL, 0);
	nbd_option_send(nc);
}

static void piece_sent(struct conn_out *out, int err)
{
	struct nbd_client *nc =
	    (struct nbd_client *)((char *)out - offsetof(struct nbd_client, out));

	if (nc->conn && err == 0)
		next_piece(nc);
}

int nbd_list_start(struct nbd_client *nc)
{
	if (nc->option_len) {
		nbd_option_error(nc, NBD_R_ERR_INVALID, "LIST has no data");
		return 0;
	}
	nc->option_buf = share_get(&nc->share, nc->sl->small);
	if (!nc->option_buf) {
		nbd_option_error(nc, NBD_R_ERR_PLATFORM, "no memory for a list now: try again");
		return 0;
	}
	nc->list.pool = 0;
	nc->list.cookie = 0;
	nc->busy = true;
	next_piece(nc);
	return 0;
}
