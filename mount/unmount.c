/* SPDX-License-Identifier: Apache-2.0
 *
 * Undoing a mount; see unmount.h.
 *
 * Everything that can be found out beforehand is found out before the first change, since the first
 * change, swapoff, may take minutes and is what the user would have to redo.  The state of a mount
 * comes from mount.conf; where that is missing (the mount command was killed early), from the mount
 * table, the control socket and the list of loop devices.
 *
 * A mount is live, dead (the daemon ended, the mount is still there and answers ENOTCONN), leaving (somebody
 * else unmounted it, SIGTERM for one, and the daemon is still there: for files that are open, or with
 * data for the donor), or gone (only run_dir is left).  Dead and gone ones are cleaned up; a leaving one is
 * waited for as a live one is.
 */
#include "mount/unmount.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "mount/attach.h"
#include "mount/busy.h"
#include "mount/control.h"
#include "mount/fusectl.h"
#include "mount/json.h"
#include "mount/loopdev.h"
#include "mount/mountinfo.h"
#include "mount/progress.h"
#include "mount/swapdev.h"
#include "mount/sys.h"
#include "mount/utab.h"

enum {
	STATUS_MS = 5000,
	FORGET_MS = 2000,
	DAEMON_MS = 60000, /* for a daemon to end that has nothing left to do */
	FORCE_MS = 5000,
	DRAIN_MS = 100,
	AWAY_MS = 3000, /* for a donor that is only just reconnecting */
	DYING_MS = 500, /* an aborted daemon is gone by then */
	RETRY_MS = 50,
	BUSY_MS = 1000, /* somebody who only looks (udev, updatedb) is gone by then */
};

struct job {
	const struct unmount *how;
	struct runstate state;
	struct mountinfo info;
	bool mounted; /* info is valid */
	bool alive; /* the daemon runs */
	struct attach attach;
};

static void control_path(const struct job *job, char path[MOUNT_RUN_DIR_MAX + 16])
{
	snprintf(path, MOUNT_RUN_DIR_MAX + 16, "%s/control", job->how->run_dir);
}

/* The daemon's answer to "status", or NULL. */
static struct json *ask_status(const struct job *job, struct err *err)
{
	char path[MOUNT_RUN_DIR_MAX + 16], *answer;
	struct json *doc = NULL;

	control_path(job, path);
	if (control_ask(path, "status", STATUS_MS, &answer, err))
		return NULL;
	json_parse(answer, strlen(answer), &doc, err);
	free(answer);
	return doc;
}

/* ---- what is there ----------------------------------------------------------------------------- */

static bool add_loop(void *ctx, const struct loopdev *loop)
{
	struct runstate *state = ctx;
	struct runstate_device *dev = &state->devices[state->device_count];
	size_t len = strlen(state->dir);
	const char *region = loop->file + len + 1;
	struct swapdev swap;

	if (strncmp(loop->file, state->dir, len) || loop->file[len] != '/')
		return true;
	if (strlen(region) > POOL_NAME_MAX)
		return true;
	memset(dev, 0, sizeof(*dev));
	strcpy(dev->region, region);
	strcpy(dev->device, loop->path);
	dev->swap = swapdev_find(loop->path, &swap, NULL) == 0;
	dev->read_only = loop->read_only;
	dev->prio = MOUNT_PRIO_NONE;
	return ++state->device_count < RUNSTATE_DEVICES_MAX;
}

/* Without mount.conf: what can be seen from outside. */
static void reconstruct(struct job *job)
{
	struct err ignored;
	struct json *doc;

	memset(&job->state, 0, sizeof(job->state));
	snprintf(job->state.dir, sizeof(job->state.dir), "%s", job->how->dir);
	snprintf(job->state.source, sizeof(job->state.source), "%s", job->info.source);
	loopdev_each(add_loop, &job->state);
	doc = ask_status(job, &ignored);
	job->state.pid = (pid_t)json_number(json_find(doc, "pid"), 0);
	job->state.start = sys_process_start(job->state.pid);
	json_destroy(doc);
}

static bool has_ended(int daemon_fd)
{
	struct pollfd ended = {.fd = daemon_fd, .events = POLLIN};

	return poll(&ended, 1, 0) > 0;
}

