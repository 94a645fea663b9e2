/* SPDX-License-Identifier: Apache-2.0
 *
 * One mount's part of `remram doctor`; see doctor.h.
 *
 * Looks at every loop device on a file of the mount, also at those that were attached by hand: swap on
 * one of these is as dangerous when its conditions are not met.
 */
#include "mount/doctor.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "core/uri.h"
#include "mount/attach.h"
#include "mount/cgroup.h"
#include "mount/fusectl.h"
#include "mount/loopdev.h"
#include "mount/mountinfo.h"
#include "mount/swapdev.h"
#include "mount/swapwatch.h"
#include "mount/sys.h"

enum {
	BACKGROUND_LEAST =
	    256, /* with the kernel's default of 12 a loop device is 5 times slower */
	READ_AHEAD_LEAST_KB = 1024,
	LOCKED_PCT = 90,
};

static bool check_daemon(struct doctor *doctor, const struct status *status)
{
	const char *state = json_string(json_find(status->daemon, "connection.state"), "connected");

	if (status->health != STATUS_LIVE) {
		doctor_add(doctor, DOCTOR_FAIL, "daemon", "%.300s",
		    status->health == STATUS_DEAD ? "it has died" : status->trouble);
		doctor_advise(doctor, "%s",
		    status->health == STATUS_SILENT
			? "`remram abort` and umount -f, if it does not recover"
		    : status->health == STATUS_LEAVING ? "umount.remram waits for it"
						       : "umount cleans up");
		return false;
	}
	doctor_add(doctor, DOCTOR_PASS, "daemon", "answers");
	if (!strcmp(state, "connected"))
		doctor_add(doctor, DOCTOR_PASS, "donor", "connected");
	else
		doctor_add(doctor, DOCTOR_FAIL, "donor", "not connected (%s)", state);
	doctor_advise(
	    doctor, "see that the donor runs and can be reached; umount -f gives up on it");
	return true;
}

static void check_locked(struct doctor *doctor, pid_t pid)
{
	uint64_t locked_kb = 0, rss_kb = 0;
	char path[64], locked[SIZE_TEXT_MAX], rss[SIZE_TEXT_MAX];

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	if (sys_read_key(path, "VmLck", &locked_kb) || sys_read_key(path, "VmRSS", &rss_kb))
		return;
	doctor_add(doctor, locked_kb * 100 >= rss_kb * LOCKED_PCT ? DOCTOR_PASS : DOCTOR_FAIL,
	    "daemon in memory", "%s locked, %s resident", size_format(locked_kb * 1024, locked),
	    size_format(rss_kb * 1024, rss));
	doctor_advise(doctor,
	    "a daemon that can be swapped out to itself hangs the machine: mount with swap=, "
	    "attach= or mlock");
}

static void check_oom_score(struct doctor *doctor, pid_t pid)
{
	char text[16];

	if (sys_read_textf(text, sizeof(text), "/proc/%d/oom_score_adj", (int)pid) < 0)
		return;
	doctor_add(doctor, atoi(text) == -1000 ? DOCTOR_PASS : DOCTOR_WARN, "OOM protection",
	    "the daemon's oom_score_adj is %s", text);
	doctor_advise(doctor,
	    "the OOM killer may choose the daemon: echo -1000 > /proc/%d/oom_score_adj, with "
	    "CAP_SYS_RESOURCE",
	    (int)pid);
}

static void check_cgroup(struct doctor *doctor, pid_t pid)
{
	char group[PATH_MAX], size[SIZE_TEXT_MAX];
	uint64_t limit;

	if (cgroup_memory_limit(pid, &limit, group)) {
		doctor_add(doctor, DOCTOR_PASS, "memory cgroup", "no limit binds the daemon");
		return;
	}
	doctor_add(doctor, DOCTOR_WARN, "memory cgroup", "the daemon is limited to %s by %.200s",
	    size_format(limit, size), group);
	doctor_advise(doctor, "when the group is full the daemon waits for its own swap: mount "
			      "from outside the group");
}

static void check_background(struct doctor *doctor, unsigned connection)
{
	uint64_t value;
	int res = fusectl_read(connection, "max_background", &value);

	if (res)
		doctor_add(doctor, DOCTOR_WARN, "max_background", "%s", strerror(-res));
	else
		doctor_add(doctor, value >= BACKGROUND_LEAST ? DOCTOR_PASS : DOCTOR_WARN,
		    "max_background", "%" PRIu64, value);
	doctor_advise(doctor,
	    "echo %d > /sys/fs/fuse/connections/%u/max_background: it bounds what a loop device "
	    "has "
	    "in flight",
	    BACKGROUND_LEAST, connection);
}

