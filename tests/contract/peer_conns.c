/* SPDX-License-Identifier: Apache-2.0
 *
 * A mount with several connections: long reads are shared among them, and whatever happens to one of the further
 * ones costs nothing but speed.  With a donor of this process, through the proxy where the network misbehaves.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "tests/lib/serve.h"

enum {
	CONNS = 3,
	SIZE = 16 << 20, /* of the region that is read */
	POOL = 48 << 20,
	READS = 24,
	LEN = 512 * 1024,
};

static struct serve serve;
static struct rig rig;
static struct proxy proxy;
static struct client client;
static uint8_t *bytes; /* what the region holds */

static void begin(const char *pool, bool network)
{
	struct client_conf conf = {.pool = pool, .conns = CONNS};

	serve_start(&serve, POOL);
	conf.port = serve.port;
	if (network) {
		proxy_start(&proxy, serve.port);
		conf.port = proxy.port;
	}
	rig_start(&rig, 1, 1);
	ck_assert_int_eq(client_open(&client, rig.loops[0], &conf, NULL), 0);
	client_wait_conns(&client, CONNS);
	bytes = malloc(SIZE);
	for (unsigned i = 0; i < SIZE; i++)
		bytes[i] = (uint8_t)(i * 7 + (i >> 12) + 1);
}

static void end(void)
{
	client_close(&client);
	rig_stop(&rig);
	proxy_stop(&proxy);
	serve_stop(&serve);
	free(bytes);
}

static void fill(struct handle *handle)
{
	for (uint64_t off = 0; off < SIZE; off += 1 << 20)
		ck_assert_int_eq(
		    rig_write(rig.loops[0], &handle->store, off, bytes + off, 1 << 20, 0), 0);
}

static uint64_t striped(void)
{
	struct peer_status status;

	client_status(&client, &status);
	return status.striped;
}

/* ---- many reads at once ---- */

struct batch {
	struct rig_req reqs[READS];
	struct rig_wait *wait;
	uint32_t len;
	uint8_t *buf;
};

static void batch_begin(struct batch *batch, struct handle *handle, uint32_t len)
{
	memset(batch, 0, sizeof(*batch));
	batch->len = len;
	batch->buf = malloc((size_t)READS * len);
	for (unsigned i = 0; i < READS; i++)
		batch->reqs[i].req = (struct store_req){
		    .op = STORE_READ,
		    .off = (uint64_t)i * 613 * 1024 % (SIZE - len),
		    .len = len,
		    .buf = batch->buf + (size_t)i * len,
		    .flags = i % 2 ? STORE_PIPE : 0,
		};
	batch->wait = rig_begin(rig.loops[0], &handle->store, batch->reqs, READS);
}

static void batch_end(struct batch *batch, int err)
{
	rig_end(batch->wait);
	for (unsigned i = 0; i < READS; i++) {
		ck_assert_int_eq(batch->reqs[i].err, err);
		ck_assert_uint_eq(batch->reqs[i].dones, 1);
		if (err == 0)
			ck_assert_mem_eq(
			    batch->reqs[i].req.buf, bytes + batch->reqs[i].req.off, batch->len);
	}
	free(batch->buf);
}

static void read_all(struct handle *handle, uint32_t len)
{
	struct batch batch;

	batch_begin(&batch, handle, len);
	batch_end(&batch, 0);
}

/* Reads until others than the first connection have a share in it. */
static void share(struct handle *handle)
{
	uint64_t before = striped();

	for (unsigned i = 0; i < 1000 && striped() == before; i++)
		read_all(handle, LEN);
	ck_assert_uint_gt(striped(), before);
}

/* ---- what is shared ---- */

START_TEST(long_reads_are_shared)
{
	struct peer_status status;
	struct handle *handle;
	uint64_t before;

	begin(_i ? "disk" : "ram", false);
	client_status(&client, &status);
	ck_assert_uint_eq(status.conns, CONNS);
	handle = client_create(&client, "r");
	fill(handle);
	share(handle);
	before = striped();
	for (unsigned i = 0; i < 10; i++)
		read_all(handle, LEN);
	/* A third each, if nobody is faster than the others; they have a share in any case. */
	ck_assert_uint_ge(striped() - before, 10 * READS / 4);
	before = striped();
	read_all(handle, 4096);
	ck_assert_uint_eq(striped(), before);
	client_close_handle(&client, handle);
	end();
}
END_TEST

