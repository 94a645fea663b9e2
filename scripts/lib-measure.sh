# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What the benchmark measures.  To be sourced after lib.sh, cgroup.sh, swapguard.sh and
# lib-contenders.sh, with TOOLS (the directory of the test tools), SIZE, SECONDS_EACH (the length of a
# timed run), TOUCHES (random touches in swap), MOUNTS (mounts per round) and RAW (the file of samples) set.
#
# measure_NAME CONTENDER takes one sample of each of its rows and appends them to RAW, a JSON object a
# line: {"row", "contender", "value", "note"}.  A value that could not be measured is null, and the note
# says why.  Rows and their units are described in bench-rows.json.

# sample ROW CONTENDER VALUE [NOTE]; VALUE "null" with a note for "not measured".
sample() {
	jq -cn --arg row "$1" --arg contender "$2" --argjson value "$3" --arg note "${4-}" \
		'{$row, $contender, $value, $note}' >>"$RAW"
	if [[ $3 == null ]]; then
		say "    $1 $2: $4"
	else
		say "    $1 $2: $3"
	fi
}

drop_caches() {
	sync -f "$1"
	echo 3 >/proc/sys/vm/drop_caches
}

# cpu_ticks PID…: user and system time of the processes, threads that have ended included, in ticks.
cpu_ticks() {
	local pid stat ticks=0 fields
	for pid in "$@"; do
		read -r stat <"/proc/$pid/stat"
		read -ra fields <<<"${stat##*) }"
		ticks=$((ticks + fields[11] + fields[12]))
	done
	echo "$ticks"
}

# fio_run CONTENDER RW BLOCKSIZE DEPTH: a timed run with direct I/O; prints its JSON.  The same engine and
# settings for everyone.  Latency is measured from submission to completion ("lat"), since a kernel may
# do some of the work in io_submit.
#
# tmpfs: kernels before 6.6 know no direct I/O there; it is the limit and not a contender, so buffered
# access, which is the same for it, will do.
fio_run() {
	local direct=1
	if [[ $1 == tmpfs ]] && ! dd if="${FILE[tmpfs]}" of=/dev/null bs=4096 count=1 iflag=direct status=none 2>/dev/null; then
		direct=0
	fi
	fio --name=bench --filename="${FILE[$1]}" --size="$SIZE" --rw="$2" --bs="$3" --iodepth="$4" \
		--ioengine=libaio --direct=$direct --time_based --runtime="$SECONDS_EACH" \
		--norandommap --randrepeat=0 --lat_percentiles=1 --clat_percentiles=0 --percentile_list=50:99 \
		--output-format=json </dev/null
}

# fio_value JSON FILTER: the filter sees the read or write part of the job, whichever was active.
fio_value() {
	jq ".jobs[0] | (if .read.total_ios > 0 then .read else .write end) | $2" <<<"$1"
}

measure_randread1() {
	local json
	json=$(fio_run "$1" randread 4k 1)
	sample randread_qd1_us "$1" "$(fio_value "$json" '.lat_ns.percentile["50.000000"] / 1000')"
	sample randread_qd1_p99_us "$1" "$(fio_value "$json" '.lat_ns.percentile["99.000000"] / 1000')"
}

