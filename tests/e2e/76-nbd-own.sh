#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Our own client of our own export: a donor's regions as exports, as files of `remram mount nbd://…`, as the pool of a
# second donor that exports it again; who may write, a donor that is killed, and errors of what is below.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse loop fio nbdkit nbdcopy nbdinfo qemu-img mkfs.ext4 jq
NBD_PORT=$(e2e_port)
DONOR_CONF=(ram=memory:?size=512M disk="file:$T/pool?size=512M" --nbd "127.0.0.1:$NBD_PORT" --nbd "unix:$T/nbd")
donor_start "${DONOR_CONF[@]}"
mount_pool ram "$T/ram"
mount_pool disk "$T/disk"
M=$T/mnt

# over WAY EXPORT: its URI.
over() {
	case $1 in
	tcp) echo "nbd://127.0.0.1:$NBD_PORT/$2" ;;
	unix) echo "nbd+unix:///$2?socket=$T/nbd" ;;
	esac
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

verify() {
	run_for 60 fio --name=verify --filename="$1" --size="$2" --rw=randrw --verify_backlog=1000 --bsrange=4k-256k \
		--ioengine=libaio --iodepth=16 --direct=1 --verify=crc32c --verify_fatal=1 --verify_state_save=0 \
		--output="$T/fio.log"
}

# mount_nbd URI DIR: in the foreground, with its messages in DIR.log.
mount_nbd() {
	mkdir -p "$2"
	: >"$2.log"
	guard_add mount "$2"
	e2e_exec "$REMRAM" mount -f "$1" "$2" </dev/null >>"$2.log" 2>&1 &
	guard_add pid $!
	eventually 20 "the mount" guard_is_mounted "$2"
	eventually 10 "the state of the mount" test -e "$(run_dir "$2")/mount.conf"
	guard_add_mount "$2"
}

random_file "$T/data" 20M
for way in tcp unix; do
	for what in ram/work disk/work; do
		step "$what over $way: bytes, holes, mappings"
		region "$T/$what" 64M
		mount_source "$(over $way $what)" "$M"
		is "entries" "$(ls -A "$M")" work
		is "size and mode" "$(attr "$M/work" '%s %a')" "67108864 600"
		is "extents" "$("$TOOLS/fileop" --read "$M/work" extents)" "hole 0 67108864"
		run dd if="$T/data" of="$M/work" bs=1M conv=notrunc,fsync status=none
		drop_cache "$M/work" "$T/$what"
		run cmp -n 20971520 "$T/data" "$M/work"
		run cmp -n 20971520 "$T/data" "$T/$what"
		is "extents" "$("$TOOLS/fileop" --read "$M/work" extents)" "data 0 20971520
hole 20971520 67108864"
		fileop "$M/work" fallocate punch 1M 2M , zeros 1M 2M
		is "extents" "$("$TOOLS/fileop" --read "$M/work" extents)" "data 0 1048576
hole 1048576 3145728
data 3145728 20971520
hole 20971520 67108864"
		is "of the region" "$("$TOOLS/fileop" --read "$T/$what" extents)" "data 0 1048576
hole 1048576 3145728
data 3145728 20971520
hole 20971520 67108864"
		fileop "$M/work" map 0 2M shared rw , map-write 65537 65536 2 , map-sync , drop , verify 65537 65536 2
		fileop "$M/work" write 1234567 500000 1 , fallocate punch 1234567 100001 , zeros 1234567 100001 , \
			verify 1334568 399999 1
		fileop "$M/work" fallocate punch 0 64M
		eventually 10 "the memory goes back" eval '[[ $(stat -c %b "$T/$what") -eq 0 ]]'
		verify "$M/work" 32M
		umount_dir "$M"
		eventually 10 "the client goes" unused "$T/$what"
		run rm "$T/$what"
	done
done

