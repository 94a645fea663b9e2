#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# `make check-valgrind`: every unit and contract program under valgrind's memcheck.  A wrong access,
# a use of uninitialised memory or a leak fails the program.  Takes minutes.
#
# O is the build directory; arguments are names of programs (default: all): unit/opts contract/stores …
set -euo pipefail

cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

BUILD=${O:-build}
OPTIONS=(--quiet --suppressions=scripts/valgrind.supp --leak-check=full --errors-for-leak-kinds=definite --error-exitcode=99 --num-callers=20)

need_commands valgrind
names=("$@")
[[ $# -gt 0 ]] || mapfile -t names < <(find "$BUILD"/tests/{unit,contract,sim} -type f -perm -u+x 2>/dev/null |
	sed "s|^$BUILD/tests/||" | LC_ALL=C sort)
passed=0 failed=0
for name in "${names[@]}"; do
	# libcheck's time limits are made for programs that run at full speed.
	if CK_TIMEOUT_MULTIPLIER=20 timeout -k 10 600 valgrind "${OPTIONS[@]}" "$BUILD/tests/$name" \
		>"$BUILD/valgrind.log" 2>&1; then
		passed=$((passed + 1))
		say "passed: $name"
	else
		failed=$((failed + 1))
		say "FAILED: $name"
		tail -n 40 "$BUILD/valgrind.log" >&2
	fi
done
echo "$passed passed, $failed failed, 0 skipped"
[[ $failed -eq 0 ]]
