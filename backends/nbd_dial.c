/* SPDX-License-Identifier: Apache-2.0
 *
 * One attempt to reach an NBD server: name, connection, TLS, handshake; and what it says of the export.
 *
 * Everything here blocks and allocates, and so runs before the mount serves, or on the dialer's thread.
 * A handle that comes out of here is ready for commands, and is handed to the loop that uses it.
 *
 * libnbd's sentences name its functions ("nbd_opt_go: …"): what comes in front of the cause is cut off.  What the
 * server itself has to say (who has the export, say) libnbd tells to its debug messages alone: they are on until
 * the handshake is over.
 */
#include "backends/nbd_int.h"

#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "core/conn.h"

enum {
	DIAL_MS = 5000, /* for everything but the resolver */
	SLICE_MS = 50, /* how soon it sees that it should stop */
};

const char *nbd_cause(const char *text)
{
	while (strncmp(text, "nbd_", 4) == 0) {
		const char *end = text + 4;

		while (isalnum((unsigned char)*end) || *end == '_')
			end++;
		if (strncmp(end, ": ", 2) != 0)
			break;
		text = end + 2;
	}
	return text;
}

/* What the server has said; "" if nothing. */
struct answer {
	char text[256];
};

/* libnbd's debug callback.  The text is a stranger's: what is not plain is replaced. */
static int listen_to(void *user_data, const char *context, const char *msg)
{
	static const char begin[] = "server error message: ";
	struct answer *answer = user_data;
	const char *at = strstr(msg, begin);

	if (!at)
		return 0;
	snprintf(answer->text, sizeof(answer->text), "%s", at + strlen(begin));
	for (char *p = answer->text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	return 0;
}

static void listen_begin(struct nbd_handle *handle, struct answer *answer)
{
	const nbd_debug_callback listener = {.callback = listen_to, .user_data = answer};

	libnbd.set_debug_callback(handle, listener);
	libnbd.set_debug(handle, true);
}

static void listen_end(struct nbd_handle *handle)
{
	libnbd.set_debug(handle, false);
	libnbd.clear_debug_callback(handle);
}

static int dial_error(
    const struct nbd_address *address, const struct answer *answer, struct err *err)
{
	int code = libnbd.get_errno() ? -libnbd.get_errno() : -EPROTO;
	const char *text = libnbd.get_error();

	/* Not what it has answered to an option that was dispensable, before it went away. */
	if (answer && *answer->text && text && strstr(text, "handshake: "))
		return err_set(
		    err, code, "%s: the server refuses: %s", address->text, answer->text);
	if (code == -ECONNREFUSED || code == -ENOENT)
		return err_set(err, code,
		    "%s: %s: is an NBD server running there, with that export?", address->text,
		    text ? nbd_cause(text) : strerror(-code));
	return err_set(
	    err, code, "%s: %s", address->text, text ? nbd_cause(text) : strerror(-code));
}

static int configure(struct nbd_handle *handle, const struct nbd_address *address, bool plain)
{
	int rc = libnbd.set_export_name(handle, address->export);

	if (rc == 0 && plain)
		rc = libnbd.set_request_structured_replies(handle, false);
	else if (rc == 0)
		rc = libnbd.add_meta_context(handle, LIBNBD_CONTEXT_BASE_ALLOCATION);
	/* Buffers are the callers', who see them only after success. */
	if (rc == 0)
		rc = libnbd.set_pread_initialize(handle, false);
	if (rc || !address->tls)
		return rc;
	rc = libnbd.set_tls(handle, LIBNBD_TLS_REQUIRE);
	if (rc == 0 && address->tls_no_verify)
		rc = libnbd.set_tls_verify_peer(handle, false);
	if (rc == 0 && address->tls_certificates)
		rc = libnbd.set_tls_certificates(handle, address->tls_certificates);
	if (rc == 0 && address->tls_psk_file)
		rc = libnbd.set_tls_psk_file(handle, address->tls_psk_file);
	if (rc == 0 && address->tls_username)
		rc = libnbd.set_tls_username(handle, address->tls_username);
	return rc;
}

static int shake_hands(struct nbd_handle *handle, const struct nbd_address *address,
    const struct answer *answer, const _Atomic bool *cancel, struct err *err)
{
	uint64_t until;

	if (address->socket ? libnbd.aio_connect_unix(handle, address->socket)
			    : libnbd.aio_connect_tcp(handle, address->host, address->port))
		return dial_error(address, answer, err);
	until = loop_now_ns() + DIAL_MS * 1000000ull;
	while (!libnbd.aio_is_ready(handle)) {
		if (libnbd.aio_is_dead(handle) || libnbd.aio_is_closed(handle))
			return dial_error(address, answer, err);
		if (atomic_load(cancel))
			return err_set(err, -ECANCELED, "%s: no longer wanted", address->text);
		if (loop_now_ns() > until)
			return err_set(err, -ETIMEDOUT, "%s: no answer for %d s", address->text,
			    DIAL_MS / 1000);
		if (libnbd.poll(handle, SLICE_MS) == -1)
			return dial_error(address, answer, err);
	}
	return 0;
}

/* The block sizes that the server wants kept. */
static int block_sizes(struct nbd_handle *handle, const struct nbd_address *address,
    struct nbd_features *features, struct err *err)
{
	int64_t least = libnbd.get_block_size(handle, LIBNBD_SIZE_MINIMUM);
	int64_t most = libnbd.get_block_size(handle, LIBNBD_SIZE_MAXIMUM);

	if (least <= 0)
		least = 1;
	if (most <= 0 || most > STORE_LEN_MAX)
		most = STORE_LEN_MAX;
	if ((least & (least - 1)) || least > NBD_ALIGN_MAX || most < least)
		return err_set(err, -EPROTO,
		    "%s: the server wants blocks of %lld to %lld bytes, which makes no sense",
		    address->text, (long long)least, (long long)most);
	features->align = (uint32_t)least;
	features->max_len = (uint32_t)(most & ~(least - 1));
	return 0;
}

/* Whether both ends of the connection are on this machine: they have the same address. */
static bool is_here(int fd)
{
	struct sockaddr_storage mine = {0}, theirs = {0};
	socklen_t my_len = sizeof(mine), their_len = sizeof(theirs);

	if (getsockname(fd, (struct sockaddr *)&mine, &my_len) ||
	    getpeername(fd, (struct sockaddr *)&theirs, &their_len) ||
	    mine.ss_family != theirs.ss_family)
		return false;
	if (mine.ss_family == AF_INET)
		return ((struct sockaddr_in *)&mine)->sin_addr.s_addr ==
		       ((struct sockaddr_in *)&theirs)->sin_addr.s_addr;
	if (mine.ss_family == AF_INET6)
		return memcmp(&((struct sockaddr_in6 *)&mine)->sin6_addr,
			   &((struct sockaddr_in6 *)&theirs)->sin6_addr, 16) == 0;
	return mine.ss_family == AF_UNIX;
}

static int ask(struct nbd_handle *handle, const struct nbd_address *address,
    struct nbd_features *features, struct err *err)
{
	int64_t size = libnbd.get_size(handle);
	int rc;

	if (size < 0)
		return dial_error(address, NULL, err);
	rc = block_sizes(handle, address, features, err);
	if (rc)
		return rc;
	/* What is behind the last whole block could not be asked for. */
	features->size = (uint64_t)size & ~(uint64_t)(features->align - 1);
	features->here = is_here(libnbd.aio_get_fd(handle));
	features->read_only = libnbd.is_read_only(handle) > 0;
	features->multi_conn = libnbd.can_multi_conn(handle) > 0;
	features->flush = libnbd.can_flush(handle) > 0;
	features->fua = libnbd.can_fua(handle) > 0;
	features->zero = libnbd.can_zero(handle) > 0;
	features->extents = libnbd.can_meta_context(handle, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
	return 0;
}

int nbd_dial(const struct nbd_address *address, bool plain, const _Atomic bool *cancel,
    struct nbd_handle **ret_handle, struct nbd_features *ret_features, struct err *err)
{
	struct nbd_handle *handle = libnbd.create();
	struct answer answer = {""};
	bool debug;
	int rc;

	if (!handle)
		return err_set(err, -ENOMEM, "out of memory for an NBD connection");
	debug = libnbd.get_debug(handle) > 0; /* LIBNBD_DEBUG: somebody else listens */
	rc = configure(handle, address, plain) ? dial_error(address, NULL, err) : 0;
	if (rc == 0 && !debug)
		listen_begin(handle, &answer);
	if (rc == 0)
		rc = shake_hands(handle, address, &answer, cancel, err);
	if (!debug)
		listen_end(handle);
	if (rc == 0)
		rc = ask(handle, address, ret_features, err);
	if (rc) {
		libnbd.close(handle);
		return rc;
	}
	if (!address->socket)
		conn_tune(libnbd.aio_get_fd(handle));
	ret_features->plain = plain;
	*ret_handle = handle;
	return 0;
}

int nbd_features_check(const struct nbd_address *address, const struct nbd_features *was,
    const struct nbd_features *now, struct err *err)
{
	const char *lost = NULL;

	if (now->size < was->size)
		return err_set(err, -ESTALE,
		    "%s: the export has become smaller (%llu bytes, it had %llu): it is not used any "
		    "more",
		    address->text, (unsigned long long)now->size, (unsigned long long)was->size);
	if (now->align > was->align || now->max_len < was->max_len)
		return err_set(err, -ESTALE,
		    "%s: the server's block sizes have changed (%u to %u bytes, they were %u to %u): the "
		    "export is not used any more",
		    address->text, now->align, now->max_len, was->align, was->max_len);
	if (now->read_only && !was->read_only)
		lost = "writing";
	else if (was->multi_conn && !now->multi_conn)
		lost = "several connections";
	else if (was->flush && !now->flush)
		lost = "flush";
	else if (was->fua && !now->fua)
		lost = "FUA";
	else if (was->zero && !now->zero)
		lost = "write zeroes";
	else if (was->extents && !now->extents && !now->plain)
		lost = "block status";
	if (lost)
		return err_set(err, -ESTALE,
		    "%s: the server came back without %s: the export is not used any more",
		    address->text, lost);
	return 0;
}

void nbd_address_fini(struct nbd_address *address)
{
	free(address->text);
	free(address->host);
	free(address->port);
	free(address->socket);
	free(address->export);
	free(address->tls_certificates);
	free(address->tls_psk_file);
	free(address->tls_username);
}
