/* SPDX-License-Identifier: Apache-2.0
 *
 * Small things that the commands ask of the system: one-line files of /proc and /sys, and programs
 * to run.  For commands, never for the daemon's I/O path: everything here may block.
 */
#ifndef REMRAM_MOUNT_SYS_H
#define REMRAM_MOUNT_SYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/err.h"

/* Reads a small file into buf (room bytes; NUL-terminated, cut if longer, a last newline removed).
 * Returns the length or -errno. */
ssize_t sys_read_text(const char *path, char *buf, size_t room);
/* The same for the one whose path is printed from fmt. */
ssize_t sys_read_textf(char *buf, size_t room, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Reads a decimal number; -EINVAL if something else stands there. */
int sys_read_u64(const char *path, uint64_t *ret_value);

/* The number after `key` and white space (or a colon) in a file of such lines, as /proc/meminfo and
 * memory.stat are; -ENOENT if the key is not there. */
int sys_read_key(const char *path, const char *key, uint64_t *ret_value);

/* Writes text to a file that exists, in one call: 0 or -errno. */
int sys_write_text(const char *path, const char *text);

/* Runs argv[0] (found in the system's directories, whatever PATH says) with stdin, stdout at
 * /dev/null and waits for its end.  0, or -errno with err: it could not be run, or failed; then the
 * sentence ends with the last line it wrote to stderr. */
int sys_run(const char *const *argv, struct err *err);

/* Loads a kernel module if that is possible; whether it helped the caller sees at its device. */
void sys_modprobe(const char *module);

/* CLOCK_MONOTONIC in milliseconds. */
uint64_t sys_now_ms(void);
void sys_sleep_ms(unsigned ms);

/* True if process pid runs and is the one that started at `start` (clock ticks after boot, field 22
 * of /proc/PID/stat; 0: any). */
bool sys_process_alive(pid_t pid, uint64_t start);
/* A descriptor that becomes readable when process pid ends, for poll; -1 if there is none, which
 * poll passes over. */
int sys_pidfd(pid_t pid);
/* When process pid started; 0 if it is not there. */
uint64_t sys_process_start(pid_t pid);

#endif
