# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# The benchmark's rows for managed regions (-o cache=memory).  To be sourced by bench.sh after bench-rtt.sh;
# the donors of the contenders "remram" and "nbdfuse" run, and their files are filled.
#
#   managed    a mount of remram's donor with cache=memory, through a proxy that plays the round trip; where that is 0 ms,
#              without a proxy
#   local      `remram mount memory:?size=…`: a FUSE file answered from the same loop's memory, no network
#   remram, nbdfuse   without a cache, through a proxy like that one: beside it, at the same round trips
#
# Each sample of a cold read has a mount of its own, so nothing of an earlier one helps it.  A region that is
# written to is not the one that is read.  Rows are those of bench-rows.json with "group": "managed"; what is
# measured at several round trips is appended to $GUARD_DIR/rtt as well (see bench-rtt.sh): "cold_mb_s" and
# "written_mb_s".

declare -gA FILE PORT # filled by lib-contenders.sh
MANAGED_RTT_MS=(0 1 5 10 25)
[[ ! $QUICK ]] || MANAGED_RTT_MS=(0 1 10 25)
MANAGED_AT=10 # ms, where a row names no other
MANAGED_CHUNK=$((256 << 10)) # bytes: the chunk of core/cache.h
MANAGED_UNBOUND=max_dirty=$((2 * SIZE)),push_interval=60s # nothing is pushed while a second of writes lasts
MANAGED_HOT=$((64 << 20)) # bytes at the region's begin that are resident while the rest is pulled
# shellcheck disable=SC2153 # SIZE is bench.sh's
MANAGED_LATE=$((SIZE * 7 / 8)) # where a pull in order comes last

managed_start_local() {
	local dir=$GUARD_DIR/local
	mkdir "$dir"
	"$BUILD/remram" mount "memory:?size=$SIZE" "$dir" || die "remram does not mount memory"
	guard_add_mount "$dir"
	FILE[local]=$dir/memory
	fill local
}

# managed_mount_now RTT [OPTIONS]
managed_mount_now() {
	local port=${PORT[managed]}
	[[ $1 != 0 ]] || port=${PORT[remram]}
	"$BUILD/remram" "127.0.0.1:$port:/ram" "$GUARD_DIR/managed" -o "cache=memory${2:+,$2}" ||
		die "remram does not mount with a cache"
}

# managed_mount RTT [OPTIONS]: FILE[managed] is what was filled before, FILE[written] is for writing.
managed_mount() {
	rtt_set managed "$1"
	guard_add mount "$GUARD_DIR/managed"
	managed_mount_now "$1" "${2-}"
}

# Waits until what is dirty has been pushed and the daemon is gone; no need to wait for each round trip.
managed_umount() {
	rtt_set managed 0
	wait_until 10 "$BUILD/remram" umount "$GUARD_DIR/managed" || die "the managed mount stays"
	guard_drop mount "$GUARD_DIR/managed"
}

# managed_rtt CONTENDER RTT FIELD VALUE: for the plots.
managed_rtt() {
	jq -cn --arg contender "$1" --argjson rtt_ms "$2" --arg field "$3" --argjson value "$4" \
		'{$rtt_ms, $contender, ($field): $value}' >>"$GUARD_DIR/rtt"
}

managed_resident() {
	getfattr --absolute-names --only-values -n user.remram.resident "$1"
}

managed_resident_is() {
	(($(managed_resident "$1") >= $2))
}

# managed_fio CONTENDER ARG…: direct I/O of 4 KiB; prints fio's JSON.
managed_fio() {
	fio --name=managed --filename="${FILE[$1]}" --bs=4k --ioengine=libaio --direct=1 --randrepeat=0 \
		--lat_percentiles=1 --clat_percentiles=0 --percentile_list=50:99 --output-format=json "${@:2}" </dev/null
}

# mb_s BYTES START_US: since then.
mb_s() {
	jq -n "$1 / (${EPOCHREALTIME/[.,]/} - $2)"
}

# ---- what there is to measure ----

# Resident data, beside memory without a network.
managed_measure_resident() {
	local name
	managed_mount 0
	"$BUILD/remram" pull -q "${FILE[managed]}"
	for name in local managed; do
		sample managed_randread_qd1_us "$name" \
			"$(fio_value "$(fio_run "$name" randread 4k 1)" '.lat_ns.percentile["50.000000"] / 1000')"
		sample managed_randread_qd32_kiops "$name" \
			"$(fio_value "$(fio_run "$name" randread 4k 32)" '.iops / 1000')"
	done
	managed_umount
}

