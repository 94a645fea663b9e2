/* SPDX-License-Identifier: Apache-2.0
 *
 * `remram top`: a live view of the mounts, drawn anew every interval.
 *
 * Two samples of what the daemons say (mount/top_model.c) make a frame (mount/top_frame.c).  It is drawn on
 * the terminal's other screen, in one write, so that nothing flickers and the user's own lines are there
 * again at the end.  Daemons are asked with a short patience: one that hangs is shown as such.
 *
 * The terminal's settings are put back on every way out but SIGKILL: signals only end the loop.
 */
#include "mount/cmd.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "mount/control.h"
#include "mount/mountinfo.h"
#include "mount/screen.h"
#include "mount/serve.h"
#include "mount/sys.h"
#include "mount/top.h"

enum { ANSWER_MS = 500, CLOCK_MAX = 16 };

#define SCREEN_ENTER "\033[?1049h\033[?25l"
#define SCREEN_LEAVE "\033[?25h\033[?1049l"
#define SCREEN_HOME "\033[H"
#define LINE_END "\033[K"
#define SCREEN_END "\033[J"

struct top_args {
	bool once, ascii, help;
	uint64_t interval_ms;
};

/* clang-format off */
#define AT(member) OPT_AT(struct top_args, member)
static const struct opt table[] = {
	{.name = "once", .letter = '1', .type = OPT_FLAG, AT(once),
	 .help = "print one frame, with the speeds of one interval, and end"},
	{.name = "interval", .letter = 'i', .type = OPT_DURATION, .placeholder = "TIME", AT(interval_ms),
	 .def = "1s", .min = 100, .max = 3600000, .help = "from frame to frame"},
	{.name = "ascii", .letter = 'a', .type = OPT_FLAG, AT(ascii),
	 .help = "nothing but ASCII (also where the locale is not UTF-8)"},
	{.name = "help", .letter = 'h', .type = OPT_FLAG, AT(help), .help = "print this"},
	{.type = OPT_END},
};
/* clang-format on */

struct top {
	const struct top_args *args;
	char **dirs; /* mount points to show; dir_count 0: all */
	unsigned dir_count;
	struct top_view view;
	char clock[CLOCK_MAX];
	struct top_sample now, before;
	unsigned body; /* lines that the last frame's body had */
	struct err *err;
};

/* ---- sampling ---------------------------------------------------------------------------------- */

struct collect {
	const struct top *top;
	struct top_sample *sample;
	int res;
};

static bool is_wanted(const struct top *top, const char *dir)
{
	for (unsigned i = 0; i < top->dir_count; i++) {
		if (!strcmp(top->dirs[i], dir))
			return true;
	}
	return top->dir_count == 0;
}

static void collect_each(void *ctx, const char *run_dir, const struct runstate *state)
{
	struct collect *collect = ctx;
	struct status *status;

	if (collect->res || !is_wanted(collect->top, state->dir))
		return;
	status = malloc(sizeof(*status));
	if (!status) {
		collect->res = -ENOMEM;
		return;
	}
	status_init(status, run_dir, state, ANSWER_MS);
	collect->res = top_add(collect->sample, status);
	status_fini(status);
	free(status);
}

/* A region that has gone meanwhile has no map. */
static void ask_map(const struct top_mount *mount, struct top_region *region, unsigned cells)
{
	char path[MOUNT_RUN_DIR_MAX + 16], run_dir[MOUNT_RUN_DIR_MAX], line[64], *answer;
	struct err ignored;

	snprintf(path, sizeof(path), "%s/control", runstate_dir(mount->dir, run_dir));
	snprintf(line, sizeof(line), "map %llu %u", (unsigned long long)region->id, cells);
	if (control_ask(path, line, ANSWER_MS, &answer, &ignored))
		return;
	top_set_map(region, answer);
	free(answer);
}

static void ask_maps(struct top_sample *sample, const struct top_view *view)
{
	unsigned cells = top_map_cells(sample, view);

	for (unsigned i = 0; i < sample->mount_count; i++) {
		struct top_mount *mount = &sample->mounts[i];

		for (unsigned k = 0; k < mount->region_count; k++) {
			if (mount->regions[k].cached)
				ask_map(mount, &mount->regions[k], cells);
		}
	}
}

