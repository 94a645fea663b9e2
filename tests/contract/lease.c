/* SPDX-License-Identifier: Apache-2.0
 *
 * Leases, identities and change notices at the donor, as docs/PROTOCOL.md has them: two raw clients and
 * the real remramd, with a lease time of one second.
 */
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/donor.h"
#include "tests/lib/raw.h"

enum { BLOCK = 4096, BIG = 256 * 1024, REGION = 1 << 20, LEASE_MS = 1000 };

static struct donor donor;
static struct raw a, b;
static uint64_t id; /* of region "r" */

static const char *const args[] = {"--pool", "ram=memory:?size=64M", "--pool",
    "disk=file:DIR/disk?size=64M", "--log", "debug", "--lease", "1s", NULL};
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

/* Connects as a client that says who it is. */
static bool join(struct raw *raw, const char *pool, unsigned seed, uint64_t epoch, uint8_t identity)
{
	struct frame_hello hello = raw_session(pool, seed, epoch);
	struct frame_welcome welcome;

	memset(hello.identity, identity, sizeof(hello.identity));
	snprintf(hello.who, sizeof(hello.who), "client %u", seed);
	raw_connect(raw, donor.port);
	ck_assert_int_eq(raw_hello(raw, &hello, &welcome), 0);
	ck_assert_uint_eq(welcome.lease_ms, LEASE_MS);
	return raw->rep.flags & FRAME_F_RESUMED;
}

static int open_at(
    struct raw *raw, unsigned flags, uint32_t number, uint64_t version, struct pool_req *ret_req)
{
	struct pool_req req = {
	    .op = POOL_OPEN, .id = id, .flags = flags, .number = number, .version = version};
	int rc = raw_control(raw, &req, 0, 0);

	if (ret_req)
		*ret_req = req;
	return rc;
}

static int open_r(struct raw *raw, unsigned flags, uint32_t number)
{
	return open_at(raw, flags, number, 0, NULL);
}

static int close_r(struct raw *raw, uint32_t number)
{
	return raw_ask(raw, (struct frame_req){.op = FRAME_CLOSE, .handle = number}, NULL, 0);
}

static int resize(struct raw *raw, uint64_t size, uint32_t number)
{
	struct pool_req req = {.op = POOL_SETATTR,
	    .id = id,
	    .set = POOL_SET_SIZE,
	    .attr.size = size,
	    .number = number};

	return raw_control(raw, &req, 0, 0);
}

static uint64_t version_of(struct raw *raw)
{
	struct pool_req req = {.op = POOL_GETATTR, .id = id};

	ck_assert_int_eq(raw_control(raw, &req, 0, 0), 0);
	return req.attr.version;
}

/* Region "r" of REGION bytes, open for writing at `raw` as handle 1. */
static void make(struct raw *raw)
{
	struct pool_req req = {.op = POOL_LOOKUP, .name = "r"};

	raw_create(raw, "r", 1);
	ck_assert_int_eq(raw_control(raw, &req, 0, 0), 0);
	id = req.attr.id;
	ck_assert_int_eq(resize(raw, REGION, 1), 0);
}

static void two_clients(const char *pool)
{
	ck_assert(!join(&a, pool, 1, 1, 0));
	ck_assert(!join(&b, pool, 2, 1, 0));
	make(&a);
}

/* Asks again while what the old holder had in flight comes to its end. */
static int open_soon(struct raw *raw, unsigned flags, uint32_t number)
{
	int rc = -EBUSY;

	for (unsigned tries = 0; tries < 100 && rc == -EBUSY; tries++) {
		rc = open_r(raw, flags, number);
		if (rc == -EBUSY)
			usleep(10000);
	}
	return rc;
}

static void busy_because_of(struct raw *raw, int rc, const char *who)
{
	ck_assert_int_eq(rc, -EBUSY);
	ck_assert_msg(strstr((const char *)raw->data, who) != NULL, "\"%s\" does not name %s",
	    (const char *)raw->data, who);
}

/* ---- who may write ---- */

