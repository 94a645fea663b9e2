#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A file that stays open at one client while another one appends: its bytes are right once its size is.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse
donor_start ram=memory:?size=64M
A=$T/a B=$T/b
mount_pool ram "$A" -o attr_timeout=200ms
mount_pool ram "$B"

step "a page that was read when it was not full"
fileop --create "$A/f" write 0 100 1
talk reader "$TOOLS/fileop" --read "$A/f" -
tell reader verify 0 100 1
fileop "$B/f" write 100 100 1
tell reader sleep 300
tell reader verify 0 200 1
for ((end = 200; end < 9000; end += 1100)); do
	fileop "$B/f" write "$end" 1100 1
	tell reader sleep 300
	tell reader verify 0 $((end + 1100)) 1
done

step "made shorter, and longer again with holes"
run truncate -s 50 "$B/f"
run truncate -s 300 "$B/f"
tell reader sleep 300
tell reader verify 0 50 1
is "the rest" "$(run tail -c 250 "$A/f" | tr -d '\0' | wc -c)" 0
hang_up reader
umount_dir "$A"
umount_dir "$B"
finish
