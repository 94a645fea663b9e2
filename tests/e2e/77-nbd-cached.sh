#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# An export of a file in a mount with a cache tells what is resident and what is dirty, and CACHE pulls.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse nbdinfo jq
donor_start ram=memory:?size=256M --nbd "unix:$T/donor.nbd"
M=$T/m D=$T/d SOCKET=$T/export
network_start

# export_start FILE [OPTION…]: EXPORT is its process.
export_start() {
	job "$REMRAM" export "$@" --nbd "unix:$SOCKET"
	EXPORT=$JOB
	eventually 10 "remram export listens" test -S "$SOCKET"
}

export_stop() {
	kill "$EXPORT"
	job_passes 20 "$EXPORT"
}

# map CONTEXT: the extents, as START LENGTH STATE;…
map() {
	run nbdinfo --map="$1" "nbd+unix:///?socket=$SOCKET" | awk '{ print $1, $2, $3 }' | tr '\n' ';'
}

nbdcmd() {
	run "$TOOLS/nbdcmd" "nbd+unix:///?socket=$SOCKET" "$@"
}

# cache_of MEMBER: of the region, as the mount's daemon has it.
cache_of() {
	run "$REMRAM" status --json "$M" | jq -r ".[0].daemon.regions[] | select(.name == \"work\") | .cache.$1"
}

tasks_are() {
	[[ $(run "$REMRAM" status --json "$M" | jq '.[0].daemon.tasks') == "$1" ]]
}

# shellcheck disable=SC2317  # called by eventually
at_rest() {
	[[ $(cache_of pulling) == 0 ]] && tasks_are 0
}

mount_pool ram "$D"
fileop --create "$D/work" write 0 32M 1
# A region with a tail that is no whole block, and one that is as it was made.
fileop --create "$D/tail" write 0 10000 2
run truncate -s 8M "$D/empty"
DONOR_DIRECT=$DONOR_PORT
DONOR_PORT=$NETWORK_PORT
mount_pool ram "$M" -o cache=memory,pull=none,push_interval=1h,max_dirty=64M,cache_size=128M
DONOR_PORT=$DONOR_DIRECT

step "nothing is resident at first"
export_start "$M/work"
is "resident" "$(map remram:resident)" "0 33554432 0;"
is "dirty" "$(map remram:dirty)" "0 33554432 0;"

step "CACHE pulls its range, and nothing else"
is "CACHE" "$(nbdcmd cache 1M 4M , cache 20M 8192)" $'ok\nok'
is "resident" "$(map remram:resident)" "0 1048576 0;1048576 4194304 1;5242880 15728640 0;20971520 8192 1;20979712 12574720 0;"
is "fetched" "$(cache_of fetched)" $((4 * 1048576 + 8192))
is "again" "$(nbdcmd cache 1M 4M)" ok
is "fetched again" "$(cache_of fetched)" $((4 * 1048576 + 8192))
is "allocation" "$(map base:allocation)" "0 33554432 0;"

step "what is written is resident and dirty, until it is flushed"
is "WRITE" "$(nbdcmd write 4096 8192 , write 2M 64K)" $'ok\nok'
is "resident" "$(map remram:resident)" \
	"0 4096 0;4096 8192 1;12288 1036288 0;1048576 4194304 1;5242880 15728640 0;20971520 8192 1;20979712 12574720 0;"
is "dirty" "$(map remram:dirty)" "0 4096 0;4096 8192 1;12288 2084864 0;2097152 65536 1;2162688 31391744 0;"
run "$REMRAM" flush -q "$M/work"
is "dirty" "$(map remram:dirty)" "0 33554432 0;"

step "one answer has all three contexts"
is "a part of the map" "$(nbdcmd map 4096 16K | sort)" "$(printf '%s\n' "base:allocation 4096 16384 0" ok \
	"remram:dirty 4096 16384 0" "remram:resident 12288 8192 0" "remram:resident 4096 8192 1" | sort)"

step "what is evicted is not resident any more, and CACHE brings it back"
run "$REMRAM" evict -q "$M/work"
is "resident" "$(map remram:resident)" "0 33554432 0;"
is "CACHE" "$(nbdcmd cache 0 32M)" ok
is "resident" "$(map remram:resident)" "0 33554432 1;"

step "more CACHEs at once than the mount has tasks"
run "$REMRAM" evict -q "$M/work"
is "CACHE" "$(nbdcmd many 256 0 128K)" ok
is "resident" "$(map remram:resident)" "0 33554432 1;"
is "errors" "$(grep -c 'at work here' "$T/job.log")" 0

