/* SPDX-License-Identifier: Apache-2.0
 *
 * The NBD export against clients that do not behave: whatever they do costs bounded memory, ends at most
 * their own connection, and a bystander is served as before.
 */
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/nbdtest.h"
#include "tests/lib/rig.h"

enum { SIZE = NBDTEST_SIZE, BLOCK = NBDTEST_BLOCK, MANY = 10000 };

/* Sanitizers keep books on every byte. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { MEMORY_FACTOR = 8 };
#else
enum { MEMORY_FACTOR = 1 };
#endif

static struct nbdtest test;
static struct nbdraw raw;
static uint8_t data[1 << 20];

static void setup(void)
{
	nbdtest_start(&test);
	raw.fd = -1;
}

static void teardown(void)
{
	nbdraw_close(&raw);
	nbdtest_stop(&test);
}

/* A socket with the greeting unread. */
static int dial(void)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(sun.sun_path, test.path);
	rig_check(fd >= 0, "socket: %s", strerror(errno));
	rig_check(
	    connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0, "connect: %s", strerror(errno));
	return fd;
}

static bool ended(int fd, unsigned seconds)
{
	struct nbdraw one = {.fd = fd};

	return nbdraw_ended(&one, seconds);
}

/* Other protocols, and requests whose magic is wrong. */
START_TEST(garbage)
{
	static const char *const texts[] = {"GET / HTTP/1.1\r\nHost: donor\r\n\r\n",
	    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "SSH-2.0-OpenSSH_9.2p1\r\n",
	    "RMRQ and so on, for as long as a header of the peer protocol is"};

	for (unsigned i = 0; i < 4; i++) {
		int fd = dial();

		ck_assert_int_gt(send(fd, texts[i], strlen(texts[i]), MSG_NOSIGNAL), 0);
		ck_assert(ended(fd, 5));
		close(fd);
	}
	for (unsigned mode = 0; mode < 3; mode++) {
		nbdraw_open(&raw, test.path, (enum nbd_mode)mode, "ram/work", NULL);
		memset(data, 0x25, 64);
		nbdraw_bytes(&raw, data, 64);
		ck_assert(nbdraw_ended(&raw, 5));
		nbdraw_close(&raw);
	}
	donor_log_expect(&test.donor, "not a request (wrong magic)");
}
END_TEST

/* A payload that no request may have ends the connection instead of being waited for. */
START_TEST(absurd_payloads)
{
	nbdraw_open(&raw, test.path, NBD_SIMPLE, "ram/work", NULL);
	nbdraw_request(&raw, 0, NBD_C_WRITE, 0, UINT32_MAX, NULL);
	ck_assert(nbdraw_ended(&raw, 5));
	nbdraw_close(&raw);
	nbdraw_open(&raw, test.path, NBD_EXTENDED, "ram/work", NULL);
	nbdraw_request(&raw, 0, NBD_C_WRITE, 0, UINT64_MAX, NULL);
	ck_assert(nbdraw_ended(&raw, 5));
	nbdraw_close(&raw);
	nbdraw_open(&raw, test.path, NBD_EXTENDED, "ram/work", NULL);
	nbdraw_request(&raw, NBD_F_PAYLOAD_LEN, NBD_C_READ, 0, UINT64_MAX, NULL);
	ck_assert(nbdraw_ended(&raw, 5));
	donor_log_expect(&test.donor, "payload is longer than any can be");
}
END_TEST

