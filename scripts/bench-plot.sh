#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# bench-plot.sh OUT: draws OUT/results.json as SVG and PNG, one plot for each kind of row that it has:
# throughput (relative to nbdfuse, higher is better), latency (relative, lower is better), and rtt-*.
set -euo pipefail

scripts=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$scripts/lib.sh"

[[ $# -eq 1 ]] || die "usage: bench-plot.sh OUT"
out=$1
need_commands jq gnuplot
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT

# relative BETTER ID…: a line per row: label, ratio to nbdfuse of each contender ("-" if there is none),
# and the target; rows without nbdfuse are left out.
relative() {
	jq -r --arg better "$1" --arg ids "${*:2}" '
		($ids | split(" ")) as $ids
		| .rows[]
		| select(.better == $better and (.id | IN($ids[])) and .results.nbdfuse.ratio != null)
		| . as $row
		| ["\"" + (.short | gsub("\n"; "\\n")) + "\""]
		  + [("tmpfs", "nbdfuse", "qsd", "remram") | $row.results[.].ratio // "-"]
		  + [([.targets[] | select(.to == "nbdfuse") | .value] | first) // "-"]
		| join("\t")' "$out/results.json"
}

# by_rtt FIELD: a line per round trip time at which it was measured: rtt, median value of each contender.
by_rtt() {
	jq -r --arg field "$1" '
		[.rtt[] | select(has($field))] | group_by(.rtt_ms)[]
		| . as $points
		| [.[0].rtt_ms]
		  + [("nbdfuse", "qsd", "remram", "managed") | . as $c
		     | [$points[] | select(.contender == $c) | .[$field]] | sort | .[length / 2 | floor] // "-"]
		| join("\t")' "$out/results.json"
}

# A contender that is not in the data is a column without points, which gnuplot warns of.
#
# draw NAME KIND TITLE [higher|lower]: plots $data/NAME with bench.gp, if there is anything in it.
draw() {
	local terminal
	[[ -s $data/$1 ]] || return 0
	for terminal in svg png; do
		gnuplot -e "data='$data/$1'; kind='$2'; heading='$3'; better='${4-}'; format='$terminal'; target='$out/$1.$terminal'" \
			"$scripts/bench.gp" 2> >(grep -v 'no valid points' >&2)
	done
}

relative higher randread_qd32_kiops randwrite_qd32_kiops seqread_mb_s seqwrite_mb_s buffered_mb_s \
	mmap_mb_s swap_fill_mb_s swap_seq_mb_s >"$data/throughput"
relative lower randread_qd1_us swap_random_us mount_ms randread_cpu_us randwrite_cpu_us >"$data/latency"
by_rtt buffered_mb_s >"$data/rtt-buffered"
by_rtt randread_kiops >"$data/rtt-randread"
by_rtt cold_mb_s >"$data/rtt-cold"
by_rtt written_mb_s >"$data/rtt-written"

draw throughput bars "Throughput relative to nbdfuse (higher is better)" higher
draw latency bars "Time relative to nbdfuse (lower is better)" lower
draw rtt-buffered lines "Buffered sequential read, MB/s, by round trip time"
draw rtt-randread lines "4 KiB random reads, 256 in flight, thousands per second, by round trip time"
draw rtt-cold lines "Cold sequential read, MB/s, by round trip time"
draw rtt-written lines "Sequential write until fsync returns, MB/s, by round trip time"
