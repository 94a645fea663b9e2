/* SPDX-License-Identifier: Apache-2.0
 *
 * The puller, on simulated time, over a link with a round trip and a bandwidth; and the window that measures
 * both.  The rates here are those of the simulated link: no test depends on this machine's speed.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cache_pump.h"
#include "core/window.h"
#include "tests/lib/cache_rig.h"

#define KIB ((uint64_t)1024)
#define MIB (1024 * KIB)
#define MS ((uint64_t)1000000)
#define SECOND (1000 * MS)
#define HOUR (3600 * SECOND)

/* ---- a link: answers come back in order, at its rate, a round trip later ---- */

enum { LINK_REQS = 4096 };

struct link_slot {
	struct loop_timer timer;
	struct store_req *req;
	struct link_store *link;
	int err;
	bool busy;
};

struct link_store {
	struct store store;
	struct store *lower;
	struct loop *loop;
	uint64_t rtt_ns, rate; /* bytes per second */
	uint64_t free_ns; /* when the last answer has been sent */
	uint64_t bytes; /* read over it */
	unsigned refused; /* the READ that fails at once: 1 is the next */
	struct link_slot slots[LINK_REQS];
};

static void link_answer(struct loop_timer *timer)
{
	struct link_slot *slot = (struct link_slot *)timer;

	slot->busy = false;
	store_complete(slot->req, slot->err);
}

static void link_served(struct store_req *req, int err)
{
	struct link_slot *slot = store_pop(req);
	struct link_store *link = slot->link;
	uint64_t at = loop_now_ns() + link->rtt_ns / 2;

	if (req->op == STORE_READ && !err) {
		link->free_ns =
		    (link->free_ns > at ? link->free_ns : at) + req->len * SECOND / link->rate;
		at = link->free_ns;
		link->bytes += req->len;
	}
	slot->err = err;
	loop_timer_set(link->loop, &slot->timer, at + link->rtt_ns / 2);
}

static void link_submit(struct store *store, struct store_req *req)
{
	struct link_store *link = (struct link_store *)store;
	unsigned i = 0;

	if (req->op == STORE_READ && link->refused && --link->refused == 0) {
		store_complete(req, -EIO);
		return;
	}
	while (link->slots[i].busy)
		rig_check(++i < LINK_REQS, "too many requests for the link");
	link->slots[i].busy = true;
	link->slots[i].req = req;
	link->slots[i].link = link;
	link->slots[i].timer.expired = link_answer;
	store_push(req, link_served, &link->slots[i]);
	store_forward(link->lower, req);
}

static void link_destroy(struct store *store)
{
}

static const struct store_ops link_ops = {
    .name = "link", .submit = link_submit, .destroy = link_destroy};

/* ---- the stage ---- */

static struct sim sim;
static struct cache_rig cr;
static struct link_store line;
static uint8_t data[1 << 20];

static void fill_remote(uint64_t off, uint64_t len)
{
	for (uint64_t at = off; at < off + len; at += MIB)
		ck_assert_int_eq(sim_op(&sim, cr.memory[1], STORE_WRITE, at, MIB, data, 0), 0);
}

static void begin(const struct cache_rig_conf *conf, uint64_t rtt_ns, uint64_t rate)
{
	struct cache_rig_conf detached = *conf;

	memset(&cr, 0, sizeof(cr));
	memset(&line, 0, sizeof(line));
	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(1 + i % 251);
	sim_start(&sim);
	detached.detached = true;
	cache_rig_build(&cr, sim.loop, sim.workers, &detached);
	store_init(&line.store, &link_ops, cr.remote->size);
	line.lower = cr.remote;
	line.loop = sim.loop;
	line.rtt_ns = rtt_ns;
	line.rate = rate;
}

static void attach(void)
{
	cache_attach(cr.cache, &line.store);
}

static void end(void)
{
	sim_end(&sim, &cr);
	cache_rig_free(&cr);
	sim_stop(&sim);
}

static uint64_t absent(uint64_t off, uint64_t len)
{
	return cache_absent(cr.cache, off, len);
}

/* ---- what is pulled ---- */

