# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What the end-to-end tests share: a donor, mounts, assertions, and an end that leaves nothing behind.
# Sourcing it prepares the test; a test then reads like this:
#
#   #!/usr/bin/env bash
#   # SPDX-License-Identifier: Apache-2.0
#   # What the test proves, in one line.
#   . "$(dirname "$0")/lib.sh"
#   requires fuse fio
#   donor_start ram=memory:?size=64M
#   mount_pool ram "$T/mnt"
#   step "a region is as long as it was made"
#   run truncate -s 1M "$T/mnt/a"
#   is "size" "$(stat -c %s "$T/mnt/a")" 1048576
#   umount_dir "$T/mnt"
#   finish
#
# A step that is through prints "ok - TEXT" (tests/run.sh counts these); the first thing that goes wrong ends
# the test with what was expected and what was there.  A test that reaches `finish` passes, unless something
# of it is still around after the clean-up.  Exit codes: 0 passed, 1 failed, 77 skipped.
#
# Variables: T the test's temporary directory; TOOLS where the test tools are; REMRAM and REMRAMD the programs;
# DONOR_PORT, DONOR_PID, DONOR_LOG the donor that donor_start started last; NETWORK_PORT the proxy of network_start.
# Environment: O the build directory (default: build); E2E_PORTS a range for listening (14000-14999);
# E2E_SECONDS the watchdog's limit for a test (150); CI not empty: a requirement that is absent is a failure.

set -euo pipefail

E2E_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$E2E_ROOT/scripts/lib.sh"
. "$E2E_ROOT/scripts/cgroup.sh"
. "$E2E_ROOT/scripts/swapguard.sh"

E2E_BUILD=${O:-build}
[[ $E2E_BUILD == /* ]] || E2E_BUILD=$E2E_ROOT/$E2E_BUILD
REMRAM=$E2E_BUILD/remram
REMRAMD=$E2E_BUILD/remramd
TOOLS=$E2E_BUILD/tools
E2E_PORTS=${E2E_PORTS:-14000-14999}
E2E_START=$((${EPOCHREALTIME/[.,]/} / 1000))
E2E_STEP=
E2E_FINISHED=
DONOR_PID='' DONOR_PORT='' DONOR_LOG='' DONOR_ARGS=()
unset LC_ALL
export LANG=C.UTF-8

# ---- the test's end --------------------------------------------------------------------------------

# fail TEXT…: ends the test; the line number is that of the test script.
fail() {
	local i line=0
	for ((i = 1; i < ${#BASH_SOURCE[@]}; i++)); do
		[[ ${BASH_SOURCE[i]} == "$0" ]] && line=${BASH_LINENO[i - 1]} && break
	done
	say "${0##*/}:$line: $*"
	exit 1
}

# skip TEXT…: what the test needs is not here.
skip() {
	if [[ -n ${CI-} ]]; then
		fail "$* (and CI is set: nothing may be skipped)"
	fi
	say "skipped: $*"
	exit 77
}

# requires WHAT…: root, fuse (/dev/fuse and root), loop (loop devices), or the name of a command.
requires() {
	local what
	for what in "$@"; do
		case $what in
		root) [[ $EUID -eq 0 ]] || skip "needs root" ;;
		fuse)
			[[ $EUID -eq 0 ]] || skip "needs root"
			(: <>/dev/fuse) 2>/dev/null || skip "needs /dev/fuse"
			;;
		loop) [[ -c /dev/loop-control ]] || skip "needs loop devices" ;;
		*) have "$what" || skip "needs the command $what (see scripts/deps.sh)" ;;
		esac
	done
}

# step TEXT: begins the next part of the test; the one before it has passed.
step() {
	[[ -z $E2E_STEP ]] || echo "ok - $E2E_STEP"
	E2E_STEP=$1
	printf '# %5d ms  %s\n' "$(since_ms "$E2E_START")" "$1" >&2
}

# finish: the test's last line.
finish() {
	E2E_FINISHED=yes
	exit 0
}

