/* SPDX-License-Identifier: Apache-2.0
 *
 * Donor, client and proxy for tests of the peer protocol (see tests/lib/serve.h).
 *
 * A test thread hands work to the client's loop and waits on a condition variable, as tests/lib/rig.c
 * does.
 */
#include "tests/lib/serve.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/ahead.h"
#include "core/local_pool.h"
#include "core/log.h"

/* ---- the donor's side ---- */

static struct sockaddr_in loopback(uint16_t port)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
	    .sin_port = htons(port),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static uint16_t free_port(void)
{
	struct sockaddr_in sa = loopback(0);
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert(fd >= 0 && bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	close(fd);
	return ntohs(sa.sin_port);
}

static void open_pools(struct serve *serve)
{
	char memory[64], files[RIG_PATH_MAX + 64];
	struct local_pool_conf conf[SERVE_POOLS] = {
	    {.name = "ram", .uri = memory, .state_dir = serve->dir},
	    {.name = "disk", .uri = files, .state_dir = serve->dir},
	};
	struct err err = {0};

	snprintf(memory, sizeof(memory), "memory:?size=%llu", (unsigned long long)serve->size);
	snprintf(files, sizeof(files), "file:%s/disk?size=%llu", serve->dir,
	    (unsigned long long)serve->size);
	ck_assert_int_eq(workers_create(3, &serve->workers, &err), 0);
	for (unsigned i = 0; i < SERVE_POOLS; i++)
		ck_assert_msg(
		    local_pool_create(&conf[i], serve->workers, &serve->pools[i], &err) == 0, "%s",
		    err.text);
}

static void listen_nbd(struct serve *serve)
{
	struct address address = {.text = serve->nbd, .addr_len = sizeof(struct sockaddr_un)};
	struct sockaddr_un *sun = (struct sockaddr_un *)&address.addr;
	struct err err = {0};

	sun->sun_family = AF_UNIX;
	ck_assert_int_lt(snprintf(sun->sun_path, sizeof(sun->sun_path), "%s", serve->nbd),
	    (int)sizeof(sun->sun_path));
	ck_assert_msg(
	    server_listen(serve->server, SERVER_NBD, &address, &err) == 0, "%s", err.text);
}

void serve_again(struct serve *serve)
{
	struct server_conf conf = {.threads = 2, .pools = serve->pools, .pool_count = SERVE_POOLS};
	struct err err = {0};
	int rc = 0;

	open_pools(serve);
	ck_assert_msg(server_create(&conf, &serve->server, &err) == 0, "%s", err.text);
	for (unsigned tries = 0; tries < 5; tries++) {
		struct address address = {
		    .text = "loopback", .addr_len = sizeof(struct sockaddr_in)};

		if (serve->port == 0 || (rc && tries))
			serve->port = free_port();
		*(struct sockaddr_in *)&address.addr = loopback(serve->port);
		rc = server_listen(serve->server, SERVER_PEER, &address, &err);
		if (rc == 0)
			break;
	}
	ck_assert_msg(rc == 0, "%s", err.text);
	if (*serve->nbd)
		listen_nbd(serve);
	ck_assert_msg(server_start(serve->server, &err) == 0, "%s", err.text);
}

static void start(struct serve *serve, uint64_t size, bool nbd)
{
	log_set_level(LOG_LEVEL_ERROR);
	memset(serve, 0, sizeof(*serve));
	serve->size = size;
	rig_tmpdir(NULL, serve->dir);
	if (nbd)
		snprintf(serve->nbd, sizeof(serve->nbd), "%s/nbd", serve->dir);
	serve_again(serve);
}

void serve_start(struct serve *serve, uint64_t size)
{
	start(serve, size, false);
}

void serve_start_nbd(struct serve *serve, uint64_t size)
{
	start(serve, size, true);
}

void serve_end(struct serve *serve)
{
	if (!serve->server)
		return;
	ck_assert_msg(server_stop(serve->server), "requests were still in flight");
	server_destroy(serve->server);
	serve->server = NULL;
	for (unsigned i = 0; i < SERVE_POOLS; i++)
		pool_destroy(serve->pools[i]);
	workers_destroy(serve->workers);
}

void serve_restart(struct serve *serve)
{
	serve_end(serve);
	serve_again(serve);
}

void serve_stop(struct serve *serve)
{
	serve_end(serve);
	rig_tmpdir_remove(serve->dir);
}

/* ---- waiting for the client's loop ---- */

struct client_wait {
	pthread_mutex_t mu;
	pthread_cond_t cond;
	unsigned left; /* protected by mu */
};

static void wait_init(struct client_wait *wait, unsigned left)
{
	pthread_mutex_init(&wait->mu, NULL);
	pthread_cond_init(&wait->cond, NULL);
	wait->left = left;
}

static void wait_tell(struct client_wait *wait)
{
	pthread_mutex_lock(&wait->mu);
	wait->left--;
	pthread_cond_signal(&wait->cond);
	pthread_mutex_unlock(&wait->mu);
}

static void wait_fini(struct client_wait *wait)
{
	pthread_mutex_lock(&wait->mu);
	while (wait->left)
		pthread_cond_wait(&wait->cond, &wait->mu);
	pthread_mutex_unlock(&wait->mu);
	pthread_cond_destroy(&wait->cond);
	pthread_mutex_destroy(&wait->mu);
}

/* ---- connecting ---- */

struct opening {
	struct client *client;
	const struct client_conf *conf;
	struct client_wait wait;
	struct err err;
	int rc;
};

static void on_ready(void *ctx, const struct err *err)
{
	struct opening *opening = ctx;

	opening->rc = err ? err->code : 0;
	if (err)
		opening->err = *err;
	wait_tell(&opening->wait);
}

static void create_pool(void *ctx)
{
	struct opening *opening = ctx;
	struct peer_conf conf = {
	    .host = "127.0.0.1",
	    .port = opening->conf->port,
	    .pool = opening->conf->pool,
	    .soft = opening->conf->soft,
	    .timeo_ms = opening->conf->timeo_ms,
	    .look_ms = opening->conf->look_ms,
	    .conns = opening->conf->conns,
	    .ready = on_ready,
	    .ctx = opening,
	};
	int rc =
	    peer_pool_create(opening->client->loop, &conf, &opening->client->pool, &opening->err);

	if (rc) {
		opening->rc = rc;
		wait_tell(&opening->wait);
	}
}

static void destroy_pool(void *ctx)
{
	struct client *client = ctx;

	pool_destroy(client->pool);
	pool_destroy(client->donor);
	client->pool = client->donor = NULL;
}

static void read_ahead(void *ctx)
{
	struct client *client = ctx;

	client->donor = client->pool;
	ck_assert_int_eq(ahead_pool_create(client->donor, false, &client->pool, NULL), 0);
}

int client_open(
    struct client *client, struct loop *loop, const struct client_conf *conf, struct err *err)
{
	struct opening opening = {.client = client, .conf = conf};

	*client = (struct client){.loop = loop, .session = 1};
	wait_init(&opening.wait, 1);
	rig_call(loop, create_pool, &opening);
	wait_fini(&opening.wait);
	if (err)
		*err = opening.err;
	if (opening.rc)
		client_close(client);
	else if (conf->ahead)
		rig_call(loop, read_ahead, client);
	return opening.rc;
}

void client_close(struct client *client)
{
	if (client->pool)
		rig_call(client->loop, destroy_pool, client);
}

struct asked_status {
	struct client *client;
	struct peer_status *ret_status;
};

static void get_status(void *ctx)
{
	struct asked_status *ask = ctx;

	peer_pool_status(
	    ask->client->donor ? ask->client->donor : ask->client->pool, ask->ret_status);
}

void client_status(struct client *client, struct peer_status *ret_status)
{
	struct asked_status ask = {client, ret_status};

	rig_call(client->loop, get_status, &ask);
}

void client_wait(struct client *client, enum peer_state state)
{
	struct peer_status status;

	for (unsigned ms = 0; ms < 20000; ms += 2) {
		client_status(client, &status);
		if (status.state == state)
			return;
		usleep(2000);
	}
	ck_abort_msg("the client is in state %d, not %d", status.state, state);
}

void client_wait_conns(struct client *client, unsigned count)
{
	struct peer_status status;

	for (unsigned ms = 0; ms < 20000; ms += 2) {
		client_status(client, &status);
		if (status.conns_up == count)
			return;
		usleep(2000);
	}
	ck_abort_msg("%u of %u connections are up, not %u", status.conns_up, status.conns, count);
}

/* ---- requests of the pool ---- */

struct begun {
	struct client *client;
	struct client_req *reqs;
	unsigned count;
};

static void req_done(struct pool_req *req, int err)
{
	struct client_req *cr = (struct client_req *)req;

	ck_assert_ptr_eq(loop_self(), cr->client->loop);
	ck_assert_int_eq(cr->err, 1);
	cr->err = err;
	wait_tell(cr->wait);
}

static void submit_all(void *ctx)
{
	struct begun *begun = ctx;

	for (unsigned i = 0; i < begun->count; i++)
		pool_submit(begun->client->pool, &begun->reqs[i].req);
}

struct client_wait *client_begin(struct client *client, struct client_req *reqs, unsigned count)
{
	struct begun begun = {client, reqs, count};
	struct client_wait *wait = malloc(sizeof(*wait));

	ck_assert_ptr_nonnull(wait);
	wait_init(wait, count);
	for (unsigned i = 0; i < count; i++) {
		reqs[i].req.done = req_done;
		reqs[i].req.session = client->session;
		reqs[i].client = client;
		reqs[i].wait = wait;
		reqs[i].err = 1;
	}
	rig_call(client->loop, submit_all, &begun);
	return wait;
}

unsigned client_left(struct client_wait *wait)
{
	unsigned left;

	pthread_mutex_lock(&wait->mu);
	left = wait->left;
	pthread_mutex_unlock(&wait->mu);
	return left;
}

void client_end(struct client_wait *wait)
{
	wait_fini(wait);
	free(wait);
}

int client_ask(struct client *client, struct pool_req *req)
{
	struct client_req cr = {.req = *req};

	client_end(client_begin(client, &cr, 1));
	*req = cr.req;
	return cr.err;
}

static void interrupt_now(void *ctx)
{
	struct client_req *cr = ctx;

	if (cr->err == 1)
		pool_interrupt(cr->client->pool, &cr->req);
}

void client_interrupt(struct client *client, struct client_req *req)
{
	rig_call(client->loop, interrupt_now, req);
}

static void interrupt_data_now(void *ctx)
{
	store_interrupt(ctx);
}

void client_interrupt_data(struct client *client, struct rig_req *req)
{
	rig_call(client->loop, interrupt_data_now, &req->req);
}

struct handle *client_create(struct client *client, const char *name)
{
	struct pool_req req = {
	    .op = POOL_CREATE, .name = name, .flags = POOL_READ | POOL_WRITE, .attr.mode = 0600};
	int rc = client_ask(client, &req);

	ck_assert_msg(rc == 0, "CREATE %s: %s", name, strerror(-rc));
	return req.ret_handle;
}

int client_open_region(
    struct client *client, const char *name, unsigned flags, struct handle **ret_handle)
{
	struct pool_req req = {.op = POOL_LOOKUP, .name = name};
	int rc = client_ask(client, &req);

	if (rc)
		return rc;
	req = (struct pool_req){.op = POOL_OPEN, .id = req.attr.id, .flags = flags};
	rc = client_ask(client, &req);
	if (rc == 0)
		*ret_handle = req.ret_handle;
	return rc;
}

void client_close_handle(struct client *client, struct handle *handle)
{
	struct pool_req req = {.op = POOL_CLOSE, .handle = handle};

	ck_assert_int_eq(client_ask(client, &req), 0);
}

/* ---- the proxy ---- */

/* $O/tools/proxy: the test is $O/tests/SOMEWHERE/NAME. */
static void proxy_path(char path[RIG_PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", path, RIG_PATH_MAX - 32);

	ck_assert_int_gt(n, 0);
	path[n] = 0;
	for (unsigned i = 0; i < 3; i++)
		*strrchr(path, '/') = 0;
	strcat(path, "/tools/proxy");
	ck_assert_msg(access(path, X_OK) == 0, "%s is not built", path);
}

/* Not by fork: other threads of the test run, whose locks (a sanitizer's, say) the child would find taken for ever. */
static pid_t proxy_spawn(const char *path, uint16_t target, int in, int out)
{
	char to[32];
	char *argv[] = {
	    "proxy", "--listen", "127.0.0.1:0", "--target", to, "--stdin", "--ready-fd", "9", NULL};
	posix_spawn_file_actions_t files;
	pid_t pid = -1;

	snprintf(to, sizeof(to), "127.0.0.1:%u", target);
	ck_assert_int_eq(posix_spawn_file_actions_init(&files), 0);
	posix_spawn_file_actions_adddup2(&files, in, 0);
	posix_spawn_file_actions_adddup2(&files, out, 1);
	posix_spawn_file_actions_adddup2(&files, out, 9);
	ck_assert_int_eq(posix_spawn(&pid, path, &files, NULL, argv, environ), 0);
	posix_spawn_file_actions_destroy(&files);
	return pid;
}

static void proxy_line(struct proxy *proxy, char *buf, size_t room)
{
	size_t n = 0;

	while (n + 1 < room && read(proxy->out, buf + n, 1) == 1 && buf[n] != '\n')
		n++;
	buf[n] = 0;
}

void proxy_start(struct proxy *proxy, uint16_t target)
{
	char path[RIG_PATH_MAX], line[64];
	int in[2], out[2];

	proxy_path(path);
	ck_assert(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
	proxy->pid = proxy_spawn(path, target, in[0], out[1]);
	close(in[0]);
	close(out[1]);
	proxy->in = in[1];
	proxy->out = out[0];
	proxy_line(proxy, line, sizeof(line));
	proxy->port = (uint16_t)strtoul(line, NULL, 10);
	ck_assert_msg(proxy->port != 0, "proxy: \"%s\"", line);
}

void proxy_tell(struct proxy *proxy, const char *command)
{
	char line[256];

	ck_assert_int_eq(dprintf(proxy->in, "%s\n", command), (int)strlen(command) + 1);
	proxy_line(proxy, line, sizeof(line));
	ck_assert_msg(strncmp(line, "ok", 2) == 0, "proxy: %s: \"%s\"", command, line);
}

void proxy_stop(struct proxy *proxy)
{
	int status;

	if (proxy->pid <= 0)
		return;
	close(proxy->in);
	close(proxy->out);
	kill(proxy->pid, SIGTERM);
	ck_assert_int_eq(waitpid(proxy->pid, &status, 0), proxy->pid);
	proxy->pid = 0;
}
