#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# `make fuzz`: replays the corpus of each fuzz target, then lets it search for SECONDS (0: replay only).
#
#   O=build-fuzz scripts/fuzz.sh [SECONDS]
#
# A target is tests/fuzz/NAME.c, its corpus the files of tests/fuzz/corpus/NAME/.  What the search finds
# interesting is collected in $O/corpus/NAME, from where a person adds it to the tree; an input that breaks a
# target is kept as $O/NAME-crash-….
set -euo pipefail

cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

BUILD=${O:-build-fuzz}
TIME=${1:-20}
passed=0 failed=0

# result NAME WHAT CODE LOG
result() {
	if [[ $3 -eq 0 ]]; then
		passed=$((passed + 1))
		say "passed: $1: $2"
	else
		failed=$((failed + 1))
		say "FAILED: $1: $2"
		tail -n 40 "$4" >&2
	fi
}

for source in tests/fuzz/*.c; do
	name=$(basename "$source" .c)
	target=$BUILD/tests/fuzz/$name
	corpus=tests/fuzz/corpus/$name
	log=$BUILD/$name.log
	code=0
	mapfile -t inputs < <(find "$corpus" -type f | LC_ALL=C sort)
	[[ ${#inputs[@]} -gt 0 ]] || die "$corpus is empty"
	"$target" "${inputs[@]}" >"$log" 2>&1 || code=$?
	result "$name" "${#inputs[@]} inputs replayed" "$code" "$log"
	[[ $TIME -gt 0 ]] || continue
	mkdir -p "$BUILD/corpus/$name"
	code=0
	"$target" -max_total_time="$TIME" -timeout=10 -artifact_prefix="$BUILD/$name-" \
		"$BUILD/corpus/$name" "$corpus" >"$log" 2>&1 || code=$?
	result "$name" "searched for $TIME s: $(grep -oE '^Done [0-9]+ runs' "$log" | grep -oE '[0-9]+' || echo 0) runs" \
		"$code" "$log"
done
echo "$passed passed, $failed failed, 0 skipped"
[[ $failed -eq 0 && $passed -gt 0 ]]
