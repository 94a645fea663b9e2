/* SPDX-License-Identifier: Apache-2.0
 *
 * The event loop over epoll.
 *
 * A round: wait for events → handle them → expired timers → posted tasks → deferred tasks.  The wait
 * polls first when polling pays: an idle gap (from the end of a round to the next event) that is
 * shorter than spin_us earns credit, a longer one costs credit, and without credit the loop sleeps at
 * once.  So an idle loop uses no CPU, and one that serves requests back to back never pays for a
 * wake-up.  While it polls it yields, and when that shows that another thread wants the CPU it sleeps
 * (sooner after a round that served many requests):
 * polling is for CPUs that would be idle, where a wake-up is expensive.
 *
 * A loop that polls finds requests one by one, as they come, and each then costs both sides what a whole batch
 * does: a call to receive, one to send, a wake-up.  So after a short round that has served several
 * requests (loop_served) as much time as it took goes by before the loop looks again, as network cards
 * moderate their interrupts: what comes meanwhile comes together.  Who has one request in flight is never
 * kept waiting, and a round that was long is a batch already.
 *
 * Invariants:
 *   1. lfd->loop is set exactly while the descriptor is in the epoll set.
 *   2. A handler may delete any watch: the events of this round that are still to come for it are
 *      struck out (loop_fd_del).
 *   3. timers[0 … timer_count) is a heap by at_ns, and timers[t->slot] == t.
 * Locking: `mu` protects the list of posted tasks only.
 */
#include "core/loop.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
	EVENTS_MAX = 64,
	LOOP_TIMERS_START =
	    1024, /* room from the start: setting a timer is part of the data path */
	CREDIT_MAX = 64,
	CREDIT_GAIN = 4, /* for a gap that polling bridges; one that it does not costs 1 */
	/* A sched_yield that takes longer has let somebody else run: after a short round, who waits for one
	 * answer; after a long one, with many requests at once, a wake-up is cheap by comparison. */
	YIELD_SHORT_NS = 40000,
	YIELD_LONG_NS = 4000,
	ROUND_LONG_NS = 40000,
	MODERATE_NS = 25000, /* a round that served several requests in less is a small batch */
};

struct loop {
	/* Constant after create. */
	int epfd;

	/* Loop thread only. */
	uint64_t spin_ns;
	struct epoll_event events[EVENTS_MAX];
	int event_count, event_idx;
	struct loop_timer **timers;
	unsigned timer_count, timer_room;
	uint64_t expiring_ns; /* while run_timers runs: what is due by then runs now; else 0 */
	struct loop_task *deferred, **deferred_tail;
	unsigned watches;
	unsigned credit;
	unsigned served; /* in this round */
	struct loop_end *ends;
	uint64_t woke_ns; /* when the last wait ended */
	struct loop_fd wake; /* eventfd: a task was posted, or stop */

	/* Any thread. */
	_Atomic bool stopping;
	_Atomic bool sleeping; /* a poster must write to the eventfd */
	_Atomic bool posted_any;
	pthread_mutex_t mu;
	struct loop_task *posted, **posted_tail; /* protected by mu */
};

static _Thread_local struct loop *self;
static _Thread_local uint64_t simulated_ns; /* 0: time is real */

void loop_simulate(uint64_t start_ns)
{
	simulated_ns = start_ns;
}

uint64_t loop_now_ns(void)
{
	struct timespec ts;

	if (simulated_ns)
		return simulated_ns;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

struct loop *loop_self(void)
{
	return self;
}

static void wake_ready(struct loop_fd *lfd, uint32_t events)
{
	uint64_t value;

	(void)!read(lfd->fd, &value, sizeof(value));
}

int loop_create(const struct loop_conf *conf, struct loop **ret_loop, struct err *err)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	int rc;

	if (!loop)
		return err_set(err, -ENOMEM, "out of memory for an event loop");
	loop->spin_ns = (uint64_t)conf->spin_us * 1000;
	loop->deferred_tail = &loop->deferred;
	loop->posted_tail = &loop->posted;
	pthread_mutex_init(&loop->mu, NULL);
	loop->wake.fd = -1;
	loop->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epfd >= 0)
		loop->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->epfd < 0 || loop->wake.fd < 0) {
		rc = err_sys(err, -errno, "cannot make an event loop");
		goto fail;
	}
	loop->wake.ready = wake_ready;
	rc = loop_fd_add(loop, &loop->wake, EPOLLIN);
	if (rc) {
		err_sys(err, rc, "cannot make an event loop");
		goto fail;
	}
	loop->timer_room = LOOP_TIMERS_START;
	loop->timers = calloc(loop->timer_room, sizeof(loop->timers[0]));
	if (!loop->timers) {
		rc = err_set(err, -ENOMEM, "out of memory for an event loop");
		goto fail;
	}
	*ret_loop = loop;
	return 0;
