/* SPDX-License-Identifier: Apache-2.0
 *
 * The store contract over NBD: every rule of core/store.h for an export of nbdkit, with filters that take
 * features away, delay and want blocks, and of qemu-nbd; also while the server is killed and started again.
 * And what an NBD server alone can do: refuse, fail, shrink, be away or silent.
 *
 * Servers listen on Unix sockets in the test's temporary directory and end with it.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/backend.h"
#include "tests/lib/contract.h"

#define MIB ((uint64_t)1 << 20)

enum { ARGS_MAX = 24 };

/* ---- servers ---- */

struct place {
	char dir[RIG_PATH_MAX];
	/* The server in words; SOCKET, IMAGE, SIZE and LOG stand for what follows. */
	char command[1024];
	char size[32];
	char log[RIG_PATH_MAX + 16]; /* "logfile=…/log", for nbdkit's filter "log" */
	long log_read; /* what of the log was looked at */
	char socket[RIG_PATH_MAX + 8], image[RIG_PATH_MAX + 8];
	pid_t server;
	const char *params;
	struct backend *backend;
	/* The killer. */
	pthread_t killer;
	bool killing;
	_Atomic bool stop;
};

static void server_start(struct place *place)
{
	char text[sizeof(place->command)], *words[ARGS_MAX + 1], *save = NULL;
	struct stat st;
	unsigned n = 0;
	pid_t parent = getpid();

	strcpy(text, place->command);
	for (char *word = strtok_r(text, " ", &save); word && n < ARGS_MAX;
	     word = strtok_r(NULL, " ", &save))
		words[n++] = strcmp(word, "SOCKET") == 0  ? place->socket
			     : strcmp(word, "IMAGE") == 0 ? place->image
			     : strcmp(word, "SIZE") == 0  ? place->size
			     : strcmp(word, "LOG") == 0   ? place->log
							  : word;
	words[n] = NULL;
	unlink(place->socket);
	place->server = fork();
	ck_assert_int_ge(place->server, 0);
	if (place->server == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		execvp(words[0], words);
		_exit(127);
	}
	for (unsigned i = 0; stat(place->socket, &st) && i < 20000; i++) {
		ck_assert_msg(waitpid(place->server, NULL, WNOHANG) == 0, "%s has ended", words[0]);
		usleep(1000);
	}
}

static void server_kill(struct place *place)
{
	kill(place->server, SIGKILL);
	waitpid(place->server, NULL, 0);
}

static struct place *place_start(const char *command, const char *params, uint64_t size)
{
	struct place *place = calloc(1, sizeof(*place));
	FILE *image;

	rig_tmpdir(NULL, place->dir);
	snprintf(place->socket, sizeof(place->socket), "%s/socket", place->dir);
	snprintf(place->image, sizeof(place->image), "%s/image", place->dir);
	snprintf(place->log, sizeof(place->log), "logfile=%s/log", place->dir);
	snprintf(place->command, sizeof(place->command), "%s", command);
	snprintf(place->size, sizeof(place->size), "%llu", (unsigned long long)size);
	place->params = params;
	image = fopen(place->image, "w");
	ck_assert(image && ftruncate(fileno(image), (off_t)size) == 0);
	fclose(image);
	server_start(place);
	return place;
}

static int place_try(struct place *place, struct err *err)
{
	char uri[2 * RIG_PATH_MAX];

	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s%s", place->socket, place->params);
	return backend_open(uri, false, NULL, &place->backend, err);
}

static struct store *place_open(struct place *place)
{
	struct store *store;
	struct err err = {0};

	/* qemu-nbd's socket is there a moment before it listens. */
	for (unsigned i = 0; place_try(place, &err); i++) {
		ck_assert_msg(i < 200, "%s", err.text);
		usleep(10000);
	}
	ck_assert_int_eq(
	    place->backend->ops->region_open(place->backend, 2, false, &store, &err), 0);
	return store;
}

