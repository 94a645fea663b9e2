/* SPDX-License-Identifier: Apache-2.0
 *
 * `remram export`: serves one region over NBD, in the foreground, until SIGTERM or SIGINT: any place that a
 * URI names (memory:, file:, …), or a file, which may be a region of a mount.
 *
 * It is the donor's server (export/server.h) with a pool of one region and no clients but NBD's.  What a mount
 * knows of its regions, clients are told (mount/file_residence.h).
 * Exit codes: 0 orderly end, 1 wrong usage, 2 could not start or not end in order.
 */
#include "mount/cmd.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/local_pool.h"
#include "core/log.h"
#include "core/uri.h"
#include "core/workers.h"
#include "export/address.h"
#include "export/server.h"
#include "mount/file_residence.h"

enum { EXIT_USAGE = 1, EXIT_START = 2, WORKERS = 4, THREADS_MAX = 64, NBD_PORT = 10809 };

struct export_args {
	struct opt_list nbd;
	bool insecure, read_only, help;
	char *name;
	unsigned threads, spin_us, ready_fd;
	int log;
};

static const struct address_rules rules = {.port = NBD_PORT, .may_be_unix = true};

static int check_nbd(const char *text, struct err *err)
{
	return address_check(text, &rules, err);
}

static const struct opt_choice log_levels[] = {
    {"error", LOG_LEVEL_ERROR},
    {"warn", LOG_LEVEL_WARN},
    {"info", LOG_LEVEL_INFO},
    {"debug", LOG_LEVEL_DEBUG},
    {NULL, 0},
};

/* clang-format off */
#define AT(member) OPT_AT(struct export_args, member)
const struct opt cmd_export_options[] = {
	{.name = "nbd", .type = OPT_LIST, .placeholder = "ADDR:PORT|unix:PATH", .max = ADDRESSES_MAX,
	 .check = check_nbd, AT(nbd),
	 .help = "where to listen; port 10809 if none is given"},
	{.name = "name", .type = OPT_STRING, .placeholder = "NAME", .min = 1, AT(name),
	 .def_help = "the last part of the path, or the URI's scheme",
	 .help = "the export's name; the empty name always means it, too"},
	{.name = "read_only", .letter = 'r', .type = OPT_FLAG, AT(read_only),
	 .help = "nobody may write"},
	{.name = "insecure", .type = OPT_FLAG, AT(insecure),
	 .help = "serve without encryption and authentication on other addresses than loopback ones"},
	{.name = "threads", .type = OPT_UINT, .placeholder = "N", .def = "0",
	 .def_help = "0: one for each processor", .max = THREADS_MAX, AT(threads),
	 .help = "event loops that serve connections"},
	{.name = "spin_us", .type = OPT_UINT, .placeholder = "N", .unit = "µs", .def = "30", .max = 10000,
	 AT(spin_us), .help = "how long a loop polls before it sleeps, if polling has lately paid"},
	{.name = "log", .type = OPT_ENUM, .placeholder = "LEVEL", .def = "info", .choices = log_levels,
	 AT(log), .help = "what is told"},
	{.name = "ready_fd", .type = OPT_UINT, .placeholder = "N", .min = 1, .max = 65535, AT(ready_fd),
	 .help = "write a line to file descriptor N when it is served"},
	{.name = "help", .letter = 'h', .type = OPT_FLAG, AT(help), .help = "print this"},
	{.type = OPT_END},
};
/* clang-format on */

struct exporter {
	char uri[URI_TEXT_MAX];
	char name[POOL_NAME_MAX + 1];
	char *path; /* NULL: the source is a URI */
	struct address *addresses;
	unsigned address_count;
	struct workers *workers;
	struct pool *pool;
	struct residence *residence;
	struct server *server;
};

/* ---- what is exported ---- */

/* file:PATH, with an escape for what means something in a URI. */
static int path_uri(const char *path, char uri[URI_TEXT_MAX])
{
	size_t len = (size_t)snprintf(uri, URI_TEXT_MAX, "file:");

	for (; *path; path++) {
		bool plain = !strchr("%?#", *path) && *path > ' ' && *path < 0x7f;

		if (len + 4 > URI_TEXT_MAX)
			return -ENAMETOOLONG;
		len += (size_t)snprintf(
		    uri + len, URI_TEXT_MAX - len, plain ? "%c" : "%%%02X", (unsigned char)*path);
	}
	return 0;
}

