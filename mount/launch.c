/* SPDX-License-Identifier: Apache-2.0
 *
 * The processes of a mount; see launch.h.
 *
 * Two processes share the work.  The *server* runs serve() and nothing else: a process that holds swap
 * must not fork, attach loop devices or format anything, since each of these may need memory that
 * only it can free.  The *command* waits for the server to be ready and does all of that.  A pipe
 * from server to command carries one struct outcome and then, in the foreground, the news that the
 * server has ended (it hangs up).
 *
 *               server                          command
 *   daemon      the child: own session, stdio   the process that the user called: ends when the
 *               at /dev/null once ready          mount is set up
 *   foreground  the process that the user       the child: stays, and unmounts on SIGINT or SIGTERM,
 *               called: hands signals on         which both or the server alone may get
 *
 * The lock of the run directory belongs to the command; the server closes its copy at once.
 */
#include "mount/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/log.h"
#include "mount/attach.h"
#include "mount/cmd.h"
#include "mount/control.h"
#include "mount/json.h"
#include "mount/lockmem.h"
#include "mount/mountinfo.h"
#include "mount/progress.h"
#include "mount/serve.h"
#include "mount/sys.h"
#include "mount/unmount.h"
#include "mount/utab.h"

enum { LOCK_MS = 1000, STATUS_MS = 1000, FIRST_FREE_FD = 3 };

/* What the server tells the command; small enough for the pipe to take it in one piece. */
struct outcome {
	int exit_code;
	char text[ERR_TEXT_MAX];
};

/* ---- the server -------------------------------------------------------------------------------- */

struct server {
	const struct mount_conf *conf;
	int pipe;
	bool ready;
};

static void tell(int fd, int exit_code, const char *text)
{
	struct outcome outcome = {.exit_code = exit_code};

	memcpy(outcome.text, text, strlen(text) + 1);
	while (write(fd, &outcome, sizeof(outcome)) < 0 && errno == EINTR)
		;
}

/* For the signal handler of a server in the foreground. */
static volatile pid_t command_pid;
static volatile int command_pipe;
static volatile sig_atomic_t is_ready;

/* The command unmounts; before there is a mount the process just ends. */
static void hand_on(int signal_nr)
{
	int saved = errno;

	if (!is_ready) {
		tell(command_pipe, MOUNT_EX_USER, "interrupted");
		_exit(MOUNT_EX_USER);
	}
	kill(command_pid, SIGTERM);
	errno = saved;
}

static void point_to_null(int fd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return;
	dup2(null, fd);
	close(null);
}

static void server_ready(void *ctx)
{
	struct server *server = ctx;

	server->ready = true;
	is_ready = 1;
	/* Before the command ends: its caller may then wait for the end of what it has printed. */
	if (!server->conf->foreground) {
		point_to_null(STDOUT_FILENO);
		point_to_null(STDERR_FILENO);
	}
	tell(server->pipe, MOUNT_EX_OK, "");
	if (server->conf->foreground)
		return;
	close(server->pipe);
	server->pipe = -1;
}

/* Keeps nothing of the caller's: its terminal, its directory, its open files. */
static void become_daemon(struct server *server)
{
	setsid();
	if (chdir("/"))
		log_warn("chdir /: %s", strerror(errno));
	point_to_null(STDIN_FILENO);
	if (server->pipe != FIRST_FREE_FD) {
		dup3(server->pipe, FIRST_FREE_FD, O_CLOEXEC);
		server->pipe = FIRST_FREE_FD;
	}
	syscall(SYS_close_range, FIRST_FREE_FD + 1, ~0u, 0);
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGHUP, SIG_IGN);
}

/* The mount is gone and no command is at work on it: somebody else unmounted it.  Loop devices that
 * are left need `remram umount`. */
static void server_clean_up(const struct mount_conf *conf)
{
	struct runstate state;
	struct err ignored;
	int lock;

	if (runstate_lock(conf->run_dir, false, 0, &lock, &ignored))
		return;
	if (runstate_load(conf->run_dir, &state, &ignored) == 0 && state.pid == getpid() &&
	    state.device_count == 0) {
		utab_remove(conf->source.text, conf->dir);
		runstate_remove(conf->run_dir);
	}
	runstate_unlock(lock);
}

/* What systemd looks for in the name of a process that it must not kill at shutdown, since others need it
 * until the end (systemd.io/ROOT_STORAGE_DAEMONS). */
static void mark_storage_daemon(void)
{
	program_invocation_name[0] = '@';
}

