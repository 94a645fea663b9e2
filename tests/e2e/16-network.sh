#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A network that cuts, swallows and delays: the session goes on where it was, every byte right, even in memory.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse fio
donor_start ram=memory:?size=512M
network_start
real_port=$DONOR_PORT
DONOR_PORT=$NETWORK_PORT
mount_logged ram "$T/mnt"
DONOR_PORT=$real_port
M=$T/mnt

# io SECONDS: verifying I/O in the background that writes for that long.
io() {
	jobs=()
	rm -f "$M"/*
	for kind in "libaio --rw=randwrite --bsrange=4k-1m --iodepth=16 --direct=1" "psync --rw=write --bs=64k" \
		"mmap --rw=randwrite --bs=4k"; do
		# shellcheck disable=SC2086
		job fio --name=verify --filename="$M/${kind%% *}" --size=$(($1 * 20))M --rate=,20m --verify=crc32c \
			--verify_fatal=1 --do_verify=1 --verify_state_save=0 --randrepeat=0 --ioengine=$kind
		jobs+=("$JOB")
	done
	# Each change of a name must happen once, however often it is sent.
	for name in a b c; do
		job bash -e -c 'end=$((SECONDS + $3)); for ((i = 0; SECONDS < end; i++)); do
			"$4" --create --excl "$1/$2$i" write 0 5000 $i
			[[ $("$5" noreplace "$1/$2$i" "$1/new-$2$i") == ok ]]
			echo more >>"$1/new-$2$i"
			[[ $(stat -c %s "$1/new-$2$i") -eq 5005 ]]
			rm "$1/new-$2$i"
		done' - "$M" "name-$name-" "$1" "$TOOLS/fileop" "$TOOLS/rename"
		jobs+=("$JOB")
	done
}

io_passes() {
	local pid
	for pid in "${jobs[@]}"; do
		job_passes 40 "$pid"
	done
}

step "cut again and again, with requests and replies under way"
network delay 4
io 3
for ((i = 0; i < 25; i++)); do
	sleep 0.1
	network cut
done
network delay 0
io_passes

step "cut in the middle of frames"
io 3
for bytes in 1 7 100 4095 5000 65537 1000003; do
	sleep 0.4
	network cut-after $bytes
done
io_passes
network cut

step "nothing comes through for 7 s, then all of it"
io 2
sleep 0.5
network blackhole
sleep 7
network resume
io_passes

step "the donor cannot be reached for a while"
io 1
sleep 0.3
network refuse
network cut
sleep 2
network accept
io_passes

step "a slow line, 20 ms away"
network delay 10
fileop --create "$M/far" write 0 16M 1 , fsync , drop , verify 0 16M 1
network delay 0
umount_dir "$M"
finish