START_TEST(all_is_pulled)
{
	struct puller_status status;

	begin(&(struct cache_rig_conf){.size = 64 * MIB, .pull = PULL_ALL}, 10 * MS, 1024 * MIB);
	fill_remote(0, 64 * MIB);
	attach();
	sim_run(&sim, SECOND);
	ck_assert_uint_eq(absent(0, 64 * MIB), 0);
	ck_assert_uint_eq(line.bytes, 64 * MIB);
	puller_status(cr.puller, &status);
	ck_assert(!status.active);
	end();
}
END_TEST

START_TEST(nothing_is_pulled_unasked)
{
	begin(&(struct cache_rig_conf){.size = 8 * MIB, .pull = PULL_NONE}, 10 * MS, 1024 * MIB);
	fill_remote(0, 8 * MIB);
	attach();
	sim_run(&sim, SECOND);
	ck_assert_uint_eq(line.bytes, 0);
	puller_set_mode(cr.puller, PULL_ALL);
	sim_run(&sim, SECOND);
	ck_assert_uint_eq(line.bytes, 8 * MIB);
	end();
}
END_TEST

START_TEST(holes_cost_nothing)
{
	struct cache_status status;

	begin(&(struct cache_rig_conf){.size = 1024 * MIB, .pull = PULL_ALL}, 10 * MS, 1024 * MIB);
	fill_remote(500 * MIB, 2 * MIB);
	fill_remote(900 * MIB, MIB);
	attach();
	sim_run(&sim, SECOND);
	ck_assert_uint_eq(absent(0, 1024 * MIB), 0);
	ck_assert_uint_eq(line.bytes, 3 * MIB);
	cache_status(cr.cache, &status);
	ck_assert_uint_eq(status.local, 3 * MIB);
	end();
}
END_TEST

/* What is pushed while the remote is asked for its extents is not a hole, whatever the answer says. */
START_TEST(a_hole_that_was_written_meanwhile_is_none)
{
	begin(&(struct cache_rig_conf){.size = 8 * MIB, .pull = PULL_ALL}, 100 * MS, 1024 * MIB);
	fault_add(cr.remote, &(struct fault_rule){.kind = FAULT_DELAY,
				 .ops = FAULT_OP(STORE_EXTENTS),
				 .after = true,
				 .delay_ns = 2 * SECOND});
	attach();
	sim_run(&sim, 10 * MS);
	ck_assert_int_eq(sim_op(&sim, cr.store, STORE_WRITE, 0, MIB, data, 0), 0);
	ck_assert_int_eq(sim_op(&sim, cr.store, STORE_FLUSH, 0, 0, NULL, 0), 0);
	ck_assert_uint_eq(cache_evict(cr.cache, 0, MIB), MIB);
	sim_run(&sim, 10 * SECOND);
	{
		static uint8_t in[1 << 20];

		ck_assert_int_eq(sim_op(&sim, cr.store, STORE_READ, 0, MIB, in, 0), 0);
		ck_assert_mem_eq(in, data, MIB);
	}
	end();
}
END_TEST

/* The same for a push that the remote's answer about its extents is older than, though it had begun before. */
START_TEST(a_hole_that_was_being_pushed_is_none)
{
	static uint8_t in[1 << 20];

	begin(&(struct cache_rig_conf){.size = 8 * MIB, .pull = PULL_NONE, .interval_ms = 1}, MS,
	    1024 * MIB);
	attach();
	fault_add(cr.remote,
	    &(struct fault_rule){
		.kind = FAULT_DELAY, .ops = FAULT_OP(STORE_WRITE), .delay_ns = 100 * MS});
	fault_add(cr.remote, &(struct fault_rule){.kind = FAULT_DELAY,
				 .ops = FAULT_OP(STORE_EXTENTS),
				 .after = true,
				 .delay_ns = 2 * SECOND});
	ck_assert_int_eq(sim_op(&sim, cr.store, STORE_WRITE, 0, MIB, data, 0), 0);
	sim_run(&sim, 90 * MS);
	ck_assert_uint_eq(cache_pushing(cr.cache), MIB);
	puller_set_mode(cr.puller, PULL_ALL);
	ck_assert_int_eq(sim_op(&sim, cr.store, STORE_FLUSH, 0, 0, NULL, 0), 0);
	ck_assert_uint_eq(cache_evict(cr.cache, 0, MIB), MIB);
	sim_run(&sim, 10 * SECOND);
	ck_assert_int_eq(sim_op(&sim, cr.store, STORE_READ, 0, MIB, in, 0), 0);
	ck_assert_mem_eq(in, data, MIB);
	end();
}
END_TEST

