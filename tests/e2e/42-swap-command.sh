#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# -o swap=NAME: the region is made, reserved, formatted and switched on; reused; refused when it holds
# something else.  umount refuses while the memory is too short for what is swapped out, and everything
# goes on working; then it undoes all of it.
. "$(dirname "$0")/lib.sh"
requires fuse loop mkswap jq
cgroup_available || skip "needs memory control groups"
guard_lock_swap
donor_start ram=memory:?size=256M
M=$T/mnt
RUN=$(run_dir "$M")
SRC=127.0.0.1:$DONOR_PORT:/ram

# The line of our swap in /proc/swaps: size in KiB, used, priority.
swap_line() {
	awk -v dev="$(readlink "$RUN/swap0")" '$1 == dev { print $3, $4, $5 }' /proc/swaps
}

status_says() {
	"$REMRAM" status "$M" | grep -e "$1" >/dev/null
}

cgroup_limit_file() {
	local file
	for file in "$1/memory.limit_in_bytes" "$1/memory.max"; do
		[[ ! -e $file ]] || echo "$file"
	done
}

not_mounted() {
	! guard_is_mounted "$M" || fail "$M is mounted"
	[[ ! -e $RUN ]] || fail "$RUN is left"
	is "loop devices" "$(losetup -n -O BACK-FILE | grep -cF "$M/" || true)" 0
}

step "a new region: made, reserved, switched on with its priority"
mount_pool ram "$M" -o swap=swap0,size=128M,prio=7
is "swap" "$(swap_line | cut -d' ' -f1,3)" "131068 7"
is "region" "$(stat -c '%s %b %a' "$M/swap0")" "134217728 262144 600"
is "direct I/O" "$(cat "/sys/block/$(basename "$(readlink "$RUN/swap0")")/loop/dio")" 1
is "label" "$(run blkid -p -s LABEL -o value "$RUN/swap0")" remram
first=$(run blkid -p -s UUID -o value "$RUN/swap0")
refused "busy" rm "$M/swap0"
refused "busy" truncate -s 1M "$M/swap0"
umount_dir "$M"
not_mounted

step "used again, with a new UUID"
mount_pool ram "$M" -o swap=swap0
is "size" "$(swap_line | cut -d' ' -f1)" 131068
[[ $(run blkid -p -s UUID -o value "$RUN/swap0") != "$first" ]] || fail "the UUID is still $first"
umount_dir "$M"

step "what is refused, and leaves nothing"
mount_pool ram "$M"
fileop --create "$M/data" write 1M 4096 1 , truncate 2M
umount_dir "$M"
refused "$M/data holds data that is not swap" "$REMRAM" mount "$SRC" "$M" -o swap=data
refused "has 128.0 MiB, not the 64.0 MiB of size=" "$REMRAM" mount "$SRC" "$M" -o swap=swap0,size=64M
refused "no such region: give size=SIZE" "$REMRAM" mount "$SRC" "$M" -o swap=new
refused "no room for 200.0 MiB" "$REMRAM" mount "$SRC" "$M" -o swap=new,size=200M
not_mounted
mount_pool ram "$M"
is "regions" "$(ls "$M")" $'data\nswap0'
fileop --read "$M/data" zeros 0 1M , verify 1M 4096 1
umount_dir "$M"

mount_pool ram "$M" -o swap=swap0,prio=32767

step "a program three times as large as its cgroup: umount refuses, and all goes on working"
group=$(cgroup_create "remram-e2e-$$" 32M)
guard_add cgroup "$group"
cgroup_exec "$group" "$TOOLS/memwork" --size 96M --random 2000 --rounds 2 \
	</dev/null >"$T/work.log" 2>&1 &
JOB=$!
guard_add job "$JOB"
eventually 60 "the program fills its memory" grep -q fill "$T/work.log"
kill -STOP "$JOB"
# Where there is other swap the pages would go there.
if [[ $(wc -l </proc/swaps) -eq 2 ]]; then
	refused "the memory of the cgroup $group is too short" "$REMRAM" umount "$M"
	at_least "swap in use" "$(swap_line | cut -d' ' -f2)" 32768
else
	say "# this machine has other swap: that umount refuses is not tested"
fi
contains "status" "$(run "$REMRAM" status "$M")" "swap0 on $(readlink "$RUN/swap0")"
kill -CONT "$JOB"
job_passes 90
contains "its words" "$(cat "$T/work.log")" "wrong_words=0"

step "with its cgroup enlarged the swap is read back under the living program"
echo 32M >"$(cgroup_limit_file "$group")"
cgroup_exec "$group" "$TOOLS/memwork" --size 96M --random 2000 --rounds 2 \
	</dev/null >"$T/work2.log" 2>&1 &
JOB=$!
guard_add job "$JOB"
eventually 60 "the program fills its memory" grep -q fill "$T/work2.log"
kill -STOP "$JOB"
echo 256M >"$(cgroup_limit_file "$group")"
run_for 60 "$REMRAM" umount "$M"
guard_drop mount "$M"
not_mounted
kill -CONT "$JOB"
job_passes 60
contains "its words" "$(cat "$T/work2.log")" "wrong_words=0"

step "the donor is away: umount refuses at once; umount -f gives up"
mount_pool ram "$M" -o swap=swap0
donor_kill
eventually 20 "status knows" status_says LOST
refused "is not reachable" "$REMRAM" umount "$M"
[[ -n $(swap_line) ]] || fail "the swap is off"
run_for 60 "$REMRAM" umount -f "$M"
guard_drop mount "$M"
not_mounted
finish
