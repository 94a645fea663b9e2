#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A file: pool is exactly as it was after the donor ends in order, and after it is killed.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse setfattr getfattr
donor_start disk="file:$T/pool?size=256M" ram=memory:?size=64M
M=$T/mnt

# describe DIR: everything there is to know of the regions: names, attributes, times, xattrs, holes, contents.
describe() {
	local name
	# What a file system counts as blocks is certain only when they are on disk.
	sync -f "$T/pool"
	(
		cd "$1"
		find . -mindepth 1 -printf '%f\0' | sort -z | while IFS= read -r -d '' name; do
			run stat --printf '%i %s %b %a %u %g %h %y %x ' -- "$name"
			printf '%q\n' "$name"
			run stat -c 'ctime %z' -- "$name"
			getfattr -d -e hex -- "./$name" | sort
			# What is reserved and not written counts as data to some file systems once it has been read.
			[[ $name == @(reserved|longer|kept|zeroed|punched) ]] || "$TOOLS/fileop" --read "./$name" extents
			sha256sum <"./$name"
		done
		run stat -f -c '%b %c' .
	)
}

# fill: regions of all kinds; what it needs on the way is closed, so that it must last.
fill() {
	local i
	fileop --create "$M/plain" write 0 3000001 "$1"
	fileop --create=640 "$M/sparse" truncate 100M , write 1M 64K "$1" , write 50M 4096 "$1" , write 99M 1M "$1"
	fileop --create "$M/punched" write 0 8M "$1" , fallocate punch 1M 2M , fallocate punch 5000000 1000 , \
		fallocate zero 6M 1M
	fileop --create "$M/reserved" fallocate reserve 0 5M , write 1M 4096 "$1"
	fileop --create "$M/longer" write 0 4096 "$1" , fallocate reserve 0 3333333
	fileop --create "$M/kept" write 0 4096 "$1" , fallocate reserve-keep 0 2M
	fileop --create "$M/zeroed" write 0 4096 "$1" , fallocate zero 0 1000000
	fileop --create "$M/cut" write 0 1M "$1" , truncate 70001
	fileop --create "$M/grown" write 0 1000 "$1" , truncate 2M
	fileop --create "$M/mapped" truncate 1M , map 0 1M shared rw , map-write 0 123456 "$1"
	fileop --create "$M/replaced" write 0 1M 99
	fileop --create "$M/new" write 0 64K "$1"
	run mv "$M/new" "$M/replaced"
	run dd if=/dev/zero of="$M/zeros" bs=1M count=2 status=none
	: >"$M/empty"
	for i in "with space" $'new\nline' $'\xff\xfe' "$(printf 'x%.0s' {1..255})" -rf ünïcödé; do
		printf %s "$1" >"$M/$i"
	done
	for ((i = 0; i < 40; i++)); do
		echo "$i" >"$M/many-$i"
	done
	run rm "$M"/many-*5
	run chmod 400 "$M/plain"
	run chmod 1666 "$M/cut"
	run chown 1234:4321 "$M/sparse" "$M/cut"
	run touch -d "2001-02-03 04:05:06.123456789 UTC" "$M/plain" "$M/empty"
	run touch -a -d "1965-01-01 UTC" "$M/plain"
	run setfattr -n user.a -v "value" "$M/plain" "$M/empty"
	run setfattr -n user.binary -v 0x00ff00 "$M/cut"
	run setfattr -n user.gone -v 1 "$M/cut"
	run setfattr -x user.gone "$M/cut"
}

step "regions of all kinds, and a remount"
mount_pool disk "$M"
fill 1
describe "$M" >"$T/before"
umount_dir "$M"
mount_pool disk "$M"
describe "$M" >"$T/after"
run diff "$T/before" "$T/after"

step "SIGTERM, with the pool mounted"
donor_stop
donor_back
describe "$M" >"$T/after"
run diff "$T/before" "$T/after"

step "SIGTERM, without a mount"
umount_dir "$M"
donor_stop
donor_back
mount_pool disk "$M"
describe "$M" >"$T/after"
run diff "$T/before" "$T/after"

step "SIGKILL, right after the last change"
run find "$M" -mindepth 1 -delete
fill 2
describe "$M" >"$T/before"
donor_kill
donor_back
describe "$M" >"$T/after"
# That a rename or an attribute changed ctime is only remembered with the next change.
run diff <(grep -v ^ctime "$T/before") <(grep -v ^ctime "$T/after")

step "SIGKILL of client and donor while files are open: what was answered is there"
talk writer "$TOOLS/fileop" --create "$M/open" -
tell writer write 0 1M 3
tell writer fallocate reserve 1M 1M
tell writer truncate 3M
tell writer write 3M 100000 3
daemon_kill "$M"
donor_kill
hang_up writer
umount_dead "$M"
donor_back
mount_pool disk "$M"
is "open" "$(attr "$M/open" %s)" 3245728
fileop --read "$M/open" verify 0 1M 3 , zeros 1M 2M , verify 3M 100000 3
run rm "$M/open"
describe "$M" >"$T/after"
run diff <(grep -v ^ctime "$T/before") <(grep -v ^ctime "$T/after")

step "ids do not come again: a client that was away opens no other region by mistake"
: >"$M/first"
id=$(attr "$M/first" %i)
run rm "$M/first"
umount_dir "$M"
donor_stop
donor_back
mount_pool disk "$M"
: >"$M/second"
[[ $(attr "$M/second" %i) -gt $id ]] || fail "the id of a removed region was given again: $id"

step "the quota and what is used are known at once"
is "quota" "$(stat -f -c %b "$M")" 65536
used=$(($(stat -f -c '(%b - %f) * %S' "$M")))
blocks=$(stat -c %b "$M"/* | awk '{ n += $1 * 512 } END { print n }')
is "used" "$used" "$blocks"

step "the directory belongs to one pool of one state directory"
umount_dir "$M"
refused "in use by another" "$REMRAMD" --config /dev/null --state "$T/state2" --listen "127.0.0.1:$(e2e_port)" --pool "disk=file:$T/pool"
donor_stop
refused "belongs to another pool" "$REMRAMD" --config /dev/null --state "$T/state2" \
	--listen "127.0.0.1:$(e2e_port)" --pool "disk=file:$T/pool"
donor_back
mount_pool disk "$M"
is "entries" "$(find "$M" -name 'many-*' | wc -l)" 36
umount_dir "$M"

step "a memory: pool begins anew"
mount_pool ram "$M"
echo data >"$M/a"
umount_dir "$M"
donor_stop
donor_back
mount_pool ram "$M"
is "entries" "$(ls -A "$M")" ""
umount_dir "$M"
finish
