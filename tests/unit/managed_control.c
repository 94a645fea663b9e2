/* SPDX-License-Identifier: Apache-2.0
 *
 * What the control socket of a mount with a cache answers: requests as text against a managed pool over a
 * pool of this process.
 */
#include "mount/managed_control.h"

#include <check.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "core/managed.h"
#include "mount/control.h"
#include "mount/json.h"
#include "mount/managed_json.h"
#include "tests/lib/serve.h"

enum { MIB = 1 << 20, POOL_SIZE = 64 * MIB, WAIT_TRIES = 1000, WAIT_US = 10000 };

static struct rig rig;
static struct serve serve;
static struct client lower, top;
static struct managed_conf conf;
static struct managed_control *mc;
static uint8_t data[MIB];
static char answer[CONTROL_ANSWER_MAX];
static struct json *doc;

/* ---- on the loop ------------------------------------------------------------------------------- */

static void make(void *ctx)
{
	struct err err;

	ck_assert_msg(managed_create(&conf, &top.pool, &err) == 0, "%s", err.text);
	ck_assert_int_eq(managed_control_create(lower.loop, top.pool, &mc, &err), 0);
}

static _Atomic bool left;

static void leave_done(void *ctx)
{
	left = true;
}

static void leave(void *ctx)
{
	managed_control_stop(mc);
	managed_leave(top.pool, leave_done, NULL);
}

static void destroy(void *ctx)
{
	pool_destroy(top.pool);
	managed_control_destroy(mc);
}

static void ask_now(void *ctx)
{
	size_t len = managed_control_answer(mc, ctx, answer, sizeof(answer) - 1);

	answer[len] = '\0';
}

struct asked {
	void (*put)(struct text *text, const struct pool *pool);
};

static void put_regions(struct text *text, const struct pool *pool)
{
	managed_json_regions(text, pool, 100);
}

static void put_now(void *ctx)
{
	struct text text = {.buf = answer, .room = sizeof(answer)};

	((struct asked *)ctx)->put(&text, top.pool);
}

/* ---- asking ------------------------------------------------------------------------------------ */

