/* SPDX-License-Identifier: Apache-2.0
 *
 * The options of the handshake, but LIST (nbd_list.c).
 *
 * Every option is answered, unknown ones with ERR_UNSUP; the exceptions are those that the protocol makes:
 * EXPORT_NAME has no way to say no but to end the connection.  Nothing that one option was told changes what
 * another one does, but for what the protocol wants so: STRUCTURED_REPLY, EXTENDED_HEADERS, and the
 * contexts of SET_META_CONTEXT, which hold for the export that they were chosen for and for no other.
 *
 * The replies to one option are put together in nc->reply and sent at once.
 */
#include "export/nbd_int.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { BLOCK_MIN = 1, BLOCK_MAX = 32 << 20 };

static const char *const context_names[NBD_CONTEXTS] = {
    "base:allocation",
    "remram:resident",
    "remram:dirty",
};

/* ---- replies ---- */

void nbd_option_reply(struct nbd_client *nc, uint32_t type, const void *data, size_t len)
{
	assert(nc->reply_end + NBD_OPTION_REPLY_LEN + len <= nc->reply + NBD_REPLY_MAX);
	nc->reply_end = nbd_wire_reply(nc->reply_end, nc->option, type, (uint32_t)len);
	if (len)
		memcpy(nc->reply_end, data, len);
	nc->reply_end += len;
}

void nbd_option_error(struct nbd_client *nc, uint32_t type, const char *fmt, ...)
{
	char text[NBD_TEXT_MAX];
	va_list args;
	int len;

	va_start(args, fmt);
	len = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	log_debug("client %s: NBD: option %u refused: %s", nc->address, nc->option, text);
	nbd_option_reply(nc, type, text, (size_t)(len < NBD_TEXT_MAX ? len : NBD_TEXT_MAX - 1));
	nbd_option_send(nc);
}

static void reply_sent(struct conn_out *out, int err)
{
	struct nbd_client *nc =
	    (struct nbd_client *)((char *)out - offsetof(struct nbd_client, out));

	if (!nc->conn)
		return;
	if (nc->end) {
		nbd_client_close(nc);
	} else if (nc->throttled) {
		nc->throttled = false;
		conn_resume(nc->conn);
	}
}

void nbd_option_send(struct nbd_client *nc)
{
	nc->out.iov[0] = (struct iovec){nc->reply, (size_t)(nc->reply_end - nc->reply)};
	nc->out.iov_count = 1;
	nc->out.sent = reply_sent;
	conn_send(nc->conn, &nc->out);
	nbd_option_end(nc);
}

void nbd_option_end(struct nbd_client *nc)
{
	if (nc->option_buf) {
		share_put(&nc->share, nc->sl->small, nc->option_buf);
		nc->option_buf = NULL;
		share_wake(nc->sl);
	}
}

static void acknowledge(struct nbd_client *nc)
{
	nbd_option_reply(nc, NBD_R_ACK, NULL, 0);
	nbd_option_send(nc);
}

void nbd_option_too_big(struct nbd_client *nc)
{
	nc->reply_end = nc->reply;
	nbd_option_error(nc, NBD_R_ERR_TOO_BIG, "the option has %u bytes, at most %d are taken",
	    nc->option_len, SERVER_SMALL);
}

/* ---- INFO and GO ---- */

static uint16_t export_flags(const struct nbd_client *nc, bool read_only)
{
	unsigned flags = NBD_HAS_FLAGS | NBD_SEND_FLUSH | NBD_CAN_MULTI_CONN | NBD_SEND_CACHE;

	if (nc->mode != NBD_SIMPLE)
		flags |= NBD_SEND_DF;
	if (read_only)
		flags |= NBD_READ_ONLY;
	else
		flags |= NBD_SEND_FUA | NBD_SEND_TRIM | NBD_SEND_WRITE_ZEROES | NBD_SEND_FAST_ZERO;
	return (uint16_t)flags;
}

static void reply_infos(struct nbd_client *nc, uint64_t size)
{
	const struct nbd_found *found = &nc->found;
	uint8_t data[2 + NBD_EXPORT_NAME_MAX + 64], *p;
	char *text = (char *)data + 2;
	size_t len;

	p = nbd_put16(data, NBD_I_EXPORT);
	p = nbd_put64(p, size);
	p = nbd_put16(p, export_flags(nc, found->read_only));
	nbd_option_reply(nc, NBD_R_INFO, data, (size_t)(p - data));
	p = nbd_put16(data, NBD_I_BLOCK_SIZE);
	p = nbd_put32(p, BLOCK_MIN);
	p = nbd_put32(p, STORE_BLOCK);
	p = nbd_put32(p, BLOCK_MAX);
	if (nc->go.want_block_size)
		nbd_option_reply(nc, NBD_R_INFO, data, (size_t)(p - data));
	if (nc->go.want_name) {
		nbd_put16(data, NBD_I_NAME);
		len = nbd_export_name(found->pool, found->region, text);
		nbd_option_reply(nc, NBD_R_INFO, data, 2 + len);
	}
	if (nc->go.want_description) {
		nbd_put16(data, NBD_I_DESCRIPTION);
		len = (size_t)snprintf(text, sizeof(data) - 2, "remram region in pool \"%s\"%s",
		    found->pool->name, found->read_only ? ", read-only" : "");
		nbd_option_reply(nc, NBD_R_INFO, data, 2 + len);
	}
	nbd_option_reply(nc, NBD_R_ACK, NULL, 0);
}

