#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# How fast regions are over NBD, side by side with nbdkit's memory plugin and qemu-nbd (on a file in memory), in
# one run: fio's nbd engine and nbdcopy, over a Unix socket and TCP on loopback.  `make bench` calls it; alone:
#
#   [O=build] scripts/bench-nbd.sh [OUT]     prints a table, writes OUT/nbd.md and OUT/nbd.json (default $O/bench)
#
# Environment: BENCH_ROUNDS (default 3), BENCH_QUICK=1 (one round of one-second runs).
#
# As in bench.sh the contenders take turns, every export is filled with random bytes first, and the result is the
# median.  A server's first run after filling is not measured: on each of them it touches pages for the first time.
#
# Small requests are also measured with a server that has nothing in it (tests/tools/nbdbare.c): what is left to be
# gained where fio and the server together have all processors busy.
set -euo pipefail

cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
# shellcheck source=scripts/cgroup.sh
. scripts/cgroup.sh
# shellcheck source=scripts/swapguard.sh
. scripts/swapguard.sh

BUILD=${O:-build}
OUT=${1:-$BUILD/bench}
QUICK=${BENCH_QUICK:+1}
ROUNDS=${BENCH_ROUNDS:-${QUICK:-3}}
RUNTIME=$((QUICK ? 1 : 3))
SIZE=$((1 << 30))
CONTENDERS=(nbdkit qemu-nbd remram bare)
# Row: fio's rw, block size, depth, connections; or nbdcopy's direction.
ROWS=(randread-4k-32-1 randwrite-4k-32-1 randread-4k-32-4 randwrite-4k-32-4 read-1m-8-1 write-1m-8-1 copy-out copy-in)
declare -A URI

tcp_answers() {
	(exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# start NAME COMMAND…: a server; one for each transport, where one cannot have both.
start() {
	"${@:2}" 2>>"$GUARD_DIR/$1.log" &
	guard_add pid $!
}

start_nbdkit() {
	local port
	port=$(free_port)
	start nbdkit nbdkit --foreground --unix "$GUARD_DIR/nbdkit" memory "$SIZE"
	start nbdkit nbdkit --foreground --ipaddr 127.0.0.1 --port "$port" memory "$SIZE"
	URI[nbdkit-unix]="nbd+unix:///?socket=$GUARD_DIR/nbdkit"
	URI[nbdkit-tcp]="nbd://127.0.0.1:$port/"
	wait_until 10 tcp_answers "$port" || die "nbdkit does not listen"
}

start_qemu-nbd() {
	local port transport
	port=$(free_port)
	for transport in unix tcp; do
		truncate -s "$SIZE" "$MEMORY/$transport"
	done
	start qemu-nbd qemu-nbd -t -f raw -e 16 -k "$GUARD_DIR/qemu-nbd" "$MEMORY/unix"
	start qemu-nbd qemu-nbd -t -f raw -e 16 -b 127.0.0.1 -p "$port" "$MEMORY/tcp"
	URI[qemu-nbd-unix]="nbd+unix:///?socket=$GUARD_DIR/qemu-nbd"
	URI[qemu-nbd-tcp]="nbd://127.0.0.1:$port/"
	wait_until 10 tcp_answers "$port" || die "qemu-nbd does not listen"
}

start_remram() {
	local port
	port=$(free_port)
	start remram "$BUILD/remram" export "memory:?size=$SIZE" --nbd "unix:$GUARD_DIR/remram" --nbd "127.0.0.1:$port"
	URI[remram-unix]="nbd+unix:///?socket=$GUARD_DIR/remram"
	URI[remram-tcp]="nbd://127.0.0.1:$port/"
	wait_until 10 tcp_answers "$port" || die "remram export does not listen"
}

start_bare() {
	local port
	port=$(free_port)
	start bare "$BUILD/tools/nbdbare" "unix:$GUARD_DIR/bare" "$SIZE"
	start bare "$BUILD/tools/nbdbare" "127.0.0.1:$port" "$SIZE"
	URI[bare-unix]="nbd+unix:///?socket=$GUARD_DIR/bare"
	URI[bare-tcp]="nbd://127.0.0.1:$port/"
	wait_until 10 tcp_answers "$port" || die "nbdbare does not listen"
}

# sample ROW TRANSPORT CONTENDER VALUE [FIO_US]
sample() {
	jq -cn --arg row "$1" --arg transport "$2" --arg contender "$3" --argjson value "$4" --argjson fio_us "${5:-null}" \
		'{$row, $transport, $contender, $value, $fio_us}' >>"$GUARD_DIR/samples"
	say "    $1 $2 $3: $4"
}

# fio_run URI RW BS DEPTH JOBS: prints thousands a second, or MB/s for large blocks; and the processor time that fio
# itself has taken for a request, in microseconds.
fio_run() {
	local json=$GUARD_DIR/fio.json
	fio --name=nbd --ioengine=nbd --uri="$1" --rw="$2" --bs="$3" --iodepth="$4" --numjobs="$5" --thread --group_reporting \
		--size="$SIZE" --time_based --runtime="$RUNTIME" --norandommap --randrepeat=0 --output-format=json \
		--output="$json" </dev/null >/dev/null || die "fio has failed on $1"
	# What the engine says of its connections comes first.
	sed -n '/^{/,$p' "$json" | jq -r --arg bs "$3" '.jobs[0] | . as $job | (if .read.total_ios > 0 then .read else .write end) |
		"\(if $bs == "4k" then .iops / 1000 else .bw_bytes / 1e6 end) \(
			($job.usr_cpu + $job.sys_cpu) / 100 * $job.job_runtime * 1000 / .total_ios)"'
}

# copy_ms FROM TO
copy_ms() {
	local start_us=${EPOCHREALTIME/[.,]/}
	nbdcopy "$1" "$2"
	jq -n "(${EPOCHREALTIME/[.,]/} - $start_us) / 1000"
}

measure() {
	local row=$1 transport=$2 contender=$3 uri=${URI[$3-$2]} rw bs depth jobs value
	[[ $contender != bare || $row == *-4k-* ]] || return 0
	case $row in
	copy-out) sample "$row" "$transport" "$contender" "$(copy_ms "$uri" null:)" ;;
	copy-in)
		sample "$row" "$transport" "$contender" "$(copy_ms "$GUARD_DIR/image" "$uri")"
		;;
	*)
		IFS=- read -r rw bs depth jobs <<<"$row"
		value=$(fio_run "$uri" "$rw" "$bs" "$depth" "$jobs")
		sample "$row" "$transport" "$contender" "${value% *}" "${value#* }"
		;;
	esac
}

