#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Any name of 1 to 255 bytes works, and listings are complete, however many regions come and go meanwhile.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse
donor_start ram=memory:?size=64M disk="file:$T/pool"
mount_pool ram "$T/ram"
mount_pool disk "$T/disk"

long=$(printf 'x%.0s' {1..255})
# 255 bytes of two-byte characters and one more.
umlauts=$(printf 'ü%.0s' {1..127})y
names=(a . x "with space" " " "  two  " -rf --help $'new\nline' $'tab\t' $'\x01\x7f' $'\e[31mred' $'\xff\xfe'
	$'half\xc3' "ümläut" "日本語" "🦊" '*' '?' '[a]' '\' '\\' '"' "'" '$HOME' '`id`' ';' '&' '|' '%s%n' '~'
	.hidden ... '..x' "a.b" 'C:' '#x' "$long" "$umlauts")

for pool in ram disk; do
	M=$T/$pool

	step "$pool: every kind of name can be made, read, listed, renamed and removed"
	rm -rf "$T/names"
	mkdir "$T/names"
	for name in "${names[@]}"; do
		[[ $name != . ]] || continue
		printf %s "$name" >"$M/$name"
		printf %s "$name" >"$T/names/$name"
	done
	(cd "$M" && find . -mindepth 1 -print0 | sort -z) >"$T/got"
	(cd "$T/names" && find . -mindepth 1 -print0 | sort -z) >"$T/expected"
	same "$T/got" "$T/expected"
	for name in "${names[@]}"; do
		[[ $name != . ]] || continue
		is "contents" "$(<"$M/$name")" "${name%"${name##*[!$'\n']}"}"
		run mv -- "$M/$name" "$M/renamed"
		run mv -- "$M/renamed" "$M/$name"
	done
	umount_dir "$M"
	mount_pool "$pool" "$M"
	(cd "$M" && find . -mindepth 1 -print0 | sort -z) >"$T/got"
	same "$T/got" "$T/expected"
	run find "$M" -mindepth 1 -delete
	is "entries" "$(ls -A "$M")" ""

	step "$pool: names that are none"
	refused "File name too long" touch "$M/${long}x"
	refused "File name too long" touch "$M/${umlauts}ü"
	refused "File name too long" stat "$M/${long}x"
	touch "$M/a"
	refused "File name too long" mv "$M/a" "$M/${long}x"
	refused "No such file" touch "$M/a b/c"
	refused "directory" rm -f "$M/."
	run rm "$M/a"

	step "$pool: names differ by every byte"
	touch "$M/A" "$M/a" "$M/a " "$M/ä" "$M/"$'a\xcc\x88'
	is "regions" "$(find "$M" -mindepth 1 | wc -l)" 5
	run find "$M" -mindepth 1 -delete
done

M=$T/ram
step "2000 regions are listed, each once"
(cd "$M" && run touch region-{0001..2000})
is "ls" "$(run ls "$M" | md5sum)" "$(printf '%s\n' region-{0001..2000} | md5sum)"
is "ls -l" "$(run ls -l "$M" | grep -c '^-rw')" 2000
is "find" "$(run find "$M" -type f -empty -name 'region-*' | wc -l)" 2000
is "df -i: used" "$(run df --output=iused "$M" | tail -n 1 | tr -d ' ')" 2000

step "listings while regions come and go: what stays is in each of them, once"
churn() {
	local i
	for ((i = 0; i < 400; i++)); do
		: >"$1/come-$2-$i"
		rm "$1/come-$2-$i"
		((i % 4)) || mv "$1/region-0$((100 + i))" "$1/moved-$2-$i"
	done
}
export -f churn
job bash -c 'churn "$@"' churn "$M" 1
churner=$JOB
lister() {
	local round names
	for round in {1..15}; do
		names=$(find "$1" -mindepth 1 -name 'region-1*' | sort)
		[[ $(wc -l <<<"$names") -eq 1000 && -z $(uniq -d <<<"$names") ]] || {
			echo "round $round: $(wc -l <<<"$names") names, twice: $(uniq -d <<<"$names")"
			return 1
		}
	done
}
export -f lister
job bash -c 'lister "$@"' lister "$M"
first=$JOB
job bash -c 'lister "$@"' lister "$M"
job_passes 60
job_passes 60 "$first"
job_passes 60 "$churner"
is "regions afterwards" "$(run ls "$M" | wc -l)" 2000

step "removing all of them"
run find "$M" -mindepth 1 -delete
is "entries" "$(ls -A "$M")" ""
umount_dir "$T/ram"
umount_dir "$T/disk"
finish
