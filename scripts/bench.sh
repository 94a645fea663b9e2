#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# make bench: remram side by side with its peers, in one run.  Prints a table with ratios and targets, and
# writes results.json, results.md and plots.  docs/BENCHMARKS.md says what the rows mean.
#
# Environment:
#   O=DIR              the build directory (default build); built if need be
#   BENCH_ONLY=LIST    only these measurements (randread1 randread32 randwrite32 seqread seqwrite buffered
#                      mmap swap mount idle rss rtt managed nbd), separated by spaces or commas
#   BENCH_CONTENDERS=LIST   default: tmpfs nbdfuse qsd remram nbd
#   BENCH_ROUNDS=N     rounds over all measurements (default 3)
#   BENCH_QUICK=1      one round of one-second runs: for a first look
#   BENCH_OUT=DIR      where results go: default docs/bench for a full run, $O/bench for any other
#
# The contenders take turns within each measurement of each round, and each round begins with another of
# them, so that a machine that is slow for a while is slow for all; the result is the median.
#
# Everything is undone at the end, however it ends (scripts/swapguard.sh).
set -euo pipefail

cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
# shellcheck source=scripts/cgroup.sh
. scripts/cgroup.sh
# shellcheck source=scripts/swapguard.sh
. scripts/swapguard.sh
# shellcheck source=scripts/deps.sh
. scripts/deps.sh
# shellcheck source=scripts/lib-contenders.sh
. scripts/lib-contenders.sh
# shellcheck source=scripts/lib-measure.sh
. scripts/lib-measure.sh
# shellcheck source=scripts/bench-rtt.sh
. scripts/bench-rtt.sh

MEASURES_ALL=(randread1 randread32 randwrite32 seqread seqwrite buffered mmap swap mount idle rss rtt managed nbd)
CONTENDERS_ALL=(tmpfs nbdfuse qsd remram nbd)
BUILD=${O:-build}
TOOLS=$BUILD/tools
QUICK=${BENCH_QUICK:+1}
ROUNDS=${BENCH_ROUNDS:-${QUICK:-3}}
SIZE=$((1 << 30))
SECONDS_EACH=3
TOUCHES=20000
MOUNTS=$(((10 + ROUNDS - 1) / ROUNDS))
if [[ $QUICK ]]; then
	SECONDS_EACH=1
	MOUNTS=3
fi
# The watchdog: several times what a run has been seen to take, and the wait for another test's swap.
TIME_LIMIT=$((2100 + ROUNDS * 1050))