static int look(struct job *job, struct err *err)
{
	struct err ignored;
	int res;

	job->mounted = mountinfo_find(job->how->dir, &job->info) == 0;
	if (job->mounted && strcmp(job->info.type, MOUNTINFO_TYPE))
		return err_set(err, -EINVAL, "%s is no remram mount (its type is %s)",
		    job->how->dir, job->info.type);
	res = runstate_load(job->how->run_dir, &job->state, &ignored);
	if (res && !job->mounted)
		return err_set(err, -ENOENT, "%s is not mounted", job->how->dir);
	if (res)
		reconstruct(job);
	job->alive = runstate_alive(&job->state) && !has_ended(job->how->daemon_fd);
	job->attach = (struct attach){.run_dir = job->how->run_dir,
	    .state = &job->state,
	    .interrupted = job->how->interrupted};
	return 0;
}

/* ---- steps ------------------------------------------------------------------------------------- */

/* Waits for the end of the daemon: false if it still runs after timeout_ms. */
static bool wait_daemon(const struct unmount *how, pid_t pid, unsigned timeout_ms)
{
	struct pollfd ended = {.events = POLLIN};
	bool own = how->daemon_fd < 0;
	uint64_t end = sys_now_ms() + timeout_ms, now;
	bool gone = false;

	ended.fd = own ? sys_pidfd(pid) : how->daemon_fd;
	if (ended.fd < 0)
		return !sys_process_alive(pid, 0);
	while (!gone && (now = sys_now_ms()) < end) {
		gone = poll(&ended, 1, (int)(end - now)) > 0;
		if (how->interrupted && *how->interrupted)
			break;
	}
	if (own)
		close(ended.fd);
	return gone;
}

/* With a lost donor swapoff would wait, unkillable, for as long as the donor is away.  -ESRCH: the
 * daemon has just died. */
static int check_donor(const struct job *job, struct err *err)
{
	struct json *doc = ask_status(job, err);
	const char *state = json_string(json_find(doc, "connection.state"), "connected");
	int res = 0;

	if (!doc && wait_daemon(job->how, job->state.pid, DYING_MS))
		res = -ESRCH;
	else if (!doc)
		res = err_set(err, -EHOSTUNREACH,
		    "%s: the daemon (process %d) does not answer; umount -f gives up on it, and "
		    "loses what it has not sent",
		    job->how->dir, (int)job->state.pid);
	else if (!strcmp(state, "failed"))
		res = err_set(err, -EHOSTUNREACH,
		    "%s: what was swapped out to %s is lost at the donor (see the system log); "
		    "umount -f gives it up",
		    job->how->dir, job->state.source);
	else if (strcmp(state, "connected"))
		res = err_set(err, -EHOSTUNREACH,
		    "%s: the donor of %s is not reachable: wait until it is back, or use umount "
		    "-f, "
		    "which loses what is swapped out there",
		    job->how->dir, job->state.source);
	json_destroy(doc);
	return res;
}

static int check_busy(const struct job *job, struct err *err)
{
	const char *known[RUNSTATE_DEVICES_MAX + 1] = {NULL};
	char text[BUSY_TEXT_MAX];
	unsigned i;

	for (i = 0; i < job->state.device_count; i++)
		known[i] = job->state.devices[i].device;
	if (busy_mount(job->how->dir, job->info.dev, known, text))
		return err_set(err, -EBUSY, "%s is in use: %s", job->how->dir, text);
	return 0;
}

/* Everything that speaks against undoing the devices. */
static int check_devices(struct job *job, struct err *err)
{
	int res;

	if (job->state.device_count == 0)
		return 0;
	res = check_donor(job, err);
	if (res == 0 && !job->how->lazy)
		res = check_busy(job, err);
	if (res == 0)
		res = detach_check(&job->state, err);
	return res;
}

/* umount(2); somebody who only looks is given a moment.  Nothing is synced before it: a mount that nobody
 * uses has no dirty pages (close and munmap write them), and with a lost donor that would wait in a
 * state in which no signal reaches us: fsync for the lock that whoever looks up a name holds. */
