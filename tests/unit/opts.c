/* SPDX-License-Identifier: Apache-2.0
 *
 * Options: each type from each place, precedence, every refusal with its words, help and man source.
 */
#include "core/opts.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct conf {
	bool wait;
	bool strict;
	int hardness;
	char *name;
	struct opt_list listen;
	uint64_t size;
	uint32_t timeout_ms;
	unsigned spin_us;
	uint8_t small;
	int level;
	bool help;
};

static char called[200];

static int on_call(void *conf, const struct opt *opt, const char *value, struct err *err)
{
	if (value && !strcmp(value, "bad"))
		return err_set(err, -ENOENT, "no such thing");
	snprintf(called + strlen(called), sizeof(called) - strlen(called), "%s=%s;", opt->name,
	    value ? value : "(null)");
	return 0;
}

static int check_name(const char *value, struct err *err)
{
	if (strchr(value, '!'))
		return err_set(err, -EINVAL, "\"%s\" has a '!'", value);
	return 0;
}

static const struct opt_choice levels[] = {{"error", 0}, {"warn", 1}, {"info", 2}, {NULL, 0}};

static const struct opt table[] = {
    {.type = OPT_HEADING, .help = "What it does"},
    {.name = "wait",
	.type = OPT_FLAG,
	.letter = 'w',
	.help = "wait for it",
	OPT_AT(struct conf, wait)},
    {.name = "strict",
	.type = OPT_BOOL,
	.def = "yes",
	.help = "be strict",
	OPT_AT(struct conf, strict)},
    {.name = "hard",
	.type = OPT_CONST,
	.value = 1,
	.help = "never give up",
	OPT_AT(struct conf, hardness)},
    {.name = "soft",
	.type = OPT_CONST,
	.value = 2,
	.help = "give up",
	OPT_AT(struct conf, hardness)},
    {.name = "name",
	.type = OPT_STRING,
	.letter = 'n',
	.placeholder = "NAME",
	.def = "x",
	.min = 1,
	.max = 8,
	.check = check_name,
	.help = "what it is called",
	OPT_AT(struct conf, name)},
    {.name = "listen",
	.type = OPT_LIST,
	.placeholder = "ADDR:PORT",
	.def = "127.0.0.1:10819",
	.max = 3,
	.check = check_name,
	.help = "where to listen",
	OPT_AT(struct conf, listen)},
    {.type = OPT_HEADING, .help = "How much"},
    {.name = "size",
	.type = OPT_SIZE,
	.placeholder = "SIZE",
	.def = "1G",
	.min = 4096,
	.max = UINT64_C(1) << 40,
	.help = "how large it becomes",
	OPT_AT(struct conf, size)},
    {.name = "timeo",
	.type = OPT_DURATION,
	.placeholder = "TIME",
	.def = "30s",
	.max = 3600000,
	.help = "how long to wait",
	OPT_AT(struct conf, timeout_ms)},
    {.name = "spin-us",
	.type = OPT_UINT,
	.placeholder = "N",
	.unit = "µs",
	.def = "30",
	.max = 10000,
	.help =
	    "how long to poll before sleeping, which costs processor time and saves the time of "
	    "waking up",
	OPT_AT(struct conf, spin_us)},
    {.name = "small",
	.type = OPT_UINT,
	.placeholder = "N",
	.help = "a small number",
	OPT_AT(struct conf, small)},
    {.name = "log",
	.type = OPT_ENUM,
	.placeholder = "LEVEL",
	.def = "info",
	.choices = levels,
	.help = "how much to tell",
	OPT_AT(struct conf, level)},
    {.name = "act", .type = OPT_CALL, .placeholder = "WHAT", .call = on_call, .help = "act"},
    {.name = "ro", .type = OPT_CALL, .call = on_call, .help = "read only"},
    {.type = OPT_HEADING, .help = "Not in files"},
    {.name = "help",
	.type = OPT_FLAG,
	.where = OPT_IN_ARGV,
	.help = "show this",
	OPT_AT(struct conf, help)},
    {.name = "_netdev", .type = OPT_IGNORE, .where = OPT_IN_MOUNT},
    {.name = "x-*", .type = OPT_IGNORE, .where = OPT_IN_MOUNT},
    {.type = OPT_END},
};

