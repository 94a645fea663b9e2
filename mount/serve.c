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
#include "core/ahead.h"
#include "core/log.h"
#include "core/loop.h"
#include "core/managed.h"
#include "core/workers.h"
#include "fuse/fs.h"
#include "mount/caching.h"
#include "mount/control.h"
#include "mount/lockmem.h"
#include "mount/managed_control.h"
#include "mount/mountinfo.h"
#include "mount/serve_status.h"
#include "mount/swapwatch.h"

enum {
	WORKERS = 2,
	END_MS = 10,
	END_TRIES = 3000,
	AWAY_MS = 5000,
	LOOK_MS = 200, /* how long what was asked with the greeting may answer LOOKUPs */
};

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

_Static_assert((int)SOURCE_CONNS_MAX <= (int)PEER_CONNS_MAX, "what is asked for can be had");

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
	    .identity = daemon->caching ? caching_identity(daemon->caching) : NULL,
	    .soft = daemon->conf->soft,
	    .timeo_ms = daemon->conf->timeo_ms,
	    .look_ms = daemon->conf->attr_timeout_ms / 2 < LOOK_MS
			   ? daemon->conf->attr_timeout_ms / 2
			   : LOOK_MS,
	    .conns = daemon->conf->conns,
	    .ready = pool_ready,
	    .ctx = daemon,
	};
	int rc = peer_pool_create(daemon->loop, &conf, &daemon->donor, err);

	if (rc)
		return rc;
	daemon->pool = daemon->donor;
	while (!daemon->pool_answered)
		loop_run(daemon->loop);
	daemon->stats = peer_pool_stats(daemon->donor);
	*err = daemon->err;
	return daemon->err.code;
}

/* Others may write to what is shared, and a reader has no lease. */
static int open_ahead(struct daemon *daemon, struct err *err)
{
	const struct mount_conf *conf = daemon->conf;
	int rc = open_donor(daemon, err);

	if (rc || conf->shared || conf->read_only || !conf->read_ahead)
		return rc;
	rc = ahead_pool_create(daemon->donor, conf->lock_memory, &daemon->ahead, err);
	if (rc == 0)
		daemon->pool = daemon->ahead;
	return rc;
}

static int open_backend(struct daemon *daemon, struct err *err)
{
	struct local_pool_conf conf = {
	    .name = daemon->conf->source.text,
	    .uri = daemon->conf->source.text,
	    .single = true,
	    .timeo_ms = daemon->conf->soft ? daemon->conf->timeo_ms : 0,
	};
	struct backend_link link;
	int rc = workers_create(WORKERS, &daemon->workers, err);

	if (rc == 0)
		rc = local_pool_create(&conf, daemon->workers, &daemon->backend, err);
	if (rc)
		return rc;
	daemon->pool = daemon->backend;
	daemon->stats = local_pool_stats(daemon->pool);
	/* A server on this machine has to be woken for each answer: polling would take the processor from it, on
	 * which it would otherwise be woken at once. */
	if (local_pool_link(daemon->backend, &link) && link.here &&
	    !opts_given(&daemon->conf->opts, "spin_us"))
		loop_set_spin(daemon->loop, 0);
	return 0;
}

static int start_cache(
    struct daemon *daemon, const uint8_t uuid[POOL_IDENTITY_LEN], struct err *err)
{
	int rc = caching_start(daemon->caching, daemon->pool, uuid, &daemon->pool, err);

	if (rc == 0) {
		daemon->cached = true;
		daemon->stats = managed_stats(daemon->pool);
	}
	return rc;
}

/* With local copies: the directory first, as it has a say in the hello; then the donor; the copies over it. */
static int open_cached_donor(struct daemon *daemon, struct err *err)
{
	uint8_t uuid[POOL_IDENTITY_LEN];
	int rc = caching_create(daemon->conf, daemon->loop, &daemon->caching, err);

	if (rc == 0)
		rc = open_donor(daemon, err);
	if (rc)
		return rc;
	peer_pool_uuid(daemon->donor, uuid);
	return start_cache(daemon, uuid, err);
}

/* The same for an NBD server.  What is here needs no copy; and an export may have changed since a copy of an
 * earlier mount was made, which nobody tells: a copy of it lives as long as the mount. */
