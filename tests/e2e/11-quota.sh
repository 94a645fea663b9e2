#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A full pool says ENOSPC, loses nothing that was written, and can be written again after rm.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse
donor_start ram=memory:?size=32M disk="file:$T/pool?size=32M"
mount_pool ram "$T/ram"
mount_pool disk "$T/disk"

for pool in ram disk; do
	M=$T/$pool
	step "$pool: writing beyond the quota"
	fileop --create "$M/a" write 0 24M 1
	refused "No space left on device" dd if=/dev/urandom of="$M/b" bs=1M count=16 status=none
	size=$(attr "$M/b" %s)
	at_most "bytes that went in" "$size" $((9 * 1048576))
	is "free" "$(stat -f -c %a "$M")" "$(stat -f -c %f "$M")"
	fileop "$M/a" verify 0 24M 1

	step "$pool: direct, mapped and appended writes are told as well"
	run rm "$M/b"
	eventually 5 "space after rm" free_is "$M" $((8 << 20))
	fileop --create --direct "$M/b" write 0 8M 2 , expect ENOSPC write 8M 1M 2 , verify 0 8M 2
	fileop --append "$M/b" expect ENOSPC append 4096 2
	fileop --create "$M/c" truncate 1M , map 0 1M shared rw , map-write 0 1M 3 , expect ENOSPC map-sync
	fileop "$M/b" verify 0 8M 2 , write 0 8M 4 , verify 0 8M 4
	run rm "$M/c"

	step "$pool: rm makes room again, at once and for all of it"
	run rm "$M/b"
	fileop --create "$M/b" write 0 8M 5 , verify 0 8M 5
	run rm "$M/a"
	fileop --create "$M/c" write 0 24M 6
	drop_cache "$M/b" "$M/c"
	fileop "$M/b" verify 0 8M 5
	fileop "$M/c" verify 0 24M 6
	is "free" "$(stat -f -c %f "$M")" 0

	step "$pool: truncate and punch make room too"
	fileop "$M/c" truncate 20M
	fileop "$M/b" truncate 12M , write 8M 4M 7 , expect ENOSPC fallocate reserve-keep 12M 4K
	fileop "$M/c" fallocate punch 0 1M
	fileop "$M/b" write 12M 1M 7 , verify 0 8M 5 , verify 8M 5M 7
	fileop "$M/c" zeros 0 1M , verify 1M 19M 6

	step "$pool: a full pool can be cleared, listed and described"
	is "entries" "$(run ls "$M" | tr '\n' ' ')" "b c "
	run touch "$M/empty"
	run mv "$M/empty" "$M/still-empty"
	run rm "$M/b" "$M/c" "$M/still-empty"
	eventually 5 "space after rm" free_is "$M" $((32 << 20))
done

umount_dir "$T/ram"
umount_dir "$T/disk"
finish
