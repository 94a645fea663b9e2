#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The Debian packages that the project needs, by purpose, and their installation.
#
#   scripts/deps.sh build test      installs what is missing of those groups
#   scripts/deps.sh --check bench   installs nothing; fails and names what is missing
#   scripts/deps.sh --list lint     prints the packages
#
# Groups: build (compile and run), test (make check), bench (make bench), fuzz (make fuzz), lint (make lint).
# Other scripts source this file and call deps_install or deps_check with groups.

# deps_packages GROUP…: prints the packages, one a line.
deps_packages() {
	local group
	for group in "$@"; do
		case $group in
		build) printf '%s\n' gcc libc6-dev make pkg-config libfuse3-dev libsqlite3-dev libnbd-dev fuse3 ;;
		test) printf '%s\n' check fio jq attr sqlite3 nbdkit libnbd-bin qemu-utils qemu-system-common procps valgrind mandoc openssl ;;
		bench) printf '%s\n' fio jq gnuplot-nox nbdkit libnbd-bin qemu-utils qemu-system-common fuse3 procps attr ;;
		fuzz) printf '%s\n' clang libclang-rt-dev ;;
		lint) printf '%s\n' clang-format clang-tidy cppcheck shellcheck mandoc ;;
		*)
			echo "deps: $group: no such group (there are build, test, bench, fuzz, lint)" >&2
			return 2
			;;
		esac
	done
}

# deps_missing GROUP…: prints the packages that are not installed.
deps_missing() {
	local package packages
	packages=$(deps_packages "$@") || return
	sort -u <<<"$packages" | while read -r package; do
		[[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
			echo "$package"
	done
}

# deps_on_debian GROUP…: fails, with what to do instead, where there is no apt.
deps_on_debian() {
	command -v apt-get >/dev/null && command -v dpkg-query >/dev/null && return 0
	echo "deps: this is not Debian or a system like it; install the counterparts of:" \
		"$(deps_packages "$@" | sort -u | tr '\n' ' ')" >&2
	return 1
}

# deps_check GROUP…: succeeds if everything is there, else says what is missing.
deps_check() {
	local missing
	deps_on_debian "$@" || return
	missing=$(deps_missing "$@" | tr '\n' ' ') || return
	[[ -z $missing ]] && return 0
	echo "deps: not installed: $missing" >&2
	echo "deps: as root: scripts/deps.sh $*" >&2
	return 1
}

# deps_install GROUP…: installs what is missing; does nothing, and needs no root, if nothing is.
deps_install() {
	local missing
	deps_on_debian "$@" || return
	missing=$(deps_missing "$@") || return
	[[ -z $missing ]] && return 0
	if [[ $EUID -ne 0 ]]; then
		echo "deps: not installed: ${missing//$'\n'/ }" >&2
		echo "deps: installing packages needs root: run it with sudo" >&2
		return 1
	fi
	echo "deps: installing ${missing//$'\n'/ }" >&2
	export DEBIAN_FRONTEND=noninteractive
	# A machine's package lists may be absent or stale: fetch them before giving up on a package.
	# shellcheck disable=SC2086
	deps_apt install $missing 2>/dev/null && return 0
	# shellcheck disable=SC2086
	deps_apt update && deps_apt install $missing
}

# deps_apt COMMAND [PACKAGE…]: apt-get, whose many words are shown only if it fails.
deps_apt() {
	local log
	log=$(mktemp)
	if apt-get -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends "$@" >"$log" 2>&1 </dev/null; then
		rm -f "$log"
		return 0
	fi
	tail -n 30 "$log" >&2
	rm -f "$log"
	return 1
}

deps_main() {
	local action=deps_install
	set -euo pipefail
	case ${1-} in
	--check) action=deps_check && shift ;;
	--list) action=deps_packages && shift ;;
	esac
	if [[ $# -eq 0 || $1 == -* ]]; then
		sed -n '3,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
		exit 2
	fi
	"$action" "$@"
}

# Run, not sourced.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
	deps_main "$@"
fi