static int open_cached_backend(struct daemon *daemon, struct err *err)
{
	const struct mount_conf *conf = daemon->conf;
	int rc = open_backend(daemon, err);

	if (rc)
		return rc;
	if (!daemon->backend->elsewhere)
		return err_set(err, -EINVAL,
		    "%s: option 'cache' is for what is elsewhere (HOST:/POOL, nbd://…): what is here "
		    "already needs no copy",
		    conf->source.text);
	if (strcmp(conf->cache, "memory") != 0)
		return err_set(err, -EINVAL,
		    "%s: a copy in a directory would outlive the mount, and an NBD server cannot tell "
		    "whether its export was changed meanwhile: use cache=memory",
		    conf->source.text);
	rc = caching_create(conf, daemon->loop, &daemon->caching, err);
	return rc ? rc : start_cache(daemon, local_pool_uuid(daemon->backend), err);
}

static int open_pool(struct daemon *daemon, struct err *err)
{
	const struct mount_conf *conf = daemon->conf;

	if (conf->source.is_donor)
		return conf->cache ? open_cached_donor(daemon, err) : open_ahead(daemon, err);
	if (opts_given(&conf->opts, "conns"))
		return err_set(err, -EINVAL,
		    "%s: option 'conns' is for the pools of donors (HOST:/POOL); to an NBD server's URI "
		    "add ?conns=N",
		    conf->source.text);
	return conf->cache ? open_cached_backend(daemon, err) : open_backend(daemon, err);
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

/* ---- the far end ---- */

/* Whether requests wait for a donor or server that is away. */
static bool is_waiting(const struct daemon *daemon)
{
	struct peer_status status;
	struct backend_link link;

	if (!daemon->donor)
		return local_pool_link(daemon->backend, &link) && link.state == BACKEND_WAITING;
	peer_pool_status(daemon->donor, &status);
	return status.state == PEER_WAITING;
}

static void give_up(struct daemon *daemon)
{
	if (daemon->donor)
		peer_pool_give_up(daemon->donor);
	else
		local_pool_give_up(daemon->backend);
}

/* ---- what the commands ask ---- */

static int control_pin(void *ctx, uint64_t id, bool on, struct err *err)
{
	struct daemon *daemon = ctx;
	int rc;

	if (daemon->caching)
		return err_set(err, -EOPNOTSUPP,
		    "the mount has a cache, and loop devices and swap need one without: mount the pool "
		    "a second time, without cache=");
	rc = fs_pin(daemon->fs, id, on);

	return rc ? err_set(err, rc, "region %llu is not in use here", (unsigned long long)id) : 0;
}

static void control_forget(void *ctx)
{
	struct daemon *daemon = ctx;

	if (daemon->caching)
		caching_give_up(daemon->caching);
	give_up(daemon);
}

static size_t control_drain(void *ctx, char *buf, size_t room)
{
	struct daemon *daemon = ctx;

	if (!daemon->caching)
		return (size_t)snprintf(
		    buf, room, "{\"state\":\"done\",\"dirty\":0,\"errno\":0,\"error\":\"\"}");
	return caching_drain(daemon->caching, buf, room);
}

static size_t control_other(void *ctx, const char *line, char *buf, size_t room)
{
	struct daemon *daemon = ctx;

	return daemon->caching ? managed_control_answer(daemon->managed_control, line, buf, room)
			       : 0;
}

static const struct control_ops control_ops = {
    .status = serve_status,
    .pin = control_pin,
    .forget_donor = control_forget,
    .drain = control_drain,
    .other = control_other,
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
	if (daemon->gone) { /* leaving: a second time means that it takes too long */
		log_warn("%s: %s: giving up what is not pushed", daemon->conf->dir,
		    strsignal((int)info.ssi_signo));
		control_forget(daemon);
		return;
	}
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

static void end_signals(struct daemon *daemon)
{
	loop_fd_del(&daemon->signals);
	if (daemon->signals.fd >= 0)
		close(daemon->signals.fd);
}

/* ---- the end ---- */

static void end_check(struct loop_timer *timer)
{
	struct daemon *daemon =
	    (struct daemon *)((char *)timer - offsetof(struct daemon, end_timer));

	loop_stop(daemon->loop);
}

static void run_a_while(struct daemon *daemon)
{
	loop_timer_set(daemon->loop, &daemon->end_timer, loop_now_ns() + END_MS * 1000000u);
	loop_run(daemon->loop);
	loop_timer_cancel(&daemon->end_timer);
}

/* Lets what is in flight end; a donor that is away is not waited for, unless there are local copies: then it
 * may have to be. */
static bool drain(struct daemon *daemon)
{
	for (unsigned i = 0; i < END_TRIES && !fs_idle(daemon->fs); i++) {
		if (!daemon->caching && is_waiting(daemon))
			give_up(daemon);
		run_a_while(daemon);
	}
	return fs_idle(daemon->fs);
}

static void left(void *ctx)
{
	((struct daemon *)ctx)->left = true;
}

/* Pushes what is dirty, and closes the copies.  Away from a donor for AWAY_MS: a cache directory keeps what is
 * left for the next mount; copies in memory wait for the donor, or for somebody who gives up. */
static void leave(struct daemon *daemon)
{
	uint64_t away_since = 0;
	bool warned = false;

	managed_control_stop(daemon->managed_control);
	caching_leave(daemon->caching, left, daemon);
	while (!daemon->left) {
		run_a_while(daemon);
		if (!is_waiting(daemon)) {
			away_since = 0;
			continue;
		}
		if (!away_since)
			away_since = loop_now_ns();
		if (loop_now_ns() - away_since < AWAY_MS * UINT64_C(1000000))
			continue;
		if (caching_keeps(daemon->caching)) {
			caching_give_up(daemon->caching);
			give_up(daemon);
		} else if (!warned) {
			log_warn(
			    "%s: the donor is away: waiting for it, as data that it does not have "
			    "is only in this process (%d)",
			    daemon->conf->dir, (int)getpid());
			warned = true;
		}
	}
}

static void finish(struct daemon *daemon)
{
	if (daemon->mounted && !daemon->gone)
		fs_unmount(daemon->conf->dir);
	if (daemon->fs && (!daemon->gone || !drain(daemon))) {
		/* Failed between mount and first request, or requests hang in the backend: the process
		 * ends, and the kernel ends the mount. */
		end_signals(daemon);
		control_destroy(daemon->control);
		return;
	}
	if (daemon->cached)
		leave(daemon);
	end_signals(daemon);
	swapwatch_stop(daemon->swapwatch);
	control_destroy(daemon->control);
	fs_destroy(daemon->fs);
	if (daemon->fd >= 0)
		close(daemon->fd);
	if (daemon->caching)
		caching_destroy(daemon->caching);
	managed_control_destroy(daemon->managed_control);
	pool_destroy(daemon->ahead);
	pool_destroy(daemon->donor ? daemon->donor : daemon->backend);
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
	rc = open_pool(daemon, err);
	if (rc)
		return fail(ret_exit, MOUNT_EX_FAIL, rc);
	if (daemon->caching)
		rc = managed_control_create(
		    daemon->loop, daemon->pool, &daemon->managed_control, err);
	if (rc)
		return fail(ret_exit, MOUNT_EX_SYSERR, rc);
	snprintf(path, sizeof(path), "%s/control", conf->run_dir);
	rc = control_create(daemon->loop, path, &control_ops, daemon, &daemon->control, err);
	if (rc)
		return fail(ret_exit, MOUNT_EX_FILEIO, rc);
	rc = watch_signals(daemon, err);
	if (rc)
		return fail(ret_exit, MOUNT_EX_SYSERR, rc);
	if (daemon->caching && swapwatch_start(daemon->loop, conf->dir, &daemon->swapwatch))
		log_info("%s: swap on its files would not be noticed", conf->dir);
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

static void first_is_here(void *ctx)
{
	struct daemon *daemon = ctx;

	daemon->first_is_here = true;
	loop_stop(daemon->loop);
}

/* The mount answers meanwhile. */
static void pull_first(struct daemon *daemon)
{
	if (!daemon->caching)
		return;
	caching_pull_first(daemon->caching, first_is_here, daemon);
	while (!daemon->first_is_here && !daemon->gone)
		loop_run(daemon->loop);
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
			pull_first(daemon);
			ready(ctx);
			while (!daemon->gone)
				loop_run(daemon->loop);
		}
	}
	finish(daemon);
	free(daemon);
	return rc;
}