step "a writer on a mount keeps NBD's clients from writing, and is named to them"
region "$T/ram/work" 16M
talk writer "$TOOLS/fileop" "$T/ram/work" -
tell writer write 0 1M 5
who="$(hostname), process $(daemon_pid "$T/ram"), $T/ram (127.0.0.1)"
refused "policy" nbdcopy "$T/data" "$(over unix ram/work)"
refused "server reported: export \"ram/work\" is in use: $who writes to it" qemu-img info "nbd:unix:$T/nbd:exportname=ram/work"
refused "the server refuses: export \"ram/work\" is in use: $who" "$REMRAM" mount "$(over tcp ram/work)" "$M"
mount_source "$(over tcp ram/work/ro)" "$M"
fileop --read "$M/ro" verify 0 1M 5
refused "Permission denied" dd if=/dev/zero of="$M/ro" bs=4k count=1 conv=notrunc status=none
umount_dir "$M"
hang_up writer

step "an NBD client keeps the mounts from writing, and is named to them"
mount_logged ram "$T/second"
mount_source "$(over tcp ram/work)" "$M"
fileop "$M/work" verify 0 1M 5 , write 0 1M 6 , fsync
refused "EBUSY" "$TOOLS/fileop" "$T/second/work" size
refused "busy" truncate -s 1M "$T/second/work"
contains "the log" "$(<"$T/second.log")" \
	"region \"work\" is being written to by clients of its NBD export (the first: 127.0.0.1:"
contains "status" "$(run "$REMRAM" status "$T/second")" "clients of its NBD export (the first: 127.0.0.1:"
fileop --read "$T/second/work" verify 0 1M 6
region "$T/ram/used" 1M
mount_source "$(over unix ram/used)" "$T/third"
for change in "truncate -s 2M $T/second/used" "rm $T/second/used" "mv $T/second/used $T/second/other"; do
	refused "EBUSY" "$TOOLS/fileop" "$T/second/work" size
	# shellcheck disable=SC2086
	refused "busy" $change
	is "who is in the way of $change" \
		"$("$REMRAM" status --json "$T/second" | jq -r '.[0].daemon.busy | "\(.region) \(.holder)"' | sed 's/process [0-9]*/process N/')" \
		"used clients of its NBD export (the first: process N (unix))"
done
touch "$T/second/free"
refused "busy" mv "$T/second/free" "$T/second/used"
umount_dir "$T/third"
umount_dir "$M"
eventually 10 "the client goes" unused "$T/ram/work"
fileop "$T/second/work" write 0 1M 7
mount_source "$(over unix ram/work)" "$M"
fileop --read "$M/work" verify 0 1M 7
umount_dir "$T/second"

step "mode bits: what becomes read-only under a client"
run chmod 400 "$T/ram/work"
refused "Operation not permitted" dd if=/dev/zero of="$M/work" bs=4k count=1 conv=notrunc,fsync oflag=direct status=none
fileop --read "$M/work" drop , verify 0 1M 7
run chmod 600 "$T/ram/work"
fileop "$M/work" write 0 1M 8 , fsync
umount_dir "$M"

step "a read-only client sees a region become shorter as errors, longer after a new mount, and its end"
eventually 10 "the client goes" unused "$T/ram/work"
mount_nbd "$(over tcp ram/work/ro)" "$M"
fileop --read "$M/ro" verify 0 1M 8
run truncate -s 8M "$T/ram/work"
drop_cache "$M/ro"
fileop --read "$M/ro" verify 0 1M 8
refused "Input/output error" dd if="$M/ro" of=/dev/null bs=1M skip=8 iflag=direct status=none
is "extents" "$("$TOOLS/fileop" --read "$M/ro" extents | tail -n 1)" "hole 1048576 16777216"
run truncate -s 32M "$T/ram/work"
run dd if="$M/ro" of=/dev/null bs=1M iflag=direct status=none
is "size" "$(attr "$M/ro" %s)" 16777216
umount_dir "$M"
mount_nbd "$(over tcp ram/work/ro)" "$M"
is "size" "$(attr "$M/ro" %s)" 33554432
run dd if="$M/ro" of=/dev/null bs=1M iflag=direct status=none
run rm "$T/ram/work"
# shellcheck disable=SC2317  # called by eventually
lost() { [[ $(<"$M.log") == *"connection lost"* ]]; }
eventually 10 "the donor ends the connection" lost
region "$T/ram/work" 1M
# shellcheck disable=SC2317  # called by eventually
smaller() { [[ $(<"$M.log") == *"has become smaller ("*", it had 33554432)"* ]]; } # 1 MiB, or nothing yet
eventually 10 "another region under the same name is not taken for it" smaller
refused "Input/output error" dd if="$M/ro" of=/dev/null bs=1M count=1 iflag=direct status=none
umount_dir "$M"