# The table; targets are ratios to nbdkit.  `most`: the ratio of a server that took no time at all, as fio has one
# thread for a connection and no more processors than there are.
report() {
	jq -s --argjson rows "$(printf '%s\n' "${ROWS[@]}" | jq -R . | jq -s .)" --argjson cpus "$(nproc)" '
		def median: map(values) | sort | if length == 0 then null elif length % 2 == 1 then .[length / 2 | floor]
			else (.[length / 2 - 1] + .[length / 2]) / 2 end;
		. as $all | [$rows[] as $row | ("unix", "tcp") as $transport
			| {$row, $transport, results: ([("nbdkit", "qemu-nbd", "remram", "bare") as $c | {key: $c, value: ([$all[]
				| select(.row == $row and .transport == $transport and .contender == $c).value] | median)}] | from_entries)}
			| . + {ratio: (.results.remram / .results.nbdkit), fio_us: ([$all[] | select(.row == $row
				and .transport == $transport and .contender == "remram").fio_us] | median)}
			| . + {most: (if $row | test("4k") then ([($row | split("-")[3] | tonumber), $cpus] | min) * 1000 / .fio_us
				/ .results.nbdkit else null end),
				target: (if $row | test("^copy") then {op: "<=", value: 0.9} elif $row | test("1m") then {op: ">=", value: 1.1}
					elif $row | test("-1$") then {op: ">=", value: 1.5} else {op: ">=", value: 2} end)}
			| . + {reached: (if .target.op == "<=" then .ratio <= .target.value else .ratio >= .target.value end)}]' \
		"$GUARD_DIR/samples" >"$OUT/nbd.json"
	jq -r 'def figure: if . == null then "-" elif . >= 100 then round else . * 100 | round / 100 end;
		def unit: if test("^copy") then "ms per GiB" elif test("1m") then "MB/s" else "k/s" end;
		def title: {"randread-4k-32-1": "4 KiB random read, 32 in flight, 1 connection", "randwrite-4k-32-1": "4 KiB random write, 32 in flight, 1 connection",
			"randread-4k-32-4": "the same read, 4 connections", "randwrite-4k-32-4": "the same write, 4 connections",
			"read-1m-8-1": "1 MiB sequential read, 8 in flight", "write-1m-8-1": "1 MiB sequential write, 8 in flight",
			"copy-out": "nbdcopy 1 GiB out", "copy-in": "nbdcopy 1 GiB in"}[.];
		"| work | socket | unit | nbdkit | qemu-nbd | remram | bare server | remram : nbdkit | at most | target | reached |",
		"|---|---|---|---|---|---|---|---|---|---|---|",
		(.[] | "| \(.row | title) | \(.transport) | \(.row | unit) | \(.results.nbdkit | figure) | \(.results["qemu-nbd"] | figure) | \(.results.remram | figure) | \(.results.bare | figure) | \(.ratio | figure) | \(.most | figure) | \(if .target.op == "<=" then "≤" else "≥" end) \(.target.value) | \(if .reached then "yes" else "no" end) |")' \
		"$OUT/nbd.json" >"$OUT/nbd.md"
	cat "$OUT/nbd.md"
}

main() {
	local name transport row round i
	[[ -x $BUILD/remram && -x $BUILD/tools/nbdbare ]] || make -s -j2 "O=$BUILD" all tools >&2
	mkdir -p "$OUT"
	guard_start $((300 + ROUNDS * 400))
	trap guard_cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	: >"$GUARD_DIR/samples"
	MEMORY=$GUARD_DIR/memory
	mkdir "$MEMORY"
	mount -t tmpfs -o "size=$((2 * SIZE + (64 << 20)))" none "$MEMORY"
	guard_add mount "$MEMORY"
	head -c "$SIZE" /dev/urandom >"$GUARD_DIR/image"
	for name in "${CONTENDERS[@]}"; do
		"start_$name"
		for transport in unix tcp; do
			nbdcopy "$GUARD_DIR/image" "${URI[$name-$transport]}"
			fio_run "${URI[$name-$transport]}" randwrite 4k 32 1 >/dev/null
		done
	done
	for ((round = 0; round < ROUNDS; round++)); do
		say "round $((round + 1)) of $ROUNDS"
		for row in "${ROWS[@]}"; do
			for transport in unix tcp; do
				for ((i = 0; i < ${#CONTENDERS[@]}; i++)); do
					measure "$row" "$transport" "${CONTENDERS[(i + round) % ${#CONTENDERS[@]}]}"
				done
			done
		done
	done
	! guard_fired || die "the run took too long and was ended"
	report
}

main