/* One at a time: there is nothing to share, and no other connection is troubled. */
START_TEST(single_reads_stay)
{
	struct handle *handle;
	uint8_t *buf = malloc(LEN);
	uint64_t before;

	begin("ram", false);
	handle = client_create(&client, "r");
	fill(handle);
	for (unsigned i = 0; i < 20; i++)
		ck_assert_int_eq(rig_read(rig.loops[0], &handle->store, 0, buf, LEN), 0);
	ck_assert_uint_eq(striped(), 0);
	share(handle);
	before = striped();
	for (unsigned i = 0; i < 20; i++)
		ck_assert_int_eq(rig_read(rig.loops[0], &handle->store, 0, buf, LEN), 0);
	ck_assert_uint_eq(striped(), before);
	client_close_handle(&client, handle);
	end();
	free(buf);
}
END_TEST

/* What a write has brought is seen over every connection. */
START_TEST(reads_see_what_was_written)
{
	struct rig_random random;
	struct handle *handle;

	begin("ram", false);
	rig_random_init(&random, "reads_see_what_was_written");
	handle = client_create(&client, "r");
	fill(handle);
	share(handle);
	for (unsigned i = 0; i < 100; i++) {
		uint32_t len = (uint32_t)rig_random_below(&random, 1 << 20) + 1;
		uint64_t off = rig_random_below(&random, SIZE - len);

		rig_random_fill(&random, bytes + off, len);
		ck_assert_int_eq(
		    rig_write(rig.loops[0], &handle->store, off, bytes + off, len, 0), 0);
		read_all(handle, LEN);
	}
	client_close_handle(&client, handle);
	end();
}
END_TEST

/* ---- regions that others can't open ---- */

START_TEST(removed_while_open)
{
	struct pool_req req = {.op = POOL_REMOVE, .name = "r"};
	struct handle *handle;

	begin("ram", false);
	handle = client_create(&client, "r");
	fill(handle);
	if (_i)
		share(handle);
	ck_assert_int_eq(client_ask(&client, &req), 0);
	for (unsigned i = 0; i < 5; i++)
		read_all(handle, LEN);
	/* What was opened before is good; to open it again is not possible. */
	if (!_i)
		ck_assert_uint_eq(striped(), 0);
	client_close_handle(&client, handle);
	end();
}
END_TEST

START_TEST(modes)
{
	struct pool_req req = {
	    .op = POOL_CREATE, .name = "w", .flags = POOL_READ | POOL_WRITE, .attr.mode = 0200};
	struct handle *mine, *other;

	begin("ram", false);
	/* Who made it may read it, and nobody else. */
	ck_assert_int_eq(client_ask(&client, &req), 0);
	mine = req.ret_handle;
	fill(mine);
	for (unsigned i = 0; i < 5; i++)
		read_all(mine, LEN);
	ck_assert_uint_eq(striped(), 0);
	client_close_handle(&client, mine);
	/* One that is read, until its mode forbids that: who made it reads on, others do not. */
	mine = client_create(&client, "r");
	fill(mine);
	share(mine);
	ck_assert_int_eq(client_open_region(&client, "r", POOL_READ, &other), 0);
	share(other);
	req = (struct pool_req){
	    .op = POOL_SETATTR, .id = mine->region_id, .set = POOL_SET_MODE, .attr.mode = 0200};
	ck_assert_int_eq(client_ask(&client, &req), 0);
	for (unsigned i = 0; i < 5; i++) {
		struct batch batch;

		read_all(mine, LEN);
		batch_begin(&batch, other, LEN);
		batch_end(&batch, -EACCES);
	}
	client_close_handle(&client, other);
	client_close_handle(&client, mine);
	end();
}
END_TEST

START_TEST(handles_that_only_write)
{
	struct handle *handle;
	struct batch batch;

	begin("ram", false);
	handle = client_create(&client, "r");
	fill(handle);
	client_close_handle(&client, handle);
	ck_assert_int_eq(client_open_region(&client, "r", POOL_WRITE, &handle), 0);
	for (unsigned i = 0; i < 10; i++) {
		batch_begin(&batch, handle, LEN);
		batch_end(&batch, -EBADF);
	}
	client_close_handle(&client, handle);
	end();
}
END_TEST

/* What its user has closed nobody has open: it can be replaced, and its space is free once it is removed. */
START_TEST(closed_is_closed)
{
	begin("ram", true);
	proxy_tell(&proxy, "delay 1");
	for (unsigned i = 0; i < 30; i++) {
		struct client_req reqs[3] = {{.req = {.op = POOL_CLOSE}},
		    {.req = {.op = POOL_RENAME}}, {.req = {.op = POOL_REMOVE}}};
		struct handle *handle = client_create(&client, "old");

		ck_assert_int_eq(
		    rig_op(rig.loops[0], &handle->store, STORE_ALLOC, 0, POOL - (8 << 20), 0), 0);
		fill(handle);
		share(handle);
		client_close_handle(&client, client_create(&client, "new"));
		reqs[0].req.handle = handle;
		reqs[1].req.name = "new";
		reqs[1].req.new_name = "old";
		reqs[2].req.name = "old";
		client_end(client_begin(&client, reqs, 3));
		for (unsigned k = 0; k < 3; k++)
			ck_assert_int_eq(reqs[k].err, 0);
	}
	end();
}
END_TEST

