# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What the project's scripts share: messages, waiting, ports, and the end of processes.  To be sourced;
# the caller has `set -euo pipefail`.

# say TEXT…: a line for the person at the terminal, on stderr, so that stdout stays for results.
say() {
	printf '%s\n' "$*" >&2
}

# die TEXT…: ends the script with the script's name and the reason.
die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

have() {
	command -v "$1" >/dev/null 2>&1
}

need_root() {
	[[ $EUID -eq 0 ]] || die "needs root (mounts, loop devices, swap): run it with sudo"
}

# need_commands NAME…: all of them are installed, or the script ends and says which are not.
need_commands() {
	local name missing=()
	for name in "$@"; do
		have "$name" || missing+=("$name")
	done
	[[ ${#missing[@]} -eq 0 ]] || die "not installed: ${missing[*]} (see scripts/deps.sh)"
}

# wait_until SECONDS COMMAND…: runs the command every 10 ms until it succeeds; fails after the time.
wait_until() {
	local deadline=$((${EPOCHREALTIME/[.,]/} + $1 * 1000000))
	shift
	until "$@" 2>/dev/null; do
		((${EPOCHREALTIME/[.,]/} < deadline)) || return 1
		sleep 0.01
	done
}

# free_port: prints a TCP port on which nothing listens on loopback now. Below the ephemeral range, so
# that no outgoing connection takes it in the meantime.
free_port() {
	local port try
	for ((try = 0; try < 200; try++)); do
		port=$((10900 + SRANDOM % 20000))
		if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
			echo "$port"
			return 0
		fi
	done
	return 1
}

# process_alive PID: it exists and is no zombie.
process_alive() {
	local stat
	{ read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
	[[ ${stat##*) } != Z* ]]
}

process_gone() {
	! process_alive "$1"
}

# end_process PID [SECONDS]: SIGTERM, and SIGKILL if it is still there after SECONDS (default 5).
end_process() {
	process_alive "$1" || return 0
	kill "$1" 2>/dev/null || return 0
	wait_until "${2:-5}" process_gone "$1" && return 0
	kill -KILL "$1" 2>/dev/null || return 0
	wait_until 5 process_gone "$1"
}