static void place_end(struct place *place, struct store *store)
{
	store_destroy(store);
	backend_close(place->backend);
	place->stop = true;
	if (place->killing)
		pthread_join(place->killer, NULL);
	server_kill(place);
	rig_tmpdir_remove(place->dir);
	free(place);
}

/* ---- the factories ---- */

static bool create(
    struct contract_stack *stack, uint64_t size, const char *command, const char *params)
{
	struct place *place = place_start(command, params, size);

	stack->ctx = place;
	stack->store = place_open(place);
	return true;
}

static void destroy(struct contract_stack *stack)
{
	place_end(stack->ctx, stack->store);
}

/* Server and client end; what was stable is there afterwards. */
static void crash(struct contract_stack *stack)
{
	struct place *place = stack->ctx;

	store_destroy(stack->store);
	backend_close(place->backend);
	server_kill(place);
	server_start(place);
	stack->store = place_open(place);
}

#define NBDKIT "nbdkit -f --unix SOCKET "

static bool memory_create(struct contract_stack *stack, uint64_t size)
{
	return create(stack, size, NBDKIT "memory SIZE", "");
}

static bool one_create(struct contract_stack *stack, uint64_t size)
{
	return create(stack, size, NBDKIT "memory SIZE", "&conns=1");
}

static bool file_create(struct contract_stack *stack, uint64_t size)
{
	return create(stack, size, NBDKIT "file IMAGE", "");
}

/* No extents, no write zeroes, no FUA: all of these are made of something else. */
static bool poor_create(struct contract_stack *stack, uint64_t size)
{
	return create(stack, size,
	    NBDKIT "--filter=noextents --filter=nozero --filter=fua --filter=multi-conn "
		   "memory SIZE multi-conn-mode=disable",
	    "");
}

static bool late_create(struct contract_stack *stack, uint64_t size)
{
	return create(stack, size, NBDKIT "--filter=delay memory SIZE rdelay=1ms wdelay=2ms", "");
}

static bool blocks_create(struct contract_stack *stack, uint64_t size)
{
	return create(stack, size,
	    NBDKIT "--filter=blocksize-policy memory SIZE blocksize-minimum=4096 "
		   "blocksize-preferred=4096 blocksize-maximum=65536 blocksize-error-policy=error",
	    "");
}

static bool large_blocks_create(struct contract_stack *stack, uint64_t size)
{
	return create(stack, size,
	    NBDKIT "--filter=blocksize-policy --filter=nozero memory SIZE blocksize-minimum=65536 "
		   "blocksize-preferred=65536 blocksize-maximum=65536 blocksize-error-policy=error",
	    "");
}

static bool qemu_create(struct contract_stack *stack, uint64_t size)
{
	return create(
	    stack, size, "qemu-nbd -t -f raw --discard=unmap --shared=8 -k SOCKET IMAGE", "");
}

/* Kills the server and starts it again until told to stop. */
static void *kill_and_start(void *ctx)
{
	struct place *place = ctx;

	while (!place->stop) {
		usleep(60000);
		server_kill(place);
		usleep(5000);
		server_start(place);
	}
	return NULL;
}

static bool killed_create(struct contract_stack *stack, uint64_t size)
{
	struct place *place;

	create(stack, size, NBDKIT "file IMAGE", "");
	place = stack->ctx;
	place->killing = true;
	ck_assert_int_eq(pthread_create(&place->killer, NULL, kill_and_start, place), 0);
	return true;
}

enum { FLAGS = CONTRACT_LOOPS | CONTRACT_FIXED };