/* Why a region that is there is not served, for the client: what happened, and what to do. */
static void refuse_open(struct nbd_client *nc, int err)
{
	char name[NBD_EXPORT_NAME_MAX], shown[NBD_TEXT_MAX / 2];
	size_t len = nbd_export_name(nc->found.pool, nc->found.region, name);

	nbd_export_printable(&(struct nbd_name){(const uint8_t *)name, len}, shown);
	switch (err) {
	case -EBUSY:
		nbd_option_error(nc, NBD_R_ERR_POLICY,
		    "export \"%s\" is in use: %s writes to it; \"%s/ro\" can be read", shown,
		    *nc->preq.ret_holder ? nc->preq.ret_holder : "another client", shown);
		break;
	case -EACCES:
		nbd_option_error(nc, NBD_R_ERR_POLICY,
		    "export \"%s\": the region's mode does not allow reading", shown);
		break;
	case -ESTALE:
		nbd_option_error(
		    nc, NBD_R_ERR_UNKNOWN, "export \"%s\" has just been removed", shown);
		break;
	default:
		nbd_option_error(nc, NBD_R_ERR_PLATFORM, "export \"%s\" cannot be opened: %s",
		    shown, strerror(-err));
	}
}

static bool contexts_hold(const struct nbd_client *nc)
{
	return nc->contexts && nc->contexts_pool == nc->found.pool &&
	       nc->contexts_region == nc->found.attr.id;
}

/* The pool has opened the region, or not. */
static void opened(struct nbd_client *nc, int err)
{
	nc->busy = false;
	if (!nc->conn) { /* ended meanwhile */
		nbd_client_drop(nc, 1);
		return;
	}
	nc->throttled = false;
	conn_resume(nc->conn);
	if (err) {
		refuse_open(nc, err);
	} else {
		if (!contexts_hold(nc))
			nc->contexts = 0;
		reply_infos(nc, nc->size);
		nbd_option_send(nc);
		nbd_client_up(nc);
		log_debug("client %s: NBD: export \"%s\" of pool \"%s\"%s", nc->address,
		    nc->found.region, nc->found.pool->name, nc->read_only ? ", read-only" : "");
	}
	nbd_client_drop(nc, 1);
}

/* Finds the export that an option names; false: it was answered. */
static bool find(struct nbd_client *nc, const struct nbd_name *name, struct nbd_found *ret_found)
{
	char shown[NBD_TEXT_MAX / 2];

	if (nbd_export_find(nc, name, ret_found) == 0)
		return true;
	nbd_option_error(nc, NBD_R_ERR_UNKNOWN,
	    name->len ? "there is no export \"%s\"" : "there is no default export%s",
	    nbd_export_printable(name, shown));
	return false;
}

static void malformed(struct nbd_client *nc, int rc)
{
	if (rc == -ENAMETOOLONG)
		nbd_option_error(
		    nc, NBD_R_ERR_TOO_BIG, "an export's name has at most %d bytes", NBD_NAME_MAX);
	else
		nbd_option_error(nc, NBD_R_ERR_INVALID, "malformed option");
}

static void run_go(struct nbd_client *nc)
{
	int rc = nbd_wire_go(nc->data, nc->option_len, &nc->go);
	struct nbd_found found;

	if (rc) {
		malformed(nc, rc);
		return;
	}
	if (!find(nc, &nc->go.name, &found))
		return;
	nc->found = found;
	rc = pool_check_mode(found.attr.mode, POOL_READ);
	if (rc) {
		refuse_open(nc, rc);
	} else if (nc->option == NBD_O_INFO) {
		reply_infos(nc, found.attr.size);
		nbd_option_send(nc);
	} else {
		nc->busy = true;
		nc->in_flight++;
		nbd_export_open(nc, opened);
	}
}

/* ---- EXPORT_NAME ---- */

static void opened_legacy(struct nbd_client *nc, int err)
{
	uint8_t *p = nc->reply;

	nc->busy = false;
	if (nc->conn && err) {
		log_info("client %s: NBD: region \"%s\" cannot be opened: %s", nc->address,
		    nc->found.region, strerror(-err));
		nbd_client_close(nc);
	} else if (nc->conn) {
		nc->throttled = false;
		conn_resume(nc->conn);
		if (!contexts_hold(nc))
			nc->contexts = 0;
		p = nbd_put64(p, nc->size);
		p = nbd_put16(p, export_flags(nc, nc->read_only));
		if (!nc->no_zeroes) {
			memset(p, 0, NBD_LEGACY_PAD);
			p += NBD_LEGACY_PAD;
		}
		nc->reply_end = p;
		nbd_option_send(nc);
		nbd_client_up(nc);
	}
	nbd_client_drop(nc, 1);
}

