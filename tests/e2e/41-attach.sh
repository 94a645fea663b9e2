#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Loop devices by -o attach=NAME: direct I/O or not at all, a stable link, the same bytes as the file, a
# file system on one of them; and umount, which detaches them or refuses with everything left as it was.
. "$(dirname "$0")/lib.sh"
requires fuse loop losetup mkfs.ext2
donor_start ram=memory:?size=64M
M=$T/mnt
RUN=$(run_dir "$M")

loop_of() {
	run readlink "$RUN/$1"
}

# sysfs DEVICE ATTRIBUTE
sysfs() {
	cat "/sys/block/${1#/dev/}/$2"
}

status_says() {
	"$REMRAM" status "$M" | grep -e "$1" >/dev/null
}

no_loops() {
	is "loop devices" "$(losetup -n -O BACK-FILE | grep -cF "$M/" || true)" 0
}

mount_pool ram "$M"
run truncate -s 8M "$M/a" "$M/b"
run truncate -s 4096 "$M/small"
fileop "$M/b" write 0 8M 1
umount_dir "$M"

step "attached: direct I/O, 4096-byte blocks, a link that names the device"
mount_pool ram "$M" -o attach=a,attach=b,loop=small
for region in a b small; do
	dev=$(loop_of "$region")
	is "file" "$(sysfs "$dev" loop/backing_file)" "$M/$region"
	is "direct I/O" "$(sysfs "$dev" loop/dio)" 1
	is "block size" "$(sysfs "$dev" queue/logical_block_size)" 4096
	is "read-only" "$(sysfs "$dev" ro)" 0
done
is "size" "$(sysfs "$(loop_of a)" size)" 16384
is "size" "$(sysfs "$(loop_of small)" size)" 8
contains "status" "$(run "$REMRAM" status "$M")" "loop        a on $(loop_of a) ($RUN/a), 8.0 MiB, direct I/O"

step "the device has the region's bytes, both ways"
run cmp "$M/b" "$RUN/b"
run dd if="$M/b" of="$RUN/a" bs=1M oflag=direct status=none
run cmp "$M/a" "$M/b"

step "a region on a loop device can't be removed, renamed or resized"
refused "busy" rm "$M/a"
refused "busy" mv "$M/a" "$M/c"
refused "busy" mv "$M/small" "$M/a"
refused "busy" truncate -s 16M "$M/a"
is "size" "$(stat -c %s "$M/a")" 8388608

step "a file system on it; umount refuses while that is mounted, and changes nothing"
run mkfs.ext2 -q "$RUN/a"
mkdir "$T/inner"
guard_add mount "$T/inner"
run mount "$RUN/a" "$T/inner"
run cp "$DONOR_LOG" "$T/inner/copy"
refused "$(loop_of a) (region a) is in use: it is mounted at $T/inner" "$REMRAM" umount "$M"
[[ -b $(loop_of b) ]] || fail "b has no device any more"
is "file" "$(sysfs "$(loop_of b)" loop/backing_file)" "$M/b"
run umount "$T/inner"
guard_drop mount "$T/inner"

step "umount refuses while a loop device that was attached by hand is there"
dev=$(run losetup -f --show --direct-io=on "$M/small")
guard_add loop "$dev"
refused "the loop device $dev is on $M/small" "$REMRAM" umount "$M"
is "file" "$(sysfs "$(loop_of b)" loop/backing_file)" "$M/b"
run losetup -d "$dev"
guard_drop loop "$dev"

step "umount detaches all, and the data is at the donor"
umount_dir "$M"
no_loops
mount_pool ram "$M"
run truncate -s 9M "$M/small" # it is free again
run mkdir -p "$T/inner"
dev=$(run losetup -f --show -r "$M/a")
guard_add loop "$dev"
run mount -o ro "$dev" "$T/inner"
guard_add mount "$T/inner"
run grep -q listening "$T/inner/copy"
run umount "$T/inner"
guard_drop mount "$T/inner"
run losetup -d "$dev"
guard_drop loop "$dev"
umount_dir "$M"

step "read-only mounts have read-only devices"
mount_pool ram "$M" -o ro,attach=b
is "read-only" "$(sysfs "$(loop_of b)" ro)" 1
refused "" dd if=/dev/zero of="$RUN/b" bs=4096 count=1 status=none
umount_dir "$M"

step "one region is missing: nothing is attached, nothing is mounted"
refused "$M/nosuch: there is no such region" "$REMRAM" mount "127.0.0.1:$DONOR_PORT:/ram" "$M" \
	-o attach=a,attach=nosuch
! guard_is_mounted "$M" || fail "$M is mounted"
[[ ! -e $RUN ]] || fail "$RUN is left"
no_loops
refused "rename the region" "$REMRAM" mount "127.0.0.1:$DONOR_PORT:/ram" "$M" -o attach=control

step "the daemon is killed: the devices are cleaned up"
mount_pool ram "$M" -o attach=a,attach=b
kill -KILL "$(daemon_pid "$M")"
eventually 10 "status knows" status_says DEAD
run "$REMRAM" umount "$M" 2>/dev/null
guard_drop mount "$M"
no_loops
[[ ! -e $RUN ]] || fail "$RUN is left"

step "mount.conf was lost: umount finds the devices"
mount_pool ram "$M" -o attach=a
run rm "$RUN/mount.conf"
run "$REMRAM" umount "$M"
guard_drop mount "$M"
no_loops

step "detached by others while in use: umount cleans up, also when the directory is gone"
mkdir "$T/other"
guard_add mount "$T/other"
run "$REMRAM" mount "127.0.0.1:$DONOR_PORT:/ram" "$T/other" -o attach=a
dev=$(readlink "$(run_dir "$T/other")/a")
run umount -i -l "$T/other"
run rmdir "$T/other"
contains "status" "$("$REMRAM" status)" "$T/other: 127.0.0.1:$DONOR_PORT:/ram
  mount       NOT MOUNTED any more"
run "$REMRAM" umount "$T/other" 2>/dev/null
guard_drop mount "$T/other"
[[ ! -e $(run_dir "$T/other") ]] || fail "the run directory is left"
eventually 5 "the device is free" test ! -e "/sys/block/${dev#/dev/}/loop"

step "a name that needs care"
mount_pool ram "$M"
name=$'sp ace %41\xff'
run truncate -s 1M "$M/$name"
umount_dir "$M"
mount_pool ram "$M" -o "attach=$name"
is "link" "$(readlink "$RUN/$name" | cut -c1-9)" /dev/loop
run "$REMRAM" status --json "$M" >"$T/json"
umount_dir "$M"
no_loops

step "a region on a loop device belongs to one client"
mount_pool ram "$M" -o attach=a
mkdir "$T/rival"
refused "another client uses it" "$REMRAM" mount "127.0.0.1:$DONOR_PORT:/ram" "$T/rival" -o attach=a
! guard_is_mounted "$T/rival" || fail "the refused mount is there"
mount_pool ram "$T/rival"
refused "busy" dd if=/dev/zero of="$T/rival/a" bs=4096 count=1 conv=notrunc
run cat "$T/rival/a" >/dev/null
umount_dir "$T/rival"
umount_dir "$M"
no_loops
finish
