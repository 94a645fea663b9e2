#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A donor that hangs for 8 s while its connections stay up, and goes on: no error, every byte right.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse fio
donor_start ram=memory:?size=512M disk="file:$T/pool?size=512M"
mount_logged ram "$T/ram"
mount_logged disk "$T/disk"

step "I/O of several kinds, and 8 s without an answer in the middle"
jobs=()
for M in "$T/ram" "$T/disk"; do
	fileop --create "$M/names" truncate 0
	for kind in "libaio --rw=randwrite --bsrange=4k-256k --iodepth=16 --direct=1" "psync --rw=write --bs=64k" \
		"mmap --rw=randwrite --bs=4k"; do
		# shellcheck disable=SC2086
		job fio --name=verify --filename="$M/${kind%% *}" --size=24M --rate=,12m --verify=crc32c --verify_fatal=1 \
			--do_verify=1 --verify_state_save=0 --randrepeat=0 --ioengine=$kind
		jobs+=("$JOB")
	done
	job bash -e -c 'for i in {1..40}; do echo $i >"$1/n$i"; mv "$1/n$i" "$1/m$i"; [[ $(<"$1/m$i") == $i ]]
		rm "$1/m$i"; sleep 0.05; done' - "$M"
	jobs+=("$JOB")
done
sleep 1
donor_halt
sleep 8
kill -CONT "$DONOR_PID"
for pid in "${jobs[@]}"; do
	job_passes 40 "$pid"
done
is "what is left of the names" "$(find "$T/ram" "$T/disk" -name '[mn][0-9]*' | wc -l)" 0
contains "the client's log" "$(<"$T/ram.log")" "connected again"

step "a short hang is not even noticed"
lines=$(wc -l <"$T/ram.log")
job "$TOOLS/fileop" --create "$T/ram/short" write 0 64M 1 , sleep 500 , write 64M 64M 1 , verify 0 128M 1
sleep 0.2
donor_halt
sleep 2
kill -CONT "$DONOR_PID"
job_passes 20
is "lines in the log" "$(wc -l <"$T/ram.log")" "$lines"

step "processes that wait for a hung donor can be killed"
run rm "$T/ram/short"
fileop --create "$T/ram/a" write 0 1M 1
donor_halt
pids=()
for how in INT KILL; do
	job env --default-signal=INT "$TOOLS/fileop" --direct "$T/ram/a" read 0 1M
	pids+=("$JOB")
	sleep 0.5
	kill -$how "$JOB"
done 2>/dev/null
for pid in "${pids[@]}"; do
	job_wait 12 "$pid"
	at_least "its exit code" "$JOB_CODE" 1
done
kill -CONT "$DONOR_PID"
fileop "$T/ram/a" verify 0 1M 1

step "umount with a hung donor: at once if nothing is open, in time if something has just been closed"
talk holder "$TOOLS/fileop" "$T/disk/names" -
donor_halt
start=$(now_ms)
umount_dir "$T/ram"
at_most "milliseconds" "$(since_ms "$start")" 8000
hang_up holder
start=$(now_ms)
umount_dir "$T/disk"
at_most "milliseconds" "$(since_ms "$start")" 20000
kill -CONT "$DONOR_PID"
mount_logged ram "$T/ram"
fileop "$T/ram/a" verify 0 1M 1
umount_dir "$T/ram"
finish
