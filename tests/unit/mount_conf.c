/* SPDX-License-Identifier: Apache-2.0
 *
 * The options of a mount: defaults, what mount(8) passes along, what is refused and with which words.
 */
#include "mount/conf.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

static struct mount_conf conf;
static struct err err;

static void setup(void)
{
	mount_conf_init(&conf);
	err = (struct err){0};
}

static void teardown(void)
{
	mount_conf_fini(&conf);
}

static void good(const char *options)
{
	teardown();
	setup();
	ck_assert_msg(!mount_conf_options(&conf, options, &err), "%s: %s", options, err.text);
	ck_assert_msg(!mount_conf_finish(&conf, &err), "%s: %s", options, err.text);
}

static void bad(const char *options, const char *why)
{
	int res;

	teardown();
	setup();
	res = mount_conf_options(&conf, options, &err);
	if (res == 0)
		res = mount_conf_finish(&conf, &err);
	ck_assert_msg(res == -EINVAL, "%s was taken", options);
	ck_assert_msg(strstr(err.text, why), "%s: \"%s\" lacks \"%s\"", options, err.text, why);
}

START_TEST(defaults)
{
	good("");
	ck_assert_ptr_null(conf.swap);
	ck_assert_uint_eq(conf.loop_count, 0);
	ck_assert(!conf.soft && !conf.read_only && !conf.lock_memory && !conf.swap_discard);
	ck_assert_uint_eq(conf.timeo_ms, 30000);
	ck_assert_uint_eq(conf.attr_timeout_ms, 1000);
	ck_assert_uint_eq(conf.max_background, 256);
	ck_assert_uint_eq(conf.read_ahead, 4 << 20);
	ck_assert_uint_eq(conf.spin_us, 30);
	ck_assert_uint_eq(conf.conns, 1);
	ck_assert_uint_eq(conf.swap_prio, MOUNT_PRIO_NONE);
	ck_assert_int_eq(conf.log, LOG_LEVEL_INFO);
	ck_assert_uint_eq(conf.mount_flags, MS_NOSUID | MS_NODEV);
}
END_TEST

START_TEST(swap)
{
	good("swap=swap0,size=4G,prio=0,discard");
	ck_assert_str_eq(conf.swap, "swap0");
	ck_assert_uint_eq(conf.swap_size, 4ull << 30);
	ck_assert_uint_eq(conf.swap_prio, 0);
	ck_assert(conf.swap_discard && conf.lock_memory);
	good("swap=swap0,prio=32767");
	ck_assert_uint_eq(conf.swap_size, 0);
	ck_assert_uint_eq(conf.swap_prio, 32767);
	good("swap=a,size=1M");

	bad("size=4G", "'size' needs swap=NAME");
	bad("prio=1", "'prio' needs swap=NAME");
	bad("discard", "'discard' needs swap=NAME");
	bad("swap=a,size=1M,prio=32768", "prio");
	bad("swap=a,prio=-1", "prio");
	bad("swap=a,size=1048577", "multiple of 4096");
	bad("swap=a,size=1023K", "size");
	bad("swap=a,size=4X", "size");
	bad("swap=a,ro", "exclude");
	bad("swap=a,attach=a", "region 'a'");
	bad("swap=", "swap");
	bad("swap", "swap");
	bad("swap=a/b", "no region can have this name");
	bad("swap=..", "no region can have this name");
	bad("swap=control", "rename the region");
	bad("attach=mount.conf", "rename the region");
}
END_TEST

START_TEST(names)
{
	static char text[POOL_NAME_MAX + 16] = "swap=";

	memset(text + 5, 'n', POOL_NAME_MAX);
	good(text);
	ck_assert_uint_eq(strlen(conf.swap), POOL_NAME_MAX);
	text[5 + POOL_NAME_MAX] = 'n';
	bad(text, "no region can have this name");
	memcpy(text, "loop=", 5);
	bad(text, "no region can have this name");
}
END_TEST

START_TEST(loops)
{
	char text[512] = "";
	unsigned i;

	good("loop=a,attach=b,loop=a,ro");
	ck_assert_uint_eq(conf.loop_count, 2);
	ck_assert_str_eq(conf.loops[0], "a");
	ck_assert_str_eq(conf.loops[1], "b");
	ck_assert(conf.read_only && conf.lock_memory);

	for (i = 0; i < MOUNT_LOOPS_MAX; i++)
		sprintf(text + strlen(text), "loop=r%u,", i);
	good(text);
	ck_assert_uint_eq(conf.loop_count, MOUNT_LOOPS_MAX);
	strcat(text, "loop=more");
	bad(text, "16 times at most");
	bad("loop=", "loop");
}
END_TEST