static const struct contract_factory *const factories[] = {
    &(struct contract_factory){"nbd-memory", FLAGS, memory_create, destroy, NULL},
    &(struct contract_factory){"nbd-one", FLAGS, one_create, destroy, NULL},
    &(struct contract_factory){"nbd-file", FLAGS, file_create, destroy, crash},
    &(struct contract_factory){"nbd-poor", FLAGS, poor_create, destroy, NULL},
    &(struct contract_factory){"nbd-late", FLAGS, late_create, destroy, NULL},
    &(struct contract_factory){"nbd-blocks", FLAGS, blocks_create, destroy, NULL},
    &(struct contract_factory){"nbd-large-blocks", FLAGS, large_blocks_create, destroy, NULL},
    &(struct contract_factory){"nbd-qemu", FLAGS, qemu_create, destroy, crash},
    &(struct contract_factory){"nbd-killed", FLAGS, killed_create, destroy, NULL},
    NULL,
};

/* ---- what only a server can do ---- */

static struct rig rig;

static void setup(void)
{
	rig_tmpdirs_begin();
	rig_start(&rig, 1, 1);
}

static void teardown(void)
{
	rig_stop(&rig);
	rig_tmpdirs_end();
}

START_TEST(a_read_only_export_is_not_written)
{
	struct place *place = place_start(NBDKIT "-r memory SIZE", "", MIB);
	struct store *store = place_open(place);
	uint8_t buf[4096] = {1};

	ck_assert(place->backend->read_only);
	ck_assert_int_eq(rig_write(rig.loops[0], store, 0, buf, 4096, 0), -EROFS);
	ck_assert_int_eq(rig_op(rig.loops[0], store, STORE_ZERO, 0, 4096, 0), -EROFS);
	ck_assert_int_eq(rig_read(rig.loops[0], store, 0, buf, 4096), 0);
	place_end(place, store);
}
END_TEST

/* Each failure of the server is one failure here, with its errno, and no other request fails. */
START_TEST(errors_of_the_server_are_passed_on)
{
	struct place *place = place_start(NBDKIT
	    "--filter=error memory SIZE error-pwrite=ENOSPC error-pwrite-rate=50% "
	    "error-pread=EIO error-pread-rate=50% error-zero=ENOMEM error-zero-rate=100%",
	    "", MIB);
	struct store *store = place_open(place);
	unsigned failed[2] = {0}, passed[2] = {0};
	uint8_t buf[4096] = {1};

	for (unsigned i = 0; i < 100; i++) {
		int rc = rig_write(rig.loops[0], store, i * 4096, buf, 4096, 0);

		ck_assert(rc == 0 || rc == -ENOSPC);
		*(rc ? &failed[0] : &passed[0]) += 1;
		rc = rig_read(rig.loops[0], store, i * 4096, buf, 4096);
		ck_assert(rc == 0 || rc == -EIO);
		*(rc ? &failed[1] : &passed[1]) += 1;
	}
	for (unsigned i = 0; i < 2; i++)
		ck_assert(failed[i] > 10 && passed[i] > 10);
	ck_assert_int_eq(rig_op(rig.loops[0], store, STORE_ZERO, 0, 4096, 0), -ENOMEM);
	place_end(place, store);
}
END_TEST

/* One of a large request's parts fails: the request has failed. */
START_TEST(an_error_in_a_part_is_the_requests)
{
	struct place *place = place_start(NBDKIT
	    "--filter=blocksize-policy --filter=error memory SIZE blocksize-minimum=4096 "
	    "blocksize-preferred=4096 blocksize-maximum=4096 error-pwrite=EIO "
	    "error-pwrite-rate=5%",
	    "", MIB);
	struct store *store = place_open(place);
	uint8_t *buf = contract_pattern(MIB, 1), *back = malloc(MIB);
	unsigned failed = 0;

	for (unsigned i = 0; i < 20; i++) {
		int rc = rig_write(rig.loops[0], store, 0, buf, MIB, 0);

		ck_assert(rc == 0 || rc == -EIO);
		failed += rc != 0;
		if (rc)
			continue;
		ck_assert_int_eq(rig_read(rig.loops[0], store, 0, back, MIB), 0);
		ck_assert_mem_eq(buf, back, MIB);
	}
	ck_assert_uint_gt(failed, 5);
	place_end(place, store);
	free(buf);
	free(back);
}
END_TEST

