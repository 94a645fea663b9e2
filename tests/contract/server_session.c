/* SPDX-License-Identifier: Apache-2.0
 *
 * Sessions at the donor: what outlives a connection, what a request that is sent again does, how a new
 * connection takes an old one's place.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/donor.h"
#include "tests/lib/raw.h"

enum { BLOCK = 4096, REGION = 1 << 20 };

static struct donor donor;
static struct raw a, b;
static struct frame_hello hello;

static const char *const args[] = {"--pool", "ram=memory:?size=64M", "--pool",
    "disk=file:DIR/disk?size=64M", "--log", "debug", NULL};
static const char *const pools[] = {"ram", "disk"};

static void setup(void)
{
	donor_start(&donor, args);
	a.fd = b.fd = -1;
}

static void teardown(void)
{
	raw_close(&a);
	raw_close(&b);
	donor_stop(&donor);
}

/* Connects with an epoch; whether the session is resumed. */
static bool join(struct raw *raw, const char *pool, unsigned seed, uint64_t epoch)
{
	raw_open(raw, donor.port, pool, seed, epoch);
	return raw->rep.flags & FRAME_F_RESUMED;
}

static int close_handle(struct raw *raw, uint32_t number)
{
	return raw_ask(raw, (struct frame_req){.op = FRAME_CLOSE, .handle = number}, NULL, 0);
}

static int lookup(struct raw *raw, const char *name, uint64_t *ret_id)
{
	struct pool_req req = {.op = POOL_LOOKUP, .name = name};
	int rc = raw_control(raw, &req, 0, 0);

	if (rc == 0 && ret_id)
		*ret_id = req.attr.id;
	return rc;
}

/* ---- what stays ---- */

START_TEST(handles_stay)
{
	uint8_t buf[BLOCK], got[BLOCK];

	memset(buf, 0x5a, sizeof(buf));
	ck_assert(!join(&a, pools[_i], 1, 1));
	raw_create(&a, "r", 7);
	ck_assert_int_eq(raw_write(&a, 7, 0, buf, BLOCK), 0);
	raw_close(&a);
	ck_assert(join(&a, pools[_i], 1, 2));
	ck_assert_int_eq(raw_read(&a, 7, 0, got, BLOCK), 0);
	ck_assert_mem_eq(buf, got, BLOCK);
	/* Another session knows nothing of them. */
	ck_assert(!join(&b, pools[_i], 2, 1));
	ck_assert_int_eq(raw_read(&b, 7, 0, got, BLOCK), -EBADF);
}
END_TEST

/* A region without a name lives as long as a session has it open, connected or not. */
START_TEST(a_removed_region_lives_on_in_a_session)
{
	struct pool_req req = {.op = POOL_REMOVE, .name = "r"};
	uint8_t buf[BLOCK], got[BLOCK];

	memset(buf, 0x5a, sizeof(buf));
	join(&a, "ram", 1, 1);
	raw_create(&a, "r", 7);
	ck_assert_int_eq(raw_write(&a, 7, 0, buf, BLOCK), 0);
	raw_close(&a);
	join(&b, "ram", 2, 1);
	ck_assert_int_eq(raw_control(&b, &req, 0, 0), 0);
	ck_assert_int_eq(lookup(&b, "r", NULL), -ENOENT);
	ck_assert(join(&a, "ram", 1, 2));
	ck_assert_int_eq(raw_read(&a, 7, 0, got, BLOCK), 0);
	ck_assert_mem_eq(buf, got, BLOCK);
	ck_assert_int_eq(close_handle(&a, 7), 0);
}
END_TEST

/* BYE ends the session with all that it has open: nothing is pinned any more. */
START_TEST(bye_ends_it)
{
	struct pool_req open = {.op = POOL_OPEN, .flags = POOL_READ | POOL_PIN, .number = 1};
	struct pool_req remove = {.op = POOL_REMOVE, .name = "r"};

	join(&b, pools[_i], 2, 1);
	raw_create(&b, "r", 1);
	ck_assert_int_eq(lookup(&b, "r", &open.id), 0);
	join(&a, pools[_i], 1, 1);
	ck_assert_int_eq(raw_control(&a, &open, 0, 0), 0);
	ck_assert_int_eq(raw_control(&b, &remove, 0, 0), -EBUSY);
	ck_assert_int_eq(raw_ask(&a, (struct frame_req){.op = FRAME_BYE}, NULL, 0), 0);
	raw_close(&a);
	for (unsigned tries = 0; tries < 200 && raw_control(&b, &remove, 0, 0); tries++)
		usleep(10000);
	ck_assert_int_eq(lookup(&b, "r", NULL), -ENOENT);
	ck_assert(!join(&a, pools[_i], 1, 2));
	ck_assert_int_eq(raw_read(&a, 1, 0, a.data, 1), -EBADF);
}
END_TEST

