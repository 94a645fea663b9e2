#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A client's daemon that is killed while the kernel drops a file's pages for it, and waits for one that is being
# read: unmounting ends the reader and what is left of the daemon.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse
donor_start ram=memory:?size=64M

network_start

# mount_far DIR: mounts the pool through the proxy.
mount_far() {
	local DONOR_PORT=$NETWORK_PORT
	mount_pool ram "$1"
}

# waits_for_page PID: a thread of it is where no signal reaches it.
waits_for_page() {
	grep -q '^State:.D' "/proc/$1"/task/*/status
}

step "the reader's daemon is told of a change, while a page is on its way"
mount_pool ram "$T/near"
mount_far "$T/far"
PID=$(daemon_pid "$T/far")
fileop --create "$T/near/f" write 0 1M 1
# All that goes through the proxy takes 3 s from here on: the notice comes 3 s after the write, the READ of the
# reader, which begins in the meantime, is answered after 6 s.
job "$TOOLS/fileop" --read "$T/far/f" drop , sleep 2000 , read 512K 4K
sleep 0.5
network delay 3000
fileop "$T/near/f" write 0 64K 2
eventually 6 "a thread waits for the page" waits_for_page "$PID"

step "killed, it leaves nobody hanging once it is unmounted"
kill -KILL "$PID"
eventually 5 "the daemon is dead" grep -q '^State:.Z' "/proc/$PID/status"
umount_dead "$T/far"
job_wait 2
is "the reader's exit code" "$JOB_CODE" 1
eventually 2 "the thread ends" test ! -e "/proc/$PID"
fileop --read "$T/near/f" verify 0 64K 2
umount_dir "$T/near"
finish
