/* SPDX-License-Identifier: Apache-2.0
 *
 * Options: values, the command line and mount -o.  Files are in opts_file.c, help in opts_help.c.
 *
 * Everything ends in opt_store(entry, value text, origin), which is the only function that writes
 * to conf.  It parses and checks first and writes last, so an error leaves the member as it was, and a
 * bad value is an error even where something of higher rank has already decided.
 *
 * Invariants:
 * 1. rank[i] says who set entry i: 0 nobody or the default, 1 a file, 2 the caller (command line or
 *    mount -o).  Entries that share a member have the same rank.
 * 2. A member of rank r is only written by somebody of rank ≥ r.
 */
#include "core/opts.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/opts_impl.h"
#include "core/uri.h"

enum { RANK_FILE = 1, RANK_CALLER = 2 };
enum { NAME_MAX_LEN = 64 }; /* longer names get no suggestion */

static void *member(void *conf, const struct opt *opt)
{
	return (char *)conf + opt->off;
}

int opt_error(const struct opt_origin *at, struct err *err, const char *fmt, ...)
{
	char text[ERR_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (at->where == OPT_IN_FILE && at->file)
		return err_set(err, -EINVAL, "%s:%u: %s%s%s", at->file, at->line, at->section,
		    *at->section ? " " : "", text);
	return err_set(err, -EINVAL, "%s", text);
}

static char fold(char c)
{
	return c == '-' ? '_' : c;
}

static bool names_equal(const char *a, const char *b, size_t b_len)
{
	size_t i;

	for (i = 0; i < b_len; i++)
		if (!a[i] || fold(a[i]) != fold(b[i]))
			return false;
	return !a[i];
}

/* How many insertions, deletions, replacements and swaps of neighbours turn a into b. */
static unsigned edit_distance(const char *a, const char *b, size_t b_len)
{
	unsigned row[3][NAME_MAX_LEN + 1];
	size_t a_len = strlen(a);

	if (a_len > NAME_MAX_LEN || b_len > NAME_MAX_LEN)
		return NAME_MAX_LEN;
	for (size_t j = 0; j <= b_len; j++)
		row[0][j] = (unsigned)j;
	for (size_t i = 1; i <= a_len; i++) {
		unsigned *now = row[i % 3], *up = row[(i + 2) % 3], *up2 = row[(i + 1) % 3];
		now[0] = (unsigned)i;
		for (size_t j = 1; j <= b_len; j++) {
			unsigned best = up[j - 1] + (fold(a[i - 1]) != fold(b[j - 1]));
			if (up[j] + 1 < best)
				best = up[j] + 1;
			if (now[j - 1] + 1 < best)
				best = now[j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    up2[j - 2] + 1 < best)
				best = up2[j - 2] + 1;
			now[j] = best;
		}
	}
	return row[a_len % 3][b_len];
}

bool opt_allowed(const struct opt *opt, enum opt_where where)
{
	return opt->type != OPT_HEADING && (!opt->where || (opt->where & where));
}

/* The shown option nearest to a name that is unknown, or NULL if none is near. */
static const struct opt *nearest(
    const struct opt *table, const char *name, size_t len, enum opt_where where)
{
	unsigned limit = 1 + (unsigned)(len / 3), best = limit + 1;
	const struct opt *found = NULL;

	for (const struct opt *opt = table; opt->type != OPT_END; opt++) {
		unsigned distance;
		if (!opt_allowed(opt, where) || !opt->help)
			continue;
		distance = edit_distance(opt->name, name, len);
		if (distance < best) {
			best = distance;
			found = opt;
		}
	}
	return found;
}

char *opt_spell(const struct opt *opt, enum opt_where where, char *buf)
{
	const char *dashes = where == OPT_IN_ARGV ? "--" : "";

	snprintf(buf, OPT_TEXT_MAX, "%s%s", dashes, opt->name);
	for (char *p = buf + strlen(dashes); *p; p++) {
		if (where == OPT_IN_ARGV && *p == '_')
			*p = '-';
		else if (where != OPT_IN_ARGV && *p == '-' && opt->type != OPT_IGNORE)
			*p = '_';
	}
	return buf;
}

static bool entry_matches(const struct opt *opt, const char *name, size_t len)
{
	size_t n = strlen(opt->name);

	if (opt->type == OPT_IGNORE && n && opt->name[n - 1] == '*')
		return len >= n - 1 && !strncmp(opt->name, name, n - 1);
	return names_equal(opt->name, name, len);
}

int opt_find(const struct opts *opts, const char *name, size_t len, const struct opt_origin *at,
    unsigned *ret_idx, struct err *err)
{
	const char *kind = at->where == OPT_IN_FILE ? "setting" : "option";
	const char *dashes = at->where == OPT_IN_ARGV ? "--" : "";
	const struct opt *elsewhere = NULL, *near;
	char buf[OPT_TEXT_MAX];
	int cut = (int)(len < NAME_MAX_LEN ? len : NAME_MAX_LEN);

	for (unsigned i = 0; opts->table[i].type != OPT_END; i++) {
		const struct opt *opt = &opts->table[i];
		if (opt->type == OPT_HEADING || !entry_matches(opt, name, len))
			continue;
		if (opt_allowed(opt, at->where)) {
			*ret_idx = i;
			return 0;
		}
		elsewhere = opt;
	}
	if (elsewhere)
		return opt_error(at, err, "%s \"%s%.*s\" can only be given %s", kind, dashes, cut,
		    name,
		    elsewhere->where & OPT_IN_ARGV    ? "on the command line"
		    : elsewhere->where & OPT_IN_MOUNT ? "with -o"
						      : "in the configuration file");
	near = nearest(opts->table, name, len, at->where);
	if (near)
		return opt_error(at, err, "unknown %s \"%s%.*s\": did you mean \"%s\"?", kind,
		    dashes, cut, name, opt_spell(near, at->where, buf));
	return opt_error(at, err, "unknown %s \"%s%.*s\"", kind, dashes, cut, name);
}

bool opt_wants_value(const struct opt *opt)
{
	switch (opt->type) {
	case OPT_FLAG:
	case OPT_CONST:
	case OPT_IGNORE:
		return false;
	case OPT_CALL:
		return opt->placeholder;
	default:
		return true;
	}
}

/* ---- values ------------------------------------------------------------------------------------ */

static int parse_bool(const char *text, bool *ret_value)
{
	static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};

	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (!strcmp(text, words[i])) {
			*ret_value = i & 1;
			return 0;
		}
	return -EINVAL;
}

