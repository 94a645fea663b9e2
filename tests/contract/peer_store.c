/* SPDX-License-Identifier: Apache-2.0
 *
 * The store contract over the wire: every rule of core/store.h for a region of a pool at a donor, also
 * through a proxy that adds delay.
 *
 * A region's handle has no RESIZE, that is the pool's SETATTR, and what it allocates its attributes say:
 * `region` is a store that does both so, on top of the handle.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/contract.h"
#include "tests/lib/serve.h"

struct place {
	struct serve serve;
	struct proxy proxy;
	struct client client;
	const char *pool;
	bool delay;
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
	    .session = region->place->client.session,
	    .done = resize_done,
	};
	pool_submit(region->place->client.pool, &resize->req);
}

static void region_interrupt(struct store *store, struct store_req *sreq)
{
	struct region *region = (struct region *)store;

	if (sreq->op != STORE_RESIZE)
		region->handle->store.ops->interrupt(&region->handle->store, sreq);
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
	rc = client_ask(&region->place->client, &req);
	*ret_stat = (struct store_stat){
	    .size = req.attr.size, .allocated = req.attr.allocated, .mtime_ns = req.attr.mtime_ns};
	return rc;
}

static void region_destroy(struct store *store)
{
	struct region *region = (struct region *)store;

	client_close_handle(&region->place->client, region->handle);
	free(region);
}

static const struct store_ops region_ops = {
    .name = "peer region",
    .submit = region_submit,
    .interrupt = region_interrupt,
    .stat = region_stat,
    .destroy = region_destroy,
};

/* ---- the factories ---- */

static void place_open(struct contract_stack *stack)
{
	struct place *place = stack->ctx;
	struct region *region = calloc(1, sizeof(*region));

	region->place = place;
	region->handle = client_create(&place->client, "region");
	store_init(&region->store, &region_ops, region->handle->store.size);
	stack->store = &region->store;
}

static bool place_create_conf(
    struct contract_stack *stack, uint64_t size, const struct client_conf *wanted, bool delay)
{
	struct place *place = calloc(1, sizeof(*place));
	struct client_conf conf = *wanted;

	stack->ctx = place;
	place->pool = conf.pool;
	place->delay = delay;
	serve_start(&place->serve, size);
	conf.port = place->serve.port;
	if (delay) {
		proxy_start(&place->proxy, place->serve.port);
		proxy_tell(&place->proxy, "delay 0.3");
		conf.port = place->proxy.port;
	}
	ck_assert_int_eq(client_open(&place->client, stack->rig.loops[0], &conf, NULL), 0);
	place_open(stack);
	return true;
}

static bool place_create(struct contract_stack *stack, uint64_t size, const char *pool, bool delay)
{
	return place_create_conf(stack, size, &(struct client_conf){.pool = pool}, delay);
}

static bool ram_create(struct contract_stack *stack, uint64_t size)
{
	return place_create(stack, size, "ram", false);
}

static bool disk_create(struct contract_stack *stack, uint64_t size)
{
	return place_create(stack, size, "disk", false);
}

static bool late_create(struct contract_stack *stack, uint64_t size)
{
	return place_create(stack, size, "ram", true);
}

static bool ahead_create(struct contract_stack *stack, uint64_t size)
{
	return place_create_conf(
	    stack, size, &(struct client_conf){.pool = "ram", .ahead = true}, true);
}

static bool fault_create_top(struct contract_stack *stack, uint64_t size)
{
	place_create(stack, size, "ram", false);
	contract_add_fault(stack);
	return true;
}

static void place_destroy(struct contract_stack *stack)
{
	struct place *place = stack->ctx;

	store_destroy(stack->store);
	client_close(&place->client);
	proxy_stop(&place->proxy);
	serve_stop(&place->serve);
	free(place);
}

/* The donor ends and comes back; the client finds it again. */
static void place_crash(struct contract_stack *stack)
{
	struct place *place = stack->ctx;

	store_destroy(stack->store);
	serve_restart(&place->serve);
	place_open(stack);
}

static const struct contract_factory *const factories[] = {
    &(struct contract_factory){
	"peer-ram", CONTRACT_SPARSE | CONTRACT_PIPES, ram_create, place_destroy, NULL},
    &(struct contract_factory){
	"peer-disk", CONTRACT_SPARSE, disk_create, place_destroy, place_crash},
    &(struct contract_factory){
	"peer-ahead", CONTRACT_SPARSE | CONTRACT_BRIEF, ahead_create, place_destroy, NULL},
    &(struct contract_factory){"peer-late", CONTRACT_SPARSE, late_create, place_destroy, NULL},
    &(struct contract_factory){
	"peer-fault", CONTRACT_SPARSE, fault_create_top, place_destroy, NULL},
    NULL,
};

int main(void)
{
	SRunner *runner = srunner_create(contract_suite("peer_store", factories));
	int failed;

	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
