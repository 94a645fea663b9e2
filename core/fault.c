/* SPDX-License-Identifier: Apache-2.0
 *
 * The fault layer (see core/fault.h).
 *
 * A request that a rule hits gets a slot, except one that fails at once.  A slot's states:
 *   FREE  → LOWER    the lower store has the request (after), or the torn part of it
 *         → HELD     in the list of held ones, until fault_release or store_interrupt
 *         → DELAYED  its timer is set, until that expires or store_interrupt
 *   LOWER → HELD, DELAYED, or FREE: the request ends
 *   HELD  → GOING    released: its task is posted to its loop
 *   DELAYED, GOING → LOWER (not after) or FREE: the request ends
 *
 * Invariants:
 *   1. A slot that is not FREE has a request in flight, submitted on slot->loop.
 *   2. The held list has exactly the HELD slots, in the order in which they came.
 *   3. A slot changes its state on its loop's thread; only HELD → GOING happens anywhere.
 * Locking: `mu` for rules, lists, states and counts; not held across forward, submit or complete.
 */
#include "core/fault.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "core/loop.h"

enum slot_state { SLOT_FREE, SLOT_LOWER, SLOT_HELD, SLOT_DELAYED, SLOT_GOING };

struct fault;

struct slot {
	struct fault *fault;
	enum slot_state state;
	struct fault_rule rule;
	struct store_req *req;
	struct loop *loop;
	int err; /* what the lower store said (after) */
	struct store_req part; /* TORN: what the lower store gets */
	struct loop_timer timer;
	struct loop_task task;
	struct slot *next, *prev; /* free list (next only), held list */
};

struct fault {
	struct store store;
	struct store *lower; /* constant; owned */

	/* Protected by mu. */
	pthread_mutex_t mu;
	struct fault_rule rules[FAULT_RULES_MAX];
	unsigned rule_count;
	struct fault_counts counts;
	uint64_t random;
	unsigned held;
	struct slot held_list; /* a ring; next is the oldest */
	struct slot *free;
	struct slot slots[FAULT_SLOTS];
};

/* xorshift64*: any seed but 0. */
static uint64_t random_locked(struct fault *fault)
{
	fault->random ^= fault->random >> 12;
	fault->random ^= fault->random << 25;
	fault->random ^= fault->random >> 27;
	return fault->random * 0x2545f4914f6cdd1dull;
}

/* ---- the lists ---- */

static struct slot *slot_take_locked(
    struct fault *fault, struct store_req *req, const struct fault_rule *rule)
{
	struct slot *slot = fault->free;

	assert(slot); /* the script hits more requests than FAULT_SLOTS at once */
	fault->free = slot->next;
	slot->rule = *rule;
	slot->req = req;
	slot->loop = loop_self();
	slot->state = SLOT_LOWER;
	slot->err = 0;
	assert(slot->loop);
	return slot;
}

/* Frees the slot; its request is still in flight. */
static struct store_req *slot_put(struct slot *slot)
{
	struct fault *fault = slot->fault;
	struct store_req *req = slot->req;

	pthread_mutex_lock(&fault->mu);
	slot->state = SLOT_FREE;
	slot->req = NULL;
	slot->next = fault->free;
	fault->free = slot;
	pthread_mutex_unlock(&fault->mu);
	return req;
}

static void hold_locked(struct slot *slot)
{
	struct slot *ring = &slot->fault->held_list;

	slot->state = SLOT_HELD;
	slot->next = ring;
	slot->prev = ring->prev;
	ring->prev->next = slot;
	ring->prev = slot;
	slot->fault->held++;
}

static void unhold_locked(struct slot *slot)
{
	assert(slot && slot->next && slot->prev);
	slot->next->prev = slot->prev;
	slot->prev->next = slot->next;
	slot->fault->held--;
}

/* ---- a request's way ---- */

static void slot_end(struct slot *slot, int err)
{
	struct store *lower = slot->fault->lower;
	struct store_req *req = slot_put(slot);

	if (err && req->ret_lent) { /* the lower store has lent what nobody will see */
		store_lower_unlend(lower, req->off, (uint32_t)req->len);
		req->ret_lent = false;
	}
	store_complete(req, err);
}