/* ---- requests that are sent again ---- */

/* CREATE with EXCLUSIVE, twice: once done, the second time the first answer. */
START_TEST(create_is_done_once)
{
	struct pool_req first = {.op = POOL_CREATE,
	    .name = "r",
	    .flags = POOL_WRITE | POOL_EXCLUSIVE,
	    .number = 3,
	    .attr.mode = 0640};
	struct pool_req again = first;

	join(&a, pools[_i], 1, 1);
	ck_assert_int_eq(raw_control(&a, &first, 77, 0), 0);
	raw_close(&a);
	ck_assert(join(&a, pools[_i], 1, 2));
	ck_assert_int_eq(raw_control(&a, &again, 77, FRAME_F_REPLAY), 0);
	ck_assert_uint_eq(again.attr.id, first.attr.id);
	ck_assert_uint_eq(again.attr.mode, 0640);
	/* As another request it is another one. */
	again.number = 4;
	ck_assert_int_eq(raw_control(&a, &again, 78, 0), -EEXIST);
	ck_assert_int_eq(raw_write(&a, 3, 0, "x", 1), 0);
}
END_TEST

/* REMOVE of a name that somebody has used again in the meantime. */
START_TEST(remove_is_done_once)
{
	struct pool_req remove = {.op = POOL_REMOVE, .name = "r"};
	uint64_t id;

	join(&a, pools[_i], 1, 1);
	raw_create(&a, "r", 1);
	ck_assert_int_eq(close_handle(&a, 1), 0);
	ck_assert_int_eq(raw_control(&a, &remove, 99, 0), 0);
	raw_close(&a);
	join(&b, pools[_i], 2, 1);
	raw_create(&b, "r", 1);
	ck_assert(join(&a, pools[_i], 1, 2));
	ck_assert_int_eq(raw_control(&a, &remove, 99, FRAME_F_REPLAY), 0);
	ck_assert_int_eq(lookup(&a, "r", &id), 0); /* the new one is still there */
	ck_assert_int_eq(raw_control(&a, &remove, 100, 0), 0);
	ck_assert_int_eq(lookup(&a, "r", &id), -ENOENT);
}
END_TEST

/* Each that changes something, and errors as well. */
START_TEST(results_are_kept)
{
	struct pool_req rename = {
	    .op = POOL_RENAME, .name = "a", .new_name = "b", .flags = POOL_NOREPLACE};
	struct pool_req fails = {.op = POOL_REMOVE, .name = "nothing"};
	struct pool_req set = {.op = POOL_SETXATTR,
	    .name = "user.x",
	    .data = (void *)"v",
	    .len = 1,
	    .flags = POOL_XATTR_CREATE};
	struct pool_req unset = {.op = POOL_REMOVEXATTR, .name = "user.x"};
	struct pool_req open = {.op = POOL_OPEN, .flags = POOL_READ, .number = 9};

	join(&a, "disk", 1, 1);
	raw_create(&a, "a", 1);
	ck_assert_int_eq(lookup(&a, "a", &set.id), 0);
	unset.id = open.id = set.id;
	ck_assert_int_eq(raw_control(&a, &fails, 50, 0), -ENOENT);
	ck_assert_int_eq(raw_control(&a, &rename, 51, 0), 0);
	ck_assert_int_eq(raw_control(&a, &set, 52, 0), 0);
	ck_assert_int_eq(raw_control(&a, &unset, 53, 0), 0);
	ck_assert_int_eq(raw_control(&a, &open, 54, 0), 0);
	ck_assert_int_eq(
	    raw_ask(&a, (struct frame_req){.op = FRAME_CLOSE, .handle = 9, .id = 55}, NULL, 0), 0);
	raw_create(&a, "nothing", 2);
	raw_close(&a);
	ck_assert(join(&a, "disk", 1, 2));
	ck_assert_int_eq(raw_control(&a, &fails, 50, FRAME_F_REPLAY), -ENOENT);
	ck_assert_int_eq(raw_control(&a, &rename, 51, FRAME_F_REPLAY), 0);
	ck_assert_int_eq(raw_control(&a, &set, 52, FRAME_F_REPLAY), 0);
	ck_assert_int_eq(raw_control(&a, &unset, 53, FRAME_F_REPLAY), 0);
	ck_assert_int_eq(raw_control(&a, &open, 54, FRAME_F_REPLAY), 0);
	ck_assert_uint_eq(open.attr.id, open.id);
	ck_assert_int_eq(
	    raw_ask(&a, (struct frame_req){.op = FRAME_CLOSE, .handle = 9, .id = 55}, NULL, 0), 0);
	ck_assert_int_eq(lookup(&a, "nothing", NULL), 0);
	ck_assert_int_eq(raw_read(&a, 9, 0, a.data, 1), -EBADF);
}
END_TEST