# Buffered, read(2) of 1 MiB at a time to the end, as measure_buffered; at each round trip.
managed_measure_cold() {
	local rtt start_us value
	for rtt in "${MANAGED_RTT_MS[@]}"; do
		managed_mount "$rtt"
		drop_caches "${FILE[managed]}"
		touch_free_memory
		start_us=${EPOCHREALTIME/[.,]/}
		dd if="${FILE[managed]}" of=/dev/null bs=1M status=none
		value=$(mb_s "$SIZE" "$start_us")
		managed_umount
		sample "managed_cold_${rtt}_mb_s" managed "$value"
		managed_rtt managed "$rtt" cold_mb_s "$value"
	done
}

# From the first write(2) of 1 MiB until fsync(2) has returned, at each round trip.
managed_measure_written() {
	local rtt start_us value
	for rtt in "${MANAGED_RTT_MS[@]}"; do
		managed_mount "$rtt"
		touch_free_memory
		start_us=${EPOCHREALTIME/[.,]/}
		dd if="$MANAGED_IMAGE" of="${FILE[written]}" bs=1M conv=fsync,notrunc status=none
		value=$(mb_s "$SIZE" "$start_us")
		managed_umount
		sample "managed_written_${rtt}_mb_s" managed "$value"
		managed_rtt managed "$rtt" written_mb_s "$value"
	done
	# By the direct mount: what the donor has.
	cmp "$MANAGED_IMAGE" "${FILE[remram]%/*}/written" || die "the donor has other bytes than were written"
}

# Random writes with write-back: below the bound, at the bound, and the longest that one took.
managed_measure_randwrite() {
	local name json stall push
	FILE[managed-written]=${FILE[written]}
	# A burst of what the default bound leaves takes 0.2 s, which says little.
	managed_mount "$MANAGED_AT" "$MANAGED_UNBOUND"
	for name in local managed-written; do
		# Both are resident, and mapped by the process that serves them.
		dd if="${FILE[$name]}" of=/dev/null bs=4M iflag=direct status=none
		json=$(managed_fio "$name" --rw=randwrite --iodepth=32 --size="$SIZE" --time_based --runtime=1)
		sample managed_randwrite_kiops "${name%-written}" "$(fio_value "$json" '.iops / 1000')"
	done
	managed_umount
	managed_mount "$MANAGED_AT"
	"$BUILD/remram" pull -q "${FILE[written]}"
	json=$(managed_fio managed-written --rw=randwrite --iodepth=32 --size="$SIZE" --time_based \
		--runtime=$((SECONDS_EACH + 2)) --norandommap)
	stall=$(fio_value "$json" '.lat_ns.max / 1e6')
	json=$(managed_fio managed-written --rw=randwrite --iodepth=32 --size="$SIZE" --time_based \
		--ramp_time=1 --runtime="$SECONDS_EACH" --norandommap)
	push=$(fio_value "$json" '.bw_bytes / 1e6')
	managed_umount
	sample managed_push_mb_s managed "$push"
	sample managed_stall_ms managed "$(jq -n "$stall - $MANAGED_CHUNK / $push / 1000")"
}

# Reads of what a pull of everything reaches last.
managed_measure_demand() {
	local json resident
	managed_mount "$MANAGED_AT" pull=all
	json=$(managed_fio managed --rw=randread --iodepth=8 --offset="$MANAGED_LATE" --size=$((SIZE - MANAGED_LATE)) \
		--time_based --runtime=1)
	resident=$(managed_resident "${FILE[managed]}")
	managed_umount
	if ((resident < MANAGED_LATE)); then
		sample managed_demand_p99_ms managed "$(fio_value "$json" '.lat_ns.percentile["99.000000"] / 1e6')"
	else
		sample managed_demand_p99_ms managed null "the pull was over too early"
	fi
}