/* The sample of now; the one before it stays for the rates. */
static int sample(struct top *top)
{
	struct top_sample fresh = {.at_ms = sys_now_ms()};
	struct collect collect = {.top = top, .sample = &fresh};
	int res = runstate_each(collect_each, &collect);

	if (res == 0)
		res = collect.res;
	if (res) {
		top_fini(&fresh);
		return err_sys(top->err, res, "%s", runstate_base());
	}
	ask_maps(&fresh, &top->view);
	top_fini(&top->before);
	top->before = top->now;
	top->now = fresh;
	top_rates(&top->now, &top->before);
	return 0;
}

/* ---- drawing ----------------------------------------------------------------------------------- */

static void set_clock(struct top *top)
{
	time_t now = time(NULL);
	struct tm tm;

	localtime_r(&now, &tm);
	strftime(top->clock, sizeof(top->clock), "%H:%M:%S", &tm);
	top->view.clock = top->clock;
}

/* The frame's lines, each cleared to its end: what was there before needs not be erased first. */
static void write_frame(char *text)
{
	fputs(SCREEN_HOME, stdout);
	for (char *line = text, *end; line; line = end ? end + 1 : NULL) {
		end = strchr(line, '\n');
		if (end)
			*end = '\0';
		/* No line end behind the last one: it would scroll. */
		printf("%s" LINE_END "%s", line, end ? "\r\n" : "");
	}
	fputs(SCREEN_END, stdout);
	fflush(stdout);
}

static int draw(struct top *top)
{
	char *text = NULL;
	size_t len;
	FILE *out;

	screen_size(STDOUT_FILENO, &top->view.columns, &top->view.lines);
	set_clock(top);
	out = open_memstream(&text, &len);
	if (!out)
		return err_sys(top->err, -ENOMEM, "remram top");
	top->body = top_print(&top->now, &top->view, out);
	fclose(out);
	write_frame(text);
	free(text);
	return 0;
}

/* ---- the terminal ------------------------------------------------------------------------------ */

static volatile sig_atomic_t resized;

static void on_resize(int signal_nr)
{
	resized = 1;
}

static int enter_terminal(struct termios *saved, struct err *err)
{
	const struct sigaction action = {.sa_handler = on_resize};
	struct termios raw;

	if (!isatty(STDOUT_FILENO) || tcgetattr(STDIN_FILENO, saved))
		return err_set(
		    err, -ENOTTY, "top needs a terminal; --once prints one frame without");
	raw = *saved;
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	raw.c_cc[VMIN] = 0;
	raw.c_cc[VTIME] = 0;
	/* Stopped by Ctrl-Z it would leave the terminal as it is now. */
	raw.c_cc[VSUSP] = _POSIX_VDISABLE;
	sigaction(SIGWINCH, &action, NULL);
	if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw))
		return err_sys(err, -errno, "the terminal");
	fputs(SCREEN_ENTER, stdout);
	return 0;
}

static void leave_terminal(const struct termios *saved)
{
	fputs(SCREEN_LEAVE, stdout);
	fflush(stdout);
	tcsetattr(STDIN_FILENO, TCSAFLUSH, saved);
}

static void scroll(struct top *top, int lines)
{
	unsigned room = top->view.lines > 2 ? top->view.lines - 2 : 1;
	int most = top->body > room ? (int)(top->body - room) : 0;
	int skip = (int)top->view.skip + lines;

	top->view.skip = (unsigned)(skip < 0 ? 0 : skip > most ? most : skip);
}

/* False: it is over.  A terminal that is gone ends it, too. */
static bool take_keys(struct top *top)
{
	char keys[32];
	ssize_t n = read(STDIN_FILENO, keys, sizeof(keys));

	if (n <= 0)
		return n < 0 && (errno == EINTR || errno == EAGAIN);
	for (ssize_t i = 0; i < n; i++) {
		switch (keys[i]) {
		case 'q':
		case 'Q':
			return false;
		case 'j':
			scroll(top, 1);
			break;
		case 'k':
			scroll(top, -1);
			break;
		default: /* ESC [ B and ESC [ A are the arrows */
			if (i + 2 < n && keys[i] == '\033' && keys[i + 1] == '[') {
				scroll(top, keys[i + 2] == 'B' ? 1 : keys[i + 2] == 'A' ? -1 : 0);
				i += 2;
			}
		}
	}
	return true;
}

/* Until it is time for the next sample: draws again for a key or a new size.  *ret_over: the user has seen
 * enough. */
