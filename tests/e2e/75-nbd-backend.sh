#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# An export of an NBD server is a file of a mount, and a pool of a donor: of nbdkit and of qemu-nbd, over TCP, a
# Unix socket and TLS, while the server is killed and started again, read-only, and with odd block sizes.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
requires fuse loop fio nbdkit qemu-nbd mkfs.ext4 openssl
M=$T/mnt
SERVER_PID=''

# server_start COMMAND…: an NBD server in the foreground; ready when it answers at URI.
server_start() {
	SERVER_COMMAND=("$@")
	server_run
}

server_run() {
	e2e_exec "${SERVER_COMMAND[@]}" </dev/null >>"$T/server.log" 2>&1 &
	SERVER_PID=$!
	guard_add pid "$SERVER_PID"
	eventually 10 "the NBD server answers" server_answers
}

# shellcheck disable=SC2317 # called by eventually
# Something listens: what it says is up to the test.
server_answers() {
	process_alive "$SERVER_PID" || fail "the NBD server has ended: $(tail -n 3 "$T/server.log")"
	if [[ -n $PORT ]]; then
		(: <>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null
	else
		[[ -S $T/socket ]]
	fi
}

server_kill() {
	kill -KILL "$SERVER_PID"
	wait "$SERVER_PID" 2>/dev/null || true
	guard_drop pid "$SERVER_PID"
}

# on_port, on_socket: where the next server listens.
on_port() {
	PORT=$(e2e_port)
	NBDKIT=(nbdkit --foreground --ipaddr 127.0.0.1 --port "$PORT")
	URI=nbd://127.0.0.1:$PORT
}

on_socket() {
	PORT=''
	rm -f "$T/socket"
	NBDKIT=(nbdkit --foreground --unix "$T/socket")
	URI="nbd+unix:///?socket=$T/socket"
}

# mount_nbd URI [OPTION…]: in the foreground, with its messages in $M.log.
mount_nbd() {
	local uri=$1
	shift
	mkdir -p "$M"
	: >"$M.log"
	guard_add mount "$M"
	e2e_exec "$REMRAM" mount -f "$uri" "$M" "$@" </dev/null >>"$M.log" 2>&1 &
	guard_add pid $!
	eventually 20 "the mount" guard_is_mounted "$M"
	eventually 10 "the state of the mount" test -e "$(run_dir "$M")/mount.conf"
	guard_add_mount "$M"
}

verify() {
	run_for 60 fio --name=verify --filename="$1" --size="$2" --rw=randrw --verify_backlog=1000 --bsrange=4k-256k \
		--ioengine=libaio --iodepth=16 --direct=1 --verify=crc32c --verify_state_save=0 --output="$T/fio.log"
}

random_file "$T/data" 33554432

step "nbdkit over TCP: one file, with the export's size"
on_port
server_start "${NBDKIT[@]}" memory 64M
mount_source "$URI/" "$M"
is "entries" "$(ls -A "$M")" nbd
is "size" "$(attr "$M/nbd" '%s %a')" "67108864 600"
contains "status" "$(run "$REMRAM" status)" "connected to nbd://127.0.0.1:$PORT"
verify "$M/nbd" 32M
run dd if="$T/data" of="$M/nbd" bs=1M conv=notrunc,fsync status=none
run cmp -n 33554432 "$T/data" "$M/nbd"
fileop "$M/nbd" map 0 2M shared rw , map-write 65537 65536 2 , map-sync , drop , verify 65537 65536 2
fileop "$M/nbd" write 1234567 500000 1 , verify 1234567 500000 1 , fallocate punch 1234567 100001 , \
	zeros 1234567 100001 , verify 1334568 399999 1
refused "Operation not permitted" touch "$M/other"
umount_dir "$M"
mount_source "$URI" "$M"
fileop --read "$M/nbd" zeros 1234567 100001 , verify 1334568 399999 1

step "what is not there is told as holes"
fileop "$M/nbd" fallocate punch 0 64M , write 1M 1M 3
is "extents" "$("$TOOLS/fileop" --read "$M/nbd" extents)" "hole 0 1048576
data 1048576 2097152
hole 2097152 67108864"
umount_dir "$M"
server_kill

step "a file's export over a Unix socket, named: what is written is in the server's file"
truncate -s 64M "$T/image"
on_socket
server_start "${NBDKIT[@]}" file "$T/image"
mount_source "nbd+unix:///some/export?socket=$T/socket&conns=2" "$M"
is "entries" "$(ls -A "$M")" export
verify "$M/export" 32M
run dd if="$T/data" of="$M/export" bs=1M conv=notrunc status=none
umount_dir "$M"
run cmp -n 33554432 "$T/data" "$T/image"
server_kill

step "qemu-nbd, with discard"
truncate -s 64M "$T/image"
on_port
server_start qemu-nbd --persistent --format=raw --discard=unmap --shared=8 --bind=127.0.0.1 --port="$PORT" "$T/image"
mount_source "$URI" "$M"
run cmp -n 33554432 "$T/data" "$M/nbd"
verify "$M/nbd" 32M
fileop "$M/nbd" write 32M 1M 5 , fallocate punch 0 32M , zeros 0 32M , fsync
at_most "blocks of the image" "$(stat -c %b "$T/image")" 70000
umount_dir "$M"
server_kill
fileop --read "$T/image" verify 32M 1M 5

step "a server that is killed and started again under I/O: nothing fails, nothing is wrong"
on_port
server_start "${NBDKIT[@]}" file "$T/image"
mount_nbd "$URI"
job fio --name=verify --filename="$M/nbd" --size=64M --rate=,8m --rw=randwrite --bsrange=4k-256k --ioengine=libaio \
	--iodepth=16 --direct=1 --verify=crc32c --verify_fatal=1 --verify_state_save=0 --output="$T/fio.killed.log"
for _ in 1 2 3; do
	sleep 1
	server_kill
	sleep 0.5
	process_alive "$JOB" || fail "the job has ended while the server was away"
	server_run
done
job_passes 60
contains "the client's log" "$(<"$M.log")" "connected again"

step "a process that waits for a server that is away can be killed; an unmount does not wait"
server_kill
job dd if="$M/nbd" of=/dev/null bs=1M iflag=direct
sleep 1
process_alive "$JOB" || fail "dd did not wait"
kill -KILL "$JOB"
job_wait 5
server_run
umount_dir "$M"

step "soft: requests fail after a time, and work when the server is back"
mount_nbd "$URI" -o soft,timeo=500ms
run dd if="$M/nbd" of=/dev/null bs=1M count=1 iflag=direct status=none
server_kill
refused "Input/output error" dd if="$M/nbd" of=/dev/null bs=1M count=1 iflag=direct
server_run
# shellcheck disable=SC2317
reads() { dd if="$M/nbd" of=/dev/null bs=1M count=1 iflag=direct status=none 2>/dev/null; }
eventually 10 "reads work again" reads

step "an export that has become smaller is not used"
server_kill
truncate -s 32M "$T/image"
server_run
refused "Input/output error" dd if="$M/nbd" of=/dev/null bs=1M count=1 iflag=direct
contains "the client's log" "$(<"$M.log")" "has become smaller (33554432 bytes, it had 67108864)"
umount_dir "$M"
server_kill

step "a read-only server gives a file that can be read"
server_start "${NBDKIT[@]}" -r file "$T/image"
mount_source "$URI" "$M"
is "mode" "$(attr "$M/nbd" %a)" 400
run cmp "$M/nbd" "$T/image"
refused "EACCES" "$TOOLS/fileop" "$M/nbd" size
run chmod 600 "$M/nbd"
refused "Read-only file system" dd if=/dev/zero of="$M/nbd" bs=4096 count=1 conv=notrunc oflag=direct
umount_dir "$M"
server_kill

step "servers that want blocks of 4 and 64 KiB, and no longer ones than that"
for least in 4096 65536; do
	truncate -s 64M "$T/image"
	server_start "${NBDKIT[@]}" --filter=blocksize-policy file "$T/image" blocksize-minimum=$least \
		blocksize-preferred=$least blocksize-maximum=65536 blocksize-error-policy=error
	mount_source "$URI" "$M"
	verify "$M/nbd" 16M
	fileop "$M/nbd" write 0 1M 1 , write 1234567 500000 1 , verify 0 1M 1 , verify 1234567 500000 1 , fsync , drop , \
		verify 0 1M 1 , verify 1234567 500000 1
	run dd if="$T/data" of="$M/nbd" bs=777 count=3000 conv=notrunc status=none
	run cmp -n 2331000 "$T/data" "$M/nbd"
	umount_dir "$M"
	server_kill
done

step "a file system on a loop device over the mount is clean"
on_port
server_start "${NBDKIT[@]}" memory 256M
mount_source "$URI" "$M" -o attach=nbd
dev=$(losetup -n -O NAME -j "$M/nbd")
run mkfs.ext4 -q -F "$dev"
mkdir "$T/ext4"
run mount "$dev" "$T/ext4"
guard_add mount "$T/ext4"
run cp "$T/data" "$T/ext4/data"
run umount "$T/ext4"
run fsck.ext4 -f -n "$dev" >/dev/null
run mount -o ro "$dev" "$T/ext4"
same "$T/data" "$T/ext4/data"
run umount "$T/ext4"
guard_drop mount "$T/ext4"
umount_dir "$M"
server_kill

step "an export as the pool of a donor, with two clients"
on_port
# One thread for a connection: with several, nbdkit 1.32 may fail an assertion of its own (raw_send_socket) and end when a
# client is killed, as the donor is below.
server_start "${NBDKIT[@]}" --threads 1 memory 64M
donor_start disk="$URI/vm1"
mount_pool disk "$M"
mount_pool disk "$T/second"
is "entries" "$(ls -A "$M")" vm1
refused "Operation not permitted" touch "$M/other"
verify "$M/vm1" 16M
fileop "$M/vm1" write 1M 4M 7
fileop --read "$T/second/vm1" verify 1M 4M 7
donor_kill
donor_back
fileop --read "$T/second/vm1" drop , verify 1M 4M 7
umount_dir "$T/second"
umount_dir "$M"
donor_stop
server_kill

step "a flush that fails at the server is an fsync that fails: of a mount of it, and of one of a donor that has it"
# shellcheck disable=SC2016 # the server's shell expands them
server_start "${NBDKIT[@]}" eval get_size="echo 1048576" pread='head -c $3 /dev/zero' pwrite='cat >/dev/null' \
	flush="test ! -e $T/fails"
donor_start disk="$URI/vm1"
mount_source "$URI/vm1" "$M"
mount_pool disk "$T/second"
for file in "$M/vm1" "$T/second/vm1"; do
	fileop "$file" write 0 64K 1 , fsync
	touch "$T/fails"
	refused "EIO" "$TOOLS/fileop" "$file" write 0 64K 2 , fsync
	refused "EIO" "$TOOLS/fileop" "$file" fsync
	rm "$T/fails"
	fileop "$file" fsync
done
umount_dir "$T/second"
umount_dir "$M"
donor_stop
server_kill

step "TLS: with the right certificate authority, and not without"
mkdir "$T/server" "$T/client" "$T/other"
for ca in server other; do
	run openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$ca" -keyout "$T/$ca/ca-key.pem" \
		-out "$T/$ca/ca-cert.pem" 2>/dev/null
done
run openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout "$T/server/server-key.pem" \
	-out "$T/server.csr" 2>/dev/null
run openssl x509 -req -in "$T/server.csr" -CA "$T/server/ca-cert.pem" -CAkey "$T/server/ca-key.pem" -CAcreateserial \
	-days 2 -extfile <(echo "subjectAltName = DNS:localhost") -out "$T/server/server-cert.pem" 2>/dev/null
cp "$T/server/ca-cert.pem" "$T/client"
server_start "${NBDKIT[@]}" --tls=require --tls-certificates="$T/server" memory 64M
S=nbds://localhost:$PORT
mount_source "$S/?tls-certificates=$T/client" "$M"
verify "$M/nbds" 32M
run dd if="$T/data" of="$M/nbds" bs=1M conv=notrunc,fsync status=none
drop_cache "$M/nbds"
run cmp -n 33554432 "$T/data" "$M/nbds"
umount_dir "$M"
refused "certificate" "$REMRAM" mount "$S/?tls-certificates=$T/other" "$M"
refused "127.0.0.1" "$REMRAM" mount "$URI" "$M"
server_kill

step "what is wrong with a source is said in one sentence"
server_start "${NBDKIT[@]}" --filter=exportname memory 1M exportname=a exportname-strict=true
refused "export" "$REMRAM" mount "$URI/nope" "$M"
refused "is an NBD server running there" "$REMRAM" mount "nbd://127.0.0.1:1/" "$M"
refused "the socket is missing" "$REMRAM" mount "nbd+unix:///x" "$M"
refused "conns=99: a number from 1 to 16" "$REMRAM" mount "$URI/a?conns=99" "$M"
refused "colour" "$REMRAM" mount "$URI/a?colour=red" "$M"
server_kill
step "without libnbd: everything else works, and a source that needs it says what is missing"
library=$(ldconfig -p | awk '$1 == "libnbd.so.0" && !seen++ { print $NF }')
# In a mount namespace of its own the library is an empty file.
# shellcheck disable=SC2016 # the inner shell expands them
without_library=(unshare --mount sh -c 'mount --bind /dev/null "$1" && shift && exec "$@"' sh "$library")
mkdir -p "$M"
refused "package libnbd0" "${without_library[@]}" "$REMRAM" mount nbd://127.0.0.1:1/ "$M"
run "${without_library[@]}" "$REMRAM" --version >"$T/version"
is "version" "$("$REMRAM" --version)" "$(<"$T/version")"
finish