fail:
	loop_destroy(loop);
	return rc;
}

void loop_destroy(struct loop *loop)
{
	if (!loop)
		return;
	while (loop->ends) {
		struct loop_end *end = loop->ends;

		loop_end_del(end);
		end->run(end);
	}
	loop_fd_del(&loop->wake);
	assert(loop->watches == 0);
	/* Whoever posted last has left when the lock is free. */
	pthread_mutex_lock(&loop->mu);
	pthread_mutex_unlock(&loop->mu);
	if (loop->wake.fd >= 0)
		close(loop->wake.fd);
	if (loop->epfd >= 0)
		close(loop->epfd);
	pthread_mutex_destroy(&loop->mu);
	free(loop->timers);
	free(loop);
}

void loop_served(struct loop *loop)
{
	loop->served++;
}

void loop_set_spin(struct loop *loop, unsigned spin_us)
{
	loop->spin_ns = (uint64_t)spin_us * 1000;
}

void loop_end_add(struct loop *loop, struct loop_end *end)
{
	assert(!end->loop);
	end->loop = loop;
	end->next = loop->ends;
	loop->ends = end;
}

void loop_end_del(struct loop_end *end)
{
	struct loop_end **at;

	if (!end->loop)
		return;
	for (at = &end->loop->ends; *at != end; at = &(*at)->next)
		;
	*at = end->next;
	end->loop = NULL;
}

int loop_fd_add(struct loop *loop, struct loop_fd *lfd, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = lfd};

	assert(!lfd->loop);
	if (epoll_ctl(loop->epfd, EPOLL_CTL_ADD, lfd->fd, &ev))
		return -errno;
	lfd->loop = loop;
	lfd->events = events;
	loop->watches++;
	return 0;
}

int loop_fd_set(struct loop_fd *lfd, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = lfd};

	assert(lfd->loop);
	if (lfd->events == events)
		return 0;
	if (epoll_ctl(lfd->loop->epfd, EPOLL_CTL_MOD, lfd->fd, &ev))
		return -errno;
	lfd->events = events;
	return 0;
}

void loop_fd_del(struct loop_fd *lfd)
{
	struct loop *loop = lfd->loop;

	if (!loop)
		return;
	epoll_ctl(loop->epfd, EPOLL_CTL_DEL, lfd->fd, NULL);
	for (int i = loop->event_idx; i < loop->event_count; i++)
		if (loop->events[i].data.ptr == lfd)
			loop->events[i].data.ptr = NULL;
	lfd->loop = NULL;
	loop->watches--;
}

/* Moves timers[slot] up and down to where the heap wants it. */
static void timer_settle(struct loop *loop, unsigned slot)
{
	struct loop_timer **heap = loop->timers;
	struct loop_timer *timer = heap[slot];

	while (slot > 0 && timer->at_ns < heap[(slot - 1) / 2]->at_ns) {
		heap[slot] = heap[(slot - 1) / 2];
		heap[slot]->slot = slot;
		slot = (slot - 1) / 2;
	}
	for (;;) {
		unsigned child = 2 * slot + 1;

		if (child >= loop->timer_count)
			break;
		if (child + 1 < loop->timer_count && heap[child + 1]->at_ns < heap[child]->at_ns)
			child++;
		if (heap[child]->at_ns >= timer->at_ns)
			break;
		heap[slot] = heap[child];
		heap[slot]->slot = slot;
		slot = child;
	}
	heap[slot] = timer;
	timer->slot = slot;
}