START_TEST(the_order_comes_first)
{
	static const struct pull_range order[] = {
	    {32 * MIB, 4 * MIB, 5},
	    {60 * MIB, UINT64_MAX - 60 * MIB, 9},
	    {8 * MIB, 4 * MIB, 5},
	};
	unsigned count;

	begin(&(struct cache_rig_conf){.size = 64 * MIB, .pull = PULL_ALL}, 10 * MS, 100 * MIB);
	fill_remote(0, 64 * MIB);
	ck_assert_int_eq(puller_set_order(cr.puller, order, 3), 0);
	attach();
	while (absent(60 * MIB, 4 * MIB))
		sim_run(&sim, MS);
	ck_assert_uint_gt(absent(32 * MIB, 4 * MIB), 0);
	while (absent(32 * MIB, 4 * MIB))
		sim_run(&sim, MS);
	ck_assert_uint_gt(absent(8 * MIB, 4 * MIB), 0);
	while (absent(8 * MIB, 4 * MIB))
		sim_run(&sim, MS);
	ck_assert_uint_gt(absent(0, 64 * MIB), 40 * MIB);
	ck_assert_ptr_nonnull(puller_order(cr.puller, &count));
	ck_assert_uint_eq(count, 3);
	/* Another order, while it is at work. */
	ck_assert_int_eq(
	    puller_set_order(cr.puller, &(struct pull_range){50 * MIB, 4 * MIB, 0}, 1), 0);
	while (absent(50 * MIB, 4 * MIB))
		sim_run(&sim, MS);
	ck_assert_uint_gt(absent(0, 64 * MIB), 30 * MIB);
	sim_run(&sim, SECOND);
	ck_assert_uint_eq(absent(0, 64 * MIB), 0);
	end();
}
END_TEST

START_TEST(the_plan_stops_at_the_bound)
{
	struct cache_status status;

	begin(&(struct cache_rig_conf){.size = 64 * MIB, .cache_size = 8 * MIB, .pull = PULL_ALL},
	    10 * MS, 1024 * MIB);
	fill_remote(0, 64 * MIB);
	attach();
	sim_run(&sim, SECOND);
	cache_status(cr.cache, &status);
	ck_assert_uint_le(status.local, 8 * MIB);
	ck_assert_uint_ge(status.local, 7 * MIB);
	ck_assert_uint_eq(status.evicted, 0);
	ck_assert_uint_le(line.bytes, 8 * MIB);
	end();
}
END_TEST

START_TEST(a_failed_pull_is_tried_again)
{
	begin(&(struct cache_rig_conf){.size = 8 * MIB, .pull = PULL_ALL}, 10 * MS, 1024 * MIB);
	fill_remote(0, 8 * MIB);
	fault_add(cr.remote, &(struct fault_rule){.kind = FAULT_FAIL,
				 .ops = FAULT_OP(STORE_READ),
				 .skip = 2,
				 .count = 3,
				 .err = -EIO});
	attach();
	sim_run(&sim, 5 * SECOND);
	ck_assert_uint_eq(absent(0, 8 * MIB), 0);
	end();
}
END_TEST

/* ---- jobs and goals ---- */

static int job_err;
static unsigned jobs_done;

static void job_done(struct pull_job *job, int err)
{
	job_err = err;
	jobs_done++;
}

static struct sim_req being_written;

static void write_now(struct loop_task *task)
{
	sim_submit(cr.store, &being_written);
}