START_TEST(one_writes)
{
	struct pool_req create = {
	    .op = POOL_CREATE, .name = "r", .flags = POOL_WRITE, .number = 5, .attr.mode = 0600};
	uint8_t byte;

	two_clients(pools[_i]);
	busy_because_of(&b, open_r(&b, POOL_READ | POOL_WRITE, 1), "client 1 (127.0.0.1)");
	busy_because_of(&b, open_r(&b, POOL_WRITE | POOL_SHARED, 1), "client 1");
	busy_because_of(&b, raw_control(&b, &create, 0, 0), "client 1");
	busy_because_of(&b, resize(&b, 0, 0), "client 1");
	/* To read is free; the session itself opens as often as it likes. */
	ck_assert_int_eq(open_r(&b, POOL_READ, 1), 0);
	ck_assert_int_eq(raw_read(&b, 1, 0, &byte, 1), 0);
	ck_assert_int_eq(open_r(&a, POOL_WRITE, 2), 0);
	ck_assert_int_eq(raw_write(&a, 2, 0, "x", 1), 0);
	ck_assert_int_eq(resize(&a, REGION / 2, 0), 0);
	/* The last close gives it back. */
	ck_assert_int_eq(close_r(&a, 1), 0);
	busy_because_of(&b, open_r(&b, POOL_WRITE, 2), "client 1");
	ck_assert_int_eq(close_r(&a, 2), 0);
	ck_assert_int_eq(open_r(&b, POOL_WRITE, 2), 0);
	busy_because_of(&a, open_r(&a, POOL_WRITE, 1), "client 2");
}
END_TEST

START_TEST(sharers)
{
	two_clients(pools[_i]);
	ck_assert_int_eq(close_r(&a, 1), 0);
	ck_assert_int_eq(open_r(&a, POOL_WRITE | POOL_SHARED, 1), 0);
	ck_assert_int_eq(open_r(&b, POOL_READ | POOL_WRITE | POOL_SHARED, 1), 0);
	ck_assert_int_eq(raw_write(&a, 1, 0, "a", 1), 0);
	ck_assert_int_eq(raw_write(&b, 1, 1, "b", 1), 0);
	busy_because_of(&b, open_r(&b, POOL_WRITE, 2), "client 1");
	/* A pin wants it for itself, whatever SHARED says. */
	busy_because_of(
	    &b, open_r(&b, POOL_READ | POOL_WRITE | POOL_PIN | POOL_SHARED, 2), "client 1");
	ck_assert_int_eq(resize(&b, BLOCK, 0), 0);
	ck_assert_int_eq(close_r(&a, 1), 0);
	/* A session's own sharing is not in its way, but in others'. */
	ck_assert_int_eq(open_r(&b, POOL_WRITE, 2), 0);
	busy_because_of(&a, open_r(&a, POOL_WRITE | POOL_SHARED, 1), "client 2");
}
END_TEST

/* What an administrator does to a region that somebody writes to. */
START_TEST(the_rest_is_free)
{
	struct pool_req mode = {.op = POOL_SETATTR, .set = POOL_SET_MODE, .attr.mode = 0400};
	struct pool_req rename = {.op = POOL_RENAME, .name = "r", .new_name = "s"};
	struct pool_req remove = {.op = POOL_REMOVE, .name = "s"};

	two_clients(pools[_i]);
	mode.id = id;
	ck_assert_int_eq(raw_control(&b, &rename, 0, 0), 0);
	ck_assert_int_eq(raw_write(&a, 1, 0, "x", 1), 0);
	close_r(&a, 1);
	ck_assert_int_eq(open_r(&a, POOL_WRITE, 1), 0);
	ck_assert_int_eq(raw_control(&b, &mode, 0, 0), 0);
	ck_assert_int_eq(raw_write(&a, 1, 0, "x", 1), -EACCES);
	mode.attr.mode = 0600;
	ck_assert_int_eq(raw_control(&b, &mode, 0, 0), 0);
	ck_assert_int_eq(raw_control(&b, &remove, 0, 0), 0);
	ck_assert_int_eq(raw_write(&a, 1, 0, "y", 1), 0);
}
END_TEST

/* ---- taking it away ---- */

