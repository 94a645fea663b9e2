/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses to listen on (see address.h).
 */
#include "export/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "core/conn.h"

enum { HOST_MAX = 256 };

/* Splits ADDR[:PORT]; ret_host has HOST_MAX bytes. */
static int split_address(
    const char *text, uint16_t default_port, char *ret_host, uint16_t *ret_port, struct err *err)
{
	const char *host = text, *behind;
	unsigned port = default_port;
	size_t len;

	if (*text == '[') {
		host++;
		len = strcspn(host, "]");
		if (host[len] != ']')
			return err_set(err, -EINVAL, "\"%.200s\": the ']' is missing", text);
		behind = host + len + 1;
	} else {
		len = strcspn(host, ":");
		behind = host + len;
		if (*behind && strchr(behind + 1, ':'))
			return err_set(err, -EINVAL,
			    "\"%.200s\": an IPv6 address must stand in brackets, as in [::1]:%d",
			    text, default_port);
	}
	if (!len)
		return err_set(err, -EINVAL,
		    "\"%.200s\" has no address before the port (all addresses are 0.0.0.0 or [::])",
		    text);
	if (len >= HOST_MAX)
		return err_set(err, -EINVAL, "\"%.200s…\": the host name is too long", text);
	if (*behind) {
		const char *p = behind + 1;
		for (port = 0; *p >= '0' && *p <= '9' && port <= UINT16_MAX; p++)
			port = port * 10 + (unsigned)(*p - '0');
		if (*behind != ':' || *p || !port || port > UINT16_MAX)
			return err_set(err, -EINVAL,
			    "\"%.200s\" is not ADDR:PORT: the port is a number from 1 to 65535",
			    text);
	}
	memcpy(ret_host, host, len);
	ret_host[len] = '\0';
	*ret_port = (uint16_t)port;
	return 0;
}

static const char *unix_path(const char *text, const struct address_rules *rules)
{
	return rules->may_be_unix && !strncmp(text, "unix:", 5) ? text + 5 : NULL;
}

static int check_unix(const char *text, const char *path, struct err *err)
{
	const struct sockaddr_un *sun = NULL;

	if (!*path)
		return err_set(
		    err, -EINVAL, "\"%.200s\" has no path, as in unix:/run/remram/nbd", text);
	if (strlen(path) >= sizeof(sun->sun_path))
		return err_set(err, -EINVAL, "\"%.200s\": a socket's path has at most %zu bytes",
		    text, sizeof(sun->sun_path) - 1);
	return 0;
}

int address_check(const char *text, const struct address_rules *rules, struct err *err)
{
	const char *path = unix_path(text, rules);
	char host[HOST_MAX];
	struct in6_addr in6;
	uint16_t port;
	int r =
	    path ? check_unix(text, path, err) : split_address(text, rules->port, host, &port, err);

	if (r || path || *text != '[')
		return r;
	host[strcspn(host, "%")] = '\0';
	if (inet_pton(AF_INET6, host, &in6) != 1)
		return err_set(
		    err, -EINVAL, "\"%.200s\": \"%s\" is not an IPv6 address", text, host);
	return 0;
}

/* Adds one resolved address of `text`. */
static int add_address(struct address *list, unsigned *count, const struct address *address,
    bool insecure, struct err *err)
{
	if (!insecure && address->addr.ss_family != AF_UNIX &&
	    !conn_loopback((const struct sockaddr *)&address->addr))
		return err_set(err, -EINVAL,
		    "listen address %.200s is not a loopback address: whoever can reach it could read "
		    "and write all pools, because connections are not encrypted and not authenticated; "
		    "listen on 127.0.0.1 and reach it through a tunnel, or, in a network that you "
		    "trust, give --insecure (in the file: insecure = yes)",
		    address->text);
	/* A name can have the address of another, or one address twice. */
	for (unsigned i = 0; i < *count; i++)
		if (list[i].addr_len == address->addr_len &&
		    !memcmp(&list[i].addr, &address->addr, address->addr_len))
			return 0;
	if (*count == ADDRESSES_MAX)
		return err_set(err, -EINVAL, "more than %d addresses to listen on", ADDRESSES_MAX);
	list[(*count)++] = *address;
	return 0;
}

static int add_unix(struct address *list, unsigned *count, const char *text, const char *path,
    bool insecure, struct err *err)
{
	struct address address = {.text = text};
	struct sockaddr_un *sun = (struct sockaddr_un *)&address.addr;

	sun->sun_family = AF_UNIX;
	memcpy(sun->sun_path, path, strlen(path) + 1);
	address.addr_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1);
	return add_address(list, count, &address, insecure, err);
}

int address_add(struct address *list, unsigned *count, const char *text,
    const struct address_rules *rules, bool insecure, struct err *err)
{
	const struct addrinfo hints = {
	    .ai_family = AF_UNSPEC,
	    .ai_socktype = SOCK_STREAM,
	    .ai_flags = AI_PASSIVE | AI_NUMERICSERV,
	};
	struct addrinfo *found;
	char host[HOST_MAX], service[8];
	uint16_t port;
	int r = address_check(text, rules, err);

	if (!r && unix_path(text, rules))
		return add_unix(list, count, text, unix_path(text, rules), insecure, err);
	if (!r)
		r = split_address(text, rules->port, host, &port, err);
	if (r)
		return r;
	snprintf(service, sizeof(service), "%u", port);
	r = getaddrinfo(host, service, &hints, &found);
	if (r)
		return err_set(err, r == EAI_MEMORY ? -ENOMEM : -EINVAL,
		    "listen address %.200s: cannot find the address of \"%s\": %s", text, host,
		    gai_strerror(r));
	for (const struct addrinfo *info = found; info && !r; info = info->ai_next) {
		struct address address = {.text = text, .addr_len = info->ai_addrlen};

		if (info->ai_family != AF_INET && info->ai_family != AF_INET6)
			continue;
		memcpy(&address.addr, info->ai_addr, info->ai_addrlen);
		r = add_address(list, count, &address, insecure, err);
	}
	freeaddrinfo(found);
	return r;
}
