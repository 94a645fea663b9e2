#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A region as swap: a workload of three times its memory limit finds every word right, and umount undoes all of it.
. "$(dirname "$0")/lib.sh"
. "$E2E_ROOT/tests/e2e/swap.sh"
requires fuse loop losetup jq
cgroup_available || skip "needs a memory control group"

donor_start ram=memory:?size=1G

step "swap is set up as it must be: direct I/O, 4096-byte blocks, priority, a stable link"
mount_devices swap=swap0,size=512M,prio=7
dev=$(device_of swap0)
is "direct I/O" "$(cat "/sys/block/${dev##*/}/loop/dio")" 1
is "block size" "$(cat "/sys/block/${dev##*/}/queue/logical_block_size")" 4096
is "priority" "$(awk -v dev="$dev" '$1 == dev { print $5 }' /proc/swaps)" 7
is "mode of the region" "$(attr "$T/mnt/swap0" %a)" 600
is "size of the region" "$(attr "$T/mnt/swap0" %s)" $((512 << 20))
is "space is reserved" "$(attr "$T/mnt/swap0" '%b')" $((512 << 11))
pid=$(daemon_pid "$T/mnt")
at_least "locked memory in kB" "$(awk '$1 == "VmLck:" { print $2 }' "/proc/$pid/status")" 40000
at_most "resident memory in kB" "$(awk '$1 == "VmRSS:" { print $2 }' "/proc/$pid/status")" 65536

step "a workload of 384 MiB in 128 MiB finds every word right"
group_make 128M
workload 100 --size 384M --random 20000 --seed "$SRANDOM"

step "status tells of mount, swap and requests"
run "$REMRAM" status --json "$T/mnt" >"$T/status.json"
is "requests" "$(jq '.[0].daemon.requests.write.count > 1000' "$T/status.json")" true
is "errors" "$(jq '[.[0].daemon.requests[].errors] | add' "$T/status.json")" 0
is "connection" "$(jq -r '.[0].daemon.connection.state' "$T/status.json")" connected
contains "status for people" "$(run "$REMRAM" status "$T/mnt")" "swap0 on $dev"

step "the doctor finds nothing that fails"
code=0
"$REMRAM" doctor "$T/mnt" >"$T/doctor.log" || code=$?
at_most "exit code of the doctor" "$code" 1
contains "the doctor's words" "$(cat "$T/doctor.log")" "direct I/O"

step "the swap region is protected from people while it is in use"
refused "busy" rm -f "$T/mnt/swap0"
refused "busy" mv "$T/mnt/swap0" "$T/mnt/other"
refused "busy" truncate -s 1M "$T/mnt/swap0"
mount_pool ram "$T/second"
refused "busy" rm -f "$T/second/swap0"
refused "busy" truncate -s 1M "$T/second/swap0"
umount_dir "$T/second"

step "umount leaves the region and nothing else"
umount_devices
mount_pool ram "$T/mnt"
is "what is there" "$(ls "$T/mnt")" swap0
umount_dir "$T/mnt"

step "the same region is swap again"
mount_devices swap=swap0
workload 60 --size 160M --random 2000
umount_devices
finish
