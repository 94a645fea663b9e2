#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Random operations by every way into a file leave the same bytes as in an ordinary file.
# SEED=N repeats a run.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse
donor_start ram=memory:?size=64M disk="file:$T/pool"
SEED=${SEED:-$SRANDOM}
SIZE_MAX=$((3 << 20))
echo "# SEED=$SEED" >&2

# both WAY OP…: the operation on the region through WAY (buffered, mapped, direct), and on the ordinary file.
both() {
	local way=$1
	shift
	echo "$way $*" >>"$T/operations"
	tell "$way" "$@"
	[[ $way != mapped ]] || set -- "${@/#map-/}"
	tell reference "$@"
}

compare() {
	is "size after $(wc -l <"$T/operations") operations" "$(attr "$M/f" %s)" "$(attr "$T/reference" %s)"
	cmp "$M/f" "$T/reference" >&2 ||
		fail "SEED=$SEED: differs after $(wc -l <"$T/operations") operations; the last: $(tail -n 5 "$T/operations")"
}

# below N: a random number from 0 to N - 1, often near a multiple of 4096.
below() {
	local n=$(((RANDOM << 15 | RANDOM) % $1))
	((RANDOM % 3)) || n=$(((n & ~4095) + (RANDOM % 3 - 1)))
	BELOW=$((n < 0 ? 0 : n >= $1 ? $1 - 1 : n))
}

operate() {
	local off len
	below $SIZE_MAX
	off=$BELOW
	below $((SIZE_MAX - off < 300000 ? SIZE_MAX - off : 300000))
	len=$((BELOW + 1))
	case $((RANDOM % 13)) in
	0 | 1 | 2) both buffered write $off $len $RANDOM ;;
	3 | 4)
		off=$((off & ~4095)) len=$(((len + 4095) & ~4095))
		both direct write $off $len $RANDOM
		;;
	5 | 6)
		((off < size)) || return 0
		len=$((len < size - off ? len : size - off))
		both mapped map-write $off $len $RANDOM
		((RANDOM % 2)) || tell mapped map-sync
		;;
	7) both buffered truncate $off ;;
	8) both direct fallocate punch $off $len ;;
	9) both buffered fallocate zero $off $len ;;
	10) both direct fallocate reserve $off $len ;;
	11)
		tell buffered fsync
		tell buffered drop
		;;
	12)
		hang_up buffered
		talk buffered "$TOOLS/fileop" "$M/f" -
		;;
	esac
	size=$(stat -c %s "$T/reference")
}

RANDOM=$((SEED & 32767))
for pool in ram disk; do
	step "$pool: 600 operations, SEED=$SEED"
	M=$T/$pool
	mount_pool $pool "$M"
	: >"$M/f"
	: >"$T/reference"
	: >"$T/operations"
	size=0
	talk buffered "$TOOLS/fileop" "$M/f" -
	talk direct "$TOOLS/fileop" --direct "$M/f" -
	talk mapped "$TOOLS/fileop" "$M/f" -
	talk reference "$TOOLS/fileop" "$T/reference" -
	tell mapped map 0 $SIZE_MAX shared rw
	for ((i = 1; i <= 600; i++)); do
		operate
		((i % 20)) || compare
	done
	for name in buffered direct mapped; do
		hang_up $name
	done
	compare
	drop_cache "$M/f"
	compare
	hang_up reference
	umount_dir "$M"
	mount_pool $pool "$M"
	compare
	umount_dir "$M"
done
finish