/* HOLD or DELAY begins. */
static void slot_wait(struct slot *slot)
{
	struct fault *fault = slot->fault;
	bool delay = slot->rule.kind == FAULT_DELAY;
	uint64_t at_ns = loop_now_ns() + slot->rule.delay_ns;

	pthread_mutex_lock(&fault->mu);
	if (!delay) {
		hold_locked(slot);
	} else {
		slot->state = SLOT_DELAYED;
		if (slot->rule.jitter_ns)
			at_ns += random_locked(fault) % slot->rule.jitter_ns;
	}
	pthread_mutex_unlock(&fault->mu);
	if (delay)
		loop_timer_set(slot->loop, &slot->timer, at_ns);
}

/* The lower store has served a request whose rule comes after it. */
static void lower_done(struct store_req *req, int err)
{
	struct slot *slot = store_pop(req);

	slot->err = err;
	if (slot->rule.kind == FAULT_FAIL)
		slot_end(slot, err ? err : slot->rule.err);
	else
		slot_wait(slot);
}

static void part_done(struct store_req *part, int err)
{
	struct slot *slot = (struct slot *)((char *)part - offsetof(struct slot, part));

	slot_end(slot, err ? err : slot->rule.err);
}

static void slot_torn(struct slot *slot)
{
	struct store_req *req = slot->req, *part = &slot->part;
	uint64_t len = slot->rule.torn_bytes < req->len ? slot->rule.torn_bytes : req->len;

	if (len == 0) {
		slot_end(slot, slot->rule.err);
		return;
	}
	*part = (struct store_req){
	    .op = req->op,
	    .flags = req->flags & ~(unsigned)STORE_LEND,
	    .off = req->off,
	    .len = len,
	    .buf = req->buf,
	    .done = part_done,
	};
	store_submit(slot->fault->lower, part);
}

/* HOLD or DELAY is over. */
static void slot_go_on(struct slot *slot)
{
	int err = slot->err ? slot->err : slot->rule.err;

	if (slot->rule.after || err)
		slot_end(slot, err);
	else
		store_forward(slot->fault->lower, slot_put(slot));
}

static void slot_expired(struct loop_timer *timer)
{
	slot_go_on((struct slot *)((char *)timer - offsetof(struct slot, timer)));
}

static void slot_released(struct loop_task *task)
{
	slot_go_on((struct slot *)((char *)task - offsetof(struct slot, task)));
}

/* The rule for this request, if one hits it, counted down. */
static bool match_locked(
    struct fault *fault, const struct store_req *req, struct fault_rule *ret_rule)
{
	for (unsigned i = 0; i < fault->rule_count; i++) {
		struct fault_rule *rule = &fault->rules[i];

		if (rule->ops && !(rule->ops & FAULT_OP(req->op)))
			continue;
		if (rule->kind == FAULT_TORN && req->op != STORE_WRITE && req->op != STORE_ZERO)
			continue;
		if (rule->skip) {
			rule->skip--;
			continue;
		}
		*ret_rule = *rule;
		if (rule->count && --rule->count == 0) {
			fault->rule_count--;
			for (; i < fault->rule_count; i++)
				fault->rules[i] = fault->rules[i + 1];
		}
		return true;
	}
	return false;
}

static void fault_submit(struct store *store, struct store_req *req)
{
	struct fault *fault = (struct fault *)store;
	struct slot *slot = NULL;
	struct fault_rule rule;
	bool hit, at_once;

	pthread_mutex_lock(&fault->mu);
	fault->counts.submitted[req->op]++;
	hit = match_locked(fault, req, &rule);
	at_once = hit && rule.kind == FAULT_FAIL && !rule.after;
	if (hit) {
		fault->counts.hit[req->op]++;
		if (!at_once)
			slot = slot_take_locked(fault, req, &rule);
	}
	pthread_mutex_unlock(&fault->mu);

	if (!hit) {
		store_forward(fault->lower, req);
	} else if (at_once) {
		store_complete(req, rule.err);
	} else if (rule.kind == FAULT_TORN) {
		slot_torn(slot);
	} else if (rule.after) {
		store_push(req, lower_done, slot);
		store_forward(fault->lower, req);
	} else {
		slot_wait(slot);
	}
}

/* Ends a request that waits here; one at the lower store goes its way. */
static void fault_interrupt(struct store *store, struct store_req *req)
{
	struct fault *fault = (struct fault *)store;
	struct slot *slot = NULL;

	pthread_mutex_lock(&fault->mu);
	for (unsigned i = 0; i < FAULT_SLOTS && !slot; i++)
		if (fault->slots[i].req == req)
			slot = &fault->slots[i];
	if (slot && slot->state == SLOT_HELD)
		unhold_locked(slot);
	else if (slot && slot->state != SLOT_DELAYED)
		slot = NULL;
	if (slot)
		slot->state = SLOT_LOWER;
	pthread_mutex_unlock(&fault->mu);
	if (slot) {
		loop_timer_cancel(&slot->timer);
		slot_end(slot, -EINTR);
	}
}

