/* SPDX-License-Identifier: Apache-2.0
 *
 * The socket on which the proxy accepts, which is open only while connections are welcome: a connect is
 * refused otherwise.
 */
#ifndef REMRAM_TESTS_TOOLS_PROXY_LISTENER_H
#define REMRAM_TESTS_TOOLS_PROXY_LISTENER_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/tools/net.h"

/* Settings, which commands change; listener_adapt must follow. */
struct listener_conf {
	bool refused;
	uint64_t most; /* connections; 0: no limit */
};

extern struct listener_conf listener_conf;

/* Listens at an address. 0 or -errno. */
int listener_open(const struct net_address *addr);

/* The one that the kernel chose, if the address's was 0. */
unsigned listener_port(void);

/* Listens if it should, and closes the socket if not. 0 or -errno. */
int listener_adapt(void);

bool listener_is_open(void);

#endif