/* ---- what is stable ---- */

/* What a server was asked for since it was last looked at, as its log has it. */
struct asked {
	unsigned changes; /* WRITE and WRITE_ZEROES */
	unsigned fua; /* of these */
	unsigned flushes;
	unsigned early; /* flushes while a change was not answered */
	unsigned unflushed; /* changes after the last flush */
};

static struct asked look_at_log(struct place *place)
{
	FILE *log = fopen(strchr(place->log, '=') + 1, "r");
	struct asked asked = {0};
	unsigned running = 0;
	char line[512];

	ck_assert(log && fseek(log, place->log_read, SEEK_SET) == 0);
	while (fgets(line, sizeof(line), log)) {
		if (strstr(line, " Write id=") || strstr(line, " Zero id=")) {
			asked.changes++;
			asked.unflushed++;
			asked.fua += strstr(line, " fua=1") != NULL;
			running++;
		} else if (strstr(line, " ...Write id=") || strstr(line, " ...Zero id=")) {
			running--;
		} else if (strstr(line, " Flush id=")) {
			asked.flushes++;
			asked.early += running > 0;
			asked.unflushed = 0;
		}
	}
	place->log_read = ftell(log);
	fclose(log);
	return asked;
}

/* Servers that can do FUA, and that can't. */
static const struct {
	const char *filters, *params;
	bool fua;
} stable_servers[] = {
    {"", "", true},
    {"--filter=nozero", "", true},
    {"--filter=blocksize-policy",
	"blocksize-minimum=4096 blocksize-preferred=4096 blocksize-maximum=65536 "
	"blocksize-error-policy=error",
	true},
    {"--filter=fua", "", false},
    {"--filter=fua --filter=nozero", "", false},
    {"--filter=fua --filter=blocksize-policy",
	"blocksize-minimum=4096 blocksize-preferred=4096 blocksize-maximum=65536 "
	"blocksize-error-policy=error",
	false},
};

enum { STABLE_SERVERS = sizeof(stable_servers) / sizeof(stable_servers[0]) };

/* Requests of one command and of several, whole blocks and not. */
static const struct {
	enum store_op op;
	uint32_t off, len;
} stable_requests[] = {
    {STORE_WRITE, 4096, 4096},
    {STORE_WRITE, 1000, 300000},
    {STORE_WRITE, 77, 5},
    {STORE_ZERO, 4096, 65536},
    {STORE_ZERO, 1000, 300000},
};

static int stable_request(struct store *store, size_t i, unsigned flags)
{
	enum store_op op = stable_requests[i].op;
	uint32_t off = stable_requests[i].off, len = stable_requests[i].len;
	uint8_t *buf = contract_pattern(MIB, (unsigned)i);
	int rc = op == STORE_WRITE ? rig_write(rig.loops[0], store, off, buf, len, flags)
				   : rig_op(rig.loops[0], store, op, off, len, flags);

	free(buf);
	return rc;
}

START_TEST(flush_and_fua_reach_the_server)
{
	bool fua = stable_servers[_i].fua;
	struct asked asked;
	struct place *place;
	struct store *store;
	char command[1024];

	snprintf(command, sizeof(command), NBDKIT "--filter=log %s memory SIZE LOG %s",
	    stable_servers[_i].filters, stable_servers[_i].params);
	place = place_start(command, "", MIB);
	store = place_open(place);
	for (size_t i = 0; i < sizeof(stable_requests) / sizeof(stable_requests[0]); i++) {
		look_at_log(place);
		ck_assert_int_eq(stable_request(store, i, 0), 0);
		asked = look_at_log(place);
		ck_assert_uint_gt(asked.changes, 0);
		ck_assert_uint_eq(asked.fua, 0);
		ck_assert_uint_eq(asked.flushes, 0);
		ck_assert_int_eq(stable_request(store, i, STORE_FUA), 0);
		asked = look_at_log(place);
		ck_assert_uint_gt(asked.changes, 0);
		ck_assert_uint_eq(asked.fua, fua ? asked.changes : 0);
		ck_assert_uint_eq(asked.flushes, fua ? 0 : 1);
		ck_assert_uint_eq(asked.early, 0);
		ck_assert_uint_eq(asked.unflushed, fua ? asked.changes : 0);
	}
	ck_assert_int_eq(rig_op(rig.loops[0], store, STORE_FLUSH, 0, 0, 0), 0);
	asked = look_at_log(place);
	ck_assert_uint_eq(asked.changes, 0);
	ck_assert_uint_eq(asked.flushes, 1);
	place_end(place, store);
}
END_TEST

