#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A connection that is cut in the kernel under I/O: the daemon ends in order, with every handle closed
# after the last request that uses it.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse fio
donor_start ram=memory:?size=256M
M=$T/mnt
mkdir "$M"
guard_add mount "$M"

# serve_logged SOURCE: mounts with the daemon in the foreground; DAEMON_JOB is its process.
serve_logged() {
	e2e_exec "$REMRAM" mount -f "$1" "$M" </dev/null >>"$M.log" 2>&1 &
	DAEMON_JOB=$!
	guard_add pid "$DAEMON_JOB"
	eventually 20 "the mount" guard_is_mounted "$M"
	eventually 10 "the state of the mount" test -e "$(run_dir "$M")/mount.conf"
	guard_add_mount "$M"
}

# cut_under_io SOURCE FILE: FILE (of 64 MiB) is there.
cut_under_io() {
	serve_logged "$1"
	[[ -e $M/$2 ]] || run truncate -s 64M "$M/$2"
	job fio --name=x --filename="$M/$2" --size=64M --rw=randrw --bs=256k --ioengine=libaio --iodepth=64 \
		--direct=1 --thread --time_based --runtime=30 --output="$T/fio.out"
	sleep 1
	process_alive "$JOB" || fail "fio has ended: $(<"$T/fio.out")"
	run "$REMRAM" abort "$M" >/dev/null
	# What it waited for has failed; whether fio then ends by itself does not matter.
	kill -KILL "$JOB" 2>/dev/null || true
	job_wait 20
	# The daemon in the foreground tidies up behind itself.
	job_wait 20 "$DAEMON_JOB"
	is "the daemon's exit code" "$JOB_CODE" 0
	guard_drop pid "$DAEMON_JOB"
	[[ $(<"$M.log") != *Assertion* ]] || fail "an assertion failed"
}

step "a file"
run truncate -s 64M "$T/disk"
for _ in 1 2 3; do
	cut_under_io "file:$T/disk" disk
done

step "a donor"
for _ in 1 2; do
	cut_under_io "127.0.0.1:$DONOR_PORT:/ram" a
done
finish