static int set_path(struct exporter *ex, const char *text, struct err *err)
{
	char *path = realpath(text, NULL);
	struct stat st;
	int rc;

	if (!path || stat(path, &st)) {
		rc = err_sys(err, -errno, "%s", text);
		free(path);
		return rc;
	}
	if (S_ISDIR(st.st_mode)) {
		free(path);
		return err_set(err, -EISDIR,
		    "%s is a directory: name one file in it (a whole pool is served by remramd --nbd)",
		    text);
	}
	rc = path_uri(path, ex->uri);
	snprintf(ex->name, sizeof(ex->name), "%s", strrchr(path, '/') + 1);
	ex->path = path;
	return rc ? err_set(err, rc, "%s: the path is too long", text) : 0;
}

static void name_of_uri(const char *uri, char name[POOL_NAME_MAX + 1])
{
	size_t len = strcspn(uri, "?"), start = len;

	while (start && uri[start - 1] != '/' && uri[start - 1] != ':')
		start--;
	if (start == len) {
		start = 0;
		len = strcspn(uri, ":");
	}
	snprintf(name, POOL_NAME_MAX + 1, "%.*s", (int)(len - start), uri + start);
}

/* remram://HOST/POOL, HOST:/POOL: what mounts name. */
static bool names_donor(const char *text)
{
	return strncmp(text, "remram://", 9) == 0 || (!uri_is(text) && strstr(text, ":/"));
}

static int set_source(
    struct exporter *ex, const struct export_args *args, const char *text, struct err *err)
{
	int rc = 0;

	if (access(text, F_OK) && names_donor(text))
		return err_set(err, -EINVAL,
		    "%.200s names a donor's pool: let the donor serve its regions (remramd --nbd), or mount "
		    "the pool and export a file of it",
		    text);
	if (uri_is(text) && access(text, F_OK)) {
		if (strlen(text) >= sizeof(ex->uri))
			return err_set(
			    err, -EINVAL, "the URI is longer than %d bytes", URI_TEXT_MAX - 1);
		strcpy(ex->uri, text);
		name_of_uri(text, ex->name);
	} else {
		rc = set_path(ex, text, err);
	}
	if (rc == 0 && args->name) {
		rc = pool_check_name(args->name, strlen(args->name));
		if (rc)
			return err_set(err, rc,
			    "\"%.80s\" cannot be an export's name: 1 to %d bytes without a '/'",
			    args->name, POOL_NAME_MAX);
		strcpy(ex->name, args->name);
	}
	return rc;
}

/* ---- serving ---- */

static void mode_set(struct pool_req *req, int err)
{
	req->err = err;
}

static int open_pool(struct exporter *ex, const struct export_args *args, struct err *err)
{
	const struct local_pool_conf conf = {.name = ex->name, .uri = ex->uri, .single = true};
	int rc = local_pool_create(&conf, ex->workers, &ex->pool, err);

	if (rc == 0 && args->read_only) {
		struct pool_req req = {.op = POOL_SETATTR,
		    .session = 1,
		    .id = 2, /* the one region of such a pool (core/backend.h) */
		    .set = POOL_SET_MODE,
		    .attr.mode = 0400,
		    .done = mode_set};

		pool_submit(ex->pool, &req); /* done at once: there is no catalogue */
		rc = req.err ? err_sys(err, req.err, "%s", ex->uri) : 0;
	}
	return rc;
}

/* After the pool: it keeps the file open. */
static int open_residence(struct exporter *ex, struct err *err)
{
	struct err why;
	int rc;

	if (!ex->path)
		return 0;
	rc = file_residence_create(ex->path, &ex->residence, &why);
	if (rc)
		*err = why;
	else if (why.code)
		log_warn("%s; clients are not told what of it is resident or dirty", why.text);
	return rc;
}

