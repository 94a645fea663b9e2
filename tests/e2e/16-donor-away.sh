#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# While the donor is away: waiting processes can be ended, soft mounts give up in time, umount works.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse
donor_start disk="file:$T/pool?size=512M"
M=$T/mnt

# still_waiting PID…
still_waiting() {
	local pid
	for pid in "$@"; do
		process_alive "$pid" || fail "process $pid has ended: $(tail -n 3 "$T/job.log")"
	done
}

# ends_by SIGNAL: COMMAND… of the arguments, each in quotes, waits for the donor, and ends within 3 s of the
# signal.
ends_by() {
	local signal=$1 command pids=() pid
	shift
	for command in "$@"; do
		# Processes that a shell puts into the background ignore SIGINT; env gives them the default.
		job env --default-signal=INT bash -c "exec $command"
		pids+=("$JOB")
	done
	sleep 1
	still_waiting "${pids[@]}"
	for pid in "${pids[@]}"; do
		kill -"$signal" "$pid"
	done 2>/dev/null
	for pid in "${pids[@]}"; do
		job_wait 3 "$pid"
		[[ $JOB_CODE -ne 0 ]] || fail "process $pid has ended with exit code 0"
	done
}

# opened_ends_by SIGNAL: WORDS…: like ends_by for files $M/o1, $M/o2, … that are open before the donor goes away: each
# argument is [--direct|]OP[|OP]: all but the last OP are done at once, the last one waits.
opened_ends_by() {
	local signal=$1 spec n=0 i ops direct pids=()
	shift
	for spec in "$@"; do
		n=$((n + 1))
		direct=
		[[ $spec != --direct* ]] || direct=--direct
		# shellcheck disable=SC2086
		talk "o$n" env --default-signal=INT "$TOOLS/fileop" $direct "$M/o$n" -
	done
	donor_kill
	n=0
	for spec in "$@"; do
		n=$((n + 1))
		IFS='|' read -r -a ops <<<"${spec#--direct|}"
		for ((i = 0; i < ${#ops[@]} - 1; i++)); do
			tell "o$n" "${ops[i]}"
		done
		echo "${ops[-1]}" >&"${TALK_IN[o$n]}"
		pids+=("${TALK_PID[o$n]}")
	done
	sleep 1
	still_waiting "${pids[@]}"
	for ((n = 1; n <= $#; n++)); do
		! read -r -t 0 <&"${TALK_OUT[o$n]}" || fail "does not wait: ${!n}"
	done
	for ((n = 1; n <= $#; n++)); do
		kill -"$signal" "${TALK_PID[o$n]}"
		wait_until 3 process_gone "${TALK_PID[o$n]}" || fail "survives SIG$signal: ${!n}"
		hang_up "o$n" 2>/dev/null
	done
	donor_back
}

step "hard: SIGKILL and SIGINT end every kind of waiting"
mount_pool disk "$M"
fileop --create "$M/a" write 0 64M 1 , fsync , drop
donor_kill
f="$TOOLS/fileop"
waits=("$f --read $M/a read 0 4096" "$f --read --direct $M/a read 0 1M" "$f $M/a write 0 4096 1"
	"$f --direct $M/a write 0 1M 1" "$f $M/a fsync" "$f $M/a truncate 100" "$f $M/a fallocate punch 0 1M"
	"$f --read $M/a map 0 64M shared r , map-touch 0 64M" "cat $M/a" "stat $M/a" "ls -l $M" "df $M"
	"touch $M/new" "rm $M/a" "mv $M/a $M/b" "chmod 640 $M/a")
ends_by KILL "${waits[@]}"
ends_by INT "${waits[@]}"

step "hard: a crowd of writers and readers with large requests can be killed"
crowd=()
for ((i = 0; i < 60; i++)); do
	crowd+=("$f --direct --write-only --create $M/crowd-$i write 0 8M $i" "$f --direct --read $M/a verify 0 64M 1")
done
ends_by KILL "${crowd[@]}"

step "hard: everything is right when the donor is back"
donor_back
eventually 20 "an answer" timeout 5 ls "$M" >/dev/null
[[ -e $M/a ]] || run mv "$M/b" "$M/a"
fileop --read "$M/a" verify 4096 4096 1 , verify 2M 62M 1
run rm -f "$M"/crowd-* "$M/new"

step "hard: with the donor away, umount of an unused mount works, and takes no 10 s"
donor_kill
start=$(now_ms)
umount_dir "$M"
at_most "milliseconds" "$(since_ms "$start")" 10000
donor_back

step "hard: with processes waiting, umount refuses, and umount -f ends them"
mount_pool disk "$M"
donor_kill
job "$f" --direct --read "$M/a" read 0 1M
reader=$JOB
job "$f" --direct --write-only "$M/a" write 0 1M 1
writer=$JOB
sleep 1
still_waiting "$reader" "$writer"
start=$(now_ms)
refused "in use" "$REMRAM" umount "$M"
at_most "milliseconds until the refusal" "$(since_ms "$start")" 10000
guard_is_mounted "$M" || fail "the mount is gone after a refused umount"
donor_back
job_wait 10 "$reader"
job_wait 10 "$writer"
talk holder "$f" --direct "$M/a" -
donor_kill
job "$f" --direct --read "$M/a" read 0 1M
reader=$JOB
refused "process ${TALK_PID[holder]} (fileop) has a file open there" "$REMRAM" umount "$M"
echo write 0 1M 1 >&"${TALK_IN[holder]}"
sleep 0.5
still_waiting "$reader" "${TALK_PID[holder]}"
start=$(now_ms)
umount_dir "$M" -f
at_most "milliseconds of umount -f" "$(since_ms "$start")" 15000
job_wait 5 "$reader"
at_least "the reader's exit code" "$JOB_CODE" 1
hang_up holder
contains "what the writer got" "$(<"$T/talk.holder.log")" "write: E"
donor_back

step "managed: SIGKILL and SIGINT end every kind of waiting, also in files that were open before"
reset_opened() {
	local n
	for ((n = 1; n <= 12; n++)); do
		"$TOOLS/fileop" --create "$M/o$n" truncate 0 , write 0 2M "$n" , fsync >/dev/null
	done
}
managed_waits=("read 0 4096" "--direct|read 0 1M" "write 100 50 1" "write 0 4096 1|fsync" "truncate 100" "truncate 9000000"
	"write 0 8192 1|truncate 5000" "fallocate punch 100 50" "seek hole 0" "fallocate reserve 0 9000000"
	"map 0 1M shared r|map-touch 0 1M" "verify 0 1M 12")
for cache in memory "$T/cache"; do
	for signal in KILL INT; do
		mount_pool disk "$M"
		reset_opened
		umount_dir "$M"
		mount_pool disk "$M" -o "cache=$cache,pull=none,push_interval=100ms"
		opened_ends_by "$signal" "${managed_waits[@]}"
		eventually 20 "an answer" timeout 5 ls "$M" >/dev/null
		donor_kill
		ends_by "$signal" "${waits[@]}" "setfattr -n user.remram.pull_order -v 0-64K:1 $M/a"
		donor_back
		eventually 20 "an answer" timeout 5 ls "$M" >/dev/null
		[[ -e $M/a ]] || run mv "$M/b" "$M/a"
		umount_dir "$M"
	done
done
mount_pool disk "$M"
fileop "$M/a" truncate 0 , write 0 64M 1 , fsync
umount_dir "$M"

step "soft,timeo=2s: requests fail with EIO after 2 s, and work when the donor is back"
mount_pool disk "$M" -o soft,timeo=2s
talk reader "$f" --read --direct "$M/a" -
tell reader read 0 4096
donor_kill
start=$(now_ms)
tell reader expect EIO read 4M 4096
at_least "milliseconds" "$(since_ms "$start")" 1500
at_most "milliseconds" "$(since_ms "$start")" 6000
start=$(now_ms)
tell reader expect EIO read 4M 4096
refused "Input/output error" touch "$M/other"
refused "Input/output error" ls "$M"
at_most "milliseconds of the next ones" "$(since_ms "$start")" 1500
donor_back
eventually 10 "an answer" timeout 5 ls "$M" >/dev/null
tell reader verify 4M 1M 1
hang_up reader
fileop "$M/a" write 4M 1M 2 , verify 4M 1M 2

step "soft: a donor that is back in time is not noticed"
umount_dir "$M"
mount_pool disk "$M" -o soft,timeo=20s
donor_kill
job "$f" --direct --read "$M/a" verify 8M 16M 1
sleep 1
still_waiting "$JOB"
donor_back
job_passes 10

step "soft: umount of a mount that has given up"
umount_dir "$M"
mount_pool disk "$M" -o soft,timeo=500ms
donor_kill
refused "Input/output error" cat "$M/a"
start=$(now_ms)
umount_dir "$M"
at_most "milliseconds" "$(since_ms "$start")" 10000
finish