# Processes whose command line names the test's directory.
e2e_processes() {
	local file pid
	for file in /proc/[0-9]*/cmdline; do
		pid=${file#/proc/}
		pid=${pid%/cmdline}
		[[ $pid != "$$" && $pid != "$BASHPID" ]] || continue
		if { tr '\0' ' ' <"$file"; } 2>/dev/null | grep -F -- "$1" >/dev/null; then
			echo "$pid"
		fi
	done
}

# Unmounts what the test has left mounted; the guard does it the hard way where this fails.
e2e_unmount_all() {
	local dir
	while read -r dir; do
		guard_is_mounted "$dir" || [[ -d $(run_dir "$dir") ]] || continue
		timeout -k 5 20 "$REMRAM" umount -f "$dir" </dev/null >/dev/null 2>&1 || true
	done < <(guard_list mount)
}

# What is left of the test after the clean-up, if anything; nothing must be.
e2e_leftovers() {
	local dir=$1 pid name
	while read -r pid; do
		wait_until 3 process_gone "$pid" && continue
		echo "process $pid: $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)"
		kill -KILL "$pid" 2>/dev/null
	done < <(e2e_processes "$dir")
	grep -F " $dir/" /proc/self/mountinfo | sed 's/^/mount: /'
	losetup -l -n -O NAME,BACK-FILE 2>/dev/null | grep -F "$dir/" | sed 's/^/loop device: /'
	name=${dir#/}
	for pid in /run/remram/"${name//\//-}"*; do
		[[ ! -e $pid ]] || echo "run directory: $pid"
	done
}

e2e_exit() {
	local code=$? dir=$GUARD_DIR log left
	trap '' INT TERM
	set +e
	if [[ $code -eq 0 && -z $E2E_FINISHED ]]; then
		say "${0##*/}: ended without finish"
		code=1
	fi
	if [[ $code -ne 0 && $code -ne 77 && -n $dir ]]; then
		say "# failed in: ${E2E_STEP:-the preparations} (exit code $code)"
		for log in "$dir"/*.log; do
			[[ ! -s $log ]] || sed "s|^|# ${log##*/}: |" <(tail -n 40 "$log") >&2
		done
	fi
	if guard_fired; then
		say "${0##*/}: the watchdog had to end it"
		code=1
	fi
	e2e_unmount_all
	guard_cleanup || code=1
	left=$([[ -z $dir ]] || e2e_leftovers "$dir")
	if [[ -n $left ]]; then
		say "${0##*/}: left behind: $left"
		code=1
	fi
	[[ -z $E2E_STEP || $code -ne 0 ]] || echo "ok - $E2E_STEP"
	[[ -z $E2E_STEP || $code -eq 0 || $code -eq 77 ]] || echo "not ok - $E2E_STEP"
	exit "$code"
}

# ---- running and asserting -------------------------------------------------------------------------

# run COMMAND…: must succeed within 30 s (run_for SECONDS COMMAND… for another time).
run() {
	run_for 30 "$@"
}

run_for() {
	local seconds=$1 code=0
	shift
	timeout -k 5 "$seconds" "$@" || code=$?
	[[ $code -ne 124 && $code -ne 137 ]] || fail "took longer than $seconds s: $*"
	[[ $code -eq 0 ]] || fail "expected success, got exit code $code: $*"
}

# refused TEXT COMMAND…: must fail, and say TEXT (part of a line, as grep -F has it) on stderr.
refused() {
	local text=$1 code=0 said
	shift
	said=$(timeout -k 5 30 "$@" 2>&1 >/dev/null) || code=$?
	[[ $code -ne 124 && $code -ne 137 ]] || fail "took longer than 30 s: $*"
	[[ $code -ne 0 ]] || fail "expected it to fail with \"$text\", but it succeeded: $*"
	[[ $said == *"$text"* ]] || fail "expected \"$text\", got \"$said\" (exit code $code): $*"
}

# is WHAT GOT EXPECTED
is() {
	[[ $2 == "$3" ]] || fail "$1: expected $(printf %q "$3"), got $(printf %q "$2")"
}

# at_least WHAT GOT MINIMUM, at_most WHAT GOT MAXIMUM: whole numbers.
at_least() {
	(($2 >= $3)) || fail "$1: expected at least $3, got $2"
}

at_most() {
	(($2 <= $3)) || fail "$1: expected at most $3, got $2"
}

# contains WHAT TEXT PART
contains() {
	[[ $2 == *"$3"* ]] || fail "$1: expected \"$3\" in it, got: $2"
}

# eventually SECONDS WHAT COMMAND…: succeeds within the time; the command is a function or a program.
eventually() {
	local seconds=$1 what=$2
	shift 2
	wait_until "$seconds" "$@" || fail "$what: not so within $seconds s: $*"
}

# same FILE FILE: equal bytes.
same() {
	run cmp "$1" "$2"
}

# fileop [ARG…]: the tool, with a time limit, its data and error checks included; see tests/tools/fileop.c.
fileop() {
	run "$TOOLS/fileop" "$@"
}

# now_ms, since_ms START: milliseconds.
now_ms() {
	echo $((${EPOCHREALTIME/[.,]/} / 1000))
}

since_ms() {
	echo $(($(now_ms) - $1))
}

# ---- work in the background ------------------------------------------------------------------------

# Becomes the command, without the descriptors of this shell's conversations: a program sees the end of its
# input only when nobody else holds it open.
e2e_exec() {
	local fd
	for fd in "${TALK_IN[@]}" "${TALK_OUT[@]}"; do
		exec {fd}>&-
	done
	exec "$@"
}

# job COMMAND…: starts it in the background with its output in $T/job.log; JOB is its process.
job() {
	e2e_exec "$@" </dev/null >>"$T/job.log" 2>&1 &
	JOB=$!
	guard_add job "$JOB"
}

# job_wait SECONDS [PID]: waits for its end, and sets JOB_CODE to its exit code.  What the shell has to say
# about killed jobs is no news.
job_wait() {
	local pid=${2:-$JOB}
	JOB_CODE=
	{
		if wait_until "$1" process_gone "$pid"; then
			JOB_CODE=0
			wait "$pid" || JOB_CODE=$?
		fi
	} 2>/dev/null
	[[ -n $JOB_CODE ]] || fail "process $pid has not ended within $1 s: $(tr '\0' ' ' <"/proc/$pid/cmdline")"
	guard_drop job "$pid"
}

# job_passes SECONDS [PID]
job_passes() {
	job_wait "$@"
	[[ $JOB_CODE -eq 0 ]] || fail "a process in the background: exit code $JOB_CODE; see job.log"
}

# talk NAME COMMAND…: starts a program that answers each line of input with lines that end in "ok" or
# "failed" (fileop FILE -), and waits until it has its file open; `tell NAME WORDS…` sends it a line and must get "ok";
# `hang_up NAME` ends it.
declare -A TALK_IN TALK_OUT TALK_PID

talk() {
	local name=$1 in out
	shift
	mkfifo "$T/talk.$name.in" "$T/talk.$name.out"
	e2e_exec "$@" <"$T/talk.$name.in" >"$T/talk.$name.out" 2>>"$T/talk.$name.log" &
	TALK_PID[$name]=$!
	guard_add job "${TALK_PID[$name]}"
	exec {in}>"$T/talk.$name.in" {out}<"$T/talk.$name.out"
	TALK_IN[$name]=$in TALK_OUT[$name]=$out
	rm "$T/talk.$name.in" "$T/talk.$name.out"
	tell "$name" sleep 0
}

# Prints every line of the answer; the last one is "ok" or "failed".
ask_talk() {
	local name=$1 line
	shift
	echo "$*" >&"${TALK_IN[$name]}" || fail "$name has ended: $(tail -n 3 "$T/talk.$name.log")"
	while read -r -t 30 line <&"${TALK_OUT[$name]}"; do
		echo "$line"
		[[ $line != ok && $line != failed ]] || return 0
	done
	return 1
}

tell() {
	local answer
	answer=$(ask_talk "$@") || fail "no answer from $*"
	[[ ${answer##*$'\n'} == ok ]] ||
		fail "expected ok, got $answer: $*: $(tail -n 2 "$T/talk.$1.log")"
	[[ $answer == ok ]] || echo "${answer%$'\n'ok}"
}

hang_up() {
	local in=${TALK_IN[$1]} out=${TALK_OUT[$1]} pid=${TALK_PID[$1]}
	exec {in}>&- {out}<&-
	wait_until 10 process_gone "$pid" || fail "$1: has not ended within 10 s"
	wait "$pid" || true
	guard_drop job "$pid"
	unset "TALK_IN[$1]" "TALK_OUT[$1]" "TALK_PID[$1]"
}

# ---- the donor -------------------------------------------------------------------------------------

e2e_port() {
	local first=${E2E_PORTS%-*} last=${E2E_PORTS#*-} try port
	for ((try = 0; try < 100; try++)); do
		port=$((first + SRANDOM % (last - first + 1)))
		if ! (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
			echo "$port"
			return 0
		fi
	done
	fail "no free port in $E2E_PORTS"
}

# donor_start POOL=URI… [OPTION…]: starts a donor on a free port and waits until it serves.
donor_start() {
	local arg
	DONOR_ARGS=()
	for arg in "$@"; do
		[[ $arg == -* || $arg != *=*:* ]] || DONOR_ARGS+=(--pool)
		DONOR_ARGS+=("$arg")
	done
	DONOR_PORT=$(e2e_port)
	DONOR_LOG=$T/donor.log
	donor_run
}

# Starts the donor that DONOR_ARGS and DONOR_PORT describe.
donor_run() {
	local ready
	mkfifo "$T/ready"
	e2e_exec "$REMRAMD" --config /dev/null --state "$T/state" --listen "127.0.0.1:$DONOR_PORT" --ready-fd 9 \
		"${DONOR_ARGS[@]}" </dev/null >>"$DONOR_LOG" 2>&1 9>"$T/ready" &
	DONOR_PID=$!
	guard_add pid "$DONOR_PID"
	read -r -t 20 ready <"$T/ready" || ready=nothing
	rm "$T/ready"
	[[ $ready == ready ]] || fail "the donor did not start: $(tail -n 3 "$DONOR_LOG")"
}

# donor_stop: SIGTERM; it must end in order.
donor_stop() {
	local code=0
	kill "$DONOR_PID"
	wait_until 20 process_gone "$DONOR_PID" || fail "the donor has not ended 20 s after SIGTERM"
	wait "$DONOR_PID" || code=$?
	guard_drop pid "$DONOR_PID"
	is "the donor's exit code" "$code" 0
}

# donor_kill: SIGKILL.
donor_kill() {
	kill -KILL "$DONOR_PID"
	wait "$DONOR_PID" 2>/dev/null || true
	guard_drop pid "$DONOR_PID"
}

# donor_halt: SIGSTOP; when it returns every thread of it stands, and takes nothing any more that comes.
donor_halt() {
	kill -STOP "$DONOR_PID"
	eventually 5 "the donor stands still" donor_stands
}

# shellcheck disable=SC2317  # called by eventually
donor_stands() {
	! grep -hv '^[0-9]* (.*) T' "/proc/$DONOR_PID/task/"*/stat >/dev/null
}

# donor_back: starts it again, at the same port, with the same arguments.
donor_back() {
	donor_run
}

# ---- the network -----------------------------------------------------------------------------------

# network_start [OPTION…]: a proxy before the donor that listens on DONOR_PORT now: mounts of NETWORK_PORT go through it.
# OPTIONs are the proxy's; with --target ADDRESS it stands before something else.
network_start() {
	NETWORK_PORT=$(e2e_port)
	e2e_exec "$TOOLS/proxy" --listen "127.0.0.1:$NETWORK_PORT" --target "127.0.0.1:$DONOR_PORT" --control "$T/proxy" "$@" \
		</dev/null >"$T/proxy.log" 2>&1 &
	guard_add pid $!
	eventually 5 "the proxy's control socket" test -S "$T/proxy"
}

# network COMMAND…: a command of tests/tools/proxy.c, which must succeed; network_says prints its answer.
network() {
	network_says "$@" >/dev/null
}

network_says() {
	run "$TOOLS/ask" "$T/proxy" "$@"
}

# ---- mounts ----------------------------------------------------------------------------------------

# run_dir DIR: where the client keeps the state of a mount at DIR (a plain path of the test's own).
run_dir() {
	local name
	name=$(systemd_escape "$1")
	echo "/run/remram/$name"
}

# What systemd-escape --path does to the names that tests use.
systemd_escape() {
	local name=${1#/}
	name=${name//-/\\x2d}
	echo "${name//\//-}"
}

# mount_source SOURCE DIR [OPTION…]: mounts; DIR is made.
mount_source() {
	local source=$1 dir=$2
	shift 2
	mkdir -p "$dir"
	guard_add mount "$dir"
	run_for 20 "$REMRAM" mount "$source" "$dir" "$@"
	guard_is_mounted "$dir" || fail "$dir is not mounted after remram mount"
	guard_add_mount "$dir"
}

# mount_pool POOL DIR [OPTION…]: mounts a pool of the donor.
mount_pool() {
	local pool=$1
	shift
	mount_source "127.0.0.1:$DONOR_PORT:/$pool" "$@"
}

# mount_logged POOL DIR [OPTION…]: the same with the daemon in the foreground, which logs to DIR.log;
# DAEMON_JOB is its process.
mount_logged() {
	local pool=$1 dir=$2
	shift 2
	mkdir -p "$dir"
	guard_add mount "$dir"
	e2e_exec "$REMRAM" mount -f "127.0.0.1:$DONOR_PORT:/$pool" "$dir" "$@" </dev/null >>"$dir.log" 2>&1 &
	DAEMON_JOB=$!
	guard_add pid "$DAEMON_JOB"
	wait_until 20 guard_is_mounted "$dir" || fail "$dir is not mounted: $(tail -n 3 "$dir.log")"
	run stat -t "$dir" >/dev/null
	# The mount command writes this down when all is set up.
	eventually 10 "the state of the mount" test -e "$(run_dir "$dir")/mount.conf"
	guard_add_mount "$dir"
}

# daemon_pid DIR: the process that serves the mount.
daemon_pid() {
	awk '$1 == "pid" { print $2 }' "$(run_dir "$1")/mount.conf"
}

# umount_dir DIR [OPTION…]: unmounts; afterwards mount, daemon and run directory are gone.
umount_dir() {
	local dir=$1 pid
	pid=$(daemon_pid "$dir")
	run_for 30 "$REMRAM" umount "$@"
	guard_drop mount "$dir"
	! guard_is_mounted "$dir" || fail "$dir is still mounted after remram umount"
	eventually 10 "the daemon ends" process_gone "$pid"
	eventually 10 "the run directory goes" test ! -e "$(run_dir "$dir")"
}

# daemon_kill DIR: SIGKILL.
daemon_kill() {
	local pid
	pid=$(daemon_pid "$1")
	kill -KILL "$pid"
	eventually 10 "the daemon is gone" process_gone "$pid"
}

# umount_dead DIR: cleans up the mount of a daemon that was killed.
umount_dead() {
	run "$REMRAM" umount "$1" 2>>"$T/umount.log"
	guard_drop mount "$1"
	! guard_is_mounted "$1" || fail "$1 is still mounted"
	[[ ! -e $(run_dir "$1") ]] || fail "$(run_dir "$1") is left"
}

# attr FILE FORMAT: what stat prints of it.
attr() {
	run stat -c "$2" "$1"
}

# free_bytes DIR: of the pool mounted there.
free_bytes() {
	echo $(($(run stat -f -c '%f * %S' "$1")))
}

# free_is DIR BYTES: for eventually.
free_is() {
	[[ $(free_bytes "$1") -eq $2 ]]
}

# drop_cache FILE…: so that what is read next comes from the daemons; needed where a page cache could hide errors.
drop_cache() {
	local file
	for file in "$@"; do
		run "$TOOLS/fileop" --read "$file" drop
	done
}

# random_file FILE BYTES: fresh random bytes.
random_file() {
	run head -c "$2" /dev/urandom >"$1"
}

# ---- the beginning ---------------------------------------------------------------------------------

for program in "$REMRAM" "$REMRAMD" "$TOOLS/fileop"; do
	[[ -x $program ]] || die "$program is not there: build it with \`make all tools\`"
done
unset program
trap 'exit 143' TERM
trap 'exit 130' INT
trap e2e_exit EXIT
guard_start "${E2E_SECONDS:-150}"
T=$GUARD_DIR
# Programs that leave files where they run leave them here.
cd "$T"
