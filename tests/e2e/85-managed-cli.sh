#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The commands of mounts with a cache: pull, flush, evict, pin, record, top, rescue, and what status says.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse jq setfattr getfattr
donor_start ram=memory:?size=256M --lease 2s
M=$T/m D=$T/d C=$T/cache

# of FILTER: what `status --json` says of the managed mount.
of() {
	run "$REMRAM" status --json "$M" | jq -r ".[0].daemon$1"
}

# cache_of REGION MEMBER
cache_of() {
	of ".regions[] | select(.name == \"$1\") | .cache.$2"
}

tasks_are() {
	[[ $(of .tasks) == "$1" ]]
}

# comes REGION: a pull of it has begun, and has not ended.
comes() {
	[[ $(cache_of "$1" resident) -gt 0 ]]
}

opens() {
	"$TOOLS/fileop" "$1" size >/dev/null 2>&1
}

says_of_status() {
	[[ $(run "$REMRAM" status "$M") == *"$1"* ]]
}

# aside FILTER: of what is kept aside first.
aside() {
	run "$REMRAM" rescue --json "$C" | jq -r ".[0] | $1"
}

has_aside() {
	[[ $(aside .key) != null ]]
}

connected() {
	[[ $(of .connection.state) == connected ]]
}

# Its own words on stdout, nothing on stderr (which is no terminal).
says() {
	local expected=$1 code=0
	shift
	timeout -k 5 60 "$@" >"$T/out" 2>"$T/err" </dev/null || code=$?
	is "exit code of $*" "$code" 0
	is "$*" "$(<"$T/out")" "$expected"
	is "stderr of $*" "$(<"$T/err")" ""
}

# code_of EXPECTED TEXT COMMAND…: how it fails, and with what sentence.
code_of() {
	local expected=$1 text=$2 code=0
	shift 2
	timeout -k 5 60 "$@" >"$T/out" 2>"$T/err" </dev/null || code=$?
	is "exit code of $*" "$code" "$expected"
	contains "stderr of $*" "$(<"$T/err")" "$text"
	is "stdout of $*" "$(<"$T/out")" ""
}

# on_terminal SIZE [ACTION…] -- COMMAND…: what it writes to a terminal; see tests/tools/terminal.c.
on_terminal() {
	run_for 60 "$TOOLS/terminal" "$@"
}

mount_pool ram "$D"
fileop --create "$D/work" write 0 32M 1
fileop --create "$D/small" write 0 1M 2
mount_pool ram "$M" -o cache=memory,pull=none,push_interval=1h,max_dirty=64M,cache_size=128M

step "pull fetches ranges, and returns when they are there"
says "$M/work: 9.0 MiB here" "$REMRAM" pull "$M/work" 0-8M,31M-:9
is "resident" "$(cache_of work resident)" $((9 << 20))
is "fetched" "$(cache_of work fetched)" $((9 << 20))
says "" "$REMRAM" pull -q "$M/work" 0-1M
is "fetched again" "$(cache_of work fetched)" $((9 << 20))
says "$M/work: 32.0 MiB here" "$REMRAM" pull "$M/work"
is "resident" "$(cache_of work resident)" $((32 << 20))
fileop --read "$M/work" verify 0 32M 1
says "$M/work: 0 B here" "$REMRAM" pull "$M/work" 1G-2G

step "evict gives it back, but not what is pinned"
says "" "$REMRAM" pin "$M/work" 4M-8M
says "$M/work: 28.0 MiB given back" "$REMRAM" evict "$M/work"
is "resident" "$(cache_of work resident)" $((4 << 20))
is "pinned" "$(run getfattr --absolute-names --only-values -n user.remram.pinned "$M/work")" "4M-8M"
says "" "$REMRAM" unpin "$M/work"
says "$M: 4.0 MiB given back" "$REMRAM" evict "$M"
is "resident" "$(cache_of work resident)" 0

