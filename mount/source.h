/* SPDX-License-Identifier: Apache-2.0
 *
 * What `remram mount` is asked to mount.
 *
 *   HOST:/POOL  HOST:PORT:/POOL  [V6]:/POOL  [V6]:PORT:/POOL  remram://HOST[:PORT]/POOL[?conns=N]
 *       a donor's pool: a directory of many files
 *   SCHEME:…    (file:/path, memory:?size=8G): one place where bytes can live: a directory with one file
 *
 * `file:/path` could also be the pool "path" of a host called "file": a known scheme wins, and
 * remram://file/path names the host.
 */
#ifndef REMRAM_MOUNT_SOURCE_H
#define REMRAM_MOUNT_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "core/uri.h"

enum {
	SOURCE_PORT = 10819, /* where a donor listens unless told otherwise */
	SOURCE_HOST_MAX = 255, /* bytes of a host name or address */
	SOURCE_POOL_MAX = 255, /* bytes of a pool's name */
	SOURCE_CONNS_MAX = 16, /* connections to a donor */
};

struct mount_source {
	char text[URI_TEXT_MAX]; /* as it was given: what /proc/mounts shows */
	bool is_donor;
	/* A donor's pool. */
	char host[SOURCE_HOST_MAX + 1]; /* without brackets */
	uint16_t port;
	char pool[SOURCE_POOL_MAX + 1];
	uint32_t conns; /* 0: not said */
	/* Anything else: text is the backend's URI. */
};

/* Parses text.  schemes: the backends' schemes, NULL at the end.  -EINVAL with a sentence that says
 * which part is wrong. */
int source_parse(
    const char *text, const char *const *schemes, struct mount_source *ret_source, struct err *err);

/* HOST:PORT for messages, with brackets around an IPv6 address.  buf holds SOURCE_PEER_MAX bytes. */
enum { SOURCE_PEER_MAX = SOURCE_HOST_MAX + 10 };
char *source_peer(const struct mount_source *source, char *buf);

#endif
