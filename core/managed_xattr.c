/* SPDX-License-Identifier: Apache-2.0
 *
 * The extended attributes that the managed pool serves itself (core/managed.h), and the settings of a region:
 * pull order, durability, pins.  Settings are kept in the region's entry, and with a directory in its index.
 *
 * Setting one opens the region first, if it has no cache: only then the index can keep it, and whoever may not
 * open it can't set anything.  An order that does not fit the index (INDEX_TEXT_MAX) holds for this mount only.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/managed_int.h"

#define PREFIX "user.remram."

enum { TEXT_MAX = 4096 };

/* From ATTR_RESIDENT on they are of a region that has been open since the mount. */
enum attr { ATTR_ORDER, ATTR_DURABILITY, ATTR_PINNED, ATTR_RESIDENT, ATTR_DIRTY, ATTR_OLDEST };

static const char *const names[] = {
    [ATTR_ORDER] = PREFIX "pull_order",
    [ATTR_DURABILITY] = PREFIX "durability",
    [ATTR_PINNED] = PREFIX "pinned",
    [ATTR_RESIDENT] = PREFIX "resident",
    [ATTR_DIRTY] = PREFIX "dirty_bytes",
    [ATTR_OLDEST] = PREFIX "oldest_dirty_ms",
};

enum { ATTRS = sizeof(names) / sizeof(names[0]) };

static const char *const durabilities[] = {
    [CACHE_REMOTE] = "remote", [CACHE_LOCAL] = "local", [CACHE_NONE] = "none"};

