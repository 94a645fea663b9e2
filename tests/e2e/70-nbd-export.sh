#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Regions are NBD exports for everybody else's clients: libnbd's tools, qemu's, fio's engine.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse nbdinfo nbdcopy nbdfuse qemu-img qemu-io qemu-storage-daemon fio jq unshare
NBD_PORT=$(e2e_port)
donor_start ram=memory:?size=1G disk="file:$T/pool?size=512M" --nbd "127.0.0.1:$NBD_PORT" --nbd "unix:$T/nbd"
mount_pool ram "$T/ram"
mount_pool disk "$T/disk"

# uri EXPORT: over the Unix socket; tcp EXPORT: over TCP; qemu EXPORT: as qemu writes it.
uri() {
	echo "nbd+unix:///$1?socket=$T/nbd"
}

tcp() {
	echo "nbd://127.0.0.1:$NBD_PORT/$1"
}

qemu() {
	echo "nbd:unix:$T/nbd:exportname=$1"
}

# region FILE SIZE: a new region that nobody has open.
region() {
	run truncate -s "$2" "$1"
}

# unused FILE: no NBD client has it any more: it can be resized to its own size again.
# shellcheck disable=SC2317  # called by eventually
unused() {
	truncate -s +1 "$1" 2>/dev/null && truncate -s -1 "$1"
}

step "nbdinfo: sizes, flags, contexts, the list"
region "$T/ram/work" 64M
region "$T/ram/with space" 1M
region "$T/disk/file" 64M
info=$(run nbdinfo --json "$(uri ram/work)")
is "size" "$(jq '.exports[0]["export-size"]' <<<"$info")" 67108864
for flag in can_cache can_df can_fast_zero can_flush can_fua can_multi_conn can_trim can_zero; do
	is "$flag" "$(jq ".exports[0].$flag" <<<"$info")" true
done
is "read-only" "$(jq '.exports[0].is_read_only' <<<"$info")" false
is "structured" "$(jq .structured <<<"$info")" true
is "contexts" "$(jq -c '.exports[0].contexts' <<<"$info")" '["base:allocation","remram:resident","remram:dirty"]'
is "block sizes" "$(jq -c '.exports[0] | [.block_size_minimum, .block_size_preferred, .block_size_maximum]' <<<"$info")" \
	"[1,4096,33554432]"
list=$(run nbdinfo --list --json "nbd://127.0.0.1:$NBD_PORT")
is "the list" "$(jq -c '[.exports[]["export-name"]] | sort' <<<"$list")" '["disk/file","ram/with space","ram/work"]'
is "a leading slash" "$(run nbdinfo --size "$(uri /ram/work)")" 67108864
is "a name with a space" "$(run nbdinfo --size "$(uri ram/with%20space)")" 1048576
refused "No such file or directory for export" nbdinfo "$(uri ram/nope)"
contains "read-only by name" "$(run nbdinfo "$(uri ram/work/ro)")" "is_read_only: true"

step "mode bits make an export read-only"
run chmod 400 "$T/ram/with space"
contains "mode 400" "$(run nbdinfo "$(uri ram/with%20space)")" "is_read_only: true"
run chmod 600 "$T/ram/with space"

