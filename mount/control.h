/* SPDX-License-Identifier: Apache-2.0
 *
 * The control socket of a mount daemon: RUNDIR/control, a Unix stream socket, mode 0600.
 *
 * A client sends one line, gets one answer and the connection is closed:
 *   status          → one JSON object
 *   pin NAME        → "ok" or "error: …": the region is used by a loop device from now on: opens of it
 *                     carry POOL_PIN, and rename, remove, resize of it fail with EBUSY
 *   unpin NAME      → "ok"
 *   forget-donor    → "ok": requests that wait for a lost donor fail now with EIO, and so does all
 *                     later I/O (for umount -f and remram abort)
 * Names are percent-escaped.  Everything runs on the mount's loop, with buffers sized at start: asking
 * for status never allocates in the daemon.
 */
#ifndef REMRAM_MOUNT_CONTROL_H
#define REMRAM_MOUNT_CONTROL_H

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"
#include "core/loop.h"

enum { CONTROL_ANSWER_MAX = 256 * 1024 };

struct control;

struct control_ops {
	/* Writes a JSON object of at most room bytes to buf and returns its length. */
	size_t (*status)(void *ctx, char *buf, size_t room);
	/* 0 or -errno with err set. */
	int (*pin)(void *ctx, const char *name, bool on, struct err *err);
	void (*forget_donor)(void *ctx);
};

/* Server side, in the daemon.  path: the socket, at most 107 bytes; a stale one is replaced. */
int control_create(struct loop *loop, const char *path, const struct control_ops *ops, void *ctx,
    struct control **ret_control, struct err *err);
/* Closes connections and removes the socket. */
void control_destroy(struct control *control);

/* Client side: sends line, puts the whole answer (NUL-terminated, malloc'ed, caller frees) into
 * *ret_answer.  Waits at most timeout_ms.  -ECONNREFUSED, -ENOENT: no daemon there. */
int control_ask(const char *path, const char *line, unsigned timeout_ms, char **ret_answer,
    struct err *err);

#endif
