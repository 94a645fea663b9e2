/* SPDX-License-Identifier: Apache-2.0
 *
 * The bytes under way in one direction of a proxied connection: a queue of bytes, each of which falls
 * due at a time.  No clock of its own: tests/tools/proxy/conns.c says when.
 */
#ifndef REMRAM_TESTS_TOOLS_PROXY_FLOW_H
#define REMRAM_TESTS_TOOLS_PROXY_FLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct flow_mark;
struct flow_pipe;

/* Zeroed memory is an empty flow.  Others may look at the positions and flags, and set ended and blocked. */
struct flow {
	struct flow_pipe *head, *tail;
	struct flow_mark *marks; /* ring of mark_room (a power of two) */
	uint32_t mark_room, mark_first, mark_count;
	uint64_t in_pos, out_pos, ripe_pos;
	uint64_t last_due_ns;
	bool eof; /* the source has ended; its end is due at last_due_ns */
	bool ended; /* and the destination has been told */
	bool blocked; /* the destination took less than was ripe */
	bool full; /* there was no pipe for more */
};

/* Lets go of all that is under way. */
void flow_fini(struct flow *flow);

/* Makes room; a flow must have its first pipe before it takes any bytes.  false and errno: there is none. */
bool flow_add_pipe(struct flow *flow);

/* Takes up to `most` bytes from a socket; flow_put must follow.  0: its end; -1 and errno: EAGAIN, nothing
 * now (or flow->full), else it is broken. */
ssize_t flow_take(struct flow *flow, int fd, size_t most);

/* The len bytes that flow_take has got fall due at due_ns, but never before bytes that are ahead of them. */
void flow_put(struct flow *flow, size_t len, uint64_t due_ns);

/* The source has ended; the destination learns it at due_ns, after the last byte. */
void flow_put_eof(struct flow *flow, uint64_t due_ns);

/* What was due by now_ns is ripe. */
void flow_ripen(struct flow *flow, uint64_t now_ns);

bool flow_has_ripe(const struct flow *flow);

/* Gives up to `most` ripe bytes, of which there are some, to a socket; -1 and errno. */
ssize_t flow_give(struct flow *flow, int fd, uint64_t most);

/* True if everything is out but the end of file. */
bool flow_only_eof_left(const struct flow *flow);

/* When the flow changes by itself; UINT64_MAX: never. */
uint64_t flow_due_ns(const struct flow *flow);

#endif
