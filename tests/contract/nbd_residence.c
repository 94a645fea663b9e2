/* SPDX-License-Identifier: Apache-2.0
 *
 * BLOCK_STATUS and CACHE of an export whose bytes are elsewhere (core/residence.h): a server in the test's own
 * process over a residence that the test plays, so that sanitizers watch both.
 */
#include <check.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/local_pool.h"
#include "core/log.h"
#include "core/residence.h"
#include "export/server.h"
#include "tests/lib/nbdraw.h"
#include "tests/lib/rig.h"

enum { SIZE = 4 << 20, BLOCK = 4096, BLOCKS = SIZE / BLOCK };

static const char *const contexts[] = {"base:allocation", "remram:resident", "remram:dirty", NULL};

static char dir[RIG_PATH_MAX], path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
static struct workers *workers;
static struct pool *pool;
static struct server *server;
static struct nbdraw raw;

/* ---- the residence ---- */

static struct played {
	struct residence residence; /* first */
	bool resident[BLOCKS], dirty[BLOCKS];
	int look_err, pull_err;
	unsigned pull_takes; /* so many calls of pull for each CACHE */
	_Atomic unsigned looks, pulls, forgotten, max_asked;
	bool late; /* look answers from a worker */
} played;

static void play_look(struct residence_req *req)
{
	uint64_t off = req->off, end = req->off + req->len;
	unsigned count = 0;

	for (; off < end; off = (off / BLOCK + 1) * BLOCK) {
		uint64_t block = off / BLOCK,
			 to = (block + 1) * BLOCK < end ? (block + 1) * BLOCK : end;
		struct residence_run run = {to - off, played.resident[block], played.dirty[block]};
		struct residence_run *last = count ? &req->runs[count - 1] : NULL;

		if (last && last->resident == run.resident && last->dirty == run.dirty)
			last->len += run.len;
		else if (count == req->max)
			break;
		else
			req->runs[count++] = run;
	}
	req->ret_count = count;
}

static void late_run(struct work *work)
{
}

static void late_done(struct work *work)
{
	struct residence_req *req =
	    (struct residence_req *)((char *)work - offsetof(struct residence_req, work));

	play_look(req);
	req->done(req, played.look_err);
}

static void look(struct residence *residence, struct residence_req *req)
{
	ck_assert_ptr_eq(residence, &played.residence);
	played.looks++;
	played.max_asked = req->max;
	if (played.late) {
		req->work.run = late_run;
		req->work.done = late_done;
		workers_submit(workers, &req->work);
		return;
	}
	if (!played.look_err)
		play_look(req);
	req->done(req, played.look_err);
}

static void pull(struct residence *residence, struct residence_req *req)
{
	played.pulls++;
	if (++req->task < played.pull_takes) {
		req->done(req, -EAGAIN);
		return;
	}
	for (uint64_t i = req->off / BLOCK; !played.pull_err && i * BLOCK < req->off + req->len;
	     i++)
		played.resident[i] = true;
	req->done(req, played.pull_err);
}

static void forget(struct residence *residence, struct residence_req *req)
{
	played.forgotten++;
}

static const struct residence_ops ops = {look, pull, forget};
static const struct residence_ops looking_only = {.look = look};

/* ---- the server ---- */

static void start(const struct residence_ops *residence_ops)
{
	struct local_pool_conf pool_conf = {.name = "it", .uri = "memory:?size=4M", .single = true};
	struct server_conf conf = {
	    .threads = 1, .pools = &pool, .pool_count = 1, .residence = &played.residence};
	struct address address = {.text = "socket", .addr_len = sizeof(struct sockaddr_un)};
	struct sockaddr_un *sun = (struct sockaddr_un *)&address.addr;
	struct err err = {0};

	log_set_level(LOG_LEVEL_ERROR);
	memset(&played, 0, sizeof(played));
	played.residence.ops = residence_ops;
	played.pull_takes = 1;
	rig_tmpdir(NULL, dir);
	ck_assert_int_lt(snprintf(path, sizeof(path), "%.90s/nbd", dir), (int)sizeof(path));
	sun->sun_family = AF_UNIX;
	memcpy(sun->sun_path, path, sizeof(path));
	ck_assert_int_eq(workers_create(1, &workers, &err), 0);
	ck_assert_msg(local_pool_create(&pool_conf, workers, &pool, &err) == 0, "%s", err.text);
	ck_assert_msg(server_create(&conf, &server, &err) == 0, "%s", err.text);
	ck_assert_msg(server_listen(server, SERVER_NBD, &address, &err) == 0, "%s", err.text);
	ck_assert_msg(server_start(server, &err) == 0, "%s", err.text);
	raw.fd = -1;
}