/* All that is not there is just being written (_i 1: punched): the end of that is what the job waits for. */
START_TEST(a_job_goes_on_after_a_write)
{
	struct pull_job job = {.len = 2 * MIB, .done = job_done};
	struct loop_task task = {.run = write_now};

	begin(&(struct cache_rig_conf){.size = 8 * MIB, .interval_ms = HOUR / MS}, 10 * MS,
	    1024 * MIB);
	attach();
	ck_assert_int_eq(sim_op(&sim, cr.store, STORE_WRITE, 0, MIB, data, 0), 0);
	fault_add(cr.local, &(struct fault_rule){.kind = FAULT_HOLD});
	being_written = (struct sim_req){
	    .req = {.op = _i ? STORE_ZERO : STORE_WRITE, .off = MIB, .len = MIB, .buf = data},
	};
	loop_defer(sim.loop, &task);
	sim_run(&sim, MS);
	ck_assert(!being_written.done);
	jobs_done = 0;
	puller_add(cr.puller, &job);
	sim_run(&sim, SECOND);
	ck_assert_uint_eq(jobs_done, 0);
	fault_clear(cr.local);
	fault_release(cr.local, FAULT_FIRST_FIRST, 0);
	sim_run(&sim, SECOND);
	ck_assert(being_written.done && being_written.err == 0);
	ck_assert_uint_eq(jobs_done, 1);
	end();
}
END_TEST

START_TEST(a_job_ends_when_its_range_is_there)
{
	struct pull_job a = {.off = 20 * MIB, .len = 10 * MIB, .done = job_done};
	struct pull_job b = {.off = 40 * MIB, .len = 4 * MIB, .prio = 1, .done = job_done};

	begin(&(struct cache_rig_conf){.size = 64 * MIB, .pull = PULL_NONE}, 10 * MS, 100 * MIB);
	fill_remote(0, 64 * MIB);
	attach();
	puller_add(cr.puller, &a);
	puller_add(cr.puller, &b);
	while (jobs_done == 0)
		sim_run(&sim, MS);
	ck_assert_uint_eq(absent(40 * MIB, 4 * MIB), 0);
	ck_assert_uint_gt(a.left, 0);
	while (jobs_done == 1)
		sim_run(&sim, MS);
	ck_assert_int_eq(job_err, 0);
	ck_assert_uint_eq(absent(20 * MIB, 10 * MIB), 0);
	ck_assert_uint_eq(line.bytes, 14 * MIB);
	/* One that has nothing to do ends, too. */
	puller_add(cr.puller, &a);
	sim_run(&sim, 100 * MS);
	ck_assert_uint_eq(jobs_done, 3);
	end();
}
END_TEST

START_TEST(a_job_fails_or_is_cancelled)
{
	struct pull_job job = {.len = 10 * MIB, .done = job_done};
	struct puller_status status;

	begin(&(struct cache_rig_conf){.size = 64 * MIB, .pull = PULL_NONE}, 10 * MS, 100 * MIB);
	fill_remote(0, 64 * MIB);
	attach();
	puller_add(cr.puller, &job);
	sim_run(&sim, 20 * MS);
	puller_status(cr.puller, &status);
	ck_assert_uint_gt(status.in_flight, 0);
	/* At once: what is on its way may take for ever.  The next job in its place does not count that as its own. */
	puller_cancel(cr.puller, &job);
	ck_assert_uint_eq(jobs_done, 1);
	ck_assert_int_eq(job_err, -ECANCELED);
	job = (struct pull_job){.len = 10 * MIB, .done = job_done};
	puller_add(cr.puller, &job);
	sim_run(&sim, SECOND);
	ck_assert_uint_eq(jobs_done, 2);
	ck_assert_int_eq(job_err, 0);
	ck_assert_uint_eq(cache_absent(cr.cache, 0, 10 * MIB), 0);
	puller_status(cr.puller, &status);
	ck_assert_uint_eq(status.in_flight, 0);
	fault_add(cr.remote,
	    &(struct fault_rule){.kind = FAULT_FAIL, .ops = FAULT_OP(STORE_READ), .err = -EIO});
	job = (struct pull_job){.off = 32 * MIB, .done = job_done};
	puller_add(cr.puller, &job);
	sim_run(&sim, SECOND);
	ck_assert_uint_eq(jobs_done, 3);
	ck_assert_int_eq(job_err, -EIO);
	fault_clear(cr.remote);
	/* And by the end of everything. */
	job = (struct pull_job){.off = 32 * MIB, .done = job_done};
	puller_add(cr.puller, &job);
	sim_run(&sim, 5 * MS);
	end();
	ck_assert_uint_eq(jobs_done, 4);
	ck_assert_int_eq(job_err, -ECANCELED);
}
END_TEST

