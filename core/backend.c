/* SPDX-License-Identifier: Apache-2.0
 *
 * Finds the backend that a URI names, and keeps count of a place's space.
 *
 * The quota is one atomic counter: takers compete with compare-and-swap, so `used` passes the limit
 * only where a backend adds to it by itself, after the fact.
 */
#include "core/backend.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

int quota_take(struct quota *quota, uint64_t len)
{
	uint64_t used = atomic_load_explicit(&quota->used, memory_order_relaxed);

	do {
		if (used > quota->limit || len > quota->limit - used)
			return -ENOSPC;
	} while (!atomic_compare_exchange_weak_explicit(
	    &quota->used, &used, used + len, memory_order_relaxed, memory_order_relaxed));
	return 0;
}

void quota_give(struct quota *quota, uint64_t len)
{
	uint64_t was = atomic_fetch_sub_explicit(&quota->used, len, memory_order_relaxed);

	assert(was >= len);
}

/* "memory, file" */
static void known_schemes(char *text, size_t room)
{
	size_t n = 0;

	text[0] = '\0';
	for (unsigned i = 0; backend_registry[i] && n < room; i++)
		n += (size_t)snprintf(
		    text + n, room - n, "%s%s", i ? ", " : "", backend_registry[i]->scheme);
}

int backend_open(const char *text, bool single, struct workers *workers,
    struct backend **ret_backend, struct err *err)
{
	const struct backend_ops *ops;
	char known[ERR_TEXT_MAX / 2];
	struct uri uri;
	int rc = uri_parse(text, &uri, err);

	if (rc)
		return rc;
	for (unsigned i = 0; (ops = backend_registry[i]); i++)
		if (strcmp(ops->scheme, uri.scheme) == 0)
			return ops->open(&uri, single || ops->single, workers, ret_backend, err);
	known_schemes(known, sizeof(known));
	return err_set(err, -EINVAL, "%s: no backend is called \"%s\" (there are: %s)", text,
	    uri.scheme, known);
}

void backend_close(struct backend *backend)
{
	if (backend)
		backend->ops->close(backend);
}