static unsigned processors(void)
{
	cpu_set_t set;
	int count = sched_getaffinity(0, sizeof(set), &set) ? 1 : CPU_COUNT(&set);

	return count < THREADS_MAX ? (unsigned)count : THREADS_MAX;
}

static int start(
    struct exporter *ex, const struct export_args *args, const char *source, struct err *err)
{
	struct server_conf conf = {
	    .threads = args->threads ? args->threads : processors(),
	    .spin_us = args->spin_us,
	    .pools = &ex->pool,
	    .pool_count = 1,
	};
	int rc = set_source(ex, args, source, err);

	ex->addresses = calloc(ADDRESSES_MAX, sizeof(ex->addresses[0]));
	if (!ex->addresses)
		return err_set(err, -ENOMEM, "out of memory");
	for (unsigned i = 0; i < args->nbd.count && rc == 0; i++)
		rc = address_add(ex->addresses, &ex->address_count, args->nbd.items[i], &rules,
		    args->insecure, err);
	if (rc == 0)
		rc = workers_create(WORKERS, &ex->workers, err);
	if (rc == 0)
		rc = open_pool(ex, args, err);
	if (rc == 0)
		rc = open_residence(ex, err);
	conf.residence = ex->residence;
	if (rc == 0)
		rc = server_create(&conf, &ex->server, err);
	for (unsigned i = 0; i < ex->address_count && rc == 0; i++)
		rc = server_listen(ex->server, SERVER_NBD, &ex->addresses[i], err);
	if (rc == 0)
		rc = server_start(ex->server, err);
	return rc;
}

static void finish(struct exporter *ex)
{
	server_destroy(ex->server);
	file_residence_destroy(ex->residence);
	if (ex->pool)
		pool_destroy(ex->pool);
	workers_destroy(ex->workers);
}

static int serve(const struct export_args *args, const char *source)
{
	struct exporter ex = {0};
	struct err err = {0};
	sigset_t signals;
	bool clean = true;
	int sig, rc;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	log_set_level((enum log_level)args->log);
	rc = log_start(false, &err);
	if (rc == 0)
		rc = start(&ex, args, source, &err);
	if (rc == 0) {
		log_info("\"%s\" is exported as \"%s\"", source, ex.name);
		if (args->ready_fd) {
			(void)!write((int)args->ready_fd, "ready\n", 6);
			close((int)args->ready_fd);
		}
		sigwait(&signals, &sig);
		log_info("%s: finishing what is in flight", strsignal(sig));
		clean = server_stop(ex.server);
	}
	if (clean)
		finish(&ex);
	else
		log_error("requests were still in flight after a long wait");
	free(ex.addresses);
	free(ex.path);
	log_stop();
	if (rc)
		return cmd_fail(EXIT_START, &err);
	return clean ? 0 : EXIT_START;
}

static int usage(bool asked)
{
	FILE *out = asked ? stdout : stderr;

	fputs(
	    "usage: remram export SOURCE --nbd ADDR:PORT|unix:PATH … [options]\n"
	    "Serves one region over NBD until SIGTERM or SIGINT. SOURCE is a file (one of a mount,\n"
	    "too), a block device, or a URI such as memory:?size=1G.\n\n",
	    out);
	opts_print_help(cmd_export_options, OPT_IN_ARGV, out);
	return asked ? 0 : EXIT_USAGE;
}

int cmd_export(int argc, char **argv)
{
	struct export_args args = {0};
	struct opts opts;
	struct err err;
	int operands, rc;

	opts_init(&opts, cmd_export_options, &args);
	rc = opts_argv(&opts, argc, argv, &operands, &err);
	if (rc)
		rc = cmd_fail(EXIT_USAGE, &err);
	else if (args.help || operands != 1)
		rc = usage(args.help);
	else if (args.nbd.count == 0)
		rc = cmd_fail(EXIT_USAGE, (err_set(&err, -EINVAL,
					       "where to serve it? give --nbd 127.0.0.1 or "
					       "--nbd unix:/run/region.sock"),
					      &err));
	else
		rc = serve(&args, argv[1]);
	opts_free(cmd_export_options, &args);
	return rc;
}
