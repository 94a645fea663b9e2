#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# `make check-asan` and `make check-tsan`: builds everything with sanitizers, and runs the tests that these can
# watch: all unit and contract programs, and end-to-end tests with daemons under the sanitizer.
#
#   scripts/check-sanitized.sh address,undefined|thread [PATTERN…]     (patterns as for tests/run.sh)
#
# Tests of swap and of locked memory are not among them: sanitizers turn mlockall(2) off.  Nor are those that take
# minutes under a sanitizer and run code that others run, too: CONTRACTS.  Daemons have no
# stderr, so reports go to files; each file is one failure, whatever the test thought of it.  The last line
# is "N passed, N failed, N skipped".
set -euo pipefail

cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

[[ $# -ge 1 ]] || die "usage: scripts/check-sanitized.sh address,undefined|thread [PATTERN…]"
SAN=$1
shift
CONTRACTS='^contract/(allocs|file_syscalls|lease|managed(_job|_life)?$|nbd_(handshake|libnbd)|peer|server(_session)?$|stable|stores)'
case $SAN in
address,undefined) [[ $# -gt 0 ]] || set -- '^unit/' "$CONTRACTS" '^contract/nbd_(abuse|commands)' '^e2e/1[0-5]' '^e2e/26' '^e2e/40' '^e2e/76' ;;
# What has threads.
thread) [[ $# -gt 0 ]] || set -- '^unit/(blk|conn(_end|_pipe)?|control|file|log|loop|managed_control|workers)$' \
	'^contract/(lease|managed(_job|_life|_settings)?|caching|peer_conns|peer_conns_donor|peer_donor|server|server_session)$' '^e2e/1[0-2]' ;;
*) die "$SAN: address,undefined or thread" ;;
esac
export O=build-${SAN//,/-}
REPORTS=$PWD/$O/sanitizer

scripts/deps.sh build test
make --no-print-directory -j"$(nproc)" SAN="$SAN" O="$O" everything
rm -f "$REPORTS".*
COMMON=log_path=$REPORTS:print_stacktrace=1
export ASAN_OPTIONS=$COMMON:detect_leaks=1 UBSAN_OPTIONS=$COMMON
export LSAN_OPTIONS=suppressions=$PWD/scripts/lsan.supp:print_suppressions=0
export TSAN_OPTIONS=$COMMON:second_deadlock_stack=1:suppressions=$PWD/scripts/tsan.supp:print_suppressions=0

# What needs locked memory is skipped here, also where nothing else may be.
TEST_SECONDS=600 E2E_SECONDS=500 CI='' tests/run.sh "$@" | tee "$O/check.log" || true
read -r passed failed skipped < <(tail -n 1 "$O/check.log" |
	sed -nE 's/^([0-9]+) passed, ([0-9]+) failed, ([0-9]+) skipped$/\1 \2 \3/p')
for report in "$REPORTS".*; do
	[[ -e $report ]] || continue
	failed=$((failed + 1))
	say "FAILED: a report in $report:"
	head -n 60 "$report" >&2
done
echo "${passed:-0} passed, ${failed:-1} failed, ${skipped:-0} skipped"
[[ ${failed:-1} -eq 0 && ${passed:-0} -gt 0 ]]
