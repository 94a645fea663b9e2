/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses on the command line of a test tool. Errors end the program with TOOL_USAGE.
 */
#ifndef REMRAM_TESTS_TOOLS_NET_H
#define REMRAM_TESTS_TOOLS_NET_H

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/tools/tool.h"

struct net_address {
	struct sockaddr_storage addr;
	socklen_t len;
};

/* "ADDR:PORT" or "[ADDR6]:PORT"; names are resolved. */
static inline struct net_address net_parse(const char *text)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
	struct net_address address = {0};
	const char *colon = strrchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : 0;
	char host[256];

	if (len == 0 || len >= sizeof(host)) {
		fprintf(stderr, "%s: not ADDRESS:PORT\n", text);
		exit(TOOL_USAGE);
	}
	if (text[0] == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
	}
	memcpy(host, text, len);
	host[len] = '\0';
	if (getaddrinfo(host, colon + 1, &hints, &found) != 0) {
		fprintf(stderr, "%s:%s: no such address\n", host, colon + 1);
		exit(TOOL_USAGE);
	}
	memcpy(&address.addr, found->ai_addr, found->ai_addrlen);
	address.len = found->ai_addrlen;
	freeaddrinfo(found);
	return address;
}

static inline struct sockaddr_un net_unix(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(addr.sun_path)) {
		fprintf(stderr, "%s: too long for a socket\n", path);
		exit(TOOL_USAGE);
	}
	memcpy(addr.sun_path, path, strlen(path) + 1);
	return addr;
}

#endif
