/* SPDX-License-Identifier: Apache-2.0
 *
 * How much to have in flight to a remote: measured bandwidth × round trip (after BBR: Cardwell et al.,
 * "BBR: Congestion-Based Congestion Control", ACM Queue 2016).
 *
 * The bandwidth is the best delivery rate of the last rounds, the round trip the shortest answer of the
 * last ten seconds.  It starts by doubling, until doubling brings no more.  The allowance beyond the
 * product is small, so that what is in flight does not queue: others share the connection.
 *
 * A user who keeps the window full sees no answer but behind its own queue, and the window would follow what it
 * has made itself.  So when nothing has been in flight alone for five seconds, the window closes until nothing is, lets
 * one request through, and goes on when it is answered.
 *
 * Pure arithmetic on the times that it is given; no thread rules but one user at a time.
 */
#ifndef REMRAM_CORE_WINDOW_H
#define REMRAM_CORE_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

struct window {
	uint64_t max; /* bytes, constant */
	uint64_t size; /* bytes that may be in flight now */
	uint64_t in_flight; /* bytes */
	uint64_t delivered; /* bytes answered since init */
	uint64_t rate, rate_before; /* bytes per second: best of this epoch and of the one before */
	uint64_t epoch_ns; /* when this epoch began */
	uint64_t rtt_ns, rtt_before_ns; /* shortest of this and of the last five seconds; 0: none */
	uint64_t rtt_epoch_ns;
	bool alone; /* in this epoch something was sent while nothing else was in flight */
	enum window_probe { PROBE_NONE, PROBE_DRAINS, PROBE_ALONE } probe;
	uint64_t probe_until_ns; /* PROBE_DRAINS: when it is given up, as others go on sending */
	bool starting; /* still doubling */
	unsigned flat_rounds; /* in which the rate did not grow while starting */
	uint64_t round_end; /* of this round, in delivered bytes */
	uint64_t round_rate; /* best rate when the last round that grew ended */
};

/* What is remembered of one request in flight. */
struct window_mark {
	uint64_t start_ns;
	uint64_t delivered;
	uint64_t bytes;
};

void window_init(struct window *window, uint64_t max);
/* Whether `bytes` more may be sent; always when nothing is in flight. */
bool window_open(const struct window *window, uint64_t bytes);
void window_sent(struct window *window, struct window_mark *mark, uint64_t bytes, uint64_t now_ns);
/* ok false: an error says nothing about the path. */
void window_answered(
    struct window *window, const struct window_mark *mark, bool ok, uint64_t now_ns);

/* 0: not measured yet. */
uint64_t window_rtt_ns(const struct window *window);
uint64_t window_rate(const struct window *window);
/* A good size for one request, a power of two from 64 KiB to 1 MiB. */
uint64_t window_unit(const struct window *window);

#endif
