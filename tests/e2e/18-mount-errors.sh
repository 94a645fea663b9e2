#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A mount that cannot be says why in one sentence, exits with mount(8)'s code, and leaves nothing.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse setpriv unshare nbdkit
donor_start ram=memory:?size=16M scratch=memory:?size=16M
S=127.0.0.1:$DONOR_PORT:/ram
M=$T/mnt
mkdir "$M"
: >"$T/file"
chmod 755 "$T"
# Other users may not get to where it was built.
cp "$REMRAM" "$T/remram"

# cannot CODE TEXT COMMAND…: exit code, one sentence on stderr with TEXT in it, nothing on stdout, and no mount.
cannot() {
	local code=0 expected=$1 text=$2
	shift 2
	timeout -k 5 30 "$@" </dev/null >"$T/stdout" 2>"$T/stderr" || code=$?
	is "exit code of $*" "$code" "$expected"
	contains "stderr of $*" "$(<"$T/stderr")" "$text"
	is "lines on stderr of $*: $(<"$T/stderr")" "$(wc -l <"$T/stderr")" 1
	is "beginning of stderr of $*" "$(head -c 8 "$T/stderr")" "remram: "
	is "stdout of $*" "$(<"$T/stdout")" ""
	! guard_is_mounted "$M" || fail "$M is mounted after: $*"
	[[ ! -e $(run_dir "$M") ]] || fail "$(run_dir "$M") is left of: $*"
}

step "the donor is not there"
port=$(e2e_port)
cannot 32 "127.0.0.1:$port: connection refused" "$REMRAM" mount "127.0.0.1:$port:/ram" "$M"
cannot 32 "[::1]:$port" "$REMRAM" mount "[::1]:$port:/ram" "$M"
cannot 32 "no-such-host.invalid: " "$REMRAM" mount no-such-host.invalid:/ram "$M"

step "what answers is no donor, or none at all"
"$TOOLS/proxy" --listen "127.0.0.1:$port" --target "127.0.0.1:$(e2e_port)" --control "$T/proxy" </dev/null >"$T/proxy.log" 2>&1 &
guard_add pid $!
eventually 5 "the proxy's control socket" test -S "$T/proxy"
cannot 32 "127.0.0.1:$port: " "$REMRAM" mount "127.0.0.1:$port:/ram" "$M"
run "$TOOLS/ask" "$T/proxy" blackhole >/dev/null
nbd_port=$(e2e_port)
nbdkit -f -i 127.0.0.1 -p "$nbd_port" memory 1M </dev/null >"$T/nbdkit.log" 2>&1 &
guard_add pid $!
eventually 10 "nbdkit listens" eval '(: <>/dev/tcp/127.0.0.1/$nbd_port)'
cannot 32 "127.0.0.1:$nbd_port: " "$REMRAM" mount "127.0.0.1:$nbd_port:/ram" "$M"
start=$(now_ms)
cannot 32 "no answer for 5 s" "$REMRAM" mount "127.0.0.1:$port:/ram" "$M"
at_most "milliseconds" "$(since_ms "$start")" 12000
job "$REMRAM" mount "127.0.0.1:$port:/ram" "$M"
sleep 1
kill -INT "$JOB"
job_wait 5
[[ $JOB_CODE -ne 0 ]] || fail "an interrupted mount has succeeded"

step "the pool is not there"
cannot 32 'pool "none": no such pool (it offers: ram, scratch)' "$REMRAM" mount "127.0.0.1:$DONOR_PORT:/none" "$M"

step "the directory is not there, or none"
cannot 32 "there is no such directory" "$REMRAM" mount "$S" "$T/none"
cannot 32 "there is no such directory" "$REMRAM" mount "$S" "$T/none/none"
cannot 32 "is not a directory" "$REMRAM" mount "$S" "$T/file"

step "not root"
cannot 1 "only root can mount" setpriv --reuid=65534 --regid=65534 --clear-groups "$T/remram" mount "$S" "$M"
cannot 1 "only root can unmount" setpriv --reuid=65534 --regid=65534 --clear-groups "$T/remram" umount "$M"

step "no /dev/fuse"
# shellcheck disable=SC2016
cannot 2 "/dev/fuse" unshare -m bash -c 'mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec "$@"' - \
	"$REMRAM" mount "$S" "$M"

step "sources that are none"
for source in "$S/x" 127.0.0.1 127.0.0.1:ram 127.0.0.1:0:/ram 127.0.0.1:65536:/ram 127.0.0.1:x:/ram :/ram 127.0.0.1:/ \
	::1:/ram "[::1:/ram" "a b:/ram" foo://x/y remram:///ram "" "$(printf 'x%.0s' {1..5000}):/ram"; do
	cannot 1 "" "$REMRAM" mount "$source" "$M"
done
cannot 32 "no such file" "$REMRAM" mount file:/none/none "$M"
cannot 32 "size" "$REMRAM" mount memory: "$M"
cannot 32 "unknown parameter \"siz\"" "$REMRAM" mount "memory:?siz=1G" "$M"
cannot 32 "must begin with '/'" "$REMRAM" mount file:relative "$M"

step "options that are none"
cannot 1 "unknown option \"sofy\": did you mean \"soft\"" "$REMRAM" mount "$S" "$M" -o sofy
for option in foo foo=bar ro=1 rw,foo timeo=1s hard,timeo=1s soft,timeo soft,timeo= soft,timeo=x soft,timeo=-1 \
	soft,timeo=0 soft,timeo=99999h size=4M prio=1 discard swap swap= swap=a/b swap=.. swap=x,size=5 \
	swap=x,size=1Q swap=x,size=1048577 swap=x,ro swap=x,size=1M,prio=40000 swap=x,loop=x loop= loop=a/b \
	read_ahead=x read_ahead=1T max_background=0 max_background=9999 max_background=-1 spin_us=1e9 log=loud \
	attr_timeout=5x remount soft=1 hard=x; do
	cannot 1 "" "$REMRAM" mount "$S" "$M" -o "$option"
done

step "command lines that are none"
cannot 1 "argument is missing" "$REMRAM" mount "$S"
cannot 1 "argument is missing" "$REMRAM" mount
cannot 1 "too many arguments" "$REMRAM" mount "$S" "$M" "$M"
cannot 1 "" "$REMRAM" mount "$S" "$M" --none
cannot 1 "" "$REMRAM" mount "$S" "$M" -o

step "a place that is taken"
mount_source "$S" "$M"
refused "is a remram mount already (of $S): unmount it first" "$REMRAM" mount "$S" "$M"
refused "is a remram mount already" "$REMRAM" mount "127.0.0.1:$DONOR_PORT:/scratch" "$M"
echo "still there" >"$M/a"
is "a" "$(<"$M/a")" "still there"
umount_dir "$M"

step "umount of what is not mounted"
cannot 32 "is not a remram mount" "$REMRAM" umount "$M"
cannot 32 "No such file" "$REMRAM" umount "$T/none"
mount -t tmpfs none "$M"
guard_add mount "$M"
refused "is not a remram mount" "$REMRAM" umount "$M"
guard_is_mounted "$M" || fail "umount has unmounted a tmpfs"
run umount "$M"
guard_drop mount "$M"

step "after all that it mounts"
mount_source "$S" "$M"
is "a" "$(<"$M/a")" "still there"
umount_dir "$M"
finish