static struct conf conf;
static struct opts opts;
static struct err err;
static char path[] = "/tmp/remram-opts-XXXXXX";
static int operands;
static char *args[32];

static void setup(void)
{
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	close(fd);
	conf = (struct conf){0};
	called[0] = '\0';
	opts_init(&opts, table, &conf);
}

static void teardown(void)
{
	opts_free(table, &conf);
	ck_assert_ptr_null(conf.name);
	ck_assert_ptr_null(conf.listen.items);
	unlink(path);
	strcpy(path + strlen(path) - 6, "XXXXXX");
}

/* Splits words at spaces into argv and parses it. */
static int argv_parse(const char *words)
{
	static char copy[500];
	char *rest = copy, *word;
	int argc = 1;

	snprintf(copy, sizeof(copy), "%s", words);
	args[0] = "prog";
	while ((word = strsep(&rest, " ")))
		args[argc++] = word;
	args[argc] = NULL;
	err = (struct err){0};
	return opts_argv(&opts, argc, args, &operands, &err);
}

static int mount_parse(const char *text)
{
	err = (struct err){0};
	return opts_mount(&opts, text, &err);
}

static int file_parse(const char *text, const struct opt_section *sections)
{
	FILE *out = fopen(path, "w");

	fputs(text, out);
	fclose(out);
	err = (struct err){0};
	return opts_file(&opts, path, sections, &err);
}

#define OK(call) ck_assert_msg(!(call), "%s", err.text)
#define FAILS(call, want_) \
	do { \
		ck_assert_int_eq(call, -EINVAL); \
		ck_assert_str_eq(err.text, want_); \
		ck_assert_int_eq(err.code, -EINVAL); \
	} while (0)
/* The same for a file, whose name and line stand in front. */
#define FILE_FAILS(lines, line, sections, why) \
	do { \
		char want_[ERR_TEXT_MAX]; \
		ck_assert_int_eq(file_parse(lines, sections), -EINVAL); \
		snprintf(want_, sizeof(want_), "%s:%d: %s", path, line, why); \
		ck_assert_str_eq(err.text, want_); \
	} while (0)

START_TEST(defaults)
{
	ck_assert(!conf.wait && conf.strict && !conf.help);
	ck_assert_int_eq(conf.hardness, 0);
	ck_assert_str_eq(conf.name, "x");
	ck_assert_uint_eq(conf.listen.count, 1);
	ck_assert_str_eq(conf.listen.items[0], "127.0.0.1:10819");
	ck_assert_uint_eq(conf.size, 1 << 30);
	ck_assert_uint_eq(conf.timeout_ms, 30000);
	ck_assert_uint_eq(conf.spin_us, 30);
	ck_assert_uint_eq(conf.small, 0);
	ck_assert_int_eq(conf.level, 2);
	ck_assert(!opts_given(&opts, "size"));
}
END_TEST

START_TEST(argv_all_types)
{
	OK(argv_parse("--wait --strict no --soft --name abc --listen a:1 --listen=b:2 --size 64K "
		      "--timeo=5m --spin_us=0 --small 255 --log warn --act now --ro one two"));
	ck_assert(conf.wait && !conf.strict);
	ck_assert_int_eq(conf.hardness, 2);
	ck_assert_str_eq(conf.name, "abc");
	ck_assert_uint_eq(conf.listen.count, 2);
	ck_assert_str_eq(conf.listen.items[0], "a:1");
	ck_assert_str_eq(conf.listen.items[1], "b:2");
	ck_assert_uint_eq(conf.size, 65536);
	ck_assert_uint_eq(conf.timeout_ms, 300000);
	ck_assert_uint_eq(conf.spin_us, 0);
	ck_assert_uint_eq(conf.small, 255);
	ck_assert_int_eq(conf.level, 1);
	ck_assert_str_eq(called, "act=now;ro=(null);");
	ck_assert_int_eq(operands, 2);
	ck_assert_str_eq(args[1], "one");
	ck_assert_str_eq(args[2], "two");
	ck_assert(opts_given(&opts, "size") && !opts_given(&opts, "help"));
}
END_TEST

