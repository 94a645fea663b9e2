#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Swap that can't be set up or undone is refused with a clear sentence, and everything stays as it was.
. "$(dirname "$0")/lib.sh"
. "$E2E_ROOT/tests/e2e/swap.sh"
requires fuse loop losetup
cgroup_available || skip "needs a memory control group"

donor_start ram=memory:?size=320M
# mount_refused TEXT OPTIONS
mount_refused() {
	refused "$1" "$REMRAM" mount "127.0.0.1:$DONOR_PORT:/ram" "$T/mnt" -o "$2"
}
nothing() {
	! guard_is_mounted "$T/mnt" || fail "something is mounted"
	[[ ! -e $(run_dir "$T/mnt") ]] || fail "a run directory is left"
	[[ -z $(losetup -l -n -O BACK-FILE | grep -F "$T/") ]] || fail "a loop device is left"
}
mkdir "$T/mnt"

step "a swap larger than the pool is refused, and no region is left"
mount_refused "swap0" swap=swap0,size=1G
nothing
mount_pool ram "$T/mnt"
is "what is there" "$(ls "$T/mnt")" ""

step "a region that holds data is never formatted"
random_file "$T/data" 2097152
run cp "$T/data" "$T/mnt/data"
umount_dir "$T/mnt"
mount_refused "data" swap=data
nothing
mount_pool ram "$T/mnt"
same "$T/data" "$T/mnt/data"
run rm "$T/mnt/data"
umount_dir "$T/mnt"

step "a missing size, a wrong size and a size that contradicts the region are named"
mount_refused "size" swap=swap0
mount_refused "size" swap=swap0,size=5000
mount_refused "size" swap=swap0,size=
mount_refused "swap" size=64M
nothing
mount_devices swap=swap0,size=256M
umount_devices
mount_refused "size" swap=swap0,size=128M
nothing

step "umount is refused while what is swapped out does not fit into memory, and all goes on"
mount_devices swap=swap0
group_make 64M
workload_start --size 224M --random 40000 --rounds 3
enough() {
	[[ $(swapped) -gt $((120 << 20)) ]]
}
eventually 30 "the workload swaps" enough
code=0
"$REMRAM" umount "$T/mnt" 2>"$T/said" || code=$?
is "exit code" "$code" 32
contains "the sentence" "$(cat "$T/said")" "memory"
guard_is_swap "$(device_of swap0)" || fail "the swap is gone"
workload_passes 100

step "and works afterwards"
umount_devices
finish