/* The last 64 are kept, whatever else was asked between them. */
START_TEST(as_many_results_as_a_client_has_requests)
{
	struct pool_req list = {.op = POOL_STATFS};

	join(&a, "ram", 1, 1);
	for (unsigned i = 0; i < 64; i++) {
		struct pool_req req = {.op = POOL_REMOVE, .name = "none"};

		ck_assert_int_eq(raw_control(&a, &req, 1000 + i, 0), -ENOENT);
		for (unsigned k = 0; k < 10; k++)
			ck_assert_int_eq(raw_control(&a, &list, 0, 0), 0);
	}
	raw_close(&a);
	join(&b, "ram", 2, 1);
	raw_create(&b, "none", 1);
	ck_assert(join(&a, "ram", 1, 2));
	for (unsigned i = 0; i < 64; i++) {
		struct pool_req req = {.op = POOL_REMOVE, .name = "none"};

		ck_assert_int_eq(raw_control(&a, &req, 1000 + i, FRAME_F_REPLAY), -ENOENT);
	}
}
END_TEST

/* The answers do not even have to be read. */
START_TEST(unread_answers)
{
	struct pool_req req = {
	    .op = POOL_CREATE, .flags = POOL_WRITE | POOL_EXCLUSIVE, .attr.mode = 0600};
	uint8_t body[FRAME_BODY_MAX];
	struct frame_req frame;
	char name[8];

	for (uint64_t epoch = 1; epoch < 12; epoch++) {
		join(&a, pools[_i], 1, epoch);
		for (unsigned i = 1; i <= 40; i++) {
			size_t len;

			snprintf(name, sizeof(name), "r%u", i);
			req.name = name;
			req.number = i;
			len = frame_control_put(&req, &frame, body);
			frame.id = i;
			raw_send(&a, frame, body, len);
		}
		if (epoch % 2)
			usleep(1000 * (useconds_t)epoch);
		raw_close(&a);
	}
	ck_assert(join(&a, pools[_i], 1, 12));
	for (unsigned i = 1; i <= 40; i++) {
		snprintf(name, sizeof(name), "r%u", i);
		req.name = name;
		req.number = i;
		ck_assert_int_eq(raw_control(&a, &req, i, FRAME_F_REPLAY), 0);
		ck_assert_int_eq(raw_write(&a, i, 0, "x", 1), 0);
	}
}
END_TEST

/* ---- one connection after the other ---- */

START_TEST(a_higher_epoch_displaces)
{
	uint8_t byte = 1;

	join(&a, pools[_i], 1, 1);
	raw_create(&a, "r", 1);
	ck_assert(join(&b, pools[_i], 1, 2)); /* a's connection is still open */
	ck_assert(raw_ended(&a, 5));
	donor_log_expect(&donor, "its session goes on over another connection");
	ck_assert_int_eq(raw_write(&b, 1, 0, &byte, 1), 0);
}
END_TEST

/* HELLO of session 1, and a PING right behind it. */
static void send_together(struct raw *raw, const char *pool, uint64_t epoch)
{
	struct frame_req frame = {.op = FRAME_HELLO, .id = 1};
	uint8_t buf[2 * FRAME_REQ_LEN + FRAME_HELLO_MAX];
	size_t len;

	hello = raw_session(pool, 1, epoch);
	len = FRAME_REQ_LEN + frame_hello_put(buf + FRAME_REQ_LEN, &hello);
	frame.payload = (uint32_t)(len - FRAME_REQ_LEN);
	frame_req_put(buf, &frame);
	frame_req_put(buf + len, &(struct frame_req){.op = FRAME_PING, .id = 2});
	raw_connect(raw, donor.port);
	ck_assert(raw_bytes(raw, buf, len + FRAME_REQ_LEN));
}