step "flush pushes what is dirty, and waits"
talk writer "$TOOLS/fileop" "$M/work" -
tell writer write 1M 2M 3
is "dirty" "$(cache_of work dirty)" $((2 << 20))
is "lease" "$(of '.regions[] | select(.name == "work") | .lease')" held
contains "status" "$(run "$REMRAM" status "$M")" "region      work, 32.0 MiB, open 1 time, lease held, 2.0 MiB here, 2.0 MiB dirty for "
contains "status" "$(run "$REMRAM" status "$M")" "cache       in memory, 2.0 MiB of 128.0 MiB, 2.0 MiB of 64.0 MiB dirty for "
says "$M/work: flushed" "$REMRAM" flush "$M/work" 1M-2M
at_most "dirty" "$(cache_of work dirty)" $((1 << 20))
fileop --read "$D/work" verify 1M 1M 3
run "$REMRAM" flush -q "$M"
is "dirty" "$(cache_of work dirty)" 0
fileop --read "$D/work" verify 1M 2M 3
tell writer write 5M 1M 4
says "$M/work: 0 B given back" "$REMRAM" evict "$M/work" 5M-6M
says "$M: 1.0 MiB flushed" "$REMRAM" flush "$M"
says "$M/work: 1.0 MiB given back" "$REMRAM" evict "$M/work" 5M-6M
hang_up writer

step "what was recorded is pulled first, in its order"
run "$REMRAM" evict -q "$M"
run "$REMRAM" record -q -o "$T/order" "$M/work" -- "$TOOLS/fileop" --read "$M/work" verify 24M 4096 1 , verify 8M 4096 1
is "the comment" "$(head -n 1 "$T/order")" "# pull order of $M/work: FROM-TO[:PRIORITY], first to last"
contains "first" "$(sed -n 2p "$T/order")" "24M-"
contains "second" "$(sed -n 3p "$T/order")" "8M-"
run "$REMRAM" evict -q "$M"
run "$REMRAM" pull -q --order "$T/order" "$M/work"
at_least "resident" "$(cache_of work resident)" 8192
at_most "resident" "$(cache_of work resident)" $((16 << 20))
is "from stdin" "$(grep -v '#' "$T/order" | run "$REMRAM" pull -q -o - "$M/work")" ""
# It is what the attribute takes, too.
run setfattr -n user.remram.pull_order -v "$(grep -v '#' "$T/order" | paste -sd,)" "$M/work"
code=0
"$REMRAM" record -q "$M/work" -- sh -c 'exit 7' >"$T/out" || code=$?
is "the command's exit code" "$code" 7

step "recording ends with an interrupt"
"$REMRAM" record -o "$T/order2" "$M/small" >"$T/out" 2>"$T/err" &
recorder=$!
guard_add job "$recorder"
eventually 10 "it records" grep -q Ctrl-C "$T/err"
fileop --read "$M/small" verify 512K 4096 2
kill -INT "$recorder"
job_passes 10 "$recorder"
contains "its last words" "$(<"$T/err")" "1 ranges recorded"
contains "the order" "$(<"$T/order2")" "512K-"

step "an interrupt ends a pull, and what waits for a donor that is away"
run "$REMRAM" evict -q "$M"
exec 8<"$M/work"
run stat -L -t /proc/$$/fd/8 >"$T/out"
donor_halt
for file in /proc/$$/fd/8 "$M/work"; do
	"$REMRAM" pull "$file" >"$T/out" 2>"$T/err" &
	puller=$!
	guard_add job "$puller"
	sleep 1
	kill -INT "$puller"
	job_wait 10 "$puller"
	is "exit code" "$JOB_CODE" 8
	contains "its last words" "$(<"$T/err")" "$file: interrupted"
done
kill -CONT "$DONOR_PID"
exec 8<&-
eventually 20 "the donor is back" connected
run_for 60 "$REMRAM" pull -q "$M/work"
fileop --read "$M/work" verify 8M 24M 1

