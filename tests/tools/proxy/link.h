/* SPDX-License-Identifier: Apache-2.0
 *
 * The link that the proxy plays, which all connections share: how long it is, how narrow, and whether it
 * carries anything at all.  Direction 0 goes from the accepted side to the target.
 */
#ifndef REMRAM_TESTS_TOOLS_PROXY_LINK_H
#define REMRAM_TESTS_TOOLS_PROXY_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Settings, which commands change at any time. */
struct link_conf {
	uint64_t delay_ns; /* one way */
	uint64_t bandwidth; /* bytes per second, each direction; 0: unlimited */
	bool stalled; /* nothing is read or forwarded */
	bool blackhole; /* nothing is forwarded */
	uint64_t cut_left; /* so many more bytes until all is cut; UINT64_MAX: no cut is planned */
};

extern struct link_conf link_conf;

/* When `len` bytes read now in direction dir arrive at the far end of the link: they take their place in
 * the queue of a limited one. */
uint64_t link_due_ns(unsigned dir, size_t len, uint64_t now_ns);

/* Whether a limited link has so much to send in direction dir that nothing should be read for it. */
bool link_full(unsigned dir, uint64_t now_ns);

/* When a full link has room again; UINT64_MAX: it is not full. */
uint64_t link_room_ns(unsigned dir, uint64_t now_ns);

#endif