static void stop(void)
{
	nbdraw_close(&raw);
	ck_assert(server_stop(server));
	server_destroy(server);
	pool_destroy(pool);
	workers_destroy(workers);
	rig_tmpdir_remove(dir);
}

static void dial(enum nbd_mode mode, const char *const *which)
{
	nbdraw_open(&raw, path, mode, "it", which);
}

static uint32_t status(uint16_t flags, uint64_t off, uint64_t len)
{
	return nbdraw_cmd(&raw, flags, NBD_C_BLOCK_STATUS, off, len, NULL);
}

/* Extent i of a context: id 1 allocation, 2 resident, 3 dirty. */
static void expect(unsigned id, unsigned i, uint64_t len, uint64_t state)
{
	ck_assert_uint_lt(i, raw.extent_count[id]);
	ck_assert_uint_eq(raw.extents[id][i].len, len);
	ck_assert_uint_eq(raw.extents[id][i].state, state);
}

/* ---- BLOCK_STATUS ---- */

START_TEST(states_by_context)
{
	start(&ops);
	played.late = _i >= 2;
	dial(_i % 2 ? NBD_EXTENDED : NBD_STRUCTURED, contexts);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_WRITE, 8 * BLOCK, BLOCK, store_zeros), 0);
	for (unsigned i = 4; i < 12; i++)
		played.resident[i] = true;
	played.dirty[8] = played.dirty[9] = true;
	ck_assert_uint_eq(status(0, 2 * BLOCK + 100, 16 * BLOCK), 0);
	/* Each context has its own extents: resident has no border where only dirty has one. */
	ck_assert_uint_eq(raw.extent_count[2], 3);
	expect(2, 0, 2 * BLOCK - 100, 0);
	expect(2, 1, 8 * BLOCK, 1);
	expect(2, 2, 6 * BLOCK + 100, 0);
	ck_assert_uint_eq(raw.extent_count[3], 3);
	expect(3, 0, 6 * BLOCK - 100, 0);
	expect(3, 1, 2 * BLOCK, 1);
	expect(3, 2, 8 * BLOCK + 100, 0);
	ck_assert_uint_eq(raw.extent_count[1], 3);
	expect(1, 1, BLOCK, 0);
	ck_assert_uint_eq(status(NBD_F_REQ_ONE, 4 * BLOCK, 16 * BLOCK), 0);
	for (unsigned id = 1; id <= 3; id++)
		ck_assert_uint_eq(raw.extent_count[id], 1);
	expect(2, 0, 4 * BLOCK, 1);
	expect(3, 0, 4 * BLOCK, 0);
	stop();
}
END_TEST

/* As many extents as an answer has room for, in the mode that takes most. */
START_TEST(many_states)
{
	start(&ops);
	dial(_i ? NBD_EXTENDED : NBD_STRUCTURED, contexts);
	for (unsigned i = 0; i < BLOCKS; i++) {
		played.resident[i] = i % 2;
		played.dirty[i] = i % 2;
		if (i % 2)
			ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_WRITE, i * BLOCK, 1, "x"), 0);
	}
	ck_assert_uint_eq(status(0, 0, SIZE), 0);
	for (unsigned id = 1; id <= 3; id++) {
		ck_assert_uint_eq(raw.extent_count[id], played.max_asked);
		for (unsigned i = 0; i < raw.extent_count[id]; i++)
			expect(id, i, BLOCK, id == 1 ? (i % 2 ? 0 : 3) : i % 2);
	}
	stop();
}
END_TEST

START_TEST(one_context)
{
	const char *const resident[] = {"remram:resident", NULL};
	const char *const allocation[] = {"base:allocation", NULL};

	start(&ops);
	dial(NBD_STRUCTURED, resident);
	played.resident[1] = true;
	ck_assert_uint_eq(status(0, 0, SIZE), 0);
	ck_assert_uint_eq(raw.extent_count[1], 0);
	ck_assert_uint_eq(raw.extent_count[3], 0);
	ck_assert_uint_eq(raw.extent_count[2], 3);
	nbdraw_close(&raw);
	/* Nobody is asked for what is not wanted. */
	played.looks = 0;
	dial(NBD_STRUCTURED, allocation);
	ck_assert_uint_eq(status(0, 0, SIZE), 0);
	ck_assert_uint_eq(played.looks, 0);
	stop();
}
END_TEST