START_TEST(a_silent_holder_loses_it)
{
	uint8_t byte = 0;

	two_clients(pools[_i]);
	ck_assert_int_eq(raw_write(&a, 1, 0, "a", 1), 0);
	usleep(LEASE_MS * 1000 * 11 / 20);
	ck_assert_int_eq(
	    raw_ask(&a, (struct frame_req){.op = FRAME_PING, .id = FRAME_ID_PING}, NULL, 0), 0);
	usleep(LEASE_MS * 1000 * 11 / 20);
	busy_because_of(&b, open_r(&b, POOL_WRITE, 1), "client 1"); /* the PING has kept it */
	usleep(LEASE_MS * 1000 * 9 / 4);
	ck_assert_int_eq(open_soon(&b, POOL_READ | POOL_WRITE, 1), 0);
	ck_assert_int_eq(raw_write(&b, 1, 0, "b", 1), 0);
	ck_assert(raw_ended(&a, 5));
	raw_close(&a);
	/* It comes back: its handle reads, and never writes again, whoever holds the lease. */
	ck_assert(join(&a, pools[_i], 1, 2, 0));
	ck_assert_int_eq(raw_write(&a, 1, 0, "a", 1), -ENOLCK);
	ck_assert_int_eq(resize(&a, 0, 1), -ENOLCK);
	ck_assert_int_eq(
	    raw_ask(&a, (struct frame_req){.op = FRAME_ZERO, .handle = 1, .len = BLOCK}, NULL, 0),
	    -ENOLCK);
	ck_assert_int_eq(raw_read(&a, 1, 0, &byte, 1), 0);
	ck_assert_uint_eq(byte, 'b');
	ck_assert_int_eq(close_r(&b, 1), 0);
	ck_assert_int_eq(raw_write(&a, 1, 0, "a", 1), -ENOLCK);
	/* A new handle is another matter. */
	ck_assert_int_eq(open_r(&a, POOL_WRITE, 2), 0);
	ck_assert_int_eq(raw_write(&a, 2, 0, "c", 1), 0);
	ck_assert_int_eq(raw_write(&a, 1, 0, "a", 1), -ENOLCK);
	ck_assert_int_eq(close_r(&a, 1), 0);
	busy_because_of(&b, open_r(&b, POOL_WRITE, 1), "client 1");
}
END_TEST

/* A client that nobody has asked after in the meantime has its lease. */
START_TEST(coming_back_in_time)
{
	two_clients(pools[_i]);
	raw_close(&a);
	usleep(LEASE_MS * 1000 * 2);
	ck_assert(join(&a, pools[_i], 1, 2, 0));
	busy_because_of(&b, open_r(&b, POOL_WRITE, 1), "client 1");
	ck_assert_int_eq(raw_write(&a, 1, 0, "a", 1), 0);
	/* One that is dead loses it. */
	raw_close(&a);
	usleep(LEASE_MS * 1000 / 3);
	busy_because_of(&b, open_r(&b, POOL_WRITE, 1), "client 1");
	usleep(LEASE_MS * 1000 * 2);
	ck_assert_int_eq(resize(&b, BLOCK, 0), 0); /* that, too, asks for it */
	ck_assert(join(&a, pools[_i], 1, 3, 0));
	ck_assert_int_eq(raw_write(&a, 1, 0, "a", 1), -ENOLCK);
	ck_assert_int_eq(open_r(&b, POOL_WRITE, 1), 0);
}
END_TEST

/* A WRITE whose payload is half received, into the region itself: the connection ends before another gets the
 * lease, and the other half never lands. */
START_TEST(half_a_write_never_lands)
{
	struct frame_req frame = {
	    .op = FRAME_WRITE, .payload = BIG, .id = 99, .len = BIG, .handle = 1};
	static uint8_t bytes[FRAME_REQ_LEN + BIG], got[BIG];
	int rc;

	two_clients(pools[_i]);
	memset(bytes, 'a', sizeof(bytes));
	ck_assert_int_eq(
	    raw_write(&a, 1, 0, bytes, BIG), 0); /* memory lends only what is allocated */
	frame_req_put(bytes, &frame);
	ck_assert(raw_bytes(&a, bytes, FRAME_REQ_LEN + BIG / 2));
	usleep(LEASE_MS * 1000 * 13 / 4);
	/* In memory the region itself receives it, and is busy until that has ended; in files it has not
	 * begun. */
	rc = open_r(&b, POOL_READ | POOL_WRITE, 1);
	ck_assert(rc == 0 || (rc == -EBUSY && _i == 0));
	if (rc)
		ck_assert_int_eq(open_soon(&b, POOL_READ | POOL_WRITE, 1), 0);
	memset(got, 'b', BIG);
	ck_assert_int_eq(raw_write(&b, 1, 0, got, BIG), 0);
	raw_bytes(&a, bytes + FRAME_REQ_LEN + BIG / 2, BIG / 2);
	ck_assert(raw_ended(&a, 5));
	usleep(100000);
	ck_assert_int_eq(raw_read(&b, 1, 0, got, BIG), 0);
	for (unsigned i = 0; i < BIG; i++)
		ck_assert_uint_eq(got[i], 'b');
}
END_TEST

