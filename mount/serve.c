/* SPDX-License-Identifier: Apache-2.0
 *
 * The mount daemon.
 *
 * States: opening (the donor is asked, or a backend opened) → mounting (the kernel shakes hands) →
 * serving → ending (the mount is gone: what is open is closed, what is in flight ends) → return.
 * Everything runs on one loop; loop_run is left and entered again between the stages of starting.
 *
 * With lock_memory the order is: prepare (the caller, before it starts the log), allocate and touch everything, connect, mount, lock, then
 * the first request is read.
 */
#include "mount/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "backends/peer.h"
#include "core/local_pool.h"
#include "core/log.h"
#include "core/loop.h"
#include "core/workers.h"
#include "fuse/fs.h"
#include "mount/control.h"
#include "mount/lockmem.h"
#include "mount/mountinfo.h"
#include "mount/serve_status.h"

enum { WORKERS = 2, END_MS = 10, END_TRIES = 3000 };

static int fail(int *ret_exit, int exit_code, int rc)
{
	*ret_exit = exit_code;
	return rc;
}

/* ---- the pool ---- */

static void pool_ready(void *ctx, const struct err *err)
{
	struct daemon *daemon = ctx;

	if (err)
		daemon->err = *err;
	daemon->pool_answered = true;
	loop_stop(daemon->loop);
}

/* This machine and the mount point; NULL if the machine has no name of its own. */
static const char *client_name(const struct daemon *daemon, char *buf, size_t room)
{
	int fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, 32);

	if (fd >= 0)
		close(fd);
	if (n != 32)
		return NULL;
	snprintf(buf + 32, room - 32, ":%s", daemon->conf->dir);
	return buf;
}

/* What others are told when this mount is in their way. */
static const char *client_who(const struct daemon *daemon, char *buf, size_t room)
{
	char host[HOST_NAME_MAX + 1] = "?";

	gethostname(host, sizeof(host));
	host[sizeof(host) - 1] = 0;
	snprintf(buf, room, "%s, process %d, %s", host, (int)getpid(), daemon->conf->dir);
	return buf;
}

static int open_donor(struct daemon *daemon, struct err *err)
{
	const struct mount_source *source = &daemon->conf->source;
	char client[PATH_MAX + 64], who[PATH_MAX + 128];
	struct peer_conf conf = {
	    .host = source->host,
	    .port = source->port,
	    .pool = source->pool,
	    .client = client_name(daemon, client, sizeof(client)),
	    .who = client_who(daemon, who, sizeof(who)),
	    .soft = daemon->conf->soft,
	    .timeo_ms = daemon->conf->timeo_ms,
	    .ready = pool_ready,
	    .ctx = daemon,
	};
	int rc = peer_pool_create(daemon->loop, &conf, &daemon->pool, err);

	if (rc)
		return rc;
	daemon->is_peer = true;
	while (!daemon->pool_answered)
		loop_run(daemon->loop);
	daemon->stats = peer_pool_stats(daemon->pool);
	*err = daemon->err;
	return daemon->err.code;
}

/* The one file's name: the last part of a path, or the scheme. */
static const char *single_name(const struct mount_source *source, char buf[POOL_NAME_MAX + 1])
{
	const char *path = strchr(source->text, ':') + 1;
	size_t len = strcspn(path, "?");
	size_t start;

	while (len && path[len - 1] == '/')
		len--;
	for (start = len; start && path[start - 1] != '/'; start--)
		;
	if (len - start == 0 || len - start > POOL_NAME_MAX) {
		path = source->text;
		start = 0;
		len = strcspn(path, ":");
	}
	memcpy(buf, path + start, len - start);
	buf[len - start] = 0;
	return buf;
}

static int open_backend(struct daemon *daemon, struct err *err)
{
	struct local_pool_conf conf = {
	    .name = daemon->conf->source.text,
	    .uri = daemon->conf->source.text,
	    .single = single_name(&daemon->conf->source, daemon->single),
	};
	int rc = workers_create(WORKERS, &daemon->workers, err);

	if (rc == 0)
		rc = local_pool_create(&conf, daemon->workers, &daemon->pool, err);
	if (rc == 0)
		daemon->stats = local_pool_stats(daemon->pool);
	return rc;
}