/* Each flush that fails is told, also one that stands in for FUA. */
START_TEST(a_failed_flush_is_told)
{
	static const char *const filters[] = {"", "--filter=fua "};
	struct place *place;
	struct store *store;
	char command[1024];

	/* A word is the server's argument, and a script. */
	snprintf(command, sizeof(command),
	    NBDKIT "%seval get_size=echo${IFS}1M pread=head${IFS}-c$3${IFS}/dev/zero "
		   "pwrite=cat>/dev/null flush=false",
	    filters[_i]);
	place = place_start(command, "", MIB);
	store = place_open(place);
	for (size_t i = 0; i < sizeof(stable_requests) / sizeof(stable_requests[0]); i++) {
		ck_assert_int_eq(stable_request(store, i, 0), 0);
		ck_assert_int_eq(stable_request(store, i, STORE_FUA), -EIO);
		ck_assert_int_eq(rig_op(rig.loops[0], store, STORE_FLUSH, 0, 0, 0), -EIO);
	}
	place_end(place, store);
}
END_TEST

/* ---- servers that are away ---- */

static struct rig_wait *begin_read(struct store *store, struct rig_req *rr, uint8_t *buf)
{
	*rr = (struct rig_req){.req = {.op = STORE_READ, .len = 4096, .buf = buf}};
	return rig_begin(rig.loops[0], store, rr, 1);
}

static void interrupt(void *ctx)
{
	store_interrupt(ctx);
}

START_TEST(requests_wait_for_a_server_that_is_away)
{
	struct place *place = place_start(NBDKIT "file IMAGE", "", MIB);
	struct store *store = place_open(place);
	struct rig_wait *waits[2];
	struct rig_req reqs[2];
	uint8_t buf[2][4096];

	ck_assert_int_eq(rig_read(rig.loops[0], store, 0, buf[0], 4096), 0);
	server_kill(place);
	waits[0] = begin_read(store, &reqs[0], buf[0]);
	waits[1] = begin_read(store, &reqs[1], buf[1]);
	usleep(300000);
	ck_assert_uint_eq(reqs[0].dones, 0);
	rig_call(rig.loops[0], interrupt, &reqs[0].req);
	rig_end(waits[0]);
	ck_assert_int_eq(reqs[0].err, -EINTR);
	server_start(place);
	rig_end(waits[1]);
	ck_assert_int_eq(reqs[1].err, 0);
	place_end(place, store);
}
END_TEST

static int listen_in_its_place(struct place *place)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_lt(snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", place->socket),
	    (int)sizeof(sun.sun_path));
	unlink(place->socket);
	ck_assert(fd >= 0 && bind(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0);
	ck_assert_int_eq(listen(fd, 16), 0);
	return fd;
}

/* A server that is there and serves nobody. */
START_TEST(attempts_come_more_and_more_slowly)
{
	struct place *place = place_start(NBDKIT "memory SIZE", "&conns=1", MIB);
	struct store *store = place_open(place);
	uint64_t begin_ns;
	uint8_t buf[4096];
	int listener;

	ck_assert_int_eq(rig_read(rig.loops[0], store, 0, buf, 4096), 0);
	begin_ns = loop_now_ns();
	server_kill(place);
	listener = listen_in_its_place(place);
	rig_turn_away(listener, 7); /* the first one at once */
	ck_assert_uint_ge((loop_now_ns() - begin_ns) / 1000000, rig_backoff_ms(6));
	close(listener);
	server_start(place);
	ck_assert_int_eq(rig_read(rig.loops[0], store, 0, buf, 4096), 0);
	place_end(place, store);
}
END_TEST

