# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# The contenders of the benchmark: how each is started in its best honest configuration, and what its
# processes are.  To be sourced after lib.sh, cgroup.sh and swapguard.sh, with BUILD (the build directory)
# and SIZE (bytes of the file) set.
#
# A contender NAME has
#   contender_start_NAME       starts donor and client; sets FILE[NAME], and CLIENT[NAME] and DONOR[NAME]
#                              (process ids; empty where there is no process)
#   contender_mount_NAME DIR   mounts once more at DIR from the same donor and returns as soon as a byte of
#                              data has been read there; for measuring how long that takes
#   contender_unmount_NAME DIR undoes that
#
# Fairness: every donor is on 127.0.0.1 over TCP and holds all of the data in memory, filled with random
# bytes before anything is measured; every client is a FUSE mount; nobody caches at the client.
#
#   nbdkit   plugin memory, its default allocator (sparse) and its default of 16 threads: allocator=malloc
#            and other numbers of threads made no difference here that was larger than the noise.
#   nbdfuse  its default number of connections (4, since nbdkit's memory plugin allows multi-conn), which
#            is faster than one for every row but the latency of single requests, where it is equal.
#   qemu-storage-daemon  version 7.2's FUSE export serves from the main loop; `iothread=` on the export
#            makes no difference.  cache.direct does not apply to its NBD client: it has no cache.
#   nbd      remram's mount of an NBD server, default options, to be compared with nbdfuse.
#   tmpfs    no donor and no FUSE: what the machine could do at best.

declare -gA FILE CLIENT DONOR PORT

# read_first_byte FILE: waits until a byte can be read, without forking: the time is being taken.  LC_ALL
# keeps bash from reading on to complete a multi-byte character.
read_first_byte() {
	local LC_ALL=C deadline=$((${EPOCHREALTIME/[.,]/} + 10000000))
	# A zero byte is taken for the end of an empty record, which is success as well.
	until IFS= read -r -d '' -n 1 _ <"$1"; do
		((${EPOCHREALTIME/[.,]/} < deadline)) || return 1
	done 2>/dev/null
}

# start_nbdkit NAME: the donor of an NBD client.
start_nbdkit() {
	PORT[$1]=$(free_port)
	nbdkit --foreground --ipaddr 127.0.0.1 --port "${PORT[$1]}" memory "$SIZE" \
		2>"$GUARD_DIR/$1-donor.log" &
	DONOR[$1]=$!
	guard_add pid "${DONOR[$1]}"
	wait_until 10 tcp_answers "${PORT[$1]}" || die "nbdkit does not listen"
}

# The client of a second mount, SECOND, ends by itself now: collected, so that its process id is free to be
# somebody else's without the guard ending that.
second_ended() {
	wait "$SECOND" || true
	guard_drop pid "$SECOND"
}

