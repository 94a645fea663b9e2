#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What is copied in comes out the same: cp, cmp, dd of odd sizes at odd offsets, append, writes past the end.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse
donor_start ram=memory:?size=512M disk="file:$T/pool"
mount_pool ram "$T/ram"
mount_pool disk "$T/disk"
random_file "$T/big" 100000007
random_file "$T/small" 777777

step "cp of a big random file into a pool, to another pool, and back"
run_for 60 cp "$T/big" "$T/ram/big"
same "$T/big" "$T/ram/big"
drop_cache "$T/ram/big"
same "$T/big" "$T/ram/big"
run_for 60 cp "$T/ram/big" "$T/disk/big"
drop_cache "$T/disk/big"
run_for 60 cp "$T/disk/big" "$T/back"
same "$T/big" "$T/back"
run rm "$T/back" "$T/disk/big"

step "cp over an existing region, shorter and longer"
run cp "$T/small" "$T/ram/big"
same "$T/small" "$T/ram/big"
run_for 60 cp "$T/big" "$T/ram/big"
drop_cache "$T/ram/big"
same "$T/big" "$T/ram/big"

step "two copies at once in each direction"
job cp "$T/big" "$T/ram/one"
first=$JOB
job cp "$T/big" "$T/ram/two"
job_passes 60 "$first"
job_passes 60
job cp "$T/ram/one" "$T/one"
first=$JOB
job cp "$T/ram/two" "$T/two"
job_passes 60 "$first"
job_passes 60
same "$T/big" "$T/one"
same "$T/big" "$T/two"
run rm "$T/one" "$T/two" "$T/ram/one" "$T/ram/two"

for pool in ram disk; do
	M=$T/$pool
	step "$pool: dd with odd block sizes, buffered and direct"
	for bs in 1 513 4095 4097 65537 1048583 3000001; do
		count=$((bs < 100 ? 500 : 777777 / bs + 1))
		run dd if="$T/small" of="$M/dd" bs=$bs count=$count status=none
		run dd if="$M/dd" of="$T/dd" bs=$bs status=none
		run cmp -n "$(stat -c %s "$M/dd")" "$T/small" "$T/dd"
		is "size with bs=$bs" "$(attr "$M/dd" %s)" "$((bs * count < 777777 ? bs * count : 777777))"
		run rm "$M/dd"
	done
	run dd if="$T/big" of="$M/dd" bs=1M count=40 oflag=direct status=none
	run dd if="$M/dd" of="$T/dd" bs=1M iflag=direct status=none
	run cmp -n 41943040 "$T/big" "$T/dd"
	run dd if="$M/dd" of="$T/dd" bs=4096 skip=777 count=100 iflag=direct status=none
	run cmp -n 409600 "$T/big" "$T/dd" 3182592 0
	run rm "$M/dd"

	step "$pool: dd to odd offsets leaves the rest alone"
	run cp "$T/small" "$M/dd"
	run cp "$T/small" "$T/dd"
	for seek in 1 4095 4096 12345 700001 777777 900000; do
		for file in "$M/dd" "$T/dd"; do
			run dd if="$T/big" of="$file" bs=1 count=300 seek=$seek conv=notrunc status=none
		done
		same "$M/dd" "$T/dd"
	done
	drop_cache "$M/dd"
	same "$M/dd" "$T/dd"

	step "$pool: append, one after the other and by several at once"
	run rm "$M/dd" "$T/dd"
	for i in {1..200}; do
		echo "line $i" >>"$M/log"
		echo "line $i" >>"$T/log"
	done
	same "$M/log" "$T/log"
	fileop --append "$M/log" append 100000 9
	is "size" "$(attr "$M/log" %s)" $((100000 + $(stat -c %s "$T/log")))
	run rm "$M/log" "$T/log"
	writers=()
	for writer in a b c d; do
		# shellcheck disable=SC2016
		job sh -c 'for i in $(seq 300); do echo "$1$i" >>"$2"; done' - "$writer" "$M/log"
		writers+=("$JOB")
	done
	for writer in "${writers[@]}"; do
		job_passes 30 "$writer"
	done
	for writer in a b c d; do
		printf '%s\n' "$writer"{1..300}
	done | sort >"$T/log"
	run sort "$M/log" | cmp - "$T/log" || fail "appended lines are missing or mixed"
	run rm "$M/log" "$T/log"

	step "$pool: a write past the end leaves zeros between"
	fileop --create "$M/gap" write 0 100 1 , write 3M 5000 1 , verify 0 100 1 , zeros 100 3145628 , \
		verify 3M 5000 1
	drop_cache "$M/gap"
	fileop "$M/gap" verify 0 100 1 , zeros 100 3145628 , verify 3M 5000 1
	is "size" "$(attr "$M/gap" %s)" 3150728
	run rm "$M/gap"
done

step "zeros are bytes too: at the end they make a region longer, over data they replace it"
for pool in ram disk; do
	M=$T/$pool
	run dd if=/dev/zero of="$M/zeros" bs=1M count=3 status=none
	run dd if=/dev/zero of="$M/odd" bs=12345 count=7 status=none
	fileop --create "$M/over" write 0 4M 1 , fallocate punch 0 4096
	run dd if=/dev/zero of="$M/over" bs=4K seek=256 count=512 conv=notrunc status=none
	run dd if=/dev/zero of="$M/over" bs=1M seek=4 count=1 conv=notrunc status=none
done
umount_dir "$T/ram"
umount_dir "$T/disk"
mount_pool ram "$T/ram"
mount_pool disk "$T/disk"
for M in "$T/ram" "$T/disk"; do
	is "zeros" "$(attr "$M/zeros" %s)" 3145728
	is "odd" "$(attr "$M/odd" %s)" 86415
	is "over" "$(attr "$M/over" %s)" 5242880
	fileop "$M/zeros" zeros 0 3M
	fileop "$M/odd" zeros 0 86415
	fileop "$M/over" zeros 0 4096 , verify 4096 1044480 1 , zeros 1M 2M , verify 3M 1M 1 , zeros 4M 1M
done

umount_dir "$T/ram"
umount_dir "$T/disk"
finish
