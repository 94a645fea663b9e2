/* SPDX-License-Identifier: Apache-2.0
 *
 * What `remram status` prints of a daemon's answer, and of mounts in trouble.
 */
#include "mount/status.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static struct status status;
static char out[16384];

static const char full[] =
    "{\"source\":\"donor:/ram\",\"mountpoint\":\"/mnt/remote\",\"pid\":1234,\"uptime_s\":11520,"
    "\"connection\":{\"state\":\"connected\",\"peer\":\"10.0.0.2:10819\",\"since_ms\":90000,"
    "\"reconnects\":2,\"rtt_us\":37.4,\"conns\":3,\"conns_up\":2},"
    "\"requests\":{\"read\":{\"count\":12345,\"bytes\":1288490188,\"errors\":1,\"p50_us\":37,"
    "\"p99_us\":90,\"p999_us\":1500},\"write\":{\"count\":0,\"bytes\":0},\"flush\":{\"count\":3}},"
    "\"in_flight\":7,\"regions\":[{\"name\":\"work\",\"size\":1073741824,\"open\":2},"
    "{\"name\":\"swap0\",\"size\":1,\"open\":1}],\"memory\":{\"rss_kb\":12595},"
    "\"fuse\":{\"requests\":1114066,\"nodes\":12},\"tomorrow\":[1,{\"x\":null}]}";

static void setup(void)
{
	memset(&status, 0, sizeof(status));
	strcpy(status.state.dir, "/mnt/remote");
	strcpy(status.state.source, "donor:/ram");
	strcpy(status.run_dir, "/run/remram/mnt-remote");
	status.state.pid = 99;
}

static void teardown(void)
{
	status_fini(&status);
}

static void daemon_says(const char *text)
{
	struct err err;

	ck_assert_msg(!json_parse(text, strlen(text), &status.daemon, &err), "%s", err.text);
}

static void print(void (*how)(const struct status *, FILE *))
{
	FILE *file;

	memset(out, 0, sizeof(out));
	file = fmemopen(out, sizeof(out) - 1, "w");
	how(&status, file);
	fclose(file);
}

static void has(const char *text)
{
	ck_assert_msg(strstr(out, text), "\"%s\" is not in:\n%s", text, out);
}

static void lacks(const char *text)
{
	ck_assert_msg(!strstr(out, text), "\"%s\" is in:\n%s", text, out);
}

START_TEST(live)
{
	daemon_says(full);
	print(status_print);
	has("/mnt/remote: donor:/ram\n");
	has("daemon      process 1234, up 3 h 12 min, 12.3 MiB of memory\n");
	has("donor       connected to 10.0.0.2:10819 for 2 min, 2 reconnects, round trip 37 µs, 2 of 3 connections\n");
	has("requests    7 in flight\n");
	has("    read           12345     1.2 GiB       1    37 µs    90 µs   1.5 ms\n");
	has("    flush              3         0 B       0        -        -        -\n");
	lacks("write ");
	has("region      work, 1.0 GiB, open 2 times\n");
	has("region      swap0, 1 B, open 1 time\n");
	has("kernel      requests 1114066, nodes 12\n");
	/* What is not known is shown as it is. */
	has("tomorrow    [1,{\"x\":null}]\n");
}
END_TEST

/* A mount with a cache. */
START_TEST(cached)
{
	daemon_says(
	    "{\"cache\":{\"dir\":\"/var/cache/r\",\"size\":4294967296,\"resident\":1048576,"
	    "\"max_dirty\":268435456,\"dirty\":4096,\"oldest_dirty_ms\":800,"
	    "\"writers_waiting\":2,\"recovering\":1,\"lost\":3,\"leaving\":true},\"tasks\":0,"
	    "\"pull_first\":{\"total\":1048576,\"left\":524288},\"regions\":["
	    "{\"name\":\"a\",\"size\":1048576,\"open\":1,\"lease\":\"held\",\"state\":\"open\","
	    "\"cache\":{\"resident\":524288,\"dirty\":4096,\"oldest_dirty_ms\":800,"
	    "\"error\":\"No space left on device\"}},"
	    "{\"name\":\"b\",\"size\":8192,\"open\":0,\"lease\":\"none\",\"state\":\"idle\","
	    "\"cache\":{\"resident\":8192,\"dirty\":0,\"error\":\"\"}},"
	    "{\"name\":\"c\",\"open\":0,\"lease\":\"lost\",\"state\":\"lost\","
	    "\"recovering\":true,\"cache\":null}]}");
	print(status_print);
	has("cache       /var/cache/r, 1.0 MiB of 4.0 GiB, 4.0 KiB of 256.0 MiB dirty for 800 ms, "
	    "2 WRITERS WAIT, 1 to be recovered, 3 LOST to other clients, ending\n");
	has("pull_first  512.0 KiB of 1.0 MiB are here\n");
	has("region      a, 1.0 MiB, open 1 time, lease held, 512.0 KiB here, 4.0 KiB dirty for "
	    "800 ms, PUSH FAILS: No space left on device\n");
	has("region      b, 8.0 KiB, idle, all here\n");
	has("region      c, LEASE LOST to another client, lost, being recovered\n");
	lacks("tasks");

	status_fini(&status);
	daemon_says("{\"cache\":{\"dir\":null}}");
	print(status_print);
	has("cache       in memory, 0 B, 0 B dirty\n");
}
END_TEST

