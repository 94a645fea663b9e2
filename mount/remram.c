/* SPDX-License-Identifier: Apache-2.0
 *
 * remram, the client: mounts a donor's pool, and looks after mounts.
 *
 * One program under several names: as mount.remram and mount.fuse.remram it is what mount(8) calls,
 * as umount.remram and umount.fuse.remram what umount(8) calls.  `remram SRC DIR -o …` mounts too:
 * that is how mount.fuse3 calls the program of a FUSE type.
 */
#include <stdio.h>
#include <string.h>

#include "core/backend.h"
#include "core/log.h"
#include "mount/cmd.h"
#include "mount/serve.h"

enum { SCHEMES_MAX = 32 };

static const char *schemes[SCHEMES_MAX + 1];

static void fill_schemes(void)
{
	unsigned i;

	for (i = 0; i < SCHEMES_MAX && backend_registry[i]; i++)
		schemes[i] = backend_registry[i]->scheme;
}

static void print_usage(FILE *out)
{
	fputs("usage: remram mount SOURCE DIR [-o OPTIONS]   mount a donor's pool\n"
	      "       remram umount DIR                      swap off, detach, unmount, in order\n"
	      "       remram status [--json] [DIR]           mounts, connections, caches, speeds\n"
	      "       remram top [--once] [DIR]              the same, live, with maps of regions\n"
	      "       remram doctor [--json] [DIR]           is this machine ready for swap?\n"
	      "       remram abort DIR                       end a mount that hangs\n"
	      "       remram export SOURCE --nbd ADDR        serve one region over NBD\n"
	      "\n"
	      "of mounts with a cache:\n"
	      "       remram pull FILE [RANGE]               fetch it now, and wait\n"
	      "       remram flush FILE [RANGE] | DIR        push what is dirty, and wait\n"
	      "       remram evict FILE [RANGE] | DIR        give local memory back\n"
	      "       remram pin FILE [RANGE], unpin         keep it in the cache, or no more\n"
	      "       remram record FILE -o ORDER            in which order is it read?\n"
	      "       remram rescue CACHEDIR                 what a cache keeps aside\n"
	      "\n"
	      "       remram help | --version\n"
	      "\n"
	      "SOURCE is a donor's pool, HOST[:PORT]:/POOL, or a URI; `remram mount --help` lists "
	      "the\n"
	      "options.  mount -t fuse.remram, umount and /etc/fstab work as well.\n",
	    out);
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
    {"umount", cmd_umount},
    {"status", cmd_status},
    {"top", cmd_top},
    {"doctor", cmd_doctor},
    {"abort", cmd_abort},
    {"export", cmd_export},
    {"pull", cmd_pull},
    {"flush", cmd_flush},
    {"evict", cmd_evict},
    {"pin", cmd_pin},
    {"unpin", cmd_unpin},
    {"record", cmd_record},
    {"rescue", cmd_rescue},
};

static int run_command(int argc, char **argv)
{
	const char *command = argv[1];

	if (!strcmp(command, "mount"))
		return cmd_mount(argc - 1, argv + 1, false, schemes);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (!strcmp(command, commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	}
	if (!strcmp(command, "help") || !strcmp(command, "--help") || !strcmp(command, "-h")) {
		print_usage(stdout);
		return 0;
	}
	if (!strcmp(command, "--version") || !strcmp(command, "-V")) {
		puts("remram " REMRAM_VERSION);
		return 0;
	}
	if (argc >= 3 && command[0] != '-')
		return cmd_mount(argc, argv, false, schemes);
	fprintf(stderr, "remram: unknown command '%s'\n", command);
	print_usage(stderr);
	return MOUNT_EX_USAGE;
}

int main(int argc, char **argv)
{
	const char *name = base_name(argc > 0 ? argv[0] : "remram");

	log_set_name("remram");
	fill_schemes();
	if (!strncmp(name, "mount.", 6))
		return cmd_mount(argc, argv, true, schemes);
	if (!strncmp(name, "umount.", 7))
		return cmd_umount(argc, argv);
	if (argc < 2) {
		print_usage(stderr);
		return MOUNT_EX_USAGE;
	}
	return run_command(argc, argv);
}
