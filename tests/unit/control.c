/* SPDX-License-Identifier: Apache-2.0
 *
 * The control socket, both sides: a loop on a thread of its own serves, the test asks.
 */
#include "mount/control.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mount/sys.h"

static char dir[] = "/tmp/rc-XXXXXX";
static char path[64];
static struct err err;

/* The server. */
static struct loop *loop;
static struct control *control;
static pthread_t thread;
static size_t status_len;
static uint64_t pinned;
static int pin_on, forgotten, pin_result;

static size_t answer_status(void *ctx, char *buf, size_t room)
{
	ck_assert_ptr_eq(ctx, &status_len);
	ck_assert_uint_le(status_len, room);
	memset(buf, 'x', status_len);
	return status_len;
}

static int answer_pin(void *ctx, uint64_t id, bool on, struct err *ret_err)
{
	pinned = id;
	pin_on = on;
	return pin_result ? err_set(ret_err, pin_result, "somebody else has it") : 0;
}

static void answer_forget(void *ctx)
{
	forgotten++;
}

/* Understands "other …" only. */
static size_t answer_other(void *ctx, const char *line, char *buf, size_t room)
{
	return strncmp(line, "other ", 6) ? 0 : (size_t)snprintf(buf, room, "<%s>", line + 6);
}

static const struct control_ops ops = {
    .status = answer_status,
    .pin = answer_pin,
    .forget_donor = answer_forget,
    .other = answer_other,
};

static void *serve_thread(void *ctx)
{
	loop_run(loop);
	return NULL;
}

static void setup(void)
{
	const struct loop_conf conf = {0};

	strcpy(dir, "/tmp/rc-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/control", dir);
	status_len = 10;
	pin_result = forgotten = 0;
	ck_assert_int_eq(loop_create(&conf, &loop, &err), 0);
	ck_assert_int_eq(control_create(loop, path, &ops, &status_len, &control, &err), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, serve_thread, NULL), 0);
}

static void teardown(void)
{
	loop_stop(loop);
	pthread_join(thread, NULL);
	control_destroy(control);
	loop_destroy(loop);
	ck_assert_int_ne(access(path, F_OK), 0);
	rmdir(dir);
}

static int connect_raw(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(addr.sun_path, path);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

START_TEST(status)
{
	struct stat st;
	char *answer;

	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert_int_eq(control_ask(path, "status", 5000, &answer, &err), 0);
	ck_assert_str_eq(answer, "xxxxxxxxxx");
	free(answer);
	/* As long as it can be: more than a socket buffer holds. */
	status_len = CONTROL_ANSWER_MAX - 1;
	ck_assert_int_eq(control_ask(path, "status", 5000, &answer, &err), 0);
	ck_assert_uint_eq(strlen(answer), CONTROL_ANSWER_MAX - 1);
	free(answer);
}
END_TEST

START_TEST(commands)
{
	char *answer;

	ck_assert_int_eq(control_command(path, "pin", "18446744073709551615", 5000, &err), 0);
	ck_assert_uint_eq(pinned, UINT64_MAX);
	ck_assert_int_eq(pin_on, 1);
	ck_assert_int_eq(control_command(path, "unpin", "7", 5000, &err), 0);
	ck_assert_uint_eq(pinned, 7);
	ck_assert_int_eq(pin_on, 0);
	ck_assert_int_eq(control_command(path, "forget-donor", NULL, 5000, &err), 0);
	ck_assert_int_eq(forgotten, 1);

	ck_assert_int_eq(control_command(path, "pin", "7a", 5000, &err), -EREMOTEIO);
	ck_assert_str_eq(err.text, "not a region's id");
	pin_result = -EBUSY;
	ck_assert_int_eq(control_command(path, "pin", "7", 5000, &err), -EREMOTEIO);
	ck_assert_str_eq(err.text, "somebody else has it");
	ck_assert_int_eq(control_command(path, "dance", NULL, 5000, &err), -EREMOTEIO);
	ck_assert_str_eq(err.text, "unknown request");
	ck_assert_int_eq(control_ask(path, "other words", 5000, &answer, &err), 0);
	ck_assert_str_eq(answer, "<words>");
	free(answer);
}
END_TEST

START_TEST(replaced)
{
	struct control *later;
	struct loop *other;
	const struct loop_conf conf = {0};

	ck_assert_int_eq(loop_create(&conf, &other, &err), 0);
	ck_assert_int_eq(control_create(other, path, &ops, NULL, &later, &err), 0);
	loop_stop(loop);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	control_destroy(control);
	ck_assert_int_eq(access(path, F_OK), 0);
	control_destroy(later);
	ck_assert_int_ne(access(path, F_OK), 0);
	loop_destroy(other);
	/* For the teardown. */
	ck_assert_int_eq(control_create(loop, path, &ops, &status_len, &control, &err), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, serve_thread, NULL), 0);
}
END_TEST