START_TEST(sparse)
{
	daemon_says("{}");
	print(status_print);
	ck_assert_str_eq(out, "/mnt/remote: donor:/ram\n  daemon      process 99\n");

	/* Members of other types than expected harm nothing. */
	status_fini(&status);
	daemon_says("{\"pid\":\"x\",\"uptime_s\":[],\"connection\":3,\"requests\":[1,\"a\",{}],"
		    "\"regions\":{\"a\":1},\"memory\":null}");
	print(status_print);
	has("process 99");

	status_fini(&status);
	daemon_says("{\"uptime_s\":3}");
	print(status_print);
	has("up 3 s\n");

	status_fini(&status);
	daemon_says("{\"connection\":{\"state\":\"waiting\",\"peer\":\"h:1\",\"since_ms\":4000}}");
	print(status_print);
	has("donor       LOST, requests wait: h:1 for 4.0 s\n");

	status_fini(&status);
	daemon_says("{\"connection\":{\"state\":\"failed\",\"peer\":\"h:1\",\"since_ms\":4000}}");
	print(status_print);
	has("donor       GIVEN UP, all requests fail: h:1 for 4.0 s\n");
}
END_TEST

START_TEST(trouble)
{
	status.health = STATUS_SILENT;
	strcpy(status.trouble, "no answer within 2000 ms");
	print(status_print);
	has("process 99 DOES NOT ANSWER: no answer within 2000 ms\n");
	status.health = STATUS_DEAD;
	print(status_print);
	has("DEAD (it was process 99): `umount /mnt/remote` cleans up\n");
	status.health = STATUS_GONE;
	print(status_print);
	has("NOT MOUNTED any more");
}
END_TEST

START_TEST(devices)
{
	daemon_says(full);
	status.state.device_count = 2;
	strcpy(status.state.devices[0].region, "work");
	strcpy(status.state.devices[0].device, "/dev/loop1048575"); /* never attached */
	strcpy(status.state.devices[1].region, "swap0");
	status.state.devices[1].swap = true;
	print(status_print);
	has("loop        work on /dev/loop1048575: NOT ATTACHED\n");
	has("swap        swap0 on no device: NOT ATTACHED\n");
	lacks("region "); /* they have their own lines */
}
END_TEST

START_TEST(as_json)
{
	struct json *doc;
	struct err err;

	daemon_says(full);
	strcpy(status.state.dir, "/mnt/\"\xff");
	status.state.device_count = 1;
	strcpy(status.state.devices[0].region, "work");
	print(status_print_json);
	ck_assert_msg(!json_parse(out, strlen(out), &doc, &err), "%s in %s", err.text, out);
	ck_assert_str_eq(json_string(json_find(doc, "mountpoint"), ""), "/mnt/\"\xef\xbf\xbd");
	ck_assert_str_eq(json_string(json_find(doc, "state"), ""), "live");
	ck_assert_str_eq(json_string(json_find(doc, "run_dir"), ""), "/run/remram/mnt-remote");
	ck_assert_double_eq(json_number(json_find(doc, "daemon.requests.read.count"), 0), 12345);
	ck_assert_str_eq(
	    json_string(json_find(json_first(json_find(doc, "devices")), "region"), ""), "work");
	ck_assert_int_eq(
	    json_type(json_find(json_first(json_find(doc, "devices")), "attached")), JSON_FALSE);
	json_destroy(doc);

	status_fini(&status);
	status.health = STATUS_DEAD;
	print(status_print_json);
	ck_assert_int_eq(json_parse(out, strlen(out), &doc, &err), 0);
	ck_assert_int_eq(json_type(json_find(doc, "daemon")), JSON_NULL);
	ck_assert_str_eq(json_string(json_find(doc, "state"), ""), "dead");
	json_destroy(doc);
}
END_TEST

START_TEST(times)
{
	static const struct {
		double us;
		const char *text;
	} pairs[] = {{0, "0 s"}, {1, "1 µs"}, {999, "999 µs"}, {1500, "1.5 ms"}, {25000, "25 ms"},
	    {1.2e6, "1.2 s"}, {59e6, "59 s"}, {61e6, "1 min"}, {3599e6, "60 min"},
	    {3600e6, "1 h 0 min"}, {86400e6 * 3, "3 days"}};
	char buf[STATUS_TIME_MAX];
	unsigned i;

	for (i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
		ck_assert_str_eq(status_time(pairs[i].us, buf), pairs[i].text);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("status");
	TCase *tc = tcase_create("status");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, live);
	tcase_add_test(tc, cached);
	tcase_add_test(tc, sparse);
	tcase_add_test(tc, trouble);
	tcase_add_test(tc, devices);
	tcase_add_test(tc, as_json);
	tcase_add_test(tc, times);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
