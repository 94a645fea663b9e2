/* SPDX-License-Identifier: Apache-2.0
 *
 * The store contract through the managed pool: every rule of core/store.h for a handle of a region that is
 * cached, in memory and in a directory, with room for all of it and without.
 *
 * As with a donor's pool, RESIZE is the pool's SETATTR: `region` does that on top of the handle.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/managed.h"
#include "tests/lib/contract.h"
#include "tests/lib/serve.h"

enum { SESSION = 7, WAIT_TRIES = 3000, WAIT_US = 10000 };

struct place {
	struct serve serve;
	struct client lower, top;
	struct managed_conf conf;
	struct cache_dir *dir;
	char path[RIG_PATH_MAX]; /* "": in memory */
	_Atomic bool left;
	int rc;
	struct err err;
};

/* ---- a region as a store ---- */

struct region {
	struct store store;
	struct place *place;
	struct handle *handle;
};

struct resize {
	struct pool_req req; /* first */
	struct store_req *sreq;
};

static void resize_done(struct pool_req *req, int err)
{
	struct resize *resize = (struct resize *)req;
	struct store_req *sreq = resize->sreq;

	free(resize);
	store_complete(sreq, err);
}

static void region_submit(struct store *store, struct store_req *sreq)
{
	struct region *region = (struct region *)store;
	struct resize *resize;

	if (sreq->op != STORE_RESIZE) {
		store_forward(&region->handle->store, sreq);
		return;
	}
	resize = calloc(1, sizeof(*resize));
	resize->sreq = sreq;
	resize->req = (struct pool_req){
	    .op = POOL_SETATTR,
	    .id = region->handle->region_id,
	    .handle = region->handle,
	    .set = POOL_SET_SIZE,
	    .attr.size = sreq->off,
	    .session = SESSION,
	    .done = resize_done,
	};
	pool_submit(region->place->top.pool, &resize->req);
}

static void region_interrupt(struct store *store, struct store_req *sreq)
{
	struct region *region = (struct region *)store;

	if (sreq->op != STORE_RESIZE)
		region->handle->store.ops->interrupt(&region->handle->store, sreq);
}

static void region_unlend(struct store *store, uint64_t off, uint32_t len)
{
	store_lower_unlend(&((struct region *)store)->handle->store, off, len);
}

static void *region_lend(struct store *store, uint64_t off, uint32_t len)
{
	return store_lower_lend(&((struct region *)store)->handle->store, off, len);
}

static int region_stat(struct store *store, struct store_stat *ret_stat)
{
	struct region *region = (struct region *)store;
	struct pool_req req = {
	    .op = POOL_GETATTR, .id = region->handle->region_id, .handle = region->handle};
	int rc;

	*ret_stat = (struct store_stat){.size = store->size, .allocated = store->size};
	if (loop_self()) /* where nobody can wait for the answer */
		return 0;
	rc = client_ask(&region->place->top, &req);
	*ret_stat = (struct store_stat){
	    .size = req.attr.size, .allocated = req.attr.allocated, .mtime_ns = req.attr.mtime_ns};
	return rc;
}

static void region_destroy(struct store *store)
{
	struct region *region = (struct region *)store;

	client_close_handle(&region->place->top, region->handle);
	free(region);
}

static const struct store_ops region_ops = {
    .name = "managed region",
    .submit = region_submit,
    .interrupt = region_interrupt,
    .lend = region_lend,
    .unlend = region_unlend,
    .stat = region_stat,
    .destroy = region_destroy,
};

/* ---- the pool ---- */

static void make_now(void *ctx)
{
	struct place *place = ctx;

	place->rc = managed_create(&place->conf, &place->top.pool, &place->err);
}

static void leave_done(void *ctx)
{
	((struct place *)ctx)->left = true;
}

static void leave_now(void *ctx)
{
	struct place *place = ctx;

	managed_leave(place->top.pool, leave_done, place);
}

