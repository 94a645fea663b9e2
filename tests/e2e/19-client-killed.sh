#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The client's daemon is killed or hangs: nothing else hangs, umount cleans up, what was answered is there.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse
donor_start ram=memory:?size=64M disk="file:$T/pool?size=64M"

for pool in ram disk; do
	M=$T/$pool-a B=$T/$pool-b
	mount_pool $pool "$M"
	mount_pool $pool "$B"

	step "$pool: everything fails with ENOTCONN, nothing hangs"
	fileop --create "$M/a" write 0 8M 1
	talk holder "$TOOLS/fileop" "$M/a" -
	tell holder write 0 1M 3
	writes=(write 8M 24M 1)
	for i in {1..60}; do
		writes+=("," write 8M 24M 1)
	done
	job "$TOOLS/fileop" --direct --write-only "$M/a" "${writes[@]}"
	pid=$(daemon_pid "$M")
	eventually 10 "writes are on their way" eval '[[ $(stat -c %s "$B/a") -gt 9000000 ]]'
	kill -KILL "$pid"
	job_wait 10
	at_least "the writer's exit code" "$JOB_CODE" 1
	refused "Transport endpoint is not connected" ls "$M"
	refused "Transport endpoint is not connected" cat "$M/a"
	tell holder drop
	tell holder expect ENOTCONN write 0 4096 1

	step "$pool: remram umount cleans up, although files are open"
	said=$(run "$REMRAM" umount "$M" 2>&1)
	contains "what umount says" "$said" "its daemon (process $pid) had died; cleaned up"
	guard_drop mount "$M"
	! guard_is_mounted "$M" || fail "$M is still mounted"
	[[ ! -e $(run_dir "$M") ]] || fail "$(run_dir "$M") is left"
	hang_up holder
	refused "not a remram mount" "$REMRAM" umount "$M"

	step "$pool: what had been answered is there"
	fileop --read "$B/a" verify 0 1M 3 , verify 1M 7M 1

	step "$pool: the same place can be mounted again, after umount"
	mount_pool $pool "$M"
	fileop --create "$M/a" write 0 1M 4
	daemon_kill "$M"
	eventually 5 "ENOTCONN" eval '! ls "$M"'
	refused "is a remram mount already" "$REMRAM" mount "127.0.0.1:$DONOR_PORT:/$pool" "$M"
	umount_dead "$M"
	mount_pool $pool "$M"
	fileop --read "$M/a" verify 0 1M 4
	run rm "$M/a"

	step "$pool: remram abort ends a mount that hangs"
	pid=$(daemon_pid "$M")
	fileop --create "$M/a" write 0 1M 5 , drop
	kill -STOP "$pid"
	job "$TOOLS/fileop" --direct --read "$M/a" read 0 4096
	sleep 0.5
	process_alive "$JOB" || fail "a read from a stopped daemon has ended"
	run "$REMRAM" abort "$M"
	job_wait 10
	at_least "the reader's exit code" "$JOB_CODE" 1
	kill -CONT "$pid"
	run "$REMRAM" umount -f "$M"
	eventually 10 "the daemon ends" process_gone "$pid"
	guard_drop mount "$M"

	step "$pool: umount -f of a mount whose daemon does not answer"
	mount_pool $pool "$M"
	pid=$(daemon_pid "$M")
	kill -STOP "$pid"
	start=$(now_ms)
	run "$REMRAM" umount -f "$M"
	at_most "milliseconds" "$(since_ms "$start")" 20000
	! guard_is_mounted "$M" || fail "$M is still mounted"
	eventually 10 "the daemon is gone" process_gone "$pid"
	guard_drop mount "$M"
	is "a, at the other client" "$(attr "$B/a" %s)" 1048576
	umount_dir "$B"
done
finish
