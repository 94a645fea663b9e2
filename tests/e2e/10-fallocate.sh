#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# fallocate reserves, punches and zeroes, and SEEK_DATA and SEEK_HOLE tell what is there.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse
donor_start ram=memory:?size=64M disk="file:$T/pool?size=64M"

# The allocated bytes of a file.
allocated() {
	echo $(($(attr "$1" %b) * 512))
}

mount_pool ram "$T/ram"
mount_pool disk "$T/disk"
for pool in ram disk; do
	M=$T/$pool

	step "$pool: reserve takes the space, lengthens the file, and reads as zeros"
	fileop --create "$M/a" fallocate reserve 1M 8M , zeros 0 9M
	is "size" "$(attr "$M/a" %s)" 9437184
	is "allocated" "$(allocated "$M/a")" 8388608

	step "$pool: reserve keeps what is written, and KEEP_SIZE the size"
	fileop "$M/a" write 4M 1M 1 , fallocate reserve 0 16M , verify 4M 1M 1 , zeros 0 4M , zeros 5M 11M
	is "allocated" "$(allocated "$M/a")" 16777216
	fileop "$M/a" fallocate reserve-keep 16M 4M
	is "size" "$(attr "$M/a" %s)" 16777216
	# A file system counts its map of a file as well: up to 1/64 of what lies beyond the end is guesswork.
	at_least "allocated" "$(allocated "$M/a")" $((20971520 * 63 / 64))

	step "$pool: reserve beyond the quota fails and changes nothing that is written"
	fileop "$M/a" expect ENOSPC fallocate reserve 0 65M , verify 4M 1M 1
	fileop --create "$M/b" expect ENOSPC fallocate reserve-keep 0 60M
	is "size of b" "$(attr "$M/b" %s)" 0
	run rm "$M/a" "$M/b"

	step "$pool: punch zeroes exactly the range and gives its blocks back"
	fileop --create "$M/a" write 0 8M 2 , fallocate punch 1M 2M , zeros 1M 2M , verify 0 1M 2 , verify 3M 5M 2
	is "size" "$(attr "$M/a" %s)" 8388608
	is "allocated" "$(allocated "$M/a")" 6291456
	fileop "$M/a" fallocate punch 5000 10000 , verify 0 5000 2 , zeros 5000 10000 , verify 15000 1033576 2
	fileop "$M/a" fallocate punch 8M 1M , fallocate punch 7M 100M , zeros 7M 1M
	is "size" "$(attr "$M/a" %s)" 8388608

	step "$pool: zeroing keeps the blocks"
	run rm "$M/a"
	fileop --create "$M/a" write 0 4M 3 , fallocate zero 1M 1M , zeros 1M 1M , verify 0 1M 3 , \
		verify 2M 2M 3 , fallocate zero 3333 4444 , verify 0 3333 3 , zeros 3333 4444 , \
		verify 7777 1040799 3
	is "allocated" "$(allocated "$M/a")" 4194304
	fileop "$M/a" fallocate zero-keep 4M 1M
	is "size" "$(attr "$M/a" %s)" 4194304
	fileop "$M/a" fallocate zero 4M 1M , zeros 4M 1M
	is "size" "$(attr "$M/a" %s)" 5242880

	step "$pool: what cannot be done says so"
	fileop "$M/a" expect EOPNOTSUPP fallocate collapse 0 4096 , \
		expect EOPNOTSUPP fallocate insert 0 4096 , verify 2M 1M 3
	fileop --read "$M/a" expect EBADF fallocate reserve 0 4096

	step "$pool: data and holes"
	run rm "$M/a"
	fileop --create "$M/a" truncate 20M , write 0 64K 4 , write 4M 128K 4 , write 19M 1M 4
	is "extents" "$("$TOOLS/fileop" --read "$M/a" extents)" "data 0 65536
hole 65536 4194304
data 4194304 4325376
hole 4325376 19922944
data 19922944 20971520"
	fileop "$M/a" fallocate punch 4M 64K , expect ENXIO seek data 20M , expect ENXIO seek hole 21M
	is "data after 1M" "$("$TOOLS/fileop" "$M/a" seek data 1M)" "offset=4259840"
	is "hole after 19M" "$("$TOOLS/fileop" "$M/a" seek hole 19M)" "offset=20971520"
	is "data in data" "$("$TOOLS/fileop" "$M/a" seek data 20000000)" "offset=20000000"
	fileop --create "$M/b" truncate 1M
	is "all hole" "$("$TOOLS/fileop" --read "$M/b" extents)" "hole 0 1048576"
	fileop "$M/b" expect ENXIO seek data 0

	step "$pool: more extents than one answer holds"
	run rm "$M/b"
	fileop --create "$M/b" truncate 8M
	for ((i = 0; i < 1000; i++)); do
		echo "write $((i * 8192)) 4096 $i"
	done | run "$TOOLS/fileop" "$M/b" - >/dev/null
	is "extents" "$("$TOOLS/fileop" --read "$M/b" extents | grep -c data)" 1000
	is "last" "$("$TOOLS/fileop" --read "$M/b" extents | tail -1)" "hole 8187904 8388608"

	step "$pool: cp keeps the holes"
	run cp --sparse=auto "$M/a" "$M/c"
	same "$M/a" "$M/c"
	at_most "allocated" "$(allocated "$M/c")" $((1280 * 1024))
	run rm "$M/a" "$M/b" "$M/c"
done

umount_dir "$T/ram"
umount_dir "$T/disk"
finish
