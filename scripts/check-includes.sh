#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Checks who includes whom:
#
#   fuse/ export/ mount/ → core/ ← backends/
#
# and inside core/, from the bottom up: utilities ← loop, conn ← stores ← regions, pools.  Exceptions are
# in the table below.  Only what has a main function knows the registry of backends, through core/backend.
# Prints each breach as FILE:LINE and fails if there is one.
#
#   scripts/check-includes.sh [DIR]      the tree to check (default: the one this script is in)
set -euo pipefail

cd "${1:-$(dirname "$0")/..}"

# What a folder may include besides itself.
declare -A MAY=(
	[core]=''
	[backends]='core'
	[fuse]='core'
	[export]='core'
	[mount]='core'
)
# FILE:HEADER.  The mount daemon's stack is put together in one place, mount/serve.c: a pool at a donor,
# served by the FUSE frontend.  Its status asks both how they are.  `remram export` is the donor's server with
# one region.
EXCEPTIONS=(
	mount/serve.c:backends/peer.h
	mount/serve.c:fuse/fs.h
	mount/serve_status.c:backends/peer.h
	mount/serve_status.c:fuse/fs.h
	mount/cmd_export.c:export/address.h
	mount/cmd_export.c:export/server.h
)
# Levels of core/: a file includes those of its own level and of lower ones.  opts_file has the level of opts:
# what a name begins with counts, up to an underscore.
declare -A LEVEL=(
	[err]=0 [hist]=0 [uri]=0 [log]=0 [opts]=0 [bufpool]=0 [crc32c]=0 [sqlite]=0
	[loop]=1 [conn]=1 [workers]=1
	[store]=2 [blk]=2 [fault]=2 [backend]=2
	[pool]=3 [lease]=3 [region]=3 [catalogue]=3 [frame]=3
	[window]=2 [pull_order]=1 [cache]=3 [puller]=3 [pusher]=3
	[cache_dir]=3 [cache_db]=3 [cache_data]=3 [cache_index]=3 [rescue]=3
	[managed]=4 [ahead]=4
	[local]=4
)
# Where the table of backends may be named: it is declared, searched, defined, and listed by the commands.
REGISTRY=(core/backend.h core/backend.c backends/registry.c mount/remram.c export/remramd.c)

failed=0

breach() {
	printf '%s\n' "$1" >&2
	failed=1
}

contains() {
	local wanted=$1 item
	shift
	for item in "$@"; do
		[[ $item == "$wanted" ]] && return 0
	done
	return 1
}

# core_level FILE: prints the level of a file of core/, by the longest module name it begins with.
core_level() {
	local name=${1##*/}
	name=${name%.*}
	while [[ -z ${LEVEL[$name]-} && $name == *_* ]]; do
		name=${name%_*}
	done
	echo "${LEVEL[$name]-}"
}

# check_include FILE LINE HEADER
check_include() {
	local file=$1 line=$2 header=$3
	local from=${file%%/*} to=${header%%/*} mine theirs
	[[ -e $header ]] || {
		breach "$file:$line: \"$header\": includes are written from the top of the tree"
		return
	}
	if [[ $from != "$to" ]]; then
		[[ " ${MAY[$from]} " == *" $to "* ]] || contains "$file:$header" "${EXCEPTIONS[@]}" ||
			breach "$file:$line: $from/ may not include $to/ ($header)"
		return
	fi
	[[ $from == core ]] || return 0
	mine=$(core_level "$file")
	theirs=$(core_level "$header")
	if [[ -z $mine || -z $theirs ]]; then
		breach "$file:$line: give $file and $header a level in scripts/check-includes.sh"
	elif ((mine < theirs)); then
		breach "$file:$line: $file (level $mine) may not include $header (level $theirs)"
	fi
}

check_tree() {
	local file line text
	while IFS=: read -r file line text; do
		text=${text#*\"}
		check_include "$file" "$line" "${text%%\"*}"
	done < <(grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' {core,backends,fuse,export,mount}/*.[ch])
	while IFS=: read -r file line text; do
		contains "$file" "${REGISTRY[@]}" ||
			breach "$file:$line: only the programs' main files know the registry of backends"
	done < <(grep -nw 'backend_registry' {core,backends,fuse,export,mount}/*.[ch])
}

check_tree
exit "$failed"
