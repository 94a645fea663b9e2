#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The donor enforces a region's mode for everybody, root and open files included; users are kept apart.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse setpriv
donor_start ram=memory:?size=64M disk="file:$T/pool?size=64M"
mount_pool ram "$T/ram"
mount_pool disk "$T/disk"
chmod 755 "$T"

# refused_nobody TEXT COMMAND…
refused_nobody() {
	local text=$1
	shift
	refused "$text" setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
}

for pool in ram disk; do
	M=$T/$pool

	step "$pool: chmod 400: root can read and not write"
	fileop --create "$M/a" write 0 1M 1
	run chmod 400 "$M/a"
	is "mode" "$(attr "$M/a" %a)" 400
	fileop --read "$M/a" verify 0 1M 1
	refused "EACCES" "$TOOLS/fileop" "$M/a" size
	refused "EACCES" "$TOOLS/fileop" --write-only "$M/a" size
	refused "Permission denied" truncate -s 0 "$M/a"
	refused "Permission denied" dd if=/dev/zero of="$M/a" bs=1 count=1 status=none
	refused "Permission denied" bash -c 'echo x >>"$1"' - "$M/a"
	refused "Permission denied" cp /etc/passwd "$M/a"
	refused "EACCES" "$TOOLS/fileop" --trunc --write-only "$M/a" size
	drop_cache "$M/a"
	fileop --read "$M/a" verify 0 1M 1
	is "size" "$(attr "$M/a" %s)" 1048576

	step "$pool: chmod 200: root can write and not read"
	run chmod 200 "$M/a"
	refused "Permission denied" cat "$M/a"
	refused "Permission denied" cmp "$M/a" "$M/a"
	refused "EACCES" "$TOOLS/fileop" "$M/a" size
	fileop --write-only "$M/a" write 1M 64K 2
	run chmod 600 "$M/a"
	fileop "$M/a" verify 0 1M 1 , verify 1M 64K 2

	step "$pool: chmod 000: root can do neither, and can still manage it"
	run chmod 000 "$M/a"
	refused "Permission denied" cat "$M/a"
	refused "EACCES" "$TOOLS/fileop" --write-only "$M/a" size
	is "mode" "$(attr "$M/a" '%a %s')" "0 1114112"
	run mv "$M/a" "$M/b"
	run mv "$M/b" "$M/a"
	run chmod 600 "$M/a"

	step "$pool: chmod binds files that are open already"
	talk writer "$TOOLS/fileop" "$M/a" -
	talk direct "$TOOLS/fileop" --direct "$M/a" -
	tell writer map 0 64K shared rw
	tell writer verify 0 64K 1
	run chmod 400 "$M/a"
	tell writer expect EACCES write 0 4096 3
	tell direct expect EACCES write 0 4096 3
	tell writer expect EACCES fallocate punch 0 4096
	tell writer expect EACCES fallocate reserve 0 2M
	tell writer expect EACCES truncate 0
	tell direct verify 0 4096 1
	run chmod 200 "$M/a"
	tell direct expect EACCES read 0 4096
	tell writer drop
	tell writer expect EACCES read 0 4096
	tell direct write 0 4096 4
	run chmod 600 "$M/a"
	tell writer verify 0 4096 4
	tell writer verify 4096 61440 1
	hang_up writer
	hang_up direct

	step "$pool: a mapping of a region that has become read-only cannot be written back"
	talk writer "$TOOLS/fileop" "$M/a" -
	tell writer map 0 64K shared rw
	tell writer map-write 0 4096 5
	run chmod 400 "$M/a"
	tell writer expect EACCES map-sync
	hang_up writer
	drop_cache "$M/a"
	fileop --read "$M/a" verify 0 4096 4

	step "$pool: whoever makes a read-only region may fill it"
	fileop --create=400 "$M/r" write 0 1M 6 , verify 0 1M 6 , truncate 2M
	is "r" "$(attr "$M/r" '%a %s')" "400 2097152"
	refused "EACCES" "$TOOLS/fileop" "$M/r" size
	run cp "$M/r" "$M/copy"
	same "$M/r" "$M/copy"
	is "mode of the copy" "$(attr "$M/copy" %a)" 400
	run chown 65534:65534 "$M/r"
	run touch -d "2001-02-03 04:05:06.789 UTC" "$M/r"
	run cp -p "$M/r" "$M/same"
	is "cp -p" "$(attr "$M/same" '%a %u %g %Y %s')" "$(attr "$M/r" '%a %u %g %Y %s')"
	run cp -p "$M/r" "$T/out"
	is "cp -p out" "$(attr "$T/out" '%a %u %g %Y %s')" "$(attr "$M/r" '%a %u %g %Y %s')"
	run rm -f "$M/r" "$M/copy" "$M/same" "$T/out"

	step "$pool: set-user-id bits are not kept; the sticky bit is"
	run chmod 6755 "$M/a"
	is "mode" "$(attr "$M/a" %a)" 755
	run chmod 1644 "$M/a"
	is "mode" "$(attr "$M/a" %a)" 1644

	step "$pool: other users"
	run chmod 600 "$M/a"
	refused_nobody "Permission denied" cat "$M/a"
	refused_nobody "Permission denied" touch "$M/nobody"
	refused_nobody "Operation not permitted" chmod 666 "$M/a"
	refused_nobody "ermi" rm -f "$M/a"
	run chmod 644 "$M/a"
	run setpriv --reuid=65534 --regid=65534 --clear-groups cat "$M/a" >/dev/null
	refused_nobody "Permission denied" dd if=/dev/zero of="$M/a" count=1 conv=notrunc status=none
	run chown 65534:65534 "$M/a"
	is "owner" "$(attr "$M/a" '%u %g')" "65534 65534"
	run setpriv --reuid=65534 --regid=65534 --clear-groups dd if=/dev/zero of="$M/a" count=1 conv=notrunc status=none
	refused_nobody "Operation not permitted" chown 0 "$M/a"
	run chmod 1777 "$M"
	run setpriv --reuid=65534 --regid=65534 --clear-groups touch "$M/nobody"
	is "owner" "$(attr "$M/nobody" '%u %g')" "65534 65534"
	run touch "$M/root"
	refused_nobody "Operation not permitted" rm -f "$M/root"
	run setpriv --reuid=65534 --regid=65534 --clear-groups rm "$M/nobody"
	run rm "$M/root" "$M/a"
done

umount_dir "$T/ram"
umount_dir "$T/disk"
finish
