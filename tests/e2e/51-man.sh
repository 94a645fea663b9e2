#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# --help, --version, exit codes and man pages of the programs agree. (That the pages list the options of the
# programs' tables is tests/unit/man_pages.)
. "$(dirname "$0")/lib.sh"
requires root mandoc jq
cd "$E2E_ROOT" || exit

step "man pages have no faults"
for page in docs/man/*.[1-8]; do
	# Whether the pages that they refer to are installed on this machine does not matter.
	said=$(mandoc -T lint "$page" 2>&1 | grep -vE 'referenced manual not found|mandoc\.db' || true)
	is "mandoc -T lint $page" "$said" ""
done

# page FILE: the text of a man page, without formatting, in one line.
page() {
	mandoc -T utf8 "docs/man/$1" | sed 's/.\x08//g' | tr -s '[:space:]‐' ' '
}

# documented PAGE COMMAND…: every option in the output of the command stands in the page.
documented() {
	local text option
	text=$(page "$1")
	shift
	while read -r option; do
		[[ $text == *" $option"[\ ,=\]]* ]] || fail "$option of \"$*\" is not in the man page"
	done < <(run "$@" | sed -nE 's/^  (-[a-zA-Z]), (--[a-z-]+).*/\1\n\2/p; s/^  (--[a-z-]+).*/\1/p')
}

step "every option of every command is in its man page"
documented remramd.8 "$REMRAMD" --help
documented remram-export.8 "$REMRAM" export --help
for command in mount umount status top doctor pull flush evict pin unpin record rescue; do
	documented remram.8 "$REMRAM" "$command" --help
done
text=$(page remram.8)
for command in mount umount status top doctor abort export pull flush evict pin unpin record rescue; do
	contains "remram.8" "$text" "remram $command"
	contains "remram help" "$(run "$REMRAM" help)" " $command"
done

# code_of COMMAND…: its exit code; it must not print to stdout when it fails.
code_of() {
	local code=0
	timeout -k 5 20 "$@" >"$T/out" 2>"$T/err" </dev/null || code=$?
	[[ $code -eq 0 || ! -s $T/out ]] || fail "an error on stdout: $*: $(<"$T/out")"
	[[ $code -eq 0 || -s $T/err ]] || fail "failed without a word: $*"
	echo "$code"
}

step "versions are the same, and on stdout"
version=$(sed -n 's/^VERSION *:= *//p' Makefile)
is "remram" "$(run "$REMRAM" --version 2>/dev/null)" "remram $version"
is "remramd" "$(run "$REMRAMD" --version 2>/dev/null)" "remramd $version"
run ln -s "$REMRAM" "$T/mount.remram"
run ln -s "$REMRAM" "$T/umount.fuse.remram"
contains "mount.remram --help" "$(run "$T/mount.remram" --help)" "usage: remram mount"
contains "umount.fuse.remram --help" "$(run "$T/umount.fuse.remram" --help)" "usage: remram umount"

step "success is 0, a wrong call 1"
for call in "$REMRAM help" "$REMRAM --help" "$REMRAM -V" "$REMRAM mount -h" "$REMRAM status" \
	"$REMRAM status --json" "$REMRAMD -h" "$REMRAMD -V"; do
	# shellcheck disable=SC2086 # a command line
	is "$call" "$(code_of $call)" 0
done
for call in "$REMRAM" "$REMRAM frobnicate" "$REMRAM mount" "$REMRAM mount donor:/ram" "$REMRAM mount a b c" \
	"$REMRAM mount donor:/ram $T -o sise=1G" "$REMRAM mount donor $T" "$REMRAM umount" "$REMRAM umount a b" \
	"$REMRAM status --jason" "$REMRAM abort" "$REMRAM pull" "$REMRAM pull a b c" "$REMRAM flush" "$REMRAM evict" \
	"$REMRAM pin" "$REMRAM unpin a b c" "$REMRAM record" "$REMRAM rescue" "$REMRAM rescue drop a" \
	"$REMRAM top --interval 1ms" "$REMRAMD --frob" "$REMRAMD --pool" "$REMRAMD --config /dev/null" \
	"$REMRAMD --config $T/none" "$REMRAMD operand"; do
	# shellcheck disable=SC2086
	is "$call" "$(code_of $call)" 1
done

step "what cannot be done is 32 for mounts, and 2 for the donor"
port=$(e2e_port)
run mkdir "$T/dir"
for call in "$REMRAM mount 127.0.0.1:$port:/ram $T/dir" "$REMRAM mount 127.0.0.1:$port:/ram $T/none" \
	"$REMRAM mount file:$T/none $T/dir" "$REMRAM umount $T/dir"; do
	# shellcheck disable=SC2086
	is "$call" "$(code_of $call)" 32
done
is "a pool that cannot be" "$(code_of "$REMRAMD" --config /dev/null --state "$T/state" --listen "127.0.0.1:$port" \
	--pool "disk=file:$T/none/there")" 2
for call in abort pull flush evict pin unpin record rescue top; do
	is "$call of what is no mount" "$(code_of "$REMRAM" "$call" "$T/dir")" 32
done

step "doctor ends with 0, 1 or 2, as it says"
code=0
"$REMRAM" doctor --json >"$T/out" || code=$?
case $(jq -r .result "$T/out") in
pass | note) is "doctor" "$code" 0 ;;
warn) is "doctor" "$code" 1 ;;
fail) is "doctor" "$code" 2 ;;
*) fail "doctor --json has no result" ;;
esac
finish