static int unmount_dir(const struct job *job, struct err *err)
{
	int flags =
	    UMOUNT_NOFOLLOW | (job->how->lazy ? MNT_DETACH : 0) | (job->how->force ? MNT_FORCE : 0);
	uint64_t end = sys_now_ms() + BUSY_MS;
	char text[BUSY_TEXT_MAX];
	const char *none[] = {NULL};

	while (umount2(job->how->dir, flags)) {
		int code = -errno;
		if (code == -EBUSY && job->how->force && !(flags & MNT_DETACH)) {
			flags |= MNT_DETACH;
			continue;
		}
		if (code != -EBUSY)
			return err_sys(err, code, "%s: cannot unmount it", job->how->dir);
		if (busy_mount(job->how->dir, job->info.dev, none, text))
			return err_set(err, code, "%s is in use: %s", job->how->dir, text);
		if (sys_now_ms() >= end)
			return err_set(err, code, "%s is in use", job->how->dir);
		sys_sleep_ms(RETRY_MS);
	}
	return 0;
}

/* ---- a live mount ------------------------------------------------------------------------------ */

/* Puts swap and loop devices back after a failed unmount; adds to err if that fails as well. */
static void put_back(struct job *job, struct err *err)
{
	struct attach again = job->attach;
	struct err failed;
	char first[ERR_TEXT_MAX];

	again.interrupted = NULL;
	if (attach_again(&again, &failed) == 0)
		return;
	memcpy(first, err->text, sizeof(first));
	err_set(err, err->code, "%.200s; and its devices could not be attached again: %.250s",
	    first, failed.text);
}

/* ---- what only this client has ---- */

static int drain_failed(const struct job *job, uint64_t dirty, const char *why, struct err *err)
{
	return err_set(err, -EHOSTUNREACH,
	    "%s: %llu bytes that were written here are not at the donor: %s; %s -f %s all the same "
	    "(a cache directory keeps them, memory does not)",
	    job->how->dir, (unsigned long long)dirty, why,
	    job->mounted ? "umount" : "umount.remram",
	    job->mounted ? "unmounts" : "ends the daemon");
}

/* Whether the donor can't be reached; *ret_dirty: what the daemon has for it. */
static bool donor_is_away(const struct job *job, uint64_t *ret_dirty)
{
	struct err ignored;
	struct json *doc = ask_status(job, &ignored);
	const char *state = json_string(json_find(doc, "connection.state"), "connected");
	bool away = strcmp(state, "connected") != 0;

	*ret_dirty = (uint64_t)json_number(json_find(doc, "cache.dirty"), 0);
	json_destroy(doc);
	return away;
}

/* Asks once: 1 if there is more to wait for, 0 if all is at the donor. */
static int drain_once(const struct job *job, uint64_t *ret_dirty, struct err *err)
{
	char path[MOUNT_RUN_DIR_MAX + 16], why[ERR_TEXT_MAX / 2], *answer;
	struct json *doc = NULL;
	int res;

	control_path(job, path);
	if (control_ask(path, "drain", STATUS_MS, &answer, err))
		return 0; /* it has ended, or does not answer: the next steps find that out */
	json_parse(answer, strlen(answer), &doc, err);
	free(answer);
	*ret_dirty = (uint64_t)json_number(json_find(doc, "dirty"), 0);
	snprintf(why, sizeof(why), "%s", json_string(json_find(doc, "error"), ""));
	res = !strcmp(json_string(json_find(doc, "state"), "done"), "running");
	json_destroy(doc);
	return res || !why[0] ? res : drain_failed(job, *ret_dirty, why, err);
}

/* All that is dirty goes to the donor, as long as that takes: afterwards nothing but the end of a process
 * is left to wait for.  Shows how far it is where somebody looks. */
