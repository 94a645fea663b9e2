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

# table GROUP FILTER: the table of a group of rows (null: those of none) through the filter, if it has rows.
table() {
	jq -r --argjson group "$1" "[$(<"$scripts/bench-table.jq")][0] | select(. != null) | $2" "$out/results.json"
}

markdown_table() {
	table "$1" '(.[0] | "| " + join(" | ") + " |"), (.[0] | "|" + (map("---|") | join(""))),
		(.[1:][] | "| " + join(" | ") + " |"), ""'
}

# Column widths in characters, which not every column(1) counts right.
text_table() {
	# shellcheck disable=SC2016
	table "$1" '(transpose | map(map(length) | max)) as $width
		| (.[] | [range(0; length) as $i | .[$i] + " " * ($width[$i] - (.[$i] | length))] | join("  ")), ""' |
		sed 's/ *$//'
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
	for name in throughput latency rtt-buffered rtt-randread rtt-cold rtt-written; do
		[[ ! -e $out/$name.svg ]] || printf '![%s](%s%s.svg)\n\n' "$name" "$1" "$name"
	done
}

# Plots of an earlier run are not of these results.
rm -f "$out"/{throughput,latency,rtt-buffered,rtt-randread,rtt-cold,rtt-written}.{svg,png}
"$scripts/bench-plot.sh" "$out"

{
	setting
	echo
	markdown_table null
	markdown_table '"managed"'
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
text_table null
text_table '"managed"'
