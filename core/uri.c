/* SPDX-License-Identifier: Apache-2.0
 *
 * URIs, sizes and durations.
 *
 * uri_parse walks the text once, part by part, and copies each part, decoded and NUL-terminated, into
 * ret_uri->store.  A decoded part is never longer than its source, and each terminator takes the
 * place of a delimiter or of one of the SPARE bytes, so the store cannot overflow.
 */
#include "core/uri.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { SPARE = 4 }; /* terminators without a delimiter of their own: host, path, an absent value */

/* Where parsing is: the next byte of the text, the next free byte of the store. */
struct cursor {
	const char *in;
	char *out;
};

bool uri_is(const char *text)
{
	if (!isalpha((unsigned char)*text))
		return false;
	while (isalnum((unsigned char)*text) || (*text && strchr("+-.", *text)))
		text++;
	return *text == ':';
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Copies up to a byte of `stop` (or the end), decoding percent escapes; *ret_part is the copy. */
static int copy_decoded(
    struct cursor *cur, const char *stop, const char *what, const char **ret_part, struct err *err)
{
	const char *part = cur->out;

	while (*cur->in && !strchr(stop, *cur->in)) {
		int c = (unsigned char)*cur->in++;
		if (c == '%') {
			int high = hex_value(cur->in[0]);
			int low = high < 0 ? -1 : hex_value(cur->in[1]);
			if (low < 0)
				return err_set(err, -EINVAL,
				    "a '%%' in the %s is not followed by two hex digits (a plain "
				    "one is "
				    "written %%25)",
				    what);
			c = high * 16 + low;
			cur->in += 2;
			if (!c)
				return err_set(err, -EINVAL, "there is a %%00 in the %s", what);
		} else if (c == '#') {
			return err_set(err, -EINVAL, "a '#' in the %s must be written %%23", what);
		}
		*cur->out++ = (char)c;
	}
	*cur->out++ = '\0';
	*ret_part = part;
	return 0;
}

/* [address]: cur->in is behind the '['. */
static int parse_bracketed(struct cursor *cur, struct uri *uri, struct err *err)
{
	const char *end = strchr(cur->in, ']');
	char address[INET6_ADDRSTRLEN];
	struct in6_addr in6;
	size_t len, zone;

	if (!end)
		return err_set(err, -EINVAL, "the ']' behind the IPv6 address is missing");
	len = (size_t)(end - cur->in);
	memcpy(cur->out, cur->in, len);
	cur->out[len] = '\0';
	uri->host = cur->out;
	zone = strcspn(cur->out, "%");
	snprintf(address, sizeof(address), "%.*s", (int)zone, cur->out);
	if (zone >= sizeof(address) || inet_pton(AF_INET6, address, &in6) != 1)
		return err_set(err, -EINVAL, "\"%.60s\" is not an IPv6 address", uri->host);
	cur->out += len + 1;
	cur->in = end + 1;
	return 0;
}

static int parse_name(struct cursor *cur, struct uri *uri, struct err *err)
{
	uri->host = cur->out;
	while (*cur->in && !strchr(":/?#", *cur->in)) {
		unsigned char c = (unsigned char)*cur->in++;
		if (c == '@')
			return err_set(err, -EINVAL, "a user name does not belong in a URI");
		if (!isalnum(c) && !strchr("-._", c))
			return err_set(
			    err, -EINVAL, "a host name cannot contain '%c'", isprint(c) ? c : '?');
		*cur->out++ = (char)c;
	}
	*cur->out++ = '\0';
	return 0;
}

/* [//host[:port]] */
static int parse_authority(struct cursor *cur, struct uri *uri, struct err *err)
{
	unsigned port = 0;
	int r;

	if (strncmp(cur->in, "//", 2))
		return 0;
	cur->in += 2;
	if (*cur->in == '[') {
		cur->in++;
		r = parse_bracketed(cur, uri, err);
	} else {
		r = parse_name(cur, uri, err);
	}
	if (r)
		return r;
	if (*cur->in == ':') {
		const char *digits = ++cur->in;
		for (; isdigit((unsigned char)*cur->in) && port <= UINT16_MAX; cur->in++)
			port = port * 10 + (unsigned)(*cur->in - '0');
		if (cur->in == digits || !port || port > UINT16_MAX ||
		    (*cur->in && !strchr("/?#", *cur->in)))
			return err_set(err, -EINVAL, "\"%.*s\" is not a port (1 to 65535)",
			    (int)strcspn(digits, "/?#"), digits);
	}
	if (*cur->in && !strchr("/?#", *cur->in))
		return err_set(err, -EINVAL, "a ':' or '/' is missing behind the host");
	uri->port = (uint16_t)port;
	return 0;
}

/* name[=value]&… */
static int parse_query(struct cursor *cur, struct uri *uri, struct err *err)
{
	while (*cur->in) {
		unsigned n = uri->param_count;
		int r;
		if (*cur->in == '&') {
			cur->in++;
			continue;
		}
		if (n == URI_PARAMS_MAX)
			return err_set(err, -EINVAL, "more than %d parameters", URI_PARAMS_MAX);
		r = copy_decoded(cur, "=&", "parameters", &uri->params[n].name, err);
		if (r)
			return r;
		if (!*uri->params[n].name)
			return err_set(err, -EINVAL, "a parameter without a name");
		uri->params[n].value = "";
		if (*cur->in == '=') {
			cur->in++;
			r = copy_decoded(cur, "&", "parameters", &uri->params[n].value, err);
			if (r)
				return r;
		}
		uri->param_count++;
	}
	return 0;
}

static int parse_parts(struct cursor *cur, struct uri *uri, struct err *err)
{
	int r;

	uri->scheme = cur->out;
	while (*cur->in != ':')
		*cur->out++ = (char)tolower((unsigned char)*cur->in++);
	*cur->out++ = '\0';
	cur->in++;
	r = parse_authority(cur, uri, err);
	if (r)
		return r;
	r = copy_decoded(cur, "?", "path", &uri->path, err);
	if (r || !*cur->in)
		return r;
	cur->in++;
	return parse_query(cur, uri, err);
}

int uri_parse(const char *text, struct uri *ret_uri, struct err *err)
{
	struct cursor cur = {.in = text, .out = ret_uri->store};
	struct err inner = {0};
	int r;

	if (strlen(text) > URI_TEXT_MAX - SPARE - URI_PARAMS_MAX)
		return err_set(err, -EINVAL, "the URI is longer than %d bytes",
		    URI_TEXT_MAX - SPARE - URI_PARAMS_MAX);
	if (!uri_is(text))
		return err_set(err, -EINVAL,
		    "\"%.200s\" does not begin with a kind of place and a colon, as in "
		    "memory:?size=1G or "
		    "file:/srv/pool",
		    text);
	ret_uri->host = NULL;
	ret_uri->port = 0;
	ret_uri->path = "";
	ret_uri->param_count = 0;
	r = parse_parts(&cur, ret_uri, &inner);
	return r ? err_set(err, r, "%.200s: %s", text, inner.text) : 0;
}

const char *uri_param(const struct uri *uri, const char *name)
{
	for (unsigned i = 0; i < uri->param_count; i++)
		if (!strcmp(uri->params[i].name, name))
			return uri->params[i].value;
	return NULL;
}

int uri_check_params(const struct uri *uri, const char *const *known, struct err *err)
{
	for (unsigned i = 0; i < uri->param_count; i++) {
		const char *name = uri->params[i].name;
		const char *const *k = known;
		while (*k && strcmp(*k, name))
			k++;
		if (!*k) {
			char list[200] = "";
			size_t n = 0;
			for (k = known; *k && n < sizeof(list); k++)
				n += (size_t)snprintf(
				    list + n, sizeof(list) - n, "%s%s", n ? ", " : "", *k);
			return err_set(err, -EINVAL,
			    "%s: unknown parameter \"%.100s\" (it takes: %s)", uri->scheme, name,
			    *list ? list : "none");
		}
		for (unsigned j = 0; j < i; j++)
			if (!strcmp(uri->params[j].name, name))
				return err_set(err, -EINVAL, "%s: parameter \"%s\" stands twice",
				    uri->scheme, name);
	}
	return 0;
}

/* The digits at *text; moves it behind them. */
static int parse_digits(const char **text, uint64_t *ret_value)
{
	const char *p = *text;
	uint64_t value = 0;

	if (!isdigit((unsigned char)*p))
		return -EINVAL;
	for (; isdigit((unsigned char)*p); p++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			return -ERANGE;
	*text = p;
	*ret_value = value;
	return 0;
}

int size_parse(const char *text, uint64_t *ret_bytes)
{
	static const char units[] = "KMGTP";
	const char *unit = NULL;
	uint64_t value;
	int r = parse_digits(&text, &value);

	if (r)
		return r;
	if (*text)
		unit = strchr(units, toupper((unsigned char)*text));
	if (unit)
		text++;
	if (unit && !strcmp(text, "iB"))
		text += 2;
	else if (!strcmp(text, "B"))
		text++;
	if (*text)
		return -EINVAL;
	if (unit && __builtin_mul_overflow(value, UINT64_C(1024) << (10 * (unit - units)), &value))
		return -ERANGE;
	*ret_bytes = value;
	return 0;
}

char *size_format(uint64_t bytes, char *buf)
{
	static const char *const names[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	int i = -1;

	/* 1023.95 and more would print as "1024.0". */
	while (i < 5 && value >= (i < 0 ? 1024 : 1023.95)) {
		value /= 1024;
		i++;
	}
	if (i < 0)
		snprintf(buf, SIZE_TEXT_MAX, "%u B", (unsigned)bytes);
	else
		snprintf(buf, SIZE_TEXT_MAX, "%.1f %s", value, names[i]);
	return buf;
}

int duration_parse(const char *text, uint64_t *ret_ms)
{
	static const struct {
		const char *name;
		uint64_t ms;
	} units[] = {{"ms", 1}, {"s", 1000}, {"", 1000}, {"m", 60000}, {"h", 3600000}};
	uint64_t value;
	int r = parse_digits(&text, &value);

	if (r)
		return r;
	for (unsigned i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(text, units[i].name))
			continue;
		if (__builtin_mul_overflow(value, units[i].ms, &value))
			return -ERANGE;
		*ret_ms = value;
		return 0;
	}
	return -EINVAL;
}
