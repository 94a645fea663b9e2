/* SPDX-License-Identifier: Apache-2.0
 *
 * Which regions NBD clients see, under which names, and who has which of them open.
 *
 * Names: POOL/REGION, also with a slash before it; POOL/REGION/ro is the same without the right to write.  A pool
 * that is one single region is exported under the region's name.  The empty name is the only region, if
 * there is only one.
 *
 * All clients of one region are one session of its pool (core/pool.h): they share the right to write, as
 * CAN_MULTI_CONN promises.  To others they are known by the first of them: that never changes, so nothing guards it.  A client that may write opens with POOL_PIN, as loop devices do: while it is
 * there nobody else writes, resizes, renames or removes the region.  One that only reads prevents nothing.
 *
 * Locking: mu protects the table.  It is not held while a pool is asked.
 */
#include "export/nbd_int.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/lease.h"
#include "export/session.h"

enum { BUCKETS = 1024 };

/* A mount gives its lease back some time after the close that ends it: a client that finds the region in use asks
 * again after 10, 20, 40, 80 and 160 ms, as mounts do. */
enum { TRIES = 5, TRY_NS = 10000000 };

struct nbd_export {
	struct nbd_export *next;
	struct pool *pool;
	uint64_t region;
	uint64_t session; /* of the pool's requests */
	struct pool_session who;
	unsigned refs;
};

/* A pin is never taken away, and a client of NBD can't be told of changes. */
static void ignore(struct pool_session *ps)
{
}

static const struct pool_session_ops who_ops = {.displace = ignore, .noticed = ignore};

struct nbd_exports {
	pthread_mutex_t mu;
	struct nbd_export *buckets[BUCKETS]; /* protected by mu */
};

struct nbd_exports *nbd_exports_create(void)
{
	struct nbd_exports *exports = calloc(1, sizeof(*exports));

	if (exports)
		pthread_mutex_init(&exports->mu, NULL);
	return exports;
}

void nbd_exports_destroy(struct nbd_exports *exports)
{
	if (!exports)
		return;
	for (unsigned i = 0; i < BUCKETS; i++)
		assert(!exports->buckets[i]);
	pthread_mutex_destroy(&exports->mu);
	free(exports);
}

static struct nbd_export **find_locked(
    struct nbd_exports *exports, const struct pool *pool, uint64_t region)
{
	struct nbd_export **link = &exports->buckets[region % BUCKETS];

	while (*link && ((*link)->pool != pool || (*link)->region != region))
		link = &(*link)->next;
	return link;
}

/* NULL: out of memory. */
static struct nbd_export *export_get(struct nbd_client *nc, struct pool *pool, uint64_t region)
{
	struct server *server = nc->sl->server;
	struct nbd_exports *exports = server_nbd_exports(server);
	uint64_t session = sessions_tag(server_sessions(server));
	struct nbd_export **link;

	pthread_mutex_lock(&exports->mu);
	link = find_locked(exports, pool, region);
	if (!*link) {
		*link = calloc(1, sizeof(**link));
		if (*link) {
			**link = (struct nbd_export){
			    .pool = pool,
			    .region = region,
			    .session = session,
			    .who = {.ops = &who_ops, .writer = session},
			};
			snprintf((*link)->who.holder, POOL_HOLDER_MAX,
			    "clients of its NBD export (the first: %s)", nc->address);
		}
	}
	if (*link)
		(*link)->refs++;
	pthread_mutex_unlock(&exports->mu);
	return *link;
}

static void export_put(struct server *server, struct nbd_export *export)
{
	struct nbd_exports *exports = server_nbd_exports(server);
	struct nbd_export **link;
	bool last;

	pthread_mutex_lock(&exports->mu);
	last = --export->refs == 0;
	if (last) {
		link = find_locked(exports, export->pool, export->region);
		*link = export->next;
	}
	pthread_mutex_unlock(&exports->mu);
	if (last)
		free(export);
}

/* ---- names ---- */

static void looked(struct pool_req *req, int err)
{
	req->err = err;
}

int nbd_export_look(struct pool *pool, struct pool_req *req)
{
	req->session = 1; /* the daemon itself */
	req->done = looked;
	req->err = 1;
	pool_submit(pool, req);
	assert(req->err <= 0);
	return req->err;
}

size_t nbd_export_name(const struct pool *pool, const char *region, char buf[NBD_EXPORT_NAME_MAX])
{
	if (pool->fixed)
		return (size_t)snprintf(buf, NBD_EXPORT_NAME_MAX, "%s", pool->name);
	return (size_t)snprintf(buf, NBD_EXPORT_NAME_MAX, "%s/%s", pool->name, region);
}

const char *nbd_export_printable(const struct nbd_name *name, char buf[NBD_TEXT_MAX / 2])
{
	size_t len = name->len < NBD_TEXT_MAX / 2 - 4 ? name->len : NBD_TEXT_MAX / 2 - 4;

	for (size_t i = 0; i < len; i++)
		buf[i] =
		    (char)(name->bytes[i] >= ' ' && name->bytes[i] < 0x7f ? name->bytes[i] : '?');
	strcpy(buf + len, len < name->len ? "..." : "");
	return buf;
}

/* How many regions a pool has: 0, 1, or 2 for more; found is the first.  Asks nobody beyond the pool, as STATFS
 * would: a file system that does not answer must not stop the loop. */
