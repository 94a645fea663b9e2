/* SPDX-License-Identifier: Apache-2.0
 *
 * Where and when a child process is cut off (see tests/lib/crash_cut.h).
 */
#include "tests/lib/crash_cut.h"

#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

pthread_mutex_t crash_cut_mu = PTHREAD_MUTEX_INITIALIZER;

static unsigned cut_point = CRASH_NOWHERE;
static atomic_int cut_after;
static void (*cut_power)(void);
static atomic_bool cut_begun;

void crash_cut_at(unsigned point, unsigned after, void (*power_fails)(void))
{
	cut_point = point;
	cut_after = (int)after;
	cut_power = power_fails;
}

void crash_cut_pass(unsigned point)
{
	if (point != cut_point || atomic_fetch_sub(&cut_after, 1) != 0)
		return;
	pthread_mutex_lock(&crash_cut_mu); /* for ever */
	cut_begun = true;
	if (cut_power)
		cut_power();
	kill(getpid(), SIGKILL);
	pause();
}

bool crash_cut_begun(void)
{
	return cut_begun;
}