static unsigned connects(const struct place *place)
{
	FILE *log = fopen(strchr(place->log, '=') + 1, "r");
	unsigned n = 0;
	char line[512];

	ck_assert_ptr_nonnull(log);
	while (fgets(line, sizeof(line), log))
		n += strstr(line, " Connect ") != NULL;
	fclose(log);
	return n;
}

/* One that greets, and then answers nothing but that it is shutting down. */
START_TEST(connections_that_served_nothing_do_too)
{
	struct place *place = place_start(NBDKIT
	    "--filter=log --filter=error memory SIZE LOG error=ESHUTDOWN error-rate=100%",
	    "&conns=1", MIB);
	struct store *store = place_open(place);
	unsigned before = connects(place);
	uint64_t begin_ns = loop_now_ns();
	struct rig_wait *wait;
	struct rig_req req;
	uint8_t buf[4096];

	wait = begin_read(store, &req, buf);
	for (unsigned i = 0; connects(place) < before + 6; i++) {
		ck_assert_msg(i < 2000, "nobody comes");
		usleep(10000);
	}
	ck_assert_uint_ge((loop_now_ns() - begin_ns) / 1000000, rig_backoff_ms(6));
	ck_assert_uint_eq(req.dones, 0);
	server_kill(place);
	strcpy(place->command, NBDKIT "memory SIZE");
	server_start(place);
	rig_end(wait);
	ck_assert_int_eq(req.err, 0);
	place_end(place, store);
}
END_TEST

START_TEST(with_patience_they_fail_and_work_again)
{
	struct place *place = place_start(NBDKIT "file IMAGE", "&timeo=300ms", MIB);
	struct store *store = place_open(place);
	uint8_t buf[4096];
	int rc;

	ck_assert_int_eq(rig_read(rig.loops[0], store, 0, buf, 4096), 0);
	server_kill(place);
	ck_assert_int_eq(rig_read(rig.loops[0], store, 0, buf, 4096), -EIO);
	ck_assert_int_eq(rig_read(rig.loops[0], store, 0, buf, 4096), -EIO);
	server_start(place);
	for (unsigned i = 0; (rc = rig_read(rig.loops[0], store, 0, buf, 4096)) && i < 100; i++)
		usleep(100000);
	ck_assert_int_eq(rc, 0);
	place_end(place, store);
}
END_TEST

/* A server that does not answer may be slow; but who was killed need not wait for it. */
START_TEST(an_interrupt_ends_waiting_for_a_silent_server)
{
	struct place *place = place_start(NBDKIT "memory SIZE", "", MIB);
	struct store *store = place_open(place);
	struct rig_wait *waits[2];
	struct rig_req reqs[2];
	uint8_t buf[2][4096];

	ck_assert_int_eq(rig_read(rig.loops[0], store, 0, buf[0], 4096), 0);
	kill(place->server, SIGSTOP);
	ck_assert_int_eq(waitpid(place->server, NULL, WUNTRACED), place->server);
	waits[0] = begin_read(store, &reqs[0], buf[0]);
	waits[1] = begin_read(store, &reqs[1], buf[1]);
	rig_call(rig.loops[0], interrupt, &reqs[0].req);
	rig_end(waits[0]);
	ck_assert_int_eq(reqs[0].err, -EINTR);
	/* Not SIGCONT: nbdkit may fail an assertion of its own when it finds its connections gone. */
	server_kill(place);
	server_start(place);
	rig_end(waits[1]);
	ck_assert_int_eq(reqs[1].err, 0);
	place_end(place, store);
}
END_TEST

