/* SPDX-License-Identifier: Apache-2.0
 *
 * Bandwidth × round trip (see core/window.h).
 *
 * States: starting (gain 2: the window doubles each round) → steady (gain 1.25: a quarter more than what was
 * delivered, which finds out when the path gets better) after three rounds without 25 % more.
 * A sample of the rate is what was delivered while a request was in flight, over the time that took; rates
 * that the user limits by sending less are lower than the path's, which is why the maximum counts.
 *
 * Probing for the round trip: PROBE_NONE → (nothing went alone for an epoch) PROBE_DRAINS → (nothing is in flight,
 * the next one is sent) PROBE_ALONE → (it is answered) PROBE_NONE.  Users may send without asking (a read that
 * somebody waits for): a window that does not drain for that reason is opened again after two round trips.
 *
 * Invariant: in_flight is the sum of the bytes of marks sent and not answered.
 */
#include "core/window.h"

#include <assert.h>
#include <string.h>

#define SECOND ((uint64_t)1000000000)
#define START ((uint64_t)2 << 20)
#define LEAST ((uint64_t)256 << 10)
#define SLACK_NS ((uint64_t)2000000) /* the answers of a batch come together */

enum { UNIT_LEAST = 64 << 10, UNIT_MOST = 1 << 20, EPOCH_ROUNDS = 10 };

void window_init(struct window *window, uint64_t max)
{
	memset(window, 0, sizeof(*window));
	window->max = max;
	window->size = START < max ? START : max;
	window->starting = true;
}

bool window_open(const struct window *window, uint64_t bytes)
{
	if (window->in_flight == 0)
		return true;
	return window->probe == PROBE_NONE && window->in_flight + bytes <= window->size;
}

void window_sent(struct window *window, struct window_mark *mark, uint64_t bytes, uint64_t now_ns)
{
	mark->start_ns = now_ns;
	mark->delivered = window->delivered;
	mark->bytes = bytes;
	if (window->in_flight == 0) {
		window->alone = true;
		if (window->probe == PROBE_DRAINS)
			window->probe = PROBE_ALONE;
	}
	window->in_flight += bytes;
}

uint64_t window_rtt_ns(const struct window *window)
{
	uint64_t now = window->rtt_ns, before = window->rtt_before_ns;

	if (!now || !before)
		return now ? now : before;
	return now < before ? now : before;
}

uint64_t window_rate(const struct window *window)
{
	return window->rate > window->rate_before ? window->rate : window->rate_before;
}

static void measure_rtt(struct window *window, uint64_t rtt, uint64_t now_ns)
{
	if (now_ns - window->rtt_epoch_ns > 5 * SECOND) {
		if (!window->alone) {
			window->probe = PROBE_DRAINS;
			window->probe_until_ns = now_ns + 2 * window->rtt_ns;
		}
		window->alone = false;
		window->rtt_before_ns = window->rtt_ns;
		window->rtt_ns = 0;
		window->rtt_epoch_ns = now_ns;
	}
	if (!window->rtt_ns || rtt < window->rtt_ns)
		window->rtt_ns = rtt;
}

static void measure_rate(struct window *window, uint64_t rate, uint64_t now_ns)
{
	uint64_t epoch = EPOCH_ROUNDS * window_rtt_ns(window);

	if (epoch < SECOND)
		epoch = SECOND;
	if (now_ns - window->epoch_ns > epoch) {
		window->rate_before = window->rate;
		window->rate = 0;
		window->epoch_ns = now_ns;
	}
	if (rate > window->rate)
		window->rate = rate;
}

/* While it starts: has the last round brought a quarter more? */
static void end_round(struct window *window)
{
	uint64_t rate = window_rate(window);

	window->round_end = window->delivered + window->in_flight;
	if (rate > window->round_rate + window->round_rate / 4) {
		window->round_rate = rate;
		window->flat_rounds = 0;
	} else if (++window->flat_rounds >= 3) {
		window->starting = false;
	}
}

void window_answered(
    struct window *window, const struct window_mark *mark, bool ok, uint64_t now_ns)
{
	uint64_t took = now_ns > mark->start_ns ? now_ns - mark->start_ns : 1;
	double rate, size;

	assert(window->in_flight >= mark->bytes);
	window->in_flight -= mark->bytes;
	if (window->probe == PROBE_ALONE ||
	    (window->probe == PROBE_DRAINS && now_ns > window->probe_until_ns))
		window->probe = PROBE_NONE;
	if (!ok)
		return;
	window->delivered += mark->bytes;
	rate = (double)(window->delivered - mark->delivered) * (double)SECOND / (double)took;
	measure_rtt(window, took, now_ns);
	measure_rate(window, (uint64_t)rate, now_ns);
	if (window->starting && window->delivered >= window->round_end)
		end_round(window);
	size = (double)window_rate(window) / (double)SECOND *
	       ((window->starting ? 2.0 : 1.25) * (double)window_rtt_ns(window) + (double)SLACK_NS);
	if (size > (double)window->max)
		size = (double)window->max;
	if (size < (double)LEAST)
		size = (double)LEAST;
	if (!window->starting || size > (double)window->size)
		window->size = (uint64_t)size;
}

uint64_t window_unit(const struct window *window)
{
	uint64_t unit = UNIT_MOST;

	while (unit > UNIT_LEAST && unit > window->size / 4)
		unit /= 2;
	return unit;
}
