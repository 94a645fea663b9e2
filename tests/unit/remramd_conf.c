/* SPDX-License-Identifier: Apache-2.0
 *
 * The donor daemon's settings: defaults, command line, file, both; every refusal with its words; the
 * example file.
 */
#include "export/conf.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POOL "--pool ram=memory: "

static struct remramd_conf conf;
static struct err err;
static char path[40];

static void setup(void)
{
	int fd;

	strcpy(path, "/tmp/remramd-conf-XXXXXX");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	close(fd);
}

static void teardown(void)
{
	remramd_conf_fini(&conf);
	unlink(path);
}

/* Reads words, split at spaces, with file_text as the default file (NULL: there is none). */
static int read_conf(const char *words, const char *file_text)
{
	static char copy[2000];
	char *argv[64] = {"remramd"}, *rest = copy, *word;
	int argc = 1;

	remramd_conf_fini(&conf);
	unlink(path);
	if (file_text) {
		FILE *out = fopen(path, "w");
		fputs(file_text, out);
		fclose(out);
	}
	snprintf(copy, sizeof(copy), "%s", words);
	while ((word = strsep(&rest, " ")))
		if (*word)
			argv[argc++] = word;
	err = (struct err){0};
	return remramd_conf_read(&conf, argc, argv, path, &err);
}

static void good(const char *words, const char *file_text)
{
	ck_assert_msg(!read_conf(words, file_text), "%s", err.text);
}

/* want: all of the message. */
static void bad(const char *words, const char *want)
{
	ck_assert_int_eq(read_conf(words, NULL), -EINVAL);
	ck_assert_str_eq(err.text, want);
}

/* want: what stands behind the name of the file. */
static void bad_file(const char *file_text, const char *want)
{
	ck_assert_int_eq(read_conf("", file_text), -EINVAL);
	ck_assert_int_eq(strncmp(err.text, path, strlen(path)), 0);
	ck_assert_str_eq(err.text + strlen(path), want);
}

static void host_is(const struct address *address, const char *host, unsigned port)
{
	const struct sockaddr_in *in4 = (const struct sockaddr_in *)&address->addr;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&address->addr;
	char text[INET6_ADDRSTRLEN];

	if (address->addr.ss_family == AF_INET) {
		ck_assert_ptr_nonnull(inet_ntop(AF_INET, &in4->sin_addr, text, sizeof(text)));
		ck_assert_uint_eq(ntohs(in4->sin_port), port);
		ck_assert_uint_eq(address->addr_len, sizeof(*in4));
	} else {
		ck_assert_int_eq(address->addr.ss_family, AF_INET6);
		ck_assert_ptr_nonnull(inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text)));
		ck_assert_uint_eq(ntohs(in6->sin6_port), port);
		ck_assert_uint_eq(address->addr_len, sizeof(*in6));
	}
	ck_assert_str_eq(text, host);
}

static void address_is(unsigned idx, const char *host, unsigned port)
{
	ck_assert_uint_lt(idx, conf.listen_count);
	host_is(&conf.listen[idx], host, port);
}

START_TEST(defaults)
{
	cpu_set_t set;

	good(POOL, NULL);
	ck_assert_uint_eq(conf.pool_count, 1);
	ck_assert_str_eq(conf.pools[0].name, "ram");
	ck_assert_str_eq(conf.pools[0].uri, "memory:");
	ck_assert_uint_eq(conf.listen_count, 1);
	address_is(0, "127.0.0.1", 10819);
	ck_assert_str_eq(conf.listen[0].text, "127.0.0.1:10819");
	ck_assert_str_eq(conf.state, "/var/lib/remram");
	ck_assert_int_eq(conf.log, LOG_LEVEL_INFO);
	ck_assert_int_eq(sched_getaffinity(0, sizeof(set), &set), 0);
	ck_assert_uint_eq(conf.threads, CPU_COUNT(&set));
	ck_assert_uint_eq(conf.workers, 4);
	ck_assert_uint_eq(conf.spin_us, 30);
	ck_assert_int_eq(conf.ready_fd, 0);
	ck_assert(!conf.insecure && !conf.help && !conf.version);
}
END_TEST

