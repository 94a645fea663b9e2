#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Direct reads in order are read ahead, and right: from far away, beside writers, over cut connections, on a loop device.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse fio loop losetup jq cmp
donor_start ram=memory:?size=256M
network_start
DONOR_PORT=$NETWORK_PORT
mount_pool ram "$T/mnt"
M=$T/mnt

# ahead NAME: a counter of the mount's status; "null" if it does not read ahead.
ahead() {
	"$REMRAM" status --json "$M" | jq ".[0].daemon.read_ahead.$1"
}

step "16 KiB at a time, 6 ms away: most reads are answered from memory"
fileop --create --direct --bs=1M "$M/file" write 0 32M 1 , fsync
network delay 3
fileop --direct --bs=16K "$M/file" verify 0 32M 1
network delay 0
at_least "reads answered from memory" "$(ahead hits)" 1900
at_most "read ahead" "$(ahead bytes)" $((33 << 20))
contains "the status" "$("$REMRAM" status "$M")" "read ahead"

step "what is written just before it is read"
for engine in "psync" "libaio --iodepth=4"; do
	# shellcheck disable=SC2086
	run_for 60 fio --name=verify --filename="$M/behind" --size=24M --rw=write --bs=4k --direct=1 --verify=crc32c \
		--verify_backlog=64 --verify_fatal=1 --randrepeat=0 --ioengine=$engine --output="$T/fio.log"
done
run rm "$M/behind"

step "what somebody else writes, who only writes, is seen"
fileop --create "$T/other" write 0 1M 2
talk reader "$TOOLS/fileop" --direct --bs=16K "$M/file" -
tell reader verify 0 256K 1
run dd if="$T/other" of="$M/file" bs=16k skip=17 seek=17 count=1 conv=notrunc oflag=direct status=none
tell reader verify 256K 16K 1
tell reader verify 272K 16K 2
hang_up reader
fileop "$M/file" write 272K 16K 1 , fsync

step "a connection that is cut while it reads ahead"
job "$TOOLS/fileop" --direct --bs=4K "$M/file" verify 0 32M 1 , verify 0 32M 1
reader=$JOB
for ((i = 0; i < 20; i++)); do
	network cut-after $((i * 37001))
	sleep 0.05
done
job_passes 40 "$reader"
network cut

step "no bit to read, no byte"
talk reader "$TOOLS/fileop" --direct --bs=16K "$M/file" -
tell reader verify 0 256K 1
run chmod 200 "$M/file"
tell reader expect EACCES verify 256K 16K 1
run chmod 600 "$M/file"
tell reader verify 256K 16K 1
hang_up reader

step "on a loop device"
LOOP=$(losetup --find --show --direct-io=on --sector-size 4096 "$M/file")
guard_add loop "$LOOP"
before=$(ahead hits)
run dd if="$LOOP" of="$T/copy" bs=32k iflag=direct status=none
at_least "reads answered from memory" $(($(ahead hits) - before)) 900
guard_undo_loop "$LOOP"
guard_drop loop "$LOOP"
same "$T/copy" "$M/file"
umount_dir "$M"

step "read_ahead=0: not at all"
mount_pool ram "$M" -o read_ahead=0
fileop --direct --bs=16K "$M/file" verify 0 4M 1
is "reading ahead" "$(ahead hits)" null
umount_dir "$M"
finish
