/* SPDX-License-Identifier: Apache-2.0
 *
 * The control socket of a mount daemon, server side; see control.h.
 *
 * A client's slot goes free → reading its line → writing the answer → free; a timer, set when it is
 * accepted, cuts it off.  While all slots are taken the listening socket is not watched, so that more
 * clients wait in its backlog.
 *
 * Invariants:
 *   1. A slot is in use exactly while its watch is set (lfd.loop), and then its timer is set.
 *   2. Nothing is allocated after control_create, which also touches every buffer.
 * All of it runs on the loop's thread.  A client that breaks the rules is cut off; no error of a
 * client reaches the mount.
 */
#include "mount/control.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 16 };

struct client {
	struct control *control;
	struct loop_fd lfd;
	struct loop_timer timer;
	size_t line_len;
	size_t answer_len, answer_off;
	char line[CONTROL_LINE_MAX];
	char answer[CONTROL_ANSWER_MAX];
};

struct control {
	/* Constant after create. */
	struct loop *loop;
	const struct control_ops *ops;
	void *ctx;
	struct sockaddr_un addr;
	dev_t dev; /* of the socket's name, which a later mount at the same place replaces */
	ino_t ino;

	/* Loop thread only. */
	struct loop_fd listener;
	struct client clients[CONTROL_CLIENTS];
};

static void client_close(struct client *client)
{
	struct control *control = client->control;

	loop_timer_cancel(&client->timer);
	loop_fd_del(&client->lfd);
	close(client->lfd.fd);
	client->lfd.fd = -1;
	loop_fd_set(&control->listener, EPOLLIN);
}

static void client_expired(struct loop_timer *timer)
{
	client_close((struct client *)((char *)timer - offsetof(struct client, timer)));
}

static void answer_pin(struct client *client, const char *text, bool on)
{
	const struct control *control = client->control;
	struct err err = {.text = "not a region's id"};
	int res = -EINVAL, end = 0;
	uint64_t id;

	if (sscanf(text, "%" SCNu64 "%n", &id, &end) == 1 && !text[end])
		res = control->ops->pin(control->ctx, id, on, &err);
	client->answer_len = (size_t)snprintf(client->answer, sizeof(client->answer), "%s%s",
	    res ? "error: " : "ok", res ? err.text : "");
}

/* Fills the answer to the line that has come. */
static void answer(struct client *client)
{
	const struct control *control = client->control;
	const char *line = client->line;

	client->answer_len = 0;
	if (!strcmp(line, "status")) {
		client->answer_len =
		    control->ops->status(control->ctx, client->answer, CONTROL_ANSWER_MAX - 1);
	} else if (!strcmp(line, "drain") && control->ops->drain) {
		client->answer_len =
		    control->ops->drain(control->ctx, client->answer, CONTROL_ANSWER_MAX - 1);
	} else if (!strncmp(line, "pin ", 4)) {
		answer_pin(client, line + 4, true);
	} else if (!strncmp(line, "unpin ", 6)) {
		answer_pin(client, line + 6, false);
	} else if (!strcmp(line, "forget-donor")) {
		control->ops->forget_donor(control->ctx);
		client->answer_len = (size_t)snprintf(client->answer, sizeof(client->answer), "ok");
	} else if (control->ops->other) {
		client->answer_len =
		    control->ops->other(control->ctx, line, client->answer, CONTROL_ANSWER_MAX - 1);
	}
	if (client->answer_len == 0)
		client->answer_len = (size_t)snprintf(
		    client->answer, sizeof(client->answer), "error: unknown request");
	client->answer[client->answer_len++] = '\n';
	client->answer_off = 0;
}

static void client_write(struct client *client)
{
	while (client->answer_off < client->answer_len) {
		ssize_t n = send(client->lfd.fd, client->answer + client->answer_off,
		    client->answer_len - client->answer_off, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			loop_fd_set(&client->lfd, EPOLLOUT);
			return;
		}
		if (n < 0)
			break;
		client->answer_off += (size_t)n;
	}
	client_close(client);
}

