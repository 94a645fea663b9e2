/* SPDX-License-Identifier: Apache-2.0
 *
 * The settings of one mount: the table of options for -o, and the checks that need several of them.
 *
 * Besides its own options the table knows what mount(8) and people's fstab lines pass to every file
 * system: the flags of mount(2), which are handed on, and words that mean something to others
 * (_netdev, nofail, x-*), which are passed over.  libmount takes "loop=" for itself and tries to put
 * the source on a loop device; hence "attach=", the same under a name that reaches us.  So it does with "shared",
 * which it takes for the mount's propagation; hence "nolease".
 */
#include "mount/conf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "core/store.h"
#include "core/uri.h"
#include "mount/runstate.h"

enum {
	READ_AHEAD_MAX = 256 << 20,
	SPIN_US_MAX = 1000,
	MAX_BACKGROUND_MAX = 1024,
};

static int set_flag(void *conf, const struct opt *opt, const char *value, struct err *err)
{
	((struct mount_conf *)conf)->mount_flags |= (unsigned)opt->value;
	return 0;
}

static int clear_flag(void *conf, const struct opt *opt, const char *value, struct err *err)
{
	((struct mount_conf *)conf)->mount_flags &= ~(unsigned long)(unsigned)opt->value;
	return 0;
}

static int refuse_remount(void *conf, const struct opt *opt, const char *value, struct err *err)
{
	return err_set(err, -EINVAL, "is not possible: unmount, and mount with the new options");
}

static int refuse_times(void *conf, const struct opt *opt, const char *value, struct err *err)
{
	return err_set(err, -EINVAL, "is not possible: the donor keeps the times");
}

/* May the region be put on a loop device? */
static int check_region(const char *name, struct err *err)
{
	if (pool_check_name(name, strlen(name)) || strchr(name, '/'))
		return err_set(err, -EINVAL,
		    "no region can have this name (1 to %d bytes, no '/', not . or ..)",
		    POOL_NAME_MAX);
	if (!runstate_name_ok(name))
		return err_set(err, -EINVAL,
		    "a region of this name cannot be attached, as a file of the mount's own has it "
		    "under /run/remram: rename the region");
	return 0;
}

static int add_loop(void *ctx, const struct opt *opt, const char *value, struct err *err)
{
	struct mount_conf *conf = ctx;
	int res = check_region(value, err);
	unsigned i;

	if (res)
		return res;
	for (i = 0; i < conf->loop_count; i++) {
		if (!strcmp(conf->loops[i], value))
			return 0;
	}
	if (conf->loop_count == MOUNT_LOOPS_MAX)
		return err_set(err, -EINVAL, "can be given %d times at most", MOUNT_LOOPS_MAX);
	strcpy(conf->loops[conf->loop_count++], value);
	return 0;
}

static int check_cache_path(const char *value, struct err *err)
{
	if (value[0] == '/' || !strcmp(value, "memory"))
		return 0;
	return err_set(
	    err, -EINVAL, "'%s' is neither 'memory' nor a directory's path from '/' on", value);
}

static int add_lsm_option(void *ctx, const struct opt *opt, const char *value, struct err *err)
{
	struct mount_conf *conf = ctx;
	size_t len = strlen(conf->lsm_options), room = sizeof(conf->lsm_options) - len;

	if ((size_t)snprintf(
		conf->lsm_options + len, room, "%s%s=%s", len ? "," : "", opt->name, value) >= room)
		return err_set(err, -EINVAL, "is too long");
	return 0;
}

/* SIZE or N% of each region. */
static int set_pull_first(void *ctx, const struct opt *opt, const char *value, struct err *err)
{
	struct mount_conf *conf = ctx;
	size_t digits = strspn(value, "0123456789");

	conf->pull_first = conf->pull_first_pct = 0;
	if (digits && digits <= 3 && strcmp(value + digits, "%") == 0) {
		conf->pull_first_pct = (uint32_t)strtoul(value, NULL, 10);
		if (conf->pull_first_pct >= 1 && conf->pull_first_pct <= 100)
			return 0;
	} else if (size_parse(value, &conf->pull_first) == 0 && conf->pull_first) {
		return 0;
	}
	return err_set(err, -EINVAL, "'%s' is neither a size nor 1%% to 100%%", value);
}

/* A comma ends a mount option: ranges are separated by '+', and the option can be repeated. */
static int add_order(void *ctx, const struct opt *opt, const char *value, struct err *err)
{
	struct mount_conf *conf = ctx;
	char text[1024];
	unsigned count;
	int rc;

	if (strlen(value) >= sizeof(text))
		return err_set(err, -EINVAL, "is too long: repeat it");
	strcpy(text, value);
	for (char *pos = text; (pos = strchr(pos, '+'));)
		*pos = ',';
	rc = pull_order_parse(text, conf->order + conf->order_count,
	    MOUNT_ORDER_MAX - conf->order_count, &count, err);
	if (rc == 0)
		conf->order_count += count;
	return rc;
}