/* CVE-2017-7539, CVE-2017-9524, CVE-2017-10664, CVE-2024-7409: clients that go at any moment. */
START_TEST(sudden_ends)
{
	static uint8_t script[400];
	size_t len = 0, go;

	nbd_put32(script, 3);
	len = 4;
	memcpy(script + len, "IHAVEOPT\0\0\0\10\0\0\0\0", 16);
	len += 16;
	go = nbdraw_go_data(script + len + 16, "ram/work", 8, NULL, 0);
	memcpy(script + len, "IHAVEOPT\0\0\0\7\0\0\0", 15);
	script[len + 15] = (uint8_t)go;
	len += 16 + go;
	nbd_put32(script + len, 0x25609513);
	nbd_put32(script + len + 4, NBD_C_WRITE);
	nbd_put64(script + len + 8, 1);
	nbd_put64(script + len + 16, 0);
	nbd_put32(script + len + 24, 100);
	len += 28 + 100;
	for (size_t cut = 0; cut <= len; cut++) {
		int fd = dial();

		rig_check(send(fd, script, cut, MSG_NOSIGNAL) == (ssize_t)cut, "cannot send");
		if (cut % 2)
			shutdown(fd, SHUT_WR);
		close(fd);
	}
	nbdtest_unharmed(&test);
	for (unsigned i = 0; i < 500 && donor_fds(&test.donor) > 40; i++)
		usleep(10000);
	ck_assert_uint_le(donor_fds(&test.donor), 40);
}
END_TEST

/* A handshake that never ends is ended. */
START_TEST(slow_handshakes)
{
	int silent = dial(), midway = dial();
	time_t start = time(NULL);

	ck_assert_int_eq(
	    send(midway, "\0\0\0\3IHAVEOPT\0\0\0\7\0\0\1\0half", 24, MSG_NOSIGNAL), 24);
	ck_assert(!ended(silent, 3));
	nbdtest_unharmed(&test);
	ck_assert(ended(silent, 15));
	ck_assert(ended(midway, 5));
	ck_assert_int_lt(time(NULL) - start, 20);
	close(silent);
	close(midway);
	donor_log_expect(&test.donor, "no export chosen within 10 s");
}
END_TEST

