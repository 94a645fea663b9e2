#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Attributes at their limits: free names, times beyond what nanoseconds can say.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse
donor_start ram=memory:?size=64M
M=$T/mnt
mount_pool ram "$M"

step "df -i shows no full file system"
run touch "$M/a" "$M/b"
total=$(run stat -f -c %c "$M") free=$(run stat -f -c %d "$M")
is "names in use" "$((total - free))" 2
at_least "free names" "$free" 1000

step "times far away become the nearest that there are"
run touch -d 1600-01-01T00:00:00Z "$M/a"
at_most "a time before 1677" "$(attr "$M/a" %Y)" -9000000000
run touch -d 2400-01-01T00:00:00Z "$M/a"
at_least "a time after 2262" "$(attr "$M/a" %Y)" 9000000000
run touch -d 1950-01-01T00:00:00.25Z "$M/a"
is "a time before 1970" "$(attr "$M/a" %.2Y)" -631151999.75
umount_dir "$M"
finish
