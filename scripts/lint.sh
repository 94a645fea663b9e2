#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# `make lint`: what can be said about the sources without running them.
#
#   scripts/lint.sh [PART…]     all parts, or some of: format tidy cppcheck shell includes man words
#   scripts/lint.sh --format    rewrites the sources as .clang-format says
#
# Each part looks at the files that git knows (all files, where there is no git).  The last line is
# "N passed, N failed, 0 skipped"; a part counts as one.
set -euo pipefail

cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

PARTS=(includes format shell man words cppcheck tidy)

# files PATTERN…: those of the repository that match.
files() {
	if git -c safe.directory="$PWD" rev-parse >/dev/null 2>&1; then
		git -c safe.directory="$PWD" ls-files --cached --others --exclude-standard -- "$@"
	else
		local patterns=() pattern
		for pattern in "$@"; do
			patterns+=(-o -name "$pattern")
		done
		find . \( -name 'build*' -o -name .git \) -prune -o -type f \( "${patterns[@]:1}" \) -printf '%P\n'
	fi | LC_ALL=C sort
}

lint_format() {
	files '*.c' '*.h' | xargs clang-format --dry-run -Werror
}

# The compiler's own flags matter little here: the sources say nothing of them.
lint_tidy() {
	local flags
	read -ra flags < <(pkg-config --cflags fuse3 sqlite3)
	flags+=(-std=c11 -I. -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DFUSE_USE_VERSION=312 '-DREMRAM_VERSION="0"')
	files '*.c' | grep -E '^(core|backends|fuse|export|mount)/' |
		xargs -P "$(nproc)" -I{} scripts/lint.sh --tidy-one {} "${flags[@]}"
}

# In one piece, so that the findings of two files at once do not mix.
tidy_one() {
	local out file=$1
	shift
	out=$(clang-tidy --quiet "$file" -- "$@" 2>/dev/null) && return 0
	printf '%s\n' "$out"
	return 1
}

lint_cppcheck() {
	cppcheck -j "$(nproc)" --quiet --std=c11 --enable=warning,performance,portability --inline-suppr \
		--error-exitcode=1 -I. -D_GNU_SOURCE '-DREMRAM_VERSION="0"' \
		--template='{file}:{line}: {severity}: {message} [{id}]' core backends fuse export mount tests
}

lint_shell() {
	files '*.sh' .ci/run | xargs shellcheck -x -P SCRIPTDIR -S warning
}

lint_includes() {
	scripts/check-includes.sh
}

# Whether the pages that these refer to are installed on this machine does not matter.
lint_man() {
	local said
	said=$(files 'docs/man/*' | xargs mandoc -T lint 2>&1 | grep -vE 'referenced manual not found|mandoc\.db' || true)
	printf '%s' "$said"
	[[ -z $said ]]
}

# Functions that have no place in a program with threads, and what must not be left lying about.
lint_words() {
	local found=0
	! files '*.c' '*.h' | xargs grep -nE \
		'\<(strtok|localtime|gmtime|asctime|ctime|rand|srand|gethostbyname|getservbyname|getpwnam|getgrnam|gets|tmpnam|mktemp)\(' ||
		found=1
	# In pieces, so as not to find itself.
	! files '*.c' '*.h' '*.sh' '*.md' Makefile | xargs grep -nE '\<(TO''DO|FIX''ME|XX''X)\>' || found=1
	# The first line may be the interpreter's.
	while read -r file; do
		head -n 3 "$file" | grep 'SPDX-License-Identifier: Apache-2.0' >/dev/null || {
			echo "$file: no SPDX line"
			found=1
		}
	done < <(files '*.c' '*.h' '*.sh' 'docs/man/*' Makefile)
	return "$found"
}

main() {
	local part passed=0 failed=0 out
	[[ $# -gt 0 ]] || set -- "${PARTS[@]}"
	for part in "$@"; do
		[[ $(type -t "lint_$part") == function ]] || die "$part: no such part (there are ${PARTS[*]})"
		if out=$("lint_$part" 2>&1); then
			passed=$((passed + 1))
			say "passed: $part"
		else
			failed=$((failed + 1))
			say "FAILED: $part"
			head -n 1000 <<<"$out" >&2
		fi
	done
	echo "$passed passed, $failed failed, 0 skipped"
	[[ $failed -eq 0 ]]
}

case ${1-} in
--format)
	need_commands clang-format
	files '*.c' '*.h' | xargs clang-format -i
	;;
--tidy-one) tidy_one "${@:2}" ;;
*) main "$@" ;;
esac
