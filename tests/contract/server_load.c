/* SPDX-License-Identifier: Apache-2.0
 *
 * The donor under clients that ask for too much, take nothing, or stop in the middle: its memory stays
 * bounded and the others are served, also when all share one loop.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/donor.h"
#include "tests/lib/raw.h"

enum { BLOCK = 4096, MIB = 1 << 20, SLOW = 8, FEW = 68, MANY = 2000, IN_FLIGHT = 8192 };

/* FEW is more than a loop of the donor has large buffers. */

static struct donor donor;
static struct raw bystander, slow[FEW];
static uint8_t pattern[MIB];

static const char *const one_loop[] = {"--pool", "ram=memory:?size=256M", "--pool",
    "disk=file:DIR/disk?size=256M", "--threads", "1", "--log", "debug", NULL};
static const char *const pools[] = {"ram", "disk"};

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Processor seconds that the donor has used. */
static double donor_cpu_s(void)
{
	char path[64];
	unsigned long user = 0, system = 0;
	FILE *stat;

	snprintf(path, sizeof(path), "/proc/%d/stat", donor.pid);
	stat = fopen(path, "r");
	ck_assert_ptr_nonnull(stat);
	ck_assert_int_eq(
	    fscanf(stat, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
		&system),
	    2);
	fclose(stat);
	return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static void begin(const char *pool)
{
	raw_open(&bystander, donor.port, pool, 1, 1);
	raw_create(&bystander, "bystander", 1);
	for (unsigned i = 0; i < MIB; i++)
		pattern[i] = (uint8_t)(i * 7 + (i >> 12) + 1);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_int_eq(raw_write(&bystander, 1, i * MIB, pattern, MIB), 0);
}

static void setup(void)
{
	struct rlimit limit = {8192, 8192};

	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	donor_start(&donor, one_loop);
	for (unsigned i = 0; i < FEW; i++)
		slow[i].fd = -1;
	bystander.fd = -1;
}

static void teardown(void)
{
	raw_close(&bystander);
	for (unsigned i = 0; i < FEW; i++)
		raw_close(&slow[i]);
	donor_stop(&donor);
}

/* One of each kind, with small and large buffers at the donor; receiving fails after 20 s. */
static void expect_served(void)
{
	struct pool_req req = {.op = POOL_LOOKUP, .name = "bystander"};
	static uint8_t buf[MIB];

	ck_assert_int_eq(raw_write(&bystander, 1, 0, pattern, BLOCK), 0);
	ck_assert_int_eq(raw_read(&bystander, 1, 0, buf, BLOCK), 0);
	ck_assert_mem_eq(buf, pattern, BLOCK);
	ck_assert_int_eq(raw_write(&bystander, 1, 0, pattern, MIB), 0);
	ck_assert_int_eq(raw_read(&bystander, 1, 0, buf, MIB), 0);
	ck_assert_mem_eq(buf, pattern, MIB);
	ck_assert_int_eq(raw_control(&bystander, &req, 0, 0), 0);
}

/* ---- half a greeting ---- */

/* Connections that never say HELLO, or not all of it, end after 10 s; nobody waits for them. */
START_TEST(half_a_hello)
{
	struct frame_hello hello = raw_session("ram", 9, 1);
	uint8_t wire[FRAME_REQ_LEN + FRAME_HELLO_MAX];
	struct frame_req frame = {.op = FRAME_HELLO, .id = 1};
	double start = now_s();

	begin("ram");
	frame.payload = (uint32_t)frame_hello_put(wire + FRAME_REQ_LEN, &hello);
	frame_req_put(wire, &frame);
	for (unsigned i = 0; i < FEW; i++) {
		static const size_t lens[] = {
		    0, FRAME_REQ_LEN - 1, FRAME_REQ_LEN, FRAME_REQ_LEN + 44};

		raw_connect(&slow[i], donor.port);
		raw_bytes(&slow[i], wire, lens[i < 4 ? i : 2]); /* most after the header */
	}
	usleep(100000);
	expect_served();
	ck_assert_double_lt(now_s() - start, 5);
	for (unsigned i = 0; i < FEW; i++)
		ck_assert(raw_ended(&slow[i], 15));
	ck_assert_double_gt(now_s() - start, 9);
	ck_assert_double_lt(now_s() - start, 18);
	donor_log_expect(&donor, "no HELLO within 10 s: connection closed");
	expect_served();
}
END_TEST

/* ---- half a request ---- */

/* Writes whose data does not come hold all the large buffers: while others wait for one, those that are
 * silent for 5 s are closed. */
START_TEST(half_a_write)
{
	begin(pools[_i]);
	for (unsigned i = 0; i < FEW; i++) {
		uint8_t header[FRAME_REQ_LEN];
		struct pool_req create = {.op = POOL_CREATE,
		    .name = "half",
		    .flags = POOL_WRITE | POOL_SHARED,
		    .number = 1,
		    .attr.mode = 0600};

		raw_open(&slow[i], donor.port, pools[_i], 100 + i, 1);
		ck_assert_int_eq(raw_control(&slow[i], &create, 0, 0), 0);
		frame_req_put(header,
		    &(struct frame_req){
			.op = FRAME_WRITE, .handle = 1, .len = MIB, .payload = MIB, .id = 50});
		raw_bytes(&slow[i], header, sizeof(header));
		raw_bytes(&slow[i], pattern, MIB / 2);
	}
	usleep(100000);
	expect_served();
	donor_log_expect(&donor, "sends no data for 5 s while others wait: connection closed");
	expect_served();
}
END_TEST

/* ---- slow readers ---- */

/* Sends requests until the donor takes no more. */
static void ask_for_more(struct raw *raw, uint32_t len)
{
	double end = now_s() + 20;
	unsigned quiet = 0;

	while (quiet < 20 && now_s() < end) {
		struct frame_req frame = {
		    .op = FRAME_READ, .handle = 1, .len = len, .id = raw->next_id++};
		uint8_t header[FRAME_REQ_LEN];

		frame.off = (frame.id * len) % (4 * MIB - len);
		frame_req_put(header, &frame);
		/* A frame that was not sent whole is of no use: the buffer takes 40 bytes or none. */
		if (send(raw->fd, header, sizeof(header), MSG_DONTWAIT | MSG_NOSIGNAL) ==
		    sizeof(header)) {
			quiet = 0;
		} else {
			quiet++;
			usleep(10000);
		}
	}
}

static const struct {
	unsigned pool;
	uint32_t len;
} reads[] = {{0, BLOCK}, {0, MIB}, {1, BLOCK}, {1, MIB}};

START_TEST(slow_readers)
{
	struct pool_req open = {.op = POOL_LOOKUP, .name = "bystander"};
	double start;

	begin(pools[reads[_i].pool]);
	ck_assert_int_eq(raw_control(&bystander, &open, 0, 0), 0);
	open.op = POOL_OPEN;
	open.id = open.attr.id;
	open.flags = POOL_READ;
	open.number = 1;
	for (unsigned i = 0; i < SLOW; i++) {
		int small = 4096;

		raw_open(&slow[i], donor.port, pools[reads[_i].pool], 100 + i, 1);
		setsockopt(slow[i].fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
		ck_assert_int_eq(raw_control(&slow[i], &open, 0, 0), 0);
	}
	for (unsigned i = 0; i < SLOW; i++)
		ask_for_more(&slow[i], reads[_i].len);
	start = now_s();
	expect_served();
	ck_assert_double_lt(now_s() - start, 15);
	expect_served();
	/* At most the buffers of one loop, and what SLOW connections themselves need. */
	ck_assert_uint_lt(donor_rss_kib(&donor), 160 * 1024);
}
END_TEST

/* A client that has as many requests in flight as it likes gets no more than its share of the donor's. */
START_TEST(too_many_in_flight)
{
	unsigned seen = 0;

	begin("disk");
	raw_open(&slow[0], donor.port, "disk", 100, 1);
	raw_create(&slow[0], "own", 1);
	for (unsigned i = 0; i < 20000; i++) {
		uint8_t header[FRAME_REQ_LEN];

		frame_req_put(
		    header, &(struct frame_req){.op = FRAME_FLUSH, .handle = 1, .id = 100 + i});
		if (send(slow[0].fd, header, sizeof(header), MSG_DONTWAIT | MSG_NOSIGNAL) !=
		    sizeof(header))
			break;
		seen++;
	}
	expect_served();
	while (seen--) {
		ck_assert(raw_recv(&slow[0]));
		if (slow[0].rep.id == FRAME_ID_PING) {
			seen++;
			continue;
		}
		ck_assert_uint_eq(slow[0].rep.status, 0);
	}
	expect_served();
}
END_TEST

/* Replies are sent straight from a region's memory: it must not go before they have, though the client
 * closes and removes it. */
START_TEST(replies_keep_their_region)
{
	struct pool_req remove = {.op = POOL_REMOVE, .name = "own"};
	uint8_t body[FRAME_BODY_MAX];
	struct frame_req frame;
	int small = 128 * 1024, closed = 1;
	size_t len;

	begin("ram");
	raw_open(&slow[0], donor.port, "ram", 100, 1);
	setsockopt(slow[0].fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	raw_create(&slow[0], "own", 1);
	ck_assert_int_eq(raw_write(&slow[0], 1, 0, pattern, MIB), 0);
	for (unsigned i = 0; i < 12; i++)
		raw_send(&slow[0],
		    (struct frame_req){.op = FRAME_READ, .handle = 1, .len = MIB, .id = 50 + i},
		    NULL, 0);
	raw_send(&slow[0], (struct frame_req){.op = FRAME_CLOSE, .handle = 1, .id = 70}, NULL, 0);
	len = frame_control_put(&remove, &frame, body);
	frame.id = 71;
	raw_send(&slow[0], frame, body, len);
	usleep(300000);
	for (unsigned i = 0; i < 14; i++) {
		ck_assert(raw_recv(&slow[0]));
		if (slow[0].rep.id == 70)
			closed = frame_errno(slow[0].rep.status);
		else
			ck_assert_uint_eq(slow[0].rep.status, 0);
		if (slow[0].rep.op == FRAME_READ)
			ck_assert_mem_eq(slow[0].data, pattern, MIB);
	}
	ck_assert_int_eq(closed, -EBUSY);
	ck_assert_int_eq(
	    raw_ask(&slow[0], (struct frame_req){.op = FRAME_CLOSE, .handle = 1}, NULL, 0), 0);
}
END_TEST

/* ---- many ---- */

START_TEST(many_idle_connections)
{
	static int fds[MANY];
	struct raw *raw = &slow[0];
	double cpu;

	begin("ram");
	for (unsigned i = 0; i < MANY; i++) {
		raw_open(raw, donor.port, "ram", 1000 + i, 1);
		fds[i] = raw->fd;
	}
	raw->fd = -1;
	ck_assert_uint_ge(donor_fds(&donor), MANY);
	ck_assert_uint_lt(donor_rss_kib(&donor), 100 * 1024);
	for (unsigned i = 0; i < 100; i++)
		expect_served();
	cpu = donor_cpu_s();
	sleep(2);
	ck_assert_double_lt(donor_cpu_s() - cpu, 0.3);
	for (unsigned i = 0; i < MANY; i++)
		close(fds[i]);
	for (unsigned tries = 0; tries < 500 && donor_fds(&donor) > 100; tries++)
		usleep(10000);
	ck_assert_uint_lt(donor_fds(&donor), 100);
	expect_served();
}
END_TEST

/* Without a descriptor left the donor does not spin, and goes on when there is one again. */
START_TEST(no_descriptors_left)
{
	struct rlimit limit;
	double cpu;

	begin("ram");
	limit.rlim_cur = limit.rlim_max = donor_fds(&donor) + 10;
	ck_assert_int_eq(prlimit(donor.pid, RLIMIT_NOFILE, &limit, NULL), 0);
	for (unsigned i = 0; i < 30; i++)
		raw_connect(&slow[i], donor.port);
	donor_log_expect(&donor, "cannot accept a connection: Too many open files");
	cpu = donor_cpu_s();
	sleep(2);
	ck_assert_double_lt(donor_cpu_s() - cpu, 0.3);
	expect_served();
	for (unsigned i = 0; i < 30; i++)
		raw_close(&slow[i]);
	raw_open(&slow[0], donor.port, "ram", 100, 1);
	expect_served();
}
END_TEST

struct sender {
	int fd;
	uint8_t op;
	pthread_t thread;
};

/* The block that request i of the READs is for: all in another order. */
static unsigned block_of(uint8_t op, unsigned i)
{
	return op == FRAME_WRITE ? i : (i * 4099 + 17) % IN_FLIGHT;
}

static void fill_block(uint8_t *buf, unsigned block)
{
	for (unsigned i = 0; i < BLOCK; i += 4)
		memcpy(buf + i, &(uint32_t){block * 2654435761u + i}, 4);
}

static void *sender_main(void *arg)
{
	struct sender *sender = arg;
	struct raw *raw = calloc(1, sizeof(*raw));
	uint8_t buf[BLOCK];

	raw->fd = sender->fd;
	for (unsigned i = 0; i < IN_FLIGHT; i++) {
		struct frame_req frame = {.op = sender->op, .handle = 1, .len = BLOCK, .id = 1 + i};

		frame.off = (uint64_t)block_of(sender->op, i) * BLOCK;
		fill_block(buf, block_of(sender->op, i));
		raw_send(raw, frame, buf, sender->op == FRAME_WRITE ? BLOCK : 0);
	}
	free(raw);
	return NULL;
}

/* Every request is answered once, with its own data. */
static void exchange(struct raw *raw, uint8_t op)
{
	static bool answered[IN_FLIGHT];
	struct sender sender = {.fd = raw->fd, .op = op};
	uint8_t want[BLOCK];

	memset(answered, 0, sizeof(answered));
	ck_assert_int_eq(pthread_create(&sender.thread, NULL, sender_main, &sender), 0);
	for (unsigned i = 0; i < IN_FLIGHT; i++) {
		unsigned n;

		do
			ck_assert(raw_recv(raw));
		while (raw->rep.id == FRAME_ID_PING);
		n = (unsigned)raw->rep.id - 1;
		ck_assert_uint_lt(n, IN_FLIGHT);
		ck_assert(!answered[n]);
		answered[n] = true;
		ck_assert_uint_eq(raw->rep.op, op);
		ck_assert_uint_eq(raw->rep.status, 0);
		if (op == FRAME_READ) {
			fill_block(want, block_of(op, n));
			ck_assert_uint_eq(raw->rep.payload, BLOCK);
			ck_assert_mem_eq(raw->data, want, BLOCK);
		}
	}
	pthread_join(sender.thread, NULL);
}

START_TEST(thousands_of_requests_in_flight)
{
	begin(pools[_i]);
	raw_open(&slow[0], donor.port, pools[_i], 100, 1);
	raw_create(&slow[0], "own", 1);
	exchange(&slow[0], FRAME_WRITE);
	exchange(&slow[0], FRAME_READ);
	expect_served();
}
END_TEST

/* ---- signs of life ---- */

/* While data of a write is awaited, or a request waits for its turn, the donor says that it is there. */
START_TEST(signs_of_life)
{
	uint8_t header[FRAME_REQ_LEN];

	begin("disk");
	raw_open(&slow[0], donor.port, "disk", 100, 1);
	raw_create(&slow[0], "own", 1);
	frame_req_put(
	    header, &(struct frame_req){
			.op = FRAME_WRITE, .handle = 1, .len = MIB, .payload = MIB, .id = 50});
	raw_bytes(&slow[0], header, sizeof(header));
	for (unsigned i = 0; i < 3; i++) {
		ck_assert(raw_recv(&slow[0]));
		ck_assert_uint_eq(slow[0].rep.op, FRAME_PING);
		ck_assert_uint_eq(slow[0].rep.id, FRAME_ID_PING);
		ck_assert_uint_eq(slow[0].rep.status, 0);
		raw_bytes(&slow[0], pattern, 1000); /* it goes on, slowly */
	}
	raw_bytes(&slow[0], pattern, MIB - 3000);
	do
		ck_assert(raw_recv(&slow[0]));
	while (slow[0].rep.op == FRAME_PING);
	ck_assert_uint_eq(slow[0].rep.id, 50);
	ck_assert_uint_eq(slow[0].rep.status, 0);
}
END_TEST

/* SIGTERM waits for half a request 10 s at most. */
START_TEST(the_end_with_half_a_request)
{
	uint8_t header[FRAME_REQ_LEN];
	double start;

	begin("disk");
	frame_req_put(
	    header, &(struct frame_req){
			.op = FRAME_WRITE, .handle = 1, .len = MIB, .payload = MIB, .id = 50});
	raw_bytes(&bystander, header, sizeof(header));
	usleep(200000);
	start = now_s();
	ck_assert_int_eq(donor_kill(&donor, SIGTERM), 0);
	ck_assert_double_gt(now_s() - start, 5);
	ck_assert_double_lt(now_s() - start, 18);
	ck_assert(raw_ended(&bystander, 1));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("server_load");
	TCase *tc = tcase_create("load");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, half_a_hello);
	tcase_add_loop_test(tc, half_a_write, 0, 2);
	tcase_add_loop_test(tc, slow_readers, 0, 4);
	tcase_add_test(tc, too_many_in_flight);
	tcase_add_test(tc, replies_keep_their_region);
	tcase_add_test(tc, many_idle_connections);
	tcase_add_test(tc, no_descriptors_left);
	tcase_add_loop_test(tc, thousands_of_requests_in_flight, 0, 2);
	tcase_add_test(tc, signs_of_life);
	tcase_add_test(tc, the_end_with_half_a_request);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