START_TEST(argv_forms)
{
	OK(argv_parse("a --wait=no -n=b - -- --size -w"));
	ck_assert(!conf.wait);
	ck_assert_str_eq(conf.name, "=b");
	ck_assert_int_eq(operands, 4);
	ck_assert_str_eq(args[1], "a");
	ck_assert_str_eq(args[2], "-");
	ck_assert_str_eq(args[3], "--size");
	ck_assert_str_eq(args[4], "-w");
	OK(argv_parse("-wn zz"));
	ck_assert(conf.wait);
	ck_assert_str_eq(conf.name, "zz");
	OK(argv_parse("-wnyy --name=a=b"));
	ck_assert_str_eq(conf.name, "a=b");
	FAILS(argv_parse("-wx"), "unknown option \"-x\"");
	FAILS(argv_parse("-n"), "--name needs a value: NAME");
	err = (struct err){0};
	args[1] = "stray";
	FAILS(opts_argv(&opts, 2, args, NULL, &err), "unexpected argument \"stray\"");
}
END_TEST

START_TEST(mount_values)
{
	OK(mount_parse(""));
	OK(mount_parse(
	    ",wait,,strict=no,soft,name=abc,listen=a:1,listen=b:2,size=1T,_netdev,x-a.b=1,"
	    "timeo=500ms,spin_us=7,spin-us=8,small=1,log=error,act=a=b,ro,"));
	ck_assert(conf.wait && !conf.strict);
	ck_assert_int_eq(conf.hardness, 2);
	ck_assert_str_eq(conf.name, "abc");
	ck_assert_uint_eq(conf.listen.count, 2);
	ck_assert_uint_eq(conf.size, UINT64_C(1) << 40);
	ck_assert_uint_eq(conf.timeout_ms, 500);
	ck_assert_uint_eq(conf.spin_us, 8);
	ck_assert_int_eq(conf.level, 0);
	ck_assert_str_eq(called, "act=a=b;ro=(null);");
	OK(mount_parse("soft,hard"));
	ck_assert_int_eq(conf.hardness, 1);
}
END_TEST

START_TEST(unknown_names)
{
	FAILS(mount_parse("siz=1"), "unknown option \"siz\": did you mean \"size\"?");
	FAILS(mount_parse("sizee"), "unknown option \"sizee\": did you mean \"size\"?");
	FAILS(mount_parse("szie=1"), "unknown option \"szie\": did you mean \"size\"?");
	FAILS(mount_parse("spinus=1"), "unknown option \"spinus\": did you mean \"spin_us\"?");
	FAILS(mount_parse("or"), "unknown option \"or\": did you mean \"ro\"?");
	FAILS(mount_parse("_netdef"), "unknown option \"_netdef\"");
	FAILS(mount_parse("zzzzzzzzz"), "unknown option \"zzzzzzzzz\"");
	FAILS(argv_parse("--spinn-us=1"),
	    "unknown option \"--spinn-us\": did you mean \"--spin-us\"?");
	FAILS(argv_parse("--lisen x"), "unknown option \"--lisen\": did you mean \"--listen\"?");
	/* What is not shown is not proposed; what belongs elsewhere says so. */
	FAILS(argv_parse("--netdev"), "unknown option \"--netdev\"");
	FAILS(argv_parse("--_netdev"), "option \"--_netdev\" can only be given with -o");
	FAILS(mount_parse("help"), "option \"help\" can only be given on the command line");
	FAILS(argv_parse("--x-foo"), "option \"--x-foo\" can only be given with -o");
	ck_assert_int_eq(
	    mount_parse("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
			"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=1"),
	    -EINVAL);
}
END_TEST

