#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# conns=N: long reads over several connections, byte for byte, direct, managed and on a loop device; connections that
# are cut or refused cost nothing but speed, and status and log say so.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse jq
donor_start ram=memory:?size=512M
network_start

# connections PORT: how many connections of clients to it the kernel has.
connections() {
	awk -v port="$(printf ':%04X' "$1")" '$4 == "01" && substr($3, length($3) - 4) == port' /proc/net/tcp | wc -l
}

connections_are() {
	[[ $(connections "$1") -eq $2 ]]
}

# of DIR NAME: what status says of the mount's connection.
of() {
	run "$REMRAM" status --json "$1" | jq -r ".[0].daemon.connection.$2"
}

up_is() {
	[[ $(of "$1" conns_up) == "$2" ]]
}

# all_up DIR: all three connections are there.
all_up() {
	eventually 10 "three connections" up_is "$1" 3
}

# read_all DIR: the file's bytes from the donor.
read_all() {
	drop_cache "$1/f"
	run cmp "$T/f" "$1/f"
}

# shared DIR: others than the first connection have read something.
shared() {
	local before
	before=$(of "$1" striped_reads)
	for ((i = 0; i < 20; i++)); do
		read_all "$1"
		(($(of "$1" striped_reads) == before)) || return 0
	done
	fail "nothing was read over further connections"
}

# proxied_are COUNT: connections that the proxy has, those that end included.
proxied_are() {
	[[ $(network_says stats) == *" connections=$1 "* ]]
}

M=$T/m
random_file "$T/f" 96M

step "what does not make sense is refused"
mkdir "$M"
refused "conns" "$REMRAM" mount "127.0.0.1:$DONOR_PORT:/ram" "$M" -o conns=0
refused "conns" "$REMRAM" mount "127.0.0.1:$DONOR_PORT:/ram" "$M" -o conns=17
refused "pools of donors" "$REMRAM" mount "memory:?size=1M" "$M" -o conns=2
refused "1 to 16" "$REMRAM" mount "remram://127.0.0.1:$DONOR_PORT/ram?conns=17" "$M"

step "one connection, unless more are asked for"
mount_pool ram "$M"
is "connections" "$(connections "$DONOR_PORT")" 1
run cp "$T/f" "$M/f"
read_all "$M"
is "striped reads" "$(of "$M" striped_reads)" 0
umount_dir "$M"

step "three connections share long reads"
mount_source "remram://127.0.0.1:$DONOR_PORT/ram?conns=3" "$M"
all_up "$M"
is "connections" "$(connections "$DONOR_PORT")" 3
shared "$M"
contains "status" "$(run "$REMRAM" status "$M")" ", 3 of 3 connections"
fileop "$M/f" write 1M 3M 9 , fsync
run dd if="$M/f" of="$T/f" bs=1M skip=1 seek=1 count=3 conv=notrunc status=none
fileop --read "$M/f" drop , verify 1M 3M 9
read_all "$M"

step "what is removed or replaced is gone at once"
for ((i = 0; i < 10; i++)); do
	run cp "$T/f" "$M/g"
	drop_cache "$M/g"
	run cmp "$T/f" "$M/g"
	run cp "$T/f" "$M/h"
	run mv "$M/h" "$M/g"
	run rm "$M/g"
done
umount_dir "$M"
is "connections" "$(connections "$DONOR_PORT")" 0

for how in direct "cache=memory,pull=all"; do
	options=$([[ $how == direct ]] || echo ",$how")
	step "$how: connections that are cut while they read"
	eventually 5 "those before are gone" proxied_are 0
	mount_source "remram://127.0.0.1:$NETWORK_PORT/ram" "$M" -o "conns=3$options"
	all_up "$M"
	is "connections" "$(connections "$NETWORK_PORT")" 3
	network delay 2
	for ((round = 0; round < 4; round++)); do
		# A managed mount reads from the donor what it has not yet.
		if [[ $how != direct ]]; then
			umount_dir "$M"
			eventually 5 "those before are gone" proxied_are 0
			mount_source "remram://127.0.0.1:$NETWORK_PORT/ram?conns=3" "$M" -o "$how"
			all_up "$M"
		else
			drop_cache "$M/f"
		fi
		job cmp "$T/f" "$M/f"
		reader=$JOB
		for ((i = 0; i < 3; i++)); do
			sleep 0.03
			"$TOOLS/ask" "$T/proxy" cut-one $((2 + (i + round) % 2)) >/dev/null || true
		done
		job_passes 30 "$reader"
		all_up "$M"
	done
	is "reconnects of the first" "$(of "$M" reconnects)" 0

	step "$how: all of them are cut"
	job cmp "$T/f" "$M/f"
	reader=$JOB
	sleep 0.03
	network cut
	job_passes 30 "$reader"
	all_up "$M"
	network delay 0
	read_all "$M"
	umount_dir "$M"
done

step "further connections are refused: the mount works, and says so"
eventually 5 "those before are gone" proxied_are 0
network most 1
real_port=$DONOR_PORT
DONOR_PORT=$NETWORK_PORT
mount_logged ram "$M" -o conns=3
DONOR_PORT=$real_port
read_all "$M"
is "connections" "$(of "$M" conns_up)" 1
contains "status" "$(run "$REMRAM" status "$M")" ", 1 of 3 connections"
contains "the log" "$(cat "$M.log")" "connection 3 of 3 cannot be made ("
is "lines in the log" "$(grep -c "cannot be made" "$M.log")" 2
network most 0
all_up "$M"
contains "the log" "$(cat "$M.log")" "connection 3 of 3 is there"
shared "$M"
umount_dir "$M"

step "a donor that was restarted"
mount_pool ram "$M" -o conns=3
all_up "$M"
donor_stop
donor_back
all_up "$M"
run cp "$T/f" "$M/f"
shared "$M"
umount_dir "$M"

if [[ -c /dev/loop-control ]]; then
	step "on a loop device, in locked memory"
	mount_pool ram "$M"
	run cp "$T/f" "$M/f"
	umount_dir "$M"
	mount_pool ram "$M" -o conns=3,attach=f
	all_up "$M"
	device=$(run "$REMRAM" status --json "$M" | jq -r '.[0].devices[0].device')
	for ((i = 0; i < 20 && $(of "$M" striped_reads) == 0; i++)); do
		run dd if="$device" of="$T/copy" bs=8M iflag=direct status=none
		same "$T/f" "$T/copy"
	done
	at_least "striped reads" "$(of "$M" striped_reads)" 1
	umount_dir "$M"
fi
finish
