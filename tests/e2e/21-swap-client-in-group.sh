#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The client inside the limited control group, where a daemon that waits for memory would wait for itself, goes on.
. "$(dirname "$0")/lib.sh"
. "$E2E_ROOT/tests/e2e/swap.sh"
requires fuse loop losetup
cgroup_available || skip "needs a memory control group"

donor_start ram=memory:?size=1G
group_make 160M

step "a mount started inside the group serves the swap of the group"
mkdir "$T/mnt"
guard_add mount "$T/mnt"
run_for 20 bash -c ". '$E2E_ROOT/scripts/lib.sh'; . '$E2E_ROOT/scripts/cgroup.sh'
	cgroup_exec '$GROUP' '$REMRAM' mount 127.0.0.1:$DONOR_PORT:/ram '$T/mnt' -o swap=swap0,size=512M"
guard_add_mount "$T/mnt"
guard_add loop "$(device_of swap0)"
guard_add swap "$(device_of swap0)"
grep -qx "$(daemon_pid "$T/mnt")" "$GROUP/cgroup.procs" || fail "the daemon is not in the group"

step "a workload of three times the limit finds every word right"
workload 120 --size 480M --random 5000 --seed "$SRANDOM"

step "umount ends it"
umount_devices
finish