void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t at_ns)
{
	/* One that is set to the past while timers run comes after those that are due already, in the next
	 * round: it can't keep the loop from everything else. */
	timer->at_ns = at_ns > loop->expiring_ns ? at_ns : loop->expiring_ns + 1;
	if (!timer->loop) {
		if (loop->timer_count == loop->timer_room) {
			unsigned room = loop->timer_room * 2;
			struct loop_timer **grown;

			assert(room <= LOOP_TIMERS_MAX);
			grown = realloc(loop->timers, room * sizeof(grown[0]));
			assert(grown);
			loop->timers = grown;
			loop->timer_room = room;
		}
		timer->loop = loop;
		timer->slot = loop->timer_count++;
		loop->timers[timer->slot] = timer;
	}
	timer_settle(loop, timer->slot);
}

void loop_timer_cancel(struct loop_timer *timer)
{
	struct loop *loop = timer->loop;
	struct loop_timer *last;

	if (!loop)
		return;
	timer->loop = NULL;
	last = loop->timers[--loop->timer_count];
	if (last == timer)
		return;
	loop->timers[timer->slot] = last;
	last->slot = timer->slot;
	timer_settle(loop, last->slot);
}

void loop_post(struct loop *loop, struct loop_task *task)
{
	if (atomic_exchange(&task->queued, true))
		return;
	pthread_mutex_lock(&loop->mu);
	task->next = NULL;
	*loop->posted_tail = task;
	loop->posted_tail = &task->next;
	atomic_store(&loop->posted_any, true);
	/* Under the lock: once the task has run, the loop may be destroyed (loop_destroy takes it, too). */
	if (atomic_load(&loop->sleeping))
		(void)!write(loop->wake.fd, &(uint64_t){1}, sizeof(uint64_t));
	pthread_mutex_unlock(&loop->mu);
}

void loop_defer(struct loop *loop, struct loop_task *task)
{
	if (atomic_exchange_explicit(&task->queued, true, memory_order_relaxed))
		return;
	task->next = NULL;
	*loop->deferred_tail = task;
	loop->deferred_tail = &task->next;
}

void loop_stop(struct loop *loop)
{
	atomic_store(&loop->stopping, true);
	(void)!write(loop->wake.fd, &(uint64_t){1}, sizeof(uint64_t));
}

static void run_list(struct loop_task *task)
{
	while (task) {
		struct loop_task *next = task->next;

		atomic_store(&task->queued, false);
		task->run(task);
		task = next;
	}
}

static bool run_posted(struct loop *loop)
{
	struct loop_task *list;

	if (!atomic_load(&loop->posted_any))
		return false;
	pthread_mutex_lock(&loop->mu);
	list = loop->posted;
	loop->posted = NULL;
	loop->posted_tail = &loop->posted;
	atomic_store(&loop->posted_any, false);
	pthread_mutex_unlock(&loop->mu);
	run_list(list);
	return true;
}

void loop_undefer(struct loop *loop, struct loop_task *task)
{
	struct loop_task **link = &loop->deferred;

	while (*link && *link != task)
		link = &(*link)->next;
	if (!*link)
		return;
	*link = task->next;
	if (!*link)
		loop->deferred_tail = link;
	atomic_store(&task->queued, false);
}

static void run_deferred(struct loop *loop)
{
	/* What a deferred task defers runs in the same round. */
	while (loop->deferred) {
		struct loop_task *task = loop->deferred;

		loop->deferred = task->next;
		if (!loop->deferred)
			loop->deferred_tail = &loop->deferred;
		atomic_store(&task->queued, false);
		task->run(task);
	}
}

static bool run_timers(struct loop *loop)
{
	bool any = false;

	if (loop->timer_count == 0)
		return false;
	loop->expiring_ns = loop_now_ns();
	while (loop->timer_count > 0 && loop->timers[0]->at_ns <= loop->expiring_ns) {
		struct loop_timer *timer = loop->timers[0];

		loop_timer_cancel(timer);
		timer->expired(timer);
		any = true;
	}
	loop->expiring_ns = 0;
	return any;
}

