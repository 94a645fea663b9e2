/* SPDX-License-Identifier: Apache-2.0
 *
 * The pusher (see core/pusher.h): when to push.  What, and how, is the cache's (core/cache_push.c).
 *
 * It is woken by kicks (something became dirty, somebody waits), ends of pushes and its timer, and then
 * starts pushes as long as there is a reason and the window is open.  The reasons: somebody waits, or the
 * chunk at the head of the dirty list is `interval` old.
 *
 * States: quiet → pushing → quiet; or failing (retry_at_ns set): nothing is pushed before that
 * time, but for a flush, until a push succeeds.  What has failed is owed: it does not wait for the interval again.
 */
#include "core/pusher.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "core/cache_pump.h"
#include "core/loop.h"

#define MS ((uint64_t)1000000)
#define RETRY_FIRST (100 * MS)
#define RETRY_MOST (10000 * MS)
#define HOLD_LOOK (100 * MS) /* between looks at the age while something is dirty */
/* What is started in one round of the loop, in bytes; a small push counts as PUSH_LEAST.  Whoever writes meanwhile has
 * his turn after that: replies come in bursts, and each makes room for as many pushes. */
#define ROUND_MOST ((uint64_t)1 << 20)
#define PUSH_LEAST ((uint64_t)16 << 10)

struct pusher {
	struct cache *cache; /* constant */
	struct loop *loop; /* constant */
	uint64_t interval_ns, max_age_ns;
	uint64_t backoff_ns, retry_at_ns; /* 0: the last push did not fail */
	int error; /* of the last failure, while retry_at_ns */
	bool owed; /* something has failed, and not all has been clean since */
	bool holding, stopped;
	bool flushing; /* flush is under way */
	uint64_t flush_at_ns; /* when to flush what is pushed; 0: not set */
	struct cache_flush flush;
	struct loop_task task;
	struct loop_timer timer;
};

static void wake(struct pusher *pusher)
{
	if (!pusher->stopped)
		loop_defer(pusher->loop, &pusher->task);
}

static void set_timer(struct pusher *pusher, uint64_t at_ns)
{
	if (!pusher->timer.loop || at_ns < pusher->timer.at_ns)
		loop_timer_set(pusher->loop, &pusher->timer, at_ns);
}

/* ---- the remote's FLUSH, when all is pushed ---- */

static void failed(struct pusher *pusher, int err)
{
	uint64_t backoff = pusher->backoff_ns * 2;

	backoff = backoff < RETRY_FIRST ? RETRY_FIRST : backoff;
	pusher->backoff_ns = backoff > RETRY_MOST ? RETRY_MOST : backoff;
	pusher->retry_at_ns = loop_now_ns() + pusher->backoff_ns;
	pusher->error = err;
	pusher->owed = true;
}

static void flushed(struct cache_flush *flush, int err)
{
	struct pusher *pusher = (struct pusher *)((char *)flush - offsetof(struct pusher, flush));

	pusher->flushing = false;
	if (err && !pusher->stopped)
		failed(pusher, err);
	wake(pusher);
}

/* Others wait for room, and what has been pushed can't be evicted before the remote has flushed it. */
static void flush_for_room(struct pusher *pusher, uint64_t now)
{
	if (pusher->flushing || !cache_room_wanted(pusher->cache))
		return;
	if (pusher->retry_at_ns > now) {
		set_timer(pusher, pusher->retry_at_ns);
		return;
	}
	pusher->flushing = true;
	pusher->flush.done = flushed;
	cache_flush_pushed(pusher->cache, &pusher->flush);
}

static void flush_when_quiet(struct pusher *pusher, uint64_t now)
{
	uint64_t wait = pusher->interval_ns > RETRY_FIRST ? pusher->interval_ns : RETRY_FIRST;

	if (pusher->flushing || cache_pushing(pusher->cache) || !cache_unflushed(pusher->cache)) {
		pusher->flush_at_ns = 0;
		return;
	}
	if (!pusher->flush_at_ns)
		pusher->flush_at_ns = now + wait;
	if (now < pusher->flush_at_ns) {
		set_timer(pusher, pusher->flush_at_ns);
		return;
	}
	pusher->flush_at_ns = 0;
	pusher->flushing = true;
	pusher->flush = (struct cache_flush){.durability = CACHE_REMOTE, .done = flushed};
	cache_flush(pusher->cache, &pusher->flush);
}

/* ---- pushing ---- */

/* max_dirty_age: writers wait while something is older. */
static void keep_promise(struct pusher *pusher, uint64_t now)
{
	uint64_t age = pusher->max_age_ns ? cache_oldest_ns(pusher->cache) : 0;

	pusher->holding = age > pusher->max_age_ns;
	cache_hold_writers(pusher->cache, pusher->holding);
	if (age)
		set_timer(
		    pusher, now + (pusher->holding ? HOLD_LOOK : pusher->max_age_ns - age + 1));
}

