#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Swap survives cut connections and a donor that stands still; with discard the donor gets its memory back.
. "$(dirname "$0")/lib.sh"
. "$E2E_ROOT/tests/e2e/swap.sh"
requires fuse loop losetup
cgroup_available || skip "needs a memory control group"

donor_start ram=memory:?size=512M
network_start
group_make 96M

step "every word is right although the connection is cut again and again"
mkdir "$T/mnt"
mount_source "127.0.0.1:$NETWORK_PORT:/ram" "$T/mnt" -o swap=swap0,size=384M,discard
guard_add loop "$(device_of swap0)"
guard_add swap "$(device_of swap0)"
workload_start --size 288M --random 20000 --rounds 2
for _ in {1..10}; do
	sleep 0.5
	network cut
done
workload_passes 100
at_least "reconnects" "$("$REMRAM" status --json "$T/mnt" | jq '.[0].daemon.connection.reconnects')" 3

step "a donor that stands still for 8 s is waited for"
workload_start --size 288M --random 5000 --rounds 1
sleep 1
kill -STOP "$DONOR_PID"
sleep 8
kill -CONT "$DONOR_PID"
workload_passes 100

step "the donor got its memory back"
little() {
	[[ $(swapped) -lt $((32 << 20)) && $(attr "$T/mnt/swap0" %b) -lt $((64 << 11)) ]]
}
eventually 20 "discards give the region's blocks back" little
umount_devices
finish
