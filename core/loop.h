/* SPDX-License-Identifier: Apache-2.0
 *
 * The event loop: one per thread; everything asynchronous runs on one.
 *
 * A loop watches descriptors, keeps timers, runs tasks posted by other threads, and runs deferred
 * tasks when the events of a round have been handled: that is where connections send what the
 * round has queued, in one call.  Before it sleeps it polls for `spin_us`, as long as polling has
 * lately paid (see loop.c); 0 turns that off.
 *
 * Threads: loop_post, loop_stop and loop_self may be called anywhere; everything else on the loop's
 * own thread, or before loop_run.
 */
#ifndef REMRAM_CORE_LOOP_H
#define REMRAM_CORE_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "core/err.h"

struct loop;

struct loop_conf {
	unsigned spin_us; /* longest time to poll before sleeping, microseconds */
};

/* Runs when the loop is about to be destroyed, embedded in its owner: the last chance to take watches and
 * timers off it for whoever outlives it. */
struct loop_end {
	void (*run)(struct loop_end *end);
	struct loop_end *next;
	struct loop *loop; /* NULL while not added */
};

int loop_create(const struct loop_conf *conf, struct loop **ret_loop, struct err *err);
/* Runs what loop_end_add has added, newest first; asserts that no descriptor is watched after that. */
void loop_destroy(struct loop *loop);

/* Does nothing if it is not added. */
void loop_end_add(struct loop *loop, struct loop_end *end);
void loop_end_del(struct loop_end *end);

/* A request has come: called for each by whoever receives them, so that the loop knows which rounds serve many.
 * On the loop's thread only. */
void loop_served(struct loop *loop);

/* Changes loop_conf.spin_us. */
void loop_set_spin(struct loop *loop, unsigned spin_us);

/* Runs until loop_stop, which may come before it, too; can be called again then. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

/* The loop that runs on this thread, or NULL. */
struct loop *loop_self(void);

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t loop_now_ns(void);

/* For tests: from now on the calling thread lives in simulated time.  Its loop_now_ns() begins at start_ns,
 * and a loop on it that has nothing to do moves it on to the next timer instead of sleeping.  0: real time
 * again. */
void loop_simulate(uint64_t start_ns);

/* A watched descriptor, embedded in its owner.  ready runs when one of `events` (EPOLLIN, EPOLLOUT;
 * EPOLLERR and EPOLLHUP always) holds; level-triggered.  ready may delete its own and other
 * watches. */
struct loop_fd {
	int fd;
	uint32_t events;
	void (*ready)(struct loop_fd *lfd, uint32_t events);
	struct loop *loop; /* NULL while not watched */
};

/* 0 or -errno of epoll_ctl. */
int loop_fd_add(struct loop *loop, struct loop_fd *lfd, uint32_t events);
int loop_fd_set(struct loop_fd *lfd, uint32_t events);
/* Does not close the descriptor.  Does nothing if it is not watched. */
void loop_fd_del(struct loop_fd *lfd);

/* A one-shot timer, embedded in its owner; zeroed means not set. */
struct loop_timer {
	void (*expired)(struct loop_timer *timer);
	uint64_t at_ns; /* loop_now_ns() time */
	struct loop *loop; /* NULL while not set */
	unsigned slot;
};

/* Sets or moves the timer.  The number of timers per loop is bounded by LOOP_TIMERS_MAX (asserted). */
enum { LOOP_TIMERS_MAX = 65536 };
void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t at_ns);
void loop_timer_cancel(struct loop_timer *timer);

/* A task, embedded in its owner; zeroed before its first use.  Queuing one that is queued already
 * does nothing. */
struct loop_task {
	void (*run)(struct loop_task *task);
	struct loop_task *next;
	_Atomic bool queued;
};

/* Runs task on the loop's thread soon; from any thread. */
void loop_post(struct loop *loop, struct loop_task *task);
/* Runs task when the events of this round are handled; on the loop's thread only. */
void loop_defer(struct loop *loop, struct loop_task *task);
/* Takes it back, if it has not run yet. */
void loop_undefer(struct loop *loop, struct loop_task *task);

#endif