static const struct opt_choice pulls[] = {
    {"all", PULL_ALL}, {"sequential", PULL_SEQUENTIAL}, {"none", PULL_NONE}, {NULL, 0}};

static const struct opt_choice durabilities[] = {
    {"remote", CACHE_REMOTE}, {"local", CACHE_LOCAL}, {"none", CACHE_NONE}, {NULL, 0}};

static const struct opt_choice log_levels[] = {{"error", LOG_LEVEL_ERROR}, {"warn", LOG_LEVEL_WARN},
    {"info", LOG_LEVEL_INFO}, {"debug", LOG_LEVEL_DEBUG}, {NULL, 0}};

/* clang-format off */
#define AT(member) OPT_AT(struct mount_conf, member)
#define LSM(option) {.name = (option), .type = OPT_CALL, .placeholder = "LABEL", .call = add_lsm_option}
#define SET(option, flag) {.name = (option), .type = OPT_CALL, .call = set_flag, .value = (int)(flag)}
#define CLEAR(option, flag) {.name = (option), .type = OPT_CALL, .call = clear_flag, .value = (int)(flag)}
#define REFUSE(option) {.name = (option), .type = OPT_CALL, .call = refuse_times}
#define IGNORE(option) {.name = (option), .type = OPT_IGNORE}

