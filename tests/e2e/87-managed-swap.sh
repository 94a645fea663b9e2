#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Swap on a mount that has a cache: no option makes it, and made by hand it is warned of: log, status and doctor say
# so, as the kernel lets nobody refuse it.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse loop losetup mkswap swapon jq
guard_lock_swap
donor_start disk="file:$T/pool?size=256M"
M=$T/mnt

# found CHECK: the level of that check of this mount, and what it says.
found() {
	timeout 30 "$REMRAM" doctor --json "$M" >"$T/doctor" || true
	jq -r --arg where "$M" --arg check "$1" \
		'.checks[] | select(.where == $where and .check == $check) | .level + " " + .found' "$T/doctor"
}

warned() {
	grep -c "is swap on" "$M.log" || true
}

warned_is() {
	[[ $(warned) -eq $1 ]]
}

# attach_file FILE: LOOP is the device.
attach_file() {
	LOOP=$(run losetup --find --show --direct-io=on "$1")
	guard_add loop "$LOOP"
}

detach() {
	guard_undo_loop "$LOOP"
	guard_drop loop "$LOOP"
}

step "no option makes it"
mkdir -p "$M"
refused "exclude each other" "$REMRAM" mount "127.0.0.1:$DONOR_PORT:/disk" "$M" -o cache=memory,swap=s,size=16M
refused "exclude each other" "$REMRAM" mount "127.0.0.1:$DONOR_PORT:/disk" "$M" -o cache=memory,loop=s
refused "exclude each other" "$REMRAM" mount "127.0.0.1:$DONOR_PORT:/disk" "$M" -o cache=memory,attach=s

for how in cache=memory "cache=$T/cache"; do
	step "${how%%=/*}: a loop device by hand is a risk"
	: >"$M.log"
	mount_logged disk "$M" -o "$how"
	run truncate -s 16M "$M/s"
	is "the doctor on the cache" "$(found cache)" ""
	attach_file "$M/s"
	is "the doctor on the cache" "$(found cache)" "warn $LOOP is on a region with a local copy"
	contains "status" "$(run "$REMRAM" status "$M")" "$LOOP on $M/s, by hand"
	is "status" "$(run "$REMRAM" status --json "$M" | jq -c '.[0].by_hand')" \
		"[{\"device\":\"$LOOP\",\"file\":\"$M/s\",\"swap\":false}]"
	is "warnings" "$(warned)" 0

	step "${how%%=/*}: swap on it is a fault, which doctor, status and log name"
	run mkswap "$LOOP" >/dev/null
	guard_add swap "$LOOP"
	run swapon "$LOOP"
	eventually 5 "a warning" warned_is 1
	contains "the log" "$(grep "is swap on" "$M.log")" "$LOOP is swap on $M/s, which has a local copy"
	is "the doctor on the cache" "$(found cache)" "fail swap on $LOOP is on a region with a local copy"
	is "the doctor's result" "$(jq -r .result "$T/doctor")" fail
	contains "its advice" "$(jq -r '.checks[] | select(.check == "cache").advice' "$T/doctor")" "swapoff $LOOP"
	contains "status" "$(run "$REMRAM" status "$M")" "$LOOP on $M/s, by hand, NOT SAFE"
	is "status" "$(run "$REMRAM" status --json "$M" | jq '.[0].by_hand[0].swap')" true

	step "${how%%=/*}: once each time"
	run swapoff "$LOOP"
	run swapon "$LOOP"
	eventually 5 "a second warning" warned_is 2
	run swapoff "$LOOP"
	guard_drop swap "$LOOP"
	detach
	is "the doctor on the cache" "$(found cache)" ""
	umount_dir "$M"
done

step "without a cache it is no fault of this kind, and nothing is logged"
: >"$M.log"
mount_logged disk "$M"
attach_file "$M/s"
guard_add swap "$LOOP"
run mkswap "$LOOP" >/dev/null
run swapon "$LOOP"
is "the doctor on the cache" "$(found cache)" ""
contains "status" "$(run "$REMRAM" status "$M")" "$LOOP on $M/s, by hand"
is "warnings" "$(warned)" 0
run swapoff "$LOOP"
guard_drop swap "$LOOP"
detach
umount_dir "$M"
finish