/* Returns the exit code of the server's process. */
static int server_run(const struct mount_conf *conf, int pipe, pid_t command)
{
	struct server server = {.conf = conf, .pipe = pipe};
	struct lockmem_refused refused = {0};
	int exit_code = MOUNT_EX_OK, res;
	struct err err;

	command_pid = command;
	command_pipe = pipe;
	umask(077);
	signal(SIGPIPE, SIG_IGN);
	if (conf->foreground) {
		signal(SIGINT, hand_on);
		signal(SIGTERM, hand_on);
	} else {
		become_daemon(&server);
	}
	log_set_level(conf->log);
	if (conf->lock_memory) {
		mark_storage_daemon();
		lockmem_prepare(&refused);
	}
	res = log_start(!conf->foreground, &err);
	lockmem_log_refused(&refused);
	if (res == 0)
		res = serve(conf, server_ready, &server, &exit_code, &err);
	else
		exit_code = MOUNT_EX_SYSERR;
	if (res && !server.ready)
		tell(server.pipe, exit_code ? exit_code : MOUNT_EX_FAIL, err.text);
	else if (res)
		log_error("%s", err.text);
	log_stop();
	if (server.ready && !conf->foreground)
		server_clean_up(conf);
	if (server.pipe >= 0)
		close(server.pipe);
	return res ? (exit_code ? exit_code : MOUNT_EX_FAIL) : MOUNT_EX_OK;
}

/* ---- the command ------------------------------------------------------------------------------- */

struct command {
	const struct mount_conf *conf;
	int pipe;
	int lock;
	pid_t server;
	struct runstate state;
	struct unmount unmount;
};

/* With pull_first the mount answers before it is ready: how far that is. */
static void show_pull_first(const struct command *command, struct progress *progress)
{
	char path[MOUNT_RUN_DIR_MAX + 16], *answer;
	struct json *doc = NULL;
	struct err ignored;
	uint64_t total, left;

	snprintf(path, sizeof(path), "%s/control", command->conf->run_dir);
	if (control_ask(path, "status", STATUS_MS, &answer, &ignored))
		return;
	json_parse(answer, strlen(answer), &doc, &ignored);
	free(answer);
	total = (uint64_t)json_number(json_find(doc, "pull_first.total"), 0);
	left = (uint64_t)json_number(json_find(doc, "pull_first.left"), 0);
	if (total)
		progress_show(progress, left < total ? total - left : 0, total, sys_now_ms());
	json_destroy(doc);
}

/* Until the server has something to say, or somebody interrupts. */
static void await_server(const struct command *command)
{
	struct pollfd said = {.fd = command->pipe, .events = POLLIN};
	bool shows = command->conf->pull_first || command->conf->pull_first_pct;
	struct progress progress;

	progress_begin(&progress, stderr, "pulling first", !shows);
	while (poll(&said, 1, shows ? PROGRESS_SHOW_MS : -1) <= 0 && !cmd_interrupted) {
		if (shows)
			show_pull_first(command, &progress);
	}
	progress_clear(&progress);
}

/* What the server says; MOUNT_EX_OK when the mount answers. */
static int wait_ready(const struct command *command, struct err *err)
{
	struct outcome outcome;
	ssize_t n = -1;

	await_server(command);
	if (!cmd_interrupted)
		n = read(command->pipe, &outcome, sizeof(outcome));
	if (n == sizeof(outcome)) {
		if (outcome.exit_code)
			err_set(err, -EIO, "%s", outcome.text);
		return outcome.exit_code;
	}
	if (n < 0) {
		kill(command->server, SIGKILL);
		err_set(err, -EINTR, "interrupted");
		return MOUNT_EX_USER;
	}
	err_set(err, -EIO, "%s: the daemon ended before the mount was ready; see the system log",
	    command->conf->dir);
	return MOUNT_EX_SOFTWARE;
}

static void want_device(struct runstate *state, const struct mount_conf *conf, const char *region)
{
	struct runstate_device *dev = &state->devices[state->device_count++];

	strcpy(dev->region, region);
	dev->prio = MOUNT_PRIO_NONE;
	dev->read_only = conf->read_only;
	if (region != conf->swap)
		return;
	dev->swap = true;
	dev->discard = conf->swap_discard;
	dev->prio = conf->swap_prio;
}

/* Without it everything works, but for umount(8). */
static void tell_umount(const struct mount_conf *conf)
{
	struct err err;
	int res = utab_add(conf->source.text, conf->dir);

	if (res) {
		err_sys(&err, res, "/run/mount/utab: unmount %s with `remram umount`", conf->dir);
		cmd_fail(0, &err);
	}
}