START_TEST(bad_values)
{
	FAILS(mount_parse("wait=maybe"), "wait: \"maybe\" is neither yes nor no (yes or no)");
	FAILS(mount_parse("strict"), "strict needs a value: yes or no");
	FAILS(mount_parse("strict="), "strict: \"\" is neither yes nor no (yes or no)");
	FAILS(mount_parse("soft=1"), "soft: \"1\" does not belong here: it takes no value");
	FAILS(mount_parse("ro=1"), "ro: \"1\" does not belong here: it takes no value");
	FAILS(mount_parse("name="), "name: \"\" is too short (1 to 8 bytes)");
	FAILS(mount_parse("name=123456789"), "name: \"123456789\" is too long (1 to 8 bytes)");
	FAILS(mount_parse("name=a!"), "name: \"a!\" has a '!'");
	FAILS(mount_parse("name"), "name needs a value: NAME");
	FAILS(mount_parse("listen=!"), "listen: \"!\" has a '!'");
	FAILS(
	    mount_parse("listen=a,listen=b,listen=c,listen=d"), "listen: given more than 3 times");
	FAILS(mount_parse("size=4x"), "size: \"4x\" is not a size (4K to 1T)");
	FAILS(mount_parse("size="), "size: \"\" is not a size (4K to 1T)");
	FAILS(mount_parse("size=4095"), "size: \"4095\" is too small (4K to 1T)");
	FAILS(mount_parse("size=1025G"), "size: \"1025G\" is too large (4K to 1T)");
	FAILS(mount_parse("size=99999999T"), "size: \"99999999T\" is too large (4K to 1T)");
	FAILS(mount_parse("timeo=1d"), "timeo: \"1d\" is not a duration (0s to 1h)");
	FAILS(mount_parse("timeo=61m"), "timeo: \"61m\" is too large (0s to 1h)");
	FAILS(argv_parse("--spin-us=x"), "--spin-us: \"x\" is not a number (0 to 10000 µs)");
	FAILS(argv_parse("--spin-us -1"), "--spin-us: \"-1\" is not a number (0 to 10000 µs)");
	FAILS(argv_parse("--spin-us 10001"), "--spin-us: \"10001\" is too large (0 to 10000 µs)");
	FAILS(argv_parse("--spin-us"), "--spin-us needs a value: N");
	FAILS(mount_parse("small=256"), "small: \"256\" is too large (a number)");
	FAILS(mount_parse("small=18446744073709551616"),
	    "small: \"18446744073709551616\" is too large (a number)");
	FAILS(
	    argv_parse("--log loud"), "--log: \"loud\" is none of the choices (error, warn, info)");
	FAILS(argv_parse("--act"), "--act needs a value: WHAT");
	ck_assert_int_eq(argv_parse("--act bad"), -ENOENT);
	ck_assert_str_eq(err.text, "--act: no such thing");
	ck_assert_int_eq(err.code, -ENOENT);
	/* Nothing of it was stored. */
	ck_assert_str_eq(conf.name, "x");
	ck_assert_uint_eq(conf.size, 1 << 30);
	ck_assert_uint_eq(conf.spin_us, 30);
	ck_assert_uint_eq(conf.timeout_ms, 30000);
	ck_assert_int_eq(conf.level, 2);
}
END_TEST

START_TEST(file_all_types)
{
	OK(file_parse("\xef\xbb\xbf# comment\n"
		      "; another\n"
		      "\n"
		      "wait = yes   # behind\n"
		      "  strict=off\t; behind\n"
		      "soft = yes\r\n"
		      "name = a#b;c\n"
		      "listen = a:1\n"
		      "listen = b:2\n"
		      "[global]\n"
		      "size = 8K\n"
		      "timeo = 7\n"
		      "spin_us = 1\n"
		      "small = 3\n"
		      "log = warn\n"
		      "act = now = then\n"
		      "ro = yes",
	    NULL));
	ck_assert(conf.wait && !conf.strict);
	ck_assert_int_eq(conf.hardness, 2);
	ck_assert_str_eq(conf.name, "a#b;c");
	ck_assert_uint_eq(conf.listen.count, 2);
	ck_assert_str_eq(conf.listen.items[1], "b:2");
	ck_assert_uint_eq(conf.size, 8192);
	ck_assert_uint_eq(conf.timeout_ms, 7000);
	ck_assert_uint_eq(conf.spin_us, 1);
	ck_assert_uint_eq(conf.small, 3);
	ck_assert_int_eq(conf.level, 1);
	ck_assert_str_eq(called, "act=now = then;ro=(null);");
	ck_assert(opts_given(&opts, "wait"));
}
END_TEST

