#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A client stays within 64 MiB whatever it carries, an idle one uses no CPU, and descriptors don't pile up.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse fio
donor_start ram=memory:?size=1G
M=$T/mnt
mount_pool ram "$M"
pid=$(daemon_pid "$M")

# memory_kb PID: what the process has in memory now.
memory_kb() {
	awk '$1 == "VmRSS:" { print $2 }' "/proc/$1/status"
}

# ticks PID: the CPU time it has used, in hundredths of a second.
ticks() {
	local stat
	stat=$(<"/proc/$1/stat")
	# shellcheck disable=SC2086
	set -- ${stat##*) }
	echo $((${12} + ${13}))
}

descriptors() {
	find "/proc/$1/fd" -mindepth 1 | wc -l
}

# The connection makes its pipe with the first long payload.
run dd if=/dev/urandom of="$M/big" bs=1M count=1 conv=fsync
run dd if="$M/big" of=/dev/null bs=1M iflag=direct

step "large and many requests: the client's memory stays below 64 MiB"
# Both are used by what eval runs below.
# shellcheck disable=SC2034
fds=$(descriptors "$pid") donor_fds=$(descriptors "$DONOR_PID")
for how in "--rw=write --bs=1m --iodepth=64" "--rw=read --bs=1m --iodepth=64" "--rw=randwrite --bs=4k --iodepth=256" \
	"--rw=randread --bs=64k --iodepth=256"; do
	# shellcheck disable=SC2086
	run_for 60 fio --name=load --filename="$M/big" --size=512M --io_size=128M --ioengine=libaio --direct=1 --numjobs=2 \
		--output="$T/fio.log" $how
	at_most "KiB after $how" "$(memory_kb "$pid")" 65536
done
run_for 60 cat "$M/big" >/dev/null
at_most "KiB after a buffered read" "$(memory_kb "$pid")" 65536

step "1500 regions looked at, 500 of them open"
(cd "$M" && run touch region-{1..1500})
run ls -l "$M" >/dev/null
exec_many() {
	local i fd
	for ((i = 1; i <= 500; i++)); do
		exec {fd}<"$1/region-$i"
	done
	at_most "KiB with many open files" "$(memory_kb "$2")" 65536
}
(exec_many "$M" "$pid")
run find "$M" -name 'region-*' -delete

step "no descriptor is left of all that"
eventually 5 "the client's descriptors" eval '(($(descriptors "$pid") <= fds))'
run rm "$M/big"
eventually 10 "the donor's descriptors" eval '(($(descriptors "$DONOR_PID") <= donor_fds))'

step "idle: no CPU, on either side"
sleep 1
before=$(($(ticks "$pid") + $(ticks "$DONOR_PID")))
sleep 3
at_most "hundredths of a second of CPU in 3 s" $(($(ticks "$pid") + $(ticks "$DONOR_PID") - before)) 1
umount_dir "$M"
finish
