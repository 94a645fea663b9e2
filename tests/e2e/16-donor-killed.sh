#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The donor of a file: pool is killed and started again during I/O: everything waits, goes on, and is right.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse fio setfattr getfattr
donor_start disk="file:$T/pool?size=1G"
mount_logged disk "$T/mnt"
M=$T/mnt

# verify_job NAME SECONDS-OF-WRITING OPTION…: fio in the background; it writes, then reads back and compares.
verify_job() {
	local name=$1 seconds=$2
	shift 2
	job fio --name="$name" --filename="$M/$name" --size="$((seconds * 16))M" --rate=,16m --verify=crc32c \
		--verify_fatal=1 --verify_state_save=0 --do_verify=1 --randrepeat=0 --output="$T/fio.$name.log" "$@"
}

# interrupted_io HOW: kills the donor under four kinds of I/O, and brings it back after 3 s.
interrupted_io() {
	local jobs=() pid
	rm -f "$M"/*
	fileop --create "$M/read" write 0 64M 7 , fsync , drop
	verify_job direct 3 --rw=randwrite --bsrange=4k-256k --ioengine=libaio --iodepth=16 --direct=1
	jobs+=("$JOB")
	verify_job buffered 3 --rw=write --bs=64k --ioengine=psync
	jobs+=("$JOB")
	verify_job mapped 3 --rw=randwrite --bs=4k --ioengine=mmap
	jobs+=("$JOB")
	job "$TOOLS/fileop" --read --bs 256K "$M/read" verify 0 16M 7 , sleep 1000 , verify 16M 16M 7 , sleep 1000 , \
		verify 32M 32M 7
	jobs+=("$JOB")
	sleep 1
	"$1"
	sleep 3
	for pid in "${jobs[@]}"; do
		process_alive "$pid" || fail "process $pid has ended while the donor was away"
	done
	donor_back
	for pid in "${jobs[@]}"; do
		job_passes 60 "$pid"
	done
	contains "the client's log" "$(<"$M.log")" "connected again"
}

step "SIGKILL"
interrupted_io donor_kill

step "SIGTERM"
interrupted_io donor_stop

step "what was written is in the pool after one more restart and a remount"
fileop --create "$M/last" write 0 20M 9
umount_dir "$M"
donor_kill
donor_back
mount_logged disk "$M"
fileop --read "$M/last" verify 0 20M 9
fileop --read "$M/read" verify 0 64M 7

step "requests about names wait as well"
talk holder "$TOOLS/fileop" "$M/last" -
donor_kill
jobs=()
job touch "$M/touched"
jobs+=("$JOB")
job mv "$M/read" "$M/renamed"
jobs+=("$JOB")
job truncate -s 1M "$M/touched"
jobs+=("$JOB")
job ls -l "$M"
jobs+=("$JOB")
job setfattr -n user.a -v b "$M/last"
jobs+=("$JOB")
job "$TOOLS/fileop" "$M/last" write 0 1M 10 , fsync
jobs+=("$JOB")
sleep 1
for pid in "${jobs[@]}"; do
	process_alive "$pid" || fail "process $pid has ended while the donor was away: $(<"$T/job.log")"
done
donor_back
for pid in "${jobs[@]}"; do
	job_passes 20 "$pid"
done
tell holder verify 0 1M 10
tell holder verify 1M 19M 9
hang_up holder
is "entries" "$(ls "$M" | tr '\n' ' ')" "buffered direct last mapped renamed touched "
is "touched" "$(attr "$M/touched" %s)" 1048576
is "user.a" "$(run getfattr --absolute-names --only-values -n user.a "$M/last")" b

step "a region that was removed while open is gone with its donor, and says so"
talk holder "$TOOLS/fileop" "$M/last" -
run rm "$M/last"
tell holder verify 2M 1M 9
donor_kill
donor_back
tell holder expect ESTALE write 0 4096 1
tell holder drop
tell holder expect ESTALE read 0 4096
hang_up holder
contains "the client's log" "$(<"$M.log")" "can't be opened again"
umount_dir "$M"
eventually 5 "the removed region's bytes are deleted" eval '[[ $(find "$T/pool" -size +1M | wc -l) -eq 4 ]]'
finish