START_TEST(bad_clients)
{
	char junk[CONTROL_LINE_MAX + 1], buf[16], *answer;
	int fd;

	/* A line that never ends. */
	memset(junk, 'j', sizeof(junk));
	fd = connect_raw();
	send(fd, junk, sizeof(junk), MSG_NOSIGNAL);
	ck_assert_int_le(recv(fd, buf, sizeof(buf), 0), 0);
	close(fd);
	/* An id that is none. */
	fd = connect_raw();
	ck_assert_int_eq(send(fd, "pin a%zz\n", 9, 0), 9);
	ck_assert_int_gt(recv(fd, buf, sizeof(buf), 0), 0);
	ck_assert(!memcmp(buf, "error: ", 7));
	close(fd);
	/* One that leaves before its answer. */
	status_len = CONTROL_ANSWER_MAX - 1;
	fd = connect_raw();
	ck_assert_int_eq(send(fd, "status\n", 7, 0), 7);
	close(fd);
	/* A line in pieces. */
	fd = connect_raw();
	send(fd, "forget-", 7, 0);
	sys_sleep_ms(20);
	send(fd, "donor\n", 6, 0);
	ck_assert_int_eq(recv(fd, buf, sizeof(buf), MSG_WAITALL), 3);
	close(fd);
	status_len = 10;
	ck_assert_int_eq(control_ask(path, "status", 5000, &answer, &err), 0);
	free(answer);
}
END_TEST

/* More clients than slots: the others wait, and get their turn when one leaves. */
START_TEST(crowd)
{
	int fds[CONTROL_CLIENTS];
	char *answer;
	unsigned i;

	for (i = 0; i < CONTROL_CLIENTS; i++)
		fds[i] = connect_raw();
	sys_sleep_ms(50);
	ck_assert_int_eq(control_ask(path, "status", 200, &answer, &err), -ETIMEDOUT);
	ck_assert(strstr(err.text, "does not answer within 200 ms"));
	close(fds[0]);
	ck_assert_int_eq(control_ask(path, "status", 5000, &answer, &err), 0);
	free(answer);
	for (i = 1; i < CONTROL_CLIENTS; i++)
		close(fds[i]);
}
END_TEST

START_TEST(nobody)
{
	char other[80], *answer;

	snprintf(other, sizeof(other), "%s/nothing", dir);
	ck_assert_int_eq(control_ask(other, "status", 100, &answer, &err), -ENOENT);
	ck_assert(strstr(err.text, "no daemon is running"));
}
END_TEST

/* A daemon that dies while it answers. */
START_TEST(cut_off)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char other[80], *answer;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	pid_t pid;

	snprintf(other, sizeof(other), "%s/other", dir);
	strcpy(addr.sun_path, other);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(listen(fd, 1), 0);
	pid = fork();
	if (pid == 0) {
		char line[16];
		int peer = accept(fd, NULL, NULL);
		_exit(recv(peer, line, sizeof(line), 0) == 7 && send(peer, "{\"a\":", 5, 0) == 5);
	}
	ck_assert_int_eq(control_ask(other, "status", 5000, &answer, &err), -ECONNRESET);
	close(fd);
	unlink(other);
	waitpid(pid, NULL, 0);
}
END_TEST

START_TEST(stale)
{
	const struct loop_conf conf = {0};
	struct control *second;
	struct loop *loop2;
	char other[80], *answer;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(other, sizeof(other), "%s/stale", dir);
	strcpy(addr.sun_path, other);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	close(fd);
	ck_assert_int_eq(control_ask(other, "status", 100, &answer, &err), -ECONNREFUSED);
	ck_assert_int_eq(loop_create(&conf, &loop2, &err), 0);
	ck_assert_int_eq(control_create(loop2, other, &ops, &status_len, &second, &err), 0);
	control_destroy(second);
	loop_destroy(loop2);
	memset(other, 'x', sizeof(other));
	char too_long[200];
	memset(too_long, 'x', sizeof(too_long) - 1);
	too_long[sizeof(too_long) - 1] = '\0';
	ck_assert_int_eq(
	    control_create(loop, too_long, &ops, &status_len, &second, &err), -ENAMETOOLONG);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("control");
	TCase *tc = tcase_create("control");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, status);
	tcase_add_test(tc, commands);
	tcase_add_test(tc, replaced);
	tcase_add_test(tc, bad_clients);
	tcase_add_test(tc, crowd);
	tcase_add_test(tc, nobody);
	tcase_add_test(tc, cut_off);
	tcase_add_test(tc, stale);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