/* A pin holds for as long as its session does. */
START_TEST(pins_are_not_taken)
{
	two_clients(pools[_i]);
	ck_assert_int_eq(open_r(&a, POOL_READ | POOL_WRITE | POOL_PIN, 2), 0);
	raw_close(&a);
	usleep(LEASE_MS * 1000 * 9 / 4);
	busy_because_of(&b, open_r(&b, POOL_WRITE, 1), "client 1");
	busy_because_of(&b, resize(&b, REGION, 0), "client 1"); /* not even to what it is */
	ck_assert(join(&a, pools[_i], 1, 2, 0));
	ck_assert_int_eq(raw_write(&a, 2, 0, "a", 1), 0);
	ck_assert_int_eq(resize(&a, REGION, 0), 0);
}
END_TEST

/* ---- identities ---- */

/* A client that was killed comes back as another session: it is known, has its lease at once, and nobody has
 * written meanwhile. */
START_TEST(the_same_client_again)
{
	struct pool_req opened;
	uint64_t version;

	ck_assert(!join(&a, pools[_i], 1, 1, 7));
	make(&a);
	version = version_of(&a);
	ck_assert_int_eq(raw_write(&a, 1, 0, "a", 1), 0);
	ck_assert(!join(&b, pools[_i], 2, 1, 7)); /* while the old connection is still there */
	ck_assert_int_eq(open_soon(&b, POOL_WRITE, 1), 0);
	ck_assert(raw_ended(&a, 5));
	ck_assert_int_eq(close_r(&b, 1), 0);
	ck_assert_int_eq(open_at(&b, POOL_WRITE, 1, version, &opened), 0);
	ck_assert(opened.ret_unchanged);
	/* As soon as another has written it is not so any more. */
	ck_assert_int_eq(close_r(&b, 1), 0);
	raw_close(&a);
	ck_assert(!join(&a, pools[_i], 3, 1, 8));
	ck_assert_int_eq(open_r(&a, POOL_WRITE, 1), 0);
	ck_assert_int_eq(raw_write(&a, 1, 0, "x", 1), 0);
	ck_assert_int_eq(close_r(&a, 1), 0);
	ck_assert_int_eq(
	    open_at(&b, POOL_WRITE | POOL_REOPEN, 2, opened.attr.version, NULL), -ENOLCK);
	ck_assert_int_eq(open_at(&b, POOL_WRITE, 2, opened.attr.version, &opened), 0);
	ck_assert(!opened.ret_unchanged);
}
END_TEST