static int parse_uint(const char *text, uint64_t *ret_value)
{
	uint64_t value = 0;

	if (!*text)
		return -EINVAL;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return -EINVAL;
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
			return -ERANGE;
	}
	*ret_value = value;
	return 0;
}

static int parse_choice(const struct opt *opt, const char *text, uint64_t *ret_value)
{
	for (const struct opt_choice *c = opt->choices; c->name; c++)
		if (!strcmp(text, c->name)) {
			*ret_value = (uint64_t)c->value;
			return 0;
		}
	return -EINVAL;
}

static uint64_t upper_limit(const struct opt *opt)
{
	uint64_t holds = opt->width >= 8 ? UINT64_MAX : (UINT64_C(1) << (8 * opt->width)) - 1;

	return opt->max && opt->max < holds ? opt->max : holds;
}

static int bad_value(const struct opt *opt, const char *value, const char *what,
    const struct opt_origin *at, struct err *err)
{
	char name[OPT_TEXT_MAX], limits[OPT_TEXT_MAX];

	opt_spell(opt, at->where, name);
	opt_limits(opt, limits);
	return opt_error(at, err, "%s: \"%.200s\" %s%s%s%s", name, value, what, *limits ? " (" : "",
	    limits, *limits ? ")" : "");
}

/* The number that the text of an integer option means; errors are reported. */
static int parse_number(const struct opt *opt, const char *value, const struct opt_origin *at,
    uint64_t *ret_value, struct err *err)
{
	const char *what = "is not a number";
	uint64_t number = 0;
	int r;

	switch (opt->type) {
	case OPT_SIZE:
		what = "is not a size";
		r = size_parse(value, &number);
		break;
	case OPT_DURATION:
		what = "is not a duration";
		r = duration_parse(value, &number);
		break;
	case OPT_ENUM:
		r = parse_choice(opt, value, &number);
		if (r)
			return bad_value(opt, value, "is none of the choices", at, err);
		*ret_value = number;
		return 0;
	default:
		r = parse_uint(value, &number);
	}
	if (r == -EINVAL)
		return bad_value(opt, value, what, at, err);
	if (r || number > upper_limit(opt))
		return bad_value(opt, value, "is too large", at, err);
	if (number < opt->min)
		return bad_value(opt, value, "is too small", at, err);
	*ret_value = number;
	return 0;
}

