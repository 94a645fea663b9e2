/* SPDX-License-Identifier: Apache-2.0
 *
 * The settings of one mount: what the command line says, checked.
 */
#ifndef REMRAM_MOUNT_CONF_H
#define REMRAM_MOUNT_CONF_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/err.h"
#include "core/log.h"
#include "core/opts.h"
#include "core/cache.h"
#include "core/pool.h"
#include "core/pull_order.h"
#include "core/puller.h"
#include "mount/source.h"

enum {
	MOUNT_LOOPS_MAX = 16, /* loop= options of one mount */
	MOUNT_LSM_MAX = 1024, /* bytes of context=… and the like */
	MOUNT_RUN_DIR_MAX = 96, /* bytes of run_dir: run_dir/control fits a socket address */
	MOUNT_SWAP_MIN = 1 << 20, /* smallest swap region, bytes */
	MOUNT_PRIO_NONE = 65535, /* no prio= given: the kernel chooses */
	MOUNT_PRIO_MAX = 32767,
	MOUNT_ORDER_MAX = 256, /* ranges of pull_order= */
	MOUNT_CACHE_MIN = 16 << 20, /* smallest cache_size, bytes */
};

struct mount_conf {
	struct mount_source source;
	char dir[PATH_MAX]; /* the mount point: absolute, no symlinks */
	/* /run/remram/ID: exists when serve() is called; the control socket is run_dir/control. */
	char run_dir[MOUNT_RUN_DIR_MAX];

	/* How the mount behaves. */
	bool read_only;
	bool shared; /* writes beside other clients, without leases */
	bool soft; /* a lost donor fails requests after timeo_ms; else they wait */
	uint64_t timeo_ms;
	uint64_t attr_timeout_ms; /* how long the kernel may trust names and attributes */
	uint32_t max_background; /* 1 … 1024 */
	uint64_t read_ahead; /* bytes, a multiple of 4096; 0: none */
	uint32_t conns; /* connections to a donor, 1 … SOURCE_CONNS_MAX */
	uint32_t spin_us;
	bool lock_memory; /* the daemon locks itself into memory: set by swap, loop and mlock */
	unsigned long mount_flags; /* MS_RDONLY, MS_NOSUID, MS_NOATIME, …: for mount(2) */
	/* "context=…,fscontext=…": for mount(2)'s data; "" if none. */
	char lsm_options[MOUNT_LSM_MAX];

	/* Local copies (core/managed.h). */
	char *cache; /* "memory", or a directory's path; NULL: none */
	uint64_t cache_size; /* bytes; 0: no bound */
	enum pull_mode pull;
	uint64_t
	    pull_first; /* bytes of each region that are local before the mount is ready; 0: none */
	uint32_t pull_first_pct; /* the same in hundredths of its size; 0: none */
	struct pull_range order[MOUNT_ORDER_MAX];
	unsigned order_count;
	uint64_t pull_window; /* bytes */
	uint64_t push_interval_ms, max_dirty_age_ms;
	uint64_t max_dirty; /* bytes */
	enum cache_durability durability;

	/* The process. */
	bool foreground;
	enum log_level log;

	/* What the command attaches once the mount answers. */
	char *swap; /* region name; NULL: none */
	uint64_t swap_size; /* bytes; 0: not given */
	uint32_t swap_prio; /* 0 … MOUNT_PRIO_MAX, or MOUNT_PRIO_NONE */
	bool swap_discard;
	char loops[MOUNT_LOOPS_MAX][POOL_NAME_MAX + 1]; /* region names */
	unsigned loop_count;

	struct opts opts; /* private: which options were given */
};

/* The defaults: everything that can be left out.  The struct must not be copied afterwards. */
void mount_conf_init(struct mount_conf *conf);
void mount_conf_fini(struct mount_conf *conf);

/* Applies the text of one -o, "a,b=c,…".  -EINVAL: err names the option, and the nearest known one. */
int mount_conf_options(struct mount_conf *conf, const char *options, struct err *err);

/* Checks what only shows when all options are known, and fills in what follows from them.  Call it
 * once, after the last mount_conf_options. */
int mount_conf_finish(struct mount_conf *conf, struct err *err);

/* Prints the table of options for --help, or as mdoc(7) source for the man page. */
void mount_conf_help(FILE *out);
void mount_conf_mdoc(FILE *out);

#endif