step "top shows it in a frame of the terminal's size"
contains "top --once" "$(run "$REMRAM" top --once -i 100ms "$M")" "$M: 127.0.0.1:$DONOR_PORT:/ram"
COLUMNS=80 run "$REMRAM" top --once -i 100ms "$M" >"$T/frame"
at_most "the longest line" "$(LC_ALL=C.UTF-8 wc -L <"$T/frame")" 80
contains "a full map" "$(<"$T/frame")" "██████████████████████████████████████████████████████████████████████████████"
contains "the region" "$(<"$T/frame")" "work                 32.0 MiB 100.0 %"
contains "ASCII" "$(run "$REMRAM" top --once --ascii -i 100ms "$M")" "##########"
is "beyond ASCII" "$(run "$REMRAM" top --once --ascii -i 100ms "$M" | tr -d '\0-\177' | wc -c)" 0
code_of 32 "needs a terminal" "$REMRAM" top
for size in 80x24 40x10 200x60; do
	on_terminal $size wait=1500 type=jkq -- "$REMRAM" top -i 200ms "$M" >"$T/screen"
	contains "the other screen, and back" "$(<"$T/screen")" $'\e[?1049l'
	contains "the heading" "$(<"$T/screen")" "remram top"
done
on_terminal 80x24 wait=2000 size=120x30 wait=2000 type=q -- "$REMRAM" top -i 10s "$M" >"$T/screen"
# A map of four rows; the new size shows at once.
contains "the legend in the last line" "$(<"$T/screen")" $'dirty\e[K\e[J'
is "frames" "$(grep -o $'\e\[H' "$T/screen" | wc -l)" 2
code=0
timeout 30 "$TOOLS/terminal" 80x24 wait=2000 type=^C -- "$REMRAM" top "$M" >"$T/screen" || code=$?
is "exit code after Ctrl-C" "$code" 0
contains "back after Ctrl-C" "$(<"$T/screen")" $'\e[?1049l'

step "mistakes are named, with mount's exit codes"
code_of 32 "is mounted without a cache: mount it with -o cache=" "$REMRAM" pull "$D/work"
code_of 32 "is mounted without a cache" "$REMRAM" flush "$D"
code_of 32 "is mounted without a cache" "$REMRAM" evict "$D/work"
code_of 32 "is not in a remram mount" "$REMRAM" pull "$T/order"
code_of 32 "No such file" "$REMRAM" pull "$M/none"
code_of 32 "is a mount: name one of the files" "$REMRAM" pin "$M"
code_of 32 "has no ranges" "$REMRAM" flush "$M" 0-1
code_of 32 "it ends before it begins" "$REMRAM" pull "$M/work" 8-4
code_of 32 "either a range or --order" "$REMRAM" pull -o "$T/order" "$M/work" 0-1
code_of 32 "order3" "$REMRAM" pull -o "$T/order3" "$M/work"
code_of 32 "none/order" "$REMRAM" record -o "$T/none/order" "$M/work" -- true
code_of 1 "only root" setpriv --reuid 65534 --clear-groups "$REMRAM" pull "$M/work"
code_of 1 "usage" "$REMRAM" flush

umount_dir "$M"

step "on a slow network there is a bar on a terminal, and plain lines elsewhere"
network_start --bandwidth 16M
SRC=127.0.0.1:$NETWORK_PORT:/ram
mkdir -p "$M"
guard_add mount "$M"
on_terminal 80x24 -- "$REMRAM" mount "$SRC" "$M" -o cache=memory,pull=all,pull_first=50%,push_interval=1h,max_dirty=64M \
	>"$T/screen"
