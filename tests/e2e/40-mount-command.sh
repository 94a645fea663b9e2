#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The mount and umount commands: what they refuse and how they say it, their exit codes, the names they
# are called by, and that nothing is left of what failed.
. "$(dirname "$0")/lib.sh"
requires fuse setsid
donor_start ram=memory:?size=64M
M=$T/mnt
SRC=127.0.0.1:$DONOR_PORT:/ram
mkdir "$M"
guard_add mount "$M"

# exits CODE TEXT COMMAND…: ends with that code and says TEXT in one line that begins with "remram: ".
exits() {
	local want=$1 text=$2 code=0 said
	shift 2
	said=$(timeout -k 5 30 "$@" 2>&1 >/dev/null) || code=$?
	is "exit code of $*" "$code" "$want"
	contains "what it says: $*" "$said" "$text"
	is "lines" "$(wc -l <<<"$said")" 1
	contains "its beginning" "$said" "remram: "
}

status_says() {
	"$REMRAM" status "$M" | grep -e "$1" >/dev/null
}

nothing_left() {
	! guard_is_mounted "$M" || fail "$M is mounted"
	[[ ! -e $(run_dir "$M") ]] || fail "$(run_dir "$M") is left: $(ls "$(run_dir "$M")")"
}

step "help and version"
contains "version" "$(run "$REMRAM" --version)" "remram "
contains "help" "$(run "$REMRAM" help)" "usage: remram mount"
contains "options" "$(run "$REMRAM" mount --help)" "swap=NAME"
contains "umount" "$(run "$REMRAM" umount --help)" "--lazy"
code=0
"$REMRAM" >/dev/null 2>&1 || code=$?
is "exit code without arguments" "$code" 1

step "wrong arguments: exit code 1"
exits 1 "an argument is missing" "$REMRAM" mount "$SRC"
exits 1 "too many arguments" "$REMRAM" mount "$SRC" "$M" more
exits 1 "write HOST:/POOL" "$REMRAM" mount nonsense "$M"
exits 1 'did you mean "swap"' "$REMRAM" mount "$SRC" "$M" -o swop=a
exits 1 "'size' needs swap=NAME" "$REMRAM" mount "$SRC" "$M" -o size=1G
exits 1 "multiple of 4096" "$REMRAM" mount "$SRC" "$M" -o swap=a,size=1048577
exits 1 "exclude each other" "$REMRAM" mount "$SRC" "$M" -o swap=a,size=1M,ro
exits 1 "'timeo' needs 'soft'" "$REMRAM" mount "$SRC" "$M" -o timeo=1s
exits 1 "the donor keeps the times" "$REMRAM" mount "$SRC" "$M" -o lazytime
exits 1 "unmount, and mount" "$REMRAM" mount "$SRC" "$M" -o remount,ro
exits 1 "only root can mount" setpriv --reuid 65534 --clear-groups "$REMRAM" mount "$SRC" "$M"
exits 1 "only root can unmount" setpriv --reuid 65534 --clear-groups "$REMRAM" umount "$M"
nothing_left

step "what cannot be mounted: exit code 32"
exits 32 "there is no such directory" "$REMRAM" mount "$SRC" "$T/nowhere"
exits 32 "is not a directory" "$REMRAM" mount "$SRC" "$DONOR_LOG"
exits 32 "no such pool" "$REMRAM" mount "127.0.0.1:$DONOR_PORT:/nope" "$M"
exits 32 "connection refused" "$REMRAM" mount "127.0.0.1:$(e2e_port):/ram" "$M"
exits 32 "no-such-host.invalid" "$REMRAM" mount "no-such-host.invalid:/ram" "$M"
exits 32 "no such region" "$REMRAM" mount "$SRC" "$M" -o attach=nosuch
nothing_left

step "what cannot be unmounted: exit code 32"
exits 32 "is not a remram mount" "$REMRAM" umount "$M"
exits 32 "No such file or directory" "$REMRAM" umount "$T/nowhere"
exits 32 "is not a remram mount" "$REMRAM" abort "$M"
exits 1 "is not a remram mount" "$REMRAM" status "$M"

step "a mount is known, and refused a second time"
mount_pool ram "$M"
contains "the mount table" "$(grep -F " $M " /proc/mounts)" "$SRC $M fuse.remram rw,nosuid,nodev"
exits 32 "is a remram mount already (of $SRC)" "$REMRAM" mount "$SRC" "$M"
is "the control socket's mode" "$(stat -c %a "$(run_dir "$M")/control")" 600
contains "status" "$(run "$REMRAM" status "$M")" "connected to 127.0.0.1:$DONOR_PORT"
umount_dir "$M"
nothing_left

step "five at once: one wins"
pids=()
for _ in 1 2 3 4 5; do
	"$REMRAM" mount "$SRC" "$M" </dev/null >/dev/null 2>&1 &
	pids+=($!)
done
won=0
for pid in "${pids[@]}"; do
	code=0
	wait "$pid" || code=$?
	[[ $code -eq 0 || $code -eq 32 ]] || fail "exit code $code"
	[[ $code -ne 0 ]] || won=$((won + 1))
done
is "successful mounts" "$won" 1
is "mounts" "$(grep -cF " $M " /proc/mounts)" 1
umount_dir "$M"
nothing_left

