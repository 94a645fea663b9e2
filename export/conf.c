/* SPDX-License-Identifier: Apache-2.0
 *
 * The donor daemon's settings.
 *
 * Three steps: the command line, then the file (core/opts keeps what the command line has set), then
 * what can only be checked as a whole: pool names are unique, addresses are resolved and are
 * loopback ones unless --insecure.  Each text is checked where it is read, so that its error names the
 * line of the file.
 *
 * "[pool NAME]" with "uri = URI" is another way to write "pool = NAME=URI": the section's end hands it
 * to the same option.
 */
#include "export/conf.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/uri.h"

enum { THREADS_MAX = 64 };

static const char name_chars[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

/* ---- pools --------------------------------------------------------------------------------------- */

static int check_pool_name(const char *name, size_t len, struct err *err)
{
	int cut = len < 80 ? (int)len : 80;

	if (!len)
		return err_set(err, -EINVAL, "a pool needs a name");
	if (len > REMRAMD_POOL_NAME_MAX)
		return err_set(err, -EINVAL, "pool name \"%.*s…\" is longer than %d bytes", cut,
		    name, REMRAMD_POOL_NAME_MAX);
	if (*name == '.')
		return err_set(err, -EINVAL, "pool name \"%.*s\" begins with a '.'", cut, name);
	if (strspn(name, name_chars) < len)
		return err_set(err, -EINVAL,
		    "pool name \"%.*s\" has other characters than letters, digits, '.', '_' and "
		    "'-'",
		    cut, name);
	return 0;
}

/* NAME=URI */
static int check_pool(const char *text, struct err *err)
{
	const char *equals = strchr(text, '=');
	struct uri *uri;
	int r;

	if (!equals || memchr(text, ':', (size_t)(equals - text)))
		return err_set(err, -EINVAL,
		    "\"%.200s\" is not NAME=URI, as in ram=memory:?size=1G or disk=file:/srv/pool",
		    text);
	r = check_pool_name(text, (size_t)(equals - text), err);
	if (r)
		return r;
	uri = malloc(sizeof(*uri));
	if (!uri)
		return err_sys(err, -ENOMEM, "cannot read a URI");
	r = uri_parse(equals + 1, uri, err);
	free(uri);
	return r;
}

/* Splits the texts, which are checked. */
static int make_pools(struct remramd_conf *conf, struct err *err)
{
	unsigned count = conf->pool_texts.count;

	if (!count)
		return err_set(err, -EINVAL,
		    "there is no pool to offer: give one, for example --pool "
		    "'ram=memory:?size=1G', or "
		    "write it into %s",
		    conf->config);
	conf->pools = calloc(count, sizeof(*conf->pools));
	if (!conf->pools)
		return err_sys(err, -ENOMEM, "cannot keep the pools");
	for (unsigned i = 0; i < count; i++) {
		const char *text = conf->pool_texts.items[i], *equals = strchr(text, '=');
		struct remramd_pool *pool = &conf->pools[i];
		pool->name = strndup(text, (size_t)(equals - text));
		pool->uri = strdup(equals + 1);
		conf->pool_count = i + 1;
		if (!pool->name || !pool->uri)
			return err_sys(err, -ENOMEM, "cannot keep the pools");
		for (unsigned j = 0; j < i; j++)
			if (!strcmp(conf->pools[j].name, pool->name))
				return err_set(err, -EINVAL,
				    "pool \"%s\" is given twice: as %.180s and %.180s", pool->name,
				    conf->pools[j].uri, pool->uri);
	}
	return 0;
}

/* ---- addresses ----------------------------------------------------------------------------------- */

static const struct address_rules listen_rules = {.port = REMRAMD_PORT};
static const struct address_rules nbd_rules = {.port = REMRAMD_NBD_PORT, .may_be_unix = true};

static int check_listen(const char *text, struct err *err)
{
	return address_check(text, &listen_rules, err);
}

static int check_nbd(const char *text, struct err *err)
{
	return address_check(text, &nbd_rules, err);
}

static int make_list(const struct opt_list *texts, const struct address_rules *rules, bool insecure,
    struct address **ret_list, unsigned *ret_count, struct err *err)
{
	int r = 0;

	*ret_list = calloc(ADDRESSES_MAX, sizeof(**ret_list));
	if (!*ret_list)
		return err_sys(err, -ENOMEM, "cannot keep the listen addresses");
	for (unsigned i = 0; i < texts->count && !r; i++)
		r = address_add(*ret_list, ret_count, texts->items[i], rules, insecure, err);
	return r;
}

static int make_addresses(struct remramd_conf *conf, struct err *err)
{
	int r = make_list(&conf->listen_texts, &listen_rules, conf->insecure, &conf->listen,
	    &conf->listen_count, err);

	if (!r)
		r = make_list(&conf->nbd_texts, &nbd_rules, conf->insecure, &conf->nbd,
		    &conf->nbd_count, err);
	return r;
}

/* ---- the table ----------------------------------------------------------------------------------- */

static const struct opt_choice log_choices[] = {
    {"error", LOG_LEVEL_ERROR},
    {"warn", LOG_LEVEL_WARN},
    {"info", LOG_LEVEL_INFO},
    {"debug", LOG_LEVEL_DEBUG},
    {NULL, 0},
};

const struct opt remramd_options[] = {
    {.type = OPT_HEADING, .help = "What is offered, and where"},
    {.name = "pool",
	.type = OPT_LIST,
	.placeholder = "NAME=URI",
	.max = REMRAMD_POOLS_MAX,
	.check = check_pool,
	.help = "a pool that clients can mount, and where its bytes live, as in "
		"ram=memory:?size=8G or disk=file:/srv/pool",
	OPT_AT(struct remramd_conf, pool_texts)},
    {.name = "listen",
	.type = OPT_LIST,
	.placeholder = "ADDR:PORT",
	.def = "127.0.0.1:10819",
	.max = REMRAMD_LISTEN_MAX,
	.check = check_listen,
	.help = "address to listen on: IPv4, IPv6 in brackets, or a host name",
	OPT_AT(struct remramd_conf, listen_texts)},
    {.name = "nbd",
	.type = OPT_LIST,
	.placeholder = "ADDR:PORT|unix:PATH",
	.max = REMRAMD_LISTEN_MAX,
	.check = check_nbd,
	.help = "address, or path of a Unix socket, where the regions are NBD exports, POOL/REGION "
		"(port 10809 if none is given)",
	OPT_AT(struct remramd_conf, nbd_texts)},
    {.name = "insecure",
	.type = OPT_FLAG,
	.help = "serve without encryption and authentication on other addresses than loopback ones",
	OPT_AT(struct remramd_conf, insecure)},
    {.type = OPT_HEADING, .help = "How it runs"},
    {.name = "state",
	.type = OPT_STRING,
	.placeholder = "DIR",
	.def = "/var/lib/remram",
	.min = 1,
	.help =
	    "directory for what must outlive the daemon: names and attributes of the regions of "
	    "pools that are not in memory",
	OPT_AT(struct remramd_conf, state)},
    {.name = "threads",
	.type = OPT_UINT,
	.placeholder = "N",
	.def = "0",
	.def_help = "0: one for each processor",
	.max = THREADS_MAX,
	.help = "event loops that serve connections",
	OPT_AT(struct remramd_conf, threads)},
    {.name = "workers",
	.type = OPT_UINT,
	.placeholder = "N",
	.def = "4",
	.min = 1,
	.max = THREADS_MAX,
	.help = "threads for calls that block, as on files",
	OPT_AT(struct remramd_conf, workers)},
    {.name = "spin_us",
	.type = OPT_UINT,
	.placeholder = "N",
	.unit = "µs",
	.def = "30",
	.max = 10000,
	.help = "how long a loop polls before it sleeps, if polling has lately paid",
	OPT_AT(struct remramd_conf, spin_us)},
    {.name = "lease",
	.type = OPT_DURATION,
	.placeholder = "TIME",
	.def = "30s",
	.min = 1000,
	.max = 3600 * 1000,
	.help =
	    "how long a client that is not heard of stays the only one that may write to what it "
	    "has open for writing",
	OPT_AT(struct remramd_conf, lease_ms)},
    {.name = "log",
	.type = OPT_ENUM,
	.placeholder = "LEVEL",
	.def = "info",
	.choices = log_choices,
	.help = "what is told",
	OPT_AT(struct remramd_conf, log)},
    {.type = OPT_HEADING, .help = "On the command line only"},
    {.name = "config",
	.type = OPT_STRING,
	.where = OPT_IN_ARGV,
	.placeholder = "FILE",
	.def_help = REMRAMD_CONF_FILE ", if there is one",
	.min = 1,
	.help = "read settings from FILE; those of the command line win",
	OPT_AT(struct remramd_conf, config)},
    {.name = "ready_fd",
	.type = OPT_UINT,
	.where = OPT_IN_ARGV,
	.placeholder = "N",
	.min = 1,
	.max = 65535,
	.help = "write a line to file descriptor N when the pools are served",
	OPT_AT(struct remramd_conf, ready_fd)},
    {.name = "help",
	.type = OPT_FLAG,
	.letter = 'h',
	.where = OPT_IN_ARGV,
	.help = "show this",
	OPT_AT(struct remramd_conf, help)},
    {.name = "version",
	.type = OPT_FLAG,
	.letter = 'V',
	.where = OPT_IN_ARGV,
	.help = "show the version",
	OPT_AT(struct remramd_conf, version)},
    {.type = OPT_END},
};

/* ---- the file ------------------------------------------------------------------------------------ */

struct pool_section {
	char *uri;
};

static const struct opt pool_section_options[] = {
    {.name = "uri",
	.type = OPT_STRING,
	.placeholder = "URI",
	.help = "where its bytes live",
	OPT_AT(struct pool_section, uri)},
    {.type = OPT_END},
};

struct file_reader {
	struct opts *opts;
	char name[REMRAMD_POOL_NAME_MAX + 1]; /* of the section that is open */
	struct pool_section section;
};

static int pool_begin(void *ctx, const char *arg, void **ret_conf, struct err *err)
{
	struct file_reader *reader = ctx;
	int r = check_pool_name(arg, strlen(arg), err);

	if (r)
		return r;
	snprintf(reader->name, sizeof(reader->name), "%s", arg);
	reader->section = (struct pool_section){0};
	*ret_conf = &reader->section;
	return 0;
}

static int pool_end(void *ctx, void *conf, struct err *err)
{
	struct file_reader *reader = ctx;
	struct pool_section *section = conf;
	char *text;
	int r;

	if (!section->uri)
		return err_set(err, -EINVAL, "the line \"uri = …\" is missing");
	if (asprintf(&text, "%s=%s", reader->name, section->uri) < 0)
		return err_sys(err, -ENOMEM, "cannot keep the pool");
	r = opts_set_file(reader->opts, "pool", text, err);
	free(text);
	return r;
}

static int read_file(struct opts *opts, const char *path, bool may_be_absent, struct err *err)
{
	struct file_reader reader = {.opts = opts};
	const struct opt_section sections[] = {
	    {.name = "pool",
		.table = pool_section_options,
		.begin = pool_begin,
		.end = pool_end,
		.ctx = &reader},
	    {.name = NULL},
	};
	int r = opts_file(opts, path, sections, err);

	return r == -ENOENT && may_be_absent ? 0 : r;
}

/* ---- all of it ----------------------------------------------------------------------------------- */

static unsigned processors(void)
{
	cpu_set_t set;
	long count;

	if (!sched_getaffinity(0, sizeof(set), &set))
		count = CPU_COUNT(&set);
	else
		count = sysconf(_SC_NPROCESSORS_ONLN);
	return count < 1 ? 1 : count > THREADS_MAX ? THREADS_MAX : (unsigned)count;
}

int remramd_conf_read(
    struct remramd_conf *ret_conf, int argc, char **argv, const char *default_file, struct err *err)
{
	struct remramd_conf *conf = ret_conf;
	struct opts opts;
	bool chosen;
	int r;

	memset(conf, 0, sizeof(*conf));
	opts_init(&opts, remramd_options, conf);
	r = opts_argv(&opts, argc, argv, NULL, err);
	if (r || conf->help || conf->version)
		return r;
	chosen = conf->config;
	if (!chosen) {
		conf->config = strdup(default_file);
		if (!conf->config)
			return err_sys(err, -ENOMEM, "cannot read %s", default_file);
	}
	r = read_file(&opts, conf->config, !chosen, err);
	if (!r)
		r = make_pools(conf, err);
	if (!r)
		r = make_addresses(conf, err);
	if (!r && !conf->threads)
		conf->threads = processors();
	return r;
}

void remramd_conf_fini(struct remramd_conf *conf)
{
	for (unsigned i = 0; i < conf->pool_count; i++) {
		free(conf->pools[i].name);
		free(conf->pools[i].uri);
	}
	free(conf->pools);
	free(conf->listen);
	free(conf->nbd);
	opts_free(remramd_options, conf);
	memset(conf, 0, sizeof(*conf));
}

void remramd_conf_print_help(FILE *out)
{
	fputs("usage: remramd --pool NAME=URI … [options]\n"
	      "Offers pools of memory (or of files) to remram clients.\n"
	      "\n",
	    out);
	opts_print_help(remramd_options, OPT_IN_ARGV, out);
	fputs("\n"
	      "Sizes take K, M, G, T (powers of 1024).  Example:\n"
	      "  remramd --pool 'ram=memory:?size=8G' --pool disk=file:/srv/pool\n",
	    out);
}
