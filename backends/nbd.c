/* SPDX-License-Identifier: Apache-2.0
 *
 * The NBD backend: a place that is one region, an export of an NBD server, reached through libnbd.
 *
 *   nbd://host[:port]/export          TCP; the port is 10809 unless given
 *   nbd+unix:///export?socket=/path   a Unix socket
 *   nbds://…, nbds+unix://…           the same with TLS, which is required then
 *     tls-certificates=DIR, tls-psk-file=FILE, tls-username=NAME, tls-verify-peer=0
 *     conns=N       connections, where the server allows several (multi-conn); 4 unless given
 *     timeo=TIME    requests fail when the server was away for so long; without it they wait
 *
 * The export's size is the region's, for ever; a server that is read-only gives a region of mode 0400.
 * The first connections are made here, so that what is wrong is told at once; the store takes them over.
 *
 * Locking: none; open, region_open and close are called one after another.
 */
#include "backends/backends.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/nbd_int.h"

enum { SINGLE_ID = 2 };

/* ---- the URI ---- */

static int set_text(char **ret, const char *text)
{
	*ret = text ? strdup(text) : NULL;
	return text && !*ret ? -ENOMEM : 0;
}

/* What messages call the place: the URI without its parameters. */
static int set_name(struct nbd_address *address, const struct uri *uri)
{
	bool v6 = uri->host && strchr(uri->host, ':');
	const char *socket = uri_param(uri, "socket");
	char text[URI_TEXT_MAX + 64], port[8] = "";

	if (uri->port)
		snprintf(port, sizeof(port), ":%u", uri->port);
	snprintf(text, sizeof(text), "%s://%s%s%s%s%s%s%s", uri->scheme, v6 ? "[" : "",
	    uri->host ? uri->host : "", v6 ? "]" : "", port, uri->path, socket ? "?socket=" : "",
	    socket ? socket : "");
	return set_text(&address->text, text);
}

static int set_address(struct nbd_place *place, const struct uri *uri, struct err *err)
{
	struct nbd_address *address = &place->address;
	const char *socket = uri_param(uri, "socket"), *verify = uri_param(uri, "tls-verify-peer");
	bool is_unix = strstr(uri->scheme, "+unix");
	char port[8];
	int rc;

	if (is_unix && (!socket || !*socket))
		return err_set(err, -EINVAL,
		    "%s: the socket is missing: write %s:///EXPORT?socket=/PATH", uri->scheme,
		    uri->scheme);
	if (is_unix && uri->host && *uri->host)
		return err_set(err, -EINVAL,
		    "%s://%s: a Unix socket has no host: write %s:///EXPORT?socket=/PATH",
		    uri->scheme, uri->host, uri->scheme);
	if (!is_unix && (!uri->host || !*uri->host))
		return err_set(err, -EINVAL,
		    "%s: the host is missing: write %s://HOST[:PORT]/EXPORT", uri->scheme,
		    uri->scheme);
	if (!is_unix && socket)
		return err_set(err, -EINVAL,
		    "%s: for a socket= write %s+unix:///EXPORT?socket=/PATH", uri->scheme,
		    uri->scheme);
	snprintf(port, sizeof(port), "%u", uri->port ? uri->port : (unsigned)NBD_PORT);
	address->tls = strncmp(uri->scheme, "nbds", 4) == 0;
	address->tls_no_verify = verify && strcmp(verify, "0") == 0;
	rc = set_name(address, uri);
	rc = rc ? rc : set_text(&address->host, is_unix ? NULL : uri->host);
	rc = rc ? rc : set_text(&address->port, port);
	rc = rc ? rc : set_text(&address->socket, socket);
	rc = rc ? rc : set_text(&address->export, uri->path + (*uri->path == '/'));
	rc = rc ? rc : set_text(&address->tls_certificates, uri_param(uri, "tls-certificates"));
	rc = rc ? rc : set_text(&address->tls_psk_file, uri_param(uri, "tls-psk-file"));
	rc = rc ? rc : set_text(&address->tls_username, uri_param(uri, "tls-username"));
	return rc ? err_set(err, rc, "out of memory for an NBD address") : 0;
}

