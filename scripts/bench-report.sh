#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# bench-report.sh SAMPLES ENVIRONMENT OUT: the samples of a benchmark run (see lib-measure.sh; the sweep
# over round trip times is the file "rtt" next to them) become OUT/results.json, OUT/results.md, plots in
# OUT, and a table on stdout.  If OUT/../BENCHMARKS.md has a place for them, the results go there as well.
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
		"load before \(.load); \(.settings.rounds) rounds, \(.settings.seconds) s each, \(.settings.size / 1048576) MiB"' \
		"$out/results.json"
}

# The plots that there are, as Markdown images; the directory before their names is $1.
plots() {
	local name
	for name in throughput latency rtt-buffered rtt-randread; do
		[[ ! -e $out/$name.svg ]] || printf '\n![%s](%s%s.svg)\n' "$name" "$1" "$name"
	done
}

# Plots of an earlier run are not of these results.
rm -f "$out"/{throughput,latency,rtt-buffered,rtt-randread}.{svg,png}
"$scripts/bench-plot.sh" "$out"

{
	setting
	echo
	table '(.[0] | "| " + join(" | ") + " |"), (.[0] | "|" + (map("---|") | join(""))),
		(.[1:][] | "| " + join(" | ") + " |")'
} >"$out/table.md"
{
	echo "<!-- Written by scripts/bench.sh; do not edit. -->"
	cat "$out/table.md"
	plots ""
} >"$out/results.md"

document=$out/../BENCHMARKS.md
if [[ -e $document ]] && grep -q '^<!-- results -->$' "$document"; then
	{
		sed '/^<!-- results -->$/q' "$document"
		cat "$out/table.md"
		plots "${out##*/}/"
		sed -n '/^<!-- end of results -->$/,$p' "$document"
	} >"$out/document.md"
	mv "$out/document.md" "$document"
fi
rm "$out/table.md"

setting
echo
# Column widths in characters, which not every column(1) counts right.
# shellcheck disable=SC2016
table '(transpose | map(map(length) | max)) as $width
	| .[] | [range(0; length) as $i | .[$i] + " " * ($width[$i] - (.[$i] | length))] | join("  ")' |
	sed 's/ *$//'
