#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# `make demo`: shows remram working on this machine, in under a minute, and leaves nothing behind.
#
# A donor and a client on loopback: a pool as a directory of files, files copied and mapped, and a program that
# needs three times the memory it may have, with the rest on the donor.  Every byte is checked.
#
# O is the build directory (default build).  Exit codes: 0 all was shown; 1 something went wrong; 2 this
# machine lacks what the files or the swap need, which is said, and the rest was shown.
set -euo pipefail

cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
# shellcheck source=scripts/cgroup.sh
. scripts/cgroup.sh
# shellcheck source=scripts/swapguard.sh
. scripts/swapguard.sh

BUILD=${O:-build}
[[ $BUILD == /* ]] || BUILD=$PWD/$BUILD
PATH=$BUILD:$BUILD/tools:$PATH
SECONDS_MAX=300    # for the watchdog; the demo itself takes less than a minute
POOL=2G            # of the donor; memory is taken only as it is used
SWAP=1G
LIMIT=256M         # the memory that the workload may have
WORK=768M          # the memory that it uses
MEMORY_NEEDED=1600 # MiB available, for the swap part
STARTED=${EPOCHREALTIME/[.,]/}

# ---- the terminal ----------------------------------------------------------------------------------

BOLD='' DIM='' GREEN='' RED='' PLAIN=''
if [[ -t 1 && ${TERM:-dumb} != dumb ]]; then
	BOLD=$'\e[1m' DIM=$'\e[2m' GREEN=$'\e[32m' RED=$'\e[31m' PLAIN=$'\e[0m'
fi

title() {
	printf '\n%s%s%s\n' "$BOLD" "$*" "$PLAIN"
}

tell() {
	printf '  %s\n' "$*"
}

good() {
	printf '  %s✓%s %s\n' "$GREEN" "$PLAIN" "$*"
}

bad() {
	printf '  %s✗%s %s\n' "$RED" "$PLAIN" "$*"
}

# Long names of the demo's own directory stand for nothing to a reader.
shorten() {
	sed "s|$GUARD_DIR/|…/|g"
}

# show COMMAND…: prints the command, and what it prints; fails as it does.
show() {
	printf '  %s$ %s%s\n' "$DIM" "$*" "$PLAIN" | shorten
	"$@" 2>&1 | shorten | sed 's/^/    /'
}

# show_refused COMMAND…: the same for what must fail.
show_refused() {
	printf '  %s$ %s%s\n' "$DIM" "$*" "$PLAIN" | shorten
	if "$@" >"$GUARD_DIR/said" 2>&1; then
		broken "it succeeded, and should not have"
	fi
	shorten <"$GUARD_DIR/said" | sed 's/^/    /'
}

broken() {
	bad "$*" >&2
	exit 1
}

micros() {
	echo "${EPOCHREALTIME/[.,]/}"
}

# speed BYTES START: "1.2 GB/s in 0.08 s".
speed() {
	awk -v bytes="$1" -v us="$(($(micros) - $2))" 'BEGIN {
		mb = bytes / us
		printf mb < 1000 ? "%.0f MB/s" : "%.1f GB/s", mb < 1000 ? mb : mb / 1000
		printf " in %.2f s", us / 1e6
	}'
}

# ---- what this machine must have -------------------------------------------------------------------

MISSING=()
SWAP_DEVICE='' GROUP=''

# Without these there is nothing to show.
check_files() {
	need_root
	[[ -x $BUILD/remramd && -x $BUILD/remram && -x $BUILD/tools/memwork ]] ||
		die "$BUILD: remram is not built there: make all tools"
	[[ -c /dev/fuse ]] || modprobe fuse 2>/dev/null || true
	(: <>/dev/fuse) 2>/dev/null || {
		bad "/dev/fuse cannot be opened: this kernel or container has no FUSE, and a pool cannot be mounted"
		exit 2
	}
}

# Without these the swap part is left out.
check_swap() {
	local available
	available=$(awk '$1 == "MemAvailable:" { print int($2 / 1024) }' /proc/meminfo)
	[[ -c /dev/loop-control ]] || modprobe loop 2>/dev/null || true
	[[ -c /dev/loop-control ]] || MISSING+=("no loop devices (/dev/loop-control)")
	cgroup_available || MISSING+=("no memory control group, version 1 or 2, under $CGROUP_ROOT")
	[[ -e /proc/swaps ]] || MISSING+=("the kernel has no swap")
	((available >= MEMORY_NEEDED)) ||
		MISSING+=("$available MiB of memory are available, and $MEMORY_NEEDED are needed")
}

# ---- the parts -------------------------------------------------------------------------------------

start_donor() {
	local ready
	PORT=$(free_port)
	title "A donor offers $POOL of memory"
	mkfifo "$GUARD_DIR/ready"
	tell "${DIM}\$ remramd --pool 'ram=memory:?size=$POOL' --listen 127.0.0.1:$PORT$PLAIN"
	remramd --config /dev/null --state "$GUARD_DIR/state" --pool "ram=memory:?size=$POOL" \
		--listen "127.0.0.1:$PORT" --ready-fd 9 >"$GUARD_DIR/donor.log" 2>&1 9>"$GUARD_DIR/ready" &
	DONOR=$!
	guard_add pid "$DONOR"
	read -r -t 10 ready <"$GUARD_DIR/ready" || ready=nothing
	[[ $ready == ready ]] || broken "the donor did not start"
	good "it serves on port $PORT, and has taken $(donor_mib) MiB so far"
}

donor_mib() {
	awk '$1 == "VmRSS:" { print int($2 / 1024) }' "/proc/$DONOR/status"
}

# mount_pool [OPTION…]
mount_pool() {
	local start
	start=$(micros)
	guard_add mount "$DIR"
	show remram mount "127.0.0.1:$PORT:/ram" "$DIR" "$@"
	guard_add_mount "$DIR"
	good "mounted in $((($(micros) - start) / 1000)) ms"
}

unmount_pool() {
	show remram umount "$DIR"
	guard_drop mount "$DIR"
}

show_files() {
	title "A client mounts the pool: regions are files"
	mount_pool
	show truncate -s 512M "$DIR/work"
	show ls -lsh "$DIR"
	good "a region of 512 MiB that takes no memory yet"
	show chmod 400 "$DIR/work"
	show_refused dd if=/dev/zero of="$DIR/work" bs=4k count=1 conv=notrunc status=none
	good "a region without write bits: not even root can write it, the donor sees to that"
	show chmod 600 "$DIR/work"
	show df -h --output=source,size,used,avail,target "$DIR"
}

# The largest ordinary file of the system up to 200 MB, so that there is something to copy.
find_file() {
	find /usr/lib /usr/bin -xdev -type f -size -200M -printf '%s %p\n' 2>/dev/null | sort -n | tail -n 1
}

show_copies() {
	local size file start
	read -r size file < <(find_file)
	title "A file goes in and comes out the same"
	tell "the file: $file, $((size / 1000000)) MB"
	cat "$file" >/dev/null
	start=$(micros)
	show cp "$file" "$DIR/copy"
	good "in:  $(speed "$size" "$start")"
	show fileop --read "$DIR/copy" drop
	start=$(micros)
	show cp "$DIR/copy" "$GUARD_DIR/back"
	good "out: $(speed "$size" "$start")"
	show cmp "$file" "$GUARD_DIR/back"
	good "every byte is the same"
	rm "$GUARD_DIR/back"
	show rm "$DIR/copy"
}

show_mapping() {
	local start
	title "A region can be mapped like any file"
	start=$(micros)
	show fileop "$DIR/work" map 0 512M shared rw , map-write 0 512M 42 , map-sync , drop
	good "512 MiB written through a mapping and msync'ed: $(speed 536870912 "$start")"
	start=$(micros)
	show fileop --read "$DIR/work" map 0 512M shared r , map-verify 0 512M 42
	good "mapped again and verified: $(speed 536870912 "$start")"
	show rm "$DIR/work"
	unmount_pool
}

# memwork prints key=value lines as its phases end.
narrate() {
	local key value
	while IFS='=' read -r key value; do
		case $key in
		fill_mb_s) good "filled, most of it going out to the donor: $value MB/s" ;;
		seq_mb_s) good "read in order, every word checked: $value MB/s" ;;
		random_us) good "touched at random, every word checked: $value µs each" ;;
		rewrite_mb_s) good "a quarter rewritten, here and there: $value MB/s" ;;
		verify_mb_s) good "all read and checked again: $value MB/s" ;;
		wrong_words) good "wrong words: $value" ;;
		esac
	done
}

# Notes, while the workload runs, the most that was swapped out, and what the donor took then.
watch_swap() {
	local used most=0
	while sleep 0.2; do
		used=$(awk -v dev="$1" '$1 == dev { print $4 }' /proc/swaps)
		if ((${used:-0} > most)); then
			most=$used
			echo "$((most / 1024)) MiB were on the donor at the most, which then took $(donor_mib) MiB" \
				>"$GUARD_DIR/most"
		fi
	done
}

# One more than that of any other swap, so that the workload's pages come here.
priority() {
	awk 'NR > 1 && $5 + 1 > prio { prio = $5 + 1 } END { print (prio > 32767 ? 32767 : prio + 0) }' /proc/swaps
}

run_workload() {
	local code=0 watcher
	GROUP=$(cgroup_create "remram-demo-$$" "$LIMIT")
	guard_add cgroup "$GROUP"
	watch_swap "$1" &
	watcher=$!
	guard_add job "$watcher"
	printf '  %s$ memwork --size %s     (in a control group with %s of memory)%s\n' "$DIM" "$WORK" "$LIMIT" "$PLAIN"
	cgroup_run "$GROUP" memwork --size "$WORK" > >(narrate) || code=$?
	wait_until 2 process_gone $! || true
	kill "$watcher"
	wait "$watcher" 2>/dev/null || true
	guard_drop job "$watcher"
	[[ $code -eq 0 ]] || broken "the workload ended with exit code $code"
	good "$(<"$GUARD_DIR/most")"
	cgroup_remove "$GROUP"
	guard_drop cgroup "$GROUP"
}

show_swap() {
	title "A region becomes swap, and a program gets three times the memory that it may have"
	guard_lock_swap
	mount_pool -o "swap=swap0,size=$SWAP,prio=$(priority),discard"
	SWAP_DEVICE=$(awk -v dir="$DIR/" 'index($0, dir)' < <(losetup -l -n -O NAME,BACK-FILE) | awk '{ print $1 }')
	guard_is_swap "$SWAP_DEVICE" || broken "there is no swap on $DIR/swap0"
	guard_add swap "$SWAP_DEVICE"
	guard_add loop "$SWAP_DEVICE"
	show swapon --show=NAME,SIZE,USED,PRIO
	run_workload "$SWAP_DEVICE"
	show remram status "$DIR"
	unmount_pool
	guard_drop swap "$SWAP_DEVICE"
	guard_drop loop "$SWAP_DEVICE"
	! guard_is_swap "$SWAP_DEVICE" || broken "$SWAP_DEVICE is still swap"
	good "swap off, loop device detached, unmounted, in that order"
}

# ---- all of it -------------------------------------------------------------------------------------

# Any program of this machine may have pages on the donor by now: they are read back, or everything stays.
end_swap() {
	local try
	[[ -z $GROUP || ! -d $GROUP ]] || cgroup_kill "$GROUP"
	for try in 1 2 3 4 5; do
		[[ -n $SWAP_DEVICE ]] && guard_is_swap "$SWAP_DEVICE" || return 0
		[[ $try == 1 ]] || sleep 2
		remram umount "$DIR"
	done
	! guard_is_swap "$SWAP_DEVICE"
}

finish() {
	local code=$?
	set +e
	if ! guard_fired && ! end_swap; then
		bad "$SWAP_DEVICE cannot be switched off now. So that nothing is lost, it stays, with the mount at $DIR"
		bad "and the donor, process $DONOR. When there is memory again: $BUILD/remram umount $DIR; kill $DONOR"
		kill "$GUARD_WATCHDOG"
		exit 1
	fi
	if [[ $code -ne 0 && -s $GUARD_DIR/donor.log ]]; then
		bad "the donor's last words: $(tail -n 2 "$GUARD_DIR/donor.log")"
	fi
	guard_fired && bad "it took too long, and was ended" && code=1
	guard_cleanup || code=1
	[[ $code -ne 0 ]] ||
		printf '\n%sDone in %s s; nothing of it is left on this machine.%s\n' "$BOLD" \
			"$((($(micros) - STARTED) / 1000000))" "$PLAIN"
	exit "$code"
}

check_files
check_swap
trap 'exit 130' INT
trap 'exit 143' TERM
trap finish EXIT
guard_start "$SECONDS_MAX"
DIR=$GUARD_DIR/remote
mkdir "$DIR"
start_donor
show_files
show_copies
show_mapping
if [[ ${#MISSING[@]} -eq 0 ]]; then
	show_swap
else
	title "Swap cannot be shown on this machine"
	for reason in "${MISSING[@]}"; do
		bad "$reason"
	done
	exit 2
fi