step "a hundred extents and more: clients ask on"
run "$REMRAM" evict -q "$M/work"
commands=(cache 0 4096)
for ((i = 1; i < 200; i++)); do
	commands+=("," cache $((i * 65536)) 4096)
done
is "200 CACHEs" "$(nbdcmd "${commands[@]}" | sort | uniq -c)" "    200 ok"
is "extents" "$(map remram:resident | tr ';' '\n' | grep -c ' 1$')" 200
export_stop

step "reading and writing through the mount is seen as well"
run "$REMRAM" evict -q "$M/work"
export_start --read-only "$M/work"
fileop --read "$M/work" verify 31M 1M 1
talk writer "$TOOLS/fileop" "$M/work" -
tell writer write 16M 4096 3
contains "resident" "$(map remram:resident)" "32505856 1048576 1;"
is "dirty" "$(map remram:dirty)" "0 16777216 0;16777216 4096 1;16781312 16773120 0;"
hang_up writer
run "$REMRAM" flush -q "$M/work"
export_stop

step "a tail, and a region without a byte"
export_start "$M/tail"
is "resident" "$(map remram:resident)" "0 10000 0;"
is "CACHE" "$(nbdcmd cache 9000 1000)" ok
is "resident" "$(map remram:resident)" "0 8192 0;8192 1808 1;"
is "CACHE" "$(nbdcmd cache 0 10000)" ok
is "resident" "$(map remram:resident)" "0 10000 1;"
export_stop
export_start "$M/empty"
is "CACHE" "$(nbdcmd cache 0 8M)" ok
is "resident" "$(map remram:resident)" "0 8388608 1;"
export_stop

step "a client that leaves, and an export that ends, while CACHE waits for the donor"
run "$REMRAM" evict -q "$M/work"
export_start "$M/work"
network stall
is "CACHE" "$(nbdcmd leave 0 16M)" ok
nbdcmd leave 16M 8M >/dev/null
"$TOOLS/nbdcmd" "nbd+unix:///?socket=$SOCKET" cache 24M 4M >"$T/late" 2>&1 </dev/null &
LATE=$!
guard_add job "$LATE"
eventually 10 "the daemon pulls for all three" tasks_are 3
is "meanwhile" "$(map remram:resident)" "0 33554432 0;"
export_stop
job_wait 10 "$LATE"
contains "who waited is told" "$(<"$T/late")" ESHUTDOWN
network resume
eventually 30 "the daemon has no task left" at_rest

step "the daemon of the mount cannot be asked: the contexts are not there"
mv "$(run_dir "$M")/control" "$T/control"
export_start "$M/work"
is "contexts" "$(run nbdinfo --json "nbd+unix:///?socket=$SOCKET" | jq -c '.exports[0].contexts')" '["base:allocation"]'
contains "why" "$(<"$T/job.log")" "clients are not told what of it is resident or dirty"
mv "$T/control" "$(run_dir "$M")/control"
export_stop

step "it cannot be asked any more: that is an error, not an answer"
export_start "$M/work"
mv "$(run_dir "$M")/control" "$T/control"
is "map and CACHE" "$(nbdcmd map 0 1M , cache 0 1M)" $'EIO\nEIO'
mv "$T/control" "$(run_dir "$M")/control"
is "again" "$(nbdcmd cache 0 1M)" ok
export_stop

step "a mount without a cache: nothing is resident"
umount_dir "$M"
export_start "$D/work"
is "resident" "$(map remram:resident)" "0 33554432 0;"
is "dirty" "$(map remram:dirty)" "0 33554432 0;"
is "CACHE reads it" "$(nbdcmd cache 0 32M)" ok
export_stop

step "an NBD server's bytes are not here"
job "$REMRAM" export "nbd+unix:///ram/work?socket=$T/donor.nbd" --name work --nbd "unix:$SOCKET"
EXPORT=$JOB
eventually 10 "remram export listens" test -S "$SOCKET"
is "resident" "$(map remram:resident)" "0 33554432 0;"
is "CACHE reads it" "$(nbdcmd cache 0 32M)" ok
export_stop

step "what is in the donor's pool is there, and so is a plain file"
SOCKET=$T/donor.nbd
is "resident" "$(run nbdinfo --map=remram:resident "nbd+unix:///ram/work?socket=$SOCKET" | awk '{ print $1, $2, $3 }')" "0 33554432 1"
SOCKET=$T/export
random_file "$T/file" 1M
export_start "$T/file"
is "resident" "$(map remram:resident)" "0 1048576 1;"
is "CACHE" "$(nbdcmd cache 0 1M)" ok
export_stop
umount_dir "$D"
donor_stop
finish