static unsigned count_regions(struct pool *pool, struct nbd_found *found)
{
	uint64_t data[(sizeof(struct pool_dirent) + POOL_NAME_MAX + 8) / 8 + 1];
	struct pool_req req = {.op = POOL_LIST, .data = data, .len = sizeof(data)};
	const struct pool_dirent *ent = (const struct pool_dirent *)data;
	int rc = nbd_export_look(pool, &req);

	if (rc || req.ret_len == 0)
		return 0;
	memcpy(found->region, ent + 1, ent->name_len);
	found->region[ent->name_len] = 0;
	found->attr = ent->attr;
	found->pool = pool;
	return req.ret_cookie || req.ret_len > sizeof(*ent) + (ent->name_len + 7) / 8 * 8 ? 2 : 1;
}

/* The only region that there is. */
static int find_only(struct server *server, struct nbd_found *found)
{
	struct nbd_found other;
	struct pool *pool;
	unsigned count = 0;

	for (unsigned i = 0; count < 2 && (pool = server_pool_at(server, i)); i++)
		count += count_regions(pool, count ? &other : found);
	return count == 1 ? 0 : -ENOENT;
}

static int find_in_pool(struct pool *pool, const char *region, struct nbd_found *found)
{
	struct pool_req req = {.op = POOL_LOOKUP, .name = region};
	int rc;

	if (strlen(region) > POOL_NAME_MAX)
		return -ENOENT;
	rc = nbd_export_look(pool, &req);
	if (rc)
		return -ENOENT;
	snprintf(found->region, sizeof(found->region), "%s", region);
	found->pool = pool;
	found->attr = req.attr;
	return 0;
}

/* The pool of this name that is one region. */
static int find_single(struct server *server, const char *name, struct nbd_found *found)
{
	struct pool *pool = server_pool(server, name);

	return pool && pool->fixed && count_regions(pool, found) ? 0 : -ENOENT;
}

/* POOL/REGION, POOL/REGION/ro, or POOL/ro of a pool that is one region; cuts the text up. */
static int find_path(struct server *server, char *text, char *slash, struct nbd_found *found)
{
	char *region = slash + 1, *second = strchr(region, '/');
	struct pool *pool;

	*slash = 0;
	if (second) {
		if (strcmp(second, "/ro") != 0)
			return -ENOENT;
		*second = 0;
		found->read_only = true;
	}
	pool = server_pool(server, text);
	if (pool && find_in_pool(pool, region, found) == 0)
		return 0;
	if (second || strcmp(region, "ro") != 0)
		return -ENOENT;
	found->read_only = true;
	return find_single(server, text, found);
}

int nbd_export_find(struct nbd_client *nc, const struct nbd_name *name, struct nbd_found *ret_found)
{
	struct server *server = nc->sl->server;
	char text[NBD_EXPORT_NAME_MAX + 8], *at = text, *slash;
	struct nbd_found found = {0};
	int rc;

	if (name->len >= sizeof(text) || memchr(name->bytes, 0, name->len))
		return -ENOENT;
	memcpy(text, name->bytes, name->len);
	text[name->len] = 0;
	if (*at == '/')
		at++;
	slash = strchr(at, '/');
	if (!*at)
		rc = find_only(server, &found);
	else if (!slash)
		rc = find_single(server, at, &found);
	else
		rc = find_path(server, at, slash, &found);
	if (rc)
		return rc;
	found.read_only = found.read_only || pool_check_mode(found.attr.mode, POOL_WRITE);
	*ret_found = found;
	return 0;
}

/* ---- opening and closing ---- */

static void open_again(struct loop_timer *timer)
{
	struct nbd_client *nc =
	    (struct nbd_client *)((char *)timer - offsetof(struct nbd_client, again));

	pool_submit(nc->found.pool, &nc->preq);
}

static void open_done(struct pool_req *preq, int err)
{
	struct nbd_client *nc =
	    (struct nbd_client *)((char *)preq - offsetof(struct nbd_client, preq));

	if (err == -EBUSY && nc->conn && !nc->draining && nc->tries < TRIES) {
		nc->again.expired = open_again;
		loop_timer_set(
		    nc->sl->loop, &nc->again, loop_now_ns() + ((uint64_t)TRY_NS << nc->tries++));
		return;
	}
	if (err == 0) {
		nc->handle = preq->ret_handle;
		nc->size = preq->attr.size;
		nc->read_only = nc->found.read_only;
	} else {
		export_put(nc->sl->server, nc->export);
		nc->export = NULL;
	}
	nc->opened(nc, err);
}

void nbd_export_open(struct nbd_client *nc, void (*done)(struct nbd_client *nc, int err))
{
	const struct nbd_found *found = &nc->found;

	nc->opened = done;
	nc->tries = 0;
	nc->export = export_get(nc, found->pool, found->attr.id);
	if (!nc->export) {
		done(nc, -ENOMEM);
		return;
	}
	nc->preq = (struct pool_req){
	    .op = POOL_OPEN,
	    .flags = found->read_only ? POOL_READ : POOL_READ | POOL_WRITE | POOL_PIN,
	    .session = nc->export->session,
	    .who = &nc->export->who,
	    .id = found->attr.id,
	    .number = 1,
	    .done = open_done,
	};
	pool_submit(found->pool, &nc->preq);
}

static void close_done(struct pool_req *preq, int err)
{
	struct nbd_client *nc =
	    (struct nbd_client *)((char *)preq - offsetof(struct nbd_client, preq));

	export_put(nc->sl->server, nc->export);
	nc->export = NULL;
	nc->closed(nc);
}

void nbd_export_close(struct nbd_client *nc, void (*done)(struct nbd_client *nc))
{
	nc->closed = done;
	nc->preq = (struct pool_req){
	    .op = POOL_CLOSE,
	    .session = nc->export->session,
	    .who = &nc->export->who,
	    .handle = nc->handle,
	    .done = close_done,
	};
	nc->handle = NULL;
	pool_submit(nc->export->pool, &nc->preq);
}
