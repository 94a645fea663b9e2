#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# cache=memory: copies of what is used, written back behind, and given to others as soon as all is there.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse setfattr getfattr jq
donor_start ram=memory:?size=256M disk="file:$T/pool?size=256M"
M=$T/m D=$T/d

value() {
	run getfattr --absolute-names --only-values -n "user.remram.$2" "$1"
}

value_is() {
	[[ $(value "$1" "$2") == "$3" ]]
}

# sees OFF LEN SEED: reading without another open gives this; the file is held open by `talk reader`.
sees() {
	[[ $(ask_talk reader verify "$@" 2>/dev/null) == ok ]]
}

step "what does not go together is refused"
mkdir "$M"
# shellcheck disable=SC2034
refuse() {
	refused "$1" "$REMRAM" mount "127.0.0.1:$DONOR_PORT:/ram" "$M" -o "$2"
}
refuse "exclude each other" cache=memory,shared
refuse "exclude each other" cache=memory,swap=s,size=16M
refuse "exclude each other" cache=memory,attach=s
refuse "needs cache=" pull=all
refuse "needs cache=DIRECTORY" cache=memory,durability=local
refuse "needs pull=all" cache=memory,pull_first=1M
refuse "neither 'memory' nor a directory" cache=here
refused "needs no copy" "$REMRAM" mount "memory:?size=1M" "$M" -o cache=memory

for pool in ram disk; do
	step "$pool: written here, read there"
	mount_pool $pool "$M" -o cache=memory,pull=all
	mount_pool $pool "$D"
	fileop --create "$M/f" write 0 8M 1 , fsync
	fileop --read "$D/f" verify 0 8M 1
	is "size there" "$(attr "$D/f" %s)" 8388608
	run cmp "$M/f" "$D/f"

	step "$pool: mtime is that of the write"
	fileop --create "$M/t" write 0 1M 1
	was=$(attr "$M/t" %Y.%y)
	eventually 10 "the file is pushed" value_is "$M/t" dirty_bytes 0
	sleep 1
	is "mtime" "$(attr "$M/t" %Y.%y)" "$was"
	is "mtime there" "$(attr "$D/t" %Y.%y)" "$was"

	step "$pool: a writer here keeps others from writing, until it is closed"
	talk writer "$TOOLS/fileop" "$M/f" -
	tell writer write 4096 4096 2
	refused EBUSY "$TOOLS/fileop" "$D/f" write 0 1 3
	hang_up writer
	eventually 10 "the lease is given back" "$TOOLS/fileop" "$D/f" write 8M 4096 3
	fileop --read "$M/f" verify 0 4096 1 , verify 4096 4096 2 , verify 8M 4096 3

	step "$pool: what another writes, the open file and the mapping show"
	fileop --create "$D/news" write 0 1M 1
	talk reader "$TOOLS/fileop" --read "$M/news" -
	tell reader verify 0 1M 1
	tell reader map 0 1M shared r
	tell reader map-verify 0 1M 1
	talk writer "$TOOLS/fileop" "$D/news" -
	for ((i = 2; i < 6; i++)); do
		tell writer write $((i * 100000)) 5000 $i
		eventually 5 "the new bytes" sees $((i * 100000)) 5000 $i
		tell reader map-verify $((i * 100000)) 5000 $i
		tell reader verify $((i * 100000 + 5000)) 5000 1
		tell writer write ${i}M 1M $i
		eventually 5 "the new end" sees ${i}M 1M $i
		is "size" "$(attr "$M/news" %s)" $(((i + 1) * 1048576))
	done
	# What was not there when the reader was opened, and was read since, changes as well.
	tell writer write 5M 4096 6
	eventually 5 "the new bytes" sees 5M 4096 6
	hang_up writer
	hang_up reader
	run rm "$D/news"

	step "$pool: longer, shorter, holes, names"
	run truncate -s 3000 "$M/f"
	run truncate -s 1M "$M/f"
	is "size" "$(attr "$M/f" %s)" 1048576
	is "zeros" "$(run tail -c +3001 "$M/f" | tr -d '\0' | wc -c)" 0
	run mv "$M/f" "$M/g"
	fileop --read "$M/g" verify 0 3000 1
	talk reader "$TOOLS/fileop" --read "$M/g" -
	run rm "$M/g"
	tell reader verify 0 3000 1
	hang_up reader
	fileop --create "$M/g" write 0 4096 5
	fileop --read "$M/g" verify 0 4096 5

	step "$pool: all is pulled, and read without the donor"
	fileop --create "$D/big" write 0 32M 7
	fileop --read "$M/big" verify 0 4096 7
	talk reader "$TOOLS/fileop" --read "$M/big" -
	eventually 20 "all is resident" value_is "$M/big" resident 33554432
	hang_up reader

	step "$pool: attributes, set and read"
	run setfattr -n user.remram.pull_order -v "0-1M:10,16M-:9" "$M/big"
	is "order" "$(value "$M/big" pull_order)" "0-1M:10,16M-:9"
	refused "Invalid argument" setfattr -n user.remram.pull_order -v "x" "$M/big"
	run setfattr -n user.remram.durability -v none "$M/big"
	is "durability" "$(value "$M/big" durability)" none
	refused "not permitted" setfattr -n user.remram.resident -v 1 "$M/big"

	step "$pool: umount pushes what is left"
	fileop --create "$M/last" write 0 20M 8
	umount_dir "$M"
	fileop --read "$D/last" verify 0 20M 8
	umount_dir "$D"
