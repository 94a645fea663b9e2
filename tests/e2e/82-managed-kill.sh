#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A client with a cache directory is killed while it writes, flushes, pushes, evicts and resizes; the donor
# restarts; the connection breaks; the lease is lost: nothing that fsync promised is lost, nothing old lands.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse fio jq
donor_start disk="file:$T/pool?size=512M" --lease 2s
M=$T/m D=$T/d C=$T/cache
KILL_SEED=${SEED:-$SRANDOM}
echo "# SEED=$KILL_SEED" >&2
RANDOM=$((KILL_SEED % 32768))

network_start

# mount_far [OPTION…]: mounts with the cache directory, through the proxy.
mount_far() {
	local DONOR_PORT=$NETWORK_PORT
	mount_pool disk "$M" "$@"
}

opens() {
	"$TOOLS/fileop" "$1" size >/dev/null 2>&1
}

# Bytes that have come from the donor since the mount.
came() {
	run "$REMRAM" status --json "$M" | jq '.[0].daemon.connection.bytes_in'
}

# The client that is killed: slots of the file are written in turn, each time with another seed, made stable, and
# noted down; now and then the file becomes shorter and longer again behind the slots.
SLOTS=48
write_slots() {
	local i=$1 slot extra
	while :; do
		i=$((i + 1))
		slot=$((i % SLOTS))
		echo "$i" >>"$T/begun"
		case $((i % 7)) in
		3) extra=", truncate $((SLOTS * 524288 + i % 5 * 100000))" ;;
		5) extra=", write $((SLOTS * 524288 + 1000)) 30000 9" ;;
		*) extra= ;;
		esac
		# shellcheck disable=SC2086
		"$TOOLS/fileop" "$M/f" write $((slot * 524288 + i % 3 * 1000)) 262144 "$i" , fsync $extra \
			2>/dev/null || return 0
		echo "$i" >>"$T/done"
	done
}