static const struct opt table[] = {
	{.type = OPT_HEADING, .help = "Swap and loop devices"},
	{.name = "swap", .type = OPT_STRING, .placeholder = "NAME", .check = check_region, AT(swap),
	 .help = "use region NAME as swap; it is made if it is not there"},
	{.name = "size", .type = OPT_SIZE, .placeholder = "SIZE", .min = MOUNT_SWAP_MIN, AT(swap_size),
	 .help = "size of a new swap region, a multiple of 4K"},
	{.name = "prio", .type = OPT_UINT, .placeholder = "N", .max = MOUNT_PRIO_MAX, AT(swap_prio),
	 .def_help = "the kernel chooses", .help = "priority of the swap"},
	{.name = "discard", .type = OPT_FLAG, AT(swap_discard),
	 .help = "give memory back to the donor as swap empties"},
	{.name = "loop", .type = OPT_CALL, .placeholder = "NAME", .call = add_loop,
	 .help = "put region NAME on a loop device; repeatable; through mount(8) write attach=NAME"},
	{.name = "attach", .type = OPT_CALL, .placeholder = "NAME", .call = add_loop,
	 .help = "the same as loop=NAME, under a name that mount(8) does not take for itself"},
	{.name = "mlock", .type = OPT_FLAG, AT(lock_memory),
	 .help = "keep all of the daemon in memory; implied by swap and loop"},

	{.type = OPT_HEADING, .help = "Other clients"},
	{.name = "shared", .type = OPT_CONST, .value = 1, AT(shared),
	 .help = "several such mounts may write to a region at once; otherwise one mount does at a time; "
		 "through mount(8) write nolease"},
	{.name = "nolease", .type = OPT_CONST, .value = 1, AT(shared),
	 .help = "the same as shared, under a name that mount(8) does not take for itself"},

	{.type = OPT_HEADING, .help = "Local copies"},
	{.name = "cache", .type = OPT_STRING, .placeholder = "WHERE", .min = 1, .max = PATH_MAX - 1,
	 .check = check_cache_path, AT(cache),
	 .help = "keep copies of regions that are used: in 'memory', or in the directory with this path, "
		 "which survives the mount"},
	{.name = "cache_size", .type = OPT_SIZE, .placeholder = "SIZE", .min = MOUNT_CACHE_MIN, AT(cache_size),
	 .def_help = "no bound", .help = "most bytes of copies"},
	{.name = "pull", .type = OPT_ENUM, .placeholder = "WHAT", .def = "sequential", .choices = pulls, AT(pull),
	 .help = "what is fetched ahead: all of a region that was opened, what sequential readers are about "
		 "to want, or none"},
	{.name = "pull_first", .type = OPT_CALL, .placeholder = "SIZE", .call = set_pull_first,
	 .help = "with pull=all: the mount is ready when so much (or N%) of each region is local"},
	{.name = "pull_order", .type = OPT_CALL, .placeholder = "RANGES", .call = add_order,
	 .help = "what is fetched first: FROM-TO:PRIORITY+FROM-TO:PRIORITY, as in 0-64M:10+960M-:9; repeatable"},
	{.name = "pull_window", .type = OPT_SIZE, .placeholder = "SIZE", .def = "32M", .min = 1 << 20,
	 .max = 1 << 30, AT(pull_window), .help = "most bytes on their way here"},
	{.name = "push_interval", .type = OPT_DURATION, .placeholder = "TIME", .def = "1s",
	 .max = 3600 * 1000, AT(push_interval_ms), .help = "how long what was written waits for more"},
	{.name = "max_dirty", .type = OPT_SIZE, .placeholder = "SIZE", .def = "256M", .min = 1 << 20,
	 AT(max_dirty), .help = "writers are slowed when so much is not at the donor"},
	{.name = "max_dirty_age", .type = OPT_DURATION, .placeholder = "TIME", .def = "30s", .min = 1000,
	 .max = 24 * 3600 * 1000, AT(max_dirty_age_ms),
	 .help = "writers wait while anything is older that is not at the donor"},
	{.name = "durability", .type = OPT_ENUM, .placeholder = "WHERE", .def = "remote",
	 .choices = durabilities, AT(durability),
	 .help = "where data is when fsync returns: at the donor, in the local cache directory, or none promised"},

	{.type = OPT_HEADING, .help = "When the donor is lost"},
	{.name = "hard", .type = OPT_CONST, .value = 0, AT(soft),
	 .help = "requests wait until it is back (the default)"},
	{.name = "soft", .type = OPT_CONST, .value = 1, AT(soft),
	 .help = "requests fail after timeo"},
	{.name = "timeo", .type = OPT_DURATION, .placeholder = "TIME", .def = "30s", .min = 100,
	 .max = 24 * 3600 * 1000, AT(timeo_ms), .help = "how long requests wait with soft"},

	{.type = OPT_HEADING, .help = "Speed"},
	{.name = "read_ahead", .type = OPT_SIZE, .placeholder = "SIZE", .def = "4M",
	 .max = READ_AHEAD_MAX, AT(read_ahead), .help = "how far sequential reads run ahead (direct ones: to 1 MiB; 0: not at all)"},
	{.name = "max_background", .type = OPT_UINT, .placeholder = "N", .def = "256", .min = 1,
	 .max = MAX_BACKGROUND_MAX, AT(max_background), .help = "requests that may be in flight"},
	{.name = "spin_us", .type = OPT_UINT, .placeholder = "N", .def = "30", .max = SPIN_US_MAX,
	 .unit = "µs", AT(spin_us), .help = "how long to poll before sleeping, while that pays"},
	{.name = "attr_timeout", .type = OPT_DURATION, .placeholder = "TIME", .def = "1s",
	 .max = 3600 * 1000, AT(attr_timeout_ms),
	 .help = "how long names, sizes and modes may be out of date"},

	{.type = OPT_HEADING, .help = "The mount"},
	{.name = "ro", .type = OPT_CALL, .call = set_flag, .value = MS_RDONLY, .help = "read-only"},
	CLEAR("rw", MS_RDONLY),
	{.name = "log", .type = OPT_ENUM, .placeholder = "LEVEL", .def = "info", .choices = log_levels,
	 AT(log), .help = "what the daemon writes to the system log"},

	SET("nosuid", MS_NOSUID), CLEAR("suid", MS_NOSUID),
	SET("nodev", MS_NODEV), CLEAR("dev", MS_NODEV),
	SET("noexec", MS_NOEXEC), CLEAR("exec", MS_NOEXEC),
	SET("noatime", MS_NOATIME), CLEAR("atime", MS_NOATIME),
	REFUSE("strictatime"), REFUSE("lazytime"),
	SET("sync", MS_SYNCHRONOUS), CLEAR("async", MS_SYNCHRONOUS),
	SET("dirsync", MS_DIRSYNC),
	LSM("context"), LSM("fscontext"), LSM("defcontext"), LSM("rootcontext"),
	{.name = "remount", .type = OPT_CALL, .call = refuse_remount},

	IGNORE("defaults"), IGNORE("auto"), IGNORE("noauto"), IGNORE("fail"), IGNORE("nofail"),
	IGNORE("_netdev"), IGNORE("_rnetdev"), IGNORE("user"), IGNORE("nouser"), IGNORE("users"),
	IGNORE("owner"), IGNORE("noowner"), IGNORE("group"), IGNORE("nogroup"), IGNORE("comment"),
	IGNORE("x-*"), IGNORE("X-*"), IGNORE("helper"), IGNORE("uhelper"), IGNORE("mand"),
	IGNORE("nomand"), IGNORE("iversion"), IGNORE("noiversion"), IGNORE("acl"), IGNORE("noacl"),
	IGNORE("quiet"),
	/* What is so anyway, or has nothing to act on: there are no symbolic links in a pool, and nobody keeps
	 * its directory's atime. */
	IGNORE("nodiratime"), IGNORE("diratime"),
	IGNORE("relatime"), IGNORE("norelatime"), IGNORE("nostrictatime"), IGNORE("nolazytime"),
	IGNORE("nosymfollow"), IGNORE("symfollow"), IGNORE("silent"), IGNORE("loud"),
	/* What a FUSE mount of root's always has. */
	IGNORE("allow_other"), IGNORE("default_permissions"), IGNORE("fsname"), IGNORE("subtype"),
	{.type = OPT_END},
};
/* clang-format on */

