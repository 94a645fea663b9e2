/* SPDX-License-Identifier: Apache-2.0
 *
 * The machine's part of `remram doctor`; see doctor.h.
 *
 * Each check is one function that adds its finding.  What changes a process for good (locking memory,
 * becoming an I/O flusher) is tried in a child that ends right after.
 */
#include "mount/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/uri.h"
#include "mount/lockmem.h"
#include "mount/loopdev.h"
#include "mount/sys.h"

enum {
	KERNEL_MAJOR = 5, /* the oldest kernel that is supported: 5.10 */
	KERNEL_MINOR = 10,
	FUSECTL_MAGIC = 0x65735543,
	LOOP_MAJOR_NR = 7,
	MIN_FREE_LEAST_KB = 16 * 1024,
	MIN_FREE_MOST_KB = 128 * 1024,
	WATERMARK_SCALE = 50, /* 0.5 % of memory; the default is 10 */
};

static void check_kernel(struct doctor *doctor)
{
	unsigned major_nr = 0, minor_nr = 0;
	struct utsname name;

	uname(&name);
	sscanf(name.release, "%u.%u", &major_nr, &minor_nr);
	if (major_nr > KERNEL_MAJOR || (major_nr == KERNEL_MAJOR && minor_nr >= KERNEL_MINOR))
		doctor_add(doctor, DOCTOR_PASS, "kernel", "Linux %s", name.release);
	else
		doctor_add(doctor, DOCTOR_FAIL, "kernel", "Linux %s is too old", name.release);
	doctor_advise(doctor, "use Linux %d.%d or newer", KERNEL_MAJOR, KERNEL_MINOR);
}

static void check_fuse(struct doctor *doctor)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		doctor_add(doctor, DOCTOR_PASS, "/dev/fuse", "opens");
	else
		doctor_add(doctor, DOCTOR_FAIL, "/dev/fuse", "%s", strerror(errno));
	doctor_advise(doctor, "modprobe fuse; in a container, give it the device");
	if (fd >= 0)
		close(fd);
}

static void check_fusectl(struct doctor *doctor)
{
	struct statfs fs;

	if (statfs("/sys/fs/fuse/connections", &fs) == 0 && fs.f_type == FUSECTL_MAGIC)
		doctor_add(doctor, DOCTOR_PASS, "fusectl", "mounted");
	else
		doctor_add(doctor, DOCTOR_NOTE, "fusectl", "not mounted");
	doctor_advise(doctor,
	    "mount -t fusectl fusectl /sys/fs/fuse/connections, to abort a hanging mount by hand "
	    "(`remram abort` mounts it itself)");
}

/* A request that the kernel gives up on is a swap page that is lost. */
static void check_request_timeout(struct doctor *doctor)
{
	static const char *const files[] = {"max_request_timeout", "default_request_timeout"};
	unsigned i;

	for (i = 0; i < 2; i++) {
		char path[64];
		uint64_t value = 0;
		snprintf(path, sizeof(path), "/proc/sys/fs/fuse/%s", files[i]);
		if (sys_read_u64(path, &value) == 0 && value) {
			doctor_add(doctor, DOCTOR_FAIL, "FUSE request timeout",
			    "fs.fuse.%s is %" PRIu64
			    " s: the kernel ends the mount when the donor is "
			    "away for longer",
			    files[i], value);
			doctor_advise(doctor, "sysctl fs.fuse.%s=0, before mounting", files[i]);
			return;
		}
	}
	doctor_add(doctor, DOCTOR_PASS, "FUSE request timeout", "none");
}

