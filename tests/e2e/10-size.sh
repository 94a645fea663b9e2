#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Sizes are honest: ls, stat, st_blocks, df, touch, truncate.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse
donor_start ram=memory:?size=64M disk="file:$T/pool?size=64M"

free_blocks() {
	run stat -f -c %f "$1"
}

mount_pool ram "$T/ram"
mount_pool disk "$T/disk"
for pool in ram disk; do
	M=$T/$pool

	step "$pool: an empty pool: df shows the quota, ls nothing"
	is "total" "$(stat -f -c %b "$M")" 16384
	is "free" "$(free_blocks "$M")" 16384
	is "block size" "$(stat -f -c %S "$M")" 4096
	is "name length" "$(stat -f -c %l "$M")" 255
	is "entries" "$(ls -A "$M")" ""
	contains "df" "$(run df -P -B1 "$M")" " 67108864 "

	step "$pool: touch makes an empty region with mode 0600 less the umask"
	(umask 077 && run touch "$M/a")
	is "a" "$(attr "$M/a" '%s %b %a %u %g %h %F')" "0 0 600 0 0 1 regular empty file"
	is "entries" "$(ls -A "$M")" "a"

	step "$pool: truncate makes it long and takes no space"
	run truncate -s 48M "$M/a"
	is "a" "$(attr "$M/a" '%s %b')" "50331648 0"
	is "free" "$(free_blocks "$M")" 16384
	fileop --read "$M/a" zeros 0 1M , zeros 47M 1M

	step "$pool: what is written takes space, in st_blocks and in df"
	fileop "$M/a" write 8M 4M 1
	is "a" "$(attr "$M/a" '%s %b')" "50331648 8192"
	is "free" "$(free_blocks "$M")" $((16384 - 1024))
	contains "ls -ls" "$(run ls -ls --block-size=1 "$M/a")" "4194304 -rw------- 1 root root 50331648"
	contains "du" "$(run du -B1 "$M/a")" "4194304"

	step "$pool: truncate down gives space back; what is beyond is zero after re-extension"
	fileop "$M/a" truncate 9437685 , verify 8M 1049077 1 , truncate 16M , verify 8M 1049077 1 , \
		zeros 9437685 7339531
	is "a" "$(attr "$M/a" '%s')" 16777216
	at_most "blocks" "$(attr "$M/a" '%b')" $((1052672 / 512))
	at_least "free" "$(free_blocks "$M")" $((16384 - 257))
	fileop "$M/a" truncate 0
	is "a" "$(attr "$M/a" '%s %b')" "0 0"

	step "$pool: the same through names, while the page cache is warm"
	fileop "$M/a" write 0 1M 2 , verify 0 1M 2
	run truncate -s 5000 "$M/a"
	run truncate -s 1M "$M/a"
	fileop "$M/a" verify 0 5000 2 , zeros 5000 1043576
	drop_cache "$M/a"
	fileop "$M/a" verify 0 5000 2 , zeros 5000 1043576

	step "$pool: odd sizes"
	for size in 1 511 4095 4096 4097 1048575 1048577; do
		rm -f "$M/odd"
		fileop --create "$M/odd" write 0 $size $size , verify 0 $size $size
		is "size" "$(attr "$M/odd" '%s')" $size
		drop_cache "$M/odd"
		is "bytes that cat reads" "$(run cat "$M/odd" | wc -c)" $size
	done

	step "$pool: no region becomes longer than the pool"
	refused "File too large" truncate -s 65M "$M/a"
	run truncate -s 64M "$M/a"
	refused "too large" truncate -s 9223372036854775807 "$M/a"
	is "a" "$(attr "$M/a" '%s')" 67108864

	step "$pool: rm gives everything back"
	run rm "$M/a" "$M/odd"
	is "entries" "$(ls -A "$M")" ""
	eventually 5 "free space" free_is "$M" $((64 << 20))
done

umount_dir "$T/ram"
umount_dir "$T/disk"
finish