# Every slot holds what was last stable in it, but for those in which a later write was cut off.
check_slots() {
	local file=$1 i args=()
	local -A last=() begun=()
	while read -r i; do
		begun[$((i % SLOTS))]=$i
	done <"$T/begun"
	while read -r i; do
		last[$((i % SLOTS))]=$i
	done <"$T/done"
	for i in "${last[@]}"; do
		[[ ${begun[$((i % SLOTS))]} == "$i" ]] || continue
		args+=("," verify $((i % SLOTS * 524288 + i % 3 * 1000)) 262144 "$i")
	done
	[[ ${#args[@]} -eq 0 ]] || fileop --read "$file" "${args[@]:1}"
}

# kill_rounds COUNT [OPTION…]
kill_rounds() {
	local rounds=$1 round writer
	shift
	rm -rf "$C"
	: >"$T/done"
	echo 0 >"$T/begun"
	mount_far -o "cache=$C,$1"
	fileop --create "$M/f" truncate $((SLOTS * 524288)) , fsync
	for ((round = 0; round < rounds; round++)); do
		write_slots "$(tail -n 1 "$T/begun")" &
		writer=$!
		sleep "0.$((RANDOM % 600 + 100))"
		daemon_kill "$M"
		wait "$writer" || true
		umount_dead "$M"
		mount_far -o "cache=$C,$1"
		check_slots "$M/f"
	done
	at_least "stable writes" "$(wc -l <"$T/done")" "$rounds"
	umount_dir "$M"
	mount_pool disk "$D"
	check_slots "$D/f"
	run rm "$D/f"
	umount_dir "$D"
}

step "killed while it writes and pushes"
kill_rounds 3 push_interval=0
step "killed with much that only its directory has"
kill_rounds 3 durability=local,push_interval=1s
step "killed with less cache than data"
kill_rounds 3 cache_size=16M,max_dirty=2M,pull=all,push_interval=100ms

step "killed: nothing that is intact is fetched again"
rm -rf "$C"
mount_far -o "cache=$C"
fileop --create "$M/f" write 0 16M 1 , fsync
talk writer "$TOOLS/fileop" "$M/f" -
tell writer write 4M 64K 2
tell writer fsync
daemon_kill "$M"
hang_up writer || true
umount_dead "$M"
mount_far -o "cache=$C"
fileop --read "$M/f" verify 0 4M 1 , verify 4M 64K 2 , verify 4160K 12224K 1
at_most "bytes from the donor" "$(came)" 200000
umount_dir "$M"

step "killed, and what was not pushed is pushed at the next mount, without an open"
rm -rf "$C"
mount_far -o "cache=$C,durability=local,push_interval=1h,max_dirty_age=2h"
fileop --create "$M/f" write 0 1M 1
talk writer "$TOOLS/fileop" "$M/f" -
tell writer write 0 1M 2
tell writer fsync
daemon_kill "$M"
hang_up writer || true
umount_dead "$M"
mount_pool disk "$D"
fileop --read "$D/f" verify 0 1M 1
mount_far -o "cache=$C"
has_two() {
	"$TOOLS/fileop" --read "$D/f" verify 0 1M 2 2>/dev/null
}
eventually 10 "it is pushed" has_two

step "the donor restarts, and dies"
talk writer "$TOOLS/fileop" "$M/f" -
tell writer write 0 1M 3
donor_stop
tell writer write 1M 1M 4
donor_back
tell writer fsync
fileop --read "$D/f" verify 0 1M 3 , verify 1M 1M 4
tell writer write 2M 1M 5
donor_kill
tell writer write 3M 1M 6
donor_back
tell writer fsync
fileop --read "$D/f" verify 2M 1M 5 , verify 3M 1M 6
hang_up writer

step "the lease is lost: what was written here goes aside, what the other wrote stays"
eventually 10 "the lease is given back" opens "$D/f"
umount_dir "$M"
mount_far -o "cache=$C,push_interval=1h,max_dirty_age=2h"
talk writer "$TOOLS/fileop" "$M/f" -
tell writer write 0 64K 7
network blackhole
eventually 15 "the lease is taken" opens "$D/f"
fileop "$D/f" write 0 1M 8 , fsync
network resume
[[ $(ask_talk writer fsync | tail -n 1) == failed ]] || fail "fsync has not failed"
fileop --read "$D/f" verify 0 1M 8
is_lost() {
	[[ $("$REMRAM" status --json "$M" | jq -r '.[0].daemon.regions[] | select(.name == "f").lease') == lost ]]
}
eventually 10 "the lease is known to be lost" is_lost
hang_up writer
is_aside() {
	[[ -n $(ls -A "$C/aside") ]]
}
eventually 10 "it is kept aside" is_aside
fileop --read "$M/f" verify 0 1M 8
fileop "$M/f" write 0 4096 9 , fsync
fileop --read "$D/f" verify 0 4096 9
umount_dir "$M"

# reconnects: of the mount, since it was made.
reconnects() {
	run "$REMRAM" status --json "$M" | sed 's/.*"reconnects":\([0-9]*\).*/\1/'
}

# is_back BEFORE: connected again after that many reconnects.
is_back() {
	(($(reconnects) > $1))
}

# fio_until_cut COUNT NAME [OPTION…]: fio, again and again, while the connection breaks COUNT times, each time after it
# was made again.
fio_until_cut() {
	local count=$1 name=$2 before i
	shift 2
	rm -f "$T/enough"
	# shellcheck disable=SC2016
	job bash -c 'until [[ -e $0 ]]; do "$@" || exit; done' "$T/enough" fio --name="$name" --filename="$M/fio" \
		--size=18M --verify=crc32c --verify_fatal=1 --verify_state_save=0 --rw=randwrite --bsrange=4k-64k \
		--output="$T/$name.log" "$@"
	eventually 10 "fio has begun" opened_by_fio
	for ((i = 1; i <= count; i++)); do
		sleep "0.0$((RANDOM % 40 + 20))"
		before=$(reconnects)
		network cut
		process_alive "$JOB" || fail "fio had ended before cut $i of $count"
		eventually 10 "connected again" is_back "$before"
	done
	touch "$T/enough"
	job_passes 30
}

opened_by_fio() {
	(($("$REMRAM" status --json "$M" | jq '[.[0].daemon.regions[] | select(.name == "fio").open] | add // 0') > 0))
}

cuts() {
	network_says stats | sed 's/.* cut=\([0-9]*\).*/\1/'
}

for how in "cache=$C" cache=memory; do
	step "${how/=\/*/=DIR}: fio, and the connection breaks twenty times while it writes, five times while it verifies"
	rm -rf "$C"
	mount_far -o "$how,cache_size=16M,max_dirty=8M,push_interval=100ms"
	was=$(cuts)
	fio_until_cut 20 written --rate=,40m --fsync=50 --do_verify=0
	at_least "cuts" $(($(cuts) - was)) 20
	at_least "reconnects" "$(reconnects)" 20
	fio_until_cut 5 verified --verify_only --rate=40m
	at_least "cuts" $(($(cuts) - was)) 25
	at_least "reconnects" "$(reconnects)" 25
	umount_dir "$M"
	run_for 60 fio --name=there --filename="$D/fio" --size=18M --verify=crc32c --verify_fatal=1 --rw=randwrite \
		--bsrange=4k-64k --verify_only --verify_state_save=0 --output="$T/there.log"
	run rm "$D/fio"
done
umount_dir "$D"
finish
