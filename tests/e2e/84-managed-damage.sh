#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A damaged cache directory: what cannot be trusted goes aside with a message, the files are as at the donor, and
# remram rescue has what only the directory had.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse jq
donor_start disk="file:$T/pool?size=256M" --lease 1s
M=$T/m D=$T/d C=$T/cache
# shellcheck disable=SC2054 # one option
FAR=(-o "cache=$C,durability=local,push_interval=1h,max_dirty_age=2h")

# aside FILTER: of the regions that are kept aside (an index that was damaged is there, too).
aside() {
	run "$REMRAM" rescue --json "$C" | jq -r "[.[] | select(.kind == \"region\")] | $1"
}

# The region's file in the directory.
data() {
	echo "$C"/data/0*
}

# left_dirty: a directory whose mount was killed: f is 8 MiB of 1, and 1 MiB of 2 in it is nowhere else.
left_dirty() {
	rm -rf "$C"
	mount_pool disk "$M" "${FAR[@]}"
	fileop --create "$M/f" write 0 8M 1
	run "$REMRAM" flush "$M/f" >>"$T/said"
	talk writer "$TOOLS/fileop" "$M/f" - # a close would push
	tell writer write 1M 1M 2
	tell writer fsync
	daemon_kill "$M"
	hang_up writer
	umount_dead "$M"
}

# left_clean: one that was left in order: f is 8 MiB of 1.
left_clean() {
	rm -rf "$C"
	mount_pool disk "$M" "${FAR[@]}"
	fileop --create "$M/f" write 0 8M 1 , fsync
	umount_dir "$M"
}

# finds TEXT…: a mount finds the damage, and says each TEXT; f is as at the donor, and can be written to; nothing new is
# found by the mounts that follow.
finds() {
	local text
	: >"$M.log"
	mount_logged disk "$M" "${FAR[@]}"
	fileop --read "$M/f" verify 0 8M 1
	for text in "$@" "set aside in aside/$(aside '.[0].key')"; do
		contains "the log" "$(<"$M.log")" "$text"
	done
	is "regions aside" "$(aside length)" 1
	eventually 20 "the lease of the one that was killed ends" "$TOOLS/fileop" "$M/f" write 4M 1M 3
	fileop "$M/f" fsync , verify 0 4M 1 , verify 4M 1M 3 , verify 5M 3M 1
	umount_dir "$M"
	job_wait 20 "$DAEMON_JOB"
	is "the daemon's exit code" "$JOB_CODE" 0
	guard_drop pid "$DAEMON_JOB"
	: >"$M.log"
	mount_logged disk "$M" "${FAR[@]}"
	fileop --read "$M/f" verify 0 4M 1 , verify 4M 1M 3
	[[ $(<"$M.log") != *"set aside"* ]] || fail "the next mount sets something aside, too: $(<"$M.log")"
	umount_dir "$M"
	job_wait 20 "$DAEMON_JOB"
	guard_drop pid "$DAEMON_JOB"
	mount_pool disk "$D"
	fileop --read "$D/f" verify 0 4M 1 , verify 4M 1M 3 , verify 5M 3M 1
	umount_dir "$D"
	is "regions aside" "$(aside length)" 1
}

# rescues: what was nowhere else is kept, in its place; without an index nobody can tell whether it is all right.
rescues() {
	refused "do not fit their checksums" "$REMRAM" rescue write "$C" "$(aside '.[0].key')" "$T/rescued"
	run "$REMRAM" rescue write --force "$C" "$(aside '.[0].key')" "$T/rescued" >>"$T/said"
	fileop --read "$T/rescued" verify 1M 1M 2
	rm "$T/rescued"
}

step "an index that is none"
left_dirty
run dd if=/dev/urandom of="$C/index.db" bs=4096 count=4 conv=notrunc status=none
rm -f "$C"/index.db-wal
finds "the index of the cache is damaged" "begins empty"
contains "for people" "$(run "$REMRAM" rescue "$C")" "the index of the cache is damaged"
rescues

step "no index"
left_dirty
rm "$C"/index.db*
finds "the index of the cache is damaged" "index.db was missing"
rescues

step "data that has changed since it was left in order"
left_clean
printf XXXXXXXX | run dd of="$(data)" bs=1 seek=3000000 conv=notrunc status=none
finds "\"f\": 1 blocks of its cache have changed since it was closed cleanly"
is "name" "$(aside '.[0].name')" f
is "bytes that may be nowhere else" "$(aside '.[0].dirty_bytes')" 0

step "no data"
left_dirty
rm "$(data)"
finds "\"f\": the data file of its cache is missing"

step "a stamp that is none: nothing is touched"
left_dirty
run cp -a "$C" "$T/before"
echo nonsense >"$C/remram-cache"
run cp "$C/remram-cache" "$T/before/remram-cache"
refused "its remram-cache is damaged: move the directory away" \
	"$REMRAM" mount "127.0.0.1:$DONOR_PORT:/disk" "$M" "${FAR[@]}"
run diff -r "$C/data" "$T/before/data"
run diff -r "$C/aside" "$T/before/aside"
same "$C/index.db" "$T/before/index.db"
finish
