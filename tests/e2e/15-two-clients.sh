#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Two clients of one pool: what one has closed, the next open of the other sees.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse setfattr getfattr
donor_start ram=memory:?size=64M disk="file:$T/pool?size=64M"

for pool in ram disk; do
	A=$T/$pool-a B=$T/$pool-b
	mount_pool $pool "$A" -o shared
	mount_pool $pool "$B" -o shared
	daemon=$(daemon_pid "$A")
	[[ $daemon != "$(daemon_pid "$B")" ]] || fail "both mounts are served by process $daemon"

	step "$pool: new bytes, though the other has the old ones cached"
	fileop --create "$A/f" write 0 1M 1
	fileop --read "$B/f" verify 0 1M 1
	fileop --read "$B/f" verify 0 1M 1
	fileop "$A/f" write 4096 8192 2
	fileop --read "$B/f" verify 0 4096 1 , verify 4096 8192 2 , verify 12288 1036288 1
	fileop "$B/f" write 500000 100 3
	fileop --read "$A/f" verify 4096 8192 2 , verify 500000 100 3

	step "$pool: to and fro, fifty times"
	for ((i = 0; i < 50; i++)); do
		fileop "$A/f" write 0 10000 $((1000 + i))
		fileop "$B/f" verify 0 10000 $((1000 + i)) , write 20000 10000 $((2000 + i))
		fileop --read "$A/f" verify 20000 10000 $((2000 + i))
	done

	step "$pool: longer and shorter"
	for size in 5M 100 2M 0 4097; do
		run truncate -s $size "$A/f"
		is "size at the other" "$(attr "$B/f" %s)" "$(numfmt --from=iec $size)"
		is "bytes at the other" "$(run cat "$B/f" | wc -c)" "$(numfmt --from=iec $size)"
	done
	run rm "$A/f"
	for ((i = 0; i < 30; i++)); do
		echo "a $i" >>"$A/log"
		echo "b $i" >>"$B/log"
	done
	is "log" "$(run cat "$A/log")" "$(for ((i = 0; i < 30; i++)); do printf 'a %d\nb %d\n' $i $i; done)"
	is "log" "$(run cat "$B/log")" "$(run cat "$A/log")"

	step "$pool: a file that stays open at one sees what it reads anew"
	fileop --create "$A/open" write 0 64K 1
	talk reader "$TOOLS/fileop" --read "$B/open" -
	talk direct "$TOOLS/fileop" --read --direct "$B/open" -
	tell reader verify 0 64K 1
	fileop "$A/open" write 0 128K 2
	tell direct verify 0 128K 2
	# What it knows of the size may be as old as attr_timeout, 1 s.
	tell reader sleep 1100
	tell reader drop
	tell reader verify 0 128K 2
	fileop --read "$B/open" verify 0 128K 2
	hang_up direct
	hang_up reader

	step "$pool: both write, each its half"
	run truncate -s 16M "$A/open"
	talk left "$TOOLS/fileop" "$A/open" -
	talk right "$TOOLS/fileop" "$B/open" -
	for ((i = 0; i < 16; i++)); do
		tell left write $((i * 524288)) 512K 5
		tell right write $((8388608 + i * 524288)) 512K 6
	done
	hang_up left
	hang_up right
	fileop --read "$A/open" verify 0 8M 5 , verify 8M 8M 6
	fileop --read "$B/open" verify 0 8M 5 , verify 8M 8M 6

	step "$pool: names: made, renamed, exchanged, removed"
	touch "$A/new"
	is "at the other" "$(ls "$B" | tr '\n' ' ')" "log new open "
	run stat -t "$B/new" >/dev/null
	run mv "$A/new" "$A/newer"
	refused "No such file" stat "$B/new"
	run stat -t "$B/newer" >/dev/null
	run mv "$B/newer" "$B/newest"
	is "at the first" "$(ls "$A" | tr '\n' ' ')" "log newest open "
	echo one >"$A/one"
	echo two >"$B/two"
	is "exchange" "$("$TOOLS/rename" exchange "$A/one" "$A/two")" ok
	is "one" "$(<"$B/one")" two
	run rm "$A/newest" "$A/one"
	refused "No such file" cat "$B/newest"
	refused "No such file" rm "$B/one"
	is "create where the other has just removed" "$(echo again >"$B/one" && cat "$A/one")" again
	refused "EEXIST" "$TOOLS/fileop" --create --excl "$A/one" size
	run rm "$B/one" "$A/two"

	step "$pool: a name that comes again is another region; the old one lives while it is open"
	fileop --create "$A/f" write 0 1M 7
	talk old "$TOOLS/fileop" "$B/f" -
	tell old verify 0 1M 7
	run rm "$A/f"
	fileop --create "$A/f" write 0 1M 8
	tell old verify 0 1M 7
	tell old drop
	tell old verify 0 1M 7
	tell old write 0 64K 9
	contains "the old one" "$(tell old size)" "nlink=0"
	fileop --read "$B/f" verify 0 1M 8
	hang_up old
	fileop --read "$A/f" verify 0 1M 8
	fileop --read "$B/f" verify 0 1M 8

	step "$pool: what one has open the other cannot replace"
	touch "$A/g"
	talk holder "$TOOLS/fileop" --read "$B/f" -
	refused "busy" mv "$A/g" "$A/f"
	hang_up holder
	eventually 5 "mv after its close" mv "$A/g" "$A/f"
	is "size at the other" "$(attr "$B/f" %s)" 0

	step "$pool: attributes"
	run chmod 640 "$A/f"
	run chown 1:2 "$A/f"
	run touch -d "2001-02-03 UTC" "$A/f"
	run setfattr -n user.x -v y "$A/f"
	is "at the other" "$(attr "$B/f" '%a %u %g %Y')" "640 1 2 981158400"
	is "user.x" "$(run getfattr --absolute-names --only-values -n user.x "$B/f")" y
	talk writer "$TOOLS/fileop" "$B/f" -
	run chmod 400 "$A/f"
	tell writer expect EACCES write 0 100 1
	refused "EACCES" "$TOOLS/fileop" "$B/f" size
	hang_up writer

	step "$pool: df of both"
	is "free" "$(free_bytes "$A")" "$(free_bytes "$B")"
	run find "$A" -mindepth 1 -delete
	is "entries at the other" "$(ls -A "$B")" ""
	umount_dir "$A"
	echo still here >"$B/f"
	umount_dir "$B"
done
finish
