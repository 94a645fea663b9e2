/* SPDX-License-Identifier: Apache-2.0
 *
 * libnbd, loaded when the first NBD server is wanted.
 *
 * It brings fifteen libraries along (TLS, XML, tables about Unicode): a mount of a donor would start 4 ms later
 * for them, and keep 30 MiB more in memory when it is locked.  The functions are called as
 * libnbd.aio_pread(…) for nbd_aio_pread, see libnbd(3).
 */
#ifndef REMRAM_BACKENDS_NBD_LIB_H
#define REMRAM_BACKENDS_NBD_LIB_H

#include <libnbd.h>

#include "core/err.h"

#define LIBNBD_FUNCTIONS(F) \
	F(add_meta_context) \
	F(aio_block_status) \
	F(aio_connect_tcp) \
	F(aio_connect_unix) \
	F(aio_disconnect) \
	F(aio_flush) \
	F(aio_get_direction) \
	F(aio_get_fd) \
	F(aio_is_closed) \
	F(aio_is_dead) \
	F(aio_is_ready) \
	F(aio_notify_read) \
	F(aio_notify_write) \
	F(aio_pread) \
	F(aio_pwrite) \
	F(aio_zero) \
	F(can_flush) \
	F(can_fua) \
	F(can_meta_context) \
	F(can_multi_conn) \
	F(can_zero) \
	F(clear_debug_callback) \
	F(close) \
	F(create) \
	F(get_block_size) \
	F(get_debug) \
	F(get_errno) \
	F(get_error) \
	F(get_size) \
	F(is_read_only) \
	F(poll) \
	F(set_debug) \
	F(set_debug_callback) \
	F(set_export_name) \
	F(set_pread_initialize) \
	F(set_request_structured_replies) \
	F(set_tls) \
	F(set_tls_certificates) \
	F(set_tls_psk_file) \
	F(set_tls_username) \
	F(set_tls_verify_peer)

struct libnbd {
#define LIBNBD_MEMBER(name) __typeof__(nbd_##name) *name;
	LIBNBD_FUNCTIONS(LIBNBD_MEMBER)
#undef LIBNBD_MEMBER
};

/* Valid, and constant, after libnbd_load has succeeded once. */
extern struct libnbd libnbd;

/* Loads the library if it is not there yet: 0, or -ENOENT with what to install.  From one thread at a time. */
int libnbd_load(struct err *err);

#endif
