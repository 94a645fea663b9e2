/* SPDX-License-Identifier: Apache-2.0
 *
 * What `remram mount` is asked to mount; see source.h.
 *
 * HOST:/POOL is told from a URI by its scheme: a word before the first colon that is a known scheme,
 * or that "//" follows, makes a URI.
 */
#include "mount/source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define FORMS "write HOST:/POOL, HOST:PORT:/POOL or [IPv6]:/POOL"

/* Copies len bytes of text into room bytes. */
static int copy(const char *text, size_t len, char *buf, size_t room)
{
	if (len >= room)
		return -ENAMETOOLONG;
	memcpy(buf, text, len);
	buf[len] = '\0';
	return 0;
}

static int parse_pool(
    const char *text, const char *path, struct mount_source *source, struct err *err)
{
	size_t len;

	while (*path == '/')
		path++;
	len = strlen(path);
	while (len && path[len - 1] == '/')
		len--;
	if (!len)
		return err_set(err, -EINVAL, "%s: the pool's name is missing: " FORMS, text);
	if (memchr(path, '/', len))
		return err_set(err, -EINVAL,
		    "%s: a pool's name has no '/' in it: mount the pool; its regions are files",
		    text);
	if (copy(path, len, source->pool, sizeof(source->pool)))
		return err_set(err, -EINVAL, "%s: the pool's name is longer than %d bytes", text,
		    SOURCE_POOL_MAX);
	return 0;
}

static int parse_port(
    const char *text, const char *digits, size_t len, struct mount_source *source, struct err *err)
{
	unsigned long port = 0;

	if (len && len < 6 && strspn(digits, "0123456789") >= len)
		port = strtoul(digits, NULL, 10);
	if (port < 1 || port > 65535)
		return err_set(err, -EINVAL, "%s: '%.*s' is no port (1 to 65535)", text,
		    (int)(len < 40 ? len : 40), digits);
	source->port = (uint16_t)port;
	return 0;
}

/* Cuts HOST, or [V6], off the text: *ret_rest is at the colon behind it. */
static int parse_host(
    const char *text, struct mount_source *source, const char **ret_rest, struct err *err)
{
	const char *host = text, *end;

	if (*text == '[') {
		host = text + 1;
		end = strchr(host, ']');
		if (!end || end[1] != ':' || end == host)
			return err_set(
			    err, -EINVAL, "%s: ']:' expected after the address: " FORMS, text);
		*ret_rest = end + 1;
	} else {
		end = strchr(text, ':');
		if (!end || end == text)
			return err_set(
			    err, -EINVAL, "%s: " FORMS ", or a URI such as file:/path", text);
		*ret_rest = end;
	}
	if (copy(host, (size_t)(end - host), source->host, sizeof(source->host)))
		return err_set(err, -EINVAL, "%s: the host's name is longer than %d bytes", text,
		    SOURCE_HOST_MAX);
	if (strpbrk(source->host, "/ \t\n") || (*text != '[' && strchr(source->host, ']')))
		return err_set(
		    err, -EINVAL, "%s: '%s' is no host name: " FORMS, text, source->host);
	return 0;
}

static int parse_donor(const char *text, struct mount_source *source, struct err *err)
{
	const char *rest = text, *slash;
	int res = parse_host(text, source, &rest, err);

	if (res)
		return res;
	source->port = SOURCE_PORT;
	rest++;
	if (*rest != '/') {
		slash = strchr(rest, '/');
		if (slash && slash != rest && slash[-1] == ':' &&
		    memchr(rest, ':', (size_t)(slash - 1 - rest)))
			return err_set(err, -EINVAL,
			    "%s: write an IPv6 address in brackets: [::1]:/POOL", text);
		if (!slash || slash == rest || slash[-1] != ':')
			return err_set(err, -EINVAL, "%s: ':/POOL' is missing: " FORMS, text);
		res = parse_port(text, rest, (size_t)(slash - 1 - rest), source, err);
		if (res)
			return res;
		rest = slash;
	}
	return parse_pool(text, rest, source, err);
}

static int parse_conns(
    const char *text, const char *value, struct mount_source *source, struct err *err)
{
	unsigned long conns = 0;

	if (!value)
		return 0;
	if (*value && strlen(value) < 6 && strspn(value, "0123456789") == strlen(value))
		conns = strtoul(value, NULL, 10);
	if (conns < 1 || conns > SOURCE_CONNS_MAX)
		return err_set(err, -EINVAL, "%s: conns=%.40s: a number from 1 to %d", text, value,
		    SOURCE_CONNS_MAX);
	source->conns = (uint32_t)conns;
	return 0;
}

static int parse_remram_uri(const char *text, struct mount_source *source, struct err *err)
{
	static const char *const params[] = {"conns", NULL};
	struct uri uri;
	int res = uri_parse(text, &uri, err);

	if (res == 0)
		res = uri_check_params(&uri, params, err);
	if (res == 0)
		res = parse_conns(text, uri_param(&uri, "conns"), source, err);
	if (res)
		return res;
	if (!uri.host || !uri.host[0])
		return err_set(
		    err, -EINVAL, "%s: the host is missing: write remram://HOST/POOL", text);
	if (copy(uri.host, strlen(uri.host), source->host, sizeof(source->host)))
		return err_set(err, -EINVAL, "%s: the host's name is longer than %d bytes", text,
		    SOURCE_HOST_MAX);
	source->port = uri.port ? uri.port : SOURCE_PORT;
	return parse_pool(text, uri.path, source, err);
}

static bool has_scheme(const char *text, const char *scheme)
{
	size_t len = strlen(scheme);

	return !strncasecmp(text, scheme, len) && text[len] == ':';
}

static int unknown_scheme(const char *text, const char *const *schemes, struct err *err)
{
	char known[256] = "remram";
	size_t len = strlen(known);

	for (; *schemes && len < sizeof(known); schemes++)
		len += (size_t)snprintf(known + len, sizeof(known) - len, ", %s", *schemes);
	return err_set(err, -EINVAL, "%s: unknown scheme '%.*s' (known: %s)", text,
	    (int)strcspn(text, ":"), text, known);
}

static int parse_any(
    const char *text, const char *const *schemes, struct mount_source *source, struct err *err)
{
	struct uri uri;
	unsigned i;

	source->is_donor = true;
	if (has_scheme(text, "remram") && !strncmp(text + strlen("remram:"), "//", 2))
		return parse_remram_uri(text, source, err);
	for (i = 0; schemes[i]; i++) {
		if (has_scheme(text, schemes[i])) {
			source->is_donor = false;
			return uri_parse(text, &uri, err);
		}
	}
	if (*text != '[' && strchr(text, ':') && !strncmp(strchr(text, ':'), "://", 3))
		return unknown_scheme(text, schemes, err);
	return parse_donor(text, source, err);
}

int source_parse(
    const char *text, const char *const *schemes, struct mount_source *ret_source, struct err *err)
{
	struct mount_source source;
	int res;

	memset(&source, 0, sizeof(source));
	if (copy(text, strlen(text), source.text, sizeof(source.text)))
		return err_set(
		    err, -EINVAL, "the source is longer than %d bytes", URI_TEXT_MAX - 1);
	res = parse_any(text, schemes, &source, err);
	if (res == 0)
		*ret_source = source;
	return res;
}

char *source_peer(const struct mount_source *source, char *buf)
{
	bool brackets = strchr(source->host, ':');

	snprintf(buf, SOURCE_PEER_MAX, "%s%s%s:%u", brackets ? "[" : "", source->host,
	    brackets ? "]" : "", source->port);
	return buf;
}
