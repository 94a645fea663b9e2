/* SPDX-License-Identifier: Apache-2.0
 *
 * A managed pool for tests (see tests/lib/managed_rig.h).
 */
#include "tests/lib/managed_rig.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/cache_dir.h"
#include "core/log.h"

enum { POOL_SIZE = 256 * MIB };

struct managed_rig mr;

/* ---- the stack ---- */

struct made {
	struct pool *pool;
	int rc;
	struct err err;
};

static void make(void *ctx)
{
	struct made *made = ctx;

	made->rc = managed_create(&mr.conf, &made->pool, &made->err);
}

void mr_begin(void)
{
	struct made made = {0};
	struct err err;

	if (mr.has_dir)
		ck_assert_msg(cache_dir_open(mr.path, "/test", mr.rig.workers, &mr.dir, &err) == 0,
		    "%s", err.text);
	mr.conf.dir = mr.dir;
	mr.conf.lower = mr.lower.pool;
	mr.conf.loop = mr.lower.loop;
	mr.conf.workers = mr.rig.workers;
	rig_call(mr.lower.loop, make, &made);
	ck_assert_msg(made.rc == 0, "%s", made.err.text);
	mr.top = (struct client){.loop = mr.lower.loop, .pool = made.pool, .session = 7};
}

static _Atomic bool left;

static void leave_done(void *ctx)
{
	left = true;
}

static void leave_now(void *ctx)
{
	if (*(bool *)ctx)
		managed_give_up(mr.top.pool);
	managed_leave(mr.top.pool, leave_done, NULL);
}

static void give_up_now(void *ctx)
{
	managed_give_up(mr.top.pool);
}

void mr_give_up(void)
{
	rig_call(mr.top.loop, give_up_now, NULL);
}

static void destroy_now(void *ctx)
{
	pool_destroy(mr.top.pool);
}

void mr_end(bool give_up)
{
	left = false;
	rig_call(mr.top.loop, leave_now, &give_up);
	for (unsigned i = 0; i < MR_WAIT_TRIES && !left; i++)
		usleep(MR_WAIT_US);
	ck_assert_msg(left, "the managed pool has not come to its end");
	rig_call(mr.top.loop, destroy_now, NULL);
	cache_dir_close(mr.dir);
	mr.dir = NULL;
}

void mr_setup(int stack)
{
	struct client_conf cc;
	struct err err;

	log_set_level(LOG_LEVEL_ERROR);
	mr.is_peer = stack >= MR_PEER_MEMORY;
	mr.has_dir = stack == MR_LOCAL_DIR || stack == MR_PEER_DIR;
	rig_start(&mr.rig, 1, 2);
	serve_start(&mr.serve, POOL_SIZE);
	cc = (struct client_conf){.port = mr.serve.port, .pool = "ram"};
	if (mr.is_peer) {
		ck_assert_int_eq(client_open(&mr.lower, mr.rig.loops[0], &cc, &err), 0);
		ck_assert_int_eq(client_open(&mr.other, mr.rig.loops[0], &cc, &err), 0);
	} else {
		mr.lower = (struct client){
		    .loop = mr.rig.loops[0], .pool = mr.serve.pools[0], .session = 7};
		mr.other = (struct client){
		    .loop = mr.rig.loops[0], .pool = mr.serve.pools[0], .session = 8};
	}
	if (mr.has_dir)
		rig_tmpdir(NULL, mr.path);
	mr.conf = (struct managed_conf){
	    .session = 7,
	    .pull = PULL_NONE,
	    .push_interval_ms = 50,
	};
	for (size_t i = 0; i < sizeof(mr.data); i++)
		mr.data[i] = (uint8_t)(i * 7 + i / 4096 + 1);
}

void mr_teardown(void)
{
	if (mr.is_peer) {
		client_close(&mr.lower);
		client_close(&mr.other);
	}
	serve_stop(&mr.serve);
	rig_stop(&mr.rig);
	if (mr.has_dir)
		rig_tmpdir_remove(mr.path);
}

/* ---- asking ---- */

uint64_t mr_id_of(struct client *client, const char *name)
{
	struct pool_req req = {.op = POOL_LOOKUP, .name = name};

	ck_assert_int_eq(client_ask(client, &req), 0);
	return req.attr.id;
}