START_TEST(file_errors)
{
	FILE *out;

	FILE_FAILS("\n\nsiz = 1\n", 3, NULL, "unknown setting \"siz\": did you mean \"size\"?");
	FILE_FAILS("size = 1\n", 1, NULL, "size: \"1\" is too small (4K to 1T)");
	FILE_FAILS("size\n", 1, NULL, "\"size\" is neither \"name = value\" nor a [section]");
	FILE_FAILS("# x\n= 3\n", 2, NULL, "no name before the '='");
	FILE_FAILS("[global\n", 1, NULL, "the section's ']' is missing");
	FILE_FAILS("[pool x]\n", 1, NULL, "unknown section \"pool\" (known: [global])");
	FILE_FAILS("[]\n", 1, NULL, "unknown section \"\" (known: [global])");
	FILE_FAILS("[global x]\n", 1, NULL, "unknown section \"global\" (known: [global])");
	FILE_FAILS(
	    "help = yes\n", 1, NULL, "setting \"help\" can only be given on the command line");
	FILE_FAILS("soft = no\n", 1, NULL, "soft: \"no\" does not belong here: it takes no value");
	FILE_FAILS("wait =\n", 1, NULL, "wait: \"\" is neither yes nor no (yes or no)");
	FILE_FAILS("name = \n", 1, NULL, "name: \"\" is too short (1 to 8 bytes)");
	out = fopen(path, "w");
	fwrite("wait = yes\nna\0me = x\n", 1, 21, out);
	fclose(out);
	ck_assert_int_eq(opts_file(&opts, path, NULL, &err), -EINVAL);
	ck_assert(strstr(err.text, ":2: there is a NUL byte in the line"));
	ck_assert_int_eq(opts_file(&opts, "/nonexistent/x", NULL, &err), -ENOENT);
	ck_assert_str_eq(err.text, "cannot open /nonexistent/x: No such file or directory");
	ck_assert_int_eq(opts_file(&opts, "/tmp", NULL, &err), -EISDIR);
	ck_assert_str_eq(err.text, "cannot read /tmp: Is a directory");
}
END_TEST

START_TEST(precedence)
{
	/* In either order the command line decides; lists are replaced, not mixed. */
	OK(argv_parse("--size 1M --listen a:1 --listen b:2 --hard"));
	OK(file_parse("size = 2M\nlisten = c:3\nsoft = yes\nspin_us = 5\n", NULL));
	ck_assert_uint_eq(conf.size, 1 << 20);
	ck_assert_uint_eq(conf.listen.count, 2);
	ck_assert_int_eq(conf.hardness, 1);
	ck_assert_uint_eq(conf.spin_us, 5);
	OK(argv_parse("--spin-us 6 --listen d:4"));
	ck_assert_uint_eq(conf.spin_us, 6);
	ck_assert_uint_eq(conf.listen.count, 3);
	/* What is overridden is checked all the same. */
	FILE_FAILS("size = lots\n", 1, NULL, "size: \"lots\" is not a size (4K to 1T)");
}
END_TEST

START_TEST(precedence_file_first)
{
	OK(file_parse("size = 2M\nlisten = c:3\nlisten = d:4\nsoft = yes\n", NULL));
	ck_assert_uint_eq(conf.listen.count, 2);
	OK(argv_parse("--listen a:1 --hard"));
	ck_assert_uint_eq(conf.listen.count, 1);
	ck_assert_str_eq(conf.listen.items[0], "a:1");
	ck_assert_int_eq(conf.hardness, 1);
	ck_assert_uint_eq(conf.size, 2 << 20);
	OK(opts_set_file(&opts, "listen", "z:1", &err));
	ck_assert_uint_eq(conf.listen.count, 1);
	OK(opts_set_file(&opts, "small", "9", &err));
	ck_assert_uint_eq(conf.small, 9);
}
END_TEST