static void *fault_lend(struct store *store, uint64_t off, uint32_t len)
{
	return store_lower_lend(((struct fault *)store)->lower, off, len);
}

static void fault_unlend(struct store *store, uint64_t off, uint32_t len)
{
	store_lower_unlend(((struct fault *)store)->lower, off, len);
}

static int fault_stat(struct store *store, struct store_stat *ret_stat)
{
	return store_stat(((struct fault *)store)->lower, ret_stat);
}

static void fault_destroy(struct store *store)
{
	struct fault *fault = (struct fault *)store;

	store_destroy(fault->lower);
	pthread_mutex_destroy(&fault->mu);
	free(fault);
}

static const struct store_ops fault_ops = {
    .name = "fault",
    .submit = fault_submit,
    .interrupt = fault_interrupt,
    .lend = fault_lend,
    .unlend = fault_unlend,
    .stat = fault_stat,
    .destroy = fault_destroy,
};

/* ---- what tests call ---- */

int fault_create(struct store *lower, uint64_t seed, struct store **ret_store, struct err *err)
{
	struct fault *fault = calloc(1, sizeof(*fault));

	if (!fault)
		return err_set(err, -ENOMEM, "out of memory for a fault layer");
	store_init(&fault->store, &fault_ops, lower->size);
	fault->store.align = lower->align;
	fault->store.max_len = lower->max_len;
	fault->lower = lower;
	fault->random = seed ? seed : 1;
	fault->held_list.next = fault->held_list.prev = &fault->held_list;
	pthread_mutex_init(&fault->mu, NULL);
	for (unsigned i = FAULT_SLOTS; i-- > 0;) {
		struct slot *slot = &fault->slots[i];

		slot->fault = fault;
		slot->timer.expired = slot_expired;
		slot->task.run = slot_released;
		slot->next = fault->free;
		fault->free = slot;
	}
	*ret_store = &fault->store;
	return 0;
}

void fault_add(struct store *store, const struct fault_rule *rule)
{
	struct fault *fault = (struct fault *)store;

	assert(rule->err <= 0 && rule->torn_bytes % fault->lower->align == 0);
	assert(rule->err || (rule->kind != FAULT_FAIL && rule->kind != FAULT_TORN));
	pthread_mutex_lock(&fault->mu);
	assert(fault->rule_count < FAULT_RULES_MAX);
	fault->rules[fault->rule_count++] = *rule;
	pthread_mutex_unlock(&fault->mu);
}

void fault_clear(struct store *store)
{
	struct fault *fault = (struct fault *)store;

	pthread_mutex_lock(&fault->mu);
	fault->rule_count = 0;
	pthread_mutex_unlock(&fault->mu);
}

unsigned fault_held(struct store *store)
{
	struct fault *fault = (struct fault *)store;
	unsigned held;

	pthread_mutex_lock(&fault->mu);
	held = fault->held;
	pthread_mutex_unlock(&fault->mu);
	return held;
}

void fault_release(struct store *store, enum fault_order order, unsigned count)
{
	struct fault *fault = (struct fault *)store;
	struct slot *going = NULL, **tail = &going;

	pthread_mutex_lock(&fault->mu);
	if (count == 0 || count > fault->held)
		count = fault->held;
	while (count--) {
		struct slot *slot = fault->held_list.next;
		uint64_t skip = 0;

		if (order == FAULT_LAST_FIRST)
			slot = fault->held_list.prev;
		else if (order == FAULT_SHUFFLED)
			skip = random_locked(fault) % fault->held;
		while (skip--)
			slot = slot->next; /* NOLINT(clang-analyzer-core.NullDereference): a ring */
		unhold_locked(slot);
		slot->state = SLOT_GOING;
		slot->next = NULL;
		*tail = slot;
		tail = &slot->next;
	}
	pthread_mutex_unlock(&fault->mu);
	while (going) {
		struct slot *slot = going;

		going = slot->next;
		loop_post(slot->loop, &slot->task);
	}
}

void fault_count(struct store *store, struct fault_counts *ret_counts)
{
	struct fault *fault = (struct fault *)store;

	pthread_mutex_lock(&fault->mu);
	*ret_counts = fault->counts;
	pthread_mutex_unlock(&fault->mu);
}