static int drain(const struct job *job, struct err *err)
{
	struct progress progress;
	uint64_t dirty = 0, most = 0;
	unsigned away = 0;
	int res;

	progress_begin(&progress, stderr, "pushing", false);
	while ((res = drain_once(job, &dirty, err)) == 1) {
		if (job->how->interrupted && *job->how->interrupted)
			res = err_set(err, -EINTR, "interrupted");
		else if (!donor_is_away(job, &dirty))
			away = 0;
		else if (++away * DRAIN_MS >= AWAY_MS)
			res = drain_failed(job, dirty, "it cannot be reached", err);
		if (res < 0)
			break;
		if (dirty > most)
			most = dirty;
		progress_show(&progress, most - dirty, most, sys_now_ms());
		sys_sleep_ms(DRAIN_MS);
	}
	progress_clear(&progress);
	return res;
}

static int unmount_live(struct job *job, struct err *err)
{
	int res = check_devices(job, err);

	if (res == 0 && !job->how->lazy)
		res = drain(job, err);

	if (res)
		return res;
	res = detach_all(&job->attach, err);
	if (res == 0)
		res = unmount_dir(job, err);
	if (res) {
		put_back(job, err);
		return res;
	}
	if (!job->how->lazy && !wait_daemon(job->how, job->state.pid, DAEMON_MS))
		return err_set(err, -EBUSY,
		    "%s is unmounted, but its daemon (process %d) has not ended yet; see the "
		    "system log",
		    job->how->dir, (int)job->state.pid);
	runstate_remove(job->how->run_dir);
	return 0;
}

/* ---- by force ---------------------------------------------------------------------------------- */

void unmount_give_up(const char *run_dir, dev_t dev)
{
	char path[MOUNT_RUN_DIR_MAX + 16];
	struct err ignored;

	snprintf(path, sizeof(path), "%s/control", run_dir);
	if (control_command(path, "forget-donor", NULL, FORGET_MS, &ignored))
		fusectl_abort(fusectl_connection(dev), &ignored);
}

static int unmount_force(struct job *job, struct err *err)
{
	int res;

	unmount_give_up(job->how->run_dir, job->info.dev);
	res = detach_all(&job->attach, err);
	if (res)
		return res;
	/* MNT_FORCE ends the connection too.  It must not be aborted by its number after this, as a
	 * new mount may have got the number. */
	res = unmount_dir(job, err);
	if (res)
		return res;
	if (job->state.pid && !wait_daemon(job->how, job->state.pid, FORCE_MS) &&
	    sys_process_alive(job->state.pid, job->state.start))
		kill(job->state.pid, SIGKILL);
	runstate_remove(job->how->run_dir);
	return 0;
}

/* ---- one that is leaving ------------------------------------------------------------------------ */

/* Until the daemon has ended: as long as it has something to push to a donor that is there. */
static int wait_leaving(const struct job *job, struct err *err)
{
	uint64_t dirty, most = 0, end = sys_now_ms() + DAEMON_MS;
	struct progress progress;
	unsigned away = 0;
	bool is_away;
	int res = 0;

	progress_begin(&progress, stderr, "pushing", false);
	while (res == 0 && !wait_daemon(job->how, job->state.pid, DRAIN_MS)) {
		is_away = donor_is_away(job, &dirty);
		away = dirty && is_away ? away + 1 : 0;
		if (dirty > most)
			most = dirty;
		if (dirty)
			end = sys_now_ms() + DAEMON_MS;
		if (job->how->interrupted && *job->how->interrupted)
			res = err_set(err, -EINTR, "interrupted");
		else if (away * DRAIN_MS >= AWAY_MS)
			res = drain_failed(job, dirty, "it cannot be reached", err);
		else if (sys_now_ms() >= end)
			res = err_set(err, -EBUSY,
			    "%s is unmounted, but its daemon (process %d) is still there: files of it are "
			    "open, or see the system log",
			    job->how->dir, (int)job->state.pid);
		progress_show(&progress, most - dirty, most, sys_now_ms());
	}
	progress_clear(&progress);
	return res;
}

