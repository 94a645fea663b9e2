/* SPDX-License-Identifier: Apache-2.0
 *
 * remramd: the donor daemon.  main() reads the settings, opens the pools, starts the server and waits
 * for a signal.
 *
 * Exit codes: 0 orderly end, 1 wrong usage or settings, 2 could not start or not end in order.
 */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/local_pool.h"
#include "core/log.h"
#include "core/workers.h"
#include "export/conf.h"
#include "export/server.h"

enum { EXIT_USAGE = 1, EXIT_START = 2 };

struct donor {
	struct workers *workers;
	struct pool **pools;
	unsigned pool_count;
	struct server *server;
};

static int open_pools(struct donor *donor, const struct remramd_conf *conf, struct err *err)
{
	donor->pools = calloc(conf->pool_count, sizeof(donor->pools[0]));
	if (!donor->pools)
		return err_set(err, -ENOMEM, "out of memory");
	for (unsigned i = 0; i < conf->pool_count; i++) {
		struct local_pool_conf pool_conf = {
		    .name = conf->pools[i].name,
		    .uri = conf->pools[i].uri,
		    .state_dir = conf->state,
		    .lease_ms = conf->lease_ms,
		};
		struct err why;
		int rc = local_pool_create(&pool_conf, donor->workers, &donor->pools[i], &why);

		if (rc)
			return err_set(err, rc, "pool \"%s\": %s", conf->pools[i].name, why.text);
		donor->pool_count++;
		log_info("pool \"%s\": %s", conf->pools[i].name, conf->pools[i].uri);
	}
	return 0;
}

static int start(struct donor *donor, const struct remramd_conf *conf, struct err *err)
{
	struct server_conf server_conf = {.threads = conf->threads, .spin_us = conf->spin_us};
	int rc = workers_create(conf->workers, &donor->workers, err);

	if (rc == 0)
		rc = open_pools(donor, conf, err);
	server_conf.pools = donor->pools;
	server_conf.pool_count = donor->pool_count;
	if (rc == 0)
		rc = server_create(&server_conf, &donor->server, err);
	for (unsigned i = 0; i < conf->listen_count && rc == 0; i++)
		rc = server_listen(donor->server, SERVER_PEER, &conf->listen[i], err);
	for (unsigned i = 0; i < conf->nbd_count && rc == 0; i++)
		rc = server_listen(donor->server, SERVER_NBD, &conf->nbd[i], err);
	if (rc == 0)
		rc = server_start(donor->server, err);
	return rc;
}

static void finish(struct donor *donor)
{
	server_destroy(donor->server);
	for (unsigned i = 0; i < donor->pool_count; i++)
		pool_destroy(donor->pools[i]);
	free(donor->pools);
	workers_destroy(donor->workers);
}

/* Tells systemd (sd_notify(3), the protocol of Type=notify) if it wants to know. */
static void notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd;

	if (!path || strlen(path) >= sizeof(sa.sun_path))
		return;
	memcpy(sa.sun_path, path, strlen(path));
	if (sa.sun_path[0] == '@')
		sa.sun_path[0] = 0;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	(void)!sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&sa,
	    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)));
	close(fd);
}

static void tell_ready(const struct remramd_conf *conf)
{
	if (conf->ready_fd) {
		(void)!write(conf->ready_fd, "ready\n", 6);
		close(conf->ready_fd);
	}
	notify("READY=1");
}

/* Each region of a memory: pool is a descriptor. */
static void raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int run(const struct remramd_conf *conf)
{
	struct donor donor = {0};
	struct err err = {0};
	sigset_t signals;
	bool clean;
	int sig;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	raise_file_limit();
	log_set_level((enum log_level)conf->log);
	if (log_start(false, &err) || start(&donor, conf, &err)) {
		log_stop();
		fprintf(stderr, "remramd: %s\n", err.text);
		finish(&donor);
		return EXIT_START;
	}
	tell_ready(conf);
	sigwait(&signals, &sig);
	log_info("%s: finishing what is in flight", strsignal(sig));
	notify("STOPPING=1");
	clean = server_stop(donor.server);
	if (clean)
		finish(&donor);
	else
		log_error("requests were still in flight after a long wait");
	log_stop();
	return clean ? 0 : EXIT_START;
}

int main(int argc, char **argv)
{
	struct remramd_conf conf;
	struct err err = {0};
	int rc;

	log_set_name("remramd");
	rc = remramd_conf_read(&conf, argc, argv, REMRAMD_CONF_FILE, &err);
	if (rc) {
		fprintf(stderr, "remramd: %s\n", err.text);
		rc = EXIT_USAGE;
	} else if (conf.help) {
		remramd_conf_print_help(stdout);
	} else if (conf.version) {
		printf("remramd %s\n", REMRAM_VERSION);
	} else {
		rc = run(&conf);
	}
	remramd_conf_fini(&conf);
	return rc;
}