/* The same over a restart of the donor: killed (_i: even), or ended in order, with the region still open. */
START_TEST(over_a_restart)
{
	struct pool_req opened, other;
	uint64_t version;

	ck_assert(!join(&a, "disk", 1, 1, 7));
	make(&a);
	version = version_of(&a);
	ck_assert(!join(&b, "disk", 2, 1, 8));
	ck_assert_int_eq(
	    open_at(&b, POOL_READ, 1, 0, &other), 0); /* it has looked: versions move */
	ck_assert_int_eq(raw_write(&a, 1, 0, "a", 1), 0);
	version_of(&b);
	ck_assert_int_eq(raw_write(&a, 1, 0, "b", 1), 0);
	other.version = version_of(&b);
	donor_kill(&donor, _i % 2 ? SIGTERM : SIGKILL);
	raw_close(&a);
	raw_close(&b);
	donor_restart(&donor, args);
	ck_assert(!join(&b, "disk", 2, 2, 8));
	ck_assert_int_eq(open_at(&b, POOL_READ, 1, other.version, &opened), 0);
	/* After a crash nobody knows what came after; in order, nothing did. */
	ck_assert_int_eq(opened.ret_unchanged, _i % 2);
	ck_assert_int_eq(opened.attr.version == other.version, _i % 2);
	ck_assert(!join(&a, "disk", 1, 2, 7));
	ck_assert_int_eq(open_at(&a, POOL_WRITE | POOL_REOPEN, 1, version, &opened), 0);
	ck_assert(opened.ret_unchanged);
	ck_assert_int_eq(raw_write(&a, 1, 0, "c", 1), 0);
	ck_assert_int_eq(close_r(&a, 1), 0);
	/* Another writes; and again the donor ends: the first one is not the last writer any more. */
	ck_assert_int_eq(open_r(&b, POOL_WRITE, 1), 0);
	ck_assert_int_eq(raw_write(&b, 1, 0, "d", 1), 0);
	donor_kill(&donor, _i % 2 ? SIGTERM : SIGKILL);
	raw_close(&a);
	raw_close(&b);
	donor_restart(&donor, args);
	ck_assert(!join(&a, "disk", 1, 3, 7));
	ck_assert_int_eq(
	    open_at(&a, POOL_WRITE | POOL_REOPEN, 1, opened.attr.version, NULL), -ENOLCK);
	ck_assert_int_eq(open_at(&a, POOL_READ, 1, opened.attr.version, &opened), 0);
	ck_assert(!opened.ret_unchanged);
}
END_TEST

/* A region that nobody has open for writing keeps its version over any end of the donor. */
START_TEST(versions_are_kept)
{
	uint64_t version;

	ck_assert(!join(&a, "disk", 1, 1, 0));
	make(&a);
	ck_assert_int_eq(raw_write(&a, 1, 0, "a", 1), 0);
	ck_assert_int_eq(close_r(&a, 1), 0);
	ck_assert(!join(&b, "disk", 2, 1, 0));
	version = version_of(&b);
	for (unsigned i = 0; i < 4; i++) {
		struct pool_req opened;

		donor_kill(&donor, i % 2 ? SIGTERM : SIGKILL);
		raw_close(&a);
		raw_close(&b);
		donor_restart(&donor, args);
		ck_assert(!join(&b, "disk", 2, 2 + i, 0));
		ck_assert_int_eq(open_at(&b, POOL_READ, 1, version, &opened), 0);
		ck_assert(opened.ret_unchanged);
		ck_assert_uint_eq(opened.attr.version, version);
	}
	/* Unless the bytes were changed behind its back. */
	{
		char command[DONOR_PATH_MAX + 128];
		struct pool_req opened;

		donor_kill(&donor, SIGTERM);
		raw_close(&b);
		snprintf(command, sizeof(command),
		    "f=$(find %s/disk -type f -size +100k | head -n 1); truncate -s 5000 \"$f\"",
		    donor.dir);
		ck_assert_int_eq(system(command), 0);
		donor_restart(&donor, args);
		ck_assert(!join(&b, "disk", 2, 9, 0));
		ck_assert_int_eq(open_at(&b, POOL_READ, 1, version, &opened), 0);
		ck_assert_uint_eq(opened.attr.size, 5000);
		ck_assert(!opened.ret_unchanged);
	}
}
END_TEST

/* ---- notices ---- */

static bool silent(struct raw *raw)
{
	struct pollfd pfd = {.fd = raw->fd, .events = POLLIN};

	return poll(&pfd, 1, 150) == 0;
}