# measure_deep NAME RW CONTENDER: 32 in flight: rate, and what client and donor spend on a request.
measure_deep() {
	local json before='' after pids
	read -ra pids <<<"${CLIENT[$3]} ${DONOR[$3]}"
	[[ ${#pids[@]} -eq 0 ]] || before=$(cpu_ticks "${pids[@]}")
	json=$(fio_run "$3" "$2" 4k 32)
	sample "$1_qd32_kiops" "$3" "$(fio_value "$json" '.iops / 1000')"
	if [[ -n $before ]]; then
		after=$(cpu_ticks "${pids[@]}")
		sample "$1_cpu_us" "$3" "$(fio_value "$json" \
			"$((after - before)) * 1e6 / $(getconf CLK_TCK) / .total_ios")"
	fi
}

measure_randread32() {
	measure_deep randread randread "$1"
}

measure_randwrite32() {
	measure_deep randwrite randwrite "$1"
}

measure_seqread() {
	sample seqread_mb_s "$1" "$(fio_value "$(fio_run "$1" read 1M 8)" '.bw_bytes / 1e6')"
}

measure_seqwrite() {
	sample seqwrite_mb_s "$1" "$(fio_value "$(fio_run "$1" write 1M 8)" '.bw_bytes / 1e6')"
}

# On a virtual machine the first touch of a free page may wait for the host, which takes back in a few seconds what
# nobody uses: touch as much as all that is measured here uses together, or half of what there is, so that no sample
# pays for what those before have freed.
touch_free_memory() {
	local mib=$((8 * SIZE >> 20)) half
	half=$(awk '$1 == "MemAvailable:" { print int($2 / 2048) }' /proc/meminfo)
	"$TOOLS/memwork" --size $((half < mib ? half : mib))M --random 0 --rounds 0 --quiet >/dev/null
}

# Buffered, cold, read(2) of 1 MiB at a time to the end of the file: how `cp` and `cat` read.
measure_buffered() {
	local start_us
	drop_caches "${FILE[$1]}"
	touch_free_memory
	start_us=${EPOCHREALTIME/[.,]/}
	dd if="${FILE[$1]}" of=/dev/null bs=1M status=none
	sample buffered_mb_s "$1" "$(jq -n "$SIZE / (${EPOCHREALTIME/[.,]/} - $start_us)")"
}

# A byte of each page of a shared read-only mapping, front to back, cold.
measure_mmap() {
	local line
	drop_caches "${FILE[$1]}"
	touch_free_memory
	line=$("$TOOLS/fileop" --read "${FILE[$1]}" map 0 "$SIZE" shared r , map-touch 0 "$SIZE")
	line=${line#mb_s=}
	sample mmap_mb_s "$1" "${line%% *}"
}

# Swap on a loop device with direct I/O and 4096-byte blocks, for everyone alike.
swap_attach() {
	LOOP=$(losetup --find --show --direct-io=on --sector-size 4096 "${FILE[$1]}")
	guard_add loop "$LOOP"
	if [[ $(<"/sys/block/${LOOP##*/}/loop/dio") != 1 && $1 != tmpfs ]]; then
		say "    $1: the kernel refuses direct I/O on its loop device"
	fi
	mkswap "$LOOP" >/dev/null 2>&1
	guard_add swap "$LOOP"
	swapon --priority 32767 "$LOOP"
}

swap_detach() {
	guard_undo_swap "$LOOP"
	guard_drop swap "$LOOP"
	guard_undo_loop "$LOOP"
	guard_drop loop "$LOOP"
}

measure_swap() {
	local group out code=0 row note wrong
	# On a virtual machine the first touch of a free page may wait for the host: touch some first, so
	# that the pages the workload gets are no slower for one contender than for the next.
	"$TOOLS/memwork" --size 512M --random 0 --rounds 0 --quiet >/dev/null
	swap_attach "$1"
	group=$(cgroup_create "remram-bench-$$" 256M)
	guard_add cgroup "$group"
	# The rewriting round is for tests; here every byte is verified twice without it.  The workload stays on
	# one CPU: once it has run on two, the kernel interrupts the other one for each batch of pages that it
	# swaps out, and whether the scheduler happens to move it decides more than the contender does.
	out=$GUARD_DIR/memwork.out
	cgroup_exec "$group" taskset --cpu-list $(($(nproc) - 1)) "$TOOLS/memwork" --size 768M --random "$TOUCHES" --rounds 0 --timeout 180 \
		>"$out" 2>>"$GUARD_DIR/$1.log" &
	guard_add job $!
	wait $! || code=$?
	guard_drop job $!
	swap_detach
	cgroup_remove "$group"
	guard_drop cgroup "$group"
	wrong=$(sed -n 's/^wrong_words=//p' "$out")
	case $code in
	0) note='' ;;
	1) note="wrong data ($wrong words)" ;;
	4) note='read error (SIGBUS)' ;;
	137 | 142) note='did not end' ;;
	*) note="failed (exit $code)" ;;
	esac
	for row in fill_mb_s seq_mb_s random_us; do
		if [[ -n $note ]]; then
			sample "swap_$row" "$1" null "$note"
		else
			sample "swap_$row" "$1" "$(sed -n "s/^$row=//p" "$out")"
		fi
	done
}

measure_mount() {
	local dir=$GUARD_DIR/mount-$1 i start_us end_us
	[[ $1 != tmpfs ]] || return 0
	mkdir -p "$dir"
	for ((i = 0; i < MOUNTS; i++)); do
		guard_add mount "$dir"
		start_us=${EPOCHREALTIME/[.,]/}
		"contender_mount_$1" "$dir" || die "$1 does not mount a second time"
		end_us=${EPOCHREALTIME/[.,]/}
		"contender_unmount_$1" "$dir"
		guard_drop mount "$dir"
		sample mount_ms "$1" "$(jq -n "($end_us - $start_us) / 1000")"
	done
}

# CPU time of client and donor over three seconds without a request, after a second's rest.
measure_idle() {
	local before pids
	read -ra pids <<<"${CLIENT[$1]} ${DONOR[$1]}"
	[[ ${#pids[@]} -gt 0 ]] || return 0
	sleep 1
	before=$(cpu_ticks "${pids[@]}")
	sleep 3
	sample idle_ticks "$1" $(($(cpu_ticks "${pids[@]}") - before))
}

# The largest resident set of the client so far, after everything else of the round.
measure_rss() {
	[[ -n ${CLIENT[$1]} ]] || return 0
	sample client_rss_mib "$1" "$(awk '/^VmHWM:/ { print $2 / 1024 }' "/proc/${CLIENT[$1]}/status")"
}