# Reads of resident data while the rest is pulled, and again when all is there.
managed_measure_slowdown() {
	local depth during after file=${FILE[managed]} fd
	for depth in 1 32; do
		touch_free_memory
		managed_mount "$MANAGED_AT" pull=all
		exec {fd}<"$file"
		wait_until 10 managed_resident_is "$file" "$MANAGED_HOT" || die "nothing is pulled"
		during=$(fio_value "$(managed_fio managed --rw=randread --iodepth="$depth" --size="$MANAGED_HOT" \
			--time_based --runtime=1)" .iops)
		if managed_resident_is "$file" "$SIZE"; then
			sample "managed_slowdown_qd${depth}_pct" managed null "the pull was over too early"
		else
			wait_until 30 managed_resident_is "$file" "$SIZE" || die "the pull does not end"
			after=$(fio_value "$(managed_fio managed --rw=randread --iodepth="$depth" --size="$MANAGED_HOT" \
				--time_based --runtime=1)" .iops)
			sample "managed_slowdown_qd${depth}_pct" managed "$(jq -n "(1 - $during / $after) * 100")"
		fi
		exec {fd}<&-
		managed_umount
	done
}

managed_measure_mount() {
	local i start_us end_us
	for ((i = 0; i < MOUNTS; i++)); do
		rtt_set managed "$MANAGED_AT"
		guard_add mount "$GUARD_DIR/managed"
		start_us=${EPOCHREALTIME/[.,]/}
		managed_mount_now "$MANAGED_AT" pull=all
		read_first_byte "${FILE[managed]}"
		end_us=${EPOCHREALTIME/[.,]/}
		managed_umount
		sample managed_mount_ms managed "$(jq -n "($end_us - $start_us) / 1000")"
	done
}

# ---- those without a cache ----

# The same work, for as long as rtt_fio takes: at 25 ms a GiB would take them half a minute.
managed_beside() {
	local name=$1 rtt file far port value start_us size=$((SIZE / 8))
	file=${FILE[$name]} port=${PORT[$name]}
	rtt_connect "$name"
	far=${FILE[$name]}
	for rtt in "${MANAGED_RTT_MS[@]}"; do
		rtt_set "$name" "$rtt"
		FILE[$name]=$far
		[[ $rtt != 0 ]] || FILE[$name]=$file
		drop_caches "${FILE[$name]}"
		touch_free_memory
		value=$(fio_value "$(rtt_fio "$name" --rw=read --bs=1M --ioengine=psync)" '.bw_bytes / 1e6')
		sample "managed_cold_${rtt}_mb_s" "$name" "$value"
		managed_rtt "$name" "$rtt" cold_mb_s "$value"
		((rtt <= MANAGED_AT)) || continue
		start_us=${EPOCHREALTIME/[.,]/}
		dd if="$MANAGED_IMAGE" of="${FILE[$name]}" bs=1M count=$((size >> 20)) conv=fsync,notrunc status=none
		value=$(mb_s "$size" "$start_us")
		sample "managed_written_${rtt}_mb_s" "$name" "$value"
		managed_rtt "$name" "$rtt" written_mb_s "$value"
	done
	rtt_disconnect "$name"
	FILE[$name]=$file PORT[$name]=$port
}

managed_rounds() {
	local round name
	for ((round = 0; round < ROUNDS; round++)); do
		say "managed regions, round $((round + 1)) of $ROUNDS"
		for name in resident cold written randwrite demand slowdown mount; do
			"managed_measure_$name"
		done
	done
	for name in nbdfuse remram; do
		[[ " ${CONTENDERS[*]} " != *" $name "* ]] || managed_beside "$name"
	done
}

managed_sweep() {
	[[ -n ${PORT[remram]-} ]] || die "managed regions need the contender remram"
	mkdir "$GUARD_DIR/managed" "$GUARD_DIR/image"
	fill remram # others have written to it: fio, swap
	# What is written is random, and not in the way of the disk.
	mount -t tmpfs -o "size=$((SIZE + (16 << 20)))" none "$GUARD_DIR/image"
	guard_add mount "$GUARD_DIR/image"
	MANAGED_IMAGE=$GUARD_DIR/image/bytes
	dd if="${FILE[remram]}" of="$MANAGED_IMAGE" bs=4M iflag=direct status=none
	# Once, so that nobody waits for the host of a virtual machine to find memory for the donor.
	truncate -s "$SIZE" "${FILE[remram]%/*}/written"
	dd if="$MANAGED_IMAGE" of="${FILE[remram]%/*}/written" bs=4M oflag=direct conv=notrunc status=none
	FILE[managed]=$GUARD_DIR/managed/work FILE[written]=$GUARD_DIR/managed/written
	managed_start_local
	rtt_proxy managed "${PORT[remram]}"
	# The bytes are the right ones, also when they come through a cache.
	managed_mount 1
	"$TOOLS/fileop" --read "${FILE[managed]}" verify 0 "$SIZE" 1 || die "the cache returns wrong data"
	managed_umount
	managed_rounds
}