START_TEST(command_line)
{
	good("--pool a-b_c.9=memory:?size=8G --pool Disk=file:/srv/p=q --listen 127.0.0.5:1 "
	     "--listen=[::1]:65535 --state /s --insecure --log debug --ready-fd 7 --threads 3 "
	     "--workers 9 "
	     "--spin-us 0",
	    NULL);
	ck_assert_uint_eq(conf.pool_count, 2);
	ck_assert_str_eq(conf.pools[0].name, "a-b_c.9");
	ck_assert_str_eq(conf.pools[0].uri, "memory:?size=8G");
	ck_assert_str_eq(conf.pools[1].name, "Disk");
	ck_assert_str_eq(conf.pools[1].uri, "file:/srv/p=q");
	ck_assert_uint_eq(conf.listen_count, 2);
	address_is(0, "127.0.0.5", 1);
	address_is(1, "::1", 65535);
	ck_assert_str_eq(conf.state, "/s");
	ck_assert(conf.insecure);
	ck_assert_int_eq(conf.log, LOG_LEVEL_DEBUG);
	ck_assert_int_eq(conf.ready_fd, 7);
	ck_assert_uint_eq(conf.threads, 3);
	ck_assert_uint_eq(conf.workers, 9);
	ck_assert_uint_eq(conf.spin_us, 0);
}
END_TEST

START_TEST(file)
{
	good("", "listen = 127.0.0.1:1\n"
		 "listen = 127.0.0.1:2\n"
		 "state = /s\n"
		 "insecure = yes\n"
		 "threads = 1\n"
		 "workers = 1\n"
		 "spin_us = 1\n"
		 "log = error\n"
		 "pool = one=memory:\n"
		 "[pool two]\n"
		 "uri = file:/x?y=z\n"
		 "[pool three]\n"
		 "uri = memory:\n");
	ck_assert_uint_eq(conf.pool_count, 3);
	ck_assert_str_eq(conf.pools[0].name, "one");
	ck_assert_str_eq(conf.pools[1].name, "two");
	ck_assert_str_eq(conf.pools[1].uri, "file:/x?y=z");
	ck_assert_str_eq(conf.pools[2].name, "three");
	ck_assert_uint_eq(conf.listen_count, 2);
	address_is(1, "127.0.0.1", 2);
	ck_assert_str_eq(conf.state, "/s");
	ck_assert(conf.insecure);
	ck_assert_int_eq(conf.log, LOG_LEVEL_ERROR);
	ck_assert_uint_eq(conf.threads, 1);
	ck_assert_uint_eq(conf.workers, 1);
	ck_assert_uint_eq(conf.spin_us, 1);
}
END_TEST

START_TEST(command_line_wins)
{
	static const char text[] = "listen = 127.0.0.1:1\nstate = /s\nspin_us = 1\ninsecure = yes\n"
				   "pool = one=memory:\n[pool two]\nuri = memory:\n";

	good("--pool three=memory: --listen 127.0.0.1:9 --state /t --insecure=no", text);
	ck_assert_uint_eq(conf.pool_count, 1);
	ck_assert_str_eq(conf.pools[0].name, "three");
	ck_assert_uint_eq(conf.listen_count, 1);
	address_is(0, "127.0.0.1", 9);
	ck_assert_str_eq(conf.state, "/t");
	ck_assert_uint_eq(conf.spin_us, 1);
	ck_assert(!conf.insecure);
	good("--workers 2", text);
	ck_assert_uint_eq(conf.pool_count, 2);
	ck_assert_uint_eq(conf.workers, 2);
	ck_assert(conf.insecure);
}
END_TEST

START_TEST(which_file)
{
	char words[100];

	/* A file that is named must exist, and then the default one is not read. */
	ck_assert_int_eq(read_conf(POOL "--config /nonexistent/file", "state = /s\n"), -ENOENT);
	ck_assert_str_eq(err.text, "cannot open /nonexistent/file: No such file or directory");
	good(POOL "--config /dev/null", "state = /s\n");
	ck_assert_str_eq(conf.state, "/var/lib/remram");
	snprintf(words, sizeof(words), POOL "--config=%s", path);
	good(words, "state = /s\n");
	ck_assert_str_eq(conf.state, "/s");
}
END_TEST

START_TEST(help_and_version)
{
	good("--help", "nonsense\n");
	ck_assert(conf.help);
	good("-V", NULL);
	ck_assert(conf.version);
}
END_TEST