static const char *ask(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static const char *ask(const char *fmt, ...)
{
	char line[CONTROL_LINE_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	rig_call(lower.loop, ask_now, line);
	return answer;
}

/* The last answer as JSON, until the next one. */
static const struct json *parsed(void)
{
	struct err err;

	json_destroy(doc);
	doc = NULL;
	ck_assert_msg(
	    json_parse(answer, strlen(answer), &doc, &err) == 0, "%s: %s", err.text, answer);
	return doc;
}

static double number(const char *path)
{
	const struct json *value = json_find(doc, path);

	ck_assert_msg(value != NULL, "no %s in %s", path, answer);
	return json_number(value, -1);
}

/* The first region of the status. */
static const struct json *region(void)
{
	struct asked asked = {put_regions};

	rig_call(lower.loop, put_now, &asked);
	return json_first(parsed());
}

static double of_region(const char *path)
{
	return json_number(json_find(region(), path), -1);
}

static void setup(void)
{
	log_set_level(LOG_LEVEL_ERROR);
	rig_start(&rig, 1, 2);
	serve_start(&serve, POOL_SIZE);
	lower = (struct client){.loop = rig.loops[0], .pool = serve.pools[0], .session = 7};
	top = lower;
	conf = (struct managed_conf){.session = 7,
	    .loop = lower.loop,
	    .lower = lower.pool,
	    .workers = rig.workers,
	    .pull = PULL_NONE,
	    .push_interval_ms = 3600000};
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + i / 4096 + 1);
	rig_call(lower.loop, make, NULL);
}

static void teardown(void)
{
	left = false;
	rig_call(top.loop, leave, NULL);
	for (unsigned i = 0; i < WAIT_TRIES && !left; i++)
		usleep(WAIT_US);
	ck_assert(left);
	rig_call(top.loop, destroy, NULL);
	json_destroy(doc);
	doc = NULL;
	serve_stop(&serve);
	rig_stop(&rig);
}

/* A region of 1 MiB that has data at the donor and a cache here, which is empty; open. */
static struct handle *with_region(uint64_t *ret_id)
{
	struct pool_req req = {.op = POOL_LOOKUP, .name = "a"};
	struct handle *handle = client_create(&lower, "a");

	ck_assert_int_eq(rig_write(lower.loop, &handle->store, 0, data, MIB, 0), 0);
	client_close_handle(&lower, handle);
	ck_assert_int_eq(client_ask(&top, &req), 0);
	*ret_id = req.attr.id;
	req = (struct pool_req){.op = POOL_OPEN, .id = *ret_id, .flags = POOL_READ | POOL_WRITE};
	ck_assert_int_eq(client_ask(&top, &req), 0);
	return req.ret_handle;
}

/* Waits for a task to end: the error number that it ended with; doc is the last answer. */
static int task_result(void)
{
	unsigned task;

	ck_assert_msg(sscanf(answer, "ok %u", &task) == 1, "%s", answer);
	for (unsigned i = 0; i < WAIT_TRIES; i++) {
		ask("task %u", task);
		if (!strcmp(json_string(json_find(parsed(), "state"), ""), "done")) {
			int result = (int)number("errno");

			/* It is told once. */
			ck_assert_str_eq(ask("task %u", task) + strlen("error: there is no task "),
			    strrchr(answer, ' ') + 1);
			return result;
		}
		usleep(WAIT_US);
	}
	ck_abort_msg("task %u does not end", task);
	return -1;
}

START_TEST(pulling_and_evicting)
{
	uint64_t id;
	struct handle *handle = with_region(&id);

	ck_assert_double_eq(of_region("cache.resident"), 0);
	ask("pull %llu 64K-128K:3,512K-", (unsigned long long)id);
	ck_assert_int_eq(task_result(), 0);
	ck_assert_double_eq(of_region("cache.resident"), 9 * 65536);
	ck_assert_double_eq(of_region("cache.fetched"), 9 * 65536);
	ask("map %llu 16", (unsigned long long)id);
	ck_assert_str_eq(strstr(ask("map %llu 16", (unsigned long long)id), "["),
	    "[[0,0,0],[1000,0,0],[0,0,0],[0,0,0],[0,0,0],[0,0,0],[0,0,0],[0,0,0],[1000,0,0],[1000,0,0],"
	    "[1000,0,0],[1000,0,0],[1000,0,0],[1000,0,0],[1000,0,0],[1000,0,0]]}");
	/* Whole chunks of 256 KiB go. */
	ask("evict %llu 0-", (unsigned long long)id);
	parsed();
	ck_assert_double_eq(number("bytes"), 9 * 65536);
	ck_assert_double_eq(of_region("cache.resident"), 0);
	client_close_handle(&top, handle);
}
END_TEST

START_TEST(keeping)
{
	uint64_t id;
	struct handle *handle = with_region(&id);

	ask("pull %llu 0-", (unsigned long long)id);
	ck_assert_int_eq(task_result(), 0);
	/* More cells than blocks: each shows something. */
	ck_assert_ptr_null(strstr(ask("map %llu 4096", (unsigned long long)id), "[0,"));
	ck_assert_ptr_nonnull(strstr(answer, "[[1000,0,0],"));
	ck_assert_str_eq(ask("keep %llu 0-1", (unsigned long long)id), "ok");
	ask("evict %llu 0-", (unsigned long long)id);
	parsed();
	ck_assert_double_eq(number("bytes"), 3 * 262144);
	ck_assert_str_eq(ask("unkeep %llu 0-1", (unsigned long long)id), "ok");
	ask("evict %llu 0-", (unsigned long long)id);
	parsed();
	ck_assert_double_eq(number("bytes"), 262144);
	client_close_handle(&top, handle);
}
END_TEST

START_TEST(pushing)
{
	uint64_t id;
	struct handle *handle = with_region(&id), *other;
	uint8_t back[4096];
	struct pool_req req;

	ck_assert_int_eq(rig_write(top.loop, &handle->store, 8192, data, 4096, 0), 0);
	ck_assert_double_eq(of_region("cache.dirty"), 4096);
	ck_assert_str_eq(strstr(ask("map %llu 4", (unsigned long long)id), "["),
	    "[[15,15,0],[0,0,0],[0,0,0],[0,0,0]]}");
	ask("push %llu 0-", (unsigned long long)id);
	ck_assert_int_eq(task_result(), 0);
	ck_assert_double_eq(of_region("cache.dirty"), 0);
	req = (struct pool_req){.op = POOL_OPEN, .id = id, .flags = POOL_READ};
	ck_assert_int_eq(client_ask(&lower, &req), 0);
	other = req.ret_handle;
	ck_assert_int_eq(rig_read(lower.loop, &other->store, 8192, back, 4096), 0);
	ck_assert_int_eq(memcmp(back, data, 4096), 0);
	client_close_handle(&lower, other);
	client_close_handle(&top, handle);
	/* What is not kept here has nothing to push; it can't be pulled either. */
	ask("push 4711 0-");
	ck_assert_int_eq(task_result(), 0);
	ask("pull 4711 0-");
	ck_assert_int_eq(task_result(), ESTALE);
}
END_TEST

START_TEST(runs)
{
	uint64_t id;
	struct handle *handle = with_region(&id);
	unsigned long long ids = id;

	ask("pull %llu 64K-128K", ids);
	ck_assert_int_eq(task_result(), 0);
	ck_assert_int_eq(rig_write(top.loop, &handle->store, 512 * 1024, data, 5000, 0), 0);
	ck_assert_str_eq(strstr(ask("runs %llu 0 %u", ids, MIB), "["),
	    "[[65536,0,0],[65536,1,0],[393216,0,0],[8192,1,1],[516096,0,0]]}");
	parsed();
	ck_assert_uint_eq(json_u64(json_find(doc, "id"), 0), id);
	ck_assert_str_eq(strstr(ask("runs %llu 70000 100", ids), "["), "[[100,1,0]]}");
	ck_assert_str_eq(strstr(ask("runs %llu 1048570 1000", ids), "["), "[[6,0,0]]}");
	ck_assert_str_eq(strstr(ask("runs %llu 1048576 1", ids), "["), "[]}");
	client_close_handle(&top, handle);
}
END_TEST

START_TEST(recording)
{
	uint64_t id;
	struct handle *handle = with_region(&id);
	struct pool_req req;
	uint8_t back[4096];

	ck_assert_str_eq(
	    ask("recorded %llu 0", (unsigned long long)id), "error: nothing was recorded");
	ck_assert_str_eq(ask("record %llu on", (unsigned long long)id), "ok");
	ck_assert(json_type(json_find(region(), "recording")) == JSON_TRUE);
	req = (struct pool_req){.op = POOL_OPEN, .id = id, .flags = POOL_READ};
	ck_assert_int_eq(client_ask(&top, &req), 0);
	ck_assert_int_eq(rig_read(top.loop, &req.ret_handle->store, 512 * 1024, back, 4096), 0);
	ck_assert_int_eq(rig_read(top.loop, &req.ret_handle->store, 0, back, 4096), 0);
	client_close_handle(&top, req.ret_handle);
	ck_assert_str_eq(ask("record %llu off", (unsigned long long)id), "ok");
	ask("recorded %llu 0", (unsigned long long)id);
	parsed();
	ck_assert_double_eq(number("count"), 2);
	ck_assert_double_eq(number("next"), 2);
	ck_assert_int_eq(strncmp(json_string(json_find(doc, "order"), ""), "512K-", 5), 0);
	ask("recorded %llu 1", (unsigned long long)id);
	parsed();
	ck_assert_int_eq(strncmp(json_string(json_find(doc, "order"), ""), "0-", 2), 0);
	ask("recorded %llu 2", (unsigned long long)id);
	parsed();
	ck_assert_str_eq(json_string(json_find(doc, "order"), "x"), "");
	client_close_handle(&top, handle);
}
END_TEST

START_TEST(many_tasks)
{
	unsigned long long ids;
	uint64_t id;
	struct handle *handle = with_region(&id);
	unsigned tasks[MANAGED_CONTROL_TASKS];

	ids = id;
	for (unsigned i = 0; i < MANAGED_CONTROL_TASKS; i++)
		ck_assert_int_eq(sscanf(ask("pull %llu 0-4K,4K-8K", ids), "ok %u", &tasks[i]), 1);
	/* Also those that have ended wait to be asked about. */
	ck_assert_ptr_nonnull(strstr(ask("pull %llu 0-", ids), "at work here already"));
	ck_assert_str_eq(ask("cancel %u", tasks[3]), "ok");
	for (unsigned i = 0; i < MANAGED_CONTROL_TASKS; i++) {
		snprintf(answer, sizeof(answer), "ok %u", tasks[i]);
		ck_assert_int_eq(task_result() & ~(i == 3 ? ECANCELED : 0), 0);
		ck_assert_double_le(number("left"), number("total"));
	}
	ck_assert_int_eq(strncmp(ask("pull %llu 0-", ids), "ok ", 3), 0);
	ck_assert_int_eq(task_result(), 0);
	client_close_handle(&top, handle);
}
END_TEST

START_TEST(mistakes)
{
	static const char *const lines[] = {"pull ", "pull x 0-", "pull 7 ", "pull 7 x",
	    "pull 7 0-1,", "push 7", "map 7 0", "map 7 4097", "map 7 4x", "map 7 8", "runs 7",
	    "runs 7 0", "runs 7 0 1", "runs 7 0 1x", "task 0", "task x", "task 99", "cancel 99",
	    "keep 7 0-", "record 7 perhaps", "record 7 on", "recorded 7 x", "recorded 7 0",
	    "evict 7"};
	char long_line[CONTROL_LINE_MAX] = "pull 7 0-1";

	for (unsigned i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		ask("%s", lines[i]);
		ck_assert_msg(!strncmp(answer, "error: ", 7), "%s → %s", lines[i], answer);
	}
	for (unsigned i = 0; i < MANAGED_CONTROL_RANGES; i++)
		strcat(long_line, ",0-1");
	ck_assert_ptr_nonnull(strstr(ask("%s", long_line), "more than"));
	ck_assert_str_eq(ask("dance"), "");
	ck_assert_str_eq(ask("pull"), "");
	/* What has no cache has nothing to give back. */
	ck_assert_str_eq(ask("evict 7 0-"), "{\"bytes\":0}");
}
END_TEST

START_TEST(status)
{
	struct asked asked = {managed_json_cache};
	struct text tight = {.buf = answer, .room = 2000};
	uint64_t id;
	struct handle *handle = with_region(&id);

	rig_call(lower.loop, put_now, &asked);
	parsed();
	ck_assert_int_eq(json_type(json_find(doc, "dir")), JSON_NULL);
	ck_assert_double_eq(number("regions"), 1);
	ck_assert_int_eq(json_type(json_find(doc, "leaving")), JSON_FALSE);
	ck_assert_str_eq(json_string(json_find(region(), "name"), ""), "a");
	ck_assert_str_eq(json_string(json_find(region(), "state"), ""), "open");
	ck_assert_str_eq(json_string(json_find(region(), "lease"), ""), "held");
	ck_assert_str_eq(json_string(json_find(region(), "durability"), ""), "remote");
	ck_assert_double_eq(of_region("size"), MIB);
	ck_assert_double_eq(of_region("open"), 1);
	ck_assert_uint_eq(json_u64(json_find(region(), "id"), 0), id);
	ck_assert_str_eq(json_string(json_find(region(), "cache.pull"), ""), "none");
	/* A region that does not fit is left out whole. */
	put_regions(&tight, top.pool);
	ck_assert_str_eq(answer, "[]");
	client_close_handle(&top, handle);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("managed_control");
	TCase *tc = tcase_create("all");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 30);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, pulling_and_evicting);
	tcase_add_test(tc, keeping);
	tcase_add_test(tc, pushing);
	tcase_add_test(tc, runs);
	tcase_add_test(tc, recording);
	tcase_add_test(tc, many_tasks);
	tcase_add_test(tc, mistakes);
	tcase_add_test(tc, status);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