static void check_loop(struct doctor *doctor)
{
	bool direct_io;
	struct err err;

	if (loopdev_probe("/var/tmp", &direct_io, &err) &&
	    loopdev_probe("/run", &direct_io, &err)) {
		doctor_add(doctor, DOCTOR_FAIL, "loop devices", "%.300s", err.text);
		doctor_advise(doctor, "modprobe loop; LOOP_CONFIGURE needs Linux 5.8, and root");
	} else if (direct_io) {
		doctor_add(doctor, DOCTOR_PASS, "loop devices",
		    "attach with direct I/O and 4096-byte blocks");
	} else {
		doctor_add(doctor, DOCTOR_PASS, "loop devices",
		    "attach with 4096-byte blocks; whether with direct I/O shows at the mount");
	}
}

static void check_mkswap(struct doctor *doctor)
{
	bool found = !access("/sbin/mkswap", X_OK) || !access("/usr/sbin/mkswap", X_OK);

	doctor_add(doctor, found ? DOCTOR_PASS : DOCTOR_FAIL, "mkswap",
	    found ? "installed" : "not installed");
	doctor_advise(doctor, "install util-linux");
}

/* ---- tried in a child -------------------------------------------------------------------------- */

struct trial {
	struct lockmem_refused refused;
	int lock_code;
	struct err lock_err;
};

/* Fills *trial, which is shared with the child that tries. */
static bool run_trial(struct trial *trial)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		lockmem_prepare(&trial->refused);
		trial->lock_code = lockmem_lock(&trial->lock_err);
		_exit(0);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status);
}

static void report_trial(struct doctor *doctor, const struct trial *trial)
{
	if (trial->lock_code == 0)
		doctor_add(doctor, DOCTOR_PASS, "locking memory", "mlockall works");
	else
		doctor_add(doctor, DOCTOR_FAIL, "locking memory", "%.300s", trial->lock_err.text);
	doctor_advise(doctor, "run as root with CAP_IPC_LOCK, or raise RLIMIT_MEMLOCK");

	if (!trial->refused.io_flusher[0])
		doctor_add(doctor, DOCTOR_PASS, "I/O flusher", "PR_SET_IO_FLUSHER works");
	else
		doctor_add(doctor, DOCTOR_WARN, "I/O flusher", "%s", trial->refused.io_flusher);
	doctor_advise(doctor,
	    "give the mount command CAP_SYS_RESOURCE; without it keep more memory free "
	    "(vm.min_free_kbytes)");

	if (!trial->refused.oom_score[0])
		doctor_add(doctor, DOCTOR_PASS, "OOM protection", "oom_score_adj = -1000 works");
	else
		doctor_add(doctor, DOCTOR_WARN, "OOM protection", "%s", trial->refused.oom_score);
	doctor_advise(doctor,
	    "give the mount command CAP_SYS_RESOURCE; without it the OOM killer may choose the "
	    "daemon, and what is swapped out is lost");
}

