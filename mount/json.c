/* SPDX-License-Identifier: Apache-2.0
 *
 * A small reader of JSON; see json.h.
 *
 * Invariants: every value is linked into its parent before the next one is read, so that a failed
 * parse is freed from the root; depth is bounded, so that recursion is; the text of every value is a
 * NUL-terminated copy of its own.
 */
#include "mount/json.h"

#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct json {
	enum json_type type;
	char *name; /* as a member */
	char *text; /* STRING: decoded; NUMBER: as written */
	struct json *first, *last; /* ARRAY, OBJECT */
	struct json *next;
};

struct parser {
	const char *text;
	size_t len, pos;
	unsigned depth;
};

static int parse_value(struct parser *p, struct json *value);

/* The next character, or 0 at the end (a NUL in the text is no JSON either). */
static char peek(const struct parser *p)
{
	return p->pos < p->len ? p->text[p->pos] : '\0';
}

static void skip_space(struct parser *p)
{
	while (peek(p) == ' ' || peek(p) == '\t' || peek(p) == '\n' || peek(p) == '\r')
		p->pos++;
}

static bool take(struct parser *p, char c)
{
	skip_space(p);
	if (peek(p) != c)
		return false;
	p->pos++;
	return true;
}

static char *put_utf8(char *out, unsigned code)
{
	if (code < 0x80) {
		*out++ = (char)code;
	} else if (code < 0x800) {
		*out++ = (char)(0xc0 | code >> 6);
		*out++ = (char)(0x80 | (code & 0x3f));
	} else if (code < 0x10000) {
		*out++ = (char)(0xe0 | code >> 12);
		*out++ = (char)(0x80 | (code >> 6 & 0x3f));
		*out++ = (char)(0x80 | (code & 0x3f));
	} else {
		*out++ = (char)(0xf0 | code >> 18);
		*out++ = (char)(0x80 | (code >> 12 & 0x3f));
		*out++ = (char)(0x80 | (code >> 6 & 0x3f));
		*out++ = (char)(0x80 | (code & 0x3f));
	}
	return out;
}

/* Four hex digits. */
static int parse_hex(struct parser *p, unsigned *ret_code)
{
	unsigned code = 0, i;

	for (i = 0; i < 4; i++) {
		char c = peek(p);
		if (!isxdigit((unsigned char)c))
			return -EINVAL;
		code = code * 16 + (unsigned)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
		p->pos++;
	}
	*ret_code = code;
	return 0;
}

/* What follows "\u"; a NUL or half a surrogate pair becomes U+FFFD. */
static int parse_unicode(struct parser *p, char **out)
{
	unsigned code, low;
	size_t behind;
	int res = parse_hex(p, &code);

	if (res)
		return res;
	behind = p->pos;
	if (code >= 0xd800 && code < 0xdc00 && peek(p) == '\\') {
		p->pos++;
		if (peek(p) == 'u') {
			p->pos++;
			res = parse_hex(p, &low);
			if (res)
				return res;
			if (low >= 0xdc00 && low < 0xe000) {
				code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
				behind = p->pos;
			}
		}
		p->pos = behind;
	}
	if (code == 0 || (code >= 0xd800 && code < 0xe000))
		code = 0xfffd;
	*out = put_utf8(*out, code);
	return 0;
}

static int parse_escape(struct parser *p, char **out)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *which;
	char c = peek(p);

	if (c == '\0')
		return -EINVAL;
	p->pos++;
	if (c == 'u')
		return parse_unicode(p, out);
	which = strchr(from, c);
	if (!which)
		return -EINVAL;
	*(*out)++ = to[which - from];
	return 0;
}

