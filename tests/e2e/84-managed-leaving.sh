#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# SIGTERM while the donor is away: the mount goes, the daemon stays with what only it has.  status and top say so,
# umount.remram does not clean that up as if nothing was there, and when the donor is back all of it arrives.
# shellcheck source-path=SCRIPTDIR disable=SC2317
. "$(dirname "$0")/lib.sh"
requires fuse jq
donor_start disk="file:$T/pool?size=64M"
M=$T/m D=$T/d
mount_pool disk "$D"
fileop --create "$D/f" truncate 4M
network_start

# leave PATTERN: a mount with 2 MiB that the donor does not have has had its SIGTERM; PID is its daemon.
leave() {
	DONOR_PORT=$NETWORK_PORT mount_pool disk "$M" -o cache=memory,push_interval=60s
	PID=$(daemon_pid "$M")
	talk writer "$TOOLS/fileop" "$M/f" -
	tell writer write 0 2M "$1"
	network refuse
	network cut
	kill -TERM "$PID"
	eventually 5 "the mount goes" gone
	hang_up writer
	guard_add pid "$PID"
}

gone() {
	! guard_is_mounted "$M"
}

health() {
	run "$REMRAM" status --json "$M" | jq -r '.[0].state'
}

step "SIGTERM, and the donor is away"
leave 3
is "what status calls it" "$(health)" leaving
contains "status" "$(run "$REMRAM" status "$M")" "umount.remram $M"
is "what is dirty" "$(run "$REMRAM" status --json "$M" | jq .[0].daemon.cache.dirty)" $((2 << 20))
contains "top" "$(run "$REMRAM" top --once)" "NOT MOUNTED any more, its daemon is leaving"

kill -STOP "$PID"
is "what status calls one that does not answer" "$(health)" silent
kill -CONT "$PID"

step "umount.remram refuses to lose it"
refused "2097152 bytes that were written here are not at the donor" "$REMRAM" umount "$M"
kill -0 "$PID" || fail "the daemon has ended"
is "what status calls it" "$(health)" leaving

step "the donor is back"
network accept
run "$REMRAM" umount -v "$M" 2>"$T/said"
contains "what umount says" "$(<"$T/said")" "has ended"
eventually 5 "the daemon ends" process_gone "$PID"
guard_drop pid "$PID"
guard_drop mount "$M"
[[ ! -e $(run_dir "$M") ]] || fail "$(run_dir "$M") is left"
fileop --read "$D/f" verify 0 2M 3

step "by force it ends at once"
leave 4
run "$REMRAM" umount -f "$M" 2>"$T/said"
eventually 5 "the daemon ends" process_gone "$PID"
guard_drop pid "$PID"
guard_drop mount "$M"
[[ ! -e $(run_dir "$M") ]] || fail "$(run_dir "$M") is left"
fileop --read "$D/f" verify 0 2M 3
network accept

step "lazily it is left to itself"
leave 5
run "$REMRAM" umount -l "$M"
is "what status calls it" "$(health)" leaving
network accept
eventually 20 "the daemon ends" process_gone "$PID"
guard_drop pid "$PID"
guard_drop mount "$M"
[[ ! -e $(run_dir "$M") ]] || fail "$(run_dir "$M") is left"
fileop --read "$D/f" verify 0 2M 5
umount_dir "$D"
finish