static void put_integer(void *conf, const struct opt *opt, uint64_t value)
{
	/* Little- or big-endian alike: through a variable of the member's width. */
	uint8_t v8 = (uint8_t)value;
	uint16_t v16 = (uint16_t)value;
	uint32_t v32 = (uint32_t)value;

	switch (opt->width) {
	case 1:
		memcpy(member(conf, opt), &v8, 1);
		break;
	case 2:
		memcpy(member(conf, opt), &v16, 2);
		break;
	case 4:
		memcpy(member(conf, opt), &v32, 4);
		break;
	default:
		memcpy(member(conf, opt), &value, 8);
	}
}

/* Checks a STRING's or LIST's text. */
static int check_text(
    const struct opt *opt, const char *value, const struct opt_origin *at, struct err *err)
{
	struct err inner = {0};
	char name[OPT_TEXT_MAX];
	size_t len = strlen(value);

	if (opt->type == OPT_STRING && len < opt->min)
		return bad_value(opt, value, "is too short", at, err);
	if (opt->type == OPT_STRING && opt->max && len > opt->max)
		return bad_value(opt, value, "is too long", at, err);
	if (!opt->check || !opt->check(value, &inner))
		return 0;
	return opt_error(at, err, "%s: %s", opt_spell(opt, at->where, name), inner.text);
}

static void list_clear(struct opt_list *list)
{
	for (unsigned i = 0; i < list->count; i++)
		free(list->items[i]);
	free(list->items);
	*list = (struct opt_list){0};
}

static int list_add(struct opt_list *list, const char *value)
{
	char **items = realloc(list->items, (list->count + 1) * sizeof(*items));
	char *copy;

	if (!items)
		return -ENOMEM;
	list->items = items;
	copy = strdup(value);
	if (!copy)
		return -ENOMEM;
	items[list->count++] = copy;
	return 0;
}

static int put_text(void *conf, const struct opt *opt, const char *value, bool replace,
    const struct opt_origin *at, struct err *err)
{
	int r = 0;

	if (opt->type == OPT_STRING) {
		char **slot = member(conf, opt), *copy = strdup(value);
		if (copy) {
			free(*slot);
			*slot = copy;
		} else {
			r = -ENOMEM;
		}
	} else {
		struct opt_list *list = member(conf, opt);
		char name[OPT_TEXT_MAX];
		if (replace)
			list_clear(list);
		if (opt->max && list->count >= opt->max)
			return opt_error(at, err, "%s: given more than %llu times",
			    opt_spell(opt, at->where, name), (unsigned long long)opt->max);
		r = list_add(list, value);
	}
	return r ? err_sys(err, r, "cannot keep an option") : 0;
}

static int store_bool(void *conf, const struct opt *opt, const char *value, bool put,
    const struct opt_origin *at, struct err *err)
{
	bool yes = true;

	if (value && parse_bool(value, &yes))
		return bad_value(opt, value, "is neither yes nor no", at, err);
	if (opt->type == OPT_CONST) {
		if (value && (at->where != OPT_IN_FILE || !yes))
			return bad_value(
			    opt, value, "does not belong here: it takes no value", at, err);
		if (put)
			put_integer(conf, opt, (uint64_t)opt->value);
	} else if (put) {
		memcpy(member(conf, opt), &yes, sizeof(yes));
	}
	return 0;
}