static void client_read(struct client *client)
{
	char *end;
	ssize_t n = recv(client->lfd.fd, client->line + client->line_len,
	    sizeof(client->line) - client->line_len, 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		client_close(client);
		return;
	}
	client->line_len += (size_t)n;
	end = memchr(client->line, '\n', client->line_len);
	if (end) {
		*end = '\0';
		answer(client);
		client_write(client);
	}
	/* A line that fills the buffer without an end leaves no room: the next recv gives 0. */
}

static void client_ready(struct loop_fd *lfd, uint32_t events)
{
	struct client *client = (struct client *)((char *)lfd - offsetof(struct client, lfd));

	if (client->answer_len)
		client_write(client);
	else
		client_read(client);
}

static struct client *find_slot(struct control *control)
{
	unsigned i;

	for (i = 0; i < CONTROL_CLIENTS; i++) {
		if (!control->clients[i].lfd.loop)
			return &control->clients[i];
	}
	return NULL;
}

static void listener_ready(struct loop_fd *lfd, uint32_t events)
{
	struct control *control =
	    (struct control *)((char *)lfd - offsetof(struct control, listener));
	struct client *client = find_slot(control);
	int fd;

	if (!client) {
		loop_fd_set(lfd, 0);
		return;
	}
	fd = accept4(lfd->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return;
	client->lfd.fd = fd;
	client->line_len = client->answer_len = client->answer_off = 0;
	if (loop_fd_add(control->loop, &client->lfd, EPOLLIN)) {
		close(fd);
		return;
	}
	loop_timer_set(
	    control->loop, &client->timer, loop_now_ns() + CONTROL_PATIENCE_MS * UINT64_C(1000000));
}

static void clients_init(struct control *control)
{
	unsigned i;

	for (i = 0; i < CONTROL_CLIENTS; i++) {
		struct client *client = &control->clients[i];
		client->control = control;
		client->lfd.fd = -1;
		client->lfd.ready = client_ready;
		client->timer.expired = client_expired;
		memset(client->answer, 1, sizeof(client->answer));
	}
}

/* The socket's mode is set before it has a name, so that nobody can connect too early. */
static int listen_at(struct control *control, const char *path, struct err *err)
{
	struct stat st;
	int fd;

	control->addr.sun_family = AF_UNIX;
	if (strlen(path) >= sizeof(control->addr.sun_path))
		return err_sys(err, -ENAMETOOLONG, "%s", path);
	strcpy(control->addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(err, -errno, "control socket");
	control->listener.fd = fd;
	unlink(path);
	if (fchmod(fd, 0600) ||
	    bind(fd, (struct sockaddr *)&control->addr, sizeof(control->addr)) ||
	    listen(fd, BACKLOG) || stat(path, &st))
		return err_sys(err, -errno, "control socket %s", path);
	control->dev = st.st_dev;
	control->ino = st.st_ino;
	return 0;
}

int control_create(struct loop *loop, const char *path, const struct control_ops *ops, void *ctx,
    struct control **ret_control, struct err *err)
{
	struct control *control = calloc(1, sizeof(*control));
	int res;

	if (!control)
		return err_sys(err, -ENOMEM, "control socket");
	control->loop = loop;
	control->ops = ops;
	control->ctx = ctx;
	control->listener.fd = -1;
	control->listener.ready = listener_ready;
	clients_init(control);
	res = listen_at(control, path, err);
	if (res)
		goto fail;
	res = loop_fd_add(loop, &control->listener, EPOLLIN);
	if (res) {
		err_sys(err, res, "control socket %s", path);
		goto fail;
	}
	*ret_control = control;
	return 0;
fail:
	control_destroy(control);
	return res;
}

static void remove_name(const struct control *control)
{
	struct stat st;

	if (stat(control->addr.sun_path, &st) == 0 && st.st_dev == control->dev &&
	    st.st_ino == control->ino)
		unlink(control->addr.sun_path);
}

void control_destroy(struct control *control)
{
	unsigned i;

	if (!control)
		return;
	for (i = 0; i < CONTROL_CLIENTS; i++) {
		if (control->clients[i].lfd.loop)
			client_close(&control->clients[i]);
	}
	loop_fd_del(&control->listener);
	if (control->listener.fd >= 0) {
		remove_name(control);
		close(control->listener.fd);
	}
	free(control);
}
