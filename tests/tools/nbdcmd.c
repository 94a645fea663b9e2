/* SPDX-License-Identifier: Apache-2.0
 *
 * nbdcmd URI COMMAND ARG… [, COMMAND ARG…]…: NBD commands that the usual clients have no words for, on one
 * connection.  Prints "ok" or the error's name for each, and succeeds either way: the test compares what is printed.
 *
 *   cache OFF LEN               CACHE
 *   many COUNT OFF LEN          so many CACHEs in flight at once, of ranges that follow each other
 *   write OFF LEN               WRITE of LEN bytes, at most 32M
 *   map OFF LEN                 one BLOCK_STATUS; a line for each extent: CONTEXT OFF LEN STATE
 *   leave OFF LEN               CACHE, and the connection ends without waiting for the reply
 */
#include <inttypes.h>
#include <libnbd.h>
#include <stdio.h>

#include "tests/tools/tool.h"

enum { MANY_MAX = 1024, WRITE_MAX = 32 << 20 };

static int print_extents(
    void *ctx, const char *context, uint64_t off, uint32_t *entries, size_t count, int *error)
{
	for (size_t i = 0; i < count; i += 2) {
		printf("%s %" PRIu64 " %u %u\n", context, off, entries[i], entries[i + 1]);
		off += entries[i];
	}
	return 0;
}

/* Waits for count commands; the first error, or 0. */
static int wait_all(struct nbd_handle *nbd, const int64_t *cookies, unsigned count)
{
	int err = 0;

	for (unsigned i = 0; i < count; i++) {
		int done;

		while ((done = nbd_aio_command_completed(nbd, (uint64_t)cookies[i])) == 0)
			if (nbd_poll(nbd, -1) < 0)
				return nbd_get_errno();
		if (done < 0 && !err)
			err = nbd_get_errno();
	}
	return err;
}

static int cache_many(struct nbd_handle *nbd, uint64_t count, uint64_t off, uint64_t len)
{
	static int64_t cookies[MANY_MAX];

	for (unsigned i = 0; i < count; i++) {
		cookies[i] = nbd_aio_cache(nbd, len, off + i * len, NBD_NULL_COMPLETION, 0);
		if (cookies[i] < 0)
			return nbd_get_errno();
	}
	return wait_all(nbd, cookies, (unsigned)count);
}

static int write_some(struct nbd_handle *nbd, uint64_t off, uint64_t len)
{
	void *buf = malloc(len);
	int rc;

	if (!buf)
		exit(TOOL_SETUP);
	memset(buf, 0x5a, len);
	rc = nbd_pwrite(nbd, buf, len, off, 0);
	free(buf);
	return rc < 0 ? nbd_get_errno() : 0;
}

/* The request is on its way when this returns: the process ends with it unanswered. */
static int leave(struct nbd_handle *nbd, uint64_t off, uint64_t len)
{
	if (nbd_aio_cache(nbd, len, off, NBD_NULL_COMPLETION, 0) < 0)
		return nbd_get_errno();
	while (nbd_aio_get_direction(nbd) & LIBNBD_AIO_DIRECTION_WRITE)
		if (nbd_poll(nbd, -1) < 0)
			return nbd_get_errno();
	return 0;
}

/* Runs one command of count words; -1: it makes no sense. */
static int run(struct nbd_handle *nbd, char **words, int count)
{
	nbd_extent_callback print = {.callback = print_extents};
	uint64_t n[3];

	for (int i = 1; i < count; i++)
		if (i > 3 || !tool_parse(words[i], &n[i - 1]))
			return -1;
	if (count == 3 && strcmp(words[0], "cache") == 0)
		return nbd_cache(nbd, n[1], n[0], 0) < 0 ? nbd_get_errno() : 0;
	if (count == 4 && strcmp(words[0], "many") == 0 && n[0] <= MANY_MAX)
		return cache_many(nbd, n[0], n[1], n[2]);
	if (count == 3 && strcmp(words[0], "write") == 0 && n[1] <= WRITE_MAX)
		return write_some(nbd, n[0], n[1]);
	if (count == 3 && strcmp(words[0], "map") == 0)
		return nbd_block_status(nbd, n[1], n[0], print, 0) < 0 ? nbd_get_errno() : 0;
	if (count == 3 && strcmp(words[0], "leave") == 0)
		return leave(nbd, n[0], n[1]);
	return -1;
}

int main(int argc, char **argv)
{
	struct nbd_handle *nbd = nbd_create();
	int first = 2;

	if (argc < 3 || !nbd) {
		fputs("usage: nbdcmd URI COMMAND ARG… [, COMMAND ARG…]…\n", stderr);
		return TOOL_USAGE;
	}
	nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION);
	nbd_add_meta_context(nbd, "remram:resident");
	nbd_add_meta_context(nbd, "remram:dirty");
	if (nbd_connect_uri(nbd, argv[1])) {
		fprintf(stderr, "nbdcmd: %s\n", nbd_get_error());
		return TOOL_SETUP;
	}
	for (int i = first; i <= argc; i++) {
		int rc;

		if (i < argc && strcmp(argv[i], ",") != 0)
			continue;
		rc = run(nbd, argv + first, i - first);
		if (rc < 0) {
			fprintf(stderr, "nbdcmd: %s: not a command\n", argv[first]);
			return TOOL_USAGE;
		}
		puts(rc ? strerrorname_np(rc) : "ok");
		first = i + 1;
	}
	nbd_close(nbd);
	return TOOL_OK;
}