static int check_tls(const struct nbd_address *address, const struct uri *uri, struct err *err)
{
	for (unsigned i = 0; i < uri->param_count && !address->tls; i++)
		if (strncmp(uri->params[i].name, "tls-", 4) == 0)
			return err_set(err, -EINVAL, "%s: %s belongs to a URI with TLS: %s",
			    address->text, uri->params[i].name, "write nbds:// or nbds+unix://");
	return 0;
}

static int set_params(struct nbd_place *place, const struct uri *uri, struct err *err)
{
	const char *conns = uri_param(uri, "conns"), *timeo = uri_param(uri, "timeo");
	uint64_t ms = 0;
	char *end;

	place->conns = NBD_CONNS_DEFAULT;
	if (conns) {
		unsigned long n = strtoul(conns, &end, 10);

		if (*conns < '0' || *conns > '9' || *end || n < 1 || n > NBD_CONNS_MAX)
			return err_set(err, -EINVAL, "%s: conns=%s: a number from 1 to %d",
			    place->address.text, conns, NBD_CONNS_MAX);
		place->conns = (unsigned)n;
	}
	if (timeo && (duration_parse(timeo, &ms) || ms == 0))
		return err_set(err, -EINVAL, "%s: timeo=%s: a time, for example 30s",
		    place->address.text, timeo);
	atomic_store(&place->timeo_ns, ms * 1000000);
	return 0;
}

/* ---- open and close ---- */

static const struct backend_ops *ops_of(const char *scheme)
{
	static const struct backend_ops *const kinds[] = {
	    &nbd_backend, &nbds_backend, &nbd_unix_backend, &nbds_unix_backend};
	unsigned i = 0;

	while (strcmp(kinds[i]->scheme, scheme) != 0)
		i++;
	return kinds[i];
}

static void nbd_place_close(struct backend *backend)
{
	struct nbd_place *place = (struct nbd_place *)backend;

	for (unsigned i = 0; i < NBD_CONNS_MAX; i++) {
		if (place->first[i]) {
			libnbd.aio_disconnect(place->first[i], 0);
			libnbd.close(place->first[i]);
		}
	}
	workers_destroy(place->dialer);
	nbd_address_fini(&place->address);
	free(place);
}

/* The first connection says what there is; the others, what is right with it.  A connection that fails
 * later than the first is made again when the store is used. */
static int connect_all(struct nbd_place *place, struct err *err)
{
	struct nbd_features features;
	int rc = nbd_dial(
	    &place->address, false, &place->cancel, &place->first[0], &place->features, err);

	if (rc)
		return rc;
	if (!place->features.multi_conn)
		place->conns = 1;
	for (unsigned i = 1; i < place->conns; i++) {
		if (nbd_dial(
			&place->address, true, &place->cancel, &place->first[i], &features, NULL))
			break;
		rc = nbd_features_check(&place->address, &place->features, &features, err);
		if (rc)
			return rc;
	}
	return 0;
}

static int nbd_place_open(const struct uri *uri, bool single, struct workers *workers,
    struct backend **ret_backend, struct err *err)
{
	static const char *const known[] = {"socket", "conns", "timeo", "tls-certificates",
	    "tls-psk-file", "tls-username", "tls-verify-peer", NULL};
	struct nbd_place *place = calloc(1, sizeof(*place));
	int rc;

