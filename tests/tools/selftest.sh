#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Goal: the test tools themselves find what they are there to find, and do what they are told.
# No root needed.  TOOLS is the directory of the built tools (default build/tools).
set -euo pipefail

cd "$(dirname "$0")/../.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
TOOLS=$(realpath "${TOOLS:-build/tools}")
DIR=$(mktemp -d)
PIDS=()
FAILED=0

cleanup() {
	local pid
	for pid in "${PIDS[@]}"; do
		end_process "$pid"
	done
	rm -rf "$DIR"
}
trap cleanup EXIT

# check WHAT COMMAND…: the command must succeed.
check() {
	local what=$1
	shift
	if "$@"; then
		return 0
	fi
	say "FAILED: $what: $*"
	FAILED=1
}

# check_code WHAT CODE COMMAND…: the command must exit with that code; its output is in $DIR/out.
check_code() {
	local what=$1 want=$2 code=0
	shift 2
	# The outer redirection is for the shell's own remark on a command that a signal ended.
	{ "$@" >"$DIR/out" 2>&1; } 2>/dev/null || code=$?
	[[ $code -eq $want ]] && return 0
	say "FAILED: $what: exit $code instead of $want: $(tail -n 3 "$DIR/out")"
	FAILED=1
}

output_has() {
	grep -qF -- "$1" "$DIR/out"
}

# value NAME: NAME=value in the last output.
value() {
	sed -n "s/.*\b$1=\([^ ]*\).*/\1/p" "$DIR/out" | tail -n 1
}

between() {
	awk -v low="$1" -v x="$2" -v high="$3" 'BEGIN { exit !(x >= low && x <= high) }'
}

test_memwork() {
	check_code "a good run" 0 "$TOOLS/memwork" --size 8M --rounds 3
	check "all is right" output_has "wrong_words=0"
	check_code "a flipped bit is found in each phase that reads" 1 \
		"$TOOLS/memwork" --size 8M --rounds 0 --random 100000 --flip-at 1234567
	check "its place is named" output_has "offset 1234560"
	check_code "a flipped bit in the last byte" 1 \
		"$TOOLS/memwork" --size 8M --rounds 0 --random 0 --flip-at 8388607
	check "it is counted once" test "$(value wrong_words)" = 1
	check_code "a size that is no number" 2 "$TOOLS/memwork" --size 8X
	check_code "a time limit" 142 "$TOOLS/memwork" --size 8M --rounds 1000000 --timeout 1
}

test_fileop() {
	local file=$DIR/file op=$TOOLS/fileop
	check_code "write and verify" 0 "$op" --create "$file" write 3 1000003 7 , verify 3 1000003 7 , \
		verify 77 100 7 , zeros 0 3
	check_code "another seed" 1 "$op" "$file" verify 3 1000003 8
	printf x | dd of="$file" bs=1 seek=5000 conv=notrunc status=none
	check_code "one wrong byte" 1 "$op" "$file" verify 3 1000003 7
	check "its place is named" output_has "1 wrong bytes, the first at offset 5000"
	check_code "past the end" 1 "$op" "$file" verify 3 1000004 7
	check_code "a byte that is not zero" 1 "$op" "$file" zeros 0 4
	check_code "an expected error" 0 "$op" --read "$file" expect EBADF write 0 1 1
	check_code "an expected error that does not come" 1 "$op" "$file" expect EBADF write 0 1 1
	check_code "a mapping" 0 "$op" --create --trunc "$file" truncate 1M , map 0 1M shared rw , \
		map-write 10 5000 9 , map-verify 10 5000 9 , map-sync , verify 10 5000 9 , map-zeros 5010 1000
	check_code "a private mapping" 0 "$op" "$file" map 0 1M private rw , map-write 10 5000 3 , \
		map-verify 10 5000 3 , verify 10 5000 9
	check_code "wrong data in a mapping" 1 "$op" "$file" map 0 1M shared r , map-verify 10 5000 3
	check_code "SIGBUS" 0 "$op" "$file" map 0 2M shared r , expect SIGBUS map-touch 0 2M
	check_code "a file that is not there" 3 "$op" "$DIR/none" size
	check "the error is named" output_has ENOENT
	check_code "no such operation" 2 "$op" "$file" frobnicate
	check_code "operations from stdin" 1 "$op" "$file" - <<<$'size\nverify 10 5000 4\nverify 10 5000 9'
	check "an answer for each" test "$(grep -cxE 'ok|failed' "$DIR/out")" = 3
}

start_proxy() {
	"$TOOLS/netprobe" serve 127.0.0.1:0 >"$DIR/echo-port" &
	PIDS+=($!)
	wait_until 5 test -s "$DIR/echo-port"
	"$TOOLS/proxy" --listen 127.0.0.1:0 --target "127.0.0.1:$(<"$DIR/echo-port")" \
		--control "$DIR/control" --ready-fd 9 9>"$DIR/proxy-port" &
	PIDS+=($!)
	wait_until 5 test -s "$DIR/proxy-port"
	PROXY=127.0.0.1:$(<"$DIR/proxy-port")
}

tell() {
	"$TOOLS/ask" "$DIR/control" "$@" >/dev/null
}

# forwarded: bytes in both directions since the proxy's start.
forwarded() {
	"$TOOLS/ask" "$DIR/control" stats >"$DIR/out"
	echo $(($(value up_bytes) + $(value down_bytes)))
}

connections_are() {
	"$TOOLS/ask" "$DIR/control" stats >"$DIR/out"
	[[ $(value connections) -eq $1 ]]
}

