#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What a client holds open at the donor ends with it: at once if it unmounts, after a minute if it is killed.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse
donor_start ram=memory:?size=64M disk="file:$T/pool?size=64M"

# open_files POOL: the first client has a region open, and another one that has been removed.
open_files() {
	mount_pool "$1" "$T/$1-a"
	fileop --create "$T/$1-a/open" write 0 1M 1
	fileop --create "$T/$1-a/removed" write 0 16M 2
	talk "$1-open" "$TOOLS/fileop" "$T/$1-a/open" -
	talk "$1-removed" "$TOOLS/fileop" "$T/$1-a/removed" -
	run rm "$T/$1-a/removed"
	: >"$T/$1-b/new"
	refused "busy" mv "$T/$1-b/new" "$T/$1-b/open"
	is "free" "$(free_bytes "$T/$1-b")" $((47 << 20))
}

# let_go POOL SECONDS: the donor has closed both.
let_go() {
	hang_up "$1-open"
	hang_up "$1-removed"
	eventually "$2" "mv over a region that only the other client had open" mv "$T/$1-b/new" "$T/$1-b/open"
	eventually "$2" "the space of the removed region" free_is "$T/$1-b" $((64 << 20))
}

mount_pool ram "$T/ram-b"
mount_pool disk "$T/disk-b"

for pool in ram disk; do
	step "$pool: umount -l and the last close"
	open_files $pool
	run "$REMRAM" umount -l "$T/$pool-a"
	guard_drop mount "$T/$pool-a"
	let_go $pool 5

	step "$pool: umount -f"
	open_files $pool
	run "$REMRAM" umount -f "$T/$pool-a"
	guard_drop mount "$T/$pool-a"
	let_go $pool 5

	step "$pool: SIGTERM of the daemon"
	open_files $pool
	kill -TERM "$(daemon_pid "$T/$pool-a")"
	eventually 5 "the mount goes" eval '! guard_is_mounted "$T/$pool-a"'
	guard_drop mount "$T/$pool-a"
	let_go $pool 5
done

step "SIGKILL of the daemons"
for pool in ram disk; do
	open_files $pool
	daemon_kill "$T/$pool-a"
	umount_dead "$T/$pool-a"
done
let_go ram 75
let_go disk 15
umount_dir "$T/ram-b"
umount_dir "$T/disk-b"
finish
