#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# `make install` calls this with O, DESTDIR, PREFIX, SBINDIR and SYSCONFDIR in the environment.
#
# Everything that is put in place, directories included, is written down in PREFIX/share/remram/manifest, so
# that scripts/uninstall.sh removes exactly that.  Installing over an installation is fine: the manifest keeps
# what the first one made.  Its lines, in the order of making and without DESTDIR:
#
#   dir PATH | file PATH | link PATH TARGET | conf PATH SHA256
set -euo pipefail

cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

: "${O:=build}" "${DESTDIR:=}" "${PREFIX:=/usr/local}" "${SBINDIR:=/sbin}" "${SYSCONFDIR:=/etc}"
MANIFEST=$DESTDIR$PREFIX/share/remram/manifest
LINES_MADE=()

# note LINE: for the manifest, once.
note() {
	local line
	for line in "${LINES_MADE[@]}"; do
		[[ $line != "$1" ]] || return 0
	done
	LINES_MADE+=("$1")
}

# Also when something failed half-way: what was made can be removed.
write_manifest() {
	[[ ! -d ${MANIFEST%/*} ]] || printf '%s\n' "${LINES_MADE[@]}" >"$MANIFEST"
}

# make_dir DIR: with those above it; what was not there before is ours.
make_dir() {
	[[ ! -d $DESTDIR$1 ]] || return 0
	make_dir "$(dirname "$1")"
	install -d -m 755 "$DESTDIR$1"
	note "dir $1"
}

# put MODE SOURCE PATH
put() {
	make_dir "$(dirname "$3")"
	install -m "$1" "$2" "$DESTDIR$3"
	note "file $3"
}

put_unit() {
	local path=$PREFIX/lib/systemd/system/remramd.service
	make_dir "$(dirname "$path")"
	sed "s|@SBINDIR@|$PREFIX/sbin|g" scripts/remramd.service.in >"$DESTDIR$path"
	chmod 644 "$DESTDIR$path"
	note "file $path"
}

put_link() {
	make_dir "$(dirname "$1")"
	ln -sfn "$2" "$DESTDIR$1"
	note "link $1 $2"
}

# put_conf SOURCE PATH: never over one that is there.
put_conf() {
	local sum
	make_dir "$(dirname "$2")"
	if [[ -e $DESTDIR$2 ]]; then
		cmp -s "$1" "$DESTDIR$2" || say "install: $2 is there and stays as it is"
		return 0
	fi
	install -m 644 "$1" "$DESTDIR$2"
	sum=$(sha256sum <"$1")
	note "conf $2 ${sum%% *}"
}

install_all() {
	local name page doc=$PREFIX/share/doc/remram
	make_dir "$PREFIX/share/remram"
	put 755 "$O/remram" "$PREFIX/bin/remram"
	put 755 "$O/remramd" "$PREFIX/sbin/remramd"
	# mount(8) and umount(8) look here, and nowhere else.
	for name in mount.remram mount.fuse.remram umount.remram umount.fuse.remram; do
		put_link "$SBINDIR/$name" "$PREFIX/bin/remram"
	done
	for page in docs/man/*.[1-8]; do
		put 644 "$page" "$PREFIX/share/man/man${page##*.}/${page##*/}"
	done
	put_unit
	put 644 LICENSE "$doc/LICENSE"
	put 644 scripts/fstab.example "$doc/fstab.example"
	put 644 scripts/remramd.conf.example "$doc/remramd.conf.example"
	put_conf scripts/remramd.conf.example "$SYSCONFDIR/remram/remramd.conf"
}

for dir in "$PREFIX" "$SBINDIR" "$SYSCONFDIR" ${DESTDIR:+"$DESTDIR"}; do
	[[ $dir == /* && $dir != *[[:space:]]* ]] ||
		die "\"$dir\": directories are absolute and without white space"
done
[[ -n $DESTDIR || $EUID -eq 0 ]] || die "needs root: run it with sudo, or set DESTDIR"
[[ ! -e $MANIFEST ]] || mapfile -t LINES_MADE <"$MANIFEST"
trap write_manifest EXIT
install_all
[[ -n $DESTDIR || ! -d /run/systemd/system ]] || systemctl daemon-reload ||
	say "install: systemd did not take note of the new unit: systemctl daemon-reload"
say "install: done; the donor's settings are in $SYSCONFDIR/remram/remramd.conf, see remramd(8) and remram(8)"