contains "mount" "$(<"$T/screen")" "pulling first  ["
at_least "resident" "$(cache_of work resident)" $((16 << 20))
run "$REMRAM" pull -q "$M/work"
run "$REMRAM" evict -q "$M"
on_terminal 80x24 -- "$REMRAM" pull "$M/work" >"$T/screen"
contains "pull" "$(<"$T/screen")" "pulling  ["
contains "its last line" "$(tail -n 1 "$T/screen")" "work: 32.0 MiB here"
talk writer "$TOOLS/fileop" "$M/work" -
tell writer write 0 16M 5
on_terminal 80x24 -- "$REMRAM" flush "$M/work" >"$T/screen"
contains "flush" "$(<"$T/screen")" "flushing  ["
contains "its last line" "$(tail -n 1 "$T/screen")" "work: 16.0 MiB flushed"
network bandwidth 4M
run "$REMRAM" evict -q "$M"
run "$REMRAM" pull -q "$M/work" 0-1M
run_for 60 "$REMRAM" pull "$M/work" >"$T/out" 2>"$T/err"
contains "a plain line" "$(head -n 1 "$T/err")" "pulling: "
is "columns moved" "$(grep -c $'\e' "$T/err")" 0
tell writer write 0 16M 6
hang_up writer
on_terminal 80x24 -- "$REMRAM" umount "$M" >"$T/screen"
contains "umount" "$(<"$T/screen")" "pushing  ["
guard_drop mount "$M"
fileop --read "$D/work" verify 0 16M 6

step "a daemon forgets what a killed command wanted, also while its donor is away"
mount_source "$SRC" "$M" -o cache=memory,pull=none,push_interval=1h,max_dirty=64M
network bandwidth 1M
"$REMRAM" pull "$M/work" >/dev/null 2>&1 &
puller=$!
guard_add job "$puller"
talk writer "$TOOLS/fileop" "$M/small" -
tell writer write 0 1M 7
"$REMRAM" flush "$M/small" >/dev/null 2>&1 &
flusher=$!
guard_add job "$flusher"
eventually 10 "both wait" tasks_are 2
eventually 10 "data comes" comes work
network blackhole
kill -KILL "$puller" "$flusher"
job_wait 10 "$puller"
job_wait 10 "$flusher"
eventually 20 "nobody waits" tasks_are 0
network bandwidth 0
network resume
eventually 20 "the donor is back" connected
run_for 60 "$REMRAM" pull -q "$M/work"
fileop --read "$M/work" verify 16M 16M 1
hang_up writer
umount_dir "$M"
fileop --read "$D/small" verify 0 1M 7

step "what goes aside with a lost lease is listed, written, pushed and dropped"
network bandwidth 0
mount_source "$SRC" "$M" -o "cache=$C,pull=none,push_interval=1h,max_dirty_age=2h"
says "nothing is kept aside" "$REMRAM" rescue "$C"
talk writer "$TOOLS/fileop" "$M/work" -
tell writer write 1M 64K 7
network blackhole
eventually 20 "the lease is taken" opens "$D/work"
fileop "$D/work" write 0 2M 8 , fsync
network resume
[[ $(ask_talk writer fsync | tail -n 1) == failed ]] || fail "fsync has not failed"
eventually 10 "status knows" says_of_status "LEASE LOST to another client"
contains "top" "$(run "$REMRAM" top --once -i 100ms "$M")" "LEASE LOST"
hang_up writer
eventually 10 "it is kept aside" has_aside
is "what it is" "$(aside '"\(.kind) \(.name) \(.dirty_bytes) \(.ranges) \(.unknown)"')" "region work 65536 1 false"
contains "for people" "$(run "$REMRAM" rescue list "$C")" "  work  64.0 KiB dirty in 1 range, of 32.0 MiB"
key=$(aside .key)
run "$REMRAM" rescue write "$C" "$key" "$T/rescued" >"$T/out"
is "size" "$(stat -c %s "$T/rescued")" $((32 << 20))
fileop --read "$T/rescued" verify 1M 64K 7
fileop --read "$D/work" verify 0 2M 8
says "$M/work: 64.0 KiB pushed; \`remram rescue drop $C $key\` removes what was kept aside" \
	"$REMRAM" rescue push "$C" "$key" "$M/work"
fileop --read "$D/work" verify 0 1M 8 , verify 1M 64K 7
code_of 32 "--force drops it for ever" "$REMRAM" rescue drop "$C" "$key"
says "" "$REMRAM" rescue drop --force "$C" "$key"
says "nothing is kept aside" "$REMRAM" rescue "$C"
umount_dir "$M"
umount_dir "$D"
finish
