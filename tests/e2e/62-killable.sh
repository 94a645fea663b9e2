#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Whatever waits for a donor that is away can be killed, however many there are, and goes on if it is not.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse
donor_start disk="file:$T/pool?size=1G"
M=$T/mnt
PIDS=()

# start_many COUNT COMMAND…: @ in it becomes the process's number.
start_many() {
	local count=$1 i
	shift
	for ((i = 1; i <= count; i++)); do
		e2e_exec "${@//@/$i}" </dev/null >/dev/null 2>&1 &
		PIDS+=($!)
		disown $!
	done
}

all_gone() {
	local pid
	for pid in "${PIDS[@]}"; do
		process_gone "$pid" || return 1
	done
}

# kill_all SECONDS
kill_all() {
	local pid
	kill -KILL "${PIDS[@]}" 2>/dev/null || true
	eventually "$1" "the processes end" all_gone
	PIDS=()
}

resident_kb() {
	awk '$1 == "VmRSS:" { print $2 }' "/proc/$(daemon_pid "$M")/status"
}

killable() {
	local i alive
	mount_pool disk "$M" -o "$1"
	random_file "$T/data" 1048576
	run cp "$T/data" "$M/a"

	step "$1: 700 that look at names"
	donor_kill
	start_many 700 stat "$M/none-@"
	sleep 1
	kill_all 10

	step "$1: 40 that read 1 MiB each"
	donor_back
	talk a "$TOOLS/fileop" "$M/a" -
	tell a verify 0 0 1
	donor_kill
	start_many 40 dd if="$M/a" of=/dev/null bs=1M count=1 iflag=direct
	sleep 1
	kill_all 10
	donor_back
	hang_up a

	step "$1: 40 that write 1 MiB each, those that are open already"
	mkfifo "$T/go"
	# shellcheck disable=SC2016
	start_many 40 bash -c 'exec >"$1/w@"; read -r <"$2"; exec dd if="$3" bs=1M' - "$M" "$T/go" "$T/data"
	for i in {1..40}; do
		eventually 10 "all are open" test -e "$M/w$i"
	done
	donor_kill
	exec 8<>"$T/go"
	printf 'go\n%.0s' {1..40} >&8
	sleep 2
	alive=0
	for i in "${PIDS[@]}"; do
		process_gone "$i" || alive=$((alive + 1))
	done
	is "those that wait" "$alive" 40
	kill_all 10
	exec 8>&-
	rm "$T/go"
	donor_back

	step "$1: it works as before, and what was not killed goes on"
	same "$T/data" "$M/a"
	donor_kill
	start_many 100 stat "$M/a"
	sleep 0.5
	donor_back
	eventually 20 "they end" all_gone
	PIDS=()
	[[ $1 != mlock ]] || at_most "KiB resident" "$(resident_kb)" 65536
	umount_dir "$M"
}

killable hard
killable mlock
finish