static int wait_keys(struct top *top, uint64_t until_ms, bool *ret_over)
{
	struct pollfd keys = {.fd = STDIN_FILENO, .events = POLLIN};
	uint64_t now;
	int res = 0;

	while (res == 0 && !cmd_interrupted && (now = sys_now_ms()) < until_ms) {
		int ready = poll(&keys, 1, (int)(until_ms - now));

		if (ready > 0 && !take_keys(top)) {
			*ret_over = true;
			return 0;
		}
		if (ready > 0 || resized) {
			resized = 0;
			scroll(top, 0);
			res = draw(top);
		}
	}
	*ret_over = cmd_interrupted;
	return res;
}

static int watch(struct top *top)
{
	struct termios saved;
	bool over = false;
	int res = enter_terminal(&saved, top->err);

	if (res)
		return res;
	while (res == 0 && !over) {
		uint64_t begin = sys_now_ms();

		res = sample(top);
		if (res == 0)
			res = draw(top);
		if (res == 0)
			res = wait_keys(top, begin + top->args->interval_ms, &over);
	}
	leave_terminal(&saved);
	return res;
}

/* ---- the command ------------------------------------------------------------------------------- */

/* One frame, as wide as the terminal or $COLUMNS says, and as long as it has to be. */
static int once(struct top *top)
{
	const char *columns = getenv("COLUMNS");
	unsigned lines;
	int res;

	if (!screen_size(STDOUT_FILENO, &top->view.columns, &lines) && columns && atoi(columns) > 0)
		top->view.columns = (unsigned)atoi(columns);
	top->view.lines = 0;
	res = sample(top);
	if (res == 0 && !cmd_interrupted) {
		sys_sleep_ms((unsigned)top->args->interval_ms);
		res = sample(top);
	}
	if (res)
		return res;
	if (cmd_interrupted)
		return err_set(top->err, -EINTR, "interrupted");
	set_clock(top);
	top_print(&top->now, &top->view, stdout);
	return 0;
}

static int resolve_dirs(struct top *top, char **dirs, unsigned count)
{
	struct mountinfo info;

	top->dirs = calloc(count ? count : 1, sizeof(*top->dirs));
	for (unsigned i = 0; top->dirs && i < count; i++) {
		char dir[PATH_MAX];
		int res = mountinfo_resolve(dirs[i], dir, top->err);

		if (res)
			return res;
		if (mountinfo_find(dir, &info) || strcmp(info.type, MOUNTINFO_TYPE))
			return err_set(top->err, -ENOENT, "%s is not a remram mount", dir);
		top->dirs[i] = strdup(dir);
		if (!top->dirs[i])
			break;
		top->dir_count++;
	}
	return top->dirs && top->dir_count == count ? 0 : err_sys(top->err, -ENOMEM, "remram top");
}

static int run(const struct top_args *args, char **dirs, unsigned count, struct err *err)
{
	struct top top = {.args = args, .err = err};
	int res = cmd_need_root("look into mounts", err);

	if (res)
		return res;
	top.view.columns = 80;
	top.view.lines = 24;
	top.view.style.ascii = args->ascii || !screen_utf8();
	top.view.style.colour = !args->once && !getenv("NO_COLOR");
	top.view.keys = !args->once;
	res = resolve_dirs(&top, dirs, count);
	if (res == 0)
		res = args->once ? once(&top) : watch(&top);
	top_fini(&top.now);
	top_fini(&top.before);
	for (unsigned i = 0; i < top.dir_count; i++)
		free(top.dirs[i]);
	free(top.dirs);
	return res;
}

int cmd_top(int argc, char **argv)
{
	struct top_args args = {0};
	struct opts opts;
	struct err err;
	int operands, res;

	opts_init(&opts, table, &args);
	if (opts_argv(&opts, argc, argv, &operands, &err))
		return cmd_fail(MOUNT_EX_USAGE, &err);
	if (args.help) {
		puts("usage: remram top [--once] [-i TIME] [DIR…]\n");
		opts_print_help(table, OPT_IN_ARGV, stdout);
		return MOUNT_EX_OK;
	}
	cmd_catch_signals();
	res = run(&args, argv + 1, (unsigned)operands, &err);
	return res ? cmd_fail(cmd_exit_code(res), &err) : MOUNT_EX_OK;
}