static void give_up_now(void *ctx)
{
	managed_give_up(((struct place *)ctx)->top.pool);
}

static void destroy_now(void *ctx)
{
	pool_destroy(((struct place *)ctx)->top.pool);
}

static void begin(struct contract_stack *stack)
{
	struct place *place = stack->ctx;
	struct region *region = calloc(1, sizeof(*region));

	if (place->path[0])
		ck_assert_int_eq(cache_dir_open(place->path, "/test", stack->rig.workers,
				     &place->dir, &place->err),
		    0);
	place->conf.dir = place->dir;
	rig_call(place->lower.loop, make_now, place);
	ck_assert_msg(place->rc == 0, "%s", place->err.text);
	place->top.loop = place->lower.loop;
	place->top.session = SESSION;
	region->place = place;
	if (client_open_region(&place->top, "region", POOL_READ | POOL_WRITE, &region->handle) != 0)
		region->handle = client_create(&place->top, "region");
	store_init(&region->store, &region_ops, region->handle->store.size);
	stack->store = &region->store;
}

static void end(struct place *place)
{
	place->left = false;
	rig_call(place->lower.loop, leave_now, place);
	for (unsigned i = 0; i < WAIT_TRIES && !place->left; i++)
		usleep(WAIT_US);
	ck_assert_msg(place->left, "the managed pool has not come to its end");
	rig_call(place->lower.loop, destroy_now, place);
	cache_dir_close(place->dir);
	place->dir = NULL;
}

/* ---- the factories ---- */

static bool place_create(
    struct contract_stack *stack, uint64_t size, bool persistent, uint64_t cache_size)
{
	struct place *place = calloc(1, sizeof(*place));
	struct client_conf conf = {.pool = "ram"};

	stack->ctx = place;
	serve_start(&place->serve, size);
	conf.port = place->serve.port;
	ck_assert_int_eq(client_open(&place->lower, stack->rig.loops[0], &conf, NULL), 0);
	if (persistent)
		rig_tmpdir(NULL, place->path);
	place->conf = (struct managed_conf){
	    .loop = stack->rig.loops[0],
	    .lower = place->lower.pool,
	    .workers = stack->rig.workers,
	    .session = SESSION,
	    .cache_size = cache_size,
	    .pull = PULL_SEQUENTIAL,
	    .push_interval_ms = 20,
	    .durability = persistent ? CACHE_LOCAL : CACHE_REMOTE,
	};
	begin(stack);
	return true;
}

static bool memory_create(struct contract_stack *stack, uint64_t size)
{
	return place_create(stack, size, false, 0);
}

static bool small_create(struct contract_stack *stack, uint64_t size)
{
	return place_create(stack, size, false, 16 << 20);
}

static bool dir_create(struct contract_stack *stack, uint64_t size)
{
	return place_create(stack, size, true, 0);
}

static void place_destroy(struct contract_stack *stack)
{
	struct place *place = stack->ctx;

	store_destroy(stack->store);
	end(place);
	client_close(&place->lower);
	serve_stop(&place->serve);
	if (place->path[0])
		rig_tmpdir_remove(place->path);
	free(place);
}

/* What was not pushed is only in the directory; the next life finds it there. */
static void dir_crash(struct contract_stack *stack)
{
	struct place *place = stack->ctx;

	rig_call(place->lower.loop, give_up_now, place);
	store_destroy(stack->store);
	end(place);
	begin(stack);
}

static const struct contract_factory *const factories[] = {
    &(struct contract_factory){"managed-memory", 0, memory_create, place_destroy, NULL},
    &(struct contract_factory){"managed-small", 0, small_create, place_destroy, NULL},
    &(struct contract_factory){"managed-dir", 0, dir_create, place_destroy, dir_crash},
    NULL,
};

int main(void)
{
	SRunner *runner = srunner_create(contract_suite("managed_store", factories));
	int failed;

	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
