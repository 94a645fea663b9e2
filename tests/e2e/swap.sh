# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What the tests of swap and loop devices share.  To be sourced after lib.sh.

# mount_devices OPTIONS [NAME…]: mounts pool "ram" at $T/mnt with -o OPTIONS and notes the loop devices of
# the regions NAME… (default swap0) for the guard; a device that is swap, too.
mount_devices() {
	local options=$1 name dev
	shift
	mount_pool ram "$T/mnt" -o "$options"
	for name in "${@:-swap0}"; do
		dev=$(device_of "$name")
		guard_add loop "$dev"
		! guard_is_swap "$dev" || guard_add swap "$dev"
	done
}

# device_of NAME: the loop device of a region.
device_of() {
	readlink "$(run_dir "$T/mnt")/$1" || fail "no link for region $1 in $(run_dir "$T/mnt")"
}

# umount_devices [NAME…]: unmounts, and checks that the devices are gone.
umount_devices() {
	local name dev devices=()
	for name in "${@:-swap0}"; do
		devices+=("$(device_of "$name")")
	done
	umount_dir "$T/mnt"
	for dev in "${devices[@]}"; do
		! guard_is_swap "$dev" || fail "$dev is still swap"
		! grep -qsF "$T/" "/sys/block/${dev##*/}/loop/backing_file" || fail "$dev is still attached"
		guard_drop swap "$dev"
		guard_drop loop "$dev"
	done
}

# group_make LIMIT: a memory-limited control group, GROUP.
group_make() {
	GROUP=$(cgroup_create "remram-test.$$" "$1")
	guard_add cgroup "$GROUP"
}

# workload_start ARG…: memwork in GROUP, in the background.
workload_start() {
	# shellcheck disable=SC2016
	job bash -c '. "$0/scripts/lib.sh"; . "$0/scripts/cgroup.sh"; cgroup_exec "$@"' "$E2E_ROOT" "$GROUP" \
		"$TOOLS/memwork" "$@"
}

# workload_passes SECONDS: it ends within the time, and every word was right.
workload_passes() {
	job_passes "$1"
	contains "the workload's report" "$(tail -n 1 "$T/job.log")" "wrong_words=0"
}

# workload SECONDS ARG…: both.
workload() {
	local seconds=$1
	shift
	workload_start "$@"
	workload_passes "$seconds"
}

# swapped: bytes that are out on the device of region swap0.
swapped() {
	awk -v dev="$(device_of swap0)" '$1 == dev { print $4 * 1024 }' /proc/swaps
}

# Swap areas belong to the whole machine: one such test at a time.
guard_lock_swap
