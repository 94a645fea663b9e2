/* SPDX-License-Identifier: Apache-2.0
 *
 * Swap on a block device; see swapdev.h.
 *
 * A swap signature is the ten bytes SWAPSPACE2 at the end of the first page, whatever the page size
 * of the machine that made it.  A hibernation image has another signature there, and counts as
 * something else.
 *
 * swapoff(2) runs in a child: under memory pressure the kernel picks the process in swapoff as the
 * first to be killed, and then the command must be there to tell what happened.
 */
#include "mount/swapdev.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/uri.h"
#include "mount/conf.h"
#include "mount/escape.h"
#include "mount/sys.h"

enum {
	SCAN_BYTES = 1 << 20,
	SIGNATURE_BYTES = 10,
	POLL_MS = 100, /* how soon an interruption is noticed */
};

#ifndef SWAP_FLAG_DISCARD_PAGES /* linux/swap.h; not in glibc's headers */
#define SWAP_FLAG_DISCARD_PAGES 0x40000
#endif

#define SIGNATURE "SWAPSPACE2"

static int has_signature(int fd, uint64_t size, bool *ret_has)
{
	uint64_t page;

	*ret_has = false;
	for (page = 4096; page <= 65536 && page <= size; page *= 2) {
		char buf[SIGNATURE_BYTES];
		ssize_t n = pread(fd, buf, sizeof(buf), (off_t)(page - sizeof(buf)));
		if (n < 0)
			return -errno;
		if (n == sizeof(buf) && !memcmp(buf, SIGNATURE, sizeof(buf)))
			*ret_has = true;
	}
	return 0;
}

static bool all_zero(const uint8_t *buf, size_t len)
{
	return len == 0 || (buf[0] == 0 && !memcmp(buf, buf + 1, len - 1));
}

/* Is every byte before size a zero? */
static int scan_zeros(int fd, uint64_t size, bool *ret_zeros)
{
	uint8_t *buf = malloc(SCAN_BYTES);
	off_t off = 0;
	int res = 0;

	*ret_zeros = true;
	if (!buf)
		return -ENOMEM;
	while (*ret_zeros && (uint64_t)off < size) {
		off_t data = lseek(fd, off, SEEK_DATA);
		uint64_t left;
		ssize_t n;
		if (data < 0 && errno == ENXIO)
			break; /* only holes from here on */
		if (data > off) {
			off = data;
			continue;
		}
		left = size - (uint64_t)off;
		n = pread(fd, buf, left < SCAN_BYTES ? (size_t)left : SCAN_BYTES, off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			res = -errno;
		if (n <= 0)
			break;
		*ret_zeros = all_zero(buf, (size_t)n);
		off += n;
	}
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	free(buf);
	return res;
}

int swapdev_content(int fd, uint64_t size, enum swapdev_content *ret_content)
{
	bool yes;
	int res = has_signature(fd, size, &yes);

	if (res == 0 && yes) {
		*ret_content = SWAPDEV_SWAP;
		return 0;
	}
	if (res == 0)
		res = scan_zeros(fd, size, &yes);
	if (res == 0)
		*ret_content = yes ? SWAPDEV_EMPTY : SWAPDEV_OTHER;
	return res;
}

int swapdev_format(const char *device, const char *label, struct err *err)
{
	const char *argv[] = {"mkswap", "-f", "-L", label, device, NULL};

	return sys_run(argv, err);
}

int swapdev_on(const char *device, uint32_t prio, bool discard, struct err *err)
{
	int flags = 0;

	if (prio != MOUNT_PRIO_NONE)
		flags |=
		    SWAP_FLAG_PREFER | (((int)prio << SWAP_FLAG_PRIO_SHIFT) & SWAP_FLAG_PRIO_MASK);
	if (discard)
		flags |= SWAP_FLAG_DISCARD | SWAP_FLAG_DISCARD_PAGES;
	if (swapon(device, flags))
		return err_sys(err, -errno, "%s: cannot switch it on as swap", device);
	return 0;
}

/* Waits for the child; a set *interrupted ends the child with SIGKILL (swapoff looks at signals
 * between pages, and leaves the swap on).  Returns the child's status. */
static int wait_child(pid_t pid, const volatile int *interrupted)
{
	struct pollfd ended = {.fd = sys_pidfd(pid), .events = POLLIN};
	bool killed = false;
	int status = 0;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (interrupted && *interrupted && !killed) {
			kill(pid, SIGKILL);
			killed = true;
		}
		poll(&ended, 1, POLL_MS);
	}
	if (ended.fd >= 0)
		close(ended.fd);
	return status;
}

static int off_error(const char *device, int code, struct err *err)
{
	if (code == ENOMEM)
		return err_set(err, -ENOMEM,
		    "%s: the memory is too short to read the swap back: end some programs, or add "
		    "other swap, and try again",
		    device);
	return err_sys(err, -code, "%s: cannot switch the swap off", device);
}

int swapdev_off(const char *device, const volatile int *interrupted, struct err *err)
{
	struct swapdev swap;
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return err_sys(err, -errno, "%s: cannot start a process for swapoff", device);
	if (pid == 0)
		_exit(swapoff(device) ? errno : 0);
	status = wait_child(pid, interrupted);
	if (swapdev_find(device, &swap, NULL) == -ENOENT)
		return 0; /* whatever the child said, it is off */
	if (WIFSIGNALED(status) && interrupted && *interrupted)
		return err_set(err, -EINTR, "%s: interrupted; the swap stays on", device);
	if (WIFSIGNALED(status))
		return off_error(device, ENOMEM, err); /* the OOM killer's doing */
	return off_error(device, WEXITSTATUS(status), err);
}

void swapdev_parse(FILE *in, void (*each)(void *ctx, const struct swapdev *swap), void *ctx)
{
	char *line = NULL;
	size_t room = 0;

	while (getline(&line, &room, in) >= 0) {
		struct swapdev swap;
		char *end = line + strcspn(line, " \t\n");
		uint64_t size_kb, used_kb;
		if (line[0] != '/' || !*end)
			continue;
		*end++ = '\0';
		if (sscanf(end, "%*s %" SCNu64 " %" SCNu64 " %d", &size_kb, &used_kb, &swap.prio) !=
		    3)
			continue;
		unescape_octal(line);
		if (strlen(line) >= sizeof(swap.path))
			continue;
		strcpy(swap.path, line);
		swap.size = size_kb * 1024;
		swap.used = used_kb * 1024;
		each(ctx, &swap);
	}
	free(line);
}

struct find {
	const char *device;
	struct swapdev *swap;
	uint64_t others_free;
	bool found;
};

static void find_each(void *ctx, const struct swapdev *swap)
{
	struct find *find = ctx;

	if (strcmp(swap->path, find->device)) {
		find->others_free += swap->size - swap->used;
		return;
	}
	*find->swap = *swap;
	find->found = true;
}

int swapdev_find(const char *device, struct swapdev *ret_swap, uint64_t *ret_others_free)
{
	struct swapdev swap;
	struct find find = {.device = device, .swap = &swap};
	FILE *in = fopen("/proc/swaps", "re");

	if (!in)
		return -errno;
	swapdev_parse(in, find_each, &find);
	fclose(in);
	if (ret_others_free)
		*ret_others_free = find.others_free;
	if (!find.found)
		return -ENOENT;
	*ret_swap = swap;
	return 0;
}