START_TEST(notices)
{
	uint64_t version;
	uint8_t byte = 0;

	two_clients(pools[_i]);
	ck_assert_int_eq(raw_write(&a, 1, 0, "0", 1), 0);
	ck_assert(silent(&b)); /* it has nothing open */
	ck_assert_int_eq(open_r(&b, POOL_READ, 1), 0);
	ck_assert_int_eq(open_r(&b, POOL_READ, 2), 0); /* one notice, however many handles */
	version = version_of(&b);
	ck_assert_int_eq(raw_write(&a, 1, 0, "1", 1), 0);
	raw_notices(&b, 1);
	ck_assert_uint_eq(b.notice.id, id);
	ck_assert_uint_gt(b.notice.version, version);
	ck_assert_uint_eq(b.notice.size, REGION);
	ck_assert_int_eq(raw_read(&b, 1, 0, &byte, 1), 0);
	ck_assert_uint_eq(byte, '1');
	/* Until it is acknowledged no further one comes; then one, for all that was. */
	for (unsigned i = 0; i < 20; i++)
		ck_assert_int_eq(raw_write(&a, 1, i, "2", 1), 0);
	ck_assert_int_eq(resize(&a, 2 * REGION, 1), 0);
	ck_assert(silent(&b));
	raw_notice_ack(&b);
	raw_notices(&b, 2);
	ck_assert_uint_eq(b.notice.size, 2 * REGION);
	raw_notice_ack(&b);
	ck_assert(silent(&b));
	/* Its own changes are no news to the one who makes them. */
	ck_assert_uint_eq(a.notices, 0);
	ck_assert_int_eq(
	    raw_ask(&a, (struct frame_req){.op = FRAME_ZERO, .handle = 1, .len = BLOCK}, NULL, 0),
	    0);
	raw_notices(&b, 3);
	/* With its last handle the news ends; an acknowledgement of nothing does nothing. */
	ck_assert_int_eq(close_r(&b, 1), 0);
	ck_assert_int_eq(close_r(&b, 2), 0);
	raw_notice_ack(&b);
	ck_assert_int_eq(raw_write(&a, 1, 0, "3", 1), 0);
	ck_assert(silent(&b));
}
END_TEST

/* One that was lost with a connection, or never sent, comes over the next. */
START_TEST(notices_are_not_lost)
{
	two_clients(pools[_i]);
	ck_assert_int_eq(open_r(&b, POOL_READ, 1), 0);
	ck_assert_int_eq(raw_write(&a, 1, 0, "1", 1), 0);
	raw_notices(&b, 1);
	raw_close(&b);
	ck_assert(join(&b, pools[_i], 2, 2, 0));
	raw_notices(&b, 1);
	raw_notice_ack(&b);
	raw_close(&b);
	usleep(100000);
	ck_assert_int_eq(raw_write(&a, 1, 0, "2", 1), 0);
	ck_assert(join(&b, pools[_i], 2, 3, 0));
	raw_notices(&b, 1);
	ck_assert_uint_eq(b.notice.id, id);
}
END_TEST

/* Both write: each hears of the other. */
START_TEST(sharers_hear_of_each_other)
{
	two_clients(pools[_i]);
	ck_assert_int_eq(close_r(&a, 1), 0);
	ck_assert_int_eq(open_r(&a, POOL_WRITE | POOL_SHARED, 1), 0);
	ck_assert_int_eq(open_r(&b, POOL_WRITE | POOL_SHARED, 1), 0);
	for (unsigned round = 1; round <= 5; round++) {
		ck_assert_int_eq(raw_write(&a, 1, 0, "a", 1), 0);
		raw_notices(&b, round);
		raw_notice_ack(&b);
		ck_assert_int_eq(raw_write(&b, 1, 0, "b", 1), 0);
		raw_notices(&a, round);
		raw_notice_ack(&a);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("lease");
	TCase *tc = tcase_create("lease");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, one_writes, 0, 2);
	tcase_add_loop_test(tc, sharers, 0, 2);
	tcase_add_loop_test(tc, the_rest_is_free, 0, 2);
	tcase_add_loop_test(tc, a_silent_holder_loses_it, 0, 2);
	tcase_add_loop_test(tc, coming_back_in_time, 0, 2);
	tcase_add_loop_test(tc, half_a_write_never_lands, 0, 2);
	tcase_add_loop_test(tc, pins_are_not_taken, 0, 2);
	tcase_add_loop_test(tc, the_same_client_again, 0, 2);
	tcase_add_loop_test(tc, over_a_restart, 0, 2);
	tcase_add_test(tc, versions_are_kept);
	tcase_add_loop_test(tc, notices, 0, 2);
	tcase_add_loop_test(tc, notices_are_not_lost, 0, 2);
	tcase_add_loop_test(tc, sharers_hear_of_each_other, 0, 2);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