/* Pulls that fail at once, while one as long is on its way: the job ends with the first, once. */
START_TEST(a_job_ends_with_what_fails_first)
{
	struct pull_job job = {.len = 10 * MIB, .done = job_done};

	begin(&(struct cache_rig_conf){.size = 64 * MIB, .pull = PULL_NONE}, 10 * MS, 100 * MIB);
	fill_remote(0, 64 * MIB);
	attach();
	jobs_done = 0;
	line.refused = 2;
	puller_add(cr.puller, &job);
	sim_run(&sim, 15 * MS); /* the extents take 10 */
	ck_assert_uint_eq(line.refused, 0);
	ck_assert_uint_eq(jobs_done, 1);
	sim_run(&sim, SECOND);
	ck_assert_uint_eq(jobs_done, 1);
	ck_assert_int_eq(job_err, -EIO);
	end();
}
END_TEST

static unsigned goals_done;

static void goal_done(struct pull_goal *goal, int err)
{
	goals_done += err == 0;
}

START_TEST(a_goal_is_reached)
{
	struct pull_goal part = {.bytes = 16 * MIB, .done = goal_done};
	struct pull_goal all = {.bytes = UINT64_MAX, .done = goal_done};

	begin(&(struct cache_rig_conf){.size = 64 * MIB, .pull = PULL_ALL}, 10 * MS, 100 * MIB);
	fill_remote(0, 64 * MIB);
	attach();
	puller_wait(cr.puller, &part);
	puller_wait(cr.puller, &all);
	while (goals_done == 0)
		sim_run(&sim, MS);
	ck_assert_uint_ge(cache_resident(cr.cache), 16 * MIB);
	ck_assert_uint_lt(cache_resident(cr.cache), 20 * MIB);
	while (goals_done == 1)
		sim_run(&sim, MS);
	ck_assert_uint_eq(cache_resident(cr.cache), 64 * MIB);
	end();
}
END_TEST

/* ---- how fast ---- */

enum { READERS = 4 };

struct reader {
	struct store_req req;
	struct store *store;
	uint64_t end, *next;
	unsigned *left;
	uint8_t buf[1 << 20];
};

static void reader_next(struct reader *reader)
{
	if (*reader->next >= reader->end) {
		--*reader->left;
		return;
	}
	reader->req.op = STORE_READ;
	reader->req.off = *reader->next;
	reader->req.len = MIB;
	reader->req.buf = reader->buf;
	*reader->next += MIB;
	store_submit(reader->store, &reader->req);
}

static void reader_done(struct store_req *req, int err)
{
	struct reader *reader = (struct reader *)req;

	rig_check(err == 0 && memcmp(reader->buf, data, MIB) == 0, "wrong bytes");
	reader_next(reader);
}

static struct reader readers[READERS];
static struct loop_task readers_task;

static void readers_begin(struct loop_task *task)
{
	for (unsigned i = 0; i < READERS; i++)
		reader_next(&readers[i]);
}

/* Bytes per second that a reader of `size` bytes sees who has READERS requests in flight. */
static uint64_t read_rate(uint64_t size)
{
	uint64_t next = 0, start = loop_now_ns();
	unsigned left = READERS;

	for (unsigned i = 0; i < READERS; i++)
		readers[i] = (struct reader){
		    .req.done = reader_done,
		    .store = cr.store,
		    .end = size,
		    .next = &next,
		    .left = &left,
		};
	readers_task.run = readers_begin;
	loop_defer(sim.loop, &readers_task);
	while (left)
		sim_run(&sim, MS);
	return size * SECOND / (loop_now_ns() - start);
}

/* On a link of 2 GiB/s: cold, with a round trip of 1, 10, 25 ms; in both modes. */
START_TEST(a_sequential_reader_gets_the_link)
{
	static const struct {
		uint64_t rtt_ms, least; /* bytes per second */
	} cases[] = {{1, 1200000000}, {10, 1000000000}, {25, 800000000}};
	uint64_t rate;

	begin(
	    &(struct cache_rig_conf){
		.size = 512 * MIB,
		.pull = _i % 2 ? PULL_ALL : PULL_SEQUENTIAL,
		.pull_window = 64 * MIB,
	    },
	    cases[_i / 2].rtt_ms * MS, 2048 * MIB);
	fill_remote(0, 512 * MIB);
	attach();
	rate = read_rate(512 * MIB);
	ck_assert_msg(rate >= cases[_i / 2].least, "%llu bytes/s", (unsigned long long)rate);
	ck_assert_uint_le(line.bytes, 512 * MIB);
	end();
}
END_TEST

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Reads of absent blocks, one as soon as the one before has ended, while all is pulled at the link's speed: the
 * pull gives way to them, also while they wait for the donor.  The first few find what was sent before. */