/* The same number for one region after the other: never the bytes of the one before. */
START_TEST(numbers_are_used_again)
{
	begin("ram", true);
	proxy_tell(&proxy, "delay 0.5");
	for (unsigned i = 0; i < 40; i++) {
		struct handle *handle = client_create(&client, i % 2 ? "a" : "b");

		ck_assert_uint_eq(handle->number, 1);
		memset(bytes, (int)i + 1, SIZE);
		fill(handle);
		for (unsigned k = 0; k < 3; k++)
			read_all(handle, LEN);
		client_close_handle(&client, handle);
	}
	ck_assert_uint_gt(striped(), 0);
	end();
}
END_TEST

/* ---- networks ---- */

START_TEST(one_is_cut_while_it_reads)
{
	static const char *const cuts[] = {"cut-one 2", "cut-one 3"};
	struct peer_status status;
	struct handle *handle;
	struct batch batch;

	begin(_i ? "disk" : "ram", true);
	handle = client_create(&client, "r");
	fill(handle);
	share(handle);
	proxy_tell(&proxy, "bandwidth 60000000"); /* READS * LEN take 0.2 s */
	for (unsigned i = 0; i < 8; i++) {
		client_wait_conns(&client, CONNS);
		batch_begin(&batch, handle, LEN);
		usleep(20000 * (i % 4) + 10000);
		proxy_tell(&proxy, cuts[i % 2]);
		batch_end(&batch, 0);
	}
	client_wait_conns(&client, CONNS);
	client_status(&client, &status);
	ck_assert_uint_eq(status.reconnects, 0);
	proxy_tell(&proxy, "bandwidth 0");
	share(handle);
	client_close_handle(&client, handle);
	end();
}
END_TEST

START_TEST(all_are_cut)
{
	struct peer_status status;
	struct handle *handle;
	struct batch batch;

	begin("ram", true);
	handle = client_create(&client, "r");
	fill(handle);
	share(handle);
	proxy_tell(&proxy, "bandwidth 60000000");
	for (unsigned i = 0; i < 6; i++) {
		client_wait_conns(&client, CONNS);
		batch_begin(&batch, handle, LEN);
		usleep(20000 * (i % 4) + 10000);
		/* All of them; or only the first, which takes the others with it. */
		proxy_tell(&proxy, i % 2 ? "cut-one 1" : "cut");
		batch_end(&batch, 0);
		/* The batch may have ended before the cut. */
		do {
			usleep(1000);
			client_status(&client, &status);
		} while (status.reconnects <= i);
	}
	client_wait_conns(&client, CONNS);
	client_status(&client, &status);
	ck_assert_uint_eq(status.reconnects, 6);
	client_close_handle(&client, handle);
	end();
}
END_TEST

/* Whoever is interrupted ends when the first connection is lost, wherever the request was. */
START_TEST(interrupted)
{
	struct handle *handle;
	struct batch batch;

	begin("ram", true);
	handle = client_create(&client, "r");
	fill(handle);
	share(handle);
	proxy_tell(&proxy, "stall");
	batch_begin(&batch, handle, LEN);
	for (unsigned i = 0; i < READS; i++)
		client_interrupt_data(&client, &batch.reqs[i]);
	proxy_tell(&proxy, "refuse");
	proxy_tell(&proxy, "cut");
	batch_end(&batch, -EINTR);
	proxy_tell(&proxy, "resume");
	proxy_tell(&proxy, "accept");
	client_wait_conns(&client, CONNS);
	share(handle);
	client_close_handle(&client, handle);
	end();
}
END_TEST

/* The first connection is there, the others are refused: all works, and they come when they can. */
START_TEST(others_are_refused)
{
	struct client_conf conf = {.pool = "ram", .conns = CONNS};
	struct peer_status status;
	struct handle *handle;

	serve_start(&serve, POOL);
	proxy_start(&proxy, serve.port);
	proxy_tell(&proxy, "most 1");
	conf.port = proxy.port;
	rig_start(&rig, 1, 1);
	bytes = calloc(1, SIZE);
	memset(bytes, 5, SIZE);
	ck_assert_int_eq(client_open(&client, rig.loops[0], &conf, NULL), 0);
	handle = client_create(&client, "r");
	fill(handle);
	for (unsigned i = 0; i < 5; i++)
		read_all(handle, LEN);
	client_status(&client, &status);
	ck_assert_int_eq(status.state, PEER_CONNECTED);
	ck_assert_uint_eq(status.conns, CONNS);
	ck_assert_uint_eq(status.conns_up, 1);
	ck_assert_uint_eq(status.striped, 0);
	proxy_tell(&proxy, "most 0");
	client_wait_conns(&client, CONNS);
	share(handle);
	client_close_handle(&client, handle);
	end();
}
END_TEST

