/* SPDX-License-Identifier: Apache-2.0
 *
 * The wire codec of the peer protocol, version 1: docs/PROTOCOL.md gives every frame byte by byte;
 * this header follows its sections.
 *
 * Everything on the wire is little-endian.  A client sends requests, the donor sends one reply for
 * each, in any order.  Decoders take outside bytes: they check every length and never assert.
 * Encoders are given checked values.  Nothing here allocates or keeps state.
 */
#ifndef REMRAM_CORE_FRAME_H
#define REMRAM_CORE_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "core/pool.h"
#include "core/store.h"

enum {
	FRAME_VERSION_MIN = 1,
	FRAME_VERSION_MAX = 1,
	FRAME_PORT = 10819, /* default TCP port */
	FRAME_REQ_LEN = 40, /* bytes of a request header */
	FRAME_REP_LEN = 24, /* bytes of a reply header */
	FRAME_DATA_MAX = STORE_LEN_MAX, /* payload of READ replies and WRITE requests */
	FRAME_CONTROL_MAX = 66 * 1024, /* payload of every other frame */
	FRAME_EXTENTS_MAX = 4096, /* entries in one EXTENTS reply */
	FRAME_TEXT_MAX = 512, /* bytes of text in an error reply */
	FRAME_IN_FLIGHT_MAX = 1024, /* requests of one connection */
	FRAME_POOL_NAME_MAX = 64,
	FRAME_CLIENT_LEN = 8, /* bytes of a session's id that stay the same over mounts */
	FRAME_WHO_MAX = 96, /* bytes of a client's description of itself */
};

/* The request id of every PING: the donor may send its reply unasked, to say that it is alive. */
#define FRAME_ID_PING ((uint64_t)1 << 63 | 1)
/* The id of every NOTICE that the donor sends; no request has it. */
#define FRAME_ID_NOTICE ((uint64_t)1 << 63 | 2)

enum frame_op {
	FRAME_HELLO = 1,
	FRAME_PING = 2,
	FRAME_BYE = 3,
	FRAME_NOTICE = 4,
	FRAME_LOOKUP = 16,
	FRAME_GETATTR = 17,
	FRAME_SETATTR = 18,
	FRAME_CREATE = 19,
	FRAME_OPEN = 20,
	FRAME_CLOSE = 21,
	FRAME_REMOVE = 22,
	FRAME_RENAME = 23,
	FRAME_LIST = 24,
	FRAME_STATFS = 25,
	FRAME_GETXATTR = 26,
	FRAME_SETXATTR = 27,
	FRAME_LISTXATTR = 28,
	FRAME_REMOVEXATTR = 29,
	FRAME_READ = 32,
	FRAME_WRITE = 33,
	FRAME_ZERO = 34,
	FRAME_ALLOC = 35,
	FRAME_FLUSH = 36,
	FRAME_EXTENTS = 37,
};

enum frame_flag {
	FRAME_F_ZEROS = 1, /* WRITE request, READ reply: all bytes are zero, no payload follows */
	FRAME_F_FUA = 2, /* WRITE, ZERO: STORE_FUA */
	FRAME_F_KEEP = 4, /* ZERO: STORE_KEEP */
	FRAME_F_BACKGROUND = 8, /* READ, WRITE: STORE_BACKGROUND */
	FRAME_F_REPLAY = 16, /* sent before over a connection that was lost */
	FRAME_F_UNCHANGED = 32, /* OPEN reply: ret_unchanged */
	FRAME_F_RESUMED = 64, /* HELLO reply: the session's handles are still open */
};

/* Section "Request header". */
struct frame_req {
	uint8_t op; /* enum frame_op */
	uint8_t flags; /* enum frame_flag */
	uint32_t payload; /* bytes that follow the header */
	uint64_t id; /* chosen by the client, unique among those in flight */
	uint64_t off; /* bytes; region id or cookie in control requests */
	uint64_t len; /* bytes */
	uint32_t handle; /* 0: none */
};

/* Section "Reply header". */
struct frame_rep {
	uint8_t op; /* of the request */
	uint8_t flags;
	uint32_t payload;
	uint64_t id;
	uint32_t status; /* 0, or an errno of section "Errors"; then the payload is text */
};

void frame_req_put(uint8_t buf[FRAME_REQ_LEN], const struct frame_req *req);
void frame_rep_put(uint8_t buf[FRAME_REP_LEN], const struct frame_rep *rep);

/* 0, or -EPROTO and *ret_why names what is wrong: magic, unknown operation, a payload that this
 * operation may not have, a range that overflows.  A frame that passes can be skipped safely. */
int frame_req_get(
    const uint8_t buf[FRAME_REQ_LEN], struct frame_req *ret_req, const char **ret_why);
int frame_rep_get(
    const uint8_t buf[FRAME_REP_LEN], struct frame_rep *ret_rep, const char **ret_why);

/* "READ", … or "?". */
const char *frame_op_name(unsigned op);

/* errno ↔ wire status.  Unknown ones become EIO. */
uint32_t frame_status(int err);
int frame_errno(uint32_t status);