step "a file system on a loop device is clean"
region "$T/disk/ext4" 128M
mount_source "$(over unix disk/ext4)" "$M" -o attach=ext4
dev=$(losetup -n -O NAME -j "$M/ext4")
run mkfs.ext4 -q -F "$dev"
mkdir "$T/ext4"
run mount "$dev" "$T/ext4"
guard_add mount "$T/ext4"
run cp "$T/data" "$T/ext4/data"
run umount "$T/ext4"
run fsck.ext4 -f -n "$dev" >/dev/null
umount_dir "$M"
guard_drop mount "$T/ext4"
eventually 10 "the client goes" unused "$T/disk/ext4"
cp "$T/disk/ext4" "$T/image"
run fsck.ext4 -f -n "$T/image" >/dev/null
rm "$T/image"

step "a donor that is killed and started again under I/O: nothing fails, nothing is wrong"
region "$T/disk/work" 64M
mount_nbd "$(over tcp disk/work)" "$M"
job fio --name=verify --filename="$M/work" --size=64M --rate=,8m --rw=randwrite --bsrange=4k-256k --ioengine=libaio \
	--iodepth=16 --direct=1 --verify=crc32c --verify_fatal=1 --verify_state_save=0 --output="$T/fio.killed.log"
for _ in 1 2 3; do
	sleep 1
	donor_kill
	sleep 0.5
	process_alive "$JOB" || fail "the job has ended while the donor was away"
	donor_back
done
job_passes 60
contains "the client's log" "$(<"$M.log")" "connected again"
umount_dir "$M"
same "$T/disk/work" <(run nbdcopy "$(over unix disk/work)" -)

step "connections that are cut under I/O: nothing fails, nothing is wrong"
network_start --target "127.0.0.1:$NBD_PORT"
eventually 10 "the client goes" unused "$T/disk/work"
mount_nbd "nbd://127.0.0.1:$NETWORK_PORT/disk/work" "$M"
job fio --name=verify --filename="$M/work" --size=64M --rate=,8m --rw=randwrite --bsrange=4k-256k --ioengine=libaio \
	--iodepth=16 --direct=1 --verify=crc32c --verify_fatal=1 --verify_state_save=0 --output="$T/fio.cut.log"
for _ in {1..20}; do
	sleep 0.1
	process_alive "$JOB" || fail "the job has ended before the last cut"
	network cut
done
job_passes 60
umount_dir "$M"
same "$T/disk/work" <(run nbdcopy "$(over unix disk/work)" -)

step "every connection has its share of many requests"
nbdkit_start() {
	rm -f "$T/kit"
	e2e_exec nbdkit --foreground --unix "$T/kit" "$@" </dev/null >>"$T/nbdkit.log" 2>&1 &
	KIT_PID=$!
	guard_add pid "$KIT_PID"
	eventually 10 "nbdkit listens" test -S "$T/kit"
}
nbdkit_stop() {
	kill -KILL "$KIT_PID"
	wait "$KIT_PID" 2>/dev/null || true
	guard_drop pid "$KIT_PID"
}
nbdkit_start --filter=log --filter=delay memory 64M logfile="$T/kit.trace" rdelay=5ms
mount_source "nbd+unix:///?socket=$T/kit&conns=4" "$M"
run_for 60 fio --name=many --filename="$M/nbd" --size=64M --rw=randread --bs=4k --ioengine=libaio --iodepth=128 --direct=1 \
	--number_ios=4000 --output="$T/fio.log"
is "connections that read" "$(sed -nE 's/.* connection=([0-9]+) Read .*/\1/p' "$T/kit.trace" | sort -u | wc -l)" 4
umount_dir "$M"
nbdkit_stop

