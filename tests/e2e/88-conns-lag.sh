#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# conns=N: answers overtake each other: each of three connections in turn lags, direct and managed, and what was
# written is read, over all of them, byte for byte.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse fio jq
donor_start ram=memory:?size=256M
network_start

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

# proxied_are COUNT: connections that the proxy has, those that end included.
proxied_are() {
	[[ $(network_says stats) == *" connections=$1 "* ]]
}

# passed N: bytes that the N-th oldest connection has brought.
passed() {
	network_says stats-one "$1" | sed 's/.*down_bytes=\([0-9]*\).*/\1/'
}

# lagging N OPTIONS: mounts over three connections, the N-th of which is 50 ms later than the others.
lagging() {
	eventually 5 "those before are gone" proxied_are 0
	mount_source "remram://127.0.0.1:$NETWORK_PORT/ram" "$M" -o "conns=3$2"
	all_up "$M"
	eventually 5 "three connections" proxied_are 3
	network delay 2
	network delay-one "$1" 50
}

# verify NAME [OPTION…]: fio's blocks, 16 at a time.
verify() {
	run fio --name="$1" --filename="$M/v" --size=3M --rw=randwrite --bs=256k --direct=1 --ioengine=libaio \
		--iodepth=16 --randseed="$n" --verify=crc32c --verify_fatal=1 --verify_state_save=0 \
		--output="$T/fio.log" "${@:2}"
}

M=$T/m
random_file "$T/f" 64M
mount_pool ram "$M"
run cp "$T/f" "$M/f"
umount_dir "$M"

for how in direct "cache=memory,pull=all"; do
	options=$([[ $how == direct ]] || echo ",$how")
	for n in 1 2 3; do
		step "$how: connection $n of 3 lags"
		lagging "$n" "$options"
		verify written
		# What is read now is at the donor alone.
		umount_dir "$M"
		lagging "$n" "$options"
		verify read --verify_only
		# One open file, read for longer than the late one takes to open it as well.
		network delay 40
		for ((i = 0; i < 10; i++)); do
			[[ $how == direct ]] || run "$REMRAM" evict "$M/f" >/dev/null
			run fio --name=share --filename="$M/f" --size=64M --rw=read --bs=1M --direct=1 --ioengine=libaio \
				--iodepth=16 --output="$T/fio.log"
			(($(passed 1) < 1048576 || $(passed 2) < 1048576 || $(passed 3) < 1048576)) || break
		done
		network delay 2
		for i in 1 2 3; do
			at_least "bytes over connection $i" "$(passed $i)" 1048576
		done
		drop_cache "$M/f"
		run cmp -n 4M "$T/f" "$M/f"
		umount_dir "$M"
	done
done
finish
