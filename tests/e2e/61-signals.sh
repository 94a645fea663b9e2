#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# SIGTERM and SIGINT to a mount daemon: it unmounts, but not while a loop device uses one of its regions.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse loop
donor_start ram=memory:?size=64M
M=$T/mnt
mount_pool ram "$M"
run truncate -s 8M "$M/a"

step "nothing is attached: SIGTERM unmounts"
pid=$(daemon_pid "$M")
kill -TERM "$pid"
eventually 10 "the daemon ends" process_gone "$pid"
! guard_is_mounted "$M" || fail "$M is mounted"

step "a region is attached: the mount stays"
mount_pool ram "$M" -o attach=a
pid=$(daemon_pid "$M")
is "how systemd knows that it must not kill it" "$(head -c 1 "/proc/$pid/cmdline")" @
kill -TERM "$pid"
kill -INT "$pid"
sleep 0.3
guard_is_mounted "$M" || fail "$M is gone"
run "$REMRAM" status "$M" >/dev/null
run cmp -n 8M "$(run_dir "$M")/a" /dev/zero

step "umount takes it away"
umount_dir "$M"
finish