/* A request need not wait for the welcome: also where the welcome has to. */
START_TEST(requests_behind_the_hello)
{
	static uint8_t bytes[REGION];

	for (unsigned epoch = 1; epoch < 20; epoch++) {
		struct raw *now = epoch % 2 ? &a : &b, *before = epoch % 2 ? &b : &a;

		send_together(now, pools[_i], epoch);
		for (unsigned i = 1; i <= 2; i++) {
			ck_assert(raw_recv(now));
			ck_assert_uint_eq(now->rep.id, i);
			ck_assert_uint_eq(now->rep.status, 0);
		}
		if (epoch == 1)
			raw_create(now, "r", 1);
		else
			ck_assert(raw_ended(before, 5));
		for (unsigned i = 0; i < 100; i++)
			raw_send(now,
			    (struct frame_req){
				.op = FRAME_WRITE, .handle = 1, .off = i * REGION, .len = REGION},
			    bytes, REGION);
	}
}
END_TEST

/* The refusal arrives all the same, and what was behind it ends the connection. */
START_TEST(requests_behind_a_hello_that_is_refused)
{
	send_together(&a, "nope", 1);
	ck_assert(raw_recv(&a));
	ck_assert_int_eq(frame_errno(a.rep.status), -ENOENT);
	ck_assert_ptr_nonnull(strstr((const char *)a.data, "no such pool"));
	ck_assert(raw_ended(&a, 5));
}
END_TEST

START_TEST(epochs_that_are_not_higher_are_refused)
{
	join(&a, "ram", 1, 5);
	raw_connect(&b, donor.port);
	for (uint64_t epoch = 0; epoch <= 5; epoch++) {
		hello = raw_session("ram", 1, epoch);
		ck_assert_int_eq(raw_hello(&b, &hello, NULL), -ESTALE);
	}
	donor_log_expect(&donor, "refused: a newer connection of this session was here already");
	ck_assert_int_eq(raw_ask(&a, (struct frame_req){.op = FRAME_PING}, NULL, 0), 0);
	raw_close(&a);
	hello.epoch = 5; /* also when the newer one has ended */
	ck_assert_int_eq(raw_hello(&b, &hello, NULL), -ESTALE);
	hello.epoch = UINT64_MAX;
	ck_assert_int_eq(raw_hello(&b, &hello, NULL), 0);
}
END_TEST

START_TEST(a_session_is_of_one_pool)
{
	join(&a, "ram", 1, 1);
	hello = raw_session("disk", 1, 2);
	raw_connect(&b, donor.port);
	ck_assert_int_eq(raw_hello(&b, &hello, NULL), -EINVAL);
	donor_log_expect(&donor, "refused: this session is one of another pool");
	ck_assert_int_eq(raw_ask(&a, (struct frame_req){.op = FRAME_PING}, NULL, 0), 0);
}
END_TEST

/* A write of the old connection never lands after one of the new: the old one's writes to files take
 * workers' time, and the new one's write comes right behind its welcome. */
START_TEST(no_write_of_the_old_connection_lands_late)
{
	static uint8_t old[REGION], new[REGION], got[REGION];

	memset(old, 1, sizeof(old));
	memset(new, 2, sizeof(new));
	join(&a, "disk", 1, 1);
	raw_create(&a, "r", 1);
	for (uint64_t epoch = 2; epoch < 30; epoch += 2) {
		for (unsigned i = 0; i < 24; i++)
			raw_send(&a,
			    (struct frame_req){.op = FRAME_WRITE, .handle = 1, .len = REGION}, old,
			    REGION);
		ck_assert(join(&b, "disk", 1, epoch));
		ck_assert_int_eq(raw_write(&b, 1, 0, new, REGION), 0);
		usleep(20000);
		ck_assert_int_eq(raw_read(&b, 1, 0, got, REGION), 0);
		ck_assert_mem_eq(got, new, REGION);
		ck_assert(raw_ended(&a, 5));
		raw_close(&a);
		raw_close(&b);
		ck_assert(join(&a, "disk", 1, epoch + 1));
	}
}
END_TEST

