#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# cache=DIR: the next mount fetches nothing again, and finds its settings; who else may not use the directory.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse setfattr getfattr jq
donor_start ram=memory:?size=256M disk="file:$T/pool?size=256M" other=memory:?size=16M
M=$T/m D=$T/d C=$T/cache

value() {
	run getfattr --absolute-names --only-values -n "user.remram.$2" "$1"
}

# Bytes that have come from the donor since the mount.
came() {
	run "$REMRAM" status --json "$M" | jq '[.. | .bytes_in? // empty] | first'
}

for pool in ram disk; do
	rm -rf "$C"
	step "$pool: what was read and written is there at the next mount"
	mount_pool $pool "$D"
	fileop --create "$D/theirs" write 0 16M 1
	mount_pool $pool "$M" -o cache="$C"
	fileop --create "$M/ours" write 0 16M 2
	fileop --read "$M/theirs" verify 0 16M 1
	run setfattr -n user.remram.pull_order -v 8M-:3 "$M/ours"
	umount_dir "$M"
	fileop --read "$D/ours" verify 0 16M 2
	mount_pool $pool "$M" -o cache="$C"
	fileop --read "$M/theirs" verify 0 16M 1
	fileop --read "$M/ours" verify 0 16M 2
	at_most "bytes from the donor" "$(came)" 100000
	is "order" "$(value "$M/ours" pull_order)" 8M-:3

	step "$pool: what another client has changed meanwhile is fetched again"
	umount_dir "$M"
	fileop "$D/ours" write 1M 1M 3
	mount_pool $pool "$M" -o cache="$C"
	fileop --read "$M/ours" verify 0 1M 2 , verify 1M 1M 3 , verify 2M 14M 2
	fileop --read "$M/theirs" verify 0 16M 1

	step "$pool: durability=local: fsync does not wait for the donor"
	umount_dir "$M"
	mount_pool $pool "$M" -o cache="$C",durability=local,push_interval=1h,max_dirty_age=2h
	talk writer "$TOOLS/fileop" "$M/theirs" -
	tell writer write 0 1M 4
	tell writer fsync
	fileop --read "$D/theirs" verify 0 1M 1
	hang_up writer
	umount_dir "$M"
	fileop --read "$D/theirs" verify 0 1M 4

	step "$pool: removed and made anew"
	mount_pool $pool "$M" -o cache="$C"
	run rm "$M/ours"
	fileop --create "$M/ours" write 0 1M 5
	umount_dir "$M"
	run rm "$D/theirs"
	mount_pool $pool "$M" -o cache="$C"
	fileop --read "$M/ours" verify 0 1M 5
	[[ ! -e $M/theirs ]] || fail "theirs is still there"

	step "$pool: two mounts do not share a directory"
	mkdir -p "$T/m2"
	refused "$M" "$REMRAM" mount "127.0.0.1:$DONOR_PORT:/$pool" "$T/m2" -o cache="$C"
	umount_dir "$M"
	umount_dir "$D"

	step "$pool: nor do two pools"
	refused "cache=$C" "$REMRAM" mount "127.0.0.1:$DONOR_PORT:/other" "$M" -o cache="$C"
done

step "less cache than data, twice"
rm -rf "$C"
mount_pool disk "$M" -o cache="$C",cache_size=16M,max_dirty=4M
fileop --create "$M/wide" write 0 64M 4 , fsync , verify 0 64M 4
umount_dir "$M"
at_most "size of the cache" "$(du -sm "$C" | cut -f1)" 32
mount_pool disk "$M" -o cache="$C",cache_size=16M,max_dirty=4M
fileop "$M/wide" verify 0 64M 4 , write 32M 1M 5 , verify 0 32M 4 , verify 32M 1M 5
umount_dir "$M"

step "a smaller cache at the next mount: what is too much goes, the data stays"
rm -rf "$C"
mount_pool disk "$M" -o cache="$C",pull=none
fileop "$M/wide" verify 0 32M 4
at_least "resident" "$(value "$M/wide" resident)" 33554432
umount_dir "$M"
at_least "size of the cache" "$(du -sm "$C" | cut -f1)" 32
mount_pool disk "$M" -o cache="$C",cache_size=16M,pull=none
small_enough() {
	(($(value "$M/wide" resident) <= 16777216 && $(du -sm "$C" | cut -f1) <= 20))
}
# It goes as room is needed for something else.
talk holder "$TOOLS/fileop" "$M/wide" -
tell holder write 0 4096 6
tell holder fsync
tell holder verify 33M 31M 4
tell holder verify 0 4096 6
tell holder verify 4096 33546240 4
eventually 10 "the rest is given back" small_enough
hang_up holder
umount_dir "$M"
mount_pool disk "$M"
fileop "$M/wide" verify 0 4096 6 , write 0 4096 4
umount_dir "$M"

step "no place in the directory: reading goes on, writing says so"
mkdir "$T/small"
run mount -t tmpfs -o size=24M tmpfs "$T/small"
guard_add mount "$T/small"
mount_pool disk "$M" -o cache="$T/small/c",pull=none
fileop --read "$M/wide" verify 0 32M 4 , verify 33M 31M 4
refused ENOSPC "$TOOLS/fileop" --create "$M/more" write 0 32M 6
umount_dir "$M"
run umount "$T/small"
guard_drop mount "$T/small"

# A proxy shows what is on its way.
network_start --delay 100

# most_on_the_way WINDOW BYTES: MOST is the most bytes that were, while so many were pulled.
most_on_the_way() {
	mount_source "127.0.0.1:$NETWORK_PORT:/disk" "$M" -o cache=memory,pull=all,pull_window="$1"
	talk reader "$TOOLS/fileop" --read "$M/wide" -
	network stats
	while (($(value "$M/wide" resident) < $2)); do
		sleep 0.05
	done
	MOST=$(network_says stats | sed 's/.*peak_bytes=\([0-9]*\).*/\1/')
	hang_up reader
	umount_dir "$M"
}

step "pull_window= bounds what is on its way here"
most_on_the_way 1M $((8 << 20))
at_least "bytes on their way" "$MOST" 1000000
at_most "bytes on their way" "$MOST" 1150000
most_on_the_way 8M $((32 << 20))
at_least "bytes on their way" "$MOST" 4000000
at_most "bytes on their way" "$MOST" 8500000
finish