START_TEST(caches)
{
	good("");
	ck_assert_ptr_null(conf.cache);
	good("cache=memory");
	ck_assert_str_eq(conf.cache, "memory");
	ck_assert_uint_eq(conf.cache_size, 0);
	ck_assert_int_eq(conf.pull, PULL_SEQUENTIAL);
	ck_assert_uint_eq(conf.push_interval_ms, 1000);
	ck_assert_uint_eq(conf.max_dirty, 256 << 20);
	ck_assert_uint_eq(conf.max_dirty_age_ms, 30000);
	ck_assert_int_eq(conf.durability, CACHE_REMOTE);
	good(
	    "cache=/var/cache/r,durability=local,cache_size=1G,pull=all,pull_first=50%,pull_window=4M");
	ck_assert_uint_eq(conf.pull_first_pct, 50);
	ck_assert_uint_eq(conf.pull_first, 0);
	good("cache=memory,pull=all,pull_first=64M,pull_order=0-64M:10+960M-:9,pull_order=1M-2M");
	ck_assert_uint_eq(conf.pull_first, 64 << 20);
	ck_assert_uint_eq(conf.order_count, 3);
	ck_assert_uint_eq(conf.order[1].off, 960 << 20);
	ck_assert_int_eq(conf.order[1].prio, 9);
	ck_assert_uint_eq(conf.order[2].len, 1 << 20);

	bad("pull=all", "'pull' needs cache=memory or cache=DIRECTORY");
	bad("cache=here", "neither 'memory' nor a directory's path");
	bad("cache=memory,nolease", "'cache' and 'shared' exclude each other");
	bad("cache=memory,swap=s,size=1M", "'cache' and 'swap' exclude each other");
	bad("cache=memory,attach=l", "'cache' and 'loop' exclude each other");
	bad("cache=memory,durability=local", "needs cache=DIRECTORY");
	bad("cache=memory,pull_first=1M", "needs pull=all");
	bad("cache=memory,pull=all,pull_first=101%", "neither a size nor");
	bad("cache=memory,pull_order=x", "pull_order");
	bad("cache=memory,cache_size=1M", "cache_size");
}
END_TEST

START_TEST(donor_lost)
{
	good("soft,timeo=500ms");
	ck_assert(conf.soft);
	ck_assert_uint_eq(conf.timeo_ms, 500);
	good("soft,hard");
	ck_assert(!conf.soft);
	bad("timeo=30s", "'timeo' needs 'soft'");
	bad("soft,hard,timeo=30s", "'timeo' needs 'soft'");
	bad("soft,timeo=soon", "timeo");
	bad("soft,timeo=0", "timeo");
}
END_TEST

START_TEST(speed)
{
	good("read_ahead=5000,max_background=1024,spin_us=0,attr_timeout=0,log=debug,mlock");
	ck_assert_uint_eq(conf.read_ahead, 4096);
	ck_assert_uint_eq(conf.max_background, 1024);
	ck_assert_uint_eq(conf.spin_us, 0);
	ck_assert_uint_eq(conf.attr_timeout_ms, 0);
	ck_assert_int_eq(conf.log, LOG_LEVEL_DEBUG);
	ck_assert(conf.lock_memory);
	bad("max_background=0", "max_background");
	bad("max_background=1025", "max_background");
	bad("log=loud", "log");
}
END_TEST

START_TEST(conns)
{
	good("conns=16");
	ck_assert_uint_eq(conf.conns, 16);
	bad("conns=0", "conns");
	bad("conns=17", "conns");
	bad("conns=x", "conns");
	/* What stands in the URI, unless an option says otherwise. */
	teardown();
	setup();
	conf.source.conns = 3;
	ck_assert_int_eq(mount_conf_options(&conf, "ro", &err), 0);
	ck_assert_int_eq(mount_conf_finish(&conf, &err), 0);
	ck_assert_uint_eq(conf.conns, 3);
	teardown();
	setup();
	conf.source.conns = 3;
	ck_assert_int_eq(mount_conf_options(&conf, "conns=1", &err), 0);
	ck_assert_int_eq(mount_conf_finish(&conf, &err), 0);
	ck_assert_uint_eq(conf.conns, 1);
}
END_TEST

/* What mount(8), mount.fuse3 and people's fstab lines add. */
START_TEST(from_mount)
{
	good("rw,_netdev,nofail,noauto,defaults,user,x-systemd.automount,X-mount.mkdir=0755,"
	     "comment=mine,allow_other,default_permissions,fsname=x,subtype=y,uhelper=udisks2");
	ck_assert_uint_eq(conf.mount_flags, MS_NOSUID | MS_NODEV);

	good("ro,noexec,noatime,sync");
	ck_assert(conf.read_only);
	ck_assert_uint_eq(conf.mount_flags,
	    MS_RDONLY | MS_NOEXEC | MS_NOATIME | MS_SYNCHRONOUS | MS_NOSUID | MS_NODEV);
	good("rw,dev,suid");
	ck_assert_uint_eq(conf.mount_flags, 0);
	good("ro,rw");
	ck_assert(!conf.read_only);

	good("context=system_u:object_r:tmp_t:s0,fscontext=b");
	ck_assert_str_eq(conf.lsm_options, "context=system_u:object_r:tmp_t:s0,fscontext=b");
	bad("remount,ro", "unmount, and mount");
}
END_TEST

START_TEST(unknown)
{
	bad("swop=a", "\"swap\"");
	bad("timeout=3", "timeo");
	bad("frobnicate", "frobnicate");
	bad("hard=yes", "hard");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("mount_conf");
	TCase *tc = tcase_create("mount_conf");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, defaults);
	tcase_add_test(tc, swap);
	tcase_add_test(tc, names);
	tcase_add_test(tc, loops);
	tcase_add_test(tc, caches);
	tcase_add_test(tc, donor_lost);
	tcase_add_test(tc, speed);
	tcase_add_test(tc, conns);
	tcase_add_test(tc, from_mount);
	tcase_add_test(tc, unknown);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