/* Writes down what is mounted, and attaches what is to be attached. */
static int set_up(struct command *command, struct err *err)
{
	const struct mount_conf *conf = command->conf;
	struct runstate *state = &command->state;
	struct attach attach = {
	    .run_dir = conf->run_dir, .state = state, .interrupted = &cmd_interrupted};
	struct mountinfo info;
	unsigned i;

	if (mountinfo_find(conf->dir, &info) || strcmp(info.type, MOUNTINFO_TYPE)) {
		err_set(err, -EIO, "%s: the daemon runs, but the mount is not there", conf->dir);
		return MOUNT_EX_SOFTWARE;
	}
	tell_umount(conf);
	strcpy(state->dir, conf->dir);
	strcpy(state->source, conf->source.text);
	state->pid = command->server;
	state->start = sys_process_start(command->server);
	for (i = 0; i < conf->loop_count; i++)
		want_device(state, conf, conf->loops[i]);
	if (conf->swap)
		want_device(state, conf, conf->swap);
	if (attach_all(&attach, conf->swap_size, err) == 0)
		return MOUNT_EX_OK;
	return err->code == -EINTR ? MOUNT_EX_USER : MOUNT_EX_FAIL;
}

/* In the foreground: until the server ends, or a signal has made us unmount. */
static int stay(struct command *command, struct err *err)
{
	struct pollfd ended = {.fd = command->pipe, .events = POLLIN};
	char note[ERR_TEXT_MAX];
	int res = 0;

	for (;;) {
		bool gone = poll(&ended, 1, -1) > 0;
		if (!gone && !cmd_interrupted)
			continue;
		cmd_interrupted = 0;
		/* A `remram umount` that is at work cleans up itself. */
		if (runstate_lock(
			command->conf->run_dir, false, gone ? 0 : LOCK_MS, &command->lock, err))
			return MOUNT_EX_OK;
		res = unmount_run(&command->unmount, note, err);
		runstate_unlock(command->lock);
		if (res == 0)
			return MOUNT_EX_OK;
		if (gone)
			return MOUNT_EX_FAIL;
		cmd_fail(0, err);
	}
}

static int command_run(struct command *command, struct err *err)
{
	int exit_code;

	command->unmount = (struct unmount){.dir = command->conf->dir,
	    .run_dir = command->conf->run_dir,
	    .daemon_fd = command->conf->foreground ? command->pipe : -1,
	    .interrupted = &cmd_interrupted};
	cmd_catch_signals();
	exit_code = wait_ready(command, err);
	if (exit_code == MOUNT_EX_OK)
		exit_code = set_up(command, err);
	if (exit_code != MOUNT_EX_OK)
		unmount_abandon(&command->unmount, command->server);
	runstate_unlock(command->lock);
	if (exit_code == MOUNT_EX_OK && command->conf->foreground)
		exit_code = stay(command, err);
	return exit_code;
}

/* ---- both -------------------------------------------------------------------------------------- */

static int launch_daemon(struct command *command, int pipe_in, struct err *err)
{
	command->server = fork();
	if (command->server == 0)
		exit(server_run(command->conf, pipe_in, 0));
	close(pipe_in);
	if (command->server < 0) {
		err_sys(err, -errno, "cannot start the daemon");
		runstate_remove(command->conf->run_dir);
		runstate_unlock(command->lock);
		return MOUNT_EX_SYSERR;
	}
	return command_run(command, err);
}

static int launch_foreground(struct command *command, int pipe_in, struct err *err)
{
	pid_t child;
	int status = 0, exit_code;

	command->server = getpid();
	child = fork();
	if (child == 0) {
		close(pipe_in);
		exit_code = command_run(command, err);
		exit(exit_code ? cmd_fail(exit_code, err) : 0);
	}
	close(command->pipe);
	if (child < 0) {
		err_sys(err, -errno, "cannot start a process");
		runstate_remove(command->conf->run_dir);
		runstate_unlock(command->lock);
		close(pipe_in);
		return MOUNT_EX_SYSERR;
	}
	runstate_unlock(command->lock);
	exit_code = server_run(command->conf, pipe_in, child);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	/* The child has printed what is to be said. */
	err->text[0] = '\0';
	return WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : exit_code;
}

int launch(const struct mount_conf *conf, int lock, struct err *err)
{
	struct command *command = calloc(1, sizeof(*command));
	int fds[2], exit_code;

	if (!command || pipe2(fds, O_CLOEXEC)) {
		free(command);
		err_sys(err, -ENOMEM, "cannot start the daemon");
		runstate_unlock(lock);
		return MOUNT_EX_SYSERR;
	}
	command->conf = conf;
	command->lock = lock;
	command->pipe = fds[0];
	fflush(NULL);
	if (conf->foreground) {
		exit_code = launch_foreground(command, fds[1], err);
	} else {
		exit_code = launch_daemon(command, fds[1], err);
		close(command->pipe);
	}
	free(command);
	return exit_code;
}
