/* SPDX-License-Identifier: Apache-2.0
 *
 * The control socket of a mount daemon: RUNDIR/control, a Unix stream socket, mode 0600.
 *
 * A client sends one line, gets one answer and the connection is closed:
 *   status          → one JSON object
 *   pin ID          → "ok" or "error: …": the region is used by a loop device from now on: opens of it
 *                     carry POOL_PIN, and while one is open rename, remove, resize of it fail with EBUSY
 *   unpin ID        → "ok"
 *   drain           → {"state":"running"|"done","dirty":BYTES,"errno":N,"error":TEXT}: the first one begins to
 *                     push what only this client has, later ones tell how far that is
 *   forget-donor    → "ok": requests that wait for a lost donor fail now with EIO, and so does all
 *                     later I/O (for umount -f and remram abort)
 *   what mount/managed_control.h tells of, if the mount has a cache
 * ID is the region's, its inode number, in decimal.  Anything else is answered "error: …".  The answer ends
 * with a newline.  Everything runs on the mount's loop, with buffers sized at start: asking for status
 * never allocates in the daemon.  CONTROL_CLIENTS are served at once, more wait; one that is not done
 * after CONTROL_PATIENCE_MS is cut off.
 */
#ifndef REMRAM_MOUNT_CONTROL_H
#define REMRAM_MOUNT_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/loop.h"

enum {
	CONTROL_ANSWER_MAX = 256 * 1024, /* bytes */
	CONTROL_LINE_MAX = 1024, /* bytes of a request, newline included */
	CONTROL_CLIENTS = 4,
	CONTROL_PATIENCE_MS = 10000,
};

struct control;

struct control_ops {
	/* Writes a JSON object of at most room bytes to buf and returns its length. */
	size_t (*status)(void *ctx, char *buf, size_t room);
	/* 0 or -errno with err set. */
	int (*pin)(void *ctx, uint64_t id, bool on, struct err *err);
	void (*forget_donor)(void *ctx);
	/* Optional: writes a JSON object as status does. */
	size_t (*drain)(void *ctx, char *buf, size_t room);
	/* Optional: any other line.  Writes an answer of at most room bytes to buf and returns its length; 0:
	 * not understood. */
	size_t (*other)(void *ctx, const char *line, char *buf, size_t room);
};

/* Server side, in the daemon, before the loop runs or on its thread.  path: the socket, at most 107
 * bytes; a stale one is replaced.  ops and ctx are kept until destroy. */
int control_create(struct loop *loop, const char *path, const struct control_ops *ops, void *ctx,
    struct control **ret_control, struct err *err);
/* Closes connections and removes the socket, unless a later one has taken its place.  NULL does nothing. */
void control_destroy(struct control *control);

/* Client side: sends line, puts the whole answer (NUL-terminated, without the last newline, malloc'ed,
 * caller frees) into *ret_answer.  Waits at most timeout_ms: -ETIMEDOUT.  -ECONNREFUSED, -ENOENT: no
 * daemon there. */
int control_ask(
    const char *path, const char *line, unsigned timeout_ms, char **ret_answer, struct err *err);

/* The same for requests that are answered "ok": an answer "error: …" becomes -EREMOTEIO with that
 * text.  arg: NULL, or what follows the verb. */
int control_command(
    const char *path, const char *verb, const char *arg, unsigned timeout_ms, struct err *err);

#endif