static int store_call(void *conf, const struct opt *opt, const char *value, bool put,
    const struct opt_origin *at, struct err *err)
{
	struct err inner = {0};
	char name[OPT_TEXT_MAX];
	int r;

	if (!opt->placeholder && value && at->where != OPT_IN_FILE)
		return bad_value(opt, value, "does not belong here: it takes no value", at, err);
	if (!put)
		return 0;
	r = opt->call(conf, opt, opt->placeholder ? value : NULL, &inner);
	if (!r)
		return 0;
	opt_error(at, err, "%s: %s", opt_spell(opt, at->where, name), inner.text);
	if (err)
		err->code = r;
	return r;
}

/* Parses, checks and, if `put`, writes.  replace: a list loses what it has. */
static int store_value(void *conf, const struct opt *opt, const char *value, bool put, bool replace,
    const struct opt_origin *at, struct err *err)
{
	char name[OPT_TEXT_MAX];
	uint64_t number = 0;
	int r;

	if (!value && opt_wants_value(opt))
		return opt_error(at, err, "%s needs a value: %s", opt_spell(opt, at->where, name),
		    opt->placeholder ? opt->placeholder : "yes or no");
	switch (opt->type) {
	case OPT_FLAG:
	case OPT_BOOL:
	case OPT_CONST:
		return store_bool(conf, opt, value, put, at, err);
	case OPT_CALL:
		return store_call(conf, opt, value, put, at, err);
	case OPT_STRING:
	case OPT_LIST:
		r = check_text(opt, value, at, err);
		if (r || !put)
			return r;
		return put_text(conf, opt, value, replace, at, err);
	case OPT_IGNORE:
		return 0;
	default:
		r = parse_number(opt, value, at, &number, err);
		if (!r && put)
			put_integer(conf, opt, number);
		return r;
	}
}

int opt_store(struct opts *opts, unsigned idx, const char *value, const struct opt_origin *at,
    struct err *err)
{
	uint8_t rank = at->where == OPT_IN_FILE ? RANK_FILE : RANK_CALLER;
	const struct opt *opt = &opts->table[idx];
	int r = store_value(
	    opts->conf, opt, value, rank >= opts->rank[idx], rank > opts->rank[idx], at, err);

	if (r || rank < opts->rank[idx])
		return r;
	opts->rank[idx] = rank;
	for (unsigned i = 0; opt->width && opts->table[i].type != OPT_END; i++)
		if (opts->table[i].width && opts->table[i].off == opt->off)
			opts->rank[i] = rank;
	return 0;
}

/* ---- life -------------------------------------------------------------------------------------- */

static void assert_sound(const struct opt *opt)
{
	if (opt->type == OPT_HEADING) {
		assert(opt->help);
		return;
	}
	assert(opt->name && *opt->name);
	assert(!opt->max || opt->min <= opt->max);
	switch (opt->type) {
	case OPT_FLAG:
	case OPT_BOOL:
		assert(opt->width == sizeof(bool));
		break;
	case OPT_STRING:
		assert(opt->width == sizeof(char *) && opt->placeholder);
		break;
	case OPT_LIST:
		assert(opt->width == sizeof(struct opt_list) && opt->placeholder);
		break;
	case OPT_CALL:
		assert(opt->call && !opt->width && !opt->def);
		break;
	case OPT_IGNORE:
		assert(!opt->width);
		break;
	default:
		assert(opt->width == 1 || opt->width == 2 || opt->width == 4 || opt->width == 8);
		assert(opt->type != OPT_ENUM || opt->choices);
		assert(opt->type == OPT_CONST || opt->placeholder);
	}
}

void opts_init(struct opts *opts, const struct opt *table, void *conf)
{
	const struct opt_origin at = {.where = OPT_IN_MOUNT, .section = ""};

	memset(opts, 0, sizeof(*opts));
	opts->table = table;
	opts->conf = conf;
	for (unsigned i = 0; table[i].type != OPT_END; i++) {
		struct err err;
		int r;
		assert(i < OPTS_MAX);
		assert_sound(&table[i]);
		if (!table[i].def)
			continue;
		r = store_value(conf, &table[i], table[i].def, true, true, &at, &err);
		assert(!r);
	}
}