/* A string, the opening quote included. */
static int parse_string(struct parser *p, char **ret_text)
{
	char *text, *out;
	size_t len;
	int res = 0;

	if (!take(p, '"'))
		return -EINVAL;
	for (len = 0; p->pos + len < p->len && p->text[p->pos + len] != '"'; len++) {
		if (p->text[p->pos + len] == '\\')
			len++;
	}
	text = out = malloc(len + 1); /* an escape is never longer than what it means */
	if (!text)
		return -ENOMEM;
	while (res == 0 && peek(p) != '"') {
		if (p->pos >= p->len || (unsigned char)peek(p) < 0x20)
			res = -EINVAL;
		else if (peek(p) == '\\' && ++p->pos)
			res = parse_escape(p, &out);
		else
			*out++ = p->text[p->pos++];
	}
	if (res) {
		free(text);
		return res;
	}
	p->pos++;
	*out = '\0';
	*ret_text = text;
	return 0;
}

static bool skip_digits(struct parser *p)
{
	size_t start = p->pos;

	while (isdigit((unsigned char)peek(p)))
		p->pos++;
	return p->pos > start;
}

static int parse_number(struct parser *p, struct json *value)
{
	size_t start = p->pos;

	if (peek(p) == '-')
		p->pos++;
	if (peek(p) == '0')
		p->pos++;
	else if (!skip_digits(p))
		return -EINVAL;
	if (peek(p) == '.') {
		p->pos++;
		if (!skip_digits(p))
			return -EINVAL;
	}
	if (peek(p) == 'e' || peek(p) == 'E') {
		p->pos++;
		if (peek(p) == '+' || peek(p) == '-')
			p->pos++;
		if (!skip_digits(p))
			return -EINVAL;
	}
	value->type = JSON_NUMBER;
	value->text = strndup(p->text + start, p->pos - start);
	return value->text ? 0 : -ENOMEM;
}

static int parse_word(struct parser *p, const char *word, enum json_type type, struct json *value)
{
	size_t len = strlen(word);

	if (p->len - p->pos < len || memcmp(p->text + p->pos, word, len))
		return -EINVAL;
	p->pos += len;
	value->type = type;
	return 0;
}

static struct json *add_child(struct json *parent)
{
	struct json *child = calloc(1, sizeof(*child));

	if (!child)
		return NULL;
	if (parent->last)
		parent->last->next = child;
	else
		parent->first = child;
	parent->last = child;
	return child;
}

/* The items up to the closing bracket; the opening one is behind us. */
static int parse_items(struct parser *p, struct json *parent, char closing)
{
	if (take(p, closing))
		return 0;
	for (;;) {
		struct json *child = add_child(parent);
		int res = child ? 0 : -ENOMEM;
		if (res == 0 && parent->type == JSON_OBJECT) {
			res = parse_string(p, &child->name);
			if (res == 0 && !take(p, ':'))
				res = -EINVAL;
		}
		if (res == 0)
			res = parse_value(p, child);
		if (res)
			return res;
		if (take(p, closing))
			return 0;
		if (!take(p, ','))
			return -EINVAL;
	}
}

static int parse_nested(struct parser *p, struct json *value, enum json_type type, char closing)
{
	int res;

	if (++p->depth > JSON_DEPTH_MAX)
		return -EINVAL;
	p->pos++;
	value->type = type;
	res = parse_items(p, value, closing);
	p->depth--;
	return res;
}

static int parse_value(struct parser *p, struct json *value)
{
	skip_space(p);
	switch (peek(p)) {
	case '{':
		return parse_nested(p, value, JSON_OBJECT, '}');
	case '[':
		return parse_nested(p, value, JSON_ARRAY, ']');
	case '"':
		value->type = JSON_STRING;
		return parse_string(p, &value->text);
	case 't':
		return parse_word(p, "true", JSON_TRUE, value);
	case 'f':
		return parse_word(p, "false", JSON_FALSE, value);
	case 'n':
		return parse_word(p, "null", JSON_NULL, value);
	default:
		return parse_number(p, value);
	}
}

int json_parse(const char *text, size_t len, struct json **ret_doc, struct err *err)
{
	struct parser p = {.text = text, .len = len};
	struct json *doc = calloc(1, sizeof(*doc));
	int res = doc ? parse_value(&p, doc) : -ENOMEM;

	if (res == 0) {
		skip_space(&p);
		if (p.pos == len) {
			*ret_doc = doc;
			return 0;
		}
		res = -EINVAL;
	}
	json_destroy(doc);
	if (res == -ENOMEM)
		return err_sys(err, res, "JSON");
	return err_set(err, res, "no valid JSON at byte %zu", p.pos);
}

