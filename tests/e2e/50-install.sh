#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# make install, into a directory and into this system: mount(8), umount(8) and fstab work, and after make
# uninstall nothing is left.
. "$(dirname "$0")/lib.sh"
requires fuse loop make findmnt
unset MAKEFLAGS MAKELEVEL MFLAGS DESTDIR PREFIX SBINDIR SYSCONFDIR
cd "$E2E_ROOT" || exit

HELPERS=(mount.remram mount.fuse.remram umount.remram umount.fuse.remram)

# make_quietly TARGET [SETTING…]: its messages go to make.log.
make_quietly() {
	run_for 60 make -s O="${E2E_BUILD#"$E2E_ROOT"/}" "$@" >>"$T/make.log" 2>&1
}

# listing DIR…: every name, type, mode and link target below, one a line.
listing() {
	find "$@" -xdev -printf '%p %y %m %l\n' 2>/dev/null | LC_ALL=C sort
}

# ---- into a directory ------------------------------------------------------------------------------

D=$T/root

step "DESTDIR: everything is in its place"
run mkdir "$D"
make_quietly install DESTDIR="$D" PREFIX=/usr
for file in usr/bin/remram usr/sbin/remramd; do
	is "$file" "$(attr "$D/$file" %a)" 755
done
for file in usr/share/man/man{8/remram.8,8/remram-export.8,8/remramd.8,5/remramd.conf.5,7/remram-protocol.7} \
	usr/lib/systemd/system/remramd.service etc/remram/remramd.conf \
	usr/share/doc/remram/{fstab.example,remramd.conf.example,LICENSE}; do
	is "$file" "$(attr "$D/$file" %a)" 644
done
for name in "${HELPERS[@]}"; do
	is "$name" "$(readlink "$D/sbin/$name")" /usr/bin/remram
done
run grep -qx 'ExecStart=/usr/sbin/remramd' "$D/usr/lib/systemd/system/remramd.service"
is "what was not filled in" "$(grep -c '@' "$D/usr/lib/systemd/system/remramd.service" || true)" 1

step "DESTDIR: the installed programs and the installed settings are good"
is "remram" "$("$D/usr/bin/remram" --version)" "$("$REMRAM" --version)"
refused "cannot make the directory" "$D/usr/sbin/remramd" --config "$D/etc/remram/remramd.conf" \
	--pool "x=file:$T/none/there" --state "$T/state" --listen "127.0.0.1:$(e2e_port)"

step "DESTDIR: installing twice changes nothing, and a second uninstall has nothing to do"
listing "$D" >"$T/once"
make_quietly install DESTDIR="$D" PREFIX=/usr
same "$T/once" <(listing "$D")
make_quietly uninstall DESTDIR="$D" PREFIX=/usr
is "what is left" "$(listing "$D" | wc -l)" 1
refused "nothing is installed there" make uninstall DESTDIR="$D" PREFIX=/usr

step "DESTDIR: what was changed or added stays"
make_quietly install DESTDIR="$D" PREFIX=/opt/remram
echo 'listen = [::1]:10819' >>"$D/etc/remram/remramd.conf"
run touch "$D/opt/remram/share/doc/remram/mine"
run ln -sfn /bin/true "$D/sbin/mount.remram"
make_quietly install DESTDIR="$D" PREFIX=/opt/remram
run grep -q '::1' "$D/etc/remram/remramd.conf"
run ln -sfn /bin/true "$D/sbin/mount.remram"
make_quietly uninstall DESTDIR="$D" PREFIX=/opt/remram
is "what is left" "$(find "$D" ! -type d -printf '%P ' | xargs -n 1 | LC_ALL=C sort | xargs)" \
	"etc/remram/remramd.conf opt/remram/share/doc/remram/mine sbin/mount.remram"
run rm -r "$D"

# ---- into this system ------------------------------------------------------------------------------

for file in /usr/local/share/remram /usr/local/bin/remram /etc/remram "${HELPERS[@]/#//sbin/}"; do
	[[ ! -e $file && ! -L $file ]] || skip "remram is installed here ($file), and this test would replace it"
done

# Whatever happens, nothing stays installed.
INSTALLED=
clean_up() {
	local code=$?
	set +e
	[[ -z $INSTALLED ]] || FORCE=1 make -s uninstall >/dev/null 2>&1 || true
	(exit "$code")
	e2e_exit
}
trap clean_up EXIT

DIRS=(/usr/local /sbin/ /usr/sbin/ /etc /lib/systemd/ /usr/lib/systemd/ /usr/share/man/)
# What belongs to a running system and changes by itself.
system_listing() {
	listing "${DIRS[@]}" | grep -vE '^/etc/(mtab|adjtime|ld\.so\.cache|resolv\.conf)' || true
}