static int run_export_name(struct nbd_client *nc)
{
	struct nbd_name name = {nc->data, nc->option_len};
	char shown[NBD_TEXT_MAX / 2];

	if (name.len > NBD_NAME_MAX || nbd_export_find(nc, &name, &nc->found) ||
	    pool_check_mode(nc->found.attr.mode, POOL_READ)) {
		log_info("client %s: NBD: there is no export \"%s\" that it could have: connection "
			 "closed",
		    nc->address, nbd_export_printable(&name, shown));
		return -EPROTO;
	}
	nc->busy = true;
	nc->in_flight++;
	nbd_export_open(nc, opened_legacy);
	return 0;
}

/* ---- contexts ---- */

static bool is_query(const struct nbd_name *query, const char *text)
{
	return query->len == strlen(text) && memcmp(query->bytes, text, query->len) == 0;
}

/* Which contexts a query means; a namespace and its colon alone are a question, not a choice. */
static unsigned query_contexts(const struct nbd_name *query, bool listing)
{
	for (unsigned i = 0; i < NBD_CONTEXTS; i++)
		if (is_query(query, context_names[i]))
			return 1u << i;
	if (listing && is_query(query, "base:"))
		return NBD_ALLOCATION;
	if (listing && is_query(query, "remram:"))
		return NBD_RESIDENT | NBD_DIRTY;
	return 0;
}

static void run_meta(struct nbd_client *nc)
{
	bool listing = nc->option == NBD_O_LIST_META_CONTEXT;
	uint8_t data[4 + 32];
	struct nbd_found found;
	struct nbd_meta meta;
	unsigned contexts = 0;
	int rc;

	if (!listing)
		nc->contexts = 0; /* also if this one fails */
	if (nc->mode == NBD_SIMPLE) {
		nbd_option_error(
		    nc, NBD_R_ERR_INVALID, "meta contexts need structured replies first");
		return;
	}
	rc = nbd_wire_meta(nc->data, nc->option_len, &meta);
	if (rc) {
		malformed(nc, rc);
		return;
	}
	if (!find(nc, &meta.name, &found))
		return;
	if (listing && meta.count == 0)
		contexts = NBD_ALLOCATION | NBD_RESIDENT | NBD_DIRTY;
	for (unsigned i = 0; i < meta.kept; i++)
		contexts |= query_contexts(&meta.queries[i], listing);
	contexts &= nbd_status_contexts(nc);
	for (unsigned i = 0; i < NBD_CONTEXTS; i++) {
		if (!(contexts & 1u << i))
			continue;
		nbd_put32(data, listing ? 0 : i + 1);
		memcpy(data + 4, context_names[i], strlen(context_names[i]));
		nbd_option_reply(nc, NBD_R_META_CONTEXT, data, 4 + strlen(context_names[i]));
	}
	if (!listing) {
		nc->contexts = contexts;
		nc->contexts_pool = found.pool;
		nc->contexts_region = found.attr.id;
	}
	acknowledge(nc);
}

/* ---- the rest ---- */

static void run_mode(struct nbd_client *nc, enum nbd_mode mode)
{
	if (nc->option_len) {
		nbd_option_error(nc, NBD_R_ERR_INVALID, "this option has no data");
	} else if (nc->mode == NBD_EXTENDED && mode == NBD_STRUCTURED) {
		nbd_option_error(
		    nc, NBD_R_ERR_EXT_HEADER_REQD, "extended headers were chosen already");
	} else if (nc->mode == mode) {
		nbd_option_error(nc, NBD_R_ERR_INVALID, "this was chosen already");
	} else {
		nc->mode = mode;
		acknowledge(nc);
	}
}

int nbd_option_run(struct nbd_client *nc)
{
	nc->reply_end = nc->reply;
	if (nc->option == NBD_O_EXPORT_NAME)
		return run_export_name(nc);
	if (!nc->fixed)
		return nbd_client_bad(
		    nc, "a client without fixed newstyle may only name its export");
	switch (nc->option) {
	case NBD_O_ABORT:
		nc->end = true;
		acknowledge(nc);
		return 0;
	case NBD_O_LIST:
		return nbd_list_start(nc);
	case NBD_O_INFO:
	case NBD_O_GO:
		run_go(nc);
		return 0;
	case NBD_O_STRUCTURED_REPLY:
		run_mode(nc, NBD_STRUCTURED);
		return 0;
	case NBD_O_EXTENDED_HEADERS:
		run_mode(nc, NBD_EXTENDED);
		return 0;
	case NBD_O_LIST_META_CONTEXT:
	case NBD_O_SET_META_CONTEXT:
		run_meta(nc);
		return 0;
	case NBD_O_STARTTLS:
		nbd_option_error(nc, NBD_R_ERR_UNSUP, "there is no TLS here");
		return 0;
	default:
		nbd_option_error(nc, NBD_R_ERR_UNSUP, "unknown option");
		return 0;
	}
}
