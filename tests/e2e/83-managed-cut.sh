#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A region that is open and of which all is being pulled, over a slow network, is made shorter by another client: that
# is seen soon, and it is pulled once more and not again and again.
# shellcheck source-path=SCRIPTDIR disable=SC2317
. "$(dirname "$0")/lib.sh"
requires fuse jq
donor_start ram=memory:?size=512M
M=$T/m D=$T/d
mount_pool ram "$D"
fileop --create "$D/f" write 0 64M 1 , fsync
network_start --bandwidth 32M
direct=$DONOR_PORT
DONOR_PORT=$NETWORK_PORT
mount_pool ram "$M" -o cache=memory,pull=all
DONOR_PORT=$direct

# of KEY: of the region, as the mount's status says it.
of() {
	run "$REMRAM" status --json "$M" | jq ".[0].daemon.regions[] | select(.name == \"f\") | .$1"
}

size_is() {
	[[ $(attr "$M/f" %s) == "$1" ]]
}

all_is_there() {
	[[ $(of cache.resident) == "$1" ]]
}

step "cut while it is pulled"
talk reader "$TOOLS/fileop" --read "$M/f" -
tell reader read 0 4096
sleep 0.5
run truncate -s 48M "$D/f"
eventually 5 "the new size" size_is $((48 << 20))
tell reader verify 0 1M 1
eventually 20 "all of it is pulled" all_is_there $((48 << 20))
fetched=$(of cache.fetched)
((fetched <= (64 + 48 + 32) << 20)) || fail "$fetched bytes were fetched"

step "cut once more, when all is there"
run truncate -s 5000 "$D/f"
eventually 5 "the new size" size_is 5000
tell reader verify 0 5000 1
hang_up reader
run cmp "$D/f" "$M/f"
umount_dir "$M"
umount_dir "$D"
finish