done

step "SIGTERM pushes what is left"
mount_pool ram "$M" -o cache=memory,push_interval=1h,max_dirty_age=2h
mount_pool ram "$D"
pid=$(daemon_pid "$M")
fileop --create "$M/term" write 0 20M 9
kill -TERM "$pid"
eventually 20 "the daemon ends" process_gone "$pid"
guard_drop mount "$M"
fileop --read "$D/term" verify 0 20M 9
umount_dir "$D"

step "a mount that waits for its first bytes"
mount_pool ram "$M" -o cache=memory,pull=all,pull_first=50%
fileop --create "$M/first" write 0 8M 1
umount_dir "$M"
mount_pool ram "$M" -o cache=memory,pull=all,pull_first=100%,pull_order=4M-:5+0-1M:9
is "resident" "$(value "$M/first" resident)" 8388608
umount_dir "$M"

step "less cache than data"
mount_pool ram "$M" -o cache=memory,cache_size=16M,max_dirty=4M
fileop --create "$M/wide" write 0 96M 4 , fsync , verify 0 96M 4
drop_cache "$M/wide"
fileop --read "$M/wide" verify 0 96M 4
umount_dir "$M"

# What is said to be at the donor is looked at through a mount that has no copy, and has not read it before.
there() {
	mount_pool $pool "$T/there" -o ro
	fileop --read "$T/there/stable" "$@"
	umount_dir "$T/there"
}

for pool in ram disk; do
	step "$pool: O_SYNC and msync: the donor has it when they return, long before it is pushed"
	mount_pool $pool "$M" -o cache=memory,push_interval=1h,max_dirty_age=2h
	fileop --create "$M/stable" truncate 1M , fsync
	talk plain "$TOOLS/fileop" "$M/stable" -
	tell plain write 512K 64K 1
	is "bytes that are dirty" "$(value "$M/stable" dirty_bytes)" 65536
	there zeros 512K 64K
	talk sync "$TOOLS/fileop" --sync "$M/stable" -
	tell sync write 0 64K 2
	there verify 0 64K 2
	tell plain map 0 1M shared rw
	tell plain map-write 128K 64K 3
	tell plain map-sync
	there verify 0 64K 2 , verify 128K 64K 3
	is "bytes that are dirty" "$(value "$M/stable" dirty_bytes)" 0

	# It is noted to 67 ms.
	step "$pool: the age of what is dirty"
	is "age" "$(value "$M/stable" oldest_dirty_ms)" 0
	start=$(now_ms)
	tell plain write 256K 4K 4
	sleep 0.3
	first=$(value "$M/stable" oldest_dirty_ms)
	at_least "age" "$first" 230
	at_most "age" "$first" $(($(since_ms "$start") + 70))
	tell plain write 640K 4K 5
	sleep 0.2
	at_least "age of the oldest" "$(value "$M/stable" oldest_dirty_ms)" $((first + 130))
	at_most "age of the oldest" "$(value "$M/stable" oldest_dirty_ms)" $(($(since_ms "$start") + 70))
	tell plain fsync
	is "age" "$(value "$M/stable" oldest_dirty_ms)" 0
	hang_up plain
	hang_up sync
	umount_dir "$M"

	step "$pool: the donor is full: each open file hears of it at its next fsync, once"
	mount_pool $pool "$D"
	fileop --create "$D/filler" fallocate reserve 0 "$(($(free_bytes "$D") - 4194304))"
	mount_pool $pool "$M" -o cache=memory,push_interval=1h,max_dirty_age=2h
	run truncate -s 16M "$M/full"
	talk one "$TOOLS/fileop" "$M/full" -
	talk two "$TOOLS/fileop" "$M/full" -
	tell one write 0 8M 6
	tell one expect ENOSPC fsync
	run rm "$D/filler"
	eventually 20 "it is pushed" value_is "$M/full" dirty_bytes 0
	# It may have been tried in vain once more before there was room.
	ask_talk one fsync >/dev/null
	tell one fsync
	tell two expect ENOSPC fsync
	tell two fsync
	fileop --read "$D/full" verify 0 8M 6
	hang_up one
	hang_up two
	umount_dir "$M"
	run rm "$D/full" "$D/stable"
	umount_dir "$D"
done

step "the donor is away: umount says what would be lost"
mount_pool ram "$M" -o cache=memory,push_interval=1h,max_dirty_age=2h
talk writer "$TOOLS/fileop" --create "$M/away" -
tell writer write 0 1M 1
donor_halt
hang_up writer
kill -KILL "$DONOR_PID"
kill -CONT "$DONOR_PID" 2>/dev/null || true
wait "$DONOR_PID" 2>/dev/null || true
guard_drop pid "$DONOR_PID"
refused "not at the donor" "$REMRAM" umount "$M"
guard_is_mounted "$M" || fail "it is not mounted any more"
umount_dir "$M" -f
finish