for what in ram/work disk/file; do
	file=$T/$what
	step "$what: nbdcopy in, out, and the map"
	random_file "$T/image" 20M
	run truncate -s 64M "$T/image"
	run nbdcopy "$T/image" "$(uri "$what")"
	run nbdcopy "$(tcp "$what")" "$T/back"
	same "$T/image" "$T/back"
	is "map" "$(run nbdinfo --map "$(uri "$what")" | awk '{ print $1, $2, $4 }' | tr '\n' ';')" \
		"0 20971520 data;20971520 46137344 hole,zero;"
	is "resident" "$(run nbdinfo --map=remram:resident "$(uri "$what")" | awk '{ print $1, $2, $3 }')" "0 67108864 1"
	is "dirty" "$(run nbdinfo --map=remram:dirty "$(uri "$what")" | awk '{ print $1, $2, $3 }')" "0 67108864 0"
	eventually 10 "the clients go" unused "$file"
	drop_cache "$file"
	same "$T/image" "$file"

	step "$what: qemu-img"
	contains "info" "$(run qemu-img info "$(qemu "$what")")" "64 MiB"
	run qemu-img compare -f raw -F raw "$T/image" "$(qemu "$what")" >/dev/null
	run qemu-img convert -f raw -O qcow2 "$(qemu "$what")" "$T/image.qcow2"
	run qemu-img compare -f qcow2 -F raw "$T/image.qcow2" "$(qemu "$what")" >/dev/null
	is "qemu-img map" "$(run qemu-img map --output=json "$(qemu "$what")" | jq -c 'map([.start, .length, .data])')" \
		"[[0,20971520,true],[20971520,46137344,false]]"
	random_file "$T/second" 8M
	run truncate -s 64M "$T/second"
	run qemu-img convert -n -f raw -O raw "$T/second" "$(qemu "$what")"
	run qemu-img compare -f raw -F raw "$T/second" "$(qemu "$what")" >/dev/null
	run qemu-img create -q -f qcow2 "$(qemu "$what")" 32M
	run qemu-io -f qcow2 -c "write -P 7 1M 3M" -c "read -P 7 1M 3M" -c "read -P 0 0 1M" "$(qemu "$what")" >/dev/null
	run qemu-img check -q -f qcow2 "$(qemu "$what")"

	step "$what: qemu-io, aligned and not, zeroes, discard, FUA"
	said=$(run qemu-io -f raw -c "write -P 1 0 64M" -c "write -P 2 1000 5000" -c "write -f -P 3 1M 64k" \
		-c "read -P 1 0 1000" -c "read -P 2 1000 5000" -c "read -P 3 1M 64k" -c "write -z 4M 1M" -c "write -zu 6M 1M" \
		-c "read -P 0 4M 1M" -c "read -P 0 6M 1M" -c "read -P 1 5M 1M" -c "discard 8M 1M" -c "read -P 0 8M 1M" \
		-c "write -z 10000001 3333" -c "read -P 0 10000001 3333" -c "read -P 1 10003334 100" -c flush "$(qemu "$what")" 2>&1)
	[[ $said != *"erification failed"* && $said != *rror* ]] || fail "qemu-io: $said"

	step "$what: fio's nbd engine verifies what it has written"
	run_for 60 fio --name=verify --ioengine=nbd --uri="$(uri "$what")" --size=32M --rw=randrw --bsrange=4k-256k --iodepth=16 \
		--verify=crc32c --verify_fatal=1 --verify_state_save=0 --randrepeat=0 --verify_backlog=500 --output="$T/fio.log"
	run_for 60 fio --name=verify --ioengine=nbd --uri="$(tcp "$what")" --size=16M --rw=randwrite --bsrange=512-9000 --bs_unaligned \
		--iodepth=8 --verify=crc32c --verify_fatal=1 --verify_state_save=0 --randrepeat=0 --output="$T/fio.log"
	run_for 60 fio --name=several --ioengine=nbd --uri="$(uri "$what")" --size=8M --offset_increment=8M --numjobs=4 --thread \
		--rw=randrw --bs=4k --iodepth=16 --verify=crc32c --verify_fatal=1 --verify_state_save=0 --randrepeat=0 --output="$T/fio.log"
done

step "nbdcopy between two exports"
random_file "$T/image" 64M
run nbdcopy "$T/image" "$(uri ram/work)"
run nbdcopy "$(uri ram/work)" "$(tcp disk/file)"
run nbdcopy "$(uri disk/file)" "$T/back"
same "$T/image" "$T/back"

step "nbdfuse on an export"
mkdir "$T/fuse"
job nbdfuse "$T/fuse/region" "$(uri ram/work)"
guard_add mount "$T/fuse"
eventually 10 "nbdfuse mounts" test -s "$T/fuse/region"
same "$T/image" "$T/fuse/region"
run dd if="$T/second" of="$T/fuse/region" bs=1M count=8 conv=notrunc,fsync status=none
run cmp -n 8388608 "$T/second" "$T/fuse/region"

