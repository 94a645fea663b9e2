/* SPDX-License-Identifier: Apache-2.0
 *
 * What conn_tune sets on a socket, and which addresses are this machine's own.
 */
#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/conn.h"

static const struct {
	const char *text;
	bool loopback;
} addresses[] = {
    {"127.0.0.1", true},
    {"127.255.0.9", true},
    {"128.0.0.1", false},
    {"0.0.0.0", false},
    {"192.0.2.1", false},
    {"::1", true},
    {"::ffff:127.0.0.1", true},
    {"::ffff:192.0.2.1", false},
    {"::", false},
    {"2001:db8::1", false},
};

START_TEST(loopback_addresses)
{
	struct sockaddr_in in4 = {.sin_family = AF_INET};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
	bool is;

	if (inet_pton(AF_INET, addresses[_i].text, &in4.sin_addr) == 1) {
		is = conn_loopback((struct sockaddr *)&in4);
	} else {
		ck_assert_int_eq(inet_pton(AF_INET6, addresses[_i].text, &in6.sin6_addr), 1);
		is = conn_loopback((struct sockaddr *)&in6);
	}
	ck_assert_msg(is == addresses[_i].loopback, "%s", addresses[_i].text);
}
END_TEST

START_TEST(a_unix_socket_is_no_address_of_loopback)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};

	ck_assert(!conn_loopback((struct sockaddr *)&sun));
}
END_TEST

/* Over loopback there is no pacing, whatever the system's default is. */
START_TEST(tcp_over_loopback)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(addr), name_len = 16, on_len = sizeof(int);
	int listener = socket(AF_INET, SOCK_STREAM, 0), fds[2], on = 0;
	char name[16] = "";

	ck_assert_int_eq(bind(listener, (struct sockaddr *)&addr, len), 0);
	ck_assert_int_eq(listen(listener, 1), 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
	fds[0] = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(connect(fds[0], (struct sockaddr *)&addr, len), 0);
	fds[1] = accept(listener, NULL, NULL);
	for (unsigned i = 0; i < 2; i++) {
		conn_tune(fds[i]);
		ck_assert_int_eq(
		    getsockopt(fds[i], IPPROTO_TCP, TCP_CONGESTION, name, &name_len), 0);
		ck_assert_str_eq(name, "reno");
		ck_assert_int_eq(getsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &on, &on_len), 0);
		ck_assert_int_ne(on, 0);
		close(fds[i]);
	}
	close(listener);
}
END_TEST

static int receive_buffer(int fd)
{
	socklen_t len = sizeof(int);
	int room = 0;

	ck_assert_int_eq(getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, &len), 0);
	return room;
}

START_TEST(an_asker_has_room_if_it_may)
{
	int probe = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);
	int before = receive_buffer(fd), some = 1 << 20;
	bool may = setsockopt(probe, SOL_SOCKET, SO_RCVBUFFORCE, &some, sizeof(some)) == 0;

	conn_tune_asker(fd);
	ck_assert_int_eq(receive_buffer(fd), may ? CONN_ROOM : before);
	close(probe);
	close(fd);
}
END_TEST

START_TEST(harmless_on_a_unix_socket)
{
	int fds[2];
	char byte = 0;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	conn_tune(fds[0]);
	ck_assert_int_eq(write(fds[0], "x", 1), 1);
	ck_assert_int_eq(read(fds[1], &byte, 1), 1);
	ck_assert_int_eq(byte, 'x');
	close(fds[0]);
	close(fds[1]);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("conn_tune");
	TCase *tc = tcase_create("conn_tune");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(
	    tc, loopback_addresses, 0, (int)(sizeof(addresses) / sizeof(addresses[0])));
	tcase_add_test(tc, a_unix_socket_is_no_address_of_loopback);
	tcase_add_test(tc, tcp_over_loopback);
	tcase_add_test(tc, an_asker_has_room_if_it_may);
	tcase_add_test(tc, harmless_on_a_unix_socket);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