	if (!place)
		return err_set(err, -ENOMEM, "out of memory for an NBD export");
	rc = uri_check_params(uri, known, err);
	if (rc == 0)
		rc = set_address(place, uri, err);
	if (rc == 0)
		rc = check_tls(&place->address, uri, err);
	if (rc == 0)
		rc = set_params(place, uri, err);
	if (rc == 0)
		rc = libnbd_load(err);
	if (rc == 0)
		rc = connect_all(place, err);
	if (rc == 0)
		rc = workers_create(1, &place->dialer, err);
	if (rc) {
		nbd_place_close(&place->backend);
		return rc;
	}
	if (!place->features.flush && !place->features.read_only)
		log_warn("%s: the server has no flush: nobody knows when what is written is stable",
		    place->address.text);
	place->backend.ops = ops_of(uri->scheme);
	place->backend.persistent = true;
	place->backend.read_only = place->features.read_only;
	place->backend.quota.limit = place->features.size;
	atomic_store(&place->backend.quota.used, place->features.size);
	*ret_backend = &place->backend;
	return 0;
}

/* ---- the region ---- */

static int nbd_region_open(
    struct backend *backend, uint64_t id, bool create, struct store **ret_store, struct err *err)
{
	struct nbd_place *place = (struct nbd_place *)backend;

	if (id != SINGLE_ID)
		return err_set(err, -ENOENT, "%s: is one region, number 2", place->address.text);
	if (create)
		return err_set(err, -EEXIST, "%s: is there already", place->address.text);
	if (place->store)
		return err_set(err, -EBUSY, "%s: is open already", place->address.text);
	return nbd_store_create(place, ret_store, err);
}

static int nbd_region_remove(struct backend *backend, uint64_t id, struct err *err)
{
	struct nbd_place *place = (struct nbd_place *)backend;

	return err_set(err, -EPERM, "%s: an export is not removed", place->address.text);
}

static int nbd_region_list(
    struct backend *backend, void (*found)(void *ctx, uint64_t id), void *ctx, struct err *err)
{
	found(ctx, SINGLE_ID);
	return 0;
}

/* ---- the connection, as others see it ---- */

static void nbd_patience(struct backend *backend, uint64_t timeo_ms)
{
	struct nbd_place *place = (struct nbd_place *)backend;

	/* What the URI says goes first. */
	if (atomic_load(&place->timeo_ns) == 0)
		atomic_store(&place->timeo_ns, timeo_ms * 1000000);
}

static void nbd_link_state(struct backend *backend, struct backend_link *ret_link)
{
	struct nbd_place *place = (struct nbd_place *)backend;
	struct nbd_store *ns = place->store;

	*ret_link = (struct backend_link){
	    .state = BACKEND_CONNECTED,
	    .here = place->features.here,
	    .address = place->address.text,
	};
	if (!ns)
		return;
	ret_link->state = atomic_load(&ns->failed)      ? BACKEND_FAILED
			  : atomic_load(&ns->status_up) ? BACKEND_CONNECTED
							: BACKEND_WAITING;
	ret_link->since_ns = atomic_load(&ns->since_ns);
	ret_link->reconnects = atomic_load(&ns->reconnects);
	ret_link->in_flight = atomic_load(&ns->in_flight);
}

static void nbd_give_up(struct backend *backend)
{
	struct nbd_place *place = (struct nbd_place *)backend;

	if (place->store)
		nbd_link_give_up(place->store);
}

#define NBD_BACKEND(name, text, usage) \
	const struct backend_ops name = { \
	    .scheme = (text), \
	    .help = (usage), \
	    .single = true, \
	    .open = nbd_place_open, \
	    .region_open = nbd_region_open, \
	    .region_remove = nbd_region_remove, \
	    .region_list = nbd_region_list, \
	    .patience = nbd_patience, \
	    .link = nbd_link_state, \
	    .give_up = nbd_give_up, \
	    .close = nbd_place_close, \
	}

NBD_BACKEND(nbd_backend, "nbd", "nbd://HOST[:PORT]/EXPORT[?conns=N][&timeo=TIME]");
NBD_BACKEND(nbds_backend, "nbds", "nbds://HOST[:PORT]/EXPORT[?tls-certificates=DIR]");
NBD_BACKEND(nbd_unix_backend, "nbd+unix", "nbd+unix:///EXPORT?socket=PATH");
NBD_BACKEND(nbds_unix_backend, "nbds+unix", "nbds+unix:///EXPORT?socket=PATH[&tls-psk-file=FILE]");