void mount_conf_init(struct mount_conf *conf)
{
	memset(conf, 0, sizeof(*conf));
	opts_init(&conf->opts, table, conf);
	conf->swap_prio = MOUNT_PRIO_NONE;
	/* Whoever can put bytes into a pool must not become root on its clients. */
	conf->mount_flags = MS_NOSUID | MS_NODEV;
}

void mount_conf_fini(struct mount_conf *conf)
{
	opts_free(table, conf);
}

int mount_conf_options(struct mount_conf *conf, const char *options, struct err *err)
{
	return opts_mount(&conf->opts, options, err);
}

static int check_cache(const struct mount_conf *conf, struct err *err)
{
	static const char *const cache_only[] = {"cache_size", "pull", "pull_first", "pull_order",
	    "pull_window", "push_interval", "max_dirty", "max_dirty_age", "durability"};
	unsigned i;

	for (i = 0; !conf->cache && i < sizeof(cache_only) / sizeof(cache_only[0]); i++)
		if (opts_given(&conf->opts, cache_only[i]))
			return err_set(err, -EINVAL,
			    "option '%s' needs cache=memory or cache=DIRECTORY", cache_only[i]);
	if (!conf->cache)
		return 0;
	if (conf->shared)
		return err_set(err, -EINVAL,
		    "options 'cache' and 'shared' exclude each other: a copy of what others write at any "
		    "time cannot be kept right; mount one writer with cache=, or all without it");
	if (conf->swap || conf->loop_count)
		return err_set(err, -EINVAL,
		    "options 'cache' and '%s' exclude each other: the copy would need the memory that "
		    "swap is to free, and a loop device has a page cache of its own; use a mount "
		    "without cache= (the same pool can be mounted twice)",
		    conf->swap ? "swap" : "loop");
	if (conf->durability == CACHE_LOCAL && !strcmp(conf->cache, "memory"))
		return err_set(err, -EINVAL,
		    "option 'durability=local' needs cache=DIRECTORY: what is in memory is lost with "
		    "the mount");
	if ((conf->pull_first || conf->pull_first_pct) && conf->pull != PULL_ALL)
		return err_set(err, -EINVAL, "option 'pull_first' needs pull=all");
	return 0;
}

/* An option that means nothing without another one. */
static int check_needs(const struct mount_conf *conf, struct err *err)
{
	static const char *const swap_only[] = {"size", "prio", "discard"};
	unsigned i;

	for (i = 0; !conf->swap && i < sizeof(swap_only) / sizeof(swap_only[0]); i++) {
		if (opts_given(&conf->opts, swap_only[i]))
			return err_set(err, -EINVAL, "option '%s' needs swap=NAME", swap_only[i]);
	}
	if (!conf->soft && opts_given(&conf->opts, "timeo"))
		return err_set(err, -EINVAL,
		    "option 'timeo' needs 'soft': with 'hard' requests wait without end");
	return 0;
}

static int check_swap(const struct mount_conf *conf, struct err *err)
{
	unsigned i;

	if (conf->swap_size % STORE_BLOCK)
		return err_set(
		    err, -EINVAL, "option 'size': must be a multiple of %d bytes", STORE_BLOCK);
	if (conf->swap && conf->read_only)
		return err_set(err, -EINVAL, "options 'swap' and 'ro' exclude each other");
	for (i = 0; conf->swap && i < conf->loop_count; i++) {
		if (!strcmp(conf->swap, conf->loops[i]))
			return err_set(err, -EINVAL,
			    "region '%s' cannot be swap and have another loop device", conf->swap);
	}
	return 0;
}

int mount_conf_finish(struct mount_conf *conf, struct err *err)
{
	int res = check_needs(conf, err);

	conf->read_only = conf->mount_flags & MS_RDONLY;
	if (conf->swap || conf->loop_count)
		conf->lock_memory = true;
	conf->read_ahead -= conf->read_ahead % STORE_BLOCK;
	if (res == 0)
		res = check_swap(conf, err);
	if (res == 0)
		res = check_cache(conf, err);
	return res;
}

void mount_conf_help(FILE *out)
{
	opts_print_help(table, OPT_IN_MOUNT, out);
}

void mount_conf_mdoc(FILE *out)
{
	opts_print_mdoc(table, OPT_IN_MOUNT, out);
}