# choose NAME LIST ALLOWED…: prints the words of LIST (all that are allowed if it is empty).
choose() {
	local name=$1 list=${2//,/ } word
	shift 2
	[[ -n $list ]] || list=$*
	for word in $list; do
		[[ " $* " == *" $word "* ]] || die "$name: $word: unknown (there are: $*)"
		echo "$word"
	done
}

build() {
	local targets=("$TOOLS/memwork" "$TOOLS/fileop" "$TOOLS/proxy" "$TOOLS/ask")
	if [[ " ${CONTENDERS[*]} " == *" remram "* || " ${CONTENDERS[*]} " == *" nbd "* ]]; then
		targets+=("$BUILD/remramd" "$BUILD/remram")
	fi
	make -s -j2 "O=$BUILD" "${targets[@]}" >&2 || die "the build has failed"
}

check_machine() {
	local need_kib=$(((${#CONTENDERS[@]} * 2 + 2) * SIZE / 1024)) available_kib
	# Managed regions: what is written, its image, memory: and the copies.
	[[ " ${MEASURES[*]} " != *" managed "* ]] || need_kib=$((need_kib + 5 * SIZE / 1024))
	available_kib=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)
	((available_kib > need_kib)) ||
		die "needs $((need_kib / 1024)) MiB of free memory, there are $((available_kib / 1024))"
	[[ -c /dev/fuse ]] || modprobe fuse 2>/dev/null || die "there is no /dev/fuse"
	if [[ " ${MEASURES[*]} " == *" swap "* ]]; then
		cgroup_available || die "no memory control group: leave swap out with BENCH_ONLY"
	fi
	LOAD=$(cut -d' ' -f1 /proc/loadavg)
	if ((${LOAD%.*} > 0)); then
		say "bench: the machine is busy (load $LOAD): the figures will be noisy"
	fi
}

# Fills the file with random data, flushes, and reads all of it back: from here on each contender is known
# to hold real bytes, and the right ones.
fill() {
	local file=${FILE[$1]} direct=--direct
	[[ $1 != tmpfs ]] || direct=--bs=1M
	"$TOOLS/fileop" "$direct" "$file" write 0 "$SIZE" 1 , fsync || die "$1: cannot be filled"
	"$TOOLS/fileop" "$direct" "$file" verify 0 "$SIZE" 1 || die "$1: returns wrong data"
}

start_contenders() {
	local name
	for name in "${CONTENDERS[@]}"; do
		say "  $name"
		"contender_start_$name"
		fill "$name"
	done
}

run_rounds() {
	local round measure i count=${#CONTENDERS[@]}
	for ((round = 0; round < ROUNDS; round++)); do
		say "round $((round + 1)) of $ROUNDS"
		for measure in "${MEASURES[@]}"; do
			[[ $measure != rtt && $measure != managed && $measure != nbd ]] || continue
			say "  $measure"
			for ((i = 0; i < count; i++)); do
				"measure_$measure" "${CONTENDERS[(i + round) % count]}"
			done
		done
	done
}

# environment: what the figures depend on, as JSON.
environment() {
	jq -n \
		--arg date "$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
		--arg kernel "$(uname -sr)" \
		--arg cpu "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" \
		--argjson cpus "$(nproc)" \
		--argjson memory_mib "$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)" \
		--arg distribution "$(. /etc/os-release && echo "$PRETTY_NAME")" \
		--arg remram "$([[ ! -x $BUILD/remram ]] || "$BUILD/remram" --version 2>/dev/null | head -n 1)" \
		--arg commit "$(git describe --always --dirty 2>/dev/null || true)" \
		--arg nbdkit "$(nbdkit --version | head -n 1)" \
		--arg nbdfuse "$(nbdfuse --version | head -n 1)" \
		--arg qsd "$(qemu-storage-daemon --version | head -n 1 | cut -d'(' -f1 | sed 's/ $//')" \
		--arg fio "$(fio --version)" \
		--argjson load "$LOAD" \
		--argjson rounds "$ROUNDS" --argjson seconds "$SECONDS_EACH" --argjson size "$SIZE" \
		'{$date, $kernel, $cpu, $cpus, $memory_mib, $distribution, $load, $remram, $commit,
		  peers: {$nbdkit, $nbdfuse, $qsd, $fio}, settings: {$rounds, $seconds, $size}}'
}

main() {
	local list full=''
	list=$(choose BENCH_ONLY "${BENCH_ONLY-}" "${MEASURES_ALL[@]}")
	mapfile -t MEASURES <<<"$list"
	# Managed regions have no other peers.
	[[ ${MEASURES[*]} != managed ]] || CONTENDERS_ALL=(nbdfuse remram)
	list=$(choose BENCH_CONTENDERS "${BENCH_CONTENDERS-}" "${CONTENDERS_ALL[@]}")
	mapfile -t CONTENDERS <<<"$list"
	[[ -n ${BENCH_ONLY-}${BENCH_CONTENDERS-}$QUICK ]] || full=1
	OUT=${BENCH_OUT:-$([[ $full ]] && echo docs/bench || echo "$BUILD/bench")}

	need_root
	deps_install build bench
	build
	if [[ ${MEASURES[*]} == nbd ]]; then
		O=$BUILD exec scripts/bench-nbd.sh "$OUT"
	fi
	check_machine
	mkdir -p "$OUT"
	guard_start "$TIME_LIMIT"
	trap guard_cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	RAW=$GUARD_DIR/samples
	: >"$RAW"
	[[ " ${MEASURES[*]} " != *" swap "* ]] || guard_lock_swap

	say "starting and filling"
	start_contenders
	run_rounds
	if [[ " ${MEASURES[*]} " == *" rtt "* ]]; then
		say "round trip times"
		rtt_sweep
	fi
	if [[ " ${MEASURES[*]} " == *" managed "* ]]; then
		# shellcheck source=scripts/bench-managed.sh
		. scripts/bench-managed.sh
		say "managed regions"
		managed_sweep
	fi
	! guard_fired || die "the run took too long and was ended"
	environment >"$GUARD_DIR/environment.json"
	scripts/bench-report.sh "$RAW" "$GUARD_DIR/environment.json" "$OUT"
	if [[ " ${MEASURES[*]} " == *" nbd "* ]]; then
		say "NBD"
		O=$BUILD BENCH_ROUNDS=$ROUNDS scripts/bench-nbd.sh "$OUT"
	fi
	say "written to $OUT: results.json, results.md, plots"
}

main "$@"