void opts_free(const struct opt *table, void *conf)
{
	for (const struct opt *opt = table; opt->type != OPT_END; opt++) {
		if (opt->type == OPT_STRING) {
			char **slot = member(conf, opt);
			free(*slot);
			*slot = NULL;
		} else if (opt->type == OPT_LIST) {
			list_clear(member(conf, opt));
		}
	}
}

static unsigned known(const struct opts *opts, const char *name)
{
	unsigned i = 0;

	while (opts->table[i].type == OPT_HEADING ||
	       (opts->table[i].type != OPT_END && strcmp(opts->table[i].name, name)))
		i++;
	assert(opts->table[i].type != OPT_END);
	return i;
}

bool opts_given(const struct opts *opts, const char *name)
{
	return opts->rank[known(opts, name)];
}

int opts_set_file(struct opts *opts, const char *name, const char *value, struct err *err)
{
	const struct opt_origin at = {.where = OPT_IN_FILE, .section = ""};

	return opt_store(opts, known(opts, name), value, &at, err);
}

/* ---- command line and mount -o ------------------------------------------------------------------ */

/* argv[*i] is --something. */
static int argv_long(struct opts *opts, int argc, char **argv, int *i, struct err *err)
{
	const struct opt_origin at = {.where = OPT_IN_ARGV, .section = ""};
	const char *name = argv[*i] + 2, *value = strchr(name, '=');
	size_t len = value ? (size_t)(value - name) : strlen(name);
	unsigned idx;
	int r = opt_find(opts, name, len, &at, &idx, err);

	if (r)
		return r;
	if (value)
		value++;
	else if (opt_wants_value(&opts->table[idx]) && *i + 1 < argc)
		value = argv[++*i];
	return opt_store(opts, idx, value, &at, err);
}

/* argv[*i] is -x…: one option with its value, or several without. */
static int argv_short(struct opts *opts, int argc, char **argv, int *i, struct err *err)
{
	const struct opt_origin at = {.where = OPT_IN_ARGV, .section = ""};

	for (const char *p = argv[*i] + 1; *p; p++) {
		const struct opt *opt = opts->table;
		const char *value = NULL;
		bool last;
		int r;
		while (opt->type != OPT_END && (opt->letter != *p || !opt_allowed(opt, at.where)))
			opt++;
		if (opt->type == OPT_END)
			return opt_error(&at, err, "unknown option \"-%c\"", *p);
		last = opt_wants_value(opt);
		if (last && p[1])
			value = p + 1;
		else if (last && *i + 1 < argc)
			value = argv[++*i];
		r = opt_store(opts, (unsigned)(opt - opts->table), value, &at, err);
		if (r || last)
			return r;
	}
	return 0;
}

int opts_argv(struct opts *opts, int argc, char **argv, int *ret_operands, struct err *err)
{
	int operands = 0;
	bool ended = false;

	for (int i = 1; i < argc; i++) {
		char *arg = argv[i];
		int r = 0;
		if (!ended && !strcmp(arg, "--"))
			ended = true;
		else if (!ended && !strncmp(arg, "--", 2))
			r = argv_long(opts, argc, argv, &i, err);
		else if (!ended && arg[0] == '-' && arg[1])
			r = argv_short(opts, argc, argv, &i, err);
		else if (ret_operands)
			argv[1 + operands++] = arg;
		else
			r = err_set(err, -EINVAL, "unexpected argument \"%.200s\"", arg);
		if (r)
			return r;
	}
	if (ret_operands)
		*ret_operands = operands;
	return 0;
}

int opts_mount(struct opts *opts, const char *text, struct err *err)
{
	const struct opt_origin at = {.where = OPT_IN_MOUNT, .section = ""};
	char *copy = strdup(text), *rest = copy, *item;
	int r = 0;

	if (!copy)
		return err_sys(err, -ENOMEM, "cannot read the mount options");
	while (!r && (item = strsep(&rest, ","))) {
		char *value = strchr(item, '=');
		unsigned idx = 0;
		if (!*item)
			continue;
		if (value)
			*value++ = '\0';
		r = opt_find(opts, item, strlen(item), &at, &idx, err);
		if (!r)
			r = opt_store(opts, idx, value, &at, err);
	}
	free(copy);
	return r;
}