/* ---- the mount ---- */

static void fs_ready(void *ctx)
{
	struct daemon *daemon = ctx;

	loop_stop(daemon->loop);
}

static void fs_gone(void *ctx, int err)
{
	struct daemon *daemon = ctx;

	daemon->gone = true;
	if (err)
		log_error("/dev/fuse: %s: the mount has ended", strerror(-err));
	loop_stop(daemon->loop);
}

static int mount_it(struct daemon *daemon, struct err *err)
{
	const struct mount_conf *conf = daemon->conf;
	char options[MOUNT_LSM_MAX + 64];
	struct fs_conf fs_conf = {
	    .pool = daemon->pool,
	    .read_only = conf->read_only,
	    .shared = conf->shared,
	    .max_background = conf->max_background,
	    .attr_timeout_ms = conf->attr_timeout_ms,
	    .touch = conf->lock_memory,
	    .ready = fs_ready,
	    .gone = fs_gone,
	    .ctx = daemon,
	};

	snprintf(options, sizeof(options), "%s%s%s", serve_flag_options(conf->mount_flags),
	    *conf->lsm_options ? "," : "", conf->lsm_options);
	daemon->fd = fs_mount(conf->source.text, conf->dir, options, err);
	if (daemon->fd < 0)
		return daemon->fd;
	daemon->mounted = true;
	return fs_create(daemon->loop, daemon->fd, &fs_conf, &daemon->fs, err);
}

/* How far the kernel reads ahead is the mount's; it must be set before any file is opened, and without
 * asking the mount anything. */
