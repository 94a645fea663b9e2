#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# mv replaces at once and refuses what is in use, rm keeps an open region until its last close, and what a pool
# cannot hold is refused with the usual errno.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse
donor_start ram=memory:?size=64M disk="file:$T/pool?size=64M"
mount_pool ram "$T/ram"
mount_pool disk "$T/disk"

# What renameat2 answers for FLAGS (noreplace, exchange): "ok" or an errno's name.
rename2() {
	run "$TOOLS/rename" "$@"
}

for pool in ram disk; do
	M=$T/$pool

	step "$pool: mv gives a new name and keeps everything else"
	fileop --create=640 "$M/a" write 0 100K 1
	before=$(attr "$M/a" '%i %s %b %a %Y')
	run mv "$M/a" "$M/b"
	is "b" "$(attr "$M/b" '%i %s %b %a %Y')" "$before"
	refused "No such file" stat "$M/a"
	refused "cannot stat" mv "$M/a" "$M/c"
	fileop --read "$M/b" verify 0 100K 1

	step "$pool: mv over a closed region replaces it, and frees the old one's space"
	fileop --create "$M/old" write 0 8M 2
	run mv "$M/b" "$M/old"
	is "entries" "$(ls "$M")" old
	fileop --read "$M/old" verify 0 100K 1
	is "size" "$(attr "$M/old" %s)" 102400
	eventually 5 "the space of the replaced region" free_is "$M" $(((64 << 20) - 102400))

	step "$pool: mv over an open region is refused; the open region may be moved itself"
	fileop --create "$M/new" write 0 100K 3
	talk reader "$TOOLS/fileop" --read "$M/old" -
	tell reader verify 0 100K 1
	refused "busy" mv "$M/new" "$M/old"
	fileop --read "$M/new" verify 0 100K 3
	tell reader verify 0 100K 1
	run mv "$M/old" "$M/moved"
	tell reader drop
	tell reader verify 0 100K 1
	hang_up reader
	is "entries" "$(ls "$M" | tr '\n' ' ')" "moved new "
	eventually 5 "mv once the region is closed" mv "$M/new" "$M/moved"
	fileop --read "$M/moved" verify 0 100K 3

	step "$pool: RENAME_NOREPLACE and RENAME_EXCHANGE"
	fileop --create "$M/a" write 0 8K 4
	is "no-replace onto a name" "$(rename2 noreplace "$M/a" "$M/moved")" EEXIST
	is "no-replace onto none" "$(rename2 noreplace "$M/a" "$M/b")" ok
	is "exchange" "$(rename2 exchange "$M/b" "$M/moved")" ok
	fileop --read "$M/b" verify 0 100K 3
	fileop --read "$M/moved" verify 0 8K 4
	is "exchange with none" "$(rename2 exchange "$M/b" "$M/none")" ENOENT
	talk reader "$TOOLS/fileop" --read "$M/b" -
	is "exchange of open ones" "$(rename2 exchange "$M/b" "$M/moved")" ok
	tell reader verify 0 100K 3
	hang_up reader
	is "whiteout" "$(rename2 whiteout "$M/b" "$M/none")" EINVAL
	is "a name for itself" "$(rename2 plain "$M/b" "$M/b")" ok
	is "to another mount" "$(rename2 plain "$M/b" "$T/b")" EXDEV
	run rm "$M/b" "$M/moved"

	step "$pool: a removed region lives until its last close, then its space is free"
	fileop --create "$M/a" write 0 16M 5
	talk one "$TOOLS/fileop" "$M/a" -
	talk two "$TOOLS/fileop" --read "$M/a" -
	tell two verify 0 1M 5
	run rm "$M/a"
	is "entries" "$(ls -A "$M")" ""
	tell one drop
	tell one verify 0 16M 5
	tell one write 16M 1M 5
	tell one fsync
	contains "its size" "$(tell one size)" "size=17825792 allocated=17825792 mode=600 nlink=0"
	fileop --create "$M/a" write 0 4K 6
	tell two drop
	tell two verify 0 17M 5
	tell one truncate 12M
	tell one fallocate punch 0 1M
	tell two zeros 0 1M
	is "free while it is open" "$(free_bytes "$M")" $(((53 << 20) - 4096))
	hang_up one
	tell two drop
	tell two verify 1M 11M 5
	hang_up two
	eventually 5 "free after the last close" free_is "$M" $(((64 << 20) - 4096))
	fileop --read "$M/a" verify 0 4K 6
	run rm "$M/a"

	step "$pool: only regions can be made"
	touch "$M/a"
	refused "Operation not permitted" mkdir "$M/dir"
	refused "Operation not permitted" ln "$M/a" "$M/link"
	refused "Operation not permitted" ln -s a "$M/link"
	refused "Operation not permitted" mkfifo "$M/fifo"
	refused "Operation not permitted" mknod "$M/null" c 1 3
	refused "Operation not permitted" mknod "$M/disk" b 7 0
	refused "Not a directory" rmdir "$M/a"
	refused "Not a directory" ls "$M/a/b"
	refused "No such file" rm "$M/none"
	is "entries" "$(ls -A "$M")" a
	run rm "$M/a"
done

umount_dir "$T/ram"
umount_dir "$T/disk"
finish
