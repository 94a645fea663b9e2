# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# The benchmark's sweep over round trip times: each network contender is mounted once more, through a proxy
# that delays both directions, and read in two ways.  To be sourced by bench.sh.
#
# Appends to $GUARD_DIR/rtt, a JSON object a line: {"rtt_ms", "contender", "buffered_mb_s",
# "randread_kiops"}.

declare -gA FILE PORT # filled by lib-contenders.sh
RTT_MS=(0 0.5 1 2 5 10 25)

# The proxy delays both directions by half of the round trip.
rtt_set() {
	"$TOOLS/ask" "$GUARD_DIR/proxy.$1" delay "$(jq -n "$2 / 2")" >/dev/null
}

# rtt_proxy NAME DONOR_PORT: a proxy before the donor; sets PORT[NAME] to its port, and RTT_PROXY.
rtt_proxy() {
	local port
	port=$(free_port)
	"$TOOLS/proxy" --listen "127.0.0.1:$port" --target "127.0.0.1:$2" \
		--control "$GUARD_DIR/proxy.$1" 2>>"$GUARD_DIR/proxy.log" &
	RTT_PROXY=$!
	guard_add pid "$RTT_PROXY"
	wait_until 10 tcp_answers "$port" || die "the proxy does not listen"
	PORT[$1]=$port
}

# rtt_connect NAME: a proxy before the donor, and a mount through it; sets FILE[NAME] to the file there.
rtt_connect() {
	local dir=$GUARD_DIR/rtt-$1
	rtt_proxy "$1" "${PORT[$1]}"
	mkdir -p "$dir"
	guard_add mount "$dir"
	"contender_mount_$1" "$dir" || die "$1 does not mount through the proxy"
	FILE[$1]=$dir/${FILE[$1]##*/}
}

rtt_disconnect() {
	rtt_set "$1" 0
	"contender_unmount_$1" "$GUARD_DIR/rtt-$1"
	guard_drop mount "$GUARD_DIR/rtt-$1"
	end_process "$RTT_PROXY"
	wait "$RTT_PROXY" 2>/dev/null || true
	guard_drop pid "$RTT_PROXY"
}

# rtt_fio NAME ARG…: a run of at most two seconds.
rtt_fio() {
	local file=${FILE[$1]}
	shift
	fio --name=rtt --filename="$file" --size="$SIZE" --runtime=2 --norandommap --randrepeat=0 \
		--output-format=json "$@" </dev/null
}

# rtt_measure NAME RTT: reading in order through the page cache, as cp does, and 256 random reads at once.
rtt_measure() {
	local buffered random
	rtt_set "$1" "$2"
	drop_caches "${FILE[$1]}"
	# Once: what has been read before is in the page cache.
	buffered=$(fio_value "$(rtt_fio "$1" --rw=read --bs=1M --ioengine=psync)" '.bw_bytes / 1e6')
	random=$(fio_value "$(rtt_fio "$1" --time_based --rw=randread --bs=4k --iodepth=256 --ioengine=libaio --direct=1)" \
		'.iops / 1000')
	jq -cn --arg contender "$1" --argjson rtt_ms "$2" --argjson buffered_mb_s "$buffered" \
		--argjson randread_kiops "$random" \
		'{$rtt_ms, $contender, $buffered_mb_s, $randread_kiops}' >>"$GUARD_DIR/rtt"
	say "    rtt $2 ms, $1: $buffered MB/s, $random k/s"
}

rtt_sweep() {
	local name rtt file port
	for name in "${CONTENDERS[@]}"; do
		[[ $name != tmpfs ]] || continue
		file=${FILE[$name]} port=${PORT[$name]}
		rtt_connect "$name"
		for rtt in "${RTT_MS[@]}"; do
			rtt_measure "$name" "$rtt"
		done
		rtt_disconnect "$name"
		FILE[$name]=$file PORT[$name]=$port
	done
}