static void set_read_ahead(const struct daemon *daemon)
{
	struct mountinfo info;
	char path[128], text[32];
	int fd, len;

	if (mountinfo_find(daemon->conf->dir, &info))
		return;
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(info.dev),
	    minor(info.dev));
	len = snprintf(
	    text, sizeof(text), "%llu", (unsigned long long)daemon->conf->read_ahead / 1024);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, (size_t)len) != len)
		log_warn("%s: %s: sequential reads will be slower", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* ---- what the commands ask ---- */

static int control_pin(void *ctx, uint64_t id, bool on, struct err *err)
{
	struct daemon *daemon = ctx;
	int rc = fs_pin(daemon->fs, id, on);

	return rc ? err_set(err, rc, "region %llu is not in use here", (unsigned long long)id) : 0;
}

static void control_forget(void *ctx)
{
	struct daemon *daemon = ctx;

	if (daemon->is_peer)
		peer_pool_give_up(daemon->pool);
}

static const struct control_ops control_ops = {
    .status = serve_status,
    .pin = control_pin,
    .forget_donor = control_forget,
};

/* SIGTERM detaches the mount; its files stay usable until the last is closed.  Swap would lose its mount
 * point and with it the way to undo it: then the signal is only answered. */
static void signal_ready(struct loop_fd *lfd, uint32_t events)
{
	struct daemon *daemon = (struct daemon *)((char *)lfd - offsetof(struct daemon, signals));
	struct signalfd_siginfo info;
	const char *pinned;

	if (read(lfd->fd, &info, sizeof(info)) != sizeof(info))
		return;
	pinned = fs_pinned(daemon->fs);
	if (pinned) {
		log_warn(
		    "%s: not unmounting %s: region \"%s\" is in use by a loop device: umount it",
		    strsignal((int)info.ssi_signo), daemon->conf->dir, pinned);
		return;
	}
	log_info("%s: unmounting %s", strsignal((int)info.ssi_signo), daemon->conf->dir);
	fs_unmount(daemon->conf->dir);
}

static int watch_signals(struct daemon *daemon, struct err *err)
{
	sigset_t set;
	int rc;

	if (daemon->conf->foreground)
		return 0; /* the command that waits for us unmounts */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	daemon->signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	daemon->signals.ready = signal_ready;
	rc = daemon->signals.fd < 0 ? -errno : loop_fd_add(daemon->loop, &daemon->signals, EPOLLIN);
	return rc ? err_sys(err, rc, "cannot watch signals") : 0;
}

/* ---- the end ---- */

static void end_check(struct loop_timer *timer)
{
	struct daemon *daemon =
	    (struct daemon *)((char *)timer - offsetof(struct daemon, end_timer));

	loop_stop(daemon->loop);
}

/* Lets what is in flight end; a donor that is away is not waited for. */
static bool drain(struct daemon *daemon)
{
	struct peer_status status;

	for (unsigned i = 0; i < END_TRIES && !fs_idle(daemon->fs); i++) {
		if (daemon->is_peer) {
			peer_pool_status(daemon->pool, &status);
			if (status.state == PEER_WAITING)
				peer_pool_give_up(daemon->pool);
		}
		loop_timer_set(daemon->loop, &daemon->end_timer, loop_now_ns() + END_MS * 1000000u);
		loop_run(daemon->loop);
	}
	loop_timer_cancel(&daemon->end_timer);
	return fs_idle(daemon->fs);
}

static void finish(struct daemon *daemon)
{
	if (daemon->mounted && !daemon->gone)
		fs_unmount(daemon->conf->dir);
	control_destroy(daemon->control);
	loop_fd_del(&daemon->signals);
	if (daemon->signals.fd >= 0)
		close(daemon->signals.fd);
	if (daemon->fs && (!daemon->gone || !drain(daemon))) {
		/* Failed between mount and first request, or requests hang in the backend: the process
		 * ends, and the kernel ends the mount. */
		return;
	}
	fs_destroy(daemon->fs);
	if (daemon->fd >= 0)
		close(daemon->fd);
	pool_destroy(daemon->pool);
	workers_destroy(daemon->workers);
	loop_destroy(daemon->loop);
}

static int start(struct daemon *daemon, int *ret_exit, struct err *err)
{
	const struct mount_conf *conf = daemon->conf;
	struct loop_conf loop_conf = {.spin_us = conf->spin_us};
	char path[MOUNT_RUN_DIR_MAX + 16];
	int rc;

	rc = loop_create(&loop_conf, &daemon->loop, err);
	if (rc)
		return fail(ret_exit, MOUNT_EX_SYSERR, rc);
	rc = conf->source.is_donor ? open_donor(daemon, err) : open_backend(daemon, err);
	if (rc)
		return fail(ret_exit, MOUNT_EX_FAIL, rc);
	snprintf(path, sizeof(path), "%s/control", conf->run_dir);
	rc = control_create(daemon->loop, path, &control_ops, daemon, &daemon->control, err);
	if (rc)
		return fail(ret_exit, MOUNT_EX_FILEIO, rc);
	rc = watch_signals(daemon, err);
	if (rc)
		return fail(ret_exit, MOUNT_EX_SYSERR, rc);
	rc = mount_it(daemon, err);
	if (rc)
		return fail(ret_exit, MOUNT_EX_FAIL, rc);
	if (conf->lock_memory) {
		rc = lockmem_lock(err);
		if (rc)
			return fail(ret_exit, MOUNT_EX_SYSERR, rc);
	}
	return 0;
}

int serve(const struct mount_conf *conf, void (*ready)(void *ctx), void *ctx, int *ret_exit,
    struct err *err)
{
	struct daemon *daemon = calloc(1, sizeof(*daemon));
	int rc;

	if (!daemon) {
		*ret_exit = MOUNT_EX_SYSERR;
		return err_set(err, -ENOMEM, "out of memory");
	}
	daemon->conf = conf;
	daemon->fd = -1;
	daemon->signals.fd = -1;
	daemon->start_ns = loop_now_ns();
	daemon->end_timer.expired = end_check;
	rc = start(daemon, ret_exit, err);
	if (rc == 0) {
		loop_run(daemon->loop); /* until the kernel has shaken hands */
		if (daemon->gone) {
			rc = err_set(
			    err, -EIO, "%s: the kernel did not accept the mount", conf->dir);
			*ret_exit = MOUNT_EX_FAIL;
		} else {
			set_read_ahead(daemon);
			ready(ctx);
			while (!daemon->gone)
				loop_run(daemon->loop);
		}
	}
	finish(daemon);
	free(daemon);
	return rc;
}