static void check_read_ahead(struct doctor *doctor, dev_t dev)
{
	char text[32];

	if (sys_read_textf(text, sizeof(text), "/sys/class/bdi/%u:%u/read_ahead_kb", major(dev),
		minor(dev)) < 0)
		return;
	doctor_add(doctor, atoi(text) >= READ_AHEAD_LEAST_KB ? DOCTOR_PASS : DOCTOR_NOTE,
	    "read_ahead", "%s KiB", text);
	doctor_advise(doctor, "mount with read_ahead=4M: sequential reads and mmaps get faster");
}

/* ---- loop devices ------------------------------------------------------------------------------ */

/* Nothing can refuse what is made by hand. */
static void check_copy(struct doctor *doctor, const struct loopdev *loop, bool is_swap)
{
	doctor_add(doctor, is_swap ? DOCTOR_FAIL : DOCTOR_WARN, "cache",
	    "%s%s is on a region with a local copy", is_swap ? "swap on " : "", loop->path);
	doctor_advise(doctor,
	    "when memory is short, the copy and what is written back to it wait for each other, and "
	    "the machine hangs: %s %s, and mount with %s and without cache=",
	    is_swap ? "swapoff" : "losetup -d", loop->path, is_swap ? "swap=" : "attach=");
}

static void check_device(
    struct doctor *doctor, const struct loopdev *loop, const struct swapdev *swap)
{
	char size[SIZE_TEXT_MAX];

	if (swap)
		doctor_add(doctor, DOCTOR_PASS, "swap", "%s on %s, %.200s",
		    size_format(swap->size, size), loop->path, loop->file);
	else
		doctor_add(
		    doctor, DOCTOR_PASS, "loop device", "%s on %.200s", loop->path, loop->file);
	doctor_add(doctor, loop->direct_io ? DOCTOR_PASS : DOCTOR_FAIL, "direct I/O", "%s: %s",
	    loop->path, loop->direct_io ? "on" : "OFF");
	doctor_advise(doctor,
	    "without it swapping out frees no memory, and one request runs at a time: losetup "
	    "--direct-io=on %s",
	    loop->path);
	doctor_add(doctor, loop->block_size == LOOPDEV_BLOCK ? DOCTOR_PASS : DOCTOR_WARN,
	    "block size", "%s: %u bytes", loop->path, loop->block_size);
	doctor_advise(doctor, "attach it with losetup --sector-size %d", LOOPDEV_BLOCK);
}

struct devices {
	struct doctor *doctor;
	bool cached; /* the mount has local copies */
	unsigned count;
};

static bool device_each(void *ctx, const struct loopdev *loop, const struct swapdev *swap)
{
	struct devices *devices = ctx;

	devices->count++;
	check_device(devices->doctor, loop, swap);
	if (devices->cached)
		check_copy(devices->doctor, loop, swap != NULL);
	return true;
}

/* Is what the mount command attached still there? */
static void check_recorded(
    struct doctor *doctor, const struct runstate *state, const struct runstate_device *dev)
{
	struct loopdev loop;
	struct swapdev swap;

	if (attach_inspect(state, dev, &loop)) {
		doctor_add(doctor, DOCTOR_FAIL, "loop device",
		    "region %.100s is not attached any more", dev->region);
		doctor_advise(doctor, "unmount and mount again");
	} else if (dev->swap && swapdev_find(dev->device, &swap, NULL)) {
		doctor_add(
		    doctor, DOCTOR_FAIL, "swap", "%s is not switched on any more", dev->device);
		doctor_advise(doctor, "swapon %s, or unmount and mount again", dev->device);
	} else if (dev->swap) {
		doctor_add(doctor, dev->discard ? DOCTOR_PASS : DOCTOR_NOTE, "discard", "%s",
		    dev->discard ? "on" : "off");
		doctor_advise(
		    doctor, "mount with discard to give memory back to the donor as swap empties");
	}
}

void doctor_mount(struct doctor *doctor, const struct status *status)
{
	struct devices devices = {
	    .doctor = doctor,
	    .cached = json_type(json_find(status->daemon, "cache")) == JSON_OBJECT,
	};
	pid_t pid = (pid_t)json_number(json_find(status->daemon, "pid"), status->state.pid);
	struct mountinfo info;
	unsigned i;

	snprintf(doctor->where, sizeof(doctor->where), "%s", status->state.dir);
	if (!check_daemon(doctor, status) || mountinfo_find(status->state.dir, &info))
		return;
	check_background(doctor, fusectl_connection(info.dev));
	check_read_ahead(doctor, info.dev);
	for (i = 0; i < status->state.device_count; i++)
		check_recorded(doctor, &status->state, &status->state.devices[i]);
	swapwatch_each(status->state.dir, device_each, &devices);
	if (devices.count == 0) {
		doctor_add(doctor, DOCTOR_PASS, "loop devices", "none: no swap to be careful with");
		return;
	}
	check_locked(doctor, pid);
	check_oom_score(doctor, pid);
	check_cgroup(doctor, pid);
}