/* Whether now is the time to push; else sets the timer for it. */
static bool is_time(struct pusher *pusher, uint64_t now)
{
	uint64_t age, dirty = cache_dirty(pusher->cache, &age);

	if (cache_flush_wanted(pusher->cache))
		return true; /* also if nothing is dirty any more: the cache has to see that */
	if (dirty == 0) {
		pusher->owed = pusher->owed && cache_pushing(pusher->cache);
		return false;
	}
	if (pusher->retry_at_ns > now) {
		set_timer(pusher, pusher->retry_at_ns);
		return false;
	}
	if (cache_push_wanted(pusher->cache) || pusher->owed || age >= pusher->interval_ns)
		return true;
	set_timer(pusher, now + pusher->interval_ns - age);
	return false;
}

static void pump(struct loop_task *task)
{
	struct pusher *pusher = (struct pusher *)((char *)task - offsetof(struct pusher, task));
	struct window *window = cache_push_window(pusher->cache);
	uint64_t now = loop_now_ns(), started = 0, len, age;

	if (pusher->stopped)
		return;
	keep_promise(pusher, now);
	flush_for_room(pusher, now);
	while (is_time(pusher, now)) {
		/* How large the next push is shows only when it starts; were room asked for that it
		 * does not need, scattered blocks would go one by one, and the window, which follows
		 * the rate, would stay that small. */
		if (!window_open(window, STORE_BLOCK)) {
			if (cache_pushing(pusher->cache) == 0)
				cache_starved(pusher->cache); /* others have the window */
			return;
		}
		if (started >= ROUND_MOST) {
			set_timer(pusher, now);
			return;
		}
		if (cache_push(pusher->cache, &len) != CACHE_PUSH_STARTED)
			return;
		started += len > PUSH_LEAST ? len : PUSH_LEAST;
	}
	if (cache_dirty(pusher->cache, &age) == 0)
		flush_when_quiet(pusher, now);
}

static void expired(struct loop_timer *timer)
{
	struct pusher *pusher = (struct pusher *)((char *)timer - offsetof(struct pusher, timer));

	wake(pusher);
}

/* ---- what the cache tells ---- */

static void on_kick(void *ctx)
{
	wake(ctx);
}

static void on_pushed(void *ctx, uint64_t len, int err)
{
	struct pusher *pusher = ctx;

	if (err) {
		if (pusher->retry_at_ns <= loop_now_ns()) /* those of one attempt count once */
			failed(pusher, err);
	} else {
		pusher->backoff_ns = pusher->retry_at_ns = 0;
		pusher->error = 0;
	}
	wake(pusher);
}

static void on_stop(void *ctx)
{
	struct pusher *pusher = ctx;

	pusher->stopped = true;
	loop_timer_cancel(&pusher->timer);
}

static const struct cache_pusher_ops pusher_ops = {
    .kick = on_kick,
    .pushed = on_pushed,
    .stop = on_stop,
};

/* ---- what people ask ---- */

int pusher_create(const struct pusher_conf *conf, struct pusher **ret_pusher, struct err *err)
{
	struct pusher *pusher = calloc(1, sizeof(*pusher));

	if (!pusher)
		return err_set(err, -ENOMEM, "out of memory for a pusher");
	pusher->cache = conf->cache;
	pusher->loop = cache_loop(conf->cache);
	pusher->task.run = pump;
	pusher->timer.expired = expired;
	pusher->interval_ns = conf->interval_ms * MS;
	pusher->max_age_ns = conf->max_dirty_age_ms * MS;
	cache_set_pusher(conf->cache, &pusher_ops, pusher);
	wake(pusher);
	*ret_pusher = pusher;
	return 0;
}

void pusher_destroy(struct pusher *pusher)
{
	if (!pusher)
		return;
	assert(pusher->stopped && !pusher->flushing);
	cache_set_pusher(pusher->cache, NULL, NULL);
	loop_undefer(pusher->loop, &pusher->task);
	free(pusher);
}

void pusher_set_interval(struct pusher *pusher, uint64_t interval_ms, uint64_t max_dirty_age_ms)
{
	pusher->interval_ns = interval_ms * MS;
	pusher->max_age_ns = max_dirty_age_ms * MS;
	wake(pusher);
}

void pusher_status(const struct pusher *pusher, struct pusher_status *ret_status)
{
	uint64_t now = loop_now_ns();

	*ret_status = (struct pusher_status){
	    .in_flight = cache_pushing(pusher->cache),
	    .retry_ns = pusher->retry_at_ns > now ? pusher->retry_at_ns - now : 0,
	    .error = pusher->error,
	    .holding = pusher->holding,
	};
}