/* Many, each with a higher epoch, none closed by the client. */
START_TEST(connections_in_a_row)
{
	static struct raw row[40];

	for (unsigned i = 0; i < 40; i++) {
		ck_assert_int_eq(join(&row[i], "ram", 1, i + 1), i > 0);
		if (i == 0)
			raw_create(&row[0], "r", 1);
		ck_assert_int_eq(raw_write(&row[i], 1, i, &(uint8_t){(uint8_t)i}, 1), 0);
	}
	for (unsigned i = 0; i < 39; i++) {
		ck_assert(raw_ended(&row[i], 5));
		raw_close(&row[i]);
	}
	ck_assert_int_eq(raw_read(&row[39], 1, 0, row[39].data + 1000, 40), 0);
	for (unsigned i = 0; i < 40; i++)
		ck_assert_uint_eq(row[39].data[1000 + i], i);
	raw_close(&row[39]);
}
END_TEST

/* ---- the donor ends ---- */

/* SIGTERM with requests in flight: they are answered, then the connection ends, and the donor well. */
START_TEST(sigterm_answers_what_is_in_flight)
{
	static uint8_t data[REGION];
	unsigned answers = 0;
	int status;

	memset(data, 3, sizeof(data));
	join(&a, "disk", 1, 1);
	raw_create(&a, "r", 1);
	for (unsigned i = 0; i < 8; i++)
		raw_send(&a,
		    (struct frame_req){
			.op = FRAME_WRITE, .handle = 1, .off = i * REGION, .len = REGION},
		    data, REGION);
	raw_send(&a, (struct frame_req){.op = FRAME_FLUSH, .handle = 1}, NULL, 0);
	ck_assert(raw_recv(&a)); /* at least one has been read there */
	answers++;
	status = donor_kill(&donor, SIGTERM);
	ck_assert_int_eq(status, 0);
	while (raw_recv(&a)) {
		ck_assert_uint_eq(a.rep.status, 0);
		answers++;
	}
	ck_assert_uint_ge(answers, 1);
	ck_assert_uint_le(answers, 9);
	donor_log_expect(&donor, "finishing what is in flight");
}
END_TEST

/* A memory pool's contents are new after a restart, a file pool's are not; the process always is. */
START_TEST(identities_after_a_restart)
{
	struct frame_welcome before[2], after[2];

	for (unsigned i = 0; i < 2; i++) {
		hello = raw_session(pools[i], 1 + i, 1);
		raw_connect(&a, donor.port);
		ck_assert_int_eq(raw_hello(&a, &hello, &before[i]), 0);
		raw_close(&a);
	}
	ck_assert_int_eq(donor_kill(&donor, SIGTERM), 0);
	donor_restart(&donor, args);
	for (unsigned i = 0; i < 2; i++) {
		hello = raw_session(pools[i], 1 + i, 2);
		raw_connect(&a, donor.port);
		ck_assert_int_eq(raw_hello(&a, &hello, &after[i]), 0);
		ck_assert(!(a.rep.flags & FRAME_F_RESUMED));
		raw_close(&a);
		ck_assert_mem_ne(before[i].instance, after[i].instance, 16);
		ck_assert_mem_eq(before[i].boot, after[i].boot, 16);
		ck_assert_int_eq(memcmp(before[i].pool_uuid, after[i].pool_uuid, 16) == 0, i);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("server_session");
	TCase *tc = tcase_create("session");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, handles_stay, 0, 2);
	tcase_add_test(tc, a_removed_region_lives_on_in_a_session);
	tcase_add_loop_test(tc, bye_ends_it, 0, 2);
	tcase_add_loop_test(tc, create_is_done_once, 0, 2);
	tcase_add_loop_test(tc, remove_is_done_once, 0, 2);
	tcase_add_test(tc, results_are_kept);
	tcase_add_test(tc, as_many_results_as_a_client_has_requests);
	tcase_add_loop_test(tc, unread_answers, 0, 2);
	tcase_add_loop_test(tc, a_higher_epoch_displaces, 0, 2);
	tcase_add_loop_test(tc, requests_behind_the_hello, 0, 2);
	tcase_add_test(tc, requests_behind_a_hello_that_is_refused);
	tcase_add_test(tc, epochs_that_are_not_higher_are_refused);
	tcase_add_test(tc, a_session_is_of_one_pool);
	tcase_add_test(tc, no_write_of_the_old_connection_lands_late);
	tcase_add_test(tc, connections_in_a_row);
	tcase_add_test(tc, sigterm_answers_what_is_in_flight);
	tcase_add_test(tc, identities_after_a_restart);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
