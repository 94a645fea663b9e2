#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A managed region grows by truncate and by write, and shrinks; then the connection breaks, the donor restarts or
# dies, or the client is killed: it is as long here as at the donor, and as it was made (a device must not shrink back).
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse
donor_start disk="file:$T/pool?size=512M" --lease 2s
M=$T/m D=$T/d C=$T/cache

network_start

# mount_far [OPTION…]: mounts with a cache, through the proxy.
mount_far() {
	local DONOR_PORT=$NETWORK_PORT
	mount_pool disk "$M" "$@"
}

has_size() {
	[[ $("$TOOLS/fileop" --read "$1" size 2>/dev/null) == "size=$2 "* ]]
}

# agree SIZE: here and at the donor.  A new mount of a killed one's directory may have to open the region first.
agree() {
	eventually 15 "$1 bytes here" has_size "$M/f" "$1"
	eventually 15 "$1 bytes at the donor" has_size "$D/f" "$1"
}

# The ways to change the size, with the size that comes of them; the file has 2 MiB.
changes=("truncate 5000000" "truncate 100005" "truncate 0" "write 4000000 100000 3" "write 2000000 97153 3"
	"fallocate reserve 0 6000000")
sizes=(5000000 100005 0 4100000 2097153 6000000)

# events OPTIONS EVENT…: after each change one of these: cut, restart (of the donor), die (the donor), kill (the client).
events() {
	local options=$1 event i size
	shift
	for event in "$@"; do
		for i in "${!changes[@]}"; do
			size=${sizes[i]}
			fileop --create "$M/f" truncate 0 , write 0 2M 1 , fsync
			talk writer "$TOOLS/fileop" "$M/f" -
			# shellcheck disable=SC2086
			tell writer ${changes[i]} >/dev/null
			case $event in
			cut) network cut ;;
			restart)
				tell writer fsync
				donor_stop
				donor_back
				;;
			die)
				tell writer fsync
				donor_kill
				donor_back
				;;
			kill)
				tell writer fsync
				daemon_kill "$M"
				hang_up writer
				umount_dead "$M"
				mount_far -o "$options"
				agree "$size"
				continue
				;;
			esac
			tell writer fsync
			[[ $(tell writer size) == "size=$size "* ]] || fail "$event, ${changes[i]}: $(tell writer size)"
			agree "$size"
			hang_up writer
		done
	done
}

mount_pool disk "$D"
for options in "cache=memory" "cache=memory,push_interval=1h,max_dirty_age=2h" "cache=$C" \
	"cache=$C,durability=local,push_interval=1s"; do
	step "$options: the size stays, whatever breaks"
	mount_far -o "$options"
	if [[ $options == *memory* ]]; then
		events "$options" cut restart die
	else
		events "$options" cut restart die kill
	fi
	umount_dir "$M"
	has_size "$D/f" "${sizes[-1]}" || fail "after the umount: $("$TOOLS/fileop" --read "$D/f" size)"
done
umount_dir "$D"
finish
