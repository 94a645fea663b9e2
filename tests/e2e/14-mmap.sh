#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# mmap, shared and private, read and write, agrees with read and write and with what another client sees.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse sqlite3
donor_start ram=memory:?size=2G disk="file:$T/pool?size=256M"
mount_pool ram "$T/ram" -o shared
mount_pool disk "$T/disk" -o shared
mount_pool ram "$T/other-ram" -o shared
mount_pool disk "$T/other-disk" -o shared

for pool in ram disk; do
	M=$T/$pool
	O=$T/other-$pool

	step "$pool: a shared mapping: msync makes it visible to another client"
	fileop --create "$M/a" truncate 8M
	fileop --read "$O/a" zeros 0 8M
	talk mapper "$TOOLS/fileop" "$M/a" -
	tell mapper map 0 8M shared rw
	tell mapper map-zeros 0 8M
	tell mapper map-write 0 8M 1
	tell mapper map-sync
	fileop --read "$O/a" verify 0 8M 1
	tell mapper map-write 1000000 3000000 2
	tell mapper fsync
	fileop --read "$O/a" verify 0 1000000 1 , verify 1000000 3000000 2 , verify 4000000 4388608 1

	step "$pool: munmap and close publish as well"
	tell mapper map-write 0 4096 3
	tell mapper unmap
	hang_up mapper
	fileop --read "$O/a" verify 0 4096 3 , verify 4096 995904 1

	step "$pool: a private mapping changes nothing but itself"
	fileop "$M/a" map 0 8M private rw , map-write 0 1M 4 , map-verify 0 1M 4 , verify 0 4096 3
	drop_cache "$M/a"
	fileop --read "$M/a" verify 0 4096 3
	fileop --read "$O/a" verify 0 4096 3

	step "$pool: a read-only mapping of a file that is open for reading only"
	fileop --read "$M/a" map 0 8M shared r , map-verify 0 4096 3 , expect EACCES map 0 8M shared rw
	fileop --read "$M/a" map 4096 64K shared r , map-verify 4096 64K 1

	step "$pool: mapping, read and write of one client see each other at once"
	fileop "$M/a" write 0 8M 5
	talk mapper "$TOOLS/fileop" "$M/a" -
	talk writer "$TOOLS/fileop" "$M/a" -
	tell mapper map 0 8M shared rw
	for ((i = 0; i < 20; i++)); do
		off=$((i * 400000 + 123))
		tell writer write $off 5000 $((100 + i))
		tell mapper map-verify $off 5000 $((100 + i))
		tell mapper map-write $((off + 2500)) 5000 $((200 + i))
		tell writer verify $off 2500 $((100 + i))
		tell writer verify $((off + 2500)) 5000 $((200 + i))
		tell writer verify $((off + 7500)) 1000 5
	done

	step "$pool: direct I/O of the same client agrees with both"
	talk direct "$TOOLS/fileop" --direct "$M/a" -
	tell mapper map-write 1M 64K 6
	tell mapper map-sync
	tell direct verify 1M 64K 6
	tell direct write 1M 64K 7
	tell writer verify 1M 64K 7
	tell mapper map-verify 1M 64K 7
	tell writer write 2M 64K 8
	tell direct verify 2M 64K 8
	tell direct fallocate punch 2M 64K
	tell writer zeros 2M 64K
	tell mapper map-zeros 2M 64K

	step "$pool: a file that was opened with O_DIRECT can be mapped"
	tell direct map 0 8M shared rw
	tell direct map-verify 1M 64K 7
	tell direct map-write 3M 8192 9
	tell direct map-sync
	tell direct verify 3M 8192 9
	tell writer verify 3M 8192 9
	hang_up direct

	step "$pool: truncate under a mapping: SIGBUS beyond the end, zeros up to the page's"
	tell writer truncate 1M
	tell mapper expect SIGBUS map-verify 2M 4096 5
	tell writer truncate 1000
	tell mapper expect SIGBUS map-verify 4096 4096 5
	tell mapper map-zeros 1000 3096
	tell writer truncate 8M
	tell mapper map-zeros 1000 8387608
	tell mapper map-write 4M 4096 10
	tell writer verify 4M 4096 10
	hang_up writer

	step "$pool: truncate by another client"
	tell mapper map-sync
	fileop "$O/a" truncate 2M
	is "size" "$(attr "$M/a" %s)" 2097152
	tell mapper expect SIGBUS map-verify 4M 4096 10
	hang_up mapper
	run rm "$M/a"

	step "$pool: a program runs from a region"
	run cp "$(command -v sha256sum)" "$M/program"
	run chmod 755 "$M/program"
	is "its output" "$(run "$M/program" /etc/passwd)" "$(sha256sum /etc/passwd)"
	mkfifo "$T/fifo"
	job "$M/program" "$T/fifo"
	eventually 10 "the program runs" eval '[[ $(readlink "/proc/$JOB/exe") == */program ]]'
	refused "Text file busy" dd if=/dev/zero of="$M/program" count=1 conv=notrunc status=none
	: >"$T/fifo"
	job_passes 10
	run rm "$T/fifo" "$M/program"

	step "$pool: sqlite, with a write-ahead log"
	run sqlite3 "$M/db" 'PRAGMA journal_mode=WAL; CREATE TABLE t(k INTEGER PRIMARY KEY, v);
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<20000)
		INSERT INTO t SELECT i, randomblob(100) FROM n; UPDATE t SET v=k*k WHERE k%3=0;' >/dev/null
	is "check" "$(run sqlite3 "$M/db" 'PRAGMA integrity_check; SELECT count(*), sum(k) FROM t WHERE v=k*k;')" \
		"ok
6666|66663333"
	is "check by another client" "$(run sqlite3 "$O/db" 'PRAGMA integrity_check; SELECT count(*) FROM t;')" \
		"ok
20000"
	run find "$M" -mindepth 1 -delete
done

step "1 GiB through a mapping, front to back, every byte right"
M=$T/ram
run_for 60 "$TOOLS/fileop" --create "$M/big" write 0 1G 11 , drop
run_for 60 "$TOOLS/fileop" --read "$M/big" map 0 1G shared r , map-verify 0 1G 11
run rm "$M/big"

for dir in ram other-ram disk other-disk; do
	umount_dir "$T/$dir"
done
finish