/* ---- sections ---- */

struct section_conf {
	char *uri;
	uint64_t size;
};

static const struct opt section_table[] = {
    {.name = "uri",
	.type = OPT_STRING,
	.placeholder = "URI",
	.help = "where",
	OPT_AT(struct section_conf, uri)},
    {.name = "size",
	.type = OPT_SIZE,
	.placeholder = "SIZE",
	.def = "4K",
	.help = "how much",
	OPT_AT(struct section_conf, size)},
    {.type = OPT_END},
};

static struct {
	struct section_conf conf;
	char name[20];
	char log[200];
} sections_ctx;

static int pool_begin(void *ctx, const char *arg, void **ret_conf, struct err *e)
{
	ck_assert_ptr_eq(ctx, &sections_ctx);
	if (!*arg)
		return err_set(e, -EINVAL, "a pool needs a name");
	snprintf(sections_ctx.name, sizeof(sections_ctx.name), "%s", arg);
	memset(&sections_ctx.conf, 0, sizeof(sections_ctx.conf));
	*ret_conf = &sections_ctx.conf;
	return 0;
}

static int pool_end(void *ctx, void *sc, struct err *e)
{
	struct section_conf *section = sc;
	size_t n = strlen(sections_ctx.log);

	if (!section->uri)
		return err_set(e, -EINVAL, "no uri");
	snprintf(sections_ctx.log + n, sizeof(sections_ctx.log) - n, "%s:%s:%llu;",
	    sections_ctx.name, section->uri, (unsigned long long)section->size);
	return 0;
}

static const struct opt_section pool_sections[] = {
    {.name = "pool",
	.table = section_table,
	.begin = pool_begin,
	.end = pool_end,
	.ctx = &sections_ctx},
    {0},
};

START_TEST(sections)
{
	sections_ctx.log[0] = '\0';
	OK(file_parse("size = 1M\n"
		      "[pool ram]\n"
		      "uri = memory:\n"
		      "size = 8K\n"
		      "  [ pool   disk one ] # second\n"
		      "uri = file:/x\n"
		      "[global]\n"
		      "wait = yes\n"
		      "[pool last]\n"
		      "uri = z:\n",
	    pool_sections));
	ck_assert_str_eq(sections_ctx.log, "ram:memory::8192;disk one:file:/x:4096;last:z::4096;");
	ck_assert_uint_eq(conf.size, 1 << 20);
	ck_assert(conf.wait);
}
END_TEST

START_TEST(section_errors)
{
	FILE_FAILS("[pool]\n", 1, pool_sections, "[pool] a pool needs a name");
	FILE_FAILS("[pool a]\nuri=x:\nurl = y\n", 3, pool_sections,
	    "[pool a] unknown setting \"url\": did you mean \"uri\"?");
	FILE_FAILS("[pool a]\nuri=x:\nwait = yes\n", 3, pool_sections,
	    "[pool a] unknown setting \"wait\"");
	/* A section without what it needs: the line of its header. */
	FILE_FAILS("\n[pool a]\nsize=4K\n[pool b]\n", 2, pool_sections, "[pool a] no uri");
	FILE_FAILS("\n[pool a]\nsize=4K\n", 2, pool_sections, "[pool a] no uri");
	FILE_FAILS("[pol a]\n", 1, pool_sections,
	    "unknown section \"pol\" (known: [global], [pool NAME])");
}
END_TEST

/* ---- printing ---- */

static char *print(
    void (*printer)(const struct opt *, enum opt_where, FILE *), enum opt_where where)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	printer(table, where, out);
	fclose(out);
	return text;
}