/* ---- the donor ---- */

START_TEST(the_donor_is_restarted)
{
	struct peer_status status;
	struct handle *handle;
	struct batch batch;
	bool lasts = _i;

	begin(lasts ? "disk" : "ram", false);
	handle = client_create(&client, "r");
	fill(handle);
	share(handle);
	for (unsigned i = 0; i < 3; i++) {
		serve_end(&serve);
		batch_begin(&batch, handle, LEN);
		serve_again(&serve);
		batch_end(&batch, lasts ? 0 : -ESTALE);
		client_wait_conns(&client, CONNS);
		if (!lasts) {
			client_close_handle(&client, handle);
			handle = client_create(&client, "r");
			fill(handle);
		}
		share(handle);
	}
	client_status(&client, &status);
	ck_assert_uint_eq(status.reconnects, 3);
	client_close_handle(&client, handle);
	end();
}
END_TEST

/* Their sessions end with the mount: nothing of it is left open at the donor. */
START_TEST(sessions_end)
{
	struct client_conf conf = {.pool = "ram"};
	struct handle *handle;
	struct client_req reqs[2] = {
	    {.req = {.op = POOL_CLOSE}}, {.req = {.op = POOL_REMOVE, .name = "r"}}};

	begin("ram", true);
	handle = client_create(&client, "r");
	ck_assert_int_eq(
	    rig_op(rig.loops[0], &handle->store, STORE_ALLOC, 0, POOL - (8 << 20), 0), 0);
	fill(handle);
	share(handle);
	/* They are away and stay away: what they have open can not be closed, and nobody waits for that. */
	proxy_tell(&proxy, "most 1");
	proxy_tell(&proxy, "cut-one 3");
	proxy_tell(&proxy, "cut-one 2");
	client_wait_conns(&client, 1);
	reqs[0].req.handle = handle;
	client_end(client_begin(&client, reqs, 2));
	ck_assert_int_eq(reqs[0].err, 0);
	ck_assert_int_eq(reqs[1].err, 0);
	/* When they are back they close it. */
	proxy_tell(&proxy, "most 0");
	client_wait_conns(&client, CONNS);
	handle = client_create(&client, "r2");
	for (unsigned i = 0; i < 1000; i++) {
		if (rig_op(rig.loops[0], &handle->store, STORE_ALLOC, 0, POOL - (8 << 20), 0) == 0)
			break;
		usleep(5000);
	}
	ck_assert_int_eq(
	    rig_op(rig.loops[0], &handle->store, STORE_ALLOC, 0, POOL - (8 << 20), 0), 0);
	fill(handle);
	share(handle);
	client_close_handle(&client, handle);
	client_close(&client);
	/* Another client finds nobody else there. */
	conf.port = serve.port;
	ck_assert_int_eq(client_open(&client, rig.loops[0], &conf, NULL), 0);
	client_close_handle(&client, client_create(&client, "new"));
	ck_assert_int_eq(
	    client_ask(
		&client, &(struct pool_req){.op = POOL_RENAME, .name = "new", .new_name = "r2"}),
	    0);
	end();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("peer_conns");
	TCase *tc = tcase_create("conns");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_unchecked_fixture(tc, rig_tmpdirs_begin, rig_tmpdirs_end);
	tcase_add_loop_test(tc, long_reads_are_shared, 0, 2);
	tcase_add_test(tc, single_reads_stay);
	tcase_add_test(tc, reads_see_what_was_written);
	tcase_add_loop_test(tc, removed_while_open, 0, 2);
	tcase_add_test(tc, modes);
	tcase_add_test(tc, handles_that_only_write);
	tcase_add_test(tc, closed_is_closed);
	tcase_add_test(tc, numbers_are_used_again);
	tcase_add_loop_test(tc, one_is_cut_while_it_reads, 0, 2);
	tcase_add_test(tc, all_are_cut);
	tcase_add_test(tc, interrupted);
	tcase_add_test(tc, others_are_refused);
	tcase_add_loop_test(tc, the_donor_is_restarted, 0, 2);
	tcase_add_test(tc, sessions_end);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
