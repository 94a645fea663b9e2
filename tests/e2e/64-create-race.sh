#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Two clients make the same files at the same time: each is made once, and nobody gets a file open that he may
# not open.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse setpriv
donor_start ram=memory:?size=64M
A=$T/a B=$T/b
mount_pool ram "$A"
mount_pool ram "$B"
run chmod 777 "$A" "$B"
FILES=500

# shellcheck disable=SC2016
make_all='
	for ((i = 0; i < $3; i++)); do
		echo x >"$1/$2$i" || exit 1
	done'
# shellcheck disable=SC2016
make_first='
	set -C; won=0
	for ((i = 0; i < $3; i++)); do
		{ echo x >"$1/$2$i"; } 2>/dev/null && won=$((won + 1))
	done
	echo $won >"$4"'
# What is open must be of the own user.
# shellcheck disable=SC2016
make_own='
	umask 077
	for ((i = 0; i < $3; i++)); do
		{ exec 7<>"$1/$2$i"; } 2>/dev/null || continue
		[[ $(stat -L -c %u /proc/self/fd/7) == "$UID" || $UID == 0 ]] || exit 1
		exec 7<&-
	done'

step "O_CREAT: both get the file"
job bash -c "$make_all" - "$A" f $FILES
first=$JOB
run bash -c "$make_all" - "$B" f $FILES
job_passes 30 "$first"

step "O_CREAT | O_EXCL: one of them makes it"
job bash -c "$make_first" - "$A" x $FILES "$T/won.a"
first=$JOB
run bash -c "$make_first" - "$B" x $FILES "$T/won.b"
job_passes 30 "$first"
is "files made" "$(($(<"$T/won.a") + $(<"$T/won.b")))" $FILES

step "O_CREAT by two users: none gets the other's file"
job bash -c "$make_own" - "$A" u $FILES
first=$JOB
run setpriv --reuid 65534 --clear-groups bash -c "$make_own" - "$B" u $FILES
job_passes 30 "$first"
umount_dir "$A"
umount_dir "$B"
finish
