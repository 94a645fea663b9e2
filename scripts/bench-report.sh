#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# bench-report.sh SAMPLES ENVIRONMENT OUT: the samples of a benchmark run (see lib-measure.sh; the sweep
# over round trip times is the file "rtt" next to them) become OUT/results.json, OUT/results.md, plots in
# OUT, and a table on stdout.
set -euo pipefail

scripts=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$scripts/lib.sh"

[[ $# -eq 3 ]] || die "usage: bench-report.sh SAMPLES ENVIRONMENT OUT"
samples=$1 environment=$2 out=$3
rtt=${samples%/*}/rtt
[[ -e $rtt ]] || rtt=/dev/null

jq -s --slurpfile rows "$scripts/bench-rows.json" --slurpfile rtt "$rtt" \
	--slurpfile environment "$environment" \
	'$rows[0] as $rows | $environment[0] as $environment |'"$(<"$scripts/bench-report.jq")" \
	"$samples" >"$out/results.json"

table() {
	jq -r "[$(<"$scripts/bench-table.jq")][0] | $1" "$out/results.json"
}

# A line that says on what, when and how the figures were measured.
setting() {
	jq -r '.environment | "\(.date[0:10]), \(.cpus) CPUs (\(.cpu)), \(.memory_mib) MiB, \(.kernel), " +
		"\(.distribution); \(.peers.nbdfuse), \(.peers.nbdkit), \(.peers.qsd), \(.peers.fio); " +
		"\(.remram)\(if .remram == "" then "" else ", " end)commit \(.commit); " +
		"\(.settings.rounds) rounds, \(.settings.seconds) s each, \(.settings.size / 1048576) MiB"' \
		"$out/results.json"
}

{
	echo "<!-- Written by scripts/bench.sh; do not edit. -->"
	echo
	setting
	echo
	table '(.[0] | "| " + join(" | ") + " |"), (.[0] | "|" + (map("---|") | join(""))),
		(.[1:][] | "| " + join(" | ") + " |")'
} >"$out/results.md"

"$scripts/bench-plot.sh" "$out"

setting
echo
# Column widths in characters, which not every column(1) counts right.
# shellcheck disable=SC2016
table '(transpose | map(map(length) | max)) as $width
	| .[] | [range(0; length) as $i | .[$i] + " " * ($width[$i] - (.[$i] | length))] | join("  ")' |
	sed 's/ *$//'
