#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the tests: unit and contract programs (libcheck), the selftest of the test tools, and the
# end-to-end scripts.  Everything must have been built: make everything.
#
#   tests/run.sh                 all of them
#   tests/run.sh PATTERN…        those whose name matches one of the regular expressions: e2e/1, unit/opts, swap
#   tests/run.sh --list [PATTERN…]
#
# The programs are run beside the scripts, one of each kind at a time: both wait more than they work.
#
# One line for each: ok, FAIL or skip, its name, how many checks passed in it, and its time; for a failure also
# the end of its output.  Output of failures is kept in $O/test-logs.  The last line is
# "N passed, N failed, N skipped", counting the cases of a libcheck program and the steps of a script.
# Exit code: 0 if nothing failed, 1 if something did, 2 for a wrong call, 130 after an interrupt.
#
# Environment: O the build directory (default: build); TEST_SECONDS the limit for one test (300); CI, if it is
# set: a test that is skipped has failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

export O=${O:-build}
LIMIT=${TEST_SECONDS:-300}
LOGS=$O/test-logs
PASSED=0 FAILED=0 SKIPPED=0
RUNNING=
INTERRUPTED=
LANES=()

usage() {
	sed -n '/^#   tests/s/^# *//p' "$0" >&2
	exit 2
}

