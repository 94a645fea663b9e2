/* SPDX-License-Identifier: Apache-2.0
 *
 * The link that the proxy plays (see tests/tools/proxy/link.h).
 */
#include "tests/tools/proxy/link.h"

enum {
	PACED_QUEUE_NS = 10 * 1000 * 1000, /* how far ahead a limited link's queue may reach */
};

struct link_conf link_conf = {.cut_left = UINT64_MAX};

static uint64_t free_ns[2]; /* when each direction of a limited link has sent what it has */

uint64_t link_due_ns(unsigned dir, size_t len, uint64_t now_ns)
{
	uint64_t sent_ns = now_ns;

	if (link_conf.bandwidth) {
		if (free_ns[dir] < now_ns)
			free_ns[dir] = now_ns;
		free_ns[dir] += (uint64_t)((double)len * 1e9 / (double)link_conf.bandwidth);
		sent_ns = free_ns[dir];
	}
	return sent_ns + link_conf.delay_ns;
}

bool link_full(unsigned dir, uint64_t now_ns)
{
	return link_conf.bandwidth && free_ns[dir] > now_ns + PACED_QUEUE_NS;
}

uint64_t link_room_ns(unsigned dir, uint64_t now_ns)
{
	return link_full(dir, now_ns) ? free_ns[dir] - PACED_QUEUE_NS : UINT64_MAX;
}