step "install: into this system"
system_listing >"$T/before"
INSTALLED=yes
make_quietly install
is "remram" "$(PATH=/usr/local/bin:$PATH remram --version)" "$("$REMRAM" --version)"
# Every name that is new is in the manifest, and the other way round.
is "what is new" "$(comm -13 "$T/before" <(system_listing) | awk '{ print $1 }' | sort -u)" \
	"$({ awk '{ print $2 }' /usr/local/share/remram/manifest && echo /usr/local/share/remram/manifest; } |
		sed -E 's|^(/sbin/.*)|\1\n/usr\1|' | sort -u | while read -r file; do [[ ! -e $file ]] || echo "$file"; done)"

donor_start ram=memory:?size=256M
SOURCE=127.0.0.1:$DONOR_PORT:/ram
M=$T/mnt
run mkdir "$M"

# mounted_by COMMAND…: the command mounts $M, which then works and is unmounted by umount(8).
mounted_by() {
	local pid
	guard_add mount "$M"
	run_for 20 "$@"
	guard_add_mount "$M"
	is "type and source" "$(findmnt -n -o FSTYPE,SOURCE "$M" | xargs)" "fuse.remram $SOURCE"
	pid=$(daemon_pid "$M")
	fileop --create "$M/a" write 0 1M 1 , fsync , verify 0 1M 1
	run_for 30 umount "$M"
	! guard_is_mounted "$M" || fail "it is still mounted"
	process_gone "$pid" || fail "umount(8) came back before the daemon had ended"
	guard_drop mount "$M"
}

step "install: mount -t fuse.remram, mount -t remram, umount"
mounted_by mount -t fuse.remram "$SOURCE" "$M"
mounted_by "$REMRAM" mount "$SOURCE" "$M"
mounted_by mount -t remram "$SOURCE" "$M" -o noatime,soft,timeo=5s

step "install: mount(8) gets exit codes"
code=0
mount -t fuse.remram "127.0.0.1:$DONOR_PORT:/none" "$M" 2>"$T/said" || code=$?
is "an unknown pool" "$code" 32
contains "an unknown pool" "$(<"$T/said")" "no such pool"
code=0
mount -t fuse.remram "$SOURCE" "$M" -o sise=1M 2>"$T/said" || code=$?
is "an unknown option" "$code" 1
contains "an unknown option" "$(<"$T/said")" "sise"
is "what is mounted" "$(findmnt -n -l -t fuse.remram | grep -cF "$M" || true)" 0

# The file itself is never touched: another one is mounted over it.
step "install: a line of /etc/fstab"
[[ -e /etc/fstab ]] || fail "there is no /etc/fstab"
run cp /etc/fstab "$T/fstab"
run cp /etc/fstab "$T/fstab.before"
{
	echo "$SOURCE $M fuse.remram _netdev,nofail,noauto,x-systemd.requires=network.target 0 0"
	echo "$SOURCE $T/swap fuse.remram noauto,swap=swap0,size=16M,prio=0,attach=disk0 0 0"
} >>"$T/fstab"
guard_add mount /etc/fstab
run mount --bind "$T/fstab" /etc/fstab
mounted_by mount "$M"

step "install: a line of /etc/fstab with swap and a loop device"
run mkdir "$T/swap"
mounted_by mount "$M"
run_for 20 "$REMRAM" mount "$SOURCE" "$T/swap"
guard_add_mount "$T/swap"
fileop --create "$T/swap/disk0" truncate 8M
run_for 20 umount "$T/swap"
run_for 30 mount "$T/swap"
guard_add_mount "$T/swap"
swap=$(readlink "$(run_dir "$T/swap")/swap0")
disk=$(readlink "$(run_dir "$T/swap")/disk0")
guard_add swap "$swap"
guard_add loop "$swap"
guard_add loop "$disk"
guard_is_swap "$swap" || fail "$swap is not swap"
is "the loop device's size" "$(run blockdev --getsize64 "$disk")" 8388608

step "uninstall: refused while a pool is mounted"
refused "unmount first" make uninstall
[[ -L /sbin/umount.fuse.remram ]] || fail "a refused uninstall has removed something"
run_for 60 umount "$T/swap"
! guard_is_swap "$swap" || fail "$swap is still swap"
[[ ! -e /sys/block/${disk#/dev/}/loop/backing_file ]] || fail "$disk is still attached"
for kind in "swap $swap" "loop $swap" "loop $disk" "mount $T/swap"; do
	guard_drop "${kind% *}" "${kind#* }"
done
run umount /etc/fstab
guard_drop mount /etc/fstab
same /etc/fstab "$T/fstab.before"

step "uninstall: nothing is left"
# Other pools may be mounted on this machine, and not by this test.
make_quietly uninstall FORCE=1
INSTALLED=
system_listing >"$T/after"
same "$T/before" "$T/after"
! mount -t fuse.remram "$SOURCE" "$M" 2>/dev/null || fail "it can still be mounted"
is "what mount(8) remembers of the mounts" "$(grep -cF "$T/" /run/mount/utab || true)" 0
donor_stop
finish
