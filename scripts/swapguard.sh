# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Cleanup and a watchdog for tests that mount, attach and swap.  To be sourced after lib.sh and
# cgroup.sh.
#
# A test names what it makes as it makes it; guard_cleanup undoes all of it in the right order, whatever
# state the test died in.  The watchdog is a process of its own that does two things: after the time limit
# it aborts the test's FUSE connections and kills its jobs, because that is what frees processes that hang
# in swap I/O; and if the test itself is killed, it cleans up in its place.
#
#   guard_start SECONDS               first; makes $GUARD_DIR, a temporary directory for the test's files
#   trap guard_cleanup EXIT
#   guard_lock_swap                   before the first swapon
#   guard_add KIND VALUE              at once after (or just before) making it
#   guard_drop KIND VALUE             when the test has undone it by itself
#
# Kinds, in the order in which guard_cleanup undoes them:
#   job PID       a workload that may use the swap            ended first
#   swap DEV      a swap area                                 swapoff
#   loop DEV      a loop device                               losetup -d
#   mount DIR     a mount (guard_add_mount also notes its FUSE connection, for the abort)
#   pid PID       a daemon                                    SIGTERM, then SIGKILL
#   cgroup DIR    a control group                             what is left in it is killed; rmdir
#   restore FILE=VALUE   a kernel setting to write back
# GUARD_DIR goes last.  guard_cleanup returns 1, and says what, if anything could not be undone.

GUARD_DIR=
GUARD_WATCHDOG=

guard_start() {
	local base=/tmp
	# On a disk, where files can do everything: a tmpfs has not all of fallocate(2).
	[[ $(stat -f -c %T /tmp) != tmpfs ]] || base=/var/tmp
	GUARD_DIR=$(mktemp -d "$base/remram-test.XXXXXX")
	: >"$GUARD_DIR/.guard"
	# A mount of our own: that at /sys/fs/fuse/connections may be absent, and is not ours to make.
	mkdir "$GUARD_DIR/.fusectl"
	mount -t fusectl none "$GUARD_DIR/.fusectl" 2>/dev/null || true
	guard_watch "$1" $$ </dev/null >/dev/null &
	GUARD_WATCHDOG=$!
}

# guard_lock_swap: waits until no other test on this machine swaps, and keeps others from it until this one
# has cleaned up.  Swap areas belong to the whole machine: without this, one test's pages land in the other's
# swap, and are lost with its donor.
#
# The lock is held by a process that ends with the watchdog, so no daemon inherits it.
guard_lock_swap() {
	local locked
	mkdir -p /run/lock
	# shellcheck disable=SC2016
	exec {locked}< <(exec flock --close --timeout 1200 /run/lock/remram-swap-test bash -c \
		'echo locked; exec tail --pid="$1" -f /dev/null >/dev/null 2>&1' - "$GUARD_WATCHDOG")
	read -r -u "$locked" || die "another test has been swapping for twenty minutes"
	exec {locked}<&-
}

guard_add() {
	printf '%s %s\n' "$1" "$2" >>"$GUARD_DIR/.guard"
}

# Registrations are short lines appended whole; dropping one appends as well, so that the watchdog never
# reads a file that is being rewritten.
guard_drop() {
	printf 'drop:%s %s\n' "$1" "$2" >>"$GUARD_DIR/.guard"
}

# guard_list KIND: the values that are registered and not dropped, the latest first.
guard_list() {
	awk -v kind="$1" '
		{ value = substr($0, index($0, " ") + 1) }
		$1 == kind { order[++n] = value; live[value] = 1 }
		$1 == "drop:" kind { delete live[value] }
		END { for (i = n; i > 0; i--) if (order[i] in live) { print order[i]; delete live[order[i]] } }
	' "$GUARD_DIR/.guard"
}

# guard_is_mounted DIR: reads the kernel's table and never touches the directory, which could hang.
guard_is_mounted() {
	awk -v dir="$1" '$5 == dir { found = 1 } END { exit !found }' /proc/self/mountinfo
}

# guard_connection DIR: the number of the FUSE connection mounted there.
guard_connection() {
	awk -v dir="$1" '$5 == dir { split($3, dev, ":"); n = dev[2] } END { if (n == "") exit 1; print n }' \
		/proc/self/mountinfo
}