START_TEST(help_text)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	remramd_conf_print_help(out);
	fclose(out);
	ck_assert_ptr_nonnull(strstr(text, "\n  --pool NAME=URI         a pool"));
	ck_assert_ptr_nonnull(strstr(text, "default 127.0.0.1:10819)"));
	ck_assert_ptr_nonnull(strstr(text, "\n  --spin-us N "));
	ck_assert_ptr_nonnull(strstr(text, "(0 to 10000 µs; default 30)"));
	ck_assert_ptr_nonnull(strstr(
	    text, "(0 to 64; default\n                          0: one for each processor)"));
	ck_assert_ptr_nonnull(strstr(text, "(default /etc/remram/remramd.conf, if there is"));
	free(text);
}
END_TEST

START_TEST(good_addresses)
{
	bool four = false;

	good(POOL "--listen localhost:5", NULL);
	for (unsigned i = 0; i < conf.listen_count; i++)
		four = four || conf.listen[i].addr.ss_family == AF_INET;
	ck_assert(four);
	ck_assert_str_eq(conf.listen[0].text, "localhost:5");
	/* The port may be left out; the same address twice is one. */
	good(POOL "--listen 127.0.0.1 --listen [::1] --listen 127.0.0.1:10819 --listen 127.0.0.1:1",
	    NULL);
	ck_assert_uint_eq(conf.listen_count, 3);
	address_is(0, "127.0.0.1", 10819);
	address_is(1, "::1", 10819);
	address_is(2, "127.0.0.1", 1);
	good(POOL "--nbd 127.0.0.1 --nbd [::1] --nbd unix:/run/nbd --nbd 127.0.0.1:1", NULL);
	ck_assert_uint_eq(conf.nbd_count, 4);
	host_is(&conf.nbd[0], "127.0.0.1", 10809);
	host_is(&conf.nbd[1], "::1", 10809);
	ck_assert_int_eq(conf.nbd[2].addr.ss_family, AF_UNIX);
	host_is(&conf.nbd[3], "127.0.0.1", 1);
	good(POOL "--listen [::ffff:127.0.0.1]:7", NULL);
	good(POOL "--insecure --listen 0.0.0.0:7 --listen [::]:7 --listen 192.0.2.1:7", NULL);
	ck_assert_uint_eq(conf.listen_count, 3);
	address_is(2, "192.0.2.1", 7);
}
END_TEST

START_TEST(insecure_addresses)
{
	static const char *const addresses[] = {"0.0.0.0:7", "[::]:7", "192.0.2.1:7", "128.0.0.1:7",
	    "126.255.255.255:7", "[::ffff:10.0.0.1]:7", "[2001:db8::1]:7", "[::2]:7"};
	char words[100];

	for (unsigned i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
		snprintf(
		    words, sizeof(words), POOL "--listen 127.0.0.1:1 --listen %s", addresses[i]);
		ck_assert_int_eq(read_conf(words, NULL), -EINVAL);
		ck_assert_ptr_nonnull(strstr(err.text, addresses[i]));
		ck_assert_ptr_nonnull(strstr(err.text, " is not a loopback address"));
		ck_assert_ptr_nonnull(strstr(err.text, "--insecure (in the file: insecure = yes)"));
	}
	ck_assert_int_eq(read_conf(POOL, "listen = 0.0.0.0:7\n"), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, " is not a loopback address"));
}
END_TEST

START_TEST(bad_addresses)
{
	char words[600], name[400];

	bad(POOL "--listen ::1", "--listen: \"::1\": an IPv6 address must stand in brackets, as in "
				 "[::1]:10819");
	bad(POOL "--listen [::1", "--listen: \"[::1\": the ']' is missing");
	bad(POOL "--listen [::1]5",
	    "--listen: \"[::1]5\" is not ADDR:PORT: the port is a number from 1 "
	    "to 65535");
	bad(POOL "--listen [1.2.3.4]:5",
	    "--listen: \"[1.2.3.4]:5\": \"1.2.3.4\" is not an IPv6 address");
	bad(POOL "--listen :5",
	    "--listen: \":5\" has no address before the port (all addresses are "
	    "0.0.0.0 or [::])");
	bad(POOL "--listen=",
	    "--listen: \"\" has no address before the port (all addresses are 0.0.0.0 "
	    "or [::])");
	bad(POOL "--listen a:0",
	    "--listen: \"a:0\" is not ADDR:PORT: the port is a number from 1 to "
	    "65535");
	bad(POOL "--listen a:65536",
	    "--listen: \"a:65536\" is not ADDR:PORT: the port is a number from "
	    "1 to 65535");
	bad(POOL "--listen a:",
	    "--listen: \"a:\" is not ADDR:PORT: the port is a number from 1 to 65535");
	bad(POOL "--listen a:5x",
	    "--listen: \"a:5x\" is not ADDR:PORT: the port is a number from 1 to "
	    "65535");
	memset(name, 'a', sizeof(name));
	name[300] = '\0';
	snprintf(words, sizeof(words), POOL "--listen %s:5", name);
	ck_assert_int_eq(read_conf(words, NULL), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "the host name is too long"));
	ck_assert_int_eq(read_conf(POOL "--listen no_such_host.invalid:5", NULL), -EINVAL);
	ck_assert_ptr_nonnull(
	    strstr(err.text, "listen address no_such_host.invalid:5: cannot find the "
			     "address of \"no_such_host.invalid\": "));
}
END_TEST