# all_tests: the names, one a line: a kind and a name.
all_tests() {
	local kind file
	for kind in unit contract; do
		for file in tests/"$kind"/*.c; do
			[[ ! -e $file ]] || echo "$kind/$(basename "$file" .c)"
		done
	done
	[[ ! -e tests/tools/selftest.sh ]] || echo tools/selftest
	for file in tests/e2e/[0-9]*.sh; do
		echo "e2e/$(basename "$file" .sh)"
	done
}

chosen_tests() {
	local name pattern
	while read -r name; do
		[[ $# -gt 0 ]] || echo "$name"
		for pattern in "$@"; do
			[[ $name =~ $pattern ]] || continue
			echo "$name"
			break
		done
	done < <(all_tests)
}

# program_of NAME: what to run.
program_of() {
	case $1 in
	e2e/* | tools/*) echo "tests/$1.sh" ;;
	*) echo "$O/tests/$1" ;;
	esac
}

# checks_of NAME LOG CODE: prints how many checks passed and how many failed.
checks_of() {
	local name=$1 log=$2 code=$3 passed=0 failed=0 line
	case $name in
	e2e/*)
		passed=$(grep -ac '^ok - ' "$log")
		;;
	tools/*) ((code != 0)) || passed=1 ;;
	*)
		line=$(grep -aoE 'Checks: [0-9]+, Failures: [0-9]+, Errors: [0-9]+' "$log" | tail -n 1)
		if [[ $line =~ Checks:\ ([0-9]+),\ Failures:\ ([0-9]+),\ Errors:\ ([0-9]+) ]]; then
			failed=$((BASH_REMATCH[2] + BASH_REMATCH[3]))
			passed=$((BASH_REMATCH[1] - failed))
		fi
		;;
	esac
	# A program that failed has failed in something, and one that checked nothing has not passed.
	if ((code != 0 && code != 77 && failed == 0)) || ((code == 0 && passed + failed == 0)); then
		failed=1
	fi
	echo "$passed $failed"
}

report() {
	local word=$1 name=$2 passed=$3 ms=$4 note=$5
	printf '%-5s %-28s %4d passed %4d.%d s%s\n' "$word" "$name" "$passed" $((ms / 1000)) $((ms % 1000 / 100)) \
		"${note:+  $note}"
}

run_test() {
	local name=$1 program log code=0 start ms passed failed note=
	program=$(program_of "$name")
	log=$LOGS/${name//\//-}.log
	if [[ ! -x $program ]]; then
		FAILED=$((FAILED + 1))
		report FAIL "$name" 0 0 "$program is not there (make everything)"
		return
	fi
	start=${EPOCHREALTIME/[.,]/}
	timeout -k 60 "$LIMIT" "$program" </dev/null >"$log" 2>&1 &
	RUNNING=$!
	# An interrupt ends the wait; the test then cleans up.  What the shell says of killed ones is in the report.
	{
		until
			wait "$RUNNING"
			code=$?
			! kill -0 "$RUNNING"
		do :; done
	} 2>/dev/null
	RUNNING=
	ms=$(((${EPOCHREALTIME/[.,]/} - start) / 1000))
	read -r passed failed < <(checks_of "$name" "$log" "$code")
	PASSED=$((PASSED + passed))
	if ((code == 77 && failed == 0)) && [[ -z ${CI-} ]]; then
		SKIPPED=$((SKIPPED + 1))
		report skip "$name" "$passed" "$ms" "$(grep -am 1 '^skipped: ' "$log")"
		rm -f "$log"
		return
	fi
	((code != 77)) || failed=1
	FAILED=$((FAILED + failed))
	if ((failed == 0 && code == 0)); then
		report ok "$name" "$passed" "$ms" ""
		rm -f "$log"
		return
	fi
	if ((code == 124 || code == 137)); then
		note=" after $LIMIT s: its time was up"
	elif ((code > 128)); then
		note=" by signal $(kill -l $((code - 128)))"
	fi
	# In one piece, whatever the other lane prints.
	printf '%s\n' "$(
		report FAIL "$name" "$passed" "$ms" "$failed failed${note}; $log ends:"
		tail -n 25 "$log" | sed 's/^/      | /'
	)"
}

interrupt() {
	INTERRUPTED=yes
	[[ -z $RUNNING ]] || kill -TERM "$RUNNING" 2>/dev/null
	[[ ${#LANES[@]} -eq 0 ]] || kill -TERM "${LANES[@]}" 2>/dev/null
}

# lane COUNTS TEST…: runs the tests, and leaves the sums in the file COUNTS.
lane() {
	local counts=$1 name
	shift
	LANES=()
	trap interrupt INT TERM
	for name in "$@"; do
		[[ -z $INTERRUPTED ]] || break
		run_test "$name"
	done
	echo "$PASSED $FAILED $SKIPPED" >"$counts"
}

# in_lanes TEST…: the same in two lanes, and adds up.
in_lanes() {
	local name passed failed skipped counts pid
	local programs=() scripts=()
	for name in "$@"; do
		if [[ $name == e2e/* ]]; then
			scripts+=("$name")
		else
			programs+=("$name")
		fi
	done
	lane "$LOGS/programs" "${programs[@]}" &
	LANES+=($!)
	lane "$LOGS/scripts" "${scripts[@]}" &
	LANES+=($!)
	for pid in "${LANES[@]}"; do
		while kill -0 "$pid" 2>/dev/null; do
			wait "$pid"
		done
	done
	for counts in "$LOGS/programs" "$LOGS/scripts"; do
		if read -r passed failed skipped <"$counts"; then
			PASSED=$((PASSED + passed)) FAILED=$((FAILED + failed)) SKIPPED=$((SKIPPED + skipped))
		else
			FAILED=$((FAILED + 1))
		fi
		rm -f "$counts"
	done
}

main() {
	local tests list=
	if [[ ${1-} == --list ]]; then
		list=yes
		shift
	fi
	[[ ${1-} != -* ]] || usage
	mapfile -t tests < <(chosen_tests "$@")
	if [[ ${#tests[@]} -eq 0 ]]; then
		echo "run.sh: no test matches: $*" >&2
		exit 2
	fi
	if [[ -n $list ]]; then
		printf '%s\n' "${tests[@]}"
		exit 0
	fi
	mkdir -p "$LOGS" || exit 2
	rm -f "$LOGS"/*.log "$LOGS"/{programs,scripts}
	trap interrupt INT TERM
	in_lanes "${tests[@]}"
	echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
	[[ -z $INTERRUPTED ]] || exit 130
	((FAILED == 0))
}

main "$@"
