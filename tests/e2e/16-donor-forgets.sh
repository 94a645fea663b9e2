#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A memory: pool's donor is started again: what was open fails and the log says why; nothing reads as zeros.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse
donor_start ram=memory:?size=64M
mount_logged ram "$T/mnt"
M=$T/mnt

step "before"
fileop --create "$M/a" write 0 8M 1
fileop --create "$M/b" write 0 8M 2
talk reader "$TOOLS/fileop" --read "$M/a" -
talk writer "$TOOLS/fileop" "$M/b" -
talk mapper "$TOOLS/fileop" "$M/a" -
tell reader verify 0 1M 1
tell writer write 0 1M 3
tell mapper map 0 8M shared rw
tell mapper map-verify 4M 4096 1
drop_cache "$M/a" "$M/b"

# More than fits into the sockets, so that writes are in flight when the donor goes.
job "$TOOLS/fileop" --direct --create "$M/stream" write 0 48M 4 , write 0 48M 4 , write 0 48M 4 , write 0 48M 4 , \
	write 0 48M 4 , write 0 48M 4 , write 0 48M 4 , write 0 48M 4 , write 0 48M 4 , write 0 48M 4 , write 0 48M 4

eventually 10 "writes are on their way" eval '[[ $(stat -c %s "$M/stream") -gt 1000000 ]]'

step "I/O in flight waits while the donor is away, and fails when it is a new one"
donor_kill
sleep 1
process_alive "$JOB" || fail "the writer has ended while the donor was away: $(<"$T/job.log")"
donor_back
job_wait 10
is "the writer's exit code" "$JOB_CODE" 1
contains "the writer's error" "$(<"$T/job.log")" ESTALE

step "the log says what has happened"
contains "the log" "$(<"$M.log")" 'pool "ram" is a new one'
contains "the log" "$(<"$M.log")" "4 open regions are gone: I/O on them fails with \"Stale file handle\""

step "open files fail, every kind of I/O"
tell reader drop
tell reader expect ESTALE read 2M 4096
tell reader expect ESTALE read 0 4096
tell writer expect ESTALE write 0 4096 1
tell writer expect ESTALE fsync
tell writer expect ESTALE fallocate punch 0 4096
tell writer expect ESTALE truncate 0
tell mapper drop
tell mapper expect SIGBUS map-verify 6M 4096 1

step "the old names are gone, new regions work"
is "entries" "$(ls -A "$M")" ""
refused "No such file" cat "$M/a"
fileop --create "$M/a" write 0 8M 5 , verify 0 8M 5 , drop , verify 0 8M 5
fileop --create "$M/c" write 0 1M 6 , fsync
tell writer expect ESTALE write 0 4096 1
tell reader expect ESTALE read 2M 4096

step "closing the stale files is quiet, and the mount goes on"
hang_up reader
hang_up writer
hang_up mapper
fileop --read "$M/a" verify 0 8M 5
is "entries" "$(ls "$M" | tr '\n' ' ')" "a c "

step "once more, with nothing open"
donor_kill
donor_back
is "entries" "$(ls -A "$M")" ""
fileop --create "$M/a" zeros 0 0 , write 0 1M 7
umount_dir "$M"
finish