void json_destroy(struct json *doc)
{
	struct json *child, *next;

	if (!doc)
		return;
	for (child = doc->first; child; child = next) {
		next = child->next;
		json_destroy(child);
	}
	free(doc->name);
	free(doc->text);
	free(doc);
}

enum json_type json_type(const struct json *value)
{
	return value ? value->type : JSON_NULL;
}

const struct json *json_first(const struct json *value)
{
	return value ? value->first : NULL;
}

const struct json *json_next(const struct json *value)
{
	return value ? value->next : NULL;
}

const char *json_name(const struct json *value)
{
	return value ? value->name : NULL;
}

const struct json *json_find(const struct json *value, const char *path)
{
	while (value) {
		size_t len = strcspn(path, ".");
		const struct json *child = value->type == JSON_OBJECT ? value->first : NULL;
		while (child && (strlen(child->name) != len || memcmp(child->name, path, len)))
			child = child->next;
		value = child;
		if (!path[len])
			break;
		path += len + 1;
	}
	return value;
}

double json_number(const struct json *value, double other)
{
	return json_type(value) == JSON_NUMBER ? strtod(value->text, NULL) : other;
}

const char *json_string(const struct json *value, const char *other)
{
	return json_type(value) == JSON_STRING ? value->text : other;
}

uint64_t json_u64(const struct json *value, uint64_t other)
{
	const char *text =
	    json_type(value) == JSON_NUMBER || json_type(value) == JSON_STRING ? value->text : "";
	unsigned long long number;
	char *end;

	if (!isdigit((unsigned char)*text))
		return other;
	errno = 0;
	number = strtoull(text, &end, 10);
	return *end || errno ? other : number;
}

const char *json_text(const struct json *value)
{
	switch (json_type(value)) {
	case JSON_TRUE:
		return "true";
	case JSON_FALSE:
		return "false";
	case JSON_NULL:
		return "null";
	case JSON_NUMBER:
	case JSON_STRING:
		return value->text;
	default:
		return NULL;
	}
}

/* The length of the UTF-8 sequence that text begins with; 0 if it is none. */
static size_t utf8_len(const unsigned char *text)
{
	size_t len, i;

	if (text[0] < 0x80)
		return 1;
	if (text[0] < 0xc2 || text[0] > 0xf4)
		return 0;
	len = text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 : 4;
	for (i = 1; i < len; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
	}
	/* Longer than needed, a surrogate, or beyond the last code point. */
	if ((text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xed && text[1] > 0x9f) ||
	    (text[0] == 0xf0 && text[1] < 0x90) || (text[0] == 0xf4 && text[1] > 0x8f))
		return 0;
	return len;
}

void json_write_string(FILE *out, const char *text)
{
	const unsigned char *p = (const unsigned char *)text;

	putc('"', out);
	while (*p) {
		size_t len = utf8_len(p);
		if (*p == '"' || *p == '\\')
			fprintf(out, "\\%c", *p);
		else if (*p < 0x20 || *p == 0x7f)
			fprintf(out, "\\u%04x", *p);
		else if (len == 0)
			fputs("\\ufffd", out);
		else
			fwrite(p, 1, len, out);
		p += len ? len : 1;
	}
	putc('"', out);
}

void json_write(FILE *out, const struct json *value)
{
	const struct json *child = json_first(value);
	enum json_type type = json_type(value);

	if (type == JSON_STRING) {
		json_write_string(out, value->text);
	} else if (type == JSON_ARRAY || type == JSON_OBJECT) {
		putc(type == JSON_ARRAY ? '[' : '{', out);
		for (; child; child = child->next) {
			if (child->name) {
				json_write_string(out, child->name);
				putc(':', out);
			}
			json_write(out, child);
			if (child->next)
				putc(',', out);
		}
		putc(type == JSON_ARRAY ? ']' : '}', out);
	} else {
		fputs(json_text(value), out);
	}
}
