# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Memory-limited control groups, version 1 or 2, for tests that must swap.  To be sourced after lib.sh.
#
#   group=$(cgroup_create NAME 256M)      a new group with that limit on memory, none on swap
#   cgroup_run "$group" COMMAND ARG…      runs it inside and returns its exit code
#   cgroup_exec "$group" COMMAND ARG… &   the same in the background; $! is the command's process
#   cgroup_enter "$group" PID             moves a process in
#   cgroup_remove "$group"                when its processes have ended
#   cgroup_kill "$group"                  ends them with SIGKILL
#
# CGROUP_ROOT is where control groups are mounted (default /sys/fs/cgroup).

CGROUP_ROOT=${CGROUP_ROOT:-/sys/fs/cgroup}

# cgroup_base: prints the directory under which a group with a memory limit can be made: the version 1
# memory hierarchy if there is one, else a version 2 hierarchy that has the memory controller.
cgroup_base() {
	local base
	if [[ -e $CGROUP_ROOT/memory/memory.limit_in_bytes ]]; then
		echo "$CGROUP_ROOT/memory"
		return 0
	fi
	for base in "$CGROUP_ROOT" "$CGROUP_ROOT/unified"; do
		if grep -qsw memory "$base/cgroup.controllers"; then
			echo "$base"
			return 0
		fi
	done
	return 1
}

cgroup_available() {
	[[ $EUID -eq 0 ]] && cgroup_base >/dev/null
}

cgroup_create() {
	local base dir limit
	base=$(cgroup_base) || die "no memory control group under $CGROUP_ROOT"
	dir=$base/$1
	if [[ $base == */memory ]]; then
		limit=memory.limit_in_bytes
	else
		limit=memory.max
		# The children of a group have a controller only if the group hands it down.
		grep -qw memory "$base/cgroup.subtree_control" ||
			echo +memory >"$base/cgroup.subtree_control" ||
			die "$base: cannot hand the memory controller down to a new group"
	fi
	mkdir "$dir" || die "cannot make the control group $dir"
	if ! echo "$2" >"$dir/$limit"; then
		rmdir "$dir"
		die "$dir/$limit: cannot set the limit $2"
	fi
	echo "$dir"
}

cgroup_enter() {
	echo "$2" >"$1/cgroup.procs"
}

# Replaces the calling shell: for `cgroup_exec … &`, where $! is then the command itself.
cgroup_exec() {
	echo "$BASHPID" >"$1/cgroup.procs"
	shift
	exec "$@"
}

cgroup_run() {
	(cgroup_exec "$@")
}

cgroup_kill() {
	local pid
	while read -r pid; do
		kill -KILL "$pid" 2>/dev/null || true
	done <"$1/cgroup.procs"
}

# The kernel releases a group a moment after its last process.
cgroup_remove() {
	[[ ! -d $1 ]] || wait_until 10 rmdir "$1" || {
		say "cgroup: $1: cannot be removed; processes in it: $(tr '\n' ' ' <"$1/cgroup.procs")"
		return 1
	}
}
