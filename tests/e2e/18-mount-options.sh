#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Options do what they say, mount points may have any name, and the mount helpers' forms of the command work.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse
donor_start ram=memory:?size=16M
S=127.0.0.1:$DONOR_PORT:/ram
M=$T/mnt

# options DIR: the mount's flags, as the kernel has them.
options() {
	awk -v dir="$1" '$5 == dir { print $6 }' /proc/self/mountinfo
}

step "ro"
mount_source "$S" "$M" -o ro
contains "options" ",$(options "$M")," ",ro,"
refused "Read-only file system" touch "$M/a"
umount_dir "$M"

step "by default: nosuid and nodev, readahead of 4 MiB"
mount_source "$S" "$M"
contains "options" ",$(options "$M")," ",nosuid,nodev,"
device=$(awk -v dir="$M" '$5 == dir { print $3 }' /proc/self/mountinfo)
is "read_ahead_kb" "$(<"/sys/class/bdi/$device/read_ahead_kb")" 4096
is "source and type" "$(awk -v dir="$M" '$2 == dir { print $1, $3 }' /proc/mounts)" "$S fuse.remram"
echo data >"$M/a"
umount_dir "$M"

step "flags, read_ahead, and words for others"
mount_source "$S" "$M" -o suid,noexec,noatime,read_ahead=1M,max_background=16,spin_us=0,log=debug \
	-o _netdev,nofail,x-systemd.automount,defaults,noauto,users
contains "options" ",$(options "$M")," ",noexec,noatime,"
[[ ,$(options "$M"), != *,nosuid,* ]] || fail "nosuid is set in spite of suid"
device=$(awk -v dir="$M" '$5 == dir { print $3 }' /proc/self/mountinfo)
is "read_ahead_kb" "$(<"/sys/class/bdi/$device/read_ahead_kb")" 1024
run cp /bin/true "$M/true"
run chmod 755 "$M/true"
refused "Permission denied" "$M/true"
run rm "$M/true"
umount_dir "$M"

step "attr_timeout=0: what another client changes is seen at once"
mount_source "$S" "$M" -o attr_timeout=0s
mount_source "$S" "$T/other"
talk reader "$TOOLS/fileop" --read "$M/a" -
contains "size" "$(tell reader size)" "size=5 "
run truncate -s 100 "$T/other/a"
contains "size" "$(tell reader size)" "size=100 "
hang_up reader
umount_dir "$T/other"
umount_dir "$M"

step "mount points with unusual names"
for name in "with space" "a,b" $'new\nline' 'back\slash' "ünïcödé" -rf "$(printf 'x%.0s' {1..200})"; do
	guard_add mount "$T/$name"
	mkdir "$T/$name"
	run "$REMRAM" mount "$S" "$T/$name"
	is "bytes of a" "$(stat -c %s -- "$T/$name/a")" 100
	run "$REMRAM" umount "$T/$name"
	rmdir -- "$T/$name" || fail "$T/$name is still in use"
	guard_drop mount "$T/$name"
done

step "relative paths and symbolic links"
mkdir "$M.d"
ln -s "$M.d" "$T/link"
(cd "$T" && run "$REMRAM" mount "$S" link)
guard_add mount "$M.d"
guard_is_mounted "$M.d" || fail "the link's target is not mounted"
(cd "$T" && run "$REMRAM" umount ./link/)
! guard_is_mounted "$M.d" || fail "the link's target is still mounted"
guard_drop mount "$M.d"

step "as mount(8) and mount.fuse3 call it"
ln -s "$REMRAM" "$T/mount.fuse.remram"
ln -s "$REMRAM" "$T/umount.fuse.remram"
guard_add mount "$M"
run "$T/mount.fuse.remram" "$S" "$M" -f -o rw
! guard_is_mounted "$M" || fail "a fake mount (-f) has mounted"
run "$T/mount.fuse.remram" "$S" "$M" -n -v -s -o rw,_netdev,nosuid
guard_is_mounted "$M" || fail "mount.fuse.remram has not mounted"
run "$T/umount.fuse.remram" "$M" -n
! guard_is_mounted "$M" || fail "umount.fuse.remram has not unmounted"
guard_drop mount "$M"
guard_add mount "$M"
run "$REMRAM" "$S" "$M" -o rw,dev,suid
guard_is_mounted "$M" || fail "remram SRC DIR has not mounted"
umount_dir "$M"

step "several mounts of one pool, and one over a directory that is not empty"
mkdir -p "$M/below"
for i in 1 2 3 4 5; do
	mount_source "$S" "$T/many-$i"
done
mount_source "$S" "$M"
is "entries" "$(ls "$M")" a
for i in 3 1 5 2 4; do
	umount_dir "$T/many-$i"
done
umount_dir "$M"
is "entries" "$(ls "$M")" below

step "the system's umount -- and the daemon ends by itself"
mount_source "$S" "$M"
pid=$(daemon_pid "$M")
run umount -i "$M"
guard_drop mount "$M"
eventually 10 "the daemon ends" process_gone "$pid"
eventually 10 "the run directory goes" test ! -e "$(run_dir "$M")"

step "umount says who is in the way; umount -l does not mind"
mount_source "$S" "$M"
talk holder "$TOOLS/fileop" "$M/a" -
refused "in use: process ${TALK_PID[holder]} (fileop) has a file open there" "$REMRAM" umount "$M"
(cd "$M" && refused "in use" "$REMRAM" umount "$M")
pid=$(daemon_pid "$M")
run "$REMRAM" umount -l "$M"
! guard_is_mounted "$M" || fail "$M is still mounted after umount -l"
tell holder write 0 4096 1
tell holder drop
tell holder verify 0 4096 1
hang_up holder
eventually 10 "the daemon ends" process_gone "$pid"
guard_drop mount "$M"

step "in the foreground: until SIGINT, or umount"
mount_logged ram "$M"
kill -INT "$DAEMON_JOB"
eventually 10 "the process ends" process_gone "$DAEMON_JOB"
! guard_is_mounted "$M" || fail "$M is still mounted after SIGINT"
guard_drop mount "$M"
mount_logged ram "$M"
umount_dir "$M"
eventually 10 "the process ends" process_gone "$DAEMON_JOB"
finish