START_TEST(no_answer)
{
	start(&ops);
	dial(NBD_STRUCTURED, contexts);
	played.look_err = -EIO;
	ck_assert_uint_eq(status(0, 0, SIZE), NBD_EIO);
	played.look_err = 0;
	ck_assert_uint_eq(status(0, 0, SIZE), 0);
	stop();
}
END_TEST

/* Who does not know does not offer. */
START_TEST(not_known)
{
	uint8_t data[512];
	size_t len = nbdraw_meta_data(data, "it", contexts + 1);

	start(NULL);
	nbdraw_connect(&raw, path, 3);
	ck_assert_uint_eq(nbdraw_ask(&raw, NBD_O_STRUCTURED_REPLY, NULL, 0), NBD_R_ACK);
	ck_assert_uint_eq(nbdraw_ask(&raw, NBD_O_SET_META_CONTEXT, data, len), NBD_R_ACK);
	len = nbdraw_meta_data(data, "it", (const char *const[]){"remram:", NULL});
	ck_assert_uint_eq(nbdraw_ask(&raw, NBD_O_LIST_META_CONTEXT, data, len), NBD_R_ACK);
	len = nbdraw_meta_data(data, "it", (const char *const[]){NULL});
	ck_assert_uint_eq(nbdraw_ask(&raw, NBD_O_LIST_META_CONTEXT, data, len), NBD_R_META_CONTEXT);
	ck_assert_mem_eq(raw.reply + 4, "base:allocation", 15);
	ck_assert(nbdraw_reply(&raw));
	ck_assert_uint_eq(raw.reply_type, NBD_R_ACK);
	nbdraw_close(&raw);
	dial(NBD_SIMPLE, NULL);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_CACHE, 0, SIZE, NULL), 0);
	stop();
}
END_TEST

/* ---- CACHE ---- */

START_TEST(cache_pulls)
{
	start(&ops);
	dial((enum nbd_mode)(_i % 3), NULL);
	played.pull_takes = _i < 3 ? 1 : 9;
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_CACHE, 3 * BLOCK, 5 * BLOCK, NULL), 0);
	ck_assert_uint_eq(played.pulls, played.pull_takes);
	for (unsigned i = 0; i < BLOCKS; i++)
		ck_assert_int_eq(played.resident[i], i >= 3 && i < 8);
	/* Of nothing, and beyond the end. */
	played.pulls = 0;
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_CACHE, BLOCK, 0, NULL), 0);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_CACHE, SIZE, 1, NULL), NBD_EINVAL);
	ck_assert_uint_eq(played.pulls, 0);
	played.pull_err = -EIO;
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_CACHE, 0, SIZE, NULL), NBD_EIO);
	ck_assert_uint_eq(played.forgotten, 0);
	stop();
}
END_TEST

/* Other commands are served meanwhile; nobody goes on for a client that has left. */
START_TEST(cache_that_takes_long)
{
	unsigned forgotten;

	start(&ops);
	dial(NBD_SIMPLE, NULL);
	played.pull_takes = UINT32_MAX;
	for (unsigned i = 0; i < 3; i++)
		nbdraw_request(&raw, 0, NBD_C_CACHE, 0, SIZE, NULL);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_WRITE, 0, BLOCK, store_zeros), 0);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_READ, 0, BLOCK, NULL), 0);
	if (_i == 0) {
		nbdraw_close(&raw);
		for (unsigned i = 0; i < 500 && played.forgotten < 3; i++)
			usleep(10000);
		forgotten = played.forgotten;
		ck_assert_uint_eq(forgotten, 3);
	}
	/* Else the server ends with them under way: it does not wait for the pulls. */
	stop();
	ck_assert_uint_eq(played.forgotten, 3);
}
END_TEST

/* A residence that only looks: CACHE reads. */
START_TEST(cache_reads)
{
	start(&looking_only);
	dial(NBD_STRUCTURED, contexts);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_CACHE, 0, SIZE, NULL), 0);
	ck_assert_uint_eq(status(0, 0, SIZE), 0);
	ck_assert_uint_eq(raw.extent_count[2], 1);
	expect(2, 0, SIZE, 0);
	expect(3, 0, SIZE, 0);
	stop();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("nbd_residence");
	TCase *tc = tcase_create("all");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, states_by_context, 0, 4);
	tcase_add_loop_test(tc, many_states, 0, 2);
	tcase_add_test(tc, one_context);
	tcase_add_test(tc, no_answer);
	tcase_add_test(tc, not_known);
	tcase_add_loop_test(tc, cache_pulls, 0, 6);
	tcase_add_loop_test(tc, cache_that_takes_long, 0, 2);
	tcase_add_test(tc, cache_reads);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