/* ---- Section "HELLO" ---- */

struct frame_hello {
	uint16_t version_min, version_max;
	uint64_t features; /* none defined in version 1 */
	uint8_t session
	    [16]; /* of the life of a mount: FRAME_CLIENT_LEN bytes that name the client's machine
				and mount point, or are random, then random ones */
	uint64_t epoch; /* grows with each connection of the session */
	uint8_t identity[POOL_IDENTITY_LEN]; /* of the client, over its lives; zeros: none */
	char pool[FRAME_POOL_NAME_MAX + 1];
	char who[FRAME_WHO_MAX + 1]; /* the client, for people; control characters become '?' */
};

struct frame_welcome {
	uint16_t version;
	uint64_t features;
	uint8_t instance[16]; /* of the daemon's process */
	uint8_t boot[16]; /* of the donor's kernel: unflushed writes survive while it is the same */
	uint8_t pool_uuid[16]; /* another one: the pool's regions are gone */
	uint64_t size_max; /* bytes: no region can become larger */
	uint32_t in_flight_max; /* requests that the client may have in flight */
	uint32_t lease_ms; /* a session that is silent for so long may lose its leases; 0: never */
};

enum {
	FRAME_HELLO_MAX =
	    4 + 4 + 8 + 16 + 8 + POOL_IDENTITY_LEN + 2 + FRAME_POOL_NAME_MAX + 2 + FRAME_WHO_MAX,
	FRAME_WELCOME_LEN = 80,
	FRAME_NOTICE_LEN = 24,
};

size_t frame_hello_put(uint8_t buf[FRAME_HELLO_MAX], const struct frame_hello *hello);
int frame_hello_get(const uint8_t *buf, size_t len, struct frame_hello *ret_hello);
size_t frame_welcome_put(uint8_t buf[FRAME_WELCOME_LEN], const struct frame_welcome *welcome);
int frame_welcome_get(const uint8_t *buf, size_t len, struct frame_welcome *ret_welcome);

/* ---- Section "Change notices" ---- */

size_t frame_notice_put(uint8_t buf[FRAME_NOTICE_LEN], const struct pool_notice *notice);
int frame_notice_get(const uint8_t *buf, size_t len, struct pool_notice *ret_notice);

/* Copies a text of the other side's, for people, with a NUL: at most room - 1 bytes, '?' for control
 * characters. */
void frame_text_get(char *ret_text, size_t room, const void *bytes, size_t len);

/* ---- Section "Region attributes" and the control operations ---- */

enum {
	FRAME_ATTR_LEN = 72,
	FRAME_DIRENT_LEN = FRAME_ATTR_LEN + 12, /* before the name */
	FRAME_EXTENT_LEN = 12,
	/* Longest encoding of a control request without SETXATTR's value. */
	FRAME_BODY_MAX = 16 + FRAME_ATTR_LEN + 2 * (2 + POOL_NAME_MAX),
};

size_t frame_attr_put(uint8_t buf[FRAME_ATTR_LEN], const struct region_attr *attr);
int frame_attr_get(const uint8_t *buf, size_t len, struct region_attr *ret_attr);

/* Encodes the control request preq: header fields op, off, len, handle, and the body into buf;
 * SETXATTR's value is not copied: it follows the body on the wire (frame->payload counts it).
 * Returns the body's length. */
size_t frame_control_put(
    const struct pool_req *preq, struct frame_req *ret_frame, uint8_t buf[FRAME_BODY_MAX]);

/* The names of a decoded request, with room for NULs. */
struct frame_names {
	char name[POOL_NAME_MAX + 1], new_name[POOL_NAME_MAX + 1];
};

/* Decodes a control request: fills op, flags, set, id, name, new_name (pointing into *names), handle
 * number, version, cookie, attr; for SETXATTR data points into body.  data and len of results are the
 * caller's to set: len is what the client asks for, capped.  -EPROTO if the body is malformed,
 * -EINVAL, -ENAMETOOLONG for a name that can't be one. */
int frame_control_get(const struct frame_req *frame, const uint8_t *body, struct pool_req *ret_preq,
    struct frame_names *names);

/* Encodes the results of preq into buf (room ≥ FRAME_CONTROL_MAX); LIST and xattr data included. */
size_t frame_result_put(const struct pool_req *preq, uint8_t *ret_flags, uint8_t *buf);
/* Decodes them into preq, copying LIST and xattr data to preq->data. -EPROTO if malformed. */
int frame_result_get(struct pool_req *preq, uint8_t flags, const uint8_t *body, size_t len);

size_t frame_extents_put(uint8_t *buf, const struct extent *extents, unsigned count);
/* Extents begin at off; at most max are taken. -EPROTO if malformed or beyond off+len. */
int frame_extents_get(const uint8_t *body, size_t body_len, uint64_t off, uint64_t len,
    struct extent *extents, unsigned max, unsigned *ret_count);

/* True if the len bytes at buf are all zero. */
int frame_is_zero(const void *buf, size_t len);

#endif
