#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# One client writes to a region: others are told who does; a dead or silent one loses its lease, and nothing
# of it lands later; what one changes, the other's open files and mappings show.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse jq
donor_start ram=memory:?size=64M disk="file:$T/pool?size=64M" --lease 2s

# lease_of DIR REGION: what status says of it.
lease_of() {
	"$REMRAM" status --json "$1" | jq -r ".[0].daemon.regions[] | select(.name == \"$2\").lease"
}

# opens FILE: it can be opened for writing.
opens() {
	"$TOOLS/fileop" "$1" size >/dev/null 2>&1
}

# sees FILE WORDS…: reading it without another open gives this; FILE is held open by `talk reader`.
sees() {
	[[ $(ask_talk reader verify "$@" 2>/dev/null) == ok ]]
}

# For one more client.
network_start

# mount_far DIR: mounts the pool through the proxy.
mount_far() {
	local DONOR_PORT=$NETWORK_PORT
	mount_pool $pool "$1"
}

for pool in ram disk; do
	A=$T/$pool-a B=$T/$pool-b
	mount_pool $pool "$A"
	A_PID=$(daemon_pid "$A")
	mount_logged $pool "$B"

	step "$pool: two clients fight: one writes, the other is told who, and reads"
	fileop --create "$A/f" write 0 1M 1
	talk writer "$TOOLS/fileop" "$A/f" -
	tell writer write 0 64K 2
	refused "EBUSY" "$TOOLS/fileop" "$B/f" size
	refused "busy" truncate -s 0 "$B/f"
	contains "the log" "$(<"$B.log")" "region \"f\" is being written to by $(hostname), process $A_PID, $A (127.0.0.1)"
	contains "status" "$("$REMRAM" status "$B")" "process $A_PID, $A"
	is "who refused" "$("$REMRAM" status --json "$B" | jq -r '.[0].daemon.busy.region')" f
	is "the holder's lease" "$(lease_of "$A" f)" held
	contains "status" "$("$REMRAM" status "$A")" "f, 1.0 MiB, open 1 time, lease held"
	fileop --read "$B/f" verify 0 64K 2
	run chmod 640 "$B/f"
	hang_up writer

	step "$pool: to and fro, each after the other's close"
	for ((i = 0; i < 20; i++)); do
		fileop "$A/f" write 0 10000 $((100 + i))
		fileop "$B/f" verify 0 10000 $((100 + i)) , write 20000 10000 $((200 + i))
		fileop --read "$A/f" verify 20000 10000 $((200 + i))
	done

	step "$pool: an idle holder keeps its lease for as long as it lives"
	talk writer "$TOOLS/fileop" "$A/f" -
	tell writer sleep 5000
	refused "EBUSY" "$TOOLS/fileop" "$B/f" size
	tell writer write 0 4K 3

	step "$pool: what one writes, the open file and the mapping of the other show"
	talk reader "$TOOLS/fileop" --read "$B/f" -
	tell reader verify 0 4K 3
	tell writer write 0 4K 4
	eventually 5 "the new bytes" sees 0 4K 4
	tell reader map 0 1M shared r
	tell reader map-verify 0 4K 4
	tell writer write 0 4K 5
	eventually 5 "the new bytes" sees 0 4K 5
	tell reader map-verify 0 4K 5
	tell reader unmap
	hang_up reader

	step "$pool: a holder that is killed loses it after the lease time"
	daemon_kill "$A"
	start=$(now_ms)
	refused "EBUSY" "$TOOLS/fileop" "$B/f" size
	eventually 10 "the other gets it" opens "$B/f"
	at_least "milliseconds" "$(since_ms "$start")" 500
	at_most "milliseconds" "$(since_ms "$start")" 6000
	hang_up writer
	umount_dead "$A"
	fileop "$B/f" verify 0 4K 5 , write 0 4K 6

	step "$pool: mounted again at the same place, a killed client has its files at once"
	mount_pool $pool "$A"
	talk writer "$TOOLS/fileop" "$A/f" -
	tell writer write 0 4K 7
	daemon_kill "$A"
	hang_up writer
	umount_dead "$A"
	mount_pool $pool "$A"
	fileop "$A/f" verify 0 4K 7 , write 0 4K 8

	step "$pool: shared mounts write beside each other, and not beside a lease"
	mount_pool $pool "$T/s1" -o shared
	mount_pool $pool "$T/s2" -o nolease
	talk one "$TOOLS/fileop" "$T/s1/f" -
	talk two "$TOOLS/fileop" "$T/s2/f" -
	tell one write 0 4K 11
	tell two write 4K 4K 12
	tell one verify 4K 4K 12
	tell two verify 0 4K 11
	is "a sharer's lease" "$(lease_of "$T/s1" f)" shared
	refused "EBUSY" "$TOOLS/fileop" "$A/f" size
	hang_up one
	refused "EBUSY" "$TOOLS/fileop" "$A/f" size
	hang_up two
	talk writer "$TOOLS/fileop" "$A/f" -
	refused "EBUSY" "$TOOLS/fileop" "$T/s1/f" size
	hang_up writer
	eventually 5 "after its close" opens "$T/s1/f"
	umount_dir "$T/s1"
	umount_dir "$T/s2"

	step "$pool: a stalled client's late write does not land"
	mount_far "$T/far"
	fileop "$B/f" truncate 1M
	job "$TOOLS/fileop" --direct "$T/far/f" write 0 4K 20 , sleep 1000 , expect ENOLCK write 0 512K 21 , \
		expect ENOLCK write 512K 4K 21 , read 0 1M
	eventually 5 "the first write" "$TOOLS/fileop" --read "$B/f" verify 0 4K 20
	network blackhole
	sleep 0.5
	refused "EBUSY" "$TOOLS/fileop" "$B/f" size
	eventually 10 "another gets the lease" opens "$B/f"
	fileop --direct "$B/f" write 0 1M 22
	network resume
	job_passes 20
	fileop --direct --read "$B/f" verify 0 1M 22
	contains "the log" "$(<"$T/donor.log")" "a lease was taken from $(hostname), process $(daemon_pid "$T/far")"

	step "$pool: the one who lost it is told, and can begin anew"
	talk far "$TOOLS/fileop" "$T/far/f" -
	is "its lease" "$(lease_of "$T/far" f)" held
	tell far write 0 4K 23
	hang_up far
	fileop --read "$B/f" verify 0 4K 23 , verify 4K 1020K 22
	umount_dir "$T/far"
	umount_dir "$A"
	umount_dir "$B"
done
finish
