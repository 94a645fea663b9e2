#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# umount -f gives up on the donor before it waits for the lock that another command holds, which may be one
# that hangs by that donor.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse flock
donor_start disk="file:$T/pool?size=64M"
M=$T/mnt
mount_pool disk "$M"
run truncate -s 1M "$M/a"

lock_taken() {
	! flock -n "$(run_dir "$M")" true
}

step "while the lock is held, and the donor is away"
donor_kill
job flock "$(run_dir "$M")" cat "$M/a"
holder=$JOB
eventually 5 "the lock is taken" lock_taken
run "$REMRAM" umount -f "$M"
job_wait 10 "$holder"
at_least "the exit code of what hung" "$JOB_CODE" 1
! guard_is_mounted "$M" || fail "$M is mounted"
guard_drop mount "$M"

finish
