/* SPDX-License-Identifier: Apache-2.0
 *
 * What the donor daemon was told: its command line and its configuration file, as one struct.
 *
 * Both are read by one table (remramd_options, core/opts.h).  What stands on the command line wins;
 * pools or listen addresses given there replace those of the file.
 */
#ifndef REMRAM_EXPORT_CONF_H
#define REMRAM_EXPORT_CONF_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/err.h"
#include "core/log.h"
#include "core/opts.h"
#include "export/address.h"

#define REMRAMD_CONF_FILE "/etc/remram/remramd.conf"

enum {
	REMRAMD_PORT = 10819, /* where a donor listens if nothing else is said */
	REMRAMD_NBD_PORT = 10809, /* IANA's for NBD */
	REMRAMD_POOL_NAME_MAX = 64, /* bytes */
	REMRAMD_POOLS_MAX = 256,
	REMRAMD_LISTEN_MAX = ADDRESSES_MAX,
};

/* A pool to offer: its name is 1 … REMRAMD_POOL_NAME_MAX bytes of [A-Za-z0-9._-], not beginning with
 * a '.', unique; its URI is well-formed, nobody has looked whether its scheme is known. */
struct remramd_pool {
	char *name;
	char *uri;
};

struct remramd_conf {
	/* For the daemon. */
	struct remramd_pool *pools; /* at least one */
	unsigned pool_count;
	struct address *listen; /* at least one; loopback only unless insecure */
	unsigned listen_count;
	struct address *nbd; /* the same for NBD; there may be none */
	unsigned nbd_count;
	char *state; /* directory of the catalogues; may not exist yet */
	int log; /* enum log_level */
	unsigned threads; /* event loops, ≥ 1 */
	unsigned workers; /* threads for calls that block, ≥ 1 */
	unsigned spin_us; /* see loop_conf */
	uint32_t lease_ms; /* see local_pool_conf */
	int ready_fd; /* a line is written there when the donor serves; 0: nowhere */
	bool insecure; /* plaintext on any address */
	/* If one of these is set, it is all that is wanted: nothing above was checked. */
	bool help;
	bool version;
	/* For conf.c. */
	char *config;
	struct opt_list pool_texts;
	struct opt_list listen_texts;
	struct opt_list nbd_texts;
};

extern const struct opt remramd_options[];

/* Reads argv and then the file: --config's, or default_file if there is one.  Resolves the names of
 * listen addresses, so it may take a while.  0, or -errno with err set; in both cases the caller
 * calls remramd_conf_fini. */
int remramd_conf_read(struct remramd_conf *ret_conf, int argc, char **argv,
    const char *default_file, struct err *err);
void remramd_conf_fini(struct remramd_conf *conf);

/* The text of --help. */
void remramd_conf_print_help(FILE *out);

#endif