static void check_process(struct doctor *doctor)
{
	struct trial *trial =
	    mmap(NULL, sizeof(*trial), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (trial == MAP_FAILED)
		return;
	if (run_trial(trial))
		report_trial(doctor, trial);
	else
		doctor_add(
		    doctor, DOCTOR_FAIL, "locking memory", "a process that tried it was killed");
	munmap(trial, sizeof(*trial));
}

/* ---- the kernel's settings --------------------------------------------------------------------- */

static void check_min_free(struct doctor *doctor)
{
	uint64_t total_kb = 0, have_kb, want_kb;

	if (sys_read_u64("/proc/sys/vm/min_free_kbytes", &have_kb) ||
	    sys_read_key("/proc/meminfo", "MemTotal", &total_kb))
		return;
	want_kb = total_kb / 100;
	if (want_kb < MIN_FREE_LEAST_KB)
		want_kb = MIN_FREE_LEAST_KB;
	if (want_kb > MIN_FREE_MOST_KB)
		want_kb = MIN_FREE_MOST_KB;
	doctor_add(doctor, have_kb >= want_kb ? DOCTOR_PASS : DOCTOR_WARN, "vm.min_free_kbytes",
	    "%" PRIu64, have_kb);
	doctor_advise(doctor,
	    "sysctl vm.min_free_kbytes=%" PRIu64
	    ": sockets need free memory to send the pages that make memory free",
	    want_kb);
}

static void check_watermark(struct doctor *doctor)
{
	uint64_t value;

	if (sys_read_u64("/proc/sys/vm/watermark_scale_factor", &value))
		return;
	doctor_add(doctor, value >= WATERMARK_SCALE ? DOCTOR_PASS : DOCTOR_NOTE, "watermark scale",
	    "vm.watermark_scale_factor is %" PRIu64, value);
	doctor_advise(doctor,
	    "sysctl vm.watermark_scale_factor=%d starts swapping earlier, so that fewer programs "
	    "wait for it",
	    WATERMARK_SCALE);
}

static void check_swappiness(struct doctor *doctor)
{
	uint64_t value;

	if (sys_read_u64("/proc/sys/vm/swappiness", &value))
		return;
	doctor_add(doctor, value ? DOCTOR_PASS : DOCTOR_WARN, "vm.swappiness", "%" PRIu64, value);
	doctor_advise(doctor, "sysctl vm.swappiness=60: at 0 the kernel swaps only in distress");
}

static void check_readahead(struct doctor *doctor)
{
	char vma[16] = "?";
	uint64_t cluster;

	if (sys_read_u64("/proc/sys/vm/page-cluster", &cluster))
		return;
	sys_read_text("/sys/kernel/mm/swap/vma_ra_enabled", vma, sizeof(vma));
	doctor_add(doctor, cluster >= 5 ? DOCTOR_PASS : DOCTOR_NOTE, "swap readahead",
	    "vm.page-cluster is %" PRIu64 ", vma_ra_enabled is %s", cluster, vma);
	doctor_advise(doctor, "only if the donor is a millisecond away and programs read in order: "
			      "echo false > /sys/kernel/mm/swap/vma_ra_enabled; sysctl "
			      "vm.page-cluster=8 (both hold for "
			      "all swap)");
}

static void check_zswap(struct doctor *doctor)
{
	char text[16];

	if (sys_read_text("/sys/module/zswap/parameters/enabled", text, sizeof(text)) < 0)
		doctor_add(doctor, DOCTOR_NOTE, "zswap", "not in this kernel");
	else
		doctor_add(doctor, text[0] == 'Y' || text[0] == '1' ? DOCTOR_PASS : DOCTOR_NOTE,
		    "zswap", text[0] == 'Y' || text[0] == '1' ? "on" : "off");
	doctor_advise(doctor,
	    "echo Y > /sys/module/zswap/parameters/enabled keeps compressed pages in memory before "
	    "they go to the donor");
}

/* An image on swap that needs the network to be read can never be resumed from. */
static void check_hibernation(struct doctor *doctor)
{
	unsigned major_nr = 0, minor_nr = 0;
	char text[64];

	if (sys_read_text("/sys/power/resume", text, sizeof(text)) < 0 ||
	    sscanf(text, "%u:%u", &major_nr, &minor_nr) != 2 || major_nr != LOOP_MAJOR_NR) {
		doctor_add(doctor, DOCTOR_PASS, "hibernation", "not to a loop device");
		return;
	}
	doctor_add(
	    doctor, DOCTOR_WARN, "hibernation", "the resume device is /dev/loop%u", minor_nr);
	doctor_advise(
	    doctor, "take resume= to another device: a donor's swap cannot be resumed from");
}

void doctor_machine(struct doctor *doctor)
{
	check_kernel(doctor);
	check_fuse(doctor);
	check_fusectl(doctor);
	check_request_timeout(doctor);
	check_loop(doctor);
	check_mkswap(doctor);
	check_process(doctor);
	check_min_free(doctor);
	check_watermark(doctor);
	check_swappiness(doctor);
	check_readahead(doctor);
	check_zswap(doctor);
	check_hibernation(doctor);
}