START_TEST(help_argv)
{
	char *text = print(opts_print_help, OPT_IN_ARGV);

	ck_assert_str_eq(text,
	    "What it does:\n"
	    "  -w, --wait              wait for it\n"
	    "  --strict yes|no         be strict (yes or no; default yes)\n"
	    "  --hard                  never give up\n"
	    "  --soft                  give up\n"
	    "  -n, --name NAME         what it is called (default x)\n"
	    "  --listen ADDR:PORT      where to listen (may be repeated; default\n"
	    "                          127.0.0.1:10819)\n"
	    "\n"
	    "How much:\n"
	    "  --size SIZE             how large it becomes (4K to 1T; default 1G)\n"
	    "  --timeo TIME            how long to wait (0s to 1h; default 30s)\n"
	    "  --spin-us N             how long to poll before sleeping, which costs\n"
	    "                          processor time and saves the time of waking up (0 to\n"
	    "                          10000 µs; default 30)\n"
	    "  --small N               a small number\n"
	    "  --log LEVEL             how much to tell (error, warn, info; default info)\n"
	    "  --act WHAT              act\n"
	    "  --ro                    read only\n"
	    "\n"
	    "Not in files:\n"
	    "  --help                  show this\n");
	free(text);
}
END_TEST

START_TEST(help_elsewhere)
{
	char *text = print(opts_print_help, OPT_IN_MOUNT);

	ck_assert(strstr(text, "\n  spin_us=N "));
	ck_assert(strstr(text, "\n  wait "));
	ck_assert(!strstr(text, "netdev") && !strstr(text, "x-") && !strstr(text, "help"));
	ck_assert(!strstr(text, "Not in files"));
	free(text);
	text = print(opts_print_help, OPT_IN_FILE);
	ck_assert(strstr(text, "\n  spin_us = N "));
	ck_assert(strstr(text, "\n  wait = yes|no "));
	free(text);
}
END_TEST

START_TEST(mdoc_escapes)
{
	static const struct opt strange[] = {
	    {.name = "a",
		.type = OPT_IGNORE,
		.help =
		    ".dots and back\\slashes, in a text that has just so many words that the next "
		    "'begins a line"},
	    {.type = OPT_END},
	};
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	opts_print_mdoc(strange, OPT_IN_MOUNT, out);
	fclose(out);
	ck_assert_str_eq(text,
	    ".Bl -tag -width Ds\n.It Cm \"a\"\n"
	    "\\&.dots and back\\eslashes, in a text that has just so many words that the next\n"
	    "\\&'begins a line\n.El\n");
	free(text);
}
END_TEST

START_TEST(mdoc)
{
	char *text = print(opts_print_mdoc, OPT_IN_ARGV);

	ck_assert_ptr_eq(text,
	    strstr(text,
		".Ss What it does\n.Bl -tag -width Ds\n.It Fl w , Fl \"\\-wait\"\nwait for it\n"));
	ck_assert(strstr(text, "\n.It Fl \"\\-spin\\-us\" Ar \"N\"\nhow long to poll"));
	ck_assert(strstr(text, "\n(4K to 1T; default 1G)\n"));
	ck_assert(strstr(text, "\n.El\n.Ss How much\n.Bl -tag"));
	ck_assert_str_eq(text + strlen(text) - 5, "\n.El\n");
	free(text);
	text = print(opts_print_mdoc, OPT_IN_MOUNT);
	ck_assert(strstr(text, "\n.It Cm \"spin_us\" Ns = Ns Ar \"N\"\n"));
	free(text);
	text = print(opts_print_mdoc, OPT_IN_FILE);
	ck_assert(strstr(text, "\n.It Cm \"spin_us\" No = Ar \"N\"\n"));
	free(text);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("opts");
	TCase *tc = tcase_create("opts");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, defaults);
	tcase_add_test(tc, argv_all_types);
	tcase_add_test(tc, argv_forms);
	tcase_add_test(tc, mount_values);
	tcase_add_test(tc, unknown_names);
	tcase_add_test(tc, bad_values);
	tcase_add_test(tc, file_all_types);
	tcase_add_test(tc, file_errors);
	tcase_add_test(tc, precedence);
	tcase_add_test(tc, precedence_file_first);
	tcase_add_test(tc, sections);
	tcase_add_test(tc, section_errors);
	tcase_add_test(tc, help_argv);
	tcase_add_test(tc, help_elsewhere);
	tcase_add_test(tc, mdoc);
	tcase_add_test(tc, mdoc_escapes);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
