#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A region on a loop device carries a file system; while it is attached the region can't be pulled away under it.
. "$(dirname "$0")/lib.sh"
. "$E2E_ROOT/tests/e2e/swap.sh"
requires fuse loop losetup mkfs.ext4 fio

donor_start ram=memory:?size=512M
mount_pool ram "$T/mnt"
run truncate -s 256M "$T/mnt/disk"
umount_dir "$T/mnt"

step "loop= attaches with direct I/O"
mount_devices loop=disk disk
dev=$(device_of disk)
is "direct I/O" "$(cat "/sys/block/${dev##*/}/loop/dio")" 1
is "swap" "$(grep -c "^$dev " /proc/swaps || true)" 0

step "fio verifies through the loop device"
run_for 60 fio --name=verify --filename="$dev" --size=64M --rw=randwrite --bs=4k-64k --ioengine=libaio --iodepth=16 \
	--direct=1 --verify=crc32c --output="$T/fio.log"

step "a file system on it keeps its files"
run mkfs.ext4 -q -F "$dev"
mkdir "$T/ext4"
run mount "$dev" "$T/ext4"
guard_add mount "$T/ext4"
random_file "$T/data" 33554433
run cp "$T/data" "$T/ext4/data"

step "umount is refused while the device is in use, and all goes on"
code=0
"$REMRAM" umount "$T/mnt" 2>"$T/said" || code=$?
is "exit code" "$code" 32
contains "the sentence" "$(cat "$T/said")" "use"
same "$T/data" "$T/ext4/data"
refused "busy" rm -f "$T/mnt/disk"
run umount "$T/ext4"
guard_drop mount "$T/ext4"

step "the file system is clean, and there again after the next mount"
run fsck.ext4 -f -n "$dev"
umount_devices disk
mount_devices loop=disk disk
run mount -o ro "$(device_of disk)" "$T/ext4"
guard_add mount "$T/ext4"
same "$T/data" "$T/ext4/data"
run umount "$T/ext4"
guard_drop mount "$T/ext4"
umount_devices disk
finish