step "under the names that mount(8) and umount(8) use"
for name in mount.remram mount.fuse.remram umount.remram umount.fuse.remram; do
	ln -s "$REMRAM" "$T/$name"
done
run "$T/mount.fuse.remram" "$SRC" "$M" -sfn -o rw,_netdev
nothing_left # -f: fake
run "$T/mount.fuse.remram" "$SRC" "$M" -n -v -o rw,noexec,_netdev,nofail,x-foo=bar -t fuse.remram
contains "the mount table" "$(grep -F " $M " /proc/mounts)" "nosuid,nodev,noexec"
run "$T/umount.fuse.remram" "$M" -n -r -t fuse.remram
nothing_left
run "$T/mount.remram" "$SRC" "$M"
run "$T/umount.remram" "$M"
nothing_left
run "$REMRAM" "$SRC" "$M" -o rw,dev,suid,nodiratime # as mount.fuse3 calls it
contains "the mount table" "$(grep -F " $M " /proc/mounts)" " fuse.remram rw,relatime,"
run "$REMRAM" umount -v "$M" >/dev/null
nothing_left

step "a mount in use: its user is named"
mount_pool ram "$M"
: >"$M/a"
exec 8<"$M/a"
exits 32 "process $$ (bash) has a file open there" "$REMRAM" umount "$M"
exec 8<&-
(cd "$M" && exec sleep 60) &
sleeper=$!
guard_add job "$sleeper"
eventually 5 "the sleeper sleeps" grep -qx sleep "/proc/$sleeper/comm"
exits 32 "process $sleeper (sleep) has its working directory there" "$REMRAM" umount "$M"
run cat "$M/a"

step "a lazy umount takes it away and lets its users finish"
pid=$(daemon_pid "$M")
exec 8<>"$M/a"
run "$REMRAM" umount -l "$M"
nothing_left
echo still >&8
exec 8<&-
kill "$sleeper"
wait "$sleeper" || true
eventually 10 "the daemon ends with its last user" process_gone "$pid"

step "unmounted by others: the daemon tidies up"
mount_pool ram "$M"
is "what was written lazily" "$(cat "$M/a")" still
pid=$(daemon_pid "$M")
run umount -i "$M"
eventually 10 "the daemon ends" process_gone "$pid"
eventually 10 "the run directory goes" test ! -e "$(run_dir "$M")"

step "a daemon that was killed: refused, shown, cleaned up"
mount_pool ram "$M"
kill -KILL "$(daemon_pid "$M")"
eventually 10 "status knows" status_says DEAD
exits 32 "is a remram mount already" "$REMRAM" mount "$SRC" "$M"
contains "umount" "$(run "$REMRAM" umount "$M" 2>&1)" "had died; cleaned up"
nothing_left
mount_pool ram "$M"

step "the run directory was lost: umount still works"
rm -r "$(run_dir "$M")"
contains "status" "$(run "$REMRAM" status)" "$M"
run "$REMRAM" umount "$M" >/dev/null 2>&1
nothing_left

step "abort ends the connection; umount removes the rest"
mount_pool ram "$M"
contains "abort" "$(run "$REMRAM" abort "$M")" "aborted"
refused "" cat "$M/a"
run "$REMRAM" umount "$M" 2>/dev/null
nothing_left

step "in the foreground: SIGTERM unmounts, and a busy mount stays"
mount_logged ram "$M"
exec 8<"$M/a"
kill -TERM "$DAEMON_JOB"
eventually 10 "it says why not" grep -q "has a file open there" "$M.log"
guard_is_mounted "$M" || fail "$M is gone"
exec 8<&-
kill -TERM "$DAEMON_JOB"
job_wait 20 "$DAEMON_JOB"
is "exit code" "$JOB_CODE" 0
guard_drop pid "$DAEMON_JOB"
nothing_left

step "in the foreground: ended by umount"
mount_logged ram "$M"
run "$REMRAM" umount "$M"
job_wait 20 "$DAEMON_JOB"
is "exit code" "$JOB_CODE" 0
guard_drop pid "$DAEMON_JOB"
nothing_left

step "no descriptor, terminal or directory of the caller's is kept"
exec 8<>"$T/caller"
(cd "$T" && run "$REMRAM" mount "$SRC" "$M" </dev/null 8>&8)
exec 8<&-
pid=$(daemon_pid "$M")
is "working directory" "$(readlink "/proc/$pid/cwd")" /
for fd in 0 1 2; do
	is "descriptor $fd" "$(readlink "/proc/$pid/fd/$fd")" /dev/null
done
is "the caller's file, open in the daemon" "$(run find "/proc/$pid/fd" -lname "$T/caller")" ""
is "session" "$(ps -o sid= -p "$pid" | tr -d ' ')" "$pid"
umount_dir "$M"

step "not the same as the directory's name: spaces, dashes, symlinks, relative paths"
mkdir "$T/my data-x"
ln -s "my data-x" "$T/link"
guard_add mount "$T/my data-x"
(cd "$T" && run "$REMRAM" mount "$SRC" link)
[[ -S "/run/remram/tmp-$(basename "$T" | sed 's/-/\\x2d/g')-my\\x20data\\x2dx/control" ]] ||
	fail "no run directory of the expected name: $(ls /run/remram)"
(cd "$T" && run "$REMRAM" umount ./link/)
finish