START_TEST(pools)
{
	char words[200], name[80];

	ck_assert_int_eq(read_conf("", NULL), -EINVAL);
	ck_assert_ptr_nonnull(
	    strstr(err.text, "there is no pool to offer: give one, for example --pool "
			     "'ram=memory:?size=1G', or write it into /tmp/"));
	bad("--pool memory:?size=1G", "--pool: \"memory:?size=1G\" is not NAME=URI, as in "
				      "ram=memory:?size=1G or disk=file:/srv/pool");
	bad("--pool ram", "--pool: \"ram\" is not NAME=URI, as in ram=memory:?size=1G or "
			  "disk=file:/srv/pool");
	bad("--pool =memory:", "--pool: a pool needs a name");
	bad("--pool .a=memory:", "--pool: pool name \".a\" begins with a '.'");
	bad("--pool a/b=memory:",
	    "--pool: pool name \"a/b\" has other characters than letters, digits, "
	    "'.', '_' and '-'");
	bad("--pool a=/srv/pool",
	    "--pool: \"/srv/pool\" does not begin with a kind of place and a colon, "
	    "as in memory:?size=1G or file:/srv/pool");
	bad("--pool a=nbd://h:x/", "--pool: nbd://h:x/: \"x\" is not a port (1 to 65535)");
	bad("--pool a=memory: --pool b=memory: --pool a=file:/x",
	    "pool \"a\" is given twice: as memory: and file:/x");
	memset(name, 'n', sizeof(name));
	name[64] = '\0';
	snprintf(words, sizeof(words), "--pool %s=memory:", name);
	good(words, NULL);
	name[64] = 'n';
	name[65] = '\0';
	snprintf(words, sizeof(words), "--pool %s=memory:", name);
	ck_assert_int_eq(read_conf(words, NULL), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "is longer than 64 bytes"));
}
END_TEST

START_TEST(bad_options)
{
	bad(POOL "--pol a=b:", "unknown option \"--pol\": did you mean \"--pool\"?");
	bad(POOL "--unsecure", "unknown option \"--unsecure\": did you mean \"--insecure\"?");
	bad(POOL "-x", "unknown option \"-x\"");
	bad(POOL "stray", "unexpected argument \"stray\"");
	bad(POOL "--listen", "--listen needs a value: ADDR:PORT");
	bad(POOL "--insecure=perhaps", "--insecure: \"perhaps\" is neither yes nor no (yes or no)");
	bad(POOL "--state=", "--state: \"\" is too short (at least 1 byte)");
	bad(POOL "--config=", "--config: \"\" is too short (at least 1 byte)");
	bad(POOL "--log loud", "--log: \"loud\" is none of the choices (error, warn, info, debug)");
	bad(POOL "--threads 65", "--threads: \"65\" is too large (0 to 64)");
	bad(POOL "--threads -1", "--threads: \"-1\" is not a number (0 to 64)");
	bad(POOL "--workers 0", "--workers: \"0\" is too small (1 to 64)");
	bad(POOL "--workers 65", "--workers: \"65\" is too large (1 to 64)");
	bad(POOL "--spin-us 10001", "--spin-us: \"10001\" is too large (0 to 10000 µs)");
	bad(POOL "--spin-us fast", "--spin-us: \"fast\" is not a number (0 to 10000 µs)");
	bad(POOL "--ready-fd 0", "--ready-fd: \"0\" is too small (1 to 65535)");
	bad(POOL "--ready-fd x", "--ready-fd: \"x\" is not a number (1 to 65535)");
}
END_TEST