START_TEST(a_pull_does_not_hold_up_readers)
{
	uint64_t took[100];
	static uint8_t in[4096];
	unsigned n = 0;

	begin(
	    &(struct cache_rig_conf){
		.size = 4096 * MIB,
		.pull = PULL_ALL,
		.pull_window = 64 * MIB,
	    },
	    10 * MS, 512 * MIB);
	for (uint64_t off = 0; off < 4096 * MIB; off += 8 * MIB)
		ck_assert_int_eq(sim_op(&sim, cr.memory[1], STORE_ALLOC, off, 8 * MIB, NULL, 0), 0);
	attach();
	sim_run(&sim, SECOND);
	while (n < 100) {
		uint64_t start = loop_now_ns();
		uint64_t off = (4000 - n * 13) * MIB;

		ck_assert_int_eq(sim_op(&sim, cr.store, STORE_READ, off, 4096, in, 0), 0);
		took[n++] = loop_now_ns() - start;
		sim_run(&sim, MS / 10);
	}
	qsort(took, 100, sizeof(took[0]), by_size);
	ck_assert_msg(took[95] <= 12 * MS, "%llu ns", (unsigned long long)took[95]);
	ck_assert_msg(took[98] <= 20 * MS, "%llu ns", (unsigned long long)took[98]);
	ck_assert_uint_gt(line.bytes, 400 * MIB); /* and it was pulling all the time */
	end();
}
END_TEST

/* ---- the window ---- */

START_TEST(the_window_finds_bandwidth_times_round_trip)
{
	struct window_mark marks[4096];
	struct window w;
	uint64_t sent = 0, answered = 0, now = SECOND, free_at = 0, due[4096] = {0};

	window_init(&w, 256 * MIB);
	/* 1 GiB/s, 20 ms: 20 MiB. */
	for (unsigned i = 0; i < 20000; i++) {
		while (window_open(&w, MIB / 4) && sent - answered < 4096) {
			window_sent(&w, &marks[sent % 4096], MIB / 4, now);
			free_at =
			    (free_at > now + 10 * MS ? free_at : now + 10 * MS) + SECOND / 4096;
			due[sent++ % 4096] = free_at + 10 * MS;
		}
		now = due[answered % 4096];
		window_answered(&w, &marks[answered++ % 4096], true, now);
	}
	ck_assert_uint_ge(w.size, 20 * MIB);
	ck_assert_uint_le(w.size, 36 * MIB);
	ck_assert_uint_ge(window_rate(&w), 950 * MIB);
	ck_assert_uint_eq(window_unit(&w), MIB);
	while (answered < sent)
		window_answered(&w, &marks[answered++ % 4096], false, now);
	ck_assert_uint_eq(w.in_flight, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("puller");
	TCase *tc = tcase_create("puller");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, all_is_pulled);
	tcase_add_test(tc, nothing_is_pulled_unasked);
	tcase_add_test(tc, holes_cost_nothing);
	tcase_add_test(tc, a_hole_that_was_written_meanwhile_is_none);
	tcase_add_test(tc, a_hole_that_was_being_pushed_is_none);
	tcase_add_test(tc, the_order_comes_first);
	tcase_add_test(tc, the_plan_stops_at_the_bound);
	tcase_add_test(tc, a_failed_pull_is_tried_again);
	tcase_add_test(tc, a_job_ends_when_its_range_is_there);
	tcase_add_loop_test(tc, a_job_goes_on_after_a_write, 0, 2);
	tcase_add_test(tc, a_job_fails_or_is_cancelled);
	tcase_add_test(tc, a_job_ends_with_what_fails_first);
	tcase_add_test(tc, a_goal_is_reached);
	tcase_add_loop_test(tc, a_sequential_reader_gets_the_link, 0, 6);
	tcase_add_test(tc, a_pull_does_not_hold_up_readers);
	tcase_add_test(tc, the_window_finds_bandwidth_times_round_trip);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
