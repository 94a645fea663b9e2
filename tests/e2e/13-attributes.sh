#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Times, owners and user attributes are kept, and survive a remount.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse setfattr getfattr
donor_start ram=memory:?size=64M disk="file:$T/pool?size=64M"
mount_pool ram "$T/ram"
mount_pool disk "$T/disk"

for pool in ram disk; do
	M=$T/$pool

	step "$pool: touch sets times, to the nanosecond, before 1970 and after 2038"
	touch "$M/a"
	for time in "2001-02-03 04:05:06.123456789" "1970-01-01 00:00:00.000000000" \
		"1960-05-06 07:08:09.987654321" "2100-01-02 03:04:05.000000001"; do
		run touch -d "$time UTC" "$M/a"
		is "mtime and atime" "$(TZ=UTC attr "$M/a" '%y %x')" "$time +0000 $time +0000"
	done
	run touch -m -d "2002-02-02 UTC" "$M/a"
	run touch -a -d "2003-03-03 UTC" "$M/a"
	is "mtime and atime" "$(TZ=UTC stat -c '%Y %X' "$M/a")" "1012608000 1046649600"

	step "$pool: writing moves mtime, chmod moves ctime only"
	old=$(attr "$M/a" %Y)
	changed=$(attr "$M/a" %Z)
	at_least "ctime" "$changed" $(($(date +%s) - 60))
	run chmod 640 "$M/a"
	is "mtime after chmod" "$(attr "$M/a" %Y)" "$old"
	fileop "$M/a" write 0 4096 1
	at_least "mtime after a write" "$(attr "$M/a" %Y)" $(($(date +%s) - 60))
	run touch -d "2001-01-01 UTC" "$M/a"
	run truncate -s 100 "$M/a"
	at_least "mtime after truncate" "$(attr "$M/a" %Y)" $(($(date +%s) - 60))
	run touch -d "2001-01-01 UTC" "$M/a"
	fileop "$M/a" fallocate punch 0 50
	at_least "mtime after a punch" "$(attr "$M/a" %Y)" $(($(date +%s) - 60))

	step "$pool: cp -a keeps times, owner, mode and attributes"
	head -c 100000 /dev/urandom >"$T/source"
	run chmod 640 "$T/source"
	run chown 1234:5678 "$T/source"
	run setfattr -n user.origin -v "some where" "$T/source"
	run touch -d "2011-12-13 14:15:16.171819 UTC" "$T/source"
	run cp -a "$T/source" "$M/copy"
	same "$T/source" "$M/copy"
	is "attributes" "$(attr "$M/copy" '%a %u %g %y')" "$(attr "$T/source" '%a %u %g %y')"
	is "user.origin" "$(run getfattr --absolute-names --only-values -n user.origin "$M/copy")" "some where"

	step "$pool: user attributes: set, replace, list, remove"
	run setfattr -n user.one -v 1 "$M/a"
	run setfattr -n user.two -v "" "$M/a"
	run setfattr -n user.one -v "another value" "$M/a"
	run setfattr -n user.binary -v 0x00ff00010a "$M/a"
	is "names" "$(run getfattr --absolute-names "$M/a" | grep ^user | sort | tr '\n' ' ')" "user.binary user.one user.two "
	is "user.one" "$(run getfattr --absolute-names --only-values -n user.one "$M/a")" "another value"
	is "user.two" "$(run getfattr --absolute-names --only-values -n user.two "$M/a")" ""
	is "user.binary" "$(run getfattr --absolute-names -e hex -n user.binary "$M/a" | grep "=")" "user.binary=0x00ff00010a"
	run setfattr -x user.two "$M/a"
	refused "No such attribute" getfattr -n user.two "$M/a"
	refused "No such attribute" setfattr -x user.two "$M/a"

	step "$pool: how much an attribute can hold"
	name=user.$(printf 'n%.0s' {1..250})
	run setfattr -n "$name" -v x "$M/a"
	refused "out of range" setfattr -n "${name}x" -v x "$M/a"
	run setfattr -x "$name" "$M/a"
	run setfattr -n user.big -v "$(head -c 30000 /dev/zero | tr '\0' v)" "$M/a"
	is "user.big" "$(run getfattr --absolute-names --only-values -n user.big "$M/a" | wc -c)" 30000
	run setfattr -n user.big2 -v "$(head -c 30000 /dev/zero | tr '\0' w)" "$M/a"
	refused "No space left" setfattr -n user.big3 -v "$(head -c 30000 /dev/zero | tr '\0' x)" "$M/a"
	is "names" "$(run getfattr --absolute-names "$M/a" | grep -c user)" 4
	run setfattr -x user.big "$M/a"

	step "$pool: other namespaces are refused"
	for name in trusted.x security.x system.x; do
		refused "not supported" setfattr -n $name -v 1 "$M/a"
	done
	refused "not supported" setfattr -n user.x -v 1 "$M"
	is "names" "$(run getfattr --absolute-names -m - "$M/a" | grep -c =)" 0

	step "$pool: all of it is there after a remount"
	run chown 4321:8765 "$M/a"
	run chmod 604 "$M/a"
	run touch -d "1999-09-09 09:09:09.090909 UTC" "$M/a"
	before=$(attr "$M/a" '%n %s %a %u %g %y %x %i'; getfattr -d -m - "$M/a" 2>/dev/null)
	contains "attributes" "$before" "another value"
	umount_dir "$M"
	mount_pool "$pool" "$M"
	is "attributes" "$(attr "$M/a" '%n %s %a %u %g %y %x %i'; getfattr -d -m - "$M/a" 2>/dev/null)" "$before"
done

umount_dir "$T/ram"
umount_dir "$T/disk"
finish