step "a region of another donor is a pool, which is exported again under its name"
region "$T/ram/vm" 64M
mkfifo "$T/again.ready"
again_start() {
	e2e_exec "$REMRAMD" --config /dev/null --state "$T/again.state" --listen "127.0.0.1:$(e2e_port)" --ready-fd 9 \
		--pool again="$1" --nbd "unix:$T/again" </dev/null >>"$T/again.log" 2>&1 9>"$T/again.ready" &
	AGAIN_PID=$!
	guard_add pid "$AGAIN_PID"
	read -r -t 20 _ <"$T/again.ready" || fail "the second donor did not start"
}
again_stop() {
	kill "$AGAIN_PID"
	wait_until 20 process_gone "$AGAIN_PID" || fail "the second donor has not ended"
	wait "$AGAIN_PID" || fail "the second donor's exit code: $?"
	guard_drop pid "$AGAIN_PID"
}
again_start "$(over tcp ram/vm)"
is "the list" "$(run nbdinfo --list --json "nbd+unix:///?socket=$T/again" | jq -c '[.exports[]["export-name"]]')" '["again"]'
is "size" "$(run nbdinfo --size "nbd+unix:///again?socket=$T/again")" 67108864
run truncate -s 64M "$T/data"
run nbdcopy "$T/data" "nbd+unix:///again?socket=$T/again"
run nbdcopy "nbd+unix:///again?socket=$T/again" "$T/back"
same "$T/data" "$T/back"
is "map" "$(run nbdinfo --map "nbd+unix:///again?socket=$T/again" | awk '{ print $1, $2, $4 }' | tr '\n' ';')" \
	"0 20971520 data;20971520 46137344 hole,zero;"
run qemu-img compare -f raw -F raw "$T/data" "nbd:unix:$T/again:exportname=again" >/dev/null
mount_source "nbd+unix:///again?socket=$T/again" "$M"
verify "$M/again" 32M
fileop "$M/again" fallocate punch 0 64M , write 3M 5M 9 , fsync
umount_dir "$M"
again_stop
eventually 10 "the second donor goes" unused "$T/ram/vm"
drop_cache "$T/ram/vm"
fileop --read "$T/ram/vm" zeros 0 3M , verify 3M 5M 9 , zeros 8M 56M

step "errors below an export reach its client, each as itself, and nothing else fails"
nbdkit_start --filter=error memory 64M error-pwrite=ENOSPC error-pwrite-rate=100% error-pread=EIO error-pread-rate=100% \
	error-file="$T/fail"
again_start "nbd+unix:///?socket=$T/kit"
U="nbd+unix:///again?socket=$T/again"
run nbdcopy "$T/data" "$U"
touch "$T/fail"
refused "Input/output error" nbdcopy "$U" "$T/back"
refused "No space left on device" nbdcopy --synchronous "$T/data" "$U"
said=$(qemu-io -f raw -c "read 0 4k" -c "read 1M 20M" -c "write 0 4k" "nbd:unix:$T/again:exportname=again" 2>&1) || true
is "failures" "$(grep -c failed <<<"$said")" 3
rm "$T/fail"
run nbdcopy "$U" "$T/back"
same "$T/data" "$T/back"
again_stop
nbdkit_stop

step "a server that retries, delays, has no extents and is killed meanwhile"
truncate -s 64M "$T/image"
kit() {
	nbdkit_start --filter=retry --filter=noextents --filter=error --filter=delay file "$T/image" retry-delay=1 \
		retry-exponential=no error-pwrite=EIO error-pwrite-rate=1% rdelay=1ms wdelay=2ms
}
kit
mount_nbd "nbd+unix:///?socket=$T/kit" "$M"
is "extents" "$("$TOOLS/fileop" --read "$M/nbd" extents)" "data 0 67108864"
job fio --name=verify --filename="$M/nbd" --size=16M --rate=,4m --rw=randwrite --bsrange=4k-64k --ioengine=libaio \
	--iodepth=16 --direct=1 --verify=crc32c --verify_fatal=1 --verify_state_save=0 --output="$T/fio.killed.log"
for _ in 1 2; do
	sleep 1
	nbdkit_stop
	sleep 0.2
	process_alive "$JOB" || fail "the job has ended while the server was away"
	kit
done
job_passes 100
umount_dir "$M"
nbdkit_stop

umount_dir "$T/ram"
umount_dir "$T/disk"
donor_stop
finish