START_TEST(bad_files)
{
	bad_file("pol = a=memory:\n", ":1: unknown setting \"pol\": did you mean \"pool\"?");
	bad_file(
	    "ready_fd = 3\n", ":1: setting \"ready_fd\" can only be given on the command line");
	bad_file("config = /x\n", ":1: setting \"config\" can only be given on the command line");
	bad_file("\nlisten = 1.2.3.4:x\n",
	    ":2: listen: \"1.2.3.4:x\" is not ADDR:PORT: the port is a number from 1 to 65535");
	bad_file("pool = x\n", ":1: pool: \"x\" is not NAME=URI, as in ram=memory:?size=1G or "
			       "disk=file:/srv/pool");
	bad_file("[pool]\n", ":1: [pool] a pool needs a name");
	bad_file("[pool a b]\n",
	    ":1: [pool a b] pool name \"a b\" has other characters than letters, "
	    "digits, '.', '_' and '-'");
	bad_file("[pool a]\n[pool b]\n", ":1: [pool a] the line \"uri = …\" is missing");
	bad_file(
	    "[pool a]\nurl = x:\n", ":2: [pool a] unknown setting \"url\": did you mean \"uri\"?");
	bad_file("#\n[pool a]\nuri = x\n",
	    ":2: [pool a] pool: \"x\" does not begin with a kind of place and a colon, as in "
	    "memory:?size=1G or file:/srv/pool");
	bad_file("[pools]\n", ":1: unknown section \"pools\" (known: [global], [pool NAME])");
	ck_assert_int_eq(read_conf("", "pool = a=memory:\n[pool a]\nuri = file:/x\n"), -EINVAL);
	ck_assert_str_eq(err.text, "pool \"a\" is given twice: as memory: and file:/x");
	/* A file is checked also where the command line wins. */
	ck_assert_int_eq(read_conf(POOL, "[pool a]\n"), -EINVAL);
}
END_TEST

/* The example as it is shipped, and with every "#setting = …" line made active. */
START_TEST(example_file)
{
	static char text[8192], active[8192];
	FILE *in = fopen("scripts/remramd.conf.example", "r");
	char line[400];
	size_t n = 0;

	if (!in) {
		printf("example_file: skipped: not started in the source directory\n");
		return;
	}
	while (fgets(line, sizeof(line), in)) {
		bool off = *line == '#' && line[1] != ' ' && line[1] != '\n';
		n += (size_t)snprintf(active + n, sizeof(active) - n, "%s", line + off);
		strcat(text, line);
	}
	fclose(in);
	good("", text);
	ck_assert_uint_eq(conf.pool_count, 1);
	good("", active);
	ck_assert_uint_eq(conf.pool_count, 2);
	ck_assert_uint_eq(conf.listen_count, 2);
	ck_assert(conf.insecure);
	/* Active or not, each setting shows its default. */
	ck_assert_str_eq(conf.state, "/var/lib/remram");
	ck_assert_uint_eq(conf.workers, 4);
	ck_assert_uint_eq(conf.spin_us, 30);
	ck_assert_int_eq(conf.log, LOG_LEVEL_INFO);
	/* It mentions every setting that a file can have. */
	for (const struct opt *opt = remramd_options; opt->type != OPT_END; opt++)
		if (opt->type != OPT_HEADING && !opt->where && strcmp(opt->name, "pool")) {
			snprintf(line, sizeof(line), "\n%s = ", opt->name);
			ck_assert_msg(strstr(active, line), "%s is missing", opt->name);
		}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("remramd_conf");
	TCase *tc = tcase_create("remramd_conf");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, defaults);
	tcase_add_test(tc, command_line);
	tcase_add_test(tc, file);
	tcase_add_test(tc, command_line_wins);
	tcase_add_test(tc, which_file);
	tcase_add_test(tc, help_and_version);
	tcase_add_test(tc, help_text);
	tcase_add_test(tc, good_addresses);
	tcase_add_test(tc, insecure_addresses);
	tcase_add_test(tc, bad_addresses);
	tcase_add_test(tc, pools);
	tcase_add_test(tc, bad_options);
	tcase_add_test(tc, bad_files);
	tcase_add_test(tc, example_file);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
