#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Ten rounds of mount, swap, workload and umount leave no mount, loop device, swap, process or file behind.
. "$(dirname "$0")/lib.sh"
. "$E2E_ROOT/tests/e2e/swap.sh"
requires fuse loop losetup
cgroup_available || skip "needs a memory control group"

# Everything of this test that a machine could be left with.
traces() {
	grep -cF " $T/" /proc/self/mountinfo || true
	losetup -l -n -O BACK-FILE | grep -cF "$T/" || true
	e2e_processes "$T/mnt" | wc -l
	ls -d "$(run_dir "$T/mnt")" 2>/dev/null || true
}

donor_start ram=memory:?size=512M
group_make 64M
mount_devices swap=swap0,size=256M
umount_devices
before=$(traces)
handles=$(find "/proc/$DONOR_PID/fd" | wc -l)

for round in {1..10}; do
	step "round $round"
	mount_devices swap=swap0,discard
	workload 60 --size 128M --random 500 --rounds 1 --seed "$round"
	umount_devices
	is "traces" "$(traces)" "$before"
done

step "the donor holds no more descriptors than before"
at_most "descriptors" "$(find "/proc/$DONOR_PID/fd" | wc -l)" "$handles"
finish