/* A client that asks and does not read: it is not read from any more, and its memory is bounded. */
START_TEST(slow_readers)
{
	unsigned long before;
	struct pollfd pfd;
	unsigned sent = 0;

	nbdraw_open(&raw, test.path, NBD_STRUCTURED, "ram/work", NULL);
	memset(data, 0x77, sizeof(data));
	for (unsigned i = 0; i < 4; i++)
		ck_assert_uint_eq(
		    nbdraw_cmd(&raw, 0, NBD_C_WRITE, i * sizeof(data), sizeof(data), data), 0);
	before = donor_rss_kib(&test.donor);
	pfd = (struct pollfd){.fd = raw.fd, .events = POLLOUT};
	while (sent < 1000000 && poll(&pfd, 1, 1000) > 0) {
		uint8_t header[28] = {0x25, 0x60, 0x95, 0x13};

		nbd_put32(header + 24, 1 << 20);
		if (send(raw.fd, header, sizeof(header), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			break;
		sent++;
	}
	ck_assert_uint_lt(sent, 1000000);
	nbdtest_unharmed(&test);
	ck_assert_uint_lt(donor_rss_kib(&test.donor), before + 40 * 1024 * MEMORY_FACTOR);
}
END_TEST

/* The same with the options of a handshake, LIST among them. */
START_TEST(unread_options)
{
	unsigned long before = donor_rss_kib(&test.donor);
	struct pollfd pfd;
	unsigned sent = 0;

	nbdraw_connect(&raw, test.path, NBD_FIXED_NEWSTYLE);
	pfd = (struct pollfd){.fd = raw.fd, .events = POLLOUT};
	while (sent < 1000000 && poll(&pfd, 1, 1000) > 0 &&
	       send(raw.fd, "IHAVEOPT\0\0\0\3\0\0\0\0", 16, MSG_NOSIGNAL | MSG_DONTWAIT) == 16)
		sent++;
	ck_assert_uint_lt(sent, 1000000);
	nbdtest_unharmed(&test);
	ck_assert_uint_lt(donor_rss_kib(&test.donor), before + 8 * 1024 * MEMORY_FACTOR);
}
END_TEST

/* CVE-2019-14850: a connection opens nothing before it has asked for an export; ten thousand of them cost what
 * ten thousand sockets cost, and others are served. */
START_TEST(ten_thousand_connections)
{
	struct rlimit limit = {MANY + 100, MANY + 100};
	unsigned long before = donor_rss_kib(&test.donor);
	static int fds[MANY];

	if (setrlimit(RLIMIT_NOFILE, &limit)) {
		getrlimit(RLIMIT_NOFILE, &limit);
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	rig_check(limit.rlim_cur >= MANY + 50, "only %lu descriptors are allowed",
	    (unsigned long)limit.rlim_cur);
	for (unsigned i = 0; i < MANY; i++)
		fds[i] = dial();
	nbdtest_unharmed(&test);
	nbdraw_open(&raw, test.path, NBD_SIMPLE, "ram/work", NULL);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_READ, 0, BLOCK, NULL), 0);
	ck_assert_uint_lt(donor_rss_kib(&test.donor), before + MANY * 16 * MEMORY_FACTOR);
	ck_assert(ended(fds[0], 15)); /* the handshake's time is up */
	ck_assert(ended(fds[MANY - 1], 15));
	for (unsigned i = 0; i < MANY; i++)
		close(fds[i]);
}
END_TEST

/* One client that floods the donor with large requests leaves room for the others. */
START_TEST(greedy_client)
{
	struct timespec start, end;

	nbdraw_open(&raw, test.path, NBD_STRUCTURED, "ram/work", NULL);
	memset(data, 0x77, sizeof(data));
	nbdraw_cmd(&raw, 0, NBD_C_WRITE, 0, sizeof(data), data);
	for (unsigned i = 0; i < 200; i++) /* nobody reads the replies */
		nbdraw_request(&raw, 0, NBD_C_READ, 0, 1 << 20, NULL);
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (unsigned i = 0; i < 100; i++)
		nbdtest_unharmed(&test);
	clock_gettime(CLOCK_MONOTONIC, &end);
	ck_assert_int_lt(end.tv_sec - start.tv_sec, 10);
}
END_TEST

/* A donor that ends answers what is in flight; one that comes back finds its socket's file in the way of nobody. */
START_TEST(donor_ends)
{
	nbdraw_open(&raw, test.path, NBD_SIMPLE, "ram/work", NULL);
	ck_assert_uint_eq(nbdraw_cmd(&raw, 0, NBD_C_READ, 0, BLOCK, NULL), 0);
	donor_kill(&test.donor, SIGKILL);
	ck_assert(nbdraw_ended(&raw, 5));
	ck_assert_int_eq(access(test.path, F_OK), 0);
	raw_close(&test.peer);
	nbdraw_close(&test.bystander);
	donor_restart(&test.donor,
	    (const char *const[]){"--pool", "ram=memory:?size=64M", "--nbd", "unix:DIR/nbd", NULL});
	raw_open(&test.peer, test.donor.port, "ram", 1, 1);
	nbdtest_region(&test, "bystander", SIZE, 0600);
	nbdraw_open(&test.bystander, test.path, NBD_STRUCTURED, "ram/bystander", NULL);
	memset(data, 0x5b, BLOCK);
	ck_assert_uint_eq(nbdraw_cmd(&test.bystander, 0, NBD_C_WRITE, 0, BLOCK, data), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("nbd_abuse");
	TCase *tc = tcase_create("abuse");
	SRunner *runner;
	int failed;

	signal(SIGPIPE, SIG_IGN);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 90);
	tcase_add_test(tc, garbage);
	tcase_add_test(tc, absurd_payloads);
	tcase_add_test(tc, sudden_ends);
	tcase_add_test(tc, slow_handshakes);
	tcase_add_test(tc, slow_readers);
	tcase_add_test(tc, unread_options);
	tcase_add_test(tc, ten_thousand_connections);
	tcase_add_test(tc, greedy_client);
	tcase_add_test(tc, donor_ends);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