static void run_events(struct loop *loop)
{
	for (loop->event_idx = 0; loop->event_idx < loop->event_count;) {
		struct epoll_event *ev = &loop->events[loop->event_idx++];
		struct loop_fd *lfd = ev->data.ptr;

		if (lfd)
			lfd->ready(lfd, ev->events);
	}
	loop->event_count = 0;
	loop->event_idx = 0;
}

/* Waits at most wait_ns (UINT64_MAX: for ever); true if there is something to do. */
static bool poll_events(struct loop *loop, uint64_t wait_ns)
{
	struct timespec ts = {(time_t)(wait_ns / 1000000000u), (long)(wait_ns % 1000000000u)};
	int n;

	if (wait_ns == 0 || wait_ns == UINT64_MAX) {
		n = epoll_wait(loop->epfd, loop->events, EVENTS_MAX, wait_ns ? -1 : 0);
	} else {
		n = epoll_pwait2(loop->epfd, loop->events, EVENTS_MAX, &ts, NULL);
		if (n < 0 && errno == ENOSYS) /* before Linux 5.11: whole milliseconds */
			n = epoll_wait(loop->epfd, loop->events, EVENTS_MAX,
			    (int)(wait_ns / 1000000 < 60000 ? wait_ns / 1000000 + 1 : 60000));
	}
	loop->event_count = n > 0 ? n : 0;
	return n > 0;
}

/* How long the loop may sleep for its timers. */
static uint64_t timer_wait_ns(const struct loop *loop, uint64_t now)
{
	if (loop->timer_count == 0)
		return UINT64_MAX;
	return loop->timers[0]->at_ns > now ? loop->timers[0]->at_ns - now : 0;
}

/* Polls for up to spin_ns, as long as nobody else wants the CPU; true if an event or a posted task
 * came. */
static bool spin(struct loop *loop, uint64_t start)
{
	uint64_t now = start, before;
	uint64_t busy_ns = start - loop->woke_ns < ROUND_LONG_NS ? YIELD_SHORT_NS : YIELD_LONG_NS;

	do {
		if (poll_events(loop, 0) || atomic_load(&loop->posted_any))
			return true;
		before = now;
		sched_yield();
		now = loop_now_ns();
	} while (now - start < loop->spin_ns && now - before < busy_ns);
	return false;
}

/* See the top. */
static void moderate(const struct loop *loop)
{
	uint64_t end = loop_now_ns(), now = end;

	if (end - loop->woke_ns >= MODERATE_NS)
		return;
	while (now - end < end - loop->woke_ns) {
		sched_yield();
		now = loop_now_ns();
	}
}

static void wait(struct loop *loop)
{
	uint64_t start, now;

	if (loop->served > 1 && loop->spin_ns && loop->credit && !simulated_ns)
		moderate(loop);
	loop->served = 0;
	if (poll_events(loop, 0))
		return;
	if (simulated_ns && loop->timer_count > 0) {
		if (!atomic_load(&loop->posted_any) && !atomic_load(&loop->stopping))
			simulated_ns += timer_wait_ns(loop, simulated_ns);
		return;
	}
	start = loop_now_ns();
	if (loop->spin_ns && loop->credit && spin(loop, start)) {
		loop->credit += loop->credit + CREDIT_GAIN <= CREDIT_MAX ? CREDIT_GAIN : 0;
		return;
	}
	atomic_store(&loop->sleeping, true);
	now = loop_now_ns();
	if (!atomic_load(&loop->posted_any) && !atomic_load(&loop->stopping))
		poll_events(loop, timer_wait_ns(loop, now));
	atomic_store(&loop->sleeping, false);
	if (!loop->spin_ns)
		return;
	if (loop_now_ns() - start < 2 * loop->spin_ns)
		loop->credit += loop->credit + CREDIT_GAIN <= CREDIT_MAX ? CREDIT_GAIN : 0;
	else if (loop->credit)
		loop->credit--;
}

void loop_run(struct loop *loop)
{
	assert(!self);
	self = loop;
	while (!atomic_load_explicit(&loop->stopping, memory_order_relaxed)) {
		run_events(loop);
		run_timers(loop);
		run_posted(loop);
		run_deferred(loop);
		wait(loop);
		loop->woke_ns = loop_now_ns();
	}
	run_posted(loop);
	run_deferred(loop);
	atomic_store(&loop->stopping, false);
	self = NULL;
}