tcp_answers() {
	(exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

file_has_size() {
	[[ $(stat -c %s "$1" 2>/dev/null) == "$2" ]]
}

# Unmounting is retried, since a benchmark's last reader may only just have gone.
plain_umount() {
	wait_until 10 umount "$1"
}

contender_start_tmpfs() {
	mkdir "$GUARD_DIR/tmpfs"
	mount -t tmpfs -o "size=$((SIZE + (16 << 20)))" none "$GUARD_DIR/tmpfs"
	guard_add mount "$GUARD_DIR/tmpfs"
	FILE[tmpfs]=$GUARD_DIR/tmpfs/work
	CLIENT[tmpfs]='' DONOR[tmpfs]=''
	truncate -s "$SIZE" "${FILE[tmpfs]}"
}

nbdfuse_run() {
	nbdfuse "$1/disk" "nbd://127.0.0.1:${PORT[nbdfuse]}" 2>>"$GUARD_DIR/nbdfuse.log" &
}

contender_start_nbdfuse() {
	local dir=$GUARD_DIR/nbdfuse
	start_nbdkit nbdfuse
	mkdir "$dir"
	nbdfuse_run "$dir"
	CLIENT[nbdfuse]=$!
	guard_add pid "${CLIENT[nbdfuse]}"
	wait_until 10 file_has_size "$dir/disk" "$SIZE" || die "nbdfuse does not mount"
	guard_add_mount "$dir"
	FILE[nbdfuse]=$dir/disk
}

contender_mount_nbdfuse() {
	nbdfuse_run "$1"
	SECOND=$!
	guard_add pid "$SECOND"
	read_first_byte "$1/disk"
}

contender_unmount_nbdfuse() {
	plain_umount "$1"
	second_ended
}

# qemu-storage-daemon mounts over a regular file.
qsd_run() {
	: >"$1/disk"
	qemu-storage-daemon \
		--blockdev "driver=nbd,node-name=n,server.type=inet,server.host=127.0.0.1,server.port=${PORT[qsd]}" \
		--export "type=fuse,id=e,node-name=n,mountpoint=$1/disk,writable=on" \
		2>>"$GUARD_DIR/qsd.log" &
}

contender_start_qsd() {
	local dir=$GUARD_DIR/qsd
	start_nbdkit qsd
	mkdir "$dir"
	qsd_run "$dir"
	CLIENT[qsd]=$!
	guard_add pid "${CLIENT[qsd]}"
	wait_until 10 file_has_size "$dir/disk" "$SIZE" || die "qemu-storage-daemon does not mount"
	guard_add_mount "$dir/disk"
	FILE[qsd]=$dir/disk
}

contender_mount_qsd() {
	qsd_run "$1"
	SECOND=$!
	guard_add pid "$SECOND"
	read_first_byte "$1/disk"
}

contender_unmount_qsd() {
	kill "$SECOND"
	second_ended
	! guard_is_mounted "$1/disk" || plain_umount "$1/disk"
}

# The client daemon puts itself into the background: it is the process of our program that names the
# directory on its command line.
remram_client_pid() {
	local proc
	for proc in /proc/[0-9]*; do
		if [[ $proc/exe -ef $BUILD/remram ]] &&
			tr '\0' '\n' <"$proc/cmdline" 2>/dev/null | grep -xF "$1" >/dev/null; then
			echo "${proc#/proc/}"
		fi
	done
}

contender_start_remram() {
	local dir=$GUARD_DIR/remram ready
	PORT[remram]=$(free_port)
	mkdir "$dir"
	exec {ready}<> <(:)
	"$BUILD/remramd" --pool "ram=memory:?size=$((SIZE + (1 << 30)))" \
		--listen "127.0.0.1:${PORT[remram]}" --ready-fd "$ready" 2>"$GUARD_DIR/remram-donor.log" &
	DONOR[remram]=$!
	guard_add pid "${DONOR[remram]}"
	read -r -t 10 -u "$ready" _ || die "remramd does not start: $(tail -n 3 "$GUARD_DIR/remram-donor.log")"
	exec {ready}<&-
	"$BUILD/remram" "127.0.0.1:${PORT[remram]}:/ram" "$dir" ||
		die "remram does not mount"
	guard_add_mount "$dir"
	CLIENT[remram]=$(remram_client_pid "$dir" | head -n 1)
	[[ -n ${CLIENT[remram]} ]] || die "cannot find the client daemon of $dir"
	guard_add pid "${CLIENT[remram]}"
	FILE[remram]=$dir/work
	truncate -s "$SIZE" "${FILE[remram]}"
}

contender_mount_remram() {
	"$BUILD/remram" "127.0.0.1:${PORT[remram]}:/ram" "$1"
	read_first_byte "$1/work"
}

contender_unmount_remram() {
	plain_umount "$1"
}

contender_start_nbd() {
	local dir=$GUARD_DIR/nbd
	start_nbdkit nbd
	mkdir "$dir"
	"$BUILD/remram" mount "nbd://127.0.0.1:${PORT[nbd]}" "$dir" || die "remram does not mount the NBD server"
	guard_add_mount "$dir"
	CLIENT[nbd]=$(remram_client_pid "$dir" | head -n 1)
	[[ -n ${CLIENT[nbd]} ]] || die "cannot find the client daemon of $dir"
	guard_add pid "${CLIENT[nbd]}"
	FILE[nbd]=$dir/nbd
}

contender_mount_nbd() {
	"$BUILD/remram" mount "nbd://127.0.0.1:${PORT[nbd]}" "$1"
	read_first_byte "$1/nbd"
}

contender_unmount_nbd() {
	plain_umount "$1"
}