guard_add_mount() {
	local connection
	guard_add mount "$1"
	if connection=$(guard_connection "$1"); then
		guard_add fuse "$connection"
	fi
}

# guard_abort: cuts the FUSE connections: every request that waits fails now.
guard_abort() {
	local connection
	while read -r connection; do
		if [[ -e $GUARD_DIR/.fusectl/$connection/abort ]]; then
			say "guard: aborting FUSE connection $connection"
			echo 1 >"$GUARD_DIR/.fusectl/$connection/abort" || true
		fi
	done < <(guard_list fuse)
}

guard_watch() {
	local seconds=$1 parent=$2 job
	trap - EXIT
	trap 'exit 0' TERM
	while ((seconds-- > 0)); do
		sleep 1 &
		wait $! || true
		if ! process_alive "$parent"; then
			GUARD_WATCHDOG=
			guard_cleanup
			exit 0
		fi
	done
	say "guard: the time is up"
	: >"$GUARD_DIR/.fired"
	while read -r job; do
		kill -KILL "$job" 2>/dev/null || true
	done < <(guard_list job)
	guard_abort
}

# guard_fired: the watchdog had to step in.
guard_fired() {
	[[ -e $GUARD_DIR/.fired ]]
}

guard_is_swap() {
	awk -v dev="$1" 'NR > 1 && $1 == dev { found = 1 } END { exit !found }' /proc/swaps
}

# guard_bounded SECONDS COMMAND…: runs a command that may hang in the kernel, where no signal reaches it: if
# it takes longer, the FUSE connections are aborted, which frees it.
guard_bounded() {
	local seconds=$1 pid
	shift
	"$@" </dev/null &
	pid=$!
	wait_until "$seconds" process_gone "$pid" || {
		guard_abort
		wait_until 60 process_gone "$pid" || return 1
	}
	wait "$pid"
}

# swapoff fails with ENOMEM as long as a page belongs to a process whose control group is full: a few
# attempts, since that process may be about to end.
guard_swapoff() {
	local attempt
	for ((attempt = 0; attempt < 4; attempt++)); do
		((attempt == 0)) || sleep 3
		guard_bounded "$2" swapoff "$1" && return 0
		guard_is_swap "$1" || return 0
	done
	return 1
}

# Swapping off reads everything back; what a dead donor holds can't be read, and is given up only then.
guard_undo_swap() {
	guard_is_swap "$1" || return 0
	guard_swapoff "$1" 120 && return 0
	guard_abort
	guard_swapoff "$1" 60
}

guard_undo_loop() {
	[[ -e /sys/block/${1##*/}/loop ]] || return 0
	guard_bounded 30 losetup -d "$1" && wait_until 10 test ! -e "/sys/block/${1##*/}/loop"
}

guard_undo_mount() {
	guard_is_mounted "$1" || return 0
	guard_bounded 30 umount "$1" 2>/dev/null && return 0
	guard_is_mounted "$1" || return 0
	umount -l "$1"
}

# What is still in the group was started by the test and has outlived everything else.
guard_undo_cgroup() {
	[[ -d $1 ]] || return 0
	cgroup_kill "$1"
	cgroup_remove "$1"
}

guard_undo_restore() {
	echo "${1#*=}" >"${1%%=*}"
}

guard_cleanup() {
	local kind value failed=0 undo
	[[ -n $GUARD_DIR && -d $GUARD_DIR ]] || return 0
	trap '' INT TERM
	for kind in job swap loop mount pid cgroup restore; do
		case $kind in
		job | pid) undo=end_process ;;
		*) undo=guard_undo_$kind ;;
		esac
		while read -r value <&3; do
			"$undo" "$value" || {
				say "guard: could not undo: $kind $value"
				failed=1
			}
		done 3< <(guard_list "$kind")
	done
	if [[ -n $GUARD_WATCHDOG ]]; then
		kill "$GUARD_WATCHDOG" 2>/dev/null || true
		wait "$GUARD_WATCHDOG" 2>/dev/null || true
	fi
	umount "$GUARD_DIR/.fusectl" 2>/dev/null || true
	rm -rf --one-file-system "$GUARD_DIR"
	GUARD_DIR=
	trap - INT TERM
	return "$failed"
}
