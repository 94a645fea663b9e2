/* SPDX-License-Identifier: Apache-2.0
 *
 * Options: one table says everything about a program's settings, and from it they are read out of
 * the command line, out of a mount -o string and out of an INI file, and printed as --help and as
 * man page source.
 *
 *   struct my_conf { uint64_t size; bool wait; struct opt_list names; };
 *   static const struct opt table[] = {
 *           {.name = "size", .type = OPT_SIZE, .placeholder = "SIZE", .def = "1G", .min = 4096,
 *            .help = "how large it becomes", OPT_AT(struct my_conf, size)},
 *           {.name = "wait", .type = OPT_FLAG, .help = "wait for it", OPT_AT(struct my_conf, wait)},
 *           {.type = OPT_END},
 *   };
 *   struct my_conf conf = {0};
 *   struct opts opts;
 *   opts_init(&opts, table, &conf);
 *   err_code = opts_argv(&opts, argc, argv, &operands, &err);
 *   …
 *   opts_free(table, &conf);
 *
 * Names: '-' and '_' are the same character: --spin-us, -o spin_us=5 and "spin_us = 5" are one
 * option.  A name is written --like-this on the command line and like_this everywhere else.
 *
 * Precedence: a default gives way to a file, a file to the command line and mount -o, whatever the
 * order of the calls; among equals the last one wins.  For a list, a setting of higher rank replaces
 * all items of lower rank, one of the same rank adds an item.
 *
 * Errors: -EINVAL for what the user wrote wrong, -ENOMEM, and the system's codes for files.  err says
 * which option (and which line of which file), what is wrong, what is allowed.  After an error conf is
 * partly filled: opts_free it.  All functions are for set-up code: they allocate, files are read.
 */
#ifndef REMRAM_CORE_OPTS_H
#define REMRAM_CORE_OPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/err.h"

enum opt_type {
	OPT_END = 0, /* ends a table */
	OPT_HEADING, /* a line in --help and the man page: only `help` is used */
	OPT_FLAG, /* bool member; `name` alone means yes, `name=yes|no` is taken too; in a file the value
		     must stand there */
	OPT_BOOL, /* bool member; a value (yes, no, true, false, on, off, 1, 0) must be given */
	OPT_CONST, /* integer member, becomes `value`; takes no value (in a file: "yes"); several entries
		      may share a member: "hard", "soft" */
	OPT_STRING, /* char * member, owned by conf, NULL if never set; limits: its length in bytes */
	OPT_LIST, /* struct opt_list member: repeatable; limits: max is the number of items */
	OPT_SIZE, /* integer member, bytes; K M G T P are taken (core/uri.h, size_parse) */
	OPT_DURATION, /* integer member, milliseconds; ms s m h are taken, a bare number is seconds */
	OPT_UINT, /* integer member */
	OPT_ENUM, /* integer member: one of `choices` */
	OPT_CALL, /* calls `call`; takes a value if it has a placeholder */
	OPT_IGNORE, /* accepted with or without a value, does nothing; a name that ends with '*' matches
		       everything that begins so ("x-*") */
};

/* Where an option may stand; opt.where 0 means everywhere. */
enum opt_where { OPT_IN_ARGV = 1, OPT_IN_MOUNT = 2, OPT_IN_FILE = 4 };

struct opt_choice {
	const char *name; /* NULL ends the array */
	int value;
};

struct opt_list {
	char **items; /* owned by conf */
	unsigned count;
};

/* One option.  Integer members are 1, 2, 4 or 8 bytes wide; a value that does not fit is an error. */
struct opt {
	const char *name; /* NULL only in OPT_END, OPT_HEADING */
	enum opt_type type;
	char letter; /* also as -x on the command line; 0: no */
	unsigned where; /* of enum opt_where */
	const char *placeholder; /* names the value in help: "SIZE" */
	const char *unit; /* what an OPT_UINT counts, for messages: "µs"; NULL: nothing */
	const char *def; /* text of the default, NULL: the member stays zero */
	const char *def_help; /* shown as default instead of def: "number of CPUs" */
	uint64_t min, max; /* limits; max 0: as much as the member holds */
	const struct opt_choice *choices; /* OPT_ENUM */
	int value; /* OPT_CONST */
	/* Optional: is the text good?  -errno and err: what is wrong with it, without the option's
	 * name. STRING, LIST only. */
	int (*check)(const char *value, struct err *err);
	/* OPT_CALL: value is NULL if there is no placeholder; err as for check. */
	int (*call)(void *conf, const struct opt *opt, const char *value, struct err *err);
	const char *help; /* a phrase; NULL: works, but is not shown */
	size_t off, width; /* the member: use OPT_AT */
};

#define OPT_AT(type, member) .off = offsetof(type, member), .width = sizeof(((type *)0)->member)

enum { OPTS_MAX = 128 };

/* What one reading of options remembers. */
struct opts {
	const struct opt *table; /* borrowed */
	void *conf; /* borrowed */
	uint8_t rank[OPTS_MAX]; /* of each entry: who set it */
};

/* Binds table to conf (all zero bytes) and stores the defaults.  A faulty table asserts. */
void opts_init(struct opts *opts, const struct opt *table, void *conf);
/* Frees the strings and lists in conf and makes them NULL. */
void opts_free(const struct opt *table, void *conf);
/* True if something other than the default set it.  An unknown name asserts. */
bool opts_given(const struct opts *opts, const char *name);

/* Reads argv[1] … argv[argc-1]: --name value, --name=value, --flag, -x value, -xvalue, -xyz for flags;
 * "--" ends the options.  Operands (everything else, also "-") are moved to argv[1] … and counted
 * in *ret_operands; with ret_operands NULL an operand is an error. */
int opts_argv(struct opts *opts, int argc, char **argv, int *ret_operands, struct err *err);

/* Reads the text of one mount -o: a=b,c,d=e.  A comma always ends an option; empty ones are passed
 * over. */
int opts_mount(struct opts *opts, const char *text, struct err *err);

/* A section of a file that may stand there repeatedly, each time with another argument: [pool ram]. */
struct opt_section {
	const char *name; /* "pool"; NULL ends the array */
	const struct opt *table; /* its keys */
	/* [name arg] begins (arg is "" if there is none): *ret_conf is where the keys go, all zero
	 * bytes. */
	int (*begin)(void *ctx, const char *arg, void **ret_conf, struct err *err);
	/* All its keys are read: take what is wanted; strings are freed when it returns. */
	int (*end)(void *ctx, void *conf, struct err *err);
	void *ctx;
};

/* Reads the INI file `path`: "key = value" lines; a '#' or ';' at the beginning of a line or after
 * white space begins a comment.  Keys before the first [section], and in [global], are those of
 * opts->table.  sections may be NULL.  -ENOENT if there is no file. */
int opts_file(
    struct opts *opts, const char *path, const struct opt_section *sections, struct err *err);

/* Sets one option as if it stood in a file; for sections that are another way to write an option. */
int opts_set_file(struct opts *opts, const char *name, const char *value, struct err *err);

/* Prints the options that may stand in `where` (one of enum opt_where), in its notation, for
 * people; wrapped to 79 columns. */
void opts_print_help(const struct opt *table, enum opt_where where, FILE *out);
/* The same as mdoc(7) source: a tagged list. */
void opts_print_mdoc(const struct opt *table, enum opt_where where, FILE *out);

#endif