static int unmount_leaving(struct job *job, char *note, struct err *err)
{
	char path[MOUNT_RUN_DIR_MAX + 16];
	struct err ignored;
	int res = 0;

	control_path(job, path);
	if (job->how->force)
		control_command(path, "forget-donor", NULL, FORGET_MS, &ignored);
	else if (job->state.device_count && (res = check_donor(job, err)) == 0)
		res = detach_check(&job->state, err);
	if (res == 0)
		res = detach_all(&job->attach, err);
	if (res)
		return res;
	if (job->how->force) {
		if (!wait_daemon(job->how, job->state.pid, FORCE_MS) &&
		    sys_process_alive(job->state.pid, job->state.start))
			kill(job->state.pid, SIGKILL);
	} else if (!job->how->lazy) {
		res = wait_leaving(job, err);
		if (res)
			return res;
	} else {
		return 0;
	}
	snprintf(note, ERR_TEXT_MAX,
	    "%s was not mounted any more; its daemon (process %d) has ended", job->how->dir,
	    (int)job->state.pid);
	runstate_remove(job->how->run_dir);
	return 0;
}

/* ---- a dead or gone one ------------------------------------------------------------------------ */

static int unmount_dead(struct job *job, char *note, struct err *err)
{
	struct err ignored;
	int res;

	/* The kernel ends the connection with its daemon, unless a thread of that waits in the kernel for a page, with
	 * the device open (fuse/lease.c): then everybody waits. */
	if (job->mounted && job->state.pid)
		fusectl_abort(fusectl_connection(job->info.dev), &ignored);
	res = detach_all(&job->attach, err);
	if (res)
		return res;
	if (job->mounted && umount2(job->how->dir, UMOUNT_NOFOLLOW | MNT_DETACH))
		return err_sys(err, -errno, "%s: cannot unmount it", job->how->dir);
	if (job->mounted && job->state.pid)
		snprintf(note, ERR_TEXT_MAX,
		    "%s: its daemon (process %d) had died; cleaned up, data that it had not sent "
		    "is lost, but for what its cache directory has (if it had cache=DIRECTORY)",
		    job->how->dir, (int)job->state.pid);
	else if (job->mounted)
		snprintf(note, ERR_TEXT_MAX, "%s: its daemon had died; cleaned up", job->how->dir);
	else
		snprintf(note, ERR_TEXT_MAX,
		    "%s was not mounted any more; what was left of the mount is cleaned up",
		    job->how->dir);
	runstate_remove(job->how->run_dir);
	return 0;
}

int unmount_run(const struct unmount *unmount, char *ret_note, struct err *err)
{
	struct job *job = calloc(1, sizeof(*job));
	int res;

	ret_note[0] = '\0';
	if (!job)
		return err_sys(err, -ENOMEM, "%s", unmount->dir);
	job->how = unmount;
	res = look(job, err);
	if (res == 0 && !job->alive)
		res = unmount_dead(job, ret_note, err);
	else if (res == 0 && !job->mounted)
		res = unmount_leaving(job, ret_note, err);
	else if (res == 0 && unmount->force)
		res = unmount_force(job, err);
	else if (res == 0)
		res = unmount_live(job, err);
	if (res == -ESRCH)
		res = unmount_dead(job, ret_note, err);
	if (res == 0)
		utab_remove(job->state.source, unmount->dir);
	free(job);
	return res;
}

/* Is something attached that could not be undone? */
static bool has_devices(const char *run_dir)
{
	struct runstate state;
	struct loopdev loop;
	struct err ignored;
	unsigned i;

	if (runstate_load(run_dir, &state, &ignored))
		return false;
	for (i = 0; i < state.device_count; i++) {
		if (attach_inspect(&state, &state.devices[i], &loop) == 0)
			return true;
	}
	return false;
}

static void detach_ours(const char *dir)
{
	struct mountinfo info;

	if (mountinfo_find(dir, &info) || strcmp(info.type, MOUNTINFO_TYPE))
		return;
	umount2(dir, UMOUNT_NOFOLLOW | MNT_DETACH);
	utab_remove(info.source, dir);
}

void unmount_abandon(const struct unmount *unmount, pid_t daemon)
{
	struct unmount patient = *unmount;

	patient.interrupted = NULL;
	detach_ours(unmount->dir);
	if (!wait_daemon(&patient, daemon, FORCE_MS)) {
		kill(daemon, SIGKILL);
		wait_daemon(&patient, daemon, FORCE_MS);
	}
	/* It may have mounted after we had looked. */
	detach_ours(unmount->dir);
	if (!has_devices(unmount->run_dir))
		runstate_remove(unmount->run_dir);
}