step "while a client may write, nobody else changes the region"
refused "busy" truncate -s 1M "$T/ram/work"
refused "busy" rm "$T/ram/work"
refused "busy" mv "$T/ram/work" "$T/ram/other"
refused "busy" dd if=/dev/zero of="$T/ram/work" bs=4k count=1 conv=notrunc status=none
run umount "$T/fuse"
guard_drop mount "$T/fuse"
job_passes 10
eventually 10 "the client goes" unused "$T/ram/work"
run truncate -s 1M "$T/ram/work"
is "size over NBD" "$(run nbdinfo --size "$(uri ram/work)")" 1048576
run rm "$T/ram/work"
refused "No such file or directory for export" nbdinfo "$(uri ram/work)"

step "qemu-storage-daemon as a client: its export of our export"
region "$T/ram/work" 64M
job qemu-storage-daemon --blockdev "driver=nbd,node-name=n,server.type=unix,server.path=$T/nbd,export=ram/work" \
	--nbd-server "addr.type=unix,addr.path=$T/qsd" --export "type=nbd,id=e,node-name=n,name=again,writable=on"
eventually 10 "qemu-storage-daemon listens" test -S "$T/qsd"
run nbdcopy "$T/image" "nbd+unix:///again?socket=$T/qsd"
run nbdcopy "nbd+unix:///again?socket=$T/qsd" "$T/back"
same "$T/image" "$T/back"
kill "$JOB"
job_wait 10

step "remram export: a file, a region of a mount, memory"
export_start() {
	job "$REMRAM" export "$@" --nbd "unix:$T/export"
	eventually 10 "remram export listens" test -S "$T/export"
}
export_stop() {
	kill "$JOB"
	job_passes 20
	[[ ! -e $T/export ]] || fail "the socket is left"
}
random_file "$T/odd name?" 3M
export_start "$T/odd name?"
run nbdcopy "nbd+unix:///?socket=$T/export" "$T/back"
same "$T/odd name?" "$T/back"
is "its name" "$(run nbdinfo --list --json "nbd+unix:///?socket=$T/export" | jq -r '.exports[0]["export-name"]')" "odd name?"
export_stop
eventually 10 "the client goes" unused "$T/ram/work"
export_start "$T/ram/work"
run nbdcopy "$T/second" "nbd+unix:///work?socket=$T/export"
export_stop
run cmp "$T/second" "$T/ram/work"
export_start --read-only "$T/ram/work"
contains "read-only" "$(run nbdinfo "nbd+unix:///?socket=$T/export")" "is_read_only: true"
export_stop
export_start 'memory:?size=64M' --name scratch
run nbdcopy "$T/second" "nbd+unix:///scratch?socket=$T/export"
run nbdcopy "nbd+unix:///scratch?socket=$T/export" "$T/back"
same "$T/second" "$T/back"
export_stop
# The port that clients of NBD look at first, 10809 (2A39), in a network of its own: there it is free.
job unshare --net "$REMRAM" export "$T/second" --nbd 127.0.0.1
eventually 10 "remram export listens on 127.0.0.1:10809" grep -q ' 0100007F:2A39 00000000:0000 0A' "/proc/$JOB/net/tcp"
kill "$JOB"
job_passes 20
refused "is a directory" "$REMRAM" export "$T" --nbd "unix:$T/export"
refused "where to serve it" "$REMRAM" export "$T/second"
refused "is not a loopback address" "$REMRAM" export "$T/second" --nbd 0.0.0.0
refused "No such file" "$REMRAM" export "$T/nothing" --nbd "unix:$T/export"
refused "names a donor's pool" "$REMRAM" export "remram://127.0.0.1/ram/work" --nbd "unix:$T/export"
refused "names a donor's pool" "$REMRAM" export "127.0.0.1:/ram/work" --nbd "unix:$T/export"
refused "is not a loopback address" "$REMRAMD" --config /dev/null --pool a=memory:?size=1M --nbd 192.0.2.1

step "the donor ends with clients connected, in order"
job nbdfuse "$T/fuse/region" "$(uri ram/work)"
guard_add mount "$T/fuse"
eventually 10 "nbdfuse mounts" test -s "$T/fuse/region"
umount_dir "$T/ram"
umount_dir "$T/disk"
donor_stop
[[ ! -e $T/nbd ]] || fail "the socket is left"
run umount "$T/fuse"
guard_drop mount "$T/fuse"
job_wait 10
finish
