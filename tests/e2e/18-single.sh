#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# file: and memory: mount as a directory with exactly one file, without a donor.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse loop fio
M=$T/mnt

# one_file NAME: what holds for the one file of any such mount.
one_file() {
	local file=$M/$1
	is "entries" "$(ls -A "$M")" "$1"
	fileop "$file" write 0 1M 1 , write 1234567 500000 1 , verify 0 1M 1 , verify 1234567 500000 1 , fsync , drop , \
		verify 0 1M 1 , zeros 1M 185991 , verify 1234567 500000 1
	fileop "$file" map 0 2M shared rw , map-verify 0 1M 1 , map-write 65536 65536 2 , map-sync , drop , verify 65536 65536 2
	fileop --direct "$file" write 65536 65536 1 , verify 0 1M 1
	run fio --name=verify --filename="$file" --size=8M --rw=randrw --verify_backlog=1000 --bsrange=4k-64k --ioengine=libaio --iodepth=16 --direct=1 \
		--verify=crc32c --verify_state_save=0 --output="$T/fio.log"
	refused "Operation not permitted" touch "$M/other"
	refused "Operation not permitted" rm "$file"
	refused "Operation not permitted" mv "$file" "$M/other"
	refused "Operation not permitted" mkdir "$M/dir"
	refused "Operation not permitted" ln -s x "$M/link"
	is "entries" "$(ls -A "$M")" "$1"
	run chmod 400 "$file"
	refused "EACCES" "$TOOLS/fileop" "$file" size
	run chmod 600 "$file"
}

step "memory:?size=64M"
mount_source "memory:?size=64M" "$M"
is "size" "$(attr "$M/memory" '%s %a')" "67108864 600"
contains "df" "$(run df -P -B1M "$M")" " 64 "
one_file memory
fileop "$M/memory" write 0 64M 3 , verify 0 64M 3 , expect ENOSPC write 64M 1 3
umount_dir "$M"
mount_source "memory:?size=64M" "$M"
fileop "$M/memory" zeros 0 64M
umount_dir "$M"

step "file:PATH?size=64M makes the file"
mount_source "file:$T/data.img?size=64M" "$M"
is "size" "$(attr "$M/data.img" %s)" 67108864
one_file data.img
fileop "$M/data.img" write 0 1M 4 , write 63M 1M 4
umount_dir "$M"
is "size of the file" "$(stat -c %s "$T/data.img")" 67108864
fileop --read "$T/data.img" verify 0 1M 4 , verify 63M 1M 4

step "file:PATH: what is in it is in it"
mount_source "file:$T/data.img" "$M"
fileop "$M/data.img" verify 0 1M 4 , verify 63M 1M 4 , fallocate punch 0 1M , zeros 0 1M , write 1M 4096 5
is "extents" "$("$TOOLS/fileop" --read "$M/data.img" extents | head -2)" "hole 0 1048576
data 1048576 $("$TOOLS/fileop" --read "$T/data.img" seek hole 1M | sed s/offset=//)"
umount_dir "$M"
fileop --read "$T/data.img" zeros 0 1M , verify 1M 4096 5

step "kill -9 of the daemon: what was answered is in the file"
mount_source "file:$T/data.img" "$M"
fileop "$M/data.img" write 10M 8M 6
daemon_kill "$M"
umount_dead "$M"
fileop --read "$T/data.img" verify 10M 8M 6

step "a file that exists keeps its odd size"
random_file "$T/odd" 1000003
mount_source "file:$T/odd" "$M"
same "$T/odd" "$M/odd"
is "size" "$(attr "$M/odd" %s)" 1000003
umount_dir "$M"

step "a block device"
run truncate -s 32M "$T/disk"
device=$(run losetup -f --show "$T/disk")
guard_add loop "$device"
mount_source "file:$device" "$M"
is "size" "$(attr "$M/${device#/dev/}" %s)" 33554432
one_file "${device#/dev/}"
fileop "$M/${device#/dev/}" write 1M 1M 7 , fsync , expect ENOSPC write 32M 1 7
umount_dir "$M"
run losetup -d "$device"
guard_drop loop "$device"
fileop --read "$T/disk" verify 1M 1M 7

step "two mounts of one file"
mount_source "file:$T/data.img" "$M"
mkdir "$T/second"
refused "in use" "$REMRAM" mount "file:$T/data.img" "$T/second"
umount_dir "$M"
finish
