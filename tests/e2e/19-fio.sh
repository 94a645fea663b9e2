#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# fio writes and verifies checksums of every block: direct, buffered, mapped, and through a loop device.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse loop fio
donor_start ram=memory:?size=512M disk="file:$T/pool?size=512M"
mount_pool ram "$T/ram"
mount_pool disk "$T/disk"

# verify FILE OPTION…: 64 MiB of verified I/O; then the same blocks once more, read after the cache was dropped.
verify() {
	local file=$1
	shift
	run_for 60 fio --name=verify --filename="$file" --size=64M --verify=crc32c --verify_fatal=1 --verify_state_save=0 \
		--randrepeat=0 --output="$T/fio.log" "$@"
}

for pool in ram disk; do
	M=$T/$pool
	step "$pool: direct, 16 in flight, mixed sizes"
	verify "$M/direct" --ioengine=libaio --iodepth=16 --direct=1 --rw=randrw --verify_backlog=1000 --bsrange=4k-256k
	verify "$M/direct" --ioengine=libaio --iodepth=16 --direct=1 --rw=randwrite --bsrange=4k-1m
	step "$pool: direct, several processes"
	verify "$M/several" --ioengine=libaio --iodepth=8 --direct=1 --rw=randrw --verify_backlog=1000 --bsrange=4k-64k --numjobs=4 --size=16M \
		--offset_increment=16M --group_reporting
	step "$pool: io_uring"
	verify "$M/uring" --ioengine=io_uring --iodepth=32 --direct=1 --rw=randrw --verify_backlog=1000 --bsrange=4k-128k
	step "$pool: buffered"
	verify "$M/buffered" --ioengine=psync --rw=randrw --verify_backlog=1000 --bsrange=4k-256k --fsync=32
	verify "$M/buffered" --ioengine=psync --rw=write --bs=1m
	verify "$M/buffered" --ioengine=psync --rw=randrw --verify_backlog=1000 --bsrange=512-9000 --bs_unaligned --size=8M
	step "$pool: mapped"
	verify "$M/mapped" --ioengine=mmap --rw=randrw --verify_backlog=1000 --bsrange=4k-64k
	run rm -f "$M"/*

	step "$pool: through a loop device, direct and buffered, and a file system on it"
	fileop --create "$M/disk.img" truncate 128M
	device=$(run losetup -f --show --direct-io=on "$M/disk.img")
	guard_add loop "$device"
	is "direct I/O" "$(cat "/sys/block/${device#/dev/}/loop/dio")" 1
	verify "$device" --ioengine=libaio --iodepth=16 --direct=1 --rw=randrw --verify_backlog=1000 --bsrange=4k-256k
	verify "$device" --ioengine=psync --rw=randrw --verify_backlog=1000 --bsrange=4k-64k --fsync=64
	run mkfs.ext4 -q -F "$device"
	mkdir "$T/fs"
	run mount "$device" "$T/fs"
	guard_add mount "$T/fs"
	verify "$T/fs/file" --ioengine=libaio --iodepth=16 --direct=1 --rw=randrw --verify_backlog=1000 --bsrange=4k-64k --size=32M
	run umount "$T/fs"
	guard_drop mount "$T/fs"
	run e2fsck -fn "$device" >/dev/null 2>&1
	run losetup -d "$device"
	guard_drop loop "$device"
	eventually 5 "the loop device goes" test ! -e "/sys/block/${device#/dev/}/loop"
	rmdir "$T/fs"
	run rm "$M/disk.img"
done

umount_dir "$T/ram"
umount_dir "$T/disk"
finish