START_TEST(an_export_that_has_shrunk_is_not_used)
{
	struct place *place = place_start(NBDKIT "file IMAGE", "", MIB);
	struct store *store = place_open(place);
	uint8_t buf[4096] = {1};

	ck_assert_int_eq(rig_write(rig.loops[0], store, 0, buf, 4096, 0), 0);
	server_kill(place);
	ck_assert_int_eq(truncate(place->image, MIB / 2), 0);
	server_start(place);
	ck_assert_int_eq(rig_read(rig.loops[0], store, 0, buf, 4096), -EIO);
	/* For good, also when it is as it was again. */
	ck_assert_int_eq(truncate(place->image, MIB), 0);
	usleep(200000);
	ck_assert_int_eq(rig_read(rig.loops[0], store, 0, buf, 4096), -EIO);
	place_end(place, store);
}
END_TEST

START_TEST(an_export_that_has_grown_is_used_as_it_was)
{
	struct place *place = place_start(NBDKIT "file IMAGE", "", MIB);
	struct store *store = place_open(place);
	uint8_t buf[4096] = {1};

	ck_assert_int_eq(rig_write(rig.loops[0], store, 0, buf, 4096, 0), 0);
	server_kill(place);
	ck_assert_int_eq(truncate(place->image, 2 * MIB), 0);
	server_start(place);
	ck_assert_int_eq(rig_read(rig.loops[0], store, 0, buf, 4096), 0);
	ck_assert_uint_eq(buf[0], 1);
	ck_assert_uint_eq(store->size, MIB);
	place_end(place, store);
}
END_TEST

START_TEST(what_is_wrong_is_said_at_once)
{
	static const char *const bad[][2] = {
	    {"nbd:", "host is missing"},
	    {"nbd:///x", "host is missing"},
	    {"nbd+unix:///x", "socket is missing"},
	    {"nbd+unix://host/x?socket=/x", "no host"},
	    {"nbd://h/x?socket=/x", "nbd+unix"},
	    {"nbd://127.0.0.1:1/x", "Connection refused"},
	    {"nbd+unix:///x?socket=/nonexistent/socket", "No such file"},
	    {"nbd://h/x?conns=0", "1 to 16"},
	    {"nbd://h/x?conns=17", "1 to 16"},
	    {"nbd://h/x?timeo=soon", "a time"},
	    {"nbd://h/x?tls-certificates=/x", "nbds://"},
	    {"nbd://h/x?colour=red", "colour"},
	};
	struct backend *backend;
	struct err err;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert_msg(
		    backend_open(bad[i][0], false, NULL, &backend, &err) < 0, "%s", bad[i][0]);
		ck_assert_msg(strstr(err.text, bad[i][1]), "%s: %s", bad[i][0], err.text);
	}
}
END_TEST

int main(void)
{
	Suite *suite = contract_suite("nbd_store", factories);
	TCase *tc = tcase_create("servers");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_read_only_export_is_not_written);
	tcase_add_test(tc, errors_of_the_server_are_passed_on);
	tcase_add_test(tc, an_error_in_a_part_is_the_requests);
	tcase_add_loop_test(tc, flush_and_fua_reach_the_server, 0, STABLE_SERVERS);
	tcase_add_loop_test(tc, a_failed_flush_is_told, 0, 2);
	tcase_add_test(tc, requests_wait_for_a_server_that_is_away);
	tcase_add_test(tc, attempts_come_more_and_more_slowly);
	tcase_add_test(tc, connections_that_served_nothing_do_too);
	tcase_add_test(tc, with_patience_they_fail_and_work_again);
	tcase_add_test(tc, an_interrupt_ends_waiting_for_a_silent_server);
	tcase_add_test(tc, an_export_that_has_shrunk_is_not_used);
	tcase_add_test(tc, an_export_that_has_grown_is_used_as_it_was);
	tcase_add_test(tc, what_is_wrong_is_said_at_once);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
