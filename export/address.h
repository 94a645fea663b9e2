/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses to listen on, as people write them: ADDR[:PORT] (IPv4, IPv6 in brackets, a host name), and
 * where a protocol has them, Unix sockets: unix:PATH.
 *
 * Connections are not encrypted and not authenticated, so an address that is not a loopback one is refused
 * unless the administrator has said that the network can be trusted (insecure).  A Unix socket is made
 * with mode 0600.
 */
#ifndef REMRAM_EXPORT_ADDRESS_H
#define REMRAM_EXPORT_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/err.h"

enum { ADDRESSES_MAX = 64 /* of one kind, after names are resolved */ };

struct address {
	const char *text; /* as it was written, for messages: "localhost:10819"; borrowed */
	struct sockaddr_storage addr; /* AF_INET, AF_INET6 or AF_UNIX */
	socklen_t addr_len;
};

/* What may be written, and what is meant where something is left out. */
struct address_rules {
	uint16_t port; /* if none is given */
	bool may_be_unix;
};

/* Whether text is well-formed: 0, or -EINVAL with err set.  Resolves nothing. */
int address_check(const char *text, const struct address_rules *rules, struct err *err);

/* Resolves text (this may take a while) and adds what it means to list, which has room for ADDRESSES_MAX,
 * unless it is there already. */
int address_add(struct address *list, unsigned *count, const char *text,
    const struct address_rules *rules, bool insecure, struct err *err);

#endif
