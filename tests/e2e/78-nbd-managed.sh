#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# An export of an NBD server as a mount that keeps a copy: pulled, written back, while the server is killed and back.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse fio jq nbdkit nbdinfo
M=$T/mnt
IMAGE=$T/image
SERVER_PID=''

server_run() {
	rm -f "$T/socket"
	e2e_exec nbdkit --foreground --unix "$T/socket" "${FLAGS[@]}" file "$IMAGE" "${PARAMS[@]}" </dev/null >>"$T/server.log" 2>&1 &
	SERVER_PID=$!
	guard_add pid "$SERVER_PID"
	eventually 10 "the NBD server listens" test -S "$T/socket"
}

server_kill() {
	kill -KILL "$SERVER_PID"
	wait "$SERVER_PID" 2>/dev/null || true
	guard_drop pid "$SERVER_PID"
}

# cache_of MEMBER: of the region.
cache_of() {
	run "$REMRAM" status --json "$M" | jq -r ".[0].daemon.regions[0].cache.$1"
}

# shellcheck disable=SC2317  # called by eventually
clean() {
	[[ $(cache_of dirty) == 0 ]]
}

URI="nbd+unix:///?socket=$T/socket"
OPTIONS=cache=memory,pull=none,push_interval=1h,max_dirty=64M,cache_size=64M
FLAGS=(--filter=log)
PARAMS=("logfile=$T/asked")
run "$TOOLS/fileop" --create "$IMAGE" write 0 32M 1
server_run

step "what is pulled is read without the server"
mount_source "$URI" "$M" -o "$OPTIONS"
F=$M/nbd
talk reader "$TOOLS/fileop" "$F" -
is "pull" "$(run "$REMRAM" pull "$F" 0-8M)" "$F: 8.0 MiB here"
is "resident" "$(cache_of resident)" $((8 << 20))
server_kill
tell reader verify 0 8M 1

step "what is written waits for a server that is away, and is pushed when it is back"
tell reader write 4M 2M 2
is "dirty" "$(cache_of dirty)" $((2 << 20))
server_run
run "$REMRAM" flush -q "$F"
is "dirty" "$(cache_of dirty)" 0
fileop --read "$IMAGE" verify 0 4M 1 , verify 4M 2M 2 , verify 6M 26M 1
hang_up reader

step "fsync returns when the server has it, and has made it stable"
asked=$(wc -l <"$T/asked")
fileop "$F" write 10M 64K 3 , fsync
fileop --read "$IMAGE" verify 10M 64K 3
asked=$(tail -n +$((asked + 1)) "$T/asked" | grep -oE ' (Write|Flush) ' | tr -d '\n')
[[ $asked == *" Write "*" Flush " ]] || fail "the server was asked for:$asked"

step "the server is killed and started again while pulls and pushes go on"
umount_dir "$M"
mount_source "$URI" "$M" -o cache=memory,cache_size=16M,max_dirty=8M
job fio --name=verify --filename="$F" --size=32M --rate=,24m --rw=randwrite --bsrange=4k-256k --ioengine=libaio \
	--iodepth=16 --direct=1 --verify=crc32c --verify_fatal=1 --verify_state_save=0 --output="$T/fio.log"
for _ in 1 2; do
	sleep 0.7
	server_kill
	sleep 0.5
	server_run
done
job_passes 60

step "umount pushes what is dirty"
fileop "$F" write 0 32M 5
umount_dir "$M"
fileop --read "$IMAGE" verify 0 32M 5

step "the server is away: umount says what would be lost, and works when it is back"
mount_source "$URI" "$M" -o "$OPTIONS"
talk writer "$TOOLS/fileop" "$F" -
tell writer write 0 1M 6
server_kill
hang_up writer
refused "1048576 bytes that were written here are not at the donor: it cannot be reached" "$REMRAM" umount "$M"
server_run
umount_dir "$M"
fileop --read "$IMAGE" verify 0 1M 6 , verify 1M 31M 5

step "an export of such a file tells what is resident and dirty"
mount_source "$URI" "$M" -o "$OPTIONS"
job "$REMRAM" export "$F" --nbd "unix:$T/export"
eventually 10 "remram export listens" test -S "$T/export"
is "CACHE" "$(run "$TOOLS/nbdcmd" "nbd+unix:///?socket=$T/export" cache 1M 1M , write 5M 64K)" $'ok\nok'
is "resident" "$(run nbdinfo --map=remram:resident "nbd+unix:///?socket=$T/export" | awk '{ print $1, $2, $3 }' | tr '\n' ';')" \
	"0 1048576 0;1048576 1048576 1;2097152 3145728 0;5242880 65536 1;5308416 28246016 0;"
is "dirty" "$(run nbdinfo --map=remram:dirty "nbd+unix:///?socket=$T/export" | awk '{ print $1, $2, $3 }' | tr '\n' ';')" \
	"0 5242880 0;5242880 65536 1;5308416 28246016 0;"
kill "$JOB"
job_passes 20
umount_dir "$M"

step "an export that only reads"
server_kill
FLAGS=(-r)
PARAMS=()
server_run
mount_source "$URI" "$M" -o "$OPTIONS"
fileop --read "$F" verify 1M 4M 5
refused "EACCES" "$TOOLS/fileop" "$F" size
umount_dir "$M"

step "what is refused"
mkdir "$T/copies"
refused "use cache=memory" "$REMRAM" mount "$URI" "$M" -o "cache=$T/copies"
is "the directory" "$(ls -A "$T/copies")" ""
refused "needs no copy" "$REMRAM" mount "file:$IMAGE" "$M" -o cache=memory
finish