static int find_attr(const char *name)
{
	for (int i = 0; i < ATTRS; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	return -1;
}

/* ---- settings ---- */

void entry_apply(struct managed_entry *entry)
{
	const struct managed_conf *conf = &entry->managed->conf;

	if (!entry->cache)
		return;
	if (entry->own_order)
		puller_set_order(entry->puller, entry->order, entry->order_count);
	else
		puller_set_order(entry->puller, conf->order, conf->order_count);
	cache_set_durability(entry->cache, entry_durability(entry));
	for (unsigned i = 0; i < entry->pin_count; i++)
		cache_pin(entry->cache, entry->pins[i].off, entry->pins[i].len, true);
}

int entry_set_order(struct managed_entry *entry, const char *text, struct err *err)
{
	unsigned count = 0, most = 1;
	struct pull_range *ranges;
	int rc;

	for (const char *pos = text; *pos; pos++)
		most += *pos == ',';
	if (most > PULL_ORDER_MAX)
		return err_set(err, -E2BIG, "more than %d ranges", PULL_ORDER_MAX);
	ranges = malloc(most * sizeof(*ranges));
	if (!ranges)
		return err_set(err, -ENOMEM, "out of memory for a pull order");
	rc = pull_order_parse(text, ranges, most, &count, err);
	if (rc) {
		free(ranges);
		return rc;
	}
	free(entry->order);
	entry->order = ranges;
	entry->order_count = count;
	entry->own_order = count > 0;
	entry_apply(entry);
	index_touch(entry);
	return 0;
}

int entry_set_pins(struct managed_entry *entry, const char *text)
{
	return pull_order_parse(text, entry->pins, MANAGED_PINS_MAX, &entry->pin_count, NULL);
}

size_t entry_pins_text(const struct managed_entry *entry, char *buf, size_t room)
{
	return pull_order_format(entry->pins, entry->pin_count, buf, room);
}

static int set_durability(struct managed_entry *entry, const char *text)
{
	int durability = -1;

	for (int i = 0; i <= CACHE_NONE; i++)
		if (strcmp(text, durabilities[i]) == 0)
			durability = i;
	if (*text && durability < 0)
		return -EINVAL;
	/* Without a directory there is nothing local that outlives us. */
	if (durability == CACHE_LOCAL && !entry->managed->index)
		return -EOPNOTSUPP;
	entry->durability = durability;
	entry_apply(entry);
	index_touch(entry);
	return 0;
}

/* ---- setting ---- */

struct set {
	struct managed_want want;
	struct managed_entry *entry;
	struct pool_req *req;
	enum attr attr;
	char text[];
};

static void set_opened(struct managed_want *want, int err)
{
	struct set *set = (struct set *)want;
	struct managed_entry *entry = set->entry;
	struct pool_req *req = set->req;

	if (!err) {
		err = set->attr == ATTR_ORDER ? entry_set_order(entry, set->text, NULL)
					      : set_durability(entry, set->text);
		entry_put(entry, want->flags);
	}
	free(set);
	req->owner = NULL;
	pool_complete(req, err);
}

static void set_attr(struct managed *managed, struct pool_req *req, enum attr attr)
{
	bool removes = req->op == POOL_REMOVEXATTR;
	size_t len = removes ? 0 : req->len;
	struct managed_entry *entry = entry_find(managed, req->id);
	struct set *set;

	if (attr != ATTR_ORDER && attr != ATTR_DURABILITY) {
		pool_complete(req, -EPERM);
		return;
	}
	/* They are always there. */
	if (req->flags & POOL_XATTR_CREATE) {
		pool_complete(req, -EEXIST);
		return;
	}
	set = malloc(sizeof(*set) + len + 1);
	if (set && !entry)
		entry = entry_create(managed, req->id, "");
	if (!entry || !set) {
		free(set);
		pool_complete(req, -ENOMEM);
		return;
	}
	set->want = (struct managed_want){.flags = POOL_READ, .done = set_opened};
	set->entry = entry;
	set->req = req;
	set->attr = attr;
	if (len)
		memcpy(set->text, req->data, len);
	set->text[len] = '\0';
	req->owner = set;
	entry_want(entry, &set->want);
}

/* ---- getting ---- */

static int state_text(const struct managed_entry *entry, enum attr attr, char *buf, size_t room)
{
	struct cache_status status;
	uint64_t value;

	if (!entry || !entry->cache)
		return -ENODATA;
	cache_status(entry->cache, &status);
	value = attr == ATTR_RESIDENT ? status.resident
		: attr == ATTR_DIRTY  ? status.dirty
				      : status.oldest_dirty_ns / 1000000;
	return snprintf(buf, room, "%" PRIu64, value);
}

/* The value as text (room bytes), or -errno; its length. */
static int text_of(const struct managed *managed, const struct managed_entry *entry, enum attr attr,
    char *buf, size_t room)
{
	const struct pull_range *order = managed->conf.order;
	unsigned count = managed->conf.order_count;

	switch (attr) {
	case ATTR_ORDER:
		if (entry && entry->own_order) {
			order = entry->order;
			count = entry->order_count;
		}
		return (int)pull_order_format(order, count, buf, room);
	case ATTR_DURABILITY:
		return snprintf(buf, room, "%s",
		    durabilities[entry ? entry_durability(entry) : managed->conf.durability]);
	case ATTR_PINNED:
		buf[0] = '\0';
		return entry ? (int)entry_pins_text(entry, buf, room) : 0;
	default:
		return state_text(entry, attr, buf, room);
	}
}

static int get_attr(struct managed *managed, struct pool_req *req, enum attr attr)
{
	char text[TEXT_MAX], *buf = text;
	size_t room = sizeof(text);
	int len;

	if (attr == ATTR_ORDER) { /* may be long */
		room = POOL_XATTR_VALUE_MAX + 1;
		buf = malloc(room);
		if (!buf)
			return -ENOMEM;
	}
	len = text_of(managed, entry_find(managed, req->id), attr, buf, room);
	if (len >= (int)room)
		len = -E2BIG;
	if (len >= 0 && req->len && req->len < (size_t)len)
		len = -ERANGE;
	if (len > 0 && req->len)
		memcpy(req->data, buf, (size_t)len);
	if (len >= 0)
		req->ret_len = (size_t)len;
	if (buf != text)
		free(buf);
	return len < 0 ? len : 0;
}

bool xattr_submit(struct managed *managed, struct pool_req *req)
{
	int attr = find_attr(req->name);

	if (attr < 0)
		return false;
	if (req->op == POOL_GETXATTR)
		pool_complete(req, get_attr(managed, req, (enum attr)attr));
	else
		set_attr(managed, req, (enum attr)attr);
	return true;
}

bool xattr_interrupt(struct pool_req *req)
{
	struct set *set = req->owner;

	if ((req->op != POOL_SETXATTR && req->op != POOL_REMOVEXATTR) || find_attr(req->name) < 0)
		return false;
	entry_unwant(set->entry, &set->want);
	return true;
}

/* Takes those out that a mount without a cache has set under a name of ours; the length of what is left. */
static size_t drop_ours(char *list, size_t len)
{
	size_t kept = 0, next;

	for (size_t pos = 0; pos < len; pos = next) {
		next = pos + strnlen(list + pos, len - pos) + 1;
		if (next > len || find_attr(list + pos) >= 0)
			continue;
		memmove(list + kept, list + pos, next - pos);
		kept += next - pos;
	}
	return kept;
}

int xattr_list(const struct managed *managed, struct pool_req *req, size_t lower_len)
{
	const struct managed_entry *entry = entry_find(managed, req->id);
	/* What would be -ENODATA is not listed (state_text). */
	int count = entry && entry->cache ? ATTRS : ATTR_RESIDENT;
	char *end = req->data;
	size_t len = 0;

	if (req->len)
		lower_len = drop_ours(req->data, lower_len);
	for (int i = 0; i < count; i++)
		len += strlen(names[i]) + 1;
	if (req->len && lower_len + len > req->len)
		return -ERANGE;
	if (req->len) {
		end += lower_len;
		for (int i = 0; i < count; i++)
			end = stpcpy(end, names[i]) + 1;
	}
	req->ret_len = lower_len + len;
	return 0;
}

/* ---- pins ---- */

int managed_pin(struct pool *pool, uint64_t id, uint64_t off, uint64_t len, bool on)
{
	struct managed_entry *entry = entry_find(managed_of(pool), id);
	struct pull_range kept[MANAGED_PINS_MAX + 2];
	uint64_t end = len && len <= UINT64_MAX - off ? off + len : UINT64_MAX;
	unsigned n = 0;

	if (!entry || !entry->cache)
		return -ENOENT;
	for (unsigned i = 0; i < entry->pin_count; i++) {
		uint64_t lo = entry->pins[i].off, hi = lo + entry->pins[i].len;

		if (on && lo <= end && off <= hi) { /* becomes part of the new one */
			off = lo < off ? lo : off;
			end = hi > end ? hi : end;
			continue;
		}
		if (lo < off || hi <= off)
			kept[n++] = (struct pull_range){lo, (hi < off ? hi : off) - lo, 0};
		if (n > MANAGED_PINS_MAX)
			return -E2BIG;
		if (hi > end)
			kept[n++] =
			    (struct pull_range){lo > end ? lo : end, hi - (lo > end ? lo : end), 0};
		if (n > MANAGED_PINS_MAX)
			return -E2BIG;
	}
	if (on)
		kept[n++] = (struct pull_range){off, end - off, 0};
	if (n > MANAGED_PINS_MAX)
		return -E2BIG;
	memcpy(entry->pins, kept, n * sizeof(kept[0]));
	entry->pin_count = n;
	cache_pin(entry->cache, off, end - off, on);
	entry_apply(entry); /* chunks that a neighbouring pin has, too */
	index_touch(entry);
	return 0;
}