# held_back MODE: nothing passes until resume, and then everything, in order.  The delay sees to it that
# bytes are under way when it begins.
held_back() {
	local probe before
	tell delay 100
	"$TOOLS/netprobe" bulk "$PROXY" 20M >"$DIR/bulk" &
	probe=$!
	sleep 0.05
	tell "$1"
	tell delay 0
	before=$(forwarded)
	sleep 0.3
	check "$1: nothing passes" test "$(forwarded)" = "$before"
	check "$1: nobody is told" process_alive "$probe"
	tell resume
	check "$1: resume delivers everything" wait "$probe"
}

# one_of_two: what is done to one of two connections leaves the other as it is.
one_of_two() {
	local first second before
	tell delay 20
	"$TOOLS/netprobe" ping "$PROXY" 50 >"$DIR/first" &
	first=$!
	wait_until 5 connections_are 1
	tell delay-one 1 25
	tell delay 0
	"$TOOLS/netprobe" bulk "$PROXY" 50M >"$DIR/second" &
	second=$!
	wait_until 5 connections_are 2
	check "the other is through first" wait "$second"
	check "while the one lags" process_alive "$first"
	"$TOOLS/ask" "$DIR/control" stats-one 1 >"$DIR/out"
	check "it is the one that lags" test "$(value lag_ms)" = 25.000
	tell stall-one 1
	"$TOOLS/ask" "$DIR/control" stats-one 1 >"$DIR/out"
	check "it is stalled" test "$(value stalled)" = 1
	before=$(value up_bytes)
	check "bytes have passed it" test "$before" -gt 0
	check_code "the other is not" 0 "$TOOLS/netprobe" bulk "$PROXY" 5M
	"$TOOLS/ask" "$DIR/control" stats-one 1 >"$DIR/out"
	check "nothing passes the stalled one" test "$(value up_bytes)" = "$before"
	tell resume
	tell delay-one 1 0
	check "it goes on after" wait "$first"
	cp "$DIR/first" "$DIR/out"
	check "it did lag" between 50000 "$(value max_us)" 1e9
	wait_until 5 connections_are 0
}

test_netprobe() {
	"$TOOLS/netprobe" give 127.0.0.1:0 >"$DIR/give-port" &
	PIDS+=($!)
	wait_until 5 test -s "$DIR/give-port"
	check_code "bytes for ever" 0 "$TOOLS/netprobe" take "127.0.0.1:$(<"$DIR/give-port")" 50M
	check "with a rate" between 1 "$(value mb_s)" 1e9
}

test_proxy() {
	local before oldest other
	start_proxy
	check_code "echo in order" 0 "$TOOLS/netprobe" bulk "$PROXY" 100M
	tell delay 20
	check_code "pings with a delay" 0 "$TOOLS/netprobe" ping "$PROXY" 20
	check "never early" between 40000 "$(value min_us)" 1e9
	# The margin is for a machine that is busy with other things.
	check "nor late" between 40000 "$(value median_us)" 60000
	check_code "40 MB in flight keep their order" 0 "$TOOLS/netprobe" bulk "$PROXY" 40M
	tell delay 0
	tell bandwidth 50M
	check_code "limited bandwidth" 0 "$TOOLS/netprobe" bulk "$PROXY" 25M
	check "the limit holds" between 1 "$(value mb_s)" 60
	tell bandwidth 0
	before=$(forwarded)
	tell cut-after 1000001
	check_code "cut after a number of bytes" 1 "$TOOLS/netprobe" bulk "$PROXY" 50M
	check "by a reset" test "$(value end)" = reset
	check "exactly there" test $(($(forwarded) - before)) = 1000001
	check_code "once only" 0 "$TOOLS/netprobe" bulk "$PROXY" 5M
	held_back stall
	held_back blackhole
	tell refuse
	check_code "connections refused" 3 "$TOOLS/netprobe" ping "$PROXY" 1
	check "by the kernel" output_has refused
	tell accept
	check_code "connections accepted" 0 "$TOOLS/netprobe" ping "$PROXY" 1
	tell delay 300
	"$TOOLS/netprobe" bulk "$PROXY" 50M >"$DIR/bulk" &
	sleep 0.1
	tell cut
	wait $! || true
	check "cut resets" grep -qx end=reset "$DIR/bulk"
	tell most 2
	"$TOOLS/netprobe" bulk "$PROXY" 50M >"$DIR/bulk" &
	oldest=$!
	sleep 0.1
	"$TOOLS/netprobe" bulk "$PROXY" 50M >"$DIR/bulk2" &
	other=$!
	sleep 0.1
	check_code "a connection too many" 3 "$TOOLS/netprobe" ping "$PROXY" 1
	tell cut-one 1
	wait "$oldest" || true
	check "cut-one resets the oldest" grep -qx end=reset "$DIR/bulk"
	check "and no other" wait "$other"
	tell most 0
	one_of_two
	check_code "no such connection" 1 "$TOOLS/ask" "$DIR/control" cut-one 1
	check_code "a number too few" 1 "$TOOLS/ask" "$DIR/control" delay-one 1
	check_code "an unknown command" 1 "$TOOLS/ask" "$DIR/control" frobnicate
	check_code "a number that makes no sense" 1 "$TOOLS/ask" "$DIR/control" delay -1
}

test_memwork
test_fileop
test_netprobe
test_proxy
[[ $FAILED -eq 0 ]] || die "some checks failed"
say "all tools do what they are for"
