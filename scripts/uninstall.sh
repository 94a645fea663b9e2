#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# `make uninstall` calls this with DESTDIR and PREFIX in the environment: removes what scripts/install.sh has
# written down in its manifest, in the reverse order, and nothing else.  What was changed since stays, and is
# named: a configuration file that was edited, a link that points elsewhere, a directory that is not empty.
#
# Refuses while a pool is mounted, because umount(8) would no longer find the helper that takes swap off
# first; FORCE=1 goes on.
set -euo pipefail

cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

: "${DESTDIR:=}" "${PREFIX:=/usr/local}" "${FORCE:=}"
MANIFEST=$DESTDIR$PREFIX/share/remram/manifest

remove_conf() {
	local path=$1 sum=$2 now
	[[ -e $DESTDIR$path ]] || return 0
	now=$(sha256sum <"$DESTDIR$path")
	if [[ ${now%% *} == "$sum" ]]; then
		rm "$DESTDIR$path"
	else
		say "uninstall: $path was changed and stays"
	fi
}

remove_link() {
	local path=$1 target=$2
	[[ -e $DESTDIR$path || -L $DESTDIR$path ]] || return 0
	if [[ $(readlink "$DESTDIR$path") == "$target" ]]; then
		rm "$DESTDIR$path"
	else
		say "uninstall: $path is not the link that was installed and stays"
	fi
}

remove_dir() {
	[[ ! -d $DESTDIR$1 ]] || rmdir "$DESTDIR$1" 2>/dev/null ||
		say "uninstall: $1 holds something else and stays"
}

remove_all() {
	local lines line kind path rest i
	mapfile -t lines <"$MANIFEST"
	rm "$MANIFEST"
	for ((i = ${#lines[@]} - 1; i >= 0; i--)); do
		line=${lines[i]}
		read -r kind path rest <<<"$line"
		case $kind in
		file) rm -f "$DESTDIR$path" ;;
		dir) remove_dir "$path" ;;
		link) remove_link "$path" "$rest" ;;
		conf) remove_conf "$path" "$rest" ;;
		*) say "uninstall: \"$line\" in the manifest makes no sense" ;;
		esac
	done
}

# refuse_while_used: helpers and unit of the running system are in use.
refuse_while_used() {
	local mounts
	mounts=$(awk '{ for (i = 7; $i != "-"; i++); if ($(i + 1) == "fuse.remram") print $5 }' /proc/self/mountinfo)
	[[ -z $mounts ]] || die "mounted at: ${mounts//$'\n'/ }: unmount first, or say FORCE=1"
	if [[ -d /run/systemd/system ]] && systemctl -q is-active remramd; then
		die "remramd is running: systemctl disable --now remramd first, or say FORCE=1"
	fi
}

[[ -e $MANIFEST ]] || die "nothing is installed there: $MANIFEST does not exist (same PREFIX and DESTDIR?)"
[[ -w $MANIFEST ]] || die "needs root: run it with sudo"
[[ -n $FORCE || -n $DESTDIR ]] || refuse_while_used
remove_all
[[ -n $DESTDIR || ! -d /run/systemd/system ]] || systemctl daemon-reload || true
