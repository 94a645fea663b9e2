#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# remram status and remram doctor: valid JSON, honest figures, and a doctor who finds what was broken.
. "$(dirname "$0")/lib.sh"
requires fuse loop mkswap losetup jq
guard_lock_swap
donor_start ram=memory:?size=128M
M=$T/mnt
SRC=127.0.0.1:$DONOR_PORT:/ram

# of FILTER: what the last `status --json` says.
of() {
	jq -r ".[0]$1" "$T/status"
}

status() {
	run "$REMRAM" status --json "$M" >"$T/status"
	jq -e . "$T/status" >/dev/null || fail "no JSON: $(cat "$T/status")"
}

# The doctor must end with CODE; found CHECK prints the level of that check of this mount.
doctor() {
	local code=0
	timeout 30 "$REMRAM" doctor --json "$M" >"$T/doctor" || code=$?
	jq -e . "$T/doctor" >/dev/null || fail "no JSON: $(cat "$T/doctor")"
	is "the doctor's result and exit code" "$(jq -r .result "$T/doctor") $code" \
		"$(jq -r '.result + " " + ({pass: "0", note: "0", warn: "1", fail: "2"}[.result])' "$T/doctor")"
}

found() {
	jq -r --arg where "$M" --arg check "$1" \
		'[.checks[] | select(.where == $where and .check == $check) | .level] | unique | join(" ")' "$T/doctor"
}

step "without mounts"
contains "status" "$(run "$REMRAM" status --json)" "["
# Other mounts of this machine may be in any state.
timeout 30 "$REMRAM" doctor >"$T/text" || [[ $? -le 2 ]] || fail "$(cat "$T/text")"
contains "the machine" "$(cat "$T/text")" "  pass  /dev/fuse "
# Paths of other mounts are as long as they are.
at_most "the longest line" "$(grep -v /run/remram "$T/text" | LC_ALL=C.UTF-8 awk '{ if (length > n) n = length } END { print n }')" 80
refused "only root" setpriv --reuid 65534 --clear-groups "$REMRAM" doctor

step "status counts"
mount_pool ram "$M"
fileop --create "$M/a" write 0 1M 1
status
is "mount point" "$(of .mountpoint)" "$M"
is "source" "$(of .source)" "$SRC"
is "state" "$(of .state)" live
is "pid" "$(of .pid)" "$(daemon_pid "$M")"
is "the daemon's pid" "$(of .daemon.pid)" "$(daemon_pid "$M")"
is "connection" "$(of .daemon.connection.state)" connected
at_least "bytes written" "$(of .daemon.requests.write.bytes)" 1048576
is "errors" "$(of .daemon.requests.write.errors)" 0
is "regions in use" "$(of '.daemon.regions | length')" 0
exec 8<"$M/a"
status
is "regions in use" "$(of '.daemon.regions | map(.name + " \(.size) \(.open)") | join(",")')" "a 1048576 1"
exec 8<&-
contains "for people" "$(run "$REMRAM" status "$M")" "in flight"

step "a mount without swap has nothing to be careful with"
doctor
is "loop devices" "$(found "loop devices")" pass
is "donor" "$(found donor)" pass
is "max_background" "$(found max_background)" pass
is "read_ahead" "$(found read_ahead)" pass

step "swap attached by hand without direct I/O, on a daemon that is not locked, fails"
run truncate -s 8M "$M/hand"
dev=$(run losetup -f --show "$M/hand")
guard_add loop "$dev"
doctor
is "direct I/O" "$(found "direct I/O")" fail
is "block size" "$(found "block size")" warn
is "daemon in memory" "$(found "daemon in memory")" fail
is "result" "$(jq -r .result "$T/doctor")" fail
contains "for people" "$("$REMRAM" doctor "$M" || true)" "losetup"
run losetup -d "$dev"
guard_drop loop "$dev"
umount_dir "$M"

step "swap by the mount command passes"
mount_pool ram "$M" -o swap=swap0,size=32M
doctor
for check in daemon donor swap "direct I/O" "block size" "daemon in memory" max_background; do
	is "$check" "$(found "$check")" pass
done
is "discard" "$(found discard)" note
status
is "device" "$(of '.devices[0] | "\(.region) \(.size) \(.block_size) \(.direct_io) \(.swap) \(.discard)"')" \
	"swap0 33554432 4096 true true false"
is "link" "$(readlink "$(run_dir "$M")/swap0")" "$(of '.devices[0].device')"

step "what was undone by hand is found"
run_for 30 swapoff "$(of '.devices[0].device')"
doctor
is "swap" "$(found swap)" fail
status
is "swap" "$(of '.devices[0].swap')" false
contains "for people" "$(run "$REMRAM" status "$M")" "NOT SWITCHED ON"
run losetup -d "$(of '.devices[0].device')"
doctor
is "loop device" "$(found "loop device")" fail
umount_dir "$M"

step "a memory cgroup around the daemon is warned about"
if cgroup_available; then
	group=$(cgroup_create "remram-e2e-$$" 1G)
	guard_add cgroup "$group"
	guard_add mount "$M"
	cgroup_run "$group" timeout 20 "$REMRAM" mount "$SRC" "$M" -o swap=swap0 || fail "mount: $?"
	doctor
	is "memory cgroup" "$(found "memory cgroup")" warn
	umount_dir "$M"
fi

# What umount -f tells the daemon; whoever holds a file open keeps the mount all the same.
for options in read_ahead=0 cache=memory; do
	step "a connection that was given up is shown as such: $options"
	mount_pool ram "$M" -o "$options"
	talk holder "$TOOLS/fileop" --read "$M/a" -
	tell holder verify 0 4096 1
	run "$TOOLS/ask" "$(run_dir "$M")/control" forget-donor >/dev/null
	tell holder drop
	[[ $options != read_ahead=0 ]] || tell holder expect EIO read 512K 4096
	status
	is "state" "$(of .state)" live
	is "connection" "$(of .daemon.connection.state)" failed
	contains "for people" "$(run "$REMRAM" status "$M")" "donor       GIVEN UP, all requests fail: 127.0.0.1:$DONOR_PORT for "
	doctor
	is "donor" "$(found donor)" fail
	contains "the doctor's words" "$(cat "$T/doctor")" "not connected (failed)"
	hang_up holder
	umount_dir "$M" -f
done

step "a daemon that does not answer is shown as such"
mount_pool ram "$M"
kill -STOP "$(daemon_pid "$M")"
run "$REMRAM" status --json "$M" >"$T/status"
kill -CONT "$(daemon_pid "$M")"
is "state" "$(of .state)" silent
is "daemon" "$(of .daemon)" null
umount_dir "$M"
finish
