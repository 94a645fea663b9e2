# SPDX-License-Identifier: Apache-2.0
#
# Draws one plot of the benchmark; called by bench-plot.sh with data, kind, heading, better, format and target
# set.  kind "bars": columns label, tmpfs, nbdfuse, qsd, remram, target.  kind "lines": rtt, nbdfuse, qsd, remram,
# managed.

if (format eq "svg") {
	set terminal svg size 1000,520 dynamic font "sans-serif,13" background "white"
} else {
	set terminal pngcairo size 1000,520 font "sans,11" background "white"
}
set output target
set title heading
set datafile separator "\t"
set datafile missing "-"
set grid ytics lc rgb "#dddddd"
set key outside top center horizontal
set border 3
set tics nomirror

if (kind eq "bars") {
	set style data histograms
	set style histogram clustered gap 1.5
	set style fill solid 0.9 noborder
	set format y "%g×"
	if (better eq "higher") {
		set logscale y 2
	} else {
		set yrange [0:*]
	}
	set xtics scale 0
	set bmargin 3.5
	plot data using 2:xtic(1) title "tmpfs (no network)" lc rgb "#bbbbbb", \
	     "" using 3 title "nbdfuse" lc rgb "#7a9cc6", \
	     "" using 4 title "qemu-storage-daemon" lc rgb "#c9a86a", \
	     "" using 5 title "remram" lc rgb "#3a7d44", \
	     "" using ($0 + 0.273):6:(0.1) with xerrorbars title "target" lc rgb "#cc3311" lw 2 pt 0
} else {
	set xlabel "round trip time, ms"
	set logscale y 10
	plot data using 1:2 with linespoints title "nbdfuse" lw 2 pt 7 lc rgb "#7a9cc6", \
	     "" using 1:3 with linespoints title "qemu-storage-daemon" lw 2 pt 7 lc rgb "#c9a86a", \
	     "" using 1:4 with linespoints title "remram" lw 2 pt 7 lc rgb "#3a7d44", \
	     "" using 1:5 with linespoints title "remram, cache=memory" lw 2 pt 5 lc rgb "#cc3311"
}