int mr_open_at(
    struct client *client, const char *name, unsigned flags, uint64_t version, struct pool_req *ret)
{
	*ret = (struct pool_req){
	    .op = POOL_OPEN, .id = mr_id_of(client, name), .flags = flags, .version = version};
	return client_ask(client, ret);
}

struct handle *mr_open(struct client *client, const char *name, unsigned flags)
{
	struct pool_req req = {0};
	int rc = -EBUSY;

	/* Leases are given back behind. */
	for (unsigned i = 0; i < MR_WAIT_TRIES && rc == -EBUSY; i++) {
		rc = mr_open_at(client, name, flags, 0, &req);
		if (rc == -EBUSY)
			usleep(MR_WAIT_US);
	}
	ck_assert_msg(rc == 0, "OPEN %s: %s", name, strerror(-rc));
	return req.ret_handle;
}

void mr_put(struct handle *handle, uint64_t off, const void *buf, uint32_t len)
{
	ck_assert_int_eq(rig_write(mr.rig.loops[0], &handle->store, off, buf, len, 0), 0);
}

void mr_reads(struct handle *handle, uint64_t off, const uint8_t *bytes, uint32_t len)
{
	memset(mr.back, 0xee, len);
	for (uint32_t pos = 0; pos < len; pos += MIB) {
		uint32_t n = len - pos < MIB ? len - pos : MIB;

		ck_assert_int_eq(
		    rig_read(mr.rig.loops[0], &handle->store, off + pos, mr.back + pos, n), 0);
	}
	ck_assert(memcmp(mr.back, bytes, len) == 0);
}

int mr_flush(struct handle *handle)
{
	return rig_op(mr.rig.loops[0], &handle->store, STORE_FLUSH, 0, 0, 0);
}

void mr_other_reads(const char *name, uint64_t off, const uint8_t *bytes, uint32_t len)
{
	struct handle *handle = mr_open(&mr.other, name, POOL_READ);

	mr_reads(handle, off, bytes, len);
	client_close_handle(&mr.other, handle);
}

struct region_attr mr_attr_of(struct client *client, const char *name)
{
	struct pool_req req = {.op = POOL_LOOKUP, .name = name};

	ck_assert_int_eq(client_ask(client, &req), 0);
	return req.attr;
}

static void look_now(void *ctx)
{
	struct mr_look *look = ctx;

	managed_status(mr.top.pool, &look->status);
	look->rc = managed_find(mr.top.pool, look->id, &look->region);
}

struct mr_look mr_look(const char *name)
{
	struct mr_look look = {.id = mr_id_of(&mr.top, name)};

	rig_call(mr.top.loop, look_now, &look);
	return look;
}

void mr_wait_state(const char *name, enum managed_state state)
{
	for (unsigned i = 0; i < MR_WAIT_TRIES; i++) {
		struct mr_look look = mr_look(name);

		if (look.rc == 0 && look.region.state == state)
			return;
		usleep(MR_WAIT_US);
	}
	ck_abort_msg("\"%s\" has not come to state %d", name, state);
}

int mr_get_xattr(const char *region, const char *name, char *buf, size_t room)
{
	struct pool_req req = {.op = POOL_GETXATTR,
	    .id = mr_id_of(&mr.top, region),
	    .name = name,
	    .data = buf,
	    .len = room - 1};
	int rc = client_ask(&mr.top, &req);

	buf[rc ? 0 : req.ret_len] = '\0';
	return rc;
}

int mr_set_xattr(const char *region, const char *name, char *value)
{
	struct pool_req req = {.op = POOL_SETXATTR,
	    .id = mr_id_of(&mr.top, region),
	    .name = name,
	    .data = value,
	    .len = strlen(value)};

	return client_ask(&mr.top, &req);
}

struct evict {
	uint64_t id, bytes;
	int rc;
};

static void evict_now(void *ctx)
{
	struct evict *evict = ctx;

	evict->rc = managed_evict(mr.top.pool, evict->id, 0, 0, &evict->bytes);
}

int mr_evict(uint64_t id)
{
	struct evict evict = {.id = id};

	rig_call(mr.top.loop, evict_now, &evict);
	return evict.rc;
}
