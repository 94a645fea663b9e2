#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A mount whose daemon hangs can be aborted by whatever path names it.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse
donor_start ram=memory:?size=64M
M=$T/mnt

for path in "$M" "$M///" mnt ./mnt/; do
	step "$path"
	mount_pool ram "$M"
	pid=$(daemon_pid "$M")
	kill -STOP "$pid"
	(cd "$T" && run_for 10 "$REMRAM" abort "$path" >/dev/null)
	kill -CONT "$pid"
	run "$REMRAM" umount "$M" 2>/dev/null
	guard_drop mount "$M"
done
finish
